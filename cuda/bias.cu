// What a product's epilogue does, as kernels of their own: for the cases where cuBLASLt has no fused form, or a slower one.
//
//   bias_rows             out = base + bias (out = bias where base is null; out may be base): put there before a product
//                         that accumulates, so that sum and bias are rounded once, together
//   bias_gelu_forward     y = gelu(pre)
//   bias_gelu_backward    dx = dx·gelu'(pre), in place
//   bias_gradient_partial, bias_gradient_reduce   dbias += Σ_rows dy: partial sums in fp32, then the sum of those
//   bias_gradient_add     dbias += sums, which cuBLASLt has computed beside the product
//
// out base dy: rows × cols, row-major; bias dbias sums: cols; y pre dx: len elements. All of type T = bf16, f16 or f32
// (the reduction's T is that of dbias, which may be wider than dy's), arithmetic in fp32. Any sizes ≥ 1: 16-byte accesses
// where the width and the pointers allow, else by elements. gelu is of gelu.cuh.
//
// bias_rows, bias_gradient_partial: block (32, 8), grid (⌈cols / (32 · 16 bytes)⌉, chunks); partial: chunks × cols, fp32,
// overwritten. bias_gradient_reduce: block (32, 8), grid ⌈cols / 32⌉. Sums run in a fixed order: the same inputs give the
// same bits. bias_gelu_*: block 256, grid ⌈len / (512 · 16 bytes)⌉; bias_gradient_add: block 256, grid ⌈cols / 256⌉.
// Each byte is read once and written once. Nothing is kept in local memory; no spills at any architecture.
#include "gelu.cuh"

namespace bubblebench {

// Rows of threads in the blocks that go down the rows.
constexpr int kStrips = 8;
// Rows a thread has in flight.
constexpr int kFlight = 4;

// The columns of one thread: W neighbours where 16-byte accesses are possible, else every 32nd.
template <class T> struct Columns {
    static constexpr int W = Vector<T>::width;
    int tile, lane, cols;
    bool vectors;

    __device__ __forceinline__ int at(int i) const { return tile + (vectors ? lane * W + i : lane + i * kWarp); }
    __device__ __forceinline__ void read(const T* row, float (&v)[W]) const {
        if (vectors) {
            if (at(0) < cols) bubblebench::load(row + at(0)).unpack(v);
            return;
        }
#pragma unroll
        for (int i = 0; i < W; i++) {
            if (at(i) < cols) v[i] = to_float(row[at(i)]);
        }
    }
    __device__ __forceinline__ void write(T* row, const float (&v)[W]) const {
        if (vectors) {
            if (at(0) < cols) bubblebench::store(row + at(0), Vector<T>::pack(v));
            return;
        }
#pragma unroll
        for (int i = 0; i < W; i++) {
            if (at(i) < cols) row[at(i)] = from_float<T>(v[i]);
        }
    }
};

template <class T> __device__ __forceinline__ Columns<T> columns(int cols, bool aligned) {
    constexpr int W = Vector<T>::width;
    return {int(blockIdx.x) * kWarp * W, int(threadIdx.x), cols, aligned && cols % W == 0};
}

// --- bias ----------------------------------------------------------------------------------------------------------

// `base` and `out` may be the same: each element is read by the thread that writes it, before it does.
template <class T>
__device__ __forceinline__ void bias_rows(T* out, const T* base, const T* __restrict__ bias, int rows, int cols) {
    constexpr int W = Vector<T>::width;
    const Columns<T> mine = columns<T>(cols, aligned16(out) && aligned16(base) && aligned16(bias));
    const int first = int(blockIdx.y) * kStrips + int(threadIdx.y), step = int(gridDim.y) * kStrips;
    float b[W] = {};
    mine.read(bias, b);
    if (base == nullptr) {
        for (int row = first; row < rows; row += step) mine.write(out + size_t(row) * cols, b);
        return;
    }
    for (int row = first; row < rows; row += step) {
        float v[W] = {};
        mine.read(base + size_t(row) * cols, v);
#pragma unroll
        for (int i = 0; i < W; i++) v[i] += b[i];
        mine.write(out + size_t(row) * cols, v);
    }
}

// --- GELU ----------------------------------------------------------------------------------------------------------

// Two vectors a thread, a block's width apart; the elements past the last whole vector fall to the first threads.
template <class T, class F>
__device__ __forceinline__ void each(T* out, const T* a, const T* b, unsigned long long len, F&& f) {
    constexpr int W = Vector<T>::width;
    const bool vectors = aligned16(out) && aligned16(a) && aligned16(b);
    const size_t block = size_t(blockIdx.x) * blockDim.x * 2, whole = vectors ? len / W : 0;
    float u[2][W], v[2][W];
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const size_t at = block + size_t(k) * blockDim.x + threadIdx.x;
        if (at >= whole) continue;
        bubblebench::load(a + at * W).unpack(u[k]);
        bubblebench::load(b + at * W).unpack(v[k]);
    }
#pragma unroll
    for (int k = 0; k < 2; k++) {
        const size_t at = block + size_t(k) * blockDim.x + threadIdx.x;
        if (at >= whole) continue;
#pragma unroll
        for (int i = 0; i < W; i++) u[k][i] = f(u[k][i], v[k][i]);
        bubblebench::store(out + at * W, Vector<T>::pack(u[k]));
    }
    const size_t thread = size_t(blockIdx.x) * blockDim.x + threadIdx.x, threads = size_t(gridDim.x) * blockDim.x;
    for (size_t at = whole * W + thread; at < len; at += threads) {
        out[at] = from_float<T>(f(to_float(a[at]), to_float(b[at])));
    }
}

