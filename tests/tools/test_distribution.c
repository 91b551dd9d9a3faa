/* test_distribution.c - what random loads ask for, against the formulas. Seeds are fixed. */
#include "tools/bench_distribution.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRAWS 2000000
#define N     1000

static uint32_t counts[N];

static int descending(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? 1 : x > y ? -1 : 0;
}

static void draw(const char *text) {
  struct distribution_spec spec;
  struct distribution d;
  assert_int_equal(distribution_parse(text, &spec), 0);
  distribution_init(&d, &spec, N, 11);
  memset(counts, 0, sizeof(counts));
  for (int i = 0; i < DRAWS; i++) {
    uint64_t x = distribution_pick(&d);
    assert_true(x < N);
    counts[x]++;
  }
}

static void near(double got, double wanted, double percent) {
  if (fabs(got - wanted) > wanted * percent / 100) fail_msg("%.5g instead of %.5g", got, wanted);
}

static void words(void **state) {
  static const char *const bad[] = {"zipf",     "zipf:",     "zipf:0",   "zipf:-1",   "zipf:x",
                                    "pareto:0", "pareto:.6", "normal:0", "zipf:1.2x", "gauss:1",
                                    "",         "zipf:nan",  "zipf:inf", "random:1"};
  struct distribution_spec spec;
  (void)state;
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    assert_int_equal(distribution_parse(bad[i], &spec), -EINVAL);
  assert_int_equal(distribution_parse(NULL, &spec), 0);
  assert_int_equal(spec.kind, DISTRIBUTION_RANDOM);
  assert_int_equal(distribution_parse("random", &spec), 0);
  assert_int_equal(distribution_parse("zipf:0.99", &spec), 0);
  assert_int_equal(spec.kind, DISTRIBUTION_ZIPF);
  assert_true(spec.parameter == 0.99);
}

static void all_alike(void **state) {
  (void)state;
  draw("random");
  for (int i = 0; i < N; i++) near(counts[i], DRAWS / N, 15);
}

/* By rank: sorted, since popular ones are spread. */
static void zipf_goes_as_a_power(void **state) {
  static const double exponents[] = {0.5, 0.99, 1, 1.2, 2.5};
  (void)state;
  for (size_t e = 0; e < sizeof(exponents) / sizeof(exponents[0]); e++) {
    char text[32];
    double s = exponents[e], sum = 0;
    snprintf(text, sizeof(text), "zipf:%g", s);
    draw(text);
    for (int k = 1; k <= N; k++) sum += pow(k, -s);
    assert_true(counts[0] < DRAWS * pow(1, -s) / sum); /* the first is not the most popular one */
    qsort(counts, N, sizeof(counts[0]), descending);
    for (int k = 1; k <= 5; k++) near(counts[k - 1], DRAWS * pow(k, -s) / sum, 5);
    double most = 0, wanted = 0;
    for (int k = 1; k <= N / 5; k++) most += counts[k - 1], wanted += DRAWS * pow(k, -s) / sum;
    near(most, wanted, 2);
  }
}

static void pareto_is_self_similar(void **state) {
  uint32_t first = 0, of_first = 0;
  (void)state;
  draw("pareto:0.2");
  qsort(counts, N, sizeof(counts[0]), descending);
  for (int i = 0; i < N / 5; i++) first += counts[i];
  for (int i = 0; i < N / 25; i++) of_first += counts[i];
  near(first, DRAWS * 0.8, 2);
  near(of_first, DRAWS * 0.64, 2);
}

static void normal_is_around_the_middle(void **state) {
  double sum = 0, squares = 0;
  (void)state;
  draw("normal:10");
  for (int i = 0; i < N; i++) sum += (double)counts[i] * i;
  double mean = sum / DRAWS;
  for (int i = 0; i < N; i++) squares += counts[i] * (i - mean) * (i - mean);
  near(mean, N / 2.0, 1);
  near(sqrt(squares / DRAWS), N / 10.0, 1);
}

static void spreads_are_permutations(void **state) {
  static const uint64_t sizes[] = {1, 2, 3, 64, 1000};
  (void)state;
  for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
    unsigned bits = 0;
    while (UINT64_C(1) << bits < sizes[i]) bits++;
    memset(counts, 0, sizeof(counts));
    for (uint64_t k = 0; k < sizes[i]; k++) {
      uint64_t at = distribution_spread(k, sizes[i], bits);
      assert_true(at < sizes[i]);
      assert_int_equal(counts[at]++, 0);
    }
  }
}

static void one_thing(void **state) {
  static const char *const all[] = {"random", "zipf:1", "pareto:0.1", "normal:100"};
  (void)state;
  for (size_t i = 0; i < 4; i++) {
    struct distribution_spec spec;
    struct distribution d;
    assert_int_equal(distribution_parse(all[i], &spec), 0);
    distribution_init(&d, &spec, 1, 0);
    for (int k = 0; k < 100; k++) assert_int_equal(distribution_pick(&d), 0);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(words),
      cmocka_unit_test(all_alike),
      cmocka_unit_test(zipf_goes_as_a_power),
      cmocka_unit_test(pareto_is_self_similar),
      cmocka_unit_test(normal_is_around_the_middle),
      cmocka_unit_test(spreads_are_permutations),
      cmocka_unit_test(one_thing),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
