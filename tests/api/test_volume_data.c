/* test_volume_data.c - what volumes, snapshots and clones hold while they are made, cut, flattened,
 * compared and removed; and after a close or a crash. Every kind on one shard and striped, in
 * memory and in a directory. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/api/fixture.h"

#define KIB   UINT64_C(1024)
#define DISK  (12 * MIB) /* of most volumes here */
#define PIECE (64 * KIB)

struct world {
  struct fixture *f;
  struct sr_store *s;
  struct sr_port *p;
  bool memory;
};

struct kind {
  bool memory, striped;
  uint32_t shards;
};
static const struct kind kinds[] = {
    {true, false, 1}, {true, false, 4}, {true, true, 4}, {false, false, 3}, {false, true, 3}};
#define KINDS (sizeof kinds / sizeof kinds[0])

static uint32_t two_cores(void) {
  cpu_set_t set;
  assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
  return CPU_COUNT(&set) < 2 ? 1 : 2;
}

static void open_world(struct world *w, const struct kind *k) {
  struct sr_open_options o = open_options(w->f);
  char memory[32];
  snprintf(memory, sizeof memory, "mem:%uM:%u", 48 * k->shards, k->shards);
  o.core_count = two_cores();
  o.no_pin = true;
  o.no_background = true; /* space that is being zeroed is not counted as free */
  w->memory = k->memory;
  int r = sr_store_open(k->memory ? memory : w->f->where, &o, &w->s);
  if (r) print_error("open: %s\n%s", strerror(-r), w->f->log);
  assert_int_equal(r, 0);
  w->p = open_port(w->s);
}

static struct world begin(void **state, const struct kind *k) {
  struct world w = {.f = *state};
  if (!k->memory) {
    char command[800];
    snprintf(command, sizeof command, "rm -rf '%s'", w.f->where);
    assert_int_equal(system(command), 0);
    format_store(w.f, k->shards, 48 * MIB);
  }
  open_world(&w, k);
  return w;
}

static void end(struct world *w) { close_both(w->s, w->p); }

/* False: a store in memory does not come back. */
static bool reopen(struct world *w, const struct kind *k, bool crash) {
  if (w->memory) return false;
  assert_int_equal(sr_port_close(w->p), 0);
  if (crash)
    sr_store_abandon(w->s);
  else
    assert_int_equal(sr_store_close(w->s), 0);
  open_world(w, k);
  return true;
}

static void create(struct world *w, const struct kind *k, const char *name, uint64_t bytes) {
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  o.size_bytes = bytes;
  o.striped = k->striped;
  o.stripe_bytes = k->striped ? 64 << 10 : 0;
  assert_int_equal(sr_volume_create(w->p, name, &o), 0);
}

static struct sr_block *open_block(struct world *w, const char *name, bool read_only) {
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *b = NULL;
  o.read_only = read_only;
  int r = sr_volume_open(w->p, name, &o, &b);
  if (r) print_error("open %s: %s\n", name, strerror(-r));
  assert_int_equal(r, 0);
  return b;
}

static void close_block(struct world *w, struct sr_block *b) {
  assert_int_equal(sr_block_close(w->p, b), 0);
}

/* Bytes of seed n at an address; seed 0: zeros. */
static void pattern(void *buf, uint64_t bytes, uint64_t seed, uint64_t offset) {
  if (!seed)
    memset(buf, 0, bytes);
  else
    for (uint64_t at = 0; at < bytes; at += 512)
      fill_bytes((char *)buf + at, 512, seed * 1000003 + (offset + at) / 512);
}

static void write_at(struct world *w, struct sr_block *b, uint64_t offset, uint64_t bytes,
                     uint64_t seed) {
  char *buf = malloc(bytes);
  pattern(buf, bytes, seed, offset);
  int64_t r = sr_block_write(w->p, b, buf, offset, bytes, 0);
  free(buf);
  assert_int_equal(r, bytes);
}

