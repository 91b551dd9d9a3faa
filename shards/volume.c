/* volume.c - a shard's volumes: open and close, the way of an op from submit to its start, which
 * writes must wait for each other, freezing, layers. See volume.h and volume_internal.h. */
#include "shards/volume_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/plant.h"

/* ---- Open and close ----------------------------------------------------------------------- */

int volumes_create(struct shard *s) {
  if (s->volumes) return 0;
  struct volumes *vs = calloc(1, sizeof *vs);
  if (!vs) return -ENOMEM;
  vs->shard = s;
  gate_init(&vs->gate, 0);
  int r = vpieces_create(vs);
  if (r) {
    vpieces_destroy(vs);
    free(vs);
    return r;
  }
  s->volumes = vs;
  return 0;
}

void volumes_destroy(struct shard *s) {
  struct volumes *vs = s->volumes;
  if (!vs) return;
  check(vs->open == NULL);
  vpieces_destroy(vs);
  sums_finish(s);
  volume_live_destroy(vs);
  free(vs);
  s->volumes = NULL;
}

/* The volume reads through what lies below its new top layer. */
static int set_top(struct shard *s, struct volume *v, uint64_t id) {
  struct map *map = manifest_map(s->manifest);
  struct layer *top = map_layer(map, id);
  if (!top) return -ENOENT;
  struct lower *lower = NULL;
  struct layer_below below = layer_below(top);
  int r = below.id ? lower_get(s, below, &lower) : 0;
  if (r) return r;
  if (unlikely(v->direct)) volume_direct_unwatch(v);
  if (v->lower) lower_put(s, v->lower);
  if (v->live && v->top) layer_set_live(v->top, false);
  if (v->live) layer_set_live(top, true);
  v->lower = lower;
  v->top = top;
  if (unlikely(v->direct)) volume_direct_watch(v);
  /* Whatever was changed before, records of the volume included, is to be durable with its flush.
   */
  v->sequence = manifest_last_change(s->manifest);
  return 0;
}

int shard_volume_open(struct shard *s, const struct volume_config *config, struct volume **out) {
  int r = volumes_create(s);
  struct volume *v = r ? NULL : calloc(1, sizeof *v);
  if (!v) return -ENOMEM;
  v->shard = s;
  v->size_bytes = config->size_bytes;
  v->block_mask = config->block_bytes - 1;
  v->file = config->file;
  v->read_only = config->read_only;
  v->live = config->live_sums && !config->read_only;
  v->summed = v->live || v->read_only;
  if (v->live) r = volume_live_create(s);
  if (!r && config->layer) r = set_top(s, v, config->layer);
  if (r) {
    free(v);
    return r;
  }
  v->next = s->volumes->open;
  v->at = &s->volumes->open;
  if (v->next) v->next->at = &v->next;
  s->volumes->open = v;
  *out = v;
  return 0;
}

int shard_volume_close(struct shard *s, struct volume *v) {
  if (v->in_flight || v->held.first || v->blocked.first || v->freezers.first) return -EBUSY;
  if (v->direct && direct_is_busy(v->direct)) return -EBUSY;
  if (v->direct) volume_direct_close(v);
  gate_queue_finish(&s->volumes->gate, &v->queue);
  if (v->lower) lower_put(s, v->lower);
  *v->at = v->next;
  if (v->next) v->next->at = v->at;
  free(v);
  return 0;
}

void shard_volume_resize(struct volume *v, uint64_t size_bytes) { v->size_bytes = size_bytes; }

int shard_volume_set_layer(struct shard *s, struct volume *v, uint64_t layer, bool read_only) {
  check(v->frozen && (v->in_flight == 0 || PLANTED(freeze_without_drain)));
  int r = set_top(s, v, layer);
  if (r) return r;
  v->read_only = read_only;
  v->summed = v->live || v->read_only;
  return 0;
}

void shard_volume_note_changes(struct shard *s, struct volume *v) {
  v->sequence = manifest_last_change(s->manifest);
}

void shard_volume_stats(const struct volume *v, struct volume_stats *stats) { *stats = v->stats; }

void shard_volume_limit_waits(const struct volume *v, struct limit_waits *waits) {
  gate_queue_waits(&v->queue, &waits->count, &waits->ns);
}

