//! One GPU: every query that takes a handle and gives a number.

use super::Nvml;
use super::api::{self, Get, GetBy, GetTwo, Handle, SUCCESS};
use super::processes::Process;
use super::{gpm, reasons};
use schemars::JsonSchema;
use serde::Serialize;
use std::ffi::{c_uint, c_ulonglong};

/// How a GPU is doing. A field is null where the board, the driver or the rights give no answer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, JsonSchema)]
pub struct GpuState {
    /// The SM clock at this moment, in MHz.
    pub sm_clock_mhz: Option<u64>,
    /// The highest SM clock of the board, in MHz.
    pub sm_clock_max_mhz: Option<u64>,
    /// The SM clock for applications, in MHz, which an administrator can set (`nvidia-smi -ac`).
    pub sm_clock_application_mhz: Option<u64>,
    /// The memory clock at this moment, in MHz.
    pub memory_clock_mhz: Option<u64>,
    /// The highest memory clock of the board, in MHz.
    pub memory_clock_max_mhz: Option<u64>,
    /// The memory clock for applications, in MHz, which an administrator can set (`nvidia-smi -ac`).
    pub memory_clock_application_mhz: Option<u64>,
    /// The board's power draw in watts, on most boards the mean of the last second.
    pub power_w: Option<f64>,
    /// The power limit that is enforced, in watts.
    pub power_limit_w: Option<f64>,
    /// The GPU's temperature, in °C.
    pub temperature_c: Option<u64>,
    /// Why the clock is below the one asked for, by name; empty where it is not.
    pub clock_event_reasons: Option<Vec<String>>,
    /// Whether the memory's error correction (ECC) is on now, whatever is set for after the next reboot.
    pub ecc: Option<bool>,
    /// Memory errors that ECC corrected since the driver was loaded.
    pub ecc_corrected: Option<u64>,
    /// Memory errors that ECC could not correct since the driver was loaded.
    pub ecc_uncorrected: Option<u64>,
    /// Whether persistence mode is on: the driver then keeps the GPU awake while nobody uses it.
    pub persistence: Option<bool>,
    /// Which processes may compute on the GPU: `default`, `prohibited` or `exclusive-process`.
    pub compute_mode: Option<String>,
    /// Whether the GPU is divided into instances (MIG) now, whatever is set for after the next reboot.
    pub mig: Option<bool>,
    /// The number of NVLinks that are up; null where no link answers.
    pub nvlinks: Option<u64>,
    /// Whether the activity counters (GPM, Hopper and later) can be sampled here.
    pub gpm: bool,
    /// The processes that compute on the GPU, this one and its children left out.
    pub other_processes: Option<Vec<Process>>,
}

/// One GPU as NVML knows it; a query is `None` where the board, the driver or the rights give no answer.
#[derive(Clone, Copy)]
pub struct NvmlDevice {
    pub(super) nvml: &'static Nvml,
    pub(super) handle: Handle,
}

// SAFETY: NVML is safe to call from any thread, and a handle is a name, not memory of ours.
unsafe impl Send for NvmlDevice {}
// SAFETY: as above.
unsafe impl Sync for NvmlDevice {}

impl NvmlDevice {
    pub(super) fn new(nvml: &'static Nvml, handle: Handle) -> Self {
        NvmlDevice { nvml, handle }
    }

    /// What a function writes over `value`, where it is exported and succeeds.
    pub(super) fn ask<T>(&self, function: Option<Get<T>>, mut value: T) -> Option<T> {
        // SAFETY: the handle is NVML's own; the function writes one value of the type in nvml.h.
        let code = unsafe { function?(self.handle, &mut value) };
        (code == SUCCESS).then_some(value)
    }

    fn ask_by(&self, function: Option<GetBy<c_uint>>, which: c_uint) -> Option<u64> {
        let mut value = 0;
        // SAFETY: as in `ask`; `which` is a number of nvml.h's enumeration.
        let code = unsafe { function?(self.handle, which, &mut value) };
        (code == SUCCESS).then_some(u64::from(value))
    }

    /// Of a mode now and a mode after the next reboot, the one now.
    fn mode(&self, function: Option<GetTwo>) -> Option<bool> {
        let (mut now, mut pending) = (0, 0);
        // SAFETY: as in `ask`, two values.
        let code = unsafe { function?(self.handle, &mut now, &mut pending) };
        (code == SUCCESS).then_some(now == 1)
    }

