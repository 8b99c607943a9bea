//! Two streams beside each other, through the program's own backend: on the software device, or unchanged on a GPU.
//!
//! The programs are spins of a known length or models; nothing here asserts how fast anything is, only what must have
//! happened before, beside and after what.

use bubblebench::Result;
use bubblebench::corun::cuda::duo::Seen;
use bubblebench::corun::cuda::events::EventClock;
use bubblebench::corun::cuda::{OnGpu, SideProgram, SideStream, StreamSide, Streams};
use bubblebench::corun::pair::{self, Duo, Pair};
use bubblebench::models::gpt::Layer;
use bubblebench::models::{SideKind, SideSpec};
use bubblebench::ops::cuda::PressureResource;
use bubblebench::ops::cuda::{Cuda, Gpu};
use bubblebench::ops::{DType, Ops};
use bubblebench::records::Measurement;
use bubblebench::shape::LayerShape;
use bubblebench::stats::SplitMix;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

const MAIN_NS: u64 = 2_000_000;
const SIDE_NS: u64 = 300_000;

fn gpu() -> &'static Arc<Gpu> {
    static GPU: OnceLock<Arc<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| {
        softgpu::device::choose().unwrap_or_else(|why| panic!("no device to test on: {why}"));
        Gpu::open(0).unwrap()
    })
}

/// One pair at a time: tests beside each other would take each other's cores.
fn one_at_a_time() -> std::sync::MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn spinning(ns: u64) -> impl FnMut(&mut Cuda) -> Result<()> {
    move |ops| ops.spin(ns)
}

fn program(step: impl FnMut(&mut Cuda) -> Result<()> + 'static) -> Result<SideProgram> {
    Ok(SideProgram { step: Box::new(step), units: 1.0 })
}

fn spinning_side(streams: Streams) -> SideStream {
    let make = |_: &mut Cuda| program(spinning(SIDE_NS));
    SideStream::start(gpu(), DType::F32, streams.side(), make).unwrap()
}

/// The main's stream, the clock, and what the pairs leave behind.
struct Stage {
    ops: Cuda,
    clock: EventClock,
    seen: Seen,
    side: Option<SideStream>,
}

impl Stage {
    fn new(streams: Streams, side: Option<SideStream>) -> Self {
        let ops = Cuda::on(gpu(), DType::F32, streams.main()).unwrap();
        Stage { ops, clock: EventClock::new(gpu()).unwrap(), seen: Seen::default(), side }
    }

