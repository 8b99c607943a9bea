// Causal self-attention, forward (Dao, arXiv 2307.08691): softmax(scale·Q·Kᵀ)·V a tile of keys at a time, the scores
// never leaving the registers.
//
//   out[i] = Σ_{j ≤ i} exp(scale·q_i·k_j − lse[i])·v_j          lse[i] = log Σ_{j ≤ i} exp(scale·q_i·k_j)
//
// qkv: rows of [q(A·D) | k(A·D) | v(A·D)], row = b·S + s, type T = bf16 or f16 (f32: attention_plain.cu);
// out: B·S rows of A·D, type T; lse: fp32, natural logarithm, index (b·A + a)·S + s. Any S ≥ 1. qkv and out start at
// 16-byte boundaries, and so do all their rows because D % 8 = 0. Scores, softmax and sums in fp32; P is rounded to T
// for its product. Deterministic: the same inputs give the same bits.
//
// attention_forward_d<D>_<rows>x<keys>_<T>: grid (B·A, ⌈S / rows⌉), block rows / MT / 16 · 32 threads, dynamic shared
// memory (rows + 4·keys)·(D + 8)·2 bytes; src/ops/cuda/attention.rs chooses among the tiles. A warp owns MT·16 rows of
// Q: MT = 2, so that every fragment of K and V that is read from shared memory feeds two products, except for D = 256,
// where the sums alone take 128 registers. Tiles of keys are walked from 0 up to the diagonal; K and V of the next one
// arrive (cp.async) while this one is multiplied: one barrier a tile. Only tiles that touch the diagonal are masked;
// a warp skips those wholly above it. Blocks with the most keys start first (blockIdx.y counts from the end).
// The row maximum is only followed when it has grown by more than 2^8, so that the sums are hardly ever rescaled.
//
// Work: 2·S·(S+1)·D FLOP a head; bytes: qkv and out once from DRAM, K and V again from L2 for each block of rows
// (4·keys·D bytes for 4·rows·keys·D FLOP: 128 FLOP a byte at 128 rows). Per 64 keys and SM at D = 128, two blocks of
// four warps: 2048 mma (16,384 issue slots × pipes of 4), 1.3 MB through ldmatrix without bank conflicts.
// Expected on an H200 at D = 128, S = 8192: at or above FlashAttention-2's 333 TFLOP/s on the same instructions, bounded
// by mma.sync (about 0.62 of wgmma's rate) and exp2 (64 a thread and tile, 512 cycles beside 1640 of products); not
// measured yet.
//
// No kernel spills or keeps anything in local memory.
#include "attention.cuh"

namespace bubblebench {

// Growth of the row maximum, in powers of two, up to which sums are kept as they are: P ≤ 2^8 fits every type.
constexpr float kLazyGrowth = 8.0f;

template <class T, int D, int WARPS, int MT, int KEYS> struct AttentionForward {
    static constexpr int kRows = WARPS * MT * 16, kThreads = WARPS * kWarp, kDepth = D / 16, kColumns = D / 8;
    static constexpr int kTileBytes = KEYS * kPitch<D> * int(sizeof(T));
    // Where registers are left the rows of Q stay in them; otherwise they are read again for each tile.
    static constexpr bool kHoldQ = D == 64;
    static constexpr int kHeldDepth = kHoldQ ? kDepth : 1;

    float o[MT][kColumns][4];
    float most[MT][2], sum[MT][2];  // of rows g and g+8: the maximum the sums refer to, and this lane's share of Σ P
    uint32_t q[kHeldDepth][MT][4];
    int lane, warp_row;  // the warp's first row in the sequence

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                most[m][h] = -infinity();
                sum[m][h] = 0.0f;
            }
#pragma unroll
            for (int n = 0; n < kColumns; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) o[m][n][i] = 0.0f;
            }
        }
    }

    __device__ __forceinline__ void load_q(uint32_t (&fragment)[MT][4], SharedAddress rows, int k) {
#pragma unroll
        for (int m = 0; m < MT; m++)
            ldmatrix_x4(fragment[m], rows + (m * 16 * kPitch<D> + k * 16) * int(sizeof(T)));
    }

    __device__ __forceinline__ void hold_q(SharedAddress rows) {
        if constexpr (kHoldQ) {
#pragma unroll
            for (int k = 0; k < kDepth; k++) load_q(q[k], rows, k);
        }
    }

    // s = Q·Kᵀ
    __device__ __forceinline__ void scores(float (&s)[MT][KEYS / 8][4], SharedAddress q_rows, SharedAddress k_rows) {
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) s[m][n][i] = 0.0f;
            }
        }
