//! Fill cases: what the gate costs (`fill/gate/open`, `fill/gate/close`, `fill/gate/drain/<side>`,
//! `fill/gate/restart/<side>`), and one stage of a 1F1B pipeline replayed with a small model in its bubbles
//! (`fill/1f1b-p4-m8-stage1/mlp-b32`), predicted before it runs and measured against the same stage with empty bubbles.
//! Behind each stage stands its noise floor, empty against empty (`…/mlp-b32+nothing`), and behind some the same stage whose
//! side asks for whole training steps (`…/mlp-b32-whole`).
//!
//! `benches/bubble_fill.rs` and `bubblebench measure fill` run these; they call [`crate::corun`].

use super::case::{Case, CaseInfo, Context, Detail, FillSample, RawSample, Sampling, Spec};
use super::stop_rule::StopRule;
use super::{Platform, Preset};
use crate::Result;
use crate::corun::calibration::FillForecast;
use crate::corun::fill_gate::{CLOSINGS, GateProbe, Timed};
use crate::corun::gated::Grain;
use crate::corun::replay::{Account, Replay, ReplaySpec};
use crate::corun::sharing::Sharing;
use crate::models::{SideKind, SideSpec};
use crate::ops::DType;
use crate::ops::host::HostConfig;
use crate::records::fill_verdict;
use crate::records::measurement::{Backend, FillOutcome, Kind, Verified};
use crate::shape::LayerShape;
use crate::stats::SplitMix;

/// Pairs of iterations without which a slowdown of a few percent cannot be told.
const LEAST_PAIRS: usize = 12;
/// The stage that is also filled with whole steps: its bubbles are of three lengths.
const WHOLE_STEPS_STAGE: u64 = 1;
/// The layer of the replayed stage and of the gate's cases.
const LAYER: LayerShape = LayerShape::new(256, 4, 128, 1, DType::F32);
const LAYERS: u64 = 2;

/// The preset's fill cases in the order they run; there are none on GPUs.
pub fn cases(preset: Preset, platform: Platform) -> Vec<Box<dyn Spec>> {
    if platform != Platform::Host {
        return Vec::new();
    }
    let (sides, stages, filled): (Vec<SideSpec>, Vec<u64>, usize) = match preset {
        Preset::Quick => (vec![usual(SideKind::Mlp)], vec![1], 1),
        Preset::Standard => (vec![usual(SideKind::Mlp), usual(SideKind::Convnet)], vec![1, 3], 2),
        Preset::Full => (SideSpec::usual().to_vec(), vec![0, 1, 2, 3], 4),
    };
    let gate = |what, side| Box::new(GateSpec { what, side, shape: LAYER }) as Box<dyn Spec>;
    let mut list = vec![gate(Timed::Open, sides[0]), gate(Timed::Close, sides[0])];
    for what in [Timed::Drain, Timed::Restart] {
        list.extend(sides.iter().map(|&side| gate(what, side)));
    }
    for stage in stages {
        for &side in &sides[..filled] {
            let grain = Grain::Operation;
            let spec = ReplaySpec { shape: LAYER, layers: LAYERS, stages: 4, micro_batches: 8, stage, side, grain };
            let stage_spec = |filling| Box::new(StageSpec::new(spec, filling)) as Box<dyn Spec>;
            list.extend([stage_spec(Filling::Side(grain)), stage_spec(Filling::Nothing)]);
            // The noise floor does not depend on what a side asks for.
            if preset != Preset::Quick && stage == WHOLE_STEPS_STAGE {
                list.push(stage_spec(Filling::Side(Grain::Step)));
            }
        }
    }
    list
}

fn usual(kind: SideKind) -> SideSpec {
    SideSpec { kind, batch: kind.usual_batch() }
}

/// Main and side both on all cores, the side's threads at niceness 19: the main wakes at once.
fn hosts(context: &Context) -> Result<(HostConfig, HostConfig)> {
    Sharing::Nice.configs(context.cores)
}

fn layer_params(info: CaseInfo, shape: &LayerShape, layers: u64) -> CaseInfo {
    info.param("layers", layers).params(shape.params()).param("sharing", Sharing::Nice.name())
}

// --- the gate -----------------------------------------------------------------------------------------------------------

#[derive(Debug, Clone, Copy)]
struct GateSpec {
    what: Timed,
    side: SideSpec,
    shape: LayerShape,
}

impl Spec for GateSpec {
    fn id(&self) -> String {
        match self.what {
            Timed::Open => "fill/gate/open".into(),
            Timed::Close => "fill/gate/close".into(),
            Timed::Drain => format!("fill/gate/drain/{}", self.side),
            Timed::Restart => format!("fill/gate/restart/{}", self.side),
        }
    }

