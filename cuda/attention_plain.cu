// Causal self-attention in f32 without tensor cores, forward and backward: for whole models in f32, not tuned.
//
// The equations are those of attention_forward.cu and attention_backward.cu; every product and sum in fp32, nothing is
// rounded between. qkv, dqkv: rows of [q(A·D) | k(A·D) | v(A·D)]; out, dout: rows of A·D; lse (natural logarithm) and
// delta = rowsum(dO∘O): fp32, index (b·A + a)·S + s. Any S ≥ 1, any D ≤ 256, no alignment asked for.
//
// All kernels: grid (B·A, ⌈S / 4⌉), block 128, no dynamic shared memory: a warp a row, a lane one of 32 keys (queries)
// for the scores and every 32nd column for the sums. attention_backward_plain_query writes dq and delta, which
// attention_backward_plain_key, launched after it, reads to write dk and dv. The same inputs give the same bits.
#include "common.cuh"

namespace bubblebench {

// The widest head, how many of a row's elements a lane then holds, and rows a block.
constexpr int kPlainHead = 256, kPlainHeld = kPlainHead / kWarp, kPlainRows = 4;

// Where the block's head lies, and the warp's row; the row may lie beyond the sequence.
struct PlainPlace {
    int row, lane, warp, width, head_size;
    size_t stride, qkv, out, line;  // elements between rows of qkv; the head's first elements; its first line

    __device__ __forceinline__ PlainPlace(int heads, int sequence, int head_size_) {
        warp = int(threadIdx.x) / kWarp;
        lane = int(threadIdx.x) % kWarp;
        row = int(blockIdx.y) * kPlainRows + warp;
        head_size = head_size_;
        width = heads * head_size;
        stride = size_t(3) * width;
        const size_t head = blockIdx.x % unsigned(heads) * size_t(head_size), batch = blockIdx.x / unsigned(heads);
        qkv = batch * sequence * stride + head;
        out = batch * sequence * width + head;
        line = size_t(blockIdx.x) * sequence;
    }
};

__device__ __forceinline__ float warp_max(float v) {
#pragma unroll
    for (int flip = kWarp / 2; flip > 0; flip /= 2) v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, flip));
    return v;
}

// The warp's row into its own line of shared memory.
__device__ __forceinline__ void keep_row(float* to, const float* from, const PlainPlace& at) {
    for (int c = at.lane; c < at.head_size; c += kWarp) to[c] = from[c];
}

// Four sums side by side: shorter chains, and so a smaller error.
__device__ __forceinline__ float dot(const float* row, const float* other, int n) {
    float sum[4] = {};
    for (int c = 0; c < n - n % 4; c += 4) {
#pragma unroll
        for (int i = 0; i < 4; i++) sum[i] = fmaf(row[c + i], other[c + i], sum[i]);
    }
    for (int c = n - n % 4; c < n; c++) sum[0] = fmaf(row[c], other[c], sum[0]);
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

// o += weight·row over the lane's columns.
__device__ __forceinline__ void add_row(float (&o)[kPlainHeld], float weight, const float* row, const PlainPlace& at) {
#pragma unroll
    for (int i = 0; i < kPlainHeld; i++) {
        const int c = at.lane + i * kWarp;
        if (c < at.head_size) o[i] = fmaf(weight, row[c], o[i]);
    }
}

__device__ __forceinline__ void store_row(float* to, const float (&o)[kPlainHeld], float factor, const PlainPlace& at) {
#pragma unroll
    for (int i = 0; i < kPlainHeld; i++) {
        const int c = at.lane + i * kWarp;
        if (c < at.head_size) to[c] = o[i] * factor;
    }
}

}  // namespace bubblebench

