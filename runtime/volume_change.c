/* volume_change.c - changes of volumes' records, and layers that are dropped in the background.
 * Under the catalog's lock; jobs on core 0's thread.
 *
 *   change_reserve   room in the logs of all shards concerned, the new layer in their maps
 *   change_apply     [into the gate] the puts and marks, in one call on each core [out again]
 *
 * Why a gate. A shard's log is a prefix, so what lies in one shard alone is atomic by itself. What
 * needs two shards must not be torn by a crash: inside the gate no flush seals, so that a root has
 * all of it or nothing; and manifest_note_batch() keeps each of the shards from committing its part
 * alone until a root has it. */
#include <inttypes.h>
#include <sched.h>

#include "runtime/volumes_internal.h"
#include "shards/base/plant.h"

#define TRIES            8u
#define TRIES_WITH_FLUSH 3u /* so many by a flush alone, then with checkpoints */

/* ---- Calls --------------------------------------------------------------------------------------
 */

int64_t run_in_shard(struct port *port, uint32_t shard, struct shard_op *op) {
  const struct store *s = port->store;
  op->hash = hash_of_shard(shard, s->shard_count);
  int r = port_run(port, s->core_of_shard[shard], op);
  return r ? r : op->result;
}

struct shard_calls {
  uint32_t first, end;
  shard_call_fn *fn;
  void *arg;
};

static int call_core(struct core *core, void *arg) {
  const struct shard_calls *calls = arg;
  int r = 0;
  for (uint32_t i = 0; i < core->mine_count && !r; i++) {
    uint32_t shard = core->mine[i];
    if (shard < calls->first || shard >= calls->end) continue;
    core_mark_busy(core, shard);
    r = calls->fn(core, shard, calls->arg);
  }
  return r;
}

int call_shards(struct port *port, uint32_t first, uint32_t end, shard_call_fn *fn, void *arg) {
  const struct store *s = port->store;
  struct shard_calls calls = {first, end, fn, arg};
  if (end - first == 1) return store_call(port, s->core_of_shard[first], call_core, &calls);
  int r = 0;
  for (uint32_t c = 0; c < s->core_count && !r; c++) r = store_call(port, c, call_core, &calls);
  return r;
}

uint64_t epoch_now(const struct store *s) {
  return atomic_load_explicit(&s->flusher.started_epoch, memory_order_seq_cst);
}

bool epoch_durable(const struct store *s, uint64_t epoch) {
  return !epoch || atomic_load_explicit(&s->flusher.durable_epoch, memory_order_acquire) > epoch;
}

/* ---- What changes ---------------------------------------------------------------------------- */

void change_init(struct change *ch, struct port *port, uint32_t home, uint32_t with) {
  ch->port = port;
  ch->home = home;
  ch->with = with == home ? NO_SHARD : with;
  ch->put_count = 0;
  ch->layer = 0;
  if (port->store->shard_count == 1) ch->with = NO_SHARD;
}

void change_put(struct change *ch, const struct volume_record *r) {
  struct record_put *p = &ch->puts[ch->put_count++];
  p->key = (struct blob_id){VOLUME_KEY, r->id};
  p->bytes = volume_record_encode(r, p->data);
}

void change_remove(struct change *ch, uint64_t id) {
  struct record_put *p = &ch->puts[ch->put_count++];
  p->key = (struct blob_id){VOLUME_KEY, id};
  p->bytes = 0;
}

void change_layer(struct change *ch, const struct vdisk *of, uint64_t layer,
                  const struct vdisk *below) {
  ch->layer = layer;
  ch->striped = vdisk_striped(of);
  ch->below = below ? (struct layer_below){below->layer, below->shard} : (struct layer_below){0};
}

static const struct blob_id mark_key = {MARK_KEY, 0};

static bool concerned(const struct change *ch, uint32_t shard) {
  return shard == ch->home || shard == ch->with || ch->with == ALL_SHARDS;
}

static int set_layer(struct core *core, uint32_t shard, const struct change *ch) {
  struct layer_below below = ch->below;
  if (!ch->layer || (shard != ch->home && !ch->striped)) return 0;
  if (below.id && ch->striped) below.shard = shard;
  return shard_layer_set(core->shards[shard].shard, ch->layer, below);
}

/* ---- In one shard ---------------------------------------------------------------------------- */

static void cancel_puts(struct manifest *m, const struct change *ch, uint32_t count) {
  for (uint32_t i = 0; i < count; i++) manifest_cancel_record(m, ch->puts[i].bytes);
}

static int reserve_puts(struct manifest *m, const struct change *ch) {
  for (uint32_t i = 0; i < ch->put_count; i++) {
    int r = manifest_reserve_record(m, ch->puts[i].key, ch->puts[i].bytes);
    if (!r) continue;
    cancel_puts(m, ch, i);
    return r;
  }
  return 0;
}

