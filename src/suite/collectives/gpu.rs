//! What a preset measures between GPUs: every operation in bf16, over sizes; the all-reduce in other types, in place,
//! as a graph, in registered buffers, and between fewer ranks.

use super::PING_PONG;
use crate::collectives::ranks::Task;
use crate::collectives::{CollectiveOperation, Element, Exchange};
use crate::suite::{Platform, Preset};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// Of a GPU's memory for one case's buffers; the rest is NCCL's and other processes'.
const SHARE: f64 = 0.8;

/// The cases of all of `ranks`, in the order they run, so far as their buffers fit into `memory_bytes`.
pub fn tasks(preset: Preset, platform: Platform, ranks: usize, memory_bytes: Option<u64>) -> Vec<Task> {
    let list = List { ranks, room: memory_bytes.map_or(f64::INFINITY, |bytes| SHARE * bytes as f64) };
    match (platform, preset) {
        (Platform::Software(_), Preset::Quick) => {
            list.software(&[8, 64, 512, 4 * KIB, 16 * KIB, 64 * KIB, 256 * KIB, MIB])
        }
        (Platform::Software(_), _) => list.software(&steps(8, 2 * MIB, 4)),
        (_, Preset::Quick) => list.quick(),
        (_, Preset::Standard) => list.standard(),
        (_, Preset::Full) => list.full(),
    }
}

/// The task with another size; `None` where ranks cannot share it out as NCCL's all-gather and its like need.
pub fn sized(task: &Task, bytes: u64) -> Option<Task> {
    let ranks = task.exchange.ranks;
    let whole = usize::try_from(bytes).ok()? / task.dtype.bytes();
    let parts = matches!(
        task.exchange.operation,
        CollectiveOperation::AllGather | CollectiveOperation::ReduceScatter | CollectiveOperation::AllToAll
    );
    let elements = if parts { whole / ranks * ranks } else { whole };
    let exchange = Exchange { elements, ..task.exchange };
    (elements > 0 && exchange.validate().is_ok()).then(|| Task { exchange, ..task.clone() })
}

struct List {
    ranks: usize,
    /// Bytes that a case's buffers may take.
    room: f64,
}

impl List {
    fn task(&self, operation: CollectiveOperation, dtype: Element) -> Task {
        let exchange = Exchange::new(operation, 0, self.ranks);
        Task { exchange, dtype, graph: false, registered: false, max_ctas: None }
    }

    /// Its sizes, as far as send and receive buffer fit beside each other.
    fn sweep(&self, task: &Task, sizes: &[u64]) -> Vec<Task> {
        let buffers = if task.exchange.in_place { 1.0 } else { 2.0 };
        let messages = if task.exchange.operation == CollectiveOperation::Pipeline { 2.0 } else { 1.0 };
        let fits = |bytes: &&u64| buffers * messages * **bytes as f64 <= self.room;
        sizes.iter().filter(fits).filter_map(|bytes| sized(task, *bytes)).collect()
    }

    fn bf16(&self, operation: CollectiveOperation, sizes: &[u64]) -> Vec<Task> {
        self.sweep(&self.task(operation, Element::Bf16), sizes)
    }

    /// The all-reduce in every way there is beside the plain one in bf16 between all.
    fn variants(&self, sizes: &[u64], fewer: &[u64]) -> Vec<Task> {
        let plain = self.task(CollectiveOperation::AllReduce, Element::Bf16);
        let in_place = Task { exchange: plain.exchange.in_place(true), ..plain.clone() };
        let mut ways = vec![
            in_place,
            Task { graph: true, ..plain.clone() },
            Task { registered: true, ..plain.clone() },
            Task { graph: true, registered: true, ..plain.clone() },
        ];
        let others = Element::ALL.into_iter().filter(|dtype| *dtype != Element::Bf16);
        ways.extend(others.map(|dtype| Task { dtype, ..plain.clone() }));
        let mut tasks: Vec<Task> = ways.iter().flat_map(|way| self.sweep(way, sizes)).collect();
        // Powers of two below: what the fit learns the number of ranks from.
        let below = std::iter::successors(Some(2usize), |n| Some(2 * n)).take_while(|n| *n < self.ranks);
        for ranks in below {
            let few = List { ranks, ..*self };
            for operation in
                [CollectiveOperation::AllReduce, CollectiveOperation::AllGather, CollectiveOperation::ReduceScatter]
            {
                tasks.extend(few.bf16(operation, fewer));
            }
        }
        tasks
    }

