/* latency.c - see latency.h. */
#include "tools/latency.h"

#include <math.h>

static uint32_t bucket_of(uint64_t ns) {
  if (ns < 1u << LATENCY_SUB_BITS) return (uint32_t)ns;
  uint32_t power = 63 - (uint32_t)__builtin_clzll(ns);
  uint32_t shift = power - LATENCY_SUB_BITS;
  uint32_t sub = (uint32_t)(ns >> shift) & ((1u << LATENCY_SUB_BITS) - 1);
  return ((shift + 1) << LATENCY_SUB_BITS) + sub;
}

uint64_t latency_upper_end_ns(uint32_t bucket) {
  if (bucket < 1u << LATENCY_SUB_BITS) return bucket;
  uint32_t shift = (bucket >> LATENCY_SUB_BITS) - 1;
  uint64_t sub = (bucket & ((1u << LATENCY_SUB_BITS) - 1)) | 1u << LATENCY_SUB_BITS;
  return (sub << shift) + ((UINT64_C(1) << shift) - 1);
}

void latency_add(struct latency *l, uint64_t ns) {
  if (l->count++ == 0 || ns < l->min_ns) l->min_ns = ns;
  if (ns > l->max_ns) l->max_ns = ns;
  l->sum_ns += (double)ns;
  l->square_sum += (double)ns * (double)ns;
  l->buckets[bucket_of(ns)]++;
}

void latency_merge(struct latency *into, const struct latency *from) {
  if (from->count == 0) return;
  if (into->count == 0 || from->min_ns < into->min_ns) into->min_ns = from->min_ns;
  if (from->max_ns > into->max_ns) into->max_ns = from->max_ns;
  into->count += from->count;
  into->sum_ns += from->sum_ns;
  into->square_sum += from->square_sum;
  for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) into->buckets[i] += from->buckets[i];
}

double latency_mean_ns(const struct latency *l) {
  return l->count ? l->sum_ns / (double)l->count : 0;
}

double latency_stddev_ns(const struct latency *l) {
  if (l->count < 2) return 0;
  double mean = latency_mean_ns(l), v = l->square_sum / (double)l->count - mean * mean;
  return v > 0 ? sqrt(v) : 0;
}

uint64_t latency_percentile_ns(const struct latency *l, double percent) {
  uint64_t want = (uint64_t)ceil((double)l->count * percent / 100), seen = 0;
  if (l->count == 0) return 0;
  if (want == 0) want = 1;
  for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
    seen += l->buckets[i];
    if (seen >= want)
      return latency_upper_end_ns(i) < l->max_ns ? latency_upper_end_ns(i) : l->max_ns;
  }
  return l->max_ns;
}
