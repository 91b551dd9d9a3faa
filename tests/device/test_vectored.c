/* test_vectored.c - one transfer of many pieces of memory, on all engines: whole, short, refused
 * for now. The pool's calls go through the linker's --wrap, so that they are short or refused when
 * the test wants it; a ring gets such answers from pipes. */
#include <errno.h>

#include "tests/device/device_testing.h"

#define FILE_BYTES (UINT64_C(4) << 20)
#define BLOCKS     (FILE_BYTES / BLOCK_BYTES)
#define DEPTH      8u
#define IOS_MAX    64u
#define ENTRIES    64u

static const struct device_ops *const engines[] = {&device_uring, &device_pool, &device_mem,
                                                   &device_null};

struct job {
  struct io io;
  struct iovec iov[ENTRIES], before[ENTRIES];
  uint32_t entries;
  bool done;
};
static struct job jobs[IOS_MAX];
static struct device *device;
static struct backing *backing;
static char *disk, *memory; /* what the backing holds; where the pieces lie */
static uint64_t dice = 5;

static uint64_t up_to(uint64_t n) {
  dice = dice * UINT64_C(6364136223846793005) + 1442695040888963407;
  return (dice >> 33) % n;
}

static bool open_rig(const struct device_ops *ops) {
  const struct device_options options = {
      .queue_depth = DEPTH, .file_count = 1, .clock = clock_monotonic};
  if (ops == &device_uring && uring_probe() < 0) {
    fprintf(stderr, "skipped: io_uring is refused here: %s\n", strerror(-uring_probe()));
    return false;
  }
  if (ops == &device_mem || ops == &device_null)
    assert_int_equal(backing_open_memory(&backing, FILE_BYTES), 0);
  else
    backing = scratch_file("vectored", FILE_BYTES);
  assert_int_equal(ops->create(&device, &options), 0);
  assert_int_equal(ops->attach(device, 0, backing), 0);
  disk = aligned_buffer(FILE_BYTES);
  memory = aligned_buffer(2 * FILE_BYTES);
  return true;
}

static void close_rig(void) {
  device->ops->destroy(device);
  backing_close(backing);
  free(disk);
  free(memory);
}

static void note_done(struct io *io) {
  struct job *j = container_of(io, struct job, io);
  assert_false(j->done);
  j->done = true;
}

static void wait_for(struct job *j) {
  while (!j->done)
    if (!device_poll(device)) device->ops->sleep(device, -1);
}

/* The array as the engine is given it; the caller finds it as it was. */
static void start(struct job *j, uint8_t op, uint8_t flags, uint64_t offset) {
  uint32_t bytes = 0;
  for (uint32_t i = 0; i < j->entries; i++) bytes += (uint32_t)j->iov[i].iov_len;
  memcpy(j->before, j->iov, sizeof j->iov);
  j->done = false;
  j->io = (struct io){.done = note_done,
                      .buf = j->iov,
                      .offset = offset,
                      .bytes = bytes,
                      .op = op,
                      .flags = flags | IO_VECTORED};
  device_submit(device, &j->io);
}

static void expect_array(const struct job *j) {
  assert_memory_equal(j->before, j->iov, j->entries * sizeof j->iov[0]);
}

/* Of one to three blocks each, in random order and with gaps in memory; `at` of it on. Returns how
 * many blocks they have. */
static uint32_t scatter(struct job *j, uint32_t entries, char *at) {
  uint32_t blocks = 0;
  j->entries = entries;
  for (uint32_t i = 0; i < entries; i++) {
    uint32_t n = 1 + (uint32_t)up_to(3);
    j->iov[i] = (struct iovec){at + ((i ^ 1) * 4 + up_to(2)) * BLOCK_BYTES, n * BLOCK_BYTES};
    blocks += n;
  }
  return blocks;
}

