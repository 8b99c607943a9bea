//! The verdicts' targets (compare.md), held on planted data: what identical runs, known slowdowns and drift are told to be.

use super::planted::{ErrorShape, Planted, Tally, tally};
use super::verdict::VerdictRule;

const QUIET: Planted = Planted::QUIET;

fn told(planted: Planted, rows: usize, seeds: std::ops::Range<u64>) -> (Tally, Tally) {
    tally(&planted, rows, seeds, &VerdictRule::default())
}

fn false_percent(left: &Tally) -> f64 {
    left.percent(left.slower + left.faster)
}

#[test]
fn identical_quiet_rows_are_the_same_and_3_percent_is_found() {
    for shape in [ErrorShape::Normal, ErrorShape::Skewed] {
        let (left, moved) = told(Planted { shape, moved: 0.5, effect: 0.03, ..QUIET }, 2000, 0..2);
        assert!(left.percent(left.same) >= 97.0 && false_percent(&left) <= 0.5, "{shape:?} {left:?}");
        assert!(moved.percent(moved.slower) >= 95.0 && moved.same + moved.faster == 0, "{shape:?} {moved:?}");
    }
}

#[test]
fn one_slow_row_in_a_hundred_is_found_among_all() {
    let (left, moved) = told(Planted { moved: 0.01, effect: 0.03, ..QUIET }, 4000, 2..4);
    assert!(moved.rows > 40 && moved.percent(moved.slower) >= 95.0, "{moved:?}");
    assert!(false_percent(&left) <= 0.5, "{left:?}");
}

/// As noisy as the target allows, and as few samples as the standard preset takes at the least of rows it is done with.
#[test]
fn rows_of_1_percent_noise_are_never_the_same_at_5_percent() {
    for samples in [12, 40] {
        let noisy = Planted { noise: (0.01, 0.01), samples: (samples, samples), ..QUIET };
        let (left, moved) = told(Planted { moved: 0.5, effect: 0.05, ..noisy }, 2000, 4..6);
        assert!(left.percent(left.same) >= 94.0 && false_percent(&left) <= 0.5, "{samples}: {left:?}");
        assert!(moved.same == 0 && moved.percent(moved.slower) >= 95.0, "{samples}: {moved:?}");
    }
}

#[test]
fn noisy_rows_are_unsure_and_never_the_same_at_5_percent() {
    let noisy = Planted { noise: (0.02, 0.08), samples: (12, 40), moved: 0.5, effect: 0.05, ..QUIET };
    let (left, moved) = told(noisy, 2000, 6..8);
    assert!(moved.same == 0 && false_percent(&left) <= 0.5, "{left:?} {moved:?}");
}

#[test]
fn visits_that_do_not_drift_cost_little() {
    let (left, moved) = told(Planted { visits: 5, moved: 0.5, effect: 0.03, ..QUIET }, 2000, 8..10);
    assert!(left.percent(left.same) >= 97.0 && false_percent(&left) <= 0.5, "{left:?}");
    assert!(moved.percent(moved.slower) >= 95.0 && moved.same == 0, "{moved:?}");
}

#[test]
fn drift_between_visits_makes_rows_unsure_and_not_wrong() {
    let drifting = Planted { visits: 5, visit_drift: 0.03, noise: (0.005, 0.005), ..QUIET };
    let (left, moved) = told(Planted { moved: 0.5, effect: 0.05, ..drifting }, 2000, 10..12);
    assert!(false_percent(&left) <= 0.5 && moved.same == 0, "{left:?} {moved:?}");
    assert!(left.percent(left.covered) >= 94.0, "{left:?}");
    let (_, far) = told(Planted { moved: 0.5, effect: 0.20, ..drifting }, 2000, 10..11);
    assert!(far.percent(far.slower) >= 90.0, "{far:?}");
}

#[test]
fn repeated_runs_hold_against_drift_between_them() {
    let drifting = Planted { runs: 3, run_drift: (0.01, 0.03), ..QUIET };
    let (left, moved) = told(Planted { moved: 0.05, effect: 0.20, ..drifting }, 2000, 12..14);
    assert!(false_percent(&left) <= 0.5 && moved.same == 0, "{left:?} {moved:?}");
    assert!(left.percent(left.covered) >= 94.0, "{left:?}");
    let quiet = Planted { runs: 3, moved: 0.5, effect: 0.03, ..QUIET };
    let (left, moved) = told(quiet, 2000, 14..15);
    assert!(left.percent(left.same) >= 97.0 && moved.percent(moved.slower) >= 95.0, "{left:?} {moved:?}");
}

/// What no interval of one run can hold, and the header must say: runs that drift are told to differ.
#[test]
fn one_run_a_side_is_wrong_where_runs_drift() {
    let (left, _) = told(Planted { run_drift: (0.01, 0.03), ..QUIET }, 1000, 18..19);
    assert!(false_percent(&left) > 20.0, "{left:?}");
}
