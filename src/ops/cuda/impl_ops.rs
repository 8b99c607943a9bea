//! [`Ops`] for [`Cuda`]: every method hands its operands to the file of its operation and keeps what went wrong for
//! [`Ops::synchronize`].

use super::{Cuda, CudaBuffer};
use crate::Result;
use crate::ops::{
    AdamW, Attention, Conv, DType, Dropout, Embedding, ForwardEpilogue, GroupNorm, InputEpilogue, Linear, LstmCell,
    Ops, Pool, ResidualLayernorm, RowStats, Rows, Sgd, WeightEpilogue,
};

impl Ops for Cuda {
    type Buffer = CudaBuffer;

    fn dtype(&self) -> DType {
        self.data_type()
    }

    fn alloc(&mut self, len: usize, dtype: DType) -> Result<CudaBuffer> {
        self.allocate(len, dtype)
    }

    fn write(&mut self, dst: &mut CudaBuffer, values: &[f64]) -> Result<()> {
        self.write_floats(dst, values)
    }

    fn write_ids(&mut self, dst: &mut CudaBuffer, ids: &[u32]) -> Result<()> {
        self.write_identifiers(dst, ids)
    }

    fn read(&mut self, src: &CudaBuffer) -> Result<Vec<f64>> {
        self.copy_out(src)
    }

    fn synchronize(&mut self) -> Result<()> {
        self.wait()
    }

    fn zero(&mut self, dst: &mut CudaBuffer) {
        let outcome = self.clear(dst);
        self.keep(outcome);
    }

    fn linear_forward(
        &mut self,
        shape: Linear,
        y: &mut CudaBuffer,
        x: &CudaBuffer,
        w: &CudaBuffer,
        epilogue: ForwardEpilogue<'_, CudaBuffer>,
    ) {
        let outcome = self.try_linear_forward(shape, y, x, w, epilogue);
        self.keep(outcome);
    }

    fn linear_to_inputs(
        &mut self,
        shape: Linear,
        dx: &mut CudaBuffer,
        dy: &CudaBuffer,
        w: &CudaBuffer,
        epilogue: InputEpilogue<'_, CudaBuffer>,
    ) {
        let outcome = self.try_linear_to_inputs(shape, dx, dy, w, epilogue);
        self.keep(outcome);
    }

    fn linear_to_weights(
        &mut self,
        shape: Linear,
        dw: &mut CudaBuffer,
        dy: &CudaBuffer,
        x: &CudaBuffer,
        epilogue: WeightEpilogue<'_, CudaBuffer>,
    ) {
        let outcome = self.try_linear_to_weights(shape, dw, dy, x, epilogue);
        self.keep(outcome);
    }

    fn layernorm_forward(
        &mut self,
        shape: Rows,
        y: &mut CudaBuffer,
        mean: &mut CudaBuffer,
        rstd: &mut CudaBuffer,
        x: &CudaBuffer,
        gamma: &CudaBuffer,
        beta: &CudaBuffer,
    ) {
        let outcome = self.try_layernorm_forward(shape, y, mean, rstd, x, gamma, beta);
        self.keep(outcome);
    }

    fn layernorm_to_inputs(
        &mut self,
        shape: Rows,
        dx: &mut CudaBuffer,
        dy: &CudaBuffer,
        x: &CudaBuffer,
        gamma: &CudaBuffer,
        stats: RowStats<'_, CudaBuffer>,
        residual: Option<&CudaBuffer>,
    ) {
        let outcome = self.try_layernorm_to_inputs(shape, dx, dy, x, gamma, stats, residual);
        self.keep(outcome);
    }

    fn layernorm_to_weights(
        &mut self,
        shape: Rows,
        dgamma: &mut CudaBuffer,
        dbeta: &mut CudaBuffer,
        dy: &CudaBuffer,
        x: &CudaBuffer,
        stats: RowStats<'_, CudaBuffer>,
    ) {
        let outcome = self.try_layernorm_to_weights(shape, dgamma, dbeta, dy, x, stats);
        self.keep(outcome);
    }

