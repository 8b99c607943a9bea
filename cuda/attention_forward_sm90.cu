// Causal self-attention, forward, for Hopper (sm_90a): the contract of attention_forward.cu, on wgmma. The order of
// work follows FlashAttention-3 (Shah et al., arXiv 2407.08608, section 3.2): the scores of the next tile of keys and
// P·V of this one are both under way while the softmax of the next is computed.
//
//   out[i] = Σ_{j ≤ i} exp(scale·q_i·k_j − lse[i])·v_j          lse[i] = log Σ_{j ≤ i} exp(scale·q_i·k_j)
//
// qkv, out, lse, types (bf16, f16), alignment and determinism as there; D = 64 or 128; any S ≥ 1.
//
// attention_forward_sm90_d<D>_128x<keys>_<T>: grid (B·A, ⌈S / 128⌉), block 256, dynamic shared memory 1024 +
// 128·(D + 8)·2 + stages·(2·keys·D·2) bytes: 227 KB, all there is, for D = 128 (three stages) and 147 KB for D = 64
// (four). Two warpgroups of 64 rows; each warp holds 16 rows of Q (all of D), the scores, P and the sums in registers,
// laid out as by mma.sync. The ring of stages holds tiles of K and V in swizzled panels of 64 columns, filled by
// cp.async of all threads, not by the tensor memory accelerator, one or two tiles ahead; each thread follows its wait
// with a proxy fence: one barrier a tile. Both warpgroups walk the same tiles, so that no wgmma stands in a branch.
//
// The path is off unless BUBBLEBENCH_WGMMA=1 (src/ops/cuda/attention/mod.rs), until it has matched on a real GPU. Code for
// other architectures traps: a launch there is an error, never a result.
//
// Work for 128 rows × 128 keys at D = 128, in cycles of an SM: products 2048 (4096 FLOP a cycle); softmax 16384 exp2,
// 1024, and about as many again for scale, sum and conversion; K and V once through shared memory for each warpgroup,
// 128 KB, 1024; cp.async 64 KB, 512. Registers (sm_90a): 220 for D = 128, 170 for D = 64; one block an SM. Expected at
// S = 8192: some 450 TFLOP/s. Not measured yet.
#include "attention.cuh"
#include "wgmma.cuh"

