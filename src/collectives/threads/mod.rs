//! The host's transport: ranks are threads of one process, data moves through their one memory.
//!
//! * `world`: the ranks' threads, living as long as a case does, and the jobs they are given;
//! * `rank`: what an operation's code may do — send, receive, copy, wait for its own sends, meet the others;
//! * `memory`: buffers and the one-way edges between two ranks; all `unsafe` of the data's way is there;
//! * `pin`: a core for each rank;
//! * `wait`: how a rank waits (short spin, then yield), for how long, and how everybody learns that a rank is lost.
//!
//! A send shows the receiver where the data lies and the receiver reads it there, adding or copying as it goes: one
//! pass over memory. Only small messages are copied into the edge first, so that their sender need not wait for anyone.
//! The operations' files call this; it knows nothing of them.

mod memory;
mod pin;
mod rank;
mod wait;
mod world;

pub use memory::EAGER_CAPACITY;
pub use rank::{Combine, Rank};
pub use wait::Tuning;
pub use world::World;

#[cfg(test)]
mod tests;
