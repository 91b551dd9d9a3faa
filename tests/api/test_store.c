/* test_store.c - opening and closing: promises of a store as a whole, and every refusal. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <signal.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "shards/format.h"
#include "shards/format.h"
#include "tests/api/fixture.h"

static void write_at(const char *path, const void *bytes, size_t n, off_t offset) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  assert_true(fd >= 0);
  assert_int_equal(pwrite(fd, bytes, n, offset), n);
  close(fd);
}

static void part_path(const struct fixture *f, const char *part, char path[800]) {
  snprintf(path, 800, "%s/%s", f->where, part);
}

static int try_open(struct fixture *f, bool read_only) {
  struct sr_open_options o = open_options(f);
  struct sr_store *s = NULL;
  o.read_only = read_only;
  int r = sr_store_open(f->where, &o, &s);
  if (r == 0) sr_store_close(s);
  return r;
}

static void flushed_data_persists(void **state) {
  struct fixture *f = *state;
  char in[5000], out[5000];
  fill_bytes(in, sizeof in, 1);
  format_store(f, 3, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  for (uint64_t i = 0; i < 50; i++) assert_int_equal(sr_put(p, id_of(i), in, 100 * i, 0), 0);
  assert_int_equal(sr_flush(p), 0);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  s = open_store(f);
  p = open_port(s);
  assert_int_equal(sr_count(p), 50);
  for (uint64_t i = 0; i < 50; i++) {
    assert_int_equal(sr_get(p, id_of(i), out, 0, sizeof out), 100 * i);
    assert_memory_equal(in, out, 100 * i);
  }
  close_both(s, p);
}

static void close_makes_durable(void **state) {
  struct fixture *f = *state;
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_put(p, id_of(1), "hello", 5, 0), 0);
  close_both(s, p);
  s = open_store(f);
  p = open_port(s);
  char out[5];
  assert_int_equal(sr_get(p, id_of(1), out, 0, 5), 5);
  assert_memory_equal(out, "hello", 5);
  close_both(s, p);
}

static void unflushed_rewrite_recovers_the_old_bytes(void **state) {
  struct fixture *f = *state;
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_put(p, id_of(7), "old", 3, 0), 0);
  assert_int_equal(sr_put(p, id_of(8), "stays", 5, 0), 0);
  assert_int_equal(sr_flush(p), 0);
  assert_int_equal(sr_put(p, id_of(7), "newer", 5, 0), 0);
  assert_int_equal(sr_delete(p, id_of(8), 0), 0);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  s = open_store(f);
  p = open_port(s);
  char out[8];
  assert_int_equal(sr_get(p, id_of(7), out, 0, 8), 3);
  assert_memory_equal(out, "old", 3);
  assert_int_equal(sr_get(p, id_of(8), out, 0, 8), 5);
  close_both(s, p);
}

static void durable_requests_survive_alone(void **state) {
  struct fixture *f = *state;
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_put(p, id_of(1), "one", 3, SR_DURABLE), 0);
  assert_int_equal(sr_put(p, id_of(2), "two", 3, SR_DURABLE), 0);
  assert_int_equal(sr_delete(p, id_of(2), SR_DURABLE), 0);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  s = open_store(f);
  p = open_port(s);
  assert_int_equal(sr_exists(p, id_of(1)), 1);
  assert_int_equal(sr_exists(p, id_of(2)), 0);
  close_both(s, p);
}

static void needs_flush_is_exact(void **state) {
  struct fixture *f = *state;
  format_store(f, 4, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_false(sr_needs_flush(s));
  for (uint64_t i = 0; i < 20; i++) {
    assert_int_equal(sr_put(p, id_of(i), "x", 1, 0), 0);
    assert_true(sr_needs_flush(s));
    assert_int_equal(sr_flush(p), 0);
    assert_false(sr_needs_flush(s));
  }
  assert_int_equal(sr_exists(p, id_of(3)), 1);
  assert_false(sr_needs_flush(s));
  assert_int_equal(sr_delete(p, id_of(3), 0), 0);
  assert_true(sr_needs_flush(s));
  assert_int_equal(sr_put(p, id_of(4), "y", 1, SR_DURABLE), 0);
  assert_int_equal(sr_flush(p), 0);
  assert_false(sr_needs_flush(s));
  assert_int_equal(sr_put(p, id_of(5), "y", 1, SR_DURABLE), 0);
  assert_false(sr_needs_flush(s)); /* durable on its own */
  close_both(s, p);
}

