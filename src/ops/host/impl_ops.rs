//! [`Ops`] for [`Host`]: every method checks its shape and buffers, then calls the kernel of its file.

use super::buffer::{BufferMisfit, BufferResult, HostBuffer};
use super::{
    Host, activation, attention, columns, conv, cross_entropy, dropout, embedding, groupnorm, layernorm, lstm,
};
use super::{optimizer, pool, product};
use crate::ops::{
    AdamW, Attention, Conv, DType, Dropout, Embedding, ForwardEpilogue, GroupNorm, InputEpilogue, Linear, LstmCell,
    Ops, Pool, ResidualLayernorm, RowStats, Rows, Sgd, WeightEpilogue,
};
use crate::{Error, Result};

/// Shapes of zero elements have no meaning to the kernels, and lengths that overflow none to anyone.
fn sized(dimensions: &[usize]) -> BufferResult {
    let product = dimensions.iter().try_fold(1usize, |product, &d| product.checked_mul(d));
    match product {
        Some(0) => Err(BufferMisfit("the shape has a dimension of 0".into())),
        Some(_) => Ok(()),
        None => Err(BufferMisfit(format!("the shape {dimensions:?} is too large"))),
    }
}

fn check_conv(s: Conv) -> BufferResult {
    sized(&[s.batch, s.height, s.width, s.in_channels, s.out_channels, s.kernel, s.kernel, s.stride])?;
    if s.kernel > s.height + 2 * s.padding || s.kernel > s.width + 2 * s.padding {
        return Err(BufferMisfit(format!("a kernel of {} is larger than the padded image", s.kernel)));
    }
    Ok(())
}

fn check_groupnorm(s: GroupNorm) -> BufferResult {
    sized(&[s.batch, s.positions, s.channels, s.groups])?;
    if !s.channels.is_multiple_of(s.groups) {
        return Err(BufferMisfit(format!("{} channels do not divide into {} groups", s.channels, s.groups)));
    }
    Ok(())
}

impl Ops for Host {
    type Buffer = HostBuffer;

    fn dtype(&self) -> DType {
        DType::F32
    }

    fn alloc(&mut self, len: usize, dtype: DType) -> Result<HostBuffer> {
        HostBuffer::poisoned(len, dtype)
    }

    fn write(&mut self, dst: &mut HostBuffer, values: &[f64]) -> Result<()> {
        same_length(dst, values.len())?;
        let floats = dst.floats_mut("dst", values.len()).map_err(wrong_kind)?;
        floats.iter_mut().zip(values).for_each(|(to, &v)| *to = v as f32);
        Ok(())
    }

    fn write_ids(&mut self, dst: &mut HostBuffer, ids: &[u32]) -> Result<()> {
        same_length(dst, ids.len())?;
        dst.ids_mut().map_err(wrong_kind)?.copy_from_slice(ids);
        Ok(())
    }

    fn read(&mut self, src: &HostBuffer) -> Result<Vec<f64>> {
        self.synchronize()?;
        Ok(src.to_f64())
    }

    fn synchronize(&mut self) -> Result<()> {
        self.failure.take().map_or(Ok(()), Err)
    }

    fn zero(&mut self, dst: &mut HostBuffer) {
        self.step("zero", |team| {
            if let Ok(ids) = dst.ids_mut() {
                ids.fill(0);
                return Ok(());
            }
            let floats = dst.floats_mut("dst", dst.len())?;
            team.fill(floats, 0.0);
            Ok(())
        });
    }

