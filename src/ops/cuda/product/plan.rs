//! Plans: for a product's shape and types, the algorithm and the form that were fastest when it first ran.

use super::call::ProductKey;
use crate::Result;
use crate::ops::cuda::cublaslt::{CublasLt, Fused, Matmul, MatmulAlgorithm};
use crate::ops::work::{Epilogue, Product};
use crate::ops::{DType, Linear};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Who computes what a product's epilogue adds: cuBLASLt, or kernels of `cuda/bias.cu`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// cuBLASLt computes all of it; also the form of a product without an epilogue.
    Fused,
    /// cuBLASLt adds the bias; a kernel applies GELU.
    BiasFused,
    /// Kernels compute it before or after the plain product.
    Separate,
}

/// Which form a stream takes where there is a choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fusion {
    /// The form that was fastest when the plan was made.
    #[default]
    Fastest,
    /// The form in which cuBLASLt computes the most.
    Fused,
    /// The form in which cuBLASLt computes the least.
    Separate,
}

/// The best algorithm of one form of a product.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Candidate {
    /// Who computes the epilogue.
    pub form: Form,
    /// cuBLASLt's number of the algorithm; −1 where it does not tell.
    pub algorithm: i32,
    /// cuBLASLt's number of the algorithm's tile (`cublasLtMatmulTile_t`); −1 where it does not tell.
    pub tile: i32,
    /// cuBLASLt's number of the algorithm's stages (`cublasLtMatmulStages_t`); −1 where it does not tell.
    pub stages: i32,
    /// Parts that the sum over k is split into, 0 or 1 where it is not split; −1 where cuBLASLt does not tell.
    pub split_k: i32,
    /// Waves of blocks on the GPU as the heuristic counts them (`wavesCount`); 1 fills the GPU once.
    pub waves: f32,
    /// Bytes of workspace that the algorithm needs.
    pub workspace_bytes: usize,
    /// The number of algorithms that the heuristic offered for this form.
    pub offered: usize,
    /// The number of algorithms of this form that were timed.
    pub timed: usize,
    /// The time of one run in ns, epilogue included; `None` where there was no memory to time it without touching what
    /// accumulates.
    pub time_ns: Option<f64>,
}

/// How a product is computed, and what else was tried.
#[derive(Debug, Clone, PartialEq)]
pub struct ProductPlan {
    /// Which of a linear layer's three products.
    pub product: Product,
    /// The sizes of the linear layer.
    pub shape: Linear,
    /// What the product does beside multiplying.
    pub epilogue: Epilogue,
    /// The type of the operands.
    pub dtype: DType,
    /// The type of the result: that of the operands, or fp32.
    pub output: DType,
    /// The form that was fastest when the plan was made; a stream takes it unless it is told otherwise.
    pub form: Form,
    /// The best algorithm of each form that cuBLASLt offers, the most fused first.
    pub candidates: Vec<Candidate>,
}

/// A form that runs: the described product and its algorithm.
pub struct Ready {
    pub matmul: Matmul,
    pub algorithm: MatmulAlgorithm,
    pub candidate: Candidate,
}

pub struct PlannedProduct {
    /// The most fused first; never empty.
    forms: Vec<Ready>,
    fastest: usize,
}

impl PlannedProduct {
    /// Where nothing was timed, the most fused form: the library's authors know why they wrote it. `None` where there
    /// is no form.
    pub fn new(forms: Vec<Ready>) -> Option<Self> {
        let timed = forms.iter().enumerate().filter_map(|(i, form)| Some((i, form.candidate.time_ns?)));
        let fastest = timed.min_by(|a, b| a.1.total_cmp(&b.1)).map_or(0, |(i, _)| i);
        (!forms.is_empty()).then_some(PlannedProduct { forms, fastest })
    }

    pub fn choose(&self, fusion: Fusion) -> &Ready {
        match fusion {
            Fusion::Fastest => &self.forms[self.fastest],
            Fusion::Fused => &self.forms[0],
            Fusion::Separate => &self.forms[self.forms.len() - 1],
        }
    }

    fn report(&self, key: &ProductKey) -> ProductPlan {
        let ProductKey { product, shape, epilogue, dtype, output, .. } = *key;
        let candidates: Vec<Candidate> = self.forms.iter().map(|form| form.candidate.clone()).collect();
        ProductPlan { product, shape, epilogue, dtype, output, form: candidates[self.fastest].form, candidates }
    }
}

/// The forms a product may take, the most fused first, and what cuBLASLt does in each.
pub fn forms(key: &ProductKey) -> &'static [(Form, Fused)] {
    match key.epilogue {
        Epilogue::None => &[(Form::Fused, Fused::None)],
        Epilogue::Bias => &[(Form::Fused, Fused::Bias), (Form::Separate, Fused::None)],
        Epilogue::BiasGelu => {
            &[(Form::Fused, Fused::GeluAuxBias), (Form::BiasFused, Fused::Bias), (Form::Separate, Fused::None)]
        }
        Epilogue::GeluBackward => &[(Form::Fused, Fused::GeluGradient), (Form::Separate, Fused::None)],
        // The library's sums are of the result's type: they must be the gradient's or wider.
        Epilogue::BiasGradient if key.output == DType::F32 || key.gradient == Some(key.output) => {
            &[(Form::Fused, Fused::BiasGradient), (Form::Separate, Fused::None)]
        }
        Epilogue::BiasGradient => &[(Form::Separate, Fused::None)],
    }
}

/// What all streams of a GPU share: the library's handle and the plans.
#[derive(Default)]
pub struct Products {
    library: Mutex<Option<Arc<CublasLt>>>,
    plans: Mutex<HashMap<ProductKey, Arc<PlannedProduct>>>,
}

impl Products {
    /// The GPU's context must be current.
    pub fn library(&self) -> Result<Arc<CublasLt>> {
        let mut library = self.library.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(library) = &*library {
            return Ok(Arc::clone(library));
        }
        Ok(Arc::clone(library.insert(Arc::new(CublasLt::open()?))))
    }

    pub fn plan(&self, key: &ProductKey) -> Option<Arc<PlannedProduct>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// The plan that is kept: the first, where two streams made one at the same time.
    pub fn keep(&self, key: ProductKey, plan: PlannedProduct) -> Arc<PlannedProduct> {
        let mut plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(plans.entry(key).or_insert_with(|| Arc::new(plan)))
    }

    pub fn reports(&self) -> Vec<ProductPlan> {
        let plans = self.plans.lock().unwrap_or_else(PoisonError::into_inner);
        plans.iter().map(|(key, plan)| plan.report(key)).collect()
    }
}
