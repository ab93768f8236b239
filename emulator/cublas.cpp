// Matrix products as cuBLAS calls them: columns first, in the order of the stream.
#include <cstdio>
#include <cstring>
#include <memory>
#include <set>
#include <mutex>
#include <vector>

#include "names.hpp"
#include "types.hpp"

namespace {

enum Status : unsigned {
    SUCCESS = 0, NOT_INITIALIZED = 1, INVALID_VALUE = 7, EXECUTION_FAILED = 13, NOT_SUPPORTED = 15,
};
enum Type : int { F32 = 0, F16 = 2, BF16 = 14 };

struct Handle {
    CUstream stream = nullptr;
    bool scalars_on_device = false;
};

std::mutex handles_lock;
std::set<Handle*>& handles() {
    static auto* all = new std::set<Handle*>;
    return *all;
}
bool known(Handle* handle) {
    std::lock_guard<std::mutex> held(handles_lock);
    return handles().count(handle);
}

// op(A) is m x k, op(B) k x n, C m x n; the strides lie between the matrices of a batch.
struct Product {
    bool transposed_a, transposed_b;
    int m, n, k;
    const void *a, *b;
    void* c;
    Type type_a, type_b, type_c;
    int64_t lda, ldb, ldc, stride_a, stride_b, stride_c;
    int batch;
    float alpha, beta;
    const float *alpha_later, *beta_later;
};

size_t size_of(Type type) { return type == F32 ? 4 : 2; }

typedef float Eight __attribute__((vector_size(32)));
const int panel = 16, columns = 6;

float load(const float* at) { return *at; }
float load(const __nv_bfloat16* at) { return float(*at); }
float load(const __half* at) { return float(*at); }
void store(float* at, float value) { *at = value; }
void store(__nv_bfloat16* at, float value) { *at = __nv_bfloat16(value); }
void store(__half* at, float value) { *at = __half(value); }

// `width` rows of a matrix as [k][width] floats, zeros where it has no more rows. Row i, column j lie at i * row + j * column.
template <typename T, int width>
void pack(const T* from, int64_t row, int64_t column, int rows, int k, float* to) {
    if (rows < width) memset(to, 0, size_t(k) * width * sizeof(float));
    const int together = 8;
    for (int begin = 0; begin < k; begin += together) {
        int end = begin + together < k ? begin + together : k;
        for (int i = 0; i < rows; i++) {
            const T* at = from + i * row;
            for (int j = begin; j < end; j++) to[int64_t(j) * width + i] = load(at + j * column);
        }
    }
}

// The sums of a panel of 16 rows with up to six columns, each in the order of k.
template <int count> void multiply(const float* a, const float* b, int k, float (*sums)[panel]) {
    Eight low[count] = {}, high[count] = {};
    for (int i = 0; i < k; i++) {
        Eight rows[2];
        memcpy(rows, a + int64_t(i) * panel, sizeof rows);
        for (int j = 0; j < count; j++) {
            float one = b[int64_t(i) * count + j];
            low[j] += rows[0] * one;
            high[j] += rows[1] * one;
        }
    }
    for (int j = 0; j < count; j++) {
        memcpy(sums[j], &low[j], 32);
        memcpy(sums[j] + 8, &high[j], 32);
    }
}

template <typename C> void write(C* c, float sum, float alpha, float beta) {
    float value = alpha * sum;
    if (beta != 0) value += beta * load(c);
    store(c, value);
}

template <typename T, typename C, int count> void one_product(const Product& p, const T* a, const T* b, C* c) {
    int64_t row_a = p.transposed_a ? p.lda : 1, column_a = p.transposed_a ? 1 : p.lda;
    int64_t row_b = p.transposed_b ? 1 : p.ldb, column_b = p.transposed_b ? p.ldb : 1;
    int groups = (p.n + count - 1) / count;
    size_t group_floats = size_t(p.k) * count;
    std::vector<float> panels_b(groups * group_floats), panel_a(size_t(p.k) * panel);
    for (int g = 0; g < groups; g++) {
        int rows = p.n - g * count < count ? p.n - g * count : count;
        pack<T, count>(b + g * count * row_b, row_b, column_b, rows, p.k, &panels_b[g * group_floats]);
    }
    for (int i = 0; i < p.m; i += panel) {
        int rows = p.m - i < panel ? p.m - i : panel;
        pack<T, panel>(a + i * row_a, row_a, column_a, rows, p.k, panel_a.data());
        for (int g = 0; g < groups; g++) {
            float sums[count][panel];
            multiply<count>(panel_a.data(), &panels_b[g * group_floats], p.k, sums);
            for (int j = 0; j < count && g * count + j < p.n; j++) {
                C* column = c + (g * count + j) * p.ldc + i;
                for (int r = 0; r < rows; r++) write(column + r, sums[j][r], p.alpha, p.beta);
            }
        }
    }
}

template <typename T, typename C> void products(const Product& p) {
    for (int i = 0; i < p.batch; i++) {
        auto* a = static_cast<const T*>(p.a) + i * p.stride_a;
        auto* b = static_cast<const T*>(p.b) + i * p.stride_b;
        auto* c = static_cast<C*>(p.c) + i * p.stride_c;
        if (p.n == 1) one_product<T, C, 1>(p, a, b, c);
        else one_product<T, C, columns>(p, a, b, c);
    }
}

void run(void* data) {
    Product p = *static_cast<Product*>(data);
    if (p.alpha_later) p.alpha = *p.alpha_later;
    if (p.beta_later) p.beta = *p.beta_later;
    if (p.type_a == F32) products<float, float>(p);
    else if (p.type_a == BF16 && p.type_c == F32) products<__nv_bfloat16, float>(p);
    else if (p.type_a == BF16) products<__nv_bfloat16, __nv_bfloat16>(p);
    else if (p.type_c == F32) products<__half, float>(p);
    else products<__half, __half>(p);
}

void drop(void* data) { delete static_cast<Product*>(data); }

Status wrong(Status status, const char* what) {
    fprintf(stderr, "pie emulator: cuBLAS: %s\n", what);
    return status;
}

// The bytes from the first to the last number of a batch.
size_t extent(int rows, int columns, int64_t leading, int64_t stride, int batch, Type type) {
    return size_t(stride * (batch - 1) + leading * (columns - 1) + rows) * size_of(type);
}

Status check(const Product& p) {
    if (p.m < 0 || p.n < 0 || p.k < 0 || p.batch < 0) return wrong(INVALID_VALUE, "a size below zero");
    int rows_a = p.transposed_a ? p.k : p.m, rows_b = p.transposed_b ? p.n : p.k;
    auto at_least = [](int rows) { return rows > 1 ? rows : 1; };
    if (p.lda < at_least(rows_a)) return wrong(INVALID_VALUE, "lda is less than the rows of A");
    if (p.ldb < at_least(rows_b)) return wrong(INVALID_VALUE, "ldb is less than the rows of B");
    if (p.ldc < at_least(p.m)) return wrong(INVALID_VALUE, "ldc is less than the rows of C");
    if (p.type_a != F32 && p.type_a != BF16 && p.type_a != F16) return wrong(NOT_SUPPORTED, "this type of A is not emulated");
    if (p.type_b != p.type_a) return wrong(NOT_SUPPORTED, "A and B of different types");
    if (p.type_c != F32 && p.type_c != p.type_a) return wrong(NOT_SUPPORTED, "C is neither f32 nor of the type of A");
    if (!p.m || !p.n || !p.batch) return SUCCESS;
    bool inside = pie_emulator_in_memory(p.c, extent(p.m, p.n, p.ldc, p.stride_c, p.batch, p.type_c), "C of a product");
    if (p.k) {
        int columns_a = p.transposed_a ? p.m : p.k, columns_b = p.transposed_b ? p.k : p.n;
        inside &= pie_emulator_in_memory(p.a, extent(rows_a, columns_a, p.lda, p.stride_a, p.batch, p.type_a), "A of a product");
        inside &= pie_emulator_in_memory(p.b, extent(rows_b, columns_b, p.ldb, p.stride_b, p.batch, p.type_b), "B of a product");
    }
    return inside ? SUCCESS : EXECUTION_FAILED;
}

Status enqueue(Handle* handle, Product p, const void* alpha, const void* beta) {
    if (!known(handle)) return NOT_INITIALIZED;
    if (!alpha || !beta) return INVALID_VALUE;
    if (Status status = check(p)) return status;
    if (!p.m || !p.n || !p.batch) return SUCCESS;
    if (handle->scalars_on_device) {
        p.alpha_later = static_cast<const float*>(alpha);
        p.beta_later = static_cast<const float*>(beta);
    } else {
        p.alpha = *static_cast<const float*>(alpha);
        p.beta = *static_cast<const float*>(beta);
    }
    return pie_emulator_enqueue(handle->stream, run, new Product(p), drop) ? EXECUTION_FAILED : SUCCESS;
}

bool in_f32(int compute) { return compute == 68 || compute == 69 || compute == 74 || compute == 75 || compute == 77; }

}  // namespace

