//! Cross-entropy over the vocabulary.

use crate::harness::{Twin, assert_close, bound, check_operations, device};
use crate::raw::{Tensor, bits, launch};
use crate::{DTYPES, shapes_per_dtype};
use bubblebench::models::builder::round_to;
use bubblebench::ops::cuda::Geometry;
use bubblebench::ops::reference::Reference;
use bubblebench::ops::work::Operation;
use bubblebench::ops::{DType, Ops, Rows};
use bubblebench::stats::SplitMix;
use softgpu::{Arg, Buffer, Order};

fn shape(random: &mut SplitMix) -> Rows {
    let edges = [1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 255, 256, 257, 1535, 1536, 1537];
    let cols = match random.below(3) {
        0 => edges[random.below(edges.len())],
        1 => 1 + random.below(3000),
        _ => 1 + random.below(200),
    };
    Rows { rows: 1 + random.below((6000 / cols).clamp(1, 30)), cols }
}

#[test]
fn cross_entropy_agrees_with_the_reference() {
    for dtype in DTYPES {
        check_operations(dtype, shapes_per_dtype(), |random| Operation::CrossEntropy(shape(random)));
    }
}

/// Rows that many threads share, and that do not stay in registers.
#[test]
fn wide_rows_agree_with_the_reference() {
    for dtype in DTYPES {
        for cols in [20_000, 25_001, 70_000] {
            check_operations(dtype, 1, |_| Operation::CrossEntropy(Rows { rows: 2, cols }));
        }
    }
}

/// Logits of ±80, targets at either end, at the largest and at the smallest logit.
#[test]
fn extreme_logits_keep_their_digits() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 31);
        for i in 0..shapes_per_dtype() {
            let s = if i % 2 == 0 { Rows { rows: 1, ..shape(&mut twin.random) } } else { shape(&mut twin.random) };
            let mut logits = twin.tensor(s.len(), dtype, 0.0, 80.0);
            let values = twin.reference.read(&logits.reference).unwrap();
            let targets: Vec<u32> = (0..s.rows)
                .map(|r| {
                    let row = &values[r * s.cols..][..s.cols];
                    let by_size = |a: &usize, b: &usize| row[*a].total_cmp(&row[*b]);
                    let choice = match (i + r) % 4 {
                        0 => Some(0),
                        1 => Some(s.cols - 1),
                        2 => (0..s.cols).max_by(by_size),
                        _ => (0..s.cols).min_by(by_size),
                    };
                    choice.unwrap() as u32
                })
                .collect();
            let (mut ids, mut losses) = (twin.poisoned(s.rows, DType::U32), twin.poisoned(s.rows, DType::F32));
            twin.cuda.write_ids(&mut ids.cuda, &targets).unwrap();
            twin.cuda.cross_entropy(s, &mut losses.cuda, &mut logits.cuda, &ids.cuda);
            let (want_losses, want) = without_cancellation(s, &values, &targets);
            near(&format!("losses of {s:?}"), &twin.cuda.read(&losses.cuda).unwrap(), &want_losses, DType::F32);
            near(&format!("gradient of {s:?}"), &twin.cuda.read(&logits.cuda).unwrap(), &want, dtype);
        }
    }
}

/// In f64, with the target's gradient as minus the others' share and the loss as ln(1 + …): softmax − 1 has no digits left
/// where the model is certain.
fn without_cancellation(s: Rows, logits: &[f64], targets: &[u32]) -> (Vec<f64>, Vec<f64>) {
    let (mut losses, mut gradient) = (Vec::new(), Vec::new());
    for (row, &target) in logits.chunks(s.cols).zip(targets) {
        let wanted = row[target as usize];
        let mut powers: Vec<f64> = row.iter().map(|z| (z - wanted).exp()).collect();
        powers[target as usize] = 0.0;
        let others: f64 = powers.iter().sum();
        losses.push(others.ln_1p());
        powers[target as usize] = -others;
        gradient.extend(powers.iter().map(|p| p / (1.0 + others) / s.rows as f64));
    }
    (losses, gradient)
}

