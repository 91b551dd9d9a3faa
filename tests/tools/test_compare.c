/* test_compare.c - is a difference of two results more than chance? Against numbers that were
 * worked out by hand, and against many pairs of which the truth is known. */
#include "tools/report.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>

static struct report_point points[2][110];

static struct report_run run_of(int i, uint32_t count) {
  return (struct report_run){.rate = {points[i], count}};
}

static void constant(void **state) {
  double ratio, half;
  (void)state;
  for (int i = 0; i < 110; i++) points[0][i].y = 200, points[1][i].y = 300;
  for (int i = 0; i < 10; i++) points[1][i].y = 9999; /* warming up */
  struct report_run a = run_of(0, 110), b = run_of(1, 110);
  assert_true(report_ratio(&a, &b, &ratio, &half));
  assert_true(fabs(ratio - 1.5) < 1e-12 && half < 1e-12);
}

/* Ten batches of one each: 95 and 105 in turn. Their mean has the variance 250 / 9 / 10. */
static void by_hand(void **state) {
  double ratio, half;
  (void)state;
  for (int i = 0; i < 11; i++) points[0][i].y = i % 2 ? 95 : 105, points[1][i].y = 100;
  struct report_run a = run_of(0, 11), b = run_of(1, 11);
  assert_true(report_ratio(&a, &b, &ratio, &half));
  assert_true(fabs(ratio - 1) < 1e-12);
  assert_true(fabs(half - 2.262 * sqrt(250.0 / 9 / 10) / 100) < 1e-9);
}

static void too_short(void **state) {
  double ratio, half;
  (void)state;
  struct report_run a = run_of(0, 10), b = run_of(1, 110), none = {.rate = {NULL, 0}};
  assert_false(report_ratio(&a, &b, &ratio, &half));
  assert_false(report_ratio(&b, &none, &ratio, &half));
}

/* Of 2000 pairs that differ by 3 % in truth, about 95 % of the intervals must have that in them. */
static void right_as_often_as_it_says(void **state) {
  uint64_t x = 5;
  int inside = 0;
  (void)state;
  for (int pair = 0; pair < 2000; pair++) {
    double ratio, half;
    for (int r = 0; r < 2; r++)
      for (int i = 0; i < 110; i++) {
        double sum = 0;
        for (int k = 0; k < 12; k++) {
          x = x * UINT64_C(6364136223846793005) + 1442695040888963407u;
          sum += (double)(x >> 11) / 0x1p53;
        }
        points[r][i].y = (r ? 1030 : 1000) + 100 * (sum - 6);
      }
    struct report_run a = run_of(0, 110), b = run_of(1, 110);
    assert_true(report_ratio(&a, &b, &ratio, &half));
    inside += fabs(ratio - 1.03) <= half;
  }
  assert_in_range(inside, 1880, 1930);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(constant),
      cmocka_unit_test(by_hand),
      cmocka_unit_test(too_short),
      cmocka_unit_test(right_as_often_as_it_says),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
