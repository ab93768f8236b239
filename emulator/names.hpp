// The part of CUDA's driver interface that the emulator speaks: numbers and handles as the true library has them.
#pragma once

#include <cstddef>
#include <cstdint>

#define PIE_EXPORT extern "C" __attribute__((visibility("default")))

typedef unsigned CUresult;
typedef int CUdevice;
typedef uint64_t CUdeviceptr;
typedef struct PieDevice* CUcontext;
typedef struct PieStream* CUstream;
typedef struct PieEvent* CUevent;
typedef struct PieModule* CUmodule;
typedef struct PieFunction* CUfunction;
typedef struct PieGraph* CUgraph;
typedef struct PieGraphExec* CUgraphExec;

enum : CUresult {
    CUDA_SUCCESS = 0,
    CUDA_ERROR_INVALID_VALUE = 1,
    CUDA_ERROR_OUT_OF_MEMORY = 2,
    CUDA_ERROR_NOT_INITIALIZED = 3,
    CUDA_ERROR_NO_DEVICE = 100,
    CUDA_ERROR_INVALID_DEVICE = 101,
    CUDA_ERROR_INVALID_CONTEXT = 201,
    CUDA_ERROR_INVALID_HANDLE = 400,
    CUDA_ERROR_ILLEGAL_STATE = 401,
    CUDA_ERROR_NOT_FOUND = 500,
    CUDA_ERROR_NOT_READY = 600,
    CUDA_ERROR_NOT_SUPPORTED = 801,
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900,
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901,
    CUDA_ERROR_STREAM_CAPTURE_MERGE = 902,
    CUDA_ERROR_STREAM_CAPTURE_UNMATCHED = 903,
    CUDA_ERROR_STREAM_CAPTURE_UNJOINED = 904,
    CUDA_ERROR_STREAM_CAPTURE_ISOLATION = 905,
    CUDA_ERROR_STREAM_CAPTURE_IMPLICIT = 906,
    CUDA_ERROR_CAPTURED_EVENT = 907,
    CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD = 908,
};

enum { STREAM_NON_BLOCKING = 1, EVENT_DISABLE_TIMING = 2 };
enum { CAPTURE_GLOBAL = 0, CAPTURE_THREAD_LOCAL = 1, CAPTURE_RELAXED = 2 };

// What the emulated cuBLAS and NCCL ask of the emulated driver.
PIE_EXPORT CUresult pie_emulator_enqueue(CUstream stream, void (*run)(void*), void* data, void (*drop)(void*));
// False, with a line on stderr, unless the bytes lie in one live allocation.
PIE_EXPORT bool pie_emulator_in_memory(const void* place, size_t bytes, const char* what);
PIE_EXPORT CUresult cuStreamIsCapturing(CUstream stream, unsigned* status);
// The device of the calling thread's context, -1 if it has none.
PIE_EXPORT int pie_emulator_current_device();
