/* test_index_look.c - index_look(): what readers on other threads are told of ranges of blobs, at
 * rest and while the index grows, changes and loses blobs under them. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shards/index.h"
#include "tests/random.h"

static const uint64_t key[2] = {UINT64_C(0x1234567890abcdef), UINT64_C(0xfedcba0987654321)};

/* ---- Blobs whose every part follows from id and version ----------------------------------------
 */

#define EXTENTS 5u
#define SUMS    1024u

struct made {
  struct blob blob;
  struct extent extents[EXTENTS];
  uint32_t sums[SUMS];
};

static struct blob_id id_of(uint32_t i) { return (struct blob_id){.hi = i % 7, .lo = i}; }
static uint32_t sum_of(uint32_t id, uint32_t version, uint64_t granule) {
  return (uint32_t)((id + 1) * 2654435761u ^ version * 40503u ^ (uint32_t)granule * 2246822519u);
}

static void make(struct made *m, uint32_t id, uint32_t version) {
  struct random r = {(uint64_t)id << 32 | version};
  struct blob *b = &m->blob;
  static const uint64_t most[] = {1, 4096, 70000, 1 << 20, 40 << 20};
  *b = (struct blob){.id = id_of(id), .extents = m->extents, .checksums = m->sums};
  b->bytes = random_below(&r, 10) ? 1 + random_below(&r, most[random_below(&r, 5)]) : 0;
  b->granule_shift = blob_granule_shift(b->bytes);
  b->flags = random_below(&r, 4) == 0 ? BLOB_NO_CHECKSUM : 0;
  if (!b->flags) b->granule_count = blob_granule_count(b->bytes, b->granule_shift);
  for (uint32_t i = 0; i < b->granule_count; i++) m->sums[i] = sum_of(id, version, i);
  uint64_t left = bytes_to_blocks(b->bytes), count = 1 + random_below(&r, EXTENTS);
  for (; left; b->extent_count++) {
    uint64_t blocks = b->extent_count + 1 >= count ? left : 1 + random_below(&r, left);
    m->extents[b->extent_count] = (struct extent){random_next(&r) >> 26, blocks};
    left -= blocks;
  }
}

static void put(struct index *x, const struct blob *b) {
  uint64_t hash = hash_id(b->id, key);
  assert_int_equal(index_reserve(x, hash, b->extent_count + 1, b->granule_count), 0);
  assert_int_equal(index_put(x, hash, b), 0);
}

static int look(struct index *x, uint32_t reader, uint32_t id, uint64_t offset, uint64_t bytes,
                struct index_look *l) {
  return index_look(x, reader, hash_id(id_of(id), key), id_of(id), offset, bytes, l);
}

/* Is this what a look at the blob must say? */
static bool says(const struct made *m, uint32_t id, uint32_t version, uint64_t offset,
                 uint64_t bytes, int result, const struct index_look *l) {
  const struct blob *b = &m->blob;
  bool nothing = offset >= b->bytes || !bytes;
  if (result == 0 && l->bytes != b->bytes) return false;
  if (nothing) return result == 0 && l->start == 0 && l->end == 0;
  uint64_t unit = b->granule_count ? UINT64_C(1) << b->granule_shift : BLOCK_BYTES;
  uint64_t last = offset + min_u64(bytes, b->bytes - offset), start = round_down(offset, unit);
  uint64_t end = min_u64(round_up(last, unit), round_up(b->bytes, BLOCK_BYTES));
  uint64_t block = start >> BLOCK_SHIFT, blocks = (end - start) >> BLOCK_SHIFT;
  const struct extent *e = b->extents;
  while (block >= e->blocks) block -= e++->blocks;
  if (end - start > INDEX_LOOK_BYTES || e->blocks - block < blocks) return result == -EAGAIN;
  if (result || l->start != start || l->end != end || l->block != e->block + block) return false;
  if (l->shift != (b->granule_count ? b->granule_shift : 0)) return false;
  for (uint64_t g = start / unit; l->shift && g < div_up(end, unit); g++)
    if (l->sums[g - start / unit] != sum_of(id, version, g)) return false;
  return true;
}

static void draw_range(struct random *r, uint64_t size, uint64_t *offset, uint64_t *bytes) {
  static const uint64_t most[] = {1, 4096, 8192, 300000};
  *bytes = random_below(r, most[random_below(r, 4)] + 1);
  *offset = random_below(r, size + size / 8 + 2);
  if (random_below(r, 2)) *offset = round_down(*offset, 4096);
}

/* ---- At rest -----------------------------------------------------------------------------------
 */

