//! A device that writes down which operations it is asked for and has the f64 device do them.

use crate::Result;
use crate::ops::reference::{Buffer, Reference};
use crate::ops::work::{Epilogue, Operation, Product};
use crate::ops::*;

pub struct Recorder {
    inner: Reference,
    log: Vec<Operation>,
}

impl Recorder {
    pub fn new() -> Self {
        Recorder { inner: Reference::new(), log: Vec::new() }
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
impl Ops for Recorder {
    type Buffer = Buffer;

    fn dtype(&self) -> DType {
        self.inner.dtype()
    }
    fn alloc(&mut self, len: usize, dtype: DType) -> Result<Buffer> {
        self.inner.alloc(len, dtype)
    }
    fn write(&mut self, dst: &mut Buffer, values: &[f64]) -> Result<()> {
        self.inner.write(dst, values)
    }
    fn write_ids(&mut self, dst: &mut Buffer, ids: &[u32]) -> Result<()> {
        self.inner.write_ids(dst, ids)
    }
    fn read(&mut self, src: &Buffer) -> Result<Vec<f64>> {
        self.inner.read(src)
    }
    fn synchronize(&mut self) -> Result<()> {
        self.inner.synchronize()
    }
    fn zero(&mut self, dst: &mut Buffer) {
        self.inner.zero(dst);
    }

    fn linear_forward(
        &mut self,
        shape: Linear,
        y: &mut Buffer,
        x: &Buffer,
        w: &Buffer,
        epilogue: ForwardEpilogue<'_, Buffer>,
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
        dx: &mut Buffer,
        dy: &Buffer,
        w: &Buffer,
        epilogue: InputEpilogue<'_, Buffer>,
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
        dw: &mut Buffer,
        dy: &Buffer,
        x: &Buffer,
        epilogue: WeightEpilogue<'_, Buffer>,
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
        y: &mut Buffer,
        mean: &mut Buffer,
        rstd: &mut Buffer,
        x: &Buffer,
        gamma: &Buffer,
        beta: &Buffer,
    ) {
        self.log.push(Operation::LayernormForward(shape));
        self.inner.layernorm_forward(shape, y, mean, rstd, x, gamma, beta);
    }

    fn layernorm_to_inputs(
        &mut self,
        shape: Rows,
        dx: &mut Buffer,
        dy: &Buffer,
        x: &Buffer,
        gamma: &Buffer,
        stats: RowStats<'_, Buffer>,
        residual: Option<&Buffer>,
    ) {
        assert!(residual.is_some(), "within a layer the skip path joins here");
        self.log.push(Operation::LayernormToInputs(shape));
        self.inner.layernorm_to_inputs(shape, dx, dy, x, gamma, stats, residual);
    }

    fn layernorm_to_weights(
        &mut self,
        shape: Rows,
        dgamma: &mut Buffer,
        dbeta: &mut Buffer,
        dy: &Buffer,
        x: &Buffer,
        stats: RowStats<'_, Buffer>,
    ) {
        self.log.push(Operation::LayernormToWeights(shape));
        self.inner.layernorm_to_weights(shape, dgamma, dbeta, dy, x, stats);
    }

    fn attention_forward(&mut self, shape: Attention, out: &mut Buffer, lse: &mut Buffer, qkv: &Buffer) {
        self.log.push(Operation::AttentionForward(shape));
        self.inner.attention_forward(shape, out, lse, qkv);
    }

    fn attention_backward(
        &mut self,
        shape: Attention,
        dqkv: &mut Buffer,
        dout: &Buffer,
        qkv: &Buffer,
        out: &Buffer,
        lse: &Buffer,
        workspace: &mut Buffer,
    ) {
        self.log.push(Operation::AttentionBackward(shape));
        self.inner.attention_backward(shape, dqkv, dout, qkv, out, lse, workspace);
    }

    fn residual(&mut self, len: usize, out: &mut Buffer, a: &Buffer, b: &Buffer) {
        self.log.push(Operation::Residual { len });
        self.inner.residual(len, out, a, b);
    }

    not_in_a_layer! {
        gelu_forward(usize; &mut Buffer, &Buffer);
        gelu_backward(usize; &mut Buffer, &Buffer, &Buffer);
        embedding_forward(Embedding; &mut Buffer, &Buffer, &Buffer, &Buffer);
        embedding_to_weights(Embedding; &mut Buffer, &mut Buffer, &Buffer, &Buffer);
        cross_entropy(Rows; &mut Buffer, &mut Buffer, &Buffer);
        adamw(usize; &mut Buffer, Option<&mut Buffer>, &Buffer, &mut Buffer, &mut Buffer, AdamW);
        conv_forward(Conv; &mut Buffer, &Buffer, &Buffer, &mut Buffer);
        conv_to_inputs(Conv; &mut Buffer, &Buffer, &Buffer, &mut Buffer);
        conv_to_weights(Conv; &mut Buffer, &Buffer, &Buffer, &mut Buffer);
        groupnorm_forward(GroupNorm; &mut Buffer, &mut Buffer, &mut Buffer, &Buffer, &Buffer, &Buffer);
        groupnorm_to_inputs(GroupNorm; &mut Buffer, &Buffer, &Buffer, &Buffer, RowStats<'_, Buffer>);
        groupnorm_to_weights(GroupNorm; &mut Buffer, &mut Buffer, &Buffer, &Buffer, RowStats<'_, Buffer>);
        relu_forward(usize; &mut Buffer, &Buffer);
        relu_backward(usize; &mut Buffer, &Buffer, &Buffer);
        average_pool_forward(Pool; &mut Buffer, &Buffer);
        average_pool_backward(Pool; &mut Buffer, &Buffer);
        lstm_cell_forward(LstmCell; &mut Buffer, &mut Buffer, &mut Buffer, &Buffer);
        lstm_cell_backward(LstmCell; &mut Buffer, &mut Buffer, &Buffer, &Buffer, &Buffer, &Buffer);
        sgd(usize; &mut Buffer, &Buffer, &mut Buffer, Sgd);
    }
}
