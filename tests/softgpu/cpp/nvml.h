// What of NVML's interface the software libnvidia-ml.so.1 speaks: codes, and the layout of the structures that cross it.
// Facts are those of NVIDIA's nvml.h (CUDA 13); the names are ours. src/machine/nvml/api.rs is the other side.
#pragma once

#include <cstdint>

namespace softnvml {

using Code = int;
constexpr Code kSuccess = 0, kUninitialized = 1, kInvalidArgument = 2, kNotSupported = 3, kNotFound = 6;
constexpr Code kInsufficientSize = 7, kDriverNotLoaded = 9, kGpuIsLost = 15, kVersionMismatch = 25;

constexpr unsigned kClockSm = 1, kClockMemory = 2, kClockKinds = 4;
constexpr unsigned kUuidLength = 80, kLinks = 18;

// Current functions (v2 and later) list processes with their MIG instances; the first version without.
struct Process {
    unsigned pid;
    unsigned long long used_bytes;
    unsigned gpu_instance, compute_instance;
};
struct ProcessV1 {
    unsigned pid;
    unsigned long long used_bytes;
};

struct PciInfo {
    char bus_id_legacy[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};

struct GpmSupport {
    unsigned version, is_supported;
};
struct GpmMetric {
    unsigned id;
    Code code;
    double value;
    const char* names[3];
};
// `metrics` is longer in the real header, and grows with it: only the first `count` are ever touched.
struct GpmRequest {
    unsigned version, count;
    void *sample1, *sample2;
    GpmMetric metrics[1];
};

}  // namespace softnvml
