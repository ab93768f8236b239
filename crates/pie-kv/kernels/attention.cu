// Attention through slot tables, over tiles of keys (Dao et al. 2022), with an online softmax (Milakov and Gimelshein 2018).
//
// A query vector is one head of one row; those of one KV head of a sequence are numbered row_in_sequence * group + head in
// group, and tiles take them in this order, so that what they see ascends. `queries` and `out` are [rows][heads][dim], keys
// and values [slots][kv_heads][dim] of one layer. Scores are kept as exponents of two: scale = log2(e) / sqrt(dim).
//
//   kernel             block   vectors M   keys at once   dynamic shared bytes
//   attend_*_few         32       16            32        256 * D
//   attend_*_many       128       64            64        512 * D: more than 48 KiB must be asked for
//   attend_plain_*      128       16            32        128 * dim + 2496
//   merge_*             128      as given                 0
//
// Grid of all attends: (tiles, kv_heads); of merge: (merges, kv_heads). There may be more blocks than tiles.

#include "device.cuh"
#include "plain.cuh"
#include "tiles.cuh"

namespace pie {

constexpr int FEW_WARPS = 1, FEW_KEYS = 32;
constexpr int MANY_WARPS = 4, MANY_KEYS = 64;
// Keys that a warp scores at once: more would not fit the registers beside queries and results of 128 numbers.
constexpr int AT_ONCE = 32;
constexpr uint32_t WARP = 0xffffffffu;

// Rows of K or V of T in shared memory, [KEYS][D], in pieces of 16 bytes that are permuted within each 128 or more bytes, so
// that eight rows' pieces of one column lie in different banks.
template <int D>
struct Pieces {
    static constexpr int PER_ROW = D / 8;
    PIE_DEVICE static uint32_t permuted(uint32_t row, uint32_t piece) {
        return piece ^ (PER_ROW >= 8 ? row % 8 : row / 2 % PER_ROW);
    }
    PIE_DEVICE static uint32_t bytes(uint32_t row, uint32_t piece) { return (row * PER_ROW + permuted(row, piece)) * 16; }
};

// Gathers tiles of keys and values by slot into two buffers; each warp brings KEYS / WARPS rows of both.
template <typename T, int D, int WARPS, int KEYS>
struct Gather {
    static constexpr int ROWS = KEYS / WARPS;
    static constexpr int ROWS_AT_ONCE = 32 / Pieces<D>::PER_ROW;
    static constexpr uint32_t TILE_BYTES = KEYS * D * sizeof(T);

    unsigned char* shared;  // [2 buffers][keys, values][KEYS][D]
    const T *keys, *values;
    const uint32_t* slots;
    uint32_t stride, count, next, next_slot;

    PIE_DEVICE Gather(unsigned char* shared, const T* keys, const T* values, const uint32_t* tables, const Tile& tile,
                      const Heads& heads)
        : shared(shared), keys(keys + heads.kv_head * D), values(values + heads.kv_head * D),
          slots(tables + tile.table + tile.keys_begin), stride(heads.kv_heads * D), count(tile.keys_end - tile.keys_begin),
          next(0) {
        look_ahead();
    }

    PIE_DEVICE static uint32_t first_row() { return threadIdx.x / 32 * ROWS; }

    // A lane for each row: its slot is known when the copy starts.
    PIE_DEVICE void look_ahead() {
        const uint32_t index = next * KEYS + first_row() + threadIdx.x % ROWS;
        next_slot = index < count ? __ldg(slots + index) : 0;
    }

    // Starts the copy of the next tile to its buffer.
    PIE_DEVICE void start() {
        const uint32_t lane = threadIdx.x % 32, piece = lane % Pieces<D>::PER_ROW;
        unsigned char* to = buffer(next);
#pragma unroll
        for (int pass = 0; pass < ROWS / ROWS_AT_ONCE; pass++) {
            const uint32_t of_warp = pass * ROWS_AT_ONCE + lane / Pieces<D>::PER_ROW, row = first_row() + of_warp;
            const uint32_t slot = __shfl_sync(WARP, next_slot, int(of_warp));
            const bool present = next * KEYS + row < count;
            const uint64_t from = uint64_t(slot) * stride + piece * 8;
            const uint32_t place = Pieces<D>::bytes(row, piece);
            copy_async_16(to + place, keys + from, present);
            copy_async_16(to + TILE_BYTES + place, values + from, present);
        }
        copy_async_commit();
        next++;
        look_ahead();
    }

