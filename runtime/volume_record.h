/* volume_record.h - the records of volumes, and of limits: bytes of a shard's records and back.
 *
 * docs/format.md ("Volume records") is the page of record. Decoders take hostile bytes: every field
 * is checked, and *why names the first one that is wrong. Any thread. */
#ifndef RUNTIME_VOLUME_RECORD_H
#define RUNTIME_VOLUME_RECORD_H

#include "shards/base/base.h"
#include "shards/limit.h"
#include "shards/records.h"

/* The high half of a record's key says what it is; those of other values are not ours. */
#define VOLUME_KEY UINT64_C(0x454d554c4f565253) /* "SRVOLUME"; low half: the volume's id */
#define GROUP_KEY  UINT64_C(0x50554f5247535253) /* "SRSGROUP"; low half: a number, on shard 0 */
#define STORE_KEY  UINT64_C(0x53544d494c535253) /* "SRSLIMTS"; low half 0, on shard 0 */
#define MARK_KEY   UINT64_C(0x4b52414d53535253) /* "SRSSMARK"; never there: see volume_change.h */

#define VOLUME_SIZE_MAX   (UINT64_C(64) << 40)
#define VOLUME_NAME_MAX   255u
#define VOLUME_GROUP_MAX  63u
#define STRIPE_SHIFT_MIN  16u
#define STRIPE_SHIFT_MAX  30u
#define VOLUME_RECORD_MAX (96u + VOLUME_NAME_MAX + VOLUME_GROUP_MAX)

/* All zeros: not limited; else as limit_params_check() says. */
bool volume_limits_valid(const struct limit_params *limits);
bool volume_limits_any(const struct limit_params *limits);

struct volume_record {
  uint64_t id, layer;   /* never 0 */
  uint64_t parent;      /* id of the snapshot that it lies on; 0: none */
  uint64_t size_bytes;  /* whole logical blocks, not 0 */
  uint32_t shard;       /* the first one; has the record */
  uint8_t block_shift;  /* 9 or 12 */
  uint8_t stripe_shift; /* 0: on one shard; else it is striped over all, shard is 0 */
  bool sealed;
  bool live_sums; /* what is written to it gets checksums at once; not with no_sums */
  bool no_sums;   /* its layers get no checksums when they are sealed */
  struct limit_params limits;
  char name[VOLUME_NAME_MAX + 1]; /* "": a removed snapshot that something lies on */
  char group[VOLUME_GROUP_MAX + 1];
};
/* buf: VOLUME_RECORD_MAX bytes. Returns how many it took. */
uint32_t volume_record_encode(const struct volume_record *r, void *buf);
/* Of the record with key {VOLUME_KEY, id} in a shard. -EBADMSG. */
int volume_record_decode(const void *data, uint32_t bytes, uint64_t id, uint32_t shard,
                         uint32_t shard_count, struct volume_record *r, const char **why);

/* The limits of a group, or of the store (no name). */
struct limits_record {
  struct limit_params limits;
  char group[VOLUME_GROUP_MAX + 1];
};
uint32_t limits_record_encode(const struct limits_record *r, void *buf);
int limits_record_decode(const void *data, uint32_t bytes, bool of_group, struct limits_record *r,
                         const char **why);

/* 0; -EINVAL: empty, not UTF-8, with control characters or '/', or begins with '#'; -ENAMETOOLONG.
 */
int volume_name_check(const char *name, size_t bytes_max);

#endif
