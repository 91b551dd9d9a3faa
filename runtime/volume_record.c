/* volume_record.c - the records of volumes: bytes and back. See volume_record.h. Any thread. */
#include "runtime/volume_record.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#define RECORD_VERSION 1u
#define FLAG_SEALED    1u
#define FLAG_NO_SUMS   2u
#define FLAG_LIVE_SUMS 4u

/* As they lie in the record; little-endian, as all machines that we run on. */
struct disk_limits {
  uint64_t bytes_size, bytes_burst, bytes_refill_ms;
  uint64_t ops_size, ops_burst, ops_refill_ms;
};
_Static_assert(sizeof(struct disk_limits) == 48, "docs/format.md");

struct disk_volume {
  uint8_t version, flags, block_shift, stripe_shift;
  uint32_t shard;
  uint64_t layer, parent, size_bytes;
  struct disk_limits limits;
  uint8_t name_bytes, group_bytes;
  uint8_t reserved[6];
  /* then the name, then the group's name, without zero bytes */
};
_Static_assert(sizeof(struct disk_volume) == 88, "docs/format.md");
_Static_assert(offsetof(struct disk_volume, limits) == 32, "docs/format.md");
_Static_assert(offsetof(struct disk_volume, name_bytes) == 80, "docs/format.md");
_Static_assert(sizeof(struct disk_volume) + VOLUME_NAME_MAX + VOLUME_GROUP_MAX <= VOLUME_RECORD_MAX,
               "fits");
_Static_assert(VOLUME_RECORD_MAX <= RECORD_BYTES_MAX, "fits a record");

struct disk_group {
  uint8_t version, group_bytes;
  uint8_t reserved[6];
  struct disk_limits limits;
  /* then the group's name */
};
_Static_assert(sizeof(struct disk_group) == 56, "docs/format.md");

/* ---- Names ---------------------------------------------------------------------------------- */

/* Bytes of the UTF-8 character at s, 0 if it is none; *code: which one. */
static uint32_t utf8_decode(const uint8_t *s, size_t left, uint32_t *code) {
  static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
  uint32_t bytes = s[0] < 0x80       ? 1
                   : s[0] >> 5 == 6  ? 2
                   : s[0] >> 4 == 14 ? 3
                   : s[0] >> 3 == 30 ? 4
                                     : 0;
  if (!bytes || bytes > left) return 0;
  *code = bytes == 1 ? s[0] : s[0] & (0x7fu >> bytes);
  for (uint32_t i = 1; i < bytes; i++) {
    if (s[i] >> 6 != 2) return 0;
    *code = *code << 6 | (s[i] & 0x3f);
  }
  if (*code < least[bytes] || *code > 0x10ffff || *code >> 11 == 0x1b) return 0;
  return bytes;
}

static bool is_text(const char *text, size_t bytes) {
  for (size_t i = 0; i < bytes;) {
    uint32_t code, n = utf8_decode((const uint8_t *)text + i, bytes - i, &code);
    if (!n || code < 0x20 || (code >= 0x7f && code < 0xa0) || code == '/') return false;
    i += n;
  }
  return true;
}

int volume_name_check(const char *name, size_t bytes_max) {
  size_t bytes = strnlen(name, bytes_max + 1);
  if (bytes > bytes_max) return -ENAMETOOLONG;
  return bytes && name[0] != '#' && is_text(name, bytes) ? 0 : -EINVAL;
}

/* ---- Limits --------------------------------------------------------------------------------- */

bool volume_limits_any(const struct limit_params *l) { return l->bytes.size || l->ops.size; }

bool volume_limits_valid(const struct limit_params *l) {
  const struct limit_params none = {0};
  return memcmp(l, &none, sizeof none) == 0 || limit_params_check(l) == 0;
}

static struct disk_limits limits_out(const struct limit_params *l) {
  return (struct disk_limits){l->bytes.size, l->bytes.one_time_burst, l->bytes.refill_time_ms,
                              l->ops.size,   l->ops.one_time_burst,   l->ops.refill_time_ms};
}

static bool limits_in(const struct disk_limits *d, struct limit_params *l) {
  l->bytes = (struct bucket_params){d->bytes_size, d->bytes_burst, d->bytes_refill_ms};
  l->ops = (struct bucket_params){d->ops_size, d->ops_burst, d->ops_refill_ms};
  return volume_limits_valid(l);
}

static bool is_zero(const uint8_t *bytes, size_t n) {
  uint8_t any = 0;
  for (size_t i = 0; i < n; i++) any |= bytes[i];
  return !any;
}

uint32_t limits_record_encode(const struct limits_record *r, void *buf) {
  size_t bytes = strlen(r->group);
  struct disk_group d = {
      .version = RECORD_VERSION, .group_bytes = (uint8_t)bytes, .limits = limits_out(&r->limits)};
  memcpy(buf, &d, sizeof d);
  memcpy((char *)buf + sizeof d, r->group, bytes);
  return (uint32_t)(sizeof d + bytes);
}

