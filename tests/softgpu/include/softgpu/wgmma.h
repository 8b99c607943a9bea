// wgmma.mma_async.sync.aligned.m64nNk16.f32.{bf16,f16} with its left operand in registers, and its fence, groups and
// wait, as the PTX manual defines them ("Asynchronous warpgroup level matrix instructions").
//
// The hardware reads operands and writes results any time between issue and wait. So here the accumulators are poisoned
// at the issue, and operands are read at the wait: who touches either too early sees it in the result. The four warps
// of a warpgroup multiply at their own waits (a warp's rows need only its own registers, and B); that they issued the
// same products is checked. Errors, not results: registers touched without a fence, warps that disagree, a descriptor
// that is not one of a 128-byte swizzle, shared memory that was never written or that no proxy fence has followed.
#pragma once
#include <softgpu/copy_async.h>
#include <softgpu/mma.h>

#include <array>

namespace softgpu {

// The block's shared memory as 32-bit addresses: it begins behind a kilobyte the system keeps, and a swizzle, which
// goes by address, finds the same low bits as the pointer has.
constexpr uint32_t kWindowStart = 1024;
inline unsigned char* window_base() {
    return reinterpret_cast<unsigned char*>(reinterpret_cast<uintptr_t>(dynamic_shared) & ~uintptr_t(1023)) -
           kWindowStart;
}
inline uint32_t shared_window_address(const unsigned char* pointer) { return uint32_t(pointer - window_base()); }

// "Matrix descriptor": fields in units of 16 bytes.
struct MatrixDescriptor {
    uint32_t start, leading, stride;

    explicit MatrixDescriptor(uint64_t bits)
        : start(uint32_t(bits & 0x3fff) << 4),
          leading(uint32_t(bits >> 16 & 0x3fff) << 4),
          stride(uint32_t(bits >> 32 & 0x3fff) << 4) {
        if (bits >> 62 != 1) fail("wgmma: swizzle mode %u of the descriptor is not emulated", unsigned(bits >> 62));
        if (bits >> 49 & 7) fail("wgmma: a base offset is not emulated");
    }
    // Where row k, column n of B lies. K-major: eight n of one group are 128 bytes apart, groups the stride. N-major:
    // 64 n lie side by side and groups of them the leading offset apart; eight k are 128 bytes apart, groups the
    // stride.
    uint32_t address(bool by_n, unsigned k, unsigned n) const {
        const uint32_t linear = by_n ? start + n / 64 * leading + n % 64 * 2 + k % 8 * 128 + k / 8 * stride
                                     : start + n / 8 * stride + n % 8 * 128 + k * 2;
        return linear ^ (linear >> 7 & 7) << 4;
    }
};

struct WarpgroupProduct {
    float* d;
    const uint32_t* a;
    uint64_t descriptor;
    unsigned columns;
    bool by_n, accumulate;
    float (*element)(uint32_t bits);

    bool agrees(const WarpgroupProduct& other) const {
        return descriptor == other.descriptor && columns == other.columns && by_n == other.by_n &&
               accumulate == other.accumulate && element == other.element;
    }
};

// A thread's accumulators while products on them are under way.
struct Accumulator {
    float* registers;
    unsigned products;
    std::array<float, 128> values;  // columns / 2 of them
};

// What a thread has issued; a block starts with nothing.
struct WarpgroupProducts {
    uint64_t block = 0;
    bool fenced = false;
    unsigned done = 0;
    std::vector<WarpgroupProduct> open;
    std::deque<std::vector<WarpgroupProduct>> groups;
    std::vector<Accumulator> accumulators;

