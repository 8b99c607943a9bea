//! Profiles of real runs in, timelines for trace viewers out.
//!
//! In: nsys `.sqlite` exports ([`nsys`]) and Kineto or Chrome JSON ([`kineto`]), read as streams of spans in order
//! ([`order`]), passed over once ([`scan`]), cut into iterations ([`windows`], [`period`]) and, several profiles of one
//! run, brought onto one clock ([`align`]): [`run::read`] makes the record of their bubbles, [`positions`] says where in
//! a pipeline schedule each lies. Out: [`perfetto`]. Called by the command line; calls [`crate::records`] and
//! [`crate::pipeline`].

pub mod align;
pub mod classify;
pub mod kineto;
pub mod nsys;
pub mod order;
pub mod perfetto;
pub mod period;
pub mod positions;
pub mod profile;
pub mod run;
pub mod scan;
pub mod source;
pub mod span;
pub mod windows;