    fn linear_forward(
        &mut self,
        s: Linear,
        y: &mut HostBuffer,
        x: &HostBuffer,
        w: &HostBuffer,
        epilogue: ForwardEpilogue<'_, HostBuffer>,
    ) {
        self.step("linear_forward", |team| {
            sized(&[s.rows, s.inputs, s.outputs])?;
            let y = y.floats_mut("y", s.rows * s.outputs)?;
            let (x, w) = (x.floats("x", s.rows * s.inputs)?, w.floats("w", s.inputs * s.outputs)?);
            match epilogue {
                ForwardEpilogue::None => product::forward(team, s, y, x, w),
                ForwardEpilogue::Bias(bias) => {
                    let bias = bias.floats("bias", s.outputs)?;
                    product::forward(team, s, y, x, w);
                    product::add_bias(team, y, bias);
                }
                ForwardEpilogue::BiasGelu { bias, pre } => {
                    let bias = bias.floats("bias", s.outputs)?;
                    let pre = pre.floats_mut("pre", s.rows * s.outputs)?;
                    if s.accumulate {
                        pre.copy_from_slice(y);
                    }
                    product::forward(team, s, pre, x, w);
                    product::add_bias_gelu(team, y, pre, bias);
                }
            }
            Ok(())
        });
    }

    fn linear_to_inputs(
        &mut self,
        s: Linear,
        dx: &mut HostBuffer,
        dy: &HostBuffer,
        w: &HostBuffer,
        epilogue: InputEpilogue<'_, HostBuffer>,
    ) {
        self.step("linear_to_inputs", |team| {
            sized(&[s.rows, s.inputs, s.outputs])?;
            let dx = dx.floats_mut("dx", s.rows * s.inputs)?;
            let (dy, w) = (dy.floats("dy", s.rows * s.outputs)?, w.floats("w", s.inputs * s.outputs)?);
            match epilogue {
                InputEpilogue::None => product::to_inputs(team, s, dx, dy, w),
                InputEpilogue::Gelu { pre } => {
                    let pre = pre.floats("pre", s.rows * s.inputs)?;
                    product::to_inputs(team, s, dx, dy, w);
                    product::times_gelu_slope(team, dx, pre);
                }
            }
            Ok(())
        });
    }

    fn linear_to_weights(
        &mut self,
        s: Linear,
        dw: &mut HostBuffer,
        dy: &HostBuffer,
        x: &HostBuffer,
        epilogue: WeightEpilogue<'_, HostBuffer>,
    ) {
        self.step("linear_to_weights", |team| {
            sized(&[s.rows, s.inputs, s.outputs])?;
            let dw = dw.floats_mut("dw", s.inputs * s.outputs)?;
            let (dy, x) = (dy.floats("dy", s.rows * s.outputs)?, x.floats("x", s.rows * s.inputs)?);
            if let WeightEpilogue::Bias { dbias } = epilogue {
                columns::add_sums(team, dbias.floats_mut("dbias", s.outputs)?, dy);
            }
            product::to_weights(team, s, dw, dy, x);
            Ok(())
        });
    }

    fn layernorm_forward(
        &mut self,
        s: Rows,
        y: &mut HostBuffer,
        mean: &mut HostBuffer,
        rstd: &mut HostBuffer,
        x: &HostBuffer,
        gamma: &HostBuffer,
        beta: &HostBuffer,
    ) {
        self.step("layernorm_forward", |team| {
            sized(&[s.rows, s.cols])?;
            layernorm::forward(
                team,
                y.floats_mut("y", s.len())?,
                mean.floats_mut("mean", s.rows)?,
                rstd.floats_mut("rstd", s.rows)?,
                x.floats("x", s.len())?,
                gamma.floats("gamma", s.cols)?,
                beta.floats("beta", s.cols)?,
            );
            Ok(())
        });
    }

    fn layernorm_to_inputs(
        &mut self,
        s: Rows,
        dx: &mut HostBuffer,
        dy: &HostBuffer,
        x: &HostBuffer,
        gamma: &HostBuffer,
        stats: RowStats<'_, HostBuffer>,
        residual: Option<&HostBuffer>,
    ) {
        self.step("layernorm_to_inputs", |team| {
            sized(&[s.rows, s.cols])?;
            layernorm::to_inputs(
                team,
                dx.floats_mut("dx", s.len())?,
                dy.floats("dy", s.len())?,
                x.floats("x", s.len())?,
                gamma.floats("gamma", s.cols)?,
                stats.mean.floats("mean", s.rows)?,
                stats.rstd.floats("rstd", s.rows)?,
                residual.map(|residual| residual.floats("residual", s.len())).transpose()?,
            );
            Ok(())
        });
    }

