// A software CUDA driver, libcuda.so.1: the functions bubblebench calls, over host memory. A kernel runs as fibers
// (executor.cpp) when it is launched.
#include <softgpu/executor.h>
#include <time.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <set>

#include "launch.h"

namespace {

enum Code { kSuccess = 0, kInvalidValue = 1, kOutOfMemory = 2, kInvalidDevice = 101, kNotFound = 500, kLaunchFailed = 719 };

constexpr size_t kTotalBytes = size_t(8) << 30;

int devices() {
    const char* text = getenv("SOFTGPU_DEVICES");
    return text != nullptr ? atoi(text) : 1;
}

struct Function {
    const softgpu::Kernel* kernel;
    unsigned shared_limit_bytes = 48 << 10;
};

thread_local void* current_context = nullptr;

int attribute(int which) {
    switch (which) {
        case 1: return 1024;              // threads a block
        case 8: return 48 << 10;          // shared memory a block
        case 10: return 32;               // warp
        case 13: return 1000000;          // clock, kHz
        case 16: return 4;                // SMs
        case 36: return 1000000;          // memory clock, kHz
        case 38: return 4 << 20;          // L2
        case 75: return 9;                // compute capability
        case 76: return 0;
        case 97: return 227 << 10;        // shared memory a block may opt in to
        default: return 0;
    }
}

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) int

API cuInit(unsigned) { return kSuccess; }
API cuDriverGetVersion(int* version) { return *version = 13000, kSuccess; }
API cuDeviceGetCount(int* count) { return *count = devices(), kSuccess; }
API cuDeviceGet(int* device, int ordinal) {
    *device = ordinal;
    return ordinal >= 0 && ordinal < devices() ? kSuccess : kInvalidDevice;
}
API cuDeviceGetName(char* name, int bytes, int) { return snprintf(name, size_t(bytes), "softgpu"), kSuccess; }
API cuDeviceGetUuid(unsigned char* uuid, int device) {
    for (int i = 0; i < 16; i++) uuid[i] = static_cast<unsigned char>(i == 15 ? device : 0xb0 + i);
    return kSuccess;
}
API cuDeviceGetUuid_v2(unsigned char* uuid, int device) { return cuDeviceGetUuid(uuid, device); }
API cuDeviceTotalMem_v2(size_t* bytes, int) { return *bytes = kTotalBytes, kSuccess; }
API cuDeviceGetAttribute(int* value, int which, int) { return *value = attribute(which), kSuccess; }
API cuDeviceGetP2PAttribute(int* value, int, int, int) { return *value = 0, kSuccess; }
API cuDevicePrimaryCtxRetain(void** context, int device) {
    return *context = reinterpret_cast<void*>(size_t(device) + 1), kSuccess;
}
API cuDevicePrimaryCtxRelease_v2(int) { return kSuccess; }
API cuCtxSetCurrent(void* context) { return current_context = context, kSuccess; }
API cuCtxGetCurrent(void** context) { return *context = current_context, kSuccess; }
API cuCtxGetDevice(int* device) { return *device = int(reinterpret_cast<size_t>(current_context)) - 1, kSuccess; }
API cuCtxSynchronize() { return kSuccess; }
API cuCtxGetStreamPriorityRange(int* least, int* greatest) { return *least = 0, *greatest = -5, kSuccess; }
API cuMemGetInfo_v2(size_t* free, size_t* total) { return *free = *total = kTotalBytes, kSuccess; }
API cuMemAlloc_v2(void** pointer, size_t bytes) {
    if (bytes == 0) return kInvalidValue;
    *pointer = aligned_alloc(256, (bytes + 255) / 256 * 256);
    return *pointer != nullptr ? kSuccess : kOutOfMemory;
}
API cuMemFree_v2(void* pointer) { return free(pointer), kSuccess; }
API cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void*) { return memcpy(to, from, bytes), kSuccess; }
API cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void*) { return memcpy(to, from, bytes), kSuccess; }
API cuMemsetD8Async(void* to, unsigned char byte, size_t bytes, void*) { return memset(to, byte, bytes), kSuccess; }
API cuStreamCreate(void** stream, unsigned) { return *stream = malloc(1), kSuccess; }
API cuStreamCreateWithPriority(void** stream, unsigned, int) { return *stream = malloc(1), kSuccess; }
API cuStreamSynchronize(void*) { return kSuccess; }
API cuStreamDestroy_v2(void* stream) { return free(stream), kSuccess; }
API cuEventCreate(void** event, unsigned) { return *event = malloc(sizeof(timespec)), kSuccess; }
API cuEventRecord(void* event, void*) { return clock_gettime(CLOCK_MONOTONIC, static_cast<timespec*>(event)), kSuccess; }
API cuEventSynchronize(void*) { return kSuccess; }
API cuEventDestroy_v2(void* event) { return free(event), kSuccess; }
API cuEventElapsedTime_v2(float* ms, void* start, void* end) {
    const timespec &a = *static_cast<timespec*>(start), &b = *static_cast<timespec*>(end);
    return *ms = float(b.tv_sec - a.tv_sec) * 1e3f + float(b.tv_nsec - a.tv_nsec) * 1e-6f, kSuccess;
}
API cuEventElapsedTime(float* ms, void* start, void* end) { return cuEventElapsedTime_v2(ms, start, end); }
API cuModuleLoadData(void** module, const void*) { return *module = malloc(1), kSuccess; }
API cuModuleUnload(void* module) { return free(module), kSuccess; }
API cuModuleGetFunction(void** function, void*, const char* name) {
    const softgpu::Kernel* kernel = softgpu::find_kernel(name);
    if (kernel == nullptr) return kNotFound;
    *function = new Function{kernel};
    return kSuccess;
}
API cuFuncSetAttribute(void* function, int which, int value) {
    if (which == 8) static_cast<Function*>(function)->shared_limit_bytes = unsigned(value);
    return kSuccess;
}
API cuLaunchKernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared_bytes, void*, void** arguments, void**) {
    const Function& f = *static_cast<Function*>(function);
    const softgpu::Launch launch{{gx, gy, gz}, {bx, by, bz}, shared_bytes, f.shared_limit_bytes, 0, 0};
    char message[1024];
    if (softgpu::try_launch(f.kernel->name, launch, {arguments, nullptr, 0}, message, sizeof message)) return kSuccess;
    fprintf(stderr, "softgpu: %s\n", message);
    return kLaunchFailed;
}
API cuGetErrorName(int, const char** text) { return *text = "CUDA_ERROR", kSuccess; }
API cuGetErrorString(int, const char** text) { return *text = "an error of the software device", kSuccess; }
