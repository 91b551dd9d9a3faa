/* test_salvage_volumes.c - what can be had of the volumes of damaged stores: never other bytes, but
 * in those that are said to be old; never a wrong "not there". Data that is written in place has no
 * checksum, so harm is done to metadata alone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>

#include "tests/api/fixture.h"
#include "tests/random.h"

#define SHARDS      2u
#define NAMES       12u
#define BLOCK       4096u
#define BLOCKS      1280u /* more than one leaf of a volume that is not striped */
#define RUN         64u
#define STAMP_MAGIC UINT64_C(0x73616c7661676556)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define ROUNDS 4
#else
#define ROUNDS 18
#endif

/* A store whose content is known: of each name what its blocks hold, 0: zeros. */
struct model {
  bool there[NAMES], snapshot[NAMES];
  uint32_t stamps[NAMES][BLOCKS];
  uint32_t next;
};

struct told {
  uint32_t damages, notes, others;
  bool old[NAMES], bad[NAMES];
};

static void name_of(uint32_t n, char name[16]) { snprintf(name, 16, "disk-%02u", n); }

static void tell(void *arg, const struct sr_damage *d) {
  struct told *t = arg;
  char name[16];
  assert_non_null(d->what);
  assert_non_null(d->remedy);
  t->damages += d->kind != SR_DAMAGE_NOTE;
  t->notes += d->kind == SR_DAMAGE_NOTE;
  for (uint32_t n = 0; n < NAMES; n++) {
    name_of(n, name);
    if (!strstr(d->what, name)) continue;
    t->old[n] |= d->kind == SR_DAMAGE_OLD_VOLUME;
    t->bad[n] |= d->kind == SR_DAMAGE_VOLUME;
  }
}

/* ---- Making -------------------------------------------------------------------------------------
 */

static void fill_block(char *block, uint32_t at, uint32_t stamp) {
  uint64_t head[3] = {STAMP_MAGIC, at, stamp};
  fill_bytes(block, BLOCK, stamp);
  memcpy(block, head, sizeof head);
}

static void write_some(struct sr_port *p, struct model *m, uint32_t n, struct random *r) {
  static char data[32 * BLOCK];
  struct sr_block *b;
  char name[16];
  name_of(n, name);
  assert_int_equal(sr_volume_open(p, name, NULL, &b), 0);
  for (int i = 0; i < 8; i++) {
    uint32_t count = 1 + (uint32_t)random_below(r, 32);
    uint32_t first = (uint32_t)random_below(r, BLOCKS - count);
    bool discard = random_below(r, 5) == 0;
    for (uint32_t k = 0; k < count; k++) {
      m->stamps[n][first + k] = discard ? 0 : ++m->next;
      if (!discard) fill_block(data + (size_t)k * BLOCK, first + k, m->next);
    }
    uint64_t offset = (uint64_t)first * BLOCK, bytes = (uint64_t)count * BLOCK;
    int64_t done = discard ? sr_volume_discard(p, b, offset, bytes)
                           : sr_volume_write(p, b, data, offset, bytes, 0);
    assert_int_equal(done, bytes);
  }
  assert_int_equal(sr_volume_close(p, b), 0);
}

static void create(struct sr_port *p, struct model *m, uint32_t n, bool striped) {
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  char name[16];
  name_of(n, name);
  o.size_bytes = (uint64_t)BLOCKS * BLOCK;
  o.striped = striped;
  o.stripe_bytes = striped ? 65536 : 0;
  assert_int_equal(sr_volume_create(p, name, &o), 0);
  m->there[n] = true;
}

static void derive(struct sr_port *p, struct model *m, uint32_t n, uint32_t from, bool snapshot) {
  char name[16], from_name[16];
  name_of(n, name);
  name_of(from, from_name);
  assert_int_equal(snapshot ? sr_volume_snapshot(p, from_name, name)
                            : sr_volume_clone(p, from_name, name, NULL),
                   0);
  m->there[n] = true;
  m->snapshot[n] = snapshot;
  memcpy(m->stamps[n], m->stamps[from], sizeof m->stamps[n]);
}