    fn layernorm_to_weights(
        &mut self,
        s: Rows,
        dgamma: &mut HostBuffer,
        dbeta: &mut HostBuffer,
        dy: &HostBuffer,
        x: &HostBuffer,
        stats: RowStats<'_, HostBuffer>,
    ) {
        self.step("layernorm_to_weights", |team| {
            sized(&[s.rows, s.cols])?;
            layernorm::to_weights(
                team,
                dgamma.floats_mut("dgamma", s.cols)?,
                dbeta.floats_mut("dbeta", s.cols)?,
                dy.floats("dy", s.len())?,
                x.floats("x", s.len())?,
                stats.mean.floats("mean", s.rows)?,
                stats.rstd.floats("rstd", s.rows)?,
            );
            Ok(())
        });
    }

    fn attention_forward(&mut self, s: Attention, out: &mut HostBuffer, lse: &mut HostBuffer, qkv: &HostBuffer) {
        self.step("attention_forward", |team| {
            sized(&[3, s.batch, s.heads, s.sequence, s.head_size])?;
            let len = s.rows() * s.width();
            let out = out.floats_mut("out", len)?;
            attention::forward(team, s, out, lse.floats_mut("lse", s.lse_len())?, qkv.floats("qkv", 3 * len)?);
            Ok(())
        });
    }

    fn attention_backward(
        &mut self,
        s: Attention,
        dqkv: &mut HostBuffer,
        dout: &HostBuffer,
        qkv: &HostBuffer,
        out: &HostBuffer,
        lse: &HostBuffer,
        workspace: &mut HostBuffer,
    ) {
        self.step("attention_backward", |team| {
            sized(&[3, s.batch, s.heads, s.sequence, s.head_size])?;
            let len = s.rows() * s.width();
            let inputs = attention::Inputs {
                dout: dout.floats("dout", len)?,
                qkv: qkv.floats("qkv", 3 * len)?,
                out: out.floats("out", len)?,
                lse: lse.floats("lse", s.lse_len())?,
            };
            let dqkv = dqkv.floats_mut("dqkv", 3 * len)?;
            // The row sums live and die with a block of queries here; the length is checked for other devices' sake.
            workspace.floats_mut("workspace", s.lse_len())?;
            attention::backward(team, s, dqkv, inputs);
            Ok(())
        });
    }

    fn gelu_forward(&mut self, len: usize, y: &mut HostBuffer, x: &HostBuffer) {
        self.step("gelu_forward", |team| {
            activation::gelu_forward(team, y.floats_mut("y", len)?, x.floats("x", len)?);
            Ok(())
        });
    }

    fn gelu_backward(&mut self, len: usize, dx: &mut HostBuffer, dy: &HostBuffer, x: &HostBuffer) {
        self.step("gelu_backward", |team| {
            let dx = dx.floats_mut("dx", len)?;
            activation::gelu_backward(team, dx, dy.floats("dy", len)?, x.floats("x", len)?);
            Ok(())
        });
    }

    fn residual(&mut self, len: usize, out: &mut HostBuffer, a: &HostBuffer, b: &HostBuffer) {
        self.step("residual", |team| {
            activation::residual(team, out.floats_mut("out", len)?, a.floats("a", len)?, b.floats("b", len)?);
            Ok(())
        });
    }

