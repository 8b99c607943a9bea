//! The LSTM cell on the GPU: shapes, geometry and the launches. The kernels are in `cuda/lstm.cu`.

use super::launch::{Arg, check, int};
use super::{Cuda, CudaBuffer, Geometry};
use crate::Result;
use crate::ops::{DType, LstmCell};

const THREADS: u32 = 256;

/// Threads with work: one for each 16 bytes of a row of units.
fn pieces(shape: LstmCell, dtype: DType) -> usize {
    shape.rows * shape.hidden.div_ceil(16 / dtype.bytes())
}

/// The launch of the forward or the backward kernel: a thread for each 16 bytes of a row of units.
pub fn geometry(shape: LstmCell, dtype: DType) -> Geometry {
    Geometry::flat(pieces(shape, dtype), THREADS)
}

/// The name of a kernel of `cuda/lstm.cu`, such as `lstm_forward_bf16` for the operation `forward`.
pub fn kernel(operation: &str, dtype: DType) -> String {
    format!("lstm_{operation}_{}", dtype.name())
}

/// Rows and hidden units as the kernels take them.
fn dimensions(shape: LstmCell, dtype: DType) -> Result<[Arg; 2]> {
    // Threads are counted in 32 bits, the last block's idle ones included.
    int("lstm_cell units", pieces(shape, dtype).next_multiple_of(THREADS as usize))?;
    Ok([int("lstm_cell rows", shape.rows)?, int("lstm_cell hidden units", shape.hidden)?].map(Arg::I32))
}

#[allow(clippy::too_many_arguments)]
impl Cuda {
    /// Activated gates in place, c and h.
    pub(super) fn try_lstm_cell_forward(
        &mut self,
        shape: LstmCell,
        h: &mut CudaBuffer,
        c: &mut CudaBuffer,
        gates: &mut CudaBuffer,
        c_prev: &CudaBuffer,
    ) -> Result<()> {
        let (dtype, units) = (self.data_type(), shape.rows * shape.hidden);
        for (name, buffer, len) in
            [("h", &*h, units), ("c", &*c, units), ("gates", &*gates, 4 * units), ("c_prev", c_prev, units)]
        {
            check("lstm_cell", name, buffer, len, dtype)?;
        }
        let [rows, hidden] = dimensions(shape, dtype)?;
        if units == 0 {
            return Ok(());
        }
        let mut arguments = [h.arg_mut(), c.arg_mut(), gates.arg_mut(), c_prev.arg(), rows, hidden];
        self.launch(&kernel("forward", dtype), geometry(shape, dtype), &mut arguments)
    }

    /// dgates of the pre-activations; dc from the next step's to the previous one's.
    pub(super) fn try_lstm_cell_backward(
        &mut self,
        shape: LstmCell,
        dgates: &mut CudaBuffer,
        dc: &mut CudaBuffer,
        dh: &CudaBuffer,
        gates: &CudaBuffer,
        c: &CudaBuffer,
        c_prev: &CudaBuffer,
    ) -> Result<()> {
        let (dtype, units) = (self.data_type(), shape.rows * shape.hidden);
        for (name, buffer) in [("dgates", &*dgates), ("gates", gates)] {
            check("lstm_cell", name, buffer, 4 * units, dtype)?;
        }
        for (name, buffer) in [("dc", &*dc), ("dh", dh), ("c", c), ("c_prev", c_prev)] {
            check("lstm_cell", name, buffer, units, dtype)?;
        }
        let sizes = dimensions(shape, dtype)?;
        if units == 0 {
            return Ok(());
        }
        let operands = [dgates.arg_mut(), dc.arg_mut(), dh.arg(), gates.arg(), c.arg(), c_prev.arg()];
        let mut arguments = [&operands[..], &sizes[..]].concat();
        self.launch(&kernel("backward", dtype), geometry(shape, dtype), &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_has_sixteen_bytes_of_one_row() {
        let shape = LstmCell { rows: 16, hidden: 128 };
        assert_eq!(geometry(shape, DType::Bf16), Geometry::new([1, 1, 1], [256, 1, 1]));
        assert_eq!(geometry(shape, DType::F32), Geometry::new([2, 1, 1], [256, 1, 1]));
        assert_eq!(pieces(LstmCell { rows: 3, hidden: 9 }, DType::Bf16), 6);
        assert!(dimensions(LstmCell { rows: 1 << 31, hidden: 8 }, DType::Bf16).is_err());
    }
}
