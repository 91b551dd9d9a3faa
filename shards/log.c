/* log.c - frames and entries, to bytes and back. No state; see log.h. */
#include "shards/log.h"

#include <errno.h>
#include <string.h>

#include "shards/base/crc32c.h"

/* ---- Entries ----------------------------------------------------------------------------- */

#define GRANULE_SHIFT_MAX 26 /* what the index holds: enough for 1 TiB and more */

struct disk_entry {
  uint8_t type, flags, granule_shift, reserved;
  uint32_t value; /* small: checksum; put: bytes of the entry; delete: 0 */
  uint64_t id_hi, id_lo;
};
_Static_assert(sizeof(struct disk_entry) == 24, "on disk");

struct disk_small { /* after a disk_entry */
  uint64_t place;   /* block << 13 | bytes */
};
#define SMALL_BLOCK_MAX (UINT64_C(1) << 51)

struct disk_put {
  uint64_t bytes;
  uint32_t extent_count, granule_count;
};
_Static_assert(sizeof(struct disk_put) == 16 && sizeof(struct extent) == 16, "on disk");

static bool is_small(const struct blob *b) {
  return b->extent_count == 1 && b->extents[0].blocks == 1 && b->bytes > 0 &&
         b->bytes <= BLOCK_BYTES && b->granule_count <= 1 && b->extents[0].block < SMALL_BLOCK_MAX;
}

uint32_t log_entry_put(void *buf, const struct blob *b) {
  struct disk_entry *d = buf;
  *d = (struct disk_entry){.type = ENTRY_PUT,
                           .flags = b->flags,
                           .granule_shift = b->granule_shift,
                           .id_hi = b->id.hi,
                           .id_lo = b->id.lo};
  char *at = (char *)(d + 1);
  if (is_small(b)) {
    struct disk_small small = {b->extents[0].block << 13 | b->bytes};
    d->type = ENTRY_PUT_SMALL;
    d->value = b->granule_count ? b->checksums[0] : 0;
    memcpy(at, &small, sizeof small);
    return ENTRY_SMALL_BYTES;
  }
  struct disk_put put = {b->bytes, b->extent_count, b->granule_count};
  memcpy(at, &put, sizeof put);
  at += sizeof put;
  if (b->extent_count) memcpy(at, b->extents, b->extent_count * sizeof(struct extent));
  at += b->extent_count * sizeof(struct extent);
  if (b->granule_count) memcpy(at, b->checksums, b->granule_count * 4u);
  at += b->granule_count * 4u;
  uint32_t bytes = (uint32_t)(at - (char *)buf), whole = (uint32_t)round_up(bytes, 8);
  memset(at, 0, whole - bytes);
  d->value = whole;
  return whole;
}

uint32_t log_entry_delete(void *buf, struct blob_id id) {
  struct disk_entry *d = buf;
  *d = (struct disk_entry){.type = ENTRY_DELETE, .id_hi = id.hi, .id_lo = id.lo};
  return sizeof *d;
}

/* ---- Of volumes -------------------------------------------------------------------------- */

struct disk_map { /* clusters follow */
  uint8_t type, flags;
  uint16_t reserved;
  uint32_t leaf;
  uint64_t layer, which;
};
_Static_assert(sizeof(struct disk_map) == 24, "on disk");
#define MAP_WHOLE 1u

struct disk_move { /* clusters follow */
  uint8_t type, flags;
  uint16_t reserved;
  uint32_t leaf;
  uint64_t from, to, which_from, which_to;
};
_Static_assert(sizeof(struct disk_move) == 40, "on disk");

struct disk_record { /* data follow */
  uint8_t type, flags;
  uint16_t bytes;
  uint32_t reserved;
  uint64_t key_hi, key_lo;
};
_Static_assert(sizeof(struct disk_record) == 24, "on disk");

struct disk_sums { /* sums follow, as many as bits are set, padded to 8 bytes */
  uint8_t type, flags;
  uint16_t reserved;
  uint32_t leaf;
  uint64_t layer;
  uint64_t has[SUMS_WORDS];
};
_Static_assert(sizeof(struct disk_sums) == 144, "on disk");

static uint32_t count_bits(uint64_t bits) { return (uint32_t)__builtin_popcountll(bits); }

static void put_clusters(void *buf, uint64_t which, const struct cluster clusters[LEAF_CLUSTERS]) {
  char *at = buf;
  for (; which; which &= which - 1, at += sizeof(struct cluster)) {
    struct cluster c = clusters[__builtin_ctzll(which)];
    if (!c.valid) c.place = 0;
    memcpy(at, &c, sizeof c);
  }
}

