//! Average pooling on the GPU.

use super::launch::missing;
use super::{Buffer, Cuda};
use crate::Result;
use crate::ops::Pool;

#[allow(clippy::too_many_arguments)]
impl Cuda {
    pub(super) fn try_average_pool_forward(&mut self, shape: Pool, y: &mut Buffer, x: &Buffer) -> Result<()> {
        let _ = (shape, y, x);
        Err(missing("average_pool_forward"))
    }

    pub(super) fn try_average_pool_backward(&mut self, shape: Pool, dx: &mut Buffer, dy: &Buffer) -> Result<()> {
        let _ = (shape, dx, dy);
        Err(missing("average_pool_backward"))
    }
}
