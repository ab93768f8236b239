// Collectives between processes of one machine, in the order of each rank's stream.
#include <sys/random.h>
#include <unistd.h>

#include <climits>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "meeting.hpp"
#include "names.hpp"
#include "types.hpp"

namespace {

enum Result : unsigned {
    SUCCESS = 0, CUDA_FAILED = 1, SYSTEM_ERROR = 2, INVALID_ARGUMENT = 4, INVALID_USAGE = 5, IN_PROGRESS = 7,
};
enum Kind { ALL_REDUCE, ALL_GATHER, BROADCAST };
enum Reduction { SUM, PRODUCT, MAXIMUM, MINIMUM, AVERAGE };

thread_local std::string last_error;

Result wrong(Result result, const std::string& what) {
    last_error = what;
    fprintf(stderr, "pie emulator: NCCL: %s\n", what.c_str());
    return result;
}

struct UniqueId { char bytes[128]; };
const char magic[] = "pie-emulated-nccl";

struct Comm {
    std::string name;
    int ranks, rank, device;
    bool blocking;
    std::unique_ptr<Meeting> meeting;
    std::atomic<bool> aborted{false};
    std::atomic<unsigned> state{IN_PROGRESS};
    std::atomic<bool> asked{true};
    std::mutex running;
    uint64_t chunks = 0;
    // Collectives that lie in streams.
    std::mutex queue_lock;
    std::condition_variable less;
    size_t queued = 0;
    void came(int more) {
        std::lock_guard<std::mutex> held(queue_lock);
        queued += size_t(more);
        less.notify_all();
    }
    void wait_for_all() {
        std::unique_lock<std::mutex> held(queue_lock);
        less.wait(held, [this] { return !queued || aborted; });
    }
};
typedef std::shared_ptr<Comm> Shared;

std::mutex comms_lock;
std::map<Comm*, Shared>& comms() {
    static auto* all = new std::map<Comm*, Shared>;
    return *all;
}
Shared shared(Comm* comm) {
    std::lock_guard<std::mutex> held(comms_lock);
    auto found = comms().find(comm);
    return found == comms().end() ? nullptr : found->second;
}
void forget(Comm* comm) {
    std::lock_guard<std::mutex> held(comms_lock);
    comms().erase(comm);
}

// --- Joining ---

Result take_seat(Comm& comm) {
    Meeting& meeting = *comm.meeting;
    uint32_t none = 0;
    if (!meeting->ranks.compare_exchange_strong(none, uint32_t(comm.ranks)) && none != uint32_t(comm.ranks)) {
        return wrong(INVALID_ARGUMENT, "the ranks of one id were told different numbers of ranks");
    }
    RankSeat& seat = meeting->seats[comm.rank];
    if (seat.taken.exchange(1)) return wrong(INVALID_USAGE, "rank " + std::to_string(comm.rank) + " has joined already");
    seat.device = comm.device;
    seat.known = 1;
    meeting.changed();
    return SUCCESS;
}

Result same_device_twice(const Comm& comm) {
    Meeting& meeting = *comm.meeting;
    for (int i = 0; i < comm.ranks; i++) {
        for (int j = 0; j < i; j++) {
            const RankSeat &a = meeting->seats[i], &b = meeting->seats[j];
            if (a.device != b.device) continue;
            return wrong(INVALID_USAGE, "duplicate GPU: ranks " + std::to_string(j) + " and " + std::to_string(i) + " on device " +
                                            std::to_string(a.device));
        }
    }
    return SUCCESS;
}

Result join(Comm& comm) {
    Meeting& meeting = *comm.meeting;
    if (Result result = take_seat(comm)) return result;
    bool all_came = meeting.wait(comm.aborted, [&] {
        for (int i = 0; i < comm.ranks; i++) {
            if (!meeting->seats[i].known) return false;
        }
        return true;
    });
    if (!all_came) return INVALID_USAGE;
    if (int(++meeting->ready) == comm.ranks) meeting.forget_name();
    return same_device_twice(comm);
}

// --- Collectives ---

size_t size_of(int type) {
    static const size_t sizes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2};
    return type >= 0 && type < 10 ? sizes[type] : 0;
}

