//! One operation by itself, with buffers of its own: what the cost model's single-operation cases run.
//!
//! A case makes one, or several in turn where the cache is to be cold.

use super::builder::Builder;
use crate::ops::work::{Epilogue, Operation, Product};
use crate::ops::{
    AdamW, Attention, DType, Dropout, Embedding, ForwardEpilogue, InputEpilogue, Linear, Ops, ResidualLayernorm,
    RowStats, Rows, WeightEpilogue,
};
use crate::stats::SplitMix;
use crate::{Error, Result};

/// Vocabulary that the tokens of a single embedding are drawn from.
pub const VOCABULARY: usize = 4096;

/// A tenth is dropped, as GPT-3's and Megatron's training does.
const DROPOUT: Dropout = Dropout { probability: 0.1, seed: 0x5eed_0d20_9007_1a2b, offset: (1 << 32) - 2 };

/// One operation with the buffers that it reads and writes.
pub struct Single<O: Ops> {
    operation: Operation,
    /// Written by the operation (some also read: accumulated gradients, logits, parameters and their moments).
    outputs: Vec<O::Buffer>,
    inputs: Vec<O::Buffer>,
}

impl<O: Ops> Single<O> {
    /// Makes the buffers with random inputs from the seed, rounded to `rounding`; what a backward pass needs of its
    /// forward pass is computed. An error where a product has the epilogue of another direction, or memory is lacking.
    pub fn new(ops: &mut O, operation: Operation, rounding: DType, seed: u64) -> Result<Self> {
        let mut make = Maker { builder: Builder::new(ops, rounding, seed), ids: SplitMix(!seed) };
        let (outputs, inputs) = make.buffers(operation)?;
        let single = Single { operation, outputs, inputs };
        if !single.runs() {
            return Err(unimplemented(operation));
        }
        Ok(single)
    }

    /// What the operation has computed, in a fixed order: what a check compares. Workspaces and buffers that the
    /// operation leaves alone are not among them.
    pub fn results(&self) -> &[O::Buffer] {
        let computed = match self.operation {
            Operation::Linear { product: Product::Forward, epilogue, .. } if epilogue != Epilogue::BiasGelu => 1,
            Operation::Linear { product: Product::ToWeights, epilogue: Epilogue::None, .. } => 1,
            Operation::AttentionBackward(_) => 1,
            _ => self.outputs.len(),
        };
        &self.outputs[..computed]
    }

    /// The buffers that the operation reads, in the order in which its run names them.
    pub fn inputs(&self) -> &[O::Buffer] {
        &self.inputs
    }

    /// The operation that [`Single::run`] asks for, with its shape.
    pub const fn operation(&self) -> &Operation {
        &self.operation
    }

    /// Whether the product's epilogue belongs to its direction, and attention is the kernels' form.
    fn runs(&self) -> bool {
        if let Operation::AttentionForward(a) | Operation::AttentionBackward(a) = self.operation {
            return a.causal && a.kv_heads == a.heads && a.context == 1;
        }
        let Operation::Linear { product, epilogue, .. } = self.operation else { return true };
        matches!(
            (product, epilogue),
            (_, Epilogue::None)
                | (Product::Forward, Epilogue::Bias | Epilogue::BiasGelu)
                | (Product::ToInputs, Epilogue::GeluBackward)
                | (Product::ToWeights, Epilogue::BiasGradient)
        )
    }

