/* test_index.c - the index against a plain array, its RAM, and its limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shards/index_find.h"
#include "tests/random.h"

static const uint64_t key[2] = {UINT64_C(0x1234567890abcdef), UINT64_C(0xfedcba0987654321)};

/* What a blob should be follows from a seed, so the model is an array of seeds. */
static struct extent seed_extents[BLOB_EXTENTS_MAX];
static uint32_t seed_sums[BLOB_GRANULES_MAX];

static uint64_t seed_bytes(struct random *r) {
  uint64_t kind = random_below(r, 1000);
  if (kind < 50) return 0;
  if (kind < 600) return 1 + random_below(r, 4096);
  if (kind < 900) return 1 + random_below(r, 20 * 4096);
  if (kind < 990) return 1 + random_below(r, 2 << 20);
  return kind < 999 ? 1 + (random_next(r) >> 24) : UINT64_C(1) << 40;
}

/* Cuts the blocks into some extents; at times the last is longer than it needs to be. */
static void seed_fill_extents(struct random *r, struct blob *b) {
  uint64_t left = bytes_to_blocks(b->bytes);
  uint32_t most = random_below(r, 4) ? 1 : 1 + (uint32_t)random_below(r, 300);
  for (b->extent_count = 0; left > 0; b->extent_count++) {
    uint64_t blocks = b->extent_count + 1 >= most ? left : 1 + random_below(r, left);
    seed_extents[b->extent_count] =
        (struct extent){.block = random_next(r) >> 24, .blocks = blocks};
    left -= blocks;
  }
  if (b->extent_count > 0 && random_below(r, 20) == 0) seed_extents[b->extent_count - 1].blocks++;
}

static struct blob blob_of_seed(struct blob_id id, uint64_t seed) {
  struct random r = {seed};
  struct blob b = {.id = id, .extents = seed_extents, .checksums = seed_sums};
  b.bytes = seed_bytes(&r);
  b.granule_shift = blob_granule_shift(b.bytes);
  b.flags = random_below(&r, 5) == 0 ? BLOB_NO_CHECKSUM : 0;
  if (!b.flags) b.granule_count = blob_granule_count(b.bytes, b.granule_shift);
  seed_fill_extents(&r, &b);
  for (uint32_t i = 0; i < b.granule_count; i++) seed_sums[i] = (uint32_t)random_next(&r);
  return b;
}

static void assert_same(const struct blob *found, const struct blob *want) {
  assert_true(blob_id_equal(found->id, want->id));
  assert_int_equal(found->bytes, want->bytes);
  assert_int_equal(found->flags, want->flags);
  assert_int_equal(found->granule_shift, want->granule_shift);
  assert_int_equal(found->extent_count, want->extent_count);
  assert_int_equal(found->granule_count, want->granule_count);
  assert_memory_equal(found->extents, want->extents, want->extent_count * sizeof(struct extent));
  assert_memory_equal(found->checksums, want->checksums, want->granule_count * sizeof(uint32_t));
}

static uint64_t hash_of(struct blob_id id) { return hash_id(id, key); }

static void put(struct index *x, const struct blob *b) {
  uint64_t hash = hash_of(b->id);
  uint32_t extents = b->extent_count;
  if (extents == 1 && b->extents[0].blocks != bytes_to_blocks(b->bytes)) extents = 2;
  assert_int_equal(index_reserve(x, hash, extents, b->granule_count), 0);
  uint64_t ram = index_ram_bytes(x);
  assert_int_equal(index_put(x, hash, b), 0);
  assert_int_equal(index_ram_bytes(x), ram); /* nothing was allocated */
}

