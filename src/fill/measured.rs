//! `plan --bubbles FILE`: the bubbles of a real run in place of simulated ones.
//!
//! Devices are stages, in order. Where several iterations line up, the lengths of their bubbles are learned by position
//! ([`super::lengths`]), and one iteration stands for what lies between them; else one iteration is taken: the one whose idle time over
//! all devices is the median, or one that is named. Where in the schedule a bubble lies is found by how much of the stage's work was done before it: that
//! gives its kind and, from the job, the memory free in it. `dependency` and `tail` bubbles may be filled; `launch` bubbles would
//! go if the host launched in time, and in `communication` bubbles a collective runs on the device: both are only counted.

use super::alternatives::Again;
use super::attempt::{Base, Candidate, PlanContext};
use super::bubble_list::{BubbleList, MemoryLevel, Planned};
use super::lengths::{self, LearnedLength, LearnedLengths};
use super::overrun::Variation;
use super::plan::{self, FillPlan};
use super::record::{MeasuredFrom, PlanLengths};
use super::stages::StagePlan;
use crate::pipeline::activations::{self, Live};
use crate::pipeline::job::Job;
use crate::pipeline::memory::Memory;
use crate::pipeline::prices::RememberedPrices;
use crate::pipeline::{BubbleKind, Schedule, Timeline, Work, simulate};
use crate::records::bubbles::{BubbleClass, BubblesRecord, DeviceBubbles, MeasuredBubble};
use crate::records::{CostModel, Measurement};
use crate::units::counted;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Which iteration of a measured run the plan is made on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IterationChoice {
    /// All of them by position, where enough line up; else as `Median`.
    Usual,
    /// All of them by position: each bubble's length is a quantile of those it had, `bubble_quantile` of the job.
    Learned,
    /// The iteration with the median idle time over all devices (of an even number the lower one).
    Median,
    /// The iteration with this number in the bubbles file.
    Number(u64),
}

impl std::str::FromStr for IterationChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "learned" => Ok(IterationChoice::Learned),
            "median" => Ok(IterationChoice::Median),
            number => {
                let cure = || "give `learned`, `median` or a number, like 3".to_string();
                number.parse().map(IterationChoice::Number).map_err(|_| cure())
            }
        }
    }
}

/// One device's iteration.
struct Lane<'a> {
    start_ns: u64,
    /// From the first device's beginning to this one's, where they share a clock.
    offset_ns: u64,
    length_ns: u64,
    bubbles: Vec<LaneBubble<'a>>,
}

/// A bubble of the iteration, as long as it was or as long as it usually is.
struct LaneBubble<'a> {
    measured: &'a MeasuredBubble,
    start_ns: u64,
    end_ns: u64,
    variation: Option<Variation<'a>>,
}

impl LaneBubble<'_> {
    const fn length_ns(&self) -> u64 {
        self.end_ns - self.start_ns
    }
}

impl<'a> Lane<'a> {
    fn idle_ns(&self) -> u64 {
        self.bubbles.iter().map(LaneBubble::length_ns).sum()
    }

    /// Gives the bubbles that may be filled their median lengths; the work between them stays as it was.
    fn set_lengths(&mut self, learned: &'a [LearnedLength]) {
        let before_ns = self.idle_ns();
        let (mut learned, mut at_ns, mut behind_ns) = (learned.iter(), self.start_ns, self.start_ns);
        for b in &mut self.bubbles {
            let work_ns = b.start_ns - behind_ns;
            behind_ns = b.end_ns;
            let known = Some(&mut learned).filter(|_| b.measured.class.is_fillable()).and_then(Iterator::next);
            let length_ns = known.map_or(b.length_ns(), |known| known.median_ns);
            b.variation = known.map(LearnedLength::variation);
            b.start_ns = at_ns + work_ns;
            b.end_ns = b.start_ns + length_ns;
            at_ns = b.end_ns;
        }
        self.length_ns = self.length_ns - before_ns + self.idle_ns();
    }
}