static int reserve_in(struct core *core, uint32_t shard, struct change *ch) {
  struct manifest *m = shard_manifest(core->shards[shard].shard);
  int r = set_layer(core, shard, ch);
  if (r) return r;
  return shard == ch->home ? reserve_puts(m, ch) : manifest_reserve_record(m, mark_key, 0);
}

static void cancel_in(struct core *core, uint32_t shard, const struct change *ch) {
  struct manifest *m = shard_manifest(core->shards[shard].shard);
  if (shard == ch->home)
    cancel_puts(m, ch, ch->put_count);
  else
    manifest_cancel_record(m, 0);
}

static void apply_in(struct core *core, uint32_t shard, const struct change *ch) {
  struct manifest *m = shard_manifest(core->shards[shard].shard);
  if (shard != ch->home) manifest_put_record(m, mark_key, NULL, 0);
  for (uint32_t i = 0; i < ch->put_count && shard == ch->home; i++)
    manifest_put_record(m, ch->puts[i].key, ch->puts[i].data, ch->puts[i].bytes);
  if (ch->with != NO_SHARD && !PLANTED(records_without_batch)) manifest_note_batch(m);
}

/* ---- On the cores ---------------------------------------------------------------------------- */

static int reserve_shard(struct core *core, uint32_t shard, void *arg) {
  return concerned(arg, shard) ? reserve_in(core, shard, arg) : 0;
}
static int cancel_shard(struct core *core, uint32_t shard, void *arg) {
  if (concerned(arg, shard)) cancel_in(core, shard, arg);
  return 0;
}
static int apply_shard(struct core *core, uint32_t shard, void *arg) {
  if (concerned(arg, shard)) apply_in(core, shard, arg);
  return 0;
}
static int run_shard(struct core *core, uint32_t shard, void *arg) {
  int r = reserve_in(core, shard, arg);
  if (!r) apply_in(core, shard, arg);
  return r;
}

static int call_concerned(struct change *ch, shard_call_fn *fn) {
  if (ch->with == NO_SHARD) return call_shards(ch->port, ch->home, ch->home + 1, fn, ch);
  return call_shards(ch->port, 0, ch->port->store->shard_count, fn, ch);
}

/* Shard by shard, so that it is known which ones have reserved. */
static int reserve_each(struct change *ch) {
  for (uint32_t s = 0; s < ch->port->store->shard_count; s++) {
    int r = concerned(ch, s) ? call_shards(ch->port, s, s + 1, reserve_shard, ch) : 0;
    if (!r) continue;
    while (s-- > 0)
      if (concerned(ch, s)) call_shards(ch->port, s, s + 1, cancel_shard, ch);
    return r;
  }
  return 0;
}

/* Logs that are full: as batch.h makes room. */
static int make_room(struct change *ch, uint32_t tries) {
  struct shard_op flush = {.kind = OP_FLUSH, .flags = OP_ROOT};
  for (uint32_t s = 0; s < ch->port->store->shard_count && tries > TRIES_WITH_FLUSH; s++) {
    struct shard_op op = {.kind = OP_CHECKPOINT};
    int64_t r = concerned(ch, s) ? run_in_shard(ch->port, s, &op) : 0;
    if (r < 0) return (int)r;
  }
  int r = port_run(ch->port, 0, &flush);
  return r ? r : (int)flush.result;
}

static int reserve(struct change *ch, int (*once)(struct change *ch)) {
  int r = once(ch);
  for (uint32_t tries = 1; r == -EAGAIN && tries <= TRIES; tries++) {
    r = make_room(ch, tries);
    if (!r) r = once(ch);
  }
  return r == -EAGAIN ? -ENOSPC : r;
}

static int run_home(struct change *ch) { return call_concerned(ch, run_shard); }

/* The layer that a failed change has made. */
static void drop_made(struct change *ch) {
  uint32_t shards = ch->port->store->shard_count;
  if (ch->layer)
    job_drop(ch->port, ch->layer, ch->striped ? 0 : ch->home, ch->striped ? shards : ch->home + 1,
             false, false);
}

int change_reserve(struct change *ch) {
  int r = reserve(ch, reserve_each);
  if (r) drop_made(ch);
  return r;
}

void change_cancel(struct change *ch) {
  call_concerned(ch, cancel_shard);
  drop_made(ch);
}

static void through_gate(struct port *port, core_call_fn *fn) {
  struct shard_op op = {.kind = OP_CALL};
  memcpy(&op.work, &fn, sizeof fn);
  port_run(port, 0, &op);
}
static void enter_gate(struct core *core, struct shard_op *op) {
  batcher_enter(&core->store->batcher, op);
}
static void leave_gate(struct core *core, struct shard_op *op) {
  batcher_leave(&core->store->batcher);
  core_complete(core, op);
}

/* Whether half of it could be seen: a flush could end, or the process be killed, between two parts.
 */
static bool has_parts(const struct change *ch) { return ch->with != NO_SHARD || ch->put_count > 1; }

