//! The few functions of NVML that are called here, bound by hand: each is looked up by name, and one that the driver at
//! hand does not export is `None`. Layouts and numbers are facts of NVIDIA's nvml.h; the software library in
//! tests/softgpu/cpp/nvml.cpp checks them.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

pub type Code = c_int;
pub type Handle = *mut c_void;

pub const SUCCESS: Code = 0;
pub const INVALID_ARGUMENT: Code = 2;
pub const INSUFFICIENT_SIZE: Code = 7;

pub const CLOCK_SM: c_uint = 1;
pub const CLOCK_MEMORY: c_uint = 2;
pub const SENSOR_GPU: c_uint = 0;
pub const ECC_CORRECTED: c_uint = 0;
pub const ECC_UNCORRECTED: c_uint = 1;
/// Since the driver was loaded.
pub const ECC_VOLATILE: c_uint = 0;
pub const P2P_NVLINK: c_uint = 2;
pub const P2P_OK: c_uint = 0;

/// `nvmlProcessInfo_v2_t`, which the functions of version 2 and 3 fill.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct ProcessInfo {
    pub pid: c_uint,
    pub used_bytes: c_ulonglong,
    pub gpu_instance: c_uint,
    pub compute_instance: c_uint,
}

/// `nvmlProcessInfo_v1_t`
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct ProcessV1 {
    pub pid: c_uint,
    pub used_bytes: c_ulonglong,
}

/// `nvmlPciInfo_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Pci {
    pub bus_id_legacy: [c_char; 16],
    pub domain: c_uint,
    pub bus: c_uint,
    pub device: c_uint,
    pub device_id: c_uint,
    pub subsystem_id: c_uint,
    pub bus_id: [c_char; 32],
}

/// `nvmlGpmSupport_t`, version 1.
#[repr(C)]
pub struct GpmSupport {
    pub version: c_uint,
    pub is_supported: c_uint,
}

/// `nvmlGpmMetric_t`
#[repr(C)]
#[derive(Clone, Copy)]
pub struct GpmMetric {
    pub id: c_uint,
    pub code: Code,
    pub value: f64,
    pub names: [*const c_char; 3],
}

/// Metrics of a request: the header's own number grows (98, then 210, 333, 477); no library touches more than `count`.
pub const GPM_METRICS: usize = 512;

/// `nvmlGpmMetricsGet_t`, version 1.
#[repr(C)]
pub struct GpmRequest {
    pub version: c_uint,
    pub count: c_uint,
    pub sample1: *mut c_void,
    pub sample2: *mut c_void,
    pub metrics: [GpmMetric; GPM_METRICS],
}

pub type Get<T> = unsafe extern "C" fn(Handle, *mut T) -> Code;
pub type GetBy<T> = unsafe extern "C" fn(Handle, c_uint, *mut T) -> Code;
pub type GetTwo = unsafe extern "C" fn(Handle, *mut c_uint, *mut c_uint) -> Code;
pub type List<T> = unsafe extern "C" fn(Handle, *mut c_uint, *mut T) -> Code;

