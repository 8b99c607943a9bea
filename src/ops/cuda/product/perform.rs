//! Running a product by its plan, and making the plan on its first run.

use super::plan::{Candidate, Form, Fusion, Plan, Ready, forms};
use super::sentence::Sentence;
use super::timing::Stopwatch;
use crate::machine::driver_error;
use crate::ops::DType;
use crate::ops::cuda::Cuda;
use crate::ops::cuda::cublaslt::{Algorithm, Fused, Library, Matmul, Operands};
use crate::ops::cuda::memory::Memory;
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
    workspace: Option<Memory>,
    pub fusion: Fusion,
}

/// What NVIDIA recommends: Hopper's kernels split more.
const fn workspace_bytes(capability: u32) -> usize {
    if capability >= 90 { 32 << 20 } else { 4 << 20 }
}

impl Cuda {
    pub(super) fn product(&mut self, sentence: &Sentence) -> Result<()> {
        if sentence.out_len() == 0 {
            return Ok(());
        }
        self.bind()?;
        let library = self.gpu.products.library()?;
        let plan = match self.gpu.products.plan(&sentence.key) {
            Some(plan) => plan,
            None => self.plan(&library, sentence)?,
        };
        let ready = plan.choose(self.products.fusion);
        self.perform(&library, sentence, ready.candidate.form, &ready.matmul, &ready.algorithm)
    }

    /// The whole sentence in one of its forms.
    fn perform(
        &mut self,
        library: &Library,
        sentence: &Sentence,
        form: Form,
        matmul: &Matmul,
        algorithm: &Algorithm,
    ) -> Result<()> {
        let Sentence { key, out, b, bias, pre, .. } = *sentence;
        let (dtype, len, plain) = (key.dtype, sentence.out_len(), sentence.operands());
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
        library: &Library,
        matmul: &Matmul,
        algorithm: &Algorithm,
        operands: &Operands,
    ) -> Result<()> {
        let workspace = self.workspace()?;
        self.count_launch()?;
        if algorithm.split_k > 1 {
            // The parts are added by a kernel of their own.
            self.count_launch()?;
        }
        // SAFETY: the sentence's buffers were checked and are borrowed by the caller; the workspace is this stream's own.
        unsafe { library.run(matmul, algorithm, operands, workspace, self.stream.cu_stream().cast()) }
    }

    /// This stream's workspace, made on its first product.
    fn workspace(&mut self) -> Result<(u64, usize)> {
        if let Some(memory) = &self.products.workspace {
            return Ok((memory.pointer(), memory.bytes()));
        }
        self.require_free("a product's first run, which chooses its algorithm, cannot be made")?;
        let memory = Memory::new(&self.gpu, workspace_bytes(self.facts().capability))?;
        let workspace = (memory.pointer(), memory.bytes());
        self.products.workspace = Some(memory);
        Ok(workspace)
    }

    /// Times every form's algorithms on the operands and keeps the fastest of each.
    fn plan(&mut self, library: &Library, sentence: &Sentence) -> Result<Arc<Plan>> {
        self.require_free("a product's first run, which chooses its algorithm, cannot be made")?;
        let trial = Trial::new(self, sentence);
        let forms = forms(&sentence.key);
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
        match Plan::new(ready) {
            Some(plan) => Ok(self.gpu.products.keep(sentence.key, plan)),
            None => Err(refusal.unwrap_or_else(|| no_algorithm(sentence))),
        }
    }

    /// The fastest algorithm of one form, `None` where cuBLASLt has none.
    fn form(
        &mut self,
        library: &Library,
        trial: &Trial,
        form: Form,
        fused: Fused,
        budget: Duration,
    ) -> Result<Option<Ready>> {
        let sentence = &trial.sentence;
        let matmul = Matmul::new(sentence.key.description(fused))?;
        let workspace_bytes = self.workspace()?.1;
        let algorithms = library.algorithms(&matmul, &sentence.operands(), workspace_bytes)?;
        let Some(&favourite) = algorithms.first() else { return Ok(None) };
        let (best, timed) = match trial.safe {
            true => self.fastest(library, sentence, form, &matmul, &algorithms, budget)?,
            false => (None, 0),
        };
        let algorithm = best.map_or(favourite, |(_, algorithm)| algorithm);
        let candidate = candidate(form, &algorithm, algorithms.len(), timed, best.map(|(ns, _)| ns));
        Ok(Some(Ready { matmul, algorithm, candidate }))
    }

    /// The fastest algorithm with its time, and how many were timed: one at least, as many as the budget allows.
    fn fastest(
        &mut self,
        library: &Library,
        sentence: &Sentence,
        form: Form,
        matmul: &Matmul,
        algorithms: &[Algorithm],
        budget: Duration,
    ) -> Result<(Option<(f64, Algorithm)>, usize)> {
        let (mut best, mut timed, mut refusal) = (None::<(f64, Algorithm)>, 0, None);
        let mut watch = Stopwatch::new(self, budget)?;
        for algorithm in algorithms {
            if best.is_some() && watch.out_of_time() {
                break;
            }
            let run = |cuda: &mut Cuda| cuda.perform(library, sentence, form, matmul, algorithm);
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

/// The sentence as it may be run again and again: what accumulates goes to memory that is thrown away.
struct Trial {
    sentence: Sentence,
    /// False where there was no memory for that: then nothing may be timed.
    safe: bool,
    _out: Option<Memory>,
    _gradient: Option<Memory>,
}

impl Trial {
    fn new(cuda: &mut Cuda, sentence: &Sentence) -> Self {
        let (key, mut trial) = (sentence.key, *sentence);
        let spare = |wanted: bool, len: usize, dtype: DType| -> Option<Option<Memory>> {
            if !wanted {
                return Some(None);
            }
            let memory = Memory::new(&cuda.gpu, len * dtype.bytes()).ok()?;
            // SAFETY: the allocation is that long; the stream belongs to its context.
            unsafe { result::memset_d8_async(memory.pointer(), 0, memory.bytes(), cuda.stream.cu_stream()) }.ok()?;
            Some(Some(memory))
        };
        let out = spare(key.shape.accumulate, sentence.out_len(), key.output);
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
        Trial { sentence: trial, safe, _out: out, _gradient: gradient }
    }
}

fn candidate(form: Form, algorithm: &Algorithm, offered: usize, timed: usize, time_ns: Option<f64>) -> Candidate {
    let Algorithm { id, tile, stages, split_k, waves, workspace_bytes, .. } = *algorithm;
    Candidate { form, algorithm: id, tile, stages, split_k, waves, workspace_bytes, offered, timed, time_ns }
}

fn no_algorithm(sentence: &Sentence) -> Error {
    let key = &sentence.key;
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
