/* live_crash.h - power cuts for a rig: its device with a cache that loses, block by block, what no
 * flush has covered, and tears what is on its way. */
#ifndef TESTS_LIVE_CRASH_H
#define TESTS_LIVE_CRASH_H

#include "tests/shards/shard_rig.h"

struct crash {
  struct device_ops ops; /* in place of the rig's */
  const struct device_ops *below;
  char *durable; /* what survives for certain */
  bool *dirty;   /* blocks of the backing that were written since */
  uint64_t blocks;
  struct random random;
};
/* From now on. One at a time. */
void crash_begin(struct rig *r, struct crash *c, uint64_t seed);
void crash_end(struct rig *r, struct crash *c);
/* The power goes now: the shard is closed and opened on what has survived. Volumes must be closed
 * by `close`, which runs when nothing is in flight any more. */
void crash_cut(struct rig *r, struct crash *c, void (*close)(void *arg), void *arg);

#endif
