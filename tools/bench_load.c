/* bench_load.c - the load: `depth` requests that are submitted again in batches as they finish.
 *
 * A load runs on one thread: on a core, driven by the callbacks of the core's own port, or on
 * a client's thread, driven by sr_port_reap(). The code is the same: a request's callback
 * accounts for it and puts it into `pending`; when a batch is there it is aimed anew and
 * submitted. As depth >= batch, a batch is always there before the last request has finished.
 *
 *   pending -> (aim, submit) in flight -> load_done -> pending
 *                                             \-> full -> (after a flush) pending, prepared
 *
 * Nothing is allocated while a load runs. */
#include "tools/bench.h"
#include "tools/bench_load.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t bench_now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- One request ------------------------------------------------------------------------ */

static void aim_read(struct load *l, struct load_work *w) {
  uint64_t place, block = 0;
  if (l->aim == RW_READ) {
    place = l->cursor / l->blob_blocks % l->count;
    block = l->cursor++ % l->blob_blocks;
  } else {
    uint64_t at = load_pick_skewed(l, l->count * l->blob_blocks);
    place = at / l->blob_blocks;
    block = at % l->blob_blocks;
  }
  w->number = load_number_at(l, place);
  w->request.id = bench_id(w->number, l->seed);
  w->request.offset = block * l->block_bytes;
}

static __attribute__((noinline)) void aim_change(struct load *l, struct load_work *w) {
  uint64_t place = l->rw == RW_RANDWRITE ? load_pick_skewed(l, l->count) : l->cursor++ % l->count;
  w->number = load_number_at(l, place);
  w->request.id = bench_id(w->number, l->seed);
  if (l->rw != RW_DELETE && w->request.buf && !(w->request.flags & SR_RESERVE))
    bench_stamp(w->request.buf, w->number, l->seed, 0, l->blob_bytes);
}

static uint64_t next_block(struct load *l, uint32_t *target) {
  if (!l->once && l->rw != RW_READ && l->rw != RW_WRITE) {
    uint64_t place = load_pick_skewed(l, l->target_count * l->blob_blocks);
    *target = (uint32_t)(place / l->blob_blocks);
    return place % l->blob_blocks;
  }
  uint64_t at = l->cursor++ % l->count;
  uint64_t place = l->first + (l->once ? distribution_spread(at, l->count, l->once_bits) : at);
  *target = (uint32_t)(place / l->blob_blocks);
  return place % l->blob_blocks;
}

static void aim_block(struct load *l, struct load_work *w) {
  struct sr_request *r = &w->request;
  uint32_t target;
  r->offset = next_block(l, &target) * l->block_bytes;
  r->block = l->targets[target].block;
  w->number = l->targets[target].number;
  if (l->rw == RW_RANDRW) r->op = load_pick(l, 100) < l->mix_read ? SR_OP_READ : SR_OP_WRITE;
  if (r->op == SR_OP_WRITE && r->buf) bench_stamp(r->buf, w->number, l->seed, r->offset, r->bytes);
}

/* No question here is for the sake of few loads alone. */
static inline void aim(struct load *l, struct load_work *w) {
  if (l->targets)
    aim_block(l, w);
  else if (l->aim == RW_RANDREAD || l->aim == RW_READ || l->aim == RW_GET)
    aim_read(l, w);
  else if (__builtin_expect(l->aim != RW_SPECIAL, 1))
    aim_change(l, w);
  else
    load_aim_special(l, w);
}

static inline void prepare(struct load *l, struct load_work *w) {
  aim(l, w);
  w->start_ns = w->due_ns = 0;
  if (l->sample && --l->sample_left == 0) {
    l->sample_left = l->sample;
    w->start_ns = bench_now_ns();
  }
}

void load_note_error(struct load *l, int error) {
  l->errors++;
  if (l->first_error == 0) l->first_error = error;
  l->stopping = true;
}

