/* gate.c - see gate.h.
 *
 * A queue in which ops wait is in exactly one of two heaps:
 *   times  its head waits for tokens; key: due_ns
 *   turns  its head has taken all tokens and waits for the window; key: tag
 * Both are skew heaps (Sleator and Tarjan): two links in the queue, no memory of their own.
 *
 * Start-time fair queueing (Goyal, Vin, Cheng): an op's start tag is the later of its queue's
 * finish tag and the virtual time, which is the start tag of what started last; its finish tag is
 * its cost later. The smallest start tag goes first. So queues that always wait get the same share
 * of cost, and one that was away comes back at the virtual time, before all others, with no credit
 * for its absence. */
#include "shards/gate.h"

#include <string.h>

enum { DEPTH_DEFAULT = 256, ALONE_UNITS_MAX = 1 << 20 };
enum state { IDLE = 0, IN_TIMES, IN_TURNS };
/* So long after another volume's op a volume counts as sharing the device. */
#define SHARED_NS UINT64_C(1000000000)
/* A head that is called late takes its tokens as of when it was due, but not more than this ago. */
#define LATE_NS UINT64_C(5000000)
/* GATE_HURRY_SOME */
#define AHEAD_NS        UINT64_C(30000000000)
#define AHEAD_SHARED_NS UINT64_C(1000000000)

/* ---- Waits, as they are told ------------------------------------------------------------------
 */

#define COUNT(field, n) __atomic_store_n(&(field), (field) + (n), __ATOMIC_RELAXED)

/* All ops of a queue whose head waits for tokens wait at the limit. */
static void count_waits(struct gate *g, struct gate_queue *q) {
  uint32_t more = q->waiting - q->counted;
  q->counted = q->waiting;
  g->waits_limit += more;
  COUNT(q->limit_waits, more);
}

static void count_wait_time(const struct gate *g, struct gate_queue *q) {
  COUNT(q->limit_wait_ns, q->waiting * (g->now_ns - q->since_ns));
  q->since_ns = g->now_ns;
}

/* ---- Heaps ---------------------------------------------------------------------------------- */

static bool goes_first(const struct gate_queue *a, const struct gate_queue *b, enum state heap) {
  return heap == IN_TIMES ? a->due_ns < b->due_ns : a->tag < b->tag;
}

static struct gate_queue *merge(struct gate_queue *a, struct gate_queue *b, enum state heap) {
  struct gate_queue *root = NULL, **at = &root;
  while (a && b) {
    if (goes_first(b, a, heap)) {
      struct gate_queue *swap = a;
      a = b;
      b = swap;
    }
    struct gate_queue *rest = a->right;
    a->right = a->left;
    *at = a;
    at = &a->left;
    a = rest;
  }
  *at = a ? a : b;
  return root;
}

static struct gate_queue **heap_of(struct gate *g, enum state heap) {
  return heap == IN_TIMES ? &g->times : &g->turns;
}

static void heap_push(struct gate *g, struct gate_queue *q, enum state heap) {
  struct gate_queue **root = heap_of(g, heap);
  check(q->state == IDLE);
  if (heap == IN_TIMES) {
    count_waits(g, q);
    q->since_ns = g->now_ns;
  }
  q->left = q->right = NULL;
  q->state = (uint8_t)heap;
  *root = merge(*root, q, heap);
}

static struct gate_queue *heap_pop(struct gate *g, enum state heap) {
  struct gate_queue **root = heap_of(g, heap), *q = *root;
  if (heap == IN_TIMES) count_wait_time(g, q);
  *root = merge(q->left, q->right, heap);
  q->state = IDLE;
  return q;
}

/* Takes every queue out and puts back all but one: for rare control calls. */
static void heap_remove(struct gate *g, struct gate_queue *q) {
  enum state heap = q->state;
  if (heap == IDLE) return;
  struct gate_queue *others = NULL;
  struct gate_queue *root;
  while ((root = *heap_of(g, heap)) != q) {
    heap_pop(g, heap);
    root->left = others;
    others = root;
  }
  heap_pop(g, heap);
  while (others) {
    root = others;
    others = root->left;
    heap_push(g, root, heap);
  }
}

/* ---- Ops of a queue ------------------------------------------------------------------------- */

static void ops_push(struct gate *g, struct gate_queue *q, struct shard_op *op) {
  if (q->last) {
    op->next = q->last->next;
    q->last->next = op;
  } else {
    op->next = op;
  }
  q->last = op;
  q->waiting++;
  g->waiting++;
}

static struct shard_op *ops_head(const struct gate_queue *q) { return q->last->next; }

