//! Gaps that wait for the launch of the kernel that ended them.
//!
//! Readers pass over millions of launches, nearly in the order of their keys; the gaps are sorted by key, and each list
//! is searched from where the last key was found. No map is needed beside the gaps.

use super::scan::{DeviceScan, Gap, LaunchTiming};

/// The gaps of all devices sorted by the key of the launch that each may ask for.
pub struct PendingLaunches<'a> {
    lists: Vec<List<'a>>,
    sieve: Vec<u64>,
}

struct List<'a> {
    gaps: &'a mut [Gap],
    /// Where the last key would be.
    at: usize,
}

const SIEVE_BITS: u64 = 1 << 22;

/// Lets `find` see the gaps in the order of launches, then puts them back into the order of time; returns what `find`
/// did.
pub fn resolve<T>(scans: &mut [DeviceScan], find: impl FnOnce(&mut PendingLaunches) -> T) -> T {
    for scan in scans.iter_mut() {
        scan.gaps.sort_unstable_by_key(|g| g.launch);
    }
    let mut pending = PendingLaunches { lists: Vec::new(), sieve: vec![0; (SIEVE_BITS / 64) as usize] };
    for gap in scans.iter().flat_map(|s| &s.gaps).filter(|g| g.asks()) {
        let bit = gap.launch % SIEVE_BITS;
        pending.sieve[(bit / 64) as usize] |= 1 << (bit % 64);
    }
    pending.lists = scans.iter_mut().map(|s| List { gaps: &mut s.gaps, at: 0 }).collect();
    let answer = find(&mut pending);
    for scan in scans.iter_mut() {
        scan.gaps.sort_unstable_by_key(|g| g.start_ns);
    }
    answer
}

impl PendingLaunches<'_> {
    /// The keys of gaps whose launch is asked for and not known yet, one entry a gap.
    pub fn unknown(&self) -> impl Iterator<Item = u64> {
        let gaps = self.lists.iter().flat_map(|l| l.gaps.iter());
        gaps.filter(|g| g.asks() && g.launched == LaunchTiming::Unknown).map(|g| g.launch)
    }

    /// Whether a gap may ask for this key, judged by its low bits: false is certain, and puts most launches aside.
    pub fn may_ask(&self, key: u64) -> bool {
        let bit = key % SIEVE_BITS;
        self.sieve[(bit / 64) as usize] >> (bit % 64) & 1 == 1
    }

    /// Tells the gaps that ask for this key when its launch was, in ns. Of several times the earliest counts.
    pub fn note(&mut self, key: u64, launch_ns: u64) {
        for list in &mut self.lists {
            list.seek(key);
            for gap in list.gaps[list.at..].iter_mut().take_while(|g| g.launch == key) {
                let late = launch_ns > gap.start_ns && gap.launched != LaunchTiming::InTime;
                gap.launched = if late { LaunchTiming::Late } else { LaunchTiming::InTime };
            }
        }
    }
}

impl List<'_> {
    /// Moves to the first gap whose key is not less.
    fn seek(&mut self, key: u64) {
        let (mut low, mut high, mut step) = (self.at, self.at, 1);
        while high < self.gaps.len() && self.gaps[high].launch < key {
            low = high + 1;
            high += step;
            step *= 2;
        }
        step = 1;
        while low > 0 && self.gaps[low - 1].launch >= key {
            high = low - 1;
            low = low.saturating_sub(step);
            step *= 2;
        }
        let high = high.min(self.gaps.len());
        self.at = low + self.gaps[low..high].partition_point(|g| g.launch < key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    #[test]
    fn launches_find_their_gaps_in_any_order() {
        let mut random = SplitMix(9);
        for count in [0usize, 1, 2, 500] {
            let mut scan = DeviceScan::new(0, &[], 1);
            for index in 0..count as u64 {
                let start_ns = 1000 * index;
                let (launch, window, launched) = (random.next_u64() % 300, 0, LaunchTiming::Unknown);
                let (previous, next) = (Some(0), (random.below(5) > 0).then_some(1));
                let (send_recv, collective) = (random.below(5) == 0, false);
                let end_ns = start_ns + 10;
                scan.gaps.push(Gap {
                    start_ns,
                    end_ns,
                    window,
                    previous,
                    next,
                    launch,
                    send_recv,
                    collective,
                    launched,
                });
            }
            let launches: Vec<(u64, u64)> =
                (0..400).map(|_| (random.next_u64() % 320, random.next_u64() % 500_000)).collect();
            let mut scans = [scan];
            let asked = resolve(&mut scans, |pending| {
                let asked = pending.unknown().count();
                for (key, time) in &launches {
                    assert!(pending.may_ask(*key) || !pending.unknown().any(|k| k == *key));
                    pending.note(*key, *time);
                }
                asked
            });
            assert!(scans[0].gaps.is_sorted_by_key(|g| g.start_ns));
            assert_eq!(asked, scans[0].gaps.iter().filter(|g| g.asks()).count());
            for gap in &scans[0].gaps {
                let earliest = launches.iter().filter(|l| l.0 == gap.launch).map(|l| l.1).min();
                let wanted = match earliest {
                    None => LaunchTiming::Unknown,
                    Some(time) if time > gap.start_ns => LaunchTiming::Late,
                    Some(_) => LaunchTiming::InTime,
                };
                assert_eq!(gap.launched, wanted);
            }
        }
    }
}
