/* use_manifest.c - see use_manifest.h. */
#include "tests/fuzz/use_manifest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/manifest_internal.h" /* who holds which block */

#define TURNS_MAX 4000

/* ---- Verify ------------------------------------------------------------------------------ */

struct owners {
  const struct manifest *m;
  uint8_t *owned; /* by block */
  uint64_t blocks, blobs, digest;
};

static void own(struct owners *o, const struct extent *extents, uint32_t count) {
  uint64_t region = o->m->config.region->blocks;
  for (uint32_t i = 0; i < count; i++) {
    const struct extent *e = &extents[i];
    check(e->blocks <= region && e->block <= region - e->blocks);
    for (uint64_t b = e->block; b < e->block + e->blocks; b++) {
      check(!o->owned[b]);
      check(space_is_used(o->m->space, b));
      o->owned[b] = 1;
      o->blocks++;
    }
  }
}

static uint64_t mix(uint64_t h, uint64_t v) {
  h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
  return h ^ h >> 29;
}

static uint64_t digest_blob(const struct blob *b) {
  uint64_t h = mix(mix(mix(mix(1, b->id.hi), b->id.lo), b->bytes), b->flags);
  for (uint32_t i = 0; i < b->extent_count; i++)
    h = mix(mix(h, b->extents[i].block), b->extents[i].blocks);
  for (uint32_t i = 0; i < b->granule_count; i++) h = mix(h, b->checksums[i]);
  return h;
}

static int own_blob(void *arg, uint64_t hash, const struct blob *b) {
  struct owners *o = arg;
  struct blob found;
  uint64_t blocks = 0;
  check(hash == hash_id(b->id, o->m->config.hash_key));
  own(o, b->extents, b->extent_count);
  for (uint32_t i = 0; i < b->extent_count; i++) blocks += b->extents[i].blocks;
  check(blocks >= bytes_to_blocks(b->bytes));
  bool none = b->bytes == 0 || b->flags & BLOB_NO_CHECKSUM;
  check(b->granule_count == (none ? 0 : blob_granule_count(b->bytes, b->granule_shift)));
  check(index_find(o->m->index, hash, b->id, &found) == 0);
  check(digest_blob(&found) == digest_blob(b));
  o->digest += digest_blob(b);
  o->blobs++;
  return 0;
}

static uint64_t digest_cluster(uint64_t layer, uint64_t number, struct cluster c) {
  if (!c.valid && !c.zero) return 0;
  return mix(mix(mix(mix(2, layer), number), c.valid ? c.place : 0),
             (uint64_t)c.valid << 16 | c.zero);
}

/* Sums are of blocks that have data. */
static uint64_t digest_sums(const struct layer *layer, uint64_t leaf,
                            const struct cluster clusters[LEAF_CLUSTERS]) {
  const struct block_sums *s = layer_sums(layer, leaf);
  uint64_t h = mix(mix(4, layer_id(layer)), leaf);
  if (!s) return 0;
  for (uint32_t i = 0; i < SUMS_BLOCKS; i++) {
    if (!block_sums_has(s, i)) continue;
    check(clusters[i / CLUSTER_BLOCKS].valid >> i % CLUSTER_BLOCKS & 1);
    h = mix(mix(h, i), block_sums_at(s, i));
  }
  return h;
}

static int own_leaf(void *arg, struct layer *layer, uint64_t leaf,
                    const struct cluster clusters[LEAF_CLUSTERS]) {
  struct owners *o = arg;
  check(layer_leaf(layer, leaf) == clusters);
  check(map_layer(o->m->map, layer_id(layer)) == layer);
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) {
    struct cluster c = clusters[i];
    struct extent e = {c.place, CLUSTER_BLOCKS};
    check((c.valid & c.zero) == 0);
    check(c.place || !c.valid);
    if (c.place) own(o, &e, 1);
    o->digest += digest_cluster(layer_id(layer), leaf * LEAF_CLUSTERS + i, c);
  }
  o->digest += digest_sums(layer, leaf, clusters);
  return 0;
}

