//! The reference: every operation in f64, written as plainly as its formula. Slow on purpose, and what everything else
//! is checked against; itself checked against finite differences.

mod product;
mod small;
#[cfg(test)]
mod tests;
mod transformer;

pub use transformer::{gelu, gelu_derivative};

use super::*;
use crate::{Error, Result};
use transformer::{NormBackward, NormForward};

/// Floats in f64 whatever type was asked for, or token identifiers.
#[derive(Debug, Clone, PartialEq)]
pub enum ReferenceBuffer {
    /// Floating-point values, in f64 whatever type was asked for.
    Floats(Vec<f64>),
    /// Token identifiers.
    Ids(Vec<u32>),
}

impl ReferenceBuffer {
    /// The floats; nothing of identifiers, so that a mix-up shows as a wrong length.
    fn f(&self) -> &[f64] {
        match self {
            ReferenceBuffer::Floats(values) => values,
            ReferenceBuffer::Ids(_) => &[],
        }
    }

    fn f_mut(&mut self) -> &mut [f64] {
        match self {
            ReferenceBuffer::Floats(values) => values,
            ReferenceBuffer::Ids(_) => &mut [],
        }
    }

    fn ids(&self) -> &[u32] {
        match self {
            ReferenceBuffer::Ids(ids) => ids,
            ReferenceBuffer::Floats(_) => &[],
        }
    }
}

/// The reference device, which computes in f64.
#[derive(Debug, Default)]
pub struct Reference {
    /// The first error since the last [`Ops::synchronize`].
    error: Option<Error>,
}

impl Reference {
    /// A device on which no operation has failed yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether every buffer has the length its operation needs; the first that has not is kept for `synchronize`.
    fn fits(&mut self, operation: &str, lengths: &[(&str, usize, usize)]) -> bool {
        let wrong = lengths.iter().find(|(_, is, want)| is != want);
        if let Some((name, is, want)) = wrong
            && self.error.is_none()
        {
            let what = format!("{operation}: buffer {name} holds {is} elements where {want} are needed");
            self.error = Some(Error::input(what, "give every operation buffers of its shape's size"));
        }
        wrong.is_none()
    }

    /// Whether every identifier lies below `bound`.
    fn known(&mut self, operation: &str, ids: &ReferenceBuffer, bound: usize) -> bool {
        let wrong = ids.ids().iter().find(|&&id| id as usize >= bound);
        if let Some(id) = wrong
            && self.error.is_none()
        {
            self.error = Some(Error::input(
                format!("{operation}: identifier {id} is outside the vocabulary of {bound}"),
                "write identifiers below the vocabulary's size",
            ));
        }
        wrong.is_none()
    }
}

/// Lengths of a linear layer's x, w and y.
fn linear_lengths(shape: Linear) -> [usize; 3] {
    [shape.rows * shape.inputs, shape.outputs * shape.inputs, shape.rows * shape.outputs]
}

#[allow(clippy::too_many_arguments)]
impl Ops for Reference {
    type Buffer = ReferenceBuffer;

    fn dtype(&self) -> DType {
        DType::F64
    }

    fn alloc(&mut self, len: usize, dtype: DType) -> Result<ReferenceBuffer> {
        Ok(match dtype {
            DType::U32 => ReferenceBuffer::Ids(vec![u32::MAX; len]),
            _ => ReferenceBuffer::Floats(vec![f64::NAN; len]),
        })
    }

    fn write(&mut self, dst: &mut ReferenceBuffer, values: &[f64]) -> Result<()> {
        if dst.f().len() != values.len() {
            let what = format!("write: {} values for a buffer of {} floats", values.len(), dst.f().len());
            return Err(Error::input(what, "give as many values as the buffer holds"));
        }
        dst.f_mut().copy_from_slice(values);
        Ok(())
    }

