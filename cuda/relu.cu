// ReLU: y = x where x ≥ 0, else 0 (a NaN stays one); dx = dy where y > 0, else 0 (y: the ReLU's output).
//
// y x dy dx: len elements of type T = bf16, f16 or f32. forward moves 2 elements a result, backward 3, each once.
// Geometry, loads in flight, alignment: elementwise.cuh. No local memory, no spills at any architecture.
#include "elementwise.cuh"

namespace bubblebench {

struct ReluForward {
    __device__ __forceinline__ float operator()(const float (&x)[1]) const { return x[0] < 0.0f ? 0.0f : x[0]; }
};
struct ReluBackward {
    __device__ __forceinline__ float operator()(const float (&dy_y)[2]) const {
        return dy_y[1] > 0.0f ? dy_y[0] : 0.0f;
    }
};

}  // namespace bubblebench

#define RELU(T, suffix)                                                                                              \
    BUBBLEBENCH_KERNEL(256, relu_forward_##suffix, T* __restrict__ y, const T* __restrict__ x, size_t len) {         \
        bubblebench::map<T, 1>(y, {x}, len, bubblebench::ReluForward());                                             \
    }                                                                                                                \
    BUBBLEBENCH_KERNEL(256, relu_backward_##suffix, T* __restrict__ dx, const T* __restrict__ dy,                    \
                       const T* __restrict__ y, size_t len) {                                                        \
        bubblebench::map<T, 2>(dx, {dy, y}, len, bubblebench::ReluBackward());                                       \
    }

RELU(bubblebench::bf16, bf16)
RELU(bubblebench::f16, f16)
RELU(float, f32)
