// The clocks of the software device, and words that change under a running kernel. Host time stands in for both clocks: the
// multiprocessors run at a nominal 1 GHz, so a cycle is a nanosecond.
#pragma once
#include <softgpu/executor.h>
#include <time.h>

#include <cstdlib>

namespace softgpu {

inline uint64_t global_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return uint64_t(now.tv_sec) * 1000000000u + uint64_t(now.tv_nsec);
}

inline uint64_t sm_cycles() { return global_ns(); }

// Blocks go round the multiprocessors, whose number the driver reads from the same variable.
inline unsigned sm_id() {
    static const unsigned sms = [] {
        const char* text = getenv("SOFTGPU_SMS");
        const int asked = text != nullptr ? atoi(text) : 4;
        return asked > 0 ? unsigned(asked) : 4u;
    }();
    return current->block.x % sms;
}

// The whole stream naps: its fibers share one OS thread.
inline void nap(unsigned ns) {
    const timespec length{time_t(ns / 1000000000u), long(ns % 1000000000u)};
    nanosleep(&length, nullptr);
}

inline uint32_t read_outside(const uint32_t* word) { return __atomic_load_n(word, __ATOMIC_ACQUIRE); }
inline void write_outside(uint64_t* word, uint64_t value) { __atomic_store_n(word, value, __ATOMIC_RELEASE); }

}  // namespace softgpu
