/* fuzz_catalog.c - the catalog at open: records of volumes and limits, whatever they say, are put
 * into a store that has volumes, and it is opened again. It is refused exactly when something is
 * wrong; else everything that the records say is there, can be used and removed, and no space is
 * lost.
 *
 * Input: flags (1 byte; 1: read-only; 2: in spite of damage), then records: kind (1; 0 to 3: in
 * fields, see feed_fields(); 4: removed; 5 to 7: bytes), id (1), shard (1), what follows. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "api/internal.h"
#include "tests/fuzz/mem_store.h"

#define RECORDS_MAX  64u /* in the store */
#define STEPS_MAX    24u
#define IDS          16u
#define SHARD_BLOCKS 1024u

/* ---- The store as it is before --------------------------------------------------------------- */

static struct sr_port *open_port(struct sr_store *s) {
  struct sr_port *p;
  check(sr_port_open(s, NULL, &p) == 0);
  return p;
}

static void write_some(struct sr_port *p, const char *name, uint64_t offset, char fill) {
  struct sr_block *b;
  char buf[8192];
  memset(buf, fill, sizeof buf);
  check(sr_volume_open(p, name, NULL, &b) == 0);
  check(sr_volume_write(p, b, buf, offset, sizeof buf, 0) == sizeof buf);
  check(sr_block_close(p, b) == 0);
}

static void make_volume(struct sr_port *p, const char *name, uint32_t shard, bool striped) {
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  o.size_bytes = 1 << 20;
  o.striped = striped;
  o.stripe_bytes = striped ? 65536 : 0;
  o.on_shard = !striped;
  o.shard = shard;
  check(sr_volume_create(p, name, &o) == 0);
  write_some(p, name, 0, 'a');
  write_some(p, name, 65536 - 4096, 'b');
}

/* Layers with data in all shards, under ids from 1 on. */
static void make_base(struct mem_store *m) {
  struct sr_store *s;
  struct sr_volume_options o = SR_VOLUME_OPTIONS_INIT;
  mem_store_format(m, SHARD_BLOCKS);
  check(mem_store_open(m, false, DAMAGED_REFUSE, &s) == 0);
  struct sr_port *p = open_port(s);
  make_volume(p, "base", 0, false);
  check(sr_volume_snapshot(p, "base", "snap") == 0);
  write_some(p, "base", 8192, 'c');
  o.on_shard = true;
  o.shard = 1;
  check(sr_volume_clone(p, "snap", "clone", &o) == 0);
  write_some(p, "clone", 131072, 'd');
  make_volume(p, "striped", 0, true);
  check(sr_volume_snapshot(p, "striped", "stripes") == 0);
  check(sr_port_close(p) == 0);
  check(sr_store_close(s) == 0);
}

/* ---- Records --------------------------------------------------------------------------------- */

static const struct limit_params limits[4] = {{.ops = {0}},
                                              {.bytes = {1 << 30, 5, 1}},
                                              {.ops = {1000000, 0, 1}},
                                              {.ops = {UINT64_C(1) << 60, 0, 1}}};
static const char *const groups[4] = {"", "", "tenant", "another"};
static const char *const names[8] = {"", "base", "snap", "clone", "striped", "x", "\xc3\xa4", "yy"};

/* layer, parent, shape, name, more: 1 byte each; size: 2, in logical blocks. */
static uint32_t feed_fields(struct feed *f, uint64_t id, uint32_t shard, uint8_t *buf) {
  static const uint8_t stripes[4] = {0, 0, 16, 20};
  struct volume_record r = {.id = id, .layer = feed_u8(f), .parent = feed_u8(f) % IDS};
  uint8_t shape = feed_u8(f), name = feed_u8(f), more = feed_u8(f);
  r.block_shift = shape & 1 ? 12 : 9;
  r.sealed = shape & 2;
  r.no_sums = shape & 4;
  r.live_sums = !r.no_sums && more & 0x40;
  r.stripe_shift = stripes[shape >> 3 & 3];
  r.shard = shape & 0x20 ? shape >> 6 : shard;
  r.limits = limits[more & 3];
  r.size_bytes = (uint64_t)(feed_u16(f) + 1) << r.block_shift;
  if (more & 0x80) r.size_bytes <<= 20;
  strcpy(r.name, names[name % 8]);
  if (name & 0x80) strcat(r.name, "/"); /* which no name has */
  strcpy(r.group, groups[more >> 2 & 3]);
  return volume_record_encode(&r, buf);
}

