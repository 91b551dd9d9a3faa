/* bench_arrivals.c - see bench_arrivals.h. */
#include "tools/bench_arrivals.h"

#include <math.h>

/* In (0, 1]; xorshift64*, Vigna 2016. */
static double uniform(struct arrivals *p) {
  p->random ^= p->random >> 12;
  p->random ^= p->random << 25;
  p->random ^= p->random >> 27;
  return (double)((p->random * UINT64_C(2685821657736338717) >> 11) + 1) / 9007199254740992.0;
}

/* Between the events of a Poisson process lie times that are distributed exponentially. */
void arrivals_next(struct arrivals *p) {
  p->due_ns += p->poisson ? -log(uniform(p)) * p->interval_ns : p->interval_ns;
}

void arrivals_begin(struct arrivals *p, double rate, bool poisson, uint64_t seed,
                    uint64_t start_ns) {
  *p = (struct arrivals){.due_ns = (double)start_ns,
                         .interval_ns = rate > 0 ? 1e9 / rate : 0,
                         .poisson = poisson,
                         .random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1};
  if (poisson) arrivals_next(p);
}

uint64_t arrivals_count_until(const struct arrivals *p, uint64_t end_ns) {
  struct arrivals rest = *p;
  uint64_t n = 0;
  for (; rest.due_ns < (double)end_ns; n++) arrivals_next(&rest);
  return n;
}
