/* bench_report.c - the report: a table for people, JSON in fio's shape for programs. */
#include "tools/args.h"
#include "tools/bench_report.h"
#include "api/control/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const char *checksums(const struct bench_options *o) {
  if (o->engine == ENGINE_RAW) return "none";
  if (o->engine == ENGINE_VHOST) return "the server's own";
  if (o->engine == ENGINE_VOLUME) return o->integrity ? "off" : "of what is sealed";
  return bench_is_hollow(o) ? "off" : "on";
}

static double per_op(uint64_t cpu_ns, uint64_t ops) {
  return ops ? (double)cpu_ns / (double)ops : 0;
}

/* ---- JSON ------------------------------------------------------------------------------- */

void bench_add_latency(struct js *side, const char *key, const struct bench_options *o,
                       const struct latency *l, bool full) {
  struct js *n = js_add(side, key, js_object());
  js_count(n, "min", l->min_ns);
  js_count(n, "max", l->max_ns);
  js_real(n, "mean", latency_mean_ns(l));
  js_real(n, "stddev", latency_stddev_ns(l));
  js_count(n, "N", l->count);
  if (!full || l->count == 0) return;
  struct js *p = js_add(n, "percentile", js_object());
  for (uint32_t i = 0; i < o->percent_count; i++) {
    char name[16];
    snprintf(name, sizeof(name), "%f", o->percents[i]);
    js_count(p, name, latency_percentile_ns(l, o->percents[i]));
  }
  struct js *bins = js_add(n, "bins", js_object()); /* as fio's json+ has them */
  for (uint32_t i = 0; i < LATENCY_BUCKETS; i++) {
    char name[24];
    if (!l->buckets[i]) continue;
    snprintf(name, sizeof(name), "%llu", (unsigned long long)latency_upper_end_ns(i));
    js_count(bins, name, l->buckets[i]);
  }
}

/* Rates and percentiles by intervals. What is left over at the end, less than half of one, is none.
 */
static void add_series(struct js *job, const struct series *s, uint64_t elapsed_ns) {
  static const char *const names[] = {"iops", "p50_ns", "p99_ns", "max_ns"};
  struct js *columns[4], *n;
  uint64_t whole = (elapsed_ns + s->interval_ns / 2) / (s->interval_ns ? s->interval_ns : 1);
  if (s->count == 0) return;
  n = js_add(job, "series", js_object());
  js_count(n, "interval_ms", s->interval_ns / 1000000);
  for (int i = 0; i < 4; i++) columns[i] = js_add(n, names[i], js_array());
  for (uint32_t i = 0; i < s->count && (i < whole || i == 0); i++) {
    const struct series_slot *slot = &s->slots[i];
    uint64_t ns = elapsed_ns - i * s->interval_ns; /* the last one may be shorter, or go on */
    if (i + 1 < s->count && ns > s->interval_ns) ns = s->interval_ns;
    js_real(columns[0], NULL, (double)slot->ops * 1e9 / (double)ns);
    js_count(columns[1], NULL, series_percentile_ns(slot, 50));
    js_count(columns[2], NULL, series_percentile_ns(slot, 99));
    js_count(columns[3], NULL, slot->max_ns);
  }
}

/* Of a mixed load the writes stand apart; else all requests have one direction. */
static void add_side(struct js *job, const char *name, const struct bench_options *o,
                     const struct bench_result *r) {
  static const struct latency none;
  bool mine = strcmp(name, r->direction) == 0, write = strcmp(name, "write") == 0;
  uint64_t ops = mine ? r->ops - r->write_ops : write ? r->write_ops : 0;
  double share = r->ops ? (double)ops / (double)r->ops : 0;
  double per_s = r->elapsed_ns ? 1e9 / (double)r->elapsed_ns : 0;
  uint64_t bytes = (uint64_t)(share * (double)r->bytes);
  if (r->write_bytes) /* of several sizes: as it came */
    bytes = mine ? r->bytes - r->write_bytes : write ? r->write_bytes : 0;
  if (r->script && (mine || write)) bench_sum_side(r, mine ? SIDE_READ : SIDE_WRITE, &ops, &bytes);
  const struct latency *latency = mine ? &r->latency : write ? &r->write_latency : &none;
  struct js *side = js_add(job, name, js_object());
  js_count(side, "io_bytes", bytes);
  js_count(side, "io_kbytes", bytes >> 10);
  js_count(side, "bw_bytes", (uint64_t)((double)bytes * per_s));
  js_count(side, "bw", (uint64_t)((double)bytes * per_s / 1024));
  js_real(side, "iops", (double)ops * per_s);
  js_count(side, "runtime", ops ? r->elapsed_ns / 1000000 : 0);
  js_count(side, "total_ios", ops);
  /* fio's words: clat from when it was sent, lat from when it was to be sent. */
  const struct latency *service = mine ? &r->service : write ? &r->write_service : &none;
  bool open_load = service->count > 0;
  bench_add_latency(side, "clat_ns", o, open_load ? service : latency, true);
  bench_add_latency(side, "lat_ns", o, latency, open_load);
  bench_add_fio_side(side, o, r, ops, bytes);
}

