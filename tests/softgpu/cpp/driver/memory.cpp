// Device memory is host memory between red zones of ones, fresh memory all ones (NaN to a kernel); what was freed stays
// reserved and out of reach for a while, so that a late access is caught. Pinned memory is the same, without a device.
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "driver.h"

namespace softgpu {
namespace {

constexpr size_t kPage = 4096;
// Allocations are aligned to 256 bytes, as the driver promises, and to no more.
constexpr size_t kBefore = kPage + 256;
constexpr size_t kGrain = 512;
constexpr size_t kRemembered = 4096;  // freed allocations

struct Block {
    Allocation allocation;
    unsigned char* mapping;
    size_t mapped;

    unsigned char* data() const { return reinterpret_cast<unsigned char*>(allocation.start); }
    unsigned char* first() const { return mapping + kPage; }
    unsigned char* last() const { return mapping + mapped - kPage; }
};

struct Memory {
    std::mutex mutex;
    std::map<Address, Block> blocks;  // by start
    std::deque<Address> freed;
    std::map<int, size_t> used;
    uint64_t allocations = 0;
};

Memory& memory() {
    static Memory* all = new Memory;
    return *all;
}

size_t rounded(size_t bytes, size_t to) { return (bytes + to - 1) / to * to; }

// A page nobody may touch, the red zones with the data between them, another such page.
bool map_block(Block& block, size_t bytes) {
    block.mapped = kPage + rounded(kBefore + bytes + kPage, kPage) + kPage;
    void* at = mmap(nullptr, block.mapped, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) return false;
    block.mapping = static_cast<unsigned char*>(at);
    mprotect(block.mapping, kPage, PROT_NONE);
    mprotect(block.last(), kPage, PROT_NONE);
    memset(block.first(), 0xff, size_t(block.last() - block.first()));
    block.allocation.start = reinterpret_cast<Address>(block.first() + kBefore);
    return true;
}

int allocate(Kind kind, int device, size_t bytes, Address* start) {
    if (bytes == 0) return kInvalidValue;
    Memory& m = memory();
    const Faults& faults = settings().faults;
    std::lock_guard lock(m.mutex);
    if (kind == Kind::Device) {
        const uint64_t count = ++m.allocations;
        size_t& used = m.used[device];
        const bool wanted = count == faults.fail_allocation || bytes > faults.out_of_memory_above;
        if (wanted || bytes > settings().memory_bytes || rounded(bytes, kGrain) > settings().memory_bytes - used)
            return kOutOfMemory;
    }
    Block block{{kind, device, 0, bytes}, nullptr, 0};
    if (!map_block(block, bytes)) return kOutOfMemory;
    if (kind == Kind::Device) m.used[device] += rounded(bytes, kGrain);
    *start = block.allocation.start;
    m.blocks[*start] = block;
    return kSuccess;
}

// The block whose mapping holds the address.
Block* around(Memory& m, Address address) {
    auto next = m.blocks.upper_bound(address + kPage + kBefore);
    while (next != m.blocks.begin()) {
        Block& block = (--next)->second;
        const Address first = reinterpret_cast<Address>(block.mapping);
        if (address >= first && address < first + block.mapped) return &block;
        if (first + block.mapped <= address) return nullptr;
    }
    return nullptr;
}

std::string name(const Allocation& a) {
    char text[96];
    snprintf(text, sizeof text, "the allocation of %zu bytes at 0x%llx", a.bytes, (unsigned long long)a.start);
    return text;
}

// The first and the last byte in [from, to) that is not all ones.
bool altered(unsigned char* from, unsigned char* to, size_t* first, size_t* last) {
    bool any = false;
    for (unsigned char* at = from; at < to; at++) {
        uint64_t word;
        if (to - at >= 8 && (memcpy(&word, at, 8), word == ~uint64_t(0))) {
            at += 7;
            continue;
        }
        if (*at == 0xff) continue;
        if (!any) *first = size_t(at - from);
        any = true;
        *last = size_t(at - from);
    }
    return any;
}

// Says what was written beyond the ends, and repairs the zones so that it is said once.
std::string check_zones(const Block& block) {
    const Allocation& a = block.allocation;
    size_t first = 0, last = 0;
    char text[160];
    if (unsigned char* end = block.data() + a.bytes; altered(end, block.last(), &first, &last)) {
        memset(end, 0xff, size_t(block.last() - end));
        snprintf(text, sizeof text, "bytes %zu to %zu beyond the end of ", first, last);
        return "wrote " + (text + name(a));
    }
    if (altered(block.first(), block.data(), &first, &last)) {
        const size_t zone = size_t(block.data() - block.first());
        memset(block.first(), 0xff, zone);
        snprintf(text, sizeof text, "bytes %zu to %zu before the start of ", zone - last, zone - first);
        return "wrote " + (text + name(a));
    }
    return "";
}

// Out of reach, but remembered: its address means nothing else for a while.
void retire(Memory& m, Block& block) {
    madvise(block.mapping, block.mapped, MADV_DONTNEED);
    mprotect(block.mapping, block.mapped, PROT_NONE);
    block.allocation.freed = true;
    if (block.allocation.kind == Kind::Device)
        m.used[block.allocation.device] -= rounded(block.allocation.bytes, kGrain);
    m.freed.push_back(block.allocation.start);
    if (m.freed.size() <= kRemembered) return;
    auto oldest = m.blocks.find(m.freed.front());
    m.freed.pop_front();
    munmap(oldest->second.mapping, oldest->second.mapped);
    m.blocks.erase(oldest);
}

int release(Context& context, Address address, Kind kind) {
    Memory& m = memory();
    std::string broken;
    {
        std::lock_guard lock(m.mutex);
        auto found = m.blocks.find(address);
        if (found == m.blocks.end() || found->second.allocation.freed || found->second.allocation.kind != kind)
            return kInvalidValue;
        broken = check_zones(found->second);
        retire(m, found->second);
    }
    if (!broken.empty()) context.fail(kIllegalAddress, "found when it was freed: somebody " + broken);
    return context.sticky;
}

}  // namespace

bool in_allocation(Address address, size_t bytes, Allocation* found) {
    Memory& m = memory();
    std::lock_guard lock(m.mutex);
    const Block* block = around(m, address);
    if (block == nullptr) return false;
    const Allocation& a = block->allocation;
    if (found != nullptr) *found = a;
    return !a.freed && address >= a.start && bytes <= a.bytes && address - a.start <= a.bytes - bytes;
}

std::string wrong_argument(Address address, int device) {
    Memory& m = memory();
    std::lock_guard lock(m.mutex);
    const Block* block = around(m, address);
    if (block == nullptr) return "";
    const Allocation& a = block->allocation;
    if (a.freed) return "was given " + name(a) + ", which was freed";
    const bool peer = a.device == device || device_context(device).peers & 1u << (a.device % 32);
    if (a.kind == Kind::Device && !peer)
        return "was given " + name(a) + " of device " + std::to_string(a.device) + " on device " +
               std::to_string(device);
    return "";
}

std::string broken_red_zone(Address address, int device) {
    Memory& m = memory();
    std::lock_guard lock(m.mutex);
    if (address != 0) {
        const Block* block = around(m, address);
        return block != nullptr && !block->allocation.freed ? check_zones(*block) : "";
    }
    for (auto& [start, block] : m.blocks) {
        if (block.allocation.freed || block.allocation.device != device) continue;
        if (std::string broken = check_zones(block); !broken.empty()) return "somebody " + broken;
    }
    return "";
}

void free_all(int device) {
    Memory& m = memory();
    std::lock_guard lock(m.mutex);
    std::vector<Address> mine;
    for (auto& [start, block] : m.blocks) {
        if (!block.allocation.freed && block.allocation.device == device) mine.push_back(start);
    }
    for (Address start : mine) retire(m, m.blocks.at(start));
}

// Where an address that a kernel may not touch lies.
std::string describe_address(Address address) {
    Memory& m = memory();
    std::lock_guard lock(m.mutex);
    char text[96];
    snprintf(text, sizeof text, "touched 0x%llx", (unsigned long long)address);
    const Block* block = around(m, address);
    if (block == nullptr) return std::string(text) + ", which lies in no allocation";
    const Allocation& a = block->allocation;
    if (a.freed) return std::string(text) + ", in " + name(a) + ", which was freed";
    if (address < a.start)
        return std::string(text) + ", " + std::to_string(a.start - address) + " bytes before " + name(a);
    return std::string(text) + ", " + std::to_string(address - a.start - a.bytes) + " bytes beyond the end of " +
           name(a);
}

}  // namespace softgpu

