// Layer normalisation over the last axis (Ba, Kiros, Hinton, arXiv 1607.06450): forward, to inputs, to weights.
//
//   y      =  (x − mean)·rstd·gamma + beta                      mean, rstd = 1/√(variance + epsilon): one per row, fp32, kept
//   dx     =  rstd·(g − mean(g) − x̂·mean(g·x̂)) + residual       g = dy·gamma, x̂ = (x − mean)·rstd; residual may be null
//   dgamma += Σ_rows dy·x̂        dbeta += Σ_rows dy             two kernels: partial sums in fp32, then the sum of those
//
// x y dy dx residual: rows × cols, row-major; gamma beta dgamma dbeta: cols; all of type T = bf16, f16 or f32, every
// sum in fp32. Any cols ≥ 1: where 16-byte accesses are possible (cols a multiple of 16 bytes, pointers aligned) and
// the row fits the block's registers it is read once; other rows take the element path, which reads them again instead.
//
// forward, to_inputs: block (threads a row, rows a block), grid ⌈rows / rows a block⌉. Threads a row: 32 with any rows
//   a block, or a multiple of 32 with one row a block; up to 1024 forward, 512 to inputs (it keeps two rows, and 64
//   registers would spill). The row is read once up to cols ≤ threads·4·(16 bytes).
// to_weights_partial: block (32, 8), grid (⌈cols / (32 · 16 bytes)⌉, chunks); partial: 2 × chunks × cols, fp32,
// overwritten. to_weights_reduce: block (32, 8), grid ⌈cols / 32⌉. Sums run in a fixed order: the same inputs give the
// same bits. Nothing is kept in local memory; no spills at any architecture.
#include "layernorm.cuh"

