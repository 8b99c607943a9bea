//! A GPU as these cases use it: one stream, timed by events between two clock stamps.

use super::rig::{How, Rig, Work};
use crate::Result;
use crate::ops::cuda::{Cuda, Gpu, Priority};
use crate::ops::{DType, Ops};
use crate::records::measurement::Backend;
use crate::suite::{Context, RawSample};

/// Type of the big model's data and of the small models' on a GPU.
const DATA: DType = DType::Bf16;

pub struct CudaRig {
    ops: Cuda,
    ordinal: u32,
}

impl Rig for CudaRig {
    type Ops = Cuda;
    const BACKEND: Backend = Backend::Cuda;
    const ROTATES: bool = false;

    fn open(context: &Context) -> Result<Self> {
        let ordinal = context.platform.ordinal();
        let gpu = Gpu::open(ordinal)?;
        Ok(CudaRig { ops: Cuda::on(&gpu, DATA, Priority::Plain)?, ordinal })
    }

    fn serves(&self, context: &Context) -> bool {
        self.ordinal == context.platform.ordinal()
    }

    fn within<R: Send>(&mut self, work: impl FnOnce(&mut Cuda) -> R + Send) -> R {
        work(&mut self.ops)
    }

    fn settle(&mut self, _how: How, _work: Work<'_, Cuda>) -> Result<()> {
        Ok(())
    }

    fn time(&mut self, _how: How, n: u64, work: Work<'_, Cuda>) -> Result<Vec<RawSample>> {
        let start = std::time::Instant::now();
        (0..n).for_each(|_| work(&mut self.ops));
        self.ops.synchronize()?;
        Ok(vec![RawSample::new(start.elapsed().as_nanos() as f64, n)])
    }
}
