//! Iterations of a profile without ranges, from what repeats in it.
//!
//! An optimizer runs once an iteration: where its kernels are known by name, an iteration begins with the first kernel
//! after each burst of them. Otherwise the stretches of compute between long gaps are compared: the shortest period after
//! which the same kernels come again, over the whole profile, is taken, and the first kernel of the profile begins an
//! iteration.

use super::scan::{DeviceScan, Mark};
use super::windows::Window;

/// Cuts a pass without known windows into iterations: fills `windows`, and numbers the gaps by them. Where nothing
/// repeats it returns false and the whole profile is one iteration.
pub fn cut(scan: &mut DeviceScan) -> bool {
    let Some(first) = scan.first_compute_ns else { return false };
    let end = scan.compute_end_ns();
    let begin = Mark { time_ns: first, gap_ns: 0, totals: scan.before_first, symbol: 0, after_optimizer: false };
    let last = Mark { time_ns: end, totals: scan.totals_at_compute_end(), ..begin };
    let found = optimizer_cuts(&scan.marks, first, end).or_else(|| repeated_cuts(&scan.marks, first, end));
    let inner: Vec<Mark> = found.iter().flatten().map(|&index| scan.marks[index]).collect();
    let points: Vec<Mark> = [begin].into_iter().chain(inner).chain([last]).collect();
    let windows = points.windows(2).filter(|p| p[1].time_ns > p[0].time_ns);
    scan.windows = windows
        .map(|p| (Window { start_ns: p[0].time_ns, end_ns: p[1].time_ns }, p[1].totals.since(p[0].totals)))
        .collect();
    place_gaps(scan);
    found.is_some()
}

/// Every gap lies in one window, since cuts are where kernels start; the one before a cut is the end of an iteration.
fn place_gaps(scan: &mut DeviceScan) {
    let mut window = 0;
    for gap in &mut scan.gaps {
        while scan.windows.get(window).is_some_and(|(w, _)| w.end_ns < gap.end_ns) {
            window += 1;
        }
        gap.window = window as u32;
        if scan.windows.get(window).is_some_and(|(w, _)| w.end_ns == gap.end_ns) {
            gap.next = None;
        }
    }
}

/// The last mark after each burst of optimizer kernels. Within a burst they are nearer to each other than to the next
/// burst's; the first burst's distance from the start of the profile counts as one.
fn optimizer_cuts(marks: &[Mark], first: u64, end: u64) -> Option<Vec<usize>> {
    let after: Vec<usize> = (0..marks.len()).filter(|&i| marks[i].after_optimizer).collect();
    let time = |k: usize| marks[after[k]].time_ns;
    let longest =
        (1..after.len()).map(|k| time(k) - time(k - 1)).chain([after.first().map(|_| time(0) - first)?]).max()?;
    let mut cuts: Vec<usize> = (0..after.len())
        .filter(|&k| k + 1 == after.len() || time(k + 1) - time(k) > longest / 2)
        .map(|k| after[k])
        .collect();
    // What follows the last burst is the start of an iteration that was not recorded to its end, or a few kernels.
    let starts: Vec<u64> = [first].into_iter().chain(cuts.iter().map(|&c| marks[c].time_ns)).collect();
    let typical = median(starts.windows(2).map(|w| w[1] - w[0]).collect())?;
    if cuts.last().is_some_and(|&c| end - marks[c].time_ns < typical / 100) {
        cuts.pop();
    }
    let regular = starts.windows(2).all(|w| (w[1] - w[0]).abs_diff(typical) <= typical / 2);
    (regular && !cuts.is_empty()).then_some(cuts)
}

/// The share of stretches that must agree with those a period later. Nearly all: the steady part of one long iteration
/// repeats too, but its ends do not.
const AGREEMENT: f64 = 0.995;
/// Stretches looked at for one threshold; a longer profile is judged by fewer, longer gaps.
const MOST_STRETCHES: usize = 20_000;

/// Tries longer gaps first: they are few, and least disturbed by noise.
fn repeated_cuts(marks: &[Mark], first: u64, end: u64) -> Option<Vec<usize>> {
    let longest = marks.iter().map(|m| m.gap_ns).max().filter(|&g| g > 0)?;
    (1..12).find_map(|halvings| {
        let threshold = (longest >> halvings).max(1);
        let chosen: Vec<usize> = (0..marks.len()).filter(|&i| marks[i].gap_ns >= threshold).collect();
        (chosen.len() <= MOST_STRETCHES).then(|| period_of(marks, &chosen, first, end)).flatten()
    })
}

/// Cuts after every `period` stretches, if one repeats.
fn period_of(marks: &[Mark], chosen: &[usize], first: u64, end: u64) -> Option<Vec<usize>> {
    let symbols = stretches(marks, chosen);
    let period = period(&symbols)?;
    let cuts: Vec<usize> = (1..).map(|k| k * period - 1).take_while(|&k| k < chosen.len()).map(|k| chosen[k]).collect();
    let times: Vec<u64> = [first].into_iter().chain(cuts.iter().map(|&c| marks[c].time_ns)).chain([end]).collect();
    let lengths: Vec<u64> = times.windows(2).map(|w| w[1] - w[0]).collect();
    let typical = median(lengths.clone())?;
    // The last one lacks the gap at its end and may be cut short.
    let regular = lengths[..lengths.len() - 1].iter().all(|l| l.abs_diff(typical) <= typical / 3);
    (regular && lengths.len() > 1).then_some(cuts)
}

/// The kernels of every stretch between chosen marks, the last stretch (after the last mark) left out.
fn stretches(marks: &[Mark], chosen: &[usize]) -> Vec<u64> {
    let mut from = 0;
    chosen
        .iter()
        .map(|&index| {
            let sum = marks[from..=index].iter().fold(0u64, |sum, m| sum.wrapping_add(m.symbol));
            from = index + 1;
            sum
        })
        .collect()
}

/// The shortest period by which nearly all stretches agree, better than by any shorter one.
fn period(symbols: &[u64]) -> Option<usize> {
    let agreement = |period: usize| {
        let pairs = symbols.len() - period;
        (0..pairs).filter(|&i| symbols[i] == symbols[i + period]).count() as f64 / pairs as f64
    };
    // At least one stretch beyond the first period must have come again, and half of the second one.
    let most = (2 * symbols.len() / 3).min(4000);
    let all: Vec<(usize, f64)> = (1..=most).map(|p| (p, agreement(p))).collect();
    let best = all.iter().map(|a| a.1).fold(0.0, f64::max);
    if best < AGREEMENT {
        return None;
    }
    all.into_iter().find(|a| a.1 >= best - 0.002).map(|a| a.0)
}

fn median(mut values: Vec<u64>) -> Option<u64> {
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}