    /// Asks the device for the operation once, on these buffers; errors surface at [`Ops::synchronize`].
    pub fn run(&mut self, ops: &mut O) {
        match self.operation {
            Operation::Linear { product: Product::Forward, shape, epilogue } => self.forward(ops, shape, epilogue),
            Operation::Linear { product: Product::ToInputs, shape, epilogue } => {
                self.backward_input(ops, shape, epilogue)
            }
            Operation::Linear { product: Product::ToWeights, shape, epilogue } => {
                self.backward_weight(ops, shape, epilogue);
            }
            Operation::AttentionForward(_) | Operation::AttentionBackward(_) => self.attention(ops),
            Operation::LayernormForward(_)
            | Operation::LayernormToInputs(_)
            | Operation::LayernormToWeights(_)
            | Operation::ResidualLayernorm(_) => self.layernorm(ops),
            Operation::GeluForward { .. }
            | Operation::GeluBackward { .. }
            | Operation::Residual { .. }
            | Operation::Dropout { .. }
            | Operation::CrossEntropy(_)
            | Operation::EmbeddingForward(_)
            | Operation::EmbeddingToWeights(_)
            | Operation::Adamw { .. } => self.streaming(ops),
            // Refused when it was made.
            Operation::RmsnormForward(_)
            | Operation::RmsnormToInputs(_)
            | Operation::RmsnormToWeights(_)
            | Operation::RotaryForward { .. }
            | Operation::RotaryBackward { .. }
            | Operation::SwigluForward { .. }
            | Operation::SwigluBackward { .. }
            | Operation::SoftmaxForward { .. }
            | Operation::SoftmaxBackward { .. }
            | Operation::MaskedDropout { .. }
            | Operation::BiasDropoutResidual { .. }
            | Operation::BiasGradient { .. }
            | Operation::Copy { .. }
            | Operation::BatchedProduct { .. } => {}
        }
    }

    fn forward(&mut self, ops: &mut O, shape: Linear, epilogue: Epilogue) {
        let ([y, pre], [x, w, bias]) = (&mut self.outputs[..], &self.inputs[..]) else {
            other_buffers(&self.operation)
        };
        let epilogue = match epilogue {
            Epilogue::Bias => ForwardEpilogue::Bias(bias),
            Epilogue::BiasGelu => ForwardEpilogue::BiasGelu { bias, pre },
            _ => ForwardEpilogue::None,
        };
        ops.linear_forward(shape, y, x, w, epilogue);
    }

    fn backward_input(&mut self, ops: &mut O, shape: Linear, epilogue: Epilogue) {
        let ([dx], [dy, w, pre]) = (&mut self.outputs[..], &self.inputs[..]) else { other_buffers(&self.operation) };
        let gelu = epilogue == Epilogue::GeluBackward;
        let epilogue = if gelu { InputEpilogue::Gelu { pre } } else { InputEpilogue::None };
        ops.linear_to_inputs(shape, dx, dy, w, epilogue);
    }

    fn backward_weight(&mut self, ops: &mut O, shape: Linear, epilogue: Epilogue) {
        let ([dw, dbias], [dy, x]) = (&mut self.outputs[..], &self.inputs[..]) else { other_buffers(&self.operation) };
        let bias = epilogue == Epilogue::BiasGradient;
        let epilogue = if bias { WeightEpilogue::Bias { dbias } } else { WeightEpilogue::None };
        ops.linear_to_weights(shape, dw, dy, x, epilogue);
    }

    fn attention(&mut self, ops: &mut O) {
        match (self.operation, &mut self.outputs[..], &self.inputs[..]) {
            (Operation::AttentionForward(a), [out, lse], [qkv]) => ops.attention_forward(a, out, lse, qkv),
            (Operation::AttentionBackward(a), [dqkv, workspace], [dout, qkv, out, lse]) => {
                ops.attention_backward(a, dqkv, dout, qkv, out, lse, workspace);
            }
            (operation, ..) => other_buffers(&operation),
        }
    }

    fn layernorm(&mut self, ops: &mut O) {
        match (self.operation, &mut self.outputs[..], &self.inputs[..]) {
            (Operation::LayernormForward(r), [y, mean, rstd], [x, gamma, beta]) => {
                ops.layernorm_forward(r, y, mean, rstd, x, gamma, beta);
            }
            (Operation::ResidualLayernorm(r), [sum, y, mean, rstd], [a, b, gamma, beta]) => {
                ops.residual_layernorm(r, ResidualLayernorm { sum, y, mean, rstd }, a, b, gamma, beta);
            }
            (Operation::LayernormToInputs(r), [dx], [dy, skip, x, gamma, mean, rstd]) => {
                ops.layernorm_to_inputs(r, dx, dy, x, gamma, RowStats { mean, rstd }, Some(skip));
            }
            (Operation::LayernormToWeights(r), [dgamma, dbeta], [dy, x, mean, rstd]) => {
                ops.layernorm_to_weights(r, dgamma, dbeta, dy, x, RowStats { mean, rstd });
            }
            (operation, ..) => other_buffers(&operation),
        }
    }

