/* volume_live.c - checksums of what is written to volumes with integrity=on. Owned by the shard's
 * thread.
 *
 * In memory a block has the checksum of the last write to it that has completed. On disk it cannot
 * be right at every moment where blocks are overwritten in place, so for each leaf it is one of
 *
 *   cold   log and checkpoints may have checksums, and all that they have are right
 *   hot    they have none
 *
 *        write over data, discard:                  not written for a while, or
 *        void entry; writes to the leaf             at the end: an entry with all
 *   cold ----------------------------------> hot ----------------------------------> cold
 *        wait until it is durable                   (nothing in flight)
 *
 * What counts on disk at any moment of a crash is therefore either nothing, or checksums of data
 * that was written before their entry, is covered by the flush that makes the entry count, and is
 * not overwritten before the void entry is durable. First writes go to blocks that have none on
 * disk: they wait for nothing. A discard makes a block one of those, hence the void entry of
 * discards.
 *
 * A write in flight pins its leaf. Its pieces' checksums are collected in vio->sums and go to the
 * leaf with its end; a write that fails leaves its blocks without. So does one whose memory was not
 * the same before and after: guests go on writing to pages that are on their way to the disk, and
 * nobody knows which of it the device has got. Such blocks get theirs when the leaf is quiet. */
#include "shards/volume_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/plant.h"

#define SAVE_NS         UINT64_C(30000000000) /* the default of shard_config.live_save_ns */
#define QUIET_TURNS     2u
#define SAVES_PER_TICK  4u
#define SAVED_LOG_SHARE 4u /* of the log, at the end */
#define STUCK_NS        UINT64_C(1000000000)

struct live {
  struct shard_op op; /* the shard's own OP_LAYER_SUM */
  struct shard *shard;
  bool busy;
  uint64_t layer; /* layers up to this one have had their turn */
  uint64_t next_ns, stamp;
  uint64_t stuck_ns; /* at the end: when the log had no room first; 0: it has */
  uint32_t turn;
  uint32_t sums[VIOS_MAX][LEAF_BLOCKS];
};

enum voiding { VOID_NOT = 0, VOID_ASKED, VOID_AWAITED, VOID_DURABLE };

int volume_live_create(struct shard *s) {
  struct volumes *vs = s->volumes;
  if (vs->live) return 0;
  vs->live = calloc(1, sizeof *vs->live);
  if (!vs->live) return -ENOMEM;
  vs->live->shard = s;
  vs->live->turn = QUIET_TURNS;
  vs->live->layer = UINT64_MAX;
  return 0;
}

void volume_live_destroy(struct volumes *vs) { free(vs->live); }

/* ---- Before a chunk goes out ----------------------------------------------------------------- */

uint32_t *live_sums_of(const struct vio *x) {
  struct volumes *vs = x->volume->shard->volumes;
  return vs->live->sums[x - vs->vios];
}

static uint64_t leaf_of(const struct vio *x) { return x->chunk_at >> LEAF_SHIFT; }

static bool sends_data(const struct vio *x) {
  uint16_t any = 0;
  if (x->op->flags & OP_RESERVE) return false;
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) any |= x->bits[i];
  return any;
}

/* Blocks that have data get other data, or lose it. */
static bool overtakes(const struct vio *x, const struct cluster *have) {
  uint16_t any = 0;
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) {
    uint16_t zeros = PLANTED(discards_keep_checksums) ? 0 : x->zeros[i];
    any |= (x->bits[i] | zeros) & have[i].valid;
  }
  return any;
}

static void void_is_durable(struct manifest_waiter *waiter, int result) {
  struct vio *x = container_of(waiter, struct vio, waiter);
  bool asked = x->voiding == VOID_ASKED; /* live_prepare() is still there */
  x->voiding = VOID_DURABLE;
  if (asked) return;
  if (result)
    vio_fail(x, result);
  else
    volume_run(x->volume->shard, x->op);
}

static bool is_void(const struct manifest *m, const struct live_sums *l) {
  return !l->voided || manifest_is_durable(m, l->voided) || PLANTED(overwrite_before_void);
}

static int await_void(struct vio *x, const struct live_sums *l) {
  struct manifest *m = x->volume->shard->manifest;
  if (is_void(m, l)) return 0;
  if (manifest_stopped(m)) return -EIO;
  x->voiding = VOID_ASKED;
  x->waiter = (struct manifest_waiter){.done = void_is_durable, .sequence = l->voided};
  manifest_commit(m, &x->waiter);
  if (x->voiding == VOID_DURABLE) return 0;
  x->voiding = VOID_AWAITED;
  return -EINPROGRESS;
}

static int make_hot(struct vio *x) {
  struct manifest *m = x->volume->shard->manifest;
  struct layer *top = x->volume->top;
  int r = layer_spread_sums(manifest_map(m), top, leaf_of(x));
  struct live_sums *l = r ? NULL : layer_live_sums(top, leaf_of(x));
  if (r || l->hot) return r;
  if (PLANTED(keep_checksums)) return 0;
  r = manifest_reserve_void(m);
  if (!r) l->voided = manifest_void_sums(m, top, leaf_of(x));
  return r;
}

