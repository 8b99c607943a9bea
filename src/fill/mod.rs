//! Which small-model work goes into which bubble, and what it wins.
//!
//! ```text
//! job.toml, cost model ─► side (kernels, memory, margins) ─┐
//! pipeline: bubbles, free memory (or measured ones) ───────┴─► pack (a stage's question) ─► planner, beam (its answer)
//!                                     plan: all stages, slowdown by delay, other schedules ─► record ◄─┘
//! ```
//!
//! Called by `bubblebench plan`; calls [`crate::pipeline`] for the timeline and the memory free in it, and the cost
//! model for what the gate and the small models cost. Values to values: the gate that carries a plan out is
//! `corun::gate`. The method and its equations: docs/planning.md.

pub mod assemble;
pub mod beam;
pub mod beside;
pub mod delay;
pub mod kernels;
pub mod measured;
pub mod pack;
pub mod plan;
pub mod planner;
pub mod record;
pub mod side;
pub mod side_gpt;
pub mod stages;
pub mod why;

pub use plan::plan;
pub use side::Side;