struct model {
  uint64_t *seeds; /* by id; 0: none */
  uint8_t *seen;
  uint32_t ids;
  uint64_t count, live_bytes;
};
static struct blob_id model_id(uint32_t i) {
  return (struct blob_id){.hi = i % 7, .lo = i}; /* similar ids, as applications make them */
}
static int visit_model(void *arg, uint64_t hash, const struct blob *b) {
  struct model *m = arg;
  assert_int_equal(hash, hash_of(b->id));
  assert_true(b->id.lo < m->ids && m->seeds[b->id.lo]);
  assert_int_equal(m->seen[b->id.lo], 0);
  m->seen[b->id.lo] = 1;
  struct blob want = blob_of_seed(b->id, m->seeds[b->id.lo]);
  assert_same(b, &want);
  return 0;
}
static void check_all(const struct index *x, struct model *m) {
  uint64_t count = 0;
  memset(m->seen, 0, m->ids);
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    assert_int_equal(index_partition_visit(x, p, visit_model, m), 0);
    count += index_partition_count(x, p);
  }
  for (uint32_t i = 0; i < m->ids; i++) assert_int_equal(m->seen[i], m->seeds[i] != 0);
  assert_int_equal(count, m->count);
}

static void model_step(struct index *x, struct model *m, struct random *r, unsigned deletes) {
  uint32_t i = (uint32_t)random_below(r, m->ids);
  struct blob_id id = model_id(i);
  uint64_t hash = hash_of(id), what = random_below(r, 100);
  struct blob found, old = {.bytes = 0};
  if (m->seeds[i]) old = blob_of_seed(id, m->seeds[i]);
  assert_int_equal(index_find(x, hash, id, &found), m->seeds[i] ? 0 : -ENOENT);
  if (m->seeds[i]) assert_same(&found, &old);
  if (what < deletes) {
    assert_int_equal(index_delete(x, hash, id), m->seeds[i] ? 0 : -ENOENT);
    m->count -= m->seeds[i] != 0;
    m->live_bytes -= old.bytes;
    m->seeds[i] = 0;
  } else if (what < 90) {
    m->count += m->seeds[i] == 0;
    m->seeds[i] = random_next(r) | 1;
    struct blob new = blob_of_seed(id, m->seeds[i]);
    m->live_bytes += new.bytes - old.bytes;
    put(x, &new);
  }
  assert_int_equal(index_count(x), m->count);
  assert_int_equal(index_live_bytes(x), m->live_bytes);
}

static void run_model(uint32_t ids, int steps, uint64_t seed) {
  struct model m = {.seeds = calloc(ids, 8), .seen = calloc(ids, 1), .ids = ids};
  struct random r = {seed};
  struct index *x;
  assert_int_equal(index_create(&x, key), 0);
  for (int step = 0; step < steps; step++) {
    /* grows, shrinks, grows again */
    model_step(x, &m, &r, step / (steps / 5) % 2 ? 70 : 20);
    if (step % (steps / 5) == 0) check_all(x, &m);
  }
  check_all(x, &m);
  for (uint32_t i = 0; i < ids; i++)
    if (m.seeds[i]) assert_int_equal(index_delete(x, hash_of(model_id(i)), model_id(i)), 0);
  assert_int_equal(index_count(x), 0);
  assert_int_equal(index_live_bytes(x), 0);
  index_destroy(x);
  free(m.seeds);
  free(m.seen);
}
static void test_random_operations(void **state) {
  (void)state;
  run_model(20000, 70000, 8);
  run_model(600, 30000, 9);
}

static struct blob small_blob(uint64_t i, const struct extent *extent, const uint32_t *sum) {
  return (struct blob){.id = {.hi = i * UINT64_C(0x9e3779b97f4a7c15), .lo = i},
                       .bytes = 4096,
                       .granule_shift = 12,
                       .extent_count = 1,
                       .granule_count = 1,
                       .extents = extent,
                       .checksums = sum};
}

