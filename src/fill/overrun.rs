//! How long the main job waits for side work that is still running when a bubble truly ends, and how much of the bubble the side
//! gets: closed forms.
//!
//! The gate opens for an expected length X. A piece of side work (a kernel, a segment, a whole step) starts only if it would end
//! within X and the bubble has not ended before. The true length L varies: normally, with its median and its deviation below it.
//! Pieces of unequal length go on from bubble to bubble, so that where the last boundary before X lies is uniform over a piece, and
//! longer pieces are met more often (a renewal process in its steady state: Cox, Renewal Theory, 1962). With Y = X − L, over the
//! pieces d of a step
//!
//! ```text
//! E[(end of the last piece − L)⁺] = Σ E[min(d, Y⁺)²] ÷ 2·Σ d
//! E[time used within the bubble]  = X − open − E[Y⁺] − Σ E[((d − Y⁺)⁺)²] ÷ 2·Σ d
//! ```
//!
//! both as far as Y < X − o, o being the opening: in a bubble that ended before, nothing was begun. Pieces that are all of one length,
//! such as whole steps, end at eₖ = o + k·d in every bubble instead. Piece k + 1 is waited for if eₖ < L ≤ eₖ₊₁, and for n of them that fit
//! into X the sum of these waits telescopes to
//!
//! ```text
//! E[(end of the last piece − L)⁺] = E[(eₙ − L)⁺] − E[(o − L)⁺] − d · Σ P(L ≤ eₖ),   k from 0 to n − 1
//! ```
//!
//! All are integrals of a normal density. A bubble opened for its q-quantile is overrun in about q of all iterations, by half of
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

/// How a bubble's length varies from iteration to iteration, and for how long the gate opens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Variation {
    /// Length that the gate opens for, in ns: a low quantile of the lengths.
    pub expected_ns: u64,
    /// Standard deviation of the length about its median, in ns, as far as it is shorter: only shorter bubbles are overrun.
    pub deviation_ns: f64,
}

/// When a bubble truly ends, as seen from the time by which all side work is to have ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrueEnd {
    /// From that time to the median true end, in ns; negative where most bubbles end before it.
    pub later_ns: f64,
    /// Standard deviation of the true end, in ns.
    pub deviation_ns: f64,
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

    /// Time by which side work outlasts the bubble, on average over all iterations, in ns, if the side has `room_ns` from its first
    /// piece until all is to have ended.
    pub fn overrun_ns(&self, room_ns: f64, end: TrueEnd) -> f64 {
        match self.classes {
            [class] if self.alike && self.spread <= 0.0 && end.deviation_ns > 0.0 => {
                let length = class.length_ns as f64 / self.rate;
                let seen = (FAR * end.deviation_ns / length.max(1.0)).ceil();
                if seen > MOST_BOUNDARIES {
                    return self.anywhere_ns(room_ns, end);
                }
                fixed_ns(length, seen, room_ns, end)
            }
            _ => self.anywhere_ns(room_ns, end),
        }
    }

    /// The same wherever the boundaries lie.
    fn anywhere_ns(&self, room_ns: f64, end: TrueEnd) -> f64 {
        let each = |(length, count): (f64, f64)| {
            let own = self.spread * length;
            // A piece of more than its usual length both starts and ends by so much later.
            let (mean, deviation) = (-end.later_ns - NEED_DEVIATIONS * own, end.deviation_ns.hypot(own));
            let [_, _, within] = normal::moments_between(mean, deviation, 0.0, length.min(room_ns));
            let over = normal::moments_between(mean, deviation, length.min(room_ns), room_ns)[0];
            count * (within + over * (length * length + own * own))
        };
        self.iter().map(each).sum::<f64>() / (2.0 * self.step_ns())
    }

    /// Part of an opening of `open_ns` that lies before the end as expected and within the bubble, and in which the side works,
    /// on average over all iterations, in ns.
    pub fn used_ns(&self, open_ns: f64, end: TrueEnd) -> f64 {
        let step_ns = self.step_ns();
        let mean_need =
            self.iter().map(|(d, count)| NEED_DEVIATIONS * self.spread * d * d * count).sum::<f64>() / step_ns;
        let shorter = -end.later_ns - mean_need;
        let idle = |(length, count): (f64, f64)| {
            let [within, first, second] = normal::moments_between(shorter, end.deviation_ns, 0.0, length);
            let not_shorter = normal::moments_between(shorter, end.deviation_ns, f64::NEG_INFINITY, 0.0)[0];
            count * (length * length * (not_shorter + within) - 2.0 * length * first + second)
        };
        let tail = self.iter().map(idle).sum::<f64>() / (2.0 * step_ns);
        (open_ns - mean_need - normal::positive_part(shorter, end.deviation_ns) - tail).max(0.0)
    }
}

