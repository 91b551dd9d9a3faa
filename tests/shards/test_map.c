/* test_map.c - layers against plain arrays, partitions, RAM, and chains resolved into one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shards/base/slab.h"
#include "shards/map.h"
#include "tests/random.h"

static const uint64_t key[2] = {UINT64_C(0x1234567890abcdef), UINT64_C(0xfedcba0987654321)};

/* The linker puts this before slab_reserve(): the call with this number fails, 0: none. */
static uint32_t fail_at;
int __real_slab_reserve(struct slab *slab, uint32_t bytes);
int __wrap_slab_reserve(struct slab *slab, uint32_t bytes);
int __wrap_slab_reserve(struct slab *slab, uint32_t bytes) {
  if (fail_at && --fail_at == 0) return -ENOMEM;
  return __real_slab_reserve(slab, bytes);
}

static struct map *new_map(void) {
  struct map *map;
  assert_int_equal(map_create(&map, key), 0);
  return map;
}
static struct layer *new_layer(struct map *map, uint64_t id) {
  struct layer *layer;
  assert_int_equal(map_layer_add(map, id, &layer), 0);
  return layer;
}

static struct cluster random_cluster(struct random *r) {
  struct cluster c = {0};
  if (random_below(r, 3) == 0) return c;
  if (random_below(r, 8)) c.place = 1 + (uint32_t)random_below(r, MAP_PLACES_MAX - CLUSTER_BLOCKS);
  if (c.place && random_below(r, 8)) c.valid = (uint16_t)random_next(r);
  if (random_below(r, 2)) c.zero = (uint16_t)(random_next(r) & ~c.valid);
  return c;
}
static void assert_cluster(struct cluster c, struct cluster want) {
  assert_int_equal(c.place, want.place);
  assert_int_equal(c.valid, want.valid);
  assert_int_equal(c.zero, want.zero);
}

/* ---- Against a model ---------------------------------------------------------------------- */

#define LAYERS 4u
#define LEAVES 300u /* three levels: the last ones lie far up */

struct model {
  struct map *map;
  struct layer *layer[LAYERS];
  struct cluster clusters[LAYERS][LEAVES][LEAF_CLUSTERS];
  uint32_t pins[LAYERS][LEAVES];
  uint32_t seen[LAYERS][LEAVES]; /* by a visit */
};
static uint64_t leaf_number(uint32_t i) {
  return i < LEAVES - 4 ? i : MAP_LEAVES_MAX - (uint64_t)(LEAVES - i) * 20000;
}
static uint64_t layer_number(uint32_t i) { return UINT64_MAX - i * 3; }

static uint32_t model_used(const struct model *m, uint32_t layer, uint32_t leaf) {
  uint32_t used = 0;
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    used += !cluster_is_empty(m->clusters[layer][leaf][i]);
  return used;
}
static bool model_has(const struct model *m, uint32_t layer, uint32_t leaf) {
  return m->pins[layer][leaf] || model_used(m, layer, leaf);
}

static void set_one(struct model *m, struct random *r, uint32_t layer, uint32_t leaf) {
  uint32_t slot = (uint32_t)random_below(r, LEAF_CLUSTERS);
  struct cluster c = random_cluster(r);
  layer_set(m->map, m->layer[layer], leaf_number(leaf) * LEAF_CLUSTERS + slot, c);
  m->clusters[layer][leaf][slot] = c;
}
static void empty_all(struct model *m, uint32_t layer, uint32_t leaf) {
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) {
    if (!model_has(m, layer, leaf)) return;
    m->clusters[layer][leaf][i] = (struct cluster){0};
    layer_set(m->map, m->layer[layer], leaf_number(leaf) * LEAF_CLUSTERS + i, (struct cluster){0});
  }
}