/* 40 bytes a blob, everything counted, whatever the number of blobs. */
static void test_ram_for_a_small_blob(void **state) {
  (void)state;
  enum { FIRST = 600000, LAST = 1400000, STEP = 5000 };
  struct index *x;
  double worst = 0, at_million = 0;
  uint64_t worst_at = 0;
  assert_int_equal(index_create(&x, key), 0);
  for (uint64_t i = 1; i <= LAST; i++) {
    struct extent extent = {.block = i, .blocks = 1};
    uint32_t sum = (uint32_t)i * 2654435761u;
    struct blob b = small_blob(i, &extent, &sum);
    uint64_t hash = hash_of(b.id);
    assert_false(index_reserve(x, hash, 1, 1) | index_put(x, hash, &b));
    if (i < FIRST || i % STEP) continue;
    double each = (double)index_ram_bytes(x) / (double)i;
    if (i == 1000000) at_million = each;
    if (each > worst) worst = each, worst_at = i;
  }
  print_message("RAM for a blob: %.2f bytes at 1,000,000; at worst %.2f, at %llu\n", at_million,
                worst, (unsigned long long)worst_at);
  assert_int_equal(index_count(x), LAST);
  assert_true(at_million <= 40);
  assert_true(worst <= 40);
  for (uint64_t i = 1; i <= LAST; i += 11) {
    struct extent extent = {.block = i, .blocks = 1};
    uint32_t sum = (uint32_t)i * 2654435761u;
    struct blob b = small_blob(i, &extent, &sum), found;
    index_prefetch(x, hash_of(b.id));
    assert_int_equal(index_find(x, hash_of(b.id), b.id, &found), 0);
    assert_same(&found, &b);
  }
  index_destroy(x);
}

/* 4 bytes for each further granule, and the entry: 16 KiB blobs have three more. */
static void test_ram_for_more_granules(void **state) {
  (void)state;
  enum { COUNT = 700000 };
  struct index *x;
  uint32_t sums[4] = {1, 2, 3, 4};
  assert_int_equal(index_create(&x, key), 0);
  for (uint64_t i = 1; i <= COUNT; i++) {
    struct extent extent = {.block = 4 * i, .blocks = 4};
    struct blob b = small_blob(i, &extent, sums);
    b.bytes = 16384;
    b.granule_count = 4;
    uint64_t hash = hash_of(b.id);
    assert_false(index_reserve(x, hash, 1, 4) | index_put(x, hash, &b));
  }
  double each = (double)index_ram_bytes(x) / COUNT;
  print_message("RAM for a blob of four granules: %.2f bytes\n", each);
  assert_true(each <= 40 + 4 * 4);
  index_destroy(x);
}

static void test_blobs_without_details(void **state) {
  (void)state;
  struct index *x;
  struct extent extent = {.block = (UINT64_C(1) << 40) - 1, .blocks = UINT64_C(1) << 28};
  struct blob b = small_blob(1, &extent, NULL), found;
  assert_int_equal(index_create(&x, key), 0);
  b.bytes = UINT64_C(1) << 40; /* 1 TiB in one extent, no checksums */
  b.granule_count = 0;
  b.flags = BLOB_NO_CHECKSUM;
  b.granule_shift = 24;
  put(x, &b);
  uint64_t ram = index_ram_bytes(x);
  assert_int_equal(index_find(x, hash_of(b.id), b.id, &found), 0);
  assert_same(&found, &b);
  assert_ptr_equal(found.extents, &found.inline_extent);
  b.bytes = 0; /* an empty one in its place */
  b.extent_count = 0;
  b.flags = 0;
  b.granule_shift = 12;
  put(x, &b);
  assert_int_equal(index_find(x, hash_of(b.id), b.id, &found), 0);
  assert_same(&found, &b);
  assert_int_equal(index_ram_bytes(x), ram);
  assert_int_equal(index_count(x), 1);
  index_destroy(x);
}

