/* test_damaged_map.c - recovery in spite of damage, of clusters and records: it comes up, says that
 * something is missing, and no block has two owners. */
#include "tests/shards/vrig.h"

#include "shards/losses.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SEEDS 5
#else
#define SEEDS 12
#endif

struct found {
  uint64_t of_kind[DAMAGE_KINDS];
  uint64_t layers, records, left_out; /* lines that name one */
};
static void note(void *arg, const struct damage *d) {
  struct found *f = arg;
  f->of_kind[d->kind]++;
  f->layers += strncmp(d->what, "layer ", 6) == 0;
  f->left_out += strstr(d->what, "left out") != NULL;
  f->records += strncmp(d->what, "record ", 7) == 0;
  assert_int_equal(d->shard, 2);
}

static void recover_damaged_as(struct vrig *v, enum damaged_mode mode, struct found *f,
                               struct manifest **m) {
  struct manifest_config *c = &v->m.config;
  memset(f, 0, sizeof *f);
  c->read_only = true;
  c->damaged = mode;
  c->damage = (struct damage_sink){note, f};
  if (mrig_recover(&v->m, m)) fail_msg("%s", v->m.why);
  c->read_only = false;
  c->damaged = DAMAGED_REFUSE;
}

/* ---- No block has two owners --------------------------------------------------------------- */

struct owners {
  struct manifest *m;
  uint8_t owned[65536];
};
static void own(struct owners *o, uint64_t block, uint64_t blocks) {
  for (uint64_t b = block; b < block + blocks; b++) {
    if (o->owned[b]) fail_msg("block %llu has two owners", (unsigned long long)b);
    assert_true(space_is_used(manifest_space(o->m), b));
    o->owned[b] = 1;
  }
}
static int own_blob(void *arg, uint64_t hash, const struct blob *b) {
  (void)hash;
  for (uint32_t i = 0; i < b->extent_count; i++)
    own(arg, b->extents[i].block, b->extents[i].blocks);
  return 0;
}
static int own_leaf(void *arg, struct layer *layer, uint64_t leaf,
                    const struct cluster clusters[LEAF_CLUSTERS]) {
  (void)layer;
  (void)leaf;
  for (uint32_t i = 0; i < LEAF_CLUSTERS; i++)
    if (clusters[i].place) own(arg, clusters[i].place, CLUSTER_BLOCKS);
  return 0;
}
static void check_owners(struct manifest *m) {
  static struct owners o;
  memset(&o, 0, sizeof o);
  o.m = m;
  own(&o, 0, m->config.region->log_blocks);
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    index_partition_visit(m->index, p, own_blob, &o);
    map_partition_visit(m->map, p, own_leaf, &o);
  }
}

/* ---- By chance ------------------------------------------------------------------------------- */

/* Some block of the committed log, of a checkpoint or of the directory. */
static char *victim(struct vrig *v) {
  struct mrig *r = &v->m;
  const struct manifest *m = r->m;
  uint64_t kind = random_below(&r->random, 4), head = m->root.log_head, end = m->root.log_tail;
  const struct checkpoint *c = m->of_partition[random_below(&r->random, INDEX_PARTITIONS)];
  if (kind == 0 && m->root.dir_block)
    return mrig_block(r, m->root.dir_block +
                             random_below(&r->random, bytes_to_blocks(m->root.dir_bytes)));
  if (kind <= 2 && c && c->extent_count)
    return mrig_block(r, c->extents[0].block + random_below(&r->random, c->extents[0].blocks));
  if (end <= head) return NULL;
  return mrig_block(r, log_place(head + random_below(&r->random, end - head), MRIG_LOG));
}

static void harm(struct vrig *v, char *at) {
  struct random *x = &v->m.random;
  if (random_below(x, 2))
    memset(at, 0, BLOCK_BYTES);
  else
    at[random_below(x, BLOCK_BYTES)] ^= (char)(1 << random_below(x, 8));
}

/* Some layer has more or less than it should, or something else than in the model. */
static bool is_whole(struct vrig *v, struct manifest *m) {
  return v->m.extra(&v->m, m) == v->m.extra(&v->m, v->m.m);
}

struct tally {
  uint64_t whole, lost, layers, records, left_out;
};