static void set_all(struct model *m, struct random *r, uint32_t layer, uint32_t leaf) {
  bool empty = random_below(r, 3) == 0;
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    m->clusters[layer][leaf][i] = empty ? (struct cluster){0} : random_cluster(r);
  layer_set_leaf(m->map, m->layer[layer], leaf_number(leaf), m->clusters[layer][leaf]);
}

static void random_step(struct model *m, struct random *r) {
  uint32_t layer = (uint32_t)random_below(r, LAYERS), leaf = (uint32_t)random_below(r, LEAVES);
  uint64_t number = leaf_number(leaf), kind = random_below(r, 10);
  uint32_t *pins = &m->pins[layer][leaf];
  if (kind == 0) {
    empty_all(m, layer, leaf);
  } else if (kind == 4 && model_has(m, layer, leaf)) {
    set_all(m, r, layer, leaf); /* it may go away with this */
  } else if (kind == 1 && *pins) {
    layer_unpin_leaf(m->map, m->layer[layer], number);
    --*pins;
  } else if (kind == 2) {
    assert_int_equal(layer_pin_leaf(m->map, m->layer[layer], number), 0);
    ++*pins;
  } else {
    assert_int_equal(layer_pin_leaf(m->map, m->layer[layer], number), 0);
    ++*pins;
    if (kind == 3) set_all(m, r, layer, leaf);
    for (uint64_t i = random_below(r, 6); i > 0; i--) set_one(m, r, layer, leaf);
    layer_unpin_leaf(m->map, m->layer[layer], number);
    --*pins;
  }
}

static void check_leaf(const struct model *m, uint32_t layer, uint32_t leaf) {
  const struct layer *l = m->layer[layer];
  uint64_t number = leaf_number(leaf);
  const struct cluster *clusters = layer_leaf(l, number), *want = m->clusters[layer][leaf];
  assert_int_equal(clusters != NULL, model_has(m, layer, leaf));
  if (clusters) assert_memory_equal(clusters, want, sizeof m->clusters[layer][leaf]);
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) {
    layer_prefetch(l, number * LEAF_CLUSTERS + i);
    assert_cluster(layer_get(l, number * LEAF_CLUSTERS + i), want[i]);
  }
}

static void check_stats(const struct model *m, uint32_t layer) {
  struct layer_stats want = {0}, stats;
  for (uint32_t leaf = 0; leaf < LEAVES; leaf++) {
    want.leaves += model_used(m, layer, leaf) != 0;
    for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) {
      struct cluster c = m->clusters[layer][leaf][i];
      want.clusters += c.place != 0;
      want.valid_blocks += (uint64_t)__builtin_popcount(c.valid);
      want.zero_blocks += (uint64_t)__builtin_popcount(c.zero);
    }
  }
  layer_stats(m->layer[layer], &stats);
  assert_memory_equal(&stats, &want, sizeof stats);
}

static void check_next_leaf(const struct model *m, uint32_t layer) {
  uint64_t at = 0;
  for (uint32_t leaf = 0; leaf < LEAVES; leaf++) {
    if (!model_has(m, layer, leaf)) continue;
    assert_int_equal(layer_next_leaf(m->layer[layer], at), leaf_number(leaf));
    at = leaf_number(leaf) + 1;
  }
  assert_int_equal(layer_next_leaf(m->layer[layer], at), UINT64_MAX);
}

struct visited {
  struct model *m;
  uint32_t partition;
  uint64_t leaves;
};
static int visit_leaf(void *arg, struct layer *layer, uint64_t leaf,
                      const struct cluster clusters[LEAF_CLUSTERS]) {
  struct visited *v = arg;
  uint64_t hash = map_leaf_hash(v->m->map, layer_id(layer), leaf);
  assert_int_equal(map_partition_of(hash), v->partition);
  uint32_t l = 0, n = 0;
  while (v->m->layer[l] != layer) l++;
  while (leaf_number(n) != leaf) n++;
  assert_memory_equal(clusters, v->m->clusters[l][n], sizeof v->m->clusters[l][n]);
  v->m->seen[l][n]++;
  v->leaves++;
  return 0;
}

