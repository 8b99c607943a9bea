//! What else a flag would make of a job: the same model and batch on the same GPUs under another schedule, with its layers
//! placed otherwise, recomputing more or less, or divided otherwise over the GPUs.
//!
//! Each flag is changed alone first. Then all of them together, for every division of the GPUs: divisions are taken in the
//! order of a bound no schedule can beat (a stage's work, and what follows the pipeline), until the bound is no better than
//! the best that were found. Long iterations are known from two shorter ones, since their middle repeats; where it does not
//! yet, from the work of the busiest device.

use super::costs::{self, Costs};
use super::iteration;
use super::job::spread::{Spread, pieces};
use super::job::{Job, Parallel};
use super::layout::Placement;
use super::memory;
use super::prices::{PriceGroup, Prices};
use super::schedule::ScheduleName;
use super::sweep;
use crate::shape::{AttentionKind, Recompute};
use rayon::prelude::*;

/// Chunks of an interleaved stage that are tried where a stage has as many layers; beyond, messages eat what is won.
const CHUNKS: [u64; 5] = [2, 3, 4, 6, 8];
/// Divisions that are kept: of those that are as well known as the job itself, and of the others.
const KEPT: usize = 6;
const KEPT_UNSURE: usize = 2;
/// Micro-batches of the shorter iteration, in multiples of the stages, and how many more the longer one has. A pipeline of
/// few stages counts as one of at least so many: uneven chunks take some micro-batches to settle, however few the stages.
const SHORT: usize = 4;
const STEP: usize = 2;
const LEAST_STAGES: usize = 4;

/// Which kind of flag a variant changes; of several the one that changes most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change {
    /// The schedule, or its chunks.
    Schedule,
    /// The layers of each stage.
    Layout,
    /// Which activations the backward computes again.
    Recompute,
    /// The sizes of pipeline, tensor and data parallelism, the micro-batch, or ZeRO.
    Division,
}

impl Change {
    /// The kind as plans spell it, e.g. `schedule`.
    pub const fn name(self) -> &'static str {
        match self {
            Change::Schedule => "schedule",
            Change::Layout => "layout",
            Change::Recompute => "recompute",
            Change::Division => "division",
        }
    }
}

/// The job with other flags.
#[derive(Debug, Clone)]
pub struct Variant {
    /// What it changes.
    pub change: Change,
    /// Its flags that differ from the job's own, each in words.
    pub flags: Vec<String>,
    /// The job as it would be.
    pub job: Job,
    /// What its iteration is made of.
    pub costs: Costs,
    /// Predicted time of its iteration in ns: pipeline, gradients and optimizer step.
    pub iteration_ns: u64,
    /// Whether it rests on no kind of price that is less known than the job's own of that kind.
    pub sure: bool,
    /// Whether it fits the GPUs' memory and leaves the headroom free; `None` where that is not known.
    pub fits_memory: Option<bool>,
}

impl Variant {
    /// Its flags that differ from the job's own, in words.
    pub fn describes(&self) -> String {
        self.flags.join(", ")
    }

    /// Whether this is all that it changes.
    pub fn changes_only(&self, change: Change) -> bool {
        self.change == change && self.flags.len() == 1
    }

    /// Whether it may be called better than the job: it fits, and is known as well as the job itself.
    pub fn counts(&self) -> bool {
        self.sure && self.fits_memory != Some(false)
    }

    /// Whether its layers or collectives are of other shapes than the job's, so that their prices may be wrong by themselves.
    pub const fn is_apart(&self) -> bool {
        matches!(self.change, Change::Division | Change::Recompute)
    }
}

/// Every variant of a job that is worth showing, each kind of flag changed alone first: all other schedules, the balanced
/// layout, the other recomputations; then the fastest combinations that fit the memory. `own` is what the job itself costs;
/// `machine_bytes` is a GPU's memory where the job does not give it.
pub fn of_job(job: &Job, own: &Costs, prices: &(dyn Prices + Sync), machine_bytes: Option<u64>) -> Vec<Variant> {
    let search = Search { job, own, prices, machine_bytes, known: own.unsure() };
    let mut found = search.alone();
    for variant in search.together() {
        if found.iter().all(|known| known.job.parallel != variant.job.parallel) {
            found.push(variant);
        }
    }
    found
}

/// A division with its recomputation: what schedules and layouts are then tried on.
struct Start {
    job: Job,
    costs: Costs,
    bound_ns: f64,
}