static void test_largest_blob(void **state) {
  (void)state;
  struct index *x;
  struct blob b = small_blob(1, seed_extents, seed_sums), found;
  assert_int_equal(index_create(&x, key), 0);
  b.bytes = UINT64_C(1) << 40;
  b.granule_shift = blob_granule_shift(b.bytes);
  b.granule_count = blob_granule_count(b.bytes, b.granule_shift);
  b.extent_count = BLOB_EXTENTS_MAX;
  assert_int_equal(b.granule_count, BLOB_GRANULES_MAX);
  for (uint32_t i = 0; i < BLOB_EXTENTS_MAX; i++)
    seed_extents[i] = (struct extent){.block = UINT64_MAX - i, .blocks = i + 1};
  for (uint32_t i = 0; i < BLOB_GRANULES_MAX; i++) seed_sums[i] = ~i;
  for (int round = 0; round < 20; round++) { /* replacing it does not pile up */
    put(x, &b);
    assert_int_equal(index_find(x, hash_of(b.id), b.id, &found), 0);
    assert_same(&found, &b);
  }
  assert_true(index_ram_bytes(x) < 2 << 20);
  index_destroy(x);
}

static void test_put_needs_room(void **state) {
  (void)state;
  struct index *x;
  struct extent extent = {.block = 9, .blocks = 2};
  uint32_t sums[2] = {1, 2};
  struct blob b = small_blob(1, &extent, sums), found;
  b.bytes = 8192;
  b.granule_count = 2;
  uint64_t hash = hash_of(b.id);
  assert_int_equal(index_create(&x, key), 0);
  assert_int_equal(index_put(x, hash, &b), -ENOMEM);
  assert_int_equal(index_reserve(x, hash, 1, 1), 0);
  assert_int_equal(index_put(x, hash, &b), -ENOMEM); /* no room for the details */
  assert_int_equal(index_find(x, hash, b.id, &found), -ENOENT);
  assert_int_equal(index_delete(x, hash, b.id), -ENOENT);
  index_prefetch(x, hash);
  assert_int_equal(index_count(x), 0);
  assert_int_equal(index_live_bytes(x), 0);
  index_destroy(x);
}

/* Ids whose hashes agree in all that the index looks at: found all the same, and too many of them
 * are refused, not endless. */
static void test_equal_hashes(void **state) {
  (void)state;
  struct index *x;
  struct blob found;
  uint32_t stored = 0;
  int rc = 0;
  assert_int_equal(index_create(&x, (uint64_t[2]){0, 0}), 0);
  /* with this key lo == 0 makes the product, hence the hash, the same for any hi */
  for (uint64_t i = 1; i <= 5000; i++) {
    struct blob b = {.id = {.hi = i}, .granule_shift = 12};
    rc = index_reserve(x, hash_id(b.id, (uint64_t[2]){0, 0}), 0, 0);
    if (rc < 0) break;
    assert_int_equal(index_put(x, hash_id(b.id, (uint64_t[2]){0, 0}), &b), 0);
    stored++;
  }
  assert_true(rc == 0 || rc == -ENOMEM);
  assert_true(stored >= 4);
  for (uint64_t i = 1; i <= stored; i++) {
    struct blob_id id = {.hi = i};
    assert_int_equal(index_find(x, hash_id(id, (uint64_t[2]){0, 0}), id, &found), 0);
    assert_true(blob_id_equal(found.id, id));
  }
  for (uint64_t i = 1; i <= stored; i += 2) {
    struct blob_id id = {.hi = i};
    assert_int_equal(index_delete(x, hash_id(id, (uint64_t[2]){0, 0}), id), 0);
  }
  for (uint64_t i = 1; i <= stored; i++) {
    struct blob_id id = {.hi = i};
    assert_int_equal(index_find(x, hash_id(id, (uint64_t[2]){0, 0}), id, &found),
                     i % 2 ? -ENOENT : 0);
  }
  index_destroy(x);
}

