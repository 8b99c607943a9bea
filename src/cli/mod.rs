//! (room cli)
pub mod simulate;