// --- column sums ---------------------------------------------------------------------------------------------------

// A thread sums its columns over every (gridDim.y·8)-th row, four rows in flight; then the eight strips are added.
template <class T>
__device__ __forceinline__ void bias_gradient_partial(float* __restrict__ partial, const T* __restrict__ dy, int rows,
                                                      int cols) {
    constexpr int W = Vector<T>::width, kTile = kWarp * W;
    const Columns<T> mine = columns<T>(cols, aligned16(dy));
    const int lane = int(threadIdx.x), strip = int(threadIdx.y), step = int(gridDim.y) * kStrips;
    float sum[W] = {};
    for (int row = int(blockIdx.y) * kStrips + strip; row < rows; row += kFlight * step) {
        float v[kFlight][W] = {};
#pragma unroll
        for (int k = 0; k < kFlight; k++) {
            if (row + k * step < rows) mine.read(dy + size_t(row + k * step) * cols, v[k]);
        }
#pragma unroll
        for (int k = 0; k < kFlight; k++) {
#pragma unroll
            for (int i = 0; i < W; i++) sum[i] += v[k][i];
        }
    }
    // Slot i·32 + lane, free of bank conflicts; which column a slot is depends on the path.
    __shared__ float sums[kStrips][kTile];
#pragma unroll
    for (int i = 0; i < W; i++) sums[strip][i * kWarp + lane] = sum[i];
    __syncthreads();
    for (int slot = strip * kWarp + lane; slot < kTile; slot += kStrips * kWarp) {
        const int c = mine.tile + (mine.vectors ? slot % kWarp * W + slot / kWarp : slot);
        if (c >= cols) continue;
        float total = 0.0f;
#pragma unroll
        for (int s = 0; s < kStrips; s++) total += sums[s][slot];
        partial[size_t(blockIdx.y) * cols + c] = total;
    }
}

template <class T>
__device__ __forceinline__ void bias_gradient_reduce(T* __restrict__ dbias, const float* __restrict__ partial,
                                                     int chunks, int cols) {
    const int lane = int(threadIdx.x), strip = int(threadIdx.y), c = int(blockIdx.x) * kWarp + lane;
    float sum = 0.0f;
    for (int chunk = strip; chunk < chunks && c < cols; chunk += kStrips) sum += partial[size_t(chunk) * cols + c];
    __shared__ float sums[kStrips][kWarp];
    sums[strip][lane] = sum;
    __syncthreads();
    if (strip != 0 || c >= cols) return;
    float total = to_float(dbias[c]);
#pragma unroll
    for (int s = 0; s < kStrips; s++) total += sums[s][lane];
    dbias[c] = from_float<T>(total);
}

template <class T>
__device__ __forceinline__ void bias_gradient_add(T* __restrict__ dbias, const T* __restrict__ sums, int cols) {
    const int c = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (c < cols) dbias[c] = from_float<T>(to_float(dbias[c]) + to_float(sums[c]));
}

}  // namespace bubblebench

#define BIAS(T, suffix)                                                                                            \
    BUBBLEBENCH_KERNEL(256, bias_rows_##suffix, T* out, const T* base, const T* bias, int rows, int cols) {        \
        bubblebench::bias_rows(out, base, bias, rows, cols);                                              \
    }                                                                                                              \
    BUBBLEBENCH_KERNEL(256, bias_gelu_forward_##suffix, T* y, const T* pre, unsigned long long len) {              \
        bubblebench::each(y, pre, pre, len, [](float x, float) { return bubblebench::gelu(x); });         \
    }                                                                                                              \
    BUBBLEBENCH_KERNEL(256, bias_gelu_backward_##suffix, T* dx, const T* pre, unsigned long long len) {            \
        bubblebench::each(dx, dx, pre, len,                                                               \
                          [](float d, float x) { return d * bubblebench::gelu_derivative(x); });          \
    }                                                                                                              \
    BUBBLEBENCH_KERNEL(256, bias_gradient_partial_##suffix, float* partial, const T* dy, int rows, int cols) {     \
        bubblebench::bias_gradient_partial(partial, dy, rows, cols);                                      \
    }                                                                                                              \
    BUBBLEBENCH_KERNEL(256, bias_gradient_reduce_##suffix, T* dbias, const float* partial, int chunks, int cols) { \
        bubblebench::bias_gradient_reduce(dbias, partial, chunks, cols);                                  \
    }                                                                                                              \
    BUBBLEBENCH_KERNEL(256, bias_gradient_add_##suffix, T* dbias, const T* sums, int cols) {                       \
        bubblebench::bias_gradient_add(dbias, sums, cols);                                                \
    }

BIAS(bubblebench::bf16, bf16)
BIAS(bubblebench::f16, f16)
BIAS(float, f32)
