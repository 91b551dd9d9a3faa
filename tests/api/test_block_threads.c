/* test_block_threads.c - one handle of a file or of a volume in the hands of many threads: nothing
 * is lost, and no lock is taken; handles that only read. The linker leads the library's mutexes
 * here, to be counted. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/api/fixture.h"
#include "tests/random.h"

#define THREADS    6u
#define SECTORS    128u /* of each thread */
#define DISK_BYTES (THREADS * SECTORS * 512u)

static atomic_uint locks;

int __real_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m);
int __wrap_pthread_mutex_lock(pthread_mutex_t *m) {
  atomic_fetch_add(&locks, 1);
  return __real_pthread_mutex_lock(m);
}

struct worker {
  struct sr_port *port;
  struct sr_block *block;
  uint64_t last[SECTORS]; /* what each sector is full of */
  uint32_t number, failures;
};

static void fill_sector(char sector[512], uint64_t v) {
  for (int i = 0; i < 64; i++) memcpy(sector + i * 8, &v, 8);
}

/* Threads alternate sector by sector: all of them change the same 4 KiB blocks. */
static void *own_sectors(void *arg) {
  struct worker *w = arg;
  struct random r = {w->number + 1};
  char in[512], out[512];
  for (int i = 0; i < 1500; i++) {
    uint64_t k = random_below(&r, SECTORS), at = (k * THREADS + w->number) * 512;
    if (random_below(&r, 2)) {
      w->last[k] = random_next(&r) | 1;
      fill_sector(in, w->last[k]);
      w->failures += sr_block_write(w->port, w->block, in, at, 512, 0) != 512;
    } else {
      fill_sector(in, w->last[k]);
      w->failures += sr_block_read(w->port, w->block, out, at, 512) != 512;
      w->failures += memcmp(in, out, 512) != 0;
    }
  }
  return NULL;
}

static void expect_all(struct sr_port *p, struct sr_block *b,
                       const struct worker workers[THREADS]) {
  static char disk[DISK_BYTES];
  char want[512];
  assert_int_equal(sr_block_read(p, b, disk, 0, DISK_BYTES), DISK_BYTES);
  for (uint32_t t = 0; t < THREADS; t++)
    for (uint32_t k = 0; k < SECTORS; k++) {
      fill_sector(want, workers[t].last[k]);
      assert_memory_equal(disk + (size_t)(k * THREADS + t) * 512, want, 512);
    }
}