/* Cores and shards are independent. */
static void any_number_of_cores_opens_any_number_of_shards(void **state) {
  struct fixture *f = *state;
  format_store(f, 5, 16 * MIB);
  const uint32_t counts[] = {1, 2, 7, 3};
  for (uint32_t i = 0; i < 4; i++) {
    struct sr_open_options o = open_options(f);
    struct sr_store *s;
    o.core_count = counts[i];
    int r = sr_store_open(f->where, &o, &s);
    if (r == -EINVAL && strstr(f->log, "CPU")) continue; /* a machine with fewer CPUs */
    assert_int_equal(r, 0);
    assert_int_equal(sr_core_count(s), counts[i]);
    assert_int_equal(sr_shard_count(s), 5);
    struct sr_port *p = open_port(s);
    for (uint64_t k = 0; k < i * 10; k++) assert_int_equal(sr_exists(p, id_of(k)), 1);
    for (uint64_t k = 0; k < (i + 1) * 10; k++) assert_int_equal(sr_put(p, id_of(k), "z", 1, 0), 0);
    close_both(s, p);
    if (counts[i] == 2) i = 2; /* leave out 7 where only 2 are sure */
  }
}

static void second_opener_is_refused(void **state) {
  struct fixture *f = *state;
  format_store(f, 1, 16 * MIB);
  struct sr_store *s = open_store(f);
  assert_int_equal(try_open(f, false), -EBUSY);
  assert_non_null(strstr(f->log, "locked"));
  assert_int_equal(try_open(f, true), -EBUSY);
  assert_int_equal(sr_store_close(s), 0);
  assert_int_equal(try_open(f, false), 0);
}

static void a_crash_frees_the_lock(void **state) {
  struct fixture *f = *state;
  int ready[2];
  format_store(f, 1, 16 * MIB);
  assert_int_equal(pipe(ready), 0);
  pid_t child = fork();
  if (child == 0) {
    struct sr_store *s;
    struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
    char c = sr_store_open(f->where, &o, &s) == 0 ? 'y' : 'n';
    if (write(ready[1], &c, 1) != 1) _exit(1);
    pause();
    _exit(0);
  }
  char c = 0;
  assert_int_equal(read(ready[0], &c, 1), 1);
  assert_int_equal(c, 'y');
  assert_int_equal(try_open(f, false), -EBUSY);
  kill(child, SIGKILL);
  waitpid(child, NULL, 0);
  assert_int_equal(try_open(f, false), 0);
}

static void checksum_directory(const struct fixture *f, char out[256]) {
  char command[900];
  snprintf(command, sizeof command, "cat %s/* | cksum", f->where);
  FILE *p = popen(command, "r");
  assert_non_null(fgets(out, 256, p));
  pclose(p);
}

static void read_only_changes_no_byte(void **state) {
  struct fixture *f = *state;
  char before[256], after[256], out[8];
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_put(p, id_of(1), "abc", 3, 0), 0);
  close_both(s, p);
  checksum_directory(f, before);
  struct sr_open_options o = open_options(f);
  struct sr_store *one, *two;
  o.read_only = true;
  assert_int_equal(sr_store_open(f->where, &o, &one), 0);
  assert_int_equal(sr_store_open(f->where, &o, &two), 0); /* shared */
  struct sr_port *p1 = open_port(one), *p2 = open_port(two);
  assert_int_equal(sr_get(p1, id_of(1), out, 0, 8), 3);
  assert_int_equal(sr_get(p2, id_of(1), out, 0, 8), 3);
  assert_int_equal(sr_put(p1, id_of(2), "x", 1, 0), -EROFS);
  assert_int_equal(sr_delete(p1, id_of(1), 0), -EROFS);
  assert_int_equal(try_open(f, false), -EBUSY);
  close_both(one, p1);
  close_both(two, p2);
  checksum_directory(f, after);
  assert_string_equal(before, after);
}

