/* test_get_direct.c - sr_get() on its caller's own thread: the same bytes and errors as through the
 * blob's core, and never those of somebody else, whatever happens to the blob between its looking
 * up where they lie and its reading them. There the tests step in by the linker: pread() of the
 * thread that reads is theirs. In the program with plants: that they would find a second look left
 * out. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "shards/base/plant.h"
#include "tests/api/fixture.h"
#include "tests/api/pread_steps.h"

#define BLOCK       4096u
#define SHARD_BYTES (32 * MIB)

#ifdef SHARDRING_PLANTS
enum plant plant_chosen = PLANT_NONE;
#endif

/* ---- Helpers ----------------------------------------------------------------------------------
 */

static struct sr_core_stats stats_of(struct sr_store *s, struct sr_port *p) {
  struct sr_core_stats sum, one;
  memset(&sum, 0, sizeof sum);
  for (uint32_t c = 0; c < sr_core_count(s); c++) {
    assert_int_equal(sr_core_stats(p, c, &one), 0);
    assert_true(one.gets >= one.direct_gets);
    sum.gets += one.gets;
    sum.other_ops += one.other_ops;
    sum.read_bytes += one.read_bytes;
    sum.direct_gets += one.direct_gets;
    sum.checksum_errors += one.checksum_errors;
    sum.device_ios += one.device_ios;
  }
  return sum;
}

static uint64_t direct_gets(struct sr_store *s, struct sr_port *p) {
  return stats_of(s, p).direct_gets;
}

static int64_t get_by_core(struct sr_port *p, struct sr_id id, void *buf, uint64_t offset,
                           uint64_t bytes) {
  struct sr_request r = request_of_op(SR_OP_GET, 0, buf, bytes), *list[] = {&r};
  r.id = id;
  r.offset = offset;
  assert_int_equal(sr_port_submit(p, list, 1), 1);
  assert_int_equal(sr_port_wait(p, -1), 1);
  assert_int_equal(sr_port_reap(p, list, 1), 1);
  return r.result;
}

static void put(struct sr_port *p, uint64_t id, uint64_t bytes, uint64_t seed, uint32_t flags) {
  char *buf = calloc(1, bytes + 1);
  fill_bytes(buf, bytes, seed);
  assert_int_equal(sr_put(p, id_of(id), buf, bytes, flags), 0);
  free(buf);
}

static bool is_bytes(const void *buf, uint64_t bytes, uint64_t seed, uint64_t offset) {
  char *want = calloc(1, offset + bytes + 1);
  fill_bytes(want, offset + bytes, seed);
  bool same = memcmp(buf, want + offset, bytes) == 0;
  free(want);
  return same;
}

/* ---- What it reads ----------------------------------------------------------------------------
 */

#define CANARY 64u

static void expect_get(struct sr_port *p, uint64_t id, uint64_t size, uint64_t seed,
                       uint64_t offset, uint64_t bytes, uint32_t skew) {
  char *memory = aligned_alloc(BLOCK, (bytes + skew + CANARY + BLOCK - 1) / BLOCK * BLOCK),
       *buf = memory + skew;
  char *want = malloc(bytes + 1);
  int64_t n = offset >= size          ? 0
              : bytes < size - offset ? (int64_t)bytes
                                      : (int64_t)(size - offset);
  memset(buf, 0xaa, bytes + CANARY);
  assert_int_equal(sr_get(p, id_of(id), buf, offset, bytes), n);
  assert_true(is_bytes(buf, (uint64_t)n, seed, offset));
  for (uint32_t i = 0; i < CANARY; i++) assert_int_equal((uint8_t)buf[bytes + i], 0xaa);
  assert_int_equal(get_by_core(p, id_of(id), want, offset, bytes), n);
  assert_memory_equal(buf, want, (size_t)n);
  free(want), free(memory);
}

static const uint64_t sizes[] = {0,     1,          100,    4095, 4096,      4097,
                                 65536, 65536 + 77, 262144, MIB,  MIB + 513, 3 * MIB + 5};
#define SIZES (sizeof sizes / sizeof sizes[0])

