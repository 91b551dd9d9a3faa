/* queue.c - see queue.h.
 *
 * A request's way: take (ring.c) -> parse (blk.c) -> a volume op in one of the core's request
 * slots, perhaps for those that follow as well (queue_merge.c), through core_enter() like any other
 * op of the core -> request_done() -> status byte, ring_put() -> at the end of the core's step
 * ring_publish() and perhaps one notification.
 *
 * Each head of a ring has a slot of its own, so a slow disk takes nothing from others. Requests of
 * many pieces need room for them besides: a few of a queue always have it, more if the core's store
 * has some left; else the queue waits until one of its own is done. */
#include "api/vhost/queue.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/vhost/queue_internal.h"
#include "runtime/store.h"

enum {
  TAKE_AT_ONCE = 64, /* of one queue, then it is the next one's turn */
  SAMPLE = 16,       /* one request in so many is timed */
  REPLY_NS_MAX = 100000,
};

#define COUNT(field, n) __atomic_store_n(&(field), (field) + (n), __ATOMIC_RELAXED)

/* ---- Which queues are looked at -------------------------------------------------------------- */

/* The driver has asked for more after something was given back: how long did that take it? A sleep
 * and a kick would take longer than to poll for it, and the device has nothing to do meanwhile. */
static void note_reply(struct queue *q) {
  uint64_t took = q->home->now_ns - q->published_ns;
  if (!q->awaits_reply) return;
  q->awaits_reply = false;
  q->reply_ns = took > REPLY_NS_MAX ? q->reply_ns / 2 : (3 * q->reply_ns + 2 * took) / 4;
}

static bool reply_is_near(const struct queue *q) {
  return q->awaits_reply && q->home->now_ns - q->published_ns < q->reply_ns;
}

static void activate(struct queue *q) {
  q->worked_ns = q->home->now_ns;
  if (q->active) return;
  q->active = true;
  q->next_active = q->home->active;
  q->home->active = q;
  ring_notify_me(&q->ring, false);
}

/* core_watch.ready: the driver has rung. */
static void kicked(struct core_watch *watch) {
  struct queue *q = container_of(watch, struct queue, kick);
  COUNT(q->stats.kicks, 1);
  if (q->home) activate(q);
}

static void mark_dirty(struct queue *q) {
  if (q->dirty) return;
  q->dirty = true;
  q->next_dirty = q->home->dirty;
  q->home->dirty = q;
}

/* ---- Giving back ----------------------------------------------------------------------------- */

static void handle(struct queue *q) {
  q->handled++;
  q->home->handled++;
  mark_dirty(q);
}

static void give_back(struct queue *q, uint16_t head, uint32_t used_bytes) {
  inflight_put(&q->inflight, head);
  ring_put(&q->ring, head, used_bytes);
  handle(q);
}

/* While the guest migrates: what was written for it. */
static __attribute__((noinline)) void log_written(struct queue *q, const void *at, uint64_t bytes) {
  dirty_mark_host(q->log, q->memory, at, bytes);
}

/* Of a packed ring they lie among the others; the address that a monitor gives is another one's. */
static void log_used_packed(struct queue *q, uint16_t from) {
  uint32_t size = q->ring.size;
  for (; from != q->ring.next_used; from = ring_position_add(from, 1, size))
    log_written(q, &q->ring.desc[from & ~RING_POSITION_WRAP], sizeof q->ring.desc[0]);
  log_written(q, q->ring.used, sizeof(struct vring_event));
}

/* The used entries that are about to be published, and the index. */
static __attribute__((noinline)) void log_used(struct queue *q, uint16_t from) {
  uint64_t guest = q->used_guest;
  if (guest > UINT64_MAX - (1u << 20)) return;
  if (q->ring.packed) {
    log_used_packed(q, from);
    return;
  }
  for (; from != q->ring.next_used; from++)
    dirty_mark(q->log,
               guest + offsetof(struct vring_used, ring) +
                   (from & (q->ring.size - 1u)) * sizeof(struct vring_used_entry),
               sizeof(struct vring_used_entry));
  dirty_mark(q->log, guest, sizeof(struct vring_used));
}

