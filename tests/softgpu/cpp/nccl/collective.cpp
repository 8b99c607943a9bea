// Collectives: chunk by chunk, each rank lays its part out in shared memory, all meet, each takes what is its own, all meet
// again. Sums are made in the order of the ranks, rounded at each step, so that every rank has the same.
#include <algorithm>
#include <cstring>

#include "nccl.h"

namespace softnccl {
namespace {

class Run {
  public:
    Run(Comm& comm, const Operation& operation) : comm_(comm), op_(operation), size_(bytes_of(operation.type)) {}

    // The chunk `from .. from + count` of the input is laid out by `gives`, and taken by the ranks that `take` is called on.
    template <class Take> bool chunk(bool gives, const unsigned char* input, size_t count, Take take) {
        if (gives) memcpy(stage(comm_.rank), input, count * size_);
        if (!meet() || !agree()) return false;
        take(count);
        return meet();
    }

    bool all_reduce(bool takes) {
        return pieces(op_.count, [&](size_t from, size_t count) {
            return chunk(true, op_.input + from * size_, count, [&](size_t n) {
                if (takes) reduce(op_.output + from * size_, n);
            });
        });
    }

    bool reduce_scatter() {
        for (int part = 0; part < comm_.ranks; part++) {
            const unsigned char* input = op_.input + size_t(part) * op_.bytes();
            const bool ended = pieces(op_.count, [&](size_t from, size_t count) {
                return chunk(true, input + from * size_, count, [&](size_t n) {
                    if (part == comm_.rank) reduce(op_.output + from * size_, n);
                });
            });
            if (!ended) return false;
        }
        return true;
    }

    bool all_gather() {
        return pieces(op_.count, [&](size_t from, size_t count) {
            return chunk(true, op_.input + from * size_, count, [&](size_t n) {
                for (int rank = 0; rank < comm_.ranks; rank++)
                    memcpy(op_.output + size_t(rank) * op_.bytes() + from * size_, stage(rank), n * size_);
            });
        });
    }

    bool all_to_all() {
        for (int part = 0; part < comm_.ranks; part++) {
            const unsigned char* input = op_.input + size_t(part) * op_.bytes();
            const bool ended = pieces(op_.count, [&](size_t from, size_t count) {
                return chunk(true, input + from * size_, count, [&](size_t n) {
                    if (part != comm_.rank) return;
                    for (int rank = 0; rank < comm_.ranks; rank++)
                        memcpy(op_.output + size_t(rank) * op_.bytes() + from * size_, stage(rank), n * size_);
                });
            });
            if (!ended) return false;
        }
        return true;
    }

    bool broadcast() {
        return pieces(op_.count, [&](size_t from, size_t count) {
            return chunk(comm_.rank == op_.peer, op_.input + from * size_, count,
                         [&](size_t n) { memcpy(op_.output + from * size_, stage(op_.peer), n * size_); });
        });
    }

    void say() {
        comm_.slot(comm_.rank).call = {op_.kind, op_.type, op_.reduction, op_.peer, op_.count};
    }

  private:
    unsigned char* stage(int rank) { return comm_.segment.header->stage[rank]; }
    bool meet() { return barrier(comm_, &Slot::phase, comm_.phase); }

    template <class Body> bool pieces(size_t count, Body body) {
        const size_t most = kStageBytes / size_;
        for (size_t from = 0; from < count; from += most) {
            if (!body(from, std::min(most, count - from))) return false;
        }
        return true;
    }

    // Looked at with the first chunk, before anything is taken.
    bool agree() {
        if (agreed_) return true;
        const Call& mine = comm_.slot(comm_.rank).call;
        for (int rank = 0; rank < comm_.ranks; rank++) {
            if (comm_.slot(rank).call == mine) continue;
            const Call& other = comm_.slot(rank).call;
            comm_.fail(kInvalidUsage, describe(mine) + " here, " + describe(other) + " on rank " + std::to_string(rank));
            return false;
        }
        return agreed_ = true;
    }

    static std::string describe(const Call& call) {
        return std::string(name_of(Kind(call.kind))) + " of " + std::to_string(call.count) + " elements of type " +
               std::to_string(call.type) + ", reduction " + std::to_string(call.reduction) + ", root " +
               std::to_string(call.root);
    }

    void reduce(unsigned char* output, size_t count) {
        memcpy(output, stage(0), count * size_);
        for (int rank = 1; rank < comm_.ranks; rank++) combine(output, stage(rank), count, op_.type, op_.reduction);
        if (op_.reduction == kAvg) divide(output, count, op_.type, comm_.ranks);
    }

    Comm& comm_;
    const Operation& op_;
    size_t size_;
    bool agreed_ = false;
};

}  // namespace

const char* name_of(Kind kind) {
    static const char* const names[] = {"AllReduce",     "Reduce",   "Broadcast", "AllGather",
                                        "ReduceScatter", "AlltoAll", "Send",      "Recv"};
    return names[kind];
}

bool run_collective(Comm& comm, const Operation& operation) {
    Run run(comm, operation);
    run.say();
    switch (operation.kind) {
        case kAllReduce:
            return run.all_reduce(true);
        case kReduce:
            return run.all_reduce(comm.rank == operation.peer);
        case kBroadcast:
            return run.broadcast();
        case kAllGather:
            return run.all_gather();
        case kReduceScatter:
            return run.reduce_scatter();
        default:
            return run.all_to_all();
    }
}

}  // namespace softnccl