static inline void account(struct load *l, struct load_work *w) {
  const struct sr_request *r = &w->request;
  bool counts = r->op == SR_OP_GET || r->op >= SR_OP_READ;
  int64_t want = counts ? (int64_t)r->bytes : 0;
  if (__builtin_expect(r->result != want, 0)) {
    load_note_error(l, r->result < 0 ? (int)r->result : -EIO);
    return;
  }
  l->ops++;
  bool apart = l->rw == RW_RANDRW && r->op == SR_OP_WRITE;
  if (apart) l->write_ops++;
  if (w->start_ns) {
    uint64_t now = bench_now_ns(), from = w->due_ns ? w->due_ns : w->start_ns;
    latency_add(apart ? &l->write_latency : &l->latency, now - from);
    series_add(&l->series, now - l->start_ns, l->ops, now - from);
    if (w->due_ns) latency_add(apart ? &l->write_service : &l->service, now - w->start_ns);
  }
  if (l->verify && (r->op == SR_OP_GET || r->op == SR_OP_READ) &&
      !bench_matches(r->buf, w->number, l->seed, r->offset, r->bytes)) {
    l->mismatch = true;
    load_note_error(l, -EBADMSG);
  }
}

void load_account(struct load *l, struct load_work *w) { account(l, w); }

/* ---- Submission --------------------------------------------------------------------------- */

static void finish(struct load *l) {
  if (l->done || load_flush_last(l)) return;
  l->done = true;
  l->elapsed_ns = bench_now_ns() - l->start_ns;
  series_end(&l->series, l->elapsed_ns, l->ops);
  sem_post(l->finished);
}

static bool time_is_up(struct load *l) {
  if (l->left == 0) return true;
  /* What is to be verified is there, whichever load is the slower one. */
  if (l->verify && l->rw == RW_PUT && l->cursor < l->count) return false;
  return (l->left == UINT64_MAX || l->once) && bench_now_ns() >= l->deadline_ns;
}

/* Aims those that are not aimed yet. What is left over when the end has come is dropped. */
static void prepare_pending(struct load *l) {
  while (l->prepared < l->pending_count && l->left > 0) {
    prepare(l, (struct load_work *)l->pending[l->prepared++]);
    if (l->left != UINT64_MAX) l->left--;
  }
  l->pending_count = l->prepared;
}

/* Of an open load: sends what is due and has a request free. */
static void submit_due(struct load *l) {
  uint64_t now = bench_now_ns();
  uint32_t n = l->prepared; /* refused before, but due */
  bool over = l->stopping || now >= l->deadline_ns;
  for (; !over && n < l->pending_count && arrivals_due_ns(&l->arrivals) <= now; n++) {
    struct load_work *w = (struct load_work *)l->pending[n];
    prepare(l, w);
    w->start_ns = now;
    w->due_ns = arrivals_due_ns(&l->arrivals);
    arrivals_next(&l->arrivals);
  }
  if (l->stopping) n = 0;
  if (n > 0) {
    l->in_flight += n;
    int r = sr_port_submit(l->port, l->pending, n);
    uint32_t accepted = r > 0 ? (uint32_t)r : 0;
    l->in_flight -= n - accepted;
    if (r < 0 && r != -EAGAIN) load_note_error(l, r);
    l->pending_count -= accepted;
    l->prepared = n - accepted;
    memmove(l->pending, l->pending + accepted, l->pending_count * sizeof(*l->pending));
  }
  if (l->in_flight > 0 || !over || (l->prepared > 0 && !l->stopping)) return;
  l->unsent = arrivals_count_until(&l->arrivals, now < l->deadline_ns ? now : l->deadline_ns);
  finish(l);
}

/* At most so many at a time. */
static inline int send(struct load *l, uint32_t n, uint32_t most) {
  uint32_t sent = 0;
  int r = 0;
  if (n <= most) return sr_port_submit(l->port, l->pending, n);
  while (sent < n) {
    uint32_t want = n - sent < most ? n - sent : most;
    r = sr_port_submit(l->port, l->pending + sent, want);
    if (r > 0) sent += (uint32_t)r;
    if (r < (int)want) break;
  }
  return sent > 0 ? (int)sent : r;
}

