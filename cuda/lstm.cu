// The LSTM cell (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000): one step, both ways.
//
//   i, f, o = σ(·), g = tanh(·) of the pre-activations, which they replace; c = f·c_prev + i·g; h = o·tanh(c)
//   s = dc + dh·o·(1 − tanh²c); di = s·g·i(1 − i), df = s·c_prev·f(1 − f), dg = s·i(1 − g²), do = dh·tanh(c)·o(1 − o);
//   dc = s·f, written over dc, for the step before; di df dg do stand in dgates as i f g o do in gates
//
// h c c_prev dh dc: rows × hidden; gates dgates: rows × 4·hidden, [i | f | g | o] in each row; all of type T = bf16, f16
// or f32. Arithmetic is in fp32, and h is made of the unrounded gates and c.
//
// Block 256, grid ⌈rows · ⌈hidden / W⌉ / 256⌉ with W = 16 bytes / sizeof(T), rows · ⌈hidden / W⌉ < 2^31: a thread has up to W neighbouring units of
// one row, with 16-byte accesses where hidden is a multiple of W and the pointers are aligned. Forward moves 11 elements
// a unit and does one tanh more than it has gates. σ is 1/(1 + e^−x) through the fast exponential, whose relative error
// grows with |x| (2 + 1.2|x| units in the last place by the programming guide): where that counts σ is near 0 or 1 and
// flat, so its error stays under 4e-7 of 1. tanh is the library's: near 0 it must be exact relative to x.
#include "common.cuh"

namespace bubblebench {

__device__ __forceinline__ float sigmoid(float x) { return __fdividef(1.0f, 1.0f + __expf(-x)); }

// This thread's units: `at` in a rows×hidden tensor, `gate(k)` in a rows×4·hidden one.
template <class T> struct Units {
    static constexpr int W = Vector<T>::width;
    size_t at, gates;
    int count, hidden;
    bool vectors;

    __device__ __forceinline__ Units(int rows, int hidden_, bool aligned)
        : hidden(hidden_), vectors(hidden_ % W == 0 && aligned) {
        const int pieces = (hidden + W - 1) / W;
        const unsigned item = blockIdx.x * blockDim.x + threadIdx.x, row = item / unsigned(pieces);
        const int first = int(item - row * unsigned(pieces)) * W;
        at = size_t(row) * hidden + first;
        gates = size_t(row) * 4 * hidden + first;
        count = row < unsigned(rows) ? min(W, hidden - first) : 0;
    }

    __device__ __forceinline__ size_t gate(int k) const { return gates + size_t(k) * hidden; }

    __device__ __forceinline__ void read(const T* from, float (&v)[W]) const {
        if (vectors) {
            load(from).unpack(v);
            return;
        }
#pragma unroll
        for (int i = 0; i < W; i++) v[i] = i < count ? to_float(from[i]) : 0.0f;
    }

    __device__ __forceinline__ void write(T* to, const float (&v)[W]) const {
        if (vectors) {
            store(to, Vector<T>::pack(v));
            return;
        }
#pragma unroll
        for (int i = 0; i < W; i++) {
            if (i < count) to[i] = from_float<T>(v[i]);
        }
    }
};

template <class T>
__device__ __forceinline__ void lstm_forward(T* __restrict__ h, T* __restrict__ c, T* __restrict__ gates,
                                             const T* __restrict__ c_prev, int rows, int hidden) {
    constexpr int W = Vector<T>::width;
    const Units<T> units(rows, hidden, aligned16(h) && aligned16(c) && aligned16(gates) && aligned16(c_prev));
    if (units.count == 0) return;
    float i[W], f[W], g[W], o[W], state[W];
    units.read(gates + units.gate(0), i);
    units.read(gates + units.gate(1), f);
    units.read(gates + units.gate(2), g);
    units.read(gates + units.gate(3), o);
    units.read(c_prev + units.at, state);
#pragma unroll
    for (int k = 0; k < W; k++) {
        i[k] = sigmoid(i[k]);
        f[k] = sigmoid(f[k]);
        g[k] = tanhf(g[k]);
        state[k] = f[k] * state[k] + i[k] * g[k];
    }
    units.write(gates + units.gate(0), i);
    units.write(gates + units.gate(1), f);
    units.write(gates + units.gate(2), g);
    units.write(c + units.at, state);
#pragma unroll
    for (int k = 0; k < W; k++) {
        o[k] = sigmoid(o[k]);
        state[k] = o[k] * tanhf(state[k]);
    }
    units.write(gates + units.gate(3), o);
    units.write(h + units.at, state);
}

template <class T>
__device__ __forceinline__ void lstm_backward(T* __restrict__ dgates, T* __restrict__ dc, const T* __restrict__ dh,
                                              const T* __restrict__ gates, const T* __restrict__ c,
                                              const T* __restrict__ c_prev, int rows, int hidden) {
    constexpr int W = Vector<T>::width;
    const bool aligned = aligned16(dgates) && aligned16(dc) && aligned16(dh) && aligned16(gates) && aligned16(c) &&
                         aligned16(c_prev);
    const Units<T> units(rows, hidden, aligned);
    if (units.count == 0) return;
    float through[W], tanh_c[W], gate[W], other[W];
    units.read(c + units.at, tanh_c);
    units.read(dh + units.at, other);
    units.read(gates + units.gate(3), gate);
    units.read(dc + units.at, through);
#pragma unroll
    for (int k = 0; k < W; k++) {
        tanh_c[k] = tanhf(tanh_c[k]);
        through[k] += other[k] * gate[k] * (1.0f - tanh_c[k] * tanh_c[k]);
        gate[k] = other[k] * tanh_c[k] * gate[k] * (1.0f - gate[k]);
    }
    units.write(dgates + units.gate(3), gate);
    units.read(gates + units.gate(1), gate);
    units.read(c_prev + units.at, other);
#pragma unroll
    for (int k = 0; k < W; k++) {
        other[k] *= through[k] * gate[k] * (1.0f - gate[k]);
        gate[k] *= through[k];
    }
    units.write(dgates + units.gate(1), other);
    units.write(dc + units.at, gate);
    units.read(gates + units.gate(0), gate);
    units.read(gates + units.gate(2), other);
#pragma unroll
    for (int k = 0; k < W; k++) {
        const float i = gate[k], g = other[k];
        gate[k] = through[k] * g * i * (1.0f - i);
        other[k] = through[k] * i * (1.0f - g * g);
    }
    units.write(dgates + units.gate(0), gate);
    units.write(dgates + units.gate(2), other);
}

}  // namespace bubblebench

#define LSTM(T, suffix)                                                                                               \
    BUBBLEBENCH_KERNEL(256, lstm_forward_##suffix, T* h, T* c, T* gates, const T* c_prev, int rows, int hidden) {     \
        bubblebench::lstm_forward(h, c, gates, c_prev, rows, hidden);                                                 \
    }                                                                                                                 \
    BUBBLEBENCH_KERNEL(256, lstm_backward_##suffix, T* dgates, T* dc, const T* dh, const T* gates, const T* c,        \
                       const T* c_prev, int rows, int hidden) {                                                       \
        bubblebench::lstm_backward(dgates, dc, dh, gates, c, c_prev, rows, hidden);                                   \
    }

LSTM(bubblebench::bf16, bf16)
LSTM(bubblebench::f16, f16)
LSTM(float, f32)
