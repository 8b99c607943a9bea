//! AdamW and SGD on the GPU. The kernels and their contracts are in `cuda/adamw.cu` and `cuda/sgd.cu`, what they share in
//! `cuda/optimizer.cuh`.

use super::launch::{Arg, check};
use super::{Cuda, CudaBuffer, Geometry};
use crate::Result;
use crate::ops::{AdamW, DType, Sgd};

/// Threads of a block, and elements each takes (`kUpdateThreads`, four times `kUpdateGroups`).
const THREADS: usize = 256;
const PER_THREAD: usize = 8;

/// The launch of AdamW's or SGD's kernel over `len` parameters: a block for each tile of 2048.
pub fn geometry(len: usize) -> Geometry {
    Geometry::flat(len.div_ceil(PER_THREAD), THREADS as u32)
}

/// The numbers of a step in the order in which `cuda/adamw.cu` takes them behind its pointers and the length; the
/// corrections for the steps so far are worked out in f64.
pub fn adamw_numbers(config: AdamW) -> [f32; 9] {
    let correction = |beta: f64| 1.0 / (1.0 - beta.powf(f64::from(config.step)));
    [
        config.beta1,
        1.0 - config.beta1,
        config.beta2,
        1.0 - config.beta2,
        correction(config.beta1),
        correction(config.beta2),
        config.learning_rate,
        config.epsilon,
        1.0 - config.learning_rate * config.weight_decay,
    ]
    .map(|number| number as f32)
}

#[allow(clippy::too_many_arguments)]
impl Cuda {
    pub(super) fn try_adamw(
        &mut self,
        len: usize,
        param: &mut CudaBuffer,
        master: Option<&mut CudaBuffer>,
        grad: &CudaBuffer,
        m: &mut CudaBuffer,
        v: &mut CudaBuffer,
        config: AdamW,
    ) -> Result<()> {
        let dtype = self.data_type();
        check("adamw", "param", param, len, dtype)?;
        check("adamw", "grad", grad, len, dtype)?;
        let wide = [("m", Some(&*m)), ("v", Some(&*v)), ("master", master.as_deref())];
        for (name, buffer) in wide.into_iter().filter_map(|(name, b)| Some((name, b?))) {
            check("adamw", name, buffer, len, DType::F32)?;
        }
        if len == 0 {
            return Ok(());
        }
        let master = master.map_or(Arg::NULL, CudaBuffer::arg_mut);
        let pointers = [param.arg_mut(), master, grad.arg(), m.arg_mut(), v.arg_mut(), Arg::U64(len as u64)];
        let mut arguments = [&pointers[..], &adamw_numbers(config).map(Arg::F32)].concat();
        self.launch(&format!("adamw_{}", dtype.name()), geometry(len), &mut arguments)
    }

    pub(super) fn try_sgd(
        &mut self,
        len: usize,
        param: &mut CudaBuffer,
        grad: &CudaBuffer,
        velocity: &mut CudaBuffer,
        config: Sgd,
    ) -> Result<()> {
        let dtype = self.data_type();
        check("sgd", "param", param, len, dtype)?;
        check("sgd", "grad", grad, len, dtype)?;
        check("sgd", "velocity", velocity, len, DType::F32)?;
        if len == 0 {
            return Ok(());
        }
        let (rate, momentum) = (Arg::F32(config.learning_rate as f32), Arg::F32(config.momentum as f32));
        let len_argument = Arg::U64(len as u64);
        let mut arguments = [param.arg_mut(), grad.arg(), velocity.arg_mut(), len_argument, rate, momentum];
        self.launch(&format!("sgd_{}", dtype.name()), geometry(len), &mut arguments)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_length() {
        for len in [1, 3, 4, 2047, 2048, 2049, 123_457, (1 << 33) + 1] {
            let blocks = geometry(len).grid[0] as usize;
            assert!(blocks * 2048 >= len && (blocks - 1) * 2048 < len);
        }
    }

    /// After its first step a moment is corrected to the gradient itself.
    #[test]
    fn the_first_step_is_corrected_whole() {
        let [_, new1, _, new2, correct1, correct2, ..] = adamw_numbers(AdamW::default());
        assert!((new1 * correct1 - 1.0).abs() < 1e-6 && (new2 * correct2 - 1.0).abs() < 1e-6);
        let late = adamw_numbers(AdamW { step: 1_000_000, ..AdamW::default() });
        assert_eq!((late[4], late[5]), (1.0, 1.0));
    }
}
