//! Ranks: how they are told who they are, how they meet, and how they measure together.
//!
//! * `worker`: what a transport gives — one rank's side of a case;
//! * `post`: the thread a worker lives on; `orders`: what it is asked and what it answers;
//! * `crew`: rank 0's side of all ranks; `verdict`: whose fault it is when one does not answer; `who`: its name for people;
//! * `wire`, `link`: letters between processes, and noticing that one is gone; `token`: keeping strangers out.

mod crew;
mod link;
mod orders;
mod post;
pub mod token;
mod verdict;
mod who;
mod wire;
pub mod worker;

pub use crew::{Crew, CrewTiming, Prepared, Terms};
pub use who::Who;
pub use worker::{Abort, MeetingId, RankTiming, Seat, Task, Transport, Worker};
