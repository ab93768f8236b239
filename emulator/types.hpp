// Vector types, half precision types and the arithmetic functions of CUDA that kernels use.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#if defined(__F16C__)
#include <immintrin.h>
#endif

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x = 1, y = 1, z = 1; };

#define PIE_VECTORS(scalar, name, size)                                                            \
    struct alignas(2 * size) name##2 { scalar x, y; };                                             \
    struct alignas(4 * size < 16 ? 4 * size : 16) name##4 { scalar x, y, z, w; };                  \
    inline name##2 make_##name##2(scalar x, scalar y) { return {x, y}; }                           \
    inline name##4 make_##name##4(scalar x, scalar y, scalar z, scalar w) { return {x, y, z, w}; }
PIE_VECTORS(float, float, 4)
PIE_VECTORS(int, int, 4)
PIE_VECTORS(unsigned, uint, 4)
PIE_VECTORS(unsigned short, ushort, 2)
#undef PIE_VECTORS

namespace pie_emulator {

template <typename To, typename From> inline To same_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "sizes differ");
    To result;
    std::memcpy(&result, &value, sizeof result);
    return result;
}

inline uint16_t bfloat_of(float value) {
    uint32_t bits = same_bits<uint32_t>(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fff;
    return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}

inline float of_bfloat(uint16_t bits) { return same_bits<float>(uint32_t(bits) << 16); }

inline uint16_t half_of_by_bits(float value) {
    uint32_t bits = same_bits<uint32_t>(value), sign = (bits >> 16) & 0x8000u, size = bits & 0x7fffffffu;
    if (size >= 0x47800000u) return uint16_t(sign | 0x7c00u);
    if (size < 0x38800000u) {
        // Adding 0.5 moves the half's last bit to the float's last bit, so the addition itself rounds.
        float shifted = same_bits<float>(size) + 0.5f;
        return uint16_t(sign | (same_bits<uint32_t>(shifted) - 0x3f000000u));
    }
    size += 0xfffu + ((size >> 13) & 1);
    return uint16_t(sign | ((size - 0x38000000u) >> 13));
}

inline uint16_t half_of(float value) {
    if (value != value) return 0x7fff;
#if defined(__F16C__)
    return uint16_t(_cvtss_sh(value, 0));
#else
    return half_of_by_bits(value);
#endif
}

inline float of_half_by_bits(uint16_t half) {
    uint32_t sign = uint32_t(half & 0x8000u) << 16, size = half & 0x7fffu;
    if (size >= 0x7c00u) return same_bits<float>(sign | 0x7f800000u | ((size & 0x3ffu) << 13));
    if (size >= 0x0400u) return same_bits<float>(sign | ((size << 13) + 0x38000000u));
    return same_bits<float>(sign | same_bits<uint32_t>(float(size) * 0x1p-24f));
}

inline float of_half(uint16_t half) {
#if defined(__F16C__)
    return _cvtsh_ss(half);
#else
    return of_half_by_bits(half);
#endif
}

}  // namespace pie_emulator

// Only explicit conversions, so that no arithmetic is done in half precision by accident.
struct __nv_bfloat16 {
    uint16_t bits;
    __nv_bfloat16() = default;
    explicit __nv_bfloat16(float value) : bits(pie_emulator::bfloat_of(value)) {}
    explicit operator float() const { return pie_emulator::of_bfloat(bits); }
};
struct __half {
    uint16_t bits;
    __half() = default;
    explicit __half(float value) : bits(pie_emulator::half_of(value)) {}
    explicit operator float() const { return pie_emulator::of_half(bits); }
};
struct alignas(4) __nv_bfloat162 { __nv_bfloat16 x, y; };
struct alignas(4) __half2 { __half x, y; };
typedef __nv_bfloat16 nv_bfloat16;
typedef __nv_bfloat162 nv_bfloat162;
typedef __half half;
typedef __half2 half2;

inline float __bfloat162float(__nv_bfloat16 value) { return float(value); }
inline __nv_bfloat16 __float2bfloat16_rn(float value) { return __nv_bfloat16(value); }
inline __nv_bfloat16 __float2bfloat16(float value) { return __nv_bfloat16(value); }
inline float __half2float(__half value) { return float(value); }
inline __half __float2half_rn(float value) { return __half(value); }
inline __half __float2half(float value) { return __half(value); }

inline __nv_bfloat162 __halves2bfloat162(__nv_bfloat16 x, __nv_bfloat16 y) { return {x, y}; }
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) { return {__nv_bfloat16(x), __nv_bfloat16(y)}; }
inline __nv_bfloat162 __float22bfloat162_rn(float2 v) { return __floats2bfloat162_rn(v.x, v.y); }
inline float2 __bfloat1622float2(__nv_bfloat162 v) { return {float(v.x), float(v.y)}; }
inline float __low2float(__nv_bfloat162 v) { return float(v.x); }
inline float __high2float(__nv_bfloat162 v) { return float(v.y); }
inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
inline __half2 __float22half2_rn(float2 v) { return __floats2half2_rn(v.x, v.y); }
inline float2 __half22float2(__half2 v) { return {float(v.x), float(v.y)}; }
inline float __low2float(__half2 v) { return float(v.x); }
inline float __high2float(__half2 v) { return float(v.y); }

inline unsigned short __bfloat16_as_ushort(__nv_bfloat16 value) { return value.bits; }
inline __nv_bfloat16 __ushort_as_bfloat16(unsigned short bits) { return pie_emulator::same_bits<__nv_bfloat16>(bits); }
inline unsigned short __half_as_ushort(__half value) { return value.bits; }
inline __half __ushort_as_half(unsigned short bits) { return pie_emulator::same_bits<__half>(bits); }
inline unsigned __float_as_uint(float value) { return pie_emulator::same_bits<unsigned>(value); }
inline float __uint_as_float(unsigned bits) { return pie_emulator::same_bits<float>(bits); }
inline int __float_as_int(float value) { return pie_emulator::same_bits<int>(value); }
inline float __int_as_float(int bits) { return pie_emulator::same_bits<float>(bits); }

inline float rsqrtf(float value) { return 1.0f / sqrtf(value); }
inline float __expf(float value) { return expf(value); }
inline float __logf(float value) { return logf(value); }
inline float __log2f(float value) { return log2f(value); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float value) { return 1.0f / value; }
// Here no contraction may join them with a neighbour: that is what these two are for.
inline float __fmul_rn(float a, float b) { volatile float product = a * b; return product; }
inline float __fadd_rn(float a, float b) { volatile float sum = a + b; return sum; }
inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
inline float __saturatef(float value) { return value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f; }

#define PIE_EXTREMES(type)                                                                         \
    inline type min(type a, type b) { return b < a ? b : a; }                                      \
    inline type max(type a, type b) { return a < b ? b : a; }
PIE_EXTREMES(int)
PIE_EXTREMES(unsigned)
PIE_EXTREMES(long)
PIE_EXTREMES(unsigned long)
PIE_EXTREMES(long long)
PIE_EXTREMES(unsigned long long)
#undef PIE_EXTREMES
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }

inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
inline int __clz(int bits) { return bits ? __builtin_clz(unsigned(bits)) : 32; }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
template <typename T> inline T __ldg(const T* place) { return *place; }
template <typename T> inline T __ldcs(const T* place) { return *place; }
template <typename T> inline T __ldcg(const T* place) { return *place; }
template <typename T> inline void __stcs(T* place, T value) { *place = value; }
template <typename T> inline void __stcg(T* place, T value) { *place = value; }
