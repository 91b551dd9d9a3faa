/* test_memory.c - a guest's memory: regions, translation of both kinds of addresses, files that
 * are cut shorter under it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "api/vhost/memory.h"
#include "tests/child.h"

#define PAGE              4096u
#define HIGH              (UINT64_C(1) << 32)
#define USER_LOW          UINT64_C(0x7f0000000000)
#define USER_HIGH         UINT64_C(0x7f1000000000)
#define MFD_HUGE_2M_BYTES (21 << 26) /* as <linux/memfd.h> has it */

/* cmocka has a handler of its own during each test. */
static struct sigaction guard_handler;
static void use_guard(void) { assert_int_equal(sigaction(SIGBUS, &guard_handler, NULL), 0); }

static int make_file(uint64_t bytes) {
  int fd = memfd_create("guest", MFD_CLOEXEC);
  assert_true(fd >= 0);
  assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
  return fd;
}

/* Pages 0 to 7 at guest 0, pages 8 to 11 right behind, and pages 12 to 15 at 4 GiB; the monitor
 * sees the first and the last in a row. */
static struct guest_memory memory;
static int file;

static int make_memory(void **state) {
  (void)state;
  memset(&memory, 0, sizeof(memory));
  file = make_file(16 * PAGE);
  for (uint32_t i = 0; i < 16; i++) {
    char mark = (char)('a' + i);
    assert_int_equal(pwrite(file, &mark, 1, i * PAGE), 1);
  }
  /* Not in the order of addresses. */
  assert_int_equal(memory_add(&memory, HIGH, USER_LOW + 8 * PAGE, 4 * PAGE, 12 * PAGE, file), 0);
  assert_int_equal(memory_add(&memory, 0, USER_LOW, 8 * PAGE, 0, file), 0);
  assert_int_equal(memory_add(&memory, 8 * PAGE, USER_HIGH, 4 * PAGE, 8 * PAGE, file), 0);
  return 0;
}

static int drop_memory(void **state) {
  (void)state;
  memory_clear(&memory);
  close(file);
  return 0;
}

static char at_guest(uint64_t guest, uint64_t bytes, uint64_t run_expected) {
  uint64_t run = 0;
  char *at = memory_at(&memory, guest, bytes, &run);
  assert_non_null(at);
  assert_int_equal(run, run_expected);
  return *at;
}

static void translates_guest_addresses(void **state) {
  (void)state;
  uint64_t run = 77;
  assert_int_equal(memory.count, 3);
  assert_int_equal(at_guest(0, 1, 1), 'a');
  assert_int_equal(at_guest(7 * PAGE, 2 * PAGE, PAGE), 'h');
  assert_int_equal(at_guest(8 * PAGE, UINT64_MAX, 4 * PAGE), 'i');
  assert_int_equal(at_guest(HIGH + 3 * PAGE, PAGE, PAGE), 'p');
  assert_int_equal(at_guest(HIGH + 4 * PAGE - 1, UINT64_MAX, 1), 0);
  assert_null(memory_at(&memory, 12 * PAGE, 1, &run));
  assert_null(memory_at(&memory, HIGH - 1, 2, &run));
  assert_null(memory_at(&memory, HIGH + 4 * PAGE, 1, &run));
  assert_null(memory_at(&memory, UINT64_MAX, 1, &run));
  assert_null(memory_at(&memory, 0, 0, &run));
  assert_int_equal(run, 77);
  assert_ptr_equal(memory_region_at(&memory, HIGH), &memory.regions[2]);
  assert_null(memory_region_at(&memory, HIGH - 1));
}

