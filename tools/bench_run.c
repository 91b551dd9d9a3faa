/* bench_run.c - runs loads side by side. Main thread; loads run on cores, or in threads of their
 * own. */
#include "tools/bench_crew.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#define FLUSH_PUTS 8 /* puts before each flush of --rw=flush */

static uint64_t thread_cpu_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

uint64_t bench_process_cpu_ns(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000000u +
         ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000u;
}

/* ---- Calls on a core ---------------------------------------------------------------------- */

static void read_cpu(struct sr_port *port, void *arg) {
  struct core_call *c = arg;
  (void)port;
  c->cpu_ns = thread_cpu_ns();
  sem_post(&c->done);
}

void crew_wait(sem_t *s) {
  while (sem_wait(s) < 0 && errno == EINTR) continue;
}

int crew_post(struct bench *b, uint32_t shard, sr_run_fn *fn, struct core_call *c) {
  int r;
  sem_init(&c->done, 0, 0);
  while ((r = sr_store_run(b->store, shard, fn, c)) == -EAGAIN) sched_yield();
  return r;
}

static uint64_t cores_cpu_ns(struct bench *b) {
  uint64_t sum = 0;
  for (uint32_t i = 0; i < b->cores; i++) {
    struct core_call c = {0};
    if (b->core_shard[i] == SR_SHARDS_MAX || crew_post(b, b->core_shard[i], read_cpu, &c) < 0)
      continue;
    crew_wait(&c.done);
    sum += c.cpu_ns;
  }
  return sum;
}

/* ---- The crew: one load for each core or job --------------------------------------------------
 */

/* Sorts the numbers of all blobs by the core that owns them. */
static int sort_numbers(struct crew *c, uint64_t *start) {
  struct bench *b = c->b;
  uint64_t at[SR_CORES_MAX + 1] = {0};
  c->numbers = malloc((b->o.blobs + 1) * sizeof(*c->numbers));
  if (!c->numbers) return -ENOMEM;
  for (int pass = 0; pass < 2; pass++) {
    for (uint64_t n = 0; n < b->o.blobs; n++) {
      uint32_t shard = sr_shard_of(b->store, bench_id(n, b->o.seed));
      uint32_t core = sr_core_of_shard(b->store, shard);
      if (pass == 0)
        at[core + 1]++;
      else
        c->numbers[at[core]++] = (uint32_t)n;
    }
    if (pass == 1) break;
    for (uint32_t i = 0; i < b->cores; i++) at[i + 1] += at[i];
    memcpy(start, at, (b->cores + 1) * sizeof(*at));
  }
  return 0;
}

static struct load_config base_config(struct crew *c) {
  const struct bench_options *o = &c->b->o;
  return (struct load_config){
      .rw = o->rw,
      .depth = (uint32_t)o->iodepth,
      .batch = (uint32_t)o->batch,
      .request_bytes = bench_request_bytes(o),
      .sample = o->sample,
      .rate = o->rate,
      .distribution = &o->distribution,
      .once = o->first_writes,
      .sizes = o->sizes.kind ? &o->sizes : NULL,
      .flush_every = o->flush_every,
      .script = bench_script_of(o),
      .complete = (uint32_t)o->fio.complete,
      .split = o->fio.split.count ? &c->b->o.fio.split : NULL,
      .finished = &c->finished,
  };
}

static int add_load(struct crew *c, const struct load_config *config) {
  struct load_config own = *config;
  own.seed = c->b->o.seed + c->count * UINT64_C(0x9e3779b9);
  own.left = c->b->o.ops;
  if (own.once || (own.rw == RW_DELETE && (!own.left || own.left > own.count)))
    own.left = own.count;
  int r = load_init(&c->loads[c->count], c->b, &own);
  if (r == 0) c->count++;
  return r;
}

