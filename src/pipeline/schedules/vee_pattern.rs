//! The V-shaped building block that [`super::zb_v`] searches over, its random steps, and the order of passes that follows
//! from it.

use crate::stats::SplitMix;

/// Lanes of a stage: F0, F1, B1, B0.
pub const LANES: usize = 4;
/// Where each pass of the first micro-batch would stand, in periods of a stage's two chunks' F+B+W; the passes of the
/// others follow a period apart. Only the order that results is used.
#[derive(Debug, Clone, PartialEq)]
pub struct PassPattern {
    /// From stage to stage, by lane.
    pub pace: [f64; LANES],
    /// At the three turns: F0→F1, F1→B1, B1→B0.
    pub turn: [f64; 3],
    /// Forwards of chunk 0 drawn to the front on the first stage, beyond those that stand there.
    pub early: f64,
    /// How fast their number falls along the stages; 1 reaches none at the last.
    pub early_fall: f64,
    /// Part of a W that must fit into a wait for it to be started there, by stage.
    pub patience: Vec<f64>,
}

/// The order of a stage's passes in whole numbers: patterns that agree in them run alike.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LaneOrder {
    /// Passes of lane 0 before all others.
    front: usize,
    /// The period in which each lane begins.
    begin: [i64; LANES],
    /// The lanes as they stand within a period.
    lanes: [u8; LANES],
}

impl PassPattern {
    /// Fits any memory: a micro-batch begins when the one before it is through.
    pub fn one_at_a_time(stages: usize) -> Self {
        // Down and back, twice, is less than half a period however long the pipeline.
        let pace = (0.1 / stages as f64).min(1e-3);
        PassPattern { pace: [pace; 4], turn: [1e-3; 3], early: 0.0, early_fall: 0.0, patience: vec![0.5; stages] }
    }

    /// Paces near the fastest that the memory allows: on the first stage a micro-batch is held down and up the pipeline
    /// twice, and over its turns.
    pub fn random(stages: usize, limit: f64, random: &mut SplitMix) -> Self {
        let turn: [f64; 3] = std::array::from_fn(|_| 0.2 + 0.5 * random.unit());
        let far = (stages - 1).max(1) as f64;
        let held = (2.0 * limit - turn[0] - 2.0 * turn[1] - turn[2]).max(0.2 * limit);
        let pace = (0.8 + 0.2 * random.unit()) * (held / (4.0 * far)).min(0.5);
        let patience = [0.0, 0.25, 0.5, 0.75, 1.0].get(random.below(6)).copied();
        PassPattern {
            pace: std::array::from_fn(|_| pace * (1.0 + 0.03 * random.symmetric())),
            turn,
            early: random.unit() * stages as f64,
            early_fall: 1.5 * random.unit(),
            patience: (0..stages).map(|_| patience.unwrap_or_else(|| random.unit())).collect(),
        }
    }

    pub fn step(&self, random: &mut SplitMix) -> Self {
        let mut next = self.clone();
        match random.below(12) {
            k @ 0..=3 => {
                let size = [0.8, 0.16, 0.04][random.below(3)] / self.patience.len() as f64;
                next.pace[k] = (self.pace[k] + size * random.symmetric()).max(1e-3);
            }
            k @ 4..=6 => {
                let size = [0.2, 0.03][random.below(2)];
                next.turn[k - 4] = (self.turn[k - 4] + size * random.symmetric()).max(0.0);
            }
            7 => next.early = (self.early + 2.0 * random.symmetric()).max(0.0),
            8 => next.early_fall += 0.15 * random.symmetric(),
            _ => {
                // One stage, or a few neighbours.
                let few = if random.below(5) == 0 { 1 + random.below(4) } else { 1 };
                let (first, value) = (random.below(self.patience.len()), 1.6 * random.unit());
                next.patience.iter_mut().skip(first).take(few).for_each(|p| *p = value);
            }
        }
        next
    }

    /// The lanes of a stage by position.
    pub fn order(&self, stages: usize, micro_batches: usize, stage: usize) -> LaneOrder {
        let (far, d) = ((stages - 1) as f64, stage as f64);
        let [f0, f1, b1, b0] = self.pace;
        let turn_f1 = far * f0 + self.turn[0];
        let turn_b1 = turn_f1 + far * f1 + self.turn[1];
        let turn_b0 = turn_b1 + far * b1 + self.turn[2];
        let begin = [d * f0, turn_f1 + (far - d) * f1, turn_b1 + d * b1, turn_b0 + (far - d) * b0];
        // F0 up to the first of another lane, and some more.
        let first_other = begin[1..].iter().copied().fold(f64::INFINITY, f64::min);
        let standing = (first_other - begin[0]).max(0.0).ceil();
        let fall = if far > 0.0 { 1.0 - d / far * self.early_fall } else { 1.0 };
        let front = (standing + (self.early * fall).round().max(0.0)).min(micro_batches as f64) as usize;
        let mut lanes = [0, 1, 2, 3];
        let within = |lane: u8| begin[lane as usize] - begin[lane as usize].floor();
        lanes.sort_by(|a, b| within(*a).total_cmp(&within(*b)));
        LaneOrder { front, begin: begin.map(|b| b.floor() as i64), lanes }
    }
}

impl LaneOrder {
    /// Merges the lanes by position into one list.
    pub fn write(&self, micro_batches: usize, order: &mut Vec<u8>) {
        order.clear();
        order.resize(self.front, 0);
        let m = micro_batches as i64;
        let first = self.begin.into_iter().min().unwrap_or(0);
        let last = self.begin.into_iter().max().unwrap_or(0) + m;
        for period in first..last {
            for lane in self.lanes {
                let pass = period - self.begin[lane as usize];
                let drawn = if lane == 0 { self.front as i64 } else { 0 };
                if pass >= drawn && pass < m {
                    order.push(lane);
                }
            }
        }
    }
}

/// Any block, good or bad.
#[cfg(test)]
pub fn any_pattern(stages: usize, random: &mut SplitMix) -> PassPattern {
    PassPattern {
        pace: std::array::from_fn(|_| 0.6 * random.unit()),
        turn: std::array::from_fn(|_| random.unit()),
        early: 3.0 * random.unit(),
        early_fall: 1.5 * random.unit(),
        patience: (0..stages).map(|_| 1.2 * random.unit()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// The lanes are merged by position, as a naive merge of fractions does it.
        #[test]
        fn an_order_holds_the_lanes_by_position(stages in 1usize..9, m in 1usize..20, seed in any::<u64>()) {
            let block = any_pattern(stages, &mut SplitMix(seed));
            for stage in 0..stages {
                let order = block.order(stages, m, stage);
                let mut list = Vec::new();
                order.write(m, &mut list);
                prop_assert!(list.iter().take(order.front).all(|lane| *lane == 0));
                let mut ran = [0i64; LANES];
                let place = |lane: u8, pass: i64| {
                    let within = order.lanes.iter().position(|l| *l == lane).unwrap();
                    (order.begin[lane as usize] + pass, within)
                };
                let mut last = (i64::MIN, 0);
                for (index, lane) in list.iter().enumerate() {
                    let at = place(*lane, ran[*lane as usize]);
                    prop_assert!(index < order.front || at > last, "lanes out of order");
                    last = if index < order.front { last } else { at };
                    ran[*lane as usize] += 1;
                }
                prop_assert_eq!(ran, [m as i64; LANES]);
            }
        }
    }
}
