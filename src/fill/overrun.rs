//! How long the main job waits for side work that is still running when a bubble truly ends, and how much of the side's work is then not
//! begun at all: closed forms.
//!
//! The gate opens for an expected length X. A piece of side work (a kernel, a segment, a whole step) starts only if it would end
//! within X and the bubble has not ended before. The true length L varies: normally, or as it was seen to ([`Part`]).
//! Pieces of unequal length go on from bubble to bubble, so that where the last boundary before X lies is uniform over a piece, and
//! longer pieces are met more often (a renewal process in its steady state: Cox, Renewal Theory, 1962). With Y = X − L, over the
//! pieces d of a step
//!
//! ```text
//! E[(end of the last piece − L)⁺] = Σ E[min(d, Y⁺)²] ÷ 2·Σ d
//! ```
//!
//! as far as Y < X − o, o being the opening: in a bubble that ended before, nothing was begun. Pieces that are all of one length,
//! such as whole steps, end at eₖ = o + k·d in every bubble instead. Piece k + 1 is begun if it would end in time, and waited for if
//! eₖ < L ≤ eₖ₊₁, which is
//!
//! ```text
//! E[(end of the last piece − L)⁺] = Σ E[(eₖ₊₁ − L)⁺] − E[(eₖ − L)⁺] − d · P(L ≤ eₖ)      over all k that are begun
//! ```
//!
//! A run that was to last from s to e loses, since nothing is begun in a bubble that has ended,
//! E[(e − L)⁺] − E[(s − L)⁺] less what of it is waited for.
//!
//! All are integrals of normal densities. A bubble opened for its q-quantile is overrun in about q of all iterations, by half of
//! the piece in flight at most on average. [`super::simulation`] has the same gate event by event, and holds these against it.

use super::kernels::PieceClass;
use super::pack::Residency;
use crate::stats::normal;

/// By how many standard deviations a side asks for more than a piece takes on average: the quantile of 90 % by which
/// `bubblebench side` asks.
pub const NEED_DEVIATIONS: f64 = 1.281_551_565_5;

/// Standard deviations before the true end beyond which a boundary does not count.
const FAR: f64 = 6.0;
/// Boundaries that are added up one by one; among more of them where they lie makes no difference.
const MOST_BOUNDARIES: f64 = 64.0;
/// Standard deviations by which the pieces before one may have been shorter than usual, so that one more begins.
const EARLY: f64 = 3.0;
/// What whole nanoseconds leave of a fraction is no reason why a piece should not fit.
const ROUNDING: f64 = 1e-3;

/// How a bubble's length varies from iteration to iteration, and for how long the gate opens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variation<'a> {
    /// Length that the gate opens for, in ns: a low quantile of the lengths.
    pub expected_ns: u64,
    /// Standard deviation of the length about its median, in ns, as far as it is shorter: only shorter bubbles are overrun.
    pub deviation_ns: f64,
    /// How the lengths are distributed, if that was seen; where this is empty they are normal.
    pub parts: &'a [Part],
}

/// Some of all lengths of a bubble: their distribution is a mixture of such normal parts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    /// Share of all lengths.
    pub share: f64,
    /// Their mean less the median of all, in ns.
    pub from_median_ns: f64,
    /// Their standard deviation, in ns.
    pub deviation_ns: f64,
}

/// When a bubble truly ends, as seen from the time by which all side work is to have ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrueEnd<'a> {
    /// From that time to the median true end, in ns; negative where most bubbles end before it.
    pub later_ns: f64,
    /// Standard deviation of the true end, in ns.
    pub deviation_ns: f64,
    /// How it is distributed about the median, if that was seen; where this is empty it is normal.
    pub parts: &'a [Part],
}

impl<'a> TrueEnd<'a> {
    /// An end that varies normally.
    pub const fn normal(later_ns: f64, deviation_ns: f64) -> Self {
        TrueEnd { later_ns, deviation_ns, parts: &[] }
    }

    /// The same as seen from a time that lies `ns` before.
    pub const fn seen_before(self, ns: f64) -> Self {
        TrueEnd { later_ns: self.later_ns + ns, ..self }
    }

