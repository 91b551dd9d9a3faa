/* view.c - see map.h, "A view". Single-threaded, whoever reads through it owns it.
 *
 * A leaf is 64 entries of 8 bytes. An entry says where the blocks of a cluster lie if they lie in
 * one cluster, the rest being zeros; a cluster that is put together from several has 16 places in
 * a piece of its own. All leaves of zeros are one and the same piece. */
#include "shards/map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/radix.h"

/* valid 0 and place 0: zeros. valid 0 and a place: a reference to struct mixed. */
struct entry {
  uint32_t place;
  uint16_t shard, valid;
};
_Static_assert(sizeof(struct entry) == 8, "a leaf is 512 bytes");

struct mixed {
  uint32_t place[CLUSTER_BLOCKS]; /* 0: zeros */
  uint16_t shard[CLUSTER_BLOCKS];
};
#define LEAF_BYTES (LEAF_CLUSTERS * (uint32_t)sizeof(struct entry))

struct view {
  struct radix leaves, sums; /* sums: struct block_sums of the leaves that have any */
  struct slab *slab;         /* NULL until there is a leaf: an unused view is small */
  uint32_t zero_leaf;        /* the piece of all leaves of zeros; 0: not yet */
};

int view_create(struct view **view) {
  *view = calloc(1, sizeof **view);
  return *view ? 0 : -ENOMEM;
}

void view_destroy(struct view *view) {
  if (!view) return;
  view_drop_all(view);
  free(view);
}

void view_drop_all(struct view *view) {
  radix_init(&view->leaves);
  radix_init(&view->sums);
  view->zero_leaf = 0;
  if (!view->slab) return;
  slab_finish(view->slab);
  free(view->slab);
  view->slab = NULL;
}

uint64_t view_ram_bytes(const struct view *view) {
  const struct slab *slab = view->slab;
  if (!slab) return sizeof *view;
  uint64_t untouched = (uint64_t)(slab->bump_end - slab->bump) * SLAB_UNIT;
  return sizeof *view + sizeof *slab + slab->mapped_bytes - untouched;
}

/* ---- Looking up --------------------------------------------------------------------------- */

struct run {
  uint32_t blocks, place; /* place 0: zeros */
  uint16_t shard;
};

static struct run mixed_run(const struct mixed *m, uint32_t first) {
  uint32_t place = m->place[first], i = first + 1;
  uint16_t shard = m->shard[first];
  for (; i < CLUSTER_BLOCKS; i++) {
    uint32_t expected = place ? place + (i - first) : 0;
    if (m->place[i] != expected || m->shard[i] != shard) break;
  }
  return (struct run){.blocks = i - first, .place = place, .shard = shard};
}

/* The run that begins at block `first` of a cluster, up to the cluster's end. */
static struct run entry_run(const struct view *view, struct entry e, uint32_t first) {
  if (!e.valid && e.place) return mixed_run(slab_at(view->slab, e.place), first);
  uint32_t bits = (uint32_t)e.valid >> first, end = 1u << (CLUSTER_BLOCKS - first);
  if (bits & 1)
    return (struct run){
        .blocks = (uint32_t)__builtin_ctz(~bits), .place = e.place + first, .shard = e.shard};
  return (struct run){.blocks = (uint32_t)__builtin_ctz(bits | end)};
}

/* Any run, into the next clusters for as long as it ends where a cluster does. */
static __attribute__((noinline)) uint32_t long_run(const struct view *view,
                                                   const struct entry *entries, uint32_t at,
                                                   uint32_t max, uint32_t *place, uint16_t *shard) {
  struct run run = entry_run(view, entries[at / CLUSTER_BLOCKS], at % CLUSTER_BLOCKS);
  *place = run.place;
  *shard = run.shard;
  uint32_t length = run.blocks;
  for (at += length; length < max && at < LEAF_BLOCKS && at % CLUSTER_BLOCKS == 0;
       at += run.blocks) {
    run = entry_run(view, entries[at / CLUSTER_BLOCKS], 0);
    if (run.shard != *shard) break;
    if (run.place != (*place ? *place + length : 0)) break;
    length += run.blocks;
  }
  return length < max ? length : max;
}

uint32_t view_lookup(const struct view *view, uint64_t block, uint32_t max, uint32_t *place,
                     uint16_t *shard) {
  const struct entry *entries = radix_find(&view->leaves, view->slab, block >> LEAF_BLOCK_SHIFT);
  if (unlikely(!entries)) return 0;
  uint32_t at = block % LEAF_BLOCKS, first = at % CLUSTER_BLOCKS;
  struct entry e = entries[at / CLUSTER_BLOCKS];
  /* What is asked for most: few blocks, with data, in one cluster. */
  if (max <= CLUSTER_BLOCKS - first) {
    uint32_t bits = (uint32_t)cluster_bits(first, max);
    if ((e.valid & bits) == bits) {
      *place = e.place + first;
      *shard = e.shard;
      return max;
    }
  }
  return long_run(view, entries, at, max, place, shard);
}

