/* test_batch_faults.c - atomic batches on a device that fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/api/faulty.h"
#include "tests/api/parts.h"

/* Puts the value into one id in each of these shards. */
static int batch_into(struct sr_store *s, struct sr_port *p, uint32_t first, uint32_t last,
                      const char *value, uint32_t flags) {
  struct parts b = make_parts(3);
  for (uint32_t i = first; i <= last; i++)
    add_part(&b, SR_OP_PUT, id_on_shard(s, i), value, strlen(value));
  int r = sr_batch(p, b.list, b.count, flags);
  free_parts(&b);
  return r;
}

/* What a batch put into shards 0 and 1 cannot become durable in 1: so it must not in 0 either,
 * although nothing is wrong there. Later flushes stop nobody else. */
static void a_failed_shard_takes_its_batches_with_it(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  format_store(f, 3, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  struct sr_id id[3];
  for (uint32_t i = 0; i < 3; i++) id[i] = id_on_shard(s, i);
  put_everywhere(s, p, "old");
  assert_int_equal(sr_flush(p), 0);
  assert_int_equal(batch_into(s, p, 0, 1, "new", 0), 0);
  assert_int_equal(sr_put(p, id[2], "new", 3, 0), 0);
  fail_io(IO_FLUSH, 2, 0);
  assert_int_equal(sr_flush(p), -EIO);
  fail_nothing();
  for (uint32_t i = 0; i < 3; i++) assert_value(p, id[i], "new");
  assert_int_equal(sr_put(p, id[0], "no", 2, 0), -EIO);
  assert_int_equal(sr_put(p, id[1], "no", 2, 0), -EIO);
  assert_int_equal(batch_into(s, p, 1, 2, "no", 0), -EIO);
  assert_value(p, id[2], "new");
  assert_int_equal(batch_into(s, p, 2, 2, "newer", SR_DURABLE),
                   -EIO); /* as any flush from now on */
  assert_value(p, id[2], "newer");
  assert_int_equal(sr_put(p, id[2], "newest", 6, SR_DURABLE), 0);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  s = open_store(f);
  p = open_port(s);
  assert_value(p, id[0], "old");
  assert_value(p, id[1], "old");
  assert_value(p, id[2], "newest");
  close_both(s, p);
}

/* A batch that a root names is none of a later failure's business, nor is one of a single shard. */
static void a_failed_shard_leaves_older_batches_alone(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  format_store(f, 3, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  put_everywhere(s, p, "older");
  assert_int_equal(batch_into(s, p, 0, 2, "old", SR_DURABLE), 0);
  for (uint32_t i = 0; i < 3; i++) assert_int_equal(batch_into(s, p, i, i, "new", 0), 0);
  fail_io(IO_FLUSH, 2, 0);
  assert_int_equal(sr_flush(p), -EIO);
  fail_nothing();
  assert_only_shard_1_stopped(f, s, p);
}

/* Who waits for a commit where a batch lies waits for a flush; it must hear of its failure. */
static void a_durable_put_beside_a_batch_hears_of_a_failed_flush(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  put_everywhere(s, p, "old");
  assert_int_equal(sr_checkpoint(p), 0); /* a flush that waits for its root */
  struct sr_store_stats a, b;
  assert_int_equal(sr_store_stats(p, &a), 0);
  assert_int_equal(batch_into(s, p, 0, 1, "new", 0), 0);
  assert_int_equal(sr_put(p, id_on_shard(s, 0), "newer", 5, SR_DURABLE), 0);
  assert_int_equal(sr_store_stats(p, &b), 0);
  assert_int_equal(b.durable_commits, a.durable_commits);
  assert_int_equal(b.epoch, a.epoch + 1);
  assert_int_equal(sr_put(p, id_on_shard(s, 0), "newer", 5, SR_DURABLE), 0); /* a commit again */
  assert_int_equal(sr_store_stats(p, &a), 0);
  assert_int_equal(a.durable_commits, b.durable_commits + 1);
  assert_int_equal(batch_into(s, p, 0, 1, "no", 0), 0);
  fail_io(IO_FLUSH, 2, 0);
  assert_int_equal(sr_put(p, id_on_shard(s, 0), "never", 5, SR_DURABLE), -EIO);
  fail_nothing();
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  s = open_store(f);
  p = open_port(s);
  assert_value(p, id_on_shard(s, 0), "newer");
  assert_value(p, id_on_shard(s, 1), "new");
  close_both(s, p);
}

/* A shard that has stopped outside of a flush, with half of a batch: the next flush stops who has
 * the other half. Those after it stop nobody. */
static void a_failed_commit_takes_a_later_batch_with_it(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  format_store(f, 4, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s), *other = open_port(s);
  put_everywhere(s, p, "old");
  assert_int_equal(sr_flush(p), 0);
  struct sr_request put = request_of_op(SR_OP_PUT, 0, "new", 3), *list[1] = {&put};
  put.id = id_on_shard(s, 1);
  put.flags = SR_DURABLE;
  atomic_store(&faults.polls, INT32_MAX);
  fail_io(IO_FLUSH, 2, 0);
  assert_int_equal(sr_port_submit(other, list, 1), 1);
  while (atomic_load(&faults.hits) == 0) usleep(100);
  assert_int_equal(batch_into(s, p, 0, 1, "newer", 0), 0); /* while the commit is on its way */
  atomic_store(&faults.polls, 0);
  assert_int_equal(sr_port_wait(other, -1), 1);
  assert_int_equal(sr_port_reap(other, list, 1), 1);
  assert_int_equal(put.result, -EIO);
  fail_nothing();
  assert_int_equal(sr_put(p, id_on_shard(s, 0), "newest", 6, 0), 0); /* goes on until the flush */
  assert_int_equal(sr_flush(p), -EIO);
  assert_int_equal(sr_put(p, id_on_shard(s, 0), "no", 2, 0), -EIO);
  assert_int_equal(batch_into(s, p, 2, 3, "new", 0), 0);
  assert_int_equal(sr_flush(p), -EIO);
  assert_int_equal(batch_into(s, p, 2, 3, "newer", 0), 0);
  assert_int_equal(sr_flush(p), -EIO);
  assert_int_equal(sr_port_close(p), 0);
  assert_int_equal(sr_port_close(other), 0);
  sr_store_abandon(s);
  s = open_store(f);
  p = open_port(s);
  for (uint32_t i = 0; i < 4; i++)
    if (i == 1)
      assert_value_of(p, id_on_shard(s, i), "old", "new"); /* nobody was promised the new one */
    else
      assert_value(p, id_on_shard(s, i), i < 2 ? "old" : "newer");
  close_both(s, p);
}

static void a_part_whose_data_cannot_be_written_fails_its_batch(void **state) {
  struct fixture *f = *state;
  struct store_config config = faulty_config(f);
  format_store(f, 3, 16 * MIB);
  struct sr_store *s = open_faulty(f, &config);
  struct sr_port *p = open_port(s);
  struct sr_space before, after;
  struct parts b = make_parts(3);
  put_everywhere(s, p, "old");
  assert_int_equal(sr_flush(p), 0);
  assert_int_equal(sr_space(p, &before), 0);
  for (uint32_t i = 0; i < 3; i++) add_part(&b, SR_OP_PUT, id_on_shard(s, i), "new", 3);
  fail_io(IO_WRITE, 2, 0);
  assert_int_equal(sr_batch(p, b.list, 3, 0), -EIO);
  fail_nothing();
  for (uint32_t i = 0; i < 3; i++) {
    assert_int_equal(b.request[i].result, i == 1 ? -EIO : -ECANCELED);
    assert_value(p, id_on_shard(s, i), "old");
  }
  assert_false(sr_needs_flush(s));
  assert_int_equal(sr_space(p, &after), 0);
  assert_int_equal(after.free_bytes, before.free_bytes);
  assert_int_equal(sr_batch(p, b.list, 3, SR_DURABLE), 0); /* no shard has stopped */
  for (uint32_t i = 0; i < 3; i++) assert_value(p, id_on_shard(s, i), "new");
  free_parts(&b);
  close_both(s, p);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {
      TEST(a_failed_shard_takes_its_batches_with_it),
      TEST(a_failed_shard_leaves_older_batches_alone),
      TEST(a_durable_put_beside_a_batch_hears_of_a_failed_flush),
      TEST(a_failed_commit_takes_a_later_batch_with_it),
      TEST(a_part_whose_data_cannot_be_written_fails_its_batch),
  };
  cmocka_set_test_filter(getenv("CMOCKA_FILTER"));
  return cmocka_run_group_tests(tests, NULL, NULL);
}
