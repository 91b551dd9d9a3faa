/* map.c - see map.h. Single-threaded, owned by a shard.
 *
 * Layers, leaves and the trees' nodes are pieces of one slab, which never move; references between
 * them are 32 bits. A leaf is in its layer's tree from its first pin until nothing pins it and all
 * its clusters are empty; it is in the list of its partition while one is not empty. */
#include "shards/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/radix.h"

struct leaf {
  struct cluster clusters[LEAF_CLUSTERS];
  struct layer *layer;
  uint32_t number, self; /* in the layer, and in the slab */
  uint32_t next, before; /* in the partition's list; 0: none */
  uint32_t sums;         /* struct block_sums; 0: none */
  uint16_t pins;
  uint8_t used; /* clusters that are not empty */
  uint8_t partition;
};
_Static_assert(sizeof(struct leaf) == 544, "a size of the slab's, without waste");
_Static_assert(MAP_LEAVES_MAX <= RADIX_NUMBERS_MAX, "every leaf has a slot");

struct layer {
  struct radix leaves;
  const struct slab *slab;
  uint64_t id, below_id;
  uint16_t below_shard;  /* below FORMAT_SHARDS_MAX */
  bool named : 1;        /* layer_set_below() was called */
  bool summed : 1;       /* layer_set_summed() was called */
  bool live : 1;         /* layer_set_live() was */
  bool watched : 1;      /* layer_set_watched() was */
  uint32_t chain;        /* the next one with the same hash; 0: none */
  uint32_t next, before; /* in the list of all */
  uint32_t leaf_count, cluster_count;
  uint64_t valid_blocks, zero_blocks;
  uint64_t summed_blocks : 39, unsaved_leaves : 25;
};
_Static_assert(sizeof(struct layer) <= 96, "there are tens of thousands");

#define TABLE_MIN 16u
struct map {
  struct slab slab;
  uint64_t key[2];
  uint32_t *table; /* of layers by their ids' hashes; its size is a power of two */
  uint32_t table_size, layer_count;
  uint32_t first_layer;
  uint64_t unsaved_leaves;
  map_changed_fn *changed; /* if any layer is watched */
  void *changed_arg;
  uint32_t partition_head[INDEX_PARTITIONS];
  uint32_t partition_count[INDEX_PARTITIONS];
};

int map_create(struct map **map, const uint64_t key[2]) {
  struct map *m = calloc(1, sizeof *m);
  if (!m) return -ENOMEM;
  m->table = calloc(TABLE_MIN, sizeof *m->table);
  if (!m->table) {
    free(m);
    return -ENOMEM;
  }
  m->table_size = TABLE_MIN;
  memcpy(m->key, key, sizeof m->key);
  slab_init(&m->slab);
  *map = m;
  return 0;
}

void map_destroy(struct map *map) {
  if (!map) return;
  slab_finish(&map->slab);
  free(map->table);
  free(map);
}

uint64_t map_ram_bytes(const struct map *map) {
  uint64_t untouched = (uint64_t)(map->slab.bump_end - map->slab.bump) * SLAB_UNIT;
  return sizeof *map + map->table_size * sizeof *map->table + map->slab.mapped_bytes - untouched;
}

/* ---- Layers ------------------------------------------------------------------------------- */

static struct layer *layer_at(const struct map *map, uint32_t ref) {
  return ref ? slab_at(&map->slab, ref) : NULL;
}

static uint32_t *chain_of(const struct map *map, uint64_t id) {
  uint64_t hash = hash_id((struct blob_id){.hi = id}, map->key);
  return &map->table[hash & (map->table_size - 1)];
}

struct layer *map_layer(const struct map *map, uint64_t id) {
  struct layer *layer = layer_at(map, *chain_of(map, id));
  while (layer && layer->id != id) layer = layer_at(map, layer->chain);
  return layer;
}

/* More than full on average is slower, not wrong: so without memory the table stays as it is. */
static void grow_table(struct map *map) {
  if (map->layer_count < map->table_size) return;
  uint32_t *table = calloc(map->table_size, 2 * sizeof *table);
  if (!table) return;
  free(map->table);
  map->table = table;
  map->table_size *= 2;
  for (uint32_t ref = map->first_layer; ref;) {
    struct layer *layer = layer_at(map, ref);
    uint32_t *chain = chain_of(map, layer->id);
    layer->chain = *chain;
    *chain = ref;
    ref = layer->next;
  }
}

