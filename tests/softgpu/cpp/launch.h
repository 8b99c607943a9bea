// A launch as the caller describes it. The same layout stands in src/lib.rs.
#pragma once
#include <cstddef>
#include <cstdint>

namespace softgpu {

struct Launch {
    unsigned grid[3], block[3];
    unsigned shared_bytes, shared_limit_bytes;
    uint64_t seed;
    int shuffled;
};

// `values[i]` points at the i-th argument; `bytes` may be null where sizes are not known (a driver's void**).
struct Arguments {
    void** values;
    const size_t* bytes;
    size_t count;
};

struct Kernel;
// Null where there is none of that name.
const Kernel* find_kernel(const char* name);

// Why a launch did not end well: the kernel itself, an access off its alignment, an access to what is not its own.
enum class Trouble { None, Kernel, Alignment, Address };
struct Outcome {
    Trouble trouble = Trouble::None;
    uint64_t address = 0;
};
// Runs the kernel to its end on this OS thread; the reason is in `message` where it failed.
Outcome try_launch(const Kernel& kernel, const Launch& launch, const Arguments& arguments, char* message, size_t bytes);

// signals.cpp: from now on a fiber's illegal access is a failure of its kernel, not the end of the process.
void catch_signals();
bool fiber_running();
void* fiber_stack_top();
[[noreturn]] void fiber_trap(int signal, uint64_t address);

}  // namespace softgpu
