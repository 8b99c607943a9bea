//! Reasons in words, as records carry them and tables print them.

use super::rows::SetApart;
use super::sample::ResampleUnit;
use super::verdict::{JudgedRow, RowVerdict, SettledBy, VerdictReason};
use crate::units::counted;

/// Why a row gets no verdict.
pub fn set_apart(why: &SetApart) -> String {
    match why {
        SetApart::Wrong => "a result was wrong".into(),
        SetApart::Software => "measured on the software device".into(),
        SetApart::Imported => "imported from another tool".into(),
        SetApart::Throttled => "the GPU was throttled".into(),
        SetApart::NoTime => "a side has no time".into(),
        SetApart::Unlike(what) => format!("not of the same thing: {what}"),
    }
}

/// What a verdict rests on beside the times, and what would settle one that cannot be told; `None` where there is nothing
/// to say.
pub fn reason(judged: &JudgedRow) -> Option<String> {
    let why = judged.reason.map(|reason| match reason {
        VerdictReason::NoError => "nothing tells the error: too few samples, or a time that is not positive".into(),
        VerdictReason::FewSamples { samples } => format!("only {}", counted(samples, "sample")),
        VerdictReason::Chance { p, rows } => {
            format!("such a ratio comes about by chance among {} (p {})", counted(rows, "row"), probability(p))
        }
        VerdictReason::Clock { cycles_ratio } => format!("clock: ratio of the cycles {cycles_ratio:.3}"),
        VerdictReason::OneVisit => "visited once: drift between visits is not seen".into(),
        VerdictReason::ClockUnknown => "clock not known, so not confirmed in cycles".into(),
    });
    let beyond = judged.verdict == RowVerdict::Unsure && why.is_none();
    let settled = judged.settled_by.map(settled_by);
    let settled = settled.or_else(|| beyond.then(|| "no number of samples within reason would settle it".into()));
    match (why, settled) {
        (Some(why), Some(settled)) => Some(format!("{why}; {settled}")),
        (why, settled) => why.or(settled),
    }
}

/// `would take 120 samples a side`.
fn settled_by(needed: SettledBy) -> String {
    let unit = match needed.unit {
        ResampleUnit::Sample => "sample",
        ResampleUnit::Visit => "visit",
        ResampleUnit::Run => "run",
    };
    format!("would take {} a side", counted(needed.count, unit))
}

fn probability(p: f64) -> String {
    if p < 1e-4 { format!("{p:.0e}") } else { format!("{p:.2}").trim_end_matches('0').to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_said_with_what_would_settle_them() {
        let judged = JudgedRow {
            verdict: RowVerdict::Unsure,
            reason: Some(VerdictReason::Chance { p: 0.0312, rows: 300 }),
            settled_by: Some(SettledBy { count: 9, unit: ResampleUnit::Run }),
            tolerance: 0.02,
        };
        let said = reason(&judged).unwrap();
        assert_eq!(said, "such a ratio comes about by chance among 300 rows (p 0.03); would take 9 runs a side");
        let nothing = JudgedRow { reason: None, settled_by: None, ..judged };
        assert_eq!(reason(&JudgedRow { verdict: RowVerdict::Same, ..nothing }), None);
        assert_eq!(reason(&nothing).unwrap(), "no number of samples within reason would settle it");
        let settled = reason(&JudgedRow { reason: None, ..judged }).unwrap();
        assert_eq!(settled, "would take 9 runs a side");
        assert_eq!(set_apart(&SetApart::Unlike("cache".into())), "not of the same thing: cache");
    }
}
