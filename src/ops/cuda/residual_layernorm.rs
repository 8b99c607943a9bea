//! The residual sum and its layer normalisation in one launch: 4 tensors moved instead of 5. The models ask for the two one
//! after the other; a case of its own says what fusing them gives. The kernel and its contract are in
//! `cuda/residual_layernorm.cu`.

use super::launch::{Arg, check};
use super::layernorm::{dimensions, to_inputs_geometry};
use super::{Cuda, CudaBuffer, Geometry};
use crate::Result;
use crate::ops::{DType, LAYERNORM_EPSILON, ResidualLayernorm, Rows};

/// The launch of the fused kernel, that of layer normalisation's kernel to inputs, which reads two rows as well.
pub fn geometry(shape: Rows, dtype: DType) -> Geometry {
    to_inputs_geometry(shape, dtype)
}

impl Cuda {
    pub(super) fn try_residual_layernorm(
        &mut self,
        shape: Rows,
        out: ResidualLayernorm<'_, CudaBuffer>,
        a: &CudaBuffer,
        b: &CudaBuffer,
        gamma: &CudaBuffer,
        beta: &CudaBuffer,
    ) -> Result<()> {
        let (dtype, operation) = (self.data_type(), "residual_layernorm");
        let (rows, cols) = dimensions(shape)?;
        for (name, buffer) in [("sum", &*out.sum), ("y", &*out.y), ("a", a), ("b", b)] {
            check(operation, name, buffer, shape.len(), dtype)?;
        }
        for (name, buffer) in [("gamma", gamma), ("beta", beta)] {
            check(operation, name, buffer, shape.cols, dtype)?;
        }
        for (name, buffer) in [("mean", &*out.mean), ("rstd", &*out.rstd)] {
            check(operation, name, buffer, shape.rows, DType::F32)?;
        }
        if shape.is_empty() {
            return Ok(());
        }
        let written = [out.sum.arg_mut(), out.y.arg_mut(), out.mean.arg_mut(), out.rstd.arg_mut()];
        let read = [a.arg(), b.arg(), gamma.arg(), beta.arg()];
        let numbers = [Arg::I32(rows), Arg::I32(cols), Arg::F32(LAYERNORM_EPSILON as f32)];
        let mut arguments = [&written[..], &read, &numbers].concat();
        self.launch(&format!("{operation}_{}", dtype.name()), geometry(shape, dtype), &mut arguments)
    }
}