/// The bounds of every kernel, down to the type's least normal number (f16: least number): what is smaller is nothing.
fn near(what: &str, got: &[f64], want: &[f64], dtype: DType) {
    let least = if dtype == DType::F16 { 2f64.powi(-24) } else { 2f64.powi(-126) };
    let allowed = bound(dtype) * want.iter().fold(0.0f64, |most, v| v.abs().max(most)) + least;
    for (i, (is, want)) in got.iter().zip(want).enumerate() {
        let error = (is - want).abs();
        assert!(error <= allowed, "{what}, {dtype:?}: element {i} is {is:e}, not {want:e}: off by {error:e}");
    }
}

/// A NaN logit, and a target outside the vocabulary: their rows say so, the others are as they were.
#[test]
fn what_cannot_be_shows_in_its_row_only() {
    for dtype in DTYPES {
        let (mut cuda, s) = (device(dtype), Rows { rows: 4, cols: 37 });
        let mut values = vec![1.0; s.len()];
        values[37 + 5] = f64::NAN;
        let (mut logits, mut losses) = (cuda.alloc(s.len(), dtype).unwrap(), cuda.alloc(4, DType::F32).unwrap());
        let mut targets = cuda.alloc(4, DType::U32).unwrap();
        cuda.write(&mut logits, &values).unwrap();
        cuda.write_ids(&mut targets, &[0, 1, 37, 36]).unwrap();
        cuda.cross_entropy(s, &mut losses, &mut logits, &targets);
        let (losses, gradient) = (cuda.read(&losses).unwrap(), cuda.read(&logits).unwrap());
        for (row, bad) in [false, true, true, false].into_iter().enumerate() {
            assert_eq!(losses[row].is_nan(), bad, "{losses:?}");
            assert!(gradient[row * 37..][..37].iter().all(|v| v.is_nan() == bad), "row {row}");
        }
    }
}

/// Every way a row can be divided among registers, shared memory and a second read, at any distance from a boundary and
/// in any order of threads.
#[test]
fn any_division_of_a_row_gives_the_same_answer() {
    let mut random = SplitMix(33);
    for i in 0..shapes_per_dtype() {
        let dtype = DTYPES[i % 3];
        let s = Rows { rows: 1 + random.below(5), cols: 1 + random.below(1500) };
        let threads = 32 * (1 + random.below(3));
        let rows_per_block = if threads == 32 { 1 + random.below(4) } else { 1 };
        let (parked, shift) = (random.below(6), random.below(8));
        let logits: Vec<f64> = (0..s.len()).map(|_| round_to(dtype, 9.0 * random.symmetric())).collect();
        let targets: Vec<u32> = (0..s.rows).map(|_| random.below(s.cols) as u32).collect();

        let grid = [s.rows.div_ceil(rows_per_block) as u32, 1, 1];
        let geometry = Geometry::new(grid, [threads as u32, rows_per_block as u32, 1])
            .shared((threads * rows_per_block * parked * 16) as u32);
        let run = |order: Order| {
            let mut z = Tensor::new(dtype, &logits, shift);
            let (mut losses, mut ids) = (Tensor::poisoned(DType::F32, s.rows, 0), Buffer::from_slice(&targets));
            let numbers = [s.rows, s.cols, parked].map(|n| Arg::I32(n as i32));
            let tensors = [losses.arg(), z.arg(), ids.arg()];
            let arguments = [&tensors[..], &numbers, &[Arg::F32(1.0 / s.rows as f32)]].concat();
            launch(&format!("cross_entropy_{}", dtype.name()), geometry, order, &arguments);
            (losses.values(), z.values())
        };
        let (losses, gradient) = run(Order::InTurn);
        let shuffled = run(Order::Shuffled(i as u64));
        assert_eq!((bits(&losses), bits(&gradient)), (bits(&shuffled.0), bits(&shuffled.1)));

        let mut ops = Reference::new();
        let (mut z, mut want) = (ops.alloc(s.len(), dtype).unwrap(), ops.alloc(s.rows, dtype).unwrap());
        let mut ids = ops.alloc(s.rows, DType::U32).unwrap();
        ops.write(&mut z, &logits).unwrap();
        ops.write_ids(&mut ids, &targets).unwrap();
        ops.cross_entropy(s, &mut want, &mut z, &ids);
        let what = format!("{s:?}, {threads} threads, {parked} parked, off by {shift}");
        assert_close(&what, &losses, &ops.read(&want).unwrap(), DType::F32);
        assert_close(&what, &gradient, &ops.read(&z).unwrap(), dtype);
    }
}