    fn write_ids(&mut self, dst: &mut ReferenceBuffer, ids: &[u32]) -> Result<()> {
        match dst {
            ReferenceBuffer::Ids(own) if own.len() == ids.len() => {
                own.copy_from_slice(ids);
                Ok(())
            }
            _ => Err(Error::input(
                format!("write: {} identifiers for a buffer of {}", ids.len(), dst.ids().len()),
                "give as many identifiers as the buffer holds",
            )),
        }
    }

    fn read(&mut self, src: &ReferenceBuffer) -> Result<Vec<f64>> {
        self.synchronize()?;
        Ok(match src {
            ReferenceBuffer::Floats(values) => values.clone(),
            ReferenceBuffer::Ids(ids) => ids.iter().map(|&id| f64::from(id)).collect(),
        })
    }

    fn synchronize(&mut self) -> Result<()> {
        self.error.take().map_or(Ok(()), Err)
    }

    fn zero(&mut self, dst: &mut ReferenceBuffer) {
        match dst {
            ReferenceBuffer::Floats(values) => values.fill(0.0),
            ReferenceBuffer::Ids(ids) => ids.fill(0),
        }
    }

    fn linear_forward(
        &mut self,
        shape: Linear,
        y: &mut ReferenceBuffer,
        x: &ReferenceBuffer,
        w: &ReferenceBuffer,
        epilogue: ForwardEpilogue<'_, ReferenceBuffer>,
    ) {
        let [lx, lw, ly] = linear_lengths(shape);
        let bias_len = match &epilogue {
            ForwardEpilogue::None => shape.outputs,
            ForwardEpilogue::Bias(bias) | ForwardEpilogue::BiasGelu { bias, .. } => bias.f().len(),
        };
        let pre_len = if let ForwardEpilogue::BiasGelu { pre, .. } = &epilogue { pre.f().len() } else { ly };
        let lengths = [
            ("x", x.f().len(), lx),
            ("w", w.f().len(), lw),
            ("y", y.f().len(), ly),
            ("bias", bias_len, shape.outputs),
            ("pre", pre_len, ly),
        ];
        if !self.fits("linear_forward", &lengths) {
            return;
        }
        transformer::linear_forward(shape, y.f_mut(), x.f(), w.f());
        match epilogue {
            ForwardEpilogue::None => {}
            ForwardEpilogue::Bias(bias) => transformer::add_bias(y.f_mut(), bias.f()),
            ForwardEpilogue::BiasGelu { bias, pre } => {
                transformer::add_bias(y.f_mut(), bias.f());
                pre.f_mut().copy_from_slice(y.f());
                transformer::map(y.f_mut(), pre.f(), gelu);
            }
        }
    }

    fn linear_to_inputs(
        &mut self,
        shape: Linear,
        dx: &mut ReferenceBuffer,
        dy: &ReferenceBuffer,
        w: &ReferenceBuffer,
        epilogue: InputEpilogue<'_, ReferenceBuffer>,
    ) {
        let [lx, lw, ly] = linear_lengths(shape);
        let pre_len = if let InputEpilogue::Gelu { pre } = &epilogue { pre.f().len() } else { lx };
        let lengths =
            [("dx", dx.f().len(), lx), ("w", w.f().len(), lw), ("dy", dy.f().len(), ly), ("pre", pre_len, lx)];
        if !self.fits("linear_to_inputs", &lengths) {
            return;
        }
        transformer::linear_to_inputs(shape, dx.f_mut(), dy.f(), w.f());
        if let InputEpilogue::Gelu { pre } = epilogue {
            transformer::gelu_backward_in_place(dx.f_mut(), pre.f());
        }
    }

    fn linear_to_weights(
        &mut self,
        shape: Linear,
        dw: &mut ReferenceBuffer,
        dy: &ReferenceBuffer,
        x: &ReferenceBuffer,
        epilogue: WeightEpilogue<'_, ReferenceBuffer>,
    ) {
        let [lx, lw, ly] = linear_lengths(shape);
        let bias_len = if let WeightEpilogue::Bias { dbias } = &epilogue { dbias.f().len() } else { shape.outputs };
        let lengths = [
            ("x", x.f().len(), lx),
            ("dw", dw.f().len(), lw),
            ("dy", dy.f().len(), ly),
            ("dbias", bias_len, shape.outputs),
        ];
        if !self.fits("linear_to_weights", &lengths) {
            return;
        }
        transformer::linear_to_weights(shape, dw.f_mut(), dy.f(), x.f());
        if let WeightEpilogue::Bias { dbias } = epilogue {
            transformer::column_sums(dbias.f_mut(), dy.f());
        }
    }

