/* bench_shares.c - how exactly limits are kept, and what a busy volume costs its neighbour. Main
 * thread; the neighbours' loads run on the core that both volumes lie on. */
#include "tools/bench.h"
#include "tools/progress.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MIB       UINT64_C(1048576)
#define DEPTH_MAX 256u

static int make(struct bench *b, const char *name, uint64_t bytes, struct bench_target *t) {
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct sr_volume_info info;
  v.size_bytes = b->o.volume_size_given ? b->o.volume_bytes : bytes;
  v.integrity = bench_integrity(&b->o);
  v.on_shard = true; /* both neighbours on one */
  v.shard = b->core_shard[0] < b->shards ? b->core_shard[0] : 0;
  bool there = sr_volume_stat(b->port, name, &info) == 0;
  int r = there ? 0 : sr_volume_create(b->port, name, &v);
  if (r == 0) r = sr_volume_open(b->port, name, NULL, &t->block);
  if (r < 0) return bench_fail(name, r);
  t->number = 0;
  t->shard = there ? info.shard : v.shard;
  return there ? 0 : bench_volume_fill(b, t->block, 0, b->o.reserve);
}

/* ---- Limits ------------------------------------------------------------------------------- */

struct pace {
  struct bench *b;
  struct sr_block *block;
  struct sr_request requests[DEPTH_MAX];
  char *memory;
  uint64_t random, bytes;
  uint32_t depth;
};

static int send(struct pace *p, struct sr_request *r) {
  uint64_t places = sr_block_size_bytes(p->block) / p->bytes;
  p->random ^= p->random << 13;
  p->random ^= p->random >> 7;
  p->random ^= p->random << 17;
  r->op = SR_OP_READ;
  r->block = p->block;
  r->buf = p->memory + (size_t)(r - p->requests) * p->bytes;
  r->bytes = p->bytes;
  r->offset = p->random % places * p->bytes;
  int n = sr_port_submit(p->b->port, &r, 1);
  return n == 1 ? 0 : n < 0 ? n : -EIO;
}

/* Keeps `depth` in flight for so long. How many have finished in the time from the first one that
 * did after `skip_ns` to the last one; that one does not count, as its time does not either. */
static int run_pace(struct pace *p, uint64_t skip_ns, uint64_t ns, double *per_s) {
  struct sr_request *done[64];
  uint64_t start = bench_now_ns(), first = 0, last = 0, count = 0;
  uint32_t in_flight = 0;
  int r = 0;
  for (; r == 0 && in_flight < p->depth; in_flight += r == 0) r = send(p, &p->requests[in_flight]);
  while (in_flight > 0) {
    sr_port_wait(p->b->port, -1);
    int n = sr_port_reap(p->b->port, done, 64);
    uint64_t now = bench_now_ns();
    bool over = r < 0 || bench_stop_signal() || now - start >= skip_ns + ns;
    if (n > 0 && now - start >= skip_ns && !over) {
      if (first == 0)
        first = now;
      else
        count += (uint64_t)n, last = now;
    }
    for (int i = 0; i < n; i++) {
      in_flight--;
      if (r == 0 && done[i]->result < 0) r = (int)done[i]->result;
      if (r == 0 && !over && (r = send(p, done[i])) == 0) in_flight++;
    }
  }
  if (r == 0 && bench_stop_signal()) r = -EINTR;
  *per_s = last > first ? (double)count * 1e9 / (double)(last - first) : 0;
  return r < 0 ? bench_fail("read", r) : 0;
}

/* The bucket holds a tenth of a second, and is empty before the measurement begins. */
static struct sr_bucket bucket(uint64_t per_s) {
  return (struct sr_bucket){.size = per_s / 10, .refill_ms = 100};
}

