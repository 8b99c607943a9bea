// Group normalisation, channels last (Wu & He, arXiv 1803.08494): forward, to inputs, to weights.
//
//   y      =  (x − mean)·rstd·gamma + beta           mean, rstd = 1/√(variance + epsilon): one per (batch, group), fp32
//   dx     =  rstd·(g − mean(g) − x̂·mean(g·x̂))       g = dy·gamma, x̂ = (x − mean)·rstd, means over the group
//   dgamma += Σ_{batch, positions} dy·x̂              dbeta += Σ_{batch, positions} dy
//
// x y dy dx: batch × positions × channels; gamma beta: channels; all of type T = bf16, f16 or f32, every sum in fp32; a
// group is channels / groups neighbouring channels. Any sizes ≥ 1. Sums run in a fixed order: the same inputs give the
// same bits.
//
// forward, to_inputs: one block for `together` neighbouring groups of one image, grid batch · groups / together. `vector`
//   elements are accessed at once: W (16 bytes), W / 2 or 1, a divisor of the group's channels, with every pointer
//   aligned to that. With more than one group together, `together` times a group's vectors a position must be a power of
//   two ≤ 32. Block: a multiple of 32, up to 1024 forward and 384 to inputs (above, two blocks an SM spill). What fits 4 vectors
//   a thread is read once; a larger group is read again for each pass, from L1 or L2.
// to_weights_partial: block (lanes, strips) as columns.cuh says, grid (⌈channels / (lanes · 16 bytes)⌉, image chunks,
//   position chunks); partial: 2 × chunks × channels, fp32, overwritten. The sum of those and what dgamma and dbeta held
//   is layernorm.cu's to_weights_reduce.
//
// Groups of 32 bytes or more use whole sectors of DRAM; narrower ones are put together where the GPU is full anyway,
// and share sectors through L2 where it is not. Bytes: 2 (forward), 3 (to inputs), 2 (to weights) times the tensor.
// Nothing is kept in local memory.
#include "columns.cuh"

namespace bubblebench {

constexpr int kHeld = 4;

// V elements of T in one access, held packed.
template <int bytes> struct Bits;
template <> struct Bits<16> { using type = uint4; };
template <> struct Bits<8> { using type = uint2; };
template <> struct Bits<4> { using type = uint32_t; };
template <> struct Bits<2> { using type = uint16_t; };

template <class T, int V> struct Piece {
    using B = typename Bits<V * int(sizeof(T))>::type;
    B bits;

    __device__ __forceinline__ static Piece from(const T* at) {
        if constexpr (sizeof(B) == 16) {
            BUBBLEBENCH_CHECK_ALIGNED(at);
        }
        return {*reinterpret_cast<const B*>(at)};
    }
    __device__ __forceinline__ void unpack(float (&v)[V]) const {
        T elements[V];
        memcpy(elements, &bits, sizeof bits);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = to_float(elements[i]);
    }
    __device__ __forceinline__ static void put(T* at, const float (&v)[V]) {
        T elements[V];
#pragma unroll
        for (int i = 0; i < V; i++) elements[i] = from_float<T>(v[i]);
        B bits;
        memcpy(&bits, elements, sizeof bits);
        *reinterpret_cast<B*>(at) = bits;
    }
};

// The block's groups: which elements are this thread's, and which group they belong to.
struct Tile {
    size_t start;     // of the tile's first element in the tensor
    int channels;     // from one position to the next
    int channel;      // the tile's first
    int vectors;      // a position
    int total;        // vectors in the tile
    int together;     // groups in it
    int per_group;    // vectors of a group at one position
    int size;         // elements of a group
    int group;        // this thread's within the tile
    int statistics;   // index of this thread's mean and rstd

    __device__ __forceinline__ Tile(int positions, int channels_, int groups, int together_, int vector)
        : channels(channels_), together(together_) {
        const int tiles = groups / together, width = channels / groups;
        const int image = int(blockIdx.x) / tiles, tile = int(blockIdx.x) - image * tiles;
        channel = tile * together * width;
        start = size_t(image) * positions * channels + channel;
        per_group = width / vector;
        vectors = per_group * together;
        total = positions * vectors;
        size = positions * width;
        // Several groups together: a power of two of vectors, so this thread's are all in the same group.
        group = together == 1 ? 0 : int(threadIdx.x) % vectors / per_group;
        statistics = image * groups + tile * together + group;
    }

