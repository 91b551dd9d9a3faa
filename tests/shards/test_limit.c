/* test_limit.c - token buckets in virtual time: rates, bursts, debts, changes; takers in threads.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <cmocka.h>

#include "shards/limit.h"
#include "tests/random.h"

#define MS     UINT64_C(1000000)
#define SECOND UINT64_C(1000000000)
#define START  (1000 * SECOND) /* some time after boot */

static struct limit_params ops_params(uint64_t size, uint64_t burst, uint64_t refill_ms) {
  return (struct limit_params){.ops = {size, burst, refill_ms}};
}
static struct limit_params bytes_params(uint64_t size, uint64_t burst, uint64_t refill_ms) {
  return (struct limit_params){.bytes = {size, burst, refill_ms}};
}

/* Takes while the answer is "now", at most max times. */
static uint64_t take_all(struct limit *l, uint64_t now, uint64_t bytes, uint64_t max,
                         uint64_t *due) {
  uint64_t n = 0;
  while (n < max && (*due = limit_take(l, now, bytes)) <= now) n++;
  return n;
}

static void checks_parameters(void **state) {
  (void)state;
  const struct {
    struct bucket_params bytes, ops;
    int result;
  } cases[] = {
      {{0, 0, 0}, {0, 0, 0}, -EINVAL}, /* a limit of 0 */
      {{1, 0, 1}, {0, 0, 0}, 0},
      {{0, 0, 0}, {1, 0, 1000}, 0},
      {{100, 5, 1}, {1, 7, 1000}, 0},
      {{100, 0, 0}, {0, 0, 0}, -EINVAL}, /* never refilled */
      {{1, 0, 1}, {100, 0, 0}, -EINVAL},
      {{0, 1, 0}, {1, 0, 1}, -EINVAL}, /* parts of a bucket that there is not */
      {{0, 0, 1}, {1, 0, 1}, -EINVAL},
      {{UINT64_MAX, 0, 1}, {0, 0, 0}, -EINVAL},
      {{1, UINT64_MAX, 1}, {0, 0, 0}, -EINVAL},
      {{1, 0, UINT64_MAX}, {0, 0, 0}, -EINVAL},
      {{LIMIT_SIZE_MAX, LIMIT_SIZE_MAX, LIMIT_REFILL_MS_MAX}, {0, 0, 0}, 0},
      {{LIMIT_SIZE_MAX + 1, 0, 1}, {0, 0, 0}, -EINVAL},
      {{1, 0, LIMIT_REFILL_MS_MAX + 1}, {0, 0, 0}, -EINVAL},
  };
  for (size_t i = 0; i < array_size(cases); i++) {
    struct limit_params p = {cases[i].bytes, cases[i].ops};
    assert_int_equal(limit_params_check(&p), cases[i].result);
  }
}

static void keeps_the_rate(void **state) {
  (void)state;
  const struct {
    struct limit_params params;
    uint64_t bytes; /* of an op */
    double per_second;
  } cases[] = {
      {ops_params(1, 0, 1000), 4096, 1},
      {ops_params(10, 0, 1000), 4096, 10},
      {ops_params(100, 0, 1000), 4096, 100},
      {ops_params(1000, 0, 1000), 4096, 1000},
      {ops_params(50000, 0, 1000), 4096, 50000},
      {ops_params(50, 0, 1), 4096, 50000},
      {ops_params(3, 0, 7), 4096, 3000.0 / 7},
      {bytes_params(1000000, 0, 1000), 4096, 1e6 / 4096},
      {bytes_params(1000000, 0, 1000), 131072, 1e6 / 131072},
      {bytes_params(50000000, 0, 1000), 4096, 50e6 / 4096},
      {bytes_params(500000000, 0, 1000), 4096, 500e6 / 4096},
      {bytes_params(500000000, 0, 1000), 512, 500e6 / 512},
      {bytes_params(500000, 0, 1), 1 << 20, 500e6 / (1 << 20)}, /* each more than the bucket */
      {bytes_params(65536, 0, 1000), 1 << 20, 1.0 / 16},
  };
  for (size_t i = 0; i < array_size(cases); i++) {
    struct limit l;
    limit_init(&l, &cases[i].params, NULL, START);
    uint64_t due, count = 0, seconds = cases[i].per_second < 1 ? 320 : 5;
    take_all(&l, START, cases[i].bytes, UINT64_MAX, &due); /* what was in the bucket */
    while (due <= START + seconds * SECOND) {
      count++;
      due = limit_take(&l, due, cases[i].bytes);
    }
    double off = (double)count / (cases[i].per_second * (double)seconds);
    if (off < 0.995 || off > 1.005) fail_msg("case %zu: %g of the rate", i, off);
  }
}