/* ---- Refusals ----------------------------------------------------------------------------------
 */

static void not_a_store(void **state) {
  struct fixture *f = *state;
  char path[800];
  assert_int_equal(try_open(f, false), -ENOENT);
  assert_int_equal(mkdir(f->where, 0700), 0);
  assert_int_equal(try_open(f, false), -EMEDIUMTYPE);
  assert_non_null(strstr(f->log, "not a store"));
  part_path(f, "root", path);
  int fd = open(path, O_CREAT | O_WRONLY, 0600);
  assert_int_equal(ftruncate(fd, 1 << 20), 0);
  close(fd);
  assert_int_equal(try_open(f, false), -EMEDIUMTYPE);
}

static void format_refuses_what_is_there(void **state) {
  struct fixture *f = *state;
  format_store(f, 1, 16 * MIB);
  struct sr_format_options o = SR_FORMAT_OPTIONS_INIT;
  o.size_bytes = 32 * MIB;
  o.shards = 2;
  assert_int_equal(sr_format(f->where, &o), -EEXIST);
  struct sr_store *s = open_store(f);
  assert_int_equal(sr_shard_count(s), 1);
  o.force = true;
  assert_int_equal(sr_format(f->where, &o), -EBUSY);
  assert_int_equal(sr_store_close(s), 0);
  assert_int_equal(sr_format(f->where, &o), 0);
  s = open_store(f);
  assert_int_equal(sr_shard_count(s), 2);
  assert_int_equal(sr_store_close(s), 0);
}

static void impossible_options(void **state) {
  struct fixture *f = *state;
  struct sr_format_options o = SR_FORMAT_OPTIONS_INIT;
  assert_int_equal(sr_format(f->where, &o), -EINVAL); /* no size */
  o.size_bytes = 64 * MIB;
  o.shards = 5; /* 12 MiB each */
  assert_int_equal(sr_format(f->where, &o), -EINVAL);
  o.shards = SR_SHARDS_MAX + 1;
  assert_int_equal(sr_format(f->where, &o), -EINVAL);
  o.shards = 1;
  o.log_bytes = 60 * MIB;
  assert_int_equal(sr_format(f->where, &o), -EINVAL);
  o.log_bytes = 0;
  o.prealloc = 9;
  assert_int_equal(sr_format(f->where, &o), -EINVAL);
  assert_int_equal(sr_format(NULL, &o), -EINVAL);
  assert_int_not_equal(access(f->where, F_OK), 0); /* nothing was left */
  struct {
    struct sr_format_options o;
    uint64_t tail[2];
  } newer = {.o = SR_FORMAT_OPTIONS_INIT};
  newer.o.size = sizeof newer;
  newer.o.size_bytes = 16 * MIB;
  newer.o.shards = 1;
  newer.tail[1] = 1;
  assert_int_equal(sr_format(f->where, &newer.o), -E2BIG);
  newer.tail[1] = 0;
  assert_int_equal(sr_format(f->where, &newer.o), 0);

  struct sr_open_options p = open_options(f);
  struct sr_store *s = NULL;
  p.queue_depth = 5000;
  assert_int_equal(sr_store_open(f->where, &p, &s), -EINVAL);
  p = open_options(f);
  p.cores = "0-";
  assert_int_equal(sr_store_open(f->where, &p, &s), -EINVAL);
  assert_non_null(strstr(f->log, "cores"));
  p = open_options(f);
  p.engine = "warp";
  assert_int_equal(sr_store_open(f->where, &p, &s), -EINVAL);
  assert_non_null(strstr(f->log, "warp"));
  p = open_options(f);
  p.poll_us = 2000000;
  assert_int_equal(sr_store_open(f->where, &p, &s), -EINVAL);
  assert_int_equal(sr_store_open(NULL, &p, &s), -EINVAL);
  assert_int_equal(sr_store_open(f->where, NULL, NULL), -EINVAL);
  assert_null(s);
}

