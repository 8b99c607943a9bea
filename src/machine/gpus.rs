//! The GPUs as the CUDA driver describes them. No context is made: looking costs no device memory.

use super::{driver_error, nvml, symbols};
use crate::records::machine::Gpu;
use crate::{Error, Result};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute};
use cudarc::driver::{CudaContext, DriverError, result};
use std::sync::OnceLock;

/// The name of the software device of tests: it computes right and its times mean nothing.
pub const SOFTWARE_DEVICE: &str = "softgpu";

/// True where the loader finds the driver's library. Everything else in cudarc panics without it: ask first.
pub fn driver_present() -> bool {
    // SAFETY: opens and closes the library, nothing else.
    unsafe { sys::is_culib_present() }
}

/// Fails with the cure where there is no driver, or one that lacks a function this program calls.
pub fn require_driver() -> Result<()> {
    if !driver_present() {
        return Err(Error::machine(
            "no CUDA driver: libcuda.so.1 is not on the loader's path",
            "install the NVIDIA driver (580 or later), or use --device host",
        ));
    }
    static MISSING: OnceLock<Option<&str>> = OnceLock::new();
    match *MISSING.get_or_init(symbols::missing) {
        None => Ok(()),
        Some(name) => Err(Error::machine(
            format!("the CUDA driver (libcuda.so.1) has no function {name}: it is older than CUDA 13.0, or incomplete"),
            "update the NVIDIA driver (580 or later), or use --device host",
        )),
    }
}

/// Every GPU the driver shows, in its order; an error where there is no driver, no GPU, or the driver fails.
pub fn list() -> Result<Vec<Gpu>> {
    require_driver()?;
    let wrap = |e: DriverError| match e.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => no_device(),
        _ => driver_error("cannot ask the CUDA driver for its devices", e),
    };
    let count = CudaContext::device_count().map_err(wrap)?;
    if count == 0 {
        return Err(no_device());
    }
    (0..count)
        .map(|index| describe(index).map_err(|e| driver_error(format!("cannot describe GPU {index}"), e)))
        .collect()
}

fn no_device() -> Error {
    Error::machine(
        "the CUDA driver is there but shows no GPU",
        "check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device host",
    )
}

fn describe(index: i32) -> std::result::Result<Gpu, DriverError> {
    let device = result::device::get(index)?;
    let attribute = |which| {
        // SAFETY: the device was returned by the driver just now.
        unsafe { result::device::get_attribute(device, which) }.map(|value| u64::try_from(value).unwrap_or(0))
    };
    let optional = |which| attribute(which).ok().filter(|&value| value > 0);
    let (major, minor) = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    Ok(Gpu {
        index: u64::try_from(index).unwrap_or(0),
        name: result::device::get_name(device)?,
        uuid: result::device::get_uuid(device).ok().map(|uuid| uuid_text(&uuid.bytes.map(|b| b as u8))),
        compute_capability: format!("{major}.{minor}"),
        sms: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        // SAFETY: as above.
        memory_bytes: unsafe { result::device::total_mem(device) }? as u64,
        l2_bytes: attribute(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)?,
        sm_clock_max_mhz: optional(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE).map(|khz| khz / 1000),
        memory_clock_max_mhz: optional(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE).map(|khz| khz / 1000),
        // The rest is NVML's to tell: `with_state`.
        ..Gpu::default()
    })
}

/// Adds to the GPUs what NVML tells of them (clocks, limits, modes), and describes the connection of each pair in a
/// line.
pub fn with_state(mut gpus: Vec<Gpu>) -> (Vec<Gpu>, Vec<String>) {
    if gpus.is_empty() {
        return (gpus, Vec::new());
    }
    let examined = nvml::examine(gpus.iter().map(|gpu| gpu.uuid.clone()).collect()).unwrap_or_default();
    for (gpu, state) in gpus.iter_mut().zip(examined.gpus) {
        if let Some(state) = state {
            add_state(gpu, state);
        }
    }
    let lines = topology(gpus.len(), &examined.links);
    (gpus, lines)
}