static void add_word(struct js *to, const char *key, const char *choices, int index) {
  char word[32];
  js_text(to, key, args_choice(choices, index, word, sizeof(word)));
}

static void add_options(struct js *to, const struct bench_options *o) {
  js_text(to, "store", o->where_text);
  js_text(to, "rw", o->rw == RW_SPECIAL ? bench_load_name(o) : bench_rw_name(o->rw));
  js_count(to, "bs", o->block_bytes);
  js_count(to, "blob-size", o->blob_bytes);
  js_count(to, "blobs", o->blobs);
  js_count(to, "iodepth", o->iodepth);
  js_count(to, "batch", o->batch);
  bench_add_fio_options(to, o);
  js_count(to, "numjobs", o->numjobs);
  js_real(to, "runtime", o->runtime_s);
  if (o->ramp_s > 0) js_real(to, "ramp_time", o->ramp_s);
  add_word(to, "where", "core|client", o->where);
  add_word(to, "device", "uring|pool|mem|null", o->device);
  add_word(to, "engine", "store|raw|volume|vhost", o->engine);
  add_word(to, "prealloc", "default|full|sparse|unwritten", o->prealloc);
  if (o->rate) js_count(to, "rate_iops", o->rate);
  if (o->rate) add_word(to, "rate_process", "linear|poisson", o->rate_process);
  bench_add_more_options(to, o);
  if (o->distribution_text) js_text(to, "random_distribution", o->distribution_text);
  js_count(to, "lat-sample", o->sample);
  js_count(to, "seed", o->seed);
  js_bool(to, "verify", o->verify);
  if (o->engine != ENGINE_VOLUME) return;
  js_count(to, "volume-size", o->volume_bytes);
  js_count(to, "volumes", o->volumes);
  js_count(to, "clones", o->clones);
  js_count(to, "chain", o->chain);
  js_count(to, "stripe", o->stripe_bytes);
  js_bool(to, "reserve", o->reserve);
  js_bool(to, "first-writes", o->first_writes);
  if (o->rw == RW_RANDRW) js_count(to, "rwmixread", o->mix_read);
}

/* fio has all four sides of each job. */
static void add_sides(struct js *job, const struct bench_options *o, const struct bench_result *r) {
  add_side(job, "read", o, r);
  add_side(job, "write", o, r);
  add_side(job, "trim", o, r);
  bench_add_more(job, o, r);
  if (!js_member(job, "sync")) add_side(job, "sync", o, r);
}

static void add_job(struct js *jobs, const struct bench *b, const struct bench_result *r) {
  const struct bench_options *o = &b->o;
  struct js *job = js_add(jobs, NULL, js_object());
  js_text(job, "jobname", o->name ? o->name : bench_load_name(o));
  js_count(job, "error", (uint64_t)-r->error);
  js_count(job, "total_err", r->errors);
  if (b->interrupted) js_text(job, "interrupted", b->interrupted);
  js_count(job, "flushes_for_room", r->flushes);
  if (o->rate) js_count(job, "due_but_unsent", r->unsent);
  if (o->engine == ENGINE_VOLUME && !r->script)
    js_real(job, "device_ios_per_op", r->ops ? (double)r->device_ios / (double)r->ops : 0);
  js_count(job, "elapsed", r->elapsed_ns / 1000000000);
  add_options(js_add(job, "job options", js_object()), o);
  add_sides(job, o, r);
  add_series(job, &r->series, r->elapsed_ns);
  bench_add_fio_job(job, o, r);
}

