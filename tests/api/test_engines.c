/* test_engines.c - stores on each engine: one format for all, the fall-back where io_uring is
 * refused, memory limits; and vacuum on real files. */
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "tests/api/fixture.h"
#include "tests/child.h"

#define BLOBS 60

static struct sr_store *open_with(struct fixture *f, const char *engine) {
  struct sr_open_options o = open_options(f);
  struct sr_store *s;
  o.engine = engine;
  int r = sr_store_open(f->where, &o, &s);
  if (r) print_error("open with %s: %s\n%s", engine, strerror(-r), f->log);
  assert_int_equal(r, 0);
  return s;
}

static void put_all(struct sr_port *p, uint64_t seed) {
  char *buf = malloc(300000);
  for (uint64_t i = 0; i < BLOBS; i++) {
    fill_bytes(buf, i * 4999, seed + i);
    assert_int_equal(sr_put(p, id_of(i), buf, i * 4999, i % 9 ? 0 : SR_DURABLE), 0);
  }
  free(buf);
}

static void compare_all(struct sr_port *p, uint64_t seed) {
  char *want = malloc(300000), *got = malloc(300000);
  for (uint64_t i = 0; i < BLOBS; i++) {
    fill_bytes(want, i * 4999, seed + i);
    assert_int_equal(sr_get(p, id_of(i), got, 0, 300000), i * 4999);
    assert_memory_equal(got, want, i * 4999);
  }
  free(want), free(got);
}

static void engines_share_one_format(void **state) {
  struct fixture *f = *state;
  const char *engines[] = {"pool", "uring", "pool"};
  format_store(f, 2, 32 * MIB);
  for (uint64_t i = 0; i < 3; i++) {
    struct sr_store *s = open_with(f, engines[i]);
    struct sr_port *p = open_port(s);
    if (i > 0) compare_all(p, 1000 * (i - 1));
    put_all(p, 1000 * i);
    compare_all(p, 1000 * i);
    assert_int_equal(sr_flush(p), 0);
    struct sr_core_stats c;
    assert_int_equal(sr_core_stats(p, 0, &c), 0);
    if (i != 1) assert_string_equal(c.engine, "pool");
    assert_int_equal(sr_port_close(p), 0);
    if (i == 1)
      sr_store_abandon(s);
    else
      assert_int_equal(sr_store_close(s), 0);
  }
}

static void refuse_io_uring(void) {
  struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, __NR_io_uring_setup, 0, 1),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
  };
  struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, 2, &program)) _exit(77);
}

/* Runs body in a child, which cannot use cmocka: 0 is success. */
static void in_child(struct fixture *f, int (*body)(struct fixture *f)) {
  int status = 0;
  pid_t child = fork();
  if (child == 0) child_exit(body(f));
  waitpid(child, &status, 0);
  assert_true(WIFEXITED(status));
  if (WEXITSTATUS(status) == 77) skip();
  assert_int_equal(WEXITSTATUS(status), 0);
}

static int put_and_get(struct sr_store *s, struct sr_core_stats *core, struct sr_store_stats *st) {
  struct sr_port *p;
  char in[9000], out[9000];
  fill_bytes(in, sizeof in, 6);
  if (sr_port_open(s, NULL, &p)) return 10;
  if (sr_put(p, id_of(1), in, sizeof in, SR_DURABLE)) return 11;
  if (sr_get(p, id_of(1), out, 0, sizeof out) != sizeof out) return 12;
  if (memcmp(in, out, sizeof in) != 0) return 13;
  if (sr_core_stats(p, 0, core) || sr_store_stats(p, st)) return 14;
  if (sr_port_close(p) || sr_store_close(s)) return 15;
  return 0;
}

static int open_without_io_uring(struct fixture *f) {
  struct sr_open_options o = open_options(f);
  struct sr_core_stats core;
  struct sr_store_stats st;
  struct sr_store *s;
  refuse_io_uring();
  o.must_engine = true;
  if (sr_store_open(f->where, &o, &s) != -EOPNOTSUPP) return 1;
  o.must_engine = false;
  f->log[0] = 0;
  if (sr_store_open(f->where, &o, &s)) return 2;
  if (!strstr(f->log, "io_uring")) return 3; /* it says so */
  int r = put_and_get(s, &core, &st);
  if (r) return r;
  return strcmp(core.engine, "pool") != 0 || !st.engine_fallback || !st.why_engine[0];
}

static void refused_io_uring_falls_back(void **state) {
  format_store(*state, 2, 16 * MIB);
  in_child(*state, open_without_io_uring);
}

/* Root has no limit, by this capability; all else it keeps, so that it can still reach the store.
 */
static bool drop_ipc_lock(void) {
  struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2];
  if (syscall(SYS_capget, &head, data)) return false;
  data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective &= ~CAP_TO_MASK(CAP_IPC_LOCK);
  return syscall(SYS_capset, &head, data) == 0;
}

static int open_with_little_memory(struct fixture *f) {
  struct sr_open_options o = open_options(f);
  struct sr_core_stats core;
  struct sr_store_stats st;
  struct sr_store *s;
  struct rlimit limit = {64 << 10, 64 << 10};
  if (setrlimit(RLIMIT_MEMLOCK, &limit)) return 77;
  if (!drop_ipc_lock()) return 77;
  int r = sr_store_open(f->where, &o, &s);
  if (r) return 2;
  r = put_and_get(s, &core, &st);
  if (r) return r;
  return core.buffers_registered;
}

static void a_memory_limit_is_survived(void **state) {
  struct fixture *f = *state;
  format_store(f, 1, 16 * MIB);
  in_child(f, open_with_little_memory);
}

static uint64_t used_bytes(struct fixture *f) {
  uint64_t all = 0;
  for (int i = 0; i < 2; i++) {
    char path[800];
    struct stat st;
    snprintf(path, sizeof path, "%s/shard-%04d", f->where, i);
    assert_int_equal(stat(path, &st), 0);
    all += (uint64_t)st.st_blocks * 512;
  }
  return all;
}

static void vacuum_gives_space_back(void **state) {
  struct fixture *f = *state;
  struct sr_vacuum_result result;
  char *buf = malloc(MIB), *out = malloc(MIB);
  format_store(f, 2, 64 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  for (uint64_t i = 0; i < 80; i++) {
    fill_bytes(buf, MIB, i);
    assert_int_equal(sr_put(p, id_of(i), buf, MIB, 0), 0);
  }
  for (uint64_t i = 0; i < 80; i++)
    if (i % 4) assert_int_equal(sr_delete(p, id_of(i), 0), 0);
  assert_int_equal(sr_flush(p), 0);
  uint64_t before = used_bytes(f);
  assert_int_equal(sr_vacuum(p, &result), 0);
  assert_true(result.moved_bytes > 0);
  assert_true(result.released_bytes >= 40 * MIB);
  assert_true(used_bytes(f) + 40 * MIB <= before);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  s = open_store(f);
  p = open_port(s);
  assert_int_equal(sr_count(p), 20);
  for (uint64_t i = 0; i < 80; i += 4) {
    fill_bytes(buf, MIB, i);
    assert_int_equal(sr_get(p, id_of(i), out, 0, MIB), MIB);
    assert_memory_equal(buf, out, MIB);
  }
  free(buf), free(out);
  close_both(s, p);
}

int main(void) {
#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {
      TEST(engines_share_one_format),
      TEST(refused_io_uring_falls_back),
      TEST(a_memory_limit_is_survived),
      TEST(vacuum_gives_space_back),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
