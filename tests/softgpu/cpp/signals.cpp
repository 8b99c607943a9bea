// A kernel's illegal access as an error: the signal handler sends the fiber to `fiber_trap`, which ends it and its
// kernel. Signals outside fibers go to whoever handled them before. On x86-64 Linux only; elsewhere, and under
// AddressSanitizer, which wants to report the access itself, the process ends as it would without this.
#include "launch.h"

#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__)
#include <signal.h>
#include <ucontext.h>

#include <memory>
#include <mutex>

namespace softgpu {
namespace {

constexpr int kSignals[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
constexpr size_t kStackBytes = 64 << 10;

struct sigaction before[64];
thread_local int caught = 0;
thread_local uint64_t address = 0;

void land() { fiber_trap(caught, address); }

void handle(int signal, siginfo_t* info, void* context) {
    if (!fiber_running()) {
        // Happens again at once, to the handler that was here first.
        sigaction(signal, &before[signal], nullptr);
        return;
    }
    caught = signal;
    address = reinterpret_cast<uint64_t>(info->si_addr);
    // As if `land` had been called at the bottom of the fiber's stack.
    greg_t* registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
    registers[REG_RSP] = greg_t((reinterpret_cast<uintptr_t>(fiber_stack_top()) & ~uintptr_t(15)) - 8);
    registers[REG_RIP] = reinterpret_cast<greg_t>(&land);
}

// A stack overflow leaves no room for a handler on the stack that overflowed.
void own_stack() {
    thread_local std::unique_ptr<char[]> stack;
    stack_t now{};
    if (stack || sigaltstack(nullptr, &now) != 0 || !(now.ss_flags & SS_DISABLE)) return;
    stack = std::make_unique<char[]>(kStackBytes);
    stack_t ours{};
    ours.ss_sp = stack.get();
    ours.ss_size = kStackBytes;
    sigaltstack(&ours, nullptr);
}

}  // namespace

void catch_signals() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction ours {};
        ours.sa_sigaction = handle;
        ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
        for (const int signal : kSignals) sigaction(signal, &ours, &before[signal]);
    });
    own_stack();
}

}  // namespace softgpu

#else
namespace softgpu {
void catch_signals() {}
}  // namespace softgpu
#endif
