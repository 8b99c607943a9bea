//! (room cost)