static void swapped_and_foreign_regions(void **state) {
  struct fixture *f = *state;
  struct fixture other = *f;
  char a[800], b[800], c[800];
  snprintf(other.where, sizeof other.where, "%s/other", f->directory);
  format_store(f, 2, 16 * MIB);
  format_store(&other, 2, 16 * MIB);
  part_path(f, "shard-0000", a);
  part_path(f, "shard-0001", b);
  part_path(f, "spare", c);
  assert_int_equal(rename(a, c) | rename(b, a) | rename(c, b), 0);
  assert_int_equal(try_open(f, false), -EMEDIUMTYPE);
  assert_non_null(strstr(f->log, "swapped"));
  assert_int_equal(rename(a, c) | rename(b, a) | rename(c, b), 0);
  assert_int_equal(try_open(f, false), 0);
  part_path(&other, "shard-0001", c);
  assert_int_equal(rename(c, b), 0);
  assert_int_equal(try_open(f, false), -EMEDIUMTYPE);
  assert_non_null(strstr(f->log, "another store"));
  assert_int_equal(unlink(b), 0);
  assert_int_equal(try_open(f, false), -ENOENT);
  assert_non_null(strstr(f->log, "shard-0001"));
}

static void damaged_identity(void **state) {
  struct fixture *f = *state;
  char path[800];
  struct stat st;
  format_store(f, 2, 16 * MIB);
  part_path(f, "shard-0001", path);
  assert_int_equal(stat(path, &st), 0);
  write_at(path, "garbage!", 8, 200); /* the first copy: survived, and told */
  assert_int_equal(try_open(f, true), 0);
  assert_non_null(strstr(f->log, "first identity copy"));
  write_at(path, "garbage!", 8, st.st_size - 16 * 4096 + 200);
  assert_int_equal(try_open(f, false), -EBADMSG);
  assert_non_null(strstr(f->log, "shard-0001: identity, block 0"));
  assert_int_equal(truncate(path, 8192), 0);
  assert_int_equal(try_open(f, false), -EBADMSG);
  assert_non_null(strstr(f->log, "shard-0001"));
}

/* A valid last copy that promises more than is there, while the first one is damaged or older. */
static void identity_beyond_the_end(void **state) {
  struct fixture *f = *state;
  char path[800];
  struct stat st;
  format_store(f, 1, 16 * MIB);
  part_path(f, "shard-0000", path);
  assert_int_equal(stat(path, &st), 0);
  const size_t bytes = FORMAT_IDENTITY_BLOCKS << BLOCK_SHIFT;
  const off_t place = st.st_size - (off_t)bytes;
  char *copy = malloc(bytes), why[160];
  struct identity *id = malloc(sizeof *id);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  assert_int_equal(pread(fd, copy, bytes, place), bytes);
  close(fd);
  assert_int_equal(identity_decode(id, copy, why, sizeof why), 0);
  id->generation++;
  id->backing_blocks *= 8;
  id->segments[0].blocks *= 4;
  memset(copy, 0, bytes);
  identity_encode(id, copy);
  write_at(path, copy, bytes, place);
  assert_int_equal(try_open(f, false), -EBADMSG);
  assert_non_null(strstr(f->log, "truncated"));
  write_at(path, "garbage!", 8, 200);
  assert_int_equal(try_open(f, true), -EBADMSG);
  free(copy), free(id);
}

static void truncated_region(void **state) {
  struct fixture *f = *state;
  char path[800];
  format_store(f, 1, 16 * MIB);
  part_path(f, "shard-0000", path);
  assert_int_equal(truncate(path, 1 << 20), 0);
  assert_int_equal(try_open(f, false), -EBADMSG);
  assert_non_null(strstr(f->log, "truncated"));
}

