/* latency.h - a histogram of latencies: 32 buckets for each power of two (3 % wide), plus mean,
 * standard deviation and extremes. One thread; merge when the others have stopped. */
#ifndef TOOLS_LATENCY_H
#define TOOLS_LATENCY_H

#include <stdint.h>

#define LATENCY_SUB_BITS 5
#define LATENCY_BUCKETS  ((64 - LATENCY_SUB_BITS + 1) << LATENCY_SUB_BITS)

struct latency {
  uint64_t count, min_ns, max_ns;
  double sum_ns, square_sum;
  uint64_t buckets[LATENCY_BUCKETS];
};

void latency_add(struct latency *l, uint64_t ns);
void latency_merge(struct latency *into, const struct latency *from);
double latency_mean_ns(const struct latency *l);
double latency_stddev_ns(const struct latency *l);
/* The largest value that falls into a bucket. */
uint64_t latency_upper_end_ns(uint32_t bucket);
/* percent: 0 to 100. The upper end of the bucket in which it lies, at most max_ns; 0 if empty. */
uint64_t latency_percentile_ns(const struct latency *l, double percent);

#endif
