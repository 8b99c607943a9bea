//! NCCL, loaded when the program runs: bindings that bindgen made from `nccl.h`, over whichever library is found.
//!
//! * `library`: finding it, its version, the id by which ranks meet, its errors in its own words;
//! * `communicator`: one rank's membership: made, waited for with a deadline, aborted, ended in order;
//! * `enqueue`: an [`Exchange`](super::Exchange) as NCCL's calls, on GPU buffers;
//! * `gpu`, `values`: the rank's stream and memory; inputs written there and results compared, every element;
//! * `beside`: an all-reduce as the side of a pair, for `corun`;
//! * `worker`: one rank's side of a case ([`super::ranks::worker::Worker`]); `transport`: how the coordinator comes to it;
//! * `tuning`: which algorithm, protocol and channels NCCL chose, where its log tells.
//!
//! A program built without `nccl.h` or libclang has no bindings, and [`Nccl::load`] says so with the cure; everything
//! else is the same. It needs none of our kernels.

#[cfg(bubblebench_nccl)]
mod background;
#[cfg(bubblebench_nccl)]
mod communicator;
#[cfg(bubblebench_nccl)]
mod enqueue;
#[cfg(bubblebench_nccl)]
mod gpu;
#[cfg(bubblebench_nccl)]
mod graphs;
#[cfg(bubblebench_nccl)]
mod library;
#[cfg(bubblebench_nccl)]
pub mod sys;
#[cfg(bubblebench_nccl)]
mod transport;
#[cfg_attr(not(bubblebench_nccl), allow(dead_code))] // read, and tested, but nobody asks
mod tuning;
#[cfg(bubblebench_nccl)]
mod values;
#[cfg(bubblebench_nccl)]
mod worker;

#[cfg(not(bubblebench_nccl))]
#[path = "absent.rs"]
mod library;

pub use library::Nccl;
pub use tuning::{Choice, log_choices};

use super::ranks::worker::Transport;
use crate::Result;
use cudarc::driver::sys::CUstream;
use std::sync::Arc;
use std::time::Duration;

/// What rank 0 makes and every rank of a communicator is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniqueId(pub [u8; 128]);

/// NCCL as the coordinator's way of moving data; without bindings or library an error says what is missing.
pub fn transport() -> Result<Arc<dyn Transport>> {
    #[cfg(bubblebench_nccl)]
    return Ok(Arc::new(transport::NcclTransport::load()?));
    #[cfg(not(bubblebench_nccl))]
    match Nccl::load()? {}
}

/// Makes the driver give this process's streams as many hardware queues as it has (8 unless told, and the user may have
/// told it): ranks that share a GPU wait for each other there, so none may stand behind another in one queue. Must be
/// called before any thread is started: it sets an environment variable.
pub fn room_for_ranks() {
    const QUEUES: &str = "CUDA_DEVICE_MAX_CONNECTIONS";
    if std::env::var_os(QUEUES).is_none() {
        // SAFETY: no other thread exists yet that could read the environment meanwhile (the caller's promise).
        unsafe { std::env::set_var(QUEUES, "32") };
    }
}

/// Puts the next operation on a stream.
pub type PutNext = Box<dyn FnMut(CUstream) -> Result<()>>;

/// An all-reduce of so many bytes between these GPUs, the first being the caller's, in exactly so many thread blocks (as
/// NCCL chooses without): each call puts one on the caller's stream, and the other GPUs follow.
pub fn all_reduce_beside(devices: &[u32], bytes: u64, ctas: Option<u32>, deadline: Duration) -> Result<PutNext> {
    #[cfg(bubblebench_nccl)]
    {
        let mut background =
            background::BackgroundAllReduce::gather(devices, background::BackgroundSpec { bytes, ctas, deadline })?;
        Ok(Box::new(move |stream| background.put(stream)))
    }
    #[cfg(not(bubblebench_nccl))]
    {
        let _ = (devices, bytes, ctas, deadline);
        match Nccl::load()? {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nccl_answers_or_says_what_is_missing() {
        match Nccl::load() {
            Ok(nccl) => {
                let version = nccl.version().unwrap();
                assert!(version.starts_with("2.") && !nccl.path().as_os_str().is_empty(), "{version}");
                // Needs no GPU, and never gives the same one twice.
                let ids = [nccl.unique_id().unwrap(), nccl.unique_id().unwrap()];
                assert_ne!(ids[0], ids[1]);
            }
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("pip install") && !text.contains('\n'), "{text}");
                println!("skipped: {text}");
            }
        }
    }
}
