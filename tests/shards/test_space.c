/* test_space.c - the life cycle of blocks against an array of states. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shards/space.h"
#include "tests/random.h"

enum state { FREE, USED, OPEN, SEALED, DURABLE };
enum { BLOCKS = 6000, READERS = 6, LIVE = 4000, EXTENTS = 16 };

/* The model: a durable block is free once no reader runs that began before it was freed. How much
 * later the real one lets it go is its own business, as long as it does when no reader is left. */
struct model {
  uint8_t state[BLOCKS];
  uint64_t freed_at[BLOCKS];
  uint64_t now;
  struct {
    bool on;
    uint64_t since;
    uint32_t generation;
  } readers[READERS];
  struct extent live[LIVE];
  uint32_t live_count;
};

static bool is_read(const struct model *m, uint64_t block) {
  for (int i = 0; i < READERS; i++)
    if (m->readers[i].on && m->readers[i].since <= m->freed_at[block]) return true;
  return false;
}
static bool any_reader(const struct model *m) {
  for (int i = 0; i < READERS; i++)
    if (m->readers[i].on) return true;
  return false;
}

/* Takes over what the real one has let go, after checking that it might. */
static void settle(struct model *m, const struct space *s) {
  uint64_t free_blocks = 0, pending = 0, end = 0;
  for (uint64_t b = 0; b < BLOCKS; b++) {
    if (m->state[b] == DURABLE && !space_is_used(s, b)) {
      assert_false(is_read(m, b));
      m->state[b] = FREE;
    }
    assert_int_equal(space_is_used(s, b), m->state[b] != FREE);
    if (m->state[b] == DURABLE) assert_true(any_reader(m));
    free_blocks += m->state[b] == FREE;
    pending += m->state[b] >= OPEN;
    if (m->state[b] != FREE) end = b + 1;
  }
  assert_int_equal(space_free_blocks(s), free_blocks);
  assert_int_equal(space_pending_blocks(s), pending);
  assert_int_equal(space_end(s), end);
}

static int descending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? 1 : x > y ? -1 : 0;
}
/* The most that `max` extents below a bound can hold. */
static uint64_t capacity(const struct model *m, uint32_t max, uint64_t below) {
  static uint64_t runs[BLOCKS];
  uint32_t count = 0;
  for (uint64_t b = 0; b < below;) {
    uint64_t first = b;
    while (b < below && m->state[b] == FREE) b++;
    if (b > first) runs[count++] = b - first;
    b += b == first;
  }
  qsort(runs, count, sizeof runs[0], descending);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < count && i < max; i++) sum += runs[i];
  return sum;
}

static void random_alloc(struct model *m, struct space *s, struct random *r) {
  struct extent extents[EXTENTS];
  uint32_t max = 1 + (uint32_t)random_below(r, EXTENTS);
  uint64_t kind = random_below(r, 10), below = random_below(r, 8) ? 0 : 1 + random_below(r, BLOCKS);
  uint64_t want = kind < 5 ? 1 : 1 + random_below(r, kind < 9 ? 40 : 1500), sum = 0;
  int count = space_alloc(s, want, extents, max, below);
  uint64_t most = capacity(m, max, below ? below : BLOCKS);
  if (most < want) {
    assert_int_equal(count, -ENOSPC);
    return;
  }
  assert_true(count >= 1 && (uint32_t)count <= max);
  for (int i = 0; i < count; i++) {
    sum += extents[i].blocks;
    assert_true(extents[i].blocks > 0);
    if (i > 0) assert_true(extents[i].blocks <= extents[i - 1].blocks);
    for (uint64_t b = extents[i].block; b < extents[i].block + extents[i].blocks; b++) {
      assert_true(b < (below ? below : BLOCKS));
      assert_int_equal(m->state[b], FREE);
      m->state[b] = USED;
    }
  }
  assert_int_equal(sum, want);
  if (random_below(r, 10) == 0 || m->live_count + (uint32_t)count > LIVE) {
    space_cancel(s, extents, (uint32_t)count);
    for (int i = 0; i < count; i++) memset(m->state + extents[i].block, FREE, extents[i].blocks);
    return;
  }
  for (int i = 0; i < count; i++) m->live[m->live_count++] = extents[i];
}

static void random_free(struct model *m, struct space *s, struct random *r) {
  if (m->live_count == 0) return;
  uint32_t i = (uint32_t)random_below(r, m->live_count);
  struct extent e = m->live[i];
  m->live[i] = m->live[--m->live_count];
  space_free(s, &e, 1);
  for (uint64_t b = e.block; b < e.block + e.blocks; b++) {
    assert_int_equal(m->state[b], USED);
    m->state[b] = OPEN;
    m->freed_at[b] = m->now;
  }
}

