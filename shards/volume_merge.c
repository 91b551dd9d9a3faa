/* volume_merge.c - OP_LAYER_MERGE: what a layer has that the one above it has not moves up into
 * that one. Owned by the shard's thread; one merge at a time, in ticks.
 *
 * For each leaf of the lower layer:
 *
 *   clusters that both have, the upper one without all blocks    OP_PROMOTE through the volume
 * above, which keeps writes apart; then one change of the log, atomic: clusters that the upper one
 * lacks change hands, their place stays; all others of the lower layer become empty
 *
 * So at any moment, and after any crash, both layers together say the same. Places that became
 * empty may still be remembered by views, here and in other shards: they are collected, and given
 * back when all shards have forgotten (OP_VIEWS_DROP). */
#include "shards/volume_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define GARBAGE_MAX 1024u

struct merge {
  struct shard *shard;
  struct shard_op promote, forget;
  struct layer *to; /* the upper one */
  uint64_t leaf;    /* all before it are done */
  uint32_t garbage_count;
  uint32_t forgotten; /* shards that have */
  bool busy;          /* an op of ours is on its way */
  int error;
  struct extent garbage[GARBAGE_MAX];
};

/* ---- Giving places back ---------------------------------------------------------------------- */

static void ask_next_to_forget(struct merge *g) {
  struct shard *s = g->shard;
  if (g->forgotten == s->config.manifest.shard_count) {
    space_free(s->space, g->garbage, g->garbage_count);
    g->garbage_count = 0;
    g->busy = false;
    return;
  }
  g->forget = (struct shard_op){.kind = OP_VIEWS_DROP};
  s->config.ask(s->config.ask_arg, &g->forget, g->forgotten);
}

void merge_answered(struct shard_op *op) {
  struct merge *g = container_of(op, struct merge, forget);
  g->shard->volumes->asked--;
  g->forgotten++;
  if (g->forgotten < g->shard->config.manifest.shard_count) g->shard->volumes->asked++;
  ask_next_to_forget(g);
}

static void give_back(struct merge *g) {
  g->busy = true;
  g->forgotten = 0;
  g->shard->volumes->asked++;
  ask_next_to_forget(g);
}

static void collect(struct merge *g, uint32_t place) {
  struct extent *last = g->garbage_count ? &g->garbage[g->garbage_count - 1] : NULL;
  if (last && last->block + last->blocks == place)
    last->blocks += CLUSTER_BLOCKS;
  else
    g->garbage[g->garbage_count++] = (struct extent){place, CLUSTER_BLOCKS};
}

/* ---- One leaf -------------------------------------------------------------------------------- */

static void promoted(struct shard_op *op) {
  struct merge *g = container_of(op, struct merge, promote);
  if (op->result < 0) g->error = (int)op->result;
  g->busy = false;
}

/* Blocks of the lower cluster that count and the upper one says nothing of. */
static uint16_t wanted(struct cluster lower, struct cluster upper) {
  return lower.valid & (uint16_t) ~(upper.valid | upper.zero);
}

/* The first cluster of the leaf whose blocks must be copied; LEAF_CLUSTERS: none. */
static uint32_t find_mixed(const struct cluster *lower, const struct cluster *upper) {
  uint32_t slot = 0;
  while (slot < LEAF_CLUSTERS && !(upper && upper[slot].place && wanted(lower[slot], upper[slot])))
    slot++;
  return slot;
}

static void promote(struct shard *s, struct merge *g, struct volume *v, uint32_t slot) {
  g->busy = true;
  g->promote = (struct shard_op){.kind = OP_PROMOTE, .done = promoted};
  volume_args(&g->promote)->volume = v;
  g->promote.offset = (g->leaf << LEAF_SHIFT) + ((uint64_t)slot << CLUSTER_SHIFT);
  g->promote.bytes = UINT64_C(1) << CLUSTER_SHIFT;
  volume_submit_own(s, &g->promote);
}

/* Blocks that change hands keep their checksums, in a layer whose blocks have some. */
static bool take_sums(const struct layer *from, const struct layer *to, uint64_t leaf,
                      struct leaf_sums *sums) {
  bool wants = layer_is_summed(to) || layer_is_live(to);
  const struct block_sums *have = wants ? layer_sums(from, leaf) : NULL;
  if (have) block_sums_unpack(have, sums);
  return have;
}

/* In one that is written to they are in memory, and logged with all others when it is quiet. */
static void give_live_sums(struct shard *s, struct layer *to, uint64_t leaf,
                           const struct leaf_sums *sums, const uint16_t moved[LEAF_CLUSTERS]) {
  struct map *map = manifest_map(s->manifest);
  uint16_t bits[LEAF_CLUSTERS];
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    bits[i] = moved[i] & (uint16_t)(sums->has[i / 4] >> i % 4 * CLUSTER_BLOCKS);
  if (!layer_spread_sums(map, to, leaf)) layer_put_sums(map, to, leaf, bits, sums->sum);
}

