/* test_latency_buckets.c - the scale of the latency histogram: each latency is in the bucket whose
 * range holds it, ranges follow each other, and none is wider than an eighth of its beginning. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "runtime/core.h"
#include "tests/random.h"

static void check_latency(uint64_t ns) {
  uint32_t b = latency_bucket(ns);
  assert_in_range(b, 0, LATENCY_BUCKETS - 1);
  if (b < LATENCY_BUCKETS - 1) assert_true(ns < latency_bucket_end_ns(b));
  if (b > 0) assert_true(ns >= latency_bucket_end_ns(b - 1));
}

static void each_latency_is_in_its_bucket(void **state) {
  (void)state;
  struct random r = {7};
  for (uint64_t ns = 0; ns < 5000; ns++) check_latency(ns);
  for (uint32_t bit = 0; bit < 64; bit++)
    for (uint64_t d = 0; d < 3; d++) check_latency((UINT64_C(1) << bit) + d - 1);
  for (int i = 0; i < 100000; i++) check_latency(random_next(&r) >> random_below(&r, 64));
  check_latency(UINT64_MAX);
}

static void buckets_are_narrow(void **state) {
  (void)state;
  for (uint32_t b = 1; b < LATENCY_BUCKETS; b++) {
    uint64_t from = latency_bucket_end_ns(b - 1), to = latency_bucket_end_ns(b);
    assert_true(to > from);
    assert_true(to - from == 1 || (to - from) * 8 <= from);
    assert_int_equal(latency_bucket(from), b);
    assert_int_equal(latency_bucket(to - 1), b);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(each_latency_is_in_its_bucket),
      cmocka_unit_test(buckets_are_narrow),
  };
  return cmocka_run_group_tests_name("latency_buckets", tests, NULL, NULL);
}
