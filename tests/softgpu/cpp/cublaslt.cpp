// A software cuBLASLt, libcublasLt.so.13: the functions bubblebench calls, over host memory, as strict as the real one.
// What is asked for is checked here; the product is multiply.cpp's; it runs in its
// stream's turn, through the driver's host functions, so that order and graph capture hold.
//
// SOFTGPU_CUBLASLT_FAULT = not-initialized (no handle) | no-algorithms (none for anything) | no-epilogue (none for a
// fused form) | few-algorithms (one at a time) | execution-failed (every product).
#include <dlfcn.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "multiply.h"

namespace {

using namespace softgpu;

enum Status { kSuccess = 0, kNotInitialized = 1, kInvalidValue = 7, kExecutionFailed = 13, kNotSupported = 15 };
enum Epilogue { kDefault = 1, kBias = 4, kGeluAuxBias = 164, kDGelu = 192, kBGradB = 512 };
enum Attribute { kTransA = 3, kTransB = 4, kEpilogue = 7, kBiasPointer = 8, kAuxPointer = 11, kAuxLd = 12 };
enum Preference { kWorkspace = 1, kReductions = 3, kAlignmentA = 5, kAlignmentD = 8 };

constexpr unsigned kHandle = 0x68616e64, kDesc = 0x64657363, kLayout = 0x6c61796f, kPreference = 0x70726566;
constexpr int kCompute32 = 68, kAlgorithms = 10, kInComputeType = 2;

bool fault(const char* name) {
    const char* text = getenv("SOFTGPU_CUBLASLT_FAULT");
    return text != nullptr && strcmp(text, name) == 0;
}

struct Handle {
    unsigned magic = kHandle;
};

struct Desc {
    unsigned magic = kDesc;
    int transposed[2] = {0, 0};
    int epilogue = kDefault;
    void* bias = nullptr;
    void* aux = nullptr;
    int64_t aux_ld = 0;
};

struct Layout {
    unsigned magic = kLayout;
    Type type;
    uint64_t rows, cols;
    int64_t ld;
};

struct Wanted {
    unsigned magic = kPreference;
    uint64_t workspace = 0;
    uint32_t reductions = 7;
    uint32_t alignment[4] = {256, 256, 256, 256};
};

// The 64 opaque bytes that a caller copies about.
struct Algorithm {
    uint32_t magic;
    int32_t id, tile, stages, split_k;
    uint32_t alignment[4];
    uint32_t workspace;
    int32_t epilogue;
    uint32_t rest[5];
};
static_assert(sizeof(Algorithm) == 64, "cublasLtMatmulAlgo_t");

struct Result {
    Algorithm algorithm;
    size_t workspace;
    int state;
    float waves;
    int reserved[4];
};

template <class T> T* as(void* pointer, unsigned magic) {
    T* object = static_cast<T*>(pointer);
    return object != nullptr && object->magic == magic ? object : nullptr;
}

// --- what may be asked for -----------------------------------------------------------------------------------------

struct Problem {
    const Desc* desc;
    const Layout *a, *b, *c, *d;
    uint64_t m, n, k;
};

bool known(Type type) { return type == Type::f32 || type == Type::f16 || type == Type::bf16; }

int fused(const Problem& p) {
    const Desc& desc = *p.desc;
    if (desc.epilogue == kDefault || desc.epilogue == kBias) return kSuccess;
    // Auxiliary tensors and gradients belong to the tensor cores' kernels.
    if (p.a->type == Type::f32) return kNotSupported;
    if (desc.epilogue == kBGradB) return kSuccess;
    if (p.d->type != p.a->type) return kNotSupported;
    return desc.aux_ld >= int64_t(p.m) && desc.aux_ld % 8 == 0 ? kSuccess : kNotSupported;
}

int check(Problem& p) {
    for (const Layout* layout : {p.a, p.b, p.c, p.d}) {
        if (layout == nullptr || layout->rows == 0 || layout->cols == 0) return kInvalidValue;
        if (layout->ld < int64_t(layout->rows)) return kInvalidValue;
        if (!known(layout->type)) return kNotSupported;
    }
    const bool ta = p.desc->transposed[0] != 0, tb = p.desc->transposed[1] != 0;
    p.m = ta ? p.a->cols : p.a->rows;
    p.k = ta ? p.a->rows : p.a->cols;
    p.n = tb ? p.b->rows : p.b->cols;
    if ((tb ? p.b->cols : p.b->rows) != p.k || p.d->rows != p.m || p.d->cols != p.n) return kInvalidValue;
    if (p.c->rows != p.m || p.c->cols != p.n) return kInvalidValue;
    if (p.a->type != p.b->type || p.c->type != p.d->type) return kNotSupported;
    if (p.d->type != p.a->type && p.d->type != Type::f32) return kNotSupported;
    return fused(p);
}

Algorithm algorithm(int id, const Problem& p, const Wanted& wanted) {
    Algorithm made{};
    made.magic = kDesc ^ kHandle;
    made.id = id;
    made.tile = 15 + id % 4;
    made.stages = 3 + id % 3;
    made.split_k = id + 1;
    made.workspace = uint32_t(id) * 4096;
    made.epilogue = p.desc->epilogue;
    memcpy(made.alignment, wanted.alignment, sizeof made.alignment);
    return made;
}

// --- the product, in its stream's turn -----------------------------------------------------------------------------

struct Task {
    Operand a, b;
    const void* c;
    void* d;
    Type out;
    size_t m, n, k, ldc, ldd, run;
    float alpha, beta;
    int epilogue;
    void *bias, *aux;
    size_t aux_ld;
    void* workspace;
    size_t workspace_bytes;
    bool kept;  // a graph may run it again
};

float gelu(float x) { return 0.5f * x * (1.0f + std::tanh(0.7978845608f * (x + 0.044715f * x * x * x))); }

float gelu_derivative(float x) {
    const float t = std::tanh(0.7978845608f * (x + 0.044715f * x * x * x));
    return 0.5f * (1.0f + t) + 0.5f * x * (1.0f - t * t) * 0.7978845608f * (1.0f + 3.0f * 0.044715f * x * x);
}

float finish(const Task& task, float sum, size_t row, size_t column) {
    float value = task.alpha * sum;
    if (task.beta != 0.0f) value += task.beta * load(task.out, task.c, column * task.ldc + row);
    const size_t aux = column * task.aux_ld + row;
    switch (task.epilogue) {
        case kBias: return value + load(task.out, task.bias, row);
        case kGeluAuxBias:
            value += load(task.out, task.bias, row);
            store(task.out, task.aux, aux, value);
            return gelu(value);
        case kDGelu: return value * gelu_derivative(load(task.out, task.aux, aux));
        default: return value;
    }
}

// Sums of op(B)'s columns, one for each column of the result.
void bias_gradient(const Task& task) {
    for (size_t j = 0; j < task.n; j++) {
        float sum = 0.0f;
        for (size_t l = 0; l < task.k; l++) sum += load(task.b.type, task.b.data, task.b.index(l, j));
        store(task.out, task.bias, j, sum);
    }
}

void run(const Task& task) {
    constexpr size_t kColumns = 256;
    std::vector<float> sums(task.m * std::min(task.n, kColumns));
    for (size_t first = 0; first < task.n; first += kColumns) {
        const size_t count = std::min(kColumns, task.n - first);
        multiply(sums.data(), task.a, task.b, task.m, task.k, first, count, task.run);
        for (size_t j = 0; j < count; j++) {
            for (size_t i = 0; i < task.m; i++) {
                const float value = finish(task, sums[j * task.m + i], i, first + j);
                store(task.out, task.d, (first + j) * task.ldd + i, value);
            }
        }
    }
    if (task.epilogue == kBGradB) bias_gradient(task);
    // The workspace is ours alone meanwhile: whoever keeps anything there finds out.
    if (task.workspace_bytes > 0) memset(task.workspace, 0xa5, task.workspace_bytes);
}

void run_in_turn(void* argument) {
    Task* task = static_cast<Task*>(argument);
    run(*task);
    if (!task->kept) delete task;
}

void* driver_function(const char* name) {
    // The driver may have been loaded for its owner's eyes only.
    static void* driver = dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
    return driver != nullptr ? dlsym(driver, name) : dlsym(RTLD_DEFAULT, name);
}

// A driver without host functions does everything at once, and so does this.
int enqueue(Task* task, void* stream) {
    using Launch = int (*)(void*, void (*)(void*), void*);
    using Ask = int (*)(void*, int*);
    static const Launch launch = reinterpret_cast<Launch>(driver_function("cuLaunchHostFunc"));
    static const Ask capturing = reinterpret_cast<Ask>(driver_function("cuStreamIsCapturing"));
    if (launch == nullptr) return run_in_turn(task), kSuccess;
    int captured = 1;
    if (capturing != nullptr && capturing(stream, &captured) != 0) captured = 1;
    // A graph's copy stays: nobody says when the last graph that holds it is gone.
    task->kept = captured != 0;
    return launch(stream, run_in_turn, task) == 0 ? kSuccess : kExecutionFailed;
}

bool aligned(const void* pointer, size_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

int check_pointers(const Problem& p, const Algorithm& made, const void* const (&operands)[4]) {
    for (int i = 0; i < 4; i++) {
        if (operands[i] == nullptr || !aligned(operands[i], made.alignment[i])) return kInvalidValue;
    }
    const Desc& desc = *p.desc;
    const bool bias = desc.epilogue == kBias || desc.epilogue == kGeluAuxBias || desc.epilogue == kBGradB;
    const bool aux = desc.epilogue == kGeluAuxBias || desc.epilogue == kDGelu;
    if ((bias && desc.bias == nullptr) || (aux && desc.aux == nullptr)) return kInvalidValue;
    if (bias && !aligned(desc.bias, bytes_of(p.d->type))) return kInvalidValue;
    if (aux && !aligned(desc.aux, 16)) return kInvalidValue;
    return kSuccess;
}

template <class T> int set(T& value, const void* from, size_t bytes) {
    if (from == nullptr || bytes != sizeof value) return kInvalidValue;
    memcpy(&value, from, bytes);
    return kSuccess;
}

template <class T> int destroy(void* object, unsigned magic) {
    T* held = as<T>(object, magic);
    if (held == nullptr) return kInvalidValue;
    held->magic = 0;
    delete held;
    return kSuccess;
}

}  // namespace

#define API extern "C" __attribute__((visibility("default"))) int

extern "C" __attribute__((visibility("default"))) size_t cublasLtGetVersion() { return 130002; }

extern "C" __attribute__((visibility("default"))) const char* cublasLtGetStatusString(int status) {
    switch (status) {
        case kSuccess: return "success";
        case kNotInitialized: return "the library was not initialized";
        case kInvalidValue: return "an unsupported value or parameter was passed to the function";
        case kExecutionFailed: return "the GPU program failed to execute";
        case kNotSupported: return "the functionality requested is not supported";
        default: return "unknown";
    }
}

API cublasLtCreate(void** handle) {
    if (handle == nullptr) return kInvalidValue;
    if (fault("not-initialized")) return kNotInitialized;
    return *handle = new Handle, kSuccess;
}
API cublasLtDestroy(void* handle) { return destroy<Handle>(handle, kHandle); }

API cublasLtMatmulDescCreate(void** desc, int compute, int scale) {
    if (desc == nullptr) return kInvalidValue;
    if (compute != kCompute32 || scale != int(Type::f32)) return kNotSupported;
    return *desc = new Desc, kSuccess;
}
API cublasLtMatmulDescDestroy(void* desc) { return destroy<Desc>(desc, kDesc); }

API cublasLtMatmulDescSetAttribute(void* desc, int attribute, const void* from, size_t bytes) {
    Desc* d = as<Desc>(desc, kDesc);
    if (d == nullptr) return kInvalidValue;
    switch (attribute) {
        case kTransA: return set(d->transposed[0], from, bytes);
        case kTransB: return set(d->transposed[1], from, bytes);
        case kEpilogue: {
            int epilogue = 0;
            if (set(epilogue, from, bytes) != kSuccess) return kInvalidValue;
            for (int one : {kDefault, kBias, kGeluAuxBias, kDGelu, kBGradB}) {
                if (one == epilogue) return d->epilogue = epilogue, kSuccess;
            }
            return kInvalidValue;
        }
        case kBiasPointer: return set(d->bias, from, bytes);
        case kAuxPointer: return set(d->aux, from, bytes);
        case kAuxLd: return set(d->aux_ld, from, bytes);
        default: return kInvalidValue;
    }
}

API cublasLtMatrixLayoutCreate(void** layout, int type, uint64_t rows, uint64_t cols, int64_t ld) {
    if (layout == nullptr) return kInvalidValue;
    Layout* made = new Layout;
    made->type = Type(type), made->rows = rows, made->cols = cols, made->ld = ld;
    return *layout = made, kSuccess;
}
API cublasLtMatrixLayoutDestroy(void* layout) { return destroy<Layout>(layout, kLayout); }

API cublasLtMatmulPreferenceCreate(void** preference) {
    if (preference == nullptr) return kInvalidValue;
    return *preference = new Wanted, kSuccess;
}
API cublasLtMatmulPreferenceDestroy(void* preference) { return destroy<Wanted>(preference, kPreference); }

API cublasLtMatmulPreferenceSetAttribute(void* preference, int attribute, const void* from, size_t bytes) {
    Wanted* wanted = as<Wanted>(preference, kPreference);
    if (wanted == nullptr) return kInvalidValue;
    if (attribute == kWorkspace) return set(wanted->workspace, from, bytes);
    if (attribute == kReductions) return set(wanted->reductions, from, bytes);
    if (attribute < kAlignmentA || attribute > kAlignmentD) return kInvalidValue;
    uint32_t alignment = 0;
    if (set(alignment, from, bytes) != kSuccess || alignment == 0) return kInvalidValue;
    if ((alignment & (alignment - 1)) != 0) return kInvalidValue;
    return wanted->alignment[attribute - kAlignmentA] = alignment, kSuccess;
}

API cublasLtMatmulAlgoGetHeuristic(void* handle, void* desc, void* a, void* b, void* c, void* d, void* preference,
                                   int requested, void* results, int* returned) {
    const Wanted* wanted = as<Wanted>(preference, kPreference);
    Problem p{as<Desc>(desc, kDesc), as<Layout>(a, kLayout), as<Layout>(b, kLayout), as<Layout>(c, kLayout),
              as<Layout>(d, kLayout), 0, 0, 0};
    if (as<Handle>(handle, kHandle) == nullptr) return kNotInitialized;
    if (p.desc == nullptr || wanted == nullptr || requested < 1 || results == nullptr || returned == nullptr) {
        return kInvalidValue;
    }
    *returned = 0;
    const int wrong = check(p);
    if (wrong != kSuccess) return wrong;
    if (fault("no-algorithms") || (fault("no-epilogue") && p.desc->epilogue != kDefault)) return kNotSupported;
    const int most = fault("few-algorithms") ? 1 : std::min(requested, kAlgorithms);
    for (int id = 0; id < kAlgorithms && *returned < most; id++) {
        const Algorithm made = algorithm(id, p, *wanted);
        // Sums split over blocks are added in the result's own type unless that is ruled out: those are not offered here.
        if (made.workspace > wanted->workspace || (id > 0 && (wanted->reductions & kInComputeType) == 0)) continue;
        Result result{};
        result.algorithm = made, result.workspace = made.workspace, result.waves = 0.5f * float(id + 1);
        memcpy(static_cast<char*>(results) + size_t(*returned) * sizeof result, &result, sizeof result);
        ++*returned;
    }
    return *returned > 0 ? kSuccess : kNotSupported;
}

API cublasLtMatmulAlgoConfigGetAttribute(const void* algo, int attribute, void* to, size_t bytes, size_t* written) {
    const Algorithm* a = static_cast<const Algorithm*>(algo);
    if (a == nullptr || a->magic != (kDesc ^ kHandle)) return kInvalidValue;
    int32_t value = 0;
    switch (attribute) {
        case 0: value = a->id; break;
        case 1: value = a->tile; break;
        case 2: value = a->split_k; break;
        case 6: value = a->stages; break;
        default: return kInvalidValue;
    }
    if (to == nullptr || bytes != sizeof value) return kInvalidValue;
    if (written != nullptr) *written = sizeof value;
    return memcpy(to, &value, sizeof value), kSuccess;
}

API cublasLtMatmul(void* handle, void* desc, const void* alpha, const void* a, void* a_layout, const void* b,
                   void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                   const void* algo, void* workspace, size_t workspace_bytes, void* stream) {
    Problem p{as<Desc>(desc, kDesc),         as<Layout>(a_layout, kLayout), as<Layout>(b_layout, kLayout),
              as<Layout>(c_layout, kLayout), as<Layout>(d_layout, kLayout), 0, 0, 0};
    if (as<Handle>(handle, kHandle) == nullptr) return kNotInitialized;
    const Algorithm* made = static_cast<const Algorithm*>(algo);
    if (p.desc == nullptr || alpha == nullptr || beta == nullptr || made == nullptr) return kInvalidValue;
    if (made->magic != (kDesc ^ kHandle) || made->epilogue != p.desc->epilogue) return kInvalidValue;
    if (int wrong = check(p)) return wrong;
    if (int wrong = check_pointers(p, *made, {a, b, c, d})) return wrong;
    if (c == d && p.c->ld != p.d->ld) return kInvalidValue;
    if (workspace_bytes < made->workspace || (made->workspace > 0 && !aligned(workspace, 16))) return kInvalidValue;
    if (made->workspace > 0 && workspace == nullptr) return kInvalidValue;
    if (fault("execution-failed")) return kExecutionFailed;
    Task* task = new Task{};
    task->a = {a, p.a->type, p.desc->transposed[0] != 0, size_t(p.a->ld)};
    task->b = {b, p.b->type, p.desc->transposed[1] != 0, size_t(p.b->ld)};
    task->c = c, task->d = d, task->out = p.d->type;
    task->m = p.m, task->n = p.n, task->k = p.k, task->ldc = size_t(p.c->ld), task->ldd = size_t(p.d->ld);
    task->run = (p.k + size_t(made->split_k) - 1) / size_t(made->split_k);
    memcpy(&task->alpha, alpha, sizeof task->alpha);
    memcpy(&task->beta, beta, sizeof task->beta);
    task->epilogue = p.desc->epilogue, task->bias = p.desc->bias, task->aux = p.desc->aux;
    task->aux_ld = size_t(p.desc->aux_ld);
    task->workspace = workspace, task->workspace_bytes = made->workspace;
    return enqueue(task, stream);
}
