/* test_latency.c - the histogram against a sorted list. */
#include "tools/latency.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>

#define COUNT 20000

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

static void percentiles(void **state) {
  static const double percents[] = {0, 1, 10, 50, 90, 99, 99.9, 100};
  static struct latency whole, half[2], merged;
  static uint64_t values[COUNT];
  uint64_t x = 12345;
  double sum = 0;
  (void)state;
  for (int i = 0; i < COUNT; i++) {
    x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
    values[i] = (x >> 33) >> (x % 30); /* from nanoseconds to seconds */
    sum += (double)values[i];
    latency_add(&whole, values[i]);
    latency_add(&half[i % 2], values[i]);
  }
  latency_merge(&merged, &half[0]);
  latency_merge(&merged, &half[1]);
  qsort(values, COUNT, sizeof(values[0]), compare);
  assert_int_equal(merged.count, COUNT);
  assert_int_equal(merged.min_ns, values[0]);
  assert_int_equal(merged.max_ns, values[COUNT - 1]);
  assert_true(fabs(latency_mean_ns(&merged) - sum / COUNT) < 1);
  for (size_t i = 0; i < sizeof(percents) / sizeof(percents[0]); i++) {
    size_t place = (size_t)ceil(COUNT * percents[i] / 100);
    uint64_t exact = values[place ? place - 1 : 0];
    uint64_t got = latency_percentile_ns(&whole, percents[i]);
    assert_true(got >= exact);
    assert_true((double)got <= (double)exact * 1.04 + 1);
    assert_int_equal(got, latency_percentile_ns(&merged, percents[i]));
  }
}

static void extremes(void **state) {
  static struct latency l;
  (void)state;
  assert_int_equal(latency_percentile_ns(&l, 50), 0);
  assert_true(latency_mean_ns(&l) == 0);
  latency_add(&l, UINT64_MAX);
  assert_true(latency_percentile_ns(&l, 50) == UINT64_MAX);
  assert_true(latency_stddev_ns(&l) == 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(percentiles),
      cmocka_unit_test(extremes),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
