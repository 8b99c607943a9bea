//! Streams are queues with threads of their own; events are places in them.

// SAFETY of every `unsafe` below: a call of the driver with pointers to variables that outlive it. Handles and device
// addresses are the test's own, or wrong on purpose: the software device checks them, which is what is tested.

use crate::harness::Arg::{Int, Pointer};
use crate::harness::{Gpu, Outcome, code};
use cudarc::driver::sys::{self, CUevent_flags, CUresult};
use cudarc::driver::{CudaStream, result};
use std::ffi::c_void;
use std::sync::Mutex;

fn query(stream: &CudaStream) -> Outcome {
    driver!(sys::cuStreamQuery(stream.cu_stream())).result().map_err(|e| e.0)
}

alone!(two_streams_run_beside_each_other, {
    let gpu = Gpu::open();
    let (a, b) = (gpu.stream(), gpu.stream());
    let (first, second) = (gpu.flag(), gpu.flag());
    // Each waits for the other: one after the other would never end.
    gpu.launch(&a, "selftest_meet", 1, 0, &[first.device(), second.device()]).unwrap();
    gpu.launch(&b, "selftest_meet", 1, 0, &[second.device(), first.device()]).unwrap();
    a.synchronize().unwrap();
    b.synchronize().unwrap();
    assert_eq!((first.value(), second.value()), (1, 1));
});

alone!(a_stream_runs_in_order_and_the_host_goes_on, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(4);
    let flag = gpu.block(&stream);
    gpu.write(&stream, memory, &[7u32]);
    gpu.launch(&stream, "selftest_count", 32, 0, &[Pointer(memory), Int(3)]).unwrap();
    assert_eq!(query(&stream), Err(CUresult::CUDA_ERROR_NOT_READY));
    flag.raise();
    assert_eq!(gpu.read::<u32>(&stream, memory, 1), [7 + 3 * 32]);
    assert_eq!(query(&stream), Ok(()));
});

// The memory that was copied in may be freed or changed as soon as the call returns.
alone!(pageable_memory_is_taken_when_the_call_returns, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(4);
    let flag = gpu.block(&stream);
    let mut value = [5u32];
    gpu.write(&stream, memory, &value);
    value[0] = 6;
    flag.raise();
    assert_eq!(gpu.read::<u32>(&stream, memory, 1), [5]);
    assert_eq!(value, [6]);
});

alone!(an_event_orders_one_stream_after_another, {
    let gpu = Gpu::open();
    let (a, b) = (gpu.stream(), gpu.stream());
    let memory = gpu.allocate(4);
    let flag = gpu.block(&a);
    gpu.write(&a, memory, &[1u32]);
    let event = a.record_event(None).unwrap();
    b.wait(&event).unwrap();
    gpu.write(&b, memory, &[2u32]);
    assert!(!event.is_complete());
    assert_eq!(query(&b), Err(CUresult::CUDA_ERROR_NOT_READY));
    flag.raise();
    b.synchronize().unwrap();
    assert!(event.is_complete());
    assert_eq!(gpu.read::<u32>(&a, memory, 1), [2]);
});

alone!(event_times_are_those_of_the_stream, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
    let (start, end) = (gpu.context.new_event(timed).unwrap(), gpu.context.new_event(timed).unwrap());
    let elapsed = || code(driver!(result::event::elapsed(start.cu_event(), end.cu_event())));
    assert_eq!(elapsed(), Err(CUresult::CUDA_ERROR_INVALID_HANDLE), "never recorded");
    start.record(&stream).unwrap();
    let flag = gpu.block(&stream);
    end.record(&stream).unwrap();
    assert_eq!(elapsed(), Err(CUresult::CUDA_ERROR_NOT_READY));
    start.synchronize().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(3));
    flag.raise();
    stream.synchronize().unwrap();
    // The stream passed one before the host slept and the other after.
    assert!(elapsed().unwrap() >= 3.0);
    let untimed = gpu.context.new_event(None).unwrap();
    untimed.record(&stream).unwrap();
    assert_eq!(start.elapsed_ms(&untimed).map_err(|e| e.0), Err(CUresult::CUDA_ERROR_INVALID_HANDLE));
});

alone!(the_legacy_stream_and_blocking_streams_wait_for_each_other, {
    let gpu = Gpu::open();
    let legacy = gpu.context.default_stream();
    let free = gpu.stream();
    let raw = result::stream::create(result::stream::StreamKind::Default).unwrap();
    // SAFETY: a stream made just now, which the borrowed one does not outlive.
    let blocking = unsafe { gpu.context.wrap_borrowed_stream(raw) };
    let memory = gpu.allocate(4);
    let flag = gpu.block(&blocking);
    driver!(result::memset_d8_async(memory, 0, 4, legacy.cu_stream())).unwrap();
    assert_eq!(query(&legacy), Err(CUresult::CUDA_ERROR_NOT_READY));
    // A stream that was made not to block goes on.
    gpu.write(&free, memory, &[9u32]);
    assert_eq!(gpu.read::<u32>(&free, memory, 1), [9]);
    flag.raise();
    assert_eq!(gpu.read::<u32>(&legacy, memory, 1), [0]);
});

