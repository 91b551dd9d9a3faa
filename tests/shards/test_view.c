/* test_view.c - views against the resolved arrays that they were filled from, and their memory. */
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

/* The linker puts this before slab_reserve(): the call with this number fails, 0: none. */
static uint32_t fail_at;
int __real_slab_reserve(struct slab *slab, uint32_t bytes);
int __wrap_slab_reserve(struct slab *slab, uint32_t bytes);
int __wrap_slab_reserve(struct slab *slab, uint32_t bytes) {
  if (fail_at && --fail_at == 0) return -ENOMEM;
  return __real_slab_reserve(slab, bytes);
}

static struct view *new_view(void) {
  struct view *view;
  assert_int_equal(view_create(&view), 0);
  return view;
}

/* ---- Against a model ---------------------------------------------------------------------- */

static bool is_data(uint32_t place) { return place != RESOLVED_NOT && place != RESOLVED_ZERO; }

/* Stretches of every kind: data in a row (with the place going on from the stretch before, at
 * times), zeros of both kinds, and clusters that are mixed in every block. */
static void random_resolved(struct random *rnd, struct resolved *r) {
  resolved_init(r);
  uint64_t style = random_below(rnd, 5), longest = style == 0 ? 3 : style == 1 ? 300 : 40;
  uint32_t place = 16 + (uint32_t)random_below(rnd, 1000);
  uint16_t shard = 0;
  for (uint32_t i = 0; i < LEAF_BLOCKS;) {
    uint64_t kind = random_below(rnd, 6), length = 1 + random_below(rnd, longest);
    if (style > 2) length = round_up(length, CLUSTER_BLOCKS); /* whole clusters */
    if (kind > 2) place = 16 + (uint32_t)random_below(rnd, style == 4 ? 200 : 1u << 31);
    if (kind > 3) shard = (uint16_t)random_below(rnd, 3);
    for (; length > 0 && i < LEAF_BLOCKS; length--, i++) {
      r->place[i] = kind == 0 ? RESOLVED_NOT : kind == 1 ? RESOLVED_ZERO : place++;
      r->shard[i] = is_data(r->place[i]) ? shard : (uint16_t)random_next(rnd); /* means nothing */
      r->undecided -= r->place[i] != RESOLVED_NOT;
    }
  }
}

static uint32_t model_run(const struct resolved *r, uint32_t at, uint32_t max) {
  uint32_t n = 1;
  bool data = is_data(r->place[at]);
  for (; n < max && at + n < LEAF_BLOCKS; n++) {
    if (is_data(r->place[at + n]) != data) break;
    if (!data) continue;
    if (r->place[at + n] != r->place[at] + n || r->shard[at + n] != r->shard[at]) break;
  }
  return n;
}

static void check_lookup(const struct view *view, uint64_t leaf, const struct resolved *r,
                         uint32_t at, uint32_t max) {
  uint32_t place = 1;
  uint16_t shard = 1;
  view_prefetch(view, leaf * LEAF_BLOCKS + at);
  uint32_t n = view_lookup(view, leaf * LEAF_BLOCKS + at, max, &place, &shard);
  assert_int_equal(n, model_run(r, at, max));
  bool data = is_data(r->place[at]);
  assert_int_equal(place, data ? r->place[at] : 0);
  assert_int_equal(shard, data ? r->shard[at] : 0);
}
static void check_leaf(const struct view *view, uint64_t leaf, const struct resolved *r) {
  for (uint32_t at = 0; at < LEAF_BLOCKS; at++) {
    check_lookup(view, leaf, r, at, 1);
    check_lookup(view, leaf, r, at, LEAF_BLOCKS);
    check_lookup(view, leaf, r, at, 1 + at % 37);
  }
}

#define LEAVES 40u
static uint64_t leaf_number(uint32_t i) { return (uint64_t)i * i * i * 262; }