    fn layernorm_forward(
        &mut self,
        shape: Rows,
        y: &mut ReferenceBuffer,
        mean: &mut ReferenceBuffer,
        rstd: &mut ReferenceBuffer,
        x: &ReferenceBuffer,
        gamma: &ReferenceBuffer,
        beta: &ReferenceBuffer,
    ) {
        let lengths = [
            ("y", y.f().len(), shape.len()),
            ("mean", mean.f().len(), shape.rows),
            ("rstd", rstd.f().len(), shape.rows),
            ("x", x.f().len(), shape.len()),
            ("gamma", gamma.f().len(), shape.cols),
            ("beta", beta.f().len(), shape.cols),
        ];
        if self.fits("layernorm_forward", &lengths) {
            let (x, gamma, beta) = (x.f(), gamma.f(), beta.f());
            let tensors = NormForward { y: y.f_mut(), mean: mean.f_mut(), rstd: rstd.f_mut(), x, gamma, beta };
            transformer::layernorm_forward(shape, tensors);
        }
    }

    fn layernorm_to_inputs(
        &mut self,
        shape: Rows,
        dx: &mut ReferenceBuffer,
        dy: &ReferenceBuffer,
        x: &ReferenceBuffer,
        gamma: &ReferenceBuffer,
        stats: RowStats<'_, ReferenceBuffer>,
        residual: Option<&ReferenceBuffer>,
    ) {
        let lengths = [
            ("dx", dx.f().len(), shape.len()),
            ("dy", dy.f().len(), shape.len()),
            ("x", x.f().len(), shape.len()),
            ("gamma", gamma.f().len(), shape.cols),
            ("mean", stats.mean.f().len(), shape.rows),
            ("rstd", stats.rstd.f().len(), shape.rows),
            ("residual", residual.map_or(shape.len(), |r| r.f().len()), shape.len()),
        ];
        if self.fits("layernorm_to_inputs", &lengths) {
            let tensors = backward_tensors(dy, x, stats);
            transformer::layernorm_to_inputs(shape, dx.f_mut(), tensors, gamma.f(), residual.map(ReferenceBuffer::f));
        }
    }

    fn layernorm_to_weights(
        &mut self,
        shape: Rows,
        dgamma: &mut ReferenceBuffer,
        dbeta: &mut ReferenceBuffer,
        dy: &ReferenceBuffer,
        x: &ReferenceBuffer,
        stats: RowStats<'_, ReferenceBuffer>,
    ) {
        let lengths = [
            ("dgamma", dgamma.f().len(), shape.cols),
            ("dbeta", dbeta.f().len(), shape.cols),
            ("dy", dy.f().len(), shape.len()),
            ("x", x.f().len(), shape.len()),
            ("mean", stats.mean.f().len(), shape.rows),
            ("rstd", stats.rstd.f().len(), shape.rows),
        ];
        if self.fits("layernorm_to_weights", &lengths) {
            let tensors = backward_tensors(dy, x, stats);
            transformer::layernorm_to_weights(shape, dgamma.f_mut(), dbeta.f_mut(), tensors);
        }
    }

    fn attention_forward(
        &mut self,
        shape: Attention,
        out: &mut ReferenceBuffer,
        lse: &mut ReferenceBuffer,
        qkv: &ReferenceBuffer,
    ) {
        let width = shape.rows() * shape.width();
        let lengths =
            [("out", out.f().len(), width), ("lse", lse.f().len(), shape.lse_len()), ("qkv", qkv.f().len(), 3 * width)];
        if self.fits("attention_forward", &lengths) {
            transformer::attention_forward(&shape, out.f_mut(), lse.f_mut(), qkv.f());
        }
    }

