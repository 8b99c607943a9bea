// Pressure: kernels that load exactly one resource of a GPU, with a dial. What a main suffers beside one of them says how
// sensitive it is to that resource. Launched by src/ops/cuda/pressure.rs; the host's own are in src/corun/pressure.rs.
//
// All take   progress, stop, slices, rounds, percent, sink   and where they walk through memory   data, vectors   last.
//   A block does `slices` slices of `rounds` rounds each, or fewer once *stop is not 0. After each slice progress[block]
//   grows by one (it counts on over launches) and the block rests until its work was `percent` of the time: the dial of
//   time. The dial of space is the grid: blocks lie on as many SMs as there are blocks, one on each, up to their number.
//   progress and stop: mapped host memory. sink[block·threads + thread]: a checksum of what the thread computed, exact and
//   the same in every run; it keeps the compiler from dropping the work, and tests hold it against the sum done by hand.
//
//   kernel            a round of a block, threads               bound by                      one H200 (132 SMs), expected
//   pressure_tensor   8 warps × 8 mma m16n8k16 bf16, 256        tensor pipe, mma.sync         600 TFLOP/s (wgmma reaches 990)
//   pressure_fma      8 chains of fmaf a thread, 256            FMA pipe (and issue slots)    67 TFLOP/s
//   pressure_memory   64 KB: x ← 1664525·x + 1013904223, 512    DRAM, both ways; > 2× L2      4.3 TB/s
//   pressure_cache    32 KB read past L1, 512                   L2 at that working set        5.5 TB/s below 30 MB or so
//   pressure_shared   8 loads of 16 bytes a thread, 256         shared memory, no conflicts   128 B a cycle an SM: 33 TB/s
//   pressure_issue    4 × {multiply-add, xor, add, fmaf},       issue slots: two pipes half   4 warp instructions a cycle
//                     256                                       full, one instruction a cycle an SM: 1.0e12/s
// The rates are the hardware's by its data sheet and by arithmetic; none of these kernels has been measured.
//
// data (memory, cache): `vectors` of 16 bytes, a multiple of 2048 (a tile: 512 threads × 4 vectors), at least one tile a
// block; memory reads and writes it, each tile only by one block, so that nothing races; cache only reads.
// Random integers throughout: operands that hardly toggle draw less power and run at higher clocks.
// Registers and shared memory are no limit: one block an SM is meant. No spills, no local memory.
#include "mma.cuh"
#include "timer.cuh"

