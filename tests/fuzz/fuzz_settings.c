/* fuzz_settings.c - settings_parse(): all of a text or nothing of it, never a value out of its
 * range, and a reason that names a line and holds nothing that a terminal would act upon.
 *
 * Input: the text. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/settings.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct settings s = {77, 77, 77}, again;
  char why[192] = "", text[256], *copy = fuzz_alloc(size);
  if (size) memcpy(copy, data, size); /* so that reading past its end is seen */
  int r = settings_parse(&s, copy, size, why, sizeof why);
  free(copy);
  check(r == 0 || r == -EINVAL);
  check(s.poll_us <= 1000000 && s.queue_depth <= 4096 && s.flush_method <= FLUSH_METHOD_AFTER);
  if (r) {
    check(!s.poll_us && !s.queue_depth && !s.flush_method);
    check(strncmp(why, "line ", 5) == 0);
    for (const char *c = why; *c; c++) check(*c >= ' ' && *c < 127);
    return 0;
  }
  check(!why[0]);
  /* What was taken, written down, is the same. */
  int n = 0;
  if (s.poll_us) n += snprintf(text + n, sizeof text - (size_t)n, "poll_us = %u\n", s.poll_us);
  if (s.queue_depth)
    n += snprintf(text + n, sizeof text - (size_t)n, "queue_depth = %u\n", s.queue_depth);
  if (s.flush_method)
    n += snprintf(text + n, sizeof text - (size_t)n, "flush = %s\n",
                  s.flush_method == FLUSH_METHOD_FUA ? "fua" : "write+flush");
  check(settings_parse(&again, text, (size_t)n, why, sizeof why) == 0);
  check(memcmp(&s, &again, sizeof s) == 0);
  return 0;
}
