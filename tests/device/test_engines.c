/* test_engines.c - one suite over all engines: what device.h promises, whoever does the I/O. */
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>

#include "tests/device/device_testing.h"

#define FILE_BYTES (UINT64_C(8) << 20)
#define DEPTH      16u
#define IOS_MAX    1024u

struct engine_case {
  const struct device_ops *ops;
  bool in_memory; /* wants a memory backing */
  bool no_data;   /* moves none, sees no errors */
  bool rings;     /* reports what it registered */
};

struct rig {
  struct backing *backing;
  struct device *device;
  char *buffers;
  struct io ios[IOS_MAX];
  uint8_t done[IOS_MAX]; /* times done() ran */
  uint32_t done_count;
  int bell; /* an eventfd */
};
static struct rig rig;
static const struct engine_case *engine;

static struct device *make_device(uint32_t depth) {
  struct device *d;
  const struct device_options options = {
      .queue_depth = depth, .file_count = 4, .clock = clock_monotonic};
  assert_int_equal(engine->ops->create(&d, &options), 0);
  return d;
}

static int set_up(void **state) {
  engine = *state;
  if (engine->ops == &device_uring && uring_probe() < 0) {
    fprintf(stderr, "skipped: io_uring is refused here: %s\n", strerror(-uring_probe()));
    *state = NULL;
    return 0;
  }
  memset(&rig, 0, sizeof rig);
  if (engine->in_memory)
    assert_int_equal(backing_open_memory(&rig.backing, FILE_BYTES), 0);
  else
    rig.backing = scratch_file("engines", FILE_BYTES);
  rig.device = make_device(DEPTH);
  assert_int_equal(engine->ops->attach(rig.device, 1, rig.backing), 0);
  rig.buffers = aligned_buffer(2 * FILE_BYTES);
  return 0;
}

static int tear_down(void **state) {
  if (!*state) return 0;
  engine->ops->destroy(rig.device);
  backing_close(rig.backing);
  free(rig.buffers);
  return 0;
}

#define SKIP_WITHOUT_ENGINE(state)                                                                 \
  if (!*(state)) skip()

static void count_done(struct io *io) {
  rig.done[io - rig.ios]++;
  rig.done_count++;
}

static void submit(uint32_t index, uint8_t op, uint8_t flags, uint64_t offset, void *buf,
                   uint32_t bytes) {
  struct io *io = &rig.ios[index];
  *io = (struct io){.done = count_done,
                    .buf = buf,
                    .offset = offset,
                    .bytes = bytes,
                    .result = 1,
                    .file = 1,
                    .op = op,
                    .flags = flags};
  device_submit(rig.device, io);
}

static void run_until(uint32_t count) {
  while (rig.done_count < count) {
    if (device_poll(rig.device) == 0) rig.device->ops->sleep(rig.device, -1);
  }
  assert_int_equal(rig.done_count, count);
}

static void fill(char *buf, size_t bytes, uint64_t seed) {
  for (size_t i = 0; i < bytes / 8; i++) ((uint64_t *)(void *)buf)[i] = seed * 1000003 + i;
}

static struct device_stats stats_now(void) {
  struct device_stats stats;
  rig.device->ops->stats(rig.device, &stats);
  return stats;
}

