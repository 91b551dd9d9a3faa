/* test_block_pread.c - sr_block_pread(): the same bytes as through a port, and never those of
 * somebody else, whatever happens to the volume between its looking up where they lie and its
 * reading them. There the tests step in by the linker: pread() of the thread that reads is theirs.
 * In the program with plants: that they would find what was said and not taken back. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "shards/base/plant.h"
#include "tests/api/pread_steps.h"
#include "tests/api/volume_world.h"

#define BLOCK 4096u

#ifdef SHARDRING_PLANTS
enum plant plant_chosen = PLANT_NONE;
#endif

/* ---- Helpers ----------------------------------------------------------------------------------
 */

static struct sr_block *open_direct(struct world *w, const char *name, bool read_only) {
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *b = NULL;
  o.read_only = read_only;
  o.direct_reads = true;
  assert_int_equal(sr_volume_open(w->p, name, &o, &b), 0);
  return b;
}

static bool is_pattern(const void *buf, uint64_t bytes, uint64_t seed, uint64_t offset) {
  char *want = malloc(bytes);
  pattern(want, bytes, seed, offset);
  bool same = memcmp(buf, want, bytes) == 0;
  free(want);
  return same;
}

/* Through the port as often as it takes until it need not be; right each time. skew: of buf. */
static void expect_direct_(struct world *w, struct sr_block *b, uint64_t offset, uint64_t bytes,
                           uint64_t seed, uint32_t skew, int line) {
  char *memory = aligned_alloc(BLOCK, 32 * BLOCK), *buf = memory + skew;
  int64_t n = 0;
  for (int i = 0; i < 1000 && !n; i++) {
    memset(buf, 0xaa, bytes);
    n = sr_block_pread(b, buf, bytes, offset);
    if (n) break;
    assert_int_equal(sr_block_read(w->p, b, buf, offset, bytes), bytes);
    assert_true(is_pattern(buf, bytes, seed, offset));
  }
  if (n != (int64_t)bytes || !is_pattern(buf, bytes, seed, offset))
    fail_msg("line %d: %lld", line, (long long)n);
  free(memory);
}
#define expect_direct(w, b, offset, bytes, seed, skew)                                             \
  expect_direct_(w, b, offset, bytes, seed, skew, __LINE__)

static void expect_never(struct world *w, struct sr_block *b) {
  char *buf = aligned_alloc(BLOCK, BLOCK);
  for (int i = 0; i < 200; i++) {
    assert_int_equal(sr_block_pread(b, buf, BLOCK, 0), 0);
    assert_int_equal(sr_block_read(w->p, b, buf, 0, BLOCK), BLOCK);
  }
  free(buf);
}

static const struct kind directory_kinds[] = {
    {false, false, 1}, {false, false, 3}, {false, true, 3}};

static void on_directories(void **state, scenario *fn) {
  for (size_t i = 0; i < sizeof directory_kinds / sizeof directory_kinds[0]; i++) {
    struct world w = begin(state, &directory_kinds[i]);
    fn(&w, &directory_kinds[i]);
    end(&w);
  }
}

/* ---- What it reads ----------------------------------------------------------------------------
 */

static uint64_t direct_reads(struct world *w) {
  uint64_t sum = 0;
  for (uint32_t c = 0; c < sr_core_count(w->s); c++) {
    struct sr_core_stats st;
    assert_int_equal(sr_core_stats(w->p, c, &st), 0);
    assert_true(st.block_reads >= st.direct_reads);
    sum += st.direct_reads;
  }
  return sum;
}

