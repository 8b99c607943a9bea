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
// memory (rows + 4·keys)·(D + 8)·2 bytes; src/ops/cuda/attention/tiles.rs chooses. A warp owns MT·16 rows of
// Q: MT = 2, so that every fragment of K and V that is read from shared memory feeds two products, except for D = 256,
// where the sums alone take 128 registers. Tiles of keys are walked from 0 up to the diagonal; K and V of the next one
// arrive (cp.async) while this one is multiplied: one barrier a tile. Only tiles that touch the diagonal are masked;
// a warp skips those wholly above it. Blocks with the most keys start first (blockIdx.y counts from the end).
// The row maximum is only followed when it has grown by more than 2^8, so that the sums are hardly ever rescaled.
//
// Work: 2·S·(S+1)·D FLOP a head; bytes: qkv and out once from DRAM, K and V again from L2 for each block of rows
// (4·keys·D bytes for 4·rows·keys·D FLOP: 128 FLOP a byte at 128 rows). A block of 128 rows at D = 128 spends on 64 keys,
// in cycles of an SM: 1024 mma, 1650 (at 0.62 of wgmma's rate, what mma.sync reaches on Hopper); 160 KB through ldmatrix
// without bank conflicts, 1280; 8192 exp2, 512. Two such blocks an SM overlap these.
// Expected on an H200 at D = 128, S = 8192: about FlashAttention-2's 333 TFLOP/s, on the same instructions and tiles;
// mma.sync alone would give some 600. Not measured yet.
//
// Registers (sm_80, sm_90a) and shared memory: d32 149 156, 30 KB; d64 219 220, 54 KB; d80 227 234, 66 KB; d96 240 242,
// 78 KB; d128 255 255, 102 KB (128x64) and 232 234, 68 KB (128x32); d256 230 to 235, 198, 132 and 99 KB.
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
    // Of rows g and g+8: the maximum the sums refer to, times scale·log₂e, and this lane's share of Σ P.
    float most[MT][2], sum[MT][2];
    uint32_t q[kHeldDepth][MT][4];
    int row0;  // the block's first row in the sequence

    // Who this thread is, found anew for each tile, as Head is: the warp's first row in the block and in the sequence.
    struct Place {
        int lane, in_block, warp_row;

        __device__ __forceinline__ explicit Place(int row0) {
            int thread = int(threadIdx.x);
            opaque(thread);
            lane = thread % kWarp;
            in_block = thread / kWarp * MT * 16;
            warp_row = row0 + in_block;
        }
    };

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
    __device__ __forceinline__ static void mask(float (&s)[MT][KEYS / 8][4], int key0, const Place& at) {
        const int key = key0 + at.lane % 4 * 2, row = at.warp_row + at.lane / 4;
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
                now[m][h] = fmaxf(most[m][h], quad_max(top) * scale_log2);
                grown |= !(now[m][h] - most[m][h] <= kLazyGrowth);
            }
        }
        if (__any_sync(kAllLanes, grown)) rescale(now);
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float shift = most[m][h];
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

    // Each row decides for itself: what later rows of the warp see must not change an earlier one's last bit.
    __device__ __forceinline__ void rescale(const float (&now)[MT][2]) {
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const bool grown = !(now[m][h] - most[m][h] <= kLazyGrowth);
                const float factor = grown ? exp2_fast(most[m][h] - now[m][h]) : 1.0f;
                if (grown) most[m][h] = now[m][h];
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

    __device__ __forceinline__ void tile(SharedAddress q_tile, SharedAddress k_tile, int key0, int sequence,
                                         float scale_log2) {
        const Place at(row0);
        const SharedAddress q_rows = q_tile + (at.in_block * kPitch<D> + by_rows(at.lane, kPitch<D>)) * int(sizeof(T));
        if (key0 == 0) hold_q(q_rows);
        if (at.warp_row >= sequence || key0 >= at.warp_row + MT * 16) return;  // a whole warp
        float s[MT][KEYS / 8][4];
        scores(s, q_rows, k_tile + by_columns(at.lane, kPitch<D>) * int(sizeof(T)));
        if (key0 + KEYS - 1 > at.warp_row) mask(s, key0, at);
        softmax(s, scale_log2);
        values(s, k_tile + kTileBytes + by_rows(at.lane, kPitch<D>) * int(sizeof(T)));
    }

    // The warp's rows of lse and out.
    __device__ __forceinline__ void finish(T* out, float* lse, T* q_tile, int heads, int sequence) {
        const Place at(row0);
        const Head<D> head(heads, sequence);
        const int rows = sequence - at.warp_row;
        if (rows <= 0) return;  // a whole warp
        lse += head.line * sequence + at.warp_row;
        float factor[MT][2];
#pragma unroll
        for (int m = 0; m < MT; m++) {
#pragma unroll
            for (int h = 0; h < 2; h++) {
                const float total = quad_sum(sum[m][h]);
                const int row = m * 16 + h * 8 + at.lane / 4;
                factor[m][h] = 1.0f / total;
                if (at.lane % 4 == 0 && row < rows) lse[row] = (most[m][h] + log2f(total)) * kLn2;
            }
        }
        // Nobody else reads the warp's rows of Q, so their place takes the result.
        store_rows<T, D, D, MT>(out + head.out + int64_t(at.warp_row) * head.width, head.width, rows,
                                q_tile + at.in_block * kPitch<D>, o, factor);
    }

    // Begins to copy a tile of K, and V behind it.
    __device__ __forceinline__ static void copy_keys(SharedAddress to, const T* qkv, int heads, int sequence, int key0) {
        const Head<D> head(heads, sequence);
        const int stride = 3 * head.width;
        copy_tiles<T, D, KEYS, kThreads>(to, qkv + head.qkv + int64_t(key0) * stride + head.width, stride,
                                         sequence - key0, head.width, kTileBytes);
        copy_commit();
    }

    __device__ __forceinline__ static void run(T* __restrict__ out, float* __restrict__ lse, const T* __restrict__ qkv,
                                               int heads, int sequence, float scale_log2) {
        BUBBLEBENCH_DYNAMIC_SHARED(T, shared);
        AttentionForward self;
        self.row0 = (int(gridDim.y) - 1 - int(blockIdx.y)) * kRows;
        self.clear();
        const int last = min(self.row0 + kRows, sequence);
        const SharedAddress q_tile = shared_address(shared), kv = q_tile + kRows * kPitch<D> * int(sizeof(T));
        {
            const Head<D> head(heads, sequence);
            copy_tile<T, D, kRows, kThreads>(q_tile, qkv + head.qkv + int64_t(self.row0) * (3 * head.width),
                                             3 * head.width, sequence - self.row0);
        }
        copy_keys(kv, qkv, heads, sequence, 0);
        int stage = 0;
        for (int key0 = 0; key0 < last; key0 += KEYS, stage ^= 1) {
            copy_wait<0>();
            __syncthreads();  // this tile is there for all, and nobody reads the one before any more
            if (key0 + KEYS < last) copy_keys(kv + (stage ^ 1) * 2 * kTileBytes, qkv, heads, sequence, key0 + KEYS);
            self.tile(q_tile, kv + stage * 2 * kTileBytes, key0, sequence, scale_log2);
        }
        self.finish(out, lse, shared, heads, sequence);
    }
};

}  // namespace bubblebench

// Head size, warps, MT, rows = warps·MT·16, keys. The same list stands in src/ops/cuda/attention/tiles.rs.
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
