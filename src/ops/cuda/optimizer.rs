//! AdamW and SGD on the GPU.

use super::launch::missing;
use super::{Buffer, Cuda};
use crate::Result;
use crate::ops::{AdamW, Sgd};

#[allow(clippy::too_many_arguments)]
impl Cuda {
    pub(super) fn try_adamw(
        &mut self,
        len: usize,
        param: &mut Buffer,
        master: Option<&mut Buffer>,
        grad: &Buffer,
        m: &mut Buffer,
        v: &mut Buffer,
        config: AdamW,
    ) -> Result<()> {
        let _ = (len, param, master, grad, m, v, config);
        Err(missing("adamw"))
    }

    pub(super) fn try_sgd(
        &mut self,
        len: usize,
        param: &mut Buffer,
        grad: &Buffer,
        velocity: &mut Buffer,
        config: Sgd,
    ) -> Result<()> {
        let _ = (len, param, grad, velocity, config);
        Err(missing("sgd"))
    }
}
