/* disk_self_test.c - the look at volumes must find what is made wrong on purpose: in the ledger,
 * then in the store. One thread; begins with a store and a ledger that agree, and leaves them so.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/crash/self_test.h"

struct testing {
  const char *where;
  struct ledger *l;
  uint32_t failures;
  struct found found; /* when all was right */
};

static uint64_t look_quietly(struct testing *k, struct ledger *l, struct found *found) {
  struct look v = {.engine = "pool", .cores = 2, .read_only = true, .quiet = true};
  look_at_store(k->where, l, &v, found);
  return v.findings;
}

static void expect(struct testing *k, const char *what, bool found) {
  printf("%s: %s\n", what, found ? "found" : "NOT FOUND");
  k->failures += !found;
}

/* ---- The ledger ---------------------------------------------------------------------------------
 */

/* Findings in how the ledger would be if the unit, or the disk itself, was otherwise. */
static uint64_t look_with(struct testing *k, uint32_t d, int unit, bool newer) {
  static struct ledger wrong;
  static struct found found;
  memcpy(&wrong, k->l, sizeof wrong);
  struct disk *disk = &wrong.disks.disks[d];
  struct row *row = unit < 0 ? &disk->row : &disk->units[unit].row;
  if (newer) { /* promised what was never there */
    row->issued++;
    row->durable = row->issued;
  } else { /* nothing was promised, and nothing asked for since */
    row->base = 0;
    row->base_none = 0;
    row->durable = 0;
  }
  return look_quietly(k, &wrong, &found);
}

static void test_ledger(struct testing *k) {
  uint32_t units = 0, newer = 0, older = 0, disks = 0, states = 0;
  for (uint32_t d = 0; d < DISKS; d++) {
    if (!k->found.disks[d].state) continue;
    disks++;
    states += look_with(k, d, -1, true) == 1 && look_with(k, d, -1, false) == 1;
    for (uint32_t u = d; u < DISK_UNITS; u += 19) {
      units++;
      newer += look_with(k, d, (int)u, true) >= 1;
      older += look_with(k, d, (int)u, false) >= 1;
    }
  }
  printf("of %u volumes, %u units: %u, lost %u, back again %u\n", disks, units, states, newer,
         older);
  expect(k, "a volume at another state", disks > 2 && states == disks);
  expect(k, "a promised write that is not there", units > 10 && newer == units);
  expect(k, "a write that must not be there", units > 10 && older == units);
}

/* ---- The store ----------------------------------------------------------------------------------
 */

struct change {
  uint32_t disk, offset, bytes;
  void *buf;
  const char *rename, *create; /* instead: to that; that */
};

static int change_open(struct sr_port *p, const char *name, const struct change *c) {
  struct sr_volume_options options = SR_VOLUME_OPTIONS_INIT;
  struct sr_block *block;
  options.size_bytes = DISK_BYTES;
  if (c->create) return sr_volume_create(p, c->create, &options);
  if (c->rename) return sr_volume_rename(p, name, c->rename);
  int r = sr_volume_open(p, name, NULL, &block);
  if (r) return r;
  int64_t n = sr_volume_write(p, block, c->buf, c->offset, c->bytes, 0);
  r = sr_volume_close(p, block);
  return n < 0 ? (int)n : r;
}

static bool change(struct testing *k, const char *name, const struct change *c) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct sr_store *s;
  struct sr_port *p;
  char own[DISK_NAME_MAX];
  disk_name(c->disk, k->found.disks[c->disk].state, own);
  o.no_pin = true;
  if (sr_store_open(k->where, &o, &s)) return false;
  int r = sr_port_open(s, NULL, &p);
  if (!r) r = change_open(p, name ? name : own, c);
  sr_port_close(p);
  return sr_store_close(s) == 0 && r == 0;
}

static int remove_volume(struct testing *k, const char *name) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  struct sr_store *s;
  struct sr_port *p;
  o.no_pin = true;
  int r = sr_store_open(k->where, &o, &s);
  if (r) return r;
  r = sr_port_open(s, NULL, &p);
  if (!r) r = sr_volume_remove(p, name);
  sr_port_close(p);
  int closed = sr_store_close(s);
  return r ? r : closed;
}

static void test_names(struct testing *k, uint32_t d) {
  static struct found found;
  char own[DISK_NAME_MAX];
  disk_name(d, k->found.disks[d].state, own);
  bool good = change(k, NULL, &(struct change){.create = "foreign"});
  expect(k, "a volume that nobody made", good && look_quietly(k, k->l, &found) == 1);
  good = remove_volume(k, "foreign") == 0;
  expect(k, "nothing, when it has gone", good && look_quietly(k, k->l, &found) == 0);
  good = change(k, own, &(struct change){.disk = d, .rename = "away"});
  expect(k, "a volume that has gone", good && look_quietly(k, k->l, &found) == 2);
  good = change(k, "away", &(struct change){.disk = d, .rename = own});
  expect(k, "nothing, when it is back", good && look_quietly(k, k->l, &found) == 0);
}

/* The unit's bytes as they are. */
static void fill_now(const struct testing *k, uint32_t d, uint32_t u, void *buf) {
  const struct content *c = &k->found.disks[d].units[u];
  if (c->zeros)
    memset(buf, 0, unit_bytes(u));
  else
    unit_fill(k->l->seed, c->disk, u, c->version, buf);
}

static void test_bytes(struct testing *k, uint32_t d) {
  static struct found found;
  static uint8_t buf[4096], other[4096];
  uint32_t u = 0;
  while (k->found.disks[d].units[u].zeros) u++;
  struct change c = {.disk = d, .offset = unit_offset(u), .bytes = unit_bytes(u), .buf = buf};
  fill_now(k, d, u, buf);
  buf[c.bytes - 1] ^= 1;
  expect(k, "a wrong last bit of a block",
         change(k, NULL, &c) && look_quietly(k, k->l, &found) == 1);
  fill_now(k, d, u, buf);
  unit_fill(k->l->seed, d, u, 1, other);
  memcpy(buf + 2048, other + 2048, 512);
  expect(k, "a torn block", change(k, NULL, &c) && look_quietly(k, k->l, &found) == 1);
  unit_fill(k->l->seed, d, u + 1, k->found.disks[d].units[u].version, buf);
  expect(k, "what belongs to another place",
         change(k, NULL, &c) && look_quietly(k, k->l, &found) == 1);
  unit_fill(k->l->seed, DISKS - 1, u, k->found.disks[d].units[u].version, buf);
  expect(k, "what belongs to another volume",
         change(k, NULL, &c) && look_quietly(k, k->l, &found) == 1);
  memset(buf, 0, sizeof buf);
  expect(k, "zeros that nobody wrote", change(k, NULL, &c) && look_quietly(k, k->l, &found) == 1);
  fill_now(k, d, u, buf);
  expect(k, "nothing, when it is right again",
         change(k, NULL, &c) && look_quietly(k, k->l, &found) == 0);
}

uint32_t disk_self_test(const char *where, struct ledger *l) {
  static struct testing testing;
  struct testing *k = &testing;
  *k = (struct testing){.where = where, .l = l};
  if (look_quietly(k, l, &k->found)) return 1;
  test_ledger(k);
  for (uint32_t d = 0; d < DISK_VOLUMES; d++) {
    if (!k->found.disks[d].state) continue;
    test_names(k, d);
    test_bytes(k, d);
    return k->failures;
  }
  printf("no volume is there\n");
  return 1;
}