    fn build(&self, context: &Context) -> Result<Box<dyn Case>> {
        let info = CaseInfo::new(self.id(), Kind::Fill, Backend::Host).param("side", self.side.to_string());
        let mut info = layer_params(info, &self.shape, LAYERS);
        info.sharing = Some(Sharing::Nice.name().into());
        Ok(Box::new(GateCase { spec: *self, info, hosts: Some(hosts(context)?), probe: None }))
    }
}

struct GateCase {
    spec: GateSpec,
    info: CaseInfo,
    hosts: Option<(HostConfig, HostConfig)>,
    probe: Option<GateProbe>,
}

impl Case for GateCase {
    fn info(&self) -> &CaseInfo {
        &self.info
    }

    fn sampling(&self) -> Sampling {
        Sampling { batch_ns: 0.0, min_samples: 20, least_samples: 20, revisited: true, rule: None }
    }

    fn prepare(&mut self) -> Result<Option<Verified>> {
        if let Some((main, side)) = self.hosts.take() {
            self.probe = Some(GateProbe::new(self.spec.side, self.spec.shape, LAYERS, main, side)?);
        }
        Ok(None)
    }

    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let Some(probe) = &mut self.probe else { return Ok(Vec::new()) };
        if self.spec.what == Timed::Close {
            let times = (0..n).map(|_| probe.time_closings()).collect::<Result<Vec<_>>>()?;
            return Ok(times.into_iter().flatten().map(|ns| RawSample::new(ns, CLOSINGS)).collect());
        }
        let times = (0..n).map(|_| probe.time(self.spec.what)).collect::<Result<Vec<_>>>()?;
        Ok(times.into_iter().flatten().map(|ns| RawSample::new(ns, 1)).collect())
    }
}

// --- the stage ----------------------------------------------------------------------------------------------------------

/// Who fills the bubbles of a replayed stage, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Filling {
    /// The side, asking the gate for this much at a time.
    Side(Grain),
    /// Nobody: empty iterations against empty ones, with the same side standing at the closed gate. The noise floor.
    Nothing,
}

#[derive(Debug, Clone, Copy)]
struct StageSpec {
    replay: ReplaySpec,
    filling: Filling,
}

impl StageSpec {
    fn new(replay: ReplaySpec, filling: Filling) -> Self {
        let grain = if let Filling::Side(grain) = filling { grain } else { Grain::Operation };
        StageSpec { replay: ReplaySpec { grain, ..replay }, filling }
    }
}

impl Spec for StageSpec {
    fn id(&self) -> String {
        let ReplaySpec { stages, micro_batches, stage, side, .. } = self.replay;
        let suffix = match self.filling {
            Filling::Side(Grain::Operation) => "",
            Filling::Side(Grain::Step) => fill_verdict::WHOLE_STEPS,
            Filling::Nothing => fill_verdict::NOTHING,
        };
        format!("fill/1f1b-p{stages}-m{micro_batches}-stage{stage}/{side}{suffix}")
    }

    fn build(&self, context: &Context) -> Result<Box<dyn Case>> {
        let info = CaseInfo::new(self.id(), Kind::Fill, Backend::Host)
            .param("schedule", "1f1b")
            .param("stages", self.replay.stages)
            .param("micro_batches", self.replay.micro_batches)
            .param("stage", self.replay.stage);
        let info = match self.filling {
            Filling::Side(grain) => info.param("side", self.replay.side.to_string()).param("grain", grain.name()),
            Filling::Nothing => info.param("side", "nothing"),
        };
        let mut info = layer_params(info, &self.replay.shape, self.replay.layers);
        info.sharing = Some(Sharing::Nice.name().into());
        Ok(Box::new(StageCase {
            spec: *self,
            rule: context.preset.stage_rule(),
            info,
            hosts: Some(hosts(context)?),
            ready: None,
            order: PairOrder::new(0xf111),
        }))
    }
}

/// Which iteration of a pair comes first: random, but of two pairs in a row each once. A machine that gets faster or slower
/// for a while then favours neither, however few the pairs are.
struct PairOrder {
    random: SplitMix,
    /// That of the second pair of two.
    second: Option<bool>,
}

impl PairOrder {
    const fn new(seed: u64) -> Self {
        PairOrder { random: SplitMix(seed), second: None }
    }

    /// Whether the filled iteration of the next pair comes first.
    fn filled_first(&mut self) -> bool {
        self.second.take().unwrap_or_else(|| {
            let first = self.random.below(2) == 0;
            self.second = Some(!first);
            first
        })
    }
}

