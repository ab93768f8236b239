// Devices, contexts, modules, launches and graphs.
#include <cstdio>
#include <algorithm>
#include <cstring>
#include <string>

#include "block.hpp"
#include "device.hpp"

thread_local CUcontext current_device = nullptr;

static const unsigned shared_without_asking = 48 << 10;

static std::vector<PieDevice>& devices() {
    static auto* all = [] {
        auto* made = new std::vector<PieDevice>(setting("PIE_EMULATOR_DEVICES", 1));
        int ordinal = 0;
        for (PieDevice& one : *made) {
            one.ordinal = ordinal++;
            one.total = setting("PIE_EMULATOR_MEMORY", uint64_t(8) << 30);
        }
        install_address_descriptions();
        return made;
    }();
    return *all;
}

static bool is_device(int device) { return device >= 0 && size_t(device) < devices().size(); }

PIE_EXPORT int pie_emulator_current_device() { return current_device ? current_device->ordinal : -1; }
PIE_EXPORT bool pie_emulator_set_order(const char* order) { return pie_emulator::set_order(order); }

struct Named { CUresult result; const char* name; };
static const Named names[] = {
    {CUDA_SUCCESS, "CUDA_SUCCESS"},
    {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
    {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
    {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
    {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
    {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
    {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
    {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
    {CUDA_ERROR_ILLEGAL_STATE, "CUDA_ERROR_ILLEGAL_STATE"},
    {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
    {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY"},
    {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
    {CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
    {CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
    {CUDA_ERROR_STREAM_CAPTURE_MERGE, "CUDA_ERROR_STREAM_CAPTURE_MERGE"},
    {CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "CUDA_ERROR_STREAM_CAPTURE_UNMATCHED"},
    {CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "CUDA_ERROR_STREAM_CAPTURE_UNJOINED"},
    {CUDA_ERROR_STREAM_CAPTURE_ISOLATION, "CUDA_ERROR_STREAM_CAPTURE_ISOLATION"},
    {CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "CUDA_ERROR_STREAM_CAPTURE_IMPLICIT"},
    {CUDA_ERROR_CAPTURED_EVENT, "CUDA_ERROR_CAPTURED_EVENT"},
    {CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD"},
};

PIE_EXPORT CUresult cuGetErrorName(CUresult result, const char** name) {
    for (const Named& one : names) {
        if (one.result != result) continue;
        *name = one.name;
        return CUDA_SUCCESS;
    }
    *name = nullptr;
    return CUDA_ERROR_INVALID_VALUE;
}
PIE_EXPORT CUresult cuGetErrorString(CUresult result, const char** text) { return cuGetErrorName(result, text); }

PIE_EXPORT CUresult cuInit(unsigned) { return devices().empty() ? CUDA_ERROR_NO_DEVICE : CUDA_SUCCESS; }
PIE_EXPORT CUresult cuDriverGetVersion(int* version) {
    *version = 13000;
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuDeviceGetCount(int* count) {
    *count = int(devices().size());
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuDeviceGet(CUdevice* device, int ordinal) {
    if (!is_device(ordinal)) return CUDA_ERROR_INVALID_DEVICE;
    *device = ordinal;
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuDeviceGetName(char* name, int bytes, CUdevice device) {
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    snprintf(name, size_t(bytes), "pie-pool's emulated device %d", device);
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuDeviceTotalMem_v2(size_t* bytes, CUdevice device) {
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    *bytes = devices()[size_t(device)].total;
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuDeviceGetUuid_v2(char* uuid, CUdevice device) {
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    memset(uuid, 0, 16);
    snprintf(uuid, 16, "pie-emulated-%d", device % 100);
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuDeviceGetPCIBusId(char* id, int bytes, CUdevice device) {
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    snprintf(id, size_t(bytes), "0000:%02X:00.0", unsigned(device + 1) & 0xff);
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuDeviceCanAccessPeer(int* can, CUdevice, CUdevice) {
    *can = 1;
    return CUDA_SUCCESS;
}

// By the numbers of CUdevice_attribute; an sm_80 with few multiprocessors.
PIE_EXPORT CUresult cuDeviceGetAttribute(int* value, int attribute, CUdevice device) {
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    switch (attribute) {
        case 1: case 2: case 3: *value = 1024; break;
        case 4: *value = 64; break;
        case 5: *value = 0x7fffffff; break;
        case 6: case 7: *value = 65535; break;
        case 8: *value = shared_without_asking; break;
        case 9: case 12: case 82: *value = 65536; break;
        case 10: *value = 32; break;
        case 11: *value = 0x7fffffff; break;
        case 13: *value = 1410000; break;
        case 16: *value = int(setting("PIE_EMULATOR_MULTIPROCESSORS", 16)); break;
        case 33: *value = device + 1; break;
        case 36: *value = 1215000; break;
        case 37: *value = 5120; break;
        case 38: *value = 40 << 20; break;
        case 39: *value = 2048; break;
        case 40: *value = 2; break;
        case 19: case 31: case 41: case 115: *value = 1; break;
        case 75: *value = 8; break;
        case 76: *value = 0; break;
        case 81: *value = 164 << 10; break;
        case 97: *value = int(pie_emulator::shared_limit); break;
        case 106: *value = 32; break;
        case 111: *value = 1024; break;
        default: *value = 0;
    }
    return CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuDevicePrimaryCtxRetain(CUcontext* context, CUdevice device) {
    if (!is_device(device)) return CUDA_ERROR_INVALID_DEVICE;
    *context = &devices()[size_t(device)];
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device) {
    return is_device(device) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
PIE_EXPORT CUresult cuCtxSetCurrent(CUcontext context) {
    current_device = context;
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuCtxGetCurrent(CUcontext* context) {
    *context = current_device;
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuCtxGetDevice(CUdevice* device) {
    NEED_CONTEXT();
    *device = current_device->ordinal;
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuCtxSetFlags(unsigned) { return CUDA_SUCCESS; }
PIE_EXPORT CUresult cuCtxGetStreamPriorityRange(int* least, int* greatest) {
    *least = *greatest = 0;
    return CUDA_SUCCESS;
}

struct PieFunction {
    pie_emulator::Kernel kernel;
    unsigned most_shared = shared_without_asking;
};

// What an image holds is not looked at: every module has all kernels.
struct PieModule { std::map<std::string, PieFunction> functions; };

PIE_EXPORT CUresult cuModuleLoadData(CUmodule* module, const void* image) {
    NEED_CONTEXT();
    if (!image) return CUDA_ERROR_INVALID_VALUE;
    *module = new PieModule;
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuModuleLoadDataEx(CUmodule* module, const void* image, unsigned, void*, void**) {
    return cuModuleLoadData(module, image);
}
PIE_EXPORT CUresult cuModuleLoad(CUmodule* module, const char* path) { return cuModuleLoadData(module, path); }
PIE_EXPORT CUresult cuModuleUnload(CUmodule module) {
    delete module;
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuModuleGetFunction(CUfunction* function, CUmodule module, const char* name) {
    const pie_emulator::Kernel* kernel = pie_emulator::find_kernel(name);
    if (!kernel) return complain(CUDA_ERROR_NOT_FOUND, "no kernel is called %s", name);
    Held held(driver_lock);
    *function = &module->functions.emplace(name, PieFunction{*kernel}).first->second;
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuLibraryLoadData(CUmodule* library, const void* code, void*, void**, unsigned, void*, void**, unsigned) {
    return cuModuleLoadData(library, code);
}
PIE_EXPORT CUresult cuLibraryUnload(CUmodule library) { return cuModuleUnload(library); }
PIE_EXPORT CUresult cuLibraryGetKernel(CUfunction* kernel, CUmodule library, const char* name) {
    return cuModuleGetFunction(kernel, library, name);
}
PIE_EXPORT CUresult cuKernelGetFunction(CUfunction* function, CUfunction kernel) {
    *function = kernel;
    return CUDA_SUCCESS;
}

enum { MAX_DYNAMIC_SHARED = 8, SHARED_CARVEOUT = 9 };

PIE_EXPORT CUresult cuFuncSetAttribute(CUfunction function, int attribute, int value) {
    if (attribute == SHARED_CARVEOUT) return CUDA_SUCCESS;
    if (attribute != MAX_DYNAMIC_SHARED) return CUDA_ERROR_INVALID_VALUE;
    if (value < 0 || size_t(value) > pie_emulator::shared_limit) {
        return complain(CUDA_ERROR_INVALID_VALUE, "%d bytes of shared memory for %s: at most %zu", value, function->kernel.name,
                        pie_emulator::shared_limit);
    }
    function->most_shared = unsigned(value);
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuFuncGetAttribute(int* value, int attribute, CUfunction function) {
    static const int fixed[] = {1024, 0, 0, 0, 64, 80, 80, 0};
    if (attribute < 0 || attribute > SHARED_CARVEOUT) return CUDA_ERROR_INVALID_VALUE;
    *value = attribute == MAX_DYNAMIC_SHARED ? int(function->most_shared) : attribute == SHARED_CARVEOUT ? -1 : fixed[attribute];
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuFuncSetCacheConfig(CUfunction, unsigned) { return CUDA_SUCCESS; }
PIE_EXPORT CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, CUfunction, int threads, size_t shared) {
    if (threads < 1 || threads > 1024) return CUDA_ERROR_INVALID_VALUE;
    size_t by_threads = size_t(2048 / threads), by_shared = (size_t(164) << 10) / (shared + 1024);
    *blocks = int(std::min({by_threads, by_shared, size_t(32)}));
    return CUDA_SUCCESS;
}

static CUresult check_shape(const PieFunction& function, dim3 grid, dim3 block, unsigned shared) {
    const char* name = function.kernel.name;
    uint64_t threads = uint64_t(block.x) * block.y * block.z;
    if (!threads || block.x > 1024 || block.y > 1024 || block.z > 64 || threads > 1024) {
        return complain(CUDA_ERROR_INVALID_VALUE, "%s: a block of (%u, %u, %u)", name, block.x, block.y, block.z);
    }
    if (!grid.x || !grid.y || !grid.z || grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535) {
        return complain(CUDA_ERROR_INVALID_VALUE, "%s: a grid of (%u, %u, %u)", name, grid.x, grid.y, grid.z);
    }
    if (shared > function.most_shared) {
        return complain(CUDA_ERROR_INVALID_VALUE, "%s: %u bytes of shared memory, allowed are %u", name, shared, function.most_shared);
    }
    return CUDA_SUCCESS;
}

// The values of one launch, kept until it has run.
struct Values {
    std::vector<std::unique_ptr<unsigned char[]>> bytes;
    std::vector<void*> pointers;
};

static CUresult copy_values(const pie_emulator::Kernel& kernel, void** parameters, Values& values) {
    for (unsigned i = 0; i < kernel.parameters; i++) {
        values.bytes.emplace_back(new unsigned char[kernel.sizes[i]]);
        memcpy(values.bytes[i].get(), parameters[i], kernel.sizes[i]);
        values.pointers.push_back(values.bytes[i].get());
        CUdeviceptr place = 0;
        if (kernel.pointers[i]) memcpy(&place, parameters[i], sizeof place);
        if (is_memory_or_null(place)) continue;
        return complain(CUDA_ERROR_INVALID_VALUE, "%s: parameter %u, %#llx, does not point into live memory", kernel.name, i,
                        (unsigned long long)place);
    }
    return CUDA_SUCCESS;
}

PIE_EXPORT CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                                   unsigned block_y, unsigned block_z, unsigned shared, CUstream stream, void** parameters,
                                   void** extra) {
    NEED_CONTEXT();
    stream = stream_of(stream);
    if (!stream || !function) return CUDA_ERROR_INVALID_HANDLE;
    dim3 grid{grid_x, grid_y, grid_z}, block{block_x, block_y, block_z};
    if (CUresult wrong = check_shape(*function, grid, block, shared)) return wrong;
    if (extra) return complain(CUDA_ERROR_NOT_SUPPORTED, "%s: parameters by `extra`", function->kernel.name);
    auto values = std::make_shared<Values>();
    if (CUresult wrong = copy_values(function->kernel, parameters, *values)) return wrong;
    return submit(stream, [kernel = function->kernel, grid, block, shared, values] {
        pie_emulator::launch(kernel, grid, block, shared, values->pointers.data());
    });
}

struct PieGraph { std::vector<Operation> operations; };
// One launch of an instance runs at a time, as with the true ones.
struct PieGraphExec {
    std::shared_ptr<std::vector<Operation>> operations;
    std::shared_ptr<std::mutex> running;
};

CUresult end_capture(CUstream stream, std::shared_ptr<Capture>& capture);

PIE_EXPORT CUresult cuStreamEndCapture(CUstream stream, CUgraph* graph) {
    std::shared_ptr<Capture> capture;
    *graph = nullptr;
    if (CUresult wrong = end_capture(stream, capture)) return wrong;
    *graph = new PieGraph{std::move(capture->operations)};
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuGraphInstantiateWithFlags(CUgraphExec* instance, CUgraph graph, unsigned long long flags) {
    if (flags & ~1ull) return complain(CUDA_ERROR_INVALID_VALUE, "flags %llu of a graph are not emulated", flags);
    *instance = new PieGraphExec{std::make_shared<std::vector<Operation>>(graph->operations), std::make_shared<std::mutex>()};
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuGraphLaunch(CUgraphExec instance, CUstream stream) {
    NEED_CONTEXT();
    stream = stream_of(stream);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    return submit(stream, [operations = instance->operations, running = instance->running] {
        std::lock_guard<std::mutex> held(*running);
        for (Operation& operation : *operations) operation();
    });
}
PIE_EXPORT CUresult cuGraphUpload(CUgraphExec, CUstream stream) { return stream_of(stream) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE; }
PIE_EXPORT CUresult cuGraphExecDestroy(CUgraphExec instance) {
    delete instance;
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuGraphDestroy(CUgraph graph) {
    delete graph;
    return CUDA_SUCCESS;
}
PIE_EXPORT CUresult cuGraphGetNodes(CUgraph graph, void**, size_t* count) {
    *count = graph->operations.size();
    return CUDA_SUCCESS;
}