static void user_range_lies_whole_in_one_region(void **state) {
  (void)state;
  assert_int_equal(*memory_user(&memory, USER_LOW + 7 * PAGE, PAGE), 'h');
  assert_int_equal(*memory_user(&memory, USER_LOW + 8 * PAGE, 4 * PAGE), 'm');
  /* The next region follows, but not here. */
  assert_null(memory_user(&memory, USER_LOW + 7 * PAGE, PAGE + 1));
  assert_null(memory_user(&memory, USER_LOW + 8 * PAGE - 1, 2));
  assert_null(memory_user(&memory, USER_LOW - 1, 1));
  assert_null(memory_user(&memory, USER_LOW, UINT64_MAX));
  assert_null(memory_user(&memory, UINT64_MAX, 1));
  assert_null(memory_user(&memory, USER_LOW, 0));
  assert_null(memory_user(&memory, 0, 1)); /* a guest's address is not a user's */
}

static void range_of_two_regions_is_split(void **state) {
  (void)state;
  struct iovec iov[3];
  uint32_t count = 0;
  assert_int_equal(memory_iov(&memory, 7 * PAGE, 3 * PAGE, iov, &count, 3, true), 0);
  assert_int_equal(count, 2);
  assert_int_equal(*(char *)iov[0].iov_base, 'h');
  assert_int_equal(iov[0].iov_len, PAGE);
  assert_int_equal(*(char *)iov[1].iov_base, 'i');
  assert_int_equal(iov[1].iov_len, 2 * PAGE);
  assert_int_equal(memory_iov(&memory, 10 * PAGE, PAGE, iov, &count, 3, true), 0);
  assert_int_equal(count, 2); /* joined */
  assert_int_equal(iov[1].iov_len, 3 * PAGE);
  assert_int_equal(memory_iov(&memory, 11 * PAGE, PAGE, iov, &count, 3, false), 0);
  assert_int_equal(count, 3);
  assert_int_equal(memory_iov(&memory, 11 * PAGE, 0, iov, &count, 3, false), 0);
  assert_int_equal(count, 3);
  assert_int_equal(memory_iov(&memory, 0, PAGE, iov, &count, 3, true), -E2BIG);
  assert_int_equal(count, 3);
}

static void range_that_is_not_whole_memory_is_refused(void **state) {
  (void)state;
  const struct {
    uint64_t guest, bytes;
  } bad[] = {{11 * PAGE, PAGE + 1}, {0, HIGH + 4 * PAGE}, /* both ends are memory */
             {HIGH - 1, 2},         {HIGH + PAGE, 3 * PAGE + 1},
             {HIGH, UINT64_MAX},    {UINT64_MAX, 2}, /* wraps to 0 */
             {UINT64_MAX - 15, 32}};
  struct iovec iov[8];
  for (size_t i = 0; i < array_size(bad); i++) {
    uint32_t count = 1;
    assert_int_equal(memory_iov(&memory, bad[i].guest, bad[i].bytes, iov, &count, 8, false),
                     -EFAULT);
    assert_int_equal(count, 1);
  }
}

static void pieces_of_two_regions_never_join(void **state) {
  (void)state;
  struct iovec iov[4];
  uint32_t count = 0;
  /* Mappings that happen to lie in a row. */
  memory.regions[1].host = memory.regions[0].host + 8 * PAGE;
  assert_int_equal(memory_iov(&memory, 7 * PAGE, 2 * PAGE, iov, &count, 4, true), 0);
  assert_int_equal(count, 2);
}

