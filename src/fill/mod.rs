//! (room fill)
