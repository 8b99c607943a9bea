//! NCCL, loaded when the program runs: bindings that bindgen made from `nccl.h`, over whichever library is found.
//!
//! A program built without `nccl.h` or libclang has no bindings, and [`Nccl::load`] says so with the cure; everything
//! else is the same. `collectives` calls this; it calls `machine::libraries` for the library.

#[cfg(bubblebench_nccl)]
mod library;
#[cfg(bubblebench_nccl)]
pub mod sys;

#[cfg(not(bubblebench_nccl))]
#[path = "absent.rs"]
mod library;

pub use library::Nccl;

/// What rank 0 makes and every rank of a communicator is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UniqueId(pub [u8; 128]);

/// NCCL as the crew's way of moving data; without bindings or library an error says what is missing.
pub fn transport() -> crate::Result<std::sync::Arc<dyn super::ranks::Transport>> {
    let path = Nccl::load()?.path().display().to_string();
    Err(crate::Error::machine(format!("{path} cannot be used"), "wait for the merge"))
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
