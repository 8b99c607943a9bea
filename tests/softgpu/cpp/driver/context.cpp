// Contexts: one primary context a device, its sticky error, its limits; and what every API call passes through.
#include <algorithm>
#include <new>

#include "driver.h"

namespace softgpu {
namespace {

std::atomic<bool> started{false};
thread_local std::vector<Context*> stack;

Context* contexts() {
    static Context* all = new Context[64];
    return all;
}

Context* known(const void* handle) {
    for (size_t i = 0; i < settings().devices.size(); i++) {
        if (handle == &contexts()[i]) return &contexts()[i];
    }
    return nullptr;
}

int traced(const char* function, int code) {
    if (settings().trace) fprintf(stderr, "softgpu: %s -> %d\n", function, code);
    return code;
}

std::shared_ptr<Stream> own_stream(Context& context, uint64_t id) {
    auto stream = std::make_shared<Stream>();
    stream->context = &context;
    stream->id = id;
    context.streams.push_back(stream);
    return stream;
}

void make(Context& context, int device) {
    context.device = device;
    context.sticky = kSuccess;
    context.peers = 0;
    context.limits[0] = 1024;             // stack size
    context.limits[1] = size_t(1) << 20;  // printf
    context.limits[2] = size_t(8) << 20;  // malloc heap
    context.limits[5] = 64;               // L2 fetch granularity
    context.limits[6] = 0;                // persisting L2
    std::lock_guard lock(context.mutex);
    context.legacy = own_stream(context, 1);
    context.per_thread = own_stream(context, 2);
}

// Waits for what runs, then forgets everything that was made in it, and the error.
void destroy(Context& context) {
    for (auto& stream : context.live_streams()) {
        stream->synchronize();
        std::lock_guard lock(stream->mutex);
        stream->closing = true;
        stream->arrived.notify_all();
    }
    forget_streams(context);
    forget_events(context);
    forget_modules(context);
    forget_graphs(context);
    free_all(context.device);
    std::lock_guard lock(context.mutex);
    context.streams.clear();
    context.legacy = context.per_thread = nullptr;
    context.sticky = kSuccess;
}

std::mutex& users_mutex() {
    static std::mutex* mutex = new std::mutex;
    return *mutex;
}

}  // namespace

bool initialized() { return started; }

Context* current_context() { return stack.empty() ? nullptr : stack.back(); }

Context& device_context(int device) { return contexts()[device]; }

void Context::fail(int code, const std::string& what) {
    int none = kSuccess;
    report(what);
    sticky.compare_exchange_strong(none, code);
}

std::vector<std::shared_ptr<Stream>> Context::live_streams() {
    std::lock_guard lock(mutex);
    std::vector<std::shared_ptr<Stream>> live;
    for (auto& weak : streams) {
        if (auto stream = weak.lock()) live.push_back(std::move(stream));
    }
    streams.erase(std::remove_if(streams.begin(), streams.end(), [](auto& weak) { return weak.expired(); }),
                  streams.end());
    return live;
}

int Context::synchronize() {
    for (auto& stream : live_streams()) stream->synchronize();
    if (sticky == kSuccess) {
        if (std::string broken = broken_red_zone(0, device); !broken.empty()) fail(kIllegalAddress, broken);
    }
    return sticky;
}

int anywhere(const char* function, const std::function<int()>& body) {
    try {
        return traced(function, body());
    } catch (const std::bad_alloc&) {
        return traced(function, kOutOfMemory);
    }
}

int in_context(const char* function, const std::function<int(Context&)>& body) {
    return anywhere(function, [&]() -> int {
        if (!started) return kNotInitialized;
        Context* context = current_context();
        if (context == nullptr || context->users == 0) return kInvalidContext;
        if (context->sticky != kSuccess) return context->sticky;
        return body(*context);
    });
}

}  // namespace softgpu

using namespace softgpu;

API cuInit(unsigned flags) {
    return anywhere(__func__, [&] {
        const Settings& s = settings();
        if (!s.wrong.empty()) {
            fprintf(stderr, "softgpu: %s\n", s.wrong.c_str());
            return kInvalidValue;
        }
        if (flags != 0) return kInvalidValue;
        if (s.faults.no_device || s.devices.empty()) return kNoDevice;
        started = true;
        return kSuccess;
    });
}

API cuDevicePrimaryCtxRetain(void** handle, int device) {
    return anywhere(__func__, [&] {
        if (!started) return kNotInitialized;
        if (device < 0 || size_t(device) >= settings().devices.size()) return kInvalidDevice;
        std::lock_guard lock(users_mutex());
        Context& context = contexts()[device];
        if (context.users++ == 0) make(context, device);
        *handle = &context;
        return kSuccess;
    });
}

