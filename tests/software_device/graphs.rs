//! What a capture takes, what it forbids, and what its graph does.

// SAFETY of every `unsafe` below: a call of the driver with pointers to variables that outlive it. Handles and device
// addresses are the test's own, or wrong on purpose: the software device checks them, which is what is tested.

use crate::harness::Arg::{Int, Pointer};
use crate::harness::{Gpu, Outcome, code, try_allocate};
use cudarc::driver::sys::{self, CUgraph, CUgraphExec, CUresult, CUstreamCaptureMode as Mode, CUstreamCaptureStatus};
use cudarc::driver::{CudaStream, result};

const UNSUPPORTED: Outcome = Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
const INVALIDATED: Outcome = Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);

fn begin(stream: &CudaStream) {
    stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_GLOBAL).unwrap();
}

fn end(stream: &CudaStream) -> Outcome<CUgraph> {
    code(driver!(result::stream::end_capture(stream.cu_stream())))
}

fn instantiate(graph: CUgraph) -> CUgraphExec {
    let mut executable = std::ptr::null_mut();
    driver!(sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0)).result().unwrap();
    executable
}

fn nodes(graph: CUgraph) -> usize {
    let mut count = 0;
    driver!(sys::cuGraphGetNodes(graph, std::ptr::null_mut(), &mut count)).result().unwrap();
    count
}

fn count(gpu: &Gpu, stream: &CudaStream, memory: u64) {
    gpu.launch(stream, "selftest_count", 32, 0, &[Pointer(memory), Int(1)]).unwrap();
}

fn clear(stream: &CudaStream, memory: u64) {
    driver!(result::memset_d8_async(memory, 0, 4, stream.cu_stream())).unwrap();
}

alone!(a_graph_does_what_the_stream_did, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let (a, b) = (gpu.allocate(4), gpu.allocate(4));
    gpu.write(&stream, a, &[100u32]);
    begin(&stream);
    assert_eq!(stream.capture_status().unwrap(), CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_ACTIVE);
    clear(&stream, a);
    for _ in 0..3 {
        count(&gpu, &stream, a);
    }
    driver!(result::memcpy_dtod_async(b, a, 4, stream.cu_stream())).unwrap();
    let graph = end(&stream).unwrap();
    assert_eq!(stream.capture_status().unwrap(), CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE);
    assert_eq!(nodes(graph), 5);
    assert_eq!(gpu.read::<u32>(&stream, a, 1), [100], "captured, not run");
    let executable = instantiate(graph);
    driver!(result::graph::destroy(graph)).unwrap();
    for _ in 0..2 {
        gpu.write(&stream, b, &[0u32]);
        driver!(result::graph::launch(executable, stream.cu_stream())).unwrap();
        assert_eq!(gpu.read::<u32>(&stream, b, 1), [96]);
    }
    driver!(result::graph::exec_destroy(executable)).unwrap();
    let gone = code(driver!(result::graph::launch(executable, stream.cu_stream())));
    assert_eq!(gone, Err(CUresult::CUDA_ERROR_INVALID_VALUE));
});

// A kernel's arguments are those of the capture.
alone!(arguments_are_kept_by_value, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(4);
    begin(&stream);
    let mut value = [41u32];
    gpu.write(&stream, memory, &value);
    value[0] = 0;
    let executable = instantiate(end(&stream).unwrap());
    driver!(result::graph::launch(executable, stream.cu_stream())).unwrap();
    assert_eq!(gpu.read::<u32>(&stream, memory, 1), [41]);
    assert_eq!(value, [0]);
});

alone!(waiting_and_allocating_break_a_capture, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(4);
    let breaks = |what: &str, call: &dyn Fn() -> Outcome| {
        begin(&stream);
        clear(&stream, memory);
        assert_eq!(call(), UNSUPPORTED, "{what}");
        let status = stream.capture_status().unwrap();
        assert_eq!(status, CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_INVALIDATED, "{what}");
        assert_eq!(code(driver!(result::memset_d8_async(memory, 0, 4, stream.cu_stream()))), INVALIDATED, "{what}");
        assert_eq!(end(&stream).map(|_| ()), INVALIDATED, "{what}");
    };
    breaks("waiting for the stream", &|| code(stream.synchronize()));
    breaks("asking the stream", &|| driver!(sys::cuStreamQuery(stream.cu_stream())).result().map_err(|e| e.0));
    breaks("waiting for the device", &|| code(gpu.context.synchronize()));
    breaks("allocating", &|| try_allocate(4).map(|_| ()));
    breaks("freeing", &|| code(driver!(result::free_sync(memory))));
    breaks("pinned memory", &|| code(driver!(result::malloc_host(4, 0))).map(|_| ()));
    breaks("loading", &|| code(driver!(result::module::load_data(c"x".as_ptr().cast()))).map(|_| ()));
    // The stream is as good as new.
    clear(&stream, memory);
    assert_eq!(gpu.read::<u32>(&stream, memory, 1), [0]);
});

