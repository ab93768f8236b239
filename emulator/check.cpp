// The emulator's own tests: scripts/gpu/emulator.sh --check builds and runs them.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

using pie_emulator::run;

PIE_KERNEL(add, const float* a, const float* b, float* c, uint32_t n) {
    uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) c[i] = a[i] + b[i];
}

PIE_KERNEL(total, const float* a, float* out, uint32_t n) {
    PIE_SHARED(bytes);
    float* part = reinterpret_cast<float*>(bytes);
    float sum = 0;
    for (uint32_t i = threadIdx.x; i < n; i += blockDim.x) sum += a[i];
    for (int s = 16; s; s /= 2) sum += __shfl_xor_sync(0xffffffff, sum, s);
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = sum;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    sum = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0;
    for (int s = 16; s; s /= 2) sum += __shfl_down_sync(0xffffffff, sum, unsigned(s));
    if (threadIdx.x == 0) *out = sum;
}

// c = a b by two ways to load b: `b` holds its columns one after another, `rows_of_b` its rows.
template <typename T, bool waits> static void product(const T* a, const T* b, const T* rows_of_b, float* c, float* same) {
    PIE_SHARED(bytes);
    T *left = reinterpret_cast<T*>(bytes), *columns = left + 256, *rows = columns + 256;
    unsigned lane = threadIdx.x;
    pie::copy_async_16(left + lane * 8, a + lane * 8, true);
    pie::copy_async_commit();
    pie::copy_async_16(columns + lane * 8, b + lane * 8, lane < 16);
    pie::copy_async_16(rows + lane * 8, rows_of_b + lane * 8, true);
    pie::copy_async_commit();
    pie::copy_async_wait<waits ? 0 : 1>();
    __syncwarp();
    uint32_t fa[4], fb[4], ft[4];
    pie::load_matrix_x4(fa, left + lane % 16 * 16 + lane / 16 * 8);
    pie::load_matrix_x4(fb, columns + (lane % 8 + lane / 16 * 8) * 16 + lane / 8 % 2 * 8);
    pie::load_matrix_x4_transposed(ft, rows + lane % 16 * 16 + lane / 16 * 8);
    float once[4] = {}, again[4] = {};
    pie::multiply_add(once, fa, fb[0], fb[1], T());
    pie::multiply_add(again, fa, ft[0], ft[1], T());
    for (int i = 0; i < 4; i++) {
        unsigned at = (lane / 4 + 8 * (unsigned(i) / 2)) * 8 + 2 * (lane % 4) + unsigned(i) % 2;
        c[at] = once[i];
        same[at] = again[i];
    }
}
PIE_KERNEL(product_bf16, const nv_bfloat16* a, const nv_bfloat16* b, const nv_bfloat16* t, float* c, float* same) {
    product<nv_bfloat16, true>(a, b, t, c, same);
}
PIE_KERNEL(product_f16, const half* a, const half* b, const half* t, float* c, float* same) { product<half, true>(a, b, t, c, same); }
PIE_KERNEL(product_without_wait, const half* a, const half* b, const half* t, float* c, float* same) {
    product<half, false>(a, b, t, c, same);
}

PIE_KERNEL(neighbour, int* out, int with_barrier) {
    PIE_SHARED(bytes);
    int* all = reinterpret_cast<int*>(bytes);
    all[threadIdx.x] = int(threadIdx.x);
    if (with_barrier) __syncthreads();
    out[threadIdx.x] = all[(threadIdx.x + blockDim.x - 1) % blockDim.x];
}

PIE_KERNEL(one_stays_away, int elsewhere) {
    if (threadIdx.x != 37) __syncthreads();
    else if (elsewhere) __syncwarp();
}
PIE_KERNEL(one_shuffles, int x) {
    if (threadIdx.x == 37) __shfl_sync(~0u, x, 0);
    else __syncwarp();
}
PIE_KERNEL(write_shared, int offset) {
    PIE_SHARED(bytes);
    bytes[int(threadIdx.x) + offset] = 1;
}
PIE_KERNEL(write_memory, char* place) { *place = 1; }
PIE_KERNEL(misaligned, int offset) {
    PIE_SHARED(bytes);
    uint32_t r[4];
    pie::load_matrix_x4(r, bytes + threadIdx.x * 16 + offset);
}

static int failures = 0;

static void check(bool good, const std::string& what) {
    if (!good) failures++;
    printf("%s %s\n", good ? "  ok  " : "FAILED", what.c_str());
}

// Runs it in a process of its own, which must end with a line on stderr that has `message` in it.
static void check_dies(const std::string& what, const std::string& message, const std::function<void()>& work) {
    int pipes[2];
    if (pipe(pipes)) abort();
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        dup2(pipes[1], 2);
        work();
        _exit(0);
    }
    close(pipes[1]);
    std::string said;
    char part[500];
    for (ssize_t n; (n = read(pipes[0], part, sizeof part)) > 0;) said.append(part, size_t(n));
    close(pipes[0]);
    int status = 0;
    waitpid(child, &status, 0);
    bool good = WIFSIGNALED(status) && said.find(message) != std::string::npos;
    check(good, what);
    if (!good) printf("         %s\n", said.c_str());
}