    /// The normal distributions that it is a mixture of: share, mean and standard deviation.
    fn mixture(self) -> impl Iterator<Item = (f64, f64, f64)> + 'a {
        let whole = self.parts.is_empty().then_some((1.0, self.later_ns, self.deviation_ns));
        let parts = self.parts.iter();
        whole.into_iter().chain(parts.map(move |p| (p.share, self.later_ns + p.from_median_ns, p.deviation_ns)))
    }

    /// By how much something that ends `at_ns`, give or take `own_ns`, outlasts the bubble on average.
    fn outlasted_by(self, at_ns: f64, own_ns: f64) -> f64 {
        self.mixture().map(|(share, end, dev)| share * normal::positive_part(at_ns - end, dev.hypot(own_ns))).sum()
    }

    /// Probability that the bubble has ended `at_ns`, give or take `own_ns`.
    fn has_ended(self, at_ns: f64, own_ns: f64) -> f64 {
        let each = |(share, end, dev): (f64, f64, f64)| match dev.hypot(own_ns) {
            dev if dev > 0.0 => share * normal::below((at_ns - end) / dev),
            _ => share * f64::from(u8::from(end <= at_ns)),
        };
        self.mixture().map(each).sum()
    }

    /// Before that it never ends.
    fn earliest_ns(self, own_ns: f64) -> f64 {
        self.mixture().map(|(_, end, dev)| end - FAR * dev.hypot(own_ns)).fold(f64::INFINITY, f64::min)
    }
}

/// The pieces that a side's work comes in, as long as they take within the bubble.
#[derive(Debug, Clone, Copy)]
pub struct Pieces<'a> {
    /// Their lengths alone, and how many of a step have each.
    pub classes: &'a [PieceClass],
    /// Whether all of them are of exactly one length.
    pub alike: bool,
    /// Speed within the bubble, alone being 1.
    pub rate: f64,
    /// Standard deviation of a piece's time over its mean.
    pub spread: f64,
}

impl Pieces<'_> {
    /// Length within the bubble in ns, and how many of a step have it.
    fn iter(&self) -> impl Iterator<Item = (f64, f64)> {
        self.classes.iter().map(|class| (class.length_ns as f64 / self.rate, class.count as f64))
    }

    fn step_ns(&self) -> f64 {
        self.iter().map(|(length, count)| length * count).sum::<f64>().max(f64::MIN_POSITIVE)
    }

    /// The length of each, where all have the same.
    fn one_length(&self) -> Option<f64> {
        match self.classes {
            [class] if self.alike => Some((class.length_ns as f64 / self.rate).max(1.0)),
            _ => None,
        }
    }

    /// Time by which side work outlasts the bubble, on average over all iterations, in ns, if the side has the bubble to itself and
    /// `room_ns` from its first piece until all is to have ended.
    pub fn overrun_ns(&self, room_ns: f64, end: TrueEnd) -> f64 {
        let boundaries = self.one_length().and_then(|length| self.at_boundaries_ns(length, room_ns, end));
        boundaries.unwrap_or_else(|| self.anywhere_ns(room_ns, end))
    }

    /// The same, at most, behind another side in the same bubble: where the first piece begins is then a matter of the other side. Pieces
    /// that are all alike may just end when all is to have ended, in every bubble, and then are waited for whenever it ends before.
    pub fn overrun_behind_ns(&self, room_ns: f64, end: TrueEnd) -> f64 {
        let alone = self.overrun_ns(room_ns, end);
        self.one_length().map_or(alone, |length| {
            let own = self.spread * length;
            let last = -NEED_DEVIATIONS * own;
            let most = end.outlasted_by(last, own).min(length * end.has_ended(last, own));
            most.max(alone)
        })
    }

    /// Of pieces that all have this length and begin with the opening; `None` if too many boundaries would count.
    fn at_boundaries_ns(&self, length: f64, room_ns: f64, end: TrueEnd) -> Option<f64> {
        let own = self.spread * length;
        // A piece begins no later than that after the opening, if it asks for its 90 % quantile.
        let latest = room_ns - length - NEED_DEVIATIONS * own;
        if latest < -ROUNDING {
            return Some(0.0);
        }
        let all_own = own * (room_ns / length).sqrt();
        let first = ((end.earliest_ns(all_own) + room_ns) / length).floor() - 1.0;
        let last = ((latest + ROUNDING + EARLY * all_own) / length).floor();
        let first = first.max(0.0);
        if last - first > MOST_BOUNDARIES {
            return None;
        }
        let mut overrun = 0.0;
        let mut begun = first;
        while begun <= last {
            let (mean, spread) = (begun * length, own * begun.sqrt());
            // Whoever begins so near the latest time began, as pieces vary, early.
            let (share, mean, spread) = normal::at_most(mean, spread, latest + ROUNDING);
            let at = mean - room_ns;
            if share > 0.0 {
                let waited = end.outlasted_by(at + length, spread.hypot(own))
                    - end.outlasted_by(at, spread)
                    - length * end.has_ended(at, spread);
                overrun += share * waited.max(0.0);
            }
            begun += 1.0;
        }
        Some(overrun)
    }

    /// The same wherever the boundaries lie.
    fn anywhere_ns(&self, room_ns: f64, end: TrueEnd) -> f64 {
        let each = |(length, count): (f64, f64)| {
            let own = self.spread * length;
            let of_part = |(share, later, deviation): (f64, f64, f64)| {
                // A piece of more than its usual length both starts and ends by so much later.
                let (mean, deviation) = (-later - NEED_DEVIATIONS * own, deviation.hypot(own));
                let [_, _, within] = normal::moments_between(mean, deviation, 0.0, length.min(room_ns));
                let over = normal::moments_between(mean, deviation, length.min(room_ns), room_ns)[0];
                share * (within + over * (length * length + own * own))
            };
            count * end.mixture().map(of_part).sum::<f64>()
        };
        self.iter().map(each).sum::<f64>() / (2.0 * self.step_ns())
    }

    /// Time of a run that is not begun because the bubble has ended, on average over all iterations, in ns, if the run is to last from
    /// `from_ns` to `to_ns`, both as seen from the time by which all is to have ended.
    pub fn not_begun_ns(&self, from_ns: f64, to_ns: f64, end: TrueEnd) -> f64 {
        if let Some(length) = self.one_length() {
            let count = ((to_ns - from_ns) / length).round();
            let own = self.spread * length;
            let all_own = own * count.sqrt();
            let first = ((end.earliest_ns(all_own) - from_ns) / length).floor().max(0.0);
            let latest = -from_ns - length - NEED_DEVIATIONS * own + ROUNDING;
            if count - first <= MOST_BOUNDARIES {
                let not_begun = |k: u32| {
                    let begun = first + f64::from(k);
                    // Too late a begin, because those before took longer, is none either.
                    let (share, mean, spread) = normal::at_most(begun * length, own * begun.sqrt(), latest);
                    1.0 - share * (1.0 - end.has_ended(from_ns + mean, spread))
                };
                return length * (0..(count - first).max(0.0) as u32).map(not_begun).sum::<f64>();
            }
        }
        let room_ns = -from_ns;
        let left = end.outlasted_by(to_ns, 0.0) - end.outlasted_by(from_ns, 0.0) - self.anywhere_ns(room_ns, end);
        left.clamp(0.0, (to_ns - from_ns).max(0.0))
    }
}