    fn attention_forward(&mut self, shape: Attention, out: &mut CudaBuffer, lse: &mut CudaBuffer, qkv: &CudaBuffer) {
        let outcome = self.try_attention_forward(shape, out, lse, qkv);
        self.keep(outcome);
    }

    fn attention_backward(
        &mut self,
        shape: Attention,
        dqkv: &mut CudaBuffer,
        dout: &CudaBuffer,
        qkv: &CudaBuffer,
        out: &CudaBuffer,
        lse: &CudaBuffer,
        workspace: &mut CudaBuffer,
    ) {
        let outcome = self.try_attention_backward(shape, dqkv, dout, qkv, out, lse, workspace);
        self.keep(outcome);
    }

    fn gelu_forward(&mut self, len: usize, y: &mut CudaBuffer, x: &CudaBuffer) {
        let outcome = self.try_gelu_forward(len, y, x);
        self.keep(outcome);
    }

    fn gelu_backward(&mut self, len: usize, dx: &mut CudaBuffer, dy: &CudaBuffer, x: &CudaBuffer) {
        let outcome = self.try_gelu_backward(len, dx, dy, x);
        self.keep(outcome);
    }

    fn residual(&mut self, len: usize, out: &mut CudaBuffer, a: &CudaBuffer, b: &CudaBuffer) {
        let outcome = self.try_residual(len, out, a, b);
        self.keep(outcome);
    }

    fn residual_layernorm(
        &mut self,
        shape: Rows,
        out: ResidualLayernorm<'_, CudaBuffer>,
        a: &CudaBuffer,
        b: &CudaBuffer,
        gamma: &CudaBuffer,
        beta: &CudaBuffer,
    ) {
        let outcome = self.try_residual_layernorm(shape, out, a, b, gamma, beta);
        self.keep(outcome);
    }

    fn dropout(&mut self, len: usize, y: &mut CudaBuffer, x: &CudaBuffer, dropout: Dropout) {
        let outcome = self.try_dropout(len, y, x, dropout);
        self.keep(outcome);
    }

    fn embedding_forward(
        &mut self,
        shape: Embedding,
        out: &mut CudaBuffer,
        tokens: &CudaBuffer,
        table: &CudaBuffer,
        positions: &CudaBuffer,
    ) {
        let outcome = self.try_embedding_forward(shape, out, tokens, table, positions);
        self.keep(outcome);
    }

    fn embedding_to_weights(
        &mut self,
        shape: Embedding,
        dtable: &mut CudaBuffer,
        dpositions: &mut CudaBuffer,
        dout: &CudaBuffer,
        tokens: &CudaBuffer,
    ) {
        let outcome = self.try_embedding_to_weights(shape, dtable, dpositions, dout, tokens);
        self.keep(outcome);
    }

    fn cross_entropy(&mut self, shape: Rows, losses: &mut CudaBuffer, logits: &mut CudaBuffer, targets: &CudaBuffer) {
        let outcome = self.try_cross_entropy(shape, losses, logits, targets);
        self.keep(outcome);
    }

    fn adamw(
        &mut self,
        len: usize,
        param: &mut CudaBuffer,
        master: Option<&mut CudaBuffer>,
        grad: &CudaBuffer,
        m: &mut CudaBuffer,
        v: &mut CudaBuffer,
        config: AdamW,
    ) {
        let outcome = self.try_adamw(len, param, master, grad, m, v, config);
        self.keep(outcome);
    }

    fn conv_forward(
        &mut self,
        shape: Conv,
        y: &mut CudaBuffer,
        x: &CudaBuffer,
        w: &CudaBuffer,
        workspace: &mut CudaBuffer,
    ) {
        let outcome = self.try_conv_forward(shape, y, x, w, workspace);
        self.keep(outcome);
    }

