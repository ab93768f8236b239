#include "meeting.hpp"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <climits>
#include <ctime>

static const size_t table_bytes = (sizeof(Table) + 4095) / 4096 * 4096;

// Whoever comes first makes it: fresh shared memory is all zeros, which is the state of a table that no one has joined.
Meeting::Meeting(const std::string& name, int ranks) : name(name), bytes(table_bytes + size_t(ranks) * 2 * chunk_bytes) {
    int file = shm_open(name.c_str(), O_CREAT | O_RDWR, 0600);
    if (file < 0) return;
    void* memory = MAP_FAILED;
    if (!ftruncate(file, off_t(bytes))) memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (memory != MAP_FAILED) table = static_cast<Table*>(memory);
}

Meeting::~Meeting() {
    if (table) munmap(table, bytes);
}

unsigned char* Meeting::place(int rank, uint64_t chunk) const {
    return reinterpret_cast<unsigned char*>(table) + table_bytes + (size_t(rank) * 2 + chunk % 2) * chunk_bytes;
}

void Meeting::changed() {
    table->changes++;
    syscall(SYS_futex, &table->changes, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void Meeting::sleep_unless_changed(uint32_t seen) {
    timespec longest = {0, 20'000'000};
    syscall(SYS_futex, &table->changes, FUTEX_WAIT, seen, &longest, nullptr, 0);
}

void Meeting::forget_name() { shm_unlink(name.c_str()); }
