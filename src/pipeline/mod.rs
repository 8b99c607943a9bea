//! (room pipeline)