namespace bubblebench {

constexpr int kComputeThreads = 256, kStreamThreads = 512;
constexpr int kMmaChains = 8, kFmaChains = 8, kIssueChains = 4, kSharedLoads = 8;
// Vectors of 16 bytes a thread has in flight, and of a block's tile.
constexpr int kFlight = 4;
constexpr int kTile = kStreamThreads * kFlight;
// Every vector a load may reach: the loads' own stride, and the way the base walks.
constexpr int kSharedVectors = kSharedLoads * kComputeThreads + kComputeThreads;
constexpr uint32_t kMultiplier = 1664525u, kIncrement = 1013904223u;  // Knuth, TAOCP 2, §3.3.4 table 1, line 16

// Well-mixed bits of a small number (the finaliser of MurmurHash3).
__device__ __forceinline__ uint32_t mixed(uint32_t x) {
    x = (x ^ x >> 16) * 0x85ebca6bu;
    x = (x ^ x >> 13) * 0xc2b2ae35u;
    return x ^ x >> 16;
}

__device__ __forceinline__ uint32_t float_as_bits(float v) { return uint32_t(__float_as_int(v)); }

// Sum modulo 2³² of a vector's words.
__device__ __forceinline__ uint32_t folded(uint4 v) { return v.x + v.y + v.z + v.w; }

struct Dial {
    uint64_t* progress;
    const uint32_t* stop;
    int slices, rounds, percent;
};

// Calls work(k) for the k-th slice this block does, counted on over launches.
template <class Work> __device__ __forceinline__ void sliced(const Dial& dial, Work work) {
    const uint64_t before = dial.progress[blockIdx.x];
    for (int slice = 0; slice < dial.slices; slice++) {
        const uint64_t begin = global_ns();
        work(before + slice);
        __syncthreads();  // the slice ends with its slowest warp
        bool stop = false;
        if (threadIdx.x == 0) {
            write_outside(dial.progress + blockIdx.x, before + slice + 1);
            const uint64_t took = global_ns() - begin, whole = took * 100 / uint64_t(dial.percent);
            while (global_ns() - begin < whole) nap(unsigned(min(whole - took, uint64_t(100000))));
            stop = read_outside(dial.stop) != 0;
        }
        if (__syncthreads_or(stop)) return;
    }
}

// A constant the compiler cannot see through: it would fold several rounds of x ← a·x + b into one.
__device__ __forceinline__ uint32_t opaque(const Dial& dial, uint32_t constant) {
    return constant + uint32_t(dial.percent > 100);
}

__device__ __forceinline__ void leave(uint32_t* sink, uint32_t checksum) {
    sink[size_t(blockIdx.x) * blockDim.x + threadIdx.x] = checksum;
}

// --- compute -------------------------------------------------------------------------------------------------------

// Two integers from −8 to 7.
__device__ __forceinline__ uint32_t small_pair(uint32_t seed) {
    const uint32_t bits = mixed(seed);
    return pack_pair<bf16>(float(int(bits & 15) - 8), float(int(bits >> 8 & 15) - 8));
}

// d_c += a_{c mod 2}·b_{c div 2}: eight chains, every sum an integer below 2²⁴ for up to 16384 rounds, so exact.
__device__ __forceinline__ void pressure_tensor(const Dial& dial, uint32_t* sink) {
    const uint32_t lane = threadIdx.x % kWarp;
    uint32_t a[2][4], b[kMmaChains / 2][2], checksum = 0;
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) a[i / 4][i % 4] = small_pair(lane * 64 + i);
#pragma unroll
    for (uint32_t i = 0; i < kMmaChains; i++) b[i / 2][i % 2] = small_pair(lane * 64 + 32 + i);
    sliced(dial, [&](uint64_t) {
        float d[kMmaChains][4] = {};
        for (int round = 0; round < dial.rounds; round++) {
#pragma unroll
            for (int c = 0; c < kMmaChains; c++) mma_16816<bf16>(d[c], a[c % 2], b[c / 2][0], b[c / 2][1]);
        }
#pragma unroll
        for (int c = 0; c < kMmaChains; c++) {
#pragma unroll
            for (int i = 0; i < 4; i++) checksum += uint32_t(int(d[c][i]));
        }
    });
    leave(sink, checksum);
}

// x ← 1 − 0.99999·x swings between x and 1 − x, so that operands keep toggling; it starts anew each slice.
__device__ __forceinline__ void pressure_fma(const Dial& dial, uint32_t* sink) {
    uint32_t checksum = 0;
    sliced(dial, [&](uint64_t) {
        float x[kFmaChains];
#pragma unroll
        for (int c = 0; c < kFmaChains; c++) x[c] = float(mixed(threadIdx.x * kFmaChains + c) >> 8) * 0x1p-24f;
        for (int round = 0; round < dial.rounds; round++) {
#pragma unroll
            for (int c = 0; c < kFmaChains; c++) x[c] = fmaf(x[c], -0.99999f, 1.0f);
        }
#pragma unroll
        for (int c = 0; c < kFmaChains; c++) checksum += float_as_bits(x[c]);
    });
    leave(sink, checksum);
}

// A multiply-add of integers, an xor, an addition and an fmaf a chain: the arithmetic-logic pipe takes half of them and is
// full at two cycles each, the FMA pipe the other half; together they ask for an instruction each cycle.
__device__ __forceinline__ void pressure_issue(const Dial& dial, uint32_t* sink) {
    const uint32_t multiplier = opaque(dial, kMultiplier), increment = opaque(dial, kIncrement);
    uint32_t checksum = 0;
    sliced(dial, [&](uint64_t) {
        uint32_t x[kIssueChains], y[kIssueChains];
        float z[kIssueChains];
#pragma unroll
        for (int c = 0; c < kIssueChains; c++) {
            x[c] = mixed(threadIdx.x * kIssueChains + c);
            y[c] = ~x[c];
            z[c] = float(x[c] >> 8) * 0x1p-24f;
        }
        for (int round = 0; round < dial.rounds; round++) {
#pragma unroll
            for (int c = 0; c < kIssueChains; c++) {
                x[c] = x[c] * multiplier + increment;
                y[c] = (y[c] ^ multiplier) + increment;
                z[c] = fmaf(z[c], -0.99999f, 1.0f);
            }
        }
#pragma unroll
        for (int c = 0; c < kIssueChains; c++) checksum += x[c] + y[c] + float_as_bits(z[c]);
    });
    leave(sink, checksum);
}

