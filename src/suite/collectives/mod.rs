//! The collectives' cases: which operations, sizes and ranks a preset measures, and how one of them is sampled.
//!
//! One case holds both latencies: a sample is a pipelined batch, and beside it ([`Detail::Isolated`]) operations of the
//! same size synchronised one by one.

mod choices;
mod gpu;
mod ranked;

pub use choices::Choices;
pub use ranked::SharedCoordinator;

use super::{Case, CaseInfo, Context, Detail, Platform, Preset, RawSample, Spec};
use crate::collectives::threads::Tuning;
use crate::collectives::{CollectiveOperation, Exchange, Pattern, Session};
use crate::machine::gpus;
use crate::records::flags::OVERSUBSCRIBED;
use crate::records::measurement::{Backend, Kind, Verified};
use crate::units::format_bytes;
use crate::{Error, Result, stats};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const ELEMENT_BYTES: u64 = 4;

/// ×8 from 8 B, and the last step ×4: 64 MiB is where curves are read off.
const SIZES: [u64; 9] = [8, 64, 512, 4 * KIB, 32 * KIB, 256 * KIB, 2 * MIB, 16 * MIB, 64 * MIB];
const SIX_SIZES: [u64; 6] = [8, 4 * KIB, 256 * KIB, 2 * MIB, 16 * MIB, 64 * MIB];
const FIVE_SIZES: [u64; 5] = [8, 4 * KIB, 256 * KIB, 2 * MIB, 16 * MIB];
const PING_PONG: CollectiveOperation = CollectiveOperation::SendRecv(Pattern::PingPong);

/// Isolated operations in a sample whose batch is long enough to hide them.
const ISOLATED: u64 = 15;

/// The preset's cases in the order they run. Between GPUs there are none without a coordinator.
pub fn cases(
    preset: Preset,
    platform: Platform,
    coordinator: Option<&SharedCoordinator>,
    choices: &Choices,
) -> Vec<Box<dyn Spec>> {
    match (platform, coordinator) {
        (Platform::Host, _) => {
            choices.of_host(host(preset)).into_iter().map(|spec| Box::new(spec) as Box<dyn Spec>).collect()
        }
        (_, Some(coordinator)) => {
            let (ranks, sharing) = {
                let coordinator = coordinator.lock();
                (coordinator.ranks(), coordinator.ranks_per_gpu(coordinator.ranks()).max(1) as u64)
            };
            let memory = gpus::list().ok().and_then(|gpus| gpus.iter().map(|gpu| gpu.memory_bytes / sharing).min());
            coordinator.cases(choices.of_tasks(gpu::tasks(preset, platform, ranks, memory)))
        }
        (_, None) => Vec::new(),
    }
}

fn host(preset: Preset) -> Vec<HostSpec> {
    match preset {
        Preset::Quick => quick(),
        Preset::Standard => standard(),
        Preset::Full => full(),
    }
}

fn quick() -> Vec<HostSpec> {
    // ×8 apart at most: what lies between two sizes is read off a line.
    let mut list = sweep(CollectiveOperation::AllReduce, 2, &SIZES[..8]);
    list.extend(sweep(PING_PONG, 2, &SIZES[1..7]));
    for operation in [CollectiveOperation::AllGather, CollectiveOperation::ReduceScatter, CollectiveOperation::AllToAll]
    {
        list.extend(sweep(operation, 2, &[2 * MIB]));
    }
    list
}

fn standard() -> Vec<HostSpec> {
    let mut list = sweep(CollectiveOperation::AllReduce, 2, &SIZES);
    list.extend(in_place(sweep(CollectiveOperation::AllReduce, 2, &[8, 256 * KIB, 16 * MIB])));
    list.extend(sweep(PING_PONG, 2, &SIZES));
    for operation in CollectiveOperation::ALL {
        match operation {
            CollectiveOperation::AllReduce | PING_PONG => {}
            CollectiveOperation::SendRecv(_) => list.extend(sweep(operation, 2, &FIVE_SIZES)),
            _ => list.extend(sweep(operation, 2, &SIX_SIZES)),
        }
    }
    list.extend(sweep(CollectiveOperation::AllReduce, 4, &SIZES));
    list
}

