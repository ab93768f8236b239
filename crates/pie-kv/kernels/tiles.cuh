// What blocks of attention are told to compute.
#pragma once

#include "device.cuh"

namespace pie {

constexpr uint32_t WHOLE = 0xffffffffu;

// What a block computes.
struct Tile {
    uint32_t first_row;                   // batch row of the sequence's vector 0
    uint32_t vectors_begin, vectors_end;  // at most M
    uint32_t table;                       // where the sequence's slots start in `tables`
    uint32_t keys_begin, keys_end;        // the part of its slots; none beyond what the last row sees
    uint32_t part;                        // index of the partial result, or WHOLE
};

// Vectors whose parts are to be joined.
struct Merge {
    uint32_t first_row, vectors_begin, vectors_end, parts_begin, parts_end;
};

// How heads share KV heads, and which KV head is this block's.
struct Heads {
    uint32_t heads, kv_heads, kv_head, group;
    PIE_DEVICE Heads(uint32_t heads, uint32_t kv_heads)
        : heads(heads), kv_heads(kv_heads), kv_head(blockIdx.y), group(heads / kv_heads) {}
    // Where a vector's query and result start.
    PIE_DEVICE uint64_t vector(uint32_t first_row, uint32_t vector, uint32_t dim) const {
        const uint32_t row = vector / group;
        return (uint64_t(first_row + row) * heads + kv_head * group + (vector - row * group)) * dim;
    }
    // Where a vector of a tile stands in partial results.
    PIE_DEVICE uint64_t partial(uint32_t part, uint32_t in_tile, uint32_t vectors) const {
        return (uint64_t(part) * kv_heads + kv_head) * vectors + in_tile;
    }
};

// Up to which of the sequence's slots a vector reads in this tile.
PIE_DEVICE uint32_t sight(const Tile& tile, const uint32_t* visible, uint32_t group, uint32_t vector) {
    // One that lacks: what it sees hides nothing, and nobody reads its result.
    if (vector >= tile.vectors_end) return tile.keys_end;
    return min(__ldg(visible + tile.first_row + vector / group), tile.keys_end);
}

// What a maximum of no keys is counted as: 2^(-infinity - 0) is 0, without a NaN.
PIE_DEVICE float finite_or_zero(float most) { return most == -INFINITY ? 0.0f : most; }

}  // namespace pie
