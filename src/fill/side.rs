//! Side models as the planner sees them: a step as a sequence of kernels, the memory it takes, and what a bubble loses at
//! its ends. Completed here from the job's own figures, from measurements, or by [`super::side_gpt`] from the cost model.

use super::beside::BesideCompute;
use super::gate_defaults::{GateFigures, GateLevel};
use super::kernels::Kernels;
use super::overrun::{GrainOverrun, Overrun};
use super::pack::Residency;
use super::receive::{ReceiveRate, WaitingReceive};
use super::side_gpt;
use crate::cost::predict;
use crate::pipeline::job::{self, Job};
use crate::pipeline::memory::GIB;
use crate::records::cost_model::GateCost;
use crate::records::{CostModel, Measurement};
use crate::stats::{self, normal};
use crate::{Error, Result};

/// A side model with all the figures that the planner needs.
#[derive(Debug, Clone, PartialEq)]
pub struct CompleteSide {
    /// Name of the side in the job file.
    pub name: String,
    /// Kernels of one training step, in order.
    pub kernels: Kernels,
    /// The ends of the 95 % interval of the step's time, as multiples of it; both 1 where nothing is known of it.
    pub step_interval: [f64; 2],
    /// Memory that the side takes while it runs or is stopped within a step, in bytes.
    pub memory_bytes: f64,
    /// Memory that the side keeps between two steps, in bytes.
    pub resident_bytes: f64,
    /// Value of a second of its work, where a second of the main job's work has value 1.
    pub value: f64,
    /// Time at a bubble's ends in which the side cannot run.
    pub margin: Margin,
    /// Time that the main job loses behind a bubble the side ran in (cold caches, a late start), in ns, beyond the call
    /// that closes the gate and beyond `overrun`.
    pub after_ns: f64,
    /// What it loses because the side is now and then still at work when a bubble ends, beside what the bubble's variation tells.
    pub overrun: Overrun,
    /// Standard deviation of a kernel's time over its mean; 0 where nothing is known of it.
    pub piece_spread: f64,
    /// The side's speed in bubbles in which the main job waits in a receive.
    pub receive: ReceiveRate,
    /// Whether the side may stop within a step.
    pub split: bool,
    /// Where the times of its kernels come from.
    pub origin: KernelOrigin,
    /// Slowdown and rate when the side runs beside the main job's own operations; `None` where the job does not ask for
    /// it or the cost model does not know it.
    pub beside: Option<BesideCompute>,
}

/// Where the times of a side model's kernels come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelOrigin {
    /// The job file gives them.
    Profile,
    /// The step's time, its longest kernel or both come from the measurements that the cost model was made from.
    Measured,
    /// The cost model predicts them.
    Predicted {
        /// False where an input lies outside what was measured or an operation has no price.
        in_range: bool,
    },
}

impl KernelOrigin {
    /// The origin in words, as `PlanSide::source` holds it.
    pub const fn text(self) -> &'static str {
        match self {
            KernelOrigin::Profile => "own profile",
            KernelOrigin::Measured => "measured",
            KernelOrigin::Predicted { in_range: true } => "cost model",
            KernelOrigin::Predicted { in_range: false } => "cost model, extrapolated",
        }
    }
}

/// Time at a bubble's ends in which nothing useful can run; whole nanoseconds, rounded up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Margin {
    /// Time from opening the gate to the side's first kernel, in ns.
    pub open_ns: u64,
    /// Time that resuming after a pause takes beyond `open_ns`, in ns.
    pub restart_ns: u64,
    /// Time from closing the gate until it is certain that nothing runs any more, in ns: the signal's way, and what a
    /// measured drain takes beyond the kernel in flight. No kernel is started that would not end before the gate
    /// closes.
    pub signal_ns: u64,
}

impl Margin {
    /// Time from the beginning of a bubble to the side's first kernel, in ns.
    pub const fn before_ns(&self) -> u64 {
        self.open_ns.saturating_add(self.restart_ns)
    }