static void random_reader(struct model *m, struct space *s, struct random *r) {
  int i = (int)random_below(r, READERS);
  if (m->readers[i].on) {
    m->readers[i].on = false;
    space_read_end(s, m->readers[i].generation);
  } else {
    m->readers[i].on = true;
    m->readers[i].since = m->now;
    m->readers[i].generation = space_read_begin(s);
  }
}

static void change_states(struct model *m, enum state from, enum state to) {
  for (int b = 0; b < BLOCKS; b++)
    if (m->state[b] == from) m->state[b] = (uint8_t)to;
}

static void flush_step(struct model *m, struct space *s, struct random *r, bool *sealed) {
  if (!*sealed) {
    space_seal(s);
    change_states(m, OPEN, SEALED);
    *sealed = true;
  } else if (random_below(r, 5) == 0) {
    space_unseal(s);
    change_states(m, SEALED, OPEN);
    *sealed = false;
  } else {
    space_durable(s);
    change_states(m, SEALED, DURABLE);
    *sealed = false;
  }
}

static void run_model(uint64_t seed, unsigned frees) {
  struct model *m = calloc(1, sizeof *m);
  struct space *s;
  struct random r = {seed};
  bool sealed = false;
  assert_int_equal(space_create(&s, BLOCKS), 0);
  for (int step = 0; step < 12000; step++) {
    m->now++;
    uint64_t what = random_below(&r, 100);
    if (what < frees)
      random_free(m, s, &r);
    else if (what < 86)
      random_alloc(m, s, &r);
    else if (what < 94)
      random_reader(m, s, &r);
    else
      flush_step(m, s, &r, &sealed);
    if (what >= 86) settle(m, s);
  }
  for (int i = 0; i < READERS; i++)
    if (m->readers[i].on) m->readers[i].on = false, space_read_end(s, m->readers[i].generation);
  settle(m, s);
  while (m->live_count) random_free(m, s, &r);
  if (sealed) space_durable(s);
  space_seal(s);
  space_durable(s);
  assert_int_equal(space_free_blocks(s), BLOCKS);
  assert_int_equal(space_end(s), 0);
  space_destroy(s);
  free(m);
}
static void test_random_life(void **state) {
  (void)state;
  run_model(6, 46); /* about half full */
  run_model(7, 36); /* mostly full: fragments and ENOSPC */
}

static void test_reader_holds_what_it_reads(void **state) {
  (void)state;
  struct space *s;
  struct extent a, b, c;
  assert_int_equal(space_create(&s, 100), 0);
  assert_int_equal(space_alloc(s, 40, &a, 1, 0), 1);
  assert_int_equal(space_alloc(s, 40, &b, 1, 0), 1);
  uint32_t first = space_read_begin(s);
  space_free(s, &a, 1);
  space_seal(s);
  space_durable(s);
  assert_int_equal(space_free_blocks(s), 20);
  uint32_t second = space_read_begin(s); /* cannot know a, but it may know b */
  space_free(s, &b, 1);
  space_seal(s);
  space_durable(s);
  assert_int_equal(space_pending_blocks(s), 80);
  space_read_end(s, first);
  assert_int_equal(space_free_blocks(s), 60);
  assert_int_equal(space_alloc(s, 41, &c, 1, 0), -ENOSPC);
  assert_int_equal(space_alloc(s, 40, &c, 1, 0), 1);
  assert_int_equal(c.block, 0);
  space_read_end(s, second);
  assert_int_equal(space_free_blocks(s), 60);
  assert_int_equal(space_pending_blocks(s), 0);
  space_destroy(s);
}

