/* bench_flush.c - when a load flushes: to make room in a full store, and with --flush-every. On the
 * load's own thread.
 *
 * One flush of a load is in flight at a time; requests go on beside it. A request that was refused
 * for want of space is sent again after it. When the next flush is due before this one has ended,
 * no further puts are sent until it has: so what is not durable never exceeds two times what was
 * asked for and the requests in flight. */
#include "tools/bench_load.h"

#include <errno.h>

static void send(struct load *l, bool for_room) {
  struct sr_request *flush = &l->flush.request;
  uint64_t now = bench_now_ns();
  int r = sr_port_submit(l->port, &flush, 1);
  if (r != 1) {
    load_note_error(l, r < 0 ? r : -EIO);
    return;
  }
  l->flushing = true;
  l->flush_for_room = for_room;
  l->in_flight++;
  l->flush.start_ns = now;
  l->puts_before_flush = l->puts_since_flush;
  l->puts_since_flush = 0;
  l->unflushed = (struct flush_rule){.ns = now};
}

/* ---- A full store ---------------------------------------------------------------------------- */

/* Space that was freed can be used after a flush: overwriting for long needs one now and then. */
void load_wait_for_room(struct load *l, struct load_work *w) {
  l->full[l->full_count++] = &w->request;
  if (!l->flushing) send(l, true);
}

/* ---- --flush-every --------------------------------------------------------------------------- */

static bool is_due(const struct load *l) {
  const struct flush_rule *every = &l->flush_every, *since = &l->unflushed;
  if (every->puts && since->puts >= every->puts) return true;
  if (every->bytes && since->bytes >= every->bytes) return true;
  return every->ns && since->puts > 0 && bench_now_ns() - since->ns >= every->ns;
}

static bool flushes(const struct load *l) {
  return l->flush_every.puts || l->flush_every.bytes || l->flush_every.ns;
}

bool load_flush_after(struct load *l, struct load_work *w) {
  if (!flushes(l)) return false;
  l->unflushed.puts++;
  l->unflushed.bytes += w->request.bytes;
  if (l->stopping || !is_due(l)) return false;
  if (l->flushing) {
    l->full[l->depth - ++l->held_count] = &w->request;
    return true;
  }
  send(l, false);
  return false;
}

bool load_flush_last(struct load *l) {
  if (!flushes(l) || l->unflushed.puts == 0 || l->first_error) return false;
  send(l, false);
  return l->flushing;
}

/* ---- Both ------------------------------------------------------------------------------------ */

void load_flush_done(struct sr_request *request) {
  struct load *l = ((struct load_work *)request)->load;
  l->in_flight--;
  l->flushing = false;
  if (l->flush_for_room)
    l->flushes++;
  else
    latency_add(&l->flush_latency, bench_now_ns() - l->flush.start_ns);
  if (request->result < 0) load_note_error(l, (int)request->result);
  /* The flush before made no room. */
  if (l->full_count > 0 && l->puts_before_flush == 0) load_note_error(l, -ENOSPC);
  for (uint32_t i = 0; i < l->full_count; i++) {
    l->pending[l->pending_count++] = l->pending[l->prepared];
    l->pending[l->prepared++] = l->full[i];
  }
  for (uint32_t i = 1; i <= l->held_count; i++)
    l->pending[l->pending_count++] = l->full[l->depth - i];
  l->full_count = l->held_count = 0;
  if (flushes(l) && !l->stopping && is_due(l)) send(l, false);
  load_submit(l);
}