static struct shard_op *ops_pop(struct gate *g, struct gate_queue *q) {
  struct shard_op *op = ops_head(q);
  if (op == q->last)
    q->last = NULL;
  else
    q->last->next = op->next;
  q->waiting--;
  if (q->counted) q->counted--; /* the first ones are */
  g->waiting--;
  return op;
}

/* ---- Tokens --------------------------------------------------------------------------------- */

/* The bit in q->excused. */
static uint8_t bit_of(const struct gate_queue *q, const struct limit *l) {
  uint8_t bit = 1;
  for (const struct limit *p = q->limit; p != l; p = p->parent) bit = (uint8_t)(bit << 1);
  return bit;
}

/* When an op may go that has taken its tokens, which are there at due_ns. */
static uint64_t hurried(const struct gate *g, struct gate_queue *q, struct limit *l,
                        uint64_t due_ns, uint64_t bytes) {
  uint64_t ahead_ns = l->shared ? AHEAD_SHARED_NS : AHEAD_NS;
  if (likely(!q->hurry) || due_ns <= g->now_ns) return due_ns;
  if (due_ns - g->now_ns <= ahead_ns) return g->now_ns;
  if (q->hurry != GATE_HURRY_ALL) return due_ns - ahead_ns;
  if (l->shared) { /* others are not to pay for it */
    limit_give_back(l, bytes);
    q->excused |= bit_of(q, l);
  }
  return g->now_ns;
}

/* Of the head: it has taken nothing. */
static void begin_to_pay(struct gate_queue *q) {
  q->unpaid = q->limit;
  q->excused = 0;
}

/* Lets an op take at the limits one after the other, as far as its time has come. True: at all of
 * them. */
static bool pay(const struct gate *g, struct gate_queue *q, const struct shard_op *op) {
  uint64_t bytes = gate_bytes(op);
  while (q->due_ns <= g->now_ns && q->unpaid) {
    struct limit *l = q->unpaid;
    uint64_t late_ns = g->now_ns > LATE_NS ? g->now_ns - LATE_NS : 0;
    q->unpaid = l->parent;
    if (limit_is_on(l))
      q->due_ns = hurried(g, q, l, limit_take(l, max_u64(q->due_ns, late_ns), bytes), bytes);
  }
  return q->due_ns <= g->now_ns;
}

/* Gives back what the head took and lets it begin anew. */
static void unpay(struct gate *g, struct gate_queue *q) {
  if (!q->last) return;
  for (struct limit *l = q->limit; l != q->unpaid; l = l->parent)
    if (limit_is_on(l) && !(q->excused & bit_of(q, l))) limit_give_back(l, gate_bytes(ops_head(q)));
  q->due_ns = g->now_ns;
  begin_to_pay(q);
}

/* A queue with a head that has not taken all its tokens: into the heap where it belongs. */
static void place(struct gate *g, struct gate_queue *q) {
  if (!pay(g, q, ops_head(q))) {
    heap_push(g, q, IN_TIMES);
    return;
  }
  q->tag = max_u64(q->tag, g->tag);
  heap_push(g, q, IN_TURNS);
}

/* ---- Turns ---------------------------------------------------------------------------------- */

static void see_time(struct gate *g, uint64_t now_ns) { g->now_ns = max_u64(g->now_ns, now_ns); }

/* A queue has an op that comes or starts: is it alone? */
static void see_queue(struct gate *g, struct gate_queue *q) {
  bool mixed = g->mixed_ns && g->now_ns - g->mixed_ns <= SHARED_NS;
  if (q == g->recent || !g->recent) {
    g->recent = q;
    if (!mixed) g->alone = q;
    return;
  }
  if (g->alone) window_begin(&g->window, g->now_ns);
  g->alone = NULL;
  g->recent = q;
  g->mixed_ns = max_u64(g->now_ns, 1);
}

/* behind: the queue has had less than its share so far. */
static bool may_start(const struct gate *g, uint32_t cost, bool behind) {
  if (!g->in_flight) return true;
  if (g->in_flight >= g->depth_max) return false;
  if (g->alone) return true;
  uint32_t units = window_units(&g->window);
  if (behind) units += units / 2 > WINDOW_COST_4K ? units / 2 : WINDOW_COST_4K;
  return g->in_flight_units + cost <= units;
}

static void start(struct gate *g, struct gate_queue *q, const struct shard_op *op) {
  uint32_t cost = window_cost(gate_bytes(op));
  g->tag = max_u64(g->tag, q->tag);
  q->tag = g->tag + cost;
  g->in_flight++;
  g->in_flight_units += cost;
  q->in_flight++;
}