    PIE_DEVICE unsigned char* buffer(uint32_t tile) const { return shared + tile % 2 * (2 * TILE_BYTES); }
    PIE_DEVICE uint32_t tiles() const { return (count + KEYS - 1) / KEYS; }
};

// Sixteen query vectors of a warp on their way over the keys. A lane has two of them, g and g + 8 with g = lane / 4, and of
// each row of a product the columns 2 (lane % 4) and the next of each eight.
template <typename T, int D>
struct Panel {
    uint32_t queries[D / 16][4];
    float out[D / 8][4];
    float most[2], sum[2];
    uint32_t limit[2];
    uint32_t first_limit, last_limit;  // of the panel: the same in all lanes

    // The tile's vectors from `of_warp` on. A vector that lacks is zeros.
    PIE_DEVICE void start(const T* from, const Tile& tile, const uint32_t* visible, const Heads& heads, uint32_t of_warp) {
        const uint32_t lane = threadIdx.x % 32, first = tile.vectors_begin + of_warp;
        first_limit = sight(tile, visible, heads.group, first);
        last_limit = first < tile.vectors_end ? sight(tile, visible, heads.group, min(first + 16, tile.vectors_end) - 1) : 0;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint32_t vector = first + lane / 4 + 8 * half;
            limit[half] = sight(tile, visible, heads.group, vector);
            most[half] = -INFINITY;
            sum[half] = 0.0f;
            const bool present = vector < tile.vectors_end;
            const uint32_t* numbers = reinterpret_cast<const uint32_t*>(
                from + heads.vector(tile.first_row, present ? vector : tile.vectors_begin, D) + lane % 4 * 2);
#pragma unroll
            for (int step = 0; step < D / 16; step++) {
                queries[step][half] = present ? __ldg(numbers + step * 8) : 0;
                queries[step][half + 2] = present ? __ldg(numbers + step * 8 + 4) : 0;
            }
        }
#pragma unroll
        for (int column = 0; column < D / 8; column++) {
#pragma unroll
            for (int i = 0; i < 4; i++) out[column][i] = 0.0f;
        }
    }

    // Scores of keys in shared memory.
    PIE_DEVICE void score(const unsigned char* keys, float (&scores)[AT_ONCE / 8][4]) const {
        const uint32_t lane = threadIdx.x % 32, row = lane / 16 * 8 + lane % 8, half = lane / 8 % 2;
#pragma unroll
        for (int key = 0; key < AT_ONCE / 8; key++) {
#pragma unroll
            for (int i = 0; i < 4; i++) scores[key][i] = 0.0f;
        }
#pragma unroll
        for (int step = 0; step < D / 16; step++) {
            const unsigned char* column = keys + Pieces<D>::bytes(row, 2 * step + half);
#pragma unroll
            for (int key = 0; key < AT_ONCE / 16; key++) {
                uint32_t b[4];
                load_matrix_x4(b, column + key * (16 * D * sizeof(T)));
                multiply_add(scores[2 * key], queries[step], b[0], b[1], T());
                multiply_add(scores[2 * key + 1], queries[step], b[2], b[3], T());
            }
        }
    }

    // Hides what a vector does not see, of keys from `first` of the sequence on.
    PIE_DEVICE void hide(float (&scores)[AT_ONCE / 8][4], uint32_t first) const {
        const uint32_t column = first + threadIdx.x % 4 * 2;
#pragma unroll
        for (int key = 0; key < AT_ONCE / 8; key++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                if (column + key * 8 + i % 2 >= limit[i / 2]) scores[key][i] = -INFINITY;
            }
        }
    }

    // Scores to weights against the largest so far; what was summed up shrinks to match.
    PIE_DEVICE void weigh(float (&scores)[AT_ONCE / 8][4], float scale) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float largest = -INFINITY;
#pragma unroll
            for (int key = 0; key < AT_ONCE / 8; key++) {
                largest = fmaxf(largest, fmaxf(scores[key][2 * half], scores[key][2 * half + 1]));
            }
            largest = fmaxf(largest, __shfl_xor_sync(WARP, largest, 1));
            largest = fmaxf(largest, __shfl_xor_sync(WARP, largest, 2));
            largest = fmaxf(most[half], largest * scale);
            const float against = finite_or_zero(largest);
            const float rescale = power_of_two(most[half] - against);
            most[half] = largest;
            float added = 0.0f;
