/* fuzz_volume_record.c - volume_record_decode(), limits_record_decode(): whatever is accepted is in
 * range and encodes to the same bytes.
 *
 * Input: kind (1 byte: a volume's, a group's, the store's), the volume's id (8), shard (2), number
 * of shards (2), then the record. */
#include <errno.h>
#include <stdlib.h>

#include "runtime/volume_record.h"
#include "tests/fuzz/fuzz.h"

/* As shardring.h says it: a second opinion. */
static void check_bucket(const struct bucket_params *b) {
  if (!b->size) {
    check(!b->one_time_burst && !b->refill_time_ms);
    return;
  }
  check(b->refill_time_ms > 0 && b->refill_time_ms <= LIMIT_REFILL_MS_MAX);
  check(b->size <= LIMIT_SIZE_MAX && b->one_time_burst <= LIMIT_SIZE_MAX);
}
static void check_limits(const struct limit_params *l) {
  check_bucket(&l->bytes);
  check_bucket(&l->ops);
}

static void check_text(const char *text, size_t max) {
  size_t n = strnlen(text, max + 1);
  check(n <= max);
  check(text[0] != '#');
  for (size_t i = 0; i < n; i++) check((unsigned char)text[i] >= 0x20 && text[i] != '/');
}

static void check_volume(const struct volume_record *r, uint64_t id, uint32_t shard,
                         uint32_t shards) {
  check(r->id == id && id != 0 && r->layer != 0 && r->parent != id);
  check(r->shard == shard && shard < shards);
  check(r->block_shift == 9 || r->block_shift == 12);
  check(r->size_bytes > 0 && r->size_bytes <= VOLUME_SIZE_MAX);
  check(r->size_bytes % (UINT64_C(1) << r->block_shift) == 0);
  if (r->stripe_shift) check(r->stripe_shift >= 16 && r->stripe_shift <= 30 && shard == 0);
  check(r->name[0] || r->sealed);
  check_text(r->name, VOLUME_NAME_MAX);
  check_text(r->group, VOLUME_GROUP_MAX);
  check_limits(&r->limits);
}

static void try_volume(const char *data, uint32_t bytes, uint64_t id, uint32_t shard,
                       uint32_t shards) {
  struct volume_record r;
  char again[VOLUME_RECORD_MAX];
  const char *why = NULL;
  int e = volume_record_decode(data, bytes, id, shard, shards, &r, &why);
  check(e == 0 || (e == -EBADMSG && why && why[0]));
  if (e) return;
  check_volume(&r, id, shard, shards);
  check(volume_record_encode(&r, again) == bytes);
  check(memcmp(again, data, bytes) == 0);
}

static void try_limits(const char *data, uint32_t bytes, bool of_group) {
  struct limits_record r;
  char again[VOLUME_RECORD_MAX];
  const char *why = NULL;
  int e = limits_record_decode(data, bytes, of_group, &r, &why);
  check(e == 0 || (e == -EBADMSG && why && why[0]));
  if (e) return;
  check((r.group[0] != 0) == of_group);
  check_text(r.group, VOLUME_GROUP_MAX);
  check_limits(&r.limits);
  check(limits_record_encode(&r, again) == bytes);
  check(memcmp(again, data, bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  uint8_t kind = feed_u8(&f) % 3;
  uint64_t id = feed_number(&f, 8);
  uint32_t shard = feed_u16(&f), shards = feed_u16(&f);
  uint32_t bytes = (uint32_t)min_u64(f.left, RECORD_BYTES_MAX);
  char *record = fuzz_alloc(bytes); /* exactly so long */
  if (bytes) memcpy(record, f.at, bytes);
  if (kind == 0)
    try_volume(record, bytes, id, shard, shards);
  else
    try_limits(record, bytes, kind == 1);
  free(record);
  return 0;
}
