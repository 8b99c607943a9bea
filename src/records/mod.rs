//! What is written down: measurements, the machine, the cost model; how it is read and written, never half a file.
//!
//! `suite` writes measurements, `cost` reads them and makes the cost model, and what is computed from that reads files only.
//! The structs here *are* the file formats: their JSON Schemas are derived from them ([`schema`]).

pub mod bubbles;
pub mod cost_model;
pub mod csv;
pub mod files;
pub mod flags;
pub mod machine;
pub mod measurement;
pub mod own_model;
pub mod schema;
pub mod store;
pub mod telemetry;
pub mod topology;

pub use bubbles::BubblesRecord;
pub use cost_model::CostModel;
pub use machine::MachineRecord;
pub use measurement::Measurement;
