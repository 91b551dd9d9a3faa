/* bench_distribution.h - which of n things a random load asks for: all alike, or a few of them much
 * more often than others.
 *
 *   random         each alike
 *   zipf:S         the k-th most popular one with a probability that goes as 1 / k^S, S above 0;
 *                  drawn exactly by rejection-inversion (Hoermann and Derflinger, 1996)
 *   pareto:H       self-similar, H between 0 and 0.5: the first H of the things get 1 - H of the
 *                  requests, and so on within them (Gray et al., SIGMOD 1994; 0.2: "80-20")
 *   normal:PCT     around the middle, with a standard deviation of PCT percent of n, above 0
 *
 * What is popular is spread over all of the n by a permutation, but for normal, whose neighbours
 * stay neighbours. One owner. */
#ifndef TOOLS_BENCH_DISTRIBUTION_H
#define TOOLS_BENCH_DISTRIBUTION_H

#include <stdint.h>

enum distribution_kind {
  DISTRIBUTION_RANDOM,
  DISTRIBUTION_ZIPF,
  DISTRIBUTION_PARETO,
  DISTRIBUTION_NORMAL,
};
struct distribution_spec {
  enum distribution_kind kind;
  double parameter;
};
/* "zipf:0.99" and so on; NULL: random. -EINVAL: none of these, or the parameter is out of range. */
int distribution_parse(const char *text, struct distribution_spec *spec);

struct distribution {
  struct distribution_spec spec;
  uint64_t n, random;
  unsigned bits;                  /* 2^bits is at least n */
  double first, last, squeeze, s; /* of zipf */
  double exponent;                /* of pareto */
};
/* n: at least 1. */
void distribution_init(struct distribution *d, const struct distribution_spec *spec, uint64_t n,
                       uint64_t seed);
/* In [0, n). */
uint64_t distribution_pick(struct distribution *d);
/* A permutation of [0, n), 2^bits being at least n. */
uint64_t distribution_spread(uint64_t at, uint64_t n, unsigned bits);

#endif
