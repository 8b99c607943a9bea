// Streams: queues that run in order, each on a thread of its own, started with its first task. Two streams really run
// beside each other.
//
// Priorities: once a process has made a stream whose priority is not 0, every stream's thread runs with niceness
// 5 + priority, so that the operating system prefers the greater one. Nothing waits for a priority, so nothing starves.
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "driver.h"

namespace softgpu {
namespace {

std::atomic<bool> priorities{false};
std::atomic<uint64_t> next_id{3};

Table<Stream>& streams() {
    static auto* all = new Table<Stream>(uintptr_t(0x57) << 40);
    return *all;
}

void run(Context& context, const Work& work) {
    try {
        work.run(context);
    } catch (const std::exception& error) {
        context.fail(kLaunchFailed, work.name + ": " + error.what());
    }
}

// What the stream must wait for besides its own order: the legacy stream and blocking streams wait for each other.
std::vector<Mark> legacy_order(Context& context, Stream& stream) {
    std::vector<Mark> waits;
    if (&stream == context.legacy.get()) {
        for (auto& other : context.live_streams()) {
            if (other.get() != &stream && !(other->flags & kNonBlocking)) waits.push_back(other->tail());
        }
    } else if (!(stream.flags & kNonBlocking)) {
        waits.push_back(context.legacy->tail());
    }
    waits.erase(std::remove_if(waits.begin(), waits.end(), [](const Mark& mark) { return mark.passed(); }),
                waits.end());
    return waits;
}

int put(Context& context, const void* handle, Work work, bool wait) {
    std::shared_ptr<Stream> stream;
    if (const int code = find_stream(context, handle, &stream); code != kSuccess) return code;
    if (stream->context != &context) return kInvalidHandle;
    int code = kSuccess;
    if (captured(stream, work, &code)) return code;
    if (stream == context.legacy) {
        if (code = implicit_in_capture(context); code != kSuccess) return code;
    }
    const Mark mark = stream->submit({legacy_order(context, *stream), std::make_shared<const Work>(std::move(work))});
    if (!wait) return kSuccess;
    mark.wait();
    return context.sticky;
}

int make_stream(Context& context, void** handle, unsigned flags, int priority) {
    if (flags > kNonBlocking) return kInvalidValue;
    auto stream = std::make_shared<Stream>();
    stream->context = &context;
    stream->flags = flags;
    stream->priority = std::max(-5, std::min(priority, 0));
    stream->id = next_id++;
    if (stream->priority != 0) priorities = true;
    {
        std::lock_guard lock(context.mutex);
        context.streams.push_back(stream);
    }
    *handle = streams().add(stream);
    return kSuccess;
}

using Condition = bool (*)(uint32_t now, uint32_t value);

Condition condition(unsigned flags) {
    switch (flags & 3) {
        case 0:
            return [](uint32_t now, uint32_t value) { return int32_t(now - value) >= 0; };
        case 1:
            return [](uint32_t now, uint32_t value) { return now == value; };
        case 2:
            return [](uint32_t now, uint32_t value) { return (now & value) != 0; };
        default:
            return [](uint32_t now, uint32_t value) { return ~(now | value) != 0; };
    }
}

int wait_value(Context& context, void* stream, Address address, uint32_t value, unsigned flags) {
    if (address % 4 != 0 || !in_allocation(address, 4)) return kInvalidValue;
    const Condition met = condition(flags);
    Work work{kBatchNode, "cuStreamWaitValue32", [=](Context& c) {
                  const auto* at = reinterpret_cast<const uint32_t*>(address);
                  const timespec pause{0, 20000};
                  while (c.sticky == kSuccess && !met(__atomic_load_n(at, __ATOMIC_ACQUIRE), value))
                      nanosleep(&pause, nullptr);
              }};
    return enqueue(context, stream, std::move(work));
}

int write_value(Context& context, void* stream, Address address, uint32_t value) {
    if (address % 4 != 0 || !in_allocation(address, 4)) return kInvalidValue;
    Work work{kBatchNode, "cuStreamWriteValue32",
              [=](Context&) { __atomic_store_n(reinterpret_cast<uint32_t*>(address), value, __ATOMIC_RELEASE); }};
    return enqueue(context, stream, std::move(work));
}

// With any stream of any context; not the ones that order against work need.
int of_stream(const char* function, void* handle, const std::function<int(Context&, std::shared_ptr<Stream>)>& body) {
    return in_context(function, [&](Context& context) {
        std::shared_ptr<Stream> stream;
        const int code = find_stream(context, handle, &stream);
        return code != kSuccess ? code : body(context, stream);
    });
}

}  // namespace

bool Mark::passed() const {
    if (stream == nullptr) return true;
    std::lock_guard lock(stream->mutex);
    return stream->done >= count;
}

void Mark::wait() const {
    if (stream == nullptr) return;
    std::unique_lock lock(stream->mutex);
    stream->advanced.wait(lock, [this] { return stream->done >= count; });
}

Mark Stream::submit(Task task) {
    std::lock_guard lock(mutex);
    queue.push_back(std::move(task));
    submitted++;
    if (!started) {
        started = true;
        std::thread([self = shared_from_this()] { self->loop(); }).detach();
    }
    arrived.notify_one();
    return {shared_from_this(), submitted};
}

Mark Stream::tail() {
    std::lock_guard lock(mutex);
    return {shared_from_this(), submitted};
}

void Stream::synchronize() { tail().wait(); }

void Stream::loop() {
    bool nice = false;
    for (;;) {
        Task task;
        {
            std::unique_lock lock(mutex);
            arrived.wait(lock, [this] { return !queue.empty() || closing; });
            if (queue.empty()) return;
            task = std::move(queue.front());
            queue.pop_front();
        }
        if (priorities && !nice) {
            nice = true;
            setpriority(PRIO_PROCESS, id_t(syscall(SYS_gettid)), 5 + priority);
        }
        for (const Mark& mark : task.waits) mark.wait();
        // After a failure nothing runs until the context is reset.
        if (task.work && context->sticky == kSuccess) run(*context, *task.work);
        task = {};
        std::lock_guard lock(mutex);
        done++;
        advanced.notify_all();
    }
}

int find_stream(Context& context, const void* handle, std::shared_ptr<Stream>* stream) {
    switch (reinterpret_cast<uintptr_t>(handle)) {
        case 0:
        case 1:
            *stream = context.legacy;
            break;
        case 2:
            *stream = context.per_thread;
            break;
        default:
            *stream = streams().get(handle);
    }
    return *stream != nullptr ? kSuccess : kInvalidHandle;
}

void forget_streams(const Context& context) {
    streams().forget([&](const Stream& stream) { return stream.context == &context; });
}

int enqueue(Context& context, const void* stream, Work work) { return put(context, stream, std::move(work), false); }
int enqueue_waiting(Context& context, const void* stream, Work work) {
    return put(context, stream, std::move(work), true);
}

}  // namespace softgpu

