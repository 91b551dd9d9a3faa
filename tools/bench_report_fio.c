/* bench_report_fio.c - what else fio's JSON has and its readers look for, and what options named as
 * in fio add to a report. Main thread.
 *
 * tests/tools/test_fio_json.sh compares our keys with those of an installed fio, and lists the few
 * that we leave out, with the reason for each. */
#include "tools/bench_report.h"

#include <math.h>
#include <string.h>
#include <time.h>

#include "api/control/json.h"

/* ---- A side ---------------------------------------------------------------------------------- */

struct samples {
  uint32_t count;
  double min, max, mean, deviation; /* requests a second, by intervals */
};

/* The last interval is not whole. */
static struct samples samples_of(const struct series *s) {
  struct samples m = {0};
  double squares = 0, seconds = (double)s->interval_ns / 1e9;
  m.count = s->count > 1 ? s->count - 1 : 0;
  for (uint32_t i = 0; i < m.count; i++) {
    double v = (double)s->slots[i].ops / seconds;
    if (i == 0 || v < m.min) m.min = v;
    if (v > m.max) m.max = v;
    m.mean += v / m.count;
    squares += v * v / m.count;
  }
  m.deviation = squares > m.mean * m.mean ? sqrt(squares - m.mean * m.mean) : 0;
  return m;
}

void bench_add_fio_side(struct js *side, const struct bench_options *o,
                        const struct bench_result *r, uint64_t ops, uint64_t bytes) {
  static const struct latency none;
  struct samples s = samples_of(&r->series);
  /* Intervals do not know which side a request was of: each side has its share of all. */
  double share = r->ops ? (double)ops / (double)r->ops : 0;
  double kib = ops ? (double)bytes / (double)ops / 1024 : 0;
  if (ops == 0) s = (struct samples){0};
  js_count(side, "short_ios", 0); /* would be errors */
  js_count(side, "drop_ios", 0);
  bench_add_latency(side, "slat_ns", o, &none, false); /* not timed apart from the rest */
  js_count(side, "bw_min", (uint64_t)(s.min * share * kib));
  js_count(side, "bw_max", (uint64_t)(s.max * share * kib));
  js_real(side, "bw_agg", 100 * share);
  js_real(side, "bw_mean", s.mean * share * kib);
  js_real(side, "bw_dev", s.deviation * share * kib);
  js_count(side, "bw_samples", s.count);
  js_count(side, "iops_min", (uint64_t)(s.min * share));
  js_count(side, "iops_max", (uint64_t)(s.max * share));
  js_real(side, "iops_mean", s.mean * share);
  js_real(side, "iops_stddev", s.deviation * share);
  js_count(side, "iops_samples", s.count);
}

/* ---- A job ----------------------------------------------------------------------------------- */

/* Percent of the requests with latencies above the bound before and up to this one. */
static void add_shares(struct js *job, const char *name, double unit_ns, bool beyond,
                       const struct latency *l) {
  static const uint32_t bounds[] = {2, 4, 10, 20, 50, 100, 250, 500, 750, 1000, 2000};
  struct js *n = js_add(job, name, js_object());
  uint32_t count = beyond ? 11 : 10, bucket = 0;
  /* What is below the first bound of a unit belongs to the unit before. */
  while (unit_ns > 1 && bucket < LATENCY_BUCKETS && (double)latency_upper_end_ns(bucket) < unit_ns)
    bucket++;
  for (uint32_t i = 0; i < count; i++) {
    uint64_t in = 0;
    char key[16];
    for (; bucket < LATENCY_BUCKETS && (double)latency_upper_end_ns(bucket) < bounds[i] * unit_ns;
         bucket++)
      in += l->buckets[bucket];
    snprintf(key, sizeof(key), "%u", bounds[i]);
    js_real(n, key, l->count ? 100 * (double)in / (double)l->count : 0);
  }
  if (!beyond) return;
  uint64_t in = 0;
  for (; bucket < LATENCY_BUCKETS; bucket++) in += l->buckets[bucket];
  js_real(n, ">=2000", l->count ? 100 * (double)in / (double)l->count : 0);
}

static void add_steady(struct js *job, const struct bench_options *o, const struct steady *s) {
  struct js *n = js_add(job, "steadystate", js_object()), *data, *iops, *bytes;
  char text[64];
  snprintf(text, sizeof(text), "%s%s:%f%s", s->spec.bandwidth ? "bw" : "iops",
           s->spec.slope ? "_slope" : "", s->spec.limit, s->spec.percent ? "%" : "");
  js_text(n, "ss", text);
  js_count(n, "duration", (uint64_t)ceil(o->fio.steady.duration_s));
  js_count(n, "attained", s->attained);
  snprintf(text, sizeof(text), "%f%s", isfinite(s->criterion) ? s->criterion : 0,
           s->spec.percent ? "%" : "");
  js_text(n, "criterion", text);
  js_real(n, "max_deviation", s->deviation);
  js_real(n, "slope", s->slope);
  data = js_add(n, "data", js_object());
  js_count(data, "bw_mean", (uint64_t)steady_mean(s, true));
  js_count(data, "iops_mean", (uint64_t)steady_mean(s, false));
  iops = js_add(data, "iops", js_array());
  bytes = js_add(data, "bw", js_array());
  for (uint32_t i = 0; i < s->count; i++) {
    js_count(iops, NULL, (uint64_t)s->iops[steady_at(s, i)]);
    js_count(bytes, NULL, (uint64_t)s->bytes[steady_at(s, i)]);
  }
}

