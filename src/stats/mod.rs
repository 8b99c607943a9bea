//! Small statistics on plain slices: numbers in, numbers out, no clock and no randomness from outside.

pub mod normal;

/// The median; `None` for an empty slice. NaNs sort last.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The quantile `q`, from 0 to 1, interpolated linearly between samples (type 7 of Hyndman & Fan 1996); `None` for an
/// empty slice. NaNs sort last.
pub fn quantile(values: &[f64], q: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    quantile_sorted(&sorted, q)
}

/// The quantile `q` as [`quantile`] computes it, of a slice already sorted in rising order; `None` for an empty one.
pub fn quantile_sorted(sorted: &[f64], q: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let position = q.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (position.floor() as usize, position.ceil() as usize);
    Some(sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64))
}

/// The arithmetic mean; `None` for an empty slice.
pub fn mean(values: &[f64]) -> Option<f64> {
    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
}

/// The SplitMix64 generator (Steele, Lea & Flood 2014), whose field is its state. It is seeded, so that an interval
/// computed twice from the same samples is the same.
#[derive(Debug, Clone)]
pub struct SplitMix(pub u64);

impl SplitMix {
    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A random index below `bound`, uniform; 0 where `bound` is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// A random number, uniform from 0 up to, but not including, 1.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A random number, uniform from −1 up to, but not including, 1.
    pub fn symmetric(&mut self) -> f64 {
        2.0 * self.unit() - 1.0
    }

    /// Puts the items in random order (Fisher–Yates), every order equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

/// The median and the ends of its percentile-bootstrap 95 % interval (Efron & Tibshirani 1993, §13.3), from 1,000
/// resamples with a fixed seed: `(median, low, high)`. `None` for an empty slice.
pub fn median_interval(values: &[f64]) -> Option<(f64, f64, f64)> {
    let middle = median(values)?;
    if values.len() == 1 {
        return Some((middle, middle, middle));
    }
    let mut random = SplitMix(0xb0b_b1e5);
    let mut resample = vec![0.0; values.len()];
    let mut medians: Vec<f64> = (0..1000)
        .map(|_| {
            resample.iter_mut().for_each(|r| *r = values[random.below(values.len())]);
            let half = resample.len() / 2;
            let (low, upper, _) = resample.select_nth_unstable_by(half, f64::total_cmp);
            let upper = *upper;
            if values.len() % 2 == 1 { upper } else { (upper + low.iter().copied().fold(f64::MIN, f64::max)) / 2.0 }
        })
        .collect();
    medians.sort_by(f64::total_cmp);
    Some((middle, quantile_sorted(&medians, 0.025)?, quantile_sorted(&medians, 0.975)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(quantile(&[0.0, 10.0], 0.25), Some(2.5));
    }

    #[test]
    fn the_interval_holds_the_median_and_is_repeatable() {
        let mut random = SplitMix(7);
        let values: Vec<f64> = (0..101).map(|_| 100.0 + random.symmetric()).collect();
        let (middle, low, high) = median_interval(&values).unwrap();
        assert!(low <= middle && middle <= high && high - low < 1.0);
        assert_eq!(median_interval(&values), Some((middle, low, high)));
        assert_eq!(median_interval(&[5.0]), Some((5.0, 5.0, 5.0)));
    }

    /// Known answer: of normal samples the interval must hold the true median about 95 % of the time.
    #[test]
    fn the_interval_covers_about_as_often_as_it_says() {
        let mut random = SplitMix(11);
        let covered = (0..400)
            .filter(|_| {
                let values: Vec<f64> = (0..41).map(|_| (0..12).map(|_| random.unit()).sum::<f64>() - 6.0).collect();
                let (_, low, high) = median_interval(&values).unwrap();
                low <= 0.0 && 0.0 <= high
            })
            .count();
        assert!((365..=399).contains(&covered), "{covered} of 400");
    }
}
