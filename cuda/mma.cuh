// Tensor-core building blocks: fragments of mma.sync.m16n8k16, ldmatrix from shared memory, cp.async into it.
//
// Called by the attention kernels and by any other that multiplies tiles (a convolution as an implicit product, say).
// On a GPU each function is one instruction (sm_80 and later); in the emulation it does what the PTX manual says, checks
// included: an asynchronous copy arrives at the wait, not before, and its destination is poisoned until then.
//
// One product is D (16×8, fp32) += A (16×16) · B (16×8), T = bf16 or f16; with g = lane / 4 and t = lane % 4 a lane holds
//   A: {rows g, g+8} × {columns 2t, 2t+1} and the same 8 columns on, packed in pairs: a[0] row g, a[1] row g+8, a[2] a[3]
//   B: rows 2t, 2t+1 of column g in b0, rows 2t+8, 2t+9 in b1
//   D: row g columns 2t, 2t+1, then row g+8: so two neighbouring D tiles, packed, are one A tile (pack_fragment).
//
// Shared tiles are row-major with kTilePad elements of padding, so that the eight 16-byte rows of an 8×8 matrix start in
// eight different quarters of the banks whatever the width (an odd number of 16-byte units): ldmatrix never conflicts,
// and addresses are a base plus constants, which a swizzle's are not. The two ways a lane addresses its row for
// ldmatrix_x4, as an offset in elements from the tile's corner (row·pitch + column):
//   by_rows    A from memory [row][k];  two B tiles with .trans from memory [k][n];
//   by_columns two B tiles from memory [n][k];  A with .trans from memory [k][row].
#pragma once
#include "common.cuh"

#ifdef BUBBLEBENCH_HOST_EMULATION
#include <softgpu/copy_async.h>
#include <softgpu/ldmatrix.h>
#include <softgpu/mma.h>
#endif

namespace bubblebench {

constexpr int kTilePad = 8;

__device__ __forceinline__ int by_rows(int lane, int pitch) { return lane % 16 * pitch + lane / 16 * 8; }
__device__ __forceinline__ int by_columns(int lane, int pitch) {
    return (lane % 8 + lane / 16 * 8) * pitch + lane / 8 % 2 * 8;
}

// An address in shared memory, in bytes: 32 bits on a GPU.
#ifdef BUBBLEBENCH_HOST_EMULATION
using SharedAddress = unsigned char*;
inline SharedAddress shared_address(void* pointer) { return static_cast<unsigned char*>(pointer); }
#else
using SharedAddress = uint32_t;
__device__ __forceinline__ SharedAddress shared_address(const void* pointer) {
    return uint32_t(__cvta_generic_to_shared(pointer));
}
#endif

// --- pairs ---------------------------------------------------------------------------------------------------------

// Two neighbouring elements in one register, the first in the low half.
template <class T> __device__ __forceinline__ uint32_t pack_pair(float first, float second);
#ifdef BUBBLEBENCH_HOST_EMULATION
template <> inline uint32_t pack_pair<bf16>(float first, float second) {
    return from_float<bf16>(first).bits | uint32_t(from_float<bf16>(second).bits) << 16;
}
template <> inline uint32_t pack_pair<f16>(float first, float second) {
    return from_float<f16>(first).bits | uint32_t(from_float<f16>(second).bits) << 16;
}
#else
template <> __device__ __forceinline__ uint32_t pack_pair<bf16>(float first, float second) {
    uint32_t pair;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}
template <> __device__ __forceinline__ uint32_t pack_pair<f16>(float first, float second) {
    uint32_t pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
    return pair;
}
#endif

// Two neighbouring 16×8 results as one 16×16 left operand.
template <class T>
__device__ __forceinline__ void pack_fragment(uint32_t (&a)[4], const float (&left)[4], const float (&right)[4]) {
    a[0] = pack_pair<T>(left[0], left[1]);
    a[1] = pack_pair<T>(left[2], left[3]);
    a[2] = pack_pair<T>(right[0], right[1]);
    a[3] = pack_pair<T>(right[2], right[3]);
}

// --- products ------------------------------------------------------------------------------------------------------

// d += a·b for the warp.
template <class T>
__device__ __forceinline__ void mma_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

#ifdef BUBBLEBENCH_HOST_EMULATION
template <class T> inline void mma_16816(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const uint32_t b[2] = {b0, b1};
    softgpu::mma_m16n8k16<T>(d, a, b, d);
}
#else
#define BUBBLEBENCH_MMA_16816(type)                                                     \
    asm("mma.sync.aligned.m16n8k16.row.col.f32." type "." type                 \
                 ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"           \
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                       \
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1))
template <>
__device__ __forceinline__ void mma_16816<bf16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    BUBBLEBENCH_MMA_16816("bf16");
}
template <>
__device__ __forceinline__ void mma_16816<f16>(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    BUBBLEBENCH_MMA_16816("f16");
}
#undef BUBBLEBENCH_MMA_16816
#endif

// --- shared memory to fragments ------------------------------------------------------------------------------------

// Four 8×8 matrices of 16-bit elements: lanes 8i..8i+7 name the rows of the i-th, which arrives in r[i], lane 4g+t
// holding row g, columns 2t and 2t+1; with .trans row and column change places.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], SharedAddress row) {
#ifdef BUBBLEBENCH_HOST_EMULATION
    softgpu::ldmatrix<4, false>(r, row);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
#endif
}

