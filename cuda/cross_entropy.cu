// Softmax cross-entropy over a vocabulary, loss and gradient in one visit of each row:
//
//   losses[r] = ln Σ_c e^(z[r,c]) − z[r,target[r]]        z[r,c] ← (softmax(z[r])[c] − [c = target[r]])·share
//
// logits z: rows × cols of type T = bf16, f16 or f32, replaced in place; targets: u32; losses: fp32; share = 1/rows.
// Running maximum and sum in one pass over the row (online softmax: Milakov & Gimelshein, arXiv 1805.02867), in fp32. The
// target's own term is kept apart from the sum of the others, so that loss and gradient keep their digits where the model
// is certain. A target outside the vocabulary reads nothing and makes its row and loss NaN; a NaN logit does the same.
//
// A row is read once and written once as long as it stays on the SM: the first 32 bytes of each thread in registers, the
// next `parked` · 16 in shared memory, each thread its own (no barrier, no bank conflict); what is left is read twice. On
// an H200 (227 KB a block) 1024 threads keep 256 KB, a vocabulary of 131,072 in bf16; up to 128 KB 512 threads keep a row
// and an SM has two. Loads in flight: 64 bytes a thread, 64 KB an SM.
// Rows need not start at 16-byte boundaries (an odd vocabulary): the elements before the first and after the last whole
// 16 bytes go to one thread each.
//
// Block (threads a row, rows a block), grid ⌈rows / rows a block⌉. Threads a row: 32 with any rows a block, or a multiple
// of 32 up to 1024 with one. Dynamic shared memory: threads of the block · parked · 16 bytes. The same inputs give the
// same bits. No local memory, no spills.
#include "common.cuh"

namespace bubblebench {

// Vectors of 16 bytes that a thread keeps in registers for good, and that it loads at a time.
constexpr int kRowKept = 2, kRowBatch = 4;
constexpr float kLeast = -3.402823466e38f;

// Largest value over the threads that share a row, in all of them; conditions as for row_sum.
__device__ __forceinline__ float row_max(float v) {
#pragma unroll
    for (int mask = kWarp / 2; mask > 0; mask /= 2) v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, mask));
    if (blockDim.x == kWarp) {
        __syncwarp();
        return v;
    }
    __shared__ float partial[kWarp];
    const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
    if (lane == 0) partial[warp] = v;
    __syncthreads();
    v = lane < warps ? partial[lane] : kLeast;
#pragma unroll
    for (int mask = kWarp / 2; mask > 0; mask /= 2) v = fmaxf(v, __shfl_xor_sync(kAllLanes, v, mask));
    return v;
}

// Σ e^(z − most) over what a thread has seen, most being the largest of it.
struct RunningSum {
    float most = kLeast, sum = 0.0f;

    template <int N> __device__ __forceinline__ void add(const float (&z)[N]) {
        float top = z[0];
#pragma unroll
        for (int i = 1; i < N; i++) top = fmaxf(top, z[i]);
        if (top > most) {
            sum *= __expf(most - top);
            most = top;
        }
        float pair[2] = {0.0f, 0.0f};
#pragma unroll
        for (int i = 0; i < N; i++) pair[i % 2] += __expf(z[i] - most);
        sum += pair[0] + pair[1];
    }
};

// One row as the thread sees it. `body` are its whole 16-byte vectors; `head` elements lie before them, `tail` after.
template <class T> struct LogitRow {
    static constexpr int W = Vector<T>::width;
    T *start, *body;
    int head, vectors, tail, target;  // target: counted from the row's start, cols or more where it is nobody's

    __device__ __forceinline__ LogitRow(T* row, int cols, int wanted) : start(row), target(wanted) {
        const int off = int(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T));
        head = off == 0 ? 0 : min(W - off, cols);
        vectors = (cols - head) / W;
        tail = cols - head - vectors * W;
        body = row + head;
    }
    __device__ __forceinline__ static int at(int k) { return k * int(blockDim.x) + int(threadIdx.x); }
    __device__ __forceinline__ bool has(int k) const { return at(k) < vectors; }
    __device__ __forceinline__ T* vector(int k) const { return body + size_t(at(k)) * W; }
    // Which of the k-th vector's elements is the target: W or more (as unsigned) where none is.
    __device__ __forceinline__ unsigned inside(int k) const { return unsigned(target - head - at(k) * W); }
    // The single elements of this thread: its column, or −1.
    __device__ __forceinline__ int before() const { return int(threadIdx.x) < head ? int(threadIdx.x) : -1; }
    __device__ __forceinline__ int after() const {
        return int(threadIdx.x) < tail ? head + vectors * W + int(threadIdx.x) : -1;
    }
};

template <class T>
__device__ __forceinline__ void see(RunningSum& seen, const LogitRow<T>& row, int k, const Vector<T>& vector) {
    constexpr int W = Vector<T>::width;
    float z[W];
    vector.unpack(z);
    if (row.inside(k) < unsigned(W)) {
#pragma unroll
        for (int i = 0; i < W; i++) {
            if (row.inside(k) == unsigned(i)) z[i] = -INFINITY;
        }
    }
    seen.add(z);
}