static void expect_at(struct world *w, struct sr_block *b, uint64_t offset, uint64_t bytes,
                      uint64_t seed) {
  char *buf = malloc(bytes), *want = malloc(bytes);
  memset(buf, 0xaa, bytes);
  pattern(want, bytes, seed, offset);
  int64_t r = sr_block_read(w->p, b, buf, offset, bytes);
  bool same = r == (int64_t)bytes && memcmp(buf, want, bytes) == 0;
  free(buf);
  free(want);
  if (!same)
    print_error("at %llu, %llu bytes: not seed %llu, or result %lld\n", (unsigned long long)offset,
                (unsigned long long)bytes, (unsigned long long)seed, (long long)r);
  assert_true(same);
}

static void expect_in(struct world *w, const char *name, uint64_t offset, uint64_t bytes,
                      uint64_t seed) {
  struct sr_block *b = open_block(w, name, true);
  expect_at(w, b, offset, bytes, seed);
  close_block(w, b);
}

static void write_in(struct world *w, const char *name, uint64_t offset, uint64_t bytes,
                     uint64_t seed) {
  struct sr_block *b = open_block(w, name, false);
  write_at(w, b, offset, bytes, seed);
  close_block(w, b);
}

static struct sr_volume_info stat_of(struct world *w, const char *name) {
  struct sr_volume_info info;
  assert_int_equal(sr_volume_stat(w->p, name, &info), 0);
  return info;
}

/* Layers are dropped in the background; what they free is there after the next flush. */
static uint64_t free_bytes(struct world *w) {
  struct sr_space space;
  assert_int_equal(sr_flush(w->p), 0);
  assert_int_equal(sr_flush(w->p), 0);
  assert_int_equal(sr_space(w->p, &space), 0);
  return space.free_bytes + space.pending_bytes;
}

static void wait_for_space(struct world *w, uint64_t bytes) {
  uint64_t is = 0;
  for (int i = 0; i < 2000 && (is = free_bytes(w)) < bytes; i++) usleep(1000);
  if (is < bytes)
    print_error("%llu bytes free, expected %llu\n", (unsigned long long)is,
                (unsigned long long)bytes);
  assert_true(is >= bytes);
}

typedef void scenario(struct world *w, const struct kind *k);

static void on_all(void **state, scenario *fn) {
  for (size_t i = 0; i < KINDS; i++) {
    struct world w = begin(state, &kinds[i]);
    fn(&w, &kinds[i]);
    end(&w);
  }
}

/* ---- Snapshots and clones -----------------------------------------------------------------------
 */

static void snapshots_keep_what_was(struct world *w, const struct kind *k) {
  create(w, k, "v", DISK);
  struct sr_block *b = open_block(w, "v", false);
  expect_at(w, b, 0, DISK, 0);
  write_at(w, b, 0, DISK / 2, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s1"), 0);
  write_at(w, b, PIECE, PIECE, 2);
  write_at(w, b, DISK - PIECE, PIECE, 2);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s2"), 0);
  write_at(w, b, PIECE + 4096, 4096, 3);
  for (int turn = 0; turn < 3; turn++) {
    expect_in(w, "s1", 0, DISK / 2, 1);
    expect_in(w, "s1", DISK / 2, DISK / 2, 0);
    expect_in(w, "s2", 0, PIECE, 1);
    expect_in(w, "s2", PIECE, PIECE, 2);
    expect_in(w, "s2", 2 * PIECE, DISK / 2 - 2 * PIECE, 1);
    expect_in(w, "s2", DISK - PIECE, PIECE, 2);
    expect_at(w, b, PIECE, 4096, 2);
    expect_at(w, b, PIECE + 4096, 4096, 3);
    expect_at(w, b, PIECE + 8192, PIECE - 8192, 2);
    if (turn == 0) assert_int_equal(sr_block_flush(w->p, b), 0);
    close_block(w, b);
    if (turn < 2 && !reopen(w, k, turn == 0)) {
      b = open_block(w, "v", false);
      break;
    }
    b = open_block(w, "v", false);
  }
  close_block(w, b);
}

static void clones_go_their_own_ways(struct world *w, const struct kind *k) {
  char name[16];
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  create(w, k, "v", DISK);
  write_in(w, "v", 0, DISK / 2, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "gold"), 0);
  for (uint32_t i = 0; i < 4; i++) {
    snprintf(name, sizeof name, "c%u", i);
    o.on_shard = !k->striped;
    o.shard = i % k->shards;
    o.size_bytes = i == 3 ? DISK + MIB : 0;
    assert_int_equal(sr_volume_clone(w->p, "gold", name, &o), 0);
    expect_in(w, name, 0, DISK / 2, 1);
    write_in(w, name, i * PIECE, PIECE, 10 + i);
    write_in(w, name, DISK - PIECE, PIECE, 20 + i);
  }
  assert_int_equal(sr_volume_remove(w->p, "gold"), 0);
  assert_int_equal(sr_volume_remove(w->p, "v"), 0);
  for (int turn = 0; turn < 2; turn++) {
    for (uint32_t i = 0; i < 4; i++) {
      snprintf(name, sizeof name, "c%u", i);
      if (i) expect_in(w, name, 0, i * PIECE, 1);
      expect_in(w, name, i * PIECE, PIECE, 10 + i);
      expect_in(w, name, (i + 1) * PIECE, DISK / 2 - (i + 1) * PIECE, 1);
      expect_in(w, name, DISK / 2, DISK / 2 - PIECE, 0);
      expect_in(w, name, DISK - PIECE, PIECE, 20 + i);
    }
    expect_in(w, "c3", DISK, MIB, 0);
    if (!reopen(w, k, false)) break;
  }
}

