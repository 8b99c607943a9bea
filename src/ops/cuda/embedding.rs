//! Embedding lookup and its gradient on the GPU.

use super::launch::missing;
use super::{Buffer, Cuda};
use crate::Result;
use crate::ops::Embedding;

#[allow(clippy::too_many_arguments)]
impl Cuda {
    pub(super) fn try_embedding_forward(
        &mut self,
        shape: Embedding,
        out: &mut Buffer,
        tokens: &Buffer,
        table: &Buffer,
        positions: &Buffer,
    ) -> Result<()> {
        let _ = (shape, out, tokens, table, positions);
        Err(missing("embedding_forward"))
    }

    pub(super) fn try_embedding_to_weights(
        &mut self,
        shape: Embedding,
        dtable: &mut Buffer,
        dpositions: &mut Buffer,
        dout: &Buffer,
        tokens: &Buffer,
    ) -> Result<()> {
        let _ = (shape, dtable, dpositions, dout, tokens);
        Err(missing("embedding_to_weights"))
    }
}