__device__ __forceinline__ void ldmatrix_x4_trans(uint32_t (&r)[4], SharedAddress row) {
#ifdef BUBBLEBENCH_HOST_EMULATION
    softgpu::ldmatrix<4, true>(r, row);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(row)
                 : "memory");
#endif
}

// Two matrices; the addresses of lanes 0..15 count.
__device__ __forceinline__ void ldmatrix_x2(uint32_t (&r)[2], SharedAddress row) {
#ifdef BUBBLEBENCH_HOST_EMULATION
    softgpu::ldmatrix<2, false>(r, row);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(row)
                 : "memory");
#endif
}

__device__ __forceinline__ void ldmatrix_x2_trans(uint32_t (&r)[2], SharedAddress row) {
#ifdef BUBBLEBENCH_HOST_EMULATION
    softgpu::ldmatrix<2, true>(r, row);
#else
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(row)
                 : "memory");
#endif
}

// --- global to shared memory, asynchronously -----------------------------------------------------------------------

// Sixteen bytes past the L1 cache, or sixteen zero bytes where `there` is false (nothing is read then, but `from` must
// still be a valid address). Complete after copy_wait in this thread; visible to others after a barrier behind it.
__device__ __forceinline__ void copy_async16(SharedAddress to, const void* from, bool there) {
#ifdef BUBBLEBENCH_HOST_EMULATION
    softgpu::copy_async(to, from, there ? 16 : 0);
#else
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;"
                 :
                 : "r"(to), "l"(__cvta_generic_to_global(from)), "r"(there ? 16 : 0)
                 : "memory");
#endif
}

// Closes a group of copies.
__device__ __forceinline__ void copy_commit() {
#ifdef BUBBLEBENCH_HOST_EMULATION
    softgpu::copy_commit();
#else
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Waits until at most the N youngest groups of this thread are under way.
template <int N> __device__ __forceinline__ void copy_wait() {
#ifdef BUBBLEBENCH_HOST_EMULATION
    softgpu::copy_wait(N);
#else
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// The warp's fragments of a ROWS×WIDTH tile go the other way through plain stores: two elements of one row.
__device__ __forceinline__ void store_pair(SharedAddress to, uint32_t pair) {
#ifdef BUBBLEBENCH_HOST_EMULATION
    memcpy(to, &pair, sizeof pair);
#else
    asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(pair) : "memory");
#endif
}

}  // namespace bubblebench
