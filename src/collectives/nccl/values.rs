//! Inputs written to the GPU and results compared with what they must be, every element, byte for byte.
//!
//! The host computes both, in pieces and on all cores, because it can tell every element from its index alone; the
//! copies take longer than that.

use super::enqueue::Places;
use super::gpu::{DeviceAllocation, RankGpu};
use crate::Result;
use crate::collectives::{BufferSpan, Exchange};
use rayon::prelude::*;

/// Elements copied at a time, and computed at a time by one core.
const PIECE: usize = 1 << 20;
const BLOCK: usize = 1 << 12;

/// Poisons both buffers (all ones: NaN in every type) and writes the rank's input.
pub fn load(
    gpu: &RankGpu,
    exchange: &Exchange,
    rank: usize,
    places: Places,
    blocks: [&DeviceAllocation; 2],
) -> Result<()> {
    for block in blocks {
        gpu.fill(block, 0xff)?;
    }
    let input = exchange.placement(rank).input;
    for piece in input.chunks(PIECE) {
        let bytes = encoded(places, piece.len, |first, out| {
            exchange.fill_input(rank, piece.start - input.start + first, out);
        });
        gpu.write(places.address(piece), &bytes)?;
    }
    Ok(())
}

/// Elements of the rank's output that are not what they must be, and of its input where that had to stay as it was.
pub fn count_wrong(gpu: &RankGpu, exchange: &Exchange, rank: usize, places: Places) -> Result<u64> {
    let place = exchange.placement(rank);
    let output = compare(gpu, places, place.output, |first, out| exchange.fill_expected(rank, first, out))?;
    if exchange.in_place {
        return Ok(output);
    }
    Ok(output + compare(gpu, places, place.input, |first, out| exchange.fill_input(rank, first, out))?)
}

fn compare(gpu: &RankGpu, places: Places, span: BufferSpan, fill: impl Fn(usize, &mut [f32]) + Sync) -> Result<u64> {
    let size = places.element.bytes();
    let mut wrong = 0;
    for piece in span.chunks(PIECE) {
        let expected = encoded(places, piece.len, |first, out| fill(piece.start - span.start + first, out));
        let mut got = vec![0; expected.len()];
        gpu.read(places.address(piece), &mut got)?;
        let differ = |(a, b): (&[u8], &[u8])| u64::from(a != b);
        wrong += got.chunks_exact(size).zip(expected.chunks_exact(size)).map(differ).sum::<u64>();
    }
    Ok(wrong)
}

/// Elements `0 .. len` as `fill` says, in the buffer's type.
fn encoded(places: Places, len: usize, fill: impl Fn(usize, &mut [f32]) + Sync) -> Vec<u8> {
    let size = places.element.bytes();
    let mut bytes = vec![0; len * size];
    bytes.par_chunks_mut(BLOCK * size).enumerate().for_each(|(index, out)| {
        let mut values = [0.0f32; BLOCK];
        let values = &mut values[..out.len() / size];
        fill(index * BLOCK, values);
        places.element.encode(values, out);
    });
    bytes
}
