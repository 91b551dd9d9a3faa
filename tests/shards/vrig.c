/* vrig.c - see vrig.h. */
#include "tests/shards/vrig.h"

#include "shards/manifest_internal.h"

#define LAYERS  4u
#define RECORDS 12u
#define STAMP   UINT64_C(0x5a4d50c1a57e2)

/* ---- Digest -------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t a, uint64_t b) {
  struct random x = {a * UINT64_C(0x9e3779b97f4a7c15) ^ b};
  return random_next(&x);
}

uint64_t vrig_stamp(struct mrig *r, uint64_t block) {
  uint64_t stamp[2];
  memcpy(stamp, mrig_block(r, block), sizeof stamp);
  return stamp[0] == STAMP ? stamp[1] : 0;
}

/* By what its first block holds, not by its place: one that was given to others too early shows,
 * since no state of the model has a cluster without a stamp. */
static uint64_t cluster_digest(struct mrig *r, uint64_t layer, uint64_t number, struct cluster c) {
  if (!c.valid && !c.zero) return 0;
  uint64_t version = c.valid ? vrig_stamp(r, c.place) : 0;
  return mix(mix(layer, number), mix(version, (uint64_t)c.valid << 16 | c.zero));
}

uint64_t vrig_record_digest(struct blob_id key, const void *data, uint32_t bytes) {
  uint64_t sum = mix(key.hi, bytes);
  for (uint32_t i = 0; i < bytes; i++) sum = sum * 31 + ((const uint8_t *)data)[i];
  return bytes ? mix(sum, key.lo) : 0;
}

struct digest {
  struct mrig *r;
  struct manifest *m;
  uint64_t sum;
};
static int add_leaf(void *arg, struct layer *layer, uint64_t leaf,
                    const struct cluster clusters[LEAF_CLUSTERS]) {
  struct digest *d = arg;
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) {
    struct cluster c = clusters[i];
    d->sum ^= cluster_digest(d->r, layer_id(layer), leaf * LEAF_CLUSTERS + i, c);
    for (uint32_t k = 0; c.place && k < CLUSTER_BLOCKS; k++)
      assert_true(space_is_used(manifest_space(d->m), c.place + k));
  }
  return 0;
}

static uint64_t volumes_digest(struct mrig *r, struct manifest *m) {
  struct digest d = {r, m, 0};
  uint64_t count = 0;
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++)
    map_partition_visit(manifest_map(m), p, add_leaf, &d);
  const struct record *x = NULL;
  while ((x = records_next(manifest_records(m), x)) != NULL) {
    d.sum ^= vrig_record_digest(x->key, x->data, x->bytes);
    count++;
  }
  assert_int_equal(count, records_count(manifest_records(m)));
  return d.sum;
}

/* ---- Changes ------------------------------------------------------------------------------- */

uint32_t vrig_take_place(struct vrig *v) {
  struct extent run;
  if (space_alloc(manifest_space(v->m.m), CLUSTER_BLOCKS, &run, 1, 0) != 1) return 0;
  return (uint32_t)run.block;
}
static void give_back(struct vrig *v, uint32_t place) {
  space_cancel(manifest_space(v->m.m), &(struct extent){place, CLUSTER_BLOCKS}, 1);
}
static void free_place(struct vrig *v, uint32_t place) {
  space_free(manifest_space(v->m.m), &(struct extent){place, CLUSTER_BLOCKS}, 1);
}
void vrig_write_stamp(struct vrig *v, uint64_t block, uint64_t version) {
  uint64_t bytes[BLOCK_BYTES / 8] = {STAMP, version};
  mrig_write(&v->m, block, bytes);
}

struct layer *vrig_pin(struct vrig *v, uint64_t id, uint64_t leaf) {
  struct layer *layer;
  struct map *map = manifest_map(v->m.m);
  assert_int_equal(map_layer_add(map, id, &layer), 0);
  assert_int_equal(layer_pin_leaf(map, layer, leaf), 0);
  return layer;
}
void vrig_unpin(struct vrig *v, struct layer *layer, uint64_t leaf) {
  layer_unpin_leaf(manifest_map(v->m.m), layer, leaf);
}

/* How the digest changes when the clusters of `which` become those. */
uint64_t vrig_delta(struct vrig *v, struct layer *layer, uint64_t leaf, uint64_t which,
                    const struct cluster *clusters) {
  uint64_t delta = 0;
  for (; which; which &= which - 1) {
    uint32_t slot = (uint32_t)__builtin_ctzll(which);
    uint64_t number = leaf * LEAF_CLUSTERS + slot, id = layer_id(layer);
    struct cluster now = clusters ? clusters[slot] : (struct cluster){0};
    delta ^= cluster_digest(&v->m, id, number, layer_get(layer, number));
    delta ^= cluster_digest(&v->m, id, number, now);
  }
  return delta;
}

