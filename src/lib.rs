//! **bubblebench** measures what one GPT layer costs, what collectives and send/recv cost, and what a small model costs
//! *beside* the big one; fits those into one cost model; and uses it to fill the bubbles of pipeline-parallel training.
//!
//! Data flows one way:
//!
//! ```text
//! machine ─► ops ─► models ─► suite (cases) ─► clock ─► sampler ─► records ─► results/<machine>/
//!                                               import (nccl-tests, nvbench) ─┘         │
//!     job.toml ─► pipeline (schedule → timeline → bubbles) ◄─ cost (fit, predict)
//!                        │            ▲
//!                        ▼            └─ trace (profiles of a real run in, Perfetto out)
//!                      fill (plan) ─► corun::gate (signals at run time) ─► report · compare · export
//! ```
//!
//! Left of [`records`] code touches hardware. Right of it nothing does: [`cost`], [`pipeline`], [`fill`], [`trace`],
//! [`report`], [`import`] are functions from values to values and run on a laptop.
//!
//! Who may use whom: `cost pipeline fill trace export import report records stats units` never name cudarc, NCCL or `unsafe`;
//! cudarc is named only in `machine ops/cuda clock collectives corun`; [`models`] knows the [`ops::Ops`] trait only.

pub mod cli;
pub mod clock;
pub mod collectives;
pub mod corun;
pub mod cost;
pub mod error;
pub mod export;
pub mod fill;
pub mod import;
pub mod machine;
pub mod models;
pub mod ops;
pub mod pipeline;
pub mod records;
pub mod report;
pub mod shape;
pub mod stats;
pub mod suite;
pub mod trace;
pub mod units;

pub use error::{Error, Result};
