//! Causal self-attention on the GPU.

use super::launch::missing;
use super::{Buffer, Cuda};
use crate::Result;
use crate::ops::Attention;

#[allow(clippy::too_many_arguments)]
impl Cuda {
    pub(super) fn try_attention_forward(
        &mut self,
        shape: Attention,
        out: &mut Buffer,
        lse: &mut Buffer,
        qkv: &Buffer,
    ) -> Result<()> {
        let _ = (shape, out, lse, qkv);
        Err(missing("attention_forward"))
    }

    pub(super) fn try_attention_backward(
        &mut self,
        shape: Attention,
        dqkv: &mut Buffer,
        dout: &Buffer,
        qkv: &Buffer,
        out: &Buffer,
        lse: &Buffer,
        workspace: &mut Buffer,
    ) -> Result<()> {
        let _ = (shape, dqkv, dout, qkv, out, lse, workspace);
        Err(missing("attention_backward"))
    }
}