static void damaged_roots(void **state) {
  struct fixture *f = *state;
  char path[800], junk[4096];
  memset(junk, 0xa5, sizeof junk);
  format_store(f, 1, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_put(p, id_of(1), "abc", 3, 0), 0);
  close_both(s, p);
  part_path(f, "root", path);
  for (int slot = 0; slot < 4; slot++) /* one copy of each slot: the other serves */
    write_at(path, junk, sizeof junk, (16 + 2 * slot) * 4096);
  assert_int_equal(try_open(f, true), 0);
  assert_non_null(strstr(f->log, "root slot"));
  s = open_store(f);
  p = open_port(s);
  assert_int_equal(sr_exists(p, id_of(1)), 1);
  close_both(s, p);
  for (int block = 16; block < 24; block++) write_at(path, junk, sizeof junk, block * 4096);
  assert_int_equal(try_open(f, false), -EBADMSG);
  assert_non_null(strstr(f->log, "no valid root"));
}

/* Any one slot, be it that of the newest root, may be lost with both its copies: nothing that was
 * flushed is. */
static void a_lost_root_slot_is_survived(void **state) {
  struct fixture *f = *state;
  char path[800], zeros[8192] = {0}, kept[8192];
  format_store(f, 1, 16 * MIB);
  part_path(f, "root", path);
  for (uint64_t i = 0; i < 6; i++) { /* so that the newest root comes to each slot */
    struct sr_store *s = open_store(f);
    struct sr_port *p = open_port(s);
    assert_int_equal(sr_put(p, id_of(i), &i, sizeof i, 0), 0);
    close_both(s, p);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    for (int slot = 0; slot < 4; slot++) {
      off_t place = (16 + 2 * slot) * 4096;
      assert_int_equal(pread(fd, kept, sizeof kept, place), sizeof kept);
      assert_int_equal(pwrite(fd, zeros, sizeof zeros, place), sizeof zeros);
      struct sr_open_options o = open_options(f);
      o.read_only = true;
      assert_int_equal(sr_store_open(f->where, &o, &s), 0);
      p = open_port(s);
      for (uint64_t k = 0; k <= i; k++) assert_int_equal(sr_exists(p, id_of(k)), 1);
      close_both(s, p);
      assert_int_equal(pwrite(fd, kept, sizeof kept, place), sizeof kept);
    }
    close(fd);
  }
}

/* How far the region was zeroed and how many blobs there are: wrong values cost time, no more. */
static void wrong_hints_do_no_harm(void **state) {
  struct fixture *f = *state;
  static struct root root, newest;
  struct identity *id = malloc(sizeof *id);
  char path[800], why[160];
  char *buf = aligned_alloc(4096, 65536);
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  for (uint64_t i = 0; i < 200; i++) assert_int_equal(sr_put(p, id_of(i), &i, 8, 0), 0);
  close_both(s, p);
  part_path(f, "root", path);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  assert_int_equal(pread(fd, buf, 65536, 0), 65536);
  assert_int_equal(identity_decode(id, buf, why, sizeof why), 0);
  off_t slot_bytes = (off_t)id->root_slot_blocks * 4096, first = (off_t)id->root_block * 4096;
  for (uint32_t i = 0; i < FORMAT_ROOT_SLOTS; i++) {
    assert_int_equal(pread(fd, buf, (size_t)slot_bytes, first + i * slot_bytes), slot_bytes);
    if (root_decode(&root, id->uuid, 2, buf, why, sizeof why) == 0 && root.epoch > newest.epoch)
      newest = root;
  }
  const uint64_t wrong[][2] = {{0, 0}, {UINT64_MAX, UINT64_MAX}, {3, 1}, {1 << 20, 1 << 30}};
  for (uint32_t k = 0; k < 4; k++) {
    newest.epoch++;
    for (uint32_t i = 0; i < 2; i++) {
      newest.shards[i].zeroed_blocks = wrong[k][0];
      newest.shards[i].blobs = wrong[k][1];
    }
    root_encode(&newest, id->uuid, buf);
    off_t place = first + (off_t)root_slot_of_epoch(newest.epoch) * slot_bytes;
    assert_int_equal(pwrite(fd, buf, (size_t)slot_bytes, place), slot_bytes);
    struct sr_open_options o = open_options(f);
    o.read_only = k != 3; /* the last one writes, too */
    assert_int_equal(sr_store_open(f->where, &o, &s), 0);
    p = open_port(s);
    for (uint64_t i = 0, got = 0; i < 200; i++) {
      assert_int_equal(sr_get(p, id_of(i), &got, 0, 8), 8);
      assert_int_equal(got, i);
    }
    if (k == 3) assert_int_equal(sr_put(p, id_of(7), "x", 1, SR_DURABLE), 0);
    close_both(s, p);
  }
  assert_int_equal(try_open(f, false), 0);
  close(fd), free(buf), free(id);
}