/* Several lives, the middle one with a checkpoint. disk-10 and disk-11 never exist. */
static void make_store(struct fixture *f, struct model *m, uint64_t seed) {
  struct random r = {seed};
  memset(m, 0, sizeof *m);
  format_store(f, SHARDS, 24 * MIB);
  for (uint32_t life = 0; life < 3; life++) {
    struct sr_store *s = open_store(f);
    struct sr_port *p = open_port(s);
    for (uint32_t n = 0; n < 2 && life == 0; n++) create(p, m, n, n == 0);
    for (int i = 0; i < 6; i++) {
      for (uint32_t n = 0; n < NAMES; n++)
        if (m->there[n] && !m->snapshot[n]) write_some(p, m, n, &r);
      assert_int_equal(sr_flush(p), 0);
      if (i == 2) derive(p, m, 2 + life, life & 1, true);
      if (i == 3 && life < 2) derive(p, m, 6 + life, 2 + life, false);
      if (i == 4 && life == 1) assert_int_equal(sr_checkpoint(p), 0);
    }
    close_both(s, p);
  }
}

/* ---- Comparing ----------------------------------------------------------------------------------
 */

struct tally {
  uint64_t right, old, left_out, unreadable, not_known;
};

static bool is_block(const char *data, uint32_t at, uint32_t stamp) {
  static char want[BLOCK];
  if (stamp)
    fill_block(want, at, stamp);
  else
    memset(want, 0, sizeof want);
  return memcmp(data, want, BLOCK) == 0;
}

/* True if all that could be read is as it was. One bad block does not hide the others. */
static bool compare_blocks(struct sr_port *p, struct sr_block *b, const uint32_t *stamps,
                           struct tally *n) {
  static char data[RUN * BLOCK];
  bool same = true;
  for (uint32_t i = 0; i < BLOCKS; i += RUN) {
    bool whole = sr_volume_read(p, b, data, (uint64_t)i * BLOCK, sizeof data) == sizeof data;
    for (uint32_t k = 0; k < RUN; k++) {
      char *at = data + (size_t)k * BLOCK;
      int64_t got = whole ? BLOCK : sr_volume_read(p, b, at, (uint64_t)(i + k) * BLOCK, BLOCK);
      assert_true(got == BLOCK || got == -EBADMSG || got == -EIO);
      n->unreadable += got < 0;
      same = same && (got < 0 || is_block(at, i + k, stamps[i + k]));
    }
  }
  return same;
}

static void compare(struct sr_port *p, const struct model *m, const struct told *t,
                    struct tally *n) {
  struct sr_block_options read_only = SR_BLOCK_OPTIONS_INIT;
  read_only.read_only = true;
  for (uint32_t i = 0; i < NAMES; i++) {
    struct sr_volume_info info;
    struct sr_block *b;
    char name[16];
    name_of(i, name);
    int r = sr_volume_stat(p, name, &info);
    if (r == -ENOENT && m->there[i] && !t->bad[i])
      fail_msg("%s is there, but not for the store", name);
    n->not_known += r == -EBADMSG;
    n->left_out += t->bad[i];
    if (r) {
      assert_true(r == -ENOENT || r == -EBADMSG);
      continue;
    }
    if (!m->there[i] && !t->old[i]) fail_msg("%s is not there, and not called old", name);
    assert_int_equal(sr_volume_open(p, name, &read_only, &b), 0);
    bool same = compare_blocks(p, b, m->stamps[i], n);
    assert_int_equal(sr_volume_close(p, b), 0);
    if (!same && !t->old[i]) fail_msg("%s is wrong, and not called old", name);
    n->right += !t->old[i];
    n->old += t->old[i];
  }
}

static void look(struct fixture *f, const struct model *m, struct told *t, struct tally *n) {
  for (uint32_t mode = SR_DAMAGED_SKIP; mode <= SR_DAMAGED_SEARCH; mode++) {
    struct sr_open_options o = open_options(f);
    struct sr_store *s = NULL;
    memset(t, 0, sizeof *t);
    o.read_only = true;
    o.no_pin = true;
    o.damaged = mode;
    o.damage = tell;
    o.damage_arg = t;
    int r = sr_store_open(f->where, &o, &s);
    if (r) print_error("open: %s\n%s", strerror(-r), f->log);
    assert_int_equal(r, 0);
    struct sr_port *p = open_port(s);
    compare(p, m, t, n);
    close_both(s, p);
  }
}

/* ---- Harm ---------------------------------------------------------------------------------------
 */