static void same_bytes(struct world *w, const struct kind *k) {
  create(w, k, "v", DISK);
  struct sr_block *b = open_direct(w, "v", false);
  write_at(w, b, 0, 3 * PIECE, 1);
  write_at(w, b, 5 * MIB + 512, 1024, 2);
  uint64_t before = direct_reads(w);
  expect_direct(w, b, 0, BLOCK, 1, 0);
  expect_direct(w, b, 0, PIECE, 1, 0);
  expect_direct(w, b, 0, PIECE, 1, 64);
  expect_direct(w, b, 2 * PIECE - 2 * BLOCK, 4 * BLOCK, 1, 0);
  expect_direct(w, b, 512, 512, 1, 0);
  expect_direct(w, b, 3584, 1024, 1, 8);
  expect_direct(w, b, 3 * PIECE, PIECE, 0, 0);
  expect_direct(w, b, 4 * MIB - 2 * BLOCK, 4 * BLOCK, 0, 0); /* two leaves */
  expect_direct(w, b, 5 * MIB, 512, 0, 0);
  expect_direct(w, b, 5 * MIB + 512, 1024, 2, 0);
  expect_direct(w, b, DISK - 512, 512, 0, 0);
  assert_true(direct_reads(w) >= before + 11);
  close_block(w, b);
  assert_true(direct_reads(w) >= before + 11);
}
static void reads_the_same(void **state) { on_directories(state, same_bytes); }

/* Of large volumes not all is kept at a time. */
static void take_turns(struct world *w, const struct kind *k) {
  const uint64_t far = UINT64_C(8) << 30; /* what is so far away has the same slot */
  create(w, k, "v", 5 * far);
  struct sr_block *b = open_direct(w, "v", false);
  uint64_t all = far * (k->striped ? k->shards : 1);
  for (uint64_t i = 0; i < 2; i++) write_at(w, b, i * all, PIECE, 1 + i);
  for (uint64_t i = 0; i < 6; i++) expect_direct(w, b, i % 2 * all, PIECE, 1 + i % 2, 0);
  write_at(w, b, all, PIECE, 3);
  expect_direct(w, b, 0, PIECE, 1, 0);
  expect_direct(w, b, all, PIECE, 3, 0);
  close_block(w, b);
}
static void takes_turns(void **state) { on_directories(state, take_turns); }

static void follow_changes(struct world *w, const struct kind *k) {
  create(w, k, "v", DISK);
  struct sr_block *b = open_direct(w, "v", false);
  expect_direct(w, b, 0, PIECE, 0, 0);
  write_at(w, b, BLOCK, BLOCK, 1); /* first write */
  expect_direct(w, b, BLOCK, BLOCK, 1, 0);
  write_at(w, b, BLOCK, BLOCK, 2); /* in place */
  expect_direct(w, b, BLOCK, BLOCK, 2, 0);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s1"), 0);
  expect_direct(w, b, BLOCK, BLOCK, 2, 0);
  write_at(w, b, 2 * BLOCK, BLOCK, 3); /* a cluster of two layers */
  expect_direct(w, b, BLOCK, BLOCK, 2, 0);
  expect_direct(w, b, 2 * BLOCK, BLOCK, 3, 0);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s2"), 0);
  struct sr_block *s = open_direct(w, "s2", true);
  write_at(w, b, BLOCK, BLOCK, 4);
  expect_direct(w, s, BLOCK, BLOCK, 2, 0);
  expect_direct(w, b, BLOCK, BLOCK, 4, 0);
  assert_int_equal(sr_volume_remove(w->p, "s1"), 0); /* merged into s2 */
  expect_direct(w, s, BLOCK, BLOCK, 2, 0);
  expect_direct(w, s, 2 * BLOCK, BLOCK, 3, 0);
  expect_direct(w, b, 2 * BLOCK, BLOCK, 3, 0);
  close_block(w, s);
  assert_int_equal(sr_volume_flatten(w->p, "v"), 0);
  expect_direct(w, b, 2 * BLOCK, BLOCK, 3, 0);
  assert_int_equal(sr_volume_discard(w->p, b, 0, PIECE), 0 + (int64_t)PIECE);
  expect_direct(w, b, 0, PIECE, 0, 0);
  close_block(w, b);
  assert_int_equal(sr_volume_clone(w->p, "s2", "c", NULL), 0);
  b = open_direct(w, "c", false);
  expect_direct(w, b, BLOCK, BLOCK, 2, 0);
  assert_int_equal(sr_volume_write_zeroes(w->p, b, BLOCK, BLOCK, 0), BLOCK);
  expect_direct(w, b, BLOCK, BLOCK, 0, 0);
  expect_direct(w, b, 2 * BLOCK, BLOCK, 3, 0);
  close_block(w, b);
  assert_int_equal(sr_volume_rollback(w->p, "c", "s2"), 0);
  b = open_direct(w, "c", false);
  expect_direct(w, b, BLOCK, BLOCK, 2, 0);
  assert_int_equal(sr_volume_resize(w->p, "c", BLOCK, true), 0);
  char *buf = malloc(BLOCK);
  assert_int_equal(sr_block_pread(b, buf, BLOCK, BLOCK), -EINVAL);
  assert_int_equal(sr_volume_resize(w->p, "c", DISK, false), 0);
  expect_direct(w, b, BLOCK, BLOCK, 0, 0);
  free(buf);
  close_block(w, b);
}
static void follows_changes(void **state) { on_directories(state, follow_changes); }

