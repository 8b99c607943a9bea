//! NCCL's way on the software device: operations between 2 to 8 virtual GPUs, checked element by element; what goes wrong
//! and how that ends; what an older library lacks.
//!
//! Each test runs in a process of its own (`harness::alone`), with the devices and faults it wants in its environment. All
//! 10,000 random cases: `RANDOM_NCCL_CASES=10000 cargo test --test nccl random`.
#![cfg(bubblebench_nccl)]
#![allow(dead_code)]

#[macro_use]
#[path = "software_device/harness.rs"]
mod harness;

#[path = "nccl/faults.rs"]
mod faults;
#[path = "nccl/group.rs"]
mod group;
#[path = "nccl/operations.rs"]
mod operations;
#[path = "nccl/program.rs"]
mod program;
