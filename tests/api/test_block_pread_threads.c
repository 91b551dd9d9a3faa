/* test_block_pread_threads.c - sr_block_pread() of several threads beside a writer that overwrites,
 * discards, takes and removes snapshots, beside somebody else who gets the space that becomes free,
 * and over rollbacks, clones and flattenings in between: never a wrong byte.
 *
 * A block has a version: 0 (zeros) at first, one more with each change; which versions are zeros is
 * a function of it. A reader notes the version that the block had before, and the one that had been
 * begun by the end: what it gets must be one of those. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/api/volume_world.h"
#include "tests/random.h"

#define BLOCK     4096u
#define BLOCKS    2304u /* of 4 KiB: three leaves */
#define READERS   3u
#define ROUNDS    6u
#define CHANGES   120u /* of a round */
#define AT_ONCE   16u  /* blocks */
#define SNAPSHOTS 3u
#define WORDS     (BLOCK / 8)
#define V_TAG     UINT64_C(0x76)
#define NOISE_TAG UINT64_C(0x6e)

struct versions {
  uint32_t is[BLOCKS];
};

struct play {
  struct world *w;
  const struct kind *k;
  struct sr_block *b, *noise;
  atomic_bool stop;
  _Atomic uint32_t done[BLOCKS], begun[BLOCKS]; /* versions */
  uint32_t floor[BLOCKS];                       /* when the round began: later ones are above it */
  struct versions snapshots[SNAPSHOTS];
  bool exists[SNAPSHOTS];
  atomic_uint bad, direct, through_port;
};

static bool is_zeros(uint32_t block, uint32_t version) {
  return version == 0 || (block * 7 + version * 13) % 5 == 0;
}

static void fill(uint64_t *to, uint64_t tag, uint32_t block, uint32_t version) {
  if (tag == V_TAG && is_zeros(block, version)) {
    memset(to, 0, BLOCK);
    return;
  }
  to[0] = tag << 56 | (uint64_t)block << 32 | version;
  for (uint32_t i = 1; i < WORDS; i++) to[i] = to[i - 1] * UINT64_C(0x9e3779b97f4a7c15) + i;
}

/* ---- Readers ----------------------------------------------------------------------------------
 */

/* Of the versions from `before` to `after`, what is between the two and the floor was never there
 * in this round. */
static bool fits(const struct play *p, const uint64_t *is, uint32_t block, uint32_t before,
                 uint32_t after) {
  uint64_t want[WORDS];
  uint32_t version = (uint32_t)is[0];
  if (is[0] == 0) {
    for (uint32_t i = 0; i < WORDS; i++)
      if (is[i]) return false;
    if (is_zeros(block, before)) return true;
    uint32_t first = before > p->floor[block] ? before : p->floor[block];
    for (uint32_t v = first + 1; v <= after; v++)
      if (is_zeros(block, v)) return true;
    return false;
  }
  if (version != before && (version <= p->floor[block] || version < before || version > after))
    return false;
  fill(want, V_TAG, block, version);
  return memcmp(want, is, BLOCK) == 0;
}

struct reader {
  struct play *play;
  struct random random;
};

static void *read_on(void *arg) {
  struct reader *r = arg;
  struct play *p = r->play;
  struct sr_port *port = NULL;
  char *memory = aligned_alloc(BLOCK, (AT_ONCE + 1) * BLOCK);
  if (sr_port_open(p->w->s, NULL, &port)) atomic_fetch_add(&p->bad, 1);
  while (port && !atomic_load(&p->stop)) {
    uint32_t count = 1 + (uint32_t)random_below(&r->random, AT_ONCE), before[AT_ONCE];
    uint32_t first = (uint32_t)random_below(&r->random, BLOCKS - count);
    if (random_below(&r->random, 2)) count = 1;
    char *buf = memory + (random_below(&r->random, 2) ? 0 : 8);
    for (uint32_t i = 0; i < count; i++) before[i] = atomic_load(&p->done[first + i]);
    uint64_t offset = (uint64_t)first * BLOCK, bytes = (uint64_t)count * BLOCK;
    int64_t n = sr_block_pread(p->b, buf, bytes, offset);
    atomic_fetch_add(n ? &p->direct : &p->through_port, 1);
    if (!n) n = sr_block_read(port, p->b, buf, offset, bytes);
    if (n != (int64_t)bytes) atomic_fetch_add(&p->bad, 1);
    for (uint32_t i = 0; i < count; i++) {
      uint64_t is[WORDS];
      memcpy(is, buf + (size_t)i * BLOCK, BLOCK);
      if (fits(p, is, first + i, before[i], atomic_load(&p->begun[first + i]))) continue;
      if (!atomic_fetch_add(&p->bad, 1))
        print_error("block %u: %016llx between versions %u and %u\n", first + i,
                    (unsigned long long)is[0], before[i], atomic_load(&p->begun[first + i]));
    }
  }
  if (port) sr_port_close(port);
  free(memory);
  return NULL;
}