static void no_permission(void **state) {
  struct fixture *f = *state;
  format_store(f, 1, 16 * MIB);
  assert_int_equal(chmod(f->directory, 0755) | chmod(f->where, 0700), 0);
  pid_t child = fork();
  if (child == 0) {
    if (geteuid() == 0 && setuid(65534) != 0) _exit(99);
    if (geteuid() != 65534) chmod(f->where, 0);
    struct sr_store *s;
    struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
    o.log = keep_log;
    o.log_arg = f;
    _exit(sr_store_open(f->where, &o, &s) == -EACCES ? 0 : 1);
  }
  int status = 0;
  waitpid(child, &status, 0);
  chmod(f->where, 0700);
  assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- Other places ---------------------------------------------------------------------------- */

static void slices_of_files_and_descriptors(void **state) {
  struct fixture *f = *state;
  char one[300], two[300], both[700], swapped[700], by_fd[64];
  snprintf(one, sizeof one, "%s/a.img", f->directory);
  snprintf(two, sizeof two, "%s/b.img", f->directory);
  snprintf(both, sizeof both, "%s,%s", one, two);
  snprintf(swapped, sizeof swapped, "%s,%s", two, one);
  struct sr_format_options o = SR_FORMAT_OPTIONS_INIT;
  o.size_bytes = 128 * MIB;
  o.shards = 3;
  assert_int_equal(sr_format(both, &o), 0);
  struct sr_open_options opts = open_options(f);
  struct sr_store *s;
  assert_int_equal(sr_store_open(one, &opts, &s), -EMEDIUMTYPE);
  assert_non_null(strstr(f->log, "name all of them"));
  assert_int_equal(sr_store_open(both, &opts, &s), 0);
  struct sr_port *p = open_port(s);
  for (uint64_t i = 0; i < 30; i++) assert_int_equal(sr_put(p, id_of(i), "q", 1, 0), 0);
  close_both(s, p);
  assert_int_equal(sr_store_open(swapped, &opts, &s), 0); /* any order */
  p = open_port(s);
  assert_int_equal(sr_count(p), 30);
  close_both(s, p);
  int fd1 = open(one, O_RDWR | O_CLOEXEC), fd2 = open(two, O_RDWR | O_CLOEXEC);
  snprintf(by_fd, sizeof by_fd, "fd:%d,fd:%d", fd1, fd2);
  assert_int_equal(sr_store_open(by_fd, &opts, &s), 0);
  p = open_port(s);
  assert_int_equal(sr_count(p), 30);
  close_both(s, p);
  assert_int_equal(fcntl(fd1, F_GETFD) >= 0, 1); /* still the caller's */
  close(fd1), close(fd2);
}

static void one_shard_over_two_files(void **state) {
  struct fixture *f = *state;
  snprintf(f->where, sizeof f->where, "%s/c.img,%s/d.img", f->directory, f->directory);
  struct sr_format_options o = SR_FORMAT_OPTIONS_INIT;
  o.size_bytes = 48 * MIB;
  o.shards = 1;
  assert_int_equal(sr_format(f->where, &o), 0);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  char *buf = malloc(MIB), *out = malloc(MIB);
  for (uint64_t i = 0; i < 40; i++) {
    fill_bytes(buf, MIB, i);
    assert_int_equal(sr_put(p, id_of(i), buf, MIB, 0), 0);
  }
  close_both(s, p);
  s = open_store(f);
  p = open_port(s);
  for (uint64_t i = 0; i < 40; i++) {
    fill_bytes(buf, MIB, i);
    assert_int_equal(sr_get(p, id_of(i), out, 0, MIB), MIB);
    assert_memory_equal(buf, out, MIB);
  }
  free(buf), free(out);
  close_both(s, p);
}

static void in_memory(void **state) {
  struct fixture *f = *state;
  struct sr_open_options o = open_options(f);
  struct sr_store *s;
  assert_int_equal(sr_store_open("mem:64M:3", &o, &s), 0);
  assert_int_equal(sr_shard_count(s), 3);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_put(p, id_of(1), "m", 1, SR_DURABLE), 0);
  assert_int_equal(sr_exists(p, id_of(1)), 1);
  close_both(s, p);
  assert_int_equal(sr_store_open("mem:", &o, &s), -EINVAL);
  assert_int_equal(sr_store_open("mem:12Q", &o, &s), -EINVAL);
  assert_int_equal(sr_store_open("mem:1M", &o, &s), -EINVAL);
  assert_int_equal(sr_grow("mem:64M", 16 * MIB, NULL), -EINVAL);
}