/* ---- Layers ------------------------------------------------------------------------------- */

int shard_layer_set(struct shard *s, uint64_t id, struct layer_below below) {
  struct layer *layer;
  int r = map_layer_add(manifest_map(s->manifest), id, &layer);
  if (!r) layer_set_below(layer, below);
  return r;
}

void shard_layer_stats(const struct shard *s, uint64_t id, struct layer_stats *stats) {
  struct layer *layer = map_layer(manifest_map(s->manifest), id);
  *stats = (struct layer_stats){0};
  if (layer) layer_stats(layer, stats);
}

uint64_t shard_next_orphan(const struct shard *s, uint64_t after) {
  const struct map *map = manifest_map(s->manifest);
  uint64_t next = 0;
  for (struct layer *l = map_layer_next(map, NULL); l; l = map_layer_next(map, l))
    if (!layer_is_named(l) && layer_id(l) > after && (!next || layer_id(l) < next))
      next = layer_id(l);
  return next;
}

/* ---- Which writes wait for each other -------------------------------------------------------- */

static inline struct shard_op *locked_next(const struct shard_op *op) {
  return (struct shard_op *)(uintptr_t)op->size;
}
static inline void locked_set_next(struct shard_op *op, struct shard_op *next) {
  op->size = (uintptr_t)next;
}

static inline bool overlaps(const struct shard_op *a, const struct shard_op *b) {
  return first_block(a) < end_block(b) && first_block(b) < end_block(a);
}

static inline bool is_narrow(const struct shard_op *op) {
  return first_block(op) >> CLUSTER_BLOCK_SHIFT == (end_block(op) - 1) >> CLUSTER_BLOCK_SHIFT;
}

static inline struct shard_op **bucket_of(struct volumes *vs, const struct volume *v,
                                          uint64_t cluster) {
  uint64_t x = ((uintptr_t)v >> 6) + cluster * UINT64_C(0x9e3779b97f4a7c15);
  return &vs->buckets[(x >> 40) % VOLUME_BUCKETS];
}

static bool in_list(const struct shard_op *list, const struct volume *v,
                    const struct shard_op *op) {
  for (; list; list = locked_next(list))
    if (((const struct volume_args *)&list->id)->volume == v && overlaps(list, op)) return true;
  return false;
}

static bool overlaps_narrow(struct volumes *vs, struct volume *v, const struct shard_op *op) {
  uint64_t first = first_block(op) >> CLUSTER_BLOCK_SHIFT;
  uint64_t end = ((end_block(op) - 1) >> CLUSTER_BLOCK_SHIFT) + 1;
  if (end - first >= VOLUME_BUCKETS) {
    for (uint32_t i = 0; i < VOLUME_BUCKETS; i++)
      if (in_list(vs->buckets[i], v, op)) return true;
    return false;
  }
  for (uint64_t c = first; c < end; c++)
    if (in_list(*bucket_of(vs, v, c), v, op)) return true;
  return false;
}

/* With a write that is in flight, or that waits before it: none overtakes another for ever. */
static bool must_wait(struct volumes *vs, struct volume *v, const struct shard_op *op) {
  if (PLANTED(overlapping_writes)) return false;
  if (vs->writes_in_flight && overlaps_narrow(vs, v, op)) return true;
  if (in_list(v->wide, v, op)) return true;
  for (const struct shard_op *w = v->blocked.first; w && w != op; w = w->next)
    if (overlaps(w, op)) return true;
  return false;
}

static struct shard_op **lock_list(struct volumes *vs, struct volume *v,
                                   const struct shard_op *op) {
  return is_narrow(op) ? bucket_of(vs, v, first_block(op) >> CLUSTER_BLOCK_SHIFT) : &v->wide;
}

static void lock(struct shard *s, struct shard_op *op) {
  struct volume *v = volume_args(op)->volume;
  struct shard_op **list = lock_list(s->volumes, v, op);
  op->state = VOLUME_LOCKED;
  locked_set_next(op, *list);
  *list = op;
  s->volumes->writes_in_flight++;
}

