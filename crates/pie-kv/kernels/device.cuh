// What all kernels share: how they are declared, numbers of 16 bytes at once, and the instructions that have no name in C++.
//
// Every file of kernels is compiled twice: by nvcc to PTX, and with PIE_EMULATED by a C++ compiler for the host, where
// emulator/cuda_on_cpu.hpp, included first, stands for what CUDA gives. scripts/gpu/kernels.sh makes the PTX.
#pragma once

#include <cstdint>

#ifndef PIE_EMULATED

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#define PIE_DEVICE __device__ __forceinline__
#define PIE_KERNEL(name, ...) extern "C" __global__ void name(__VA_ARGS__)
// With a limit of registers, such that `blocks` of `threads` fit a multiprocessor at once.
#define PIE_KERNEL_OF(threads, blocks, name, ...) \
    extern "C" __global__ void __launch_bounds__(threads, blocks) name(__VA_ARGS__)
#define PIE_SHARED(bytes) extern __shared__ __align__(16) unsigned char bytes[]

namespace pie {

using bf16 = __nv_bfloat16;
using f16 = __half;

PIE_DEVICE uint32_t shared_address(const void* shared) { return static_cast<uint32_t>(__cvta_generic_to_shared(shared)); }

// Four 8 x 8 matrices of 16-bit numbers: lane 8 m + r passes the address of row r of matrix m, and gets of each matrix the
// numbers 2 (lane % 4) and the next of row lane / 4.
PIE_DEVICE void load_matrix_x4(uint32_t (&r)[4], const void* shared_row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(shared_row))
                 : "memory");
}

// The same of the transposed matrices.
PIE_DEVICE void load_matrix_x4_transposed(uint32_t (&r)[4], const void* shared_row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(shared_row))
                 : "memory");
}

// c += a b: a is 16 x 16, b 16 x 8, c 16 x 8. With g = lane / 4 and i = 2 (lane % 4): c has (g, i), (g, i + 1), (g + 8, i)
// and (g + 8, i + 1); a has pairs along from (g, i), (g + 8, i), (g, i + 8), (g + 8, i + 8); b0 and b1 have pairs down from
// (i, g) and (i + 8, g).
PIE_DEVICE void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, bf16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
PIE_DEVICE void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, f16) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// 16 bytes to shared memory, past the registers and the first-level cache; zeros, and no read, if not present.
PIE_DEVICE void copy_async_16(void* shared, const void* global, bool present) {
    const int bytes = present ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes)
                 : "memory");
}
PIE_DEVICE void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N>
PIE_DEVICE void copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
}

// 16 bytes that are read once: they do not push others out of the first-level cache.
PIE_DEVICE uint4 load_once(const uint4* global) {
    uint4 bits;
    asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
        : "=r"(bits.x), "=r"(bits.y), "=r"(bits.z), "=r"(bits.w)
        : "l"(global));
    return bits;
}

// 2^x to 2 units in the last place; 0 below the normal numbers.
PIE_DEVICE float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// The same number, of which the compiler knows nothing.
PIE_DEVICE uint32_t of_unknown_size(uint32_t x) {
    asm("" : "+r"(x));
    return x;
}

PIE_DEVICE float float_of(uint32_t bits) { return __uint_as_float(bits); }
PIE_DEVICE uint32_t bits_of(float x) { return __float_as_uint(x); }

// Two numbers in a word, the first in the lower half.
PIE_DEVICE uint32_t pack(float low, float high, bf16) {
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
PIE_DEVICE uint32_t pack(float low, float high, f16) {
    uint32_t word;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    return word;
}
PIE_DEVICE void unpack(uint32_t word, float& low, float& high, f16) {
    asm("{ .reg .b16 l, h; mov.b32 {l, h}, %2; cvt.f32.f16 %0, l; cvt.f32.f16 %1, h; }"
        : "=f"(low), "=f"(high)
        : "r"(word));
}

}  // namespace pie

#else

#include <cstring>

#define PIE_KERNEL_OF(threads, blocks, name, ...) PIE_KERNEL(name, __VA_ARGS__)

