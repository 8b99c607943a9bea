//! Running a product by its plan, and making the plan on its first run.

use super::call::ProductCall;
use super::plan::{Candidate, Form, Fusion, PlannedProduct, Ready, forms};
use super::timing::Stopwatch;
use crate::machine::driver_error;
use crate::ops::DType;
use crate::ops::cuda::Cuda;
use crate::ops::cuda::cublaslt::{CublasLt, Fused, Matmul, MatmulAlgorithm, Operands};
use crate::ops::cuda::memory::CudaMemory;
use crate::ops::work::Epilogue;
use crate::{Error, Result};
use cudarc::driver::result;
use std::sync::Arc;
use std::time::Duration;

/// GPU minutes are scarce: what is not found out in this time is not found out. An algorithm that runs is, once.
const BUDGET: Duration = Duration::from_millis(50);

/// What a stream has of its own for products: cuBLASLt's workspace, and which forms it takes.
#[derive(Default)]
pub struct StreamState {
    workspace: Option<CudaMemory>,
    pub fusion: Fusion,
}

/// What NVIDIA recommends: Hopper's kernels split more.
const fn workspace_bytes(capability: u32) -> usize {
    if capability >= 90 { 32 << 20 } else { 4 << 20 }
}

impl Cuda {
    pub(super) fn product(&mut self, call: &ProductCall) -> Result<()> {
        if call.out_len() == 0 {
            return Ok(());
        }
        self.bind()?;
        let library = self.gpu.products.library()?;
        let plan = match self.gpu.products.plan(&call.key) {
            Some(plan) => plan,
            None => self.plan(&library, call)?,
        };
        let ready = plan.choose(self.products.fusion);
        self.perform(&library, call, ready.candidate.form, &ready.matmul, &ready.algorithm)
    }

    /// The whole call in one of its forms.
    fn perform(
        &mut self,
        library: &CublasLt,
        call: &ProductCall,
        form: Form,
        matmul: &Matmul,
        algorithm: &MatmulAlgorithm,
    ) -> Result<()> {
        let ProductCall { key, out, b, bias, pre, .. } = *call;
        let (dtype, len, plain) = (key.dtype, call.out_len(), call.operands());
        let [rows, outputs] = [key.shape.rows, key.shape.outputs];
        let multiply = |cuda: &mut Cuda, operands| cuda.multiply(library, matmul, algorithm, &operands);
        // What the product adds to: the bias in every row, plus the result so far.
        let base = if key.shape.accumulate { out } else { 0 };
        match (key.epilogue, form) {
            (Epilogue::None, _) | (Epilogue::Bias | Epilogue::BiasGelu | Epilogue::GeluBackward, Form::Fused) => {
                multiply(self, plain)
            }
            (Epilogue::Bias, _) => {
                self.bias_rows(dtype, [rows, outputs], out, base, bias)?;
                multiply(self, Operands { beta: 1.0, ..plain })
            }
            (Epilogue::BiasGelu, Form::BiasFused) => {
                multiply(self, Operands { d: pre, c: if base == 0 { pre } else { out }, ..plain })?;
                self.bias_gelu_forward(dtype, len, out, pre)
            }
            (Epilogue::BiasGelu, _) => {
                self.bias_rows(dtype, [rows, outputs], pre, base, bias)?;
                multiply(self, Operands { c: pre, d: pre, beta: 1.0, ..plain })?;
                self.bias_gelu_forward(dtype, len, out, pre)
            }
            (Epilogue::GeluBackward, _) => {
                multiply(self, plain)?;
                self.bias_gelu_backward(dtype, len, out, pre)
            }
            (Epilogue::BiasGradient, Form::Fused) => {
                let sums = self.scratch(outputs * DType::F32.bytes())?;
                multiply(self, Operands { bias: sums, ..plain })?;
                self.bias_gradient_add([key.output, key.gradient.unwrap_or(dtype)], outputs, bias, sums)
            }
            (Epilogue::BiasGradient, _) => {
                multiply(self, plain)?;
                self.bias_gradient([dtype, key.gradient.unwrap_or(dtype)], [rows, outputs], bias, b)
            }
        }
    }

    fn multiply(
        &mut self,
        library: &CublasLt,
        matmul: &Matmul,
        algorithm: &MatmulAlgorithm,
        operands: &Operands,
    ) -> Result<()> {
        let workspace = self.workspace()?;
        self.count_launch()?;
        if algorithm.split_k > 1 {
            // The parts are added by a kernel of their own.
            self.count_launch()?;
        }
        // SAFETY: the call's buffers were checked and are borrowed by the caller; the workspace is this stream's own.
        unsafe { library.run(matmul, algorithm, operands, workspace, self.stream.cu_stream().cast()) }
    }

    /// This stream's workspace, made on its first product.
    fn workspace(&mut self) -> Result<(u64, usize)> {
        if let Some(memory) = &self.products.workspace {
            return Ok((memory.pointer(), memory.bytes()));
        }
        self.require_free("a product's first run, which chooses its algorithm, cannot be made")?;
        let memory = CudaMemory::new(&self.gpu, workspace_bytes(self.facts().capability))?;
        let workspace = (memory.pointer(), memory.bytes());
        self.products.workspace = Some(memory);
        Ok(workspace)
    }

