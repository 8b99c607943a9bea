//! (room machine)
