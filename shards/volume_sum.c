/* volume_sum.c - OP_LAYER_SUM: blocks of a layer that have no checksum yet get one. Owned by the
 * shard's thread; one leaf at a time, in ticks, beside requests, with reads of its own.
 *
 * For each leaf: blocks with data that have none yet are read, then one change of the log has the
 * sums of the whole leaf. Jobs run one after the other, so nobody merges or drops the layer
 * meanwhile; but between two leaves it makes way for jobs that take places back. What is summed is
 * what was written: the log counts only after a flush, which covers the data as well.
 *
 * Of a layer that is written to (SUM_LIVE) those leaves that are quiet: nothing was written for a
 * while and nothing is in flight. If a write comes before the leaf is done, all that was read of it
 * counts for nothing, and it has its turn again later. */
#include "shards/volume_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/plant.h"

#define SUM_READS      2u
#define SUM_READ_BYTES (128u << 10)
#define SUM_BESIDE     16u /* blocks of a read beside requests */
#define SKIPS_PER_TICK 64u /* leaves that have all their sums */

struct sum_read {
  struct io io;
  struct summing *of;
  uint32_t block; /* the first one, in the leaf */
  uint16_t generation;
  bool busy;
};

struct summing {
  struct shard *shard;
  struct layer *layer;
  uint64_t leaf;
  bool active; /* a leaf has begun */
  bool live;
  uint64_t stamp; /* live: of the leaf's last write before */
  int error;
  uint32_t next, in_flight; /* blocks before `next` are read or need not be */
  uint64_t missing[SUMS_WORDS];
  struct leaf_sums sums;
  struct sum_read reads[SUM_READS];
  char *bufs;
};

/* ---- Life ---------------------------------------------------------------------------------- */

static struct summing *summing_get(struct shard *s) {
  struct summing *g = s->volumes->summing;
  if (g) return g;
  g = calloc(1, sizeof *g);
  if (!g) return NULL;
  g->bufs = aligned_alloc(BLOCK_BYTES, (size_t)SUM_READS * SUM_READ_BYTES);
  if (!g->bufs) {
    free(g);
    return NULL;
  }
  g->shard = s;
  for (uint32_t i = 0; i < SUM_READS; i++) {
    g->reads[i].of = g;
    g->reads[i].io.buf = g->bufs + (size_t)i * SUM_READ_BYTES;
  }
  return s->volumes->summing = g;
}

void sums_finish(struct shard *s) {
  struct summing *g = s->volumes->summing;
  if (!g) return;
  check(g->in_flight == 0);
  free(g->bufs);
  free(g);
  s->volumes->summing = NULL;
}

void shard_sums_stop(struct shard *s) {
  if (s->volumes) s->volumes->sums_stopped = true;
}

uint64_t shard_unsummed_blocks(const struct shard *s, uint64_t layer) {
  struct layer_stats stats;
  shard_layer_stats(s, layer, &stats);
  return stats.valid_blocks - stats.summed_blocks;
}

void shard_forget_sums(struct shard *s, uint64_t id) {
  struct map *map = manifest_map(s->manifest);
  struct layer *layer = map ? map_layer(map, id) : NULL;
  static const struct leaf_sums none;
  if (!layer) return;
  for (uint64_t leaf = layer_next_leaf(layer, 0); leaf != UINT64_MAX;
       leaf = layer_next_leaf(layer, leaf + 1))
    check(layer_set_sums(map, layer, leaf, &none) == 0); /* takes no memory */
}

void shard_forget_old_sums(struct shard *s, uint64_t id) {
  struct map *map = manifest_map(s->manifest);
  struct layer *layer = map ? map_layer(map, id) : NULL;
  static const struct leaf_sums none;
  if (!layer || !manifest_has_losses(s->manifest)) return;
  for (uint64_t leaf = layer_next_leaf(layer, 0); leaf != UINT64_MAX;
       leaf = layer_next_leaf(layer, leaf + 1))
    if (manifest_leaf_is_old(s->manifest, id, leaf))
      check(layer_set_sums(map, layer, leaf, &none) == 0); /* takes no memory */
}

