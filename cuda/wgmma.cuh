// Warpgroup products of Hopper (sm_90a): wgmma with the left operand in registers and the right one in shared memory
// under the 128-byte swizzle. Called by attention_forward_sm90.cu.
//
// On a GPU each function is one instruction. In the emulation (softgpu/wgmma.h) it does what the PTX manual says of it,
// checks included: results are poisoned and operands unread until the wait.
//
// One product is D (64×N, fp32) += A (64×16) · B (16×N), T = bf16 or f16, for the 128 threads of a warpgroup (four
// warps, the first a multiple of four). Warp w of it holds rows 16w..16w+15 of A and D exactly as mma.sync does
// (mma.cuh), D as N / 8 tiles of four (PTX ISA, "Register Fragments" of wgmma.mma_async.m64nNk16). Rules, all of that
// section:
//   fence   before the first product, and before one whose registers (A or D) were touched since;
//   commit  closes a group, wait<n> returns when at most the n youngest groups are under way; before that neither the
//           registers nor the shared memory of a product may be touched;
//   fence_async  in each thread that wrote shared memory by other means (cp.async too) between its write and the
//   barrier
//           behind which wgmma reads it.
//
// A swizzled panel is 64 elements (128 bytes) wide: row r at r·128, and the 16-byte unit u of a row at (u ^ r % 8)·16.
// The swizzle is one of address bits (bits 4–6 ^= bits 7–9), so a panel starts at a multiple of 1024 bytes, its base
// offset is 0, and a step of 16 along a row is 32 bytes onto the start. Eight rows are 1024 bytes: the stride offset
// ("Strides", "Matrix-descriptor" of the same section):
//   by_k  B from memory [n][k], a row is one n: stride 1024, the leading offset is not used;
//   by_n  B from memory [k][n], a row is one k: stride 1024, the leading offset leads to the next 64 columns.
#pragma once
#include "mma.cuh"

#ifdef BUBBLEBENCH_HOST_EMULATION
#include <softgpu/wgmma.h>
#endif

namespace bubblebench {

constexpr int kWarpgroup = 128;
constexpr int kPanel = 64;            // elements of a panel's row
constexpr int kPanelRow = 128;        // bytes of it
constexpr int kSwizzlePeriod = 1024;  // bytes: eight rows

// Bytes from a panel's start to a 16-byte unit of a row.
__device__ __forceinline__ int swizzled(int row, int unit) { return row * kPanelRow + ((unit ^ row % 8) << 4); }

// Bytes of `a` in the descriptor's units, 14 bits of them.
__device__ __forceinline__ uint64_t descriptor_field(uint32_t bytes) { return (bytes & 0x3ffff) >> 4; }

// Start in bits 0–13, leading offset in 16–29, stride offset in 32–45, swizzle of 128 bytes (1) in 62–63.
__device__ __forceinline__ uint64_t wgmma_descriptor(SharedAddress start, uint32_t leading) {
#ifdef BUBBLEBENCH_HOST_EMULATION
    const uint32_t at = softgpu::shared_window_address(start);
#else
    const uint32_t at = start;
#endif
    return descriptor_field(at) | descriptor_field(leading) << 16 | descriptor_field(kSwizzlePeriod) << 32 |
           uint64_t(1) << 62;
}

#ifdef BUBBLEBENCH_HOST_EMULATION

inline void wgmma_fence() { softgpu::wgmma_fence(); }
inline void wgmma_commit() { softgpu::wgmma_commit(); }
template <int N> void wgmma_wait(SOFTGPU_HERE) { softgpu::wgmma_wait(N, SOFTGPU_SITE); }
inline void fence_async() { softgpu::fence_async(); }
template <class V, int N> void settle(V (&)[N][4]) {}
template <class T, bool kByN, int TILES>
void wgmma(float (&d)[TILES][4], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
    softgpu::wgmma<T, kByN, TILES>(d, a, b, accumulate);
}

#elif defined(__CUDA_ARCH_FEAT_SM90_ALL)

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int N> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(N) : "memory");
}
__device__ __forceinline__ void fence_async() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// The compiler does not know that a wait is what the registers of a product wait for: it may not carry their use, or
// what is written to them, across this.
template <int N> __device__ __forceinline__ void settle(float (&d)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) asm volatile("" : "+f"(d[n][i])::"memory");
    }
}
template <int N> __device__ __forceinline__ void settle(uint32_t (&a)[N][4]) {
#pragma unroll
    for (int n = 0; n < N; n++) {
#pragma unroll
        for (int i = 0; i < 4; i++) asm volatile("" : "+r"(a[n][i])::"memory");
    }
}

#define BUBBLEBENCH_F4(n) "+f"(d[n][0]), "+f"(d[n][1]), "+f"(d[n][2]), "+f"(d[n][3])
#define BUBBLEBENCH_F32(n)                                                                                         \
    BUBBLEBENCH_F4(n), BUBBLEBENCH_F4(n + 1), BUBBLEBENCH_F4(n + 2), BUBBLEBENCH_F4(n + 3), BUBBLEBENCH_F4(n + 4), \
        BUBBLEBENCH_F4(n + 5), BUBBLEBENCH_F4(n + 6), BUBBLEBENCH_F4(n + 7)
#define BUBBLEBENCH_WGMMA_64(type)                                                                         \
    asm volatile(                                                                                          \
        "{.reg .pred p; setp.ne.b32 p, %37, 0;\n"                                                          \
        "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type                                        \
        " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25," \
        "%26,%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, p, 1, 1, %38;}"                                 \
        : BUBBLEBENCH_F32(0)                                                                               \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)), "n"(int(kByN))         \
        : "memory")
#define BUBBLEBENCH_WGMMA_128(type)                                                                        \
    asm volatile(                                                                                          \
        "{.reg .pred p; setp.ne.b32 p, %69, 0;\n"                                                          \
        "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type                                       \
        " {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25," \
        "%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49," \
        "%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63}, {%64,%65,%66,%67}, %68, p, 1, 1, %70;}" \
        : BUBBLEBENCH_F32(0), BUBBLEBENCH_F32(8)                                                           \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(int(accumulate)), "n"(int(kByN))         \
        : "memory")

// d += a·b, or d = a·b, for the warpgroup: TILES·8 columns.
template <class T, bool kByN, int TILES>
__device__ __forceinline__ void wgmma(float (&d)[TILES][4], const uint32_t (&a)[4], uint64_t b, bool accumulate) {
    static_assert(TILES == 8 || TILES == 16, "64 or 128 columns");
    constexpr bool kHalf = sizeof(T) == 2 && !__is_same(T, bf16);
    if constexpr (TILES == 8 && kHalf) BUBBLEBENCH_WGMMA_64("f16");
    if constexpr (TILES == 8 && !kHalf) BUBBLEBENCH_WGMMA_64("bf16");
    if constexpr (TILES == 16 && kHalf) BUBBLEBENCH_WGMMA_128("f16");
    if constexpr (TILES == 16 && !kHalf) BUBBLEBENCH_WGMMA_128("bf16");
}

#undef BUBBLEBENCH_F4
#undef BUBBLEBENCH_F32
#undef BUBBLEBENCH_WGMMA_64
#undef BUBBLEBENCH_WGMMA_128
#endif

}  // namespace bubblebench