/* Each core's load goes to the volumes of its shards; striped ones are everybody's. */
static int gather_volumes_on_cores(struct crew *c) {
  struct bench *b = c->b;
  const struct bench_volumes *v = b->volumes;
  bool striped = b->o.stripe_bytes != 0;
  int r = 0;
  for (uint32_t i = 0, end; r == 0 && i < v->count; i = end) {
    uint32_t core = sr_core_of_shard(b->store, v->targets[i].shard);
    for (end = i + 1; end < v->count; end++)
      if (!striped && sr_core_of_shard(b->store, v->targets[end].shard) != core) break;
    struct load_config config = base_config(c);
    config.targets = v->targets + i;
    config.target_count = end - i;
    config.count = config.target_count * (v->bytes / config.request_bytes);
    for (uint32_t k = 0; r == 0 && k < (striped ? b->cores : 1); k++) {
      uint32_t shard = striped ? b->core_shard[k] : v->targets[i].shard;
      if (shard == SR_SHARDS_MAX) continue;
      c->shard[c->count] = shard;
      r = add_load(c, &config);
    }
  }
  return r;
}

static int gather_on_cores(struct crew *c) {
  struct bench *b = c->b;
  if (b->volumes) return gather_volumes_on_cores(c);
  uint64_t start[SR_CORES_MAX + 1];
  int r = sort_numbers(c, start);
  for (uint32_t i = 0; r == 0 && i < b->cores; i++) {
    struct load_config config = base_config(c);
    config.count = start[i + 1] - start[i];
    /* With one shard every blob is its own: no table to look up. With several there is one on a
     * lone core, too, so that two cores are not slower by it. */
    config.numbers = sr_shard_count(b->store) > 1 ? c->numbers + start[i] : NULL;
    config.all = c->numbers;
    config.all_first = start[i];
    config.all_count = b->o.blobs;
    config.remote_percent = b->o.remote;
    if (b->core_shard[i] == SR_SHARDS_MAX || config.count == 0) continue;
    c->shard[c->count] = b->core_shard[i];
    r = add_load(c, &config);
  }
  return r;
}

static int gather_clients(struct crew *c) {
  const struct bench_options *o = &c->b->o;
  struct sr_port_options p = SR_PORT_OPTIONS_INIT;
  int r = 0;
  p.depth = (uint32_t)(o->iodepth + 8 > 1024 ? o->iodepth + 8 : 1024);
  for (uint64_t i = 0; r == 0 && i < o->numjobs; i++) {
    struct load_config config = base_config(c);
    bool all = o->rw == RW_RANDREAD || o->rw == RW_GET || config.script || o->blobs < o->numjobs;
    uint64_t things = o->blobs;
    if (c->b->volumes) {
      config.targets = c->b->volumes->targets;
      config.target_count = c->b->volumes->count;
      things = config.target_count * (c->b->volumes->bytes / config.request_bytes);
      all = (o->rw != RW_READ && o->rw != RW_WRITE && !o->first_writes) || things < o->numjobs;
    }
    config.first = all ? 0 : things * i / o->numjobs;
    config.count = all ? things : things * (i + 1) / o->numjobs - config.first;
    r = sr_port_open(c->b->store, &p, &c->ports[i]);
    if (r == 0) r = add_load(c, &config);
  }
  return r;
}

void crew_finish(struct crew *c) {
  for (uint32_t i = 0; i < c->count; i++) load_finish(&c->loads[i]);
  for (uint32_t i = 0; i < CREW_MAX; i++) sr_port_close(c->ports[i]);
  free(c->loads);
  free(c->live);
  free(c->numbers);
  sem_destroy(&c->finished);
  free(c);
}

static int crew_watch(struct crew *c) {
  c->live = calloc(c->count, sizeof(*c->live));
  if (!c->live) return -ENOMEM;
  for (uint32_t i = 0; i < c->count; i++) load_watch(&c->loads[i], &c->live[i]);
  return 0;
}

