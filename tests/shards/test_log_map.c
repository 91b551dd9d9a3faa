/* test_log_map.c - entries of volumes: round trips, what is left out, each field out of range,
 * hostile bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shards/log.h"
#include "tests/random.h"

#define REGION 1000000u

static uint64_t buf64[4096 / 8];
static char *const buf = (char *)buf64;

static void make_clusters(struct cluster clusters[LEAF_CLUSTERS]) {
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    clusters[i] = (struct cluster){.place = 5000 + i * CLUSTER_BLOCKS,
                                   .valid = (uint16_t)(i + 1),
                                   .zero = (uint16_t) ~(i + 1)};
  clusters[5] = (struct cluster){0};
  clusters[6] = (struct cluster){.zero = 7};
}

static uint32_t decode(struct entry *e, uint32_t n) {
  const char *why = "";
  uint32_t got = log_entry_decode(e, buf, n, REGION, &why);
  if (!got) assert_true(why[0] != 0);
  return got;
}

/* At each length, in memory that ends there. */
static void cut_off(uint32_t n) {
  for (uint32_t left = 0; left <= n; left++) {
    char *cut = malloc(left ? left : 1);
    struct entry e;
    struct blob_id id;
    uint32_t peeked;
    const char *why = NULL;
    memcpy(cut, buf, left);
    assert_int_equal(log_entry_decode(&e, cut, left, REGION, &why), left == n ? n : 0);
    if (log_entry_peek(cut, left, &id, &peeked))
      assert_int_equal(peeked, n);
    else
      assert_true(left < n);
    free(cut);
  }
}

static void assert_clusters(const struct map_entry *e, const struct cluster *clusters) {
  uint32_t k = 0;
  for (uint64_t w = e->which; w; w &= w - 1)
    assert_memory_equal(&e->clusters[k++], &clusters[__builtin_ctzll(w)], sizeof *clusters);
}

static void test_map_round_trip(void **state) {
  (void)state;
  static const uint64_t which[] = {1, UINT64_C(1) << 63, 0x60, UINT64_MAX, 0xff00ff00ff, 0};
  struct cluster clusters[LEAF_CLUSTERS];
  struct entry e;
  make_clusters(clusters);
  for (size_t i = 0; i < array_size(which); i++) {
    bool whole = i % 2;
    memset(buf, 0xee, sizeof buf64);
    uint32_t n = log_entry_map(buf, UINT64_MAX - i, MAP_LEAVES_MAX - 1, whole, which[i], clusters);
    assert_int_equal(n, entry_map_bytes((uint32_t)__builtin_popcountll(which[i])));
    assert_int_equal((uint8_t)buf[n], 0xee);
    assert_int_equal(decode(&e, n), n);
    assert_int_equal(e.type, ENTRY_MAP);
    assert_true(e.map.layer == UINT64_MAX - i && e.map.leaf == MAP_LEAVES_MAX - 1);
    assert_true(e.map.whole == whole && e.map.which == which[i]);
    assert_clusters(&e.map, clusters);
    cut_off(n);
  }
}

static void test_move_round_trip(void **state) {
  (void)state;
  struct cluster clusters[LEAF_CLUSTERS];
  struct entry e;
  make_clusters(clusters);
  for (uint32_t i = 0; i < 3; i++) {
    uint64_t from = i == 1 ? 0 : 0xf0f, to = i == 2 ? 0 : 0x7fff0000ffff0000;
    uint32_t n = log_entry_move(buf, 8, from, 9, to, 77, clusters);
    assert_int_equal(n, entry_move_bytes((uint32_t)__builtin_popcountll(to)));
    assert_int_equal(decode(&e, n), n);
    assert_int_equal(e.type, ENTRY_MOVE);
    assert_true(e.map.from == 8 && e.map.layer == 9 && e.map.leaf == 77 && !e.map.whole);
    assert_true(e.map.which_from == from && e.map.which == to);
    assert_clusters(&e.map, clusters);
    cut_off(n);
  }
}

static void test_record_round_trip(void **state) {
  (void)state;
  struct blob_id key = {11, 12};
  char data[RECORD_BYTES_MAX];
  struct entry e;
  for (uint32_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 13 + 1);
  for (uint32_t bytes = 0; bytes <= RECORD_BYTES_MAX; bytes += bytes < 40 ? 1 : 123) {
    memset(buf, 0xee, sizeof buf64);
    uint32_t n = log_entry_record(buf, key, data, bytes);
    assert_int_equal(n, entry_record_bytes(bytes));
    assert_int_equal(n % 8, 0);
    assert_int_equal((uint8_t)buf[n], 0xee);
    assert_int_equal(decode(&e, n), n);
    assert_int_equal(e.type, ENTRY_RECORD);
    assert_true(blob_id_equal(e.record.key, key));
    assert_int_equal(e.record.bytes, bytes);
    assert_memory_equal(e.record.data, data, bytes);
    if (bytes < 100) cut_off(n);
    for (uint32_t i = 24 + bytes; i < n; i++) { /* the padding is zero */
      buf[i] = 1;
      assert_int_equal(decode(&e, n), 0);
      buf[i] = 0;
    }
  }
}

/* A place without valid bits is an allocation under way. */
static void test_under_way_is_left_out(void **state) {
  (void)state;
  struct cluster clusters[LEAF_CLUSTERS] = {{0}};
  struct entry e;
  clusters[0] = (struct cluster){.place = 5000};
  clusters[1] = (struct cluster){.place = 6000, .zero = 1};
  clusters[2] = (struct cluster){.place = 7000, .valid = 1};
  assert_int_equal(clusters_lasting(clusters), 6);
  uint32_t n = log_entry_map(buf, 1, 0, false, 7, clusters);
  assert_int_equal(decode(&e, n), n);
  assert_true(cluster_is_empty(e.map.clusters[0]));
  assert_int_equal(e.map.clusters[1].place, 0);
  assert_int_equal(e.map.clusters[1].zero, 1);
  assert_int_equal(e.map.clusters[2].place, 7000);
}

