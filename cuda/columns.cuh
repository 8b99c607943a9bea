// Sums of columns over strips of rows, for narrow matrices: as many threads stand side by side as a row has 16-byte
// vectors (a power of two, one warp at most), and the rest of the block takes other rows.
//
// Called by the pooling and group-normalisation kernels. Block (lanes, strips): lanes a power of two ≤ 32, lanes·strips
// a multiple of 32 and at most 256. What a thread's W columns are depends on whether 16-byte accesses are possible.
#pragma once
#include "common.cuh"

namespace bubblebench {

constexpr int kColumnThreads = 256;

// The columns of this thread, of `cols` in all: neighbours where vectors are used, one lane-width apart otherwise.
template <class T> struct Columns {
    static constexpr int W = Vector<T>::width;
    int tile, cols;
    bool vectors;

    __device__ __forceinline__ Columns(int block, int cols_, bool aligned)
        : tile(block * int(blockDim.x) * W), cols(cols_), vectors(cols_ % W == 0 && aligned) {}

    __device__ __forceinline__ int operator[](int i) const {
        return vectors ? tile + int(threadIdx.x) * W + i : tile + int(threadIdx.x) + i * int(blockDim.x);
    }
    __device__ __forceinline__ bool outside() const { return (*this)[0] >= cols; }

    // Elements of the row that starts at `row`; zero outside the matrix.
    __device__ __forceinline__ void read(const T* row, float (&v)[W]) const {
        if (vectors) {
            if (!outside()) load(row + (*this)[0]).unpack(v);
            return;
        }
#pragma unroll
        for (int i = 0; i < W; i++) v[i] = (*this)[i] < cols ? to_float(row[(*this)[i]]) : 0.0f;
    }

    __device__ __forceinline__ void write(T* row, const float (&v)[W]) const {
        if (vectors) {
            if (!outside()) store(row + (*this)[0], Vector<T>::pack(v));
            return;
        }
#pragma unroll
        for (int i = 0; i < W; i++) {
            if ((*this)[i] < cols) row[(*this)[i]] = from_float<T>(v[i]);
        }
    }
};

// Adds N values over the block's strips, in a fixed order; the threads of strip 0 hold the sums. All threads call, once.
template <int N> __device__ __forceinline__ void sum_over_strips(float (&v)[N]) {
    const int thread = int(threadIdx.y * blockDim.x + threadIdx.x), lane = thread % kWarp, warp = thread / kWarp;
    const int warps = int(blockDim.x * blockDim.y) / kWarp;
    for (int mask = int(blockDim.x); mask < kWarp; mask *= 2) {
#pragma unroll
        for (int n = 0; n < N; n++) v[n] += __shfl_xor_sync(kAllLanes, v[n], mask);
    }
    __shared__ float sums[N][kColumnThreads / kWarp][kWarp];
    if (lane < int(blockDim.x)) {
#pragma unroll
        for (int n = 0; n < N; n++) sums[n][warp][lane] = v[n];
    }
    __syncthreads();
    if (threadIdx.y != 0) return;
#pragma unroll
    for (int n = 0; n < N; n++) {
        v[n] = 0.0f;
        for (int other = 0; other < warps; other++) v[n] += sums[n][other][lane];
    }
}

}  // namespace bubblebench
