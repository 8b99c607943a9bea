//! NVML, the library beside the driver that tells how a GPU is doing: clocks, power, temperature, throttling, ECC, MIG,
//! links, processes, activity. Loaded at run time; read only, nothing on the machine is ever set.
//!
//! `machine::{gpus, doctor}` ask once ([`examine`], `links`), `machine::telemetry` ten times a second. Every answer may
//! be missing: a board without the sensor, a driver without the function, a container without the right. Missing is
//! `None`, never an error. A query can also hang (a GPU that fell off the bus), so nothing here is called on a thread that
//! measures: `within` and the telemetry thread see to that. Devices are found by UUID, because CUDA_VISIBLE_DEVICES
//! reorders CUDA's ordinals and does not touch NVML's.

mod api;
mod device;
pub mod gpm;
mod links;
mod processes;
pub mod reasons;

pub use device::{GpuState, NvmlDevice};
pub use links::GpuLink;
pub use processes::{Process, others};

use super::libraries;
use api::{Api, SUCCESS};
use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{OnceLock, mpsc};
use std::thread;
use std::time::Duration;

/// A driver without persistence mode wakes every GPU first: seconds. Longer than this is no answer.
const PATIENCE: Duration = Duration::from_secs(20);

/// NVML's library, initialised. It is never shut down and never unloaded: a thread may hang inside it for as long as
/// the process lives.
pub struct Nvml {
    api: Api,
    path: PathBuf,
    _library: libloading::Library,
}

impl Nvml {
    /// The machine's own library, loaded on the first call; an error says why there is none. The call may wait or hang,
    /// so a thread that measures must not make it.
    pub fn shared() -> Result<&'static Nvml, &'static str> {
        static SHARED: OnceLock<Result<Nvml, String>> = OnceLock::new();
        let found = || match libraries::open_nvml() {
            Some((library, path)) => Nvml::start(library, path),
            None => Err("libnvidia-ml.so.1 is not on the loader's path".to_string()),
        };
        SHARED.get_or_init(found).as_ref().map_err(String::as_str)
    }

    /// Loads and initialises the library at `path` instead of the machine's own, for tests; an error says why it
    /// cannot.
    pub fn open(path: &Path) -> Result<&'static Nvml, String> {
        // SAFETY: the library's initialisers ask nothing of us.
        let library = unsafe { libloading::Library::new(path) }.map_err(|e| e.to_string())?;
        Nvml::start(library, path.to_path_buf()).map(|nvml| &*Box::leak(Box::new(nvml)))
    }

    fn start(library: libloading::Library, path: PathBuf) -> Result<Nvml, String> {
        let api = Api::of(&library);
        let init = api.init.ok_or_else(|| format!("{} does not export nvmlInit_v2", path.display()))?;
        // SAFETY: takes nothing; the library is loaded.
        match unsafe { init() } {
            SUCCESS => Ok(Nvml { api, path, _library: library }),
            code => Err(format!("{} does not start: {}", path.display(), error_name(code))),
        }
    }

    /// The path that the library was loaded from; the bare file name where the loader found it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The driver's release, such as `580.65.06`; `None` where NVML does not tell.
    pub fn driver_version(&self) -> Option<String> {
        let mut text = [0 as c_char; 96];
        // SAFETY: the buffer is as long as it is told, and zeroed.
        let code = unsafe { self.api.driver_version?(text.as_mut_ptr(), text.len() as u32) };
        (code == SUCCESS).then(|| text_of(&text)).flatten()
    }

    /// The number of GPUs of this machine, whatever CUDA_VISIBLE_DEVICES says; `None` where NVML does not tell.
    pub fn count(&self) -> Option<u32> {
        let mut count = 0;
        // SAFETY: writes one unsigned int.
        let code = unsafe { self.api.count?(&mut count) };
        (code == SUCCESS).then_some(count)
    }

    /// The GPU with this UUID (`GPU-…`, as `machine::gpus` writes it); `None` where NVML does not know it. The driver
    /// gives a MIG instance a UUID of its own: the answer is then the GPU that holds it, because the sensors are the
    /// GPU's.
    pub fn device(&'static self, uuid: &str) -> Option<NvmlDevice> {
        if let Some(device) = self.handle(uuid) {
            return Some(device);
        }
        let instance = self.handle(&uuid.replacen("GPU-", "MIG-", 1))?;
        let parent = instance.ask(self.api.mig_parent, std::ptr::null_mut())?;
        (!parent.is_null()).then(|| NvmlDevice::new(self, parent))
    }

    fn handle(&'static self, uuid: &str) -> Option<NvmlDevice> {
        let text = CString::new(uuid).ok()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: a NUL-terminated string and room for one handle.
        let code = unsafe { self.api.by_uuid?(text.as_ptr(), &mut handle) };
        (code == SUCCESS && !handle.is_null()).then(|| NvmlDevice::new(self, handle))
    }
}