static void bad_regions_are_refused(void **state) {
  (void)state;
  const struct {
    uint64_t guest, user, bytes, offset;
  } bad[] = {
      {1 << 20, 1 << 20, 0, 0},                  /* empty */
      {UINT64_MAX - PAGE + 1, 1 << 20, PAGE, 0}, /* wraps */
      {1 << 20, UINT64_MAX - PAGE + 1, PAGE, 0},
      {1 << 20, 1 << 20, UINT64_MAX, 0},
      {1 << 20, 1 << 20, PAGE, UINT64_MAX - PAGE + 1},
      {1 << 20, 1 << 20, PAGE, UINT64_MAX},
      {1 << 20, 1 << 20, PAGE, (uint64_t)INT64_MAX},
      {12 * PAGE - 1, 1 << 20, PAGE, 0}, /* overlaps in guest addresses */
      {HIGH - PAGE, 1 << 20, PAGE + 1, 0},
      {HIGH - PAGE, 1 << 20, 16 * PAGE, 0},         /* all of another one */
      {1 << 20, USER_HIGH + 4 * PAGE - 1, PAGE, 0}, /* in user addresses */
      {1 << 20, USER_LOW - PAGE, PAGE + 1, 0},
      {1 << 20, 1 << 20, 16 * PAGE + 1, 0}, /* longer than the file */
      {1 << 20, 1 << 20, PAGE, 15 * PAGE + 1},
  };
  struct guest_memory before = memory;
  for (size_t i = 0; i < array_size(bad); i++)
    assert_int_equal(
        memory_add(&memory, bad[i].guest, bad[i].user, bad[i].bytes, bad[i].offset, file), -EINVAL);
  assert_int_equal(memory_add(&memory, 1 << 20, 1 << 20, PAGE, 0, -1), -EBADF);
  int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  assert_int_equal(memory_add(&memory, 1 << 20, 1 << 20, PAGE, 0, fd), -EINVAL);
  close(fd);
  char path[64];
  snprintf(path, sizeof(path), "/proc/self/fd/%d", file);
  fd = open(path, O_RDONLY | O_CLOEXEC);
  assert_int_equal(memory_add(&memory, 1 << 20, 1 << 20, PAGE, 0, fd), -EACCES);
  close(fd);
  assert_memory_equal(&before, &memory, sizeof(memory));
}

static void there_are_so_many_slots(void **state) {
  (void)state;
  for (uint64_t i = 3; i < MEMORY_SLOTS_MAX; i++)
    assert_int_equal(memory_add(&memory, i << 20, i << 20, PAGE, 0, file), 0);
  assert_int_equal(memory_add(&memory, 1 << 20, 1 << 20, PAGE, 0, file), -ENOSPC);
  for (uint32_t i = 1; i < MEMORY_SLOTS_MAX; i++)
    assert_true(memory.regions[i].guest > memory.regions[i - 1].guest);
  assert_int_equal(memory_remove(&memory, 40 << 20, 40 << 20, PAGE), 0);
  assert_int_equal(memory_add(&memory, 1 << 20, 1 << 20, PAGE, 0, file), 0);
}

static void offset_inside_of_a_page(void **state) {
  (void)state;
  assert_int_equal(memory_add(&memory, 1 << 20, 1 << 20, PAGE, 3 * PAGE + 512, file), 0);
  assert_int_equal(at_guest((1 << 20) + PAGE - 512, 1, 1), 'e');
  assert_int_equal(memory.regions[2].mapping_bytes, 2 * PAGE);
  assert_int_equal(memory_remove(&memory, 1 << 20, 1 << 20, PAGE), 0);
}

static void only_that_region_is_removed(void **state) {
  (void)state;
  uint64_t run;
  void *mapping = memory.regions[1].mapping;
  assert_int_equal(memory_remove(&memory, 8 * PAGE, USER_HIGH, 3 * PAGE), -ENOENT);
  assert_int_equal(memory_remove(&memory, 8 * PAGE, USER_LOW, 4 * PAGE), -ENOENT);
  assert_int_equal(memory_remove(&memory, 0, USER_HIGH, 4 * PAGE), -ENOENT);
  assert_int_equal(memory_remove(&memory, 8 * PAGE, USER_HIGH, 4 * PAGE), 0);
  assert_int_equal(memory_remove(&memory, 8 * PAGE, USER_HIGH, 4 * PAGE), -ENOENT);
  assert_int_equal(msync(mapping, 4 * PAGE, MS_ASYNC), -1); /* not mapped */
  assert_null(memory_at(&memory, 8 * PAGE, 1, &run));
  assert_int_equal(at_guest(0, 1, 1), 'a');
  assert_int_equal(at_guest(HIGH, 1, 1), 'm');
  static const struct memory_region none;
  assert_memory_equal(&memory.regions[2], &none, sizeof(none));
}