    // True in one thread of each group.
    __device__ __forceinline__ bool leader() const { return int(threadIdx.x) == group * per_group; }
};

// Steps through a thread's vectors: position and vector in it, with one division at the start.
template <int V> struct Walk {
    int position, vector, at, step_position, step_vector;

    __device__ __forceinline__ explicit Walk(const Tile& tile) : at(int(threadIdx.x)) {
        step_position = int(blockDim.x) / tile.vectors;
        step_vector = int(blockDim.x) - step_position * tile.vectors;
        position = at / tile.vectors;
        vector = at - position * tile.vectors;
    }
    __device__ __forceinline__ bool inside(const Tile& tile) const { return at < tile.total; }
    __device__ __forceinline__ void step(const Tile& tile) {
        at += int(blockDim.x);
        position += step_position;
        vector += step_vector;
        if (vector >= tile.vectors) {
            vector -= tile.vectors;
            position++;
        }
    }
    __device__ __forceinline__ size_t offset(const Tile& tile) const {
        return tile.start + size_t(position) * tile.channels + vector * V;
    }
    __device__ __forceinline__ int channel(const Tile& tile) const { return tile.channel + vector * V; }
};

// Sums over the group, in each of its threads. All threads of the block call.
template <int N> __device__ __forceinline__ void group_sum(float (&v)[N], const Tile& tile) {
    if (tile.together == 1) {
        row_sum(v);
        return;
    }
    for (int mask = 1; mask < kWarp; mask *= 2) {
        if (mask >= tile.per_group && mask < tile.vectors) continue;  // that lane is in another group
#pragma unroll
        for (int n = 0; n < N; n++) v[n] += __shfl_xor_sync(kAllLanes, v[n], mask);
    }
    __shared__ float sums[N][kWarp][kWarp + 1];
    const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp, warps = int(blockDim.x) / kWarp;
    if (lane == tile.group * tile.per_group) {
#pragma unroll
        for (int n = 0; n < N; n++) sums[n][tile.group][warp] = v[n];
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < N; n++) {
        v[n] = 0.0f;
        for (int other = 0; other < warps; other++) v[n] += sums[n][tile.group][other];
    }
    __syncthreads();  // the next call may write `sums` again
}

// This thread's vectors of a tensor: in registers where the tile fits them, in memory otherwise.
template <class T, int V> struct Rows {
    Piece<T, V> pieces[kHeld];
    const T* from;
    bool held;

    __device__ __forceinline__ Rows(const T* from_, const Tile& tile)
        : from(from_), held(tile.total <= kHeld * int(blockDim.x)) {
        if (!held) return;
        Walk<V> walk(tile);
#pragma unroll
        for (int k = 0; k < kHeld; k++, walk.step(tile)) {
            if (walk.inside(tile)) pieces[k] = Piece<T, V>::from(from + walk.offset(tile));
        }
    }
};

// Calls f(walk, elements) for each of them.
template <class T, int V, class F>
__device__ __forceinline__ void each(const Rows<T, V>& x, const Tile& tile, F&& f) {
    Walk<V> walk(tile);
    float v[V];
    if (x.held) {
#pragma unroll
        for (int k = 0; k < kHeld; k++, walk.step(tile)) {
            if (!walk.inside(tile)) continue;
            x.pieces[k].unpack(v);
            f(walk, v);
        }
        return;
    }
    for (; walk.inside(tile); walk.step(tile)) {
        Piece<T, V>::from(x.from + walk.offset(tile)).unpack(v);
        f(walk, v);
    }
}

// The same for two tensors side by side.
template <class T, int V, class F>
__device__ __forceinline__ void each(const Rows<T, V>& x, const Rows<T, V>& y, const Tile& tile, F&& f) {
    Walk<V> walk(tile);
    float v[V], w[V];
    if (x.held) {
#pragma unroll
        for (int k = 0; k < kHeld; k++, walk.step(tile)) {
            if (!walk.inside(tile)) continue;
            x.pieces[k].unpack(v);
            y.pieces[k].unpack(w);
            f(walk, v, w);
        }
        return;
    }
    for (; walk.inside(tile); walk.step(tile)) {
        Piece<T, V>::from(x.from + walk.offset(tile)).unpack(v);
        Piece<T, V>::from(y.from + walk.offset(tile)).unpack(w);
        f(walk, v, w);
    }
}

// --- forward -------------------------------------------------------------------------------------------------------

template <class T, int V>
__device__ __forceinline__ void forward(T* y, float* mean, float* rstd, const T* x, const T* gamma, const T* beta,
                                        const Tile& tile, float epsilon) {
    const Rows<T, V> rows(x, tile);
    float sum[1] = {0.0f}, square[1] = {0.0f};
    each(rows, tile, [&](const Walk<V>&, const float(&v)[V]) {
#pragma unroll
        for (int i = 0; i < V; i++) sum[0] += v[i];
    });
    group_sum(sum, tile);
    const float m = sum[0] / float(tile.size);
    each(rows, tile, [&](const Walk<V>&, const float(&v)[V]) {
#pragma unroll
        for (int i = 0; i < V; i++) square[0] += (v[i] - m) * (v[i] - m);
    });
    group_sum(square, tile);
    const float r = rsqrtf(square[0] / float(tile.size) + epsilon);
    each(rows, tile, [&](const Walk<V>& walk, float(&v)[V]) {
        float g[V], b[V];
        Piece<T, V>::from(gamma + walk.channel(tile)).unpack(g);
        Piece<T, V>::from(beta + walk.channel(tile)).unpack(b);
#pragma unroll
        for (int i = 0; i < V; i++) v[i] = (v[i] - m) * r * g[i] + b[i];
        Piece<T, V>::put(y + walk.offset(tile), v);
    });
    if (tile.leader()) {
        mean[tile.statistics] = m;
        rstd[tile.statistics] = r;
    }
}

template <class T>
__device__ __forceinline__ void groupnorm_forward(T* __restrict__ y, float* __restrict__ mean, float* __restrict__ rstd,
                                                  const T* __restrict__ x, const T* __restrict__ gamma,
                                                  const T* __restrict__ beta, int positions, int channels, int groups,
                                                  int together, int vector, float epsilon) {
    constexpr int W = Vector<T>::width;
    const Tile tile(positions, channels, groups, together, vector);
    if (vector == W) {
        forward<T, W>(y, mean, rstd, x, gamma, beta, tile, epsilon);
    } else if (vector == W / 2) {
        forward<T, W / 2>(y, mean, rstd, x, gamma, beta, tile, epsilon);
    } else {
        forward<T, 1>(y, mean, rstd, x, gamma, beta, tile, epsilon);
    }
}

// --- to inputs -----------------------------------------------------------------------------------------------------

template <class T, int V>
__device__ __forceinline__ void to_inputs(T* dx, const T* dy, const T* x, const T* gamma, float m, float r,
                                          const Tile& tile) {
    const Rows<T, V> dys(dy, tile), xs(x, tile);
    float sums[2] = {0.0f, 0.0f};
    each(dys, xs, tile, [&](const Walk<V>& walk, const float(&d)[V], const float(&v)[V]) {
        float g[V];
        Piece<T, V>::from(gamma + walk.channel(tile)).unpack(g);
#pragma unroll
        for (int i = 0; i < V; i++) {
            sums[0] += d[i] * g[i];
            sums[1] += d[i] * g[i] * (v[i] - m) * r;
        }
    });
    group_sum(sums, tile);
    const float mean_g = sums[0] / float(tile.size), mean_gx = sums[1] / float(tile.size);
    each(dys, xs, tile, [&](const Walk<V>& walk, float(&d)[V], const float(&v)[V]) {
        float g[V];
        Piece<T, V>::from(gamma + walk.channel(tile)).unpack(g);
#pragma unroll
        for (int i = 0; i < V; i++) d[i] = r * (d[i] * g[i] - mean_g - (v[i] - m) * r * mean_gx);
        Piece<T, V>::put(dx + walk.offset(tile), d);
    });
}

template <class T>
__device__ __forceinline__ void groupnorm_to_inputs(T* __restrict__ dx, const T* __restrict__ dy,
                                                    const T* __restrict__ x, const T* __restrict__ gamma,
                                                    const float* __restrict__ mean, const float* __restrict__ rstd,
                                                    int positions, int channels, int groups, int together,
                                                    int vector) {
    constexpr int W = Vector<T>::width;
    const Tile tile(positions, channels, groups, together, vector);
    const float m = mean[tile.statistics], r = rstd[tile.statistics];
    if (vector == W) {
        to_inputs<T, W>(dx, dy, x, gamma, m, r, tile);
    } else if (vector == W / 2) {
        to_inputs<T, W / 2>(dx, dy, x, gamma, m, r, tile);
    } else {
        to_inputs<T, 1>(dx, dy, x, gamma, m, r, tile);
    }
}

// --- to weights ----------------------------------------------------------------------------------------------------

template <class T>
__device__ __forceinline__ void groupnorm_to_weights_partial(float* __restrict__ partial, const T* __restrict__ dy,
                                                             const T* __restrict__ x, const float* __restrict__ mean,
                                                             const float* __restrict__ rstd, int batch, int positions,
                                                             int channels, int groups) {
    constexpr int W = Vector<T>::width;
    const Columns<T> columns(int(blockIdx.x), channels, aligned16(dy) && aligned16(x));
    const int width = channels / groups, step = int(gridDim.z * blockDim.y);
    float sums[2 * W] = {};
    for (int n = int(blockIdx.y); n < batch; n += int(gridDim.y)) {
        float m[W], r[W];
#pragma unroll
        for (int i = 0; i < W; i++) {
            const int group = columns[i] < channels ? columns[i] / width : 0;
            m[i] = mean[size_t(n) * groups + group];
            r[i] = rstd[size_t(n) * groups + group];
        }
        for (int p = int(blockIdx.z * blockDim.y + threadIdx.y); p < positions; p += step) {
            const size_t row = (size_t(n) * positions + p) * channels;
            float d[W] = {}, v[W] = {};
            columns.read(dy + row, d);
            columns.read(x + row, v);
#pragma unroll
            for (int i = 0; i < W; i++) {
                sums[i] += d[i] * (v[i] - m[i]) * r[i];
                sums[W + i] += d[i];
            }
        }
    }
    sum_over_strips(sums);
    if (threadIdx.y != 0) return;
    const size_t chunk = size_t(blockIdx.z) * gridDim.y + blockIdx.y, chunks = size_t(gridDim.y) * gridDim.z;
#pragma unroll
    for (int i = 0; i < W; i++) {
        if (columns[i] >= channels) continue;
        partial[chunk * channels + columns[i]] = sums[i];
        partial[(chunks + chunk) * channels + columns[i]] = sums[W + i];
    }
}

}  // namespace bubblebench

