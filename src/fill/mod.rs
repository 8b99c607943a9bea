//! Which small-model work goes into which bubble, and what it wins.
//!
//! Called by `bubblebench plan`; calls [`crate::pipeline`] for the timeline and the memory free in it, and the cost
//! model for what the gate and the small models cost. Values to values: the gate that carries a plan out is
//! `corun::gate`.

pub mod plan;
pub mod planner;
pub mod record;
pub mod side;

pub use plan::plan;
pub use side::Side;
