//! One side of a row: the runs of a case, each with its samples, and what the side's median is worth.

use super::ratio::OUTSIDE;
use super::resample::{DrawSide, MedianResamples, mean_square};
use super::student;
use crate::stats;

/// The times of a case in one run, as its record holds them; or another quantity of it, with no more than its interval.
#[derive(Debug, Clone, PartialEq)]
pub struct RunTimes<'a> {
    /// The samples kept, in nanoseconds of one operation, those of all visits one after the other; empty where the record
    /// has only an interval.
    pub samples_ns: &'a [f64],
    /// How many of the samples each visit gave, in the order made; empty where the case was visited once.
    pub visit_samples: Vec<usize>,
    /// How many samples there were where none is kept here; 0 where that is not known.
    pub samples_behind: usize,
    /// The record's median, in nanoseconds of one operation.
    pub median_ns: f64,
    /// The ends of the record's own 95 % interval, in nanoseconds; `None` where it has none.
    pub interval_ns: Option<(f64, f64)>,
    /// At most so far apart are two times that the clock can tell apart, in nanoseconds of one operation; 0 where it is
    /// fine enough not to matter.
    pub tick_ns: f64,
    /// The SM clock of the samples in MHz; `None` on the host, and where it is not known.
    pub sm_clock_mhz: Option<f64>,
}

/// The units that a median's uncertainty is told from: the coarsest there are several of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ResampleUnit {
    /// Samples of one visit. How visits or runs differ is not known.
    Sample,
    /// Separate visits of one run. How runs differ is not known.
    Visit,
    /// Repeated runs.
    Run,
}

/// The median of a case in one run, with what is known of its error. Logarithms are natural, of nanoseconds; variances are
/// of logarithms.
#[derive(Debug, Clone)]
pub(super) struct RunMedian {
    pub median_ns: f64,
    pub ln_median: f64,
    pub samples: usize,
    /// Medians drawn by the bootstrap, less the median of the samples, of a side's only run, visited once; else empty.
    pub draws: Vec<f64>,
    /// Logarithms of the medians of the visits that samples were kept of.
    pub ln_visits: Vec<f64>,
    /// Variance of the median if the samples were independent, or as the interval tells it; `None` where neither does.
    pub sample_variance: Option<f64>,
    /// Variance of the median as the visits differ; `None` for fewer than two.
    pub visit_variance: Option<f64>,
    pub interval_ns: Option<(f64, f64)>,
    pub ln_clock: Option<f64>,
}

impl RunMedian {
    /// `None` where the median or a sample is no positive number, which has no logarithm: a time that was subtracted from
    /// another may be none.
    fn of(run: &RunTimes, alone: bool, side: DrawSide, resamples: &mut MedianResamples) -> Option<RunMedian> {
        let usable = |ns: &f64| ns.is_finite() && *ns > 0.0;
        if !usable(&run.median_ns) || !run.samples_ns.iter().all(usable) {
            return None;
        }
        let (sorted, visits) = sorted_logarithms(run);
        let values: Vec<f64> = sorted.iter().map(|(value, _)| *value).collect();
        let tick = tick(&values, run);
        let draws = if alone && visits < 2 { draws(&values, tick, side, resamples) } else { Vec::new() };
        let sample_variance = match draws.as_slice() {
            [] if values.is_empty() => variance_of_interval(run),
            // A uniform error of one tick has the variance tick² ÷ 12.
            [] => resamples.variance_of_median(&values).map(|variance| variance + tick * tick / 12.0),
            draws => mean_square(draws),
        };
        Some(RunMedian {
            median_ns: run.median_ns,
            ln_median: run.median_ns.ln(),
            samples: if values.is_empty() { run.samples_behind } else { values.len() },
            sample_variance,
            visit_variance: resamples.variance_over_visits(&sorted, visits),
            ln_visits: medians_of_visits(&sorted, visits),
            draws,
            interval_ns: run.interval_ns,
            ln_clock: run.sm_clock_mhz.filter(usable).map(f64::ln),
        })
    }

    /// The variance of the run's median as far as the run itself tells it, and its degrees of freedom. Where there are
    /// visits it is theirs, but no less than if all samples were independent: three of five visits that agree by chance
    /// would make it next to nothing.
    pub fn within(&self) -> Option<(f64, f64)> {
        match (self.visit_variance, self.sample_variance) {
            (Some(visits), samples) => Some((visits.max(samples.unwrap_or(0.0)), self.ln_visits.len() as f64 - 1.0)),
            // An interval is known as well as whoever made it says.
            (None, Some(interval)) if self.samples < 2 => Some((interval, f64::INFINITY)),
            (None, Some(samples)) => Some((samples, self.samples as f64 - 1.0)),
            (None, None) => None,
        }
    }