    fn attention_backward(
        &mut self,
        shape: Attention,
        dqkv: &mut ReferenceBuffer,
        dout: &ReferenceBuffer,
        qkv: &ReferenceBuffer,
        out: &ReferenceBuffer,
        lse: &ReferenceBuffer,
        workspace: &mut ReferenceBuffer,
    ) {
        let width = shape.rows() * shape.width();
        let lengths = [
            ("dqkv", dqkv.f().len(), 3 * width),
            ("dout", dout.f().len(), width),
            ("qkv", qkv.f().len(), 3 * width),
            ("out", out.f().len(), width),
            ("lse", lse.f().len(), shape.lse_len()),
            ("workspace", workspace.f().len(), shape.lse_len()),
        ];
        if self.fits("attention_backward", &lengths) {
            let read = transformer::AttentionBackward { dout: dout.f(), qkv: qkv.f(), out: out.f(), lse: lse.f() };
            transformer::attention_backward(&shape, dqkv.f_mut(), read, workspace.f_mut());
        }
    }

    fn gelu_forward(&mut self, len: usize, y: &mut ReferenceBuffer, x: &ReferenceBuffer) {
        if self.fits("gelu_forward", &[("y", y.f().len(), len), ("x", x.f().len(), len)]) {
            transformer::map(y.f_mut(), x.f(), gelu);
        }
    }

    fn gelu_backward(&mut self, len: usize, dx: &mut ReferenceBuffer, dy: &ReferenceBuffer, x: &ReferenceBuffer) {
        let lengths = [("dx", dx.f().len(), len), ("dy", dy.f().len(), len), ("x", x.f().len(), len)];
        if self.fits("gelu_backward", &lengths) {
            dx.f_mut().copy_from_slice(dy.f());
            transformer::gelu_backward_in_place(dx.f_mut(), x.f());
        }
    }

    fn residual(&mut self, len: usize, out: &mut ReferenceBuffer, a: &ReferenceBuffer, b: &ReferenceBuffer) {
        let lengths = [("out", out.f().len(), len), ("a", a.f().len(), len), ("b", b.f().len(), len)];
        if self.fits("residual", &lengths) {
            out.f_mut().iter_mut().zip(a.f().iter().zip(b.f())).for_each(|(out, (a, b))| *out = a + b);
        }
    }

    fn residual_layernorm(
        &mut self,
        shape: Rows,
        out: ResidualLayernorm<'_, ReferenceBuffer>,
        a: &ReferenceBuffer,
        b: &ReferenceBuffer,
        gamma: &ReferenceBuffer,
        beta: &ReferenceBuffer,
    ) {
        let ResidualLayernorm { sum, y, mean, rstd } = out;
        self.residual(shape.len(), sum, a, b);
        self.layernorm_forward(shape, y, mean, rstd, sum, gamma, beta);
    }

    fn dropout(&mut self, len: usize, y: &mut ReferenceBuffer, x: &ReferenceBuffer, dropout: Dropout) {
        if !self.fits("dropout", &[("y", y.f().len(), len), ("x", x.f().len(), len)]) {
            return;
        }
        match dropout.numbers() {
            Ok((threshold, _)) => {
                for (i, (y, x)) in y.f_mut().iter_mut().zip(x.f()).enumerate() {
                    let word = dropout.words::<1>((i / 4) as u64)[i % 4][0];
                    *y = if word >= threshold { x / (1.0 - dropout.probability) } else { 0.0 };
                }
            }
            Err(error) => self.error = self.error.take().or(Some(error)),
        }
    }

