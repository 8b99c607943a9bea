//! Ranks: how they are told who they are, how they meet, and how they measure together.
//!
//! * `worker`: what a transport gives — one rank's side of a case.

pub mod worker;