    fn residual_layernorm(
        &mut self,
        s: Rows,
        out: ResidualLayernorm<'_, HostBuffer>,
        a: &HostBuffer,
        b: &HostBuffer,
        gamma: &HostBuffer,
        beta: &HostBuffer,
    ) {
        self.step("residual_layernorm", |team| {
            sized(&[s.rows, s.cols])?;
            let sum = layernorm::ResidualSum {
                sum: out.sum.floats_mut("sum", s.len())?,
                a: a.floats("a", s.len())?,
                b: b.floats("b", s.len())?,
            };
            layernorm::residual_forward(
                team,
                sum,
                out.y.floats_mut("y", s.len())?,
                out.mean.floats_mut("mean", s.rows)?,
                out.rstd.floats_mut("rstd", s.rows)?,
                gamma.floats("gamma", s.cols)?,
                beta.floats("beta", s.cols)?,
            );
            Ok(())
        });
    }

    fn dropout(&mut self, len: usize, y: &mut HostBuffer, x: &HostBuffer, dropout: Dropout) {
        let numbers = match dropout.numbers() {
            Ok(numbers) => numbers,
            Err(error) => {
                self.failure.get_or_insert(error);
                return;
            }
        };
        self.step("dropout", |team| {
            dropout::forward(team, y.floats_mut("y", len)?, x.floats("x", len)?, dropout, numbers);
            Ok(())
        });
    }

    fn embedding_forward(
        &mut self,
        s: Embedding,
        out: &mut HostBuffer,
        tokens: &HostBuffer,
        table: &HostBuffer,
        positions: &HostBuffer,
    ) {
        self.step("embedding_forward", |team| {
            sized(&[s.rows, s.sequence, s.vocabulary, s.hidden])?;
            let out = out.floats_mut("out", s.rows * s.hidden)?;
            let tokens = tokens.ids("tokens", s.rows, s.vocabulary)?;
            let table = table.floats("table", s.vocabulary * s.hidden)?;
            embedding::forward(team, s, out, tokens, table, positions.floats("positions", s.sequence * s.hidden)?);
            Ok(())
        });
    }

    fn embedding_to_weights(
        &mut self,
        s: Embedding,
        dtable: &mut HostBuffer,
        dpositions: &mut HostBuffer,
        dout: &HostBuffer,
        tokens: &HostBuffer,
    ) {
        self.step("embedding_to_weights", |team| {
            sized(&[s.rows, s.sequence, s.vocabulary, s.hidden])?;
            let dtable = dtable.floats_mut("dtable", s.vocabulary * s.hidden)?;
            let dpositions = dpositions.floats_mut("dpositions", s.sequence * s.hidden)?;
            let tokens = tokens.ids("tokens", s.rows, s.vocabulary)?;
            embedding::to_weights(team, s, dtable, dpositions, dout.floats("dout", s.rows * s.hidden)?, tokens);
            Ok(())
        });
    }

    fn cross_entropy(&mut self, s: Rows, losses: &mut HostBuffer, logits: &mut HostBuffer, targets: &HostBuffer) {
        self.step("cross_entropy", |team| {
            sized(&[s.rows, s.cols])?;
            let losses = losses.floats_mut("losses", s.rows)?;
            let targets = targets.ids("targets", s.rows, s.cols)?;
            cross_entropy::loss_and_gradient(team, s, losses, logits.floats_mut("logits", s.len())?, targets);
            Ok(())
        });
    }

    fn adamw(
        &mut self,
        len: usize,
        param: &mut HostBuffer,
        master: Option<&mut HostBuffer>,
        grad: &HostBuffer,
        m: &mut HostBuffer,
        v: &mut HostBuffer,
        config: AdamW,
    ) {
        self.step("adamw", |team| {
            if master.is_some() {
                return Err(BufferMisfit("parameters are f32 already and have no fp32 master: pass `None`".into()));
            }
            let (param, grad) = (param.floats_mut("param", len)?, grad.floats("grad", len)?);
            optimizer::adamw(team, param, grad, m.floats_mut("m", len)?, v.floats_mut("v", len)?, config);
            Ok(())
        });
    }

