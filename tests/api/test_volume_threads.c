/* test_volume_threads.c - volumes while several threads use them: snapshots of a volume that is
 * being written are one point in time; management from many ports at once. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/api/fixture.h"

#define BLOCKS 96u /* of 4 KiB, in different clusters, stripes and shards */
#define STEP   (64u << 10)
#define DISK   (BLOCKS * STEP)

struct work {
  struct sr_store *s;
  struct sr_block *b;
  atomic_bool stop;
  atomic_uint rounds, failures;
  uint32_t number;
};

/* Writes n into block after block, one at a time: at any moment blocks are n up to some place, and
 * n - 1 behind it. */
static void *write_rounds(void *arg) {
  struct work *w = arg;
  struct sr_port *p = NULL;
  uint64_t *buf = aligned_alloc(4096, 4096);
  if (sr_port_open(w->s, NULL, &p)) atomic_fetch_add(&w->failures, 1);
  for (uint64_t n = 1; p && !atomic_load(&w->stop); n++) {
    for (uint32_t i = 0; i < BLOCKS; i++) {
      for (uint32_t k = 0; k < 512; k++) buf[k] = n;
      if (sr_block_write(p, w->b, buf, (uint64_t)i * STEP, 4096, 0) != 4096)
        atomic_fetch_add(&w->failures, 1);
    }
    atomic_fetch_add(&w->rounds, 1);
  }
  if (p) sr_port_close(p);
  free(buf);
  return NULL;
}

/* Block by block the number falls once, by 1, or not at all. */
static void assert_one_moment(struct sr_port *p, const char *name) {
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *b;
  uint64_t *buf = aligned_alloc(4096, 4096), before = 0;
  int falls = 0;
  o.read_only = true;
  assert_int_equal(sr_volume_open(p, name, &o, &b), 0);
  for (uint32_t i = 0; i < BLOCKS; i++) {
    assert_int_equal(sr_block_read(p, b, buf, (uint64_t)i * STEP, 4096), 4096);
    for (uint32_t k = 1; k < 512; k++) assert_int_equal(buf[k], buf[0]);
    if (i && buf[0] != before) {
      assert_int_equal(buf[0], before - 1);
      falls++;
    }
    before = buf[0];
  }
  assert_in_range(falls, 0, 1);
  assert_int_equal(sr_block_close(p, b), 0);
  free(buf);
}

static struct sr_store *open_memory(uint32_t shards) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct sr_store *s = NULL;
  char where[32];
  cpu_set_t set;
  assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
  snprintf(where, sizeof where, "mem:%uM:%u", 256 * shards, shards);
  o.core_count = CPU_COUNT(&set) < 2 ? 1 : 2;
  o.no_pin = true;
  o.arena_bytes = 8 * MIB;
  assert_int_equal(sr_store_open(where, &o, &s), 0);
  return s;
}

static void snapshots_under_load(bool striped) {
  enum { SNAPSHOTS = 24 };
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct work w = {.s = open_memory(4)};
  struct sr_port *p = open_port(w.s);
  pthread_t thread;
  char name[16];
  v.size_bytes = DISK;
  v.striped = striped;
  v.stripe_bytes = striped ? 64 << 10 : 0;
  assert_int_equal(sr_volume_create(p, "v", &v), 0);
  assert_int_equal(sr_volume_open(p, "v", NULL, &w.b), 0);
  assert_int_equal(pthread_create(&thread, NULL, write_rounds, &w), 0);
  for (int i = 0; i < SNAPSHOTS; i++) {
    uint32_t rounds = atomic_load(&w.rounds);
    while (atomic_load(&w.rounds) == rounds && !atomic_load(&w.failures)) sched_yield();
    snprintf(name, sizeof name, "s%d", i);
    assert_int_equal(sr_volume_snapshot(p, "v", name), 0);
    if (i % 3 == 2) { /* from the middle: merged into the next, which is read and written through */
      snprintf(name, sizeof name, "s%d", i - 1);
      assert_int_equal(sr_volume_remove(p, name), 0);
    }
  }
  atomic_store(&w.stop, true);
  pthread_join(thread, NULL);
  assert_int_equal(atomic_load(&w.failures), 0);
  for (int i = 0; i < SNAPSHOTS; i++) {
    snprintf(name, sizeof name, "s%d", i);
    if (i % 3 != 1) assert_one_moment(p, name);
  }
  assert_int_equal(sr_volume_flatten(p, "v"), 0);
  assert_one_moment(p, "v");
  assert_int_equal(sr_block_close(p, w.b), 0);
  close_both(w.s, p);
}

