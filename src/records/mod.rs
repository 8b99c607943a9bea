//! What is written down: measurements, the machine, the cost model; how it is read and written, never half a file.
//!
//! `suite` writes measurements, `cost` reads them and makes the cost model, and what is computed from that reads files only.
//! The structs here *are* the file formats: their JSON Schemas are derived from them ([`schema`]).

pub mod bubbles;
pub mod cost_model;
pub mod csv;
pub mod files;
pub mod fill_verdict;
pub mod flags;
pub mod machine;
pub mod measurement;
pub mod own_model;
pub mod public;
pub mod safetensors;
pub mod schema;
pub mod store;
pub mod telemetry;
pub mod topology;

use sha2::{Digest, Sha256};

pub use bubbles::BubblesRecord;
pub use cost_model::CostModel;
pub use machine::{Gpu, MachineRecord};
pub use measurement::Measurement;

/// SHA-256 of these bytes, in hexadecimal.
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
