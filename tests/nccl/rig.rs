//! A crew of threads, one a virtual GPU, and tasks for it.

use bubblebench::collectives::nccl;
use bubblebench::collectives::ranks::{Crew, Task, Terms};
use bubblebench::collectives::{Element, Exchange, Operation};
use std::time::Duration;

pub fn crew(ranks: u32, deadline: Duration) -> Crew {
    crew_on(&(0..ranks).collect::<Vec<_>>(), deadline).unwrap()
}

pub fn crew_on(devices: &[u32], deadline: Duration) -> bubblebench::Result<Crew> {
    let terms = Terms { transport: nccl::transport()?, deadline, interrupted: || false, last_resort: |_| {} };
    Crew::of_threads(&terms, devices)
}

pub fn task(exchange: Exchange, dtype: Element) -> Task {
    Task { exchange, dtype, graph: false, registered: false, max_ctas: None }
}

/// NCCL takes equal parts: so many elements, or a few less.
pub fn even(operation: Operation, elements: usize, ranks: usize) -> Exchange {
    let parts = matches!(operation, Operation::AllGather | Operation::ReduceScatter | Operation::AllToAll);
    let elements = if parts { (elements / ranks).max(1) * ranks } else { elements };
    Exchange::new(operation, elements, ranks)
}
