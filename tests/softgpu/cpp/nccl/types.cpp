// Element types, and reductions rounded to them after each step.
#include <cmath>
#include <cstring>
#include <limits>

#include "nccl.h"

namespace softnccl {
namespace {

// A float of a sign, E bits of exponent and M of mantissa, rounded to the nearest, ties to even. FINITE is e4m3's way: no
// infinity, one NaN, and what is too large becomes the largest.
template <int E, int M, bool FINITE, class Bits> struct Small {
    static constexpr int kBias = (1 << (E - 1)) - 1;
    static constexpr int kAll = (1 << E) - 1;

    static float decode(Bits bits) {
        const int exponent = (bits >> M) & kAll, mantissa = bits & ((1 << M) - 1);
        const float sign = (bits >> (E + M)) & 1 ? -1.0f : 1.0f;
        if (FINITE ? (exponent == kAll && mantissa == (1 << M) - 1) : exponent == kAll)
            return !FINITE && mantissa == 0 ? sign * INFINITY : NAN;
        if (exponent == 0) return sign * std::ldexp(float(mantissa), 1 - kBias - M);
        return sign * std::ldexp(float(mantissa | 1 << M), exponent - kBias - M);
    }

    static Bits encode(float value) {
        const Bits sign = Bits(std::signbit(value) ? 1 << (E + M) : 0);
        if (std::isnan(value)) return Bits(sign | (FINITE ? (1 << (E + M)) - 1 : kAll << M | 1 << (M - 1)));
        const float size = std::fabs(value);
        int exponent = 0;
        std::frexp(size, &exponent);  // size = f * 2^exponent, f in [0.5, 1)
        const int unit = std::max(exponent - 1, 1 - kBias) - M;
        float steps = std::isinf(size) ? INFINITY : std::nearbyint(std::ldexp(size, -unit));
        if (std::ldexp(steps, unit) > largest() || std::isinf(steps))
            return Bits(sign | (FINITE || E + M == 7 ? encode_finite(largest()) : kAll << M));
        return Bits(sign | encode_finite(std::ldexp(steps, unit)));
    }

    // Exactly representable and not negative.
    static Bits encode_finite(float size) {
        int exponent = 0;
        if (size == 0) return 0;
        std::frexp(size, &exponent);
        const int low = 1 - kBias;
        if (exponent - 1 < low) return Bits(std::ldexp(size, M - low));
        const int mantissa = int(std::ldexp(size, M - (exponent - 1))) - (1 << M);
        return Bits((exponent - 1 + kBias) << M | mantissa);
    }

    static float largest() {
        if (FINITE) return std::ldexp(float((2 << M) - 2), kAll - kBias - M);
        return std::ldexp(float((2 << M) - 1), kAll - 1 - kBias - M);
    }
};

using Half = Small<5, 10, false, uint16_t>;
using E4m3 = Small<4, 3, true, uint8_t>;
using E5m2 = Small<5, 2, false, uint8_t>;

struct Bf16 {
    static float decode(uint16_t bits) {
        const uint32_t wide = uint32_t(bits) << 16;
        float value;
        memcpy(&value, &wide, 4);
        return value;
    }
    static uint16_t encode(float value) {
        uint32_t bits;
        memcpy(&bits, &value, 4);
        if (std::isnan(value)) return uint16_t(bits >> 16 | 0x40);
        return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
    }
};

// Values decoded once: the generic way is slow.
template <class Format> float looked_up(uint16_t bits) {
    static const std::vector<float>* all = [] {
        auto* table = new std::vector<float>(65536);
        for (unsigned i = 0; i < 65536; i++) (*table)[i] = Format::decode(decltype(Format::encode(0))(i));
        return table;
    }();
    return (*all)[bits];
}

template <class T> T apply(T a, T b, int reduction) {
    switch (reduction) {
        case kProd:
            return T(a * b);
        case kMax:
            return a < b ? b : a;
        case kMin:
            return b < a ? b : a;
        default:
            return T(a + b);
    }
}

template <class T> void plain(void* sum, const void* value, size_t count, int reduction) {
    auto* to = static_cast<unsigned char*>(sum);
    const auto* from = static_cast<const unsigned char*>(value);
    for (size_t i = 0; i < count; i++) {
        T a, b;
        memcpy(&a, to + i * sizeof(T), sizeof(T));
        memcpy(&b, from + i * sizeof(T), sizeof(T));
        a = apply(a, b, reduction);
        memcpy(to + i * sizeof(T), &a, sizeof(T));
    }
}

template <class Format, class Bits> void small(void* sum, const void* value, size_t count, int reduction) {
    auto* to = static_cast<Bits*>(sum);
    const auto* from = static_cast<const Bits*>(value);
    for (size_t i = 0; i < count; i++) {
        const float a = looked_up<Format>(to[i]), b = looked_up<Format>(from[i]);
        to[i] = Format::encode(apply(a, b, reduction));
    }
}

template <class T> void divide_plain(void* sum, size_t count, int by) {
    auto* to = static_cast<unsigned char*>(sum);
    for (size_t i = 0; i < count; i++) {
        T a;
        memcpy(&a, to + i * sizeof(T), sizeof(T));
        a = T(a / T(by));
        memcpy(to + i * sizeof(T), &a, sizeof(T));
    }
}

template <class Format, class Bits> void divide_small(void* sum, size_t count, int by) {
    auto* to = static_cast<Bits*>(sum);
    for (size_t i = 0; i < count; i++) to[i] = Format::encode(looked_up<Format>(to[i]) / float(by));
}

}  // namespace

size_t bytes_of(int type) {
    static const size_t bytes[kTypes] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};
    return type >= 0 && type < kTypes ? bytes[type] : 0;
}

