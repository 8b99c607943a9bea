//! Embedding lookup and its gradient.

use crate::harness::{Both, Twin, check_operations};
use crate::raw::{Tensor, bits, launch};
use crate::{DTYPES, shapes_per_dtype};
use bubblebench::ops::cuda::Geometry;
use bubblebench::ops::cuda::embedding::{forward_geometry, sum_geometry};
use bubblebench::ops::work::Operation;
use bubblebench::ops::{DType, Embedding, Ops, Rows};
use bubblebench::stats::SplitMix;
use softgpu::{Arg, Buffer, Order};

fn shape(random: &mut SplitMix) -> Embedding {
    let hidden = match random.below(3) {
        0 => [1, 3, 8, 31, 64, 96, 256, 520, 1100][random.below(9)],
        1 => 8 * (1 + random.below(40)),
        _ => 1 + random.below(200),
    };
    let rows = 1 + random.below((12_000 / hidden).clamp(1, 90));
    Embedding { rows, sequence: 1 + random.below(rows), vocabulary: 1 + random.below(120), hidden }
}

/// All different where the vocabulary allows, all the same, or at random.
fn tokens(random: &mut SplitMix, s: Embedding) -> Vec<u32> {
    let (kind, one) = (random.below(4), random.below(s.vocabulary));
    (0..s.rows)
        .map(|r| match kind {
            0 => (r + one) % s.vocabulary,
            1 => one,
            _ => random.below(s.vocabulary),
        } as u32)
        .collect()
}

fn ids(twin: &mut Twin, tokens: &[u32]) -> Both {
    let mut both = twin.poisoned(tokens.len(), DType::U32);
    twin.cuda.write_ids(&mut both.cuda, tokens).unwrap();
    twin.reference.write_ids(&mut both.reference, tokens).unwrap();
    both
}

#[test]
fn embedding_agrees_with_the_reference() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 41);
        for _ in 0..shapes_per_dtype() {
            let s = shape(&mut twin.random);
            let list = tokens(&mut twin.random, s);
            let tokens = ids(&mut twin, &list);
            let (mut table, mut positions) = (twin.random(s.vocabulary * s.hidden), twin.random(s.sequence * s.hidden));
            let (mut out, dout) = (twin.poisoned(s.rows * s.hidden, dtype), twin.random(s.rows * s.hidden));
            twin.cuda.embedding_forward(s, &mut out.cuda, &tokens.cuda, &table.cuda, &positions.cuda);
            let (t, p) = (&table.reference, &positions.reference);
            twin.reference.embedding_forward(s, &mut out.reference, &tokens.reference, t, p);
            twin.check(&format!("out of {s:?}"), &out);
            // The gradients accumulate into what is there: the tables will do.
            let (dt, dp) = (&mut table.cuda, &mut positions.cuda);
            twin.cuda.embedding_to_weights(s, dt, dp, &dout.cuda, &tokens.cuda);
            let (dt, dp) = (&mut table.reference, &mut positions.reference);
            twin.reference.embedding_to_weights(s, dt, dp, &dout.reference, &tokens.reference);
            twin.check(&format!("dtable of {s:?} {list:?}"), &table);
            twin.check(&format!("dpositions of {s:?}"), &positions);
        }
    }
}

#[test]
fn embedding_as_the_suite_runs_it_agrees_with_the_reference() {
    for dtype in DTYPES {
        check_operations(dtype, 6, |random| {
            let rows = Rows { rows: 1 + random.below(300), cols: 1 + random.below(20) };
            if random.below(2) == 0 { Operation::EmbeddingForward(rows) } else { Operation::EmbeddingToWeights(rows) }
        });
    }
}

/// Tokens outside the vocabulary are not looked up: their rows are NaN, and the table's gradient goes without them.
#[test]
fn unknown_tokens_touch_nothing() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 42);
        let s = Embedding { rows: 6, sequence: 6, vocabulary: 5, hidden: 24 };
        let list = [4, 5, 0, u32::MAX, 4, 1 << 31];
        let tokens = {
            let mut tokens = twin.cuda.alloc(6, DType::U32).unwrap();
            twin.cuda.write_ids(&mut tokens, &list).unwrap();
            tokens
        };
        let (table, positions) = (twin.random(5 * 24), twin.random(6 * 24));
        let mut out = twin.poisoned(6 * 24, dtype);
        twin.cuda.zero(&mut out.cuda);
        twin.cuda.embedding_forward(s, &mut out.cuda, &tokens, &table.cuda, &positions.cuda);
        let out = twin.cuda.read(&out.cuda).unwrap();
        for (r, &token) in list.iter().enumerate() {
            assert!(out[r * 24..][..24].iter().all(|v| v.is_nan() == (token >= 5)), "row {r}");
        }
        let mut ones = twin.cuda.alloc(6 * 24, dtype).unwrap();
        twin.cuda.write(&mut ones, &[1.0; 6 * 24]).unwrap();
        let mut dtable = twin.cuda.alloc(5 * 24, dtype).unwrap();
        let mut dpositions = twin.cuda.alloc(6 * 24, dtype).unwrap();
        twin.cuda.zero(&mut dtable);
        twin.cuda.zero(&mut dpositions);
        twin.cuda.embedding_to_weights(s, &mut dtable, &mut dpositions, &ones, &tokens);
        for (token, row) in twin.cuda.read(&dtable).unwrap().chunks(24).enumerate() {
            let rows = list.iter().filter(|&&t| t == token as u32).count() as f64;
            assert!(row.iter().all(|&v| v == rows));
        }
        assert!(twin.cuda.read(&dpositions).unwrap().iter().all(|&v| v == 1.0));
    }
}