static uint32_t lines_of(const char *path) {
  uint32_t lines = 0;
  FILE *in = fopen(path, "r");
  assert_non_null(in);
  for (int c; (c = fgetc(in)) != EOF;) lines += c == '\n';
  fclose(in);
  return lines;
}

static void nothing_leaks(void **state) {
  (void)state;
  uint32_t before = 0;
  int first = dup(file), next;
  close(first);
  for (uint32_t i = 0; i < 500; i++) {
    struct guest_memory m = {0};
    for (uint64_t k = 1; k <= 8; k++)
      assert_int_equal(memory_add(&m, k << 20, k << 20, PAGE, 2 * k * PAGE - PAGE, file), 0);
    assert_int_equal(memory_remove(&m, 1 << 20, 1 << 20, PAGE), 0);
    assert_int_equal(memory_add(&m, 1 << 20, 1 << 20, PAGE, 16 * PAGE, file), -EINVAL);
    memory_clear(&m);
    if (i == 0) before = lines_of("/proc/self/maps");
  }
  assert_in_range(lines_of("/proc/self/maps"), before - 2, before + 2);
  next = dup(file);
  assert_int_equal(next, first);
  close(next);
}

/* ---- Files that are cut shorter -------------------------------------------------------------- */

static void truncated_file_gives_zeros_and_is_noted(void **state) {
  (void)state;
  use_guard();
  uint64_t run;
  struct guest_memory other = {0};
  int fd = make_file(4 * PAGE);
  assert_int_equal(pwrite(fd, "O", 1, 2 * PAGE), 1);
  assert_int_equal(memory_add(&other, 0, 0, 4 * PAGE, 0, fd), 0);
  assert_int_equal(ftruncate(file, 14 * PAGE), 0);
  char *at = memory_at(&memory, HIGH, 4 * PAGE, &run);
  assert_int_equal(at[0], 'm');
  assert_int_equal(at[PAGE], 'n');
  assert_int_equal(atomic_load(&memory.lost), 0);
  assert_int_equal(at[2 * PAGE], 0);
  assert_int_equal(atomic_load(&memory.lost), 1);
  ((volatile char *)at)[3 * PAGE + 77] = 'x'; /* a write */
  assert_int_equal(atomic_load(&memory.lost), 2);
  assert_int_equal(at[3 * PAGE + 77], 'x');
  assert_int_equal(at[PAGE], 'n'); /* what is still there stays */
  assert_int_equal(*memory_at(&other, 2 * PAGE, 1, &run), 'O');
  assert_int_equal(atomic_load(&other.lost), 0);
  memory_clear(&other);
  close(fd);
}

static void system_calls_fail_by_themselves(void **state) {
  (void)state;
  use_guard();
  uint64_t run;
  char *at = memory_at(&memory, HIGH, 4 * PAGE, &run);
  assert_int_equal(ftruncate(file, 13 * PAGE), 0);
  assert_int_equal(pwrite(file, at + PAGE, PAGE, 0), -1);
  assert_int_equal(errno, EFAULT);
  assert_int_equal(atomic_load(&memory.lost), 0);
}

static void *add_and_remove(void *stop) {
  struct guest_memory *m = calloc(1, sizeof(*m));
  int fd = memfd_create("other", MFD_CLOEXEC);
  bool good = m && fd >= 0 && ftruncate(fd, 32 * PAGE) == 0;
  while (good && !atomic_load((atomic_bool *)stop)) {
    for (uint64_t i = 1; i <= 32; i++)
      good &= memory_add(m, i << 20, i << 20, PAGE, (i - 1) * PAGE, fd) == 0;
    memory_clear(m);
  }
  good = good && atomic_load(&m->lost) == 0;
  if (fd >= 0) close(fd);
  free(m);
  return good ? m : NULL;
}

