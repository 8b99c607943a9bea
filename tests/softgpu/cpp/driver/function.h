// A kernel as a module gives it out.
#pragma once
#include "driver.h"

namespace softgpu {

struct Function {
    const Kernel* kernel;
    Context* context;
    unsigned shared_limit_bytes = 48 << 10;  // without cuFuncSetAttribute
    int carveout = -1;
};
Table<Function>& functions();

}  // namespace softgpu
