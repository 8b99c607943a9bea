// Devices and their attributes: an architecture's limits, and small SMs and caches so that tests stay cheap.
#include <cstring>

#include "driver.h"

namespace softgpu {

unsigned shared_optin_bytes() {
    switch (settings().arch) {
        case 80:
            return 163 << 10;
        case 86:
            return 99 << 10;
        default:
            return 227 << 10;
    }
}

namespace {

int limit(int which) {
    const bool small = settings().arch == 86;
    switch (which) {
        case 1:
            return 1024;  // MAX_THREADS_PER_BLOCK
        case 2:
            return 1024;  // MAX_BLOCK_DIM_X
        case 3:
            return 1024;  // MAX_BLOCK_DIM_Y
        case 4:
            return 64;  // MAX_BLOCK_DIM_Z
        case 5:
            return 2147483647;  // MAX_GRID_DIM_X
        case 6:
            return 65535;  // MAX_GRID_DIM_Y
        case 7:
            return 65535;  // MAX_GRID_DIM_Z
        case 8:
            return 48 << 10;  // MAX_SHARED_MEMORY_PER_BLOCK
        case 9:
            return 64 << 10;  // TOTAL_CONSTANT_MEMORY
        case 10:
            return 32;  // WARP_SIZE
        case 11:
            return 2147483647;  // MAX_PITCH
        case 12:
            return 65536;  // MAX_REGISTERS_PER_BLOCK
        case 39:
            return small ? 1536 : 2048;  // MAX_THREADS_PER_MULTIPROCESSOR
        case 81:
            return int(shared_optin_bytes()) + (1 << 10);  // MAX_SHARED_MEMORY_PER_MULTIPROCESSOR
        case 82:
            return 65536;  // MAX_REGISTERS_PER_MULTIPROCESSOR
        case 97:
            return int(shared_optin_bytes());  // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
        case 106:
            return small ? 16 : 32;  // MAX_BLOCKS_PER_MULTIPROCESSOR
        case 111:
            return 1 << 10;  // RESERVED_SHARED_MEMORY_PER_BLOCK
        default:
            return -1;
    }
}

int fact(int which, int device) {
    const int l2 = int(settings().l2_bytes);
    switch (which) {
        case 13:
            return 1000000;  // CLOCK_RATE, kHz
        case 14:
        case 30:
            return 512;  // TEXTURE_ALIGNMENT, SURFACE_ALIGNMENT
        case 16:
            return settings().sms;  // MULTIPROCESSOR_COUNT
        case 33:
            return settings().devices[size_t(device)] + 1;  // PCI_BUS_ID
        case 36:
            return 1000000;  // MEMORY_CLOCK_RATE, kHz
        case 37:
            return 64;  // GLOBAL_MEMORY_BUS_WIDTH
        case 38:
            return l2;  // L2_CACHE_SIZE
        case 40:
            return 2;  // ASYNC_ENGINE_COUNT
        case 51:
            return 32;  // TEXTURE_PITCH_ALIGNMENT
        case 75:
            return settings().arch / 10;  // COMPUTE_CAPABILITY_MAJOR
        case 76:
            return settings().arch % 10;  // COMPUTE_CAPABILITY_MINOR
        case 87:
            return 2;  // SINGLE_TO_DOUBLE_PRECISION_PERF_RATIO
        case 108:
            return l2 / 4 * 3;  // MAX_PERSISTING_L2_CACHE_SIZE
        case 109:
            return l2;  // MAX_ACCESS_POLICY_WINDOW_SIZE
        // OVERLAP, CAN_MAP_HOST_MEMORY, CONCURRENT_KERNELS, UNIFIED_ADDRESSING, STREAM_PRIORITIES, GLOBAL_L1, LOCAL_L1,
        // COMPUTE_PREEMPTION, CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM, STREAM_MEM_OPS, STREAM_WAIT_VALUE_NOR
        case 15:
        case 19:
        case 31:
        case 41:
        case 78:
        case 79:
        case 80:
        case 90:
        case 91:
        case 92:
        case 94:
        case 123:
            return 1;
        default:
            return 0;
    }
}

bool there(int device) { return device >= 0 && size_t(device) < settings().devices.size(); }

int of_device(const char* function, int device, const std::function<int()>& body) {
    return anywhere(function, [&] {
        if (!initialized()) return int(kNotInitialized);
        return there(device) ? body() : int(kInvalidDevice);
    });
}

}  // namespace

int device_attribute(int which, int device) {
    const int value = limit(which);
    return value >= 0 ? value : fact(which, device);
}

}  // namespace softgpu

using namespace softgpu;

API cuDriverGetVersion(int* version) {
    return anywhere(__func__, [&] { return *version = settings().faults.driver_version, kSuccess; });
}

API cuDeviceGetCount(int* count) {
    return anywhere(__func__, [&] {
        *count = int(settings().devices.size());
        return initialized() ? kSuccess : kNotInitialized;
    });
}

API cuDeviceGet(int* device, int ordinal) {
    return of_device(__func__, ordinal, [&] { return *device = ordinal, kSuccess; });
}

API cuDeviceGetName(char* name, int bytes, int device) {
    return of_device(__func__, device, [&] { return snprintf(name, size_t(bytes), "softgpu"), kSuccess; });
}

API cuDeviceGetUuid(unsigned char* uuid, int device) {
    return of_device(__func__, device, [&] {
        for (int i = 0; i < 16; i++)
            uuid[i] = static_cast<unsigned char>(i == 15 ? settings().devices[size_t(device)] : 0xb0 + i);
        return kSuccess;
    });
}
API cuDeviceGetUuid_v2(unsigned char* uuid, int device) { return cuDeviceGetUuid(uuid, device); }

API cuDeviceTotalMem_v2(size_t* bytes, int device) {
    return of_device(__func__, device, [&] { return *bytes = settings().memory_bytes, kSuccess; });
}

API cuDeviceGetAttribute(int* value, int which, int device) {
    return of_device(__func__, device, [&] { return *value = device_attribute(which, device), kSuccess; });
}

API cuDeviceGetPCIBusId(char* text, int bytes, int device) {
    return of_device(__func__, device, [&] {
        return snprintf(text, size_t(bytes), "0000:%02x:00.0", unsigned(device_attribute(33, device))), kSuccess;
    });
}

// 1 is PERFORMANCE_RANK (0 is best), 2 ACCESS_SUPPORTED, 3 NATIVE_ATOMIC_SUPPORTED, 4 array access.
API cuDeviceGetP2PAttribute(int* value, int which, int from, int to) {
    return of_device(__func__, from, [&] {
        if (!there(to)) return kInvalidDevice;
        if (from == to) return kInvalidDevice;
        return *value = which == 2 || which == 3, kSuccess;
    });
}

API cuDeviceCanAccessPeer(int* can, int from, int to) {
    return of_device(__func__, from,
                     [&] { return *can = there(to) && from != to, there(to) ? kSuccess : kInvalidDevice; });
}