/* All blocks in requests of different sizes, written, then read in another order. */
static void reads_back_what_was_written(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  char *expect = rig.buffers, *got = rig.buffers + FILE_BYTES;
  fill(expect, FILE_BYTES, 7);
  uint32_t count = 0;
  for (uint64_t at = 0; at < FILE_BYTES;) {
    uint64_t bytes = min_u64(FILE_BYTES - at, (count % 9 + 1) * BLOCK_BYTES);
    submit(count, IO_WRITE, count % 3 ? 0 : IO_FUA, at, expect + at, (uint32_t)bytes);
    count++;
    at += bytes;
  }
  run_until(count);
  for (uint32_t i = 0; i < count; i++) assert_int_equal(rig.ios[i].result, 0);
  uint32_t reads = (uint32_t)(FILE_BYTES / (32 * BLOCK_BYTES));
  rig.done_count = 0;
  for (uint32_t i = 0; i < reads; i++) {
    uint64_t at = (uint64_t)(reads - 1 - i) * 32 * BLOCK_BYTES;
    submit(i, IO_READ, 0, at, got + at, 32 * BLOCK_BYTES);
  }
  run_until(reads);
  for (uint32_t i = 0; i < reads; i++) assert_int_equal(rig.ios[i].result, 0);
  if (!engine->no_data) assert_memory_equal(expect, got, FILE_BYTES);
}

/* The largest request; into the backing's own view as well. */
static void moves_the_largest_request(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  char *other = rig.buffers + FILE_BYTES;
  fill(rig.buffers, IO_BYTES_MAX, 11);
  submit(0, IO_WRITE, 0, 3 * IO_BYTES_MAX, rig.buffers, IO_BYTES_MAX);
  run_until(1);
  assert_int_equal(rig.ios[0].result, 0);
  if (engine->no_data) return;
  assert_int_equal(rig.backing->ops->read(rig.backing, other, IO_BYTES_MAX, 3 * IO_BYTES_MAX), 0);
  assert_memory_equal(rig.buffers, other, IO_BYTES_MAX);
}

static void finishes_each_exactly_once(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  for (uint32_t i = 0; i < IOS_MAX; i++)
    submit(i,
           i % 5 == 4 ? IO_FLUSH
           : i % 2    ? IO_READ
                      : IO_WRITE,
           0, i * BLOCK_BYTES, rig.buffers + i * BLOCK_BYTES, BLOCK_BYTES);
  assert_int_equal(rig.device->ops->in_flight(rig.device), IOS_MAX);
  assert_int_equal(rig.done_count, 0); /* never before a poll */
  run_until(IOS_MAX);
  for (int i = 0; i < 100; i++) assert_int_equal(device_poll(rig.device), 0);
  for (uint32_t i = 0; i < IOS_MAX; i++) {
    assert_int_equal(rig.done[i], 1);
    assert_int_equal(rig.ios[i].result, 0);
  }
  assert_int_equal(rig.device->ops->in_flight(rig.device), 0);
  struct device_stats stats = stats_now();
  assert_int_equal(stats.ios, IOS_MAX);
  assert_int_equal(stats.flushes, IOS_MAX / 5);
  if (!engine->in_memory && !engine->no_data) assert_in_range(stats.in_flight_max, 1, DEPTH);
}

/* One poll starts what was submitted by at most one call. */
static void starts_a_batch_at_once(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  for (uint32_t i = 0; i < DEPTH; i++)
    submit(i, IO_READ, 0, i * BLOCK_BYTES, rig.buffers + i * BLOCK_BYTES, BLOCK_BYTES);
  assert_int_equal(stats_now().submits, 0);
  device_poll(rig.device);
  assert_int_equal(stats_now().submits, 1);
  run_until(DEPTH);
}

static uint32_t chain_left;
static bool inside_poll;
static void submit_again(struct io *io) {
  check(inside_poll);
  check(io->result == 0);
  rig.done_count++;
  if (chain_left == 0) return;
  chain_left--;
  device_submit(rig.device, io);
}

static void done_may_submit(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  chain_left = 3000;
  for (uint32_t i = 0; i < 3 * DEPTH; i++) {
    submit(i, IO_READ, 0, i * BLOCK_BYTES, rig.buffers + i * BLOCK_BYTES, BLOCK_BYTES);
    rig.ios[i].done = submit_again;
  }
  while (rig.done_count < 3000 + 3 * DEPTH) {
    inside_poll = true;
    uint32_t count = device_poll(rig.device);
    inside_poll = false;
    if (count == 0) rig.device->ops->sleep(rig.device, -1);
  }
  assert_int_equal(chain_left, 0);
  assert_int_equal(rig.done_count, 3000 + 3 * DEPTH);
}

