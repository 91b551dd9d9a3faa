/* bench_pin.c - what the process has of the system: CPUs, registered memory and files, time used.
 * Main thread. */
#include "tools/bench.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

static int take_list(const char *list, cpu_set_t *set) {
  CPU_ZERO(set);
  for (const char *at = list; *at;) {
    char *end;
    unsigned long first = strtoul(at, &end, 10), last = first;
    if (end == at) return -EINVAL;
    if (*end == '-') {
      at = end + 1;
      last = strtoul(at, &end, 10);
      if (end == at) return -EINVAL;
    }
    if (first > last || last >= CPU_SETSIZE || (*end && *end != ',')) return -EINVAL;
    for (unsigned long i = first; i <= last; i++) CPU_SET(i, set);
    at = end + (*end == ',');
  }
  return 0;
}

int bench_pin(const struct bench_options *o) {
  cpu_set_t set;
  if (!o->core_list[0] || (o->engine != ENGINE_RAW && o->engine != ENGINE_VHOST)) return 0;
  int r = take_list(o->core_list, &set);
  if (r == 0 && sched_setaffinity(0, sizeof(set), &set) < 0) r = -errno;
  if (r == 0) return 0;
  fprintf(stderr, "shard-bench: --%s=%s: %s: no CPU of this list can be used here\n",
          o->fio.cpus_allowed ? "cpus_allowed" : "cores", o->cores, strerror(-r));
  return -EINVAL;
}

static uint64_t ns_of(struct timeval t) {
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_usec * 1000u;
}

/* Differences, by arithmetic that wraps: what is begun is taken off. */
void bench_usage_add(struct bench_usage *u, bool begin) {
  struct rusage now;
  getrusage(RUSAGE_SELF, &now);
  uint64_t sign = begin ? UINT64_MAX : 1;
  u->user_ns += sign * ns_of(now.ru_utime);
  u->system_ns += sign * ns_of(now.ru_stime);
  u->switches += sign * (uint64_t)(now.ru_nvcsw + now.ru_nivcsw);
  u->major_faults += sign * (uint64_t)now.ru_majflt;
  u->minor_faults += sign * (uint64_t)now.ru_minflt;
}

int bench_check_registered(struct bench *b) {
  const struct fio_options *f = &b->o.fio;
  struct sr_core_stats s;
  if (!b->store || b->o.engine == ENGINE_RAW) return 0;
  for (uint32_t i = 0; i < b->cores && (f->fixed_buffers || f->register_files); i++) {
    if (sr_core_stats(b->port, i, &s) < 0) continue;
    const char *what = f->fixed_buffers && !s.buffers_registered  ? "--fixedbufs"
                       : f->register_files && !s.files_registered ? "--registerfiles"
                                                                  : NULL;
    if (!what) continue;
    fprintf(stderr, "shard-bench: %s: the store's engine (%s) has none registered%s\n", what,
            s.engine,
            strcmp(s.engine, "uring") == 0
                ? ": the limit of locked memory may be too low (ulimit -l), or lower --iodepth"
                : ": it needs io_uring (--device=uring)");
    return -ENOTSUP;
  }
  return 0;
}
