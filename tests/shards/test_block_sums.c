/* test_block_sums.c - checksums of blocks in the map and in views, against arrays, and their entry
 * in the log with bytes of any kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shards/log.h"
#include "tests/random.h"

/* ---- The map -------------------------------------------------------------------------------- */

#define LEAF 5u

/* Sums go with their blocks through any change, against an array. */
static void sums_of_the_map(void **state) {
  (void)state;
  static const uint64_t key[2] = {1, 2};
  struct map *map;
  struct layer *layer;
  struct random x = {7};
  struct cluster have[LEAF_CLUSTERS] = {{0}};
  static struct leaf_sums model, given;
  assert_int_equal(map_create(&map, key), 0);
  assert_int_equal(map_layer_add(map, 1, &layer), 0);
  assert_int_equal(layer_pin_leaf(map, layer, LEAF), 0);
  for (uint32_t round = 0; round < 4000; round++) {
    uint32_t slot = (uint32_t)random_below(&x, LEAF_CLUSTERS), what = (uint32_t)random_below(&x, 8);
    struct cluster next[LEAF_CLUSTERS];
    memcpy(next, have, sizeof next);
    if (what == 0) {
      for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
        if (random_below(&x, 3)) leaf_sums_set(&given, i, (uint32_t)random_next(&x));
      assert_int_equal(layer_set_sums(map, layer, LEAF, &given), 0);
      for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
        model.has[i / 64] &= ~(UINT64_C(1) << i % 64);
        if (leaf_sums_has(&given, i) && have[i / 16].valid >> i % 16 & 1)
          leaf_sums_set(&model, i, given.sum[i]);
      }
      memset(given.has, 0, sizeof given.has);
      continue;
    }
    uint32_t end =
        what == 1 ? slot + 1 + (uint32_t)random_below(&x, LEAF_CLUSTERS - slot) : slot + 1;
    for (uint32_t i = slot; i < end; i++) {
      uint16_t valid = (uint16_t)random_next(&x);
      uint32_t place = 1000 + 16 * (uint32_t)random_below(&x, 2);
      if (random_below(&x, 5) == 0) valid = 0;
      if (random_below(&x, 3)) valid |= have[i].valid, place = have[i].place;
      next[i] = (struct cluster){place || !valid ? place : 1000, valid, (uint16_t)~valid};
    }
    if (end == slot + 1)
      layer_set(map, layer, LEAF * LEAF_CLUSTERS + slot, next[slot]);
    else
      layer_set_leaf(map, layer, LEAF, next);
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
      struct cluster a = have[i / 16], b = next[i / 16];
      if (!(a.valid & b.valid & 1u << i % 16) || a.place != b.place)
        model.has[i / 64] &= ~(UINT64_C(1) << i % 64);
    }
    memcpy(have, next, sizeof have);
    const struct block_sums *sums = layer_sums(layer, LEAF);
    struct layer_stats stats;
    layer_stats(layer, &stats);
    assert_int_equal(stats.summed_blocks, sums_count(model.has));
    assert_int_equal(sums != NULL, stats.summed_blocks != 0);
    for (uint32_t i = 0; sums && i < LEAF_BLOCKS; i++) {
      assert_int_equal(block_sums_has(sums, i), leaf_sums_has(&model, i));
      if (block_sums_has(sums, i)) assert_int_equal(block_sums_at(sums, i), model.sum[i]);
    }
  }
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    layer_set(map, layer, LEAF * LEAF_CLUSTERS + i, (struct cluster){0});
  assert_null(layer_sums(layer, LEAF));
  layer_unpin_leaf(map, layer, LEAF);
  struct layer_stats stats;
  layer_stats(layer, &stats);
  assert_int_equal(stats.leaves + stats.summed_blocks, 0);
  map_destroy(map);
}

/* ---- Views ---------------------------------------------------------------------------------- */