struct Collective {
    Shared comm;
    Call call;
    const unsigned char* send;
    unsigned char* receive;
    bool counted;
};

template <typename T> struct Sums { typedef T type; };
template <> struct Sums<__half> { typedef float type; };
template <> struct Sums<__nv_bfloat16> { typedef float type; };

// In the order of the ranks, so that all get the same; 16-bit floats are added as 32-bit ones and rounded once.
template <typename T> void reduce(const Comm& comm, int operation, uint64_t chunk, size_t bytes, unsigned char* out) {
    typedef typename Sums<T>::type S;
    std::vector<const T*> from;
    for (int r = 0; r < comm.ranks; r++) from.push_back(reinterpret_cast<const T*>(comm.meeting->place(r, chunk)));
    T* to = reinterpret_cast<T*>(out);
    for (size_t i = 0; i < bytes / sizeof(T); i++) {
        S all = S(from[0][i]);
        for (int r = 1; r < comm.ranks; r++) {
            S one = S(from[size_t(r)][i]);
            switch (operation) {
                case PRODUCT: all *= one; break;
                case MAXIMUM: all = all < one ? one : all; break;
                case MINIMUM: all = one < all ? one : all; break;
                default: all += one;
            }
        }
        if (operation == AVERAGE) all /= S(comm.ranks);
        to[i] = T(all);
    }
}

void reduce_any(const Comm& comm, const Call& call, uint64_t chunk, size_t bytes, unsigned char* out) {
    switch (call.type) {
        case 0: return reduce<int8_t>(comm, call.operation, chunk, bytes, out);
        case 1: return reduce<uint8_t>(comm, call.operation, chunk, bytes, out);
        case 2: return reduce<int32_t>(comm, call.operation, chunk, bytes, out);
        case 3: return reduce<uint32_t>(comm, call.operation, chunk, bytes, out);
        case 4: return reduce<int64_t>(comm, call.operation, chunk, bytes, out);
        case 5: return reduce<uint64_t>(comm, call.operation, chunk, bytes, out);
        case 6: return reduce<__half>(comm, call.operation, chunk, bytes, out);
        case 7: return reduce<float>(comm, call.operation, chunk, bytes, out);
        case 8: return reduce<double>(comm, call.operation, chunk, bytes, out);
        default: return reduce<__nv_bfloat16>(comm, call.operation, chunk, bytes, out);
    }
}

// The true NCCL hangs or mixes up the data here, so there is nothing to go on with.
void check_calls(const Comm& comm, const Call& mine, uint64_t chunk) {
    for (int r = 0; r < comm.ranks; r++) {
        const Call& other = (*comm.meeting)->seats[r].calls[chunk % 2];
        if (other == mine) continue;
        fprintf(stderr,
                "pie emulator: NCCL: ranks %d and %d call different collectives: (kind %d, type %d, operation %d, root %d, %llu "
                "elements) and (%d, %d, %d, %d, %llu)\n",
                comm.rank, r, mine.kind, mine.type, mine.operation, mine.root, (unsigned long long)mine.count, other.kind, other.type,
                other.operation, other.root, (unsigned long long)other.count);
        abort();
    }
}

void read_chunk(const Collective& c, uint64_t chunk, size_t at, size_t bytes, size_t all_bytes) {
    const Comm& comm = *c.comm;
    if (c.call.kind == ALL_REDUCE) return reduce_any(comm, c.call, chunk, bytes, c.receive + at);
    if (c.call.kind == BROADCAST) {
        memcpy(c.receive + at, comm.meeting->place(c.call.root, chunk), bytes);
        return;
    }
    for (int r = 0; r < comm.ranks; r++) memcpy(c.receive + size_t(r) * all_bytes + at, comm.meeting->place(r, chunk), bytes);
}