void change_apply(struct change *ch) {
  bool gate = has_parts(ch);
  if (gate) through_gate(ch->port, enter_gate);
  call_concerned(ch, apply_shard);
  if (gate) through_gate(ch->port, leave_gate);
}

int change_run(struct change *ch) {
  int r = reserve(ch, has_parts(ch) ? reserve_each : run_home);
  if (r)
    drop_made(ch);
  else if (has_parts(ch))
    change_apply(ch);
  return r;
}

/* ---- Jobs ------------------------------------------------------------------------------------ */

/* Forgets what all shards remember of the layer (if it was sealed), then drops it. On core 0. */
struct job {
  struct catalog *catalog;
  struct shard_op *waiter; /* the call that began it; NULL: it has completed */
  uint64_t layer;
  uint32_t first, end, pending;
  bool dropping;
  struct shard_op ops[];
};

static struct core *core0(const struct catalog *c) { return &c->store->cores[0]; }

static void job_ask(struct job *j, uint8_t kind, uint32_t first, uint32_t end) {
  struct catalog *c = j->catalog;
  j->pending = end - first;
  for (uint32_t s = first; s < end; s++) {
    struct shard_op *op = &j->ops[s - first];
    *op = (struct shard_op){.kind = kind,
                            .offset = j->layer,
                            .owner = &c->peer,
                            .hash = hash_of_shard(s, c->store->shard_count),
                            .core = (uint8_t)c->store->core_of_shard[s],
                            .buf = j};
    core_enter(core0(c), op);
  }
}

static void job_drop_layer(struct job *j) {
  j->dropping = true;
  job_ask(j, OP_LAYER_DROP, j->first, j->end);
}

static void job_finish(struct job *j) {
  j->catalog->jobs--;
  if (j->waiter) core_complete(core0(j->catalog), j->waiter);
  free(j);
}

/* peer.finished */
static void job_answered(struct peer *peer, struct shard_op *op) {
  struct catalog *c = container_of(peer, struct catalog, peer);
  struct job *j = op->buf;
  if (op->result < 0)
    log_line(&c->store->logger, 1, "shard %u: layer %" PRIu64 " cannot be dropped: %s",
             shard_of_hash(op->hash, c->store->shard_count), j->layer, strerror((int)-op->result));
  if (--j->pending > 0) return;
  if (j->dropping)
    job_finish(j);
  else
    job_drop_layer(j);
}

static void job_start(struct core *core, struct shard_op *op) {
  struct job *j = op->buf;
  bool sealed = op->offset, wait = op->bytes;
  struct catalog *c = j->catalog;
  if (!c->peer.finished) {
    c->peer = core->self;
    c->peer.finished = job_answered;
  }
  c->jobs++;
  j->waiter = wait ? op : NULL;
  if (sealed)
    job_ask(j, OP_VIEWS_DROP, 0, core->store->shard_count);
  else
    job_drop_layer(j);
  if (!wait) core_complete(core, op);
}

void job_drop(struct port *port, uint64_t layer, uint32_t first, uint32_t end, bool sealed,
              bool wait) {
  struct store *s = port->store;
  uint32_t ops = sealed ? s->shard_count : end - first;
  struct job *j = calloc(1, sizeof *j + ops * sizeof j->ops[0]);
  if (!j) { /* the next open finds it */
    log_line(&s->logger, 1, "layer %" PRIu64 ": no memory to drop it now", layer);
    return;
  }
  *j = (struct job){.catalog = &s->catalog, .layer = layer, .first = first, .end = end};
  struct shard_op op = {.kind = OP_CALL, .buf = j, .offset = sealed, .bytes = wait};
  core_call_fn *fn = job_start;
  memcpy(&op.work, &fn, sizeof fn);
  port_run(port, 0, &op);
}

/* ---- Life ------------------------------------------------------------------------------------ */

void catalog_init(struct catalog *c, struct store *store) {
  *c = (struct catalog){.store = store, .next_id = 1};
  pthread_mutex_init(&c->lock, NULL);
  pthread_cond_init(&c->merged, NULL);
  limit_init(&c->limit, NULL, NULL, clock_now_ns(&store->clock));
  c->limit.shared = true;
}

static int jobs_left(struct core *core, void *arg) {
  (void)arg;
  return core->store->catalog.jobs > 0;
}

int catalog_close(struct catalog *c, struct port *port, bool give_up) {
  if (give_up) catalog_abandon_blocks(c, port);
  for (uint32_t i = 0; i < c->table_size; i++)
    for (struct vdisk *d = c->table[i]; d; d = d->next)
      if (d->open || d->pins) return -EBUSY;
  for (uint32_t i = 0; i < BLOCK_FILES_MAX; i++)
    if (c->files[i]) return -EBUSY;
  sums_stop(c, port);
  if (!give_up && !c->store->config.read_only) sums_save(c, port);
  while (store_call(port, 0, jobs_left, NULL) > 0)
    if (!c->store->config.stepped) sched_yield();
  return 0;
}
