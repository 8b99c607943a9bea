//! Matrix products through cuBLASLt.

use super::launch::missing;
use super::{Buffer, Cuda};
use crate::Result;
use crate::ops::{ForwardEpilogue, InputEpilogue, Linear, WeightEpilogue};

#[allow(clippy::too_many_arguments)]
impl Cuda {
    pub(super) fn try_linear_forward(
        &mut self,
        shape: Linear,
        y: &mut Buffer,
        x: &Buffer,
        w: &Buffer,
        epilogue: ForwardEpilogue<'_, Buffer>,
    ) -> Result<()> {
        let _ = (shape, y, x, w, epilogue);
        Err(missing("linear_forward"))
    }

    pub(super) fn try_linear_to_inputs(
        &mut self,
        shape: Linear,
        dx: &mut Buffer,
        dy: &Buffer,
        w: &Buffer,
        epilogue: InputEpilogue<'_, Buffer>,
    ) -> Result<()> {
        let _ = (shape, dx, dy, w, epilogue);
        Err(missing("linear_to_inputs"))
    }

    pub(super) fn try_linear_to_weights(
        &mut self,
        shape: Linear,
        dw: &mut Buffer,
        dy: &Buffer,
        x: &Buffer,
        epilogue: WeightEpilogue<'_, Buffer>,
    ) -> Result<()> {
        let _ = (shape, dw, dy, x, epilogue);
        Err(missing("linear_to_weights"))
    }
}
