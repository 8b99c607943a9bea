//! cuBLASLt as far as products need it: a handle, the description of one product, its algorithms, and running one.
//!
//! Everything is column-major here, as in the library. cudarc's raw bindings are called: its own safe layer asks the
//! heuristic on every call and knows neither auxiliary tensors nor bias gradients.

use crate::machine::libraries;
use crate::ops::DType;
use crate::{Error, Result};
use cudarc::cublaslt::result::{self, CublasError};
use cudarc::cublaslt::sys::{
    self, cublasLtEpilogue_t as Epilogue, cublasLtMatmulAlgoConfigAttributes_t as Config,
    cublasLtMatmulDescAttributes_t as Attribute, cublasLtMatmulPreferenceAttributes_t as Wanted,
    cublasStatus_t as Status, cudaDataType as DataType,
};
use std::ffi::c_void;
use std::sync::{Mutex, PoisonError};

/// Algorithms asked of the heuristic.
const ALGORITHMS: usize = 16;
/// Partial sums of a split product are added in the compute type (fp32); the other schemes round each to the result's.
const REDUCTION_IN_COMPUTE_TYPE: u32 = 2;

/// What the library does to a result before it is stored, or computes beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Fused {
    None,
    Bias,
    /// aux = result + bias; result = gelu(aux)
    GeluAuxBias,
    /// result · gelu'(aux)
    GeluGradient,
    /// bias = column sums of op(B), overwritten
    BiasGradient,
}

impl Fused {
    const fn code(self) -> Epilogue {
        match self {
            Fused::None => Epilogue::CUBLASLT_EPILOGUE_DEFAULT,
            Fused::Bias => Epilogue::CUBLASLT_EPILOGUE_BIAS,
            Fused::GeluAuxBias => Epilogue::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
            Fused::GeluGradient => Epilogue::CUBLASLT_EPILOGUE_DGELU,
            Fused::BiasGradient => Epilogue::CUBLASLT_EPILOGUE_BGRADB,
        }
    }
}

/// D = op(A)·op(B) + beta·C, column-major: A, B of one type, C and D of one type and layout.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Description {
    pub m: usize,
    pub n: usize,
    pub k: usize,
    pub transpose_a: bool,
    pub transpose_b: bool,
    pub input: DType,
    pub output: DType,
    pub fused: Fused,
    /// Bytes that the addresses of A, B, C and D are multiples of.
    pub alignment: [u32; 4],
}

/// Device addresses; 0 where the epilogue has no use for one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operands {
    pub a: u64,
    pub b: u64,
    pub c: u64,
    pub d: u64,
    pub bias: u64,
    pub aux: u64,
    pub beta: f32,
}

/// One way to compute a product.
#[derive(Debug, Clone, Copy)]
pub(super) struct MatmulAlgorithm {
    raw: sys::cublasLtMatmulAlgo_t,
    pub id: i32,
    pub tile: i32,
    pub stages: i32,
    pub split_k: i32,
    pub waves: f32,
    pub workspace_bytes: usize,
}

/// The library's handle, for the device whose context was current when it was made; safe from any thread.
pub(super) struct CublasLt(sys::cublasLtHandle_t);

// SAFETY: cuBLASLt's calls are thread-safe for one handle (its manual); the handle is immutable.
unsafe impl Send for CublasLt {}
// SAFETY: as above.
unsafe impl Sync for CublasLt {}

impl CublasLt {
    /// Finds the library wherever it lies; the context must be current.
    pub fn open() -> Result<Self> {
        // SAFETY: opens and closes the library, nothing else. Kept before that, it is found by its name.
        let present = libraries::keep_cublaslt().is_some() && unsafe { sys::is_culib_present() };
        if !present {
            return Err(Error::machine(
                "no cuBLASLt: libcublasLt.so.13 is not on the loader's path, in CUDA_HOME or the active Python's packages",
                "pip install nvidia-cublas==13.0.2.14",
            ));
        }
        result::create_handle().map(CublasLt).map_err(|e| failed("cuBLASLt does not start", e))
    }