static void refused(uint32_t n, uint32_t at, const void *bytes, uint32_t count) {
  char kept[8];
  struct entry e;
  memcpy(kept, buf + at, count);
  memcpy(buf + at, bytes, count);
  if (decode(&e, n)) fail_msg("byte %u", at);
  memcpy(buf + at, kept, count);
  assert_int_equal(decode(&e, n), n);
}

static void test_fields_out_of_range(void **state) {
  (void)state;
  struct cluster clusters[LEAF_CLUSTERS] = {[3] = {.place = 5000, .valid = 5, .zero = 2}};
  uint32_t leaf = MAP_LEAVES_MAX, last = REGION - CLUSTER_BLOCKS, beyond = last + 1;
  uint32_t highest = UINT32_MAX;
  uint64_t none = 0, one = 1;
  uint16_t both = 6;
  uint32_t n = log_entry_map(buf, 1, 0, false, 8, clusters);
  for (uint32_t at = 1; at < 4; at++) refused(n, at, "\x02", 1); /* flags, reserved */
  refused(n, 4, &leaf, 4);
  refused(n, 8, &none, 8);
  refused(n, 16, &none, 8);
  refused(n, 24, &none, 4); /* valid blocks, no place */
  refused(n, 28, &none, 2); /* a place without */
  refused(n, 30, &both, 2); /* valid and zero */
  refused(n, 24, &beyond, 4);
  refused(n, 24, &highest, 4);
  struct entry e;
  memcpy(buf + 24, &last, 4);
  assert_int_equal(decode(&e, n), n);
  const char *why = "";
  memcpy(buf + 24, &highest, 4); /* a region that goes beyond what places can say */
  assert_int_equal(log_entry_decode(&e, buf, n, UINT64_C(1) << 40, &why), 0);

  n = log_entry_move(buf, 1, 3, 2, 8, 0, clusters);
  for (uint32_t at = 1; at < 4; at++) refused(n, at, "\x01", 1);
  refused(n, 4, &leaf, 4);
  refused(n, 8, &none, 8);
  refused(n, 16, &none, 8);
  refused(n, 16, &one, 8); /* to itself */
  refused(n, 40, &beyond, 4);
  n = log_entry_move(buf, 1, 3, 2, 0, 0, clusters);
  refused(n, 24, &none, 8); /* nothing from, nothing to */

  n = log_entry_record(buf, (struct blob_id){1, 2}, "12345678", 8);
  refused(n, 1, "\x01", 1);
  for (uint32_t at = 4; at < 8; at++) refused(n, at, "\x01", 1);
  uint16_t large = RECORD_BYTES_MAX + 1;
  log_entry_record(buf, (struct blob_id){1, 2}, buf64 + 200, RECORD_BYTES_MAX);
  memcpy(buf + 2, &large, 2);
  assert_int_equal(decode(&e, sizeof buf64), 0);
}

/* Whatever is accepted the map takes: its own checks do not abort. */
static void test_hostile_bytes(void **state) {
  (void)state;
  struct random r = {5};
  const uint64_t key[2] = {1, 2};
  struct map *map;
  struct cluster clusters[LEAF_CLUSTERS];
  uint32_t accepted = 0;
  make_clusters(clusters);
  assert_int_equal(map_create(&map, key), 0);
  for (int i = 0; i < 60000; i++) {
    uint64_t which = random_next(&r) & random_next(&r) & random_next(&r);
    uint32_t n = random_below(&r, 2)
                     ? log_entry_map(buf, 1 + random_below(&r, 9), random_below(&r, MAP_LEAVES_MAX),
                                     random_below(&r, 2), which, clusters)
                     : log_entry_move(buf, 1, which, 2, which, 3, clusters);
    for (uint64_t k = random_below(&r, 4); k > 0; k--)
      buf[random_below(&r, random_below(&r, 2) ? 24 : n)] = (char)random_next(&r);
    struct entry e;
    uint32_t got = decode(&e, n);
    if (!got || (e.type != ENTRY_MAP && e.type != ENTRY_MOVE)) continue;
    struct cluster now[LEAF_CLUSTERS] = {{0}};
    struct layer *layer;
    uint32_t at = 0;
    for (uint64_t w = e.map.which; w; w &= w - 1) now[__builtin_ctzll(w)] = e.map.clusters[at++];
    for (uint32_t k = 0; k < LEAF_CLUSTERS; k++)
      assert_true(now[k].place <= REGION - CLUSTER_BLOCKS);
    assert_int_equal(map_layer_add(map, e.map.layer, &layer), 0);
    assert_int_equal(layer_pin_leaf(map, layer, e.map.leaf), 0);
    layer_set_leaf(map, layer, e.map.leaf, now);
    layer_unpin_leaf(map, layer, e.map.leaf);
    accepted++;
  }
  assert_in_range(accepted, 15000, 55000);
  map_destroy(map);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_map_round_trip),      cmocka_unit_test(test_move_round_trip),
      cmocka_unit_test(test_record_round_trip),   cmocka_unit_test(test_under_way_is_left_out),
      cmocka_unit_test(test_fields_out_of_range), cmocka_unit_test(test_hostile_bytes),
  };
  return cmocka_run_group_tests_name("log_map", tests, NULL, NULL);
}
