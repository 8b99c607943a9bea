//! One pass over a profile's spans in the order of their starts: when each device computed, and every gap between.
//!
//! Memory is a few numbers a device and the gaps that are long enough to be listed. Where the cuts between iterations
//! are known beforehand, gaps end there and the totals are taken there; where they are not, the pass leaves marks at
//! which [`super::period`] may cut afterwards.

use super::span::{Activity, NameId, Span};
use super::windows::{TO_THE_LAST, Window};

/// The time covered by intervals that come in the order of their starts, overlaps counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Union {
    /// Covered before `start`.
    closed: u64,
    start: u64,
    /// The latest end of any interval so far, in ns.
    pub end: u64,
}

impl Union {
    /// Adds an interval in ns that starts no earlier than any before it.
    pub fn add(&mut self, start: u64, end: u64) {
        if start > self.end {
            self.closed += self.end - self.start;
            self.start = start;
            self.end = end;
        } else if end > self.end {
            self.end = end;
        }
    }

    /// The time in ns covered up to `time`, which no interval yet to come precedes.
    pub fn until(&self, time: u64) -> u64 {
        self.closed + self.end.min(time).saturating_sub(self.start)
    }
}

/// The time covered so far by each activity, overlaps within an activity counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Time in which a compute kernel ran, in ns.
    pub compute_ns: u64,
    /// Time in which a communication kernel ran, beside compute or not, in ns.
    pub communication_ns: u64,
    /// Time in which a copy or fill of memory ran, in ns.
    pub copy_ns: u64,
}

impl Totals {
    /// The time covered since an earlier moment of the same pass.
    pub fn since(self, before: Totals) -> Totals {
        Totals {
            compute_ns: self.compute_ns - before.compute_ns,
            communication_ns: self.communication_ns - before.communication_ns,
            copy_ns: self.copy_ns - before.copy_ns,
        }
    }
}

/// A maximal interval within one window in which no compute kernel ran on the device.
#[derive(Debug, Clone, PartialEq)]
pub struct Gap {
    /// When the gap begins, in ns on the profile's clock.
    pub start_ns: u64,
    /// When the gap ends, in ns on the profile's clock.
    pub end_ns: u64,
    /// Index of the window in which the gap lies.
    pub window: u32,
    /// The compute kernel that ended last before the gap; `None` at the start of a window.
    pub previous: Option<NameId>,
    /// The compute kernel that ended the gap; `None` at the end of a window.
    pub next: Option<NameId>,
    /// The key of the launch of the next kernel, as [`Span::launch`] holds it; 0 where there is no next kernel.
    pub launch: u64,
    /// Whether a send or receive kernel ran within the gap.
    pub send_recv: bool,
    /// Whether another collective ran within the gap.
    pub collective: bool,
    /// When the next kernel was launched, so far as it was asked for.
    pub launched: LaunchTiming,
}

/// When the kernel that ended a gap was launched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LaunchTiming {
    /// The launch was not asked for, or the profile does not hold it.
    Unknown,
    /// The kernel was launched before the gap began, or just then.
    InTime,
    /// The kernel was launched only after the gap had begun.
    Late,
}

impl Gap {
    /// Whether the gap's class depends on when its next kernel was launched.
    pub const fn asks(&self) -> bool {
        !self.send_recv && !self.collective && self.next.is_some()
    }
}

/// A moment at which a compute kernel starts and an iteration might begin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mark {
    /// The moment, in ns on the profile's clock.
    pub time_ns: u64,
    /// Length of the gap before the moment in ns; 0 where the kernel follows at once.
    pub gap_ns: u64,
    /// The time covered by each activity up to the moment.
    pub totals: Totals,
    /// A sum that stands for the kernels between the mark before and this one, whatever their order.
    pub symbol: u64,
    /// Whether the kernel before belongs to an optimizer and the one that starts does not.
    pub after_optimizer: bool,
}

/// The end of one collective, which the profiles of several ranks may have in common.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CollectiveEnd {
    /// The name of the collective's kernel.
    pub name: NameId,
    /// When the collective ended, in ns on the profile's clock.
    pub end_ns: u64,
}

/// Collectives kept for the alignment of ranks.
const MOST_COLLECTIVE_ENDS: usize = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Cut {
    Open(u64),
    Close(u64),
}