    fn conv_to_inputs(
        &mut self,
        shape: Conv,
        dx: &mut CudaBuffer,
        dy: &CudaBuffer,
        w: &CudaBuffer,
        workspace: &mut CudaBuffer,
    ) {
        let outcome = self.try_conv_to_inputs(shape, dx, dy, w, workspace);
        self.keep(outcome);
    }

    fn conv_to_weights(
        &mut self,
        shape: Conv,
        dw: &mut CudaBuffer,
        dy: &CudaBuffer,
        x: &CudaBuffer,
        workspace: &mut CudaBuffer,
    ) {
        let outcome = self.try_conv_to_weights(shape, dw, dy, x, workspace);
        self.keep(outcome);
    }

    fn groupnorm_forward(
        &mut self,
        shape: GroupNorm,
        y: &mut CudaBuffer,
        mean: &mut CudaBuffer,
        rstd: &mut CudaBuffer,
        x: &CudaBuffer,
        gamma: &CudaBuffer,
        beta: &CudaBuffer,
    ) {
        let outcome = self.try_groupnorm_forward(shape, y, mean, rstd, x, gamma, beta);
        self.keep(outcome);
    }

    fn groupnorm_to_inputs(
        &mut self,
        shape: GroupNorm,
        dx: &mut CudaBuffer,
        dy: &CudaBuffer,
        x: &CudaBuffer,
        gamma: &CudaBuffer,
        stats: RowStats<'_, CudaBuffer>,
    ) {
        let outcome = self.try_groupnorm_to_inputs(shape, dx, dy, x, gamma, stats);
        self.keep(outcome);
    }

    fn groupnorm_to_weights(
        &mut self,
        shape: GroupNorm,
        dgamma: &mut CudaBuffer,
        dbeta: &mut CudaBuffer,
        dy: &CudaBuffer,
        x: &CudaBuffer,
        stats: RowStats<'_, CudaBuffer>,
    ) {
        let outcome = self.try_groupnorm_to_weights(shape, dgamma, dbeta, dy, x, stats);
        self.keep(outcome);
    }

    fn relu_forward(&mut self, len: usize, y: &mut CudaBuffer, x: &CudaBuffer) {
        let outcome = self.try_relu_forward(len, y, x);
        self.keep(outcome);
    }

    fn relu_backward(&mut self, len: usize, dx: &mut CudaBuffer, dy: &CudaBuffer, y: &CudaBuffer) {
        let outcome = self.try_relu_backward(len, dx, dy, y);
        self.keep(outcome);
    }

    fn average_pool_forward(&mut self, shape: Pool, y: &mut CudaBuffer, x: &CudaBuffer) {
        let outcome = self.try_average_pool_forward(shape, y, x);
        self.keep(outcome);
    }

    fn average_pool_backward(&mut self, shape: Pool, dx: &mut CudaBuffer, dy: &CudaBuffer) {
        let outcome = self.try_average_pool_backward(shape, dx, dy);
        self.keep(outcome);
    }

    fn lstm_cell_forward(
        &mut self,
        shape: LstmCell,
        h: &mut CudaBuffer,
        c: &mut CudaBuffer,
        gates: &mut CudaBuffer,
        c_prev: &CudaBuffer,
    ) {
        let outcome = self.try_lstm_cell_forward(shape, h, c, gates, c_prev);
        self.keep(outcome);
    }

    fn lstm_cell_backward(
        &mut self,
        shape: LstmCell,
        dgates: &mut CudaBuffer,
        dc: &mut CudaBuffer,
        dh: &CudaBuffer,
        gates: &CudaBuffer,
        c: &CudaBuffer,
        c_prev: &CudaBuffer,
    ) {
        let outcome = self.try_lstm_cell_backward(shape, dgates, dc, dh, gates, c, c_prev);
        self.keep(outcome);
    }

    fn sgd(&mut self, len: usize, param: &mut CudaBuffer, grad: &CudaBuffer, velocity: &mut CudaBuffer, config: Sgd) {
        let outcome = self.try_sgd(len, param, grad, velocity, config);
        self.keep(outcome);
    }
}
