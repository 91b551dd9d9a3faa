/* report_read.c - a result file into struct report_run. What it says is somebody else's word: each
 * value is looked for and checked, and what is not there stays 0. */
#include "tools/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "api/control/json.h"

static int refuse(const char *path, const char *why) {
  fprintf(stderr, "shard-bench: %s: %s\n", path, why);
  return -EINVAL;
}

static double real(const struct js *root, const char *path) {
  return js_number_of(js_find(root, path));
}

static void text(const struct js *root, const char *path, char *to, size_t bytes) {
  snprintf(to, bytes, "%s", js_text_of(js_find(root, path)));
}

/* ---- Curves ---------------------------------------------------------------------------------- */

static bool add_point(struct report_curve *c, double x, double y) {
  if (c->count == REPORT_POINTS_MAX) return false;
  if (!c->points) c->points = calloc(REPORT_POINTS_MAX, sizeof(*c->points));
  if (!c->points) return false;
  c->points[c->count++] = (struct report_point){x, y};
  return true;
}

/* A column of the series; an interval in which nothing was timed leaves a gap in latencies. */
static void read_column(const struct js *job, const char *name, double interval_s, bool gaps,
                        struct report_curve *c) {
  char path[64];
  snprintf(path, sizeof(path), "series/%s", name);
  const struct js *column = js_find(job, path);
  size_t n = js_is_array(column) ? js_size(column) : 0;
  for (size_t i = 0; i < n && i < REPORT_POINTS_MAX; i++) {
    snprintf(path, sizeof(path), "%zu", i);
    double y = real(column, path);
    if ((gaps && !(y > 0)) || y < 0) continue;
    add_point(c, ((double)i + 0.5) * interval_s, y);
  }
}

static int by_latency(const void *a, const void *b) {
  const struct report_point *x = a, *y = b;
  return x->x < y->x ? -1 : x->x > y->x;
}

/* First latency and number of each bin; then what share of the requests is slower. */
static int take_bin(void *arg, const char *key, const struct js *value) {
  double ns = strtod(key, NULL), count = js_number_of(value);
  if (ns >= 0 && ns < 1e18 && count > 0) add_point(arg, ns, count);
  return 0;
}

static void read_tail(const struct js *latency, struct report_curve *c) {
  double all = 0, seen = 0;
  js_each(js_find(latency, "bins"), take_bin, c);
  qsort(c->points, c->count, c->points ? sizeof(*c->points) : 1, by_latency);
  for (uint32_t i = 0; i < c->count; i++) all += c->points[i].y;
  for (uint32_t i = 0; i < c->count; i++) {
    double ns = c->points[i].x;
    seen += c->points[i].y;
    /* The slowest one stands for half a request that would be slower still. */
    double left = all - seen > 0.5 ? all - seen : 0.5;
    c->points[i] = (struct report_point){all / left, ns};
  }
}

/* Without bins the percentiles have to do. */
static int take_percentile(void *arg, const char *key, const struct js *value) {
  double share = strtod(key, NULL) / 100, ns = js_number_of(value);
  if (share >= 0 && share < 1 && ns > 0) add_point(arg, 1 / (1 - share), ns);
  return 0;
}

static const char *const sides[] = {"read", "write", "trim", "sync"};

/* ---- A run ----------------------------------------------------------------------------------- */

static const struct js *find_side(const struct js *job, struct report_run *run) {
  for (int i = 0; i < 4; i++) {
    const struct js *side = js_find(job, sides[i]);
    if (!js_is_object(side) || !(real(side, "total_ios") > 0)) continue;
    snprintf(run->side, sizeof(run->side), "%s", sides[i]);
    return side;
  }
  return NULL;
}

