/* test_salvage.c - what can be had of damaged stores through the public interface: never a wrong
 * byte, never a wrong "not there"; and what is intact, all of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>

#include "tests/api/fixture.h"
#include "tests/random.h"

#define SHARDS    4u
#define IDS       200u
#define BYTES_MAX 40000u

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ROUNDS 6
#else
#define ROUNDS 30
#endif

struct told {
  uint64_t of_kind[SR_DAMAGE_NOTE + 1];
  bool old[IDS];
};
static void tell(void *arg, const struct sr_damage *d) {
  struct told *t = arg;
  t->of_kind[d->kind]++;
  assert_non_null(d->what);
  assert_non_null(d->remedy);
  if (d->kind == SR_DAMAGE_OLD && d->id.lo < IDS) t->old[d->id.lo] = true;
}

static struct sr_store *open_damaged(struct fixture *f, uint32_t mode, struct told *t) {
  struct sr_open_options o = open_options(f);
  struct sr_store *s = NULL;
  memset(t, 0, sizeof *t);
  o.read_only = true;
  o.damaged = mode;
  o.damage = tell;
  o.damage_arg = t;
  int r = sr_store_open(f->where, &o, &s);
  if (r) print_error("open: %s\n%s", strerror(-r), f->log);
  assert_int_equal(r, 0);
  return s;
}

/* ---- A store whose content is known -----------------------------------------------------------
 */

struct model {
  uint32_t version[IDS], bytes[IDS]; /* version 0: not there */
};

static uint64_t seed_of(uint64_t id, uint32_t version) { return id * 1000 + version; }

static void put(struct sr_port *p, struct model *m, struct random *r, uint32_t id) {
  static char buf[BYTES_MAX];
  m->version[id]++;
  m->bytes[id] = (uint32_t)(1 + random_below(r, random_below(r, 3) ? 6000 : BYTES_MAX));
  fill_bytes(buf, m->bytes[id], seed_of(id, m->version[id]));
  assert_int_equal(sr_put(p, id_of(id), buf, m->bytes[id], 0), 0);
}

/* Several lives, with checkpoints, overwrites and deletes; deleted blobs do not come back. */
static void make_store(struct fixture *f, struct model *m, uint64_t seed) {
  struct random r = {seed};
  memset(m, 0, sizeof *m);
  format_store(f, SHARDS, 16 * MIB);
  for (int life = 0; life < 3; life++) {
    struct sr_store *s = open_store(f);
    struct sr_port *p = open_port(s);
    for (int i = 0; i < 150; i++) {
      uint32_t id = (uint32_t)random_below(&r, IDS - 20); /* the last ones never exist */
      if (m->version[id] && random_below(&r, 6) == 0) {
        if (m->bytes[id]) assert_int_equal(sr_delete(p, id_of(id), 0), 0);
        m->bytes[id] = 0;
      } else {
        put(p, m, &r, id);
      }
      if (i % 40 == 39) assert_int_equal(sr_flush(p), 0);
      if (i == 100 && life < 2) assert_int_equal(sr_checkpoint(p), 0);
    }
    close_both(s, p);
  }
}

struct tally {
  uint64_t right, old, lost, absent;
};

/* Everything that the store answers, against the model. */
static void compare(struct sr_store *s, const struct model *m, const struct told *t,
                    struct tally *n) {
  static char buf[BYTES_MAX], want[BYTES_MAX];
  struct sr_port *p = open_port(s);
  for (uint32_t id = 0; id < IDS; id++) {
    int64_t got = sr_get(p, id_of(id), buf, 0, sizeof buf);
    if (got == -EBADMSG || got == -EIO) {
      n->lost++;
    } else if (got == -ENOENT) {
      if (m->bytes[id] != 0) fail_msg("blob %u is there, but not for the store", id);
      n->absent++;
    } else if (t->old[id]) { /* some version of it, whole */
      bool is_one = false;
      for (uint32_t v = m->version[id]; v > 0 && !is_one; v--) {
        fill_bytes(want, (uint64_t)got, seed_of(id, v));
        is_one = memcmp(want, buf, (size_t)got) == 0;
      }
      assert_true(is_one);
      n->old++;
    } else {
      fill_bytes(want, (uint64_t)got, seed_of(id, m->version[id]));
      if (got != m->bytes[id] || memcmp(want, buf, (size_t)got) != 0)
        fail_msg("blob %u is wrong, and not called old", id);
      n->right++;
    }
  }
  assert_int_equal(sr_port_close(p), 0);
}

/* ---- Harm to files ------------------------------------------------------------------------------
 */

static void part_path(const struct fixture *f, uint32_t part, char path[800]) {
  if (part == 0)
    snprintf(path, 800, "%s/root", f->where);
  else
    snprintf(path, 800, "%s/shard-%04u", f->where, part - 1);
}

