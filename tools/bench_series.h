/* bench_series.h - a run over time: requests and latencies by intervals, at most SERIES_SLOTS of
 * them, of 10 ms or more. Latencies are kept in 8 buckets for each power of two (9 % wide), from
 * 128 ns to two minutes; what lies outside counts as the nearest. One thread; merge when the
 * others have stopped. */
#ifndef TOOLS_BENCH_SERIES_H
#define TOOLS_BENCH_SERIES_H

#include <stdint.h>

#define SERIES_SLOTS   125u
#define SERIES_BUCKETS 240u

struct series_slot {
  uint64_t ops;   /* that finished in it */
  uint64_t timed; /* of them */
  uint64_t max_ns, sum_ns;
  uint32_t buckets[SERIES_BUCKETS];
};
struct series {
  uint64_t interval_ns;
  uint32_t count;            /* slots that something fell into end here */
  uint64_t ops;              /* told of so far */
  struct series_slot *slots; /* NULL: nothing is kept */
};

/* For a run of so long; what comes later falls into the last slot. -ENOMEM. */
int series_init(struct series *s, uint64_t duration_ns);
void series_finish(struct series *s);
/* A request that was timed has finished, at_ns after the start; `ops` have in all. */
void series_add(struct series *s, uint64_t at_ns, uint64_t ops, uint64_t latency_ns);
/* The run has ended with so many. */
void series_end(struct series *s, uint64_t at_ns, uint64_t ops);
/* into: zeroed, or of the same duration. -ENOMEM. */
int series_merge(struct series *into, const struct series *from);
/* Of slot.buckets. */
uint32_t series_bucket(uint64_t ns);
/* 0 if none was timed. */
uint64_t series_percentile_ns(const struct series_slot *slot, double percent);

#endif