static void read_ranges(struct sr_store *s, struct sr_port *p, uint64_t id, uint64_t size,
                        uint32_t flags) {
  const struct {
    uint64_t offset, bytes;
  } ranges[] = {
      {0, 1},        {0, 4096},        {4096, 4096},     {8192, 100},          {1, 4096},
      {4095, 2},     {0, size},        {size, 10},       {size + 1, 10},       {size / 2, 5000},
      {size - 1, 1}, {size - 1, 5000}, {65536, 65536},   {65536 - 4096, 8192}, {65536 - 5, 65546},
      {0, 0},        {size / 2, 4096}, {131072, 131072}, {0, size + 5000}};
  for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++) {
    if (ranges[i].offset > size + 1) continue; /* below 0 */
    for (uint32_t skew = 0; skew < 16; skew += 8) {
      uint64_t before = direct_gets(s, p), bytes = ranges[i].bytes;
      expect_get(p, id, size, id, ranges[i].offset, bytes, skew);
      bool small = bytes <= 65546 && (flags || size <= MIB || bytes <= 5000);
      if (small) assert_int_equal(direct_gets(s, p), before + 1);
    }
  }
}

static void same_bytes(struct fixture *f, const char *engine, bool read_only) {
  struct sr_open_options o = open_options(f);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  for (uint64_t i = 0; i < 2 * SIZES; i++) put(p, i, sizes[i / 2], i, i % 2 ? SR_NO_CHECKSUM : 0);
  close_both(s, p);
  o.engine = engine;
  o.read_only = read_only;
  assert_int_equal(sr_store_open(f->where, &o, &s), 0);
  p = open_port(s);
  for (uint64_t i = 0; i < 2 * SIZES; i++)
    read_ranges(s, p, i, sizes[i / 2], i % 2 ? SR_NO_CHECKSUM : 0);
  assert_int_equal(stats_of(s, p).checksum_errors, 0);
  close_both(s, p);
}

static void reads_the_same(void **state) {
  format_store(*state, 2, SHARD_BYTES);
  same_bytes(*state, NULL, false);
}
static void reads_by_the_pool_engine(void **state) {
  format_store(*state, 1, SHARD_BYTES);
  same_bytes(*state, "pool", false);
}
static void reads_read_only(void **state) {
  format_store(*state, 3, SHARD_BYTES);
  same_bytes(*state, NULL, true);
}

/* Slices of two files, and a region that goes on in a third one. */
static void reads_slices(void **state) {
  struct fixture *f = *state;
  struct sr_format_options o = SR_FORMAT_OPTIONS_INIT;
  char devices[3][200], two[420];
  for (int i = 0; i < 3; i++) {
    snprintf(devices[i], sizeof devices[i], "%.180s/disk%d.img", f->directory, i);
    int fd = open(devices[i], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, 48 * MIB), 0);
    close(fd);
  }
  snprintf(two, sizeof two, "%s,%s", devices[0], devices[1]);
  o.shards = 3;
  assert_int_equal(sr_format(two, &o), 0);
  assert_int_equal(sr_grow(two, 0, devices[2]), 0);
  snprintf(f->where, sizeof f->where, "%s,%s", two, devices[2]);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  uint64_t count = 0;
  char *buf = malloc(128 << 10);
  fill_bytes(buf, 128 << 10, 7);
  while (sr_put(p, id_of(1000 + count), buf, 128 << 10, 0) == 0) count++; /* to the last segment */
  assert_true(count > 600);
  for (uint64_t i = 0; i < count; i++)
    expect_get(p, 1000 + i, 128 << 10, 7, i * 4096 % 126976, BLOCK, 0);
  assert_true(direct_gets(s, p) > count - 20); /* but for ranges that a slice's end cuts */
  free(buf);
  close_both(s, p);
}

