// 2-D convolution, channels last, as implicit products: forward, to inputs, to weights.
//
//   y[n,oy,ox,k]    = Σ_{r,s,c} x[n, oy·stride + r − padding, ox·stride + s − padding, c] · w[k,r,s,c]
//   dx[n,iy,ix,c]   = Σ_{r,s,k} dy[n, (iy + padding − r) / stride, (ix + padding − s) / stride, k] · w[k,r,s,c],
//                     where both divisions leave no rest
//   dw[k,r,s,c]    += Σ_{n,oy,ox} dy[n,oy,ox,k] · x[n, oy·stride + r − padding, ox·stride + s − padding, c]
//
// x dx: batch × height × width × channels; w dw: filters × kernel × kernel × channels; y dy: batch × out_height ×
// out_width × filters; all of type T = bf16, f16 or f32; sums in fp32; zero outside the image. Any sizes ≥ 1 with
// kernel² · channels, an image and the number of positions below 2^29. 16-byte accesses to a tensor whose channels
// (filters) are a multiple of 16 bytes and which is aligned, single elements of it otherwise. Sums run in a fixed order:
// the same inputs give the same bits.
//
// Each is one product of 64×64 tiles, of positions × patch (forward), pixels × (taps · filters) (to inputs), filters ×
// positions (to weights). An unfolded input, kernel² times as large as the input, never exists: its elements are
// addressed where they lie (conv.cuh), so DRAM sees each tensor about once and L2 the taps' overlap. To inputs, pixels
// are taken by their remainders by the stride, so that no block multiplies by taps that cannot reach its pixels, and
// nobody needs atomics. To weights, the positions are split over blocks, whose partial sums a second kernel adds.
// Against unfolding and a library product: for 3×3 that writes and reads 9 inputs' worth of workspace, 18 times the
// bytes of x, to save address arithmetic (about 20 integer operations per 16 bytes, beside 512 multiply-adds).
//
// bf16, f16: block 128, a warp a 32×32 quarter of the tile by mma.m16n8k16; 32 deep a step, three steps in shared memory
//   by cp.async, which also writes the zeros; 16-byte rows padded so that ldmatrix has no bank conflicts.
// f32: block 128, a thread 8×4 of the tile by FMA; 16 deep a step, the next one in registers. (No TF32: 1e-5 is asked.)
// forward: grid (⌈positions / 64⌉, ⌈filters / 64⌉). to_inputs: grid (⌈batch · ⌈height / stride⌉ · ⌈width / stride⌉ / 64⌉,
//   ⌈channels / 64⌉, stride²). to_weights_partial: grid (⌈patch / 64⌉, ⌈filters / 64⌉, splits), each split `steps` steps
//   of the reduction; partial: splits × filters × patch, fp32, overwritten. to_weights_reduce: block 256, a thread an
//   element of dw. Narrow layers (16 filters) leave part of a tile idle: their time is latency in any case.
#include "conv.cuh"
#include "mma.cuh"