static void by_chance(uint64_t seed, enum damaged_mode mode, struct tally *t) {
  struct vrig v;
  struct manifest *m;
  struct found f;
  vrig_open(&v, 6000, MRIG_LOG, seed);
  for (uint64_t n = 200 + random_below(&v.m.random, 3000); n > 0; n--) vrig_random_step(&v);
  mrig_settle(&v.m);
  mrig_flush(&v.m);
  mrig_drain(&v.m);
  uint64_t bytes = v.m.disk.blocks * BLOCK_BYTES;
  memcpy(v.m.disk.before, v.m.disk.now->memory, bytes);
  recover_damaged_as(&v, mode, &f, &m); /* nothing is wrong, nothing is said */
  mrig_check(&v.m, m, v.m.next_sequence, v.m.next_sequence);
  for (uint32_t k = 0; k < DAMAGE_KINDS; k++) assert_int_equal(f.of_kind[k], 0);
  manifest_destroy(m);
  for (int i = 0; i < 12; i++) {
    for (uint64_t k = 1 + random_below(&v.m.random, 2); k > 0; k--) {
      char *at = victim(&v);
      if (at) harm(&v, at);
    }
    int refused = mrig_recover(&v.m, &m);
    if (!refused) manifest_destroy(m);
    recover_damaged_as(&v, mode, &f, &m);
    check_owners(m);
    assert_int_equal(
        refused != 0,
        f.of_kind[DAMAGE_LOG] + f.of_kind[DAMAGE_DIRECTORY] + f.of_kind[DAMAGE_CHECKPOINT] > 0);
    bool whole = is_whole(&v, m);
    if (!whole) assert_true(refused != 0);
    if (!whole && map_layer_next(m->map, NULL)) assert_true(f.layers > 0);
    t->whole += whole && refused;
    t->lost += !whole;
    t->layers += f.layers;
    t->records += f.records;
    t->left_out += f.left_out;
    manifest_destroy(m);
    memcpy(v.m.disk.now->memory, v.m.disk.before, bytes);
  }
  mrig_close(&v.m);
}

static void chances(enum damaged_mode mode) {
  struct tally t = {0};
  for (uint64_t seed = 1; seed <= SEEDS; seed++) by_chance(seed, mode, &t);
  print_message(
      "%llu lost something, %llu nothing; lines on layers %llu, on records %llu; %llu left out\n",
      (unsigned long long)t.lost, (unsigned long long)t.whole, (unsigned long long)t.layers,
      (unsigned long long)t.records, (unsigned long long)t.left_out);
  assert_true(t.lost > 20 && t.layers > 50 && t.records > 50);
}
static void test_it_comes_up(void **state) {
  (void)state;
  chances(DAMAGED_SKIP);
}
static void test_it_comes_up_after_a_search(void **state) {
  (void)state;
  chances(DAMAGED_SEARCH);
}

/* ---- By hand --------------------------------------------------------------------------------- */

/* A discard is lost in the log; its place has gone to another cluster. What changed behind the gap
 * is certain and keeps the place, whichever comes first in the map. */
static void test_the_later_one_keeps_the_place(void **state) {
  (void)state;
  for (uint32_t late = 0; late < 12; late++) {
    struct vrig v;
    struct manifest *m;
    struct found f;
    struct extent rest[8];
    vrig_open(&v, 2048, MRIG_LOG, 60);
    uint64_t other = 20 + late;
    uint32_t place = vrig_set_one(&v, 5, 100, 1);
    mrig_flush(&v.m);
    uint64_t gap = v.m.m->position;
    vrig_drop_one(&v, 5, 100);
    mrig_flush(&v.m);
    mrig_flush(&v.m);
    struct space *s = manifest_space(v.m.m);
    assert_false(space_is_used(s, place));
    struct cluster c[LEAF_CLUSTERS] = {[3] = {.place = place, .valid = 1}};
    assert_true(space_alloc(s, CLUSTER_BLOCKS, rest, 1, place + CLUSTER_BLOCKS) == 1);
    while (rest[0].block != place) /* first fit from below: until it is that one */
      assert_true(space_alloc(s, CLUSTER_BLOCKS, rest, 1, place + CLUSTER_BLOCKS) == 1);
    vrig_write_stamp(&v, place, 77);
    assert_int_equal(vrig_set(&v, other, 0, 8, c, false), 0);
    mrig_flush(&v.m);
    recover_damaged_as(&v, DAMAGED_SKIP, &f, &m);
    assert_int_equal(f.layers, 0);
    manifest_destroy(m);
    mrig_block(&v.m, gap)[200] ^= 1;
    recover_damaged_as(&v, DAMAGED_SKIP, &f, &m);
    assert_int_equal(f.of_kind[DAMAGE_LOG], 1 + f.layers);
    assert_true(f.layers >= 3); /* what is left out, and each layer that is there */
    assert_int_equal(f.left_out, 1);
    assert_int_equal(vrig_get(m, other, 3).place, place);
    assert_int_equal(vrig_get(m, 5, 100).place, 0);
    check_owners(m);
    manifest_destroy(m);
    mrig_close(&v.m);
  }
}

