//! FreeRide's fills of a pipeline's bubbles, as its authors printed them, beside what the planner makes of the same sides and
//! the same bubbles when it goes by FreeRide's rules. docs/method.md says what is published, what is fitted, and what is not
//! explained; a test holds the table there against this one.

use bubblebench::fill::CompleteSide;
use bubblebench::fill::gate_defaults::{GateFigures, GateLevel};
use bubblebench::fill::kernels::Kernels;
use bubblebench::fill::overrun::Overrun;
use bubblebench::fill::receive::ReceiveRate;
use bubblebench::fill::side::{KernelOrigin, Margin};
use bubblebench::fill::stages::{Filling, StagePlan};
use bubblebench::pipeline::activations::DEFAULT_WEIGHT_SHARE;
use bubblebench::pipeline::memory::{GIB, Memory, StageMemory};
use bubblebench::pipeline::{Schedule, ScheduleName, ScheduleSpec, StageTimes, Timeline, Times, simulate};
use bubblebench::report::Table;
use bubblebench::{Error, Result, stats};
use serde_json::Value;

/// What each bubble may lose beyond the published rules, in ms: the values the fit tries.
const TRIED_MS: std::ops::RangeInclusive<u32> = 0..=150;

/// The table and what stands below it.
pub fn table() -> Result<String> {
    let run = Run::published()?;
    let lost_ms = run.fit()?;
    let mut table = Table::new(
        "FreeRide's fills",
        "GPUs' worth of side work.",
        &["side", "stages", "published", "by its rules", "fitted", "error", "slowdown", "predicted"],
    );
    let mut errors = Vec::new();
    for row in run.rows("rows") {
        let mark = if row["fitted"] == true { " *" } else { "" };
        let (rules, fitted) = (run.filled(row, 0.0)?, run.filled(row, lost_ms)?);
        let stages: Vec<String> =
            (0..fitted.gpus.len()).filter(|&s| fitted.gpus[s] > 0.0).map(|s| s.to_string()).collect();
        let published = run.published_gpus(row);
        let cells = [format!("{}{mark}", name(row)), stages.join(" ")];
        let errors_in = if mark.is_empty() { Some(&mut errors) } else { None };
        let mut cells = cells.to_vec();
        cells.extend(work(published, rules.gpus.iter().sum(), fitted.gpus.iter().sum(), errors_in));
        cells.push(format!("{:.2} %", number(row, "main_slowdown_percent")));
        cells.push(format!("{:.2} %", 100.0 * fitted.slowdown));
        table.row(cells);
    }
    let mut slowdown = 0.0;
    for mixed in run.rows("mix") {
        let (row, stage) = (run.side(name(mixed))?, number(mixed, "stage") as usize);
        let (rules, fitted) = (run.filled(row, 0.0)?, run.filled(row, lost_ms)?);
        let steps = number(mixed, "samples") / number(row, "batch");
        let published = steps * number(row, "step_ms") / 1e3 / number(&run.file, "timed_s");
        let mut cells = vec![format!("{} in the mix", name(row)), stage.to_string()];
        cells.extend(work(published, rules.gpus[stage], fitted.gpus[stage], Some(&mut errors)));
        cells.extend([String::new(), String::new()]);
        table.row(cells);
        slowdown += fitted.lost_ns[stage];
    }
    let within = errors.iter().filter(|error| **error <= 10.0).count();
    let of_mix = 100.0 * slowdown / run.timeline.iteration_ns as f64;
    Ok(format!(
        "{}\nfitted: {lost_ms} ms of each bubble; not fitted: median error {:.0} %, {within} of {} within 10 %\n\
         slowdown error of the mix: {:.2} % published, at most {of_mix:.2} % predicted\n",
        table.markdown(),
        stats::median(&errors).unwrap_or(f64::NAN),
        errors.len(),
        number(&run.file, "mix_slowdown_percent"),
    ))
}

/// The cells for published and predicted side work; the error, in percent, is also put into `errors`.
fn work(published: f64, rules: f64, fitted: f64, errors: Option<&mut Vec<f64>>) -> Vec<String> {
    let error = 100.0 * (fitted / published - 1.0);
    if let Some(errors) = errors {
        errors.push(error.abs());
    }
    vec![format!("{published:.2}"), format!("{rules:.2}"), format!("{fitted:.2}"), format!("{error:+.0} %")]
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or(f64::NAN)
}

fn name(row: &Value) -> &str {
    row["side"].as_str().unwrap_or_default()
}

fn ns(ms: f64) -> u64 {
    (1e6 * ms).round() as u64
}

/// The published run.
struct Run {
    file: Value,
    timeline: Timeline,
    memory: Memory,
}

/// One side in the bubbles of every stage that has the memory for it.
struct Filled {
    /// Side work on each stage, over the empty iteration.
    gpus: Vec<f64>,
    /// What each stage loses on its own, in ns.
    lost_ns: Vec<f64>,
    /// What the iteration loses, over the empty one.
    slowdown: f64,
}

impl Run {
    fn published() -> Result<Self> {
        let file: Value = serde_json::from_str(include_str!("../../tests/data/freeride.json"))
            .map_err(|e| Error::input(format!("a published file is not JSON: {e}"), "restore it"))?;
        let [stages, micro_batches] = ["stages", "micro_batches"].map(|key| number(&file, key) as usize);
        let times = Times::even(stages, stage_times(&file), 0);
        let schedule = Schedule::build(&ScheduleSpec {
            name: ScheduleName::OneFOneB,
            stages,
            micro_batches,
            chunks: None,
            memory_limit: None,
            weight_share: DEFAULT_WEIGHT_SHARE,
            times: &times,
        })?;
        let free: Vec<f64> = file["free_gib"].as_array().into_iter().flatten().filter_map(Value::as_f64).collect();
        let most = free.iter().copied().fold(0.0, f64::max);
        let stage = |free: &f64| StageMemory {
            parameters: 0,
            weights_bytes: ((most - free) * GIB) as u64,
            gradients_bytes: 0,
            optimizer_bytes: 0,
            activation_bytes: 0,
            temporary_bytes: 0,
        };
        let memory =
            Memory { stage: free.iter().map(stage).collect(), total_bytes: Some(most * GIB), headroom_bytes: 0.0 };
        Ok(Run { file, timeline: simulate(schedule, times)?, memory })
    }

