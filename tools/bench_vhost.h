/* bench_vhost.h - what the files of --engine=vhost share.
 *
 *   bench_vhost.c       connects, runs the jobs, alternates them with the raw loop
 *   bench_vhost_job.c   a job: a thread that keeps one queue busy, and checks what it reads
 *   bench_vhost_open.c  a job that sends requests when they are due (--rate_iops)
 *
 * With --verify each job has a part of the disk to itself and knows for each block of it which
 * generation it holds. Contents are a function of generation, place and seed; a block that is in
 * flight is left alone by other requests. */
#ifndef TOOLS_BENCH_VHOST_H
#define TOOLS_BENCH_VHOST_H

#include "tools/bench.h"
#include "api/vhost/front.h"

#include <pthread.h>
#include <stdatomic.h>

/* What a block holds: a generation, or */
#define GENERATION_UNKNOWN 0u
#define GENERATION_FIRST   1u /* all that --create and --rw=write write */
#define GENERATION_ZEROS   UINT32_MAX

enum job_phase { JOB_FILL, JOB_LOAD, JOB_CHECK };

struct job_work {
  struct vfront_request request;
  uint64_t block; /* of the job's part */
  uint32_t generation;
  uint64_t due_ns; /* of an open load */
};

struct job {
  const struct bench_options *o;
  struct vfront *front;
  uint32_t index, depth, batch, complete;
  struct job_work *works;
  struct vfront_request **pending; /* [depth] to be aimed anew */
  uint32_t pending_count, aimed;   /* the first `aimed` of them are */
  uint64_t first_block, blocks;    /* its part of the disk, in blocks of --bs */
  uint32_t *holds;                 /* [blocks] --verify alone */
  uint8_t *busy;                   /* [blocks] */
  int phase;                       /* enum job_phase */
  uint32_t generation;             /* the last one that was written */
  uint64_t random, cursor, deadline_ns;
  uint64_t sample, sample_left;
  bool mixes; /* zeroes, discards and flushes among the writes */
  atomic_bool *stop;
  struct live *live; /* NULL: nobody looks */
  uint64_t live_ops, live_bytes;

  /* Results, of all phases. */
  struct series series; /* not kept with a control */
  uint64_t run_ns;      /* when job_run() began */
  uint64_t ops, bytes, write_ops, others, checked, errors, elapsed_ns, sleeps;
  int error;
  bool mismatch;
  char what[160];
  struct latency latency, write_latency;
  struct latency service, write_service; /* of an open load: see struct load */
  struct arrivals arrivals;
  uint64_t unsent;
};

int job_init(struct job *j, const struct bench_options *o, struct vfront *front, uint32_t index,
             atomic_bool *stop);
void job_finish(struct job *j);
/* Before job_run(): its next run begins this phase; loads last until deadline_ns. */
void job_begin(struct job *j, int phase, uint64_t deadline_ns);
/* Until its phase is over and nothing is in flight: 0. -ECONNRESET: the server is gone; what was in
 * flight still is, and it can be run again when there is another. */
int job_run(struct job *j);

/* ---- What the two parts of a job have of each other */

int job_run_open(struct job *j, struct vfront_queue *q);
/* The next request of a load. */
void job_aim_next(struct job *j, struct job_work *w);
/* These have finished: accounts for them, makes them pending. */
void job_take(struct job *j, struct vfront_request **done, uint32_t count);

#endif
