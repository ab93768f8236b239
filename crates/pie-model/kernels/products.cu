// Products of few rows with a matrix, at the pace of the memory that the matrix is read from.
//
// few_T_R (result in T), few_T_R_f32: y[r][o] = sum of x[r][i] w[o][i], for R = 1, 2, 4 or 8 rows.
//   x [R][inputs], w [outputs][inputs], y [R][outputs]
//   grid: up to ceil(outputs / (8 * OUTPUTS)), blocks of fewer go on with further outputs; OUTPUTS is 2 for R = 1, 2, else 4
//   block 256, 32768 shared bytes
// x lies in shared memory, all or a stretch of it at a time; a warp reads OUTPUTS rows of w with eight loads of 16 bytes
// (R = 8: four) in flight in each lane, the first of them while x is on its way. Each sum is made in one order, which neither
// R nor the grid changes.

#include "../../pie-kv/kernels/device.cuh"

namespace pie {

constexpr uint32_t FEW_WARPS = 8;
constexpr uint32_t FEW_SHARED = 32768;

template <typename T, int R, typename Y>
struct Few {
    static constexpr int OUTPUTS = R <= 2 ? 2 : 4;
    // Eight rows' sums leave registers for four loads only.
    static constexpr int STEPS = (R == 8 ? 4 : 8) / OUTPUTS;
    static constexpr uint32_t AT_ONCE = 32 * STEPS;         // pieces of 16 bytes of a row of w
    static constexpr uint32_t STAGE = FEW_SHARED / 16 / R;  // pieces of a row of x in shared memory
    static_assert(STAGE % AT_ONCE == 0, "a stage is read in whole steps");

    float sums[R][OUTPUTS];

    // Starts to bring pieces from `begin` of all rows of x to shared memory, and zeros up to a whole number of steps.
    PIE_DEVICE static void stage(const T* x, uint32_t inputs, uint32_t begin, uint32_t count, uint4* staged) {
        const uint32_t whole = (count + AT_ONCE - 1) / AT_ONCE * AT_ONCE;
        for (uint32_t piece = threadIdx.x; piece < whole; piece += blockDim.x) {
            const uint4* from = reinterpret_cast<const uint4*>(x) + begin + min(piece, count - 1);
#pragma unroll
            for (int row = 0; row < R; row++) {
                copy_async_16(staged + row * STAGE + piece, from + uint64_t(row) * (inputs / LANES<T>), piece < count);
            }
        }
        copy_async_commit();
    }

    PIE_DEVICE static void read(uint4 (&bits)[STEPS][OUTPUTS], const uint4* (&rows)[OUTPUTS], uint32_t begin, uint32_t count) {
#pragma unroll
        for (int step = 0; step < STEPS; step++) {
            const uint32_t piece = begin + 32 * step + threadIdx.x % 32;
#pragma unroll
            for (int output = 0; output < OUTPUTS; output++) {
                bits[step][output] = piece < count ? load_once(rows[output] + piece) : make_uint4(0, 0, 0, 0);
            }
        }
    }

    PIE_DEVICE void add_piece(const uint4 (&bits)[OUTPUTS], const uint4* staged) {
        float w[OUTPUTS][LANES<T>];
#pragma unroll
        for (int output = 0; output < OUTPUTS; output++) Wide<T>::unpack_16(bits[output], w[output]);
#pragma unroll
        for (int row = 0; row < R; row++) {
            float x[LANES<T>];
            Wide<T>::unpack_16(staged[row * STAGE], x);
#pragma unroll
            for (int output = 0; output < OUTPUTS; output++) {
#pragma unroll
                for (uint32_t i = 0; i < LANES<T>; i++) sums[row][output] = fmaf(x[i], w[output][i], sums[row][output]);
            }
        }
    }

    // `count` pieces of each row of w times what is staged, or still on its way.
    PIE_DEVICE void add(const uint4* (&rows)[OUTPUTS], uint32_t count, const uint4* staged, bool on_its_way) {
        uint4 bits[STEPS][OUTPUTS];
        read(bits, rows, 0, count);
        if (on_its_way) {
            copy_async_wait<0>();
            __syncthreads();
        }
#pragma unroll 1
        for (uint32_t begin = 0; begin < count; begin += AT_ONCE) {
            const uint4* x = staged + begin + threadIdx.x % 32;
#pragma unroll
            for (int step = 0; step < STEPS; step++) add_piece(bits[step], x + 32 * step);
            read(bits, rows, begin + AT_ONCE, count);
        }
    }

