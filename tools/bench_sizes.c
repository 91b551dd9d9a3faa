/* bench_sizes.c - see bench_sizes.h. */
#include "tools/bench_sizes.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/args.h"
#include "tools/bench_random.h"

#define SAMPLE UINT64_C(65536) /* blobs, of a mean */

static int refuse(char *why, size_t why_bytes, const char *what) {
  snprintf(why, why_bytes, "%s", what);
  return -EINVAL;
}

/* A size that a blob can have, which ends at `end`. */
static int take_size(const char *text, const char *end, uint64_t *bytes) {
  char word[32];
  size_t n = (size_t)(end - text);
  if (n == 0 || n >= sizeof(word)) return -EINVAL;
  memcpy(word, text, n);
  word[n] = 0;
  if (args_size(word, bytes) < 0 || *bytes < 1 || *bytes > SIZES_BYTES_MAX) return -EINVAL;
  return 0;
}

/* ---- Formulas -------------------------------------------------------------------------------- */

static int parse_fixed(const char *text, struct sizes *s) {
  s->kind = SIZES_FIXED;
  int r = take_size(text, text + strlen(text), &s->min);
  s->max = s->min;
  return r;
}

static int parse_uniform(const char *text, struct sizes *s) {
  const char *dash = strchr(text, '-');
  s->kind = SIZES_UNIFORM;
  if (!dash || take_size(text, dash, &s->min) < 0) return -EINVAL;
  if (take_size(dash + 1, dash + strlen(dash), &s->max) < 0) return -EINVAL;
  return s->min <= s->max ? 0 : -EINVAL;
}

static int parse_lognormal(const char *text, struct sizes *s) {
  const char *colon = strchr(text, ':');
  uint64_t median;
  char *end;
  s->kind = SIZES_LOGNORMAL;
  if (!colon || take_size(text, colon, &median) < 0) return -EINVAL;
  s->sigma = strtod(colon + 1, &end);
  if (end == colon + 1 || *end || !(s->sigma > 0) || s->sigma > 4) return -EINVAL;
  s->median = (double)median;
  double most = ceil(s->median * exp(4 * s->sigma));
  s->min = 1;
  s->max = most < (double)SIZES_BYTES_MAX ? (uint64_t)most : SIZES_BYTES_MAX;
  return 0;
}

/* ---- Lists ----------------------------------------------------------------------------------- */

/* Its `until` is a weight until all of them are there. */
static int add(struct sizes *s, uint64_t bytes, double weight) {
  if ((s->count & (s->count - 1)) == 0) { /* 0 and powers of two: it is full */
    size_t room = s->count ? 2 * (size_t)s->count : 1;
    struct sizes_entry *more = realloc(s->entries, room * sizeof(*more));
    if (!more) return -ENOMEM;
    s->entries = more;
  }
  s->entries[s->count++] = (struct sizes_entry){bytes, weight};
  if (s->count == 1 || bytes < s->min) s->min = bytes;
  if (bytes > s->max) s->max = bytes;
  return 0;
}

static void accumulate(struct sizes *s, double all) {
  double sum = 0;
  for (uint32_t i = 0; i < s->count; i++) {
    sum += s->entries[i].until;
    s->entries[i].until = sum / all;
  }
  s->entries[s->count - 1].until = 1;
}

static int parse_list(const char *text, struct sizes *s, char *why, size_t why_bytes) {
  double given = 0;
  uint32_t open = 0;
  for (const char *at = text;; at++) {
    const char *end = at + strcspn(at, "/:");
    uint64_t bytes;
    double percent = -1; /* an equal part of what is left */
    if (take_size(at, end, &bytes) < 0)
      return refuse(why, why_bytes, "a part of the list begins with no size from 1 to 1G");
    at = end;
    if (*at == '/' && at[1] && at[1] != ':') {
      char *last;
      percent = strtod(at + 1, &last);
      if (last == at + 1 || !(percent >= 0) || percent > 100 || (*last && *last != ':'))
        return refuse(why, why_bytes, "behind a slash stands a percentage from 0 to 100");
      at = last;
    } else if (*at == '/') {
      at++;
    }
    int r = s->count < SIZES_LINES_MAX ? add(s, bytes, percent) : -E2BIG;
    if (r < 0) return r;
    if (percent < 0)
      open++;
    else
      given += percent;
    if (!*at) break;
  }
  if (given > 100 + 1e-6 || (open == 0 && given < 100 - 1e-6))
    return refuse(why, why_bytes, "the percentages do not come to 100");
  for (uint32_t i = 0; i < s->count; i++)
    if (s->entries[i].until < 0) s->entries[i].until = given < 100 ? (100 - given) / open : 0;
  accumulate(s, 100);
  return 0;
}