static void own_records(struct owners *o) {
  uint64_t count = 0;
  for (const struct record *x = NULL; (x = records_next(o->m->records, x)) != NULL; count++) {
    uint64_t h = mix(mix(mix(3, x->key.hi), x->key.lo), x->bytes);
    check(x->bytes > 0 && x->bytes <= RECORD_BYTES_MAX);
    check(records_find(o->m->records, x->key) == x);
    for (uint32_t i = 0; i < x->bytes; i++) h = mix(h, (uint8_t)x->data[i]);
    o->digest += h;
  }
  check(count == records_count(o->m->records));
}

static bool seen_before(const struct manifest *m, uint32_t p) {
  for (uint32_t k = 0; k < p; k++)
    if (m->of_partition[k] == m->of_partition[p]) return true;
  return false;
}

static void own_files(struct owners *o) {
  const struct manifest *m = o->m;
  own(o, m->directory_area, 2);
  own(o, m->reserve, m->reserve_count);
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    const struct checkpoint *c = m->of_partition[p];
    if (c && !seen_before(m, p)) own(o, c->extents, c->extent_count);
  }
  for (const struct checkpoint *c = m->dead; c; c = c->next) own(o, c->extents, c->extent_count);
  for (const struct checkpoint *c = m->retiring; c; c = c->next)
    own(o, c->extents, c->extent_count);
}

static uint64_t verify(struct manifest *m, bool all) {
  struct owners o = {.m = m, .owned = calloc(m->config.region->blocks, 1)};
  check(o.owned != NULL);
  own(&o, &(struct extent){0, m->config.region->log_blocks}, 1);
  if (all) own_files(&o);
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    index_partition_visit(m->index, p, own_blob, &o);
    map_partition_visit(m->map, p, own_leaf, &o);
  }
  own_records(&o);
  check(o.blobs == index_count(m->index));
  if (all)
    check(o.blocks + space_pending_blocks(m->space) + space_free_blocks(m->space) ==
          m->config.region->blocks);
  free(o.owned);
  return o.digest;
}

uint64_t manifest_verify(struct manifest *m) { return verify(m, true); }
uint64_t manifest_verify_blobs(struct manifest *m) { return verify(m, false); }

/* ---- Use --------------------------------------------------------------------------------- */

struct waiting {
  struct manifest_seal seal;
  struct manifest_waiter waiter;
  bool done;
  int result;
};
static void sealed(struct manifest_seal *seal) {
  container_of(seal, struct waiting, seal)->done = true;
}
static void committed(struct manifest_waiter *waiter, int result) {
  struct waiting *w = container_of(waiter, struct waiting, waiter);
  w->done = true;
  w->result = result;
}

/* Completes until it is so. */
static void wait_for(struct manifest *m, struct device *d, const bool *done) {
  for (int i = 0; !*done; i++) {
    check(i < TURNS_MAX);
    manifest_tick(m);
    device_poll(d);
  }
}

void use_flush(struct manifest *m, const struct manifest_config *config, struct root *root) {
  struct waiting w = {.seal = {.done = sealed, .epoch = root->epoch + 1, .flush_files = true}};
  manifest_seal(m, &w.seal);
  wait_for(m, config->device, &w.done);
  check(w.seal.result == 0);
  root->epoch++;
  root->incarnation = config->incarnation;
  root->shards[config->shard] = w.seal.root;
  manifest_root_durable(m, root->epoch, 0);
}

int use_put(struct manifest *m, const struct manifest_config *config, struct blob_id id,
            uint64_t bytes, uint8_t flags) {
  struct extent extents[4];
  uint32_t sums[32];
  struct blob b = {.id = id, .bytes = bytes, .granule_shift = 12, .flags = flags};
  uint64_t hash = hash_id(id, config->hash_key);
  int n = space_alloc(m->space, bytes_to_blocks(bytes), extents, 4, 0);
  if (n < 0) return n;
  b.extents = extents;
  b.extent_count = (uint32_t)n;
  b.checksums = sums;
  if (!(flags & BLOB_NO_CHECKSUM)) b.granule_count = blob_granule_count(bytes, 12);
  check(b.granule_count <= array_size(sums));
  for (uint32_t i = 0; i < array_size(sums); i++) sums[i] = i + 1;
  int r = manifest_reserve(m, hash, b.extent_count, b.granule_count);
  check(r == 0 || r == -EAGAIN);
  if (r)
    space_cancel(m->space, extents, b.extent_count);
  else
    manifest_put(m, hash, &b);
  return r;
}

