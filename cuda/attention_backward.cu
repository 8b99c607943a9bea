// Causal self-attention, backward (Dao, arXiv 2307.08691, algorithm 2): gradients of packed q, k and v.
//
//   P = exp(scale·Q·Kᵀ − lse), 0 for keys after their query     δ_i = Σ dO_i·O_i     dS = P∘(dO·Vᵀ − δ)
//   dV = Pᵀ·dO          dK = scale·dSᵀ·Q          dQ = scale·dS·K
//
// qkv, dqkv: rows of [q(A·D) | k(A·D) | v(A·D)], row = b·S + s; dout, out: rows of A·D; T = bf16 or f16 (f32:
// attention_plain.cu), each starting at a 16-byte boundary; lse: fp32, natural logarithm, index (b·A + a)·S + s.
// dqkv is overwritten. Products of T with fp32 sums; P and dS are rounded to T for theirs. Any S ≥ 1.
//
// Three launches with fp32 scratch, S' = S rounded up to kPadded = 64:
//   attention_backward_prepare_<T>: statistics[B·A][S'] = (lse·log₂e, δ), (∞, 0) beyond S, so that padded queries have
//     P = 0; clears sums[B·A][S'][D]. Grid (B·A, S'/16), block 128.
//   attention_backward_d<D>_<queries>x<keys>_<T>: a block a tile of keys, walking over the tiles of queries from the
//     diagonal on. Grid (B·A, ⌈S / keys⌉): blocks with the most queries start first. Writes dk and dv, adds to sums.
//   attention_backward_query_<T>: dq = scale·sums, rounded. Grid (B·A, ⌈S / 16⌉), block 128.
// dk and dv are the same bits each time. dq is not: its fp32 sums are added up atomically, in whatever order blocks come,
// so its last bits may differ from run to run.
//
// A warp owns MT·16 keys and computes Sᵀ = K·Qᵀ and dPᵀ = V·dOᵀ for the tile's queries: the accumulators are then already
// the left operands of dV += Pᵀ·dO and dK += dSᵀ·Q. Only dS goes through shared memory, for dQ, whose sum is over the
// keys of all warps. D = 256: two warps share 16 keys, each with half of the queries (scores) and half of the columns
// (dK, dV), or the sums would not fit; P goes through shared memory too. Q and dO of the next tile arrive (cp.async)
// while this one is worked on (one stage only for D = 256 with 99 KB): two barriers a tile.
// The sums' layout is that of the fragments (16 queries × 8 columns = 128 neighbouring floats): one 16-byte red a lane
// from sm_90 on, four coalesced 4-byte ones before.
//
// Work: 5 products, 5·S·(S+1)·D FLOP a head. Bytes: qkv, dout, out in, dqkv out, and 8·D·S of sums, once each from DRAM;
// Q, dO (4·D bytes a query) and a red of the sums (4·D) for each block of keys through L2: at 128 keys 160 FLOP a byte.
// A block of 128 keys at D = 128 spends on 64 queries, in cycles of an SM: 2560 mma, 4100 (mma.sync's rate); 704 KB
// through ldmatrix without bank conflicts, 5600: shared memory is the tighter of the two. Expected on an H200 at D = 128,
// S = 8192: 250 to 310 TFLOP/s (FlashAttention-2 reaches about 300 there); the two would allow 440. Not measured yet.
//
// Registers (sm_80, sm_90a) and shared memory: d32 180 178, 59 KB; d64 253 255, 91 KB (64x128) and 255 255, 65 KB; d80
// 223 242, 107 KB and 166 171, 77 KB; d96 240 242, 123 KB and 172 176, 89 KB; d128 255 255, 155 KB (64x128) and 239 240,
// 74 KB; d256 238 241, 217 KB (64x64), 231 236, 143 KB and 230 237, 71 KB. No kernel spills.
#include "attention.cuh"

// Whether a lane's four sums of a fragment lie together (and are added in one instruction).
#if defined(BUBBLEBENCH_VECTOR_RED)  // a test of the other layout on the host
#elif defined(BUBBLEBENCH_HOST_EMULATION) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
#define BUBBLEBENCH_VECTOR_RED 1
#else
#define BUBBLEBENCH_VECTOR_RED 0
#endif

