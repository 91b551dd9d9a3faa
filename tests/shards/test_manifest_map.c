/* test_manifest_map.c - clusters of layers and records: through log, commits, seals, checkpoints
 * and power cuts, against a model. Changes of blobs go on beside. */
#include "tests/shards/vrig.h"

#include "shards/base/crc32c.h"
#include "shards/manifest_internal.h"

#define RECORDS 12u

/* ---- By chance ----------------------------------------------------------------------------- */

static void power_cuts(uint64_t seed, uint64_t blocks, uint32_t group_bytes, int crashes,
                       struct vrig *sum) {
  struct vrig v;
  vrig_open(&v, blocks, MRIG_LOG, seed);
  v.m.config.checkpoint_group_bytes = group_bytes;
  for (int i = 0; i < crashes; i++) {
    for (uint64_t n = random_below(&v.m.random, 1500); n > 0; n--) {
      vrig_random_step(&v);
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
    vrig_random_set(&v);
    if (i % 50 == 0) (void)vrig_put_record(&v, (uint32_t)i % RECORDS, 1000);
    if (i % 8 == 0) mrig_step(&v.m);
    if (i % 40 == 0) assert_int_equal(mrig_commit(&v.m), 0);
    waits = v.refused > refused ? waits + 1 : 0;
    assert_true(waits < 300);
    if (waits) mrig_step(&v.m);
    if (manifest_wants_flush(v.m.m)) mrig_flush(&v.m);
    if (i % 4000 == 0) {
      assert_int_equal(mrig_commit(&v.m), 0);
      vrig_assert_recovers(&v);
    }
  }
  assert_true(v.m.m->position > 4 * MRIG_LOG);
  mrig_flush(&v.m);
  vrig_assert_recovers(&v);
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
  uint32_t place = vrig_set_one(&v, 5, 70, 1);
  c[6] = (struct cluster){.place = place, .valid = 3, .zero = 4};
  assert_int_equal(vrig_set(&v, 5, 1, 1 << 6, c, false), 0); /* keeps it */
  assert_int_equal(space_pending_blocks(s), pending);
  vrig_set_one(&v, 5, 70, 1);
  assert_int_equal(space_pending_blocks(s), pending + CLUSTER_BLOCKS);
  for (uint32_t i = 64; i < 128; i++) vrig_set_one(&v, 5, i, 1); /* 70 again */
  assert_int_equal(space_pending_blocks(s), pending + 2 * CLUSTER_BLOCKS);
  uint64_t log = v.m.m->open_buffer ? v.m.m->open_buffer->payload_bytes : 0;
  memset(c, 0, sizeof c);
  assert_int_equal(vrig_set(&v, 5, 1, UINT64_MAX, c, true), 0);
  assert_int_equal(space_pending_blocks(s), pending + 66 * CLUSTER_BLOCKS);
  assert_int_equal(v.m.m->open_buffer->payload_bytes - log, 24); /* a whole leaf, shortly */
  assert_null(layer_leaf(map_layer(manifest_map(v.m.m), 5), 1));
  mrig_check_space(v.m.m);
  assert_int_equal(mrig_commit(&v.m), 0);
  vrig_assert_recovers(&v);
  mrig_flush(&v.m);
  assert_int_equal(space_pending_blocks(s), 0);
  vrig_assert_recovers(&v);
  mrig_close(&v.m);
}

/* What has a place and no valid bit is in no log and no checkpoint; its zeros are. */
static void test_under_way_is_not_on_disk(void **state) {
  (void)state;
  struct vrig v;
  struct manifest *m;
  vrig_open(&v, 4096, MRIG_LOG, 32);
  vrig_set_one(&v, 5, 0, 1);
  struct layer *layer = vrig_pin(&v, 5, 0);
  layer_set(manifest_map(v.m.m), layer, 1, (struct cluster){.place = vrig_take_place(&v)});
  struct cluster c[LEAF_CLUSTERS] = {[2] = {.place = vrig_take_place(&v), .zero = 6}};
  assert_int_equal(vrig_set(&v, 5, 0, 1 << 2, c, false), 0);
  for (int round = 0; round < 2; round++) {
    assert_int_equal(mrig_commit(&v.m), 0);
    assert_int_equal(mrig_recover(&v.m, &m), 0);
    mrig_check(&v.m, m, v.m.next_sequence, v.m.next_sequence);
    assert_int_equal(vrig_get(m, 5, 1).place, 0);
    assert_int_equal(vrig_get(m, 5, 2).place, 0);
    assert_int_equal(vrig_get(m, 5, 2).zero, 6);
    mrig_check_space(m);
    manifest_destroy(m);
    vrig_checkpoint_all(&v);
  }
  vrig_unpin(&v, layer, 0);
  mrig_check_space(v.m.m);
  mrig_close(&v.m);
}

static void test_what_survives(void **state) {
  (void)state;
  struct vrig v;
  vrig_open(&v, 8192, MRIG_LOG, 33);
  vrig_set_one(&v, 5, 1, 1);
  assert_int_equal(vrig_put_record(&v, 1, 100), 0);
  mrig_flush(&v.m); /* by a root */
  vrig_set_one(&v, 5, 2, 1);
  assert_int_equal(mrig_commit(&v.m), 0); /* by a commit */
  uint64_t committed = v.m.next_sequence;
  vrig_set_one(&v, 5, 3, 1);
  assert_int_equal(vrig_put_record(&v, 2, 100), 0); /* by nothing */
  vrig_crash(&v);
  assert_int_equal(v.m.next_sequence, committed);
  assert_true(vrig_get(v.m.m, 5, 1).valid && vrig_get(v.m.m, 5, 2).valid &&
              !vrig_get(v.m.m, 5, 3).valid);
  assert_non_null(records_find(manifest_records(v.m.m), vrig_key(1)));
  assert_null(records_find(manifest_records(v.m.m), vrig_key(2)));
  vrig_drop_one(&v, 5, 1);
  vrig_drop_one(&v, 5, 2);
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
    for (uint32_t i = 0; i < 8; i++) vrig_set_one(&v, 5, i, 1);
    vrig_set_one(&v, to, 3, 1);
    vrig_checkpoint_all(&v);
    assert_int_equal(v.m.m->next_partition, 0);
    assert_int_equal(vrig_move(&v, 5, to, 0, 0x7f, 0x1f), 0); /* 5 and 6 are dropped, 7 stays */
    manifest_checkpoint_all(v.m.m);
    while (v.m.m->next_partition <= (p < q ? p : q)) mrig_step(&v.m);
    assert_true(v.m.m->next_partition <= (p < q ? q : p)); /* one has it, the other has not */
    mrig_flush(&v.m);
    for (uint32_t k = 0; k < 2; k++) {
      assert_int_equal(mrig_recover(&v.m, &m), 0);
      mrig_check(&v.m, m, v.m.next_sequence, v.m.next_sequence);
      for (uint32_t i = 0; i < 8; i++) {
        assert_int_equal(vrig_get(m, 5, i).valid, i == 7);
        assert_int_equal(vrig_get(m, to, i).valid, i < 5);
      }
      mrig_check_space(m);
      manifest_destroy(m);
      vrig_checkpoint_all(&v);
    }
    mrig_close(&v.m);
  }
}

