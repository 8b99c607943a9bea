//! A case that all ranks run together: its name, its record, and how one sample is taken by the coordinator.
//!
//! Beside the time of the slowest rank the record keeps every rank's own median, so that a slow GPU or link shows.

use super::super::case::Sampling;
use super::super::{Case, CaseInfo, Context, Detail, RawSample, Spec};
use crate::collectives::ranks::{Coordinator, GroupTiming, Task};
use crate::records::flags::SHARED_GPU;
use crate::records::measurement::{Backend, Kind, Launch, Verified};
use crate::units::format_bytes;
use crate::{Error, Result, stats};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Isolated operations in a sample whose batch is long enough to hide them.
const ISOLATED: u64 = 15;

/// Telling all ranks and starting together costs as much as a short batch: these are long beside it.
const SAMPLING: Sampling = Sampling { batch_ns: 2e6, min_samples: 20, least_samples: 5, revisited: false, rule: None };

/// The one coordinator that all collective cases of a run share; clones refer to the same one.
#[derive(Clone)]
pub struct SharedCoordinator(Arc<Mutex<Coordinator>>);

impl SharedCoordinator {
    /// Shares the coordinator; its group of ranks ends when the last clone is dropped.
    pub fn new(coordinator: Coordinator) -> Self {
        SharedCoordinator(Arc::new(Mutex::new(coordinator)))
    }

    /// Waits until nobody else holds the coordinator and returns it; that an earlier holder panicked is ignored.
    pub fn lock(&self) -> MutexGuard<'_, Coordinator> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cases that run these tasks with this coordinator, in their order.
    pub fn cases(&self, tasks: Vec<Task>) -> Vec<Box<dyn Spec>> {
        let spec = |task| Box::new(RankedSpec { task, coordinator: self.clone() }) as Box<dyn Spec>;
        tasks.into_iter().map(spec).collect()
    }
}

struct RankedSpec {
    task: Task,
    coordinator: SharedCoordinator,
}

impl Spec for RankedSpec {
    /// `nccl/all_reduce/r8/bf16/64MiB`; between hosts `…/r16/n2/…`; what was asked for beyond that follows the size.
    fn id(&self) -> String {
        let coordinator = self.coordinator.lock();
        let Task { exchange, dtype, graph, registered, max_ctas } = &self.task;
        let nodes = Some(coordinator.nodes(exchange.ranks)).filter(|nodes| *nodes > 1);
        let mut id = format!("{}/{}/r{}", coordinator.transport(), exchange.operation.path(), exchange.ranks);
        id.extend(nodes.map(|nodes| format!("/n{nodes}")));
        id.push_str(&format!("/{}/{}", dtype.name(), format_bytes(self.task.bytes())));
        for (asked, name) in [(exchange.in_place, "/in_place"), (*graph, "/graph"), (*registered, "/registered")] {
            id.push_str(if asked { name } else { "" });
        }
        id.extend(max_ctas.map(|ctas| format!("/ctas{ctas}")));
        id
    }

    fn build(&self, _context: &Context) -> Result<Box<dyn Case>> {
        self.task.exchange.validate()?;
        let info = self.info();
        let (task, coordinator) = (self.task.clone(), self.coordinator.clone());
        Ok(Box::new(RankedCase { task, coordinator, info, times: Vec::new(), isolated_ns: None }))
    }
}

impl RankedSpec {
    fn info(&self) -> CaseInfo {
        let id = self.id();
        let coordinator = self.coordinator.lock();
        let exchange = &self.task.exchange;
        let definition = exchange.operation.definition();
        let mut info = CaseInfo::new(id, Kind::Collective, Backend::Cuda).param("operation", definition.name());
        if let Some(pattern) = exchange.operation.pattern() {
            info = info.param("pattern", pattern.name());
        }
        info = info
            .param("ranks", exchange.ranks as u64)
            .param("nodes", coordinator.nodes(exchange.ranks) as u64)
            .param("dtype", self.task.dtype.name())
            .param("bytes", self.task.bytes())
            .param("in_place", exchange.in_place)
            .param("registered", self.task.registered)
            .param("max_ctas", self.task.max_ctas)
            .param("transport", coordinator.transport());
        info.launch = Some(if self.task.graph { Launch::Graph } else { Launch::Stream });
        info.bytes = Some(self.task.bytes() as f64);
        let sharing = coordinator.ranks_per_gpu(exchange.ranks);
        if sharing > 1 {
            info = info.param("ranks_per_gpu", sharing as u64);
            info.flags.push(SHARED_GPU.into());
        }
        info
    }
}

