//! A collective's time over message size as segments t = latency + ns_per_byte · bytes.
//!
//! Two shapes meet in one curve: ramps, where time grows smoothly and a straight line between two sizes is right, and
//! switches of protocol, algorithm or cache, where time jumps or even falls. So the curve is continuous except at jumps:
//!
//! 1. Dynamic programming chooses the knots among the measured sizes. A piece from knot i to knot j costs
//!    Σ (residual ÷ noise)² over the sizes it passes by, plus 2·ln n for the knot (the two parameters, place and value,
//!    that the Bayesian information criterion charges; Bai & Perron, *Econometrica* 1998, do the same for breaks).
//!    No piece passes a size at which the records name another algorithm or protocol than at the size before.
//! 2. The times at the knots are fitted again to all sizes at once, by non-negative relative least squares.
//! 3. Between neighbouring knots whose line would need a negative latency (time grows faster than the message) or a
//!    negative slope (a bigger message is faster) nobody knows where the switch lies: steps, equal in log(bytes) and at
//!    most 10 % apart, follow the power law between the two, carrying the bandwidth or the time.

use super::nnls;
use crate::records::cost_model::Segment;

/// Neighbouring steps of a jump are at most this far apart …
const STEP: f64 = 1.1;
/// … unless that would need more of them than this.
const MOST_STEPS: f64 = 24.0;

/// A measured message size, its time and how certain that time is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Message size in bytes.
    pub bytes: u64,
    /// Time at this size, in ns.
    pub ns: f64,
    /// Relative standard error of the time, as a fraction.
    pub noise: f64,
    /// Whether the records name another algorithm or protocol at this size than at the one before.
    pub switch: bool,
}

/// Segments that cover all sizes from the smallest to the largest. `points` must hold at least two sizes, ascending,
/// with times above 0; with fewer or unordered sizes the result is empty.
pub fn fit(points: &[Point]) -> Vec<Segment> {
    if points.len() < 2 || points.windows(2).any(|w| w[0].bytes >= w[1].bytes) {
        return Vec::new();
    }
    let knots = choose_knots(points);
    let values = refit(points, &knots);
    let ends: Vec<(u64, f64)> = knots.iter().zip(&values).map(|(&k, &v)| (points[k].bytes, v)).collect();
    let mut segments: Vec<Segment> = ends.windows(2).flat_map(|w| between(w[0], w[1])).collect();
    if let Some(last) = segments.last_mut() {
        // [from, to): the largest size measured belongs to the last segment.
        last.to_bytes = last.to_bytes.saturating_add(1);
    }
    segments
}

/// The line through two points as (latency, slope).
fn line((x0, y0): (u64, f64), (x1, y1): (u64, f64)) -> (f64, f64) {
    let slope = (y1 - y0) / (x1 - x0) as f64;
    (y0 - slope * x0 as f64, slope)
}

/// Indices of the chosen sizes, first and last among them.
fn choose_knots(points: &[Point]) -> Vec<usize> {
    let n = points.len();
    let charge = 2.0 * (n as f64).ln();
    let mut best = vec![f64::INFINITY; n];
    let mut from = vec![0; n];
    best[0] = 0.0;
    for j in 1..n {
        for i in 0..j {
            let cost = best[i] + charge + misfit(points, i, j);
            if cost < best[j] {
                (best[j], from[j]) = (cost, i);
            }
        }
    }
    let mut knots = vec![n - 1];
    while let Some(&k) = knots.last()
        && k > 0
    {
        knots.push(from[k]);
    }
    knots.reverse();
    knots
}

fn misfit(points: &[Point], i: usize, j: usize) -> f64 {
    if j == i + 1 {
        return 0.0;
    }
    if points[i + 1..=j].iter().any(|p| p.switch) {
        return f64::INFINITY;
    }
    let (latency, slope) = line((points[i].bytes, points[i].ns), (points[j].bytes, points[j].ns));
    if latency < 0.0 || slope < 0.0 {
        return f64::INFINITY;
    }
    points[i + 1..j].iter().map(|p| ((latency + slope * p.bytes as f64) / p.ns - 1.0) / p.noise).map(|r| r * r).sum()
}