/* moved: those of the lower layer whose place it was. */
static void give_sums(struct shard *s, struct layer *to, uint64_t leaf, struct leaf_sums *sums,
                      const uint16_t moved[LEAF_CLUSTERS]) {
  const struct block_sums *have = layer_sums(to, leaf);
  for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
    if (!(moved[i / CLUSTER_BLOCKS] >> i % CLUSTER_BLOCKS & 1))
      sums->has[i / 64] &= ~(UINT64_C(1) << i % 64);
    if (have && block_sums_has(have, i)) leaf_sums_set(sums, i, block_sums_at(have, i));
  }
  (void)manifest_set_sums(s->manifest, to, leaf, sums); /* without memory they have none */
}

/* Room in the log, and the leaf. */
static int reserve_hand_over(struct shard *s, struct merge *g, struct layer *to, bool sums) {
  int r = manifest_reserve_map(s->manifest, LEAF_CLUSTERS, false);
  if (r) return r;
  if (sums) r = manifest_reserve_sums(s->manifest);
  if (!r) {
    r = layer_pin_leaf(manifest_map(s->manifest), to, g->leaf);
    if (r && sums) manifest_cancel_sums(s->manifest);
  }
  if (r) manifest_cancel_map(s->manifest, LEAF_CLUSTERS);
  return r;
}

static int hand_over(struct shard *s, struct merge *g, struct layer *from, struct layer *to) {
  struct map *map = manifest_map(s->manifest);
  struct cluster next[LEAF_CLUSTERS], lower[LEAF_CLUSTERS];
  uint64_t which_from = 0, which_to = 0;
  uint16_t data_of[LEAF_CLUSTERS] = {0};
  struct leaf_sums sums;
  bool summed = take_sums(from, to, g->leaf, &sums), live = layer_is_live(to);
  int r = reserve_hand_over(s, g, to, summed && !live);
  if (r) return r;
  const struct cluster *upper = layer_leaf(to, g->leaf);
  memcpy(lower, layer_leaf(from, g->leaf), sizeof lower);
  for (uint32_t slot = 0; slot < LEAF_CLUSTERS; slot++) {
    struct cluster f = lower[slot], u = upper[slot];
    if (cluster_is_empty(f)) continue;
    which_from |= UINT64_C(1) << slot;
    uint16_t data = wanted(f, u), zeros = f.zero & (uint16_t) ~(u.valid | u.zero);
    if (!data && !zeros) continue;
    check(!data || !u.place);
    data_of[slot] = data;
    which_to |= UINT64_C(1) << slot;
    next[slot] = (struct cluster){data ? f.place : u.place, u.valid | data, u.zero | zeros};
  }
  manifest_move_clusters(s->manifest, from, which_from, to, which_to, g->leaf, next, LEAF_CLUSTERS);
  for (uint64_t left = which_from; left; left &= left - 1) {
    uint32_t slot = (uint32_t)__builtin_ctzll(left);
    bool moved = which_to >> slot & 1 && next[slot].place == lower[slot].place;
    if (lower[slot].place && !moved) collect(g, lower[slot].place);
  }
  if (summed && live) give_live_sums(s, to, g->leaf, &sums, data_of);
  if (summed && !live) give_sums(s, to, g->leaf, &sums, data_of);
  layer_unpin_leaf(map, to, g->leaf);
  return 0;
}

/* ---- The whole ------------------------------------------------------------------------------- */

static int begin(struct shard *s, const struct shard_op *op) {
  const struct volume *v = ((const struct volume_args *)&op->id)->volume;
  struct layer_below below = layer_below(v->top);
  if (below.id != op->offset || below.shard != s->config.manifest.shard) return -EINVAL;
  struct merge *g = calloc(1, sizeof *g);
  if (!g) return -ENOMEM;
  g->shard = s;
  g->to = v->top;
  s->volumes->merge = g;
  return 0;
}

static int finish(struct shard *s, int result) {
  free(s->volumes->merge);
  s->volumes->merge = NULL;
  return result;
}

int merge_some(struct shard *s, struct shard_op *op) {
  struct volume *v = volume_args(op)->volume;
  if (!s->volumes->merge) {
    int r = begin(s, op);
    if (r) return r;
  }
  struct merge *g = s->volumes->merge;
  struct layer *from = map_layer(manifest_map(s->manifest), op->offset);
  if (g->busy) return -EAGAIN;
  if (v->top != g->to) g->error = -ECANCELED; /* a snapshot was taken: another one lies on it now */
  if (g->garbage_count > GARBAGE_MAX - LEAF_CLUSTERS) {
    give_back(g);
    return -EAGAIN;
  }
  g->leaf = from && !g->error ? layer_next_leaf(from, g->leaf) : UINT64_MAX;
  if (g->leaf == UINT64_MAX) {
    if (!g->garbage_count) return finish(s, g->error);
    give_back(g);
    return -EAGAIN;
  }
  uint32_t mixed = find_mixed(layer_leaf(from, g->leaf), layer_leaf(g->to, g->leaf));
  if (mixed < LEAF_CLUSTERS) {
    promote(s, g, v, mixed);
    return -EAGAIN;
  }
  int r = hand_over(s, g, from, g->to);
  if (r && r != -EAGAIN) g->error = r;
  return r == -EAGAIN ? -EAGAIN : -EINPROGRESS;
}