/* The tags of a group, taken together, against one after the other. */
static void test_tags(void **state) {
  (void)state;
  struct random r = {77};
  uint8_t tags[TAGS_AT_ONCE];
  for (int round = 0; round < 20000; round++) {
    uint64_t hash = random_next(&r);
    uint32_t want = 0, empty = 0;
    if (round % 16 == 0) hash &= ~(UINT64_C(255) << 32);
    assert_int_not_equal(tag_of(hash), 0);
    for (uint32_t i = 0; i < TAGS_AT_ONCE; i++) {
      tags[i] = random_below(&r, 3) ? (uint8_t)random_below(&r, 256) : tag_of(hash);
      want |= (uint32_t)(tags[i] == tag_of(hash)) << i;
      empty |= (uint32_t)(tags[i] == 0) << i;
    }
    assert_int_equal(tags_equal(tags, hash), want);
    assert_int_equal(tags_empty(tags), empty);
  }
}

/* What was noted of an id: its slot, or one of another id, never memory that has gone. */
static bool noted(const struct index *x, struct blob_id id, uint64_t block) {
  const struct index_slot *e = index_noted(x, hash_of(id));
  if (!blob_id_equal(e->id, id)) return false;
  assert_int_equal(e->where & SLOT_BLOCK_MASK, block);
  assert_int_equal(slot_place(e), block << BLOCK_SHIFT);
  return true;
}
/* Blob i is at block 2i, or 2i + 1 once it was replaced. */
static void put_at(struct index *x, uint64_t i, uint64_t block) {
  struct extent extent = {.block = block, .blocks = 1};
  uint32_t sum = 1;
  struct blob b = small_blob(i, &extent, &sum);
  put(x, &b);
}
static void test_noted_while_it_changes(void **state) {
  (void)state;
  enum { COUNT = 60000, BATCH = 8 };
  struct index *x;
  uint32_t found = 0, asked = 0, late = 0, far = 0;
  assert_int_equal(index_create(&x, key), 0);
  for (uint64_t i = 1; i <= COUNT; i++) {
    put_at(x, i, 2 * i);
    if (i % BATCH) continue;
    /* a batch that was put lately: asked for; then one is replaced, one deleted, and others may
     * make tables grow, or move what lies behind them */
    struct blob_id ids[BATCH];
    for (uint64_t k = 0; k < BATCH; k++) {
      ids[k] = small_blob(i - k, NULL, NULL).id;
      index_prefetch(x, hash_of(ids[k]));
    }
    for (uint64_t k = 0; k < BATCH; k++) found += noted(x, ids[k], 2 * (i - k)), asked++;
    put_at(x, i, 2 * i + 1);
    assert_int_equal(index_delete(x, hash_of(ids[1]), ids[1]), 0);
    for (uint64_t k = 0; k < BATCH; k++) put_at(x, COUNT + i + k, 2 * (COUNT + i + k));
    noted(x, ids[0], 2 * i + 1);
    assert_false(noted(x, ids[1], 0));
    for (uint64_t k = 2; k < BATCH; k++) late += noted(x, ids[k], 2 * (i - k));
    for (uint64_t k = 0; k < BATCH; k++) {
      bool there = index_slot(x, hash_of(ids[k]), ids[k]) != NULL;
      assert_int_equal(there, k != 1);
      bool near = index_note(x, hash_of(ids[k]), ids[k]); /* as nearly all are */
      assert_true(there || !near);
      assert_int_equal(noted(x, ids[k], k ? 2 * (i - k) : 2 * i + 1), near);
      far += there && !near;
    }
    for (uint64_t k = 0; k < BATCH; k++)
      assert_int_equal(index_delete(x, hash_of(small_blob(COUNT + i + k, NULL, NULL).id),
                                    small_blob(COUNT + i + k, NULL, NULL).id),
                       0);
  }
  print_message("noted: %u of %u, %u after changes; %u too far\n", found, asked, late, far);
  /* what notes are for */
  assert_true(found > asked / 100 * 93);
  assert_true(late > 0);
  assert_true(far < asked / 100);
  index_destroy(x);
}

