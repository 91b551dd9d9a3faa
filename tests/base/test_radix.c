/* test_radix.c - the tree against a plain array, its nodes, and what it does without memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>
#include <cmocka.h>

#include "shards/base/radix.h"
#include "tests/random.h"

#define PIECE 8u

static uint32_t piece(struct slab *slab, uint64_t number) {
  assert_int_equal(slab_reserve(slab, PIECE), 0);
  uint32_t ref = slab_alloc(slab, PIECE);
  *(uint64_t *)slab_at(slab, ref) = number;
  return ref;
}

static void insert(struct radix *r, struct slab *slab, uint64_t number) {
  assert_int_equal(radix_insert(r, slab, number, piece(slab, number)), 0);
}
static void remove_it(struct radix *r, struct slab *slab, uint64_t number) {
  uint32_t ref = radix_remove(r, slab, number);
  assert_int_not_equal(ref, 0);
  assert_int_equal(*(uint64_t *)slab_at(slab, ref), number);
  slab_free(slab, ref, PIECE);
}

static void assert_found(const struct radix *r, const struct slab *slab, uint64_t number,
                         bool there) {
  const uint64_t *found = radix_find(r, slab, number);
  assert_int_equal(found != NULL, there);
  assert_int_equal(radix_find_ref(r, slab, number) != 0, there);
  if (there) assert_int_equal(*found, number);
}

#define SPAN 40000u /* three levels */

static uint64_t model_next(const bool *model, uint64_t number) {
  for (; number < SPAN; number++)
    if (model[number]) return number;
  return UINT64_MAX;
}

/* Inserts and removals in phases of growth and decline, so that nodes come and go. */
static void test_random(void **state) {
  (void)state;
  static bool model[SPAN];
  struct random rnd = {7};
  struct slab slab;
  struct radix r;
  slab_init(&slab);
  radix_init(&r);
  for (uint32_t step = 0; step < 60000; step++) {
    uint64_t at = random_below(&rnd, SPAN), span = random_below(&rnd, 60);
    bool there = step / 10000 % 2 == 0 ? random_below(&rnd, 10) > 1 : random_below(&rnd, 10) == 0;
    for (uint64_t i = at; i < SPAN && i < at + span; i++) {
      assert_found(&r, &slab, i, model[i]);
      if (model[i] == there) continue;
      if (there)
        insert(&r, &slab, i);
      else
        remove_it(&r, &slab, i);
      model[i] = there;
      assert_found(&r, &slab, i, there);
    }
    if (step % 16 == 0) {
      at = random_below(&rnd, SPAN + 100);
      assert_int_equal(radix_next(&r, &slab, at), model_next(model, at));
    }
  }
  for (uint64_t i = 0; i < SPAN; i++)
    if (model[i]) remove_it(&r, &slab, i);
  assert_int_equal(slab.used_bytes, 0);
  assert_int_equal(r.root, 0);
  slab_finish(&slab);
}

static void test_levels(void **state) {
  (void)state;
  static const struct {
    uint64_t number;
    uint32_t nodes;
  } cases[] = {{0, 0}, {1, 1}, {127, 1}, {128, 2}, {16384, 3}, {RADIX_NUMBERS_MAX - 1, 4}};
  for (uint32_t i = 0; i < array_size(cases); i++) {
    struct slab slab;
    struct radix r;
    slab_init(&slab);
    radix_init(&r);
    insert(&r, &slab, cases[i].number);
    assert_int_equal(slab.used_bytes, PIECE + 512 * cases[i].nodes);
    assert_found(&r, &slab, cases[i].number, true);
    assert_found(&r, &slab, cases[i].number + 1, false);
    assert_found(&r, &slab, UINT64_MAX, false);
    assert_int_equal(radix_next(&r, &slab, 0), cases[i].number);
    assert_int_equal(radix_next(&r, &slab, cases[i].number), cases[i].number);
    assert_int_equal(radix_next(&r, &slab, cases[i].number + 1), UINT64_MAX);
    assert_int_equal(radix_next(&r, &slab, UINT64_MAX), UINT64_MAX);
    assert_int_equal(radix_remove(&r, &slab, cases[i].number + 1), 0);
    remove_it(&r, &slab, cases[i].number);
    assert_int_equal(slab.used_bytes, 0);
    insert(&r, &slab, 0); /* an empty tree is low again */
    assert_int_equal(slab.used_bytes, PIECE);
    slab_finish(&slab);
  }
}

/* What was found last must not be found once it is gone, nor what took its memory. */
static void test_found_last(void **state) {
  (void)state;
  struct slab slab;
  struct radix r;
  slab_init(&slab);
  radix_init(&r);
  assert_found(&r, &slab, 0, false);
  insert(&r, &slab, 5);
  assert_found(&r, &slab, 5, true);
  remove_it(&r, &slab, 5);
  insert(&r, &slab, 6);
  assert_found(&r, &slab, 5, false);
  assert_found(&r, &slab, 6, true);
  remove_it(&r, &slab, 6);
  insert(&r, &slab, 0);
  assert_found(&r, &slab, 0, true);
  slab_finish(&slab);
}

/* The slab is told that all its chunks are mapped; k pieces of a node's size are left. An insert
 * that needs more says so and leaves the tree and the slab as they were. */
static void test_no_memory(void **state) {
  (void)state;
  for (uint32_t left = 0; left < 6; left++) {
    struct slab slab;
    struct radix r;
    slab_init(&slab);
    radix_init(&r);
    insert(&r, &slab, 3); /* a root of one level; the next one takes 3 levels above and 3 below */
    uint32_t ref = piece(&slab, RADIX_NUMBERS_MAX - 1), chunks = slab.chunks;
    uint32_t kept = slab.bump_end;
    slab.bump_end = slab.bump + left * (512 / SLAB_UNIT);
    slab.chunks = SLAB_TABLE * SLAB_TABLE;
    assert_int_equal(radix_insert(&r, &slab, RADIX_NUMBERS_MAX - 1, ref), -ENOMEM);
    assert_found(&r, &slab, 3, true);
    assert_found(&r, &slab, RADIX_NUMBERS_MAX - 1, false);
    assert_int_equal(radix_next(&r, &slab, 4), UINT64_MAX);
    /* Only the levels above what was there may stay. */
    assert_int_equal(slab.used_bytes, 2 * PIECE + 512 * (1 + min_u64(left, 3)));
    slab.chunks = chunks;
    slab.bump_end = kept;
    assert_int_equal(radix_insert(&r, &slab, RADIX_NUMBERS_MAX - 1, ref), 0);
    assert_found(&r, &slab, RADIX_NUMBERS_MAX - 1, true);
    remove_it(&r, &slab, RADIX_NUMBERS_MAX - 1);
    remove_it(&r, &slab, 3);
    assert_int_equal(slab.used_bytes, 0);
    slab_finish(&slab);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_random),
      cmocka_unit_test(test_levels),
      cmocka_unit_test(test_found_last),
      cmocka_unit_test(test_no_memory),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
