/* bench_split.c - see bench_split.h. */
#include "tools/bench_split.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/args.h"

#define BYTES_MAX (UINT64_C(64) << 20)
#define UNKNOWN   UINT32_MAX

static int fail(char *why, size_t why_bytes, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
static int fail(char *why, size_t why_bytes, const char *format, ...) {
  va_list ap;
  va_start(ap, format);
  vsnprintf(why, why_bytes, format, ap);
  va_end(ap);
  return -EINVAL;
}

/* One "SIZE/PERCENT", "SIZE/" or "SIZE". */
static int take_part(struct split *s, const char *part, char *why, size_t why_bytes) {
  char size[32];
  size_t n = strcspn(part, "/");
  uint64_t bytes = 0;
  snprintf(size, sizeof(size), "%.*s", (int)n, part);
  if (n == 0 || n >= sizeof(size) || args_size(size, &bytes) < 0)
    return fail(why, why_bytes, "\"%.40s\" does not begin with a size", part);
  if (bytes < 512 || bytes > BYTES_MAX || bytes % 512 != 0)
    return fail(why, why_bytes, "%s is not a multiple of 512 up to 64M", size);
  uint32_t percent = UNKNOWN;
  if (part[n] && part[n + 1]) {
    char *end;
    unsigned long v =
        part[n + 1] >= '0' && part[n + 1] <= '9' ? strtoul(part + n + 1, &end, 10) : 0;
    if (!(v >= 1 && v <= 100) || *end)
      return fail(why, why_bytes, "\"%.40s\" is no percentage from 1 to 100", part + n + 1);
    percent = (uint32_t)v;
  }
  if (s->count == SPLIT_MAX) return fail(why, why_bytes, "more than %d sizes", SPLIT_MAX);
  s->bytes[s->count] = bytes;
  s->upto[s->count++] = percent;
  return 0;
}

/* Percentages that are missing; then their sums. */
static int add_up(struct split *s, char *why, size_t why_bytes) {
  uint32_t given = 0, missing = 0, sum = 0;
  for (uint32_t i = 0; i < s->count; i++)
    if (s->upto[i] == UNKNOWN)
      missing++;
    else
      given += s->upto[i];
  if (given > 100 || (missing == 0 && given != 100))
    return fail(why, why_bytes, "the percentages add up to %u, not to 100", given);
  if (missing > 0 && 100 - given < missing)
    return fail(why, why_bytes, "too little is left for the sizes without a percentage");
  for (uint32_t i = 0, rest = 100 - given; i < s->count; i++) {
    uint32_t percent = s->upto[i] == UNKNOWN ? rest / missing : s->upto[i];
    if (s->upto[i] == UNKNOWN) rest -= percent, missing--;
    s->upto[i] = sum += percent;
  }
  return 0;
}

int split_parse(const char *text, struct split *s, char *why, size_t why_bytes) {
  *s = (struct split){.min = UINT64_MAX};
  if (strchr(text, ','))
    return fail(why, why_bytes, "one list for reads and writes alike: no comma");
  for (const char *at = text;;) {
    char part[64];
    size_t n = strcspn(at, ":");
    snprintf(part, sizeof(part), "%.*s", (int)n, at);
    if (n >= sizeof(part)) return fail(why, why_bytes, "\"%.40s\" is no size and percentage", at);
    int r = take_part(s, part, why, why_bytes);
    if (r < 0) return r;
    if (!at[n]) break;
    at += n + 1;
  }
  for (uint32_t i = 0; i < s->count; i++) {
    if (s->bytes[i] < s->min) s->min = s->bytes[i];
    if (s->bytes[i] > s->max) s->max = s->bytes[i];
  }
  for (uint32_t i = 0; i < s->count; i++)
    if (s->bytes[i] % s->min != 0)
      return fail(why, why_bytes, "%llu is no multiple of the smallest size, %llu",
                  (unsigned long long)s->bytes[i], (unsigned long long)s->min);
  return add_up(s, why, why_bytes);
}

double split_mean(const struct split *s) {
  double sum = 0;
  for (uint32_t i = 0; i < s->count; i++)
    sum += (double)s->bytes[i] * (s->upto[i] - (i ? s->upto[i - 1] : 0)) / 100;
  return sum;
}
