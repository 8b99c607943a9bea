//! The small `gpt`: embedding, a few layers, head, AdamW. Learns which token follows which.

use super::{Block, EmbeddingLayer, Head};
use crate::Result;
use crate::models::builder::Builder;
use crate::models::data::{self, Batch};
use crate::models::network::Network;
use crate::models::pieces::Parameter;
use crate::ops::{self, Ops};
use crate::shape::{LayerShape, Phase};

/// Sizes of the small `gpt`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GptConfig {
    /// Number of layers.
    pub layers: usize,
    /// Number of different tokens.
    pub vocabulary: usize,
    /// Shape of every layer; its micro-batch and sequence are the model's.
    pub layer: LayerShape,
}

impl GptConfig {
    /// FLOPs of one forward and backward pass; of the ends only the head's products count.
    pub fn flop(&self) -> f64 {
        let head = 2.0 * (self.layer.rows() * self.layer.hidden) as f64 * self.vocabulary as f64;
        self.layers as f64 * self.layer.flop(Phase::ForwardBackward) + 3.0 * head
    }
}

/// The small `gpt`: embedding, layers and head with their activations, gradients and data.
pub struct Gpt<B> {
    config: GptConfig,
    embedding: EmbeddingLayer<B>,
    blocks: Vec<Block<B>>,
    head: Head<B>,
    batches: Vec<Batch<B>>,
}

impl<B> Gpt<B> {
    /// Makes the model and its batches; an error where the layer's shape is not valid or the device has no memory for
    /// them.
    pub fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, config: GptConfig) -> Result<Self> {
        config.layer.validate()?;
        let (rows, hidden) = (config.layer.rows() as usize, config.layer.hidden as usize);
        let (sequence, vocabulary) = (config.layer.sequence as usize, config.vocabulary);
        let shape = ops::Embedding { rows, sequence, vocabulary, hidden };
        Ok(Gpt {
            config,
            embedding: EmbeddingLayer::new(builder, shape)?,
            blocks: (0..config.layers)
                .map(|i| Block::new(builder, &format!("layer{i}."), config.layer))
                .collect::<Result<_>>()?,
            head: Head::new(builder, rows, hidden, vocabulary)?,
            batches: data::following_tokens(builder, rows, sequence, vocabulary)?,
        })
    }
}

/// What block `i` reads: the output of the block before it, or of the embedding.
fn input<'a, B>(embedding: &'a EmbeddingLayer<B>, before: &'a [Block<B>]) -> &'a B {
    before.last().map_or(embedding.output(), Block::output)
}

/// The gradient by the output of the last block before `after`.
fn output_gradient<'a, B>(head: &'a Head<B>, after: &'a [Block<B>]) -> &'a B {
    after.first().map_or(head.input_gradient(), Block::input_gradient)
}

impl<O: Ops> Network<O> for Gpt<O::Buffer> {
    fn forward(&mut self, ops: &mut O, batch: usize) {
        let batch = &self.batches[batch % self.batches.len()];
        self.embedding.forward(ops, &batch.inputs[0]);
        for i in 0..self.blocks.len() {
            let (before, rest) = self.blocks.split_at_mut(i);
            rest[0].forward(ops, input(&self.embedding, before));
        }
        self.head.forward(ops, input(&self.embedding, &self.blocks), &batch.targets);
    }

    fn backward(&mut self, ops: &mut O, batch: usize) {
        let last = input(&self.embedding, &self.blocks);
        self.head.backward_input(ops, last);
        self.head.backward_weight(ops, last);
        for i in (0..self.blocks.len()).rev() {
            let (before, rest) = self.blocks.split_at_mut(i);
            let Some((block, after)) = rest.split_first_mut() else { continue };
            let (x, dy) = (input(&self.embedding, before), output_gradient(&self.head, after));
            block.backward_input(ops, x, dy);
            block.backward_weight(ops, x, dy);
        }
        let tokens = &self.batches[batch % self.batches.len()].inputs[0];
        self.embedding.backward_weight(ops, output_gradient(&self.head, &self.blocks), tokens);
    }

    fn losses(&self) -> &O::Buffer {
        self.head.losses()
    }

    fn parameters(&self) -> Vec<&Parameter<O::Buffer>> {
        let blocks = self.blocks.iter().flat_map(|b| b.parameters());
        self.embedding.parameters().into_iter().chain(blocks).chain(self.head.parameters()).collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<O::Buffer>> {
        let blocks = self.blocks.iter_mut().flat_map(|b| b.parameters_mut());
        self.embedding.parameters_mut().into_iter().chain(blocks).chain(self.head.parameters_mut()).collect()
    }

    fn flop(&self) -> f64 {
        self.config.flop()
    }
}