#pragma unroll
        for (int k = 0; k < kDepth; k++) {
            if constexpr (!kHoldQ) load_q(q[0], q_rows, k);
#pragma unroll
            for (int n = 0; n < KEYS / 16; n++) {
                uint32_t b[4];
                ldmatrix_x4(b, k_rows + (n * 16 * kPitch<D> + k * 16) * int(sizeof(T)));
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    mma_16816<T>(s[m][2 * n], q[kHoldQ ? k : 0][m], b[0], b[1]);
                    mma_16816<T>(s[m][2 * n + 1], q[kHoldQ ? k : 0][m], b[2], b[3]);
                }
            }
        }
    }

    // Keys after their query are not seen. Keys beyond the sequence are among them.
    __device__ __forceinline__ void mask(float (&s)[MT][KEYS / 8][4], int key0) {
        const int key = key0 + lane % 4 * 2, row = warp_row + lane / 4;
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    if (key + n * 8 + i % 2 > row + m * 16 + i / 2 * 8) s[m][n][i] = -infinity();
                }
            }
        }
    }

    // s becomes P; the sums follow the maximum where it has grown too far.
    __device__ __forceinline__ void softmax(float (&s)[MT][KEYS / 8][4], float scale_log2) {
        float now[MT][2];
        bool grown = false;
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float top = fmaxf(s[m][0][2 * h], s[m][0][2 * h + 1]);
#pragma unroll
                for (int n = 1; n < KEYS / 8; n++) top = fmaxf(top, fmaxf(s[m][n][2 * h], s[m][n][2 * h + 1]));
                now[m][h] = fmaxf(most[m][h], quad_max(top));
                grown |= !((now[m][h] - most[m][h]) * scale_log2 <= kLazyGrowth);
            }
        }
        if (__any_sync(kAllLanes, grown)) rescale(now, scale_log2);
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float shift = most[m][h] * scale_log2;
#pragma unroll
                for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                    for (int i = 2 * h; i < 2 * h + 2; i++) {
                        s[m][n][i] = exp2_fast(fmaf(s[m][n][i], scale_log2, -shift));
                        sum[m][h] += s[m][n][i];
                    }
                }
            }
        }
    }

    __device__ __forceinline__ void rescale(const float (&now)[MT][2], float scale_log2) {
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float factor = exp2_fast((most[m][h] - now[m][h]) * scale_log2);
                most[m][h] = now[m][h];
                sum[m][h] *= factor;
#pragma unroll
                for (int n = 0; n < kColumns; n++) {
                    o[m][n][2 * h] *= factor;
                    o[m][n][2 * h + 1] *= factor;
                }
            }
        }
    }

    // o += P·V
    __device__ __forceinline__ void values(const float (&s)[MT][KEYS / 8][4], SharedAddress v_rows) {
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) {
            uint32_t p[MT][4];
#pragma unroll
            for (int m = 0; m < MT; m++) pack_fragment<T>(p[m], s[m][2 * k], s[m][2 * k + 1]);
#pragma unroll
            for (int n = 0; n < kDepth; n++) {
                uint32_t b[4];
                ldmatrix_x4_trans(b, v_rows + (k * 16 * kPitch<D> + n * 16) * int(sizeof(T)));
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    mma_16816<T>(o[m][2 * n], p[m], b[0], b[1]);
                    mma_16816<T>(o[m][2 * n + 1], p[m], b[2], b[3]);
                }
            }
        }
    }

    __device__ __forceinline__ void tile(SharedAddress q_rows, SharedAddress k_rows, SharedAddress v_rows, int key0,
                                         float scale_log2) {
        float s[MT][KEYS / 8][4];
        scores(s, q_rows, k_rows);
        if (key0 + KEYS - 1 > warp_row) mask(s, key0);
        softmax(s, scale_log2);
        values(s, v_rows);
    }

    // lse of the warp's rows, and what their sums are to be divided by.
    __device__ __forceinline__ void finish(float (&factor)[MT][2], float* lse, int rows, float scale_log2) {
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float total = quad_sum(sum[m][h]);
                const int row = m * 16 + h * 8 + lane / 4;
                factor[m][h] = 1.0f / total;
                if (lane % 4 == 0 && row < rows) lse[row] = (most[m][h] * scale_log2 + log2f(total)) * kLn2;
            }
        }
    }

    __device__ __forceinline__ static void run(T* __restrict__ out, float* __restrict__ lse, const T* __restrict__ qkv,
                                               int heads, int sequence, float scale_log2) {
        BUBBLEBENCH_DYNAMIC_SHARED(T, shared);
        const int warp = int(threadIdx.x) / kWarp, lane = int(threadIdx.x) % kWarp;
        const int head = int(blockIdx.x) % heads, batch = int(blockIdx.x) / heads;
        const int row0 = (int(gridDim.y) - 1 - int(blockIdx.y)) * kRows, last = min(row0 + kRows, sequence);
        const int tiles = (last + KEYS - 1) / KEYS, width = heads * D;
        const size_t stride = size_t(3) * width;
        const T* q = qkv + size_t(batch) * sequence * stride + size_t(head) * D;
        const T* k = q + width;

        T* q_rows = shared + warp * MT * 16 * kPitch<D>;
        const SharedAddress q_tile = shared_address(shared), kv = q_tile + kRows * kPitch<D> * int(sizeof(T));
        const SharedAddress q_lane = shared_address(q_rows) + by_rows(lane, kPitch<D>) * int(sizeof(T));
        const int k_lane = by_columns(lane, kPitch<D>) * int(sizeof(T));
        const int v_lane = by_rows(lane, kPitch<D>) * int(sizeof(T)) + kTileBytes;

        copy_tile<T, D, kRows, kThreads>(q_tile, q + row0 * stride, stride, sequence - row0);
        copy_tiles<T, D, KEYS, kThreads>(kv, k, stride, sequence, width, kTileBytes);
        copy_commit();
        AttentionForward self;
        self.lane = lane;
        self.warp_row = row0 + warp * MT * 16;
        self.clear();
        for (int tile = 0; tile < tiles; tile++) {
            copy_wait<0>();
            __syncthreads();  // this tile is there for all, and nobody reads the one before any more
            const int key0 = tile * KEYS;
            if (tile + 1 < tiles) {
                const SharedAddress next = kv + (tile + 1) % 2 * 2 * kTileBytes;
                copy_tiles<T, D, KEYS, kThreads>(next, k + size_t(key0 + KEYS) * stride, stride,
                                                 sequence - key0 - KEYS, width, kTileBytes);
                copy_commit();
            }
            if (tile == 0) self.hold_q(q_lane);
            if (self.warp_row < sequence && key0 < self.warp_row + MT * 16) {
                const SharedAddress here = kv + tile % 2 * 2 * kTileBytes;
                self.tile(q_lane, here + k_lane, here + v_lane, key0, scale_log2);
            }
        }
        const int rows = sequence - self.warp_row;
        if (rows <= 0) return;
        float factor[MT][2];
        self.finish(factor, lse + size_t(blockIdx.x) * sequence + self.warp_row, rows, scale_log2);
        const size_t at = (size_t(batch) * sequence + self.warp_row) * width + size_t(head) * D;
        store_rows<T, D, D, MT>(out + at, width, rows, q_rows, self.o, factor);
    }
};

}  // namespace bubblebench