static void edges(void **state) {
  struct fixture *f = *state;
  char buf[BLOCK];
  uint64_t size = 0;
  format_store(f, 2, SHARD_BYTES);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s), *other = open_port(s);
  put(p, 1, 5000, 1, 0);
  assert_int_equal(sr_get(p, id_of(2), buf, 0, BLOCK), -ENOENT);
  assert_int_equal(sr_get(p, id_of(2), NULL, 0, 0), -ENOENT);
  assert_int_equal(sr_get(p, id_of(1), NULL, 0, 0), 0);
  assert_int_equal(sr_get(p, id_of(1), NULL, 0, 1), -EINVAL);
  assert_int_equal(sr_get(p, id_of(1), buf, UINT64_MAX - 10, BLOCK), -EINVAL);
  assert_int_equal(sr_get(NULL, id_of(1), buf, 0, BLOCK), -EINVAL);
  assert_int_equal(sr_stat(NULL, id_of(1), &size), -EINVAL);
  assert_int_equal(sr_stat(p, id_of(2), &size), -ENOENT);
  assert_int_equal(direct_gets(s, p), 3); /* of what is not there, too */
  struct sr_core_stats before = stats_of(s, p), after;
  assert_int_equal(sr_stat(p, id_of(1), &size), 0);
  assert_int_equal(size, 5000);
  assert_int_equal(sr_exists(p, id_of(1)), 1);
  assert_int_equal(sr_get(other, id_of(1), buf, 4000, BLOCK), 1000);
  assert_true(is_bytes(buf, 1000, 1, 4000));
  assert_int_equal(sr_port_close(other), 0);
  assert_int_equal(sr_get(other, id_of(1), buf, 0, BLOCK), -ESHUTDOWN);
  assert_int_equal(sr_stat(other, id_of(1), &size), -ESHUTDOWN);
  after = stats_of(s, p); /* a closed port's work is not forgotten */
  assert_int_equal(after.gets, before.gets + 1);
  assert_int_equal(after.direct_gets, before.direct_gets + 1);
  assert_int_equal(after.read_bytes, before.read_bytes + 1000);
  assert_true(after.other_ops >= before.other_ops + 2);
  put(p, 1, 9000, 2, 0); /* what has completed is seen */
  expect_get(p, 1, 9000, 2, 4096, BLOCK, 0);
  put(p, 1, 0, 0, 0);
  assert_int_equal(sr_get(p, id_of(1), buf, 0, BLOCK), 0);
  assert_int_equal(sr_delete(p, id_of(1), 0), 0);
  assert_int_equal(sr_get(p, id_of(1), buf, 0, BLOCK), -ENOENT);
  assert_int_equal(sr_exists(p, id_of(1)), 0);
  close_both(s, p);
}

/* Requests that are in flight on the port, or finished there, stay as they are. */
static void leaves_the_port_alone(void **state) {
  struct fixture *f = *state;
  char buf[BLOCK], *more = aligned_alloc(BLOCK, 16 * BLOCK);
  format_store(f, 2, SHARD_BYTES);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  struct sr_request r[16], *list[16];
  put(p, 1, 16 * BLOCK, 1, 0);
  uint64_t before = direct_gets(s, p);
  for (uint64_t i = 0; i < 16; i++) {
    r[i] = request_of_op(SR_OP_GET, 0, more + i * BLOCK, BLOCK);
    r[i].id = id_of(1);
    r[i].offset = i * BLOCK;
    list[i] = &r[i];
  }
  assert_int_equal(sr_port_submit(p, list, 16), 16);
  for (uint64_t i = 0; i < 16; i++) {
    assert_int_equal(sr_get(p, id_of(1), buf, i * BLOCK, BLOCK), BLOCK);
    assert_true(is_bytes(buf, BLOCK, 1, i * BLOCK));
  }
  assert_int_equal(sr_port_in_flight(p), 16);
  for (uint32_t n = 0; n < 16; n += (uint32_t)sr_port_reap(p, list, 16))
    assert_int_equal(sr_port_wait(p, -1), 1);
  assert_true(is_bytes(more, 16 * BLOCK, 1, 0));
  assert_int_equal(direct_gets(s, p), before + 16);
  free(more);
  close_both(s, p);
}

/* ---- What goes through the core ----------------------------------------------------------------
 */