bool is_float8(int type) { return type == kFloat8e4m3 || type == kFloat8e5m2; }

void combine(void* sum, const void* value, size_t count, int type, int reduction) {
    switch (type) {
        case kInt8:
            return plain<int8_t>(sum, value, count, reduction);
        case kUint8:
            return plain<uint8_t>(sum, value, count, reduction);
        case kInt32:
            return plain<int32_t>(sum, value, count, reduction);
        case kUint32:
            return plain<uint32_t>(sum, value, count, reduction);
        case kInt64:
            return plain<int64_t>(sum, value, count, reduction);
        case kUint64:
            return plain<uint64_t>(sum, value, count, reduction);
        case kFloat16:
            return small<Half, uint16_t>(sum, value, count, reduction);
        case kFloat32:
            return plain<float>(sum, value, count, reduction);
        case kFloat64:
            return plain<double>(sum, value, count, reduction);
        case kBfloat16:
            return small<Bf16, uint16_t>(sum, value, count, reduction);
        case kFloat8e4m3:
            return small<E4m3, uint8_t>(sum, value, count, reduction);
        default:
            return small<E5m2, uint8_t>(sum, value, count, reduction);
    }
}

void divide(void* sum, size_t count, int type, int by) {
    switch (type) {
        case kInt8:
            return divide_plain<int8_t>(sum, count, by);
        case kUint8:
            return divide_plain<uint8_t>(sum, count, by);
        case kInt32:
            return divide_plain<int32_t>(sum, count, by);
        case kUint32:
            return divide_plain<uint32_t>(sum, count, by);
        case kInt64:
            return divide_plain<int64_t>(sum, count, by);
        case kUint64:
            return divide_plain<uint64_t>(sum, count, by);
        case kFloat16:
            return divide_small<Half, uint16_t>(sum, count, by);
        case kFloat32:
            return divide_plain<float>(sum, count, by);
        case kFloat64:
            return divide_plain<double>(sum, count, by);
        case kBfloat16:
            return divide_small<Bf16, uint16_t>(sum, count, by);
        case kFloat8e4m3:
            return divide_small<E4m3, uint8_t>(sum, count, by);
        default:
            return divide_small<E5m2, uint8_t>(sum, count, by);
    }
}

}  // namespace softnccl
