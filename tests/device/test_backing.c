/* test_backing.c - backings: how descriptors are opened, locks, synchronous transfers, space. */
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/device/device_testing.h"

static char path[512];

static int set_up(void **state) {
  (void)state;
  scratch_path(path, sizeof path, "backing");
  unlink(path);
  return 0;
}
static int tear_down(void **state) {
  (void)state;
  unlink(path);
  return 0;
}

static struct backing *open_file(bool create, bool read_only) {
  struct backing *b;
  const struct backing_open how = {.create = create, .read_only = read_only};
  assert_int_equal(backing_open_path(&b, path, &how, NULL), 0);
  return b;
}

/* Whether the place of the tests does direct I/O at all, found out without the code under test. */
static bool direct_works(void) {
  int fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0600);
  if (fd >= 0) close(fd);
  unlink(path);
  return fd >= 0;
}

static void opens_direct_and_close_on_exec(void **state) {
  (void)state;
  bool direct = direct_works();
  struct backing *b = open_file(true, false);
  assert_int_equal(!!(fcntl(b->fd, F_GETFL) & O_DIRECT), direct);
  assert_true(fcntl(b->fd, F_GETFD) & FD_CLOEXEC);
  assert_true(fcntl(b->fd, F_GETFL) & O_NOATIME); /* the file is ours */
  struct stat st;
  assert_int_equal(fstat(b->fd, &st), 0);
  assert_int_equal(b->device_id, st.st_dev);
  assert_false(b->is_block_device);
  assert_string_equal(b->name, path);
  backing_close(b);
  const struct backing_open buffered = {.buffered = true};
  assert_int_equal(backing_open_path(&b, path, &buffered, NULL), 0);
  assert_false(fcntl(b->fd, F_GETFL) & O_DIRECT);
  backing_close(b);
  backing_close(NULL);
}

static void refuses_what_holds_no_blocks(void **state) {
  (void)state;
  struct backing *b = NULL;
  const struct backing_open plain = {0}, anew = {.exclusive_create = true};
  assert_int_equal(backing_open_path(&b, path, &plain, NULL), -ENOENT);
  assert_int_equal(backing_open_path(&b, "/dev/null", &plain, NULL), -EINVAL);
  assert_int_equal(backing_open_path(&b, "/", &plain, NULL), -EISDIR);
  assert_int_equal(mkfifo(path, 0600), 0);
  assert_int_equal(backing_open_path(&b, path, &plain, NULL), -EINVAL); /* and does not wait */
  assert_int_equal(backing_open_path(&b, path, &anew, NULL), -EINVAL);
  unlink(path);
  struct backing *file = open_file(true, false);
  assert_int_equal(backing_open_path(&b, path, &anew, NULL), -EEXIST);
  backing_close(file);
  int pipes[2];
  assert_int_equal(pipe(pipes), 0);
  assert_int_equal(backing_open_fd(&b, pipes[0], true, NULL), -EINVAL);
  close(pipes[0]);
  close(pipes[1]);
  assert_int_equal(backing_open_fd(&b, -1, true, NULL), -EBADF);
  assert_null(b);
}

