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

// What a thread has under way; a block starts with nothing.
struct Copies {
    uint64_t block = 0;
    std::vector<PendingCopy> open;
    std::deque<std::vector<PendingCopy>> groups;
};

inline Copies& my_copies() {
    thread_local std::vector<Copies> all(kMaxThreads);
    Copies& mine = all[linear_thread()];
    if (mine.block != block_number) {
        mine.open.clear();
        mine.groups.clear();
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
        }
        mine.groups.pop_front();
    }
}

}  // namespace softgpu
