/* batch.h - atomic batches: puts and deletes over any shards, all or nothing.
 *
 * The batcher lives on core 0, beside the flush coordinator. A batch is a state machine there:
 *
 *   PREPARE   every put goes to its core: space is taken, the data are written; nothing shows
 *   (gate)    waits until no store-wide flush is sealing
 *   RESERVE   each shard makes sure that its changes cannot fail any more
 *   APPLY     each shard makes its changes, in one go and in memory alone; leaves the gate
 *   done      a durable batch joins the next flush first
 *
 *   no room in a log: UNRESERVE, leave the gate, ROOM: a flush (later: a checkpoint, too), then the
 *   gate again, alone and before all others. After TRIES -ENOSPC. One batch at a time does so,
 *   others that found no room wait for it, and the shards concerned start no other changes.
 *
 *   any other failure: UNRESERVE, CANCEL (space is given back), done
 *
 * The gate. Between the first reservation and the last change of a batch no flush seals, and while
 * one seals no batch is in between: so a root has all of a batch or nothing. A flush that waits for
 * the gate lets no further batch in, one that has sealed lets all in that wait: nobody starves.
 * That a crash cannot tear what no root names yet, and what a shard does that fails meanwhile, is
 * said in manifest.h (manifest_note_batch(), struct manifest_seal).
 *
 * Order. Changes leave core 0 in the order in which batches come to APPLY, and mailboxes keep it:
 * two batches take effect in one order on all shards.
 *
 * Memory. All state lies in the ops: the batch's in its op->io, a part's in its own. */
#ifndef RUNTIME_BATCH_H
#define RUNTIME_BATCH_H

#include "runtime/core.h"

#define BATCH_PARTS_MAX 1024u

/* An OP_BATCH comes with
 *   buf    its parts, linked by op->next: OP_PUT or OP_DELETE, filled as for a shard, op->core set
 *   bytes  how many
 *   work   a batch_part_fn, called on core 0 for each part when its result is final, before the
 *          batch completes; or NULL */
typedef void batch_part_fn(struct shard_op *part);

struct batcher {
  struct peer peer; /* lives on core 0; owns the parts, and batches that wait for a flush */
  struct store *store;
  struct op_chain waiting;  /* for the gate */
  struct shard_op **groups; /* [shard_count], of one call: the last part so far in each shard */
  uint32_t inside;          /* the gate */
  bool alone;               /* the one inside wants no other there */
  bool making_room;         /* one of them is in ROOM: none goes in before it */
  uint32_t active;          /* not completed */
  uint64_t batches, failed, retries; /* read by statistics on core 0 */
};

int batcher_init(struct batcher *b, struct store *store);
void batcher_finish(struct batcher *b);
/* On core 0: an OP_BATCH arrived; it completes by core_complete(). */
void batcher_request(struct batcher *b, struct shard_op *op);
/* On core 0: something else than a batch wants to be inside the gate: op completes once it is, with
 * its owner; then batcher_leave(). Whoever is inside must not wait for a flush. */
void batcher_enter(struct batcher *b, struct shard_op *op);
void batcher_leave(struct batcher *b);
/* On core 0: a flush has sealed. */
void batcher_admit(struct batcher *b);

#endif