uint32_t log_entry_map(void *buf, uint64_t layer, uint64_t leaf, bool whole, uint64_t which,
                       const struct cluster clusters[LEAF_CLUSTERS]) {
  struct disk_map *d = buf;
  check(layer && leaf < MAP_LEAVES_MAX);
  *d = (struct disk_map){.type = ENTRY_MAP,
                         .flags = whole ? MAP_WHOLE : 0,
                         .leaf = (uint32_t)leaf,
                         .layer = layer,
                         .which = which};
  put_clusters(d + 1, which, clusters);
  return entry_map_bytes(count_bits(which));
}

uint32_t log_entry_move(void *buf, uint64_t from, uint64_t which_from, uint64_t to,
                        uint64_t which_to, uint64_t leaf,
                        const struct cluster clusters[LEAF_CLUSTERS]) {
  struct disk_move *d = buf;
  check(from && to && from != to && leaf < MAP_LEAVES_MAX);
  *d = (struct disk_move){.type = ENTRY_MOVE,
                          .leaf = (uint32_t)leaf,
                          .from = from,
                          .to = to,
                          .which_from = which_from,
                          .which_to = which_to};
  put_clusters(d + 1, which_to, clusters);
  return entry_move_bytes(count_bits(which_to));
}

uint32_t log_entry_record(void *buf, struct blob_id key, const void *data, uint32_t bytes) {
  struct disk_record *d = buf;
  uint32_t whole = entry_record_bytes(bytes);
  check(bytes <= RECORD_BYTES_MAX);
  *d = (struct disk_record){
      .type = ENTRY_RECORD, .bytes = (uint16_t)bytes, .key_hi = key.hi, .key_lo = key.lo};
  if (bytes) memcpy(d + 1, data, bytes);
  memset((char *)(d + 1) + bytes, 0, whole - sizeof *d - bytes);
  return whole;
}

uint32_t log_entry_sums(void *buf, uint64_t layer, uint64_t leaf, const struct leaf_sums *sums) {
  struct disk_sums *d = buf;
  check(layer && leaf < MAP_LEAVES_MAX);
  *d = (struct disk_sums){.type = ENTRY_SUMS, .leaf = (uint32_t)leaf, .layer = layer};
  memcpy(d->has, sums->has, sizeof d->has);
  uint32_t *to = (uint32_t *)(d + 1);
  for (uint32_t i = 0; i < SUMS_WORDS; i++)
    for (uint64_t bits = sums->has[i]; bits; bits &= bits - 1)
      *to++ = sums->sum[i * 64 + (uint32_t)__builtin_ctzll(bits)];
  if ((to - (uint32_t *)(d + 1)) % 2) *to++ = 0;
  return (uint32_t)((char *)to - (char *)buf);
}

void log_unpack_sums(const struct sums_entry *e, struct leaf_sums *to) {
  const uint32_t *from = e->sums;
  memcpy(to->has, e->has, sizeof to->has);
  for (uint32_t i = 0; i < SUMS_WORDS; i++)
    for (uint64_t bits = to->has[i]; bits; bits &= bits - 1)
      to->sum[i * 64 + (uint32_t)__builtin_ctzll(bits)] = *from++;
}

/* One pass without branches: a checkpoint has millions of them. */
static bool clusters_fit(const struct cluster *c, uint32_t count, uint64_t region_blocks) {
  uint32_t bad = 0, last = 0;
  for (uint32_t i = 0; i < count; i++) {
    bad |= (uint32_t)(c[i].valid & c[i].zero) | ((c[i].place != 0) ^ (c[i].valid != 0));
    last = c[i].place > last ? c[i].place : last;
  }
  return !bad &&
         (last == 0 || (uint64_t)last + CLUSTER_BLOCKS <= min_u64(region_blocks, MAP_PLACES_MAX));
}

static uint32_t decode_map(struct map_entry *e, const struct disk_map *d, uint64_t left,
                           uint64_t region_blocks, const char **why) {
  uint32_t count = count_bits(d->which), bytes = entry_map_bytes(count);
  if (left < bytes) return *why = "entry is cut off", 0;
  *e = (struct map_entry){.layer = d->layer,
                          .which = d->which,
                          .leaf = d->leaf,
                          .whole = d->flags,
                          .clusters = (const struct cluster *)(d + 1)};
  if (d->flags & ~MAP_WHOLE || d->reserved) return *why = "unknown flags", 0;
  if (!d->layer || d->leaf >= MAP_LEAVES_MAX) return *why = "impossible layer or leaf", 0;
  if (!d->which && !e->whole) return *why = "changes nothing", 0;
  if (!clusters_fit(e->clusters, count, region_blocks)) return *why = "impossible cluster", 0;
  return bytes;
}

