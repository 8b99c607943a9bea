//! Which small-model work goes into which bubble, and what it wins.
//!
//! ```text
//! job.toml, cost model ─► side (kernels, memory, margins) ─┐
//! pipeline: bubbles, free memory (or measured ones) ───────┴─► pack (a stage's problem) ─► planner, beam, ways (solution)
//!           lengths (learned from many iterations), receive, overrun: what a bubble is worth and costs ──┘
//!                                     plan: all stages, slowdown by delay, other schedules ─► record ◄─┘
//! ```
//!
//! Values to values: the gate that carries a plan out is `corun::gate`, and [`simulation`] is that gate event by event. The
//! method and its equations: docs/planning.md.

mod alternatives;
pub mod assemble;
mod attempt;
pub mod beam;
pub mod beside;
pub mod bubble_list;
pub mod delay;
pub mod gate_defaults;
pub mod kernels;
pub mod lengths;
pub mod measured;
pub mod overlap;
pub mod overrun;
pub mod pack;
pub mod plan;
pub mod planner;
pub mod receive;
mod recent;
pub mod record;
pub mod segments;
pub mod side;
pub mod side_gpt;
pub mod simulation;
pub mod stages;
mod ways;
pub mod why;

pub use plan::plan;
pub use side::CompleteSide;
