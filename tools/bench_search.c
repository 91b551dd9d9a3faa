/* bench_search.c - runs that look for something: the greatest depth that keeps --latency_target,
 * and the --steadystate at which a run may end. Main thread; the arithmetic is bench_goal.c's. */
#include "tools/bench_crew.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- A depth ------------------------------------------------------------------------------- */

static void set_depth(struct crew *c, uint32_t depth) {
  const struct bench_options *o = &c->b->o;
  for (uint32_t i = 0; i < c->count; i++) {
    struct load *l = &c->loads[i];
    l->depth = depth;
    l->batch = o->batch < depth ? (uint32_t)o->batch : depth;
    l->complete = o->fio.complete < depth ? (uint32_t)o->fio.complete : depth;
  }
}

void crew_forget(struct crew *c) {
  for (uint32_t i = 0; i < c->count; i++) {
    struct load *l = &c->loads[i];
    memset(&l->latency, 0, sizeof(l->latency));
    memset(&l->write_latency, 0, sizeof(l->write_latency));
    memset(&l->service, 0, sizeof(l->service));
    memset(&l->write_service, 0, sizeof(l->write_service));
    memset(&l->flush_latency, 0, sizeof(l->flush_latency));
    load_forget_classes(l);
  }
}

/* Which latency the asked-for share of the requests had at most. */
static uint64_t share_ns(struct crew *c) {
  static struct latency all;
  memset(&all, 0, sizeof(all));
  for (uint32_t i = 0; i < c->count; i++) {
    latency_merge(&all, &c->loads[i].latency);
    latency_merge(&all, &c->loads[i].write_latency);
  }
  return all.count ? latency_percentile_ns(&all, c->b->o.fio.share) : UINT64_MAX;
}

static int say_impossible(const struct bench_options *o, uint64_t least_ns) {
  fprintf(
      stderr,
      "shard-bench: --latency_target=%s: not even one request in flight keeps it: %g %% take up "
      "to %.1f us; use a higher target, or a --latency_percentile below 100\n",
      o->fio.target_text, o->fio.share, (double)least_ns / 1000);
  return -ETIME;
}

int crew_search(struct crew *c, struct bench_result *res, struct live_line *line) {
  static struct bench_result unused;
  const struct fio_options *f = &c->b->o.fio;
  struct depth_search search;
  double iops;
  uint64_t ns = 0;
  int r = 0;
  for (depth_begin(&search, (uint32_t)c->b->o.iodepth); r == 0 && !search.done;) {
    if (bench_stop_signal()) return -EINTR;
    set_depth(c, search.depth);
    crew_forget(c);
    memset(&unused, 0, sizeof(unused));
    r = crew_slice(c, &unused, f->window_ns, &iops, line);
    ns = share_ns(c);
    if (r == 0 && !bench_stop_signal()) depth_note(&search, ns <= f->target_ns);
  }
  if (r < 0) return r;
  if (search.good == 0) return say_impossible(&c->b->o, ns);
  set_depth(c, search.good);
  crew_forget(c);
  res->latency_depth = search.good;
  return 0;
}

/* ---- A steady state ------------------------------------------------------------------------ */

int crew_steady_begin(struct crew *c, struct bench_result *res) {
  if (c->b->o.fio.steady.limit <= 0) return 0;
  c->steady = res->steady = calloc(1, sizeof(*res->steady));
  if (!c->steady) return -ENOMEM;
  steady_begin(c->steady, &c->b->o.fio.steady);
  c->steady_ns = 0;
  return 0;
}

/* Called now and then: takes a sample when it is time, and ends the run when it is steady. */
void crew_steady_step(struct crew *c, uint64_t since_start_ns) {
  struct steady *s = c->steady;
  if (!s) return;
  uint64_t ops = live_ops(c->live, c->count), bytes = live_bytes(c->live, c->count);
  uint64_t ramp = (uint64_t)(s->spec.ramp_s * 1e9), interval = steady_interval_ns(&s->spec);
  bool first = c->steady_ns == 0;
  if (since_start_ns < ramp || (!first && since_start_ns - c->steady_ns < interval)) return;
  double seconds = (double)(since_start_ns - c->steady_ns) / 1e9;
  if (!first && !s->attained)
    steady_note(s, (double)(ops - c->steady_ops) / seconds,
                (double)(bytes - c->steady_bytes) / seconds);
  c->steady_ns = since_start_ns;
  c->steady_ops = ops;
  c->steady_bytes = bytes;
  for (uint32_t i = 0; s->attained && i < c->count; i++) load_stop(&c->loads[i]);
}