using namespace softgpu;

API cuMemAlloc_v2(Address* pointer, size_t bytes) {
    return in_context(__func__, [&](Context& context) {
        if (const int code = unsafe_in_capture(); code != kSuccess) return code;
        return allocate(Kind::Device, context.device, bytes, pointer);
    });
}

// Waits for the whole device first, as the driver does.
API cuMemFree_v2(Address pointer) {
    return in_context(__func__, [&](Context& context) {
        if (const int code = unsafe_in_capture(); code != kSuccess) return code;
        if (pointer == 0) return int(kSuccess);
        for (auto& stream : context.live_streams()) stream->synchronize();
        return release(context, pointer, Kind::Device);
    });
}

API cuMemGetInfo_v2(size_t* free, size_t* total) {
    return in_context(__func__, [&](Context& context) {
        std::lock_guard lock(memory().mutex);
        *total = settings().memory_bytes;
        *free = *total - memory().used[context.device];
        return kSuccess;
    });
}

API cuMemHostAlloc(Address* pointer, size_t bytes, unsigned flags) {
    return in_context(__func__, [&](Context& context) {
        if (flags > 7) return int(kInvalidValue);
        if (const int code = unsafe_in_capture(); code != kSuccess) return code;
        return allocate(Kind::Pinned, context.device, bytes, pointer);
    });
}
API cuMemAllocHost_v2(Address* pointer, size_t bytes) { return cuMemHostAlloc(pointer, bytes, 0); }