PIE_EXPORT Status cublasCreate_v2(Handle** handle) {
    if (pie_emulator_current_device() < 0) return NOT_INITIALIZED;
    std::lock_guard<std::mutex> held(handles_lock);
    handles().insert(*handle = new Handle);
    return SUCCESS;
}
PIE_EXPORT Status cublasDestroy_v2(Handle* handle) {
    std::lock_guard<std::mutex> held(handles_lock);
    if (!handles().erase(handle)) return NOT_INITIALIZED;
    delete handle;
    return SUCCESS;
}
PIE_EXPORT Status cublasGetVersion_v2(Handle*, int* version) {
    *version = 130000;
    return SUCCESS;
}
PIE_EXPORT Status cublasSetStream_v2(Handle* handle, CUstream stream) {
    if (!known(handle)) return NOT_INITIALIZED;
    handle->stream = stream;
    return SUCCESS;
}
PIE_EXPORT Status cublasGetStream_v2(Handle* handle, CUstream* stream) {
    if (!known(handle)) return NOT_INITIALIZED;
    *stream = handle->stream;
    return SUCCESS;
}
PIE_EXPORT Status cublasSetWorkspace_v2(Handle* handle, void* place, size_t bytes) {
    if (!known(handle)) return NOT_INITIALIZED;
    if (!bytes) return SUCCESS;
    if (reinterpret_cast<uintptr_t>(place) % 16) return wrong(INVALID_VALUE, "a workspace that is not aligned");
    return pie_emulator_in_memory(place, bytes, "the workspace of cuBLAS") ? SUCCESS : INVALID_VALUE;
}
PIE_EXPORT Status cublasSetMathMode(Handle* handle, unsigned) { return known(handle) ? SUCCESS : NOT_INITIALIZED; }
PIE_EXPORT Status cublasSetPointerMode_v2(Handle* handle, unsigned mode) {
    if (!known(handle)) return NOT_INITIALIZED;
    handle->scalars_on_device = mode == 1;
    return SUCCESS;
}
PIE_EXPORT const char* cublasGetStatusString(Status status) {
    switch (status) {
        case SUCCESS: return "success";
        case NOT_INITIALIZED: return "not initialized";
        case INVALID_VALUE: return "invalid value";
        case EXECUTION_FAILED: return "execution failed";
        case NOT_SUPPORTED: return "not supported";
    }
    return "unknown";
}