namespace pie {

using bf16 = __nv_bfloat16;
using f16 = __half;

PIE_DEVICE uint4 load_once(const uint4* global) { return *global; }
PIE_DEVICE float power_of_two(float x) { return exp2f(x); }
PIE_DEVICE uint32_t of_unknown_size(uint32_t x) { return x; }
PIE_DEVICE float float_of(uint32_t bits) {
    float x;
    std::memcpy(&x, &bits, sizeof x);
    return x;
}
PIE_DEVICE uint32_t bits_of(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return bits;
}
template <typename T>
PIE_DEVICE uint32_t word_of(T low, T high) {
    const T both[2] = {low, high};
    uint32_t word;
    std::memcpy(&word, both, sizeof word);
    return word;
}
PIE_DEVICE uint32_t pack(float low, float high, bf16) { return word_of(__float2bfloat16_rn(low), __float2bfloat16_rn(high)); }
PIE_DEVICE uint32_t pack(float low, float high, f16) { return word_of(__float2half_rn(low), __float2half_rn(high)); }
PIE_DEVICE void unpack(uint32_t word, float& low, float& high, f16) {
    f16 both[2];
    std::memcpy(static_cast<void*>(both), &word, sizeof word);
    low = __half2float(both[0]);
    high = __half2float(both[1]);
}

}  // namespace pie

#endif

namespace pie {

// A bf16 is the upper half of a float.
PIE_DEVICE void unpack(uint32_t word, float& low, float& high, bf16) {
    low = float_of(word << 16);
    high = float_of(word & 0xffff0000u);
}

PIE_DEVICE float to_float(float x) { return x; }
PIE_DEVICE float to_float(bf16 x) { return __bfloat162float(x); }
PIE_DEVICE float to_float(f16 x) { return __half2float(x); }

PIE_DEVICE void store(float* to, float x) { *to = x; }
PIE_DEVICE void store(bf16* to, float x) { *to = __float2bfloat16_rn(x); }
PIE_DEVICE void store(f16* to, float x) { *to = __float2half_rn(x); }

// Numbers of 16 bytes.
template <typename T>
constexpr uint32_t LANES = 16 / sizeof(T);

// 16 bytes of T as floats, and back, each rounded once.
template <typename T>
struct Wide {
    PIE_DEVICE static void unpack_16(const uint4& bits, float (&x)[8]) {
        unpack(bits.x, x[0], x[1], T());
        unpack(bits.y, x[2], x[3], T());
        unpack(bits.z, x[4], x[5], T());
        unpack(bits.w, x[6], x[7], T());
    }
    PIE_DEVICE static uint4 pack_16(const float (&x)[8]) {
        return make_uint4(pack(x[0], x[1], T()), pack(x[2], x[3], T()), pack(x[4], x[5], T()), pack(x[6], x[7], T()));
    }
};
template <>
struct Wide<float> {
    PIE_DEVICE static void unpack_16(const uint4& bits, float (&x)[4]) {
        x[0] = float_of(bits.x);
        x[1] = float_of(bits.y);
        x[2] = float_of(bits.z);
        x[3] = float_of(bits.w);
    }
    PIE_DEVICE static uint4 pack_16(const float (&x)[4]) {
        return make_uint4(bits_of(x[0]), bits_of(x[1]), bits_of(x[2]), bits_of(x[3]));
    }
};

// (a, b) turned by the angle of (cos, sin).
PIE_DEVICE void rotate(float& a, float& b, float2 angle) {
    const float first = fmaf(a, angle.x, -(b * angle.y));
    b = fmaf(b, angle.x, a * angle.y);
    a = first;
}

PIE_DEVICE float sum_of_warp(float x) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) x += __shfl_xor_sync(0xffffffffu, x, lanes);
    return x;
}
PIE_DEVICE float max_of_warp(float x) {
#pragma unroll
    for (int lanes = 16; lanes > 0; lanes /= 2) x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, lanes));
    return x;
}

}  // namespace pie
