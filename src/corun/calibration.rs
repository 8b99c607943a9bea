//! What is measured of a stage and a side before they are put together, and what follows from it: the prediction that the
//! measurement is then held against. Plain arithmetic; [`super::replay`] measures the numbers.

use super::stage::StageStep;

/// What was measured before the first iteration; all in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Calibration {
    /// Median time of a forward through the stage's layers, in nanoseconds.
    pub forward_ns: f64,
    /// Median time of a backward through the stage's layers, to inputs and to weights together, in nanoseconds.
    pub backward_ns: f64,
    /// Median time from opening the gate to the side's first operation, in nanoseconds.
    pub open_ns: f64,
    /// Median time from closing the gate until the side stands still, in nanoseconds.
    pub drain_ns: f64,
    /// Time before a bubble's end at which the gate closes, in nanoseconds: the 90 % quantile of the drains.
    pub margin_ns: f64,
    /// Mean time of an opening that does not become work, in nanoseconds: waking and cold caches, less what still ends
    /// between closing and bubble's end.
    pub lost_ns: f64,
    /// Time by which the main's median forward behind a filled bubble exceeds that behind an empty one, in nanoseconds;
    /// noise can make it negative.
    pub after_ns: f64,
    /// Time alone of the side's longest operation, in nanoseconds.
    pub longest_ns: f64,
}

/// What the calibration predicts for an iteration whose bubbles are filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FillForecast {
    /// Time of a filled iteration ÷ time of an empty one; never below 1.
    pub main_slowdown: f64,
    /// Time alone of the side's operations done in bubbles, in percent of all bubble time; 0 where there is no bubble.
    pub bubble_used_percent: f64,
    /// Time from closing the gate until the side stands still, in nanoseconds: the calibration's median drain.
    pub stop_latency_ns: f64,
}

impl Calibration {
    /// Whether a bubble of `bubble_ns` nanoseconds is worth opening the gate: less the margin, it must be longer than
    /// waking plus the side's longest operation.
    pub fn opens(&self, bubble_ns: f64) -> bool {
        bubble_ns - self.margin_ns > self.open_ns + self.longest_ns
    }

    /// Predicts an iteration of `steps`: its slowdown is 1 + opened bubbles · after ÷ iteration, its bubble use Σ
    /// (bubble − margin − lost) over the opened bubbles ÷ Σ bubble over all.
    pub fn predict(&self, steps: &[StageStep]) -> FillForecast {
        let (mut total, mut work, mut bubbles, mut opened) = (0.0, 0.0, 0.0, 0.0);
        for step in steps {
            total += match *step {
                StageStep::Forward => self.forward_ns,
                StageStep::Backward => self.backward_ns,
                StageStep::Bubble(ns) => {
                    bubbles += ns;
                    if self.opens(ns) {
                        opened += 1.0;
                        work += (ns - self.margin_ns - self.lost_ns).max(0.0);
                    }
                    ns
                }
            };
        }
        FillForecast {
            main_slowdown: 1.0 + opened * self.after_ns.max(0.0) / total,
            bubble_used_percent: if bubbles > 0.0 { 100.0 * work / bubbles } else { 0.0 },
            stop_latency_ns: self.drain_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::corun::stage::Stage;

    fn calibration() -> Calibration {
        Calibration {
            forward_ns: 10.0,
            backward_ns: 20.0,
            open_ns: 1.0,
            drain_ns: 2.0,
            margin_ns: 3.0,
            lost_ns: 0.5,
            after_ns: 0.6,
            longest_ns: 4.0,
        }
    }

    #[test]
    fn short_bubbles_stay_closed() {
        let c = calibration();
        assert!(!c.opens(8.0) && c.opens(8.1));
    }

    /// By hand: p 4, m 8, stage 1: bubbles 10, 40, 10, 10, 20; 5 openings; 11·30 long.
    #[test]
    fn the_prediction_is_the_schedules_arithmetic() {
        let c = calibration();
        let stage = Stage { stages: 4, micro_batches: 8, stage: 1, forward_ns: 10.0, backward_ns: 20.0 };
        let p = c.predict(&stage.steps().unwrap());
        assert!((p.bubble_used_percent - 100.0 * (90.0 - 5.0 * 3.5) / 90.0).abs() < 1e-9);
        assert!((p.main_slowdown - (1.0 + 5.0 * 0.6 / 330.0)).abs() < 1e-12);
        assert_eq!(p.stop_latency_ns, 2.0);
        let wide = Calibration { margin_ns: 1000.0, after_ns: -1.0, ..c };
        let p = wide.predict(&stage.steps().unwrap());
        assert_eq!((p.bubble_used_percent, p.main_slowdown), (0.0, 1.0));
    }
}
