// A software libnvidia-ml.so.1: as many GPUs as SOFTGPU_DEVICES says (1 without it), each named `softgpu`, busy at 1980 MHz
// and 300 W. It exports what src/machine/nvml calls and is as strict: handles, versions, sizes and null pointers are
// checked, nothing answers before nvmlInit_v2. UUIDs are those the software libcuda gives.
//
// SOFTGPU_NVML_FAULT, a comma-separated list, makes it misbehave on demand:
//   init           nvmlInit_v2 fails as without a kernel module
//   not-supported  every query of a device's state is refused, as on a board that lacks the sensors
//   no-gpm         the device says it has no GPM;  gpm-denied: it says so only when sampled, as in a container
//   throttle       1200 MHz, with the reasons power cap and hardware thermal slowdown
//   swing          the SM clock alternates between 1980 and 1200 MHz
//   other-process  process 1 computes on every GPU
//   hidden-self    this process is listed under a number of another PID namespace
//   ecc            one more corrected error at every look
//   lost           after 5 looks at the clock the GPU has fallen off the bus;  hang: it never answers again
// Built with SOFTGPU_NVML_OLD it lacks what drivers before 525 lack. softgpu_nvml_set changes both variables for this copy
// of the library.

#include "nvml.h"

#include <sys/types.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>
#include <thread>

#define API extern "C" __attribute__((visibility("default"))) softnvml::Code

namespace softnvml {
namespace {

constexpr int kMost = 64;

struct Device {
    int index;
};
Device devices[kMost];

struct Sample {
    bool taken = false;
    int device = -1;
    std::chrono::steady_clock::time_point at;
};

std::mutex guard;
std::string faults, count_text;
bool configured = false;
std::atomic<int> initialised{0};
std::atomic<int> looks{0}, ecc_looks{0};
[[maybe_unused]] const auto began = std::chrono::steady_clock::now();

void configure() {
    if (configured) return;
    const char* fault = getenv("SOFTGPU_NVML_FAULT");
    const char* count = getenv("SOFTGPU_DEVICES");
    if (fault) faults = fault;
    if (count) count_text = count;
    configured = true;
    for (int i = 0; i < kMost; ++i) devices[i].index = i;
}

bool fault(const char* name) {
    std::lock_guard<std::mutex> lock(guard);
    configure();
    return ("," + faults + ",").find("," + std::string(name) + ",") != std::string::npos;
}

int device_count() {
    std::lock_guard<std::mutex> lock(guard);
    configure();
    const int count = count_text.empty() ? 1 : atoi(count_text.c_str());
    return count < 0 ? 0 : count > kMost ? kMost : count;
}

/// The device's number, or the code of what is wrong with the call.
Code check(const void* handle, const void* out, int& device) {
    if (initialised.load() <= 0) return kUninitialized;
    const auto* known = static_cast<const Device*>(handle);
    if (known < devices || known >= devices + device_count() || !out) return kInvalidArgument;
    device = static_cast<int>(known - devices);
    return kSuccess;
}

/// As `check`, for what a board may lack.
Code check_state(const void* handle, const void* out) {
    int device = 0;
    if (const Code code = check(handle, out, device)) return code;
    return fault("not-supported") ? kNotSupported : kSuccess;
}

template <typename T>
Code answer(const void* handle, T* out, T value) {
    const Code code = check_state(handle, out);
    if (code == kSuccess) *out = value;
    return code;
}

constexpr double kWatts = 300.0;

void uuid_text(int device, char* text, size_t length) {
    unsigned char bytes[16];
    for (int i = 0; i < 16; ++i) bytes[i] = static_cast<unsigned char>(i == 15 ? device : 0xb0 + i);
    char hex[64];
    size_t at = 0;
    for (int i = 0; i < 16; ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) hex[at++] = '-';
        at += static_cast<size_t>(snprintf(hex + at, sizeof(hex) - at, "%02x", bytes[i]));
    }
    snprintf(text, length, "GPU-%s", hex);
}

void pci_of(int device, PciInfo& info) {
    memset(&info, 0, sizeof(info));
    info.bus = static_cast<unsigned>(0x10 + device);
    snprintf(info.bus_id, sizeof(info.bus_id), "00000000:%02X:00.0", info.bus);
}

/// Two GPUs are linked directly, more through a switch.
unsigned active_links() { return device_count() == 1 ? 0u : device_count() == 2 ? 4u : kLinks; }

template <typename P>
Code list(const void* handle, unsigned* count, P* processes) {
    if (const Code code = check_state(handle, count)) return code;
    const unsigned self = static_cast<unsigned>(getpid());
    P all[2] = {};
    unsigned found = 0;
    all[found].pid = fault("hidden-self") ? 4000000u : self;
    all[found++].used_bytes = 512ull << 20;
    if (fault("other-process")) {
        all[found].pid = 1;
        all[found++].used_bytes = 1ull << 30;
    }
    const unsigned room = *count;
    *count = found;
    if (room < found || !processes) return kInsufficientSize;
    memcpy(processes, all, found * sizeof(P));
    return kSuccess;
}

}  // namespace
}  // namespace softnvml