/* One of all, or one of each. */
static void add_jobs(struct js *root, const struct bench *b, const struct bench_result *r) {
  struct js *jobs = js_add(root, "jobs", js_array());
  if (r->part_count == 0) add_job(jobs, b, r);
  for (uint32_t i = 0; i < r->part_count; i++) {
    r->parts[i].usage = r->usage; /* of the process: it is not known by threads */
    r->parts[i].latency_depth = r->latency_depth;
    add_job(jobs, b, &r->parts[i]);
  }
}

void bench_add_ratio(struct js *to, const char *key, const double *values, uint32_t count) {
  struct ratio r;
  ratio_of(&r, values, count);
  struct js *n = js_add(to, key, js_object());
  js_real(n, "median", r.median);
  js_real(n, "min", r.min);
  js_real(n, "max", r.max);
  js_count(n, "pairs", r.count);
  if (!(r.mean > 0)) return;
  n = js_add(n, "confidence", js_object());
  js_count(n, "percent", 95);
  js_real(n, "geometric_mean", r.mean);
  js_real(n, "low", r.low);
  js_real(n, "high", r.high);
  js_bool(n, "wide", r.wide);
}

static void add_control(struct js *root, const struct bench_result *r) {
  if (r->pairs == 0) return;
  struct js *c = js_add(root, "control", js_object());
  bench_add_ratio(c, "ratio", r->ratio, r->pairs);
  bench_add_ratio(c, "cpu_ratio", r->cpu_ratio, r->pairs);
  bench_add_ratio(c, "store_iops", r->own_iops, r->pairs);
  bench_add_ratio(c, "raw_iops", r->raw_iops, r->pairs);
  js_text(c, "raw_flags", r->raw_flags);
  js_text(c, "raw_files", r->raw_note);
}

static void add_vhost(struct js *root, const struct bench_options *o,
                      const struct bench_result *r) {
  const struct bench_vhost_figures *v = &r->vhost;
  if (o->engine != ENGINE_VHOST) return;
  struct js *n = js_add(root, "vhost", js_object());
  js_count(n, "queues", o->numjobs);
  js_count(n, "queue_size", v->queue_size);
  js_count(n, "disk_bytes", v->disk_bytes);
  js_count(n, "features", v->features);
  js_count(n, "protocol_features", v->protocol);
  js_count(n, "kicks", v->kicks);
  js_count(n, "calls", v->calls);
  js_count(n, "sleeps", v->sleeps);
  js_count(n, "reconnects", v->reconnects);
  js_count(n, "others", v->others);
  js_count(n, "checked", v->checked);
}

static void add_environment(struct js *root, const struct bench *b,
                            const struct bench_environment *e) {
  struct js *n = js_add(root, "environment", js_object());
  js_text(n, "kernel", e->kernel);
  js_text(n, "cpu_model", e->cpu_model);
  js_count(n, "cpus", e->cpus);
  js_text(n, "device", e->device);
  js_text(n, "file_system", e->file_system);
  js_text(n, "scheduler", e->scheduler);
  js_text(n, "write_cache", e->write_cache);
  js_text(n, "fua", e->fua);
  js_text(n, "engine", e->engine);
  js_text(n, "why_engine", e->why_engine);
  js_text(n, "ring_flags", e->ring_flags);
  js_bool(n, "buffers_registered", e->buffers_registered);
  js_bool(n, "files_registered", e->files_registered);
  js_count(n, "io_workers", e->io_workers);
  js_count(n, "device_submits", e->device_submits);
  js_count(n, "device_ios", e->device_ios);
  js_count(n, "shards", b->shards);
  js_count(n, "cores", b->cores);
  js_text(n, "checksums", checksums(&b->o));
}

static int write_json(FILE *out, const struct bench *b, const struct bench_result *r,
                      const struct bench_environment *e) {
  struct js *root = js_object();
  bench_add_fio_root(root);
  add_jobs(root, b, r);
  js_real(root, "cpu_ns_per_op", per_op(r->cpu_ns_process, r->ops));
  js_real(root, "cpu_ns_per_op_cores", per_op(r->cpu_ns_cores, r->ops));
  add_control(root, r);
  add_vhost(root, &b->o, r);
  add_environment(root, b, e);
  int rc = js_write(root, out);
  js_free(root);
  return rc;
}

