/* core.h - one pinned thread's worth of the runtime: a device engine, an inbox, and the shards
 * that it hosts.
 *
 * A core is an object with a step function that never blocks; core_thread() is the loop around
 * it. Everything here belongs to the core's thread (or to whoever steps it), except
 * core_post(), core_post_mail() and core_has_room().
 *
 * What travels in mailboxes is a chain of struct shard_op, linked by op->next:
 *   port or core -> core   requests, and calls (OP_CALL: a function to run on the core)
 *   core -> port or core   the same ops, done
 * A chain that comes back to a core has the low bit of its pointer set. */
#ifndef RUNTIME_CORE_H
#define RUNTIME_CORE_H

#include <pthread.h>
#include <stdatomic.h>

#include "runtime/mailbox.h"
#include "runtime/scrub.h"
#include "runtime/service.h"
#include "shards/index_find.h"
#include "shards/shard.h"

struct store;
struct core;
struct port;
struct splitter;

#define CORES_MAX       256u
#define PORTS_MAX       65u                     /* of the caller, and the store's own */
#define PEERS_MAX       (PORTS_MAX + CORES_MAX) /* ports first, then cores */
#define MAILBOX_SLOTS   255u                    /* a ring has one more */
#define CORE_SLOTS      63u                     /* from core to core, who keep what does not fit */
#define LATENCY_BUCKETS 320u

enum core_op_kind {
  OP_FLUSH = 5,  /* the coordinator's, on core 0: flush.h */
  OP_CALL = 64,  /* work: a core_call_fn, which completes the op by core_complete(), at once or
                    later */
  OP_SPLIT = 65, /* the splitter's, on any core: split.h */
  OP_BATCH = OP_CALL | OP_FLUSH, /* the batcher's, on core 0: batch.h */
};

/* Where a finished op goes: op->owner. An application's port has an inbox of its own; whoever
 * lives on a core (its port, its flush requests, the coordinator) shares the core's inbox
 * and number, and is called at the end of the core's step. */
struct peer {
  uint32_t number;     /* in inboxes: a port's, or PORTS_MAX + core */
  struct core *local;  /* the core it lives on, or NULL */
  struct inbox *inbox; /* gets the finished chains */
  int event_fd;        /* wakes its sleeping thread; a core is woken through its device */
  void (*finished)(struct peer *peer, struct shard_op *op); /* local only */
};

typedef void core_call_fn(struct core *core, struct shard_op *op);

struct op_chain {
  struct shard_op *head, *tail;
};
static inline void op_chain_add(struct op_chain *c, struct shard_op *op) {
  op->next = NULL;
  if (c->tail)
    c->tail->next = op;
  else
    c->head = op;
  c->tail = op;
}

/* Ops on their way to another thread: a chain, of which each op also names the one MAILBOX_TOUCHES
 * further on, and the first ones at once in the slot, so that the receiver's cache misses overlap.
 */
struct op_mail {
  struct op_chain chain;
  struct shard_op *behind; /* so many before the next one */
  uint32_t count;
  struct mailbox_slot slot;
};
static inline void op_mail_add(struct op_mail *m, struct shard_op *op) {
  op->ahead = NULL;
  op_chain_add(&m->chain, op);
  if (m->count < MAILBOX_TOUCHES) {
    m->slot.touch[m->count] = &op->next;
  } else if (m->count == MAILBOX_TOUCHES) {
    m->behind = m->chain.head;
    m->behind->ahead = op;
  } else {
    m->behind = m->behind->next;
    m->behind->ahead = op;
  }
  m->count++;
}
/* After it was sent. */
static inline void op_mail_clear(struct op_mail *m) {
  m->chain = (struct op_chain){0};
  for (uint32_t i = 0; i < MAILBOX_TOUCHES && i < m->count; i++) m->slot.touch[i] = NULL;
  m->count = 0;
}
static inline void op_fetch_ahead(const struct shard_op *op) {
  if (op->ahead) mailbox_fetch(&op->ahead->next);
}
/* A chain that has come back: its last op. The other lines are fetched because a request that is
 * back will be filled again. */
static inline struct shard_op *op_fetch_chain(struct shard_op *op) {
  for (;; op = op->next) {
    op_fetch_ahead(op);
    if (op->kind != OP_NOP) {
      mailbox_fetch(&op->io);
      mailbox_fetch(&op->buf);
    }
    if (!op->next) return op;
  }
}

struct hosted {
  struct shard *shard;
  const struct index *index; /* the shard's */
  bool busy;                 /* to be ticked */
};

