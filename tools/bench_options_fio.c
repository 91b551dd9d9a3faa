/* bench_options_fio.c - the third part of what may be asked of shard-bench: what fio's users know.
 * Main thread. */
#include "tools/args.h"
#include "tools/bench.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int refuse(const char *message) {
  fprintf(stderr, "shard-bench: %s\n", message);
  return -EINVAL;
}

static int refuse_value(const char *option, const char *value, const char *why, const char *legal) {
  fprintf(stderr, "shard-bench: --%s=%s: not a legal value%s%s; legal: %s\n", option, value,
          *why ? ": " : "", why, legal);
  return -EINVAL;
}

static bool is_load(const struct bench_options *o) {
  return o->workload == WORK_LOAD && (o->engine == ENGINE_STORE || o->engine == ENGINE_VOLUME);
}

/* ---- Taking apart -------------------------------------------------------------------------- */

static int take_split(struct bench_options *o) {
  struct fio_options *f = &o->fio;
  char why[160];
  if (!f->split_text) return 0;
  if (split_parse(f->split_text, &f->split, why, sizeof(why)) < 0)
    return refuse_value("bssplit", f->split_text, why,
                        "sizes and percentages as 4k/60:64k/40, which add up to 100");
  if (o->bs_given) return refuse("--bssplit takes the place of --bs");
  o->block_bytes = f->split.max;
  return 0;
}

static int take_target(struct fio_options *f) {
  char *end;
  f->window_ns = 1000000000;
  f->share = 100;
  if (!f->target_text) {
    if (f->window_text || f->share_text)
      return refuse("--latency_window and --latency_percentile go with --latency_target");
    return 0;
  }
  static const char legal[] = "1us to 1 hour, as 500us, 2ms or 1s; a bare number: microseconds";
  if (goal_time(f->target_text, &f->target_ns) < 0)
    return refuse_value("latency_target", f->target_text, "", legal);
  if (f->window_text && goal_time(f->window_text, &f->window_ns) < 0)
    return refuse_value("latency_window", f->window_text, "", legal);
  if (!f->share_text) return 0;
  f->share = isdigit((unsigned char)*f->share_text) ? strtod(f->share_text, &end) : 0;
  if (!(f->share > 0 && f->share <= 100) || *end)
    return refuse_value("latency_percentile", f->share_text, "",
                        "a number above 0, up to 100, as 99.9");
  return 0;
}

static int take_steady(struct fio_options *f) {
  struct steady_spec *s = &f->steady;
  if (!f->steady_text) {
    if (s->duration_s > 0 || s->ramp_s > 0)
      return refuse("--steadystate_duration and --steadystate_ramp_time go with --steadystate");
    return 0;
  }
  if (steady_parse(f->steady_text, s) < 0)
    return refuse_value("steadystate", f->steady_text, "",
                        "iops, iops_slope, bw or bw_slope, and a limit, as iops_slope:0.3% or "
                        "iops:500");
  if (s->duration_s <= 0) s->duration_s = 10;
  return 0;
}

/* A list of CPUs always: "2" is the third CPU, where --cores=2 means two of them. */
static int take_cpus(struct bench_options *o) {
  const char *list = o->fio.cpus_allowed;
  if (!list) return 0;
  size_t n = strlen(list);
  if (strspn(list, "0123456789,-") != n || n >= sizeof(o->core_list) ||
      !isdigit((unsigned char)*list))
    return refuse_value("cpus_allowed", list, "", "a list of CPUs as 0-3,8 or 5");
  if (o->cores) return refuse("--cpus_allowed and --cores say the same: use one of them");
  o->cores = list;
  memcpy(o->core_list, list, n + 1);
  return 0;
}

int bench_take_fio(struct bench_options *o) {
  int r = take_split(o);
  if (r == 0) r = take_target(&o->fio);
  if (r == 0) r = take_steady(&o->fio);
  return r < 0 ? r : take_cpus(o);
}

/* ---- What does not go together ------------------------------------------------------------- */

static int check_split(const struct bench_options *o) {
  bool reads = o->rw == RW_RANDREAD || o->rw == RW_READ;
  if (o->fio.split.count == 0) return 0;
  if (o->engine == ENGINE_VHOST)
    return refuse("--bssplit is for blobs, volumes and the raw loop; --engine=vhost sends requests "
                  "of one size: --bs");
  if (o->workload != WORK_LOAD) return refuse("--bssplit goes without --workload");
  if (o->engine != ENGINE_VOLUME && !reads)
    return refuse("--bssplit goes with --rw=randread and read (a blob is put and got whole); "
                  "--engine=volume splits writes as well");
  if (o->first_writes || o->sizes.kind || o->remote_given)
    return refuse("--bssplit does not go with --first-writes, --blob-size-dist and --remote");
  return 0;
}

