/* test_arena.c - the buffer arena: alignment, coalescing, the way out when it is full, and a
 * random run against a plain list of what is held. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/arena.h"
#include "shards/base/base.h"
#include "tests/random.h"

#define BLOCKS(n) ((uint64_t)(n)*BLOCK_BYTES)

static struct arena *arena;

static struct arena_stats stats(void) {
  struct arena_stats s;
  arena_get_stats(arena, &s);
  return s;
}

static void make(uint64_t bytes) { assert_int_equal(arena_create(bytes, -1, &arena), 0); }

static void drop(void) {
  arena_destroy(arena);
  arena = NULL;
}

static void expect_all_free(void) {
  assert_int_equal(stats().used_bytes, 0);
  assert_int_equal(stats().buffers, 0);
  assert_int_equal(stats().free_runs, 1);
  assert_int_equal(stats().outside_buffers, 0);
}

static void sizes_are_rounded(void **state) {
  (void)state;
  assert_int_equal(arena_create(0, -1, &arena), -EINVAL);
  assert_int_equal(arena_create(ARENA_BYTES_MAX + 1, -1, &arena), -EINVAL);
  assert_null(arena);
  make(1);
  assert_int_equal(arena_bytes(arena), BLOCK_BYTES);
  drop();
  make(BLOCKS(10) - 1);
  assert_int_equal(arena_bytes(arena), BLOCKS(10));
  assert_int_equal(stats().pages, ARENA_PAGES_ORDINARY);
  drop();
  make((2u << 20) + 1);
  assert_int_equal(arena_bytes(arena), 4u << 20);
  assert_true(is_aligned((uintptr_t)arena_base(arena), 2u << 20));
  drop();
  arena_destroy(NULL);
}

static void buffers_are_whole_blocks_inside(void **state) {
  (void)state;
  make(BLOCKS(16));
  unsigned char *base = arena_base(arena);
  const size_t bytes[] = {0, 1, 4096, 4097};
  const uint64_t blocks[] = {1, 1, 1, 2};
  void *buffers[4];
  uint64_t used = 0;
  for (int i = 0; i < 4; i++) {
    buffers[i] = arena_alloc(arena, bytes[i], false);
    assert_non_null(buffers[i]);
    assert_true(arena_contains(arena, buffers[i]));
    assert_true(is_aligned((uintptr_t)buffers[i], BLOCK_BYTES));
    used += BLOCKS(blocks[i]);
    assert_int_equal(stats().used_bytes, used);
  }
  assert_int_equal(stats().buffers, 4);
  assert_false(arena_contains(arena, base - 1));
  assert_true(arena_contains(arena, base + BLOCKS(16) - 1));
  assert_false(arena_contains(arena, base + BLOCKS(16)));
  for (int i = 0; i < 4; i++) arena_free(arena, buffers[i]);
  arena_free(arena, NULL);
  expect_all_free();
  drop();
}

/* Three buffers fill it; freed in each of the six orders they join to one run again. */
static void neighbours_join(void **state) {
  (void)state;
  const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
  const uint64_t runs[6][3] = {{1, 1, 1}, {1, 2, 1}, {1, 1, 1}, {1, 1, 1}, {1, 2, 1}, {1, 1, 1}};
  for (uint64_t unit = 1; unit <= 3; unit += 2) {
    make(BLOCKS(3 * unit));
    for (int o = 0; o < 6; o++) {
      void *buffers[3];
      for (int i = 0; i < 3; i++) {
        buffers[i] = arena_alloc(arena, BLOCKS(unit), false);
        assert_true(arena_contains(arena, buffers[i]));
      }
      assert_int_equal(stats().free_runs, 0);
      for (int i = 0; i < 3; i++) {
        arena_free(arena, buffers[orders[o][i]]);
        assert_int_equal(stats().free_runs, runs[o][i]);
      }
      void *whole = arena_alloc(arena, BLOCKS(3 * unit), false);
      assert_ptr_equal(whole, arena_base(arena));
      arena_free(arena, whole);
      expect_all_free();
    }
    drop();
  }
}

/* The place where the next search begins is swallowed by a run that grows, from either side. */
static void search_goes_on_after_joins(void **state) {
  (void)state;
  make(BLOCKS(3));
  void *a = arena_alloc(arena, 1, false); /* the next search begins behind it */
  arena_free(arena, a);
  a = arena_alloc(arena, 1, false);
  assert_true(arena_contains(arena, a));
  void *b = arena_alloc(arena, 1, false), *c = arena_alloc(arena, 1, false);
  arena_free(arena, a);
  a = arena_alloc(arena, 1, false); /* begins at b */
  assert_true(arena_contains(arena, a));
  arena_free(arena, a);
  arena_free(arena, b);
  b = arena_alloc(arena, BLOCKS(2), false);
  assert_true(arena_contains(arena, b));
  arena_free(arena, b);
  arena_free(arena, c);
  assert_int_equal(stats().outside_total, 0);
  expect_all_free();
  drop();
}