static void in_memory(void **state) {
  struct fixture *f = *state;
  strcpy(f->where, "mem:64M:2");
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  put(p, 1, 5000, 1, 0);
  expect_get(p, 1, 5000, 1, 0, 5000, 0);
  assert_int_equal(direct_gets(s, p), 0);
  close_both(s, p);
}

static void null_engine(void **state) {
  struct fixture *f = *state;
  struct sr_open_options o = open_options(f);
  char buf[BLOCK];
  format_store(f, 2, SHARD_BYTES);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  put(p, 1, 5000, 1, SR_NO_CHECKSUM);
  close_both(s, p);
  o.engine = "null";
  assert_int_equal(sr_store_open(f->where, &o, &s), 0);
  p = open_port(s);
  assert_int_equal(sr_get(p, id_of(1), buf, 0, BLOCK), BLOCK);
  assert_int_equal(direct_gets(s, p), 0);
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
}

/* Blobs in many pieces: what lies in one of them is read here, the rest by the core. */
static void many_extents(void **state) {
  struct fixture *f = *state;
  format_store(f, 1, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  char *buf = malloc(MIB);
  uint64_t n = 0;
  fill_bytes(buf, MIB, 9);
  while (sr_put(p, id_of(100 + n), buf, 3 * BLOCK, 0) == 0) n++;
  for (uint64_t i = 0; i < n; i += 2) assert_int_equal(sr_delete(p, id_of(100 + i), 0), 0);
  for (int i = 0; i < 3; i++) assert_int_equal(sr_flush(p), 0);
  put(p, 1, 40 * BLOCK, 1, 0);
  put(p, 2, 40 * BLOCK, 2, SR_NO_CHECKSUM);
  uint64_t before = direct_gets(s, p);
  for (uint64_t i = 1; i <= 2; i++)
    for (uint64_t at = 0; at < 40; at++) expect_get(p, i, 40 * BLOCK, i, at * BLOCK, BLOCK, 0);
  assert_int_equal(direct_gets(s, p), before + 80);
  for (uint64_t i = 1; i <= 2; i++)
    for (uint64_t at = 0; at < 39; at++) expect_get(p, i, 40 * BLOCK, i, at * BLOCK, 2 * BLOCK, 0);
  assert_in_range(direct_gets(s, p), before + 100, before + 157);
  free(buf);
  close_both(s, p);
}

/* ---- Damage ------------------------------------------------------------------------------------
 */

/* Flips a bit of block `block` of the blob in the packed file. */
static void damage(struct fixture *f, uint64_t seed, uint64_t bytes, uint64_t block) {
  char path[800], *want = malloc(bytes), *has = aligned_alloc(BLOCK, BLOCK);
  snprintf(path, sizeof path, "%s/shard-0000", f->where);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  off_t at = 0;
  fill_bytes(want, bytes, seed);
  while (__real_pread64(fd, has, BLOCK, at) == BLOCK && memcmp(has, want + block * BLOCK, BLOCK))
    at += BLOCK;
  has[100] ^= 4;
  assert_int_equal(pwrite(fd, has, BLOCK, at), BLOCK);
  close(fd);
  free(want), free(has);
}

static void reports_damage_as_the_core_does(void **state) {
  struct fixture *f = *state;
  char buf[2 * BLOCK];
  format_store(f, 1, SHARD_BYTES);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  put(p, 1, 8 * BLOCK, 1, 0);
  put(p, 2, 8 * BLOCK, 2, SR_NO_CHECKSUM);
  close_both(s, p);
  damage(f, 1, 8 * BLOCK, 5);
  damage(f, 2, 8 * BLOCK, 5);
  s = open_store(f);
  p = open_port(s);
  uint64_t before = direct_gets(s, p);
  assert_int_equal(sr_get(p, id_of(1), buf, 4 * BLOCK, BLOCK), BLOCK);
  assert_true(is_bytes(buf, BLOCK, 1, 4 * BLOCK));
  assert_int_equal(direct_gets(s, p), before + 1);
  assert_null(strstr(f->log, "checksum"));
  assert_int_equal(sr_get(p, id_of(1), buf, 5 * BLOCK + 7, 9), -EBADMSG);
  assert_non_null(strstr(f->log, "checksum mismatch in granule 5"));
  assert_int_equal(stats_of(s, p).checksum_errors, 1);
  assert_int_equal(sr_get(p, id_of(1), buf, 4 * BLOCK, 2 * BLOCK), -EBADMSG);
  assert_int_equal(stats_of(s, p).checksum_errors, 2);
  assert_int_equal(direct_gets(s, p), before + 1);
  /* Without checksums nobody knows. */
  assert_int_equal(sr_get(p, id_of(2), buf, 5 * BLOCK, BLOCK), BLOCK);
  assert_false(is_bytes(buf, BLOCK, 2, 5 * BLOCK));
  assert_int_equal(direct_gets(s, p), before + 2);
  close_both(s, p);
}

static void flips_a_bit(void *arg) {
  (void)arg;
  pread_buf[100] ^= 1;
}
static void fails(void *arg) {
  (void)arg;
  pread_errno = EIO;
}

/* What only this thread's reads suffer from does not count: the core finds nothing wrong. */
static void asks_the_core_after_errors(void **state) {
  struct fixture *f = *state;
  char buf[BLOCK];
  format_store(f, 1, SHARD_BYTES);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  put(p, 1, 8 * BLOCK, 1, 0);
  uint64_t before = direct_gets(s, p);
  before_pread = fails;
  assert_int_equal(sr_get(p, id_of(1), buf, BLOCK, BLOCK), BLOCK);
  pread_errno = 0;
  assert_true(is_bytes(buf, BLOCK, 1, BLOCK));
  after_pread = flips_a_bit;
  assert_int_equal(sr_get(p, id_of(1), buf, BLOCK, BLOCK), BLOCK);
  assert_null(after_pread);
  assert_true(is_bytes(buf, BLOCK, 1, BLOCK));
  assert_int_equal(stats_of(s, p).checksum_errors, 0);
  assert_int_equal(direct_gets(s, p), before);
  close_both(s, p);
}

/* ---- While it reads ----------------------------------------------------------------------------
 */

struct scene {
  struct sr_store *s;
  struct sr_port *p, *own; /* of what happens; of the read */
};

/* Every place that is free gets bytes of somebody else. */
static void fill_store(struct scene *s) {
  char *buf = malloc(16 * BLOCK);
  for (int i = 0; i < 3; i++) assert_int_equal(sr_flush(s->p), 0);
  fill_bytes(buf, 16 * BLOCK, 77);
  for (uint64_t blocks = 16, n = 0; blocks; blocks /= 2)
    while (sr_put(s->p, id_of(10000 + n), buf, blocks * BLOCK, 0) == 0) n++;
  free(buf);
}

static void deletes(void *arg) {
  struct scene *s = arg;
  assert_int_equal(sr_delete(s->p, id_of(1), 0), 0);
}
static void deletes_and_fills(void *arg) {
  deletes(arg);
  fill_store(arg);
}
static void replaces(void *arg) {
  struct scene *s = arg;
  put(s->p, 1, 8 * BLOCK, 2, SR_NO_CHECKSUM);
}
static void replaces_and_fills(void *arg) {
  replaces(arg);
  fill_store(arg);
}
static void puts_an_empty_one(void *arg) {
  struct scene *s = arg;
  put(s->p, 1, 0, 2, 0);
  fill_store(arg);
}
static void moves_and_fills(void *arg) {
  struct scene *s = arg;
  struct sr_vacuum_result r;
  assert_int_equal(sr_delete(s->p, id_of(0), 0), 0); /* makes room below */
  for (int i = 0; i < 3; i++) assert_int_equal(sr_flush(s->p), 0);
  assert_int_equal(sr_vacuum(s->p, &r), 0);
  assert_true(r.moved_bytes > 0);
  fill_store(s);
}
static void grows_the_index(void *arg) {
  struct scene *s = arg;
  for (uint64_t i = 0; i < 4000; i++)
    assert_int_equal(sr_put(s->p, id_of(1000000 + i), NULL, 0, 0), 0);
}

static struct scene set_scene(struct fixture *f, uint32_t flags) {
  struct scene s = {.s = NULL};
  struct sr_open_options o = open_options(f);
  o.no_background = true; /* nobody else takes space, or flushes */
  format_store(f, 1, 16 * MIB);
  assert_int_equal(sr_store_open(f->where, &o, &s.s), 0);
  s.p = open_port(s.s);
  s.own = open_port(s.s);
  put(s.p, 0, 64 * BLOCK, 3, 0);
  put(s.p, 1, 8 * BLOCK, 1, flags);
  return s;
}

static int64_t read_while(struct scene *s, step_in *before, step_in *after, char *buf) {
  pread_arg = s;
  before_pread = before;
  after_pread = after;
  int64_t n = sr_get(s->own, id_of(1), buf, 3 * BLOCK, BLOCK);
  assert_null(before_pread);
  assert_null(after_pread);
  return n;
}

static void end_scene(struct scene *s) {
  assert_int_equal(sr_port_close(s->own), 0);
  assert_int_equal(sr_port_close(s->p), 0);
  assert_int_equal(sr_store_close(s->s), 0);
}

static const struct {
  step_in *happens;
  int64_t result;
  uint64_t seed;                       /* of the bytes */
} happenings[] = {{deletes, BLOCK, 1}, /* as it was when it was looked up */
                  {deletes_and_fills, -ENOENT, 0},
                  {replaces, BLOCK, 1},
                  {replaces_and_fills, BLOCK, 2},
                  {puts_an_empty_one, 0, 0},
                  {moves_and_fills, BLOCK, 1},
                  {grows_the_index, BLOCK, 1}};
#define HAPPENINGS (sizeof happenings / sizeof happenings[0])

static void happens_meanwhile(void **state) {
  struct fixture *f = *state;
  char *buf = aligned_alloc(BLOCK, BLOCK);
  for (size_t i = 0; i < 4 * HAPPENINGS; i++) {
    step_in *happens = happenings[i / 4].happens;
    fixture_teardown(state);
    assert_int_equal(fixture_setup(state), 0);
    f = *state;
    struct scene s = set_scene(f, i & 1 ? SR_NO_CHECKSUM : 0);
    int64_t n = read_while(&s, i & 2 ? happens : NULL, i & 2 ? NULL : happens, buf);
    assert_int_equal(n, happenings[i / 4].result);
    if (n > 0) assert_true(is_bytes(buf, BLOCK, happenings[i / 4].seed, 3 * BLOCK));
    assert_int_equal(stats_of(s.s, s.p).checksum_errors, 0);
    end_scene(&s);
  }
  free(buf);
}

#ifdef SHARDRING_PLANTS
static void fault_is_found(void **state) {
  char *buf = aligned_alloc(BLOCK, BLOCK);
  struct scene s = set_scene(*state, SR_NO_CHECKSUM);
  plant_chosen = PLANT_look_only_once;
  assert_int_equal(read_while(&s, deletes_and_fills, NULL, buf), BLOCK);
  plant_chosen = PLANT_NONE;
  assert_false(is_bytes(buf, BLOCK, 1, 3 * BLOCK)); /* somebody else's */
  free(buf);
  end_scene(&s);
}
#endif

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)

int main(void) {
  const struct CMUnitTest tests[] = {
#ifdef SHARDRING_PLANTS
      TEST(fault_is_found),
#endif
      TEST(reads_the_same),
      TEST(reads_by_the_pool_engine),
      TEST(reads_read_only),
      TEST(reads_slices),
      TEST(edges),
      TEST(leaves_the_port_alone),
      TEST(in_memory),
      TEST(null_engine),
      TEST(many_extents),
      TEST(reports_damage_as_the_core_does),
      TEST(asks_the_core_after_errors),
      TEST(happens_meanwhile)};
  return cmocka_run_group_tests_name("get_direct", tests, NULL, NULL);
}
