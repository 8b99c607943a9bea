//! `convnet`: a small residual network (He et al., arXiv 1512.03385) with group normalisation: a stem that halves the
//! image, residual blocks that double channels and halve sides, average pool, linear head, SGD with momentum.

use super::builder::Builder;
use super::data::{self, Batch, Labelled};
use super::network::Network;
use super::pieces::{Dense, Parameter};
use crate::Result;
use crate::ops::{Conv, GroupNorm, Linear, Ops, Pool, RowStats, Rows};

const COLOURS: usize = 3;

/// Sizes of a `convnet`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvnetConfig {
    /// Images of a batch.
    pub batch: usize,
    /// Height and width of the images in pixels, three colours each.
    pub side: usize,
    /// Channels behind the stem.
    pub width: usize,
    /// Residual blocks; each but the first doubles the channels and halves the sides.
    pub stages: usize,
    /// Groups that each group normalisation divides the channels into.
    pub groups: usize,
    /// Classes, which are the outputs of the head.
    pub classes: usize,
}

impl ConvnetConfig {
    const fn conv(&self, side: usize, channels: (usize, usize), kernel: usize, stride: usize) -> Conv {
        let (in_channels, out_channels) = channels;
        let padding = kernel / 2;
        Conv { batch: self.batch, height: side, width: side, in_channels, out_channels, kernel, stride, padding }
    }

    const fn stem(&self) -> Conv {
        self.conv(self.side, (COLOURS, self.width), 3, 2)
    }

    /// First convolution, second, and the skip path's where the shape changes.
    fn block(&self, stage: usize) -> (Conv, Conv, Option<Conv>) {
        let stem = self.stem();
        let mut side = stem.out_height();
        (1..stage).for_each(|_| side = side.div_ceil(2));
        if stage == 0 {
            let conv = self.conv(side, (self.width, self.width), 3, 1);
            return (conv, conv, None);
        }
        let channels = (self.width << (stage - 1), self.width << stage);
        let first = self.conv(side, channels, 3, 2);
        let second = self.conv(first.out_height(), (channels.1, channels.1), 3, 1);
        (first, second, Some(self.conv(side, channels, 1, 2)))
    }

    /// Positions and channels that reach the pool.
    fn pool(&self) -> Pool {
        let last = self.stages.checked_sub(1).map_or(self.stem(), |stage| self.block(stage).1);
        let positions = last.out_height() * last.out_width();
        Pool { batch: self.batch, positions, channels: last.out_channels }
    }

    /// FLOPs of the products of one forward and backward pass (the image needs no gradient).
    pub fn flop(&self) -> f64 {
        let conv = |c: Conv| 2.0 * (c.out_len() * c.patch()) as f64;
        let blocks = (0..self.stages).map(|stage| {
            let (first, second, skip) = self.block(stage);
            conv(first) + conv(second) + skip.map_or(0.0, conv)
        });
        let head = 2.0 * (self.batch * self.pool().channels * self.classes) as f64;
        2.0 * conv(self.stem()) + 3.0 * (blocks.sum::<f64>() + head)
    }
}

/// Convolution followed by group normalisation.
struct ConvNorm<B> {
    conv: Conv,
    norm: GroupNorm,
    weight: Parameter<B>,
    gamma: Parameter<B>,
    beta: Parameter<B>,
    mean: B,
    rstd: B,
    /// The convolution's result, and its gradient.
    raw: B,
    draw: B,
    normed: B,
    workspace: B,
}

