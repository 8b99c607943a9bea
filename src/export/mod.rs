//! Files for other programs: a file here for each format, and nothing in it that a person is meant to read (that is
//! [`crate::report`]). Where a program's format is read as well as written, [`crate::import`] reads it.

pub mod nccl_tests;
pub mod perfetto;
