// What went wrong, in the driver's words.
#include <cstring>
#include <set>

#include "driver.h"

namespace softgpu {
namespace {

struct Text {
    int code;
    const char *name, *sentence;
};

constexpr Text kTexts[] = {
    {kSuccess, "CUDA_SUCCESS", "no error"},
    {kInvalidValue, "CUDA_ERROR_INVALID_VALUE", "invalid argument"},
    {kOutOfMemory, "CUDA_ERROR_OUT_OF_MEMORY", "out of memory"},
    {kNotInitialized, "CUDA_ERROR_NOT_INITIALIZED", "initialization error"},
    {kNoDevice, "CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"},
    {kInvalidDevice, "CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"},
    {kInvalidContext, "CUDA_ERROR_INVALID_CONTEXT", "invalid device context"},
    {kNoBinaryForGpu, "CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"},
    {kUnsupportedLimit, "CUDA_ERROR_UNSUPPORTED_LIMIT", "limit is not supported on this architecture"},
    {kUnsupportedPtxVersion, "CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
     "the provided PTX was compiled with an unsupported toolchain."},
    {kInvalidHandle, "CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"},
    {kNotFound, "CUDA_ERROR_NOT_FOUND", "named symbol not found"},
    {kNotReady, "CUDA_ERROR_NOT_READY", "device not ready"},
    {kIllegalAddress, "CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"},
    {kLaunchOutOfResources, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"},
    {kPeerAccessAlreadyEnabled, "CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", "peer access is already enabled"},
    {kPeerAccessNotEnabled, "CUDA_ERROR_PEER_ACCESS_NOT_ENABLED", "peer access has not been enabled"},
    {kMisalignedAddress, "CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"},
    {kLaunchFailed, "CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"},
    {kNotSupported, "CUDA_ERROR_NOT_SUPPORTED", "operation not supported"},
    {kCaptureUnsupported, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"},
    {kCaptureInvalidated, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED",
     "operation failed due to a previous error during capture"},
    {kCaptureMerge, "CUDA_ERROR_STREAM_CAPTURE_MERGE",
     "operation would result in a merge of separate capture sequences"},
    {kCaptureUnmatched, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not ended in the same stream as it began"},
    {kCaptureUnjoined, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"},
    {kCaptureIsolation, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION",
     "dependency created on uncaptured work in another stream"},
    {kCaptureImplicit, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT",
     "operation would make the legacy stream depend on a capturing blocking stream"},
    {kCapturedEvent, "CUDA_ERROR_CAPTURED_EVENT",
     "operation not permitted on an event last recorded in a capturing stream"},
    {kCaptureWrongThread, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD",
     "attempt to terminate a thread-local capture sequence from another thread"},
};

const Text* find(int code) {
    for (const Text& text : kTexts) {
        if (text.code == code) return &text;
    }
    return nullptr;
}

std::mutex& last_mutex() {
    static std::mutex* mutex = new std::mutex;
    return *mutex;
}
std::string& last() {
    static std::string* text = new std::string;
    return *text;
}

// Callers keep the pointer for as long as they like.
const char* keep(const std::string& text) {
    static std::set<std::string>* kept = new std::set<std::string>;
    return kept->insert(text).first->c_str();
}

bool of_a_kernel(int code) { return code == kIllegalAddress || code == kMisalignedAddress || code == kLaunchFailed; }

}  // namespace

void report(const std::string& what) {
    fprintf(stderr, "softgpu: %s\n", what.c_str());
    std::lock_guard lock(last_mutex());
    last() = what;
}

}  // namespace softgpu

API cuGetErrorName(int code, const char** text) {
    const softgpu::Text* known = softgpu::find(code);
    *text = known != nullptr ? known->name : nullptr;
    return known != nullptr ? softgpu::kSuccess : softgpu::kInvalidValue;
}

API cuGetErrorString(int code, const char** text) {
    const softgpu::Text* known = softgpu::find(code);
    *text = known != nullptr ? known->sentence : nullptr;
    if (known == nullptr) return softgpu::kInvalidValue;
    std::lock_guard lock(softgpu::last_mutex());
    if (softgpu::of_a_kernel(code) && !softgpu::last().empty())
        *text = softgpu::keep(std::string(known->sentence) + ": " + softgpu::last());
    return softgpu::kSuccess;
}