void use_delete(struct manifest *m, const struct manifest_config *config, struct blob_id id) {
  uint64_t hash = hash_id(id, config->hash_key);
  struct blob b;
  if (index_find(m->index, hash, id, &b) == 0 && manifest_reserve(m, hash, 0, 0) == 0)
    manifest_delete(m, hash, id);
}

static struct layer *pin(struct manifest *m, uint64_t id, uint64_t leaf) {
  struct layer *layer;
  check(map_layer_add(m->map, id, &layer) == 0);
  check(layer_pin_leaf(m->map, layer, leaf) == 0);
  return layer;
}

void use_clusters(struct manifest *m, uint64_t id, uint64_t leaf, uint32_t first, uint32_t count) {
  struct cluster c[LEAF_CLUSTERS] = {{0}};
  struct extent e;
  uint64_t which = 0;
  if (manifest_reserve_map(m, count, false)) return;
  for (uint32_t i = first; i < first + count; i++) {
    which |= UINT64_C(1) << i;
    if (i % 3 == 0 || space_alloc(m->space, CLUSTER_BLOCKS, &e, 1, 0) != 1)
      c[i].zero = (uint16_t)(i % 5);
    else
      c[i] = (struct cluster){.place = (uint32_t)e.block, .valid = (uint16_t)(i | 1)};
  }
  struct layer *layer = pin(m, id, leaf);
  manifest_set_clusters(m, layer, leaf, which, c, count);
  layer_unpin_leaf(m->map, layer, leaf);
}

void use_move(struct manifest *m, uint64_t from_id, uint64_t to_id, uint64_t leaf, uint64_t which) {
  struct cluster c[LEAF_CLUSTERS];
  uint32_t count = (uint32_t)__builtin_popcountll(which), old[LEAF_CLUSTERS];
  if (manifest_reserve_map(m, count, false)) return;
  struct layer *from = pin(m, from_id, leaf), *to = pin(m, to_id, leaf);
  memcpy(c, layer_leaf(from, leaf), sizeof c);
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) old[i] = layer_leaf(to, leaf)[i].place;
  manifest_move_clusters(m, from, which, to, which, leaf, c, count);
  for (; which; which &= which - 1) {
    struct extent e = {old[__builtin_ctzll(which)], CLUSTER_BLOCKS};
    if (e.block) space_free(m->space, &e, 1);
  }
  layer_unpin_leaf(m->map, from, leaf);
  layer_unpin_leaf(m->map, to, leaf);
}

void use_sums(struct manifest *m, uint64_t id, uint64_t leaf) {
  struct layer *layer = map_layer(m->map, id);
  const struct cluster *c = layer ? layer_leaf(layer, leaf) : NULL;
  if (!c || manifest_reserve_sums(m)) return;
  struct leaf_sums *sums = fuzz_alloc(sizeof *sums);
  memset(sums, 0, sizeof *sums);
  for (uint32_t i = 0; i < SUMS_BLOCKS; i++)
    if (c[i / CLUSTER_BLOCKS].valid >> i % CLUSTER_BLOCKS & 1) leaf_sums_set(sums, i, i * 77 + 5);
  check(manifest_set_sums(m, layer, leaf, sums) == 0);
  free(sums);
}

void use_record(struct manifest *m, struct blob_id key, uint32_t bytes) {
  char data[RECORD_BYTES_MAX];
  for (uint32_t i = 0; i < sizeof data; i++) data[i] = (char)(i + bytes);
  if (manifest_reserve_record(m, key, bytes) == 0) manifest_put_record(m, key, data, bytes);
}

