/* test_scrub.c - the background scrub: beside writers it finds nothing that is not there, what is
 * there it names once, it keeps to its rate. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <sys/mman.h>

#include "tests/api/fixture.h"
#include "tests/api/image.h"
#include "tests/random.h"

struct told {
  struct fixture *f;
  uint32_t count;
  struct sr_damage last;
  char where[300], what[300];
};
static void tell(void *arg, const struct sr_damage *d) {
  struct told *t = arg;
  t->count++;
  t->last = *d;
  snprintf(t->where, sizeof t->where, "%s", d->where ? d->where : "");
  snprintf(t->what, sizeof t->what, "%s", d->what);
}

static struct sr_store *open_telling(struct fixture *f, struct told *t, uint64_t rate) {
  struct sr_open_options o = open_options(f);
  struct sr_store *s = NULL;
  *t = (struct told){.f = f};
  o.damage = tell;
  o.damage_arg = t;
  o.scrub_bytes_per_second = rate;
  assert_int_equal(sr_store_open(f->where, &o, &s), 0);
  return s;
}

static struct sr_scrub_status scrub_once(struct sr_port *p) {
  struct sr_scrub_status st;
  assert_int_equal(sr_scrub_start(p, NULL), 0);
  do {
    usleep(1000);
    assert_int_equal(sr_scrub_status(p, &st), 0);
  } while (st.running);
  return st;
}

static void put_filled(struct sr_port *p, uint64_t id, uint64_t bytes, uint64_t seed,
                       uint32_t flags) {
  char *buf = malloc(bytes + 1);
  fill_bytes(buf, bytes, seed);
  assert_int_equal(sr_put(p, id_of(id), buf, bytes, flags), 0);
  free(buf);
}

/* ---- Nothing is wrong ------------------------------------------------------------------------ */

/* Passes one after the other while everything is overwritten, deleted, moved, checkpointed. */
static void writers_are_no_damage(void **state) {
  struct fixture *f = *state;
  struct told t;
  struct random r = {5};
  struct sr_scrub_options o = SR_SCRUB_OPTIONS_INIT;
  struct sr_scrub_status st = {0};
  struct sr_vacuum_result v;
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_telling(f, &t, 0);
  struct sr_port *p = open_port(s);
  for (uint64_t i = 0; i < 40; i++) put_filled(p, i, 1 + random_below(&r, 300000), i, 0);
  o.continuous = true;
  assert_int_equal(sr_scrub_start(p, &o), 0);
  assert_int_equal(sr_scrub_start(p, &o), -EBUSY);
  for (uint64_t n = 0; n < 600 || st.passes < 5; n++) {
    uint64_t id = random_below(&r, 40);
    if (n % 7 == 3)
      (void)sr_delete(p, id_of(id), 0);
    else
      put_filled(p, id, 1 + random_below(&r, n % 50 ? 60000 : 1500000), n, n % 11 ? 0 : SR_DURABLE);
    if (n % 40 == 0) assert_int_equal(sr_flush(p), 0);
    if (n % 150 == 99) assert_int_equal(sr_checkpoint(p), 0);
    if (n % 300 == 199) assert_int_equal(sr_vacuum(p, &v), 0);
    assert_int_equal(sr_scrub_status(p, &st), 0);
  }
  assert_true(st.running);
  assert_int_equal(sr_scrub_stop(p), 0);
  for (int i = 0; st.running; i++) {
    assert_true(i < 10000);
    usleep(1000);
    assert_int_equal(sr_scrub_status(p, &st), 0);
  }
  assert_int_equal(sr_scrub_stop(p), 0);
  if (t.count) print_error("%s: %s\n", t.where, t.what);
  assert_int_equal(t.count, 0);
  st = scrub_once(p);
  assert_int_equal(st.checked_blobs, sr_count(p));
  assert_int_equal(st.damaged_blobs + st.damaged_metadata + st.unreadable, 0);
  assert_true(st.done_bytes > 0);
  close_both(s, p);
}