macro_rules! api {
    ($($(#[$doc:meta])* $field:ident: $kind:ty = $($name:literal)|+;)*) => {
        pub struct Api {
            $($(#[$doc])* pub $field: Option<$kind>,)*
        }

        impl Api {
            pub fn of(library: &libloading::Library) -> Api {
                Api {
                    $($field: [$(concat!($name, "\0")),+].into_iter().find_map(|name| {
                        // SAFETY: the type is the function's own, from nvml.h; the library is never unloaded.
                        unsafe { library.get::<$kind>(name.as_bytes()) }.ok().map(|symbol| *symbol)
                    }),)*
                }
            }
        }
    };
}

api! {
    init: unsafe extern "C" fn() -> Code = "nvmlInit_v2";
    driver_version: unsafe extern "C" fn(*mut c_char, c_uint) -> Code = "nvmlSystemGetDriverVersion";
    count: unsafe extern "C" fn(*mut c_uint) -> Code = "nvmlDeviceGetCount_v2";
    by_uuid: unsafe extern "C" fn(*const c_char, *mut Handle) -> Code = "nvmlDeviceGetHandleByUUID";
    index: Get<c_uint> = "nvmlDeviceGetIndex";
    mig_parent: Get<Handle> = "nvmlDeviceGetDeviceHandleFromMigDeviceHandle";
    pci: Get<Pci> = "nvmlDeviceGetPciInfo_v3";
    clock: GetBy<c_uint> = "nvmlDeviceGetClockInfo";
    clock_max: GetBy<c_uint> = "nvmlDeviceGetMaxClockInfo";
    clock_application: GetBy<c_uint> = "nvmlDeviceGetApplicationsClock";
    power: Get<c_uint> = "nvmlDeviceGetPowerUsage";
    power_limit: Get<c_uint> = "nvmlDeviceGetEnforcedPowerLimit" | "nvmlDeviceGetPowerManagementLimit";
    energy: Get<c_ulonglong> = "nvmlDeviceGetTotalEnergyConsumption";
    temperature: GetBy<c_uint> = "nvmlDeviceGetTemperature";
    /// The same bits under two names: events since driver 535, throttling before.
    clock_reasons: Get<c_ulonglong> = "nvmlDeviceGetCurrentClocksEventReasons" | "nvmlDeviceGetCurrentClocksThrottleReasons";
    ecc_mode: GetTwo = "nvmlDeviceGetEccMode";
    ecc_errors: unsafe extern "C" fn(Handle, c_uint, c_uint, *mut c_ulonglong) -> Code = "nvmlDeviceGetTotalEccErrors";
    persistence: Get<c_uint> = "nvmlDeviceGetPersistenceMode";
    compute_mode: Get<c_uint> = "nvmlDeviceGetComputeMode";
    mig_mode: GetTwo = "nvmlDeviceGetMigMode";
    link_state: GetBy<c_uint> = "nvmlDeviceGetNvLinkState";
    link_remote: GetBy<Pci> = "nvmlDeviceGetNvLinkRemotePciInfo_v2";
    ancestor: unsafe extern "C" fn(Handle, Handle, *mut c_uint) -> Code = "nvmlDeviceGetTopologyCommonAncestor";
    p2p: unsafe extern "C" fn(Handle, Handle, c_uint, *mut c_uint) -> Code = "nvmlDeviceGetP2PStatus";
    processes: List<ProcessInfo> = "nvmlDeviceGetComputeRunningProcesses_v3" | "nvmlDeviceGetComputeRunningProcesses_v2";
    processes_v1: List<ProcessV1> = "nvmlDeviceGetComputeRunningProcesses";
    gpm_support: Get<GpmSupport> = "nvmlGpmQueryDeviceSupport";
    gpm_alloc: unsafe extern "C" fn(*mut *mut c_void) -> Code = "nvmlGpmSampleAlloc";
    gpm_free: unsafe extern "C" fn(*mut c_void) -> Code = "nvmlGpmSampleFree";
    gpm_sample: unsafe extern "C" fn(Handle, *mut c_void) -> Code = "nvmlGpmSampleGet";
    gpm_metrics: unsafe extern "C" fn(*mut GpmRequest) -> Code = "nvmlGpmMetricsGet";
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a C compiler makes of nvml.h on a 64-bit machine.
    #[test]
    fn layouts_are_nvmls() {
        assert_eq!((size_of::<ProcessInfo>(), size_of::<ProcessV1>(), size_of::<Pci>()), (24, 16, 68));
        assert_eq!((size_of::<GpmMetric>(), std::mem::offset_of!(GpmRequest, metrics)), (40, 24));
        assert_eq!(std::mem::offset_of!(GpmMetric, value), 8);
        assert_eq!(std::mem::offset_of!(Pci, bus_id), 36);
        assert_eq!(std::mem::offset_of!(ProcessInfo, gpu_instance), 16);
    }
}