static void writes_through_and_flushes(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  char *got = rig.buffers + FILE_BYTES;
  fill(rig.buffers, BLOCK_BYTES, 3);
  submit(0, IO_WRITE, IO_FUA, 5 * BLOCK_BYTES, rig.buffers, BLOCK_BYTES);
  run_until(1);
  submit(1, IO_FLUSH, 0, 0, NULL, 0);
  /* What a flush has in its other fields is nobody's business. */
  submit(2, IO_FLUSH, 0, 12345, (void *)1, UINT32_MAX - 4);
  run_until(3);
  for (int i = 0; i < 3; i++) assert_int_equal(rig.ios[i].result, 0);
  struct device_stats stats = stats_now();
  assert_int_equal(stats.flushes, 2);
  assert_int_equal(stats.fua_writes, 1);
  if (engine->no_data) return;
  assert_int_equal(rig.backing->ops->read(rig.backing, got, BLOCK_BYTES, 5 * BLOCK_BYTES), 0);
  assert_memory_equal(rig.buffers, got, BLOCK_BYTES);
}

static void reading_past_the_end_is_an_error(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  if (engine->no_data) return; /* it looks at no file */
  submit(0, IO_READ, 0, FILE_BYTES, rig.buffers, BLOCK_BYTES);
  submit(1, IO_READ, 0, FILE_BYTES - BLOCK_BYTES, rig.buffers + BLOCK_BYTES,
         2 * BLOCK_BYTES); /* half there */
  submit(2, IO_READ, 0, FILE_BYTES - BLOCK_BYTES, rig.buffers + 3 * BLOCK_BYTES, BLOCK_BYTES);
  run_until(3);
  assert_int_equal(rig.ios[0].result, -EIO);
  assert_int_equal(rig.ios[1].result, -EIO);
  assert_int_equal(rig.ios[2].result, 0);
}

static void an_empty_slot_is_an_error(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  if (engine->no_data) return; /* it looks at no file */
  submit(0, IO_READ, 0, 0, rig.buffers, BLOCK_BYTES);
  run_until(1);
  rig.ios[1] = rig.ios[0];
  rig.ios[1].file = 3;
  device_submit(rig.device, &rig.ios[1]);
  run_until(2);
  assert_int_equal(rig.ios[1].result, -EBADF);
  assert_int_equal(engine->ops->attach(rig.device, 4, rig.backing), -EINVAL);
}

/* Small writes in a row on disk, from here and there in memory, and others between them. Engines
 * may make one of several, but each of them is answered, and all data are where they belong. */
static void writes_in_a_row(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  enum { N = 300 };
  char *expect = rig.buffers, *got = rig.buffers + FILE_BYTES;
  struct device_stats before = stats_now();
  fill(expect, N * BLOCK_BYTES, 5);
  for (uint32_t i = 0; i < N; i++) {
    /* In fives in a row in memory; a place on disk is left out after each 100; one of 70 is FUA. */
    uint32_t place = i / 5 % 2 ? i : i / 5 * 5 + (4 - i % 5);
    memcpy(got + place * BLOCK_BYTES, expect + i * BLOCK_BYTES, BLOCK_BYTES);
    submit(i, IO_WRITE, i % 70 ? 0 : IO_FUA, (i + i / 100) * (uint64_t)BLOCK_BYTES,
           got + place * BLOCK_BYTES, BLOCK_BYTES);
  }
  run_until(N);
  for (uint32_t i = 0; i < N; i++) {
    assert_int_equal(rig.ios[i].result, 0);
    assert_int_equal(rig.done[i], 1);
  }
  if (engine->rings) assert_in_range(stats_now().ios - before.ios, 10, N / 5);
  rig.done_count = 0;
  memset(got, 0, N * BLOCK_BYTES);
  for (uint32_t i = 0; i < N; i++)
    submit(i, IO_READ, 0, (i + i / 100) * (uint64_t)BLOCK_BYTES, got + i * BLOCK_BYTES,
           BLOCK_BYTES);
  run_until(N);
  if (!engine->no_data) assert_memory_equal(expect, got, N * BLOCK_BYTES);
}

