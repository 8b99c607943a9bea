//! When has a case been measured well enough? A pure rule over the samples taken so far.

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StopRule {
    pub min_samples: usize,
    pub max_samples: usize,
    /// Stop once the 95 % interval of the median is narrower than this share of it.
    pub relative_width: f64,
    /// Stop once this much time is spent on the case, warm-up included.
    pub cap_ns: u64,
}