    /// Time of a bubble in which the side cannot run, at both its ends together, in ns.
    pub const fn total_ns(&self) -> u64 {
        self.before_ns().saturating_add(self.signal_ns)
    }
}

/// Time of the call that closes the gate, in ns, which the main model's own thread makes once a run; at `level` of the
/// published figures where `gate` is `None`.
pub fn close_ns(gate: Option<&GateCost>, level: GateLevel) -> f64 {
    GateFigures::of(gate, level).close_ns
}

/// Completes the job's sides from the cost model and the measurements it was made from; remarks for the reader go to
/// `notes`. Where the cost model has no gate, published figures stand in, at `level`.
/// Returns an error if a side's memory, step or longest kernel is known from nowhere, or a side GPT cannot be priced.
pub fn of_job(
    job: &Job,
    model: &CostModel,
    measurements: &[Measurement],
    level: GateLevel,
    notes: &mut Vec<String>,
) -> Result<Vec<CompleteSide>> {
    let gate = GateFigures::of(model.gate.as_ref(), level);
    let completer = Completer { job, model, measurements, gate, receive: WaitingReceive::of(job, model) };
    job.side.iter().map(|side| completer.complete(side, notes)).collect()
}

/// A step that varies by more is not one whose kernels vary alike.
const MOST_SPREAD: f64 = 0.5;

struct Completer<'a> {
    job: &'a Job,
    model: &'a CostModel,
    measurements: &'a [Measurement],
    gate: GateFigures,
    receive: WaitingReceive,
}

/// A step and what it keeps in memory.
struct Body {
    kernels: Kernels,
    step_interval: [f64; 2],
    /// While it runs, and between steps, in bytes.
    memory: [f64; 2],
    origin: KernelOrigin,
}

