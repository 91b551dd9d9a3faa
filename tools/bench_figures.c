/* bench_figures.c - the report of a workload that is no load of requests: a row of figures, for
 * people or as JSON. Main thread. */
#include "tools/bench_report.h"
#include "api/control/json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

void bench_figure(struct bench_figures *f, const char *name, double value, const char *unit,
                  const char *note) {
  if (f->count == BENCH_FIGURES_MAX) return;
  struct bench_figure *n = &f->figures[f->count++];
  snprintf(n->name, sizeof(n->name), "%s", name);
  snprintf(n->note, sizeof(n->note), "%s", note ? note : "");
  n->value = value;
  n->unit = unit;
}

static void add_environment(struct js *root, const struct bench *b,
                            const struct bench_environment *e) {
  struct js *n = js_add(root, "environment", js_object());
  js_text(n, "kernel", e->kernel);
  js_text(n, "cpu_model", e->cpu_model);
  js_count(n, "cpus", e->cpus);
  js_text(n, "device", e->device);
  js_text(n, "engine", e->engine);
  js_count(n, "shards", b->shards);
  js_count(n, "cores", b->cores);
}

/* Keys are the names with '_' for what is no letter or digit, and the unit: "open_s". */
void bench_add_figure(struct js *to, const struct bench_figure *f) {
  char key[128];
  size_t n = 0;
  for (const char *c = f->name; *c && n < 100; c++, n++)
    key[n] = (*c >= 'a' && *c <= 'z') || (*c >= '0' && *c <= '9') ? *c : '_';
  snprintf(key + n, sizeof(key) - n, "%s%s", f->unit[0] ? "_" : "",
           strcmp(f->unit, "%") == 0 ? "percent" : f->unit);
  js_real(to, key, f->value);
}

static int write_json(FILE *out, const struct bench *b, const struct bench_figures *f, int error,
                      const struct bench_environment *e) {
  struct js *root = js_object();
  char version[64];
  snprintf(version, sizeof(version), "shard-bench %s", sr_version());
  js_text(root, "version", version);
  js_count(root, "timestamp", (uint64_t)time(NULL));
  js_text(root, "workload", bench_workload_name(b->o.workload));
  js_text(root, "store", b->o.where_text);
  js_count(root, "seed", b->o.seed);
  js_count(root, "error", (uint64_t)-error);
  if (b->interrupted) js_text(root, "interrupted", b->interrupted);
  struct js *figures = js_add(root, "figures", js_object());
  for (uint32_t i = 0; i < f->count; i++) bench_add_figure(figures, &f->figures[i]);
  add_environment(root, b, e);
  int r = js_write(root, out);
  js_free(root);
  return r;
}

void bench_print_figure(FILE *out, const struct bench_figure *f) {
  double v = f->value;
  bool whole = v == (double)(int64_t)v;
  fprintf(out, "  %-26s %.*f%s%s", f->name,
          whole      ? 0
          : v >= 100 ? 1
                     : 3,
          v, f->unit[0] ? " " : "", f->unit);
  fprintf(out, f->note[0] ? "  (%s)\n" : "%s\n", f->note);
}

static void print(FILE *out, const struct bench *b, const struct bench_figures *f,
                  const struct bench_environment *e) {
  fprintf(out, "%s\n  %-26s %s%s%s\n", bench_workload_name(b->o.workload), "store", b->o.where_text,
          e->device[0] ? " on " : "", e->device);
  if (b->interrupted) fprintf(out, "  %-26s by %s before its end\n", "interrupted", b->interrupted);
  for (uint32_t i = 0; i < f->count; i++) bench_print_figure(out, &f->figures[i]);
}

int bench_report_figures(const struct bench *b, const struct bench_figures *f, int error,
                         const struct bench_environment *e) {
  FILE *out = b->o.output ? fopen(b->o.output, "we") : stdout;
  if (!out) return bench_fail(b->o.output, -errno);
  int r = 0;
  if (b->o.format == 1)
    r = write_json(out, b, f, error, e);
  else
    print(out, b, f, e);
  if (fflush(out) == EOF && r == 0) r = -errno;
  if (out != stdout && fclose(out) == EOF && r == 0) r = -errno;
  return r < 0 ? bench_fail(b->o.output ? b->o.output : "output", r) : 0;
}
