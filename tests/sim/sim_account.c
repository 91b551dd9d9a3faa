/* sim_account.c - who owns the blocks of a shard: looks into its manifest, between requests. */
#include "shards/manifest_internal.h"
#include "tests/sim/sim_check.h"

static uint64_t blocks_of(const struct extent *extents, uint32_t count) {
  uint64_t blocks = 0;
  for (uint32_t i = 0; i < count; i++) blocks += extents[i].blocks;
  return blocks;
}

static int add_blob(void *arg, uint64_t hash, const struct blob *b) {
  (void)hash;
  *(uint64_t *)arg += blocks_of(b->extents, b->extent_count);
  return 0;
}

static uint64_t cluster_blocks(struct manifest *m) {
  uint64_t clusters = 0;
  for (const struct layer *l = map_layer_next(m->map, NULL); l; l = map_layer_next(m->map, l)) {
    struct layer_stats stats;
    layer_stats(l, &stats);
    clusters += stats.clusters;
  }
  return clusters * CLUSTER_BLOCKS;
}

static uint64_t owned_blocks(struct manifest *m) {
  uint64_t blocks = cluster_blocks(m) + m->config.region->log_blocks + m->directory_area[0].blocks +
                    m->directory_area[1].blocks + blocks_of(m->reserve, m->reserve_count);
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    const struct checkpoint *c = m->of_partition[p];
    index_partition_visit(m->index, p, add_blob, &blocks);
    bool first = c != NULL;
    for (uint32_t k = 0; k < p; k++) first &= m->of_partition[k] != c;
    if (first) blocks += blocks_of(c->extents, c->extent_count);
  }
  for (const struct checkpoint *c = m->dead; c; c = c->next)
    blocks += blocks_of(c->extents, c->extent_count);
  for (const struct checkpoint *c = m->retiring; c; c = c->next)
    blocks += blocks_of(c->extents, c->extent_count);
  return blocks;
}

bool sim_log_busy(struct sr_store *store) {
  struct store *s = store_of(store);
  for (uint32_t n = 0; n < s->shard_count; n++) {
    const struct manifest *m = shard_manifest(s->cores[s->core_of_shard[n]].shards[n].shard);
    if (m->writing_buffers && (m->writing_buffers->next || m->frame_io.op)) return true;
  }
  return false;
}

bool sim_log_told(struct sr_store *store) {
  struct store *s = store_of(store);
  for (uint32_t n = 0; n < s->shard_count; n++) {
    const struct manifest *m = shard_manifest(s->cores[s->core_of_shard[n]].shards[n].shard);
    if (m->told_position < m->flushed_position || m->writes_in_flight) return false;
  }
  return true;
}

void sim_account(struct sr_store *store) {
  struct store *s = store_of(store);
  for (uint32_t turn = 0; turn < 10000 && store_step(s); turn++) {
  }
  for (uint32_t n = 0; n < s->shard_count; n++) {
    struct shard *shard = s->cores[s->core_of_shard[n]].shards[n].shard;
    struct manifest *m = shard_manifest(shard);
    if (!shard_idle(shard) || m->stopped) continue; /* what a failed write has left is unknown */
    uint64_t taken = space_total_blocks(m->space) - space_free_blocks(m->space);
    uint64_t owned = owned_blocks(m) + space_pending_blocks(m->space);
    if (taken != owned)
      sim_violation("shard %u: %llu blocks are taken, %llu have an owner", n,
                    (unsigned long long)taken, (unsigned long long)owned);
  }
}