    /// Algorithms for the product on these operands, the library's own favourite first; none where it has no such form.
    pub fn algorithms(
        &self,
        matmul: &Matmul,
        operands: &Operands,
        workspace_bytes: usize,
    ) -> Result<Vec<MatmulAlgorithm>> {
        let preference = Preference::new(matmul.description.alignment, workspace_bytes)?;
        let desc = matmul.prepared(operands)?;
        // SAFETY: an all-zero result is a valid one of plain numbers (status 0 is success).
        let mut results: [sys::cublasLtMatmulHeuristicResult_t; ALGORITHMS] = unsafe { std::mem::zeroed() };
        let mut count = 0;
        let Matmul { a, b, d, .. } = matmul;
        // SAFETY: handle, descriptor, layouts and preference are alive; `results` has as many places as are asked for.
        let status = unsafe {
            sys::cublasLtMatmulAlgoGetHeuristic(
                self.0,
                desc.0,
                a.0,
                b.0,
                d.0,
                d.0,
                preference.0,
                ALGORITHMS as i32,
                results.as_mut_ptr(),
                &mut count,
            )
        };
        match status {
            Status::CUBLAS_STATUS_SUCCESS => {}
            // What it has no kernel for, and what the rules of an epilogue forbid.
            Status::CUBLAS_STATUS_NOT_SUPPORTED | Status::CUBLAS_STATUS_INVALID_VALUE => return Ok(Vec::new()),
            other => return Err(failed("cuBLASLt cannot list its algorithms", CublasError(other))),
        }
        let found = results.iter().take(usize::try_from(count).unwrap_or(0));
        let usable = |r: &&sys::cublasLtMatmulHeuristicResult_t| {
            r.state == Status::CUBLAS_STATUS_SUCCESS && r.workspaceSize <= workspace_bytes
        };
        Ok(found.filter(usable).map(MatmulAlgorithm::new).collect())
    }

    /// Puts the product on a stream.
    ///
    /// # Safety
    /// The operands reach as far as the description says, and stay so until the stream is done; the workspace is that
    /// long, aligned to 256, and nobody else's on another stream.
    pub unsafe fn run(
        &self,
        matmul: &Matmul,
        algorithm: &MatmulAlgorithm,
        operands: &Operands,
        workspace: (u64, usize),
        stream: *mut c_void,
    ) -> Result<()> {
        let alpha = 1.0f32;
        let pointer = |address: u64| address as *mut c_void;
        let desc = matmul.prepared(operands)?;
        // SAFETY: descriptors are alive, the factors are read before the call returns (pointer mode host), the operands
        // are the caller's promise.
        let done = unsafe {
            result::matmul(
                self.0,
                desc.0,
                std::ptr::from_ref(&alpha).cast(),
                std::ptr::from_ref(&operands.beta).cast(),
                pointer(operands.a),
                matmul.a.0,
                pointer(operands.b),
                matmul.b.0,
                pointer(operands.c),
                matmul.d.0,
                pointer(operands.d),
                matmul.d.0,
                &algorithm.raw,
                pointer(workspace.0),
                workspace.1,
                stream.cast(),
            )
        };
        done.map_err(|e| failed("cuBLASLt cannot run a product", e))
    }
}

impl Drop for CublasLt {
    fn drop(&mut self) {
        // SAFETY: made by `open`, destroyed once; whoever used it held a reference.
        let _ = unsafe { result::destroy_handle(self.0) };
    }
}

impl MatmulAlgorithm {
    fn new(found: &sys::cublasLtMatmulHeuristicResult_t) -> Self {
        let ask = |what: Config| {
            let mut value = 0i32;
            // SAFETY: these attributes are four bytes wide; the algorithm came from the heuristic.
            let status = unsafe {
                sys::cublasLtMatmulAlgoConfigGetAttribute(
                    &found.algo,
                    what,
                    std::ptr::from_mut(&mut value).cast(),
                    size_of::<i32>(),
                    std::ptr::null_mut(),
                )
            };
            if status == Status::CUBLAS_STATUS_SUCCESS { value } else { -1 }
        };
        MatmulAlgorithm {
            raw: found.algo,
            id: ask(Config::CUBLASLT_ALGO_CONFIG_ID),
            tile: ask(Config::CUBLASLT_ALGO_CONFIG_TILE_ID),
            stages: ask(Config::CUBLASLT_ALGO_CONFIG_STAGES_ID),
            split_k: ask(Config::CUBLASLT_ALGO_CONFIG_SPLITK_NUM),
            waves: found.wavesCount,
            workspace_bytes: found.workspaceSize,
        }
    }
}

/// A described product. The addresses of bias and auxiliary tensor are part of the library's descriptor, hence the lock.
pub(super) struct Matmul {
    description: Description,
    desc: Mutex<Desc>,
    a: Layout,
    b: Layout,
    d: Layout,
}

impl Matmul {
    pub fn new(description: Description) -> Result<Self> {
        let Description { m, n, k, transpose_a, transpose_b, input, output, fused, .. } = description;
        let stored = |transposed, rows, cols| if transposed { (cols, rows) } else { (rows, cols) };
        let desc = Desc::new()?;
        let operation = |transposed: bool| i32::from(transposed); // CUBLAS_OP_N is 0, CUBLAS_OP_T is 1
        desc.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSA, operation(transpose_a))?;
        desc.set(Attribute::CUBLASLT_MATMUL_DESC_TRANSB, operation(transpose_b))?;
        desc.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, fused.code() as u32)?;
        if matches!(fused, Fused::GeluAuxBias | Fused::GeluGradient) {
            desc.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, m as i64)?;
        }
        Ok(Matmul {
            description,
            desc: Mutex::new(desc),
            a: Layout::new(input, stored(transpose_a, m, k))?,
            b: Layout::new(input, stored(transpose_b, k, n))?,
            d: Layout::new(output, (m, n))?,
        })
    }

    /// The descriptor with this call's addresses, locked until the call is made.
    fn prepared(&self, operands: &Operands) -> Result<std::sync::MutexGuard<'_, Desc>> {
        let desc = self.desc.lock().unwrap_or_else(PoisonError::into_inner);
        let fused = self.description.fused;
        if matches!(fused, Fused::Bias | Fused::GeluAuxBias | Fused::BiasGradient) {
            desc.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, operands.bias)?;
        }
        if matches!(fused, Fused::GeluAuxBias | Fused::GeluGradient) {
            desc.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER, operands.aux)?;
        }
        Ok(desc)
    }
}