/* Blobs of every kind of length, in one extent and in many, large granules, none at all. */
static void all_kinds_of_blobs(void **state) {
  struct fixture *f = *state;
  static const uint64_t sizes[] = {0,      1,      511,     4095,    4096,    4097,
                                   131072, 131073, 1048576, 1048577, 2500000, 4194304};
  struct told t;
  format_store(f, 1, 64 * MIB);
  struct sr_store *s = open_telling(f, &t, 0);
  struct sr_port *p = open_port(s);
  for (uint64_t i = 0; i < 300; i++) put_filled(p, 1000 + i, 30000, i, 0);
  for (uint64_t i = 0; i < 300; i += 2) assert_int_equal(sr_delete(p, id_of(1000 + i), 0), 0);
  assert_int_equal(sr_flush(p), 0); /* holes: what follows is cut into pieces where it must be */
  for (uint32_t i = 0; i < sizeof sizes / sizeof *sizes; i++) put_filled(p, i, sizes[i], i, 0);
  put_filled(p, 50, 30000000, 50, 0);
  put_filled(p, 51, 100000, 51, SR_NO_CHECKSUM);
  assert_int_equal(sr_put(p, id_of(52), NULL, 5000, SR_RESERVE), 0);
  struct sr_scrub_status st = scrub_once(p);
  assert_int_equal(t.count, 0);
  assert_int_equal(st.checked_blobs, sr_count(p));
  assert_int_equal(st.unverified_blobs, 2);
  assert_true(st.done_bytes >= 30000000);
  close_both(s, p);
}

/* ---- Something is wrong ---------------------------------------------------------------------- */

/* Finds bytes in a packed file and changes one of them; its place. */
static uint64_t spoil(struct fixture *f, uint32_t shard, const void *what, size_t bytes, char bit) {
  char path[800];
  struct stat st;
  snprintf(path, sizeof path, "%s/shard-%04u", f->where, shard);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  assert_true(fd >= 0);
  assert_int_equal(fstat(fd, &st), 0);
  char *at = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  assert_true(at != MAP_FAILED);
  char *place = memmem(at, (size_t)st.st_size, what, bytes);
  assert_non_null(place);
  uint64_t offset = (uint64_t)(place - at);
  *place = (char)(*place ^ bit);
  assert_int_equal(msync(at, (size_t)st.st_size, MS_SYNC), 0);
  munmap(at, (size_t)st.st_size);
  close(fd);
  return offset;
}

static void a_damaged_blob_is_named_once(void **state) {
  struct fixture *f = *state;
  struct told t;
  struct sr_store_stats ss;
  char *data = malloc(200000), *back = malloc(200000);
  format_store(f, 1, 16 * MIB);
  struct sr_store *s = open_telling(f, &t, 0);
  struct sr_port *p = open_port(s);
  fill_bytes(data, 200000, 77);
  assert_int_equal(sr_put(p, id_of(7), data, 200000, 0), 0);
  for (uint64_t i = 100; i < 120; i++) put_filled(p, i, 9000, i, 0);
  assert_int_equal(sr_flush(p), 0);
  uint64_t place = spoil(f, 0, data + 150000, 64, 4);
  for (int pass = 0; pass < 3; pass++) {
    struct sr_scrub_status st = scrub_once(p);
    assert_int_equal(st.damaged_blobs, 1);
    assert_int_equal(st.damaged_metadata, 0);
    assert_int_equal(st.checked_blobs, 21);
    assert_int_equal(t.count, 1); /* told once, however often it is found */
  }
  assert_int_equal(t.last.kind, SR_DAMAGE_BLOB);
  assert_int_equal(t.last.error, -EBADMSG);
  assert_int_equal(t.last.shard, 0);
  assert_int_equal(t.last.id.lo, 7);
  assert_non_null(strstr(t.where, "shard-0000"));
  assert_true(place >= t.last.offset_bytes && place < t.last.offset_bytes + t.last.bytes);
  char *line = strstr(f->log, "5eed0000000000000007");
  assert_non_null(line);
  assert_null(strstr(line + 1, "5eed0000000000000007"));
  assert_int_equal(sr_store_stats(p, &ss), 0);
  assert_int_equal(ss.damaged_blobs, 1);
  /* The store goes on, the rest of the blob, too. */
  assert_int_equal(sr_get(p, id_of(7), back, 0, 8192), 8192);
  assert_int_equal(sr_get(p, id_of(7), back, 0, 200000), -EBADMSG);
  put_filled(p, 300, 9000, 300, 0);
  assert_int_equal(sr_put(p, id_of(7), data, 200000, 0), 0);
  assert_int_equal(scrub_once(p).damaged_blobs, 0);
  close_both(s, p);
  free(data);
  free(back);
}

