//! Convolution on the GPU.

use super::launch::missing;
use super::{Buffer, Cuda};
use crate::Result;
use crate::ops::Conv;

#[allow(clippy::too_many_arguments)]
impl Cuda {
    pub(super) fn try_conv_forward(
        &mut self,
        shape: Conv,
        y: &mut Buffer,
        x: &Buffer,
        w: &Buffer,
        workspace: &mut Buffer,
    ) -> Result<()> {
        let _ = (shape, y, x, w, workspace);
        Err(missing("conv_forward"))
    }

    pub(super) fn try_conv_to_inputs(
        &mut self,
        shape: Conv,
        dx: &mut Buffer,
        dy: &Buffer,
        w: &Buffer,
        workspace: &mut Buffer,
    ) -> Result<()> {
        let _ = (shape, dx, dy, w, workspace);
        Err(missing("conv_to_inputs"))
    }

    pub(super) fn try_conv_to_weights(
        &mut self,
        shape: Conv,
        dw: &mut Buffer,
        dy: &Buffer,
        x: &Buffer,
        workspace: &mut Buffer,
    ) -> Result<()> {
        let _ = (shape, dw, dy, x, workspace);
        Err(missing("conv_to_weights"))
    }
}
