/* test_sizes.c - how large blobs are, against what was asked for. Seeds are fixed. */
#include "tools/bench_sizes.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define DRAWS 200000

static struct sizes parsed(const char *text) {
  struct sizes s;
  char why[256];
  if (sizes_parse(text, &s, why, sizeof(why)) < 0) fail_msg("%s: %s", text, why);
  return s;
}

static void near(double got, double wanted, double percent) {
  if (fabs(got - wanted) > wanted * percent / 100) fail_msg("%.6g instead of %.6g", got, wanted);
}

static void words(void **state) {
  static const char *const bad[] = {"fixed:",
                                    "fixed:0",
                                    "fixed:2G",
                                    "uniform:4k",
                                    "uniform:8k-4k",
                                    "uniform:-4k",
                                    "uniform:0-4k",
                                    "lognormal:4k",
                                    "lognormal:4k:0",
                                    "lognormal:4k:5",
                                    "lognormal:4k:x",
                                    "lognormal:4k:1x",
                                    "4k/60",
                                    "4k/60:8k/50",
                                    "4k/-1:8k/101",
                                    "4k:/50",
                                    "4k/60:",
                                    "4k/x:8k",
                                    "4x",
                                    "4k/nan:8k",
                                    "/nowhere/sizes"};
  struct sizes s;
  char why[256];
  (void)state;
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
    if (sizes_parse(bad[i], &s, why, sizeof(why)) != -EINVAL) fail_msg("%s was taken", bad[i]);
}

static void constant(void **state) {
  struct sizes s = parsed("fixed:12345");
  (void)state;
  for (uint64_t i = 0; i < 100; i++) assert_int_equal(sizes_of(&s, i, i * 7), 12345);
  assert_true(sizes_mean(&s, 10, 1, 4096) == 16384);
}

static void even(void **state) {
  struct sizes s = parsed("uniform:10-19");
  uint32_t counts[10] = {0};
  (void)state;
  for (uint64_t i = 0; i < DRAWS; i++) {
    uint64_t bytes = sizes_of(&s, i, 3);
    assert_in_range(bytes, 10, 19);
    counts[bytes - 10]++;
  }
  for (int i = 0; i < 10; i++) near(counts[i], DRAWS / 10, 3);
}

static int ascending(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return x < y ? -1 : x > y;
}

/* Its median, and the points one deviation from it. */
static void lognormal(void **state) {
  static uint64_t got[DRAWS];
  struct sizes s = parsed("lognormal:16k:0.5");
  (void)state;
  for (uint64_t i = 0; i < DRAWS; i++) {
    got[i] = sizes_of(&s, i, 3);
    assert_in_range(got[i], 1, s.max);
  }
  assert_int_equal(s.max, (uint64_t)ceil(16384 * exp(2)));
  qsort(got, DRAWS, sizeof(got[0]), ascending);
  near((double)got[DRAWS / 2], 16384, 1);
  near((double)got[(int)(DRAWS * 0.841345)], 16384 * exp(0.5), 1);
  near((double)got[(int)(DRAWS * 0.158655)], 16384 * exp(-0.5), 1);
}

static void shares(const struct sizes *s, uint64_t first, double first_share, uint64_t second,
                   double second_share) {
  uint32_t a = 0, b = 0;
  for (uint64_t i = 0; i < DRAWS; i++) {
    uint64_t bytes = sizes_of(s, i, 5);
    a += bytes == first;
    b += bytes == second;
  }
  near(a, DRAWS * first_share, 3);
  near(b, DRAWS * second_share, 3);
}

static void lists(void **state) {
  struct sizes s = parsed("4k/60:64k/40");
  (void)state;
  shares(&s, 4096, 0.6, 65536, 0.4);
  assert_int_equal(s.min, 4096);
  assert_int_equal(s.max, 65536);
  near(sizes_mean(&s, 1000000, 5, 4096), 0.6 * 4096 + 0.4 * 65536, 1);
  sizes_finish(&s);
  s = parsed("1k:2k/50:3k/"); /* a quarter each for those without */
  shares(&s, 1024, 0.25, 2048, 0.5);
  shares(&s, 3072, 0.25, 2048, 0.5);
  sizes_finish(&s);
  s = parsed("777");
  assert_int_equal(sizes_of(&s, 1, 1), 777);
  sizes_finish(&s);
}

/* from_file TEXT: what it is parsed to. */
static int from_file(const char *text, struct sizes *s, char *why) {
  char path[] = "test_sizes.XXXXXX", here[64];
  int fd = mkstemp(path);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, text, strlen(text)), strlen(text));
  close(fd);
  snprintf(here, sizeof(here), "./%s", path);
  int r = sizes_parse(here, s, why, 256);
  unlink(path);
  return r;
}

static void files(void **state) {
  struct sizes s;
  char why[256];
  (void)state;
  assert_int_equal(from_file("# a survey\n4096 3\n\n  8k 1 # rare\n1G 0\n", &s, why), 0);
  shares(&s, 4096, 0.75, 8192, 0.25);
  assert_int_equal(s.count, 2);
  assert_int_equal(s.max, 8192); /* what never comes up needs no buffer */
  sizes_finish(&s);
  assert_int_equal(from_file("100\n200\n100\n", &s, why), 0); /* a trace */
  shares(&s, 200, 1 / 3.0, 200, 1 / 3.0);
  sizes_finish(&s);
  assert_int_equal(from_file("4k\n5x 3\n", &s, why), -EINVAL);
  assert_non_null(strstr(why, "line 2"));
  assert_int_equal(from_file("4k 1 2\n", &s, why), -EINVAL);
  assert_int_equal(from_file("4k -1\n", &s, why), -EINVAL);
  assert_int_equal(from_file("# nothing\n", &s, why), -EINVAL);
}

/* The same number and seed, the same size; another of either, in general another one. */
static void functions_of_number_and_seed(void **state) {
  struct sizes s = parsed("uniform:1-1000000");
  uint32_t same_number = 0, same_seed = 0;
  (void)state;
  for (uint64_t i = 0; i < 1000; i++) {
    assert_int_equal(sizes_of(&s, i, 9), sizes_of(&s, i, 9));
    same_seed += sizes_of(&s, i, 9) == sizes_of(&s, i + 1, 9);
    same_number += sizes_of(&s, i, 9) == sizes_of(&s, i, 10);
  }
  assert_true(same_seed < 5);
  assert_true(same_number < 5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(words),
      cmocka_unit_test(constant),
      cmocka_unit_test(even),
      cmocka_unit_test(lognormal),
      cmocka_unit_test(lists),
      cmocka_unit_test(files),
      cmocka_unit_test(functions_of_number_and_seed),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