    /// How far the median's interval reaches below and above it, as logarithms: of a run that has only an interval.
    pub fn reaches(&self) -> Option<(f64, f64)> {
        let (low, high) = self.interval_ns.filter(|(low, _)| *low > 0.0)?;
        Some(((self.ln_median - low.ln()).max(0.0), (high.ln() - self.ln_median).max(0.0)))
    }

    /// Half of the record's own interval, relative to its median; 0 where it has none.
    fn half_width(&self) -> f64 {
        self.interval_ns.map_or(0.0, |(low, high)| (high - low) / 2.0 / self.ln_median.exp())
    }
}

/// The runs of one case on one side. Repeated runs have the geometric mean of their medians: means of few runs have a t
/// distribution, and the bootstrap of a median of three can only ever say one of three values.
#[derive(Debug, Clone)]
pub struct ComparedSide {
    pub(super) runs: Vec<RunMedian>,
}

impl ComparedSide {
    /// The side of these runs. `None` where there is none, or a median that is no positive number.
    pub fn of(runs: &[RunTimes], side: DrawSide, resamples: &mut MedianResamples) -> Option<ComparedSide> {
        let alone = runs.len() == 1;
        let runs: Option<Vec<RunMedian>> = runs.iter().map(|run| RunMedian::of(run, alone, side, resamples)).collect();
        runs.filter(|runs| !runs.is_empty()).map(|runs| ComparedSide { runs })
    }

    /// The median in nanoseconds: the record's, or the geometric mean of the runs'.
    pub fn median_ns(&self) -> f64 {
        if let [run] = self.runs.as_slice() {
            return run.median_ns;
        }
        self.ln_median().exp()
    }

    /// The ends of the median's 95 % interval in nanoseconds: the record's own, or Student's t over the runs. `None` where
    /// the record has none.
    pub fn interval_ns(&self) -> Option<(f64, f64)> {
        if let [run] = self.runs.as_slice() {
            return run.interval_ns;
        }
        let (variance, freedom) = self.over_runs()?;
        let reach = student::critical(OUTSIDE, freedom) * variance.sqrt();
        Some(((self.ln_median() - reach).exp(), (self.ln_median() + reach).exp()))
    }

    /// Half of the row's own interval, relative to its median: what a difference must exceed to be more than the noise of
    /// a row. Of repeated runs it is the mean of their records' intervals; how the runs differ is in the ratio's interval.
    pub fn half_width(&self) -> f64 {
        self.runs.iter().map(RunMedian::half_width).sum::<f64>() / self.runs.len() as f64
    }

    /// Number of samples kept, of all runs.
    pub fn samples(&self) -> usize {
        self.runs.iter().map(|run| run.samples).sum()
    }

    /// Number of runs.
    pub fn runs(&self) -> usize {
        self.runs.len()
    }

    /// The coarsest unit that this side has several of.
    pub fn unit(&self) -> ResampleUnit {
        match self.runs.as_slice() {
            [run] if run.ln_visits.len() > 1 => ResampleUnit::Visit,
            [_] => ResampleUnit::Sample,
            _ => ResampleUnit::Run,
        }
    }

    pub(super) fn ln_median(&self) -> f64 {
        self.runs.iter().map(|run| run.ln_median).sum::<f64>() / self.runs.len() as f64
    }

    /// The logarithms of the medians of the runs, or of the visits of the only run.
    pub(super) fn ln_units(&self) -> Vec<f64> {
        match self.runs.as_slice() {
            [run] => run.ln_visits.clone(),
            runs => runs.iter().map(|run| run.ln_median).collect(),
        }
    }

    /// The same side in cycles: every run's times × its SM clock. `None` where a run's clock is not known.
    pub(super) fn in_cycles(&self) -> Option<ComparedSide> {
        let mut side = self.clone();
        for run in &mut side.runs {
            run.ln_median += run.ln_clock?;
        }
        Some(side)
    }

