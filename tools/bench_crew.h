/* bench_crew.h - the loads of one run, side by side: one for each core or job. Main thread.
 *
 *   bench_run.c       gathers them, runs slices of them
 *   bench_control.c   slices in turn with the raw loop
 *   bench_search.c    slices at several depths (--latency_target); when a run is steady */
#ifndef TOOLS_BENCH_CREW_H
#define TOOLS_BENCH_CREW_H

#include "tools/bench.h"

#define CREW_MAX SR_CORES_MAX

struct crew {
  struct bench *b;
  struct load *loads;
  uint32_t count;
  uint32_t shard[CREW_MAX]; /* where=core: a shard of the load's core */
  uint32_t *numbers;        /* where=core: ids by core */
  sem_t finished;
  struct sr_port *ports[CREW_MAX]; /* where=client */
  uint64_t duration_ns, slice_ns;
  struct live *live;                            /* of each load; NULL: nobody looks */
  struct steady *steady;                        /* NULL: the run ends by its time alone */
  uint64_t steady_ns, steady_ops, steady_bytes; /* at the last sample */
};

int crew_gather(struct crew **crew, struct bench *b);
void crew_finish(struct crew *c);
/* All loads once, for so long: adds to the result; *iops: of this slice. line: NULL, or drawn. */
int crew_slice(struct crew *c, struct bench_result *res, uint64_t duration_ns, double *iops,
               struct live_line *line);
int crew_control(struct crew *c, struct bench_result *res);
/* Latencies of what came before the measurement. */
void crew_forget(struct crew *c);
/* Finds the depth for --latency_target, which all slices have from then on. */
int crew_search(struct crew *c, struct bench_result *res, struct live_line *line);
int crew_steady_begin(struct crew *c, struct bench_result *res);
void crew_steady_step(struct crew *c, uint64_t since_start_ns);

/* ---- Calls on a core */

struct core_call {
  sem_t done;
  uint64_t cpu_ns;
  struct raw_loop *raw;
  uint64_t duration_ns;
  struct raw_loop_result result;
  int error;
};

void crew_wait(sem_t *s);
/* Runs it there, soon; it posts c->done. */
int crew_post(struct bench *b, uint32_t shard, sr_run_fn *fn, struct core_call *c);

uint64_t bench_process_cpu_ns(void);
const char *bench_direction(int rw);
void bench_rates(struct bench_result *res);

#endif