PIE_EXPORT Status cublasGemmStridedBatchedEx(Handle* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a,
                                             Type type_a, int lda, long long stride_a, const void* b, Type type_b, int ldb,
                                             long long stride_b, const void* beta, void* c, Type type_c, int ldc, long long stride_c,
                                             int batch, int compute, int) {
    if (!in_f32(compute)) return wrong(NOT_SUPPORTED, "only sums in 32-bit floats are emulated");
    if (op_a < 0 || op_a > 2 || op_b < 0 || op_b > 2) return INVALID_VALUE;
    Product p{op_a != 0, op_b != 0, m, n, k, a, b, c, type_a, type_b, type_c, lda, ldb, ldc, stride_a, stride_b, stride_c,
              batch, 0, 0, nullptr, nullptr};
    return enqueue(handle, p, alpha, beta);
}
PIE_EXPORT Status cublasGemmEx(Handle* handle, int op_a, int op_b, int m, int n, int k, const void* alpha, const void* a, Type type_a,
                               int lda, const void* b, Type type_b, int ldb, const void* beta, void* c, Type type_c, int ldc,
                               int compute, int algorithm) {
    return cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, type_a, lda, 0, b, type_b, ldb, 0, beta, c, type_c, ldc, 0,
                                      1, compute, algorithm);
}
PIE_EXPORT Status cublasSgemm_v2(Handle* handle, int op_a, int op_b, int m, int n, int k, const float* alpha, const float* a, int lda,
                                 const float* b, int ldb, const float* beta, float* c, int ldc) {
    return cublasGemmEx(handle, op_a, op_b, m, n, k, alpha, a, F32, lda, b, F32, ldb, beta, c, F32, ldc, 68, -1);
}
PIE_EXPORT Status cublasSgemmStridedBatched(Handle* handle, int op_a, int op_b, int m, int n, int k, const float* alpha, const float* a,
                                            int lda, long long stride_a, const float* b, int ldb, long long stride_b, const float* beta,
                                            float* c, int ldc, long long stride_c, int batch) {
    return cublasGemmStridedBatchedEx(handle, op_a, op_b, m, n, k, alpha, a, F32, lda, stride_a, b, F32, ldb, stride_b, beta, c, F32,
                                      ldc, stride_c, batch, 68, -1);
}
