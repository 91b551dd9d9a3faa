/* sim_random.h - the one source of chance in the simulator: tests/random.h, without its bias, and
 * the questions that are asked of it. */
#ifndef TESTS_SIM_RANDOM_H
#define TESTS_SIM_RANDOM_H

#include <stdbool.h>

#include "tests/random.h"

/* 0 to n - 1; n > 0. */
static inline uint64_t random_up_to(struct random *r, uint64_t n) {
  return (uint64_t)(((__uint128_t)random_next(r) * n) >> 64);
}
/* low to high, both included. */
static inline uint64_t random_in(struct random *r, uint64_t low, uint64_t high) {
  return low + random_up_to(r, high - low + 1);
}
static inline bool random_percent(struct random *r, uint32_t percent) {
  return random_up_to(r, 100) < percent;
}
/* chance out of 2^32 */
static inline bool random_chance(struct random *r, uint32_t chance) {
  return chance && (uint32_t)(random_next(r) >> 32) < chance;
}

#endif
