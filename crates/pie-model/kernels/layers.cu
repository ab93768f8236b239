// The pieces of a layer between products and attention. x and partial are f32, the rest T; weights of norms are f32.

#include "../../pie-kv/kernels/device.cuh"

namespace pie {

PIE_DEVICE void store_4(float* to, float4 x) { *reinterpret_cast<float4*>(to) = x; }
template <typename T>
PIE_DEVICE void store_4(T* to, float4 x) {
    *reinterpret_cast<uint2*>(to) = make_uint2(pack(x.x, x.y, T()), pack(x.z, x.w, T()));
}

// embed: the embeddings of tokens as f32.
//   table [vocabulary][hidden], tokens [rows], x [rows][hidden]; grid rows, block 256
template <typename T>
PIE_DEVICE void embed(const T* table, const uint32_t* tokens, float* x, uint32_t hidden) {
    const T* from = table + uint64_t(tokens[blockIdx.x]) * hidden;
    float* to = x + uint64_t(blockIdx.x) * hidden;
    if (hidden % LANES<T> != 0) {
        for (uint32_t i = threadIdx.x; i < hidden; i += blockDim.x) to[i] = to_float(from[i]);
        return;
    }
    for (uint32_t i = threadIdx.x * LANES<T>; i < hidden; i += blockDim.x * LANES<T>) {
        float numbers[LANES<T>];
        Wide<T>::unpack_16(__ldg(reinterpret_cast<const uint4*>(from + i)), numbers);
#pragma unroll
        for (uint32_t k = 0; k < LANES<T>; k += 4) {
            store_4(to + i + k, make_float4(numbers[k], numbers[k + 1], numbers[k + 2], numbers[k + 3]));
        }
    }
}

// The sum over a block's threads, the same in all, in an order that is always the same. One use of `warps` in a kernel.
PIE_DEVICE float sum_of_block(float x, float* warps) {
    x = sum_of_warp(x);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = x;
    __syncthreads();
    float sum = 0.0f;
    for (uint32_t warp = 0; warp < blockDim.x / 32; warp++) sum += warps[warp];
    return sum;
}

PIE_DEVICE float4 plus(float4 a, float4 b) { return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w); }
PIE_DEVICE float squares_of(float4 x, float sum) {
    return fmaf(x.w, x.w, fmaf(x.z, x.z, fmaf(x.y, x.y, fmaf(x.x, x.x, sum))));
}
template <typename T>
PIE_DEVICE void store_scaled(T* to, float4 x, float scale, float4 by) {
    store_4(to, make_float4(x.x * scale * by.x, x.y * scale * by.y, x.z * scale * by.z, x.w * scale * by.w));
}

// Fours of numbers that a thread keeps in registers: rows of up to 8192 are read once.
constexpr int KEPT = 8;

// norm, add_norm: x / rms(x) * weight, after x += partial if ADD.
//   x, partial, out [rows][hidden]; grid rows, block 256, 128 shared bytes
template <typename T, bool ADD>
PIE_DEVICE void norm(float* all, const float* all_partial, const float* weight, T* all_out, uint32_t hidden, float epsilon) {
    PIE_SHARED(shared);
    const uint64_t row = uint64_t(blockIdx.x) * hidden;
    float* x = all + row;
    T* out = all_out + row;
    const float4* partials = reinterpret_cast<const float4*>(all_partial + row);
    const float4* weights = reinterpret_cast<const float4*>(weight);
    float4* fours = reinterpret_cast<float4*>(x);
    const uint32_t wide = hidden % 4 == 0 ? hidden / 4 : 0;
    float4 kept[KEPT], by[KEPT];
    float squares = 0.0f;
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const uint32_t i = threadIdx.x + k * blockDim.x;
        const bool present = i < wide;
        kept[k] = present ? fours[i] : make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        if (ADD && present) kept[k] = plus(kept[k], __ldg(partials + i));
        if (present) by[k] = __ldg(weights + i);
        squares = squares_of(kept[k], squares);
    }
    if (ADD) {
#pragma unroll
        for (int k = 0; k < KEPT; k++) {
            const uint32_t i = threadIdx.x + k * blockDim.x;
            if (i < wide) fours[i] = kept[k];
        }
    }
    // What is beyond is read again, by the thread that has written it.
    for (uint32_t i = threadIdx.x + KEPT * blockDim.x; i < wide; i += blockDim.x) {
        float4 four = fours[i];
        if (ADD) fours[i] = four = plus(four, __ldg(partials + i));
        squares = squares_of(four, squares);
    }
    for (uint32_t i = 4 * wide + threadIdx.x; i < hidden; i += blockDim.x) {
        if (ADD) x[i] += all_partial[row + i];
        squares = fmaf(x[i], x[i], squares);
    }
    squares = sum_of_block(squares, reinterpret_cast<float*>(shared));
    const float scale = 1.0f / sqrtf(squares / float(hidden) + epsilon);
