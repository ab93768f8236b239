// Device memory: pages of the host between guard pages, each allocation ending at its guard.
#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "device.hpp"
#include "fibers.hpp"
#include "threads.hpp"

namespace {

const unsigned char unset = 0xff, canary = 0xa5;
// Larger allocations are not filled, so that no pages are made that no one uses: they read as zeros.
const size_t filled_up_to = 64 << 20;
const size_t kept_after_free = 512;

struct Allocation {
    CUcontext device;
    size_t bytes;
    std::unique_ptr<pie_emulator::Guarded> pages;
    unsigned char* begin() const { return pages->end() - (bytes + 15) / 16 * 16; }
};

std::map<CUdeviceptr, Allocation>& live() {
    static auto* all = new std::map<CUdeviceptr, Allocation>;
    return *all;
}

struct Freed { CUdeviceptr begin; size_t bytes; std::unique_ptr<pie_emulator::Guarded> pages; };
std::deque<Freed>& freed() {
    static auto* all = new std::deque<Freed>;
    return *all;
}

std::map<uintptr_t, size_t>& pinned() {
    static auto* all = new std::map<uintptr_t, size_t>;
    return *all;
}

const Allocation* allocation_at(CUdeviceptr place, size_t bytes) {
    auto next = live().upper_bound(place);
    if (next == live().begin()) return nullptr;
    auto found = std::prev(next);
    bool inside = place - found->first <= found->second.bytes && bytes <= found->second.bytes - (place - found->first);
    return inside ? &found->second : nullptr;
}

bool is_pinned(const void* place, size_t bytes) {
    Held held(driver_lock);
    auto at = reinterpret_cast<uintptr_t>(place);
    auto next = pinned().upper_bound(at);
    if (next == pinned().begin()) return false;
    auto found = std::prev(next);
    return at - found->first <= found->second && bytes <= found->second - (at - found->first);
}

const char* describe(const void* address) {
    // Called from a signal handler of a process that ends: no lock is taken.
    static char text[120];
    auto place = reinterpret_cast<CUdeviceptr>(address);
    for (auto& one : freed()) {
        if (place < one.begin || place >= one.begin + one.bytes) continue;
        snprintf(text, sizeof text, ", %zu bytes into %zu bytes that have been freed", size_t(place - one.begin), one.bytes);
        return text;
    }
    for (auto& [begin, one] : live()) {
        if (!one.pages->guards(address)) continue;
        long long from_end = (long long)(place - begin) - (long long)(one.bytes);
        snprintf(text, sizeof text, ", %lld bytes behind the end of an allocation of %zu bytes", from_end, one.bytes);
        return text;
    }
    return ", no device memory";
}

CUresult allocate(CUdeviceptr* result, size_t bytes) {
    Held held(driver_lock);
    if (!result || !bytes) return CUDA_ERROR_INVALID_VALUE;
    size_t counted = (bytes + 511) / 512 * 512;
    if (counted > current_device->total - current_device->used) return CUDA_ERROR_OUT_OF_MEMORY;
    Allocation one{current_device, bytes, std::make_unique<pie_emulator::Guarded>(bytes)};
    unsigned char *begin = one.begin(), *first = one.pages->begin;
    memset(first, canary, size_t(begin - first));
    if (bytes <= filled_up_to) memset(begin, unset, bytes);
    memset(begin + bytes, canary, size_t(one.pages->end() - begin) - bytes);
    current_device->used += counted;
    *result = reinterpret_cast<CUdeviceptr>(begin);
    live().emplace(*result, std::move(one));
    return CUDA_SUCCESS;
}

// Takes it from the live ones at once; the pages go when the returned operation runs.
Operation let_go(CUdeviceptr place, const char* call, CUresult& result) {
    Held held(driver_lock);
    auto found = live().find(place);
    if (found == live().end()) {
        result = complain(CUDA_ERROR_INVALID_VALUE, "%s of %#llx, which is no live allocation", call, (unsigned long long)place);
        return nullptr;
    }
    auto one = std::make_shared<Allocation>(std::move(found->second));
    live().erase(found);
    one->device->used -= (one->bytes + 511) / 512 * 512;
    result = CUDA_SUCCESS;
    return [one, place] {
        unsigned char* begin = one->begin();
        for (unsigned char* p = one->pages->begin; p < one->pages->end(); p++) {
            if (p == begin) p += one->bytes;
            if (p == one->pages->end() || *p == canary) continue;
            fprintf(stderr, "pie emulator: something wrote %td bytes %s an allocation of %zu bytes\n",
                    p < begin ? begin - p : p - begin - ptrdiff_t(one->bytes), p < begin ? "before" : "behind", one->bytes);
            abort();
        }
        mmap(one->pages->begin, one->pages->bytes, PROT_NONE, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        Held held(driver_lock);
        freed().push_back({place, one->bytes, std::move(one->pages)});
        if (freed().size() > kept_after_free) freed().pop_front();
    };
}

CUresult now_on_null_stream(const char* call, Operation operation) {
    if (CUresult refused = refuse_in_capture(call)) return refused;
    CUstream stream = stream_of(nullptr);
    CUresult result = submit(stream, std::move(operation));
    return result ? result : synchronize(stream);
}

void* host(CUdeviceptr place) { return reinterpret_cast<void*>(place); }

Operation copy(void* to, const void* from, size_t bytes) {
    return [=] { memcpy(to, from, bytes); };
}

CUresult overlap(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    if (to + bytes <= from || from + bytes <= to) return CUDA_SUCCESS;
    return complain(CUDA_ERROR_INVALID_VALUE, "a copy from device to device whose parts overlap");
}

}  // namespace

void install_address_descriptions() { pie_emulator::describe_address = describe; }

bool in_memory(CUdeviceptr place, size_t bytes, const char* what) {
    Held held(driver_lock);
    if (allocation_at(place, bytes)) return true;
    complain(CUDA_ERROR_INVALID_VALUE, "%s: %zu bytes at %#llx do not lie in one live allocation", what, bytes,
             (unsigned long long)place);
    return false;
}

bool is_memory_or_null(CUdeviceptr place) {
    Held held(driver_lock);
    return !place || allocation_at(place, 0) || is_pinned(host(place), 0);
}

PIE_EXPORT bool pie_emulator_in_memory(const void* place, size_t bytes, const char* what) {
    return in_memory(reinterpret_cast<CUdeviceptr>(place), bytes, what);
}

PIE_EXPORT CUresult cuMemAlloc_v2(CUdeviceptr* result, size_t bytes) {
    NEED_CONTEXT();
    if (CUresult refused = refuse_in_capture(__func__)) return refused;
    return allocate(result, bytes);
}

PIE_EXPORT CUresult cuMemAllocAsync(CUdeviceptr* result, size_t bytes, CUstream stream) {
    NEED_CONTEXT();
    Held held(driver_lock);
    stream = stream_of(stream);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture) {
        invalidate(*stream->capture);
        return complain(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "memory of graphs is not emulated (cuMemAllocAsync in a capture)");
    }
    return allocate(result, bytes);
}

