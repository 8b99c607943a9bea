// Sends and receives of one group, all making progress at the same time. A message is a head that says what it is, then its
// bytes; a receiver that wants something else is an error on both sides, where the real library would mix up memory.
#include <algorithm>
#include <cstring>

#include "nccl.h"

namespace softnccl {
namespace {

struct Head {
    uint64_t count;
    uint32_t type, pad;
};

void put(Ring& ring, uint64_t at, const void* from, size_t bytes) {
    const size_t place = at % kRingBytes, first = std::min(bytes, kRingBytes - place);
    memcpy(ring.bytes + place, from, first);
    memcpy(ring.bytes, static_cast<const unsigned char*>(from) + first, bytes - first);
}

void take(const Ring& ring, uint64_t at, void* to, size_t bytes) {
    const size_t place = at % kRingBytes, first = std::min(bytes, kRingBytes - place);
    memcpy(to, ring.bytes + place, first);
    memcpy(static_cast<unsigned char*>(to) + first, ring.bytes, bytes - first);
}

// One end of a message, as far as it has come.
class End {
  public:
    End(Comm& comm, const Operation& operation)
        : comm_(comm), op_(operation), bytes_(operation.bytes()), ring_(ring(comm, operation)) {}

    bool done() const { return headed_ && moved_ == bytes_; }
    bool sends() const { return op_.kind == kSend; }
    int peer() const { return op_.peer; }

    // True where anything moved.
    bool advance() { return sends() ? give() : get(); }
    bool refused() const { return ring_.refused != 0; }

  private:
    static Ring& ring(Comm& comm, const Operation& operation) {
        auto& all = comm.segment.header->rings;
        return operation.kind == kSend ? all[comm.rank][operation.peer] : all[operation.peer][comm.rank];
    }

    bool give() {
        uint64_t at = ring_.written.load(std::memory_order_relaxed);
        size_t room = kRingBytes - size_t(at - ring_.read.load(std::memory_order_acquire));
        bool any = false;
        if (!headed_) {
            const Head head{op_.count, uint32_t(op_.type), 0};
            if (room < sizeof head) return false;
            put(ring_, at, &head, sizeof head);
            at += sizeof head, room -= sizeof head;
            headed_ = any = true;
        }
        const size_t piece = std::min(room, bytes_ - moved_);
        if (piece > 0) {
            put(ring_, at, op_.input + moved_, piece);
            at += piece, moved_ += piece;
            any = true;
        }
        if (any) ring_.written.store(at, std::memory_order_release);
        return any;
    }

    bool get() {
        uint64_t at = ring_.read.load(std::memory_order_relaxed);
        size_t there = size_t(ring_.written.load(std::memory_order_acquire) - at);
        bool any = false;
        if (!headed_) {
            Head head;
            if (there < sizeof head) return false;
            take(ring_, at, &head, sizeof head);
            if (head.count != op_.count || head.type != uint32_t(op_.type)) return refuse(head);
            at += sizeof head, there -= sizeof head;
            headed_ = any = true;
        }
        const size_t piece = std::min(there, bytes_ - moved_);
        if (piece > 0) {
            take(ring_, at, op_.output + moved_, piece);
            at += piece, moved_ += piece;
            any = true;
        }
        if (any) ring_.read.store(at, std::memory_order_release);
        return any;
    }

    bool refuse(const Head& head) {
        ring_.refused = 1;
        comm_.fail(kInvalidUsage, "rank " + std::to_string(op_.peer) + " sends " + std::to_string(head.count) +
                                      " elements of type " + std::to_string(head.type) + ", " +
                                      std::to_string(op_.count) + " of type " + std::to_string(op_.type) +
                                      " are received");
        return false;
    }

    Comm& comm_;
    const Operation& op_;
    size_t bytes_, moved_ = 0;
    bool headed_ = false;
    Ring& ring_;
};

// The first of them that is not done, of each peer and direction: messages between two ranks keep their order.
bool advance_all(std::vector<End>& ends) {
    bool any = false;
    std::set<std::pair<int, bool>> busy;
    for (End& end : ends) {
        if (end.done() || !busy.insert({end.peer(), end.sends()}).second) continue;
        while (!end.done() && end.advance()) any = true;
    }
    return any;
}

}  // namespace

bool run_messages(Comm& comm, const std::vector<Operation>& operations) {
    std::vector<End> ends;
    for (const Operation& operation : operations) ends.emplace_back(comm, operation);
    auto left = [&] { return std::any_of(ends.begin(), ends.end(), [](const End& end) { return !end.done(); }); };
    Patience patience(comm);
    while (left()) {
        if (advance_all(ends)) {
            patience.reset();
            continue;
        }
        for (const End& end : ends) {
            if (end.refused())
                comm.fail(kInvalidUsage, "rank " + std::to_string(end.peer()) + " refused a message");
        }
        if (!patience.pause()) return false;
    }
    return true;
}

}  // namespace softnccl