/* The file system takes the first half of them only: these are written, the others fail. */
static void of_writes_in_a_row_some_fail(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  if (engine->in_memory || engine->no_data) return;
  enum { N = 32 };
  char *got = rig.buffers + FILE_BYTES;
  struct rlimit was, limit;
  signal(SIGXFSZ, SIG_IGN);
  assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
  limit = was;
  limit.rlim_cur = FILE_BYTES - N / 2 * BLOCK_BYTES;
  fill(rig.buffers, N * BLOCK_BYTES, 11);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
  for (uint32_t i = 0; i < N; i++)
    submit(i, IO_WRITE, 0, FILE_BYTES - (uint64_t)(N - i) * BLOCK_BYTES,
           rig.buffers + (N - i) * BLOCK_BYTES, BLOCK_BYTES);
  run_until(N);
  assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
  for (uint32_t i = 0; i < N; i++) {
    assert_int_equal(rig.ios[i].result, i < N / 2 ? 0 : -EFBIG);
    assert_int_equal(rig.done[i], 1);
  }
  submit(0, IO_READ, 0, FILE_BYTES - N * BLOCK_BYTES, got, N / 2 * BLOCK_BYTES);
  run_until(N + 1);
  for (uint32_t i = 0; i < N / 2; i++)
    assert_memory_equal(got + i * BLOCK_BYTES, rig.buffers + (N - i) * BLOCK_BYTES, BLOCK_BYTES);
}

/* ---- Sleep and wake ---------------------------------------------------------------------- */

static void wake_before_sleep_is_kept(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  for (int i = 0; i < 3; i++) {
    engine->ops->wake(rig.device);
    engine->ops->wake(rig.device);
    device_poll(rig.device); /* must not swallow it */
    engine->ops->sleep(rig.device, -1);
  }
  /* With requests under way the poll goes to the kernel and meets the wake there. */
  engine->ops->wake(rig.device);
  submit(0, IO_READ, 0, 0, rig.buffers, BLOCK_BYTES);
  while (rig.done_count == 0) device_poll(rig.device);
  engine->ops->sleep(rig.device, -1);
  assert_int_equal(stats_now().sleeps, 4);
}

struct handshake {
  atomic_int asked, answered;
};

static void *answer(void *arg) {
  struct handshake *h = arg;
  for (int i = 1; i <= 200; i++) {
    while (atomic_load(&h->asked) < i) sched_yield();
    atomic_store(&h->answered, i);
    engine->ops->wake(rig.device);
  }
  return NULL;
}

/* 200 rounds: whenever the wake comes, before the sleep, during or between, the sleeper that
 * looks again after each sleep sees the answer and never hangs. */
static void wake_ends_the_sleep(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  struct handshake h = {0};
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, answer, &h), 0);
  for (int i = 1; i <= 200; i++) {
    atomic_store(&h.asked, i);
    while (atomic_load(&h.answered) < i) engine->ops->sleep(rig.device, -1);
  }
  pthread_join(thread, NULL);
  assert_int_equal(atomic_load(&h.answered), 200);
}

