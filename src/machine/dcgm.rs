//! DCGM's profiling fields, for GPUs before Hopper that have no GPM: SM active, occupancy, tensor and DRAM active, by
//! field id. Used by `machine::telemetry` where NVIDIA's libdcgm is installed; its absence costs these four numbers only.
//!
//! A running host engine is asked (`nv-hostengine`, 127.0.0.1:5555). `BUBBLEBENCH_DCGM=embedded` starts one inside this
//! process instead, which needs root and puts its threads beside the ones that measure; `off` leaves DCGM alone. Watching a
//! profiling field keeps other profilers (Nsight) off the GPU meanwhile. Facts are those of dcgm_agent.h and
//! dcgm_structs.h of DCGM 3 and 4.

use super::libraries;
use super::nvml::gpm::GpmActivity;
use std::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_ushort};
use std::path::Path;

type Code = c_int;
/// `dcgmHandle_t`, `dcgmGpuGrp_t`, `dcgmFieldGrp_t`
type Handle = usize;

const OK: Code = 0;
const AUTOMATIC: c_int = 1;
const EMPTY_GROUP: c_int = 1;
const MOST_GPUS: usize = 32;
const ENTITY_GPU: c_uint = 1;
const LIVE: c_uint = 1;
const FIELD_UUID: c_ushort = 54;
/// SM active, SM occupancy, tensor active, DRAM active: ratios.
const FIELDS: [c_ushort; 4] = [1002, 1003, 1004, 1005];
/// From here on a number says why there is none.
const BLANK: f64 = 140_737_488_355_328.0;
const EVERY_US: c_longlong = 100_000;
const CONNECT_MS: c_uint = 500;

/// `dcgmConnectV2Params_v2`
#[repr(C)]
struct ConnectParameters {
    version: c_uint,
    persist_after_disconnect: c_uint,
    timeout_ms: c_uint,
    address_is_unix_socket: c_uint,
}

/// `dcgmGroupEntityPair_t`
#[repr(C)]
struct Entity {
    kind: c_uint,
    id: c_uint,
}

/// `dcgmFieldValue_v2`; its value is a number or a text.
#[repr(C)]
#[derive(Clone, Copy)]
struct FieldValue {
    version: c_uint,
    kind: c_uint,
    id: c_uint,
    field: c_ushort,
    field_type: c_ushort,
    status: c_int,
    unused: c_uint,
    at_us: i64,
    value: Value,
}

#[repr(C)]
#[derive(Clone, Copy)]
union Value {
    ratio: f64,
    text: [c_char; 256],
    blob: [u8; 4096],
}

/// A structure's version as DCGM wants it: its size, and the number in the top byte.
const fn version<T>(number: c_uint) -> c_uint {
    size_of::<T>() as c_uint | number << 24
}

macro_rules! api {
    ($($field:ident: fn($($kind:ty),*) = $name:literal;)*) => {
        /// All of it or nothing: DCGM 3 and 4 export every one.
        struct Api {
            $($field: unsafe extern "C" fn($($kind),*) -> Code,)*
        }

        impl Api {
            fn of(library: &libloading::Library) -> Option<Api> {
                // SAFETY: the types are the functions' own, from dcgm_agent.h; a library whose table is
                // used is never unloaded (`Session`).
                unsafe { Some(Api { $($field: *library.get(concat!($name, "\0").as_bytes()).ok()?,)* }) }
            }
        }
    };
}

api! {
    init: fn() = "dcgmInit";
    shutdown: fn() = "dcgmShutdown";
    connect: fn(*const c_char, *mut ConnectParameters, *mut Handle) = "dcgmConnect_v2";
    disconnect: fn(Handle) = "dcgmDisconnect";
    start_embedded: fn(c_int, *mut Handle) = "dcgmStartEmbedded";
    stop_embedded: fn(Handle) = "dcgmStopEmbedded";
    devices: fn(Handle, *mut c_uint, *mut c_int) = "dcgmGetAllDevices";
    group: fn(Handle, c_int, *const c_char, *mut Handle) = "dcgmGroupCreate";
    group_add: fn(Handle, Handle, c_uint) = "dcgmGroupAddDevice";
    group_destroy: fn(Handle, Handle) = "dcgmGroupDestroy";
    fields: fn(Handle, c_int, *const c_ushort, *const c_char, *mut Handle) = "dcgmFieldGroupCreate";
    fields_destroy: fn(Handle, Handle) = "dcgmFieldGroupDestroy";
    watch: fn(Handle, Handle, Handle, c_longlong, f64, c_int) = "dcgmWatchFields";
    unwatch: fn(Handle, Handle, Handle) = "dcgmUnwatchFields";
    latest: fn(Handle, *mut Entity, c_uint, *const c_ushort, c_uint, c_uint, *mut FieldValue) = "dcgmEntitiesGetLatestValues";
}

