/* test_block_set.c - block sets against an array of bytes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shards/base/block_set.h"
#include "tests/random.h"

enum { BITS = 70001 }; /* odd, and three levels deep */

static uint64_t model_next(const uint8_t *model, uint64_t from, int value) {
  for (; from < BITS; from++)
    if (model[from] == value) return from;
  return BLOCK_SET_NONE;
}

static void compare_at(const struct block_set *set, const uint8_t *model, uint64_t at) {
  assert_int_equal(block_set_test(set, at), model[at]);
  assert_int_equal(block_set_next(set, at), model_next(model, at, 1));
  assert_int_equal(block_set_next_clear(set, at), model_next(model, at, 0));
  uint64_t end = min_u64(model_next(model, at, 1), BITS);
  assert_int_equal(block_set_clear_run(set, at, BITS), end - at);
  assert_int_equal(block_set_clear_run(set, at, 5), min_u64(end - at, 5));
  for (uint64_t n = 1; n <= 130 && n <= BITS - at; n += 43)
    assert_int_equal(block_set_is_clear(set, at, n), end - at >= n);
}

static void compare_run(const struct block_set *set, const uint8_t *model, uint64_t from,
                        uint64_t min) {
  uint64_t at = from, start = BLOCK_SET_NONE, run = 0;
  for (; at < BITS && start == BLOCK_SET_NONE; at++) {
    run = model[at] ? 0 : run + 1;
    if (run == min) start = at + 1 - min;
  }
  assert_int_equal(block_set_next_clear_run(set, from, min), start);
}

static void compare_end(const struct block_set *set, const uint8_t *model) {
  uint64_t end = BITS;
  while (end > 0 && !model[end - 1]) end--;
  assert_int_equal(block_set_end(set), end);
}

/* Every run of 127 is found, nothing is found where there is none of 64, and the start is right. */
static void compare_empty(const struct block_set *set, const uint8_t *model, uint64_t from) {
  uint64_t found = block_set_next_empty(set, from);
  for (uint64_t at = from; at < BITS;) {
    uint64_t start = model_next(model, at, 0);
    if (start == BLOCK_SET_NONE) break;
    uint64_t end = min_u64(model_next(model, start, 1), BITS);
    if (start == found) return;
    assert_true(end - start < 127); /* a long one was passed by */
    at = end;
  }
  assert_int_equal(found, BLOCK_SET_NONE);
}

static void test_against_model(void **state) {
  (void)state;
  struct block_set set;
  uint8_t *model = calloc(BITS, 1);
  struct random r = {3};
  uint64_t count = 0;
  assert_int_equal(block_set_init(&set, BITS, true), 0);
  for (int i = 0; i < 6000; i++) {
    uint64_t first = random_below(&r, BITS);
    /* at times nearly everything, so that the summaries are full at all levels */
    uint64_t most = i % 400 == 0 ? BITS : i % 5 == 0 ? 3000 : 140;
    uint64_t n = random_below(&r, min_u64(BITS - first, most) + 1), changed = 0;
    int value = i / 1000 % 2 ? random_below(&r, 3) == 0 : random_below(&r, 3) > 0;
    for (uint64_t at = first; at < first + n; at++) changed += model[at] != value;
    memset(model + first, value, n);
    count = value ? count + changed : count - changed;
    assert_int_equal(value ? block_set_add(&set, first, n) : block_set_remove(&set, first, n),
                     changed);
    assert_int_equal(set.count, count);
    compare_at(&set, model, random_below(&r, BITS));
    compare_at(&set, model, first);
    compare_empty(&set, model, random_below(&r, BITS));
    compare_empty(&set, model, 0);
    compare_run(&set, model, random_below(&r, BITS), 1 + random_below(&r, 64));
    compare_end(&set, model);
  }
  free(model);
  block_set_finish(&set);
}

/* Members here and there: runs of all lengths, at all places in a word. */
static void test_runs_of_all_lengths(void **state) {
  (void)state;
  struct block_set set;
  uint8_t *model = calloc(BITS, 1);
  struct random r = {11};
  assert_int_equal(block_set_init(&set, BITS, true), 0);
  for (uint64_t at = 0; at < BITS; at += 1 + random_below(&r, 1 + at / 600)) {
    block_set_add(&set, at, 1);
    model[at] = 1;
  }
  for (int i = 0; i < 3000; i++)
    compare_run(&set, model, random_below(&r, BITS), 1 + random_below(&r, 64));
  for (uint64_t min = 1; min <= 64; min++) compare_run(&set, model, 0, min);
  free(model);
  block_set_finish(&set);
}