#pragma unroll
            for (int key = 0; key < AT_ONCE / 8; key++) {
#pragma unroll
                for (int i = 2 * half; i < 2 * half + 2; i++) {
                    scores[key][i] = power_of_two(fmaf(scores[key][i], scale, -against));
                    added += scores[key][i];
                }
            }
            sum[half] = fmaf(sum[half], rescale, added);
            // After a while the largest is seldom a new one.
            if (rescale == 1.0f) continue;
#pragma unroll
            for (int column = 0; column < D / 8; column++) {
                out[column][2 * half] *= rescale;
                out[column][2 * half + 1] *= rescale;
            }
        }
    }

    // Adds values by weight. A product's result has the layout of the next one's operand.
    PIE_DEVICE void add(const unsigned char* values, const float (&weights)[AT_ONCE / 8][4]) {
        const uint32_t lane = threadIdx.x % 32, row = lane % 16, half = lane / 16;
#pragma unroll
        for (int step = 0; step < AT_ONCE / 16; step++) {
            const float(&left)[4] = weights[2 * step];
            const float(&right)[4] = weights[2 * step + 1];
            const uint32_t a[4] = {pack(left[0], left[1], T()), pack(left[2], left[3], T()), pack(right[0], right[1], T()),
                                   pack(right[2], right[3], T())};
#pragma unroll
            for (int column = 0; column < D / 16; column++) {
                uint32_t b[4];
                load_matrix_x4_transposed(
                    b, values + Pieces<D>::bytes(row, 2 * column + half) + step * (16 * D * sizeof(T)));
                multiply_add(out[2 * column], a, b[0], b[1], T());
                multiply_add(out[2 * column + 1], a, b[2], b[3], T());
            }
        }
    }

    // Over keys and values in shared memory, the sequence's from `first` on.
    PIE_DEVICE void over(const unsigned char* keys, const unsigned char* values, uint32_t first, float scale) {
        float scores[AT_ONCE / 8][4];
        score(keys, scores);
        // Keys that end behind what the first vector sees have something to hide.
        if (first + AT_ONCE > first_limit) hide(scores, first);
        weigh(scores, scale);
        add(values, scores);
    }

    // The sums of whole rows.
    PIE_DEVICE void finish() {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            sum[half] += __shfl_xor_sync(WARP, sum[half], 1);
            sum[half] += __shfl_xor_sync(WARP, sum[half], 2);
        }
    }

    PIE_DEVICE void write(int half, T* to) const {
        const float share = sum[half] > 0.0f ? 1.0f / sum[half] : 0.0f;
        uint32_t* words = reinterpret_cast<uint32_t*>(to + threadIdx.x % 4 * 2);
#pragma unroll
        for (int column = 0; column < D / 8; column++) {
            words[column * 4] = pack(out[column][2 * half] * share, out[column][2 * half + 1] * share, T());
        }
    }

    PIE_DEVICE void write_partial(int half, float* to, float2* stats) const {
        if (threadIdx.x % 4 == 0) *stats = make_float2(most[half], sum[half]);
        float2* pairs = reinterpret_cast<float2*>(to + threadIdx.x % 4 * 2);
#pragma unroll
        for (int column = 0; column < D / 8; column++) {
            pairs[column * 4] = make_float2(out[column][2 * half], out[column][2 * half + 1]);
        }
    }
};

// Writes the attention of a warp's vectors, from `of_warp` in the tile on, or their part of it.
template <typename T, int D>
PIE_DEVICE void write_panel(const Panel<T, D>& panel, const Tile& tile, const Heads& heads, uint32_t of_warp, uint32_t vectors,
                            T* out, float* partial, float2* partial_stats) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint32_t in_tile = of_warp + threadIdx.x % 32 / 4 + 8 * half, vector = tile.vectors_begin + in_tile;
        if (vector >= tile.vectors_end) continue;
        if (tile.part == WHOLE) {
            panel.write(half, out + heads.vector(tile.first_row, vector, D));
        } else {
            const uint64_t place = heads.partial(tile.part, in_tile, vectors);
            panel.write_partial(half, partial + place * D, partial_stats + place);
        }
    }
}

