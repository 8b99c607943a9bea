//! The picture of an iteration: a lane a stage, the job's own work, bubbles, and the side work in them.

use super::svg::{Svg, short, ticks, time_unit};
use crate::fill::plan::FillPlan;
use crate::fill::record::{PlanBubble, PlanRecord};
use crate::report::lanes::{LaneSpan, Lanes, Part};
use crate::report::plan::gib;
use crate::units::format_ns;

const WIDTH: f64 = 1130.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 10.0;
/// Spans drawn one by one at most; beyond, columns of what takes most of their time.
const MOST_SPANS: usize = 9_000;
const COLUMNS: usize = 700;

/// The picture, with a lane for each of the `shown` stages.
pub fn svg(plan: &FillPlan, shown: &[usize]) -> String {
    let lanes = Lanes::of_plan(plan);
    let (height, gap) = if shown.len() > 10 { (20.0, 5.0) } else { (30.0, 7.0) };
    let bottom = shown.len() as f64 * (height + gap);
    let mut svg = Svg::new(WIDTH, bottom + 34.0);
    let scale = (WIDTH - LEFT - RIGHT) / lanes.end_ns.max(1) as f64;
    time_axis(&mut svg, lanes.end_ns as f64, scale, LEFT, bottom);
    let is_fine = shown.iter().map(|&stage| lanes.count(stage)).sum::<usize>() <= MOST_SPANS;
    for (row, &stage) in shown.iter().enumerate() {
        let y = row as f64 * (height + gap);
        svg.text("soft", "end", LEFT - 10.0, y + height / 2.0 + 4.0, &format!("stage {stage}"));
        svg.rect("lane", LEFT, y, WIDTH - LEFT - RIGHT, height);
        let lane = Lane { plan: &plan.record, stage, y, height, scale };
        if is_fine {
            lane.fine(&mut svg, &lanes.spans(stage));
        } else {
            lane.coarse(&mut svg, &lanes);
        }
    }
    svg.finish("Timeline of one iteration: each stage's forward and backward work, its bubbles, and the side work put into them")
}

/// Round times under the lanes, with lines up through them.
pub fn time_axis(svg: &mut Svg, end_ns: f64, scale: f64, left: f64, bottom: f64) {
    let (unit, name) = time_unit(end_ns);
    let list = ticks(end_ns / unit, 9.0);
    for (index, tick) in list.iter().enumerate() {
        let x = left + tick * unit * scale;
        svg.line("grid", [x, 0.0, x, bottom + 4.0]);
        let label = if index + 1 == list.len() { format!("{} {name}", short(*tick)) } else { short(*tick) };
        let anchor = if index == 0 { "start" } else { "middle" };
        svg.text("soft", anchor, x.min(WIDTH - 22.0), bottom + 20.0, &label);
    }
}

/// What its colours mean, a CSS class and a name each.
pub fn legend(plan: &FillPlan) -> Vec<(&'static str, String)> {
    let r = &plan.record;
    let mut keys = match (&r.measured, plan.timeline.schedule.name.fused_backward()) {
        (Some(_), _) => vec![("c", "compute (measured)".to_string())],
        (None, true) => vec![("f", "forward".to_string()), ("b", "backward".to_string())],
        (None, false) => vec![
            ("f", "forward".to_string()),
            ("b", "backward to inputs".to_string()),
            ("w", "backward to weights".to_string()),
        ],
    };
    keys.push(("idle", "bubble: the stage waits".to_string()));
    if r.measured.is_some() {
        keys.push(("shut", "waits for the host or a collective: left alone".to_string()));
    }
    let used = r.side.iter().enumerate().filter(|(_, s)| s.bubbles_used > 0);
    keys.extend(used.map(|(index, side)| (side_class(index), format!("side work: {}", side.name))));
    keys
}

/// The CSS class of a small model, by its place among the plan's sides.
pub const fn side_class(index: usize) -> &'static str {
    match index % 4 {
        0 => "s0",
        1 => "s1",
        2 => "s2",
        _ => "s3",
    }
}

const fn class(part: Part) -> &'static str {
    match part {
        Part::Forward => "f",
        Part::Backward => "b",
        Part::Weights => "w",
        Part::Compute => "c",
        Part::Side(index) => side_class(index),
    }
}

struct Lane<'a> {
    plan: &'a PlanRecord,
    stage: usize,
    y: f64,
    height: f64,
    scale: f64,
}

impl Lane<'_> {
    fn x(&self, ns: u64) -> f64 {
        LEFT + ns as f64 * self.scale
    }

    fn fine(&self, svg: &mut Svg, spans: &[LaneSpan]) {
        for bubble in self.plan.stage[self.stage].bubbles.iter() {
            self.bubble(svg, &bubble);
        }
        for span in spans {
            let (x, width) = (self.x(span.start_ns), (span.end_ns - span.start_ns) as f64 * self.scale);
            let what = self.told(span);
            let (y, height) = match span.part {
                Part::Side(_) => (self.y + 0.16 * self.height, 0.68 * self.height),
                _ => (self.y, self.height),
            };
            // A hair of the lane shows between one operation and the next.
            svg.told(class(span.part), [x, y, (width - 0.5).max(0.5 * width), height], &what);
            if let Some(number) = span.micro_batch.filter(|_| width > 15.0) {
                svg.text("on", "middle", x + width / 2.0, self.y + self.height / 2.0 + 3.5, &number.to_string());
            }
        }
    }

    fn bubble(&self, svg: &mut Svg, b: &PlanBubble) {
        let free = b.free_bytes.map_or(String::new(), |bytes| format!(", {} GiB free", gib(bytes as f64)));
        let class = b.class.map_or(String::new(), |class| format!(" ({})", class.name()));
        let kind = b.kind.name().replace('_', " ");
        let what = format!(
            "bubble, {kind}{class}: {}{free}, {:.1} micro-batches live",
            format_ns((b.end_ns - b.start_ns) as f64),
            b.live_micro_batches
        );
        let shut = b.class.is_some_and(|class| !class.is_fillable());
        let width = (b.end_ns - b.start_ns) as f64 * self.scale;
        svg.told(if shut { "shut" } else { "idle" }, [self.x(b.start_ns), self.y, width, self.height], &what);
    }

    fn told(&self, span: &LaneSpan) -> String {
        let length = format_ns((span.end_ns - span.start_ns) as f64);
        match (span.part, span.micro_batch) {
            (Part::Side(index), _) => {
                format!("{}: {length} of side work", self.plan.side.get(index).map_or("side", |s| s.name.as_str()))
            }
            (Part::Forward, Some(m)) => format!("forward of micro-batch {m}: {length}"),
            (Part::Weights, Some(m)) => format!("backward to weights of micro-batch {m}: {length}"),
            (_, Some(m)) => format!("backward of micro-batch {m}: {length}"),
            (_, None) => format!("compute: {length}"),
        }
    }

    fn coarse(&self, svg: &mut Svg, lanes: &Lanes) {
        let columns = lanes.columns(self.stage, COLUMNS);
        let width = (WIDTH - LEFT - RIGHT) / COLUMNS as f64;
        let mut at = 0;
        while at < columns.len() {
            let alike = columns[at..].iter().take_while(|part| **part == columns[at]).count();
            if let Some(part) = columns[at] {
                svg.rect(class(part), LEFT + at as f64 * width, self.y, alike as f64 * width, self.height);
            }
            at += alike;
        }
    }
}
