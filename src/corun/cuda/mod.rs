//! A main and a side beside each other on one GPU: two streams, both on the GPU's own clock.
//!
//! * [`streams`] — the sharing modes two streams can have, and what of the machine decides whether they overlap at all.
//! * [`events`] — moments of both streams on one clock.
//! * [`programs`] — what runs, by name; [`side`] — a program on its own stream, kept running by its own thread.
//! * [`duo`] — both of them as [`super::pair`] measures them.
//!
//! Other ways to share (parts of the multiprocessors, processes, a gate on the GPU) are another [`super::pair::Duo`] or
//! another way to make a stream.

pub mod duo;
pub mod events;
pub mod programs;
pub mod side;
pub mod streams;

pub use duo::OnGpu;
pub use programs::{AllReduceSide, StreamMain, StreamSide};
pub use side::{SideProgram, SideStream};
pub use streams::Streams;
