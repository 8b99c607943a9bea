// Switching between stacks: by hand on x86-64 (a few nanoseconds; swapcontext makes a system call), ucontext elsewhere.
#pragma once
#include <cstddef>
#include <cstdint>

#if !defined(__x86_64__) || defined(SOFTGPU_UCONTEXT)
#include <ucontext.h>
#define SOFTGPU_USE_UCONTEXT 1
#else
#define SOFTGPU_USE_UCONTEXT 0
#endif

namespace softgpu {

#if SOFTGPU_USE_UCONTEXT

struct Context {
    ucontext_t state;
};

inline void make_context(Context& context, unsigned char* stack, size_t bytes, void (*entry)()) {
    getcontext(&context.state);
    context.state.uc_stack.ss_sp = stack;
    context.state.uc_stack.ss_size = bytes;
    context.state.uc_link = nullptr;
    makecontext(&context.state, entry, 0);
}

inline void switch_context(Context& from, Context& to) { swapcontext(&from.state, &to.state); }

#else

struct Context {
    void* stack_pointer;
};

// Saves what the System V ABI says a callee keeps, and returns on the other stack. Defined in executor.cpp.
extern "C" void softgpu_switch(void** save, void* load) asm("softgpu_switch");

inline void make_context(Context& context, unsigned char* stack, size_t bytes, void (*entry)()) {
    void** top = reinterpret_cast<void**>((reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t(15));
    *--top = nullptr;                         // entry never returns; a debugger stops here
    *--top = reinterpret_cast<void*>(entry);  // what the first switch returns to
    for (int saved = 0; saved < 6; saved++) *--top = nullptr;
    context.stack_pointer = top;
}

inline void switch_context(Context& from, Context& to) { softgpu_switch(&from.stack_pointer, to.stack_pointer); }

#endif

}  // namespace softgpu
