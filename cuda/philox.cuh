// Philox-4x32-10, a random number generator that is a function of a counter and a key (Salmon, Moraes, Dror, Shaw, SC'11):
// any element of the sequence at any time, nothing kept between launches.
#pragma once
#include "common.cuh"

namespace bubblebench {

struct Words {
    unsigned word[4];
};

// Ten rounds of two 32×32-bit products; the key is raised by its Weyl constants before each round but the first.
__device__ __forceinline__ Words philox(Words counter, unsigned key0, unsigned key1) {
    constexpr unsigned kProduct0 = 0xd2511f53u, kProduct1 = 0xcd9e8d57u, kWeyl0 = 0x9e3779b9u, kWeyl1 = 0xbb67ae85u;
    unsigned(&c)[4] = counter.word;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const unsigned high0 = __umulhi(kProduct0, c[0]), low0 = kProduct0 * c[0];
        const unsigned high1 = __umulhi(kProduct1, c[2]), low1 = kProduct1 * c[2];
        c[0] = high1 ^ c[1] ^ key0;
        c[1] = low1;
        c[2] = high0 ^ c[3] ^ key1;
        c[3] = low0;
        key0 += kWeyl0;
        key1 += kWeyl1;
    }
    return counter;
}

}  // namespace bubblebench
