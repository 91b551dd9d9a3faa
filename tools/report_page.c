/* report_page.c - the page of shard-bench report, and the command. */
#include "tools/report.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tools/args.h"

#define TOOL "shard-bench report"

static const char style[] =
    ":root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#5b6470;--line:#d9dee5;"
    "--c0:#1f6feb;--c1:#c2410c;--c2:#15803d;--c3:#9333ea;--c4:#b45309;--c5:#0e7490;--c6:#be185d;"
    "--c7:#4b5563}"
    "@media(prefers-color-scheme:dark){:root{--bg:#14181d;--fg:#e6e9ee;--soft:#9aa4b1;--line:#"
    "333b45;"
    "--c0:#6ea8ff;--c1:#ff9a62;--c2:#63d28a;--c3:#c89bff;--c4:#f0b65a;--c5:#5fd0e3;--c6:#ff86b7;"
    "--c7:#aab3bf}}"
    "body{margin:0 auto;max-width:1240px;padding:16px;background:var(--bg);color:var(--fg);"
    "font:15px/1.45 system-ui,sans-serif}h1{font-size:1.4em;margin:.3em 0}"
    "h2{font-size:1.1em;margin:1.4em 0 .4em}p{margin:.3em 0;color:var(--soft)}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "th,td{padding:4px 10px;text-align:right;border-bottom:1px solid "
    "var(--line);white-space:nowrap}"
    "th{color:var(--soft);font-weight:600}td:first-child,th:first-child,.t td,.t "
    "th{text-align:left}"
    ".chip{display:inline-block;width:.8em;height:.8em;border-radius:2px;margin-right:.5em}"
    ".plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:"
    "18px}"
    "figure{margin:22px 0 0}figcaption{color:var(--soft);font-size:.9em;margin-bottom:4px}"
    "figcaption b{color:var(--fg)}svg{width:100%;height:auto;display:block}"
    "svg text{font:11.5px system-ui,sans-serif;fill:var(--soft)}.x{text-anchor:middle}"
    ".y{text-anchor:end}.g{stroke:var(--line);stroke-width:1}"
    "polyline{fill:none;stroke-width:1.8;stroke-linejoin:round}.d{stroke-dasharray:4 3}"
    ".bar{height:1.1em;border-radius:2px;display:inline-block;vertical-align:middle}";

/* ---- Parts ----------------------------------------------------------------------------------- */

static void write_colours(FILE *out) {
  for (unsigned i = 0; i < REPORT_RUNS_MAX; i++)
    fprintf(out,
            "polyline.c%u{stroke:var(--c%u)}circle.c%u{fill:var(--c%u)}.b%u{background:var(--c%u)}",
            i, i, i, i, i, i);
}

static void write_head(FILE *out) {
  fputs("<!doctype html>\n<html lang=en><head><meta charset=utf-8>"
        "<meta name=viewport content=\"width=device-width,initial-scale=1\">"
        "<title>shard-bench report</title><style>",
        out);
  fputs(style, out);
  write_colours(out);
  fputs("</style></head><body>\n<h1>shard-bench report</h1>\n", out);
}

static void cell(FILE *out, double v, enum report_unit unit) {
  char text[32];
  fprintf(out, "<td>%s</td>", v > 0 ? report_number(v, unit, text, sizeof(text)) : "");
}

static void write_table(FILE *out, const struct report_run *runs, uint32_t count) {
  fputs("<div class=wide><table><tr><th>result<th>requests/s<th>bytes/s<th>mean<th>50 %<th>99 %"
        "<th>99.9 %<th>most<th>depth<th>cores<th>of the raw loop<th>errors</tr>\n",
        out);
  for (uint32_t i = 0; i < count; i++) {
    const struct report_run *r = &runs[i];
    fprintf(out, "<tr><td><span class=\"chip b%u\"></span>", i);
    report_text(out, r->label);
    fputs("</td>", out);
    cell(out, r->iops, UNIT_COUNT);
    cell(out, r->bytes_per_s, UNIT_COUNT);
    cell(out, r->mean_ns, UNIT_NS);
    cell(out, r->p50_ns, UNIT_NS);
    cell(out, r->p99_ns, UNIT_NS);
    cell(out, r->p999_ns, UNIT_NS);
    cell(out, r->max_ns, UNIT_NS);
    cell(out, r->depth, UNIT_COUNT);
    cell(out, r->cores, UNIT_COUNT);
    cell(out, r->ratio, UNIT_COUNT);
    fprintf(out, "<td>%.0f</td></tr>\n", r->errors);
  }
  fputs("</table></div>\n", out);
}

/* One point of each run that has it; not joined, since they may differ in more than this. */
static void across(FILE *out, struct report_plot *plot, const struct report_run *runs,
                   uint32_t count, struct report_point (*point)(const struct report_run *run)) {
  struct report_point points[REPORT_RUNS_MAX];
  uint32_t found = 0;
  bool differ = false;
  for (uint32_t i = 0; i < count; i++) {
    struct report_point p = point(&runs[i]);
    if (!(p.x > 0) || !(p.y > 0)) continue;
    if (found && p.x != points[0].x) differ = true;
    points[found] = p;
    report_plot_add(plot, (struct report_curve){&points[found++], 1}, i, false);
  }
  if (!differ) return;
  plot->dots = true;
  report_plot_write(out, plot);
}

static struct report_point rate_and_latency(const struct report_run *r) {
  return (struct report_point){r->iops, r->p99_ns};
}
static struct report_point cores_and_rate(const struct report_run *r) {
  return (struct report_point){r->cores, r->iops};
}

static void write_plots(FILE *out, const struct report_run *runs, uint32_t count) {
  struct report_plot rate = {.title = "Requests a second, over time",
                             .note = "Dips are what an average hides.",
                             .x = {"seconds", UNIT_SECONDS, false},
                             .y = {"requests/s", UNIT_COUNT, false}};
  struct report_plot latency = {.title = "Latency, over time",
                                .note = "Lines: 99 % of an interval were faster; dashed: 50 %.",
                                .x = {"seconds", UNIT_SECONDS, false},
                                .y = {"latency", UNIT_NS, true}};
  struct report_plot tail = {.title = "Latency by percentile",
                             .note = "Each step to the right: ten times rarer.",
                             .x = {"share of requests that were not slower", UNIT_PERCENTILE, true},
                             .y = {"latency", UNIT_NS, true}};
  struct report_plot knee = {.title = "Throughput against latency",
                             .note = "One point for each result: 99 % were faster.",
                             .x = {"requests/s", UNIT_COUNT, false},
                             .y = {"latency", UNIT_NS, true}};
  struct report_plot scaling = {.title = "Scaling over cores",
                                .note = "One point for each result.",
                                .x = {"cores", UNIT_COUNT, false},
                                .y = {"requests/s", UNIT_COUNT, false}};
  for (uint32_t i = 0; i < count; i++) {
    report_plot_add(&rate, runs[i].rate, i, false);
    report_plot_add(&latency, runs[i].p99, i, false);
    report_plot_add(&latency, runs[i].p50, i, true);
    report_plot_add(&tail, runs[i].tail, i, false);
  }
  fputs("<div class=plots>\n", out);
  report_plot_write(out, &rate);
  report_plot_write(out, &latency);
  report_plot_write(out, &tail);
  across(out, &knee, runs, count, rate_and_latency);
  across(out, &scaling, runs, count, cores_and_rate);
  fputs("</div>\n", out);
}

/* Processor time of an operation: on the store's cores, and what is left, the load's own. */
static void write_cpu(FILE *out, const struct report_run *runs, uint32_t count) {
  double most = 0;
  for (uint32_t i = 0; i < count; i++)
    if (runs[i].cpu_ns > most) most = runs[i].cpu_ns;
  if (!(most > 0)) return;
  fputs("<h2>Processor time of an operation</h2><p>Full: on the cores of the store (system calls "
        "included); pale: elsewhere in the process, the load's own threads.</p><div class=wide>"
        "<table>\n",
        out);
  for (uint32_t i = 0; i < count; i++) {
    const struct report_run *r = &runs[i];
    double cores = r->cpu_cores_ns < r->cpu_ns ? r->cpu_cores_ns : r->cpu_ns;
    char a[32], b[32];
    if (!(r->cpu_ns > 0)) continue;
    fputs("<tr><td>", out);
    report_text(out, r->label);
    fprintf(
        out,
        "<td style=\"text-align:left\"><span class=\"bar b%u\" style=\"width:%.0fpx\"></span>"
        "<span class=\"bar b%u\" style=\"width:%.0fpx;opacity:.35\"></span> %s, %s of it on the "
        "cores</tr>\n",
        i, cores / most * 240, i, (r->cpu_ns - cores) / most * 240,
        report_number(r->cpu_ns, UNIT_NS, a, sizeof(a)),
        report_number(cores, UNIT_NS, b, sizeof(b)));
  }
  fputs("</table></div>\n", out);
}

static void write_environment(FILE *out, const struct report_run *runs, uint32_t count) {
  fputs(
      "<h2>Where and with what</h2><div class=wide><table class=t><tr><th>result<th>tool<th>engine"
      "<th>device<th>kernel</tr>\n",
      out);
  for (uint32_t i = 0; i < count; i++) {
    const char *const texts[] = {runs[i].label, runs[i].version, runs[i].engine, runs[i].device,
                                 runs[i].kernel};
    fputs("<tr>", out);
    for (size_t k = 0; k < sizeof(texts) / sizeof(texts[0]); k++) {
      fputs("<td>", out);
      report_text(out, texts[k]);
    }
    fputs("</tr>\n", out);
  }
  fputs("</table></div>\n", out);
}

/* ---- The command ----------------------------------------------------------------------------- */

static int write_page(const char *path, const struct report_run *runs, uint32_t count) {
  FILE *out = fopen(path, "we");
  if (!out) return -errno;
  write_head(out);
  write_table(out, runs, count);
  write_plots(out, runs, count);
  write_cpu(out, runs, count);
  write_environment(out, runs, count);
  fputs("</body></html>\n", out);
  int r = ferror(out) ? -EIO : 0;
  return fclose(out) == EOF && r == 0 ? -errno : r;
}

int report_main(int argc, char **argv) {
  static struct report_run runs[REPORT_RUNS_MAX];
  const char *words[REPORT_RUNS_MAX], *page = "report.html";
  bool help = false;
  const struct arg table[] = {
      {"output", ARG_TEXT, &page, .help = "the page; default report.html"},
      {"help", ARG_FLAG, &help, .help = ""},
      {NULL, 0, NULL, .help = NULL},
  };
  int files = args_parse(TOOL, table, argc, argv, words, REPORT_RUNS_MAX), r = 0, count = 0;
  if (files < 0) return ARGS_USAGE;
  if (help) {
    printf(
        "%s RESULT.json...: up to %u results, of shard-bench or fio (--output-format=json), laid\n"
        "over each other in one page that needs nothing else.\n\n",
        TOOL, REPORT_RUNS_MAX);
    args_help(table);
    return 0;
  }
  if (files == 0) {
    fprintf(stderr, "%s: no result is named; see %s --help\n", TOOL, TOOL);
    return ARGS_USAGE;
  }
  for (int i = 0; r >= 0 && i < files; i++) {
    r = report_read(words[i], &runs[count], REPORT_RUNS_MAX - (uint32_t)count);
    if (r > 0) count += r;
  }
  if (r >= 0 && (r = write_page(page, runs, (uint32_t)count)) < 0)
    fprintf(stderr, "%s: %s: %s\n", TOOL, page, strerror(-r));
  for (int i = 0; i < count; i++) report_run_free(&runs[i]);
  return r < 0;
}