/* ---- Reading ------------------------------------------------------------------------------- */

static bool is_missing(const struct summing *g, uint32_t block) {
  return g->missing[block / 64] >> block % 64 & 1;
}

static void sum_read_done(struct io *io) {
  struct sum_read *x = container_of(io, struct sum_read, io);
  struct summing *g = x->of;
  space_read_end(g->shard->space, x->generation);
  x->busy = false;
  g->in_flight--;
  if (io->result) {
    if (!g->error) g->error = io->result;
    return;
  }
  const char *data = io->buf;
  for (uint32_t i = 0; i < io->bytes >> BLOCK_SHIFT; i++)
    leaf_sums_set(&g->sums, x->block + i,
                  crc32c(0, data + ((size_t)i << BLOCK_SHIFT), BLOCK_BYTES));
}

static uint32_t place_of(const struct cluster *clusters, uint32_t block) {
  return clusters[block / CLUSTER_BLOCKS].place + block % CLUSTER_BLOCKS;
}

/* The next blocks that lie in a row; 0: there are none. */
static uint32_t next_run(struct summing *g, const struct cluster *clusters, uint32_t max) {
  while (g->next < LEAF_BLOCKS && !is_missing(g, g->next)) g->next++;
  uint32_t n = 0, first = g->next;
  if (first == LEAF_BLOCKS) return 0;
  while (n < max && first + n < LEAF_BLOCKS && is_missing(g, first + n) &&
         place_of(clusters, first + n) == place_of(clusters, first) + n)
    n++;
  return n;
}

static void read_more(struct shard *s, struct summing *g) {
  const struct cluster *clusters = layer_leaf(g->layer, g->leaf);
  bool alone = s->ops <= 1; /* beside requests it takes less */
  uint32_t reads = alone ? SUM_READS : 1;
  uint32_t blocks = alone ? SUM_READ_BYTES >> BLOCK_SHIFT : SUM_BESIDE;
  for (uint32_t i = 0; i < SUM_READS && g->in_flight < reads && clusters; i++) {
    struct sum_read *x = &g->reads[i];
    if (x->busy) continue;
    uint32_t n = next_run(g, clusters, blocks);
    if (!n) return;
    x->block = g->next;
    x->io = (struct io){.done = sum_read_done, .buf = x->io.buf, .op = IO_READ};
    n = (uint32_t)region_map(s->region, place_of(clusters, g->next), n, &x->io);
    x->io.bytes = n << BLOCK_SHIFT;
    x->generation = (uint16_t)space_read_begin(s->space);
    x->busy = true;
    g->in_flight++;
    g->next += n;
    device_submit(s->device, &x->io);
  }
}

/* ---- Leaf by leaf ---------------------------------------------------------------------------- */

/* Which blocks of the leaf have data and no sum. False: none, and the log has all that there are.
 */
static bool find_missing(struct summing *g) {
  const struct cluster *clusters = layer_leaf(g->layer, g->leaf);
  const struct block_sums *have = layer_sums(g->layer, g->leaf);
  uint64_t any = 0;
  memset(g->missing, 0, sizeof g->missing);
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    g->missing[i / 4] |= (uint64_t)clusters[i].valid << i % 4 * CLUSTER_BLOCKS;
  for (uint32_t i = 0; i < SUMS_WORDS; i++)
    any |= g->missing[i] &= ~(have ? have->has[i] : UINT64_C(0));
  const struct live_sums *l = layer_live_sums(g->layer, g->leaf);
  if (!any && !(l && l->unsaved)) return false;
  if (have) block_sums_unpack(have, &g->sums);
  if (!have) memset(g->sums.has, 0, sizeof g->sums.has);
  return true;
}

