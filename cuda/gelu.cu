// GELU, the tanh form (Hendrycks & Gimpel, arXiv 1606.08415): y = gelu(x), and dx = dy·gelu'(x) (equations: gelu.cuh).
//
// y x dy dx: len elements of type T = bf16, f16 or f32, arithmetic in fp32. forward moves 2 elements a result, backward
// 3, each once. Geometry, loads in flight, alignment: elementwise.cuh. No local memory, no spills at any architecture.
#include "gelu.cuh"

#include "elementwise.cuh"

namespace bubblebench {

struct GeluForward {
    __device__ __forceinline__ float operator()(const float (&x)[1]) const { return gelu(x[0]); }
};
struct GeluBackward {
    __device__ __forceinline__ float operator()(const float (&dy_x)[2]) const {
        return dy_x[0] * gelu_derivative(dy_x[1]);
    }
};

}  // namespace bubblebench

#define GELU(T, suffix)                                                                                              \
    BUBBLEBENCH_KERNEL(256, gelu_forward_##suffix, T* __restrict__ y, const T* __restrict__ x, size_t len) {         \
        bubblebench::map<T, 1>(y, {x}, len, bubblebench::GeluForward());                                             \
    }                                                                                                                \
    BUBBLEBENCH_KERNEL(256, gelu_backward_##suffix, T* __restrict__ dx, const T* __restrict__ dy,                    \
                       const T* __restrict__ x, size_t len) {                                                        \
        bubblebench::map<T, 2>(dx, {dy, x}, len, bubblebench::GeluBackward());                                       \
    }

GELU(bubblebench::bf16, bf16)
GELU(bubblebench::f16, f16)
GELU(float, f32)
