/* base.c - failed checks, log lines and the monotonic clock. Any thread; no state. */
#include "shards/base/base.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

void check_failed(const char *file, int line, const char *cond) {
  fprintf(stderr, "%s:%d: check failed: %s\n", file, line, cond);
  fflush(stderr);
  abort();
}

void log_line(const struct logger *logger, int level, const char *format, ...) {
  if (!logger || !logger->line) return;
  char text[512]; /* a longer line is cut */
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  logger->line(logger->arg, level, text);
}

static uint64_t read_monotonic(void *arg) {
  (void)arg;
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
const struct clock clock_monotonic = {.now_ns = read_monotonic};