static void adopts_a_duplicate(void **state) {
  (void)state;
  bool direct = direct_works();
  int fd = open(path, O_RDWR | O_CREAT, 0600);
  assert_int_equal(ftruncate(fd, 3 * BLOCK_BYTES + 100), 0);
  struct backing *b;
  assert_int_equal(backing_open_fd(&b, fd, false, NULL), 0);
  assert_int_not_equal(b->fd, fd);
  assert_true(fcntl(b->fd, F_GETFD) & FD_CLOEXEC);
  assert_int_equal(!!(fcntl(b->fd, F_GETFL) & O_DIRECT), direct);
  assert_int_equal(b->bytes, 3 * BLOCK_BYTES); /* whole blocks only */
  close(fd);
  char *buf = aligned_buffer(BLOCK_BYTES);
  assert_int_equal(b->ops->read(b, buf, BLOCK_BYTES, 2 * BLOCK_BYTES), 0);
  backing_close(b);
  static const struct {
    int flags;
    bool read_only;
    int rc;
  } cases[] = {
      {O_RDONLY, false, -EBADF}, {O_WRONLY, false, -EBADF},           {O_WRONLY, true, -EBADF},
      {O_PATH, true, -EBADF},    {O_RDWR | O_APPEND, false, -EINVAL}, {O_RDONLY, true, 0},
      {O_RDWR, true, 0}};
  for (size_t i = 0; i < array_size(cases); i++) {
    fd = open(path, cases[i].flags);
    int rc = backing_open_fd(&b, fd, cases[i].read_only, NULL);
    assert_int_equal(rc, cases[i].rc);
    if (rc == 0) backing_close(b);
    close(fd);
  }
  free(buf);
}

/* ---- Locks ------------------------------------------------------------------------------- */

static void a_second_owner_is_refused(void **state) {
  (void)state;
  struct backing *a = open_file(true, false), *b = open_file(false, false);
  assert_int_equal(a->ops->lock(a, true, 0), 0);
  uint64_t before = clock_now_ns(&clock_monotonic);
  assert_int_equal(b->ops->lock(b, true, 20), -EBUSY);
  assert_true(clock_now_ns(&clock_monotonic) - before >= 19000000); /* it waited, and gave up */
  struct backing *reader = open_file(false, true);
  assert_int_equal(reader->ops->lock(reader, false, 0), -EBUSY);
  assert_int_equal(reader->ops->lock(reader, true, 0), -EROFS);
  backing_close(a); /* the lock goes with it */
  assert_int_equal(reader->ops->lock(reader, false, 0), 0);
  struct backing *second_reader = open_file(false, true);
  assert_int_equal(second_reader->ops->lock(second_reader, false, 0), 0); /* shared */
  assert_int_equal(b->ops->lock(b, true, 0), -EBUSY);
  backing_close(reader);
  backing_close(second_reader);
  assert_int_equal(b->ops->lock(b, true, 0), 0);
  backing_close(b);
}

static void a_killed_owner_frees_the_lock(void **state) {
  (void)state;
  struct backing *b = open_file(true, false);
  int ready[2];
  assert_int_equal(pipe(ready), 0);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) {
    struct backing *mine;
    const struct backing_open how = {0};
    char ok =
        backing_open_path(&mine, path, &how, NULL) == 0 && mine->ops->lock(mine, true, 0) == 0;
    if (write(ready[1], &ok, 1) != 1) _exit(1);
    for (;;) pause();
  }
  char ok = 0;
  assert_int_equal(read(ready[0], &ok, 1), 1);
  assert_int_equal(ok, 1);
  assert_int_equal(b->ops->lock(b, true, 10), -EBUSY);
  assert_int_equal(kill(child, SIGKILL), 0);
  assert_int_equal(waitpid(child, NULL, 0), child);
  assert_int_equal(b->ops->lock(b, true, 1000), 0);
  backing_close(b);
  close(ready[0]);
  close(ready[1]);
}

/* ---- Transfers and space ----------------------------------------------------------------- */

