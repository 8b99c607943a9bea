// Global average pooling over positions, channels last: forward and backward.
//
//   y[n,c] = Σ_p x[n,p,c] / positions          dx[n,p,c] = dy[n,c] / positions
//
// x dx: batch × positions × channels; y dy: batch × channels; all of type T = bf16, f16 or f32, sums in fp32, written
// over what was there. Any sizes ≥ 1; 16-byte accesses where channels are a multiple of 16 bytes and the pointers
// aligned. Sums run in a fixed order: the same inputs give the same bits.
//
// Block (lanes, strips) as columns.cuh says. forward: grid (batch, ⌈channels / (lanes · 16 bytes)⌉). backward: the same
// with a third dimension, over which positions are spread. Each element is read or written once: x bytes / bandwidth is
// the floor of both, which launch latency exceeds for the small models' shapes. No local memory.
#include "columns.cuh"

namespace bubblebench {

template <class T>
__device__ __forceinline__ void average_pool_forward(T* __restrict__ y, const T* __restrict__ x, int positions,
                                                     int channels) {
    constexpr int W = Vector<T>::width;
    const Columns<T> columns(int(blockIdx.y), channels, aligned16(x) && aligned16(y));
    const T* image = x + size_t(blockIdx.x) * positions * channels;
    float sums[W] = {};
    for (int p = int(threadIdx.y); p < positions; p += int(blockDim.y)) {
        float v[W] = {};
        columns.read(image + size_t(p) * channels, v);
#pragma unroll
        for (int i = 0; i < W; i++) sums[i] += v[i];
    }
    sum_over_strips(sums);
    if (threadIdx.y != 0) return;
#pragma unroll
    for (int i = 0; i < W; i++) sums[i] /= float(positions);
    columns.write(y + size_t(blockIdx.x) * channels, sums);
}

template <class T>
__device__ __forceinline__ void average_pool_backward(T* __restrict__ dx, const T* __restrict__ dy, int positions,
                                                      int channels) {
    constexpr int W = Vector<T>::width;
    const Columns<T> columns(int(blockIdx.y), channels, aligned16(dx) && aligned16(dy));
    T* image = dx + size_t(blockIdx.x) * positions * channels;
    float v[W] = {};
    columns.read(dy + size_t(blockIdx.x) * channels, v);
#pragma unroll
    for (int i = 0; i < W; i++) v[i] /= float(positions);
    const int step = int(gridDim.z * blockDim.y);
    for (int p = int(blockIdx.z * blockDim.y + threadIdx.y); p < positions; p += step) {
        columns.write(image + size_t(p) * channels, v);
    }
}

}  // namespace bubblebench

#define AVERAGE_POOL(T, suffix)                                                                                      \
    BUBBLEBENCH_KERNEL(256, average_pool_forward_##suffix, T* y, const T* x, int positions, int channels) {          \
        bubblebench::average_pool_forward(y, x, positions, channels);                                                \
    }                                                                                                                \
    BUBBLEBENCH_KERNEL(256, average_pool_backward_##suffix, T* dx, const T* dy, int positions, int channels) {       \
        bubblebench::average_pool_backward(dx, dy, positions, channels);                                             \
    }

AVERAGE_POOL(bubblebench::bf16, bf16)
AVERAGE_POOL(bubblebench::f16, f16)
AVERAGE_POOL(float, f32)
