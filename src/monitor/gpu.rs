//! The GPU's part of what is served: the newest reading of the telemetry's thread, under DCGM-exporter's names. Pure.

use super::metrics::{self, Metric};
use super::text::{Family, Sample};
use crate::machine::nvml::reasons;
use crate::machine::telemetry::SensorReading;
use crate::records::machine::Gpu;

/// The GPU that a run measures on, as labels name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuName {
    /// Its number in CUDA's order, which stands where NVML does not tell its own.
    pub index: u64,
    /// Its UUID, empty where it is not known.
    pub uuid: String,
    /// The product's name.
    pub model: String,
}

impl GpuName {
    /// The labels' part of a machine's record.
    pub fn of(gpu: &Gpu) -> GpuName {
        GpuName { index: gpu.index, uuid: gpu.uuid.clone().unwrap_or_default(), model: gpu.name.clone() }
    }

    fn labels(&self, reading: &SensorReading) -> Vec<(&'static str, String)> {
        let index = reading.nvml_index.unwrap_or(self.index);
        vec![
            ("gpu", index.to_string()),
            ("UUID", self.uuid.clone()),
            ("device", format!("nvidia{index}")),
            ("modelName", self.model.clone()),
        ]
    }
}

/// What a reading says, each metric that its sensors answered.
pub fn families(gpu: &GpuName, reading: &SensorReading) -> Vec<Family> {
    let labels = gpu.labels(reading);
    let whole = |value: Option<u64>| value.map(|value| value as f64);
    // Ours are percent, DCGM's are ratios.
    let ratio = |value: Option<f64>| value.map(|percent| percent / 100.0);
    let activity = reading.activity.unwrap_or_default();
    let values: [(&'static Metric, Option<f64>); 9] = [
        (&metrics::SM_CLOCK, whole(reading.sm_clock_mhz)),
        (&metrics::MEMORY_CLOCK, whole(reading.memory_clock_mhz)),
        (&metrics::TEMPERATURE, whole(reading.temperature_c)),
        (&metrics::POWER, reading.power_w),
        (&metrics::REASONS, whole(reading.clock_event_reasons)),
        (&metrics::SM_ACTIVE, ratio(activity.sm_active)),
        (&metrics::SM_OCCUPANCY, ratio(activity.sm_occupancy)),
        (&metrics::TENSOR_ACTIVE, ratio(activity.tensor_active)),
        (&metrics::DRAM_ACTIVE, ratio(activity.dram_active)),
    ];
    let family = |(metric, value): (&'static Metric, Option<f64>)| {
        let samples = value.map(|value| Sample { suffix: "", labels: labels.clone(), value });
        Family { metric, samples: samples.into_iter().collect() }
    };
    let mut families: Vec<Family> = values.into_iter().map(family).collect();
    families.extend(reading.clock_event_reasons.map(|bits| throttling(&labels, bits)));
    families
}

fn throttling(labels: &[(&'static str, String)], bits: u64) -> Family {
    let seen = reasons::names(bits);
    let sample = |reason: &'static str| {
        let mut labels = labels.to_vec();
        labels.retain(|(name, _)| metrics::THROTTLING.labels.contains(name));
        labels.push(("reason", reason.to_string()));
        Sample { suffix: "", labels, value: f64::from(u8::from(seen.iter().any(|name| name == reason))) }
    };
    Family { metric: &metrics::THROTTLING, samples: reasons::throttling().map(sample).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::nvml::gpm::GpmActivity;
    use crate::monitor::text::{Format, write};

    fn gpu() -> GpuName {
        GpuName { index: 0, uuid: "GPU-1".into(), model: "NVIDIA H200".into() }
    }

    #[test]
    fn a_reading_has_dcgms_names_labels_and_units() {
        let reading = SensorReading {
            nvml_index: Some(3),
            sm_clock_mhz: Some(1980),
            power_w: Some(431.5),
            clock_event_reasons: Some(0x44),
            activity: GpmActivity::from_values([Some(25.0), None, None, None]),
            ..SensorReading::default()
        };
        let text = write(&families(&gpu(), &reading), Format::Text);
        let labels = "gpu=\"3\",UUID=\"GPU-1\",device=\"nvidia3\",modelName=\"NVIDIA H200\"";
        let own = "gpu=\"3\",UUID=\"GPU-1\",device=\"nvidia3\"";
        for line in [
            format!("DCGM_FI_DEV_SM_CLOCK{{{labels}}} 1980\n"),
            format!("DCGM_FI_DEV_POWER_USAGE{{{labels}}} 431.5\n"),
            format!("DCGM_FI_DEV_CLOCKS_EVENT_REASONS{{{labels}}} 68\n"),
            format!("DCGM_FI_PROF_SM_ACTIVE{{{labels}}} 0.25\n"),
            format!("bubblebench_gpu_throttling{{{own},reason=\"sw-power-cap\"}} 1\n"),
            format!("bubblebench_gpu_throttling{{{own},reason=\"hw-slowdown\"}} 0\n"),
        ] {
            assert!(text.contains(&line), "no {line} in\n{text}");
        }
        assert!(
            !text.contains("GPU_TEMP") && !text.contains("OCCUPANCY"),
            "what no sensor answered is not there:\n{text}"
        );
    }

    #[test]
    fn a_silent_gpu_has_no_lines() {
        assert_eq!(write(&families(&gpu(), &SensorReading::default()), Format::Text), "");
    }
}
