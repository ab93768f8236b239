// Streams as queues with an OS thread each, events, and captures.
#include <chrono>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>

#include "device.hpp"

std::recursive_mutex driver_lock;

static std::set<CUstream>& live_streams() {
    static auto* all = new std::set<CUstream>;
    return *all;
}
static std::set<CUevent>& live_events() {
    static auto* all = new std::set<CUevent>;
    return *all;
}
static std::set<Capture*>& captures() {
    static auto* all = new std::set<Capture*>;
    return *all;
}

CUresult complain(CUresult result, const char* format, ...) {
    char text[400];
    va_list values;
    va_start(values, format);
    vsnprintf(text, sizeof text, format, values);
    va_end(values);
    fprintf(stderr, "pie emulator: %s\n", text);
    return result;
}

uint64_t setting(const char* name, uint64_t otherwise) {
    const char* text = getenv(name);
    return text && *text ? strtoull(text, nullptr, 10) : otherwise;
}

void Mark::reach() {
    std::lock_guard<std::mutex> held(lock);
    when = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
    reached = true;
    changed.notify_all();
}

void Mark::wait() {
    std::unique_lock<std::mutex> held(lock);
    changed.wait(held, [this] { return reached; });
}

bool Mark::is_reached() {
    std::lock_guard<std::mutex> held(lock);
    return reached;
}

void PieStream::push(Operation operation) {
    std::lock_guard<std::mutex> held(lock);
    queue.push_back(std::move(operation));
    pending++;
    if (!started) {
        started = true;
        std::thread([this] { work(); }).detach();
    }
    more.notify_one();
}

bool PieStream::idle() {
    std::lock_guard<std::mutex> held(lock);
    return !pending;
}

std::shared_ptr<Mark> PieStream::mark() {
    auto mark = std::make_shared<Mark>();
    if (idle()) mark->reach();
    else push([mark] { mark->reach(); });
    return mark;
}

// After this no one has the handle any more; the worker ends what is queued, and then the stream.
void PieStream::finish() {
    std::unique_lock<std::mutex> held(lock);
    finishing = true;
    more.notify_one();
    if (started) return;
    held.unlock();
    delete this;
}

void PieStream::work() {
    std::unique_lock<std::mutex> held(lock);
    for (;;) {
        more.wait(held, [this] { return finishing || !queue.empty(); });
        if (queue.empty()) break;
        Operation operation = std::move(queue.front());
        queue.pop_front();
        held.unlock();
        operation();
        operation = nullptr;
        held.lock();
        pending--;
    }
    held.unlock();
    delete this;
}

CUstream new_stream(CUcontext device, bool blocking) {
    Held held(driver_lock);
    auto* stream = new PieStream;
    stream->device = device;
    stream->blocking = blocking;
    device->streams.insert(stream);
    live_streams().insert(stream);
    return stream;
}

CUstream stream_of(CUstream handle) {
    Held held(driver_lock);
    auto number = reinterpret_cast<uintptr_t>(handle);
    if (number <= 1) {
        if (!current_device) return nullptr;
        if (!current_device->null_stream) current_device->null_stream = new_stream(current_device, true);
        return current_device->null_stream;
    }
    if (number == 2) {
        static thread_local std::map<CUcontext, CUstream> of_thread;
        if (!current_device) return nullptr;
        CUstream& stream = of_thread[current_device];
        if (!stream) stream = new_stream(current_device, true);
        return stream;
    }
    if (live_streams().count(handle)) return handle;
    complain(CUDA_ERROR_INVALID_HANDLE, "%p is no stream", static_cast<void*>(handle));
    return nullptr;
}

