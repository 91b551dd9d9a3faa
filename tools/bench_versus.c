/* bench_versus.c - --versus: rounds of this command line's run (A) and of another command's (B),
 * and the ratio of their rates. Main thread.
 *
 * Each run is a process of its own, A's like B's: what one leaves behind is not the other's. In
 * half of the rounds A comes first, in the other half B; which ones is drawn by --seed. So neither
 * profits from a drift, nor from anything that comes back every so often. */
#include "tools/bench_versus.h"
#include "tools/args.h"
#include "tools/bench.h"
#include "tools/bench_random.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "api/control/json.h"

#define ROUNDS_MAX 1000u

struct versus {
  const struct bench_options *o;
  char **argv_a;
  char *argv_b[4];
  int result_fd;     /* A's report */
  struct js *report; /* A's last one */
  bool b_first[ROUNDS_MAX];
  struct versus_figures a[ROUNDS_MAX], b[ROUNDS_MAX];
  uint32_t rounds; /* complete ones */
};

/* ---- A's command line: ours without what is for the comparison ------------------------------ */

/* Its value is a word of its own: 2; it is one word: 1; it is another option: 0. */
static int words_of(const char *arg, const char *name, bool flag) {
  size_t i = 0, n = strlen(name);
  if (strncmp(arg, "--", 2) != 0) return 0;
  for (arg += 2; i < n; i++)
    if (arg[i] != name[i] && !(name[i] == '-' && arg[i] == '_')) return 0;
  return arg[n] == '=' ? 1 : arg[n] ? 0 : flag ? 1 : 2;
}

static int dropped_words(const char *arg) {
  static const struct {
    const char *name;
    bool flag;
  } ours[] = {{"versus", false}, {"rounds", false}, {"create", true},
              {"force", true},   {"output", false}, {"output-format", false}};
  for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
    int n = words_of(arg, ours[i].name, ours[i].flag);
    if (n) return n;
  }
  return 0;
}

static int make_argv(struct versus *v, int argc, char **argv) {
  static char output[64];
  static char self[] = "/proc/self/exe", json[] = "--output-format=json";
  static char shell[] = "/bin/sh", minus_c[] = "-c";
  v->argv_a = calloc((size_t)argc + 3, sizeof(*v->argv_a));
  v->result_fd = memfd_create("report", 0); /* A opens it by its number */
  if (!v->argv_a || v->result_fd < 0) return v->argv_a ? -errno : -ENOMEM;
  int n = 0;
  v->argv_a[n++] = self;
  for (int i = 1; i < argc;) {
    int drop = dropped_words(argv[i]);
    if (drop == 0) v->argv_a[n++] = argv[i++];
    i += drop;
  }
  snprintf(output, sizeof(output), "--output=/proc/self/fd/%d", v->result_fd);
  v->argv_a[n++] = json;
  v->argv_a[n++] = output;
  v->argv_b[0] = shell;
  v->argv_b[1] = minus_c;
  v->argv_b[2] = strdup(v->o->versus);
  return v->argv_b[2] ? 0 : -ENOMEM;
}

/* ---- Rounds -----------------------------------------------------------------------------------
 */

/* Half of them, in a random order (Fisher and Yates). */
static void draw_order(struct versus *v) {
  uint64_t state = bench_random_seed(v->o->seed);
  uint32_t n = (uint32_t)v->o->rounds;
  for (uint32_t i = 0; i < n; i++) v->b_first[i] = i % 2;
  for (uint32_t i = n; i > 1; i--) {
    uint32_t k = (uint32_t)(bench_random(&state) % i);
    bool other = v->b_first[k];
    v->b_first[k] = v->b_first[i - 1];
    v->b_first[i - 1] = other;
  }
}

static int run_one(struct versus *v, bool b, uint32_t round) {
  char name[64];
  snprintf(name, sizeof(name), "%s, round %u",
           b ? "the command of --versus (B)" : "this command line (A)", round + 1);
  if (b) return versus_run(name, v->argv_b, -1, &v->b[round], NULL);
  if (ftruncate(v->result_fd, 0) < 0) return -errno;
  return versus_run(name, v->argv_a, v->result_fd, &v->a[round], &v->report);
}

static int run_rounds(struct versus *v) {
  bool shown = isatty(STDERR_FILENO);
  draw_order(v);
  for (uint32_t i = 0; i < v->o->rounds && !bench_stop_signal(); i++) {
    if (shown) fprintf(stderr, "\r\033[Kround %u of %u", i + 1, (unsigned)v->o->rounds);
    int r = run_one(v, v->b_first[i], i);
    if (r == 0) r = run_one(v, !v->b_first[i], i);
    if (shown) fputs("\r\033[K", stderr);
    if (r == -EINTR) break;
    if (r < 0) return r;
    v->rounds = i + 1;
  }
  return 0;
}

