//! (room trace)