impl Completer<'_> {
    fn complete(&self, side: &job::Side, notes: &mut Vec<String>) -> Result<CompleteSide> {
        let Body { kernels, step_interval, memory: [memory, resident], origin } = match side.gpt {
            Some(gpt) => self.predicted(side, gpt)?,
            None => self.given(side)?,
        };
        let memory_bytes = side.memory_gib.map_or(memory, |g| g * GIB);
        let resident_bytes = side.resident_gib.map_or(resident, |g| g * GIB).min(memory_bytes);
        if let KernelOrigin::Predicted { in_range: false } = origin {
            notes.push(format!("side {}: its step lies outside what was measured and is extrapolated", side.name));
        }
        Ok(CompleteSide {
            name: side.name.clone(),
            margin: self.margin(side, kernels.longest_ns()),
            after_ns: side
                .after_ns
                .or_else(|| self.measured_after(side).map(|(_, ns)| ns))
                .unwrap_or(self.gate.after_ns),
            overrun: self.overrun(side, &kernels),
            piece_spread: self.piece_spread(side),
            receive: self.receive.of_side(side),
            beside: BesideCompute::of(self.job, self.model, side, notes),
            value: side.value,
            split: side.split,
            kernels,
            step_interval,
            memory_bytes,
            resident_bytes,
            origin,
        })
    }

    /// A GPT by its sizes: its step by the cost model; a step and longest kernel that the job gives replace it.
    fn predicted(&self, side: &job::Side, gpt: job::SideGpt) -> Result<Body> {
        let dtype = self.job.model.dtype.unwrap_or_else(|| predict::usual_dtype(self.model));
        let step = side_gpt::step(gpt, self.model, dtype)?;
        let memory = [step.memory_bytes, step.resident_bytes];
        Ok(match self.own_kernels(side) {
            Some(kernels) => Body { kernels, step_interval: [1.0; 2], memory, origin: KernelOrigin::Profile },
            None => {
                let origin = KernelOrigin::Predicted { in_range: step.in_range };
                Body { kernels: step.kernels, step_interval: step.interval, memory, origin }
            }
        })
    }

    /// What the job itself says of a step's kernels.
    fn own_kernels(&self, side: &job::Side) -> Option<Kernels> {
        if let Some(list) = &side.kernels_ns {
            return Kernels::new(&list.iter().map(|&ns| whole(ns)).collect::<Vec<_>>());
        }
        let (step, longest) = (side.step_ns?, side.kernel_ns?);
        Some(Kernels::of_longest(whole(step), whole(longest)))
    }

    /// From the job's figures, and what it leaves out from the measurements.
    fn given(&self, side: &job::Side) -> Result<Body> {
        let measured = side.measured.as_ref().and_then(|name| self.row(&format!("side/{name}/step")));
        let memory = measured.and_then(|m| m.param_u64("memory_bytes")).map(|b| b as f64);
        let memory = side.memory_gib.map(|g| g * GIB).or(memory).ok_or_else(|| self.lacking(side, "memory_gib"))?;
        let memory = [memory; 2];
        if let Some(kernels) = self.own_kernels(side) {
            return Ok(Body { kernels, step_interval: [1.0; 2], memory, origin: KernelOrigin::Profile });
        }
        let step = side.step_ns.or(measured.and_then(|m| m.median_ns)).ok_or_else(|| self.lacking(side, "step_ns"))?;
        // A measured drain holds the kernel in flight, so it is no shorter than the longest.
        let longest = side.kernel_ns.or_else(|| self.measured_longest(side)).or_else(|| self.drain(side));
        let longest = longest.ok_or_else(|| self.lacking(side, "kernel_ns"))?;
        let ends = measured.filter(|_| side.step_ns.is_none()).and_then(|m| Some([m.ci95_low_ns?, m.ci95_high_ns?]));
        let step_interval = ends.map_or([1.0; 2], |ends| ends.map(|ns| ns / step));
        let kernels = Kernels::of_longest(whole(step), whole(longest));
        Ok(Body { kernels, step_interval, memory, origin: KernelOrigin::Measured })
    }

    fn lacking(&self, side: &job::Side, key: &str) -> Error {
        Error::input(
            format!(
                "{}:{}: side `{}` has no {key}, and no measurement of it stands beside the cost model",
                self.job.path.display(),
                side.line,
                side.name
            ),
            format!("add `{key}`, or measure the side with `bubblebench measure` and fit again"),
        )
    }

    fn row(&self, id: &str) -> Option<&Measurement> {
        self.measurements.iter().rev().find(|m| m.id == id)
    }

    /// The filled stages in which this side stopped so: between two operations, or between whole steps.
    fn filled_stages<'b>(&'b self, side: &'b job::Side, grain: Residency) -> impl Iterator<Item = &'b Measurement> {
        let ran = |m: &&Measurement| side.measured.as_deref().is_some_and(|name| m.param_str("side") == Some(name));
        let grain = move |m: &&Measurement| (m.param_str("grain") == Some("step")) == (grain == Residency::Whole);
        self.measurements.iter().filter(|m| m.id.starts_with("fill/")).filter(ran).filter(grain)
    }

    fn measured_longest(&self, side: &job::Side) -> Option<f64> {
        let longest = |m: &Measurement| m.params.get("side_longest_operation_ns")?.as_f64();
        middle(self.filled_stages(side, Residency::Split).filter_map(longest)).filter(|ns| *ns > 0.0)
    }

    /// What the forward behind a filled bubble took longer than behind an empty one, and the grain it was measured of, that which the
    /// side is put into bubbles with going before: a difference of medians. Where the overrun counts for itself its median was a part of that, unless it was below
    /// 0, when nobody waited. Noise may make the rest negative.
    fn measured_after(&self, side: &job::Side) -> Option<(Residency, f64)> {
        let after = |m: &Measurement| {
            let fill = m.fill.as_ref().filter(|fill| fill.overrun_mean_ns.is_some());
            let part = fill.and_then(|fill| fill.overrun_p50_ns).map_or(0.0, |median| median.max(0.0));
            m.params.get("after_bubble_ns")?.as_f64().map(|ns| (ns - part).max(0.0))
        };
        let grains =
            if side.split { [Residency::Split, Residency::Whole] } else { [Residency::Whole, Residency::Split] };
        grains.into_iter().find_map(|grain| Some((grain, middle(self.filled_stages(side, grain).filter_map(after))?)))
    }

    /// As measured in filled stages of the same grain, for lengths that vary only where the job says what is lost behind a bubble in all.
    /// Else nothing, where the job, or a filled stage of that grain, says that. Else as measured of the other grain, in proportion to the piece that ends late, as a longer one does so
    /// more often and by more; and as published where that was not measured either.
    fn overrun(&self, side: &job::Side, kernels: &Kernels) -> Overrun {
        let after = self.measured_after(side);
        let holds_all = |grain: Residency| after.is_some_and(|(of, _)| of == grain);
        let mean = |grain: Residency| {
            middle(self.filled_stages(side, grain).filter_map(|m| m.fill.as_ref()?.overrun_mean_ns))
                .map(|ns| ns.max(0.0))
        };
        let of = |grain: Residency, piece_ns: u64, other: Residency, other_piece_ns: u64| {
            let scaled = || mean(other).map(|ns| ns * piece_ns as f64 / other_piece_ns as f64);
            if side.after_ns.is_some() {
                // All that is lost, as far as nothing is known of how bubbles vary.
                return GrainOverrun { usual_ns: 0.0, least_ns: mean(grain).unwrap_or(0.0) };
            }
            match mean(grain).or_else(|| holds_all(grain).then_some(0.0)).or_else(scaled) {
                Some(ns) => GrainOverrun::exactly(ns),
                None => GrainOverrun {
                    usual_ns: self.gate.late_ns(piece_ns),
                    least_ns: self.gate.late_at_least_ns(piece_ns),
                },
            }
        };
        let (kernel, step) = (kernels.longest_ns(), kernels.step_ns());
        Overrun {
            split: of(Residency::Split, kernel, Residency::Whole, step),
            whole: of(Residency::Whole, step, Residency::Split, kernel),
        }
    }

    /// A kernel is taken to vary as the step does that was measured, whose 99 % quantile says how.
    fn piece_spread(&self, side: &job::Side) -> f64 {
        let row = side.measured.as_ref().filter(|_| side.step_ns.is_none());
        let row = row.and_then(|name| self.row(&format!("side/{name}/step")));
        let spread = row.and_then(|m| Some((m.p99_ns? / m.median_ns? - 1.0) / normal::quantile(0.99)));
        spread.filter(|spread| spread.is_finite()).map_or(0.0, |spread| spread.clamp(0.0, MOST_SPREAD))
    }

    fn drain(&self, side: &job::Side) -> Option<f64> {
        self.model.gate.as_ref()?.drain_by_side_ns.get(side.measured.as_ref()?).copied()
    }

    /// The gate's own signal, or more where a measured drain shows that it takes longer.
    fn margin(&self, side: &job::Side, longest_ns: u64) -> Margin {
        let up = |ns: f64| whole(ns.ceil());
        let beyond = self.drain(side).map_or(0.0, |drain| drain - longest_ns as f64);
        let GateFigures { open_ns, restart_ns, signal_ns, .. } = self.gate;
        Margin { open_ns: up(open_ns), restart_ns: up(restart_ns), signal_ns: up(beyond.max(signal_ns)) }
    }
}

/// The median of what some stages show; `None` where none does.
fn middle(values: impl Iterator<Item = f64>) -> Option<f64> {
    stats::median(&values.filter(|value| value.is_finite()).collect::<Vec<_>>())
}

/// Nanoseconds as a whole number; nonsense becomes 0 or the largest.
fn whole(ns: f64) -> u64 {
    ns.round() as u64
}