// A relaxed capture lets the rest of the process go on.
alone!(a_relaxed_capture_forbids_less, {
    let gpu = Gpu::open();
    let (stream, other) = (gpu.stream(), gpu.stream());
    stream.begin_capture(Mode::CU_STREAM_CAPTURE_MODE_RELAXED).unwrap();
    let memory = gpu.allocate(4);
    clear(&stream, memory);
    other.synchronize().unwrap();
    assert_eq!(nodes(end(&stream).unwrap()), 1);
    begin(&stream);
    other.synchronize().unwrap();
    let elsewhere = std::thread::spawn(move || driver!(sys::cuCtxSynchronize())).join().unwrap();
    assert_eq!(elsewhere, CUresult::CUDA_ERROR_INVALID_CONTEXT, "a thread without a context");
    assert!(end(&stream).is_ok());
});

alone!(a_fork_must_be_joined, {
    let gpu = Gpu::open();
    let (main, side) = (gpu.stream(), gpu.stream());
    let (a, b) = (gpu.allocate(4), gpu.allocate(4));
    let (fork, join) = (gpu.context.new_event(None).unwrap(), gpu.context.new_event(None).unwrap());
    for joined in [false, true] {
        begin(&main);
        clear(&main, a);
        fork.record(&main).unwrap();
        side.wait(&fork).unwrap();
        clear(&side, b);
        count(&gpu, &side, b);
        assert_eq!(end(&side).map(|_| ()), Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED));
        join.record(&side).unwrap();
        assert_eq!(code(join.synchronize()), Err(CUresult::CUDA_ERROR_CAPTURED_EVENT));
        if joined {
            main.wait(&join).unwrap();
            let executable = instantiate(end(&main).unwrap());
            driver!(result::graph::launch(executable, main.cu_stream())).unwrap();
            assert_eq!(gpu.read::<u32>(&main, b, 1), [32]);
        } else {
            assert_eq!(end(&main).map(|_| ()), Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED));
        }
    }
});

alone!(a_capture_depends_on_nothing_outside, {
    let gpu = Gpu::open();
    let (stream, other) = (gpu.stream(), gpu.stream());
    let event = other.record_event(None).unwrap();
    begin(&stream);
    assert_eq!(stream.wait(&event).map_err(|e| e.0), Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION));
    assert_eq!(end(&stream).map(|_| ()), INVALIDATED);
    assert_eq!(end(&stream).map(|_| ()), Err(CUresult::CUDA_ERROR_INVALID_VALUE), "it captures no more");
});

alone!(the_legacy_stream_neither_captures_nor_waits_for_a_capture, {
    let gpu = Gpu::open();
    let legacy = gpu.context.default_stream();
    let memory = gpu.allocate(4);
    let global = Mode::CU_STREAM_CAPTURE_MODE_GLOBAL;
    assert_eq!(code(legacy.begin_capture(global)), UNSUPPORTED);
    let raw = result::stream::create(result::stream::StreamKind::Default).unwrap();
    // SAFETY: a stream made just now, which the borrowed one does not outlive.
    let blocking = unsafe { gpu.context.wrap_borrowed_stream(raw) };
    begin(&blocking);
    let set = code(driver!(result::memset_d8_async(memory, 0, 4, legacy.cu_stream())));
    assert_eq!(set, Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT));
    assert_eq!(end(&blocking).map(|_| ()), INVALIDATED);
});

alone!(a_capture_ends_where_it_began, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    begin(&stream);
    let elsewhere = std::thread::scope(|scope| {
        let end = || {
            gpu.context.bind_to_thread().unwrap();
            end(&stream).map(|_| ())
        };
        scope.spawn(end).join().unwrap()
    });
    assert_eq!(elsewhere, Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD));
    assert!(end(&stream).is_ok());
});

// A kernel that fails inside a graph fails as it would have outside.
alone!(a_failure_inside_a_graph_is_the_contexts, {
    let gpu = Gpu::open();
    let stream = gpu.stream();
    let memory = gpu.allocate(4);
    begin(&stream);
    gpu.launch(&stream, "selftest_out_of_bounds", 32, 0, &[Pointer(memory), Int(1)]).unwrap();
    let executable = instantiate(end(&stream).unwrap());
    driver!(result::graph::launch(executable, stream.cu_stream())).unwrap();
    assert_eq!(stream.synchronize().map_err(|e| e.0), Err(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS));
});
