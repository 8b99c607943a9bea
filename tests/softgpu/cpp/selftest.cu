// Kernels that test the emulation itself: some right, some wrong on purpose.
#include <softgpu/mma.h>
#include <unistd.h>

#include "../../../cuda/wgmma.cuh"

// out[i] = in[n − 1 − i] through shared memory, as it should be.
BUBBLEBENCH_KERNEL(1024, selftest_reverse, float* out, const float* in) {
    BUBBLEBENCH_DYNAMIC_SHARED(float, row);
    row[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = row[blockDim.x - 1 - threadIdx.x];
}

// The same without the barrier: a read may come before its write.
BUBBLEBENCH_KERNEL(1024, selftest_race_read, float* out, const float* in) {
    BUBBLEBENCH_DYNAMIC_SHARED(float, row);
    row[threadIdx.x] = in[threadIdx.x];
    out[threadIdx.x] = row[blockDim.x - 1 - threadIdx.x];
}

// Two rounds over one buffer without a barrier between them: a write of the second may come before a read of the first.
BUBBLEBENCH_KERNEL(1024, selftest_race_write, float* out, const float* in) {
    BUBBLEBENCH_DYNAMIC_SHARED(float, row);
    row[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    const float first = row[(threadIdx.x + 32) % blockDim.x];
    row[threadIdx.x] = -first;
    __syncthreads();
    out[threadIdx.x] = first + row[threadIdx.x];
    const float again = row[(threadIdx.x + 32) % blockDim.x];
    row[threadIdx.x] = 0.0f;  // the barrier is missing before this
    out[threadIdx.x] += again;
}

// A barrier that half of the block never reaches.
BUBBLEBENCH_KERNEL(1024, selftest_deadlock_branch, float* out) {
    if (threadIdx.x % 2 == 0) __syncthreads();
    __syncwarp();
    out[threadIdx.x] = 1.0f;
}

// Two different barriers: an error in CUDA even where the counts fit.
BUBBLEBENCH_KERNEL(1024, selftest_deadlock_sites, float* out) {
    if (threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    out[threadIdx.x] = 1.0f;
}

BUBBLEBENCH_KERNEL(1024, selftest_warp_sum, float* out, const float* in) {
    out[threadIdx.x] = bubblebench::warp_sum(in[threadIdx.x]);
}

// Sixteen-lane sub-warps, a lane that is not there, and votes.
BUBBLEBENCH_KERNEL(1024, selftest_shuffles, float* out, unsigned* votes, const float* in) {
    const float v = in[threadIdx.x];
    const int i = int(threadIdx.x);
    out[4 * i] = __shfl_down_sync(~0u, v, 3, 16);
    out[4 * i + 1] = __shfl_up_sync(~0u, v, 2, 16);
    out[4 * i + 2] = __shfl_xor_sync(~0u, v, 5);
    out[4 * i + 3] = __shfl_sync(~0u, v, 31);
    votes[i] = __ballot_sync(~0u, v > 0.0f) ^ unsigned(__syncthreads_count(v > 0.0f)) << 24;
}

BUBBLEBENCH_KERNEL(1024, selftest_misaligned, float* out, const float* in) {
    bubblebench::store(out, bubblebench::load(in + 1));
}

BUBBLEBENCH_KERNEL(1024, selftest_out_of_bounds, float* out, int n) {
    if (threadIdx.x == 0) out[n] = 1.0f;
}

// d (16×8, fp32) = a (16×16) · bᵀ (8×16) + d, one warp.
template <class T> void mma_tile(float* d, const T* a, const T* b) {
    const int lane = int(threadIdx.x), g = lane / 4, t = lane % 4;
    auto pair = [](const T* p) {
        uint32_t bits;
        memcpy(&bits, p, 4);
        return bits;
    };
    uint32_t fa[4], fb[2];
    float acc[4];
    for (int i = 0; i < 4; i++) fa[i] = pair(a + (g + i % 2 * 8) * 16 + 2 * t + i / 2 * 8);
    for (int i = 0; i < 2; i++) fb[i] = pair(b + g * 16 + 2 * t + i * 8);
    for (int i = 0; i < 4; i++) acc[i] = d[(g + i / 2 * 8) * 8 + 2 * t + i % 2];
    softgpu::mma_m16n8k16<T>(acc, fa, fb, acc);
    for (int i = 0; i < 4; i++) d[(g + i / 2 * 8) * 8 + 2 * t + i % 2] = acc[i];
}
BUBBLEBENCH_KERNEL(32, selftest_mma_bf16, float* d, const bubblebench::bf16* a, const bubblebench::bf16* b) {
    mma_tile(d, a, b);
}
BUBBLEBENCH_KERNEL(32, selftest_mma_f16, float* d, const bubblebench::f16* a, const bubblebench::f16* b) {
    mma_tile(d, a, b);
}

// Every fp32 value in, its narrow forms' bits out.
BUBBLEBENCH_KERNEL(1024, selftest_round, uint16_t* bf16, uint16_t* f16, const float* in, int n) {
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
    bf16[i] = bubblebench::from_float<bubblebench::bf16>(in[i]).bits;
    f16[i] = bubblebench::from_float<bubblebench::f16>(in[i]).bits;
}

// --- for tests of the software driver: kernels that wait for somebody else ------------------------------------------

// Waits until the host, or another stream, has written the flag.
BUBBLEBENCH_KERNEL(1, selftest_spin, const unsigned* flag) {
    while (__atomic_load_n(flag, __ATOMIC_ACQUIRE) == 0) usleep(20);
}

// Comes to its end only if another kernel runs at the same time.
BUBBLEBENCH_KERNEL(1, selftest_meet, unsigned* mine, const unsigned* other) {
    __atomic_store_n(mine, 1u, __ATOMIC_RELEASE);
    while (__atomic_load_n(other, __ATOMIC_ACQUIRE) == 0) usleep(20);
}

// Every thread adds 1 to the same number, `rounds` times.
BUBBLEBENCH_KERNEL(1024, selftest_count, unsigned* out, int rounds) {
    for (int i = 0; i < rounds; i++) atomicAdd(out, 1u);
}

// out[i] = in[n − 1 − i], four floats a thread, through an asynchronous copy; the wait, the barrier or both may be left
// out, and a second copy may begin too early over what is still to be read.
template <bool kWait, bool kBarrier, bool kEarly> void copy_reversed(float* out, const float* in) {
    using namespace bubblebench;
    BUBBLEBENCH_DYNAMIC_SHARED(float, row);
    const int i = int(threadIdx.x), n = int(blockDim.x);
    copy_async16(shared_address(row + 4 * i), in + 4 * i, true);
    copy_commit();
    if (kWait) copy_wait<0>();
    if (kBarrier) __syncthreads();
    if (kEarly) copy_async16(shared_address(row + 4 * i), in + 4 * i, false);
    for (int c = 0; c < 4; c++) out[4 * i + c] = row[4 * (n - 1 - i) + 3 - c];
}
BUBBLEBENCH_KERNEL(256, selftest_copy, float* out, const float* in) { copy_reversed<true, true, false>(out, in); }
BUBBLEBENCH_KERNEL(256, selftest_copy_no_wait, float* out, const float* in) {
    copy_reversed<false, true, false>(out, in);
}
BUBBLEBENCH_KERNEL(256, selftest_copy_no_barrier, float* out, const float* in) {
    copy_reversed<true, false, false>(out, in);
}
BUBBLEBENCH_KERNEL(256, selftest_copy_too_early, float* out, const float* in) {
    copy_reversed<true, true, true>(out, in);
}

// The younger of two groups is still under way after copy_wait<1>; a copy that is not there is zero.
BUBBLEBENCH_KERNEL(1, selftest_copy_groups, float* out, const float* in) {
    using namespace bubblebench;
    BUBBLEBENCH_DYNAMIC_SHARED(float, row);
    for (int group = 0; group < 3; group++) {
        copy_async16(shared_address(row + 4 * group), in + 4 * group, group != 1);
        copy_commit();
    }
    copy_wait<1>();
    for (int i = 0; i < 12; i++) out[i] = row[i];
}

// Four 8×8 matrices, 64 elements each, one after the other: out[r·64 + lane·2 ..] = the pair of register r.
template <bool kTrans, int N> void matrices(uint16_t* out, const uint16_t* in) {
    using namespace bubblebench;
    BUBBLEBENCH_DYNAMIC_SHARED(uint16_t, tile);
    const int lane = int(threadIdx.x);
    for (int i = lane; i < 256; i += 32) tile[i] = in[i];
    __syncthreads();
    uint32_t r[N];
    const SharedAddress row = shared_address(tile + lane % (8 * N) * 8);
    if constexpr (N == 4) {
        kTrans ? ldmatrix_x4_trans(r, row) : ldmatrix_x4(r, row);
    } else {
        kTrans ? ldmatrix_x2_trans(r, row) : ldmatrix_x2(r, row);
    }
    for (int i = 0; i < N; i++) memcpy(out + 64 * i + 2 * lane, &r[i], 4);
}
BUBBLEBENCH_KERNEL(32, selftest_ldmatrix, uint16_t* out, const uint16_t* in) { matrices<false, 4>(out, in); }
BUBBLEBENCH_KERNEL(32, selftest_ldmatrix_trans, uint16_t* out, const uint16_t* in) { matrices<true, 4>(out, in); }
BUBBLEBENCH_KERNEL(32, selftest_ldmatrix_x2, uint16_t* out, const uint16_t* in) { matrices<false, 2>(out, in); }
BUBBLEBENCH_KERNEL(32, selftest_ldmatrix_x2_trans, uint16_t* out, const uint16_t* in) { matrices<true, 2>(out, in); }

// --- warpgroup products: right, and wrong in one way each -----------------------------------------------------------

enum class Fault { None, Swizzle, Leading, Stride, Transposed, Fence, ProxyFence, Wait, Early, Disagree };

// out (64×N, fp32) = a (64×64) · B, B from b[N][64] (by k) or b[64][N] (by n, N = 128: two panels).
template <class T, bool kByN, Fault kFault> void warpgroup_product(float* out, const T* a, const T* b) {
    using namespace bubblebench;
    constexpr int kColumns = kByN ? 128 : 64, kRows = 64, kPanels = kColumns / 64;
    BUBBLEBENCH_DYNAMIC_SHARED(unsigned char, shared);
    unsigned char* panels = shared + (1024 - reinterpret_cast<uintptr_t>(shared) % 1024) % 1024;
    const int thread = int(threadIdx.x), g = thread / 32 * 16 + thread % 32 / 4, t = thread % 4;
    for (int i = thread; i < kRows * kColumns / 8; i += 128) {
        const int row = i / (kColumns / 8), unit = i % (kColumns / 8);
        const int at = kFault == Fault::Swizzle ? row * 128 + unit % 8 * 16 : swizzled(row, unit % 8);
        copy_async16(panels + unit / 8 * kRows * 128 + at, b + i * 8, true);
    }
    copy_commit();
    copy_wait<0>();
    if (kFault != Fault::ProxyFence) fence_async();
    __syncthreads();
    uint32_t left[4][4];
    for (int k = 0; k < 4; k++) {
        for (int i = 0; i < 4; i++) memcpy(&left[k][i], a + (g + i % 2 * 8) * 64 + k * 16 + t * 2 + i / 2 * 8, 4);
    }
    float d[kColumns / 8][4];
    if (kFault != Fault::Fence) wgmma_fence();
    for (int k = 0; k < 4; k++) {
        const int step = kFault == Fault::Disagree && thread >= 96 ? 0 : k;
        const uint32_t leading = kPanels == 1 || kFault == Fault::Leading ? 16 : kRows * 128;
        uint64_t descriptor = wgmma_descriptor(panels + step * (kByN ? 2048 : 32), leading);
        if (kFault == Fault::Stride) descriptor += uint64_t(16) << 32;
        wgmma<T, kByN != (kFault == Fault::Transposed)>(d, left[k], descriptor, k > 0);
    }
    wgmma_commit();
    if (kFault == Fault::Early) copy_async16(panels + thread * 16, b, false);
    if (kFault != Fault::Wait) wgmma_wait<0>();
    for (int n = 0; n < kColumns / 8; n++) {
        for (int i = 0; i < 4; i++) out[(g + i / 2 * 8) * kColumns + n * 8 + t * 2 + i % 2] = d[n][i];
    }
}
#define SELFTEST_WGMMA(name, T, by_n, fault)                                                                       \
    BUBBLEBENCH_KERNEL(128, selftest_wgmma_##name, float* out, const bubblebench::T* a, const bubblebench::T* b) { \
        warpgroup_product<bubblebench::T, by_n, Fault::fault>(out, a, b);                                          \
    }
SELFTEST_WGMMA(by_k, bf16, false, None)
SELFTEST_WGMMA(by_n, bf16, true, None)
SELFTEST_WGMMA(swizzle, bf16, false, Swizzle)
SELFTEST_WGMMA(leading, bf16, true, Leading)
SELFTEST_WGMMA(stride, bf16, false, Stride)
SELFTEST_WGMMA(transposed, bf16, true, Transposed)
SELFTEST_WGMMA(no_fence, bf16, false, Fence)
SELFTEST_WGMMA(no_proxy_fence, bf16, true, ProxyFence)
SELFTEST_WGMMA(no_wait, bf16, false, Wait)
SELFTEST_WGMMA(early, bf16, true, Early)
SELFTEST_WGMMA(disagree, bf16, false, Disagree)
