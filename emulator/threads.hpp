// Threads, warps and barriers of an emulated block; the kernels' register.
#pragma once

#include <type_traits>
#include <utility>

#include "types.hpp"

// `__thread` and not thread_local: the accesses need no initialisation check. A block stays on one OS thread.
extern __thread uint3 threadIdx, blockIdx;
extern __thread dim3 blockDim, gridDim;
constexpr int warpSize = 32;

namespace pie_emulator {

struct Kernel {
    const char* name;
    void (*run)(void** parameters);
    unsigned parameters;
    const size_t* sizes;
    const bool* pointers;
};

bool enroll(const Kernel& kernel);
const Kernel* find_kernel(const char* name);

template <auto function> struct Typed;
template <typename... A, void (*function)(A...)> struct Typed<function> {
    static constexpr size_t sizes[sizeof...(A) + 1] = {sizeof(A)..., 0};
    static constexpr bool pointers[sizeof...(A) + 1] = {std::is_pointer_v<A>..., false};
    template <size_t... i> static void call(void** p, std::index_sequence<i...>) {
        function(*static_cast<std::remove_cv_t<A>*>(p[i])...);
    }
    static void run(void** p) { call(p, std::index_sequence_for<A...>{}); }
    static Kernel kernel(const char* name) { return {name, run, sizeof...(A), sizes, pointers}; }
};

template <auto function> bool make_known(const char* name) { return enroll(Typed<function>::kernel(name)); }

// Runs a whole grid and returns when it has ended. `parameters` points to one value each.
void launch(const Kernel& kernel, dim3 grid, dim3 block, size_t shared_bytes, void** parameters);

// The same for tests in C++: the values must have exactly the kernel's types.
template <typename... A> void run(const char* name, dim3 grid, dim3 block, size_t shared_bytes, A... values) {
    const Kernel* kernel = find_kernel(name);
    if (!kernel || kernel->parameters != sizeof...(A)) __builtin_trap();
    void* parameters[] = {&values..., nullptr};
    launch(*kernel, grid, block, shared_bytes, parameters);
}

// Says more about an address that a kernel may not touch; set by the part that gives out memory.
extern const char* (*describe_address)(const void* address);

// "forward", "reverse" or "shuffle:<seed>"; false if it is none of them.
bool set_order(const char* order);

unsigned char* shared();
void block_barrier();
// All lanes of the warp come here with the same `complete`. When the last has come it is called once with what the 32 lanes brought.
void together(const char* what, void (*complete)(void** lanes), void* mine);
// Ends the process with the kernel, block and thread that did something illegal.
[[noreturn]] void fault(const char* what, const void* address);
void check_shared(const void* address, size_t bytes, const char* what);

void copy_async(void* shared, const void* global, bool present);
void copy_async_commit();
void copy_async_wait(unsigned open_groups);

inline unsigned lane() {
    return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) % 32;
}

struct Exchange { uint32_t give; uint32_t take; int from; bool vote; };

inline void exchange_all(void** lanes) {
    for (int i = 0; i < 32; i++) {
        auto* mine = static_cast<Exchange*>(lanes[i]);
        mine->take = static_cast<Exchange*>(lanes[mine->from])->give;
    }
}

inline void vote_all(void** lanes) {
    uint32_t votes = 0;
    for (int i = 0; i < 32; i++) votes |= uint32_t(static_cast<Exchange*>(lanes[i])->vote) << i;
    for (int i = 0; i < 32; i++) static_cast<Exchange*>(lanes[i])->take = votes;
}

inline void nothing_more(void**) {}

inline void full_warp(unsigned mask) {
    if (mask != 0xffffffffu) fault("a warp operation with a mask other than 0xffffffff", nullptr);
}

template <typename T> inline T shuffle(unsigned mask, T value, int from) {
    static_assert(sizeof(T) == 4, "only 32-bit values are shuffled");
    full_warp(mask);
    Exchange mine{same_bits<uint32_t>(value), 0, from, false};
    together("__shfl_sync", exchange_all, &mine);
    return same_bits<T>(mine.take);
}

inline unsigned vote(unsigned mask, bool mine_is) {
    full_warp(mask);
    Exchange mine{0, 0, 0, mine_is};
    together("a vote of the warp", vote_all, &mine);
    return mine.take;
}

inline void power_of_two(int width) {
    if (width < 1 || width > 32 || (width & (width - 1))) fault("a shuffle with an illegal width", nullptr);
}

}  // namespace pie_emulator

inline void __syncthreads() { pie_emulator::block_barrier(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) {
    pie_emulator::full_warp(mask);
    pie_emulator::together("__syncwarp", pie_emulator::nothing_more, nullptr);
}
template <typename T> inline T __shfl_sync(unsigned mask, T value, int from, int width = 32) {
    pie_emulator::power_of_two(width);
    int lane = int(pie_emulator::lane());
    return pie_emulator::shuffle(mask, value, (lane & ~(width - 1)) | (from & (width - 1)));
}
template <typename T> inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32) {
    pie_emulator::power_of_two(width);
    int lane = int(pie_emulator::lane()), from = lane ^ bits;
    return pie_emulator::shuffle(mask, value, from < (lane | (width - 1)) + 1 ? from : lane);
}
template <typename T> inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32) {
    pie_emulator::power_of_two(width);
    int lane = int(pie_emulator::lane()), from = lane + int(by);
    return pie_emulator::shuffle(mask, value, from <= (lane | (width - 1)) ? from : lane);
}
template <typename T> inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32) {
    pie_emulator::power_of_two(width);
    int lane = int(pie_emulator::lane()), from = lane - int(by);
    return pie_emulator::shuffle(mask, value, from >= (lane & ~(width - 1)) ? from : lane);
}
inline unsigned __ballot_sync(unsigned mask, int predicate) { return pie_emulator::vote(mask, predicate != 0); }
inline int __any_sync(unsigned mask, int predicate) { return pie_emulator::vote(mask, predicate != 0) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return pie_emulator::vote(mask, predicate != 0) == 0xffffffffu; }
inline void __threadfence() {}
inline void __threadfence_block() {}
