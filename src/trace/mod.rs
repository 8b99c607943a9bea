//! Profiles of real runs: where each GPU computed nothing, and why.
//!
//! nsys `.sqlite` exports ([`nsys`]) and Kineto or Chrome JSON ([`kineto`]), read as streams of spans in order
//! ([`order`]), passed over once ([`scan`]), cut into iterations ([`windows`], [`period`]) and, several profiles of one
//! run, brought onto one clock ([`align`]): [`run::read`] makes the record of their bubbles, [`positions`] says where in
//! a pipeline schedule each lies.

pub mod align;
pub mod classify;
pub mod kineto;
pub mod nsys;
pub mod order;
pub mod pending;
pub mod period;
pub mod positions;
pub mod profile;
pub mod run;
pub mod scan;
pub mod source;
pub mod span;
pub mod windows;