namespace bubblebench {

// Queries the scratch is padded to: a multiple of every tile's.
constexpr int kPadded = 64;
constexpr int kFragment = 128;  // elements of a 16×8 accumulator

__device__ __forceinline__ int padded(int sequence) { return (sequence + kPadded - 1) / kPadded * kPadded; }

// Where row `row` (0..15), column `column` (0..7) of a fragment lies among its 128 floats.
__device__ __forceinline__ int in_fragment(int row, int column) {
    const int lane = row % 8 * 4 + column / 2, i = row / 8 * 2 + column % 2;
    return BUBBLEBENCH_VECTOR_RED ? lane * 4 + i : i * kWarp + lane;
}

__device__ __forceinline__ void add_fragment(float* fragment, const float (&v)[4], int lane) {
#if BUBBLEBENCH_VECTOR_RED && defined(BUBBLEBENCH_HOST_EMULATION)
    BUBBLEBENCH_CHECK_ALIGNED(fragment + lane * 4);
    for (int i = 0; i < 4; i++) atomicAdd(fragment + lane * 4 + i, v[i]);
#elif BUBBLEBENCH_VECTOR_RED
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(
                     __cvta_generic_to_global(fragment + lane * 4)),
                 "f"(v[0]), "f"(v[1]), "f"(v[2]), "f"(v[3])
                 : "memory");
#else
#pragma unroll
    for (int i = 0; i < 4; i++) atomicAdd(fragment + i * kWarp + lane, v[i]);
#endif
}

// --- before and after ----------------------------------------------------------------------------------------------

// Eight lanes a query.
template <class T>
__device__ __forceinline__ void attention_backward_prepare(float* __restrict__ statistics, float* __restrict__ sums,
                                                           const T* __restrict__ dout, const T* __restrict__ out,
                                                           const float* __restrict__ lse, int heads, int sequence,
                                                           int head_size) {
    const int lane = int(threadIdx.x) % 8, row = int(blockIdx.y) * 16 + int(threadIdx.x) / 8;
    const int head = int(blockIdx.x) % heads, batch = int(blockIdx.x) / heads;
    const size_t line = size_t(blockIdx.x) * padded(sequence) + row;
    const float4 zero = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    for (int c = lane * 4; c < head_size; c += 32) *reinterpret_cast<float4*>(sums + line * head_size + c) = zero;
    float delta = 0.0f;
    if (row < sequence) {
        const size_t at = (size_t(batch) * sequence + row) * heads * head_size + size_t(head) * head_size;
        for (int c = lane * 8; c < head_size; c += 64) {
            float d[8], o[8];
            load(dout + at + c).unpack(d);
            load(out + at + c).unpack(o);
#pragma unroll
            for (int i = 0; i < 8; i++) delta = fmaf(d[i], o[i], delta);
        }
    }
#pragma unroll
    for (int flip = 4; flip > 0; flip /= 2) delta += __shfl_xor_sync(kAllLanes, delta, flip);
    if (lane != 0) return;
    const float shift = row < sequence ? lse[size_t(blockIdx.x) * sequence + row] * kLog2e : infinity();
    *reinterpret_cast<float2*>(statistics + 2 * line) = make_float2(shift, delta);
}

// Sixteen queries a block; a thread takes 8 columns of one, two rows of a fragment side by side.
template <class T>
__device__ __forceinline__ void attention_backward_query(T* __restrict__ dqkv, const float* __restrict__ sums,
                                                         int heads, int sequence, int head_size, float scale) {
    const int head = int(blockIdx.x) % heads, batch = int(blockIdx.x) / heads, columns = head_size / 8;
    const size_t stride = size_t(3) * heads * head_size;
    const float* tile = sums + (size_t(blockIdx.x) * padded(sequence) + size_t(blockIdx.y) * 16) * head_size;
    for (int unit = int(threadIdx.x); unit < 16 * columns; unit += int(blockDim.x)) {
        const int column = unit / 2 % columns, row = unit % 2 * 8 + unit / 2 / columns;
        if (int(blockIdx.y) * 16 + row >= sequence) continue;
        float v[8];
#pragma unroll
        for (int c = 0; c < 8; c++) v[c] = tile[column * kFragment + in_fragment(row, c)] * scale;
        const size_t at = (size_t(batch) * sequence + blockIdx.y * 16 + row) * stride + size_t(head) * head_size;
        store(dqkv + at + column * 8, Vector<T>::pack(v));
    }
}