static uint32_t decode_move(struct map_entry *e, const struct disk_move *d, uint64_t left,
                            uint64_t region_blocks, const char **why) {
  if (left < sizeof *d) return *why = "entry is cut off", 0;
  uint32_t count = count_bits(d->which_to), bytes = entry_move_bytes(count);
  if (left < bytes) return *why = "entry is cut off", 0;
  *e = (struct map_entry){.layer = d->to,
                          .which = d->which_to,
                          .from = d->from,
                          .which_from = d->which_from,
                          .leaf = d->leaf,
                          .clusters = (const struct cluster *)(d + 1)};
  if (d->flags || d->reserved) return *why = "unknown flags", 0;
  if (!d->from || !d->to || d->from == d->to || d->leaf >= MAP_LEAVES_MAX)
    return *why = "impossible layer or leaf", 0;
  if (!d->which_from && !d->which_to) return *why = "changes nothing", 0;
  if (!clusters_fit(e->clusters, count, region_blocks)) return *why = "impossible cluster", 0;
  return bytes;
}

static uint32_t decode_record(struct record_entry *e, const struct disk_record *d, uint64_t left,
                              const char **why) {
  uint32_t bytes = entry_record_bytes(d->bytes);
  if (left < bytes) return *why = "entry is cut off", 0;
  *e = (struct record_entry){.key = {d->key_hi, d->key_lo}, .bytes = d->bytes, .data = d + 1};
  if (d->flags || d->reserved) return *why = "unknown flags", 0;
  if (d->bytes > RECORD_BYTES_MAX) return *why = "impossible size", 0;
  const char *data = e->data;
  for (uint32_t i = d->bytes; i < bytes - sizeof *d; i++)
    if (data[i]) return *why = "bytes behind the record are not zero", 0;
  return bytes;
}

static uint32_t decode_sums(struct sums_entry *e, const struct disk_sums *d, uint64_t left,
                            const char **why) {
  if (left < sizeof *d) return *why = "entry is cut off", 0;
  uint32_t count = sums_count(d->has), bytes = entry_sums_bytes(count);
  if (left < bytes) return *why = "entry is cut off", 0;
  *e = (struct sums_entry){
      .layer = d->layer, .leaf = d->leaf, .has = d->has, .sums = (const uint32_t *)(d + 1)};
  if (d->flags || d->reserved) return *why = "unknown flags", 0;
  if (!d->layer || d->leaf >= MAP_LEAVES_MAX) return *why = "impossible layer or leaf", 0;
  if (count % 2 && e->sums[count]) return *why = "bytes behind the checksums are not zero", 0;
  return bytes;
}

/* What the header says, before it is checked. */
static uint32_t peek_bytes(const void *buf, uint64_t left) {
  const struct disk_entry *d = buf;
  const struct disk_map *map = buf;
  const struct disk_move *move = buf;
  const struct disk_record *record = buf;
  const struct disk_sums *sums = buf;
  switch (d->type) {
  case ENTRY_PUT_SMALL:
    return ENTRY_SMALL_BYTES;
  case ENTRY_DELETE:
    return (uint32_t)sizeof *d;
  case ENTRY_MAP:
    return entry_map_bytes(count_bits(map->which));
  case ENTRY_MOVE:
    return left < sizeof *move ? 0 : entry_move_bytes(count_bits(move->which_to));
  case ENTRY_RECORD:
    return entry_record_bytes(record->bytes);
  case ENTRY_SUMS:
    return left < sizeof *sums ? 0 : entry_sums_bytes(sums_count(sums->has));
  default:
    return d->value;
  }
}

/* ---- Reading ----------------------------------------------------------------------------- */

bool log_entry_peek(const void *buf, uint64_t left, struct blob_id *id, uint32_t *bytes) {
  const struct disk_entry *d = buf;
  if (left < sizeof *d) return false;
  *id = (struct blob_id){d->id_hi, d->id_lo};
  *bytes = peek_bytes(buf, left);
  /* The next one is looked at before this one is checked, so it must at least be aligned. */
  return *bytes >= sizeof *d && *bytes % 8 == 0;
}

static bool extents_fit(const struct blob *b, uint64_t region_blocks) {
  uint64_t blocks = 0;
  for (uint32_t i = 0; i < b->extent_count; i++) {
    const struct extent *e = &b->extents[i];
    if (!e->blocks || e->block >= region_blocks || e->blocks > region_blocks - e->block)
      return false;
    blocks += e->blocks;
  }
  return blocks >= bytes_to_blocks(b->bytes);
}

