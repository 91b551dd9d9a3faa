/* test_volume_data.c - what volumes, snapshots and clones hold while they are made, cut, flattened,
 * compared and removed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/api/volume_world.h"

/* ---- Snapshots and clones -----------------------------------------------------------------------
 */

static void snapshots_keep_what_was(struct world *w, const struct kind *k) {
  create(w, k, "v", DISK);
  struct sr_block *b = open_block(w, "v", false);
  expect_at(w, b, 0, DISK, 0);
  write_at(w, b, 0, DISK / 2, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s1"), 0);
  write_at(w, b, PIECE, PIECE, 2);
  write_at(w, b, DISK - PIECE, PIECE, 2);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s2"), 0);
  write_at(w, b, PIECE + 4096, 4096, 3);
  for (int turn = 0; turn < 3; turn++) {
    expect_in(w, "s1", 0, DISK / 2, 1);
    expect_in(w, "s1", DISK / 2, DISK / 2, 0);
    expect_in(w, "s2", 0, PIECE, 1);
    expect_in(w, "s2", PIECE, PIECE, 2);
    expect_in(w, "s2", 2 * PIECE, DISK / 2 - 2 * PIECE, 1);
    expect_in(w, "s2", DISK - PIECE, PIECE, 2);
    expect_at(w, b, PIECE, 4096, 2);
    expect_at(w, b, PIECE + 4096, 4096, 3);
    expect_at(w, b, PIECE + 8192, PIECE - 8192, 2);
    if (turn == 0) assert_int_equal(sr_block_flush(w->p, b), 0);
    close_block(w, b);
    if (turn < 2 && !reopen(w, k, turn == 0)) {
      b = open_block(w, "v", false);
      break;
    }
    b = open_block(w, "v", false);
  }
  close_block(w, b);
}

static void clones_go_their_own_ways(struct world *w, const struct kind *k) {
  char name[16];
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  create(w, k, "v", DISK);
  write_in(w, "v", 0, DISK / 2, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "gold"), 0);
  for (uint32_t i = 0; i < 4; i++) {
    snprintf(name, sizeof name, "c%u", i);
    o.on_shard = !k->striped;
    o.shard = i % k->shards;
    o.size_bytes = i == 3 ? DISK + MIB : 0;
    assert_int_equal(sr_volume_clone(w->p, "gold", name, &o), 0);
    expect_in(w, name, 0, DISK / 2, 1);
    write_in(w, name, i * PIECE, PIECE, 10 + i);
    write_in(w, name, DISK - PIECE, PIECE, 20 + i);
  }
  assert_int_equal(sr_volume_remove(w->p, "gold"), 0);
  assert_int_equal(sr_volume_remove(w->p, "v"), 0);
  for (int turn = 0; turn < 2; turn++) {
    for (uint32_t i = 0; i < 4; i++) {
      snprintf(name, sizeof name, "c%u", i);
      if (i) expect_in(w, name, 0, i * PIECE, 1);
      expect_in(w, name, i * PIECE, PIECE, 10 + i);
      expect_in(w, name, (i + 1) * PIECE, DISK / 2 - (i + 1) * PIECE, 1);
      expect_in(w, name, DISK / 2, DISK / 2 - PIECE, 0);
      expect_in(w, name, DISK - PIECE, PIECE, 20 + i);
    }
    expect_in(w, "c3", DISK, MIB, 0);
    if (!reopen(w, k, false)) break;
  }
}

static void space_comes_back(struct world *w, const struct kind *k) {
  static const char *const orders[4][4] = {
      {"v", "s", "c", "d"}, {"s", "d", "c", "v"}, {"c", "s", "v", "d"}, {"d", "c", "v", "s"}};
  create(w, k, "keep", MIB);
  uint64_t before = free_bytes(w);
  for (int i = 0; i < 4; i++) {
    create(w, k, "v", DISK);
    write_in(w, "v", 0, DISK / 2, 1);
    assert_int_equal(sr_volume_snapshot(w->p, "v", "s"), 0);
    write_in(w, "v", 0, 3 * PIECE, 2);
    assert_int_equal(sr_volume_clone(w->p, "s", "c", NULL), 0);
    assert_int_equal(sr_volume_clone(w->p, "s", "d", NULL), 0);
    write_in(w, "c", DISK - PIECE, PIECE, 3);
    write_in(w, "d", 0, PIECE, 4);
    uint64_t is = free_bytes(w);
    if (is >= before - DISK / 2)
      print_error("order %d: %llu bytes free, before %llu\n", i, (unsigned long long)is,
                  (unsigned long long)before);
    assert_true(is < before - DISK / 2);
    for (int n = 0; n < 4; n++) assert_int_equal(sr_volume_remove(w->p, orders[i][n]), 0);
    wait_for_space(w, before - 64 * KIB);
  }
}

