/* disk_calls.c - see disk_calls.h. */
#include "tests/fuzz/disk_calls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#define KIB UINT64_C(1024)

/* ---- Names ----------------------------------------------------------------------------------- */

struct name {
  char text[300];
  uint32_t slot; /* DISK_NAMES: none of the model's */
  int wrong;     /* what a call says of it, whatever it is wanted for; 0: well-formed */
  bool id;
};

static void no_name(struct name *n, struct feed *f, uint8_t which) {
  static const struct {
    const char *text;
    int wrong;
  } bad[] = {{"", -EINVAL},     {"#", -EINVAL},        {"#1x", -EINVAL},  {"a/b", -EINVAL},
             {"\x01", -EINVAL}, {"\xff\xfe", -EINVAL}, {"\x7f", -EINVAL}, {"\xc0\x80", -EINVAL},
             {"# 1", -EINVAL},  {"nobody", 0},         {"tab\t", -EINVAL}};
  uint32_t i = which % (array_size(bad) + 1);
  n->slot = DISK_NAMES;
  if (i == array_size(bad)) { /* too long, by as much as the input says */
    size_t bytes = SR_VOLUME_NAME_BYTES_MAX + 1 + feed_u8(f) % 40;
    memset(n->text, 'n', bytes);
    n->wrong = -ENAMETOOLONG;
  } else {
    snprintf(n->text, sizeof n->text, "%s", bad[i].text);
    n->wrong = bad[i].wrong;
  }
}

/* Mostly one of the model's, sometimes by its id, sometimes malformed. */
static void feed_name(struct desk *d, struct feed *f, struct name *n) {
  uint8_t b = feed_u8(f);
  struct sr_volume_info info;
  memset(n, 0, sizeof *n);
  n->slot = b % 8;
  if (n->slot >= DISK_NAMES) {
    no_name(n, f, b / 8);
    return;
  }
  snprintf(n->text, sizeof n->text, "%s", disk_names[n->slot]);
  if (b < 0xe0 || !d->disks.named[n->slot]) return;
  check(sr_volume_stat(d->port, n->text, &info) == 0);
  snprintf(n->text, sizeof n->text, "#%llu", (unsigned long long)info.id);
  n->id = true;
}

static struct disk *disk_of(const struct desk *d, const struct name *n) {
  return n->slot < DISK_NAMES ? d->disks.named[n->slot] : NULL;
}
static int find_error(const struct desk *d, const struct name *n) {
  return n->wrong ? n->wrong : disk_of(d, n) ? 0 : -ENOENT;
}
static int new_error(const struct desk *d, const struct name *n) {
  if (n->wrong) return n->wrong;
  return n->id ? -EINVAL : disk_of(d, n) ? -EEXIST : 0;
}
/* "nobody" stays free. */
static void settle_name(struct desk *d, const struct name *n, struct disk *made) {
  if (n->slot < DISK_NAMES)
    d->disks.named[n->slot] = made;
  else
    check(sr_volume_remove(d->port, n->text) == 0);
}

/* ---- Create and clone ------------------------------------------------------------------------ */

static uint64_t feed_size(struct feed *f) {
  uint8_t how = feed_u8(f);
  uint64_t n = feed_u16(f);
  switch (how % 8) {
  case 0:
    return feed_number(f, 8);
  case 1:
    return n << 30;
  case 2:
    return DISK_SIZE_MAX - n * 512;
  case 3:
    return n;
  default:
    return how & 8 ? n % 600 * 512 : n % 80 * 4 * KIB;
  }
}

static bool size_is_good(uint64_t size, uint32_t block) {
  return size > 0 && size <= DISK_SIZE_MAX && size % block == 0;
}

static void feed_options(struct feed *f, struct sr_volume_options *o) {
  uint8_t b = feed_u8(f);
  *o = (struct sr_volume_options)SR_VOLUME_OPTIONS_INIT;
  o->size_bytes = feed_size(f);
  if (b & 1) o->block_bytes = b & 2 ? 4096 : 512;
  o->striped = b & 4;
  if (b & 8) o->stripe_bytes = b & 4 ? 64 * KIB : 1u << (feed_u8(f) % 32);
  o->on_shard = b & 16;
  o->shard = b & 32 ? 1 : b & 64 ? feed_u8(f) : 0;
  if (b & 128) o->integrity = feed_u8(f) % 4;
  if (b == 0xff) o->block_bytes = feed_u16(f);
}