/// Pieces that are all of this length and begin with the opening. Of the boundaries before the last one only so many count as
/// `seen`: before the others the bubble never ends.
fn fixed_ns(length: f64, seen: f64, room_ns: f64, end: TrueEnd) -> f64 {
    let fitting = (room_ns / length).floor().max(0.0);
    // As seen from the true end's median.
    let opening = -room_ns - end.later_ns;
    let last = opening + fitting * length;
    let ended = |k: f64| length * normal::below((last - k * length) / end.deviation_ns);
    let ended: f64 = (1..=fitting.min(seen) as u32).map(|k| ended(f64::from(k))).sum();
    let after = |at: f64| normal::positive_part(at, end.deviation_ns);
    (after(last) - after(opening) - ended).max(0.0)
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
        let end = TrueEnd { later_ns: 0.0, deviation_ns: 0.0 };
        assert_eq!(anywhere(pieces(&ONE), end), 0.0);
        // Half a piece is left over on average.
        assert!((pieces(&ONE).used_ns(5e6, end) - 4.9e6).abs() < 1.0);
    }

    /// Opened for the q-quantile of a length that varies by much more than a piece: in q of all iterations half a piece.
    #[test]
    fn a_quantile_is_overrun_so_often_by_half_a_piece() {
        for quantile in [0.02, 0.1, 0.5] {
            let deviation_ns = 50e6;
            let end = TrueEnd { later_ns: -deviation_ns * normal::quantile(quantile), deviation_ns };
            let expected = quantile * 100_000.0;
            assert!((anywhere(pieces(&ONE), end) / expected - 1.0).abs() < 0.02, "{quantile}");
        }
    }

    /// Two steps fit, and end well before the bubble usually does: it matters where.
    #[test]
    fn pieces_of_one_length_end_where_they_end() {
        let end = TrueEnd { later_ns: 0.0, deviation_ns: 30_000.0 };
        let alike = Pieces { alike: true, ..pieces(&ONE) };
        let at = |room_ns: f64| alike.overrun_ns(room_ns, end);
        assert!(at(590_000.0) < 1e-3, "190 µs are left");
        assert!((at(400_000.0) - 0.398_942 * 30_000.0).abs() < 1.0, "half of all bubbles end before the second step");
        let mean = (0..200).map(|k| at(400_500.0 + 1_000.0 * f64::from(k))).sum::<f64>() / 200.0;
        assert!((mean / anywhere(pieces(&ONE), end) - 1.0).abs() < 0.02, "{mean}");
        let wide = TrueEnd { deviation_ns: 1e8, ..end };
        assert_eq!(alike.overrun_ns(1e9, wide), pieces(&ONE).overrun_ns(1e9, wide));
    }

    /// Long pieces are met more often than short ones, and slower ones are longer.
    #[test]
    fn the_piece_in_flight_is_a_long_one() {
        let mixed = [PieceClass { length_ns: 100_000, count: 2 }, PieceClass { length_ns: 800_000, count: 1 }];
        let end = TrueEnd { later_ns: 0.0, deviation_ns: 1e9 };
        let expected = 0.5 * (2.0 * 1e10 + 6.4e11) / (2.0 * 1e6);
        assert!((anywhere(pieces(&mixed), end) / expected - 1.0).abs() < 0.01);
        let slow = Pieces { rate: 0.5, ..pieces(&mixed) };
        assert!((anywhere(slow, end) / (2.0 * expected) - 1.0).abs() < 0.01);
        let varying = Pieces { spread: 0.3, ..pieces(&ONE) };
        let tight = TrueEnd { later_ns: 0.0, deviation_ns: 1e3 };
        assert!(anywhere(varying, tight) > anywhere(pieces(&ONE), tight));
    }
}
