//! How fast a side runs while the main job waits in a receive: on a GPU the waiting kernel keeps multiprocessors.
//!
//! A receive of NCCL's is a kernel that spins until the message has come. It has one thread block (CTA) a channel, and each takes
//! most of a multiprocessor's registers: of S multiprocessors c are lost to whoever computes beside it, and side work runs at
//! ρ = 1 − c/S at best. A kernel of a single full wave is hit harder (half its speed), one that never filled S − c
//! multiprocessors not at all; what a step of many kernels loses lies between.
//!
//! | messages go | c: low | median | high |
//! |---|--:|--:|--:|
//! | over a network, or PCI Express | 1: a small message | 2: NCCL's channels to such a peer | 8: four network cards a GPU |
//! | over NVLink | 1 | 32 over the pipeline's ranks, rounded down to a power of two: NCCL's share of a peer | 32: all channels, for large messages |
//!
//! NCCL's rules, as its source of 2025 has them: `ncclTopoGetNchannels` (src/graph/paths.cc) allows two channels to a peer over PCI
//! Express, two a network card, two an NVLink, up to 32; `calcP2pChannelCount` (src/enqueue.cc) begins with as many as leave each
//! rank its share of them, and doubles that for large messages. The upper ends are our judgement. Where the cost model knows the CTAs of send/recv they stand
//! instead. On a host a receive (gloo's) sleeps in the kernel and takes no core: ρ = 1.

use crate::cost::datasheet::{self, DataSheet};
use crate::pipeline::job::{self, Job};
use crate::records::CostModel;

/// A side's speed beside a waiting receive, its speed alone being 1.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReceiveRate {
    /// What the plan counts with.
    pub rate: f64,
    /// The lower and the upper end of its interval.
    pub ends: [f64; 2],
}

impl ReceiveRate {
    /// A receive that takes nothing from a side.
    pub const FULL: ReceiveRate = ReceiveRate::exactly(1.0);

    /// A rate that is known.
    pub const fn exactly(rate: f64) -> Self {
        ReceiveRate { rate, ends: [rate; 2] }
    }

    /// The rate beside thread blocks that keep so many of all multiprocessors each, given as low, median and high.
    fn beside(ctas: [u64; 3], sms: u64) -> Self {
        let [most, rate, least] = ctas.map(|ctas| (1.0 - ctas as f64 / sms as f64).max(SLOWEST));
        ReceiveRate { rate, ends: [least, most] }
    }
}

/// A receive never keeps more than that: its interval ends somewhere.
const SLOWEST: f64 = 0.25;
/// Multiprocessors of the smallest GPU of which a data sheet is known, for those of which none is.
const FEWEST_SMS: u64 = 80;

/// What a receive that waits costs the sides of a job.
#[derive(Debug, Clone, PartialEq)]
pub struct WaitingReceive {
    /// Every side's speed beside it, as long as the side gives no `receive_rate` of its own.
    pub rate: ReceiveRate,
    /// What was assumed, as a phrase; `None` where nothing had to be.
    pub assumed: Option<String>,
}

impl WaitingReceive {
    /// The receive of the job's messages between stages, on the machine of the cost model.
    pub fn of(job: &Job, model: &CostModel) -> Self {
        if model.machine.backend == "host" || job.parallel.pipeline == 1 {
            return WaitingReceive { rate: ReceiveRate::FULL, assumed: None };
        }
        let sheet = datasheet::of_device(&model.machine.device);
        let sms = sheet.map_or(FEWEST_SMS, |sheet| sheet.sms);
        let between_nodes = job.gpus() > job.hardware.gpus_per_node;
        let known = known_ctas(model, between_nodes);
        let ctas =
            known.map_or_else(|| channels(sheet.as_ref(), between_nodes, job.parallel.pipeline), |ctas| [ctas; 3]);
        let rate = ReceiveRate::beside(ctas, sms);
        let given = job.side.iter().all(|side| side.receive_rate.is_some());
        // Both are needed for a rate that was not assumed.
        let assumed = ((known.is_none() || sheet.is_none()) && !given).then(|| {
            let whose = if known.is_some() { "the" } else { "NCCL's" };
            let unknown = if sheet.is_none() { " (of a GPU without a data sheet, the fewest of any)" } else { "" };
            format!(
                "side work beside a waiting receive: {whose} {} of {sms} multiprocessors{unknown} are kept by it, so that a side runs at {:.2} [{:.2}, {:.2}]",
                ctas[1], rate.rate, rate.ends[0], rate.ends[1]
            )
        });
        WaitingReceive { rate, assumed }
    }

