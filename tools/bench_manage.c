/* bench_manage.c - what managing volumes costs: making clones, opening many of them, opening a
 * store with a large map. Main thread; what is to be measured from the start runs in processes of
 * its own, so that no memory of what went before is counted. */
#include "tools/bench.h"
#include "tools/progress.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define GIB UINT64_C(1073741824)
#define TIB (GIB << 10)

#define BASE     "manage-base"
#define SNAPSHOT "manage-snapshot"

static double seconds_since(uint64_t start_ns) { return (double)(bench_now_ns() - start_ns) / 1e9; }

static uint64_t resident_bytes(void) {
  unsigned long long pages = 0, resident = 0;
  FILE *f = fopen("/proc/self/statm", "re");
  if (!f || fscanf(f, "%llu %llu", &pages, &resident) != 2) resident = 0;
  if (f) fclose(f);
  return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void clone_name(uint64_t i, char name[64]) {
  snprintf(name, 64, "manage-clone-%llu", (unsigned long long)i);
}

/* All of it mapped, nothing written. What is there already is taken as it is. */
static int make_base(struct bench *b, uint64_t bytes, bool snapshot) {
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct sr_volume_info info;
  struct sr_block *block;
  v.size_bytes = b->o.volume_size_given ? b->o.volume_bytes : bytes;
  v.integrity = bench_integrity(&b->o);
  v.striped = b->o.stripe_bytes != 0;
  v.stripe_bytes = (uint32_t)b->o.stripe_bytes;
  if (sr_volume_stat(b->port, snapshot ? SNAPSHOT : BASE, &info) == 0) return 0;
  int r = sr_volume_create(b->port, BASE, &v);
  if (r == 0) r = sr_volume_open(b->port, BASE, NULL, &block);
  if (r < 0) return bench_fail(BASE, r);
  r = bench_volume_fill(b, block, 0, true);
  int closed = sr_block_close(b->port, block);
  if (r < 0) return r;
  r = closed;
  if (r == 0 && snapshot) r = sr_volume_snapshot(b->port, BASE, SNAPSHOT);
  if (r == 0) r = sr_flush(b->port);
  return r < 0 ? bench_fail(BASE, r) : 0;
}

static int make_clones(struct bench *b, uint64_t count, struct latency *latency) {
  struct progress p;
  char name[64];
  int r = 0;
  progress_begin(&p, "clones");
  for (uint64_t i = 0; r == 0 && i < count; i++) {
    clone_name(i, name);
    uint64_t start = bench_now_ns();
    r = sr_volume_clone(b->port, SNAPSHOT, name, NULL);
    latency_add(latency, bench_now_ns() - start);
    if (r == 0 && bench_stop_signal()) r = -EINTR;
    progress_step(&p, i, count);
  }
  progress_end(&p);
  return r < 0 ? bench_fail(name, r) : 0;
}

static int remove_clones(struct bench *b) {
  char after[SR_VOLUME_NAME_BYTES_MAX + 1] = "manage-clone-";
  struct sr_volume_info info;
  int r;
  while ((r = sr_volume_list(b->port, after, &info, 1)) == 1) {
    if (strncmp(info.name, "manage-clone-", 13) != 0) return 0;
    snprintf(after, sizeof(after), "%s", info.name);
    if ((r = sr_volume_remove(b->port, after)) < 0) break;
  }
  return r < 0 ? bench_fail("clones of another run", r) : 0;
}

int bench_work_clone_create(struct bench *b, struct bench_figures *f) {
  static struct latency latency;
  uint64_t count = b->o.clones ? b->o.clones : 2000;
  struct sr_volume_info info;
  int r = make_base(b, 10 * GIB, true);
  if (r == 0) r = remove_clones(b);
  if (r == 0) r = make_clones(b, count, &latency);
  if (r < 0) return r;
  uint64_t start = bench_now_ns();
  r = sr_flush(b->port);
  double flush_s = seconds_since(start);
  if (r == 0) r = sr_volume_stat(b->port, SNAPSHOT, &info);
  if (r < 0) return bench_fail("flush", r);
  bench_figure(f, "base", (double)info.size_bytes / (double)GIB, "gib", "mapped, not written");
  bench_figure(f, "clones", (double)count, "", "counted at once, durable with the flush");
  bench_figure(f, "create mean", latency_mean_ns(&latency) / 1e3, "us", NULL);
  bench_figure(f, "create p50", (double)latency_percentile_ns(&latency, 50) / 1e3, "us", NULL);
  bench_figure(f, "create p99", (double)latency_percentile_ns(&latency, 99) / 1e3, "us", NULL);
  bench_figure(f, "create max", (double)latency.max_ns / 1e3, "us", NULL);
  bench_figure(f, "flush of all", flush_s * 1e3, "ms", NULL);
  return 0;
}

/* ---- In a process of its own ------------------------------------------------------------------
 */

struct answer {
  int error;
  double open_s, handles_s, list_s;
  uint64_t resident_before, resident_open, resident_handles;
  uint64_t map_bytes, used_bytes;
};
typedef int child_fn(struct bench *b, struct answer *a);

/* A copy of this process runs fn and dies; no cores are running here yet. kill: it dies by
 * SIGKILL, as soon as fn has returned. */
static int in_child(struct bench *b, child_fn *fn, bool kill_it, struct answer *a) {
  int ends[2], status = 0;
  if (pipe(ends) < 0) return bench_fail("pipe", -errno);
  pid_t child = fork();
  if (child < 0) return bench_fail("fork", -errno);
  if (child == 0) {
    bench_stop_watch();
    memset(a, 0, sizeof(*a));
    a->resident_before = resident_bytes();
    a->error = fn(b, a);
    if (write(ends[1], a, sizeof(*a)) != (ssize_t)sizeof(*a)) _exit(1);
    if (kill_it) kill(getpid(), SIGKILL);
    if (b->store) bench_close(b);
    _exit(0);
  }
  close(ends[1]);
  bench_stop_child(child);
  ssize_t n = read(ends[0], a, sizeof(*a));
  close(ends[0]);
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  bench_stop_child(0);
  if (bench_stop_signal()) return -EINTR;
  return n == (ssize_t)sizeof(*a) ? a->error : bench_fail("process", -EIO);
}

static int timed_open(struct bench *b, struct answer *a) {
  uint64_t start = bench_now_ns();
  int r = bench_open(b);
  a->open_s = seconds_since(start);
  a->resident_open = resident_bytes();
  return r;
}

/* ---- Many clones ----------------------------------------------------------------------------- */

static uint64_t clone_count(const struct bench *b) { return b->o.clones ? b->o.clones : 10000; }

static int base_child(struct bench *b, struct answer *a) {
  int r = timed_open(b, a);
  if (r == 0) r = make_base(b, GIB, true);
  return r < 0 ? r : remove_clones(b);
}

static int clones_child(struct bench *b, struct answer *a) {
  static struct latency latency;
  int r = timed_open(b, a);
  if (r == 0) r = make_clones(b, clone_count(b), &latency);
  if (r == 0 && (r = sr_flush(b->port)) < 0) bench_fail("flush", r);
  return r;
}

static int handles_child(struct bench *b, struct answer *a) {
  uint64_t count = clone_count(b);
  struct sr_block **blocks = calloc(count, sizeof(*blocks));
  char name[64];
  int r = blocks ? timed_open(b, a) : -ENOMEM;
  uint64_t start = bench_now_ns();
  for (uint64_t i = 0; r == 0 && i < count; i++) {
    clone_name(i, name);
    if ((r = sr_volume_open(b->port, name, NULL, &blocks[i])) < 0) bench_fail(name, r);
    if (r == 0 && bench_stop_signal()) r = -EINTR;
  }
  a->handles_s = seconds_since(start);
  /* What this array takes of the difference is not the store's. */
  a->resident_handles = resident_bytes() - count * sizeof(*blocks);
  for (uint64_t i = 0; i < count && blocks; i++)
    if (blocks[i]) sr_block_close(b->port, blocks[i]);
  free(blocks);
  return r;
}

int bench_work_clone_open(struct bench *b, struct bench_figures *f) {
  struct answer base, empty, made, full;
  double count = (double)clone_count(b);
  int r = in_child(b, base_child, false, &base);
  if (r == 0) r = in_child(b, timed_open, false, &empty);
  if (r == 0) r = in_child(b, clones_child, false, &made);
  if (r == 0) r = in_child(b, handles_child, false, &full);
  if (r < 0) return r;
  bench_figure(f, "clones", count, "", "of one snapshot");
  bench_figure(f, "open all", full.handles_s, "s", NULL);
  bench_figure(f, "store open", full.open_s, "s", "with all of them in it");
  bench_figure(f, "store open without", empty.open_s, "s", "with the base alone");
  bench_figure(f, "ram per closed clone",
               ((double)full.resident_open - (double)empty.resident_open) / count, "bytes",
               "resident, against the store with the base alone");
  bench_figure(f, "ram per idle clone",
               ((double)full.resident_handles - (double)empty.resident_open) / count, "bytes",
               "the same, open");
  return 0;
}

/* ---- A large map ----------------------------------------------------------------------------- */

static int map_child(struct bench *b, struct answer *a) {
  struct sr_space space;
  int r = timed_open(b, a);
  if (r == 0) r = make_base(b, TIB, false);
  if (r == 0 && sr_space(b->port, &space) == 0) a->map_bytes = space.volume_ram_bytes;
  return r;
}

static int map_open_child(struct bench *b, struct answer *a) {
  struct sr_space space;
  struct sr_volume_info info;
  int r = timed_open(b, a);
  if (r == 0 && (r = sr_volume_stat(b->port, BASE, &info)) < 0) bench_fail(BASE, r);
  if (r == 0 && (r = sr_space(b->port, &space)) < 0) bench_fail("space", r);
  if (r < 0) return r;
  a->map_bytes = space.volume_ram_bytes;
  a->used_bytes = info.used_bytes;
  if (info.used_bytes == info.size_bytes) return 0;
  fprintf(stderr, "shard-bench: of %llu bytes that were mapped %llu are there\n",
          (unsigned long long)info.size_bytes, (unsigned long long)info.used_bytes);
  return -EBADMSG;
}

int bench_work_map_open(struct bench *b, struct bench_figures *f) {
  struct answer empty, made, again;
  int r = in_child(b, timed_open, false, &empty);
  if (r == 0) r = in_child(b, map_child, true, &made);
  if (r == 0) r = in_child(b, map_open_child, false, &again);
  if (r < 0) return r;
  bench_figure(f, "mapped", (double)again.used_bytes / (double)GIB, "gib", "not written");
  bench_figure(f, "open after kill", again.open_s, "s", NULL);
  bench_figure(f, "open of the empty store", empty.open_s, "s", NULL);
  bench_figure(f, "ram of the map", (double)again.map_bytes / 1048576, "mib",
               "as sr_space() counts it");
  bench_figure(f, "resident", ((double)again.resident_open - (double)empty.resident_open) / 1048576,
               "mib", "more than with the empty store");
  return 0;
}