/* 0, or what the reservation says. */
int vrig_set(struct vrig *v, uint64_t id, uint64_t leaf, uint64_t which,
             const struct cluster *clusters, bool frees) {
  uint32_t count = (uint32_t)__builtin_popcountll(which);
  int e = manifest_reserve_map(v->m.m, count, frees);
  if (e) return e;
  struct layer *layer = vrig_pin(v, id, leaf);
  uint64_t delta = vrig_delta(v, layer, leaf, which, clusters);
  mrig_changed(&v->m, manifest_set_clusters(v->m.m, layer, leaf, which, clusters, count), delta);
  vrig_unpin(v, layer, leaf);
  v->sets++;
  return 0;
}

/* One with new data: it must be possible. */
uint32_t vrig_set_one(struct vrig *v, uint64_t id, uint64_t number, uint16_t valid) {
  struct cluster c[LEAF_CLUSTERS] = {{0}};
  uint32_t slot = (uint32_t)(number % LEAF_CLUSTERS), place = vrig_take_place(v);
  assert_true(place != 0);
  vrig_write_stamp(v, place, ++v->versions);
  c[slot] = (struct cluster){.place = place, .valid = valid};
  assert_int_equal(vrig_set(v, id, number / LEAF_CLUSTERS, UINT64_C(1) << slot, c, false), 0);
  return place;
}
void vrig_drop_one(struct vrig *v, uint64_t id, uint64_t number) {
  static const struct cluster none[LEAF_CLUSTERS];
  assert_int_equal(
      vrig_set(v, id, number / LEAF_CLUSTERS, UINT64_C(1) << number % LEAF_CLUSTERS, none, true),
      0);
}
struct cluster vrig_get(struct manifest *m, uint64_t id, uint64_t number) {
  const struct layer *layer = map_layer(manifest_map(m), id);
  return layer ? layer_get(layer, number) : (struct cluster){0};
}

/* Clusters of one leaf go over, as far as which_to has them; the rest of which_from is dropped. */
int vrig_move(struct vrig *v, uint64_t from_id, uint64_t to_id, uint64_t leaf, uint64_t which,
              uint64_t which_to) {
  uint32_t count = (uint32_t)__builtin_popcountll(which_to), dropped = 0;
  uint32_t drop[2 * LEAF_CLUSTERS];
  struct cluster clusters[LEAF_CLUSTERS] = {{0}};
  int e = manifest_reserve_map(v->m.m, count ? count : 1, false);
  if (e) return e;
  struct layer *from = vrig_pin(v, from_id, leaf), *to = vrig_pin(v, to_id, leaf);
  for (uint64_t w = which | which_to; w; w &= w - 1) {
    uint32_t slot = (uint32_t)__builtin_ctzll(w);
    struct cluster a = layer_get(from, leaf * LEAF_CLUSTERS + slot);
    struct cluster b = layer_get(to, leaf * LEAF_CLUSTERS + slot);
    bool moves = which_to >> slot & 1;
    if (moves) clusters[slot] = a;
    if (moves && b.place) drop[dropped++] = b.place;
    if (!moves && a.place) drop[dropped++] = a.place;
  }
  uint64_t delta =
      vrig_delta(v, from, leaf, which, NULL) ^ vrig_delta(v, to, leaf, which_to, clusters);
  mrig_changed(
      &v->m,
      manifest_move_clusters(v->m.m, from, which, to, which_to, leaf, clusters, count ? count : 1),
      delta);
  while (dropped > 0) free_place(v, drop[--dropped]);
  vrig_unpin(v, from, leaf);
  vrig_unpin(v, to, leaf);
  v->moves++;
  return 0;
}

struct blob_id vrig_key(uint32_t n) {
  return (struct blob_id){n * 7 + 1, n};
}
int vrig_put_record(struct vrig *v, uint32_t n, uint32_t bytes) {
  char data[RECORD_BYTES_MAX];
  struct blob_id key = vrig_key(n);
  int e = manifest_reserve_record(v->m.m, key, bytes);
  if (e) return e;
  const struct record *old = records_find(manifest_records(v->m.m), key);
  uint64_t delta = old ? vrig_record_digest(key, old->data, old->bytes) : 0;
  for (uint32_t i = 0; i < bytes; i++) data[i] = (char)random_next(&v->m.random);
  delta ^= vrig_record_digest(key, data, bytes);
  mrig_changed(&v->m, manifest_put_record(v->m.m, key, data, bytes), delta);
  return 0;
}

