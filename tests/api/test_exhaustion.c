/* test_exhaustion.c - each call by which format, open and grow ask for memory, threads,
 * descriptors, reads, writes or flushes fails, one after the other: alone, and with all that
 * come after it. The error is the right one, nothing is leaked, no blob is lost, and the next try
 * works. The linker leads these calls here (--wrap in meson.build). Only the calling thread
 * and its cores run, so the n-th call is the same one each time, or nearly: all that is asserted
 * holds for any. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <cmocka.h>

#include "tests/api/fixture.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SLOW 1
#else
#define SLOW 0
#endif

/* ---- What fails --------------------------------------------------------------------------------
 */

enum kind { NOTHING, MEMORY, THREADS, DESCRIPTORS, LOOKS, READS, WRITES, FLUSHES };
static atomic_int armed, left, hits;
static bool from_then_on;
static const int error_of[] = {0, ENOMEM, EAGAIN, EMFILE, EIO, EIO, ENOSPC, EIO};

static bool fails(enum kind kind) {
  if (atomic_load(&armed) != (int)kind) return false;
  int n = atomic_fetch_sub(&left, 1);
  if (from_then_on ? n > 1 : n != 1) return false;
  atomic_fetch_add(&hits, 1);
  errno = error_of[kind];
  return true;
}
static void arm(enum kind kind, int nth, bool and_all_after) {
  from_then_on = and_all_after;
  atomic_store(&hits, 0);
  atomic_store(&left, nth);
  atomic_store(&armed, (int)kind);
}
static void disarm(void) { atomic_store(&armed, NOTHING); }

#define WRAP(kind, type, failed, name, arguments, values)                                          \
  type __real_##name arguments;                                                                    \
  type __wrap_##name arguments;                                                                    \
  type __wrap_##name arguments { return fails(kind) ? (failed) : __real_##name values; }

WRAP(MEMORY, void *, NULL, malloc, (size_t n), (n))
WRAP(MEMORY, void *, NULL, calloc, (size_t n, size_t each), (n, each))
WRAP(MEMORY, void *, NULL, realloc, (void *p, size_t n), (p, n))
WRAP(MEMORY, void *, NULL, aligned_alloc, (size_t to, size_t n), (to, n))
WRAP(MEMORY, void *, MAP_FAILED, mmap64, (void *at, size_t n, int p, int f, int fd, off_t o),
     (at, n, p, f, fd, o))
WRAP(THREADS, int, EAGAIN, pthread_create,
     (pthread_t * t, const pthread_attr_t *a, void *(*run)(void *), void *arg), (t, a, run, arg))
WRAP(DESCRIPTORS, int, -1, open64, (const char *path, int flags, int mode), (path, flags, mode))
WRAP(DESCRIPTORS, int, -1, eventfd, (unsigned n, int flags), (n, flags))
WRAP(LOOKS, int, -1, fstat64, (int fd, void *st), (fd, st))
WRAP(LOOKS, int, -1, fcntl64, (int fd, int op, void *arg), (fd, op, arg))
WRAP(READS, ssize_t, -1, pread64, (int fd, void *to, size_t n, off_t at), (fd, to, n, at))
WRAP(WRITES, ssize_t, -1, pwrite64, (int fd, const void *from, size_t n, off_t at),
     (fd, from, n, at))
WRAP(WRITES, int, -1, ftruncate64, (int fd, off_t n), (fd, n))
WRAP(WRITES, int, -1, fallocate64, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n))
WRAP(WRITES, int, -1, mkdir, (const char *path, unsigned mode), (path, mode))
WRAP(FLUSHES, int, -1, fdatasync, (int fd), (fd))
WRAP(FLUSHES, int, -1, fsync, (int fd), (fd))

/* ---- What is tried ----------------------------------------------------------------------------
 */

#define BLOBS 12u
static uint64_t bytes_of(uint32_t n) { return n * 1777; }

static struct sr_open_options small_options(struct fixture *f) {
  struct sr_open_options o = open_options(f);
  o.engine = "pool";
  o.arena_bytes = MIB;
  o.core_count = 1;
  o.no_pin = true;
  return o;
}
static struct sr_store *reopen(struct fixture *f) {
  struct sr_open_options o = small_options(f);
  struct sr_store *s = NULL;
  int r = sr_store_open(f->where, &o, &s);
  if (r) fail_msg("open: %s\n%s", strerror(-r), f->log);
  return s;
}