/* ---- What goes through the core ----------------------------------------------------------------
 */

static void limited(struct world *w, const struct kind *k) {
  struct sr_limits l = SR_LIMITS_INIT, none = SR_LIMITS_INIT;
  create(w, k, "v", DISK);
  struct sr_block *b = open_direct(w, "v", false);
  expect_direct(w, b, 0, BLOCK, 0, 0);
  l.ops = (struct sr_bucket){1000000, 0, 1};
  assert_int_equal(sr_volume_limit(w->p, "v", &l), 0);
  expect_never(w, b);
  assert_int_equal(sr_volume_limit(w->p, "v", &none), 0);
  expect_direct(w, b, 0, BLOCK, 0, 0);
  assert_int_equal(sr_store_limit(w->p, &l), 0);
  expect_never(w, b);
  assert_int_equal(sr_store_limit(w->p, &none), 0);
  expect_direct(w, b, 0, BLOCK, 0, 0);
  close_block(w, b);
}
static void leaves_limits_to_the_core(void **state) { on_directories(state, limited); }

static void refusals(void **state) {
  struct world w = begin(state, &directory_kinds[1]);
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  char *buf = aligned_alloc(BLOCK, 32 * BLOCK);
  create(&w, &directory_kinds[1], "v", DISK);
  struct sr_block *b = open_block(&w, "v", false);
  expect_never(&w, b); /* opened without */
  close_block(&w, b);
  b = open_direct(&w, "v", false);
  expect_direct(&w, b, 0, BLOCK, 0, 0);
  assert_int_equal(sr_block_pread(b, buf, 32 * BLOCK, 0), 0);
  assert_int_equal(sr_block_pread(b, buf, 0, 0), 0);
  assert_int_equal(sr_block_pread(b, buf, 100, 0), -EINVAL);
  assert_int_equal(sr_block_pread(b, buf, 512, 100), -EINVAL);
  assert_int_equal(sr_block_pread(b, buf, BLOCK, DISK), -EINVAL);
  assert_int_equal(sr_block_pread(b, buf, BLOCK, UINT64_MAX - BLOCK + 1), -EINVAL);
  assert_int_equal(sr_block_pread(b, NULL, BLOCK, 0), -EINVAL);
  assert_int_equal(sr_block_pread(NULL, buf, BLOCK, 0), -EINVAL);
  close_block(&w, b);
  o.size_bytes = DISK;
  o.integrity = SR_INTEGRITY_ON;
  assert_int_equal(sr_volume_create(w.p, "on", &o), 0);
  b = open_direct(&w, "on", false);
  write_at(&w, b, 0, BLOCK, 1);
  expect_never(&w, b);
  close_block(&w, b);
  free(buf);
  end(&w);
}

static void in_memory(void **state) {
  struct world w = begin(state, &kinds[0]);
  create(&w, &kinds[0], "v", DISK);
  struct sr_block *b = open_direct(&w, "v", false);
  expect_never(&w, b);
  close_block(&w, b);
  end(&w);
}

/* ---- While it reads ----------------------------------------------------------------------------
 */

struct scene {
  struct world *w;
  const struct kind *k;
  struct sr_block *b, *other;
};

