//! Memory is checked: its red zones, who may be given it, and what a broken kernel leaves behind.

// SAFETY of every `unsafe` below: a call of the driver with pointers to variables that outlive it. Handles and device
// addresses are the test's own, or wrong on purpose: the software device checks them, which is what is tested.

use crate::harness::Arg::{Int, Pointer};
use crate::harness::{Gpu, code, sentence, try_allocate};
use cudarc::driver::result;
use cudarc::driver::sys::{self, CUresult};

const ILLEGAL: CUresult = CUresult::CUDA_ERROR_ILLEGAL_ADDRESS;

alone!(fresh_memory_is_poisoned, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(4000);
    assert_eq!(memory % 256, 0);
    assert!(gpu.read::<f32>(&stream, memory, 1000).iter().all(|v| v.is_nan()));
});

alone!(the_driver_says_how_much_is_free, [("SOFTGPU_MEMORY", "64M")], {
    let gpu = Gpu::open();
    assert_eq!(gpu.context.mem_get_info().unwrap(), (64 << 20, 64 << 20));
    let memory = gpu.allocate(1 << 20);
    assert_eq!(gpu.context.mem_get_info().unwrap().0, 63 << 20);
    assert_eq!(try_allocate(63 << 20).map(|_| ()), Ok(()));
    assert_eq!(try_allocate(1), Err(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
    assert_eq!(try_allocate(0), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
    driver!(result::free_sync(memory)).unwrap();
    assert_eq!(gpu.context.mem_get_info().unwrap().0, 1 << 20);
});

// Named with the kernel and how far beyond; every later call fails until the context is reset.
alone!(a_write_beyond_the_end_is_the_kernels_fault, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(400);
    gpu.launch(&stream, "selftest_out_of_bounds", 32, 0, &[Pointer(memory), Int(103)]).unwrap();
    assert_eq!(stream.synchronize().map_err(|e| e.0), Err(ILLEGAL));
    let text = sentence(ILLEGAL);
    assert!(text.contains("selftest_out_of_bounds wrote bytes 12 to 15 beyond the end of"), "{text}");
    assert_eq!(try_allocate(4), Err(ILLEGAL));
    assert_eq!(gpu.context.mem_get_info().map_err(|e| e.0), Err(ILLEGAL));
    assert_eq!(driver!(sys::cuDevicePrimaryCtxReset_v2(0)), CUresult::CUDA_SUCCESS);
    assert!(try_allocate(4).is_ok());
});

alone!(a_write_before_the_start_is_found_as_well, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(400);
    gpu.launch(&stream, "selftest_out_of_bounds", 32, 0, &[Pointer(memory), Int(-2)]).unwrap();
    assert_eq!(stream.synchronize().map_err(|e| e.0), Err(ILLEGAL));
    assert!(sentence(ILLEGAL).contains("wrote bytes 5 to 8 before the start of"), "{}", sentence(ILLEGAL));
});

// What the host or a library wrote there is found when the context is waited for, and when the memory is freed.
alone!(red_zones_are_looked_at_when_somebody_waits, {
    let gpu = Gpu::open();
    let memory = gpu.allocate(8);
    // SAFETY: a byte of the zone behind the allocation, which the software device keeps mapped to see such writes.
    unsafe { (memory as *mut u8).add(9).write(0) };
    assert_eq!(gpu.context.synchronize().map_err(|e| e.0), Err(ILLEGAL));
});

alone!(red_zones_are_looked_at_when_memory_is_freed, {
    let gpu = Gpu::open();
    let _ = &gpu;
    let memory = gpu.allocate(8);
    // SAFETY: a byte of the zone before the allocation, which is mapped too.
    unsafe { (memory as *mut u8).sub(1).write(0) };
    assert_eq!(code(driver!(result::free_sync(memory))), Err(ILLEGAL));
});

/// A mapping that nobody may touch, of a size that no allocation has: wherever it lies, an access to it is wild.
fn reserved() -> u64 {
    let (flags, length) = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE, 1 << 20);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let at = unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_NONE, flags, -1, 0) };
    assert_ne!(at, libc::MAP_FAILED);
    at as u64
}