/* A live leaf: whether it may begin. Without memory it has its turn another time. */
static bool begin_live(struct shard *s, struct summing *g) {
  if (!live_is_quiet(s, g->layer, g->leaf) ||
      layer_spread_sums(manifest_map(s->manifest), g->layer, g->leaf))
    return false;
  g->stamp = layer_live_sums(g->layer, g->leaf)->stamp;
  return true;
}

/* A write has been, or is in flight. */
static bool is_overtaken(const struct summing *g) {
  if (!g->live || PLANTED(sum_beside_writes)) return false;
  const struct live_sums *l = layer_live_sums(g->layer, g->leaf);
  return !l || l->stamp != g->stamp || layer_is_pinned(g->layer, g->leaf);
}

/* The next leaf that misses some: 0. -ENODATA: there is none. -EINPROGRESS: still looking. */
static int next_leaf(struct shard *s, struct summing *g, uint64_t *from) {
  for (uint32_t i = 0; i < SKIPS_PER_TICK; i++) {
    g->leaf = layer_next_leaf(g->layer, *from);
    if (g->leaf == UINT64_MAX) return -ENODATA;
    *from = g->leaf + 1;
    if (!find_missing(g) || (g->live && !begin_live(s, g))) continue;
    g->next = 0;
    g->active = true;
    return 0;
  }
  return -EINPROGRESS;
}

/* What blocks could not be read have none. -EAGAIN: no room in the log now. */
static int keep_sums(struct shard *s, struct summing *g) {
  int r = room_is_awaited(s) ? -EAGAIN : manifest_reserve_sums(s->manifest);
  if (r == -EAGAIN) return r;
  if (!r) r = manifest_set_sums(s->manifest, g->layer, g->leaf, &g->sums);
  g->active = false;
  return r;
}

/* Others wait that free space, or that somebody waits for. */
static bool makes_way(struct volumes *vs) {
  const struct shard_op *op = vs->jobs.first;
  while (op && op->kind == OP_LAYER_SUM) op = op->next;
  if (!op) return false;
  op_list_push(&vs->jobs, op_list_pop(&vs->jobs));
  return true;
}

/* Those that were resolved before the sums were there. */
static int end(struct shard *s, int result) {
  if (!s->volumes->summing->live) lowers_forget_unsummed(s);
  sums_finish(s);
  return result;
}

static void set_mode(struct summing *g, bool live) {
  g->live = live;
  layer_set_live(g->layer, live);
  if (!live) layer_set_summed(g->layer);
}

/* op->block: the leaf to go on from; op->checksum: an error of reads, negated. */
int sum_some(struct shard *s, struct shard_op *op) {
  struct volumes *vs = s->volumes;
  if (op->bytes == SUM_SAVE) return live_save_some(s, op);
  struct summing *g = summing_get(s);
  if (!g || (op->bytes == SUM_LIVE && volume_live_create(s))) return -ENOMEM;
  if (!g->active) {
    g->layer = map_layer(manifest_map(s->manifest), op->offset);
    if (!g->layer) return end(s, 0);
    if (vs->sums_stopped) return end(s, -ECANCELED);
    set_mode(g, op->bytes == SUM_LIVE);
    if (makes_way(vs)) return -EINPROGRESS;
    g->error = 0;
    int r = next_leaf(s, g, &op->block);
    if (r == -ENODATA) return end(s, -(int)op->checksum);
    if (r) return r;
  }
  bool overtaken = is_overtaken(g);
  if (!vs->sums_stopped && !overtaken) read_more(s, g);
  if (g->in_flight) return -EAGAIN;
  if (vs->sums_stopped || overtaken) {
    g->active = false;
    return -EINPROGRESS;
  }
  if (g->error) op->checksum = (uint32_t)-g->error;
  int r = keep_sums(s, g);
  if (r == -EAGAIN) return r;
  return r ? end(s, r) : -EINPROGRESS;
}