void view_prefetch(const struct view *view, uint64_t block) {
  uint32_t ref = radix_find_ref(&view->leaves, view->slab, block >> LEAF_BLOCK_SHIFT);
  if (!ref) return;
  const struct entry *entries = slab_at(view->slab, ref);
  __builtin_prefetch(&entries[block % LEAF_BLOCKS / CLUSTER_BLOCKS]);
}

const struct block_sums *view_sums(const struct view *view, uint64_t leaf) {
  if (likely(!view->sums.root)) return NULL;
  return radix_find(&view->sums, view->slab, leaf);
}

/* ---- Filling ------------------------------------------------------------------------------ */

static bool has_place(uint32_t place) { return place != RESOLVED_NOT && place != RESOLVED_ZERO; }

/* The entry of a cluster whose blocks with data lie as in one cluster; false: they do not. The
 * cluster's place may be before 0 (a coincidence): as it is only added to, it may wrap. */
static bool simple_entry(const uint32_t *place, const uint16_t *shard, struct entry *e) {
  *e = (struct entry){0};
  for (uint32_t i = 0; i < CLUSTER_BLOCKS; i++) {
    if (!has_place(place[i])) continue;
    if (e->valid && (place[i] - i != e->place || shard[i] != e->shard)) return false;
    e->place = place[i] - i;
    e->shard = shard[i];
    e->valid |= (uint16_t)(1u << i);
  }
  return true;
}

static int mixed_entry(struct slab *slab, const uint32_t *place, const uint16_t *shard,
                       struct entry *e) {
  if (slab_reserve(slab, sizeof(struct mixed))) return -ENOMEM;
  *e = (struct entry){.place = slab_alloc(slab, sizeof(struct mixed))};
  struct mixed *m = slab_at(slab, e->place);
  for (uint32_t i = 0; i < CLUSTER_BLOCKS; i++) {
    bool has = has_place(place[i]);
    m->place[i] = has ? place[i] : 0;
    m->shard[i] = has ? shard[i] : 0;
  }
  return 0;
}

static void free_leaf(struct slab *slab, uint32_t ref) {
  const struct entry *entries = slab_at(slab, ref);
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    if (!entries[i].valid) slab_free(slab, entries[i].place, sizeof(struct mixed));
  slab_free(slab, ref, LEAF_BYTES);
}

/* 0: no memory. */
static uint32_t leaf_alloc(struct slab *slab) {
  if (slab_reserve(slab, LEAF_BYTES)) return 0;
  uint32_t ref = slab_alloc(slab, LEAF_BYTES);
  memset(slab_at(slab, ref), 0, LEAF_BYTES);
  return ref;
}

static int need_slab(struct view *view) {
  if (view->slab) return 0;
  view->slab = malloc(sizeof *view->slab);
  if (!view->slab) return -ENOMEM;
  slab_init(view->slab);
  return 0;
}

static bool is_zeros(const struct resolved *r) {
  for (uint32_t i = 0; i < LEAF_BLOCKS; i++)
    if (has_place(r->place[i])) return false;
  return true;
}

static uint32_t leaf_of_data(struct slab *slab, const struct resolved *r) {
  uint32_t ref = leaf_alloc(slab);
  if (!ref) return 0;
  struct entry *entries = slab_at(slab, ref);
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) {
    const uint32_t *place = &r->place[i * CLUSTER_BLOCKS];
    const uint16_t *shard = &r->shard[i * CLUSTER_BLOCKS];
    struct entry e;
    if (!simple_entry(place, shard, &e) && mixed_entry(slab, place, shard, &e)) {
      free_leaf(slab, ref);
      return 0;
    }
    entries[i] = e;
  }
  return ref;
}

static int add_sums(struct view *view, uint64_t leaf, const struct resolved *r) {
  uint32_t ref;
  if (block_sums_pack(view->slab, &r->sums, NULL, &ref)) return -ENOMEM;
  if (!ref || !radix_insert(&view->sums, view->slab, leaf, ref)) return 0;
  block_sums_free(view->slab, ref);
  return -ENOMEM;
}

static void drop_sums(struct view *view, uint64_t leaf) {
  if (!view->sums.root) return;
  block_sums_free(view->slab, radix_remove(&view->sums, view->slab, leaf));
}

int view_add_leaf(struct view *view, uint64_t leaf, const struct resolved *r) {
  check(leaf < MAP_LEAVES_MAX);
  if (need_slab(view)) return -ENOMEM;
  view_drop_leaf(view, leaf);
  uint32_t ref;
  if (is_zeros(r)) {
    if (!view->zero_leaf) view->zero_leaf = leaf_alloc(view->slab);
    ref = view->zero_leaf;
  } else {
    ref = leaf_of_data(view->slab, r);
  }
  if (!ref) return -ENOMEM;
  if (!add_sums(view, leaf, r)) {
    if (!radix_insert(&view->leaves, view->slab, leaf, ref)) return 0;
    drop_sums(view, leaf);
  }
  if (ref != view->zero_leaf) free_leaf(view->slab, ref);
  return -ENOMEM;
}

void view_drop_leaf(struct view *view, uint64_t leaf) {
  uint32_t ref = radix_remove(&view->leaves, view->slab, leaf);
  if (ref && ref != view->zero_leaf) free_leaf(view->slab, ref);
  drop_sums(view, leaf);
}
