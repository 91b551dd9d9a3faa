/* test_refusals.c - what the kernel may refuse, and answers that are neither all nor an error.
 *
 * What changes the process for good (seccomp, limits, user) runs in a child, which says by its
 * exit status what happened. */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "tests/child.h"
#include "tests/device/device_testing.h"

/* ---- io_advance: the step after an answer ------------------------------------------------ */

static void whole_answers_are_done(void **state) {
  (void)state;
  struct io io = {.op = IO_READ, .bytes = 8 * BLOCK_BYTES};
  io_begin(&io);
  assert_int_equal(io_advance(&io, 8 * BLOCK_BYTES), IO_STEP_DONE);
  assert_int_equal(io.result, 0);
  io_begin(&io);
  assert_int_equal(io_advance(&io, -ENOSPC), IO_STEP_DONE);
  assert_int_equal(io.result, -ENOSPC);
  io = (struct io){.op = IO_FLUSH, .bytes = 77};
  io_begin(&io);
  assert_int_equal(io_advance(&io, 0), IO_STEP_DONE);
  assert_int_equal(io.result, 0);
}

static void short_answers_go_on(void **state) {
  (void)state;
  struct io io = {.op = IO_WRITE, .bytes = 8 * BLOCK_BYTES};
  io_begin(&io);
  assert_int_equal(io_advance(&io, 2 * BLOCK_BYTES), IO_STEP_RESUBMIT);
  assert_int_equal(io.moved, 2 * BLOCK_BYTES);
  /* A part of a block is done again, so that the rest stays aligned. */
  assert_int_equal(io_advance(&io, 3 * BLOCK_BYTES + 512), IO_STEP_RESUBMIT);
  assert_int_equal(io.moved, 5 * BLOCK_BYTES);
  assert_int_equal(io_advance(&io, -EAGAIN), IO_STEP_RETRY);
  assert_int_equal(io_advance(&io, -EINTR), IO_STEP_RETRY);
  assert_int_equal(io.moved, 5 * BLOCK_BYTES);
  assert_int_equal(io_advance(&io, 3 * BLOCK_BYTES), IO_STEP_DONE);
  assert_int_equal(io.result, 0);
}

static void the_end_of_the_file_is_an_error(void **state) {
  (void)state;
  const int32_t answers[] = {0, 1, 512, BLOCK_BYTES - 1, 5 * BLOCK_BYTES};
  for (size_t i = 0; i < array_size(answers); i++) {
    struct io io = {.op = IO_READ, .bytes = 4 * BLOCK_BYTES, .result = 1};
    io_begin(&io);
    assert_int_equal(io_advance(&io, answers[i]), IO_STEP_DONE);
    assert_int_equal(io.result, -EIO);
  }
}

/* The pause doubles while nothing gets through, has an upper end, and starts anew. */
static void a_refused_request_waits(void **state) {
  (void)state;
  struct io_retry r;
  struct io a = {.op = IO_READ}, b = {.op = IO_READ};
  io_retry_init(&r);
  assert_int_equal(io_retry_left_ns(&r, 0), INT64_MAX); /* nothing waits */
  uint64_t now = 1000000, pause = 0;
  for (int i = 0; i < 20; i++) {
    io_retry_push(&r, &a, now);
    io_retry_push(&r, &b, now + 1); /* goes with the first */
    uint64_t left = (uint64_t)io_retry_left_ns(&r, now);
    assert_true(left >= pause && left > 0 && left <= IO_RETRY_NS_MAX);
    pause = left;
    assert_null(io_retry_due(&r, now + left - 1));
    assert_int_equal(r.count, 2);
    now += left;
    assert_ptr_equal(io_retry_due(&r, now), &a);
    assert_ptr_equal(a.next, &b);
    assert_null(b.next);
    assert_int_equal(r.count, 0);
  }
  assert_int_equal(pause, IO_RETRY_NS_MAX);
  io_retry_progress(&r);
  io_retry_push(&r, &a, now);
  assert_int_equal(io_retry_left_ns(&r, now), IO_RETRY_NS_MIN);
  assert_int_equal(io_retry_left_ns(&r, now + 2 * IO_RETRY_NS_MIN), 0);
}

/* ---- A file that is too short, for real: the engine resubmits and then meets the end ------- */

static bool finished;
static void note_done(struct io *io) {
  (void)io;
  finished = true;
}

static int one_io(struct device *d, struct io io) {
  finished = false;
  io.done = note_done;
  device_submit(d, &io);
  while (!finished)
    if (!device_poll(d)) d->ops->sleep(d, -1);
  return io.result;
}

static struct device *open_device(const struct device_ops *ops, struct backing *b,
                                  struct logger logger) {
  struct device *d = NULL;
  const struct device_options options = {
      .queue_depth = 8, .file_count = 1, .clock = clock_monotonic, .logger = logger};
  if (ops->create(&d, &options) < 0) return NULL;
  check(ops->attach(d, 0, b) == 0);
  return d;
}

