//! A pair on a GPU as a case: a phase of the GPT layer, one product, or a probe, on one stream; a small model, an
//! all-reduce, or pressure, on another.
//!
//! The layer is made once for all cases of its shape, which follow each other in the lists.

use super::{LEAST_PAIRS, sample_of, sampling, worth_keeping};
use crate::clock::Trial;
use crate::corun::cuda::duo::{Seen, passes};
use crate::corun::cuda::events::EventClock;
use crate::corun::cuda::side::IN_FLIGHT;
use crate::corun::cuda::streams::{connections, priority_of};
use crate::corun::cuda::{AllReduceSide, OnGpu, SideStream, StreamMain, StreamSide, Streams, programs};
use crate::corun::pair;
use crate::machine::gpus;
use crate::models::gpt::Layer;
use crate::models::single::Single;
use crate::ops::DType;
use crate::ops::cuda::{Cuda, CudaPressure, Gpu};
use crate::records::flags::{LAUNCH_BOUND, ONE_CONNECTION};
use crate::records::measurement::{Backend, Kind, Verified};
use crate::shape::LayerShape;
use crate::stats::{self, SplitMix};
use crate::suite::Platform;
use crate::suite::case::{Case, CaseInfo, Context, RawSample, Sampling, Spec};
use crate::suite::layer_cache::{LayerCache, run_once};
use crate::{Error, Result};
use serde_json::{Map, Value};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

const SEED: u64 = 0x3a1;
/// More of the side's steps than this found their stream empty: its thread set its pace, not the GPU.
const LATE_PERCENT: f64 = 10.0;
/// On the software device whose times mean nothing.
const LEAST_SOFTWARE_PAIRS: usize = 2;

/// One row: who beside whom, and how their streams share the GPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamPair {
    pub streams: Streams,
    pub main: StreamMain,
    pub side: StreamSide,
}

impl StreamPair {
    fn id(&self) -> String {
        format!("corun/{}/{}+{}", self.streams.name(), self.main.name(), self.side)
    }
}

/// The rows as cases that share one GPU and one layer.
pub fn specs(rows: Vec<StreamPair>) -> Vec<Box<dyn Spec>> {
    let shared = Shared::default();
    rows.into_iter().map(|row| Box::new(StreamSpec { row, shared: shared.clone() }) as Box<dyn Spec>).collect()
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Bench>>);

/// What the cases share.
#[derive(Default)]
struct Bench {
    gpu: Option<(u32, Arc<Gpu>)>,
    layer: LayerCache<Cuda>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Bench> {
        // A case that panicked left nothing half-made that matters: layers are made on demand.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Bench {
    fn gpu(&mut self, ordinal: u32) -> Result<Arc<Gpu>> {
        if let Some((open, gpu)) = &self.gpu
            && *open == ordinal
        {
            return Ok(Arc::clone(gpu));
        }
        self.layer.forget();
        let gpu = Gpu::open(ordinal)?;
        self.gpu = Some((ordinal, Arc::clone(&gpu)));
        Ok(gpu)
    }

    /// The layer of this shape, made and run once if it is not the one at hand.
    fn layer(&mut self, ops: &mut Cuda, shape: LayerShape) -> Result<&mut Layer<Cuda>> {
        self.layer.get(shape, || run_once(ops, shape, SEED))
    }
}

struct StreamSpec {
    row: StreamPair,
    shared: Shared,
}

impl Spec for StreamSpec {
    fn id(&self) -> String {
        self.row.id()
    }

