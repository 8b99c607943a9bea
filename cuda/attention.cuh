// What the attention kernels share: tiles of packed qkv rows on their way into shared memory and back, and exp2.
// Included by attention_forward.cu and attention_backward.cu.
#pragma once
#include "mma.cuh"

namespace bubblebench {

constexpr float kLn2 = 0.6931471805599453f;
constexpr float kLog2e = 1.4426950408889634f;

// 2^x in one instruction (relative error 2^-22); exp2_fast(-infinity) is 0.
__device__ __forceinline__ float exp2_fast(float x) {
#ifdef BUBBLEBENCH_HOST_EMULATION
    return std::exp2(x);
#else
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
#endif
}

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }

// Sum and maximum over the four lanes that hold one row of an accumulator.
__device__ __forceinline__ float quad_sum(float v) {
    v += __shfl_xor_sync(kAllLanes, v, 1);
    return v + __shfl_xor_sync(kAllLanes, v, 2);
}
__device__ __forceinline__ float quad_max(float v) {
    v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, 1));
    return fmaxf(v, __shfl_xor_sync(kAllLanes, v, 2));
}

// Elements from one row of a shared tile to the next.
template <int D> constexpr int kPitch = D + kTilePad;

// Keeps the compiler from computing ahead what follows from the value: addresses of a whole tile, made once before the
// loop, would take the registers the sums need.
template <class V> __device__ __forceinline__ void opaque([[maybe_unused]] V& value) {
#ifndef BUBBLEBENCH_HOST_EMULATION
    if constexpr (sizeof(V) == 8) {
        asm volatile("" : "+l"(value));
    } else {
        asm volatile("" : "+r"(value));
    }
#endif
}

// Where the block's head (blockIdx.x = b·A + a) lies. Found anew wherever it is needed: a few instructions, where a value
// kept over the loop would take registers from the sums.
template <int D> struct Head {
    size_t line;      // b·A + a
    int width;        // elements of a row of out; rows of qkv are three times as long
    size_t qkv, out;  // the head's first elements

    __device__ __forceinline__ Head(int heads, int sequence) {
        int index = int(blockIdx.x);
        opaque(index);
        line = size_t(index);
        width = heads * D;
        const size_t row = size_t(index / heads) * sequence;
        out = row * width + index % heads * D;
        qkv = row * (3 * width) + index % heads * D;
    }
};

// Begins to copy ROWS rows of D elements, `stride` elements apart, into a shared tile, and rows `second` elements further
// on into the tile `second_bytes` behind it; rows from `rows` on become zero. Consecutive threads take consecutive 16
// bytes of a row. All THREADS threads of the block call.
template <class T, int D, int ROWS, int THREADS>
__device__ __forceinline__ void copy_tiles(SharedAddress to, const T* from, int stride, int rows, int second,
                                           int second_bytes) {
    constexpr int kUnits = D / 8, kAll = ROWS * kUnits, kEach = (kAll + THREADS - 1) / THREADS;
    constexpr int kStep = THREADS % kUnits == 0 ? THREADS / kUnits : 0;  // rows from one copy of a thread to the next
    int thread = int(threadIdx.x);
    opaque(thread);
    const T* at = from + int64_t(thread / kUnits) * stride + thread % kUnits * 8;
#pragma unroll
    for (int i = 0; i < kEach; i++) {
        const int unit = thread + i * THREADS, row = kStep ? thread / kUnits + i * kStep : unit / kUnits;
        if (kAll % THREADS != 0 && unit >= kAll) break;
        const int column = kStep ? thread % kUnits * 8 : unit % kUnits * 8;
        if constexpr (kStep == 0) at = from + int64_t(row) * stride + column;
        const bool there = row < rows;
        const T* source = there ? at : from;
        const SharedAddress target = to + (row * kPitch<D> + column) * int(sizeof(T));
        copy_async16(target, source, there);
        if (second_bytes != 0) copy_async16(target + second_bytes, source + second, there);
        if constexpr (kStep != 0) {
            at += int64_t(kStep) * stride;
            opaque(at);
        }
    }
}

template <class T, int D, int ROWS, int THREADS>
__device__ __forceinline__ void copy_tile(SharedAddress to, const T* from, int stride, int rows) {
    copy_tiles<T, D, ROWS, THREADS>(to, from, stride, rows, 0, 0);
}

// The warp's MT·16 rows of an accumulator, times `factor` of each row, through its own shared tile to global rows
// `stride` elements apart, sixteen bytes a lane. Rows from `rows` on are left out. The tile's rows belong to the warp
// alone: nobody else reads or writes them between the calls around.
template <class T, int D, int COLUMNS, int MT>
__device__ __forceinline__ void store_rows(T* to, int stride, int rows, T* tile, const float (&o)[MT][COLUMNS / 8][4],
                                           const float (&factor)[MT][2]) {
    const int lane = int(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
    const SharedAddress mine = shared_address(tile + g * kPitch<D> + 2 * t);
    __syncwarp();
#pragma unroll
    for (int m = 0; m < MT; m++) {
#pragma unroll
        for (int n = 0; n < COLUMNS / 8; n++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const uint32_t pair = pack_pair<T>(o[m][n][2 * h] * factor[m][h], o[m][n][2 * h + 1] * factor[m][h]);
                store_pair(mine + ((m * 16 + h * 8) * kPitch<D> + n * 8) * int(sizeof(T)), pair);
            }
        }
    }
    __syncwarp();
    constexpr int kUnits = COLUMNS / 8, kAll = MT * 16 * kUnits;
#pragma unroll 4
    for (int unit = lane; unit < kAll; unit += kWarp) {
        const int row = unit / kUnits, column = unit % kUnits * 8;
        if (row < rows) store(to + int64_t(row) * stride + column, load(tile + row * kPitch<D> + column));
    }
}

}  // namespace bubblebench