void bench_add_fio_job(struct js *job, const struct bench_options *o,
                       const struct bench_result *r) {
  static struct latency all;
  const struct bench_usage *u = &r->usage;
  double percent = r->elapsed_ns ? 100 / (double)r->elapsed_ns : 0;
  js_count(job, "groupid", 0);
  js_count(job, "eta", 0);
  js_count(job, "job_runtime", r->elapsed_ns / 1000000);
  js_real(job, "usr_cpu", (double)u->user_ns * percent);
  js_real(job, "sys_cpu", (double)u->system_ns * percent);
  js_count(job, "ctx", u->switches);
  js_count(job, "majf", u->major_faults);
  js_count(job, "minf", u->minor_faults);
  memset(&all, 0, sizeof(all));
  latency_merge(&all, &r->latency);
  latency_merge(&all, &r->write_latency);
  add_shares(job, "latency_ns", 1, false, &all);
  add_shares(job, "latency_us", 1e3, false, &all);
  add_shares(job, "latency_ms", 1e6, true, &all);
  js_count(job, "latency_depth", r->latency_depth ? r->latency_depth : o->iodepth);
  js_count(job, "latency_target", o->fio.target_ns);
  js_real(job, "latency_percentile", o->fio.share > 0 ? o->fio.share : 100);
  js_count(job, "latency_window", o->fio.target_ns ? o->fio.window_ns / 1000 : 0);
  if (r->steady) add_steady(job, o, r->steady);
}

void bench_add_fio_root(struct js *root) {
  struct timespec now;
  char version[64], text[32];
  time_t s;
  clock_gettime(CLOCK_REALTIME, &now);
  s = now.tv_sec;
  snprintf(version, sizeof(version), "shard-bench %s", sr_version());
  js_text(root, "fio version", version); /* whose it is in fact */
  js_text(root, "version", version);
  js_count(root, "timestamp", (uint64_t)s);
  js_count(root, "timestamp_ms", (uint64_t)s * 1000 + (uint64_t)now.tv_nsec / 1000000);
  js_text(root, "time", strtok(ctime_r(&s, text), "\n"));
}

void bench_add_fio_options(struct js *to, const struct bench_options *o) {
  const struct fio_options *f = &o->fio;
  if (f->complete_given) js_count(to, "iodepth_batch_complete", f->complete);
  if (f->split_text) js_text(to, "bssplit", f->split_text);
  if (o->ops) js_count(to, "ops", o->ops);
  if (f->cpus_allowed) js_text(to, "cpus_allowed", f->cpus_allowed);
  if (f->fixed_buffers) js_bool(to, "fixedbufs", true);
  if (f->register_files) js_bool(to, "registerfiles", true);
  if (f->hipri) js_bool(to, "hipri", true);
  if (f->target_text) js_text(to, "latency_target", f->target_text);
  if (f->steady_text) js_text(to, "steadystate", f->steady_text);
  js_bool(to, "group_reporting", f->group_reporting);
}

/* ---- The table ------------------------------------------------------------------------------- */

static void print_steady(FILE *out, const struct steady *s) {
  char mean[32];
  if (s->count < s->window) {
    fprintf(out, "  %-14s not reached: the run ended before its window was full\n", "steady state");
    return;
  }
  bench_human_count(steady_mean(s, s->spec.bandwidth), mean, sizeof(mean));
  fprintf(out, "  %-14s %s: %.3g%s, limit %g%s; mean of the last %g s %s%s/s\n", "steady state",
          s->attained ? "reached" : "not reached", s->criterion, s->spec.percent ? " %" : "",
          s->spec.limit, s->spec.percent ? " %" : "", s->spec.duration_s, mean,
          s->spec.bandwidth ? " bytes" : "");
}

void bench_print_fio(FILE *out, const struct bench_options *o, const struct bench_result *r) {
  char a[32], b[32], c[32];
  if (r->latency_depth)
    fprintf(out, "  %-14s %u is the greatest up to %llu at which %g %% take at most %s\n", "depth",
            r->latency_depth, (unsigned long long)o->iodepth, o->fio.share,
            bench_human_ns((double)o->fio.target_ns, a, 32));
  if (r->steady) print_steady(out, r->steady);
  for (uint32_t i = 0; i < r->part_count; i++) {
    const struct bench_result *p = &r->parts[i];
    char name[32];
    snprintf(name, sizeof(name), "%s %u",
             o->engine == ENGINE_VHOST ? "queue"
             : o->where == WHERE_CORE  ? "core"
                                       : "job",
             i);
    fprintf(out, "  %-14s %s/s, %s/s", name, bench_human_count(p->iops, a, 32),
            bench_human_bytes(p->bytes_per_s, b, 32));
    if (p->latency.count)
      fprintf(out, ", mean %s, 99 %% %s", bench_human_ns(latency_mean_ns(&p->latency), a, 32),
              bench_human_ns((double)latency_percentile_ns(&p->latency, 99), c, 32));
    fputc('\n', out);
  }
}
