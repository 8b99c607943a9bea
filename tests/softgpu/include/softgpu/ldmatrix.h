// ldmatrix.sync.aligned.m8n8.{x1,x2,x4}{.trans}.shared.b16 as the PTX manual defines it.
#pragma once
#include <softgpu/cuda.h>

namespace softgpu {

struct MatrixSlot {
    const unsigned char* row;
    uint32_t out[4];
};

// Lanes 8i..8i+7 name the rows of the i-th matrix; lane 4g+t gets row g, columns 2t and 2t+1 (columns g of rows 2t and
// 2t+1 with .trans).
template <int N, bool kTrans> void load_matrices(void* slots[kWarp]) {
    for (unsigned lane = 0; lane < kWarp; lane++) {
        if (slots[lane] == nullptr) fail("ldmatrix: lane %u of the warp is missing", lane);
    }
    for (unsigned i = 0; i < N; i++) {
        uint16_t matrix[8][8];
        for (unsigned r = 0; r < 8; r++) {
            const unsigned char* row = static_cast<MatrixSlot*>(slots[8 * i + r])->row;
            if (reinterpret_cast<uintptr_t>(row) % 16 != 0) fail("ldmatrix: lane %u's row is misaligned", 8 * i + r);
            memcpy(matrix[r], row, 16);
        }
        for (unsigned lane = 0; lane < kWarp; lane++) {
            const unsigned g = lane / 4, t = lane % 4;
            const uint32_t low = kTrans ? matrix[2 * t][g] : matrix[g][2 * t];
            const uint32_t high = kTrans ? matrix[2 * t + 1][g] : matrix[g][2 * t + 1];
            static_cast<MatrixSlot*>(slots[lane])->out[i] = low | high << 16;
        }
    }
}

template <int N, bool kTrans> void ldmatrix(uint32_t (&r)[N], const unsigned char* row, SOFTGPU_HERE) {
    MatrixSlot slot{row, {}};
    warp_meet(SOFTGPU_SITE, ~0u, load_matrices<N, kTrans>, &slot);
    for (int i = 0; i < N; i++) r[i] = slot.out[i];
}

}  // namespace softgpu