// attend_T_D_few, attend_T_D_many: the table above says what they are launched with.
template <typename T, int D, int WARPS, int KEYS>
PIE_DEVICE void attend(const T* queries, const T* keys, const T* values, const uint32_t* tables, const uint32_t* visible,
                       const Tile* tiles, const uint32_t* tile_count, T* out, float* partial, float2* partial_stats,
                       uint32_t heads, uint32_t kv_heads, float scale) {
    PIE_SHARED(shared);
    if (blockIdx.x >= *tile_count) return;
    const uint32_t of_warp = threadIdx.x / 32 * 16;
    const uint32_t begin = tiles[blockIdx.x].keys_begin;
    Gather<T, D, WARPS, KEYS> gather(shared, keys, values, tables, tiles[blockIdx.x], Heads(heads, kv_heads));
    const uint32_t count = gather.tiles();
    if (count > 0) gather.start();
    Panel<T, D> panel;
    panel.start(queries, tiles[blockIdx.x], visible, Heads(heads, kv_heads), of_warp);

    for (uint32_t i = 0; i < count; i++) {
        // This tile has come, and all are done with the one before it, whose buffer is the next one's.
        copy_async_wait<0>();
        if (WARPS > 1) {
            __syncthreads();
        } else {
            __syncwarp();
        }
        if (i + 1 < count) gather.start();
#pragma unroll 1
        for (uint32_t of_tile = 0; of_tile < KEYS; of_tile += AT_ONCE) {
            const uint32_t first = begin + i * KEYS + of_tile;
            if (first >= panel.last_limit) break;
            const unsigned char* rows = gather.buffer(i) + of_tile * (D * sizeof(T));
            panel.over(rows, rows + gather.TILE_BYTES, first, scale);
        }
    }
    panel.finish();
    // The tile is read again: registers that kept it would be missed above.
    write_panel(panel, tiles[blockIdx.x], Heads(heads, kv_heads), of_warp, WARPS * 16, out, partial, partial_stats);
}

}  // namespace pie

#define PIE_ATTEND(T, suffix, D, size, WARPS, KEYS, BLOCKS)                                                                   \
    PIE_KERNEL_OF(WARPS * 32, BLOCKS, attend_##suffix##_##D##_##size, const T* queries, const T* keys, const T* values,       \
                  const uint32_t* tables, const uint32_t* visible, const pie::Tile* tiles, const uint32_t* tile_count, T* out, \
                  float* partial, float2* partial_stats, uint32_t heads, uint32_t kv_heads, float scale) {                    \
        pie::attend<T, D, WARPS, KEYS>(queries, keys, values, tables, visible, tiles, tile_count, out, partial, partial_stats, \
                                       heads, kv_heads, scale);                                                               \
    }
#define PIE_ATTEND_BOTH(T, suffix, D, BLOCKS)                        \
    PIE_ATTEND(T, suffix, D, few, pie::FEW_WARPS, pie::FEW_KEYS, 8)  \
    PIE_ATTEND(T, suffix, D, many, pie::MANY_WARPS, pie::MANY_KEYS, BLOCKS)
#define PIE_ATTEND_ALL(T, suffix)     \
    PIE_ATTEND_BOTH(T, suffix, 32, 4) \
    PIE_ATTEND_BOTH(T, suffix, 64, 4) \
    PIE_ATTEND_BOTH(T, suffix, 128, 3)
#define PIE_PLAIN(T, suffix)                                                                                                  \
    PIE_KERNEL(attend_plain_##suffix, const T* queries, const T* keys, const T* values, const uint32_t* tables,               \
               const uint32_t* visible, const pie::Tile* tiles, const uint32_t* tile_count, T* out, float* partial,           \
               float2* partial_stats, uint32_t heads, uint32_t kv_heads, float scale, uint32_t dim) {                         \
        pie::attend_plain<T>(queries, keys, values, tables, visible, tiles, tile_count, out, partial, partial_stats, heads,   \
                             kv_heads, scale, dim);                                                                           \
    }                                                                                                                         \
    PIE_KERNEL(merge_##suffix, const float* partial, const float2* partial_stats, const pie::Merge* merges,                   \
               const uint32_t* merge_count, T* out, uint32_t heads, uint32_t kv_heads, uint32_t dim, uint32_t tile) {         \
        pie::merge<T>(partial, partial_stats, merges, merge_count, out, heads, kv_heads, dim, tile);                          \
    }

PIE_ATTEND_ALL(pie::bf16, bf16)
PIE_ATTEND_ALL(pie::f16, f16)
PIE_PLAIN(float, f32)
PIE_PLAIN(pie::bf16, bf16)
PIE_PLAIN(pie::f16, f16)