static void check_partitions(struct model *m) {
  memset(m->seen, 0, sizeof m->seen);
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    struct visited v = {.m = m, .partition = p};
    assert_int_equal(map_partition_visit(m->map, p, visit_leaf, &v), 0);
    assert_int_equal(map_partition_leaves(m->map, p), v.leaves);
  }
  for (uint32_t layer = 0; layer < LAYERS; layer++)
    for (uint32_t leaf = 0; leaf < LEAVES; leaf++)
      assert_int_equal(m->seen[layer][leaf], model_used(m, layer, leaf) != 0);
}

static void check_all(struct model *m) {
  for (uint32_t layer = 0; layer < LAYERS; layer++) {
    for (uint32_t leaf = 0; leaf < LEAVES; leaf++) check_leaf(m, layer, leaf);
    check_stats(m, layer);
    check_next_leaf(m, layer);
  }
  check_partitions(m);
}

static void test_model(void **state) {
  (void)state;
  struct model *m = calloc(1, sizeof *m);
  struct random r = {11};
  m->map = new_map();
  uint64_t empty_bytes = 0;
  for (uint32_t round = 0; round < 2; round++) {
    for (uint32_t i = 0; i < LAYERS; i++) m->layer[i] = new_layer(m->map, layer_number(i));
    for (uint32_t step = 0; step < 60000; step++) {
      random_step(m, &r);
      if (step % 64 == 0) check_leaf(m, step / 64 % LAYERS, (uint32_t)random_below(&r, LEAVES));
      if (step % 10000 == 0) check_all(m);
    }
    check_all(m);
    for (uint32_t layer = 0; layer < LAYERS; layer++) {
      for (uint32_t leaf = 0; leaf < LEAVES; leaf++) {
        empty_all(m, layer, leaf);
        for (; m->pins[layer][leaf]; m->pins[layer][leaf]--)
          layer_unpin_leaf(m->map, m->layer[layer], leaf_number(leaf));
      }
    }
    check_all(m);
    for (uint32_t i = 0; i < LAYERS; i++) map_layer_remove(m->map, m->layer[i]);
    /* The second time needs no more memory than the first: everything was given back. */
    if (round == 0) empty_bytes = map_ram_bytes(m->map);
  }
  assert_true(map_ram_bytes(m->map) <= empty_bytes + empty_bytes / 8);
  assert_null(map_layer_next(m->map, NULL));
  map_destroy(m->map);
  free(m);
}

/* ---- Small things ------------------------------------------------------------------------- */

static void test_held_place_counts(void **state) {
  (void)state;
  struct map *map = new_map();
  struct layer *layer = new_layer(map, 9);
  struct layer_stats stats;
  assert_int_equal(layer_pin_leaf(map, layer, 3), 0);
  assert_non_null(layer_leaf(layer, 3));
  layer_stats(layer, &stats);
  assert_int_equal(stats.leaves, 0);
  layer_set(map, layer, 3 * LEAF_CLUSTERS + 7, (struct cluster){.place = 160});
  layer_unpin_leaf(map, layer, 3);
  assert_int_equal(layer_get(layer, 3 * LEAF_CLUSTERS + 7).place, 160);
  layer_stats(layer, &stats);
  assert_int_equal(stats.leaves, 1);
  assert_int_equal(stats.clusters, 1);
  assert_int_equal(stats.valid_blocks, 0);
  layer_set(map, layer, 3 * LEAF_CLUSTERS + 7, (struct cluster){0});
  assert_null(layer_leaf(layer, 3));
  assert_int_equal(layer_get(layer, MAP_LEAVES_MAX * LEAF_CLUSTERS - 1).place, 0);
  assert_int_equal(layer_get(layer, UINT64_MAX).place, 0);
  map_destroy(map);
}

