/* test_slab.c - pieces never overlap, keep their bytes, and freed memory serves again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shards/base/slab.h"
#include "tests/random.h"

static void test_pieces_are_large_enough_and_not_wasteful(void **state) {
  (void)state;
  uint32_t before = 0;
  for (uint32_t bytes = 1; bytes <= SLAB_BYTES_MAX; bytes++) {
    uint32_t piece = slab_piece_bytes(bytes);
    assert_true(piece >= bytes);
    assert_true(piece >= before);
    assert_true(piece - bytes < max_u64(SLAB_UNIT, bytes / 16 + 1));
    before = piece;
  }
  assert_int_equal(slab_piece_bytes(SLAB_BYTES_MAX), SLAB_BYTES_MAX);
}

struct piece {
  uint32_t ref, bytes;
  uint8_t mark;
};
static int by_address(const void *a, const void *b) {
  const struct piece *x = a, *y = b;
  return x->ref < y->ref ? -1 : x->ref > y->ref;
}

static uint32_t random_size(struct random *r) {
  uint64_t kind = random_below(r, 100);
  uint64_t most = kind < 60 ? 64 : kind < 90 ? 1024 : kind < 99 ? 20000 : SLAB_BYTES_MAX;
  return (uint32_t)(1 + random_below(r, most));
}

static void check_piece(const struct slab *slab, const struct piece *p) {
  const uint8_t *at = slab_at(slab, p->ref);
  assert_int_equal((uintptr_t)at % 8, 0);
  for (uint32_t i = 0; i < p->bytes; i++)
    if (at[i] != p->mark) fail_msg("byte %u of a piece of %u has changed", i, p->bytes);
}

static void test_random_pieces_do_not_overlap(void **state) {
  (void)state;
  enum { PIECES = 1500, STEPS = 30000 };
  static struct piece pieces[PIECES];
  memset(pieces, 0, sizeof pieces);
  struct slab slab;
  struct random r = {5};
  uint64_t used = 0;
  slab_init(&slab);
  for (int step = 0; step < STEPS; step++) {
    struct piece *p = &pieces[random_below(&r, PIECES)];
    if (p->ref) {
      check_piece(&slab, p);
      slab_free(&slab, p->ref, p->bytes);
      used -= slab_piece_bytes(p->bytes);
      p->ref = 0;
    } else {
      p->bytes = random_size(&r);
      assert_int_equal(slab_reserve(&slab, p->bytes), 0);
      uint64_t mapped = slab.mapped_bytes;
      p->ref = slab_alloc(&slab, p->bytes);
      assert_true(p->ref != 0);
      assert_int_equal(slab.mapped_bytes, mapped);
      p->mark = (uint8_t)random_next(&r);
      memset(slab_at(&slab, p->ref), p->mark, p->bytes);
      used += slab_piece_bytes(p->bytes);
    }
    assert_int_equal(slab.used_bytes, used);
  }
  for (int i = 0; i < PIECES; i++)
    if (pieces[i].ref) check_piece(&slab, &pieces[i]);
  qsort(pieces, PIECES, sizeof pieces[0], by_address);
  for (int i = 1; i < PIECES; i++)
    if (pieces[i - 1].ref)
      assert_true(pieces[i - 1].ref + slab_piece_bytes(pieces[i - 1].bytes) / SLAB_UNIT <=
                  pieces[i].ref);
  assert_true(slab.mapped_bytes >= used);
  slab_finish(&slab);
  assert_int_equal(slab.mapped_bytes, 0);
}

static void test_freed_memory_serves_smaller_pieces(void **state) {
  (void)state;
  enum { LARGE = 64, SMALL = 64 * 150000 / 64 };
  static uint32_t refs[LARGE];
  struct slab slab;
  slab_init(&slab);
  for (int i = 0; i < LARGE; i++) {
    assert_int_equal(slab_reserve(&slab, 150000), 0);
    refs[i] = slab_alloc(&slab, 150000);
  }
  uint64_t mapped = slab.mapped_bytes;
  for (int i = 0; i < LARGE; i++) slab_free(&slab, refs[i], 150000);
  assert_int_equal(slab.used_bytes, 0);
  for (int i = 0; i < SMALL; i++) {
    assert_int_equal(slab_reserve(&slab, 64), 0);
    assert_true(slab_alloc(&slab, 64) != 0);
  }
  assert_int_equal(slab.mapped_bytes, mapped);
  slab_finish(&slab);
}

static void test_nothing_without_reserve(void **state) {
  (void)state;
  struct slab slab;
  slab_init(&slab);
  assert_int_equal(slab_alloc(&slab, 8), 0);
  assert_int_equal(slab.mapped_bytes, 0);
  slab_free(&slab, 0, 8);
  slab_finish(&slab);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_pieces_are_large_enough_and_not_wasteful),
      cmocka_unit_test(test_random_pieces_do_not_overlap),
      cmocka_unit_test(test_freed_memory_serves_smaller_pieces),
      cmocka_unit_test(test_nothing_without_reserve),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
