//! (room corun)

pub mod threads;