using namespace softgpu;

API cuStreamCreate(void** stream, unsigned flags) {
    return in_context(__func__, [&](Context& c) { return make_stream(c, stream, flags, 0); });
}
API cuStreamCreateWithPriority(void** stream, unsigned flags, int priority) {
    return in_context(__func__, [&](Context& c) { return make_stream(c, stream, flags, priority); });
}

// Returns at once; what is in the queue still runs.
API cuStreamDestroy_v2(void* handle) {
    return in_context(__func__, [&](Context&) {
        const std::shared_ptr<Stream> stream = streams().take(handle);
        if (stream == nullptr) return int(kInvalidHandle);
        forbidden_in_capture(stream);
        std::lock_guard lock(stream->mutex);
        stream->closing = true;
        stream->arrived.notify_all();
        return int(kSuccess);
    });
}

API cuStreamSynchronize(void* handle) {
    return of_stream(__func__, handle, [](Context& context, const std::shared_ptr<Stream>& stream) {
        if (const int code = forbidden_in_capture(stream); code != kSuccess) return code;
        if (stream == context.legacy) {
            for (const Mark& mark : legacy_order(context, *stream)) mark.wait();
        }
        stream->synchronize();
        return int(stream->context->sticky);
    });
}

API cuStreamQuery(void* handle) {
    return of_stream(__func__, handle, [](Context&, const std::shared_ptr<Stream>& stream) {
        if (const int code = forbidden_in_capture(stream); code != kSuccess) return code;
        return stream->tail().passed() ? int(stream->context->sticky) : int(kNotReady);
    });
}

API cuLaunchHostFunc(void* stream, void (*function)(void*), void* data) {
    return in_context(__func__, [&](Context& context) {
        if (function == nullptr) return int(kInvalidValue);
        return enqueue(context, stream, {kHostNode, "a host function", [=](Context&) { function(data); }});
    });
}

API cuStreamWaitValue32_v2(void* stream, Address address, uint32_t value, unsigned flags) {
    return in_context(__func__, [&](Context& c) { return wait_value(c, stream, address, value, flags); });
}
API cuStreamWaitValue32(void* stream, Address address, uint32_t value, unsigned flags) {
    return in_context(__func__, [&](Context& c) { return wait_value(c, stream, address, value, flags); });
}
API cuStreamWriteValue32_v2(void* stream, Address address, uint32_t value, unsigned) {
    return in_context(__func__, [&](Context& c) { return write_value(c, stream, address, value); });
}
API cuStreamWriteValue32(void* stream, Address address, uint32_t value, unsigned) {
    return in_context(__func__, [&](Context& c) { return write_value(c, stream, address, value); });
}

API cuStreamGetPriority(void* handle, int* priority) {
    return of_stream(__func__, handle,
                     [&](Context&, const std::shared_ptr<Stream>& s) { return *priority = s->priority, kSuccess; });
}
API cuStreamGetFlags(void* handle, unsigned* flags) {
    return of_stream(__func__, handle,
                     [&](Context&, const std::shared_ptr<Stream>& s) { return *flags = s->flags, kSuccess; });
}
API cuStreamGetId(void* handle, uint64_t* id) {
    return of_stream(__func__, handle,
                     [&](Context&, const std::shared_ptr<Stream>& s) { return *id = s->id, kSuccess; });
}
API cuStreamGetCtx(void* handle, void** context) {
    return of_stream(__func__, handle,
                     [&](Context&, const std::shared_ptr<Stream>& s) { return *context = s->context, kSuccess; });
}