/// The whole gradient on fibers; `shift` elements off a boundary, threads in that order.
fn gradient(s: Embedding, dtype: DType, list: &[u32], dout: &[f64], shift: usize, order: Order) -> [Vec<u64>; 2] {
    let ints = |len: usize, value: u32| Buffer::from_slice(&vec![value; len]);
    let mut tokens = Buffer::from_slice(list);
    let (mut counts, mut cursor, mut starts) = (ints(s.vocabulary, 0), ints(1, 0), ints(s.vocabulary, 7 << 20));
    let (mut slot, mut rows, mut ordered) = (ints(s.rows, 7 << 20), ints(s.rows, 7 << 20), ints(s.rows, 7 << 20));
    let (counts, cursor, starts) = (counts.arg(), cursor.arg(), starts.arg());
    let (slot, rows, ordered) = (slot.arg(), rows.arg(), ordered.arg());
    let number = |n: usize| Arg::I32(n as i32);
    for (kernel, pointers) in [
        ("embedding_count", &[counts, slot][..]),
        ("embedding_allocate", &[starts, cursor, counts, slot]),
        ("embedding_place", &[rows, starts, slot]),
        ("embedding_rank", &[ordered, rows, starts, counts]),
    ] {
        let arguments = [pointers, &[tokens.arg(), number(s.rows), number(s.vocabulary)]].concat();
        launch(kernel, Geometry::flat(s.rows, 64), order, &arguments);
    }
    let mut dout = Tensor::new(dtype, dout, shift);
    let mut dtable = Tensor::new(dtype, &vec![0.5; s.vocabulary * s.hidden], shift);
    let mut dpositions = Tensor::new(dtype, &vec![0.5; s.sequence * s.hidden], shift);
    let (table, all) = (dtable.arg(), dout.arg());
    let arguments = [table, all, tokens.arg(), counts, starts, ordered, cursor, number(s.hidden)];
    launch(&format!("embedding_table_{}", dtype.name()), sum_geometry(s.rows, s, dtype), order, &arguments);
    let arguments = [dpositions.arg(), all, number(s.rows), number(s.sequence), number(s.hidden)];
    launch(&format!("embedding_positions_{}", dtype.name()), sum_geometry(s.sequence, s, dtype), order, &arguments);
    [bits(&dtable.values()), bits(&dpositions.values())]
}

/// Which row of a token comes first in the lists depends on the order of threads; the sums do not.
#[test]
fn the_gradient_is_the_same_in_any_order_and_at_any_boundary() {
    let mut random = SplitMix(43);
    for i in 0..45 {
        let (dtype, s) = (DTYPES[i % 3], shape(&mut random));
        let list = tokens(&mut random, s);
        let dout: Vec<f64> = (0..s.rows * s.hidden).map(|_| random.symmetric()).collect();
        let once = gradient(s, dtype, &list, &dout, 0, Order::InTurn);
        assert_eq!(once, gradient(s, dtype, &list, &dout, 0, Order::Shuffled(i as u64)), "{s:?}");
        assert_eq!(once, gradient(s, dtype, &list, &dout, 1, Order::Shuffled(i as u64 + 100)), "{s:?}");
    }
}

#[test]
fn a_lookup_off_a_boundary_gives_the_same_bits() {
    let mut random = SplitMix(44);
    for i in 0..45 {
        let (dtype, s) = (DTYPES[i % 3], shape(&mut random));
        let list = tokens(&mut random, s);
        let mut numbers = |len: usize| -> Vec<f64> { (0..len).map(|_| random.symmetric()).collect() };
        let (words, places) = (numbers(s.vocabulary * s.hidden), numbers(s.sequence * s.hidden));
        let run = |shift: usize| {
            let mut out = Tensor::poisoned(dtype, s.rows * s.hidden, shift);
            let (mut table, mut positions) = (Tensor::new(dtype, &words, shift), Tensor::new(dtype, &places, 0));
            let mut tokens = Buffer::from_slice(&list);
            let sizes = [s.rows, s.sequence, s.vocabulary, s.hidden].map(|n| Arg::I32(n as i32));
            let tensors = [out.arg(), tokens.arg(), table.arg(), positions.arg()];
            let arguments = [&tensors[..], &sizes].concat();
            let kernel = format!("embedding_forward_{}", dtype.name());
            launch(&kernel, forward_geometry(s, dtype), Order::InTurn, &arguments);
            bits(&out.values())
        };
        assert_eq!(run(0), run(3), "{s:?}");
    }
}