static int stop_at_once(void *arg, uint64_t hash, const struct blob *blob) {
  (void)hash;
  (void)blob;
  ++*(int *)arg;
  return 77;
}
static void test_visit_stops(void **state) {
  (void)state;
  struct index *x;
  int calls = 0;
  struct blob b = {.id = {.hi = 3, .lo = 4}, .granule_shift = 12};
  uint32_t partition = index_partition_of(hash_of(b.id));
  assert_int_equal(index_create(&x, key), 0);
  assert_int_equal(index_partition_visit(x, partition, stop_at_once, &calls), 0);
  put(x, &b);
  assert_int_equal(index_partition_visit(x, partition, stop_at_once, &calls), 77);
  assert_int_equal(calls, 1);
  assert_int_equal(index_partition_count(x, partition), 1);
  index_destroy(x);
}

static int put_into(void *arg, uint64_t hash, const struct blob *b) {
  (void)hash;
  put(arg, b);
  return 0;
}
/* A copy made in the order of visit, as recovery does it, is the same index in as much RAM. */
static void test_loading_in_order(void **state) {
  (void)state;
  enum { COUNT = 200000 };
  struct index *x, *copy;
  struct extent extent = {.block = 1, .blocks = 1};
  uint32_t sum = 5;
  struct blob found;
  assert_int_equal(index_create(&x, key), 0);
  assert_int_equal(index_create(&copy, key), 0);
  for (uint64_t i = 1; i <= COUNT; i++) {
    struct blob b = small_blob(i, &extent, &sum);
    put(x, &b);
  }
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    assert_int_equal(index_reserve_partition(copy, p, index_partition_count(x, p)), 0);
    assert_int_equal(index_partition_visit(x, p, put_into, copy), 0);
    assert_int_equal(index_partition_count(copy, p), index_partition_count(x, p));
  }
  assert_int_equal(index_count(copy), COUNT);
  for (uint64_t i = 1; i <= COUNT; i++) {
    struct blob b = small_blob(i, &extent, &sum);
    assert_int_equal(index_find(copy, hash_of(b.id), b.id, &found), 0);
  }
  assert_true(index_ram_bytes(copy) <= 40 * COUNT);
  index_destroy(x);
  index_destroy(copy);
}

static void test_granules(void **state) {
  (void)state;
  const uint64_t mib = 1 << 20, gib = 1 << 30;
  assert_int_equal(blob_granule_shift(0), 12);
  assert_int_equal(blob_granule_shift(mib), 12);
  assert_int_equal(blob_granule_shift(mib + 1), 16);
  assert_int_equal(blob_granule_shift(4 * gib), 16);
  assert_int_equal(blob_granule_shift(4 * gib + 1), 18);
  assert_int_equal(blob_granule_shift(1024 * gib), 24);
  assert_int_equal(blob_granule_count(0, 12), 0);
  assert_int_equal(blob_granule_count(1, 12), 1);
  assert_int_equal(blob_granule_count(4097, 12), 2);
  for (uint64_t bytes = 1; bytes <= 1024 * gib; bytes = bytes * 3 / 2 + 1)
    assert_true(blob_granule_count(bytes, blob_granule_shift(bytes)) <= BLOB_GRANULES_MAX);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_random_operations),      cmocka_unit_test(test_ram_for_a_small_blob),
      cmocka_unit_test(test_ram_for_more_granules),  cmocka_unit_test(test_blobs_without_details),
      cmocka_unit_test(test_largest_blob),           cmocka_unit_test(test_put_needs_room),
      cmocka_unit_test(test_equal_hashes),           cmocka_unit_test(test_tags),
      cmocka_unit_test(test_noted_while_it_changes), cmocka_unit_test(test_visit_stops),
      cmocka_unit_test(test_loading_in_order),       cmocka_unit_test(test_granules),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
