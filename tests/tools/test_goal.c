/* test_goal.c - the greatest depth that is good enough, and when a rate is steady. */
#include "tools/bench_goal.h"

#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

static void times(void **state) {
  static const char *const bad[] = {"",     "0", "-5", "5m",    "1e9999",
                                    "5 us", "x", "2h", "7200s", "us"};
  uint64_t ns;
  (void)state;
  assert_int_equal(goal_time("500", &ns), 0);
  assert_int_equal(ns, 500000);
  assert_int_equal(goal_time("1.5ms", &ns), 0);
  assert_int_equal(ns, 1500000);
  assert_int_equal(goal_time("20us", &ns), 0);
  assert_int_equal(ns, 20000);
  assert_int_equal(goal_time("2s", &ns), 0);
  assert_int_equal(ns, 2000000000);
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    assert_int_equal(goal_time(bad[i], &ns), -EINVAL);
}

/* Whatever the answer is, it is found, in few steps. */
static void finds_every_depth(void **state) {
  (void)state;
  for (uint32_t max = 1; max <= 130; max++)
    for (uint32_t answer = 0; answer <= max; answer++) {
      struct depth_search s;
      uint32_t steps = 0;
      for (depth_begin(&s, max); !s.done; steps++) {
        assert_in_range(s.depth, 1, max);
        assert_true(steps < 20);
        depth_note(&s, s.depth <= answer);
      }
      assert_int_equal(s.good, answer);
    }
}

static void what_is_asked_for(void **state) {
  static const char *const bad[] = {"iops",   "iops:", "iops:0",     "iops:-1%",        "iops:5%%",
                                    "lat:5%", "",      "bw_slope:x", "iops_slope:0.3%x"};
  struct steady_spec s;
  (void)state;
  assert_int_equal(steady_parse("iops_slope:0.3%", &s), 0);
  assert_true(s.slope && s.percent && !s.bandwidth && s.limit == 0.3);
  assert_int_equal(steady_parse("bw:1000", &s), 0);
  assert_true(!s.slope && !s.percent && s.bandwidth && s.limit == 1000);
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    assert_int_equal(steady_parse(bad[i], &s), -EINVAL);
}

static void a_slope(void **state) {
  struct steady_spec spec = {.duration_s = 10};
  struct steady s;
  (void)state;
  assert_int_equal(steady_parse("iops_slope:1%", &spec), 0);
  assert_int_equal(steady_interval_ns(&spec), 1000000000);
  steady_begin(&s, &spec);
  assert_int_equal(s.window, 10);
  /* It grows by 50 a second from 1000 on, then stays. */
  uint32_t n = 0;
  for (; n < 20; n++) assert_false(steady_note(&s, 1000 + 50.0 * n, 0));
  assert_true(fabs(s.slope - 50) < 1e-6);
  assert_true(fabs(s.criterion - 100 * 50 / (1000 + 50 * 14.5)) < 1e-6);
  assert_true(steady_mean(&s, false) == 1000 + 50 * 14.5);
  assert_true(s.iops[steady_at(&s, 0)] == 1500 && s.iops[steady_at(&s, 9)] == 1950);
  for (n = 0; !steady_note(&s, 2000, 0); n++) assert_true(n < 10);
  assert_true(n > 5); /* most of the window has to be flat */
  assert_true(fabs(s.criterion) < 1);
}

/* Noise without a slope is no steady state by deviation. */
static void a_deviation(void **state) {
  struct steady_spec spec = {.duration_s = 2};
  struct steady s;
  (void)state;
  assert_int_equal(steady_parse("bw:5%", &spec), 0);
  assert_int_equal(steady_interval_ns(&spec), 200000000);
  steady_begin(&s, &spec);
  for (uint32_t n = 0; n < 30; n++) assert_false(steady_note(&s, 1, n % 2 ? 900 : 1100));
  assert_true(fabs(s.criterion - 10) < 1e-9 && fabs(s.deviation - 100) < 1e-9);
  uint32_t n = 0;
  while (!steady_note(&s, 1, 1000)) n++;
  assert_in_range(n, 8, 10);
  /* Nothing at all is not steady. */
  steady_begin(&s, &spec);
  for (n = 0; n < 30; n++) assert_false(steady_note(&s, 0, 0));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(times),
      cmocka_unit_test(finds_every_depth),
      cmocka_unit_test(what_is_asked_for),
      cmocka_unit_test(a_slope),
      cmocka_unit_test(a_deviation),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
