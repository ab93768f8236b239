// Rows of the cache: turned, copied, gathered, scattered and written by slot.
//
// K and V are `[layers][slots][kv_heads][dim]` each. A rotation turns the pairs (x[i], x[i + dim / 2]).
// A thread has V = 16 / sizeof T pairs, two times 16 bytes, where a half is a multiple of that, else V = 1.

#include "device.cuh"

namespace pie {

template <typename T>
PIE_DEVICE bool halves_are_wide(uint32_t half) {
    return half % LANES<T> == 0;
}

// V pairs from first[0..V] and second[0..V], rotated to out and out + half.
template <typename T>
PIE_DEVICE void rotate_wide(const T* first, uint32_t half, const float2* angles, T* out) {
    constexpr int V = LANES<T>;
    const uint4 bits_a = *reinterpret_cast<const uint4*>(first);
    const uint4 bits_b = *reinterpret_cast<const uint4*>(first + half);
    float2 angle[V];
#pragma unroll
    for (int i = 0; i < V; i += 2) {
        const float4 two = __ldg(reinterpret_cast<const float4*>(angles + i));
        angle[i] = make_float2(two.x, two.y);
        angle[i + 1] = make_float2(two.z, two.w);
    }
    float a[V], b[V];
    Wide<T>::unpack_16(bits_a, a);
    Wide<T>::unpack_16(bits_b, b);
#pragma unroll
    for (int i = 0; i < V; i++) rotate(a[i], b[i], angle[i]);
    *reinterpret_cast<uint4*>(out) = Wide<T>::pack_16(a);
    *reinterpret_cast<uint4*>(out + half) = Wide<T>::pack_16(b);
}

template <typename T>
PIE_DEVICE void rotate_one(const T* first, uint32_t half, const float2* angles, T* out) {
    float a = to_float(first[0]), b = to_float(first[half]);
    rotate(a, b, *angles);
    store(out, a);
    store(out + half, b);
}

// turn: the keys of slots[i] of all layers, in place, by angles[angle_of[i]]; slots are distinct.
//   keys [layers][slots][kv_heads][dim], slots, angle_of [count], angles [][dim / 2] of (cos, sin)
//   grid (ceil(count * kv_heads * (dim / 2) / V / 256), layers), block 256
template <typename T>
PIE_DEVICE void turn(T* keys, uint64_t layer_stride, const uint32_t* slots, const uint32_t* angle_of, const float2* angles,
                     uint32_t count, uint32_t kv_heads, uint32_t dim) {
    const uint32_t half = dim / 2;
    const bool wide = halves_are_wide<T>(half);
    const uint32_t per_thread = wide ? LANES<T> : 1;
    const uint32_t per_head = half / per_thread;
    const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t head = index / per_head;
    const uint32_t i = head / kv_heads;
    if (i >= count) return;
    const uint32_t pair = (index - head * per_head) * per_thread;
    const uint64_t row = blockIdx.y * layer_stride + uint64_t(__ldg(slots + i)) * (kv_heads * dim);
    T* first = keys + row + (head - i * kv_heads) * dim + pair;
    const float2* by = angles + uint64_t(__ldg(angle_of + i)) * half + pair;
    if (wide) {
        rotate_wide(first, half, by, first);
    } else {
        rotate_one(first, half, by, first);
    }
}

// place: of each row of qkv the queries and keys, rotated, and the values, to where attention reads them.
//   qkv [rows][heads + 2 kv_heads][dim], angles [rows][dim / 2], queries [rows][heads][dim]; keys, values of one layer
//   grid (ceil((heads + 2 kv_heads) * (dim / 2) / V / 128), rows), block 128
template <typename T>
PIE_DEVICE void place(const T* qkv, const float2* angles, const uint32_t* slots, T* queries, T* keys, T* values, uint32_t rows,
                      uint32_t heads, uint32_t kv_heads, uint32_t dim) {
    const uint32_t half = dim / 2;
    const bool wide = halves_are_wide<T>(half);
    const uint32_t per_thread = wide ? LANES<T> : 1;
    const uint32_t per_head = half / per_thread;
    const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t head = index / per_head, of_row = heads + 2 * kv_heads;
    const uint32_t row = blockIdx.y;
    if (head >= of_row || row >= rows) return;
    const uint32_t pair = (index - head * per_head) * per_thread;
    const T* from = qkv + (uint64_t(row) * of_row + head) * dim + pair;
    const uint64_t in_layer = uint64_t(__ldg(slots + row)) * (kv_heads * dim) + pair;
    if (head >= heads + kv_heads) {
        T* to = values + in_layer + (head - heads - kv_heads) * dim;
        if (wide) {
            *reinterpret_cast<uint4*>(to) = *reinterpret_cast<const uint4*>(from);
            *reinterpret_cast<uint4*>(to + half) = *reinterpret_cast<const uint4*>(from + half);
        } else {
            to[0] = from[0];
            to[half] = from[half];
        }
        return;
    }
    T* to = head < heads ? queries + (uint64_t(row) * heads + head) * dim + pair : keys + in_layer + (head - heads) * dim;
    const float2* by = angles + uint64_t(row) * half + pair;
    if (wide) {
        rotate_wide(from, half, by, to);
    } else {
        rotate_one(from, half, by, to);
    }
}

}  // namespace pie

