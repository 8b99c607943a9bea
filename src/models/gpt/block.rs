//! One transformer layer's parameters, activations and gradients, and the order its operations run in: exactly that of
//! [`LayerShape::operations`], which the cost model adds up.
//!
//! [`super::Layer`] and the small `gpt` hold blocks; input and output gradient are the caller's.

use crate::models::builder::Builder;
use crate::models::pieces::{Dense, Norm, Parameter};
use crate::ops::Ops;
use crate::shape::{LayerShape, Recompute};
use crate::{Error, Result};

/// The parameters, activations and gradients of one transformer layer on one tensor-parallel rank.
pub struct Block<B> {
    shape: LayerShape,
    pub(super) ln1: Norm<B>,
    qkv: Dense<B>,
    projection: Dense<B>,
    pub(super) ln2: Norm<B>,
    fc1: Dense<B>,
    fc2: Dense<B>,
    pub(super) kept: Activations<B>,
    pub(super) flow: Gradients<B>,
}

/// What the forward pass writes, in that order. Widths: H, or W = H/T and F = 4H/T of this rank.
pub(super) struct Activations<B> {
    pub ln1: B,
    /// rows × 3W
    pub qkv: B,
    /// rows × W
    pub attention: B,
    pub lse: B,
    pub projection: B,
    /// x + projection
    pub middle: B,
    pub ln2: B,
    /// rows × F: fc1's result before the GELU
    pub pre: B,
    pub inner: B,
    pub fc2: B,
    pub output: B,
}

/// Gradients of the loss by the activations of the same name. backward_weight reads them, so each has its own buffer.
pub(super) struct Gradients<B> {
    pub pre: B,
    pub ln2: B,
    pub middle: B,
    pub attention: B,
    pub qkv: B,
    pub ln1: B,
    pub x: B,
    /// Row sums of dO·O within the attention's backward pass.
    pub workspace: B,
}

