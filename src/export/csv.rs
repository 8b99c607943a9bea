//! A table of what a cost model holds, for a spreadsheet or pandas: RFC 4180 with a header, a row a case, empty cells where a
//! column says nothing of it.
//!
//! Rows are the measured layers by phase, the measured operations that the fits keep, both ends of each piece of a collective's
//! curve, and the pairs that ran beside each other. Times are ns.

use super::measured::{self, MeasuredCase};
use super::{Content, Exported};
use crate::records::cost_model::{CollectiveFit, CorunPair, LayerAnchor};
use crate::records::{CostModel, csv};
use crate::shape::operation::Family;
use crate::shape::{LayerShape, Phase};
use crate::units::counted;
use crate::{Error, Result};

/// The columns, in their order.
const COLUMNS: [&str; 26] = [
    "part",
    "name",
    "phase",
    "dtype",
    "hidden",
    "heads",
    "sequence",
    "micro_batch",
    "tensor",
    "m",
    "n",
    "k",
    "head_size",
    "flop",
    "bytes",
    "ranks",
    "nodes",
    "latency",
    "main",
    "side",
    "sharing",
    "median_ns",
    "low_ns",
    "high_ns",
    "slowdown",
    "side_rate",
];

/// The cells of one row by their columns.
#[derive(Default)]
struct Row(Vec<(&'static str, String)>);

impl Row {
    fn of(part: &'static str) -> Row {
        Row(vec![("part", part.into())])
    }

    fn text(mut self, column: &'static str, value: &str) -> Row {
        self.0.push((column, value.into()));
        self
    }

    fn number(mut self, column: &'static str, value: f64) -> Row {
        self.0.push((column, value.to_string()));
        self
    }

    fn count(mut self, column: &'static str, value: u64) -> Row {
        self.0.push((column, value.to_string()));
        self
    }

    fn line(&self) -> String {
        let cell = |column: &&str| {
            let found = self.0.iter().find(|(name, _)| name == column);
            found.map(|(_, text)| text.clone()).unwrap_or_default()
        };
        csv::line(COLUMNS.iter().map(cell))
    }
}

/// The table. Fails where the model holds no case at all.
pub fn file(model: &CostModel) -> Result<Exported> {
    let mut rows: Vec<Row> = model.layer.iter().flat_map(layer).collect();
    rows.extend(measured::cases(model)?.iter().map(operation));
    rows.extend(model.collectives.iter().flat_map(collective));
    rows.extend(model.interference.pairs.iter().map(pair));
    if rows.is_empty() {
        return Err(Error::input(
            format!("{} holds no measured case", model.machine.name),
            "give a cost model that was made from measurements",
        ));
    }
    let header = csv::line(COLUMNS.map(String::from));
    let lines: String = rows.iter().map(Row::line).collect();
    let notes = vec![format!(
        "{}: the layers, operations, ends of collectives' pieces and pairs that the model keeps; lost: its fits, and cases that it \
         was made from and does not keep",
        counted(rows.len(), "row")
    )];
    Ok(Exported { content: Content::File(header + &lines), notes })
}

fn layer(anchor: &LayerAnchor) -> Vec<Row> {
    let phases = [
        (Phase::Forward, &anchor.forward_ns),
        (Phase::BackwardInput, &anchor.backward_input_ns),
        (Phase::BackwardWeight, &anchor.backward_weight_ns),
    ];
    let row = |(phase, time): (Phase, &crate::records::cost_model::Interval)| {
        sized(Row::of("layer").text("name", &anchor.shape.slug()), &anchor.shape)
            .text("phase", phase.name())
            .number("flop", anchor.shape.flop(phase))
            .number("median_ns", time.median)
            .number("low_ns", time.low)
            .number("high_ns", time.high)
    };
    phases.into_iter().map(row).collect()
}

fn sized(row: Row, shape: &LayerShape) -> Row {
    row.text("dtype", shape.dtype.name())
        .count("hidden", shape.hidden)
        .count("heads", shape.heads)
        .count("sequence", shape.sequence)
        .count("micro_batch", shape.micro_batch)
        .count("tensor", shape.tensor)
        .count("head_size", shape.head_size())
}

/// An operation by its family's sizes; attention's heads are those of all its sequences.
fn operation(case: &MeasuredCase) -> Row {
    let cold = if case.cold { "/cold" } else { "" };
    let (family, sizes): (&str, &[(&str, &'static str)]) = match case.family {
        Family::Gemm => ("gemm", &[("m", "m"), ("n", "n"), ("k", "k")]),
        Family::Attention => {
            ("attention", &[("batch*heads", "heads"), ("sequence", "sequence"), ("head_size", "head_size")])
        }
        Family::Streaming => ("streaming", &[]),
    };
    let mut row =
        Row::of("operation").text("name", &format!("{family}/{}{cold}", case.name)).text("dtype", case.dtype.name());
    for (size, column) in sizes {
        row = row.count(column, case.size(size));
    }
    if case.flop > 0.0 {
        row = row.number("flop", case.flop);
    }
    row.number("bytes", case.bytes).number("median_ns", case.ns)
}

/// The first size of each piece and the last before the next.
fn collective(fit: &CollectiveFit) -> Vec<Row> {
    let ends = fit.segments.iter().flat_map(|s| {
        let ns = |bytes: u64| s.latency_ns + s.ns_per_byte * bytes as f64;
        [(s.from_bytes, ns(s.from_bytes)), (s.to_bytes, ns(s.to_bytes))]
    });
    let row = |(bytes, ns): (u64, f64)| {
        Row::of("collective")
            .text("name", &fit.operation)
            .text("dtype", &fit.dtype)
            .count("bytes", bytes)
            .count("ranks", fit.ranks)
            .count("nodes", fit.nodes)
            .text("latency", &fit.latency)
            .number("median_ns", ns)
            .number("low_ns", ns * (1.0 - fit.relative_low).max(0.0))
            .number("high_ns", ns * (1.0 + fit.relative_high))
    };
    ends.map(row).collect()
}

fn pair(pair: &CorunPair) -> Row {
    let row = Row::of("corun")
        .text("main", &pair.main)
        .text("side", &pair.side)
        .text("sharing", &pair.sharing)
        .number("slowdown", pair.slowdown.median);
    match pair.side_rate {
        Some(rate) => row.number("side_rate", rate),
        None => row,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::datasheet;
    use crate::records::cost_model::{Interval, LayerAnchor};
    use crate::shape::DType;

    fn lines(model: &CostModel) -> Vec<String> {
        let Content::File(text) = file(model).unwrap().content else { panic!("a folder") };
        assert!(text.ends_with("\r\n") && text.matches('\n').count() == text.matches("\r\n").count());
        text.lines().map(String::from).collect()
    }

    #[test]
    fn a_layer_is_three_rows_and_a_piece_two() {
        let mut model = datasheet::model(&datasheet::find("h100-sxm").unwrap());
        let curves = model.collectives.iter().map(|c| 2 * c.segments.len()).sum::<usize>();
        let time = |median| Interval { median, low: 0.5 * median, high: 2.0 * median };
        model.layer.push(LayerAnchor {
            shape: LayerShape::new(4096, 32, 2048, 1, DType::Bf16),
            forward_ns: time(4_389_914.885_068_672),
            backward_input_ns: time(2.0),
            backward_weight_ns: time(3.0),
            activation_bytes: 1,
            parameter_bytes: 1,
        });
        let lines = lines(&model);
        assert_eq!(lines.len(), 1 + 3 + curves);
        let cells: Vec<&str> = lines[1].split(',').collect();
        assert_eq!(cells.len(), COLUMNS.len());
        let cell = |name: &str| cells[COLUMNS.iter().position(|c| *c == name).unwrap()];
        assert_eq!((cell("part"), cell("phase"), cell("hidden"), cell("ranks")), ("layer", "forward", "4096", ""));
        assert_eq!(cell("median_ns").parse::<f64>().unwrap(), 4_389_914.885_068_672);
        // 31 µs and a byte at the ring's rate.
        let reduce =
            lines.iter().find(|l| l.starts_with("collective,all_reduce,") && l.contains(",8,1,pipelined,")).unwrap();
        let ns: f64 = reduce.split(',').nth(21).unwrap().parse().unwrap();
        assert!((ns - 31_000.0).abs() < 1.0, "{reduce}");
    }

    #[test]
    fn a_model_without_cases_is_refused() {
        let mut model = datasheet::model(&datasheet::find("v100").unwrap());
        model.collectives.clear();
        assert!(file(&model).unwrap_err().to_string().contains("holds no measured case"));
    }
}
