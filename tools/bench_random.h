/* bench_random.h - random numbers of loads: xorshift64* (Vigna, 2016). The state is never 0. */
#ifndef TOOLS_BENCH_RANDOM_H
#define TOOLS_BENCH_RANDOM_H

#include <stdint.h>

static inline uint64_t bench_random_seed(uint64_t seed) {
  return (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1;
}
/* What is near becomes far: of numbers that are used as seeds (splitmix64's last step). */
static inline uint64_t bench_random_mix(uint64_t x) {
  x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
  x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
  return x ^ x >> 31;
}
static inline uint64_t bench_random(uint64_t *state) {
  *state ^= *state >> 12;
  *state ^= *state << 25;
  *state ^= *state >> 27;
  return *state * UINT64_C(2685821657736338717);
}
/* In [0, 1). */
static inline double bench_random_unit(uint64_t *state) {
  return (double)(bench_random(state) >> 11) / 0x1p53;
}

#endif
