// Dropout (Srivastava et al., JMLR 15, 2014), inverted: y[i] = x[i]·scale where element i is kept, else 0.
//
// y x: len elements of type T = bf16, f16 or f32, which may be one tensor. Element i is kept where word i mod 4 of
// philox(counter = (offset + i div 4, 0), key = seed) is at least `threshold` = probability of dropping · 2³², scale being
// 1 / (1 − probability). The mask is never stored: the gradient takes dy through the same kernel with the same seed and
// offset; a next call's offset is this one's plus ⌈len / 4⌉. One mask for all types and alignments.
//
// 2 elements moved a result. Two counters (some 130 instructions) for eight bf16: arithmetic, not memory, bounds it there,
// at an estimated 80 % of copy bandwidth on an H200. Block of 256 threads, 64 bytes a thread in flight, a block a tile of
// 16 KB. Any len ≥ 1 and any alignment. philox_words writes the generator's raw words for counters that follow each other.
// No local memory, no spills.
#include "philox.cuh"

namespace bubblebench {

constexpr int kDropoutThreads = 256;
constexpr int kDropoutVectors = 4;

struct Mask {
    uint64_t seed, offset;
    unsigned threshold;
    float scale;

    // Of elements 4·group to 4·group + 3: what each is multiplied by.
    __device__ __forceinline__ void factors(size_t group, float (&factor)[4]) const {
        const uint64_t counter = offset + group;
        const Words random = philox({{unsigned(counter), unsigned(counter >> 32), 0, 0}}, unsigned(seed),
                                    unsigned(seed >> 32));
#pragma unroll
        for (int i = 0; i < 4; i++) factor[i] = random.word[i] >= threshold ? scale : 0.0f;
    }
};

// Not a product where an element is dropped: 0 · infinity would be NaN.
__device__ __forceinline__ float dropped(float x, float factor) { return factor == 0.0f ? 0.0f : x * factor; }

template <class T>
__device__ __forceinline__ void dropout_vectors(T* y, const T* x, size_t tile, size_t len, const Mask& mask) {
    constexpr int W = Vector<T>::width;
    Vector<T> held[kDropoutVectors];
#pragma unroll
    for (int k = 0; k < kDropoutVectors; k++) {
        const size_t at = tile + size_t(k * kDropoutThreads + int(threadIdx.x)) * W;
        if (at + W <= len) held[k] = load(x + at);
    }
#pragma unroll
    for (int k = 0; k < kDropoutVectors; k++) {
        const size_t at = tile + size_t(k * kDropoutThreads + int(threadIdx.x)) * W;
        if (at + W > len) continue;
        float v[W];
        held[k].unpack(v);
#pragma unroll
        for (int i = 0; i < W; i += 4) {
            float factor[4];
            mask.factors((at + i) / 4, factor);
#pragma unroll
            for (int j = 0; j < 4; j++) v[i + j] = dropped(v[i + j], factor[j]);
        }
        store(y + at, Vector<T>::pack(v));
    }
}

// A thread takes whole groups of four, so that each counter is worked out once.
template <class T>
__device__ __forceinline__ void dropout_elements(T* y, const T* x, size_t first, size_t end, const Mask& mask) {
    for (size_t group = first / 4 + threadIdx.x; group * 4 < end; group += kDropoutThreads) {
        float factor[4];
        mask.factors(group, factor);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const size_t at = group * 4 + i;
            if (at < end) y[at] = from_float<T>(dropped(to_float(x[at]), factor[i]));
        }
    }
}

template <class T>
__device__ __forceinline__ void dropout(T* y, const T* x, size_t len, const Mask& mask) {
    constexpr size_t W = Vector<T>::width, kTile = kDropoutThreads * kDropoutVectors * W;
    const size_t tile = blockIdx.x * kTile, end = tile + kTile < len ? tile + kTile : len;
    if (aligned16(x) && aligned16(y)) {
        dropout_vectors(y, x, tile, len, mask);
        dropout_elements(y, x, end / W * W, end, mask);  // fewer than W, in the last tile only
    } else {
        dropout_elements(y, x, tile, end, mask);
    }
}

}  // namespace bubblebench

// words: 4 · counters, from the 128-bit counter (low, high) on.
BUBBLEBENCH_KERNEL(256, philox_words, unsigned* words, size_t counters, uint64_t low, uint64_t high, uint64_t key) {
    const size_t i = size_t(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i >= counters) return;
    const uint64_t to = low + i, above = high + (to < low);
    const bubblebench::Words random = bubblebench::philox(
        {{unsigned(to), unsigned(to >> 32), unsigned(above), unsigned(above >> 32)}}, unsigned(key), unsigned(key >> 32));
    for (int w = 0; w < 4; w++) words[i * 4 + w] = random.word[w];
}

#define DROPOUT(T, suffix)                                                                                     \
    BUBBLEBENCH_KERNEL(256, dropout_##suffix, T* y, const T* x, size_t len, unsigned threshold, float scale,   \
                       uint64_t seed, uint64_t offset) {                                                       \
        bubblebench::dropout(y, x, len, bubblebench::Mask{seed, offset, threshold, scale});                    \
    }

DROPOUT(bubblebench::bf16, bf16)
DROPOUT(bubblebench::f16, f16)
DROPOUT(float, f32)