static void test_model(void **state) {
  (void)state;
  struct view *view = new_view();
  struct random rnd = {5};
  struct resolved *model = calloc(LEAVES, sizeof *model);
  bool there[LEAVES] = {0};
  assert_true(leaf_number(LEAVES - 1) < MAP_LEAVES_MAX);
  for (uint32_t step = 0; step < 1500; step++) {
    uint32_t i = (uint32_t)random_below(&rnd, LEAVES), place;
    uint16_t shard;
    if (random_below(&rnd, 4) == 0) {
      view_drop_leaf(view, leaf_number(i));
      there[i] = false;
    } else {
      if (random_below(&rnd, 8) == 0)
        resolved_init(&model[i]);
      else
        random_resolved(&rnd, &model[i]);
      assert_int_equal(view_add_leaf(view, leaf_number(i), &model[i]), 0);
      there[i] = true;
    }
    if (there[i])
      check_leaf(view, leaf_number(i), &model[i]);
    else
      assert_int_equal(view_lookup(view, leaf_number(i) * LEAF_BLOCKS, 9, &place, &shard), 0);
    i = (uint32_t)random_below(&rnd, LEAVES);
    uint32_t at = (uint32_t)random_below(&rnd, LEAF_BLOCKS);
    if (there[i])
      check_lookup(view, leaf_number(i), &model[i], at, 100);
    else
      assert_int_equal(view_lookup(view, leaf_number(i) * LEAF_BLOCKS + at, 9, &place, &shard), 0);
  }
  free(model);
  view_destroy(view);
}

/* ---- By hand ------------------------------------------------------------------------------ */

static void fill(struct resolved *r, uint32_t first, uint32_t count, uint32_t place,
                 uint16_t shard) {
  for (uint32_t i = 0; i < count; i++) {
    r->place[first + i] = place + i;
    r->shard[first + i] = shard;
  }
}

static void assert_run(const struct view *view, uint64_t block, uint32_t max, uint32_t length,
                       uint32_t want_place, uint16_t want_shard) {
  uint32_t place;
  uint16_t shard;
  assert_int_equal(view_lookup(view, block, max, &place, &shard), length);
  if (length == 0) return;
  assert_int_equal(place, want_place);
  assert_int_equal(shard, want_shard);
}

static void test_runs(void **state) {
  (void)state;
  struct view *view = new_view();
  struct resolved *r = malloc(sizeof *r);
  resolved_init(r);
  fill(r, 8, 56, 1000, 2);  /* clusters 0 to 3, the first from its middle */
  fill(r, 64, 16, 1056, 3); /* goes on by number, but in another shard */
  fill(r, 80, 4, 1072, 3);  /* goes on in the same one, and ends inside a cluster */
  fill(r, 96, 3, 5000, 1);  /* cluster 6 is put together from two */
  fill(r, 99, 13, 7000, 1); /* with the same shard */
  fill(r, 160, 5, 9000, 1); /* a row by number, in two shards */
  fill(r, 165, 5, 9005, 4);
  fill(r, 112, 16, 7013, 1);           /* and goes on in a simple one */
  fill(r, 1023, 1, UINT32_MAX - 1, 9); /* the last block of a leaf, the highest place */
  assert_int_equal(view_add_leaf(view, 2, r), 0);
  uint64_t at = 2 * LEAF_BLOCKS;
  assert_run(view, at, 1024, 8, 0, 0);
  assert_run(view, at + 8, 1024, 56, 1000, 2);
  assert_run(view, at + 8, 20, 20, 1000, 2);
  assert_run(view, at + 63, 1024, 1, 1055, 2);
  assert_run(view, at + 64, 1024, 20, 1056, 3);
  assert_run(view, at + 84, 1024, 12, 0, 0);
  assert_run(view, at + 96, 1024, 3, 5000, 1);
  assert_run(view, at + 99, 1024, 29, 7000, 1);
  assert_run(view, at + 128, 2000, 32, 0, 0);
  assert_run(view, at + 160, 2000, 5, 9000, 1);
  assert_run(view, at + 165, 2000, 5, 9005, 4);
  assert_run(view, at + 170, 2000, 853, 0, 0);
  assert_run(view, at + 1023, 2000, 1, UINT32_MAX - 1, 9);
  assert_run(view, at - 1, 2000, 0, 0, 0);
  assert_run(view, at + 1024, 2000, 0, 0, 0);
  view_drop_all(view);
  assert_run(view, at + 8, 1024, 0, 0, 0);
  assert_int_equal(view_add_leaf(view, 2, r), 0);
  assert_run(view, at + 8, 1024, 56, 1000, 2);
  view_drop_all(view);
  resolved_init(r);
  assert_int_equal(view_add_leaf(view, 3, r), 0);
  view_drop_all(view);
  fill(r, 0, 1024, 16, 1);
  assert_int_equal(view_add_leaf(view, 2, r), 0);
  resolved_init(r);
  assert_int_equal(view_add_leaf(view, 3, r), 0);
  assert_run(view, at, 2000, 1024, 16, 1);
  assert_run(view, at + 1024, 2000, 1024, 0, 0);
  free(r);
  view_destroy(view);
}