#define PIE_ROWS(T, suffix)                                                                                                  \
    PIE_KERNEL(turn_##suffix, T* keys, uint64_t layer_stride, const uint32_t* slots, const uint32_t* angle_of,               \
               const float2* angles, uint32_t count, uint32_t kv_heads, uint32_t dim) {                                      \
        pie::turn(keys, layer_stride, slots, angle_of, angles, count, kv_heads, dim);                                        \
    }                                                                                                                        \
    PIE_KERNEL(place_##suffix, const T* qkv, const float2* angles, const uint32_t* slots, T* queries, T* keys, T* values,    \
               uint32_t rows, uint32_t heads, uint32_t kv_heads, uint32_t dim) {                                             \
        pie::place(qkv, angles, slots, queries, keys, values, rows, heads, kv_heads, dim);                                   \
    }

PIE_ROWS(float, f32)
PIE_ROWS(pie::bf16, bf16)
PIE_ROWS(pie::f16, f16)

// copy_rows: K and V of from[i] to to[i] in all layers; no row is both read and written, or written twice.
//   layer_stride and row in uint4; grid (ceil(count * row / 256), layers), block 256
PIE_KERNEL(copy_rows, uint4* keys, uint4* values, uint64_t layer_stride, const uint32_t* from, const uint32_t* to,
           uint32_t count, uint32_t row) {
    const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t i = index / row;
    if (i >= count) return;
    const uint64_t place = blockIdx.y * layer_stride + (index - i * row);
    const uint64_t source = place + uint64_t(__ldg(from + i)) * row;
    const uint64_t target = place + uint64_t(__ldg(to + i)) * row;
    const uint4 key = keys[source], value = values[source];
    keys[target] = key;
    values[target] = value;
}

// gather_rows: out[i] = rows[slots[i]] of one layer's K or V; row in uint4; grid ceil(count * row / 256), block 256
PIE_KERNEL(gather_rows, const uint4* rows, uint4* out, const uint32_t* slots, uint32_t count, uint32_t row) {
    const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t i = index / row;
    if (i >= count) return;
    out[index] = rows[uint64_t(__ldg(slots + i)) * row + (index - i * row)];
}

// scatter_rows: rows[slots[i]] = in[i]; as gather_rows
PIE_KERNEL(scatter_rows, uint4* rows, const uint4* in, const uint32_t* slots, uint32_t count, uint32_t row) {
    const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    const uint32_t i = index / row;
    if (i >= count) return;
    rows[uint64_t(__ldg(slots + i)) * row + (index - i * row)] = in[index];
}