static int stop_at_third(void *arg, struct layer *layer, uint64_t leaf,
                         const struct cluster clusters[LEAF_CLUSTERS]) {
  (void)layer, (void)leaf, (void)clusters;
  return ++*(int *)arg == 3 ? 77 : 0;
}
static void test_visit_stops(void **state) {
  (void)state;
  struct map *map = new_map();
  struct layer *layer = new_layer(map, 1);
  uint32_t of_zero = 0;
  for (uint64_t leaf = 0; of_zero < 5; leaf++) {
    if (map_partition_of(map_leaf_hash(map, 1, leaf)) != 0) continue;
    assert_int_equal(layer_pin_leaf(map, layer, leaf), 0);
    layer_set(map, layer, leaf * LEAF_CLUSTERS, (struct cluster){.zero = 1});
    of_zero++;
  }
  int seen = 0;
  assert_int_equal(map_partition_visit(map, 0, stop_at_third, &seen), 77);
  assert_int_equal(seen, 3);
  map_destroy(map);
}

#define IDLE 10000u
static void test_many_layers(void **state) {
  (void)state;
  struct map *map = new_map();
  struct layer *first = new_layer(map, 1), **layers = calloc(IDLE, sizeof(struct layer *));
  uint64_t before = map_ram_bytes(map);
  for (uint32_t i = 0; i < IDLE; i++) layers[i] = new_layer(map, 2 + i * UINT64_C(65536));
  assert_true((map_ram_bytes(map) - before) / IDLE < 120);
  assert_ptr_equal(map_layer(map, 1), first); /* where it was, and found, after all growth */
  for (uint32_t i = 0; i < IDLE; i++) {
    assert_ptr_equal(new_layer(map, 2 + i * UINT64_C(65536)), layers[i]);
    assert_false(layer_is_named(layers[i]));
    layer_set_below(layers[i], (struct layer_below){.id = i, .shard = i % 7});
    assert_true(layer_is_named(layers[i]));
  }
  /* Every other one goes, while they are gone through. */
  uint32_t seen = 0;
  for (struct layer *l = map_layer_next(map, NULL), *next; l; l = next) {
    next = map_layer_next(map, l);
    seen++;
    if (l != first && layer_below(l).id % 2) map_layer_remove(map, l);
  }
  assert_int_equal(seen, IDLE + 1);
  for (uint32_t i = 0; i < IDLE; i++) {
    struct layer *l = map_layer(map, 2 + i * UINT64_C(65536));
    assert_ptr_equal(l, i % 2 ? NULL : layers[i]);
    if (l) assert_int_equal(layer_below(l).shard, i % 7);
  }
  assert_null(map_layer(map, 3));
  /* And all others, in the order in which they came. */
  for (uint32_t i = 0; i < IDLE; i += 2) map_layer_remove(map, layers[i]);
  assert_ptr_equal(map_layer_next(map, NULL), first);
  assert_null(map_layer_next(map, first));
  free(layers);
  map_destroy(map);
}

#define TEBI_LEAVES (UINT64_C(1) << (40 - LEAF_SHIFT))
static void test_ram_of_a_tebibyte(void **state) {
  (void)state;
  struct map *map = new_map();
  struct layer *layer = new_layer(map, 1);
  for (uint64_t leaf = 0; leaf < TEBI_LEAVES; leaf++) {
    assert_int_equal(layer_pin_leaf(map, layer, leaf), 0);
    /* A cluster of each leaf: a leaf takes what it takes. The places would not matter. */
    struct cluster c = {.place = (uint32_t)(16 + leaf * LEAF_BLOCKS), .valid = 0xffff};
    layer_set(map, layer, leaf * LEAF_CLUSTERS + leaf % LEAF_CLUSTERS, c);
    layer_unpin_leaf(map, layer, leaf);
  }
  struct layer_stats stats;
  layer_stats(layer, &stats);
  assert_int_equal(stats.leaves, TEBI_LEAVES);
  assert_true(map_ram_bytes(map) < UINT64_C(160) << 20);
  assert_true(map_ram_bytes(map) > TEBI_LEAVES * 512); /* it was counted */
  uint64_t in_all = 0, most = 0;
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    in_all += map_partition_leaves(map, p);
    most = max_u64(most, map_partition_leaves(map, p));
  }
  assert_int_equal(in_all, TEBI_LEAVES);
  assert_true(most < TEBI_LEAVES / INDEX_PARTITIONS * 5 / 4);
  map_destroy(map);
}

