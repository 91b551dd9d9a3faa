/* test_get_direct_threads.c - sr_get() of several threads on their own, beside a writer that puts
 * and deletes the same ids, others that take the space and the index's tables for themselves,
 * flushes and vacuums: never a wrong byte.
 *
 * A blob has a version, one more with each change; size, bytes, flags, and whether it is there at
 * all are functions of id and version. A reader notes the version before, and the one that had been
 * begun by the end: what it gets must be one of those. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/api/fixture.h"
#include "tests/random.h"

#define BLOCK      4096u
#define IDS        48u
#define READERS    3u
#define CHANGES    1500u
#define BYTES_MAX  (200u << 10)
#define NOISE_IDS  24u
#define READ_BYTES (128u << 10)

struct play {
  struct sr_store *s;
  _Atomic uint32_t done[IDS], begun[IDS]; /* versions */
  atomic_bool stop;
  atomic_uint bad, gets, absent;
};

/* Some reads of the device come late, so that what was looked up before them has time to change. */
ssize_t __real_pread64(int fd, void *buf, size_t bytes, off_t offset);
ssize_t __wrap_pread64(int fd, void *buf, size_t bytes, off_t offset);
ssize_t __wrap_pread64(int fd, void *buf, size_t bytes, off_t offset) {
  static _Thread_local uint32_t turn;
  if (++turn % 8 == 0) usleep(20000);
  return __real_pread64(fd, buf, bytes, offset);
}

static uint64_t mix(uint64_t x) {
  x = (x ^ x >> 31) * UINT64_C(0x9e3779b97f4a7c15);
  return (x ^ x >> 29) * UINT64_C(0xbf58476d1ce4e5b9);
}
static bool is_there(uint32_t version) { return version % 5 != 0; }
static bool is_plain(uint32_t id, uint32_t version) { return (id + version) % 2; }
static uint64_t size_of(uint32_t id, uint32_t version) {
  static const uint32_t most[] = {1000, 4096, 40000, BYTES_MAX};
  uint64_t x = mix((uint64_t)id << 32 | version) >> 8;
  return x / 4 % (most[x % 4] + 1);
}
static uint64_t word_of(uint32_t id, uint32_t version, uint64_t at) {
  return (mix((uint64_t)id << 32 | version) ^ at * 77) + version;
}

static void fill(char *buf, uint32_t id, uint32_t version, uint64_t bytes) {
  for (uint64_t at = 0; at < bytes; at += 8) {
    uint64_t word = word_of(id, version, at);
    memcpy(buf + at, &word, bytes - at < 8 ? bytes - at : 8);
  }
}

/* Are these the bytes [offset, offset + asked) of that version? */
static bool fits(uint32_t id, uint32_t version, uint64_t offset, uint64_t asked, const char *buf,
                 int64_t result) {
  uint64_t size = size_of(id, version), n = 0;
  if (!is_there(version)) return result == -ENOENT;
  if (offset < size) n = asked < size - offset ? asked : size - offset;
  if (result != (int64_t)n) return false;
  for (uint64_t i = 0; i < n; i++) {
    uint64_t at = offset + i, word = word_of(id, version, at / 8 * 8);
    char want;
    memcpy(&want, (char *)&word + at % 8, 1);
    if (buf[i] != want) return false;
  }
  return true;
}

/* ---- Readers ----------------------------------------------------------------------------------
 */

struct reader {
  struct play *play;
  struct random random;
};

static void draw_range(struct random *r, uint64_t *offset, uint64_t *bytes) {
  static const uint32_t most[] = {100, BLOCK, 2 * BLOCK, READ_BYTES};
  *bytes = 1 + random_below(r, most[random_below(r, 4)]);
  *offset = random_below(r, 3) ? random_below(r, BYTES_MAX / 4) : 0;
  if (random_below(r, 2)) {
    *offset = *offset / BLOCK * BLOCK;
    *bytes = (*bytes + BLOCK - 1) / BLOCK * BLOCK;
  }
}

static void *read_on(void *arg) {
  struct reader *r = arg;
  struct play *p = r->play;
  struct sr_port *port = NULL;
  char *memory = aligned_alloc(BLOCK, READ_BYTES + BLOCK);
  if (sr_port_open(p->s, NULL, &port)) atomic_fetch_add(&p->bad, 1);
  while (port && !atomic_load(&p->stop)) {
    uint32_t id = (uint32_t)random_below(&r->random, IDS), from = atomic_load(&p->done[id]);
    char *buf = memory + (random_below(&r->random, 2) ? 0 : 8);
    uint64_t offset, bytes;
    draw_range(&r->random, &offset, &bytes);
    int64_t n = sr_get(port, id_of(id), buf, offset, bytes);
    uint32_t to = atomic_load(&p->begun[id]), v = from;
    while (v <= to && !fits(id, v, offset, bytes, buf, n)) v++;
    atomic_fetch_add(n == -ENOENT ? &p->absent : &p->gets, 1);
    if (v <= to) continue;
    if (!atomic_fetch_add(&p->bad, 1))
      print_error("blob %u at %llu: %lld between versions %u and %u\n", id,
                  (unsigned long long)offset, (long long)n, from, to);
  }
  if (port) sr_port_close(port);
  free(memory);
  return NULL;
}