/* Behind a blob's end, in its last block, there are zeros: no checksum covers them. */
static void bytes_behind_a_blob(void **state) {
  struct fixture *f = *state;
  struct told t;
  char tail[64 + 32] = {0};
  format_store(f, 1, 16 * MIB);
  struct sr_store *s = open_telling(f, &t, 0);
  struct sr_port *p = open_port(s);
  char *data = malloc(5000);
  fill_bytes(data, 5000, 3);
  assert_int_equal(sr_put(p, id_of(3), data, 5000, 0), 0);
  memcpy(tail, data + 5000 - 64, 64);
  char path[800];
  uint64_t at = spoil(f, 0, tail, sizeof tail, 0) + 64 + 20;
  snprintf(path, sizeof path, "%s/shard-0000", f->where);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  assert_int_equal(pwrite(fd, "x", 1, (off_t)at), 1);
  close(fd);
  assert_int_equal(scrub_once(p).damaged_blobs, 1);
  assert_non_null(strstr(t.what, "behind the blob's end"));
  assert_int_equal(sr_get(p, id_of(3), data, 0, 5000), 5000); /* the blob itself is whole */
  close_both(s, p);
  free(data);
}

/* ---- The rate -------------------------------------------------------------------------------- */

static void it_keeps_to_its_rate(void **state) {
  struct fixture *f = *state;
  const uint64_t rate = 4 * MIB, tick_ns = 5000000;
  struct image x;
  struct sr_scrub_status st = {0};
  struct sr_scrub_options o = SR_SCRUB_OPTIONS_INIT;
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  for (uint64_t i = 0; i < 200; i++) put_filled(p, i, 40000, i, 0);
  close_both(s, p);
  image_load(&x, f->where);
  assert_int_equal(image_open(&x, DAMAGED_REFUSE), 0);
  o.bytes_per_second = rate;
  uint64_t begin = x.now_ns;
  assert_int_equal(sr_scrub_start(x.port, &o), 0);
  for (int i = 0; st.running || i == 0; i++) {
    assert_true(i < 100000);
    for (int k = 0; k < 20; k++) store_step(x.store);
    assert_int_equal(sr_scrub_status(x.port, &st), 0);
    uint64_t may = (uint64_t)((x.now_ns - begin) / 1e9 * (double)rate) + MIB;
    assert_true(st.done_bytes <= may);
    if (st.running) x.now_ns += tick_ns;
  }
  assert_true(st.done_bytes > 8 * MIB - MIB);
  double seconds = (double)(x.now_ns - begin) / 1e9;
  double fair = (double)st.done_bytes / (double)rate;
  assert_true(seconds > fair * 0.8 && seconds < fair * 1.5);
  assert_int_equal(x.report_count, 0);
  image_close(&x);
  image_free(&x);
}

/* An open option makes it run all the time; the store closes while it runs. */
static void continuous_from_the_open_on(void **state) {
  struct fixture *f = *state;
  struct told t;
  struct sr_scrub_status st = {0};
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_telling(f, &t, 1000 * MIB);
  struct sr_port *p = open_port(s);
  for (uint64_t i = 0; i < 30; i++) put_filled(p, i, 20000, i, 0);
  for (int i = 0; st.passes < 3; i++) {
    assert_true(i < 20000);
    usleep(1000);
    assert_int_equal(sr_scrub_status(p, &st), 0);
    assert_true(st.running);
  }
  assert_int_equal(t.count, 0);
  close_both(s, p);
}

static void refusals(void **state) {
  struct fixture *f = *state;
  struct sr_open_options o = open_options(f);
  struct sr_store *s = NULL;
  struct sr_scrub_status st;
  format_store(f, 1, 16 * MIB);
  o.damaged = SR_DAMAGED_SKIP;
  assert_int_equal(sr_store_open(f->where, &o, &s), -EINVAL); /* not read-only */
  o.read_only = true;
  o.damaged = SR_DAMAGED_SEARCH + 1;
  assert_int_equal(sr_store_open(f->where, &o, &s), -EINVAL);
  assert_int_equal(sr_scrub_start(NULL, NULL), -EINVAL);
  assert_int_equal(sr_scrub_status(NULL, &st), -EINVAL);
  assert_int_equal(sr_scrub_stop(NULL), -EINVAL);
  s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_scrub_status(p, NULL), -EINVAL);
  assert_int_equal(sr_scrub_status(p, &st), 0);
  assert_false(st.running);
  assert_int_equal(st.passes, 0);
  close_both(s, p);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(writers_are_no_damage, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(all_kinds_of_blobs, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(a_damaged_blob_is_named_once, fixture_setup,
                                      fixture_teardown),
      cmocka_unit_test_setup_teardown(bytes_behind_a_blob, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(it_keeps_to_its_rate, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(continuous_from_the_open_on, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(refusals, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
