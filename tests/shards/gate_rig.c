/* gate_rig.c - see gate_rig.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/shards/gate_rig.h"

enum { LATENCIES = 200000 };

/* ---- Events --------------------------------------------------------------------------------- */

static void events_push(struct rig *r, struct rig_op *op, uint64_t at_ns) {
  uint32_t i = r->event_count++;
  op->event_ns = at_ns;
  for (; i && r->events[(i - 1) / 2]->event_ns > at_ns; i = (i - 1) / 2)
    r->events[i] = r->events[(i - 1) / 2];
  r->events[i] = op;
}

static struct rig_op *events_pop(struct rig *r) {
  struct rig_op *top = r->events[0], *last = r->events[--r->event_count];
  uint32_t i = 0, child;
  while ((child = 2 * i + 1) < r->event_count) {
    if (child + 1 < r->event_count && r->events[child + 1]->event_ns < r->events[child]->event_ns)
      child++;
    if (r->events[child]->event_ns >= last->event_ns) break;
    r->events[i] = r->events[child];
    i = child;
  }
  r->events[i] = last;
  return top;
}

/* ---- Device --------------------------------------------------------------------------------- */

/* Near enough: so many steps of mean / 16 as a die with 17 sides takes to show its first side. */
static uint64_t exponential(struct random *r, uint64_t mean) {
  uint64_t sum = 0, step = mean / 16;
  while (random_below(r, 17) != 0) sum += step;
  return sum + random_below(r, step + 1);
}

static uint64_t service_ns(struct rig *r, uint64_t bytes) {
  struct rig_device *d = &r->device;
  uint64_t ns = d->op_ns + d->kib_ns * (bytes / 1024);
  switch (d->variance) {
  case RIG_VARIED: /* +-15 %, and one in 250 takes three times as long */
    ns = ns * (850 + random_below(&r->random, 301)) / 1000;
    return random_below(&r->random, 250) ? ns : 3 * ns;
  case RIG_EXPONENTIAL:
    return exponential(&r->random, ns);
  default:
    return ns;
  }
}

static void device_start(struct rig *r, struct rig_op *op) {
  struct rig_device *d = &r->device;
  uint32_t best = 0;
  for (uint32_t i = 1; i < d->servers; i++)
    if (d->free_ns[i] < d->free_ns[best]) best = i;
  if (d->dies) best = (uint32_t)random_below(&r->random, d->servers);
  op->started_ns = r->now_ns;
  op->measured = gate_measures(op->volume->gate);
  d->free_ns[best] = max_u64(d->free_ns[best], r->now_ns) + service_ns(r, op->op.bytes);
  op->comes = false;
  events_push(r, op, d->free_ns[best]);
}

/* ---- Volumes -------------------------------------------------------------------------------- */

static void submit(struct rig *r, struct rig_op *op) {
  struct rig_volume *v = op->volume;
  op->op.kind = OP_READ;
  op->op.bytes = v->bytes;
  op->submitted_ns = r->now_ns;
  if (gate_submit(v->gate, &v->queue, &op->op, r->now_ns)) device_start(r, op);
}

static void complete(struct rig *r, struct rig_op *op) {
  struct rig_volume *v = op->volume;
  uint64_t latency = r->now_ns - op->submitted_ns, think = 0;
  gate_done(v->gate, &v->queue, &op->op, op->measured ? r->now_ns - op->started_ns : 0, r->now_ns);
  if (op->submitted_ns >= r->measure_ns) {
    v->longest_ns = max_u64(v->longest_ns, latency);
    if (v->latency_count < LATENCIES) v->latencies[v->latency_count++] = latency;
  }
  if (r->now_ns >= r->measure_ns) {
    v->ops++;
    v->done_bytes += op->op.bytes;
  }
  if (v->think_ns) think = v->think_ns / 2 + random_below(&r->random, v->think_ns);
  op->comes = true;
  if (r->now_ns + think < v->end_ns) events_push(r, op, r->now_ns + think);
}

/* What its core would do after a completion or a timer. */
static void gate_step(struct rig *r, uint32_t index) {
  struct gate *g = &r->gates[index];
  struct shard_op *op;
  while ((op = gate_next(g, r->now_ns))) device_start(r, container_of(op, struct rig_op, op));
  uint64_t wake = gate_wake_ns(g);
  assert_true(wake > r->now_ns);
  assert_true(g->in_flight || !g->turns);
  if (wake == r->wake_for_ns[index]) return;
  r->wake_for_ns[index] = r->wake_ns[index] = wake;
  if (wake != UINT64_MAX && r->late_ns) r->wake_ns[index] += random_below(&r->random, r->late_ns);
}

void rig_run(struct rig *r, uint64_t measure_ns, uint64_t until_ns) {
  r->measure_ns = measure_ns;
  for (uint32_t i = 0; i < r->volume_count; i++) {
    struct rig_volume *v = &r->volumes[i];
    v->ops = v->done_bytes = v->latency_count = v->longest_ns = 0;
    for (uint32_t k = 0; k < v->depth && !v->all[k].volume; k++) {
      v->all[k].volume = v;
      v->all[k].comes = true;
      events_push(r, &v->all[k], max_u64(v->begin_ns, r->now_ns));
    }
  }
  for (;;) {
    uint64_t next = r->event_count ? r->events[0]->event_ns : UINT64_MAX;
    uint32_t timer = RIG_GATES;
    for (uint32_t i = 0; i < r->gate_count; i++)
      if (r->wake_ns[i] < next) next = r->wake_ns[timer = i];
    if (next > until_ns) break;
    r->now_ns = max_u64(r->now_ns, next);
    if (timer < RIG_GATES) {
      r->wake_for_ns[timer] = r->wake_ns[timer] = UINT64_MAX;
    } else {
      struct rig_op *op = events_pop(r);
      timer = (uint32_t)(op->volume->gate - r->gates);
      if (op->comes)
        submit(r, op);
      else
        complete(r, op);
    }
    gate_step(r, timer);
  }
  r->now_ns = until_ns;
}

/* ---- Life ----------------------------------------------------------------------------------- */

struct rig *rig_create(uint32_t gates, struct rig_device device) {
  struct rig *r = calloc(1, sizeof(*r));
  assert_non_null(r);
  r->gate_count = gates;
  r->device = device;
  r->random.state = 42;
  for (uint32_t i = 0; i < gates; i++) {
    gate_init(&r->gates[i], 0);
    r->wake_ns[i] = r->wake_for_ns[i] = UINT64_MAX;
  }
  return r;
}

struct rig_volume *rig_volume(struct rig *r, uint32_t gate, uint32_t depth, uint32_t bytes,
                              struct limit *limit) {
  struct rig_volume *v = &r->volumes[r->volume_count++];
  v->gate = &r->gates[gate];
  v->depth = depth;
  v->bytes = bytes;
  v->end_ns = UINT64_MAX;
  v->latencies = calloc(LATENCIES, sizeof(*v->latencies));
  assert_non_null(v->latencies);
  gate_queue_set_limit(v->gate, &v->queue, limit, r->now_ns);
  return v;
}

void rig_destroy(struct rig *r) {
  for (uint32_t i = 0; i < r->volume_count; i++) free(r->volumes[i].latencies);
  free(r);
}

static int compare(const void *a, const void *b) {
  uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
  return (x > y) - (x < y);
}

uint64_t rig_percentile(struct rig_volume *v, double part) {
  assert_true(v->latency_count > 0);
  qsort(v->latencies, v->latency_count, sizeof(*v->latencies), compare);
  return v->latencies[(uint32_t)((double)(v->latency_count - 1) * part)];
}
