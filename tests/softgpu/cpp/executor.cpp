// Runs a kernel: its threads as fibers, its blocks in sequence. Called from Rust (src/lib.rs) and, by name and
// `void**`, the way a driver's cuLaunchKernel is.
#include <softgpu/executor.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "fiber.h"
#include "launch.h"

#if !SOFTGPU_USE_UCONTEXT
asm(R"(
    .text
    .globl softgpu_switch
softgpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
)");
#endif

namespace softgpu {

thread_local Indices* current = nullptr;
thread_local unsigned char* dynamic_shared = nullptr;
thread_local size_t dynamic_shared_bytes = 0;
thread_local uint64_t block_number = 0;

namespace {

constexpr size_t kStackBytes = 128 << 10;

struct Failure {
    std::string text;
    Trouble trouble = Trouble::Kernel;
    uint64_t address = 0;
};

enum class State { Ready, AtBlockBarrier, AtWarpMeeting, Done };

struct Fiber {
    Context context;
    Indices indices;
    State state;
    Site site;
    unsigned mask;
    WarpOperation operation;
    void* slot;
    bool vote;
    unsigned votes;
};

// A page that may not be touched lies below each stack: an overflow stops the test instead of changing a neighbour.
class Stacks {
  public:
    Stacks() : page_(size_t(sysconf(_SC_PAGESIZE))), stride_(kStackBytes + page_) {
        void* at = mmap(nullptr, stride_ * kMaxThreads, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (at == MAP_FAILED) throw Failure{"softgpu: no memory for the fibers' stacks"};
        base_ = static_cast<unsigned char*>(at);
        for (unsigned i = 0; i < kMaxThreads; i++) mprotect(base_ + i * stride_, page_, PROT_NONE);
    }
    ~Stacks() { munmap(base_, stride_ * kMaxThreads); }
    Stacks(const Stacks&) = delete;
    Stacks& operator=(const Stacks&) = delete;

    unsigned char* stack(unsigned thread) const { return base_ + thread * stride_ + page_; }

  private:
    size_t page_, stride_;
    unsigned char* base_;
};

class Executor {
  public:
    void run(const Kernel& kernel, const Launch& launch, void** arguments);
    void park(State state);
    [[noreturn]] void finish_fiber();
    [[noreturn]] void trap(int signal, uint64_t address);
    bool in_fiber() const { return in_fiber_; }
    // Where a fiber that was stopped by a signal may go on: none of its frames is needed any more.
    unsigned char* stack_top() const { return stacks_.stack(running_) + kStackBytes; }
    Fiber& self() { return fibers_[running_]; }
    void enter();

  private:
    void prepare_block(dim3 block);
    void run_block();
    bool step_warp(unsigned warp);
    void run_fiber(unsigned thread);
    bool complete_warp(unsigned warp);
    bool release_block();
    std::string deadlock() const;
    std::string place() const;
    unsigned warp_end(unsigned warp) const { return std::min((warp + 1) * kWarp, threads_); }
    uint64_t random();
    template <class T> void shuffle(std::vector<T>& items);