/// The plan of a job on the bubbles in `file` instead of simulated ones.
/// Returns an error if the file cannot be read, does not hold one device for each stage, or lists no bubble of the
/// wanted iteration, and in all cases in which a plan on simulated bubbles does.
pub fn plan(
    job: &Job,
    model: &CostModel,
    measurements: &[Measurement],
    file: &Path,
    wanted: IterationChoice,
) -> Result<FillPlan> {
    let record = BubblesRecord::read(file)?;
    let stages = job.parallel.pipeline as usize;
    if record.devices.len() != stages {
        return Err(Error::input(
            format!(
                "{} holds {}, the job has {}",
                file.display(),
                counted(record.devices.len(), "device"),
                counted(stages, "stage")
            ),
            "give one device a stage, in pipeline order: `bubblebench bubbles RANK… --json` with one rank of each stage, or what \
             bubblebench.hooks.merge_bubbles made of theirs",
        ));
    }
    let prices = RememberedPrices::new(model);
    let (learned, why_not) = learned(&record, job, file, wanted)?;
    // What is simulated must be known as well as what was measured, no better and no worse: it is compared with it. Of one iteration
    // nobody knows how its bubbles vary.
    let alike = learned.is_none().then(|| {
        let mut alike = job.clone();
        alike.limits.bubble_jitter = None;
        alike
    });
    let (asked, job) = (job, alike.as_ref().unwrap_or(job));
    let (mut context, mut notes) = PlanContext::new(job, model, &prices, measurements)?;
    context.learned = learned.as_ref().map(|learned| &learned.together);
    let timeline = context.timeline()?;
    let (iteration, iterations) = match &learned {
        Some(learned) => (learned.iteration, all_iterations(&record)),
        None => choose(&record, file, wanted)?,
    };
    let mut lanes = lanes(&record, iteration);
    for (lane, lengths) in lanes.iter_mut().zip(learned.iter().flat_map(|learned| &learned.devices)) {
        lane.set_lengths(lengths);
    }
    let chosen = fill(&context, timeline, &lanes);
    notes.extend(context.general_notes(chosen.varies()));
    notes.extend(why_not);
    notes.extend(measured_notes(asked, learned.as_ref()));
    let from = from(&record, file, iteration, iterations, &lanes, &chosen.timeline);
    // The bubbles are what they are: prices only say where in the schedule they lie.
    let again = |context: &PlanContext, schedule: &Schedule| {
        let times = context.costs.times(context.job, schedule.layout);
        Ok(fill(context, simulate(schedule.clone(), times)?, &lanes))
    };
    let mut plan = plan::finish(&context, chosen, notes, Again::Measured(&again))?;
    plan.record.measured = Some(from);
    plan.record.lengths = learned.map(|learned| PlanLengths {
        iterations: Some(learned.iterations),
        ..PlanLengths::of(&plan.record.stage, job.limits.quantile())
    });
    Ok(plan)
}

/// The lengths by position, if they are wanted and can be had; and what the reader should know where they were wanted and cannot.
/// Fails only where nothing else is wanted.
fn learned(
    record: &BubblesRecord,
    job: &Job,
    file: &Path,
    wanted: IterationChoice,
) -> Result<(Option<LearnedLengths>, Option<String>)> {
    let quantile = job.limits.quantile();
    match wanted {
        IterationChoice::Median | IterationChoice::Number(_) => Ok((None, None)),
        IterationChoice::Learned => lengths::learn(record, quantile).map(|of| (Some(of), None)).map_err(|why| {
            Error::input(
                format!("{}: lengths cannot be learned: {why}", file.display()),
                "record more iterations of the same schedule, or take one of them: `--iteration median`",
            )
        }),
        IterationChoice::Usual => match lengths::learn(record, quantile) {
            Ok(learned) => Ok((Some(learned), None)),
            Err(why) => {
                // Nobody expects a few iterations to be more than a sample.
                let expected = counted_iterations(record).len() as u64 >= lengths::FEWEST;
                let note = format!("one iteration is planned on, with its luck: {why}");
                Ok((None, expected.then_some(note)))
            }
        },
    }
}

fn counted_iterations(record: &BubblesRecord) -> BTreeSet<u64> {
    record.devices.iter().flat_map(|d| &d.bubbles).map(|b| b.iteration).collect()
}

