/* limit.h - rate limits: token buckets for bytes and for operations, in a tree.
 *
 * A limit is a node: a volume's, above it its group's (tenant), above that the store's. Nodes are
 * the caller's memory and must outlive whatever takes from them.
 *
 * A bucket holds up to `size` tokens, `size` of them come back in every `refill_time_ms`, spread
 * evenly. `one_time_burst` tokens more are there from the start and are spent first; they never
 * come back. These are Firecracker's three parameters with its meanings.
 *
 * Taking is reserving: limit_take() always takes and says from when on the operation may go.
 * So nobody has to ask twice, those who share a node are served in the order in which they asked,
 * from whatever thread, and no small operation overtakes a large one for ever. An operation takes
 * from its volume's node first and from the node above only when its time at the lower one has come
 * (gate.c): what may not go yet holds no tokens that others could use. What is larger than the
 * bucket goes when the bucket is full, and leaves a debt that later ones wait for.
 *
 * Threads: limit_take(), limit_give_back(), limit_is_on(): any, at the same time, lock-free (one
 * 64-bit compare and swap for each bucket). The others: one at a time, beside those. A change of
 * parameters beside takers may count the operations of that instant at the old price.
 *
 * Time: ns of a clock that all takers share, injected. A clock that steps back stands still until
 * it is again where it was. Prices are cut to whole ns and 24 bits: the rate is off by less than
 * 1 ns for each operation. */
#ifndef SHARDS_LIMIT_H
#define SHARDS_LIMIT_H

#include <stdatomic.h>

#include "shards/base/base.h"

struct bucket_params {
  uint64_t size; /* tokens: bytes or operations; 0: no limit (then the other two must be 0) */
  uint64_t one_time_burst; /* tokens */
  uint64_t refill_time_ms; /* in which `size` tokens come back */
};
struct limit_params {
  struct bucket_params bytes, ops;
};
#define LIMIT_SIZE_MAX      (UINT64_C(1) << 60) /* of size and one_time_burst */
#define LIMIT_REFILL_MS_MAX (UINT64_C(1) << 32) /* 49 days */

/* The state of a bucket is the time at which it will be full again. */
struct bucket {
  _Atomic uint64_t full_ns;
  _Atomic uint64_t rate; /* two floats: ns for a token, ns for `size` of them; 0: no limit */
  _Atomic uint64_t burst_left;
  /* Of limit_set() alone. */
  uint64_t burst_used;
  struct bucket_params params;
};
struct limit {
  struct bucket bytes, ops;
  struct limit *parent; /* NULL: none; stays while a queue of a gate uses the node */
  bool shared; /* by volumes that have nothing to do with each other: see gate_queue_hurry() */
};

/* What a user asks for, before anything changes. 0, or -EINVAL: no bucket has a size; a size
 * without refill time; a burst or refill time without size; more than the maxima above. */
int limit_params_check(const struct limit_params *params);
/* params NULL: no limit (for nodes that may get one later). They must have passed the check.
 * Buckets begin full. */
void limit_init(struct limit *l, const struct limit_params *params, struct limit *parent,
                uint64_t now_ns);
/* Live change; NULL: no limit. Tokens and debts stay as they are, cut to the new size, and the part
 * of the one-time burst that was used stays used: a change gives nothing away. A bucket that had no
 * limit before begins full. Who waits in a gate learns of it by gate_limits_changed(). */
void limit_set(struct limit *l, const struct limit_params *params, uint64_t now_ns);
void limit_params_get(const struct limit *l, struct limit_params *params);

/* True if this node, by itself, limits anything now. */
static inline bool limit_is_on(const struct limit *l) {
  return atomic_load_explicit(&l->bytes.rate, memory_order_relaxed) ||
         atomic_load_explicit(&l->ops.rate, memory_order_relaxed);
}
/* Takes one operation of so many bytes (0: counts as operation alone) from this node, not from its
 * parents. Returns the time from which on it may go, at least `at_ns`. at_ns: now; or, of an
 * operation that has waited for tokens and is called late, the time at which it was due, so that
 * late timers do not lower the rate. */
uint64_t limit_take(struct limit *l, uint64_t at_ns, uint64_t bytes);
/* Undoes a take of an operation that will not go, or will take anew. */
void limit_give_back(struct limit *l, uint64_t bytes);

#endif
