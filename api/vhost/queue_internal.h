/* queue_internal.h - what queue.c and queue_merge.c share: requests in flight, and the run of
 * requests that is being collected. Owned by the core's thread. */
#ifndef API_VHOST_QUEUE_INTERNAL_H
#define API_VHOST_QUEUE_INTERNAL_H

#include "api/vhost/notify.h"
#include "api/vhost/queue.h"
#include "runtime/split.h"

enum {
  PIECES_INLINE = 4, /* of a request's data */
  PIECES_MAX = BLK_SEGMENTS_MAX + 18,
  LARGE_OWN = 4,     /* requests of a queue that can have more than PIECES_INLINE, at any time */
  LARGE_SHARED = 64, /* more of them, of all queues of a core */
};

struct request {
  struct shard_op op;
  uint8_t *status;
  struct large *large;
  struct request *follower; /* whose data the op of the run's first one moves, too */
  uint64_t offset;          /* of the disk: op has that of its part */
  uint64_t taken_ns;        /* 0: not timed */
  uint32_t used_bytes;
  uint32_t bytes; /* that it is to move */
  uint16_t head;
  uint16_t pieces;
  uint16_t vector;     /* of how many pieces the op's is; 0: it has none */
  uint8_t kind, flags; /* of the op */
  bool busy;
  struct iovec iov[PIECES_INLINE];
};
struct large {
  struct large *next; /* free */
  bool shared;
  struct iovec iov[PIECES_MAX];
};

struct queue_slots {
  struct queue *queue;
  struct large *free;
  struct large own[LARGE_OWN];
  struct request requests[]; /* by head */
};

/* The request that was taken last and those before it that it continues: not entered yet. Between
 * two queues there is none. */
#define RUN_NOWHERE UINT64_MAX
struct run {
  struct request *first; /* NULL: none */
  struct request *last;  /* if it has followers */
  uint64_t end;          /* who begins there may continue it */
};

struct vhost_core {
  struct core_service service;
  struct peer peer; /* owner of the ops */
  struct core *core;
  struct queue *active, *dirty;
  struct large *free;
  struct run run;
  struct notifier notifier;
  uint64_t now_ns, poll_ns;
  uint32_t running;
  uint32_t handled;                 /* requests taken or given back in this step */
  struct iovec scratch[PIECES_MAX]; /* of the chain that is being parsed */
  struct large shared[LARGE_SHARED];
};

static inline struct large *large_get(struct queue *q) {
  struct large **from = q->slots->free ? &q->slots->free : &q->home->free, *l = *from;
  if (l) *from = l->next;
  return l;
}

static inline void large_put(struct queue *q, struct large *l) {
  struct large **to = l->shared ? &q->home->free : &q->slots->free;
  l->next = *to;
  *to = l;
}

/* A request's op, of its own data alone. */
static inline void request_fill(struct queue *q, struct request *r) {
  struct shard_op *op = &r->op;
  r->vector = r->pieces > 1 ? r->pieces : 0; /* one is none */
  op->buf = r->vector ? (r->large ? r->large->iov : r->iov) : r->iov[0].iov_base;
  op->offset = r->offset;
  op->bytes = r->bytes;
  op->size = 0;
  op->flags = r->flags;
  op->owner = &q->home->peer;
}
static inline void request_enter(struct queue *q, struct request *r) {
  r->op.core = (uint8_t)split_route(q->block, r->kind, r->vector, &r->op);
  core_enter(q->core, &r->op);
}

/* What was collected goes. */
static inline void run_end(struct queue *q) {
  struct run *run = &q->home->run;
  if (!run->first) return;
  request_enter(q, run->first);
  run->first = NULL;
  run->end = RUN_NOWHERE;
}
/* It begins where the run ends. False: it cannot go with it. */
bool run_extend(struct queue *q, struct request *r);
/* The next request that was taken: filled, busy and counted. */
static inline void run_add(struct queue *q, struct request *r) {
  struct run *run = &q->home->run;
  if (unlikely(r->offset == run->end) && run_extend(q, r)) return;
  struct request *before = run->first;
  request_fill(q, r);
  run->first = r;
  run->end = r->offset + r->bytes;
  if (likely(before)) request_enter(q, before);
}

/* Of a run whose op is done, by its first request: all went well. */
bool run_is_good(const struct request *first);
/* It did not: each goes again, on its own. */
void run_undo(struct queue *q, struct request *first);

#endif
