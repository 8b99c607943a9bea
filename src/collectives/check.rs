//! Is the result right? Inputs are laid out, outputs poisoned, and every element is compared for equality.

use super::threads::Rank;
use super::{BufferSpan, Exchange, RankBuffer};
use crate::Result;

/// Elements looked at a time: small enough for the stack and the first cache.
const BLOCK: usize = 1024;

/// Gives this rank its input and fills everything else of its buffers with NaN; an error where there is no memory for
/// them, or a rank is lost.
pub fn load(exchange: &Exchange, rank: &mut Rank) -> Result<()> {
    let me = rank.index();
    let placement = exchange.placement(me);
    for buffer in [RankBuffer::Send, RankBuffer::Receive] {
        let len = placement.needs(buffer);
        rank.reserve(buffer, len)?;
        rank.view_mut(BufferSpan::new(buffer, 0, len))?.fill(f32::NAN);
    }
    for piece in placement.input.chunks(BLOCK) {
        exchange.fill_input(me, piece.start - placement.input.start, rank.view_mut(piece)?);
    }
    Ok(())
}

/// Number of elements of this rank's output that are not what they must be; out of place, also of its input, which must
/// be unchanged.
pub fn count_wrong(exchange: &Exchange, rank: &Rank) -> u64 {
    let me = rank.index();
    let placement = exchange.placement(me);
    let output = compare(rank, placement.output, |first, out| exchange.fill_expected(me, first, out));
    if exchange.in_place {
        return output;
    }
    output + compare(rank, placement.input, |first, out| exchange.fill_input(me, first, out))
}

fn compare(rank: &Rank, span: BufferSpan, fill: impl Fn(usize, &mut [f32])) -> u64 {
    let mut expected = [0.0f32; BLOCK];
    let of_piece = |piece: BufferSpan| {
        let expected = &mut expected[..piece.len];
        fill(piece.start - span.start, expected);
        wrong_elements(rank.view(piece), expected)
    };
    span.chunks(BLOCK).map(of_piece).sum()
}

/// Number of elements that differ from the expected ones; a NaN always counts as different.
pub fn wrong_elements(got: &[f32], expected: &[f32]) -> u64 {
    got.iter().zip(expected).map(|(g, e)| u64::from(g != e)).sum()
}
