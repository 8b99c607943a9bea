// Element-wise kernels: out[i] = f(a[i]) or f(a[i], b[i]), i < len, everything of one type, arithmetic in fp32.
//
// A block takes one tile of kMapThreads · 64 bytes of inputs' worth of vectors and ends: no loop over the grid, so that
// a stream of higher priority finds free places soon. Each thread has 64 bytes of loads in flight before it uses the
// first (four vectors of one input, two of two); at the 1536 or more threads an SM holds of these kernels that is 96 KB
// an SM, where an H200's 4.3 TB/s at 0.8 µs need about 26 KB. Arithmetic stays below 27 instructions an element, which
// is what an H200 issues in the time it moves a bf16 in and one out.
//
// Any len ≥ 1 and any alignment: 16-byte accesses where all pointers allow, the last len mod (16 bytes) element by
// element; element by element throughout otherwise. Geometry: src/ops/cuda/elementwise.rs.
#pragma once
#include "common.cuh"

namespace bubblebench {

constexpr int kMapThreads = 256;

// Vectors of each input that a thread takes.
template <int Inputs> constexpr int kMapVectors = 4 / Inputs;

template <class T, int Inputs, class F>
__device__ __forceinline__ void map_vectors(T* out, const T* const (&in)[Inputs], size_t tile, size_t len, F f) {
    constexpr int W = Vector<T>::width, K = kMapVectors<Inputs>;
    Vector<T> held[K][Inputs];
#pragma unroll
    for (int k = 0; k < K; k++) {
        const size_t at = tile + size_t(k * kMapThreads + int(threadIdx.x)) * W;
        if (at + W > len) continue;
#pragma unroll
        for (int n = 0; n < Inputs; n++) held[k][n] = load(in[n] + at);
    }
#pragma unroll
    for (int k = 0; k < K; k++) {
        const size_t at = tile + size_t(k * kMapThreads + int(threadIdx.x)) * W;
        if (at + W > len) continue;
        float v[Inputs][W], result[W];
#pragma unroll
        for (int n = 0; n < Inputs; n++) held[k][n].unpack(v[n]);
#pragma unroll
        for (int i = 0; i < W; i++) {
            float arguments[Inputs];
#pragma unroll
            for (int n = 0; n < Inputs; n++) arguments[n] = v[n][i];
            result[i] = f(arguments);
        }
        store(out + at, Vector<T>::pack(result));
    }
}

template <class T, int Inputs, class F>
__device__ __forceinline__ void map_elements(T* out, const T* const (&in)[Inputs], size_t first, size_t end, F f) {
    for (size_t at = first + threadIdx.x; at < end; at += kMapThreads) {
        float arguments[Inputs];
#pragma unroll
        for (int n = 0; n < Inputs; n++) arguments[n] = to_float(in[n][at]);
        out[at] = from_float<T>(f(arguments));
    }
}

// f takes the inputs' values at one index as `const float (&)[Inputs]`.
template <class T, int Inputs, class F>
__device__ __forceinline__ void map(T* out, const T* const (&in)[Inputs], size_t len, F f) {
    constexpr size_t W = Vector<T>::width, kTile = kMapThreads * kMapVectors<Inputs> * W;
    const size_t tile = blockIdx.x * kTile, end = tile + kTile < len ? tile + kTile : len;
    bool vectors = aligned16(out);
#pragma unroll
    for (int n = 0; n < Inputs; n++) vectors = vectors && aligned16(in[n]);
    if (vectors) {
        map_vectors(out, in, tile, len, f);
        map_elements(out, in, end / W * W, end, f);  // fewer than W, in the last tile only
    } else {
        map_elements(out, in, tile, end, f);
    }
}

}  // namespace bubblebench
