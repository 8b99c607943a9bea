// The operations, groups of them, and buffers: each call is checked here, as strictly as can be.
#include <algorithm>
#include <cstdio>

#include "api.h"
#include "nccl.h"

namespace softnccl {
namespace {

struct Asked {
    std::shared_ptr<Comm> comm;
    void* stream;
    Operation operation;
};

struct Group {
    int depth = 0;
    int failed = kSuccess;
    std::vector<Asked> asked;
};
thread_local Group group;

int refuse(int code, Kind kind, const char* why) {
    fprintf(stderr, "softgpu: NCCL WARN %s: %s\n", name_of(kind), why);
    return code;
}

// The whole buffer lies in one allocation of the communicator's GPU.
bool reachable(const Comm& comm, const void* at, size_t bytes) {
    const auto address = reinterpret_cast<uint64_t>(at);
    uint64_t base = 0;
    size_t length = 0;
    if (address == 0 || driver().range(&base, &length, address) != 0) return false;
    constexpr int kDeviceOrdinal = 9;
    int device = -1;
    if (driver().pointer(&device, kDeviceOrdinal, address) == 0 && device != comm.device) return false;
    return bytes <= length && address - base <= length - bytes;
}

// Bytes that the operation reads and writes on this rank.
std::pair<size_t, size_t> reach(const Comm& comm, const Operation& op) {
    const size_t one = op.bytes(), all = one * size_t(comm.ranks);
    switch (op.kind) {
        case kAllGather:
            return {one, all};
        case kReduceScatter:
            return {all, one};
        case kAllToAll:
            return {all, all};
        case kReduce:
            return {one, comm.rank == op.peer ? one : 0};
        case kBroadcast:
            return {comm.rank == op.peer ? one : 0, one};
        case kSend:
            return {one, 0};
        case kReceive:
            return {0, one};
        default:
            return {one, one};
    }
}

int check(const Comm& comm, void* stream, const Operation& op) {
    if (op.type < 0 || op.type >= kTypes) return refuse(kInvalidArgument, op.kind, "no such type");
    if (op.reduction < 0 || op.reduction >= kReductions) return refuse(kInvalidArgument, op.kind, "no such reduction");
    if (op.peer < 0 || op.peer >= comm.ranks) return refuse(kInvalidArgument, op.kind, "no such rank");
    const bool reduces = op.kind == kAllReduce || op.kind == kReduce || op.kind == kReduceScatter;
    int major = 0;
    constexpr int kMajor = 75;
    if (reduces && is_float8(op.type) && (driver().attribute(&major, kMajor, comm.device) != 0 || major < 9))
        return refuse(kInvalidArgument, op.kind, "float8 is reduced from sm90 on");
    if (op.count == 0) return kSuccess;
    const auto [reads, writes] = reach(comm, op);
    if (reads > 0 && !reachable(comm, op.input, reads))
        return refuse(kInvalidArgument, op.kind, "the input is not all in one allocation of this GPU");
    if (writes > 0 && !reachable(comm, op.output, writes))
        return refuse(kInvalidArgument, op.kind, "the output is not all in one allocation of this GPU");
    void* context = nullptr;
    Current current(comm.context);
    if (driver().stream_context(stream, &context) != 0 || context != comm.context)
        return refuse(kInvalidArgument, op.kind, "the stream is another GPU's");
    return kSuccess;
}

// A message to oneself needs its other half in the same group.
int check_own_messages() {
    for (const Asked& one : group.asked) {
        if (one.operation.kind < kSend || one.operation.peer != one.comm->rank) continue;
        auto count = [&](Kind kind) {
            return std::count_if(group.asked.begin(), group.asked.end(), [&](const Asked& other) {
                return other.comm == one.comm && other.operation.kind == kind && other.operation.peer == one.comm->rank;
            });
        };
        if (count(kSend) != count(kReceive))
            return refuse(kInvalidUsage, one.operation.kind, "a message to oneself without its other half");
    }
    return kSuccess;
}

int launch_all() {
    if (const int code = check_own_messages(); code != kSuccess) return code;
    int answer = kSuccess;
    while (!group.asked.empty()) {
        auto plan = std::make_unique<Plan>();
        plan->comm = group.asked.front().comm;
        plan->stream = group.asked.front().stream;
        auto rest = std::vector<Asked>();
        for (Asked& asked : group.asked) {
            if (asked.comm != plan->comm) {
                rest.push_back(std::move(asked));
                continue;
            }
            if (asked.stream != plan->stream)
                return refuse(kInvalidUsage, asked.operation.kind, "two streams in one group are not there");
            plan->operations.push_back(asked.operation);
        }
        group.asked = std::move(rest);
        const int code = launch(std::move(plan));
        if (code != kSuccess && (answer == kSuccess || answer == kInProgress)) answer = code;
    }
    return answer;
}

int end_group() {
    if (group.depth == 0) return fprintf(stderr, "softgpu: NCCL WARN a group ends that never began\n"), kInvalidUsage;
    if (--group.depth > 0) return kSuccess;
    const int failed = group.failed;
    const int code = failed == kSuccess ? launch_all() : failed;
    group.asked.clear();
    group.failed = kSuccess;
    return code;
}

bool refused_on_purpose(Comm& comm) {
    const uint64_t number = ++comm.asked;
    return std::any_of(faults().list.begin(), faults().list.end(), [&](const Fault& fault) {
        return fault.what == Fault::kRefuse && fault.rank == comm.rank && fault.number == number;
    });
}

int ask(void* handle, void* stream, const Operation& operation) {
    std::shared_ptr<Comm> comm;
    int code = ready(handle, &comm);
    if (code == kSuccess) code = check(*comm, stream, operation);
    if (code == kSuccess && refused_on_purpose(*comm)) code = comm->fail(kSystemError, "a refusal on purpose (SOFTGPU_NCCL)");
    if (code != kSuccess) {
        if (group.depth > 0) group.failed = code;
        return code;
    }
    // Nothing to do, and no rank waits for it.
    if (operation.count == 0 && operation.kind < kSend) return kSuccess;
    group.depth++;
    group.asked.push_back({comm, stream, operation});
    const int ended = end_group();
    return ended;
}

Operation operation(Kind kind, const void* input, void* output, size_t count, int type, int reduction, int peer) {
    return {kind, static_cast<const unsigned char*>(input), static_cast<unsigned char*>(output), count, type, reduction,
            peer};
}

// A registration is a handle of the communicator's own.
int give_handle(void* handle, const void* buffer, size_t bytes, void** out) {
    std::shared_ptr<Comm> comm;
    if (const int code = ready(handle, &comm); code != kSuccess) return code;
    if (out == nullptr || bytes == 0 || !reachable(*comm, buffer, bytes)) return kInvalidArgument;
    std::lock_guard lock(comm->mutex);
    *out = new char;
    comm->handles.insert(*out);
    return kSuccess;
}

int take_handle(void* handle, void* registered) {
    std::shared_ptr<Comm> comm = find_comm(handle);
    if (comm == nullptr) return kInvalidArgument;
    std::lock_guard lock(comm->mutex);
    if (comm->handles.erase(registered) == 0) return kInvalidArgument;
    delete static_cast<char*>(registered);
    return kSuccess;
}

}  // namespace

bool in_group() { return group.depth > 0; }

}  // namespace softnccl