impl Cut {
    const fn time(self) -> u64 {
        match self {
            Cut::Open(time) | Cut::Close(time) => time,
        }
    }
}

/// One device's part of the pass over a profile: what ran so far, and what was found.
#[derive(Debug, Default)]
pub struct DeviceScan {
    /// The GPU's number in the profile.
    pub number: u64,
    min_gap_ns: u64,
    cuts: Vec<Cut>,
    next_cut: usize,
    /// Index of the window that is open, and where it began.
    open: Option<(u32, u64)>,
    opened: u32,
    /// No windows are known: leave marks.
    marking: bool,
    compute: Union,
    communication: Union,
    copies: Union,
    last_name: Option<NameId>,
    last_is_optimizer: bool,
    send_recv_end: u64,
    collective_end: u64,
    at_open: Totals,
    /// Covered up to the end of compute, taken before anything was added that begins behind it.
    at_compute_end: Option<Totals>,
    symbol: u64,
    /// When the first compute kernel started, in ns; `None` while none has.
    pub first_compute_ns: Option<u64>,
    /// The time covered before `first_compute_ns` by what is not compute.
    pub before_first: Totals,
    /// The windows that are over, each with the time covered by each activity within it.
    pub windows: Vec<(Window, Totals)>,
    /// The gaps of at least the smallest length asked for, in order of time.
    pub gaps: Vec<Gap>,
    /// Moments at which an iteration might begin, where no windows were given.
    pub marks: Vec<Mark>,
    /// Ends of the first 65,536 collectives, in the order of their starts.
    pub collective_ends: Vec<CollectiveEnd>,
}

impl DeviceScan {
    /// A pass over the device of this number. `windows` are in order and apart from each other, empty where iterations
    /// are yet to be found; gaps shorter than `min_gap_ns` are not listed.
    pub fn new(number: u64, windows: &[Window], min_gap_ns: u64) -> Self {
        let cuts = windows.iter().flat_map(|w| [Cut::Open(w.start_ns), Cut::Close(w.end_ns)]).collect();
        DeviceScan { number, min_gap_ns: min_gap_ns.max(1), cuts, marking: windows.is_empty(), ..Default::default() }
    }

    /// Takes the next span in the order of starts; `optimizer` says whether its kernel is a step of an optimizer.
    pub fn add(&mut self, span: &Span, optimizer: bool) {
        let (start, end) = (span.start_ns, span.end_ns);
        if span.activity == Activity::Ignored {
            return;
        }
        while self.cuts.get(self.next_cut).is_some_and(|cut| cut.time() <= start) {
            self.cut();
        }
        if end == start {
            return;
        }
        if start >= self.compute.end && self.at_compute_end.is_none() {
            self.at_compute_end = Some(self.totals(self.compute.end));
        }
        match span.activity {
            Activity::Ignored => {}
            Activity::Compute => self.compute(span, optimizer),
            Activity::Copy => self.copies.add(start, end),
            Activity::SendRecv => {
                self.communication.add(start, end);
                self.send_recv_end = self.send_recv_end.max(end);
            }
            Activity::Collective => {
                self.communication.add(start, end);
                self.collective_end = self.collective_end.max(end);
                if self.collective_ends.len() < MOST_COLLECTIVE_ENDS {
                    self.collective_ends.push(CollectiveEnd { name: span.name, end_ns: end });
                }
            }
        }
    }

    fn compute(&mut self, span: &Span, optimizer: bool) {
        let start = span.start_ns;
        if self.first_compute_ns.is_none() {
            self.first_compute_ns = Some(start);
            self.before_first = self.totals(start);
            if self.marking {
                self.open = Some((0, start));
            }
        }
        if start > self.compute.end {
            self.gap_until(start, Some(span));
        }
        if self.marking {
            self.mark(span, optimizer);
        }
        if span.end_ns > self.compute.end {
            self.last_name = Some(span.name);
            self.at_compute_end = None;
        }
        self.compute.add(start, span.end_ns);
    }