/* ---- Claims -------------------------------------------------------------------------------- */

/* Gives a cluster a place that is not its own, and commits. */
static void steal(struct vrig *v, uint64_t id, uint32_t slot, uint32_t place) {
  struct cluster c[LEAF_CLUSTERS] = {[0] = {0}};
  c[slot] = (struct cluster){.place = place, .valid = 1};
  struct layer *layer = vrig_pin(v, id, 0);
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
    uint32_t place = vrig_set_one(&v, 4, 3, 1);
    assert_int_equal(mrig_put(&v.m, 1, 40000), 0);
    assert_int_equal(index_find(manifest_index(v.m.m), mrig_hash(&v.m, mrig_id(1)), mrig_id(1), &b),
                     0);
    if (kind == 0) place += 8; /* half of it */
    if (kind == 1) place = (uint32_t)b.extents[0].block;
    if (kind == 2) place = 100; /* the log */
    if (kind == 3) vrig_checkpoint_all(&v);
    if (kind == 3) place = (uint32_t)v.m.m->root.dir_block;
    if (kind == 4) place = 8192 - 15;
    if (kind == 4) snprintf(why, sizeof why, "impossible cluster");
    steal(&v, 5, 9, place);
    refuses(&v, why);
    if (kind < 3) { /* from a checkpoint as well; a new directory lies elsewhere */
      vrig_checkpoint_all(&v);
      refuses(&v, why);
    }
    mrig_close(&v.m);
  }
}

/* Changes the one entry of a checkpoint on disk, and all checksums up to the root with it. */
static void forge_checkpoint(struct vrig *v, uint32_t p, uint32_t at, uint8_t xor) {
  const struct checkpoint *c = v->m.m->of_partition[p];
  struct root_shard *root = &v->m.root.shards[2];
  char *bytes = mrig_block(&v->m, c->extents[0].block), *dir = mrig_block(&v->m, root->dir_block);
  bytes[at] ^= (char)xor;
  uint32_t crc = crc32c(0, bytes, c->bytes), first = UINT32_MAX, extents = 0;
  for (char *e = dir + 24; first != p; e += 40 + 16 * (size_t)extents) {
    memcpy(&first, e, sizeof first);
    memcpy(&extents, e + 36, sizeof extents);
    if (first == p) memcpy(e + 32, &crc, sizeof crc);
  }
  root->dir_checksum = crc32c(0, dir, root->dir_bytes);
}