fn add_state(gpu: &mut Gpu, state: nvml::GpuState) {
    gpu.sm_clock_mhz = state.sm_clock_mhz;
    gpu.sm_clock_max_mhz = state.sm_clock_max_mhz.or(gpu.sm_clock_max_mhz);
    gpu.sm_clock_application_mhz = state.sm_clock_application_mhz;
    gpu.memory_clock_mhz = state.memory_clock_mhz;
    gpu.memory_clock_max_mhz = state.memory_clock_max_mhz.or(gpu.memory_clock_max_mhz);
    gpu.memory_clock_application_mhz = state.memory_clock_application_mhz;
    gpu.power_limit_w = state.power_limit_w;
    gpu.ecc = state.ecc;
    gpu.mig = state.mig;
    gpu.persistence = state.persistence;
    gpu.compute_mode = state.compute_mode;
    gpu.nvlinks = state.nvlinks;
}

/// The UUID of the GPU with this CUDA ordinal, for NVML, whose numbers CUDA_VISIBLE_DEVICES leaves alone; `None` where
/// there is no such GPU.
pub fn uuid(ordinal: u32) -> Option<String> {
    if !driver_present() {
        return None;
    }
    CudaContext::device_count().ok()?; // starts the driver
    let device = result::device::get(i32::try_from(ordinal).ok()?).ok()?;
    result::device::get_uuid(device).ok().map(|uuid| uuid_text(&uuid.bytes.map(|b| b as u8)))
}

/// `GPU-xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`, as nvidia-smi writes it.
fn uuid_text(bytes: &[u8; 16]) -> String {
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("GPU-{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The newest CUDA version that the driver runs, such as `13.0`; `None` without a driver.
pub fn driver_cuda_version() -> Option<String> {
    if !driver_present() || !symbols::has("cuDriverGetVersion") {
        return None;
    }
    let mut version = 0;
    // SAFETY: writes one int; the library is there.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().ok()?;
    Some(format!("{}.{}", version / 1000, version % 1000 / 10))
}

/// Which pairs of the first `count` GPUs reach each other's memory, how well the driver ranks the link (0 is best), and
/// what it is, where NVML told: `links` are of the same pairs.
fn topology(count: usize, links: &[nvml::GpuLink]) -> Vec<String> {
    use sys::CUdevice_P2PAttribute_enum as P2p;
    let ask = |which, from: i32, to: i32| -> Option<i32> {
        let (from, to) = (result::device::get(from).ok()?, result::device::get(to).ok()?);
        let mut value = 0;
        // SAFETY: both devices were returned by the driver; writes one int.
        unsafe { sys::cuDeviceGetP2PAttribute(&mut value, which, from, to) }.result().ok()?;
        Some(value)
    };
    let count = i32::try_from(count).unwrap_or(0);
    let pairs = (0..count).flat_map(|from| (from + 1..count).map(move |to| (from, to)));
    let line = |(number, (from, to))| {
        let access = ask(P2p::CU_DEVICE_P2P_ATTRIBUTE_ACCESS_SUPPORTED, from, to);
        let rank = ask(P2p::CU_DEVICE_P2P_ATTRIBUTE_PERFORMANCE_RANK, from, to);
        let reach = match (access, rank) {
            (Some(1), Some(rank)) => format!("peer access, rank {rank}"),
            (Some(1), None) => "peer access".to_string(),
            (Some(_), _) => "no peer access".to_string(),
            (None, _) => "unknown".to_string(),
        };
        let link = links.get::<usize>(number).map(nvml::GpuLink::to_string).filter(|text| !text.is_empty());
        let link = link.map(|text| format!(", {text}")).unwrap_or_default();
        format!("GPU {from} - GPU {to}: {reach}{link}")
    };
    pairs.enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_gpu_is_an_error_with_a_cure() {
        if let Err(error) = list() {
            let text = error.to_string();
            assert!(text.contains("--device host") && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn uuids_read_as_nvidia_smi_writes_them() {
        let bytes: [u8; 16] = std::array::from_fn(|i| i as u8);
        assert_eq!(uuid_text(&bytes), "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
    }
}