    fn streaming(&mut self, ops: &mut O) {
        match (self.operation, &mut self.outputs[..], &self.inputs[..]) {
            (Operation::GeluForward { len }, [y], [x]) => ops.gelu_forward(len, y, x),
            (Operation::GeluBackward { len }, [dx], [dy, x]) => ops.gelu_backward(len, dx, dy, x),
            (Operation::Residual { len }, [out], [a, b]) => ops.residual(len, out, a, b),
            (Operation::Dropout { len }, [y], [x]) => ops.dropout(len, y, x, DROPOUT),
            (Operation::CrossEntropy(r), [losses, logits], [targets]) => ops.cross_entropy(r, losses, logits, targets),
            (Operation::EmbeddingForward(r), [out], [tokens, table, positions]) => {
                ops.embedding_forward(embedding(r), out, tokens, table, positions);
            }
            (Operation::EmbeddingToWeights(r), [dtable, dpositions], [dout, tokens]) => {
                ops.embedding_to_weights(embedding(r), dtable, dpositions, dout, tokens);
            }
            (Operation::Adamw { len }, [param, m, v], [grad]) => {
                ops.adamw(len, param, None, grad, m, v, AdamW::default());
            }
            (Operation::Adamw { len }, [param, m, v, master], [grad]) => {
                ops.adamw(len, param, Some(master), grad, m, v, AdamW::default());
            }
            (operation, ..) => other_buffers(&operation),
        }
    }
}

/// The match that ends here makes an operation's buffers in one place and takes them apart in another: what is missing
/// must not be timed as if it were there.
fn other_buffers(operation: &Operation) -> ! {
    unreachable!("{operation:?} was made with other buffers than it runs on")
}

/// Every row a position of its own: the largest table of positions the rows can ask for.
const fn embedding(r: Rows) -> Embedding {
    Embedding { rows: r.rows, sequence: r.rows, vocabulary: VOCABULARY, hidden: r.cols }
}

type Buffers<B> = (Vec<B>, Vec<B>);

/// Makes the buffers of an operation: those it writes, those it reads, in the order the runs above name them.
struct Maker<'a, O: Ops> {
    builder: Builder<'a, O>,
    ids: SplitMix,
}