impl<B> Block<B> {
    /// Makes the layer with random parameters, before whose names `prefix` stands; an error where the device has no
    /// memory for it.
    pub fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, prefix: &str, shape: LayerShape) -> Result<Self> {
        let name = |own: &str| format!("{prefix}{own}");
        if !shape.has_implementation() {
            let what = format!("layer {} has parts that no device has", shape.slug());
            return Err(Error::input(
                what,
                "take GPT-3's layer with fused causal attention; `predict` prices the others",
            ));
        }
        Ok(Block {
            shape,
            ln1: Norm::new(builder, &name("ln1"), shape.norm_rows())?,
            qkv: Dense::new(builder, &name("qkv"), shape.qkv(), 1.0)?,
            projection: Dense::new(builder, &name("projection"), shape.projection(), 1.0)?,
            ln2: Norm::new(builder, &name("ln2"), shape.norm_rows())?,
            fc1: Dense::new(builder, &name("fc1"), shape.fc1(), 1.0)?,
            fc2: Dense::new(builder, &name("fc2"), shape.fc2(), 1.0)?,
            kept: Activations::new(builder, &shape)?,
            flow: Gradients::new(builder, &shape)?,
        })
    }

    /// The shape that the layer was made for.
    pub const fn shape(&self) -> &LayerShape {
        &self.shape
    }

    /// The output of the last forward pass, rows × H.
    pub const fn output(&self) -> &B {
        &self.kept.output
    }

    /// The gradient of the loss by the input, dx, rows × H, from the last backward to inputs.
    pub const fn input_gradient(&self) -> &B {
        &self.flow.x
    }

    /// Computes the output from `x`, rows × H.
    pub fn forward<O: Ops<Buffer = B>>(&mut self, ops: &mut O, x: &B) {
        self.attention_half(ops, x);
        self.join_attention(ops, x);
        self.mlp_half(ops);
        self.join_mlp(ops);
    }

    /// Computes dx from dy, after recomputing what the shape does not keep.
    pub fn backward_input<O: Ops<Buffer = B>>(&mut self, ops: &mut O, x: &B, dy: &B) {
        match self.shape.recompute {
            Recompute::None => {}
            Recompute::Selective => self.attention(ops),
            Recompute::Full => self.forward(ops, x),
        }
        self.mlp_half_backward(ops, dy);
        self.join_mlp_backward(ops, dy);
        self.attention_half_backward(ops);
        self.join_attention_backward(ops, x);
    }

    /// Adds to the parameters' gradients, and reads what the last forward and backward to inputs left.
    pub fn backward_weight<O: Ops<Buffer = B>>(&mut self, ops: &mut O, x: &B, dy: &B) {
        self.fc2.backward_weight(ops, dy, &self.kept.inner);
        self.fc1.backward_weight(ops, &self.flow.pre, &self.kept.ln2);
        self.ln2.backward_weight(ops, &self.flow.ln2, &self.kept.middle);
        self.projection.backward_weight(ops, &self.flow.middle, &self.kept.attention);
        self.qkv.backward_weight(ops, &self.flow.qkv, &self.kept.ln1);
        self.ln1.backward_weight(ops, &self.flow.ln1, x);
    }

    // The halves stop where ranks of a tensor-parallel group add up what they have (Shoeybi et al., arXiv 1909.08053):
    // after the projection, after fc2, and going back after fc1 and after qkv.

    pub(super) fn attention_half<O: Ops<Buffer = B>>(&mut self, ops: &mut O, x: &B) {
        self.ln1.forward(ops, &mut self.kept.ln1, x);
        self.qkv.forward(ops, &mut self.kept.qkv, &self.kept.ln1);
        self.attention(ops);
        self.projection.forward(ops, &mut self.kept.projection, &self.kept.attention);
    }

    fn attention<O: Ops<Buffer = B>>(&mut self, ops: &mut O) {
        let kept = &mut self.kept;
        ops.attention_forward(self.shape.attention(), &mut kept.attention, &mut kept.lse, &kept.qkv);
    }

    pub(super) fn join_attention<O: Ops<Buffer = B>>(&mut self, ops: &mut O, x: &B) {
        ops.residual(self.shape.norm_rows().len(), &mut self.kept.middle, x, &self.kept.projection);
    }

    pub(super) fn mlp_half<O: Ops<Buffer = B>>(&mut self, ops: &mut O) {
        self.ln2.forward(ops, &mut self.kept.ln2, &self.kept.middle);
        self.fc1.forward_gelu(ops, &mut self.kept.inner, &mut self.kept.pre, &self.kept.ln2);
        self.fc2.forward(ops, &mut self.kept.fc2, &self.kept.inner);
    }

    pub(super) fn join_mlp<O: Ops<Buffer = B>>(&mut self, ops: &mut O) {
        ops.residual(self.shape.norm_rows().len(), &mut self.kept.output, &self.kept.middle, &self.kept.fc2);
    }

    pub(super) fn mlp_half_backward<O: Ops<Buffer = B>>(&mut self, ops: &mut O, dy: &B) {
        self.fc2.backward_input_gelu(ops, &mut self.flow.pre, dy, &self.kept.pre);
        self.fc1.backward_input(ops, &mut self.flow.ln2, &self.flow.pre);
    }

    pub(super) fn join_mlp_backward<O: Ops<Buffer = B>>(&mut self, ops: &mut O, dy: &B) {
        self.ln2.backward_input(ops, &mut self.flow.middle, &self.flow.ln2, &self.kept.middle, Some(dy));
    }

    pub(super) fn join_attention_backward<O: Ops<Buffer = B>>(&mut self, ops: &mut O, x: &B) {
        self.ln1.backward_input(ops, &mut self.flow.x, &self.flow.ln1, x, Some(&self.flow.middle));
    }

    pub(super) fn attention_half_backward<O: Ops<Buffer = B>>(&mut self, ops: &mut O) {
        let (kept, flow) = (&self.kept, &mut self.flow);
        self.projection.backward_input(ops, &mut flow.attention, &flow.middle);
        ops.attention_backward(
            self.shape.attention(),
            &mut flow.qkv,
            &flow.attention,
            &kept.qkv,
            &kept.attention,
            &kept.lse,
            &mut flow.workspace,
        );
        self.qkv.backward_input(ops, &mut flow.ln1, &flow.qkv);
    }

    /// Every learned tensor in the order of the forward pass: ln1, qkv, projection, ln2, fc1, fc2.
    pub fn parameters(&self) -> Vec<&Parameter<B>> {
        let (ln1, ln2) = (self.ln1.parameters(), self.ln2.parameters());
        let (qkv, projection) = (self.qkv.parameters(), self.projection.parameters());
        [ln1, qkv, projection, ln2, self.fc1.parameters(), self.fc2.parameters()].into_iter().flatten().collect()
    }

    /// Every learned tensor to be changed, in the order of [`Block::parameters`].
    pub fn parameters_mut(&mut self) -> Vec<&mut Parameter<B>> {
        let (ln1, ln2) = (self.ln1.parameters_mut(), self.ln2.parameters_mut());
        let (qkv, projection) = (self.qkv.parameters_mut(), self.projection.parameters_mut());
        let (fc1, fc2) = (self.fc1.parameters_mut(), self.fc2.parameters_mut());
        [ln1, qkv, projection, ln2, fc1, fc2].into_iter().flatten().collect()
    }
}

impl<B> Activations<B> {
    fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, shape: &LayerShape) -> Result<Self> {
        let (rows, h) = (shape.rows() as usize, shape.norm_rows().len());
        let (w, f) = (rows * shape.local_width() as usize, rows * shape.local_inner() as usize);
        Ok(Activations {
            ln1: builder.floats(h)?,
            qkv: builder.floats(3 * w)?,
            attention: builder.floats(w)?,
            lse: builder.wide(shape.attention().lse_len())?,
            projection: builder.floats(h)?,
            middle: builder.floats(h)?,
            ln2: builder.floats(h)?,
            pre: builder.floats(f)?,
            inner: builder.floats(f)?,
            fc2: builder.floats(h)?,
            output: builder.floats(h)?,
        })
    }
}

impl<B> Gradients<B> {
    fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, shape: &LayerShape) -> Result<Self> {
        let (rows, h) = (shape.rows() as usize, shape.norm_rows().len());
        let w = rows * shape.local_width() as usize;
        Ok(Gradients {
            pre: builder.floats(rows * shape.local_inner() as usize)?,
            ln2: builder.floats(h)?,
            middle: builder.floats(h)?,
            attention: builder.floats(w)?,
            qkv: builder.floats(3 * w)?,
            ln1: builder.floats(h)?,
            x: builder.floats(h)?,
            workspace: builder.wide(shape.attention().lse_len())?,
        })
    }
}
