// Modules and functions: whatever image is loaded, its kernels are those compiled into this library.
#include <algorithm>
#include <cstring>

#include "function.h"

namespace softgpu {
namespace {

struct Module {
    Context* context;
    std::mutex mutex;
    std::map<std::string, void*> functions;
};

Table<Module>& modules() {
    static auto* all = new Table<Module>(uintptr_t(0x30) << 40);
    return *all;
}

// Registers a thread: not known to a C++ compiler, so a plausible number.
constexpr int kRegisters = 32;

int load(Context& context, void** handle, const void* image) {
    if (image == nullptr) return kInvalidValue;
    if (settings().faults.no_image) return kNoBinaryForGpu;
    if (settings().faults.driver_version < 13000) return kUnsupportedPtxVersion;
    if (const int code = unsafe_in_capture(); code != kSuccess) return code;
    auto module = std::make_shared<Module>();
    module->context = &context;
    return *handle = modules().add(std::move(module)), kSuccess;
}

int look_up(void** handle, void* module_handle, const char* name) {
    const std::shared_ptr<Module> module = modules().get(module_handle);
    if (module == nullptr) return kInvalidHandle;
    const Kernel* kernel = find_kernel(name);
    if (kernel == nullptr) return kNotFound;
    std::lock_guard lock(module->mutex);
    void*& known = module->functions[name];
    if (known == nullptr) {
        auto function = std::make_shared<Function>();
        function->kernel = kernel;
        function->context = module->context;
        known = functions().add(std::move(function));
    }
    return *handle = known, kSuccess;
}

int attribute(const Function& function, int which, int* value) {
    switch (which) {
        case 0:
            *value = int(function.kernel->max_threads);
            break;  // MAX_THREADS_PER_BLOCK
        case 1:
        case 2:
        case 3:
        case 7:
            *value = 0;
            break;  // SHARED, CONST, LOCAL, CACHE_MODE_CA
        case 4:
            *value = kRegisters;
            break;  // NUM_REGS
        case 5:
            *value = 80;
            break;  // PTX_VERSION
        case 6:
            *value = settings().arch;
            break;  // BINARY_VERSION
        case 8:
            *value = int(function.shared_limit_bytes);
            break;  // MAX_DYNAMIC_SHARED_SIZE_BYTES
        case 9:
            *value = function.carveout;
            break;  // PREFERRED_SHARED_MEMORY_CARVEOUT
        default:
            return kInvalidValue;
    }
    return kSuccess;
}

int set_attribute(Function& function, int which, int value) {
    if (which == 8) {
        if (value < 0 || unsigned(value) > shared_optin_bytes()) return kInvalidValue;
        function.shared_limit_bytes = unsigned(value);
        return kSuccess;
    }
    if (which != 9 || value < -1 || value > 100) return kInvalidValue;
    return function.carveout = value, kSuccess;
}

int occupancy(const Function& function, int device, int threads, size_t shared_bytes) {
    if (threads < 1 || unsigned(threads) > function.kernel->max_threads) return 0;
    const int warps = (threads + 31) / 32 * 32;
    int blocks = std::min(device_attribute(106, device), device_attribute(39, device) / warps);
    blocks = std::min(blocks, device_attribute(82, device) / (kRegisters * warps));
    const size_t a_block = shared_bytes + size_t(device_attribute(111, device));
    return int(std::min<size_t>(size_t(blocks), size_t(device_attribute(81, device)) / a_block));
}

int of_function(const char* name, void* handle, const std::function<int(Context&, Function&)>& body) {
    return in_context(name, [&](Context& context) {
        const std::shared_ptr<Function> function = functions().get(handle);
        return function != nullptr ? body(context, *function) : int(kInvalidHandle);
    });
}

}  // namespace

Table<Function>& functions() {
    static auto* all = new Table<Function>(uintptr_t(0xf0) << 40);
    return *all;
}

void forget_modules(const Context& context) {
    modules().forget([&](const Module& module) { return module.context == &context; });
    functions().forget([&](const Function& function) { return function.context == &context; });
}

}  // namespace softgpu

using namespace softgpu;

API cuModuleLoadData(void** module, const void* image) {
    return in_context(__func__, [&](Context& context) { return load(context, module, image); });
}
API cuModuleLoadDataEx(void** module, const void* image, unsigned, int*, void**) {
    return in_context(__func__, [&](Context& context) { return load(context, module, image); });
}
API cuModuleLoadFatBinary(void** module, const void* image) {
    return in_context(__func__, [&](Context& context) { return load(context, module, image); });
}

// Its functions go with it.
API cuModuleUnload(void* handle) {
    return in_context(__func__, [&](Context&) {
        const std::shared_ptr<Module> module = modules().take(handle);
        if (module == nullptr) return kInvalidHandle;
        for (auto& [name, function] : module->functions) functions().take(function);
        return kSuccess;
    });
}

API cuModuleGetFunction(void** function, void* module, const char* name) {
    return in_context(__func__, [&](Context&) { return look_up(function, module, name); });
}
API cuModuleGetGlobal_v2(Address*, size_t*, void*, const char*) {
    return in_context(__func__, [&](Context&) { return kNotFound; });
}

API cuFuncGetAttribute(int* value, int which, void* function) {
    return of_function(__func__, function, [&](Context&, Function& f) { return attribute(f, which, value); });
}
API cuFuncSetAttribute(void* function, int which, int value) {
    return of_function(__func__, function, [&](Context&, Function& f) { return set_attribute(f, which, value); });
}
API cuFuncSetCacheConfig(void* function, int) {
    return of_function(__func__, function, [&](Context&, Function&) { return kSuccess; });
}
API cuFuncGetName(const char** name, void* function) {
    return of_function(__func__, function, [&](Context&, Function& f) { return *name = f.kernel->name, kSuccess; });
}

API cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* function, int threads, size_t shared_bytes) {
    return of_function(__func__, function, [&](Context& context, Function& f) {
        return *blocks = occupancy(f, context.device, threads, shared_bytes), kSuccess;
    });
}
API cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks, void* function, int threads, size_t shared_bytes,
                                                         unsigned) {
    return of_function(__func__, function, [&](Context& context, Function& f) {
        return *blocks = occupancy(f, context.device, threads, shared_bytes), kSuccess;
    });
}