static void space_comes_back(struct world *w, const struct kind *k) {
  static const char *const orders[4][4] = {
      {"v", "s", "c", "d"}, {"s", "d", "c", "v"}, {"c", "s", "v", "d"}, {"d", "c", "v", "s"}};
  create(w, k, "keep", MIB);
  uint64_t before = free_bytes(w);
  for (int i = 0; i < 4; i++) {
    create(w, k, "v", DISK);
    write_in(w, "v", 0, DISK / 2, 1);
    assert_int_equal(sr_volume_snapshot(w->p, "v", "s"), 0);
    write_in(w, "v", 0, 3 * PIECE, 2);
    assert_int_equal(sr_volume_clone(w->p, "s", "c", NULL), 0);
    assert_int_equal(sr_volume_clone(w->p, "s", "d", NULL), 0);
    write_in(w, "c", DISK - PIECE, PIECE, 3);
    write_in(w, "d", 0, PIECE, 4);
    uint64_t is = free_bytes(w);
    if (is >= before - DISK / 2)
      print_error("order %d: %llu bytes free, before %llu\n", i, (unsigned long long)is,
                  (unsigned long long)before);
    assert_true(is < before - DISK / 2);
    for (int n = 0; n < 4; n++) assert_int_equal(sr_volume_remove(w->p, orders[i][n]), 0);
    wait_for_space(w, before - 64 * KIB);
  }
}

