//! One pipeline stage's iteration as a list of work and waits, for 1F1B with equal stages and free communication
//! (Narayanan et al., arXiv 2104.04473, §2.2): what [`super::replay`] runs with real operations.
//!
//! With p stages, m ≥ p micro-batches, a forward of F and a backward of B+W, stage i (from 0)
//! waits i·F for its first input; does p−1−i warm-up forwards and the first of the steady part; waits (p−1−i)(B+W) for the first gradient;
//! alternates backward and forward without a gap; then, as gradients come at the pace of the later stages, waits F before
//! each of the last p−1−i backwards; and waits i·(B+W) for the first stage to end.
//! Together (p−1)(F+B+W), the same on every stage.

use crate::units::counted;
use crate::{Error, Result};

/// One step of a stage's iteration: work, or a wait.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StageStep {
    /// The forward of one micro-batch through the stage's layers.
    Forward,
    /// The backward of one micro-batch, to inputs and to weights as one.
    Backward,
    /// A wait of this many nanoseconds for other stages.
    Bubble(f64),
}

/// One stage of a 1F1B pipeline.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stage {
    /// Stages of the pipeline, p: 1 to 4096.
    pub stages: u64,
    /// Micro-batches of an iteration, m: at least as many as stages.
    pub micro_batches: u64,
    /// The place of this stage in the pipeline, counted from 0.
    pub stage: u64,
    /// Time of a micro-batch's forward on each stage, F, in nanoseconds.
    pub forward_ns: f64,
    /// Time of a micro-batch's backward on each stage, to inputs and to weights together, B+W, in nanoseconds.
    pub backward_ns: f64,
}

impl Stage {
    /// Checks the sizes and times; an error says what cannot be a 1F1B pipeline, and what would be.
    pub fn validate(&self) -> Result<()> {
        let Stage { stages, micro_batches, stage, .. } = *self;
        if stages == 0 || stages > 4096 || micro_batches > 1 << 20 {
            return Err(Error::input(
                format!("{} and {}", counted(stages, "stage"), counted(micro_batches, "micro-batch")),
                "give 1 to 4096 stages and at most 1048576 micro-batches",
            ));
        }
        if stage >= stages {
            return Err(Error::input(format!("stage {stage} of {stages}"), "stages count from 0"));
        }
        if micro_batches < stages {
            return Err(Error::input(
                format!("{} on {}", counted(micro_batches, "micro-batch"), counted(stages, "stage")),
                "1F1B needs at least as many micro-batches as stages to fill the pipeline",
            ));
        }
        if ![self.forward_ns, self.backward_ns].iter().all(|ns| ns.is_finite() && *ns > 0.0) {
            return Err(Error::input("a forward or backward that takes no time", "give times above zero"));
        }
        Ok(())
    }

    /// The steps of the whole iteration in order, bubbles of no length left out; an error where the stage is not valid.
    pub fn steps(&self) -> Result<Vec<StageStep>> {
        self.validate()?;
        let after = self.stages - 1 - self.stage;
        let mut steps = vec![StageStep::Bubble(self.stage as f64 * self.forward_ns)];
        steps.extend((0..=after).map(|_| StageStep::Forward));
        steps.push(StageStep::Bubble(after as f64 * self.backward_ns));
        for _ in after + 1..self.micro_batches {
            steps.extend([StageStep::Backward, StageStep::Forward]);
        }
        steps.push(StageStep::Backward);
        for _ in 0..after {
            steps.extend([StageStep::Bubble(self.forward_ns), StageStep::Backward]);
        }
        steps.push(StageStep::Bubble(self.stage as f64 * self.backward_ns));
        steps.retain(|s| !matches!(s, StageStep::Bubble(ns) if *ns <= 0.0));
        Ok(steps)
    }

    /// Bubble time of an iteration in nanoseconds, (p−1)(F+B+W), the same on every stage (Narayanan et al., arXiv
    /// 2104.04473, §2.2).
    pub fn bubble_ns(&self) -> f64 {
        (self.stages - 1) as f64 * (self.forward_ns + self.backward_ns)
    }

