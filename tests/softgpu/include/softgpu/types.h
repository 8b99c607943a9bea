// Narrow floating-point types on the host, rounded to nearest even as the hardware conversions do.
#pragma once
#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
    uint16_t bits;
};

struct __half {
    uint16_t bits;
};

namespace softgpu {

inline uint32_t float_bits(float v) {
    uint32_t bits;
    memcpy(&bits, &v, 4);
    return bits;
}

inline float bits_float(uint32_t bits) {
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

}  // namespace softgpu

inline float __bfloat162float(__nv_bfloat16 v) { return softgpu::bits_float(uint32_t(v.bits) << 16); }

inline __nv_bfloat16 __float2bfloat16_rn(float v) {
    if (v != v) return {0x7fff};
    const uint32_t bits = softgpu::float_bits(v);
    return {uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}

inline __nv_bfloat16 __float2bfloat16(float v) { return __float2bfloat16_rn(v); }

inline float __half2float(__half v) {
    const uint32_t sign = uint32_t(v.bits & 0x8000) << 16, exponent = v.bits >> 10 & 31, fraction = v.bits & 1023;
    if (exponent == 31) return softgpu::bits_float(sign | 0x7f800000 | fraction << 13);
    if (exponent != 0) return softgpu::bits_float(sign | (exponent + 112) << 23 | fraction << 13);
    const float small = float(fraction) * 0x1p-24f;
    return softgpu::bits_float(sign | softgpu::float_bits(small));
}

inline __half __float2half_rn(float v) {
    const uint32_t bits = softgpu::float_bits(v), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000) return {0x7fff};
    if (size >= 0x477ff000) return {uint16_t(sign | 0x7c00)};  // rounds to 65536 or more
    if (size < 0x38800000) {                                   // subnormal: count in units of 2^-24
        const float counted = softgpu::bits_float(size) * 0x1p24f;
        uint32_t whole = uint32_t(counted);
        const float rest = counted - float(whole);
        whole += rest > 0.5f || (rest == 0.5f && (whole & 1));
        return {uint16_t(sign | whole)};
    }
    const uint32_t rounded = size + 0xfff + (size >> 13 & 1);
    return {uint16_t(sign | (rounded - (112u << 23)) >> 13)};
}

inline __half __float2half(float v) { return __float2half_rn(v); }

struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};