static void copy_pieces(const struct job *j, char *row, bool out) {
  for (uint32_t i = 0; i < j->entries; i++) {
    memcpy(out ? row : j->iov[i].iov_base, out ? j->iov[i].iov_base : row, j->iov[i].iov_len);
    row += j->iov[i].iov_len;
  }
}

static void fill(char *at, uint64_t bytes, uint64_t seed) {
  for (uint64_t i = 0; i < bytes / 8; i++) ((uint64_t *)(void *)at)[i] = seed * 1000003 + i;
}

static char row[ENTRIES * 3 * BLOCK_BYTES];

/* Many at a time, more than the engine takes at once: writes, then reads, into other memory. */
static void round_trip(const struct device_ops *ops) {
  const uint64_t span = FILE_BYTES / IOS_MAX; /* of one job, on disk; of memory twice as much */
  for (uint32_t i = 0; i < IOS_MAX; i++) {
    uint32_t blocks = scatter(&jobs[i], 1 + (uint32_t)up_to(5), memory + i * 2 * span);
    fill(disk + i * span, blocks * BLOCK_BYTES, i + 1);
    copy_pieces(&jobs[i], disk + i * span, false);
    start(&jobs[i], IO_WRITE, i % 3 ? 0 : IO_FUA, i * span);
  }
  for (uint32_t i = 0; i < IOS_MAX; i++) {
    wait_for(&jobs[i]);
    assert_int_equal(jobs[i].io.result, 0);
    expect_array(&jobs[i]);
  }
  memset(memory, 0, 2 * FILE_BYTES);
  for (uint32_t i = 0; i < IOS_MAX; i++) {
    scatter(&jobs[i], 1 + (uint32_t)up_to(5), memory + i * 2 * span);
    start(&jobs[i], IO_READ, 0, i * span);
  }
  for (uint32_t i = 0; i < IOS_MAX; i++) {
    wait_for(&jobs[i]);
    assert_int_equal(jobs[i].io.result, 0);
    expect_array(&jobs[i]);
    copy_pieces(&jobs[i], row, true);
    if (ops != &device_null) {
      assert_int_equal(backing->ops->read(backing, disk + i * span, span, i * span), 0);
      assert_memory_equal(row, disk + i * span, jobs[i].io.bytes);
    }
  }
  struct device_stats stats;
  ops->stats(device, &stats);
  assert_int_equal(stats.ios, 2 * IOS_MAX);
  assert_int_equal(stats.fua_writes, (IOS_MAX + 2) / 3);
}

static void pieces_are_one_transfer(void **state) {
  (void)state;
  for (size_t i = 0; i < array_size(engines); i++) {
    if (!open_rig(engines[i])) continue;
    round_trip(engines[i]);
    close_rig();
  }
}

/* What was written before is what a plain read finds. */
static void the_data_is_where_it_belongs(void **state) {
  (void)state;
  for (size_t i = 0; i + 1 < array_size(engines); i++) {
    if (!open_rig(engines[i])) continue;
    struct job *j = &jobs[0];
    uint32_t bytes = scatter(j, ENTRIES, memory) * BLOCK_BYTES;
    fill(row, bytes, 77);
    copy_pieces(j, row, false);
    copy_pieces(j, row, true); /* pieces may share memory */
    start(j, IO_WRITE, 0, 7 * BLOCK_BYTES);
    wait_for(j);
    assert_int_equal(j->io.result, 0);
    assert_int_equal(backing->ops->read(backing, disk, 8 * BLOCK_BYTES + bytes, 0), 0);
    assert_memory_equal(disk + 7 * BLOCK_BYTES, row, bytes);
    for (uint32_t k = 0; k < BLOCK_BYTES; k++) {
      assert_int_equal(disk[6 * BLOCK_BYTES + k], 0);
      assert_int_equal(disk[7 * BLOCK_BYTES + bytes + k], 0);
    }
    close_rig();
  }
}