static void *touch_all(void *memory_of) {
  struct guest_memory *m = memory_of;
  uint64_t run, sum = 0;
  volatile char *at = memory_at(m, 0, 256 * PAGE, &run);
  for (uint32_t i = 0; i < 256; i++) sum += (uint64_t)at[i * PAGE];
  return (void *)(uintptr_t)sum;
}

/* The register of guards changes while others look into it. */
static void guards_come_and_go_meanwhile(void **state) {
  (void)state;
  use_guard();
  static struct guest_memory mine[4];
  atomic_bool stop = false;
  pthread_t changer, touchers[4];
  assert_int_equal(pthread_create(&changer, NULL, add_and_remove, &stop), 0);
  for (uint32_t i = 0; i < 4; i++) {
    int fd = make_file(256 * PAGE);
    assert_int_equal(memory_add(&mine[i], 0, 0, 256 * PAGE, 0, fd), 0);
    assert_int_equal(ftruncate(fd, 16 * PAGE), 0);
    close(fd);
    assert_int_equal(pthread_create(&touchers[i], NULL, touch_all, &mine[i]), 0);
  }
  void *result;
  for (uint32_t i = 0; i < 4; i++) {
    assert_int_equal(pthread_join(touchers[i], &result), 0);
    assert_null(result);
    assert_int_equal(atomic_load(&mine[i].lost), 240);
    memory_clear(&mine[i]);
  }
  atomic_store(&stop, true);
  assert_int_equal(pthread_join(changer, &result), 0);
  assert_non_null(result);
}

static void huge_pages_are_replaced_too(void **state) {
  (void)state;
  use_guard();
  const uint64_t huge = 2 << 20;
  struct guest_memory m = {0};
  int fd = memfd_create("huge", MFD_CLOEXEC | MFD_HUGETLB | MFD_HUGE_2M_BYTES);
  if (fd < 0 || ftruncate(fd, (off_t)(2 * huge)) != 0 || memory_add(&m, 0, 0, huge, PAGE, fd)) {
    print_message("no huge pages of 2 MiB\n");
    if (fd >= 0) close(fd);
    skip();
  }
  uint64_t run;
  assert_int_equal(m.regions[0].mapping_bytes, 2 * huge);
  assert_int_equal(ftruncate(fd, 0), 0);
  assert_int_equal(*memory_at(&m, huge - 1, 1, &run), 0);
  assert_int_equal(atomic_load(&m.lost), 1);
  memory_clear(&m);
  close(fd);
}

/* ---- Signals that are not ours --------------------------------------------------------------- */

static sigjmp_buf back;
static volatile uintptr_t passed_on;

static void handler_before(int number, siginfo_t *info, void *context) {
  (void)context;
  if (number != SIGBUS) abort();
  passed_on = (uintptr_t)info->si_addr;
  siglongjmp(back, 1);
}

static volatile char *map_nothing(void) {
  int fd = make_file(PAGE);
  void *at = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, 0);
  assert_true(at != MAP_FAILED);
  assert_int_equal(ftruncate(fd, 0), 0);
  close(fd);
  return at;
}

static void other_accesses_reach_the_handler_before(void **state) {
  (void)state;
  use_guard();
  volatile char *at = map_nothing();
  passed_on = 0;
  if (sigsetjmp(back, 1) == 0) (void)at[5];
  assert_int_equal(passed_on, (uintptr_t)at + 5);
  _Atomic uint32_t lost = 0; /* and what is guarded no more */
  assert_int_equal(memory_guard((void *)at, PAGE, &lost), 0);
  memory_unguard((void *)at);
  passed_on = 0;
  if (sigsetjmp(back, 1) == 0) (void)at[6];
  assert_int_equal(passed_on, (uintptr_t)at + 6);
  assert_int_equal(atomic_load(&lost), 0);
  munmap((void *)at, PAGE);
}

