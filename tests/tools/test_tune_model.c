/* test_tune_model.c - the model of a device that does exactly what is asked of it, and the settings
 * that follow: worked out by hand. */
#include "tools/tune_model.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>

/* 100 us and 1 ns a byte, one at a time; up to 80,000 reads a second, at 8 and more in flight. */
static struct tune_data device(void) {
  struct tune_data d = {.read_p90_ns = 120000,
                        .wake_ns = 8000,
                        .write_ns = 20000,
                        .write_flush_ns = 1020000,
                        .write_dsync_ns = 1000000,
                        .read_alone = 50000,
                        .read_beside = 25000,
                        .write_alone = 1000,
                        .write_beside = 900};
  for (uint32_t i = 0; i < TUNE_DEPTHS; i++)
    d.depths[i] =
        (struct tune_point){4096, 1u << i, 1, false, i < 3 ? 10000.0 * (1 << i) : 80000, 0};
  for (uint32_t i = 0; i < TUNE_SIZES; i++) {
    double bytes = 4096u << 2 * i;
    d.reads[i] = (struct tune_point){(uint32_t)bytes, 1, 1, false, 1e9 / (100000 + bytes), 0};
    d.writes[i] = (struct tune_point){(uint32_t)bytes, 1, 1, true, 1e9 / 50000, 0};
  }
  return d;
}

static void lines(void **state) {
  struct tune_data d = device();
  struct tune_model m;
  (void)state;
  tune_model_of(&m, &d);
  assert_true(fabs(m.read.fixed_ns - 100000) < 1e-3 && fabs(m.read.per_byte_ns - 1) < 1e-9);
  assert_true(m.read.worst < 1e-9);
  assert_true(fabs(m.write.fixed_ns - 50000) < 1e-3 && m.write.per_byte_ns < 1e-9);
  /* Twice the time at one size: between the two, and the error says so. */
  d.reads[2].rate /= 2;
  tune_model_of(&m, &d);
  assert_true(m.read.worst > 0.2 && m.read.fixed_ns > 0);
  /* Larger ones that are faster make no negative price of a byte. */
  for (uint32_t i = 0; i < TUNE_SIZES; i++) d.writes[i].rate = 1e4 * (i + 1);
  tune_model_of(&m, &d);
  assert_true(m.write.per_byte_ns == 0 && m.write.fixed_ns > 0 && m.write.worst > 0.2);
}

static void knee_and_shares(void **state) {
  struct tune_data d = device();
  struct tune_model m;
  (void)state;
  tune_model_of(&m, &d);
  assert_true(m.rate_max == 80000 && m.rate_depth == 8 && fabs(m.knee - 8) < 1e-9);
  assert_true(fabs(m.read_kept - 0.5) < 1e-9 && fabs(m.write_kept - 0.9) < 1e-9);
  assert_true(fabs(m.flush_ns - 1e6) < 1e-3);
  /* A dip beyond the best depth does not count. */
  d.depths[6].rate = 30000;
  d.depths[7].rate = 79000;
  tune_model_of(&m, &d);
  assert_int_equal(m.rate_depth, 8);
}

static void settings(void **state) {
  struct tune_data d = device();
  struct tune_model m;
  (void)state;
  tune_model_of(&m, &d);
  assert_int_equal(m.poll_us, 150); /* 1.25 * 120 us */
  assert_int_equal(m.queue_depth, 32);
  assert_int_equal(m.flush, TUNE_FLUSH_FUA);
  for (uint32_t i = 0; i < TUNE_DEPTHS; i++) d.depths[i].rate = 100.0 * (1 << i);
  d.write_dsync_ns = 4000000; /* far more than a write and a flush */
  d.read_p90_ns = 8000000;    /* a disk that turns: nobody waits for that with a processor */
  tune_model_of(&m, &d);
  assert_int_equal(m.poll_us, 16); /* twice a wake-up */
  assert_int_equal(m.queue_depth, 512);
  assert_int_equal(m.flush, TUNE_FLUSH_AFTER);
  d.wake_ns = 1000;
  d.write_dsync_ns = 1100000; /* hardly more: the usual one */
  tune_model_of(&m, &d);
  assert_int_equal(m.poll_us, 10);
  assert_int_equal(m.flush, TUNE_FLUSH_FUA);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(lines),
      cmocka_unit_test(knee_and_shares),
      cmocka_unit_test(settings),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