static void transfers_are_whole_or_errors(struct backing *b) {
  const struct backing_ops *ops = b->ops;
  const uint64_t bytes = 16 * BLOCK_BYTES;
  char *out = aligned_buffer(bytes), *in = aligned_buffer(bytes);
  for (uint64_t i = 0; i < bytes; i++) out[i] = (char)(i * 31 >> 3);
  assert_int_equal(b->bytes, 0);
  assert_int_equal(ops->resize(b, bytes, true), 0);
  assert_int_equal(b->bytes, bytes);
  assert_int_equal(ops->write(b, out, bytes, 0), 0);
  assert_int_equal(ops->flush(b), 0);
  assert_int_equal(ops->read(b, in, bytes, 0), 0);
  assert_memory_equal(in, out, bytes);
  assert_int_equal(ops->read(b, in, 0, bytes), 0);
  assert_int_equal(ops->read(b, in, BLOCK_BYTES, bytes), -EIO);
  assert_int_equal(ops->read(b, in, 2 * BLOCK_BYTES, bytes - BLOCK_BYTES), -EIO);
  assert_int_equal(ops->read(b, in, BLOCK_BYTES, UINT64_MAX - BLOCK_BYTES + 1), -EIO);
  assert_int_equal(ops->write(b, out, BLOCK_BYTES, bytes), -EIO);
  assert_int_equal(ops->read(b, in, 512, 0), -EINVAL);
  assert_int_equal(ops->write(b, out, BLOCK_BYTES, 512), -EINVAL);
  assert_int_equal(ops->resize(b, 100, false), -EINVAL);
  /* Cut off and given back: zeros. */
  assert_int_equal(ops->resize(b, BLOCK_BYTES, false), 0);
  assert_int_equal(ops->read(b, in, 2 * BLOCK_BYTES, 0), -EIO);
  assert_int_equal(ops->resize(b, bytes, true), 0);
  assert_int_equal(ops->read(b, in, bytes, 0), 0);
  assert_memory_equal(in, out, BLOCK_BYTES);
  for (uint64_t i = BLOCK_BYTES; i < bytes; i++) assert_int_equal(in[i], 0);
  free(out);
  free(in);
}

static void file_transfers(void **state) {
  (void)state;
  struct backing *b = open_file(true, false);
  transfers_are_whole_or_errors(b);
  struct stat st;
  assert_int_equal(fstat(b->fd, &st), 0);
  assert_int_equal(st.st_size, 16 * BLOCK_BYTES);
  assert_true(st.st_blocks * 512 >= 16 * (blkcnt_t)BLOCK_BYTES); /* reserved */
  int rc = b->ops->punch(b, 8 * BLOCK_BYTES, 4 * BLOCK_BYTES);
  assert_true(rc == 0 || rc == -EOPNOTSUPP);
  if (rc == 0) {
    blkcnt_t before = st.st_blocks;
    assert_int_equal(fstat(b->fd, &st), 0);
    assert_true(st.st_blocks < before);
  }
  assert_int_equal(b->ops->punch(b, BLOCK_BYTES, 16 * BLOCK_BYTES), -EIO);
  backing_close(b);
}

static void memory_transfers(void **state) {
  (void)state;
  struct backing *b;
  assert_int_equal(backing_open_memory(&b, 0), -EINVAL);
  assert_int_equal(backing_open_memory(&b, 100), -EINVAL);
  assert_int_equal(backing_open_memory(&b, BLOCK_BYTES), 0);
  assert_int_equal(b->fd, -1);
  const char *memory = b->memory;
  assert_int_equal(b->ops->resize(b, 0, false), 0);
  transfers_are_whole_or_errors(b);
  assert_ptr_equal(b->memory, memory); /* engines hold on to it */
  assert_int_equal(b->ops->punch(b, 8 * BLOCK_BYTES, 0), 0);
  assert_int_equal(memory[0], 0);
  backing_close(b);
}

static void read_only_changes_nothing(void **state) {
  (void)state;
  struct backing *b = open_file(true, false);
  assert_int_equal(b->ops->resize(b, 4 * BLOCK_BYTES, true), 0);
  backing_close(b);
  b = open_file(false, true);
  char *buf = aligned_buffer(BLOCK_BYTES);
  assert_int_equal(b->bytes, 4 * BLOCK_BYTES);
  assert_int_equal(b->ops->read(b, buf, BLOCK_BYTES, 0), 0);
  assert_int_equal(b->ops->write(b, buf, BLOCK_BYTES, 0), -EROFS);
  assert_int_equal(b->ops->resize(b, 0, false), -EROFS);
  assert_int_equal(b->ops->punch(b, BLOCK_BYTES, 0), -EROFS);
  backing_close(b);
  free(buf);
}

