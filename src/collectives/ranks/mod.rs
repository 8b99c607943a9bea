//! Ranks: how they are told who they are, how they meet, and how they measure together.
//!
//! * `worker`: what a transport gives — one rank's side of a case;
//! * `rank_thread`: the thread a worker lives on; `protocol`: the commands it is given and its replies;
//! * `coordinator`: rank 0's side of all ranks; `failure`: which rank is at fault when one does not answer;
//!   `rank_info`: where a rank runs, for messages;
//! * `environment`: rank, number of ranks and rank 0's address, from the launcher's variables; `slurm`: its node lists;
//! * `rendezvous` (rank 0) and `member` (all others): how processes meet, and what a member does; `handshake`: the
//!   proof that they belong together;
//! * `message`, `link`: messages between processes, and noticing that one is gone; `token`: keeping strangers out.

mod coordinator;
mod environment;
mod failure;
mod handshake;
mod link;
mod member;
mod message;
mod protocol;
mod rank_info;
mod rank_thread;
mod rendezvous;
mod slurm;
pub mod token;
pub mod worker;

pub use coordinator::{Coordinator, GroupConfig, GroupPrepared, GroupTiming};
pub use environment::RankEnvironment;
pub use member::follow;
pub use rank_info::RankInfo;
pub use rendezvous::lead;
pub use worker::{Abort, MeetingId, RankConfig, RankTiming, Task, Transport, Worker};