static CALLS: Mutex<Vec<usize>> = Mutex::new(Vec::new());

unsafe extern "C" fn note(data: *mut c_void) {
    CALLS.lock().unwrap().push(data as usize);
}

alone!(host_functions_have_their_turn, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let flag = gpu.block(&stream);
    for i in 1..=3usize {
        driver!(sys::cuLaunchHostFunc(stream.cu_stream(), Some(note), i as *mut c_void)).result().unwrap();
    }
    assert!(CALLS.lock().unwrap().is_empty());
    flag.raise();
    stream.synchronize().unwrap();
    assert_eq!(*CALLS.lock().unwrap(), [1, 2, 3]);
});

alone!(values_are_waited_for_and_written, {
    let gpu = Gpu::open();
    let (a, b) = (gpu.stream(), gpu.stream());
    let (gate, done) = (gpu.flag(), gpu.flag());
    let equal = sys::CUstreamWaitValue_flags::CU_STREAM_WAIT_VALUE_EQ as u32;
    driver!(sys::cuStreamWaitValue32_v2(a.cu_stream(), gate.address(), 1, equal)).result().unwrap();
    driver!(sys::cuStreamWriteValue32_v2(a.cu_stream(), done.address(), 4, 0)).result().unwrap();
    assert_eq!(query(&a), Err(CUresult::CUDA_ERROR_NOT_READY));
    assert_eq!(done.value(), 0);
    driver!(sys::cuStreamWriteValue32_v2(b.cu_stream(), gate.address(), 1, 0)).result().unwrap();
    a.synchronize().unwrap();
    assert_eq!(done.value(), 4);
    let nowhere = driver!(sys::cuStreamWaitValue32_v2(a.cu_stream(), 64, 1, 0));
    assert_eq!(nowhere, CUresult::CUDA_ERROR_INVALID_VALUE);
});

alone!(a_destroyed_stream_ends_its_work_and_is_unknown_afterwards, {
    let gpu = Gpu::open();
    let memory = gpu.allocate(4);
    let stream = gpu.stream();
    let raw = stream.cu_stream();
    let flag = gpu.block(&stream);
    gpu.write(&stream, memory, &[3u32]);
    drop(stream);
    let other = gpu.stream();
    assert_ne!(raw, other.cu_stream(), "a handle is never used twice");
    assert_eq!(driver!(sys::cuStreamQuery(raw)), CUresult::CUDA_ERROR_INVALID_HANDLE);
    flag.raise();
    gpu.context.synchronize().unwrap();
    assert_eq!(gpu.read::<u32>(&other, memory, 1), [3]);
});

alone!(priorities_are_kept, {
    let gpu = Gpu::open();
    assert_eq!(result::stream::get_priority_range().unwrap(), (0, -5));
    for (asked, held) in [(0, 0), (-3, -3), (-9, -5), (4, 0)] {
        let stream = gpu.context.new_stream_with_priority(asked).unwrap();
        let mut priority = 1;
        driver!(sys::cuStreamGetPriority(stream.cu_stream(), &mut priority)).result().unwrap();
        assert_eq!(priority, held);
        let flag = gpu.block(&stream);
        flag.raise();
        stream.synchronize().unwrap();
    }
});

// What is not atomic for two streams would lose counts.
alone!(atomics_hold_between_streams, {
    let gpu = Gpu::open();
    let (a, b) = (gpu.stream(), gpu.stream());
    let memory = gpu.allocate(4);
    gpu.write(&a, memory, &[0u32]);
    a.synchronize().unwrap();
    let arguments = [Pointer(memory), Int(20_000)];
    for stream in [&a, &b] {
        gpu.launch(stream, "selftest_count", 64, 0, &arguments).unwrap();
    }
    gpu.context.synchronize().unwrap();
    assert_eq!(gpu.read::<u32>(&a, memory, 1), [2 * 64 * 20_000]);
});

// Shared memory is a block's own, also when two kernels run at once.
alone!(shared_memory_is_not_shared_between_streams, {
    let gpu = Gpu::open();
    let streams: Vec<_> = (0..4).map(|_| gpu.stream()).collect();
    let buffers: Vec<(u64, u64)> = streams.iter().map(|_| (gpu.allocate(4096), gpu.allocate(4096))).collect();
    for (i, (stream, (from, to))) in streams.iter().zip(&buffers).enumerate() {
        let values: Vec<f32> = (0..1024).map(|k| (k + 10_000 * i) as f32).collect();
        gpu.write(stream, *from, &values);
        for _ in 0..10 {
            gpu.launch(stream, "selftest_reverse", 1024, 4096, &[Pointer(*to), Pointer(*from)]).unwrap();
        }
    }
    for (i, (stream, (_, to))) in streams.iter().zip(&buffers).enumerate() {
        let expected: Vec<f32> = (0..1024).rev().map(|k| (k + 10_000 * i) as f32).collect();
        assert_eq!(gpu.read::<f32>(stream, *to, 1024), expected);
    }
});