static void unlock(struct shard *s, struct volume *v, struct shard_op *op) {
  struct shard_op **list = lock_list(s->volumes, v, op), *at = *list;
  s->volumes->writes_in_flight--;
  op->state = VOLUME_NEW;
  if (at == op) {
    *list = locked_next(op);
    return;
  }
  while (locked_next(at) != op) at = locked_next(at);
  locked_set_next(at, locked_next(op));
}

bool volume_cluster_is_written(struct shard *s, struct volume *v, uint64_t cluster,
                               const struct shard_op *but) {
  uint64_t first = cluster << CLUSTER_BLOCK_SHIFT, end = first + CLUSTER_BLOCKS;
  const struct shard_op *lists[2] = {*bucket_of(s->volumes, v, cluster), v->wide};
  for (uint32_t i = 0; i < 2; i++)
    for (const struct shard_op *op = lists[i]; op; op = locked_next(op))
      if (op != but && ((const struct volume_args *)&op->id)->volume == v &&
          first_block(op) < end && first < end_block(op))
        return true;
  return false;
}

/* ---- From submit to start ------------------------------------------------------------------- */

/* What a request must be; the caller's ranges are hostile. */
static int refused(const struct volume *v, const struct shard_op *op) {
  if (op->kind == OP_SYNC) return 0;
  if ((op->offset | op->bytes) & v->block_mask) return -EINVAL;
  /* A promote is of whole blocks, also of the last one. */
  uint64_t size = op->kind == OP_PROMOTE ? round_up(v->size_bytes, BLOCK_BYTES) : v->size_bytes;
  if (op->bytes > size || op->offset > size - op->bytes) return -EINVAL;
  if (op->kind == OP_READ || op->kind == OP_WRITE) {
    if (op->bytes > UINT32_MAX || (!op->buf && op->bytes && !(op->flags & OP_RESERVE)))
      return -EINVAL;
    if (op->kind == OP_READ) return 0;
  }
  if (op->flags & OP_RESERVE && !v->top) return -EINVAL;
  if (v->read_only || op->flags & OP_READ_ONLY) return -EROFS;
  if (op->kind == OP_DISCARD && !v->top) return -EOPNOTSUPP;
  return v->failed || (v->top && manifest_stopped(v->shard->manifest)) ? -EIO : 0;
}

static void count(struct volume *v, const struct shard_op *op) {
  switch (op->kind) {
  case OP_READ:
    v->stats.reads++;
    v->stats.read_bytes += op->bytes;
    break;
  case OP_WRITE:
    v->stats.writes++;
    v->stats.write_bytes += op->bytes;
    break;
  case OP_WRITE_ZEROES:
    v->stats.zeroes++;
    break;
  case OP_DISCARD:
    v->stats.discards++;
    break;
  default:
    v->stats.syncs += op->kind == OP_SYNC;
  }
}

static enum start begin(struct shard *s, struct volume *v, struct shard_op *op) {
  if (op->kind == OP_READ && likely(op->state == VOLUME_NEW)) return volume_read_start(s, op);
  if (op->kind == OP_SYNC) return volume_sync_start(s, op);
  if (op->state != VOLUME_LOCKED) {
    if (must_wait(s->volumes, v, op)) {
      v->stats.waits++;
      op_list_push(&v->blocked, op);
      return STARTED;
    }
    lock(s, op); /* before it waits for anything: none that came later goes first */
  }
  return op->kind == OP_READ ? volume_read_start(s, op) : volume_write_start(s, op);
}

enum start volume_start(struct shard *s, struct shard_op *op) {
  if (op->work) {
    struct vio *x = op->work;
    x->parked = false;
    return vio_drive(x);
  }
  return begin(s, volume_args(op)->volume, op);
}

void volume_run(struct shard *s, struct shard_op *op) {
  enum start r = volume_start(s, op);
  if (r != STARTED) op_list_push(&s->waiting[r], op);
}

/* Admitted by the gate. */
static void launch(struct shard *s, struct shard_op *op, uint64_t now_ns) {
  if (unlikely(gate_measures(&s->volumes->gate))) op->checksum = (uint32_t)now_ns | 1;
  count(volume_args(op)->volume, op);
  volume_run(s, op);
}