namespace bubblebench {

// Rows of threads in the blocks that sum over rows.
constexpr int kStrips = 8;

// --- forward -------------------------------------------------------------------------------------------------------

template <class T> __device__ __forceinline__ float2 forward_vectors(T* y, const T* x, const T* gamma, const T* beta,
                                                                     int cols, float epsilon) {
    Vector<T> row[kHeld];
#pragma unroll
    for (int k = 0; k < kHeld; k++) {
        if (column<T>(k) < cols) row[k] = load(x + column<T>(k));
    }
    return normalize_held(y, row, gamma, beta, cols, epsilon);
}

template <class T>
__device__ __forceinline__ void layernorm_forward(T* __restrict__ y, float* __restrict__ mean, float* __restrict__ rstd,
                                                  const T* __restrict__ x, const T* __restrict__ gamma,
                                                  const T* __restrict__ beta, int rows, int cols, float epsilon) {
    const int row = int(blockIdx.x * blockDim.y + threadIdx.y);
    if (row >= rows) return;  // a whole warp: several rows a block means one warp a row
    const size_t at = size_t(row) * cols;
    const bool vectors = held<T>(cols) && aligned16(x) && aligned16(y) && aligned16(gamma) && aligned16(beta);
    const float2 s = vectors ? forward_vectors(y + at, x + at, gamma, beta, cols, epsilon)
                             : normalize_elements(y + at, x + at, gamma, beta, cols, epsilon);
    if (threadIdx.x == 0) {
        mean[row] = s.x;
        rstd[row] = s.y;
    }
}

// --- to inputs -----------------------------------------------------------------------------------------------------

template <class T> __device__ __forceinline__ void to_inputs_vectors(T* dx, const T* dy, const T* x, const T* gamma,
                                                                     const T* residual, float mean, float rstd,
                                                                     int cols) {
    constexpr int W = Vector<T>::width;
    Vector<T> dys[kHeld], xs[kHeld];
    float sums[2] = {0.0f, 0.0f}, d[W], v[W], g[W];
#pragma unroll
    for (int k = 0; k < kHeld; k++) {
        if (column<T>(k) >= cols) continue;
        dys[k] = load(dy + column<T>(k));
        xs[k] = load(x + column<T>(k));
    }
#pragma unroll
    for (int k = 0; k < kHeld; k++) {
        const int c = column<T>(k);
        if (c >= cols) continue;
        dys[k].unpack(d);
        xs[k].unpack(v);
        load(gamma + c).unpack(g);
#pragma unroll
        for (int i = 0; i < W; i++) {
            sums[0] += d[i] * g[i];
            sums[1] += d[i] * g[i] * (v[i] - mean) * rstd;
        }
    }
    row_sum(sums);
    const float mean_g = sums[0] / float(cols), mean_gx = sums[1] / float(cols);
#pragma unroll
    for (int k = 0; k < kHeld; k++) {
        const int c = column<T>(k);
        if (c >= cols) continue;
        dys[k].unpack(d);
        xs[k].unpack(v);
        load(gamma + c).unpack(g);
#pragma unroll
        for (int i = 0; i < W; i++) d[i] = rstd * (d[i] * g[i] - mean_g - (v[i] - mean) * rstd * mean_gx);
        if (residual != nullptr) {
            load(residual + c).unpack(v);
#pragma unroll
            for (int i = 0; i < W; i++) d[i] += v[i];
        }
        store(dx + c, Vector<T>::pack(d));
    }
}

template <class T> __device__ __forceinline__ void to_inputs_elements(T* dx, const T* dy, const T* x, const T* gamma,
                                                                      const T* residual, float mean, float rstd,
                                                                      int cols) {
    const int first = int(threadIdx.x), step = int(blockDim.x);
    float sums[2] = {0.0f, 0.0f};
    for (int c = first; c < cols; c += step) {
        const float g = to_float(dy[c]) * to_float(gamma[c]);
        sums[0] += g;
        sums[1] += g * (to_float(x[c]) - mean) * rstd;
    }
    row_sum(sums);
    const float mean_g = sums[0] / float(cols), mean_gx = sums[1] / float(cols);
    for (int c = first; c < cols; c += step) {
        const float g = to_float(dy[c]) * to_float(gamma[c]);
        const float skip = residual != nullptr ? to_float(residual[c]) : 0.0f;
        dx[c] = from_float<T>(rstd * (g - mean_g - (to_float(x[c]) - mean) * rstd * mean_gx) + skip);
    }
}

template <class T>
__device__ __forceinline__ void layernorm_to_inputs(T* __restrict__ dx, const T* __restrict__ dy,
                                                    const T* __restrict__ x, const T* __restrict__ gamma,
                                                    const float* __restrict__ mean, const float* __restrict__ rstd,
                                                    const T* __restrict__ residual, int rows, int cols) {
    const int row = int(blockIdx.x * blockDim.y + threadIdx.y);
    if (row >= rows) return;  // a whole warp, as above
    const size_t at = size_t(row) * cols;
    const T* skip = residual != nullptr ? residual + at : nullptr;
    const bool vectors =
        held<T>(cols) && aligned16(dx) && aligned16(dy) && aligned16(x) && aligned16(gamma) && aligned16(residual);
    if (vectors) {
        to_inputs_vectors(dx + at, dy + at, x + at, gamma, skip, mean[row], rstd[row], cols);
    } else {
        to_inputs_elements(dx + at, dy + at, x + at, gamma, skip, mean[row], rstd[row], cols);
    }
}

// --- to weights ----------------------------------------------------------------------------------------------------

// A thread sums 16 bytes' worth of columns over every (gridDim.y·8)-th row; then the block's eight strips are added.
template <class T>
__device__ __forceinline__ void layernorm_to_weights_partial(float* __restrict__ partial, const T* __restrict__ dy,
                                                             const T* __restrict__ x, const float* __restrict__ mean,
                                                             const float* __restrict__ rstd, int rows, int cols) {
    constexpr int W = Vector<T>::width, kTile = kWarp * W;
    const int lane = int(threadIdx.x), strip = int(threadIdx.y), tile = int(blockIdx.x) * kTile;
    const bool vectors = cols % W == 0 && aligned16(dy) && aligned16(x);
    float dgamma[W] = {}, dbeta[W] = {};
    for (int row = int(blockIdx.y) * kStrips + strip; row < rows; row += int(gridDim.y) * kStrips) {
        const float m = mean[row], r = rstd[row];
        const size_t at = size_t(row) * cols + tile;
        float d[W] = {}, v[W] = {};
        if (vectors) {
            if (tile + lane * W < cols) {
                load(dy + at + lane * W).unpack(d);
                load(x + at + lane * W).unpack(v);
            }
        } else {
#pragma unroll
            for (int i = 0; i < W; i++) {
                if (tile + lane + i * kWarp >= cols) continue;
                d[i] = to_float(dy[at + lane + i * kWarp]);
                v[i] = to_float(x[at + lane + i * kWarp]);
            }
        }
#pragma unroll
        for (int i = 0; i < W; i++) {
            dgamma[i] += d[i] * (v[i] - m) * r;
            dbeta[i] += d[i];
        }
    }
    // Slot i·32 + lane, free of bank conflicts; which column a slot is depends on the path above.
    __shared__ float sums[2][kStrips][kTile];
#pragma unroll
    for (int i = 0; i < W; i++) {
        sums[0][strip][i * kWarp + lane] = dgamma[i];
        sums[1][strip][i * kWarp + lane] = dbeta[i];
    }
    __syncthreads();
    for (int slot = strip * kWarp + lane; slot < kTile; slot += kStrips * kWarp) {
        const int c = tile + (vectors ? slot % kWarp * W + slot / kWarp : slot);
        if (c >= cols) continue;
        float g = 0.0f, b = 0.0f;
#pragma unroll
        for (int s = 0; s < kStrips; s++) {
            g += sums[0][s][slot];
            b += sums[1][s][slot];
        }
        partial[size_t(blockIdx.y) * cols + c] = g;
        partial[(size_t(gridDim.y) + blockIdx.y) * cols + c] = b;
    }
}

template <class T>
__device__ __forceinline__ void layernorm_to_weights_reduce(T* __restrict__ dgamma, T* __restrict__ dbeta,
                                                            const float* __restrict__ partial, int chunks, int cols) {
    const int lane = int(threadIdx.x), strip = int(threadIdx.y), c = int(blockIdx.x) * kWarp + lane;
    float g = 0.0f, b = 0.0f;
    for (int chunk = strip; chunk < chunks && c < cols; chunk += kStrips) {
        g += partial[size_t(chunk) * cols + c];
        b += partial[(size_t(chunks) + chunk) * cols + c];
    }
    __shared__ float sums[2][kStrips][kWarp];
    sums[0][strip][lane] = g;
    sums[1][strip][lane] = b;
    __syncthreads();
    if (strip != 0 || c >= cols) return;
    g = to_float(dgamma[c]);
    b = to_float(dbeta[c]);
#pragma unroll
    for (int s = 0; s < kStrips; s++) {
        g += sums[0][s][lane];
        b += sums[1][s][lane];
    }
    dgamma[c] = from_float<T>(g);
    dbeta[c] = from_float<T>(b);
}

}  // namespace bubblebench