/* ---- The writer -------------------------------------------------------------------------------
 */

static void change_blocks(struct play *p, struct random *r, struct sr_port *port, uint64_t *buf) {
  uint32_t count = 1 + (uint32_t)random_below(r, AT_ONCE), kind = (uint32_t)random_below(r, 8);
  uint32_t first = (uint32_t)random_below(r, BLOCKS - count);
  for (uint32_t i = 0; i < count; i++) {
    uint32_t b = first + i, version = atomic_load(&p->begun[b]) + 1;
    while (kind < 2 && !is_zeros(b, version)) version++; /* a discard brings zeros */
    fill(buf + (size_t)i * WORDS, V_TAG, b, version);
    atomic_store(&p->begun[b], version);
  }
  uint64_t offset = (uint64_t)first * BLOCK, bytes = (uint64_t)count * BLOCK;
  int64_t n = kind == 0   ? sr_block_discard(port, p->b, offset, bytes)
              : kind == 1 ? sr_block_write_zeroes(port, p->b, offset, bytes, 0)
                          : sr_block_write(port, p->b, buf, offset, bytes, 0);
  if (n != (int64_t)bytes) atomic_fetch_add(&p->bad, 1);
  for (uint32_t i = 0; i < count; i++)
    atomic_store(&p->done[first + i], atomic_load(&p->begun[first + i]));
}

static void change_snapshots(struct play *p, struct random *r, struct sr_port *port) {
  uint32_t i = (uint32_t)random_below(r, SNAPSHOTS);
  char name[8];
  snprintf(name, sizeof name, "s%u", i);
  if (p->exists[i])
    assert_int_equal(sr_volume_remove(port, name), 0);
  else
    assert_int_equal(sr_volume_snapshot(port, "v", name), 0);
  p->exists[i] = !p->exists[i];
  for (uint32_t b = 0; b < BLOCKS; b++) p->snapshots[i].is[b] = atomic_load(&p->done[b]);
}

/* Whoever gets the places that become free. */
static void make_noise(struct play *p, struct random *r, uint64_t *buf) {
  uint64_t at = random_below(r, 16) * PIECE;
  if (random_below(r, 2)) {
    assert_int_equal(sr_block_discard(p->w->p, p->noise, at, 4 * PIECE), 4 * PIECE);
  } else {
    for (uint32_t i = 0; i < 16; i++) fill(buf + (size_t)i * WORDS, NOISE_TAG, i, 1);
    for (uint32_t i = 0; i < 4; i++)
      assert_int_equal(sr_block_write(p->w->p, p->noise, buf, at + i * PIECE, PIECE, 0), PIECE);
  }
  if (random_below(r, 3) == 0) assert_int_equal(sr_flush(p->w->p), 0);
}