static uint32_t decode_small(struct blob *b, const struct disk_entry *d, uint64_t left,
                             const char **why) {
  struct disk_small small;
  if (left < ENTRY_SMALL_BYTES) return *why = "entry is cut off", 0;
  memcpy(&small, d + 1, sizeof small);
  b->bytes = small.place & 8191;
  b->inline_extent = (struct extent){small.place >> 13, 1};
  b->inline_checksum = d->value;
  b->extent_count = 1;
  b->extents = &b->inline_extent;
  b->checksums = &b->inline_checksum;
  b->granule_count = b->flags & BLOB_NO_CHECKSUM ? 0 : 1;
  if (b->bytes == 0 || b->bytes > BLOCK_BYTES) return *why = "impossible size", 0;
  if (!b->granule_count && d->value) return *why = "a checksum where there is none", 0;
  return ENTRY_SMALL_BYTES;
}

static uint32_t decode_put(struct blob *b, const struct disk_entry *d, uint64_t left,
                           const char **why) {
  struct disk_put put;
  if (left < sizeof *d + sizeof put) return *why = "entry is cut off", 0;
  memcpy(&put, d + 1, sizeof put);
  if (put.extent_count > BLOB_EXTENTS_MAX || put.granule_count > BLOB_GRANULES_MAX)
    return *why = "too many extents or checksums", 0;
  uint64_t bytes = round_up(sizeof *d + sizeof put + put.extent_count * sizeof(struct extent) +
                                put.granule_count * UINT64_C(4),
                            8);
  if (bytes != d->value || bytes > left) return *why = "entry is cut off", 0;
  b->bytes = put.bytes;
  b->extent_count = put.extent_count;
  b->granule_count = put.granule_count;
  const char *at = (const char *)(d + 1) + sizeof put;
  b->extents = (const struct extent *)at;
  b->checksums = (const uint32_t *)(at + put.extent_count * sizeof(struct extent));
  if (put.bytes > UINT64_C(1) << 40 || (put.bytes == 0 && put.extent_count))
    return *why = "impossible size", 0;
  bool none = b->flags & BLOB_NO_CHECKSUM || !put.bytes;
  uint64_t want = none ? 0 : div_up(put.bytes, UINT64_C(1) << b->granule_shift);
  if (put.granule_count != want) return *why = "checksums do not fit the size", 0;
  if (put.granule_count % 2 && b->checksums[put.granule_count])
    return *why = "bytes behind the checksums are not zero", 0;
  return (uint32_t)bytes;
}

uint32_t log_entry_decode(struct entry *e, const void *buf, uint64_t left, uint64_t region_blocks,
                          const char **why) {
  const struct disk_entry *d = buf;
  if (left < sizeof *d) return *why = "entry is cut off", 0;
  struct blob *b = &e->blob;
  e->type = d->type;
  if (d->type == ENTRY_MAP) return decode_map(&e->map, buf, left, region_blocks, why);
  if (d->type == ENTRY_MOVE) return decode_move(&e->map, buf, left, region_blocks, why);
  if (d->type == ENTRY_RECORD) return decode_record(&e->record, buf, left, why);
  if (d->type == ENTRY_SUMS) return decode_sums(&e->sums, buf, left, why);
  b->id = (struct blob_id){d->id_hi, d->id_lo};
  b->flags = d->flags;
  b->granule_shift = d->granule_shift;
  if (d->reserved || d->flags & ~BLOB_NO_CHECKSUM) return *why = "unknown flags", 0;
  if (d->type == ENTRY_DELETE)
    return d->value || d->flags || d->granule_shift ? (*why = "unknown flags", 0) : sizeof *d;
  if (d->granule_shift < BLOCK_SHIFT || d->granule_shift > GRANULE_SHIFT_MAX)
    return *why = "impossible granule size", 0;
  uint32_t bytes = 0;
  if (d->type == ENTRY_PUT_SMALL)
    bytes = decode_small(b, d, left, why);
  else if (d->type == ENTRY_PUT)
    bytes = decode_put(b, d, left, why);
  else
    *why = "unknown type";
  if (bytes && !extents_fit(b, region_blocks)) return *why = "extents out of range", 0;
  return bytes;
}

/* ---- Frames ------------------------------------------------------------------------------ */

