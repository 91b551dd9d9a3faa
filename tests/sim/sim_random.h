/* sim_random.h - the one source of chance in the simulator: splitmix64 (Steele, Lea, Flood, "Fast
 * splittable pseudorandom number generators", OOPSLA 2014). No state but the struct. */
#ifndef TESTS_SIM_RANDOM_H
#define TESTS_SIM_RANDOM_H

#include <stdbool.h>
#include <stdint.h>

struct sim_random {
  uint64_t state;
};
static inline uint64_t random_next(struct sim_random *r) {
  uint64_t z = (r->state += UINT64_C(0x9e3779b97f4a7c15));
  z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
  z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
  return z ^ (z >> 31);
}
/* 0 to n - 1; n > 0. */
static inline uint64_t random_below(struct sim_random *r, uint64_t n) {
  return (uint64_t)(((__uint128_t)random_next(r) * n) >> 64);
}
/* low to high, both included. */
static inline uint64_t random_in(struct sim_random *r, uint64_t low, uint64_t high) {
  return low + random_below(r, high - low + 1);
}
static inline bool random_percent(struct sim_random *r, uint32_t percent) {
  return random_below(r, 100) < percent;
}
/* chance out of 2^32 */
static inline bool random_chance(struct sim_random *r, uint32_t chance) {
  return chance && (uint32_t)(random_next(r) >> 32) < chance;
}

#endif