static void a_completion_ends_the_sleep(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  for (uint32_t i = 0; i < 50; i++) {
    submit(0, IO_READ, 0, 0, rig.buffers, BLOCK_BYTES);
    /* Starts it, and comes back with the answer there; runs nothing. */
    engine->ops->sleep(rig.device, -1);
    assert_int_equal(rig.done_count, i);
    run_until(i + 1);
  }
  /* A full ring sleeps as well. */
  rig.done_count = 0;
  for (uint32_t i = 0; i < 4 * DEPTH; i++)
    submit(i, IO_READ, 0, 0, rig.buffers + i * BLOCK_BYTES, BLOCK_BYTES);
  engine->ops->sleep(rig.device, -1);
  run_until(4 * DEPTH);
}

static void the_timeout_ends_the_sleep(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  uint64_t before = clock_now_ns(&clock_monotonic);
  engine->ops->sleep(rig.device, 3000000);
  assert_true(clock_now_ns(&clock_monotonic) - before >= 3000000);
  engine->ops->sleep(rig.device, 0);
}

static void *ring_the_bell(void *arg) {
  struct handshake *h = arg;
  for (int i = 1; i <= 100; i++) {
    uint64_t one = 1;
    while (atomic_load(&h->asked) < i) sched_yield();
    atomic_store(&h->answered, i);
    assert_int_equal(write(rig.bell, &one, sizeof one), sizeof one);
  }
  return NULL;
}

static void empty_the_bell(void) {
  uint64_t count;
  while (read(rig.bell, &count, sizeof count) < 0) engine->ops->sleep(rig.device, -1);
}

static void another_descriptor_ends_the_sleep(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  struct handshake h = {0};
  pthread_t thread;
  uint64_t one = 1;
  rig.bell = eventfd(0, EFD_NONBLOCK);
  assert_true(rig.bell >= 0);
  engine->ops->sleep_on(rig.device, rig.bell);
  the_timeout_ends_the_sleep(state); /* it is not readable */
  assert_int_equal(write(rig.bell, &one, sizeof one), sizeof one);
  engine->ops->sleep(rig.device, -1);
  engine->ops->sleep(rig.device, -1); /* it still is */
  empty_the_bell();
  assert_int_equal(pthread_create(&thread, NULL, ring_the_bell, &h), 0);
  for (int i = 1; i <= 100; i++) {
    if (i % 3 == 0) submit(0, IO_READ, 0, 0, rig.buffers, BLOCK_BYTES);
    if (i % 3 == 1) engine->ops->wake(rig.device);
    atomic_store(&h.asked, i);
    empty_the_bell();
    if (i % 3 == 0) run_until(rig.done_count + 1);
  }
  pthread_join(thread, NULL);
  close(rig.bell);
}

/* ---- Memory, several devices, ends ------------------------------------------------------- */

