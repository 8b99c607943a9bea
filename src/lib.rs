//! **bubblebench** measures what one GPT layer costs, what collectives and send/recv cost, and what a small model costs
//! *beside* the big one; fits those into one cost model; and uses it to fill the bubbles of pipeline-parallel training.
//!
//! Data flows one way:
//!
//! ```text
//! (devices)  machine ─► ops ─► models ─► collectives, corun ─► suite (cases, sampler) ◄─ clock (how time is read)
//!                                                                │ └─► monitor (for Prometheus, while a run lasts)
//!                                                                ▼
//! (both)     shape (sizes, layers, operations) ─►  results/<machine>/ ◄─ records ◄─ import (nccl-tests, nvbench, tables)
//!                                                                │
//!                                                                ▼
//! (values)                 job.toml ─► pipeline ◄─ cost (fit, predict)
//!                                       │    ▲
//!                                       ▼    └─ trace (profiles of real runs)
//!       fill (a plan), compare (of several sides), figures (of a report) ─► report (for people), export (for programs)
//! ```
//!
//! The device wing ([`machine`], [`ops`], [`clock`], [`models`], [`collectives`], [`corun`], [`suite`], [`monitor`]) touches
//! hardware. The value wing ([`cost`], [`pipeline`], [`trace`], [`fill`], [`compare`], [`figures`], [`import`], [`export`],
//! [`report`]) does not: its functions go from values to values and run on a laptop. The wings share two rooms: [`shape`], the
//! values both speak of, and [`records`], the files one writes and the other reads; [`error`], [`nearest`], [`stats`] and
//! [`units`] serve both.
//! [`export`] takes what another program wants from [`records`], [`cost`], [`pipeline`] and [`fill`].
//!
//! Who may use whom is a table in `tests/rooms.rs`, which every `cargo test` holds the code against; `unsafe` code
//! is allowed in [`machine`], [`ops`], [`collectives`] and [`corun`] only, cudarc in those and [`clock`].

#![warn(missing_docs)]
#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used))]

pub mod cli;
pub mod clock;
#[allow(unsafe_code)]
pub mod collectives;
pub mod compare;
#[allow(unsafe_code)]
pub mod corun;
pub mod cost;
pub mod error;
pub mod export;
pub mod figures;
pub mod fill;
pub mod import;
#[allow(unsafe_code)]
pub mod machine;
pub mod models;
pub mod monitor;
pub mod nearest;
#[allow(unsafe_code)]
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