int crew_gather(struct crew **crew, struct bench *b) {
  struct crew *c = calloc(1, sizeof(*c));
  if (!c) return -ENOMEM;
  c->b = b;
  sem_init(&c->finished, 0, 0);
  c->loads = calloc(CREW_MAX, sizeof(*c->loads));
  int r = c->loads ? 0 : -ENOMEM;
  if (r == 0) r = b->o.where == WHERE_CORE ? gather_on_cores(c) : gather_clients(c);
  bool watched = (live_shows() && !b->o.control) || b->o.fio.steady.limit > 0;
  if (r == 0 && watched) r = crew_watch(c);
  if (r < 0) {
    crew_finish(c);
    return bench_fail("load", r);
  }
  *crew = c;
  return 0;
}

/* ---- A slice of the load ------------------------------------------------------------------------
 */

/* A few puts, then the flush, which alone is timed. */
static void run_flushes(struct load *l, struct sr_port *port) {
  uint32_t puts = l->depth < FLUSH_PUTS ? l->depth : FLUSH_PUTS;
  char *buf = calloc(1, l->blob_bytes);
  uint64_t first = bench_now_ns(), end = first + l->duration_ns, put = 0;
  int r = buf ? 0 : -ENOMEM;
  l->ops = l->errors = 0;
  do {
    for (uint32_t i = 0; r == 0 && i < puts; i++) {
      uint64_t number = l->first + put++ % l->count;
      bench_fill(buf, number, l->seed, 0, l->blob_bytes);
      r = sr_put(port, bench_id(number, l->seed), buf, l->blob_bytes, 0);
    }
    uint64_t start = bench_now_ns();
    if (r == 0) r = sr_flush(port);
    uint64_t ns = bench_now_ns() - start;
    if (r == 0) latency_add(&l->latency, ns);
    if (r == 0) l->ops++;
    if (r == 0 && l->live) live_add(l->live, 1, 0, ns);
  } while (r == 0 && bench_now_ns() < end && !l->stopping);
  l->first_error = r;
  l->errors = r < 0;
  l->elapsed_ns = bench_now_ns() - first;
  free(buf);
  sem_post(l->finished);
}

struct client {
  struct crew *crew;
  uint32_t index;
};
static void *client_main(void *arg) {
  struct client *c = arg;
  struct load *l = &c->crew->loads[c->index];
  l->duration_ns = c->crew->duration_ns;
  if (l->rw == RW_FLUSH)
    run_flushes(l, c->crew->ports[c->index]);
  else
    load_run_here(l, c->crew->ports[c->index], c->crew->duration_ns, NULL, NULL);
  return NULL;
}

/* Again and again: one that starts late would take it back. */
static void stop_if_asked(struct crew *c) {
  for (uint32_t i = 0; bench_stop_signal() && i < c->count; i++) load_stop(&c->loads[i]);
}

static void show(const struct crew *c, struct live_line *p, uint64_t since_start_ns) {
  uint64_t ops = c->b->o.ops * c->count;
  if (!p) return;
  if (ops)
    live_step(p, live_ops(c->live, c->live ? c->count : 0), ops);
  else
    live_step(p, since_start_ns, c->duration_ns);
}

/* Waits for `count` posts; draws the line meanwhile. */
static void wait_loads(struct crew *c, uint32_t count, struct live_line *p) {
  uint64_t start = bench_now_ns(), nap_ns = 100000000;
  if (c->steady && steady_interval_ns(&c->steady->spec) < nap_ns)
    nap_ns = steady_interval_ns(&c->steady->spec);
  while (count > 0) {
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)nap_ns;
    if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
    if (sem_timedwait(&c->finished, &until) == 0) count--;
    stop_if_asked(c);
    crew_steady_step(c, bench_now_ns() - start);
    show(c, p, bench_now_ns() - start);
  }
}

static int run_clients(struct crew *c, struct live_line *p) {
  pthread_t threads[CREW_MAX];
  struct client clients[CREW_MAX];
  uint32_t started = 0;
  int r = 0;
  for (; r == 0 && started < c->count; started += r == 0) {
    clients[started] = (struct client){c, started};
    r = -pthread_create(&threads[started], NULL, client_main, &clients[started]);
  }
  wait_loads(c, started, p);
  for (uint32_t i = 0; i < started; i++) pthread_join(threads[i], NULL);
  return r;
}