    fn duo<R>(&mut self, body: impl FnOnce(&mut OnGpu<'_>) -> R) -> R {
        let Stage { ops, clock, seen, side } = self;
        body(&mut OnGpu { ops, pass: &mut spinning(MAIN_NS), passes: 2, side: side.as_mut(), clock, seen })
    }

    fn pairs(&mut self, count: usize) -> Vec<Pair> {
        let mut random = SplitMix(3);
        self.duo(|duo| (0..count).map(|_| pair::measure(duo, &mut random)).collect::<Result<_>>()).unwrap()
    }
}

#[test]
fn pairs_have_both_sides_progress_on_the_devices_clock() {
    let _one = one_at_a_time();
    for streams in Streams::ALL {
        let side = spinning_side(streams);
        assert!(side.facts.step_ns >= 0.99 * SIDE_NS as f64);
        let mut stage = Stage::new(streams, Some(side));
        assert!(stage.duo(|duo| duo.warm_up()).unwrap() >= 0.99 * MAIN_NS as f64);
        for pair in stage.pairs(4) {
            let least = 0.99 * 2.0 * MAIN_NS as f64;
            assert!(pair.alone_ns >= least && pair.together_ns >= least, "{pair:?}");
            let most = 1.01e9 / SIDE_NS as f64;
            assert!(pair.side_alone_per_s > 0.0 && pair.side_alone_per_s <= most, "{pair:?}");
            assert!(pair.side_together_per_s <= most, "{pair:?}");
        }
        // Where this machine has little time for the side's threads, they do not come to work in every window.
        assert!((0..50).any(|_| stage.pairs(1)[0].overlap_percent > 0.0));
        assert!(stage.seen.steps > 4 && stage.seen.alone.ns >= 0.99 * 2.0 * MAIN_NS as f64);
    }
}

/// The side's steps follow each other, begin before the main's window and end behind it.
#[test]
fn the_side_outlasts_the_main() {
    let _one = one_at_a_time();
    let mut stage = Stage::new(Streams::Plain, Some(spinning_side(Streams::Plain)));
    let mut outlasts = || {
        let (window, slices) = stage.duo(|duo| duo.together()).unwrap();
        assert!(window.ns() >= 0.99 * 2.0 * MAIN_NS as f64);
        assert!(slices.windows(2).all(|w| w[0].start_ns <= w[0].end_ns && w[0].end_ns <= w[1].start_ns));
        let (first, last) = (slices.first().unwrap(), slices.last().unwrap());
        assert!(first.end_ns <= window.start_ns, "{window:?} {slices:?}");
        assert!(window.progress >= 0.0 && window.progress <= slices.len() as f64);
        last.end_ns >= window.start_ns
    };
    // Not where its thread has no time on this machine's cores for as long as the main runs.
    assert!((0..50).any(|_| outlasts()));
}

#[test]
fn nothing_beside_the_main_is_two_runs_of_it() {
    let _one = one_at_a_time();
    let mut stage = Stage::new(Streams::Priority, None);
    for pair in stage.pairs(2) {
        assert!(pair.counts(true) && pair.overlap_percent == 100.0);
        assert_eq!((pair.side_alone_per_s, pair.side_together_per_s), (0.0, 0.0));
    }
    assert_eq!(stage.seen.steps, 0);
}

/// A side whose host thread is too slow leaves its stream dry, and that is seen.
#[test]
fn a_side_that_its_thread_holds_up_is_told_from_one_the_device_does() {
    let _one = one_at_a_time();
    let slow = |_: &mut Cuda| {
        program(|ops| {
            std::thread::sleep(Duration::from_millis(2));
            ops.spin(1000)
        })
    };
    let side = SideStream::start(gpu(), DType::F32, Streams::Plain.side(), slow).unwrap();
    let mut stage = Stage::new(Streams::Plain, Some(side));
    let mut late = || {
        stage.duo(|duo| duo.together()).unwrap();
        stage.seen.late_percent() > 0.0
    };
    assert!((0..50).any(|_| late()));
}

#[test]
fn a_side_that_fails_says_so_and_nothing_hangs() {
    let _one = one_at_a_time();
    let unmade = |_: &mut Cuda| Err(bubblebench::Error::machine("no such model", "choose another"));
    let failed = SideStream::start(gpu(), DType::F32, Streams::Plain.side(), unmade);
    assert!(failed.err().unwrap().to_string().contains("no such model"));
    // An operation that is refused shows when the stream is waited for: at the end of the turn in which it was.
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let make = move |ops: &mut Cuda| {
        let (mut out, a, b) = (ops.alloc(4, DType::F32)?, ops.alloc(4, DType::F32)?, ops.alloc(4, DType::F32)?);
        program(move |ops| {
            let len = if told.try_recv().is_ok() { 5 } else { 4 };
            ops.residual(len, &mut out, &a, &b);
            Ok(())
        })
    };
    let side = SideStream::start(gpu(), DType::F32, Streams::Plain.side(), make).unwrap();
    let mut stage = Stage::new(Streams::Plain, Some(side));
    stage.duo(|duo| duo.together()).unwrap();
    tell.send(()).unwrap();
    let error = stage.duo(|duo| duo.together()).unwrap_err().to_string();
    assert!(error.contains("residual"), "{error}");
}

fn started(side: StreamSide, streams: Streams) -> SideStream {
    let make = move |ops: &mut Cuda| Ok(side.program(ops)?.unwrap());
    SideStream::start(gpu(), DType::Bf16, streams.side(), make).unwrap()
}

/// What runs beside it changes a layer's time, never its result.
#[test]
fn a_layer_computes_the_same_beside_every_side() {
    let _one = one_at_a_time();
    let shape = LayerShape::new(128, 2, 48, 1, DType::Bf16);
    let mlp = StreamSide::Model(SideSpec { kind: SideKind::Mlp, batch: 1 });
    for side in [mlp, StreamSide::Pressure(PressureResource::Cache)] {
        let mut stage = Stage::new(Streams::Plain, Some(started(side, Streams::Plain)));
        let Stage { ops, clock, seen, side } = &mut stage;
        let mut layer = Layer::new(ops, shape, 7).unwrap();
        let mut random = SplitMix(9);
        let mut seen_before = Vec::new();
        for _ in 0..3 {
            let x: Vec<f64> = (0..shape.norm_rows().len()).map(|_| random.symmetric()).collect();
            ops.write(layer.input_mut(), &x).unwrap();
            let pass = &mut |ops: &mut Cuda| {
                layer.forward(ops);
                Ok(())
            };
            OnGpu { ops, pass, passes: 2, side: side.as_mut(), clock, seen }.together().unwrap();
            let beside = ops.read(layer.output()).unwrap();
            layer.forward(ops);
            assert_eq!(beside, ops.read(layer.output()).unwrap());
            assert!(beside.iter().all(|y| y.is_finite()) && beside != seen_before);
            seen_before = beside;
        }
    }
}

/// A pressure's progress is what its kernel counts, not steps.
#[test]
fn pressure_counts_in_its_own_unit() {
    let _one = one_at_a_time();
    for resource in PressureResource::ALL {
        let side = started(StreamSide::Pressure(resource), Streams::Priority);
        let units = side.facts.units;
        assert!(units >= resource.units_per_round() as f64 && units.fract() == 0.0, "{resource:?}: {units}");
        let mut stage = Stage::new(Streams::Priority, Some(side));
        let (window, slices) = stage.duo(|duo| duo.together()).unwrap();
        assert!(window.progress <= units * slices.len() as f64);
        assert!(stage.duo(|duo| duo.side_alone(1000)).unwrap().progress >= units);
    }
}

/// The program itself on the software device, with nothing of the caller's own settings.
fn bubblebench(environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let mut command = Command::new(assert_cmd::cargo::cargo_bin("bubblebench"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("SOFTGPU_") || name.starts_with("BUBBLEBENCH_") || name.starts_with("CUDA_") {
            command.env_remove(&*name);
        }
    }
    command.env("LD_LIBRARY_PATH", softgpu::device::libraries());
    command.envs(environment.iter().copied()).args(arguments).output().unwrap()
}

fn measured(folder: &std::path::Path, environment: &[(&str, &str)], more: &[&str]) -> Vec<Measurement> {
    let results = folder.to_str().unwrap();
    let options = ["--device", "cuda", "--preset", "quick", "--allow-software", "--results", results];
    let output = bubblebench(environment, &[&["measure", "corun"], more, &options].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(folder.join("measurements.jsonl")).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_program_measures_pairs_and_fits_them() {
    let _one = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let records = measured(folder.path(), &[], &[]);
    let pairs: Vec<_> = records.iter().filter(|r| r.id.starts_with("corun/")).collect();
    assert_eq!(pairs.len(), 4);
    for record in pairs {
        let id = &record.id;
        // On a machine with little time for it the side may not come to work within any window: no number, and said so.
        if record.samples_total == 0 {
            assert!(record.has_flag("no-sample"), "{id}");
            continue;
        }
        assert!(record.has_flag("software") && !record.has_flag("one-connection"), "{id}");
        assert_eq!(record.param_u64("max_connections"), Some(8));
        assert!(record.slowdown.is_some() && record.alone_ns.is_some() && record.together_ns.is_some(), "{id}");
        assert!(record.overlap_percent.unwrap() >= 95.0 && record.side_alone_per_s.is_some(), "{id}");
        assert_eq!(record.sharing.as_deref(), record.param_str("sharing"));
        let main = record.params["main_priority"].as_i64().unwrap();
        match record.params.get("side_priority").map(|p| p.as_i64().unwrap()) {
            Some(side) if id.contains("/priority/") => assert!(main < side, "{id}"),
            Some(side) => assert_eq!(main, side, "{id}"),
            None => assert!(id.ends_with("+nothing"), "{id}"),
        }
    }
    let fit = bubblebench(&[], &["fit", "--results", folder.path().to_str().unwrap()]);
    assert!(fit.status.success(), "{}", String::from_utf8_lossy(&fit.stderr));
}

#[test]
fn one_connection_is_flagged() {
    let _one = one_at_a_time();
    let folder = tempfile::tempdir().unwrap();
    let one = [("CUDA_DEVICE_MAX_CONNECTIONS", "1")];
    let records = measured(folder.path(), &one, &["corun/stream/gpt-h128-a2-s48-b1-t1-bf16-forward+nothing"]);
    assert!(records[0].has_flag("one-connection") && records[0].param_u64("max_connections") == Some(1));
}
