/* report_compare.c - shard-bench compare: two results side by side, and whether the difference of
 * their rates is more than what each of them varies by itself.
 *
 * A result's rate over time is cut into BATCHES pieces of the same length, whose means are nearly
 * independent of each other (the method of batch means); the first one is left out, as the run
 * warms up in it. The interval of confidence is that of a ratio of two means, by Student's t with
 * Welch's degrees of freedom, to first order. It knows nothing of what differs from run to run:
 * for that, alternate (--control) or repeat. */
#include "tools/report.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/args.h"
#include "tools/ratio.h"

#define TOOL    "shard-bench compare"
#define BATCHES 11

struct batches {
  double mean, variance; /* of the mean */
  int count;             /* 0: too few intervals */
};

static struct batches batches_of(const struct report_curve *c) {
  double means[BATCHES], sum = 0, squares = 0;
  uint32_t each = c->count / BATCHES;
  if (each == 0) return (struct batches){0};
  for (int b = 1; b < BATCHES; b++) {
    means[b] = 0;
    for (uint32_t i = 0; i < each; i++) means[b] += c->points[(uint32_t)b * each + i].y;
    means[b] /= each;
    sum += means[b];
  }
  int n = BATCHES - 1;
  double mean = sum / n;
  for (int b = 1; b < BATCHES; b++) squares += (means[b] - mean) * (means[b] - mean);
  return (struct batches){mean, squares / (n - 1) / n, n};
}

bool report_ratio(const struct report_run *a, const struct report_run *b, double *ratio,
                  double *half) {
  struct batches x = batches_of(&a->rate), y = batches_of(&b->rate);
  if (!x.count || !y.count || !(x.mean > 0) || !(y.mean > 0)) return false;
  double rx = x.variance / (x.mean * x.mean), ry = y.variance / (y.mean * y.mean);
  double freedom = rx + ry > 0
                       ? (rx + ry) * (rx + ry) / (rx * rx / (x.count - 1) + ry * ry / (y.count - 1))
                       : 1e9;
  *ratio = y.mean / x.mean;
  *half = ratio_student(freedom) * *ratio * sqrt(rx + ry);
  return true;
}

/* ---- The table ------------------------------------------------------------------------------- */

static void line(const char *name, double a, double b, enum report_unit unit) {
  char x[32], y[32];
  if (!(a > 0) || !(b > 0)) return;
  printf("  %-18s %12s %12s   %.3f\n", name, report_number(a, unit, x, sizeof(x)),
         report_number(b, unit, y, sizeof(y)), b / a);
}

static void compare(const struct report_run *a, const struct report_run *b) {
  double ratio, half;
  printf("%s (A) and %s (B)\n  %-18s %12s %12s   B / A\n", a->label, b->label, "", "A", "B");
  line("requests/s", a->iops, b->iops, UNIT_COUNT);
  line("bytes/s", a->bytes_per_s, b->bytes_per_s, UNIT_COUNT);
  line("mean latency", a->mean_ns, b->mean_ns, UNIT_NS);
  line("50 %", a->p50_ns, b->p50_ns, UNIT_NS);
  line("99 %", a->p99_ns, b->p99_ns, UNIT_NS);
  line("99.9 %", a->p999_ns, b->p999_ns, UNIT_NS);
  line("most", a->max_ns, b->max_ns, UNIT_NS);
  line("processor time", a->cpu_ns, b->cpu_ns, UNIT_NS);
  if (a->errors + b->errors > 0) printf("  %-18s %12.0f %12.0f\n", "errors", a->errors, b->errors);
  if (!report_ratio(a, b, &ratio, &half)) {
    printf("  too short, or without rates over time: whether they differ cannot be said\n");
    return;
  }
  printf("  rates without the first %d %%: B / A = %.3f, 95 %% confidence %.3f to %.3f: %s\n",
         100 / BATCHES, ratio, ratio - half, ratio + half,
         ratio - half > 1   ? "B is faster"
         : ratio + half < 1 ? "A is faster"
                            : "no difference can be told from chance");
}

/* Jobs of the same number in their files. */
int compare_main(int argc, char **argv) {
  static struct report_run a[REPORT_RUNS_MAX], b[REPORT_RUNS_MAX];
  const char *words[2];
  bool help = false;
  const struct arg table[] = {
      {"help", ARG_FLAG, &help, .help = ""},
      {NULL, 0, NULL, .help = NULL},
  };
  int files = args_parse(TOOL, table, argc, argv, words, 2);
  if (files < 0) return ARGS_USAGE;
  if (help)
    return printf("%s A.json B.json: two results (--output-format=json) side by side\n", TOOL), 0;
  if (files < 2) {
    fprintf(stderr, "%s: two results are needed; see %s --help\n", TOOL, TOOL);
    return ARGS_USAGE;
  }
  int x = report_read(words[0], a, REPORT_RUNS_MAX);
  int y = x < 0 ? x : report_read(words[1], b, REPORT_RUNS_MAX);
  if (y > 0 && x != y)
    fprintf(stderr, "%s: %d and %d jobs: the first ones of both are compared\n", TOOL, x, y);
  for (int i = 0; i < x && i < y; i++) compare(&a[i], &b[i]);
  for (int i = 0; i < x; i++) report_run_free(&a[i]);
  for (int i = 0; i < y; i++) report_run_free(&b[i]);
  return y < 0;
}