static int try_open_as(struct fixture *f, const struct sr_open_options *o) {
  struct sr_store *s = NULL;
  int r = sr_store_open(f->where, o, &s);
  disarm();
  assert_true(r == 0 ? s != NULL : s == NULL);
  if (s) assert_int_equal(sr_store_close(s), 0);
  return r;
}
static int try_open(struct fixture *f) {
  struct sr_open_options o = small_options(f);
  return try_open_as(f, &o);
}
static int try_open_read_only(struct fixture *f) {
  struct sr_open_options o = small_options(f);
  o.read_only = true;
  return try_open_as(f, &o);
}
static int try_memory(struct fixture *f) {
  struct sr_open_options o = small_options(f);
  int r;
  char where[sizeof f->where];
  memcpy(where, f->where, sizeof where);
  snprintf(f->where, sizeof f->where, "mem:64M:2");
  o.engine = NULL;
  r = try_open_as(f, &o);
  memcpy(f->where, where, sizeof where);
  return r;
}
static int try_grow(struct fixture *f) { return sr_grow(f->where, 2 * MIB, NULL); }

static int format_it(const char *where) {
  struct sr_format_options o = SR_FORMAT_OPTIONS_INIT;
  o.size_bytes = 40 * MIB;
  o.shards = 2;
  o.prealloc = SR_PREALLOC_SPARSE;
  return sr_format(where, &o);
}
static int try_format(struct fixture *f) { return format_it(f->where); }

/* ---- What holds after each try -----------------------------------------------------------------
 */

static uint32_t entries_of(const char *directory) {
  DIR *d = opendir(directory);
  uint32_t n = 0;
  assert_non_null(d);
  while (readdir(d)) n++;
  closedir(d);
  return n;
}

/* All blobs are there, and (looked at now and then, since it takes a flush) new ones can be put. */
static void assert_blobs(struct fixture *f) {
  static uint32_t turns;
  char in[BLOBS * 1777], out[BLOBS * 1777];
  struct sr_open_options o = small_options(f);
  struct sr_store *s = NULL;
  o.read_only = turns++ % 16 != 0;
  int r = sr_store_open(f->where, &o, &s);
  if (r) fail_msg("open: %s\n%s", strerror(-r), f->log);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_count(p), BLOBS);
  for (uint32_t n = 0; n < BLOBS; n++) {
    fill_bytes(in, bytes_of(n), n);
    assert_int_equal(sr_get(p, id_of(n), out, 0, sizeof out), bytes_of(n));
    assert_memory_equal(in, out, bytes_of(n));
  }
  fill_bytes(in, bytes_of(1), 1);
  for (uint32_t n = 0; n < 2 && !o.read_only; n++)
    assert_int_equal(sr_put(p, id_of(1), n ? in : "", n ? bytes_of(1) : 0, 0), 0);
  close_both(s, p);
}
static void make_blobs(struct fixture *f) {
  char in[BLOBS * 1777];
  assert_int_equal(format_it(f->where), 0);
  struct sr_store *s = reopen(f);
  struct sr_port *p = open_port(s);
  for (uint32_t n = 0; n < BLOBS; n++) {
    fill_bytes(in, bytes_of(n), n);
    assert_int_equal(sr_put(p, id_of(n), in, bytes_of(n), 0), 0);
    if (n == BLOBS / 2) assert_int_equal(sr_checkpoint(p), 0);
  }
  close_both(s, p);
}

/* The n-th call fails, for n = 1, 2, ... until there are no so many: how many failed tries ended in
 * an error. */
static uint32_t each_failure(struct fixture *f, enum kind kind, bool and_all_after,
                             int (*attempt)(struct fixture *),
                             void (*after)(struct fixture *, int)) {
  uint32_t refused = 0, descriptors = entries_of("/proc/self/fd"),
           threads = entries_of("/proc/self/task");
  for (int n = 1;; n++) {
    assert_true(n < 2000);
    arm(kind, n, and_all_after);
    int r = attempt(f);
    disarm();
    bool hit = atomic_load(&hits) > 0;
    if (r && r != -error_of[kind])
      fail_msg("kind %d, call %d: %s\n%s", kind, n, strerror(-r), f->log);
    if (!hit) assert_int_equal(r, 0);
    assert_int_equal(entries_of("/proc/self/fd"), descriptors);
    assert_int_equal(entries_of("/proc/self/task"), threads);
    after(f, r);
    refused += r != 0;
    if (!hit) return refused;
    n += and_all_after ? n / 2 : SLOW ? n / 8 : 0; /* the later ones differ little */
  }
}