// --- the products --------------------------------------------------------------------------------------------------

// CHUNK: queries whose scores a warp holds at once. QMT: 16-query rows of dQ a warp computes.
template <class T, int D, int QUERIES, int WARPS, int MT, int SPLIT, int STAGES, int CHUNK, int QMT>
struct AttentionBackward {
    static constexpr int kThreads = WARPS * kWarp, kKeys = WARPS / SPLIT * MT * 16, kColumns = D / SPLIT;
    static constexpr int kSeen = QUERIES / SPLIT, kBytes = int(sizeof(T)), kDepth = D / 16;
    static constexpr int kKeyBytes = kKeys * kPitch<D> * kBytes, kQueryBytes = QUERIES * kPitch<D> * kBytes;
    static constexpr int kTransposed = QUERIES + kTilePad;  // pitch of P and dS, stored [key][query]
    static constexpr int kScoreBytes = kKeys * kTransposed * kBytes, kStatisticsBytes = QUERIES * 8;
    static constexpr int kStageBytes = 2 * kQueryBytes + kStatisticsBytes;  // Q, dO, statistics
    // K, V, dS, (P), stages
    static constexpr int kStagesAt = 2 * kKeyBytes + SPLIT * kScoreBytes;
    static constexpr int kSharedBytes = kStagesAt + STAGES * kStageBytes;
    // dQ: the warps stand kQueryWarps × kColumnWarps; each takes every kColumnWarps-th 16 columns, two at a time.
    static constexpr int kQueryWarps = QUERIES / 16 / QMT, kColumnWarps = WARPS / kQueryWarps;
    static_assert(kKeys % QUERIES == 0 && kSeen % CHUNK == 0 && CHUNK % 16 == 0 && kPadded % QUERIES == 0);
    static_assert(kQueryWarps * QMT * 16 == QUERIES && kQueryWarps * kColumnWarps == WARPS);
    static_assert(SPLIT == 1 || (MT == 1 && CHUNK == kSeen));

    float dk[MT][kColumns / 8][4], dv[MT][kColumns / 8][4];
    int key0;

    // Who this thread is, found anew in each phase: kept, it would take registers from the sums.
    struct Place {
        int lane, warp, group, part;  // the warp's keys are the group-th MT·16; its columns the part-th of SPLIT

        __device__ __forceinline__ Place() {
            int thread = int(threadIdx.x);
            opaque(thread);
            lane = thread % kWarp;
            warp = thread / kWarp;
            group = warp / SPLIT;
            part = warp % SPLIT;
        }
    };

    struct Arguments {
        T* dqkv;
        float* sums;
        const float* statistics;
        const T *dout, *qkv;
        int heads, sequence;
    };

