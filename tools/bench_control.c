/* bench_control.c - the load in turn with the raw loop (--control), and the raw loop alone. Main
 * thread.
 *
 * The raw loop runs on the core's own thread, so on the same CPU: with nothing in flight the core
 * is made to run a slice of it in between, and for that long it does nothing else. Which of the
 * two comes first changes with every pair, so that neither profits from a drift. */
#include "tools/bench_crew.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SLICE_NS     UINT64_C(100000000) /* of the load or the raw loop; */
#define SLICE_NS_MIN UINT64_C(10000000)  /* shorter where --runtime is short */
#define PAIRS_MIN    8

static void run_raw(struct sr_port *port, void *arg) {
  struct core_call *c = arg;
  (void)port;
  c->error = raw_loop_run(c->raw, c->duration_ns, &c->result);
  sem_post(&c->done);
}

/* ---- The raw loop -------------------------------------------------------------------------------
 */

static int make_raw(struct raw_loop **raw, const struct bench *b, const struct bench_files *f,
                    uint32_t index) {
  char why[512];
  const struct raw_loop_options o = {
      .paths = (const char *const *)f->paths,
      .path_count = f->count,
      .skip_bytes = f->skip_bytes,
      .span_bytes = f->span_bytes,
      .block_bytes = (uint32_t)bench_request_bytes(&b->o),
      .depth = (uint32_t)b->o.iodepth,
      .batch = (uint32_t)b->o.batch,
      .complete = (uint32_t)b->o.fio.complete,
      .split = b->o.fio.split.count ? &b->o.fio.split : NULL,
      .hipri = b->o.fio.hipri,
      .write = bench_is_write(b->o.rw),
      .sequential = bench_is_sequential(b->o.rw),
      .seed = b->o.seed + index,
  };
  int r = raw_loop_create(raw, &o, why, sizeof(why));
  if (r < 0) fprintf(stderr, "shard-bench: raw loop: %s\n", why);
  return r;
}

static void say_raw(struct bench_result *res, const struct raw_loop *raw,
                    const struct bench_files *f) {
  snprintf(res->raw_flags, sizeof(res->raw_flags), "%s", raw_loop_flags(raw));
  snprintf(res->raw_note, sizeof(res->raw_note), "%u file%s%s, from %llu MiB on%s", f->count,
           f->count == 1 ? "" : "s",
           f->scratch_fd >= 0 ? " (scratch, written beforehand)" : " of the store",
           (unsigned long long)(f->skip_bytes >> 20), f->span_bytes ? ", as far as blobs lie" : "");
}

/* One slice on the cores that the load uses, all at once. */
static int raw_slice(struct crew *c, struct raw_loop **raws, const uint32_t *shards, uint32_t count,
                     double *iops, double *cpu_ns) {
  struct core_call calls[CREW_MAX];
  uint32_t posted = 0;
  int r = 0;
  memset(calls, 0, count * sizeof(*calls));
  for (; r == 0 && posted < count; posted += r == 0) {
    calls[posted].raw = raws[posted];
    calls[posted].duration_ns = c->slice_ns;
    r = crew_post(c->b, shards[posted], run_raw, &calls[posted]);
  }
  uint64_t ops = 0, cpu = 0;
  *iops = 0;
  for (uint32_t i = 0; i < posted; i++) {
    crew_wait(&calls[i].done);
    ops += calls[i].result.ops;
    cpu += calls[i].result.cpu_ns;
    if (r == 0) r = calls[i].error;
    if (calls[i].result.elapsed_ns)
      *iops += (double)calls[i].result.ops * 1e9 / (double)calls[i].result.elapsed_ns;
  }
  *cpu_ns = ops ? (double)cpu / (double)ops : 0;
  return r < 0 ? bench_fail("raw loop", r) : 0;
}

