/* test_settings.c - files of settings: what is taken, what is left alone and with which words, and
 * what a directory may hold in place of one. */
#include "runtime/settings.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char directory[256], file[300], logged[1024];
static int lines;

static void keep(void *arg, int level, const char *text) {
  (void)arg;
  (void)level;
  lines++;
  snprintf(logged, sizeof logged, "%s", text);
}
static const struct logger logger = {keep, NULL};

static int parse(struct settings *s, const char *text, char why[200]) {
  why[0] = 0;
  return settings_parse(s, text, strlen(text), why, 200);
}

static void good(void **state) {
  struct settings s;
  char why[200];
  (void)state;
  assert_int_equal(parse(&s, "", why), 0);
  assert_true(!s.poll_us && !s.queue_depth && !s.flush_method);
  assert_int_equal(
      parse(&s, "# a comment\n\n  poll_us=120\r\n\tqueue_depth\t=  64  \nflush = fua", why), 0);
  assert_int_equal(s.poll_us, 120);
  assert_int_equal(s.queue_depth, 64);
  assert_int_equal(s.flush_method, FLUSH_METHOD_FUA);
  assert_int_equal(parse(&s, "flush = write+flush\nqueue_depth = 4096\npoll_us = 1000000\n", why),
                   0);
  assert_int_equal(s.flush_method, FLUSH_METHOD_AFTER);
  assert_int_equal(s.queue_depth, 4096);
  assert_int_equal(s.poll_us, 1000000);
}

static void bad(void **state) {
  static const struct {
    const char *text, *why;
  } cases[] = {
      {"poll_us = 0", "line 1: poll_us = 0: legal: 1 to 1000000"},
      {"\n\npoll_us = 1000001", "line 3: poll_us = 1000001: legal"},
      {"poll_us = 99999999999999999999", "line 1: poll_us"},
      {"poll_us = -1", "legal"},
      {"poll_us = 1e3", "legal"},
      {"poll_us = 1 2", "legal"},
      {"poll_us =", "legal"},
      {"poll_us", "NAME = VALUE"},
      {"= 5", "known are"},
      {"queue_depth = 4097", "legal: 1 to 4096"},
      {"queue_depth = 5\nqueue_depth = 5", "line 2: queue_depth = 5: it stands there twice"},
      {"flush = never", "legal: fua, write+flush"},
      {"POLL_US = 5", "known are poll_us, queue_depth and flush"},
      {"poll_us = 5 # why", "legal"},
      {"\x01\x1b[31m = 5", "line 1: ??[31m = 5"},
      {"a_name_that_is_far_too_long_for_a_message = 1", "line 1: a_name_that_is_far_too_l... = 1"},
  };
  (void)state;
  for (size_t i = 0; i < array_size(cases); i++) {
    struct settings s = {7, 7, 7};
    char why[200], text[300];
    /* All or nothing: what comes before it is not taken either. */
    snprintf(text, sizeof text, "%s", cases[i].text);
    assert_int_equal(parse(&s, text, why), -EINVAL);
    if (!strstr(why, cases[i].why)) fail_msg("%s: %s", cases[i].text, why);
    assert_true(!s.poll_us && !s.queue_depth && !s.flush_method);
  }
  struct settings s;
  char why[200];
  assert_int_equal(parse(&s, "poll_us = 9\nqueue_depth = x\n", why), -EINVAL);
  assert_int_equal(s.poll_us, 0);
  assert_int_equal(settings_parse(&s, "poll_us = 9\0\n", 13, why, sizeof why), -EINVAL);
}

/* ---- Files ----------------------------------------------------------------------------------- */

static int make(void **state) {
  const char *tmp = getenv("TMPDIR");
  (void)state;
  snprintf(directory, sizeof directory, "%s/shardring-settings.XXXXXX", tmp ? tmp : "/var/tmp");
  snprintf(logged, sizeof logged, "%s", "");
  if (!mkdtemp(directory)) return -1;
  snprintf(file, sizeof file, "%s/settings", directory);
  lines = 0;
  return 0;
}
static int clear(void **state) {
  (void)state;
  unlink(file);
  return rmdir(directory);
}

static void write_file(const char *text, size_t bytes) {
  int fd = open(file, O_CREAT | O_TRUNC | O_WRONLY, 0600);
  assert_true(fd >= 0);
  assert_int_equal(write(fd, text, bytes), bytes);
  close(fd);
}

static struct settings read_it(const char *path, int want) {
  struct settings s = {7, 7, 7};
  char note[100];
  assert_int_equal(settings_read(&s, directory, path, note, sizeof note, &logger), want);
  if (s.poll_us) assert_non_null(strstr(note, "settings"));
  return s;
}

static void in_a_directory(void **state) {
  (void)state;
  assert_int_equal(read_it(NULL, 0).poll_us, 0); /* none: nothing is said */
  assert_int_equal(lines, 0);
  write_file("poll_us = 77\n", 13);
  assert_int_equal(read_it(NULL, 0).poll_us, 77);
  assert_int_equal(read_it("", 0).poll_us, 0);
  assert_int_equal(read_it(file, 0).poll_us, 77);
  assert_int_equal(lines, 0);
  read_it("/nowhere/settings", -ENOENT);
  assert_non_null(strstr(logged, "/nowhere/settings"));
  struct settings s;
  char note[100];
  assert_int_equal(settings_read(&s, "mem:64M", NULL, note, sizeof note, &logger), 0);
  assert_int_equal(settings_read(&s, "/dev/null", NULL, note, sizeof note, &logger), 0);
  assert_int_equal(settings_read(&s, "fd:3", NULL, note, sizeof note, &logger), 0);
  assert_int_equal(lines, 1);
}

static void left_alone(const char *why) {
  int before = lines;
  struct settings s = read_it(NULL, 0);
  assert_true(!s.poll_us && !s.queue_depth && !s.flush_method);
  assert_int_equal(lines, before + 1);
  if (!strstr(logged, why) || !strstr(logged, file) || !strstr(logged, "shard-bench tune"))
    fail_msg("%s: %s", why, logged);
}

static void damaged(void **state) {
  static char large[SETTINGS_BYTES_MAX + 1];
  (void)state;
  write_file("poll_us = 77\nqueue_depth = many\n", 32);
  left_alone("line 2: queue_depth = many");
  memset(large, '\n', sizeof large);
  write_file(large, sizeof large);
  left_alone("more than 4096 bytes");
  write_file(large, SETTINGS_BYTES_MAX);
  read_it(NULL, 0); /* nothing but empty lines: nothing is wrong */
  unlink(file);
  assert_int_equal(mkdir(file, 0700), 0);
  left_alone("no regular file");
  rmdir(file);
  assert_int_equal(mkfifo(file, 0600), 0); /* opening it must not wait for a writer */
  left_alone("no regular file");
  unlink(file);
  assert_int_equal(symlink("/etc/passwd", file), 0);
  left_alone("no regular file");
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(good),
      cmocka_unit_test(bad),
      cmocka_unit_test_setup_teardown(in_a_directory, make, clear),
      cmocka_unit_test_setup_teardown(damaged, make, clear),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