    fn build(&self, context: &Context) -> Result<Box<dyn Case>> {
        let StreamPair { streams, main, side } = self.row;
        main.shape().map_or(Ok(()), LayerShape::validate)?;
        let mut info = CaseInfo::new(self.id(), Kind::Corun, Backend::Cuda)
            .param("side", side.to_string())
            .param("side_unit", side.unit())
            .param("sharing", streams.name())
            .param("max_connections", connections());
        info.params.extend(main.params());
        info.params.extend(all_reduce_params(side, context.platform));
        info.sharing = Some(streams.name().into());
        info.flop = main.flop();
        if connections() == 1 {
            info.flags.push(ONE_CONNECTION.into());
        }
        let (row, shared, platform) = (self.row, self.shared.clone(), context.platform);
        Ok(Box::new(StreamCase { row, shared, platform, info, ready: None, discarded: 0 }))
    }
}

/// What of the GPU the all-reduce takes: its thread blocks share no multiprocessor with other work.
fn all_reduce_params(side: StreamSide, platform: Platform) -> Map<String, Value> {
    let StreamSide::AllReduce(AllReduceSide { ranks, bytes, ctas }) = side else { return Map::new() };
    let sms = gpus::list().ok().and_then(|gpus| gpus.get(platform.ordinal() as usize).map(|gpu| gpu.sms));
    let share = ctas.zip(sms).map(|(ctas, sms)| 100.0 * f64::from(ctas) / sms as f64);
    let entries = [
        ("side_operation", "all_reduce".into()),
        ("side_ranks", ranks.into()),
        ("side_bytes", bytes.into()),
        ("side_ctas", ctas.into()),
        ("side_sm_percent", share.into()),
    ];
    entries.into_iter().map(|(name, value): (&str, Value)| (name.to_string(), value)).collect()
}

fn unprepared() -> Error {
    Error::machine("a pair is sampled before it is made", "prepare the case first")
}

struct StreamCase {
    row: StreamPair,
    shared: Shared,
    platform: Platform,
    info: CaseInfo,
    ready: Option<Ready>,
    discarded: u64,
}

/// Both streams, warm.
struct Ready {
    ops: Cuda,
    /// The main, where it is none that the cases share.
    probe: Option<CudaPressure>,
    product: Option<Single<Cuda>>,
    side: Option<SideStream>,
    clock: EventClock,
    passes: u64,
    seen: Seen,
    /// SM clock of the main alone, by pair.
    alone_mhz: Vec<f64>,
    random: SplitMix,
}

impl Ready {
    /// Both programs, and one pass of the main given to `body`.
    fn with_duo<R>(
        &mut self,
        main: StreamMain,
        bench: &mut Bench,
        body: impl FnOnce(&mut OnGpu<'_>, &mut SplitMix) -> Result<R>,
    ) -> Result<R> {
        let Ready { ops, probe, product, side, clock, passes, seen, random, .. } = self;
        let layer = main.shape().map(|shape| bench.layer(ops, *shape)).transpose()?;
        let pass: &mut dyn FnMut(&mut Cuda) -> Result<()> = match (probe, product, layer) {
            (Some(pressure), ..) => &mut |ops: &mut Cuda| programs::probe(pressure, ops),
            (None, Some(product), _) => &mut |ops: &mut Cuda| {
                product.run(ops);
                Ok(())
            },
            (None, None, Some(layer)) => &mut |ops: &mut Cuda| {
                run(main, layer, ops);
                Ok(())
            },
            (None, None, None) => return Err(unprepared()),
        };
        body(&mut OnGpu { ops, pass, passes: *passes, side: side.as_mut(), clock, seen }, random)
    }
}

fn run(main: StreamMain, layer: &mut Layer<Cuda>, ops: &mut Cuda) {
    match main {
        StreamMain::Backward(_) => {
            layer.backward_input(ops);
            layer.backward_weight(ops);
        }
        _ => layer.forward(ops),
    }
}

/// The side on its own stream and thread.
fn start(side: StreamSide, gpu: &Arc<Gpu>, dtype: DType, streams: Streams) -> Result<Option<SideStream>> {
    if side == StreamSide::Nothing {
        return Ok(None);
    }
    SideStream::start(gpu, dtype, streams.side(), move |ops| side.program(ops)?.ok_or_else(unprepared)).map(Some)
}

impl StreamCase {
    fn note(&mut self, name: &str, value: impl Into<Value>) {
        self.info.params.insert(name.into(), value.into());
    }

    fn software(&self) -> bool {
        matches!(self.platform, Platform::Software(_))
    }

