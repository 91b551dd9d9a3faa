/* split.h - requests to striped volumes that concern more than one part: cut up on a core, and
 * answered when all pieces are.
 *
 * Each core has a splitter, on its thread. A request comes as OP_SPLIT with struct split_args in
 * op->id and its own kind in op->state; offset and bytes are those of the disk. Pieces are of a
 * fixed number; a request that finds none waits, in order. The first error is the request's; the
 * other pieces are done all the same. */
#ifndef RUNTIME_SPLIT_H
#define RUNTIME_SPLIT_H

#include "runtime/block.h"
#include "runtime/core.h"

struct split_args {
  struct block *block;
  uint32_t iov_count;
  uint32_t unused;
};
_Static_assert(sizeof(struct split_args) == sizeof(struct volume_args), "lies in op->id");

struct split_piece;
struct splitter {
  struct peer peer;
  struct op_chain waiting;             /* the first one may have pieces in flight already */
  struct split_piece *pieces, *unused; /* allocated by the first request */
};
void splitter_init(struct splitter *splitter, struct core *core);
void splitter_finish(struct splitter *splitter);
/* On the core: an OP_SPLIT arrived; it completes by core_complete(). */
void splitter_request(struct splitter *splitter, struct shard_op *op);

/* Fills a request's op for a block: routes it to its part, or to a splitter. offset, bytes, buf,
 * flags and result are set already. Returns the core it is for. */
uint32_t split_route(struct block *block, uint32_t kind, uint32_t iov_count, struct shard_op *op);

#endif
