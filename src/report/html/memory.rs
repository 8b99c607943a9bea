//! The picture of a GPU's memory over an iteration, a small one a stage: what the job always holds, activations as they come and
//! go, side models, and what is left.

use super::svg::{Svg, short, ticks, time_unit};
use crate::fill::plan::FillPlan;
use crate::fill::record::PlanStage;
use crate::pipeline::activations::Live;
use crate::pipeline::memory::GIB;
use crate::report::plan::gib;

const WIDTH: f64 = 1130.0;
const PER_ROW: usize = 4;
const ROW: f64 = 176.0;
const LEFT: f64 = 34.0;
const TOP: f64 = 24.0;
const PLOT: f64 = 112.0;
/// Points along a plot at most.
const POINTS: usize = 240;

/// `None` where neither the job nor the cost model says how much memory a GPU has, or where no timeline was simulated for the bubbles.
pub fn svg(plan: &FillPlan, shown: &[usize]) -> Option<String> {
    let total = plan.memory.total_bytes?;
    if plan.record.measured.is_some() {
        return None;
    }
    let rows = shown.len().div_ceil(PER_ROW);
    let mut svg = Svg::new(WIDTH, rows as f64 * ROW);
    let cell = WIDTH / PER_ROW.min(shown.len()).max(2) as f64;
    for (index, &stage) in shown.iter().enumerate() {
        let (column, row) = (index % PER_ROW, index / PER_ROW);
        let plot = Plot {
            plan,
            stage,
            total,
            left: column as f64 * cell + LEFT,
            top: row as f64 * ROW + TOP,
            width: cell - LEFT - 16.0,
        };
        plot.draw(&mut svg);
    }
    Some(
        svg.finish(
            "Memory of each stage's GPU over one iteration: weights and optimizer, activations, side models, free",
        ),
    )
}

struct Plot<'a> {
    plan: &'a FillPlan,
    stage: usize,
    total: f64,
    left: f64,
    top: f64,
    width: f64,
}

impl Plot<'_> {
    fn y(&self, bytes: f64) -> f64 {
        self.top + PLOT * (1.0 - (bytes / self.total).clamp(0.0, 1.04))
    }

    fn draw(&self, svg: &mut Svg) {
        let record = &self.plan.record.stage[self.stage];
        self.frame(svg, record);
        let steps = self.steps();
        let fixed = self.plan.memory.stage[self.stage].static_bytes() as f64;
        let held: f64 = record.resident.iter().map(|r| r.held_bytes as f64).sum();
        svg.rect("static", self.left, self.y(fixed), self.width, self.y(0.0) - self.y(fixed));
        self.area(svg, "act", &steps, &|live| (fixed, fixed + live));
        if held > 0.0 {
            self.area(svg, "held", &steps, &|live| (fixed + live, fixed + live + held));
        }
        self.running(svg, record, fixed + held);
        let limit = self.y(self.total - self.plan.memory.headroom_bytes);
        svg.line("limit", [self.left, limit, self.left + self.width, limit]);
    }

    fn frame(&self, svg: &mut Svg, record: &PlanStage) {
        svg.rect("lane", self.left, self.top, self.width, PLOT);
        svg.text("strong", "start", self.left, self.top - 8.0, &format!("stage {}", record.stage));
        let held: u64 = record.resident.iter().map(|resident| resident.held_bytes).sum();
        let label = format!("{} GiB free at peak", gib((self.total - (record.peak_bytes + held) as f64).max(0.0)));
        svg.text("soft", "end", self.left + self.width, self.top - 8.0, &label);
        for tick in ticks(self.total / GIB, 4.0) {
            let y = self.y(tick * GIB);
            svg.line("grid", [self.left, y, self.left + self.width, y]);
            svg.text("soft", "end", self.left - 5.0, y + 4.0, &short(tick));
        }
        let end = self.end_ns();
        let (unit, name) = time_unit(end);
        svg.text("soft", "start", self.left, self.top + PLOT + 16.0, "0");
        let last = format!("{} {name}", short(end / unit));
        svg.text("soft", "end", self.left + self.width, self.top + PLOT + 16.0, &last);
    }

    fn end_ns(&self) -> f64 {
        let t = &self.plan.timeline;
        (t.window_start_ns(self.stage) + t.iteration_ns) as f64
    }

    fn x(&self, ns: f64) -> f64 {
        self.left + self.width * (ns / self.end_ns().max(1.0)).clamp(0.0, 1.0)
    }

    /// Bytes of activations from each moment on; of moments closer than a pixel the fullest.
    fn steps(&self) -> Vec<(f64, f64)> {
        let t = &self.plan.timeline;
        let share = t.schedule.chunk_share();
        let each = self.plan.memory.stage[self.stage].activation_bytes as f64;
        let mut live = Live::default();
        let mut steps: Vec<(f64, f64)> = vec![(0.0, 0.0)];
        let least = self.end_ns() / POINTS as f64;
        for (operation, _, end) in t.operations(self.stage) {
            live.after(operation);
            let bytes = each * live.micro_batches(share, self.plan.weight_share);
            let at = end as f64;
            match steps.last_mut() {
                // The first step stands at 0 and is never merged away.
                Some(last) if last.0 > 0.0 && at - last.0 < least => last.1 = last.1.max(bytes),
                _ => steps.push((at, bytes)),
            }
        }
        if let Some(last) = steps.last_mut() {
            last.1 = each * live.micro_batches(share, self.plan.weight_share);
        }
        steps
    }

    /// An area between two heights that follow the steps.
    fn area(&self, svg: &mut Svg, class: &str, steps: &[(f64, f64)], between: &dyn Fn(f64) -> (f64, f64)) {
        let (mut upper, mut lower) = (Vec::new(), Vec::new());
        for (index, &(at, live)) in steps.iter().enumerate() {
            let until = steps.get(index + 1).map_or(self.end_ns(), |next| next.0);
            let (low, high) = between(live);
            for ns in [at, until] {
                upper.push((self.x(ns), self.y(high)));
                lower.push((self.x(ns), self.y(low)));
            }
        }
        lower.reverse();
        upper.extend(lower);
        svg.path(class, &upper, true);
    }

    /// What running sides take beyond what they hold anyway.
    fn running(&self, svg: &mut Svg, record: &PlanStage, base: f64) {
        let each = self.plan.memory.stage[self.stage].activation_bytes as f64;
        for b in record.bubbles.iter() {
            let below = base + each * b.live_micro_batches;
            for fill in &b.fills {
                let memory = self.plan.record.side.iter().find(|s| s.name == fill.side).map_or(0, |s| s.memory_bytes);
                let held = record.resident.iter().find(|r| r.side == fill.side).map_or(0, |r| r.held_bytes);
                let more = memory.saturating_sub(held) as f64;
                let (x1, x2) = (self.x(fill.start_ns as f64), self.x(fill.end_ns as f64));
                // At least a line, so that it shows where a side that holds everything runs.
                let height = (self.y(below) - self.y(below + more)).max(2.0);
                svg.rect("run", x1, self.y(below) - height, x2 - x1, height);
            }
        }
    }
}