    fn conv_forward(
        &mut self,
        s: Conv,
        y: &mut HostBuffer,
        x: &HostBuffer,
        w: &HostBuffer,
        workspace: &mut HostBuffer,
    ) {
        self.step("conv_forward", |team| {
            check_conv(s)?;
            let (y, x) = (y.floats_mut("y", s.out_len())?, x.floats("x", s.in_len())?);
            let workspace = workspace.floats_mut("workspace", s.workspace_len())?;
            conv::forward(team, s, y, x, w.floats("w", s.weight_len())?, workspace);
            Ok(())
        });
    }

    fn conv_to_inputs(
        &mut self,
        s: Conv,
        dx: &mut HostBuffer,
        dy: &HostBuffer,
        w: &HostBuffer,
        workspace: &mut HostBuffer,
    ) {
        self.step("conv_to_inputs", |team| {
            check_conv(s)?;
            let (dx, dy) = (dx.floats_mut("dx", s.in_len())?, dy.floats("dy", s.out_len())?);
            let workspace = workspace.floats_mut("workspace", s.workspace_len())?;
            conv::to_inputs(team, s, dx, dy, w.floats("w", s.weight_len())?, workspace);
            Ok(())
        });
    }

    fn conv_to_weights(
        &mut self,
        s: Conv,
        dw: &mut HostBuffer,
        dy: &HostBuffer,
        x: &HostBuffer,
        workspace: &mut HostBuffer,
    ) {
        self.step("conv_to_weights", |team| {
            check_conv(s)?;
            let (dy, x) = (dy.floats("dy", s.out_len())?, x.floats("x", s.in_len())?);
            let workspace = workspace.floats_mut("workspace", s.workspace_len())?;
            conv::to_weights(team, s, dw.floats_mut("dw", s.weight_len())?, dy, x, workspace);
            Ok(())
        });
    }

    fn groupnorm_forward(
        &mut self,
        s: GroupNorm,
        y: &mut HostBuffer,
        mean: &mut HostBuffer,
        rstd: &mut HostBuffer,
        x: &HostBuffer,
        gamma: &HostBuffer,
        beta: &HostBuffer,
    ) {
        self.step("groupnorm_forward", |team| {
            check_groupnorm(s)?;
            groupnorm::forward(
                team,
                s,
                y.floats_mut("y", s.len())?,
                mean.floats_mut("mean", s.stats_len())?,
                rstd.floats_mut("rstd", s.stats_len())?,
                x.floats("x", s.len())?,
                gamma.floats("gamma", s.channels)?,
                beta.floats("beta", s.channels)?,
            );
            Ok(())
        });
    }

    fn groupnorm_to_inputs(
        &mut self,
        s: GroupNorm,
        dx: &mut HostBuffer,
        dy: &HostBuffer,
        x: &HostBuffer,
        gamma: &HostBuffer,
        stats: RowStats<'_, HostBuffer>,
    ) {
        self.step("groupnorm_to_inputs", |team| {
            check_groupnorm(s)?;
            groupnorm::to_inputs(
                team,
                s,
                dx.floats_mut("dx", s.len())?,
                dy.floats("dy", s.len())?,
                x.floats("x", s.len())?,
                gamma.floats("gamma", s.channels)?,
                stats.mean.floats("mean", s.stats_len())?,
                stats.rstd.floats("rstd", s.stats_len())?,
            );
            Ok(())
        });
    }

    fn groupnorm_to_weights(
        &mut self,
        s: GroupNorm,
        dgamma: &mut HostBuffer,
        dbeta: &mut HostBuffer,
        dy: &HostBuffer,
        x: &HostBuffer,
        stats: RowStats<'_, HostBuffer>,
    ) {
        self.step("groupnorm_to_weights", |team| {
            check_groupnorm(s)?;
            groupnorm::to_weights(
                team,
                s,
                dgamma.floats_mut("dgamma", s.channels)?,
                dbeta.floats_mut("dbeta", s.channels)?,
                dy.floats("dy", s.len())?,
                x.floats("x", s.len())?,
                stats.mean.floats("mean", s.stats_len())?,
                stats.rstd.floats("rstd", s.stats_len())?,
            );
            Ok(())
        });
    }