/* Of a request that moved data: all that a read may have written. */
static __attribute__((noinline)) void log_data(struct queue *q, const struct request *r) {
  const struct iovec *iov = r->large ? r->large->iov : r->iov;
  if (r->kind != OP_READ) return;
  for (uint32_t i = 0; i < r->pieces; i++) log_written(q, iov[i].iov_base, iov[i].iov_len);
}

/* used_bytes: of a request that went well. */
static void answer(struct queue *q, uint16_t head, uint8_t *status, enum blk_status what,
                   uint32_t used_bytes) {
  if (status) *status = (uint8_t)what;
  if (unlikely(q->log) && status) log_written(q, status, 1);
  if (what == BLK_IOERR) COUNT(q->stats.errors, 1);
  give_back(q, head, what == BLK_OK ? used_bytes : status ? 1 : 0);
}

/* Who stops ends these as well: the driver's index says that they were taken. */
static bool has_again(const struct queue *q) {
  return !q->ring.broken && q->again_done < q->again_count;
}

static void deactivate(struct queue *q) {
  if (!q->active) return;
  struct queue **at = &q->home->active;
  while (*at != q) at = &(*at)->next_active;
  *at = q->next_active;
  q->active = false;
}

static void try_to_stop(struct queue *q) {
  struct shard_op *op = q->stop_op;
  if (q->in_flight || !op || has_again(q) || !hurry_end(&q->hurry)) return;
  deactivate(q);
  q->stop_op = NULL;
  q->home->running--;
  op->result = 0;
  core_complete(q->core, op);
}

static void time_request(struct queue *q, const struct request *r) {
  uint32_t bucket = latency_bucket(clock_now_ns(&q->core->store->clock) - r->taken_ns);
  COUNT(q->stats.latency_ns[bucket], 1);
}

static enum blk_status status_of(const struct request *r) {
  if (likely(r->op.result == (int64_t)r->bytes)) return BLK_OK;
  return r->op.result == -EOPNOTSUPP ? BLK_UNSUPPORTED : BLK_IOERR;
}

static void end_request(struct queue *q, struct request *r, enum blk_status what) {
  if (unlikely(q->log)) log_data(q, r);
  answer(q, r->head, r->status, what, r->used_bytes);
  if (r->taken_ns) time_request(q, r);
  if (r->large) large_put(q, r->large);
  r->large = NULL;
  r->busy = false;
  q->stalled = false;
  q->in_flight--;
}

static __attribute__((noinline)) void end_run(struct queue *q, struct request *r) {
  while (r) {
    struct request *next = r->follower;
    r->follower = NULL;
    end_request(q, r, BLK_OK);
    r = next;
  }
}

/* peer.finished */
static void request_done(struct peer *peer, struct shard_op *op) {
  struct request *r = container_of(op, struct request, op);
  struct queue *q = container_of(r - r->head, struct queue_slots, requests[0])->queue;
  (void)peer;
  if (likely(!r->follower))
    end_request(q, r, status_of(r));
  else if (run_is_good(r))
    end_run(q, r);
  else
    run_undo(q, r);
}

static void publish(struct queue *q) {
  uint16_t before = q->ring.told_used;
  inflight_publish(&q->inflight, q->ring.next_used);
  bool tell = ring_publish(&q->ring);
  q->awaits_reply = before != q->ring.next_used;
  q->published_ns = q->home->now_ns;
  if (unlikely(q->log)) log_used(q, before);
  inflight_published(&q->inflight, q->ring.next_used);
  if (tell && q->call_fd >= 0) {
    COUNT(q->stats.calls, 1);
    notifier_call(&q->home->notifier, q->call_fd); /* what it cannot be told is its own fault */
  }
}

/* What the step took is shared out by requests: it includes the volume's work and the kernel's. */
static void account(struct vhost_core *v) {
  uint64_t now = clock_now_ns(&v->core->store->clock), each = (now - v->now_ns) / v->handled;
  for (struct queue *q = v->dirty; q; q = q->next_dirty) {
    COUNT(q->stats.cpu_ns, each * q->handled);
    q->handled = 0;
  }
  v->handled = 0;
}

