// What the files of the software driver share: its settings, contexts, allocations, streams, events and graphs.
//
// An API function validates on the caller's thread, as the real driver does, and puts `Work` on a stream; the stream's
// own thread runs it. A failure there becomes the context's sticky error, which every later call returns.
#pragma once
#include <softgpu/executor.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "../launch.h"
#include "codes.h"

#define API extern "C" __attribute__((visibility("default"))) int

namespace softgpu {

using Address = uint64_t;

// --- settings.cpp: the environment, read once ----------------------------------------------------------------------

struct Faults {
    bool no_device = false, no_image = false;
    int driver_version = 13000;
    uint64_t fail_allocation = 0, fail_launch = 0;  // counted from 1, 0 for none
    size_t out_of_memory_above = SIZE_MAX;
    std::vector<std::string> failing_kernels;
    std::map<std::string, unsigned> slow_kernels;  // milliseconds
};

struct Settings {
    std::vector<int> devices;  // what each ordinal is, after CUDA_VISIBLE_DEVICES
    int arch = 90, sms = 4;
    size_t l2_bytes = size_t(1) << 20, memory_bytes = size_t(2) << 30;
    bool shuffled = false, trace = false;
    uint64_t seed = 0;
    Faults faults;
    std::string wrong;  // why the environment cannot be used
};
const Settings& settings();

// --- device.cpp ----------------------------------------------------------------------------------------------------

unsigned shared_optin_bytes();
int device_attribute(int which, int device);

// --- errors.cpp ----------------------------------------------------------------------------------------------------

// Says on stderr what happened and keeps it: the driver's own sentence for such a code ends with it.
void report(const std::string& what);

// --- handles -------------------------------------------------------------------------------------------------------

// Names of objects, never used twice: what was destroyed is not found again, whatever was made since.
template <class T> class Table {
  public:
    explicit Table(uintptr_t first) : next_(first) {}
    void* add(std::shared_ptr<T> object) {
        std::lock_guard lock(mutex_);
        next_ += 16;
        objects_[next_] = std::move(object);
        return reinterpret_cast<void*>(next_);
    }
    std::shared_ptr<T> get(const void* handle) {
        std::lock_guard lock(mutex_);
        auto found = objects_.find(reinterpret_cast<uintptr_t>(handle));
        return found == objects_.end() ? nullptr : found->second;
    }
    std::shared_ptr<T> take(const void* handle) {
        std::lock_guard lock(mutex_);
        auto found = objects_.find(reinterpret_cast<uintptr_t>(handle));
        if (found == objects_.end()) return nullptr;
        auto object = std::move(found->second);
        objects_.erase(found);
        return object;
    }

    template <class F> void forget(F is_forgotten) {
        std::lock_guard lock(mutex_);
        for (auto at = objects_.begin(); at != objects_.end();)
            at = is_forgotten(*at->second) ? objects_.erase(at) : ++at;
    }

  private:
    std::mutex mutex_;
    uintptr_t next_;
    std::unordered_map<uintptr_t, std::shared_ptr<T>> objects_;
};

// --- context.cpp ---------------------------------------------------------------------------------------------------

struct Stream;

// A device's primary context. It outlives its release, so that a thread that still names it gets an error and no crash.
struct Context {
    int device = 0;
    int users = 0;
    std::atomic<int> sticky{kSuccess};
    std::mutex mutex;
    std::vector<std::weak_ptr<Stream>> streams;
    std::shared_ptr<Stream> legacy, per_thread;
    size_t limits[16] = {};
    std::atomic<unsigned> peers{0};

