//! CUDA graphs: what a piece of work puts on its stream, recorded once and launched again as one.
//!
//! [`Cuda::capture`] records, [`Graph::launch`] replays; a record that was timed so says `launch: graph`. Work must have
//! run once before: plans, scratch memory and kernels that are loaded on first use cannot be made while recording.

use super::memory::CudaMemory;
use super::{Cuda, Gpu};
use crate::machine::driver_error;
use crate::{Error, Result};
use cudarc::driver::{CudaStream, result, sys};
use std::sync::Arc;

/// Work recorded from a stream. The buffers and the [`Cuda`] it was recorded with, which owns cuBLASLt's workspace,
/// must be alive whenever it is launched; its stream and scratch memory it keeps alive itself.
pub struct Graph {
    executable: sys::CUgraphExec,
    recorded: Recorded,
    stream: Arc<CudaStream>,
    _scratch: Option<Arc<CudaMemory>>,
    gpu: Arc<Gpu>,
}

// SAFETY: the handles are names the driver takes from any thread; a graph is launched through `&mut Cuda`, one at a time.
unsafe impl Send for Graph {}

/// What a capture gave; destroyed with its owner.
struct Recorded(sys::CUgraph);

impl Drop for Recorded {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: made by the end of a capture, destroyed once; the context is current (see the owners).
            let _ = unsafe { result::graph::destroy(self.0) };
        }
    }
}

impl Cuda {
    /// Records what `work` puts on this stream, without running it. An error where `work` fails or waits or allocates,
    /// where it launches nothing, and where an operation before it failed.
    pub fn capture(&mut self, work: impl FnOnce(&mut Cuda) -> Result<()>) -> Result<Graph> {
        self.require_free("a graph cannot be captured")?;
        // What failed before belongs to those who asked for it.
        self.wait()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream belongs to this value and its context is current since the wait.
        unsafe { result::stream::begin_capture(self.stream.cu_stream(), mode) }
            .map_err(|e| driver_error("cannot capture a graph", e))?;
        self.capturing = true;
        let outcome = work(self);
        self.capturing = false;
        // The capture ends whatever happened inside, or the stream would be lost.
        // SAFETY: a capture of this stream was begun above on this thread.
        let ended = unsafe { result::stream::end_capture(self.stream.cu_stream()) }.map(Recorded);
        outcome?;
        if let Some(error) = self.take_pending() {
            return Err(error);
        }
        let recorded = ended.map_err(|e| {
            driver_error("cannot capture a graph: something waited or allocated while it was recorded", e)
        })?;
        self.instantiate(recorded)
    }

    fn instantiate(&mut self, recorded: Recorded) -> Result<Graph> {
        if recorded.0.is_null() || nodes(&recorded)? == 0 {
            return Err(Error::input("a graph of nothing", "capture work that launches something"));
        }
        // SAFETY: the graph was just captured; the flags ask for nothing special.
        let executable = unsafe { result::graph::instantiate(recorded.0, sys::CUgraphInstantiate_flags(0)) }
            .map_err(|e| driver_error("cannot make a captured graph ready to launch", e))?;
        Ok(Graph {
            executable,
            recorded,
            stream: Arc::clone(&self.stream),
            _scratch: self.scratch.clone(),
            gpu: Arc::clone(&self.gpu),
        })
    }
}

impl Graph {
    /// Puts the whole graph on the stream it was captured on; an error on any other, where its scratch memory could be
    /// in use.
    pub fn launch(&self, ops: &mut Cuda) -> Result<()> {
        if !Arc::ptr_eq(&ops.stream, &self.stream) {
            return Err(Error::input(
                "a graph captured on another stream",
                "capture it on the stream that launches it",
            ));
        }
        ops.require_uncaptured("a graph cannot be launched")?;
        ops.count_launch()?;
        ops.bind()?;
        // SAFETY: the executable is alive, and so is the stream; its buffers are the caller's promise (see the type).
        unsafe { result::graph::launch(self.executable, self.stream.cu_stream()) }
            .map_err(|e| driver_error("cannot launch a graph", e))
    }

    /// The number of kernels, copies and fills in the graph.
    pub fn nodes(&self) -> Result<usize> {
        nodes(&self.recorded)
    }
}

fn nodes(graph: &Recorded) -> Result<usize> {
    let mut count = 0;
    // SAFETY: without a place to write nodes to, the call only counts them.
    unsafe { sys::cuGraphGetNodes(graph.0, std::ptr::null_mut(), &mut count) }
        .result()
        .map_err(|e| driver_error("cannot look into a graph", e))?;
    Ok(count)
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.gpu.context().bind_to_thread().is_ok() {
            // SAFETY: instantiated once, destroyed once; the driver lets a launch in flight end first.
            let _ = unsafe { result::graph::exec_destroy(self.executable) };
        }
    }
}