static inline void submit_pending(struct load *l, uint32_t most) {
  if (l->stopping)
    l->pending_count = l->prepared = 0;
  else if (time_is_up(l))
    l->pending_count = l->prepared;
  prepare_pending(l);
  uint32_t n = l->pending_count;
  if (n > 0) {
    l->in_flight += n; /* before: a callback may come early */
    l->pending_count = l->prepared = 0;
    int r = send(l, n, most);
    uint32_t accepted = r > 0 ? (uint32_t)r : 0;
    l->in_flight -= n - accepted;
    if (r < 0 && r != -EAGAIN) load_note_error(l, r);
    if (accepted < n && !l->stopping) {
      memmove(l->pending, l->pending + accepted, (n - accepted) * sizeof(*l->pending));
      l->pending_count = l->prepared = n - accepted;
    }
  }
  /* On a core nobody would come back to what was refused. */
  if (l->in_flight == 0 && l->pending_count > 0 && l->on_core) {
    load_note_error(l, -EAGAIN);
    l->pending_count = l->prepared = 0;
  }
  if (l->in_flight == 0 && l->pending_count == 0) finish(l);
}

static __attribute__((noinline)) void submit_unusual(struct load *l) {
  if (l->arrivals.interval_ns > 0)
    submit_due(l);
  else
    submit_pending(l, l->batch);
}

void load_submit(struct load *l) {
  if (__builtin_expect(l->unusual, 0))
    submit_unusual(l);
  else
    submit_pending(l, UINT32_MAX);
}

void load_done(struct sr_request *request) {
  struct load_work *w = (struct load_work *)request;
  struct load *l = w->load;
  l->in_flight--;
  if (request->result == -ENOSPC && request->op == SR_OP_PUT && !l->stopping) {
    load_wait_for_room(l, w);
  } else {
    account(l, w);
    if (request->op == SR_OP_PUT) l->puts_since_flush++;
    l->pending[l->pending_count++] = request;
  }
  if (l->pending_count >= l->complete || l->in_flight == 0) load_submit(l);
}

/* The same, and somebody looks. */
static void watched_done(struct sr_request *request) {
  struct load_work *w = (struct load_work *)request;
  struct load *l = w->load;
  if (request->result >= 0) {
    uint64_t from = w->due_ns ? w->due_ns : w->start_ns;
    bool counts = request->op == SR_OP_GET || request->op >= SR_OP_READ;
    live_add(l->live, 1, counts ? (uint64_t)request->result : request->bytes,
             from ? bench_now_ns() - from : 0);
  }
  l->unwatched_done(request); /* it may be in flight again */
}

void load_watch(struct load *l, struct live *live) {
  l->live = live;
  l->unwatched_done = l->works[0].request.done;
  for (uint32_t i = 0; i < l->depth; i++) l->works[i].request.done = watched_done;
}

/* ---- Start and run ------------------------------------------------------------------------------
 */

static void start(struct load *l, struct sr_port *port) {
  l->port = port;
  l->stopping = false;
  l->done = l->flushing = l->mismatch = false;
  l->pending_count = l->prepared = l->in_flight = l->full_count = l->held_count = 0;
  l->unusual = l->rate > 0 || l->complete > l->batch;
  l->write_bytes = 0;
  l->ops = l->bytes = l->errors = l->flushes = l->write_ops = l->remote_ops = 0;
  l->first_error = 0;
  l->puts_since_flush = 1; /* what was freed before us is worth a flush */
  l->start_ns = bench_now_ns();
  l->unflushed = (struct flush_rule){.ns = l->start_ns};
  l->deadline_ns = l->start_ns + l->duration_ns;
  arrivals_begin(&l->arrivals, (double)l->rate, l->bench->o.rate_process == 1, l->random,
                 l->start_ns);
  if (l->count == 0) finish(l);
  for (uint32_t i = 0; i < l->depth && !l->done; i++) {
    l->pending[l->pending_count++] = &l->works[i].request;
    if (l->pending_count >= l->batch || i + 1 == l->depth) load_submit(l);
  }
}

