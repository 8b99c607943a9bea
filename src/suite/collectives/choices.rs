//! What a user wants of the collectives' cases beyond their preset: other sizes, one type, graphs, registered buffers,
//! a cap on the thread blocks.

use super::HostSpec;
use crate::collectives::Element;
use crate::collectives::ranks::Task;
use crate::{Error, Result};

/// The user's choices for the collectives' cases; what is left out stays as the preset has it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choices {
    /// Message sizes in bytes, as nccl-tests counts them, in place of the preset's; `None` keeps the preset's.
    pub sizes: Option<Vec<u64>>,
    /// One element type for every case in place of the preset's; `None` keeps the preset's.
    pub dtype: Option<Element>,
    /// Runs every case from captured CUDA graphs, not only those for which the preset asks.
    pub graph: bool,
    /// Registers every case's buffers with the communicator, not only those for which the preset asks.
    pub registered: bool,
    /// Thread blocks that NCCL runs every case in; `None` keeps the preset's choice, or NCCL's own.
    pub max_ctas: Option<u32>,
}

impl Choices {
    /// The tasks with what was chosen in place of what the preset has; a size that ranks cannot share out is left out.
    pub(super) fn of_tasks(&self, tasks: Vec<Task>) -> Vec<Task> {
        let mut chosen: Vec<Task> = Vec::new();
        for task in tasks {
            let task = Task {
                dtype: self.dtype.unwrap_or(task.dtype),
                graph: task.graph || self.graph,
                registered: task.registered || self.registered,
                max_ctas: self.max_ctas.or(task.max_ctas),
                ..task
            };
            let own = task.bytes();
            let sizes = self.sizes.clone().unwrap_or_else(|| vec![own]);
            chosen.extend(sizes.into_iter().filter_map(|bytes| super::gpu::sized(&task, bytes)));
        }
        without_repeats(chosen)
    }

    /// The same of the host's cases, which have none of the rest.
    pub(super) fn of_host(&self, cases: Vec<HostSpec>) -> Vec<HostSpec> {
        let Some(sizes) = &self.sizes else { return cases };
        let sized = |spec: HostSpec| sizes.iter().filter_map(move |bytes| spec.sized(*bytes)).collect::<Vec<_>>();
        without_repeats(cases.into_iter().flat_map(sized).collect())
    }

    /// An error that names the first option which the host's collectives do not have (another type than f32, graphs,
    /// registered buffers, thread blocks), if one was chosen.
    pub fn refuse_on_host(&self) -> Result<()> {
        let asked = [
            (self.dtype.is_some_and(|dtype| dtype != Element::F32), "--dtype"),
            (self.graph, "--graph"),
            (self.registered, "--registered"),
            (self.max_ctas.is_some(), "--max-ctas"),
        ];
        match asked.iter().find(|(asked, _)| *asked) {
            None => Ok(()),
            Some((_, option)) => Err(Error::input(
                format!("{option} is for GPUs: the host's collectives run between threads, in f32, without NCCL"),
                "leave it out, or measure with --device cuda",
            )),
        }
    }
}

fn without_repeats<T: PartialEq>(all: Vec<T>) -> Vec<T> {
    let mut once = Vec::with_capacity(all.len());
    for one in all {
        if !once.contains(&one) {
            once.push(one);
        }
    }
    once
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::collectives::gpu;
    use crate::suite::{Platform, Preset};

    fn tasks(choices: &Choices) -> Vec<Task> {
        choices.of_tasks(gpu::tasks(Preset::Quick, Platform::Gpu(0), 8, None))
    }

    #[test]
    fn sizes_take_the_place_of_the_presets() {
        let all = tasks(&Choices::default());
        let two = tasks(&Choices { sizes: Some(vec![64, 1 << 20]), ..Choices::default() });
        let kinds = |tasks: &[Task]| {
            let kinds = tasks.iter().map(|t| (t.exchange.operation, t.dtype, t.exchange.in_place, t.exchange.ranks));
            kinds.collect::<std::collections::HashSet<_>>()
        };
        assert_eq!(kinds(&all), kinds(&two));
        assert_eq!(two.len(), 2 * kinds(&two).len());
        assert!(two.iter().all(|task| [64, 1 << 20].contains(&task.bytes())));
        // 8 bytes are four numbers, which eight ranks cannot share; an all-reduce can.
        let least = tasks(&Choices { sizes: Some(vec![8]), ..Choices::default() });
        assert!(
            !least.is_empty() && least.iter().all(|task| task.exchange.operation.definition().name() != "all_gather")
        );
    }

    #[test]
    fn everything_else_holds_for_every_case() {
        let chosen =
            Choices { dtype: Some(Element::F16), graph: true, registered: true, max_ctas: Some(8), sizes: None };
        let all = tasks(&chosen);
        assert!(all.iter().all(|t| t.dtype == Element::F16 && t.graph && t.registered && t.max_ctas == Some(8)));
        assert!(chosen.refuse_on_host().is_err() && Choices::default().refuse_on_host().is_ok());
    }
}
