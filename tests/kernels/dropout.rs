//! Dropout and its generator.

use crate::DTYPES;
use crate::harness::device;
use crate::raw::{Tensor, bits, launch, size};
use bubblebench::models::builder::round_to;
use bubblebench::ops::cuda::Geometry;
use bubblebench::ops::cuda::dropout::geometry;
use bubblebench::ops::{DType, Dropout, Ops};
use bubblebench::stats::SplitMix;
use half::{bf16, f16};
use softgpu::{Arg, Buffer, Order};

fn words(counters: usize, low: u64, high: u64, key: u64) -> Vec<u32> {
    let mut out = Buffer::<u32>::poisoned(4 * counters);
    let numbers = [counters, low as usize, high as usize, key as usize].map(size);
    let arguments = [&[out.arg()][..], &numbers].concat();
    launch("philox_words", Geometry::flat(counters, 64), Order::InTurn, &arguments);
    assert!(out.intact());
    out.as_slice().to_vec()
}

/// The known answers published with the generator (Random123), and a counter that carries into its upper half.
#[test]
fn philox_gives_its_known_answers() {
    assert_eq!(words(1, 0, 0, 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
    let ones = u64::MAX;
    assert_eq!(words(1, ones, ones, ones), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
    let (low, high, key) = (0x85a3_08d3_243f_6a88, 0x0370_7344_1319_8a2e, 0x299f_31d0_a409_3822);
    assert_eq!(words(1, low, high, key), [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    assert_eq!(words(2, ones, 6, 9)[4..], words(1, 0, 7, 9));
}

/// From f32 as the kernels round: `round_to`'s way from f64 drops bits that decide a tie.
fn rounded(dtype: DType, value: f32) -> f64 {
    match dtype {
        DType::Bf16 => bf16::from_f32(value).to_f64(),
        DType::F16 => f16::from_f32(value).to_f64(),
        _ => f64::from(value),
    }
}

#[test]
fn what_is_kept_is_scaled_and_the_gradient_has_the_same_mask() {
    let mut random = SplitMix(51);
    for dtype in DTYPES {
        let mut cuda = device(dtype);
        for i in 0..crate::shapes_per_dtype() {
            let len = if i < 20 { i + 1 } else { 1 + random.below(9000) };
            let dropout =
                Dropout { probability: 0.9 * random.unit(), seed: random.next_u64(), offset: random.next_u64() };
            let mut tensor = |values: &[f64]| {
                let mut buffer = cuda.alloc(len, dtype).unwrap();
                cuda.write(&mut buffer, values).unwrap();
                buffer
            };
            // Never 0, so that a zero is a dropped element; one of them infinite.
            let mut x: Vec<f64> = (0..len).map(|_| round_to(dtype, 1.0 + random.unit())).collect();
            x[len / 2] = f64::INFINITY;
            let dy: Vec<f64> = (0..len).map(|_| round_to(dtype, 1.0 + random.unit())).collect();
            let (x_on, dy_on) = (tensor(&x), tensor(&dy));
            let (mut y, mut dx) = (cuda.alloc(len, dtype).unwrap(), cuda.alloc(len, dtype).unwrap());
            cuda.dropout(len, &mut y, &x_on, dropout);
            cuda.dropout(len, &mut dx, &dy_on, dropout);
            let (y, dx) = (cuda.read(&y).unwrap(), cuda.read(&dx).unwrap());
            let scale = dropout.numbers().unwrap().1;
            for i in 0..len {
                assert_eq!(y[i] == 0.0, dx[i] == 0.0, "element {i} of {len}");
                if y[i] != 0.0 {
                    let scaled = |v: f64| rounded(dtype, v as f32 * scale);
                    assert_eq!((y[i], dx[i]), (scaled(x[i]), scaled(dy[i])), "element {i} of {len}");
                }
            }
        }
    }
}

/// Within five deviations of the probability; a probability of 0 keeps all.
#[test]
fn as_many_are_dropped_as_asked_for() {
    let (mut cuda, len) = (device(DType::F32), 200_000);
    let mut ones = cuda.alloc(len, DType::F32).unwrap();
    cuda.write(&mut ones, &vec![1.0; len]).unwrap();
    let mut y = cuda.alloc(len, DType::F32).unwrap();
    for probability in [0.0, 0.1, 0.5, 0.97] {
        cuda.dropout(len, &mut y, &ones, Dropout { probability, seed: 77, offset: 5 });
        let dropped = cuda.read(&y).unwrap().iter().filter(|&&v| v == 0.0).count() as f64;
        let deviation = (len as f64 * probability * (1.0 - probability)).sqrt();
        assert!((dropped - probability * len as f64).abs() <= 5.0 * deviation, "{probability}: {dropped}");
    }
    cuda.dropout(len, &mut y, &ones, Dropout { probability: 1.0, seed: 77, offset: 5 });
    assert!(cuda.synchronize().is_err());
}

/// The mask is a matter of the element's index alone: of no type, boundary or offset that comes to the same counter.
#[test]
fn one_mask_for_all_types_and_boundaries() {
    let mask = |dtype: DType, len: usize, shift: usize, offset: usize| -> Vec<bool> {
        let (mut y, mut x) = (Tensor::poisoned(dtype, len, shift), Tensor::new(dtype, &vec![1.0; len], 0));
        let numbers = [Arg::I32(1 << 30), Arg::F32(4.0 / 3.0), size(0xabcd_0123_4567), size(offset)];
        let arguments = [&[y.arg(), x.arg(), size(len)][..], &numbers].concat();
        launch(&format!("dropout_{}", dtype.name()), geometry(len, dtype), Order::InTurn, &arguments);
        assert_eq!(bits(&x.values()), bits(&vec![1.0; len]));
        y.values().iter().map(|&v| v != 0.0).collect()
    };
    let whole = mask(DType::F32, 20_000, 0, 1000);
    // Word i mod 4 of counter offset + i div 4.
    let kept: Vec<bool> = words(5_000, 1000, 0, 0xabcd_0123_4567).iter().map(|&word| word >= 1 << 30).collect();
    assert!(whole == kept);
    for dtype in DTYPES {
        for (len, shift) in [(20_000, 1), (19_997, 0), (8193, 3), (5, 0)] {
            assert_eq!(mask(dtype, len, shift, 1000), whole[..len]);
        }
        assert_eq!(mask(dtype, 1000, 0, 1010), whole[40..1040]);
    }
}