/* Free blocks when all that goes on in the background has come to its end: the snapshots' checksums
 * are made, the newest checkpoints say what is there now, and what was given up is free. */
static struct sr_space settled(struct world *w) {
  struct sr_space space;
  for (int i = 0; i < 10000 && stat_of(w, "base").unsummed_bytes; i++) usleep(1000);
  assert_int_equal(stat_of(w, "base").unsummed_bytes, 0);
  assert_int_equal(sr_flush(w->p), 0); /* layers are dropped, and that is in the log */
  assert_int_equal(sr_checkpoint(w->p), 0);
  (void)free_bytes(w);
  assert_int_equal(sr_space(w->p, &space), 0);
  return space;
}

static void one_clone(struct world *w, uint32_t seed) {
  assert_int_equal(sr_volume_clone(w->p, "base", "c", NULL), 0);
  write_in(w, "c", seed % 16 * PIECE, 4 * KIB, seed);
  expect_in(w, "c", DISK / 2, PIECE, 1);
  assert_int_equal(sr_volume_remove(w->p, "c"), 0);
  if (seed % 16 == 0) assert_int_equal(sr_flush(w->p), 0);
  if (seed % 32 == 0) assert_int_equal(sr_checkpoint(w->p), 0);
}

/* Not one block is lost to clones that come and go, neither by them nor by the checkpoints that are
 * written meanwhile, some of which name them. */
static void clones_leave_nothing(struct world *w, const struct kind *k) {
  create(w, k, "v", DISK);
  write_in(w, "v", 0, DISK, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "base"), 0);
  for (uint32_t i = 0; i < 8; i++) one_clone(w, i);
  struct sr_space before = settled(w), after = before;
  for (uint32_t i = 0; i < 128; i++) one_clone(w, i);
  for (int open = 0; open < 2; open++) {
    for (int i = 0; i < 100; i++) {
      after = settled(w);
      if (after.free_bytes == before.free_bytes && !after.pending_bytes) break;
    }
    assert_int_equal(after.free_bytes, before.free_bytes);
    assert_int_equal(after.pending_bytes, 0);
    assert_int_equal(after.volume_bytes, before.volume_bytes);
    assert_int_equal(after.metadata_bytes, before.metadata_bytes);
    if (!open && !reopen(w, k, false)) break;
  }
}