    /// The GPU's number in NVML's order, which is nvidia-smi's and DCGM's and not always CUDA's; `None` where NVML does
    /// not tell.
    pub fn index(&self) -> Option<u64> {
        self.ask(self.nvml.api.index, 0).map(u64::from)
    }

    /// The SM clock at this moment, in MHz; `None` where NVML does not tell.
    pub fn sm_clock_mhz(&self) -> Option<u64> {
        self.ask_by(self.nvml.api.clock, api::CLOCK_SM)
    }

    /// The memory clock at this moment, in MHz; `None` where NVML does not tell.
    pub fn memory_clock_mhz(&self) -> Option<u64> {
        self.ask_by(self.nvml.api.clock, api::CLOCK_MEMORY)
    }

    /// The board's power draw in watts, on most boards the mean of the last second; `None` where NVML does not tell.
    pub fn power_w(&self) -> Option<f64> {
        self.ask(self.nvml.api.power, 0).map(|milliwatts| f64::from(milliwatts) / 1000.0)
    }

    /// The energy used since the driver was loaded, in millijoules; `None` before Volta and where NVML does not tell.
    pub fn energy_mj(&self) -> Option<u64> {
        self.ask(self.nvml.api.energy, 0)
    }

    /// The GPU's temperature in °C; `None` where NVML does not tell.
    pub fn temperature_c(&self) -> Option<u64> {
        self.ask_by(self.nvml.api.temperature, api::SENSOR_GPU)
    }

    /// Why the clock is below the one asked for, as NVML's bits, whose names are [`reasons::names`]; `None` where NVML
    /// does not tell.
    pub fn clock_event_reasons(&self) -> Option<u64> {
        self.ask(self.nvml.api.clock_reasons, 0)
    }

    /// Memory errors since the driver was loaded, those that ECC corrected and those it could not; `None` where NVML
    /// does not tell.
    pub fn ecc_errors(&self) -> (Option<u64>, Option<u64>) {
        let count = |kind| {
            let mut errors: c_ulonglong = 0;
            // SAFETY: as in `ask`; both numbers are of nvml.h's enumerations.
            let code = unsafe { self.nvml.api.ecc_errors?(self.handle, kind, api::ECC_VOLATILE, &mut errors) };
            (code == SUCCESS).then_some(errors)
        };
        (count(api::ECC_CORRECTED), count(api::ECC_UNCORRECTED))
    }

    fn compute_mode(&self) -> Option<String> {
        let name = match self.ask(self.nvml.api.compute_mode, 0)? {
            0 => "default",
            2 => "prohibited",
            1 | 3 => "exclusive-process",
            _ => return None,
        };
        Some(name.to_string())
    }

    /// Asks everything of [`GpuState`] at once: some thirty queries.
    pub fn state(&self) -> GpuState {
        let api = &self.nvml.api;
        let (ecc_corrected, ecc_uncorrected) = self.ecc_errors();
        GpuState {
            sm_clock_mhz: self.sm_clock_mhz(),
            sm_clock_max_mhz: self.ask_by(api.clock_max, api::CLOCK_SM),
            sm_clock_application_mhz: self.ask_by(api.clock_application, api::CLOCK_SM),
            memory_clock_mhz: self.memory_clock_mhz(),
            memory_clock_max_mhz: self.ask_by(api.clock_max, api::CLOCK_MEMORY),
            memory_clock_application_mhz: self.ask_by(api.clock_application, api::CLOCK_MEMORY),
            power_w: self.power_w(),
            power_limit_w: self.ask(api.power_limit, 0).map(|milliwatts| f64::from(milliwatts) / 1000.0),
            temperature_c: self.temperature_c(),
            clock_event_reasons: self.clock_event_reasons().map(reasons::names),
            ecc: self.mode(api.ecc_mode),
            ecc_corrected,
            ecc_uncorrected,
            persistence: self.ask(api.persistence, 0).map(|on| on == 1),
            compute_mode: self.compute_mode(),
            mig: self.mode(api.mig_mode),
            nvlinks: self.active_links(),
            gpm: gpm::Gpm::open(*self).is_ok(),
            other_processes: self.processes().map(all_others),
        }
    }
}

/// Of a process that computes on no GPU yet: whatever is listed was there before it.
fn all_others(listed: Vec<Process>) -> Vec<Process> {
    let before: Vec<u32> = listed.iter().map(|process| process.pid).collect();
    super::others(&listed, &before)
}
