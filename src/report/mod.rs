//! Numbers become text here and nowhere else: tables for the terminal and for Markdown, timelines, notes.

pub mod accuracy;
pub mod bubbles;
pub mod collectives;
pub mod compare;
pub mod corun;
pub mod figure;
pub mod fill;
pub mod html;
pub mod lanes;
pub mod latex;
pub mod layers;
pub mod plan;
pub mod provenance;
pub mod publication;
pub mod screen;
pub mod table;
pub mod tables;
pub mod timeline;

pub use screen::Screen;
pub use table::Table;