static void spends_bursts_once(void **state) {
  (void)state;
  struct limit l;
  struct limit_params p = ops_params(100, 50, 1000);
  uint64_t due, now = START;
  limit_init(&l, &p, NULL, now);
  assert_int_equal(take_all(&l, now, 0, 1000, &due), 150);
  assert_int_equal(due, now + 10 * MS);
  now += 3600 * SECOND;
  assert_int_equal(take_all(&l, now, 0, 1000, &due), 100);
  assert_int_equal(due, now + 10 * MS);

  p = bytes_params(1 << 20, 1 << 20, 1000);
  limit_init(&l, &p, NULL, now);
  /* Half of the burst, then one that takes its other half and half of the bucket. */
  assert_int_equal(limit_take(&l, now, 1 << 19), now);
  assert_int_equal(limit_take(&l, now, 1 << 20), now);
  assert_int_equal(limit_take(&l, now, 1 << 19), now);
  due = limit_take(&l, now, 1 << 19);
  assert_in_range(due, now + SECOND / 2 - 100, now + SECOND / 2);
}

/* Rounding takes away none, and adds none where the cut of 1 ns each does not sum up to one. */
static void holds_exactly_its_size(void **state) {
  (void)state;
  for (uint64_t size = 1; size < 1500; size++) {
    for (uint64_t refill_ms = 1; refill_ms <= 10000; refill_ms *= 10) {
      struct limit l;
      struct limit_params p = ops_params(size, 0, refill_ms);
      uint64_t due;
      limit_init(&l, &p, NULL, START);
      uint64_t count = take_all(&l, START, 0, UINT64_MAX, &due);
      assert_in_range(count, size, size * size < refill_ms * MS ? size : size * 1002 / 1000);
    }
  }
}

/* What is larger than the bucket waits until it is full, and leaves a debt. */
static void lets_large_ones_through(void **state) {
  (void)state;
  struct limit l;
  const struct limit_params p = bytes_params(1000000, 0, 1000);
  uint64_t now = START;
  limit_init(&l, &p, NULL, now);
  assert_int_equal(limit_take(&l, now, 4000000), now);
  assert_int_equal(limit_take(&l, now, 1000), now + 3 * SECOND + MS);
  assert_int_equal(limit_take(&l, now, 2000000), now + 4 * SECOND + MS);
  assert_int_equal(limit_take(&l, now, 0), now); /* no bytes: not this bucket's business */

  limit_init(&l, &p, NULL, now);
  assert_int_equal(limit_take(&l, now, 500000), now);
  assert_int_equal(limit_take(&l, now, 1000001), now + SECOND / 2);
  /* One so large that it never comes to its end: no wrap to an early time. */
  uint64_t due = limit_take(&l, now, UINT64_MAX);
  for (int i = 0; i < 100; i++) {
    uint64_t next = limit_take(&l, now, UINT64_MAX);
    assert_true(next >= due);
    due = next;
  }
  assert_int_equal(due, UINT64_MAX);
}

static void takes_both_buckets(void **state) {
  (void)state;
  struct limit l;
  const struct limit_params p = {.bytes = {1000000, 0, 1000}, .ops = {10, 0, 1000}};
  uint64_t now = START, due;
  limit_init(&l, &p, NULL, now);
  assert_int_equal(take_all(&l, now, 1000, 100, &due), 10);
  assert_int_equal(due, now + 100 * MS);
  now += 10 * SECOND;
  assert_int_equal(take_all(&l, now, 200000, 100, &due), 5);
  assert_int_equal(due, now + 200 * MS);
}

