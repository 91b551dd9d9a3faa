/* test_args.c - the command line's table: what is taken, what is refused. */
#include "tools/args.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>

struct values {
  bool flag, given;
  const char *text;
  uint64_t number, size;
  double seconds;
  int choice;
};

static int parse(struct values *v, int argc, const char *const *words, const char **rest) {
  const struct arg table[] = {
      {"flag", ARG_FLAG, &v->flag, .help = ""},
      {"text", ARG_TEXT, &v->text, .help = ""},
      {"number", ARG_NUMBER, &v->number, 1, 100, .help = ""},
      {"size", ARG_SIZE, &v->size, 4096, 1 << 30, 4096, .help = "", .given = &v->given},
      {"seconds", ARG_SECONDS, &v->seconds, 0, 100, .help = ""},
      {"choice", ARG_CHOICE, &v->choice, .choices = "one|two|three", .help = ""},
      {NULL, 0, NULL, .help = NULL},
  };
  char *argv[16] = {(char *)"tool"};
  for (int i = 0; i < argc; i++) argv[i + 1] = (char *)(uintptr_t)words[i];
  return args_parse("tool", table, argc + 1, argv, rest, 2);
}

static void sizes(void **state) {
  static const struct {
    const char *text;
    uint64_t bytes;
  } good[] = {{"0", 0},           {"512", 512},
              {"4k", 4096},       {"4K", 4096},
              {"3M", 3u << 20},   {"2g", 2ull << 30},
              {"1T", 1ull << 40}, {"4KiB", 4096},
              {"1mb", 1u << 20},  {"16777215T", 16777215ull << 40}};
  static const char *const bad[] = {"",
                                    "k",
                                    "-1",
                                    "+1",
                                    " 1",
                                    "1 ",
                                    "1kk",
                                    "1x",
                                    "1.5k",
                                    "0x10",
                                    "1kib1",
                                    "16777216T",
                                    "18446744073709551616"};
  (void)state;
  for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
    uint64_t v = 1;
    assert_int_equal(args_size(good[i].text, &v), 0);
    assert_int_equal(v, good[i].bytes);
  }
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    uint64_t v;
    assert_int_equal(args_size(bad[i], &v), -EINVAL);
  }
}

static void good_values(void **state) {
  const char *words[] = {"first",     "--flag",          "--text=x=y",     "--number", "100",
                         "--size=8k", "--seconds=250ms", "--choice=three", "--",       "--flag"};
  const char *rest[2];
  struct values v = {0};
  (void)state;
  assert_int_equal(parse(&v, 10, words, rest), 2);
  assert_string_equal(rest[0], "first");
  assert_string_equal(rest[1], "--flag");
  assert_true(v.flag);
  assert_true(v.given);
  assert_string_equal(v.text, "x=y");
  assert_int_equal(v.number, 100);
  assert_int_equal(v.size, 8192);
  assert_true(v.seconds > 0.249 && v.seconds < 0.251);
  assert_int_equal(v.choice, 2);
}

static void bad_values(void **state) {
  static const char *const bad[] = {
      "--number=0",    "--number=101", "--number=",     "--number=5x",   "--number=-5",
      "--number",      "--size=4095",  "--size=0",      "--size=2g",     "--size=5000",
      "--text=",       "--flag=2",     "--flag=yes",    "--choice=four", "--choice=",
      "--choice=tw",   "--seconds=0",  "--seconds=101", "--seconds=1x",  "--seconds=nan",
      "--seconds=-1",  "--unknown",    "--numbe=1",     "--numbers=1",   "-x",
      "--seconds=inf", "--",
  };
  const char *rest[2];
  (void)state;
  for (size_t i = 0; i + 1 < sizeof(bad) / sizeof(bad[0]); i++) {
    struct values v = {0};
    if (parse(&v, 1, &bad[i], rest) != -EINVAL) fail_msg("%s was taken", bad[i]);
  }
  const char *many[] = {"a", "b", "c"};
  struct values v = {0};
  assert_int_equal(parse(&v, 3, many, rest), -EINVAL);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sizes),
      cmocka_unit_test(good_values),
      cmocka_unit_test(bad_values),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