static void start_on_core(struct sr_port *port, void *arg) { start(arg, port); }

int load_start_on_core(struct load *l, uint32_t shard, uint64_t duration_ns) {
  int r;
  l->duration_ns = duration_ns;
  l->on_core = true;
  while ((r = sr_store_run(l->bench->store, shard, start_on_core, l)) == -EAGAIN) sched_yield();
  return r;
}

/* Polls for a moment before it sleeps: a wake costs more than a request. */
#define SPIN_NS 60000u /* what a sleep may be late */

/* Sends what is due; then, if there was nothing to do, waits until a request is due, or one is
 * finished if all are in flight. */
static void wait_until_due(struct load *l, bool worked) {
  uint64_t now = bench_now_ns(), due = arrivals_due_ns(&l->arrivals);
  if (due > l->deadline_ns) due = l->deadline_ns;
  submit_due(l);
  if (l->done || worked) return;
  if (l->pending_count == 0)
    sr_port_wait(l->port, 10000000);
  else if (due > now + SPIN_NS)
    sr_port_wait(l->port, (int64_t)(due - now - SPIN_NS));
  else
    __builtin_ia32_pause();
}

static void wait_some(struct load *l, uint32_t *idle) {
  if (l->in_flight == 0)
    load_submit(l); /* what was refused with -EAGAIN */
  else if (++*idle < 4000)
    __builtin_ia32_pause();
  else
    sr_port_wait(l->port, 10000000);
}

void load_run_here(struct load *l, struct sr_port *port, uint64_t duration_ns,
                   void (*step)(void *arg, const struct load *l), void *arg) {
  struct sr_request *finished[64];
  uint32_t idle = 0, turns = 0;
  l->duration_ns = duration_ns;
  l->on_core = false;
  start(l, port);
  while (!l->done) {
    int n = sr_port_reap(port, finished, 64);
    if (l->arrivals.interval_ns > 0) {
      wait_until_due(l, n > 0);
    } else if (n > 0) {
      idle = 0;
    } else {
      wait_some(l, &idle);
    }
    if (!step || ++turns % 64 != 0) continue;
    step(arg, l);
    if (bench_stop_signal()) load_stop(l);
  }
}

/* ---- Life ------------------------------------------------------------------------------------ */

static uint32_t op_of(const struct load *l) {
  int rw = l->rw;
  if (l->targets || l->split_targets) return bench_is_read(rw) ? SR_OP_READ : SR_OP_WRITE;
  if (bench_is_read(rw)) return SR_OP_GET;
  return rw == RW_DELETE ? SR_OP_DELETE : SR_OP_PUT;
}

static uint32_t flags_of(const struct bench_options *o, int rw) {
  if (!bench_is_hollow(o)) return 0;
  if (bench_is_read(rw)) return SR_NO_CHECKSUM;
  if (rw == RW_DELETE) return 0;
  /* Puts into the null engine are the measured thing: only filling the store reserves. */
  return o->prealloc == PREALLOC_UNWRITTEN || !bench_is_write(o->rw) ? SR_RESERVE : SR_NO_CHECKSUM;
}

