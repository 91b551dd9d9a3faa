/* volume_walk.c - looking at where a volume's blocks lie, leaf by leaf, in whatever shards its
 * layers are; and diffs by that, of all or of a window. On the thread of the port.
 *
 * Order. A row is what the parts of a striped volume have at the same addresses: one leaf of each,
 * or as many as a stripe takes. Rows follow each other on the disk; inside a row stripes alternate
 * (stripes of up to a leaf), or parts follow each other (larger ones). */
#include "runtime/volumes_internal.h"

/* ---- One part -----------------------------------------------------------------------------------
 */

int walk_init(struct walk *w, struct port *port, const struct vdisk *d, uint32_t part, bool under) {
  uint32_t depth = 0;
  w->port = port;
  w->count = 0;
  w->next = UINT64_MAX;
  w->below = NULL;
  if (d && under) d = d->parent;
  for (const struct vdisk *p = d; p; p = p->parent) depth++;
  if (!depth) return 0;
  w->below = calloc(depth, sizeof *w->below);
  if (!w->below) return -ENOMEM;
  uint32_t before = NO_SHARD;
  for (const struct vdisk *p = d; p; p = p->parent) {
    uint32_t shard = vdisk_striped(p) ? part : p->shard;
    if (shard != before) w->below[w->count++] = (struct layer_below){p->layer, shard};
    before = shard;
  }
  return 0;
}

void walk_finish(struct walk *w) { free(w->below); }

/* Also asks those that have nothing to decide: for the next leaf that they have. */
int walk_resolve(struct walk *w, uint64_t leaf) {
  struct resolve_request *q = &w->request;
  resolved_init(&q->resolved);
  w->next = UINT64_MAX;
  for (uint32_t i = 0; i < w->count; i++) {
    struct shard_op op = {.kind = OP_RESOLVE, .buf = q};
    q->from = w->below[i];
    q->leaf = leaf;
    q->next_leaf = UINT64_MAX;
    int64_t r = run_in_shard(w->port, w->below[i].shard, &op);
    if (r < 0) return (int)r;
    w->next = min_u64(w->next, q->next_leaf);
  }
  return 0;
}

/* ---- Diff ---------------------------------------------------------------------------------------
 */

struct diff {
  struct port *port;
  uint32_t part_count;
  uint8_t stripe_shift;
  uint64_t begin, end;       /* what is looked at */
  struct walk *from, *to;    /* [part_count] */
  struct volume_range range; /* bytes 0: none yet */
  int (*fn)(void *arg, const struct volume_range *range);
  void *arg;
};

static int emit(struct diff *x) {
  struct volume_range range = x->range;
  x->range.bytes = 0;
  uint64_t begin = max_u64(range.offset_bytes, x->begin);
  uint64_t end = min_u64(range.offset_bytes + range.bytes, x->end);
  if (begin >= end) return 0;
  range.offset_bytes = begin;
  range.bytes = end - begin;
  return x->fn(x->arg, &range);
}

static int add_block(struct diff *x, uint64_t offset, bool zeros) {
  struct volume_range *range = &x->range;
  if (range->bytes && range->zeros == zeros && range->offset_bytes + range->bytes == offset) {
    range->bytes += BLOCK_BYTES;
    return 0;
  }
  int r = emit(x);
  *range = (struct volume_range){offset, BLOCK_BYTES, zeros};
  return r;
}

static bool is_zeros(uint32_t place) { return place == RESOLVED_NOT || place == RESOLVED_ZERO; }

static bool same(const struct resolved *a, const struct resolved *b, uint32_t i) {
  if (is_zeros(a->place[i]) || is_zeros(b->place[i]))
    return is_zeros(a->place[i]) && is_zeros(b->place[i]);
  return a->place[i] == b->place[i] && a->shard[i] == b->shard[i];
}

static uint64_t on_disk(const struct diff *x, uint32_t part, uint64_t in) {
  if (!x->stripe_shift) return in;
  uint64_t mask = (UINT64_C(1) << x->stripe_shift) - 1;
  return (((in >> x->stripe_shift) * x->part_count + part) << x->stripe_shift) | (in & mask);
}

/* Blocks of a leaf that both walks of the part have resolved; they lie in a row on the disk. */
static int compare(struct diff *x, uint32_t part, uint64_t leaf, uint32_t first, uint32_t count) {
  const struct resolved *a = &x->from[part].request.resolved, *b = &x->to[part].request.resolved;
  uint64_t offset = on_disk(x, part, (leaf << LEAF_SHIFT) + ((uint64_t)first << BLOCK_SHIFT));
  int r = 0;
  for (uint32_t i = first; i < first + count && !r; i++, offset += BLOCK_BYTES)
    if (!same(a, b, i)) r = add_block(x, offset, is_zeros(b->place[i]));
  return r;
}

/* *next: the leaf after it, UINT64_MAX: none. */
static int resolve_both(struct diff *x, uint32_t part, uint64_t leaf, uint64_t *next) {
  int r = walk_resolve(&x->from[part], leaf);
  if (!r) r = walk_resolve(&x->to[part], leaf);
  *next = min_u64(x->from[part].next, x->to[part].next);
  return r;
}