impl<B> ConvNorm<B> {
    fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, name: &str, conv: Conv, groups: usize) -> Result<Self> {
        let (channels, positions) = (conv.out_channels, conv.out_height() * conv.out_width());
        let norm = GroupNorm { batch: conv.batch, positions, channels, groups };
        Ok(ConvNorm {
            conv,
            norm,
            weight: builder.matrix(format!("{name}.weight"), channels, conv.patch(), std::f64::consts::SQRT_2)?,
            gamma: builder.parameter(format!("{name}.gamma"), channels, 1.0, 0.02)?,
            beta: builder.parameter(format!("{name}.beta"), channels, 0.0, 0.02)?,
            mean: builder.wide(norm.stats_len())?,
            rstd: builder.wide(norm.stats_len())?,
            raw: builder.floats(conv.out_len())?,
            draw: builder.floats(conv.out_len())?,
            normed: builder.floats(conv.out_len())?,
            workspace: builder.floats(conv.workspace_len())?,
        })
    }

    fn forward<O: Ops<Buffer = B>>(&mut self, ops: &mut O, x: &B) {
        ops.conv_forward(self.conv, &mut self.raw, x, &self.weight.value, &mut self.workspace);
        let (gamma, beta) = (&self.gamma.value, &self.beta.value);
        ops.groupnorm_forward(self.norm, &mut self.normed, &mut self.mean, &mut self.rstd, &self.raw, gamma, beta);
    }

    /// Gradients of the parameters, from the gradient by `normed`.
    fn backward_weight<O: Ops<Buffer = B>>(&mut self, ops: &mut O, dnormed: &B, x: &B) {
        let stats = || RowStats { mean: &self.mean, rstd: &self.rstd };
        ops.groupnorm_to_inputs(self.norm, &mut self.draw, dnormed, &self.raw, &self.gamma.value, stats());
        let (dgamma, dbeta) = (&mut self.gamma.gradient, &mut self.beta.gradient);
        ops.groupnorm_to_weights(self.norm, dgamma, dbeta, dnormed, &self.raw, stats());
        ops.conv_to_weights(self.conv, &mut self.weight.gradient, &self.draw, x, &mut self.workspace);
    }

    /// The gradient by x; call [`ConvNorm::backward_weight`] first.
    fn backward_input<O: Ops<Buffer = B>>(&mut self, ops: &mut O, dx: &mut B) {
        ops.conv_to_inputs(self.conv, dx, &self.draw, &self.weight.value, &mut self.workspace);
    }

    fn parameters(&self) -> [&Parameter<B>; 3] {
        [&self.weight, &self.gamma, &self.beta]
    }

    fn parameters_mut(&mut self) -> [&mut Parameter<B>; 3] {
        [&mut self.weight, &mut self.gamma, &mut self.beta]
    }
}

/// out = relu(second(relu(first(x))) + skip(x))
struct Residual<B> {
    first: ConvNorm<B>,
    second: ConvNorm<B>,
    skip: Option<ConvNorm<B>>,
    inner: B,
    sum: B,
    out: B,
    dinner: B,
    dfirst: B,
    dsum: B,
    /// Gradients by x along the two paths, and together.
    dthrough: B,
    dskip: B,
    dx: B,
}

impl<B> Residual<B> {
    fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, config: &ConvnetConfig, stage: usize) -> Result<Self> {
        let (first, second, skip) = config.block(stage);
        let name = |part: &str| format!("block{stage}.{part}");
        let (inner, out, x) = (first.out_len(), second.out_len(), first.in_len());
        Ok(Residual {
            first: ConvNorm::new(builder, &name("first"), first, config.groups)?,
            second: ConvNorm::new(builder, &name("second"), second, config.groups)?,
            skip: skip.map(|conv| ConvNorm::new(builder, &name("skip"), conv, config.groups)).transpose()?,
            inner: builder.floats(inner)?,
            sum: builder.floats(out)?,
            out: builder.floats(out)?,
            dinner: builder.floats(inner)?,
            dfirst: builder.floats(inner)?,
            dsum: builder.floats(out)?,
            dthrough: builder.floats(x)?,
            dskip: builder.floats(x)?,
            dx: builder.floats(x)?,
        })
    }

    fn forward<O: Ops<Buffer = B>>(&mut self, ops: &mut O, x: &B) {
        let (inner, out) = (self.first.conv.out_len(), self.second.conv.out_len());
        self.first.forward(ops, x);
        ops.relu_forward(inner, &mut self.inner, &self.first.normed);
        self.second.forward(ops, &self.inner);
        let skip = match &mut self.skip {
            Some(skip) => {
                skip.forward(ops, x);
                &skip.normed
            }
            None => x,
        };
        ops.residual(out, &mut self.sum, &self.second.normed, skip);
        ops.relu_forward(out, &mut self.out, &self.sum);
    }

    fn backward<O: Ops<Buffer = B>>(&mut self, ops: &mut O, x: &B, dout: &B) {
        let (inner, out) = (self.first.conv.out_len(), self.second.conv.out_len());
        ops.relu_backward(out, &mut self.dsum, dout, &self.out);
        self.second.backward_weight(ops, &self.dsum, &self.inner);
        self.second.backward_input(ops, &mut self.dinner);
        ops.relu_backward(inner, &mut self.dfirst, &self.dinner, &self.inner);
        self.first.backward_weight(ops, &self.dfirst, x);
        self.first.backward_input(ops, &mut self.dthrough);
        let dskip = match &mut self.skip {
            Some(skip) => {
                skip.backward_weight(ops, &self.dsum, x);
                skip.backward_input(ops, &mut self.dskip);
                &self.dskip
            }
            None => &self.dsum,
        };
        ops.residual(self.first.conv.in_len(), &mut self.dx, &self.dthrough, dskip);
    }

    fn units(&self) -> impl Iterator<Item = &ConvNorm<B>> {
        [&self.first, &self.second].into_iter().chain(&self.skip)
    }

    fn units_mut(&mut self) -> impl Iterator<Item = &mut ConvNorm<B>> {
        [&mut self.first, &mut self.second].into_iter().chain(&mut self.skip)
    }
}