/* ---- The table ------------------------------------------------------------------------------ */

const char *bench_human_bytes(double v, char *buf, size_t bytes) {
  static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  int u = 0;
  while (u < 4 && v >= 1024) v /= 1024, u++;
  snprintf(buf, bytes, v >= 100 || u == 0 ? "%.0f %s" : "%.1f %s", v, units[u]);
  return buf;
}

const char *bench_human_count(double v, char *buf, size_t bytes) {
  if (v >= 1e6)
    snprintf(buf, bytes, "%.3f million", v / 1e6);
  else if (v >= 1e4)
    snprintf(buf, bytes, "%.1f thousand", v / 1e3);
  else
    snprintf(buf, bytes, v >= 100 ? "%.0f" : "%.1f", v);
  return buf;
}

const char *bench_human_ns(double v, char *buf, size_t bytes) {
  if (v >= 1e9)
    snprintf(buf, bytes, "%.2f s", v / 1e9);
  else if (v >= 1e6)
    snprintf(buf, bytes, "%.2f ms", v / 1e6);
  else if (v >= 1e3)
    snprintf(buf, bytes, "%.1f us", v / 1e3);
  else
    snprintf(buf, bytes, "%.0f ns", v);
  return buf;
}

/* Percentiles that were asked for, else the usual ones. */
void bench_print_percentiles(FILE *out, const struct bench_options *o, const struct latency *l) {
  static const double usual[] = {50, 99, 99.9};
  const double *percents = o->percentile_text ? o->percents : usual;
  uint32_t count = o->percentile_text ? o->percent_count : 3;
  char text[32];
  for (uint32_t i = 0; i < count; i++)
    fprintf(out, ", %g %% %s", percents[i],
            bench_human_ns((double)latency_percentile_ns(l, percents[i]), text, 32));
}

static void print_latency(FILE *out, const struct bench_options *o, const char *title,
                          const struct latency *l) {
  char a[32], b[32];
  if (l->count == 0) return;
  fprintf(out, "  %-14s mean %s", title, bench_human_ns(latency_mean_ns(l), a, 32));
  bench_print_percentiles(out, o, l);
  fprintf(out, ", most %s\n", bench_human_ns((double)l->max_ns, b, 32));
  bool every = o->rw == RW_FLUSH || o->rw == RW_OPEN || o->sample == 1;
  if (every)
    fprintf(out, "  %-14s every request was timed (%llu)\n", "", (unsigned long long)l->count);
  else
    fprintf(out, "  %-14s of one request in %llu (%llu timed)\n", "", (unsigned long long)o->sample,
            (unsigned long long)l->count);
}

/* Of an open load. */
static void print_open(FILE *out, const struct bench_options *o, const struct bench_result *r) {
  char a[32], b[32];
  fprintf(out, "  %-14s %s/s asked for%s, sent when due%s\n", "",
          bench_human_count((double)(o->rate * o->numjobs), a, 32),
          o->numjobs > 1 ? " by all jobs" : "", o->rate_process == 1 ? " (Poisson)" : "");
  if (r->unsent)
    fprintf(out,
            "  %-14s %llu requests were due that nobody had time for: the rate was not reached\n",
            "", (unsigned long long)r->unsent);
  fprintf(out, "  %-14s mean %s, 99.9 %% %s: from when a request was sent\n", "service time",
          bench_human_ns(latency_mean_ns(&r->service), a, 32),
          bench_human_ns((double)latency_percentile_ns(&r->service, 99.9), b, 32));
}

void bench_print_confidence(FILE *out, const struct ratio *r) {
  if (!(r->mean > 0)) return;
  fprintf(out, "  %-14s 95 %% confidence %.3f to %.3f around %.3f (geometric mean)%s\n", "", r->low,
          r->high, r->mean,
          r->low > 1    ? ": above 1"
          : r->high < 1 ? ": below 1"
                        : ": no difference can be told from chance");
  if (r->wide)
    fprintf(out, "  %-14s that is wide: measure for longer, or with nothing else running\n", "");
}