static void registered_memory_works(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  const size_t half = 1 << 20; /* both together below the usual limit for other users */
  const struct device_ops *ops = engine->ops;
  assert_int_equal(ops->register_memory(rig.device, 0, rig.buffers, half), 0);
  assert_int_equal(ops->register_memory(rig.device, 15, rig.buffers + half, half), 0);
  assert_int_equal(ops->register_memory(rig.device, 16, rig.buffers, half), -EINVAL);
  assert_int_equal(ops->register_memory(rig.device, 1, rig.buffers, 0), -EINVAL);
  if (engine->rings) assert_true(stats_now().buffers_registered);
  fill(rig.buffers, half, 5);
  char *outside = aligned_buffer(BLOCK_BYTES);
  for (uint32_t i = 0; i < 64; i++)
    submit(i, IO_WRITE, 0, i * BLOCK_BYTES, rig.buffers + i * BLOCK_BYTES, BLOCK_BYTES);
  run_until(64);
  for (uint32_t i = 0; i < 64; i++) /* now one, now the other range */
    submit(i, IO_READ, 0, i * BLOCK_BYTES,
           rig.buffers + half / 2 + (i % 2 ? half : 0) + i * BLOCK_BYTES, BLOCK_BYTES);
  submit(64, IO_READ, 0, 63 * BLOCK_BYTES, outside, BLOCK_BYTES);
  /* Half in one range, half in the other, and still one piece of memory. */
  submit(65, IO_READ, 0, 0, rig.buffers + half - BLOCK_BYTES, 2 * BLOCK_BYTES);
  run_until(64 + 66);
  for (uint32_t i = 0; i < 66; i++) assert_int_equal(rig.ios[i].result, 0);
  for (uint32_t i = 0; i < 64 && !engine->no_data; i++)
    assert_memory_equal(rig.ios[i].buf, rig.buffers + i * BLOCK_BYTES, BLOCK_BYTES);
  if (!engine->no_data) {
    assert_memory_equal(outside, rig.buffers + 63 * BLOCK_BYTES, BLOCK_BYTES);
    assert_memory_equal(rig.buffers + half - BLOCK_BYTES, rig.buffers, 2 * BLOCK_BYTES);
  }
  /* Entries of the ring that named registered memory serve for what has none. */
  for (uint32_t i = 0; i < 2 * DEPTH; i++) submit(i, IO_FLUSH, 0, 0, NULL, 0);
  run_until(130 + 2 * DEPTH);
  for (uint32_t i = 0; i < 2 * DEPTH; i++) assert_int_equal(rig.ios[i].result, 0);
  ops->unregister_memory(rig.device, 0);
  ops->unregister_memory(rig.device, 15);
  ops->unregister_memory(rig.device, 15);
  assert_false(stats_now().buffers_registered);
  submit(0, IO_READ, 0, 0, rig.buffers, BLOCK_BYTES);
  run_until(131 + 2 * DEPTH);
  assert_int_equal(rig.ios[0].result, 0);
  free(outside);
}

struct other_device {
  char *buffer;
  int result;
};
static void other_done(struct io *io) { io->next = io; /* seen below: no longer the engine's */ }

static void *use_other_device(void *arg) {
  struct other_device *o = arg;
  struct device *d;
  const struct device_options options = {
      .queue_depth = 4, .file_count = 1, .clock = clock_monotonic};
  o->result = engine->ops->create(&d, &options);
  if (o->result < 0) return NULL;
  o->result = engine->ops->attach(d, 0, rig.backing);
  for (uint32_t i = 0; o->result == 0 && i < 100; i++) {
    struct io io = {.done = other_done,
                    .buf = o->buffer,
                    .bytes = BLOCK_BYTES,
                    .op = IO_WRITE,
                    .offset = (2 * i + 1) * BLOCK_BYTES};
    memset(o->buffer, (int)i + 1, BLOCK_BYTES);
    device_submit(d, &io);
    while (io.next != &io)
      if (!device_poll(d)) d->ops->sleep(d, -1);
    o->result = io.result;
  }
  engine->ops->destroy(d);
  return NULL;
}

static void two_devices_share_a_backing(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  struct other_device other = {aligned_buffer(BLOCK_BYTES), 1};
  pthread_t thread;
  assert_int_equal(pthread_create(&thread, NULL, use_other_device, &other), 0);
  for (uint32_t i = 0; i < 100; i++) {
    memset(rig.buffers + i * BLOCK_BYTES, (int)i + 101, BLOCK_BYTES);
    submit(i, IO_WRITE, 0, 2 * i * BLOCK_BYTES, rig.buffers + i * BLOCK_BYTES, BLOCK_BYTES);
  }
  run_until(100);
  pthread_join(thread, NULL);
  assert_int_equal(other.result, 0);
  free(other.buffer);
  if (engine->no_data) return;
  const struct backing_ops *ops = rig.backing->ops;
  assert_int_equal(ops->read(rig.backing, rig.buffers, 200 * BLOCK_BYTES, 0), 0);
  for (uint32_t i = 0; i < 200; i++) {
    char expect = (char)(i % 2 ? i / 2 + 1 : i / 2 + 101);
    assert_int_equal(rig.buffers[i * BLOCK_BYTES], expect);
    assert_int_equal(rig.buffers[(i + 1) * BLOCK_BYTES - 1], expect);
  }
}