static int run_on_cores(struct crew *c, struct live_line *p) {
  uint32_t started = 0;
  int r = 0;
  for (; r == 0 && started < c->count; started += r == 0)
    r = load_start_on_core(&c->loads[started], c->shard[started], c->duration_ns);
  wait_loads(c, started, p);
  return r;
}

static void add_load_up(struct bench_result *res, const struct load *l) {
  res->ops += l->ops;
  res->bytes += l->aim == RW_SPECIAL ? l->bytes : l->ops * l->request_bytes;
  res->remote_ops += l->remote_ops;
  res->errors += l->errors;
  res->flushes += l->flushes;
  res->write_ops += l->write_ops;
  if (l->rw == RW_RANDRW && l->split) res->write_bytes += l->write_bytes;
  if (res->error == 0) res->error = l->first_error;
  if (l->mismatch) res->mismatch = true;
}

/* Adds what one slice did to the result; *iops: of this slice. */
static void add_up(struct crew *c, struct bench_result *res, double *iops) {
  uint64_t longest = 0;
  *iops = 0;
  for (uint32_t i = 0; i < c->count; i++) {
    const struct load *l = &c->loads[i];
    add_load_up(res, l);
    if (l->elapsed_ns > 0) *iops += (double)l->ops * 1e9 / (double)l->elapsed_ns;
    if (l->elapsed_ns > longest) longest = l->elapsed_ns;
  }
  res->elapsed_ns += longest;
}

/* I/Os of all cores, but for flushes. */
static uint64_t device_ios(struct bench *b) {
  struct sr_core_stats s;
  uint64_t sum = 0;
  for (uint32_t i = 0; i < b->cores; i++)
    if (sr_core_stats(b->port, i, &s) == 0) sum += s.device_ios - s.device_flushes;
  return sum;
}

/* New clones before the blocks that can be written for the first time run out: before a slice that
 * may need twice as many as the last one. */
static int renew_if_short(struct crew *c, struct bench_result *res) {
  bool enough = true;
  for (uint32_t i = 0; i < c->count; i++)
    if (c->loads[i].left < 2 * c->loads[i].ops) enough = false;
  if (enough) return 0;
  int r = bench_volumes_renew(c->b);
  for (uint32_t i = 0; i < c->count; i++) load_renew(&c->loads[i]);
  res->renewals++;
  return r;
}

int crew_slice(struct crew *c, struct bench_result *res, uint64_t duration_ns, double *iops,
               struct live_line *p) {
  c->duration_ns = duration_ns;
  int e = c->b->o.first_writes ? renew_if_short(c, res) : 0;
  if (e < 0) return e;
  uint64_t ios = device_ios(c->b), cores = cores_cpu_ns(c->b), process = bench_process_cpu_ns();
  bench_usage_add(&res->usage, true);
  int r = c->b->o.where == WHERE_CORE ? run_on_cores(c, p) : run_clients(c, p);
  bench_usage_add(&res->usage, false);
  res->cpu_ns_process += bench_process_cpu_ns() - process;
  res->cpu_ns_cores += cores_cpu_ns(c->b) - cores;
  res->device_ios += device_ios(c->b) - ios;
  add_up(c, res, iops);
  if (r < 0) return bench_fail("load", r);
  return res->error;
}

const char *bench_direction(int rw) {
  if (bench_is_read(rw) || rw == RW_RANDRW || rw == RW_SPECIAL)
    return "read"; /* the latters' writes stand apart */
  return rw == RW_DELETE ? "trim" : rw == RW_FLUSH || rw == RW_OPEN ? "sync" : "write";
}

void bench_rates(struct bench_result *res) {
  double s = (double)res->elapsed_ns / 1e9;
  res->iops = s > 0 ? (double)res->ops / s : 0;
  res->bytes_per_s = s > 0 ? (double)res->bytes / s : 0;
}

/* What the device and the caches do at first is not what they do for long. */
static int ramp(struct crew *c, struct live_line *p) {
  static struct bench_result unused;
  double iops;
  uint64_t ns = (uint64_t)(c->b->o.ramp_s * 1e9);
  if (ns == 0) return 0;
  memset(&unused, 0, sizeof(unused));
  int r = crew_slice(c, &unused, ns, &iops, p);
  crew_forget(c);
  return r;
}