    fn quick(&self) -> Vec<Task> {
        let mut tasks = Vec::new();
        for operation in CollectiveOperation::ALL {
            let main = operation == CollectiveOperation::AllReduce || operation == PING_PONG;
            let few = [MIB, 64 * MIB];
            tasks.extend(if main { self.bf16(operation, &steps(8, 256 * MIB, 8)) } else { self.bf16(operation, &few) });
        }
        tasks
    }

    fn standard(&self) -> Vec<Task> {
        let sizes = steps(8, 2 * GIB, 4);
        let mut tasks: Vec<Task> =
            CollectiveOperation::ALL.iter().flat_map(|operation| self.bf16(*operation, &sizes)).collect();
        tasks.extend(self.variants(&[8, 2 * MIB, 128 * MIB], &[8, 128 * KIB, 2 * MIB, 128 * MIB]));
        tasks
    }

    fn full(&self) -> Vec<Task> {
        let sizes = steps(8, 4 * GIB, 2);
        let mut tasks: Vec<Task> =
            CollectiveOperation::ALL.iter().flat_map(|operation| self.bf16(*operation, &sizes)).collect();
        let in_place = CollectiveOperation::ALL.iter().filter(|operation| operation.definition().can_be_in_place());
        for operation in in_place {
            let plain = self.task(*operation, Element::Bf16);
            tasks.extend(self.sweep(&Task { exchange: plain.exchange.in_place(true), ..plain }, &sizes));
        }
        // In place is there already.
        let variants = self.variants(&steps(8, GIB, 4), &steps(8, GIB, 4));
        tasks.extend(variants.into_iter().filter(|task| !task.exchange.in_place));
        tasks
    }

    /// Small, because its times mean nothing, and sizes enough for a curve.
    fn software(&self, sizes: &[u64]) -> Vec<Task> {
        let mut tasks: Vec<Task> =
            CollectiveOperation::ALL.iter().flat_map(|operation| self.bf16(*operation, sizes)).collect();
        tasks.extend(self.variants(&[4 * KIB], &[64]));
        tasks
    }
}

/// From `least` to `most`, each `factor` times the one before.
fn steps(least: u64, most: u64, factor: u64) -> Vec<u64> {
    std::iter::successors(Some(least), |bytes| Some(bytes * factor)).take_while(|bytes| *bytes <= most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn kinds(tasks: &[Task]) -> HashSet<String> {
        tasks.iter().map(|task| format!("{task:?}")).collect()
    }

    fn list(preset: Preset) -> Vec<Task> {
        tasks(preset, Platform::Gpu(0), 8, Some(80 * GIB))
    }

    #[test]
    fn lists_keep_their_sizes_and_hold_nothing_twice() {
        let (quick, standard, full) = (list(Preset::Quick), list(Preset::Standard), list(Preset::Full));
        assert!(quick.len() <= 40 && standard.len() <= 220, "{} {}", quick.len(), standard.len());
        for tasks in [&quick, &standard, &full] {
            assert_eq!(kinds(tasks).len(), tasks.len());
            for operation in CollectiveOperation::ALL {
                assert!(tasks.iter().any(|task| task.exchange.operation == operation), "{operation:?}");
            }
        }
        let most = full.iter().map(Task::bytes).max();
        assert_eq!((full.iter().map(Task::bytes).min(), most), (Some(8), Some(4 * GIB)));
        assert!(kinds(&standard).is_subset(&kinds(&full)));
    }

    #[test]
    fn what_does_not_fit_is_left_out() {
        let small = tasks(Preset::Full, Platform::Gpu(0), 2, Some(GIB));
        assert!(small.iter().all(|task| task.bytes() <= GIB / 2) && !small.is_empty());
    }

    #[test]
    fn ranks_share_what_is_cut_into_parts() {
        let six = tasks(Preset::Standard, Platform::Gpu(0), 6, None);
        let parts = six.iter().filter(|task| task.exchange.operation == CollectiveOperation::AllGather);
        assert!(parts.clone().count() > 5);
        assert!(parts.into_iter().all(|task| task.exchange.elements % task.exchange.ranks == 0));
        assert!(six.iter().any(|task| task.exchange.ranks == 4) && six.iter().all(|task| task.exchange.ranks != 3));
    }

    #[test]
    fn the_software_devices_list_is_short_and_holds_curves() {
        let quick = tasks(Preset::Quick, Platform::Software(0), 4, None);
        assert!(quick.len() <= 110, "{}", quick.len());
        for operation in CollectiveOperation::ALL {
            assert!(quick.iter().filter(|task| task.exchange.operation == operation).count() >= 3, "{operation:?}");
        }
    }
}
