//! What is measured of a stage and a side before they are put together, and what follows from it: the prediction that the
//! measurement is then held against. Plain arithmetic; [`super::replay`] measures the numbers.

use super::gated::Grain;
use super::stage::StageStep;

/// What was measured before the first iteration; times in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Calibration {
    /// Median time of a forward through the stage's layers, in nanoseconds.
    pub forward_ns: f64,
    /// Median time of a backward through the stage's layers, to inputs and to weights together, in nanoseconds.
    pub backward_ns: f64,
    /// Median time from opening the gate to the side's first operation, in nanoseconds.
    pub open_ns: f64,
    /// Median time from closing the gate until the side stands still, in nanoseconds; 0 where it has stopped by the clock
    /// before.
    pub drain_ns: f64,
    /// Time before the expected close by which the side's operations must have ended, in nanoseconds.
    pub margin_ns: f64,
    /// Mean time of a filled bubble that does not become work, in nanoseconds: waking, cold caches, the margin, and what is
    /// left when the next operation would not end in time.
    pub lost_ns: f64,
    /// Time by which the main's median forward behind a filled bubble exceeds that behind an empty one, in nanoseconds;
    /// noise can make it negative.
    pub after_ns: f64,
    /// Time alone of the side's longest operation, in nanoseconds.
    pub longest_ns: f64,
    /// The largest need that the side asks the gate with, in nanoseconds: of an operation, or of a whole step.
    pub need_ns: f64,
    /// Time alone of the side's training step, in nanoseconds.
    pub step_ns: f64,
    /// What the side asks the gate for.
    pub grain: Grain,
}

/// What the calibration predicts for an iteration whose bubbles are filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FillForecast {
    /// Time of a filled iteration ÷ time of an empty one; never below 1.
    pub main_slowdown: f64,
    /// Time alone of the side's operations done in bubbles, in percent of all bubble time; 0 where there is no bubble.
    pub bubble_used_percent: f64,
    /// Training steps of the side per second of the filled iteration.
    pub side_steps_per_s: f64,
    /// Time from closing the gate until the side stands still, in nanoseconds: the calibration's median.
    pub stop_latency_ns: f64,
}

impl FillForecast {
    /// Of an iteration whose bubbles are left empty.
    pub const EMPTY: FillForecast =
        FillForecast { main_slowdown: 1.0, bubble_used_percent: 0.0, side_steps_per_s: 0.0, stop_latency_ns: 0.0 };
}

impl Calibration {
    /// Whether a bubble that is expected to last `learned_ns` nanoseconds is worth opening the gate: less the margin, it
    /// must be longer than waking plus the largest need. A side that is let in has then always something to start with.
    pub fn opens(&self, learned_ns: f64) -> bool {
        learned_ns - self.margin_ns > self.open_ns + self.need_ns
    }

    /// Predicts an iteration of `steps` whose bubbles are expected to be `learned_ns` long, one by one in their order: its
    /// slowdown is 1 + opened bubbles · after ÷ iteration, its bubble use the work in all opened bubbles ÷ Σ bubble over
    /// all.
    pub fn predict(&self, steps: &[StageStep], learned_ns: &[f64]) -> FillForecast {
        let mut learned = learned_ns.iter().copied();
        let (mut total, mut work, mut bubbles, mut opened) = (0.0, 0.0, 0.0, 0.0);
        for step in steps {
            total += match *step {
                StageStep::Forward => self.forward_ns,
                StageStep::Backward => self.backward_ns,
                StageStep::Bubble(ns) => {
                    bubbles += ns;
                    let learned = learned.next().unwrap_or(ns);
                    if self.opens(learned) {
                        opened += 1.0;
                        work += self.work_ns(ns, learned);
                    }
                    ns
                }
            };
        }
        let after = opened * self.after_ns.max(0.0);
        let share = |work: f64, of: f64| if of > 0.0 { work / of } else { 0.0 };
        FillForecast {
            main_slowdown: 1.0 + share(after, total),
            bubble_used_percent: 100.0 * share(work, bubbles),
            side_steps_per_s: 1e9 * share(share(work, self.step_ns), total + after),
            stop_latency_ns: self.drain_ns,
        }
    }

