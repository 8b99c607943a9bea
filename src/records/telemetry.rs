//! What a GPU's sensors said while a case was measured: part of its line. Written by `suite` from `machine::telemetry`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sensor readings from the end of a case's check to its last sample, warm-up included, ten a second. A field is null
/// where the GPU, the driver or the rights gave no answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// Number of readings in that time.
    pub readings: u64,
    /// How long one reading took, the median in nanoseconds; a thread beside the measuring one spends it.
    pub reading_ns: Option<f64>,
    /// Median SM clock in MHz.
    pub sm_clock_median_mhz: Option<f64>,
    /// Lowest SM clock read, in MHz.
    pub sm_clock_min_mhz: Option<f64>,
    /// Highest SM clock read, in MHz.
    pub sm_clock_max_mhz: Option<f64>,
    /// Median memory clock in MHz.
    pub memory_clock_median_mhz: Option<f64>,
    /// Mean power in watts: energy ÷ time where the GPU counts energy and half a second was measured; else the mean of
    /// the power readings, which most boards average over a second.
    pub power_mean_w: Option<f64>,
    /// Highest power read, in watts.
    pub power_max_w: Option<f64>,
    /// Highest temperature of the GPU read, in °C.
    pub temperature_max_c: Option<f64>,
    /// Every reason seen for a clock below the one asked for, by name; empty where none was.
    pub clock_event_reasons: Option<Vec<String>>,
    /// Memory errors that ECC corrected in that time.
    pub ecc_corrected: Option<u64>,
    /// Memory errors that ECC detected and could not correct in that time.
    pub ecc_uncorrected: Option<u64>,
    /// Processes other than this one and its children that computed on the GPU in that time.
    pub other_process_ids: Option<Vec<u32>>,
    /// Where the activity percentages are from: `gpm` (NVML's counters of Hopper and later) or `dcgm`.
    pub activity_source: Option<String>,
    /// Share of SMs with at least one warp resident, mean over the readings, in percent.
    pub sm_active_percent: Option<f64>,
    /// Warps resident on the SMs ÷ warps that would fit, mean over the readings, in percent.
    pub sm_occupancy_percent: Option<f64>,
    /// Share of cycles in which a tensor pipe was at work, mean over the readings, in percent.
    pub tensor_active_percent: Option<f64>,
    /// DRAM bandwidth used ÷ peak bandwidth, mean over the readings, in percent.
    pub dram_active_percent: Option<f64>,
}