    /// The variance of the mean of the runs' logarithms, and its degrees of freedom: what the bootstrap that draws whole
    /// runs gives, times n ÷ (n − 1), which that bootstrap is short by. It is no less than if all samples of a run were
    /// independent, since three runs may agree by chance, or to one tick of a clock. `None` for fewer than two runs.
    pub(super) fn over_runs(&self) -> Option<(f64, f64)> {
        let count = self.runs.len() as f64;
        let between = variance(&self.ln_units()).filter(|_| self.runs.len() > 1)? / count;
        let of_samples: f64 = self.runs.iter().filter_map(|run| run.sample_variance).sum();
        Some((between.max(of_samples / (count * count)), count - 1.0))
    }
}

/// The logarithms of the samples kept, in rising order, each with the number of its visit, and the number of visits. A
/// visit of which no sample was kept is not counted.
fn sorted_logarithms(run: &RunTimes) -> (Vec<(f64, usize)>, usize) {
    let all = [run.samples_ns.len()];
    let counts = if run.visit_samples.is_empty() { &all[..] } else { &run.visit_samples };
    let (mut left, mut visits) = (run.samples_ns, 0);
    let mut sorted = Vec::with_capacity(left.len());
    for &count in counts {
        let (visit, behind) = left.split_at(count.min(left.len()));
        sorted.extend(visit.iter().map(|ns| (ns.ln(), visits)));
        visits += usize::from(!visit.is_empty());
        left = behind;
    }
    sorted.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    (sorted, visits)
}

fn medians_of_visits(sorted: &[(f64, usize)], visits: usize) -> Vec<f64> {
    let mut of_visits = vec![Vec::new(); visits];
    sorted.iter().for_each(|(value, visit)| of_visits[*visit].push(*value));
    of_visits.iter().filter_map(|values| stats::quantile_sorted(values, 0.5)).collect()
}

/// The clock's tick relative to the median. Two samples that differ lie at least one tick apart, so that it is no more
/// than the smallest distance between them.
fn tick(sorted_ln: &[f64], run: &RunTimes) -> f64 {
    let gaps = sorted_ln.windows(2).map(|pair| pair[1] - pair[0]).filter(|gap| *gap > 1e-9);
    gaps.fold(run.tick_ns / run.median_ns, f64::min)
}

fn draws(sorted: &[f64], tick: f64, side: DrawSide, resamples: &mut MedianResamples) -> Vec<f64> {
    let mut draws = resamples.medians(sorted, tick, side);
    let centre = stats::quantile_sorted(sorted, 0.5).unwrap_or(0.0);
    draws.iter_mut().for_each(|draw| *draw -= centre);
    draws
}

/// The variance of a normal logarithm with the run's 95 % interval. `None` where there is none, or of one sample, whose
/// interval is no wider than it.
fn variance_of_interval(run: &RunTimes) -> Option<f64> {
    let (low, high) = run.interval_ns.filter(|(low, high)| *low > 0.0 && high >= low && run.samples_behind != 1)?;
    Some(((high / low).ln() / 2.0 / student::critical(OUTSIDE, f64::INFINITY)).powi(2))
}