static void rolled_back(struct world *w, const struct kind *k) {
  create(w, k, "v", DISK);
  write_in(w, "v", 0, 4 * PIECE, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s1"), 0);
  write_in(w, "v", 0, PIECE, 2);
  assert_int_equal(sr_volume_resize(w->p, "v", DISK + MIB, false), 0);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s2"), 0);
  write_in(w, "v", DISK, PIECE, 3);
  assert_int_equal(sr_volume_rollback(w->p, "v", "s1"), 0);
  assert_int_equal(stat_of(w, "v").size_bytes, DISK);
  for (int turn = 0; turn < 2; turn++) {
    expect_in(w, "v", 0, 4 * PIECE, 1);
    expect_in(w, "s2", 0, PIECE, 2);
    expect_in(w, "s2", DISK, MIB, 0);
    if (!reopen(w, k, false)) break;
  }
  assert_int_equal(sr_volume_remove(w->p, "s2"), 0);
  assert_int_equal(sr_volume_resize(w->p, "v", DISK + MIB, false), 0);
  expect_in(w, "v", DISK, MIB, 0);
}

/* ---- Sizes
 * --------------------------------------------------------------------------------------- */

static void resized(struct world *w, const struct kind *k) {
  const uint64_t odd = 5 * MIB + 512;
  create(w, k, "v", DISK);
  struct sr_block *b = open_block(w, "v", false);
  write_at(w, b, 0, DISK, 1);
  assert_int_equal(sr_volume_resize(w->p, "v", 0, true), -EINVAL);
  assert_int_equal(sr_volume_resize(w->p, "v", 1000, true), -EINVAL);
  assert_int_equal(sr_volume_resize(w->p, "v", SR_VOLUME_BYTES_MAX + 4096, true), -EINVAL);
  assert_int_equal(sr_volume_resize(w->p, "v", odd, false), -ENOTEMPTY);
  assert_int_equal(sr_block_size_bytes(b), DISK);
  expect_at(w, b, 0, DISK, 1);
  assert_int_equal(sr_volume_resize(w->p, "v", odd, true), 0);
  assert_int_equal(sr_block_size_bytes(b), odd);
  char sector[512];
  assert_int_equal(sr_block_read(w->p, b, sector, odd, 512), -EINVAL);
  expect_at(w, b, 0, odd, 1);
  assert_int_equal(sr_volume_resize(w->p, "v", DISK, false), 0);
  expect_at(w, b, 0, odd, 1);
  expect_at(w, b, odd, DISK - odd, 0);
  assert_int_equal(sr_volume_resize(w->p, "v", odd, false), 0); /* nothing there */
  assert_int_equal(sr_volume_resize(w->p, "v", DISK, false), 0);
  write_at(w, b, odd, 512, 2);
  assert_int_equal(sr_volume_resize(w->p, "v", odd, false), -ENOTEMPTY);
  expect_at(w, b, odd, 512, 2);
  /* A clone's tail lies below. */
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s"), 0);
  close_block(w, b);
  assert_int_equal(sr_volume_clone(w->p, "s", "c", NULL), 0);
  assert_int_equal(sr_volume_resize(w->p, "c", MIB, false), -ENOTEMPTY);
  assert_int_equal(sr_volume_resize(w->p, "c", MIB, true), 0);
  assert_int_equal(sr_volume_resize(w->p, "c", 2 * DISK, false), 0);
  assert_int_equal(sr_volume_resize(w->p, "s", DISK * 2, false), -EROFS);
  for (int turn = 0; turn < 2; turn++) {
    expect_in(w, "c", 0, MIB, 1);
    expect_in(w, "c", MIB, 2 * DISK - MIB, 0);
    expect_in(w, "s", 0, odd, 1);
    if (!reopen(w, k, false)) break;
  }
}

/* ---- Flatten
 * -------------------------------------------------------------------------------------- */

static void flattened(struct world *w, const struct kind *k) {
  create(w, k, "v", DISK);
  write_in(w, "v", 0, DISK / 2, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s1"), 0);
  write_in(w, "v", PIECE, PIECE, 2);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s2"), 0);
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  o.on_shard = !k->striped;
  o.shard = k->shards - 1;
  assert_int_equal(sr_volume_clone(w->p, "s2", "c", &o), 0);
  struct sr_block *b = open_block(w, "c", false);
  write_at(w, b, 4 * PIECE, 4096, 3);
  assert_int_equal(sr_block_discard(w->p, b, 6 * PIECE, PIECE), PIECE);
  assert_int_equal(sr_volume_flatten(w->p, "s1"), -EROFS);
  assert_int_equal(sr_volume_flatten(w->p, "c"), 0);
  assert_int_equal(stat_of(w, "c").parent_id, 0);
  assert_int_equal(stat_of(w, "c").shared_bytes, 0);
  assert_int_equal(sr_volume_remove(w->p, "v"), 0);
  assert_int_equal(sr_volume_remove(w->p, "s2"), 0);
  assert_int_equal(sr_volume_remove(w->p, "s1"), 0);
  for (int turn = 0; turn < 2; turn++) {
    expect_at(w, b, 0, PIECE, 1);
    expect_at(w, b, PIECE, PIECE, 2);
    expect_at(w, b, 2 * PIECE, 2 * PIECE, 1);
    expect_at(w, b, 4 * PIECE, 4096, 3);
    expect_at(w, b, 4 * PIECE + 4096, 2 * PIECE - 4096, 1);
    expect_at(w, b, 6 * PIECE, PIECE, 0);
    expect_at(w, b, 7 * PIECE, DISK / 2 - 7 * PIECE, 1);
    expect_at(w, b, DISK / 2, DISK / 2, 0);
    close_block(w, b);
    bool again = turn == 0 && reopen(w, k, false);
    b = open_block(w, "c", false);
    if (!again) break;
  }
  close_block(w, b);
}

/* ---- Diff
 * ------------------------------------------------------------------------------------------ */

struct ranges {
  struct sr_volume_range r[64];
  int count;
};

static int keep_range(void *arg, const struct sr_volume_range *range) {
  struct ranges *ranges = arg;
  assert_in_range(ranges->count, 0, 63);
  ranges->r[ranges->count++] = *range;
  return 0;
}

static void assert_range(const struct ranges *x, int i, uint64_t offset, uint64_t bytes,
                         bool zeros) {
  assert_in_range(i, 0, x->count - 1);
  assert_int_equal(x->r[i].offset_bytes, offset);
  assert_int_equal(x->r[i].bytes, bytes);
  assert_int_equal(x->r[i].zeros, zeros);
}

static struct ranges diff(struct world *w, const char *from, const char *to) {
  struct ranges x = {.count = 0};
  assert_int_equal(sr_volume_diff(w->p, from, to, keep_range, &x), 0);
  return x;
}

static int stop_at_once(void *arg, const struct sr_volume_range *range) {
  (void)range;
  return ++*(int *)arg == 2 ? 77 : 0;
}

static void differences(struct world *w, const struct kind *k) {
  create(w, k, "v", DISK + 512);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "empty"), 0);
  struct sr_block *b = open_block(w, "v", false);
  write_at(w, b, 0, DISK / 2, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s1"), 0);
  write_at(w, b, PIECE - 4096, 8192, 2);
  write_at(w, b, DISK, 512, 2);
  write_at(w, b, 9 * MIB, 4096, 2);
  assert_int_equal(sr_block_discard(w->p, b, 4 * PIECE, 2 * PIECE), 2 * PIECE);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s2"), 0);
  close_block(w, b);
  struct ranges x = diff(w, "s1", "s2");
  assert_int_equal(x.count, 4);
  assert_range(&x, 0, PIECE - 4096, 8192, false);
  assert_range(&x, 1, 4 * PIECE, 2 * PIECE, true);
  assert_range(&x, 2, 9 * MIB, 4096, false);
  assert_range(&x, 3, DISK, 512, false);
  x = diff(w, NULL, "s1");
  assert_int_equal(x.count, 1);
  assert_range(&x, 0, 0, DISK / 2, false);
  x = diff(w, "empty", "s1");
  assert_int_equal(x.count, 1);
  x = diff(w, NULL, "s2");
  assert_int_equal(x.count, 4);
  assert_range(&x, 0, 0, 4 * PIECE, false);
  assert_range(&x, 1, 6 * PIECE, DISK / 2 - 6 * PIECE, false);
  assert_int_equal(diff(w, NULL, "empty").count, 0);
  assert_int_equal(diff(w, "s2", "v").count, 0);
  x = diff(w, "s2", "s1"); /* back */
  assert_int_equal(x.count, 4);
  assert_range(&x, 1, 4 * PIECE, 2 * PIECE, false);
  assert_range(&x, 2, 9 * MIB, 4096, true);
  int calls = 0;
  assert_int_equal(sr_volume_diff(w->p, "s1", "s2", stop_at_once, &calls), 77);
  assert_int_equal(sr_volume_diff(w->p, "v", "s2", keep_range, &x), -EINVAL); /* no snapshot */
  assert_int_equal(sr_volume_diff(w->p, "none", "s2", keep_range, &x), -ENOENT);
  assert_int_equal(sr_volume_diff(w->p, NULL, "s2", NULL, NULL), -EINVAL);
}

/* ---- Merges
 * ---------------------------------------------------------------------------------------- */

/* As backups do it: a snapshot a day, the oldest goes. What only removed ones had comes back. */
static void snapshots_in_rotation(struct world *w, const struct kind *k) {
  enum { DAYS = 12, KEPT = 3 };
  char name[16];
  create(w, k, "v", DISK);
  struct sr_block *b = open_block(w, "v", false);
  for (uint64_t day = 1; day <= DAYS; day++) {
    write_at(w, b, 0, 8 * PIECE, day);                  /* all of it every day */
    write_at(w, b, (8 + day) * PIECE, PIECE, day);      /* a part of it once */
    write_at(w, b, 30 * PIECE + day * 4096, 4096, day); /* a part of a cluster */
    snprintf(name, sizeof name, "day%02d", (int)day);
    assert_int_equal(sr_volume_snapshot(w->p, "v", name), 0);
    snprintf(name, sizeof name, "day%02d", (int)day - KEPT);
    if (day > KEPT) assert_int_equal(sr_volume_remove(w->p, name), 0);
  }
  assert_int_equal(stat_of(w, "v").depth, KEPT);
  uint64_t used = stat_of(w, "v").used_bytes + stat_of(w, "v").shared_bytes;
  assert_in_range(used, 20 * PIECE, (8 * KEPT + DAYS + 2 * KEPT + 1) * PIECE);
  for (int turn = 0; turn < 2; turn++) {
    for (uint64_t day = DAYS - KEPT + 1; day <= DAYS; day++) {
      snprintf(name, sizeof name, "day%02d", (int)day);
      expect_in(w, name, 0, 8 * PIECE, day);
      for (uint64_t d = 1; d <= DAYS; d++) {
        expect_in(w, name, (8 + d) * PIECE, PIECE, d <= day ? d : 0);
        expect_in(w, name, 30 * PIECE + d * 4096, 4096, d <= day ? d : 0);
      }
    }
    expect_at(w, b, 0, 8 * PIECE, DAYS);
    close_block(w, b);
    bool again = turn == 0 && reopen(w, k, false);
    b = open_block(w, "v", false);
    if (!again) break;
  }
  close_block(w, b);
}

/* The one that is left of several lies in the same shard as what it lies on, or in another. */
static void the_last_clone_inherits(struct world *w, const struct kind *k) {
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  create(w, k, "v", DISK);
  uint64_t before = free_bytes(w);
  write_in(w, "v", 0, DISK / 2, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s"), 0);
  o.on_shard = !k->striped;
  o.shard = (stat_of(w, "v").shard + 1) % k->shards;
  assert_int_equal(sr_volume_clone(w->p, "s", "c", &o), 0);
  write_in(w, "v", 0, DISK / 2 - PIECE, 2);
  write_in(w, "c", PIECE, PIECE, 3);
  assert_int_equal(sr_volume_remove(w->p, "s"), 0);
  assert_int_equal(stat_of(w, "v").depth, 1);
  assert_int_equal(sr_volume_remove(w->p, "c"), 0);
  assert_int_equal(stat_of(w, "v").depth, 0);
  expect_in(w, "v", 0, DISK / 2 - PIECE, 2);
  expect_in(w, "v", DISK / 2 - PIECE, PIECE, 1);
  expect_in(w, "v", DISK / 2, DISK / 2, 0);
  wait_for_space(w, before - DISK / 2 - 2 * MIB);
  if (!reopen(w, k, true)) return;
  expect_in(w, "v", 0, DISK / 2 - PIECE, 2);
  expect_in(w, "v", DISK / 2 - PIECE, PIECE, 1);
}

/* ---- Crashes
 * --------------------------------------------------------------------------------------- */

/* A durable write after a change that concerns several shards: the change is there, too. */
static void durable_writes_take_changes_along(struct world *w, const struct kind *k) {
  char buf[4096];
  if (w->memory) return;
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  create(w, k, "v", DISK);
  write_in(w, "v", 0, PIECE, 1);
  assert_int_equal(sr_flush(w->p), 0);
  struct sr_block *b = open_block(w, "v", false);
  write_at(w, b, PIECE, PIECE, 2);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s"), 0);
  o.on_shard = !k->striped;
  o.shard = k->shards - 1;
  assert_int_equal(sr_volume_clone(w->p, "s", "c", &o), 0);
  struct sr_block *c = open_block(w, "c", false);
  pattern(buf, sizeof buf, 3, 0);
  /* In the last shard alone. */
  uint64_t at = k->striped ? (k->shards - 1) * PIECE : 0;
  pattern(buf, sizeof buf, 3, at);
  assert_int_equal(sr_block_write(w->p, c, buf, at, sizeof buf, SR_DURABLE), sizeof buf);
  close_block(w, c);
  close_block(w, b);
  reopen(w, k, true);
  expect_in(w, "c", at, 4096, 3);
  if (at) expect_in(w, "c", 0, PIECE, 1);
  expect_in(w, "c", PIECE, PIECE, 2);
  expect_in(w, "s", 0, PIECE, 1);
}

/* A commit of one shard alone, after removals that concern several. */
static void removed_and_committed(struct world *w, const struct kind *k, uint32_t shard) {
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT, other = SR_VOLUME_OPTIONS_INIT;
  create(w, k, "v", DISK);
  other.size_bytes = MIB;
  other.on_shard = true;
  other.shard = (stat_of(w, "v").shard + shard) % k->shards;
  assert_int_equal(sr_volume_create(w->p, "other", &other), 0);
  write_in(w, "v", 0, DISK / 2, 1);
  assert_int_equal(sr_volume_snapshot(w->p, "v", "s"), 0);
  o.on_shard = !k->striped;
  o.shard = (stat_of(w, "v").shard + 1) % k->shards;
  assert_int_equal(sr_volume_clone(w->p, "s", "c", &o), 0);
  write_in(w, "c", 0, PIECE, 2);
  assert_int_equal(sr_flush(w->p), 0);
  assert_int_equal(sr_volume_remove(w->p, "v"), 0);
  assert_int_equal(sr_volume_remove(w->p, "c"), 0);
  assert_int_equal(sr_volume_remove(w->p, "s"), 0);
  char buf[4096];
  pattern(buf, sizeof buf, 9, 0);
  struct sr_block *b = open_block(w, "other", false);
  int64_t r = sr_block_write(w->p, b, buf, 0, sizeof buf, SR_DURABLE);
  assert_int_equal(r, sizeof buf);
  close_block(w, b);
  reopen(w, k, true);
  expect_in(w, "other", 0, 4096, 9);
  /* All of the removals, or a beginning of them: what is there is whole. */
  struct sr_volume_info info;
  if (sr_volume_stat(w->p, "s", &info) == 0) expect_in(w, "s", 0, DISK / 2, 1);
  if (sr_volume_stat(w->p, "v", &info) == 0) expect_in(w, "v", 0, DISK / 2, 1);
  if (sr_volume_stat(w->p, "c", &info) == 0) {
    expect_in(w, "c", 0, PIECE, 2);
    expect_in(w, "c", PIECE, DISK / 2 - PIECE, 1);
  }
}

static void unflushed_removal_is_undone(struct world *w, const struct kind *k) {
  if (w->memory) return;
  for (uint32_t shard = 0; shard < k->shards; shard++) {
    static const char *const names[] = {"v", "c", "s", "other"};
    removed_and_committed(w, k, shard);
    for (int i = 0; i < 4; i++) {
      int r = sr_volume_remove(w->p, names[i]);
      if (r != -ENOENT) assert_int_equal(r, 0);
    }
  }
}

static void t_snapshots(void **state) { on_all(state, snapshots_keep_what_was); }
static void t_clones(void **state) { on_all(state, clones_go_their_own_ways); }
static void t_space(void **state) { on_all(state, space_comes_back); }
static void t_rollback(void **state) { on_all(state, rolled_back); }
static void t_resize(void **state) { on_all(state, resized); }
static void t_flatten(void **state) { on_all(state, flattened); }
static void t_diff(void **state) { on_all(state, differences); }
static void t_rotation(void **state) { on_all(state, snapshots_in_rotation); }
static void t_inherits(void **state) { on_all(state, the_last_clone_inherits); }
static void t_durable(void **state) { on_all(state, durable_writes_take_changes_along); }
static void t_removal(void **state) { on_all(state, unflushed_removal_is_undone); }

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {TEST(t_snapshots), TEST(t_clones),  TEST(t_space),
                                     TEST(t_rollback),  TEST(t_resize),  TEST(t_flatten),
                                     TEST(t_diff),      TEST(t_durable), TEST(t_removal),
                                     TEST(t_rotation),  TEST(t_inherits)};
  return cmocka_run_group_tests_name("volume_data", tests, NULL, NULL);
}