static void enter(struct shard *s, struct volume *v, struct shard_op *op) {
  struct gate *g = &s->volumes->gate;
  /* A volume that is alone and without a limit needs no time, and reading it is not free. */
  uint64_t now = g->now_ns;
  if (unlikely(g->alone != &v->queue || v->queue.limit))
    now = clock_now_ns(&s->config.manifest.clock);
  op->checksum = 0; /* when it started, if that is measured */
  v->in_flight++;
  if (gate_submit(g, &v->queue, op, now)) launch(s, op, now);
}

void volume_submit(struct shard *s, struct shard_op *op) {
  struct volume *v = volume_args(op)->volume;
  op->work = NULL;
  op->state = VOLUME_NEW;
  op->size = 0;
  int r = refused(v, op);
  if (unlikely(r || (!op->bytes && op->kind != OP_SYNC))) {
    op_complete(s, op, r);
    return;
  }
  if (unlikely(v->frozen)) {
    op_list_push(&v->held, op);
    return;
  }
  enter(s, v, op);
}

void volume_submit_own(struct shard *s, struct shard_op *op) {
  struct volume *v = volume_args(op)->volume;
  s->ops++;
  if (v->frozen)
    op_list_push(&v->held, op);
  else
    enter(s, v, op);
}

void volume_prefetch(const struct shard_op *op) {
  const struct volume *v = ((const struct volume_args *)&op->id)->volume;
  if (!op_is_of_volume(op) || !v->top) return;
  layer_prefetch(v->top, op->offset >> CLUSTER_SHIFT);
  if (v->lower) view_prefetch(v->lower->view, op->offset >> BLOCK_SHIFT);
}

/* ---- The end of an op ------------------------------------------------------------------------ */

/* Writes that waited for one that is over. Those that still have to wait keep their order. */
static void run_blocked(struct shard *s, struct volume *v) {
  struct op_list again = v->blocked;
  v->blocked = (struct op_list){0};
  for (struct shard_op *op; (op = op_list_pop(&again));) volume_run(s, op);
}

static void drained(struct shard *s, struct volume *v) {
  struct op_list done = v->freezers;
  v->freezers = (struct op_list){0};
  for (struct shard_op *op; (op = op_list_pop(&done));) op_complete(s, op, 0);
}

static void leave(struct shard *s, struct volume *v, const struct shard_op *op) {
  struct gate *g = &s->volumes->gate;
  uint64_t now = 0, latency_ns = 0;
  if (unlikely(op->checksum && gate_measures(g))) {
    now = clock_now_ns(&s->config.manifest.clock);
    latency_ns = (uint32_t)now - op->checksum;
  }
  gate_done(g, &v->queue, op, latency_ns, now);
}

void volume_complete(struct shard *s, struct shard_op *op, int64_t result) {
  struct volume *v = volume_args(op)->volume;
  if (op->state == VOLUME_LOCKED) {
    unlock(s, v, op);
    if (unlikely(v->blocked.first)) run_blocked(s, v);
  }
  leave(s, v, op);
  v->in_flight--;
  op->size = 0;
  op_complete(s, op, result);
  if (unlikely(v->frozen && v->in_flight == 0)) drained(s, v);
}

/* ---- Control ----------------------------------------------------------------------------------
 */

/* Ops that wait at the gate have not begun: a limit must not hold up who freezes. */
static void hold_waiting(struct shard *s, struct volume *v) {
  struct shard_op *op = gate_queue_cancel(&s->volumes->gate, &v->queue), *next;
  for (; op; op = next) {
    next = op->next;
    v->in_flight--;
    op_list_push(&v->held, op);
  }
}

static void freeze(struct shard *s, struct shard_op *op) {
  struct volume *v = volume_args(op)->volume;
  if (!v->frozen++) hold_waiting(s, v);
  if (v->in_flight == 0 || PLANTED(freeze_without_drain))
    op_complete(s, op, 0);
  else
    op_list_push(&v->freezers, op);
}

