/* test_bit_flips.c - 10,000 single bits, one at a time, in everything of a small store that carries
 * information: each must be reported by opening and one scrub, at its place; and with the bit
 * turned back there must be nothing to report.
 *
 * Of two stores: one that was closed, with checkpoints and all root slots in use; and one whose
 * process was killed with durable puts behind its last root, where the last commit frame is the
 * only witness. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <malloc.h>

#include "shards/manifest_internal.h"
#include "tests/api/fixture.h"
#include "tests/api/image.h"
#include "tests/random.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FLIPS 300 /* of each store: the sanitizer makes each take ten times as long */
#else
#define FLIPS 5000
#endif
#define SHARDS     2u
#define PLACES_MAX 20000u

enum place_kind { P_IDENTITY, P_ROOT, P_LOG, P_DIRECTORY, P_CHECKPOINT, P_BLOB, P_KINDS };
static const char *const kind_names[] = {"identity",  "root",       "log",
                                         "directory", "checkpoint", "blob"};

struct place {
  uint32_t part;
  uint64_t block;
  struct blob_id id; /* of P_BLOB */
};
struct places {
  struct place at[PLACES_MAX];
  uint32_t count;
};
static struct places places[P_KINDS];

static void add(enum place_kind kind, uint32_t part, uint64_t block, uint64_t blocks,
                struct blob_id id) {
  struct places *p = &places[kind];
  for (uint64_t i = 0; i < blocks; i++) {
    assert_true(p->count < PLACES_MAX);
    p->at[p->count++] = (struct place){part, block + i, id};
  }
}

/* ---- What is in use, by what the store itself holds in memory ---------------------------------
 */

struct visit {
  const struct image *image;
  const struct region *region;
};

static void add_region(const struct visit *v, enum place_kind kind, uint64_t block, uint64_t blocks,
                       struct blob_id id) {
  for (uint64_t i = 0; i < blocks; i++) {
    const struct segment *s = region_segment(v->region, block + i);
    add(kind, s->file, s->first_block + (block + i - s->region_block), 1, id);
  }
}

static int add_blob(void *arg, uint64_t hash, const struct blob *b) {
  (void)hash;
  uint64_t left = bytes_to_blocks(b->bytes);
  for (uint32_t i = 0; i < b->extent_count; i++) {
    uint64_t n = min_u64(left, b->extents[i].blocks);
    add_region(arg, P_BLOB, b->extents[i].block, n, b->id);
    left -= n;
  }
  return 0;
}

/* Frames from the head to the committed end, without what a skip leaves behind it. */
static void add_log(const struct visit *v, const struct manifest *m) {
  uint64_t log = v->region->log_blocks;
  for (uint64_t p = m->durable_head; p < m->position;) {
    struct frame f;
    const char *why;
    uint64_t place = log_place(p, log);
    const struct segment *s = region_segment(v->region, place);
    const char *at = v->image->bytes[s->file] + ((s->first_block + place) << BLOCK_SHIFT);
    assert_int_equal(frame_decode_header(&f, at, &why), 0);
    uint64_t blocks = frame_blocks(f.payload_bytes);
    add_region(v, P_LOG, place, blocks, (struct blob_id){0, 0});
    p = log_next(p, blocks, f.flags, log);
  }
}

static void find_places(struct image *x) {
  const struct layout *l = x->store->layout;
  const struct blob_id none = {0, 0};
  memset(places, 0, sizeof places);
  for (uint32_t b = 0; b < l->backing_count; b++) {
    add(P_IDENTITY, b, 0, FORMAT_IDENTITY_BLOCKS, none);
    add(P_IDENTITY, b, l->used_blocks[b] - FORMAT_IDENTITY_BLOCKS, FORMAT_IDENTITY_BLOCKS, none);
  }
  add(P_ROOT, 0, l->root_block, FORMAT_ROOT_SLOTS * l->root_slot_blocks, none);
  for (uint32_t s = 0; s < l->shard_count; s++) {
    struct manifest *m = shard_manifest(x->store->cores[0].shards[s].shard);
    struct visit v = {x, &l->regions[s]};
    add_log(&v, m);
    if (m->root.dir_block)
      add_region(&v, P_DIRECTORY, m->root.dir_block, bytes_to_blocks(m->root.dir_bytes), none);
    for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
      const struct checkpoint *c = m->of_partition[p];
      for (uint32_t i = 0; checkpoint_is_first(m, p) && i < c->extent_count; i++)
        add_region(&v, P_CHECKPOINT, c->extents[i].block, c->extents[i].blocks, none);
      index_partition_visit(m->index, p, add_blob, &v);
    }
  }
}

/* ---- The flips ------------------------------------------------------------------------------ */