namespace bubblebench {

constexpr int kThreads = 128;
constexpr int kTile = 64;
constexpr int kStages = 3;
// Vectors of 16 bytes of each operand a thread moves a step.
constexpr int kSlots = 2;

// How an operand's tile lies in shared memory: its inner index is the reduced one, or not.
enum class Inner { Reduced, Kept };

// Which of an operand's vectors are this thread's, in a step that is Depth deep.
template <class T, Inner inner> struct Place {
    static constexpr int W = Vector<T>::width, kDepth = 4 * W;
    static constexpr int kAcross = inner == Inner::Reduced ? 4 : kTile / W;
    int vector, line;

    __device__ __forceinline__ Place() : vector(int(threadIdx.x) % kAcross * W), line(int(threadIdx.x) / kAcross) {}
    __device__ __forceinline__ int line_of(int slot) const { return line + slot * (kThreads / kAcross); }
};

// An operand's tile: what of its addresses does not change from step to step is computed once.
template <class View, Inner inner> struct Operand {
    using T = typename View::Element;
    using P = Place<T, inner>;
    static constexpr int W = P::W;
    const View& view;
    P place;
    int first;  // of the kept index
    typename View::Outer outers[inner == Inner::Reduced ? kSlots : 1];
    typename View::Inner fixed;

    __device__ __forceinline__ Operand(const View& view_, int tile) : view(view_), first(tile * kTile) {
        if constexpr (inner == Inner::Reduced) {
#pragma unroll
            for (int slot = 0; slot < kSlots; slot++) outers[slot] = view.outer(first + place.line_of(slot));
        } else {
            fixed = view.inner(first + place.vector);
        }
    }

    // Calls f(slot, outer index's place, inner index of the first element, its place) for this thread's vectors.
    template <class F> __device__ __forceinline__ void each(int step, F&& f) const {
        const int depth = step * P::kDepth;
        if constexpr (inner == Inner::Reduced) {
            const int at = depth + place.vector;
            const typename View::Inner tap = view.inner(at);
#pragma unroll
            for (int slot = 0; slot < kSlots; slot++) f(slot, outers[slot], at, tap);
        } else {
#pragma unroll
            for (int slot = 0; slot < kSlots; slot++) {
                f(slot, view.outer(depth + place.line_of(slot)), first + place.vector, fixed);
            }
        }
    }

    // Sixteen bytes: at once, or element by element.
    __device__ __forceinline__ Vector<T> fetch(const typename View::Outer& outer, int at,
                                               const typename View::Inner& tap) const {
        const T* from;
        if (view.vectors) return view.locate(outer, tap, from) ? load(from) : Vector<T>{{0, 0, 0, 0}};
        T elements[W];
#pragma unroll
        for (int i = 0; i < W; i++) {
            const bool inside = view.locate(outer, view.inner(at + i), from);
            elements[i] = inside ? *from : from_float<T>(0.0f);
        }
        Vector<T> vector;
        memcpy(&vector.bits, elements, sizeof elements);
        return vector;
    }
};

// --- bf16 and f16: tensor cores ------------------------------------------------------------------------------------

// A stage of one operand: 64 lines of 32 or 32 lines of 64, padded; the larger of the two.
constexpr int kDeep = 32;
constexpr int kStage = kTile * (kDeep + kTilePad);
constexpr int kWideElements = 2 * kStages * kStage;

template <Inner inner> constexpr int kPitch = (inner == Inner::Reduced ? kDeep : kTile) + kTilePad;

// This thread's part of a step on its way to shared memory.
template <class View, Inner inner>
__device__ __forceinline__ void fill(const Operand<View, inner>& operand, typename View::Element* stage, int step) {
    using T = typename View::Element;
    operand.each(step, [&](int slot, const typename View::Outer& outer, int at, const typename View::Inner& tap) {
        T* to = stage + operand.place.line_of(slot) * kPitch<inner> + operand.place.vector;
        if (!operand.view.vectors) {
            store(to, operand.fetch(outer, at, tap));
            return;
        }
        const T* from;
        const bool inside = operand.view.locate(outer, tap, from);
        copy_async16(shared_address(to), from, inside);
    });
}

// The warp's 32 rows of A and 32 columns of B, multiplied.
template <class T, Inner a_inner, Inner b_inner>
__device__ __forceinline__ void multiply(float (&sums)[2][4][4], T* a, T* b) {
    const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
    const int row = warp / 2 * 32, col = warp % 2 * 32;
    constexpr int A = kPitch<a_inner>, B = kPitch<b_inner>;
#pragma unroll
    for (int k = 0; k < kDeep; k += 16) {
        uint32_t as[2][4], bs[2][4];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            if constexpr (a_inner == Inner::Reduced) {
                ldmatrix_x4(as[i], shared_address(a + (row + 16 * i) * A + k + by_rows(lane, A)));
            } else {
                ldmatrix_x4_trans(as[i], shared_address(a + k * A + row + 16 * i + by_columns(lane, A)));
            }
            if constexpr (b_inner == Inner::Reduced) {
                ldmatrix_x4(bs[i], shared_address(b + (col + 16 * i) * B + k + by_columns(lane, B)));
            } else {
                ldmatrix_x4_trans(bs[i], shared_address(b + k * B + col + 16 * i + by_rows(lane, B)));
            }
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) mma_16816<T>(sums[i][j], as[i], bs[j / 2][j % 2 * 2], bs[j / 2][j % 2 * 2 + 1]);
        }
    }
}