struct core {
  struct store *store;
  uint32_t index, cpu;
  int numa_node;
  char why_cpu[64];
  struct device *device;
  struct inbox inbox;
  struct hosted *shards; /* by number in the store; shard == NULL: another core's */
  uint32_t shard_count;  /* of the store */
  uint32_t *mine;        /* numbers of the hosted ones */
  uint32_t mine_count;

  struct op_chain incoming;   /* to be started in the next step */
  struct op_chain local_done; /* of the core's own port */
  struct op_mail returns[PEERS_MAX];
  uint16_t touched[PEERS_MAX]; /* peers with something in returns */
  uint32_t touched_count;
  struct op_mail outgoing[CORES_MAX]; /* from the core's own port to other cores */
  uint16_t outgoing_touched[CORES_MAX];
  uint32_t outgoing_touched_count;
  uint32_t busy_count; /* of hosted shards */
  uint32_t latency_turn;
  struct peer self;              /* owner of flush_request */
  struct peer asker;             /* owner of what its shards ask others */
  struct shard_op flush_request; /* for logs that run full */
  bool flush_requested;
  uint64_t poll_window_ns; /* adaptive: how long to poll before sleeping */
  uint64_t yield_ns;       /* idle for so long: yields next */
  uint32_t crowded;        /* so often to sleep without polling */
  struct port *port;       /* the core's own */
  struct core_scrub scrub;
  struct splitter *splitter;
  struct core_services services;

  _Atomic bool dirty;
  _Atomic bool quiet; /* the store is closing: no flushes of its own accord */
  _Atomic bool stop;
  pthread_t thread;
  bool thread_started, ready;
  int status; /* of the start */

  struct {
    uint64_t gets, puts, deletes, block_reads, block_writes, others, read_bytes, write_bytes;
    uint64_t hops_in, batches_in, steps, idle_steps, sleeps, wakes_sent, wakes_received;
    uint64_t latency_ns[LATENCY_BUCKETS];
  } stats;
};

/* Allocates what needs no thread. */
int core_init(struct core *core, struct store *store, uint32_t index);
void core_finish(struct core *core);
/* On the core's thread: engine, registered memory, recovery of the hosted shards. */
int core_start(struct core *core);
/* On the core's thread: once nothing is in flight. */
void core_stop(struct core *core);

/* One turn. True if there was something to do. Never blocks. */
bool core_step(struct core *core);
bool core_idle(const struct core *core);
/* The thread: start, step until stop, sleep when idle. arg: the core. */
void *core_thread(void *arg);

/* op->done of what shards do: for anybody, timed or not; for the core's own, not timed. */
void core_op_done(struct shard_op *op);
void core_own_op_done(struct shard_op *op);
/* Touches what will be needed to start an op of this core; of a get finds the shard: op->work. */
void core_prefetch(const struct core *core, struct shard_op *op);
/* For who polls: yields, and finds out whether somebody else wanted the CPU. */
bool core_cpu_is_wanted(const struct clock *clock);
/* Puts an op of the core's own port among the ops to be started (this core's, or another's). */
void core_enter(struct core *core, struct shard_op *op);
/* An OP_GET from the core's own port, whose op->core is set when it is needed; false, and nothing
 * has happened, if the shard is another core's. */
static inline bool core_enter_get(struct core *core, struct shard_op *op, struct peer *owner) {
  const struct hosted *h = &core->shards[shard_of_hash(op->hash, core->shard_count)];
  if (unlikely(!h->shard)) return false;
  op->owner = owner;
  op->done = core_own_op_done;
  op->work = h->shard; /* for who starts it */
  index_prefetch(h->index, op->hash);
  op_chain_add(&core->incoming, op);
  return true;
}
/* An op of the core's own port, whose op->core is another one: it leaves at the end of the step. */
static inline void core_leave(struct core *core, struct shard_op *op) {
  struct op_mail *mail = &core->outgoing[op->core];
  if (!mail->count) core->outgoing_touched[core->outgoing_touched_count++] = op->core;
  op_mail_add(mail, op);
}
/* op is done: routes it back to its owner. */
void core_complete(struct core *core, struct shard_op *op);
/* The shard has background work: tick it. */
void core_mark_busy(struct core *core, uint32_t shard);
/* From the thread that is `from`: sends a chain of requests to a core. False: mailbox full. */
bool core_post(struct core *core, const struct peer *from, struct shard_op *head);
/* The same of what op_mail_add() has made, which is empty then. */
bool core_post_mail(struct core *core, const struct peer *from, struct op_mail *mail);
bool core_has_room(const struct core *core, const struct peer *from);

uint32_t latency_bucket(uint64_t ns);
uint64_t latency_bucket_end_ns(uint32_t bucket);

#endif