    /// Length of an iteration in nanoseconds, (m+p−1)(F+B+W) (Narayanan et al., arXiv 2104.04473, §2.2).
    pub fn iteration_ns(&self) -> f64 {
        (self.micro_batches + self.stages - 1) as f64 * (self.forward_ns + self.backward_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::SplitMix;

    /// The pipeline enumerated: every stage runs its fixed 1F1B order, an operation starts when its stage is free and its input
    /// has come. Returns each stage's steps with the waits found.
    fn enumerate(p: usize, m: usize, forward: f64, backward: f64) -> (Vec<Vec<StageStep>>, f64) {
        let orders: Vec<Vec<(bool, usize)>> = (0..p)
            .map(|i| {
                let warm = (p - 1 - i).min(m);
                let mut order: Vec<_> = (0..warm).map(|k| (true, k)).collect();
                for k in 0..m {
                    if warm + k < m {
                        order.push((true, warm + k));
                    }
                    order.push((false, k));
                }
                order
            })
            .collect();
        let mut ends = vec![[vec![f64::NAN; m], vec![f64::NAN; m]]; p]; // [backward, forward]
        let (mut at, mut free) = (vec![0; p], vec![0.0; p]);
        let mut steps = vec![Vec::new(); p];
        while (0..p).any(|i| at[i] < orders[i].len()) {
            for i in 0..p {
                let Some(&(is_forward, k)) = orders[i].get(at[i]) else { continue };
                let input = match is_forward {
                    true if i == 0 => 0.0,
                    true => ends[i - 1][1][k],
                    false if i == p - 1 => ends[i][1][k],
                    false => ends[i + 1][0][k],
                };
                if input.is_nan() {
                    continue;
                }
                let start = f64::max(free[i], input);
                steps[i].push(StageStep::Bubble(start - free[i]));
                steps[i].push(if is_forward { StageStep::Forward } else { StageStep::Backward });
                free[i] = start + if is_forward { forward } else { backward };
                ends[i][usize::from(is_forward)][k] = free[i];
                at[i] += 1;
            }
        }
        let end = free.iter().copied().fold(0.0, f64::max);
        for i in 0..p {
            steps[i].push(StageStep::Bubble(end - free[i]));
            steps[i].retain(|s| !matches!(s, StageStep::Bubble(ns) if *ns <= 1e-6));
        }
        (steps, end)
    }

    #[test]
    fn the_closed_form_is_what_the_pipeline_does() {
        let mut random = SplitMix(17);
        for _ in 0..200 {
            let p = 1 + random.below(8);
            let m = p + random.below(12);
            let (forward, backward) = (1.0 + 20.0 * random.unit(), 1.0 + 40.0 * random.unit());
            let (expected, end) = enumerate(p, m, forward, backward);
            for (i, expected) in expected.iter().enumerate() {
                let stage = Stage {
                    stages: p as u64,
                    micro_batches: m as u64,
                    stage: i as u64,
                    forward_ns: forward,
                    backward_ns: backward,
                };
                let steps = stage.steps().unwrap();
                assert_eq!(steps.len(), expected.len(), "p {p} m {m} stage {i}");
                for (a, b) in steps.iter().zip(expected) {
                    match (a, b) {
                        (StageStep::Bubble(a), StageStep::Bubble(b)) => assert!((a - b).abs() < 1e-6, "{a} {b}"),
                        _ => assert_eq!(a, b),
                    }
                }
                let waits: f64 = steps.iter().map(|s| if let StageStep::Bubble(ns) = s { *ns } else { 0.0 }).sum();
                assert!((waits - stage.bubble_ns()).abs() < 1e-6);
                assert!((end - stage.iteration_ns()).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn the_last_stage_of_four_starts_late_and_never_waits_within() {
        let stage = Stage { stages: 4, micro_batches: 4, stage: 3, forward_ns: 1.0, backward_ns: 2.0 };
        let mut expected = vec![StageStep::Bubble(3.0)];
        (0..4).for_each(|_| expected.extend([StageStep::Forward, StageStep::Backward]));
        expected.push(StageStep::Bubble(6.0));
        assert_eq!(stage.steps().unwrap(), expected);
    }

    #[test]
    fn impossible_stages_are_refused() {
        let good = Stage { stages: 4, micro_batches: 8, stage: 1, forward_ns: 1.0, backward_ns: 2.0 };
        good.validate().unwrap();
        for bad in [
            Stage { stage: 4, ..good },
            Stage { stages: 0, ..good },
            Stage { micro_batches: 3, ..good },
            Stage { forward_ns: 0.0, ..good },
            Stage { backward_ns: f64::NAN, ..good },
            Stage { backward_ns: f64::INFINITY, ..good },
        ] {
            assert!(bad.steps().is_err(), "{bad:?}");
        }
    }
}
