//! What a launch may ask for, and what the device says of itself and its kernels.

// SAFETY of every `unsafe` below: a call of the driver with pointers to variables that outlive it. Handles and device
// addresses are the test's own, or wrong on purpose: the software device checks them, which is what is tested.

use crate::harness::Arg::{Int, Pointer};
use crate::harness::{Gpu, Outcome, code, launch, sentence};
use cudarc::driver::sys::{self, CUdevice_attribute as Attribute, CUfunction_attribute as FunctionAttribute, CUresult};
use cudarc::driver::{CudaContext, result};

const INVALID: Outcome = Err(CUresult::CUDA_ERROR_INVALID_VALUE);

fn allow_shared(gpu: &Gpu, kernel: &str, bytes: i32) -> Outcome {
    let attribute = FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    driver!(sys::cuFuncSetAttribute(gpu.kernel(kernel), attribute, bytes)).result().map_err(|e| e.0)
}

fn shared_limit(gpu: &Gpu, limit: u32) {
    let stream = gpu.stream();
    let (to, from) = (gpu.allocate(128), gpu.allocate(128));
    let reverse = |shared| gpu.launch(&stream, "selftest_reverse", 32, shared, &[Pointer(to), Pointer(from)]);
    assert_eq!(reverse(48 << 10), Ok(()));
    assert_eq!(reverse((48 << 10) + 1), INVALID, "more must be asked for");
    assert_eq!(allow_shared(gpu, "selftest_reverse", limit as i32 + 1), INVALID, "no block can have it");
    assert_eq!(allow_shared(gpu, "selftest_reverse", limit as i32), Ok(()));
    assert_eq!(reverse(limit), Ok(()));
    assert_eq!(reverse(limit + 1), INVALID);
    stream.synchronize().unwrap();
}

alone!(shared_memory_has_the_limits_of_sm_80, [("SOFTGPU_ARCH", "80")], { shared_limit(&Gpu::open(), 163 << 10) });
alone!(shared_memory_has_the_limits_of_sm_86, [("SOFTGPU_ARCH", "86")], { shared_limit(&Gpu::open(), 99 << 10) });
alone!(shared_memory_has_the_limits_of_sm_90, { shared_limit(&Gpu::open(), 227 << 10) });

alone!(a_launch_has_limits, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(4);
    let count = gpu.kernel("selftest_count");
    let run = |grid, block| launch(count, stream.cu_stream(), grid, block, 0, &[Pointer(memory), Int(0)]);
    assert_eq!(run([1, 1, 1], [1024, 1, 1]), Ok(()));
    assert_eq!(run([1, 1, 1], [1025, 1, 1]), INVALID);
    assert_eq!(run([1, 1, 1], [32, 33, 1]), INVALID, "1056 threads");
    assert_eq!(run([1, 1, 1], [1, 1, 65]), INVALID);
    assert_eq!(run([1, 1, 1], [0, 1, 1]), INVALID);
    assert_eq!(run([0, 1, 1], [1, 1, 1]), INVALID);
    assert_eq!(run([1, 65536, 1], [1, 1, 1]), INVALID);
    assert_eq!(run([1, 1, 65536], [1, 1, 1]), INVALID);
    assert_eq!(run([70_000, 1, 1], [1, 1, 1]), Ok(()));
    let bound = gpu.launch(&stream, "selftest_mma_bf16", 64, 0, &[Pointer(memory); 3]);
    assert_eq!(bound, Err(CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES), "its launch bounds say 32");
    stream.synchronize().unwrap();
});

alone!(a_misaligned_access_has_its_own_error, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let (to, from) = (gpu.allocate(64), gpu.allocate(64));
    gpu.launch(&stream, "selftest_misaligned", 1, 0, &[Pointer(to), Pointer(from)]).unwrap();
    let failed = stream.synchronize().map_err(|e| e.0);
    assert_eq!(failed, Err(CUresult::CUDA_ERROR_MISALIGNED_ADDRESS));
    assert!(sentence(CUresult::CUDA_ERROR_MISALIGNED_ADDRESS).contains("common.cuh"));
});

alone!(threads_that_wait_for_ever_are_found, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(256);
    gpu.launch(&stream, "selftest_deadlock_branch", 64, 0, &[Pointer(memory)]).unwrap();
    assert_eq!(stream.synchronize().map_err(|e| e.0), Err(CUresult::CUDA_ERROR_LAUNCH_FAILED));
    assert!(sentence(CUresult::CUDA_ERROR_LAUNCH_FAILED).contains("deadlock in kernel selftest_deadlock_branch"));
});

alone!(handles_belong_to_their_context, [("SOFTGPU_DEVICES", "2")], {
    let first = Gpu::open();
    let stream = first.stream();
    let count = first.kernel("selftest_count");
    let second = Gpu::on(1);
    let memory = second.allocate(4);
    let own = second.stream();
    let arguments = [Pointer(memory), Int(0)];
    let invalid = Err(CUresult::CUDA_ERROR_INVALID_HANDLE);
    let run = |function, stream| launch(function, stream, [1, 1, 1], [1, 1, 1], 0, &arguments);
    assert_eq!(run(second.kernel("selftest_count"), stream.cu_stream()), invalid, "a stream of another context");
    assert_eq!(run(count, own.cu_stream()), invalid, "a kernel of another context");
    assert_eq!(run(own.cu_stream().cast(), own.cu_stream()), invalid, "no kernel at all");
    let event = second.context.new_event(None).unwrap();
    let raw = event.cu_event();
    assert_eq!(code(driver!(result::event::record(raw, stream.cu_stream()))), invalid);
    drop(event);
    assert_eq!(code(driver!(result::event::record(raw, own.cu_stream()))), invalid, "destroyed");
    let kernel = second.kernel("selftest_count");
    assert_eq!(run(kernel, own.cu_stream()), Ok(()));
    driver!(result::module::unload(second.module)).unwrap();
    assert_eq!(run(kernel, own.cu_stream()), invalid, "its module is gone");
});