/* Every place that is free gets bytes of somebody else. */
static void fill_store(struct scene *s) {
  struct world *w = s->w;
  char *buf = malloc(PIECE);
  for (int i = 0; i < 3; i++) assert_int_equal(sr_flush(w->p), 0);
  for (uint64_t at = 0; at < 256 * MIB; at += PIECE) {
    pattern(buf, PIECE, 9, at);
    int64_t r = sr_block_write(w->p, s->other, buf, at, PIECE, 0);
    if (r == -ENOSPC && !s->k->striped) break;
    assert_true(r == (int64_t)PIECE || r == -ENOSPC);
  }
  free(buf);
}

static void discards(void *arg) {
  struct scene *s = arg;
  assert_int_equal(sr_volume_discard(s->w->p, s->b, 0, PIECE), PIECE);
  fill_store(s);
}
static void zeroes(void *arg) {
  struct scene *s = arg;
  assert_int_equal(sr_volume_write_zeroes(s->w->p, s->b, 0, PIECE, 0), PIECE);
  fill_store(s);
}
static void flattens(void *arg) {
  struct scene *s = arg;
  assert_int_equal(sr_volume_flatten(s->w->p, "v"), 0);
  assert_int_equal(sr_volume_remove(s->w->p, "snap"), 0);
  fill_store(s);
}
static void overwrites_and_merges(void *arg) {
  struct scene *s = arg;
  write_at(s->w, s->b, 0, PIECE, 0x77);
  assert_int_equal(sr_volume_remove(s->w->p, "snap"), 0);
  fill_store(s);
}
static void shrinks(void *arg) {
  struct scene *s = arg;
  assert_int_equal(sr_volume_resize(s->w->p, "v", 0 + BLOCK, true), 0);
  assert_int_equal(sr_volume_resize(s->w->p, "v", DISK, false), 0);
  fill_store(s);
}
static void is_limited(void *arg) {
  struct scene *s = arg;
  struct sr_limits l = SR_LIMITS_INIT;
  l.ops = (struct sr_bucket){1000000, 0, 1};
  assert_int_equal(sr_volume_limit(s->w->p, "v", &l), 0);
}
static void closes(void *arg) {
  struct scene *s = arg;
  assert_int_equal(sr_block_close(s->w->p, s->b), -EBUSY);
}
static void flips_a_bit(void *arg) {
  (void)arg;
  pread_buf[100] ^= 1;
}
static void fails(void *arg) {
  (void)arg;
  pread_errno = EIO;
}

static struct scene set_scene(struct world *w, const struct kind *k, bool snapshot) {
  struct scene s = {.w = w, .k = k};
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  create(w, k, "v", DISK);
  o.size_bytes = 256 * MIB;
  o.on_shard = !k->striped;
  o.shard = stat_of(w, "v").shard;
  o.striped = k->striped;
  o.stripe_bytes = k->striped ? 64 << 10 : 0;
  assert_int_equal(sr_volume_create(w->p, "other", &o), 0);
  s.b = open_direct(w, "v", false);
  s.other = open_block(w, "other", false);
  write_at(w, s.b, 0, 8 * PIECE, 1);
  if (snapshot) assert_int_equal(sr_volume_snapshot(w->p, "v", "snap"), 0);
  expect_direct(w, s.b, BLOCK, BLOCK, 1, 0);
  return s;
}

/* What sr_block_pread() says of block 1 if this happens just before, or after, the device is read.
 */
static int64_t read_while(struct scene *s, step_in *before, step_in *after, char *buf) {
  int64_t n;
  pread_arg = s;
  do { /* until it did happen: checksums come in the background, and take back what was said */
    expect_direct(s->w, s->b, BLOCK, BLOCK, 1, 0);
    before_pread = before;
    after_pread = after;
    n = sr_block_pread(s->b, buf, BLOCK, BLOCK);
  } while (before_pread || after_pread);
  pread_errno = 0;
  return n;
}

static void end_scene(struct scene *s) {
  close_block(s->w, s->b);
  close_block(s->w, s->other);
}

static const struct {
  step_in *happens;
  bool snapshot;
  uint64_t seed; /* of the block afterwards */
} happenings[] = {{discards, false, 0},
                  {zeroes, false, 0},
                  {flattens, true, 1},
                  {zeroes, true, 0},
                  {overwrites_and_merges, true, 0x77},
                  {shrinks, false, 0},
                  {is_limited, false, 1}};

