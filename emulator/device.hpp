// Devices, their memory and their streams, for the files of libcuda.so.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "names.hpp"

typedef std::function<void()> Operation;

// A point in a stream that is reached once.
struct Mark {
    std::mutex lock;
    std::condition_variable changed;
    bool reached = false;
    double when = 0;
    void reach();
    void wait();
    bool is_reached();
};

// What streams record between begin and end, in the order of the calls, which is an order that respects all waits.
struct Capture {
    CUstream origin = nullptr;
    int mode = CAPTURE_GLOBAL;
    std::thread::id thread;
    bool invalid = false;
    std::vector<Operation> operations;
    std::map<CUstream, size_t> recorded;  // how many operations of each stream
    std::map<CUstream, size_t> joined;    // how many of them another stream has waited for
};

struct PieStream {
    CUcontext device = nullptr;
    bool blocking = true;
    std::shared_ptr<Capture> capture;

    void push(Operation operation);
    bool idle();
    std::shared_ptr<Mark> mark();
    void finish();

private:
    void work();
    std::mutex lock;
    std::condition_variable more;
    std::deque<Operation> queue;
    size_t pending = 0;
    bool started = false, finishing = false;
};

struct PieEvent {
    CUcontext device = nullptr;
    bool timing = true;
    std::shared_ptr<Mark> mark;
    std::shared_ptr<Capture> capture;
    CUstream captured_on = nullptr;
    size_t captured_at = 0;
};

struct PieDevice {
    int ordinal = 0;
    size_t total = 0, used = 0;
    CUstream null_stream = nullptr;
    std::set<CUstream> streams;
};

// Held while the driver's own tables are read or changed; never while an operation of a stream runs.
extern std::recursive_mutex driver_lock;
extern thread_local CUcontext current_device;
typedef std::lock_guard<std::recursive_mutex> Held;

CUresult complain(CUresult result, const char* format, ...) __attribute__((format(printf, 2, 3)));
uint64_t setting(const char* name, uint64_t otherwise);

// nullptr if there is no such stream.
CUstream stream_of(CUstream handle);
CUstream new_stream(CUcontext device, bool blocking);
// Puts the operation into the stream, or into the graph that the stream captures.
CUresult submit(CUstream stream, Operation operation);
CUresult synchronize(CUstream stream);
// An error, and the captures that it concerns become invalid, if the call is not allowed while they go on.
CUresult refuse_in_capture(const char* call);
void invalidate(Capture& capture);

bool in_memory(CUdeviceptr place, size_t bytes, const char* what);
bool is_memory_or_null(CUdeviceptr place);
void install_address_descriptions();

#define NEED_CONTEXT() \
    if (!current_device) return complain(CUDA_ERROR_INVALID_CONTEXT, "%s without a context", __func__)