// What turns a logit into its gradient.
struct ToGradient {
    float most, scale, of_target;

    template <class T> __device__ __forceinline__ void replace(const LogitRow<T>& row, int k, const Vector<T>& vector) {
        constexpr int W = Vector<T>::width;
        float z[W];
        vector.unpack(z);
#pragma unroll
        for (int i = 0; i < W; i++) z[i] = __expf(z[i] - most) * scale;
        if (row.inside(k) < unsigned(W)) {
#pragma unroll
            for (int i = 0; i < W; i++) {
                if (row.inside(k) == unsigned(i)) z[i] = of_target;
            }
        }
        store(row.vector(k), Vector<T>::pack(z));
    }
    __device__ __forceinline__ float of(float z, bool target) const {
        return target ? of_target : __expf(z - most) * scale;
    }
};

template <class T>
__device__ __forceinline__ void cross_entropy(float* __restrict__ losses, T* logits,
                                              const unsigned* __restrict__ targets, int rows, int cols, int parked,
                                              float share) {
    BUBBLEBENCH_DYNAMIC_SHARED(Vector<T>, all_parked);
    const int r = int(blockIdx.x * blockDim.y + threadIdx.y), threads = int(blockDim.x);
    if (r >= rows) return;  // a whole warp: several rows a block means one warp a row
    const unsigned target = targets[r];
    const bool known = target < unsigned(cols);
    const LogitRow<T> row(logits + size_t(r) * cols, cols, known ? int(target) : cols);
    const float wanted = known ? to_float(row.start[target]) : NAN;
    Vector<T>* park = all_parked + int(threadIdx.y) * threads * parked;
    const int before = row.before(), after = row.after();
    const float single[2] = {before >= 0 ? to_float(row.start[before]) : -INFINITY,
                             after >= 0 ? to_float(row.start[after]) : -INFINITY};

    RunningSum seen;
    Vector<T> kept[kRowKept];
#pragma unroll
    for (int k = 0; k < kRowKept; k++) {
        if (row.has(k)) kept[k] = load(row.vector(k));
    }
#pragma unroll
    for (int k = 0; k < kRowKept; k++) {
        if (row.has(k)) see(seen, row, k, kept[k]);
    }
    for (int first = kRowKept; row.has(first); first += kRowBatch) {
        Vector<T> batch[kRowBatch];
#pragma unroll
        for (int j = 0; j < kRowBatch; j++) {
            if (row.has(first + j)) batch[j] = load(row.vector(first + j));
        }
#pragma unroll
        for (int j = 0; j < kRowBatch; j++) {
            if (!row.has(first + j)) continue;
            if (first + j < kRowKept + parked) park[LogitRow<T>::at(first + j - kRowKept)] = batch[j];
            see(seen, row, first + j, batch[j]);
        }
    }
    const float others_of_single[2] = {before == row.target ? -INFINITY : single[0],
                                       after == row.target ? -INFINITY : single[1]};
    seen.add(others_of_single);

    // The row's: the barriers in here also part everyone's reads from the first write.
    const float most = fmaxf(row_max(seen.most), wanted);
    float others[1] = {seen.sum * __expf(seen.most - most)};
    row_sum(others);
    const float total = others[0] + __expf(wanted - most);
    if (threadIdx.x == 0) losses[r] = wanted == most ? log1pf(others[0]) : logf(total) + (most - wanted);

    ToGradient gradient{most, share / total, -others[0] * (share / total)};
    if (before >= 0) row.start[before] = from_float<T>(gradient.of(single[0], before == row.target));
    if (after >= 0) row.start[after] = from_float<T>(gradient.of(single[1], after == row.target));
#pragma unroll
    for (int k = 0; k < kRowKept; k++) {
        if (row.has(k)) gradient.replace(row, k, kept[k]);
    }
    int k = kRowKept;
    for (; k < kRowKept + parked && row.has(k); k++) {
        gradient.replace(row, k, park[LogitRow<T>::at(k - kRowKept)]);
    }
    for (; row.has(k); k += kRowBatch) {
        Vector<T> batch[kRowBatch];
#pragma unroll
        for (int j = 0; j < kRowBatch; j++) {
            if (row.has(k + j)) batch[j] = load(static_cast<const T*>(row.vector(k + j)));
        }
#pragma unroll
        for (int j = 0; j < kRowBatch; j++) {
            if (row.has(k + j)) gradient.replace(row, k + j, batch[j]);
        }
    }
}

}  // namespace bubblebench

#define CROSS_ENTROPY(T, suffix)                                                                                  \
    BUBBLEBENCH_KERNEL(1024, cross_entropy_##suffix, float* losses, T* logits, const unsigned* targets, int rows, \
                       int cols, int parked, float share) {                                                       \
        bubblebench::cross_entropy(losses, logits, targets, rows, cols, parked, share);                           \
    }

CROSS_ENTROPY(bubblebench::bf16, bf16)
CROSS_ENTROPY(bubblebench::f16, f16)
CROSS_ENTROPY(float, f32)