// The null stream waits for all blocking streams, and they for it.
static CUresult order_with_null_stream(CUstream stream) {
    CUcontext device = stream->device;
    if (stream == device->null_stream) {
        for (CUstream other : device->streams) {
            if (other == stream || !other->blocking) continue;
            if (other->capture) {
                invalidate(*other->capture);
                return complain(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the null stream is used while a blocking stream captures");
            }
            if (!other->idle()) stream->push([mark = other->mark()] { mark->wait(); });
        }
    } else if (stream->blocking && device->null_stream && !device->null_stream->idle()) {
        stream->push([mark = device->null_stream->mark()] { mark->wait(); });
    }
    return CUDA_SUCCESS;
}

CUresult submit(CUstream stream, Operation operation) {
    Held held(driver_lock);
    if (stream->capture) {
        if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        stream->capture->operations.push_back(std::move(operation));
        stream->capture->recorded[stream]++;
        return CUDA_SUCCESS;
    }
    if (CUresult wrong = order_with_null_stream(stream)) return wrong;
    stream->push(std::move(operation));
    return CUDA_SUCCESS;
}

CUresult synchronize(CUstream stream) {
    std::shared_ptr<Mark> mark;
    {
        Held held(driver_lock);
        if (stream->capture) {
            invalidate(*stream->capture);
            return complain(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a stream that captures is waited for");
        }
        if (CUresult wrong = order_with_null_stream(stream)) return wrong;
        mark = stream->mark();
    }
    mark->wait();
    return CUDA_SUCCESS;
}

void invalidate(Capture& capture) { capture.invalid = true; }

CUresult refuse_in_capture(const char* call) {
    Held held(driver_lock);
    bool refused = false;
    for (Capture* one : captures()) {
        bool concerned = one->mode == CAPTURE_GLOBAL || (one->mode == CAPTURE_THREAD_LOCAL && one->thread == std::this_thread::get_id());
        if (!concerned) continue;
        invalidate(*one);
        refused = true;
    }
    return refused ? complain(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "%s while a stream captures", call) : CUDA_SUCCESS;
}

PIE_EXPORT CUresult pie_emulator_enqueue(CUstream stream, void (*run)(void*), void* data, void (*drop)(void*)) {
    std::shared_ptr<void> kept(data, [drop](void* value) { if (drop) drop(value); });
    stream = stream_of(stream);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    return submit(stream, [run, kept] { run(kept.get()); });
}

PIE_EXPORT CUresult cuStreamCreate(CUstream* result, unsigned flags) {
    NEED_CONTEXT();
    *result = new_stream(current_device, !(flags & STREAM_NON_BLOCKING));
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuStreamCreateWithPriority(CUstream* result, unsigned flags, int) { return cuStreamCreate(result, flags); }

PIE_EXPORT CUresult cuStreamDestroy_v2(CUstream stream) {
    Held held(driver_lock);
    if (reinterpret_cast<uintptr_t>(stream) <= 2 || !stream_of(stream)) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture) {
        captures().erase(stream->capture.get());
        stream->capture = nullptr;
    }
    live_streams().erase(stream);
    stream->device->streams.erase(stream);
    stream->finish();
    return CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuStreamSynchronize(CUstream stream) {
    stream = stream_of(stream);
    return stream ? synchronize(stream) : CUDA_ERROR_INVALID_HANDLE;
}

PIE_EXPORT CUresult cuStreamQuery(CUstream stream) {
    if (CUresult refused = refuse_in_capture(__func__)) return refused;
    stream = stream_of(stream);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    return stream->idle() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

PIE_EXPORT CUresult cuLaunchHostFunc(CUstream stream, void (*function)(void*), void* data) {
    stream = stream_of(stream);
    return stream ? submit(stream, [=] { function(data); }) : CUDA_ERROR_INVALID_HANDLE;
}

PIE_EXPORT CUresult cuCtxSynchronize() {
    NEED_CONTEXT();
    if (CUresult refused = refuse_in_capture(__func__)) return refused;
    std::vector<std::shared_ptr<Mark>> marks;
    {
        Held held(driver_lock);
        for (CUstream stream : current_device->streams) marks.push_back(stream->mark());
    }
    for (auto& mark : marks) mark->wait();
    return CUDA_SUCCESS;
}

static CUevent event_of(CUevent handle) {
    if (live_events().count(handle)) return handle;
    complain(CUDA_ERROR_INVALID_HANDLE, "%p is no event", static_cast<void*>(handle));
    return nullptr;
}

PIE_EXPORT CUresult cuEventCreate(CUevent* result, unsigned flags) {
    NEED_CONTEXT();
    Held held(driver_lock);
    *result = new PieEvent;
    (*result)->device = current_device;
    (*result)->timing = !(flags & EVENT_DISABLE_TIMING);
    live_events().insert(*result);
    return CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuEventDestroy_v2(CUevent event) {
    Held held(driver_lock);
    if (!event_of(event)) return CUDA_ERROR_INVALID_HANDLE;
    live_events().erase(event);
    delete event;
    return CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuEventRecord(CUevent event, CUstream stream) {
    Held held(driver_lock);
    stream = stream_of(stream);
    if (!stream || !event_of(event)) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->device != event->device) return complain(CUDA_ERROR_INVALID_HANDLE, "an event is recorded on another device");
    if (stream->capture) {
        if (stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
        event->capture = stream->capture;
        event->captured_on = stream;
        event->captured_at = stream->capture->recorded[stream];
        return CUDA_SUCCESS;
    }
    auto mark = std::make_shared<Mark>();
    CUresult result = submit(stream, [mark] { mark->reach(); });
    if (result) return result;
    event->mark = mark;
    event->capture = nullptr;
    return CUDA_SUCCESS;
}

static CUresult mark_of(CUevent event, std::shared_ptr<Mark>& mark, const char* call) {
    if (CUresult refused = refuse_in_capture(call)) return refused;
    Held held(driver_lock);
    if (!event_of(event)) return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture) return complain(CUDA_ERROR_CAPTURED_EVENT, "%s of an event that belongs to a capture", call);
    mark = event->mark;
    return CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuEventQuery(CUevent event) {
    std::shared_ptr<Mark> mark;
    if (CUresult wrong = mark_of(event, mark, __func__)) return wrong;
    return !mark || mark->is_reached() ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
}

PIE_EXPORT CUresult cuEventSynchronize(CUevent event) {
    std::shared_ptr<Mark> mark;
    if (CUresult wrong = mark_of(event, mark, __func__)) return wrong;
    if (mark) mark->wait();
    return CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
    Held held(driver_lock);
    if (!event_of(start) || !event_of(end) || !start->timing || !end->timing) return CUDA_ERROR_INVALID_HANDLE;
    if (!start->mark || !end->mark) return CUDA_ERROR_INVALID_HANDLE;
    if (!start->mark->is_reached() || !end->mark->is_reached()) return CUDA_ERROR_NOT_READY;
    *milliseconds = float((end->mark->when - start->mark->when) * 1e3);
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
    return cuEventElapsedTime_v2(milliseconds, start, end);
}

// A wait for a captured event draws the waiting stream into the capture; one across its border is an error.
static CUresult wait_for_captured(CUstream stream, CUevent event) {
    if (!event->capture || (stream->capture && stream->capture != event->capture)) {
        invalidate(*stream->capture);
        return complain(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "a stream that captures waits for an event from outside of its capture");
    }
    Capture& capture = *event->capture;
    if (!captures().count(&capture)) return complain(CUDA_ERROR_INVALID_VALUE, "a wait for an event of a capture that has ended");
    if (!stream->capture) {
        stream->capture = event->capture;
        capture.recorded[stream] = 1;
    }
    size_t& joined = capture.joined[event->captured_on];
    if (event->captured_on != stream && joined < event->captured_at) joined = event->captured_at;
    return CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuStreamWaitEvent(CUstream stream, CUevent event, unsigned) {
    Held held(driver_lock);
    stream = stream_of(stream);
    if (!stream || !event_of(event)) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture && stream->capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    if (stream->capture && !event->capture && !event->mark) return CUDA_SUCCESS;
    if (stream->capture || event->capture) return wait_for_captured(stream, event);
    if (!event->mark || event->mark->is_reached()) return CUDA_SUCCESS;
    return submit(stream, [mark = event->mark] { mark->wait(); });
}

PIE_EXPORT CUresult cuStreamBeginCapture_v2(CUstream stream, unsigned mode) {
    Held held(driver_lock);
    if (reinterpret_cast<uintptr_t>(stream) <= 1) return complain(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the null stream cannot capture");
    stream = stream_of(stream);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture) return complain(CUDA_ERROR_ILLEGAL_STATE, "the stream captures already");
    auto capture = std::make_shared<Capture>();
    capture->origin = stream;
    capture->mode = int(mode);
    capture->thread = std::this_thread::get_id();
    stream->capture = capture;
    captures().insert(capture.get());
    return CUDA_SUCCESS;
}

// Takes the capture from its streams. An error if it became invalid, or if a stream was drawn in and not waited for.
CUresult end_capture(CUstream stream, std::shared_ptr<Capture>& capture) {
    Held held(driver_lock);
    stream = stream_of(stream);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    capture = stream->capture;
    if (!capture) return complain(CUDA_ERROR_ILLEGAL_STATE, "the end of a capture on a stream that does not capture");
    if (capture->origin != stream) return complain(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "a capture ends on another stream than it began");
    if (capture->mode != CAPTURE_RELAXED && capture->thread != std::this_thread::get_id()) {
        return complain(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "a capture ends on another thread than it began");
    }
    captures().erase(capture.get());
    bool unjoined = false;
    for (CUstream one : live_streams()) {
        if (one->capture != capture) continue;
        one->capture = nullptr;
        unjoined |= one != stream && capture->joined[one] < capture->recorded[one];
    }
    if (capture->invalid) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    return unjoined ? complain(CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "a captured stream was not waited for") : CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuStreamIsCapturing(CUstream stream, unsigned* status) {
    Held held(driver_lock);
    stream = stream_of(stream);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    *status = !stream->capture ? 0 : stream->capture->invalid ? 2 : 1;
    return CUDA_SUCCESS;
}
