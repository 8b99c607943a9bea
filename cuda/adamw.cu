// AdamW with decoupled weight decay over a flat buffer (Loshchilov & Hutter, arXiv 1711.05101, algorithm 2):
//
//   m = beta1·m + new1·g          v = beta2·v + new2·g²
//   p = keep·p − rate·(m·correct1) / (√(v·correct2) + epsilon)
//
// with new = 1 − beta, correct = 1/(1 − beta^step) and keep = 1 − rate·decay from the host, in f64 until they are passed.
// grad param: len elements of type T = bf16, f16 or f32; m v master: fp32. With a master, p is the master and param its
// rounding, which is written and never read; with none (null), p is param itself. All arithmetic in fp32.
//
// Bytes an element: 28 with bf16 and a master (2 + 4·3 in, 4·3 + 2 out), 28 with f32. A block of 256 threads takes 2048
// elements and ends; a thread has 112 bytes of loads in flight before it uses the first. Any len ≥ 1 and any alignment
// (groups of four elements where all pointers allow, element by element otherwise). No local memory, no spills.
#include "optimizer.cuh"

namespace bubblebench {

struct AdamW {
    float beta1, new1, beta2, new2, correct1, correct2, rate, epsilon, keep;

    __device__ __forceinline__ float step(float p, float g, float& m, float& v) const {
        m = beta1 * m + new1 * g;
        v = beta2 * v + new2 * g * g;
        return keep * p - rate * (m * correct1 / (sqrtf(v * correct2) + epsilon));
    }
};

// P: the type p is kept in (fp32 for a master, T for a parameter without one).
template <class T, class P>
__device__ __forceinline__ void adamw_groups(T* param, P* kept, const T* grad, float* m, float* v, size_t tile,
                                             size_t len, const AdamW& rule) {
    Four<P> ps[kUpdateGroups];
    Four<T> gs[kUpdateGroups];
    Four<float> ms[kUpdateGroups], vs[kUpdateGroups];
#pragma unroll
    for (int k = 0; k < kUpdateGroups; k++) {
        const size_t at = tile + size_t(k * kUpdateThreads + int(threadIdx.x)) * 4;
        if (at + 4 > len) continue;
        gs[k] = load4(grad + at);
        ps[k] = load4(static_cast<const P*>(kept) + at);
        ms[k] = load4(static_cast<const float*>(m) + at);
        vs[k] = load4(static_cast<const float*>(v) + at);
    }
#pragma unroll
    for (int k = 0; k < kUpdateGroups; k++) {
        const size_t at = tile + size_t(k * kUpdateThreads + int(threadIdx.x)) * 4;
        if (at + 4 > len) continue;
        Four<T> narrow;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float p = rule.step(ps[k][i], gs[k][i], ms[k].elements[i], vs[k].elements[i]);
            ps[k].set(i, p);
            narrow.set(i, p);
        }
        store4(m + at, ms[k]);
        store4(v + at, vs[k]);
        if (static_cast<void*>(kept) != static_cast<void*>(param)) store4(kept + at, ps[k]);
        store4(param + at, narrow);
    }
}

template <class T>
__device__ __forceinline__ void adamw_elements(T* param, float* master, const T* grad, float* m, float* v, size_t first,
                                               size_t end, const AdamW& rule) {
    for (size_t at = first + threadIdx.x; at < end; at += kUpdateThreads) {
        const float p = master != nullptr ? master[at] : to_float(param[at]);
        const float updated = rule.step(p, to_float(grad[at]), m[at], v[at]);
        if (master != nullptr) master[at] = updated;
        param[at] = from_float<T>(updated);
    }
}

template <class T>
__device__ __forceinline__ void adamw(T* param, float* master, const T* grad, float* m, float* v, size_t len,
                                      const AdamW& rule) {
    const size_t tile = blockIdx.x * kUpdateTile, end = tile + kUpdateTile < len ? tile + kUpdateTile : len;
    if (!(aligned4(param) && aligned4(master) && aligned4(grad) && aligned4(m) && aligned4(v))) {
        adamw_elements(param, master, grad, m, v, tile, end, rule);
        return;
    }
    if (master != nullptr) {
        adamw_groups(param, master, grad, m, v, tile, len, rule);
    } else {
        adamw_groups(param, param, grad, m, v, tile, len, rule);
    }
    adamw_elements(param, master, grad, m, v, end / 4 * 4, end, rule);  // fewer than four, in the last tile only
}

}  // namespace bubblebench

#define ADAMW(T, suffix)                                                                                             \
    BUBBLEBENCH_KERNEL(256, adamw_##suffix, T* param, float* master, const T* grad, float* m, float* v, size_t len,  \
                       float beta1, float new1, float beta2, float new2, float correct1, float correct2, float rate, \
                       float epsilon, float keep) {                                                                  \
        bubblebench::adamw(param, master, grad, m, v, len,                                                           \
                           bubblebench::AdamW{beta1, new1, beta2, new2, correct1, correct2, rate, epsilon, keep});   \
    }

ADAMW(bubblebench::bf16, bf16)
ADAMW(bubblebench::f16, f16)
ADAMW(float, f32)