/* ---- Resolving ---------------------------------------------------------------------------- */

#define DEPTH_MAX 64u
#define HERE      3u

/* What the layers from one downwards say of a block, one at a time. */
static void model_block(struct layer *const *layers, uint32_t depth, uint64_t block,
                        uint32_t *place, uint16_t *shard) {
  *place = RESOLVED_NOT, *shard = 0;
  for (uint32_t i = 0; i < depth; i++) {
    struct cluster c = layer_get(layers[i], block / CLUSTER_BLOCKS);
    uint32_t bit = 1u << block % CLUSTER_BLOCKS;
    if (!((c.valid | c.zero) & bit)) continue;
    *place = c.valid & bit ? c.place + (uint32_t)(block % CLUSTER_BLOCKS) : RESOLVED_ZERO;
    *shard = c.valid & bit ? HERE : 0;
    return;
  }
}

static void fill_chain(struct map *map, struct random *r, struct layer **layers, uint32_t depth,
                       uint64_t leaf, struct layer_below end) {
  for (uint32_t i = 0; i < depth; i++) layers[i] = new_layer(map, 100 + i);
  for (uint32_t i = 0; i < depth; i++) {
    struct layer_below next = {.id = 101 + i, .shard = HERE};
    layer_set_below(layers[i], i + 1 < depth ? next : end);
    if (i % 5 == 4) continue; /* some have nothing there */
    assert_int_equal(layer_pin_leaf(map, layers[i], leaf), 0);
    for (uint32_t slot = 0; slot < LEAF_CLUSTERS; slot++)
      if (random_below(r, depth) < 2)
        layer_set(map, layers[i], leaf * LEAF_CLUSTERS + slot, random_cluster(r));
    layer_unpin_leaf(map, layers[i], leaf);
  }
}

static void check_chain(uint32_t depth, struct layer_below end, uint64_t seed) {
  struct map *map = new_map();
  struct random r = {seed};
  struct layer *layers[DEPTH_MAX];
  struct resolved *resolved = malloc(sizeof *resolved);
  uint64_t leaf = random_below(&r, 5000);
  fill_chain(map, &r, layers, depth, leaf, end);
  resolved_init(resolved);
  struct layer_below from = {.id = 100, .shard = HERE};
  struct layer_below rest = layer_resolve(map, from, HERE, leaf, resolved);
  uint32_t undecided = 0, place;
  uint16_t shard;
  for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
    model_block(layers, depth, leaf * LEAF_BLOCKS + i, &place, &shard);
    assert_int_equal(resolved->place[i], place);
    assert_int_equal(resolved->shard[i], shard);
    undecided += place == RESOLVED_NOT;
  }
  assert_int_equal(resolved->undecided, undecided);
  bool goes_on = undecided && end.shard != HERE;
  assert_int_equal(rest.id, goes_on ? end.id : 0);
  assert_int_equal(rest.shard, goes_on ? end.shard : 0);
  free(resolved);
  map_destroy(map);
}

static void test_resolve(void **state) {
  (void)state;
  static const uint32_t depths[] = {1, 8, 64};
  static const struct layer_below ends[] = {{0, 0}, {900, HERE + 1}, {900, HERE}};
  for (uint32_t d = 0; d < array_size(depths); d++)
    for (uint32_t e = 0; e < array_size(ends); e++)
      for (uint64_t seed = 0; seed < 10; seed++) check_chain(depths[d], ends[e], seed);
}