/* ---- Memory ------------------------------------------------------------------------------- */

static uint64_t bytes_of_leaves(const struct resolved *r, uint32_t leaves) {
  struct view *view = new_view();
  for (uint32_t i = 0; i < leaves; i++) assert_int_equal(view_add_leaf(view, i, r), 0);
  uint64_t bytes = view_ram_bytes(view);
  /* All over again, and after all were dropped: what is there serves. */
  for (uint32_t i = 0; i < leaves; i++) assert_int_equal(view_add_leaf(view, i, r), 0);
  for (uint32_t i = 0; i < leaves; i++) view_drop_leaf(view, i);
  for (uint32_t i = 0; i < leaves; i++) assert_int_equal(view_add_leaf(view, i, r), 0);
  assert_true(view_ram_bytes(view) <= bytes + bytes / 16);
  view_drop_all(view);
  assert_true(view_ram_bytes(view) < 100);
  view_destroy(view);
  return bytes;
}

static void test_memory(void **state) {
  (void)state;
  struct view *view = new_view();
  assert_true(view_ram_bytes(view) < 100);
  view_destroy(view);
  view_destroy(NULL);
  struct resolved *r = malloc(sizeof *r);
  const uint32_t leaves = 4096; /* 16 GiB */
  resolved_init(r);
  for (uint32_t i = 0; i < LEAF_BLOCKS; i += 2) r->place[i] = RESOLVED_ZERO;
  assert_true(bytes_of_leaves(r, leaves) < leaves * 7);
  for (uint32_t i = 0; i < LEAF_BLOCKS; i += 16) fill(r, i, 12, 16 + i * 50, 1);
  assert_true(bytes_of_leaves(r, leaves) < leaves * 520);
  for (uint32_t i = 0; i < LEAF_BLOCKS; i++) fill(r, i, 1, 16 + i * 50, 1);
  assert_true(bytes_of_leaves(r, leaves) < leaves * UINT64_C(6800));
  assert_true(bytes_of_leaves(r, leaves) > leaves * UINT64_C(6000));
  free(r);
}

/* The leaf is not there then, not even as it was; the others are, and no piece is lost. */
static void test_no_memory(void **state) {
  (void)state;
  struct view *view = new_view();
  struct resolved *r = malloc(sizeof *r);
  resolved_init(r);
  for (uint32_t i = 0; i < LEAF_BLOCKS; i++) fill(r, i, 1, 16 + i * 50, 1);
  assert_int_equal(view_add_leaf(view, 7, r), 0);
  assert_int_equal(view_add_leaf(view, 8, r), 0);
  uint64_t bytes = view_ram_bytes(view);
  for (uint32_t failed = 1; failed <= 1 + LEAF_CLUSTERS; failed++) {
    assert_int_equal(view_add_leaf(view, 8, r), 0);
    fail_at = failed;
    assert_int_equal(view_add_leaf(view, 8, r), -ENOMEM);
    assert_int_equal(fail_at, 0);
    assert_run(view, 8 * LEAF_BLOCKS, 9, 0, 0, 0);
    assert_run(view, 7 * LEAF_BLOCKS, 9, 1, 16, 1);
  }
  assert_int_equal(view_ram_bytes(view), bytes);
  view_drop_all(view);
  resolved_init(r);
  fail_at = 1;
  assert_int_equal(view_add_leaf(view, 8, r), -ENOMEM); /* the zeros of all leaves */
  fail_at = 2;
  assert_int_equal(view_add_leaf(view, 8, r), -ENOMEM); /* a node */
  assert_run(view, 8 * LEAF_BLOCKS, 9, 0, 0, 0);
  assert_int_equal(view_add_leaf(view, 8, r), 0);
  assert_run(view, 8 * LEAF_BLOCKS, 9, 9, 0, 0);
  free(r);
  view_destroy(view);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_model),
      cmocka_unit_test(test_runs),
      cmocka_unit_test(test_memory),
      cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