/// Those that the device with most of them had, whether bubbles of each are listed or not.
fn all_iterations(record: &BubblesRecord) -> u64 {
    let had = record.devices.iter().map(|device| device.iterations).max();
    had.unwrap_or(0).max(counted_iterations(record).len() as u64)
}

fn measured_notes(job: &Job, learned: Option<&LearnedLengths>) -> Vec<String> {
    let mut notes = vec![
        "bubbles are measured; stage times, memory and the other schedules are still the cost model's, and a bubble's memory is that of \
         the schedule's position with as much work done"
            .to_string(),
        "the main job's slowdown is the sum of what every stage loses: without the run's dependencies nothing says which of it would \
         vanish in waits"
            .to_string(),
    ];
    if job.limits.beside_compute.is_some() {
        notes.push("beside_compute is left out: measured bubbles do not say what computes between them".into());
    }
    if job.limits.bubble_quantile.is_some() && learned.is_none() {
        notes.push("the bubbles' quantile counts for nothing: one iteration has one length a bubble".into());
    }
    match (learned, job.limits.bubble_jitter) {
        (Some(_), Some(_)) => notes.push(
            "bubble_jitter counts for other schedules only, which are simulated: measured bubbles vary as they did"
                .into(),
        ),
        (None, Some(_)) => notes.push(
            "bubble_jitter counts for nothing: one measured iteration does not say how its bubbles vary, and other schedules are \
             compared with it alike"
                .into(),
        ),
        (Some(learned), None) if !job.side.is_empty() => {
            let LearnedLength { median_ns, expected_ns, .. } = learned.together;
            notes.push(format!(
                "bubbles of other schedules are simulated, and taken to vary as the measured ones did, all together: they are filled for \
                 {:.1} % of their length",
                100.0 * expected_ns as f64 / median_ns.max(1) as f64
            ));
        }
        (_, None) => {}
    }
    notes
}

/// The iteration's number, and how many there are.
fn choose(record: &BubblesRecord, file: &Path, wanted: IterationChoice) -> Result<(u64, u64)> {
    let mut idle: BTreeMap<u64, u128> = BTreeMap::new();
    for b in record.devices.iter().flat_map(|d| &d.bubbles) {
        *idle.entry(b.iteration).or_default() += u128::from(b.length_ns());
    }
    let count = all_iterations(record);
    if let IterationChoice::Number(number) = wanted {
        return match idle.contains_key(&number) {
            true => Ok((number, count)),
            false => Err(Error::input(
                format!("{} lists no bubble of iteration {number}", file.display()),
                match (idle.keys().next(), idle.keys().last()) {
                    (Some(first), Some(last)) => format!("choose one of {first} to {last}, or leave --iteration out"),
                    _ => "make the file again with `--iteration all` and a smaller --min-gap".to_string(),
                },
            )),
        };
    }
    let mut by_idle: Vec<(u128, u64)> = idle.into_iter().map(|(iteration, ns)| (ns, iteration)).collect();
    by_idle.sort_unstable();
    by_idle.get(by_idle.len().saturating_sub(1) / 2).map(|&(_, iteration)| (iteration, count)).ok_or_else(|| {
        Error::input(
            format!("{} lists no bubble", file.display()),
            "make it again with a smaller --min-gap, or plan without --bubbles",
        )
    })
}

/// Every device's part of the iteration. It begins with a bubble that no kernel precedes or where the iteration before ended;
/// where a device shows neither, with the first of the others, if they share a clock.
fn lanes(record: &BubblesRecord, iteration: u64) -> Vec<Lane<'_>> {
    let starts: Vec<Option<u64>> = record.devices.iter().map(|device| beginning(device, iteration)).collect();
    let earliest = starts.iter().flatten().min().copied();
    let mut lanes: Vec<Lane> =
        record.devices.iter().zip(starts).map(|(device, start)| lane(device, iteration, start.or(earliest))).collect();
    // Lanes that do not even meet are on clocks of their own.
    let begin = lanes.iter().map(|l| l.start_ns).min().unwrap_or(0);
    let longest = lanes.iter().map(|l| l.length_ns).max().unwrap_or(0);
    if lanes.iter().all(|l| l.start_ns - begin < longest) {
        lanes.iter_mut().for_each(|l| l.offset_ns = l.start_ns - begin);
    }
    lanes
}