#define GROUPNORM(T, suffix)                                                                                          \
    BUBBLEBENCH_KERNEL(1024, groupnorm_forward_##suffix, T* y, float* mean, float* rstd, const T* x, const T* gamma,  \
                       const T* beta, int positions, int channels, int groups, int together, int vector,              \
                       float epsilon) {                                                                               \
        bubblebench::groupnorm_forward(y, mean, rstd, x, gamma, beta, positions, channels, groups, together, vector,  \
                                       epsilon);                                                                      \
    }                                                                                                                 \
    BUBBLEBENCH_KERNEL(384, groupnorm_to_inputs_##suffix, T* dx, const T* dy, const T* x, const T* gamma,             \
                       const float* mean, const float* rstd, int positions, int channels, int groups, int together,   \
                       int vector) {                                                                                  \
        bubblebench::groupnorm_to_inputs(dx, dy, x, gamma, mean, rstd, positions, channels, groups, together,         \
                                         vector);                                                                     \
    }                                                                                                                 \
    BUBBLEBENCH_KERNEL(256, groupnorm_to_weights_partial_##suffix, float* partial, const T* dy, const T* x,           \
                       const float* mean, const float* rstd, int batch, int positions, int channels, int groups) {    \
        bubblebench::groupnorm_to_weights_partial(partial, dy, x, mean, rstd, batch, positions, channels, groups);    \
    }

GROUPNORM(bubblebench::bf16, bf16)
GROUPNORM(bubblebench::f16, f16)
GROUPNORM(float, f32)