struct Search<'a> {
    job: &'a Job,
    own: &'a Costs,
    prices: &'a (dyn Prices + Sync),
    machine_bytes: Option<u64>,
    /// Groups of prices that the job itself does not know well either.
    known: Vec<PriceGroup>,
}

impl Search<'_> {
    /// One flag at a time.
    fn alone(&self) -> Vec<Variant> {
        let p = &self.job.parallel;
        let mut jobs = schedules(self.job);
        jobs.extend(balanced(self.job, self.own));
        for recompute in recomputations(self.job).filter(|r| *r != p.recompute || p.recompute_layers.is_some()) {
            jobs.extend(self.job.with(Parallel { recompute, recompute_layers: None, ..p.clone() }));
        }
        // Of schedules that nothing is known about there is nothing to tell.
        jobs.into_par_iter().filter_map(|job| self.variant(job)).collect()
    }

    fn variant(&self, job: Job) -> Option<Variant> {
        let costs = costs::of_job(&job, self.prices, self.own.dtype).ok()?;
        let (iteration_ns, fits_memory) = self.estimate(&job, &costs)?;
        Some(Variant {
            change: change(self.job, &job),
            flags: flags(self.job, &job),
            sure: costs.unsure().iter().all(|group| self.known.contains(group)),
            costs,
            job,
            iteration_ns,
            fits_memory,
        })
    }

    /// The iteration in ns, and whether it fits the memory.
    fn estimate(&self, job: &Job, costs: &Costs) -> Option<(u64, Option<bool>)> {
        let p = &job.parallel;
        let (stages, all) = (p.pipeline as usize, job.micro_batches() as usize);
        let run = |micro_batches| iteration::compared(job, costs, p.schedule, p.chunks(), micro_batches).ok();
        let unit = stages * LEAST_STAGES.div_ceil(stages);
        let (short, step) = (SHORT * unit, STEP * unit);
        // GPipe holds every micro-batch at once: a short iteration would tell of too little memory.
        let long = all > short + step && p.schedule != ScheduleName::Gpipe;
        let first = run(if long { short } else { all })?;
        let share = job.weight_share();
        let memory = memory::estimate(job, costs.dtype, &costs.layer, self.machine_bytes);
        let memory = memory::for_schedule(job, costs.dtype, &costs.layer, &memory, &first.schedule, share);
        let mut pipeline_ns = first.iteration_ns as f64;
        if long {
            let longer = run(short + step)?;
            let work = |stage| (longer.busy_ns(stage) - first.busy_ns(stage)) as f64;
            // As long as the busiest stage still fills the waits of its start, an iteration grows by less than its work.
            let busiest = (0..stages).map(work).fold(0.0, f64::max);
            let grown = longer.iteration_ns as f64 - pipeline_ns;
            pipeline_ns = longer.iteration_ns as f64 + grown.max(busiest) * (all - short - step) as f64 / step as f64;
        }
        let after = costs.after(first.schedule.layout.placement).total_ns();
        Some((pipeline_ns.round() as u64 + after, memory.fits_with_headroom(&first.schedule, share)))
    }

    /// Every flag at once.
    fn together(&self) -> Vec<Variant> {
        let mut starts = self.starts();
        starts.sort_by(|a, b| a.bound_ns.total_cmp(&b.bound_ns));
        let mut kept = [Vec::<Variant>::new(), Vec::new()];
        // A few at a time: enough for every core, few enough to stop early.
        for group in starts.chunks(2 * rayon::current_num_threads()) {
            let least = group[0].bound_ns;
            let known =
                |list: &[Variant], most: usize| list.len() >= most && (list[most - 1].iteration_ns as f64) <= least;
            // One that is not sure is shown only where it beats all that are.
            if known(&kept[0], KEPT) && (known(&kept[1], KEPT_UNSURE) || known(&kept[0], 1)) {
                break;
            }
            let found: Vec<Variant> = group.par_iter().filter_map(|start| self.best(start)).collect();
            for variant in found {
                let list = &mut kept[usize::from(!variant.sure)];
                list.push(variant);
                list.sort_by_key(|v| v.iteration_ns);
                list.truncate(KEPT);
            }
        }
        let [mut sure, mut unsure] = kept;
        unsure.truncate(KEPT_UNSURE);
        // What is not well known is worth showing only where it would be the best.
        let best = sure.first().map_or(u64::MAX, |v| v.iteration_ns);
        unsure.retain(|v| v.iteration_ns < best);
        sure.extend(unsure);
        sure
    }

    /// Every division with every recomputation, and its bound.
    fn starts(&self) -> Vec<Start> {
        let p = &self.job.parallel;
        let plain = Parallel { schedule: ScheduleName::OneFOneB, chunks: None, layout: None, ..p.clone() };
        let Some(plain) = self.job.with(plain) else { return Vec::new() };
        let (divisions, _) = sweep::divisions(&plain);
        divisions
            .into_par_iter()
            .flat_map_iter(|division| {
                let zero = [p.zero, p.zero.max(1)];
                let zeros = if p.zero == 0 && division.replicas() > 1 { &zero[..] } else { &zero[..1] };
                let ways = zeros.iter().flat_map(|&zero| recomputations(self.job).map(move |way| (zero, way)));
                ways.filter_map(|(zero, recompute)| self.start(&division, zero, recompute)).collect::<Vec<_>>()
            })
            .collect()
    }

    fn start(&self, division: &Job, zero: u64, recompute: Recompute) -> Option<Start> {
        let parallel = Parallel { zero, recompute, recompute_layers: None, ..division.parallel.clone() };
        let job = division.with(parallel)?;
        let costs = costs::of_job(&job, self.prices, self.own.dtype).ok()?;
        let memory = memory::estimate(&job, costs.dtype, &costs.layer, self.machine_bytes);
        // Two-way pipelines hold more, none holds less.
        let stages = job.parallel.pipeline as f64;
        let fixed: f64 = memory.stage.iter().map(|s| s.static_bytes() as f64).sum();
        if memory.total_bytes.is_some_and(|total| fixed > total * stages) {
            return None;
        }
        let [first, last] = costs.ends_ns();
        let work = job.micro_batches() as f64 * (job.model.layers as f64 * costs.layer_ns() + (first + last) as f64);
        let after = [Placement::Loop, Placement::Vee, Placement::Both].map(|p| costs.after(p).total_ns());
        let least_after = after.into_iter().min().unwrap_or(0);
        Some(Start { bound_ns: work / stages + least_after as f64, job, costs })
    }

    /// The fastest schedule and layout of a start that fits.
    fn best(&self, start: &Start) -> Option<Variant> {
        let own = std::iter::once(start.job.clone());
        // GPipe takes as long as 1F1B, and holds more.
        let quick = |name: ScheduleName| !name.searched() && name != ScheduleName::Gpipe;
        let fixed = schedules(&start.job).into_iter().filter(|job| quick(job.parallel.schedule));
        let tried = own.chain(fixed).flat_map(|job| {
            let given = self.job.parallel.layout.as_ref().filter(|given| given.fits(job.layout()));
            let given = given.and_then(|given| placed(&job, given.clone()));
            let other = balanced(&job, &start.costs);
            [Some(job), other, given].into_iter().flatten()
        });
        let costs = &start.costs;
        let fitting = tried.filter_map(|job| {
            let (iteration_ns, fits) = self.estimate(&job, costs)?;
            (fits != Some(false)).then_some((iteration_ns, job))
        });
        let (_, job) = fitting.min_by_key(|(iteration_ns, _)| *iteration_ns)?;
        if job.parallel == self.job.parallel && self.job.order.is_none() {
            return None;
        }
        // Priced again: another layout puts other parameters on the fullest device.
        self.variant(job).filter(|variant| variant.fits_memory != Some(false))
    }
}