fn full() -> Vec<HostSpec> {
    let mut list = Vec::new();
    for operation in CollectiveOperation::ALL {
        for ranks in [2, 4] {
            let cases = sweep(operation, ranks, &SIZES);
            list.extend(cases.iter().copied());
            if operation.definition().can_be_in_place() {
                list.extend(in_place(cases));
            }
        }
    }
    list
}

fn sweep(operation: CollectiveOperation, ranks: usize, sizes: &[u64]) -> Vec<HostSpec> {
    let spec = |bytes: &u64| HostSpec(Exchange::new(operation, (*bytes / ELEMENT_BYTES) as usize, ranks));
    sizes.iter().map(spec).collect()
}

fn in_place(cases: Vec<HostSpec>) -> Vec<HostSpec> {
    cases.into_iter().map(|spec| HostSpec(spec.0.in_place(true))).collect()
}

/// A case between threads of this process, in f32.
#[derive(Debug, Clone, Copy, PartialEq)]
struct HostSpec(Exchange);

impl HostSpec {
    /// The same of another size; `None` for less than an element.
    fn sized(self, bytes: u64) -> Option<Self> {
        let elements = usize::try_from(bytes / ELEMENT_BYTES).ok().filter(|elements| *elements > 0)?;
        Some(HostSpec(Exchange { elements, ..self.0 }))
    }

    fn bytes(&self) -> u64 {
        self.0.bytes(ELEMENT_BYTES)
    }

    fn info(&self, context: &Context) -> CaseInfo {
        let exchange = &self.0;
        let definition = exchange.operation.definition();
        let mut info = CaseInfo::new(self.id(), Kind::Collective, Backend::Host).param("operation", definition.name());
        if let Some(pattern) = exchange.operation.pattern() {
            info = info.param("pattern", pattern.name());
        }
        info = info
            .param("ranks", exchange.ranks as u64)
            .param("nodes", 1u64)
            .param("dtype", "f32")
            .param("bytes", self.bytes())
            .param("in_place", exchange.in_place)
            .param("algorithm", definition.algorithm())
            .param("transport", "threads");
        info.bytes = Some(self.bytes() as f64);
        if exchange.ranks > context.cores {
            info.flags.push(OVERSUBSCRIBED.into());
        }
        info
    }
}

impl Spec for HostSpec {
    fn id(&self) -> String {
        let Exchange { operation, ranks, in_place, .. } = self.0;
        let place = if in_place { "/in_place" } else { "" };
        format!("host/{}/r{ranks}/f32/{}{place}", operation.path(), format_bytes(self.bytes()))
    }

    fn build(&self, context: &Context) -> Result<Box<dyn Case>> {
        self.0.validate()?;
        let tuning = Tuning::new(self.0.ranks, context.cores);
        Ok(Box::new(HostCase { exchange: self.0, tuning, info: self.info(context), session: None }))
    }
}

/// The case; its ranks live from [`Case::prepare`] until it is dropped.
struct HostCase {
    exchange: Exchange,
    tuning: Tuning,
    info: CaseInfo,
    session: Option<Session>,
}

impl Case for HostCase {
    fn info(&self) -> &CaseInfo {
        &self.info
    }

