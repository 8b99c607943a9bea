// What the parameter updates share: four consecutive elements of any type at a time, so that a warp's accesses are
// consecutive in every stream. fp32 streams (moments, master) then move 16 bytes a thread, 16-bit ones 8: eight elements
// a thread would make the latter 16 as well, but each fp32 access touch every second half of a 32-byte sector.
#pragma once
#include "common.cuh"

namespace bubblebench {

constexpr int kUpdateThreads = 256;
// Groups of four elements a thread takes, all loaded before the first is used.
constexpr int kUpdateGroups = 2;
constexpr size_t kUpdateTile = size_t(kUpdateThreads) * kUpdateGroups * 4;

template <class T> struct alignas(4 * sizeof(T)) Four {
    T elements[4];
    __device__ __forceinline__ float operator[](int i) const { return to_float(elements[i]); }
    __device__ __forceinline__ void set(int i, float v) { elements[i] = from_float<T>(v); }
};

// False where groups of four may not start at the pointer; an absent pointer is no obstacle.
template <class T> __device__ __forceinline__ bool aligned4(const T* pointer) {
    return reinterpret_cast<uintptr_t>(pointer) % sizeof(Four<T>) == 0;
}
template <class T> __device__ __forceinline__ Four<T> load4(const T* from) {
    return *reinterpret_cast<const Four<T>*>(from);
}
template <class T> __device__ __forceinline__ void store4(T* to, const Four<T>& four) {
    *reinterpret_cast<Four<T>*>(to) = four;
}

}  // namespace bubblebench
