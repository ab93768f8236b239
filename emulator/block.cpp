#include "block.hpp"

#include <cstdio>
#include <cstdlib>

__thread uint3 threadIdx, blockIdx;
__thread dim3 blockDim, gridDim;

namespace pie_emulator {

__thread Executor* active = nullptr;

static const unsigned char unset = 0xff, canary = 0xa5;
static const size_t before = 64;

static uint64_t draw(uint64_t& random) {
    random ^= random << 13;
    random ^= random >> 7;
    return random ^= random << 17;
}

void Order::arrange(uint32_t* items, size_t count, uint64_t& random) const {
    if (kind == reverse) {
        for (size_t i = 0; i < count / 2; i++) std::swap(items[i], items[count - 1 - i]);
    } else if (kind == shuffle) {
        for (size_t i = count; i > 1; i--) std::swap(items[i - 1], items[draw(random) % i]);
    }
}

Executor::Executor() : shared_memory(shared_limit + before) {}

void Executor::prepare(const Kernel& kernel, dim3 grid, dim3 block, size_t shared_bytes, void** parameters) {
    this->kernel = kernel;
    this->grid = grid;
    this->block = block;
    this->parameters = parameters;
    this->shared_bytes = shared_bytes;
    order = pie_emulator::order();
    shared_begin = shared_memory.end() - (shared_bytes + 15) / 16 * 16;
    size_t count = size_t(block.x) * block.y * block.z;
    threads.resize(count);
    warps.resize((count + 31) / 32);
    queue.resize(count);
    for (size_t i = 0; i < count; i++) {
        unsigned row = unsigned(i / block.x);
        threads[i].index = {unsigned(i % block.x), row % block.y, row / block.y};
        threads[i].number = uint32_t(i);
    }
}

void Executor::run_block(uint64_t number) {
    active = this;
    blockDim = block;
    gridDim = grid;
    uint64_t row = number / grid.x;
    blockIdx = {unsigned(number % grid.x), unsigned(row % grid.y), unsigned(row / grid.y)};
    random = (order.seed + 1) * 0x9e3779b97f4a7c15u ^ (number + 1) * 0xd1342543de82ef95u;
    if (!random) random = 1;
    at_barrier = ended = 0;
    queue_head = queue_count = 0;
    for (Thread& thread : threads) thread.state = Thread::fresh;
    for (Warp& warp : warps) warp.arrived = 0;
    fill_shared();
    release(0, uint32_t(threads.size()));
    go_to(nullptr, next());
    check_after();
    active = nullptr;
}

void Executor::fill_shared() {
    std::memset(shared_begin - before, canary, before);
    std::memset(shared_begin, unset, shared_bytes);
    std::memset(shared_begin + shared_bytes, canary, shared_memory.end() - shared_begin - shared_bytes);
}

void Executor::check_after() {
    for (unsigned char* p = shared_begin - before; p < shared_memory.end(); p++) {
        if (p == shared_begin) p += shared_bytes;
        if (p < shared_memory.end() && *p != canary) fault("wrote outside of the block's shared memory", p);
    }
    if (!copied) return;
    for (Thread& thread : threads) {
        thread.copies.clear();
        thread.groups.clear();
    }
    copied = false;
}

void Executor::push(uint32_t thread) {
    size_t at = queue_head + queue_count++;
    queue[at < queue.size() ? at : at - queue.size()] = thread;
}

__attribute__((always_inline)) inline void Executor::push_front(uint32_t thread) {
    queue_head = (queue_head ? queue_head : queue.size()) - 1;
    queue[queue_head] = thread;
    queue_count++;
}

void Executor::release(uint32_t first, uint32_t count) {
    released.resize(count);
    for (uint32_t i = 0; i < count; i++) released[i] = first + i;
    order.arrange(released.data(), count, random);
    for (uint32_t thread : released) push(thread);
}

// The warp goes on before others: its 32 stacks stay in the cache. Shuffled, it may also go last.
__attribute__((always_inline)) inline void Executor::release_warp(uint32_t first) {
    if (order.kind == Order::shuffle && draw(random) % 4 == 0) return release(first, 32);
    uint32_t lanes[32];
    for (uint32_t i = 0; i < 32; i++) lanes[i] = first + i;
    order.arrange(lanes, 32, random);
    for (uint32_t i = 32; i-- > 0;) push_front(lanes[i]);
}

__attribute__((always_inline)) inline Thread* Executor::next() {
    if (!queue_count) deadlock();
    Thread* thread = &threads[queue[queue_head]];
    queue_count--;
    if (++queue_head == queue.size()) queue_head = 0;
    return thread;
}

// Leaves `from` (or the OS thread's own stack) for the fiber on which `thread` is, or for an idle one that begins it.
__attribute__((always_inline)) inline void Executor::go_to(Fiber* from, Thread* thread) {
    Fiber* to = thread->fiber;
    if (thread->state == Thread::fresh) {
        if (idle.empty()) {
            fibers.push_back(std::make_unique<Fiber>(fiber_entry));
            idle.push_back(fibers.back().get());
        }
        to = idle.back();
        idle.pop_back();
        starting = thread;
    }
    running = to;
    switch_fibers(from ? &from->state : &outside, to->state);
}

void Executor::fiber_entry() { active->fiber_main(); }

void Executor::fiber_main() {
    Thread* thread = starting;
    for (;;) {
        current = thread;
        thread->state = Thread::runs;
        threadIdx = thread->index;
        kernel.run(parameters);
        thread->state = Thread::ended;
        if (++ended < threads.size()) {
            thread = next();
            if (thread->state == Thread::fresh) continue;
            idle.push_back(running);
            go_to(running, thread);
        } else {
            idle.push_back(running);
            switch_fibers(&running->state, outside);
        }
        thread = starting;
    }
}

__attribute__((always_inline)) inline void Executor::wait(const char* where) {
    Thread* mine = current;
    mine->state = Thread::waits;
    mine->where = where;
    mine->fiber = running;
    Thread* thread = next();
    if (thread != mine) go_to(mine->fiber, thread);
    current = mine;
    mine->state = Thread::runs;
    threadIdx = mine->index;
}

void Executor::block_barrier() {
    if (++at_barrier == threads.size()) {
        at_barrier = 0;
        release(0, uint32_t(threads.size()));
    }
    wait("__syncthreads");
}

void Executor::together(const char* what, void (*complete)(void**), void* mine) {
    uint32_t number = current->number, first = number / 32 * 32;
    if (first + 32 > threads.size()) fault("a warp operation in a warp of fewer than 32 threads", nullptr);
    Warp& warp = warps[number / 32];
    if (!warp.arrived) {
        warp.what = what;
        warp.complete = complete;
    } else if (warp.complete != complete) {
        char text[160];
        snprintf(text, sizeof text, "is in %s while other threads of its warp wait in %s", what, warp.what);
        fault(text, nullptr);
    }
    warp.brought[number - first] = mine;
    if (++warp.arrived == 32) {
        complete(warp.brought);
        warp.arrived = 0;
        release_warp(first);
    }
    wait(what);
}

// Late copies show a missing wait, early ones a buffer that is filled while others still read it.
void Executor::copy_async(const Copy& copy) {
    check_shared(copy.to, 16, "cp.async");
    if (reinterpret_cast<uintptr_t>(copy.from) % 16 && copy.present) fault("cp.async from a place that is no multiple of 16", copy.from);
    if (order.early_copies) return perform(copy);
    copied = true;
    current->copies.push_back(copy);
}

void Executor::copy_async_commit() {
    if (!order.early_copies) current->groups.push_back(current->copies.size());
    copied = true;
}

void Executor::copy_async_wait(unsigned open_groups) {
    auto& copies = current->copies;
    auto& groups = current->groups;
    if (groups.size() <= open_groups) return;
    size_t closed = groups.size() - open_groups, done = groups[closed - 1];
    for (size_t i = 0; i < done; i++) perform(copies[i]);
    copies.erase(copies.begin(), copies.begin() + ptrdiff_t(done));
    groups.erase(groups.begin(), groups.begin() + ptrdiff_t(closed));
    for (size_t& end : groups) end -= done;
}

void Executor::perform(const Copy& copy) {
    if (copy.present) std::memcpy(copy.to, copy.from, 16);
    else std::memset(copy.to, 0, 16);
}

void Executor::check_shared(const void* address, size_t bytes, const char* what) {
    auto* place = static_cast<const unsigned char*>(address);
    const char* wrong = nullptr;
    if (reinterpret_cast<uintptr_t>(place) % 16) wrong = "a place in shared memory that is no multiple of 16";
    if (place < shared_begin || place + bytes > shared_begin + shared_bytes) wrong = "a place outside of shared memory";
    if (!wrong) return;
    char text[160];
    snprintf(text, sizeof text, "%s with %s", what, wrong);
    fault(text, address);
}

const char* Executor::place_of(const void* address) const {
    auto* place = static_cast<const unsigned char*>(address);
    if (shared_memory.guards(address)) return ", next to the block's shared memory";
    if (place >= shared_begin && place < shared_memory.end()) return ", in the block's shared memory";
    for (auto& fiber : fibers) {
        if (fiber->stack.guards(address)) return ", beyond the thread's stack";
    }
    return describe_address ? describe_address(address) : "";
}

void Executor::fault(const char* what, const void* address) {
    char where[200] = "";
    if (address) snprintf(where, sizeof where, " (%p%s)", address, place_of(address));
    uint3 t = current->index, b = blockIdx;
    fprintf(stderr, "pie emulator: kernel %s, block (%u, %u, %u), thread (%u, %u, %u): %s%s\n", kernel.name, b.x, b.y, b.z, t.x,
            t.y, t.z, what, where);
    abort();
}

void Executor::deadlock() {
    fprintf(stderr, "pie emulator: kernel %s, block (%u, %u, %u): deadlock\n", kernel.name, blockIdx.x, blockIdx.y, blockIdx.z);
    std::vector<const char*> seen;
    for (Thread& thread : threads) {
        const char* where = thread.state == Thread::ended ? "has ended" : thread.where;
        unsigned count = 0;
        for (const char* one : seen) count += one == where;
        seen.push_back(where);
        if (count) continue;
        unsigned alike = 0;
        for (Thread& other : threads) alike += (other.state == Thread::ended ? "has ended" : other.where) == where;
        const char* verb = thread.state == Thread::ended ? "" : "waits in ";
        fprintf(stderr, "  thread (%u, %u, %u) %s%s, as do %u in all\n", thread.index.x, thread.index.y, thread.index.z, verb, where,
                alike);
    }
    abort();
}

}  // namespace pie_emulator
