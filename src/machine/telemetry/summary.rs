//! From readings to what stands beside a case. Pure.

use crate::machine::nvml::{gpm::GpmActivity, reasons};
use crate::records::telemetry::Telemetry;
use crate::stats;
use std::collections::BTreeSet;

/// Below this the energy counter's own step is too coarse.
const ENERGY_SPAN_NS: u64 = 500_000_000;

/// One reading of a GPU's sensors; a field is `None` where its sensor did not answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SensorReading {
    /// When the reading was over, in ns since the sampler began.
    pub at_ns: u64,
    /// How long the reading took, in ns.
    pub took_ns: u64,
    /// The GPU's number in NVML's order, asked once.
    pub nvml_index: Option<u64>,
    /// The SM clock, in MHz.
    pub sm_clock_mhz: Option<u64>,
    /// The memory clock in MHz, asked in each thorough reading and repeated in those between.
    pub memory_clock_mhz: Option<u64>,
    /// The board's power draw, in watts.
    pub power_w: Option<f64>,
    /// The energy used since the driver was loaded, in millijoules.
    pub energy_mj: Option<u64>,
    /// The GPU's temperature, in °C.
    pub temperature_c: Option<u64>,
    /// Why the clock is below the one asked for, as NVML's bits.
    pub clock_event_reasons: Option<u64>,
    /// Memory errors that ECC corrected since the driver was loaded, asked in each thorough reading.
    pub ecc_corrected: Option<u64>,
    /// Memory errors that ECC could not correct since the driver was loaded, asked in each thorough reading.
    pub ecc_uncorrected: Option<u64>,
    /// The numbers of the processes that compute on the GPU, without this one and its children; asked in each thorough
    /// reading.
    pub other_processes: Option<Vec<u32>>,
    /// How busy the GPU was since the reading before (GPM) or in the last 100 ms (DCGM).
    pub activity: Option<GpmActivity>,
    /// Where the activity is asked, `gpm` or `dcgm`; `None` where neither is there.
    pub activity_source: Option<&'static str>,
}

/// Sums up the readings of a `window` of time. `earlier` is the newest reading before it, from which counters start.
pub fn summarise(earlier: Option<&SensorReading>, window: &[&SensorReading]) -> Telemetry {
    let values =
        |of: &dyn Fn(&SensorReading) -> Option<f64>| -> Vec<f64> { window.iter().filter_map(|r| of(r)).collect() };
    let whole = |of: fn(&SensorReading) -> Option<u64>| values(&|r| of(r).map(|value| value as f64));
    let activity = |of: fn(&GpmActivity) -> Option<f64>| stats::mean(&values(&|r| of(r.activity.as_ref()?)));
    let clocks = whole(|r| r.sm_clock_mhz);
    let power = values(&|r| r.power_w);
    let seen = |of: fn(&SensorReading) -> Option<u64>| growth(earlier, window, of);
    Telemetry {
        readings: window.len() as u64,
        reading_ns: stats::median(&values(&|r| Some(r.took_ns as f64))),
        sm_clock_median_mhz: stats::median(&clocks),
        sm_clock_min_mhz: stats::quantile(&clocks, 0.0),
        sm_clock_max_mhz: stats::quantile(&clocks, 1.0),
        memory_clock_median_mhz: stats::median(&whole(|r| r.memory_clock_mhz)),
        power_mean_w: power_from_energy(window).or_else(|| stats::mean(&power)),
        power_max_w: stats::quantile(&power, 1.0),
        temperature_max_c: stats::quantile(&whole(|r| r.temperature_c), 1.0),
        clock_event_reasons: all_reasons(window),
        ecc_corrected: seen(|r| r.ecc_corrected),
        ecc_uncorrected: seen(|r| r.ecc_uncorrected),
        other_process_ids: all_others(window),
        activity_source: window.iter().rev().find_map(|r| r.activity.and(r.activity_source)).map(String::from),
        sm_active_percent: activity(|a| a.sm_active),
        sm_occupancy_percent: activity(|a| a.sm_occupancy),
        tensor_active_percent: activity(|a| a.tensor_active),
        dram_active_percent: activity(|a| a.dram_active),
    }
}

fn power_from_energy(window: &[&SensorReading]) -> Option<f64> {
    let mut counted = window.iter().filter_map(|r| Some((r.at_ns, r.energy_mj?)));
    let (from_ns, from_mj) = counted.next()?;
    let (to_ns, to_mj) = counted.next_back()?;
    let span_ns = to_ns.checked_sub(from_ns).filter(|&span| span >= ENERGY_SPAN_NS)?;
    // mJ per ns are MW.
    Some(to_mj.checked_sub(from_mj)? as f64 / span_ns as f64 * 1e6)
}