static void test_claims_and_growth(void **state) {
  (void)state;
  struct space *s;
  struct extent e, run;
  assert_int_equal(space_create(&s, 1000), 0);
  assert_int_equal(space_claim(s, 10, 20), 0);
  assert_int_equal(space_claim(s, 29, 1), -EEXIST);
  assert_int_equal(space_claim(s, 0, 11), -EEXIST);
  assert_int_equal(space_claim(s, 999, 2), -ERANGE);
  assert_int_equal(space_claim(s, 2000, 1), -ERANGE);
  assert_int_equal(space_claim(s, 5, UINT64_MAX), -ERANGE);
  assert_int_equal(space_free_blocks(s), 980);
  space_unclaim(s, 10, 5);
  assert_int_equal(space_next_free(s, 0, 1000, &run), 15);
  assert_int_equal(space_next_free(s, 12, 2, &run), 2);
  assert_int_equal(run.block, 12);
  assert_int_equal(space_next_free(s, 15, 1000, &run), 970);
  assert_int_equal(run.block, 30);
  assert_int_equal(space_alloc(s, 981, &e, 1, 0), -ENOSPC);
  e = (struct extent){.block = 15, .blocks = 15};
  space_free(s, &e, 1);
  assert_int_equal(space_grow(s, 5000), 0);
  assert_int_equal(space_total_blocks(s), 6000);
  assert_int_equal(space_pending_blocks(s), 15);
  assert_int_equal(space_alloc(s, 5970, &e, 1, 0), 1);
  assert_int_equal(e.block, 30);
  assert_int_equal(space_next_free(s, 30, 1, &run), 0);
  space_seal(s);
  space_durable(s);
  assert_int_equal(space_free_blocks(s), 30);
  assert_int_equal(space_alloc(s, 0, &e, 1, 0), 0);
  space_destroy(s);
}

static void test_fragments_down_to_single_blocks(void **state) {
  (void)state;
  enum { N = 1 << 20, MAX = 4096 };
  static struct extent extents[MAX];
  struct space *s;
  assert_int_equal(space_create(&s, N), 0);
  for (uint64_t b = 0; b < N; b += 2) assert_int_equal(space_claim(s, b, 1), 0);
  assert_int_equal(space_alloc(s, 2, extents, 1, 0), -ENOSPC);
  assert_int_equal(space_alloc(s, MAX + 1, extents, MAX, 0), -ENOSPC);
  assert_int_equal(space_alloc(s, MAX, extents, MAX, 0), MAX);
  space_unclaim(s, 500000, 1); /* one run of three */
  assert_int_equal(space_alloc(s, 3, extents, 1, 0), 1);
  assert_int_equal(extents[0].block, 499999);
  uint64_t left = space_free_blocks(s);
  for (; left > 0; left--) assert_int_equal(space_alloc(s, 1, extents, 1, 0), 1);
  assert_int_equal(space_alloc(s, 1, extents, 1, 0), -ENOSPC);
  space_destroy(s);
}

static void test_next_fit_and_below(void **state) {
  (void)state;
  enum { N = 1 << 24 };
  struct space *s;
  struct extent e;
  assert_int_equal(space_create(&s, N), 0);
  for (uint64_t i = 0; i < 1000; i++) {
    assert_int_equal(space_alloc(s, 128, &e, 1, 0), 1);
    assert_int_equal(e.block, i * 128);
  }
  e = (struct extent){.block = 256, .blocks = 128};
  space_cancel(s, &e, 1);
  assert_int_equal(space_alloc(s, 1, &e, 1, 0), 1);
  assert_int_equal(e.block, 128000);
  assert_int_equal(space_alloc(s, 100, &e, 1, 128000), 1);
  assert_int_equal(e.block, 256);
  assert_int_equal(space_alloc(s, 29, &e, 1, 128000), -ENOSPC);
  assert_int_equal(space_alloc(s, 1, &e, 1, 0), 1);
  assert_int_equal(e.block, 128001);
  /* all the rest at once, then the little that is left before it */
  assert_int_equal(space_alloc(s, N - 128002, &e, 1, 0), 1);
  assert_int_equal(space_alloc(s, 28, &e, 1, 0), 1);
  assert_int_equal(e.block, 356);
  assert_int_equal(space_free_blocks(s), 0);
  space_destroy(s);
}

/* A free run that holds the cursor counts as one extent, not as two. */
static void test_run_across_the_cursor(void **state) {
  (void)state;
  struct space *s;
  struct extent e[2];
  assert_int_equal(space_create(&s, 1000), 0);
  assert_int_equal(space_alloc(s, 400, e, 1, 0), 1);
  space_cancel(s, e, 1);
  assert_int_equal(space_claim(s, 900, 100), 0);
  assert_int_equal(space_alloc(s, 901, e, 2, 0), -ENOSPC);
  assert_int_equal(space_alloc(s, 900, e, 1, 0), 1);
  assert_int_equal(e[0].block, 0);
  space_destroy(s);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_random_life),
      cmocka_unit_test(test_reader_holds_what_it_reads),
      cmocka_unit_test(test_claims_and_growth),
      cmocka_unit_test(test_fragments_down_to_single_blocks),
      cmocka_unit_test(test_next_fit_and_below),
      cmocka_unit_test(test_run_across_the_cursor),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
