//! Group normalisation on the GPU.

use super::launch::missing;
use super::{Buffer, Cuda};
use crate::Result;
use crate::ops::{GroupNorm, RowStats};

#[allow(clippy::too_many_arguments)]
impl Cuda {
    pub(super) fn try_groupnorm_forward(
        &mut self,
        shape: GroupNorm,
        y: &mut Buffer,
        mean: &mut Buffer,
        rstd: &mut Buffer,
        x: &Buffer,
        gamma: &Buffer,
        beta: &Buffer,
    ) -> Result<()> {
        let _ = (shape, y, mean, rstd, x, gamma, beta);
        Err(missing("groupnorm_forward"))
    }

    pub(super) fn try_groupnorm_to_inputs(
        &mut self,
        shape: GroupNorm,
        dx: &mut Buffer,
        dy: &Buffer,
        x: &Buffer,
        gamma: &Buffer,
        stats: RowStats<'_, Buffer>,
    ) -> Result<()> {
        let _ = (shape, dx, dy, x, gamma, stats);
        Err(missing("groupnorm_to_inputs"))
    }

    pub(super) fn try_groupnorm_to_weights(
        &mut self,
        shape: GroupNorm,
        dgamma: &mut Buffer,
        dbeta: &mut Buffer,
        dy: &Buffer,
        x: &Buffer,
        stats: RowStats<'_, Buffer>,
    ) -> Result<()> {
        let _ = (shape, dgamma, dbeta, dy, x, stats);
        Err(missing("groupnorm_to_weights"))
    }
}