    /// Times every form's algorithms on the operands and keeps the fastest of each.
    fn plan(&mut self, library: &CublasLt, call: &ProductCall) -> Result<Arc<PlannedProduct>> {
        self.require_free("a product's first run, which chooses its algorithm, cannot be made")?;
        let trial = Trial::new(self, call);
        let forms = forms(&call.key);
        let (mut ready, mut refusal) = (Vec::new(), None);
        for (form, fused) in forms {
            let budget = BUDGET / forms.len() as u32;
            match self.form(library, &trial, *form, *fused, budget) {
                Ok(found) => ready.extend(found),
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        // The trials' memory is freed below: nothing may still use it.
        self.stream.synchronize().map_err(|e| driver_error("a product failed", e))?;
        match PlannedProduct::new(ready) {
            Some(plan) => Ok(self.gpu.products.keep(call.key, plan)),
            None => Err(refusal.unwrap_or_else(|| no_algorithm(call))),
        }
    }

    /// The fastest algorithm of one form, `None` where cuBLASLt has none.
    fn form(
        &mut self,
        library: &CublasLt,
        trial: &Trial,
        form: Form,
        fused: Fused,
        budget: Duration,
    ) -> Result<Option<Ready>> {
        let call = &trial.call;
        let matmul = Matmul::new(call.key.description(fused))?;
        let workspace_bytes = self.workspace()?.1;
        let algorithms = library.algorithms(&matmul, &call.operands(), workspace_bytes)?;
        let Some(&favourite) = algorithms.first() else { return Ok(None) };
        let (best, timed) = match trial.safe {
            true => self.fastest(library, call, form, &matmul, &algorithms, budget)?,
            false => (None, 0),
        };
        let algorithm = best.map_or(favourite, |(_, algorithm)| algorithm);
        let candidate = candidate(form, &algorithm, algorithms.len(), timed, best.map(|(ns, _)| ns));
        Ok(Some(Ready { matmul, algorithm, candidate }))
    }

    /// The fastest algorithm with its time, and how many were timed: one at least, as many as the budget allows.
    fn fastest(
        &mut self,
        library: &CublasLt,
        call: &ProductCall,
        form: Form,
        matmul: &Matmul,
        algorithms: &[MatmulAlgorithm],
        budget: Duration,
    ) -> Result<(Option<(f64, MatmulAlgorithm)>, usize)> {
        let (mut best, mut timed, mut refusal) = (None::<(f64, MatmulAlgorithm)>, 0, None);
        let mut watch = Stopwatch::new(self, budget)?;
        for algorithm in algorithms {
            if best.is_some() && watch.out_of_time() {
                break;
            }
            let run = |cuda: &mut Cuda| cuda.perform(library, call, form, matmul, algorithm);
            match watch.time(self, best.map(|(ns, _)| ns), run) {
                Ok(ns) => {
                    timed += 1;
                    if best.is_none_or(|(least, _)| ns < least) {
                        best = Some((ns, *algorithm));
                    }
                }
                // An algorithm that the heuristic offers may yet refuse to run.
                Err(error) => refusal = refusal.or(Some(error)),
            }
        }
        match (best, refusal) {
            (None, Some(error)) => Err(error),
            (best, _) => Ok((best, timed)),
        }
    }
}

/// The call as it may be run again and again: what accumulates goes to memory that is thrown away.
struct Trial {
    call: ProductCall,
    /// False where there was no memory for that: then nothing may be timed.
    safe: bool,
    _out: Option<CudaMemory>,
    _gradient: Option<CudaMemory>,
}

impl Trial {
    fn new(cuda: &mut Cuda, call: &ProductCall) -> Self {
        let (key, mut trial) = (call.key, *call);
        let spare = |wanted: bool, len: usize, dtype: DType| -> Option<Option<CudaMemory>> {
            if !wanted {
                return Some(None);
            }
            let memory = CudaMemory::new(&cuda.gpu, len * dtype.bytes()).ok()?;
            // SAFETY: the allocation is that long; the stream belongs to its context.
            unsafe { result::memset_d8_async(memory.pointer(), 0, memory.bytes(), cuda.stream.cu_stream()) }.ok()?;
            Some(Some(memory))
        };
        let out = spare(key.shape.accumulate, call.out_len(), key.output);
        let gradient =
            spare(key.epilogue == Epilogue::BiasGradient, key.shape.outputs, key.gradient.unwrap_or(key.dtype));
        let safe = out.is_some() && gradient.is_some();
        let (out, gradient) = (out.flatten(), gradient.flatten());
        if let Some(memory) = &out {
            trial.out = memory.pointer();
        }
        if let Some(memory) = &gradient {
            trial.bias = memory.pointer();
        }
        Trial { call: trial, safe, _out: out, _gradient: gradient }
    }
}

fn candidate(form: Form, algorithm: &MatmulAlgorithm, offered: usize, timed: usize, time_ns: Option<f64>) -> Candidate {
    let MatmulAlgorithm { id, tile, stages, split_k, waves, workspace_bytes, .. } = *algorithm;
    Candidate { form, algorithm: id, tile, stages, split_k, waves, workspace_bytes, offered, timed, time_ns }
}

fn no_algorithm(call: &ProductCall) -> Error {
    let key = &call.key;
    Error::machine(
        format!(
            "cuBLASLt has no algorithm for {} of {:?} in {} with a result in {}",
            key.product.name(),
            key.shape,
            key.dtype.name(),
            key.output.name()
        ),
        "choose another shape or type, or another cuBLAS (pip install nvidia-cublas==13.0.2.14)",
    )
}