// False if the communicator was aborted meanwhile.
bool exchange(const Collective& c, size_t at, size_t bytes, size_t all_bytes) {
    Comm& comm = *c.comm;
    Meeting& meeting = *comm.meeting;
    uint64_t chunk = ++comm.chunks;
    auto everyone = [&](std::atomic<uint64_t> RankSeat::*count, uint64_t least) {
        return meeting.wait(comm.aborted, [&] {
            for (int r = 0; r < comm.ranks; r++) {
                if (meeting->seats[r].*count < least) return false;
            }
            return true;
        });
    };
    if (chunk > 2 && !everyone(&RankSeat::consumed, chunk - 2)) return false;
    RankSeat& mine = meeting->seats[comm.rank];
    if (c.call.kind != BROADCAST || c.call.root == comm.rank) memcpy(meeting.place(comm.rank, chunk), c.send + at, bytes);
    mine.calls[chunk % 2] = c.call;
    mine.posted = chunk;
    meeting.changed();
    if (!everyone(&RankSeat::posted, chunk)) return false;
    check_calls(comm, c.call, chunk);
    read_chunk(c, chunk, at, bytes, all_bytes);
    mine.consumed = chunk;
    meeting.changed();
    return true;
}

void run(const Collective& c) {
    std::lock_guard<std::mutex> held(c.comm->running);
    size_t all_bytes = c.call.count * size_of(c.call.type);
    for (size_t at = 0; at < all_bytes && !c.comm->aborted; at += chunk_bytes) {
        size_t bytes = all_bytes - at < chunk_bytes ? all_bytes - at : chunk_bytes;
        if (!exchange(c, at, bytes, all_bytes)) return;
    }
}

void run(void* data) {
    const Collective& c = *static_cast<Collective*>(data);
    run(c);
    if (c.counted) c.comm->came(-1);
}
void drop(void* data) { delete static_cast<Collective*>(data); }


// --- Groups ---

thread_local int depth = 0;
thread_local std::vector<std::function<Result()>> deferred;

Result now_or_at_the_end(std::function<Result()> work) {
    if (!depth) return work();
    deferred.push_back(std::move(work));
    return SUCCESS;
}

Result usable(const Shared& comm) {
    if (!comm) return wrong(INVALID_ARGUMENT, "no such communicator");
    if (comm->state == IN_PROGRESS) return wrong(INVALID_ARGUMENT, "the communicator is used before it is ready");
    if (comm->state != SUCCESS) return Result(unsigned(comm->state));
    if (!comm->asked) {
        return wrong(INVALID_ARGUMENT, "a call on a non-blocking communicator before ncclCommGetAsyncError said that the last is done");
    }
    return SUCCESS;
}

Result collective(const void* send, void* receive, Call call, Comm* handle, CUstream stream) {
    Shared comm = shared(handle);
    if (Result result = usable(comm)) return result;
    size_t bytes = call.count * size_of(call.type);
    if (!size_of(call.type)) return wrong(INVALID_ARGUMENT, "a type that is not emulated");
    if (call.operation > AVERAGE) return wrong(INVALID_ARGUMENT, "a reduction that is not emulated");
    if (call.root < 0 || call.root >= comm->ranks) return wrong(INVALID_ARGUMENT, "a root that is no rank");
    size_t received = call.kind == ALL_GATHER ? bytes * size_t(comm->ranks) : bytes;
    bool sends = call.kind != BROADCAST || call.root == comm->rank;
    if (bytes && sends && !pie_emulator_in_memory(send, bytes, "what a collective sends")) return INVALID_ARGUMENT;
    if (bytes && !pie_emulator_in_memory(receive, received, "what a collective receives")) return INVALID_ARGUMENT;
    return now_or_at_the_end([=] {
        unsigned captures = 0;
        cuStreamIsCapturing(stream, &captures);
        auto* data = new Collective{comm, call, static_cast<const unsigned char*>(send), static_cast<unsigned char*>(receive), !captures};
        if (!captures) comm->came(1);
        if (pie_emulator_enqueue(stream, run, data, drop)) return wrong(CUDA_FAILED, "the stream does not take the collective");
        if (comm->blocking) return SUCCESS;
        comm->asked = false;
        return IN_PROGRESS;
    });
}