/* How a process ends that does this with the disposition given, once a guard is installed. */
static int status_of_child(void (*disposition)(int), bool access) {
  pid_t pid = fork();
  if (pid == 0) {
    static char page[PAGE] __attribute__((aligned(PAGE)));
    static _Atomic uint32_t lost;
    signal(SIGBUS, disposition);
    if (memory_guard(page, PAGE, &lost) != 0) child_exit(2);
    if (access)
      (void)*map_nothing();
    else
      raise(SIGBUS);
    child_exit(0);
  }
  int status;
  assert_int_equal(waitpid(pid, &status, 0), pid);
  return status;
}

/* Before any guard of this process. */
static void default_ends_the_process(void **state) {
  (void)state;
  int status = status_of_child(SIG_DFL, true);
  assert_true(WIFSIGNALED(status));
  assert_int_equal(WTERMSIG(status), SIGBUS);
  status = status_of_child(SIG_DFL, false);
  assert_true(WIFSIGNALED(status));
  status = status_of_child(SIG_IGN, true); /* an access cannot be ignored */
  assert_true(WIFSIGNALED(status));
  status = status_of_child(SIG_IGN, false);
  assert_true(WIFEXITED(status));
  assert_int_equal(WEXITSTATUS(status), 0);
  struct sigaction action = {.sa_sigaction = handler_before, .sa_flags = SA_SIGINFO};
  static _Atomic uint32_t lost;
  static char byte;
  assert_int_equal(sigaction(SIGBUS, &action, NULL), 0);
  assert_int_equal(memory_guard(&byte, 1, &lost), 0); /* installs the handler */
  memory_unguard(&byte);
  assert_int_equal(sigaction(SIGBUS, NULL, &guard_handler), 0);
}

static void there_are_so_many_guards(void **state) {
  (void)state;
  static _Atomic uint32_t lost;
  static char place[MEMORY_GUARDS_MAX + 1];
  uint32_t n = 0;
  while (memory_guard(&place[n], 1, &lost) == 0) n++;
  assert_int_equal(n + memory.count, MEMORY_GUARDS_MAX);
  assert_int_equal(memory_guard(&place[n], 1, &lost), -ENOMEM);
  struct guest_memory m = {0};
  assert_int_equal(memory_add(&m, 0, 0, PAGE, 0, file), -ENOMEM);
  assert_int_equal(m.count, 0);
  memory_unguard(&place[7]);
  assert_int_equal(memory_add(&m, 0, 0, PAGE, 0, file), 0);
  memory_clear(&m);
  for (uint32_t i = 0; i < 100; i++) {
    memory_unguard(&place[n - 1 - i]);
    assert_int_equal(memory_guard(&place[n - 1 - i], 1, &lost), 0);
  }
}

#define WITH_MEMORY(f) cmocka_unit_test_setup_teardown(f, make_memory, drop_memory)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(default_ends_the_process),
      WITH_MEMORY(translates_guest_addresses),
      WITH_MEMORY(user_range_lies_whole_in_one_region),
      WITH_MEMORY(range_of_two_regions_is_split),
      WITH_MEMORY(range_that_is_not_whole_memory_is_refused),
      WITH_MEMORY(pieces_of_two_regions_never_join),
      WITH_MEMORY(bad_regions_are_refused),
      WITH_MEMORY(there_are_so_many_slots),
      WITH_MEMORY(offset_inside_of_a_page),
      WITH_MEMORY(only_that_region_is_removed),
      WITH_MEMORY(nothing_leaks),
      WITH_MEMORY(truncated_file_gives_zeros_and_is_noted),
      WITH_MEMORY(system_calls_fail_by_themselves),
      cmocka_unit_test(guards_come_and_go_meanwhile),
      cmocka_unit_test(huge_pages_are_replaced_too),
      cmocka_unit_test(other_accesses_reach_the_handler_before),
      cmocka_unit_test_setup(there_are_so_many_guards, make_memory), /* they stay */
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
