// Copies and memsets: checked against the allocations on the caller's thread, and again when their turn comes.
//
// Pageable host memory behaves as on a GPU: what is copied in is taken before the call returns, what is copied out has
// arrived when the call returns. Only pinned memory is copied while the host goes on.
#include <cstring>

#include "driver.h"

namespace softgpu {
namespace {

bool on_device(Address address, size_t bytes) { return in_allocation(address, bytes); }

bool pinned(const void* host, size_t bytes) {
    Allocation found;
    return in_allocation(reinterpret_cast<Address>(host), bytes, &found) && found.kind == Kind::Pinned;
}

// Host memory as an argument: not the device's.
bool host_side(const void* host) {
    Allocation found;
    return host != nullptr &&
           !(in_allocation(reinterpret_cast<Address>(host), 1, &found) && found.kind == Kind::Device);
}

char* bytes_at(Address address) { return reinterpret_cast<char*>(address); }

void gone(Context& context, const char* what) {
    context.fail(kIllegalAddress, std::string(what) + ": its memory was freed before it ran");
}

int copy_in(Context& context, Address to, const void* from, size_t bytes, void* stream, bool wait) {
    if (bytes == 0) return kSuccess;
    if (!on_device(to, bytes) || !host_side(from)) return kInvalidValue;
    std::shared_ptr<std::vector<char>> staged;
    if (!pinned(from, bytes)) {
        const char* first = static_cast<const char*>(from);
        staged = std::make_shared<std::vector<char>>(first, first + bytes);
    }
    Work work{kCopyNode, "copy to the device", [=](Context& c) {
                  if (!on_device(to, bytes)) return gone(c, "copy to the device");
                  memcpy(bytes_at(to), staged ? staged->data() : from, bytes);
              }};
    return wait ? enqueue_waiting(context, stream, std::move(work)) : enqueue(context, stream, std::move(work));
}

int copy_out(Context& context, void* to, Address from, size_t bytes, void* stream, bool wait) {
    if (bytes == 0) return kSuccess;
    if (!on_device(from, bytes) || !host_side(to)) return kInvalidValue;
    Work work{kCopyNode, "copy from the device", [=](Context& c) {
                  if (!on_device(from, bytes)) return gone(c, "copy from the device");
                  memcpy(to, bytes_at(from), bytes);
              }};
    const bool arrives = wait || !pinned(to, bytes);
    return arrives ? enqueue_waiting(context, stream, std::move(work)) : enqueue(context, stream, std::move(work));
}

int copy_inside(Context& context, Address to, Address from, size_t bytes, void* stream, bool wait) {
    if (bytes == 0) return kSuccess;
    if (!on_device(to, bytes) || !on_device(from, bytes)) return kInvalidValue;
    Work work{kCopyNode, "copy on the device", [=](Context& c) {
                  if (!on_device(to, bytes) || !on_device(from, bytes)) return gone(c, "copy on the device");
                  memmove(bytes_at(to), bytes_at(from), bytes);
              }};
    return wait ? enqueue_waiting(context, stream, std::move(work)) : enqueue(context, stream, std::move(work));
}

template <class T> int set(Context& context, Address to, T value, size_t count, void* stream, bool wait) {
    if (count == 0) return kSuccess;
    if (to % sizeof(T) != 0 || count > SIZE_MAX / sizeof(T) || !on_device(to, count * sizeof(T))) return kInvalidValue;
    Work work{kSetNode, "memset", [=](Context& c) {
                  if (!on_device(to, count * sizeof(T))) return gone(c, "memset");
                  T* first = reinterpret_cast<T*>(to);
                  std::fill(first, first + count, value);
              }};
    return wait ? enqueue_waiting(context, stream, std::move(work)) : enqueue(context, stream, std::move(work));
}

// Either side wherever it lies.
int copy_any(Context& context, Address to, Address from, size_t bytes, void* stream, bool wait) {
    Allocation found;
    const bool to_device = in_allocation(to, bytes, &found), from_device = in_allocation(from, bytes, &found);
    if (to_device && from_device) return copy_inside(context, to, from, bytes, stream, wait);
    if (to_device) return copy_in(context, to, bytes_at(from), bytes, stream, wait);
    return from_device ? copy_out(context, bytes_at(to), from, bytes, stream, wait) : int(kInvalidValue);
}

}  // namespace
}  // namespace softgpu

using namespace softgpu;

API cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void* stream) {
    return in_context(__func__, [&](Context& c) { return copy_in(c, to, from, bytes, stream, false); });
}
API cuMemcpyHtoD_v2(Address to, const void* from, size_t bytes) {
    return in_context(__func__, [&](Context& c) { return copy_in(c, to, from, bytes, nullptr, true); });
}
API cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void* stream) {
    return in_context(__func__, [&](Context& c) { return copy_out(c, to, from, bytes, stream, false); });
}
API cuMemcpyDtoH_v2(void* to, Address from, size_t bytes) {
    return in_context(__func__, [&](Context& c) { return copy_out(c, to, from, bytes, nullptr, true); });
}
API cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void* stream) {
    return in_context(__func__, [&](Context& c) { return copy_inside(c, to, from, bytes, stream, false); });
}
API cuMemcpyDtoD_v2(Address to, Address from, size_t bytes) {
    return in_context(__func__, [&](Context& c) { return copy_inside(c, to, from, bytes, nullptr, false); });
}
API cuMemcpyPeerAsync(Address to, void*, Address from, void*, size_t bytes, void* stream) {
    return in_context(__func__, [&](Context& c) { return copy_inside(c, to, from, bytes, stream, false); });
}
API cuMemcpyAsync(Address to, Address from, size_t bytes, void* stream) {
    return in_context(__func__, [&](Context& c) { return copy_any(c, to, from, bytes, stream, false); });
}
API cuMemcpy(Address to, Address from, size_t bytes) {
    return in_context(__func__, [&](Context& c) { return copy_any(c, to, from, bytes, nullptr, true); });
}
API cuMemsetD8Async(Address to, unsigned char value, size_t count, void* stream) {
    return in_context(__func__, [&](Context& c) { return set(c, to, value, count, stream, false); });
}
API cuMemsetD8_v2(Address to, unsigned char value, size_t count) {
    return in_context(__func__, [&](Context& c) { return set(c, to, value, count, nullptr, true); });
}
API cuMemsetD16Async(Address to, unsigned short value, size_t count, void* stream) {
    return in_context(__func__, [&](Context& c) { return set(c, to, value, count, stream, false); });
}
API cuMemsetD32Async(Address to, unsigned value, size_t count, void* stream) {
    return in_context(__func__, [&](Context& c) { return set(c, to, value, count, stream, false); });
}
API cuMemsetD32_v2(Address to, unsigned value, size_t count) {
    return in_context(__func__, [&](Context& c) { return set(c, to, value, count, nullptr, true); });
}