    fn relu_forward(&mut self, len: usize, y: &mut HostBuffer, x: &HostBuffer) {
        self.step("relu_forward", |team| {
            activation::relu_forward(team, y.floats_mut("y", len)?, x.floats("x", len)?);
            Ok(())
        });
    }

    fn relu_backward(&mut self, len: usize, dx: &mut HostBuffer, dy: &HostBuffer, y: &HostBuffer) {
        self.step("relu_backward", |team| {
            let dx = dx.floats_mut("dx", len)?;
            activation::relu_backward(team, dx, dy.floats("dy", len)?, y.floats("y", len)?);
            Ok(())
        });
    }

    fn average_pool_forward(&mut self, s: Pool, y: &mut HostBuffer, x: &HostBuffer) {
        self.step("average_pool_forward", |team| {
            sized(&[s.batch, s.positions, s.channels])?;
            let y = y.floats_mut("y", s.batch * s.channels)?;
            pool::forward(team, s, y, x.floats("x", s.batch * s.positions * s.channels)?);
            Ok(())
        });
    }

    fn average_pool_backward(&mut self, s: Pool, dx: &mut HostBuffer, dy: &HostBuffer) {
        self.step("average_pool_backward", |team| {
            sized(&[s.batch, s.positions, s.channels])?;
            let dx = dx.floats_mut("dx", s.batch * s.positions * s.channels)?;
            pool::backward(team, s, dx, dy.floats("dy", s.batch * s.channels)?);
            Ok(())
        });
    }

    fn lstm_cell_forward(
        &mut self,
        s: LstmCell,
        h: &mut HostBuffer,
        c: &mut HostBuffer,
        gates: &mut HostBuffer,
        c_prev: &HostBuffer,
    ) {
        self.step("lstm_cell_forward", |team| {
            sized(&[4, s.rows, s.hidden])?;
            let len = s.rows * s.hidden;
            let (h, c) = (h.floats_mut("h", len)?, c.floats_mut("c", len)?);
            lstm::forward(team, s, h, c, gates.floats_mut("gates", 4 * len)?, c_prev.floats("c_prev", len)?);
            Ok(())
        });
    }

    fn lstm_cell_backward(
        &mut self,
        s: LstmCell,
        dgates: &mut HostBuffer,
        dc: &mut HostBuffer,
        dh: &HostBuffer,
        gates: &HostBuffer,
        c: &HostBuffer,
        c_prev: &HostBuffer,
    ) {
        self.step("lstm_cell_backward", |team| {
            sized(&[4, s.rows, s.hidden])?;
            let len = s.rows * s.hidden;
            lstm::backward(
                team,
                s,
                dgates.floats_mut("dgates", 4 * len)?,
                dc.floats_mut("dc", len)?,
                dh.floats("dh", len)?,
                gates.floats("gates", 4 * len)?,
                c.floats("c", len)?,
                c_prev.floats("c_prev", len)?,
            );
            Ok(())
        });
    }

    fn sgd(&mut self, len: usize, param: &mut HostBuffer, grad: &HostBuffer, velocity: &mut HostBuffer, config: Sgd) {
        self.step("sgd", |team| {
            let (param, grad) = (param.floats_mut("param", len)?, grad.floats("grad", len)?);
            optimizer::sgd(team, param, grad, velocity.floats_mut("velocity", len)?, config);
            Ok(())
        });
    }
}

fn same_length(dst: &HostBuffer, len: usize) -> Result<()> {
    if dst.len() == len {
        return Ok(());
    }
    Err(Error::input(
        format!("{len} values do not fill a buffer of {} elements", dst.len()),
        "write exactly as many as were allocated",
    ))
}

fn wrong_kind(misfit: BufferMisfit) -> Error {
    Error::input(format!("write: {}", misfit.0), "use `write` for floats and `write_ids` for identifiers")
}