static void play_round(struct play *p, struct random *r) {
  pthread_t threads[READERS];
  struct reader readers[READERS];
  uint64_t *buf = aligned_alloc(BLOCK, AT_ONCE * BLOCK);
  for (uint32_t b = 0; b < BLOCKS; b++) p->floor[b] = atomic_load(&p->begun[b]);
  atomic_store(&p->stop, false);
  for (uint32_t i = 0; i < READERS; i++) {
    readers[i] = (struct reader){p, {random_next(r)}};
    assert_int_equal(pthread_create(&threads[i], NULL, read_on, &readers[i]), 0);
  }
  for (uint32_t i = 0; i < CHANGES && !atomic_load(&p->bad); i++) {
    change_blocks(p, r, p->w->p, buf);
    if (i % 2 == 0) make_noise(p, r, buf);
    if (i % 20 == 10) change_snapshots(p, r, p->w->p);
  }
  atomic_store(&p->stop, true);
  for (uint32_t i = 0; i < READERS; i++) pthread_join(threads[i], NULL);
  assert_int_equal(atomic_load(&p->bad), 0);
  free(buf);
}

/* ---- In between -------------------------------------------------------------------------------
 */

static struct sr_block *open_v(struct world *w) {
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *b = NULL;
  o.direct_reads = true;
  assert_int_equal(sr_volume_open(w->p, "v", &o, &b), 0);
  return b;
}

/* Back to a snapshot that there is; or the volume becomes a clone of it; or it stands alone. */
static void go_back(struct play *p, struct random *r) {
  uint32_t i = (uint32_t)random_below(r, SNAPSHOTS), n = 0;
  struct sr_port *port = p->w->p;
  char name[8];
  while (!p->exists[i] && n++ < SNAPSHOTS) i = (i + 1) % SNAPSHOTS;
  snprintf(name, sizeof name, "s%u", i);
  close_block(p->w, p->b);
  if (!p->exists[i] || random_below(r, 3) == 0) {
    assert_int_equal(sr_volume_flatten(port, "v"), 0);
  } else {
    /* Clones lose what lay above: the rest of the snapshots goes on by itself. */
    int error = random_below(r, 2) ? sr_volume_rollback(port, "v", name) : -EXDEV;
    if (error) {
      assert_int_equal(error, -EXDEV);
      assert_int_equal(sr_volume_remove(port, "v"), 0);
      assert_int_equal(sr_volume_clone(port, name, "v", NULL), 0);
    }
    for (uint32_t b = 0; b < BLOCKS; b++) atomic_store(&p->done[b], p->snapshots[i].is[b]);
  }
  p->b = open_v(p->w);
}

/* In the end, nothing changes: everything is read without the port. */
static void read_all(struct play *p) {
  uint64_t buf[WORDS];
  for (uint32_t b = 0; b < BLOCKS; b++) {
    uint64_t want[WORDS];
    int64_t n = 0;
    fill(want, V_TAG, b, atomic_load(&p->done[b]));
    for (int i = 0; i < 1000 && !n; i++) {
      n = sr_block_pread(p->b, buf, BLOCK, (uint64_t)b * BLOCK);
      if (!n)
        assert_int_equal(sr_block_read(p->w->p, p->b, buf, (uint64_t)b * BLOCK, BLOCK), BLOCK);
    }
    assert_int_equal(n, BLOCK);
    assert_memory_equal(buf, want, BLOCK);
  }
}

static void play(void **state, const struct kind *k, uint64_t seed) {
  struct world w = begin(state, k);
  struct play *p = calloc(1, sizeof *p);
  struct random r = {seed};
  p->w = &w;
  p->k = k;
  create(&w, k, "v", (uint64_t)BLOCKS * BLOCK);
  create(&w, k, "noise", 32 * PIECE);
  p->b = open_v(&w);
  p->noise = open_block(&w, "noise", false);
  for (uint32_t round = 0; round < ROUNDS; round++) {
    play_round(p, &r);
    go_back(p, &r);
  }
  read_all(p);
  print_message("%u reads, %u through a port\n", p->direct, p->through_port);
  close_block(&w, p->b);
  close_block(&w, p->noise);
  free(p);
  end(&w);
}

static void on_one_shard(void **state) { play(state, &(struct kind){false, false, 1}, 1); }
static void on_three_shards(void **state) { play(state, &(struct kind){false, false, 3}, 2); }
static void striped(void **state) { play(state, &(struct kind){false, true, 3}, 3); }

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(on_one_shard, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(on_three_shards, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(striped, fixture_setup, fixture_teardown)};
  return cmocka_run_group_tests_name("block_pread_threads", tests, NULL, NULL);
}
