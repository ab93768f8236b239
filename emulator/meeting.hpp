// Where the ranks of a communicator meet: shared memory of the machine, named by the unique id.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

const int most_ranks = 64;
const size_t chunk_bytes = 1 << 20;

// What a rank says of the collective that it takes part in; it must be the same for all.
struct Call {
    int32_t kind, type, operation, root;
    uint64_t count;
    bool operator==(const Call& other) const {
        return kind == other.kind && type == other.type && operation == other.operation && root == other.root && count == other.count;
    }
};

struct RankSeat {
    std::atomic<uint32_t> taken, known;
    int32_t device;
    // Chunks that lie in this rank's places, and chunks of all that it has read. Each rank has two places.
    std::atomic<uint64_t> posted, consumed;
    Call calls[2];
};

struct Table {
    std::atomic<uint32_t> ranks, changes, ready;
    RankSeat seats[most_ranks];
};

class Meeting {
public:
    Meeting(const std::string& name, int ranks);
    ~Meeting();
    Meeting(const Meeting&) = delete;
    bool opened() const { return table; }
    Table* operator->() const { return table; }
    unsigned char* place(int rank, uint64_t chunk) const;
    // To everyone: look again.
    void changed();
    // False if `stop` became true before `holds` did.
    template <typename F> bool wait(const std::atomic<bool>& stop, F holds);
    void forget_name();

private:
    void sleep_unless_changed(uint32_t seen);
    std::string name;
    size_t bytes;
    Table* table = nullptr;
};

template <typename F> bool Meeting::wait(const std::atomic<bool>& stop, F holds) {
    for (;;) {
        uint32_t seen = table->changes.load();
        if (stop) return false;
        if (holds()) return true;
        sleep_unless_changed(seen);
    }
}
