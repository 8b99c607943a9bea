//! The reference against central finite differences and known answers: it is what everything else is held against, so
//! nothing else may be trusted here.

use super::*;
use crate::stats::SplitMix;

/// A function of several tensors to one number: what finite differences need.
type Scalar<'a> = dyn FnMut(&mut Reference, &[ReferenceBuffer]) -> f64 + 'a;

fn random(random: &mut SplitMix, len: usize) -> ReferenceBuffer {
    ReferenceBuffer::Floats((0..len).map(|_| random.symmetric()).collect())
}

fn poison(len: usize) -> ReferenceBuffer {
    ReferenceBuffer::Floats(vec![f64::NAN; len])
}

fn zeros(len: usize) -> ReferenceBuffer {
    ReferenceBuffer::Floats(vec![0.0; len])
}

fn dot(a: &ReferenceBuffer, b: &ReferenceBuffer) -> f64 {
    assert_eq!(a.f().len(), b.f().len());
    a.f().iter().zip(b.f()).map(|(a, b)| a * b).sum()
}

/// `gradient` must be the derivative of `f` by tensor `which` of `tensors`, at up to 12 sampled elements.
fn check(
    what: &str,
    f: &mut Scalar<'_>,
    tensors: &[ReferenceBuffer],
    which: usize,
    gradient: &ReferenceBuffer,
    random: &mut SplitMix,
) {
    let mut ops = Reference::new();
    let largest = gradient.f().iter().fold(1e-3f64, |most, g| most.max(g.abs()));
    let len = tensors[which].f().len();
    assert_eq!(gradient.f().len(), len, "{what}");
    for _ in 0..len.min(12) {
        let (i, step) = (random.below(len), 1e-5);
        let mut at = |offset: f64| {
            let mut moved = tensors.to_vec();
            moved[which].f_mut()[i] += offset;
            f(&mut ops, &moved)
        };
        let slope = (at(step) - at(-step)) / (2.0 * step);
        let error = (slope - gradient.f()[i]).abs() / largest;
        assert!(error <= 1e-6, "{what}[{i}]: {} but the slope is {slope}", gradient.f()[i]);
    }
    ops.synchronize().unwrap();
}

#[test]
fn linear_layers_and_their_epilogues() {
    let mut r = SplitMix(101);
    for _ in 0..10 {
        let shape = Linear::new(1 + r.below(7), 1 + r.below(9), 1 + r.below(8));
        let (lx, lw, ly) = (shape.rows * shape.inputs, shape.outputs * shape.inputs, shape.rows * shape.outputs);
        let tensors = [random(&mut r, lx), random(&mut r, lw), random(&mut r, shape.outputs)];
        let dy = random(&mut r, ly);
        let mut f = |ops: &mut Reference, t: &[ReferenceBuffer]| {
            let (mut y, mut pre) = (poison(ly), poison(ly));
            let epilogue = ForwardEpilogue::BiasGelu { bias: &t[2], pre: &mut pre };
            ops.linear_forward(shape, &mut y, &t[0], &t[1], epilogue);
            dot(&y, &dy)
        };
        let mut ops = Reference::new();
        let (mut y, mut pre) = (poison(ly), poison(ly));
        let epilogue = ForwardEpilogue::BiasGelu { bias: &tensors[2], pre: &mut pre };
        ops.linear_forward(shape, &mut y, &tensors[0], &tensors[1], epilogue);
        let mut dpre = poison(ly);
        ops.gelu_backward(ly, &mut dpre, &dy, &pre);
        let (mut dx, mut dw, mut dbias) = (poison(lx), poison(lw), zeros(shape.outputs));
        ops.linear_to_inputs(shape, &mut dx, &dpre, &tensors[1], InputEpilogue::None);
        let epilogue = WeightEpilogue::Bias { dbias: &mut dbias };
        ops.linear_to_weights(shape, &mut dw, &dpre, &tensors[0], epilogue);
        for (which, gradient) in [dx, dw, dbias].iter().enumerate() {
            check("linear", &mut f, &tensors, which, gradient, &mut r);
        }
    }
}

