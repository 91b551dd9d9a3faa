/* bench_goal.c - see bench_goal.h. */
#include "tools/bench_goal.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

int goal_time(const char *text, uint64_t *ns) {
  static const struct {
    const char *unit;
    double ns;
  } units[] = {{"", 1e3}, {"us", 1e3}, {"usec", 1e3}, {"ms", 1e6}, {"msec", 1e6}, {"s", 1e9}};
  char *end;
  if (!isdigit((unsigned char)*text)) return -EINVAL;
  double v = strtod(text, &end);
  for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
    if (strcmp(end, units[i].unit) != 0) continue;
    v *= units[i].ns;
    if (!(v >= 1e3 && v <= 3600e9)) return -EINVAL;
    *ns = (uint64_t)v;
    return 0;
  }
  return -EINVAL;
}

/* ---- A depth ------------------------------------------------------------------------------- */

void depth_begin(struct depth_search *s, uint32_t max) {
  *s = (struct depth_search){.depth = 1, .bad = max + 1};
}

void depth_note(struct depth_search *s, bool good_enough) {
  s->failed |= !good_enough;
  if (good_enough)
    s->good = s->depth;
  else
    s->bad = s->depth;
  s->done = s->good + 1 >= s->bad;
  if (s->done) return;
  s->depth = s->failed ? (s->good + s->bad) / 2 : s->depth * 2;
  if (s->depth >= s->bad) s->depth = s->bad - 1;
}

/* ---- A steady state ------------------------------------------------------------------------ */

int steady_parse(const char *text, struct steady_spec *spec) {
  static const struct {
    const char *name;
    bool bandwidth, slope;
  } kinds[] = {{"iops:", false, false},
               {"iops_slope:", false, true},
               {"bw:", true, false},
               {"bw_slope:", true, true}};
  for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
    size_t n = strlen(kinds[i].name);
    char *end;
    if (strncmp(text, kinds[i].name, n) != 0) continue;
    if (!isdigit((unsigned char)text[n])) return -EINVAL;
    double v = strtod(text + n, &end);
    bool percent = *end == '%';
    if (!(v > 0 && v <= 1e15) || end[percent]) return -EINVAL;
    spec->bandwidth = kinds[i].bandwidth;
    spec->slope = kinds[i].slope;
    spec->percent = percent;
    spec->limit = v;
    return 0;
  }
  return -EINVAL;
}

uint64_t steady_interval_ns(const struct steady_spec *spec) {
  double s = spec->duration_s / STEADY_PARTS;
  if (s > 1) s = 1;
  if (s * STEADY_SAMPLES_MAX < spec->duration_s) s = spec->duration_s / STEADY_SAMPLES_MAX;
  return (uint64_t)(s * 1e9);
}

void steady_begin(struct steady *s, const struct steady_spec *spec) {
  *s = (struct steady){.spec = *spec};
  s->window = (uint32_t)(spec->duration_s * 1e9 / (double)steady_interval_ns(spec) + 0.5);
  if (s->window < 2) s->window = 2;
  if (s->window > STEADY_SAMPLES_MAX) s->window = STEADY_SAMPLES_MAX;
}

uint32_t steady_at(const struct steady *s, uint32_t i) {
  return s->count < s->window ? i : (s->next + i) % s->window;
}

double steady_mean(const struct steady *s, bool bandwidth) {
  double sum = 0;
  for (uint32_t i = 0; i < s->count; i++) sum += bandwidth ? s->bytes[i] : s->iops[i];
  return s->count ? sum / s->count : 0;
}

/* The line through all samples by least squares, and the one that is farthest from their mean. */
static void judge(struct steady *s) {
  const double *values = s->spec.bandwidth ? s->bytes : s->iops;
  double mean = steady_mean(s, s->spec.bandwidth), middle = (s->count - 1) / 2.0;
  double xy = 0, xx = 0;
  s->deviation = 0;
  for (uint32_t i = 0; i < s->count; i++) {
    double x = i - middle, y = values[steady_at(s, i)] - mean;
    xy += x * y;
    xx += x * x;
    if (fabs(y) > s->deviation) s->deviation = fabs(y);
  }
  s->slope = xx > 0 ? xy / xx / ((double)steady_interval_ns(&s->spec) / 1e9) : 0;
  s->criterion = s->spec.slope ? s->slope : s->deviation;
  if (s->spec.percent) s->criterion = mean > 0 ? 100 * s->criterion / mean : INFINITY;
  s->attained = fabs(s->criterion) < s->spec.limit;
}

bool steady_note(struct steady *s, double iops, double bytes_per_s) {
  s->iops[s->next] = iops;
  s->bytes[s->next] = bytes_per_s;
  s->next = (s->next + 1) % s->window;
  if (s->count < s->window) s->count++;
  if (s->count == s->window) judge(s);
  return s->attained;
}
