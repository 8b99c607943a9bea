//! What tools that compare runs want of a case's samples: mean, spread, quartiles.

use crate::records::Measurement;
use crate::stats;

/// Statistics of the samples that a record keeps, in ns of one operation.
#[derive(Debug, Clone, PartialEq)]
pub struct SampleStatistics {
    /// Number of samples.
    pub count: usize,
    /// Arithmetic mean, in ns.
    pub mean: f64,
    /// Standard deviation with n − 1 below, in ns; 0 of one sample.
    pub deviation: f64,
    /// Shortest sample, in ns.
    pub least: f64,
    /// First quartile, in ns.
    pub first_quartile: f64,
    /// Median, in ns.
    pub median: f64,
    /// Third quartile, in ns.
    pub third_quartile: f64,
    /// Longest sample, in ns.
    pub most: f64,
    /// Median of the distances from the median, in ns.
    pub median_distance: f64,
}

impl SampleStatistics {
    /// Of a record's samples; `None` where it has no time, or no sample of a time above 0 (a wrong result, an imported mean).
    pub fn of(record: &Measurement) -> Option<SampleStatistics> {
        record.median_ns?;
        SampleStatistics::of_times(&record.samples_ns)
    }

    /// Of times in ns; `None` where there is none, or one is not above 0.
    pub fn of_times(times: &[f64]) -> Option<SampleStatistics> {
        if !times.iter().all(|ns| ns.is_finite() && *ns > 0.0) {
            return None;
        }
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        let quantile = |q| stats::quantile_sorted(&sorted, q);
        let (mean, median) = (stats::mean(times)?, quantile(0.5)?);
        let squares: f64 = times.iter().map(|ns| (ns - mean).powi(2)).sum();
        let below = times.len().saturating_sub(1).max(1) as f64;
        let distances: Vec<f64> = times.iter().map(|ns| (ns - median).abs()).collect();
        Some(SampleStatistics {
            count: times.len(),
            mean,
            deviation: (squares / below).sqrt(),
            least: quantile(0.0)?,
            first_quartile: quantile(0.25)?,
            median,
            third_quartile: quantile(0.75)?,
            most: quantile(1.0)?,
            median_distance: stats::median(&distances)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// By hand: 1, 2, 4, 9 have mean 4, squares 9 + 4 + 0 + 25 over 3, quartiles 1.75 and 5.25.
    #[test]
    fn statistics_are_those_of_the_textbook() {
        let s = SampleStatistics::of_times(&[4.0, 1.0, 9.0, 2.0]).unwrap();
        assert_eq!((s.count, s.mean, s.median, s.least, s.most), (4, 4.0, 3.0, 1.0, 9.0));
        assert_eq!((s.first_quartile, s.third_quartile, s.median_distance), (1.75, 5.25, 1.5));
        assert!((s.deviation - (38.0f64 / 3.0).sqrt()).abs() < 1e-12, "{s:?}");
        assert_eq!(SampleStatistics::of_times(&[5.0]).unwrap().deviation, 0.0);
        assert_eq!(SampleStatistics::of_times(&[]), None);
        assert_eq!(SampleStatistics::of_times(&[1.0, 0.0]), None);
    }
}
