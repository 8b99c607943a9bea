//! The software CUDA device (`tests/softgpu`): the driver's calls as cudarc makes them, and the program on top of it.
//!
//! The driver has one state a process and a failed kernel breaks it, so every test runs in a process of its own: this
//! very executable, asked for that one test, with the environment the test wants (`harness::alone`).

#[path = "software_device/harness.rs"]
#[macro_use]
mod harness;
#[path = "software_device/faults.rs"]
mod faults;
#[path = "software_device/graphs.rs"]
mod graphs;
#[path = "software_device/launches.rs"]
mod launches;
#[path = "software_device/memory.rs"]
mod memory;
#[path = "software_device/program.rs"]
mod program;
#[path = "software_device/streams.rs"]
mod streams;
#[path = "software_device/wgmma.rs"]
mod wgmma;
