// From a checked group to its turn on the stream.
#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>

#include "nccl.h"

namespace softnccl {
namespace {

bool is_message(const Operation& operation) { return operation.kind >= kSend; }

// What is to go wrong with the rank's next operation.
bool fault(Comm& comm, bool* spoil) {
    const uint64_t number = ++comm.operations;
    for (const Fault& fault : faults().list) {
        if (fault.rank != comm.rank || fault.what == Fault::kRefuse) continue;
        if (fault.what == Fault::kSlow) usleep(unsigned(fault.number) * 1000);
        if (fault.what == Fault::kSlow || fault.number != number) continue;
        switch (fault.what) {
            case Fault::kKill:
                kill(getpid(), SIGKILL);
                break;
            case Fault::kHang:
                while (!comm.aborted) usleep(1000);
                return false;
            case Fault::kAsync:
                comm.fail(kSystemError, "an error on purpose (SOFTGPU_NCCL)");
                return false;
            default:
                *spoil = true;
        }
    }
    return !comm.broken();
}

// Messages that follow each other go together.
bool run_all(Comm& comm, const std::vector<Operation>& operations) {
    for (size_t at = 0; at < operations.size();) {
        bool spoil = false;
        if (!fault(comm, &spoil)) return false;
        const size_t first = at;
        if (is_message(operations[at])) {
            std::vector<Operation> messages;
            while (at < operations.size() && is_message(operations[at])) messages.push_back(operations[at++]);
            if (!run_messages(comm, messages)) return false;
        } else if (!run_collective(comm, operations[at++])) {
            return false;
        }
        for (size_t i = first; i < at && spoil; i++) {
            if (operations[i].output != nullptr) operations[i].output[operations[i].bytes() / 2] ^= 0x10;
        }
    }
    return true;
}

// In the stream's turn. Operations of one communicator run in the order they were asked for, whatever their streams.
void run(void* data) {
    auto* plan = static_cast<Plan*>(data);
    Comm& comm = *plan->comm;
    if (plan->ticket > 0) {
        std::unique_lock lock(comm.mutex);
        comm.advanced.wait(lock, [&] { return comm.done + 1 >= plan->ticket || comm.broken(); });
    }
    if (!comm.broken()) run_all(comm, plan->operations);
    if (plan->ticket == 0) return;  // a graph runs it again
    {
        std::lock_guard lock(comm.mutex);
        comm.done++;
    }
    comm.advanced.notify_all();
    delete plan;
}

// NCCL's own line about how an operation is done, where it was asked for.
void log_choice(const Plan& plan) {
    static FILE* const file = [] {
        const char *level = getenv("NCCL_DEBUG"), *parts = getenv("NCCL_DEBUG_SUBSYS"), *name = getenv("NCCL_DEBUG_FILE");
        const bool wanted = level && !strcmp(level, "INFO") && parts && (strstr(parts, "TUNING") || strstr(parts, "ALL"));
        if (!wanted) return static_cast<FILE*>(nullptr);
        if (name == nullptr || *name == 0) return stdout;
        std::string path;
        for (const char* at = name; *at; at++) {
            if (at[0] == '%' && at[1] == 'p') {
                path += std::to_string(getpid()), at++;
            } else if (at[0] == '%' && at[1] == 'h') {
                path += "host", at++;
            } else {
                path += *at;
            }
        }
        FILE* opened = fopen(path.c_str(), "w");
        if (opened != nullptr) setlinebuf(opened);
        return opened;
    }();
    if (file == nullptr) return;
    for (const Operation& op : plan.operations) {
        if (is_message(op)) continue;
        fprintf(file, "host:%d:%d [%d] NCCL INFO %s: %zu Bytes -> Algo RING proto %s channel{Lo..Hi}={0..%d}\n", getpid(),
                int(syscall(SYS_gettid)), plan.comm->device, name_of(op.kind), op.bytes(),
                op.bytes() < 4096 ? "LL" : "SIMPLE", plan.comm->ctas - 1);
    }
}

int put(Plan* plan) {
    Comm& comm = *plan->comm;
    Current current(comm.context);
    int capturing = 0;
    if (driver().capturing(plan->stream, &capturing) != 0) return kUnhandledCudaError;
    {
        std::lock_guard lock(comm.mutex);
        plan->ticket = capturing ? 0 : ++comm.issued;
    }
    return driver().host_function(plan->stream, run, plan) == 0 ? kSuccess : kUnhandledCudaError;
}

}  // namespace

// A communicator that does not block puts its first operation on the stream a little later, as the real one does while it
// connects: who records an event before the state is success has not measured anything.
int launch(std::unique_ptr<Plan> plan) {
    Plan* raw = plan.release();
    Comm& comm = *raw->comm;
    log_choice(*raw);
    if (comm.launched || comm.blocking) {
        comm.launched = true;
        return put(raw);
    }
    comm.launched = true;
    comm.state = kInProgress;
    std::thread([raw, keep = raw->comm] {
        usleep(1000);
        const int code = put(raw);
        if (code != kSuccess) {
            keep->fail(code, "the CUDA driver refused an operation");
            return;
        }
        int expected = kInProgress;
        keep->state.compare_exchange_strong(expected, kSuccess);
    }).detach();
    return kInProgress;
}

}  // namespace softnccl