static void print_control(FILE *out, const struct bench_result *r) {
  char a[32], b[32];
  struct ratio ratio, cpu, own, raw;
  if (r->pairs == 0) return;
  ratio_of(&ratio, r->ratio, r->pairs);
  ratio_of(&cpu, r->cpu_ratio, r->pairs);
  ratio_of(&own, r->own_iops, r->pairs);
  ratio_of(&raw, r->raw_iops, r->pairs);
  fprintf(out, "  %-14s %.3f of the raw loop (median of %u pairs; %.3f to %.3f)\n", "ratio",
          ratio.median, r->pairs, ratio.min, ratio.max);
  bench_print_confidence(out, &ratio);
  fprintf(out, "  %-14s %.3f by processor time on the cores (%.3f to %.3f)\n", "", cpu.median,
          cpu.min, cpu.max);
  fprintf(out, "  %-14s store %s/s, raw %s/s (medians); raw: %s\n", "",
          bench_human_count(own.median, a, 32), bench_human_count(raw.median, b, 32), r->raw_note);
}

static void print_volumes(FILE *out, const struct bench *b) {
  const struct bench_options *o = &b->o;
  char size[32];
  if (o->clones)
    fprintf(out, ", %llu clone%s of", (unsigned long long)o->clones, o->clones == 1 ? "" : "s");
  else
    fputs(",", out);
  fprintf(out, " %llu volume%s of %s", (unsigned long long)o->volumes, o->volumes == 1 ? "" : "s",
          bench_human_bytes((double)o->volume_bytes, size, 32));
  if (o->stripe_bytes)
    fprintf(out, " striped by %s", bench_human_bytes((double)o->stripe_bytes, size, 32));
  if (o->chain)
    fprintf(out, ", data %llu snapshot%s below%s", (unsigned long long)o->chain,
            o->chain == 1 ? "" : "s", o->integrity ? ", checksums off" : "");
  fprintf(out, ", %u shard%s on %u core%s, depth %llu, batch %llu, %s\n", b->shards,
          b->shards == 1 ? "" : "s", b->cores, b->cores == 1 ? "" : "s",
          (unsigned long long)o->iodepth, (unsigned long long)o->batch,
          o->where == WHERE_CORE ? "load on the cores" : "load from client threads");
}

static void print_vhost(FILE *out, const struct bench_result *r) {
  const struct bench_vhost_figures *v = &r->vhost;
  double ops = r->ops ? (double)r->ops : 1;
  fprintf(out, "  %-14s %.4f kicks and %.4f calls an operation, %llu sleeps\n", "notifications",
          (double)v->kicks / ops, (double)v->calls / ops, (unsigned long long)v->sleeps);
  if (v->checked)
    fprintf(out, "  %-14s %llu requests; %llu zeroes, discards and flushes\n", "compared",
            (unsigned long long)v->checked, (unsigned long long)v->others);
  if (v->reconnects)
    fprintf(out, "  %-14s %llu times\n", "reconnected", (unsigned long long)v->reconnects);
}

static void print_head(FILE *out, const struct bench *b, const struct bench_environment *e) {
  const struct bench_options *o = &b->o;
  char size[32], blob[32];
  if (o->name) fprintf(out, "%s: ", o->name);
  fputs(bench_load_name(o), out);
  if (bench_request_bytes(o))
    fprintf(out, "  %s%s requests",
            o->sizes.kind || o->fio.split.count || o->workload == WORK_LAMBDA ? "up to " : "",
            bench_human_bytes((double)bench_request_bytes(o), size, 32));
  if (o->engine == ENGINE_RAW)
    fprintf(out, ", raw io_uring loop, depth %llu, batch %llu\n", (unsigned long long)o->iodepth,
            (unsigned long long)o->batch);
  else if (o->engine == ENGINE_VOLUME)
    print_volumes(out, b);
  else if (o->engine == ENGINE_VHOST)
    fprintf(out, ", vhost-user-blk, %llu queue%s, depth %llu, batch %llu\n",
            (unsigned long long)o->numjobs, o->numjobs == 1 ? "" : "s",
            (unsigned long long)o->iodepth, (unsigned long long)o->batch);
  else
    fprintf(out, ", %llu blobs of %s, %u shard%s on %u core%s, depth %llu, batch %llu, %s\n",
            (unsigned long long)o->blobs,
            o->sizes_text ? o->sizes_text : bench_human_bytes((double)o->blob_bytes, blob, 32),
            b->shards, b->shards == 1 ? "" : "s", b->cores, b->cores == 1 ? "" : "s",
            (unsigned long long)o->iodepth, (unsigned long long)o->batch,
            o->where == WHERE_CORE ? "load on the cores" : "load from client threads");
  fprintf(out, "  %-14s %s%s%s%s\n", o->engine == ENGINE_VHOST ? "socket" : "store", o->where_text,
          e->device[0] ? " on " : "", e->device,
          e->fallback ? " (another engine than asked for)" : "");
  if (e->engine[0]) fprintf(out, "  %-14s %s (%s)\n", "engine", e->engine, e->why_engine);
  if (o->reserve)
    fprintf(out, "  %-14s reserved: no data of %s is on disk%s\n", "volumes",
            o->clones ? "their bases" : "theirs",
            bench_is_read(o->rw) ? "; reads of an unwritten file do no device I/O" : "");
  else if (o->prealloc == PREALLOC_UNWRITTEN)
    fprintf(out, "  %-14s reserved, not written: reads do no device I/O; checksums off\n", "blobs");
  else if (o->device == DEVICE_NULL)
    fprintf(out, "  %-14s the null engine moves no data; checksums off\n", "blobs");
}