int map_layer_add(struct map *map, uint64_t id, struct layer **layer) {
  check(id != 0);
  *layer = map_layer(map, id);
  if (*layer) return 0;
  if (slab_reserve(&map->slab, sizeof **layer)) return -ENOMEM;
  grow_table(map);
  uint32_t ref = slab_alloc(&map->slab, sizeof **layer);
  uint32_t *chain = chain_of(map, id);
  *layer = slab_at(&map->slab, ref);
  **layer = (struct layer){.slab = &map->slab, .id = id, .chain = *chain, .next = map->first_layer};
  *chain = ref;
  if (map->first_layer) layer_at(map, map->first_layer)->before = ref;
  map->first_layer = ref;
  map->layer_count++;
  return 0;
}

void map_layer_remove(struct map *map, struct layer *layer) {
  check(layer->leaves.root == 0);
  uint32_t *chain = chain_of(map, layer->id);
  while (layer_at(map, *chain) != layer) chain = &layer_at(map, *chain)->chain;
  uint32_t ref = *chain;
  *chain = layer->chain;
  if (layer->before)
    layer_at(map, layer->before)->next = layer->next;
  else
    map->first_layer = layer->next;
  if (layer->next) layer_at(map, layer->next)->before = layer->before;
  map->layer_count--;
  slab_free(&map->slab, ref, sizeof *layer);
}

struct layer *map_layer_next(const struct map *map, const struct layer *before) {
  return layer_at(map, before ? before->next : map->first_layer);
}

uint64_t layer_id(const struct layer *layer) { return layer->id; }

void layer_set_below(struct layer *layer, struct layer_below below) {
  layer->below_id = below.id;
  layer->below_shard = (uint16_t)below.shard;
  layer->named = true;
}
bool layer_is_named(const struct layer *layer) { return layer->named; }
struct layer_below layer_below(const struct layer *layer) {
  return (struct layer_below){.id = layer->below_id, .shard = layer->below_shard};
}

void layer_stats(const struct layer *layer, struct layer_stats *stats) {
  *stats = (struct layer_stats){.leaves = layer->leaf_count,
                                .clusters = layer->cluster_count,
                                .valid_blocks = layer->valid_blocks,
                                .zero_blocks = layer->zero_blocks,
                                .summed_blocks = layer->summed_blocks};
}

/* ---- Clusters ----------------------------------------------------------------------------- */

static struct leaf *find_leaf(const struct layer *layer, uint64_t leaf) {
  return radix_find(&layer->leaves, layer->slab, leaf);
}

struct cluster layer_get(const struct layer *layer, uint64_t cluster) {
  const struct leaf *leaf = find_leaf(layer, cluster >> LEAF_CLUSTER_SHIFT);
  return leaf ? leaf->clusters[cluster % LEAF_CLUSTERS] : (struct cluster){0};
}

const struct cluster *layer_leaf(const struct layer *layer, uint64_t leaf) {
  const struct leaf *l = find_leaf(layer, leaf);
  return l ? l->clusters : NULL;
}

void layer_prefetch(const struct layer *layer, uint64_t cluster) {
  uint32_t ref = radix_find_ref(&layer->leaves, layer->slab, cluster >> LEAF_CLUSTER_SHIFT);
  if (!ref) return;
  const struct leaf *leaf = slab_at(layer->slab, ref);
  __builtin_prefetch(&leaf->clusters[cluster % LEAF_CLUSTERS]);
}

uint64_t layer_next_leaf(const struct layer *layer, uint64_t leaf) {
  return radix_next(&layer->leaves, layer->slab, leaf);
}

