// Stream capture and graphs. Work that is put on a capturing stream becomes a node; a graph's launch runs its nodes one
// after another, in the order they were captured, as one task of the launching stream. Branches do not run beside each
// other, which a GPU may do.
#include <algorithm>
#include <set>

#include "driver.h"

namespace softgpu {
namespace {

struct Graph {
    std::vector<Node> nodes;
};

// What a graph was when it was instantiated.
struct Executable {
    Context* context;
    std::shared_ptr<const Graph> graph;
};

Table<Graph>& graphs() {
    static auto* all = new Table<Graph>(uintptr_t(0x67) << 40);
    return *all;
}
Table<Executable>& executables() {
    static auto* all = new Table<Executable>(uintptr_t(0xec) << 40);
    return *all;
}

struct Captures {
    std::mutex mutex;
    std::vector<std::shared_ptr<Capture>> active;
    uint64_t next_id = 1;
};

Captures& captures() {
    static auto* all = new Captures;
    return *all;
}

thread_local int thread_mode = kGlobal;

void end(Captures& all, const std::shared_ptr<Capture>& capture) {
    for (auto& weak : capture->joined) {
        if (auto stream = weak.lock()) {
            stream->capture = nullptr;
            stream->captured_after.clear();
        }
    }
    all.active.erase(std::remove(all.active.begin(), all.active.end(), capture), all.active.end());
}

void join(const std::shared_ptr<Capture>& capture, const std::shared_ptr<Stream>& stream) {
    stream->capture = capture;
    capture->joined.push_back(stream);
}

// Every node must lead to the origin's last ones, or work of a forked stream would be lost.
bool unjoined(const Capture& capture) {
    std::set<size_t> reached;
    std::vector<size_t> open(capture.origin->captured_after);
    while (!open.empty()) {
        const size_t node = open.back();
        open.pop_back();
        if (!reached.insert(node).second) continue;
        const auto& after = capture.nodes[node].after;
        open.insert(open.end(), after.begin(), after.end());
    }
    return reached.size() != capture.nodes.size();
}

int begin(Context& context, void* handle, int mode) {
    std::shared_ptr<Stream> stream;
    if (find_stream(context, handle, &stream) != kSuccess || stream->context != &context) return kInvalidHandle;
    if (mode < kGlobal || mode > kRelaxed) return kInvalidValue;
    if (stream == context.legacy) return kCaptureUnsupported;
    Captures& all = captures();
    std::lock_guard lock(all.mutex);
    if (stream->capture != nullptr) return kCaptureUnsupported;
    auto capture = std::make_shared<Capture>();
    capture->origin = stream;
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    capture->id = all.next_id++;
    join(capture, stream);
    all.active.push_back(std::move(capture));
    return kSuccess;
}

int finish(Context& context, void* handle, void** graph) {
    *graph = nullptr;
    std::shared_ptr<Stream> stream;
    if (find_stream(context, handle, &stream) != kSuccess) return kInvalidHandle;
    Captures& all = captures();
    std::lock_guard lock(all.mutex);
    const std::shared_ptr<Capture> capture = stream->capture;
    if (capture == nullptr) return kInvalidValue;
    if (capture->origin != stream) return kCaptureUnmatched;
    if (capture->mode != kRelaxed && capture->thread != std::this_thread::get_id()) return kCaptureWrongThread;
    const bool loose = !capture->invalid && unjoined(*capture);
    end(all, capture);
    if (capture->invalid) return kCaptureInvalidated;
    if (loose) return kCaptureUnjoined;
    auto made = std::make_shared<Graph>();
    made->nodes = std::move(capture->nodes);
    *graph = graphs().add(std::move(made));
    return kSuccess;
}

int info(Context& context, void* handle, int* status, uint64_t* id) {
    std::shared_ptr<Stream> stream;
    if (find_stream(context, handle, &stream) != kSuccess) return kInvalidHandle;
    std::lock_guard lock(captures().mutex);
    const Capture* capture = stream->capture.get();
    *status = capture == nullptr ? kNotCapturing : capture->invalid ? kInvalidated : kCapturing;
    if (id != nullptr && capture != nullptr) *id = capture->id;
    return kSuccess;
}

int instantiate(Context& context, void** executable, void* graph) {
    const std::shared_ptr<Graph> found = graphs().get(graph);
    if (found == nullptr) return kInvalidValue;
    *executable = executables().add(std::make_shared<Executable>(Executable{&context, found}));
    return kSuccess;
}

void run_nodes(Context& context, const Graph& graph) {
    for (const Node& node : graph.nodes) {
        if (context.sticky != kSuccess) return;
        if (node.work) node.work->run(context);
    }
}

}  // namespace

bool captured(const std::shared_ptr<Stream>& stream, Work& work, int* code) {
    std::lock_guard lock(captures().mutex);
    Capture* capture = stream->capture.get();
    if (capture == nullptr) return false;
    *code = capture->invalid ? kCaptureInvalidated : kSuccess;
    if (capture->invalid) return true;
    capture->nodes.push_back({std::make_shared<const Work>(std::move(work)), stream->captured_after});
    stream->captured_after = {capture->nodes.size() - 1};
    return true;
}

int forbidden_in_capture(const std::shared_ptr<Stream>& stream) {
    std::lock_guard lock(captures().mutex);
    if (stream->capture == nullptr) return kSuccess;
    stream->capture->invalid = true;
    return kCaptureUnsupported;
}

// A relaxed thread may; a thread-local capture forbids its own thread only.
int unsafe_in_capture() {
    std::lock_guard lock(captures().mutex);
    int code = kSuccess;
    for (auto& capture : captures().active) {
        const bool own = capture->thread == std::this_thread::get_id();
        const bool forbids = capture->mode == kGlobal || (capture->mode == kThreadLocal && own);
        if (!forbids || thread_mode == kRelaxed || (thread_mode == kThreadLocal && !own)) continue;
        capture->invalid = true;
        code = kCaptureUnsupported;
    }
    return code;
}

bool captured_record(const std::shared_ptr<Stream>& stream, Event& event, int* code) {
    std::lock_guard lock(captures().mutex);
    if (stream->capture == nullptr) return false;
    *code = stream->capture->invalid ? kCaptureInvalidated : kSuccess;
    std::lock_guard event_lock(event.mutex);
    event.capture = stream->capture;
    event.captured_after = stream->captured_after;
    return true;
}

// A stream that waits for a captured event joins the capture; one that captures may not wait for anything outside.
bool captured_wait(const std::shared_ptr<Stream>& stream, Event& event, int* code) {
    std::lock_guard lock(captures().mutex);
    std::lock_guard event_lock(event.mutex);
    const std::shared_ptr<Capture> from = event.capture.lock();
    const auto& active = captures().active;
    const bool alive = from && std::find(active.begin(), active.end(), from) != active.end();
    if (!alive && stream->capture == nullptr) return false;
    *code = kSuccess;
    if (!alive) {
        stream->capture->invalid = true;
        return *code = kCaptureIsolation, true;
    }
    if (stream->capture != nullptr && stream->capture != from) {
        stream->capture->invalid = from->invalid = true;
        return *code = kCaptureMerge, true;
    }
    if (stream->capture == nullptr) join(from, stream);
    std::set<size_t> after(stream->captured_after.begin(), stream->captured_after.end());
    after.insert(event.captured_after.begin(), event.captured_after.end());
    stream->captured_after.assign(after.begin(), after.end());
    return true;
}

void forget_graphs(const Context& context) {
    executables().forget([&](const Executable& executable) { return executable.context == &context; });
    Captures& all = captures();
    std::lock_guard lock(all.mutex);
    const auto active = all.active;
    for (auto& capture : active) {
        if (capture->origin->context == &context) end(all, capture);
    }
}

int implicit_in_capture(Context& context) {
    std::lock_guard lock(captures().mutex);
    int code = kSuccess;
    for (auto& capture : captures().active) {
        for (auto& weak : capture->joined) {
            const auto stream = weak.lock();
            if (!stream || stream->context != &context || stream->flags & kNonBlocking) continue;
            capture->invalid = true;
            code = kCaptureImplicit;
        }
    }
    return code;
}

}  // namespace softgpu