static void put_record(struct sr_port *p, uint32_t shard, struct blob_id key, const void *data,
                       uint32_t bytes) {
  struct shard_op op = {.kind = OP_RECORD,
                        .buf = (void *)(uintptr_t)data,
                        .bytes = bytes,
                        .id = key,
                        .hash = hash_of_shard(shard, MEM_SHARDS)};
  check(run_op(p, &op) == 0);
}

static void step(struct sr_port *p, struct feed *f) {
  static const uint64_t kinds[4] = {VOLUME_KEY, GROUP_KEY, STORE_KEY, MARK_KEY};
  uint8_t buf[RECORD_BYTES_MAX], kind = feed_u8(f) % 8;
  uint64_t id = feed_u8(f) % IDS;
  uint32_t shard = feed_u8(f), bytes = 0;
  struct blob_id key = {kind > 4 ? kinds[shard >> 4 & 3] : VOLUME_KEY, id};
  shard %= MEM_SHARDS;
  if (kind < 4) bytes = feed_fields(f, id, shard, buf);
  if (kind > 4) {
    uint64_t length = feed_u8(f);
    bytes = (uint32_t)feed_bytes(f, buf, min_u64(length, f->left));
  }
  put_record(p, shard, key, buf, bytes);
}

/* ---- What is right --------------------------------------------------------------------------- */

struct table {
  struct volume_record all[RECORDS_MAX];
  uint32_t count;
  bool good;
};

static const struct volume_record *with_id(const struct table *t, uint64_t id) {
  for (uint32_t i = 0; i < t->count; i++)
    if (t->all[i].id == id) return &t->all[i];
  return NULL;
}

static void take_records(struct table *t, struct sr_port *p, uint32_t shard) {
  struct limits_record limits_of;
  const char *why;
  struct manifest *m = shard_manifest(port_of(p)->store->cores[0].shards[shard].shard);
  for (const struct record *x = NULL; (x = records_next(manifest_records(m), x)) != NULL;) {
    bool of_group = x->key.hi == GROUP_KEY;
    if (of_group || x->key.hi == STORE_KEY)
      t->good &=
          shard == 0 && limits_record_decode(x->data, x->bytes, of_group, &limits_of, &why) == 0;
    if (x->key.hi != VOLUME_KEY) continue;
    check(t->count < RECORDS_MAX);
    struct volume_record *r = &t->all[t->count];
    if (volume_record_decode(x->data, x->bytes, x->key.lo, shard, MEM_SHARDS, r, &why))
      t->good = false;
    else
      t->count++;
  }
}

static bool pair_clashes(const struct volume_record *a, const struct volume_record *b) {
  return a->id == b->id || a->layer == b->layer || (a->name[0] && !strcmp(a->name, b->name));
}

static bool chain_is_good(const struct table *t, const struct volume_record *r) {
  for (uint32_t steps = 0; r->parent; steps++) {
    const struct volume_record *parent = with_id(t, r->parent);
    if (!parent || !parent->sealed || parent->stripe_shift != r->stripe_shift || steps > t->count)
      return false;
    r = parent;
  }
  return true;
}

static void judge(struct table *t) {
  for (uint32_t i = 0; i < t->count; i++) {
    for (uint32_t k = 0; k < i; k++) t->good &= !pair_clashes(&t->all[i], &t->all[k]);
    t->good &= chain_is_good(t, &t->all[i]);
  }
}

static uint32_t children_of(const struct table *t, uint64_t id) {
  uint32_t n = 0;
  for (uint32_t i = 0; i < t->count; i++) n += t->all[i].parent == id;
  return n;
}

