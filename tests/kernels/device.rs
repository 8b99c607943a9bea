//! A case through the same kernels on a real GPU, launched by the program's own CUDA backend.

use crate::layernorm::{Case, Outputs};
use bubblebench::ops::cuda::{Buffer, Cuda};
use bubblebench::ops::{DType, RowStats};

/// Opens the first GPU; without one, why not.
pub fn open(dtype: DType) -> Result<Cuda, String> {
    Cuda::open(0, dtype).map_err(|error| error.to_string())
}

pub fn layernorm(cuda: &mut Cuda, case: &Case) -> Outputs {
    let shape = case.shape;
    let poisoned = |cuda: &mut Cuda, len, dtype| cuda.alloc(len, dtype).unwrap();
    let tensor = |cuda: &mut Cuda, values: &[f64]| {
        let mut buffer: Buffer = cuda.alloc(values.len(), case.dtype).unwrap();
        cuda.write(&mut buffer, values).unwrap();
        buffer
    };
    let (x, dy) = (tensor(cuda, &case.x), tensor(cuda, &case.dy));
    let (gamma, beta) = (tensor(cuda, &case.gamma), tensor(cuda, &case.beta));
    let (mut dgamma, mut dbeta) = (tensor(cuda, &case.dgamma), tensor(cuda, &case.dbeta));
    let residual = case.residual.as_ref().map(|values| tensor(cuda, values));
    let (mut y, mut dx) = (poisoned(cuda, shape.len(), case.dtype), poisoned(cuda, shape.len(), case.dtype));
    let (mut mean, mut rstd) = (poisoned(cuda, shape.rows, DType::F32), poisoned(cuda, shape.rows, DType::F32));
    cuda.layernorm_forward(shape, &mut y, &mut mean, &mut rstd, &x, &gamma, &beta);
    let stats = || RowStats { mean: &mean, rstd: &rstd };
    cuda.layernorm_to_inputs(shape, &mut dx, &dy, &x, &gamma, stats(), residual.as_ref());
    cuda.layernorm_to_weights(shape, &mut dgamma, &mut dbeta, &dy, &x, stats());
    cuda.synchronize().unwrap();
    let [y, mean, rstd, dx, dgamma, dbeta] = [y, mean, rstd, dx, dgamma, dbeta].map(|b| cuda.read(&b).unwrap());
    Outputs { y, mean, rstd, dx, dgamma, dbeta }
}