// sums = Σ over steps [from, to).
template <class T, class A, Inner a_inner, class B, Inner b_inner>
__device__ __forceinline__ void product(float (&sums)[2][4][4], T* shared, const Operand<A, a_inner>& a,
                                        const Operand<B, b_inner>& b, int from, int to) {
    T *as = shared, *bs = shared + kStages * kStage;
#pragma unroll
    for (int s = 0; s < kStages - 1; s++) {
        if (from + s < to) {
            fill(a, as + s * kStage, from + s);
            fill(b, bs + s * kStage, from + s);
        }
        copy_commit();
    }
    int read = 0, write = kStages - 1;
    for (int step = from; step < to; step++) {
        copy_wait<kStages - 2>();
        __syncthreads();  // the step is here for everyone, and nobody reads the stage that is filled next
        if (step + kStages - 1 < to) {
            fill(a, as + write * kStage, step + kStages - 1);
            fill(b, bs + write * kStage, step + kStages - 1);
        }
        copy_commit();
        multiply<T, a_inner, b_inner>(sums, as + read * kStage, bs + read * kStage);
        read = read + 1 == kStages ? 0 : read + 1;
        write = write + 1 == kStages ? 0 : write + 1;
    }
    copy_wait<0>();
    __syncthreads();  // the shared memory is free
}

// Calls f(row, column, pair) for the pairs of neighbouring sums this thread holds.
template <class F> __device__ __forceinline__ void each_pair(const float (&sums)[2][4][4], F&& f) {
    const int lane = int(threadIdx.x) % kWarp, warp = int(threadIdx.x) / kWarp;
    const int row = warp / 2 * 32 + lane / 4, col = warp % 2 * 32 + lane % 4 * 2;
#pragma unroll
    for (int i = 0; i < 2; i++) {
#pragma unroll
        for (int j = 0; j < 4; j++) {
            f(row + 16 * i, col + 8 * j, sums[i][j][0], sums[i][j][1]);
            f(row + 16 * i + 8, col + 8 * j, sums[i][j][2], sums[i][j][3]);
        }
    }
}

// The tile to rows of a tensor with `cols` columns, through shared memory for 16-byte stores; row_at(i) is where row i
// of the tile begins, null outside.
template <class T, class RowAt>
__device__ __forceinline__ void write_tile(const float (&sums)[2][4][4], T* shared, int cols, bool vectors,
                                           RowAt&& row_at) {
    constexpr int W = Vector<T>::width, kLine = kTile + kTilePad, kAcross = kTile / W;
    each_pair(sums, [&](int row, int col, float first, float second) {
        store_pair(shared_address(shared + row * kLine + col), pack_pair<T>(first, second));
    });
    __syncthreads();
    const int vector = int(threadIdx.x) % kAcross * W, col = int(blockIdx.y) * kTile + vector;
    for (int row = int(threadIdx.x) / kAcross; row < kTile; row += kThreads / kAcross) {
        T* to = row_at(row);
        if (to == nullptr) continue;
        const T* from = shared + row * kLine + vector;
        if (vectors) {
            if (col < cols) store(to + col, load(from));
            continue;
        }
        for (int i = 0; i < W && col + i < cols; i++) to[col + i] = from[i];
    }
}

// The tile to rows [0, rows) × columns [0, cols) of fp32.
__device__ __forceinline__ void write_partial(const float (&sums)[2][4][4], float* to, int rows, int cols) {
    const int first_row = int(blockIdx.y) * kTile, first_col = int(blockIdx.x) * kTile;
    const bool pairs = cols % 2 == 0;
    each_pair(sums, [&](int row, int col, float first, float second) {
        if (first_row + row >= rows || first_col + col >= cols) return;
        float* at = to + size_t(first_row + row) * cols + first_col + col;
        if (pairs) {
            *reinterpret_cast<float2*>(at) = make_float2(first, second);
            return;
        }
        at[0] = first;
        if (first_col + col + 1 < cols) at[1] = second;
    });
}

template <class T> struct Shared {
    using Sums = float[2][4][4];
    static constexpr int elements = kWideElements;
};

// --- f32: FMA ------------------------------------------------------------------------------------------------------

constexpr int kPlainDeep = 16;
constexpr int kPlainPitch = kTile + 4;
constexpr int kPlainStage = kPlainDeep * kPlainPitch;

template <> struct Shared<float> {
    using Sums = float[8][4];
    static constexpr int elements = 4 * kPlainStage;
};

template <class View, Inner inner>
__device__ __forceinline__ void fetch(const Operand<View, inner>& operand, Vector<float> (&held)[kSlots], int step) {
    operand.each(step, [&](int slot, const typename View::Outer& outer, int at, const typename View::Inner& tap) {
        held[slot] = operand.fetch(outer, at, tap);
    });
}

// Both operands lie with the reduced index outside, so that a thread reads its rows and columns as vectors.
template <class View, Inner inner>
__device__ __forceinline__ void put(const Operand<View, inner>& operand, const Vector<float> (&held)[kSlots],
                                    float* stage) {
#pragma unroll
    for (int slot = 0; slot < kSlots; slot++) {
        const int line = operand.place.line_of(slot), vector = operand.place.vector;
        if constexpr (inner == Inner::Kept) {
            store(stage + line * kPlainPitch + vector, held[slot]);
        } else {
            float v[4];
            held[slot].unpack(v);
#pragma unroll
            for (int i = 0; i < 4; i++) stage[(vector + i) * kPlainPitch + line] = v[i];
        }
    }
}

