// Probes: small kernels that hold a stream, empty the caches, and read clocks around somebody else's work. None of them is
// timed itself. Called by src/ops/cuda/probe.rs for src/clock/cuda.rs; docs/method.md says what they are for.
//
//   probe_blocker    one thread. Ends once *flag has reached `ticket` (counted modulo 2³²), or after timeout_ns. *waited_ns
//                    becomes how long it waited, or all ones where it gave up. flag and waited_ns: mapped host memory.
//   probe_gate_wait  the same on a flag in device memory that another stream writes: a read is an L2 hit, not a round trip
//                    over the bus, so it naps shorter.
//   probe_flush      writes 16·vectors bytes: with at least the L2's size of its own memory, nothing else is left in it (but
//                    lines that a process marked as persisting: the host resets those). Any grid.
//   probe_stamp      stamp = {globaltimer ns, SM cycles, ticket, SM}, written by exactly one thread, on multiprocessor `sm`;
//                    nobody writes where no block came to lie there. Both readings are taken as globaltimer moves, so that a
//                    pair of stamps is as exact as the loop that waits for the tick, and the tick bounds the error. With
//                    `since` (a stamp of the same ticket) it waits until window_ns have passed since then. claim: one word a
//                    stamp, any content. Grid: several one-thread blocks a multiprocessor.
//   probe_tick       one thread. changes[0..count) = by how much globaltimer moved each time it moved; 0 where it did not for
//                    most_cycles. The least one is its tick (or the time of a reading, if that is longer).
//   probe_sm_map     ids[block] = the multiprocessor the block ran on. Any grid of one-thread blocks.
//   probe_spin       one thread. Runs for at least `ns` by globaltimer and writes how long it did
//                    where ran_ns is not null: work of a known length.
//
// Fewer than 32 registers, no shared memory, no local memory.
#include "timer.cuh"

namespace bubblebench {

constexpr uint64_t kGaveUp = ~uint64_t(0);
// Between two looks at a flag: a look over the bus takes about a microsecond, one in L2 less.
constexpr unsigned kHostNapNs = 200, kDeviceNapNs = 50;
// No tick for so long (half a millisecond at 2 GHz): the timer stands still, go on without it.
constexpr uint64_t kMostTickCycles = 1 << 20;

__device__ __forceinline__ void wait_for(const uint32_t* flag, uint32_t ticket, uint64_t timeout_ns, uint64_t* waited_ns,
                                         unsigned nap_ns) {
    const uint64_t start = global_ns();
    uint64_t waited = 0;
    while (int32_t(read_outside(flag) - ticket) < 0) {
        waited = global_ns() - start;
        if (waited >= timeout_ns) {
            waited = kGaveUp;
            break;
        }
        nap(nap_ns);
    }
    write_outside(waited_ns, waited);
}

struct Moment {
    uint64_t ns, cycles;
};

// Now, as the timer moves.
__device__ __forceinline__ Moment next_tick(uint64_t most_cycles) {
    const uint64_t before = global_ns(), begin = sm_cycles();
    Moment now;
    do {
        now.ns = global_ns();
        now.cycles = sm_cycles();
    } while (now.ns == before && now.cycles - begin < most_cycles);
    return now;
}

}  // namespace bubblebench

BUBBLEBENCH_KERNEL(32, probe_blocker, const uint32_t* flag, uint32_t ticket, uint64_t timeout_ns, uint64_t* waited_ns) {
    bubblebench::wait_for(flag, ticket, timeout_ns, waited_ns, bubblebench::kHostNapNs);
}

BUBBLEBENCH_KERNEL(32, probe_gate_wait, const uint32_t* flag, uint32_t ticket, uint64_t timeout_ns,
                   uint64_t* waited_ns) {
    bubblebench::wait_for(flag, ticket, timeout_ns, waited_ns, bubblebench::kDeviceNapNs);
}

BUBBLEBENCH_KERNEL(1024, probe_flush, uint4* memory, uint64_t vectors, uint32_t value) {
    const uint64_t step = uint64_t(gridDim.x) * blockDim.x;
    BUBBLEBENCH_CHECK_ALIGNED(memory);
    for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < vectors; i += step) {
        memory[i] = make_uint4(value, value, value, value);
    }
}

BUBBLEBENCH_KERNEL(32, probe_stamp, uint64_t* stamp, uint32_t* claim, uint32_t sm, uint32_t ticket,
                   const uint64_t* since, uint64_t window_ns) {
    if (bubblebench::sm_id() != sm) return;
    if (atomicExch(claim, ticket) == ticket) return;  // another block of this multiprocessor was first
    if (since != nullptr && uint32_t(since[2]) == ticket) {
        const uint64_t begin = since[0];
        while (bubblebench::global_ns() - begin < window_ns) bubblebench::nap(bubblebench::kDeviceNapNs);
    }
    const bubblebench::Moment now = bubblebench::next_tick(bubblebench::kMostTickCycles);
    stamp[0] = now.ns;
    stamp[1] = now.cycles;
    stamp[2] = ticket;
    stamp[3] = sm;
}

BUBBLEBENCH_KERNEL(32, probe_tick, uint64_t* changes, int count, uint64_t most_cycles) {
    uint64_t last = bubblebench::next_tick(most_cycles).ns;
    for (int i = 0; i < count; i++) {
        const uint64_t now = bubblebench::next_tick(most_cycles).ns;
        changes[i] = now - last;
        last = now;
    }
}

BUBBLEBENCH_KERNEL(32, probe_sm_map, uint32_t* ids) { ids[blockIdx.x] = bubblebench::sm_id(); }

BUBBLEBENCH_KERNEL(32, probe_spin, uint64_t* ran_ns, uint64_t ns) {
    const uint64_t start = bubblebench::global_ns();
    uint64_t ran = 0;
    while (ran < ns) ran = bubblebench::global_ns() - start;
    if (ran_ns != nullptr) *ran_ns = ran;
}
