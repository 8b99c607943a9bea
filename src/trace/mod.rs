//! Timelines in formats that trace viewers read. Called by the command line; calls [`crate::pipeline`] for what ran when.

pub mod perfetto;
