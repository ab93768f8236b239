// The primitives that are PTX on the GPU: ldmatrix, mma.m16n8k16 and cp.async, with their layouts.
#pragma once

#include "threads.hpp"

namespace pie_emulator {

struct Rows { const void* row; uint32_t* result; };

// Matrix m has its eight rows at lanes 8m to 8m + 7. A lane receives of each matrix two neighbours in its row
// lane / 4, or, transposed, the two below each other in column lane / 4.
template <bool transposed> inline void load_matrices(void** lanes) {
    for (int matrix = 0; matrix < 4; matrix++) {
        uint16_t cells[8][8];
        for (int row = 0; row < 8; row++) {
            std::memcpy(cells[row], static_cast<Rows*>(lanes[8 * matrix + row])->row, 16);
        }
        for (int lane = 0; lane < 32; lane++) {
            int i = lane / 4, j = 2 * (lane % 4);
            uint32_t low = transposed ? cells[j][i] : cells[i][j];
            uint32_t high = transposed ? cells[j + 1][i] : cells[i][j + 1];
            static_cast<Rows*>(lanes[lane])->result[matrix] = low | high << 16;
        }
    }
}

template <bool transposed> inline void load_matrix(uint32_t (&r)[4], const void* row) {
    check_shared(row, 16, "ldmatrix");
    Rows mine{row, r};
    together("ldmatrix", load_matrices<transposed>, &mine);
}

struct Fragments { float* c; const uint32_t* a; uint32_t b[2]; };

inline float low_of(uint32_t pair, __nv_bfloat16) { return same_bits<float>(pair << 16); }
inline float high_of(uint32_t pair, __nv_bfloat16) { return same_bits<float>(pair & 0xffff0000u); }
inline float low_of(uint32_t pair, __half) { return of_half(uint16_t(pair)); }
inline float high_of(uint32_t pair, __half) { return of_half(uint16_t(pair >> 16)); }

typedef float Eight __attribute__((vector_size(32)));

template <typename T> inline void multiply_fragments(void** lanes) {
    float a[16][16];
    Eight b[16], c[16];
    for (int lane = 0; lane < 32; lane++) {
        auto* mine = static_cast<Fragments*>(lanes[lane]);
        int group = lane / 4, pair = 2 * (lane % 4);
        for (int i = 0; i < 4; i++) {
            int row = group + 8 * (i % 2), column = pair + 8 * (i / 2);
            a[row][column] = low_of(mine->a[i], T());
            a[row][column + 1] = high_of(mine->a[i], T());
        }
        for (int i = 0; i < 2; i++) {
            b[pair + 8 * i][group] = low_of(mine->b[i], T());
            b[pair + 8 * i + 1][group] = high_of(mine->b[i], T());
            c[group + 8 * i][pair] = mine->c[2 * i];
            c[group + 8 * i][pair + 1] = mine->c[2 * i + 1];
        }
    }
    for (int i = 0; i < 16; i++) {
        Eight sums = {};
        for (int k = 0; k < 16; k++) sums += a[i][k] * b[k];
        c[i] += sums;
    }
    for (int lane = 0; lane < 32; lane++) {
        auto* mine = static_cast<Fragments*>(lanes[lane]);
        for (int i = 0; i < 4; i++) mine->c[i] = c[lane / 4 + 8 * (i / 2)][2 * (lane % 4) + i % 2];
    }
}

}  // namespace pie_emulator

namespace pie {

inline void load_matrix_x4(uint32_t (&r)[4], const void* shared_row) { pie_emulator::load_matrix<false>(r, shared_row); }
inline void load_matrix_x4_transposed(uint32_t (&r)[4], const void* shared_row) {
    pie_emulator::load_matrix<true>(r, shared_row);
}

template <typename T>
inline void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, T) {
    pie_emulator::Fragments mine{c, a, {b0, b1}};
    pie_emulator::together("mma", pie_emulator::multiply_fragments<T>, &mine);
}

inline void copy_async_16(void* shared, const void* global, bool present) {
    pie_emulator::copy_async(shared, global, present);
}
inline void copy_async_commit() { pie_emulator::copy_async_commit(); }
template <int N> inline void copy_async_wait() { pie_emulator::copy_async_wait(N); }

}  // namespace pie
