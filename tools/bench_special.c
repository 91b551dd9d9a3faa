/* bench_special.c - what few loads have and the others shall not pay for: blobs of many sizes
 * (--blob-size-dist), requests for other cores' shards (--remote), flushes (--flush-every),
 * requests of several sizes (--bssplit). On the load's own thread. */
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

/* ---- Requests of several sizes --------------------------------------------------------------- */

/* What blobs or volumes hold of whole requests of the largest size. */
static uint64_t usable_bytes(const struct load *l) {
  return l->blob_bytes / l->request_bytes * l->request_bytes;
}

/* One behind the other, from the load's first block to its last one, and again. */
static uint64_t split_next(struct load *l, uint64_t bytes, uint64_t *place) {
  uint64_t space = usable_bytes(l), first = l->split_targets ? l->first * l->request_bytes : 0;
  uint64_t end = l->split_targets ? l->count * l->request_bytes : l->count * space;
  for (;;) {
    if (l->cursor_bytes + bytes > end) l->cursor_bytes = 0;
    uint64_t at = first + l->cursor_bytes, offset = at % space;
    *place = at / space;
    l->cursor_bytes += offset + bytes > space ? space - offset : bytes;
    if (offset + bytes <= space) return offset;
  }
}

/* At a multiple of the smallest size, each alike unless there is a distribution. */
static uint64_t split_random(struct load *l, uint64_t bytes, uint64_t things, uint64_t *place) {
  uint64_t unit = l->split->min, last = (l->blob_bytes - bytes) / unit * unit;
  if (l->distribution.n == 0) {
    *place = load_pick(l, things);
    return load_pick(l, last / unit + 1) * unit;
  }
  uint64_t at = distribution_pick(&l->distribution), offset = at % l->blob_blocks * unit;
  *place = at / l->blob_blocks;
  return offset < last ? offset : last;
}

static void aim_split(struct load *l, struct load_work *w) {
  struct sr_request *r = &w->request;
  const struct bench_target *targets = l->split_targets;
  uint64_t place;
  r->bytes = split_pick(l->split, load_pick(l, 100));
  if (l->rw == RW_READ || l->rw == RW_WRITE)
    r->offset = split_next(l, r->bytes, &place);
  else
    r->offset = split_random(l, r->bytes, targets ? l->target_count : l->count, &place);
  if (!targets) {
    w->number = load_number_at(l, place);
    r->id = bench_id(w->number, l->seed);
    return;
  }
  r->block = targets[place].block;
  w->number = targets[place].number;
  if (l->rw == RW_RANDRW) r->op = load_pick(l, 100) < l->mix_read ? SR_OP_READ : SR_OP_WRITE;
  if (r->op == SR_OP_WRITE && r->buf) bench_stamp(r->buf, w->number, l->seed, r->offset, r->bytes);
}

void load_aim_special(struct load *l, struct load_work *w) {
  struct sr_request *r = &w->request;
  if (l->script) {
    w->step = 0;
    l->script->begin(l, w);
    return;
  }
  if (l->split) {
    aim_split(l, w);
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
    if (request->op == SR_OP_WRITE) l->write_bytes += request->bytes;
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
  if (!c->sizes && !c->remote_percent && !flushes && !c->script && !c->split) return;
  l->aim = RW_SPECIAL;
  l->script = c->script;
  if (c->split) {
    l->split = c->split;
    l->split_targets = l->targets;
    l->targets = NULL;
    l->blob_blocks = l->blob_bytes / c->split->min;
  }
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
