//! The LSTM cell on the GPU.

use super::launch::missing;
use super::{Buffer, Cuda};
use crate::Result;
use crate::ops::LstmCell;

#[allow(clippy::too_many_arguments)]
impl Cuda {
    pub(super) fn try_lstm_cell_forward(
        &mut self,
        shape: LstmCell,
        h: &mut Buffer,
        c: &mut Buffer,
        gates: &mut Buffer,
        c_prev: &Buffer,
    ) -> Result<()> {
        let _ = (shape, h, c, gates, c_prev);
        Err(missing("lstm_cell_forward"))
    }

    pub(super) fn try_lstm_cell_backward(
        &mut self,
        shape: LstmCell,
        dgates: &mut Buffer,
        dc: &mut Buffer,
        dh: &Buffer,
        gates: &Buffer,
        c: &Buffer,
        c_prev: &Buffer,
    ) -> Result<()> {
        let _ = (shape, dgates, dc, dh, gates, c, c_prev);
        Err(missing("lstm_cell_backward"))
    }
}
