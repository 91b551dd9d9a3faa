/* test_ratio.c - what ratios of rounds say: against numbers that were worked out by hand, and
 * against many rounds of which the truth is known. */
#include "tools/ratio.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>

static void none_and_one(void **state) {
  const double bad[] = {0, -1, NAN, INFINITY}, one[] = {0, 2};
  struct ratio r;
  (void)state;
  ratio_of(&r, bad, 4);
  assert_true(r.count == 0 && r.median == 0 && r.mean == 0);
  ratio_of(&r, one, 2);
  assert_true(r.count == 1 && r.median == 2 && r.min == 2 && r.max == 2);
  assert_true(r.mean == 0 && r.low == 0 && r.high == 0 && !r.wide); /* it cannot be said */
}

/* 1/2 and 2 are equally far from 1: the logarithms are -a and a, their deviation a * sqrt(2). */
static void by_hand(void **state) {
  const double values[] = {2, 0.5}, same[] = {3, 3, 3, 3}, near[] = {1, 1.01, 0.99, 1, 1.01};
  struct ratio r;
  (void)state;
  ratio_of(&r, values, 2);
  double half = 12.71 * log(2);
  assert_true(fabs(r.mean - 1) < 1e-12 && r.median == 1.25 && r.wide);
  assert_true(fabs(log(r.high) - half) < 1e-9 && fabs(log(r.low) + half) < 1e-9);
  ratio_of(&r, same, 4);
  assert_true(fabs(r.low - 3) < 1e-12 && fabs(r.high - 3) < 1e-12 && !r.wide && r.count == 4);
  ratio_of(&r, near, 5);
  assert_true(r.low < r.mean && r.mean < r.high && !r.wide && r.median == 1);
}

static double random_normal(uint64_t *x) {
  double sum = 0;
  for (int k = 0; k < 12; k++) {
    *x = *x * UINT64_C(6364136223846793005) + 1442695040888963407u;
    sum += (double)(*x >> 11) / 0x1p53;
  }
  return sum - 6;
}

/* How many of 2000 intervals of `count` rounds have the truth, 1.2, in them. Each value has some of
 * the one before it in it. */
static int inside_of(uint32_t count, double memory) {
  static double values[RATIO_MAX];
  uint64_t x = 7;
  int inside = 0;
  for (int trial = 0; trial < 2000; trial++) {
    struct ratio r;
    double last = 0;
    for (uint32_t i = 0; i < count; i++) {
      last = memory * last + 0.05 * random_normal(&x);
      values[i] = exp(log(1.2) + last);
    }
    ratio_of(&r, values, count);
    inside += r.low <= 1.2 && 1.2 <= r.high;
  }
  return inside;
}

static void right_as_often_as_it_says(void **state) {
  (void)state;
  assert_in_range(inside_of(10, 0), 1870, 1930);
  assert_in_range(inside_of(300, 0), 1870, 1930);
  /* Neighbours that are alike: by single values it would be right far less often. */
  assert_in_range(inside_of(640, 0.5), 1850, 1930);
}

static void students_t(void **state) {
  (void)state;
  assert_true(ratio_student(1) == 12.71 && ratio_student(9) == 2.262);
  assert_true(ratio_student(13) == ratio_student(12)); /* rather too wide */
  for (double f = 1; f < 300; f++) assert_true(ratio_student(f + 1) <= ratio_student(f));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(none_and_one),
      cmocka_unit_test(by_hand),
      cmocka_unit_test(right_as_often_as_it_says),
      cmocka_unit_test(students_t),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