    fn embedding_forward(
        &mut self,
        shape: Embedding,
        out: &mut ReferenceBuffer,
        tokens: &ReferenceBuffer,
        table: &ReferenceBuffer,
        positions: &ReferenceBuffer,
    ) {
        let lengths = [
            ("out", out.f().len(), shape.rows * shape.hidden),
            ("tokens", tokens.ids().len(), shape.rows),
            ("table", table.f().len(), shape.vocabulary * shape.hidden),
            ("positions", positions.f().len(), shape.sequence * shape.hidden),
        ];
        let name = "embedding_forward";
        if self.fits(name, &lengths) && self.known(name, tokens, shape.vocabulary) {
            transformer::embedding_forward(shape, out.f_mut(), tokens.ids(), table.f(), positions.f());
        }
    }

    fn embedding_to_weights(
        &mut self,
        shape: Embedding,
        dtable: &mut ReferenceBuffer,
        dpositions: &mut ReferenceBuffer,
        dout: &ReferenceBuffer,
        tokens: &ReferenceBuffer,
    ) {
        let lengths = [
            ("dtable", dtable.f().len(), shape.vocabulary * shape.hidden),
            ("dpositions", dpositions.f().len(), shape.sequence * shape.hidden),
            ("dout", dout.f().len(), shape.rows * shape.hidden),
            ("tokens", tokens.ids().len(), shape.rows),
        ];
        let name = "embedding_to_weights";
        if self.fits(name, &lengths) && self.known(name, tokens, shape.vocabulary) {
            transformer::embedding_to_weights(shape, dtable.f_mut(), dpositions.f_mut(), dout.f(), tokens.ids());
        }
    }

    fn cross_entropy(
        &mut self,
        shape: Rows,
        losses: &mut ReferenceBuffer,
        logits: &mut ReferenceBuffer,
        targets: &ReferenceBuffer,
    ) {
        let lengths = [
            ("losses", losses.f().len(), shape.rows),
            ("logits", logits.f().len(), shape.len()),
            ("targets", targets.ids().len(), shape.rows),
        ];
        if self.fits("cross_entropy", &lengths) && self.known("cross_entropy", targets, shape.cols) {
            transformer::cross_entropy(shape, losses.f_mut(), logits.f_mut(), targets.ids());
        }
    }

    fn adamw(
        &mut self,
        len: usize,
        param: &mut ReferenceBuffer,
        master: Option<&mut ReferenceBuffer>,
        grad: &ReferenceBuffer,
        m: &mut ReferenceBuffer,
        v: &mut ReferenceBuffer,
        config: AdamW,
    ) {
        let lengths = [
            ("param", param.f().len(), len),
            ("master", master.map_or(0, |b| b.f().len()), 0),
            ("grad", grad.f().len(), len),
            ("m", m.f().len(), len),
            ("v", v.f().len(), len),
        ];
        if self.fits("adamw", &lengths) {
            transformer::adamw(param.f_mut(), grad.f(), m.f_mut(), v.f_mut(), config);
        }
    }

    fn conv_forward(
        &mut self,
        shape: Conv,
        y: &mut ReferenceBuffer,
        x: &ReferenceBuffer,
        w: &ReferenceBuffer,
        workspace: &mut ReferenceBuffer,
    ) {
        if self.fits("conv_forward", &conv_lengths(shape, x, w, y, workspace)) {
            small::conv_forward(shape, y.f_mut(), x.f(), w.f());
        }
    }

    fn conv_to_inputs(
        &mut self,
        shape: Conv,
        dx: &mut ReferenceBuffer,
        dy: &ReferenceBuffer,
        w: &ReferenceBuffer,
        workspace: &mut ReferenceBuffer,
    ) {
        if self.fits("conv_to_inputs", &conv_lengths(shape, dx, w, dy, workspace)) {
            small::conv_to_inputs(shape, dx.f_mut(), dy.f(), w.f());
        }
    }

    fn conv_to_weights(
        &mut self,
        shape: Conv,
        dw: &mut ReferenceBuffer,
        dy: &ReferenceBuffer,
        x: &ReferenceBuffer,
        workspace: &mut ReferenceBuffer,
    ) {
        if self.fits("conv_to_weights", &conv_lengths(shape, x, dw, dy, workspace)) {
            small::conv_to_weights(shape, dw.f_mut(), dy.f(), x.f());
        }
    }