    Stacks stacks_;
    std::vector<Fiber> fibers_{kMaxThreads};
    Context scheduler_;
    const Kernel* kernel_ = nullptr;
    const Launch* launch_ = nullptr;
    void** arguments_ = nullptr;
    dim3 block_;
    unsigned threads_ = 0, live_ = 0, running_ = 0;
    volatile bool in_fiber_ = false;
    std::vector<unsigned> warps_;
    uint64_t seed_ = 0;
    std::unique_ptr<Failure> failure_;
};

thread_local Executor* executor = nullptr;

void fiber_entry() { executor->enter(); }

// A kernel must not throw across a switch: what it threw is handed to the scheduler.
void Executor::enter() {
    try {
        kernel_->call(arguments_);
    } catch (Failure& failure) {
        failure_ = std::make_unique<Failure>(std::move(failure));
    }
    finish_fiber();
}

void Executor::finish_fiber() {
    self().state = State::Done;
    live_--;
    switch_context(self().context, scheduler_);
    abort();  // a finished fiber is never resumed
}

// The processor refused what the kernel did. Kernels own nothing, so their frames need no unwinding.
void Executor::trap(int signal, uint64_t address) {
    const bool memory = signal == SIGSEGV || signal == SIGBUS;
    const char* what = memory ? "an illegal memory access" : "a division of integers by zero, or an illegal instruction";
    failure_ = std::make_unique<Failure>(Failure{what, memory ? Trouble::Address : Trouble::Kernel, address});
    finish_fiber();
}

void Executor::park(State state) {
    self().state = state;
    switch_context(self().context, scheduler_);
}

void Executor::run_fiber(unsigned thread) {
    running_ = thread;
    current = &fibers_[thread].indices;
    in_fiber_ = true;
    switch_context(scheduler_, fibers_[thread].context);
    in_fiber_ = false;
    if (failure_) throw Failure{failure_->text + place(), failure_->trouble, failure_->address};
}

void Executor::run(const Kernel& kernel, const Launch& launch, void** arguments) {
    kernel_ = &kernel;
    launch_ = &launch;
    arguments_ = arguments;
    threads_ = launch.block[0] * launch.block[1] * launch.block[2];
    seed_ = launch.seed;
    failure_.reset();
    warps_.resize((threads_ + kWarp - 1) / kWarp);
    std::iota(warps_.begin(), warps_.end(), 0u);
    std::unique_ptr<unsigned char, void (*)(void*)> shared(
        static_cast<unsigned char*>(aligned_alloc(128, (launch.shared_bytes / 128 + 1) * 128)), free);
    dynamic_shared = shared.get();
    dynamic_shared_bytes = launch.shared_bytes;
    for (unsigned z = 0; z < launch.grid[2]; z++) {
        for (unsigned y = 0; y < launch.grid[1]; y++) {
            for (unsigned x = 0; x < launch.grid[0]; x++) {
                // All ones are NaN: what a kernel reads before it has written shows in its result.
                memset(dynamic_shared, 0xff, launch.shared_bytes);
                prepare_block({x, y, z});
                run_block();
            }
        }
    }
}

void Executor::prepare_block(dim3 block) {
    block_ = block;
    block_number++;
    live_ = threads_;
    const unsigned *b = launch_->block, *g = launch_->grid;
    for (unsigned i = 0; i < threads_; i++) {
        Fiber& fiber = fibers_[i];
        fiber.state = State::Ready;
        fiber.indices = {{i % b[0], i / b[0] % b[1], i / b[0] / b[1]}, block, {b[0], b[1], b[2]}, {g[0], g[1], g[2]}};
        make_context(fiber.context, stacks_.stack(i), kStackBytes, fiber_entry);
    }
}

// In order, a warp runs until all of it waits for the block; shuffled, a warp runs to its next meeting only and lanes
// and warps take turns at random, so that what relies on one order does not come out right by luck.
void Executor::run_block() {
    while (live_ > 0) {
        bool progress = false;
        if (launch_->shuffled) shuffle(warps_);
        for (unsigned warp : warps_) {
            if (launch_->shuffled && random() % 4 == 0) continue;
            while (step_warp(warp)) {
                progress = true;
                if (launch_->shuffled) break;
            }
        }
        progress |= release_block();
        if (progress || launch_->shuffled) {
            // Warps left out by chance are no deadlock: only a round in which nobody can run is.
            const bool ready = std::any_of(fibers_.begin(), fibers_.begin() + threads_,
                                           [](const Fiber& fiber) { return fiber.state == State::Ready; });
            if (progress || ready) continue;
        }
        throw Failure{deadlock()};
    }
}

bool Executor::step_warp(unsigned warp) {
    unsigned order[kWarp], ready = 0;
    for (unsigned i = warp * kWarp; i < warp_end(warp); i++) {
        if (fibers_[i].state == State::Ready) order[ready++] = i;
    }
    if (launch_->shuffled) {
        for (unsigned i = ready; i > 1; i--) std::swap(order[i - 1], order[random() % i]);
    }
    for (unsigned i = 0; i < ready; i++) run_fiber(order[i]);
    return complete_warp(warp) || ready > 0;
}

bool same_site(Site a, Site b) { return a.line == b.line && (a.file == b.file || strcmp(a.file, b.file) == 0); }

// A meeting is complete when every lane that its mask names, and that has not exited, waits at the same place with the
// same mask (CUDA C++ programming guide, warp synchronisation functions).
bool Executor::complete_warp(unsigned warp) {
    const unsigned first = warp * kWarp, end = warp_end(warp);
    bool any = false;
    for (unsigned i = first; i < end; i++) {
        const Fiber& leader = fibers_[i];
        if (leader.state != State::AtWarpMeeting) continue;
        void* slots[kWarp] = {};
        bool complete = true;
        for (unsigned j = first; j < end && complete; j++) {
            Fiber& other = fibers_[j];
            if (!(leader.mask >> (j - first) & 1) || other.state == State::Done) continue;
            complete =
                other.state == State::AtWarpMeeting && other.mask == leader.mask && same_site(other.site, leader.site);
            slots[j - first] = other.slot;
        }
        if (!complete) continue;
        if (leader.operation != nullptr) leader.operation(slots);
        const unsigned mask = leader.mask;
        for (unsigned j = first; j < end; j++) {
            if (mask >> (j - first) & 1 && fibers_[j].state == State::AtWarpMeeting) fibers_[j].state = State::Ready;
        }
        any = true;
    }
    return any;
}

bool Executor::release_block() {
    const Fiber* leader = nullptr;
    unsigned votes = 0;
    for (unsigned i = 0; i < threads_; i++) {
        const Fiber& fiber = fibers_[i];
        if (fiber.state == State::Done) continue;
        if (fiber.state != State::AtBlockBarrier) return false;
        if (leader != nullptr && !same_site(leader->site, fiber.site)) throw Failure{deadlock()};
        leader = &fiber;
        votes += fiber.vote;
    }
    if (leader == nullptr) return false;
    for (unsigned i = 0; i < threads_; i++) {
        if (fibers_[i].state != State::AtBlockBarrier) continue;
        fibers_[i].state = State::Ready;
        fibers_[i].votes = votes;
    }
    return true;
}

std::string Executor::place() const {
    char text[160];
    snprintf(text, sizeof text, " (kernel %s, block %u,%u,%u, thread %u)", kernel_->name, block_.x, block_.y, block_.z,
             running_);
    return text;
}

std::string Executor::deadlock() const {
    struct Group {
        Site site;
        State state;
        unsigned threads, first;
    };
    std::vector<Group> groups;
    for (unsigned i = 0; i < threads_; i++) {
        const Fiber& fiber = fibers_[i];
        if (fiber.state == State::Done) continue;
        auto same = [&](const Group& g) { return g.state == fiber.state && same_site(g.site, fiber.site); };
        auto found = std::find_if(groups.begin(), groups.end(), same);
        if (found == groups.end())
            groups.push_back({fiber.site, fiber.state, 1, i});
        else
            found->threads++;
    }
    char text[256];
    snprintf(text, sizeof text, "deadlock in kernel %s, block %u,%u,%u: ", kernel_->name, block_.x, block_.y, block_.z);
    std::string message = text;
    for (size_t i = 0; i < groups.size() && i < 6; i++) {
        const Group& g = groups[i];
        snprintf(text, sizeof text, "%s%u threads (the first is %u) wait at %s:%d for the %s", i ? "; " : "", g.threads,
                 g.first, g.site.file, g.site.line, g.state == State::AtBlockBarrier ? "block" : "warp");
        message += text;
    }
    return message;
}

// SplitMix64.
uint64_t Executor::random() {
    uint64_t z = seed_ += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

template <class T> void Executor::shuffle(std::vector<T>& items) {
    for (size_t i = items.size(); i > 1; i--) std::swap(items[i - 1], items[random() % i]);
}

Kernel* kernels = nullptr;

}  // namespace

void add_kernel(Kernel* kernel) {
    kernel->next = kernels;
    kernels = kernel;
}

const Kernel* find_kernel(const char* name) {
    for (const Kernel* kernel = kernels; kernel != nullptr; kernel = kernel->next) {
        if (strcmp(kernel->name, name) == 0) return kernel;
    }
    return nullptr;
}

const Kernel* first_kernel() { return kernels; }

unsigned block_barrier(Site site, bool vote) {
    Fiber& self = executor->self();
    self.site = site;
    self.vote = vote;
    executor->park(State::AtBlockBarrier);
    return self.votes;
}

void warp_meet(Site site, unsigned mask, WarpOperation operation, void* slot) {
    if (!(mask >> lane() & 1)) fail("%s:%d: lane %u is not in its own mask %08x", site.file, site.line, lane(), mask);
    Fiber& self = executor->self();
    self.site = site;
    self.mask = mask;
    self.operation = operation;
    self.slot = slot;
    executor->park(State::AtWarpMeeting);
}

void fail(const char* format, ...) {
    char text[512];
    va_list list;
    va_start(list, format);
    vsnprintf(text, sizeof text, format, list);
    va_end(list);
    throw Failure{text};
}

void check_aligned(const void* pointer, size_t alignment, Site site) {
    if (reinterpret_cast<uintptr_t>(pointer) % alignment == 0) return;
    char text[256];
    snprintf(text, sizeof text, "%s:%d: a %zu-byte access at %p is misaligned", site.file, site.line, alignment, pointer);
    throw Failure{text, Trouble::Alignment, 0};
}

// What the driver refuses before anything runs.
static void check_launch(const Kernel& kernel, const Launch& launch) {
    const uint64_t threads = uint64_t(launch.block[0]) * launch.block[1] * launch.block[2];
    const uint64_t blocks = uint64_t(launch.grid[0]) * launch.grid[1] * launch.grid[2];
    if (threads == 0 || blocks == 0) fail("kernel %s: an empty grid or block", kernel.name);
    if (threads > kernel.max_threads || launch.block[2] > 64)
        fail("kernel %s: %llu threads a block, %u at most", kernel.name, (unsigned long long)threads,
             kernel.max_threads);
    if (launch.grid[1] > 65535 || launch.grid[2] > 65535)
        fail("kernel %s: grid %u,%u,%u is beyond 65535 in y or z", kernel.name, launch.grid[0], launch.grid[1],
             launch.grid[2]);
    if (launch.shared_bytes > launch.shared_limit_bytes)
        fail("kernel %s: %u bytes of dynamic shared memory, %u at most", kernel.name, launch.shared_bytes,
             launch.shared_limit_bytes);
}

// On this OS thread: a launch has it to itself, so several threads may run kernels at once.
static void run(const Kernel& kernel, const Launch& launch, void** arguments) {
    thread_local std::unique_ptr<Executor> owned;
    if (!owned) owned = std::make_unique<Executor>();
    executor = owned.get();
    catch_signals();
    executor->run(kernel, launch, arguments);
}

static void check_arguments(const Kernel& kernel, const Arguments& arguments) {
    if (arguments.bytes == nullptr) return;
    if (arguments.count != kernel.arguments)
        fail("kernel %s takes %zu arguments, %zu were given", kernel.name, kernel.arguments, arguments.count);
    for (size_t i = 0; i < arguments.count; i++) {
        if (arguments.bytes[i] != kernel.argument_bytes[i])
            fail("kernel %s: argument %zu has %zu bytes, %zu were given", kernel.name, i, kernel.argument_bytes[i],
                 arguments.bytes[i]);
    }
}

Outcome try_launch(const Kernel& kernel, const Launch& launch, const Arguments& arguments, char* message, size_t bytes) {
    try {
        check_launch(kernel, launch);
        check_arguments(kernel, arguments);
        run(kernel, launch, arguments.values);
        return {};
    } catch (const Failure& failure) {
        snprintf(message, bytes, "%s", failure.text.c_str());
        return {failure.trouble, failure.address};
    } catch (const std::exception& error) {
        snprintf(message, bytes, "softgpu: %s", error.what());
        return {Trouble::Kernel, 0};
    }
}

bool fiber_running() { return executor != nullptr && executor->in_fiber(); }
void* fiber_stack_top() { return executor->stack_top(); }
void fiber_trap(int signal, uint64_t address) { executor->trap(signal, address); }

}  // namespace softgpu

// Returns 0, or 1 with the reason in `message`.
extern "C" int softgpu_launch(const char* name, const softgpu::Launch* launch, const softgpu::Arguments* arguments,
                              char* message, size_t message_bytes) {
    const softgpu::Kernel* kernel = softgpu::find_kernel(name);
    if (kernel == nullptr) return snprintf(message, message_bytes, "no kernel named %s", name), 1;
    const softgpu::Outcome outcome = softgpu::try_launch(*kernel, *launch, *arguments, message, message_bytes);
    return outcome.trouble == softgpu::Trouble::None ? 0 : 1;
}

// The i-th kernel's name, null past the last.
extern "C" const char* softgpu_kernel_name(size_t i) {
    const softgpu::Kernel* kernel = softgpu::first_kernel();
    while (kernel != nullptr && i-- > 0) kernel = kernel->next;
    return kernel != nullptr ? kernel->name : nullptr;
}
