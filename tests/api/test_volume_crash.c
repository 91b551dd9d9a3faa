/* test_volume_crash.c - what merges leave of removed snapshots, and what a crash leaves of changes
 * that concern several shards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/api/volume_world.h"

/* ---- Merges ---------------------------------------------------------------------------------- */

/* As backups do it: a snapshot a day, the oldest goes. What only removed ones had comes back. */
static void snapshots_in_rotation(struct world *w, const struct kind *k) {
  enum { DAYS = 12, KEPT = 3 };
  char name[16];
  create(w, k, "v", DISK);
  struct sr_block *b = open_block(w, "v", false);
  for (uint64_t day = 1; day <= DAYS; day++) {
    write_at(w, b, 0, 8 * PIECE, day);                  /* all of it every day */
    write_at(w, b, (8 + day) * PIECE, PIECE, day);      /* a part of it once */
    write_at(w, b, 30 * PIECE + day * 4096, 4096, day); /* a part of a cluster */
    snprintf(name, sizeof name, "day%02d", (int)day);
    assert_int_equal(sr_volume_snapshot(w->p, "v", name), 0);
    snprintf(name, sizeof name, "day%02d", (int)day - KEPT);
    if (day > KEPT) assert_int_equal(sr_volume_remove(w->p, name), 0);
  }
  assert_int_equal(stat_of(w, "v").depth, KEPT);
  uint64_t used = stat_of(w, "v").used_bytes + stat_of(w, "v").shared_bytes;
  assert_in_range(used, 20 * PIECE, (8 * KEPT + DAYS + 2 * KEPT + 1) * PIECE);
  for (int turn = 0; turn < 2; turn++) {
    for (uint64_t day = DAYS - KEPT + 1; day <= DAYS; day++) {
      snprintf(name, sizeof name, "day%02d", (int)day);
      expect_in(w, name, 0, 8 * PIECE, day);
      for (uint64_t d = 1; d <= DAYS; d++) {
        expect_in(w, name, (8 + d) * PIECE, PIECE, d <= day ? d : 0);
        expect_in(w, name, 30 * PIECE + d * 4096, 4096, d <= day ? d : 0);
      }
    }
    expect_at(w, b, 0, 8 * PIECE, DAYS);
    close_block(w, b);
    bool again = turn == 0 && reopen(w, k, false);
    b = open_block(w, "v", false);
    if (!again) break;
  }
  close_block(w, b);
}