    template <int M, int N> __device__ __forceinline__ static void clear(float (&v)[M][N][4]) {
#pragma unroll
        for (int m = 0; m < M; m++) {
#pragma unroll
            for (int n = 0; n < N; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) v[m][n][i] = 0.0f;
            }
        }
    }

    // s = left·rightᵀ over the whole depth, for the warp's keys and CHUNK queries.
    __device__ __forceinline__ void scores(float (&s)[MT][CHUNK / 8][4], SharedAddress left, SharedAddress right) {
        clear(s);
#pragma unroll
        for (int k = 0; k < kDepth; k++) {
            uint32_t a[MT][4];
#pragma unroll
            for (int m = 0; m < MT; m++) ldmatrix_x4(a[m], left + (m * 16 * kPitch<D> + k * 16) * kBytes);
#pragma unroll
            for (int n = 0; n < CHUNK / 16; n++) {
                uint32_t b[4];
                ldmatrix_x4(b, right + (n * 16 * kPitch<D> + k * 16) * kBytes);
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    mma_16816<T>(s[m][2 * n], a[m], b[0], b[1]);
                    mma_16816<T>(s[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
    }

    // sums += a·rows for 16 queries: `rows` are those of Q or dO, at the warp's first column.
    __device__ __forceinline__ void add_product(float (&sums)[MT][kColumns / 8][4], const uint32_t (&a)[MT][4],
                                                SharedAddress rows) {
#pragma unroll
        for (int n = 0; n < kColumns / 16; n++) {
            uint32_t b[4];
            ldmatrix_x4_trans(b, rows + n * 16 * kBytes);
#pragma unroll
            for (int m = 0; m < MT; m++) {
                mma_16816<T>(sums[m][2 * n], a[m], b[0], b[1]);
                mma_16816<T>(sums[m][2 * n + 1], a[m], b[2], b[3]);
            }
        }
    }

    // s becomes P (transposed: rows are keys). statistics: of the chunk's first query.
    __device__ __forceinline__ void probabilities(float (&s)[MT][CHUNK / 8][4], const float* statistics, int query0,
                                                  float scale_log2, const Place& at) {
        const int key = key0 + at.group * MT * 16 + at.lane / 4, query = query0 + at.lane % 4 * 2;
        const bool masked = query0 < key0 + (at.group + 1) * MT * 16 - 1;
#pragma unroll
        for (int n = 0; n < CHUNK / 8; n++) {
            const float4 two = *reinterpret_cast<const float4*>(statistics + 2 * (n * 8 + at.lane % 4 * 2));
#pragma unroll
            for (int m = 0; m < MT; m++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float shift = i % 2 ? two.z : two.x;
                    const bool hidden = masked && key + m * 16 + i / 2 * 8 > query + n * 8 + i % 2;
                    s[m][n][i] = exp2_fast(hidden ? -infinity() : fmaf(s[m][n][i], scale_log2, -shift));
                }
            }
        }
    }

    // dp becomes dS = P∘(dP − δ).
    __device__ __forceinline__ void differences(float (&dp)[MT][CHUNK / 8][4], const float (&p)[MT][CHUNK / 8][4],
                                                const float* statistics, const Place& at) {
#pragma unroll
        for (int n = 0; n < CHUNK / 8; n++) {
            const float4 two = *reinterpret_cast<const float4*>(statistics + 2 * (n * 8 + at.lane % 4 * 2));
#pragma unroll
            for (int m = 0; m < MT; m++) {
#pragma unroll
                for (int i = 0; i < 4; i++) dp[m][n][i] = p[m][n][i] * (dp[m][n][i] - (i % 2 ? two.w : two.y));
            }
        }
    }

    // A left operand into a [key][query] tile; `to` is this lane's place in its corner.
    __device__ __forceinline__ static void store_operand(SharedAddress to, const uint32_t (&a)[4]) {
        store_pair(to, a[0]);
        store_pair(to + 8 * kTransposed * kBytes, a[1]);
        store_pair(to + 8 * kBytes, a[2]);
        store_pair(to + (8 * kTransposed + 8) * kBytes, a[3]);
    }

    // Scores, their gradients, and (SPLIT = 1) the products with them, for one tile of queries.
    __device__ __forceinline__ void key_phase(SharedAddress keys, SharedAddress stage, const float* statistics,
                                              int query0, float scale_log2) {
        const Place at;
        const SharedAddress left = keys + (at.group * MT * 16 * kPitch<D> + by_rows(at.lane, kPitch<D>)) * kBytes;
        const int store_lane = (at.lane / 4 * kTransposed + at.lane % 4 * 2) * kBytes;
#pragma unroll 1
        for (int chunk = 0; chunk < kSeen; chunk += CHUNK) {
            const int from = chunk + (SPLIT > 1 ? at.part * kSeen : 0);
            const SharedAddress right = stage + (from * kPitch<D> + by_columns(at.lane, kPitch<D>)) * kBytes;
            const SharedAddress rows = stage + (from * kPitch<D> + by_rows(at.lane, kPitch<D>)) * kBytes;
            const SharedAddress ds_at =
                keys + 2 * kKeyBytes + (at.group * MT * 16 * kTransposed + from) * kBytes + store_lane;
            float p[MT][CHUNK / 8][4], dp[MT][CHUNK / 8][4];
            scores(p, left, right);
            probabilities(p, statistics + 2 * from, query0 + from, scale_log2, at);
            scores(dp, left + kKeyBytes, right + kQueryBytes);
            differences(dp, p, statistics + 2 * from, at);
#pragma unroll
            for (int j = 0; j < CHUNK / 16; j++) {
                uint32_t a[MT][4];
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    pack_fragment<T>(a[m], p[m][2 * j], p[m][2 * j + 1]);
                    if constexpr (SPLIT > 1) store_operand(ds_at + kScoreBytes + j * 16 * kBytes, a[m]);
                }
                if constexpr (SPLIT == 1) add_product(dv, a, rows + kQueryBytes + j * 16 * kPitch<D> * kBytes);
            }
#pragma unroll
            for (int j = 0; j < CHUNK / 16; j++) {
                uint32_t a[MT][4];
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    pack_fragment<T>(a[m], dp[m][2 * j], dp[m][2 * j + 1]);
                    store_operand(ds_at + (m * 16 * kTransposed + j * 16) * kBytes, a[m]);
                }
                if constexpr (SPLIT == 1) add_product(dk, a, rows + j * 16 * kPitch<D> * kBytes);
            }
        }
    }

    // SPLIT > 1: the products with P and dS of all queries, for the warp's keys and columns.
    __device__ __forceinline__ void split_products(SharedAddress keys, SharedAddress stage) {
        const Place at;
        const SharedAddress ds =
            keys + 2 * kKeyBytes + (at.group * 16 * kTransposed + by_rows(at.lane, kTransposed)) * kBytes;
        const SharedAddress rows = stage + (at.part * kColumns + by_rows(at.lane, kPitch<D>)) * kBytes;
#pragma unroll
        for (int j = 0; j < QUERIES / 16; j++) {
            uint32_t a[1][4];
            ldmatrix_x4(a[0], ds + kScoreBytes + j * 16 * kBytes);
            add_product(dv, a, rows + kQueryBytes + j * 16 * kPitch<D> * kBytes);
            ldmatrix_x4(a[0], ds + j * 16 * kBytes);
            add_product(dk, a, rows + j * 16 * kPitch<D> * kBytes);
        }
    }

    // Sums over `keys_seen` of the block's keys for the warp's part of dQ, 16·N columns from `column` on.
    template <int N>
    __device__ __forceinline__ void query_product(const Arguments& arguments, SharedAddress keys, int query0, int column,
                                                  int keys_seen, const Place& at) {
        const int query = at.warp / kColumnWarps * QMT * 16;
        const SharedAddress left = keys + 2 * kKeyBytes + (query + by_columns(at.lane, kTransposed)) * kBytes;
        const SharedAddress right = keys + (column + by_rows(at.lane, kPitch<D>)) * kBytes;
        float dq[QMT][2 * N][4];
        clear(dq);
#pragma unroll 2
        for (int k = 0; k < keys_seen; k += 16) {
            uint32_t a[QMT][4];
#pragma unroll
            for (int m = 0; m < QMT; m++) ldmatrix_x4_trans(a[m], left + (k * kTransposed + m * 16) * kBytes);
#pragma unroll
            for (int n = 0; n < N; n++) {
                uint32_t b[4];
                ldmatrix_x4_trans(b, right + (k * kPitch<D> + n * 16 * kColumnWarps) * kBytes);
#pragma unroll
                for (int m = 0; m < QMT; m++) {
                    mma_16816<T>(dq[m][2 * n], a[m], b[0], b[1]);
                    mma_16816<T>(dq[m][2 * n + 1], a[m], b[2], b[3]);
                }
            }
        }
#pragma unroll
        for (int m = 0; m < QMT; m++) {
            const int row = query0 + query + m * 16;
            if (row >= arguments.sequence) continue;
            float* to = arguments.sums + (Head<D>(arguments.heads, arguments.sequence).line * padded(arguments.sequence) + row) * D + column / 8 * kFragment;
#pragma unroll
            for (int n = 0; n < 2 * N; n++)
                add_fragment(to + (n / 2 * 2 * kColumnWarps + n % 2) * kFragment, dq[m][n], at.lane);
        }
    }

    __device__ __forceinline__ void query_phase(const Arguments& arguments, SharedAddress keys, int query0) {
        const int keys_seen = min(kKeys, query0 + QUERIES - key0);  // those after all queries have dS = 0
        const Place at;
        int column = at.warp % kColumnWarps * 16;
#pragma unroll 1
        for (; column + kColumnWarps * 16 < D; column += 2 * kColumnWarps * 16)
            query_product<2>(arguments, keys, query0, column, keys_seen, at);
        if (D / 16 % (2 * kColumnWarps) != 0 && column < D) query_product<1>(arguments, keys, query0, column, keys_seen, at);
    }

    __device__ __forceinline__ void copy_stage(SharedAddress stage, const Arguments& arguments, int query0) {
        const Head<D> head(arguments.heads, arguments.sequence);
        const int rows = arguments.sequence - query0, stride = 3 * head.width;
        copy_tile<T, D, QUERIES, kThreads>(stage, arguments.qkv + head.qkv + int64_t(query0) * stride, stride, rows);
        copy_tile<T, D, QUERIES, kThreads>(stage + kQueryBytes,
                                           arguments.dout + head.out + int64_t(query0) * head.width, head.width, rows);
        if (threadIdx.x < QUERIES / 2)
            copy_async16(stage + 2 * kQueryBytes + threadIdx.x * 16,
                         arguments.statistics + 2 * (head.line * padded(arguments.sequence) + query0) + threadIdx.x * 4, true);
        copy_commit();
    }

    __device__ __forceinline__ void walk(unsigned char* shared, const Arguments& arguments, float scale_log2) {
        const int sequence = arguments.sequence;
        const SharedAddress keys = shared_address(shared), stages = keys + kStagesAt;
        if (STAGES > 1) copy_stage(stages, arguments, key0);
        int stage = 0;
        for (int query0 = key0; query0 < sequence; query0 += QUERIES, stage = (stage + 1) % STAGES) {
            if (STAGES == 1) {
                __syncthreads();  // nobody reads the tile before any more
                copy_stage(stages, arguments, query0);
            }
            copy_wait<0>();
            __syncthreads();  // this tile is there for all, and nobody reads dS or the stage before any more
            if (STAGES > 1 && query0 + QUERIES < sequence)
                copy_stage(stages + (stage ^ 1) * kStageBytes, arguments, query0 + QUERIES);
            const SharedAddress here = stages + stage * kStageBytes;
            const bool seen = key0 + Place().group * MT * 16 < query0 + QUERIES;  // by any query of the tile
            const float* statistics =
                reinterpret_cast<const float*>(shared + kStagesAt + stage * kStageBytes + 2 * kQueryBytes);
            if (seen) key_phase(keys, here, statistics, query0, scale_log2);
            __syncthreads();  // dS of all keys is there
            if constexpr (SPLIT > 1) {
                if (seen) split_products(keys, here);
            }
            query_phase(arguments, keys, query0);
        }
        __syncthreads();  // nobody reads K any more: its tile takes the results
    }

    __device__ __forceinline__ void finish(const Arguments& arguments, T* key_tile, float scale) {
        const Place at;
        const Head<D> head(arguments.heads, arguments.sequence);
        const int first = at.group * MT * 16, rows = arguments.sequence - key0 - first, stride = 3 * head.width;
        T* tile = key_tile + first * kPitch<D> + at.part * kColumns;
        T* to = arguments.dqkv + head.qkv + int64_t(key0 + first) * stride + at.part * kColumns + head.width;
        float factor[MT][2];
#pragma unroll
        for (int m = 0; m < MT; m++) factor[m][0] = factor[m][1] = scale;
        store_rows<T, D, kColumns, MT>(to, stride, rows, tile, dk, factor);
#pragma unroll
        for (int m = 0; m < MT; m++) factor[m][0] = factor[m][1] = 1.0f;
        store_rows<T, D, kColumns, MT>(to + head.width, stride, rows, tile + kKeys * kPitch<D>, dv, factor);
    }

    __device__ __forceinline__ static void run(const Arguments& arguments, float scale) {
        BUBBLEBENCH_DYNAMIC_SHARED(unsigned char, shared);
        AttentionBackward self;
        self.key0 = int(blockIdx.y) * kKeys;
        clear(self.dk);
        clear(self.dv);
        {
            const Head<D> head(arguments.heads, arguments.sequence);
            const int stride = 3 * head.width;
            copy_tiles<T, D, kKeys, kThreads>(
                shared_address(shared), arguments.qkv + head.qkv + int64_t(self.key0) * stride + head.width, stride,
                arguments.sequence - self.key0, head.width, kKeyBytes);
        }
        self.walk(shared, arguments, scale * kLog2e);
        self.finish(arguments, reinterpret_cast<T*>(shared), scale);
    }
};

}  // namespace bubblebench