/* ---- Writers ----------------------------------------------------------------------------------
 */

static void change(struct play *p, struct random *r, struct sr_port *port, char *buf) {
  uint32_t id = (uint32_t)random_below(r, IDS), version = atomic_load(&p->begun[id]) + 1;
  uint64_t bytes = size_of(id, version);
  atomic_store(&p->begun[id], version);
  if (is_there(version)) {
    fill(buf, id, version, bytes);
    uint32_t flags = is_plain(id, version) ? SR_NO_CHECKSUM : 0;
    assert_int_equal(sr_put(port, id_of(id), buf, bytes, flags), 0);
  } else {
    assert_int_equal(sr_delete(port, id_of(id), 0), 0);
  }
  atomic_store(&p->done[id], version);
}

/* Who gets the space that becomes free, and fills the tables. */
static void *make_noise(void *arg) {
  struct reader *me = arg;
  struct play *p = me->play;
  struct random *r = &me->random;
  struct sr_port *port = NULL;
  char *buf = malloc(BYTES_MAX);
  if (sr_port_open(p->s, NULL, &port)) atomic_fetch_add(&p->bad, 1);
  memset(buf, 0xee, BYTES_MAX);
  for (uint64_t i = 0; port && !atomic_load(&p->stop); i++) {
    struct sr_id id = {0x6e6f, random_below(r, NOISE_IDS)}, small = {0x736d, i};
    struct sr_vacuum_result moved;
    int e = random_below(r, 3) ? sr_put(port, id, buf, 1 + random_below(r, BYTES_MAX), 0)
                               : sr_delete(port, id, 0);
    if (e && e != -ENOENT) atomic_fetch_add(&p->bad, 1);
    if (sr_put(port, small, NULL, 0, 0)) atomic_fetch_add(&p->bad, 1);
    if (random_below(r, 4) == 0 && sr_flush(port)) atomic_fetch_add(&p->bad, 1);
    if (random_below(r, 100) == 0 && sr_vacuum(port, &moved)) atomic_fetch_add(&p->bad, 1);
  }
  if (port) sr_port_close(port);
  free(buf);
  return NULL;
}

static uint64_t direct_gets(struct sr_store *s, struct sr_port *p, uint64_t *gets) {
  uint64_t direct = 0;
  *gets = 0;
  for (uint32_t c = 0; c < sr_core_count(s); c++) {
    struct sr_core_stats st;
    assert_int_equal(sr_core_stats(p, c, &st), 0);
    direct += st.direct_gets;
    *gets += st.gets;
  }
  return direct;
}

static void play(struct fixture *f, uint32_t shards, const char *engine, uint64_t seed) {
  struct play *p = calloc(1, sizeof *p);
  struct sr_open_options o = open_options(f);
  struct random r = {seed};
  pthread_t threads[READERS + 1];
  struct reader readers[READERS + 1];
  char *buf = malloc(BYTES_MAX);
  uint64_t gets;
  format_store(f, shards, 16 * MIB);
  o.engine = engine;
  assert_int_equal(sr_store_open(f->where, &o, &p->s), 0);
  struct sr_port *port = open_port(p->s);
  for (uint32_t i = 0; i <= READERS; i++) {
    readers[i] = (struct reader){p, {random_next(&r)}};
    assert_int_equal(
        pthread_create(&threads[i], NULL, i < READERS ? read_on : make_noise, &readers[i]), 0);
  }
  for (uint32_t i = 0; (i < CHANGES || atomic_load(&p->gets) < 1000) && !atomic_load(&p->bad); i++)
    change(p, &r, port, buf);
  atomic_store(&p->stop, true);
  for (uint32_t i = 0; i <= READERS; i++) pthread_join(threads[i], NULL);
  assert_int_equal(atomic_load(&p->bad), 0);
  uint64_t direct = direct_gets(p->s, port, &gets);
  print_message("%u reads, %u of nothing; %llu of %llu on their own thread\n", p->gets, p->absent,
                (unsigned long long)direct, (unsigned long long)gets);
  assert_true(direct > gets / 2);
  free(buf);
  close_both(p->s, port);
  free(p);
}

static void on_one_shard(void **state) { play(*state, 1, NULL, 1); }
static void on_two_shards(void **state) { play(*state, 2, NULL, 2); }
static void on_the_pool_engine(void **state) { play(*state, 1, "pool", 3); }

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(on_one_shard, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(on_two_shards, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(on_the_pool_engine, fixture_setup, fixture_teardown)};
  return cmocka_run_group_tests_name("get_direct_threads", tests, NULL, NULL);
}
