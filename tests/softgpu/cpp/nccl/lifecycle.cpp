// Communicators come and go: init, split, finalize, destroy, abort, and what can be asked of them meanwhile.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>

#include "api.h"
#include "nccl.h"

namespace softnccl {
namespace {

constexpr unsigned kMagic = 0xcafebeef;

int invalid(const char* why) {
    fprintf(stderr, "softgpu: NCCL WARN %s\n", why);
    return kInvalidArgument;
}

int apply(const Config* config, Comm& comm) {
    if (config == nullptr) return kSuccess;
    if (config->size < offsetof(Config, blocking)) return invalid("a config of no size");
    if (config->magic != kMagic) return invalid("a config that was not initialised");
    auto has = [&](size_t offset) { return config->size >= offset + sizeof(int); };
    const int blocking = has(offsetof(Config, blocking)) ? config->blocking : kUndefined;
    if (blocking != kUndefined && blocking != 0 && blocking != 1) return invalid("blocking is neither 0 nor 1");
    const int least = has(offsetof(Config, minCTAs)) ? config->minCTAs : kUndefined;
    const int most = has(offsetof(Config, maxCTAs)) ? config->maxCTAs : kUndefined;
    if ((least != kUndefined && least < 1) || (most != kUndefined && most < 1)) return invalid("fewer than one CTA");
    if (least != kUndefined && most != kUndefined && least > most) return invalid("minCTAs is above maxCTAs");
    if (blocking != kUndefined) comm.blocking = blocking == 1;
    if (least != kUndefined) comm.ctas = std::max(comm.ctas, least);
    if (most != kUndefined) comm.ctas = std::min(comm.ctas, most);
    return kSuccess;
}

bool may_share_gpus() {
    const char* text = getenv("NCCL_MULTI_RANK_GPU_ENABLE");
    return text != nullptr && !strcmp(text, "1") && faults().version >= 23000;
}

int check_gpus(Comm& comm) {
    for (int rank = 0; rank < comm.ranks; rank++) {
        const Slot &a = comm.slot(rank), &b = comm.slot(comm.rank);
        if (rank == comm.rank || a.host != b.host || memcmp(a.gpu, b.gpu, sizeof a.gpu) != 0 || may_share_gpus())
            continue;
        return comm.fail(kInvalidUsage, "Duplicate GPU detected : rank " + std::to_string(comm.rank) + " and rank " +
                                            std::to_string(rank) + " both on one GPU");
    }
    return kSuccess;
}

// Comes to the file, and waits for all the others.
int join(Comm& comm, const UniqueId& id) {
    std::string why;
    if (const int code = comm.segment.open(id, comm.rank, comm.ranks, &why); code != kSuccess)
        return comm.fail(code, why);
    Slot& slot = comm.slot(comm.rank);
    slot.host = this_host();
    driver().uuid(slot.gpu, comm.device);
    slot.state = kJoined;
    Header& header = *comm.segment.header;
    if (header.joined.fetch_add(1) + 1 == uint32_t(comm.ranks)) comm.segment.complete();
    Patience patience(comm);
    while (header.joined.load() < uint32_t(comm.ranks)) {
        if (!patience.pause()) return comm.state;
    }
    return check_gpus(comm);
}

void end(Comm& comm) {
    if (comm.left) return;
    comm.left = true;
    comm.segment.leave();
    comm.segment.close();
}

// On the caller's thread, or beside it where the communicator does not block.
int carry_out(const std::shared_ptr<Comm>& comm, std::function<int()> body) {
    if (comm->blocking) return body();
    comm->state = kInProgress;
    std::thread([comm, body = std::move(body)] {
        const int code = body();
        int expected = kInProgress;
        comm->state.compare_exchange_strong(expected, code);
    }).detach();
    return kInProgress;
}

int here(Comm& comm) {
    if (!driver().whole) return fprintf(stderr, "softgpu: NCCL WARN no CUDA driver\n"), kUnhandledCudaError;
    if (driver().context_get(&comm.context) != 0 || comm.context == nullptr) return kUnhandledCudaError;
    return driver().context_device(&comm.device) == 0 ? kSuccess : kUnhandledCudaError;
}

int init(void** out, int ranks, const UniqueId& id, int rank, const Config* config) {
    if (out == nullptr || ranks < 1 || ranks > kMaxRanks || rank < 0 || rank >= ranks)
        return invalid("ranks: 1 to 16, and one of them");
    *out = nullptr;
    if (in_group()) return fprintf(stderr, "softgpu: NCCL WARN init inside a group is not there\n"), kInvalidUsage;
    auto comm = std::make_shared<Comm>();
    comm->rank = rank;
    comm->ranks = ranks;
    if (const int code = here(*comm); code != kSuccess) return code;
    if (const int code = apply(config, *comm); code != kSuccess) return code;
    remember(comm);
    *out = comm.get();
    const auto& absent = faults().absent;
    const bool away = std::find(absent.begin(), absent.end(), rank) != absent.end();
    const int code = carry_out(comm, [comm, id, away] {
        while (away && !comm->aborted) usleep(1000);
        return away ? int(kInternalError) : join(*comm, id);
    });
    if (code != kSuccess && code != kInProgress) {
        forget(comm.get());
        end(*comm);
        *out = nullptr;
    }
    return code;
}

// Each says its colour; the first of a colour opens a new file; all learn its name and go there.
int divide_ranks(Comm& parent, Comm& child, int color, int key) {
    Slot& mine = parent.slot(parent.rank);
    mine.color = color;
    mine.key = key;
    if (!barrier(parent, &Slot::control, parent.control)) return parent.state;
    std::vector<std::pair<int, int>> members;  // key, rank
    for (int rank = 0; rank < parent.ranks; rank++) {
        if (parent.slot(rank).color == color) members.push_back({parent.slot(rank).key, rank});
    }
    std::stable_sort(members.begin(), members.end());
    const int leader = members[0].second;
    UniqueId id{};
    if (leader == parent.rank && color >= 0) {
        if (const int code = Segment::create(&id); code != kSuccess) return parent.fail(code, "no shared memory");
        memcpy(mine.next, id.internal, sizeof mine.next);
    }
    if (!barrier(parent, &Slot::control, parent.control)) return parent.state;
    memcpy(id.internal, parent.slot(leader).next, sizeof id.internal);
    if (!barrier(parent, &Slot::control, parent.control)) return parent.state;
    if (color < 0) return kSuccess;
    child.ranks = int(members.size());
    child.rank = int(std::find(members.begin(), members.end(), std::pair(key, parent.rank)) - members.begin());
    return join(child, id);
}

int split(void* handle, int color, int key, void** out, const Config* config) {
    if (out == nullptr) return invalid("no place for the new communicator");
    *out = nullptr;
    std::shared_ptr<Comm> parent;
    if (const int code = ready(handle, &parent); code != kSuccess) return code;
    if (color < -1) return invalid("a negative colour");
    auto child = std::make_shared<Comm>();
    child->blocking = parent->blocking;
    child->ctas = parent->ctas;
    child->context = parent->context;
    child->device = parent->device;
    if (const int code = apply(config, *child); code != kSuccess) return code;
    if (color >= 0) {
        remember(child);
        *out = child.get();
    }
    if (!parent->blocking) child->state = kInProgress;
    return carry_out(parent, [parent, child, color, key] {
        const int code = divide_ranks(*parent, *child, color, key);
        int expected = kInProgress;
        child->state.compare_exchange_strong(expected, code);
        return code;
    });
}

// What was asked for before is done before.
int flush(Comm& comm) {
    std::unique_lock lock(comm.mutex);
    comm.advanced.wait(lock, [&] { return comm.done >= comm.issued || comm.broken(); });
    return comm.broken() ? int(comm.state) : int(kSuccess);
}

int finalize(void* handle) {
    std::shared_ptr<Comm> comm;
    if (const int code = ready(handle, &comm); code != kSuccess) return code;
    comm->finalized = true;
    return carry_out(comm, [comm] { return flush(*comm); });
}

int destroy(void* handle) {
    const std::shared_ptr<Comm> comm = find_comm(handle);
    if (comm == nullptr) return kInvalidArgument;
    if (comm->state == kInProgress) return invalid("a communicator is destroyed before its last call has ended");
    const int code = comm->finalized ? int(kSuccess) : flush(*comm);
    forget(handle);
    end(*comm);
    return code;
}

int abort(void* handle) {
    const std::shared_ptr<Comm> comm = forget(handle);
    if (comm == nullptr) return kInvalidArgument;
    {
        std::lock_guard lock(comm->mutex);
        comm->aborted = true;
    }
    comm->advanced.notify_all();
    end(*comm);
    return kSuccess;
}

}  // namespace
}  // namespace softnccl