#define LAYERNORM(T, suffix)                                                                                         \
    BUBBLEBENCH_KERNEL(1024, layernorm_forward_##suffix, T* y, float* mean, float* rstd, const T* x, const T* gamma, \
                       const T* beta, int rows, int cols, float epsilon) {                                           \
        bubblebench::layernorm_forward(y, mean, rstd, x, gamma, beta, rows, cols, epsilon);                          \
    }                                                                                                                \
    BUBBLEBENCH_KERNEL(512, layernorm_to_inputs_##suffix, T* dx, const T* dy, const T* x, const T* gamma,            \
                       const float* mean, const float* rstd, const T* residual, int rows, int cols) {                \
        bubblebench::layernorm_to_inputs(dx, dy, x, gamma, mean, rstd, residual, rows, cols);                        \
    }                                                                                                                \
    BUBBLEBENCH_KERNEL(256, layernorm_to_weights_partial_##suffix, float* partial, const T* dy, const T* x,          \
                       const float* mean, const float* rstd, int rows, int cols) {                                   \
        bubblebench::layernorm_to_weights_partial(partial, dy, x, mean, rstd, rows, cols);                           \
    }                                                                                                                \
    BUBBLEBENCH_KERNEL(256, layernorm_to_weights_reduce_##suffix, T* dgamma, T* dbeta, const float* partial,         \
                       int chunks, int cols) {                                                                       \
        bubblebench::layernorm_to_weights_reduce(dgamma, dbeta, partial, chunks, cols);                              \
    }

LAYERNORM(bubblebench::bf16, bf16)
LAYERNORM(bubblebench::f16, f16)
LAYERNORM(float, f32)