    fn make(&mut self, bench: &mut Bench) -> Result<Ready> {
        let StreamPair { streams, main, side } = self.row;
        let gpu = bench.gpu(self.platform.ordinal())?;
        let dtype = main.shape().map_or(DType::Bf16, |shape| shape.dtype);
        let mut ops = Cuda::on(&gpu, dtype, streams.main())?;
        self.note("main_priority", priority_of(&ops)?);
        let probe = match main {
            StreamMain::Probe(resource) => Some(programs::pressure(&ops, resource)?),
            _ => None,
        };
        let single = |operation| Single::new(&mut ops, operation, dtype, SEED);
        let product = main.product().map(single).transpose()?;
        let mut ready = Ready {
            probe,
            product,
            clock: EventClock::new(&gpu)?,
            random: SplitMix(0xc0_4a11),
            ops,
            side: None,
            passes: 1,
            seen: Seen::default(),
            alone_mhz: Vec::new(),
        };
        // What is loaded and planned on first use is so before the side is there.
        let pass_ns = ready.with_duo(main, bench, |duo, _| duo.warm_up())?;
        ready.side = start(side, &gpu, dtype, streams)?;
        let side = ready.side.as_ref().map(|side| side.facts);
        if let Some(facts) = side {
            self.note("side_priority", facts.priority);
            self.note("side_steps_in_flight", IN_FLIGHT);
            self.note("side_step_ns", facts.step_ns);
        }
        if !self.software() {
            ready.passes = passes(pass_ns, side.map_or(0.0, |facts| facts.step_ns));
        }
        self.note("passes", ready.passes);
        Ok(ready)
    }

    /// What is known so far beside the times.
    fn note_seen(&mut self) {
        let Some(ready) = &self.ready else { return };
        let alone_mhz = stats::median(&ready.alone_mhz);
        let late_percent = ready.side.as_ref().map(|_| ready.seen.late_percent());
        if let Some(mhz) = alone_mhz {
            self.note("alone_sm_clock_mhz", mhz);
        }
        if let Some(percent) = late_percent {
            self.note("side_late_percent", percent);
            self.info.flags.retain(|flag| flag != LAUNCH_BOUND);
            if percent > LATE_PERCENT {
                self.info.flags.push(LAUNCH_BOUND.into());
            }
        }
    }
}

/// The trial beside the side with the lower of the pair's two clocks: a pair is worth what its slower half is.
fn slower(seen: &Seen) -> Trial {
    let clocks = [seen.alone.sm_clock_mhz, seen.together.sm_clock_mhz];
    Trial { sm_clock_mhz: clocks.into_iter().flatten().reduce(f64::min), ..seen.together }
}

impl Case for StreamCase {
    fn info(&self) -> &CaseInfo {
        &self.info
    }

    fn sampling(&self) -> Sampling {
        sampling(if self.software() { LEAST_SOFTWARE_PAIRS } else { LEAST_PAIRS })
    }

    /// Nothing is checked here: the layer's and the small models' results are, in their own cases.
    fn prepare(&mut self) -> Result<Option<Verified>> {
        let shared = self.shared.clone();
        self.ready = Some(self.make(&mut shared.lock())?);
        Ok(None)
    }

    fn sample(&mut self, n: u64) -> Result<Vec<RawSample>> {
        let shared = self.shared.clone();
        let ready = self.ready.as_mut().ok_or_else(unprepared)?;
        let may_starve = self.row.streams.may_starve() || self.row.side == StreamSide::Nothing;
        let (main, passes) = (self.row.main, ready.passes);
        let pairs = ready.with_duo(main, &mut shared.lock(), |duo, random| {
            worth_keeping(n, may_starve, &mut self.discarded, || {
                let pair = pair::measure(duo, random)?;
                Ok((pair, *duo.seen))
            })
        })?;
        ready.alone_mhz.extend(pairs.iter().filter_map(|(_, seen)| seen.alone.sm_clock_mhz));
        self.note_seen();
        Ok(pairs.into_iter().map(|(pair, seen)| sample_of(pair, passes, &slower(&seen))).collect())
    }

    fn discarded(&self) -> u64 {
        self.discarded
    }
}