/* Destroying with requests under way waits for the kernel and calls nobody back. */
static void destroy_calls_nobody(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  for (uint32_t i = 0; i < 3 * DEPTH; i++)
    submit(i, IO_READ, 0, i * BLOCK_BYTES, rig.buffers + i * BLOCK_BYTES, BLOCK_BYTES);
  engine->ops->sleep(rig.device, 0); /* starts some */
  engine->ops->destroy(rig.device);
  assert_int_equal(rig.done_count, 0);
  rig.device = NULL; /* tear_down destroys NULL */
}

static void bad_options_are_refused(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  struct device *d = NULL;
  struct device_options options = {.queue_depth = 0, .file_count = 1, .clock = clock_monotonic};
  assert_int_equal(engine->ops->create(&d, &options), -EINVAL);
  options = (struct device_options){.queue_depth = 1, .file_count = 0, .clock = clock_monotonic};
  assert_int_equal(engine->ops->create(&d, &options), -EINVAL);
  assert_null(d);
}

/* Queue depth 1 and depths that are no power of two. */
static void odd_queue_depths_work(void **state) {
  SKIP_WITHOUT_ENGINE(state);
  static const uint32_t depths[] = {1, 2, 3, 100};
  for (uint32_t k = 0; k < array_size(depths); k++) {
    engine->ops->destroy(rig.device);
    rig.device = make_device(depths[k]);
    assert_int_equal(engine->ops->attach(rig.device, 1, rig.backing), 0);
    rig.done_count = 0;
    for (uint32_t i = 0; i < 250; i++)
      submit(i, IO_READ, 0, i * BLOCK_BYTES, rig.buffers + i * BLOCK_BYTES, BLOCK_BYTES);
    run_until(250);
    engine->ops->wake(rig.device);
    engine->ops->sleep(rig.device, -1);
    if (!engine->in_memory && !engine->no_data)
      assert_in_range(stats_now().in_flight_max, 1, depths[k]);
  }
}

#define CASE(test, e)                                                                              \
  {                                                                                                \
    .name = #test, .test_func = test, .setup_func = set_up, .teardown_func = tear_down,            \
    .initial_state = (void *)(uintptr_t)(e)                                                        \
  }

static int run_suite(const struct engine_case *e) {
  const struct CMUnitTest tests[] = {
      CASE(reads_back_what_was_written, e),
      CASE(moves_the_largest_request, e),
      CASE(finishes_each_exactly_once, e),
      CASE(starts_a_batch_at_once, e),
      CASE(done_may_submit, e),
      CASE(writes_through_and_flushes, e),
      CASE(reading_past_the_end_is_an_error, e),
      CASE(an_empty_slot_is_an_error, e),
      CASE(writes_in_a_row, e),
      CASE(of_writes_in_a_row_some_fail, e),
      CASE(wake_before_sleep_is_kept, e),
      CASE(wake_ends_the_sleep, e),
      CASE(a_completion_ends_the_sleep, e),
      CASE(the_timeout_ends_the_sleep, e),
      CASE(another_descriptor_ends_the_sleep, e),
      CASE(registered_memory_works, e),
      CASE(two_devices_share_a_backing, e),
      CASE(destroy_calls_nobody, e),
      CASE(bad_options_are_refused, e),
      CASE(odd_queue_depths_work, e),
  };
  return cmocka_run_group_tests_name(e->ops->name, tests, NULL, NULL);
}

int main(void) {
  static const struct engine_case engines[] = {
      {&device_uring, false, false, true},
      {&device_pool, false, false, false},
      {&device_mem, true, false, false},
      {&device_null, true, true, false},
  };
  int failed = 0;
  for (size_t i = 0; i < array_size(engines); i++) failed += run_suite(&engines[i]);
  return failed;
}