/* A checkpoint holds states, of its own partitions. */
static void test_strange_checkpoints(void **state) {
  (void)state;
  static const struct {
    uint32_t at;
    uint8_t xor ;
    const char *why;
  } forged[] = {{36, 1, "a leaf of another partition"},
                {40, 4, "a leaf of another partition"},
                {33, 1, "a change, not a state"},
                {32, 1, "entry is cut off"}}; /* a move */
  struct vrig v;
  vrig_open(&v, 8192, 1024, 37);
  v.m.m->config.checkpoint_group_bytes = 1;
  vrig_set_one(&v, 5, 70, 1);
  uint32_t p = map_partition_of(map_leaf_hash(manifest_map(v.m.m), 5, 1));
  uint32_t n = 0, q, other = map_partition_of(map_leaf_hash(manifest_map(v.m.m), 99, 7));
  do q = index_partition_of(hash_id(vrig_key(++n), v.m.config.hash_key));
  while (q == p || q == other);
  assert_int_not_equal(p, other);
  assert_int_equal(vrig_put_record(&v, n, 10), 0);
  mrig_flush(&v.m);
  vrig_checkpoint_all(&v);
  assert_int_equal(v.m.m->of_partition[p]->bytes, 32 + 32); /* one entry */
  vrig_assert_recovers(&v);
  for (size_t i = 0; i < array_size(forged); i++) {
    forge_checkpoint(&v, p, forged[i].at, forged[i].xor);
    refuses(&v, forged[i].why);
    forge_checkpoint(&v, p, forged[i].at, forged[i].xor);
    vrig_assert_recovers(&v);
  }
  forge_checkpoint(&v, q, 45, 1);
  refuses(&v, "a record of another partition");
  mrig_close(&v.m);
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
    vrig_write_stamp(&v, c[i].place, ++v.versions);
  }
  assert_int_equal(vrig_set(&v, 5, 2, UINT64_MAX, c, false), 0);
  assert_int_equal(mrig_commit(&v.m), 0);
  vrig_assert_recovers(&v);
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

/* ---- Reservations -------------------------------------------------------------------------- */

static void test_reservations_hold(void **state) {
  (void)state;
  struct vrig v;
  uint32_t held = 0, kept = 0, records = 0;
  vrig_open(&v, 16384, MRIG_LOG, 51);
  while (manifest_reserve_map(v.m.m, 8, false) == 0) held++;
  assert_int_equal(manifest_reserve_record(v.m.m, vrig_key(1), 100), -EAGAIN);
  while (manifest_reserve_map(v.m.m, 1, true) == 0) kept++; /* the part kept for deletes */
  assert_true(held > 20 && kept >= 4);
  for (; kept > 0; kept--) manifest_cancel_map(v.m.m, 1);
  for (uint32_t i = 0; i < held / 2; i++) manifest_cancel_map(v.m.m, 8);
  held -= held / 2;
  while (manifest_reserve_record(v.m.m, vrig_key(records), 700) == 0) records++;
  assert_true(records > 5);
  struct cluster c[LEAF_CLUSTERS] = {{0}};
  for (uint32_t i = 0; i < 8; i++) c[i].zero = (uint16_t)(i + 1);
  for (; held > 0; held--) {
    struct layer *layer = vrig_pin(&v, 5, held);
    uint64_t delta = vrig_delta(&v, layer, held, 0xff, c);
    mrig_changed(&v.m, manifest_set_clusters(v.m.m, layer, held, 0xff, c, 8), delta);
    vrig_unpin(&v, layer, held);
  }
  char data[700];
  memset(data, 7, sizeof data);
  for (; records > 1; records--) {
    uint64_t delta = vrig_record_digest(vrig_key(records), data, 700);
    mrig_changed(&v.m, manifest_put_record(v.m.m, vrig_key(records), data, 700), delta);
  }
  manifest_cancel_record(v.m.m, 700);
  mrig_flush(&v.m);
  vrig_assert_recovers(&v);
  mrig_close(&v.m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_places_come_back),    cmocka_unit_test(test_under_way_is_not_on_disk),
      cmocka_unit_test(test_what_survives),       cmocka_unit_test(test_moves_across_checkpoints),
      cmocka_unit_test(test_two_claim_a_place),   cmocka_unit_test(test_the_right_one_is_named),
      cmocka_unit_test(test_strange_checkpoints), cmocka_unit_test(test_reservations_hold),
      cmocka_unit_test(test_power_cuts),          cmocka_unit_test(test_the_log_goes_round),
  };
  return cmocka_run_group_tests_name("manifest_map", tests, NULL, NULL);
}