    /// The rate of one side: its own, where the job gives it.
    pub fn of_side(&self, side: &job::Side) -> ReceiveRate {
        side.receive_rate.map_or(self.rate, ReceiveRate::exactly)
    }
}

/// Most thread blocks that send/recv was seen to run in, on the kind of link that messages between stages take.
fn known_ctas(model: &CostModel, between_nodes: bool) -> Option<u64> {
    let alike = model
        .collectives
        .iter()
        .filter(|fit| fit.operation.starts_with("send_recv") && (fit.nodes > 1) == between_nodes);
    alike.filter_map(|fit| fit.ctas).max()
}

/// Channels of a communicator, at most.
const MOST_CHANNELS: u64 = 32;

/// NCCL's channels to one peer: low, median, high.
fn channels(sheet: Option<&DataSheet>, between_nodes: bool, ranks: u64) -> [u64; 3] {
    match sheet.map_or(0, |sheet| sheet.nvlinks) {
        links if links > 0 && !between_nodes => {
            let all = (2 * links).next_power_of_two().min(MOST_CHANNELS);
            let share =
                (0..=all.ilog2()).rev().map(|power| 1 << power).find(|channels| channels * ranks <= MOST_CHANNELS);
            [1, share.unwrap_or(1), all]
        }
        _ => [1, 2, 8],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn of(example: &str, change: impl Fn(&mut Job, &mut CostModel)) -> WaitingReceive {
        let mut job = Job::read(Path::new(&format!("examples/{example}.toml"))).unwrap();
        let sheet = datasheet::find("a100-sxm-80").unwrap();
        let mut model = datasheet::model(&sheet);
        change(&mut job, &mut model);
        WaitingReceive::of(&job, &model)
    }

    #[test]
    fn a_receive_keeps_multiprocessors_of_a_gpu_and_nothing_of_a_host() {
        let network = of("gpt-a100-4x8", |_, _| ());
        assert!((network.rate.rate - (1.0 - 2.0 / 108.0)).abs() < 1e-12);
        assert!(network.rate.ends[0] < network.rate.rate && network.rate.rate < network.rate.ends[1]);
        let said = network.assumed.unwrap();
        assert!(said.contains("2 of 108 multiprocessors") && said.contains("0.98 [0.93, 0.99]"), "{said}");
        let nvlink = of("gpt-a100-8", |_, _| ());
        assert!((nvlink.rate.rate - (1.0 - 4.0 / 108.0)).abs() < 1e-12);
        assert!((nvlink.rate.ends[0] - (1.0 - 32.0 / 108.0)).abs() < 1e-12);
        let host = of("gpt-a100-8", |_, model| model.machine.backend = "host".into());
        assert_eq!(host, WaitingReceive { rate: ReceiveRate::FULL, assumed: None });
    }

    #[test]
    fn what_was_measured_or_given_is_no_assumption() {
        let measured = of("gpt-a100-8", |_, model| {
            let fit = model.collectives.iter_mut().find(|fit| fit.operation == "send_recv" && fit.nodes == 1);
            fit.unwrap().ctas = Some(4);
        });
        assert_eq!((measured.rate, measured.assumed), (ReceiveRate::exactly(1.0 - 4.0 / 108.0), None));
        let given = of("gpt-a100-8", |job, _| job.side[0].receive_rate = Some(0.5));
        assert_eq!(given.assumed, None);
        let mut job = Job::read(Path::new("examples/gpt-a100-8.toml")).unwrap();
        job.side[0].receive_rate = Some(0.5);
        assert_eq!(given.of_side(&job.side[0]), ReceiveRate::exactly(0.5));
    }

    #[test]
    fn an_unknown_gpu_is_taken_for_a_small_one() {
        let unknown = of("gpt-a100-8", |_, model| model.machine.device = "some accelerator".into());
        assert_eq!(unknown.rate.rate, 1.0 - 2.0 / 80.0);
        let said = unknown.assumed.unwrap();
        assert!(said.contains("NCCL's 2 of 80 multiprocessors (of a GPU without a data sheet"), "{said}");
        let measured = of("gpt-a100-8", |_, model| {
            model.machine.device = "some accelerator".into();
            let fit = model.collectives.iter_mut().find(|fit| fit.operation == "send_recv" && fit.nodes == 1);
            fit.unwrap().ctas = Some(4);
        });
        let said = measured.assumed.expect("its thread blocks are known, its multiprocessors are not");
        assert!(said.contains("the 4 of 80 multiprocessors (of a GPU without"), "{said}");
    }
}
