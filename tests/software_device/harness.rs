//! A process of its own for each test, and the few driver calls that every test makes.

use cudarc::driver::sys::{self, CUfunction, CUmodule, CUresult, CUstream};
use cudarc::driver::{CudaContext, CudaStream, DriverError, result};
use std::ffi::{CString, c_void};
use std::process::{Command, Output};
use std::sync::Arc;

/// A call of the driver.
macro_rules! driver {
    ($call:expr) => {{
        // SAFETY: its pointers are to variables that outlive it. Handles and device addresses are the test's own, or wrong on
        // purpose: the software device checks them, which is what is tested.
        unsafe { $call }
    }};
}

const CHILD: &str = "SOFTWARE_DEVICE_TEST";

/// `alone!(name, [("VARIABLE", "value")], { body })`: a test that runs in a process of its own.
macro_rules! alone {
    ($name:ident, $body:block) => {
        alone!($name, [], $body);
    };
    ($name:ident, $environment:expr, $body:block) => {
        #[test]
        fn $name() {
            let environment: &[(&str, &str)] = &$environment;
            $crate::harness::alone(concat!(module_path!(), "::", stringify!($name)), environment, || $body);
        }
    };
}

/// Runs `body` in another process; its standard error must not be empty of what `body` asserts, so it is shown.
pub fn alone(test: &str, environment: &[(&str, &str)], body: impl Fn()) {
    let test = test.split_once("::").map_or(test, |(_, inside)| inside);
    if std::env::var(CHILD).as_deref() == Ok(test) {
        softgpu::device::choose().unwrap();
        body();
        return;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    clear(&mut command)
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, test)
        .env("BUBBLEBENCH_TEST_DEVICE", "softgpu");
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && stdout.contains("1 passed"), "{test}: {stdout}\n{stderr}");
}

/// Nothing of the caller's own settings.
pub fn clear(command: &mut Command) -> &mut Command {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        let other = ["CUDA_VISIBLE_DEVICES", "CUDA_HOME", "LD_LIBRARY_PATH"].contains(&&*name);
        if other || ["SOFTGPU_", "BUBBLEBENCH_", "NCCL_"].iter().any(|start| name.starts_with(start)) {
            command.env_remove(&*name);
        }
    }
    command
}

/// The program on the software device; `libraries` is a folder with `libcuda.so.1`.
pub fn bubblebench(libraries: &std::path::Path, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("bubblebench"));
    clear(&mut command).env("LD_LIBRARY_PATH", libraries).envs(environment.iter().copied()).args(arguments);
    command.output().unwrap()
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub type Outcome<T = ()> = Result<T, CUresult>;

pub fn code<T>(outcome: Result<T, DriverError>) -> Outcome<T> {
    outcome.map_err(|e| e.0)
}

/// Device 0 with the software device's kernels.
pub struct Gpu {
    pub context: Arc<CudaContext>,
    pub module: CUmodule,
}

impl Gpu {
    pub fn open() -> Gpu {
        Gpu::on(0)
    }

    pub fn on(ordinal: usize) -> Gpu {
        let context = CudaContext::new(ordinal).unwrap();
        // SAFETY: these tests order their streams themselves.
        unsafe { context.disable_event_tracking() };
        let module = driver!(result::module::load_data(c"any image".as_ptr().cast())).unwrap();
        Gpu { context, module }
    }

    pub fn stream(&self) -> Arc<CudaStream> {
        self.context.new_stream().unwrap()
    }

    pub fn kernel(&self, name: &str) -> CUfunction {
        driver!(result::module::get_function(self.module, CString::new(name).unwrap())).unwrap()
    }

    pub fn launch(&self, stream: &CudaStream, kernel: &str, threads: u32, shared: u32, arguments: &[Arg]) -> Outcome {
        launch(self.kernel(kernel), stream.cu_stream(), [1, 1, 1], [threads, 1, 1], shared, arguments)
    }

    pub fn allocate(&self, bytes: usize) -> u64 {
        try_allocate(bytes).unwrap()
    }

    pub fn write<T>(&self, stream: &CudaStream, to: u64, values: &[T]) {
        driver!(result::memcpy_htod_async(to, values, stream.cu_stream())).unwrap();
    }

    pub fn read<T: Default + Clone>(&self, stream: &CudaStream, from: u64, count: usize) -> Vec<T> {
        let mut values = vec![T::default(); count];
        driver!(result::memcpy_dtoh_async(&mut values, from, stream.cu_stream())).unwrap();
        stream.synchronize().unwrap();
        values
    }

    /// Zeroed, and seen by the device as well.
    pub fn flag(&self) -> Flag {
        let pointer = driver!(result::malloc_host(4, sys::CU_MEMHOSTALLOC_DEVICEMAP)).unwrap();
        // SAFETY: four bytes of pinned memory, this test's own.
        unsafe { pointer.cast::<u32>().write(0) };
        Flag { host: pointer.cast() }
    }

    /// Holds the stream until the flag is raised.
    pub fn block(&self, stream: &CudaStream) -> Flag {
        let flag = self.flag();
        self.launch(stream, "selftest_spin", 1, 0, &[flag.device()]).unwrap();
        flag
    }
}

pub struct Flag {
    host: *mut u32,
}

// SAFETY: pinned memory, read and written as an atomic.
unsafe impl Send for Flag {}

impl Flag {
    pub fn address(&self) -> u64 {
        let mut address = 0;
        driver!(sys::cuMemHostGetDevicePointer_v2(&mut address, self.host.cast(), 0)).result().unwrap();
        address
    }

    pub fn device(&self) -> Arg {
        Arg::Pointer(self.address())
    }

    pub fn raise(&self) {
        // SAFETY: four aligned bytes that live as long as the process.
        unsafe { std::sync::atomic::AtomicU32::from_ptr(self.host) }.store(1, std::sync::atomic::Ordering::Release);
    }

    pub fn value(&self) -> u32 {
        // SAFETY: as above.
        unsafe { std::sync::atomic::AtomicU32::from_ptr(self.host) }.load(std::sync::atomic::Ordering::Acquire)
    }
}

pub fn try_allocate(bytes: usize) -> Outcome<u64> {
    code(driver!(result::malloc_sync(bytes)))
}

#[derive(Clone, Copy)]
pub enum Arg {
    Pointer(u64),
    Int(i32),
}

pub fn launch(
    function: CUfunction,
    stream: CUstream,
    grid: [u32; 3],
    block: [u32; 3],
    shared: u32,
    arguments: &[Arg],
) -> Outcome {
    let mut arguments = arguments.to_vec();
    let address = |argument: &mut Arg| -> *mut c_void {
        match argument {
            Arg::Pointer(value) => std::ptr::from_mut(value).cast(),
            Arg::Int(value) => std::ptr::from_mut(value).cast(),
        }
    };
    let mut addresses: Vec<*mut c_void> = arguments.iter_mut().map(address).collect();
    let tuple = |[x, y, z]: [u32; 3]| (x, y, z);
    code(driver!(result::launch_kernel(function, tuple(grid), tuple(block), shared, stream, &mut addresses)))
}

/// What the driver says of a code.
pub fn sentence(code: CUresult) -> String {
    DriverError(code).error_string().unwrap().to_string_lossy().into_owned()
}
