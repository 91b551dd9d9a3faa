/* volume_world.h - stores of several kinds for tests of what volumes hold: in memory and in a
 * directory, volumes on one shard and striped. Include after <cmocka.h>. */
#ifndef TESTS_API_VOLUME_WORLD_H
#define TESTS_API_VOLUME_WORLD_H

#include <sched.h>

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

static inline uint32_t two_cores(void) {
  cpu_set_t set;
  assert_int_equal(sched_getaffinity(0, sizeof set, &set), 0);
  return CPU_COUNT(&set) < 2 ? 1 : 2;
}

static inline void open_world(struct world *w, const struct kind *k) {
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

static inline struct world begin(void **state, const struct kind *k) {
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

static inline void end(struct world *w) { close_both(w->s, w->p); }

/* False: a store in memory does not come back. */
static inline bool reopen(struct world *w, const struct kind *k, bool crash) {
  if (w->memory) return false;
  assert_int_equal(sr_port_close(w->p), 0);
  if (crash)
    sr_store_abandon(w->s);
  else
    assert_int_equal(sr_store_close(w->s), 0);
  open_world(w, k);
  return true;
}

static inline void create(struct world *w, const struct kind *k, const char *name, uint64_t bytes) {
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  o.size_bytes = bytes;
  o.striped = k->striped;
  o.stripe_bytes = k->striped ? 64 << 10 : 0;
  assert_int_equal(sr_volume_create(w->p, name, &o), 0);
}

static inline struct sr_block *open_block(struct world *w, const char *name, bool read_only) {
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *b = NULL;
  o.read_only = read_only;
  int r = sr_volume_open(w->p, name, &o, &b);
  if (r) print_error("open %s: %s\n", name, strerror(-r));
  assert_int_equal(r, 0);
  return b;
}

static inline void close_block(struct world *w, struct sr_block *b) {
  assert_int_equal(sr_block_close(w->p, b), 0);
}

/* Bytes of seed n at an address; seed 0: zeros. */
static inline void pattern(void *buf, uint64_t bytes, uint64_t seed, uint64_t offset) {
  if (!seed)
    memset(buf, 0, bytes);
  else
    for (uint64_t at = 0; at < bytes; at += 512)
      fill_bytes((char *)buf + at, 512, seed * 1000003 + (offset + at) / 512);
}

static inline void write_at(struct world *w, struct sr_block *b, uint64_t offset, uint64_t bytes,
                            uint64_t seed) {
  char *buf = malloc(bytes);
  pattern(buf, bytes, seed, offset);
  int64_t r = sr_block_write(w->p, b, buf, offset, bytes, 0);
  free(buf);
  assert_int_equal(r, bytes);
}

static inline void expect_at(struct world *w, struct sr_block *b, uint64_t offset, uint64_t bytes,
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

static inline void expect_in(struct world *w, const char *name, uint64_t offset, uint64_t bytes,
                             uint64_t seed) {
  struct sr_block *b = open_block(w, name, true);
  expect_at(w, b, offset, bytes, seed);
  close_block(w, b);
}

static inline void write_in(struct world *w, const char *name, uint64_t offset, uint64_t bytes,
                            uint64_t seed) {
  struct sr_block *b = open_block(w, name, false);
  write_at(w, b, offset, bytes, seed);
  close_block(w, b);
}

static inline struct sr_volume_info stat_of(struct world *w, const char *name) {
  struct sr_volume_info info;
  assert_int_equal(sr_volume_stat(w->p, name, &info), 0);
  return info;
}

/* Layers are dropped in the background; what they free is there after the next flush. */
static inline uint64_t free_bytes(struct world *w) {
  struct sr_space space;
  assert_int_equal(sr_flush(w->p), 0);
  assert_int_equal(sr_flush(w->p), 0);
  assert_int_equal(sr_space(w->p, &space), 0);
  return space.free_bytes + space.pending_bytes;
}

static inline void wait_for_space(struct world *w, uint64_t bytes) {
  uint64_t is = 0;
  for (int i = 0; i < 2000 && (is = free_bytes(w)) < bytes; i++) usleep(1000);
  if (is < bytes)
    print_error("%llu bytes free, expected %llu\n", (unsigned long long)is,
                (unsigned long long)bytes);
  assert_true(is >= bytes);
}

typedef void scenario(struct world *w, const struct kind *k);

static inline void on_all(void **state, scenario *fn) {
  for (size_t i = 0; i < KINDS; i++) {
    struct world w = begin(state, &kinds[i]);
    fn(&w, &kinds[i]);
    end(&w);
  }
}

#endif
