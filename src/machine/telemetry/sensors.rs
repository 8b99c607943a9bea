//! What a reading is made of: NVML's queries of one GPU, and GPM's or DCGM's activity.

use super::summary::SensorReading;
use crate::machine::dcgm::Dcgm;
use crate::machine::nvml::{Nvml, NvmlDevice, gpm::Gpm, gpm::GpmActivity, others};

/// Sensors that can be read ten times a second, by one thread, which may hang inside.
pub trait Sensors {
    /// Takes one reading; with `thorough` also of what changes slowly and costs more to ask. Its times are the
    /// sampler's to fill in.
    fn read(&mut self, thorough: bool) -> SensorReading;
}

/// Where activity comes from: GPM where the GPU has it, else DCGM where it is installed.
enum Counters {
    Gpm(Gpm),
    Dcgm(Dcgm),
    None,
}

/// The sensors of one GPU: NVML's queries, and activity from GPM or else DCGM.
pub struct GpuSensors {
    device: NvmlDevice,
    counters: Counters,
    /// Pids that computed on the GPU before this process did.
    before: Vec<u32>,
    /// What was asked last of what is not asked every time.
    slow: SensorReading,
}

impl GpuSensors {
    /// Opens the sensors of the GPU with this UUID; `None` where NVML does not know it.
    pub fn open(nvml: &'static Nvml, uuid: &str) -> Option<GpuSensors> {
        let device = nvml.device(uuid)?;
        let counters = match Gpm::open(device) {
            Ok(gpm) => Counters::Gpm(gpm),
            Err(_) => Dcgm::open(uuid).map_or(Counters::None, Counters::Dcgm),
        };
        let before = device.processes().unwrap_or_default().iter().map(|process| process.pid).collect();
        let slow = SensorReading { nvml_index: device.index(), ..SensorReading::default() };
        Some(GpuSensors { device, counters, before, slow })
    }

    fn activity(&mut self) -> (Option<GpmActivity>, Option<&'static str>) {
        match &mut self.counters {
            Counters::Gpm(gpm) => (gpm.activity(), Some("gpm")),
            Counters::Dcgm(dcgm) => (dcgm.activity(), Some("dcgm")),
            Counters::None => (None, None),
        }
    }

    fn read_slow(&self) -> SensorReading {
        let (ecc_corrected, ecc_uncorrected) = self.device.ecc_errors();
        let listed = self.device.processes();
        let pids = listed.map(|all| others(&all, &self.before).iter().map(|process| process.pid).collect());
        SensorReading {
            nvml_index: self.slow.nvml_index,
            memory_clock_mhz: self.device.memory_clock_mhz(),
            ecc_corrected,
            ecc_uncorrected,
            other_processes: pids,
            ..SensorReading::default()
        }
    }
}

impl Sensors for GpuSensors {
    fn read(&mut self, thorough: bool) -> SensorReading {
        if thorough {
            self.slow = self.read_slow();
        }
        let (activity, activity_source) = self.activity();
        SensorReading {
            sm_clock_mhz: self.device.sm_clock_mhz(),
            power_w: self.device.power_w(),
            temperature_c: self.device.temperature_c(),
            clock_event_reasons: self.device.clock_event_reasons(),
            activity,
            activity_source,
            // Last: the reading's time is taken right after it.
            energy_mj: self.device.energy_mj(),
            ..self.slow.clone()
        }
    }
}