PIE_EXPORT CUresult cuMemFree_v2(CUdeviceptr place) {
    NEED_CONTEXT();
    if (!place) return CUDA_SUCCESS;
    if (CUresult refused = refuse_in_capture(__func__)) return refused;
    // The true one waits for the device too.
    std::vector<std::shared_ptr<Mark>> marks;
    {
        Held held(driver_lock);
        for (CUstream stream : current_device->streams) marks.push_back(stream->mark());
    }
    for (auto& mark : marks) mark->wait();
    CUresult result;
    if (Operation operation = let_go(place, __func__, result)) operation();
    return result;
}

PIE_EXPORT CUresult cuMemFreeAsync(CUdeviceptr place, CUstream stream) {
    NEED_CONTEXT();
    stream = stream_of(stream);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture) {
        invalidate(*stream->capture);
        return complain(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "memory of graphs is not emulated (cuMemFreeAsync in a capture)");
    }
    CUresult result;
    Operation operation = let_go(place, __func__, result);
    return operation ? submit(stream, operation) : result;
}

PIE_EXPORT CUresult cuMemGetInfo_v2(size_t* free_bytes, size_t* total) {
    NEED_CONTEXT();
    Held held(driver_lock);
    *free_bytes = current_device->total - current_device->used;
    *total = current_device->total;
    return CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuMemHostAlloc(void** result, size_t bytes, unsigned) {
    NEED_CONTEXT();
    if (CUresult refused = refuse_in_capture(__func__)) return refused;
    if (!bytes) return CUDA_ERROR_INVALID_VALUE;
    Held held(driver_lock);
    if (posix_memalign(result, 4096, bytes)) return CUDA_ERROR_OUT_OF_MEMORY;
    pinned()[reinterpret_cast<uintptr_t>(*result)] = bytes;
    return CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuMemFreeHost(void* place) {
    NEED_CONTEXT();
    {
        Held held(driver_lock);
        if (!pinned().erase(reinterpret_cast<uintptr_t>(place))) {
            return complain(CUDA_ERROR_INVALID_VALUE, "cuMemFreeHost of %p, which is no pinned memory", place);
        }
    }
    free(place);
    return CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuMemHostRegister_v2(void* place, size_t bytes, unsigned) {
    NEED_CONTEXT();
    Held held(driver_lock);
    pinned()[reinterpret_cast<uintptr_t>(place)] = bytes;
    return CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuMemHostUnregister(void* place) {
    Held held(driver_lock);
    return pinned().erase(reinterpret_cast<uintptr_t>(place)) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

PIE_EXPORT CUresult cuMemHostGetDevicePointer_v2(CUdeviceptr* result, void* place, unsigned) {
    if (!is_pinned(place, 0)) return CUDA_ERROR_INVALID_VALUE;
    *result = reinterpret_cast<CUdeviceptr>(place);
    return CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
    NEED_CONTEXT();
    if (!in_memory(to, bytes, __func__)) return CUDA_ERROR_INVALID_VALUE;
    return now_on_null_stream(__func__, copy(host(to), from, bytes));
}

PIE_EXPORT CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
    NEED_CONTEXT();
    if (!in_memory(from, bytes, __func__)) return CUDA_ERROR_INVALID_VALUE;
    return now_on_null_stream(__func__, copy(to, host(from), bytes));
}

PIE_EXPORT CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
    NEED_CONTEXT();
    if (!in_memory(to, bytes, __func__) || !in_memory(from, bytes, __func__)) return CUDA_ERROR_INVALID_VALUE;
    if (CUresult wrong = overlap(to, from, bytes)) return wrong;
    return now_on_null_stream(__func__, copy(host(to), host(from), bytes));
}

static CUresult pageable_in_capture(CUstream stream, const char* call) {
    invalidate(*stream->capture);
    return complain(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "%s with memory of the host that is not pinned, in a capture", call);
}

PIE_EXPORT CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
    NEED_CONTEXT();
    stream = stream_of(stream);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (!in_memory(to, bytes, __func__)) return CUDA_ERROR_INVALID_VALUE;
    if (is_pinned(from, bytes)) return submit(stream, copy(host(to), from, bytes));
    if (stream->capture) return pageable_in_capture(stream, __func__);
    auto* bytes_of = static_cast<const unsigned char*>(from);
    auto kept = std::make_shared<std::vector<unsigned char>>(bytes_of, bytes_of + bytes);
    return submit(stream, [=] { memcpy(host(to), kept->data(), bytes); });
}

PIE_EXPORT CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
    NEED_CONTEXT();
    stream = stream_of(stream);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (!in_memory(from, bytes, __func__)) return CUDA_ERROR_INVALID_VALUE;
    if (is_pinned(to, bytes)) return submit(stream, copy(to, host(from), bytes));
    if (stream->capture) return pageable_in_capture(stream, __func__);
    CUresult result = submit(stream, copy(to, host(from), bytes));
    return result ? result : synchronize(stream);
}

PIE_EXPORT CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
    NEED_CONTEXT();
    stream = stream_of(stream);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (!in_memory(to, bytes, __func__) || !in_memory(from, bytes, __func__)) return CUDA_ERROR_INVALID_VALUE;
    if (CUresult wrong = overlap(to, from, bytes)) return wrong;
    return submit(stream, copy(host(to), host(from), bytes));
}

