/* bench_report.h - what the two parts of a report have of each other. Main thread. */
#ifndef TOOLS_BENCH_REPORT_H
#define TOOLS_BENCH_REPORT_H

#include "tools/bench.h"

#include <stdio.h>

struct js;

/* ---- bench_report.c: values for people, in a buffer of the caller's; latencies */

const char *bench_human_bytes(double v, char *buf, size_t bytes);
const char *bench_human_count(double v, char *buf, size_t bytes);
const char *bench_human_ns(double v, char *buf, size_t bytes);
void bench_print_percentiles(FILE *out, const struct bench_options *o, const struct latency *l);
/* full: with percentiles and bins. */
void bench_add_latency(struct js *side, const char *key, const struct bench_options *o,
                       const struct latency *l, bool full);

/* ---- bench_report_more.c: what --workload, --remote and --flush-every ask for */

void bench_add_more(struct js *job, const struct bench_options *o, const struct bench_result *r);
void bench_print_more(FILE *out, const struct bench_options *o, const struct bench_result *r);
/* ---- bench_report_fio.c: what else fio's JSON has; options named as fio's */

void bench_add_fio_root(struct js *root);
void bench_add_fio_options(struct js *to, const struct bench_options *o);
void bench_add_fio_job(struct js *job, const struct bench_options *o, const struct bench_result *r);
void bench_add_fio_side(struct js *side, const struct bench_options *o,
                        const struct bench_result *r, uint64_t ops, uint64_t bytes);
void bench_print_fio(FILE *out, const struct bench_options *o, const struct bench_result *r);

/* ---- bench_figures.c */

void bench_add_figure(struct js *to, const struct bench_figure *f);
void bench_print_figure(FILE *out, const struct bench_figure *f);

/* Options besides those that every load has. */
void bench_add_more_options(struct js *to, const struct bench_options *o);
/* Of a result with classes: the requests of one side of fio's report. */
void bench_sum_side(const struct bench_result *r, enum bench_side side, uint64_t *ops,
                    uint64_t *bytes);

#endif
