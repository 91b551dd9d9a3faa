/* test_manifest_map.c - clusters of layers, records and data in place: through log, commits, seals,
 * checkpoints and power cuts, against a model. Changes of blobs go on beside. */
#include "tests/shards/manifest_rig.h"

#include "shards/manifest_internal.h"

#define LAYERS    4u
#define IN_PLACE  4u /* clusters of layer 99 that are overwritten where they lie */
#define UNDER_WAY 6u
#define RECORDS   12u
#define STAMP     UINT64_C(0x5a4d50c1a57e2)

struct pending_write {
  uint64_t layer, leaf;
  uint32_t slot, place;
};
struct vrig {
  struct mrig m; /* first: r->extra gets it */
  uint64_t versions;
  struct pending_write pending[UNDER_WAY]; /* place 0: none */
  uint64_t latest[IN_PLACE], durable[IN_PLACE];
  struct mwaiter waiter;
  uint64_t waited[IN_PLACE];
  uint64_t sets, moves, refused, notes_covered;
};

/* ---- Digest -------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t a, uint64_t b) {
  struct random x = {a * UINT64_C(0x9e3779b97f4a7c15) ^ b};
  return random_next(&x);
}

static uint64_t stamp_of(struct mrig *r, uint64_t block) {
  uint64_t stamp[2];
  memcpy(stamp, mrig_block(r, block), sizeof stamp);
  return stamp[0] == STAMP ? stamp[1] : 0;
}

/* By what its first block holds, not by its place: one that was given to others too early shows. */
static uint64_t cluster_digest(struct mrig *r, uint64_t layer, uint64_t number, struct cluster c) {
  if (!c.valid && !c.zero) return 0;
  uint64_t version = c.valid ? stamp_of(r, c.place) : 0;
  if (c.valid) assert_true(version != 0);
  return mix(mix(layer, number), mix(version, (uint64_t)c.valid << 16 | c.zero));
}

static uint64_t record_digest(struct blob_id key, const void *data, uint32_t bytes) {
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
    d.sum ^= record_digest(x->key, x->data, x->bytes);
    count++;
  }
  assert_int_equal(count, records_count(manifest_records(m)));
  return d.sum;
}

/* ---- Changes ------------------------------------------------------------------------------- */