/* What was resolved is what the view says, leaf by leaf, whatever else is added and dropped. */
static void sums_of_views(void **state) {
  (void)state;
  static struct resolved resolved;
  static struct leaf_sums model[8];
  static bool there[8];
  struct view *view;
  struct random x = {5};
  assert_int_equal(view_create(&view), 0);
  assert_null(view_sums(view, 0));
  for (uint32_t round = 0; round < 400; round++) {
    uint32_t leaf = (uint32_t)random_below(&x, 8);
    if (random_below(&x, 3) == 0) {
      view_drop_leaf(view, leaf);
      there[leaf] = false;
    } else if (random_below(&x, 50) == 0) {
      view_drop_all(view);
      memset(there, 0, sizeof there);
    } else {
      bool any = random_below(&x, 4);
      resolved_init(&resolved);
      memset(&model[leaf], 0, sizeof model[leaf]);
      for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
        if (random_below(&x, 2)) continue;
        resolved.place[i] = 1 + (uint32_t)random_below(&x, 1 << 20);
        if (any && random_below(&x, 2)) leaf_sums_set(&resolved.sums, i, (uint32_t)random_next(&x));
      }
      model[leaf] = resolved.sums;
      there[leaf] = true;
      assert_int_equal(view_add_leaf(view, leaf, &resolved), 0);
    }
    for (uint32_t k = 0; k < 8; k++) {
      const struct block_sums *sums = view_sums(view, k);
      assert_int_equal(sums != NULL, there[k] && sums_count(model[k].has));
      for (uint32_t i = 0; sums && i < LEAF_BLOCKS; i++) {
        assert_int_equal(block_sums_has(sums, i), leaf_sums_has(&model[k], i));
        if (block_sums_has(sums, i)) assert_int_equal(block_sums_at(sums, i), model[k].sum[i]);
      }
    }
  }
  uint64_t most = view_ram_bytes(view);
  for (uint32_t round = 0; round < 200; round++) { /* pieces come back */
    for (uint32_t k = 0; k < 8; k++) assert_int_equal(view_add_leaf(view, k, &resolved), 0);
    for (uint32_t k = 0; k < 8; k++) view_drop_leaf(view, k);
    if (round == 0) most = view_ram_bytes(view);
  }
  assert_true(view_ram_bytes(view) <= most);
  view_destroy(view);
}

/* Each layer of a chain gives the sums of the blocks that it decides. */
static void sums_of_a_chain(void **state) {
  (void)state;
  static const uint64_t key[2] = {3, 4};
  static struct leaf_sums sums;
  static struct resolved r;
  struct map *map;
  struct layer *layers[2];
  assert_int_equal(map_create(&map, key), 0);
  for (uint32_t i = 0; i < 2; i++) {
    assert_int_equal(map_layer_add(map, i + 1, &layers[i]), 0);
    assert_int_equal(layer_pin_leaf(map, layers[i], 0), 0);
    layer_set(map, layers[i], 0,
              (struct cluster){100 + 100 * i, i ? 0x00ff : 0x3c0f, i ? 0xc000 : 0});
  }
  layer_set_below(layers[1], (struct layer_below){1, 0});
  for (uint32_t upper = 0; upper < 2; upper++) {
    memset(sums.has, 0, sizeof sums.has);
    for (uint32_t i = 0; i < 16; i++)
      if (i != 3 && i != 11) leaf_sums_set(&sums, i, 1000 * (upper + 1) + i);
    assert_int_equal(layer_set_sums(map, layers[upper], 0, &sums), 0);
  }
  resolved_init(&r);
  layer_resolve(map, (struct layer_below){2, 0}, 0, 0, &r);
  assert_true(r.unsummed);
  for (uint32_t i = 0; i < LEAF_BLOCKS; i++) {
    bool data = i < 8 || (i >= 10 && i < 14); /* the upper one has 0 to 7, the lower one 10 to 13 */
    assert_int_equal(leaf_sums_has(&r.sums, i), data && i != 3 && i != 11);
    if (leaf_sums_has(&r.sums, i)) assert_int_equal(r.sums.sum[i], (i < 8 ? 2000 : 1000) + i);
  }
  for (uint32_t i = 0; i < 2; i++) {
    for (uint32_t k = 0; k < 16; k++) leaf_sums_set(&sums, k, k);
    assert_int_equal(layer_set_sums(map, layers[i], 0, &sums), 0);
  }
  resolved_init(&r);
  layer_resolve(map, (struct layer_below){2, 0}, 0, 0, &r);
  assert_false(r.unsummed);
  map_destroy(map);
}

