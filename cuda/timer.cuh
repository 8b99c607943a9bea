// What the probes and the pressure kernels ask a GPU for in PTX: its two clocks, its multiprocessors' numbers, a nap, and
// words that somebody outside the kernel changes while it runs.
//
// global_ns() is %globaltimer: one clock for the whole device, in nanoseconds, moving in ticks of 32 ns to about 1 µs.
// sm_cycles() is %clock64: cycles of the multiprocessor the thread runs on, meaningless on another one.
// Both are volatile and order memory accesses around them, so that no work moves past a reading.
#pragma once
#include "common.cuh"

#ifdef BUBBLEBENCH_HOST_EMULATION
#include <softgpu/timer.h>
#endif

namespace bubblebench {

#ifdef BUBBLEBENCH_HOST_EMULATION

inline uint64_t global_ns() { return softgpu::global_ns(); }
inline uint64_t sm_cycles() { return softgpu::sm_cycles(); }
inline unsigned sm_id() { return softgpu::sm_id(); }
inline void nap(unsigned ns) { softgpu::nap(ns); }
inline uint32_t read_outside(const uint32_t* word) { return softgpu::read_outside(word); }
inline void write_outside(uint64_t* word, uint64_t value) { softgpu::write_outside(word, value); }

#else

__device__ __forceinline__ uint64_t global_ns() {
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now)::"memory");
    return now;
}

__device__ __forceinline__ uint64_t sm_cycles() {
    uint64_t now;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(now)::"memory");
    return now;
}

__device__ __forceinline__ unsigned sm_id() {
    unsigned id;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
    return id;
}

// Up to twice that long, and at most a millisecond (PTX ISA, nanosleep).
__device__ __forceinline__ void nap(unsigned ns) { asm volatile("nanosleep.u32 %0;" ::"r"(ns) : "memory"); }

// A word that the host, or another stream, writes: never from L1, and nothing after it is read before it.
__device__ __forceinline__ uint32_t read_outside(const uint32_t* word) {
    uint32_t value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(word) : "memory");
    return value;
}

__device__ __forceinline__ void write_outside(uint64_t* word, uint64_t value) {
    asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}

#endif

}  // namespace bubblebench