/// How much a counter grew; one that fell was reset, and what it counts since is new.
fn growth(
    earlier: Option<&SensorReading>,
    window: &[&SensorReading],
    of: fn(&SensorReading) -> Option<u64>,
) -> Option<u64> {
    let mut values = earlier.into_iter().chain(window.iter().copied()).filter_map(of);
    let first = values.next()?;
    let last = values.next_back().unwrap_or(first);
    Some(last.checked_sub(first).unwrap_or(last))
}

fn all_reasons(window: &[&SensorReading]) -> Option<Vec<String>> {
    let bits: Vec<u64> = window.iter().filter_map(|r| r.clock_event_reasons).collect();
    (!bits.is_empty()).then(|| reasons::names(bits.iter().fold(0, |all, bits| all | bits)))
}

fn all_others(window: &[&SensorReading]) -> Option<Vec<u32>> {
    let lists: Vec<&Vec<u32>> = window.iter().filter_map(|r| r.other_processes.as_ref()).collect();
    let all: BTreeSet<u32> = lists.iter().flat_map(|list| list.iter().copied()).collect();
    (!lists.is_empty()).then(|| all.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(at_ms: u64, clock: u64, energy_mj: u64) -> SensorReading {
        SensorReading {
            at_ns: at_ms * 1_000_000,
            took_ns: 1000,
            sm_clock_mhz: Some(clock),
            power_w: Some(100.0),
            energy_mj: Some(energy_mj),
            ..SensorReading::default()
        }
    }

    #[test]
    fn clocks_are_ordered_and_power_is_energy_over_time() {
        let all = [reading(0, 1980, 0), reading(500, 1200, 150_000), reading(1000, 1900, 300_000)];
        let told = summarise(None, &all.iter().collect::<Vec<_>>());
        assert_eq!((told.readings, told.sm_clock_median_mhz), (3, Some(1900.0)));
        assert_eq!((told.sm_clock_min_mhz, told.sm_clock_max_mhz), (Some(1200.0), Some(1980.0)));
        assert_eq!(told.power_mean_w, Some(300.0));
        let short = summarise(None, &all[..2].iter().collect::<Vec<_>>());
        assert_eq!(short.power_mean_w, Some(300.0));
        let shorter = [reading(0, 1980, 0), reading(100, 1980, 30_000)];
        assert_eq!(
            summarise(None, &shorter.iter().collect::<Vec<_>>()).power_mean_w,
            Some(100.0),
            "too short for energy"
        );
    }

    #[test]
    fn nothing_read_is_null_everywhere() {
        assert_eq!(summarise(None, &[]), Telemetry::default());
        let silent = SensorReading::default();
        let told = summarise(None, &[&silent]);
        assert_eq!(told, Telemetry { readings: 1, reading_ns: Some(0.0), ..Telemetry::default() });
    }

    #[test]
    fn counters_count_from_before_the_window() {
        let errors = |n| SensorReading { ecc_corrected: Some(n), ..SensorReading::default() };
        let (before, after) = (errors(3), errors(5));
        assert_eq!(summarise(Some(&before), &[&after]).ecc_corrected, Some(2));
        assert_eq!(summarise(None, &[&after]).ecc_corrected, Some(0));
        assert_eq!(summarise(Some(&after), &[&errors(1)]).ecc_corrected, Some(1), "it was reset");
    }

    #[test]
    fn every_reason_and_every_process_seen_is_told_once() {
        let at = |bits, pids: &[u32]| SensorReading {
            clock_event_reasons: Some(bits),
            other_processes: Some(pids.to_vec()),
            ..SensorReading::default()
        };
        let told = summarise(None, &[&at(4, &[7]), &at(0x40, &[7, 3]), &at(0, &[])]);
        assert_eq!(told.clock_event_reasons.unwrap(), ["sw-power-cap", "hw-thermal-slowdown"]);
        assert_eq!(told.other_process_ids.unwrap(), [3, 7]);
        assert_eq!(summarise(None, &[&at(0, &[])]).clock_event_reasons.unwrap(), [""; 0]);
    }

    #[test]
    fn activity_is_the_mean_of_what_was_read() {
        let busy = |percent| SensorReading {
            activity: GpmActivity::from_values([Some(percent), None, Some(10.0), None]),
            activity_source: Some("gpm"),
            ..SensorReading::default()
        };
        let told = summarise(None, &[&busy(80.0), &SensorReading::default(), &busy(90.0)]);
        assert_eq!((told.sm_active_percent, told.sm_occupancy_percent), (Some(85.0), None));
        assert_eq!(told.activity_source.as_deref(), Some("gpm"));
    }
}
