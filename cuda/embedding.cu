// Token and position embedding, and its gradient.
//
//   forward        out[r] = table[token[r]] + positions[r mod sequence]
//   to weights     dtable[token[r]] += dout[r]          dpositions[r mod sequence] += dout[r]
//
// out dout: rows × hidden; table dtable: vocabulary × hidden; positions dpositions: sequence × hidden, all of type T =
// bf16, f16 or f32; tokens: u32. Sums in fp32, in the order of the rows, one rounding an element and call: the same inputs
// give the same bits. A token outside the vocabulary reads nothing: its row of `out` is NaN, dtable does not get its row.
//
// forward: block (threads a row, rows a block), grid ⌈rows / rows a block⌉; a thread has four vectors of each input in
// flight. 3 elements moved a result.
//
// The gradient of the table first lists each token's rows, in time linear in rows as long as tokens differ:
//   count     slot[r] = rows of the same token that came before (in no particular order), counts[token] = all of them
//   allocate  the row in slot 0 takes counts[token] places of the list: starts[token]
//   place     list[starts[token] + slot[r]] = r
//   rank      ordered[starts[token] + rows of the token below r] = r: only here does the order become that of the rows
//   table     the block at a token's first place sums all its rows and adds them to dtable[token] once
// counts (vocabulary) and cursor (1) are zero before; starts (vocabulary), slot, list and ordered (rows): int, overwritten.
// count, allocate, place, rank: one thread a row. table: grid (rows, ⌈hidden / columns a block⌉); positions: grid
// (sequence, the same); a block of up to 128 threads, columns a block = threads · (16 bytes), four rows in flight.
// 16-byte accesses where hidden is a multiple of 16 bytes and pointers are aligned, else element by element. No spills.
#include "common.cuh"

namespace bubblebench {

// Vectors a thread has in flight.
constexpr int kInFlight = 4;

template <class T>
__device__ __forceinline__ void embedding_forward(T* __restrict__ out, const unsigned* __restrict__ tokens,
                                                  const T* __restrict__ table, const T* __restrict__ positions,
                                                  int rows, int sequence, int vocabulary, int hidden) {
    constexpr int W = Vector<T>::width;
    const int r = int(blockIdx.x * blockDim.y + threadIdx.y), lane = int(threadIdx.x), threads = int(blockDim.x);
    if (r >= rows) return;
    const unsigned token = tokens[r];
    T* to = out + size_t(r) * hidden;
    if (token >= unsigned(vocabulary)) {
        for (int c = lane; c < hidden; c += threads) to[c] = from_float<T>(NAN);
        return;
    }
    const T *word = table + size_t(token) * hidden, *place = positions + size_t(r % sequence) * hidden;
    if (hidden % W != 0 || !aligned16(out) || !aligned16(table) || !aligned16(positions)) {
        for (int c = lane; c < hidden; c += threads) to[c] = from_float<T>(to_float(word[c]) + to_float(place[c]));
        return;
    }
    for (int first = lane * W; first < hidden; first += threads * W * kInFlight) {
        Vector<T> words[kInFlight], places[kInFlight];
#pragma unroll
        for (int k = 0; k < kInFlight; k++) {
            const int c = first + k * threads * W;
            if (c >= hidden) continue;
            words[k] = load(word + c);
            places[k] = load(place + c);
        }
#pragma unroll
        for (int k = 0; k < kInFlight; k++) {
            const int c = first + k * threads * W;
            if (c >= hidden) continue;
            float w[W], p[W];
            words[k].unpack(w);
            places[k].unpack(p);
#pragma unroll
            for (int i = 0; i < W; i++) w[i] += p[i];
            store(to + c, Vector<T>::pack(w));
        }
    }
}

// to += Σ_j from[row(j)], j < count, in this block's columns; `to` and `from` are whole tensors' starts plus a row.
template <class T, class Row>
__device__ __forceinline__ void add_rows(T* to, const T* from, int count, int hidden, bool vectors, Row row) {
    constexpr int W = Vector<T>::width;
    const int threads = int(blockDim.x), tile = int(blockIdx.y) * threads * W, lane = int(threadIdx.x);
    if (vectors) {
        const int c = tile + lane * W;
        if (c >= hidden) return;
        float sum[W] = {}, v[W];
        for (int j = 0; j < count; j += kInFlight) {
            Vector<T> held[kInFlight];
#pragma unroll
            for (int k = 0; k < kInFlight; k++) {
                if (j + k < count) held[k] = load(from + size_t(row(j + k)) * hidden + c);
            }
#pragma unroll
            for (int k = 0; k < kInFlight; k++) {
                if (j + k >= count) continue;
                held[k].unpack(v);
#pragma unroll
                for (int i = 0; i < W; i++) sum[i] += v[i];
            }
        }
        load(static_cast<const T*>(to) + c).unpack(v);
#pragma unroll
        for (int i = 0; i < W; i++) v[i] += sum[i];
        store(to + c, Vector<T>::pack(v));
        return;
    }
    for (int c = tile + lane; c < min(tile + threads * W, hidden); c += threads) {
        float sum = 0.0f;
        for (int j = 0; j < count; j++) sum += to_float(from[size_t(row(j)) * hidden + c]);
        to[c] = from_float<T>(to_float(to[c]) + sum);
    }
}

template <class T>
__device__ __forceinline__ void embedding_table(T* __restrict__ dtable, const T* __restrict__ dout,
                                                const unsigned* __restrict__ tokens, const int* __restrict__ counts,
                                                const int* __restrict__ starts, const int* __restrict__ ordered,
                                                const int* __restrict__ cursor, int hidden) {
    const int place = int(blockIdx.x);
    if (place >= cursor[0]) return;  // rows with a token outside the vocabulary have no place
    const unsigned token = tokens[ordered[place]];
    if (starts[token] != place) return;
    const bool vectors = hidden % Vector<T>::width == 0 && aligned16(dtable) && aligned16(dout);
    const int* rows = ordered + place;
    add_rows(dtable + size_t(token) * hidden, dout, counts[token], hidden, vectors, [&](int j) { return rows[j]; });
}

template <class T>
__device__ __forceinline__ void embedding_positions(T* __restrict__ dpositions, const T* __restrict__ dout, int rows,
                                                    int sequence, int hidden) {
    const int position = int(blockIdx.x), count = (rows - position + sequence - 1) / sequence;
    if (position >= rows) return;
    const bool vectors = hidden % Vector<T>::width == 0 && aligned16(dpositions) && aligned16(dout);
    add_rows(dpositions + size_t(position) * hidden, dout, count, hidden, vectors,
             [&](int j) { return position + j * sequence; });
}

}  // namespace bubblebench