static void does_not_drift_or_wrap(void **state) {
  (void)state;
  struct limit l;
  struct limit_params p = ops_params(1, 0, 1000);
  limit_init(&l, &p, NULL, START);
  for (uint64_t i = 0; i < 1000000; i++) /* 11 days */
    assert_int_equal(limit_take(&l, START, 0), START + i * SECOND);

  uint64_t late = UINT64_MAX - 5 * SECOND, last = late;
  limit_init(&l, &p, NULL, late);
  for (int i = 0; i < 100; i++) {
    uint64_t due = limit_take(&l, late, 0);
    assert_true(due >= last);
    last = due;
  }
  p = ops_params(LIMIT_SIZE_MAX, LIMIT_SIZE_MAX, LIMIT_REFILL_MS_MAX);
  limit_init(&l, &p, NULL, late);
  assert_int_equal(limit_take(&l, late, UINT64_MAX), late);
  p = ops_params(1, 0, LIMIT_REFILL_MS_MAX);
  limit_init(&l, &p, NULL, 0);
  assert_int_equal(limit_take(&l, 0, 0), 0);
  assert_int_equal(limit_take(&l, 0, 0) / MS, LIMIT_REFILL_MS_MAX);
}

/* Whatever the clock does, no more goes than the latest time allows. */
static void stands_a_clock_that_steps_back(void **state) {
  (void)state;
  struct random r = {7};
  struct limit l;
  const struct limit_params p = ops_params(20, 0, 1000);
  uint64_t now = START, latest = START, went = 0;
  limit_init(&l, &p, NULL, now);
  for (int i = 0; i < 2000; i++) {
    now += random_below(&r, 100 * MS);
    if (random_below(&r, 10) == 0) now -= random_below(&r, 2000 * MS);
    latest = max_u64(latest, now);
    /* A poor taker: gives back what may not go now. */
    if (limit_take(&l, now, 0) <= now)
      went++;
    else
      limit_give_back(&l, 0);
    assert_true(went <= 20 + (latest - START) * 20 / SECOND);
  }
  assert_true(went > (latest - START) * 20 / SECOND * 8 / 10);
}

static void gives_back(void **state) {
  (void)state;
  struct limit l;
  const struct limit_params p = {.bytes = {1000000, 0, 1000}, .ops = {10, 0, 1000}};
  uint64_t now = START, due;
  limit_init(&l, &p, NULL, now);
  take_all(&l, now, 1000, 100, &due);
  limit_give_back(&l, 1000);
  assert_int_equal(limit_take(&l, now, 1000), due);
  for (int i = 0; i < 1000; i++) limit_give_back(&l, 1000);
  assert_int_equal(take_all(&l, now, 1000, 100, &due), 10); /* full is full */
}

static void changes_give_nothing_away(void **state) {
  (void)state;
  struct limit l;
  struct limit_params slow = ops_params(100, 0, 1000), fast = ops_params(1000, 0, 1000);
  uint64_t now = START, due;
  limit_init(&l, &slow, NULL, now);
  assert_int_equal(take_all(&l, now, 0, 100, &due), 100);
  for (int i = 0; i < 100; i++) {
    limit_set(&l, &fast, now);
    limit_set(&l, &slow, now);
  }
  limit_set(&l, &fast, now);
  assert_in_range(limit_take(&l, now, 0), now + MS - 1000, now + MS + 1000);

  /* Half full stays as many tokens; less room cuts. */
  limit_init(&l, &slow, NULL, now);
  assert_int_equal(take_all(&l, now, 0, 50, &due), 50);
  limit_set(&l, &fast, now);
  assert_in_range(take_all(&l, now, 0, 1000, &due), 49, 50);
  limit_init(&l, &fast, NULL, now);
  limit_set(&l, &slow, now);
  assert_int_equal(take_all(&l, now, 0, 1000, &due), 100);

  /* A debt stays one of as many tokens: 1000 operations are 10 s or 1 s. */
  limit_init(&l, &slow, NULL, now);
  for (int i = 0; i < 1100; i++) limit_take(&l, now, 0);
  limit_set(&l, &fast, now);
  assert_in_range(limit_take(&l, now, 0), now + SECOND, now + SECOND + 2 * MS);

  /* To unlimited and back. */
  limit_set(&l, NULL, now);
  assert_false(limit_is_on(&l));
  assert_int_equal(take_all(&l, now, 0, 12345, &due), 12345);
  limit_set(&l, &slow, now);
  assert_true(limit_is_on(&l));
  assert_int_equal(take_all(&l, now, 0, 1000, &due), 100);
  struct limit_params got;
  limit_params_get(&l, &got);
  assert_memory_equal(&got, &slow, sizeof(got));
}

