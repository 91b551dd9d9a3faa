/* queue_merge.c - adjacent requests of a guest become one: of those that are taken in one go,
 * reads, or writes of one kind, each of which begins where the one before it ends. Owned by the
 * core's thread.
 *
 * Only the first request's op is entered; its vector has the pieces of all, and their number is
 * bounded by what one device I/O takes. The others follow it in a list, and are answered with it,
 * each by its own status byte and used entry. A vector needs a `large`; where there is none left
 * nothing is merged, so nobody waits for one.
 *
 * If it fails, nobody is answered: each of them is done again on its own, so that the one block
 * that cannot be read or written costs the request that wanted it, and no other. What a write has
 * done already is done once more, which nobody can tell. */
#include <string.h>

#include "api/vhost/queue_internal.h"

enum {
  RUN_BYTES_MAX = 128 << 10,
  RUN_PIECES_MAX = 64,
};

/* A run stays in one part of a striped disk. */
static uint64_t bytes_most(const struct queue *q, const struct request *first) {
  uint64_t in, row;
  block_route(q->block, first->offset, &in, &row);
  return min_u64(RUN_BYTES_MAX, row);
}

bool run_extend(struct queue *q, struct request *r) {
  struct run *run = &q->home->run;
  struct request *first = run->first;
  uint32_t pieces = (first->follower ? first->vector : first->pieces) + r->pieces;
  if (r->kind != first->kind || r->flags != first->flags) return false;
  if (!r->pieces || r->pieces > PIECES_INLINE || first->pieces > PIECES_INLINE) return false;
  if (pieces > RUN_PIECES_MAX) return false;
  if (r->offset + r->bytes - first->offset > bytes_most(q, first)) return false;
  if (!first->follower) {
    first->large = large_get(q);
    if (!first->large) return false;
    memcpy(first->large->iov, first->iov, first->pieces * sizeof first->iov[0]);
    first->op.buf = first->large->iov;
    run->last = first;
  }
  memcpy(first->large->iov + pieces - r->pieces, r->iov, r->pieces * sizeof r->iov[0]);
  first->vector = (uint16_t)pieces;
  first->op.bytes += r->bytes;
  run->last->follower = r;
  run->last = r;
  run->end = r->offset + r->bytes;
  return true;
}

bool run_is_good(const struct request *first) {
  int64_t bytes = 0;
  for (const struct request *r = first; r; r = r->follower) bytes += r->bytes;
  return first->op.result == bytes;
}

void run_undo(struct queue *q, struct request *first) {
  large_put(q, first->large);
  first->large = NULL;
  for (struct request *r = first, *next; r; r = next) {
    next = r->follower;
    r->follower = NULL;
    request_fill(q, r);
    request_enter(q, r);
  }
}
