// The skip path's sum: out = a + b.
//
// out a b: len elements of type T = bf16, f16 or f32, added in fp32; 3 elements moved a result, each once. Geometry,
// loads in flight, alignment: elementwise.cuh. No local memory, no spills at any architecture.
#include "elementwise.cuh"

namespace bubblebench {

struct Sum {
    __device__ __forceinline__ float operator()(const float (&v)[2]) const { return v[0] + v[1]; }
};

}  // namespace bubblebench

#define RESIDUAL(T, suffix)                                                                                        \
    BUBBLEBENCH_KERNEL(256, residual_##suffix, T* __restrict__ out, const T* __restrict__ a, const T* __restrict__ b, \
                       size_t len) {                                                                               \
        bubblebench::map<T, 2>(out, {a, b}, len, bubblebench::Sum());                                              \
    }

RESIDUAL(bubblebench::bf16, bf16)
RESIDUAL(bubblebench::f16, f16)
RESIDUAL(float, f32)
