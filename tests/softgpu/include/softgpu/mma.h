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

inline float mma_element(uint32_t pair, unsigned half, __nv_bfloat16) {
    return __bfloat162float({uint16_t(pair >> 16 * half)});
}
inline float mma_element(uint32_t pair, unsigned half, __half) { return __half2float({uint16_t(pair >> 16 * half)}); }

// Lane 4g+t holds A rows g and g+8, columns 2t.. and 2t+8..; B rows 2t.. and 2t+8.., column g; D as A with 8 columns.
template <class T> void mma_m16n8k16(void* slots[kWarp]) {
    float a[16][16], b[16][8];
    for (unsigned lane = 0; lane < kWarp; lane++) {
        if (slots[lane] == nullptr) fail("mma.sync: lane %u of the warp is missing", lane);
        const MmaSlot& slot = *static_cast<MmaSlot*>(slots[lane]);
        const unsigned g = lane / 4, t = lane % 4;
        for (unsigned i = 0; i < 4; i++) {
            for (unsigned h = 0; h < 2; h++) a[g + i % 2 * 8][2 * t + i / 2 * 8 + h] = mma_element(slot.a[i], h, T{});
        }
        for (unsigned i = 0; i < 2; i++) {
            for (unsigned h = 0; h < 2; h++) b[2 * t + i * 8 + h][g] = mma_element(slot.b[i], h, T{});
        }
    }
    for (unsigned lane = 0; lane < kWarp; lane++) {
        MmaSlot& slot = *static_cast<MmaSlot*>(slots[lane]);
        const unsigned g = lane / 4, t = lane % 4;
        for (unsigned i = 0; i < 4; i++) {
            float sum = slot.c[i];
            for (unsigned k = 0; k < 16; k++) sum += a[g + i / 2 * 8][k] * b[k][2 * t + i % 2];
            slot.d[i] = sum;
        }
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