using namespace softnccl;

API ncclGroupStart() { return group.depth++, kSuccess; }
API ncclGroupEnd() { return end_group(); }

API ncclAllReduce(const void* in, void* out, size_t count, int type, int reduction, void* comm, void* stream) {
    return ask(comm, stream, operation(kAllReduce, in, out, count, type, reduction, 0));
}
API ncclReduce(const void* in, void* out, size_t count, int type, int reduction, int root, void* comm, void* stream) {
    return ask(comm, stream, operation(kReduce, in, out, count, type, reduction, root));
}
API ncclBroadcast(const void* in, void* out, size_t count, int type, int root, void* comm, void* stream) {
    return ask(comm, stream, operation(kBroadcast, in, out, count, type, kSum, root));
}
API ncclAllGather(const void* in, void* out, size_t count, int type, void* comm, void* stream) {
    return ask(comm, stream, operation(kAllGather, in, out, count, type, kSum, 0));
}
API ncclReduceScatter(const void* in, void* out, size_t count, int type, int reduction, void* comm, void* stream) {
    return ask(comm, stream, operation(kReduceScatter, in, out, count, type, reduction, 0));
}
API ncclAlltoAll(const void* in, void* out, size_t count, int type, void* comm, void* stream) {
    return ask(comm, stream, operation(kAllToAll, in, out, count, type, kSum, 0));
}
API ncclSend(const void* in, size_t count, int type, int peer, void* comm, void* stream) {
    return ask(comm, stream, operation(kSend, in, nullptr, count, type, kSum, peer));
}
API ncclRecv(void* out, size_t count, int type, int peer, void* comm, void* stream) {
    return ask(comm, stream, operation(kReceive, nullptr, out, count, type, kSum, peer));
}

API ncclMemAlloc(void** pointer, size_t bytes) {
    uint64_t address = 0;
    if (pointer == nullptr || !driver().whole) return kInvalidArgument;
    if (driver().allocate(&address, bytes) != 0) return kUnhandledCudaError;
    return *pointer = reinterpret_cast<void*>(address), kSuccess;
}
API ncclMemFree(void* pointer) {
    return driver().release(reinterpret_cast<uint64_t>(pointer)) == 0 ? kSuccess : kUnhandledCudaError;
}
API ncclCommRegister(void* comm, void* buffer, size_t bytes, void** handle) {
    return give_handle(comm, buffer, bytes, handle);
}
API ncclCommDeregister(void* comm, void* handle) { return take_handle(comm, handle); }
