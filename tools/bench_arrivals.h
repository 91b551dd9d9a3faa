/* bench_arrivals.h - when the requests of an open load are due, whatever becomes of those before
 * them.
 *
 * A closed load sends the next request when one has finished, so while the server stands still
 * nobody asks, and nobody's wait is counted. Here each request has a time at which it was to
 * begin, and its response time counts from there (Tene's "coordinated omission"; wrk2 does so).
 * Pure arithmetic; one owner. */
#ifndef TOOLS_BENCH_ARRIVALS_H
#define TOOLS_BENCH_ARRIVALS_H

#include <stdbool.h>
#include <stdint.h>

struct arrivals {
  double due_ns, interval_ns; /* interval_ns 0: a closed load */
  bool poisson;
  uint64_t random;
};
/* rate: requests a second; 0: closed. The first one is due at start_ns, or, of a Poisson process,
 * after the first interval. */
void arrivals_begin(struct arrivals *p, double rate, bool poisson, uint64_t seed,
                    uint64_t start_ns);
static inline uint64_t arrivals_due_ns(const struct arrivals *p) { return (uint64_t)p->due_ns; }
/* The one that was due has been taken. */
void arrivals_next(struct arrivals *p);
/* How many are due from the next one on until then: what a load that could not keep up has left. */
uint64_t arrivals_count_until(const struct arrivals *p, uint64_t end_ns);

#endif