// Head size, queries, warps, MT, SPLIT, stages, chunk, QMT, keys = warps / SPLIT · MT · 16. The same list stands in
// src/ops/cuda/attention/tiles.rs.
#define ATTENTION_BACKWARD(D, queries, warps, mt, split, stages, chunk, qmt, keys, T, suffix)                       \
    BUBBLEBENCH_KERNEL(warps * 32, attention_backward_d##D##_##queries##x##keys##_##suffix, T* dqkv, float* sums,   \
                       const float* statistics, const T* dout, const T* qkv, int heads, int sequence, float scale) { \
        using Kernel = bubblebench::AttentionBackward<T, D, queries, warps, mt, split, stages, chunk, qmt>;          \
        static_assert(Kernel::kKeys == keys, "the name tells the tile");                                            \
        Kernel::run({dqkv, sums, statistics, dout, qkv, heads, sequence}, scale);                                      \
    }
#define ATTENTION_BACKWARD_ALL(T, suffix)                                                                           \
    ATTENTION_BACKWARD(32, 64, 4, 2, 1, 2, 32, 2, 128, T, suffix)                                                   \
    ATTENTION_BACKWARD(64, 64, 4, 2, 1, 2, 32, 2, 128, T, suffix)                                                   \
    ATTENTION_BACKWARD(64, 32, 4, 2, 1, 2, 32, 2, 128, T, suffix)                                                   \
    ATTENTION_BACKWARD(80, 64, 8, 1, 1, 2, 64, 1, 128, T, suffix)                                                   \
    ATTENTION_BACKWARD(80, 32, 8, 1, 1, 2, 32, 1, 128, T, suffix)                                                   \
    ATTENTION_BACKWARD(96, 64, 8, 1, 1, 2, 64, 1, 128, T, suffix)                                                   \
    ATTENTION_BACKWARD(96, 32, 8, 1, 1, 2, 32, 1, 128, T, suffix)                                                   \
    ATTENTION_BACKWARD(128, 64, 8, 1, 1, 2, 64, 2, 128, T, suffix)                                                  \
    ATTENTION_BACKWARD(128, 32, 4, 1, 1, 2, 32, 2, 64, T, suffix)                                                   \
    ATTENTION_BACKWARD(256, 64, 8, 1, 2, 2, 32, 2, 64, T, suffix)                                                   \
    ATTENTION_BACKWARD(256, 32, 8, 1, 2, 2, 16, 2, 64, T, suffix)                                                   \
    ATTENTION_BACKWARD(256, 32, 4, 1, 2, 1, 16, 2, 32, T, suffix)                                                   \
    BUBBLEBENCH_KERNEL(128, attention_backward_prepare_##suffix, float* statistics, float* sums, const T* dout,     \
                       const T* out, const float* lse, int heads, int sequence, int head_size) {                    \
        bubblebench::attention_backward_prepare(statistics, sums, dout, out, lse, heads, sequence, head_size);      \
    }                                                                                                               \
    BUBBLEBENCH_KERNEL(128, attention_backward_query_##suffix, T* dqkv, const float* sums, int heads, int sequence, \
                       int head_size, float scale) {                                                                \
        bubblebench::attention_backward_query(dqkv, sums, heads, sequence, head_size, scale);                       \
    }

ATTENTION_BACKWARD_ALL(bubblebench::bf16, bf16)
ATTENTION_BACKWARD_ALL(bubblebench::f16, f16)