#pragma unroll
    for (int k = 0; k < KEPT; k++) {
        const uint32_t i = threadIdx.x + k * blockDim.x;
        if (i < wide) store_scaled(out + 4 * i, kept[k], scale, by[k]);
    }
    for (uint32_t i = threadIdx.x + KEPT * blockDim.x; i < wide; i += blockDim.x) {
        store_scaled(out + 4 * i, fours[i], scale, __ldg(weights + i));
    }
    for (uint32_t i = 4 * wide + threadIdx.x; i < hidden; i += blockDim.x) store(out + i, x[i] * scale * weight[i]);
}

// ready_heads: adds biases to queries, keys and values, and norms each head of the queries and keys, in place.
//   qkv [rows][heads][dim], biases [heads][dim] or null, norms [2][dim] or null: of the first `queries` heads, and of the
//   `keys` behind them; grid (heads, rows), block 32
template <typename T>
PIE_DEVICE void ready_heads(T* qkv, const float* biases, const float* norms, uint32_t dim, uint32_t queries, uint32_t keys,
                            float epsilon) {
    const uint32_t head = blockIdx.x;
    T* numbers = qkv + (uint64_t(blockIdx.y) * gridDim.x + head) * dim;
    const float* bias = biases == nullptr ? nullptr : biases + uint64_t(head) * dim;
    float squares = 0.0f;
    for (uint32_t i = threadIdx.x; i < dim; i += 32) {
        const float x = to_float(numbers[i]) + (bias == nullptr ? 0.0f : bias[i]);
        squares = fmaf(x, x, squares);
        store(numbers + i, x);
    }
    if (norms == nullptr || head >= queries + keys) return;
    const float scale = 1.0f / sqrtf(sum_of_warp(squares) / float(dim) + epsilon);
    const float* weight = norms + (head < queries ? 0 : dim);
    for (uint32_t i = threadIdx.x; i < dim; i += 32) store(numbers + i, to_float(numbers[i]) * scale * weight[i]);
}

PIE_DEVICE float gate(float gate, float up) {
    // e^-|gate| cannot overflow.
    const float e = expf(-fabsf(gate));
    return gate * ((gate < 0.0f ? e : 1.0f) / (1.0f + e)) * up;
}

// gated: silu(gate) * up, SwiGLU's middle.
//   gate_up [rows][gate then up], out [rows][width]
//   grid (ceil(width / V / 256), rows), block 256; V = 16 / sizeof T where width is a multiple of it, else 1
template <typename T>
PIE_DEVICE void gated(const T* gate_up, T* out, uint32_t width) {
    constexpr int V = LANES<T>;
    const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    const T* from = gate_up + uint64_t(blockIdx.y) * 2 * width;
    T* to = out + uint64_t(blockIdx.y) * width;
    if (width % V != 0) {
        if (index < width) store(to + index, gate(to_float(from[index]), to_float(from[width + index])));
        return;
    }
    const uint32_t i = index * V;
    if (i >= width) return;
    const uint4 gate_bits = __ldg(reinterpret_cast<const uint4*>(from + i));
    const uint4 up_bits = __ldg(reinterpret_cast<const uint4*>(from + width + i));
    float gates[V], ups[V];
    Wide<T>::unpack_16(gate_bits, gates);
    Wide<T>::unpack_16(up_bits, ups);
#pragma unroll
    for (int k = 0; k < V; k++) gates[k] = gate(gates[k], ups[k]);
    *reinterpret_cast<uint4*>(to + i) = Wide<T>::pack_16(gates);
}

