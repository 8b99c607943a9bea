//! (room corun)