static void test_all_full_and_all_empty(void **state) {
  (void)state;
  static const uint64_t sizes[] = {1, 63, 64, 65, 4096, 4097, 262144, 262145, 1 << 24, 20000000};
  for (size_t i = 0; i < array_size(sizes); i++) {
    struct block_set set;
    uint64_t n = sizes[i];
    assert_int_equal(block_set_init(&set, n, true), 0);
    assert_int_equal(block_set_next(&set, 0), BLOCK_SET_NONE);
    assert_int_equal(block_set_clear_run(&set, 0, UINT64_MAX), n);
    assert_int_equal(block_set_end(&set), 0);
    assert_int_equal(block_set_add(&set, 0, n), n);
    assert_int_equal(block_set_next_clear(&set, 0), BLOCK_SET_NONE);
    assert_int_equal(block_set_next_empty(&set, 0), BLOCK_SET_NONE);
    assert_int_equal(block_set_end(&set), n);
    assert_int_equal(block_set_remove(&set, n - 1, 1), 1);
    assert_int_equal(block_set_next_clear(&set, 0), n - 1);
    assert_int_equal(block_set_end(&set), n - 1);
    assert_int_equal(block_set_next(&set, n), BLOCK_SET_NONE);
    block_set_finish(&set);
  }
}

static void test_take_and_subtract(void **state) {
  (void)state;
  struct block_set a, b, larger;
  assert_int_equal(block_set_init(&a, BITS, false), 0);
  assert_int_equal(block_set_init(&b, BITS, false), 0);
  assert_int_equal(block_set_init(&larger, 3 * BITS, true), 0);
  struct random r = {4};
  uint8_t *model = calloc(BITS, 1);
  for (int round = 0; round < 50; round++) {
    for (int i = 0; i < 20; i++) {
      uint64_t first = random_below(&r, BITS - 200), n = random_below(&r, 200);
      block_set_add(&b, first, n);
      memset(model + first, 1, n);
    }
    block_set_take(&a, &b);
    assert_int_equal(b.count, 0);
    assert_int_equal(block_set_next(&b, 0), BLOCK_SET_NONE);
  }
  uint64_t count = 0;
  for (uint64_t i = 0; i < BITS; i++) {
    count += model[i];
    assert_int_equal(block_set_test(&a, i), model[i]);
  }
  assert_int_equal(a.count, count);
  block_set_take(&larger, &a);
  for (uint64_t i = 0; i < BITS; i += 7) assert_int_equal(block_set_test(&larger, i), model[i]);
  assert_int_equal(larger.count, count);
  assert_int_equal(block_set_next_clear(&larger, BITS), BITS);
  free(model);
  block_set_finish(&a);
  block_set_finish(&b);
  block_set_finish(&larger);
}

static void test_subtract(void **state) {
  (void)state;
  struct block_set all, some;
  assert_int_equal(block_set_init(&all, BITS, true), 0);
  assert_int_equal(block_set_init(&some, BITS, false), 0);
  block_set_add(&all, 0, BITS);
  block_set_add(&some, 100, 1000);
  block_set_add(&some, 60000, 1);
  block_set_subtract(&all, &some);
  assert_int_equal(all.count, BITS - 1001);
  assert_int_equal(some.count, 0);
  assert_int_equal(block_set_next_clear(&all, 0), 100);
  assert_int_equal(block_set_clear_run(&all, 100, BITS), 1000);
  assert_int_equal(block_set_next_clear(&all, 1100), 60000);
  assert_int_equal(block_set_next(&some, 0), BLOCK_SET_NONE);
  block_set_finish(&all);
  block_set_finish(&some);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_against_model),
      cmocka_unit_test(test_runs_of_all_lengths),
      cmocka_unit_test(test_all_full_and_all_empty),
      cmocka_unit_test(test_take_and_subtract),
      cmocka_unit_test(test_subtract),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
