//! What a curve takes over from the curves of other operations between the same ranks.
//!
//! Operations on one transport share its caches, protocols and wires, so their curves bend at the same sizes. Where
//! another was measured at a size b between two neighbouring sizes a < b < c of this curve, its bend
//!
//! ```text
//! d = ln t(b) − (1−w)·ln t(a) − w·ln t(c),   w = ln(b/a) ÷ ln(c/a)
//! ```
//!
//! says how far b lies off the straight line in log–log; its times at a and c are read off its own curve (straight in
//! log–log between its points). This curve gets a point at b with the median bend of all others measured at b whose
//! range holds a and c.

use super::piecewise::Point;
use crate::stats;
use std::collections::{BTreeMap, BTreeSet};

/// A borrowed time is believed this far (relative standard error): a hint for the knots, never more than a measurement.
const NOISE: f64 = 0.05;

/// The points of `own` (ascending), with a borrowed point added at every size between its ends that only others were
/// measured at.
pub fn add_borrowed_points(own: &[Point], others: &[&[Point]]) -> Vec<Point> {
    let others: Vec<BTreeMap<u64, f64>> =
        others.iter().map(|points| points.iter().map(|p| (p.bytes, p.ns.ln())).collect()).collect();
    let sizes: BTreeSet<u64> = others.iter().flat_map(|s| s.keys().copied()).collect();
    let mut points = own.to_vec();
    for ends in own.windows(2) {
        let (a, c) = (&ends[0], &ends[1]);
        for &bytes in sizes.range(a.bytes + 1..c.bytes) {
            let share = share(a.bytes, bytes, c.bytes);
            let bends: Vec<f64> = others.iter().filter_map(|s| bend(s, a.bytes, bytes, c.bytes)).collect();
            if let Some(bend) = stats::median(&bends) {
                let ns = ((1.0 - share) * a.ns.ln() + share * c.ns.ln() + bend).exp();
                points.push(Point { bytes, ns, noise: NOISE, switch: false });
            }
        }
    }
    points.sort_by_key(|p| p.bytes);
    points
}

/// Where b lies between a and c in log(bytes).
fn share(a: u64, b: u64, c: u64) -> f64 {
    (b as f64 / a as f64).ln() / (c as f64 / a as f64).ln()
}

fn bend(other: &BTreeMap<u64, f64>, a: u64, b: u64, c: u64) -> Option<f64> {
    let share = share(a, b, c);
    Some(other.get(&b)? - (1.0 - share) * read(other, a)? - share * read(other, c)?)
}

/// ln t at a size on another operation's curve; `None` outside it.
fn read(other: &BTreeMap<u64, f64>, bytes: u64) -> Option<f64> {
    let (&low, &below) = other.range(..=bytes).next_back()?;
    let (&high, &above) = other.range(bytes..).next()?;
    Some(if low == high { below } else { below + (above - below) * share(low, bytes, high) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(times: &[(u64, f64)]) -> Vec<Point> {
        times.iter().map(|&(bytes, ns)| Point { bytes, ns, noise: 0.01, switch: false }).collect()
    }

    /// Twice as slow everywhere, same cliff: the missing size comes out exactly.
    #[test]
    fn a_cliff_is_taken_over() {
        let other = curve(&[(1 << 10, 100.0), (1 << 13, 110.0), (1 << 16, 9_000.0)]);
        let own = curve(&[(1 << 10, 200.0), (1 << 16, 18_000.0)]);
        let lent = add_borrowed_points(&own, &[&other]);
        assert_eq!(lent.iter().map(|p| p.bytes).collect::<Vec<_>>(), [1 << 10, 1 << 13, 1 << 16]);
        assert!((lent[1].ns / 220.0 - 1.0).abs() < 1e-9, "{lent:?}");
    }

    #[test]
    fn nothing_is_lent_beyond_the_ends_or_by_curves_that_do_not_reach_them() {
        let own = curve(&[(64, 10.0), (4096, 20.0)]);
        let starts_too_late = curve(&[(512, 2.0), (4096, 3.0), (32_768, 9.0)]);
        assert_eq!(add_borrowed_points(&own, &[&starts_too_late]), own);
        assert_eq!(add_borrowed_points(&own, &[]), own);
    }

    /// A curve without the size 64 still says how 512 bends: its line from 8 to 512 is read off at 64.
    #[test]
    fn neighbours_another_curve_lacks_are_read_off_it() {
        let own = curve(&[(64, 10.0), (4096, 10.0)]);
        let other = curve(&[(8, 1.0), (512, 1.0), (4096, 8.0)]);
        let lent = add_borrowed_points(&own, &[&other]);
        assert_eq!(lent[1].bytes, 512);
        assert!((lent[1].ns / (10.0 * 8f64.powf(-0.5)) - 1.0).abs() < 1e-9, "{lent:?}");
    }
}
