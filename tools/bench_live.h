/* bench_live.h - what runs at this moment: counters that a load's thread keeps and another one
 * reads, and the line on the terminal that is made of them.
 *
 * A load keeps them only while somebody looks (load_watch()): otherwise they cost nothing. One
 * writer for each struct live; any reader, who sees a moment that may never have been, as each
 * counter is read for itself. The line belongs to the main thread. */
#ifndef TOOLS_BENCH_LIVE_H
#define TOOLS_BENCH_LIVE_H

#include "tools/bench_series.h"
#include "tools/progress.h"

#include <stdatomic.h>

struct live {
  _Atomic uint64_t ops, bytes;
  _Atomic uint32_t buckets[SERIES_BUCKETS]; /* of the requests that were timed */
};
/* latency_ns 0: it was not timed. Its one writer. */
void live_add(struct live *l, uint64_t ops, uint64_t bytes, uint64_t latency_ns);

struct live_line {
  struct progress bar;
  const struct live *loads;
  uint32_t count;
  uint64_t last_ns, last_ops, last_bytes;
  uint32_t last_buckets[SERIES_BUCKETS];
  char text[64];
};
/* Is there one: on a terminal, or with --eta=always? */
bool live_shows(void);
void live_begin(struct live_line *line, const char *label, const struct live *loads,
                uint32_t count);
/* May be called as often as you like: rates and latencies are those of the last half second. */
void live_step(struct live_line *line, uint64_t done, uint64_t total);
void live_end(struct live_line *line);
/* Sums of all loads. */
uint64_t live_ops(const struct live *loads, uint32_t count);
uint64_t live_bytes(const struct live *loads, uint32_t count);

#endif
