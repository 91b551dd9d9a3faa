/* test_survivors.c - processes that are killed with what they had not made durable: with
 * sr_open_options.memory_dir nothing that had completed is lost. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "shards/manifest.h"
#include "tests/api/fixture.h"

#define DIRECTORY MEMORY_DIRECTORY
#define SHARDS    3u
#define BLOBS     4000u
#define BLOCKS    2048u /* of each volume */

/* What is done is a function of (seed, step), so that the parent knows it from how far the child
 * says it came. */
struct progress { /* shared with the child */
  volatile uint64_t steps;
};

static struct sr_open_options survivor_options(struct fixture *f) {
  struct sr_open_options o = open_options(f);
  o.memory_dir = DIRECTORY;
  o.core_count = 2;
  o.no_pin = true;
  return o;
}

/* A step: a put of a blob, a delete of an older one, a write to a volume, a discard. */
static void step(struct sr_port *p, struct sr_block *volumes[2], uint64_t n, char *buf) {
  switch (n % 5) {
  case 0:
  case 1:
    memset(buf, (int)n, 5000);
    assert_int_equal(sr_put(p, id_of(n % BLOBS), buf, 1000 + n % 4000, 0), 0);
    break;
  case 2:
    sr_delete(p, id_of((n - 2) / 2 % BLOBS), 0);
    break;
  default:
    memset(buf, (int)(n >> 3), 4096);
    assert_int_equal(sr_block_write(p, volumes[n % 2], buf, n * 7919 % BLOCKS * 4096, 4096, 0),
                     4096);
    if (n % 35 == 4) {
      assert_int_equal(sr_block_discard(p, volumes[n % 2], n * 31 % BLOCKS * 4096, 8192), 8192);
    }
  }
}

struct model {
  uint32_t blob_bytes[BLOBS]; /* 0: none */
  uint8_t blob[BLOBS];
  uint8_t block[2][BLOCKS + 1];
};

static void step_model(struct model *m, uint64_t n) {
  uint64_t b;
  switch (n % 5) {
  case 0:
  case 1:
    m->blob_bytes[n % BLOBS] = (uint32_t)(1000 + n % 4000);
    m->blob[n % BLOBS] = (uint8_t)n;
    break;
  case 2:
    m->blob_bytes[(n - 2) / 2 % BLOBS] = 0;
    break;
  default:
    m->block[n % 2][n * 7919 % BLOCKS] = (uint8_t)(n >> 3);
    b = n * 31 % BLOCKS;
    if (n % 35 == 4) m->block[n % 2][b] = m->block[n % 2][b + 1] = 0;
  }
}

static void open_volumes(struct sr_port *p, struct sr_block *volumes[2]) {
  assert_int_equal(sr_volume_open(p, "plain", NULL, &volumes[0]), 0);
  assert_int_equal(sr_volume_open(p, "striped", NULL, &volumes[1]), 0);
}

static void make_store(struct fixture *f) {
  struct sr_open_options o = open_options(f);
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct sr_store *s;
  struct sr_port *p;
  format_store(f, SHARDS, 48 * MIB);
  assert_int_equal(sr_store_open(f->where, &o, &s), 0);
  assert_int_equal(sr_port_open(s, NULL, &p), 0);
  v.size_bytes = (BLOCKS + 1) * UINT64_C(4096);
  assert_int_equal(sr_volume_create(p, "plain", &v), 0);
  v.striped = true;
  v.stripe_bytes = 65536;
  assert_int_equal(sr_volume_create(p, "striped", &v), 0);
  assert_int_equal(sr_port_close(p), 0);
  assert_int_equal(sr_store_close(s), 0);
}

/* Works until it is killed; flushes now and then. */
static void child(struct fixture *f, struct progress *progress, uint64_t from,
                  uint64_t flush_each) {
  struct sr_open_options o = survivor_options(f);
  struct sr_block *volumes[2];
  struct sr_store *s;
  struct sr_port *p;
  char *buf = aligned_alloc(4096, 8192);
  if (sr_store_open(f->where, &o, &s) || sr_port_open(s, NULL, &p)) _exit(1);
  open_volumes(p, volumes);
  for (uint64_t n = from;; n++) {
    step(p, volumes, n, buf);
    progress->steps = n + 1;
    if (n % flush_each == flush_each - 1 && sr_flush(p)) _exit(1);
  }
}