Result settled(const Shared& comm, Result result) {
    comm->state = result;
    return result;
}

Result start(Comm** handle, int ranks, const UniqueId& id, int rank, bool blocking) {
    *handle = nullptr;
    int device = pie_emulator_current_device();
    if (device < 0) return wrong(CUDA_FAILED, "a communicator without a current context");
    if (memcmp(id.bytes, magic, sizeof magic)) return wrong(INVALID_ARGUMENT, "an id that was not made by ncclGetUniqueId");
    if (ranks < 1 || ranks > most_ranks || rank < 0 || rank >= ranks) return wrong(INVALID_ARGUMENT, "an impossible rank");
    auto comm = std::make_shared<Comm>();
    comm->name = id.bytes + sizeof magic;
    comm->ranks = ranks;
    comm->rank = rank;
    comm->device = device;
    comm->blocking = blocking;
    comm->meeting = std::make_unique<Meeting>(comm->name, ranks);
    if (!comm->meeting->opened()) return wrong(SYSTEM_ERROR, "no shared memory");
    {
        std::lock_guard<std::mutex> held(comms_lock);
        comms()[comm.get()] = comm;
    }
    *handle = comm.get();
    if (!blocking) {
        std::thread([comm] { settled(comm, join(*comm)); }).detach();
        return IN_PROGRESS;
    }
    if (!depth) {
        Result result = settled(comm, join(*comm));
        if (!result) return SUCCESS;
        forget(comm.get());
        *handle = nullptr;
        return result;
    }
    // In a group one thread joins with several ranks, so none of them may hold it up.
    auto joining = std::make_shared<std::thread>([comm] { settled(comm, join(*comm)); });
    deferred.push_back([comm, joining] {
        joining->join();
        return Result(unsigned(comm->state));
    });
    return SUCCESS;
}

// The beginning of ncclConfig_t, which is the same in all versions.
struct Config {
    size_t size;
    unsigned magic, version;
    int blocking;
};

}  // namespace

PIE_EXPORT Result ncclGetVersion(int* version) {
    *version = 22403;
    return SUCCESS;
}

PIE_EXPORT Result ncclGetUniqueId(UniqueId* id) {
    unsigned char random[16];
    if (getrandom(random, sizeof random, 0) != ssize_t(sizeof random)) return SYSTEM_ERROR;
    memset(id, 0, sizeof *id);
    memcpy(id->bytes, magic, sizeof magic);
    int at = snprintf(id->bytes + sizeof magic, 32, "/pie-nccl-");
    for (unsigned char byte : random) at += snprintf(id->bytes + sizeof magic + at, 3, "%02x", byte);
    return SUCCESS;
}

PIE_EXPORT Result ncclCommInitRank(Comm** comm, int ranks, UniqueId id, int rank) { return start(comm, ranks, id, rank, true); }

PIE_EXPORT Result ncclCommInitRankConfig(Comm** comm, int ranks, UniqueId id, int rank, const Config* config) {
    if (config && config->magic != 0xcafebeef) return wrong(INVALID_ARGUMENT, "an ncclConfig_t that was not initialized");
    if (config && config->blocking != 0 && config->blocking != 1 && config->blocking != INT_MIN) {
        return wrong(INVALID_ARGUMENT, "config.blocking is neither 0 nor 1");
    }
    return start(comm, ranks, id, rank, !config || config->blocking != 0);
}

PIE_EXPORT Result ncclCommGetAsyncError(Comm* handle, unsigned* result) {
    Shared comm = shared(handle);
    if (!comm) return INVALID_ARGUMENT;
    *result = comm->state;
    if (*result != IN_PROGRESS) comm->asked = true;
    return SUCCESS;
}

