// The software driver's functions, looked up in the library that the process uses already.
#include <dlfcn.h>

#include "nccl.h"

namespace softnccl {

const Driver& driver() {
    static const Driver found = [] {
        Driver d{};
        void* library = dlopen("libcuda.so.1", RTLD_NOW);
        if (library == nullptr) return d;
        auto find = [&](auto& function, const char* name) {
            function = reinterpret_cast<std::decay_t<decltype(function)>>(dlsym(library, name));
            return function != nullptr;
        };
        d.whole = find(d.context_get, "cuCtxGetCurrent") && find(d.context_set, "cuCtxSetCurrent") &&
                  find(d.context_device, "cuCtxGetDevice") && find(d.uuid, "cuDeviceGetUuid_v2") &&
                  find(d.attribute, "cuDeviceGetAttribute") && find(d.range, "cuMemGetAddressRange_v2") &&
                  find(d.pointer, "cuPointerGetAttribute") && find(d.capturing, "cuStreamIsCapturing") &&
                  find(d.host_function, "cuLaunchHostFunc") && find(d.stream_context, "cuStreamGetCtx") &&
                  find(d.allocate, "cuMemAlloc_v2") && find(d.release, "cuMemFree_v2");
        return d;
    }();
    return found;
}

}  // namespace softnccl
