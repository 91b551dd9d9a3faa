/* test_job_file.c - job files: what they mean, and where they are wrong. */
#include "tools/job_file.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

static struct job_file file;
static char why[200];

static int take(const char *text) {
  FILE *in = fmemopen((void *)(uintptr_t)text, strlen(text), "r");
  assert_non_null(in);
  int r = job_file_read(&file, in, why, sizeof(why));
  fclose(in);
  return r;
}

static void sections(void **state) {
  (void)state;
  assert_int_equal(take("; two runs\n\n[global]\nstore = /a b/c \n\tverify\n[one]\nrw=randread\n"
                        "[global]\nseed=7\n# another\n[two words]\nrw= write\nbs=4k\r\n"),
                   0);
  assert_int_equal(file.count, 2);
  const struct job_section *s = &file.sections[0];
  assert_string_equal(s->name, "one");
  assert_int_equal(s->line, 6);
  assert_int_equal(s->count, 3);
  assert_string_equal(s->options[0].text, "--store=/a b/c");
  assert_string_equal(s->options[1].text, "--verify");
  assert_int_equal(s->options[1].line, 5);
  assert_int_equal(s->options[1].column, 2);
  assert_string_equal(s->options[2].text, "--rw=randread");
  s = &file.sections[1];
  assert_string_equal(s->name, "two words");
  assert_int_equal(s->count, 5); /* later global ones as well */
  assert_string_equal(s->options[2].text, "--seed=7");
  assert_string_equal(s->options[3].text, "--rw=write");
  assert_string_equal(s->options[4].text, "--bs=4k");
  job_file_free(&file);
}

static void mistakes(void **state) {
  static const struct {
    const char *text, *where, *what;
  } bad[] = {
      {"", "line 0", "nothing to run"},
      {"[global]\nbs=4k\n", "line 2", "nothing to run"},
      {"bs=4k\n", "line 1, column 1", "in a section"},
      {"[a]\n  [b\n", "line 2, column 3", "ends with ]"},
      {"[]\n", "line 1, column 2", "without a name"},
      {"[a] x\n", "line 1, column 4", "follow"},
      {"[a]\n=4\n", "line 2, column 1", "without a name"},
      {"[a]\nb s=4\n", "line 2, column 2", "' ' in the name"},
      {"[a]\n\n --bs!=4\n", "line 3, column 6", "'!' in the name"},
  };
  (void)state;
  for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
    if (!*bad[i].text) continue; /* fmemopen() takes no empty buffer */
    assert_int_equal(take(bad[i].text), -EINVAL);
    assert_non_null(strstr(why, bad[i].where));
    assert_non_null(strstr(why, bad[i].what));
    assert_int_equal(file.count, 0);
  }
}

static void too_much(void **state) {
  char *text = malloc(1 << 20), *at = text;
  (void)state;
  assert_non_null(text);
  for (unsigned i = 0; i <= JOB_SECTIONS_MAX; i++) at += sprintf(at, "[s%u]\n", i);
  assert_int_equal(take(text), -EINVAL);
  assert_non_null(strstr(why, "line 65"));
  at = text + sprintf(text, "[a]\n");
  for (unsigned i = 0; i <= JOB_OPTIONS_MAX; i++) at += sprintf(at, "o%u=1\n", i);
  assert_int_equal(take(text), -EINVAL);
  assert_non_null(strstr(why, "line 130"));
  at = text + sprintf(text, "[a]\nb=");
  memset(at, 'x', JOB_LINE_MAX);
  at[JOB_LINE_MAX] = 0;
  assert_int_equal(take(text), -EINVAL);
  assert_non_null(strstr(why, "line 2"));
  free(text);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(sections),
      cmocka_unit_test(mistakes),
      cmocka_unit_test(too_much),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