static int release(int device, bool all) {
    if (device < 0 || size_t(device) >= settings().devices.size()) return kInvalidDevice;
    std::lock_guard lock(users_mutex());
    Context& context = contexts()[device];
    if (context.users == 0) return all ? kSuccess : kInvalidContext;
    if (all) {
        // Users keep their handles: the context is as new.
        destroy(context);
        make(context, device);
    } else if (--context.users == 0) {
        destroy(context);
    }
    return kSuccess;
}

API cuDevicePrimaryCtxRelease_v2(int device) {
    return anywhere(__func__, [&] { return release(device, false); });
}
API cuDevicePrimaryCtxReset_v2(int device) {
    return anywhere(__func__, [&] { return release(device, true); });
}
API cuDevicePrimaryCtxGetState(int device, unsigned* flags, int* active) {
    return anywhere(__func__, [&] {
        if (device < 0 || size_t(device) >= settings().devices.size()) return kInvalidDevice;
        return *flags = 0, *active = contexts()[device].users > 0, kSuccess;
    });
}

API cuCtxSetCurrent(void* handle) {
    return anywhere(__func__, [&] {
        if (handle != nullptr && known(handle) == nullptr) return kInvalidContext;
        if (!stack.empty()) stack.pop_back();
        if (handle != nullptr) stack.push_back(known(handle));
        return kSuccess;
    });
}
API cuCtxGetCurrent(void** handle) {
    return anywhere(__func__, [&] { return *handle = current_context(), started ? kSuccess : kNotInitialized; });
}
API cuCtxPushCurrent_v2(void* handle) {
    return anywhere(__func__, [&] {
        if (known(handle) == nullptr) return kInvalidContext;
        return stack.push_back(known(handle)), kSuccess;
    });
}
API cuCtxPopCurrent_v2(void** handle) {
    return anywhere(__func__, [&] {
        if (stack.empty()) return kInvalidContext;
        if (handle != nullptr) *handle = stack.back();
        return stack.pop_back(), kSuccess;
    });
}
API cuCtxGetDevice(int* device) {
    return anywhere(__func__, [&] {
        if (current_context() == nullptr) return kInvalidContext;
        return *device = current_context()->device, kSuccess;
    });
}
API cuCtxGetApiVersion(void*, unsigned* version) {
    return anywhere(__func__, [&] { return *version = 3020, kSuccess; });
}
API cuCtxGetFlags(unsigned* flags) {
    return in_context(__func__, [&](Context&) { return *flags = 0, kSuccess; });
}
API cuCtxSetFlags(unsigned) {
    return in_context(__func__, [&](Context&) { return kSuccess; });
}

API cuCtxSynchronize() {
    return in_context(__func__, [&](Context& context) {
        const int code = unsafe_in_capture();
        return code != kSuccess ? code : context.synchronize();
    });
}

API cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    return in_context(__func__, [&](Context&) { return *least = 0, *greatest = -5, kSuccess; });
}

API cuCtxSetLimit(int which, size_t value) {
    return in_context(__func__, [&](Context& context) {
        if (which < 0 || which > 6 || which == 3 || which == 4) return kUnsupportedLimit;
        const size_t most = which == 6 ? size_t(device_attribute(108, context.device)) : value;
        return context.limits[which] = std::min(value, most), kSuccess;
    });
}
API cuCtxGetLimit(size_t* value, int which) {
    return in_context(__func__, [&](Context& context) {
        if (which < 0 || which > 6 || which == 3 || which == 4) return kUnsupportedLimit;
        return *value = context.limits[which], kSuccess;
    });
}
API cuCtxResetPersistingL2Cache() {
    return in_context(__func__, [&](Context&) { return kSuccess; });
}
API cuCtxGetCacheConfig(int* config) {
    return in_context(__func__, [&](Context&) { return *config = 0, kSuccess; });
}
API cuCtxSetCacheConfig(int) {
    return in_context(__func__, [&](Context&) { return kSuccess; });
}

API cuCtxEnablePeerAccess(void* peer, unsigned flags) {
    return in_context(__func__, [&](Context& context) {
        const Context* other = known(peer);
        if (other == nullptr || flags != 0) return kInvalidValue;
        const unsigned bit = 1u << (other->device % 32);
        return context.peers.fetch_or(bit) & bit ? kPeerAccessAlreadyEnabled : kSuccess;
    });
}
API cuCtxDisablePeerAccess(void* peer) {
    return in_context(__func__, [&](Context& context) {
        const Context* other = known(peer);
        if (other == nullptr) return kInvalidContext;
        const unsigned bit = 1u << (other->device % 32);
        return context.peers.fetch_and(~bit) & bit ? kSuccess : kPeerAccessNotEnabled;
    });
}
