// GELU in its tanh form (Hendrycks, Gimpel, arXiv 1606.08415) and its derivative, in fp32.
//
//   u(x)     = √(2/π)·(x + 0.044715x³)
//   gelu(x)  = ½x(1 + tanh u) = x·s            s = 1/(1 + exp(−2u)): the same function, as ½(1 + tanh u) = s
//   gelu'(x) = s + x·s·(1 − s)·2u'             2u' = 2√(2/π)·(1 + 3·0.044715x²)
//
// In s nothing cancels where x is far below 0, as 1 + tanh u does there; one exponential and one division an element.
#pragma once
#include "common.cuh"

namespace bubblebench {

constexpr float kGeluTwice = 1.5957691216057308f;  // 2√(2/π)
constexpr float kGeluCubic = 0.044715f;

// s above; 0 where the exponential overflows.
__device__ __forceinline__ float gelu_gate(float x) {
    const float twice = kGeluTwice * x * (1.0f + kGeluCubic * x * x);
    return 1.0f / (1.0f + expf(-twice));
}

__device__ __forceinline__ float gelu(float x) { return x * gelu_gate(x); }

__device__ __forceinline__ float gelu_derivative(float x) {
    const float s = gelu_gate(x);
    return s + x * s * (1.0f - s) * kGeluTwice * (1.0f + 3.0f * kGeluCubic * x * x);
}

}  // namespace bubblebench