/* Overwrites a block where it lies. */
uint64_t vrig_in_place(struct vrig *v, uint32_t i) {
  struct cluster c = vrig_get(v->m.m, 99, 7 * LEAF_CLUSTERS + i);
  vrig_write_stamp(v, c.place + 5, ++v->latest[i]);
  uint64_t ticket = manifest_note_data(v->m.m);
  assert_int_equal(ticket, v->m.next_sequence + v->m.notes);
  v->m.notes++;
  return ticket;
}

/* ---- Life ---------------------------------------------------------------------------------- */

void vrig_open(struct vrig *v, uint64_t blocks, uint64_t log_blocks, uint64_t seed) {
  memset(v, 0, sizeof *v);
  mrig_open_log(&v->m, blocks, log_blocks, seed);
  v->m.extra = volumes_digest;
  for (uint32_t i = 0; i < IN_PLACE; i++) {
    uint32_t place = vrig_set_one(v, 99, 7 * LEAF_CLUSTERS + i, 0xffff);
    vrig_write_stamp(v, place + 5, v->latest[i] = v->durable[i] = 1);
  }
  mrig_flush(&v->m);
}

void vrig_crash(struct vrig *v) {
  mrig_crash(&v->m);
  memset(v->pending, 0, sizeof v->pending);
  memset(&v->waiter, 0, sizeof v->waiter);
  for (uint32_t i = 0; i < IN_PLACE; i++) {
    struct cluster c = vrig_get(v->m.m, 99, 7 * LEAF_CLUSTERS + i);
    uint64_t found = vrig_stamp(&v->m, c.place + 5);
    assert_in_range(found, v->durable[i], v->latest[i]);
    v->durable[i] = v->latest[i] = found;
  }
}

/* What is on disk is what is in memory. */
void vrig_assert_recovers(struct vrig *v) {
  struct manifest *m;
  if (mrig_recover(&v->m, &m)) fail_msg("%s", v->m.why);
  mrig_check(&v->m, m, v->m.next_sequence, v->m.next_sequence);
  mrig_check_space(m);
  manifest_destroy(m);
}

void vrig_checkpoint_all(struct vrig *v) {
  manifest_checkpoint_all(v->m.m);
  for (int i = 0; !manifest_checkpoint_done(v->m.m); i++) {
    assert_true(i < 100000);
    mrig_step(&v->m);
    if (manifest_wants_flush(v->m.m)) mrig_flush(&v->m);
  }
  mrig_flush(&v->m);
}

/* ---- By chance ----------------------------------------------------------------------------- */

static uint64_t random_leaf(struct vrig *v) {
  static const uint64_t leaves[] = {0, 1, 63, 5000, MAP_LEAVES_MAX - 1};
  return leaves[random_below(&v->m.random, array_size(leaves))];
}
static bool is_pending(const struct vrig *v, uint64_t layer, uint64_t leaf, uint32_t slot) {
  for (uint32_t i = 0; i < UNDER_WAY; i++)
    if (v->pending[i].place && v->pending[i].layer == layer && v->pending[i].leaf == leaf &&
        v->pending[i].slot == slot)
      return true;
  return false;
}

void vrig_random_set(struct vrig *v) {
  struct random *x = &v->m.random;
  uint64_t id = 1 + random_below(x, LAYERS), leaf = random_leaf(v), which = 0, fresh = 0;
  uint32_t count = random_below(x, 40) ? 1 + (uint32_t)random_below(x, 6) : LEAF_CLUSTERS;
  uint32_t from = (uint32_t)random_below(x, LEAF_CLUSTERS - count + 1);
  struct cluster c[LEAF_CLUSTERS] = {{0}};
  for (uint32_t slot = from; slot < from + count; slot++) {
    uint64_t dice = random_below(x, 10);
    struct cluster old = vrig_get(v->m.m, id, leaf * LEAF_CLUSTERS + slot);
    if (is_pending(v, id, leaf, slot)) continue;
    which |= UINT64_C(1) << slot;
    if (dice < 4) {
      if ((c[slot].place = vrig_take_place(v)) == 0) continue;
      c[slot].valid = (uint16_t)(1 | random_next(x));
      c[slot].zero = (uint16_t)(random_next(x) & ~c[slot].valid);
      vrig_write_stamp(v, c[slot].place, ++v->versions);
      fresh |= UINT64_C(1) << slot;
    } else if (dice < 6) {
      c[slot].zero = (uint16_t)random_next(x);
    } else if (dice < 8 && old.valid) { /* more blocks of the same cluster */
      c[slot] = old;
      c[slot].valid |= 1u << random_below(x, CLUSTER_BLOCKS);
      c[slot].zero &= (uint16_t)~c[slot].valid;
    }
  }
  int e = which ? vrig_set(v, id, leaf, which, c, fresh == 0) : 0;
  assert_true(e == 0 || e == -EAGAIN);
  v->refused += e != 0;
  for (; e && fresh; fresh &= fresh - 1) give_back(v, c[__builtin_ctzll(fresh)].place);
}

