//! An answer as people read it: a table with the median, its interval, and whether the question lies within what was measured.

use super::question::Asked;
use crate::cost::predict::{self, Answer, CollectiveQuery, CorunPrediction, LayerPrediction, Prediction, TimeAnswer};
use crate::records::CostModel;
use crate::report::Table;
use crate::shape::LayerShape;
use crate::units;

/// The table of one answer.
pub fn table(model: &CostModel, asked: &Asked<'_>, answer: &Answer) -> Option<Table> {
    match (asked, answer) {
        (Asked::Layer(shape), Answer::Layer(found)) => Some(layer_table(shape, found)),
        (Asked::Collective(query), Answer::Time(found)) => {
            let TimeAnswer { median_ns, low_ns, high_ns, in_range, .. } = *found;
            let found = Prediction { median_ns, low_ns, high_ns, in_range };
            Some(collective_table(query, &found, predict::extrapolation(model, query).as_deref()))
        }
        (Asked::Corun([main, side, sharing]), Answer::Corun(found)) => Some(corun_table(main, side, sharing, found)),
        _ => None,
    }
}

fn row(name: &str, p: &Prediction) -> Vec<String> {
    let range = format!("{} – {}", units::format_ns(p.low_ns), units::format_ns(p.high_ns));
    vec![name.into(), units::format_ns(p.median_ns), range, if p.in_range { "yes" } else { "no" }.into()]
}

const COLUMNS: [&str; 4] = ["", "median", "95 % interval", "in range"];

fn layer_table(shape: &LayerShape, p: &LayerPrediction) -> Table {
    let note = format!(
        "One micro-batch on one rank; activations {:.1} MiB, parameters {:.1} MiB.",
        p.activation_bytes as f64 / f64::from(1 << 20),
        p.parameter_bytes as f64 / f64::from(1 << 20)
    );
    let mut table = Table::new(&format!("Layer {}", shape.slug()), &note, &COLUMNS);
    table.row(row("forward", &p.forward));
    table.row(row("backward to inputs", &p.backward_input));
    table.row(row("backward to weights", &p.backward_weight));
    table.row(row("forward + backward", &p.forward_backward));
    table
}

fn collective_table(query: &CollectiveQuery, p: &Prediction, basis: Option<&str>) -> Table {
    let title = format!(
        "{} over {}, {}",
        query.operation,
        units::counted(query.ranks, "rank"),
        units::format_bytes(query.bytes)
    );
    let note = if query.isolated { "One operation, synchronised on its own." } else { "One of a back-to-back run." };
    let note = basis.map_or(note.to_string(), |basis| format!("{note} {basis}"));
    let mut table = Table::new(&title, &note, &COLUMNS);
    table.row(row(&query.operation, p));
    table
}

fn corun_table(main: &str, side: &str, sharing: &str, p: &CorunPrediction) -> Table {
    let note = if p.measured { "This pair was measured." } else { "Predicted from pressure and sensitivity." };
    let columns = ["main slowdown", "95 % interval", "side's own pace", "in range"];
    let mut table = Table::new(&format!("{main} beside {side} ({sharing})"), note, &columns);
    table.row(vec![
        format!("{:.3}x", p.slowdown.median),
        format!("{:.3}x – {:.3}x", p.slowdown.low, p.slowdown.high),
        p.side_rate.map_or("unknown".into(), |r| format!("{:.0}%", 100.0 * r)),
        if p.in_range { "yes" } else { "no" }.into(),
    ]);
    table
}
