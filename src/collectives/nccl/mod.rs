//! NCCL, loaded when the program runs: bindings that bindgen made from `nccl.h`, over whichever library is found.
//!
//! * `library`: finding it, its version, the id by which ranks meet, its errors in its own words;
//! * `communicator`: one rank's membership: made, waited for with a deadline, aborted, ended in order;
//! * `enqueue`: an [`Exchange`](super::Exchange) as NCCL's calls, on GPU buffers;
//! * `gpu`, `values`: the rank's stream and memory; inputs written there and results compared, every element;
//! * `worker`: one rank's side of a case ([`super::ranks::worker::Worker`]); `transport`: how the crew comes to it;
//! * `tuning`: which algorithm, protocol and channels NCCL chose, where its log tells.
//!
//! A program built without `nccl.h` or libclang has no bindings, and [`Nccl::load`] says so with the cure; everything
//! else is the same. `suite` and `corun` call this; it calls `machine::libraries` for the library and the driver through
//! cudarc. It needs none of our kernels.

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
use std::sync::Arc;

/// What rank 0 makes and every rank of a communicator is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniqueId(pub [u8; 128]);

/// NCCL as the crew's way of moving data; without bindings or library an error says what is missing.
pub fn transport() -> Result<Arc<dyn Transport>> {
    #[cfg(bubblebench_nccl)]
    return Ok(Arc::new(transport::NcclTransport::load()?));
    #[cfg(not(bubblebench_nccl))]
    match Nccl::load()? {}
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