struct Desc(sys::cublasLtMatmulDesc_t);

// SAFETY: host memory of the library, used by one thread at a time (behind a lock).
unsafe impl Send for Desc {}

impl Desc {
    fn new() -> Result<Self> {
        let (compute, scale) = (sys::cublasComputeType_t::CUBLAS_COMPUTE_32F, DataType::CUDA_R_32F);
        result::create_matmul_desc(compute, scale)
            .map(Desc)
            .map_err(|e| failed("cuBLASLt cannot describe a product", e))
    }

    fn set<T>(&self, attribute: Attribute, value: T) -> Result<()> {
        let from = std::ptr::from_ref(&value).cast();
        // SAFETY: the descriptor is alive; the value is copied before the call returns.
        let done = unsafe { result::set_matmul_desc_attribute(self.0, attribute, from, size_of::<T>()) };
        done.map_err(|e| failed("cuBLASLt does not take an attribute of a product", e))
    }
}

impl Drop for Desc {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { result::destroy_matmul_desc(self.0) };
    }
}

struct Layout(sys::cublasLtMatrixLayout_t);

// SAFETY: host memory of the library that nothing writes after `new`.
unsafe impl Send for Layout {}
// SAFETY: as above.
unsafe impl Sync for Layout {}

impl Layout {
    /// Whole columns one after another.
    fn new(dtype: DType, (rows, cols): (usize, usize)) -> Result<Self> {
        let made = result::create_matrix_layout(data_type(dtype)?, rows as u64, cols as u64, rows as i64);
        made.map(Layout).map_err(|e| failed("cuBLASLt cannot describe a matrix", e))
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { result::destroy_matrix_layout(self.0) };
    }
}

struct Preference(sys::cublasLtMatmulPreference_t);

impl Preference {
    fn new(alignment: [u32; 4], workspace_bytes: usize) -> Result<Self> {
        let made =
            result::create_matmul_pref().map(Preference).map_err(|e| failed("cuBLASLt takes no preferences", e))?;
        made.set(Wanted::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, workspace_bytes)?;
        made.set(Wanted::CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK, REDUCTION_IN_COMPUTE_TYPE)?;
        for (which, bytes) in [
            Wanted::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
            Wanted::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
            Wanted::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
            Wanted::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
        ]
        .into_iter()
        .zip(alignment)
        {
            made.set(which, bytes)?;
        }
        Ok(made)
    }

    fn set<T>(&self, attribute: Wanted, value: T) -> Result<()> {
        let from = std::ptr::from_ref(&value).cast();
        // SAFETY: the preference is alive; the value is copied before the call returns.
        let done = unsafe { result::set_matmul_pref_attribute(self.0, attribute, from, size_of::<T>()) };
        done.map_err(|e| failed("cuBLASLt does not take a preference", e))
    }
}

impl Drop for Preference {
    fn drop(&mut self) {
        // SAFETY: made by `new`, destroyed once.
        let _ = unsafe { result::destroy_matmul_pref(self.0) };
    }
}

fn data_type(dtype: DType) -> Result<DataType> {
    match dtype {
        DType::F32 => Ok(DataType::CUDA_R_32F),
        DType::F16 => Ok(DataType::CUDA_R_16F),
        DType::Bf16 => Ok(DataType::CUDA_R_16BF),
        DType::F64 | DType::U32 => {
            Err(Error::input(format!("a product of {}", dtype.name()), "products are of bf16, f16 or f32"))
        }
    }
}

fn failed(what: &str, error: CublasError) -> Error {
    let cure = match error.0 {
        Status::CUBLAS_STATUS_NOT_INITIALIZED | Status::CUBLAS_STATUS_ALLOC_FAILED => {
            "free the GPU of other processes, and check that driver and cuBLAS fit (`bubblebench doctor`)"
        }
        Status::CUBLAS_STATUS_ARCH_MISMATCH => {
            "this cuBLAS is too old for the GPU: pip install nvidia-cublas==13.0.2.14"
        }
        _ => {
            "check that driver and cuBLAS fit (`bubblebench doctor`), and run again with CUBLASLT_LOG_LEVEL=5 to see why"
        }
    };
    Error::machine(format!("{what}: {:?}", error.0), cure)
}
