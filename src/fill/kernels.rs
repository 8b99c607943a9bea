//! A side model's training step as its kernels in order: where a pause may fall, and how much fits into a gap.
//!
//! Positions are counted in kernels from the first step's first, so that a step cut by a bubble's end simply goes on in
//! the next one.

use std::collections::BTreeMap;

/// More are not kept apart: a step of more kernels is cut into this many equal parts.
const MOST: u64 = 1 << 16;

/// The kernels of one training step in order, as the times at which each of them ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kernels {
    /// `ends_ns[k]`: the first k kernels of a step together; strictly rising, from 0 to the step's time.
    ends_ns: Vec<u64>,
    /// Kernels of about one length together, by rising length.
    classes: Vec<PieceClass>,
    /// Whether all kernels are of exactly one length.
    alike: bool,
    /// The longest: asked for once a bubble.
    longest_ns: u64,
}

/// Pieces of about one length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PieceClass {
    /// Their mean length, in ns.
    pub length_ns: u64,
    /// How many there are in a step.
    pub count: u64,
}

impl Kernels {
    /// Kernels from their own times in ns; those of 0 ns are left out. `None` if together they take no time or more
    /// than a `u64` holds.
    pub fn new(times_ns: &[u64]) -> Option<Self> {
        let mut ends_ns = vec![0u64];
        for &ns in times_ns.iter().filter(|&&ns| ns > 0) {
            ends_ns.push(ends_ns[ends_ns.len() - 1].checked_add(ns)?);
        }
        (ends_ns.len() > 1).then(|| Kernels::ending_at(ends_ns))
    }

    /// Kernels of a step of which only the time and the longest kernel are known, in ns: as many of the longest as the
    /// step holds, and one for the rest, which is the coarsest way to divide it.
    pub fn of_longest(step_ns: u64, longest_ns: u64) -> Self {
        let step = step_ns.max(1);
        let longest = longest_ns.clamp(1, step).max(step.div_ceil(MOST));
        let mut ends_ns: Vec<u64> = (0..=step / longest).map(|k| k * longest).collect();
        if !step.is_multiple_of(longest) {
            ends_ns.push(step);
        }
        Kernels::ending_at(ends_ns)
    }

    /// Lengths within a factor of √2 go together: whoever asks how late a kernel may end goes through the classes once a
    /// bubble, and a step has thousands of kernels.
    fn ending_at(ends_ns: Vec<u64>) -> Self {
        let alike = ends_ns.windows(2).all(|pair| pair[1] - pair[0] == ends_ns[1]);
        let longest_ns = ends_ns.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
        let mut sums: BTreeMap<u64, (u64, u64)> = BTreeMap::new();
        for length_ns in ends_ns.windows(2).map(|pair| pair[1] - pair[0]) {
            let sum = sums.entry((2.0 * (length_ns as f64).log2()).round() as u64).or_default();
            *sum = (sum.0 + 1, sum.1 + length_ns);
        }
        let class = |(count, sum): (u64, u64)| PieceClass { length_ns: sum.div_ceil(count), count };
        Kernels { classes: sums.into_values().map(class).collect(), ends_ns, alike, longest_ns }
    }

    /// The same kernels, each `factor` times as long; none becomes shorter than a nanosecond.
    pub fn scaled(&self, factor: f64) -> Kernels {
        let mut ends_ns = vec![0u64];
        for end in &self.ends_ns[1..] {
            let before = ends_ns[ends_ns.len() - 1];
            ends_ns.push(((*end as f64 * factor).round() as u64).max(before + 1));
        }
        Kernels::ending_at(ends_ns)
    }

    /// The kernels of a step by their length: how many there are of about each.
    pub fn classes(&self) -> &[PieceClass] {
        &self.classes
    }

    /// Whether all kernels are of exactly one length, so that in every bubble they end at the same times.
    pub const fn are_alike(&self) -> bool {
        self.alike
    }

    /// Number of kernels in one step.
    pub fn per_step(&self) -> u64 {
        self.ends_ns.len() as u64 - 1
    }

    /// Time of one whole step alone, in ns.
    pub fn step_ns(&self) -> u64 {
        self.ends_ns[self.ends_ns.len() - 1]
    }

