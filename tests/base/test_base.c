/* test_base.c - checksums, log lines, the clock. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shards/base/base.h"
#include "shards/base/crc32c.h"
#include "tests/random.h"

/* From RFC 3720, B.4, and the usual check value. */
static void test_crc32c_known_values(void **state) {
  (void)state;
  uint8_t bytes[32] = {0};
  assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
  assert_int_equal(crc32c(0, bytes, 32), 0x8a9136aa);
  memset(bytes, 0xff, 32);
  assert_int_equal(crc32c(0, bytes, 32), 0x62a8ab43);
  for (uint8_t i = 0; i < 32; i++) bytes[i] = i;
  assert_int_equal(crc32c(0, bytes, 32), 0x46dd794e);
  assert_int_equal(crc32c(0, NULL, 0), 0);
}

static void test_crc32c_in_parts_and_combined(void **state) {
  (void)state;
  enum { BYTES = 20000 };
  uint8_t *bytes = malloc(BYTES);
  struct random r = {1};
  for (int i = 0; i < BYTES; i++) bytes[i] = (uint8_t)random_next(&r);
  for (int i = 0; i < 2000; i++) {
    size_t n = random_below(&r, BYTES + 1), cut = random_below(&r, n + 1);
    uint32_t whole = crc32c(0, bytes, n), first = crc32c(0, bytes, cut);
    assert_int_equal(crc32c(first, bytes + cut, n - cut), whole);
    assert_int_equal(crc32c_combine(first, crc32c(0, bytes + cut, n - cut), n - cut), whole);
  }
  free(bytes);
}

/* Lengths that do not fit into memory: combining is associative. */
static void test_crc32c_combine_long(void **state) {
  (void)state;
  struct random r = {2};
  for (int i = 0; i < 200; i++) {
    uint32_t a = (uint32_t)random_next(&r), b = (uint32_t)random_next(&r),
             c = (uint32_t)random_next(&r);
    uint64_t len_b = random_next(&r) >> 24, len_c = random_next(&r) >> 24;
    uint32_t left = crc32c_combine(crc32c_combine(a, b, len_b), c, len_c);
    uint32_t right = crc32c_combine(a, crc32c_combine(b, c, len_c), len_b + len_c);
    assert_int_equal(left, right);
    assert_int_equal(crc32c_combine(a, 0, 0), a);
  }
}

static char logged[600];
static int logged_level;
static void keep_line(void *arg, int level, const char *text) {
  assert_ptr_equal(arg, logged);
  logged_level = level;
  strcpy(logged, text);
}
static void test_log_line(void **state) {
  (void)state;
  struct logger logger = {.line = keep_line, .arg = logged};
  log_line(&logger, 1, "shard %d: %s", 3, "full");
  assert_string_equal(logged, "shard 3: full");
  assert_int_equal(logged_level, 1);
  char longer[2000];
  memset(longer, 'x', sizeof longer);
  longer[sizeof longer - 1] = 0;
  log_line(&logger, 0, "%s", longer);
  assert_int_equal(strlen(logged), 511);
  log_line(NULL, 0, "nobody listens");
  log_line(&(struct logger){.line = NULL}, 0, "nor here");
}

static void test_clock_goes_forward(void **state) {
  (void)state;
  uint64_t before = clock_now_ns(&clock_monotonic);
  for (int i = 0; i < 1000; i++) {
    uint64_t now = clock_now_ns(&clock_monotonic);
    assert_true(now >= before);
    before = now;
  }
  assert_true(before > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_crc32c_known_values),
      cmocka_unit_test(test_crc32c_in_parts_and_combined),
      cmocka_unit_test(test_crc32c_combine_long),
      cmocka_unit_test(test_log_line),
      cmocka_unit_test(test_clock_goes_forward),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