bool gate_submit_shared(struct gate *g, struct gate_queue *q, struct shard_op *op,
                        uint64_t now_ns) {
  see_time(g, now_ns);
  see_queue(g, q);
  if (q->last) {
    bool limited = q->state == IN_TIMES;
    if (limited) count_wait_time(g, q);
    ops_push(g, q, op);
    if (limited)
      count_waits(g, q);
    else
      g->waits_turn++;
    return false;
  }
  q->due_ns = g->now_ns;
  begin_to_pay(q);
  if (!pay(g, q, op)) {
    ops_push(g, q, op);
    heap_push(g, q, IN_TIMES);
    return false;
  }
  bool behind = q->tag < g->tag, first = !g->turns || g->turns->tag > max_u64(q->tag, g->tag);
  if (first && may_start(g, window_cost(gate_bytes(op)), behind)) {
    start(g, q, op);
    return true;
  }
  g->waits_turn++;
  q->tag = max_u64(q->tag, g->tag);
  ops_push(g, q, op);
  heap_push(g, q, IN_TURNS);
  return false;
}

struct shard_op *gate_next_waiting(struct gate *g, uint64_t now_ns) {
  see_time(g, now_ns);
  while (g->times && g->times->due_ns <= g->now_ns) place(g, heap_pop(g, IN_TIMES));
  struct gate_queue *q = g->turns;
  if (!q || !may_start(g, window_cost(gate_bytes(ops_head(q))), false)) return NULL;
  see_queue(g, q);
  heap_pop(g, IN_TURNS);
  struct shard_op *op = ops_pop(g, q);
  start(g, q, op);
  if (q->last) {
    begin_to_pay(q);
    place(g, q);
  }
  return op;
}

/* Reads and writes of up to 8, 32, 256 KiB, and more. */
static unsigned class_of(const struct shard_op *op) {
  unsigned size = op->bytes <= 8192 ? 0 : op->bytes <= 32768 ? 1 : op->bytes <= 262144 ? 2 : 3;
  return size + (op->kind == OP_WRITE ? 4 : 0);
}

void gate_done_shared(struct gate *g, const struct shard_op *op, uint64_t latency_ns,
                      uint64_t now_ns) {
  see_time(g, now_ns);
  if (op->kind != OP_READ && op->kind != OP_WRITE) latency_ns = 0;
  window_sample(&g->window, class_of(op), window_cost(gate_bytes(op)), latency_ns, g->now_ns,
                g->in_flight_units, g->turns);
}

/* ---- Control -------------------------------------------------------------------------------- */

void gate_init(struct gate *g, uint32_t depth_max) {
  memset(g, 0, sizeof(*g));
  g->depth_max = depth_max ? depth_max : DEPTH_DEFAULT;
  window_init(&g->window, ALONE_UNITS_MAX);
}

void gate_queue_finish(struct gate *g, struct gate_queue *q) {
  check(gate_queue_is_idle(q));
  check(q->state == IDLE);
  if (g->recent == q) g->recent = NULL;
  if (g->alone == q) g->alone = NULL;
}

void gate_queue_set_limit(struct gate *g, struct gate_queue *q, struct limit *limit,
                          uint64_t now_ns) {
  see_time(g, now_ns);
  heap_remove(g, q);
  unpay(g, q);
  q->limit = limit;
  begin_to_pay(q);
  if (q->last) place(g, q);
}

void gate_limits_changed(struct gate *g, uint64_t now_ns) {
  see_time(g, now_ns);
  struct gate_queue *queues = NULL, **end = &queues, *q;
  while (g->times) { /* in their order */
    q = heap_pop(g, IN_TIMES);
    q->left = NULL;
    *end = q;
    end = &q->left;
    unpay(g, q);
  }
  while ((q = queues)) {
    queues = q->left;
    place(g, q);
  }
}

void gate_queue_hurry(struct gate *g, struct gate_queue *q, enum gate_hurry hurry,
                      uint64_t now_ns) {
  see_time(g, now_ns);
  q->hurry = (uint8_t)hurry;
  if (!hurry || q->state != IN_TIMES) return;
  heap_remove(g, q);
  unpay(g, q); /* anew, so that nobody gets ahead step by step */
  place(g, q);
}

struct shard_op *gate_queue_cancel(struct gate *g, struct gate_queue *q) {
  struct shard_op *first = NULL, **end = &first;
  heap_remove(g, q);
  unpay(g, q);
  while (q->last) {
    *end = ops_pop(g, q);
    end = &(*end)->next;
  }
  *end = NULL;
  return first;
}

void gate_stats(const struct gate *g, struct gate_stats *stats) {
  *stats = (struct gate_stats){
      .waits_limit = g->waits_limit,
      .waits_turn = g->waits_turn,
      .window_units = window_units(&g->window),
      .in_flight_units = g->in_flight_units,
      .in_flight = g->in_flight,
      .shared = !g->alone && g->recent,
  };
}
