// One block at a time: its threads, its warps and its shared memory. An executor is used by one OS thread at a time.
#pragma once

#include <memory>
#include <vector>

#include "fibers.hpp"
#include "threads.hpp"

namespace pie_emulator {

constexpr size_t shared_limit = 163 << 10;

struct Order {
    enum Kind { forward, reverse, shuffle } kind = forward;
    uint64_t seed = 0;
    bool early_copies = false;
    void arrange(uint32_t* items, size_t count, uint64_t& random) const;
};
Order order();

struct Copy { void* to; const void* from; bool present; };

struct alignas(64) Thread {
    enum State { fresh, runs, waits, ended } state = fresh;
    uint3 index{};
    uint32_t number = 0;
    Fiber* fiber = nullptr;
    const char* where = "";
    std::vector<Copy> copies;
    std::vector<size_t> groups;
};

struct Warp {
    unsigned arrived = 0;
    const char* what = "";
    void (*complete)(void**) = nullptr;
    void* brought[32];
};

class Executor {
public:
    Executor();
    void prepare(const Kernel& kernel, dim3 grid, dim3 block, size_t shared_bytes, void** parameters);
    void run_block(uint64_t block);

    void block_barrier();
    void together(const char* what, void (*complete)(void**), void* mine);
    void copy_async(const Copy& copy);
    void copy_async_commit();
    void copy_async_wait(unsigned open_groups);
    void check_shared(const void* address, size_t bytes, const char* what);
    [[noreturn]] void fault(const char* what, const void* address);
    const char* place_of(const void* address) const;
    unsigned char* shared() const { return shared_begin; }

private:
    static void fiber_entry();
    void fiber_main();
    Thread* next();
    void wait(const char* where);
    void go_to(Fiber* from, Thread* thread);
    void release(uint32_t first, uint32_t count);
    void release_warp(uint32_t first);
    void push(uint32_t thread);
    void push_front(uint32_t thread);
    void perform(const Copy& copy);
    void fill_shared();
    void check_after();
    [[noreturn]] void deadlock();

    Kernel kernel{};
    void** parameters = nullptr;
    dim3 grid, block;
    Order order;
    uint64_t random = 1;
    std::vector<Thread> threads;
    std::vector<Warp> warps;
    std::vector<uint32_t> queue, released;
    size_t queue_head = 0, queue_count = 0;
    uint32_t at_barrier = 0, ended = 0;
    bool copied = false;
    Thread* current = nullptr;
    Thread* starting = nullptr;
    Fiber* running = nullptr;
    void* outside = nullptr;
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Fiber*> idle;
    Guarded shared_memory;
    unsigned char* shared_begin = nullptr;
    size_t shared_bytes = 0;
};

// The executor whose block runs on this OS thread.
extern __thread Executor* active;

}  // namespace pie_emulator
