//! The GPU's clock and its graphs, through the real driver calls: on the software device, or on a GPU where there is one.
//! Nothing here asserts how fast anything is; only what must come before what, and that a held stream is always let go.

use bubblebench::clock::cuda::CudaClock;
use bubblebench::clock::steady::WarmUp;
use bubblebench::models::gpt::Layer;
use bubblebench::models::single::Single;
use bubblebench::ops::cuda::{Cuda, Gpu, Priority};
use bubblebench::ops::work::Operation;
use bubblebench::ops::{DType, Ops, Rows};
use bubblebench::shape::{LayerShape, Phase};
use bubblebench::{Error, Result};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const LAYERNORM: Operation = Operation::LayernormForward(Rows { rows: 8, cols: 96 });

fn gpu() -> &'static Arc<Gpu> {
    static GPU: OnceLock<Arc<Gpu>> = OnceLock::new();
    GPU.get_or_init(|| {
        softgpu::device::choose().unwrap_or_else(|why| panic!("no device to test on: {why}"));
        Gpu::open(0).unwrap()
    })
}

fn stream() -> Cuda {
    Cuda::on(gpu(), DType::F32, Priority::Plain).unwrap()
}

/// A layernorm that has run once.
fn layernorm(ops: &mut Cuda) -> Single<Cuda> {
    let mut single = Single::new(ops, LAYERNORM, DType::F32, 5).unwrap();
    single.run(ops);
    ops.synchronize().unwrap();
    single
}

/// Spins for at least that long on the device.
fn spin(ns: u64) -> impl FnMut(&mut Cuda) -> Result<()> {
    move |ops| ops.spin(ns)
}

#[test]
fn a_cold_trial_times_the_work_and_nothing_else() {
    let (mut clock, mut ops) = (CudaClock::new(gpu()).unwrap(), stream());
    spin(1000)(&mut ops).unwrap();
    for ns in [2e6, 5e6] {
        let trial = clock.cold(&mut ops, &mut spin(ns as u64)).unwrap();
        assert!(trial.ns >= 0.99 * ns, "{trial:?} for work of {ns} ns");
        // The host knows of the end later than the device.
        assert!(trial.host_ns.unwrap() >= 0.99 * ns && trial.unblocked != clock.holds(), "{trial:?}");
    }
}

/// The host takes its time between two launches; a held stream shows nothing of it.
#[test]
fn what_the_host_does_between_launches_is_not_timed() {
    let (mut clock, mut ops) = (CudaClock::new(gpu()).unwrap(), stream());
    if !clock.holds() {
        eprintln!("skipped: this device runs what it is given at once");
        return;
    }
    let mut work = |ops: &mut Cuda| {
        ops.spin(1000)?;
        std::thread::sleep(Duration::from_millis(400));
        ops.spin(1000)
    };
    work(&mut ops).unwrap();
    assert!(clock.cold(&mut ops, &mut work).unwrap().ns < 3e8);
    let warm = clock.warm(&mut ops, 1, &mut work).unwrap();
    assert!(warm.ns >= 3.9e8, "a warm trial holds nothing: {warm:?}");
}

#[test]
fn the_sm_clock_is_read_and_resolved() {
    let (mut clock, mut ops) = (CudaClock::new(gpu()).unwrap(), stream());
    let tick = clock.tick_ns().unwrap();
    assert!(tick > 0.0, "{tick}");
    let mut read = || {
        let trial = clock.cold(&mut ops, &mut spin(3_000_000)).unwrap();
        assert!(!trial.clock_unresolved && !trial.throttled, "{trial:?}");
        trial.sm_clock_mhz.unwrap()
    };
    // The software device's two clocks are read one after the other, and a thread may lose its core in between.
    let mhz = bubblebench::stats::median(&[read(), read(), read(), read(), read()]).unwrap();
    if gpu().facts().software {
        assert!((mhz - 1000.0).abs() < 5.0, "the software device runs at a nominal 1 GHz, not {mhz} MHz");
    }
    assert!((100.0..4000.0).contains(&mhz), "{mhz}");
}

#[test]
fn warm_trials_are_all_runs_together() {
    let (mut clock, mut ops) = (CudaClock::new(gpu()).unwrap(), stream());
    let mut runs = 0;
    let trial = clock.warm(&mut ops, 5, &mut |ops| {
        runs += 1;
        ops.spin(500_000)
    });
    assert!(trial.unwrap().ns >= 0.99 * 2.5e6 && runs == 5);
}

#[test]
fn a_warm_up_ends_when_the_clock_is_steady_or_its_time_is_up() {
    let (mut clock, mut ops) = (CudaClock::new(gpu()).unwrap(), stream());
    let ended = clock.warm_up(&mut ops, Duration::from_secs(5), &mut spin(100_000)).unwrap();
    if gpu().facts().software {
        assert_eq!(ended, WarmUp::Steady, "1 GHz for ever");
    }
    assert_eq!(clock.warm_up(&mut ops, Duration::ZERO, &mut spin(1000)).unwrap(), WarmUp::Capped);
}