impl<O: Ops> Maker<'_, O> {
    fn random(&mut self, len: usize) -> Result<O::Buffer> {
        self.builder.normal(len, 0.0, 1.0)
    }

    fn tokens(&mut self, len: usize, bound: usize) -> Result<O::Buffer> {
        let ids: Vec<u32> = (0..len).map(|_| self.ids.below(bound) as u32).collect();
        self.builder.ids(&ids)
    }

    fn buffers(&mut self, operation: Operation) -> Result<Buffers<O::Buffer>> {
        match operation {
            Operation::Linear { product, shape, .. } => self.linear(product, shape),
            Operation::AttentionForward(a) => {
                let (out, lse) = self.attention_outputs(a)?;
                Ok((vec![out, lse], vec![self.random(3 * a.rows() * a.width())?]))
            }
            Operation::AttentionBackward(a) => self.attention_backward(a),
            Operation::LayernormForward(r) => self.layernorm(r),
            Operation::LayernormToInputs(r) => {
                let (mut out, mut read) = self.layernorm(r)?;
                let (rstd, mean, dx) = (take(&mut out)?, take(&mut out)?, take(&mut out)?);
                let (_, gamma, x) = (take(&mut read)?, take(&mut read)?, take(&mut read)?);
                Ok((vec![dx], vec![self.random(r.len())?, self.random(r.len())?, x, gamma, mean, rstd]))
            }
            Operation::LayernormToWeights(r) => {
                let (mut out, mut read) = self.layernorm(r)?;
                let (rstd, mean) = (take(&mut out)?, take(&mut out)?);
                let x = read.swap_remove(0);
                let gradients = vec![self.builder.zeros(r.cols)?, self.builder.zeros(r.cols)?];
                Ok((gradients, vec![self.random(r.len())?, x, mean, rstd]))
            }
            Operation::ResidualLayernorm(r) => {
                let (a, b) = (self.random(r.len())?, self.random(r.len())?);
                let (gamma, beta) = (self.random(r.cols)?, self.random(r.cols)?);
                let (sum, y) = (self.builder.floats(r.len())?, self.builder.floats(r.len())?);
                let (mean, rstd) = (self.builder.wide(r.rows)?, self.builder.wide(r.rows)?);
                Ok((vec![sum, y, mean, rstd], vec![a, b, gamma, beta]))
            }
            Operation::GeluForward { len } | Operation::Dropout { len } => {
                Ok((vec![self.builder.floats(len)?], vec![self.random(len)?]))
            }
            Operation::GeluBackward { len } | Operation::Residual { len } => {
                Ok((vec![self.builder.floats(len)?], vec![self.random(len)?, self.random(len)?]))
            }
            Operation::CrossEntropy(r) => {
                let outputs = vec![self.builder.wide(r.rows)?, self.random(r.len())?];
                Ok((outputs, vec![self.tokens(r.rows, r.cols)?]))
            }
            Operation::EmbeddingForward(r) => {
                let (tokens, table) = (self.tokens(r.rows, VOCABULARY)?, self.random(VOCABULARY * r.cols)?);
                Ok((vec![self.builder.floats(r.len())?], vec![tokens, table, self.random(r.len())?]))
            }
            Operation::EmbeddingToWeights(r) => {
                let outputs = vec![self.builder.zeros(VOCABULARY * r.cols)?, self.builder.zeros(r.len())?];
                Ok((outputs, vec![self.random(r.len())?, self.tokens(r.rows, VOCABULARY)?]))
            }
            Operation::Adamw { len } => self.adamw(len),
            // No device has these yet: a cost model prices them by their bytes.
            Operation::RmsnormForward(_)
            | Operation::RmsnormToInputs(_)
            | Operation::RmsnormToWeights(_)
            | Operation::RotaryForward { .. }
            | Operation::RotaryBackward { .. }
            | Operation::SwigluForward { .. }
            | Operation::SwigluBackward { .. }
            | Operation::SoftmaxForward { .. }
            | Operation::SoftmaxBackward { .. }
            | Operation::MaskedDropout { .. }
            | Operation::BiasDropoutResidual { .. }
            | Operation::BiasGradient { .. }
            | Operation::Copy { .. }
            | Operation::BatchedProduct { .. } => Err(unimplemented(operation)),
        }
    }

    fn linear(&mut self, product: Product, shape: Linear) -> Result<Buffers<O::Buffer>> {
        let (x, w, y) = (shape.rows * shape.inputs, shape.outputs * shape.inputs, shape.rows * shape.outputs);
        Ok(match product {
            Product::Forward => {
                let outputs = vec![self.builder.zeros(y)?, self.builder.floats(y)?];
                (outputs, vec![self.random(x)?, self.random(w)?, self.random(shape.outputs)?])
            }
            Product::ToInputs => {
                (vec![self.builder.zeros(x)?], vec![self.random(y)?, self.random(w)?, self.random(x)?])
            }
            Product::ToWeights => {
                let outputs = vec![self.builder.zeros(w)?, self.builder.zeros(shape.outputs)?];
                (outputs, vec![self.random(y)?, self.random(x)?])
            }
        })
    }

    fn attention_outputs(&mut self, a: Attention) -> Result<(O::Buffer, O::Buffer)> {
        Ok((self.builder.floats(a.rows() * a.width())?, self.builder.wide(a.lse_len())?))
    }

    fn attention_backward(&mut self, a: Attention) -> Result<Buffers<O::Buffer>> {
        let len = a.rows() * a.width();
        let (mut out, mut lse) = self.attention_outputs(a)?;
        let (qkv, dout) = (self.random(3 * len)?, self.random(len)?);
        self.builder.ops.attention_forward(a, &mut out, &mut lse, &qkv);
        let outputs = vec![self.builder.floats(3 * len)?, self.builder.wide(a.lse_len())?];
        Ok((outputs, vec![dout, qkv, out, lse]))
    }

    /// A forward normalisation that has run once, so that its statistics are there.
    fn layernorm(&mut self, r: Rows) -> Result<Buffers<O::Buffer>> {
        let (x, gamma, beta) = (self.random(r.len())?, self.random(r.cols)?, self.random(r.cols)?);
        let mut y = self.builder.floats(r.len())?;
        let (mut mean, mut rstd) = (self.builder.wide(r.rows)?, self.builder.wide(r.rows)?);
        self.builder.ops.layernorm_forward(r, &mut y, &mut mean, &mut rstd, &x, &gamma, &beta);
        Ok((vec![y, mean, rstd], vec![x, gamma, beta]))
    }

    fn adamw(&mut self, len: usize) -> Result<Buffers<O::Buffer>> {
        let (parameter, gradient) = (self.random(len)?, self.random(len)?);
        let mut wide = vec![self.builder.wide(len)?, self.builder.wide(len)?];
        wide.iter_mut().for_each(|w| self.builder.ops.zero(w));
        if self.builder.ops.dtype().bytes() < DType::F32.bytes() {
            let mut master = self.builder.wide(len)?;
            let values = self.builder.ops.read(&parameter)?;
            self.builder.ops.write(&mut master, &values)?;
            wide.push(master);
        }
        Ok((std::iter::once(parameter).chain(wide).collect(), vec![gradient]))
    }
}