using namespace softnvml;

extern "C" __attribute__((visibility("default"))) void softgpu_nvml_set(const char* devices_text, const char* fault_text) {
    std::lock_guard<std::mutex> lock(guard);
    configure();
    count_text = devices_text;
    faults = fault_text;
}

API nvmlInit_v2() {
    if (fault("init")) return kDriverNotLoaded;
    ++initialised;
    return kSuccess;
}

API nvmlShutdown() { return initialised.fetch_sub(1) > 0 ? kSuccess : kUninitialized; }

API nvmlSystemGetDriverVersion(char* text, unsigned length) {
    if (initialised.load() <= 0) return kUninitialized;
    if (!text) return kInvalidArgument;
    const char version[] = "580.00.00";
    if (length < sizeof(version)) return kInsufficientSize;
    memcpy(text, version, sizeof(version));
    return kSuccess;
}

API nvmlDeviceGetCount_v2(unsigned* count) {
    if (initialised.load() <= 0) return kUninitialized;
    if (!count) return kInvalidArgument;
    *count = static_cast<unsigned>(device_count());
    return kSuccess;
}

API nvmlDeviceGetHandleByUUID(const char* uuid, void** device) {
    if (initialised.load() <= 0) return kUninitialized;
    if (!uuid || !device) return kInvalidArgument;
    char text[kUuidLength];
    for (int i = 0; i < device_count(); ++i) {
        uuid_text(i, text, sizeof(text));
        if (strcmp(text, uuid) != 0) continue;
        *device = &devices[i];
        return kSuccess;
    }
    return kNotFound;
}

API nvmlDeviceGetPciInfo_v3(void* device, PciInfo* info) {
    int index = 0;
    if (const Code code = check(device, info, index)) return code;
    pci_of(index, *info);
    return kSuccess;
}

API nvmlDeviceGetClockInfo(void* device, unsigned kind, unsigned* mhz) {
    if (kind >= kClockKinds) return kInvalidArgument;
    if (const Code code = check_state(device, mhz)) return code;
    const int look = kind == kClockSm ? looks++ : looks.load();
    if (look >= 5 && fault("lost")) return kGpuIsLost;
    if (look >= 5 && fault("hang")) {
        for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
    }
    const bool slow = fault("throttle") || (fault("swing") && look % 2 == 1);
    *mhz = kind == kClockMemory ? 3201 : slow ? 1200 : 1980;
    return kSuccess;
}

API nvmlDeviceGetMaxClockInfo(void* device, unsigned kind, unsigned* mhz) {
    if (kind >= kClockKinds) return kInvalidArgument;
    return answer(device, mhz, kind == kClockMemory ? 3201u : 1980u);
}

API nvmlDeviceGetApplicationsClock(void* device, unsigned kind, unsigned* mhz) {
    if (kind >= kClockKinds) return kInvalidArgument;
    return answer(device, mhz, kind == kClockMemory ? 3201u : 1830u);
}

API nvmlDeviceGetPowerUsage(void* device, unsigned* milliwatts) {
    return answer(device, milliwatts, static_cast<unsigned>(kWatts * 1000));
}

API nvmlDeviceGetEnforcedPowerLimit(void* device, unsigned* milliwatts) { return answer(device, milliwatts, 700000u); }

API nvmlDeviceGetTemperature(void* device, unsigned sensor, unsigned* celsius) {
    return sensor == 0 ? answer(device, celsius, 61u) : kInvalidArgument;
}

API nvmlDeviceGetCurrentClocksThrottleReasons(void* device, unsigned long long* reasons) {
    return answer(device, reasons, fault("throttle") ? 0x44ull : 0ull);
}

API nvmlDeviceGetEccMode(void* device, unsigned* current, unsigned* pending) {
    if (!pending) return kInvalidArgument;
    *pending = 1;
    return answer(device, current, 1u);
}

