//! NCCL, loaded when the program runs: bindings that bindgen made from `nccl.h`, over whichever library is found.
//!
//! * `library`: finding it, its version, the unique id by which ranks meet, its errors in its own words;
//! * `communicator`: one rank's membership: made, waited for with a deadline, aborted, ended in order;
//! * `enqueue`: an [`Exchange`](super::Exchange) as NCCL's calls, on GPU buffers;
//! * `gpu`, `graphs`, `values`: the rank's stream and memory; operations captured as CUDA graphs; inputs written and
//!   results compared, every element;
//! * `background`: an all-reduce as the side of a pair, for `corun`;
//! * `worker`: one rank's side of a case ([`super::ranks::worker::Worker`]); `transport`: how the coordinator comes to
//!   it;
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

/// The 128 bytes of an `ncclUniqueId`, which rank 0 makes and every rank of a communicator is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniqueId(pub [u8; 128]);

/// NCCL as the transport of a group of ranks; an error says what is missing where there are no bindings, library or
/// driver.
pub fn transport() -> Result<Arc<dyn Transport>> {
    #[cfg(bubblebench_nccl)]
    return Ok(Arc::new(transport::NcclTransport::load()?));
    #[cfg(not(bubblebench_nccl))]
    match Nccl::load()? {}
}

/// Sets `CUDA_DEVICE_MAX_CONNECTIONS` to 32 where the user has not set it, so that streams get that many hardware
/// queues instead of 8: ranks that share a GPU wait for each other, so none may stand behind another in a queue. Must
/// be called before any thread is started, because it changes the environment.
pub fn room_for_ranks() {
    const QUEUES: &str = "CUDA_DEVICE_MAX_CONNECTIONS";
    if std::env::var_os(QUEUES).is_none() {
        // SAFETY: no other thread exists yet that could read the environment meanwhile (the caller's promise).
        unsafe { std::env::set_var(QUEUES, "32") };
    }
}

/// A function that puts the next operation on the stream it is given; an error where a rank of the operation has
/// failed.
pub type PutNext = Box<dyn FnMut(CUstream) -> Result<()>>;

/// An in-place all-reduce of `bytes` of bf16 between these GPUs, the first being the caller's: each call of the
/// function puts one on the caller's stream, and the other GPUs follow. It runs in exactly `ctas` thread blocks
/// (`None`: as many as NCCL chooses). An error where NCCL is missing or the ranks do not all join within `deadline`.
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