void use_commit(struct manifest *m, const struct manifest_config *config) {
  struct waiting w = {.waiter = {.done = committed, .sequence = manifest_ticket(m) - 1}};
  manifest_commit(m, &w.waiter);
  wait_for(m, config->device, &w.done);
  check(w.result == 0);
  while (!manifest_idle(m)) device_poll(config->device); /* what tells of it */
}

void use_checkpoint(struct manifest *m, const struct manifest_config *config, struct root *root) {
  manifest_checkpoint_all(m);
  for (int i = 0; !manifest_checkpoint_done(m); i++) {
    check(i < TURNS_MAX);
    manifest_tick(m);
    device_poll(config->device);
    if (manifest_wants_flush(m)) use_flush(m, config, root);
  }
  use_flush(m, config, root);
}

/* What is on disk must be what is in memory. */
static void recover_same(struct manifest *m, const struct manifest_config *config,
                         const struct root *root) {
  struct manifest_config again = *config;
  struct manifest *same;
  char why[200] = "";
  again.device = NULL;
  again.read_only = true;
  again.incarnation++;
  check(manifest_recover(&same, &again, root, why, sizeof why) == 0);
  check(manifest_verify(same) == manifest_verify(m));
  manifest_destroy(same);
}

static int take_first(void *arg, uint64_t hash, const struct blob *b) {
  (void)hash;
  *(struct blob_id *)arg = b->id;
  return 1;
}

static int take_leaf(void *arg, struct layer *layer, uint64_t leaf,
                     const struct cluster clusters[LEAF_CLUSTERS]) {
  (void)clusters;
  ((uint64_t *)arg)[0] = layer_id(layer);
  ((uint64_t *)arg)[1] = leaf;
  return 1;
}

/* The same of clusters and records. */
static void change_volumes(struct manifest *m) {
  uint64_t at[2] = {77, 5};
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++)
    if (map_partition_visit(m->map, p, take_leaf, at)) break;
  use_clusters(m, at[0], at[1], 3, 6);
  use_sums(m, at[0], at[1]);
  use_move(m, at[0], at[0] == 78 ? 79 : 78, at[1], 0xf7);
  use_clusters(m, 77, MAP_LEAVES_MAX - 1, 0, LEAF_CLUSTERS);
  const struct record *x = records_next(m->records, NULL);
  use_record(m, x ? x->key : (struct blob_id){7, 7}, 0);
  use_record(m, (struct blob_id){7, 8}, 1000);
  (void)manifest_note_data(m);
}

/* One blob more, one shorter than it was, one less: as far as there is room. */
static void change(struct manifest *m, const struct manifest_config *config) {
  struct blob_id id = {0xabc, 0xdef};
  (void)use_put(m, config, id, 9000, 0);
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++)
    if (index_partition_visit(m->index, p, take_first, &id)) break;
  (void)use_put(m, config, id, 100, 0);
  for (uint32_t p = INDEX_PARTITIONS; p-- > 0;)
    if (index_partition_visit(m->index, p, take_first, &id)) break;
  use_delete(m, config, id);
  change_volumes(m);
}

void manifest_use(struct manifest *m, const struct manifest_config *config, struct root *root,
                  uint32_t steps) {
  if (steps == 0) return;
  use_flush(m, config, root); /* an open writes a root before anything else */
  if (steps == 1) {
    recover_same(m, config, root);
    return;
  }
  change(m, config);
  manifest_verify(m);
  use_commit(m, config);
  recover_same(m, config, root);
  if (steps == 2) return;
  use_checkpoint(m, config, root);
  change(m, config);
  use_flush(m, config, root);
  manifest_verify(m);
  recover_same(m, config, root);
}

struct device *use_device(const struct region *region) {
  struct device *d;
  struct device_options options = {
      .queue_depth = 64, .file_count = UINT16_MAX, .clock = clock_monotonic, .logger = fuzz_silent};
  check(device_mem.create(&d, &options) == 0);
  for (uint32_t i = 0; i < region->segment_count; i++)
    check(d->ops->attach(d, region->segments[i].file, region->segments[i].backing) == 0);
  return d;
}