/* ---- The report --------------------------------------------------------------------------------
 */

enum figure { FIGURE_RATE, FIGURE_MEAN, FIGURE_P99, FIGURES };
static const char *const figure_names[FIGURES] = {"rate", "mean latency", "p99 latency"};
static const char *const figure_keys[FIGURES] = {"ratio", "mean_latency_ratio",
                                                 "p99_latency_ratio"};

static double figure_of(const struct versus_figures *f, int which) {
  return which == FIGURE_RATE ? f->iops : which == FIGURE_MEAN ? f->mean_ns : f->p99_ns;
}

/* A by B, where both have it. How many. */
static uint32_t ratios_of(const struct versus *v, int which, double *values) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < v->rounds; i++) {
    double a = figure_of(&v->a[i], which), b = figure_of(&v->b[i], which);
    if (a > 0 && b > 0) values[n++] = a / b;
  }
  return n;
}

static double median_of(const struct versus *v, bool b, int which) {
  double values[ROUNDS_MAX];
  struct ratio r;
  for (uint32_t i = 0; i < v->rounds; i++) values[i] = figure_of(b ? &v->b[i] : &v->a[i], which);
  ratio_of(&r, values, v->rounds);
  return r.median;
}

/* A's last report, so that whoever reads reports can read this one; and the rounds. */
static int write_json(FILE *out, struct versus *v) {
  double values[ROUNDS_MAX];
  struct js *n = js_add(v->report, "versus", js_object());
  js_text(n, "command", v->o->versus);
  js_count(n, "rounds", v->rounds);
  js_count(n, "seed", v->o->seed);
  for (int f = 0; f < FIGURES; f++) {
    uint32_t count = ratios_of(v, f, values);
    if (count) bench_add_ratio(n, figure_keys[f], values, count);
  }
  struct js *a = js_add(n, "a_iops", js_array()), *b = js_add(n, "b_iops", js_array());
  struct js *first = js_add(n, "first", js_array());
  for (uint32_t i = 0; i < v->rounds; i++) {
    js_real(a, NULL, v->a[i].iops);
    js_real(b, NULL, v->b[i].iops);
    js_text(first, NULL, v->b_first[i] ? "b" : "a");
  }
  return js_write(v->report, out);
}

static void print(FILE *out, const struct versus *v) {
  double values[ROUNDS_MAX];
  struct ratio r;
  fprintf(out, "A, this command line, against B: %s\n", v->o->versus);
  for (int f = 0; f < FIGURES; f++) {
    uint32_t count = ratios_of(v, f, values);
    double unit = f == FIGURE_RATE ? 1 : 1000;
    if (count == 0) continue;
    ratio_of(&r, values, count);
    fprintf(out, "  %-14s A / B %.3f (median of %u rounds; %.3f to %.3f), A %.1f%s, B %.1f%s\n",
            figure_names[f], r.median, r.count, r.min, r.max, median_of(v, false, f) / unit,
            f == FIGURE_RATE ? "/s" : " us", median_of(v, true, f) / unit,
            f == FIGURE_RATE ? "/s" : " us");
    bench_print_confidence(out, &r);
  }
  fprintf(out, "  %-14s by --seed=%llu, A first in", "order", (unsigned long long)v->o->seed);
  for (uint32_t i = 0; i < v->rounds; i++)
    if (!v->b_first[i]) fprintf(out, " %u", i + 1);
  fputc('\n', out);
}

static int report(struct versus *v) {
  const struct bench_options *o = v->o;
  FILE *out = o->output ? fopen(o->output, "we") : stdout;
  if (!out) return bench_fail(o->output, -errno);
  int r = 0;
  if (o->format == 1)
    r = write_json(out, v);
  else
    print(out, v);
  if (fflush(out) == EOF && r == 0) r = -errno;
  if (out != stdout && fclose(out) == EOF && r == 0) r = -errno;
  return r < 0 ? bench_fail(o->output ? o->output : "output", r) : 0;
}

int bench_versus(const struct bench_options *o, int argc, char **argv) {
  static struct versus v;
  v.o = o;
  v.result_fd = -1;
  int r = make_argv(&v, argc, argv);
  if (r < 0) bench_fail("--versus", r);
  if (r == 0) r = run_rounds(&v);
  if (r == 0 && v.rounds > 0) r = report(&v);
  if (bench_stop_signal())
    fprintf(stderr, "shard-bench: interrupted after %u of %u rounds\n", v.rounds,
            (unsigned)o->rounds);
  js_free(v.report);
  free(v.argv_a);
  free(v.argv_b[2]);
  if (v.result_fd >= 0) close(v.result_fd);
  return r < 0 ? 1 : bench_stop_signal() ? 128 + bench_stop_signal() : 0;
}
