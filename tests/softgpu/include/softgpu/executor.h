// What a kernel's fibers and the executor share. A CUDA thread is a fiber; blocks run one after another on the calling
// OS thread; a fiber leaves the processor only where CUDA threads meet: at a barrier or a warp-wide operation.
#pragma once
#include <softgpu/types.h>

#include <cstddef>
#include <cstdint>

namespace softgpu {

constexpr unsigned kWarp = 32;
constexpr unsigned kMaxThreads = 1024;
constexpr unsigned kNoLane = ~0u;

// A warp-wide operation, done once all its lanes have arrived: `slots[i]` is what lane i brought, null for the others.
using WarpOperation = void (*)(void* slots[kWarp]);

// Where in the source threads meet; CUDA wants all of them at the same one.
struct Site {
    const char* file;
    int line;
};

struct Indices {
    dim3 thread, block, block_dim, grid_dim;
};

// Of the fiber that runs now, on this OS thread.
extern thread_local Indices* current;
extern thread_local unsigned char* dynamic_shared;
extern thread_local size_t dynamic_shared_bytes;
// Counts the blocks this OS thread has run: what belongs to a block (copies under way) knows by it whose it is.
extern thread_local uint64_t block_number;

inline unsigned linear_thread() {
    const Indices& i = *current;
    return i.thread.x + i.block_dim.x * (i.thread.y + i.block_dim.y * i.thread.z);
}
inline unsigned lane() { return linear_thread() % kWarp; }

// Waits for every living thread of the block; true where any of them brought `true`, and their number.
unsigned block_barrier(Site site, bool vote);
// Waits for the lanes in `mask`, then `operation` runs over their slots.
void warp_meet(Site site, unsigned mask, WarpOperation operation, void* slot);
// Ends the kernel with a message.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
void check_aligned(const void* pointer, size_t alignment, Site site);

// A kernel as the launcher knows it: its name, its limits, the size of each argument, and how it is called.
struct Kernel {
    const char* name;
    unsigned max_threads;
    const size_t* argument_bytes;
    size_t arguments;
    void (*call)(void** arguments);
    Kernel* next;
};
void add_kernel(Kernel* kernel);

}  // namespace softgpu
