//! What the driver says, in a sentence with a cure.

use crate::Error;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

/// Turns an error of the CUDA driver into one with a cure; `what` says what failed and reads like "cannot open device
/// 0".
pub fn driver_error(what: impl AsRef<str>, error: DriverError) -> Error {
    let what = format!("{}: {}", what.as_ref(), code(error));
    if breaks_the_context(error.0) { Error::gpu(what, cure(error.0)) } else { Error::machine(what, cure(error.0)) }
}

/// After these the driver answers every call of the process with the same code.
fn breaks_the_context(code: CUresult) -> bool {
    use CUresult::*;
    matches!(
        code,
        CUDA_ERROR_ECC_UNCORRECTABLE
            | CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_LAUNCH_FAILED
    )
}

/// The driver's own name and sentence, where it knows the code.
fn code(error: DriverError) -> String {
    match (error.error_name(), error.error_string()) {
        (Ok(name), Ok(text)) => format!("{} ({})", text.to_string_lossy(), name.to_string_lossy()),
        _ => format!("driver error {}", error.0 as u32),
    }
}

fn cure(code: CUresult) -> &'static str {
    use CUresult::*;
    match code {
        CUDA_ERROR_NO_DEVICE => "no GPU is visible: check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device host",
        CUDA_ERROR_INVALID_DEVICE => "run `bubblebench doctor` to see the devices",
        CUDA_ERROR_OUT_OF_MEMORY => "choose a smaller shape, or end what else uses the GPU's memory",
        CUDA_ERROR_NO_BINARY_FOR_GPU | CUDA_ERROR_UNSUPPORTED_PTX_VERSION | CUDA_ERROR_INVALID_PTX => {
            "the embedded kernels do not fit this GPU or driver: update the driver (580 or later for CUDA 13), or build with a CUDA toolkit the driver takes"
        }
        CUDA_ERROR_SYSTEM_DRIVER_MISMATCH | CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "the driver library and the kernel module differ: reboot, or reinstall the driver"
        }
        CUDA_ERROR_NOT_FOUND => "this program was built without that kernel: run `bubblebench doctor --kernels`",
        CUDA_ERROR_DEVICE_UNAVAILABLE => "the GPU is held exclusively by another process: wait for it to end",
        CUDA_ERROR_ECC_UNCORRECTABLE | CUDA_ERROR_NVLINK_UNCORRECTABLE => {
            "the GPU's memory or link is faulty: see nvidia-smi -q and the kernel's log, and use another GPU"
        }
        code if breaks_the_context(code) => {
            "a kernel went wrong here, or the GPU is faulty: see the kernel's log; the same command again goes on with the next case"
        }
        _ => "run `bubblebench doctor`, and check nvidia-smi",
    }
}