static void set_up_works(struct load *l, uint64_t stride, uint32_t flags) {
  for (uint32_t i = 0; i < l->depth; i++) {
    struct load_work *w = &l->works[i];
    w->load = l;
    w->request.op = op_of(l);
    w->request.flags = flags;
    w->request.done = l->script              ? load_script_done
                      : l->aim == RW_SPECIAL ? load_special_done
                                             : load_done;
    w->request.bytes = l->request_bytes;
    w->request.buf = stride ? l->memory + i * stride : NULL;
    if ((w->request.op == SR_OP_PUT || w->request.op == SR_OP_WRITE || l->rw == RW_RANDRW) &&
        stride)
      bench_fill(w->request.buf, 0, l->seed, 0, l->request_bytes);
  }
  l->flush.load = l;
  l->flush.request.op = SR_OP_FLUSH;
  l->flush.request.done = load_flush_done;
}

static void set_up_targets(struct load *l, const struct load_config *c) {
  l->targets = c->targets;
  l->target_count = c->target_count;
  l->mix_read = (uint32_t)l->bench->o.mix_read;
  l->blob_bytes = l->bench->volumes->bytes;
  l->blob_blocks = l->blob_bytes / c->request_bytes;
  l->once = c->once;
  while (UINT64_C(1) << l->once_bits < c->count) l->once_bits++;
}

void load_stop(struct load *l) { l->stopping = true; }

void load_renew(struct load *l) {
  l->cursor = 0;
  l->left = l->count;
}

int load_init(struct load *l, struct bench *b, const struct load_config *c) {
  uint64_t stride = (c->request_bytes + SR_BLOCK_BYTES - 1) / SR_BLOCK_BYTES * SR_BLOCK_BYTES;
  *l = (struct load){
      .bench = b,
      .finished = c->finished,
      .rw = c->rw,
      .aim = c->rw,
      .depth = c->depth,
      .batch = c->batch,
      .complete = c->complete ? c->complete : c->batch,
      .request_bytes = c->request_bytes,
      .blob_bytes = b->o.blob_bytes,
      .block_bytes = c->request_bytes,
      .seed = b->o.seed,
      .verify = b->o.verify,
      .numbers = c->numbers,
      .first = c->first,
      .count = c->count,
      .left = c->left ? c->left : UINT64_MAX,
      .sample = c->sample,
      .rate = c->rate,
      .sample_left = c->sample,
      .random = (c->seed + 1) * UINT64_C(0x9e3779b97f4a7c15) | 1,
  };
  l->blob_blocks = bench_is_read(c->rw) ? l->blob_bytes / c->request_bytes : 1;
  if (c->targets) set_up_targets(l, c);
  load_set_up_special(l, c);
  uint64_t things = (c->targets ? c->target_count : c->count) * l->blob_blocks;
  if (c->distribution && c->distribution->kind != DISTRIBUTION_RANDOM && things > 0)
    distribution_init(&l->distribution, c->distribution, things, l->random);
  if (c->reserve) stride = 0;
  l->stride = stride;
  if (c->script) stride *= c->script->buffers;
  if (posix_memalign((void **)&l->works, 64, c->depth * sizeof(*l->works))) l->works = NULL;
  l->pending = calloc(c->depth, sizeof(*l->pending));
  l->full = calloc(c->depth, sizeof(*l->full));
  if (stride) l->memory = sr_buffer_alloc(b->store, c->depth * stride, true);
  if (!l->works || !l->pending || !l->full || (stride && !l->memory)) {
    load_finish(l);
    return -ENOMEM;
  }
  memset(l->works, 0, c->depth * sizeof(*l->works));
  l->read_flags = flags_of(&b->o, RW_GET);
  l->write_flags = bench_is_hollow(&b->o) ? SR_NO_CHECKSUM : 0;
  if (l->script && load_set_up_script(l) < 0) {
    load_finish(l);
    return -ENOMEM;
  }
  set_up_works(l, stride, c->targets ? c->reserve ? SR_RESERVE : 0 : flags_of(&b->o, c->rw));
  return 0;
}

void load_finish(struct load *l) {
  series_finish(&l->series);
  if (l->memory) sr_buffer_free(l->bench->store, l->memory);
  free(l->works);
  free(l->pending);
  free(l->full);
  free(l->classes);
  free(l->state);
  *l = (struct load){0};
}