    fn groupnorm_forward(
        &mut self,
        shape: GroupNorm,
        y: &mut ReferenceBuffer,
        mean: &mut ReferenceBuffer,
        rstd: &mut ReferenceBuffer,
        x: &ReferenceBuffer,
        gamma: &ReferenceBuffer,
        beta: &ReferenceBuffer,
    ) {
        let lengths = [
            ("y", y.f().len(), shape.len()),
            ("mean", mean.f().len(), shape.stats_len()),
            ("rstd", rstd.f().len(), shape.stats_len()),
            ("x", x.f().len(), shape.len()),
            ("gamma", gamma.f().len(), shape.channels),
            ("beta", beta.f().len(), shape.channels),
        ];
        if self.fits("groupnorm_forward", &lengths) {
            let (x, gamma, beta) = (x.f(), gamma.f(), beta.f());
            let tensors = NormForward { y: y.f_mut(), mean: mean.f_mut(), rstd: rstd.f_mut(), x, gamma, beta };
            small::groupnorm_forward(shape, tensors);
        }
    }

    fn groupnorm_to_inputs(
        &mut self,
        shape: GroupNorm,
        dx: &mut ReferenceBuffer,
        dy: &ReferenceBuffer,
        x: &ReferenceBuffer,
        gamma: &ReferenceBuffer,
        stats: RowStats<'_, ReferenceBuffer>,
    ) {
        let lengths = [
            ("dx", dx.f().len(), shape.len()),
            ("dy", dy.f().len(), shape.len()),
            ("x", x.f().len(), shape.len()),
            ("gamma", gamma.f().len(), shape.channels),
            ("mean", stats.mean.f().len(), shape.stats_len()),
            ("rstd", stats.rstd.f().len(), shape.stats_len()),
        ];
        if self.fits("groupnorm_to_inputs", &lengths) {
            small::groupnorm_to_inputs(shape, dx.f_mut(), backward_tensors(dy, x, stats), gamma.f());
        }
    }

    fn groupnorm_to_weights(
        &mut self,
        shape: GroupNorm,
        dgamma: &mut ReferenceBuffer,
        dbeta: &mut ReferenceBuffer,
        dy: &ReferenceBuffer,
        x: &ReferenceBuffer,
        stats: RowStats<'_, ReferenceBuffer>,
    ) {
        let lengths = [
            ("dgamma", dgamma.f().len(), shape.channels),
            ("dbeta", dbeta.f().len(), shape.channels),
            ("dy", dy.f().len(), shape.len()),
            ("x", x.f().len(), shape.len()),
            ("mean", stats.mean.f().len(), shape.stats_len()),
            ("rstd", stats.rstd.f().len(), shape.stats_len()),
        ];
        if self.fits("groupnorm_to_weights", &lengths) {
            small::groupnorm_to_weights(shape, dgamma.f_mut(), dbeta.f_mut(), backward_tensors(dy, x, stats));
        }
    }

    fn relu_forward(&mut self, len: usize, y: &mut ReferenceBuffer, x: &ReferenceBuffer) {
        if self.fits("relu_forward", &[("y", y.f().len(), len), ("x", x.f().len(), len)]) {
            // Written so that NaN stays NaN.
            transformer::map(y.f_mut(), x.f(), |x| if x < 0.0 { 0.0 } else { x });
        }
    }

    fn relu_backward(&mut self, len: usize, dx: &mut ReferenceBuffer, dy: &ReferenceBuffer, y: &ReferenceBuffer) {
        let lengths = [("dx", dx.f().len(), len), ("dy", dy.f().len(), len), ("y", y.f().len(), len)];
        if self.fits("relu_backward", &lengths) {
            let read = dy.f().iter().zip(y.f());
            dx.f_mut().iter_mut().zip(read).for_each(|(dx, (dy, y))| *dx = if *y > 0.0 { *dy } else { 0.0 });
        }
    }