using namespace softnccl;

API ncclGetVersion(int* version) {
    if (version == nullptr) return kInvalidArgument;
    if (!faults().wrong.empty()) return kInvalidUsage;
    return *version = faults().version, kSuccess;
}

API ncclGetUniqueId(UniqueId* id) { return id == nullptr ? int(kInvalidArgument) : Segment::create(id); }

API ncclCommInitRankConfig(void** comm, int ranks, UniqueId id, int rank, const Config* config) {
    return init(comm, ranks, id, rank, config);
}
API ncclCommInitRank(void** comm, int ranks, UniqueId id, int rank) { return init(comm, ranks, id, rank, nullptr); }

API ncclCommSplit(void* comm, int color, int key, void** made, const Config* config) {
    return split(comm, color, key, made, config);
}
API ncclCommFinalize(void* comm) { return finalize(comm); }
API ncclCommDestroy(void* comm) { return destroy(comm); }
API ncclCommAbort(void* comm) { return softnccl::abort(comm); }

API ncclCommGetAsyncError(void* handle, int* state) {
    const std::shared_ptr<Comm> comm = find_comm(handle);
    if (comm == nullptr || state == nullptr) return kInvalidArgument;
    return *state = comm->state, kSuccess;
}

API ncclCommCount(void* handle, int* count) {
    const std::shared_ptr<Comm> comm = find_comm(handle);
    return comm == nullptr || count == nullptr ? kInvalidArgument : (*count = comm->ranks, kSuccess);
}
API ncclCommUserRank(void* handle, int* rank) {
    const std::shared_ptr<Comm> comm = find_comm(handle);
    return comm == nullptr || rank == nullptr ? kInvalidArgument : (*rank = comm->rank, kSuccess);
}
API ncclCommCuDevice(void* handle, int* device) {
    const std::shared_ptr<Comm> comm = find_comm(handle);
    return comm == nullptr || device == nullptr ? kInvalidArgument : (*device = comm->device, kSuccess);
}

extern "C" __attribute__((visibility("default"))) const char* ncclGetErrorString(int code) {
    static const char* const words[] = {"no error",
                                        "unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
                                        "unhandled system error (run with NCCL_DEBUG=INFO for details)",
                                        "internal error - please report this issue to the NCCL developers",
                                        "invalid argument (run with NCCL_DEBUG=WARN for details)",
                                        "invalid usage (run with NCCL_DEBUG=WARN for details)",
                                        "remote process exited or there was a network error",
                                        "NCCL operation in progress"};
    return code >= 0 && code <= kInProgress ? words[code] : "unknown result code";
}

extern "C" __attribute__((visibility("default"))) const char* ncclGetLastError(void* handle) {
    static thread_local std::string text;
    const std::shared_ptr<Comm> comm = find_comm(handle);
    if (comm == nullptr) return "";
    std::lock_guard lock(comm->mutex);
    return (text = comm->last_error).c_str();
}