BUBBLEBENCH_KERNEL(128, attention_forward_plain_f32, float* out, float* lse, const float* qkv, int heads, int sequence,
                   int head_size, float scale) {
    using namespace bubblebench;
    __shared__ float queries[kPlainRows][kPlainHead];
    const PlainPlace at(heads, sequence, head_size);
    if (at.row >= sequence) return;  // a whole warp; the block has no barrier
    const float *q = qkv + at.qkv, *k = q + at.width, *v = k + at.width;
    float* query = queries[at.warp];
    keep_row(query, q + at.row * at.stride, at);
    __syncwarp();
    float most = -__int_as_float(0x7f800000), sum = 0.0f, o[kPlainHeld] = {};
    for (int key0 = 0; key0 <= at.row; key0 += kWarp) {
        const int keys = min(kWarp, at.row + 1 - key0);
        float s = -__int_as_float(0x7f800000);
        if (at.lane < keys) s = scale * dot(query, k + (key0 + at.lane) * at.stride, head_size);
        const float now = fmaxf(most, warp_max(s)), factor = expf(most - now), p = expf(s - now);
        most = now;
        sum = sum * factor + p;
#pragma unroll
        for (int i = 0; i < kPlainHeld; i++) o[i] *= factor;
        for (int j = 0; j < keys; j++) add_row(o, __shfl_sync(kAllLanes, p, j), v + (key0 + j) * at.stride, at);
    }
    sum = warp_sum(sum);
    if (at.lane == 0) lse[at.line + at.row] = most + logf(sum);
    store_row(out + at.out + size_t(at.row) * at.width, o, 1.0f / sum, at);
}

BUBBLEBENCH_KERNEL(128, attention_backward_plain_query_f32, float* dqkv, float* delta, const float* dout,
                   const float* qkv, const float* out, const float* lse, int heads, int sequence, int head_size,
                   float scale) {
    using namespace bubblebench;
    __shared__ float queries[kPlainRows][kPlainHead], gradients[kPlainRows][kPlainHead];
    const PlainPlace at(heads, sequence, head_size);
    if (at.row >= sequence) return;  // as above
    const float *q = qkv + at.qkv, *k = q + at.width, *v = k + at.width;
    float *query = queries[at.warp], *gradient = gradients[at.warp];
    const size_t mine = at.out + size_t(at.row) * at.width;
    keep_row(query, q + at.row * at.stride, at);
    keep_row(gradient, dout + mine, at);
    __syncwarp();
    float d = 0.0f;
    for (int c = at.lane; c < head_size; c += kWarp) d = fmaf(gradient[c], out[mine + c], d);
    d = warp_sum(d);
    if (at.lane == 0) delta[at.line + at.row] = d;
    const float row_lse = lse[at.line + at.row];
    float o[kPlainHeld] = {};
    for (int key0 = 0; key0 <= at.row; key0 += kWarp) {
        const int keys = min(kWarp, at.row + 1 - key0);
        float ds = 0.0f;
        if (at.lane < keys) {
            const size_t key = (key0 + at.lane) * at.stride;
            const float p = expf(scale * dot(query, k + key, head_size) - row_lse);
            ds = p * (dot(gradient, v + key, head_size) - d);
        }
        for (int j = 0; j < keys; j++) add_row(o, __shfl_sync(kAllLanes, ds, j), k + (key0 + j) * at.stride, at);
    }
    store_row(dqkv + at.qkv + at.row * at.stride, o, scale, at);
}

BUBBLEBENCH_KERNEL(128, attention_backward_plain_key_f32, float* dqkv, const float* delta, const float* dout,
                   const float* qkv, const float* lse, int heads, int sequence, int head_size, float scale) {
    using namespace bubblebench;
    __shared__ float keys[kPlainRows][kPlainHead], values[kPlainRows][kPlainHead];
    const PlainPlace at(heads, sequence, head_size);
    if (at.row >= sequence) return;  // as above
    const float *q = qkv + at.qkv, *k = q + at.width, *v = k + at.width, *gradients = dout + at.out;
    float *key = keys[at.warp], *value = values[at.warp];
    keep_row(key, k + at.row * at.stride, at);
    keep_row(value, v + at.row * at.stride, at);
    __syncwarp();
    float dk[kPlainHeld] = {}, dv[kPlainHeld] = {};
    for (int query0 = at.row; query0 < sequence; query0 += kWarp) {
        const int queries = min(kWarp, sequence - query0), query = query0 + at.lane;
        float p = 0.0f, ds = 0.0f;
        if (at.lane < queries) {
            p = expf(scale * dot(key, q + query * at.stride, head_size) - lse[at.line + query]);
            ds = p * (dot(value, gradients + size_t(query) * at.width, head_size) - delta[at.line + query]);
        }
        for (int j = 0; j < queries; j++) {
            add_row(dk, __shfl_sync(kAllLanes, ds, j), q + (query0 + j) * at.stride, at);
            add_row(dv, __shfl_sync(kAllLanes, p, j), gradients + size_t(query0 + j) * at.width, at);
        }
    }
    float* to = dqkv + at.qkv + at.row * at.stride + at.width;
    store_row(to, dk, scale, at);
    store_row(to + at.width, dv, 1.0f, at);
}