    /// Work in one opened bubble, in nanoseconds that it takes alone.
    fn work_ns(&self, bubble_ns: f64, learned_ns: f64) -> f64 {
        match self.grain {
            // Where in its step the side stands differs from bubble to bubble, so what does not fit is lost in the mean.
            Grain::Operation => (bubble_ns - self.lost_ns).max(0.0),
            // Here every bubble begins with a step, and how many fit is known: the last one starts a need before the end.
            Grain::Step => {
                let room = learned_ns - self.margin_ns - self.open_ns - self.need_ns;
                let steps = if self.step_ns > 0.0 { (room / self.step_ns).floor() + 1.0 } else { 0.0 };
                steps.max(0.0) * self.step_ns
            }
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
            lost_ns: 3.5,
            after_ns: 0.6,
            longest_ns: 4.0,
            need_ns: 4.0,
            step_ns: 5.0,
            grain: Grain::Operation,
        }
    }

    /// p 4, m 8, stage 1: bubbles 10, 40, 10, 10, 20; 11·30 long.
    fn steps() -> Vec<StageStep> {
        let stage = Stage { stages: 4, micro_batches: 8, stage: 1, forward_ns: 10.0, backward_ns: 20.0 };
        stage.steps().unwrap()
    }

    const LENGTHS: [f64; 5] = [10.0, 40.0, 10.0, 10.0, 20.0];

    #[test]
    fn short_bubbles_stay_closed() {
        let c = calibration();
        assert!(!c.opens(8.0) && c.opens(8.1));
    }

    /// By hand: 5 openings.
    #[test]
    fn the_prediction_is_the_schedules_arithmetic() {
        let c = calibration();
        let p = c.predict(&steps(), &LENGTHS);
        let work = 90.0 - 5.0 * 3.5;
        assert!((p.bubble_used_percent - 100.0 * work / 90.0).abs() < 1e-9);
        assert!((p.main_slowdown - (1.0 + 5.0 * 0.6 / 330.0)).abs() < 1e-12);
        assert!((p.side_steps_per_s - 1e9 * work / 5.0 / 333.0).abs() < 1e-3);
        assert_eq!(p.stop_latency_ns, 2.0);
        let wide = Calibration { margin_ns: 1000.0, after_ns: -1.0, ..c };
        let p = wide.predict(&steps(), &LENGTHS);
        assert_eq!(p, FillForecast { stop_latency_ns: 2.0, ..FillForecast::EMPTY });
    }

    /// What decides about opening is what was learned, and not how long the bubble is.
    #[test]
    fn a_bubble_that_was_learned_too_short_stays_closed() {
        let c = calibration();
        let p = c.predict(&steps(), &[8.0, 40.0, 8.0, 8.0, 20.0]);
        assert!((p.bubble_used_percent - 100.0 * (60.0 - 2.0 * 3.5) / 90.0).abs() < 1e-9);
    }

    /// By hand: steps of 5 that ask with 6, from 1 on, to end by 3 before the end: one in a bubble of 10, seven in one of
    /// 40, three in one of 20.
    #[test]
    fn whole_steps_are_counted_one_by_one() {
        let c = Calibration { need_ns: 6.0, grain: Grain::Step, ..calibration() };
        assert!(!c.opens(10.0) && c.opens(10.1));
        let p = c.predict(&steps(), &[10.1, 40.1, 10.1, 10.1, 20.1]);
        assert!((p.bubble_used_percent - 100.0 * 5.0 * (3.0 + 7.0 + 3.0) / 90.0).abs() < 1e-9);
    }
}