/* A checkpoint that was taken behind the gap knows better than the log before it, and than an older
 * checkpoint of more partitions. */
static void test_a_later_checkpoint_counts(void **state) {
  (void)state;
  struct vrig v;
  struct manifest *m;
  struct found f;
  vrig_open(&v, 8192, 1024, 62);
  uint64_t id = 5; /* this and the record are in the lower half of the partitions */
  uint32_t n = 0;
  while (map_partition_of(map_leaf_hash(manifest_map(v.m.m), id, 1)) >= 128) id++;
  while (index_partition_of(hash_id(vrig_key(n), v.m.config.hash_key)) >= 128) n++;
  vrig_set_one(&v, id, 70, 1);
  assert_int_equal(vrig_put_record(&v, n, 10), 0);
  mrig_flush(&v.m);
  vrig_checkpoint_all(&v);
  assert_int_equal(v.m.m->of_partition[0]->count, INDEX_PARTITIONS);
  vrig_set_one(&v, id, 70, 3);
  assert_int_equal(vrig_put_record(&v, n, 20), 0);
  mrig_flush(&v.m);
  uint64_t gap = v.m.m->position;
  vrig_set_one(&v, id, 70, 7);
  assert_int_equal(vrig_put_record(&v, n, 30), 0);
  mrig_flush(&v.m);
  v.m.m->config.checkpoint_group_bytes = 1;
  manifest_checkpoint_all(v.m.m);
  while (v.m.m->next_partition < 128) mrig_step(&v.m);
  mrig_flush(&v.m);
  assert_true(v.m.m->root.log_head < gap && v.m.m->of_partition[200]->count == INDEX_PARTITIONS);
  mrig_block(&v.m, gap)[200] ^= 1;
  recover_damaged_as(&v, DAMAGED_SKIP, &f, &m);
  assert_true(f.of_kind[DAMAGE_LOG] > 0);
  assert_int_equal(vrig_get(m, id, 70).valid, 7);
  assert_int_equal(records_find(manifest_records(m), vrig_key(n))->bytes, 30);
  assert_int_equal(f.records, 0); /* nor is it called old */
  check_owners(m);
  manifest_destroy(m);
  mrig_close(&v.m);
}

/* Salvage: entries of a checkpoint with one wrong bit are taken where they are plausible. */
static void test_gleaned(void **state) {
  (void)state;
  struct vrig v;
  struct manifest *m;
  struct found f;
  vrig_open(&v, 8192, MRIG_LOG, 61);
  for (uint32_t i = 0; i < 40; i++) vrig_set_one(&v, 5, i * LEAF_CLUSTERS, 1);
  for (uint32_t i = 0; i < 10; i++) assert_int_equal(vrig_put_record(&v, i, 50), 0);
  mrig_flush(&v.m); /* else the checkpoint is older than the frame that is still in memory */
  vrig_checkpoint_all(&v);
  const struct checkpoint *c = v.m.m->of_partition[0];
  assert_int_equal(c->count, INDEX_PARTITIONS); /* all in one */
  mrig_block(&v.m, c->extents[0].block)[500] ^= 1;
  for (int mode = DAMAGED_SKIP; mode <= DAMAGED_SEARCH; mode++) {
    uint64_t leaves = 0;
    recover_damaged_as(&v, (enum damaged_mode)mode, &f, &m);
    assert_int_equal(f.of_kind[DAMAGE_CHECKPOINT], 1);
    for (uint32_t i = 0; i < 40; i++) leaves += vrig_get(m, 5, i * LEAF_CLUSTERS).valid != 0;
    if (mode == DAMAGED_SKIP) {
      assert_int_equal(leaves, 0);
      assert_int_equal(records_count(manifest_records(m)), 0);
    } else {
      assert_true(leaves >= 39);
      assert_true(records_count(manifest_records(m)) >= 9);
      assert_true(f.layers > 0 && f.records >= 9);
    }
    check_owners(m);
    manifest_destroy(m);
  }
  mrig_close(&v.m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_it_comes_up),
      cmocka_unit_test(test_it_comes_up_after_a_search),
      cmocka_unit_test(test_the_later_one_keeps_the_place),
      cmocka_unit_test(test_a_later_checkpoint_counts),
      cmocka_unit_test(test_gleaned),
  };
  return cmocka_run_group_tests_name("damaged_map", tests, NULL, NULL);
}