    fn rows(&self, key: &str) -> &[Value] {
        self.file[key].as_array().map_or(&[], Vec::as_slice)
    }

    fn side(&self, wanted: &str) -> Result<&Value> {
        let row = self.rows("rows").iter().find(|row| name(row) == wanted);
        row.ok_or_else(|| Error::input(format!("freeride.json has no side `{wanted}`"), "restore it"))
    }

    /// Side work in GPUs: turned round from the money that the authors say a side saves, at an RTX 3080's rate and price.
    fn published_gpus(&self, row: &Value) -> f64 {
        let samples = number(row, "cost_saved_percent") / 100.0 * number(&self.file, "price_ratio");
        samples * number(row, "rtx3080_samples_per_s") / number(row, "batch") * number(row, "step_ms") / 1e3
    }

    /// FreeRide's rules as margins. The manager looks every so often whether a bubble has begun, and the side whether it may
    /// start, so both are half of that late on average. Behind each step the side sleeps. It begins a step if more is left
    /// of the bubble than the step's median rounded up, and a fifth more.
    fn complete(&self, row: &Value, lost_ms: f64) -> CompleteSide {
        let (step, sleep) = (number(row, "step_ms"), number(row, "between_steps_ms"));
        let rounded = number(&self.file, "step_rounded_up_to_ms");
        let needed = (number(row, "median_step_ms") / rounded).ceil() * rounded * number(&self.file, "step_guard");
        let bytes = number(row, "memory_gib").ceil() * GIB + 1.0;
        CompleteSide {
            name: name(row).into(),
            kernels: Kernels::of_longest(ns(step + sleep), ns(step + sleep)),
            memory_bytes: bytes,
            resident_bytes: bytes,
            value: 1.0,
            margin: Margin {
                open_ns: ns(number(&self.file, "manager_looks_every_ms") / 2.0 + lost_ms),
                restart_ns: ns(sleep / 2.0),
                signal_ns: ns((needed - step - sleep).max(0.0)),
            },
            after_ns: GateFigures::of(None, GateLevel::Median).behind_ns(ns(step)),
            split: false,
            origin: KernelOrigin::Profile,
            step_interval: [1.0; 2],
            beside: None,
            receive: ReceiveRate::FULL,
            overrun: Overrun::NONE,
            piece_spread: 0.0,
        }
    }

    fn filled(&self, row: &Value, lost_ms: f64) -> Result<Filled> {
        let sides = [self.complete(row, lost_ms)];
        let close_ns = GateFigures::of(None, GateLevel::Median).close_ns;
        let filling = Filling { sides: &sides, main_slowdown: 1.0, close_ns, sides_per_bubble: 1, jitter: None };
        let iteration_ns = self.timeline.iteration_ns;
        let (stages, lost_ns) = filling.timeline(&self.timeline, DEFAULT_WEIGHT_SHARE, &self.memory, iteration_ns);
        let steps = |s: &StagePlan| s.bubbles.runs().iter().map(|run| run.kernels).sum::<u64>() as f64;
        let gpus = |s: &StagePlan| steps(s) * number(row, "step_ms") * 1e6 / iteration_ns as f64;
        Ok(Filled {
            gpus: stages.iter().map(gpus).collect(),
            lost_ns: stages.iter().map(|s| s.lost_ns).collect(),
            slowdown: lost_ns as f64 / iteration_ns as f64,
        })
    }

    /// What each bubble loses that no published rule accounts for, in ms: the value for which the fitted rows' mean error,
    /// as a logarithm, is least.
    fn fit(&self) -> Result<f64> {
        let mut best = (f64::INFINITY, 0.0);
        for lost_ms in TRIED_MS.map(f64::from) {
            let mut error = 0.0;
            for row in self.rows("rows").iter().filter(|row| row["fitted"] == true) {
                let gpus: f64 = self.filled(row, lost_ms)?.gpus.iter().sum();
                error += (gpus / self.published_gpus(row)).ln().abs();
            }
            if error < best.0 {
                best = (error, lost_ms);
            }
        }
        Ok(best.1)
    }
}

/// Forward and backward of one stage: shares by the floating-point operations of a layer, the whole as long as the published
/// iteration says, which is (m + p − 1) · (F + B + W).
fn stage_times(file: &Value) -> StageTimes {
    let [hidden, sequence, stages, micro_batches] =
        ["hidden", "sequence", "stages", "micro_batches"].map(|key| number(file, key));
    // Of one token: four products of the layer's matrices; causal attention's two products, and twice that backward.
    let (matrices, attention) = (24.0 * hidden * hidden, 2.0 * sequence * hidden);
    let work = [matrices + attention, matrices + 2.0 * attention, matrices];
    let iteration_ns = 1e9 * number(file, "timed_s") / number(file, "timed_iterations");
    let scale = iteration_ns / (micro_batches + stages - 1.0) / work.iter().sum::<f64>();
    let [forward, inputs, weights] = work.map(|w| (w * scale).round() as u64);
    StageTimes::new(forward, inputs, weights)
}