/* "4096", "4k 17" */
static int parse_line(const char *line, uint64_t *bytes, double *weight) {
  const char *end = line;
  char *last;
  while (*end && !isspace((unsigned char)*end)) end++;
  *weight = 1;
  if (take_size(line, end, bytes) < 0) return -EINVAL;
  while (isspace((unsigned char)*end)) end++;
  if (!*end) return 0;
  *weight = strtod(end, &last);
  if (last == end || !(*weight >= 0) || *weight > 1e18) return -EINVAL;
  while (isspace((unsigned char)*last)) last++;
  return *last ? -EINVAL : 0;
}

static int read_lines(FILE *in, struct sizes *s, char *why, size_t why_bytes) {
  char line[256];
  double all = 0;
  for (uint32_t number = 1; fgets(line, sizeof(line), in); number++) {
    const char *at = line;
    uint64_t bytes;
    double weight;
    line[strcspn(line, "#\n")] = 0;
    while (isspace((unsigned char)*at)) at++;
    if (!*at) continue;
    if (s->count == SIZES_LINES_MAX || parse_line(at, &bytes, &weight) < 0) {
      snprintf(why, why_bytes,
               "line %u: a size from 1 to 1G, and how often it comes up, is expected; at most %u "
               "lines",
               number, SIZES_LINES_MAX);
      return -EINVAL;
    }
    if (weight <= 0) continue;
    if (add(s, bytes, weight) < 0) return -ENOMEM;
    all += weight;
  }
  if (ferror(in)) return refuse(why, why_bytes, "it cannot be read");
  if (s->count == 0) return refuse(why, why_bytes, "it has no sizes");
  accumulate(s, all);
  return 0;
}

static int parse_file(const char *path, struct sizes *s, char *why, size_t why_bytes) {
  FILE *in = fopen(path, "re");
  if (!in) {
    snprintf(why, why_bytes, "%s", strerror(errno));
    return -EINVAL;
  }
  int r = read_lines(in, s, why, why_bytes);
  fclose(in);
  return r;
}

int sizes_parse(const char *text, struct sizes *s, char *why, size_t why_bytes) {
  *s = (struct sizes){0};
  if (why_bytes) why[0] = 0;
  if (strncmp(text, "fixed:", 6) == 0) return parse_fixed(text + 6, s);
  if (strncmp(text, "uniform:", 8) == 0) return parse_uniform(text + 8, s);
  if (strncmp(text, "lognormal:", 10) == 0) return parse_lognormal(text + 10, s);
  s->kind = SIZES_LIST;
  int r = isdigit((unsigned char)*text) ? parse_list(text, s, why, why_bytes)
                                        : parse_file(text, s, why, why_bytes);
  if (r < 0) sizes_finish(s);
  return r;
}

void sizes_finish(struct sizes *s) {
  free(s->entries);
  *s = (struct sizes){0};
}

/* ---- Sizes ----------------------------------------------------------------------------------- */

static uint64_t of_list(const struct sizes *s, double u) {
  uint32_t low = 0, high = s->count - 1;
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    if (u < s->entries[middle].until)
      high = middle;
    else
      low = middle + 1;
  }
  return s->entries[low].bytes;
}

/* Box and Muller. */
static uint64_t of_lognormal(const struct sizes *s, double u, double v) {
  double z = sqrt(-2 * log(1 - u)) * cos(6.283185307179586 * v);
  double bytes = s->median * exp(s->sigma * z);
  if (bytes < 1) return 1;
  return bytes < (double)s->max ? (uint64_t)bytes : s->max;
}

uint64_t sizes_of(const struct sizes *s, uint64_t number, uint64_t seed) {
  uint64_t state = bench_random_mix(number ^ bench_random_mix(seed + 1)) | 1;
  double u = bench_random_unit(&state);
  switch (s->kind) {
  case SIZES_UNIFORM:
    return s->min + (uint64_t)(u * (double)(s->max - s->min + 1));
  case SIZES_LOGNORMAL:
    return of_lognormal(s, u, bench_random_unit(&state));
  case SIZES_LIST:
    return of_list(s, u);
  default:
    return s->max;
  }
}

double sizes_mean(const struct sizes *s, uint64_t blobs, uint64_t seed, uint64_t unit) {
  double sum = 0;
  uint64_t n = blobs < SAMPLE ? blobs : SAMPLE;
  for (uint64_t i = 0; i < n; i++) sum += (double)((sizes_of(s, i, seed) + unit - 1) / unit * unit);
  return n ? sum / (double)n : 0;
}