int layer_pin_leaf(struct map *map, struct layer *layer, uint64_t leaf) {
  check(leaf < MAP_LEAVES_MAX);
  struct leaf *l = find_leaf(layer, leaf);
  if (!l) {
    if (slab_reserve(&map->slab, sizeof *l)) return -ENOMEM;
    uint32_t ref = slab_alloc(&map->slab, sizeof *l);
    if (radix_insert(&layer->leaves, &map->slab, leaf, ref)) {
      slab_free(&map->slab, ref, sizeof *l);
      return -ENOMEM;
    }
    l = slab_at(&map->slab, ref);
    memset(l, 0, sizeof *l);
    l->layer = layer;
    l->number = (uint32_t)leaf;
    l->self = ref;
    l->partition = (uint8_t)map_partition_of(map_leaf_hash(map, layer->id, leaf));
  }
  if (l->pins == UINT16_MAX) return -ENOMEM;
  l->pins++;
  return 0;
}

static void replace_sums(struct map *map, struct leaf *leaf, uint32_t ref);

static void drop_if_unused(struct map *map, struct leaf *leaf) {
  if (leaf->pins || leaf->used) return;
  if (unlikely(leaf->sums)) replace_sums(map, leaf, 0);
  uint32_t ref = radix_remove(&leaf->layer->leaves, &map->slab, leaf->number);
  check(ref == leaf->self);
  slab_free(&map->slab, ref, sizeof *leaf);
}

void layer_unpin_leaf(struct map *map, struct layer *layer, uint64_t leaf) {
  struct leaf *l = find_leaf(layer, leaf);
  check(l != NULL);
  check(l->pins > 0);
  l->pins--;
  drop_if_unused(map, l);
}

static void list_leaf(struct map *map, struct leaf *leaf) {
  uint32_t *head = &map->partition_head[leaf->partition];
  leaf->before = 0;
  leaf->next = *head;
  if (*head) ((struct leaf *)slab_at(&map->slab, *head))->before = leaf->self;
  *head = leaf->self;
  map->partition_count[leaf->partition]++;
  leaf->layer->leaf_count++;
}

static void unlist_leaf(struct map *map, struct leaf *leaf) {
  if (leaf->before)
    ((struct leaf *)slab_at(&map->slab, leaf->before))->next = leaf->next;
  else
    map->partition_head[leaf->partition] = leaf->next;
  if (leaf->next) ((struct leaf *)slab_at(&map->slab, leaf->next))->before = leaf->before;
  map->partition_count[leaf->partition]--;
  leaf->layer->leaf_count--;
}

/* How many bits are set in each half of a word, in the halves of the result. */
static uint32_t count_halves(uint32_t x) {
  x -= (x >> 1) & 0x55555555u;
  x = (x & 0x33333333u) + ((x >> 2) & 0x33333333u);
  x = (x + (x >> 4)) & 0x0f0f0f0fu;
  return (x + (x >> 8)) & 0x00ff00ffu;
}

/* What entries have: counts of a leaf fit the halves, 64 clusters have 1024 bits of each kind. */
struct counts {
  uint32_t bits /* valid ones, zero ones << 16 */, places, used;
};
static inline void count_cluster(struct counts *counts, struct cluster c) {
  uint32_t bits = (uint32_t)c.zero << 16 | c.valid;
  counts->bits += bits == UINT16_MAX ? CLUSTER_BLOCKS : count_halves(bits); /* most are full */
  counts->places += c.place != 0;
  counts->used += !cluster_is_empty(c);
}
static void count_in(struct layer *layer, const struct counts *c) {
  layer->cluster_count += c->places;
  layer->valid_blocks += c->bits & 0xffff;
  layer->zero_blocks += c->bits >> 16;
}
static void count_out(struct layer *layer, const struct counts *c) {
  layer->cluster_count -= c->places;
  layer->valid_blocks -= c->bits & 0xffff;
  layer->zero_blocks -= c->bits >> 16;
}

static inline void check_cluster(struct cluster c) {
  check((c.valid & c.zero) == 0);
  check(c.place || !c.valid);
  check(c.place <= MAP_PLACES_MAX - CLUSTER_BLOCKS);
}

/* Some entries of a leaf have changed, from what is counted in `was` to what is in `is`. */
static void recount(struct map *map, struct leaf *leaf, const struct counts *was,
                    const struct counts *is) {
  uint32_t before = leaf->used, used = before - was->used + is->used;
  count_out(leaf->layer, was);
  count_in(leaf->layer, is);
  leaf->used = (uint8_t)used;
  if (!before == !used) return;
  if (used) {
    list_leaf(map, leaf);
  } else {
    unlist_leaf(map, leaf);
    drop_if_unused(map, leaf);
  }
}