/// The unbiased variance; `None` for fewer than two values.
pub(super) fn variance(values: &[f64]) -> Option<f64> {
    let count = values.len() as f64;
    mean_square(values).filter(|_| values.len() > 1).map(|square| square * count / (count - 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(samples_ns: &[f64], visit_samples: &[usize]) -> RunTimes<'static> {
        let samples_ns: &'static [f64] = samples_ns.to_vec().leak();
        let median_ns = stats::median(samples_ns).unwrap_or(100.0);
        RunTimes {
            samples_ns,
            visit_samples: visit_samples.to_vec(),
            samples_behind: 0,
            median_ns,
            interval_ns: Some((median_ns * 0.99, median_ns * 1.02)),
            tick_ns: 0.0,
            sm_clock_mhz: None,
        }
    }

    fn side(runs: &[RunTimes]) -> ComparedSide {
        ComparedSide::of(runs, DrawSide::Reference, &mut MedianResamples::default()).unwrap()
    }

    #[test]
    fn one_run_keeps_its_records_figures() {
        let side = side(&[run(&[98.0, 100.0, 103.0], &[])]);
        assert!((side.median_ns() - 100.0).abs() < 1e-9);
        assert_eq!(side.interval_ns(), Some((99.0, 102.0)));
        assert!((side.half_width() - 0.015).abs() < 1e-9);
        assert_eq!((side.samples(), side.runs(), side.unit()), (3, 1, ResampleUnit::Sample));
    }

    #[test]
    fn samples_belong_to_visits_in_their_order() {
        let told = side(&[run(&[1.0, 1.0, 4.0, 9.0, 9.0, 9.0], &[2, 1, 3])]);
        let ln_visits = told.ln_units();
        assert_eq!(told.unit(), ResampleUnit::Visit);
        assert_eq!(ln_visits, [1f64.ln(), 4f64.ln(), 9f64.ln()]);
        // Of a record that kept fewer samples than were taken, the visits beyond have none.
        let truncated = side(&[run(&[1.0, 1.0, 4.0], &[2, 3, 3])]);
        assert_eq!(truncated.ln_units(), [1f64.ln(), 4f64.ln()]);
    }

    /// Known answer: Student's interval of the logarithms of three runs, 4.3027 · s ÷ √3.
    #[test]
    fn repeated_runs_have_students_interval_around_their_geometric_mean() {
        let runs: Vec<RunTimes> = [-0.01f64, 0.0, 0.01].iter().map(|ln| run(&[1e3 * ln.exp(); 4], &[])).collect();
        let side = side(&runs);
        let (low, high) = side.interval_ns().unwrap();
        assert!((side.median_ns() - 1e3).abs() < 1e-6);
        let reach = 4.302_652_73 * 0.01 / 3f64.sqrt();
        assert!((low.ln() - (1e3f64.ln() - reach)).abs() < 1e-9 && (high.ln() - (1e3f64.ln() + reach)).abs() < 1e-9);
        assert_eq!((side.unit(), side.runs(), side.samples()), (ResampleUnit::Run, 3, 12));
    }

    #[test]
    fn runs_that_agree_by_chance_are_no_surer_than_their_samples() {
        let noisy = [90.0, 95.0, 100.0, 105.0, 110.0];
        let (variance, _) = side(&[run(&noisy, &[]), run(&noisy, &[]), run(&noisy, &[])]).over_runs().unwrap();
        assert!(variance.sqrt() > 0.01, "{}", variance.sqrt());
    }

    #[test]
    fn visits_that_agree_by_chance_are_no_surer_than_their_samples() {
        let noisy = [90.0, 100.0, 110.0].repeat(5);
        let (variance, freedom) = side(&[run(&noisy, &[3; 5])]).runs[0].within().unwrap();
        assert!(variance.sqrt() > 0.01 && freedom == 4.0, "{} {freedom}", variance.sqrt());
    }

    #[test]
    fn a_tick_is_no_larger_than_the_samples_show() {
        let coarse = RunTimes { tick_ns: 500.0, ..run(&[10_000.0, 10_000.0, 10_000.0], &[]) };
        let fine = RunTimes { tick_ns: 500.0, ..run(&[10_000.0, 10_032.0, 10_064.0], &[]) };
        let sorted = |run: &RunTimes| run.samples_ns.iter().map(|ns| ns.ln()).collect::<Vec<f64>>();
        assert!((tick(&sorted(&coarse), &coarse) - 0.05).abs() < 1e-9);
        assert!((tick(&sorted(&fine), &fine) - 0.0032).abs() < 1e-4);
        assert!(side(&[coarse]).runs[0].within().unwrap().0 > 0.0, "samples of one tick are not exact");
    }

    /// One sample's record has an interval of no width, which is not to be believed.
    #[test]
    fn one_sample_tells_nothing_whatever_its_interval() {
        let one = RunTimes { interval_ns: Some((100.0, 100.0)), ..run(&[100.0], &[]) };
        let not_kept = RunTimes { samples_ns: &[], samples_behind: 1, ..one.clone() };
        assert_eq!((side(&[one]).runs[0].within(), side(&[not_kept]).runs[0].within()), (None, None));
    }

    #[test]
    fn a_median_that_is_no_time_makes_no_side() {
        for ns in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let of_median = [RunTimes { median_ns: ns, ..run(&[1.0], &[]) }];
            let of_sample = [RunTimes { median_ns: 1.0, ..run(&[1.0, 1.0, ns], &[]) }];
            for runs in [of_median, of_sample] {
                assert!(ComparedSide::of(&runs, DrawSide::Other, &mut MedianResamples::default()).is_none(), "{ns}");
            }
        }
        assert!(ComparedSide::of(&[], DrawSide::Other, &mut MedianResamples::default()).is_none());
    }
}