struct disk_frame {
  uint32_t magic;
  uint32_t checksum; /* of the frame's blocks, this field 0 */
  uint64_t store, position, sequence, epoch, incarnation, durable;
  uint32_t chain, payload_bytes, entry_count;
  uint16_t shard, flags;
};
_Static_assert(sizeof(struct disk_frame) == FRAME_HEADER_BYTES, "on disk");
#define FRAME_MAGIC 0x4d524653u /* "SFRM" */

uint64_t log_store_key(const uint8_t uuid[16]) {
  uint64_t half[2];
  memcpy(half, uuid, sizeof half);
  return half[0] ^ half[1];
}

static uint32_t frame_checksum(const struct disk_frame *d) {
  struct disk_frame head = *d;
  head.checksum = 0;
  uint32_t crc = crc32c(0, &head, sizeof head);
  uint64_t bytes = frame_blocks(d->payload_bytes) << BLOCK_SHIFT;
  return crc32c(crc, d + 1, bytes - sizeof head);
}

void frame_encode(struct frame *f, void *buf) {
  struct disk_frame *d = buf;
  uint64_t bytes = frame_blocks(f->payload_bytes) << BLOCK_SHIFT;
  check(bytes <= FRAME_BYTES_MAX);
  memset((char *)buf + FRAME_HEADER_BYTES + f->payload_bytes,
         f->flags & FRAME_COMMIT ? COMMIT_FILL : 0, bytes - FRAME_HEADER_BYTES - f->payload_bytes);
  *d = (struct disk_frame){.magic = FRAME_MAGIC,
                           .store = f->store,
                           .position = f->position,
                           .sequence = f->sequence,
                           .epoch = f->epoch,
                           .incarnation = f->incarnation,
                           .durable = f->durable,
                           .chain = f->chain,
                           .payload_bytes = f->payload_bytes,
                           .entry_count = f->entry_count,
                           .shard = (uint16_t)f->shard,
                           .flags = f->flags};
  f->checksum = d->checksum = frame_checksum(d);
}

int frame_decode_header(struct frame *f, const void *buf, const char **why) {
  const struct disk_frame *d = buf;
  if (d->magic != FRAME_MAGIC) return *why = "no frame here", -EBADMSG;
  bool empty = d->flags & (FRAME_COMMIT | FRAME_SKIP);
  if (d->payload_bytes > FRAME_BYTES_MAX - FRAME_HEADER_BYTES || d->payload_bytes % 8 ||
      d->flags & ~(FRAME_COMMIT | FRAME_SKIP | FRAME_VERIFIABLE) ||
      (empty && (d->payload_bytes || d->entry_count || d->flags & FRAME_VERIFIABLE)) ||
      d->durable > d->position || (d->flags & FRAME_COMMIT && d->durable != d->position))
    return *why = "impossible frame header", -EBADMSG;
  *f = (struct frame){.store = d->store,
                      .shard = d->shard,
                      .incarnation = d->incarnation,
                      .durable = d->durable,
                      .epoch = d->epoch,
                      .position = d->position,
                      .sequence = d->sequence,
                      .chain = d->chain,
                      .payload_bytes = d->payload_bytes,
                      .entry_count = d->entry_count,
                      .flags = d->flags,
                      .checksum = d->checksum};
  return 0;
}

bool frame_checksum_matches(const void *buf, uint64_t blocks) {
  const struct disk_frame *d = buf;
  return frame_blocks(d->payload_bytes) == blocks && d->checksum == frame_checksum(d);
}

/* The checksum is linear: a wrong bit changes it by what depends on the bit's place alone. From the
 * last bit to the first, that value goes through one step of the division each time. */
bool frame_correct_bit(void *buf) {
  struct disk_frame *d = buf;
  uint8_t *bytes = buf;
  struct disk_frame head = *d;
  head.checksum = 0;
  uint32_t crc = crc32c(0, &head, sizeof head);
  crc = crc32c(crc, d + 1, BLOCK_BYTES - sizeof head);
  uint32_t wrong = crc ^ d->checksum;
  if (wrong == 0) return false;
  if ((wrong & (wrong - 1)) == 0) {
    d->checksum = crc;
    return true;
  }
  const uint32_t polynomial = 0x82f63b78;
  uint32_t effect = polynomial;
  for (uint32_t bit = 8 * BLOCK_BYTES; bit-- > 0;) {
    uint32_t byte = bit / 8;
    bool field = byte >= offsetof(struct disk_frame, checksum) &&
                 byte < offsetof(struct disk_frame, checksum) + sizeof d->checksum;
    if (effect == wrong && !field) {
      bytes[byte] ^= (uint8_t)(1u << bit % 8);
      return true;
    }
    effect = effect >> 1 ^ (effect & 1 ? polynomial : 0);
  }
  return false;
}