static void compare(struct sr_port *p, const struct model *m, uint64_t steps) {
  struct sr_block *volumes[2];
  char *buf = aligned_alloc(4096, 8192);
  open_volumes(p, volumes);
  for (uint32_t i = 0; i < BLOBS; i++) {
    int64_t n = sr_get(p, id_of(i), buf, 0, 8192);
    if (m->blob_bytes[i] ? n != m->blob_bytes[i] : n != -ENOENT)
      fail_msg("blob %u after %llu steps: %lld, should be %u", i, (unsigned long long)steps,
               (long long)n, m->blob_bytes[i]);
    for (int64_t k = 0; k < n; k += 499) assert_int_equal((uint8_t)buf[k], m->blob[i]);
  }
  for (int v = 0; v < 2; v++)
    for (uint32_t b = 0; b <= BLOCKS; b++) {
      assert_int_equal(sr_block_read(p, volumes[v], buf, b * UINT64_C(4096), 4096), 4096);
      if ((uint8_t)buf[0] != m->block[v][b] || (uint8_t)buf[4095] != m->block[v][b])
        fail_msg("volume %d block %u after %llu steps: %u, should be %u", v, b,
                 (unsigned long long)steps, (uint8_t)buf[0], m->block[v][b]);
    }
  for (int v = 0; v < 2; v++) assert_int_equal(sr_block_close(p, volumes[v]), 0);
  free(buf);
}

/* Kills the child when it has come so far. How far it came. */
static uint64_t run_and_kill(struct fixture *f, struct progress *progress, uint64_t from,
                             uint64_t steps, uint64_t flush_each) {
  int status;
  progress->steps = from;
  pid_t pid = fork();
  assert_true(pid >= 0);
  if (pid == 0) child(f, progress, from, flush_each);
  while (progress->steps < from + steps) {
    assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
    usleep(100);
  }
  kill(pid, SIGKILL);
  assert_int_equal(waitpid(pid, &status, 0), pid);
  assert_true(WIFSIGNALED(status));
  return progress->steps;
}

static void *shared(size_t bytes) {
  FILE *f = tmpfile();
  assert_non_null(f);
  assert_int_equal(ftruncate(fileno(f), (off_t)bytes), 0);
  void *at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fileno(f), 0);
  assert_true(at != MAP_FAILED);
  fclose(f);
  return at;
}

/* The step under way may have happened or not. */
static void lives_on(struct fixture *f, const char *dir, struct model *m, uint64_t steps) {
  struct sr_open_options o = open_options(f);
  struct sr_store *s;
  struct sr_port *p;
  o.memory_dir = dir;
  assert_int_equal(sr_store_open(f->where, &o, &s), 0);
  assert_int_equal(sr_port_open(s, NULL, &p), 0);
  struct model *next = malloc(sizeof *next);
  char *buf = aligned_alloc(4096, 8192);
  struct sr_block *volumes[2];
  *next = *m;
  step_model(next, steps);
  /* Done now by us, so that it is no question. */
  open_volumes(p, volumes);
  step(p, volumes, steps, buf);
  for (int v = 0; v < 2; v++) assert_int_equal(sr_block_close(p, volumes[v]), 0);
  *m = *next;
  compare(p, m, steps + 1);
  free(next);
  free(buf);
  assert_int_equal(sr_port_close(p), 0);
  assert_int_equal(sr_store_close(s), 0);
}

static void nothing_is_lost(void **state) {
  SKIP_WITHOUT_MEMORY();
  struct fixture *f = *state;
  struct progress *progress = shared(sizeof *progress);
  struct model *m = calloc(1, sizeof *m);
  uint64_t done = 0;
  make_store(f);
  const uint64_t steps[] = {50, 3000, 1, 9000, 700, 4000};
  const uint64_t flush_each[] = {UINT64_MAX, UINT64_MAX, UINT64_MAX, 1000, 37, UINT64_MAX};
  for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
    uint64_t to = run_and_kill(f, progress, done, steps[i], flush_each[i]);
    for (; done < to; done++) step_model(m, done);
    lives_on(f, i % 2 ? NULL : DIRECTORY, m, done);
    done++;
  }
  free(m);
}

