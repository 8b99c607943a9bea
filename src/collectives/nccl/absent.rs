//! In place of `library.rs` where the program was built without the bindings: nothing can be loaded.

use super::UniqueId;
use crate::machine::built;
use crate::{Error, Result};
use std::path::Path;

/// NCCL's library, of which no value exists in a program that was built without the bindings.
#[derive(Debug)]
pub enum Nccl {}

impl Nccl {
    /// Always an error here: it says why the bindings were left out when the program was built, and what to install.
    pub fn load() -> Result<Self> {
        let skipped = built::MISSING.iter().find(|missing| missing.what == built::NCCL_BINDINGS);
        let (reason, install) = skipped.map_or(("", ""), |missing| (missing.reason, missing.install));
        Err(Error::machine(
            format!("this program was built without NCCL bindings ({reason})"),
            format!("{install}, then build again"),
        ))
    }

    /// The library's file; it cannot be called, because no value of this type exists.
    pub fn path(&self) -> &Path {
        match *self {}
    }

    /// The library's version; it cannot be called, because no value of this type exists.
    pub fn version(&self) -> Result<String> {
        match *self {}
    }

    /// A new id for one communicator; it cannot be called, because no value of this type exists.
    pub fn unique_id(&self) -> Result<UniqueId> {
        match *self {}
    }
}