fn of_iteration(device: &DeviceBubbles, iteration: u64) -> impl DoubleEndedIterator<Item = &MeasuredBubble> {
    device.bubbles.iter().filter(move |b| b.iteration == iteration)
}

/// Where this device's iteration began, if its own bubbles show it.
fn beginning(device: &DeviceBubbles, iteration: u64) -> Option<u64> {
    let first = of_iteration(device, iteration).next()?;
    let begins = Some(first).filter(|b| b.previous_kernel.is_none()).map(|b| b.start_ns);
    let before = || device.bubbles.iter().rfind(|b| b.iteration + 1 == iteration && b.next_kernel.is_none());
    let ends = || of_iteration(device, iteration).next_back().filter(|b| b.next_kernel.is_none());
    let mean = device.window_ns / device.iterations;
    let start = begins.or_else(|| before().map(|b| b.end_ns)).or_else(|| ends().map(|b| b.end_ns.saturating_sub(mean)));
    start.filter(|start| *start <= first.start_ns)
}

/// The end is that of a bubble no kernel follows; otherwise the mean length has to do.
fn lane(device: &DeviceBubbles, iteration: u64, start: Option<u64>) -> Lane<'_> {
    let seen: Vec<&MeasuredBubble> = of_iteration(device, iteration).collect();
    let mean = device.window_ns / device.iterations;
    let ends = seen.last().filter(|b| b.next_kernel.is_none()).map(|b| b.end_ns);
    let first = seen.first().map_or(start.unwrap_or(0), |b| b.start_ns);
    let last = seen.last().map_or(0, |b| b.end_ns);
    let start = start.filter(|&start| start <= first && first - start < mean).unwrap_or(first);
    let end = ends.unwrap_or_else(|| last.max(start.saturating_add(mean)));
    let bubbles = seen.into_iter().map(|measured| LaneBubble {
        measured,
        start_ns: measured.start_ns,
        end_ns: measured.end_ns,
        variation: None,
    });
    Lane { start_ns: start, offset_ns: 0, length_ns: end - start, bubbles: bubbles.collect() }
}

fn fill(context: &PlanContext, timeline: Timeline, lanes: &[Lane]) -> Candidate {
    let iteration_ns = lanes.iter().map(|l| l.length_ns).max().unwrap_or(0);
    let (all, idle) =
        lanes.iter().fold((0.0, 0.0), |(all, idle), l| (all + l.length_ns as f64, idle + l.idle_ns() as f64));
    let busy_ns: Vec<u64> = lanes.iter().map(|l| l.length_ns - l.idle_ns()).collect();
    let base = Base {
        iteration_ns,
        pipeline_ns: iteration_ns,
        work_ns: busy_ns.iter().map(|&ns| ns as f64).sum(),
        busy_ns,
        bubble_ratio: if all > 0.0 { idle / all } else { 0.0 },
    };
    let memory = context.memory_of(&timeline.schedule);
    let mut stages: Vec<StagePlan> =
        lanes.iter().enumerate().map(|(stage, lane)| empty(context, &memory, &timeline, stage, lane)).collect();
    let filling = context.filling();
    filling.fill(&mut stages, &[], filling.main_slowdown * iteration_ns as f64 / lanes.len().max(1) as f64);
    let lost_ns = stages.iter().map(|s| s.lost_ns).sum::<f64>().ceil() as u64;
    let (gain, slowdown) = base.gain(&stages, &context.sides, lost_ns);
    Candidate { timeline, memory, base, stages, gain, slowdown }
}