struct RankedCase {
    task: Task,
    coordinator: SharedCoordinator,
    info: CaseInfo,
    /// Each rank's pipelined nanoseconds per operation, a list a rank.
    times: Vec<Vec<f64>>,
    /// One operation on its own, by the last sample.
    isolated_ns: Option<f64>,
}

impl Case for RankedCase {
    fn info(&self) -> &CaseInfo {
        &self.info
    }

    fn sampling(&self) -> Sampling {
        SAMPLING
    }

    fn prepare(&mut self) -> Result<Option<Verified>> {
        let prepared = self.coordinator.lock().prepare(&self.task)?;
        self.info.params.extend(prepared.facts);
        let against = "exactly predictable integers, every element on every rank";
        Ok(Some(Verified { against: against.into(), max_error: 0.0, wrong: prepared.wrong }))
    }

    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let n = n.max(1);
        let timing = {
            let mut coordinator = self.coordinator.lock();
            let isolated = isolated(n, coordinator.deadline(), self.isolated_ns);
            coordinator.time(n, isolated)?
        };
        if !(timing.pipelined_ns.is_finite() && timing.pipelined_ns > 0.0) {
            let what = format!("{} took {} ns by the ranks' clocks", self.info.id, timing.pipelined_ns);
            return Err(Error::bug(what));
        }
        self.keep(&timing, n);
        let isolated = stats::median(&timing.isolated_ns).unwrap_or(timing.pipelined_ns / n as f64);
        self.isolated_ns = Some(isolated);
        Ok(vec![RawSample { detail: Detail::Isolated { ns: isolated }, ..RawSample::new(timing.pipelined_ns, n) }])
    }
}

impl RankedCase {
    /// How the ranks stand to each other by now: `rank_median_ns`, `slowest_rank`, `rank_spread_percent`.
    fn keep(&mut self, timing: &GroupTiming, n: u64) {
        self.times.resize(timing.by_rank.len(), Vec::new());
        for (times, rank) in self.times.iter_mut().zip(&timing.by_rank) {
            times.push(rank.pipelined_ns / n as f64);
        }
        let params = skew(&self.times);
        self.info.params.extend(params);
    }
}

/// How many operations on their own a sample has: where one took long, so few that they use a tenth of the deadline.
fn isolated(n: u64, deadline: Duration, last_ns: Option<f64>) -> u64 {
    let most = last_ns.map_or(ISOLATED, |ns| (0.1 * deadline.as_nanos() as f64 / ns.max(1.0)) as u64);
    n.min(ISOLATED).min(most).max(1)
}

fn skew(times: &[Vec<f64>]) -> Vec<(String, Value)> {
    let medians: Vec<f64> = times.iter().map(|times| stats::median(times).unwrap_or(0.0)).collect();
    let slowest = medians.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(rank, _)| rank);
    let least = medians.iter().copied().fold(f64::INFINITY, f64::min);
    let spread = if least > 0.0 { (medians[slowest] / least - 1.0) * 100.0 } else { 0.0 };
    let rounded = |value: f64| (value * 10.0).round() / 10.0;
    vec![
        ("rank_median_ns".into(), json!(medians.iter().map(|ns| rounded(*ns)).collect::<Vec<_>>())),
        ("slowest_rank".into(), json!(slowest)),
        ("rank_spread_percent".into(), json!(rounded(spread))),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_operations_are_isolated_less_often() {
        let deadline = Duration::from_secs(8);
        assert_eq!(isolated(1, deadline, None), 1);
        assert_eq!(isolated(1000, deadline, None), ISOLATED);
        assert_eq!(isolated(1000, deadline, Some(1e6)), ISOLATED);
        assert_eq!(isolated(1000, deadline, Some(1e8)), 8);
        assert_eq!(isolated(1000, deadline, Some(1e10)), 1);
    }
}