/// Work that fails leaves the stream free: what comes after it runs.
#[test]
fn a_held_stream_is_let_go_whatever_the_work_does() {
    let (mut clock, mut ops) = (CudaClock::new(gpu()).unwrap(), stream());
    let before = clock.cold(&mut ops, &mut |_| Err(Error::input("not today", "try tomorrow")));
    assert!(before.unwrap_err().to_string().contains("not today"));
    let after = clock.cold(&mut ops, &mut |ops| {
        ops.spin(1000)?;
        Err(Error::input("half done", "try tomorrow"))
    });
    assert!(after.unwrap_err().to_string().contains("half done"));
    assert!(clock.cold(&mut ops, &mut spin(1000)).is_ok());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        clock.cold(&mut ops, &mut |_| panic!("the work has a bug")).map(|_| ())
    }));
    assert!(panicked.is_err());
    let (mut clock, mut ops) = (CudaClock::new(gpu()).unwrap(), stream());
    assert!(clock.cold(&mut ops, &mut spin(1000)).is_ok());
}

/// An operation that keeps its error until somebody waits.
#[test]
fn an_error_of_the_vocabulary_surfaces() {
    let (mut clock, mut ops) = (CudaClock::new(gpu()).unwrap(), stream());
    let mut single = layernorm(&mut ops);
    let (mut short, rest) = (ops.alloc(1, DType::F32).unwrap(), ops.alloc(96, DType::F32).unwrap());
    let failed = clock.cold(&mut ops, &mut |ops| {
        ops.residual(96, &mut short, &rest, &rest);
        Ok(())
    });
    assert!(failed.is_err());
    assert!(
        clock
            .cold(&mut ops, &mut |ops| {
                single.run(ops);
                Ok(())
            })
            .is_ok(),
        "the error was taken, the stream is free"
    );
}

#[test]
fn a_stream_that_is_never_let_go_gives_up_and_says_so() {
    let (mut clock, mut ops) = (CudaClock::new(gpu()).unwrap(), stream());
    if !clock.holds() {
        eprintln!("skipped: this device runs what it is given at once");
        return;
    }
    clock.set_timeout(Duration::from_millis(20));
    let late = clock.cold(&mut ops, &mut |ops| {
        ops.spin(1000)?;
        std::thread::sleep(Duration::from_millis(300));
        Ok(())
    });
    let text = late.unwrap_err().to_string();
    assert!(text.contains("not let go"), "{text}");
    clock.set_timeout(Duration::from_secs(10));
    assert!(clock.cold(&mut ops, &mut spin(1000)).is_ok());
}

/// One launch too many behind a blocker would wait for it forever: it is refused instead.
#[test]
fn too_many_launches_behind_a_blocker_are_refused() {
    let (mut clock, mut ops) = (CudaClock::new(gpu()).unwrap(), stream());
    let mut many = |count: usize| clock.cold(&mut ops, &mut |ops| (0..count).try_for_each(|_| ops.spin(0)));
    assert!(many(509).is_ok());
    let outcome = many(510);
    if clock.holds() {
        let text = outcome.unwrap_err().to_string();
        assert!(text.contains("more than 509 launches"), "{text}");
    }
    assert!(clock.warm(&mut ops, 600, &mut spin(0)).is_ok(), "warm trials hold nothing");
}

/// Work that waits for the stream it is held on would wait forever: it is told instead.
#[test]
fn waiting_and_allocating_behind_a_blocker_are_refused() {
    let (mut clock, mut ops) = (CudaClock::new(gpu()).unwrap(), stream());
    if !clock.holds() {
        eprintln!("skipped: this device runs what it is given at once");
        return;
    }
    let waits = clock.cold(&mut ops, &mut |ops| ops.synchronize()).unwrap_err().to_string();
    assert!(waits.contains("held for a cold trial"), "{waits}");
    let allocates = clock.cold(&mut ops, &mut |ops| ops.alloc(4, DType::F32).map(|_| ())).unwrap_err().to_string();
    assert!(allocates.contains("held for a cold trial"), "{allocates}");
}

#[test]
fn replays_give_what_the_stream_gives() {
    let (mut clock, mut ops) = (CudaClock::new(gpu()).unwrap(), stream());
    for operation in [
        LAYERNORM,
        Operation::LayernormToInputs(Rows { rows: 7, cols: 130 }),
        Operation::LayernormToWeights(Rows { rows: 70, cols: 33 }),
    ] {
        let results = |ops: &mut Cuda, single: &Single<Cuda>| -> Vec<Vec<f64>> {
            single.results().iter().map(|result| ops.read(result).unwrap()).collect()
        };
        // Gradients are added to: both run as often.
        let mut plain = Single::new(&mut ops, operation, DType::F32, 9).unwrap();
        (0..4).for_each(|_| plain.run(&mut ops));
        let expected = results(&mut ops, &plain);
        let mut single = Single::new(&mut ops, operation, DType::F32, 9).unwrap();
        single.run(&mut ops);
        let graph = ops
            .capture(|ops| {
                single.run(ops);
                Ok(())
            })
            .unwrap();
        assert!(graph.nodes().unwrap() >= 1);
        graph.launch(&mut ops).unwrap();
        clock.cold_graph(&mut ops, &graph).unwrap();
        let trial = clock.warm_graph(&mut ops, 1, &graph).unwrap();
        assert!(trial.ns >= 0.0 && trial.sm_clock_mhz.is_some());
        assert_eq!(results(&mut ops, &single), expected, "{operation:?}");
    }
}

