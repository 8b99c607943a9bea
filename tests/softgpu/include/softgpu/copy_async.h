// cp.async with its groups. The hardware may write any time between the issue and the wait; so here the destination is
// poisoned at the issue (who still reads the tile that lay there sees it) and written at the wait (who reads without a
// wait sees the poison).
#pragma once
#include <softgpu/cuda.h>

#include <deque>
#include <vector>

namespace softgpu {

struct PendingCopy {
    unsigned char* to;
    const void* from;
    size_t bytes;  // the rest of the sixteen is zero
};

// What a thread has under way; a block starts with nothing. `arrived` is what no proxy fence has followed yet.
struct Copies {
    uint64_t block = 0;
    std::vector<PendingCopy> open;
    std::deque<std::vector<PendingCopy>> groups;
    std::vector<const unsigned char*> arrived;
};

// Of the block's shared memory, by 16 bytes: written by a copy and not yet fenced by the thread that copied, so that
// the tensor cores need not see it (wgmma.h).
struct Unfenced {
    static constexpr size_t kUnits = (256 << 10) / 16;
    uint64_t block = 0;
    std::vector<bool> units;

    static Unfenced& mine() {
        thread_local Unfenced all;
        if (all.block != block_number) {
            all.units.assign(kUnits, false);
            all.block = block_number;
        }
        return all;
    }
    void set(const unsigned char* at, bool value) {
        const size_t unit = size_t(at - dynamic_shared) / 16;
        if (unit < kUnits) units[unit] = value;
    }
};

inline Copies& my_copies() {
    thread_local std::vector<Copies> all(kMaxThreads);
    Copies& mine = all[linear_thread()];
    if (mine.block != block_number) {
        mine.open.clear();
        mine.groups.clear();
        mine.arrived.clear();
        mine.block = block_number;
    }
    return mine;
}

inline void copy_async(unsigned char* to, const void* from, size_t bytes, SOFTGPU_HERE) {
    check_aligned(to, 16, SOFTGPU_SITE);
    check_aligned(from, 16, SOFTGPU_SITE);
    memset(to, 0xff, 16);
    my_copies().open.push_back({to, from, bytes});
}

inline void copy_commit() {
    Copies& mine = my_copies();
    mine.groups.push_back(std::move(mine.open));
    mine.open.clear();
}

inline void copy_wait(size_t under_way) {
    Copies& mine = my_copies();
    while (mine.groups.size() > under_way) {
        for (const PendingCopy& copy : mine.groups.front()) {
            memcpy(copy.to, copy.from, copy.bytes);
            memset(copy.to + copy.bytes, 0, 16 - copy.bytes);
            Unfenced::mine().set(copy.to, true);
            mine.arrived.push_back(copy.to);
        }
        mine.groups.pop_front();
    }
}

// fence.proxy.async: what this thread has copied may now be read by the tensor cores, once a barrier lies between.
inline void fence_async() {
    Copies& mine = my_copies();
    for (const unsigned char* at : mine.arrived) Unfenced::mine().set(at, false);
    mine.arrived.clear();
}

}  // namespace softgpu