    // The first failure stays.
    void fail(int code, const std::string& what);
    std::vector<std::shared_ptr<Stream>> live_streams();
    // Waits for all streams, then looks at every red zone.
    int synchronize();
};

Context* current_context();
Context& device_context(int device);

// Every API function is one of these two: traced, and nothing thrown inside leaves it. `in_context` wants cuInit and a
// current context, and answers with its sticky error.
int anywhere(const char* function, const std::function<int()>& body);
int in_context(const char* function, const std::function<int(Context&)>& body);
bool initialized();

// What a context takes with it when it ends: its handles mean nothing afterwards.
void forget_streams(const Context& context);
void forget_events(const Context& context);
void forget_modules(const Context& context);
void forget_graphs(const Context& context);

// --- memory.cpp ----------------------------------------------------------------------------------------------------

enum class Kind { Device, Pinned };

struct Allocation {
    Kind kind;
    int device;
    Address start;
    size_t bytes;
    bool freed = false;
};

// Allocations that overlap [address, address + bytes); one that holds all of it where `whole`.
bool in_allocation(Address address, size_t bytes, Allocation* found = nullptr);
// What is wrong with the address as a kernel's argument on `device`; empty where nothing is, or it is no address.
std::string wrong_argument(Address address, int device);
// What a kernel wrote beyond the allocation that holds `address`; all allocations of a device where it is 0.
std::string broken_red_zone(Address address, int device);
void free_all(int device);

// --- stream.cpp ----------------------------------------------------------------------------------------------------

// A place in a stream: passed once that many of its tasks are done.
struct Mark {
    std::shared_ptr<Stream> stream;
    uint64_t count = 0;
    bool passed() const;
    void wait() const;
};

// What a stream does when its turn comes; copied into graphs.
struct Work {
    NodeType type;
    std::string name;
    std::function<void(Context&)> run;
};

struct Task {
    std::vector<Mark> waits;
    std::shared_ptr<const Work> work;  // none where the task only waits
};

struct Capture;

struct Stream : std::enable_shared_from_this<Stream> {
    Context* context = nullptr;
    unsigned flags = 0;
    int priority = 0;
    uint64_t id = 0;
    std::mutex mutex;
    std::condition_variable arrived, advanced;
    std::deque<Task> queue;
    uint64_t submitted = 0, done = 0;
    bool started = false, closing = false;
    // Of a capture, under graph.cpp's lock.
    std::shared_ptr<Capture> capture;
    std::vector<size_t> captured_after;

    Mark submit(Task task);
    Mark tail();
    void synchronize();

  private:
    void loop();
};

// The stream a handle means in `context`: 0 and 1 are the legacy stream, 2 the thread's own (one a context here).
int find_stream(Context& context, const void* handle, std::shared_ptr<Stream>* stream);
// Puts work on a stream: into the capture where one is going on, else into its queue, ordered against the legacy
// stream.
int enqueue(Context& context, const void* stream, Work work);
int enqueue_waiting(Context& context, const void* stream, Work work);

// --- event.cpp -----------------------------------------------------------------------------------------------------

struct Recording {
    Mark mark;
    std::atomic<int64_t> at_ns{0};
};

struct Event {
    Context* context;
    unsigned flags;
    std::mutex mutex;
    std::shared_ptr<Recording> last;
    // Recorded into a capture instead.
    std::weak_ptr<Capture> capture;
    std::vector<size_t> captured_after;
};

int64_t now_ns();

// --- graph.cpp -----------------------------------------------------------------------------------------------------

struct Node {
    std::shared_ptr<const Work> work;
    std::vector<size_t> after;
};

struct Capture {
    std::shared_ptr<Stream> origin;
    int mode = kGlobal;
    std::thread::id thread;
    uint64_t id = 0;
    bool invalid = false;
    std::vector<Node> nodes;
    std::vector<std::weak_ptr<Stream>> joined;
};

// True where the stream captures: then `*code` is what the call returns, and the work is in the graph or lost.
bool captured(const std::shared_ptr<Stream>& stream, Work& work, int* code);
// A call that a capture forbids: invalidates it and returns the error; success where nothing captures.
int forbidden_in_capture(const std::shared_ptr<Stream>& stream);
// A call that is unsafe while any capture of this thread's sort goes on (allocation, waiting for the device).
int unsafe_in_capture();
bool captured_record(const std::shared_ptr<Stream>& stream, Event& event, int* code);
bool captured_wait(const std::shared_ptr<Stream>& stream, Event& event, int* code);
// The legacy stream may not be used while a blocking stream captures.
int implicit_in_capture(Context& context);

}  // namespace softgpu
