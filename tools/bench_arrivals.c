/* bench_arrivals.c - see bench_arrivals.h. */
#include "tools/bench_arrivals.h"

#include <math.h>

#include "tools/bench_random.h"

/* Between the events of a Poisson process lie times that are distributed exponentially. */
void arrivals_next(struct arrivals *p) {
  p->due_ns +=
      p->poisson ? -log(1 - bench_random_unit(&p->random)) * p->interval_ns : p->interval_ns;
}

void arrivals_begin(struct arrivals *p, double rate, bool poisson, uint64_t seed,
                    uint64_t start_ns) {
  *p = (struct arrivals){.due_ns = (double)start_ns,
                         .interval_ns = rate > 0 ? 1e9 / rate : 0,
                         .poisson = poisson,
                         .random = bench_random_seed(seed)};
  if (poisson) arrivals_next(p);
}

uint64_t arrivals_count_until(const struct arrivals *p, uint64_t end_ns) {
  struct arrivals rest = *p;
  uint64_t n = 0;
  for (; rest.due_ns < (double)end_ns; n++) arrivals_next(&rest);
  return n;
}