/// The last buffer of a list that this file filled itself.
fn unimplemented(operation: Operation) -> Error {
    let what = format!("{operation:?} is not an operation with an implementation");
    Error::input(
        what,
        "combine a product only with the epilogues of its direction, and take causal attention over as many heads of keys as of queries",
    )
}

fn take<B>(buffers: &mut Vec<B>) -> Result<B> {
    buffers.pop().ok_or_else(|| Error::bug("an operation lacks a buffer"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::reference::Reference;

    #[test]
    fn an_epilogue_of_another_direction_is_refused() {
        let shape = Linear::new(2, 3, 4);
        let product = |product, epilogue| Operation::Linear { product, shape, epilogue };
        for wrong in [
            product(Product::Forward, Epilogue::GeluBackward),
            product(Product::ToInputs, Epilogue::BiasGradient),
            product(Product::ToWeights, Epilogue::BiasGelu),
        ] {
            assert!(Single::new(&mut Reference::new(), wrong, DType::F32, 1).is_err(), "{wrong:?}");
        }
    }

    /// Everything an operation says it has computed is written: nothing of the poison is left.
    #[test]
    fn results_hold_no_poison() {
        let (rows, a) = (Rows { rows: 3, cols: 5 }, Attention::new(1, 2, 3, 2));
        let product = |product, epilogue| Operation::Linear { product, shape: Linear::new(2, 3, 4), epilogue };
        for operation in [
            product(Product::Forward, Epilogue::None),
            product(Product::Forward, Epilogue::BiasGelu),
            product(Product::ToInputs, Epilogue::GeluBackward),
            product(Product::ToWeights, Epilogue::None),
            product(Product::ToWeights, Epilogue::BiasGradient),
            Operation::AttentionForward(a),
            Operation::AttentionBackward(a),
            Operation::LayernormForward(rows),
            Operation::LayernormToInputs(rows),
            Operation::LayernormToWeights(rows),
            Operation::GeluForward { len: 7 },
            Operation::GeluBackward { len: 7 },
            Operation::Residual { len: 7 },
            Operation::ResidualLayernorm(rows),
            Operation::Dropout { len: 7 },
            Operation::CrossEntropy(rows),
            Operation::EmbeddingForward(rows),
            Operation::EmbeddingToWeights(rows),
            Operation::Adamw { len: 7 },
        ] {
            let mut ops = Reference::new();
            let mut single = Single::new(&mut ops, operation, DType::F32, 1).unwrap();
            single.run(&mut ops);
            for result in single.results() {
                let values = ops.read(result).unwrap();
                assert!(!values.is_empty() && values.iter().all(|v| v.is_finite()), "{operation:?}");
                assert!(values.iter().any(|v| *v != 0.0), "{operation:?} wrote nothing");
            }
        }
    }
}
