/* scrub.h - a core's part of scrubbing: its shards one after the other, at its share of the rate;
 * on core 0 also what belongs to no shard, the identities and the root slots. Owned by the core's
 * thread.
 *
 * The rate is that of the whole store; cores without shards have no share. A core that waits for
 * its rate sleeps until then (core_scrub_wait_ns()). */
#ifndef RUNTIME_SCRUB_H
#define RUNTIME_SCRUB_H

#include "shards/shard.h"

struct core;

/* Identities and root slots, one read at a time. */
struct layout_scrub {
  struct io io;
  bool busy, finished;
  uint32_t next; /* copies of identities, then slots */
  uint32_t retries;
  uint64_t epoch;         /* of the newest root when a slot's read began */
  uint64_t seen_checksum; /* first identity copy of the backing; see scrub.c */
  uint64_t seen_generation;
  bool seen;
  char *buf;
  uint64_t done_bytes, damaged, unreadable;
};

struct core_scrub {
  bool on, continuous, stopping;
  uint64_t bytes_per_second; /* of this core; 0: unlimited */
  int64_t credit_bytes;
  uint64_t last_ns;
  uint32_t at; /* of the core's shards; mine_count: all are through */
  uint64_t passes;
  struct layout_scrub layout;
};

struct scrub_request {
  uint64_t bytes_per_second;
  bool continuous;
};
struct scrub_totals {
  uint32_t running; /* cores */
  uint64_t passes;  /* of the core that has made the fewest */
  uint64_t done_bytes, total_bytes;
  uint64_t blobs, damaged_blobs, damaged_metadata, unreadable, unverified_blobs;
  uint64_t blocks, damaged_blocks;
};

/* On the core. -EBUSY: it is on already. */
int core_scrub_start(struct core *core, const struct scrub_request *request);
void core_scrub_stop(struct core *core);
/* A turn: true if it did something. */
bool core_scrub_tick(struct core *core);
/* Reads are in flight. */
bool core_scrub_busy(const struct core *core);
/* How long until there is something to do; -1: not before something else happens. */
int64_t core_scrub_wait_ns(const struct core *core);
/* Adds the core's. */
void core_scrub_totals(const struct core *core, struct scrub_totals *totals);

#endif