    /// Lists the gap that ends at `end`, where `next` starts or the window closes.
    fn gap_until(&mut self, end: u64, next: Option<&Span>) {
        let Some((window, floor)) = self.open else { return };
        let start = self.compute.end.max(floor);
        if end < start + self.min_gap_ns {
            return;
        }
        self.gaps.push(Gap {
            start_ns: start,
            end_ns: end,
            window,
            previous: if self.compute.end > floor { self.last_name } else { None },
            next: next.map(|n| n.name),
            launch: next.map_or(0, |n| n.launch),
            // Whatever began before `end` has been seen.
            send_recv: self.send_recv_end > start,
            collective: self.collective_end > start,
            launched: LaunchTiming::Unknown,
        });
    }

    fn mark(&mut self, span: &Span, optimizer: bool) {
        let gap_ns = span.start_ns.saturating_sub(self.compute.end);
        let after_optimizer = self.last_is_optimizer && !optimizer;
        if self.last_name.is_some() && (gap_ns >= self.min_gap_ns || after_optimizer) {
            let (time_ns, symbol) = (span.start_ns, std::mem::take(&mut self.symbol));
            self.marks.push(Mark { time_ns, gap_ns, totals: self.totals(time_ns), symbol, after_optimizer });
        }
        self.last_is_optimizer = optimizer;
        self.symbol = self.symbol.wrapping_add(mixed(span.name));
    }

    /// The time covered by each activity up to `time` in ns, which no span yet to come precedes.
    pub fn totals(&self, time: u64) -> Totals {
        Totals {
            compute_ns: self.compute.until(time),
            communication_ns: self.communication.until(time),
            copy_ns: self.copies.until(time),
        }
    }

    /// The time covered by each activity up to the last compute kernel's end, whatever came after it.
    pub fn totals_at_compute_end(&self) -> Totals {
        self.at_compute_end.unwrap_or_else(|| self.totals(self.compute.end))
    }

    fn cut(&mut self) {
        match self.cuts[self.next_cut] {
            Cut::Open(time) => {
                self.open = Some((self.opened, time));
                self.opened += 1;
                self.at_open = self.totals(time);
            }
            Cut::Close(time) => {
                let to_the_last = time == TO_THE_LAST;
                let time = if to_the_last { self.compute.end.max(self.open_since()) } else { time };
                if time > self.compute.end {
                    self.gap_until(time, None);
                }
                if let Some((_, start_ns)) = self.open.take().filter(|open| open.1 < time) {
                    let totals = if to_the_last { self.totals_at_compute_end() } else { self.totals(time) };
                    self.windows.push((Window { start_ns, end_ns: time }, totals.since(self.at_open)));
                }
            }
        }
        self.next_cut += 1;
    }

    fn open_since(&self) -> u64 {
        self.open.map_or(0, |(_, start)| start)
    }

    /// Ends the pass: no span comes any more, and the windows still open are closed.
    pub fn finish(&mut self) {
        while self.next_cut < self.cuts.len() {
            self.cut();
        }
    }

    /// When the last compute kernel so far ended, in ns on the profile's clock.
    pub const fn compute_end_ns(&self) -> u64 {
        self.compute.end
    }
}

