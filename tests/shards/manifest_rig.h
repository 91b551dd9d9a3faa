/* manifest_rig.h - a manifest on memory with a model of what it must hold, and a device under the
 * test's control: I/O completes in a random order, what was not flushed may be lost or torn in a
 * crash. The test plays the flush coordinator. */
#ifndef TESTS_MANIFEST_RIG_H
#define TESTS_MANIFEST_RIG_H

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shards/log.h"
#include "shards/manifest.h"
#include "tests/random.h"

#define MRIG_IOS     256u
#define MRIG_IDS     96u
#define MRIG_HISTORY 16384u /* sequences remembered */
#define MRIG_WAITERS 6u
#define MRIG_LOG     256u /* blocks */

/* The disk: `now` is what reads see, `stable` what survives any crash. */
struct mdisk {
  struct device device; /* first: can be cast */
  struct backing *now;
  char *stable, *before; /* before: for comparison */
  uint64_t blocks;
  uint8_t *unstable; /* by block: written, not covered by a flush that has completed */
  uint64_t *written; /* by block: number of its last write */
  uint64_t writes, flushes, fua_writes;
  struct io *held[MRIG_IOS];
  uint64_t held_writes[MRIG_IOS]; /* of a flush: writes when it was submitted */
  uint32_t count;
  struct random random;
  int fail_write_in, fail_flush_in; /* the n-th from now fails; 0: none */
  bool dead;                        /* nothing arrives any more */
};

struct mseal {
  struct manifest_seal seal;
  bool done;
};
struct mwaiter {
  struct manifest_waiter waiter; /* its sequence is a ticket */
  uint64_t sequence;             /* in the log */
  bool done;
  int result;
};
/* What one id holds in the model; version 0: nothing. */
struct mblob {
  uint64_t version;
};
struct mrig {
  struct mdisk disk;
  struct region region;
  struct root root;
  struct manifest_config config;
  struct manifest *m;
  struct random random;
  uint64_t epoch, versions;
  /* The model: digest[s] is the digest of the state before sequence s. */
  struct mblob state[MRIG_IDS];
  uint64_t digest, first_sequence, next_sequence;
  uint64_t *digests;
  struct mblob (*states)[MRIG_IDS];
  uint64_t covered; /* sequences below it must survive */
  uint64_t notes;   /* of data in place, since the open: tickets are sequences and these */
  /* The digest of what else the manifest holds; NULL: nothing. */
  uint64_t (*extra)(struct mrig *r, struct manifest *m);
  /* Of mrig_random_step(). */
  struct mwaiter waiters[MRIG_WAITERS];
  struct mseal seal;
  bool sealing, rooting; /* rooting: sealed, its root is on its way */
  uint64_t seal_sequence, crashes, flushes, agains, spaces;
  char why[256], last_error[256];
};

void mrig_open(struct mrig *r, uint64_t blocks, uint64_t seed);
void mrig_open_log(struct mrig *r, uint64_t blocks, uint64_t log_blocks, uint64_t seed);
void mrig_close(struct mrig *r);

struct blob_id mrig_id(uint32_t n);
uint64_t mrig_hash(const struct mrig *r, struct blob_id id);
/* One step: a tick and some completions. */
void mrig_step(struct mrig *r);
void mrig_drain(struct mrig *r);
/* 0, or what manifest_reserve() or space_alloc() say. */
int mrig_put(struct mrig *r, uint32_t id, uint64_t bytes); /* one in eight without checksums */
int mrig_put_as(struct mrig *r, uint32_t id, uint64_t bytes, uint8_t blob_flags);
/* One of a group that manifest_reserve_group() has made room for; one block. */
void mrig_put_reserved(struct mrig *r, uint32_t id, uint64_t bytes);
int mrig_delete(struct mrig *r, uint32_t id); /* 0 too where there is nothing */
/* What a change besides those has returned, and how it changes the digest. */
void mrig_changed(struct mrig *r, uint64_t ticket, uint64_t delta);
/* The block's write has completed; no flush has covered it. */
void mrig_write(struct mrig *r, uint64_t block, const void *bytes);
/* Waits for it; the waiter's result. */
int mrig_commit(struct mrig *r);
/* A whole flush with its root. */
void mrig_flush(struct mrig *r);
/* One of everything that can happen, by chance: changes, commits, flushes, checkpoints, I/O. */
void mrig_random_step(struct mrig *r);
/* Lets what mrig_random_step() has begun come to its end. */
void mrig_settle(struct mrig *r);
/* Drops the manifest, keeps what a power cut at this moment leaves, recovers from it. */
void mrig_crash(struct mrig *r);
/* manifest_recover() of the disk as it is, with the rig's root. */
int mrig_recover(struct mrig *r, struct manifest **m);
/* The manifest holds what the model held before some sequence in [low, high]: that sequence. */
uint64_t mrig_check(struct mrig *r, struct manifest *m, uint64_t low, uint64_t high);

/* Each block has one owner at most, and all that are not free have one: nothing leaks. */
void mrig_check_space(const struct manifest *m);

void mrig_seal(struct mrig *r, struct mseal *s);
void mrig_wait_seal(struct mrig *r, struct mseal *s);
/* What was sealed is the root that recovery finds from now on. */
void mrig_adopt_root(struct mrig *r, const struct mseal *s);
void mrig_commit_start(struct mrig *r, struct mwaiter *w);
void mrig_note_covered(struct mrig *r, const struct mwaiter *w);
char *mrig_block(struct mrig *r, uint64_t block);

#endif
