//! Two programs beside each other: how they share the cores, what each loses, and the gate that keeps the small one
//! inside the big one's bubbles.
//!
//! * [`gate`] — a page of shared memory that the big model opens and closes; [`gated`] puts it in front of any
//!   [`crate::ops::Ops`], so that models run through it unchanged, and [`last_operations`] keeps when the last of an
//!   opening ended. [`time`] is the clock of both.
//! * [`pressure`] — programs that load exactly one resource; [`load`] runs those and the small models in a thread
//!   ([`worker`]) and [`profile`] turns their operations into work; [`mains`] is what is measured beside them.
//! * [`live_side`] — a small model that trains in a process of its own behind a live gate.
//! * [`pair`] — alone and together in random order, and how much of it truly overlapped; [`sharing`] says
//!   who runs on which core.
//! * [`cuda`] — the same pair on a GPU: two streams, timed by events.
//! * [`stage`] — one pipeline stage's schedule of work and waits; [`replay`] runs it with real operations
//!   and predicts it from its [`calibration`]; [`fill_gate`] times the gate itself.
//!
//! A planner at run time needs [`gate`] only.

pub mod calibration;
pub mod cuda;
pub mod fill_gate;
pub mod gate;
pub mod gated;
pub mod last_operations;
pub mod live_side;
pub mod load;
pub mod mains;
pub mod pair;
pub mod pressure;
pub mod profile;
pub mod replay;
pub mod sharing;
pub mod stage;
pub mod time;
pub mod worker;