// Head size, warps, MT, rows = warps·MT·16, keys. The same list stands in src/ops/cuda/attention.rs.
#define ATTENTION_FORWARD(D, warps, mt, rows, keys, T, suffix)                                                     \
    BUBBLEBENCH_KERNEL(warps * 32, attention_forward_d##D##_##rows##x##keys##_##suffix, T* out, float* lse,        \
                       const T* qkv, int heads, int sequence, float scale) {                                       \
        static_assert(rows == warps * mt * 16, "the name tells the tile");                                         \
        bubblebench::AttentionForward<T, D, warps, mt, keys>::run(out, lse, qkv, heads, sequence,                  \
                                                                  scale* bubblebench::kLog2e);                     \
    }
#define ATTENTION_FORWARD_ALL(T, suffix)                 \
    ATTENTION_FORWARD(32, 4, 2, 128, 64, T, suffix)      \
    ATTENTION_FORWARD(64, 4, 2, 128, 64, T, suffix)      \
    ATTENTION_FORWARD(80, 4, 2, 128, 64, T, suffix)      \
    ATTENTION_FORWARD(96, 4, 2, 128, 64, T, suffix)      \
    ATTENTION_FORWARD(128, 4, 2, 128, 64, T, suffix)     \
    ATTENTION_FORWARD(128, 4, 2, 128, 32, T, suffix)     \
    ATTENTION_FORWARD(256, 8, 1, 128, 64, T, suffix)     \
    ATTENTION_FORWARD(256, 8, 1, 128, 32, T, suffix)     \
    ATTENTION_FORWARD(256, 4, 1, 64, 32, T, suffix)

ATTENTION_FORWARD_ALL(bubblebench::bf16, bf16)
ATTENTION_FORWARD_ALL(bubblebench::f16, f16)
