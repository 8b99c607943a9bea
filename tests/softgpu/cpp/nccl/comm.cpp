// A communicator: its state, how it waits, and who knows it.
#include <sched.h>
#include <unistd.h>

#include <cstdio>
#include <thread>
#include <unordered_map>

#include "nccl.h"

namespace softnccl {
namespace {

// Yields before it sleeps: where every rank has cores of its own, and where they are in each other's way. It sleeps no
// longer than this.
constexpr unsigned kYields = 2000;
constexpr unsigned kFewYields = 20;
constexpr unsigned kLongestMicroseconds = 500;
// Sleeps between two looks for a rank that died.
constexpr unsigned kLookEvery = 16;

struct Known {
    std::mutex mutex;
    std::unordered_map<const void*, std::shared_ptr<Comm>> comms;
};

Known& known() {
    static Known* all = new Known;
    return *all;
}

}  // namespace

int Comm::fail(int code, const std::string& what) {
    {
        std::lock_guard lock(mutex);
        if (broken()) return state;
        last_error = what;
        state = code;
    }
    advanced.notify_all();
    fprintf(stderr, "softgpu: NCCL WARN rank %d of %d: %s\n", rank, ranks, what.c_str());
    return code;
}

Patience::Patience(Comm& comm) : comm_(comm) {
    static const unsigned cores = std::thread::hardware_concurrency();
    yields_ = cores >= 2 * unsigned(comm.ranks) ? kYields : kFewYields;
}

bool Patience::pause() {
    if (comm_.broken()) return false;
    if (++turns_ < yields_) {
        sched_yield();
        return true;
    }
    usleep(std::min((turns_ - yields_) / 8 + 20, kLongestMicroseconds));
    if (turns_ % kLookEvery == 0 && !faults().silent) {
        if (const int rank = comm_.segment.dead(comm_.ranks, comm_.rank); rank >= 0) {
            comm_.fail(kRemoteError, "the process of rank " + std::to_string(rank) + " is gone");
            return false;
        }
    }
    return true;
}

bool barrier(Comm& comm, std::atomic<uint64_t> Slot::* phase, uint64_t& mine) {
    mine++;
    (comm.slot(comm.rank).*phase).store(mine, std::memory_order_release);
    for (int rank = 0; rank < comm.ranks; rank++) {
        Patience patience(comm);
        while ((comm.slot(rank).*phase).load(std::memory_order_acquire) < mine) {
            if (!patience.pause()) return false;
        }
    }
    return true;
}

std::shared_ptr<Comm> find_comm(const void* handle) {
    std::lock_guard lock(known().mutex);
    auto found = known().comms.find(handle);
    return found == known().comms.end() ? nullptr : found->second;
}

void remember(const std::shared_ptr<Comm>& comm) {
    std::lock_guard lock(known().mutex);
    known().comms[comm.get()] = comm;
}

// The memory of a communicator that was destroyed is not used again soon: a late use of its handle is caught.
std::shared_ptr<Comm> forget(const void* handle) {
    std::lock_guard lock(known().mutex);
    auto found = known().comms.find(handle);
    if (found == known().comms.end()) return nullptr;
    std::shared_ptr<Comm> comm = found->second;
    known().comms.erase(found);
    return comm;
}

int ready(const void* handle, std::shared_ptr<Comm>* comm) {
    *comm = find_comm(handle);
    if (*comm == nullptr) {
        fprintf(stderr, "softgpu: NCCL WARN this is no communicator, or one that was destroyed\n");
        return kInvalidArgument;
    }
    const int state = (*comm)->state;
    if (state == kInProgress) {
        fprintf(stderr, "softgpu: NCCL WARN a communicator is used before its last call has ended\n");
        return kInvalidArgument;
    }
    if ((*comm)->finalized || (*comm)->aborted) return kInvalidUsage;
    return state;
}

}  // namespace softnccl
