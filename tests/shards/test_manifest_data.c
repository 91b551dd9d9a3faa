/* test_manifest_data.c - data that was overwritten where it lies: what must be flushed, and when
 * its waiters are done. */
#include "tests/shards/vrig.h"

#include "shards/manifest_internal.h"

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
    vrig_in_place(&v, i);
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
    struct mwaiter first = {.done = true}, second, third;
    struct mseal s;
    vrig_open(&v, 4096, MRIG_LOG, 42);
    uint64_t flushes = v.m.disk.flushes;
    vrig_in_place(&v, 0);
    if (seal)
      mrig_seal(&v.m, &s);
    else
      mrig_commit_start(&v.m, &first);
    manifest_tick(v.m.m);
    assert_int_equal(v.m.disk.count, 1); /* the flush is on its way */
    vrig_in_place(&v, 1);
    mrig_commit_start(&v.m, &second);
    for (int i = 0; seal ? !s.done : !first.done; i++) {
      assert_true(i < 1000);
      mrig_step(&v.m);
    }
    assert_false(second.done);
    assert_true(manifest_dirty(v.m.m));
    mrig_commit_start(&v.m, &third); /* for the same data: not yet */
    assert_false(third.done);
    if (seal) {
      assert_true(s.seal.dirty && !s.seal.flushed);
      mrig_adopt_root(&v.m, &s);
      manifest_root_durable(v.m.m, s.seal.epoch, 0);
      assert_false(second.done);
      assert_true(manifest_dirty(v.m.m));
    }
    mrig_drain(&v.m);
    assert_true(second.done && second.result == 0 && third.done && third.result == 0);
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
  vrig_in_place(&v, 0);
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
  vrig_in_place(&v, 0);
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
  vrig_in_place(&v, 0);
  assert_int_equal(mrig_commit(&v.m), 0); /* without a frame behind the other commit's */
  vrig_in_place(&v, 0);
  s.done = false;
  s.seal.epoch = ++v.m.epoch;
  manifest_seal(v.m.m, &s.seal);
  mrig_wait_seal(&v.m, &s);
  assert_true(s.seal.dirty && !s.seal.flushed);
  mrig_adopt_root(&v.m, &s);
  manifest_root_durable(v.m.m, s.seal.epoch, 0);
  vrig_assert_recovers(&v);
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
  vrig_set_one(&v, 5, 1, 1);
  vrig_in_place(&v, 0);
  mrig_commit_start(&v.m, &w[0]);
  vrig_set_one(&v, 5, 2, 1);
  vrig_in_place(&v, 1);
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
  assert_true(vrig_get(v.m.m, 5, 2).valid != 0);
  mrig_close(&v.m);
}

/* Behind a batch no commit is made, of data neither: a root does it. */
static void test_data_behind_a_batch(void **state) {
  (void)state;
  struct vrig v;
  struct mwaiter w;
  vrig_open(&v, 4096, MRIG_LOG, 45);
  vrig_set_one(&v, 5, 1, 1);
  manifest_note_batch(v.m.m);
  vrig_in_place(&v, 0);
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
  vrig_in_place(&v, 0);
  v.m.disk.fail_flush_in = 1;
  mrig_commit_start(&v.m, &w);
  mrig_drain(&v.m);
  assert_true(w.done);
  assert_int_equal(w.result, -EIO);
  assert_true(manifest_dirty(v.m.m));
  assert_int_equal(manifest_reserve_map(v.m.m, 1, true), -EIO);
  assert_int_equal(manifest_reserve_record(v.m.m, vrig_key(1), 10), -EIO);
  vrig_crash(&v);
  mrig_close(&v.m);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_data_alone_needs_one_flush),
      cmocka_unit_test(test_data_during_a_flush),
      cmocka_unit_test(test_seal_of_data),
      cmocka_unit_test(test_data_beside_changes),
      cmocka_unit_test(test_data_behind_a_batch),
      cmocka_unit_test(test_data_whose_flush_fails),
  };
  return cmocka_run_group_tests_name("manifest_data", tests, NULL, NULL);
}
