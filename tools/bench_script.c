/* bench_script.c - loads whose operations are several requests one after the other, or of several
 * kinds: those of the workloads of our users. On the load's own thread; the last part on the main
 * thread, when loads have finished.
 *
 *   pending -> begin -> in flight -> step -> (first of the pending) in flight -> step ... ->
 * pending
 *
 * An operation that has begun comes to its end, also when the time is up. The latency of an
 * operation counts from its first request, or from when it was due, to the end of its last one; one
 * operation in --lat-sample is timed, with all of its requests. */
#include "tools/bench_load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static uint32_t class_count(const struct load_script *s) {
  uint32_t n = 0;
  while (n < BENCH_CLASSES_MAX && s->classes[n].name) n++;
  return n;
}

int load_set_up_script(struct load *l) {
  l->classes = calloc(class_count(l->script), sizeof(*l->classes));
  l->state = calloc(l->depth, l->script->state_bytes + 1);
  if (!l->classes || !l->state) return -ENOMEM;
  for (uint32_t i = 0; i < l->depth; i++)
    bench_fill(load_buffer(l, &l->works[i], l->script->buffers - 1), 0, l->seed, 0, l->stride);
  return 0;
}

void load_forget_classes(struct load *l) {
  if (!l->script) return;
  memset(l->classes, 0, class_count(l->script) * sizeof(*l->classes));
}

void load_class_add(struct load *l, uint32_t c, uint64_t bytes, uint64_t now_ns, uint64_t from_ns,
                    uint64_t sent_ns) {
  struct bench_class *k = &l->classes[c];
  k->ops++;
  k->bytes += bytes;
  if (l->script->classes[c].side != SIDE_NONE) l->bytes += bytes;
  if (from_ns == 0) return;
  latency_add(&k->latency, now_ns - from_ns);
  if (l->rate) latency_add(&k->service, now_ns - sent_ns);
}

void load_compare(struct load *l, struct load_work *w, uint64_t bytes) {
  const struct sr_request *r = &w->request;
  if (!l->verify || bench_matches(r->buf, w->number, l->seed, r->offset, bytes)) return;
  l->mismatch = true;
  load_note_error(l, -EBADMSG);
}

/* An operation is over. */
static void count(struct load *l, struct load_work *w, uint64_t now) {
  l->ops++;
  l->remote_ops += w->remote;
  if (w->op_ns) series_add(&l->series, now - l->start_ns, l->ops, now - w->op_ns);
}

/* A request has come back. True: the operation goes on. */
static bool account(struct load *l, struct load_work *w) {
  if (w->request.result != w->want) {
    load_note_error(l, w->request.result < 0 ? (int)w->request.result : -EIO);
    return false;
  }
  uint64_t now = w->start_ns ? bench_now_ns() : 0;
  if (w->step == 0) {
    w->sent_ns = w->start_ns;
    w->op_ns = w->due_ns ? w->due_ns : w->start_ns;
  }
  bool more = l->script->step(l, w, now);
  if (!more) {
    count(l, w, now);
    return false;
  }
  w->step++;
  w->start_ns = now;
  return !l->stopping;
}

void load_script_done(struct sr_request *request) {
  struct load_work *w = (struct load_work *)request;
  struct load *l = w->load;
  bool put = request->op == SR_OP_PUT || request->op == SR_OP_WRITE, held = false;
  l->in_flight--;
  if (put && request->result == -ENOSPC && !l->stopping) {
    load_wait_for_room(l, w);
  } else {
    if (put && request->result >= 0) l->puts_since_flush++;
    bool more = account(l, w);
    if (!more && put && request->result >= 0) held = load_flush_after(l, w);
    if (more) {
      l->pending[l->pending_count++] = l->pending[l->prepared];
      l->pending[l->prepared++] = request;
    } else if (!held) {
      l->pending[l->pending_count++] = request;
    }
  }
  if (l->pending_count >= l->batch || l->in_flight == 0) load_submit(l);
}

const struct load_script *bench_script_of(const struct bench_options *o) {
  if (o->workload == WORK_KV) return &bench_kv_script;
  return o->workload == WORK_ANALYTICS ? &bench_scan_script : NULL;
}

/* ---- What all of them did -------------------------------------------------------------------- */

int bench_classes_merge(struct bench_result *r, const struct load *l) {
  if (!l->script) return 0;
  uint32_t n = class_count(l->script);
  r->script = l->script;
  if (!r->classes) r->classes = calloc(n, sizeof(*r->classes));
  if (!r->classes) return -ENOMEM;
  for (uint32_t i = 0; i < n; i++) {
    r->classes[i].ops += l->classes[i].ops;
    r->classes[i].bytes += l->classes[i].bytes;
    latency_merge(&r->classes[i].latency, &l->classes[i].latency);
    latency_merge(&r->classes[i].service, &l->classes[i].service);
  }
  return 0;
}

void bench_classes_end(struct bench_result *r) {
  if (!r->script || !r->classes) return;
  for (uint32_t i = 0; i < class_count(r->script); i++) {
    const struct bench_class *c = &r->classes[i];
    enum bench_side side = r->script->classes[i].side;
    if (side == SIDE_NONE) continue;
    latency_merge(side == SIDE_READ ? &r->latency : &r->write_latency, &c->latency);
    latency_merge(side == SIDE_READ ? &r->service : &r->write_service, &c->service);
  }
}
