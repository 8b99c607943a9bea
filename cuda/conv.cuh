// What the convolutions' products read: four views of tensors as matrices, none of which exists in memory.
//
// A view's elements are addressed by an outer and an inner index; neighbouring inner indices are neighbours in memory
// wherever 16-byte accesses are used. What is outside a matrix or an image reads as zero. conv.cu alone includes this.
#pragma once
#include "common.cuh"

namespace bubblebench {

// The letters of the launches: x is batch × height × width × channels, y batch × out_height × out_width × filters.
struct ConvShape {
    int batch, height, width, channels, filters, kernel, stride, padding, out_height, out_width;

    __device__ __forceinline__ int outputs() const { return batch * out_height * out_width; }
    __device__ __forceinline__ int patch() const { return kernel * kernel * channels; }
};

// n / d for n < 2^31 by a multiplication (Granlund & Montgomery 1994).
struct Divisor {
    unsigned divisor, multiplier;
    int shift;

    __device__ __forceinline__ explicit Divisor(int d) : divisor(unsigned(d)), shift(0) {
        while ((1u << shift) < divisor) shift++;
        multiplier = unsigned(((uint64_t(1) << 32) * ((uint64_t(1) << shift) - divisor)) / divisor + 1);
    }
    __device__ __forceinline__ int quotient(int n, int& rest) const {
        const unsigned q = (__umulhi(multiplier, unsigned(n)) + unsigned(n)) >> shift;
        rest = n - int(q * divisor);
        return int(q);
    }
};

// What lies outside a matrix is as far outside its image: no sum of two indices with this among them is inside.
constexpr int kFar = 1 << 29;

// Pixels of images: outer says where an output position's window starts, inner which tap and channel of the window.
template <class T> struct Window {
    const T* image;  // never null: an address must be valid even where nothing is read
    int y, x;
};
struct Tap {
    int y, x, channel;
};

template <class T> struct Images {
    using Element = T;
    using Outer = Window<T>;
    using Inner = Tap;
    const T* base;
    int height, width, channels;
    bool vectors;

    __device__ __forceinline__ bool locate(const Outer& at, const Inner& tap, const T*& pointer) const {
        const int y = at.y + tap.y, x = at.x + tap.x;
        const bool inside = unsigned(y) < unsigned(height) && unsigned(x) < unsigned(width);
        pointer = inside ? at.image + (y * width + x) * channels + tap.channel : base;
        return inside;
    }
};

// The unfolded input: outer = output position, inner = (tap row, tap column, channel).
template <class T> struct Unfolded : Images<T> {
    Divisor per_row, per_column, per_channel, per_tap;
    int outputs, patch, stride, padding;

    __device__ __forceinline__ Unfolded(const ConvShape& s, const T* x)
        : Images<T>{x, s.height, s.width, s.channels, s.channels % Vector<T>::width == 0 && aligned16(x)},
          per_row(s.out_height),
          per_column(s.out_width),
          per_channel(s.channels),
          per_tap(s.kernel),
          outputs(s.outputs()),
          patch(s.patch()),
          stride(s.stride),
          padding(s.padding) {}

    __device__ __forceinline__ Window<T> outer(int position) const {
        if (position >= outputs) return {this->base, kFar, kFar};
        int y, x;
        const int n = per_row.quotient(per_column.quotient(position, x), y);
        const T* image = this->base + size_t(n) * (this->height * this->width) * this->channels;
        return {image, y * stride - padding, x * stride - padding};
    }
    __device__ __forceinline__ Tap inner(int i) const {
        if (i >= patch) return {kFar, kFar, 0};
        Tap tap;
        tap.y = per_tap.quotient(per_channel.quotient(i, tap.channel), tap.x);
        return tap;
    }
};

// The input pixels whose row and column have the same remainder by the stride: the same taps reach all of them.
struct Phase {
    int y, x;                    // remainders
    int rows, columns;           // pixels of an image
    int tap_y, tap_x;            // first tap that reaches them, the next ones a stride apart
    int taps_y, taps_x;          // how many there are

