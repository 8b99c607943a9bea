//! Seeded data that can be learned: labels are a fixed function of the inputs.
//!
//! Small models make their batches here once; a training step goes through them in turn, so nothing is copied to the
//! device while it is timed.

use super::builder::{Builder, normal, round_to};
use crate::Result;
use crate::ops::{DType, Ops};
use crate::stats::SplitMix;

/// Number of batches that a model goes round.
pub const BATCHES: usize = 4;

/// One batch of inputs and targets on the device.
pub struct Batch<B> {
    /// The inputs: one buffer, or one a time step.
    pub inputs: Vec<B>,
    /// The class or next token of each row, as a 32-bit id.
    pub targets: B,
}

/// What one batch of labelled vectors looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Labelled {
    /// Rows of a batch, each with a label of its own.
    pub rows: usize,
    /// Time steps: each row has this many vectors of positions × channels numbers.
    pub steps: usize,
    /// Positions over which a row's vector repeats its `channels` (1 where every element stands for itself).
    pub positions: usize,
    /// Numbers of a row's centre, around which its vectors are noise.
    pub channels: usize,
    /// Classes that labels are taken from.
    pub classes: usize,
}

/// Makes [`BATCHES`] batches whose rows are noise around a centre of `channels` numbers each; the label is the class
/// whose fixed random direction the row's own channel means point to most.
pub fn labelled<O: Ops>(builder: &mut Builder<'_, O>, shape: Labelled, seed: u64) -> Result<Vec<Batch<O::Buffer>>> {
    let mut random = SplitMix(seed);
    let directions = normal(&mut random, DType::F64, shape.classes * shape.channels, 0.0, 1.0);
    (0..BATCHES).map(|_| labelled_batch(builder, shape, &mut random, &directions)).collect()
}

fn labelled_batch<O: Ops>(
    builder: &mut Builder<'_, O>,
    shape: Labelled,
    random: &mut SplitMix,
    directions: &[f64],
) -> Result<Batch<O::Buffer>> {
    let width = shape.positions * shape.channels;
    let mut steps = vec![Vec::with_capacity(shape.rows * width); shape.steps];
    let mut targets = Vec::with_capacity(shape.rows);
    for _ in 0..shape.rows {
        let centre = normal(random, DType::F64, shape.channels, 0.0, 1.0);
        let mut means = vec![0.0; shape.channels];
        for step in &mut steps {
            for (i, noise) in normal(random, DType::F64, width, 0.0, 0.5).into_iter().enumerate() {
                let value = round_to(DType::Bf16, centre[i % shape.channels] + noise);
                means[i % shape.channels] += value;
                step.push(value);
            }
        }
        targets.push(nearest(directions, &means));
    }
    let inputs = steps.iter().map(|values| builder.values(values)).collect::<Result<_>>()?;
    Ok(Batch { inputs, targets: builder.ids(&targets)? })
}

/// The class whose direction has the greatest product with `means`.
fn nearest(directions: &[f64], means: &[f64]) -> u32 {
    let along = |d: &[f64]| d.iter().zip(means).map(|(d, m)| d * m).sum::<f64>();
    let scores = directions.chunks_exact(means.len()).map(along).enumerate();
    scores.max_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(class, _)| class as u32)
}

/// Makes [`BATCHES`] batches of sequences in which each token is followed by the one a fixed permutation names; the
/// targets are the next tokens.
pub fn following_tokens<O: Ops>(
    builder: &mut Builder<'_, O>,
    rows: usize,
    sequence: usize,
    vocabulary: usize,
) -> Result<Vec<Batch<O::Buffer>>> {
    let mut random = SplitMix(0x70ce);
    let mut next: Vec<u32> = (0..vocabulary as u32).collect();
    random.shuffle(&mut next);
    let mut batches = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let mut tokens: Vec<u32> = Vec::with_capacity(rows);
        for row in 0..rows {
            let token = match tokens.last() {
                Some(&last) if row % sequence != 0 => next[last as usize],
                _ => random.below(vocabulary) as u32,
            };
            tokens.push(token);
        }
        let targets: Vec<u32> = tokens.iter().map(|&t| next[t as usize]).collect();
        batches.push(Batch { inputs: vec![builder.ids(&tokens)?], targets: builder.ids(&targets)? });
    }
    Ok(batches)
}
