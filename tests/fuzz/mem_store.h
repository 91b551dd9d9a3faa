/* mem_store.h - a whole store in memory that outlives its closing: two shards, without threads, so
 * that the same calls always do the same. The public calls work on it. */
#ifndef TESTS_FUZZ_MEM_STORE_H
#define TESTS_FUZZ_MEM_STORE_H

#include "api/shardring.h"
#include "shards/damage.h"
#include "shards/device/device.h"
#include "tests/fuzz/fuzz.h"

#define MEM_SHARDS 2u

struct mem_store {
  int fd; /* has no name, in no file system */
  uint64_t blocks;
};
/* A new, empty store; each shard with so many blocks besides its log. */
void mem_store_format(struct mem_store *m, uint64_t shard_blocks);
/* The same bytes once more. */
void mem_store_copy(struct mem_store *m, const struct mem_store *from);
void mem_store_drop(struct mem_store *m);
/* 0 or an error of sr_store_open(). Its time goes on by 10 ms whenever somebody looks at it. */
int mem_store_open(struct mem_store *m, bool read_only, enum damaged_mode damaged,
                   struct sr_store **store);
/* The same, but for the time, upon an engine that knows files: threads do its I/O. */
int mem_store_open_file(struct mem_store *m, bool read_only, struct sr_store **store);

#endif