#if defined(BUBBLEBENCH_HOST_EMULATION) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
namespace bubblebench {

// Growth of the row maximum, in powers of two, up to which sums are kept as they are: P ≤ 2^8 fits every type.
constexpr float kLazyGrowth = 8.0f;

template <class T, int D, int KEYS, int STAGES> struct AttentionForwardSm90 {
    static constexpr int kRows = 128, kThreads = 2 * kWarpgroup, kStages = STAGES;
    static constexpr int kPanelBytes = KEYS * kPanelRow, kTileBytes = KEYS * D * int(sizeof(T));
    static constexpr int kStageBytes = 2 * kTileBytes;
    static_assert(kStages >= 3 && D % kPanel == 0 && KEYS % 16 == 0, "whole panels and steps of a product");

    float o[D / 8][4], s[KEYS / 8][4];
    uint32_t q[D / 16][4], p[KEYS / 16][4];
    // Of rows g and g+8: the maximum the sums refer to, times scale·log₂e, this lane's share of Σ P, and by what the
    // sums of earlier tiles are still to be multiplied.
    float most[2], sum[2], factor[2];
    int row0;  // the block's first row in the sequence

    // Who this thread is, found anew where it is needed, as Head is.
    struct Place {
        int lane, in_block, warp_row;

        __device__ __forceinline__ explicit Place(int row0) {
            int thread = int(threadIdx.x);
            opaque(thread);
            lane = thread % kWarp;
            in_block = thread / kWarp * 16;
            warp_row = row0 + in_block;
        }
    };

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            most[h] = -infinity();
            sum[h] = 0.0f;
        }
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) o[n][i] = 0.0f;
        }
    }

    // Begins to copy a tile of K, and V behind it, into a stage; keys beyond the sequence become zero. Eight
    // neighbouring threads fill one row of a panel: all banks, whatever the swizzle. A tile beyond the last is an empty
    // group.
    __device__ __forceinline__ static void copy_keys(SharedAddress ring, const T* qkv, int heads, int sequence,
                                                     int tile, int tiles) {
        constexpr int kUnits = D / 8, kStep = kThreads / kUnits;  // rows from one copy of a thread to the next
        static_assert(kStep % 8 == 0 && KEYS % kStep == 0, "the swizzle of a thread is the same in all its rows");
        if (tile < tiles) {
            const Head<D> head(heads, sequence);
            int thread = int(threadIdx.x);
            opaque(thread);
            const int row = thread / kUnits, unit = thread % kUnits, stride = 3 * head.width;
            const int rows = sequence - tile * KEYS;
            const T* from = qkv + head.qkv + int64_t(tile) * KEYS * stride + head.width + unit * 8;
            const T* at = from + int64_t(row) * stride;
            const SharedAddress to =
                ring + tile % kStages * kStageBytes + unit / 8 * kPanelBytes + swizzled(row, unit % 8);
#pragma unroll
            for (int i = 0; i < KEYS / kStep; i++) {
                const bool there = row + i * kStep < rows;
                const T* source = there ? at : from;
                const SharedAddress target = to + i * kStep * kPanelRow;
                copy_async16(target, source, there);
                copy_async16(target + kTileBytes, source + head.width, there);
                at += int64_t(kStep) * stride;
                opaque(at);
            }
        }
        copy_commit();
    }

    // The tile whose group is the last but `YOUNGER` is there for all, and wgmma may read it.
    template <int YOUNGER> __device__ __forceinline__ static void arrive() {
        copy_wait<YOUNGER>();
        fence_async();
        __syncthreads();
    }

    __device__ __forceinline__ void hold_q(SharedAddress q_tile) {
        const Place at(row0);
        const SharedAddress rows = q_tile + (at.in_block * kPitch<D> + by_rows(at.lane, kPitch<D>)) * int(sizeof(T));
#pragma unroll
        for (int k = 0; k < D / 16; k++) ldmatrix_x4(q[k], rows + k * 16 * int(sizeof(T)));
    }

    // Begins s = Q·Kᵀ.
    __device__ __forceinline__ void scores(SharedAddress k_tile) {
#pragma unroll
        for (int k = 0; k < D / 16; k++) {
            const SharedAddress start = k_tile + k / 4 * kPanelBytes + k % 4 * 32;
            wgmma<T, false>(s, q[k], wgmma_descriptor(start, 16), k > 0);
        }
        wgmma_commit();
    }

    // Begins o += P·V.
    __device__ __forceinline__ void values(SharedAddress v_tile) {
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++)
            wgmma<T, true>(o, p[k], wgmma_descriptor(v_tile + k * 16 * kPanelRow, kPanelBytes), true);
        wgmma_commit();
    }

    // Keys after their query are not seen. Keys beyond the sequence are among them.
    __device__ __forceinline__ void mask(int key0) {
        const Place at(row0);
        if (key0 + KEYS - 1 <= at.warp_row) return;  // a whole warp
        const int key = key0 + at.lane % 4 * 2, row = at.warp_row + at.lane / 4;
#pragma unroll
        for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (key + n * 8 + i % 2 > row + i / 2 * 8) s[n][i] = -infinity();
            }
        }
    }

    // s becomes P. The maximum is followed only where it has grown too far, each row deciding for itself; o is still
    // the tensor cores' and follows in `rescale`.
    __device__ __forceinline__ void weigh(float scale_log2) {
#pragma unroll
        for (int h = 0; h < 2; h++) {
            float top = fmaxf(s[0][2 * h], s[0][2 * h + 1]);
#pragma unroll
            for (int n = 1; n < KEYS / 8; n++) top = fmaxf(top, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
            const float now = fmaxf(most[h], quad_max(top) * scale_log2);
            const bool grown = !(now - most[h] <= kLazyGrowth);
            factor[h] = grown ? exp2_fast(most[h] - now) : 1.0f;
            if (grown) most[h] = now;
            sum[h] *= factor[h];
            const float shift = most[h];
#pragma unroll
            for (int n = 0; n < KEYS / 8; n++) {
#pragma unroll
                for (int i = 2 * h; i < 2 * h + 2; i++) {
                    s[n][i] = exp2_fast(fmaf(s[n][i], scale_log2, -shift));
                    sum[h] += s[n][i];
                }
            }
        }
    }

    __device__ __forceinline__ void rescale() {
        if (!__any_sync(kAllLanes, factor[0] != 1.0f || factor[1] != 1.0f)) return;
#pragma unroll
        for (int n = 0; n < D / 8; n++) {
#pragma unroll
            for (int i = 0; i < 4; i++) o[n][i] *= factor[i / 2];
        }
    }

    __device__ __forceinline__ void pack() {
#pragma unroll
        for (int k = 0; k < KEYS / 16; k++) pack_fragment<T>(p[k], s[2 * k], s[2 * k + 1]);
    }

    // The scores and P of the first tile, with nothing else under way.
    __device__ __forceinline__ void first(SharedAddress q_tile, SharedAddress k_tile, float scale_log2) {
        hold_q(q_tile);
        wgmma_fence();
        scores(k_tile);
        wgmma_wait<0>();
        settle(s);
        mask(0);
        weigh(scale_log2);
        pack();
    }

    // P·V of a tile beside scores and softmax of the next.
    __device__ __forceinline__ void step(SharedAddress k_next, SharedAddress v_tile, int key_next, float scale_log2) {
        settle(p);
        settle(o);
        wgmma_fence();
        scores(k_next);
        values(v_tile);
        wgmma_wait<1>();
        settle(s);
        mask(key_next);
        weigh(scale_log2);
        wgmma_wait<0>();
        settle(o);
        settle(p);
        rescale();
        pack();
    }

    __device__ __forceinline__ void last(SharedAddress v_tile) {
        settle(p);
        settle(o);
        wgmma_fence();
        values(v_tile);
        wgmma_wait<0>();
        settle(o);
    }

    // The warp's rows of lse and out.
    __device__ __forceinline__ void finish(T* out, float* lse, T* q_tile, int heads, int sequence) {
        const Place at(row0);
        const Head<D> head(heads, sequence);
        const int rows = sequence - at.warp_row;
        if (rows <= 0) return;  // a whole warp
        lse += head.line * sequence + at.warp_row;
        float shares[1][2];
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const float total = quad_sum(sum[h]);
            const int row = h * 8 + at.lane / 4;
            shares[0][h] = 1.0f / total;
            if (at.lane % 4 == 0 && row < rows) lse[row] = (most[h] + log2f(total)) * kLn2;
        }
        // Nobody else reads the warp's rows of Q, so their place takes the result.
        const float (&sums)[1][D / 8][4] = reinterpret_cast<const float (&)[1][D / 8][4]>(o);
        store_rows<T, D, D, 1>(out + head.out + int64_t(at.warp_row) * head.width, head.width, rows,
                               q_tile + at.in_block * kPitch<D>, sums, shares);
    }

    __device__ __forceinline__ static void run(T* __restrict__ out, float* __restrict__ lse, const T* __restrict__ qkv,
                                               int heads, int sequence, float scale_log2) {
        BUBBLEBENCH_DYNAMIC_SHARED(unsigned char, shared);
        AttentionForwardSm90 self;
        self.row0 = (int(gridDim.y) - 1 - int(blockIdx.y)) * kRows;
        self.clear();
        const int tiles = (min(self.row0 + kRows, sequence) + KEYS - 1) / KEYS;
        // The swizzle is one of addresses: the ring starts where it does.
        unsigned char* const start =
            shared + (kSwizzlePeriod - reinterpret_cast<uintptr_t>(shared) % kSwizzlePeriod) % kSwizzlePeriod;
        T* const q_rows = reinterpret_cast<T*>(start + kStages * kStageBytes);
        const SharedAddress ring = shared_address(start), q_tile = shared_address(q_rows);
        {
            const Head<D> head(heads, sequence);
            copy_tile<T, D, kRows, kThreads>(q_tile, qkv + head.qkv + int64_t(self.row0) * (3 * head.width),
                                             3 * head.width, sequence - self.row0);
        }
        for (int tile = 0; tile < kStages - 1; tile++) copy_keys(ring, qkv, heads, sequence, tile, tiles);
        arrive<kStages - 2>();
        self.first(q_tile, ring, scale_log2);
        for (int tile = 0; tile + 1 < tiles; tile++) {
            arrive<kStages - 3>();  // nor does anybody read the tile before this one any more: its place is free
            copy_keys(ring, qkv, heads, sequence, tile + kStages - 1, tiles);
            self.step(ring + (tile + 1) % kStages * kStageBytes, ring + tile % kStages * kStageBytes + kTileBytes,
                      (tile + 1) * KEYS, scale_log2);
        }
        self.last(ring + (tiles - 1) % kStages * kStageBytes + kTileBytes);
        self.finish(out, lse, q_rows, heads, sequence);
    }
};

}  // namespace bubblebench