    fn prepare(&mut self) -> Result<Option<Verified>> {
        // A former session's memory goes before the new one's comes.
        self.session = None;
        let mut session = Session::new(self.exchange, self.tuning)?;
        let wrong = session.verify()?;
        self.session = Some(session);
        Ok(Some(Verified { against: "exactly predictable integers, every element".into(), max_error: 0.0, wrong }))
    }

    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let unprepared = || Error::input(format!("{} was sampled unprepared", self.info.id), "call prepare first");
        let session = self.session.as_mut().ok_or_else(unprepared)?;
        let timing = session.time(n.max(1), n.clamp(1, ISOLATED))?;
        let isolated = stats::median(&timing.isolated_ns).unwrap_or(timing.pipelined_ns / n.max(1) as f64);
        let sample = RawSample::new(timing.pipelined_ns, n.max(1));
        Ok(vec![RawSample { detail: Detail::Isolated { ns: isolated }, ..sample }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    fn ids(preset: Preset) -> Vec<String> {
        cases(preset, Platform::Host, None, &Choices::default()).iter().map(|spec| spec.id()).collect()
    }

    #[test]
    fn names_are_stable() {
        let standard = ids(Preset::Standard);
        for id in [
            "host/all_reduce/r2/f32/32KiB",
            "host/all_reduce/r2/f32/16MiB/in_place",
            "host/all_reduce/r4/f32/8B",
            "host/send_recv/ping_pong/r2/f32/64MiB",
            "host/send_recv/ring/r2/f32/2MiB",
            "host/reduce_scatter/r2/f32/64MiB",
        ] {
            assert!(standard.iter().any(|name| name == id), "{id}");
        }
    }

    #[test]
    fn presets_hold_what_they_promise() {
        let (quick, standard, full) = (ids(Preset::Quick), ids(Preset::Standard), ids(Preset::Full));
        assert!(quick.len() <= 17 && standard.len() <= 81, "{} {}", quick.len(), standard.len());
        for list in [&quick, &standard, &full] {
            assert_eq!(list.iter().collect::<HashSet<_>>().len(), list.len());
        }
        let all: HashSet<_> = full.iter().collect();
        assert!(quick.iter().chain(&standard).all(|id| all.contains(id)));
        assert!(cases(Preset::Standard, Platform::Gpu(0), None, &Choices::default()).is_empty());
        for operation in CollectiveOperation::ALL {
            let prefix = format!("host/{}/r2/", operation.path());
            assert!(standard.iter().filter(|id| id.starts_with(&prefix)).count() >= 5, "{prefix}");
        }
    }

    #[test]
    fn a_case_checks_itself_and_answers_with_both_latencies() {
        let context =
            Context { preset: Preset::Quick, platform: Platform::Host, cores: 2, last_level_cache_bytes: 1 << 25 };
        for (operation, ranks) in
            [(CollectiveOperation::AllReduce, 2), (PING_PONG, 2), (CollectiveOperation::AllGather, 4)]
        {
            let spec = HostSpec(Exchange::new(operation, 1001, ranks));
            let mut case = spec.build(&context).unwrap();
            assert!(case.sample(1).is_err(), "no sample before the check");
            assert_eq!(case.prepare().unwrap().unwrap().wrong, 0);
            let samples = case.sample(20).unwrap();
            assert_eq!((samples.len(), samples[0].iterations), (1, 20));
            assert!(samples[0].ns > 0.0);
            assert!(matches!(samples[0].detail, Detail::Isolated { ns } if ns > 0.0));
            assert_eq!(case.info().flags.contains(&"oversubscribed".to_string()), ranks > 2);
            assert_eq!(case.info().bytes, Some(4004.0));
        }
    }

    #[test]
    fn send_recv_is_one_operation_with_a_pattern() {
        let context =
            Context { preset: Preset::Quick, platform: Platform::Host, cores: 8, last_level_cache_bytes: 1 << 25 };
        let info = HostSpec(Exchange::new(PING_PONG, 16, 2)).info(&context);
        assert_eq!(
            (info.params["operation"].as_str(), info.params["pattern"].as_str()),
            (Some("send_recv"), Some("ping_pong"))
        );
        assert_eq!(info.params["bytes"].as_u64(), Some(64));
        assert!(info.flags.is_empty());
    }
}