PIE_EXPORT CUresult cuMemcpyPeerAsync(CUdeviceptr to, CUcontext, CUdeviceptr from, CUcontext, size_t bytes, CUstream stream) {
    return cuMemcpyDtoDAsync_v2(to, from, bytes, stream);
}

// Pages that are dropped read as zeros: a large cache that is cleared takes no memory before it is used.
static void clear(unsigned char* begin, size_t bytes) {
    const size_t page = 4096;
    unsigned char* first = reinterpret_cast<unsigned char*>((reinterpret_cast<uintptr_t>(begin) + page - 1) / page * page);
    unsigned char* last = reinterpret_cast<unsigned char*>(reinterpret_cast<uintptr_t>(begin + bytes) / page * page);
    if (bytes < (1 << 20) || madvise(first, size_t(last - first), MADV_DONTNEED)) {
        memset(begin, 0, bytes);
        return;
    }
    memset(begin, 0, size_t(first - begin));
    memset(last, 0, size_t(begin + bytes - last));
}

template <typename T> static Operation set_all(CUdeviceptr to, T value, size_t count) {
    if (!value) return [=] { clear(static_cast<unsigned char*>(host(to)), count * sizeof(T)); };
    return [=] {
        T* all = static_cast<T*>(host(to));
        for (size_t i = 0; i < count; i++) all[i] = value;
    };
}

template <typename T> static CUresult set_async(CUdeviceptr to, T value, size_t count, CUstream stream, const char* call) {
    NEED_CONTEXT();
    stream = stream_of(stream);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (to % sizeof(T) || !in_memory(to, count * sizeof(T), call)) return CUDA_ERROR_INVALID_VALUE;
    return submit(stream, set_all(to, value, count));
}

PIE_EXPORT CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count) {
    NEED_CONTEXT();
    if (!in_memory(to, count, __func__)) return CUDA_ERROR_INVALID_VALUE;
    return now_on_null_stream(__func__, set_all(to, value, count));
}
PIE_EXPORT CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream) {
    return set_async(to, value, count, stream, __func__);
}
PIE_EXPORT CUresult cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream) {
    return set_async(to, value, count, stream, __func__);
}
PIE_EXPORT CUresult cuMemsetD32Async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
    return set_async(to, value, count, stream, __func__);
}

// Pools have no state here: what is freed is given back at once.
PIE_EXPORT CUresult cuDeviceGetDefaultMemPool(void** pool, CUdevice) {
    static char the_pool;
    *pool = &the_pool;
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuDeviceGetMemPool(void** pool, CUdevice device) { return cuDeviceGetDefaultMemPool(pool, device); }
PIE_EXPORT CUresult cuMemPoolSetAttribute(void*, unsigned, void*) { return CUDA_SUCCESS; }
PIE_EXPORT CUresult cuMemPoolTrimTo(void*, size_t) { return CUDA_SUCCESS; }