/// A name's part of a symbol: far apart for neighbouring ids, so that sums of few names differ.
fn mixed(name: NameId) -> u64 {
    crate::stats::SplitMix(u64::from(name)).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    fn span(start_ns: u64, end_ns: u64, activity: Activity, name: NameId) -> Span {
        Span { start_ns, end_ns, launch: start_ns, name, device: 0, activity }
    }

    fn scan(spans: &[Span], windows: &[Window], min_gap_ns: u64) -> DeviceScan {
        let mut spans = spans.to_vec();
        spans.sort_by_key(Span::key);
        let mut scan = DeviceScan::new(0, windows, min_gap_ns);
        spans.iter().for_each(|s| scan.add(s, false));
        scan.finish();
        scan
    }

    #[test]
    fn a_gap_says_what_lies_in_it_and_around_it() {
        use Activity::{Collective, Compute, SendRecv};
        let spans = [
            span(10, 20, Compute, 1),
            span(12, 30, Compute, 2),
            span(31, 50, SendRecv, 9),
            span(50, 60, Compute, 3),
            span(55, 70, Collective, 8),
            span(70, 80, Compute, 4),
            span(80, 90, SendRecv, 9),
        ];
        let scan = scan(&spans, &[Window { start_ns: 0, end_ns: 100 }], 1);
        let list: Vec<_> =
            scan.gaps.iter().map(|g| (g.start_ns, g.end_ns, g.previous, g.next, g.send_recv, g.collective)).collect();
        assert_eq!(
            list,
            [
                (0, 10, None, Some(1), false, false),
                (30, 50, Some(2), Some(3), true, false),
                (60, 70, Some(3), Some(4), false, true),
                (80, 100, Some(4), None, true, false),
            ]
        );
        let totals = Totals { compute_ns: 40, communication_ns: 44, copy_ns: 0 };
        assert_eq!(scan.windows, [(Window { start_ns: 0, end_ns: 100 }, totals)]);
    }

    #[test]
    fn a_window_cuts_gaps_and_kernels() {
        let windows = [Window { start_ns: 10, end_ns: 40 }, Window { start_ns: 40, end_ns: 60 }];
        let spans = [span(0, 15, Activity::Compute, 1), span(50, 90, Activity::Compute, 2)];
        let scan = scan(&spans, &windows, 5);
        let list: Vec<_> = scan.gaps.iter().map(|g| (g.start_ns, g.end_ns, g.window, g.previous, g.next)).collect();
        assert_eq!(list, [(15, 40, 0, Some(1), None), (40, 50, 1, None, Some(2))]);
        assert_eq!(scan.windows.iter().map(|w| w.1.compute_ns).collect::<Vec<_>>(), [5, 10]);
    }

    #[test]
    fn what_runs_after_the_last_kernel_is_in_no_window() {
        use Activity::{Collective, Compute, Copy};
        let spans = [
            span(0, 10, Compute, 1),
            span(5, 30, Collective, 8),
            span(15, 20, Compute, 1),
            span(21, 25, Copy, 7),
            span(40, 50, Collective, 8),
            span(60, 70, Collective, 8),
            span(80, 90, Copy, 7),
        ];
        let totals = Totals { compute_ns: 15, communication_ns: 15, copy_ns: 0 };
        let window = Window { start_ns: 0, end_ns: 20 };
        let last = scan(&spans, &[Window { start_ns: 0, end_ns: TO_THE_LAST }], 1);
        assert_eq!(last.windows, [(window, totals)]);
        let mut whole = scan(&spans, &[], 1);
        crate::trace::period::cut(&mut whole);
        assert_eq!(whole.windows, [(window, totals)]);
    }

    /// Against a count nanosecond by nanosecond, on random spans with random windows.
    #[test]
    fn gaps_and_totals_are_those_of_a_naive_count() {
        let mut random = SplitMix(11);
        for _ in 0..300 {
            let spans: Vec<Span> = (0..random.below(30))
                .map(|_| {
                    let start = random.below(190) as u64;
                    span(start, start + random.below(12) as u64, Activity::ALL[random.below(5)], 1)
                })
                .collect();
            let middle = 50 + random.below(100) as u64;
            let windows = [Window { start_ns: 5, end_ns: middle }, Window { start_ns: middle, end_ns: 195 }];
            let scan = scan(&spans, &windows, 1);
            let runs = |at: u64, of: &[Activity]| {
                spans.iter().any(|s| of.contains(&s.activity) && s.start_ns <= at && at < s.end_ns)
            };
            let mut wanted = Vec::new();
            for (index, window) in windows.iter().enumerate() {
                let mut since = None;
                for at in window.start_ns..=window.end_ns {
                    let idle = at < window.end_ns && !runs(at, &[Activity::Compute]);
                    match (since, idle) {
                        (None, true) => since = Some(at),
                        (Some(start), false) => {
                            let inside = |of| (start..at).any(|t| runs(t, &[of]));
                            wanted.push((start, at, inside(Activity::SendRecv), inside(Activity::Collective)));
                            since = None;
                        }
                        _ => {}
                    }
                }
                let count = |of: &[Activity]| (window.start_ns..window.end_ns).filter(|t| runs(*t, of)).count() as u64;
                let totals = Totals {
                    compute_ns: count(&[Activity::Compute]),
                    communication_ns: count(&[Activity::SendRecv, Activity::Collective]),
                    copy_ns: count(&[Activity::Copy]),
                };
                assert_eq!(scan.windows[index], (*window, totals));
            }
            let got: Vec<_> = scan.gaps.iter().map(|g| (g.start_ns, g.end_ns, g.send_recv, g.collective)).collect();
            assert_eq!(got, wanted);
        }
    }
}