/* ---- Checksums ---------------------------------------------------------------------------- */

void layer_set_summed(struct layer *layer) { layer->summed = true; }
bool layer_is_summed(const struct layer *layer) { return layer->summed || layer->summed_blocks; }

const struct block_sums *layer_sums(const struct layer *layer, uint64_t leaf) {
  if (likely(!layer->summed_blocks)) return NULL;
  const struct leaf *l = find_leaf(layer, leaf);
  return l && l->sums ? slab_at(layer->slab, l->sums) : NULL;
}

static struct block_sums *sums_of(const struct slab *slab, const struct leaf *leaf) {
  return leaf && leaf->sums ? slab_at(slab, leaf->sums) : NULL;
}

static void set_unsaved(struct map *map, struct layer *layer, struct block_sums *s, bool unsaved) {
  if (!block_sums_spread(s) || s->live.unsaved == unsaved) return;
  s->live.unsaved = unsaved;
  layer->unsaved_leaves += unsaved ? 1 : -1;
  map->unsaved_leaves += unsaved ? 1 : -1;
}

static void replace_sums(struct map *map, struct leaf *leaf, uint32_t ref) {
  struct block_sums *was = sums_of(&map->slab, leaf);
  const struct block_sums *is = ref ? slab_at(&map->slab, ref) : NULL;
  if (was) leaf->layer->summed_blocks -= sums_count(was->has);
  if (was) set_unsaved(map, leaf->layer, was, false);
  if (is) leaf->layer->summed_blocks += sums_count(is->has);
  block_sums_free(&map->slab, leaf->sums);
  leaf->sums = ref;
}

int layer_set_sums(struct map *map, struct layer *layer, uint64_t leaf,
                   const struct leaf_sums *sums) {
  struct leaf *l = find_leaf(layer, leaf);
  uint64_t valid[SUMS_WORDS] = {0};
  uint32_t ref;
  check(l != NULL);
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    valid[i / 4] |= (uint64_t)l->clusters[i].valid << i % 4 * CLUSTER_BLOCKS;
  if (block_sums_pack(&map->slab, sums, valid, &ref)) return -ENOMEM;
  replace_sums(map, l, ref);
  if (unlikely(layer->watched)) map->changed(map->changed_arg, layer, leaf);
  return 0;
}

/* Before clusters [first, first + count) change: only blocks that stay where they are keep theirs.
 */
static __attribute__((noinline)) void drop_sums(struct map *map, struct leaf *leaf, uint32_t first,
                                                uint32_t count, const struct cluster *next) {
  struct block_sums *s = slab_at(&map->slab, leaf->sums);
  uint64_t keep[SUMS_WORDS];
  memset(keep, 0xff, sizeof keep);
  for (uint32_t i = first; i < first + count; i++) {
    struct cluster was = leaf->clusters[i], is = *next++;
    uint16_t same = was.place == is.place ? was.valid & is.valid : 0;
    keep[i / 4] &= ~((uint64_t)(uint16_t)~same << i % 4 * CLUSTER_BLOCKS);
  }
  leaf->layer->summed_blocks -= sums_count(s->has);
  block_sums_keep(s, keep);
  uint32_t left = sums_count(s->has);
  leaf->layer->summed_blocks += left;
  if (!left && !block_sums_spread(s)) replace_sums(map, leaf, 0);
}

/* ---- Of layers that are written to -------------------------------------------------------- */

void layer_set_live(struct layer *layer, bool live) { layer->live = live; }
bool layer_is_live(const struct layer *layer) { return layer->live; }
uint64_t layer_unsaved_leaves(const struct layer *layer) { return layer->unsaved_leaves; }
uint64_t map_unsaved_leaves(const struct map *map) { return map->unsaved_leaves; }

struct live_sums *layer_live_sums(const struct layer *layer, uint64_t leaf) {
  struct block_sums *s = sums_of(layer->slab, find_leaf(layer, leaf));
  return s && block_sums_spread(s) ? &s->live : NULL;
}

