//! Operations captured as a CUDA graph and launched as one.

use super::gpu::RankGpu;
use crate::machine::driver_error;
use crate::{Error, Result};
use cudarc::driver::{CudaStream, DriverError, result, sys};
use std::sync::Arc;

/// Recorded operations; the buffers they were recorded with outlive it (the worker drops it first).
pub struct NcclGraph {
    executable: sys::CUgraphExec,
    recorded: sys::CUgraph,
    stream: Arc<CudaStream>,
    pub operations: u64,
}

fn failed(error: DriverError) -> Error {
    driver_error("cannot capture operations as a CUDA graph", error)
}

impl NcclGraph {
    /// Records what `body` puts on the rank's stream; nothing runs. It must have run once before.
    pub fn capture(gpu: &RankGpu, operations: u64, body: impl FnOnce() -> Result<()>) -> Result<Self> {
        gpu.bind()?;
        let stream = gpu.stream.cu_stream();
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is this rank's and its context is current.
        unsafe { result::stream::begin_capture(stream, mode) }.map_err(failed)?;
        let outcome = body();
        // SAFETY: begun above on this thread; ended whatever happened, or the stream would be lost.
        let recorded = unsafe { result::stream::end_capture(stream) };
        outcome?;
        let recorded = recorded.map_err(failed)?;
        let mut graph =
            NcclGraph { executable: std::ptr::null_mut(), recorded, stream: Arc::clone(&gpu.stream), operations };
        // SAFETY: just captured; no special flags.
        graph.executable =
            unsafe { result::graph::instantiate(recorded, sys::CUgraphInstantiate_flags(0)) }.map_err(failed)?;
        Ok(graph)
    }

    pub fn launch(&self) -> Result<()> {
        // SAFETY: alive, and so are its stream and the buffers.
        unsafe { result::graph::launch(self.executable, self.stream.cu_stream()) }
            .map_err(|e| driver_error("cannot launch a graph", e))
    }
}

impl Drop for NcclGraph {
    fn drop(&mut self) {
        if self.stream.context().bind_to_thread().is_err() {
            return;
        }
        // SAFETY: made by `capture`, destroyed once; the driver lets a launch in flight end first.
        unsafe {
            if !self.executable.is_null() {
                let _ = result::graph::exec_destroy(self.executable);
            }
            let _ = result::graph::destroy(self.recorded);
        }
    }
}
