//! Ranks: how they are told who they are, how they meet, and how they measure together.
//!
//! * `worker`: what a transport gives — one rank's side of a case;
//! * `post`: the thread a worker lives on; `orders`: what it is asked and what it answers;
//! * `crew`: rank 0's side of all ranks; `verdict`: whose fault it is when one does not answer; `who`: its name for people;
//! * `launch`: rank, number of ranks and meeting place, from the launcher's variables; `slurm`: its node lists;
//! * `rendezvous` (rank 0) and `member` (all others): how processes meet, and what a member does; `handshake`: the proof
//!   that they belong together;
//! * `wire`, `link`: letters between processes, and noticing that one is gone; `token`: keeping strangers out.

mod crew;
mod handshake;
mod launch;
mod link;
mod member;
mod orders;
mod post;
mod rendezvous;
mod slurm;
pub mod token;
mod verdict;
mod who;
mod wire;
pub mod worker;

pub use crew::{Crew, CrewTiming, Prepared, Terms};
pub use launch::Launch;
pub use member::follow;
pub use rendezvous::lead;
pub use who::Who;
pub use worker::{Abort, MeetingId, RankTiming, Seat, Task, Transport, Worker};