alone!(a_wild_access_is_an_error_and_no_crash, {
    for (pointer, index) in [(0, 0), (reserved(), 1 << 16)] {
        let gpu = Gpu::open();
        let stream = gpu.stream();
        gpu.launch(&stream, "selftest_out_of_bounds", 32, 0, &[Pointer(pointer), Int(index)]).unwrap();
        assert_eq!(stream.synchronize().map_err(|e| e.0), Err(ILLEGAL));
        let touched = format!("thread 0): touched {:#x}, which lies in no allocation", pointer + 4 * index as u64);
        assert!(sentence(ILLEGAL).contains(&touched), "{}", sentence(ILLEGAL));
        assert_eq!(driver!(sys::cuDevicePrimaryCtxReset_v2(0)), CUresult::CUDA_SUCCESS);
        // What was made before means nothing any more.
        let raw = stream.cu_stream();
        assert_eq!(driver!(sys::cuStreamSynchronize(raw)), CUresult::CUDA_ERROR_INVALID_HANDLE);
        let function = driver!(result::module::get_function(gpu.module, c"selftest_count".to_owned()));
        assert_eq!(code(function).map(|_| ()), Err(CUresult::CUDA_ERROR_INVALID_HANDLE));
        std::mem::forget(stream);
    }
});

alone!(freed_memory_is_out_of_reach, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(64);
    driver!(result::free_sync(memory)).unwrap();
    assert_eq!(code(driver!(result::free_sync(memory))), Err(CUresult::CUDA_ERROR_INVALID_VALUE));
    assert_eq!(
        code(driver!(result::memset_d8_async(memory, 0, 4, stream.cu_stream()))),
        Err(CUresult::CUDA_ERROR_INVALID_VALUE)
    );
    gpu.launch(&stream, "selftest_out_of_bounds", 32, 0, &[Pointer(memory), Int(0)]).unwrap();
    assert_eq!(stream.synchronize().map_err(|e| e.0), Err(ILLEGAL));
    assert!(sentence(ILLEGAL).contains("which was freed"), "{}", sentence(ILLEGAL));
});

alone!(freeing_waits_for_what_still_uses_the_memory, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(4);
    let flag = gpu.block(&stream);
    gpu.launch(&stream, "selftest_count", 32, 0, &[Pointer(memory), Int(2)]).unwrap();
    let raise = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(5));
        let flag = flag;
        flag.raise();
    });
    driver!(result::free_sync(memory)).unwrap();
    raise.join().unwrap();
    stream.synchronize().unwrap();
});

alone!(copies_stay_inside_an_allocation, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let (a, b) = (gpu.allocate(8), gpu.allocate(8));
    let raw = stream.cu_stream();
    let invalid = Err(CUresult::CUDA_ERROR_INVALID_VALUE);
    let mut host = [0u32; 3];
    assert_eq!(code(driver!(result::memcpy_htod_async(a, &host, raw))), invalid);
    assert_eq!(code(driver!(result::memcpy_dtoh_async(&mut host, a, raw))), invalid);
    assert_eq!(code(driver!(result::memcpy_dtod_async(a, b, 12, raw))), invalid);
    assert_eq!(code(driver!(result::memset_d8_async(a + 4, 0, 5, raw))), invalid);
    assert_eq!(code(driver!(result::memcpy_htod_async(host.as_ptr() as u64, &[0u32; 2], raw))), invalid);
    assert_eq!(driver!(sys::cuMemsetD32Async(a + 2, 0, 1, raw)).result().map_err(|e| e.0), invalid);
    gpu.write(&stream, a, &[1u32, 2]);
    driver!(sys::cuMemsetD32Async(a + 4, 9, 1, raw)).result().unwrap();
    driver!(result::memcpy_dtod_async(b, a, 8, raw)).unwrap();
    assert_eq!(gpu.read::<u32>(&stream, b, 2), [1, 9]);
});

alone!(pinned_memory_is_copied_while_the_host_goes_on, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let (from, to) = (gpu.flag(), gpu.allocate(4));
    let flag = gpu.block(&stream);
    // SAFETY: the flag's four bytes, alive until the process ends.
    let pinned = unsafe { std::slice::from_raw_parts(from.address() as *const u32, 1) };
    driver!(result::memcpy_htod_async(to, pinned, stream.cu_stream())).unwrap();
    from.raise();
    flag.raise();
    assert_eq!(gpu.read::<u32>(&stream, to, 1), [1], "taken when its turn came, not before");
});

alone!(memory_of_another_device_needs_peer_access, [("SOFTGPU_DEVICES", "2")], {
    let first = Gpu::open();
    let memory = first.allocate(64);
    let second = Gpu::on(1);
    let stream = second.stream();
    let write = || second.launch(&stream, "selftest_out_of_bounds", 32, 0, &[Pointer(memory), Int(0)]);
    driver!(sys::cuCtxEnablePeerAccess(first.context.cu_ctx(), 0)).result().unwrap();
    write().unwrap();
    stream.synchronize().unwrap();
    driver!(sys::cuCtxDisablePeerAccess(first.context.cu_ctx())).result().unwrap();
    write().unwrap();
    assert_eq!(stream.synchronize().map_err(|e| e.0), Err(ILLEGAL));
    assert!(sentence(ILLEGAL).contains("of device 0 on device 1"), "{}", sentence(ILLEGAL));
});