/* Overwrites bytes with a value; returns what was there (to be freed). */
static char *overwrite(const struct fixture *f, uint32_t part, uint64_t at, size_t bytes,
                       const char *with) {
  char path[800], *before = malloc(bytes);
  part_path(f, part, path);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  assert_true(fd >= 0);
  assert_int_equal(pread(fd, before, bytes, (off_t)at), bytes);
  char *zeros = calloc(1, bytes);
  assert_int_equal(pwrite(fd, with ? with : zeros, bytes, (off_t)at), bytes);
  close(fd);
  free(zeros);
  return before;
}

/* Blocks of a shard that are used: its log's beginning, and where data lie. */
static void by_chance(void **state) {
  struct fixture *f = *state;
  struct model m;
  struct told t;
  struct tally n = {0};
  struct random r = {99};
  make_store(f, &m, 4);
  for (int round = 0; round < ROUNDS; round++) {
    uint32_t count = 1 + (uint32_t)random_below(&r, 3), part[3];
    uint64_t at[3];
    size_t bytes[3];
    char *before[3];
    for (uint32_t i = 0; i < count; i++) {
      static const size_t sizes[] = {1, 512, 4096, 65536};
      part[i] = 1 + (uint32_t)random_below(&r, SHARDS);
      bytes[i] = sizes[random_below(&r, 4)];
      at[i] = 65536 + random_below(&r, random_below(&r, 2) ? 200000 : 4000000);
      before[i] = overwrite(f, part[i], at[i], bytes[i], NULL);
    }
    for (uint32_t mode = SR_DAMAGED_SKIP; mode <= SR_DAMAGED_SEARCH; mode++) {
      struct sr_store *s = open_damaged(f, mode, &t);
      compare(s, &m, &t, &n);
      assert_int_equal(sr_store_close(s), 0);
    }
    for (uint32_t i = count; i-- > 0;) { /* they may overlap */
      free(overwrite(f, part[i], at[i], bytes[i], before[i]));
      free(before[i]);
    }
  }
  print_message("right %llu, old %llu, lost %llu, absent %llu\n", (unsigned long long)n.right,
                (unsigned long long)n.old, (unsigned long long)n.lost,
                (unsigned long long)n.absent);
  assert_true(n.right > 10 * ROUNDS && n.absent > ROUNDS);
  assert_true(n.lost > 0 || ROUNDS < 30); /* a few rounds may all miss what counts */
  struct sr_store *s = open_damaged(f, SR_DAMAGED_SKIP, &t); /* all is as it was */
  for (uint32_t k = 0; k <= SR_DAMAGE_NOTE; k++) assert_int_equal(t.of_kind[k], 0);
  n = (struct tally){0};
  compare(s, &m, &t, &n);
  assert_int_equal(n.lost + n.old, 0);
  assert_int_equal(sr_store_close(s), 0);
}

/* ---- By hand ------------------------------------------------------------------------------------
 */

/* A packed file is gone: the other shards open; of its blobs nobody says that they are not there.
 */
static void a_missing_part(void **state) {
  struct fixture *f = *state;
  struct model m;
  struct told t;
  struct tally n = {0};
  char path[800], away[820];
  make_store(f, &m, 5);
  part_path(f, 2, path);
  snprintf(away, sizeof away, "%s.away", path);
  assert_int_equal(rename(path, away), 0);
  struct sr_open_options o = open_options(f);
  struct sr_store *s = NULL;
  assert_int_not_equal(sr_store_open(f->where, &o, &s), 0);
  s = open_damaged(f, SR_DAMAGED_SKIP, &t);
  assert_int_equal(t.of_kind[SR_DAMAGE_PART], 1);
  compare(s, &m, &t, &n);
  struct sr_port *p = open_port(s);
  struct sr_store_stats st;
  uint64_t size;
  for (uint32_t id = 0; id < IDS; id++) {
    bool gone = sr_shard_of(s, id_of(id)) == 1;
    int want = gone ? -EBADMSG : m.bytes[id] ? 0 : -ENOENT;
    assert_int_equal(sr_stat(p, id_of(id), &size), want);
    assert_int_equal(sr_exists(p, id_of(id)), gone ? -EBADMSG : m.bytes[id] ? 1 : 0);
  }
  assert_int_equal(sr_put(p, id_of(1), path, 10, 0), -EROFS);
  assert_int_equal(sr_store_stats(p, &st), 0);
  assert_true(st.damaged_metadata > 0);
  assert_int_equal(st.shards, SHARDS);
  assert_int_equal(sr_port_close(p), 0);
  assert_int_equal(sr_store_close(s), 0);
  assert_int_equal(rename(away, path), 0);
  s = open_store(f);
  assert_int_equal(sr_store_close(s), 0);
}

