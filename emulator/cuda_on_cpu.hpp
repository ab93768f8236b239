// Lets a .cu file of this project compile with g++ and run on the CPU:
//   g++ -std=c++17 -O2 -x c++ -DPIE_EMULATED -I. -include cuda_on_cpu.hpp
// Link the result with engine.cpp, and with driver.cpp where the calls come through libcuda.so.
#pragma once

#include "types.hpp"
#include "threads.hpp"
#include "tensor.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(bytes) __attribute__((aligned(bytes)))
#ifndef __restrict__
#define __restrict__ __restrict
#endif

#define PIE_DEVICE inline
#define PIE_SHARED(bytes) unsigned char* bytes = pie_emulator::shared()
#define PIE_KERNEL(name, ...)                                                                      \
    static void name(__VA_ARGS__);                                                                 \
    static const bool pie_known_##name = pie_emulator::make_known<&name>(#name);                   \
    static void name(__VA_ARGS__)
