//! Two streams beside each other, through the program's own backend: on the software device, or unchanged on a GPU.
//!
//! The programs are spins of a known length or models; nothing here asserts how fast anything is, only what must have
//! happened before, beside and after what.

use bubblebench::Result;
use bubblebench::corun::cuda::duo::Seen;
use bubblebench::corun::cuda::events::EventClock;
use bubblebench::corun::cuda::{OnGpu, SideStream, SideWork, Streams};
use bubblebench::corun::pair::{self, Duo, Pair};
use bubblebench::ops::cuda::{Cuda, Gpu};
use bubblebench::ops::{DType, Ops};
use bubblebench::stats::SplitMix;
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

fn spinning(ns: u64) -> impl FnMut(&mut Cuda) {
    move |ops| ops.spin(ns).unwrap()
}

fn spinning_side(streams: Streams) -> SideStream {
    let make = |_: &mut Cuda| Ok(Box::new(spinning(SIDE_NS)) as SideWork);
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
        assert!(stage.duo(|duo| duo.warm_up(Duration::from_millis(1))).unwrap() >= 0.99 * MAIN_NS as f64);
        for pair in stage.pairs(4) {
            let least = 0.99 * 2.0 * MAIN_NS as f64;
            assert!(pair.alone_ns >= least && pair.together_ns >= least, "{pair:?}");
            let most = 1.01e9 / SIDE_NS as f64;
            assert!(pair.side_alone_per_s > 0.0 && pair.side_alone_per_s <= most, "{pair:?}");
            assert!(pair.side_together_per_s <= most && pair.overlap_percent > 0.0, "{pair:?}");
        }
        assert!(stage.seen.steps > 4 && stage.seen.alone.ns >= 0.99 * 2.0 * MAIN_NS as f64);
    }
}

/// The side's steps follow each other, begin before the main's window and end behind it.
#[test]
fn the_side_outlasts_the_main() {
    let _one = one_at_a_time();
    let mut stage = Stage::new(Streams::Plain, Some(spinning_side(Streams::Plain)));
    for _ in 0..3 {
        let (window, slices) = stage.duo(|duo| duo.together()).unwrap();
        assert!(window.ns() >= 0.99 * 2.0 * MAIN_NS as f64);
        assert!(slices.windows(2).all(|w| w[0].start_ns <= w[0].end_ns && w[0].end_ns <= w[1].start_ns));
        let (first, last) = (slices.first().unwrap(), slices.last().unwrap());
        assert!(first.end_ns <= window.start_ns && last.end_ns >= window.start_ns, "{window:?} {slices:?}");
        assert!(window.progress >= 0.0 && window.progress <= slices.len() as f64);
    }
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
        let work = |ops: &mut Cuda| {
            std::thread::sleep(Duration::from_millis(2));
            ops.spin(1000).unwrap();
        };
        Ok(Box::new(work) as SideWork)
    };
    let side = SideStream::start(gpu(), DType::F32, Streams::Plain.side(), slow).unwrap();
    let mut stage = Stage::new(Streams::Plain, Some(side));
    stage.duo(|duo| duo.together()).unwrap();
    assert!(stage.seen.late_percent() > 0.0, "{:?}", stage.seen);
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
        let work = move |ops: &mut Cuda| {
            let len = if told.try_recv().is_ok() { 5 } else { 4 };
            ops.residual(len, &mut out, &a, &b);
        };
        Ok(Box::new(work) as SideWork)
    };
    let side = SideStream::start(gpu(), DType::F32, Streams::Plain.side(), make).unwrap();
    let mut stage = Stage::new(Streams::Plain, Some(side));
    stage.duo(|duo| duo.together()).unwrap();
    tell.send(()).unwrap();
    let error = stage.duo(|duo| duo.together()).unwrap_err().to_string();
    assert!(error.contains("residual"), "{error}");
}
