//! A job under another schedule than its file's: another name, or a list of operations.

use super::{Job, Parallel, spread};
use crate::pipeline::schedule::{Schedule, ScheduleName};
use crate::pipeline::schedules::numbers;
use crate::units::counted;
use crate::{Error, Result};
use std::sync::Arc;

impl Job {
    /// The job under the schedule of this name; its own `chunks` hold where the schedule leaves them to the job. Fails if
    /// the schedule does not exist for the job's numbers.
    pub fn with_schedule(&self, name: ScheduleName) -> Result<Job> {
        let chunks = self.parallel.chunks.filter(|_| name == ScheduleName::Interleaved);
        let parallel = Parallel { schedule: name, chunks, ..self.parallel.clone() };
        let job = Job { parallel, order: None, ..self.clone() };
        let (stages, micro_batches) = (job.parallel.pipeline as usize, job.micro_batches() as usize);
        numbers::check(name, stages, micro_batches, job.parallel.chunks())
            .map_err(|misfit| job.misfit(misfit.what, misfit.cure))?;
        job.holds(name.text())?;
        Ok(job)
    }

    /// The job with the operations of a list in place of its schedule's. Fails if the list is of another number of stages
    /// or micro-batches.
    pub fn with_order(&self, order: Schedule) -> Result<Job> {
        let sizes = [
            ("stage", order.stages as u64, self.parallel.pipeline, "pipeline"),
            ("micro-batch", order.micro_batches as u64, self.micro_batches(), "global_batch, data or micro_batch"),
        ];
        for (what, listed, own, key) in sizes {
            if listed != own {
                return Err(self.misfit(
                    format!("the job has {}, the list of operations has {}", counted(own, what), counted(listed, what)),
                    format!("change {key}, or give a list of the job's own numbers"),
                ));
            }
        }
        let job = Job { order: Some(Arc::new(order)), ..self.clone() };
        job.holds("the list of operations")?;
        Ok(job)
    }

    /// Every piece of the model has a layer, and what the job says of its stages still holds.
    fn holds(&self, schedule: &str) -> Result<()> {
        let (layers, pieces) = (self.model.layers, spread::pieces(self.layout()) as u64);
        if layers < pieces {
            return Err(self.misfit(
                format!("layers {layers} are fewer than the {pieces} chunks of {schedule}"),
                "every chunk of every stage holds a layer: use fewer stages or chunks",
            ));
        }
        match self.memory_mistake() {
            Some((_, what, cure)) => Err(self.misfit(what, cure)),
            None => Ok(()),
        }
    }

    fn misfit(&self, what: impl std::fmt::Display, cure: impl Into<String>) -> Error {
        Error::input(format!("{}: {what}", self.path.display()), cure)
    }
}
