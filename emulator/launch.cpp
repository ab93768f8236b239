// The kernels' register, the order of execution, and the run of a whole grid.
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "block.hpp"

namespace pie_emulator {

static std::map<std::string, Kernel>& kernels() {
    static auto* all = new std::map<std::string, Kernel>;
    return *all;
}

bool enroll(const Kernel& kernel) {
    if (kernels().emplace(kernel.name, kernel).second) return true;
    fprintf(stderr, "pie emulator: two kernels are called %s\n", kernel.name);
    abort();
}

const Kernel* find_kernel(const char* name) {
    auto found = kernels().find(name);
    return found == kernels().end() ? nullptr : &found->second;
}

const char* (*describe_address)(const void* address) = nullptr;

static bool parse_order(const char* text, Order& order) {
    std::string word = text;
    if (word == "forward") order.kind = Order::forward;
    else if (word == "reverse") order.kind = Order::reverse;
    else if (word.rfind("shuffle:", 0) == 0) {
        order.kind = Order::shuffle;
        order.seed = strtoull(text + 8, nullptr, 10);
    } else return false;
    return true;
}

static std::mutex order_lock;

static Order& order_now() {
    static Order order = [] {
        Order read;
        const char* text = getenv("PIE_EMULATOR_ORDER");
        if (text && *text && !parse_order(text, read)) {
            fprintf(stderr, "pie emulator: PIE_EMULATOR_ORDER is forward, reverse or shuffle:<seed>, not %s\n", text);
            abort();
        }
        const char* copies = getenv("PIE_EMULATOR_COPIES");
        read.early_copies = copies && std::string(copies) == "early";
        return read;
    }();
    return order;
}

Order order() {
    std::lock_guard<std::mutex> held(order_lock);
    return order_now();
}

bool set_order(const char* text) {
    std::lock_guard<std::mutex> held(order_lock);
    return parse_order(text, order_now());
}

unsigned char* shared() { return active->shared(); }
void block_barrier() { active->block_barrier(); }
void together(const char* what, void (*complete)(void**), void* mine) { active->together(what, complete, mine); }
void fault(const char* what, const void* address) { active->fault(what, address); }
void check_shared(const void* address, size_t bytes, const char* what) { active->check_shared(address, bytes, what); }
void copy_async(void* to, const void* from, bool present) { active->copy_async({to, from, present}); }
void copy_async_commit() { active->copy_async_commit(); }
void copy_async_wait(unsigned open_groups) { active->copy_async_wait(open_groups); }

// Executors are kept: their stacks have been made already.
static std::mutex executors_lock;
static std::vector<Executor*> executors;

static Executor* borrow() {
    std::lock_guard<std::mutex> held(executors_lock);
    if (executors.empty()) return new Executor;
    Executor* one = executors.back();
    executors.pop_back();
    return one;
}

static void give_back(Executor* one) {
    std::lock_guard<std::mutex> held(executors_lock);
    executors.push_back(one);
}

static struct sigaction previous_segv, previous_bus;

static void on_fault(int signal, siginfo_t* info, void*) {
    if (active) active->fault("touched memory that it may not", info->si_addr);
    sigaction(signal, signal == SIGSEGV ? &previous_segv : &previous_bus, nullptr);
}

static void watch_faults() {
    static std::once_flag once;
    std::call_once(once, [] {
        struct sigaction action = {};
        action.sa_sigaction = on_fault;
        action.sa_flags = SA_SIGINFO | SA_ONSTACK;
        sigaction(SIGSEGV, &action, &previous_segv);
        sigaction(SIGBUS, &action, &previous_bus);
    });
    stack_t stack = {};
    sigaltstack(nullptr, &stack);
    if (!(stack.ss_flags & SS_DISABLE)) return;
    // Kept until the OS thread ends and a little longer: there are few of them.
    stack.ss_flags = 0;
    stack.ss_size = 64 << 10;
    stack.ss_sp = malloc(stack.ss_size);
    sigaltstack(&stack, nullptr);
}

struct Grid {
    const Kernel& kernel;
    dim3 grid, block;
    size_t shared_bytes;
    void** parameters;
    uint64_t total;
    Order order;
    std::vector<uint32_t> shuffled;
    std::atomic<uint64_t> taken{0};

    void work() {
        watch_faults();
        Executor* executor = borrow();
        executor->prepare(kernel, grid, block, shared_bytes, parameters);
        for (uint64_t i; (i = taken++) < total;) executor->run_block(number(i));
        give_back(executor);
    }
    uint64_t number(uint64_t i) const {
        if (order.kind == Order::reverse) return total - 1 - i;
        return shuffled.empty() ? i : shuffled[i];
    }
};

static unsigned os_threads() {
    static const unsigned count = [] {
        const char* text = getenv("PIE_EMULATOR_THREADS");
        return text && atoi(text) > 1 ? unsigned(atoi(text)) : 1u;
    }();
    return count;
}

void launch(const Kernel& kernel, dim3 grid, dim3 block, size_t shared_bytes, void** parameters) {
    uint64_t total = uint64_t(grid.x) * grid.y * grid.z;
    Grid all{kernel, grid, block, shared_bytes, parameters, total, order(), {}};
    if (all.order.kind == Order::shuffle) {
        uint64_t random = all.order.seed * 0x9e3779b97f4a7c15u + 1;
        all.shuffled.resize(total);
        for (uint64_t i = 0; i < total; i++) all.shuffled[i] = uint32_t(i);
        all.order.arrange(all.shuffled.data(), total, random);
    }
    std::vector<std::thread> helpers;
    for (uint64_t i = 1; i < os_threads() && i < total; i++) helpers.emplace_back([&all] { all.work(); });
    all.work();
    for (auto& helper : helpers) helper.join();
}

}  // namespace pie_emulator
