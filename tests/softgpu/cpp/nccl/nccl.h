// What the files of the software NCCL share. Its numbers are those of nccl.h 2.30; nothing of NVIDIA's is needed to build it.
//
// A communicator's ranks, threads or processes, meet in one shared file named by the unique id (segment.cpp). A call is
// checked on the caller's thread and put on its CUDA stream as a host function, which the software driver runs in the
// stream's turn; there data moves through the file (collective.cpp, messages.cpp).
#pragma once
#include <atomic>
#include <climits>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

namespace softnccl {

enum Result : int {
    kSuccess = 0,
    kUnhandledCudaError = 1,
    kSystemError = 2,
    kInternalError = 3,
    kInvalidArgument = 4,
    kInvalidUsage = 5,
    kRemoteError = 6,
    kInProgress = 7,
};

constexpr int kVersion = 23007;
constexpr int kMaxRanks = 16;
constexpr int kUndefined = INT_MIN;

struct UniqueId {
    char internal[128];
};

// As far as it is looked at; a caller's may be shorter (older) or longer.
struct Config {
    size_t size;
    unsigned magic, version;
    int blocking, cgaClusterSize, minCTAs, maxCTAs;
};

// --- types.cpp -----------------------------------------------------------------------------------------------------

enum Type : int {
    kInt8,
    kUint8,
    kInt32,
    kUint32,
    kInt64,
    kUint64,
    kFloat16,
    kFloat32,
    kFloat64,
    kBfloat16,
    kFloat8e4m3,
    kFloat8e5m2,
    kTypes
};
enum Reduction : int { kSum, kProd, kMax, kMin, kAvg, kReductions };

size_t bytes_of(int type);
bool is_float8(int type);
// sum[i] = sum[i] op value[i], rounded to the type each time, as a ring does.
void combine(void* sum, const void* value, size_t count, int type, int reduction);
// What an average still needs after its sum.
void divide(void* sum, size_t count, int type, int by);

// --- segment.cpp ---------------------------------------------------------------------------------------------------

// What a rank says it is about to do: all must say the same.
struct Call {
    int kind, type, reduction, root;
    uint64_t count;
    bool operator==(const Call& o) const {
        return kind == o.kind && type == o.type && reduction == o.reduction && root == o.root && count == o.count;
    }
};

enum SlotState : uint32_t { kAbsent, kJoined, kLeft };

struct alignas(64) Slot {
    std::atomic<uint32_t> state;
    uint64_t host;
    unsigned char gpu[16];
    alignas(64) std::atomic<uint64_t> phase;    // of collectives
    alignas(64) std::atomic<uint64_t> control;  // of splits
    Call call;
    int color, key;
    char next[128];
};

constexpr size_t kStageBytes = size_t(256) << 10;
constexpr size_t kRingBytes = size_t(64) << 10;

// Bytes from one rank to another, in order.
struct alignas(64) Ring {
    alignas(64) std::atomic<uint64_t> written;
    alignas(64) std::atomic<uint64_t> read;
    alignas(64) std::atomic<uint32_t> refused;  // the two ends disagreed
    unsigned char bytes[kRingBytes];
};

struct Header {
    std::atomic<uint32_t> ranks, joined;
    Slot slots[kMaxRanks];
    alignas(4096) unsigned char stage[kMaxRanks][kStageBytes];
    Ring rings[kMaxRanks][kMaxRanks];  // from, to
};

class Segment {
  public:
    Segment() = default;
    Segment(const Segment&) = delete;
    ~Segment();

    static int create(UniqueId* id);
    // Maps the file and takes the rank's place. The answer's sentence, where it is no success, goes to `why`.
    int open(const UniqueId& id, int rank, int ranks, std::string* why);
    // The rank has gone in order: its absence is no death.
    void leave();
    void close();
    // The last rank that came lets nobody else in.
    void complete();
    // A rank whose process is gone without having left; -1 where there is none.
    int dead(int ranks, int self);

    Header* header = nullptr;