static void thaw(struct shard *s, struct shard_op *op) {
  struct volume *v = volume_args(op)->volume;
  check(v->frozen > 0);
  v->frozen--;
  struct op_list held = v->held;
  if (!v->frozen) v->held = (struct op_list){0};
  op_complete(s, op, 0);
  for (struct shard_op *next; !v->frozen && (next = op_list_pop(&held));) {
    if (next->kind == OP_PROMOTE)
      enter(s, v, next); /* it was looked at when it came */
    else
      volume_submit(s, next);
  }
}

/* Ops that waited at the gate: their time has come, or others have made way. */
static bool pass_gate(struct shard *s) {
  struct gate *g = &s->volumes->gate;
  if (likely(!g->waiting)) return false;
  uint64_t now = clock_now_ns(&s->config.manifest.clock);
  bool did = false;
  for (struct shard_op *op; (op = gate_next(g, now)); did = true) launch(s, op, now);
  return did;
}

static void hurry(struct shard *s, struct shard_op *op) {
  struct volume *v = volume_args(op)->volume;
  check(op->bytes && op->bytes <= GATE_HURRY_ALL && (op->offset || v->hurries[op->bytes]));
  v->hurries[op->bytes] += op->offset ? 1 : UINT32_MAX;
  gate_queue_hurry(&s->volumes->gate, &v->queue,
                   v->hurries[GATE_HURRY_ALL]    ? GATE_HURRY_ALL
                   : v->hurries[GATE_HURRY_SOME] ? GATE_HURRY_SOME
                                                 : GATE_HURRY_NONE,
                   clock_now_ns(&s->config.manifest.clock));
  op_complete(s, op, 0);
  pass_gate(s);
}

static void resolve(struct shard *s, struct shard_op *op) {
  struct resolve_request *q = op->buf;
  const struct map *map = manifest_map(s->manifest);
  uint32_t self = s->config.manifest.shard;
  q->next_leaf = UINT64_MAX;
  struct layer_below at = q->from;
  for (const struct layer *l; at.id && at.shard == self && (l = map_layer(map, at.id));
       at = layer_below(l))
    q->next_leaf = min_u64(q->next_leaf, layer_next_leaf(l, q->leaf + 1));
  q->from = layer_resolve(map, q->from, self, q->leaf, &q->resolved);
  op_complete(s, op, 0);
}

void volume_control(struct shard *s, struct shard_op *op) {
  s->others++;
  if (volumes_create(s)) {
    op_complete(s, op, -ENOMEM);
    return;
  }
  switch (op->kind) {
  case OP_FREEZE:
    freeze(s, op);
    break;
  case OP_THAW:
    thaw(s, op);
    break;
  case OP_HURRY:
    hurry(s, op);
    break;
  case OP_RESOLVE:
    resolve(s, op);
    break;
  case OP_VIEWS_DROP:
    views_drop(s, op);
    break;
  default:
    job_submit(s, op);
  }
}

bool volumes_tick(struct shard *s) {
  bool did = pass_gate(s);
  if (unlikely(s->volumes->live)) live_tick(s);
  return (!s->read_only && jobs_tick(s)) | did;
}

bool volumes_idle(const struct shard *s) { return !s->volumes || !s->volumes->asked; }

uint64_t shard_wake_ns(const struct shard *s) {
  if (!s->volumes) return UINT64_MAX;
  return min_u64(gate_wake_ns(&s->volumes->gate), live_wake_ns(s));
}

/* Who is not limited by anything passes the gate without looking at the time. */
static void set_limit(struct shard *s, struct volume *v, uint64_t now_ns) {
  struct limit *limit = v->limit;
  while (limit && !limit_is_on(limit)) limit = limit->parent;
  gate_queue_set_limit(&s->volumes->gate, &v->queue, limit, now_ns);
  if (unlikely(v->direct)) direct_allow(v->direct, !limit);
}

void shard_volume_set_limit(struct shard *s, struct volume *v, struct limit *limit) {
  v->limit = limit;
  set_limit(s, v, clock_now_ns(&s->config.manifest.clock));
}

void shard_limits_changed(struct shard *s) {
  if (!s->volumes) return;
  uint64_t now = clock_now_ns(&s->config.manifest.clock);
  for (struct volume *v = s->volumes->open; v; v = v->next) set_limit(s, v, now);
  gate_limits_changed(&s->volumes->gate, now);
}
