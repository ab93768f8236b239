// Attention without tensor cores, in the order of the keys, and the joining of parts.
#pragma once

#include "tiles.cuh"

namespace pie {

constexpr int PLAIN_VECTORS = 16, PLAIN_KEYS = 32, PLAIN_THREADS = 128;

// The shared memory of attend_plain.
struct Plain {
    float *queries, *out;  // [PLAIN_VECTORS][dim]
    float* weights;        // [PLAIN_VECTORS][PLAIN_KEYS]
    float *most, *sum, *rescale;
    uint32_t *limit, *slots;
    PIE_DEVICE Plain(unsigned char* shared, uint32_t dim) {
        queries = reinterpret_cast<float*>(shared);
        out = queries + PLAIN_VECTORS * dim;
        weights = out + PLAIN_VECTORS * dim;
        most = weights + PLAIN_VECTORS * PLAIN_KEYS;
        sum = most + PLAIN_VECTORS;
        rescale = sum + PLAIN_VECTORS;
        limit = reinterpret_cast<uint32_t*>(rescale + PLAIN_VECTORS);
        slots = limit + PLAIN_VECTORS;
    }
};

// A thread for each vector: its weights, from scores, in the order of the keys.
PIE_DEVICE void weigh_plainly(const Plain& plain, uint32_t first, uint32_t count) {
    const uint32_t vector = threadIdx.x;
    if (vector >= PLAIN_VECTORS) return;
    float* weights = plain.weights + vector * PLAIN_KEYS;
    float most = plain.most[vector];
    const uint32_t seen = min(count, max(plain.limit[vector], first) - first);
    for (uint32_t key = 0; key < seen; key++) most = fmaxf(most, weights[key]);
    const float against = finite_or_zero(most), rescale = exp2f(plain.most[vector] - against);
    float sum = plain.sum[vector] * rescale;
    for (uint32_t key = 0; key < PLAIN_KEYS; key++) {
        weights[key] = key < seen ? exp2f(weights[key] - against) : 0.0f;
        sum += weights[key];
    }
    plain.most[vector] = most;
    plain.sum[vector] = sum;
    plain.rescale[vector] = rescale;
}

template <typename T>
PIE_DEVICE void score_plainly(const Plain& plain, const T* keys, uint32_t stride, uint32_t count, uint32_t dim, float scale) {
    const uint32_t key = threadIdx.x % PLAIN_KEYS;
    if (key >= count) return;
    const T* row = keys + uint64_t(plain.slots[key]) * stride;
    for (uint32_t vector = threadIdx.x / PLAIN_KEYS; vector < PLAIN_VECTORS; vector += PLAIN_THREADS / PLAIN_KEYS) {
        const float* query = plain.queries + vector * dim;
        float score = 0.0f;
        for (uint32_t i = 0; i < dim; i++) score = fmaf(query[i], to_float(row[i]), score);
        plain.weights[vector * PLAIN_KEYS + key] = score * scale;
    }
}

template <typename T>
PIE_DEVICE void add_plainly(const Plain& plain, const T* values, uint32_t stride, uint32_t count, uint32_t dim) {
    for (uint32_t i = threadIdx.x; i < dim; i += PLAIN_THREADS) {
        float out[PLAIN_VECTORS];
#pragma unroll
        for (int vector = 0; vector < PLAIN_VECTORS; vector++) out[vector] = plain.out[vector * dim + i] * plain.rescale[vector];
        for (uint32_t key = 0; key < count; key++) {
            const float value = to_float(values[uint64_t(plain.slots[key]) * stride + i]);
#pragma unroll
            for (int vector = 0; vector < PLAIN_VECTORS; vector++) {
                out[vector] = fmaf(plain.weights[vector * PLAIN_KEYS + key], value, out[vector]);
            }
        }
#pragma unroll
        for (int vector = 0; vector < PLAIN_VECTORS; vector++) plain.out[vector * dim + i] = out[vector];
    }
}

template <typename T>
PIE_DEVICE void start_plainly(const Plain& plain, const T* queries, const Tile& tile, const uint32_t* visible,
                              const Heads& heads, uint32_t dim) {
    for (uint32_t index = threadIdx.x; index < PLAIN_VECTORS * dim; index += PLAIN_THREADS) {
        const uint32_t vector = tile.vectors_begin + index / dim;
        const bool present = vector < tile.vectors_end;
        plain.queries[index] =
            present ? to_float(queries[heads.vector(tile.first_row, vector, dim) + index % dim]) : 0.0f;
        plain.out[index] = 0.0f;
    }
    if (threadIdx.x < PLAIN_VECTORS) {
        plain.most[threadIdx.x] = -INFINITY;
        plain.sum[threadIdx.x] = 0.0f;
        plain.limit[threadIdx.x] = sight(tile, visible, heads.group, tile.vectors_begin + threadIdx.x);
    }
}

// attend_plain_T: the same for any dim up to 256 and for f32, in the order of the keys, slowly; the table above says what it
// is launched with.
template <typename T>
PIE_DEVICE void attend_plain(const T* queries, const T* keys, const T* values, const uint32_t* tables, const uint32_t* visible,
                             const Tile* tiles, const uint32_t* tile_count, T* out, float* partial, float2* partial_stats,
                             uint32_t all_heads, uint32_t kv_heads, float scale, uint32_t dim) {
    PIE_SHARED(shared);
    if (blockIdx.x >= *tile_count) return;
    const Tile tile = tiles[blockIdx.x];
    const Heads heads(all_heads, kv_heads);
    const Plain plain(shared, dim);
    const uint32_t stride = kv_heads * dim, of_head = heads.kv_head * dim;
    start_plainly(plain, queries, tile, visible, heads, dim);
    for (uint32_t first = tile.keys_begin; first < tile.keys_end; first += PLAIN_KEYS) {
        const uint32_t count = min(uint32_t(PLAIN_KEYS), tile.keys_end - first);
        __syncthreads();
        if (threadIdx.x < count) plain.slots[threadIdx.x] = tables[tile.table + first + threadIdx.x];
        __syncthreads();
        score_plainly(plain, keys + of_head, stride, count, dim, scale);
        __syncthreads();
        weigh_plainly(plain, first, count);
        __syncthreads();
        add_plainly(plain, values + of_head, stride, count, dim);
    }
    __syncthreads();
    const uint32_t vectors = tile.vectors_end - tile.vectors_begin;
    for (uint32_t index = threadIdx.x; index < vectors * dim; index += PLAIN_THREADS) {
        const uint32_t in_tile = index / dim, i = index % dim;
        const float sum = plain.sum[in_tile], number = plain.out[index];
        if (tile.part == WHOLE) {
            store(out + heads.vector(tile.first_row, tile.vectors_begin + in_tile, dim) + i, sum > 0.0f ? number / sum : 0.0f);
        } else {
            const uint64_t place = heads.partial(tile.part, in_tile, PLAIN_VECTORS);
            partial[place * dim + i] = number;
            if (i == 0) partial_stats[place] = make_float2(plain.most[in_tile], sum);
        }
    }
}

// merge_T: joins the parts of vectors. A warp takes a vector at a time; a lane the numbers lane + 32 k.
template <typename T>
PIE_DEVICE void merge(const float* partial, const float2* partial_stats, const Merge* merges, const uint32_t* merge_count,
                      T* out, uint32_t all_heads, uint32_t kv_heads, uint32_t dim, uint32_t tile) {
    if (blockIdx.x >= *merge_count) return;
    const Merge it = merges[blockIdx.x];
    const Heads heads(all_heads, kv_heads);
    const uint32_t lane = threadIdx.x % 32;
    for (uint32_t vector = it.vectors_begin + threadIdx.x / 32; vector < it.vectors_end; vector += blockDim.x / 32) {
        const uint64_t stats = heads.partial(it.parts_begin, vector - it.vectors_begin, tile);
        const uint64_t next = uint64_t(kv_heads) * tile;
        const uint32_t parts = it.parts_end - it.parts_begin;
        float most = -INFINITY;
        for (uint32_t part = lane; part < parts; part += 32) most = fmaxf(most, partial_stats[stats + part * next].x);
        const float against = finite_or_zero(max_of_warp(most));
        T* to = out + heads.vector(it.first_row, vector, dim);
        for (uint32_t first = 0; first < dim; first += 128) {
            float numbers[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            float sum = 0.0f;
#pragma unroll 4
            for (uint32_t part = 0; part < parts; part++) {
                const float2 stat = partial_stats[stats + part * next];
                const float share = exp2f(stat.x - against);
                const float* from = partial + (stats + part * next) * dim + first + lane;
                sum = fmaf(stat.y, share, sum);
#pragma unroll
                for (int k = 0; k < 4; k++) {
                    if (first + lane + 32 * k < dim) numbers[k] = fmaf(from[32 * k], share, numbers[k]);
                }
            }
#pragma unroll
            for (int k = 0; k < 4; k++) {
                if (first + lane + 32 * k < dim) store(to + first + lane + 32 * k, sum > 0.0f ? numbers[k] / sum : 0.0f);
            }
        }
    }
}

}  // namespace pie