static bool options_are_good(const struct sr_volume_options *o) {
  if (o->integrity > SR_INTEGRITY_ON || (!o->striped && o->stripe_bytes)) return false;
  if (!o->stripe_bytes) return true;
  return (o->stripe_bytes & (o->stripe_bytes - 1)) == 0 && o->stripe_bytes >= 64 * KIB &&
         o->stripe_bytes <= 1024 * KIB * KIB;
}

static bool place_is_good(const struct sr_volume_options *o, bool striped) {
  return !o->on_shard || (o->shard < 2 && !striped);
}

static void create(struct desk *d, struct feed *f) {
  struct name n;
  struct sr_volume_options o;
  feed_name(d, f, &n);
  feed_options(f, &o);
  int r = sr_volume_create(d->port, n.text, &o), wrong = new_error(d, &n);
  uint32_t block = o.block_bytes ? o.block_bytes : 512;
  bool good = options_are_good(&o) && (block == 512 || block == 4096) &&
              size_is_good(o.size_bytes, block) && place_is_good(&o, o.striped);
  check(good && !wrong ? r == 0 || r == -ENOSPC : r < 0 && (r == -EINVAL || r == wrong));
  if (r) return;
  struct disk *made = disk_new(&d->disks);
  made->size = o.size_bytes;
  made->block = block;
  made->stripe = o.striped ? (o.stripe_bytes ? o.stripe_bytes : 1u << 20) : 0;
  settle_name(d, &n, made);
}

static void clone_it(struct desk *d, struct feed *f) {
  struct name of, n;
  struct sr_volume_options o;
  bool plain = feed_u8(f) % 2;
  feed_name(d, f, &of);
  feed_name(d, f, &n);
  feed_options(f, &o);
  if (plain) o = (struct sr_volume_options)SR_VOLUME_OPTIONS_INIT;
  int r = sr_volume_clone(d->port, of.text, n.text, &o);
  struct disk *s = disk_of(d, &of);
  int wrong = find_error(d, &of), wrong_new = new_error(d, &n);
  uint64_t size = s && !o.size_bytes ? s->size : o.size_bytes;
  bool good = s && s->sealed && options_are_good(&o) &&
              (!o.block_bytes || o.block_bytes == s->block) && (!o.striped || s->stripe) &&
              size >= s->size && size_is_good(size, s->block) && place_is_good(&o, s->stripe);
  if (good && !wrong && !wrong_new)
    check(r == 0 || r == -ENOSPC);
  else
    check(r == -EINVAL || (r < 0 && (r == wrong || r == wrong_new)));
  if (r) return;
  struct disk *made = disk_copy(&d->disks, s);
  made->parent = s;
  disk_resize(made, size);
  settle_name(d, &n, made);
}

static void snapshot(struct desk *d, struct feed *f) {
  struct name of, n;
  feed_name(d, f, &of);
  feed_name(d, f, &n);
  int r = sr_volume_snapshot(d->port, of.text, n.text);
  struct disk *v = disk_of(d, &of);
  int wrong = find_error(d, &of);
  if (!wrong && v->sealed) wrong = -EROFS;
  if (!wrong) wrong = new_error(d, &n);
  check(r == wrong || (!wrong && r == -ENOSPC));
  if (r) return;
  struct disk *s = disk_copy(&d->disks, v);
  s->sealed = true;
  s->parent = v->parent;
  v->parent = s;
  settle_name(d, &n, s);
}

/* ---- Changes --------------------------------------------------------------------------------- */

static void remove_it(struct desk *d, struct feed *f) {
  struct name n;
  feed_name(d, f, &n);
  int r = sr_volume_remove(d->port, n.text), wrong = find_error(d, &n);
  struct disk *v = disk_of(d, &n);
  if (!wrong && v->openers) wrong = -EBUSY;
  check(r == wrong || (!wrong && r == -ENOSPC));
  if (r == 0) d->disks.named[n.slot] = NULL;
}