__device__ __forceinline__ void multiply(float (&sums)[8][4], const float* a, const float* b) {
    const int row = int(threadIdx.x) / 16 * 8, col = int(threadIdx.x) % 16 * 4;
#pragma unroll
    for (int k = 0; k < kPlainDeep; k++) {
        float low[4], high[4], right[4];
        load(a + k * kPlainPitch + row).unpack(low);
        load(a + k * kPlainPitch + row + 4).unpack(high);
        load(b + k * kPlainPitch + col).unpack(right);
#pragma unroll
        for (int i = 0; i < 4; i++) {
#pragma unroll
            for (int j = 0; j < 4; j++) {
                sums[i][j] += low[i] * right[j];
                sums[4 + i][j] += high[i] * right[j];
            }
        }
    }
}

template <class T, class A, Inner a_inner, class B, Inner b_inner>
__device__ __forceinline__ void product(float (&sums)[8][4], float* shared, const Operand<A, a_inner>& a,
                                        const Operand<B, b_inner>& b, int from, int to) {
    float *as = shared, *bs = shared + 2 * kPlainStage;
    Vector<float> next_a[kSlots], next_b[kSlots];
    if (from < to) {
        fetch(a, next_a, from);
        fetch(b, next_b, from);
    }
    for (int step = from; step < to; step++) {
        const int stage = (step - from) % 2 * kPlainStage;
        put(a, next_a, as + stage);
        put(b, next_b, bs + stage);
        __syncthreads();  // also: everyone has left the stage that is filled next
        if (step + 1 < to) {
            fetch(a, next_a, step + 1);
            fetch(b, next_b, step + 1);
        }
        multiply(sums, as + stage, bs + stage);
    }
}

// Row `i` of this thread's 8×4, its four columns at `col`.
template <class RowAt>
__device__ __forceinline__ void write_rows(const float (&sums)[8][4], int col, int cols, bool vectors, RowAt&& row_at) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        float* to = row_at(int(threadIdx.x) / 16 * 8 + i);
        if (to == nullptr) continue;
        if (vectors) {
            if (col < cols) store(to + col, Vector<float>::pack(sums[i]));
            continue;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
            if (col + j < cols) to[col + j] = sums[i][j];
        }
    }
}

template <class T, class RowAt>
__device__ __forceinline__ void write_tile(const float (&sums)[8][4], float*, int cols, bool vectors, RowAt&& row_at) {
    write_rows(sums, int(blockIdx.y) * kTile + int(threadIdx.x) % 16 * 4, cols, vectors, row_at);
}

__device__ __forceinline__ void write_partial(const float (&sums)[8][4], float* to, int rows, int cols) {
    const int col = int(blockIdx.x) * kTile + int(threadIdx.x) % 16 * 4;
    write_rows(sums, col, cols, cols % 4 == 0 && aligned16(to), [&](int row) -> float* {
        row += int(blockIdx.y) * kTile;
        return row < rows ? to + size_t(row) * cols : nullptr;
    });
}

// --- the three products --------------------------------------------------------------------------------------------

template <class T>
__device__ __forceinline__ void conv_forward(T* __restrict__ y, const T* __restrict__ x, const T* __restrict__ w,
                                             const ConvShape& s) {
    __align__(16) __shared__ T shared[Shared<T>::elements];
    const Unfolded<T> input(s, x);
    const Matrix<T> weights(w, s.filters, s.patch());
    const Operand<Unfolded<T>, Inner::Reduced> a(input, int(blockIdx.x));
    const Operand<Matrix<T>, Inner::Reduced> b(weights, int(blockIdx.y));
    constexpr int depth = Place<T, Inner::Reduced>::kDepth;
    typename Shared<T>::Sums sums = {};
    product<T>(sums, shared, a, b, 0, (s.patch() + depth - 1) / depth);
    const bool vectors = s.filters % Vector<T>::width == 0 && aligned16(y);
    write_tile<T>(sums, shared, s.filters, vectors, [&](int row) -> T* {
        row += int(blockIdx.x) * kTile;
        return row < s.outputs() ? y + size_t(row) * s.filters : nullptr;
    });
}

