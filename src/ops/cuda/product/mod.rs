//! Matrix products through cuBLASLt: the three of a linear layer, with what their epilogues add.
//!
//! The row-major call becomes a column-major product (`call`), on its first run a plan is made for its shape
//! and types (`plan`): the library's algorithms, and forms that differ in what the library does itself and what kernels
//! of `cuda/bias.cu` do (`epilogue`), are timed on the operands (`timing`), and the fastest is kept for every stream on
//! the GPU. `docs/products.md` tells it in full.

mod call;
mod epilogue;
mod perform;
mod plan;
mod timing;

pub use epilogue::{ColumnSums, flat_geometry, rows_geometry};
pub(super) use perform::StreamState;
pub(super) use plan::Products;
pub use plan::{Candidate, Form, Fusion, ProductPlan};

use super::{Cuda, CudaBuffer};
use crate::Result;
use crate::ops::work::{Epilogue, Product};
use crate::ops::{ForwardEpilogue, InputEpilogue, Linear, WeightEpilogue};
use call::ProductCall;

impl Cuda {
    pub(super) fn try_linear_forward(
        &mut self,
        shape: Linear,
        y: &mut CudaBuffer,
        x: &CudaBuffer,
        w: &CudaBuffer,
        epilogue: ForwardEpilogue<'_, CudaBuffer>,
    ) -> Result<()> {
        let dtype = self.data_type();
        let call = match epilogue {
            ForwardEpilogue::None => ProductCall::new(Product::Forward, shape, Epilogue::None, dtype, y, [w, x])?,
            ForwardEpilogue::Bias(bias) => {
                ProductCall::new(Product::Forward, shape, Epilogue::Bias, dtype, y, [w, x])?.with_bias(bias)?
            }
            ForwardEpilogue::BiasGelu { bias, pre } => {
                let plain = ProductCall::new(Product::Forward, shape, Epilogue::BiasGelu, dtype, y, [w, x])?;
                plain.with_bias(bias)?.with_pre(pre)?
            }
        };
        self.product(&call)
    }

    pub(super) fn try_linear_to_inputs(
        &mut self,
        shape: Linear,
        dx: &mut CudaBuffer,
        dy: &CudaBuffer,
        w: &CudaBuffer,
        epilogue: InputEpilogue<'_, CudaBuffer>,
    ) -> Result<()> {
        let dtype = self.data_type();
        let call = match epilogue {
            InputEpilogue::None => ProductCall::new(Product::ToInputs, shape, Epilogue::None, dtype, dx, [w, dy])?,
            InputEpilogue::Gelu { pre } => {
                ProductCall::new(Product::ToInputs, shape, Epilogue::GeluBackward, dtype, dx, [w, dy])?.with_pre(pre)?
            }
        };
        self.product(&call)
    }

    pub(super) fn try_linear_to_weights(
        &mut self,
        shape: Linear,
        dw: &mut CudaBuffer,
        dy: &CudaBuffer,
        x: &CudaBuffer,
        epilogue: WeightEpilogue<'_, CudaBuffer>,
    ) -> Result<()> {
        let dtype = self.data_type();
        let call = match epilogue {
            WeightEpilogue::None => ProductCall::new(Product::ToWeights, shape, Epilogue::None, dtype, dw, [x, dy])?,
            WeightEpilogue::Bias { dbias } => {
                let plain = ProductCall::new(Product::ToWeights, shape, Epilogue::BiasGradient, dtype, dw, [x, dy])?;
                plain.with_gradient(dbias)?
            }
        };
        self.product(&call)
    }

    /// Chooses the form this stream takes where more than one exists: the fastest, unless a test or a comparison asks
    /// otherwise.
    pub fn set_fusion(&mut self, fusion: Fusion) {
        self.products.fusion = fusion;
    }

    /// How a product of this stream's type is computed on this GPU; `None` before its first run.
    pub fn product_plan(&self, product: Product, shape: Linear, epilogue: Epilogue) -> Option<ProductPlan> {
        let dtype = self.data_type();
        let wanted = |plan: &ProductPlan| {
            (plan.product, plan.shape, plan.epilogue, plan.dtype) == (product, shape, epilogue, dtype)
        };
        self.product_plans().into_iter().find(wanted)
    }

    /// Every plan made on this GPU so far, by any stream.
    pub fn product_plans(&self) -> Vec<ProductPlan> {
        self.gpu.products.reports()
    }
}