/* ---- The entry ------------------------------------------------------------------------------ */

static const char *refused(const void *buf, uint64_t left) {
  struct entry e;
  const char *why = NULL;
  return log_entry_decode(&e, buf, left, 1 << 20, &why) ? NULL : why;
}

static void hostile_entries(void **state) {
  (void)state;
  static struct leaf_sums sums, got;
  struct random x = {3};
  for (uint32_t round = 0; round < 200; round++) {
    memset(sums.has, 0, sizeof sums.has);
    uint32_t count = 1 + (uint32_t)random_below(&x, round % 2 ? 8 : LEAF_BLOCKS);
    while (count-- > 0)
      leaf_sums_set(&sums, (uint32_t)random_below(&x, LEAF_BLOCKS), (uint32_t)random_next(&x));
    uint32_t n = sums_count(sums.has), bytes = entry_sums_bytes(n), peeked;
    struct blob_id id;
    char *buf = malloc(bytes); /* to its last byte, so that a look beyond it shows */
    assert_int_equal(log_entry_sums(buf, 9, 77, &sums), bytes);
    assert_true(log_entry_peek(buf, bytes, &id, &peeked));
    assert_int_equal(peeked, bytes);
    struct entry e;
    const char *why = "";
    assert_int_equal(log_entry_decode(&e, buf, bytes, 1 << 20, &why), bytes);
    assert_int_equal(e.type, ENTRY_SUMS);
    assert_int_equal(e.sums.layer, 9);
    assert_int_equal(e.sums.leaf, 77);
    log_unpack_sums(&e.sums, &got);
    assert_memory_equal(got.has, sums.has, sizeof sums.has);
    for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
      if (leaf_sums_has(&sums, i)) assert_int_equal(got.sum[i], sums.sum[i]);
    char *cut = malloc(bytes - 8);
    memcpy(cut, buf, bytes - 8);
    assert_string_equal(refused(cut, bytes - 8), "entry is cut off");
    free(cut);
    buf[1] = 1;
    assert_string_equal(refused(buf, bytes), "unknown flags");
    buf[1] = 0;
    buf[3] = 4;
    assert_string_equal(refused(buf, bytes), "unknown flags");
    buf[3] = 0;
    buf[7] = 1; /* leaf 2^24 and more */
    assert_string_equal(refused(buf, bytes), "impossible layer or leaf");
    buf[7] = 0;
    buf[8] = 0;
    assert_string_equal(refused(buf, bytes), "impossible layer or leaf");
    buf[8] = 9;
    if (n % 2) {
      buf[bytes - 1] = 1;
      assert_string_equal(refused(buf, bytes), "bytes behind the checksums are not zero");
      buf[bytes - 1] = 0;
    }
    for (uint32_t i = 0; i < 40; i++) { /* whatever it is then, it stays inside */
      buf[random_below(&x, 144)] ^= (char)(1 << random_below(&x, 8));
      (void)refused(buf, bytes);
    }
    memset(buf + 16, 0, 128);
    buf[0] = ENTRY_SUMS;
    buf[1] = buf[2] = buf[3] = buf[7] = 0;
    buf[8] = 9;
    assert_null(refused(buf, bytes)); /* none from now on */
    free(buf);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sums_of_the_map),
      cmocka_unit_test(sums_of_views),
      cmocka_unit_test(sums_of_a_chain),
      cmocka_unit_test(hostile_entries),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
