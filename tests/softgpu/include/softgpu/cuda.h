// The CUDA language on a C++ compiler: included by cuda/common.cuh instead of the toolkit's headers.
// A kernel that compiles with nvcc and with this runs on the executor unchanged.
#pragma once
#include <softgpu/executor.h>
#include <softgpu/types.h>

#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>

#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __align__(n) alignas(n)
// One block at a time on an OS thread, so one copy a thread is a block's own. As on a GPU it is not cleared.
#define __shared__ static thread_local

#define threadIdx (::softgpu::current->thread)
#define blockIdx (::softgpu::current->block)
#define blockDim (::softgpu::current->block_dim)
#define gridDim (::softgpu::current->grid_dim)
#define warpSize 32

#define SOFTGPU_SITE (::softgpu::Site{file, line})
#define SOFTGPU_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

// --- declaring kernels ---------------------------------------------------------------------------------------------

namespace softgpu {

template <class... A, void (*K)(A...), size_t... I>
void call_with(std::integral_constant<void (*)(A...), K>, void** arguments, std::index_sequence<I...>) {
    K(*static_cast<std::remove_reference_t<A>*>(arguments[I])...);
}

// Unpacks the driver's `void**` by the kernel's own signature, and adds the kernel to the list launches look in.
template <auto K> struct Registered;
template <class... A, void (*K)(A...)> struct Registered<K> {
    static void call(void** arguments) {
        call_with(std::integral_constant<void (*)(A...), K>{}, arguments, std::index_sequence_for<A...>{});
    }
    static constexpr size_t bytes[sizeof...(A) + 1] = {sizeof(A)..., 0};
    Kernel kernel;
    Registered(const char* name, unsigned max_threads) : kernel{name, max_threads, bytes, sizeof...(A), call, nullptr} {
        add_kernel(&kernel);
    }
};

}  // namespace softgpu

#define BUBBLEBENCH_KERNEL(max_threads, name, ...)                                     \
    extern "C" void name(__VA_ARGS__);                                                 \
    static ::softgpu::Registered<&name> softgpu_registered_##name(#name, max_threads); \
    extern "C" void name(__VA_ARGS__)
#define BUBBLEBENCH_DYNAMIC_SHARED(T, name) T* name = reinterpret_cast<T*>(::softgpu::dynamic_shared)
#define BUBBLEBENCH_CHECK_ALIGNED(pointer) \
    ::softgpu::check_aligned(pointer, 16, ::softgpu::Site{__builtin_FILE(), __builtin_LINE()})

// --- barriers and warp-wide operations -----------------------------------------------------------------------------

inline void __syncthreads(SOFTGPU_HERE) { ::softgpu::block_barrier(SOFTGPU_SITE, false); }
inline int __syncthreads_or(int v, SOFTGPU_HERE) { return ::softgpu::block_barrier(SOFTGPU_SITE, v != 0) != 0; }
inline int __syncthreads_count(int v, SOFTGPU_HERE) { return int(::softgpu::block_barrier(SOFTGPU_SITE, v != 0)); }
inline void __syncwarp(unsigned mask = ~0u, SOFTGPU_HERE) {
    ::softgpu::warp_meet(SOFTGPU_SITE, mask, nullptr, nullptr);
}

namespace softgpu {

// What a lane brings to a shuffle, and what it takes away. A value from a lane that is not there is undefined on a GPU:
// here it is all ones, which is NaN for floats.
struct Exchange {
    uint64_t brought, taken;
    unsigned from;
};

inline void exchange(void* slots[kWarp]) {
    for (unsigned i = 0; i < kWarp; i++) {
        if (slots[i] == nullptr) continue;
        Exchange& mine = *static_cast<Exchange*>(slots[i]);
        const bool there = mine.from < kWarp && slots[mine.from] != nullptr;
        mine.taken = there ? static_cast<Exchange*>(slots[mine.from])->brought : ~uint64_t(0);
    }
}

template <class T> T shuffle(Site site, unsigned mask, T v, unsigned from) {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
    Exchange slot{0, 0, from};
    memcpy(&slot.brought, &v, sizeof v);
    warp_meet(site, mask, exchange, &slot);
    memcpy(&v, &slot.taken, sizeof v);
    return v;
}

struct Ballot {
    bool vote;
    unsigned votes;
};

inline void count_votes(void* slots[kWarp]) {
    unsigned votes = 0;
    for (unsigned i = 0; i < kWarp; i++) {
        if (slots[i] != nullptr && static_cast<Ballot*>(slots[i])->vote) votes |= 1u << i;
    }
    for (unsigned i = 0; i < kWarp; i++) {
        if (slots[i] != nullptr) static_cast<Ballot*>(slots[i])->votes = votes;
    }
}

inline unsigned ballot(Site site, unsigned mask, bool vote) {
    Ballot slot{vote, 0};
    warp_meet(site, mask, count_votes, &slot);
    return slot.votes;
}

}  // namespace softgpu

