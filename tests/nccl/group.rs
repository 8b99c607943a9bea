//! A group of ranks that are threads, one on each virtual GPU, and tasks for it.

use bubblebench::collectives::nccl;
use bubblebench::collectives::ranks::{Coordinator, GroupConfig, Task};
use bubblebench::collectives::{CollectiveOperation, Element, Exchange};
use std::time::Duration;

pub fn coordinator(ranks: u32, deadline: Duration) -> Coordinator {
    coordinator_on(&(0..ranks).collect::<Vec<_>>(), deadline).unwrap()
}

pub fn coordinator_on(devices: &[u32], deadline: Duration) -> bubblebench::Result<Coordinator> {
    let config = GroupConfig { transport: nccl::transport()?, deadline, interrupted: || false, last_resort: |_| {} };
    Coordinator::of_threads(&config, devices)
}

pub fn task(exchange: Exchange, dtype: Element) -> Task {
    Task { exchange, dtype, graph: false, registered: false, max_ctas: None }
}

/// NCCL takes equal parts: so many elements, or a few less.
pub fn even(operation: CollectiveOperation, elements: usize, ranks: usize) -> Exchange {
    let parts = matches!(
        operation,
        CollectiveOperation::AllGather | CollectiveOperation::ReduceScatter | CollectiveOperation::AllToAll
    );
    let elements = if parts { (elements / ranks).max(1) * ranks } else { elements };
    Exchange::new(operation, elements, ranks)
}
