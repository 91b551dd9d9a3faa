/* test_batch.c - atomic batches through the public interface: what they do, what they refuse, and
 * that after a crash a batch is there in full or not at all. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/api/fixture.h"

/* Parts of a batch, in memory of their own. */
struct parts {
  struct sr_request *request;
  struct sr_request **list;
  uint32_t count;
};
static struct parts make_parts(uint32_t max) {
  struct parts p = {aligned_alloc(64, max * sizeof(struct sr_request)),
                    calloc(max, sizeof(struct sr_request *)), 0};
  assert_true(p.request && p.list);
  return p;
}
static void free_parts(struct parts *p) {
  free(p->request);
  free(p->list);
}
static void add_part(struct parts *p, uint32_t op, struct sr_id id, const void *buf,
                     uint64_t bytes) {
  struct sr_request *r = &p->request[p->count];
  *r = request_of_op(op, 0, (void *)(uintptr_t)buf, bytes);
  r->id = id;
  p->list[p->count++] = r;
}
static void add_put(struct parts *p, uint64_t id, const char *value) {
  add_part(p, SR_OP_PUT, id_of(id), value, strlen(value));
}
static void add_delete(struct parts *p, uint64_t id) {
  add_part(p, SR_OP_DELETE, id_of(id), NULL, 0);
}

static void assert_value(struct sr_port *p, uint64_t id, const char *value) {
  char out[32] = "";
  int64_t n = sr_get(p, id_of(id), out, 0, sizeof out);
  if (!value) {
    assert_int_equal(n, -ENOENT);
    return;
  }
  assert_int_equal(n, strlen(value));
  assert_string_equal(out, value);
}

/* ---- What a batch does ---------------------------------------------------------------------- */

static void puts_and_deletes(struct sr_store *s) {
  struct sr_port *p = open_port(s);
  struct parts b = make_parts(8);
  assert_int_equal(sr_put(p, id_of(1), "old", 3, 0), 0);
  assert_int_equal(sr_put(p, id_of(2), "old", 3, 0), 0);
  add_put(&b, 1, "new");
  add_delete(&b, 2);
  add_put(&b, 3, "");
  add_put(&b, 4, "first");
  add_put(&b, 4, "last");
  add_put(&b, 5, "gone");
  add_delete(&b, 5);
  add_delete(&b, 6);
  assert_int_equal(sr_batch(p, b.list, b.count, 0), 0);
  for (uint32_t i = 0; i < 7; i++) assert_int_equal(b.request[i].result, 0);
  assert_int_equal(b.request[7].result, -ENOENT);
  assert_true(sr_needs_flush(s));
  assert_value(p, 1, "new");
  assert_value(p, 2, NULL);
  assert_value(p, 3, "");
  assert_value(p, 4, "last");
  assert_value(p, 5, NULL);
  assert_int_equal(sr_count(p), 3);
  assert_int_equal(sr_flush(p), 0);
  assert_false(sr_needs_flush(s));
  assert_int_equal(sr_port_close(p), 0);
  free_parts(&b);
}

static void a_batch_in_memory(void **state) {
  struct fixture *f = *state;
  snprintf(f->where, sizeof f->where, "mem:64M:4");
  struct sr_store *s = open_store(f);
  puts_and_deletes(s);
  assert_int_equal(sr_store_close(s), 0);
}

static void a_batch_in_files_is_there_after_a_crash(void **state) {
  struct fixture *f = *state;
  format_store(f, 4, 16 * MIB);
  struct sr_store *s = open_store(f);
  puts_and_deletes(s);
  sr_store_abandon(s);
  s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_value(p, 1, "new");
  assert_value(p, 2, NULL);
  assert_value(p, 3, "");
  assert_value(p, 4, "last");
  assert_int_equal(sr_count(p), 3);
  close_both(s, p);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {
      TEST(a_batch_in_memory),
      TEST(a_batch_in_files_is_there_after_a_crash),
  };
  cmocka_set_test_filter(getenv("CMOCKA_FILTER"));
  return cmocka_run_group_tests(tests, NULL, NULL);
}