static void expect_clean(struct image *x) {
  struct sr_scrub_status st;
  assert_int_equal(image_open(x, DAMAGED_SKIP), 0);
  image_scrub(x, &st);
  for (uint32_t i = 0; i < x->report_count; i++) print_error("%s\n", x->reports[i].what);
  assert_int_equal(x->report_count, 0);
  assert_int_equal(st.passes, 1);
  assert_int_equal(st.checked_blobs, sr_count(x->port));
  assert_int_equal(st.damaged_blobs + st.damaged_metadata + st.unreadable, 0);
  image_close(x);
}

/* A scrub alone must find what recovery does not read, or has another copy of. */
static bool needs_open(enum place_kind kind) {
  return kind == P_LOG || kind == P_DIRECTORY || kind == P_CHECKPOINT;
}

static void look(struct image *x, enum place_kind kind) {
  struct sr_scrub_status st;
  if (x->store && needs_open(kind)) image_close(x);
  if (!x->store) assert_int_equal(image_open(x, DAMAGED_SKIP), 0);
  image_scrub(x, &st);
}

/* One bit: reported, where it is. A blob may be named instead of its block. */
static void flip(struct image *x, struct random *r, enum place_kind kind) {
  const struct place *p = &places[kind].at[random_below(r, places[kind].count)];
  uint64_t bit = random_below(r, 8 * BLOCK_BYTES);
  char *at = x->bytes[p->part] + (p->block << BLOCK_SHIFT) + bit / 8;
  *at = (char)(*at ^ 1 << bit % 8);
  look(x, kind);
  const struct image_report *found = image_find(x, p->part, p->block);
  for (uint32_t i = 0; !found && kind == P_BLOB && i < x->report_count; i++)
    if (x->reports[i].kind == DAMAGE_BLOB && blob_id_equal(x->reports[i].id, p->id))
      found = &x->reports[i];
  if (!found) {
    for (uint32_t i = 0; i < x->report_count; i++)
      print_error("part %d block %llu: %s\n", x->reports[i].backing,
                  (unsigned long long)x->reports[i].block, x->reports[i].what);
    fail_msg("%s: part %u, block %llu, bit %llu: not reported there", kind_names[kind], p->part,
             (unsigned long long)p->block, (unsigned long long)bit);
  }
  *at = (char)(*at ^ 1 << bit % 8);
  if (needs_open(kind))
    image_close(x);
  else
    image_forget(x);
}

static void flip_all(const char *where, uint64_t seed, bool checkpoints) {
  struct image x;
  struct random r = {seed};
  uint32_t count[P_KINDS] = {0};
  image_load(&x, where);
  assert_int_equal(image_open(&x, DAMAGED_REFUSE), 0);
  find_places(&x);
  image_close(&x);
  expect_clean(&x);
  for (uint32_t i = 0; i < FLIPS; i++) {
    enum place_kind kind = (enum place_kind)random_below(&r, P_KINDS);
    if (!places[kind].count) kind = P_LOG;
    flip(&x, &r, kind);
    count[kind]++;
    if (i % 100 < 99) continue;
    if (x.store) image_close(&x);
    expect_clean(&x);
  }
  for (uint32_t k = 0; k < P_KINDS; k++) {
    print_message("%s: %u flips in %u blocks\n", kind_names[k], count[k], places[k].count);
    assert_true(count[k] > 0 || !checkpoints);
  }
  image_free(&x);
}

/* ---- The stores -------------------------------------------------------------------------------
 */

static void put_some(struct sr_port *p, uint64_t first, uint64_t count, uint64_t bytes_max,
                     uint32_t flags) {
  char *buf = malloc(bytes_max);
  struct random r = {first};
  for (uint64_t i = first; i < first + count; i++) {
    uint64_t bytes = 1 + random_below(&r, bytes_max);
    fill_bytes(buf, bytes, i);
    assert_int_equal(sr_put(p, id_of(i), buf, bytes, flags), 0);
  }
  free(buf);
}

static void a_closed_store(void **state) {
  struct fixture *f = *state;
  format_store(f, SHARDS, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  put_some(p, 0, 60, 3000, 0);
  put_some(p, 100, 10, 60000, 0);
  assert_int_equal(sr_checkpoint(p), 0);
  for (uint64_t i = 0; i < 5; i++) {
    put_some(p, 200 + 10 * i, 4, 9000, 0);
    assert_int_equal(sr_delete(p, id_of(i), 0), 0);
    assert_int_equal(sr_flush(p), 0);
  }
  assert_int_equal(sr_put(p, id_of(999), NULL, 0, 0), 0);
  close_both(s, p);
  flip_all(f->where, 11, true);
}

static void a_killed_store(void **state) {
  struct fixture *f = *state;
  format_store(f, SHARDS, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  put_some(p, 0, 20, 8000, 0);
  assert_int_equal(sr_flush(p), 0);
  put_some(p, 100, 12, 5000, SR_DURABLE);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  flip_all(f->where, 12, false);
}

int main(void) {
  mallopt(M_MMAP_THRESHOLD, 64 << 20); /* what is allocated again and again stays mapped */
  mallopt(M_TRIM_THRESHOLD, 256 << 20);
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_closed_store, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(a_killed_store, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