/// Times at the knots: hat functions over bytes, fitted to every point; kept as measured where the fit would bend a
/// piece into one it must not be.
fn refit(points: &[Point], knots: &[usize]) -> Vec<f64> {
    let measured: Vec<f64> = knots.iter().map(|&k| points[k].ns).collect();
    if knots.len() == points.len() {
        return measured;
    }
    let mut rows = Vec::with_capacity(points.len());
    for (index, point) in points.iter().enumerate() {
        let mut row = vec![0.0; knots.len()];
        let right = knots.partition_point(|&k| k < index).max(1);
        let (x0, x1) = (points[knots[right - 1]].bytes as f64, points[knots[right]].bytes as f64);
        let share = (point.bytes as f64 - x0) / (x1 - x0);
        let weight = 1.0 / (point.ns * point.noise);
        row[right - 1] = (1.0 - share) * weight;
        row[right] = share * weight;
        rows.push(row);
    }
    let target: Vec<f64> = points.iter().map(|p| 1.0 / p.noise).collect();
    let found = nnls::solve(&rows, &target);
    let sound = knots.windows(2).enumerate().all(|(i, w)| {
        let (latency, slope) = line((points[w[0]].bytes, found[i]), (points[w[1]].bytes, found[i + 1]));
        w[1] == w[0] + 1 || (latency >= 0.0 && slope >= 0.0)
    });
    if sound && found.iter().all(|v| *v > 0.0) { found } else { measured }
}

/// The segment between two neighbouring knots, or the steps where no segment can be.
fn between(left: (u64, f64), right: (u64, f64)) -> Vec<Segment> {
    let (latency, slope) = line(left, right);
    if slope >= 0.0 && latency >= 0.0 {
        return vec![Segment { from_bytes: left.0, to_bytes: right.0, latency_ns: latency, ns_per_byte: slope }];
    }
    steps(left, right, slope < 0.0)
}

/// The power law through both knots as steps of constant time (it falls) or constant bandwidth (it grows faster than the
/// message). The first step is exact at the left knot, the last one at the right; the middle one at their geometric mean.
fn steps(left: (u64, f64), right: (u64, f64), falls: bool) -> Vec<Segment> {
    let (x0, x1) = (left.0 as f64, right.0 as f64);
    let (first, last) = if falls { (left.1, right.1) } else { (left.1 / x0.max(1.0), right.1 / x1) };
    let ratio = last / first;
    let half = (ratio.ln().abs() / STEP.ln() / 2.0).ceil().clamp(1.0, MOST_STEPS / 2.0);
    let count = 2.0 * half;
    // Bounds lie half a step off: [0, ½), [½, 1½), …, [count − ½, count] of count, in log(bytes).
    let bound = |i: f64| ((x0.max(1.0) * (x1 / x0.max(1.0)).powf((i - 0.5) / count)) as u64).clamp(left.0, right.0);
    let mut segments = Vec::new();
    let mut from_bytes = left.0;
    for i in 0..=count as usize {
        let i = i as f64;
        let to_bytes = if i == count { right.0 } else { bound(i + 1.0).max(left.0 + 1) };
        if to_bytes <= from_bytes {
            continue;
        }
        let value = first * ratio.powf(i / count);
        let (latency_ns, ns_per_byte) = if falls { (value, 0.0) } else { (0.0, value) };
        segments.push(Segment { from_bytes, to_bytes, latency_ns, ns_per_byte });
        from_bytes = to_bytes;
    }
    segments
}

