#include "fibers.hpp"

#include <sys/mman.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
// PIE_EMULATOR_UCONTEXT takes the portable way on x86-64 too: about ten times as slow.
#if !defined(__x86_64__) || defined(PIE_EMULATOR_UCONTEXT)
#include <ucontext.h>
#else
#define PIE_EMULATOR_LIGHT_SWITCH
#endif

namespace pie_emulator {

static const size_t page = 4096, stack_bytes = 128 << 10;

Guarded::Guarded(size_t at_least) : bytes((at_least + page - 1) / page * page) {
    void* all = mmap(nullptr, bytes + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (all == MAP_FAILED || mprotect(static_cast<char*>(all) + page, bytes, PROT_READ | PROT_WRITE)) {
        perror("pie emulator: no memory");
        abort();
    }
    begin = static_cast<unsigned char*>(all) + page;
}

Guarded::~Guarded() { munmap(begin - page, bytes + 2 * page); }

bool Guarded::guards(const void* address) const {
    auto* place = static_cast<const unsigned char*>(address);
    return (place >= begin - page && place < begin) || (place >= end() && place < end() + page);
}

#if defined(PIE_EMULATOR_LIGHT_SWITCH)

// Only what a called function must keep is kept; the rest the compiler has saved around the call.
asm(R"(
.text
.p2align 4
.globl pie_emulator_switch
.hidden pie_emulator_switch
.type pie_emulator_switch, @function
pie_emulator_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size pie_emulator_switch, . - pie_emulator_switch
)");

extern "C" void pie_emulator_switch(void** from, void* to);

void switch_fibers(void** from, void* to) { pie_emulator_switch(from, to); }

Fiber::Fiber(void (*entry)()) : stack(stack_bytes) {
    // Six registers, the address to return to, and one word so that the stack is aligned as after a call.
    // Stacks that all end at the same place of a page would fight for the same few lines of the cache.
    static std::atomic<unsigned> made{0};
    auto* top = reinterpret_cast<uintptr_t*>(stack.end() - made++ % 29 * 320);
    top[-2] = reinterpret_cast<uintptr_t>(entry);
    state = top - 8;
}

#else

// The context of a fiber lies at the bottom of its stack; that of an OS thread is made at its first switch and kept.
void switch_fibers(void** from, void* to) {
    if (!*from) *from = calloc(1, sizeof(ucontext_t));
    swapcontext(static_cast<ucontext_t*>(*from), static_cast<ucontext_t*>(to));
}

Fiber::Fiber(void (*entry)()) : stack(stack_bytes) {
    auto* context = reinterpret_cast<ucontext_t*>(stack.begin);
    getcontext(context);
    size_t kept = (sizeof(ucontext_t) + 63) / 64 * 64;
    context->uc_stack.ss_sp = stack.begin + kept;
    context->uc_stack.ss_size = stack.bytes - kept;
    context->uc_link = nullptr;
    makecontext(context, entry, 0);
    state = context;
}

#endif

}  // namespace pie_emulator