/// What the main job waits on average behind a bubble that a side ran in, because side work ended late, beside what the bubble's
/// own variation tells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Overrun {
    /// Of a side that may stop between any two kernels.
    pub split: GrainOverrun,
    /// Of one that runs whole steps.
    pub whole: GrainOverrun,
}

/// The same of one grain, measured in filled stages or published.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GrainOverrun {
    /// Of a bubble whose length is not known to vary, in ns.
    pub usual_ns: f64,
    /// Of a bubble whose length is known to vary, at least, in ns: what ends late for other reasons, such as a piece that took
    /// longer than it asked for.
    pub least_ns: f64,
}

impl Overrun {
    /// Nothing but what the bubble's variation tells.
    pub const NONE: Overrun = Overrun { split: GrainOverrun::exactly(0.0), whole: GrainOverrun::exactly(0.0) };

    /// Whether it was neither measured nor given: published figures are wide.
    pub fn is_published(&self) -> bool {
        [self.split, self.whole].iter().any(|grain| grain.usual_ns > grain.least_ns)
    }

    /// That of a side that stays on a stage in this way.
    pub const fn of(&self, residency: Residency) -> GrainOverrun {
        match residency {
            Residency::Split => self.split,
            Residency::Whole => self.whole,
        }
    }
}

impl GrainOverrun {
    /// The mean that filled stages had.
    pub const fn exactly(ns: f64) -> Self {
        GrainOverrun { usual_ns: ns, least_ns: ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [PieceClass; 1] = [PieceClass { length_ns: 200_000, count: 1 }];
    /// Room for any number of pieces.
    const FOREVER: f64 = 1e15;

    /// Of which nothing says where they begin.
    fn pieces(classes: &[PieceClass]) -> Pieces<'_> {
        Pieces { classes, alike: false, rate: 1.0, spread: 0.0 }
    }

    fn anywhere(pieces: Pieces, end: TrueEnd) -> f64 {
        pieces.overrun_ns(FOREVER, end)
    }

    #[test]
    fn a_bubble_that_always_ends_on_time_is_not_overrun() {
        let end = TrueEnd::normal(0.0, 0.0);
        let alike = Pieces { alike: true, ..pieces(&ONE) };
        assert_eq!((anywhere(pieces(&ONE), end), alike.overrun_ns(1e6, end)), (0.0, 0.0));
        assert_eq!((alike.overrun_behind_ns(1e6, end), alike.not_begun_ns(-1e6, 0.0, end)), (0.0, 0.0));
        assert_eq!(pieces(&ONE).not_begun_ns(-1e6, -1e5, end), 0.0);
    }

    /// Opened for the q-quantile of a length that varies by much more than a piece: in q of all iterations half a piece.
    #[test]
    fn a_quantile_is_overrun_so_often_by_half_a_piece() {
        for quantile in [0.02, 0.1, 0.5] {
            let deviation_ns = 50e6;
            let end = TrueEnd::normal(-deviation_ns * normal::quantile(quantile), deviation_ns);
            let expected = quantile * 100_000.0;
            assert!((anywhere(pieces(&ONE), end) / expected - 1.0).abs() < 0.02, "{quantile}");
        }
    }

    /// Two steps fit, and end well before the bubble usually does: it matters where.
    #[test]
    fn pieces_of_one_length_end_where_they_end() {
        let end = TrueEnd::normal(0.0, 30_000.0);
        let alike = Pieces { alike: true, ..pieces(&ONE) };
        let at = |room_ns: f64| alike.overrun_ns(room_ns, end);
        assert!(at(590_000.0) < 1e-3, "190 µs are left");
        assert!((at(400_000.0) - 0.398_942 * 30_000.0).abs() < 1.0, "half of all bubbles end before the second step");
        let mean = (0..200).map(|k| at(400_500.0 + 1_000.0 * f64::from(k))).sum::<f64>() / 200.0;
        assert!((mean / anywhere(pieces(&ONE), end) - 1.0).abs() < 0.02, "{mean}");
        let wide = TrueEnd { deviation_ns: 1e8, ..end };
        assert_eq!(alike.overrun_ns(1e9, wide), pieces(&ONE).overrun_ns(1e9, wide));
        // Behind another side they may end anywhere, and no place is worse than the last.
        let most = (0..400).map(|k| at(400_000.0 + 500.0 * f64::from(k))).fold(0.0, f64::max);
        let behind = alike.overrun_behind_ns(590_000.0, end);
        assert!(behind >= most && behind < 1.01 * most, "{behind}, {most}");
    }

    /// A mixture of one part is that normal distribution, and of several their mean.
    #[test]
    fn parts_count_by_their_share() {
        let part = |share: f64, from_median_ns: f64| Part { share, from_median_ns, deviation_ns: 50_000.0 };
        let one = [part(1.0, 0.0)];
        let two = [part(0.25, -100_000.0), part(0.75, 40_000.0)];
        let with = |parts: &'static [Part]| TrueEnd { later_ns: 30_000.0, deviation_ns: 50_000.0, parts };
        let (one, two): (&'static [Part], &'static [Part]) = (Vec::from(one).leak(), Vec::from(two).leak());
        for alike in [false, true] {
            let pieces = Pieces { alike, spread: 0.01, ..pieces(&ONE) };
            let all = |end: TrueEnd| {
                [pieces.overrun_ns(5e5, end), pieces.overrun_behind_ns(5e5, end), pieces.not_begun_ns(-5e5, -1e5, end)]
            };
            assert_eq!(all(with(one)), all(with(&[])));
            let [early, late] =
                [-70_000.0, 70_000.0].map(|later| pieces.overrun_ns(5e5, TrueEnd::normal(later, 50_000.0)));
            let mean = 0.25 * early + 0.75 * late;
            assert!((pieces.overrun_ns(5e5, with(two)) / mean - 1.0).abs() < 1e-6, "{alike}");
        }
    }

    /// Long pieces are met more often than short ones, and slower ones are longer.
    #[test]
    fn the_piece_in_flight_is_a_long_one() {
        let mixed = [PieceClass { length_ns: 100_000, count: 2 }, PieceClass { length_ns: 800_000, count: 1 }];
        let end = TrueEnd::normal(0.0, 1e9);
        let expected = 0.5 * (2.0 * 1e10 + 6.4e11) / (2.0 * 1e6);
        assert!((anywhere(pieces(&mixed), end) / expected - 1.0).abs() < 0.01);
        let slow = Pieces { rate: 0.5, ..pieces(&mixed) };
        assert!((anywhere(slow, end) / (2.0 * expected) - 1.0).abs() < 0.01);
        let varying = Pieces { spread: 0.3, ..pieces(&ONE) };
        let tight = TrueEnd::normal(0.0, 1e3);
        assert!(anywhere(varying, tight) > anywhere(pieces(&ONE), tight));
    }
}
