// Events: a place in a stream and the time it was passed.
#include <time.h>

#include "driver.h"

namespace softgpu {

int64_t now_ns() {
    timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return int64_t(now.tv_sec) * 1000000000 + now.tv_nsec;
}

namespace {

constexpr unsigned kExternal = 1;

Table<Event>& events() {
    static auto* all = new Table<Event>(uintptr_t(0xe5) << 40);
    return *all;
}

Work stamp(const std::shared_ptr<Recording>& recording, NodeType type) {
    return {type, "an event", [recording](Context&) { recording->at_ns = now_ns(); }};
}

// Recorded anew by each launch of the graph.
int record_external(Context& context, void* handle, const std::shared_ptr<Event>& event) {
    Work work{kRecordNode, "an event", [event](Context&) {
                  auto recording = std::make_shared<Recording>();
                  recording->at_ns = now_ns();
                  std::lock_guard lock(event->mutex);
                  event->last = std::move(recording);
              }};
    return enqueue(context, handle, std::move(work));
}

int record(Context& context, void* event_handle, void* handle, unsigned flags) {
    const std::shared_ptr<Event> event = events().get(event_handle);
    std::shared_ptr<Stream> stream;
    if (event == nullptr || find_stream(context, handle, &stream) != kSuccess) return kInvalidHandle;
    if (event->context != stream->context || stream->context != &context) return kInvalidHandle;
    if (flags > kExternal) return kInvalidValue;
    int code = kSuccess;
    if (flags == kExternal) return record_external(context, handle, event);
    if (captured_record(stream, *event, &code)) return code;
    auto recording = std::make_shared<Recording>();
    if (code = enqueue(context, handle, stamp(recording, kRecordNode)); code != kSuccess) return code;
    // Not earlier than the task above; what came between only makes a waiter wait longer.
    recording->mark = stream->tail();
    std::lock_guard lock(event->mutex);
    event->last = std::move(recording);
    event->capture.reset();
    return kSuccess;
}

int wait(Context& context, void* handle, void* event_handle, unsigned flags) {
    const std::shared_ptr<Event> event = events().get(event_handle);
    std::shared_ptr<Stream> stream;
    if (event == nullptr || find_stream(context, handle, &stream) != kSuccess) return kInvalidHandle;
    if (flags > kExternal) return kInvalidValue;
    int code = kSuccess;
    if (captured_wait(stream, *event, &code)) return code;
    std::shared_ptr<Recording> last;
    {
        std::lock_guard lock(event->mutex);
        last = event->last;
    }
    if (last && !last->mark.passed()) stream->submit({{last->mark}, nullptr});
    return kSuccess;
}

struct Reading {
    int code;
    std::shared_ptr<Recording> last;
};

Reading read(void* handle) {
    const std::shared_ptr<Event> event = events().get(handle);
    if (event == nullptr) return {kInvalidHandle, nullptr};
    std::lock_guard lock(event->mutex);
    if (!event->capture.expired()) return {kCapturedEvent, nullptr};
    return {kSuccess, event->last};
}

int elapsed(float* ms, void* start, void* end) {
    const Reading a = read(start), b = read(end);
    if (a.code != kSuccess || b.code != kSuccess) return a.code != kSuccess ? a.code : b.code;
    if (!a.last || !b.last || (events().get(start)->flags | events().get(end)->flags) & kDisableTiming)
        return kInvalidHandle;
    if (!a.last->mark.passed() || !b.last->mark.passed()) return kNotReady;
    return *ms = float(double(b.last->at_ns - a.last->at_ns) * 1e-6), kSuccess;
}

}  // namespace

void forget_events(const Context& context) {
    events().forget([&](const Event& event) { return event.context == &context; });
}

}  // namespace softgpu

using namespace softgpu;

API cuEventCreate(void** handle, unsigned flags) {
    return in_context(__func__, [&](Context& context) {
        if (flags > 7) return kInvalidValue;
        auto event = std::make_shared<Event>();
        event->context = &context;
        event->flags = flags;
        return *handle = events().add(std::move(event)), kSuccess;
    });
}

API cuEventDestroy_v2(void* handle) {
    return in_context(__func__, [&](Context&) { return events().take(handle) != nullptr ? kSuccess : kInvalidHandle; });
}

API cuEventRecord(void* event, void* stream) {
    return in_context(__func__, [&](Context& context) { return record(context, event, stream, 0); });
}
API cuEventRecordWithFlags(void* event, void* stream, unsigned flags) {
    return in_context(__func__, [&](Context& context) { return record(context, event, stream, flags); });
}

API cuStreamWaitEvent(void* stream, void* event, unsigned flags) {
    return in_context(__func__, [&](Context& context) { return wait(context, stream, event, flags); });
}

// An event that was never recorded counts as passed.
API cuEventQuery(void* handle) {
    return in_context(__func__, [&](Context& context) {
        const Reading reading = read(handle);
        if (reading.code != kSuccess) return reading.code;
        const bool passed = !reading.last || reading.last->mark.passed();
        return passed ? int(context.sticky) : int(kNotReady);
    });
}

API cuEventSynchronize(void* handle) {
    return in_context(__func__, [&](Context& context) {
        const Reading reading = read(handle);
        if (reading.code != kSuccess) return reading.code;
        if (reading.last) reading.last->mark.wait();
        return int(context.sticky);
    });
}

API cuEventElapsedTime_v2(float* ms, void* start, void* end) {
    return in_context(__func__, [&](Context&) { return elapsed(ms, start, end); });
}
API cuEventElapsedTime(float* ms, void* start, void* end) {
    return in_context(__func__, [&](Context&) { return elapsed(ms, start, end); });
}