/// Each phase of a whole layer as one graph: what its replays leave is what the stream leaves, to the bit.
#[test]
fn a_whole_layer_is_captured_phase_by_phase() {
    let (mut clock, mut ops) = (CudaClock::new(gpu()).unwrap(), stream());
    let shape = LayerShape::new(64, 2, 24, 2, DType::F32);
    let phases = [Phase::Forward, Phase::BackwardInput, Phase::BackwardWeight];
    let mut results = |replayed: bool| -> Vec<Vec<f64>> {
        let mut layer = Layer::new(&mut ops, shape, 11).unwrap();
        for phase in phases {
            layer.run(&mut ops, phase);
        }
        ops.synchronize().unwrap();
        for phase in phases {
            if replayed {
                let graph = ops
                    .capture(|ops| {
                        layer.run(ops, phase);
                        Ok(())
                    })
                    .unwrap();
                assert!(graph.nodes().unwrap() >= 4, "{phase:?}");
                clock.cold_graph(&mut ops, &graph).unwrap();
            } else {
                clock
                    .cold(&mut ops, &mut |ops| {
                        layer.run(ops, phase);
                        Ok(())
                    })
                    .unwrap();
            }
        }
        layer.results().into_iter().map(|(_, result)| ops.read(result).unwrap()).collect()
    };
    let (stream, graph) = (results(false), results(true));
    assert!(stream.iter().flatten().all(|v| v.is_finite()) && stream.len() > 10);
    assert_eq!(graph, stream);
}

/// What a graph was recorded with stays, even when the stream's scratch memory grows afterwards.
#[test]
fn a_graph_keeps_its_scratch_memory() {
    let mut ops = stream();
    let operation = |rows, cols| Operation::LayernormToWeights(Rows { rows, cols });
    let run = |ops: &mut Cuda, times: usize| {
        let mut single = Single::new(ops, operation(64, 40), DType::F32, 3).unwrap();
        (0..times).for_each(|_| single.run(ops));
        single.results().iter().map(|r| ops.read(r).unwrap()).collect::<Vec<_>>()
    };
    let expected = run(&mut stream(), 2);
    let mut single = Single::new(&mut ops, operation(64, 40), DType::F32, 3).unwrap();
    single.run(&mut ops);
    let graph = ops
        .capture(|ops| {
            single.run(ops);
            Ok(())
        })
        .unwrap();
    Single::new(&mut ops, operation(300, 4000), DType::F32, 3).unwrap().run(&mut ops);
    ops.synchronize().unwrap();
    graph.launch(&mut ops).unwrap();
    let got: Vec<_> = single.results().iter().map(|r| ops.read(r).unwrap()).collect();
    assert_eq!(got, expected);
}

#[test]
fn what_cannot_be_captured_is_an_error_and_the_stream_goes_on() {
    let mut ops = stream();
    let mut single = layernorm(&mut ops);
    let message = |result: Result<bubblebench::ops::cuda::Graph>| result.map(|_| ()).unwrap_err().to_string();
    assert!(message(ops.capture(|_| Ok(()))).contains("a graph of nothing"));
    assert!(message(ops.capture(|ops| ops.synchronize())).contains("while a graph is captured"));
    assert!(message(ops.capture(|ops| ops.alloc(8, DType::F32).map(|_| ()))).contains("while a graph is captured"));
    assert!(message(ops.capture(|_| Err(Error::input("no", "yes")))).contains("no; yes"));
    // An operation's own error, kept until somebody waits, belongs to the capture.
    let (mut short, rest) = (ops.alloc(1, DType::F32).unwrap(), ops.alloc(96, DType::F32).unwrap());
    message(ops.capture(|ops| {
        ops.residual(96, &mut short, &rest, &rest);
        Ok(())
    }));
    assert!(
        message(ops.capture(|ops| ops.capture(|ops| ops.spin(0)).map(|_| ()))).contains("while a graph is captured")
    );
    // Nothing of that is left behind.
    ops.synchronize().unwrap();
    let graph = ops
        .capture(|ops| {
            single.run(ops);
            Ok(())
        })
        .unwrap();
    graph.launch(&mut ops).unwrap();
    ops.synchronize().unwrap();
    assert!(graph.launch(&mut stream()).unwrap_err().to_string().contains("another stream"));
}