#define ATTENTION_FORWARD_SM90_BODY(T, D, keys, stages)                                        \
    bubblebench::AttentionForwardSm90<T, D, keys, stages>::run(out, lse, qkv, heads, sequence, \
                                                               scale* bubblebench::kLog2e)
#else
#define ATTENTION_FORWARD_SM90_BODY(T, D, keys, stages) __trap()
#endif

// Head size, keys and stages. The same list stands in src/ops/cuda/attention/tiles.rs.
#define ATTENTION_FORWARD_SM90(D, keys, stages, T, suffix)                                                         \
    BUBBLEBENCH_KERNEL(256, attention_forward_sm90_d##D##_128x##keys##_##suffix, T* out, float* lse, const T* qkv, \
                       int heads, int sequence, float scale) {                                                     \
        ATTENTION_FORWARD_SM90_BODY(T, D, keys, stages);                                                           \
    }

ATTENTION_FORWARD_SM90(64, 128, 4, bubblebench::bf16, bf16)
ATTENTION_FORWARD_SM90(128, 128, 3, bubblebench::bf16, bf16)
ATTENTION_FORWARD_SM90(64, 128, 4, bubblebench::f16, f16)
ATTENTION_FORWARD_SM90(128, 128, 3, bubblebench::f16, f16)
