/* flush.h - the store-wide flush: merges the shards' manifests into the next root.
 *
 * The coordinator lives on core 0 and is a state machine on its thread:
 *
 *   idle --request, no batch in the gate (batch.h)-->
 *                     sealing    every core seals epoch E in its shards, which write their frames
 *        --all cores--> flushing every core flushes the dirty files, each file once, all files of
 *                                all cores at the same time: the block layer merges flushes that
 *                                overlap. Slices of one device share its one flush.
 *        --all cores--> surviving  if recovery can see by itself that what was flushed counts
 *                                (manifest.h): every core tells its shards, callers complete;
 *                                if others have come meanwhile, and nobody needs a root, none
 *                                is written: the next flush has this epoch again
 *        --all cores--> rooting  root E in its slot, one FUA write, or a write and a flush
 *                                (settings.h); once it is durable a second slot gets it as
 *                                well, for which nobody waits
 *        --durable--> settling   every core tells its shards (freed space moves on)
 *        --all cores--> idle     the other callers complete; those who came meanwhile start anew
 *
 * A failure stops the shards that it concerns, those of a failed frame or on a failed file, and no
 * other: the root goes on to say of them what it said before. The callers get the error. But the
 * first root of an open is not written then: it has a new incarnation, by which frames that it does
 * not name are foreign.
 *
 * Concurrent callers share a flush: who calls while one runs is served by the next. */
#ifndef RUNTIME_FLUSH_H
#define RUNTIME_FLUSH_H

#include "runtime/core.h"

enum flush_state {
  FLUSH_IDLE,
  FLUSH_SEALING,
  FLUSH_FLUSHING,
  FLUSH_SURVIVING,
  FLUSH_ROOTING,
  FLUSH_SETTLING
};

struct flusher;
struct flush_core { /* one core's part */
  struct shard_op op;
  struct flusher *flusher;
  uint32_t pending;
};
struct flush_shard {
  struct manifest_seal seal;
  struct flush_core *core;
};
struct flush_file {
  struct io io;
  struct flush_core *core; /* that flushes it; NULL: it is clean */
};
struct flusher {
  struct peer peer; /* lives on core 0; owns the calls */
  struct store *store;
  enum flush_state state;
  struct op_chain waiting, served;
  struct flush_core *cores;
  struct flush_shard *shards;
  struct flush_file *files; /* [backing_count] */
  struct io root_io, mirror_io;
  bool mirroring;    /* mirror_io runs */
  bool root_waits;   /* for that */
  void *root_buf;    /* one slot, block-aligned, in registered memory if there is some */
  struct root *root; /* the last durable one */
  /* Any thread reads these. What was changed before `started_epoch` is read is in the root after
   * that one, at the latest. */
  _Atomic uint64_t started_epoch; /* of the last flush that began to seal */
  _Atomic uint64_t durable_epoch; /* of the last root that all shards got into */
  struct root *next;
  bool dirty;       /* the running flush has something for a root */
  bool counted;     /* in `flushes` */
  bool skip;        /* and writes none all the same */
  uint32_t skipped; /* so many before it did not either */
  uint32_t pending;
  uint64_t epoch;  /* of the running flush */
  bool force_root; /* write a root even if no shard was dirty: at open */
  int result, root_result;
  uint64_t flushes, shared; /* read by statistics on core 0 */
};

int flusher_init(struct flusher *flusher, struct store *store);
void flusher_finish(struct flusher *flusher);
/* On core 0: an OP_FLUSH arrived (or a batch that wants to be durable); it completes by
 * core_complete(). */
void flusher_request(struct flusher *flusher, struct shard_op *op);
/* Starts a flush if one is wanted, none runs, and no batch is inside the gate. */
void flusher_start(struct flusher *flusher);
/* A batch may enter: no shard is sealing, and no flush waits for those inside to leave. */
bool flusher_gate_open(const struct flusher *flusher);

#endif