/* core_service.finish: whoever got something back will soon ask for more. */
static void end_step(struct core_service *service) {
  struct vhost_core *v = container_of(service, struct vhost_core, service);
  if (v->handled) account(v);
  while (v->dirty) {
    struct queue *q = v->dirty;
    v->dirty = q->next_dirty;
    q->dirty = false;
    if (!q->stopping || has_again(q)) activate(q); /* first: who answers at once need not notify */
    publish(q);
    __atomic_store_n(&q->stats.in_flight, q->in_flight, __ATOMIC_RELAXED);
    try_to_stop(q);
  }
}

/* ---- Taking ---------------------------------------------------------------------------------- */

static void break_queue(struct queue *q, const char *why) {
  q->ring.broken = true;
  mark_dirty(q); /* who waits for it to stop waits for nothing more */
  q->failed(q, why);
}

static bool writes_through(const struct queue *q) {
  if (q->ephemeral) return false;
  return q->write_through ||
         __atomic_load_n(&q->disk->writeback, __ATOMIC_RELAXED) != BLK_WRITEBACK_ON;
}

static uint8_t kind_of(const struct blk_request *b) {
  static const uint8_t kinds[] = {[BLK_READ] = OP_READ,
                                  [BLK_WRITE] = OP_WRITE,
                                  [BLK_FLUSH] = OP_SYNC,
                                  [BLK_DISCARD] = OP_DISCARD,
                                  [BLK_WRITE_ZEROES] = OP_WRITE_ZEROES};
  return kinds[b->kind];
}

static void count_request(struct queue *q, const struct blk_request *b) {
  struct queue_stats *s = &q->stats;
  if (likely(b->kind == BLK_READ)) {
    COUNT(s->reads, 1);
    COUNT(s->read_bytes, b->bytes);
  } else if (b->kind == BLK_WRITE) {
    COUNT(s->writes, 1);
    COUNT(s->write_bytes, b->bytes);
  } else {
    COUNT(*(b->kind == BLK_FLUSH     ? &s->flushes
            : b->kind == BLK_DISCARD ? &s->discards
                                     : &s->zeroes),
          1);
  }
}

/* The pieces out of the scratch. False: no room for so many now. */
static bool keep_pieces(struct queue *q, struct request *r, const struct blk_request *b) {
  struct iovec *to = r->iov;
  if (b->data_count > PIECES_INLINE) {
    r->large = large_get(q);
    if (!r->large) return false;
    to = r->large->iov;
  }
  memcpy(to, b->data, b->data_count * sizeof *to);
  r->pieces = (uint16_t)b->data_count;
  return true;
}

static bool start_op(struct queue *q, struct request *r, const struct blk_request *b) {
  bool data = b->kind == BLK_READ || b->kind == BLK_WRITE;
  r->pieces = 0;
  r->kind = kind_of(b);
  if (data && !keep_pieces(q, r, b)) return false;
  r->flags = 0;
  if ((b->kind == BLK_WRITE || b->kind == BLK_WRITE_ZEROES) && writes_through(q))
    r->flags = OP_DURABLE;
  if (b->kind == BLK_FLUSH) blk_expect_flushes(q->disk);
  r->offset = b->offset;
  r->bytes = b->kind == BLK_FLUSH ? 0 : (uint32_t)b->bytes;
  r->status = b->status;
  r->used_bytes = b->used_bytes;
  r->taken_ns = ++q->turn % SAMPLE ? 0 : q->home->now_ns;
  r->busy = true;
  count_request(q, b);
  q->in_flight++;
  handle(q);
  run_add(q, r);
  return true;
}

/* What needs no volume. */
static bool is_answered(const struct queue *q, const struct blk_request *b) {
  return b->kind == BLK_GET_ID || (b->kind == BLK_FLUSH && q->ephemeral);
}

static void put_id(struct queue *q, const struct blk_request *b) {
  blk_put_id(q->disk, b);
  for (uint32_t i = 0; q->log && i < b->data_count; i++)
    log_written(q, b->data[i].iov_base, b->data[i].iov_len);
}

/* A chain that ring_take() or ring_again() has filled, or has found malformed (taken < 0). False:
 * no room, nothing was started; the chain is to be taken again. */