static void count_no_log(void *arg, int level, const char *text) {
  (void)arg, (void)level, (void)text;
}
static const struct logger silent = {count_no_log, NULL};

static void a_short_read_is_resubmitted(void **state) {
  (void)state;
  static const struct device_ops *const engines[] = {&device_uring, &device_pool};
  char *buf = aligned_buffer(8 * BLOCK_BYTES), *data = aligned_buffer(4 * BLOCK_BYTES);
  struct backing *b = scratch_file("short", 4 * BLOCK_BYTES);
  memset(data, 'x', 4 * BLOCK_BYTES);
  assert_int_equal(b->ops->write(b, data, 4 * BLOCK_BYTES, 0), 0);
  for (size_t i = 0; i < array_size(engines); i++) {
    if (engines[i] == &device_uring && uring_probe() < 0) continue;
    struct device *d = open_device(engines[i], b, silent);
    assert_non_null(d);
    memset(buf, 0, 8 * BLOCK_BYTES);
    struct io io = {.buf = buf, .bytes = 8 * BLOCK_BYTES, .op = IO_READ};
    assert_int_equal(one_io(d, io), -EIO);
    assert_memory_equal(buf, data, 4 * BLOCK_BYTES); /* the first answer was short */
    struct device_stats stats;
    d->ops->stats(d, &stats);
    assert_int_equal(stats.short_ios, 1);
    engines[i]->destroy(d);
  }
  backing_close(b);
  free(buf);
  free(data);
}

/* A pipe gives what it has: a short answer, whose rest comes. Only a ring reads one as if it had
 * offsets. */
static void a_short_read_is_completed(void **state) {
  (void)state;
  if (uring_probe() < 0) skip();
  int pipes[2];
  assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
  char *buf = aligned_buffer(2 * BLOCK_BYTES), *data = aligned_buffer(2 * BLOCK_BYTES);
  struct backing b = {.fd = pipes[0]};
  struct device *d = open_device(&device_uring, &b, silent);
  assert_non_null(d);
  memset(data, '1', BLOCK_BYTES);
  memset(data + BLOCK_BYTES, '2', BLOCK_BYTES);
  assert_int_equal(write(pipes[1], data, BLOCK_BYTES), BLOCK_BYTES);
  struct io io = {.done = note_done, .buf = buf, .bytes = 2 * BLOCK_BYTES, .op = IO_READ};
  finished = false;
  device_submit(d, &io);
  struct device_stats stats = {0};
  while (stats.short_ios == 0) {
    device_poll(d);
    d->ops->stats(d, &stats);
  }
  assert_false(finished);
  assert_int_equal(d->ops->in_flight(d), 1);
  assert_int_equal(write(pipes[1], data + BLOCK_BYTES, BLOCK_BYTES), BLOCK_BYTES);
  while (!finished)
    if (!device_poll(d)) d->ops->sleep(d, -1);
  assert_int_equal(io.result, 0);
  assert_memory_equal(buf, data, 2 * BLOCK_BYTES);
  d->ops->stats(d, &stats);
  assert_int_equal(stats.short_ios, 1);
  assert_int_equal(stats.ios, 1);
  d->ops->destroy(d);
  close(pipes[0]);
  close(pipes[1]);
  free(buf);
  free(data);
}

/* ---- io_uring refused ---------------------------------------------------------------------- */

static void refuse_io_uring(int with) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (unsigned)with),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {array_size(code), code};
  check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
  if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) < 0) _exit(77);
}

/* In the child. 0: as it should be; else the number of what was wrong. */
static int choose_and_use(int error, struct backing *b) {
  char why[200] = "", cause[64];
  refuse_io_uring(error);
  const struct device_ops *ops = device_choose(why, sizeof why);
  if (ops != &device_pool) return 1;
  snprintf(cause, sizeof cause, "pool: io_uring_setup was refused: %s", strerror(error));
  if (strncmp(why, cause, strlen(cause)) != 0 || strchr(why, '\n')) return 2;
  struct device *d = open_device(&device_uring, b, silent);
  if (d) return 3;
  if (!(d = open_device(ops, b, silent))) return 4;
  char *buf = aligned_alloc(BLOCK_BYTES, BLOCK_BYTES);
  memset(buf, 'y', BLOCK_BYTES);
  if (one_io(d, (struct io){.buf = buf, .bytes = BLOCK_BYTES, .op = IO_WRITE, .flags = IO_FUA}))
    return 5;
  memset(buf, 0, BLOCK_BYTES);
  if (one_io(d, (struct io){.buf = buf, .bytes = BLOCK_BYTES, .op = IO_READ})) return 6;
  if (buf[0] != 'y' || buf[BLOCK_BYTES - 1] != 'y') return 7;
  ops->destroy(d);
  free(buf);
  return 0;
}

static int exit_status(pid_t child) {
  int status = 0;
  assert_int_equal(waitpid(child, &status, 0), child);
  assert_true(WIFEXITED(status));
  return WEXITSTATUS(status);
}