int layer_spread_sums(struct map *map, struct layer *layer, uint64_t leaf) {
  struct leaf *l = find_leaf(layer, leaf);
  check(l != NULL);
  struct block_sums *have = sums_of(&map->slab, l);
  uint32_t ref;
  if (have && block_sums_spread(have)) return 0;
  if (block_sums_make_spread(&map->slab, have, &ref)) return -ENOMEM;
  replace_sums(map, l, ref);
  if (!have) layer_heat_sums(map, layer, leaf);
  return 0;
}

void layer_heat_sums(struct map *map, struct layer *layer, uint64_t leaf) {
  struct block_sums *s = sums_of(&map->slab, find_leaf(layer, leaf));
  check(s && block_sums_spread(s));
  s->live.hot = true;
  set_unsaved(map, layer, s, true);
}

void layer_put_sums(struct map *map, struct layer *layer, uint64_t leaf,
                    const uint16_t bits[LEAF_CLUSTERS], const uint32_t *sum) {
  const struct leaf *l = find_leaf(layer, leaf);
  struct block_sums *s = sums_of(&map->slab, l);
  check(s && block_sums_spread(s));
  for (uint32_t slot = 0; slot < LEAF_CLUSTERS; slot++) {
    uint64_t *has = &s->has[slot / 4], mine = (uint64_t)bits[slot] << slot % 4 * CLUSTER_BLOCKS;
    if (!mine) continue;
    check(!sum || (bits[slot] & ~l->clusters[slot].valid) == 0);
    uint64_t changes = sum ? mine & ~*has : mine & *has;
    int count = __builtin_popcountll(changes);
    layer->summed_blocks += (uint64_t)(sum ? count : -count);
    *has ^= changes;
    for (uint32_t b = sum ? bits[slot] : 0; b; b &= b - 1) {
      uint32_t block = slot * CLUSTER_BLOCKS + (uint32_t)__builtin_ctz(b);
      s->sum[block] = sum[block];
    }
  }
  set_unsaved(map, layer, s, true);
}

void layer_put_sum(struct map *map, struct layer *layer, uint64_t block, uint32_t sum) {
  const struct leaf *l = find_leaf(layer, block >> LEAF_BLOCK_SHIFT);
  struct block_sums *s = sums_of(&map->slab, l);
  uint32_t at = block % LEAF_BLOCKS;
  uint64_t bit = UINT64_C(1) << at % 64;
  check(s && block_sums_spread(s));
  check(l->clusters[at / CLUSTER_BLOCKS].valid >> at % CLUSTER_BLOCKS & 1);
  layer->summed_blocks += !(s->has[at / 64] & bit);
  s->has[at / 64] |= bit;
  s->sum[at] = sum;
  set_unsaved(map, layer, s, true);
}

const struct block_sums *layer_lasting_sums(const struct layer *layer, uint64_t leaf) {
  const struct block_sums *s = layer_sums(layer, leaf);
  return s && block_sums_spread(s) && s->live.hot ? NULL : s;
}

bool layer_is_pinned(const struct layer *layer, uint64_t leaf) {
  const struct leaf *l = find_leaf(layer, leaf);
  return l && l->pins > 0;
}

/* ---- Changes ------------------------------------------------------------------------------ */

void map_watch(struct map *map, map_changed_fn *changed, void *arg) {
  map->changed = changed;
  map->changed_arg = arg;
}

void layer_set_watched(struct layer *layer, bool watched) { layer->watched = watched; }

static bool differs(struct cluster was, struct cluster is) {
  return was.valid != is.valid || was.zero != is.zero || (was.valid && was.place != is.place);
}

void layer_set(struct map *map, struct layer *layer, uint64_t cluster, struct cluster c) {
  struct leaf *leaf = find_leaf(layer, cluster >> LEAF_CLUSTER_SHIFT);
  check(leaf != NULL);
  check_cluster(c);
  if (unlikely(leaf->sums)) drop_sums(map, leaf, cluster % LEAF_CLUSTERS, 1, &c);
  struct cluster *entry = &leaf->clusters[cluster % LEAF_CLUSTERS];
  struct counts was = {0}, is = {0};
  count_cluster(&was, *entry);
  count_cluster(&is, c);
  bool tell = unlikely(layer->watched) && differs(*entry, c);
  *entry = c;
  recount(map, leaf, &was, &is); /* the leaf may be gone */
  if (tell) map->changed(map->changed_arg, layer, cluster >> LEAF_CLUSTER_SHIFT);
}