static void tells_what_is_there(void **state) {
  enum { IDS = 3000 };
  struct random r = {5};
  struct index *x;
  struct index_look l;
  struct made *m = malloc(sizeof *m);
  uint64_t offset, bytes;
  uint32_t refused = 0;
  (void)state;
  assert_int_equal(index_create(&x, key), 0);
  assert_int_equal(look(x, 0, 1, 0, 1, &l), -ENOENT); /* no table at all */
  for (uint32_t i = 0; i < IDS; i++) {
    make(m, i, i % 3);
    put(x, &m->blob);
  }
  for (uint32_t i = 0; i < IDS; i += 5)
    assert_int_equal(index_delete(x, hash_id(id_of(i), key), id_of(i)), 0);
  for (uint32_t k = 0; k < 40000; k++) {
    uint32_t i = (uint32_t)random_below(&r, IDS + 500);
    make(m, i, i % 3);
    draw_range(&r, m->blob.bytes, &offset, &bytes);
    int result = look(x, k % INDEX_READERS_MAX, i, offset, bytes, &l);
    if (i >= IDS || i % 5 == 0)
      assert_int_equal(result, -ENOENT);
    else
      assert_true(says(m, i, i % 3, offset, bytes, result, &l));
    refused += result == -EAGAIN;
  }
  assert_in_range(refused, 100, 20000); /* both kinds of answers were looked at */
  free(m);
  index_destroy(x);
}

/* ---- Threads -----------------------------------------------------------------------------------
 */

#define IDS     400u
#define READERS 3u
#define CHANGES 60000u

struct play {
  struct index *x;
  _Atomic uint32_t done[IDS], begun[IDS]; /* versions; see is_there() */
  atomic_bool stop;
  atomic_uint bad, looks, refused;
};

static bool is_there(uint32_t version) { return version % 4 != 0; }

struct reader {
  struct play *play;
  uint32_t number;
};

static void *look_on(void *arg) {
  const struct reader *me = arg;
  struct play *p = me->play;
  struct random r = {me->number};
  struct made *m = malloc(sizeof *m);
  struct index_look l;
  while (!atomic_load(&p->stop)) {
    uint32_t id = (uint32_t)random_below(&r, IDS), from = atomic_load(&p->done[id]);
    uint64_t offset, bytes;
    make(m, id, from);
    draw_range(&r, m->blob.bytes, &offset, &bytes);
    int result = look(p->x, me->number, id, offset, bytes, &l);
    uint32_t to = atomic_load(&p->begun[id]);
    bool fits = result == -EAGAIN; /* the owner can always be asked */
    for (uint32_t v = from; v <= to && !fits; v++) {
      make(m, id, v);
      fits = is_there(v) ? says(m, id, v, offset, bytes, result, &l) : result == -ENOENT;
    }
    if (!fits) atomic_fetch_add(&p->bad, 1);
    if (result == -EAGAIN) atomic_fetch_add(&p->refused, 1);
    atomic_fetch_add(&p->looks, 1);
  }
  free(m);
  return NULL;
}

/* Others come, so that tables grow, and blobs in the way of those that are looked at move. */
static void change_others(struct play *p, uint32_t i, struct made *m) {
  uint32_t id = IDS + i;
  make(m, id, 1);
  put(p->x, &m->blob);
  if (i % 3) return;
  id = IDS + i / 2;
  index_delete(p->x, hash_id(id_of(id), key), id_of(id));
}

static void beside_a_writer(void **state) {
  static struct play p;
  pthread_t threads[READERS];
  struct reader readers[READERS];
  struct random r = {9};
  struct made *m = malloc(sizeof *m);
  (void)state;
  assert_int_equal(index_create(&p.x, key), 0);
  uint64_t empty = index_ram_bytes(p.x);
  for (uint32_t i = 0; i < READERS; i++) {
    readers[i] = (struct reader){&p, i * 20};
    assert_int_equal(pthread_create(&threads[i], NULL, look_on, &readers[i]), 0);
  }
  for (uint32_t i = 0; i < CHANGES || atomic_load(&p.looks) < 2000; i++) {
    uint32_t id = (uint32_t)random_below(&r, IDS), version = atomic_load(&p.done[id]) + 1;
    uint64_t hash = hash_id(id_of(id), key);
    atomic_store(&p.begun[id], version);
    make(m, id, version);
    if (is_there(version))
      put(p.x, &m->blob);
    else
      assert_int_equal(index_delete(p.x, hash, id_of(id)), 0);
    atomic_store(&p.done[id], version);
    if (i < CHANGES) change_others(&p, i, m);
  }
  atomic_store(&p.stop, true);
  for (uint32_t i = 0; i < READERS; i++) pthread_join(threads[i], NULL);
  print_message("%u looks, %u left to the owner\n", p.looks, p.refused);
  assert_int_equal(atomic_load(&p.bad), 0);
  assert_true(index_ram_bytes(p.x) > empty);
  free(m);
  index_destroy(p.x); /* with what readers kept from being freed: the sanitizer would see it */
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(tells_what_is_there),
                                     cmocka_unit_test(beside_a_writer)};
  return cmocka_run_group_tests_name("index_look", tests, NULL, NULL);
}