// What runs of this communicator in a stream returns at once, and what is still queued will do nothing.
PIE_EXPORT Result ncclCommAbort(Comm* handle) {
    Shared comm = shared(handle);
    if (!comm) return INVALID_ARGUMENT;
    comm->aborted = true;
    comm->came(0);
    comm->meeting->changed();
    std::lock_guard<std::mutex> held(comm->running);
    if (int((*comm->meeting)->ready) < comm->ranks) comm->meeting->forget_name();
    forget(handle);
    return SUCCESS;
}

PIE_EXPORT Result ncclCommFinalize(Comm* handle) {
    Shared comm = shared(handle);
    if (!comm) return INVALID_ARGUMENT;
    if (comm->blocking) {
        comm->wait_for_all();
        return SUCCESS;
    }
    if (Result result = usable(comm)) return result;
    comm->state = IN_PROGRESS;
    std::thread([comm] {
        comm->wait_for_all();
        comm->state = SUCCESS;
    }).detach();
    return IN_PROGRESS;
}

PIE_EXPORT Result ncclCommDestroy(Comm* handle) {
    Shared comm = shared(handle);
    if (!comm) return INVALID_ARGUMENT;
    if (comm->state == IN_PROGRESS) return ncclCommAbort(handle);
    comm->wait_for_all();
    forget(handle);
    return SUCCESS;
}

PIE_EXPORT Result ncclCommCount(Comm* handle, int* count) {
    Shared comm = shared(handle);
    if (!comm) return INVALID_ARGUMENT;
    *count = comm->ranks;
    return SUCCESS;
}
PIE_EXPORT Result ncclCommUserRank(Comm* handle, int* rank) {
    Shared comm = shared(handle);
    if (!comm) return INVALID_ARGUMENT;
    *rank = comm->rank;
    return SUCCESS;
}
PIE_EXPORT Result ncclCommCuDevice(Comm* handle, int* device) {
    Shared comm = shared(handle);
    if (!comm) return INVALID_ARGUMENT;
    *device = comm->device;
    return SUCCESS;
}

PIE_EXPORT Result ncclAllReduce(const void* send, void* receive, size_t count, int type, int operation, Comm* comm, CUstream stream) {
    return collective(send, receive, {ALL_REDUCE, type, operation, 0, count}, comm, stream);
}
PIE_EXPORT Result ncclAllGather(const void* send, void* receive, size_t count, int type, Comm* comm, CUstream stream) {
    return collective(send, receive, {ALL_GATHER, type, 0, 0, count}, comm, stream);
}
PIE_EXPORT Result ncclBroadcast(const void* send, void* receive, size_t count, int type, int root, Comm* comm, CUstream stream) {
    return collective(send, receive, {BROADCAST, type, 0, root, count}, comm, stream);
}

PIE_EXPORT Result ncclGroupStart() {
    depth++;
    return SUCCESS;
}
PIE_EXPORT Result ncclGroupEnd() {
    if (!depth) return wrong(INVALID_USAGE, "the end of a group that was not begun");
    if (--depth) return SUCCESS;
    auto all = std::move(deferred);
    deferred.clear();
    Result result = SUCCESS;
    for (auto& work : all) {
        Result one = work();
        if (one != SUCCESS && (result == SUCCESS || result == IN_PROGRESS)) result = one;
    }
    return result;
}

PIE_EXPORT const char* ncclGetErrorString(Result result) {
    switch (result) {
        case SUCCESS: return "no error";
        case CUDA_FAILED: return "a call of CUDA failed";
        case SYSTEM_ERROR: return "a call of the system failed";
        case INVALID_ARGUMENT: return "invalid argument";
        case INVALID_USAGE: return "invalid usage";
        case IN_PROGRESS: return "in progress";
    }
    return "another error";
}
PIE_EXPORT const char* ncclGetLastError(Comm*) { return last_error.c_str(); }