static bool start_chain(struct queue *q, struct ring_chain *chain, int taken) {
  struct blk_request b = {.status = NULL};
  enum blk_status status = BLK_IOERR;
  if (likely(taken > 0))
    status = blk_parse(q->disk, chain, &b);
  else
    b.status = blk_status_of(chain);
  if (status != BLK_OK || is_answered(q, &b)) {
    if (status == BLK_OK && b.kind == BLK_GET_ID) put_id(q, &b);
    answer(q, chain->head, b.status, status, b.used_bytes);
    return true;
  }
  return start_op(q, &q->slots->requests[chain->head], &b);
}

/* The driver has made a head available that we have not given back. */
static bool is_twice(struct queue *q, uint16_t head) {
  if (likely(!q->slots->requests[head].busy)) return false;
  break_queue(q, "a descriptor is in use twice");
  return true;
}

static void prepare_chain(struct vhost_core *v, struct ring_chain *chain) {
  *chain = (struct ring_chain){.iov = v->scratch, .room = PIECES_MAX};
}

/* What a process before us had taken comes first. */
static uint32_t take_again(struct vhost_core *v, struct queue *q) {
  uint32_t n = 0;
  for (; q->again_done < q->again_count && !q->stalled; n++) {
    struct ring_chain chain;
    uint16_t head = q->again[q->again_done];
    prepare_chain(v, &chain);
    int taken = ring_again(&q->ring, head, &chain);
    if (is_twice(q, head)) break;
    inflight_take(&q->inflight, head);
    q->stalled = !start_chain(q, &chain, taken);
    q->again_done += !q->stalled;
  }
  run_end(q);
  return n;
}

static uint32_t take_new(struct vhost_core *v, struct queue *q) {
  int available = ring_available(&q->ring);
  uint32_t n = 0, most = available > 0 ? (uint32_t)min_u64((uint64_t)available, TAKE_AT_ONCE) : 0;
  if (available < 0) break_queue(q, "its available index makes no sense");
  if (most) ring_prefetch(&q->ring, most);
  for (; n < most; n++) {
    struct ring_chain chain;
    prepare_chain(v, &chain);
    int taken = ring_take(&q->ring, &chain);
    if (unlikely(chain.head == UINT16_MAX)) {
      if (!taken) break; /* a packed ring says nothing of how many there are */
      break_queue(q, "its available ring names a descriptor that there is not");
      break;
    }
    if (is_twice(q, chain.head)) break;
    inflight_take(&q->inflight, chain.head);
    if (unlikely(!start_chain(q, &chain, taken))) {
      q->stalled = true;
      ring_untake(&q->ring);
      break;
    }
  }
  run_end(q);
  return n;
}

/* A stalled one is woken by its own completions. */
static bool has_more(struct queue *q) {
  if (q->ring.broken || q->stalled) return false;
  if (q->again_done < q->again_count) return true;
  if (q->stopping) return false;
  if (ring_available(&q->ring) != 0) return true;
  /* Cut short, it may look empty: it is for take() to say so. */
  return atomic_load_explicit(&q->memory->lost, memory_order_relaxed) != 0;
}

static uint32_t take(struct vhost_core *v, struct queue *q) {
  if (unlikely(q->ring.broken || q->stalled)) return 0;
  if (unlikely(atomic_load_explicit(&q->memory->lost, memory_order_relaxed))) {
    break_queue(q, "its memory was cut short");
    return 0;
  }
  if (unlikely(q->again_done < q->again_count)) return take_again(v, q);
  return unlikely(q->stopping) ? 0 : take_new(v, q);
}

/* core_service.step */
static bool step(struct core_service *service) {
  struct vhost_core *v = container_of(service, struct vhost_core, service);
  uint32_t taken = 0;
  v->now_ns = clock_now_ns(&v->core->store->clock); /* also for the end of the step */
  if (!v->active) return false;
  for (struct queue **at = &v->active, *q; (q = *at);) {
    uint32_t n = take(v, q);
    taken += n;
    if (n) {
      q->worked_ns = v->now_ns;
      note_reply(q);
    }
    if (n || v->now_ns - q->worked_ns < v->poll_ns) {
      at = &q->next_active;
      continue;
    }
    ring_notify_me(&q->ring, true);
    if (has_more(q)) {
      ring_notify_me(&q->ring, false);
      q->worked_ns = v->now_ns;
      at = &q->next_active;
      continue;
    }
    q->active = false;
    *at = q->next_active;
  }
  return taken > 0;
}

