//! What opening and closing the gate costs, from the rows `fill/gate/…`.

use crate::records::Measurement;
use crate::records::cost_model::GateCost;
use crate::records::measurement::Kind;
use crate::stats;
use std::collections::BTreeMap;

const PREFIX: &str = "fill/gate/";

/// Fits the gate's costs to the rows `fill/gate/…`; the notes name what is missing and taken as 0. `None` unless at
/// least the opening or one drain was measured.
pub fn fit(records: &[&Measurement]) -> (Option<GateCost>, Vec<String>) {
    let rows: Vec<(&str, &Measurement)> = records
        .iter()
        .filter(|r| r.kind == Kind::Fill)
        .filter_map(|r| Some((r.id.strip_prefix(PREFIX)?, *r)))
        .collect();
    let of = |name: &str| rows.iter().find(|(n, _)| *n == name).and_then(|(_, r)| r.median_ns);
    let by_side = |kind: &str, value: fn(&Measurement) -> Option<f64>| -> BTreeMap<String, f64> {
        rows.iter()
            .filter_map(|(n, r)| Some((n.strip_prefix(kind)?.strip_prefix('/')?.to_string(), value(r)?)))
            .filter(|(_, ns)| ns.is_finite() && *ns >= 0.0)
            .collect()
    };
    let drain_by_side_ns = by_side("drain", late);
    let restart = by_side("restart", |r| r.median_ns);
    let open = of("open");
    if open.is_none() && drain_by_side_ns.is_empty() {
        return (None, vec!["no gate: nothing was measured under fill/gate/".into()]);
    }
    let worst = |values: &BTreeMap<String, f64>| values.values().copied().reduce(f64::max);
    let close = of("close").or_else(|| rows.iter().find_map(|(_, r)| r.params.get("close_ns")?.as_f64()));
    let mut notes = Vec::new();
    let mut or_zero = |what: &str, value: Option<f64>| {
        value.unwrap_or_else(|| {
            notes.push(format!("gate: {what} was not measured and counts as 0"));
            0.0
        })
    };
    let cost = GateCost {
        open_ns: or_zero("opening", open),
        close_ns: or_zero("closing", close),
        drain_ns: or_zero("draining", worst(&drain_by_side_ns)),
        restart_ns: or_zero("restarting", worst(&restart)),
        drain_by_side_ns,
    };
    (Some(cost), notes)
}

/// A plan that starts the big model late pays for it, so the drain is the 95 % quantile where there are samples for one.
fn late(record: &Measurement) -> Option<f64> {
    match record.samples_ns.len() >= 20 {
        true => stats::quantile(&record.samples_ns, 0.95),
        false => record.median_ns,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::measurement::Backend;

    fn row(id: &str, ns: f64) -> Measurement {
        Measurement { median_ns: Some(ns), ..Measurement::blank(id, Kind::Fill, Backend::Host) }
    }

    #[test]
    fn the_worst_side_sets_the_drain() {
        let mut slow = row("fill/gate/drain/mlp-b32", 300.0);
        slow.samples_ns = (0..100).map(f64::from).collect();
        let rows = [
            row("fill/gate/open", 50.0),
            row("fill/gate/close", 5.0),
            slow,
            row("fill/gate/drain/lstm-b16", 80.0),
            row("fill/gate/restart/mlp-b32", 20.0),
            row("fill/1f1b-p4-m8-stage1/mlp-b32", 1e9),
        ];
        let (cost, notes) = fit(&rows.iter().collect::<Vec<_>>());
        let cost = cost.unwrap();
        assert_eq!((cost.open_ns, cost.close_ns, cost.restart_ns), (50.0, 5.0, 20.0));
        assert!((cost.drain_by_side_ns["mlp-b32"] - 94.05).abs() < 1e-9 && cost.drain_by_side_ns["lstm-b16"] == 80.0);
        assert_eq!(cost.drain_ns, cost.drain_by_side_ns["mlp-b32"]);
        assert!(notes.is_empty());
    }

    #[test]
    fn missing_parts_are_said() {
        let rows = [row("fill/gate/open", 50.0)];
        let (cost, notes) = fit(&rows.iter().collect::<Vec<_>>());
        assert_eq!(cost.unwrap().drain_ns, 0.0);
        assert_eq!(notes.len(), 3);
        assert!(fit(&[]).0.is_none());
    }
}