BUBBLEBENCH_KERNEL(256, embedding_count, int* counts, int* slot, const unsigned* tokens, int rows, int vocabulary) {
    const int r = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (r < rows && tokens[r] < unsigned(vocabulary)) slot[r] = atomicAdd(counts + tokens[r], 1);
}

BUBBLEBENCH_KERNEL(256, embedding_allocate, int* starts, int* cursor, const int* counts, const int* slot,
                   const unsigned* tokens, int rows, int vocabulary) {
    const int r = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (r >= rows || tokens[r] >= unsigned(vocabulary) || slot[r] != 0) return;
    starts[tokens[r]] = atomicAdd(cursor, counts[tokens[r]]);
}

BUBBLEBENCH_KERNEL(256, embedding_place, int* list, const int* starts, const int* slot, const unsigned* tokens,
                   int rows, int vocabulary) {
    const int r = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (r < rows && tokens[r] < unsigned(vocabulary)) list[starts[tokens[r]] + slot[r]] = r;
}

BUBBLEBENCH_KERNEL(256, embedding_rank, int* ordered, const int* list, const int* starts, const int* counts,
                   const unsigned* tokens, int rows, int vocabulary) {
    const int r = int(blockIdx.x * blockDim.x + threadIdx.x);
    if (r >= rows || tokens[r] >= unsigned(vocabulary)) return;
    const int start = starts[tokens[r]], count = counts[tokens[r]];
    int rank = 0;
    for (int i = 0; i < count; i++) rank += list[start + i] < r;
    ordered[start + rank] = r;
}

#define EMBEDDING(T, suffix)                                                                                         \
    BUBBLEBENCH_KERNEL(256, embedding_forward_##suffix, T* out, const unsigned* tokens, const T* table,              \
                       const T* positions, int rows, int sequence, int vocabulary, int hidden) {                     \
        bubblebench::embedding_forward(out, tokens, table, positions, rows, sequence, vocabulary, hidden);           \
    }                                                                                                                \
    BUBBLEBENCH_KERNEL(128, embedding_table_##suffix, T* dtable, const T* dout, const unsigned* tokens,              \
                       const int* counts, const int* starts, const int* ordered, const int* cursor, int hidden) {    \
        bubblebench::embedding_table(dtable, dout, tokens, counts, starts, ordered, cursor, hidden);                 \
    }                                                                                                                \
    BUBBLEBENCH_KERNEL(128, embedding_positions_##suffix, T* dpositions, const T* dout, int rows, int sequence,      \
                       int hidden) {                                                                                 \
        bubblebench::embedding_positions(dpositions, dout, rows, sequence, hidden);                                  \
    }

EMBEDDING(bubblebench::bf16, bf16)
EMBEDDING(bubblebench::f16, f16)
EMBEDDING(float, f32)