static void of_one_shard(void **state) {
  (void)state;
  snapshots_under_load(false);
}
static void of_striped_ones(void **state) {
  (void)state;
  snapshots_under_load(true);
}

/* ---- Management by many ---------------------------------------------------------------------- */

#define MANAGERS 4u
#define TURNS    25u

static void *manage(void *arg) {
  struct work *w = arg;
  struct sr_port *p = NULL;
  char v[16], s[16], c[16], out[512], in[512];
  uint32_t bad = sr_port_open(w->s, NULL, &p) != 0;
  snprintf(v, sizeof v, "v%u", w->number);
  snprintf(s, sizeof s, "s%u", w->number);
  snprintf(c, sizeof c, "c%u", w->number);
  for (uint32_t i = 0; i < TURNS && !bad; i++) {
    struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
    struct sr_block *b;
    o.size_bytes = MIB;
    o.striped = w->number % 2;
    fill_bytes(in, sizeof in, w->number * 1000 + i);
    bad += sr_volume_create(p, v, &o) != 0;
    bad += sr_volume_open(p, v, NULL, &b) != 0;
    bad += sr_block_write(p, b, in, 512, 512, 0) != 512;
    bad += sr_volume_snapshot(p, v, s) != 0;
    bad += sr_block_close(p, b) != 0;
    bad += sr_volume_clone(p, s, c, NULL) != 0;
    bad += sr_volume_remove(p, s) != 0;
    bad += sr_volume_remove(p, v) != 0;
    bad += sr_volume_open(p, c, NULL, &b) != 0;
    bad += sr_block_read(p, b, out, 512, 512) != 512 || memcmp(in, out, 512) != 0;
    bad += i % 5 == 0 && sr_flush(p) != 0;
    bad += i % 7 == 0 && sr_volume_flatten(p, c) != 0;
    bad += sr_block_close(p, b) != 0;
    bad += sr_volume_remove(p, c) != 0;
  }
  if (p) sr_port_close(p);
  atomic_store(&w->failures, bad);
  return NULL;
}

static void many_managers(void **state) {
  struct work w[MANAGERS];
  pthread_t threads[MANAGERS];
  (void)state;
  struct sr_store *s = open_memory(3);
  struct sr_port *p = open_port(s);
  memset(w, 0, sizeof w);
  for (uint32_t i = 0; i < MANAGERS; i++) {
    w[i].s = s;
    w[i].number = i;
    assert_int_equal(pthread_create(&threads[i], NULL, manage, &w[i]), 0);
  }
  for (uint32_t i = 0; i < MANAGERS; i++) pthread_join(threads[i], NULL);
  for (uint32_t i = 0; i < MANAGERS; i++) assert_int_equal(atomic_load(&w[i].failures), 0);
  struct sr_volume_info info;
  assert_int_equal(sr_volume_list(p, "", &info, 1), 0);
  close_both(s, p);
}

int main(void) {
  const struct CMUnitTest tests[] = {cmocka_unit_test(of_one_shard),
                                     cmocka_unit_test(of_striped_ones),
                                     cmocka_unit_test(many_managers)};
  return cmocka_run_group_tests_name("volume_threads", tests, NULL, NULL);
}