/* Both identities of a part are destroyed: its blocks speak for themselves. */
static void lost_identities(void **state) {
  struct fixture *f = *state;
  struct model m;
  struct told t;
  make_store(f, &m, 6);
  for (uint32_t part = 0; part <= SHARDS; part++) {
    char path[800];
    struct stat st;
    struct tally n = {0};
    part_path(f, part, path);
    assert_int_equal(stat(path, &st), 0);
    uint64_t last = (uint64_t)st.st_size - 65536;
    char *first_copy = overwrite(f, part, 0, 65536, NULL);
    char *second_copy = overwrite(f, part, last, 65536, NULL);
    struct sr_store *s = open_damaged(f, SR_DAMAGED_SKIP, &t);
    assert_int_equal(t.of_kind[SR_DAMAGE_PART], 1);
    compare(s, &m, &t, &n);
    assert_int_equal(n.lost + n.old, 0);
    assert_int_equal(sr_store_close(s), 0);
    free(overwrite(f, part, 0, 65536, first_copy));
    free(overwrite(f, part, last, 65536, second_copy));
    free(first_copy);
    free(second_copy);
  }
}

/* No root is left: the logs say where they end, and a search finds the checkpoints. */
static void no_root(void **state) {
  struct fixture *f = *state;
  struct model m;
  struct told t;
  struct tally skip = {0}, search = {0};
  make_store(f, &m, 7);
  free(overwrite(f, 0, 65536, 8 * 4096, NULL));
  struct sr_store *s = open_damaged(f, SR_DAMAGED_SKIP, &t);
  assert_true(t.of_kind[SR_DAMAGE_ROOT] >= 1);
  compare(s, &m, &t, &skip);
  assert_int_equal(sr_store_close(s), 0);
  s = open_damaged(f, SR_DAMAGED_SEARCH, &t);
  compare(s, &m, &t, &search);
  assert_int_equal(sr_store_close(s), 0);
  assert_int_equal(search.lost + search.old, 0);
  assert_true(search.right >= skip.right && search.right > 50);
}

/* The newest root is lost, in both its slots: frames that were written after it show it. Nothing is
 * certain then. */
static void the_newest_root(void **state) {
  struct fixture *f = *state;
  struct model m;
  struct told t;
  struct tally n = {0};
  struct random r = {3};
  make_store(f, &m, 9);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  struct sr_store_stats st;
  for (uint32_t id = 0; id < 40; id++) put(p, &m, &r, id);
  close_both(s, p); /* waits for the root */
  s = open_store(f);
  p = open_port(s);
  assert_int_equal(sr_store_stats(p, &st), 0);
  for (uint32_t id = 20; id < 60; id++) {
    char buf[100];
    m.version[id]++;
    m.bytes[id] = sizeof buf;
    fill_bytes(buf, sizeof buf, seed_of(id, m.version[id]));
    assert_int_equal(sr_put(p, id_of(id), buf, sizeof buf, SR_DURABLE), 0);
  }
  assert_int_equal(sr_port_close(p), 0);
  sr_store_abandon(s);
  for (uint64_t slot = st.epoch % 2; slot < 4; slot += 2)
    free(overwrite(f, 0, 65536 + slot * 8192, 8192, NULL));
  struct sr_open_options o = open_options(f);
  assert_int_equal(sr_store_open(f->where, &o, &s), -EBADMSG);
  s = open_damaged(f, SR_DAMAGED_SKIP, &t);
  assert_true(t.of_kind[SR_DAMAGE_ROOT] >= 1);
  compare(s, &m, &t, &n);
  assert_int_equal(n.right + n.absent, 0);
  assert_true(n.old > 60);
  assert_int_equal(sr_store_close(s), 0);
}

/* One byte of each checkpoint: without a search its blobs are lost, with it their own checksums
 * prove them. */
static void damaged_checkpoints(void **state) {
  struct fixture *f = *state;
  struct model m;
  struct told t;
  struct tally skip = {0}, search = {0};
  make_store(f, &m, 8);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  assert_int_equal(sr_checkpoint(p), 0);
  close_both(s, p);
  for (uint32_t part = 1; part <= SHARDS; part++) {
    char path[800], block[4096];
    part_path(f, part, path);
    int fd = open(path, O_RDWR | O_CLOEXEC);
    for (off_t at = 0; pread(fd, block, sizeof block, at) == sizeof block; at += 4096) {
      if (memcmp(block, "SHCP", 4) != 0) continue;
      block[4000 % 200 + 100] ^= 0x20;
      assert_int_equal(pwrite(fd, block, sizeof block, at), sizeof block);
    }
    close(fd);
  }
  s = open_damaged(f, SR_DAMAGED_SKIP, &t);
  assert_true(t.of_kind[SR_DAMAGE_CHECKPOINT] >= SHARDS);
  compare(s, &m, &t, &skip);
  assert_int_equal(sr_store_close(s), 0);
  assert_int_equal(skip.right, 0);
  s = open_damaged(f, SR_DAMAGED_SEARCH, &t);
  compare(s, &m, &t, &search);
  assert_int_equal(sr_store_close(s), 0);
  assert_true(search.old > 50); /* found and verified, but nothing proves that they are the last */
  assert_true(search.lost < skip.lost);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_missing_part, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(lost_identities, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(the_newest_root, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(no_root, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(damaged_checkpoints, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(by_chance, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
