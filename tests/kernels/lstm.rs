//! The LSTM cell against the reference.

use crate::harness::Twin;
use crate::orders::{self, Fill, Launch, Operand};
use crate::{DTYPES, shapes_per_dtype};
use bubblebench::ops::cuda::lstm::{geometry, kernel};
use bubblebench::ops::{DType, LstmCell, Ops};
use bubblebench::stats::SplitMix;

fn shape(random: &mut SplitMix) -> LstmCell {
    let hidden = [1, 3, 8, 17, 64, 8 * (1 + random.below(30)), 1 + random.below(400)][random.below(7)];
    LstmCell { rows: 1 + random.below((4000 / hidden).clamp(1, 40)), hidden }
}

#[test]
fn lstm_cell_agrees_with_the_reference() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 0x1572);
        for i in 0..shapes_per_dtype() {
            let shape = shape(&mut twin.random);
            // From nearly linear gates to saturated ones.
            let scale = [1e-3, 1.0, 8.0, 40.0][i % 4];
            forward(&mut twin, shape, dtype, scale);
            backward(&mut twin, shape, dtype, scale.min(4.0));
        }
    }
}

fn forward(twin: &mut Twin, shape: LstmCell, dtype: DType, scale: f64) {
    let units = shape.rows * shape.hidden;
    let mut gates = twin.tensor(4 * units, dtype, 0.0, scale);
    let c_prev = twin.tensor(units, dtype, 0.0, scale.min(2.0));
    let (mut h, mut c) = (twin.poisoned(units, dtype), twin.poisoned(units, dtype));
    twin.cuda.lstm_cell_forward(shape, &mut h.cuda, &mut c.cuda, &mut gates.cuda, &c_prev.cuda);
    let (rh, rc) = (&mut h.reference, &mut c.reference);
    twin.reference.lstm_cell_forward(shape, rh, rc, &mut gates.reference, &c_prev.reference);
    for (name, tensor) in [("h", &h), ("c", &c), ("gates", &gates)] {
        twin.check(&format!("{name} of {shape:?} at {scale}"), tensor);
    }
}

fn backward(twin: &mut Twin, shape: LstmCell, dtype: DType, scale: f64) {
    let units = shape.rows * shape.hidden;
    // Activated gates lie between 0 and 1, the third between −1 and 1.
    let gates = twin.tensor(4 * units, dtype, 0.5, 0.49);
    let [c, c_prev] = [scale, scale].map(|scale| twin.tensor(units, dtype, 0.0, scale));
    let [dh, mut dc] = [(); 2].map(|()| twin.random(units));
    let mut dgates = twin.poisoned(4 * units, dtype);
    twin.cuda.lstm_cell_backward(shape, &mut dgates.cuda, &mut dc.cuda, &dh.cuda, &gates.cuda, &c.cuda, &c_prev.cuda);
    let (to, dcr) = (&mut dgates.reference, &mut dc.reference);
    let (dhr, gr) = (&dh.reference, &gates.reference);
    twin.reference.lstm_cell_backward(shape, to, dcr, dhr, gr, &c.reference, &c_prev.reference);
    twin.check(&format!("dgates of {shape:?} at {scale}"), &dgates);
    twin.check(&format!("dc of {shape:?} at {scale}"), &dc);
}

/// Pre-activations far out: gates of exactly 0 and 1, never NaN.
#[test]
fn lstm_gates_saturate() {
    for dtype in DTYPES {
        let mut twin = Twin::new(dtype, 3);
        let shape = LstmCell { rows: 1, hidden: 8 };
        for sign in [-1.0, 1.0] {
            let mut gates = twin.tensor(32, dtype, sign * 3e4, 0.0);
            let c_prev = twin.tensor(8, dtype, 0.25, 0.0);
            let (mut h, mut c) = (twin.poisoned(8, dtype), twin.poisoned(8, dtype));
            twin.cuda.lstm_cell_forward(shape, &mut h.cuda, &mut c.cuda, &mut gates.cuda, &c_prev.cuda);
            let open = if sign > 0.0 { 1.0 } else { 0.0 };
            let cell = twin.cuda.read(&gates.cuda).unwrap();
            assert!(cell[..16].iter().all(|&v| v == open) && cell[16..24].iter().all(|&v| v == sign), "{cell:?}");
            assert_eq!(twin.cuda.read(&c.cuda).unwrap(), [if sign > 0.0 { 1.25 } else { 0.0 }; 8]);
        }
    }
}

#[test]
fn lstm_cell_does_not_depend_on_the_order_of_threads() {
    let mut random = SplitMix(4);
    for _ in 0..12 {
        let s = shape(&mut random);
        let units = s.rows * s.hidden;
        let fills = [
            Fill::Random(4 * units),
            Fill::Random(units),
            Fill::Poison(units),
            Fill::Poison(units),
            Fill::Poison(4 * units),
            Fill::Random(units),
            Fill::Random(units),
        ];
        let launch = |operation: &str, tensors: &[usize]| Launch {
            kernel: kernel(operation, DType::Bf16),
            geometry: geometry(s, DType::Bf16),
            operands: (tensors.iter().map(|&i| Operand::Tensor(i)))
                .chain([Operand::Int(s.rows as i32), Operand::Int(s.hidden as i32)])
                .collect(),
        };
        orders::check(&fills, &[launch("forward", &[2, 3, 0, 1]), launch("backward", &[4, 5, 6, 0, 3, 1])]);
    }
}