/* Killed again while it opens: what was there is still there. */
static void killed_twice(void **state) {
  SKIP_WITHOUT_MEMORY();
  struct fixture *f = *state;
  struct progress *progress = shared(sizeof *progress);
  struct model *m = calloc(1, sizeof *m);
  make_store(f);
  uint64_t to = run_and_kill(f, progress, 0, 2000, UINT64_MAX), done = 0;
  for (; done < to; done++) step_model(m, done);
  for (int i = 0; i < 40; i++) {
    pid_t pid = fork();
    int status;
    if (pid == 0) {
      struct sr_open_options o = survivor_options(f);
      struct sr_store *s;
      int r = sr_store_open(f->where, &o, &s);
      if (r) fprintf(stderr, "%s: %s", strerror(-r), f->log);
      _exit(r ? 1 : pause());
    }
    usleep((useconds_t)(i * i * 40));
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
  }
  lives_on(f, NULL, m, done);
  free(m);
}

/* The calls to come until one kills its own process, before it does anything. 0: none does. */
static uint32_t put_record_kills;
uint64_t __real_manifest_put_record(struct manifest *m, struct blob_id key, const void *data,
                                    uint32_t bytes);
uint64_t __wrap_manifest_put_record(struct manifest *m, struct blob_id key, const void *data,
                                    uint32_t bytes);
uint64_t __wrap_manifest_put_record(struct manifest *m, struct blob_id key, const void *data,
                                    uint32_t bytes) {
  if (put_record_kills && --put_record_kills == 0) kill(getpid(), SIGKILL);
  return __real_manifest_put_record(m, key, data, bytes);
}