/* Stripes of at most a leaf. */
static int diff_leaf_of_all(struct diff *x, uint64_t leaf, uint64_t *next_row) {
  uint32_t stripe = x->stripe_shift ? 1u << (x->stripe_shift - BLOCK_SHIFT) : LEAF_BLOCKS;
  int r = 0;
  for (uint32_t p = 0; p < x->part_count && !r; p++) {
    uint64_t next;
    r = resolve_both(x, p, leaf, &next);
    *next_row = min_u64(*next_row, next);
  }
  for (uint32_t at = 0; at < LEAF_BLOCKS && !r; at += stripe)
    for (uint32_t p = 0; p < x->part_count && !r; p++) r = compare(x, p, leaf, at, stripe);
  return r;
}

/* Larger ones: `shift` is that of leaves in a stripe. */
static int diff_stripe_of_all(struct diff *x, uint64_t row, uint32_t shift, uint64_t *next_row) {
  int r = 0;
  for (uint32_t p = 0; p < x->part_count && !r; p++) {
    uint64_t leaf = row << shift, end = (row + 1) << shift, next = leaf;
    for (; leaf < end && !r; leaf = next) {
      uint64_t at = on_disk(x, p, leaf << LEAF_SHIFT);
      next = at >= x->end ? UINT64_MAX : leaf + 1; /* of this part nothing more is asked for */
      if (at >= x->end || at + (UINT64_C(1) << LEAF_SHIFT) <= x->begin) continue;
      r = resolve_both(x, p, leaf, &next);
      if (!r) r = compare(x, p, leaf, 0, LEAF_BLOCKS);
    }
    if (next != UINT64_MAX) *next_row = min_u64(*next_row, next >> shift);
  }
  return r;
}

static int diff_all(struct diff *x) {
  uint32_t shift = x->stripe_shift > LEAF_SHIFT ? x->stripe_shift - LEAF_SHIFT : 0;
  uint64_t first = (x->begin >> (LEAF_SHIFT + shift)) / x->part_count;
  int r = 0;
  for (uint64_t row = first, next; row != UINT64_MAX && !r; row = next) {
    next = UINT64_MAX;
    if (on_disk(x, 0, row << (LEAF_SHIFT + shift)) >= x->end) break;
    r = shift ? diff_stripe_of_all(x, row, shift, &next) : diff_leaf_of_all(x, row, &next);
  }
  return r ? r : emit(x);
}

static int diff_init(struct diff *x, const struct vdisk *from, const struct vdisk *to,
                     const struct volume_range *window) {
  x->part_count = vdisk_part_count(to, x->port->store->shard_count);
  x->stripe_shift = to->stripe_shift;
  x->begin = window ? window->offset_bytes : 0;
  x->end = window ? x->begin + window->bytes : to->size_bytes;
  x->from = calloc(x->part_count, sizeof *x->from);
  x->to = calloc(x->part_count, sizeof *x->to);
  int r = x->from && x->to ? 0 : -ENOMEM;
  for (uint32_t p = 0; p < x->part_count && !r; p++) {
    r = walk_init(&x->from[p], x->port, from, p, false);
    if (!r) r = walk_init(&x->to[p], x->port, to, p, false);
  }
  return r;
}

static void diff_finish(struct diff *x) {
  for (uint32_t p = 0; p < x->part_count; p++) {
    if (x->from) walk_finish(&x->from[p]);
    if (x->to) walk_finish(&x->to[p]);
  }
  free(x->from);
  free(x->to);
}

static int find_both(struct catalog *c, const char *from, const char *to, struct vdisk **a,
                     struct vdisk **b) {
  int r = catalog_find(c, to, b);
  *a = NULL;
  if (!r && from) r = catalog_find(c, from, a);
  if (r || !*a) return r;
  return (*a)->sealed && (*a)->stripe_shift == (*b)->stripe_shift ? 0 : -EINVAL;
}

static bool inside(const struct vdisk *d, const struct volume_range *window) {
  return !window ||
         (window->bytes <= d->size_bytes && window->offset_bytes <= d->size_bytes - window->bytes);
}

int catalog_diff(struct port *port, const char *from, const char *to,
                 const struct volume_range *window,
                 int (*fn)(void *arg, const struct volume_range *range), void *arg) {
  struct diff x = {.port = port, .fn = fn, .arg = arg};
  struct catalog *c;
  struct vdisk *a, *b;
  int r = catalog_enter(port, false, &c);
  if (r) return r;
  r = find_both(c, from, to, &a, &b);
  if (!r && !inside(b, window)) r = -EINVAL;
  if (r) return catalog_leave(c, r);
  r = diff_init(&x, a, b, window);
  if (a) a->pins++;
  b->pins++;
  c->walks++;
  catalog_leave(c, 0);
  if (!r) r = diff_all(&x);
  diff_finish(&x);
  catalog_enter(port, false, &c);
  if (a) a->pins--;
  b->pins--;
  c->walks--;
  return catalog_leave(c, r);
}