static int run_pairs(struct crew *c, struct bench_result *res, struct raw_loop **raws,
                     const uint32_t *shards, uint32_t count) {
  struct progress p;
  char note[48];
  double all = c->b->o.runtime_s * 1e9, slice = all / (2 * PAIRS_MIN);
  c->slice_ns = slice > (double)SLICE_NS ? SLICE_NS : (uint64_t)slice;
  if (c->slice_ns < SLICE_NS_MIN) c->slice_ns = SLICE_NS_MIN;
  double wanted = all / (2.0 * (double)c->slice_ns);
  uint32_t pairs = wanted > BENCH_PAIRS_MAX ? BENCH_PAIRS_MAX : (uint32_t)wanted;
  int r = 0;
  if (pairs < PAIRS_MIN) pairs = PAIRS_MIN;
  progress_begin(&p, "pairs");
  for (uint32_t i = 0; r == 0 && i < pairs; i++) {
    double own = 0, raw = 0, raw_cpu = 0;
    uint64_t ops = res->ops, cpu = res->cpu_ns_cores;
    if (i % 2) r = raw_slice(c, raws, shards, count, &raw, &raw_cpu);
    if (r == 0) r = crew_slice(c, res, c->slice_ns, &own, NULL);
    if (r == 0 && i % 2 == 0) r = raw_slice(c, raws, shards, count, &raw, &raw_cpu);
    snprintf(note, sizeof(note), "%.3f of the raw loop", raw > 0 ? own / raw : 0);
    progress_note(&p, note);
    progress_step(&p, i + 1, pairs);
    if (r < 0 || bench_stop_signal()) break; /* a pair that was cut short tells nothing */
    res->own_iops[i] = own;
    res->raw_iops[i] = raw;
    res->ratio[i] = raw > 0 ? own / raw : 0;
    double own_cpu =
        res->ops > ops ? (double)(res->cpu_ns_cores - cpu) / (double)(res->ops - ops) : 0;
    res->cpu_ratio[i] = own_cpu > 0 ? raw_cpu / own_cpu : 0;
    res->pairs = i + 1;
  }
  progress_end(&p);
  return r;
}

int crew_control(struct crew *c, struct bench_result *res) {
  struct bench_files files;
  struct raw_loop *raws[CREW_MAX] = {0};
  uint32_t shards[CREW_MAX], count = 0;
  int r = bench_files_find(&files, c->b);
  for (uint32_t i = 0; r == 0 && i < c->b->cores; i++) {
    if (c->b->core_shard[i] == SR_SHARDS_MAX) continue;
    shards[count] = c->b->core_shard[i];
    r = make_raw(&raws[count], c->b, &files, i);
    if (r == 0) count++;
  }
  if (r == 0) r = run_pairs(c, res, raws, shards, count);
  if (count > 0) say_raw(res, raws[0], &files);
  for (uint32_t i = 0; i < count; i++) raw_loop_destroy(raws[i]);
  bench_files_free(&files);
  return r;
}

/* ---- The raw loop alone ------------------------------------------------------------------------
 */

/* What --fixedbufs and --registerfiles ask for. */
static int check_flags(const struct bench *b, const char *flags) {
  const char *what = b->o.fio.fixed_buffers && strstr(flags, "!BUFFERS")  ? "--fixedbufs"
                     : b->o.fio.register_files && strstr(flags, "!FILES") ? "--registerfiles"
                                                                          : NULL;
  if (!what) return 0;
  fprintf(stderr,
          "shard-bench: %s: the kernel has registered none: the limit of locked memory may be too "
          "low (ulimit -l), or lower --iodepth\n",
          what);
  return -ENOTSUP;
}

static void say_error(const struct bench *b, int error) {
  if (error == -EOPNOTSUPP && b->o.fio.hipri)
    fputs("shard-bench: --hipri: the device has no poll queues, or its file system does not poll: "
          "for NVMe load the driver with nvme.poll_queues=N; else leave --hipri away\n",
          stderr);
  else
    bench_fail("raw loop", error);
}

int bench_run_raw(struct bench *b, struct bench_result *res) {
  struct bench_files files;
  struct raw_loop *raw = NULL;
  struct raw_loop_result slice;
  struct live live = {0};
  struct live_line p;
  res->direction = bench_direction(b->o.rw);
  int r = bench_files_find(&files, b);
  if (r == 0) r = make_raw(&raw, b, &files, 0);
  live_begin(&p, "raw", &live, 1);
  for (uint64_t left = (uint64_t)(b->o.runtime_s * 1e9), all = left;
       r == 0 && left > 0 && !bench_stop_signal();) {
    uint64_t ns = left < SLICE_NS ? left : SLICE_NS, process = bench_process_cpu_ns();
    bench_usage_add(&res->usage, true);
    r = raw_loop_run(raw, ns, &slice);
    bench_usage_add(&res->usage, false);
    if (r == 0)
      r = check_flags(b, raw_loop_flags(raw));
    else
      say_error(b, r);
    if (r < 0) break;
    res->ops += slice.ops;
    res->bytes += slice.bytes;
    res->elapsed_ns += slice.elapsed_ns;
    res->cpu_ns_cores += slice.cpu_ns;
    res->cpu_ns_process += bench_process_cpu_ns() - process;
    left -= ns;
    live_add(&live, slice.ops, slice.bytes, 0);
    live_step(&p, all - left, all);
  }
  live_end(&p);
  if (r != -EOPNOTSUPP || !b->o.fio.hipri) res->error = r;
  if (raw) say_raw(res, raw, &files);
  raw_loop_destroy(raw);
  bench_files_free(&files);
  bench_rates(res);
  return r;
}
