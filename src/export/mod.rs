//! Files for other programs: a file here for each format, and nothing in it that a person is meant to read (that is
//! [`crate::report`]). Where a program's format is read as well as written, [`crate::import`] reads it.
//!
//! Every format is a function from values to an [`Exported`]: the text of a file, or of a folder's files, and sentences on
//! what was lost, derived or taken for granted. What a format needs and the values lack is an error. Called by the command
//! line. The formats with their units and their readers: docs/exports.md.
//!
//! | file | for whom | from |
//! |---|---|---|
//! | [`galvatron`], [`simumax`], [`calculon`] | searches and simulators of parallel training | cost model |
//! | [`zero_bubble`] | a pipeline scheduler | cost model and job |
//! | [`gavel`] | a cluster scheduler that puts two jobs on one GPU | cost model, with records if there are some |
//! | [`nccl_tuner`], [`nccl_tests`] | NCCL's own tools | records |
//! | [`criterion`], [`nvbench`] | tools that compare two runs | records with samples |
//! | [`csv`] | a spreadsheet, pandas | cost model |
//! | [`perfetto`] | a viewer of timelines | a plan |
//! | [`workload`], [`questions`], [`measured`], [`samples`] | all of these: the job meant, single prices, measured cases, statistics | |

pub mod calculon;
pub mod criterion;
pub mod csv;
pub mod galvatron;
pub mod gavel;
pub mod measured;
pub mod nccl_tests;
pub mod nccl_tuner;
pub mod nvbench;
pub mod perfetto;
pub mod questions;
pub mod samples;
pub mod simumax;
pub mod workload;
pub mod zero_bubble;

use crate::Result;
use crate::records::files;
use serde::Serialize;

/// What is to be written for another program, and what its reader should know.
#[derive(Debug, Clone, PartialEq)]
pub struct Exported {
    /// The file or files.
    pub content: Content,
    /// Sentences on what was lost, derived or taken for granted, without a full stop at the end.
    pub notes: Vec<String>,
}

/// A file, or the files of a folder.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// The text of one file.
    File(String),
    /// Names and texts of the files of one folder.
    Folder(Vec<(String, String)>),
}

impl Exported {
    /// One file of JSON, indented, with a newline at its end.
    pub fn json(value: &impl Serialize, notes: Vec<String>) -> Result<Exported> {
        Ok(Exported { content: Content::File(json_text(value)?), notes })
    }
}

/// Indented JSON with a newline at its end.
fn json_text(value: &impl Serialize) -> Result<String> {
    Ok(files::to_json(value)? + "\n")
}

/// Bytes of one MiB.
const MIB: f64 = (1u64 << 20) as f64;
