// Panels of op(A) and op(B) are widened to fp32 and packed, so that the innermost loop reads both in order: eight rows by
// four columns of the result in eight vector registers, which SSE2 has to spare.
#include "multiply.h"

#include <softgpu/types.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace softgpu {

namespace {

using Four = float __attribute__((vector_size(16)));

constexpr size_t kRows = 8, kColumns = 4;       // of the innermost block
constexpr size_t kMostTerms = 256, kMostRows = 128;  // of a packed panel of A: 128 KiB

template <class T> float wide(T value);
template <> float wide(float value) { return value; }
template <> float wide(__nv_bfloat16 value) { return __bfloat162float(value); }
template <> float wide(__half value) { return __half2float(value); }

// to[(block, l, r)] = op(X)(row, l), blocks of `width` rows, zeros past the last row.
template <class T>
void pack_as(float* to, const Operand& x, bool by_columns, size_t row, size_t rows, size_t term, size_t terms,
             size_t width) {
    const T* data = static_cast<const T*>(x.data);
    // Along B it is the columns that stand in blocks.
    const size_t row_step = x.transposed == by_columns ? 1 : x.ld, term_step = x.transposed == by_columns ? x.ld : 1;
    for (size_t block = 0; block < rows; block += width) {
        const size_t here = std::min(width, rows - block);
        for (size_t r = 0; r < width; r++) {
            float* out = to + block * terms + r;
            if (r >= here) {
                for (size_t l = 0; l < terms; l++) out[l * width] = 0.0f;
                continue;
            }
            const T* in = data + (row + block + r) * row_step + term * term_step;
            for (size_t l = 0; l < terms; l++) out[l * width] = wide(in[l * term_step]);
        }
    }
}

void pack(float* to, const Operand& x, bool by_columns, size_t row, size_t rows, size_t term, size_t terms,
          size_t width) {
    switch (x.type) {
        case Type::f32: return pack_as<float>(to, x, by_columns, row, rows, term, terms, width);
        case Type::f16: return pack_as<__half>(to, x, by_columns, row, rows, term, terms, width);
        case Type::bf16: return pack_as<__nv_bfloat16>(to, x, by_columns, row, rows, term, terms, width);
    }
}

void innermost(Four (&sum)[kColumns][2], const float* a, const float* b, size_t terms) {
    for (size_t l = 0; l < terms; l++, a += kRows, b += kColumns) {
        Four low, high;
        memcpy(&low, a, sizeof low);
        memcpy(&high, a + 4, sizeof high);
#pragma GCC unroll 4
        for (size_t j = 0; j < kColumns; j++) {
            const Four scale = {b[j], b[j], b[j], b[j]};
            sum[j][0] += low * scale;
            sum[j][1] += high * scale;
        }
    }
}

// c += packed A · packed B
void block(float* c, size_t m, const float* a, size_t rows, const float* b, size_t columns, size_t terms) {
    for (size_t j = 0; j < columns; j += kColumns) {
        for (size_t i = 0; i < rows; i += kRows) {
            Four sum[kColumns][2] = {};
            innermost(sum, a + i * terms, b + j * terms, terms);
            const size_t down = std::min(kRows, rows - i), across = std::min(kColumns, columns - j);
            for (size_t q = 0; q < across; q++) {
                float column[kRows];
                memcpy(column, sum[q], sizeof column);
                for (size_t p = 0; p < down; p++) c[(j + q) * m + i + p] += column[p];
            }
        }
    }
}

size_t up(size_t value, size_t to) { return (value + to - 1) / to * to; }

}  // namespace

float load(Type type, const void* from, size_t index) {
    switch (type) {
        case Type::f16: return wide(static_cast<const __half*>(from)[index]);
        case Type::bf16: return wide(static_cast<const __nv_bfloat16*>(from)[index]);
        default: return static_cast<const float*>(from)[index];
    }
}

void store(Type type, void* to, size_t index, float value) {
    switch (type) {
        case Type::f16: static_cast<__half*>(to)[index] = __float2half_rn(value); return;
        case Type::bf16: static_cast<__nv_bfloat16*>(to)[index] = __float2bfloat16_rn(value); return;
        default: static_cast<float*>(to)[index] = value;
    }
}

void multiply(float* c, const Operand& a, const Operand& b, size_t m, size_t k, size_t first, size_t count,
              size_t run) {
    std::fill(c, c + m * count, 0.0f);
    const size_t most = std::min(kMostTerms, std::max<size_t>(run, 1));
    std::vector<float> left(up(std::min(m, kMostRows), kRows) * most), right(up(count, kColumns) * most);
    for (size_t term = 0; term < k; term += most) {
        const size_t terms = std::min(most, k - term);
        pack(right.data(), b, true, first, count, term, terms, kColumns);
        for (size_t row = 0; row < m; row += kMostRows) {
            const size_t rows = std::min(kMostRows, m - row);
            pack(left.data(), a, false, row, rows, term, terms, kRows);
            block(c + row, m, left.data(), rows, right.data(), count, terms);
        }
    }
}

}  // namespace softgpu