    static WarpgroupProducts& mine() {
        thread_local std::vector<WarpgroupProducts> all(kMaxThreads);
        WarpgroupProducts& mine = all[linear_thread()];
        if (mine.block != block_number) {
            mine = WarpgroupProducts{};
            mine.block = block_number;
        }
        return mine;
    }
    Accumulator* find(const float* registers) {
        for (Accumulator& a : accumulators) {
            if (a.registers == registers) return &a;
        }
        return nullptr;
    }
    // The last product's result is what the registers hold again.
    void release(Accumulator* a, unsigned count) {
        if (--a->products > 0) return;
        memcpy(a->registers, a->values.data(), count * sizeof(float));
        accumulators.erase(accumulators.begin() + (a - accumulators.data()));
    }
};

inline void wgmma_fence() { WarpgroupProducts::mine().fenced = true; }

inline void wgmma_commit() {
    WarpgroupProducts& mine = WarpgroupProducts::mine();
    mine.groups.push_back(std::move(mine.open));
    mine.open.clear();
}

template <class T, bool kByN, int TILES>
void wgmma(float (&d)[TILES][4], const uint32_t (&a)[4], uint64_t descriptor, bool accumulate) {
    WarpgroupProducts& mine = WarpgroupProducts::mine();
    if (!mine.fenced) fail("wgmma.mma_async: no wgmma.fence since its registers may have been touched");
    Accumulator* to = mine.find(&d[0][0]);
    if (to == nullptr) {
        mine.accumulators.push_back({&d[0][0], 0, {}});
        to = &mine.accumulators.back();
        memcpy(to->values.data(), d, sizeof d);
        memset(d, 0xff, sizeof d);
    }
    to->products++;
    mine.open.push_back(
        {&d[0][0], a, descriptor, TILES * 8, kByN, accumulate, [](uint32_t bits) { return mma_element(bits, T{}); }});
}

// The n-th product of a warp is that of the other warps of its warpgroup.
inline void check_warpgroup(unsigned warpgroup, unsigned number, const WarpgroupProduct& product) {
    struct Log {
        uint64_t block = 0;
        std::vector<WarpgroupProduct> products;
    };
    thread_local std::vector<Log> logs(kMaxThreads / 128);
    Log& log = logs[warpgroup];
    if (log.block != block_number) {
        log.products.clear();
        log.block = block_number;
    }
    if (number == log.products.size()) log.products.push_back(product);
    if (!log.products[number].agrees(product)) fail("wgmma.mma_async: the warps of the warpgroup do not agree");
}

// B as the descriptor has it, k rows of `columns`.
inline void load_right(const WarpgroupProduct& product, float (&b)[16][256]) {
    const MatrixDescriptor descriptor(product.descriptor);
    const Unfenced& unfenced = Unfenced::mine();
    for (unsigned k = 0; k < 16; k++) {
        for (unsigned n = 0; n < product.columns; n++) {
            const unsigned char* at = window_base() + descriptor.address(product.by_n, k, n);
            if (at < dynamic_shared || at >= dynamic_shared + dynamic_shared_bytes)
                fail("wgmma.mma_async reads beyond shared memory");
            const size_t unit = size_t(at - dynamic_shared) / 16;
            if (unfenced.units[unit]) fail("wgmma.mma_async reads what no fence.proxy.async has followed");
            uint16_t bits;
            memcpy(&bits, at, 2);
            b[k][n] = product.element(bits);
        }
    }
}

// One product of one warp: its sixteen rows.
inline void multiply_rows(WarpgroupProducts* (&lanes)[kWarp], size_t index) {
    const WarpgroupProduct& first = lanes[0]->groups.front()[index];
    static thread_local float b[16][256];
    load_right(first, b);
    float a[16][16];
    for (unsigned lane = 0; lane < kWarp; lane++) {
        const WarpgroupProduct& mine = lanes[lane]->groups.front()[index];
        if (!mine.agrees(first)) fail("wgmma.mma_async: lane %u does not agree with its warp", lane);
        for (unsigned i = 0; i < 4; i++) {
            float* to = &a[lane / 4 + i % 2 * 8][2 * (lane % 4) + i / 2 * 8];
            to[0] = first.element(mine.a[i] & 0xffff);
            to[1] = first.element(mine.a[i] >> 16);
        }
    }
    static thread_local float d[16][256];
    for (unsigned row = 0; row < 16; row++) {
        float* sums = d[row];
        for (unsigned n = 0; n < first.columns; n++) {
            const Accumulator& from =
                *lanes[row % 8 * 4 + n % 8 / 2]->find(lanes[row % 8 * 4 + n % 8 / 2]->groups.front()[index].d);
            sums[n] = first.accumulate ? from.values[n / 8 * 4 + row / 8 * 2 + n % 2] : 0.0f;
        }
        for (unsigned k = 0; k < 16; k++) {
            for (unsigned n = 0; n < first.columns; n++) sums[n] += a[row][k] * b[k][n];
        }
    }
    for (unsigned lane = 0; lane < kWarp; lane++) {
        Accumulator* to = lanes[lane]->find(lanes[lane]->groups.front()[index].d);
        for (unsigned i = 0; i < first.columns / 2; i++)
            to->values[i] = d[lane / 4 + i / 2 % 2 * 8][i / 4 * 8 + lane % 4 * 2 + i % 2];
        lanes[lane]->release(to, first.columns / 2);
    }
}

struct WarpgroupWait {
    WarpgroupProducts* products;
    size_t under_way;
    unsigned warpgroup;
};

inline void complete_groups(void* slots[kWarp]) {
    WarpgroupProducts* lanes[kWarp];
    for (unsigned lane = 0; lane < kWarp; lane++) {
        if (slots[lane] == nullptr) fail("wgmma.wait_group: lane %u of the warp is missing", lane);
        lanes[lane] = static_cast<WarpgroupWait*>(slots[lane])->products;
        if (lanes[lane]->groups.size() != lanes[0]->groups.size()) fail("wgmma: lane %u has other groups", lane);
    }
    while (lanes[0]->groups.size() > static_cast<WarpgroupWait*>(slots[0])->under_way) {
        const size_t count = lanes[0]->groups.front().size();
        for (WarpgroupProducts* lane : lanes) {
            if (lane->groups.front().size() != count) fail("wgmma: the lanes of a warp issued different products");
        }
        for (size_t i = 0; i < count; i++) {
            check_warpgroup(static_cast<WarpgroupWait*>(slots[0])->warpgroup, lanes[0]->done + unsigned(i),
                            lanes[0]->groups.front()[i]);
            multiply_rows(lanes, i);
        }
        for (WarpgroupProducts* lane : lanes) {
            lane->groups.pop_front();
            lane->done += unsigned(count);
        }
    }
}

inline void wgmma_wait(size_t under_way, Site site) {
    WarpgroupProducts& mine = WarpgroupProducts::mine();
    WarpgroupWait slot{&mine, under_way, linear_thread() / 128};
    warp_meet(site, ~0u, complete_groups, &slot);
    mine.fenced = false;
}

}  // namespace softgpu
