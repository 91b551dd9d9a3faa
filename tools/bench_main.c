/* bench_main.c - shard-bench: what a store does in a second. The order of things:
 * options, format, open, fill, run, report, close. */
#include "tools/args.h"
#include "tools/bench.h"
#include "tools/bench_tune.h"
#include "tools/report.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* The raw loop needs no store, only files; a store that is there is looked at and closed, as a
 * directory tells nothing about where blobs lie. */
static int prepare_raw(struct bench *b) {
  if (bench_is_write(b->o.rw) && !b->o.create) return 0;
  int r = bench_open(b);
  return r < 0 ? r : bench_populate(b);
}

static int prepare(struct bench *b) {
  if (b->o.engine == ENGINE_VHOST) return 0;
  int r = b->o.create ? bench_create(&b->o) : 0;
  if (r < 0) return r;
  if (b->o.engine == ENGINE_RAW) return prepare_raw(b);
  r = bench_open(b);
  return r < 0 ? r : bench_populate(b);
}

static int run(struct bench *b, struct bench_result *result) {
  if (b->o.engine == ENGINE_RAW) return bench_run_raw(b, result);
  if (b->o.engine == ENGINE_VHOST) return bench_run_vhost(b, result);
  if (b->o.rw == RW_OPEN) return bench_run_open(b, result);
  if (b->o.workload == WORK_INGEST) return bench_run_ingest(b, result);
  if (b->o.workload == WORK_LAMBDA) return bench_run_lambda(b, result);
  return bench_run_store(b, result);
}

/* Reads back what the run has put: of --verify with writes. */
static int verify_writes(struct bench *b, struct bench_result *result) {
  if (b->o.engine == ENGINE_VHOST) return 0; /* it has done that itself */
  struct bench_result *again = calloc(1, sizeof(*again));
  struct bench read = *b;
  if (!again) return -ENOMEM;
  read.o.rw = b->volumes ? RW_RANDREAD : RW_GET;
  read.o.control = false;
  read.o.fio.group_reporting = true;
  read.o.fio.steady.limit = 0;
  read.o.fio.target_ns = 0;
  read.o.where = WHERE_CLIENT;
  read.o.runtime_s = b->o.runtime_s < 1 ? b->o.runtime_s : 1;
  int r = result->error ? 0 : bench_run_store(&read, again);
  result->errors += again->errors;
  if (result->error == 0) result->error = again->error;
  result->mismatch |= again->mismatch;
  bench_result_finish(again);
  free(again);
  return r;
}

static int say_error(const struct bench_result *result) {
  if (result->mismatch)
    return bench_fail("a blob or block does not hold what was written to it", -EBADMSG);
  return result->error < 0 ? bench_fail("request", result->error) : 0;
}

/* After the run, and before the report. */
static bool note_signal(struct bench *b) {
  if (bench_stop_signal()) b->interrupted = bench_stop_name();
  return b->interrupted;
}

/* As a shell has it for who dies of a signal. */
static int exit_status(const struct bench *b, int error, bool usage) {
  if (b->interrupted && (error == 0 || error == -EINTR)) return 128 + bench_stop_signal();
  return error == -EINVAL && usage ? ARGS_USAGE : error < 0;
}

/* Workloads of volumes with figures of their own. */
static int work(struct bench *b) {
  static struct bench_figures figures;
  struct bench_environment environment;
  int (*const works[])(struct bench *, struct bench_figures *) = {
      [WORK_VERIFY] = bench_work_verify,         [WORK_LIMITS] = bench_work_limits,
      [WORK_NEIGHBOUR] = bench_work_neighbour,   [WORK_CLONE_CREATE] = bench_work_clone_create,
      [WORK_CLONE_OPEN] = bench_work_clone_open, [WORK_MAP_OPEN] = bench_work_map_open,
  };
  bool opens_itself = b->o.workload == WORK_CLONE_OPEN || b->o.workload == WORK_MAP_OPEN;
  int r = b->o.create ? bench_create(&b->o) : 0;
  if (r == 0 && !opens_itself) r = bench_open(b);
  if (r == 0) r = works[b->o.workload](b, &figures);
  if (note_signal(b) && r == -EINTR) r = 0;
  bench_environment_fill(&environment, b);
  int reported =
      figures.count || b->interrupted ? bench_report_figures(b, &figures, r, &environment) : 0;
  if (r == 0) r = reported;
  int closed = b->store ? bench_close(b) : 0;
  return r < 0 ? r : closed;
}

/* Makes and fills the store beforehand, unless it lies in memory: then each run has its own. */
static int versus(struct bench *b, int argc, char **argv) {
  int r = strncmp(b->o.where_text, "mem:", 4) == 0 ? 0 : prepare(b);
  int closed = b->store ? bench_close(b) : 0;
  if (r == 0) r = closed;
  note_signal(b);
  if (r < 0) return exit_status(b, r, true);
  return bench_versus(&b->o, argc, argv);
}

int main(int argc, char **argv) {
  static struct bench b;
  static struct bench_result result;
  struct bench_environment environment;
  if (argc > 1 && strcmp(argv[1], "report") == 0) return report_main(argc - 1, argv + 1);
  if (argc > 1 && strcmp(argv[1], "compare") == 0) return compare_main(argc - 1, argv + 1);
  if (argc > 1 && strcmp(argv[1], "tune") == 0) return tune_main(argc - 1, argv + 1);
  int r = bench_options_parse(&b.o, argc, argv);
  if (r != 0) return r < 0 ? ARGS_USAGE : 0;
  bench_stop_watch();
  if (b.o.job_file) return bench_run_jobs(&b.o, argc, argv);
  if (bench_has_own_figures(b.o.workload)) {
    r = work(&b);
    return exit_status(&b, r, true);
  }
  if (b.o.versus) return versus(&b, argc, argv);
  r = bench_pin(&b.o);
  if (r == 0) r = prepare(&b);
  if (r == 0) r = bench_check_registered(&b);
  bool ran = r == 0;
  if (ran) r = run(&b, &result);
  if (note_signal(&b) && r == -EINTR) r = 0;
  if (r == 0 && b.o.verify && !b.interrupted && bench_is_write(b.o.rw))
    r = verify_writes(&b, &result);
  if (ran) bench_environment_fill(&environment, &b);
  if (ran && (result.ops > 0 || b.interrupted)) {
    int reported = bench_report(&b, &result, &environment);
    if (r == 0) r = reported;
    if (r == 0) r = bench_write_logs(&b, &result);
  }
  if (ran && say_error(&result) < 0) r = -EIO;
  bench_result_finish(&result);
  if (b.store) {
    int closed = bench_close(&b);
    if (r == 0) r = closed;
  }
  return exit_status(&b, r, !ran);
}