static int open_part(const struct fixture *f, uint32_t shard) {
  char path[800];
  snprintf(path, sizeof path, "%s/shard-%04u", f->where, shard);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  assert_true(fd >= 0);
  return fd;
}

static bool has_data(const char *bytes, size_t count) {
  const uint64_t magic = STAMP_MAGIC;
  for (size_t at = 0; at < count; at += BLOCK)
    if (memcmp(bytes + at, &magic, sizeof magic) == 0) return true;
  return false;
}

static bool all_zeros(const char *bytes, size_t count) {
  return bytes[0] == 0 && memcmp(bytes, bytes + 1, count - 1) == 0;
}

struct harm {
  int fd;
  off_t at;
  size_t bytes;
  char before[64 * 1024];
};

/* Whole blocks that carry something, and no data of volumes. */
static bool do_harm(const struct fixture *f, struct random *r, struct harm *h) {
  static const char zeros[sizeof h->before];
  h->fd = open_part(f, (uint32_t)random_below(r, SHARDS));
  for (int tries = 0; tries < 2000; tries++) {
    h->bytes = random_below(r, 4) ? BLOCK : 4 * BLOCK;
    h->at = 65536 + (off_t)(random_below(r, random_below(r, 2) ? 64 : 6000) * BLOCK);
    ssize_t n = pread(h->fd, h->before, h->bytes, h->at);
    if (n != (ssize_t)h->bytes || has_data(h->before, h->bytes) || all_zeros(h->before, h->bytes))
      continue;
    assert_int_equal(pwrite(h->fd, zeros, h->bytes, h->at), h->bytes);
    return true;
  }
  close(h->fd);
  return false;
}

static void undo_harm(struct harm *h) {
  assert_int_equal(pwrite(h->fd, h->before, h->bytes, h->at), h->bytes);
  close(h->fd);
}

static void by_chance(void **state) {
  static struct model m;
  static struct harm h[2];
  struct fixture *f = *state;
  struct told t;
  struct tally n = {0};
  struct random r = {7};
  uint64_t damages = 0;
  make_store(f, &m, 4);
  for (int round = 0; round < ROUNDS; round++) {
    uint32_t count = 1 + (uint32_t)random_below(&r, 2), done = 0;
    while (done < count && do_harm(f, &r, &h[done])) done++;
    look(f, &m, &t, &n);
    damages += t.damages > 0;
    while (done-- > 0) undo_harm(&h[done]);
  }
  print_message("right %llu, old %llu, left out %llu, not known %llu; blocks unreadable %llu\n",
                (unsigned long long)n.right, (unsigned long long)n.old,
                (unsigned long long)n.left_out, (unsigned long long)n.not_known,
                (unsigned long long)n.unreadable);
  assert_true(damages > 0 && n.old > 0 && n.right > 0);
  n = (struct tally){0};
  look(f, &m, &t, &n); /* all is as it was */
  assert_int_equal(t.damages + n.old + n.not_known + n.left_out + n.unreadable, 0);
}

/* Of striped volumes some is gone, of others all; what has nothing there is as it was. */
static void a_missing_part(void **state) {
  static struct model m;
  struct fixture *f = *state;
  struct told t;
  struct tally n = {0};
  char path[800], away[820];
  make_store(f, &m, 5);
  for (uint32_t shard = 0; shard < SHARDS; shard++) {
    snprintf(path, sizeof path, "%s/shard-%04u", f->where, shard);
    snprintf(away, sizeof away, "%s.away", path);
    assert_int_equal(rename(path, away), 0);
    look(f, &m, &t, &n);
    assert_true(t.damages > 0);
    assert_int_equal(rename(away, path), 0);
  }
  assert_true(n.not_known > 0 && n.old > 0);
}

static void no_root(void **state) {
  static struct model m;
  struct fixture *f = *state;
  struct told t;
  struct tally n = {0};
  char path[800];
  make_store(f, &m, 6);
  snprintf(path, sizeof path, "%s/root", f->where);
  assert_int_equal(unlink(path), 0);
  look(f, &m, &t, &n);
  assert_int_equal(t.old[0], false); /* the search finds the checkpoints */
  assert_true(n.right > 0);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup_teardown(a_missing_part, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(no_root, fixture_setup, fixture_teardown),
      cmocka_unit_test_setup_teardown(by_chance, fixture_setup, fixture_teardown),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
