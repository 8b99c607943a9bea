//! GPM, the activity counters of Hopper and later: two samples, and what happened between them. Needs no daemon. In a
//! container, under MIG or without the right it can be refused although the GPU has it: only a sample tells.

use super::api::{GPM_METRICS, GpmMetric, GpmRequest, GpmSupport, SUCCESS};
use super::device::NvmlDevice;
use std::ffi::c_void;

/// How busy a GPU was between two samples, in percent; `None` where that counter gave no value.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GpmActivity {
    /// SMs that had a warp resident, in percent of all.
    pub sm_active: Option<f64>,
    /// Warps resident, in percent of those that fit.
    pub sm_occupancy: Option<f64>,
    /// Cycles in which a tensor pipe worked, in percent of all.
    pub tensor_active: Option<f64>,
    /// DRAM bandwidth, in percent of its peak.
    pub dram_active: Option<f64>,
}

impl GpmActivity {
    /// Takes SM active, SM occupancy, tensor active and DRAM active, in this order and in percent; `None` where all
    /// four are.
    pub fn from_values(values: [Option<f64>; 4]) -> Option<GpmActivity> {
        let [sm_active, sm_occupancy, tensor_active, dram_active] = values;
        let any = values.iter().any(Option::is_some);
        any.then_some(GpmActivity { sm_active, sm_occupancy, tensor_active, dram_active })
    }
}

/// SM active, occupancy, any tensor pipe, DRAM bandwidth.
const METRICS: [u32; 4] = [2, 3, 5, 10];
const VERSION: u32 = 1;

/// A GPU's GPM counters, sampled in turn into two buffers; used by one thread.
pub struct Gpm {
    device: NvmlDevice,
    samples: [*mut c_void; 2],
    /// The older of the two, once both are taken.
    taken: usize,
    request: Box<GpmRequest>,
}

impl Gpm {
    /// Takes the first sample; an error says why that is not possible, such as a GPU before Hopper or a container
    /// without the right.
    pub fn open(device: NvmlDevice) -> Result<Gpm, &'static str> {
        let api = &device.nvml.api;
        let support = device.ask(api.gpm_support, GpmSupport { version: VERSION, is_supported: 0 });
        let Some(support) = support else { return Err("the driver has no GPM") };
        if support.is_supported != 1 {
            return Err("the GPU has no GPM (Hopper and later do)");
        }
        let blank = GpmMetric { id: 0, code: 0, value: 0.0, names: [std::ptr::null(); 3] };
        let request = GpmRequest {
            version: VERSION,
            count: METRICS.len() as u32,
            sample1: std::ptr::null_mut(),
            sample2: std::ptr::null_mut(),
            metrics: [blank; GPM_METRICS],
        };
        let mut gpm = Gpm { device, samples: [std::ptr::null_mut(); 2], taken: 0, request: Box::new(request) };
        gpm.allocate().ok_or("GPM samples cannot be allocated")?;
        gpm.sample(0).ok_or("GPM refuses to sample here (a container, MIG, or no permission)")?;
        Ok(gpm)
    }

    fn allocate(&mut self) -> Option<()> {
        let alloc = self.device.nvml.api.gpm_alloc?;
        for sample in &mut self.samples {
            // SAFETY: writes one pointer.
            if unsafe { alloc(sample) } != SUCCESS || sample.is_null() {
                return None;
            }
        }
        Some(())
    }

    fn sample(&mut self, which: usize) -> Option<()> {
        // SAFETY: the handle is NVML's, the sample was allocated by it and is not freed before the drop.
        let code = unsafe { self.device.nvml.api.gpm_sample?(self.device.handle, self.samples[which]) };
        (code == SUCCESS).then_some(())
    }

    /// How busy the GPU was since the last call, or since [`Gpm::open`]; `None` where the sample is refused or holds
    /// none of the four.
    pub fn activity(&mut self) -> Option<GpmActivity> {
        let newer = 1 - self.taken;
        self.sample(newer)?;
        let older = std::mem::replace(&mut self.taken, newer);
        (self.request.sample1, self.request.sample2) = (self.samples[older], self.samples[newer]);
        for (metric, id) in self.request.metrics.iter_mut().zip(METRICS) {
            (metric.id, metric.code, metric.value) = (id, SUCCESS, 0.0);
        }
        // SAFETY: a request of version 1 whose array is longer than any header's; both samples are taken.
        let code = unsafe { self.device.nvml.api.gpm_metrics?(&mut *self.request) };
        let value = |i: usize| {
            let metric = &self.request.metrics[i];
            (metric.code == SUCCESS && metric.value.is_finite()).then(|| metric.value.clamp(0.0, 100.0))
        };
        if code == SUCCESS { GpmActivity::from_values(std::array::from_fn(value)) } else { None }
    }
}

impl Drop for Gpm {
    fn drop(&mut self) {
        let Some(free) = self.device.nvml.api.gpm_free else { return };
        for sample in self.samples {
            if !sample.is_null() {
                // SAFETY: allocated by the library, freed once.
                unsafe { free(sample) };
            }
        }
    }
}