static int one_limit(struct pace *p, const char *name, uint64_t per_s, bool bytes,
                     struct bench_figures *f, double *worst) {
  struct sr_limits limits = SR_LIMITS_INIT, none = SR_LIMITS_INIT;
  char title[64], note[96];
  double got;
  if (bytes)
    limits.bytes = bucket(per_s);
  else
    limits.ops = bucket(per_s);
  p->bytes = bytes ? 65536 : p->b->o.block_bytes;
  p->depth = per_s <= 1000 && !bytes ? 8 : 64;
  int r = sr_volume_limit(p->b->port, name, &limits);
  if (r < 0) return bench_fail("limit", r);
  uint64_t ns = (uint64_t)(p->b->o.runtime_s * 1e9);
  r = run_pace(p, ns < 1000000000 ? ns / 2 : 500000000, ns, &got);
  if (r == 0 && (r = sr_volume_limit(p->b->port, name, &none)) < 0) bench_fail("limit", r);
  if (r < 0) return r;
  if (bytes) got *= (double)p->bytes;
  double error = (got / (double)per_s - 1) * 100, scale = bytes ? 1e6 : 1;
  if (fabs(error) > *worst) *worst = fabs(error);
  snprintf(title, sizeof(title), "%.0f %s", (double)per_s / scale, bytes ? "mb/s" : "iops");
  snprintf(note, sizeof(note), "%+.2f %%", error);
  bench_figure(f, title, got / scale, "", note);
  return 0;
}

int bench_work_limits(struct bench *b, struct bench_figures *f) {
  static const uint64_t iops[] = {10, 100, 1000, 10000, 50000};
  static const uint64_t mb[] = {1, 10, 100, 500};
  static struct pace p;
  struct bench_target target = {0};
  struct progress bar;
  double worst = 0;
  int r = make(b, "limits", 64 * MIB, &target);
  p = (struct pace){.b = b, .block = target.block, .random = b->o.seed * 2 + 1};
  p.memory = sr_buffer_alloc(b->store, DEPTH_MAX * 65536, true);
  if (r == 0 && !p.memory) r = bench_fail("buffers", -ENOMEM);
  progress_begin(&bar, "limits");
  for (uint32_t i = 0; r == 0 && i < 5; i++) {
    r = one_limit(&p, "limits", iops[i], false, f, &worst);
    progress_step(&bar, i + 1, 9);
  }
  for (uint32_t i = 0; r == 0 && i < 4; i++) {
    r = one_limit(&p, "limits", mb[i] * 1000000, true, f, &worst);
    progress_step(&bar, i + 6, 9);
  }
  progress_end(&bar);
  bench_figure(f, "worst error", worst, "%", NULL);
  if (p.memory) sr_buffer_free(b->store, p.memory);
  if (target.block) sr_block_close(b->port, target.block);
  return r;
}

/* ---- Neighbours --------------------------------------------------------------------------- */

#define ROUNDS 8u

struct neighbours {
  struct bench_target targets[2]; /* the quiet one, the busy one */
  struct load loads[2];
  sem_t finished[2];
};

struct neighbour_slice {
  double p50_us, p99_us, busy;
};

static int init_load(struct bench *b, struct neighbours *n, uint32_t i) {
  struct load_config c = {.rw = RW_RANDREAD,
                          .depth = i == 0 ? 1 : (uint32_t)b->o.iodepth,
                          .batch = i == 0 ? 1 : (uint32_t)b->o.batch,
                          .request_bytes = b->o.block_bytes,
                          .targets = &n->targets[i],
                          .target_count = 1,
                          .sample = i == 0 ? 1 : b->o.sample,
                          .seed = b->o.seed + i,
                          .finished = &n->finished[i]};
  c.count = b->volumes->bytes / c.request_bytes;
  int r = load_init(&n->loads[i], b, &c);
  return r < 0 ? bench_fail("buffers", r) : 0;
}

static void wait_load(struct neighbours *n, uint32_t i) {
  struct timespec until;
  do {
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec++;
    if (bench_stop_signal())
      for (uint32_t k = 0; k < 2; k++) load_stop(&n->loads[k]);
  } while (sem_timedwait(&n->finished[i], &until) < 0);
}

/* The quiet one for a slice, alone or beside the busy one, which begins before it and ends after
 * it. The first quarter does not count: who has come to share a device must get to know it. */