/// Where the host engine runs, DCGM's service that samples the counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// A service of this machine (`nv-hostengine`) that is asked at 127.0.0.1 on DCGM's default port.
    Running,
    /// An engine started inside this process; it needs root and puts its threads beside the ones that measure.
    Embedded,
}

impl Engine {
    /// The engine that the variable `BUBBLEBENCH_DCGM` asks for: `embedded`, or else a running one; `None` where it
    /// says `off`.
    pub fn chosen() -> Option<Engine> {
        match std::env::var("BUBBLEBENCH_DCGM").as_deref() {
            Ok("off") => None,
            Ok("embedded") => Some(Engine::Embedded),
            _ => Some(Engine::Running),
        }
    }
}

/// DCGM's four profiling fields of one GPU, watched at 10 Hz until the value is dropped.
pub struct Dcgm {
    session: Session,
    gpu: c_uint,
    group: Option<Handle>,
    fields: Option<Handle>,
    values: Box<[FieldValue; FIELDS.len()]>,
}

/// A connection, and the library it goes through: never unloaded, because an engine's threads may still end.
struct Session {
    api: Api,
    engine: Engine,
    handle: Handle,
    _library: std::mem::ManuallyDrop<libloading::Library>,
}

impl Dcgm {
    /// Watches the GPU with this UUID, which takes up to a second; `None` where library, engine or right is missing, or
    /// `BUBBLEBENCH_DCGM` is `off`.
    pub fn open(uuid: &str) -> Option<Dcgm> {
        let engine = Engine::chosen()?;
        let (library, _) = libraries::open_dcgm()?;
        Dcgm::with(library, engine, uuid)
    }

    /// Watches as [`Dcgm::open`] does, through the library at `path` and the given engine; for tests.
    pub fn open_at(path: &Path, engine: Engine, uuid: &str) -> Option<Dcgm> {
        // SAFETY: the library's initialisers ask nothing of us.
        let library = unsafe { libloading::Library::new(path) }.ok()?;
        Dcgm::with(library, engine, uuid)
    }

    fn with(library: libloading::Library, engine: Engine, uuid: &str) -> Option<Dcgm> {
        let session = Session::start(library, engine)?;
        let gpu = session.gpu(uuid)?;
        let values = Box::new([BLANK_VALUE; FIELDS.len()]);
        let mut dcgm = Dcgm { session, gpu, group: None, fields: None, values };
        dcgm.watch()?;
        Some(dcgm)
    }

    fn watch(&mut self) -> Option<()> {
        let (api, handle) = (&self.session.api, self.session.handle);
        let name = c"bubblebench".as_ptr();
        let done = |code: Code| (code == OK).then_some(());
        let (mut group, mut fields) = (0, 0);
        // SAFETY: the handle is the engine's; every pointer is to a value of the type in dcgm_agent.h or to as many
        // fields as are told.
        unsafe {
            done((api.group)(handle, EMPTY_GROUP, name, &mut group))?;
            self.group = Some(group);
            done((api.group_add)(handle, group, self.gpu))?;
            done((api.fields)(handle, FIELDS.len() as c_int, FIELDS.as_ptr(), name, &mut fields))?;
            self.fields = Some(fields);
            done((api.watch)(handle, group, fields, EVERY_US, 10.0, 0))
        }
    }

    /// The engine's newest values, means over its own last 100 ms; `None` where it gives none of the four.
    pub fn activity(&mut self) -> Option<GpmActivity> {
        self.session.latest(self.gpu, &FIELDS, 0, &mut self.values[..])?;
        let value = |id| {
            let field = self.values.iter().find(|value| value.field == id && value.status == OK)?;
            // SAFETY: all these fields are doubles.
            let ratio = unsafe { field.value.ratio };
            (ratio.is_finite() && ratio < BLANK).then(|| (100.0 * ratio).clamp(0.0, 100.0))
        };
        GpmActivity::from_values(FIELDS.map(value))
    }
}