/// What one look at the machine's GPUs gave.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Examined {
    /// The state of each GPU, in the order asked for; `None` where NVML does not know the GPU.
    pub gpus: Vec<Option<GpuState>>,
    /// The connection of every pair `i < j` of these GPUs, in the order (0, 1), (0, 2), …, (1, 2), …
    pub links: Vec<GpuLink>,
    /// The number of GPUs of the machine, those not asked for included; `None` where NVML does not tell.
    pub count: Option<u32>,
}

/// The state and connections of the GPUs with these UUIDs (`None` where a UUID is not known); an error says why there
/// is no answer. Waits at most 20 s.
pub fn examine(uuids: Vec<Option<String>>) -> Result<Examined, String> {
    let look = move || Nvml::shared().map(|nvml| nvml.examine(&uuids)).map_err(String::from);
    within(PATIENCE, look).unwrap_or_else(|| Err(format!("NVML did not answer within {} s", PATIENCE.as_secs())))
}

/// The library's path and the driver's release; an error says why there is no answer. Waits at most 20 s.
pub fn version() -> Result<(PathBuf, Option<String>), String> {
    let look = || Nvml::shared().map(|nvml| (nvml.path.clone(), nvml.driver_version())).map_err(String::from);
    within(PATIENCE, look).unwrap_or_else(|| Err(format!("NVML did not answer within {} s", PATIENCE.as_secs())))
}

impl Nvml {
    /// The state and connections of the GPUs with these UUIDs, asked on the calling thread, which may hang.
    pub fn examine(&'static self, uuids: &[Option<String>]) -> Examined {
        let devices: Vec<Option<NvmlDevice>> = uuids.iter().map(|uuid| self.device(uuid.as_deref()?)).collect();
        let pair = |i: usize, j: usize| match (&devices[i], &devices[j]) {
            (Some(a), Some(b)) => a.link_to(b),
            _ => GpuLink::default(),
        };
        let count = devices.len();
        Examined {
            gpus: devices.iter().map(|device| device.as_ref().map(NvmlDevice::state)).collect(),
            links: (0..count).flat_map(|i| (i + 1..count).map(move |j| (i, j))).map(|(i, j)| pair(i, j)).collect(),
            count: self.count(),
        }
    }
}

/// A question went unanswered: every further one would hang on the same lock, and cost the same wait.
static SILENT: AtomicBool = AtomicBool::new(false);

/// Whether NVML has hung once in this process; it is not asked again then.
pub fn is_silent() -> bool {
    SILENT.load(Ordering::Relaxed)
}

/// Asks on a thread of its own and waits so long at most.
fn within<T: Send + 'static>(limit: Duration, question: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    if is_silent() {
        return None;
    }
    let answer = answered(limit, question);
    SILENT.store(answer.is_none(), Ordering::Relaxed);
    answer
}

fn answered<T: Send + 'static>(limit: Duration, question: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = mpsc::channel();
    let ask = move || {
        // Nobody waits any more: then nobody misses it.
        let _ = sender.send(question());
    };
    thread::Builder::new().name("nvml".into()).spawn(ask).ok()?;
    receiver.recv_timeout(limit).ok()
}

/// A text that NVML wrote into a fixed array.
fn text_of(text: &[c_char]) -> Option<String> {
    let bytes: Vec<u8> = text.iter().map(|&c| c as u8).collect();
    let text = CStr::from_bytes_until_nul(&bytes).ok()?.to_string_lossy().into_owned();
    (!text.is_empty()).then_some(text)
}

fn error_name(code: api::Code) -> String {
    let name = match code {
        1 => "not initialised",
        3 => "not supported",
        4 => "no permission",
        9 => "the kernel module is not loaded",
        15 => "a GPU has fallen off the bus",
        18 => "library and kernel module are of different releases (reboot, or reinstall the driver)",
        _ => return format!("NVML error {code}"),
    };
    name.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_or_is_none_is_a_reason() {
        assert!(Nvml::open(Path::new("/no/such/libnvidia-ml.so.1")).is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Nvml::open(file.path()).is_err());
    }

    #[test]
    fn a_question_that_hangs_is_given_up() {
        assert_eq!(answered(Duration::from_secs(10), || 7), Some(7));
        let (keep, wait) = mpsc::channel::<()>();
        assert_eq!(answered(Duration::from_millis(20), move || wait.recv().is_ok()), None);
        drop(keep);
        assert_eq!(answered(Duration::from_secs(10), || panic!("inside")), None::<()>);
    }

    #[test]
    fn errors_are_sentences() {
        assert!(error_name(18).contains("reboot") && error_name(999).contains("999"));
    }
}
