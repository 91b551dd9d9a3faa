/* bench_verify.h - what the files of --workload=verify share.
 *
 *   bench_verify.c     rounds: run, check everything, open again, check everything; and what is
 * done to volumes beside requests: snapshots, clones, removal, rolling back bench_verify_io.c
 * threads with requests in flight, and the model of what volumes hold
 *
 * The model has a token for each sector of 512 bytes: the generation that was written there, or
 * that it was zeroed. Generations come from one counter, so no two writes of a run are alike. A
 * sector that holds data says its own number, its generation and the seed.
 *
 * No two requests in flight touch one sector, but for races: two writes of one block of 4 KiB at
 * the same time, of which one must be there whole afterwards. Sectors of one block are in flight
 * beside each other all the time. A snapshot is taken under load: what was in flight then may be in
 * it or not; it is read at once, and from then on must stay so. */
#ifndef TOOLS_BENCH_VERIFY_H
#define TOOLS_BENCH_VERIFY_H

#include "tools/bench.h"

#include <pthread.h>
#include <stdatomic.h>

#define VSECTOR      512u
#define VIO_SECTORS  256u /* longest read or write */
#define VDISKS_LIVE  8u
#define VDISKS_SNAPS 8u
#define VZEROS       1u /* the lowest bit of a token; the rest is the generation */

struct vdisk {
  pthread_mutex_t lock; /* of all that follows, while threads run */
  bool used, open;      /* open: threads may take it */
  bool snapshot;
  int parent; /* the snapshot on which it was seen to lie; -1: unknown */
  uint32_t align, in_flight;
  uint64_t sectors;
  struct sr_block *block;
  uint32_t *done, *sent; /* tokens: what has completed, what was submitted */
  uint64_t *busy;        /* a bit for each sector */
  char name[32];
};

struct verify {
  struct bench *b;
  struct vdisk disks[VDISKS_LIVE + VDISKS_SNAPS]; /* snapshots behind the others */
  uint64_t volume_sectors, random, seed;
  uint32_t names; /* ever given */
  atomic_uint generation;
  atomic_bool stop;
  atomic_int error;
  _Atomic uint64_t ops, reads, writes, zeroes, discards, syncs, races;
  uint64_t ops_max; /* 0: by time */
  uint64_t snapshots, clones, removals, rollbacks, flattens, flushes, checks, reopens;
};

/* Sets the first error, and stops. */
void verify_fail(struct verify *v, int error);
uint64_t verify_random(uint64_t *state, uint64_t below);

/* The threads' whole life: until v->stop. 0, or an error after a message. */
int verify_io_run(struct verify *v, uint32_t threads, uint64_t duration_ns,
                  void (*step)(struct verify *v));
/* What was going on while a snapshot was taken: `sent` before and after. */
struct vload {
  uint32_t *before, *after;
};
/* Reads all of a disk that nothing writes to and compares it with `done`. load (may be NULL): what
 * was in flight may be there or not, and `done` becomes what is there. 0, or an error after a
 * message. */
int verify_disk(struct verify *v, struct vdisk *d, const struct vload *load);

#endif