template <typename T> static int wrong_products(const char* name) {
    alignas(16) static T a[256], b[256], t[256];
    float c[128], same[128];
    for (int i = 0; i < 256; i++) {
        a[i] = T(float(rand() % 17 - 8));
        b[i] = T(float(rand() % 17 - 8));
    }
    for (int i = 0; i < 256; i++) t[i % 16 * 16 + i / 16] = b[i];
    run(name, {1}, {32}, 1536, (const T*)a, (const T*)b, (const T*)t, (float*)c, (float*)same);
    int wrong = 0;
    for (int i = 0; i < 128; i++) {
        float sum = 0;
        for (int k = 0; k < 16; k++) sum += float(a[i / 8 * 16 + k]) * float(b[i % 8 * 16 + k]);
        wrong += !(c[i] == sum && same[i] == sum);
    }
    return wrong;
}

static int wrong_neighbours(int with_barrier) {
    int out[64], wrong = 0;
    run("neighbour", {1}, {64}, 256, (int*)out, with_barrier);
    for (int i = 0; i < 64; i++) wrong += out[i] != (i + 63) % 64;
    return wrong;
}

// Of the number and both of its neighbours it must be the nearest, and the even one of two that are as near.
static bool rounds(float value, float (*of)(uint16_t), uint16_t bits) {
    double off = fabs(double(of(bits)) - value);
    for (int step : {-1, 1}) {
        if ((bits & 0x7fff) == 0 && step < 0) continue;
        double other = fabs(double(of(uint16_t(bits + step))) - value);
        if (other < off || (other == off && (bits & 1))) return false;
    }
    return true;
}

static void check_numbers() {
    using namespace pie_emulator;
    int wrong = 0, differ = 0;
    for (uint32_t h = 0; h < 65536; h++) {
        float value = of_half(uint16_t(h));
        if (value == value) wrong += half_of(value) != h || of_half_by_bits(uint16_t(h)) != value;
    }
    for (uint64_t u = 0; u < 0x100000000; u += 1237) {
        float value = same_bits<float>(uint32_t(u));
        if (value != value) continue;
        differ += half_of(value) != half_of_by_bits(value);
        if (fabsf(value) < 65504) wrong += !rounds(value, of_half_by_bits, half_of_by_bits(value));
        if (fabsf(value) < 3e38f) wrong += !rounds(value, of_bfloat, bfloat_of(value));
    }
    check(!wrong && !differ, "halves and bf16 round to the nearest, ties to even");
    bool edges = half_of(65519.99f) == 0x7bff && half_of(65520) == 0x7c00 && half_of(-INFINITY) == 0xfc00 && half_of(NAN) == 0x7fff;
    edges &= bfloat_of(NAN) == 0x7fff && bfloat_of(INFINITY) == 0x7f80 && bfloat_of(3.4e38f) == 0x7f80 && half_of(0x1p-25f) == 0;
    check(edges, "infinities, not-a-numbers and the smallest");
}

static void check_results() {
    std::vector<float> a(10007), b(a.size()), c(a.size());
    double sum = 0;
    for (size_t i = 0; i < a.size(); i++) sum += (a[i] = float(i % 7)), b[i] = float(i % 3);
    run("add", {40}, {256}, 0, (const float*)a.data(), (const float*)b.data(), c.data(), uint32_t(a.size()));
    int wrong = 0;
    for (size_t i = 0; i < a.size(); i++) wrong += c[i] != a[i] + b[i];
    float out = 0;
    run("total", {1}, {1024}, 128, (const float*)a.data(), &out, uint32_t(a.size()));
    check(!wrong, "an addition");
    check(double(out) == sum, "a reduction with shuffles and a barrier");
    check(!wrong_products<nv_bfloat16>("product_bf16"), "cp.async, ldmatrix and mma of bf16");
    check(!wrong_products<half>("product_f16"), "the same of f16");
    check(wrong_products<half>("product_without_wait") > 0, "a missing wait for cp.async shows");
    check(!wrong_neighbours(1), "neighbours with a barrier");
}

int main() {
    check_numbers();
    for (const char* order : {"forward", "reverse", "shuffle:7"}) {
        printf("order %s\n", order);
        pie_emulator::set_order(order);
        check_results();
        check(wrong_neighbours(0) > 0, "a missing barrier shows");
    }
    check_dies("a barrier that one thread never reaches", "thread (37, 0, 0) has ended", [] { run("one_stays_away", {1}, {64}, 0, 0); });
    check_dies("threads in different barriers", "waits in __syncwarp", [] { run("one_stays_away", {1}, {64}, 0, 1); });
    check_dies("lanes in different operations", "while other threads of its warp", [] { run("one_shuffles", {1}, {64}, 0, 0); });
    check_dies("a byte behind shared memory", "outside of the block's shared memory", [] { run("write_shared", {1}, {64}, 100, 37); });
    check_dies("a page behind shared memory", "next to the block's shared memory", [] { run("write_shared", {1}, {64}, 112, 49); });
    check_dies("a byte before shared memory", "outside of the block's shared memory", [] { run("write_shared", {1}, {64}, 112, -1); });
    check_dies("memory that is none", "touched memory that it may not", [] { run("write_memory", {1}, {32}, 0, (char*)64); });
    check_dies("ldmatrix of a row that is not aligned", "no multiple of 16", [] { run("misaligned", {1}, {32}, 600, 4); });
    printf("%d failed\n", failures);
    return failures ? 1 : 0;
}
