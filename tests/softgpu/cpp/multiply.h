// The product behind the software cuBLASLt: column-major, fp32, in blocks that stay in a core's caches.
#pragma once
#include <cstddef>
#include <cstdint>

namespace softgpu {

enum class Type { f32 = 0, f16 = 2, bf16 = 14 };  // cudaDataType_t

inline size_t bytes_of(Type type) { return type == Type::f32 ? 4 : 2; }
float load(Type type, const void* from, size_t index);
void store(Type type, void* to, size_t index, float value);

// One operand: element (row, column) of op(X).
struct Operand {
    const void* data;
    Type type;
    bool transposed;
    size_t ld;

    size_t index(size_t row, size_t column) const { return transposed ? row * ld + column : column * ld + row; }
};

// c[j·m + i] = Σ over l of a(i, first + l)·b(l, j), for the columns [first, first + count) of the result: fp32 sums over
// runs of `run` terms each, which are then added in order. Another `run` is another order of summation.
void multiply(float* c, const Operand& a, const Operand& b, size_t m, size_t k, size_t first, size_t count, size_t run);

}  // namespace softgpu