static void read_latency(const struct js *side, struct report_run *run) {
  const struct js *response = js_find(side, "lat_ns"), *l = js_find(side, "clat_ns");
  if (js_find(response, "percentile")) l = response;
  run->mean_ns = real(l, "mean");
  run->max_ns = real(l, "max");
  run->p50_ns = real(l, "percentile/50.000000");
  run->p99_ns = real(l, "percentile/99.000000");
  run->p999_ns = real(l, "percentile/99.900000");
  read_tail(l, &run->tail);
  if (run->tail.count == 0) js_each(js_find(l, "percentile"), take_percentile, &run->tail);
  qsort(run->tail.points, run->tail.count, run->tail.points ? sizeof(struct report_point) : 1,
        by_latency);
}

static void read_job(const struct js *place, const struct js *job, const struct js *side,
                     struct report_run *run) {
  for (int i = 0; i < 4; i++) { /* of a mixed load, reads and writes */
    const struct js *each = js_find(job, sides[i]);
    run->iops += real(each, "iops");
    run->bytes_per_s += real(each, "bw_bytes");
  }
  run->errors = real(job, "total_err") + real(job, "error");
  run->depth = real(job, "job options/iodepth");
  run->cores = real(place, "environment/cores");
  run->cpu_ns = real(place, "cpu_ns_per_op");
  run->cpu_cores_ns = real(place, "cpu_ns_per_op_cores");
  run->ratio = real(place, "control/ratio/median");
  run->interval_s = real(job, "series/interval_ms") / 1000;
  read_latency(side, run);
  if (!(run->interval_s > 0)) return;
  read_column(job, "iops", run->interval_s, false, &run->rate);
  read_column(job, "p50_ns", run->interval_s, true, &run->p50);
  read_column(job, "p99_ns", run->interval_s, true, &run->p99);
}

static void name_run(const char *path, const struct js *job, struct report_run *run) {
  const char *slash = strrchr(path, '/');
  char name[64];
  text(job, "jobname", name, sizeof(name));
  snprintf(run->label, sizeof(run->label), "%.60s: %.30s", slash ? slash + 1 : path, name);
}

/* What is known of the place: of the job, or of the whole file. */
static const struct js *place_of(const struct js *root, const struct js *job) {
  return js_is_object(js_find(job, "environment")) ? job : root;
}

static int read_one(const char *path, const struct js *root, const struct js *job,
                    struct report_run *run) {
  const struct js *place = place_of(root, job);
  *run = (struct report_run){.label = ""};
  const struct js *side = js_is_object(job) ? find_side(job, run) : NULL;
  if (!js_is_object(job))
    return refuse(path, "it is JSON, but no result: there is no jobs/0; make one with "
                        "--output-format=json");
  if (!side) return refuse(path, "a job has no requests: nothing to report");
  name_run(path, job, run);
  text(root, js_is_text(js_find(root, "version")) ? "version" : "fio version", run->version,
       sizeof(run->version));
  text(place, "environment/device", run->device, sizeof(run->device));
  text(place, "environment/kernel", run->kernel, sizeof(run->kernel));
  text(place, "environment/engine", run->engine, sizeof(run->engine));
  read_job(place, job, side, run);
  return 0;
}

int report_read(const char *path, struct report_run *runs, uint32_t max) {
  char why[160], at[32];
  FILE *in = fopen(path, "re");
  if (!in) return refuse(path, strerror(errno));
  struct js *root = js_read(in, why, sizeof(why));
  fclose(in);
  if (!root) return refuse(path, why);
  size_t count = js_size(js_find(root, "jobs")), i = 0;
  int r = 0;
  if (count > max) r = refuse(path, "more than 8 results in all: more cannot be told apart");
  do {
    snprintf(at, sizeof(at), "jobs/%zu", i);
    if (r == 0) r = read_one(path, root, js_find(root, at), &runs[i]);
  } while (r == 0 && ++i < count);
  if (r < 0)
    while (i > 0) report_run_free(&runs[--i]);
  js_free(root);
  return r < 0 ? r : (int)i;
}

void report_run_free(struct report_run *run) {
  free(run->rate.points);
  free(run->p50.points);
  free(run->p99.points);
  free(run->tail.points);
}