impl Drop for Dcgm {
    fn drop(&mut self) {
        let (api, handle) = (&self.session.api, self.session.handle);
        // SAFETY: the handle is the engine's, the groups are this watch's own.
        unsafe {
            if let (Some(group), Some(fields)) = (self.group, self.fields) {
                (api.unwatch)(handle, group, fields);
            }
            if let Some(fields) = self.fields {
                (api.fields_destroy)(handle, fields);
            }
            if let Some(group) = self.group {
                (api.group_destroy)(handle, group);
            }
        }
    }
}

const BLANK_VALUE: FieldValue = FieldValue {
    version: 0,
    kind: 0,
    id: 0,
    field: 0,
    field_type: 0,
    status: 0,
    unused: 0,
    at_us: 0,
    value: Value { blob: [0; 4096] },
};

impl Session {
    fn start(library: libloading::Library, engine: Engine) -> Option<Session> {
        let api = Api::of(&library)?;
        // SAFETY: takes nothing.
        if unsafe { (api.init)() } != OK {
            return None;
        }
        let mut handle = 0;
        let mut parameters = ConnectParameters {
            version: version::<ConnectParameters>(2),
            persist_after_disconnect: 0,
            timeout_ms: CONNECT_MS,
            address_is_unix_socket: 0,
        };
        // SAFETY: a NUL-terminated address, parameters of version 2, room for one handle.
        let code = unsafe {
            match engine {
                Engine::Running => (api.connect)(c"127.0.0.1".as_ptr(), &mut parameters, &mut handle),
                Engine::Embedded => (api.start_embedded)(AUTOMATIC, &mut handle),
            }
        };
        if code != OK {
            // SAFETY: it was initialised above.
            unsafe { (api.shutdown)() };
            return None;
        }
        Some(Session { api, engine, handle, _library: std::mem::ManuallyDrop::new(library) })
    }

    /// DCGM's number of the GPU with this UUID.
    fn gpu(&self, uuid: &str) -> Option<c_uint> {
        let mut ids = [0; MOST_GPUS];
        let mut count = 0;
        // SAFETY: room for as many GPUs as DCGM knows at most.
        if unsafe { (self.api.devices)(self.handle, ids.as_mut_ptr(), &mut count) } != OK {
            return None;
        }
        let count = usize::try_from(count).unwrap_or(0).min(MOST_GPUS);
        ids[..count].iter().copied().find(|&id| self.uuid(id).as_deref() == Some(uuid))
    }

    fn uuid(&self, gpu: c_uint) -> Option<String> {
        let mut values = Box::new([BLANK_VALUE]);
        self.latest(gpu, &[FIELD_UUID], LIVE, &mut values[..])?;
        if values[0].status != OK {
            return None;
        }
        // SAFETY: this field is a text of at most 256 bytes; the value was zeroed before.
        let text = unsafe { values[0].value.text }.map(|c| c as u8);
        Some(CStr::from_bytes_until_nul(&text).ok()?.to_string_lossy().into_owned())
    }

    fn latest(&self, gpu: c_uint, fields: &[c_ushort], flags: c_uint, values: &mut [FieldValue]) -> Option<()> {
        let mut entity = Entity { kind: ENTITY_GPU, id: gpu };
        let count = fields.len().min(values.len()) as c_uint;
        // SAFETY: one entity, `count` fields, and room for a value of each.
        let code = unsafe {
            (self.api.latest)(self.handle, &mut entity, 1, fields.as_ptr(), count, flags, values.as_mut_ptr())
        };
        (code == OK).then_some(())
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the handle is this session's own, ended once.
        unsafe {
            match self.engine {
                Engine::Running => (self.api.disconnect)(self.handle),
                Engine::Embedded => (self.api.stop_embedded)(self.handle),
            };
            (self.api.shutdown)();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_dcgms() {
        assert_eq!((size_of::<FieldValue>(), std::mem::offset_of!(FieldValue, value)), (4128, 32));
        assert_eq!(std::mem::offset_of!(FieldValue, at_us), 24);
        assert_eq!(version::<ConnectParameters>(2), 16 | 2 << 24);
    }

    #[test]
    fn a_library_that_is_none_of_dcgm_is_refused() {
        assert!(Dcgm::open_at(Path::new("/no/such/libdcgm.so.4"), Engine::Running, "GPU-0").is_none());
    }
}