using namespace softgpu;

API cuStreamBeginCapture_v2(void* stream, int mode) {
    return in_context(__func__, [&](Context& context) { return begin(context, stream, mode); });
}
API cuStreamEndCapture(void* stream, void** graph) {
    return in_context(__func__, [&](Context& context) { return finish(context, stream, graph); });
}
API cuStreamIsCapturing(void* stream, int* status) {
    return in_context(__func__, [&](Context& context) { return info(context, stream, status, nullptr); });
}
API cuStreamGetCaptureInfo(void* stream, int* status, uint64_t* id) {
    return in_context(__func__, [&](Context& context) { return info(context, stream, status, id); });
}
API cuThreadExchangeStreamCaptureMode(int* mode) {
    return anywhere(__func__, [&] { return std::swap(*mode, thread_mode), kSuccess; });
}

API cuGraphCreate(void** graph, unsigned) {
    return in_context(__func__, [&](Context&) { return *graph = graphs().add(std::make_shared<Graph>()), kSuccess; });
}
API cuGraphInstantiateWithFlags(void** executable, void* graph, uint64_t) {
    return in_context(__func__, [&](Context& context) { return instantiate(context, executable, graph); });
}
API cuGraphUpload(void* executable, void*) {
    return in_context(__func__, [&](Context&) { return executables().get(executable) ? kSuccess : kInvalidValue; });
}
API cuGraphDestroy(void* graph) {
    return anywhere(__func__, [&] { return graphs().take(graph) ? kSuccess : kInvalidValue; });
}
API cuGraphExecDestroy(void* executable) {
    return anywhere(__func__, [&] { return executables().take(executable) ? kSuccess : kInvalidValue; });
}

API cuGraphLaunch(void* executable, void* stream) {
    return in_context(__func__, [&](Context& context) {
        const std::shared_ptr<Executable> found = executables().get(executable);
        if (found == nullptr) return int(kInvalidValue);
        if (found->context != &context) return int(kInvalidContext);
        std::shared_ptr<const Graph> graph = found->graph;
        return enqueue(context, stream, {kKernelNode, "a graph", [graph](Context& c) { run_nodes(c, *graph); }});
    });
}

// A node is named by its work, which lives as long as the graph.
API cuGraphGetNodes(void* graph, void** nodes, size_t* count) {
    return in_context(__func__, [&](Context&) {
        const std::shared_ptr<Graph> found = graphs().get(graph);
        if (found == nullptr) return kInvalidValue;
        const size_t room = nodes != nullptr ? std::min(*count, found->nodes.size()) : 0;
        for (size_t i = 0; i < room; i++) nodes[i] = const_cast<Work*>(found->nodes[i].work.get());
        return *count = found->nodes.size(), kSuccess;
    });
}
API cuGraphNodeGetType(void* node, int* type) {
    return in_context(__func__, [&](Context&) {
        if (node == nullptr) return kInvalidValue;
        return *type = static_cast<const Work*>(node)->type, kSuccess;
    });
}