/* A snapshot changes two records, also where one shard has both. */
static void killed_between_two_records(void **state) {
  SKIP_WITHOUT_MEMORY();
  struct fixture *f = *state;
  for (uint32_t call = 1; call <= 2; call++) {
    struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
    struct sr_volume_info info;
    struct sr_store *s;
    struct sr_port *p;
    int status;
    snprintf(f->where, sizeof f->where, "%.300s/store-%u", f->directory, call);
    format_store(f, 1, 48 * MIB);
    pid_t pid = fork();
    if (pid == 0) {
      struct sr_open_options o = survivor_options(f);
      v.size_bytes = MIB;
      if (sr_store_open(f->where, &o, &s) || sr_port_open(s, NULL, &p) ||
          sr_volume_create(p, "v", &v) || sr_flush(p))
        _exit(1);
      put_record_kills = call;
      sr_volume_snapshot(p, "v", "s");
      _exit(2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    struct sr_open_options o = survivor_options(f);
    int r = sr_store_open(f->where, &o, &s);
    if (r) fail_msg("killed before record %u: %s: %s", call, strerror(-r), f->log);
    assert_int_equal(sr_port_open(s, NULL, &p), 0);
    assert_int_equal(sr_volume_stat(p, "v", &info), 0);
    assert_int_equal(sr_volume_stat(p, "s", &info), -ENOENT);
    assert_int_equal(sr_volume_snapshot(p, "v", "s"), 0);
    assert_int_equal(sr_port_close(p), 0);
    assert_int_equal(sr_store_close(s), 0);
  }
}

static void files_of_memory(struct fixture *f, char path[300]) {
  struct sr_open_options o = open_options(f);
  struct sr_store_stats stats;
  struct sr_store *s;
  struct sr_port *p;
  char plain[33] = "";
  o.memory_dir = "";
  o.read_only = true;
  assert_int_equal(sr_store_open(f->where, &o, &s), 0);
  assert_int_equal(sr_port_open(s, NULL, &p), 0);
  assert_int_equal(sr_store_stats(p, &stats), 0);
  assert_int_equal(sr_port_close(p), 0);
  assert_int_equal(sr_store_close(s), 0);
  for (int i = 0, n = 0; stats.uuid[i]; i++)
    if (stats.uuid[i] != '-') plain[n++] = stats.uuid[i];
  snprintf(path, 300, DIRECTORY "/shardring-%s", plain);
}

/* Without the file, as after a power cut: the last durable state. And nothing is left behind by
 * who closes in order, or by a file that is not ours. */
static void without_the_file(void **state) {
  SKIP_WITHOUT_MEMORY();
  struct fixture *f = *state;
  struct progress *progress = shared(sizeof *progress);
  struct model *m = calloc(1, sizeof *m);
  char path[300];
  make_store(f);
  run_and_kill(f, progress, 0, 500, UINT64_MAX);
  files_of_memory(f, path);
  assert_int_equal(access(path, F_OK), 0);
  assert_int_equal(chmod(path, 0644), 0); /* anybody could have written it */
  struct sr_open_options o = open_options(f);
  struct sr_store *s;
  struct sr_port *p;
  assert_int_equal(sr_store_open(f->where, &o, &s), 0);
  assert_non_null(strstr(f->log, "not a file of this user in memory"));
  assert_int_equal(sr_port_open(s, NULL, &p), 0);
  compare(p, m, 0);
  assert_int_equal(sr_port_close(p), 0);
  assert_int_equal(sr_store_close(s), 0);
  unlink(path);
  o = survivor_options(f);
  assert_int_equal(sr_store_open(f->where, &o, &s), 0);
  assert_int_equal(access(path, F_OK), 0);
  assert_int_equal(sr_store_close(s), 0);
  assert_int_not_equal(access(path, F_OK), 0);
  strcat(path, ".next");
  assert_int_not_equal(access(path, F_OK), 0);
  free(m);
}

/* Changes of several shards at once: all of each, or nothing; killed in the middle of one, the
 * store goes on from where it was durable. Snapshots of a striped volume beside them. */
static void batch_child(struct fixture *f, struct progress *progress, uint64_t from) {
  struct sr_open_options o = survivor_options(f);
  struct sr_request requests[8], *parts[8];
  struct sr_store *s;
  struct sr_port *p;
  char *buf = aligned_alloc(4096, 4096), name[32];
  if (sr_store_open(f->where, &o, &s) || sr_port_open(s, NULL, &p)) _exit(1);
  for (uint64_t n = from;; n++) {
    memset(buf, (int)n, 4096);
    for (uint64_t i = 0; i < 8; i++) {
      requests[i] = request_of_op(SR_OP_PUT, i, buf, 4096);
      requests[i].id = id_of(i);
      parts[i] = &requests[i];
    }
    if (sr_batch(p, parts, 8, 0)) _exit(1);
    snprintf(name, sizeof name, "s%llu", (unsigned long long)n);
    if (n % 4 == 0 && sr_volume_snapshot(p, "striped", name)) _exit(1);
    progress->steps = n + 1;
  }
}

static void changes_of_several_shards(void **state) {
  SKIP_WITHOUT_MEMORY();
  struct fixture *f = *state;
  struct progress *progress = shared(sizeof *progress);
  struct sr_volume_info *infos = calloc(4096, sizeof *infos);
  uint64_t done = 0, kept = 0;
  make_store(f);
  for (int i = 0; i < 25; i++) {
    struct sr_open_options o = open_options(f);
    struct sr_store *s;
    struct sr_port *p;
    char buf[4096];
    int status;
    progress->steps = done;
    pid_t pid = fork();
    if (pid == 0) batch_child(f, progress, done);
    while (progress->steps < done + 3) {
      assert_int_equal(waitpid(pid, &status, WNOHANG), 0);
      usleep((useconds_t)(100 + i * 37));
    }
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    done = progress->steps + 1;
    assert_int_equal(sr_store_open(f->where, &o, &s), 0);
    assert_int_equal(sr_port_open(s, NULL, &p), 0);

    int64_t first = sr_get(p, id_of(0), buf, 0, 4096);
    uint8_t value = (uint8_t)buf[0];
    for (uint64_t k = 0; k < 8; k++) {
      assert_int_equal(sr_get(p, id_of(k), buf, 0, 4096), first);
      if (first > 0) assert_int_equal((uint8_t)buf[4095], value);
    }
    kept += first > 0 && (value == (uint8_t)(done - 2) || value == (uint8_t)(done - 1));
    int n = sr_volume_list(p, "", infos, 4096);
    assert_true(n >= 2);
    for (int k = 0; k < n; k++)
      if (infos[k].snapshot && n > 400) assert_int_equal(sr_volume_remove(p, infos[k].name), 0);
    assert_int_equal(sr_port_close(p), 0);
    assert_int_equal(sr_store_close(s), 0);
  }
  print_message("%llu of 25 times all that had completed was there\n", (unsigned long long)kept);
  assert_true(kept > 0);
  free(infos);
}

#define TEST(t) cmocka_unit_test_setup_teardown(t, fixture_setup, fixture_teardown)
/* ---- Left in memory ---------------------------------------------------------------------------
 */

struct look {
  const char *store;
  bool remove;
  uint32_t found, state;
};

static bool look_at(void *arg, const struct sr_leftover *f) {
  struct look *l = arg;
  if (strcmp(f->store, l->store) != 0) return false; /* another one's */
  l->found++;
  l->state = f->state;
  assert_true(f->bytes > 3 * MIB);
  assert_int_equal(strncmp(f->path, DIRECTORY "/shardring-", strlen(DIRECTORY "/shardring-")), 0);
  return l->remove;
}

static void expect_leftover(const char *store, bool remove, uint32_t count, uint32_t state) {
  struct look l = {store, remove, 0, 0};
  assert_int_equal(sr_leftovers(DIRECTORY, look_at, &l), 0);
  assert_int_equal(l.found, count);
  assert_int_equal(l.state, state);
}

/* Only what belongs to a store that is not there any more goes, and only if that is asked for. */
static void what_is_left_is_told(void **state) {
  SKIP_WITHOUT_MEMORY();
  struct fixture *f = *state;
  struct sr_open_options o = survivor_options(f);
  struct progress *progress = shared(sizeof *progress);
  struct sr_store *s;
  char *store, moved[4096], part[4096], part_moved[4096];
  make_store(f);
  store = realpath(f->where, NULL);
  assert_non_null(store);
  snprintf(moved, sizeof moved, "%s.moved", store);
  snprintf(part, sizeof part, "%s/shard-0000", store);
  snprintf(part_moved, sizeof part_moved, "%s/moved", store);
  expect_leftover(store, true, 0, 0);
  assert_int_equal(sr_store_open(f->where, &o, &s), 0);
  expect_leftover(store, true, 1, SR_LEFTOVER_USED);
  assert_int_equal(sr_store_close(s), 0);
  expect_leftover(store, true, 0, 0);
  run_and_kill(f, progress, 0, 100, 1000);
  expect_leftover(store, true, 1, SR_LEFTOVER_NEEDED);
  assert_int_equal(rename(part, part_moved), 0); /* it may be put right */
  expect_leftover(store, true, 1, SR_LEFTOVER_NEEDED);
  assert_int_equal(rename(part_moved, part), 0);
  assert_int_equal(rename(store, moved), 0);
  expect_leftover(store, false, 1, SR_LEFTOVER_GONE);
  assert_int_equal(rename(moved, store), 0);
  expect_leftover(store, true, 1, SR_LEFTOVER_NEEDED);
  assert_int_equal(rename(store, moved), 0);
  make_store(f); /* another one in its place */
  expect_leftover(store, true, 1, SR_LEFTOVER_GONE);
  expect_leftover(store, true, 0, 0);
  char command[4200];
  snprintf(command, sizeof command, "rm -rf '%s'", moved);
  assert_int_equal(system(command), 0);
  assert_int_equal(sr_leftovers("/nowhere at all", look_at, NULL), -ENOENT);
  munmap(progress, sizeof *progress);
  free(store);
}

int main(void) {
  const struct CMUnitTest tests[] = {TEST(nothing_is_lost),
                                     TEST(killed_twice),
                                     TEST(killed_between_two_records),
                                     TEST(without_the_file),
                                     TEST(changes_of_several_shards),
                                     TEST(what_is_left_is_told)};
  return cmocka_run_group_tests(tests, NULL, NULL);
}