static void refused_io_uring_means_the_pool(void **state) {
  (void)state;
  const int errors[] = {EPERM, ENOSYS, ENOMEM, EMFILE, ENFILE, EBUSY};
  for (size_t i = 0; i < array_size(errors); i++) {
    struct backing *b = scratch_file("refused", 4 * BLOCK_BYTES);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) child_exit(choose_and_use(errors[i], b));
    int status = exit_status(child);
    backing_close(b);
    if (status == 77) {
      fprintf(stderr, "skipped: no seccomp filter can be installed here\n");
      skip();
    }
    assert_int_equal(status, 0);
  }
}

static void engines_have_names(void **state) {
  (void)state;
  static const char *const names[] = {"uring", "pool", "mem", "null"};
  for (size_t i = 0; i < array_size(names); i++) {
    assert_non_null(device_by_name(names[i]));
    assert_string_equal(device_by_name(names[i])->name, names[i]);
  }
  assert_null(device_by_name("floppy"));
  assert_null(device_by_name(NULL));
  char why[100];
  const struct device_ops *ops = device_choose(why, sizeof why);
  assert_ptr_equal(ops, uring_probe() == 0 ? &device_uring : &device_pool);
  assert_memory_equal(why, ops->name, strlen(ops->name));
}

/* ---- Memory that may not be registered ----------------------------------------------------- */

#define REFUSED_BYTES (UINT64_C(8) << 20)

static int register_too_much(struct backing *b) {
  const struct rlimit limit = {65536, 65536};
  struct log_count log = {0};
  if (setrlimit(RLIMIT_MEMLOCK, &limit) < 0) return 1;
  /* Root is not bound by the limit. */
  if (geteuid() == 0 && (setresgid(65534, 65534, 65534) < 0 || setresuid(65534, 65534, 65534) < 0))
    return 77;
  struct device *d = open_device(&device_uring, b, (struct logger){count_log, &log});
  if (!d) return 2;
  char *memory = aligned_alloc(BLOCK_BYTES, REFUSED_BYTES);
  memset(memory, 'z', REFUSED_BYTES);
  if (d->ops->register_memory(d, 0, memory, REFUSED_BYTES) != -ENOMEM) return 3;
  if (d->ops->register_memory(d, 1, memory, REFUSED_BYTES) != -ENOMEM) return 4;
  if (log.warnings != 1 || !strstr(log.last, "unregistered")) return 5;
  struct device_stats stats;
  d->ops->stats(d, &stats);
  if (stats.buffers_registered) return 6;
  if (one_io(d, (struct io){.buf = memory, .bytes = BLOCK_BYTES, .op = IO_WRITE})) return 7;
  memset(memory, 0, BLOCK_BYTES);
  if (one_io(d, (struct io){.buf = memory, .bytes = BLOCK_BYTES, .op = IO_READ})) return 8;
  if (memory[100] != 'z') return 9;
  d->ops->destroy(d);
  free(memory);
  return 0;
}

static void refused_registration_is_survived(void **state) {
  (void)state;
  if (uring_probe() < 0) {
    fprintf(stderr, "skipped: io_uring is refused here\n");
    skip();
  }
  struct backing *b = scratch_file("memlock", 4 * BLOCK_BYTES);
  pid_t child = fork();
  assert_true(child >= 0);
  if (child == 0) _exit(register_too_much(b));
  int status = exit_status(child);
  backing_close(b);
  if (status == 77) {
    fprintf(stderr, "skipped: the user cannot be changed here\n");
    skip();
  }
  assert_int_equal(status, 0);
}

static void granted_flags_are_told(void **state) {
  (void)state;
  if (uring_probe() < 0) skip();
  struct backing *b = scratch_file("flags", BLOCK_BYTES);
  struct device *d = open_device(&device_uring, b, silent);
  assert_non_null(d);
  struct device_stats stats;
  d->ops->stats(d, &stats);
  static const char *const names[] = {"defer_taskrun", "single_issuer", "taskrun_flag",
                                      "coop_taskrun",  "submit_all",    "clamp",
                                      "ring_fd"};
  for (size_t i = 0; i < array_size(names); i++) assert_non_null(strstr(stats.flags, names[i]));
  d->ops->destroy(d);
  backing_close(b);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(whole_answers_are_done),
      cmocka_unit_test(short_answers_go_on),
      cmocka_unit_test(the_end_of_the_file_is_an_error),
      cmocka_unit_test(a_refused_request_waits),
      cmocka_unit_test(a_short_read_is_resubmitted),
      cmocka_unit_test(a_short_read_is_completed),
      cmocka_unit_test(refused_io_uring_means_the_pool),
      cmocka_unit_test(engines_have_names),
      cmocka_unit_test(refused_registration_is_survived),
      cmocka_unit_test(granted_flags_are_told),
  };
  return cmocka_run_group_tests_name("refusals", tests, NULL, NULL);
}