API nvmlDeviceGetTotalEccErrors(void* device, unsigned kind, unsigned counter, unsigned long long* errors) {
    if (kind > 1 || counter > 1) return kInvalidArgument;
    return answer(device, errors, kind == 0 && fault("ecc") ? static_cast<unsigned long long>(++ecc_looks) : 0ull);
}

API nvmlDeviceGetPersistenceMode(void* device, unsigned* on) { return answer(device, on, 1u); }
API nvmlDeviceGetComputeMode(void* device, unsigned* mode) { return answer(device, mode, 0u); }

API nvmlDeviceGetNvLinkState(void* device, unsigned link, unsigned* active) {
    return link < kLinks ? answer(device, active, link < active_links() ? 1u : 0u) : kInvalidArgument;
}

API nvmlDeviceGetNvLinkRemotePciInfo_v2(void* device, unsigned link, PciInfo* info) {
    int index = 0;
    if (const Code code = check(device, info, index)) return code;
    if (link >= active_links()) return kInvalidArgument;
    // A switch stands in no GPU's slot.
    pci_of(device_count() == 2 ? 1 - index : 0x80, *info);
    return kSuccess;
}

API nvmlDeviceGetTopologyCommonAncestor(void* one, void* other, unsigned* level) {
    int a = 0, b = 0;
    if (const Code code = check(one, level, a)) return code;
    if (const Code code = check(other, level, b)) return code;
    *level = a == b ? 0 : a / 2 == b / 2 ? 10 : a / 4 == b / 4 ? 40 : 50;
    return kSuccess;
}

API nvmlDeviceGetComputeRunningProcesses(void* device, unsigned* count, ProcessV1* processes) {
    return list(device, count, processes);
}

#ifndef SOFTGPU_NVML_OLD

API nvmlDeviceGetCurrentClocksEventReasons(void* device, unsigned long long* reasons) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(device, reasons);
}

API nvmlDeviceGetTotalEnergyConsumption(void* device, unsigned long long* millijoules) {
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
    return answer(device, millijoules, static_cast<unsigned long long>(1e6 + 1000 * kWatts * seconds));
}

API nvmlDeviceGetMigMode(void* device, unsigned* current, unsigned* pending) {
    if (!pending) return kInvalidArgument;
    *pending = 0;
    return answer(device, current, 0u);
}

API nvmlDeviceGetP2PStatus(void* one, void* other, unsigned what, unsigned* status) {
    int a = 0, b = 0;
    if (const Code code = check(one, status, a)) return code;
    if (const Code code = check(other, status, b)) return code;
    if (what > 4) return kInvalidArgument;
    *status = active_links() > 0 ? 0 : 5;
    return kSuccess;
}

API nvmlDeviceGetComputeRunningProcesses_v3(void* device, unsigned* count, Process* processes) {
    return list(device, count, processes);
}

API nvmlGpmQueryDeviceSupport(void* device, GpmSupport* support) {
    if (const Code code = check_state(device, support)) return code;
    if (support->version != 1) return kVersionMismatch;
    support->is_supported = fault("no-gpm") ? 0 : 1;
    return kSuccess;
}

API nvmlGpmSampleAlloc(void** sample) {
    if (!sample) return kInvalidArgument;
    *sample = new Sample;
    return kSuccess;
}

API nvmlGpmSampleFree(void* sample) {
    if (!sample) return kInvalidArgument;
    delete static_cast<Sample*>(sample);
    return kSuccess;
}

API nvmlGpmSampleGet(void* device, void* sample) {
    int index = 0;
    if (const Code code = check(device, sample, index)) return code;
    if (fault("no-gpm") || fault("gpm-denied") || fault("not-supported")) return kNotSupported;
    *static_cast<Sample*>(sample) = {true, index, std::chrono::steady_clock::now()};
    return kSuccess;
}

API nvmlGpmMetricsGet(GpmRequest* request) {
    if (!request || !request->sample1 || !request->sample2) return kInvalidArgument;
    if (request->version != 1) return kVersionMismatch;
    const auto *first = static_cast<Sample*>(request->sample1), *second = static_cast<Sample*>(request->sample2);
    if (!first->taken || !second->taken || first->device != second->device || first->at >= second->at) return kInvalidArgument;
    for (unsigned i = 0; i < request->count; ++i) {
        GpmMetric& metric = request->metrics[i];
        const double value = metric.id == 2 ? 97.5 : metric.id == 3 ? 42.0 : metric.id == 5 ? 61.25 : metric.id == 10 ? 38.5 : -1.0;
        metric.code = value < 0 ? kNotSupported : kSuccess;
        metric.value = value < 0 ? 0.0 : value;
    }
    return kSuccess;
}

#endif
