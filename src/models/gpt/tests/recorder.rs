//! A device that writes down which operations it is asked for and has the f64 device do them.

use crate::Result;
use crate::ops::reference::{Reference, ReferenceBuffer};
use crate::ops::work::{Epilogue, Operation, Product};
use crate::ops::*;

pub struct OperationLog {
    inner: Reference,
    log: Vec<Operation>,
}

impl OperationLog {
    pub fn new() -> Self {
        OperationLog { inner: Reference::new(), log: Vec::new() }
    }

    /// What was asked for since the last call.
    pub fn take(&mut self) -> Vec<Operation> {
        self.inner.synchronize().unwrap();
        std::mem::take(&mut self.log)
    }
}

macro_rules! not_in_a_layer {
    ($($name:ident($($shape:ty),*; $($buffer:ty),*);)*) => {
        $(fn $name(&mut self $(, _: $shape)* $(, _: $buffer)*) {
            panic!(concat!(stringify!($name), " is no operation of a layer"));
        })*
    };
}

#[allow(clippy::too_many_arguments)]
impl Ops for OperationLog {
    type Buffer = ReferenceBuffer;

    fn dtype(&self) -> DType {
        self.inner.dtype()
    }
    fn alloc(&mut self, len: usize, dtype: DType) -> Result<ReferenceBuffer> {
        self.inner.alloc(len, dtype)
    }
    fn write(&mut self, dst: &mut ReferenceBuffer, values: &[f64]) -> Result<()> {
        self.inner.write(dst, values)
    }
    fn write_ids(&mut self, dst: &mut ReferenceBuffer, ids: &[u32]) -> Result<()> {
        self.inner.write_ids(dst, ids)
    }
    fn read(&mut self, src: &ReferenceBuffer) -> Result<Vec<f64>> {
        self.inner.read(src)
    }
    fn synchronize(&mut self) -> Result<()> {
        self.inner.synchronize()
    }
    fn zero(&mut self, dst: &mut ReferenceBuffer) {
        self.inner.zero(dst);
    }

    fn linear_forward(
        &mut self,
        shape: Linear,
        y: &mut ReferenceBuffer,
        x: &ReferenceBuffer,
        w: &ReferenceBuffer,
        epilogue: ForwardEpilogue<'_, ReferenceBuffer>,
    ) {
        let kind = match &epilogue {
            ForwardEpilogue::None => Epilogue::None,
            ForwardEpilogue::Bias(_) => Epilogue::Bias,
            ForwardEpilogue::BiasGelu { .. } => Epilogue::BiasGelu,
        };
        self.log.push(Operation::Linear { product: Product::Forward, shape, epilogue: kind });
        self.inner.linear_forward(shape, y, x, w, epilogue);
    }

    fn linear_to_inputs(
        &mut self,
        shape: Linear,
        dx: &mut ReferenceBuffer,
        dy: &ReferenceBuffer,
        w: &ReferenceBuffer,
        epilogue: InputEpilogue<'_, ReferenceBuffer>,
    ) {
        let kind = match &epilogue {
            InputEpilogue::None => Epilogue::None,
            InputEpilogue::Gelu { .. } => Epilogue::GeluBackward,
        };
        self.log.push(Operation::Linear { product: Product::ToInputs, shape, epilogue: kind });
        self.inner.linear_to_inputs(shape, dx, dy, w, epilogue);
    }

    fn linear_to_weights(
        &mut self,
        shape: Linear,
        dw: &mut ReferenceBuffer,
        dy: &ReferenceBuffer,
        x: &ReferenceBuffer,
        epilogue: WeightEpilogue<'_, ReferenceBuffer>,
    ) {
        let kind = match &epilogue {
            WeightEpilogue::None => Epilogue::None,
            WeightEpilogue::Bias { .. } => Epilogue::BiasGradient,
        };
        self.log.push(Operation::Linear { product: Product::ToWeights, shape, epilogue: kind });
        self.inner.linear_to_weights(shape, dw, dy, x, epilogue);
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
        self.log.push(Operation::LayernormForward(shape));
        self.inner.layernorm_forward(shape, y, mean, rstd, x, gamma, beta);
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
        assert!(residual.is_some(), "within a layer the skip path joins here");
        self.log.push(Operation::LayernormToInputs(shape));
        self.inner.layernorm_to_inputs(shape, dx, dy, x, gamma, stats, residual);
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
        self.log.push(Operation::LayernormToWeights(shape));
        self.inner.layernorm_to_weights(shape, dgamma, dbeta, dy, x, stats);
    }

    fn attention_forward(
        &mut self,
        shape: Attention,
        out: &mut ReferenceBuffer,
        lse: &mut ReferenceBuffer,
        qkv: &ReferenceBuffer,
    ) {
        self.log.push(Operation::AttentionForward(shape));
        self.inner.attention_forward(shape, out, lse, qkv);
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
        self.log.push(Operation::AttentionBackward(shape));
        self.inner.attention_backward(shape, dqkv, dout, qkv, out, lse, workspace);
    }

    fn residual(&mut self, len: usize, out: &mut ReferenceBuffer, a: &ReferenceBuffer, b: &ReferenceBuffer) {
        self.log.push(Operation::Residual { len });
        self.inner.residual(len, out, a, b);
    }

    not_in_a_layer! {
        gelu_forward(usize; &mut ReferenceBuffer, &ReferenceBuffer);
        gelu_backward(usize; &mut ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer);
        residual_layernorm(Rows, ResidualLayernorm<'_, ReferenceBuffer>; &ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer);
        dropout(usize; &mut ReferenceBuffer, &ReferenceBuffer, Dropout);
        embedding_forward(Embedding; &mut ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer);
        embedding_to_weights(Embedding; &mut ReferenceBuffer, &mut ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer);
        cross_entropy(Rows; &mut ReferenceBuffer, &mut ReferenceBuffer, &ReferenceBuffer);
        adamw(usize; &mut ReferenceBuffer, Option<&mut ReferenceBuffer>, &ReferenceBuffer, &mut ReferenceBuffer, &mut ReferenceBuffer, AdamW);
        conv_forward(Conv; &mut ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer, &mut ReferenceBuffer);
        conv_to_inputs(Conv; &mut ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer, &mut ReferenceBuffer);
        conv_to_weights(Conv; &mut ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer, &mut ReferenceBuffer);
        groupnorm_forward(GroupNorm; &mut ReferenceBuffer, &mut ReferenceBuffer, &mut ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer);
        groupnorm_to_inputs(GroupNorm; &mut ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer, RowStats<'_, ReferenceBuffer>);
        groupnorm_to_weights(GroupNorm; &mut ReferenceBuffer, &mut ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer, RowStats<'_, ReferenceBuffer>);
        relu_forward(usize; &mut ReferenceBuffer, &ReferenceBuffer);
        relu_backward(usize; &mut ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer);
        average_pool_forward(Pool; &mut ReferenceBuffer, &ReferenceBuffer);
        average_pool_backward(Pool; &mut ReferenceBuffer, &ReferenceBuffer);
        lstm_cell_forward(LstmCell; &mut ReferenceBuffer, &mut ReferenceBuffer, &mut ReferenceBuffer, &ReferenceBuffer);
        lstm_cell_backward(LstmCell; &mut ReferenceBuffer, &mut ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer, &ReferenceBuffer);
        sgd(usize; &mut ReferenceBuffer, &ReferenceBuffer, &mut ReferenceBuffer, Sgd);
    }
}