/* Returns how many locks were taken meanwhile. */
static uint32_t run_workers(struct sr_store *s, struct sr_port *p, struct sr_block *b) {
  static struct worker workers[THREADS];
  pthread_t threads[THREADS];
  memset(workers, 0, sizeof workers);
  for (uint32_t i = 0; i < THREADS; i++) {
    workers[i].port = open_port(s);
    workers[i].block = b;
    workers[i].number = i;
  }
  uint32_t before = atomic_load(&locks);
  assert_true(before > 0); /* of opening: they are counted */
  for (uint32_t i = 0; i < THREADS; i++)
    assert_int_equal(pthread_create(&threads[i], NULL, own_sectors, &workers[i]), 0);
  for (uint32_t i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
  uint32_t taken = atomic_load(&locks) - before;
  for (uint32_t i = 0; i < THREADS; i++) {
    assert_int_equal(workers[i].failures, 0);
    assert_int_equal(sr_port_close(workers[i].port), 0);
  }
  expect_all(p, b, workers);
  return taken;
}

static void make_file(const struct fixture *f, const char *name, uint64_t bytes, char path[400]) {
  snprintf(path, 400, "%s/%s", f->directory, name);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  assert_true(fd >= 0);
  assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
  close(fd);
}

static struct sr_store *open_with(struct fixture *f, const char *engine) {
  struct sr_open_options o = open_options(f);
  struct sr_store *s = NULL;
  o.engine = engine;
  o.core_count = 1;
  o.no_pin = true;
  assert_int_equal(sr_store_open(f->where, &o, &s), 0);
  return s;
}

/* The threads' engine has a lock of its own. */
static bool is_locked_engine(struct sr_port *p) {
  struct sr_core_stats stats;
  assert_int_equal(sr_core_stats(p, 0, &stats), 0);
  return strcmp(stats.engine, "uring") != 0;
}

static void many_threads_on_one_descriptor(void **state) {
  static const char *const engines[] = {"uring", "pool"};
  struct fixture *f = *state;
  format_store(f, 2, 16 * MIB);
  for (int i = 0; i < 2; i++) {
    struct sr_store *s = open_with(f, engines[i]);
    struct sr_port *p = open_port(s);
    struct sr_block *b;
    char path[400], name[32];
    make_file(f, engines[i], DISK_BYTES, path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(unlink(path), 0); /* the descriptor is all there is */
    snprintf(name, sizeof name, "fd:%d", fd);
    assert_int_equal(sr_block_open(p, name, NULL, &b), 0);
    uint32_t taken = run_workers(s, p, b);
    if (!is_locked_engine(p)) assert_int_equal(taken, 0);
    assert_int_equal(sr_block_flush(p, b), 0);
    assert_int_equal(sr_block_close(p, b), 0);
    assert_true(fcntl(fd, F_GETFD) >= 0); /* still the caller's */
    close(fd);
    close_both(s, p);
  }
}

static void many_threads_on_one_volume(void **state) {
  struct fixture *f = *state;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct sr_block *b;
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_with(f, "uring");
  struct sr_port *p = open_port(s);
  v.size_bytes = DISK_BYTES;
  assert_int_equal(sr_volume_create(p, "v", &v), 0);
  assert_int_equal(sr_volume_open(p, "v", NULL, &b), 0);
  uint32_t taken = run_workers(s, p, b);
  if (!is_locked_engine(p)) assert_int_equal(taken, 0);
  assert_int_equal(sr_block_close(p, b), 0);
  close_both(s, p);
}

static void expect_no_change(struct sr_port *p, struct sr_block *b, bool volume) {
  char sector[4096] = "new";
  assert_true(sr_block_read_only(b));
  assert_int_equal(sr_block_write(p, b, sector, 0, 512, 0), -EROFS);
  assert_int_equal(sr_block_write(p, b, sector, 0, 4096, SR_DURABLE), -EROFS);
  assert_int_equal(sr_block_write_zeroes(p, b, 0, 512, 0), -EROFS);
  assert_int_equal(sr_block_discard(p, b, 0, 4096), -EROFS);
  assert_int_equal(sr_block_read(p, b, sector, 0, 512), 512);
  assert_string_equal(sector, volume ? "of the volume" : "of the file");
  assert_int_equal(sr_block_flush(p, b), 0);
}

static void who_only_reads_changes_nothing(void **state) {
  struct fixture *f = *state;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct sr_block_options read_only = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *b, *writer;
  char path[400], name[32], sector[512] = "of the file";
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_with(f, "uring");
  struct sr_port *p = open_port(s);
  read_only.read_only = true;
  make_file(f, "disk", MIB, path);
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  assert_int_equal(pwrite(fd, sector, 512, 0), 512);
  close(fd);
  assert_int_equal(sr_block_open(p, path, &read_only, &b), 0);
  expect_no_change(p, b, false);
  assert_int_equal(sr_block_close(p, b), 0);
  fd = open(path, O_RDONLY | O_CLOEXEC); /* cannot be written to, so it must be said */
  snprintf(name, sizeof name, "fd:%d", fd);
  assert_int_equal(sr_block_open(p, name, NULL, &b), -EBADF);
  assert_int_equal(sr_block_open(p, name, &read_only, &b), 0);
  expect_no_change(p, b, false);
  assert_int_equal(sr_block_close(p, b), 0);
  close(fd);

  memcpy(sector, "of the volume", 14);
  v.size_bytes = MIB;
  assert_int_equal(sr_volume_create(p, "v", &v), 0);
  assert_int_equal(sr_volume_open(p, "v", NULL, &writer), 0);
  assert_int_equal(sr_block_write(p, writer, sector, 0, 512, 0), 512);
  assert_int_equal(sr_volume_open(p, "v", &read_only, &b), 0); /* beside the one that writes */
  expect_no_change(p, b, true);
  assert_int_equal(sr_block_close(p, b), 0);
  assert_int_equal(sr_volume_snapshot(p, "v", "s"), 0);
  assert_int_equal(sr_volume_open(p, "s", NULL, &b), -EROFS);
  assert_int_equal(sr_volume_open(p, "s", &read_only, &b), 0);
  expect_no_change(p, b, true);
  assert_int_equal(sr_block_close(p, b), 0);
  assert_int_equal(sr_block_close(p, writer), 0);
  close_both(s, p);
}

/* A file has no space to give back; zeros are written. */
static void files_are_zeroed_by_writing(void **state) {
  struct fixture *f = *state;
  struct sr_block *b;
  static char in[65536], out[65536];
  char path[400];
  format_store(f, 1, 16 * MIB);
  struct sr_store *s = open_with(f, "uring");
  struct sr_port *p = open_port(s);
  make_file(f, "disk", MIB, path);
  assert_int_equal(sr_block_open(p, path, NULL, &b), 0);
  fill_bytes(in, sizeof in, 7);
  assert_int_equal(sr_block_write(p, b, in, 0, sizeof in, 0), sizeof in);
  assert_int_equal(sr_block_discard(p, b, 0, 4096), -EOPNOTSUPP);
  assert_int_equal(sr_block_write_zeroes(p, b, 512, 40000 / 512 * 512, SR_DURABLE),
                   40000 / 512 * 512);
  memset(in + 512, 0, 40000 / 512 * 512);
  assert_int_equal(sr_block_read(p, b, out, 0, sizeof out), sizeof out);
  assert_memory_equal(in, out, sizeof in);
  assert_int_equal(sr_block_close(p, b), 0);
  close_both(s, p);
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {
      TEST(many_threads_on_one_descriptor), TEST(many_threads_on_one_volume),
      TEST(who_only_reads_changes_nothing), TEST(files_are_zeroed_by_writing)};
  return cmocka_run_group_tests_name("block_threads", tests, NULL, NULL);
}