    fn average_pool_forward(&mut self, shape: Pool, y: &mut ReferenceBuffer, x: &ReferenceBuffer) {
        if self.fits("average_pool_forward", &pool_lengths(shape, x, y)) {
            small::average_pool_forward(shape, y.f_mut(), x.f());
        }
    }

    fn average_pool_backward(&mut self, shape: Pool, dx: &mut ReferenceBuffer, dy: &ReferenceBuffer) {
        if self.fits("average_pool_backward", &pool_lengths(shape, dx, dy)) {
            small::average_pool_backward(shape, dx.f_mut(), dy.f());
        }
    }

    fn lstm_cell_forward(
        &mut self,
        shape: LstmCell,
        h: &mut ReferenceBuffer,
        c: &mut ReferenceBuffer,
        gates: &mut ReferenceBuffer,
        c_prev: &ReferenceBuffer,
    ) {
        let units = shape.rows * shape.hidden;
        let lengths = [
            ("h", h.f().len(), units),
            ("c", c.f().len(), units),
            ("gates", gates.f().len(), 4 * units),
            ("c_prev", c_prev.f().len(), units),
        ];
        if self.fits("lstm_cell_forward", &lengths) {
            small::lstm_cell_forward(shape, h.f_mut(), c.f_mut(), gates.f_mut(), c_prev.f());
        }
    }

    fn lstm_cell_backward(
        &mut self,
        shape: LstmCell,
        dgates: &mut ReferenceBuffer,
        dc: &mut ReferenceBuffer,
        dh: &ReferenceBuffer,
        gates: &ReferenceBuffer,
        c: &ReferenceBuffer,
        c_prev: &ReferenceBuffer,
    ) {
        let units = shape.rows * shape.hidden;
        let lengths = [
            ("dgates", dgates.f().len(), 4 * units),
            ("dc", dc.f().len(), units),
            ("dh", dh.f().len(), units),
            ("gates", gates.f().len(), 4 * units),
            ("c", c.f().len(), units),
            ("c_prev", c_prev.f().len(), units),
        ];
        if self.fits("lstm_cell_backward", &lengths) {
            let read = small::CellBackward { dh: dh.f(), gates: gates.f(), c: c.f(), c_prev: c_prev.f() };
            small::lstm_cell_backward(shape, dgates.f_mut(), dc.f_mut(), read);
        }
    }

    fn sgd(
        &mut self,
        len: usize,
        param: &mut ReferenceBuffer,
        grad: &ReferenceBuffer,
        velocity: &mut ReferenceBuffer,
        config: Sgd,
    ) {
        let lengths =
            [("param", param.f().len(), len), ("grad", grad.f().len(), len), ("velocity", velocity.f().len(), len)];
        if self.fits("sgd", &lengths) {
            small::sgd(param.f_mut(), grad.f(), velocity.f_mut(), config);
        }
    }
}

fn backward_tensors<'a>(
    dy: &'a ReferenceBuffer,
    x: &'a ReferenceBuffer,
    stats: RowStats<'a, ReferenceBuffer>,
) -> NormBackward<'a> {
    NormBackward { dy: dy.f(), x: x.f(), mean: stats.mean.f(), rstd: stats.rstd.f() }
}

fn conv_lengths(
    shape: Conv,
    x: &ReferenceBuffer,
    w: &ReferenceBuffer,
    y: &ReferenceBuffer,
    workspace: &ReferenceBuffer,
) -> [(&'static str, usize, usize); 4] {
    [
        ("x", x.f().len(), shape.in_len()),
        ("w", w.f().len(), shape.weight_len()),
        ("y", y.f().len(), shape.out_len()),
        ("workspace", workspace.f().len(), shape.workspace_len()),
    ]
}

fn pool_lengths(shape: Pool, x: &ReferenceBuffer, y: &ReferenceBuffer) -> [(&'static str, usize, usize); 2] {
    let pooled = shape.batch * shape.channels;
    [("x", x.f().len(), pooled * shape.positions), ("y", y.f().len(), pooled)]
}
