//! Faults on demand (`SOFTGPU_FAULT`), as a program sees them that talks to the driver itself.

// SAFETY of every `unsafe` below: a call of the driver with pointers to variables that outlive it. Handles and device
// addresses are the test's own, or wrong on purpose: the software device checks them, which is what is tested.

use crate::harness::Arg::{Int, Pointer};
use crate::harness::{Gpu, code, sentence, try_allocate};
use cudarc::driver::sys::{self, CUresult};
use cudarc::driver::{CudaContext, result};
use std::time::{Duration, Instant};

const NO_MEMORY: CUresult = CUresult::CUDA_ERROR_OUT_OF_MEMORY;
const FAILED: CUresult = CUresult::CUDA_ERROR_LAUNCH_FAILED;

alone!(the_kth_allocation_fails, [("SOFTGPU_FAULT", "oom:2")], {
    let _gpu = Gpu::open();
    assert!(try_allocate(4).is_ok());
    assert_eq!(try_allocate(4), Err(NO_MEMORY));
    assert!(try_allocate(4).is_ok());
});

alone!(large_allocations_fail, [("SOFTGPU_FAULT", "oom-above:1000,oom:3")], {
    let _gpu = Gpu::open();
    assert!(try_allocate(1000).is_ok());
    assert_eq!(try_allocate(1001), Err(NO_MEMORY));
    assert_eq!(try_allocate(4), Err(NO_MEMORY), "both faults are there");
    assert!(try_allocate(4).is_ok());
});

alone!(the_kth_launch_fails, [("SOFTGPU_FAULT", "launch:2")], {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(4);
    gpu.write(&stream, memory, &[0u32]);
    for expected in [Ok(()), Err(FAILED)] {
        gpu.launch(&stream, "selftest_count", 1, 0, &[Pointer(memory), Int(1)]).unwrap();
        assert_eq!(code(stream.synchronize()), expected);
    }
    assert!(sentence(FAILED).contains("selftest_count"), "{}", sentence(FAILED));
});

alone!(a_kernel_fails_by_its_name, [("SOFTGPU_FAULT", "launch:selftest_count")], {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let (a, b) = (gpu.allocate(128), gpu.allocate(128));
    gpu.launch(&stream, "selftest_reverse", 32, 128, &[Pointer(a), Pointer(b)]).unwrap();
    stream.synchronize().unwrap();
    gpu.launch(&stream, "selftest_count", 1, 0, &[Pointer(a), Int(1)]).unwrap();
    assert_eq!(code(stream.synchronize()), Err(FAILED));
});

alone!(a_kernel_takes_its_time, [("SOFTGPU_FAULT", "hang:selftest_count:50")], {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(4);
    let start = Instant::now();
    gpu.launch(&stream, "selftest_count", 1, 0, &[Pointer(memory), Int(1)]).unwrap();
    stream.synchronize().unwrap();
    assert!(start.elapsed() >= Duration::from_millis(50));
});

alone!(there_may_be_no_device, [("SOFTGPU_FAULT", "no-device")], {
    assert_eq!(code(result::init()), Err(CUresult::CUDA_ERROR_NO_DEVICE));
    assert_eq!(CudaContext::new(0).map(|_| ()).map_err(|e| e.0), Err(CUresult::CUDA_ERROR_NO_DEVICE));
});

fn load_fails_with(expected: CUresult) {
    let _context = CudaContext::new(0).unwrap();
    let loaded = driver!(result::module::load_data(c"x".as_ptr().cast()));
    assert_eq!(loaded.map(|_| ()).map_err(|e| e.0), Err(expected));
}

alone!(a_driver_may_be_old, [("SOFTGPU_FAULT", "driver-version:12020")], {
    let mut version = 0;
    driver!(sys::cuDriverGetVersion(&mut version)).result().unwrap();
    assert_eq!(version, 12020);
    load_fails_with(CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
});

alone!(an_image_may_not_fit, [("SOFTGPU_FAULT", "no-image")], {
    load_fails_with(CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU);
});

// A fault nobody knows must not pass for one that did not happen.
alone!(a_wrong_setting_is_refused, [("SOFTGPU_FAULT", "oom:1,oomph")], {
    assert_eq!(code(result::init()), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
});

fn reversed_without_a_barrier() -> Vec<f32> {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let (from, to) = (gpu.allocate(512), gpu.allocate(512));
    gpu.write(&stream, from, &(0..128).map(|i| i as f32).collect::<Vec<_>>());
    gpu.launch(&stream, "selftest_race_read", 128, 512, &[Pointer(to), Pointer(from)]).unwrap();
    gpu.read(&stream, to, 128)
}

// Another order, another result: the race shows. The same seed gives what the emulation itself gives.
alone!(fibers_can_be_shuffled, [("SOFTGPU_ORDER", "shuffled:3")], {
    let device = reversed_without_a_barrier();
    let values: Vec<f32> = (0..128).map(|i| i as f32).collect();
    let mut from = softgpu::Buffer::from_slice(&values);
    let mut to = softgpu::Buffer::<f32>::poisoned(128);
    let config = softgpu::Config::new([1, 1, 1], [128, 1, 1]).shared(512);
    let mut emulated = |order| {
        // SAFETY: both buffers hold an element a thread.
        unsafe { softgpu::launch("selftest_race_read", config.order(order), &[to.arg(), from.arg()]) }.unwrap();
        to.as_slice().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
    };
    let bits: Vec<u32> = device.iter().map(|v| v.to_bits()).collect();
    assert_eq!(bits, emulated(softgpu::Order::Shuffled(3)));
    assert_ne!(bits, emulated(softgpu::Order::InTurn));
});