/* A failed growth leaves the length as it was. */
static void no_space_changes_nothing(void **state) {
  (void)state;
  struct backing *b = open_file(true, false);
  assert_int_equal(b->ops->resize(b, BLOCK_BYTES, true), 0);
  int rc = b->ops->resize(b, UINT64_C(1) << 50, true);
  assert_true(rc == -ENOSPC || rc == -EFBIG);
  assert_int_equal(b->bytes, BLOCK_BYTES);
  struct stat st;
  assert_int_equal(fstat(b->fd, &st), 0);
  assert_int_equal(st.st_size, BLOCK_BYTES);
  backing_close(b);
}

/* ---- NUMA node from a made-up /sys ------------------------------------------------------- */

static void put_file(const char *name, const char *text) {
  FILE *f = fopen(name, "w");
  assert_non_null(f);
  fputs(text, f);
  fclose(f);
}

static void run(const char *command) { assert_int_equal(system(command), 0); }

static void finds_the_numa_node(void **state) {
  (void)state;
  char command[2048], name[1024];
  snprintf(command, sizeof command,
           "p=%s && mkdir -p $p/dev/block $p/devices/pci0/0000:01/nvme/nvme0/n1/n1p2 "
           "$p/devices/pci0/0000:02/virtio/block/vda $p/devices/virtual/dm-0/slaves "
           "$p/devices/virtual/dm-1/slaves $p/devices/virtual/loop0 && "
           "ln -s ../../devices/pci0/0000:01/nvme/nvme0/n1/n1p2 $p/dev/block/259:2 && "
           "ln -s ../../devices/pci0/0000:02/virtio/block/vda $p/dev/block/254:0 && "
           "ln -s ../../devices/virtual/dm-0 $p/dev/block/253:0 && "
           "ln -s ../../devices/virtual/dm-1 $p/dev/block/253:1 && "
           "ln -s ../../devices/virtual/loop0 $p/dev/block/7:0 && "
           "ln -s ../../../pci0/0000:01/nvme/nvme0/n1/n1p2 $p/devices/virtual/dm-0/slaves/a && "
           "ln -s ../../../pci0/0000:01/nvme/nvme0/n1/n1p2 $p/devices/virtual/dm-1/slaves/a && "
           "ln -s ../../../pci0/0000:02/virtio/block/vda $p/devices/virtual/dm-1/slaves/b",
           path);
  run(command);
  snprintf(name, sizeof name, "%s/devices/pci0/0000:01/numa_node", path);
  put_file(name, "3\n");
  snprintf(name, sizeof name, "%s/devices/pci0/0000:02/numa_node", path);
  put_file(name, "-1\n");
  assert_int_equal(sysfs_numa_node(path, 259, 2), 3);  /* a partition */
  assert_int_equal(sysfs_numa_node(path, 253, 0), 3);  /* stacked on it */
  assert_int_equal(sysfs_numa_node(path, 254, 0), -1); /* its controller does not know */
  assert_int_equal(sysfs_numa_node(path, 253, 1), -1); /* parts that do not agree */
  assert_int_equal(sysfs_numa_node(path, 7, 0), -1);   /* virtual */
  assert_int_equal(sysfs_numa_node(path, 0, 55), -1);  /* not there */
  assert_int_equal(sysfs_numa_node("/nowhere", 259, 2), -1);
  snprintf(command, sizeof command, "rm -r %s", path);
  run(command);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      CASE(opens_direct_and_close_on_exec),
      CASE(refuses_what_holds_no_blocks),
      CASE(adopts_a_duplicate),
      CASE(a_second_owner_is_refused),
      CASE(a_killed_owner_frees_the_lock),
      CASE(file_transfers),
      CASE(memory_transfers),
      CASE(read_only_changes_nothing),
      CASE(no_space_changes_nothing),
      CASE(finds_the_numa_node),
  };
  return cmocka_run_group_tests_name("backing", tests, NULL, NULL);
}
