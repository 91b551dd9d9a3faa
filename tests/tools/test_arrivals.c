/* test_arrivals.c - when the requests of an open load are due. */
#include "tools/bench_arrivals.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define COUNT 1000000

static void evenly(void **state) {
  struct arrivals a;
  (void)state;
  arrivals_begin(&a, 1000, false, 7, 5000);
  for (uint64_t i = 0; i < COUNT; i++) {
    assert_int_equal(arrivals_due_ns(&a), 5000 + i * 1000000);
    arrivals_next(&a);
  }
}

static void counts_what_is_left(void **state) {
  struct arrivals a;
  (void)state;
  arrivals_begin(&a, 1000, false, 7, 0);
  assert_int_equal(arrivals_count_until(&a, 0), 0);
  assert_int_equal(arrivals_count_until(&a, 1), 1);
  assert_int_equal(arrivals_count_until(&a, 10000000), 10);
  for (int i = 0; i < 7; i++) arrivals_next(&a);
  assert_int_equal(arrivals_count_until(&a, 10000000), 3);
  assert_int_equal(arrivals_count_until(&a, 1000000), 0);
  assert_int_equal(arrivals_due_ns(&a), 7000000); /* counting takes none */
}

/* Intervals of a Poisson process: mean and standard deviation are the same, and 1 - 1/e of them are
 * shorter than that. With this seed: nothing here is left to chance. */
static void as_a_poisson_process(void **state) {
  double sum = 0, squares = 0;
  uint32_t shorter = 0;
  struct arrivals a;
  (void)state;
  arrivals_begin(&a, 1e6, true, 42, 0);
  assert_true(arrivals_due_ns(&a) > 0);
  for (int i = 0; i < COUNT; i++) {
    double before = a.due_ns;
    arrivals_next(&a);
    double interval = a.due_ns - before;
    assert_true(interval >= 0);
    sum += interval;
    squares += interval * interval;
    shorter += interval < 1000;
  }
  double mean = sum / COUNT, variance = squares / COUNT - mean * mean;
  assert_true(mean > 995 && mean < 1005);
  assert_true(variance > 990000 && variance < 1010000);
  assert_in_range(shorter, 630000, 634000);
}

static void seeds_differ(void **state) {
  struct arrivals a, b, c;
  (void)state;
  arrivals_begin(&a, 1000, true, 1, 0);
  arrivals_begin(&b, 1000, true, 1, 0);
  arrivals_begin(&c, 1000, true, 2, 0);
  assert_int_equal(arrivals_due_ns(&a), arrivals_due_ns(&b));
  assert_int_not_equal(arrivals_due_ns(&a), arrivals_due_ns(&c));
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(evenly),
      cmocka_unit_test(counts_what_is_left),
      cmocka_unit_test(as_a_poisson_process),
      cmocka_unit_test(seeds_differ),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
