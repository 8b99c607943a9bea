// SGD with momentum over a flat buffer: v = momentum·v + g; p = p − rate·v.
//
// param grad: len elements of type T = bf16, f16 or f32; velocity: fp32; arithmetic in fp32, the parameter rounded once a
// step: a step below half a unit in its last place is lost to a 16-bit parameter, as in any training without a master.
// Bytes an element: 14 with bf16, 20 with f32. Blocks, loads in flight and alignment as in adamw.cu. No spills.
#include "optimizer.cuh"

namespace bubblebench {

__device__ __forceinline__ float sgd_step(float p, float g, float& velocity, float rate, float momentum) {
    velocity = momentum * velocity + g;
    return p - rate * velocity;
}

template <class T>
__device__ __forceinline__ void sgd_groups(T* __restrict__ param, const T* __restrict__ grad,
                                           float* __restrict__ velocity, size_t tile, size_t len, float rate,
                                           float momentum) {
    Four<T> ps[kUpdateGroups], gs[kUpdateGroups];
    Four<float> vs[kUpdateGroups];
#pragma unroll
    for (int k = 0; k < kUpdateGroups; k++) {
        const size_t at = tile + size_t(k * kUpdateThreads + int(threadIdx.x)) * 4;
        if (at + 4 > len) continue;
        gs[k] = load4(grad + at);
        ps[k] = load4(static_cast<const T*>(param) + at);
        vs[k] = load4(static_cast<const float*>(velocity) + at);
    }
#pragma unroll
    for (int k = 0; k < kUpdateGroups; k++) {
        const size_t at = tile + size_t(k * kUpdateThreads + int(threadIdx.x)) * 4;
        if (at + 4 > len) continue;
#pragma unroll
        for (int i = 0; i < 4; i++) ps[k].set(i, sgd_step(ps[k][i], gs[k][i], vs[k].elements[i], rate, momentum));
        store4(param + at, ps[k]);
        store4(velocity + at, vs[k]);
    }
}

template <class T>
__device__ __forceinline__ void sgd_elements(T* param, const T* grad, float* velocity, size_t first, size_t end,
                                             float rate, float momentum) {
    for (size_t at = first + threadIdx.x; at < end; at += kUpdateThreads) {
        param[at] = from_float<T>(sgd_step(to_float(param[at]), to_float(grad[at]), velocity[at], rate, momentum));
    }
}

template <class T>
__device__ __forceinline__ void sgd(T* param, const T* grad, float* velocity, size_t len, float rate, float momentum) {
    const size_t tile = blockIdx.x * kUpdateTile, end = tile + kUpdateTile < len ? tile + kUpdateTile : len;
    const bool groups = aligned4(param) && aligned4(grad) && aligned4(velocity);
    if (groups) sgd_groups(param, grad, velocity, tile, len, rate, momentum);
    // With groups: what is left of the last tile, fewer than four.
    sgd_elements(param, grad, velocity, groups ? end / 4 * 4 : tile, end, rate, momentum);
}

}  // namespace bubblebench

#define SGD(T, suffix)                                                                                          \
    BUBBLEBENCH_KERNEL(256, sgd_##suffix, T* param, const T* grad, float* velocity, size_t len, float rate,     \
                       float momentum) {                                                                        \
        bubblebench::sgd(param, grad, velocity, len, rate, momentum);                                           \
    }

SGD(bubblebench::bf16, bf16)
SGD(bubblebench::f16, f16)
SGD(float, f32)
