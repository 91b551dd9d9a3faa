/* volume_direct.c - what other threads are told of where a volume's blocks lie (direct.h). Owned by
 * the shard's thread.
 *
 * Told: what volume_run_at() says, leaf by leaf. Taken back: when the map of the top layer changes
 * (the map calls watched()), when this shard forgets what lies below (OP_VIEWS_DROP, which precedes
 * the reuse of any place below a top layer), when the volume gets another top layer, and when a
 * limit begins to count. Volumes with checksums of what is written are not told of: there data and
 * checksum of a block change beside reads. */
#include "shards/volume_internal.h"

#include <errno.h>
#include <string.h>

static void watched(void *arg, const struct layer *layer, uint64_t leaf) {
  const struct volumes *vs = arg;
  for (struct volume *v = vs->directs; v; v = v->next_direct)
    if (v->top == layer) direct_leaf_changed(v->direct, leaf);
}

int shard_volume_direct(struct shard *s, struct volume *v, struct direct **direct) {
  if (!v->direct) {
    const struct region *regions = s->config.regions;
    if (!v->top || v->live || !regions) return -EOPNOTSUPP;
    int r = direct_create(&v->direct, regions, s->config.manifest.shard_count, v->size_bytes);
    if (r) return r;
    direct_allow(v->direct, !v->queue.limit);
    map_watch(manifest_map(s->manifest), watched, s->volumes);
    v->next_direct = s->volumes->directs;
    s->volumes->directs = v;
    volume_direct_watch(v);
  }
  *direct = v->direct;
  return 0;
}

void volume_direct_watch(struct volume *v) {
  layer_set_watched(v->top, true);
  direct_all_changed(v->direct);
}

void volume_direct_unwatch(struct volume *v) { layer_set_watched(v->top, false); }

void volume_direct_close(struct volume *v) {
  struct volumes *vs = v->shard->volumes;
  struct volume **at = &vs->directs;
  struct direct_stats stats;
  while (*at != v) at = &(*at)->next_direct;
  *at = v->next_direct;
  layer_set_watched(v->top, false);
  direct_stats(v->direct, &stats);
  vs->direct_closed.reads += stats.reads;
  vs->direct_closed.bytes += stats.bytes;
  direct_destroy(v->direct);
  v->direct = NULL;
}

void volumes_direct_changed(struct volumes *vs) {
  for (struct volume *v = vs->directs; v; v = v->next_direct) direct_all_changed(v->direct);
}

/* Nothing has become wrong, but more could be said. */
void volumes_direct_learned(struct volumes *vs, const struct lower *lower, uint64_t leaf) {
  for (struct volume *v = vs->directs; v; v = v->next_direct)
    if (v->lower == lower) direct_leaf_incomplete(v->direct, leaf);
}

void shard_direct_stats(const struct shard *s, uint64_t *reads, uint64_t *bytes) {
  *reads = *bytes = 0;
  if (!s->volumes) return;
  *reads = s->volumes->direct_closed.reads;
  *bytes = s->volumes->direct_closed.bytes;
  for (const struct volume *v = s->volumes->directs; v; v = v->next_direct) {
    struct direct_stats stats;
    direct_stats(v->direct, &stats);
    *reads += stats.reads;
    *bytes += stats.bytes;
  }
}

/* ---- Telling --------------------------------------------------------------------------------- */

static void add_sums(const struct volume *v, const struct place *p, uint64_t block, uint32_t n,
                     struct direct_cluster *c) {
  uint64_t leaf = block >> LEAF_BLOCK_SHIFT;
  const struct block_sums *sums =
      p->own ? layer_sums(v->top, leaf) : view_sums(v->lower->view, leaf);
  for (uint32_t i = 0; sums && i < n; i++) {
    uint32_t at = (uint32_t)(block + i) % LEAF_BLOCKS, in = at % CLUSTER_BLOCKS;
    if (!block_sums_has(sums, at)) continue;
    c->summed |= (uint16_t)(1u << in);
    c->sum[in] = block_sums_at(sums, at);
  }
}

/* False: it is not known here where the blocks lie. */
static bool look_at(const struct volume *v, uint64_t cluster, struct direct_cluster *c) {
  uint64_t first = cluster << CLUSTER_BLOCK_SHIFT;
  c->summed = 0;
  for (uint32_t i = 0, n; i < CLUSTER_BLOCKS; i += n) {
    struct place p;
    n = volume_run_at(v, first + i, CLUSTER_BLOCKS - i, &p);
    if (!n) return false;
    bool data = p.kind == PLACE_DATA;
    for (uint32_t k = 0; k < n; k++) {
      c->place[i + k] = data ? p.block + k : 0;
      c->shard[i + k] = data ? p.shard : 0;
    }
    if (place_may_have_sums(v, &p)) add_sums(v, &p, first + i, n, c);
  }
  return true;
}

static void tell(struct volume *v, uint64_t leaf) {
  struct direct_cluster c;
  struct place p;
  if (v->lower && !view_lookup(v->lower->view, leaf << LEAF_BLOCK_SHIFT, 1, &p.block, &p.shard))
    lower_learn_here(v->shard, v->lower, leaf);
  direct_publish_begin(v->direct, leaf);
  for (uint32_t slot = 0; slot < LEAF_CLUSTERS; slot++) {
    bool known = look_at(v, (leaf << LEAF_CLUSTER_SHIFT) + slot, &c);
    direct_publish_cluster(v->direct, slot, known ? &c : NULL);
  }
  direct_publish_end(v->direct);
}

void volume_direct_offer(struct volume *v, const struct shard_op *op) {
  uint64_t leaf = op->offset >> LEAF_SHIFT, last = (op->offset + op->bytes - 1) >> LEAF_SHIFT;
  struct place p;
  if (op->bytes > DIRECT_BYTES_MAX) return;
  for (; leaf <= last; leaf++) {
    uint64_t block = max_u64(leaf << LEAF_BLOCK_SHIFT, first_block(op));
    if (!volume_run_at(v, block, 1, &p)) continue; /* this op learns it, for the next one */
    if (direct_wants(v->direct, leaf)) tell(v, leaf);
  }
}