static void grows(void **state) {
  struct fixture *f = *state;
  format_store(f, 2, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  struct sr_space before, after;
  char out[4];
  assert_int_equal(sr_put(p, id_of(1), "abc", 3, 0), 0);
  assert_int_equal(sr_space(p, &before), 0);
  assert_int_equal(sr_grow(f->where, 32 * MIB, NULL), -EBUSY);
  close_both(s, p);
  assert_int_equal(sr_grow(f->where, 32 * MIB, NULL), 0);
  s = open_store(f);
  p = open_port(s);
  assert_int_equal(sr_space(p, &after), 0);
  assert_true(after.total_bytes >= before.total_bytes + 32 * MIB);
  assert_int_equal(sr_get(p, id_of(1), out, 0, 4), 3);
  char *buf = calloc(1, MIB);
  for (uint64_t i = 0; i < 40; i++) assert_int_equal(sr_put(p, id_of(i), buf, MIB, 0), 0);
  free(buf);
  close_both(s, p);
  assert_int_equal(try_open(f, false), 0);
}

static void grows_by_a_device(void **state) {
  struct fixture *f = *state;
  char first[300], second[300];
  snprintf(first, sizeof first, "%s/e.img", f->directory);
  snprintf(f->where, sizeof f->where, "%s", first);
  snprintf(second, sizeof second, "%s/f.img", f->directory);
  format_store(f, 2, 20 * MIB);
  int fd = open(second, O_CREAT | O_RDWR, 0600);
  assert_int_equal(ftruncate(fd, 64 * MIB), 0);
  close(fd);
  assert_int_equal(sr_grow(f->where, 0, second), 0);
  assert_int_equal(try_open(f, false), -EMEDIUMTYPE); /* its new part must be named */
  snprintf(f->where, sizeof f->where, "%s,%s", first, second);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  struct sr_space space;
  assert_int_equal(sr_space(p, &space), 0);
  assert_true(space.total_bytes > 90 * MIB);
  close_both(s, p);
}

/* ---- Settings --------------------------------------------------------------------------------
 */

static void write_settings(struct fixture *f, const char *text) {
  char path[800];
  snprintf(path, sizeof path, "%s/settings", f->where);
  FILE *out = fopen(path, "w");
  assert_non_null(out);
  fputs(text, out);
  assert_int_equal(fclose(out), 0);
}

static struct sr_store_stats stats_with(struct fixture *f, const struct sr_open_options *o) {
  struct sr_store_stats st;
  struct sr_store *s = NULL;
  assert_int_equal(sr_store_open(f->where, o, &s), 0);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_put(p, id_of(1), "x", 1, 0), 0);
  assert_int_equal(sr_flush(p), 0); /* by that method */
  assert_int_equal(sr_store_stats(p, &st), 0);
  close_both(s, p);
  return st;
}