// 64 bits of a number's index (splitmix64; Steele, Lea and Flood 2014).
PIE_DEVICE uint64_t mixed(uint64_t seed, uint64_t index) {
    uint64_t bits = seed + (index + 1) * 0x9e3779b97f4a7c15ull;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9ull;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebull;
    return bits ^ (bits >> 31);
}

// Mean 0, variance 1, within 3.5: the sum of four uniform numbers of 16 bits.
PIE_DEVICE float bell(uint64_t bits) {
    const uint32_t sum =
        uint32_t(bits & 0xffff) + uint32_t(bits >> 16 & 0xffff) + uint32_t(bits >> 32 & 0xffff) + uint32_t(bits >> 48);
    return (float(sum) - 131070.0f) / 37837.23f;
}

// random: numbers that depend on the seed and their index alone; any grid and block
template <typename T>
PIE_DEVICE void random(T* out, uint64_t count, uint64_t seed, float mean, float deviation) {
    const uint64_t threads = uint64_t(gridDim.x) * blockDim.x;
    for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += threads) {
        store(out + i, fmaf(deviation, bell(mixed(seed, i)), mean));
    }
}

}  // namespace pie

#define PIE_LAYERS(T, suffix)                                                                                                 \
    PIE_KERNEL(embed_##suffix, const T* table, const uint32_t* tokens, float* x, uint32_t hidden) {                           \
        pie::embed(table, tokens, x, hidden);                                                                                 \
    }                                                                                                                         \
    PIE_KERNEL_OF(256, 1, norm_##suffix, const float* x, const float* weight, T* out, uint32_t hidden, float epsilon) {                  \
        pie::norm<T, false>(const_cast<float*>(x), x, weight, out, hidden, epsilon);                                          \
    }                                                                                                                         \
    PIE_KERNEL_OF(256, 1, add_norm_##suffix, float* x, const float* partial, const float* weight, T* out, uint32_t hidden,               \
               float epsilon) {                                                                                               \
        pie::norm<T, true>(x, partial, weight, out, hidden, epsilon);                                                         \
    }                                                                                                                         \
    PIE_KERNEL(ready_heads_##suffix, T* qkv, const float* biases, const float* norms, uint32_t dim, uint32_t queries,         \
               uint32_t keys, float epsilon) {                                                                                \
        pie::ready_heads(qkv, biases, norms, dim, queries, keys, epsilon);                                                    \
    }                                                                                                                         \
    PIE_KERNEL(gated_##suffix, const T* gate_up, T* out, uint32_t width) { pie::gated(gate_up, out, width); }                 \
    PIE_KERNEL(random_##suffix, T* out, uint64_t count, uint64_t seed, float mean, float deviation) {                         \
        pie::random(out, count, seed, mean, deviation);                                                                       \
    }

PIE_LAYERS(float, f32)
PIE_LAYERS(pie::bf16, bf16)
PIE_LAYERS(pie::f16, f16)

// pick_rows: to[i] = from[rows[i]]; row in uint4; grid (ceil(row / 256), count), block 256
PIE_KERNEL(pick_rows, const uint4* from, uint4* to, const uint32_t* rows, uint32_t row) {
    const uint32_t index = blockIdx.x * blockDim.x + threadIdx.x;
    if (index < row) to[uint64_t(blockIdx.y) * row + index] = from[uint64_t(rows[blockIdx.y]) * row + index];
}