static void random_move(struct vrig *v) {
  struct random *x = &v->m.random;
  uint64_t from = 1 + random_below(x, LAYERS), to = 1 + random_below(x, LAYERS);
  uint64_t leaf = random_leaf(v), which = random_next(x) & random_next(x);
  for (uint32_t slot = 0; slot < LEAF_CLUSTERS; slot++)
    if (is_pending(v, from, leaf, slot) || is_pending(v, to, leaf, slot))
      which &= ~(UINT64_C(1) << slot);
  if (from == to || !which) return;
  int e = vrig_move(v, from, to, leaf, which, which & random_next(x));
  assert_true(e == 0 || e == -EAGAIN);
}

/* A place is taken, its write comes later or never. */
static void random_pending(struct vrig *v) {
  struct random *x = &v->m.random;
  struct pending_write *p = &v->pending[random_below(x, UNDER_WAY)];
  struct cluster c[LEAF_CLUSTERS] = {{0}};
  if (!p->place) {
    *p = (struct pending_write){1 + random_below(x, LAYERS), random_leaf(v),
                                (uint32_t)random_below(x, LEAF_CLUSTERS), 0};
    uint64_t number = p->leaf * LEAF_CLUSTERS + p->slot;
    struct cluster old = vrig_get(v->m.m, p->layer, number);
    if (old.place || is_pending(v, p->layer, p->leaf, p->slot)) return;
    if ((p->place = vrig_take_place(v)) == 0) return;
    old.place = p->place;
    layer_set(manifest_map(v->m.m), vrig_pin(v, p->layer, p->leaf), number, old);
    return;
  }
  uint64_t number = p->leaf * LEAF_CLUSTERS + p->slot;
  c[p->slot] = vrig_get(v->m.m, p->layer, number);
  assert_int_equal(c[p->slot].place, p->place);
  c[p->slot].valid = (uint16_t)(1 | random_next(x));
  c[p->slot].zero &= (uint16_t)~c[p->slot].valid;
  struct layer *layer = map_layer(manifest_map(v->m.m), p->layer);
  vrig_write_stamp(v, p->place, ++v->versions);
  if (vrig_set(v, p->layer, p->leaf, UINT64_C(1) << p->slot, c, false)) {
    c[p->slot] = layer_get(layer, number);
    c[p->slot].place = 0;
    layer_set(manifest_map(v->m.m), layer, number, c[p->slot]);
    give_back(v, p->place);
  }
  vrig_unpin(v, layer, p->leaf);
  p->place = 0;
}

static void random_note(struct vrig *v) {
  vrig_in_place(v, (uint32_t)random_below(&v->m.random, IN_PLACE));
  if (v->waiter.waiter.done || random_below(&v->m.random, 3)) return;
  memcpy(v->waited, v->latest, sizeof v->waited);
  mrig_commit_start(&v->m, &v->waiter);
}
static void look_at_waiter(struct vrig *v) {
  if (!v->waiter.done) return;
  assert_int_equal(v->waiter.result, 0);
  mrig_note_covered(&v->m, &v->waiter);
  for (uint32_t i = 0; i < IN_PLACE; i++) v->durable[i] = v->waited[i];
  v->waiter = (struct mwaiter){0};
  v->notes_covered++;
}

void vrig_random_step(struct vrig *v) {
  uint64_t dice = random_below(&v->m.random, 100);
  if (dice < 14)
    vrig_random_set(v);
  else if (dice < 20)
    random_move(v);
  else if (dice < 26)
    random_pending(v);
  else if (dice < 32)
    random_note(v);
  else if (dice < 36)
    (void)vrig_put_record(v, (uint32_t)random_below(&v->m.random, RECORDS),
                          random_below(&v->m.random, 3)
                              ? (uint32_t)random_below(&v->m.random, RECORD_BYTES_MAX + 1)
                              : 0);
  else
    mrig_random_step(&v->m);
  look_at_waiter(v);
}