struct StageCase {
    spec: StageSpec,
    rule: StopRule,
    info: CaseInfo,
    hosts: Option<(HostConfig, HostConfig)>,
    ready: Option<(Replay, FillForecast)>,
    order: PairOrder,
}

impl StageCase {
    /// What the predictions were made from.
    fn note_calibration(&mut self, replay: &Replay) {
        let c = replay.calibration;
        let stage = [("forward_ns", c.forward_ns), ("backward_ns", c.backward_ns)];
        let side = [
            ("open_latency_ns", c.open_ns),
            ("drain_ns", c.drain_ns),
            ("margin_ns", c.margin_ns),
            ("lost_per_opening_ns", c.lost_ns),
            ("after_bubble_ns", c.after_ns),
            ("side_step_ns", c.step_ns),
            ("side_longest_operation_ns", c.longest_ns),
            ("side_largest_need_ns", c.need_ns),
        ];
        let fills = self.spec.filling != Filling::Nothing;
        for (name, ns) in stage.into_iter().chain(side.into_iter().filter(|_| fills)) {
            self.info.params.insert(name.into(), ns.into());
        }
    }
}

impl Case for StageCase {
    fn info(&self) -> &CaseInfo {
        &self.info
    }

    fn sampling(&self) -> Sampling {
        Sampling {
            batch_ns: 0.0,
            min_samples: LEAST_PAIRS,
            least_samples: LEAST_PAIRS,
            revisited: false,
            rule: Some(self.rule),
        }
    }

    fn prepare(&mut self) -> Result<Option<Verified>> {
        if let Some((main, side)) = self.hosts.take() {
            let replay = Replay::new(self.spec.replay, main, side)?;
            self.note_calibration(&replay);
            // From here on nothing that is measured can change what was predicted.
            let prediction = match self.spec.filling {
                Filling::Side(_) => replay.predict(),
                Filling::Nothing => FillForecast::EMPTY,
            };
            self.ready = Some((replay, prediction));
        }
        Ok(None)
    }

    /// So that of two pairs that count each order comes once, however many warmed up.
    fn begin(&mut self) {
        self.order.second = None;
    }

    /// Of an A/A pair the one that stands for the filled iteration is empty too; all else is the same.
    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let Some((replay, _)) = &mut self.ready else { return Ok(Vec::new()) };
        let fills = self.spec.filling != Filling::Nothing;
        let mut samples = Vec::new();
        for _ in 0..n {
            let filled_first = self.order.filled_first();
            let first = replay.iteration(fills && filled_first)?;
            let second = replay.iteration(fills && !filled_first)?;
            let (filled, empty) = if filled_first { (first, second) } else { (second, first) };
            let detail = Detail::Fill { empty_ns: empty.ns, outcome: sample_of(filled.fill) };
            samples.push(RawSample { detail, ..RawSample::new(filled.ns, 1) });
        }
        Ok(samples)
    }

    /// The prediction; the measured fields are the summary's.
    fn outcome(&self, _samples: &[RawSample]) -> Option<FillOutcome> {
        self.ready.as_ref().map(|(_, prediction)| FillOutcome {
            predicted_main_slowdown: prediction.main_slowdown,
            predicted_bubble_used_percent: prediction.bubble_used_percent,
            predicted_side_steps_per_s: Some(prediction.side_steps_per_s),
            predicted_stop_latency_ns: prediction.stop_latency_ns,
            ..FillOutcome::default()
        })
    }
}