static void print_table(FILE *out, const struct bench *b, const struct bench_result *r,
                        const struct bench_environment *e) {
  const struct bench_options *o = &b->o;
  char x[32], y[32];
  print_head(out, b, e);
  if (b->interrupted) fprintf(out, "  %-14s by %s before its end\n", "interrupted", b->interrupted);
  fprintf(out, "  %-14s %s/s", "rate", bench_human_count(r->iops, x, 32));
  if (r->bytes) fprintf(out, ", %s/s", bench_human_bytes(r->bytes_per_s, y, 32));
  fprintf(out, " (%llu in %.2f s)\n", (unsigned long long)r->ops, (double)r->elapsed_ns / 1e9);
  if (o->rate) print_open(out, o, r);
  if (!r->script) {
    print_latency(out, o, o->rate ? "response time" : "latency", &r->latency);
    print_latency(out, o, "of writes", &r->write_latency);
  }
  fprintf(out, "  %-14s %s an operation in all", "processor",
          bench_human_ns(per_op(r->cpu_ns_process, r->ops), x, 32));
  if (r->cpu_ns_cores)
    fprintf(out,
            o->engine == ENGINE_VHOST ? " here, %s by the server" : ", %s of them on the cores",
            bench_human_ns(per_op(r->cpu_ns_cores, r->ops), y, 32));
  fputc('\n', out);
  print_control(out, r);
  if (o->engine == ENGINE_VHOST) print_vhost(out, r);
  if (o->engine == ENGINE_VOLUME && r->ops && !r->script)
    fprintf(out, "  %-14s %.4f an operation (%llu; flushes not counted)\n",
            o->first_writes ? "device writes" : "device I/Os",
            (double)r->device_ios / (double)r->ops, (unsigned long long)r->device_ios);
  bench_print_more(out, o, r);
  bench_print_fio(out, o, r);
  if (r->flushes)
    fprintf(out, "  %-14s %llu, to make room for overwriting\n", "flushes",
            (unsigned long long)r->flushes);
  if (b->populated)
    fprintf(out, "  %-14s %llu %s beforehand, in %.2f s\n", "filled",
            (unsigned long long)b->populated,
            o->engine == ENGINE_VOLUME ? "volumes were written" : "blobs were put", b->populate_s);
  fprintf(out, "  %-14s %llu%s\n", "errors", (unsigned long long)r->errors,
          !o->verify || r->errors                     ? ""
          : b->interrupted && bench_is_write(b->o.rw) ? ", not read back"
                                                      : ", all data as written");
}

int bench_report(const struct bench *b, const struct bench_result *result,
                 const struct bench_environment *e) {
  FILE *out = b->o.output ? fopen(b->o.output, "we") : stdout;
  if (!out) return bench_fail(b->o.output, -errno);
  int r = 0;
  if (b->o.format == 1)
    r = write_json(out, b, result, e);
  else
    print_table(out, b, result, e);
  if (fflush(out) == EOF && r == 0) r = -errno;
  if (out != stdout && fclose(out) == EOF && r == 0) r = -errno;
  return r < 0 ? bench_fail(b->o.output ? b->o.output : "output", r) : 0;
}