static int merge(struct bench_result *res, const struct load *l) {
  latency_merge(&res->latency, &l->latency);
  latency_merge(&res->write_latency, &l->write_latency);
  latency_merge(&res->service, &l->service);
  latency_merge(&res->write_service, &l->write_service);
  latency_merge(&res->flush_latency, &l->flush_latency);
  res->unsent += l->unsent;
  return series_merge(&res->series, &l->series);
}

/* Of all loads together; with --group_reporting=0 also of each. */
static int gather_results(struct crew *c, struct bench_result *res) {
  int r = 0;
  if (!c->b->o.fio.group_reporting) res->parts = calloc(c->count, sizeof(*res->parts));
  for (uint32_t i = 0; r == 0 && i < c->count; i++) {
    r = merge(res, &c->loads[i]);
    if (r == 0) r = bench_classes_merge(res, &c->loads[i]);
    if (r < 0 || !res->parts) continue;
    struct bench_result *part = &res->parts[res->part_count++];
    part->direction = res->direction;
    add_load_up(part, &c->loads[i]);
    part->elapsed_ns = c->loads[i].elapsed_ns;
    bench_rates(part);
    r = merge(part, &c->loads[i]);
  }
  bench_classes_end(res);
  return r;
}

void bench_result_finish(struct bench_result *res) {
  for (uint32_t i = 0; i < res->part_count; i++) series_finish(&res->parts[i].series);
  series_finish(&res->series);
  free(res->parts);
  free(res->steady);
}

int bench_run_store(struct bench *b, struct bench_result *res) {
  struct crew *c = NULL;
  double iops;
  res->direction = bench_direction(b->o.rw);
  int r = crew_gather(&c, b);
  if (r < 0) return r;
  if (b->o.control) {
    r = crew_control(c, res);
  } else {
    struct live_line p;
    live_begin(&p, bench_load_name(&b->o), c->live, c->live ? c->count : 0);
    r = ramp(c, &p);
    if (r == 0 && b->o.fio.target_ns) r = crew_search(c, res, &p);
    if (r == 0) r = crew_steady_begin(c, res);
    for (uint32_t i = 0; r == 0 && i < c->count && b->o.sample; i++)
      r = series_init(&c->loads[i].series, (uint64_t)(b->o.runtime_s * 1e9));
    if (r == 0 && !bench_stop_signal())
      r = crew_slice(c, res, (uint64_t)(b->o.runtime_s * 1e9), &iops, &p);
    live_end(&p);
  }
  int merged = gather_results(c, res);
  if (r == 0) r = merged;
  crew_finish(c);
  bench_rates(res);
  return r;
}

/* ---- --rw=open --------------------------------------------------------------------------------
 */

/* Opens and closes; the opening is timed. */
int bench_run_open(struct bench *b, struct bench_result *res) {
  struct live live = {0};
  struct live_line p;
  uint64_t start = bench_now_ns(), end = start + (uint64_t)(b->o.runtime_s * 1e9);
  uint64_t process = bench_process_cpu_ns();
  int r = 0;
  bench_usage_add(&res->usage, true);
  res->direction = bench_direction(b->o.rw);
  live_begin(&p, "open", &live, 1);
  do {
    r = bench_close(b);
    uint64_t begin = bench_now_ns();
    if (r == 0) r = bench_open(b);
    if (r < 0) break;
    uint64_t now = bench_now_ns();
    latency_add(&res->latency, now - begin);
    res->elapsed_ns += now - begin;
    res->ops++;
    live_add(&live, 1, 0, now - begin);
    live_step(&p, now - start, end - start);
  } while (bench_now_ns() < end && !bench_stop_signal());
  live_end(&p);
  bench_usage_add(&res->usage, false);
  res->cpu_ns_process = bench_process_cpu_ns() - process;
  res->error = r;
  res->errors = r < 0;
  bench_rates(res);
  return r;
}