/// The layers of every cell.
fn layers(job: &Job) -> Vec<u64> {
    job.cell_layers(job.layout())
}

/// The job under every schedule but its own. Where a whole layer is computed again, only those with one backward operation:
/// a W of its own would need what B computed again, or compute it once more.
fn schedules(job: &Job) -> Vec<Job> {
    let p = &job.parallel;
    let full = p.recompute == Recompute::Full || p.recompute_layers.is_some();
    let named = ScheduleName::ALL.into_iter().filter(|name| !full || name.fused_backward());
    let mut jobs = Vec::new();
    for schedule in named {
        let chunks: &[Option<u64>] = match schedule {
            ScheduleName::Interleaved => &CHUNKS.map(Some),
            _ => &[None],
        };
        for &chunks in chunks {
            let parallel = Parallel { schedule, chunks, ..p.clone() };
            // A list of operations hides what its job's own schedule would be.
            jobs.extend(job.with(parallel).filter(|other| other.parallel != *p || job.order.is_some()));
        }
    }
    // A pipeline of one stage has nothing to order.
    if p.pipeline == 1 { Vec::new() } else { jobs }
}

/// The recomputations that make a difference: fused attention has nothing to recompute selectively.
fn recomputations(job: &Job) -> impl Iterator<Item = Recompute> + use<> {
    let materialised = job.model.attention == Some(AttentionKind::Materialised);
    Recompute::ALL.into_iter().filter(move |r| *r != Recompute::Selective || materialised)
}