static void set_at(struct map *map, struct layer *layer, uint64_t cluster, struct cluster c) {
  assert_int_equal(layer_pin_leaf(map, layer, cluster / LEAF_CLUSTERS), 0);
  layer_set(map, layer, cluster, c);
  layer_unpin_leaf(map, layer, cluster / LEAF_CLUSTERS);
}

/* By hand: valid above zero above valid, a held place in between, and another shard's part below,
 * which is left alone where something is decided. */
static void test_resolve_over_shards(void **state) {
  (void)state;
  struct map *here = new_map(), *there = new_map();
  struct layer *top = new_layer(here, 1), *middle = new_layer(here, 2), *low = new_layer(there, 3);
  layer_set_below(top, (struct layer_below){.id = 2, .shard = 0});
  layer_set_below(middle, (struct layer_below){.id = 3, .shard = 1});
  set_at(here, top, 0, (struct cluster){.place = 1000, .valid = 1, .zero = 2});
  set_at(here, top, 1, (struct cluster){.place = 2000});
  set_at(here, middle, 0, (struct cluster){.place = 3000, .valid = 7});
  set_at(here, middle, 1, (struct cluster){.zero = 1});
  set_at(there, low, 0, (struct cluster){.place = 4000, .valid = 15});
  set_at(there, low, 1, (struct cluster){.place = 5000, .valid = 3});
  struct resolved *r = malloc(sizeof *r);
  resolved_init(r);
  struct layer_below rest = layer_resolve(here, (struct layer_below){.id = 1}, 0, 0, r);
  assert_int_equal(rest.id, 3);
  assert_int_equal(rest.shard, 1);
  rest = layer_resolve(there, rest, 1, 0, r);
  assert_int_equal(rest.id, 0);
  static const uint32_t want[] = {1000, RESOLVED_ZERO, 3002, 4003, RESOLVED_NOT};
  for (uint32_t i = 0; i < array_size(want); i++) assert_int_equal(r->place[i], want[i]);
  assert_int_equal(r->shard[2], 0);
  assert_int_equal(r->shard[3], 1);
  assert_int_equal(r->place[16], RESOLVED_ZERO);
  assert_int_equal(r->place[17], 5001);
  assert_int_equal(r->undecided, LEAF_BLOCKS - 6);
  free(r);
  map_destroy(here);
  map_destroy(there);
}

/* Once all is decided nobody below is asked. */
static void test_resolve_stops(void **state) {
  (void)state;
  struct map *map = new_map();
  struct layer *top = new_layer(map, 1);
  layer_set_below(top, (struct layer_below){.id = 2, .shard = 1});
  for (uint64_t i = 0; i < LEAF_CLUSTERS; i++)
    set_at(map, top, i, (struct cluster){.place = 16, .valid = 0x00ff, .zero = 0xff00});
  struct resolved *r = malloc(sizeof *r);
  resolved_init(r);
  struct layer_below rest = layer_resolve(map, (struct layer_below){.id = 1}, 0, 0, r);
  assert_int_equal(r->undecided, 0);
  assert_int_equal(rest.id, 0);
  resolved_init(r);
  rest = layer_resolve(map, (struct layer_below){.id = 1, .shard = 5}, 0, 0, r);
  assert_int_equal(rest.id, 1); /* not this shard's at all */
  assert_int_equal(rest.shard, 5);
  free(r);
  map_destroy(map);
}

