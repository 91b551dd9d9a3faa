/* bench_special.c - what few loads have and the others shall not pay for: blobs of many sizes
 * (--blob-size-dist), requests for other cores' shards (--remote), flushes (--flush-every). On the
 * load's own thread. */
#include "tools/bench_load.h"

/* ---- Aim ------------------------------------------------------------------------------------- */

uint64_t load_blob_bytes(const struct load *l, uint64_t number) {
  return l->sizes ? sizes_of(l->sizes, number, l->seed) : l->blob_bytes;
}

/* A blob of another core: one of all but this load's own. */
static uint64_t number_of_other(const struct load *l, uint64_t place) {
  return l->all[place < l->all_first ? place : place + l->count];
}

uint64_t load_choose(struct load *l, struct load_work *w, uint64_t *block) {
  bool in_order = l->rw == RW_PUT || l->rw == RW_DELETE;
  w->remote = l->remote_percent && load_pick(l, 100) < l->remote_percent;
  uint64_t count = w->remote ? l->others_count : l->count, at;
  *block = 0;
  if (in_order) {
    at = (w->remote ? l->others_cursor++ : l->cursor++) % count;
  } else {
    at = !w->remote    ? load_pick_skewed(l, count * l->blob_blocks)
         : l->others.n ? distribution_pick(&l->others)
                       : load_pick(l, count * l->blob_blocks);
    *block = at % l->blob_blocks;
    at /= l->blob_blocks;
  }
  return w->remote ? number_of_other(l, at) : load_number_at(l, at);
}

/* One block after the other; the last one of a blob is as long as the blob is. */
static void aim_next(struct load *l, struct load_work *w) {
  w->number = load_number_at(l, l->cursor % l->count);
  uint64_t size = load_blob_bytes(l, w->number), left = size - l->cursor_bytes;
  w->request.offset = l->cursor_bytes;
  w->request.bytes = left < l->request_bytes ? left : l->request_bytes;
  l->cursor_bytes += w->request.bytes;
  if (l->cursor_bytes == size) l->cursor++, l->cursor_bytes = 0;
}

static void aim_chosen(struct load *l, struct load_work *w) {
  struct sr_request *r = &w->request;
  uint64_t block;
  w->number = load_choose(l, w, &block);
  r->bytes = r->op == SR_OP_DELETE ? 0 : load_blob_bytes(l, w->number);
  if (l->rw != RW_RANDREAD) return;
  if (l->sizes) block = load_pick(l, (r->bytes + l->request_bytes - 1) / l->request_bytes);
  r->offset = block * l->request_bytes;
  uint64_t left = r->bytes - r->offset;
  r->bytes = left < l->request_bytes ? left : l->request_bytes;
}

void load_aim_special(struct load *l, struct load_work *w) {
  struct sr_request *r = &w->request;
  if (l->script) {
    w->step = 0;
    l->script->begin(l, w);
    return;
  }
  if (l->rw == RW_READ)
    aim_next(l, w);
  else
    aim_chosen(l, w);
  r->id = bench_id(w->number, l->seed);
  /* Whole sectors: there is room for them, and they are stamped quickly. */
  if (r->op == SR_OP_PUT && r->buf && !(r->flags & SR_RESERVE))
    bench_stamp(r->buf, w->number, l->seed, 0, (r->bytes + 511) / 512 * 512);
}

/* ---- Done ------------------------------------------------------------------------------------ */

void load_special_done(struct sr_request *request) {
  struct load_work *w = (struct load_work *)request;
  struct load *l = w->load;
  if (request->result >= 0) {
    l->bytes += request->bytes;
    l->remote_ops += w->remote;
  }
  if (request->op != SR_OP_PUT || request->result < 0 || !load_flush_after(l, w)) {
    load_done(request);
    return;
  }
  l->in_flight--; /* the flush is, and comes back here */
  l->puts_since_flush++;
  load_account(l, w);
}

/* ---- Beginning ------------------------------------------------------------------------------- */

void load_set_up_special(struct load *l, const struct load_config *c) {
  bool flushes = c->flush_every.puts || c->flush_every.bytes || c->flush_every.ns;
  if (!c->sizes && !c->remote_percent && !flushes && !c->script) return;
  l->aim = RW_SPECIAL;
  l->script = c->script;
  l->sizes = c->sizes;
  l->flush_every = c->flush_every;
  if (c->sizes) l->blob_blocks = 1; /* chances are among blobs, then among the blocks of one */
  if (!c->remote_percent) return;
  l->remote_percent = c->all_count > c->count ? c->remote_percent : 0; /* by chance: all are here */
  l->all = c->all;
  l->all_first = c->all_first;
  l->others_count = c->all_count - c->count;
  if (c->distribution && c->distribution->kind != DISTRIBUTION_RANDOM && l->others_count > 0)
    distribution_init(&l->others, c->distribution, l->others_count * l->blob_blocks, ~l->random);
}