API cuMemFreeHost(Address pointer) {
    return in_context(__func__, [&](Context& context) {
        if (const int code = unsafe_in_capture(); code != kSuccess) return code;
        for (auto& stream : context.live_streams()) stream->synchronize();
        return release(context, pointer, Kind::Pinned);
    });
}

// One address space: the device sees pinned memory where the host does.
API cuMemHostGetDevicePointer_v2(Address* device, Address host, unsigned flags) {
    return in_context(__func__, [&](Context&) {
        Allocation found;
        if (flags != 0 || !in_allocation(host, 1, &found) || found.kind != Kind::Pinned) return kInvalidValue;
        return *device = host, kSuccess;
    });
}

API cuMemGetAddressRange_v2(Address* base, size_t* bytes, Address pointer) {
    return in_context(__func__, [&](Context&) {
        Allocation found;
        if (!in_allocation(pointer, 1, &found)) return kNotFound;
        if (base != nullptr) *base = found.start;
        if (bytes != nullptr) *bytes = found.bytes;
        return kSuccess;
    });
}

// MEMORY_TYPE (1 host, 2 device) and DEVICE_ORDINAL.
API cuPointerGetAttribute(void* value, int which, Address pointer) {
    return in_context(__func__, [&](Context&) {
        Allocation found;
        if (!in_allocation(pointer, 1, &found)) return kInvalidValue;
        if (which == 2) return *static_cast<unsigned*>(value) = found.kind == Kind::Device ? 2 : 1, kSuccess;
        if (which == 9) return *static_cast<int*>(value) = found.device, kSuccess;
        return kNotSupported;
    });
}