static void used_bursts_stay_used(void **state) {
  (void)state;
  struct limit l;
  struct limit_params p = ops_params(10, 40, 1000);
  uint64_t now = START, due;
  limit_init(&l, &p, NULL, now);
  assert_int_equal(take_all(&l, now, 0, 30, &due), 30);
  limit_set(&l, &p, now);
  assert_int_equal(take_all(&l, now, 0, 1000, &due), 20);
  limit_give_back(&l, 0);
  for (int i = 0; i < 10; i++) {
    limit_set(&l, NULL, now);
    now += 2 * SECOND;
    limit_set(&l, &p, now);
    assert_int_equal(take_all(&l, now, 0, 1000, &due), 10);
  }
  now += 100 * SECOND;
  p.ops.one_time_burst = 45; /* five more */
  limit_set(&l, &p, now);
  assert_int_equal(take_all(&l, now, 0, 1000, &due), 15);
}

/* ---- Threads -------------------------------------------------------------------------------- */

enum { THREADS = 4, TAKES = 5000 };
struct taker {
  pthread_t thread;
  struct limit *l;
  uint64_t due[TAKES];
};

static void *take_many(void *arg) {
  struct taker *t = arg;
  for (int i = 0; i < TAKES; i++) t->due[i] = limit_take(t->l, START, 1000);
  return NULL;
}

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

/* The clock stands: each gets a time of its own, and what goes at once is what was in the bucket.
 */
static void threads_share_exactly(void **state) {
  (void)state;
  struct limit l;
  const struct limit_params p = {.bytes = {1000000, 500000, 1000}, .ops = {1 << 20, 0, 1000}};
  limit_init(&l, &p, NULL, START);
  struct taker *takers = calloc(THREADS, sizeof(*takers));
  for (int i = 0; i < THREADS; i++) {
    takers[i].l = &l;
    assert_int_equal(pthread_create(&takers[i].thread, NULL, take_many, &takers[i]), 0);
  }
  uint64_t *all = calloc(THREADS * TAKES, sizeof(*all));
  for (int i = 0; i < THREADS; i++) {
    pthread_join(takers[i].thread, NULL);
    for (int k = 0; k < TAKES; k++) {
      all[i * TAKES + k] = takers[i].due[k];
      if (k) assert_true(takers[i].due[k] >= takers[i].due[k - 1]);
    }
  }
  qsort(all, THREADS * TAKES, sizeof(*all), compare);
  for (uint64_t i = 0; i < THREADS * TAKES; i++)
    assert_int_equal(all[i], START + (i < 1500 ? 0 : (i - 1499) * MS));
  free(all);
  free(takers);
}

/* Changes beside takers: no take is lost, whatever its price was. */
static void changes_beside_takers(void **state) {
  (void)state;
  struct limit l;
  const struct limit_params p[2] = {{.bytes = {1000000, 0, 1000}, .ops = {1000, 0, 1000}},
                                    {.bytes = {2000000, 0, 1000}, .ops = {2000, 0, 1000}}};
  limit_init(&l, &p[0], NULL, START);
  struct taker *takers = calloc(THREADS, sizeof(*takers));
  for (int i = 0; i < THREADS; i++) {
    takers[i].l = &l;
    assert_int_equal(pthread_create(&takers[i].thread, NULL, take_many, &takers[i]), 0);
  }
  for (int i = 0; i < 1001; i++) limit_set(&l, &p[i % 2], START);
  for (int i = 0; i < THREADS; i++) pthread_join(takers[i].thread, NULL);
  limit_set(&l, &p[1], START);
  /* 19,000 or more tokens of debt, at 2,000 a second. At each change one take of each thread may
   * have been priced before and booked after it. */
  uint64_t due = limit_take(&l, START, 0);
  assert_in_range(due, START + 6 * SECOND, START + 14 * SECOND);
  free(takers);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(checks_parameters),
      cmocka_unit_test(keeps_the_rate),
      cmocka_unit_test(spends_bursts_once),
      cmocka_unit_test(holds_exactly_its_size),
      cmocka_unit_test(lets_large_ones_through),
      cmocka_unit_test(takes_both_buckets),
      cmocka_unit_test(does_not_drift_or_wrap),
      cmocka_unit_test(stands_a_clock_that_steps_back),
      cmocka_unit_test(gives_back),
      cmocka_unit_test(changes_give_nothing_away),
      cmocka_unit_test(used_bursts_stay_used),
      cmocka_unit_test(threads_share_exactly),
      cmocka_unit_test(changes_beside_takers),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