static void full_arena_gives_ordinary_memory(void **state) {
  (void)state;
  make(BLOCKS(4));
  void *inside = arena_alloc(arena, BLOCKS(3), false);
  unsigned char *outside = arena_alloc(arena, BLOCKS(2) - 5, true);
  void *last = arena_alloc(arena, 1, false);
  assert_non_null(outside);
  assert_false(arena_contains(arena, outside));
  assert_true(is_aligned((uintptr_t)outside, BLOCK_BYTES));
  for (size_t i = 0; i < BLOCKS(2); i++) assert_int_equal(outside[i], 0);
  assert_true(arena_contains(arena, last));
  assert_int_equal(stats().outside_buffers, 1);
  arena_free(arena, outside);
  arena_free(arena, inside);
  arena_free(arena, last);
  assert_int_equal(stats().outside_total, 1);
  expect_all_free();
  drop();
}

static void impossible_sizes_are_refused(void **state) {
  (void)state;
  make(BLOCKS(4));
  assert_null(arena_alloc(arena, SIZE_MAX, false));
  assert_null(arena_alloc(arena, ARENA_BYTES_MAX + 1, false));
  assert_int_equal(stats().outside_total, 0);
  expect_all_free();
  drop();
}

static void zeroed_is_zero_again(void **state) {
  (void)state;
  make(BLOCKS(2));
  for (int round = 0; round < 2; round++) {
    unsigned char *buffer = arena_alloc(arena, BLOCKS(2), true);
    assert_true(arena_contains(arena, buffer));
    for (size_t i = 0; i < BLOCKS(2); i++) assert_int_equal(buffer[i], 0);
    memset(buffer, 0xa5, BLOCKS(2));
    arena_free(arena, buffer);
  }
  drop();
}

static void nodes_are_a_preference(void **state) {
  (void)state;
  const int nodes[] = {-1, 0, 63, 1023, 1024, 1 << 30};
  for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++) {
    assert_int_equal(arena_create(4u << 20, nodes[i], &arena), 0);
    int bound = stats().numa_node;
    assert_true(bound == -1 || bound == nodes[i]);
    memset(arena_base(arena), 1, arena_bytes(arena));
    drop();
  }
}

/* A page of the arena must not be there in a child. */
static void child_does_not_inherit(void **state) {
  (void)state;
  make(BLOCKS(4));
  volatile unsigned char *buffer = arena_alloc(arena, 1, true);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGSEGV, SIG_DFL); /* a sanitizer would report it */
    _exit(*buffer);
  }
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFSIGNALED(status));
  assert_int_equal(WTERMSIG(status), SIGSEGV);
  assert_int_equal(*buffer, 0);
  arena_free(arena, (void *)(uintptr_t)buffer);
  drop();
}

/* How a child ends that frees p after `before` was freed. */
static int status_of_free(void *before, void *p) {
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    const struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGABRT, SIG_DFL);
    if (!freopen("/dev/null", "w", stderr)) _exit(3);
    arena_free(arena, before);
    arena_free(arena, p);
    _exit(0);
  }
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  return status;
}

static void wrong_frees_end_the_process(void **state) {
  (void)state;
  make(BLOCKS(8));
  unsigned char *one = arena_alloc(arena, BLOCKS(3), false);
  unsigned char *two = arena_alloc(arena, BLOCKS(3), false);
  int status = status_of_free(NULL, one);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
  struct {
    void *before, *p;
  } wrong[] = {{one, one}, {NULL, one + 1}, {NULL, one + 4096}, {NULL, two + 8192}, {two, two}};
  for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
    status = status_of_free(wrong[i].before, wrong[i].p);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGABRT);
  }
  arena_free(arena, one);
  arena_free(arena, two);
  expect_all_free();
  drop();
}

/* ---- Random, against a list ---- */

#define HELD_MAX 64
struct held {
  unsigned char *buffer;
  uint64_t blocks;
  unsigned char mark;
};

static bool overlap(const struct held *a, const struct held *b) {
  return a->buffer < b->buffer + BLOCKS(b->blocks) && b->buffer < a->buffer + BLOCKS(a->blocks);
}

static void mark_ends(const struct held *h) {
  h->buffer[0] = h->mark;
  h->buffer[BLOCKS(h->blocks) - 1] = h->mark;
}