/* A layer or a pin for which there is no memory leaves all as it was, whichever piece it was. */
static void test_no_memory(void **state) {
  (void)state;
  struct map *map = new_map();
  struct layer *layer = new_layer(map, 1), *other;
  const uint64_t far = MAP_LEAVES_MAX - 1;
  set_at(map, layer, 5, (struct cluster){.zero = 1});
  fail_at = 1;
  assert_int_equal(map_layer_add(map, 2, &other), -ENOMEM);
  assert_null(map_layer(map, 2));
  uint32_t failed = 0;
  for (;; failed++) {
    fail_at = failed + 1;
    if (!layer_pin_leaf(map, layer, far)) break;
    assert_null(layer_leaf(layer, far));
    assert_int_equal(layer_next_leaf(layer, 1), UINT64_MAX);
    assert_int_equal(layer_get(layer, 5).zero, 1);
  }
  fail_at = 0;
  /* It takes the leaf, 4 levels above what was there, which stay from one time to the next, and 3
   * nodes down: 5 times were needed until all of them got memory. */
  assert_int_equal(failed, 5);
  assert_non_null(layer_leaf(layer, far));
  layer_unpin_leaf(map, layer, far);
  layer_set(map, layer, 5, (struct cluster){0});
  map_layer_remove(map, layer); /* it is empty */
  map_destroy(map);
}

/* ---- Watched layers -------------------------------------------------------------------------
 */

struct seen {
  const struct layer *layer;
  uint64_t leaf;
  uint32_t count;
};

static void see(void *arg, const struct layer *layer, uint64_t leaf) {
  struct seen *seen = arg;
  *seen = (struct seen){layer, leaf, seen->count + 1};
}

static void test_watched(void **state) {
  (void)state;
  struct map *map = new_map();
  struct layer *layer = new_layer(map, 1), *other = new_layer(map, 2);
  struct cluster all[LEAF_CLUSTERS] = {{.place = 32, .valid = 1}};
  struct leaf_sums sums = {.has = {1}};
  struct seen seen = {0};
  const uint64_t at = 5 * LEAF_CLUSTERS; /* in leaf 5 */
  map_watch(map, see, &seen);
  layer_set_watched(layer, true);
  assert_int_equal(layer_pin_leaf(map, layer, 5), 0);
  set_at(map, other, at, (struct cluster){.place = 16, .valid = 1});
  layer_set(map, layer, at, (struct cluster){.place = 32}); /* no block has it yet */
  assert_int_equal(seen.count, 0);
  layer_set(map, layer, at, (struct cluster){.place = 32, .valid = 1});
  assert_int_equal(seen.count, 1);
  assert_ptr_equal(seen.layer, layer);
  assert_int_equal(seen.leaf, 5);
  layer_set(map, layer, at, (struct cluster){.place = 32, .valid = 1}); /* as it was */
  assert_int_equal(seen.count, 1);
  layer_set(map, layer, at, (struct cluster){.place = 48, .valid = 1});
  layer_set(map, layer, at, (struct cluster){.place = 48, .valid = 1, .zero = 2});
  assert_int_equal(seen.count, 3);
  layer_set_leaf(map, layer, 5, all);
  assert_int_equal(seen.count, 4);
  assert_int_equal(layer_set_sums(map, layer, 5, &sums), 0);
  assert_int_equal(seen.count, 5);
  layer_unpin_leaf(map, layer, 5);
  layer_set(map, layer, at, (struct cluster){0}); /* with it the leaf goes */
  assert_int_equal(seen.count, 6);
  assert_int_equal(seen.leaf, 5);
  layer_set_watched(layer, false);
  set_at(map, layer, at, (struct cluster){.place = 32, .valid = 1});
  assert_int_equal(seen.count, 6);
  map_destroy(map);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_model),
      cmocka_unit_test(test_held_place_counts),
      cmocka_unit_test(test_visit_stops),
      cmocka_unit_test(test_many_layers),
      cmocka_unit_test(test_ram_of_a_tebibyte),
      cmocka_unit_test(test_resolve),
      cmocka_unit_test(test_resolve_over_shards),
      cmocka_unit_test(test_resolve_stops),
      cmocka_unit_test(test_watched),
      cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