/* What an open that may write does: removed snapshots that nothing lies on go. */
static void drop_nameless_ones(struct table *t) {
  for (uint32_t i = 0; i < t->count;)
    if (!t->all[i].name[0] && !children_of(t, t->all[i].id)) {
      t->all[i] = t->all[--t->count];
      i = 0;
    } else {
      i++;
    }
}

/* ---- What is there --------------------------------------------------------------------------- */

static void check_volume(struct sr_port *p, const struct table *t, const struct volume_record *r) {
  struct sr_volume_info v;
  char group[64];
  struct sr_limits have = SR_LIMITS_INIT;
  uint32_t depth = 0;
  check(sr_volume_stat(p, r->name, &v) == 0);
  check(v.id == r->id && v.parent_id == r->parent && v.size_bytes == r->size_bytes);
  check(v.block_bytes == 1u << r->block_shift && v.snapshot == r->sealed && v.shard == r->shard);
  check(v.stripe_bytes == (r->stripe_shift ? 1u << r->stripe_shift : 0));
  check(v.children == children_of(t, r->id));
  check(!v.open_for_writing && v.openers == 0 && strcmp(v.group, r->group) == 0);
  for (const struct volume_record *x = r; x->parent; x = with_id(t, x->parent)) depth++;
  check(v.depth == depth);
  check(sr_volume_limits(p, r->name, &have, group) == 0);
  check(have.bytes.size == r->limits.bytes.size && have.ops.size == r->limits.ops.size);
}

static int touch_range(void *arg, const struct sr_volume_range *range) {
  uint64_t *end = arg;
  check(range->bytes > 0 && range->offset_bytes >= end[0]);
  end[0] = range->offset_bytes + range->bytes;
  check(end[0] <= round_up(end[1], SR_BLOCK_BYTES));
  return 0;
}

/* Reads both ends, and compares with what is said to lie below it. */
static void read_volume(struct sr_port *p, const char *name) {
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *b;
  char buf[4096];
  o.read_only = true;
  check(sr_volume_open(p, name, &o, &b) == 0);
  uint64_t size = sr_block_size_bytes(b), block = sr_block_block_bytes(b);
  uint64_t bytes = min_u64(size, sizeof buf);
  check(sr_volume_read(p, b, buf, 0, bytes) == (int64_t)bytes);
  check(sr_volume_read(p, b, buf, size - block, block) == (int64_t)block);
  check(sr_volume_read(p, b, buf, size, block) == -EINVAL);
  check(sr_block_close(p, b) == 0);
  uint64_t range[2] = {0, size};
  check(sr_volume_diff(p, NULL, name, touch_range, range) == 0);
}

static uint32_t list_names(struct sr_port *p, struct sr_volume_info *infos) {
  int n = sr_volume_list(p, "", infos, RECORDS_MAX);
  check(n >= 0 && n <= (int)RECORDS_MAX);
  for (int i = 1; i < n; i++) check(strcmp(infos[i - 1].name, infos[i].name) < 0);
  return (uint32_t)n;
}

static void check_all(struct sr_port *p, const struct table *t) {
  static struct sr_volume_info infos[RECORDS_MAX];
  uint32_t named = 0;
  for (uint32_t i = 0; i < t->count; i++) {
    if (!t->all[i].name[0]) continue;
    check_volume(p, t, &t->all[i]);
    named++;
  }
  check(list_names(p, infos) == named);
  for (uint32_t i = 0; i < named; i++) read_volume(p, infos[i].name);
}

/* ---- Going on -------------------------------------------------------------------------------- */

/* All kinds of changes with each one. -ENOSPC is in order: records may ask for anything. */
static void use_volume(struct sr_port *p, const struct sr_volume_info *v) {
  char copy[64];
  snprintf(copy, sizeof copy, "copy of %llu", (unsigned long long)v->id);
  if (v->snapshot) {
    int r = sr_volume_clone(p, v->name, copy, NULL);
    check(r == 0);
    check(sr_volume_flatten(p, copy) == 0);
    return;
  }
  if (v->size_bytes >= 16384) write_some(p, v->name, 0, 'z');
  check(sr_volume_snapshot(p, v->name, copy) == 0);
  if (v->size_bytes >= 16384) write_some(p, v->name, 8192, 'y');
  check(sr_volume_rollback(p, v->name, copy) == 0);
  check(sr_volume_resize(p, v->name, v->size_bytes + 4096, false) == 0 ||
        v->size_bytes == SR_VOLUME_BYTES_MAX);
}