static void settings_are_used(void **state) {
  struct fixture *f = *state;
  format_store(f, 2, 16 * MIB);
  struct sr_open_options o = open_options(f);
  struct sr_store_stats st = stats_with(f, &o);
  assert_true(st.queue_depth == 256 && st.poll_us == 50 && st.flush_method == SR_FLUSH_FUA);
  assert_non_null(strstr(st.why_settings, "defaults"));

  write_settings(f, "queue_depth = 32\nflush = write+flush\n");
  st = stats_with(f, &o);
  assert_true(st.queue_depth == 32 && st.poll_us == 50 && st.flush_method == SR_FLUSH_AFTER);
  assert_non_null(strstr(st.why_settings, "/store/settings"));
  /* Options come first, one by one. */
  o.queue_depth = 64;
  o.flush_method = SR_FLUSH_FUA;
  st = stats_with(f, &o);
  assert_true(st.queue_depth == 64 && st.flush_method == SR_FLUSH_FUA);
  o.queue_depth = 0;
  assert_int_equal(stats_with(f, &o).queue_depth, 32);
  o.settings = "";
  assert_int_equal(stats_with(f, &o).queue_depth, 256);
  o.settings = "/nowhere";
  struct sr_store *s = NULL;
  assert_int_equal(sr_store_open(f->where, &o, &s), -ENOENT);
  o.settings = NULL;
  o.flush_method = 3;
  assert_int_equal(sr_store_open(f->where, &o, &s), -EINVAL);
  o.flush_method = 0;
  assert_string_equal(f->log, "/nowhere: there are no such settings\n");

  /* Damaged: it says so, and the store opens. */
  write_settings(f, "queue_depth = 32\npoll_us = soon\n");
  st = stats_with(f, &o);
  assert_true(st.queue_depth == 256 && st.poll_us == 50 && st.flush_method == SR_FLUSH_FUA);
  assert_non_null(strstr(f->log, "line 2: poll_us = soon"));
  assert_non_null(strstr(f->log, "shard-bench tune"));
  /* A store is formatted anew around them. */
  struct sr_format_options format = SR_FORMAT_OPTIONS_INIT;
  format.size_bytes = 32 * MIB;
  format.force = true;
  write_settings(f, "queue_depth = 16\n");
  assert_int_equal(sr_format(f->where, &format), 0);
  assert_int_equal(stats_with(f, &o).queue_depth, 16);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {
      TEST(flushed_data_persists),
      TEST(close_makes_durable),
      TEST(unflushed_rewrite_recovers_the_old_bytes),
      TEST(durable_requests_survive_alone),
      TEST(needs_flush_is_exact),
      TEST(any_number_of_cores_opens_any_number_of_shards),
      TEST(second_opener_is_refused),
      TEST(a_crash_frees_the_lock),
      TEST(read_only_changes_no_byte),
      TEST(not_a_store),
      TEST(format_refuses_what_is_there),
      TEST(impossible_options),
      TEST(swapped_and_foreign_regions),
      TEST(damaged_identity),
      TEST(identity_beyond_the_end),
      TEST(truncated_region),
      TEST(damaged_roots),
      TEST(a_lost_root_slot_is_survived),
      TEST(wrong_hints_do_no_harm),
      TEST(no_permission),
      TEST(slices_of_files_and_descriptors),
      TEST(one_shard_over_two_files),
      TEST(in_memory),
      TEST(grows),
      TEST(grows_by_a_device),
      TEST(settings_are_used),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