    // Rows whose pieces do not start at multiples of 16 bytes.
    PIE_DEVICE void add_singly(const T* x, const T* w, uint32_t first, uint32_t outputs, uint32_t inputs) {
#pragma unroll 1
        for (uint32_t i = threadIdx.x % 32; i < inputs; i += 32) {
#pragma unroll
            for (int output = 0; output < OUTPUTS; output++) {
                const float weight = to_float(w[uint64_t(min(first + output, outputs - 1)) * inputs + i]);
#pragma unroll
                for (int row = 0; row < R; row++) {
                    sums[row][output] = fmaf(to_float(x[uint64_t(row) * inputs + i]), weight, sums[row][output]);
                }
            }
        }
    }

    PIE_DEVICE void clear() {
#pragma unroll
        for (int row = 0; row < R; row++) {
#pragma unroll
            for (int output = 0; output < OUTPUTS; output++) sums[row][output] = 0.0f;
        }
    }

    PIE_DEVICE void write(Y* y, uint32_t first, uint32_t outputs) const {
#pragma unroll
        for (int row = 0; row < R; row++) {
#pragma unroll
            for (int output = 0; output < OUTPUTS; output++) {
                const float sum = sum_of_warp(sums[row][output]);
                const bool mine = threadIdx.x % 32 == uint32_t(row * OUTPUTS + output);
                if (mine && first + output < outputs) store(y + uint64_t(row) * outputs + first + output, sum);
            }
        }
    }
};

template <typename T, int R, typename Y>
PIE_DEVICE void few(const T* x, const T* w, Y* y, uint32_t outputs, uint32_t inputs) {
    using Few = Few<T, R, Y>;
    PIE_SHARED(shared);
    uint4* staged = reinterpret_cast<uint4*>(shared);
    const uint32_t pieces = inputs / LANES<T>;
    const bool aligned = inputs % LANES<T> == 0;
    Few sums;
    for (uint32_t group = blockIdx.x; group * (FEW_WARPS * Few::OUTPUTS) < outputs; group += gridDim.x) {
        const uint32_t first = (group * FEW_WARPS + threadIdx.x / 32) * Few::OUTPUTS;
        sums.clear();
        if (!aligned) sums.add_singly(x, w, first, outputs, inputs);
        for (uint32_t begin = 0; aligned && begin < pieces; begin += Few::STAGE) {
            // Known to be small, the loop over it would be written out whole.
            const uint32_t count = of_unknown_size(min(Few::STAGE, pieces - begin));
            // What is staged whole stays for the block's next outputs.
            const bool stages = group == blockIdx.x || pieces > Few::STAGE;
            if (stages) {
                __syncthreads();
                Few::stage(x, inputs, begin, count, staged);
            }
            const uint4* rows[Few::OUTPUTS];
#pragma unroll
            for (int output = 0; output < Few::OUTPUTS; output++) {
                // One beyond the last is read as the last, and not written.
                const T* row = w + uint64_t(min(first + output, outputs - 1)) * inputs;
                rows[output] = reinterpret_cast<const uint4*>(row) + begin;
            }
            sums.add(rows, count, staged, stages);
        }
        sums.write(y, first, outputs);
    }
}

}  // namespace pie

#define PIE_FEW(T, suffix, R, BLOCKS)                                                                                          \
    PIE_KERNEL_OF(256, BLOCKS, few_##suffix##_##R, const T* x, const T* w, T* y, uint32_t outputs, uint32_t inputs) {          \
        pie::few<T, R, T>(x, w, y, outputs, inputs);                                                                           \
    }                                                                                                                          \
    PIE_KERNEL_OF(256, BLOCKS, few_##suffix##_##R##_f32, const T* x, const T* w, float* y, uint32_t outputs, uint32_t inputs) { \
        pie::few<T, R, float>(x, w, y, outputs, inputs);                                                                       \
    }
#define PIE_FEW_ALL(T, suffix) \
    PIE_FEW(T, suffix, 1, 3)   \
    PIE_FEW(T, suffix, 2, 2)   \
    PIE_FEW(T, suffix, 4, 2)   \
    PIE_FEW(T, suffix, 8, 2)

PIE_FEW_ALL(float, f32)
PIE_FEW_ALL(pie::bf16, bf16)
PIE_FEW_ALL(pie::f16, f16)
