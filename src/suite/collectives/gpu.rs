//! What a preset measures between GPUs: every operation, both element types that training sends, a sweep of sizes.

use super::PING_PONG;
use crate::collectives::ranks::Task;
use crate::collectives::{Element, Exchange, Operation};
use crate::suite::{Platform, Preset};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The cases of all of `ranks`, in the order they run.
pub fn tasks(preset: Preset, platform: Platform, ranks: usize) -> Vec<Task> {
    let software = matches!(platform, Platform::Software(_));
    let most = match (software, preset) {
        (true, _) => MIB,
        (false, Preset::Quick) => 256 * MIB,
        (false, Preset::Standard) => GIB,
        (false, Preset::Full) => 4 * GIB,
    };
    let step = if preset == Preset::Full { 2 } else { 8 };
    let mut tasks = Vec::new();
    for operation in Operation::ALL {
        let main = matches!(operation, Operation::AllReduce) || operation == PING_PONG;
        let least = if preset == Preset::Quick && !main { MIB } else { 8 };
        for bytes in sizes(least, most, step) {
            tasks.extend(task(operation, Element::Bf16, bytes, ranks));
        }
    }
    tasks
}

fn sizes(least: u64, most: u64, step: u64) -> impl Iterator<Item = u64> {
    std::iter::successors(Some(least), move |bytes| Some(bytes * step)).take_while(move |bytes| *bytes <= most)
}

/// `None` where ranks do not divide the buffer, which NCCL's all-gather and its like need.
fn task(operation: Operation, dtype: Element, bytes: u64, ranks: usize) -> Option<Task> {
    let elements = bytes as usize / dtype.bytes() / ranks * ranks;
    let exchange = Exchange::new(operation, elements, ranks);
    (elements > 0).then_some(Task { exchange, dtype, graph: false, registered: false, max_ctas: None })
}
