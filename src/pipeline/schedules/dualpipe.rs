//! DualPipe and DualPipeV (DeepSeek-V3, arXiv 2412.19437, §3.2.1; the order of their open-source releases): forwards
//! of one direction run side by side with backwards of the other.
//!
//! A DualPipe device d of p holds stages d and p−1−d; half of the micro-batches enter at either end. DualPipeV is its first
//! half on its own: the two stages of a device are two chunks of one pipeline in V shape, and all micro-batches enter at
//! device 0. Both orders are the same but for their numbers: seen from the device, direction 0 is the one whose
//! micro-batches reach it first.

use crate::pipeline::schedule::{Schedule, ScheduleSpec, StageOperation, Work};

pub fn two_way(spec: &ScheduleSpec) -> Schedule {
    let (p, m) = (spec.stages, spec.micro_batches);
    Schedule::from_lists(spec, 2, |device, list| {
        let near = device.min(p - 1 - device);
        let order = Order { devices: p / 2, device: near, passes: m / 2 };
        // The far half of the devices is entered the other way round.
        order.write(usize::from(device >= p / 2), m / 2, list);
    })
}

pub fn vee(spec: &ScheduleSpec) -> Schedule {
    let (p, m) = (spec.stages, spec.micro_batches);
    Schedule::from_lists(spec, 2, |device, list| {
        Order { devices: p, device, passes: m }.write(0, 0, list);
    })
}

/// The order of one device, in a half (or V) of `devices` of them, each direction making `passes` passes.
struct Order {
    devices: usize,
    device: usize,
    passes: usize,
}

/// What is written, and how far each direction is.
struct Writer<'a> {
    list: &'a mut Vec<StageOperation>,
    /// The chunk that direction 0 means.
    first_chunk: usize,
    /// Micro-batches of chunk 1 are counted from here.
    second_half: usize,
    forwards: [usize; 2],
    backwards: [usize; 2],
    /// Passes whose B has run and whose W waits.
    pending: std::collections::VecDeque<StageOperation>,
}

impl Order {
    fn write(&self, first_chunk: usize, second_half: usize, list: &mut Vec<StageOperation>) {
        let (ahead, behind) = (self.devices - 1 - self.device, self.device + 1);
        let mut w = Writer {
            list,
            first_chunk,
            second_half,
            forwards: [0; 2],
            backwards: [0; 2],
            pending: std::collections::VecDeque::new(),
        };
        (0..2 * ahead).for_each(|_| w.forward(0));
        for _ in 0..behind {
            w.forward(0);
            w.forward(1);
        }
        for _ in 0..ahead {
            w.backward(1, true);
            w.weight();
            w.forward(1);
        }
        for i in 0..self.passes + behind - 2 * self.devices {
            if i == 0 && ahead == 0 {
                // Where the directions meet, overlapping the first two would only delay the one that is waited for.
                w.forward(0);
                w.backward(1, false);
            } else {
                w.pair(0);
            }
            w.pair(1);
        }
        for _ in 0..ahead {
            w.backward(1, false);
            w.pair(1);
        }
        self.drain(ahead, behind, &mut w);
    }

    /// The last backwards: whole ones first, then with their W put off into the waits.
    fn drain(&self, ahead: usize, behind: usize, w: &mut Writer) {
        for i in 0..2 * behind {
            // The middle of the 2·behind backwards, rounded to a whole one of the direction that goes on longer.
            let split = i > 2 * (behind / 2) || (i == 2 * (behind / 2) && self.device % 2 == 1);
            w.backward(1 - i % 2, split);
        }
        for _ in 0..ahead {
            w.weight();
            w.backward(0, true);
        }
        (0..behind).for_each(|_| w.weight());
    }
}

impl Writer<'_> {
    fn operation(&self, work: Work, direction: usize, pass: usize) -> StageOperation {
        let chunk = direction ^ self.first_chunk;
        StageOperation::new(work, pass + if chunk == 1 { self.second_half } else { 0 }, chunk)
    }

    fn next_forward(&mut self, direction: usize) -> StageOperation {
        self.forwards[direction] += 1;
        self.operation(Work::Forward, direction, self.forwards[direction] - 1)
    }

    fn next_backward(&mut self, work: Work, direction: usize) -> StageOperation {
        self.backwards[direction] += 1;
        self.operation(work, direction, self.backwards[direction] - 1)
    }

    fn forward(&mut self, direction: usize) {
        let forward = self.next_forward(direction);
        self.list.push(forward);
    }

    /// Whole, or B alone with its W to follow.
    fn backward(&mut self, direction: usize, split: bool) {
        let work = if split { Work::BackwardInput } else { Work::Backward };
        let backward = self.next_backward(work, direction);
        self.list.push(backward);
        if split {
            self.pending.push_back(StageOperation { work: Work::BackwardWeight, ..backward });
        }
    }

    fn weight(&mut self) {
        self.list.extend(self.pending.pop_front());
    }

    /// A forward of one direction beside a whole backward of the other.
    fn pair(&mut self, forward: usize) {
        let (first, second) = (self.next_forward(forward), self.next_backward(Work::Backward, 1 - forward));
        self.list.extend([first.in_pair(), second.in_pair()]);
    }
}
