// The skip path's sum and its layer normalisation in one pass (Ba, Kiros, Hinton, arXiv 1607.06450):
//
//   sum = a + b          y = (sum − mean)·rstd·gamma + beta          mean, rstd = 1/√(variance + epsilon): one per row
//
// a b sum y: rows × cols, row-major; gamma beta: cols; all of type T = bf16, f16 or f32; mean rstd: fp32, kept for the
// backward pass, which takes `sum` as its x. What is normalised is the sum as it is stored, rounded to T, as if the
// residual and the layernorm kernel ran one after the other; 4 elements are moved a result instead of 5.
//
// Block and grid as layernorm's forward kernel, with at most 512 threads (two rows on their way in), and as there: rows
// that fit the block's registers (up to threads · 64 bytes) are read once, others element by element, with the sum read
// back. Four vectors of each input in flight a thread. The same inputs give the same bits. No spills.
#include "layernorm.cuh"

namespace bubblebench {

template <class T>
__device__ __forceinline__ float2 residual_held(T* sum, T* y, const T* a, const T* b, const T* gamma, const T* beta,
                                                int cols, float epsilon) {
    constexpr int W = Vector<T>::width;
    Vector<T> row[kHeld], other[kHeld];
#pragma unroll
    for (int k = 0; k < kHeld; k++) {
        if (column<T>(k) >= cols) continue;
        row[k] = load(a + column<T>(k));
        other[k] = load(b + column<T>(k));
    }
#pragma unroll
    for (int k = 0; k < kHeld; k++) {
        if (column<T>(k) >= cols) continue;
        float v[W], w[W];
        row[k].unpack(v);
        other[k].unpack(w);
#pragma unroll
        for (int i = 0; i < W; i++) v[i] += w[i];
        row[k] = Vector<T>::pack(v);
        store(sum + column<T>(k), row[k]);
    }
    return normalize_held(y, row, gamma, beta, cols, epsilon);
}

template <class T>
__device__ __forceinline__ float2 residual_elements(T* sum, T* y, const T* a, const T* b, const T* gamma,
                                                    const T* beta, int cols, float epsilon) {
    for (int c = int(threadIdx.x); c < cols; c += int(blockDim.x)) sum[c] = from_float<T>(to_float(a[c]) + to_float(b[c]));
    return normalize_elements(y, static_cast<const T*>(sum), gamma, beta, cols, epsilon);  // a thread's own columns again
}

template <class T>
__device__ __forceinline__ void residual_layernorm(T* sum, T* __restrict__ y, float* __restrict__ mean,
                                                   float* __restrict__ rstd, const T* __restrict__ a,
                                                   const T* __restrict__ b, const T* __restrict__ gamma,
                                                   const T* __restrict__ beta, int rows, int cols, float epsilon) {
    const int row = int(blockIdx.x * blockDim.y + threadIdx.y);
    if (row >= rows) return;  // a whole warp: several rows a block means one warp a row
    const size_t at = size_t(row) * cols;
    const bool vectors = held<T>(cols) && aligned16(sum) && aligned16(y) && aligned16(a) && aligned16(b) &&
                         aligned16(gamma) && aligned16(beta);
    const float2 s = vectors ? residual_held(sum + at, y + at, a + at, b + at, gamma, beta, cols, epsilon)
                             : residual_elements(sum + at, y + at, a + at, b + at, gamma, beta, cols, epsilon);
    if (threadIdx.x == 0) {
        mean[row] = s.x;
        rstd[row] = s.y;
    }
}

}  // namespace bubblebench

#define RESIDUAL_LAYERNORM(T, suffix)                                                                              \
    BUBBLEBENCH_KERNEL(512, residual_layernorm_##suffix, T* sum, T* y, float* mean, float* rstd, const T* a,       \
                       const T* b, const T* gamma, const T* beta, int rows, int cols, float epsilon) {             \
        bubblebench::residual_layernorm(sum, y, mean, rstd, a, b, gamma, beta, rows, cols, epsilon);               \
    }

RESIDUAL_LAYERNORM(bubblebench::bf16, bf16)
RESIDUAL_LAYERNORM(bubblebench::f16, f16)
RESIDUAL_LAYERNORM(float, f32)
