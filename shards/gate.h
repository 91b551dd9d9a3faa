/* gate.h - when an operation of a volume may start: rate limits, and fairness between the volumes
 * of one shard.
 *
 * One struct gate for each shard, one struct gate_queue inside each volume. Owned by the shard's
 * thread; no I/O, no clock of its own, no allocation. What it does:
 *
 *   limits    the head of a queue takes tokens from the volume's limit, then from its parents (see
 *             limit.h), and waits for its time at each. Nobody else waits for it.
 *   fairness  heads that have their tokens start in the order of start-time fair queueing: each
 *             volume gets the same share of cost (window_cost()), and one that has used less than
 *             its share goes first. While one volume alone is active there is no bound but
 *             depth_max. As soon as a second one has ops (and for a second after), the amount in
 *             flight is bounded by the window (window.h), so that the newcomer's op meets a device
 *             that is busy but has no long queue.
 *
 * Ops of one queue start in the order of submission.
 *
 *   gate_submit() ---- true: start it now -------------------------------> started
 *        |  false: it waits                                                  ^   |
 *        v                            gate_next(), in a loop                 |   v
 *   [waits for tokens] --its time--> [waits for its turn] ------------------+  gate_done()
 *
 * Call gate_next() until it returns NULL: after gate_done() (once for a batch of them), and when
 * gate_wake_ns() has come. The time may be one reading for a whole step of the core. It may stand
 * still; if it steps back it counts as standing still. */
#ifndef SHARDS_GATE_H
#define SHARDS_GATE_H

#include "shards/limit.h"
#include "shards/shard.h"
#include "shards/window.h"

/* All zeros is a queue without a limit. Small; idle ones are in no list. */
struct gate_queue {
  struct shard_op *last;           /* the ops that wait, a ring by ->next; NULL: none */
  struct limit *limit;             /* NULL: unlimited; else the first one to ask */
  struct limit *unpaid;            /* of the head: the next one to ask, NULL: all have been */
  uint64_t due_ns;                 /* of the head: its time at the limits so far */
  uint64_t tag;                    /* start-time fair queueing: the finish of what has started */
  struct gate_queue *left, *right; /* of the heap it is in */
  uint32_t in_flight;              /* ops started, not done */
  uint32_t waiting;                /* ops in the ring; */
  uint32_t counted;                /* so many of them, the first ones, are in limit_waits */
  uint8_t state;                   /* gate.c */
  uint8_t hurry;                   /* enum gate_hurry */
  uint8_t excused;                 /* of the head: limits that it has not taken from after all */
  /* Read by any thread: gate_queue_waits(). */
  uint64_t limit_waits, limit_wait_ns;
  uint64_t since_ns; /* limit_wait_ns counts up to here */
};
_Static_assert(sizeof(struct gate_queue) <= 96, "volumes are many");

struct gate_stats {
  uint64_t waits_limit; /* ops that waited for tokens */
  uint64_t waits_turn;  /* ops that waited for the window */
  uint32_t window_units, in_flight_units, in_flight;
  bool shared;
};

struct gate {
  struct gate_queue *alone; /* the only active queue; NULL: several, or nobody yet */
  uint32_t in_flight, depth_max;
  uint32_t in_flight_units;
  uint32_t waiting;         /* ops in queues */
  uint64_t tag;             /* virtual time: the start tag of what started last */
  struct gate_queue *turns; /* heap by tag: queues whose head has its tokens */
  struct gate_queue *times; /* heap by due_ns: queues whose head waits for tokens */
  struct gate_queue *recent;
  uint64_t mixed_ns; /* when an op last came from another queue than the one before; 0: never */
  uint64_t now_ns;   /* the latest that was seen */
  uint64_t waits_limit, waits_turn;
  struct window window;
};

/* depth_max: ops in flight at most; 0: 256. */
void gate_init(struct gate *g, uint32_t depth_max);

/* Nothing waits or is in flight: gate_queue_is_idle(). The queue may go away then. */
void gate_queue_finish(struct gate *g, struct gate_queue *q);
static inline bool gate_queue_is_idle(const struct gate_queue *q) {
  return !q->last && !q->in_flight;
}
/* Ops of the queue that waited at a limit, for tokens of their own or behind one that did, and how
 * long they did in all (as far as the gate has looked; what they then wait for their turn is not
 * in it). One that is cancelled and submitted again counts twice. Any thread; neither goes back. */