// Sub-warps of `width` lanes: a lane outside its sub-warp leaves the value as it is, as the instruction does.
template <class T> T __shfl_sync(unsigned mask, T v, int source, int width = 32, SOFTGPU_HERE) {
    const unsigned base = ::softgpu::lane() / unsigned(width) * unsigned(width);
    return ::softgpu::shuffle(SOFTGPU_SITE, mask, v, base + unsigned(source) % unsigned(width));
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int flip, int width = 32, SOFTGPU_HERE) {
    const unsigned me = ::softgpu::lane(), to = me ^ unsigned(flip);
    return ::softgpu::shuffle(SOFTGPU_SITE, mask, v, to / unsigned(width) > me / unsigned(width) ? me : to);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, SOFTGPU_HERE) {
    const unsigned me = ::softgpu::lane(), inside = me % unsigned(width);
    return ::softgpu::shuffle(SOFTGPU_SITE, mask, v, inside + by < unsigned(width) ? me + by : me);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, SOFTGPU_HERE) {
    const unsigned me = ::softgpu::lane(), inside = me % unsigned(width);
    return ::softgpu::shuffle(SOFTGPU_SITE, mask, v, inside >= by ? me - by : me);
}
inline unsigned __ballot_sync(unsigned mask, int v, SOFTGPU_HERE) {
    return ::softgpu::ballot(SOFTGPU_SITE, mask, v != 0);
}
inline int __any_sync(unsigned mask, int v, SOFTGPU_HERE) { return ::softgpu::ballot(SOFTGPU_SITE, mask, v != 0) != 0; }
inline int __all_sync(unsigned mask, int v, SOFTGPU_HERE) { return ::softgpu::ballot(SOFTGPU_SITE, mask, v == 0) == 0; }

// --- memory --------------------------------------------------------------------------------------------------------

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> void __stcs(T* p, T v) { *p = v; }
template <class T> void __stcg(T* p, T v) { *p = v; }
inline void __threadfence() {}
inline void __threadfence_block() {}

// Fibers of one block never interrupt each other, but kernels on two streams run on two OS threads.
namespace softgpu {
template <class T, class F> T atomic_update(T* p, F next) {
    T old, wanted;
    __atomic_load(p, &old, __ATOMIC_RELAXED);
    do wanted = next(old);
    while (!__atomic_compare_exchange(p, &old, &wanted, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    return old;
}
}  // namespace softgpu

template <class T> T atomicAdd(T* p, T v) {
    return ::softgpu::atomic_update(p, [v](T old) { return T(old + v); });
}
template <class T> T atomicMax(T* p, T v) {
    return ::softgpu::atomic_update(p, [v](T old) { return std::max(old, v); });
}
template <class T> T atomicExch(T* p, T v) {
    return ::softgpu::atomic_update(p, [v](T) { return v; });
}
template <class T> T atomicCAS(T* p, T expected, T v) {
    return ::softgpu::atomic_update(p, [expected, v](T old) { return old == expected ? v : old; });
}

// --- arithmetic ----------------------------------------------------------------------------------------------------

using std::max;
using std::min;
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1.0f / x; }
inline float __int_as_float(int x) { return ::softgpu::bits_float(uint32_t(x)); }
inline int __float_as_int(float x) { return int(::softgpu::float_bits(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned(uint64_t(a) * b >> 32); }
