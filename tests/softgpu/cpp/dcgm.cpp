// A software libdcgm.so.4: a running host engine with the GPUs of SOFTGPU_DEVICES, 8 without it, and enough of DCGM's
// interface for src/machine/dcgm.rs, as strict about versions, handles and fields that nobody watches. SOFTGPU_DCGM_FAULT (a
// comma-separated list): `no-engine`, nothing listens; `blank`, the fields have no value, as without the profiling right.
// softgpu_dcgm_set changes it for this copy of the library.
// GPU d has DCGM's number 7 - d, so that whoever takes it for an ordinal reads the wrong GPU.

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <string>

#define API extern "C" __attribute__((visibility("default"))) int

namespace {

constexpr int kOk = 0, kBadParameter = -1, kUninitialized = -10, kVersionMismatch = -12, kNotWatched = -16, kNoConnection = -21;
constexpr std::uintptr_t kEngine = 0x7d00, kEmbedded = 0x7d01, kGroup = 11, kFields = 12;

struct ConnectParameters {
    unsigned version, persist, timeout_ms, unix_socket;
};
struct Entity {
    unsigned kind, id;
};
struct Value {
    unsigned version, kind, id;
    unsigned short field, type;
    int status;
    unsigned unused;
    std::int64_t at;
    union {
        std::int64_t i64;
        double f64;
        char text[256];
        char blob[4096];
    };
};

bool started = false, watching = false;
int added = -1;

int devices() {
    const char* text = getenv("SOFTGPU_DEVICES");
    return text ? atoi(text) : 8;
}

std::string set_fault;

bool fault(const char* name) {
    const char* text = set_fault.empty() ? getenv("SOFTGPU_DCGM_FAULT") : set_fault.c_str();
    return text && ("," + std::string(text) + ",").find("," + std::string(name) + ",") != std::string::npos;
}

bool known(std::uintptr_t handle) { return started && (handle == kEngine || handle == kEmbedded); }

void fill(Value& value, unsigned gpu, unsigned short field, bool live) {
    memset(&value, 0, sizeof(value));
    value.version = static_cast<unsigned>(sizeof(Value)) | 2u << 24;
    value.kind = 1;
    value.id = gpu;
    value.field = field;
    value.at = static_cast<std::int64_t>(time(nullptr)) * 1000000;
    if (field == 54) {
        value.type = 's';
        snprintf(value.text, sizeof(value.text), "GPU-b0b1b2b3-b4b5-b6b7-b8b9-babbbcbdbe%02x", 7 - gpu);
        return;
    }
    value.type = 'd';
    const bool there = !live && watching && added == static_cast<int>(gpu) && field >= 1002 && field <= 1005;
    if (!there) {
        value.status = kNotWatched;
        return;
    }
    const double ratios[] = {0.875, 0.5, 0.25, 0.125};
    value.f64 = fault("blank") ? 140737488355330.0 : ratios[field - 1002];
}

}  // namespace

extern "C" __attribute__((visibility("default"))) void softgpu_dcgm_set(const char* fault_text) { set_fault = fault_text; }

API dcgmInit() {
    started = true;
    return kOk;
}
API dcgmShutdown() {
    started = false;
    return kOk;
}
API dcgmConnect_v2(const char* address, const ConnectParameters* parameters, std::uintptr_t* handle) {
    if (!started) return kUninitialized;
    if (!address || !parameters || !handle) return kBadParameter;
    if (parameters->version != (sizeof(ConnectParameters) | 2u << 24)) return kVersionMismatch;
    if (fault("no-engine")) return kNoConnection;
    *handle = kEngine;
    return kOk;
}
API dcgmDisconnect(std::uintptr_t handle) { return handle == kEngine ? kOk : kBadParameter; }
API dcgmStartEmbedded(int mode, std::uintptr_t* handle) {
    if (!started) return kUninitialized;
    if (mode != 1 || !handle) return kBadParameter;
    *handle = kEmbedded;
    return kOk;
}
API dcgmStopEmbedded(std::uintptr_t handle) { return handle == kEmbedded ? kOk : kBadParameter; }
API dcgmGetAllDevices(std::uintptr_t handle, unsigned ids[32], int* count) {
    if (!known(handle) || !ids || !count) return kBadParameter;
    *count = devices() > 8 ? 8 : devices();
    for (int i = 0; i < *count; ++i) ids[i] = static_cast<unsigned>(7 - i);
    return kOk;
}
API dcgmGroupCreate(std::uintptr_t handle, int type, const char* name, std::uintptr_t* group) {
    if (!known(handle) || type != 1 || !name || !group) return kBadParameter;
    *group = kGroup;
    return kOk;
}
API dcgmGroupAddDevice(std::uintptr_t handle, std::uintptr_t group, unsigned gpu) {
    if (!known(handle) || group != kGroup) return kBadParameter;
    added = static_cast<int>(gpu);
    return kOk;
}
API dcgmGroupDestroy(std::uintptr_t handle, std::uintptr_t group) {
    return known(handle) && group == kGroup ? kOk : kBadParameter;
}
API dcgmFieldGroupCreate(std::uintptr_t handle, int count, const unsigned short* fields, const char* name, std::uintptr_t* group) {
    if (!known(handle) || count != 4 || !fields || !name || !group) return kBadParameter;
    *group = kFields;
    return kOk;
}
API dcgmFieldGroupDestroy(std::uintptr_t handle, std::uintptr_t group) {
    return known(handle) && group == kFields ? kOk : kBadParameter;
}
API dcgmWatchFields(std::uintptr_t handle, std::uintptr_t group, std::uintptr_t fields, long long every_us, double, int) {
    if (!known(handle) || group != kGroup || fields != kFields || every_us <= 0) return kBadParameter;
    watching = true;
    return kOk;
}
API dcgmUnwatchFields(std::uintptr_t handle, std::uintptr_t group, std::uintptr_t fields) {
    if (!known(handle) || group != kGroup || fields != kFields) return kBadParameter;
    watching = false;
    return kOk;
}
API dcgmEntitiesGetLatestValues(std::uintptr_t handle, const Entity* entities, unsigned entity_count,
                                const unsigned short* fields, unsigned field_count, unsigned flags, Value* values) {
    if (!known(handle) || !entities || !fields || !values) return kBadParameter;
    for (unsigned e = 0; e < entity_count; ++e) {
        if (entities[e].kind != 1) return kBadParameter;
        for (unsigned f = 0; f < field_count; ++f) fill(values[e * field_count + f], entities[e].id, fields[f], flags & 1);
    }
    return kOk;
}
