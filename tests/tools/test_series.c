/* test_series.c - a run by intervals, against a list of everything. */
#include "tools/bench_series.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>

#define MS UINT64_C(1000000)

static void intervals_are_round(void **state) {
  static const uint64_t ms[][2] = {{1, 10},      {1249, 10},    {1250, 20},      {2500, 50},
                                   {5000, 50},   {6249, 50},    {6250, 100},     {12500, 200},
                                   {60000, 500}, {62500, 1000}, {3600000, 50000}};
  (void)state;
  for (size_t i = 0; i < sizeof(ms) / sizeof(ms[0]); i++) {
    struct series s;
    assert_int_equal(series_init(&s, ms[i][0] * MS), 0);
    assert_int_equal(s.interval_ns, ms[i][1] * MS);
    series_finish(&s);
  }
}

static void ops_fall_where_they_finished(void **state) {
  struct series s;
  (void)state;
  assert_int_equal(series_init(&s, 1000 * MS), 0);
  series_add(&s, 5 * MS, 64, 1000);
  series_add(&s, 15 * MS, 128, 2000);
  series_add(&s, 19 * MS, 192, 3000);
  series_add(&s, 999999 * MS, 200, 3000); /* much too late: the last one */
  series_end(&s, 25 * MS, 203);
  assert_int_equal(s.slots[0].ops, 64);
  assert_int_equal(s.slots[1].ops, 128);
  assert_int_equal(s.slots[1].timed, 2);
  assert_int_equal(s.slots[1].max_ns, 3000);
  assert_int_equal(s.slots[2].ops, 3);
  assert_int_equal(s.slots[SERIES_SLOTS - 1].ops, 8);
  assert_int_equal(s.count, SERIES_SLOTS);
  series_finish(&s);
}

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* Merged from two, each percentile lies less than a bucket above the true one. */
static void percentiles(void **state) {
  static const double percents[] = {0, 1, 50, 90, 99, 99.9, 100};
  static uint64_t values[10000];
  struct series s[2], all = {0};
  uint64_t x = 99;
  (void)state;
  for (int k = 0; k < 2; k++) assert_int_equal(series_init(&s[k], 1000 * MS), 0);
  for (uint64_t i = 0; i < 10000; i++) {
    x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
    values[i] = 200 + ((x >> 33) >> (x >> 59));
    series_add(&s[i % 2], 3 * MS, i / 2 + 1, values[i]);
  }
  for (int k = 0; k < 2; k++) assert_int_equal(series_merge(&all, &s[k]), 0);
  assert_int_equal(all.slots[0].ops, 10000);
  assert_int_equal(all.slots[0].timed, 10000);
  qsort(values, 10000, sizeof(values[0]), compare);
  for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
    size_t at = (size_t)(percents[i] * 100 + 0.5);
    uint64_t exact = values[at ? at - 1 : 0],
             got = series_percentile_ns(&all.slots[0], percents[i]);
    assert_true(got >= exact && (double)got <= (double)exact * 1.126);
  }
  assert_int_equal(series_percentile_ns(&all.slots[1], 50), 0);
  for (int k = 0; k < 2; k++) series_finish(&s[k]);
  series_finish(&all);
}

static void what_is_outside(void **state) {
  struct series s;
  (void)state;
  assert_int_equal(series_init(&s, 1000 * MS), 0);
  series_add(&s, 0, 1, 0);
  series_add(&s, 0, 2, UINT64_MAX);
  assert_int_equal(series_percentile_ns(&s.slots[0], 100) > 100000000000, 1);
  series_finish(&s);
  struct series none = {0};
  series_add(&none, 5, 1, 1); /* nothing is kept */
  series_end(&none, 5, 1);
  assert_int_equal(none.count, 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(intervals_are_round),
      cmocka_unit_test(ops_fall_where_they_finished),
      cmocka_unit_test(percentiles),
      cmocka_unit_test(what_is_outside),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