void layer_set_leaf(struct map *map, struct layer *layer, uint64_t leaf,
                    const struct cluster clusters[LEAF_CLUSTERS]) {
  struct leaf *l = find_leaf(layer, leaf);
  check(l != NULL);
  struct counts was = {0}, is = {0};
  for (uint32_t i = 0; l->used && i < LEAF_CLUSTERS; i++) count_cluster(&was, l->clusters[i]);
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) {
    check_cluster(clusters[i]);
    count_cluster(&is, clusters[i]);
  }
  if (unlikely(l->sums)) drop_sums(map, l, 0, LEAF_CLUSTERS, clusters);
  memcpy(l->clusters, clusters, sizeof l->clusters);
  recount(map, l, &was, &is);
  if (unlikely(layer->watched)) map->changed(map->changed_arg, layer, leaf);
}

/* ---- Partitions --------------------------------------------------------------------------- */

uint64_t map_leaf_hash(const struct map *map, uint64_t layer_id, uint64_t leaf) {
  return hash_id((struct blob_id){.hi = layer_id, .lo = leaf}, map->key);
}

uint64_t map_partition_leaves(const struct map *map, uint32_t partition) {
  return map->partition_count[partition];
}

int map_partition_visit(const struct map *map, uint32_t partition,
                        int (*visit)(void *arg, struct layer *layer, uint64_t leaf,
                                     const struct cluster clusters[LEAF_CLUSTERS]),
                        void *arg) {
  for (uint32_t ref = map->partition_head[partition]; ref;) {
    const struct leaf *leaf = slab_at(&map->slab, ref);
    ref = leaf->next;
    if (ref) __builtin_prefetch(slab_at(&map->slab, ref));
    int result = visit(arg, leaf->layer, leaf->number, leaf->clusters);
    if (result) return result;
  }
  return 0;
}

/* ---- Resolving ---------------------------------------------------------------------------- */

void resolved_init(struct resolved *r) {
  memset(r, 0, offsetof(struct resolved, sums.sum));
  r->undecided = LEAF_BLOCKS;
}

/* What one layer says of the blocks that nothing above it has decided. */
static void resolve_leaf(const struct cluster *clusters, const struct block_sums *sums,
                         uint32_t shard, struct resolved *r) {
  for (uint32_t slot = 0; slot < LEAF_CLUSTERS; slot++) {
    struct cluster c = clusters[slot];
    uint32_t *place = &r->place[slot * CLUSTER_BLOCKS];
    for (uint32_t bits = c.valid | c.zero; bits; bits &= bits - 1) {
      uint32_t i = (uint32_t)__builtin_ctz(bits);
      if (place[i] != RESOLVED_NOT) continue;
      bool valid = c.valid >> i & 1;
      place[i] = valid ? c.place + i : RESOLVED_ZERO;
      r->shard[slot * CLUSTER_BLOCKS + i] = valid ? (uint16_t)shard : 0;
      uint32_t block = slot * CLUSTER_BLOCKS + i;
      if (sums && valid && block_sums_has(sums, block))
        leaf_sums_set(&r->sums, block, block_sums_at(sums, block));
      else
        r->unsummed |= valid;
      r->undecided--;
    }
  }
}

struct layer_below layer_resolve(const struct map *map, struct layer_below from, uint32_t shard,
                                 uint64_t leaf, struct resolved *r) {
  while (from.id && r->undecided) {
    if (from.shard != shard) return from;
    const struct layer *layer = map_layer(map, from.id);
    if (!layer) break;
    const struct cluster *clusters = layer_leaf(layer, leaf);
    if (clusters) resolve_leaf(clusters, layer_sums(layer, leaf), shard, r);
    from = layer_below(layer);
  }
  return (struct layer_below){0};
}
