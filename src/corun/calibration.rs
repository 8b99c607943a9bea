//! What is measured of a stage and a side before they are put together, and what follows from it: the prediction that the
//! measurement is then held against. Plain arithmetic; [`super::replay`] measures the numbers.

use super::stage::StageStep;

/// What was measured before the first iteration; all in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Calibration {
    /// The stage's layers, forward; and backward to inputs and weights.
    pub forward_ns: f64,
    pub backward_ns: f64,
    /// From opening to the side's first operation.
    pub open_ns: f64,
    /// From closing to standing still.
    pub drain_ns: f64,
    /// How long before a bubble's end the gate closes.
    pub margin_ns: f64,
    /// Time of an opening that does not become work: waking, cold caches, less what ends between closing and bubble's end.
    pub lost_ns: f64,
    /// What the main's next forward takes longer behind a filled bubble than behind an empty one.
    pub after_ns: f64,
    /// The side's longest operation alone.
    pub longest_ns: f64,
}

/// What calibration says about the iterations to come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FillForecast {
    pub main_slowdown: f64,
    pub bubble_used_percent: f64,
    pub stop_latency_ns: f64,
}

impl Calibration {
    /// Is a bubble of this length worth opening the gate?
    pub fn opens(&self, bubble_ns: f64) -> bool {
        bubble_ns - self.margin_ns > self.open_ns + self.longest_ns
    }

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