static void rolled_back(struct world *w, const struct kind *k) {
  create(w, k, "v", DISK);
  write_in(w, "v", 0, 4 * PIECE, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s1"), 0);
  write_in(w, "v", 0, PIECE, 2);
  assert_int_equal(sr_volume_resize(w->p, "v", DISK + MIB, false), 0);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s2"), 0);
  write_in(w, "v", DISK, PIECE, 3);
  assert_int_equal(sr_volume_rollback(w->p, "v", "s1"), 0);
  assert_int_equal(stat_of(w, "v").size_bytes, DISK);
  for (int turn = 0; turn < 2; turn++) {
    expect_in(w, "v", 0, 4 * PIECE, 1);
    expect_in(w, "s2", 0, PIECE, 2);
    expect_in(w, "s2", DISK, MIB, 0);
    if (!reopen(w, k, false)) break;
  }
  assert_int_equal(sr_volume_remove(w->p, "s2"), 0);
  assert_int_equal(sr_volume_resize(w->p, "v", DISK + MIB, false), 0);
  expect_in(w, "v", DISK, MIB, 0);
}

/* ---- Sizes ----------------------------------------------------------------------------------- */

static void resized(struct world *w, const struct kind *k) {
  const uint64_t odd = 5 * MIB + 512;
  create(w, k, "v", DISK);
  struct sr_block *b = open_block(w, "v", false);
  write_at(w, b, 0, DISK, 1);
  assert_int_equal(sr_volume_resize(w->p, "v", 0, true), -EINVAL);
  assert_int_equal(sr_volume_resize(w->p, "v", 1000, true), -EINVAL);
  assert_int_equal(sr_volume_resize(w->p, "v", SR_VOLUME_BYTES_MAX + 4096, true), -EINVAL);
  assert_int_equal(sr_volume_resize(w->p, "v", odd, false), -ENOTEMPTY);
  assert_int_equal(sr_block_size_bytes(b), DISK);
  expect_at(w, b, 0, DISK, 1);
  assert_int_equal(sr_volume_resize(w->p, "v", odd, true), 0);
  assert_int_equal(sr_block_size_bytes(b), odd);
  char sector[512];
  assert_int_equal(sr_block_read(w->p, b, sector, odd, 512), -EINVAL);
  expect_at(w, b, 0, odd, 1);
  assert_int_equal(sr_volume_resize(w->p, "v", DISK, false), 0);
  expect_at(w, b, 0, odd, 1);
  expect_at(w, b, odd, DISK - odd, 0);
  assert_int_equal(sr_volume_resize(w->p, "v", odd, false), 0); /* nothing there */
  assert_int_equal(sr_volume_resize(w->p, "v", DISK, false), 0);
  write_at(w, b, odd, 512, 2);
  assert_int_equal(sr_volume_resize(w->p, "v", odd, false), -ENOTEMPTY);
  expect_at(w, b, odd, 512, 2);
  /* A clone's tail lies below. */
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s"), 0);
  close_block(w, b);
  assert_int_equal(sr_volume_clone(w->p, "s", "c", NULL), 0);
  assert_int_equal(sr_volume_resize(w->p, "c", MIB, false), -ENOTEMPTY);
  assert_int_equal(sr_volume_resize(w->p, "c", MIB, true), 0);
  assert_int_equal(sr_volume_resize(w->p, "c", 2 * DISK, false), 0);
  assert_int_equal(sr_volume_resize(w->p, "s", DISK * 2, false), -EROFS);
  for (int turn = 0; turn < 2; turn++) {
    expect_in(w, "c", 0, MIB, 1);
    expect_in(w, "c", MIB, 2 * DISK - MIB, 0);
    expect_in(w, "s", 0, odd, 1);
    if (!reopen(w, k, false)) break;
  }
}

/* ---- Flatten --------------------------------------------------------------------------------- */

static void flattened(struct world *w, const struct kind *k) {
  create(w, k, "v", DISK);
  write_in(w, "v", 0, DISK / 2, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s1"), 0);
  write_in(w, "v", PIECE, PIECE, 2);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s2"), 0);
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  o.on_shard = !k->striped;
  o.shard = k->shards - 1;
  assert_int_equal(sr_volume_clone(w->p, "s2", "c", &o), 0);
  struct sr_block *b = open_block(w, "c", false);
  write_at(w, b, 4 * PIECE, 4096, 3);
  assert_int_equal(sr_block_discard(w->p, b, 6 * PIECE, PIECE), PIECE);
  assert_int_equal(sr_volume_flatten(w->p, "s1"), -EROFS);
  assert_int_equal(sr_volume_flatten(w->p, "c"), 0);
  assert_int_equal(stat_of(w, "c").parent_id, 0);
  assert_int_equal(stat_of(w, "c").shared_bytes, 0);
  assert_int_equal(sr_volume_remove(w->p, "v"), 0);
  assert_int_equal(sr_volume_remove(w->p, "s2"), 0);
  assert_int_equal(sr_volume_remove(w->p, "s1"), 0);
  for (int turn = 0; turn < 2; turn++) {
    expect_at(w, b, 0, PIECE, 1);
    expect_at(w, b, PIECE, PIECE, 2);
    expect_at(w, b, 2 * PIECE, 2 * PIECE, 1);
    expect_at(w, b, 4 * PIECE, 4096, 3);
    expect_at(w, b, 4 * PIECE + 4096, 2 * PIECE - 4096, 1);
    expect_at(w, b, 6 * PIECE, PIECE, 0);
    expect_at(w, b, 7 * PIECE, DISK / 2 - 7 * PIECE, 1);
    expect_at(w, b, DISK / 2, DISK / 2, 0);
    close_block(w, b);
    bool again = turn == 0 && reopen(w, k, false);
    b = open_block(w, "c", false);
    if (!again) break;
  }
  close_block(w, b);
}

/* ---- Diff ------------------------------------------------------------------------------------ */

struct ranges {
  struct sr_volume_range r[64];
  int count;
};

static int keep_range(void *arg, const struct sr_volume_range *range) {
  struct ranges *ranges = arg;
  assert_in_range(ranges->count, 0, 63);
  ranges->r[ranges->count++] = *range;
  return 0;
}

static void assert_range(const struct ranges *x, int i, uint64_t offset, uint64_t bytes,
                         bool zeros) {
  assert_in_range(i, 0, x->count - 1);
  assert_int_equal(x->r[i].offset_bytes, offset);
  assert_int_equal(x->r[i].bytes, bytes);
  assert_int_equal(x->r[i].zeros, zeros);
}

static struct ranges diff(struct world *w, const char *from, const char *to) {
  struct ranges x = {.count = 0};
  assert_int_equal(sr_volume_diff(w->p, from, to, keep_range, &x), 0);
  return x;
}

static int stop_at_once(void *arg, const struct sr_volume_range *range) {
  (void)range;
  return ++*(int *)arg == 2 ? 77 : 0;
}

/* The library may be used from inside; the two volumes stay. */
static int use_the_library(void *arg, const struct sr_volume_range *range) {
  struct world *w = arg;
  char buf[4096];
  assert_int_equal(sr_volume_remove(w->p, "s2"), -EBUSY);
  assert_int_equal(sr_volume_remove(w->p, "s1"), -EBUSY);
  assert_int_equal(sr_volume_clone(w->p, "s2", "from inside", NULL), 0);
  struct sr_block *b = open_block(w, "from inside", true);
  assert_int_equal(sr_block_read(w->p, b, buf, range->offset_bytes, 512), 512);
  close_block(w, b);
  assert_int_equal(sr_volume_remove(w->p, "from inside"), 0);
  return 0;
}

static void differences(struct world *w, const struct kind *k) {
  create(w, k, "v", DISK + 512);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "empty"), 0);
  struct sr_block *b = open_block(w, "v", false);
  write_at(w, b, 0, DISK / 2, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s1"), 0);
  write_at(w, b, PIECE - 4096, 8192, 2);
  write_at(w, b, DISK, 512, 2);
  write_at(w, b, 9 * MIB, 4096, 2);
  assert_int_equal(sr_block_discard(w->p, b, 4 * PIECE, 2 * PIECE), 2 * PIECE);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s2"), 0);
  close_block(w, b);
  struct ranges x = diff(w, "s1", "s2");
  assert_int_equal(x.count, 4);
  assert_range(&x, 0, PIECE - 4096, 8192, false);
  assert_range(&x, 1, 4 * PIECE, 2 * PIECE, true);
  assert_range(&x, 2, 9 * MIB, 4096, false);
  assert_range(&x, 3, DISK, 512, false);
  x = diff(w, NULL, "s1");
  assert_int_equal(x.count, 1);
  assert_range(&x, 0, 0, DISK / 2, false);
  x = diff(w, "empty", "s1");
  assert_int_equal(x.count, 1);
  x = diff(w, NULL, "s2");
  assert_int_equal(x.count, 4);
  assert_range(&x, 0, 0, 4 * PIECE, false);
  assert_range(&x, 1, 6 * PIECE, DISK / 2 - 6 * PIECE, false);
  assert_int_equal(diff(w, NULL, "empty").count, 0);
  assert_int_equal(diff(w, "s2", "v").count, 0);
  x = diff(w, "s2", "s1"); /* back */
  assert_int_equal(x.count, 4);
  assert_range(&x, 1, 4 * PIECE, 2 * PIECE, false);
  assert_range(&x, 2, 9 * MIB, 4096, true);
  assert_int_equal(sr_volume_diff(w->p, "s1", "s2", use_the_library, w), 0);
  int calls = 0;
  assert_int_equal(sr_volume_diff(w->p, "s1", "s2", stop_at_once, &calls), 77);
  assert_int_equal(sr_volume_diff(w->p, "v", "s2", keep_range, &x), -EINVAL); /* no snapshot */
  assert_int_equal(sr_volume_diff(w->p, "none", "s2", keep_range, &x), -ENOENT);
  assert_int_equal(sr_volume_diff(w->p, NULL, "s2", NULL, NULL), -EINVAL);
}

/* Every window shows what a look at all shows there. Stripes of 16 MiB are longer than what the map
 * is cut into. */
static void windows(struct world *w, const struct kind *k) {
  const uint64_t disk = 64 * MIB, end = disk + 512;
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  o.size_bytes = end, o.striped = k->striped, o.stripe_bytes = k->striped ? 16 * MIB : 0;
  assert_int_equal(sr_volume_create(w->p, "v", &o), 0);
  create(w, k, "fine", end);
  static const char *const names[] = {"v", "fine", "v", "fine"};
  for (int n = 0; n < 4; n++) {
    const char *name = names[n];
    write_in(w, name, n < 2 ? 0 : 8192, 4096, 1);
    write_in(w, name, 16 * MIB - PIECE, 2 * PIECE, 1);
    write_in(w, name, 21 * MIB, 4096, 1);
    write_in(w, name, disk, 512, 1);
    if (n < 2) assert_int_equal(sr_volume_snapshot(w->p, name, n ? "fine below" : "below"), 0);
    struct ranges all = diff(w, NULL, name);
    const uint64_t cuts[] = {0,         512,          4096,     8192,     16 * MIB - 4096,
                             16 * MIB,  21 * MIB + 1, 40 * MIB, 63 * MIB, disk,
                             disk + 512};
    for (uint32_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
      for (uint32_t j = i; j < sizeof cuts / sizeof *cuts; j++) {
        struct ranges some = {.count = 0};
        assert_int_equal(
            sr_volume_ranges(w->p, name, cuts[i], cuts[j] - cuts[i], keep_range, &some), 0);
        int at = 0;
        for (int a = 0; a < all.count; a++) {
          uint64_t from = all.r[a].offset_bytes, to = from + all.r[a].bytes;
          if (from < cuts[i]) from = cuts[i];
          if (to > cuts[j]) to = cuts[j];
          if (from < to) assert_range(&some, at++, from, to - from, false);
        }
        assert_int_equal(at, some.count);
      }
  }
  int calls = 0;
  assert_int_equal(sr_volume_ranges(w->p, "v", 0, end, stop_at_once, &calls), 77);
  assert_int_equal(sr_volume_ranges(w->p, "v", 512, end, stop_at_once, &calls), -EINVAL);
  assert_int_equal(sr_volume_ranges(w->p, "v", UINT64_MAX, 2, stop_at_once, &calls), -EINVAL);
  assert_int_equal(sr_volume_ranges(w->p, "none", 0, 1, stop_at_once, &calls), -ENOENT);
}

static void t_snapshots(void **state) { on_all(state, snapshots_keep_what_was); }
static void t_clones(void **state) { on_all(state, clones_go_their_own_ways); }
static void t_space(void **state) { on_all(state, space_comes_back); }
static void t_nothing_left(void **state) { on_all(state, clones_leave_nothing); }
static void t_rollback(void **state) { on_all(state, rolled_back); }
static void t_resize(void **state) { on_all(state, resized); }
static void t_flatten(void **state) { on_all(state, flattened); }
static void t_diff(void **state) { on_all(state, differences); }
static void t_windows(void **state) { on_all(state, windows); }

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {TEST(t_snapshots),    TEST(t_clones),   TEST(t_space),
                                     TEST(t_nothing_left), TEST(t_rollback), TEST(t_resize),
                                     TEST(t_flatten),      TEST(t_diff),     TEST(t_windows)};
  return cmocka_run_group_tests_name("volume_data", tests, NULL, NULL);
}
