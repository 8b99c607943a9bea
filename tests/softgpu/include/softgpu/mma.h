// Tensor-core products as the PTX instructions define them: mma.sync.aligned.m16n8k16.row.col.f32.{bf16,f16}.*.f32.
// The fragment layout is that of the PTX manual (matrix fragments for mma.m16n8k16); products and sums are in fp32.
#pragma once
#include <softgpu/cuda.h>

namespace softgpu {

struct MmaSlot {
    const uint32_t *a, *b;
    const float* c;
    float d[4];
};

inline float mma_element(uint32_t bits, __nv_bfloat16) { return bits_float(bits << 16); }
// Without branches for finite numbers (this is where the emulation spends its time): the exponent is moved by a product.
inline float mma_element(uint32_t bits, __half) {
    const float size = bits_float((bits & 0x7fff) << 13) * 0x1p112f;
    if ((bits & 0x7c00) == 0x7c00) return __half2float({uint16_t(bits)});
    return bits & 0x8000 ? -size : size;
}

// Lane 4g+t holds A rows g and g+8, columns 2t.. and 2t+8..; B rows 2t.. and 2t+8.., column g; D as A with 8 columns.
template <class T> void mma_m16n8k16(void* slots[kWarp]) {
    float a[16][16], b[16][8], d[16][8];
    for (unsigned lane = 0; lane < kWarp; lane++) {
        if (slots[lane] == nullptr) fail("mma.sync: lane %u of the warp is missing", lane);
        const MmaSlot& slot = *static_cast<MmaSlot*>(slots[lane]);
        const unsigned g = lane / 4, t = lane % 4;
        for (unsigned i = 0; i < 4; i++) {
            float* to = &a[g + i % 2 * 8][2 * t + i / 2 * 8];
            to[0] = mma_element(slot.a[i] & 0xffff, T{});
            to[1] = mma_element(slot.a[i] >> 16, T{});
            d[g + i / 2 * 8][2 * t + i % 2] = slot.c[i];
        }
        for (unsigned i = 0; i < 2; i++) {
            b[2 * t + i * 8][g] = mma_element(slot.b[i] & 0xffff, T{});
            b[2 * t + i * 8 + 1][g] = mma_element(slot.b[i] >> 16, T{});
        }
    }
    for (unsigned row = 0; row < 16; row++) {
        float sum[8];
        for (unsigned n = 0; n < 8; n++) sum[n] = d[row][n];
        for (unsigned k = 0; k < 16; k++) {
            for (unsigned n = 0; n < 8; n++) sum[n] += a[row][k] * b[k][n];
        }
        for (unsigned n = 0; n < 8; n++) d[row][n] = sum[n];
    }
    for (unsigned lane = 0; lane < kWarp; lane++) {
        MmaSlot& slot = *static_cast<MmaSlot*>(slots[lane]);
        const unsigned g = lane / 4, t = lane % 4;
        for (unsigned i = 0; i < 4; i++) slot.d[i] = d[g + i / 2 * 8][2 * t + i % 2];
    }
}

// d = a·b + c for the warp; d may be c.
template <class T>
void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], const float (&c)[4], SOFTGPU_HERE) {
    MmaSlot slot{a, b, c, {}};
    warp_meet(SOFTGPU_SITE, ~0u, mma_m16n8k16<T>, &slot);
    for (unsigned i = 0; i < 4; i++) d[i] = slot.d[i];
}

}  // namespace softgpu