static uint32_t take_place(struct vrig *v) {
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
static void write_stamp(struct vrig *v, uint64_t block, uint64_t version) {
  uint64_t bytes[BLOCK_BYTES / 8] = {STAMP, version};
  mrig_write(&v->m, block, bytes);
}

static struct layer *pin(struct vrig *v, uint64_t id, uint64_t leaf) {
  struct layer *layer;
  struct map *map = manifest_map(v->m.m);
  assert_int_equal(map_layer_add(map, id, &layer), 0);
  assert_int_equal(layer_pin_leaf(map, layer, leaf), 0);
  return layer;
}
static void unpin(struct vrig *v, struct layer *layer, uint64_t leaf) {
  layer_unpin_leaf(manifest_map(v->m.m), layer, leaf);
}

/* How the digest changes when the clusters of `which` become those. */
static uint64_t delta_of(struct vrig *v, struct layer *layer, uint64_t leaf, uint64_t which,
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
static int set_clusters(struct vrig *v, uint64_t id, uint64_t leaf, uint64_t which,
                        const struct cluster *clusters, bool frees) {
  uint32_t count = (uint32_t)__builtin_popcountll(which);
  int e = manifest_reserve_map(v->m.m, count, frees);
  if (e) return e;
  struct layer *layer = pin(v, id, leaf);
  uint64_t delta = delta_of(v, layer, leaf, which, clusters);
  mrig_changed(&v->m, manifest_set_clusters(v->m.m, layer, leaf, which, clusters, count), delta);
  unpin(v, layer, leaf);
  v->sets++;
  return 0;
}

/* One with new data: it must be possible. */
static uint32_t set_one(struct vrig *v, uint64_t id, uint64_t number, uint16_t valid) {
  struct cluster c[LEAF_CLUSTERS] = {{0}};
  uint32_t slot = (uint32_t)(number % LEAF_CLUSTERS), place = take_place(v);
  assert_true(place != 0);
  write_stamp(v, place, ++v->versions);
  c[slot] = (struct cluster){.place = place, .valid = valid};
  assert_int_equal(set_clusters(v, id, number / LEAF_CLUSTERS, UINT64_C(1) << slot, c, false), 0);
  return place;
}
static void drop_one(struct vrig *v, uint64_t id, uint64_t number) {
  static const struct cluster none[LEAF_CLUSTERS];
  assert_int_equal(set_clusters(v, id, number / LEAF_CLUSTERS,
                                UINT64_C(1) << number % LEAF_CLUSTERS, none, true),
                   0);
}
static struct cluster get(struct manifest *m, uint64_t id, uint64_t number) {
  const struct layer *layer = map_layer(manifest_map(m), id);
  return layer ? layer_get(layer, number) : (struct cluster){0};
}

/* Clusters of one leaf go over, as far as which_to has them; the rest of which_from is dropped. */
static int move(struct vrig *v, uint64_t from_id, uint64_t to_id, uint64_t leaf, uint64_t which,
                uint64_t which_to) {
  uint32_t count = (uint32_t)__builtin_popcountll(which_to), dropped = 0;
  uint32_t drop[2 * LEAF_CLUSTERS];
  struct cluster clusters[LEAF_CLUSTERS] = {{0}};
  int e = manifest_reserve_map(v->m.m, count ? count : 1, false);
  if (e) return e;
  struct layer *from = pin(v, from_id, leaf), *to = pin(v, to_id, leaf);
  for (uint64_t w = which | which_to; w; w &= w - 1) {
    uint32_t slot = (uint32_t)__builtin_ctzll(w);
    struct cluster a = layer_get(from, leaf * LEAF_CLUSTERS + slot);
    struct cluster b = layer_get(to, leaf * LEAF_CLUSTERS + slot);
    bool moves = which_to >> slot & 1;
    if (moves) clusters[slot] = a;
    if (moves && b.place) drop[dropped++] = b.place;
    if (!moves && a.place) drop[dropped++] = a.place;
  }
  uint64_t delta = delta_of(v, from, leaf, which, NULL) ^ delta_of(v, to, leaf, which_to, clusters);
  mrig_changed(
      &v->m,
      manifest_move_clusters(v->m.m, from, which, to, which_to, leaf, clusters, count ? count : 1),
      delta);
  while (dropped > 0) free_place(v, drop[--dropped]);
  unpin(v, from, leaf);
  unpin(v, to, leaf);
  v->moves++;
  return 0;
}

static struct blob_id record_key(uint32_t n) { return (struct blob_id){n * 7 + 1, n}; }
static int put_record(struct vrig *v, uint32_t n, uint32_t bytes) {
  char data[RECORD_BYTES_MAX];
  struct blob_id key = record_key(n);
  int e = manifest_reserve_record(v->m.m, key, bytes);
  if (e) return e;
  const struct record *old = records_find(manifest_records(v->m.m), key);
  uint64_t delta = old ? record_digest(key, old->data, old->bytes) : 0;
  for (uint32_t i = 0; i < bytes; i++) data[i] = (char)random_next(&v->m.random);
  delta ^= record_digest(key, data, bytes);
  mrig_changed(&v->m, manifest_put_record(v->m.m, key, data, bytes), delta);
  return 0;
}

/* Overwrites a block where it lies. */
static uint64_t in_place(struct vrig *v, uint32_t i) {
  struct cluster c = get(v->m.m, 99, 7 * LEAF_CLUSTERS + i);
  write_stamp(v, c.place + 5, ++v->latest[i]);
  uint64_t ticket = manifest_note_data(v->m.m);
  assert_int_equal(ticket, v->m.next_sequence + v->m.notes);
  v->m.notes++;
  return ticket;
}

/* ---- Life ---------------------------------------------------------------------------------- */

static void vrig_open(struct vrig *v, uint64_t blocks, uint64_t log_blocks, uint64_t seed) {
  memset(v, 0, sizeof *v);
  mrig_open_log(&v->m, blocks, log_blocks, seed);
  v->m.extra = volumes_digest;
  for (uint32_t i = 0; i < IN_PLACE; i++) {
    uint32_t place = set_one(v, 99, 7 * LEAF_CLUSTERS + i, 0xffff);
    write_stamp(v, place + 5, v->latest[i] = v->durable[i] = 1);
  }
  mrig_flush(&v->m);
}

static void vrig_crash(struct vrig *v) {
  mrig_crash(&v->m);
  memset(v->pending, 0, sizeof v->pending);
  memset(&v->waiter, 0, sizeof v->waiter);
  for (uint32_t i = 0; i < IN_PLACE; i++) {
    struct cluster c = get(v->m.m, 99, 7 * LEAF_CLUSTERS + i);
    uint64_t found = stamp_of(&v->m, c.place + 5);
    assert_in_range(found, v->durable[i], v->latest[i]);
    v->durable[i] = v->latest[i] = found;
  }
}

/* What is on disk is what is in memory. */
static void assert_recovers(struct vrig *v) {
  struct manifest *m;
  if (mrig_recover(&v->m, &m)) fail_msg("%s", v->m.why);
  mrig_check(&v->m, m, v->m.next_sequence, v->m.next_sequence);
  mrig_check_space(m);
  manifest_destroy(m);
}

static void checkpoint_all(struct vrig *v) {
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

static void random_set(struct vrig *v) {
  struct random *x = &v->m.random;
  uint64_t id = 1 + random_below(x, LAYERS), leaf = random_leaf(v), which = 0, fresh = 0;
  uint32_t count = random_below(x, 40) ? 1 + (uint32_t)random_below(x, 6) : LEAF_CLUSTERS;
  uint32_t from = (uint32_t)random_below(x, LEAF_CLUSTERS - count + 1);
  struct cluster c[LEAF_CLUSTERS] = {{0}};
  for (uint32_t slot = from; slot < from + count; slot++) {
    uint64_t dice = random_below(x, 10);
    struct cluster old = get(v->m.m, id, leaf * LEAF_CLUSTERS + slot);
    if (is_pending(v, id, leaf, slot)) continue;
    which |= UINT64_C(1) << slot;
    if (dice < 4) {
      if ((c[slot].place = take_place(v)) == 0) continue;
      c[slot].valid = (uint16_t)(1 | random_next(x));
      c[slot].zero = (uint16_t)(random_next(x) & ~c[slot].valid);
      write_stamp(v, c[slot].place, ++v->versions);
      fresh |= UINT64_C(1) << slot;
    } else if (dice < 6) {
      c[slot].zero = (uint16_t)random_next(x);
    } else if (dice < 8 && old.valid) { /* more blocks of the same cluster */
      c[slot] = old;
      c[slot].valid |= 1u << random_below(x, CLUSTER_BLOCKS);
      c[slot].zero &= (uint16_t)~c[slot].valid;
    }
  }
  int e = which ? set_clusters(v, id, leaf, which, c, fresh == 0) : 0;
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
  int e = move(v, from, to, leaf, which, which & random_next(x));
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
    struct cluster old = get(v->m.m, p->layer, number);
    if (old.place || is_pending(v, p->layer, p->leaf, p->slot)) return;
    if ((p->place = take_place(v)) == 0) return;
    old.place = p->place;
    layer_set(manifest_map(v->m.m), pin(v, p->layer, p->leaf), number, old);
    return;
  }
  uint64_t number = p->leaf * LEAF_CLUSTERS + p->slot;
  c[p->slot] = get(v->m.m, p->layer, number);
  assert_int_equal(c[p->slot].place, p->place);
  c[p->slot].valid = (uint16_t)(1 | random_next(x));
  c[p->slot].zero &= (uint16_t)~c[p->slot].valid;
  struct layer *layer = map_layer(manifest_map(v->m.m), p->layer);
  write_stamp(v, p->place, ++v->versions);
  if (set_clusters(v, p->layer, p->leaf, UINT64_C(1) << p->slot, c, false)) {
    c[p->slot] = layer_get(layer, number);
    c[p->slot].place = 0;
    layer_set(manifest_map(v->m.m), layer, number, c[p->slot]);
    give_back(v, p->place);
  }
  unpin(v, layer, p->leaf);
  p->place = 0;
}

static void random_note(struct vrig *v) {
  in_place(v, (uint32_t)random_below(&v->m.random, IN_PLACE));
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

static void random_step(struct vrig *v) {
  uint64_t dice = random_below(&v->m.random, 100);
  if (dice < 14)
    random_set(v);
  else if (dice < 20)
    random_move(v);
  else if (dice < 26)
    random_pending(v);
  else if (dice < 32)
    random_note(v);
  else if (dice < 36)
    (void)put_record(v, (uint32_t)random_below(&v->m.random, RECORDS),
                     random_below(&v->m.random, 3)
                         ? (uint32_t)random_below(&v->m.random, RECORD_BYTES_MAX + 1)
                         : 0);
  else
    mrig_random_step(&v->m);
  look_at_waiter(v);
}

static void power_cuts(uint64_t seed, uint64_t blocks, uint32_t group_bytes, int crashes,
                       struct vrig *sum) {
  struct vrig v;
  vrig_open(&v, blocks, MRIG_LOG, seed);
  v.m.config.checkpoint_group_bytes = group_bytes;
  for (int i = 0; i < crashes; i++) {
    for (uint64_t n = random_below(&v.m.random, 1500); n > 0; n--) {
      random_step(&v);
      if (n % 64 == 0) mrig_check_space(v.m.m);
    }
    mrig_check(&v.m, v.m.m, v.m.next_sequence, v.m.next_sequence);
    vrig_crash(&v);
  }
  mrig_settle(&v.m);
  sum->sets += v.sets;
  sum->moves += v.moves;
  sum->refused += v.refused;
  sum->notes_covered += v.notes_covered;
  mrig_close(&v.m);
}
static void test_power_cuts(void **state) {
  (void)state;
  struct vrig sum = {.sets = 0};
  for (uint64_t seed = 1; seed <= 4; seed++)
    power_cuts(seed, 16384, seed % 2 ? 1 : 0, 12, &sum); /* many checkpoints, or few */
  for (uint64_t seed = 11; seed <= 12; seed++) power_cuts(seed, 3000, 4096, 12, &sum);
  print_message("%llu sets, %llu moves, %llu refused, %llu notes\n", (unsigned long long)sum.sets,
                (unsigned long long)sum.moves, (unsigned long long)sum.refused,
                (unsigned long long)sum.notes_covered);
  assert_true(sum.sets > 2000 && sum.moves > 500 && sum.refused > 10 && sum.notes_covered > 100);
}

/* The log goes round many times while checkpoints follow, with nothing but volumes' changes. */
static void test_the_log_goes_round(void **state) {
  (void)state;
  struct vrig v;
  uint32_t waits = 0;
  vrig_open(&v, 16384, MRIG_LOG, 21);
  for (int i = 0; i < 30000; i++) {
    uint64_t refused = v.refused;
    random_set(&v);
    if (i % 50 == 0) (void)put_record(&v, (uint32_t)i % RECORDS, 1000);
    if (i % 8 == 0) mrig_step(&v.m);
    if (i % 40 == 0) assert_int_equal(mrig_commit(&v.m), 0);
    waits = v.refused > refused ? waits + 1 : 0;
    assert_true(waits < 300);
    if (waits) mrig_step(&v.m);
    if (manifest_wants_flush(v.m.m)) mrig_flush(&v.m);
    if (i % 4000 == 0) {
      assert_int_equal(mrig_commit(&v.m), 0);
      assert_recovers(&v);
    }
  }
  assert_true(v.m.m->position > 4 * MRIG_LOG);
  mrig_flush(&v.m);
  assert_recovers(&v);
  mrig_close(&v.m);
}

/* ---- Clusters ------------------------------------------------------------------------------ */

static void test_places_come_back(void **state) {
  (void)state;
  struct vrig v;
  struct cluster c[LEAF_CLUSTERS] = {{0}};
  vrig_open(&v, 4096, MRIG_LOG, 31);
  struct space *s = manifest_space(v.m.m);
  uint64_t pending = space_pending_blocks(s);
  uint32_t place = set_one(&v, 5, 70, 1);
  c[6] = (struct cluster){.place = place, .valid = 3, .zero = 4};
  assert_int_equal(set_clusters(&v, 5, 1, 1 << 6, c, false), 0); /* keeps it */
  assert_int_equal(space_pending_blocks(s), pending);
  set_one(&v, 5, 70, 1);
  assert_int_equal(space_pending_blocks(s), pending + CLUSTER_BLOCKS);
  for (uint32_t i = 64; i < 128; i++) set_one(&v, 5, i, 1); /* 70 again */
  assert_int_equal(space_pending_blocks(s), pending + 2 * CLUSTER_BLOCKS);
  uint64_t log = v.m.m->open_buffer ? v.m.m->open_buffer->payload_bytes : 0;
  memset(c, 0, sizeof c);
  assert_int_equal(set_clusters(&v, 5, 1, UINT64_MAX, c, true), 0);
  assert_int_equal(space_pending_blocks(s), pending + 66 * CLUSTER_BLOCKS);
  assert_int_equal(v.m.m->open_buffer->payload_bytes - log, 24); /* a whole leaf, shortly */
  assert_null(layer_leaf(map_layer(manifest_map(v.m.m), 5), 1));
  mrig_check_space(v.m.m);
  assert_int_equal(mrig_commit(&v.m), 0);
  assert_recovers(&v);
  mrig_flush(&v.m);
  assert_int_equal(space_pending_blocks(s), 0);
  assert_recovers(&v);
  mrig_close(&v.m);
}

/* What has a place and no valid bit is in no log and no checkpoint; its zeros are. */
static void test_under_way_is_not_on_disk(void **state) {
  (void)state;
  struct vrig v;
  struct manifest *m;
  vrig_open(&v, 4096, MRIG_LOG, 32);
  set_one(&v, 5, 0, 1);
  struct layer *layer = pin(&v, 5, 0);
  layer_set(manifest_map(v.m.m), layer, 1, (struct cluster){.place = take_place(&v)});
  struct cluster c[LEAF_CLUSTERS] = {[2] = {.place = take_place(&v), .zero = 6}};
  assert_int_equal(set_clusters(&v, 5, 0, 1 << 2, c, false), 0);
  for (int round = 0; round < 2; round++) {
    assert_int_equal(mrig_commit(&v.m), 0);
    assert_int_equal(mrig_recover(&v.m, &m), 0);
    mrig_check(&v.m, m, v.m.next_sequence, v.m.next_sequence);
    assert_int_equal(get(m, 5, 1).place, 0);
    assert_int_equal(get(m, 5, 2).place, 0);
    assert_int_equal(get(m, 5, 2).zero, 6);
    mrig_check_space(m);
    manifest_destroy(m);
    checkpoint_all(&v);
  }
  unpin(&v, layer, 0);
  mrig_check_space(v.m.m);
  mrig_close(&v.m);
}

static void test_what_survives(void **state) {
  (void)state;
  struct vrig v;
  vrig_open(&v, 8192, MRIG_LOG, 33);
  set_one(&v, 5, 1, 1);
  assert_int_equal(put_record(&v, 1, 100), 0);
  mrig_flush(&v.m); /* by a root */
  set_one(&v, 5, 2, 1);
  assert_int_equal(mrig_commit(&v.m), 0); /* by a commit */
  uint64_t committed = v.m.next_sequence;
  set_one(&v, 5, 3, 1);
  assert_int_equal(put_record(&v, 2, 100), 0); /* by nothing */
  vrig_crash(&v);
  assert_int_equal(v.m.next_sequence, committed);
  assert_true(get(v.m.m, 5, 1).valid && get(v.m.m, 5, 2).valid && !get(v.m.m, 5, 3).valid);
  assert_non_null(records_find(manifest_records(v.m.m), record_key(1)));
  assert_null(records_find(manifest_records(v.m.m), record_key(2)));
  drop_one(&v, 5, 1);
  drop_one(&v, 5, 2);
  assert_int_equal(mrig_commit(&v.m), 0);
  vrig_crash(&v);
  assert_null(map_layer(manifest_map(v.m.m), 5)); /* empty ones are not made again */
  mrig_close(&v.m);
}

/* Both halves of a move are there, whichever of the two partitions has the later checkpoint. */
static void test_moves_across_checkpoints(void **state) {
  (void)state;
  for (uint32_t late = 0; late < 2; late++) {
    struct vrig v;
    struct manifest *m;
    vrig_open(&v, 16384, 1024, 34);
    v.m.m->config.checkpoint_group_bytes = 1;
    uint64_t to = 6;
    uint32_t p = map_partition_of(map_leaf_hash(manifest_map(v.m.m), 5, 0)), q;
    do q = map_partition_of(map_leaf_hash(manifest_map(v.m.m), ++to, 0));
    while (late ? q >= p : q <= p);
    for (uint32_t i = 0; i < 8; i++) set_one(&v, 5, i, 1);
    set_one(&v, to, 3, 1);
    checkpoint_all(&v);
    assert_int_equal(v.m.m->next_partition, 0);
    assert_int_equal(move(&v, 5, to, 0, 0x7f, 0x1f), 0); /* 5 and 6 are dropped, 7 stays */
    manifest_checkpoint_all(v.m.m);
    while (v.m.m->next_partition <= (p < q ? p : q)) mrig_step(&v.m);
    assert_true(v.m.m->next_partition <= (p < q ? q : p)); /* one has it, the other has not */
    mrig_flush(&v.m);
    for (uint32_t k = 0; k < 2; k++) {
      assert_int_equal(mrig_recover(&v.m, &m), 0);
      mrig_check(&v.m, m, v.m.next_sequence, v.m.next_sequence);
      for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(get(m, 5, i).valid, i == 7);
        assert_int_equal(get(m, to, i).valid, i < 5);
      }
      mrig_check_space(m);
      manifest_destroy(m);
      checkpoint_all(&v);
    }
    mrig_close(&v.m);
  }
}

/* ---- Claims -------------------------------------------------------------------------------- */

/* Gives a cluster a place that is not its own, and commits. */
static void steal(struct vrig *v, uint64_t id, uint32_t slot, uint32_t place) {
  struct cluster c[LEAF_CLUSTERS] = {[0] = {0}};
  c[slot] = (struct cluster){.place = place, .valid = 1};
  struct layer *layer = pin(v, id, 0);
  assert_int_equal(manifest_reserve_map(v->m.m, 1, false), 0);
  manifest_set_clusters(v->m.m, layer, 0, UINT64_C(1) << slot, c, 1);
  v->m.next_sequence++;
  assert_int_equal(mrig_commit(&v->m), 0);
}

static void refuses(struct vrig *v, const char *why) {
  struct manifest *m;
  assert_int_equal(mrig_recover(&v->m, &m), -EBADMSG);
  if (!strstr(v->m.why, why)) fail_msg("%s", v->m.why);
}

static void test_two_claim_a_place(void **state) {
  (void)state;
  for (int kind = 0; kind < 5; kind++) {
    struct vrig v;
    struct blob b;
    char why[64] = "layer 5, cluster 9: block";
    vrig_open(&v, 8192, MRIG_LOG, 35);
    uint32_t place = set_one(&v, 4, 3, 1);
    assert_int_equal(mrig_put(&v.m, 1, 40000), 0);
    assert_int_equal(index_find(manifest_index(v.m.m), mrig_hash(&v.m, mrig_id(1)), mrig_id(1), &b),
                     0);
    if (kind == 0) place += 8; /* half of it */
    if (kind == 1) place = (uint32_t)b.extents[0].block;
    if (kind == 2) place = 100; /* the log */
    if (kind == 3) checkpoint_all(&v);
    if (kind == 3) place = (uint32_t)v.m.m->root.dir_block;
    if (kind == 4) place = 8192 - 15;
    if (kind == 4) snprintf(why, sizeof why, "impossible cluster");
    steal(&v, 5, 9, place);
    refuses(&v, why);
    if (kind < 3) { /* from a checkpoint as well; a new directory lies elsewhere */
      checkpoint_all(&v);
      refuses(&v, why);
    }
    mrig_close(&v.m);
  }
}

/* In a run of places, it is the one that is named. */
static void test_the_right_one_is_named(void **state) {
  (void)state;
  struct vrig v;
  struct cluster c[LEAF_CLUSTERS];
  struct extent run;
  vrig_open(&v, 8192, MRIG_LOG, 36);
  assert_int_equal(space_alloc(manifest_space(v.m.m), 64 * CLUSTER_BLOCKS, &run, 1, 0), 1);
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++) {
    c[i] = (struct cluster){.place = (uint32_t)run.block + i * CLUSTER_BLOCKS, .valid = 1};
    write_stamp(&v, c[i].place, ++v.versions);
  }
  assert_int_equal(set_clusters(&v, 5, 2, UINT64_MAX, c, false), 0);
  assert_int_equal(mrig_commit(&v.m), 0);
  assert_recovers(&v);
  struct extent middle = {c[40].place + 3,
                          1}; /* a blob lies in the middle of cluster 2 * 64 + 40 */
  struct blob b = {.id = mrig_id(1), .bytes = 1, .granule_shift = 12, .flags = BLOB_NO_CHECKSUM};
  b.extents = &middle;
  b.extent_count = 1;
  assert_int_equal(manifest_reserve(v.m.m, mrig_hash(&v.m, b.id), 1, 0), 0);
  manifest_put(v.m.m, mrig_hash(&v.m, b.id), &b);
  v.m.next_sequence++;
  assert_int_equal(mrig_commit(&v.m), 0);
  refuses(&v, "layer 5, cluster 168: block");
  mrig_close(&v.m);
}

/* ---- Data in place ------------------------------------------------------------------------- */

static void test_data_alone_needs_one_flush(void **state) {
  (void)state;
  struct vrig v;
  struct mwaiter w[3];
  struct manifest_stats before, after;
  vrig_open(&v, 4096, MRIG_LOG, 41);
  assert_false(manifest_dirty(v.m.m));
  manifest_stats(v.m.m, &before);
  uint64_t flushes = v.m.disk.flushes;
  for (uint32_t i = 0; i < 3; i++) {
    in_place(&v, i);
    assert_true(manifest_dirty(v.m.m));
    mrig_commit_start(&v.m, &w[i]);
    assert_false(w[i].done);
  }
  uint64_t writes = v.m.disk.writes;
  mrig_drain(&v.m);
  for (uint32_t i = 0; i < 3; i++) assert_true(w[i].done && w[i].result == 0);
  assert_int_equal(v.m.disk.flushes - flushes, 1);
  assert_int_equal(v.m.disk.writes, writes); /* no frame */
  assert_false(manifest_dirty(v.m.m));
  mrig_commit_start(&v.m, &w[0]); /* for nothing */
  assert_true(w[0].done && w[0].result == 0);
  manifest_stats(v.m.m, &after);
  assert_int_equal(after.log_frames, before.log_frames);
  assert_int_equal(after.commits - before.commits, 1);
  for (uint32_t i = 0; i < 3; i++) v.durable[i] = v.latest[i];
  vrig_crash(&v);
  mrig_close(&v.m);
}

/* Data that completes while a flush runs waits for the next one, in a commit and in a seal. */
static void test_data_during_a_flush(void **state) {
  (void)state;
  for (int seal = 0; seal < 2; seal++) {
    struct vrig v;
    struct mwaiter first = {.done = true}, second;
    struct mseal s;
    vrig_open(&v, 4096, MRIG_LOG, 42);
    uint64_t flushes = v.m.disk.flushes;
    in_place(&v, 0);
    if (seal)
      mrig_seal(&v.m, &s);
    else
      mrig_commit_start(&v.m, &first);
    manifest_tick(v.m.m);
    assert_int_equal(v.m.disk.count, 1); /* the flush is on its way */
    in_place(&v, 1);
    mrig_commit_start(&v.m, &second);
    for (int i = 0; seal ? !s.done : !first.done; i++) {
      assert_true(i < 1000);
      mrig_step(&v.m);
    }
    assert_false(second.done);
    if (seal) {
      assert_true(s.seal.dirty && !s.seal.flushed);
      mrig_adopt_root(&v.m, &s);
      manifest_root_durable(v.m.m, s.seal.epoch, 0);
      assert_false(second.done);
      assert_true(manifest_dirty(v.m.m));
    }
    mrig_drain(&v.m);
    assert_true(second.done && second.result == 0);
    assert_int_equal(v.m.disk.flushes - flushes, 2);
    memcpy(v.durable, v.latest, sizeof v.durable);
    vrig_crash(&v);
    mrig_close(&v.m);
  }
}

/* A store-wide flush with nothing but data: the files are flushed, by the shard or, where it says
 * so, by the caller. */
static void test_seal_of_data(void **state) {
  (void)state;
  struct vrig v;
  struct mwaiter w;
  struct mseal s;
  vrig_open(&v, 4096, MRIG_LOG, 43);
  uint64_t flushes = v.m.disk.flushes;
  in_place(&v, 0);
  mrig_commit_start(&v.m, &w);
  mrig_seal(&v.m, &s);
  mrig_wait_seal(&v.m, &s);
  assert_true(s.seal.dirty && !s.seal.flushed);
  assert_false(w.done);
  mrig_adopt_root(&v.m, &s);
  manifest_root_durable(v.m.m, s.seal.epoch, 0);
  assert_false(manifest_dirty(v.m.m));
  mrig_drain(&v.m);
  assert_true(w.done && w.result == 0);
  assert_in_range(v.m.disk.flushes - flushes, 1, 2);
  v.durable[0] = v.latest[0];
  vrig_crash(&v);
  in_place(&v, 0);
  flushes = v.m.disk.flushes;
  s = (struct mseal){.seal = s.seal};
  s.seal.flush_files = false;
  s.seal.epoch = ++v.m.epoch;
  manifest_seal(v.m.m, &s.seal);
  mrig_wait_seal(&v.m, &s);
  assert_true(s.seal.dirty && !s.seal.flushed); /* so the caller flushes */
  assert_int_equal(v.m.disk.flushes, flushes);
  mrig_adopt_root(&v.m, &s);
  manifest_root_durable(v.m.m, s.seal.epoch, 0);
  assert_int_equal(mrig_put(&v.m, 1, 100), 0);
  assert_int_equal(mrig_commit(&v.m), 0);
  in_place(&v, 0);
  assert_int_equal(mrig_commit(&v.m), 0); /* without a frame behind the other commit's */
  in_place(&v, 0);
  s.done = false;
  s.seal.epoch = ++v.m.epoch;
  manifest_seal(v.m.m, &s.seal);
  mrig_wait_seal(&v.m, &s);
  assert_true(s.seal.dirty && !s.seal.flushed);
  mrig_adopt_root(&v.m, &s);
  manifest_root_durable(v.m.m, s.seal.epoch, 0);
  assert_recovers(&v);
  mrig_close(&v.m);
}

/* Beside changes: one flush, one commit frame. And a seal behind both has nothing to flush. */
static void test_data_beside_changes(void **state) {
  (void)state;
  struct vrig v;
  struct mwaiter w[2];
  struct mseal s;
  vrig_open(&v, 4096, MRIG_LOG, 44);
  uint64_t flushes = v.m.disk.flushes, fua = v.m.disk.fua_writes;
  set_one(&v, 5, 1, 1);
  in_place(&v, 0);
  mrig_commit_start(&v.m, &w[0]);
  set_one(&v, 5, 2, 1);
  in_place(&v, 1);
  mrig_commit_start(&v.m, &w[1]);
  mrig_drain(&v.m);
  assert_true(w[0].done && w[1].done && w[0].result == 0 && w[1].result == 0);
  mrig_note_covered(&v.m, &w[1]);
  assert_int_equal(v.m.disk.flushes - flushes, 1);
  assert_int_equal(v.m.disk.fua_writes - fua, 1);
  assert_false(manifest_dirty(v.m.m));
  mrig_seal(&v.m, &s);
  mrig_wait_seal(&v.m, &s);
  assert_true(s.seal.dirty && s.seal.flushed);
  assert_int_equal(v.m.disk.flushes - flushes, 1);
  mrig_adopt_root(&v.m, &s);
  manifest_root_durable(v.m.m, s.seal.epoch, 0);
  memcpy(v.durable, v.latest, sizeof v.durable);
  vrig_crash(&v);
  assert_true(get(v.m.m, 5, 2).valid != 0);
  mrig_close(&v.m);
}

/* Behind a batch no commit is made, of data neither: a root does it. */
static void test_data_behind_a_batch(void **state) {
  (void)state;
  struct vrig v;
  struct mwaiter w;
  vrig_open(&v, 4096, MRIG_LOG, 45);
  set_one(&v, 5, 1, 1);
  manifest_note_batch(v.m.m);
  in_place(&v, 0);
  mrig_commit_start(&v.m, &w);
  for (int i = 0; i < 50; i++) mrig_step(&v.m);
  assert_false(w.done);
  assert_true(manifest_wants_flush(v.m.m));
  mrig_flush(&v.m);
  assert_true(w.done && w.result == 0);
  v.durable[0] = v.latest[0];
  vrig_crash(&v);
  mrig_close(&v.m);
}

static void test_data_whose_flush_fails(void **state) {
  (void)state;
  struct vrig v;
  struct mwaiter w;
  vrig_open(&v, 4096, MRIG_LOG, 46);
  in_place(&v, 0);
  v.m.disk.fail_flush_in = 1;
  mrig_commit_start(&v.m, &w);
  mrig_drain(&v.m);
  assert_true(w.done);
  assert_int_equal(w.result, -EIO);
  assert_true(manifest_dirty(v.m.m));
  assert_int_equal(manifest_reserve_map(v.m.m, 1, true), -EIO);
  assert_int_equal(manifest_reserve_record(v.m.m, record_key(1), 10), -EIO);
  vrig_crash(&v);
  mrig_close(&v.m);
}

/* ---- Reservations -------------------------------------------------------------------------- */

static void test_reservations_hold(void **state) {
  (void)state;
  struct vrig v;
  uint32_t held = 0, kept = 0, records = 0;
  vrig_open(&v, 16384, MRIG_LOG, 51);
  while (manifest_reserve_map(v.m.m, 8, false) == 0) held++;
  assert_int_equal(manifest_reserve_record(v.m.m, record_key(1), 100), -EAGAIN);
  while (manifest_reserve_map(v.m.m, 1, true) == 0) kept++; /* the part kept for deletes */
  assert_true(held > 20 && kept >= 4);
  for (; kept > 0; kept--) manifest_cancel_map(v.m.m, 1);
  for (uint32_t i = 0; i < held / 2; i++) manifest_cancel_map(v.m.m, 8);
  held -= held / 2;
  while (manifest_reserve_record(v.m.m, record_key(records), 700) == 0) records++;
  assert_true(records > 5);
  struct cluster c[LEAF_CLUSTERS] = {{0}};
  for (uint32_t i = 0; i < 8; i++) c[i].zero = (uint16_t)(i + 1);
  for (; held > 0; held--) {
    struct layer *layer = pin(&v, 5, held);
    uint64_t delta = delta_of(&v, layer, held, 0xff, c);
    mrig_changed(&v.m, manifest_set_clusters(v.m.m, layer, held, 0xff, c, 8), delta);
    unpin(&v, layer, held);
  }
  char data[700];
  memset(data, 7, sizeof data);
  for (; records > 1; records--) {
    uint64_t delta = record_digest(record_key(records), data, 700);
    mrig_changed(&v.m, manifest_put_record(v.m.m, record_key(records), data, 700), delta);
  }
  manifest_cancel_record(v.m.m, 700);
  mrig_flush(&v.m);
  assert_recovers(&v);
  mrig_close(&v.m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_places_come_back),
      cmocka_unit_test(test_under_way_is_not_on_disk),
      cmocka_unit_test(test_what_survives),
      cmocka_unit_test(test_moves_across_checkpoints),
      cmocka_unit_test(test_two_claim_a_place),
      cmocka_unit_test(test_the_right_one_is_named),
      cmocka_unit_test(test_data_alone_needs_one_flush),
      cmocka_unit_test(test_data_during_a_flush),
      cmocka_unit_test(test_seal_of_data),
      cmocka_unit_test(test_data_beside_changes),
      cmocka_unit_test(test_data_behind_a_batch),
      cmocka_unit_test(test_data_whose_flush_fails),
      cmocka_unit_test(test_reservations_hold),
      cmocka_unit_test(test_power_cuts),
      cmocka_unit_test(test_the_log_goes_round),
  };
  return cmocka_run_group_tests_name("manifest_map", tests, NULL, NULL);
}
