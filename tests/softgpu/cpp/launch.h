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

void launch(const char* name, const Launch& launch, const Arguments& arguments);
// False with the reason in `message` where the launch failed.
bool try_launch(const char* name, const Launch& launch, const Arguments& arguments, char* message, size_t bytes);

}  // namespace softgpu