/* The one that is left of several lies in the same shard as what it lies on, or in another. */
static void the_last_clone_inherits(struct world *w, const struct kind *k) {
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  struct sr_volume_info info;
  char buf[4096];
  create(w, k, "v", DISK);
  uint64_t before = free_bytes(w);
  write_in(w, "v", 0, DISK / 2, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s"), 0);
  o.on_shard = !k->striped;
  o.shard = (stat_of(w, "v").shard + 1) % k->shards;
  assert_int_equal(sr_volume_clone(w->p, "s", "c", &o), 0);
  write_in(w, "v", 0, DISK / 2 - PIECE, 2);
  write_in(w, "c", PIECE, PIECE, 3);
  assert_int_equal(sr_volume_remove(w->p, "s"), 0);
  assert_int_equal(sr_flush(w->p), 0);
  assert_int_equal(stat_of(w, "v").depth, 1);
  assert_int_equal(sr_volume_remove(w->p, "c"), 0);
  assert_int_equal(stat_of(w, "v").depth, 0);
  /* The merge is durable with this; is it without the removal that let it be? */
  struct sr_block *b = open_block(w, "v", false);
  pattern(buf, sizeof buf, 4, DISK - 4096);
  assert_int_equal(sr_block_write(w->p, b, buf, DISK - 4096, 4096, SR_DURABLE), 4096);
  close_block(w, b);
  for (int turn = 0; turn < 2; turn++) {
    expect_in(w, "v", 0, DISK / 2 - PIECE, 2);
    expect_in(w, "v", DISK / 2 - PIECE, PIECE, 1);
    expect_in(w, "v", DISK / 2, DISK / 2 - 4096, 0);
    expect_in(w, "v", DISK - 4096, 4096, 4);
    if (sr_volume_stat(w->p, "c", &info) == 0) {
      expect_in(w, "c", 0, PIECE, 1);
      expect_in(w, "c", PIECE, PIECE, 3);
      assert_int_equal(sr_volume_remove(w->p, "c"), 0);
    }
    if (!turn && reopen(w, k, true)) continue;
    wait_for_space(w, before - DISK / 2 - 4 * PIECE);
    break;
  }
}

/* ---- Crashes --------------------------------------------------------------------------------- */

/* A durable write after a change that concerns several shards: the change is there, too. */
static void durable_writes_take_changes_along(struct world *w, const struct kind *k) {
  char buf[4096];
  if (w->memory) return;
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  create(w, k, "v", DISK);
  write_in(w, "v", 0, PIECE, 1);
  assert_int_equal(sr_flush(w->p), 0);
  struct sr_block *b = open_block(w, "v", false);
  write_at(w, b, PIECE, PIECE, 2);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s"), 0);
  o.on_shard = !k->striped;
  o.shard = k->shards - 1;
  assert_int_equal(sr_volume_clone(w->p, "s", "c", &o), 0);
  struct sr_block *c = open_block(w, "c", false);
  pattern(buf, sizeof buf, 3, 0);
  /* In the last shard alone. */
  uint64_t at = k->striped ? (k->shards - 1) * PIECE : 0;
  pattern(buf, sizeof buf, 3, at);
  assert_int_equal(sr_block_write(w->p, c, buf, at, sizeof buf, SR_DURABLE), sizeof buf);
  close_block(w, c);
  close_block(w, b);
  reopen(w, k, true);
  expect_in(w, "c", at, 4096, 3);
  if (at) expect_in(w, "c", 0, PIECE, 1);
  expect_in(w, "c", PIECE, PIECE, 2);
  expect_in(w, "s", 0, PIECE, 1);
}

/* A commit of one shard alone, after removals that concern several. */
static void removed_and_committed(struct world *w, const struct kind *k, uint32_t shard) {
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT, other = SR_VOLUME_OPTIONS_INIT;
  create(w, k, "v", DISK);
  other.size_bytes = MIB;
  other.on_shard = true;
  other.shard = (stat_of(w, "v").shard + shard) % k->shards;
  assert_int_equal(sr_volume_create(w->p, "other", &other), 0);
  write_in(w, "v", 0, DISK / 2, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s"), 0);
  o.on_shard = !k->striped;
  o.shard = (stat_of(w, "v").shard + 1) % k->shards;
  assert_int_equal(sr_volume_clone(w->p, "s", "c", &o), 0);
  write_in(w, "c", 0, PIECE, 2);
  assert_int_equal(sr_flush(w->p), 0);
  assert_int_equal(sr_volume_remove(w->p, "v"), 0);
  assert_int_equal(sr_volume_remove(w->p, "c"), 0);
  assert_int_equal(sr_volume_remove(w->p, "s"), 0);
  char buf[4096];
  pattern(buf, sizeof buf, 9, 0);
  struct sr_block *b = open_block(w, "other", false);
  int64_t r = sr_block_write(w->p, b, buf, 0, sizeof buf, SR_DURABLE);
  assert_int_equal(r, sizeof buf);
  close_block(w, b);
  reopen(w, k, true);
  expect_in(w, "other", 0, 4096, 9);
  /* All of the removals, or a beginning of them: what is there is whole. */
  struct sr_volume_info info;
  if (sr_volume_stat(w->p, "s", &info) == 0) expect_in(w, "s", 0, DISK / 2, 1);
  if (sr_volume_stat(w->p, "v", &info) == 0) expect_in(w, "v", 0, DISK / 2, 1);
  if (sr_volume_stat(w->p, "c", &info) == 0) {
    expect_in(w, "c", 0, PIECE, 2);
    expect_in(w, "c", PIECE, DISK / 2 - PIECE, 1);
  }
}

static void unflushed_removal_is_undone(struct world *w, const struct kind *k) {
  if (w->memory) return;
  for (uint32_t shard = 0; shard < k->shards; shard++) {
    static const char *const names[] = {"v", "c", "s", "other"};
    removed_and_committed(w, k, shard);
    for (int i = 0; i < 4; i++) {
      int r = sr_volume_remove(w->p, names[i]);
      if (r != -ENOENT) assert_int_equal(r, 0);
    }
  }
}

static void t_rotation(void **state) { on_all(state, snapshots_in_rotation); }
static void t_inherits(void **state) { on_all(state, the_last_clone_inherits); }
static void t_durable(void **state) { on_all(state, durable_writes_take_changes_along); }
static void t_removal(void **state) { on_all(state, unflushed_removal_is_undone); }

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {TEST(t_rotation), TEST(t_inherits), TEST(t_durable),
                                     TEST(t_removal)};
  return cmocka_run_group_tests_name("volume_crash", tests, NULL, NULL);
}