static inline void gate_queue_waits(const struct gate_queue *q, uint64_t *waits, uint64_t *ns) {
  *waits = __atomic_load_n(&q->limit_waits, __ATOMIC_RELAXED);
  *ns = __atomic_load_n(&q->limit_wait_ns, __ATOMIC_RELAXED);
}
/* Another limit, or NULL. On return the old one is not in use by this queue any more. */
void gate_queue_set_limit(struct gate *g, struct gate_queue *q, struct limit *limit,
                          uint64_t now_ns);
/* Parameters of a limit have changed (limit_set(), or its parent): who waits for tokens takes anew.
 * gate_next() and gate_wake_ns() are to be asked then. To be called in every shard whose volumes
 * use it. */
void gate_limits_changed(struct gate *g, uint64_t now_ns);
/* Until the next call: whether ops of the queue, also those that wait, may start before they have
 * their tokens. They take them all the same, and what is missing is a debt that later ones wait
 * for: so the limit stays right on average. For their turn they wait as ever. SOME  as much as
 * comes back in 30 s; at limits that are shared with others, in 1 s. Whoever is limited may have a
 * hand in it: it makes him no faster, and others hardly slower ALL   without bounds: for what
 * happens because its owner wants it. At shared limits the debt is bounded all the same: what is
 * more than 1 s ahead goes, and takes nothing there */
enum gate_hurry { GATE_HURRY_NONE = 0, GATE_HURRY_SOME, GATE_HURRY_ALL };
void gate_queue_hurry(struct gate *g, struct gate_queue *q, enum gate_hurry hurry, uint64_t now_ns);
/* Takes all ops that wait out of the queue: a list by ->next in their order, NULL: none. */
struct shard_op *gate_queue_cancel(struct gate *g, struct gate_queue *q);

/* What counts: the bytes of reads and writes; other kinds are operations without bytes. kind and
 * bytes must be the same at gate_submit() and gate_done(). */
static inline uint64_t gate_bytes(const struct shard_op *op) {
  return op->kind == OP_READ || op->kind == OP_WRITE ? op->bytes : 0;
}

/* Slow paths of the below. */
bool gate_submit_shared(struct gate *g, struct gate_queue *q, struct shard_op *op, uint64_t now_ns);
struct shard_op *gate_next_waiting(struct gate *g, uint64_t now_ns);
void gate_done_shared(struct gate *g, const struct shard_op *op, uint64_t latency_ns,
                      uint64_t now_ns);

/* True: start the op now, it counts as in flight. False: it waits, op->next is the gate's until
 * gate_next() returns it. */
static inline bool gate_submit(struct gate *g, struct gate_queue *q, struct shard_op *op,
                               uint64_t now_ns) {
  if (likely(g->alone == q) && likely(!q->limit) && likely(!q->last) &&
      likely(g->in_flight < g->depth_max)) {
    uint32_t cost = window_cost(gate_bytes(op));
    g->tag = max_u64(g->tag, q->tag);
    q->tag = g->tag + cost;
    g->in_flight++;
    g->in_flight_units += cost;
    q->in_flight++;
    return true;
  }
  return gate_submit_shared(g, q, op, now_ns);
}

/* The next op to start, which then counts as in flight; NULL: none may start now. */
static inline struct shard_op *gate_next(struct gate *g, uint64_t now_ns) {
  return likely(!g->waiting) ? NULL : gate_next_waiting(g, now_ns);
}

/* True if gate_done() wants to know the latency now. An op's start has to be noted while it is. */
static inline bool gate_measures(const struct gate *g) { return !g->alone; }

/* An op that started has completed; before its memory goes back to its owner. latency_ns: from its
 * start to its completion; 0 if it was not measured or if no device was asked (holes). */
static inline void gate_done(struct gate *g, struct gate_queue *q, const struct shard_op *op,
                             uint64_t latency_ns, uint64_t now_ns) {
  g->in_flight--;
  g->in_flight_units -= window_cost(gate_bytes(op));
  q->in_flight--;
  if (unlikely(!g->alone)) gate_done_shared(g, op, latency_ns, now_ns);
}

/* When to call gate_next() if no op completes before; UINT64_MAX: never. */
static inline uint64_t gate_wake_ns(const struct gate *g) {
  return g->times ? g->times->due_ns : UINT64_MAX;
}

void gate_stats(const struct gate *g, struct gate_stats *stats);

#endif
