//! What a filled stage's slowdown says: a verdict from its interval and that of its noise floor, the A/A row.
//!
//! Pure. `suite` names the rows by what stands here; whoever prints or compares filled stages asks [`FillVerdict::judge`].

use super::Measurement;
use super::measurement::Interval;

/// How the name of an A/A row ends: empty iterations against empty ones.
pub const NOTHING: &str = "+nothing";
/// How the name of a stage ends whose side asks the gate for whole training steps.
pub const WHOLE_STEPS: &str = "-whole";

/// A slowdown within this is none that anybody would notice, and an interval that reaches no further to either side of its
/// middle is narrow enough to say so.
const NOTICED: f64 = 0.01;

/// What can be said of a main whose bubbles were filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FillVerdict {
    /// The interval is at most ±1 % wide and reaches no higher than 1 %, or than that of an A/A row which is as narrow.
    NoSlowdownSeen,
    /// All of the interval lies above no slowdown, and above that of the A/A row.
    Slower,
    /// Neither: the interval is too wide or reaches too high, or there is no A/A row.
    CannotBeTold,
}

impl FillVerdict {
    /// Judges the interval of a slowdown (filled ÷ empty) by that of its A/A row (empty ÷ empty).
    pub fn judge(filled: &Interval, nothing: Option<&Interval>) -> Self {
        let Some(nothing) = nothing else { return FillVerdict::CannotBeTold };
        // Written so that an end that is no number decides nothing.
        let is_interval = |of: &Interval| of.low <= of.high;
        if !is_interval(filled) || !is_interval(nothing) {
            return FillVerdict::CannotBeTold;
        }
        let is_narrow = |of: &Interval| of.high - of.low <= 2.0 * NOTICED;
        // A wide A/A row hides a slowdown; it excuses none.
        let most = if is_narrow(nothing) { nothing.high.max(1.0 + NOTICED) } else { 1.0 + NOTICED };
        if filled.low > nothing.high.max(1.0) {
            FillVerdict::Slower
        } else if is_narrow(filled) && filled.high <= most {
            FillVerdict::NoSlowdownSeen
        } else {
            FillVerdict::CannotBeTold
        }
    }

    /// The verdict in words, as tables print it.
    pub const fn words(self) -> &'static str {
        match self {
            FillVerdict::NoSlowdownSeen => "no slowdown seen",
            FillVerdict::Slower => "slower",
            FillVerdict::CannotBeTold => "cannot be told",
        }
    }
}

/// Whether a row of this name is a noise floor.
pub fn is_nothing(id: &str) -> bool {
    id.ends_with(NOTHING)
}

/// The name of the A/A row that a filled stage of this name is judged by; the row's own where it is one.
pub fn nothing_id(id: &str) -> String {
    let id = id.strip_suffix(NOTHING).unwrap_or(id);
    // What the side asks for does not matter where it is never let in.
    format!("{}{NOTHING}", id.strip_suffix(WHOLE_STEPS).unwrap_or(id))
}

/// The slowdown of the A/A row that a filled stage of this name is judged by; `None` where it was not measured.
pub fn nothing_of<'a>(records: impl IntoIterator<Item = &'a Measurement>, id: &str) -> Option<&'a Interval> {
    let id = nothing_id(id);
    let row = records.into_iter().filter(|record| record.id == id).last()?;
    Some(&row.fill.as_ref()?.main_slowdown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::measurement::{Backend, FillOutcome, Kind};

    /// An interval of percents of slowdown.
    fn percent(low: f64, high: f64) -> Interval {
        let ratio = |percent: f64| 1.0 + percent / 100.0;
        Interval { median: ratio((low + high) / 2.0), low: ratio(low), high: ratio(high) }
    }

    #[test]
    fn the_interval_is_judged_by_the_noise_floor() {
        use FillVerdict::*;
        let quiet = percent(-0.2, 0.2);
        for (filled, nothing, verdict) in [
            (percent(-0.3, 0.5), quiet, NoSlowdownSeen),
            (percent(-0.9, 0.9), quiet, NoSlowdownSeen),
            // Above nothing, but not above what nothing itself shows.
            (percent(0.1, 0.8), quiet, NoSlowdownSeen),
            (percent(0.3, 0.8), quiet, Slower),
            (percent(3.0, 9.0), quiet, Slower),
            (percent(0.1, 0.8), percent(-0.8, -0.3), Slower),
            // Narrow, and higher than 1 %: not above the floor, nor below it.
            (percent(0.1, 1.5), quiet, CannotBeTold),
            (percent(0.1, 1.5), percent(-0.3, 1.6), NoSlowdownSeen),
            // A noise floor that is wide itself says nothing of a slowdown below it.
            (percent(0.1, 1.5), percent(-1.0, 1.6), CannotBeTold),
            (percent(4.5, 5.5), percent(-5.0, 6.0), CannotBeTold),
            (percent(-0.3, 0.5), percent(-5.0, 6.0), NoSlowdownSeen),
            (percent(4.5, 5.5), Interval { median: f64::NAN, low: f64::NAN, high: f64::NAN }, CannotBeTold),
            // As wide as what was published before there were A/A rows.
            (percent(-4.5, 1.3), quiet, CannotBeTold),
            (percent(-4.5, 0.5), quiet, CannotBeTold),
            (percent(2.0, 5.0), percent(-3.0, 6.0), CannotBeTold),
            (Interval { median: f64::NAN, low: f64::NAN, high: f64::NAN }, quiet, CannotBeTold),
        ] {
            assert_eq!(FillVerdict::judge(&filled, Some(&nothing)), verdict, "{filled:?} {nothing:?}");
        }
        assert_eq!(FillVerdict::judge(&percent(-0.1, 0.1), None), CannotBeTold, "there is nothing to judge it by");
    }

    #[test]
    fn a_stage_finds_its_noise_floor() {
        let row = |id: &str, main_slowdown| {
            let fill = Some(FillOutcome { main_slowdown, ..FillOutcome::default() });
            Measurement { fill, ..Measurement::blank(id, Kind::Fill, Backend::Host) }
        };
        let stage = "fill/1f1b-p4-m8-stage1/mlp-b32";
        let records = [
            row("fill/1f1b-p4-m8-stage1/mlp-b32", percent(1.0, 2.0)),
            row("fill/1f1b-p4-m8-stage1/mlp-b32+nothing", percent(-1.0, 1.0)),
            row("fill/1f1b-p4-m8-stage3/mlp-b32+nothing", percent(-3.0, 3.0)),
        ];
        for id in [stage.to_string(), format!("{stage}-whole"), format!("{stage}+nothing")] {
            assert_eq!(nothing_of(&records, &id), Some(&percent(-1.0, 1.0)), "{id}");
        }
        assert_eq!(nothing_of(&records, "fill/1f1b-p4-m8-stage1/convnet-b16"), None);
        assert!(is_nothing(&records[1].id) && !is_nothing(stage));
    }
}
