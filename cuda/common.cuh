// What every kernel file stands on: how a kernel is declared, element types, 16-byte accesses, reductions.
//
// The same source is compiled twice: by nvcc for GPUs, and by a C++ compiler with BUBBLEBENCH_HOST_EMULATION for
// tests/softgpu, where every CUDA thread is a fiber. Only this header knows which of the two it is.
#pragma once

#ifdef BUBBLEBENCH_HOST_EMULATION
#include <softgpu/cuda.h>
#else
#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

// BUBBLEBENCH_KERNEL(most threads a block may have, name, arguments…) { body }
#define BUBBLEBENCH_KERNEL(max_threads, name, ...) \
    extern "C" __global__ void __launch_bounds__(max_threads) name(__VA_ARGS__)
// A pointer to the block's dynamic shared memory, aligned to 16 bytes.
#define BUBBLEBENCH_DYNAMIC_SHARED(T, name)                                           \
    extern __shared__ __align__(16) unsigned char bubblebench_dynamic_shared_bytes[]; \
    T* name = reinterpret_cast<T*>(bubblebench_dynamic_shared_bytes)
// The emulation stops a kernel here whose 16-byte access a GPU would refuse; the GPU checks by itself.
#define BUBBLEBENCH_CHECK_ALIGNED(pointer)
#endif

namespace bubblebench {

using bf16 = __nv_bfloat16;
using f16 = __half;

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xffffffffu;

// --- elements: arithmetic is in fp32, memory holds T ---------------------------------------------------------------

__device__ __forceinline__ float to_float(float v) { return v; }
__device__ __forceinline__ float to_float(bf16 v) { return __bfloat162float(v); }
__device__ __forceinline__ float to_float(f16 v) { return __half2float(v); }

template <class T> __device__ __forceinline__ T from_float(float v);
template <> __device__ __forceinline__ float from_float<float>(float v) { return v; }
template <> __device__ __forceinline__ bf16 from_float<bf16>(float v) { return __float2bfloat16_rn(v); }
template <> __device__ __forceinline__ f16 from_float<f16>(float v) { return __float2half_rn(v); }

// --- 16-byte accesses ----------------------------------------------------------------------------------------------

// Sixteen bytes of T, held packed: four registers whatever T is, widened only where they are used.
template <class T> struct Vector {
    static constexpr int width = 16 / int(sizeof(T));
    uint4 bits;

    __device__ __forceinline__ void unpack(float (&out)[width]) const {
        T elements[width];
        memcpy(elements, &bits, sizeof bits);
#pragma unroll
        for (int i = 0; i < width; i++) out[i] = to_float(elements[i]);
    }
    __device__ __forceinline__ static Vector pack(const float (&in)[width]) {
        T elements[width];
#pragma unroll
        for (int i = 0; i < width; i++) elements[i] = from_float<T>(in[i]);
        Vector vector;
        memcpy(&vector.bits, elements, sizeof elements);
        return vector;
    }
};

template <class T> __device__ __forceinline__ Vector<T> load(const T* from) {
    BUBBLEBENCH_CHECK_ALIGNED(from);
    return {*reinterpret_cast<const uint4*>(from)};
}

template <class T> __device__ __forceinline__ void store(T* to, const Vector<T>& vector) {
    BUBBLEBENCH_CHECK_ALIGNED(to);
    *reinterpret_cast<uint4*>(to) = vector.bits;
}

// True where 16-byte accesses may start at the pointer; an absent pointer is no obstacle.
__device__ __forceinline__ bool aligned16(const void* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % 16 == 0;
}

// --- reductions ----------------------------------------------------------------------------------------------------

// Sum over the warp, in every lane.
__device__ __forceinline__ float warp_sum(float v) {
#pragma unroll
    for (int mask = kWarp / 2; mask > 0; mask /= 2) v += __shfl_xor_sync(kAllLanes, v, mask);
    return v;
}

// Sums N values over the threads that share a row (threadIdx.y), in every one of them. Either blockDim.x is one warp
// and no barrier is needed, or the block has one row and every thread of it must call.
template <int N> __device__ __forceinline__ void row_sum(float (&v)[N]) {
#pragma unroll
    for (int n = 0; n < N; n++) v[n] = warp_sum(v[n]);
    if (blockDim.x == kWarp) return;
    __shared__ float partial[N][kWarp];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    if (lane == 0) {
#pragma unroll
        for (int n = 0; n < N; n++) partial[n][warp] = v[n];
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < N; n++) v[n] = warp_sum(lane < warps ? partial[n][lane] : 0.0f);
    __syncthreads();  // the next call may write `partial` again
}

}  // namespace bubblebench
