//! Self-contained HTML pages: one file, no script needed, no request to anywhere, light or dark as the reader's system
//! is. Pictures are inline SVG drawn here.
//!
//! [`page`] is the frame and its style sheet, [`svg`] the few shapes, [`plan`] the plan's page with its pictures in [`timeline`],
//! [`memory`] and [`bars`], [`report`] the page of measurements, whose figures [`figure`](super::figure) draws.

pub mod bars;
pub mod memory;
pub mod page;
pub mod plan;
pub mod report;
pub mod svg;
pub mod timeline;
