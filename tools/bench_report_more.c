/* bench_report_more.c - what --workload, --remote and --flush-every add to a report. Main thread.
 */
#include "tools/bench_report.h"

#include <string.h>

#include "api/control/json.h"
#include "tools/args.h"

void bench_sum_side(const struct bench_result *r, enum bench_side side, uint64_t *ops,
                    uint64_t *bytes) {
  *ops = *bytes = 0;
  for (uint32_t i = 0; i < BENCH_CLASSES_MAX && r->script->classes[i].name; i++) {
    if (r->script->classes[i].side != side) continue;
    *ops += r->classes[i].ops;
    *bytes += r->classes[i].bytes;
  }
}

static double remote_percent(const struct bench_result *r) {
  return r->ops ? 100 * (double)r->remote_ops / (double)r->ops : 0;
}

static double per_second(const struct bench_result *r, uint64_t n) {
  return r->elapsed_ns ? (double)n * 1e9 / (double)r->elapsed_ns : 0;
}

/* ---- JSON ------------------------------------------------------------------------------------ */

static void make_key(const char *name, char *key, size_t bytes) {
  size_t n = strlen(name);
  if (n >= bytes) n = bytes - 1;
  for (size_t i = 0; i < n; i++)
    key[i] =
        (name[i] >= 'a' && name[i] <= 'z') || (name[i] >= '0' && name[i] <= '9') ? name[i] : '_';
  key[n] = 0;
}

static void add_classes(struct js *work, const struct bench_options *o,
                        const struct bench_result *r) {
  struct js *all = js_add(work, "classes", js_object());
  for (uint32_t i = 0; i < BENCH_CLASSES_MAX && r->script->classes[i].name; i++) {
    const struct bench_class *c = &r->classes[i];
    char key[64];
    if (c->ops == 0) continue;
    make_key(r->script->classes[i].name, key, sizeof(key));
    struct js *n = js_add(all, key, js_object());
    js_count(n, "ops", c->ops);
    js_count(n, "bytes", c->bytes);
    js_real(n, "ops_per_s", per_second(r, c->ops));
    js_real(n, "bytes_per_s", per_second(r, c->bytes));
    if (c->service.count) bench_add_latency(n, "clat_ns", o, &c->service, true);
    bench_add_latency(n, "lat_ns", o, &c->latency, true);
  }
}

static void add_workload(struct js *job, const struct bench_options *o,
                         const struct bench_result *r) {
  struct js *work = js_add(job, "workload", js_object());
  js_text(work, "name", bench_workload_name(o->workload));
  js_count(work, "ops", r->ops);
  js_real(work, "ops_per_s", r->iops);
  js_real(work, "bytes_per_s", r->bytes_per_s);
  if (r->script && r->classes) add_classes(work, o, r);
  for (uint32_t i = 0; i < r->figures.count; i++) bench_add_figure(work, &r->figures.figures[i]);
}

void bench_add_more(struct js *job, const struct bench_options *o, const struct bench_result *r) {
  if (o->remote_given) js_real(job, "remote_percent", remote_percent(r));
  if (bench_flushes(o)) {
    struct js *side = js_add(job, "sync", js_object());
    js_count(side, "total_ios", r->flush_latency.count);
    bench_add_latency(side, "lat_ns", o, &r->flush_latency, true);
  }
  if (o->workload != WORK_LOAD) add_workload(job, o, r);
}

void bench_add_more_options(struct js *to, const struct bench_options *o) {
  char word[32];
  if (o->workload != WORK_LOAD) js_text(to, "workload", bench_workload_name(o->workload));
  if (o->workload == WORK_KV)
    js_text(to, "ycsb", args_choice(YCSB_CHOICES, o->ycsb, word, sizeof(word)));
  if (o->workload == WORK_ANALYTICS) {
    js_count(to, "footer-size", o->scan.footer_bytes);
    js_count(to, "chunk-size-min", o->scan.chunk_min);
    js_count(to, "chunk-size-max", o->scan.chunk_max);
    js_count(to, "chunks", o->scan.chunks);
  }
  if (o->workload == WORK_LAMBDA) js_count(to, "boot-writes", o->boot_writes);
  if (o->sizes_text) js_text(to, "blob-size-dist", o->sizes_text);
  if (o->flush_text) js_text(to, "flush-every", o->flush_text);
  if (o->remote_given) js_count(to, "remote", o->remote);
}

/* ---- The table ------------------------------------------------------------------------------- */

static void print_latency(FILE *out, const struct bench_options *o, const struct latency *l) {
  char a[32];
  if (l->count == 0) return;
  fprintf(out, "mean %s", bench_human_ns(latency_mean_ns(l), a, 32));
  bench_print_percentiles(out, o, l);
  fprintf(out, ", most %s", bench_human_ns((double)l->max_ns, a, 32));
}

static void print_classes(FILE *out, const struct bench_options *o, const struct bench_result *r) {
  char a[32], b[32];
  for (uint32_t i = 0; i < BENCH_CLASSES_MAX && r->script->classes[i].name; i++) {
    const struct bench_class *c = &r->classes[i];
    if (c->ops == 0) continue;
    fprintf(out, "  %-18s %s/s", r->script->classes[i].name,
            bench_human_count(per_second(r, c->ops), a, 32));
    if (c->bytes) fprintf(out, ", %s/s", bench_human_bytes(per_second(r, c->bytes), b, 32));
    fprintf(out, " (%llu)\n", (unsigned long long)c->ops);
    if (c->latency.count == 0) continue;
    fprintf(out, "  %-18s ", "");
    print_latency(out, o, &c->latency);
    fputc('\n', out);
  }
}

void bench_print_more(FILE *out, const struct bench_options *o, const struct bench_result *r) {
  const struct latency *l = &r->flush_latency;
  if (r->script && r->classes) print_classes(out, o, r);
  if (o->remote_given)
    fprintf(out, "  %-14s %.1f %% of the %s went to other cores' shards\n", "remote",
            remote_percent(r), r->script ? "operations" : "requests");
  if (l->count > 0) {
    fprintf(out, "  %-14s %llu, ", "flushes", (unsigned long long)l->count);
    print_latency(out, o, l);
    fputc('\n', out);
  }
  for (uint32_t i = 0; i < r->figures.count; i++) bench_print_figure(out, &r->figures.figures[i]);
}