static void after_open(struct fixture *f, int r) {
  (void)r;
  assert_blobs(f);
}
static void every_failure_of_an_open(void **state) {
  struct fixture *f = *state;
  make_blobs(f);
  for (int all = 0; all < 2; all++) {
    assert_true(each_failure(f, MEMORY, all, try_open, after_open) > (all ? 5 : 15));
    assert_true(each_failure(f, THREADS, all, try_open, after_open) > 0);
    assert_true(each_failure(f, DESCRIPTORS, all, try_open, after_open) > 2);
    assert_true(each_failure(f, LOOKS, all, try_open, after_open) > 2);
    assert_true(each_failure(f, READS, all, try_open, after_open) > 0);
    assert_true(each_failure(f, READS, all, try_open_read_only, after_open) > 0);
    assert_true(each_failure(f, MEMORY, all, try_open_read_only, after_open) > (all ? 5 : 15));
  }
}

static void after_memory(struct fixture *f, int r) {
  (void)f;
  assert_true(r == 0 || r == -ENOMEM || r == -EAGAIN || r == -EMFILE);
}
static void every_failure_of_an_open_in_memory(void **state) {
  for (int all = 0; all < 2; all++) {
    assert_true(each_failure(*state, MEMORY, all, try_memory, after_memory) > (all ? 5 : 15));
    assert_true(each_failure(*state, THREADS, all, try_memory, after_memory) == 1);
    assert_true(each_failure(*state, DESCRIPTORS, all, try_memory, after_memory) > 0);
  }
}

/* A failed format leaves no store, and no files either. */
static void after_format(struct fixture *f, int r) {
  struct sr_open_options o = small_options(f);
  struct sr_store *s = NULL;
  char command[800];
  if (r) {
    assert_int_not_equal(sr_store_open(f->where, &o, &s), 0);
    assert_null(s);
    assert_int_equal(entries_of(f->directory), 2);
    return;
  }
  s = reopen(f);
  assert_int_equal(sr_store_close(s), 0);
  snprintf(command, sizeof command, "rm -rf '%s'/*", f->directory);
  assert_int_equal(system(command), 0);
}
static void format_failures(struct fixture *f) {
  for (int all = 0; all < 2; all++) {
    assert_true(each_failure(f, MEMORY, all, try_format, after_format) > 2);
    assert_true(each_failure(f, DESCRIPTORS, all, try_format, after_format) > 1);
    assert_true(each_failure(f, LOOKS, all, try_format, after_format) > 1);
    assert_true(each_failure(f, WRITES, all, try_format, after_format) > 3);
    assert_true(each_failure(f, FLUSHES, all, try_format, after_format) > 0);
  }
}
static void every_failure_of_a_format(void **state) { format_failures(*state); }
static void every_failure_of_a_format_of_files(void **state) {
  struct fixture *f = *state;
  snprintf(f->where, sizeof f->where, "%s/a.img,%s/b.img", f->directory, f->directory);
  format_failures(f);
}

/* Grown or not, it opens with all that it had. */
static void every_failure_of_growing(void **state) {
  struct fixture *f = *state;
  make_blobs(f);
  for (int all = 0; all < 2; all++) {
    assert_true(each_failure(f, MEMORY, all, try_grow, after_open) > 2);
    assert_true(each_failure(f, DESCRIPTORS, all, try_grow, after_open) > 1);
    /* There are two copies of all that is read. */
    assert_true((each_failure(f, READS, all, try_grow, after_open) > 1) == all);
    assert_true(each_failure(f, WRITES, all, try_grow, after_open) > 1);
    assert_true(each_failure(f, FLUSHES, all, try_grow, after_open) > 0);
  }
}

/* ---- While it is open --------------------------------------------------------------------------
 */

