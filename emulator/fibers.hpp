// A stack of its own for a thread that waits, and the switch from one to another.
#pragma once

#include <cstddef>

namespace pie_emulator {

// Memory of whole pages between two pages that no one can touch.
struct Guarded {
    unsigned char* begin = nullptr;
    size_t bytes = 0;
    explicit Guarded(size_t at_least);
    ~Guarded();
    Guarded(const Guarded&) = delete;
    unsigned char* end() const { return begin + bytes; }
    bool guards(const void* address) const;
};

struct Fiber {
    void* state = nullptr;
    Guarded stack;
    explicit Fiber(void (*entry)());
    Fiber(const Fiber&) = delete;
};

// Keeps the running state in `*from` and goes on with `to`.
void switch_fibers(void** from, void* to);

}  // namespace pie_emulator
