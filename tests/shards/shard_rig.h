/* shard_rig.h - one shard on memory, with a device that completes I/O in a random order when told
 * to, and can hold, fail or count it. For the tests of the shard's engine. */
#ifndef TESTS_SHARD_RIG_H
#define TESTS_SHARD_RIG_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shards/shard.h"
#include "tests/random.h"

#define RIG_IOS_MAX 1024

/* A device under the test's control: device first, so that it can be cast. */
struct rig_device {
  struct device device;
  struct backing *backing;
  struct io *held[RIG_IOS_MAX];
  uint32_t count, in_flight_max;
  struct random random;
  bool hold_writes;
  bool take_early;             /* data of writes is what it was when they were submitted */
  int fail_reads, fail_writes; /* the next that many fail with -EIO */
  uint64_t reads, writes, flushes;
};

struct rig {
  struct rig_device device;
  struct region region;
  struct backing *backing;
  struct backing disguise; /* what the region sees: a file or a block device */
  struct root root;
  struct shard_config config;
  struct shard *shard;
  struct random random;
  uint32_t errors_logged;
  char last_error[256];
  uint64_t epoch;
};

void rig_open(struct rig *r, uint64_t region_bytes, uint64_t seed);
/* Two segments, so that transfers are cut. */
void rig_open_config(struct rig *r, uint64_t region_bytes, uint64_t seed, uint32_t works_max);
/* With background work, on what looks like a file or a block device that holds 0xff. */
void rig_open_background(struct rig *r, uint64_t region_bytes, uint64_t seed, bool block_device);
void rig_open_read_only(struct rig *r, uint64_t region_bytes, uint64_t seed);
void rig_close(struct rig *r);

/* An op of the rig's shard, not submitted. */
struct shard_op *rig_op(struct rig *r, uint8_t kind, uint64_t id);
bool rig_done(const struct shard_op *op);
void rig_submit(struct rig *r, struct shard_op *op);
void rig_step(struct rig *r);
/* Steps until it is done; the result. */
int64_t rig_wait(struct rig *r, struct shard_op *op);
int64_t rig_run(struct rig *r, struct shard_op *op); /* submit, wait, free */
void rig_drain(struct rig *r);
/* Seal and a durable root: what was freed becomes free. */
void rig_flush(struct rig *r);

int64_t rig_put(struct rig *r, uint64_t id, const void *buf, uint64_t bytes, uint8_t flags);
int64_t rig_get(struct rig *r, uint64_t id, void *buf, uint64_t offset, uint64_t bytes);
int64_t rig_delete(struct rig *r, uint64_t id);

/* The blob as the index has it now. */
int rig_find(struct rig *r, uint64_t id, struct blob *blob);
/* Memory of the first byte of a region block. */
char *rig_block(struct rig *r, uint64_t block);
/* Block-aligned, filled from the seed. */
char *rig_data(uint64_t bytes, uint64_t seed);

#endif