static void rename_it(struct desk *d, struct feed *f) {
  struct name n, to;
  feed_name(d, f, &n);
  feed_name(d, f, &to);
  int r = sr_volume_rename(d->port, n.text, to.text), wrong = find_error(d, &n);
  if (!wrong) wrong = new_error(d, &to);
  check(r == wrong || (!wrong && r == -ENOSPC));
  if (r) return;
  if (to.slot == DISK_NAMES) {
    check(sr_volume_rename(d->port, to.text, disk_names[n.slot]) == 0);
    return;
  }
  d->disks.named[to.slot] = d->disks.named[n.slot];
  d->disks.named[n.slot] = NULL;
}

static void resize(struct desk *d, struct feed *f) {
  struct name n;
  feed_name(d, f, &n);
  uint64_t size = feed_size(f);
  bool force = feed_u8(f) % 2;
  int r = sr_volume_resize(d->port, n.text, size, force), wrong = find_error(d, &n);
  struct disk *v = disk_of(d, &n);
  if (!wrong && v->sealed) wrong = -EROFS;
  if (!wrong && !size_is_good(size, v->block)) wrong = -EINVAL;
  if (!wrong && r == -ENOTEMPTY) check(!force && size < v->size);
  check(r == wrong || (!wrong && (r == -ENOSPC || r == -ENOTEMPTY)));
  if (r) return;
  /* Nothing that is not zeros was thrown away unasked. */
  for (uint64_t at = size; !force && at < min_u64(v->size, DISK_WINDOW); at++)
    check(!v->known[at / DISK_SECTOR] || !v->content[at]);
  disk_resize(v, size);
}

static void rollback(struct desk *d, struct feed *f) {
  struct name n, to;
  feed_name(d, f, &n);
  feed_name(d, f, &to);
  int r = sr_volume_rollback(d->port, n.text, to.text), wrong = find_error(d, &n);
  struct disk *v = disk_of(d, &n), *s = disk_of(d, &to);
  if (!wrong) wrong = find_error(d, &to);
  if (!wrong && v->sealed) wrong = -EROFS;
  if (!wrong && v->openers) wrong = -EBUSY;
  if (!wrong && !disk_lies_on(v, s)) wrong = -EXDEV;
  check(r == wrong || (!wrong && r == -ENOSPC));
  if (r) return;
  memcpy(v->content, s->content, sizeof v->content);
  memcpy(v->known, s->known, sizeof v->known);
  v->size = s->size;
  v->parent = s;
}

static void flatten(struct desk *d, struct feed *f) {
  struct name n;
  feed_name(d, f, &n);
  int r = sr_volume_flatten(d->port, n.text), wrong = find_error(d, &n);
  struct disk *v = disk_of(d, &n);
  if (!wrong && v->sealed) wrong = -EROFS;
  check(r == wrong || (!wrong && r == -ENOSPC));
  if (r == 0) v->parent = NULL;
}

/* ---- Limits ---------------------------------------------------------------------------------- */

static struct sr_bucket feed_bucket(struct feed *f, bool tame) {
  if (tame) {
    uint64_t size = feed_u8(f);
    return (struct sr_bucket){size * 64, size ? feed_u8(f) : 0, size != 0};
  }
  struct sr_bucket b;
  b.size = feed_number(f, 8);
  b.one_time_burst = feed_number(f, 8);
  b.refill_ms = feed_number(f, 8);
  return b;
}
static bool bucket_is_good(const struct sr_bucket *b) {
  if (!b->size) return !b->one_time_burst && !b->refill_ms;
  return b->size <= UINT64_C(1) << 60 && b->one_time_burst <= UINT64_C(1) << 60 && b->refill_ms &&
         b->refill_ms <= UINT64_C(1) << 32;
}