/* The first answer is short, in the middle of a piece; the rest meets the end of the file. */
static void the_end_of_the_file_is_met(void **state) {
  (void)state;
  for (size_t i = 0; i + 1 < array_size(engines); i++) {
    if (!open_rig(engines[i])) continue;
    struct job *j = &jobs[0];
    fill(disk, 3 * BLOCK_BYTES, 3);
    uint64_t at = FILE_BYTES - 3 * BLOCK_BYTES;
    assert_int_equal(backing->ops->write(backing, disk, 3 * BLOCK_BYTES, at), 0);
    j->entries = 3;
    for (uint32_t k = 0; k < 3; k++)
      j->iov[k] = (struct iovec){memory + k * 4 * BLOCK_BYTES, 2 * BLOCK_BYTES};
    start(j, IO_READ, 0, at);
    wait_for(j);
    assert_int_equal(j->io.result, -EIO);
    expect_array(j);
    if (engines[i] != &device_mem) { /* that one looks first */
      copy_pieces(j, row, true);
      assert_memory_equal(row, disk, 3 * BLOCK_BYTES);
    }
    close_rig();
  }
}

/* ---- Short answers whose rest comes ---------------------------------------------------------- */

static uint32_t shorts, refused;
static bool meddle;
ssize_t __real_preadv64(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int n, off_t offset);
ssize_t __real_pwritev64v2(int fd, const struct iovec *iov, int n, off_t offset, int flags);
ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int n, off_t offset, int flags);

/* What is left of a call: entries, the last of them cut. */
static int cut(const struct iovec *iov, int n, struct iovec *to) {
  uint64_t bytes = 0;
  for (int i = 0; i < n; i++) bytes += iov[i].iov_len;
  uint64_t keep = BLOCK_BYTES + up_to(bytes - BLOCK_BYTES + 1) / 512 * 512;
  __atomic_add_fetch(&shorts, keep / BLOCK_BYTES < bytes / BLOCK_BYTES, __ATOMIC_RELAXED);
  keep = round_down(keep, 512);
  int k = 0;
  for (; keep > 0; k++) {
    to[k] = (struct iovec){iov[k].iov_base, min_u64(iov[k].iov_len, keep)};
    keep -= to[k].iov_len;
  }
  return k;
}

static bool refuse(void) {
  if (!meddle || up_to(4)) return false;
  __atomic_add_fetch(&refused, 1, __ATOMIC_RELAXED);
  errno = up_to(2) ? EAGAIN : EINTR;
  return true;
}

ssize_t __wrap_preadv64(int fd, const struct iovec *iov, int n, off_t offset) {
  struct iovec less[ENTRIES];
  if (refuse()) return -1;
  return meddle ? __real_preadv64(fd, less, cut(iov, n, less), offset)
                : __real_preadv64(fd, iov, n, offset);
}

ssize_t __wrap_pwritev64v2(int fd, const struct iovec *iov, int n, off_t offset, int flags) {
  struct iovec less[ENTRIES];
  if (refuse()) return -1;
  return meddle ? __real_pwritev64v2(fd, less, cut(iov, n, less), offset, flags)
                : __real_pwritev64v2(fd, iov, n, offset, flags);
}

/* One at a time: the threads share the dice. */
static void the_pool_completes_short_ones(void **state) {
  (void)state;
  assert_true(open_rig(&device_pool));
  meddle = true;
  for (uint32_t i = 0; i < 200; i++) {
    struct job *j = &jobs[0];
    uint32_t blocks = scatter(j, 1 + (uint32_t)up_to(12), memory);
    uint64_t at = up_to(BLOCKS - blocks) * BLOCK_BYTES;
    bool write = up_to(2);
    if (write) {
      fill(memory, 64 * BLOCK_BYTES, i + 100);
      copy_pieces(j, disk + at, true);
    }
    start(j, write ? IO_WRITE : IO_READ, write && up_to(3) == 0 ? IO_FUA : 0, at);
    wait_for(j);
    assert_int_equal(j->io.result, 0);
    expect_array(j);
    copy_pieces(j, row, true);
    /* Blocks that no write has touched are zeros in both. */
    assert_memory_equal(row, disk + at, (size_t)blocks * BLOCK_BYTES);
  }
  meddle = false;
  assert_true(shorts > 50 && refused > 20);
  struct device_stats stats;
  device->ops->stats(device, &stats);
  assert_true(stats.short_ios >= shorts); /* and rows of a rest */
  assert_int_equal(stats.retried_ios, refused);
  assert_int_equal(backing->ops->read(backing, memory, FILE_BYTES, 0), 0);
  assert_memory_equal(memory, disk, FILE_BYTES);
  close_rig();
}