int live_prepare(struct vio *x) {
  struct layer *top = x->volume->top;
  const struct cluster *have = layer_leaf(top, leaf_of(x));
  if (!have) return 0;
  struct live_sums *l = layer_live_sums(top, leaf_of(x));
  if (!(l && l->hot) && (l || layer_sums(top, leaf_of(x))) && overtakes(x, have)) {
    int r = make_hot(x);
    if (r) return r;
    l = layer_live_sums(top, leaf_of(x));
  }
  return l && sends_data(x) ? await_void(x, l) : 0;
}

int live_pin(struct vio *x) {
  struct volume *v = x->volume;
  if (!sends_data(x)) return 0;
  int r = layer_pin_leaf(manifest_map(v->shard->manifest), v->top, leaf_of(x));
  x->pinned = !r;
  if (r) write_cancel(x);
  return r;
}

/* ---- And when it is down --------------------------------------------------------------------- */

void live_written(const struct vpiece *p) {
  struct vio *x = p->vio;
  uint64_t first = p->at >> BLOCK_SHIFT, block = first;
  uint32_t all = 0;
  for (uint32_t at = 0, row; at < p->io.bytes; at += row) {
    const char *data = io_memory(&p->io, at, &row);
    for (uint32_t in = 0; in < row; in += BLOCK_BYTES) {
      uint32_t one = crc32c(0, data + in, BLOCK_BYTES);
      x->sums[block++ % LEAF_BLOCKS] = one;
      all = crc32c(all, &one, sizeof one);
    }
  }
  if (likely(p->bounce || all == p->crc)) return;
  x->any_torn = true;
  for (uint64_t b = first; b < block; b++)
    x->torn[b / CLUSTER_BLOCKS % LEAF_CLUSTERS] |= cluster_bits(b % CLUSTER_BLOCKS, 1);
}

/* Without memory the blocks have none: they had none before, or the sums were spread. */
static void put(struct vio *x, struct map *map, const uint32_t *sums) {
  struct layer *top = x->volume->top;
  if (!sums && !layer_live_sums(top, leaf_of(x))) return;
  if (layer_spread_sums(map, top, leaf_of(x))) return;
  layer_put_sums(map, top, leaf_of(x), x->bits, sums);
  if (unlikely(x->any_torn)) layer_put_sums(map, top, leaf_of(x), x->torn, NULL);
}

static void end(struct vio *x, const uint32_t *sums) {
  struct volume *v = x->volume;
  struct map *map = manifest_map(v->shard->manifest);
  struct live *g = v->shard->volumes->live;
  if (x->pinned) put(x, map, sums);
  struct live_sums *l = layer_live_sums(v->top, leaf_of(x));
  if (l) {
    l->stamp = ++g->stamp;
    l->turn = g->turn;
  }
  if (x->pinned) layer_unpin_leaf(map, v->top, leaf_of(x));
  x->pinned = false;
}

void live_apply(struct vio *x) { end(x, x->sums); }
void live_cancel(struct vio *x) { end(x, NULL); }

/* ---- Short path ------------------------------------------------------------------------------ */

bool live_overwrite(struct volume *v, const struct shard_op *op) {
  uint64_t leaf = op->offset >> LEAF_SHIFT;
  const struct live_sums *l = layer_live_sums(v->top, leaf);
  if ((op->offset + op->bytes - 1) >> LEAF_SHIFT != leaf || !l || !l->hot) return false;
  return is_void(v->shard->manifest, l) &&
         !layer_pin_leaf(manifest_map(v->shard->manifest), v->top, leaf);
}

static void forget(struct map *map, struct layer *top, const struct shard_op *op) {
  uint16_t bits[LEAF_CLUSTERS] = {0};
  for (uint64_t b = first_block(op); b < end_block(op); b++)
    bits[b / CLUSTER_BLOCKS % LEAF_CLUSTERS] |= cluster_bits(b % CLUSTER_BLOCKS, 1);
  layer_put_sums(map, top, op->offset >> LEAF_SHIFT, bits, NULL);
}

void live_overwritten(struct volume *v, const struct shard_op *op, bool good) {
  struct map *map = manifest_map(v->shard->manifest);
  struct live *g = v->shard->volumes->live;
  const char *data = op->buf;
  uint32_t all = 0;
  for (uint64_t b = first_block(op); good && b < end_block(op); b++, data += BLOCK_BYTES) {
    uint32_t one = crc32c(0, data, BLOCK_BYTES);
    all = crc32c(all, &one, sizeof one);
    layer_put_sum(map, v->top, b, one);
  }
  if (unlikely(!good || all != (uint32_t)op->block)) forget(map, v->top, op);
  struct live_sums *l = layer_live_sums(v->top, op->offset >> LEAF_SHIFT);
  l->stamp = ++g->stamp;
  l->turn = g->turn;
  layer_unpin_leaf(map, v->top, op->offset >> LEAF_SHIFT);
}