static int check_target(const struct bench_options *o) {
  const struct fio_options *f = &o->fio;
  if (!f->target_ns) return 0;
  if (!is_load(o) || o->control || o->first_writes || o->rw == RW_FLUSH || o->rw == RW_OPEN ||
      o->rw == RW_DELETE)
    return refuse("--latency_target is for reads and writes of blobs and volumes, without "
                  "--control and --first-writes");
  if (o->rate)
    return refuse("--latency_target looks for a depth, --rate_iops for latencies at a rate: use "
                  "one of them");
  if (o->gtod_reduce) return refuse("--latency_target is about latency: leave --gtod_reduce away");
  if (o->verify && o->rw == RW_PUT)
    return refuse("--latency_target does not go with --verify of puts, which go on until each blob "
                  "is there: use --rw=randwrite");
  return 0;
}

static int check_steady(const struct bench_options *o) {
  const struct steady_spec *s = &o->fio.steady;
  if (s->limit <= 0) return 0;
  if (!is_load(o) || o->control || o->first_writes || o->rw == RW_FLUSH || o->rw == RW_OPEN ||
      o->rw == RW_DELETE)
    return refuse("--steadystate is for reads and writes of blobs and volumes, without --control "
                  "and --first-writes");
  if (s->duration_s + s->ramp_s > o->runtime_s)
    return refuse("--steadystate cannot be reached: --runtime is shorter than "
                  "--steadystate_duration (default 10 s) and --steadystate_ramp_time together");
  if (s->bandwidth && (o->rw == RW_FLUSH || o->rw == RW_OPEN))
    return refuse("--steadystate=bw needs requests that move data");
  return 0;
}

static int check_registered(const struct bench_options *o) {
  const struct fio_options *f = &o->fio;
  bool buffers_off = f->fixed_buffers_given && !f->fixed_buffers;
  bool files_off = f->register_files_given && !f->register_files;
  if (buffers_off || files_off)
    return refuse("--fixedbufs=0 and --registerfiles=0: io_uring engines here always register what "
                  "the system lets them; leave the option away, or use --device=pool");
  if (!f->fixed_buffers && !f->register_files) return 0;
  if (o->engine == ENGINE_VHOST)
    return refuse("--fixedbufs and --registerfiles: a vhost-user server decides itself how it "
                  "does I/O; ask it there");
  if (o->device != DEVICE_URING)
    return refuse("--fixedbufs and --registerfiles are io_uring's: use --device=uring");
  return 0;
}

static int check_hipri(const struct bench_options *o) {
  if (!o->fio.hipri || (o->engine == ENGINE_RAW && o->workload == WORK_LOAD)) return 0;
  return refuse("--hipri: only the raw loop polls devices for completions (--engine=raw, on a "
                "device with poll queues); the store's engines wait for interrupts");
}

static int check_groups(const struct bench_options *o) {
  if (!o->fio.group_given || o->fio.group_reporting) return 0;
  if (o->control || o->control_file || o->engine == ENGINE_RAW || o->workload != WORK_LOAD ||
      o->rw == RW_OPEN)
    return refuse("--group_reporting=0 is for loads of several cores, jobs or queues, without "
                  "--control, --engine=raw, --rw=open and --workload");
  return 0;
}

static int check_ops(const struct bench_options *o) {
  if (!o->ops || o->workload != WORK_LOAD) return 0;
  if (!is_load(o) || o->control || o->rate || o->first_writes || o->rw == RW_FLUSH ||
      o->rw == RW_OPEN || o->ramp_s > 0)
    return refuse("--ops is for closed loads of blobs and volumes, without --control, "
                  "--first-writes and --ramp_time");
  if (o->fio.target_ns || o->fio.steady.limit > 0)
    return refuse("--ops does not go with --latency_target and --steadystate, which end by "
                  "themselves");
  return 0;
}

/* Depth and batch are what they will be. */
static int check_complete(struct bench_options *o) {
  struct fio_options *f = &o->fio;
  if (!f->complete_given) f->complete = o->batch;
  if (f->complete <= o->iodepth) return 0;
  fprintf(stderr,
          "shard-bench: --iodepth_batch_complete=%llu: not a legal value here; legal: 1 up to "
          "--iodepth\n",
          (unsigned long long)f->complete);
  return -EINVAL;
}

int bench_check_fio(struct bench_options *o) {
  int r = check_complete(o);
  if (r == 0) r = check_split(o);
  if (r == 0) r = check_target(o);
  if (r == 0) r = check_steady(o);
  if (r == 0) r = check_registered(o);
  if (r == 0) r = check_hipri(o);
  if (r == 0) r = check_groups(o);
  if (r == 0) r = check_ops(o);
  if (r == 0 && o->fio.target_ns) o->sample = 1;
  return r;
}