static int run_slice(struct neighbours *n, bool beside, uint64_t ns, struct neighbour_slice *s) {
  struct load *quiet = &n->loads[0], *busy = &n->loads[1];
  int r = beside ? load_start_on_core(busy, n->targets[1].shard, ns + ns / 50) : 0;
  bool started = beside && r == 0;
  for (uint32_t i = 0; r == 0 && i < 2; i++) {
    memset(&quiet->latency, 0, sizeof(quiet->latency));
    r = load_start_on_core(quiet, n->targets[0].shard, i == 0 ? ns / 4 : ns - ns / 4);
    if (r == 0) wait_load(n, 0);
    if (r == 0) r = quiet->first_error;
  }
  if (started) wait_load(n, 1);
  if (r == 0 && started) r = busy->first_error;
  s->p50_us = (double)latency_percentile_ns(&quiet->latency, 50) / 1e3;
  s->p99_us = (double)latency_percentile_ns(&quiet->latency, 99) / 1e3;
  s->busy = beside && busy->elapsed_ns ? (double)busy->ops * 1e9 / (double)busy->elapsed_ns : 0;
  return r < 0 ? bench_fail("load", r) : 0;
}

static int by_value(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}
static double median(double *values) {
  qsort(values, ROUNDS, sizeof(*values), by_value);
  return (values[(ROUNDS - 1) / 2] + values[ROUNDS / 2]) / 2;
}

static void report_neighbours(const struct bench *b, struct neighbour_slice (*s)[ROUNDS],
                              struct bench_figures *f) {
  double p50[2][ROUNDS], p99[2][ROUNDS], ratio[ROUNDS], busy[ROUNDS];
  for (uint32_t i = 0; i < ROUNDS; i++) {
    for (uint32_t k = 0; k < 2; k++) p50[k][i] = s[k][i].p50_us, p99[k][i] = s[k][i].p99_us;
    ratio[i] = p99[0][i] > 0 ? p99[1][i] / p99[0][i] : 0;
    busy[i] = s[1][i].busy;
  }
  bench_figure(f, "p50 alone", median(p50[0]), "us", "depth 1");
  bench_figure(f, "p50 beside the other", median(p50[1]), "us", NULL);
  bench_figure(f, "p99 alone", median(p99[0]), "us", NULL);
  bench_figure(f, "p99 beside the other", median(p99[1]), "us", NULL);
  bench_figure(f, "depth of the other", (double)b->o.iodepth, "", NULL);
  bench_figure(f, "rate of the other", median(busy), "", "requests a second, beside the quiet one");
  bench_figure(f, "p99 ratio", median(ratio), "", "median of 8 pairs");
  bench_figure(f, "p99 ratio least", ratio[0], "", NULL);
  bench_figure(f, "p99 ratio most", ratio[ROUNDS - 1], "", NULL);
}

static int run_rounds(struct bench *b, struct neighbours *n, struct bench_figures *f) {
  struct neighbour_slice slices[2][ROUNDS]; /* alone, beside the other */
  uint64_t ns = (uint64_t)(b->o.runtime_s * 1e9 / (2 * ROUNDS));
  struct progress bar;
  int r = 0;
  progress_begin(&bar, "neighbour");
  for (uint32_t i = 0; r == 0 && i < ROUNDS; i++) {
    for (uint32_t k = 0; r == 0 && k < 2; k++) {
      uint32_t beside = (i + k) % 2;
      r = run_slice(n, beside, ns, &slices[beside][i]);
      if (r == 0 && bench_stop_signal()) r = -EINTR;
    }
    progress_step(&bar, i + 1, ROUNDS);
  }
  progress_end(&bar);
  if (r == 0) report_neighbours(b, slices, f);
  return r;
}

int bench_work_neighbour(struct bench *b, struct bench_figures *f) {
  struct bench_volumes *both = calloc(1, sizeof(*both));
  static struct neighbours n;
  int r = both ? 0 : bench_fail("volumes", -ENOMEM);
  if (r == 0) r = make(b, "neighbour-quiet", 256 * MIB, &n.targets[0]);
  if (r == 0) r = make(b, "neighbour-busy", 256 * MIB, &n.targets[1]);
  for (uint32_t i = 0; i < 2; i++) sem_init(&n.finished[i], 0, 0);
  if (r == 0) {
    both->bytes = sr_block_size_bytes(n.targets[0].block);
    b->volumes = both;
    for (uint32_t i = 0; r == 0 && i < 2; i++) r = init_load(b, &n, i);
    if (r == 0) r = run_rounds(b, &n, f);
    b->volumes = NULL;
    for (uint32_t i = 0; i < 2; i++)
      if (n.loads[i].bench) load_finish(&n.loads[i]);
  }
  for (uint32_t i = 0; i < 2; i++)
    if (n.targets[i].block) sr_block_close(b->port, n.targets[i].block);
  free(both);
  return r;
}