/* ---- Saving ---------------------------------------------------------------------------------- */

bool live_is_quiet(const struct shard *s, const struct layer *layer, uint64_t leaf) {
  const struct live_sums *l = layer_live_sums(layer, leaf);
  if (layer_is_pinned(layer, leaf)) return false;
  /* A block that was discarded meanwhile is overwritten without a void entry of its own: that of
   * the discard must be durable, and with the sums in the log nobody would wait for it. */
  if (l && !is_void(s->manifest, l) && !PLANTED(forget_the_void)) return false;
  return !l || s->volumes->live->turn - l->turn >= QUIET_TURNS;
}

/* The live layer with the next higher id that has something to be saved. */
static struct layer *next_layer(const struct shard *s, uint64_t after) {
  const struct map *map = manifest_map(s->manifest);
  struct layer *next = NULL;
  for (struct layer *l = NULL; (l = map_layer_next(map, l)) != NULL;)
    if (layer_is_live(l) && layer_unsaved_leaves(l) && layer_id(l) > after &&
        (!next || layer_id(l) < layer_id(next)))
      next = l;
  return next;
}

static int save_leaf(struct shard *s, struct shard_op *op, struct layer *layer, uint64_t leaf) {
  struct leaf_sums sums;
  const struct live_sums *l = layer_live_sums(layer, leaf);
  if (!l || !l->unsaved || layer_is_pinned(layer, leaf)) return 0;
  int r = manifest_reserve_sums(s->manifest);
  if (r) return r;
  memset(&sums.has, 0, sizeof sums.has);
  if (layer_sums(layer, leaf)) block_sums_unpack(layer_sums(layer, leaf), &sums);
  op->size += sums_count(sums.has) * sizeof sums.sum[0];
  return manifest_set_sums(s->manifest, layer, leaf, &sums);
}

/* A log without room gets some by a checkpoint, unless the region is full. The end need not wait
 * for that. */
static int no_room(struct shard *s, int r) {
  struct live *g = s->volumes->live;
  uint64_t now = clock_now_ns(&s->config.manifest.clock);
  if (r == -ENOMEM) return 0;
  if (r != -EAGAIN) return r;
  if (!g->stuck_ns) g->stuck_ns = now | 1;
  if (now - g->stuck_ns <= STUCK_NS) return -EAGAIN;
  g->stuck_ns = 0;
  return 0;
}

/* op->offset: the layer, op->block: the leaf to go on from, op->size: bytes logged so far. */
int live_save_some(struct shard *s, struct shard_op *op) {
  uint64_t most = (s->region->log_blocks << BLOCK_SHIFT) / SAVED_LOG_SHARE;
  if (!s->volumes->live) return 0;
  struct layer *layer = op->offset ? map_layer(manifest_map(s->manifest), op->offset) : NULL;
  for (uint32_t i = 0; i < SAVES_PER_TICK && op->size < most; i++) {
    uint64_t leaf = layer ? layer_next_leaf(layer, op->block) : UINT64_MAX;
    if (leaf == UINT64_MAX) {
      layer = next_layer(s, op->offset);
      if (!layer) return 0;
      op->offset = layer_id(layer);
      op->block = 0;
      continue;
    }
    int r = save_leaf(s, op, layer, leaf);
    if (r) return no_room(s, r);
    s->volumes->live->stuck_ns = 0;
    op->block = leaf + 1;
  }
  return op->size < most ? -EINPROGRESS : 0;
}

static bool may_save(const struct shard *s) {
  const struct volumes *vs = s->volumes;
  return vs->live && !s->read_only && !vs->sums_stopped && !manifest_stopped(s->manifest) &&
         map_unsaved_leaves(manifest_map(s->manifest)) > 0;
}

static void saved(struct shard_op *op) { container_of(op, struct live, op)->busy = false; }

void live_tick(struct shard *s) {
  struct live *g = s->volumes->live;
  uint64_t period = s->config.live_save_ns ? s->config.live_save_ns : SAVE_NS;
  if (g->busy || !may_save(s)) return;
  uint64_t now = clock_now_ns(&s->config.manifest.clock);
  if (!g->next_ns || now >= g->next_ns) {
    g->turn += g->next_ns != 0;
    g->next_ns = now + period;
    g->layer = 0;
  }
  const struct layer *layer = g->layer == UINT64_MAX ? NULL : next_layer(s, g->layer);
  g->layer = layer ? layer_id(layer) : UINT64_MAX;
  if (!layer) return;
  g->busy = true;
  g->op = (struct shard_op){
      .kind = OP_LAYER_SUM, .done = saved, .offset = layer_id(layer), .bytes = SUM_LIVE};
  s->ops++;
  job_submit(s, &g->op);
}

uint64_t live_wake_ns(const struct shard *s) {
  const struct live *g = s->volumes->live;
  if (g && g->stuck_ns) return g->stuck_ns + STUCK_NS + 1;
  return g && !g->busy && g->next_ns && may_save(s) ? g->next_ns : UINT64_MAX;
}