template <class T>
__device__ __forceinline__ void conv_to_inputs(T* __restrict__ dx, const T* __restrict__ dy, const T* __restrict__ w,
                                               const ConvShape& s) {
    __align__(16) __shared__ T shared[Shared<T>::elements];
    const Phase phase(s, int(blockIdx.z));
    if (int(blockIdx.x) * kTile >= phase.pixels(s)) return;  // the whole block: phases differ by a row or a column
    const Reached<T> gradient(s, phase, dy);
    const Reaching<T> weights(s, phase, w);
    const Operand<Reached<T>, Inner::Reduced> a(gradient, int(blockIdx.x));
    const Operand<Reaching<T>, Inner::Kept> b(weights, int(blockIdx.y));
    constexpr int depth = Place<T, Inner::Reduced>::kDepth;
    typename Shared<T>::Sums sums = {};
    product<T>(sums, shared, a, b, 0, (phase.reduced(s) + depth - 1) / depth);
    const bool vectors = s.channels % Vector<T>::width == 0 && aligned16(dx);
    write_tile<T>(sums, shared, s.channels, vectors, [&](int row) -> T* {
        row += int(blockIdx.x) * kTile;
        if (row >= gradient.pixels) return nullptr;
        int column, line;
        const int n = gradient.per_row.quotient(gradient.per_column.quotient(row, column), line);
        const int iy = line * s.stride + phase.y, ix = column * s.stride + phase.x;
        return dx + ((size_t(n) * s.height + iy) * s.width + ix) * s.channels;
    });
}

template <class T>
__device__ __forceinline__ void conv_to_weights_partial(float* __restrict__ partial, const T* __restrict__ dy,
                                                        const T* __restrict__ x, const ConvShape& s, int steps) {
    __align__(16) __shared__ T shared[Shared<T>::elements];
    const Matrix<T> gradient(dy, s.outputs(), s.filters);
    const Unfolded<T> input(s, x);
    const Operand<Matrix<T>, Inner::Kept> a(gradient, int(blockIdx.y));
    const Operand<Unfolded<T>, Inner::Kept> b(input, int(blockIdx.x));
    constexpr int depth = Place<T, Inner::Kept>::kDepth;
    const int from = int(blockIdx.z) * steps, all = (s.outputs() + depth - 1) / depth;
    typename Shared<T>::Sums sums = {};
    product<T>(sums, shared, a, b, from, min(from + steps, all));
    write_partial(sums, partial + size_t(blockIdx.z) * s.filters * s.patch(), s.filters, s.patch());
}

template <class T>
__device__ __forceinline__ void conv_to_weights_reduce(T* __restrict__ dw, const float* __restrict__ partial,
                                                       int splits, int len) {
    const int i = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= len) return;
    float sum = 0.0f;
#pragma unroll 8
    for (int split = 0; split < splits; split++) sum += partial[size_t(split) * len + i];
    dw[i] = from_float<T>(to_float(dw[i]) + sum);
}

}  // namespace bubblebench

#define CONV_SHAPE                                                                                                   \
    int batch, int height, int width, int channels, int filters, int kernel, int stride, int padding, int out_height, \
        int out_width
#define CONV_SHAPE_VALUE \
    { batch, height, width, channels, filters, kernel, stride, padding, out_height, out_width }

#define CONV(T, suffix)                                                                                               \
    BUBBLEBENCH_KERNEL(128, conv_forward_##suffix, T* y, const T* x, const T* w, CONV_SHAPE) {                        \
        bubblebench::conv_forward(y, x, w, CONV_SHAPE_VALUE);                                                         \
    }                                                                                                                 \
    BUBBLEBENCH_KERNEL(128, conv_to_inputs_##suffix, T* dx, const T* dy, const T* w, CONV_SHAPE) {                    \
        bubblebench::conv_to_inputs(dx, dy, w, CONV_SHAPE_VALUE);                                                     \
    }                                                                                                                 \
    BUBBLEBENCH_KERNEL(128, conv_to_weights_partial_##suffix, float* partial, const T* dy, const T* x, CONV_SHAPE,    \
                       int steps) {                                                                                   \
        bubblebench::conv_to_weights_partial(partial, dy, x, CONV_SHAPE_VALUE, steps);                                \
    }                                                                                                                 \
    BUBBLEBENCH_KERNEL(256, conv_to_weights_reduce_##suffix, T* dw, const float* partial, int splits, int len) {      \
        bubblebench::conv_to_weights_reduce(dw, partial, splits, len);                                                \
    }

CONV(bubblebench::bf16, bf16)
CONV(bubblebench::f16, f16)
CONV(float, f32)
