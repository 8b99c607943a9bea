// GELU, the tanh form, and its derivative, in fp32 (Hendrycks & Gimpel, arXiv 1606.08415):
//
//   gelu(x) = ½x(1 + tanh u), u = √(2/π)(x + 0.044715x³).
//
// ½(1 + tanh u) is the logistic function of 2u, so one exponential and one reciprocal replace tanh's two branches: some
// 14 instructions an element instead of 40, which would be more than the memory leaves time for. Off by a few units of
// 2⁻²³ of max(1, |x|). A NaN stays one.
#pragma once
#include "common.cuh"

namespace bubblebench {

constexpr float kGeluLinear = 1.5957691216057308f;  // 2√(2/π)
constexpr float kGeluCubic = 0.07135481282553519f;  // 2√(2/π)·0.044715

__device__ __forceinline__ float gelu(float x) {
    // e overflows to infinity for very negative x, where the quotient is then 0.
    const float e = __expf(-x * (kGeluLinear + kGeluCubic * x * x));
    return __fdividef(x, 1.0f + e);
}

// s + x·s·(1 − s)·(2u)' with s the logistic function of 2u and 1 − s = e·s, free of cancellation.
__device__ __forceinline__ float gelu_derivative(float x) {
    // Beyond ±10 it is 0 or 1 to fp32; within, e is finite.
    x = x < -10.0f ? -10.0f : x > 10.0f ? 10.0f : x;
    const float square = x * x;
    const float e = __expf(-x * (kGeluLinear + kGeluCubic * square));
    const float s = __fdividef(1.0f, 1.0f + e);
    return s + x * s * (e * s) * (kGeluLinear + 3.0f * kGeluCubic * square);
}

}  // namespace bubblebench