    /// Time of the longest kernel alone, in ns.
    pub const fn longest_ns(&self) -> u64 {
        self.longest_ns
    }

    /// Time alone of the first `count` kernels, over as many steps as they make, in ns.
    pub fn work_ns(&self, count: u64) -> u64 {
        let (steps, rest) = (count / self.per_step(), count % self.per_step());
        steps.saturating_mul(self.step_ns()).saturating_add(self.ends_ns[rest as usize])
    }

    /// Largest number of kernels from position `from` on that all end within `room_ns`.
    pub fn that_fit(&self, from: u64, room_ns: u64) -> u64 {
        let until = self.work_ns(from).saturating_add(room_ns);
        let (steps, rest) = (until / self.step_ns(), until % self.step_ns());
        let within = self.ends_ns.partition_point(|&end| end <= rest) as u64 - 1;
        (steps * self.per_step() + within).saturating_sub(from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_scaled_step_keeps_its_kernels() {
        let kernels = Kernels::new(&[100, 50, 1]).unwrap();
        assert_eq!(kernels.scaled(2.0), Kernels::new(&[200, 100, 2]).unwrap());
        assert_eq!(kernels.scaled(1.0), kernels);
        assert_eq!(kernels.scaled(0.0), Kernels::new(&[1, 1, 1]).unwrap());
    }

    #[test]
    fn kernels_of_about_one_length_are_of_one_class() {
        let kernels = Kernels::new(&[100, 1000, 102, 98, 1000]).unwrap();
        let class = |length_ns, count| PieceClass { length_ns, count };
        assert_eq!(kernels.classes(), [class(100, 3), class(1000, 2)]);
        assert!(!Kernels::new(&[98, 102]).unwrap().are_alike(), "of one class, and yet not alike");
        assert!(Kernels::new(&[98, 98]).unwrap().are_alike() && !Kernels::of_longest(10, 4).are_alike());
        let many: Vec<u64> = (1..5000).collect();
        let kernels = Kernels::new(&many).unwrap();
        assert!(kernels.classes().len() < 27);
        let whole: u64 = kernels.classes().iter().map(|class| class.count * class.length_ns).sum();
        assert!((whole as f64 / kernels.step_ns() as f64 - 1.0).abs() < 0.001);
    }

    #[test]
    fn a_step_cut_in_two_goes_on_where_it_stopped() {
        let kernels = Kernels::new(&[5, 3, 0, 2]).unwrap();
        assert_eq!((kernels.per_step(), kernels.step_ns(), kernels.longest_ns()), (3, 10, 5));
        assert_eq!(kernels.that_fit(0, 7), 1, "the second would end at 8");
        assert_eq!(kernels.that_fit(1, 5), 2, "3 and 2, and the next step's 5 not");
        assert_eq!(kernels.that_fit(1, 10), 3);
        assert_eq!(kernels.work_ns(7), 25);
    }

    #[test]
    fn what_is_not_known_is_taken_at_its_worst() {
        let kernels = Kernels::of_longest(10, 4);
        assert_eq!(kernels, Kernels::new(&[4, 4, 2]).unwrap());
        assert_eq!(Kernels::of_longest(10, 99), Kernels::new(&[10]).unwrap());
        assert!(Kernels::of_longest(60_000_000_000, 1).per_step() <= MOST);
        assert_eq!(Kernels::new(&[0, 0]), None);
    }

    proptest! {
        /// Against counting kernel by kernel.
        #[test]
        fn as_many_fit_as_counted_one_by_one(
            times in proptest::collection::vec(0u64..9, 1..7), from in 0u64..30, room in 0u64..60,
        ) {
            let Some(kernels) = Kernels::new(&times) else { return Ok(()) };
            let each: Vec<u64> = times.into_iter().filter(|&t| t > 0).collect();
            let (mut left, mut count) = (room, 0);
            while let Some(rest) = left.checked_sub(each[((from + count) % each.len() as u64) as usize]) {
                (left, count) = (rest, count + 1);
            }
            prop_assert_eq!(kernels.that_fit(from, room), count);
            prop_assert_eq!(kernels.work_ns(from + count) - kernels.work_ns(from), room - left);
        }
    }
}