/// The time at a size in ns, and how far the size lies outside what was measured, as ln of the ratio (0 within). `None`
/// without segments.
pub fn predict(segments: &[Segment], bytes: u64) -> Option<(f64, f64)> {
    let (first, last) = (segments.first()?, segments.last()?);
    let at = |s: &Segment, x: f64| s.latency_ns + s.ns_per_byte * x;
    let x = bytes as f64;
    if bytes < first.from_bytes {
        // A segment without a latency is a bandwidth: it says nothing about a message next to nothing.
        let from = first.from_bytes as f64;
        let ns = if first.latency_ns > 0.0 { at(first, x) } else { at(first, from) };
        return Some((ns, (from / x.max(1.0)).ln()));
    }
    let largest = last.to_bytes.saturating_sub(1);
    if bytes > largest {
        let end = at(last, largest as f64);
        let slope = if last.ns_per_byte > 0.0 { last.ns_per_byte } else { end / largest as f64 };
        return Some((end + slope * (x - largest as f64), (x / largest as f64).ln()));
    }
    let index = segments.partition_point(|s| s.to_bytes <= bytes).min(segments.len() - 1);
    Some((at(&segments[index], x), 0.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    fn points(truth: impl Fn(f64) -> f64, noise: f64, random: &mut SplitMix) -> Vec<Point> {
        (3..31)
            .map(|p| {
                let bytes = 1u64 << p;
                Point {
                    bytes,
                    ns: truth(bytes as f64) * (1.0 + noise * random.symmetric()),
                    noise: noise.max(0.01),
                    switch: false,
                }
            })
            .collect()
    }

    #[test]
    fn one_line_needs_one_segment() {
        let mut random = SplitMix(1);
        let segments = fit(&points(|x| 5_000.0 + 0.02 * x, 0.01, &mut random));
        assert_eq!(segments.len(), 1, "{segments:?}");
        assert!((segments[0].latency_ns / 5_000.0 - 1.0).abs() < 0.01, "{segments:?}");
        assert!((segments[0].ns_per_byte / 0.02 - 1.0).abs() < 0.01, "{segments:?}");
    }

    #[test]
    fn planted_breakpoints_are_found() {
        let mut random = SplitMix(2);
        // A bandwidth that doubles at 64 KiB (a bend), and a protocol that costs 300 µs more from 16 MiB up (a jump).
        let truth = |x: f64| {
            let bend = 65_536.0;
            let base = if x < bend { 4_000.0 + 0.2 * x } else { 4_000.0 + 0.2 * bend + 0.1 * (x - bend) };
            base + if x >= 16_777_216.0 { 900_000.0 } else { 0.0 }
        };
        for _ in 0..20 {
            let data = points(truth, 0.01, &mut random);
            let mut starts: Vec<u32> = fit(&data).iter().map(|s| s.from_bytes.ilog2()).collect();
            // the steps of the jump begin between its two sizes
            starts.dedup();
            assert!(starts.len() <= 6, "{starts:?}");
            assert!(starts.iter().any(|p| (15..=17).contains(p)), "no bend at 2^16: {starts:?}");
            assert!(starts.contains(&23) && starts.contains(&24), "no jump from 2^23 to 2^24: {starts:?}");
        }
    }

    #[test]
    fn every_curve_gives_sound_segments() {
        let mut random = SplitMix(3);
        for _ in 0..500 {
            let n = 2 + random.below(14);
            let mut bytes = random.below(100) as u64;
            let data: Vec<Point> = (0..n)
                .map(|_| {
                    let step = 1 << (1 + random.below(24));
                    bytes += 1 + random.below(step) as u64;
                    Point {
                        bytes,
                        ns: 10f64.powf(1.0 + 6.0 * random.unit()),
                        noise: 0.01 + 0.1 * random.unit(),
                        switch: random.below(8) == 0,
                    }
                })
                .collect();
            let segments = fit(&data);
            assert_eq!(segments[0].from_bytes, data[0].bytes);
            assert_eq!(segments[segments.len() - 1].to_bytes, bytes + 1);
            assert!(segments.windows(2).all(|w| w[0].to_bytes == w[1].from_bytes), "{segments:?}");
            for s in &segments {
                assert!(s.latency_ns >= 0.0 && s.ns_per_byte >= 0.0 && s.from_bytes < s.to_bytes, "{s:?}");
            }
            for x in [0, 1, data[0].bytes, bytes / 2, bytes, bytes + 1, 10 * bytes, u64::MAX] {
                let (ns, outside) = predict(&segments, x).unwrap();
                assert!(ns.is_finite() && ns > 0.0, "{ns} at {x}: {segments:?}");
                assert_eq!(outside == 0.0, (data[0].bytes..=bytes).contains(&x), "{x}");
            }
        }
    }

    #[test]
    fn exact_at_knots_and_between_for_a_ramp() {
        let data: Vec<Point> = [(1024, 10_000.0), (4096, 9_000.0), (16_384, 80_000.0), (65_536, 100_000.0)]
            .map(|(bytes, ns)| Point { bytes, ns, noise: 0.01, switch: false })
            .to_vec();
        let segments = fit(&data);
        for p in &data {
            assert!((predict(&segments, p.bytes).unwrap().0 / p.ns - 1.0).abs() < 1e-9, "{p:?} {segments:?}");
        }
        let (middle, _) = predict(&segments, 40_960).unwrap();
        assert!((middle - 90_000.0).abs() < 1.0, "{middle}");
        let falling = predict(&segments, 2048).unwrap().0;
        assert!(falling > 9_000.0 && falling < 10_000.0, "{falling}");
    }

    #[test]
    fn the_largest_number_is_a_size_too() {
        let data = [1 << 20, u64::MAX].map(|bytes| Point { bytes, ns: bytes as f64, noise: 0.01, switch: false });
        assert_eq!(fit(&data).last().unwrap().to_bytes, u64::MAX);
        assert!(predict(&fit(&data), u64::MAX).unwrap().0.is_finite());
    }

    #[test]
    fn too_little_is_no_curve() {
        assert!(fit(&[]).is_empty());
        assert!(fit(&[Point { bytes: 8, ns: 1.0, noise: 0.1, switch: false }]).is_empty());
        assert_eq!(predict(&[], 8), None);
    }
}
