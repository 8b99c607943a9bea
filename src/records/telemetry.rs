//! What a GPU's sensors said while a case was measured: part of its line. Written by `suite` from `machine::telemetry`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sensor readings from the end of a case's check to its last sample, warm-up included, ten a second. A field is null where
/// the GPU, the driver or the rights gave no answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Readings in that time.
    pub readings: u64,
    /// How long one took, the median: a thread beside the measuring one spends it.
    pub reading_ns: Option<f64>,
    pub sm_clock_median_mhz: Option<f64>,
    pub sm_clock_min_mhz: Option<f64>,
    pub sm_clock_max_mhz: Option<f64>,
    pub memory_clock_median_mhz: Option<f64>,
    /// Energy ÷ time where the GPU counts energy and half a second was measured; else the mean of the power readings,
    /// which most boards average over a second.
    pub power_mean_w: Option<f64>,
    pub power_max_w: Option<f64>,
    pub temperature_max_c: Option<f64>,
    /// Every reason seen for a clock below the one asked for, by name; empty: none.
    pub clock_event_reasons: Option<Vec<String>>,
    /// ECC errors that came up meanwhile.
    pub ecc_corrected: Option<u64>,
    pub ecc_uncorrected: Option<u64>,
    /// Processes other than this one and its children that computed on the GPU meanwhile.
    pub other_process_ids: Option<Vec<u32>>,
    /// Where the activity is from: `gpm` or `dcgm`.
    pub activity_source: Option<String>,
    /// Means over the readings: SMs with a warp resident, warps resident of those that fit, cycles with a tensor pipe at
    /// work, DRAM bandwidth of its peak.
    pub sm_active_percent: Option<f64>,
    pub sm_occupancy_percent: Option<f64>,
    pub tensor_active_percent: Option<f64>,
    pub dram_active_percent: Option<f64>,
}