    __device__ __forceinline__ Phase(const ConvShape& s, int phase) {
        y = phase / s.stride;
        x = phase - y * s.stride;
        rows = (s.height - y + s.stride - 1) / s.stride;
        columns = (s.width - x + s.stride - 1) / s.stride;
        tap_y = (y + s.padding) % s.stride;
        tap_x = (x + s.padding) % s.stride;
        taps_y = tap_y < s.kernel ? (s.kernel - tap_y + s.stride - 1) / s.stride : 0;
        taps_x = tap_x < s.kernel ? (s.kernel - tap_x + s.stride - 1) / s.stride : 0;
    }
    __device__ __forceinline__ int pixels(const ConvShape& s) const { return s.batch * rows * columns; }
    __device__ __forceinline__ int reduced(const ConvShape& s) const { return taps_y * taps_x * s.filters; }
};

// The output's gradient as the pixels of a phase see it: outer = pixel, inner = (tap row, tap column, filter).
template <class T> struct Reached : Images<T> {
    Divisor per_row, per_column, per_filter, per_tap;
    int pixels, reduced, first_y, first_x;

    __device__ __forceinline__ Reached(const ConvShape& s, const Phase& p, const T* dy)
        : Images<T>{dy, s.out_height, s.out_width, s.filters, s.filters % Vector<T>::width == 0 && aligned16(dy)},
          per_row(max(p.rows, 1)),
          per_column(max(p.columns, 1)),
          per_filter(s.filters),
          per_tap(max(p.taps_x, 1)),
          pixels(p.pixels(s)),
          reduced(p.reduced(s)),
          first_y((p.y + s.padding - p.tap_y) / s.stride),
          first_x((p.x + s.padding - p.tap_x) / s.stride) {}

    __device__ __forceinline__ Window<T> outer(int pixel) const {
        if (pixel >= pixels) return {this->base, kFar, kFar};
        int y, x;
        const int n = per_row.quotient(per_column.quotient(pixel, x), y);
        return {this->base + size_t(n) * (this->height * this->width) * this->channels, y + first_y, x + first_x};
    }
    // A tap further down was reached from an output further up.
    __device__ __forceinline__ Tap inner(int i) const {
        if (i >= reduced) return {kFar, kFar, 0};
        int channel, x;
        const int y = per_tap.quotient(per_filter.quotient(i, channel), x);
        return {-y, -x, channel};
    }
};

// A matrix as it stands in memory: `rows` × `cols`.
template <class T> struct Matrix {
    using Element = T;
    using Outer = const T*;  // null outside
    using Inner = int;       // negative outside
    const T* base;
    int rows, cols;
    bool vectors;

    __device__ __forceinline__ Matrix(const T* base_, int rows_, int cols_)
        : base(base_), rows(rows_), cols(cols_), vectors(cols_ % Vector<T>::width == 0 && aligned16(base_)) {}

    __device__ __forceinline__ Outer outer(int row) const {
        return row < rows ? base + size_t(row) * cols : nullptr;
    }
    __device__ __forceinline__ Inner inner(int col) const { return col < cols ? col : -1; }
    __device__ __forceinline__ bool locate(Outer row, Inner col, const T*& pointer) const {
        const bool inside = row != nullptr && col >= 0;
        pointer = inside ? row + col : base;
        return inside;
    }
};

// The weights a phase's pixels are reached through: outer = (tap row, tap column, filter), inner = channel.
template <class T> struct Reaching : Matrix<T> {
    Divisor per_filter, per_tap;
    int reduced, patch, first, step_y, step_x;

    __device__ __forceinline__ Reaching(const ConvShape& s, const Phase& p, const T* w)
        : Matrix<T>(w, s.filters, s.channels),
          per_filter(s.filters),
          per_tap(max(p.taps_x, 1)),
          reduced(p.reduced(s)),
          patch(s.patch()),
          first((p.tap_y * s.kernel + p.tap_x) * s.channels),
          step_y(s.stride * s.kernel * s.channels),
          step_x(s.stride * s.channels) {}

    __device__ __forceinline__ const T* outer(int i) const {
        if (i >= reduced) return nullptr;
        int filter, x;
        const int y = per_tap.quotient(per_filter.quotient(i, filter), x);
        return this->base + size_t(filter) * patch + first + y * step_y + x * step_x;
    }
};

}  // namespace bubblebench