static void something_happens(struct world *w, const struct kind *k, size_t i, bool after) {
  char *buf = aligned_alloc(BLOCK, BLOCK);
  struct scene s = set_scene(w, k, happenings[i].snapshot);
  step_in *happens = happenings[i].happens;
  int64_t n = read_while(&s, after ? NULL : happens, after ? happens : NULL, buf);
  assert_int_equal(n, 0);
  expect_at(w, s.b, BLOCK, BLOCK, happenings[i].seed);
  free(buf);
  end_scene(&s);
}

static void happens_meanwhile(void **state) {
  for (size_t i = 0; i < sizeof happenings / sizeof happenings[0]; i++)
    for (size_t k = 0; k < (i ? 1 : 2); k++) {
      const struct kind *kind = &directory_kinds[k ? 2 : 0];
      struct world w = begin(state, kind);
      something_happens(&w, kind, i, i % 2);
      end(&w);
    }
}

static void does_not_count(void **state) {
  struct world w = begin(state, &directory_kinds[0]);
  struct scene s = set_scene(&w, &directory_kinds[0], true);
  char *buf = aligned_alloc(BLOCK, BLOCK);
  while (stat_of(&w, "v").unsummed_bytes) usleep(1000);
  expect_direct(&w, s.b, BLOCK, BLOCK, 1, 0);
  assert_int_equal(read_while(&s, fails, NULL, buf), 0);
  assert_int_equal(read_while(&s, closes, NULL, buf), BLOCK);
  assert_true(is_pattern(buf, BLOCK, 1, BLOCK));
  assert_int_equal(read_while(&s, NULL, flips_a_bit, buf), 0);
  expect_direct(&w, s.b, BLOCK, BLOCK, 1, 0);
  free(buf);
  end_scene(&s);
  end(&w);
}

/* A read of two parts: a close that is refused leaves both as they are. */
static void close_is_refused_as_a_whole(void **state) {
  struct world w = begin(state, &directory_kinds[2]);
  struct scene s = set_scene(&w, &directory_kinds[2], false);
  uint64_t offset = 3 * PIECE - BLOCK; /* the last part, then the first one */
  char *buf = aligned_alloc(BLOCK, 2 * BLOCK);
  expect_direct(&w, s.b, offset, 2 * BLOCK, 1, 0);
  pread_arg = &s;
  before_pread = closes;
  assert_int_equal(sr_block_pread(s.b, buf, 2 * BLOCK, offset), 2 * BLOCK);
  assert_null(before_pread);
  assert_true(is_pattern(buf, 2 * BLOCK, 1, offset));
  free(buf);
  end_scene(&s);
  end(&w);
}

#ifdef SHARDRING_PLANTS
static void fault_is_found(void **state) {
  struct world w = begin(state, &directory_kinds[0]);
  struct scene s = set_scene(&w, &directory_kinds[0], false);
  char *buf = aligned_alloc(BLOCK, BLOCK);
  plant_chosen = PLANT_keep_what_was_said;
  assert_int_equal(read_while(&s, discards, NULL, buf), BLOCK);
  plant_chosen = PLANT_NONE;
  assert_false(is_pattern(buf, BLOCK, 1, BLOCK));
  assert_false(is_pattern(buf, BLOCK, 0, BLOCK)); /* somebody else's */
  free(buf);
  end_scene(&s);
  end(&w);
}
#endif

int main(void) {
  const struct CMUnitTest tests[] = {
#ifdef SHARDRING_PLANTS
      cmocka_unit_test_setup_teardown(fault_is_found, fixture_setup, fixture_teardown),
#endif
      cmocka_unit_test_setup_teardown(reads_the_same, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(takes_turns, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(follows_changes, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(leaves_limits_to_the_core, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(refusals, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(in_memory, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(happens_meanwhile, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(does_not_count, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(close_is_refused_as_a_whole, fixture_setup,
                                      fixture_teardown)};
  return cmocka_run_group_tests_name("block_pread", tests, NULL, NULL);
}