/// The epilogue of the product to inputs is the separate GELU gradient, and accumulating adds to what was there.
#[test]
fn fused_and_accumulating_products_agree_with_separate_ones() {
    let mut r = SplitMix(102);
    let (shape, mut ops) = (Linear::new(5, 7, 3), Reference::new());
    let (dy, w, pre, x) = (random(&mut r, 15), random(&mut r, 21), random(&mut r, 35), random(&mut r, 35));
    let (mut fused, mut plain, mut separate) = (poison(35), poison(35), poison(35));
    ops.linear_to_inputs(shape, &mut fused, &dy, &w, InputEpilogue::Gelu { pre: &pre });
    ops.linear_to_inputs(shape, &mut plain, &dy, &w, InputEpilogue::None);
    ops.gelu_backward(35, &mut separate, &plain, &pre);
    assert_eq!(fused, separate);
    let (mut once, mut twice) = (poison(21), poison(21));
    ops.linear_to_weights(shape, &mut once, &dy, &x, WeightEpilogue::None);
    ops.linear_to_weights(shape, &mut twice, &dy, &x, WeightEpilogue::None);
    ops.linear_to_weights(shape.accumulating(), &mut twice, &dy, &x, WeightEpilogue::None);
    for (once, twice) in once.f().iter().zip(twice.f()) {
        assert!((2.0 * once - twice).abs() <= 1e-12);
    }
}

#[test]
fn layer_normalisation() {
    let mut r = SplitMix(103);
    for _ in 0..10 {
        let shape = Rows { rows: 1 + r.below(5), cols: 2 + r.below(12) };
        let tensors = [random(&mut r, shape.len()), random(&mut r, shape.cols), random(&mut r, shape.cols)];
        let dy = random(&mut r, shape.len());
        let (mut y, mut mean, mut rstd) = (poison(shape.len()), poison(shape.rows), poison(shape.rows));
        let mut f = |ops: &mut Reference, t: &[ReferenceBuffer]| {
            let (mut y, mut mean, mut rstd) = (poison(shape.len()), poison(shape.rows), poison(shape.rows));
            ops.layernorm_forward(shape, &mut y, &mut mean, &mut rstd, &t[0], &t[1], &t[2]);
            dot(&y, &dy)
        };
        let mut ops = Reference::new();
        let [x, gamma, beta] = &tensors;
        ops.layernorm_forward(shape, &mut y, &mut mean, &mut rstd, x, gamma, beta);
        let stats = || RowStats { mean: &mean, rstd: &rstd };
        let (mut dx, mut dgamma, mut dbeta) = (poison(shape.len()), zeros(shape.cols), zeros(shape.cols));
        ops.layernorm_to_inputs(shape, &mut dx, &dy, x, gamma, stats(), None);
        ops.layernorm_to_weights(shape, &mut dgamma, &mut dbeta, &dy, x, stats());
        let mut joined = poison(shape.len());
        ops.layernorm_to_inputs(shape, &mut joined, &dy, x, gamma, stats(), Some(&dy));
        for (which, gradient) in [dx.clone(), dgamma, dbeta].iter().enumerate() {
            check("layernorm", &mut f, &tensors, which, gradient, &mut r);
        }
        joined.f().iter().zip(dx.f().iter().zip(dy.f())).for_each(|(j, (d, y))| assert!((j - d - y).abs() < 1e-12));
    }
}

#[test]
fn causal_attention() {
    let mut r = SplitMix(104);
    for _ in 0..8 {
        let shape = Attention::new(1 + r.below(2), 1 + r.below(3), 1 + r.below(6), 1 + r.below(5));
        let width = shape.rows() * shape.width();
        let (tensors, dout) = ([random(&mut r, 3 * width)], random(&mut r, width));
        let mut f = |ops: &mut Reference, t: &[ReferenceBuffer]| {
            let (mut out, mut lse) = (poison(width), poison(shape.lse_len()));
            ops.attention_forward(shape, &mut out, &mut lse, &t[0]);
            dot(&out, &dout)
        };
        let (mut out, mut lse, mut ops) = (poison(width), poison(shape.lse_len()), Reference::new());
        ops.attention_forward(shape, &mut out, &mut lse, &tensors[0]);
        let (mut dqkv, mut workspace) = (poison(3 * width), poison(shape.lse_len()));
        ops.attention_backward(shape, &mut dqkv, &dout, &tensors[0], &out, &lse, &mut workspace);
        check("attention", &mut f, &tensors, 0, &dqkv, &mut r);
        assert!(lse.f().iter().chain(workspace.f()).all(|v| v.is_finite()));
    }
}