  private:
    int file_ = -1, rank_ = -1;
    std::string path_;
};

uint64_t this_host();

// --- faults.cpp: SOFTGPU_NCCL --------------------------------------------------------------------------------------

struct Fault {
    enum What { kKill, kHang, kAsync, kRefuse, kWrong, kSlow } what;
    int rank;
    uint64_t number;  // of the rank's operation, counted from 1; milliseconds of kSlow
};
struct Faults {
    std::vector<Fault> list;
    std::vector<int> absent;
    bool wrong_id = false, silent = false;
    int version = kVersion;
    std::string wrong;  // why the variable cannot be used
};
const Faults& faults();

// --- comm.cpp ------------------------------------------------------------------------------------------------------

struct Comm : std::enable_shared_from_this<Comm> {
    int rank = 0, ranks = 0, device = 0;
    bool blocking = true;
    int ctas = 2;
    void* context = nullptr;
    Segment segment;
    std::atomic<bool> aborted{false};
    std::atomic<int> state{kSuccess};  // what ncclCommGetAsyncError answers
    std::mutex mutex;
    std::condition_variable advanced;
    std::string last_error;
    uint64_t issued = 0, done = 0;  // operations on streams, not those of graphs
    uint64_t operations = 0;        // that began, for faults
    uint64_t asked = 0;             // calls of operations, for faults
    uint64_t phase = 0, control = 0;
    bool launched = false, finalized = false, left = false;
    std::set<void*> handles;

    // The first failure stays; said on stderr as NCCL_DEBUG=WARN would.
    int fail(int code, const std::string& what);
    bool broken() const { return aborted || (state != kSuccess && state != kInProgress); }
    Slot& slot(int of) { return segment.header->slots[of]; }
};

// Waits with growing pauses until `met`; false where the communicator was aborted or broke meanwhile.
class Patience {
  public:
    explicit Patience(Comm& comm);
    bool pause();
    void reset() { turns_ = 0; }

  private:
    Comm& comm_;
    unsigned yields_;
    unsigned turns_ = 0;
};

// All ranks; false as above. `phase` is which of the slots' two counters.
bool barrier(Comm& comm, std::atomic<uint64_t> Slot::* phase, uint64_t& mine);

std::shared_ptr<Comm> find_comm(const void* handle);
// The communicator, if it can take a call now; else what the call returns.
int ready(const void* handle, std::shared_ptr<Comm>* comm);

// --- the data's way ------------------------------------------------------------------------------------------------

enum Kind : int { kAllReduce, kReduce, kBroadcast, kAllGather, kReduceScatter, kAllToAll, kSend, kReceive };
const char* name_of(Kind kind);

struct Operation {
    Kind kind;
    const unsigned char* input;
    unsigned char* output;
    size_t count;  // as the call gives it
    int type, reduction, peer;  // the root, or the other end of a message

    size_t bytes() const { return count * bytes_of(type); }
};

// One collective; true where it came to its end.
bool run_collective(Comm& comm, const Operation& operation);
// The messages of one group, all at the same time.
bool run_messages(Comm& comm, const std::vector<Operation>& operations);

// --- launch.cpp ----------------------------------------------------------------------------------------------------

// What a group asks of one communicator.
struct Plan {
    std::shared_ptr<Comm> comm;
    void* stream;
    std::vector<Operation> operations;
    uint64_t ticket = 0;  // 0 in a graph
};
int launch(std::unique_ptr<Plan> plan);

// --- driver.cpp: the CUDA driver's functions -----------------------------------------------------------------------

struct Driver {
    int (*context_get)(void**);
    int (*context_set)(void*);
    int (*context_device)(int*);
    int (*uuid)(unsigned char*, int);
    int (*attribute)(int*, int, int);
    int (*range)(uint64_t*, size_t*, uint64_t);
    int (*pointer)(void*, int, uint64_t);
    int (*capturing)(void*, int*);
    int (*host_function)(void*, void (*)(void*), void*);
    int (*stream_context)(void*, void**);
    int (*allocate)(uint64_t*, size_t);
    int (*release)(uint64_t);
    bool whole = false;
};
const Driver& driver();

// The communicator's context is current while this lives.
class Current {
  public:
    explicit Current(void* context) {
        driver().context_get(&before_);
        driver().context_set(context);
    }
    ~Current() { driver().context_set(before_); }

  private:
    void* before_ = nullptr;
};

}  // namespace softnccl