/// The stage's measured bubbles, their memory from the schedule's position; nothing in them yet.
fn empty(context: &PlanContext, memory: &Memory, timeline: &Timeline, stage: usize, lane: &Lane) -> StagePlan {
    let positions = Positions::of(timeline, stage);
    let share = timeline.schedule.chunk_share();
    let busy = (lane.length_ns - lane.idle_ns()).max(1);
    let mut idle = 0;
    let mut bubbles = BubbleList::default();
    for bubble in &lane.bubbles {
        let done = (bubble.start_ns - lane.start_ns).saturating_sub(idle) as f64 / busy as f64;
        idle += bubble.length_ns();
        let (kind, live) = positions.at(done, bubble.measured);
        let live_micro_batches = live.iter().map(|l| l.micro_batches(share, context.weight_share)).fold(0.0, f64::max);
        bubbles.push(&Planned {
            start_ns: bubble.start_ns - lane.start_ns + lane.offset_ns,
            end_ns: bubble.end_ns - lane.start_ns + lane.offset_ns,
            kind,
            level: MemoryLevel { live_micro_batches, free_bytes: memory.free_bytes(stage, live_micro_batches) },
            class: Some(bubble.measured.class),
            variation: bubble.variation,
            runs: &[],
        });
    }
    let peak = activations::peak(&timeline.schedule, stage, context.weight_share);
    StagePlan {
        bubbles,
        least_free: memory.always_free_bytes(stage, peak),
        resident: Vec::new(),
        beside: Vec::new(),
        lost_ns: 0.0,
        done_ns: Vec::new(),
        late_ns: Vec::new(),
    }
}

/// A stage's list: how much of its work is done after each operation, and what it holds then.
struct Positions {
    /// Fraction of the stage's work done before operation k; one more entry than operations.
    done: Vec<f64>,
    live: Vec<Live>,
    first_backward: usize,
    last_forward: usize,
}

impl Positions {
    fn of(timeline: &Timeline, stage: usize) -> Self {
        let list = timeline.schedule.list(stage);
        let whole = timeline.busy_ns(stage).max(1) as f64;
        let (mut done, mut live) = (vec![0.0], vec![Live::default()]);
        let (mut spent, mut now) = (0u64, Live::default());
        for (operation, start, end) in timeline.operations(stage) {
            spent += end - start;
            now.after(operation);
            done.push(spent as f64 / whole);
            live.push(now);
        }
        Positions {
            done,
            live,
            first_backward: list.iter().position(|o| o.work != Work::Forward).unwrap_or(0),
            last_forward: list.iter().rposition(|o| o.work == Work::Forward).unwrap_or(0),
        }
    }

    /// The kind of a bubble after so much of the work, and what is held there: at the nearest boundary of operations and, since the
    /// match may be off by one, at those beside it.
    fn at(&self, done: f64, bubble: &MeasuredBubble) -> (BubbleKind, [Live; 3]) {
        let last = self.done.len() - 1;
        if bubble.previous_kernel.is_none() {
            return (BubbleKind::Warmup, [self.live[0]; 3]);
        }
        if bubble.next_kernel.is_none() {
            return (BubbleKind::Tail, [self.live[last]; 3]);
        }
        let above = self.done.partition_point(|&d| d < done).min(last);
        let below = above.saturating_sub(1);
        let k = if (done - self.done[below]).abs() < (self.done[above] - done).abs() { below } else { above };
        let kind = match k {
            0 => BubbleKind::Warmup,
            k if k == last => BubbleKind::Tail,
            k if k == self.first_backward => BubbleKind::BeforeBackward,
            k if k > self.last_forward => BubbleKind::Cooldown,
            _ => BubbleKind::Steady,
        };
        (kind, [self.live[k.saturating_sub(1)], self.live[k], self.live[(k + 1).min(last)]])
    }
}

fn from(
    record: &BubblesRecord,
    file: &Path,
    iteration: u64,
    iterations: u64,
    lanes: &[Lane],
    simulated: &Timeline,
) -> MeasuredFrom {
    let of = |class: BubbleClass| {
        lanes.iter().flat_map(|l| &l.bubbles).filter(|b| b.measured.class == class).map(LaneBubble::length_ns).sum()
    };
    MeasuredFrom {
        file: file.display().to_string(),
        source: record.source.clone(),
        iteration,
        iterations,
        simulated_ns: simulated.iteration_ns,
        dependency_ns: of(BubbleClass::Dependency),
        tail_ns: of(BubbleClass::Tail),
        communication_ns: of(BubbleClass::Communication),
        launch_ns: of(BubbleClass::Launch),
    }
}