static void remove_all(struct sr_port *p) {
  static struct sr_volume_info infos[2 * RECORDS_MAX];
  struct sr_space space;
  int n = sr_volume_list(p, "", infos, 2 * RECORDS_MAX);
  for (int i = 0; i < n; i++) check(sr_volume_remove(p, infos[i].name) == 0);
  check(sr_volume_list(p, "", infos, 1) == 0);
  check(sr_flush(p) == 0);
  check(sr_space(p, &space) == 0);
}

static void go_on(struct mem_store *m, struct sr_port *p) {
  static struct sr_volume_info infos[RECORDS_MAX];
  struct sr_store *s = (struct sr_store *)port_of(p)->store;
  struct sr_space space;
  uint32_t n = list_names(p, infos);
  for (uint32_t i = 0; i < n; i++) use_volume(p, &infos[i]);
  for (uint32_t i = 0; i < n; i++) read_volume(p, infos[i].name);
  remove_all(p);
  check(sr_port_close(p) == 0);
  check(sr_store_close(s) == 0);
  check(mem_store_open(m, false, DAMAGED_REFUSE, &s) == 0);
  p = open_port(s);
  check(sr_volume_list(p, "", infos, 1) == 0);
  check(sr_space(p, &space) == 0);
  check(space.volume_bytes == 0);
  check(sr_port_close(p) == 0);
  check(sr_store_close(s) == 0);
}

/* In spite of damage: whatever is listed can be read. */
static void try_damaged(struct mem_store *m, const struct table *t) {
  static struct sr_volume_info infos[RECORDS_MAX];
  struct sr_store *s;
  int r = mem_store_open(m, true, DAMAGED_SKIP, &s);
  check(r == 0 || (r == -EBADMSG && !t->good));
  if (r) return;
  struct sr_port *p = open_port(s);
  uint32_t n = list_names(p, infos);
  if (t->good) check_all(p, t);
  for (uint32_t i = 0; i < n; i++) read_volume(p, infos[i].name);
  check(sr_port_close(p) == 0);
  check(sr_store_close(s) == 0);
}

static void try_open(struct mem_store *m, struct table *t, bool read_only) {
  struct sr_store *s;
  int r = mem_store_open(m, read_only, DAMAGED_REFUSE, &s);
  check(r == (t->good ? 0 : -EBADMSG));
  if (r) return;
  struct sr_port *p = open_port(s);
  if (!read_only) drop_nameless_ones(t);
  check_all(p, t);
  if (!read_only) {
    go_on(m, p);
    return;
  }
  check(sr_port_close(p) == 0);
  check(sr_store_close(s) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct mem_store base;
  struct feed f = {data, size};
  uint8_t flags = feed_u8(&f);
  struct mem_store m;
  struct sr_store *s;
  struct table *t = calloc(1, sizeof *t);
  check(t != NULL);
  if (!base.blocks) make_base(&base); /* the same for all inputs */
  mem_store_copy(&m, &base);
  check(mem_store_open(&m, false, DAMAGED_REFUSE, &s) == 0);
  struct sr_port *p = open_port(s);
  for (uint32_t i = 0; i < STEPS_MAX && f.left > 0; i++) step(p, &f);
  t->good = true;
  for (uint32_t i = 0; i < MEM_SHARDS; i++) take_records(t, p, i);
  judge(t);
  check(sr_port_close(p) == 0);
  check(sr_store_close(s) == 0);
  if (flags & 2)
    try_damaged(&m, t);
  else
    try_open(&m, t, flags & 1);
  mem_store_drop(&m);
  free(t);
  return 0;
}