/// The stem, residual blocks and head with their activations, gradients and data.
pub struct Convnet<B> {
    config: ConvnetConfig,
    stem: ConvNorm<B>,
    stem_out: B,
    dstem: B,
    blocks: Vec<Residual<B>>,
    pooled: B,
    head: Dense<B>,
    /// Logits, and after the loss their gradient.
    logits: B,
    losses: B,
    dpooled: B,
    dlast: B,
    batches: Vec<Batch<B>>,
}

impl<B> Convnet<B> {
    /// Makes the network and its batches; an error where the device has no memory for them.
    pub fn new<O: Ops<Buffer = B>>(builder: &mut Builder<'_, O>, config: ConvnetConfig) -> Result<Self> {
        let (stem, pool) = (config.stem(), config.pool());
        let shape = Labelled {
            rows: config.batch,
            steps: 1,
            positions: config.side * config.side,
            channels: COLOURS,
            classes: config.classes,
        };
        let pooled = config.batch * pool.channels;
        Ok(Convnet {
            config,
            stem: ConvNorm::new(builder, "stem", stem, config.groups)?,
            stem_out: builder.floats(stem.out_len())?,
            dstem: builder.floats(stem.out_len())?,
            blocks: (0..config.stages).map(|i| Residual::new(builder, &config, i)).collect::<Result<_>>()?,
            pooled: builder.floats(pooled)?,
            head: Dense::new(builder, "head", Linear::new(config.batch, pool.channels, config.classes), 1.0)?,
            logits: builder.floats(config.batch * config.classes)?,
            losses: builder.wide(config.batch)?,
            dpooled: builder.floats(pooled)?,
            dlast: builder.floats(pooled * pool.positions)?,
            batches: data::labelled(builder, shape, 0xc0)?,
        })
    }

    fn units(&self) -> impl Iterator<Item = &ConvNorm<B>> {
        [&self.stem].into_iter().chain(self.blocks.iter().flat_map(Residual::units))
    }
}

impl<O: Ops> Network<O> for Convnet<O::Buffer> {
    fn forward(&mut self, ops: &mut O, batch: usize) {
        let batch = &self.batches[batch % self.batches.len()];
        self.stem.forward(ops, &batch.inputs[0]);
        ops.relu_forward(self.stem.conv.out_len(), &mut self.stem_out, &self.stem.normed);
        for i in 0..self.blocks.len() {
            let (before, rest) = self.blocks.split_at_mut(i);
            rest[0].forward(ops, before.last().map_or(&self.stem_out, |b| &b.out));
        }
        let last = self.blocks.last().map_or(&self.stem_out, |b| &b.out);
        ops.average_pool_forward(self.config.pool(), &mut self.pooled, last);
        self.head.forward(ops, &mut self.logits, &self.pooled);
        let shape = Rows { rows: self.config.batch, cols: self.config.classes };
        ops.cross_entropy(shape, &mut self.losses, &mut self.logits, &batch.targets);
    }

    fn backward(&mut self, ops: &mut O, batch: usize) {
        self.head.backward_input(ops, &mut self.dpooled, &self.logits);
        self.head.backward_weight(ops, &self.logits, &self.pooled);
        ops.average_pool_backward(self.config.pool(), &mut self.dlast, &self.dpooled);
        for i in (0..self.blocks.len()).rev() {
            let (before, rest) = self.blocks.split_at_mut(i);
            let Some((block, after)) = rest.split_first_mut() else { continue };
            let x = before.last().map_or(&self.stem_out, |b| &b.out);
            block.backward(ops, x, after.first().map_or(&self.dlast, |b| &b.dx));
        }
        let dout = self.blocks.first().map_or(&self.dlast, |b| &b.dx);
        ops.relu_backward(self.stem.conv.out_len(), &mut self.dstem, dout, &self.stem_out);
        let image = &self.batches[batch % self.batches.len()].inputs[0];
        self.stem.backward_weight(ops, &self.dstem, image);
    }

    fn losses(&self) -> &O::Buffer {
        &self.losses
    }

    fn parameters(&self) -> Vec<&Parameter<O::Buffer>> {
        self.units().flat_map(ConvNorm::parameters).chain(self.head.parameters()).collect()
    }

    fn parameters_mut(&mut self) -> Vec<&mut Parameter<O::Buffer>> {
        let blocks = self.blocks.iter_mut().flat_map(Residual::units_mut);
        let units = [&mut self.stem].into_iter().chain(blocks);
        units.flat_map(ConvNorm::parameters_mut).chain(self.head.parameters_mut()).collect()
    }

    fn flop(&self) -> f64 {
        self.config.flop()
    }
}
