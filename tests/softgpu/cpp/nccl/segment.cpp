// The file in shared memory where the ranks of one communicator meet. A rank's place in it is a lock on one of the file's
// bytes, which the system takes back when the process dies, however it dies. Once all ranks are there the file has no name
// any more, so that nothing is left behind; one that never came to be complete is removed by a later communicator.
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>

#include "nccl.h"

namespace softnccl {
namespace {

const char kName[] = "softgpu-nccl-";

// A container may have 64 MiB of shared memory, and a page too many is a SIGBUS: less than this is not used.
constexpr uint64_t kRoom = uint64_t{256} << 20;

std::string folder() {
    struct statvfs room {};
    const bool writable = access("/dev/shm", W_OK) == 0 && statvfs("/dev/shm", &room) == 0;
    if (writable && uint64_t(room.f_bavail) * room.f_frsize >= kRoom) return "/dev/shm";
    const char* temporary = getenv("TMPDIR");
    return temporary != nullptr && *temporary ? temporary : "/tmp";
}

// Files whose makers are gone: their ranks can find each other no more.
void sweep(const std::string& where) {
    DIR* all = opendir(where.c_str());
    if (all == nullptr) return;
    while (const dirent* entry = readdir(all)) {
        if (strncmp(entry->d_name, kName, sizeof kName - 1) != 0) continue;
        const long maker = strtol(entry->d_name + sizeof kName - 1, nullptr, 10);
        struct stat about {};
        const std::string path = where + "/" + entry->d_name;
        // A process of another container may have that number: a young file is left alone.
        const bool old = stat(path.c_str(), &about) == 0 && time(nullptr) - about.st_mtime > 600;
        if (maker > 0 && kill(pid_t(maker), 0) != 0 && errno == ESRCH && old) unlink(path.c_str());
    }
    closedir(all);
}

struct flock place(int rank, short type) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = rank;
    lock.l_len = 1;
    return lock;
}

}  // namespace

int Segment::create(UniqueId* id) {
    static std::atomic<uint64_t> count{0};
    const std::string where = folder();
    sweep(where);
    uint64_t random = 0;
    if (const int source = ::open("/dev/urandom", O_RDONLY | O_CLOEXEC); source >= 0) {
        if (read(source, &random, sizeof random) < 0) random = uint64_t(time(nullptr));
        ::close(source);
    }
    memset(id->internal, 0, sizeof id->internal);
    snprintf(id->internal, sizeof id->internal, "%s/%s%d-%llu-%016llx", where.c_str(), kName, int(getpid()),
             (unsigned long long)count++, (unsigned long long)random);
    if (faults().wrong_id) {
        strncat(id->internal, "-nobody", 8);
        return kSuccess;
    }
    const int file = ::open(id->internal, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0) return kSystemError;
    const bool fits = ftruncate(file, off_t(sizeof(Header))) == 0;
    ::close(file);
    return fits ? kSuccess : kSystemError;
}

int Segment::open(const UniqueId& id, int rank, int ranks, std::string* why) {
    path_.assign(id.internal, strnlen(id.internal, sizeof id.internal));
    if (path_.find(kName) == std::string::npos) return *why = "this is no id of ncclGetUniqueId", kInvalidArgument;
    file_ = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    if (file_ < 0) return *why = "nobody listens at this id: " + path_, kSystemError;
    void* at = mmap(nullptr, sizeof(Header), PROT_READ | PROT_WRITE, MAP_SHARED, file_, 0);
    if (at == MAP_FAILED) return *why = "no shared memory", kSystemError;
    header = static_cast<Header*>(at);
    uint32_t said = 0;
    if (!header->ranks.compare_exchange_strong(said, uint32_t(ranks)) && said != uint32_t(ranks)) {
        *why = "another rank says there are " + std::to_string(said) + " ranks, this one " + std::to_string(ranks);
        return kInvalidUsage;
    }
    struct flock lock = place(rank, F_WRLCK);
    if (fcntl(file_, F_OFD_SETLK, &lock) != 0 || header->slots[rank].state != kAbsent) {
        *why = "rank " + std::to_string(rank) + " has come already";
        return kInvalidUsage;
    }
    rank_ = rank;
    return kSuccess;
}

void Segment::leave() {
    if (header != nullptr && rank_ >= 0) header->slots[rank_].state = kLeft;
}

// The mapping stays for whoever still runs; the place in the file is given back.
void Segment::close() {
    if (file_ >= 0) ::close(file_);
    file_ = -1;
}

Segment::~Segment() {
    close();
    if (header != nullptr) munmap(header, sizeof(Header));
}

void Segment::complete() { unlink(path_.c_str()); }

int Segment::dead(int ranks, int self) {
    if (file_ < 0) return -1;
    for (int rank = 0; rank < ranks; rank++) {
        if (rank == self || header->slots[rank].state != kJoined) continue;
        struct flock lock = place(rank, F_WRLCK);
        if (fcntl(file_, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_UNLCK && header->slots[rank].state == kJoined)
            return rank;
    }
    return -1;
}

// Ranks in one network namespace of one machine share a host, unless they say otherwise as NCCL lets them.
uint64_t this_host() {
    std::string text;
    if (const char* said = getenv("NCCL_HOSTID")) text = said;
    if (text.empty()) {
        char name[256] = "", net[256] = "";
        gethostname(name, sizeof name - 1);
        if (readlink("/proc/self/ns/net", net, sizeof net - 1) < 0) net[0] = 0;
        text = std::string(name) + net;
    }
    return std::hash<std::string>()(text);
}

}  // namespace softnccl