/* The longest stretch of blocks that nothing in the list holds. */
static uint64_t longest_gap(const struct held *held, uint32_t count, uint64_t blocks) {
  bool used[512] = {false};
  uint64_t gap = 0, longest = 0;
  for (uint32_t i = 0; i < count; i++) {
    if (!arena_contains(arena, held[i].buffer)) continue;
    uint64_t first = (uint64_t)(held[i].buffer - (unsigned char *)arena_base(arena)) / BLOCK_BYTES;
    for (uint64_t b = 0; b < held[i].blocks; b++) used[first + b] = true;
  }
  for (uint64_t b = 0; b < blocks; b++) {
    gap = used[b] ? 0 : gap + 1;
    longest = max_u64(longest, gap);
  }
  return longest;
}

static void random_run(void **state) {
  (void)state;
  struct random random = {.state = 11};
  struct held held[HELD_MAX];
  uint32_t count = 0;
  make(BLOCKS(300));
  for (int step = 0; step < 30000; step++) {
    bool add = count < HELD_MAX && random_below(&random, 100) < (step / 1000 % 2 ? 60 : 40);
    if (add) {
      struct held *h = &held[count];
      h->blocks = 1 + random_below(&random, random_below(&random, 4) ? 6 : 40);
      h->mark = (unsigned char)random_next(&random);
      bool fits = longest_gap(held, count, 300) >= h->blocks;
      h->buffer = arena_alloc(arena, BLOCKS(h->blocks), false);
      assert_non_null(h->buffer);
      assert_int_equal(arena_contains(arena, h->buffer), fits);
      for (uint32_t i = 0; i < count; i++) assert_false(overlap(h, &held[i]));
      mark_ends(h);
      count++;
    } else if (count) {
      uint32_t i = (uint32_t)random_below(&random, count);
      assert_int_equal(held[i].buffer[0], held[i].mark);
      assert_int_equal(held[i].buffer[BLOCKS(held[i].blocks) - 1], held[i].mark);
      arena_free(arena, held[i].buffer);
      held[i] = held[--count];
    }
    uint64_t used = 0, outside = 0;
    for (uint32_t i = 0; i < count; i++)
      if (arena_contains(arena, held[i].buffer))
        used += BLOCKS(held[i].blocks);
      else
        outside++;
    assert_int_equal(stats().used_bytes, used);
    assert_int_equal(stats().outside_buffers, outside);
    assert_int_equal(stats().buffers, count - outside);
    assert_true(stats().free_runs <= stats().buffers + 1);
  }
  assert_true(stats().outside_total > 0); /* the arena was full at times */
  while (count) arena_free(arena, held[--count].buffer);
  expect_all_free();
  drop();
}

/* ---- Threads ---- */

static void *churn(void *arg) {
  struct random random = {.state = (uintptr_t)arg};
  unsigned char *buffers[8] = {NULL};
  uint64_t wrong = 0;
  for (int step = 0; step < 20000; step++) {
    unsigned char **b = &buffers[random_below(&random, 8)];
    if (*b) {
      wrong += **b != (unsigned char)(uintptr_t)arg;
      arena_free(arena, *b);
      *b = NULL;
    } else {
      *b = arena_alloc(arena, BLOCKS(1 + random_below(&random, 8)), false);
      **b = (unsigned char)(uintptr_t)arg;
    }
  }
  for (int i = 0; i < 8; i++) arena_free(arena, buffers[i]);
  return (void *)(uintptr_t)wrong;
}

static void threads_share(void **state) {
  (void)state;
  pthread_t threads[4];
  make(BLOCKS(64));
  for (uintptr_t t = 0; t < 4; t++)
    assert_int_equal(pthread_create(&threads[t], NULL, churn, (void *)(t + 1)), 0);
  for (int t = 0; t < 4; t++) {
    void *wrong;
    pthread_join(threads[t], &wrong);
    assert_null(wrong);
  }
  expect_all_free();
  drop();
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sizes_are_rounded),
      cmocka_unit_test(buffers_are_whole_blocks_inside),
      cmocka_unit_test(neighbours_join),
      cmocka_unit_test(search_goes_on_after_joins),
      cmocka_unit_test(full_arena_gives_ordinary_memory),
      cmocka_unit_test(impossible_sizes_are_refused),
      cmocka_unit_test(zeroed_is_zero_again),
      cmocka_unit_test(nodes_are_a_preference),
      cmocka_unit_test(child_does_not_inherit),
      cmocka_unit_test(wrong_frees_end_the_process),
      cmocka_unit_test(random_run),
      cmocka_unit_test(threads_share),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