alone!(an_unknown_kernel_is_not_found, {
    let gpu = Gpu::open();
    let found = driver!(result::module::get_function(gpu.module, c"no_such_kernel".to_owned()));
    assert_eq!(found.map(|_| ()).map_err(|e| e.0), Err(CUresult::CUDA_ERROR_NOT_FOUND));
});

alone!(nothing_works_without_a_context, {
    let mut pointer = 0;
    assert_eq!(driver!(sys::cuMemAlloc_v2(&mut pointer, 4)), CUresult::CUDA_ERROR_NOT_INITIALIZED);
    result::init().unwrap();
    assert_eq!(driver!(sys::cuMemAlloc_v2(&mut pointer, 4)), CUresult::CUDA_ERROR_INVALID_CONTEXT);
    let context = CudaContext::new(0).unwrap();
    assert_eq!(driver!(sys::cuMemAlloc_v2(&mut pointer, 4)), CUresult::CUDA_SUCCESS);
    drop(context);
    assert_eq!(driver!(sys::cuMemAlloc_v2(&mut pointer, 4)), CUresult::CUDA_ERROR_INVALID_CONTEXT);
});

alone!(
    the_device_is_the_one_asked_for,
    [("SOFTGPU_ARCH", "86"), ("SOFTGPU_SMS", "7"), ("SOFTGPU_MEMORY", "1G"), ("SOFTGPU_DEVICES", "3")],
    {
        let gpu = Gpu::on(2);
        let ask = |attribute| gpu.context.attribute(attribute).unwrap();
        assert_eq!(CudaContext::device_count().unwrap(), 3);
        assert_eq!(gpu.context.compute_capability().unwrap(), (8, 6));
        assert_eq!(ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT), 7);
        assert_eq!(ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN), 99 << 10);
        assert_eq!(ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR), 1536);
        assert_eq!(ask(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE), 1 << 20);
        assert_eq!(gpu.context.total_mem().unwrap(), 1 << 30);
        let uuid = gpu.context.uuid().unwrap().bytes.map(|b| b as u8);
        let expected: [u8; 16] = std::array::from_fn(|i| if i == 15 { 2 } else { 0xb0 + i as u8 });
        assert_eq!(uuid, expected);
        assert!(CudaContext::new(3).is_err());
    }
);

alone!(devices_can_be_hidden, [("SOFTGPU_DEVICES", "4"), ("CUDA_VISIBLE_DEVICES", "3,1")], {
    let gpu = Gpu::open();
    assert_eq!(CudaContext::device_count().unwrap(), 2);
    assert_eq!(gpu.context.uuid().unwrap().bytes[15], 3);
});

alone!(kernels_tell_their_facts, {
    let gpu = Gpu::open();
    let ask = |kernel: &str, attribute| {
        let mut value = -1;
        driver!(sys::cuFuncGetAttribute(&mut value, attribute, gpu.kernel(kernel))).result().unwrap();
        value
    };
    assert_eq!(ask("selftest_mma_bf16", FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK), 32);
    assert!(ask("selftest_reverse", FunctionAttribute::CU_FUNC_ATTRIBUTE_NUM_REGS) > 0);
    assert_eq!(ask("selftest_reverse", FunctionAttribute::CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES), 0);
    assert_eq!(ask("selftest_reverse", FunctionAttribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES), 48 << 10);
    let blocks = |kernel, threads, shared| {
        let mut blocks = -1;
        let function = gpu.kernel(kernel);
        driver!(sys::cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut blocks, function, threads, shared))
            .result()
            .unwrap();
        blocks
    };
    assert_eq!(blocks("selftest_reverse", 1024, 0), 2);
    assert_eq!(blocks("selftest_reverse", 256, 100 << 10), 2);
    assert_eq!(blocks("selftest_reverse", 32, 0), 32);
});

alone!(limits_are_kept, {
    let gpu = Gpu::open();
    use sys::CUlimit::{CU_LIMIT_CIG_ENABLED, CU_LIMIT_PERSISTING_L2_CACHE_SIZE, CU_LIMIT_STACK_SIZE};
    gpu.context.set_limit(CU_LIMIT_STACK_SIZE, 4096).unwrap();
    assert_eq!(gpu.context.get_limit(CU_LIMIT_STACK_SIZE).unwrap(), 4096);
    gpu.context.set_limit(CU_LIMIT_PERSISTING_L2_CACHE_SIZE, 1 << 30).unwrap();
    assert_eq!(gpu.context.get_limit(CU_LIMIT_PERSISTING_L2_CACHE_SIZE).unwrap(), 3 << 18, "clamped");
    driver!(sys::cuCtxResetPersistingL2Cache()).result().unwrap();
    assert!(gpu.context.get_limit(CU_LIMIT_CIG_ENABLED).is_err());
});

// Says which function it was that the device has not.
alone!(what_is_lacking_is_refused_by_name, {
    let _gpu = Gpu::open();
    let mut stream = std::ptr::null_mut();
    let code = driver!(sys::cuGreenCtxStreamCreate(&mut stream, std::ptr::null_mut(), 0, 0));
    assert_eq!(code, CUresult::CUDA_ERROR_NOT_SUPPORTED);
});