/// The job with its layers placed so that the busiest device has least to do; `None` where they are.
fn balanced(job: &Job, costs: &Costs) -> Option<Job> {
    let layout = job.layout();
    if pieces(layout) < 2 {
        return None;
    }
    let spread = Spread::balanced(job.model.layers, layout, costs.layer_ns(), costs.ends_ns(), costs.send_recv_ns)?;
    placed(job, spread).filter(|other| layers(other) != layers(job))
}

fn placed(job: &Job, spread: Spread) -> Option<Job> {
    job.with(Parallel { layout: Some(spread), ..job.parallel.clone() })
}

fn change(own: &Job, other: &Job) -> Change {
    let (a, b) = (&own.parallel, &other.parallel);
    let sizes = |p: &Parallel| [p.pipeline, p.tensor, p.data, p.micro_batch, p.zero];
    if sizes(a) != sizes(b) {
        Change::Division
    } else if (a.recompute, a.recompute_layers) != (b.recompute, b.recompute_layers) {
        Change::Recompute
    } else if (a.schedule, a.chunks) != (b.schedule, b.chunks) || own.order.is_some() {
        Change::Schedule
    } else {
        Change::Layout
    }
}

/// The flags of `other` that differ from `own`'s, in the words of a job file.
fn flags(own: &Job, other: &Job) -> Vec<String> {
    let (a, b) = (&own.parallel, &other.parallel);
    let mut parts = Vec::new();
    let sizes = [
        ("pipeline", a.pipeline, b.pipeline),
        ("tensor", a.tensor, b.tensor),
        ("data", a.data, b.data),
        ("micro-batch", a.micro_batch, b.micro_batch),
        ("zero", a.zero, b.zero),
    ];
    parts.extend(sizes.iter().filter(|(_, a, b)| a != b).map(|(name, _, b)| format!("{name} {b}")));
    if ((a.schedule, a.chunks) != (b.schedule, b.chunks) || own.order.is_some()) && b.pipeline > 1 {
        parts.push(match b.chunks {
            Some(v) if v > 1 => format!("{} with {v} chunks", b.schedule.text()),
            _ => b.schedule.text().to_string(),
        });
    }
    if (a.recompute, a.recompute_layers) != (b.recompute, b.recompute_layers) {
        parts.push(format!("recompute {}", b.recompute.name()));
    }
    let even = Spread::even(other.model.layers, pieces(other.layout()) as u64);
    match &b.layout {
        Some(spread) if b.layout != a.layout && *spread != even => {
            parts.push(format!("layers {}", in_short(&spread.0)));
        }
        None if a.layout.is_some() && pieces(other.layout()) > 1 => parts.push("layers spread evenly".into()),
        _ => {}
    }
    parts
}

