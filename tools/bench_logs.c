/* bench_logs.c - what a run leaves in files besides its report: --write_lat_log and
 * --write_hist_log. */
#include "tools/bench.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static int open_log(const char *prefix, const char *end, char path[4200], FILE **out) {
  snprintf(path, 4200, "%s%s", prefix, end);
  *out = fopen(path, "we");
  return *out ? 0 : bench_fail(path, -errno);
}

static int close_log(const char *path, FILE *out) {
  int r = ferror(out) ? -EIO : 0;
  if (fclose(out) == EOF && r == 0) r = -errno;
  return r < 0 ? bench_fail(path, r) : 0;
}

/* fio's latency log with log_avg_msec: time in ms, mean latency of the interval in ns, direction
 * (0 read, 1 write, 2 trim), bytes, offset (0). Intervals in which nothing was timed have no
 * line. */
static int write_latencies(const char *prefix, const struct bench *b,
                           const struct bench_result *r) {
  char path[4200];
  FILE *out;
  int e = open_log(prefix, "_lat.1.log", path, &out);
  if (e < 0) return e;
  int direction = strcmp(r->direction, "write") == 0  ? 1
                  : strcmp(r->direction, "trim") == 0 ? 2
                                                      : 0;
  for (uint32_t i = 0; i < r->series.count; i++) {
    const struct series_slot *s = &r->series.slots[i];
    if (!s->timed) continue;
    fprintf(out, "%llu, %llu, %d, %llu, 0\n",
            (unsigned long long)((i + 1) * r->series.interval_ns / 1000000),
            (unsigned long long)(s->sum_ns / s->timed), direction,
            (unsigned long long)bench_request_bytes(&b->o));
  }
  return close_log(path, out);
}

/* HdrHistogram's percentile distribution, in milliseconds: each bucket that has something. */
static int write_histogram(const char *prefix, const struct latency *l) {
  char path[4200];
  FILE *out;
  uint64_t seen = 0, buckets = 0;
  int e = open_log(prefix, ".hgrm", path, &out);
  if (e < 0) return e;
  fprintf(out, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
  for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
    if (!l->buckets[i]) continue;
    seen += l->buckets[i];
    buckets++;
    uint64_t ns = latency_upper_end_ns(i) < l->max_ns ? latency_upper_end_ns(i) : l->max_ns;
    double share = (double)seen / (double)l->count;
    fprintf(out, "%12.6f %2.12f %10llu", (double)ns / 1e6, share, (unsigned long long)seen);
    fprintf(out, seen < l->count ? " %14.2f\n" : "\n", 1 / (1 - share));
  }
  fprintf(out, "#[Mean    = %12.6f, StdDeviation   = %12.6f]\n", latency_mean_ns(l) / 1e6,
          latency_stddev_ns(l) / 1e6);
  fprintf(out, "#[Max     = %12.6f, Total count    = %12llu]\n", (double)l->max_ns / 1e6,
          (unsigned long long)l->count);
  fprintf(out, "#[Buckets = %12llu, SubBuckets     = %12u]\n", (unsigned long long)buckets,
          1u << LATENCY_SUB_BITS);
  return close_log(path, out);
}

int bench_write_logs(const struct bench *b, const struct bench_result *r) {
  int e = 0;
  if (b->o.latency_log) e = write_latencies(b->o.latency_log, b, r);
  if (e == 0 && b->o.histogram_log) e = write_histogram(b->o.histogram_log, &r->latency);
  return e;
}