/* What a volume in use waits for are only limits that do not take for ever. */
static void limit(struct desk *d, struct feed *f) {
  struct name n;
  uint8_t kind = feed_u8(f);
  struct sr_limits l = SR_LIMITS_INIT, have = SR_LIMITS_INIT;
  char group[64];
  bool tame = kind % 4 != 0;
  feed_name(d, f, &n);
  l.bytes = feed_bucket(f, tame);
  l.ops = feed_bucket(f, tame);
  bool good = bucket_is_good(&l.bytes) && bucket_is_good(&l.ops);
  if (!tame) {
    int r = sr_group_limit(d->port, "nobody's", &l);
    check(r == (good ? 0 : -EINVAL) || (good && r == -ENOSPC));
    return;
  }
  if (kind % 4 == 1) check(sr_store_limit(d->port, &l) == 0);
  if (kind % 4 == 2) check(sr_group_limit(d->port, "group", &l) == 0);
  if (kind % 4 != 3) return;
  if (kind & 16) l.group = kind & 32 ? "another" : "group";
  int r = sr_volume_limit(d->port, n.text, &l), wrong = find_error(d, &n);
  check(r == wrong);
  if (r) return;
  check(sr_volume_limits(d->port, n.text, &have, group) == 0);
  check(memcmp(&have.bytes, &l.bytes, sizeof l.bytes) == 0);
  check(memcmp(&have.ops, &l.ops, sizeof l.ops) == 0);
  check((have.group == NULL) == (l.group == NULL));
  if (l.group) check(strcmp(group, l.group) == 0);
}

/* ---- Handles --------------------------------------------------------------------------------- */

void desk_close_handle(struct handle *h, struct sr_port *port) {
  if (!h->block) return;
  check(sr_block_close(port, h->block) == 0);
  h->disk->openers--;
  h->disk->writers -= !h->read_only;
  h->block = NULL;
}

static void open_file(struct desk *d, struct handle *h, const struct sr_block_options *o) {
  char name[32];
  snprintf(name, sizeof name, "fd:%d", d->file_fd);
  int r = sr_block_open(d->port, name, o, &h->block);
  bool good = !o->block_bytes || o->block_bytes == 512 || o->block_bytes == 4096;
  good &= !o->on_shard || o->shard < 2;
  check(r == (!good ? -EINVAL : !d->file ? -EOPNOTSUPP : 0));
  if (r) {
    h->block = NULL;
    return;
  }
  check(sr_block_block_bytes(h->block) == (o->block_bytes ? o->block_bytes : 512));
  h->disk = d->file;
}

void desk_open(struct desk *d, struct feed *f) {
  struct handle *h = &d->handles[feed_u8(f) % HANDLES];
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  struct name n;
  uint8_t b = feed_u8(f);
  desk_close_handle(h, d->port);
  feed_name(d, f, &n);
  o.read_only = b & 1;
  o.share = b & 2;
  o.block_bytes = b & 4 ? 4096 : 0;
  o.on_shard = b & 8;
  o.shard = b >> 4 & 3;
  h->read_only = o.read_only;
  if (b & 64) {
    open_file(d, h, &o);
  } else {
    int r = sr_volume_open(d->port, n.text, &o, &h->block), wrong = find_error(d, &n);
    struct disk *v = h->disk = disk_of(d, &n);
    if (!wrong && !o.read_only && v->sealed) wrong = -EROFS;
    if (!wrong && !o.read_only && !o.share && v->writers) wrong = -EBUSY;
    check(r == wrong);
    if (r) h->block = NULL;
  }
  if (!h->block) return;
  check(sr_block_size_bytes(h->block) == h->disk->size);
  check(sr_block_read_only(h->block) == h->read_only);
  h->disk->openers++;
  h->disk->writers += !h->read_only;
}

/* ---- All of them ----------------------------------------------------------------------------- */

void desk_call(struct desk *d, struct feed *f) {
  typedef void call(struct desk * d, struct feed * f);
  static call *const calls[] = {create, clone_it, snapshot, remove_it, rename_it,
                                resize, rollback, flatten,  limit,     snapshot};
  calls[feed_u8(f) % array_size(calls)](d, f);
}
