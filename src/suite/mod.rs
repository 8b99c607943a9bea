//! The cases: what is measured, under which stable name, in which order; the sampler that decides when a case has been
//! measured well enough; and the runner that turns samples into records.
//!
//! One case, two drivers: `bubblebench measure` uses our [`sampler`], `cargo bench` puts Criterion in front of the same
//! [`Case`].

pub mod case;
pub mod collectives;
pub mod corun;
pub mod fill;
pub mod gpt_layer;
pub mod groups;
mod layer_cache;
pub mod observer;
mod platform;
pub mod presets;
pub mod recorder;
pub mod sampler;
pub mod stop_rule;
pub mod summary;
pub mod throttle;
pub mod visits;
pub mod watch;
pub mod watchdog;

/// Version of what the cases measure, which every run's `machine.json` holds. Whoever makes a case of a known name measure
/// something else raises it: `compare` then does not hold the two against each other.
pub const CASE_DEFINITIONS: u32 = 2;

pub use case::{Case, CaseInfo, Context, Detail, RawSample, Spec};
pub use platform::Platform;
pub use presets::Preset;