/* Five blocks in pieces of two, one and two come as one, three (which ends in the middle of the
 * last piece) and one. */
static void a_ring_completes_short_ones(void **state) {
  (void)state;
  static const uint32_t portions[] = {1, 3, 1};
  if (!open_rig(&device_uring)) skip();
  int pipes[2];
  assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
  struct backing end = {.fd = pipes[0]};
  assert_int_equal(device->ops->attach(device, 0, &end), 0);
  struct job *j = &jobs[0];
  j->entries = 3;
  j->iov[0] = (struct iovec){memory + 8 * BLOCK_BYTES, 2 * BLOCK_BYTES};
  j->iov[1] = (struct iovec){memory, BLOCK_BYTES};
  j->iov[2] = (struct iovec){memory + 4 * BLOCK_BYTES, 2 * BLOCK_BYTES};
  fill(disk, 5 * BLOCK_BYTES, 9);
  start(j, IO_READ, 0, 0);
  for (uint32_t i = 0, at = 0; i < 3; at += portions[i++] * BLOCK_BYTES) {
    uint32_t bytes = portions[i] * BLOCK_BYTES;
    for (int k = 0; k < 20; k++) device_poll(device);
    assert_false(j->done);
    assert_int_equal(write(pipes[1], disk + at, bytes), bytes);
    while (!j->done && j->io.moved < at + bytes) device_poll(device);
  }
  wait_for(j);
  assert_int_equal(j->io.result, 0);
  expect_array(j);
  copy_pieces(j, row, true);
  assert_memory_equal(row, disk, 5 * BLOCK_BYTES);
  struct device_stats stats;
  device->ops->stats(device, &stats);
  assert_int_equal(stats.ios, 1);
  assert_int_equal(stats.short_ios, 4); /* after 1, 2, 3 and 4 blocks */
  close(pipes[0]);
  close(pipes[1]);
  close_rig();
}

/* A row of a rest lies in registered memory, or not. */
static void registered_memory_may_be_among_them(void **state) {
  (void)state;
  for (size_t i = 0; i + 1 < array_size(engines); i++) {
    if (!open_rig(engines[i])) continue;
    assert_int_equal(device->ops->register_memory(device, 0, memory, 1 << 20), 0);
    struct job *j = &jobs[0];
    j->entries = 2;
    j->iov[0] = (struct iovec){memory, BLOCK_BYTES};
    j->iov[1] = (struct iovec){memory + FILE_BYTES, BLOCK_BYTES};
    fill(memory, BLOCK_BYTES, 1);
    fill(memory + FILE_BYTES, BLOCK_BYTES, 2);
    copy_pieces(j, row, true);
    start(j, IO_WRITE, 0, 0);
    wait_for(j);
    assert_int_equal(j->io.result, 0);
    assert_int_equal(backing->ops->read(backing, disk, 2 * BLOCK_BYTES, 0), 0);
    assert_memory_equal(disk, row, 2 * BLOCK_BYTES);
    device->ops->unregister_memory(device, 0);
    close_rig();
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(pieces_are_one_transfer),
      cmocka_unit_test(the_data_is_where_it_belongs),
      cmocka_unit_test(the_end_of_the_file_is_met),
      cmocka_unit_test(the_pool_completes_short_ones),
      cmocka_unit_test(a_ring_completes_short_ones),
      cmocka_unit_test(registered_memory_may_be_among_them),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
