/* report.h - shard-bench report: results as one HTML page that needs nothing else.
 *
 *   report_read.c   results of shard-bench, or of fio (json, json+), into struct report_run
 *   report_plot.c   plots as SVG
 *   report_page.c   the page, and the command
 *   report_compare.c   shard-bench compare
 */
#ifndef TOOLS_REPORT_H
#define TOOLS_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define REPORT_RUNS_MAX   8u /* colours that can be told apart */
#define REPORT_POINTS_MAX 2048u

struct report_point {
  double x, y;
};
struct report_curve {
  struct report_point *points;
  uint32_t count;
};

/* One result. Latencies are those of the side (read, write, ...) that has requests; where the
 * result has response times they are meant. */
struct report_run {
  char label[96]; /* the file's name, and what was run */
  char side[8], version[64], device[64], kernel[128], engine[64];
  double iops, bytes_per_s, mean_ns, max_ns, errors;
  double p50_ns, p99_ns, p999_ns;
  double cpu_ns, cpu_cores_ns; /* an operation; 0: not known */
  double cores, depth, ratio;  /* ratio: against the raw loop; 0: none */
  double interval_s;
  struct report_curve rate, p50, p99; /* over seconds */
  struct report_curve tail;           /* x: 1 / (1 - share of requests), y: their latency in ns */
};
/* The file's jobs into runs[0..max). How many; or -errno after a message that names the file and
 * what is wrong with it. */
int report_read(const char *path, struct report_run *runs, uint32_t max);
void report_run_free(struct report_run *run);

enum report_unit { UNIT_COUNT, UNIT_NS, UNIT_SECONDS, UNIT_PERCENTILE };
struct report_axis {
  const char *name;
  enum report_unit unit;
  bool log;
};
struct report_plot {
  const char *title, *note;
  struct report_axis x, y;
  struct report_curve curves[2 * REPORT_RUNS_MAX];
  uint8_t colour[2 * REPORT_RUNS_MAX]; /* of the run */
  bool dashed[2 * REPORT_RUNS_MAX];
  bool dots; /* at each point */
  uint32_t count;
};
void report_plot_add(struct report_plot *plot, struct report_curve curve, uint32_t run,
                     bool dashed);
/* Nothing if no curve has points. */
void report_plot_write(FILE *out, const struct report_plot *plot);
/* "1.2 M", "350 us" and so on. */
const char *report_number(double value, enum report_unit unit, char *text, size_t bytes);
/* Text as HTML. */
void report_text(FILE *out, const char *text);

/* B's rate by A's, and half of its interval of confidence of 95 %. False: too few intervals. */
bool report_ratio(const struct report_run *a, const struct report_run *b, double *ratio,
                  double *half);

/* shard-bench compare A B: exit status. */
int compare_main(int argc, char **argv);
/* shard-bench report RESULT... --output=PAGE: exit status. */
int report_main(int argc, char **argv);

#endif