// Eight lanes read 128 bytes in a row, all 32 banks once; the base walks with the round, so that no load is the last one's.
__device__ __forceinline__ void pressure_shared(const Dial& dial, uint32_t* sink) {
    __shared__ uint4 words[kSharedVectors];
    for (uint32_t i = threadIdx.x; i < uint32_t(kSharedVectors); i += blockDim.x) {
        words[i] = make_uint4(mixed(4 * i), mixed(4 * i + 1), mixed(4 * i + 2), mixed(4 * i + 3));
    }
    __syncthreads();
    uint4 sum = make_uint4(0, 0, 0, 0);
    sliced(dial, [&](uint64_t) {
        for (int round = 0; round < dial.rounds; round++) {
            const uint4* base = words + threadIdx.x + (round * kWarp & (kComputeThreads - 1));
#pragma unroll
            for (int k = 0; k < kSharedLoads; k++) {
                const uint4 v = base[k * kComputeThreads];
                sum = make_uint4(sum.x + v.x, sum.y + v.y, sum.z + v.z, sum.w + v.w);
            }
        }
    });
    leave(sink, folded(sum));
}

// --- memory --------------------------------------------------------------------------------------------------------

// This block's tiles are block, block + grid, …; it goes round them for ever, and no other block writes them.
__device__ __forceinline__ void pressure_memory(const Dial& dial, uint32_t* sink, uint4* data, uint64_t vectors) {
    const uint64_t own = vectors / kTile / gridDim.x;
    uint32_t checksum = 0;
    sliced(dial, [&](uint64_t slice) {
        uint64_t visit = slice * uint64_t(dial.rounds) % own;
        for (int round = 0; round < dial.rounds; round++) {
            uint4* tile = data + (visit * gridDim.x + blockIdx.x) * kTile + threadIdx.x;
            uint4 v[kFlight];
#pragma unroll
            for (int i = 0; i < kFlight; i++) v[i] = tile[i * kStreamThreads];
#pragma unroll
            for (int i = 0; i < kFlight; i++) {
                v[i] = make_uint4(v[i].x * kMultiplier + kIncrement, v[i].y * kMultiplier + kIncrement,
                                  v[i].z * kMultiplier + kIncrement, v[i].w * kMultiplier + kIncrement);
                tile[i * kStreamThreads] = v[i];
                checksum += folded(v[i]);
            }
            visit = visit + 1 == own ? 0 : visit + 1;
        }
    });
    leave(sink, checksum);
}

// Every block walks through the whole working set, each from a place of its own.
__device__ __forceinline__ void pressure_cache(const Dial& dial, uint32_t* sink, const uint4* data, uint64_t vectors) {
    const uint64_t tiles = vectors / kTile;
    uint4 sum = make_uint4(0, 0, 0, 0);
    sliced(dial, [&](uint64_t slice) {
        uint64_t visit = (slice * uint64_t(dial.rounds) + blockIdx.x * tiles / gridDim.x) % tiles;
        for (int round = 0; round < dial.rounds; round++) {
            const uint4* tile = data + visit * kTile + threadIdx.x;
            uint4 v[kFlight];
#pragma unroll
            for (int i = 0; i < kFlight; i++) v[i] = __ldcg(tile + i * kStreamThreads);
#pragma unroll
            for (int i = 0; i < kFlight; i++) {
                sum = make_uint4(sum.x + v[i].x, sum.y + v[i].y, sum.z + v[i].z, sum.w + v[i].w);
            }
            visit = visit + 1 == tiles ? 0 : visit + 1;
        }
    });
    leave(sink, folded(sum));
}

}  // namespace bubblebench

#define PRESSURE(name, threads)                                                                                    \
    BUBBLEBENCH_KERNEL(threads, pressure_##name, uint64_t* progress, const uint32_t* stop, int slices, int rounds, \
                       int percent, uint32_t* sink) {                                                              \
        bubblebench::pressure_##name({progress, stop, slices, rounds, percent}, sink);                             \
    }
#define PRESSURE_ON_MEMORY(name, constness)                                                                        \
    BUBBLEBENCH_KERNEL(512, pressure_##name, uint64_t* progress, const uint32_t* stop, int slices, int rounds,     \
                       int percent, uint32_t* sink, constness uint4* data, uint64_t vectors) {                     \
        bubblebench::pressure_##name({progress, stop, slices, rounds, percent}, sink, data, vectors);              \
    }

PRESSURE(tensor, 256)
PRESSURE(fma, 256)
PRESSURE(issue, 256)
PRESSURE(shared, 256)
PRESSURE_ON_MEMORY(memory, )
PRESSURE_ON_MEMORY(cache, const)