/// `5, 6×10, 5`: equal neighbours together.
fn in_short(layers: &[u64]) -> String {
    let runs = layers.chunk_by(|a, b| a == b).map(|run| match run.len() {
        1 => run[0].to_string(),
        n => format!("{}×{n}", run[0]),
    });
    runs.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Result;
    use crate::pipeline::prices::{LayerPrice, Price, PricedCollective};
    use crate::records::cost_model::Source;
    use crate::shape::operation::Operation;
    use crate::shape::{DType, LayerShape};
    use proptest::prelude::*;
    use std::path::Path;

    /// A layer takes 1 µs a phase and sequence, of which tensor-parallel ranks divide 0.8; the head as long as `head` says; messages next to
    /// nothing. Collectives are known to two ranks only.
    struct Made {
        head_ns: f64,
    }

    impl Prices for Made {
        fn layer(&self, shape: LayerShape) -> Result<LayerPrice> {
            let ns = 1000.0 * shape.micro_batch as f64 * (0.8 / shape.tensor as f64 + 0.2);
            let bytes = if shape.recompute == Recompute::Full { 1 } else { 40 } * (shape.micro_batch << 20);
            Ok(LayerPrice::exact(ns, ns + if shape.recompute == Recompute::Full { ns } else { 0.0 }, ns, bytes))
        }
        fn collective(&self, message: PricedCollective) -> Option<Price> {
            Some(Price { in_range: message.ranks <= 2, ..Price::exact(message.bytes as f64 / 1e6, true) })
        }
        fn operation(&self, operation: &Operation, _: DType) -> Option<Price> {
            let head = matches!(operation, Operation::Linear { .. });
            let price = Price::exact(if head { self.head_ns } else { 1.0 }, true);
            Some(Price { source: Source::Datasheet, ..price }).filter(|_| head).or(Some(Price::exact(1.0, true)))
        }
    }

    fn job(layers: u64, parallel: &str, memory_gib: f64) -> Job {
        let text = format!(
            "[model]\nlayers = {layers}\nhidden = 256\nheads = 4\nsequence = 128\nvocabulary = 1024\n\
             attention = \"materialised\"\n[parallel]\n{parallel}\n[hardware]\ngpus_per_node = 4\nmemory_gib = {memory_gib}\n\
             [limits]\nmemory_headroom_gib = 0"
        );
        Job::parse(Path::new("job.toml"), &text).unwrap()
    }

    fn found(job: &Job, prices: &Made) -> Vec<Variant> {
        let own = costs::of_job(job, prices, DType::Bf16).unwrap();
        of_job(job, &own, prices, None)
    }

    /// Four stages whose last also has a head as long as four layers.
    #[test]
    fn every_kind_of_flag_is_changed_alone() {
        let job = job(16, "pipeline = 4\nmicro_batch = 1\nglobal_batch = 16", 1.0);
        let all = found(&job, &Made { head_ns: 4000.0 });
        let of = |change: Change| all.iter().filter(|v| v.change == change).collect::<Vec<_>>();
        let mut names: Vec<&str> = of(Change::Schedule).iter().map(|v| v.job.parallel.schedule.text()).collect();
        names.dedup();
        for name in ScheduleName::ALL.map(ScheduleName::text) {
            assert_eq!(names.contains(&name), name != "1f1b", "{name}");
        }
        assert_eq!(of(Change::Layout)[0].describes(), "layers 5×3 1");
        let recomputed: Vec<&str> = of(Change::Recompute).iter().map(|v| v.flags[0].as_str()).collect();
        assert!(
            recomputed.contains(&"recompute selective") && recomputed.contains(&"recompute full"),
            "{recomputed:?}"
        );
        assert!(!of(Change::Division).is_empty());
    }

    /// Two copies of the whole model have no bubble at all; where they do not fit, only what fits is left.
    #[test]
    fn a_division_without_bubbles_is_found_unless_the_memory_forbids_it() {
        let fitting = |gib| {
            let job = job(16, "pipeline = 2\nmicro_batch = 1\nglobal_batch = 4", gib);
            let own = costs::of_job(&job, &Made { head_ns: 10.0 }, DType::Bf16).unwrap();
            let now = iteration::timeline(&job, &own, ScheduleName::OneFOneB, None).unwrap();
            let all = found(&job, &Made { head_ns: 10.0 }).into_iter();
            let list: Vec<Variant> = all.filter(|v| v.sure && v.fits_memory == Some(true)).collect();
            (iteration::whole_ns(&now, &own), list)
        };
        let copies = |list: &[Variant]| {
            list.iter().find(|v| v.describes().starts_with("pipeline 1, data 2")).map(|v| v.iteration_ns)
        };
        let (now, with_room) = fitting(10.0);
        let whole = copies(&with_room).unwrap();
        assert!(whole < now);
        // Copies that compute everything again may fit, and take longer.
        let (_, tight) = fitting(0.6);
        assert!(copies(&tight).is_none_or(|ns| ns > whole) && !tight.is_empty(), "{:?}", copies(&tight));
    }

    /// An exchange between four ranks is beyond what is known, so that four copies do not count, whatever they promise.
    #[test]
    fn what_is_known_less_well_than_the_job_is_not_sure() {
        let job = job(16, "pipeline = 4\nmicro_batch = 1\nglobal_batch = 8", 10.0);
        let prices = Made { head_ns: 10.0 };
        let own = costs::of_job(&job, &prices, DType::Bf16).unwrap();
        let search = Search { job: &job, own: &own, prices: &prices, machine_bytes: None, known: own.unsure() };
        let sure = |pipeline, data| search.variant(job.divided(pipeline, 1, data, 1).unwrap()).unwrap().sure;
        assert!(sure(2, 2) && !sure(1, 4));
        let all = search.together();
        assert!(!all.is_empty());
        for variant in all.iter().filter(|v| v.sure) {
            // In a two-way pipeline every stage has two copies, which exchange too.
            let copies = if variant.job.layout().splits() { 1 } else { 2 };
            let p = &variant.job.parallel;
            assert!(p.data * copies <= 2 && p.tensor <= 2, "{}", variant.describes());
        }
    }

    /// A W of its own would need again what a full recomputation makes for B.
    #[test]
    fn full_recomputation_goes_with_one_backward_operation_only() {
        let full = job(16, "pipeline = 4\nmicro_batch = 1\nglobal_batch = 16\nrecompute = \"full\"", 1.0);
        for job in schedules(&full) {
            assert!(job.parallel.schedule.fused_backward(), "{:?}", job.parallel.schedule);
        }
        assert!(schedules(&job(16, "pipeline = 1\nmicro_batch = 1\nglobal_batch = 16", 1.0)).is_empty());
    }

    /// Stage 1 has four layers, the others three. At 24 micro-batches it still fills the waits that it began with: what they
    /// take longer than 16 is 2 % less than stage 1 works for eight.
    #[test]
    fn an_iteration_whose_busiest_stage_has_not_settled_grows_by_its_work() {
        let parallel = "pipeline = 4\nmicro_batch = 1\nglobal_batch = 128\nrecompute = \"full\"";
        let (job, prices) = (job(13, parallel, 5.0), Made { head_ns: 1180.0 });
        let own = costs::of_job(&job, &prices, DType::Bf16).unwrap();
        let search = Search { job: &job, own: &own, prices: &prices, machine_bytes: None, known: own.unsure() };
        let interleaved = Parallel { schedule: ScheduleName::Interleaved, chunks: Some(2), ..job.parallel.clone() };
        let variant = search.variant(job.with(interleaved).unwrap()).unwrap();
        let full = iteration::timeline(&variant.job, &variant.costs, ScheduleName::Interleaved, Some(2)).unwrap();
        assert_eq!(variant.iteration_ns, iteration::whole_ns(&full, &variant.costs));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

        /// The middle of an iteration repeats, and stopping at the bound loses nothing: the same best as by trying every
        /// combination in full. Of uneven stages that have not settled the estimate was up to 0.40 % off in 12,000 cases.
        #[test]
        fn the_best_combination_is_the_best_of_all(
            pipeline in 1u64..5, tensor in 0u32..2, data in 0u32..2, layers in 8u64..20, batch in 1u64..9, head in 0u64..5000,
            tight in any::<bool>(),
        ) {
            let (tensor, data) = (1 << tensor, 1 << data);
            let parallel = format!(
                "pipeline = {pipeline}\ntensor = {tensor}\ndata = {data}\nmicro_batch = 1\nglobal_batch = {}", 8 * batch * data
            );
            let (job, prices) = (job(layers, &parallel, if tight { 0.5 } else { 5.0 }), Made { head_ns: head as f64 });
            let own = costs::of_job(&job, &prices, DType::Bf16).unwrap();
            let search = Search { job: &job, own: &own, prices: &prices, machine_bytes: None, known: own.unsure() };
            let best = |list: Vec<Variant>| list.into_iter().filter(|v| v.sure).map(|v| v.iteration_ns).min();
            let every: Vec<Variant> = search.starts().iter().filter_map(|start| search.best(start)).collect();
            prop_assert_eq!(best(search.together()), best(every));
            for variant in search.together() {
                let p = &variant.job.parallel;
                let timeline = iteration::timeline(&variant.job, &variant.costs, p.schedule, p.chunks()).unwrap();
                let full = iteration::whole_ns(&timeline, &variant.costs) as f64;
                prop_assert!((variant.iteration_ns as f64 / full - 1.0).abs() < 1e-2, "{} {full} {}", variant.iteration_ns, variant.describes());
            }
        }
    }
}