/* core_service.prepare_sleep */
static bool prepare_sleep(struct core_service *service) {
  struct vhost_core *v = container_of(service, struct vhost_core, service);
  bool may = true;
  for (struct queue *q = v->active; q; q = q->next_active)
    if (reply_is_near(q)) return false;
  for (struct queue *q = v->active; q; q = q->next_active) {
    ring_notify_me(&q->ring, true);
    if (has_more(q)) may = false;
  }
  for (struct queue *q = v->active; q && !may; q = q->next_active) ring_notify_me(&q->ring, false);
  while (v->active && may) {
    v->active->active = false;
    v->active = v->active->next_active;
  }
  return may;
}

/* ---- Start and stop ---------------------------------------------------------------------------
 */

void queue_start(struct core *core, struct shard_op *op) {
  struct queue *q = op->buf;
  struct vhost_core *v = q->home;
  check(q->core == core && !q->stop_op);
  q->kick.ready = kicked;
  op->result = q->kick.fd >= 0 ? core_watch_add(core, &q->kick) : 0;
  if (op->result == 0) {
    v->running++;
    q->stopping = q->stalled = false;
    q->again_done = 0;
    v->now_ns = clock_now_ns(&core->store->clock);
    /* A driver may wait for what was published before, and not know of it. */
    mark_dirty(q);
  }
  core_complete(core, op);
}

static void hurry_changed(struct hurry *h) { mark_dirty(container_of(h, struct queue, hurry)); }

void queue_stop(struct core *core, struct shard_op *op) {
  struct queue *q = op->buf;
  check(!q->stopping);
  if (q->kick.fd >= 0) core_watch_remove(core, &q->kick);
  if (!has_again(q)) deactivate(q);
  q->stopping = true;
  q->stop_op = op;
  if (q->in_flight || has_again(q)) hurry_begin(&q->hurry, core, q->block, hurry_changed);
  mark_dirty(q); /* what was put is published, then the end of the step looks */
}

int queue_make_slots(struct queue *q) {
  uint32_t size = q->ring.size;
  struct queue_slots *slots = calloc(1, sizeof *slots + size * sizeof slots->requests[0]);
  if (!slots) return -ENOMEM;
  slots->queue = q;
  for (uint32_t i = 0; i < size; i++) slots->requests[i].head = (uint16_t)i;
  for (uint32_t i = 0; i < LARGE_OWN; i++) {
    slots->own[i].next = slots->free;
    slots->free = &slots->own[i];
  }
  free(q->slots);
  q->slots = slots;
  return 0;
}

struct vhost_core *vhost_core_create(struct core *core) {
  struct vhost_core *v = calloc(1, sizeof *v);
  if (!v) return NULL;
  v->core = core;
  notifier_open(&v->notifier);
  v->service =
      (struct core_service){.step = step, .finish = end_step, .prepare_sleep = prepare_sleep};
  v->run.end = RUN_NOWHERE;
  v->poll_ns = (uint64_t)core->store->config.poll_us * 1000;
  for (uint32_t i = 0; i < LARGE_SHARED; i++) {
    v->shared[i].shared = true;
    v->shared[i].next = v->free;
    v->free = &v->shared[i];
  }
  return v;
}

void vhost_core_begin(struct core *core, struct shard_op *op) {
  struct vhost_core *v = op->buf;
  v->peer = core->self;
  v->peer.finished = request_done;
  core_service_add(core, &v->service);
  op->result = 0;
  core_complete(core, op);
}

void vhost_core_end(struct core *core, struct shard_op *op) {
  struct vhost_core *v = op->buf;
  check(v->running == 0);
  core_service_remove(core, &v->service);
  op->result = 0;
  core_complete(core, op);
}

void vhost_core_free(struct vhost_core *v) {
  if (!v) return;
  notifier_close(&v->notifier);
  free(v);
}
