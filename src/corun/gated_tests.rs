//! Gated operations on a device that only counts: the numbers' own tests are the device's.

use super::*;
use crate::corun::gate::{self, Stop};
use crate::corun::time::now_ns;
use std::time::Duration;

/// Vectors of f64; `residual` adds, everything else is not asked of it here.
#[derive(Default)]
struct Adder {
    pause_us: u64,
}

macro_rules! left_out {
    ($(fn $name:ident($($kind:ty),*);)*) => { $(fn $name(&mut self, $(_: $kind),*) { unreachable!() })* };
}

type B = Vec<f64>;

#[allow(clippy::too_many_arguments)]
impl Ops for Adder {
    type Buffer = B;
    fn dtype(&self) -> DType {
        DType::F64
    }
    fn alloc(&mut self, len: usize, _: DType) -> Result<B> {
        Ok(vec![f64::NAN; len])
    }
    fn write(&mut self, dst: &mut B, values: &[f64]) -> Result<()> {
        dst.copy_from_slice(values);
        Ok(())
    }
    fn write_ids(&mut self, _: &mut B, _: &[u32]) -> Result<()> {
        Ok(())
    }
    fn read(&mut self, src: &B) -> Result<Vec<f64>> {
        Ok(src.clone())
    }
    fn synchronize(&mut self) -> Result<()> {
        Ok(())
    }
    fn zero(&mut self, dst: &mut B) {
        dst.fill(0.0);
    }
    fn residual(&mut self, len: usize, out: &mut B, a: &B, b: &B) {
        (0..len).for_each(|i| out[i] = a[i] + b[i]);
        std::thread::sleep(Duration::from_micros(self.pause_us));
    }
    left_out! {
        fn linear_forward(Linear, &mut B, &B, &B, ForwardEpilogue<'_, B>);
        fn linear_to_inputs(Linear, &mut B, &B, &B, InputEpilogue<'_, B>);
        fn linear_to_weights(Linear, &mut B, &B, &B, WeightEpilogue<'_, B>);
        fn layernorm_forward(Rows, &mut B, &mut B, &mut B, &B, &B, &B);
        fn layernorm_to_inputs(Rows, &mut B, &B, &B, &B, RowStats<'_, B>, Option<&B>);
        fn layernorm_to_weights(Rows, &mut B, &mut B, &B, &B, RowStats<'_, B>);
        fn attention_forward(Attention, &mut B, &mut B, &B);
        fn attention_backward(Attention, &mut B, &B, &B, &B, &B, &mut B);
        fn gelu_forward(usize, &mut B, &B);
        fn gelu_backward(usize, &mut B, &B, &B);
        fn residual_layernorm(Rows, ResidualLayernorm<'_, B>, &B, &B, &B, &B);
        fn dropout(usize, &mut B, &B, Dropout);
        fn embedding_forward(Embedding, &mut B, &B, &B, &B);
        fn embedding_to_weights(Embedding, &mut B, &mut B, &B, &B);
        fn cross_entropy(Rows, &mut B, &mut B, &B);
        fn adamw(usize, &mut B, Option<&mut B>, &B, &mut B, &mut B, AdamW);
        fn conv_forward(Conv, &mut B, &B, &B, &mut B);
        fn conv_to_inputs(Conv, &mut B, &B, &B, &mut B);
        fn conv_to_weights(Conv, &mut B, &B, &B, &mut B);
        fn groupnorm_forward(GroupNorm, &mut B, &mut B, &mut B, &B, &B, &B);
        fn groupnorm_to_inputs(GroupNorm, &mut B, &B, &B, &B, RowStats<'_, B>);
        fn groupnorm_to_weights(GroupNorm, &mut B, &mut B, &B, &B, RowStats<'_, B>);
        fn relu_forward(usize, &mut B, &B);
        fn relu_backward(usize, &mut B, &B, &B);
        fn average_pool_forward(Pool, &mut B, &B);
        fn average_pool_backward(Pool, &mut B, &B);
        fn lstm_cell_forward(LstmCell, &mut B, &mut B, &mut B, &B);
        fn lstm_cell_backward(LstmCell, &mut B, &mut B, &B, &B, &B, &B);
        fn sgd(usize, &mut B, &B, &mut B, Sgd);
    }
}

/// total += 1, written with `Ops` alone.
fn count_up(ops: &mut impl Ops<Buffer = B>, total: &mut B, one: &B) {
    let before = total.clone();
    ops.residual(1, total, &before, one);
}

#[test]
fn the_work_is_the_same_and_every_operation_is_counted_and_timed() {
    let (mut main, side) = gate::pair().unwrap();
    main.open(60_000_000_000);
    let mut ops = Gated::new(Adder { pause_us: 300 }, side);
    let (mut total, one) = (ops.alloc(1, DType::F64).unwrap(), vec![1.0]);
    ops.zero(&mut total);
    ops.time_operations(now_ns);
    for _ in 0..5 {
        count_up(&mut ops, &mut total, &one);
    }
    let times = ops.take_times();
    assert!(times.len() == 5 && times.iter().all(|&t| t >= 300_000.0));
    count_up(&mut ops, &mut total, &one);
    assert!(ops.take_times().is_empty());
    assert_eq!((ops.read(&total).unwrap(), ops.operations(), main.side_operations()), (vec![6.0], 7, 7));
    ops.synchronize().unwrap();
}

#[test]
fn a_model_is_held_between_operations_and_goes_on_where_it_stood() {
    let (mut main, side) = gate::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let mut ops = Gated::new(Adder { pause_us: 50 }, side);
        let (mut total, one) = (vec![0.0], vec![1.0]);
        while ops.ended().is_none() {
            count_up(&mut ops, &mut total, &one);
        }
        (total[0], ops.operations(), ops.synchronize().unwrap_err().to_string())
    });
    let mut last = 0;
    for _ in 0..20 {
        main.open(60_000_000_000);
        while main.side_operations() < last + 3 {
            std::thread::yield_now();
        }
        main.close();
        assert!(matches!(main.wait_stopped(10_000_000_000), Stop::Stopped { .. }));
        last = main.side_operations();
        std::thread::sleep(Duration::from_micros(500));
        assert_eq!(main.side_operations(), last);
    }
    drop(main);
    let (total, operations, why) = thread.join().unwrap();
    assert_eq!((total, operations), (last as f64, last), "what was left out after the end changed nothing");
    assert!(why.contains("shut the gate down"));
}

#[test]
fn needs_go_by_position_and_a_step_that_differs_asks_with_the_largest() {
    let mut needs = Needs::default();
    assert_eq!((needs.next(), needs.next()), (Some(0), Some(0)), "nothing was learned");
    needs.learn(vec![10, 30, 20]);
    let mut step = |operations: usize| {
        needs.begin_step();
        (0..operations).map(|_| needs.next().unwrap()).collect::<Vec<u64>>()
    };
    assert_eq!(step(3), [10, 30, 20]);
    assert_eq!(step(4), [10, 30, 20, 30], "one more than is known");
    assert_eq!(step(3), [30, 30, 30], "the step before had one more");
    assert_eq!(step(2), [10, 30], "the step before was as learned");
    assert_eq!(step(3), [30, 30, 30]);
    assert_eq!(step(3), [10, 30, 20]);
}

#[test]
fn a_whole_step_asks_before_its_first_operation_only() {
    let mut needs = Needs::default();
    needs.learn_step(70);
    let mut step = |operations: usize| {
        needs.begin_step();
        (0..operations).map(|_| needs.next()).collect::<Vec<_>>()
    };
    assert_eq!(step(3), [Some(70), None, None]);
    assert_eq!(step(2), [Some(70), None], "however many the step before had");
    assert_eq!(step(3), [Some(70), None, None]);
}

/// The gate closes behind the first operation, and the step's others follow all the same, counted.
#[test]
fn a_step_that_has_begun_is_not_stopped_and_says_when_its_last_operation_ended() {
    let (mut main, side) = gate::pair().unwrap();
    let last = Arc::new(LastOperations::default());
    let mut ops = Gated::new(Adder::default(), side);
    ops.learn_step(1_000);
    ops.keep_last(Arc::clone(&last));
    let (mut total, one) = (vec![0.0], vec![1.0]);
    main.open(60_000_000_000);
    let opening = main.opening();
    ops.begin_step();
    count_up(&mut ops, &mut total, &one);
    main.close();
    let closed = now_ns();
    (0..2).for_each(|_| count_up(&mut ops, &mut total, &one));
    assert_eq!((total[0], main.side_operations(), main.stopped()), (3.0, 3, None));
    let last = last.take();
    assert!(last.len() == 1 && last[0].opening == opening && last[0].end_ns >= closed, "{last:?}");
}

/// What is left of the opening is enough for the short operation, and not for the long one.
#[test]
fn an_operation_starts_only_where_what_is_left_is_long_enough_for_it() {
    let (mut main, side) = gate::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let mut ops = Gated::new(Adder::default(), side);
        let (mut total, one) = (vec![0.0], vec![1.0]);
        ops.learn(vec![1_000, 60_000_000_000]);
        ops.begin_step();
        (0..2).for_each(|_| count_up(&mut ops, &mut total, &one));
        (total[0], ops.operations(), ops.ended())
    });
    main.open(30_000_000_000);
    while main.self_stops() == 0 {
        std::thread::yield_now();
    }
    assert_eq!(main.side_operations(), 1);
    main.close();
    main.open(120_000_000_000);
    assert_eq!(thread.join().unwrap(), (2.0, 2, None));
}

#[test]
fn openings_that_are_all_too_short_end_it_with_both_numbers() {
    let (mut main, side) = gate::pair().unwrap();
    let thread = std::thread::spawn(move || {
        let mut ops = Gated::new(Adder::default(), side);
        ops.learn(vec![5_000_000]);
        let (mut total, one) = (vec![0.0], vec![1.0]);
        ops.begin_step();
        count_up(&mut ops, &mut total, &one);
        (total[0], ops.ended().unwrap(), ops.synchronize().unwrap_err().to_string())
    });
    while !thread.is_finished() {
        main.open(1_010_000);
        std::thread::sleep(Duration::from_micros(200));
        main.close();
    }
    let (total, ended, why) = thread.join().unwrap();
    let Ended::NeverFits { need_ns, longest_ns } = ended else { panic!("{ended:?}") };
    assert_eq!((total, need_ns, longest_ns), (0.0, 5_000_000, 1_000_000));
    assert!(why.contains("takes 5.000 ms") && why.contains("more than 1.000 ms"), "{why}");
}

#[test]
fn nobody_is_there_until_the_side_is_ready() {
    let (mut main, side) = gate::pair().unwrap();
    let mut ops = Gated::getting_ready(Adder::default(), side);
    let (mut total, one) = (vec![0.0], vec![1.0]);
    ops.time_operations(now_ns);
    count_up(&mut ops, &mut total, &one);
    assert_eq!((total[0], main.side_operations(), ops.take_times().len()), (1.0, 0, 1), "the gate is shut");
    assert_eq!(main.wait_stopped(0), Stop::Absent);
    ops.ready();
    main.open(60_000_000_000);
    count_up(&mut ops, &mut total, &one);
    assert_eq!((total[0], main.side_operations()), (2.0, 1));
}

#[test]
fn who_is_asked_to_end_does_so_at_a_closed_gate_and_finishes_what_it_has_begun() {
    let (main, side) = gate::pair().unwrap();
    let mut ops = Gated::new(Adder::default(), side);
    ops.end_when(|| true);
    let (mut total, one) = (vec![0.0], vec![1.0]);
    count_up(&mut ops, &mut total, &one);
    assert_eq!((total[0], ops.ended()), (0.0, Some(Ended::Asked)));
    ops.set_finishing(true);
    count_up(&mut ops, &mut total, &one);
    ops.set_finishing(false);
    count_up(&mut ops, &mut total, &one);
    assert_eq!((total[0], main.side_operations()), (1.0, 0), "run, and not counted");
}