/// The first position sees only itself: its output is its own value, its log-sum-exp its own score.
#[test]
fn the_first_position_attends_to_itself() {
    let shape = Attention::new(2, 2, 3, 4);
    let qkv = random(&mut SplitMix(105), 6 * 3 * 8);
    let (mut out, mut lse) = (poison(6 * 8), poison(shape.lse_len()));
    Reference::new().attention_forward(shape, &mut out, &mut lse, &qkv);
    for batch in 0..2 {
        let row = &qkv.f()[batch * 3 * 24..][..24];
        for c in 0..8 {
            assert!((out.f()[batch * 3 * 8 + c] - row[16 + c]).abs() < 1e-12);
        }
        for head in 0..2 {
            let score: f64 = (0..4).map(|c| row[head * 4 + c] * row[8 + head * 4 + c]).sum::<f64>() * 0.5;
            assert!((lse.f()[(batch * 2 + head) * 3] - score).abs() < 1e-12);
        }
    }
}

/// tanh-GELU at points computed by hand from its formula, and its derivative against a difference.
#[test]
fn gelu_known_points() {
    assert_eq!(gelu(0.0), 0.0);
    assert!((gelu(1.0) - 0.841_191_990_607_477_5).abs() < 1e-12);
    assert!((gelu(-10.0)).abs() < 1e-12 && (gelu(10.0) - 10.0).abs() < 1e-12);
    for i in -40..=40 {
        let x = f64::from(i) / 8.0;
        let slope = (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5;
        assert!((slope - gelu_derivative(x)).abs() < 1e-9);
    }
}

#[test]
fn embedding_and_cross_entropy() {
    let mut r = SplitMix(106);
    let shape = Embedding { rows: 6, sequence: 3, vocabulary: 5, hidden: 4 };
    let tokens = ReferenceBuffer::Ids((0..6).map(|_| r.below(5) as u32).collect());
    let targets = ReferenceBuffer::Ids((0..6).map(|_| r.below(4) as u32).collect());
    let logits = Rows { rows: 6, cols: 4 };
    let tensors = [random(&mut r, 20), random(&mut r, 12)];
    let mut f = |ops: &mut Reference, t: &[ReferenceBuffer]| {
        let (mut out, mut losses) = (poison(24), poison(6));
        ops.embedding_forward(shape, &mut out, &tokens, &t[0], &t[1]);
        ops.cross_entropy(logits, &mut losses, &mut out, &targets);
        losses.f().iter().sum::<f64>() / 6.0
    };
    let (mut ops, mut out, mut losses) = (Reference::new(), poison(24), poison(6));
    ops.embedding_forward(shape, &mut out, &tokens, &tensors[0], &tensors[1]);
    ops.cross_entropy(logits, &mut losses, &mut out, &targets);
    let (mut dtable, mut dpositions) = (zeros(20), zeros(12));
    ops.embedding_to_weights(shape, &mut dtable, &mut dpositions, &out, &tokens);
    check("table", &mut f, &tensors, 0, &dtable, &mut r);
    check("positions", &mut f, &tensors, 1, &dpositions, &mut r);
    let mut uniform = (poison(1), zeros(8));
    ops.cross_entropy(Rows { rows: 1, cols: 8 }, &mut uniform.0, &mut uniform.1, &ReferenceBuffer::Ids(vec![3]));
    assert!((uniform.0.f()[0] - 8f64.ln()).abs() < 1e-12, "equal logits cost the logarithm of their number");
}

#[test]
fn convolution() {
    let mut r = SplitMix(107);
    for _ in 0..10 {
        let kernel = [1, 3][r.below(2)];
        let shape = Conv {
            batch: 1 + r.below(2),
            height: 3 + r.below(4),
            width: 3 + r.below(4),
            in_channels: 1 + r.below(3),
            out_channels: 1 + r.below(3),
            kernel,
            stride: 1 + r.below(2),
            padding: r.below(1 + kernel / 2),
        };
        let tensors = [random(&mut r, shape.in_len()), random(&mut r, shape.weight_len())];
        let (dy, mut workspace) = (random(&mut r, shape.out_len()), poison(shape.workspace_len()));
        let mut f = |ops: &mut Reference, t: &[ReferenceBuffer]| {
            let (mut y, mut workspace) = (poison(shape.out_len()), poison(shape.workspace_len()));
            ops.conv_forward(shape, &mut y, &t[0], &t[1], &mut workspace);
            dot(&y, &dy)
        };
        let (mut dx, mut dw) = (poison(shape.in_len()), zeros(shape.weight_len()));
        let mut ops = Reference::new();
        ops.conv_to_inputs(shape, &mut dx, &dy, &tensors[1], &mut workspace);
        ops.conv_to_weights(shape, &mut dw, &dy, &tensors[0], &mut workspace);
        check("convolution x", &mut f, &tensors, 0, &dx, &mut r);
        check("convolution w", &mut f, &tensors, 1, &dw, &mut r);
    }
}

/// A 3×3 box over a one-channel image of ones counts the pixels it covers: 4 in corners, 6 at edges, 9 inside.
#[test]
fn convolution_known_answer() {
    let shape =
        Conv { batch: 1, height: 3, width: 4, in_channels: 1, out_channels: 1, kernel: 3, stride: 1, padding: 1 };
    let (x, w) = (ReferenceBuffer::Floats(vec![1.0; 12]), ReferenceBuffer::Floats(vec![1.0; 9]));
    let (mut y, mut workspace) = (poison(12), poison(shape.workspace_len()));
    Reference::new().conv_forward(shape, &mut y, &x, &w, &mut workspace);
    assert_eq!(y.f(), [4.0, 6.0, 6.0, 4.0, 6.0, 9.0, 9.0, 6.0, 4.0, 6.0, 6.0, 4.0]);
}

#[test]
fn group_normalisation_and_pooling() {
    let mut r = SplitMix(108);
    for _ in 0..8 {
        let groups = 1 + r.below(3);
        let shape =
            GroupNorm { batch: 1 + r.below(2), positions: 2 + r.below(4), channels: groups * (1 + r.below(3)), groups };
        let pool = Pool { batch: shape.batch, positions: shape.positions, channels: shape.channels };
        let pooled = shape.batch * shape.channels;
        let tensors = [random(&mut r, shape.len()), random(&mut r, shape.channels), random(&mut r, shape.channels)];
        let dpooled = random(&mut r, pooled);
        let mut f = |ops: &mut Reference, t: &[ReferenceBuffer]| {
            let (mut y, mut mean, mut rstd) =
                (poison(shape.len()), poison(shape.stats_len()), poison(shape.stats_len()));
            let mut out = poison(pooled);
            ops.groupnorm_forward(shape, &mut y, &mut mean, &mut rstd, &t[0], &t[1], &t[2]);
            ops.average_pool_forward(pool, &mut out, &y);
            // Squared, because the mean alone hardly depends on a normalised input.
            out.f().iter().zip(dpooled.f()).map(|(o, d)| d * o * o).sum()
        };
        let (mut y, mut mean, mut rstd) = (poison(shape.len()), poison(shape.stats_len()), poison(shape.stats_len()));
        let (mut out, mut dy, mut ops) = (poison(pooled), poison(shape.len()), Reference::new());
        let [x, gamma, beta] = &tensors;
        ops.groupnorm_forward(shape, &mut y, &mut mean, &mut rstd, x, gamma, beta);
        ops.average_pool_forward(pool, &mut out, &y);
        let dout = ReferenceBuffer::Floats(out.f().iter().zip(dpooled.f()).map(|(o, d)| 2.0 * d * o).collect());
        ops.average_pool_backward(pool, &mut dy, &dout);
        let stats = || RowStats { mean: &mean, rstd: &rstd };
        let (mut dx, mut dgamma, mut dbeta) = (poison(shape.len()), zeros(shape.channels), zeros(shape.channels));
        ops.groupnorm_to_inputs(shape, &mut dx, &dy, x, gamma, stats());
        ops.groupnorm_to_weights(shape, &mut dgamma, &mut dbeta, &dy, x, stats());
        for (which, gradient) in [dx, dgamma, dbeta].iter().enumerate() {
            check("groupnorm", &mut f, &tensors, which, gradient, &mut r);
        }
    }
}

#[test]
fn lstm_cell() {
    let mut r = SplitMix(109);
    for _ in 0..8 {
        let shape = LstmCell { rows: 1 + r.below(3), hidden: 1 + r.below(4) };
        let units = shape.rows * shape.hidden;
        let tensors = [random(&mut r, 4 * units), random(&mut r, units)];
        let (dh, dc_next) = (random(&mut r, units), random(&mut r, units));
        let mut f = |ops: &mut Reference, t: &[ReferenceBuffer]| {
            let (mut h, mut c, mut gates) = (poison(units), poison(units), t[0].clone());
            ops.lstm_cell_forward(shape, &mut h, &mut c, &mut gates, &t[1]);
            dot(&h, &dh) + dot(&c, &dc_next)
        };
        let (mut h, mut c, mut gates, mut ops) = (poison(units), poison(units), tensors[0].clone(), Reference::new());
        ops.lstm_cell_forward(shape, &mut h, &mut c, &mut gates, &tensors[1]);
        let (mut dgates, mut dc) = (poison(4 * units), dc_next.clone());
        ops.lstm_cell_backward(shape, &mut dgates, &mut dc, &dh, &gates, &c, &tensors[1]);
        check("lstm gates", &mut f, &tensors, 0, &dgates, &mut r);
        check("lstm c", &mut f, &tensors, 1, &dc, &mut r);
    }
}

#[test]
fn relu_keeps_nan_and_passes_gradients_where_positive() {
    let mut ops = Reference::new();
    let (mut y, mut dx) = (poison(3), poison(3));
    ops.relu_forward(3, &mut y, &ReferenceBuffer::Floats(vec![-1.0, 2.0, f64::NAN]));
    assert!(y.f()[0] == 0.0 && y.f()[1] == 2.0 && y.f()[2].is_nan());
    let (dy, y) = (ReferenceBuffer::Floats(vec![5.0, 6.0, 7.0]), ReferenceBuffer::Floats(vec![0.0, 2.0, 0.5]));
    ops.relu_backward(3, &mut dx, &dy, &y);
    assert_eq!(dx.f(), [0.0, 6.0, 7.0]);
}

/// After one step AdamW moves by the learning rate against the gradient's sign, SGD by rate × gradient, whatever else.
#[test]
fn optimizers_known_first_steps() {
    let mut ops = Reference::new();
    let config = AdamW { learning_rate: 0.1, epsilon: 0.0, weight_decay: 0.5, ..AdamW::default() };
    let (mut p, g) = (ReferenceBuffer::Floats(vec![1.0, -2.0]), ReferenceBuffer::Floats(vec![0.3, -7.0]));
    let (mut m, mut v) = (zeros(2), zeros(2));
    ops.adamw(2, &mut p, None, &g, &mut m, &mut v, config);
    let want = [1.0 - 0.1 - 0.1 * 0.5, -2.0 + 0.1 + 0.1 * 0.5 * 2.0];
    p.f().iter().zip(want).for_each(|(p, want)| assert!((p - want).abs() < 1e-12, "{p} {want}"));
    let (mut p, mut velocity) = (ReferenceBuffer::Floats(vec![1.0]), zeros(1));
    let (g, config) = (ReferenceBuffer::Floats(vec![2.0]), Sgd { learning_rate: 0.1, momentum: 0.5 });
    ops.sgd(1, &mut p, &g, &mut velocity, config);
    ops.sgd(1, &mut p, &g, &mut velocity, config);
    assert!((p.f()[0] - (1.0 - 0.2 - 0.3)).abs() < 1e-12);
}

#[test]
fn wrong_lengths_surface_once_at_synchronize() {
    let mut ops = Reference::new();
    let mut out = poison(3);
    ops.residual(4, &mut out, &zeros(4), &zeros(4));
    ops.residual(5, &mut out, &zeros(4), &zeros(4));
    let error = ops.synchronize().unwrap_err().to_string();
    assert!(error.contains("residual: buffer out holds 3 elements where 4 are needed"), "{error}");
    assert!(ops.synchronize().is_ok());
    let shape = Embedding { rows: 1, sequence: 1, vocabulary: 2, hidden: 1 };
    ops.embedding_forward(shape, &mut poison(1), &ReferenceBuffer::Ids(vec![2]), &zeros(2), &zeros(1));
    assert!(ops.synchronize().unwrap_err().to_string().contains("identifier 2 is outside"));
    assert!(ops.write(&mut out, &[1.0]).is_err() && ops.write_ids(&mut out, &[1]).is_err());
}