fn sample_of(account: Account) -> FillSample {
    FillSample {
        bubble_ns: account.bubble_ns,
        bubbles: account.bubbles,
        bubbles_opened: account.bubbles_opened,
        open_ns: account.open_ns,
        side_work_ns: account.side_work_ns,
        side_steps: account.side_steps,
        stop_latencies_ns: account.stop_latencies_ns,
        overruns_ns: account.overruns_ns,
        waits_ns: account.waits_ns,
        expected_overruns_ns: account.expected_overruns_ns,
        preempted: account.preempted,
        late_closes_ns: account.late_closes_ns,
        learned_over_true: account.learned_over_true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(preset: Preset) -> Vec<String> {
        cases(preset, Platform::Host).iter().map(|s| s.id()).collect()
    }

    #[test]
    fn the_lists_keep_their_names() {
        let quick = ids(Preset::Quick);
        assert_eq!(
            quick,
            [
                "fill/gate/open",
                "fill/gate/close",
                "fill/gate/drain/mlp-b32",
                "fill/gate/restart/mlp-b32",
                "fill/1f1b-p4-m8-stage1/mlp-b32",
                "fill/1f1b-p4-m8-stage1/mlp-b32+nothing"
            ]
        );
        let (standard, full) = (ids(Preset::Standard), ids(Preset::Full));
        assert!(quick.iter().all(|id| standard.contains(id)) && standard.iter().all(|id| full.contains(id)));
        assert!(standard.contains(&"fill/1f1b-p4-m8-stage1/mlp-b32-whole".to_string()));
        for id in full.iter().filter(|id| id.starts_with("fill/1f1b")) {
            assert!(full.contains(&fill_verdict::nothing_id(id)), "{id} has no noise floor");
        }
        assert!(cases(Preset::Full, Platform::Gpu(0)).is_empty());
    }

    /// Over a time that only goes up, a pair's first iteration is the faster one: neither kind is that more often.
    #[test]
    fn the_order_of_pairs_is_random_and_even() {
        let mut order = PairOrder::new(5);
        let pairs: Vec<[bool; 2]> = (0..200).map(|_| [order.filled_first(), order.filled_first()]).collect();
        assert!(pairs.iter().all(|[one, other]| one != other));
        let begun_filled = pairs.iter().filter(|[one, _]| *one).count();
        assert!((70..130).contains(&begun_filled), "{begun_filled} of 200");
    }

    fn prepared(spec: &dyn Spec) -> Box<dyn Case> {
        let mut case = spec
            .build(&Context {
                preset: Preset::Quick,
                platform: Platform::Host,
                cores: 2,
                last_level_cache_bytes: 1 << 20,
            })
            .unwrap();
        assert!(case.sample(1).unwrap().is_empty(), "nothing before it is prepared");
        case.prepare().unwrap();
        case
    }

    const SMALL: LayerShape = LayerShape::new(64, 4, 64, 1, DType::F32);
    const SIDE: SideSpec = SideSpec { kind: SideKind::Mlp, batch: 1 };

    /// p 4, stage 2: bubbles at the start, before the first backward, once in cool-down, at the end.
    fn small_stage() -> ReplaySpec {
        let grain = Grain::Operation;
        ReplaySpec { shape: SMALL, layers: 1, stages: 4, micro_batches: 4, stage: 2, side: SIDE, grain }
    }

    #[test]
    fn a_stage_is_predicted_and_measured() {
        let mut case = prepared(&StageSpec::new(small_stage(), Filling::Side(Grain::Operation)));
        let samples = case.sample(1).unwrap();
        let Detail::Fill { empty_ns, outcome } = &samples[0].detail else { panic!("not a filled stage") };
        assert!(*empty_ns >= outcome.bubble_ns && samples[0].ns >= outcome.bubble_ns);
        assert_eq!(outcome.bubbles, 4);
        let time = |name: &str| case.info().params[name].as_f64().unwrap();
        assert!((outcome.bubble_ns - 3.0 * (time("forward_ns") + time("backward_ns"))).abs() < 1.0);
        let predicted = case.outcome(&samples).unwrap();
        assert!(predicted.predicted_main_slowdown >= 1.0 && predicted.predicted_bubble_used_percent <= 100.0);
        assert_eq!(case.info().params["grain"], "operation");
    }

    /// The same code with nothing in the bubbles: nobody is let in, and nobody is predicted to be.
    #[test]
    fn the_noise_floor_of_a_stage_opens_no_bubble() {
        let mut case = prepared(&StageSpec::new(small_stage(), Filling::Nothing));
        let samples = case.sample(2).unwrap();
        for sample in &samples {
            let Detail::Fill { empty_ns, outcome } = &sample.detail else { panic!("not a filled stage") };
            assert!(*empty_ns >= outcome.bubble_ns && sample.ns >= outcome.bubble_ns && outcome.bubbles == 4);
            assert_eq!((outcome.bubbles_opened, outcome.side_work_ns, outcome.overruns_ns.len()), (0, 0.0, 0));
        }
        let predicted = case.outcome(&samples).unwrap();
        assert_eq!((predicted.predicted_main_slowdown, predicted.predicted_bubble_used_percent), (1.0, 0.0));
        assert_eq!(case.info().params["side"], "nothing");
    }

    #[test]
    fn the_gate_is_timed() {
        for what in [Timed::Open, Timed::Close, Timed::Drain, Timed::Restart] {
            let mut case = prepared(&GateSpec { what, side: SIDE, shape: SMALL });
            let samples = case.sample(3).unwrap();
            assert!((1..=3).contains(&samples.len()), "{what:?}");
            assert!(samples.iter().all(|s| s.ns.is_finite() && s.ns >= 0.0), "{what:?}");
        }
    }
}
