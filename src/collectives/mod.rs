//! (room collectives)