#define SESSION_BLOBS 14u
struct session {
  struct sr_store *store;
  struct sr_port *port;
  uint64_t seed[SESSION_BLOBS], bytes[SESSION_BLOBS]; /* what must be there; seed 0: nothing */
  char *in, *out;
};
/* 0, or -ENOMEM and then nothing has changed. */
static void settle(struct session *s, uint32_t n, int r, uint64_t seed, uint64_t bytes) {
  if (r != 0 && r != -ENOMEM) fail_msg("blob %u: %s", n, strerror(-r));
  if (r) return;
  s->seed[n] = seed;
  s->bytes[n] = bytes;
}
static void session_put(struct session *s, uint32_t n, uint64_t seed, uint64_t bytes) {
  fill_bytes(s->in + 1, bytes, seed);
  settle(s, n, sr_put(s->port, id_of(n), s->in + 1, bytes, n % 3 ? 0 : SR_DURABLE), seed, bytes);
}
static void session_stream(struct session *s, uint32_t n, uint64_t seed, uint64_t bytes) {
  struct sr_stream *stream;
  int r = sr_stream_begin(s->port, id_of(n), 0, 0, &stream);
  fill_bytes(s->in, bytes, seed);
  if (r == 0) {
    for (uint64_t at = 0; r == 0 && at < bytes; at += bytes / 4)
      r = sr_stream_append(s->port, stream, s->in + at, bytes / 4);
    if (r == 0)
      r = sr_stream_commit(s->port, stream);
    else
      assert_int_equal(sr_stream_abort(s->port, stream), 0);
  }
  settle(s, n, r, seed, bytes);
}
static void session_check(struct session *s) {
  for (uint32_t n = 0; n < SESSION_BLOBS; n++) {
    int64_t r = sr_get(s->port, id_of(n), s->out, 0, MIB);
    if (r != (s->seed[n] ? (int64_t)s->bytes[n] : -ENOENT))
      fail_msg("blob %u: %lld, not %llu", n, (long long)r, (unsigned long long)s->bytes[n]);
    if (!s->seed[n]) continue;
    fill_bytes(s->in, s->bytes[n], s->seed[n]);
    assert_memory_equal(s->in, s->out, s->bytes[n]);
  }
}
static void session_work(struct session *s) {
  struct sr_cursor cursor = {{0}};
  struct sr_entry entries[4];
  struct sr_vacuum_result moved;
  int r;
  for (uint32_t n = 0; n < 10; n++) session_put(s, n, 100 + n, n * n * 4000);
  session_stream(s, 10, 200, 80000);
  session_stream(s, 11, 201, 700000);
  while ((r = sr_list(s->port, &cursor, entries, 4)) > 0) continue;
  assert_true(r == 0 || r == -ENOMEM);
  r = sr_delete(s->port, id_of(3), 0);
  if (s->seed[3] || r != -ENOENT) settle(s, 3, r, 0, 0);
  r = sr_checkpoint(s->port);
  assert_true(r == 0 || r == -ENOMEM);
  session_put(s, 4, 300, 9);
  session_stream(s, 5, 301, 40000);
  r = sr_vacuum(s->port, &moved);
  assert_true(r == 0 || r == -ENOMEM);
  assert_int_equal(sr_flush(s->port), 0);
}

static void memory_fails_while_open(void **state) {
  struct fixture *f = *state;
  struct session s = {.in = malloc(MIB + 1), .out = malloc(MIB)};
  bool hit = true;
  int n = 1;
  for (; hit; n += 1 + (SLOW ? n / 8 : 0)) {
    char command[800];
    snprintf(command, sizeof command, "rm -rf '%s'", f->where);
    assert_int_equal(system(command), 0);
    memset(s.seed, 0, sizeof s.seed);
    assert_int_equal(format_it(f->where), 0);
    s.store = reopen(f);
    s.port = open_port(s.store);
    arm(MEMORY, n, false);
    session_work(&s);
    disarm();
    hit = atomic_load(&hits) > 0;
    for (uint32_t i = 0; i < 12 && !hit; i++) assert_true(s.seed[i] || i == 3);
    session_check(&s);
    close_both(s.store, s.port);
    s.store = reopen(f);
    s.port = open_port(s.store);
    session_check(&s);
    close_both(s.store, s.port);
  }
  assert_true(n > 10);
  free(s.in), free(s.out);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
int main(int argc, char **argv) {
  if (argc > 1) cmocka_set_test_filter(argv[1]);
  const struct CMUnitTest tests[] = {
      TEST(every_failure_of_an_open),  TEST(every_failure_of_an_open_in_memory),
      TEST(every_failure_of_a_format), TEST(every_failure_of_a_format_of_files),
      TEST(every_failure_of_growing),  TEST(memory_fails_while_open),
  };
  return cmocka_run_group_tests_name("exhaustion", tests, NULL, NULL);
}