int limits_record_decode(const void *data, uint32_t bytes, bool of_group, struct limits_record *r,
                         const char **why) {
  struct disk_group d;
  memset(r, 0, sizeof *r);
  *why = "bytes";
  if (bytes < sizeof d) return -EBADMSG;
  memcpy(&d, data, sizeof d);
  if (bytes != sizeof d + d.group_bytes) return -EBADMSG;
  *why = "version";
  if (d.version != RECORD_VERSION) return -EBADMSG;
  *why = "reserved bytes";
  if (!is_zero(d.reserved, sizeof d.reserved)) return -EBADMSG;
  *why = "limits";
  if (!limits_in(&d.limits, &r->limits)) return -EBADMSG;
  *why = "group";
  if (d.group_bytes > VOLUME_GROUP_MAX || of_group != (d.group_bytes > 0)) return -EBADMSG;
  memcpy(r->group, (const char *)data + sizeof d, d.group_bytes);
  if (memchr(r->group, 0, d.group_bytes)) return -EBADMSG;
  return !of_group || !volume_name_check(r->group, VOLUME_GROUP_MAX) ? 0 : -EBADMSG;
}

/* ---- Volumes -------------------------------------------------------------------------------- */

uint32_t volume_record_encode(const struct volume_record *r, void *buf) {
  size_t name = strlen(r->name), group = strlen(r->group);
  struct disk_volume d = {.version = RECORD_VERSION,
                          .flags = (r->sealed ? FLAG_SEALED : 0) | (r->no_sums ? FLAG_NO_SUMS : 0) |
                                   (r->live_sums ? FLAG_LIVE_SUMS : 0),
                          .block_shift = r->block_shift,
                          .stripe_shift = r->stripe_shift,
                          .shard = r->shard,
                          .layer = r->layer,
                          .parent = r->parent,
                          .size_bytes = r->size_bytes,
                          .limits = limits_out(&r->limits),
                          .name_bytes = (uint8_t)name,
                          .group_bytes = (uint8_t)group};
  memcpy(buf, &d, sizeof d);
  memcpy((char *)buf + sizeof d, r->name, name);
  memcpy((char *)buf + sizeof d + name, r->group, group);
  return (uint32_t)(sizeof d + name + group);
}

static const char *wrong_place(const struct disk_volume *d, uint64_t id, uint32_t shard,
                               uint32_t shard_count) {
  if (!id) return "id";
  if (!d->layer) return "layer";
  if (d->parent == id) return "parent";
  if (d->shard != shard || shard >= shard_count) return "shard";
  if (!d->stripe_shift) return NULL;
  if (d->stripe_shift < STRIPE_SHIFT_MIN || d->stripe_shift > STRIPE_SHIFT_MAX) return "stripe";
  return shard ? "shard" : NULL;
}

static const char *wrong_shape(const struct disk_volume *d) {
  if (d->flags & ~(FLAG_SEALED | FLAG_NO_SUMS | FLAG_LIVE_SUMS)) return "flags";
  if (d->flags & FLAG_NO_SUMS && d->flags & FLAG_LIVE_SUMS) return "flags";
  if (!is_zero(d->reserved, sizeof d->reserved)) return "reserved bytes";
  if (d->block_shift != 9 && d->block_shift != BLOCK_SHIFT) return "block size";
  if (!d->size_bytes || d->size_bytes > VOLUME_SIZE_MAX ||
      !is_aligned(d->size_bytes, UINT64_C(1) << d->block_shift))
    return "size";
  return d->group_bytes > VOLUME_GROUP_MAX ? "group" : NULL;
}

static bool names_in(const struct disk_volume *d, const char *text, struct volume_record *r) {
  memcpy(r->name, text, d->name_bytes);
  memcpy(r->group, text + d->name_bytes, d->group_bytes);
  if (memchr(r->name, 0, d->name_bytes) || memchr(r->group, 0, d->group_bytes)) return false;
  if (d->name_bytes ? volume_name_check(r->name, VOLUME_NAME_MAX) != 0 : !r->sealed) return false;
  return !d->group_bytes || !volume_name_check(r->group, VOLUME_GROUP_MAX);
}

int volume_record_decode(const void *data, uint32_t bytes, uint64_t id, uint32_t shard,
                         uint32_t shard_count, struct volume_record *r, const char **why) {
  struct disk_volume d;
  memset(r, 0, sizeof *r);
  *why = "bytes";
  if (bytes < sizeof d) return -EBADMSG;
  memcpy(&d, data, sizeof d);
  if (bytes != sizeof d + d.name_bytes + d.group_bytes) return -EBADMSG;
  *why = "version";
  if (d.version != RECORD_VERSION) return -EBADMSG;
  *why = wrong_place(&d, id, shard, shard_count);
  if (!*why) *why = wrong_shape(&d);
  if (*why) return -EBADMSG;
  r->id = id;
  r->layer = d.layer;
  r->parent = d.parent;
  r->size_bytes = d.size_bytes;
  r->shard = d.shard;
  r->block_shift = d.block_shift;
  r->stripe_shift = d.stripe_shift;
  r->sealed = d.flags & FLAG_SEALED;
  r->no_sums = d.flags & FLAG_NO_SUMS;
  r->live_sums = d.flags & FLAG_LIVE_SUMS;
  *why = "limits";
  if (!limits_in(&d.limits, &r->limits)) return -EBADMSG;
  *why = "name";
  return names_in(&d, (const char *)data + sizeof d, r) ? 0 : -EBADMSG;
}
