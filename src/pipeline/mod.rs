//! Pipeline-parallel schedules, their timelines, and the bubbles in them: values to values, whole nanoseconds, no clock.
//!
//! ```text
//! schedules, or given (a fixed list of operations per stage) ─► simulate (when each runs) ─► bubbles (where nothing does)
//! job.toml ─► job ─► costs (a stage's times from the cost model) ─┘                          └─► memory (what is free in each)
//! ```
//!
//! The rules stand in docs/pipeline.md.

pub mod activations;
pub mod bubbles;
pub mod costs;
pub mod given;
pub mod iteration;
pub mod job;
pub mod layout;
pub mod memory;
pub mod operations;
pub mod presets;
pub mod prices;
pub mod record;
pub mod schedule;
pub mod schedules;
pub mod simulate;
pub mod sweep;
pub mod times;
pub mod toml_section;
pub mod variants;

pub use bubbles::{Bubble, BubbleKind};
pub use layout::{Layout, Placement};
pub use schedule::{OrderName, Schedule, ScheduleName, ScheduleSpec, StageOperation, Work};
pub use simulate::{Timeline, simulate};
pub use times::{StageTimes, Times};
