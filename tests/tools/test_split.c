/* test_split.c - requests of several sizes. */
#include "tools/bench_split.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static char why[160];

static uint32_t share(const struct split *s, uint64_t bytes) {
  uint32_t n = 0;
  for (uint64_t dice = 0; dice < 100; dice++) n += split_pick(s, dice) == bytes;
  return n;
}

static void as_often_as_asked_for(void **state) {
  struct split s;
  (void)state;
  assert_int_equal(split_parse("4k/60:64k/40", &s, why, sizeof(why)), 0);
  assert_int_equal(s.count, 2);
  assert_int_equal(s.min, 4096);
  assert_int_equal(s.max, 65536);
  assert_int_equal(share(&s, 4096), 60);
  assert_int_equal(share(&s, 65536), 40);
  assert_true(split_mean(&s) == 4096 * 0.6 + 65536 * 0.4);
  assert_int_equal(split_parse("8k", &s, why, sizeof(why)), 0);
  assert_int_equal(share(&s, 8192), 100);
}

static void the_rest_is_shared(void **state) {
  struct split s;
  (void)state;
  assert_int_equal(split_parse("512/50:1k:2k/", &s, why, sizeof(why)), 0);
  assert_int_equal(share(&s, 512), 50);
  assert_int_equal(share(&s, 1024), 25);
  assert_int_equal(share(&s, 2048), 25);
  assert_int_equal(split_parse("512:1k:2k", &s, why, sizeof(why)), 0);
  assert_int_equal(share(&s, 512) + share(&s, 1024) + share(&s, 2048), 100);
  assert_int_equal(share(&s, 2048), 34);
}

static void what_it_cannot_be(void **state) {
  static const char *const bad[] = {"",
                                    "4k/60",
                                    "4k/60:8k/50",
                                    "4k/60:64k/40:",
                                    "/100",
                                    "4k/0:8k/100",
                                    "4k/-5:8k/105",
                                    "4k/50x:8k/50",
                                    "5000/100",
                                    "128M/100",
                                    "4k/100:8k",
                                    "4k/50,8k/50",
                                    "3k/50:4k/50",
                                    "4k/99999999999:8k/1",
                                    "4k:8k/"};
  struct split s;
  (void)state;
  for (size_t i = 0; i + 1 < sizeof(bad) / sizeof(bad[0]); i++) {
    *why = 0;
    assert_int_equal(split_parse(bad[i], &s, why, sizeof(why)), -EINVAL);
    assert_true(*why);
  }
  assert_int_equal(split_parse(bad[sizeof(bad) / sizeof(bad[0]) - 1], &s, why, sizeof(why)), 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(as_often_as_asked_for),
      cmocka_unit_test(the_rest_is_shared),
      cmocka_unit_test(what_it_cannot_be),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
