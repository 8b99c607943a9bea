// What normalises a row, shared by cuda/layernorm.cu and cuda/residual_layernorm.cu: threads of a block's row (threadIdx.y)
// hold it in registers, or pass over it in memory again where it is too wide or 16-byte accesses are not possible.
#pragma once
#include "common.cuh"

namespace bubblebench {

// Vectors of 16 bytes that a thread keeps of its row.
constexpr int kHeld = 4;

template <class T> __device__ __forceinline__ bool held(int cols) {
    return cols % Vector<T>::width == 0 && cols <= int(blockDim.x) * kHeld * Vector<T>::width;
}

// First column of this thread's k-th vector.
template <class T> __device__ __forceinline__ int column(int k) {
    return (k * int(blockDim.x) + int(threadIdx.x)) * Vector<T>::width;
}

// Mean and reciprocal deviation of a held row: two passes over registers, so that no digits cancel.
template <class T>
__device__ __forceinline__ float2 statistics(const Vector<T> (&row)[kHeld], int cols, float epsilon) {
    constexpr int W = Vector<T>::width;
    float sum[1] = {0.0f}, square[1] = {0.0f}, v[W];
#pragma unroll
    for (int k = 0; k < kHeld; k++) {
        if (column<T>(k) >= cols) continue;
        row[k].unpack(v);
#pragma unroll
        for (int i = 0; i < W; i++) sum[0] += v[i];
    }
    row_sum(sum);
    const float mean = sum[0] / float(cols);
#pragma unroll
    for (int k = 0; k < kHeld; k++) {
        if (column<T>(k) >= cols) continue;
        row[k].unpack(v);
#pragma unroll
        for (int i = 0; i < W; i++) square[0] += (v[i] - mean) * (v[i] - mean);
    }
    row_sum(square);
    return make_float2(mean, rsqrtf(square[0] / float(cols) + epsilon));
}

// The second half of a held row's way: y = (x − mean)·rstd·gamma + beta, with the statistics it returns.
template <class T>
__device__ __forceinline__ float2 normalize_held(T* y, const Vector<T> (&row)[kHeld], const T* gamma, const T* beta,
                                                 int cols, float epsilon) {
    constexpr int W = Vector<T>::width;
    const float2 s = statistics(row, cols, epsilon);
#pragma unroll
    for (int k = 0; k < kHeld; k++) {
        const int c = column<T>(k);
        if (c >= cols) continue;
        float v[W], g[W], b[W];
        row[k].unpack(v);
        load(gamma + c).unpack(g);
        load(beta + c).unpack(b);
#pragma unroll
        for (int i = 0; i < W; i++) v[i] = (v[i] - s.x) * s.y * g[i] + b[i];
        store(y + c, Vector<T>::pack(v));
    }
    return s;
}

// The whole row element by element, read three times; each thread reads its own columns only.
template <class T> __device__ __forceinline__ float2 normalize_elements(T* y, const T* x, const T* gamma,
                                                                        const T* beta, int cols, float epsilon) {
    const int first = int(threadIdx.x), step = int(blockDim.x);
    float sum[1] = {0.0f}, square[1] = {0.0f};
    for (int c = first; c < cols; c += step) sum[0] += to_float(x[c]);
    row_sum(sum);
    const float mean = sum[0] / float(cols);
    for (int c = first; c < cols; c += step) {
        const float d = to_float(x[c]) - mean;
        square[0] += d * d;
    }
    row_sum(square);
    const float rstd = rsqrtf(square[0] / float(cols) + epsilon);
    for (int c = first; c < cols; c += step) {
        y[c] = from_float<T>((to_float(x[c]) - mean) * rstd * to_float(gamma[c]) + to_float(beta[c]));
    }
    return make_float2(mean, rstd);
}

}  // namespace bubblebench
