/* bench_vhost.c - --engine=vhost: a load on a vhost-user-blk server, whoever wrote it.
 *
 * One thread for each queue; they end together, and where the server has gone (--reconnect) they
 * wait for the next one together. With --control-file slices of the load alternate with slices of
 * the raw loop on that file, as bench_run.c does it for stores. */
#include "tools/bench_vhost.h"
#include "tools/bench_crew.h"
#include "tools/progress.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#define SLICE_NS     UINT64_C(100000000)
#define SLICE_NS_MIN UINT64_C(10000000)
#define PAIRS_MIN    8
#define RECONNECT_MS 200

struct fleet {
  struct bench *b;
  struct vfront *front;
  struct job *jobs;
  struct live *live;      /* of each */
  struct live_line *line; /* while a load runs and somebody looks */
  uint64_t begun_ns, duration_ns;
  uint32_t count;
  atomic_bool stop;
  uint32_t left; /* jobs that still run in this phase */
  clockid_t server_clock;
  bool server_known;
  uint64_t server_ns; /* of servers that are gone */
  uint64_t server_last_ns;
  struct bench_usage usage; /* of loads */
  uint64_t own_ns;          /* processor time of this process in loads */
};

static uint64_t clock_of(clockid_t id) {
  struct timespec t;
  if (clock_gettime(id, &t) < 0) return 0;
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- The server's processor time ------------------------------------------------------------ */

static void find_server(struct fleet *f) {
  struct ucred peer;
  socklen_t bytes = sizeof(peer);
  f->server_known = getsockopt(f->front->fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 &&
                    peer.pid > 0 && clock_getcpuclockid(peer.pid, &f->server_clock) == 0;
  f->server_last_ns = f->server_known ? clock_of(f->server_clock) : 0;
}

/* Of all servers since the beginning; what the last moments of a killed one took is not known. */
static uint64_t server_cpu_ns(struct fleet *f) {
  uint64_t now = f->server_known ? clock_of(f->server_clock) : 0;
  if (now > f->server_last_ns) {
    f->server_ns += now - f->server_last_ns;
    f->server_last_ns = now;
  }
  return f->server_ns;
}

/* ---- Phases --------------------------------------------------------------------------------- */

struct runner {
  struct job *job;
  pthread_t thread;
  int result;
};
static void *run_job(void *arg) {
  struct runner *r = arg;
  r->result = job_run(r->job);
  return NULL;
}

static void join(struct fleet *f, pthread_t thread) {
  int r;
  do {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += 100000000;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    r = pthread_timedjoin_np(thread, NULL, &until);
    if (bench_stop_signal()) f->stop = true;
    if (f->line) live_step(f->line, bench_now_ns() - f->begun_ns, f->duration_ns);
  } while (r == ETIMEDOUT);
}

/* All jobs once: 0, an error, or -ECONNRESET if that is what any of them met. */
static int run_jobs(struct fleet *f) {
  struct runner runners[VFRONT_QUEUES_MAX];
  uint32_t started = 0;
  int r = 0;
  for (; started < f->count; started++) {
    runners[started] = (struct runner){.job = &f->jobs[started]};
    r = -pthread_create(&runners[started].thread, NULL, run_job, &runners[started]);
    if (r < 0) break;
  }
  if (r < 0) f->stop = true;
  for (uint32_t i = 0; i < started; i++) {
    join(f, runners[i].thread);
    int e = runners[i].result;
    if (e < 0 && (r == 0 || r == -ECONNRESET)) r = e;
  }
  return r;
}

static bool no_server(int error) { return error == -ENOENT || error == -ECONNREFUSED; }

static int reconnect(struct fleet *f) {
  double seconds = f->b->o.reconnect_s;
  if (seconds <= 0) return bench_fail("the server closed the connection", -ECONNRESET);
  server_cpu_ns(f);
  uint64_t end = bench_now_ns() + (uint64_t)(seconds * 1e9);
  int r, again = 0;
  /* By and by, as a signal may come. It may be gone again before it has answered all. */
  do r = vfront_reconnect(f->front, RECONNECT_MS);
  while (!bench_stop_signal() &&
         ((r == -ECONNRESET && again++ < 100) || (no_server(r) && bench_now_ns() < end)));
  if (r < 0) return bench_fail(f->front->why, r);
  find_server(f);
  return 0;
}

static uint64_t process_cpu_ns(void) { return clock_of(CLOCK_PROCESS_CPUTIME_ID); }

static int run_phase(struct fleet *f, int phase, uint64_t duration_ns) {
  uint64_t deadline = bench_now_ns() + duration_ns, process = process_cpu_ns();
  for (uint32_t i = 0; i < f->count; i++) job_begin(&f->jobs[i], phase, deadline);
  int r;
  if (phase == JOB_LOAD) bench_usage_add(&f->usage, true);
  while ((r = run_jobs(f)) == -ECONNRESET) {
    r = reconnect(f);
    if (r < 0) return r;
  }
  if (phase == JOB_LOAD) {
    f->own_ns += process_cpu_ns() - process;
    bench_usage_add(&f->usage, false);
  }
  return r;
}

/* ---- Figures -------------------------------------------------------------------------------- */

struct mark {
  uint64_t ops, elapsed_ns, server_ns;
};
/* Sums over the jobs; elapsed_ns of the longest. */
static struct mark mark_now(struct fleet *f) {
  struct mark m = {.server_ns = server_cpu_ns(f)};
  for (uint32_t i = 0; i < f->count; i++) {
    m.ops += f->jobs[i].ops;
    if (f->jobs[i].elapsed_ns > m.elapsed_ns) m.elapsed_ns = f->jobs[i].elapsed_ns;
  }
  return m;
}

static void add_job_up(struct bench_result *res, const struct job *j) {
  res->ops += j->ops;
  res->bytes += j->bytes;
  res->write_ops += j->write_ops;
  res->errors += j->errors;
  res->mismatch |= j->mismatch;
  res->unsent += j->unsent;
  if (res->error == 0) res->error = j->error;
  if (j->elapsed_ns > res->elapsed_ns) res->elapsed_ns = j->elapsed_ns;
  latency_merge(&res->latency, &j->latency);
  latency_merge(&res->write_latency, &j->write_latency);
  latency_merge(&res->service, &j->service);
  latency_merge(&res->write_service, &j->write_service);
  if (series_merge(&res->series, &j->series) < 0 && res->error == 0) res->error = -ENOMEM;
}

static void add_up(struct fleet *f, struct bench_result *res) {
  struct bench_vhost_figures *v = &res->vhost;
  *v = (struct bench_vhost_figures){.reconnects = f->front->reconnects,
                                    .features = f->front->features,
                                    .protocol = f->front->protocol,
                                    .disk_bytes = f->front->size_bytes,
                                    .queue_size = f->front->queues[0].size};
  res->ops = res->bytes = res->write_ops = res->errors = res->elapsed_ns = 0;
  if (!f->b->o.fio.group_reporting) res->parts = calloc(f->count, sizeof(*res->parts));
  for (uint32_t i = 0; i < f->count; i++) {
    struct job *j = &f->jobs[i];
    series_end(&j->series, j->elapsed_ns, j->ops);
    add_job_up(res, j);
    v->others += j->others;
    v->checked += j->checked;
    v->sleeps += j->sleeps;
    v->kicks += f->front->queues[i].kicks;
    v->calls += f->front->queues[i].calls;
    if (j->what[0]) fprintf(stderr, "shard-bench: %s\n", j->what);
    if (!res->parts) continue;
    struct bench_result *part = &res->parts[res->part_count++];
    part->direction = res->direction;
    add_job_up(part, j);
    bench_rates(part);
  }
  bench_rates(res);
}

/* ---- In turn with the raw loop -------------------------------------------------------------- */

static int make_raw(struct raw_loop **raw, const struct fleet *f) {
  const struct bench_options *o = &f->b->o;
  char why[512];
  const struct raw_loop_options options = {
      .paths = &o->control_file,
      .path_count = 1,
      .span_bytes = f->front->size_bytes / 4096 * 4096,
      .block_bytes = (uint32_t)o->block_bytes,
      .depth = (uint32_t)(o->iodepth * f->count),
      .batch = (uint32_t)o->batch,
      .complete = (uint32_t)o->fio.complete,
      .write = bench_is_write(o->rw),
      .sequential = bench_is_sequential(o->rw),
      .seed = o->seed,
  };
  int r = raw_loop_create(raw, &options, why, sizeof(why));
  if (r < 0) fprintf(stderr, "shard-bench: raw loop: %s\n", why);
  return r;
}

static int own_slice(struct fleet *f, uint64_t ns, double *iops, double *cpu_ns) {
  struct mark before = mark_now(f);
  int r = run_phase(f, JOB_LOAD, ns);
  struct mark after = mark_now(f);
  uint64_t ops = after.ops - before.ops, elapsed = after.elapsed_ns - before.elapsed_ns;
  *iops = elapsed ? (double)ops * 1e9 / (double)elapsed : 0;
  *cpu_ns = ops ? (double)(after.server_ns - before.server_ns) / (double)ops : 0;
  return r;
}

static int raw_slice(struct raw_loop *raw, uint64_t ns, double *iops, double *cpu_ns) {
  struct raw_loop_result result;
  int r = raw_loop_run(raw, ns, &result);
  if (r < 0) return bench_fail("raw loop", r);
  *iops = result.elapsed_ns ? (double)result.ops * 1e9 / (double)result.elapsed_ns : 0;
  *cpu_ns = result.ops ? (double)result.cpu_ns / (double)result.ops : 0;
  return 0;
}

static int run_pairs(struct fleet *f, struct bench_result *res, struct raw_loop *raw) {
  double all = f->b->o.runtime_s * 1e9;
  uint64_t slice = all / (2 * PAIRS_MIN) > (double)SLICE_NS ? SLICE_NS : (uint64_t)(all / 16);
  if (slice < SLICE_NS_MIN) slice = SLICE_NS_MIN;
  double wanted = all / (2.0 * (double)slice);
  uint32_t pairs = wanted > BENCH_PAIRS_MAX ? BENCH_PAIRS_MAX : (uint32_t)wanted;
  struct progress p;
  int r = 0;
  if (pairs < PAIRS_MIN) pairs = PAIRS_MIN;
  progress_begin(&p, "pairs");
  for (uint32_t i = 0; r == 0 && i < pairs; i++) {
    double own = 0, theirs = 0, own_cpu = 0, raw_cpu = 0;
    if (i % 2) r = raw_slice(raw, slice, &theirs, &raw_cpu);
    if (r == 0) r = own_slice(f, slice, &own, &own_cpu);
    if (r == 0 && i % 2 == 0) r = raw_slice(raw, slice, &theirs, &raw_cpu);
    progress_step(&p, i + 1, pairs);
    if (r < 0 || bench_stop_signal()) break; /* a pair that was cut short tells nothing */
    res->own_iops[i] = own;
    res->raw_iops[i] = theirs;
    res->ratio[i] = theirs > 0 ? own / theirs : 0;
    res->cpu_ratio[i] = own_cpu > 0 ? raw_cpu / own_cpu : 0;
    res->pairs = i + 1;
  }
  progress_end(&p);
  snprintf(res->raw_flags, sizeof(res->raw_flags), "%s", raw_loop_flags(raw));
  snprintf(res->raw_note, sizeof(res->raw_note), "%.200s", f->b->o.control_file);
  return r;
}

static int run_control(struct fleet *f, struct bench_result *res) {
  struct raw_loop *raw = NULL;
  int r = make_raw(&raw, f);
  if (r == 0) r = run_pairs(f, res, raw);
  raw_loop_destroy(raw);
  return r;
}

/* ---- The whole ------------------------------------------------------------------------------ */

static int open_front(struct fleet *f) {
  const struct bench_options *o = &f->b->o;
  char why[256];
  const struct vfront_options options = {
      .socket = o->socket,
      .queues = (uint32_t)o->numjobs,
      .depth = (uint32_t)o->iodepth,
      .queue_size = (uint32_t)o->queue_size,
      .pieces = (uint32_t)o->pieces,
      .regions = (uint32_t)o->regions,
      .buffer_bytes = o->numjobs * o->iodepth * round_up(o->block_bytes, 4096),
      .packed = o->ring == 1,
      .features_off = o->features_off,
      .protocol_off = o->protocol_off,
      .connect_ms = (uint32_t)(o->reconnect_s * 1000),
  };
  int r = vfront_open(&f->front, &options, why, sizeof(why));
  if (r < 0) return bench_fail(why, r);
  if (f->front->read_only && !bench_is_read(o->rw)) return bench_fail("the disk", -EROFS);
  if (o->block_bytes % f->front->block_bytes != 0) {
    fprintf(stderr, "shard-bench: --bs=%llu: the disk's blocks have %u bytes\n",
            (unsigned long long)o->block_bytes, f->front->block_bytes);
    return -EINVAL;
  }
  find_server(f);
  return 0;
}

static int make_jobs(struct fleet *f) {
  const struct bench_options *o = &f->b->o;
  f->jobs = calloc(o->numjobs, sizeof(*f->jobs));
  if (live_shows() && !o->control_file) f->live = calloc(o->numjobs, sizeof(*f->live));
  int r = f->jobs ? 0 : -ENOMEM;
  for (uint64_t i = 0; r == 0 && i < o->numjobs; i++) {
    r = job_init(&f->jobs[i], o, f->front, (uint32_t)i, &f->stop);
    f->jobs[i].live = f->live ? &f->live[i] : NULL;
    f->count++;
  }
  if (r == -ENOSPC) fputs("shard-bench: the disk is too small for that depth\n", stderr);
  return r < 0 ? bench_fail("jobs", r) : 0;
}

static int run_load(struct fleet *f, struct bench_result *res) {
  uint64_t server = server_cpu_ns(f);
  struct live_line line;
  int r;
  if (f->b->o.control_file) {
    r = run_control(f, res);
  } else {
    live_begin(&line, bench_rw_name(f->b->o.rw), f->live, f->live ? f->count : 0);
    f->line = &line;
    f->begun_ns = bench_now_ns();
    f->duration_ns = (uint64_t)(f->b->o.runtime_s * 1e9);
    r = run_phase(f, JOB_LOAD, f->duration_ns);
    f->line = NULL;
    live_end(&line);
  }
  res->cpu_ns_process = f->own_ns;
  res->usage = f->usage;
  res->cpu_ns_cores = server_cpu_ns(f) - server;
  return r;
}

int bench_run_vhost(struct bench *b, struct bench_result *res) {
  struct fleet f = {.b = b};
  const struct bench_options *o = &b->o;
  res->direction = bench_is_read(o->rw) || o->rw == RW_RANDRW ? "read"
                   : o->rw == RW_FLUSH                        ? "sync"
                                                              : "write";
  int r = open_front(&f);
  if (r == 0) r = make_jobs(&f);
  if (r == 0 && o->create) r = run_phase(&f, JOB_FILL, 0);
  if (r == 0) r = run_load(&f, res);
  if (r == 0 && o->verify && !bench_is_read(o->rw)) r = run_phase(&f, JOB_CHECK, 0);
  if (r == 0) r = vfront_stop(f.front);
  if (r < 0 && f.front && f.front->why[0]) fprintf(stderr, "shard-bench: %s\n", f.front->why);
  if (f.count > 0 && f.front) add_up(&f, res);
  for (uint32_t i = 0; i < f.count; i++) job_finish(&f.jobs[i]);
  free(f.jobs);
  free(f.live);
  vfront_close(f.front);
  return r;
}
