/* blk.c - see blk.h. */
#include "api/vhost/blk.h"

#include <errno.h>

/* As they lie in memory, little endian. */
struct blk_header {
  uint32_t type, reserved;
  uint64_t sector;
};
struct blk_segment { /* of discard and write zeroes */
  uint64_t sector;
  uint32_t sectors, flags;
};
enum blk_type {
  TYPE_IN = 0,
  TYPE_OUT = 1,
  TYPE_FLUSH = 4,
  TYPE_GET_ID = 8,
  TYPE_DISCARD = 11,
  TYPE_WRITE_ZEROES = 13,
};
enum { SEGMENT_UNMAP = 1 };

/* ---- Pieces ---------------------------------------------------------------------------------- */

/* Copies `bytes` bytes off the front of a vector that has them, once. */
static void cut_front(struct iovec **iov, uint32_t *count, void *to, size_t bytes) {
  while (bytes > 0) {
    struct iovec *first = *iov;
    size_t n = min_u64(bytes, first->iov_len);
    memory_copy(to, first->iov_base, n);
    to = (char *)to + n;
    bytes -= n;
    first->iov_base = (char *)first->iov_base + n;
    first->iov_len -= n;
    if (first->iov_len) continue;
    (*iov)++;
    (*count)--;
  }
}

/* Leaves the first `bytes` bytes of a vector that has them. */
static uint32_t cut_to(struct iovec *iov, uint64_t bytes) {
  uint32_t n = 0;
  for (; bytes > 0; n++) {
    iov[n].iov_len = min_u64(bytes, iov[n].iov_len);
    bytes -= iov[n].iov_len;
  }
  return n;
}

uint8_t *blk_status_of(const struct ring_chain *c) {
  if (!c->in_count) return NULL;
  const struct iovec *last = &c->iov[c->out_count + c->in_count - 1];
  return (uint8_t *)last->iov_base + last->iov_len - 1;
}

/* ---- Requests -------------------------------------------------------------------------------- */

static enum blk_status set_range(const struct blk_disk *disk, uint64_t sector, uint64_t bytes,
                                 struct blk_request *q) {
  if (sector > UINT64_MAX / BLK_SECTOR_BYTES) return BLK_IOERR;
  q->offset = sector * BLK_SECTOR_BYTES;
  q->bytes = bytes;
  uint64_t size = __atomic_load_n(&disk->size_bytes, __ATOMIC_RELAXED); /* a resize may run */
  if (!bytes || bytes > size || q->offset > size - bytes) return BLK_IOERR;
  return is_aligned(q->offset | bytes, disk->align_bytes) ? BLK_OK : BLK_IOERR;
}

static enum blk_status parse_range(const struct blk_disk *disk, bool write_zeroes,
                                   struct iovec *out, uint32_t out_count, uint64_t out_bytes,
                                   struct blk_request *q) {
  struct blk_segment segment;
  q->kind = write_zeroes ? BLK_WRITE_ZEROES : BLK_DISCARD;
  if (disk->read_only || out_bytes < sizeof(segment)) return BLK_IOERR;
  if (out_bytes > sizeof(segment)) return BLK_UNSUPPORTED;
  cut_front(&out, &out_count, &segment, sizeof(segment));
  if (segment.flags & ~(write_zeroes ? (uint32_t)SEGMENT_UNMAP : 0)) return BLK_UNSUPPORTED;
  uint64_t bytes = (uint64_t)segment.sectors * BLK_SECTOR_BYTES;
  if (bytes > BLK_DISCARD_BYTES_MAX) return BLK_IOERR;
  q->unmap = segment.flags & SEGMENT_UNMAP;
  return set_range(disk, segment.sector, bytes, q);
}

enum blk_status blk_parse(const struct blk_disk *disk, struct ring_chain *c,
                          struct blk_request *q) {
  struct blk_header header;
  struct iovec *out = c->iov, *in = c->iov + c->out_count;
  uint32_t out_count = c->out_count;
  *q = (struct blk_request){.status = blk_status_of(c), .used_bytes = 1};
  if (!q->status || c->out_bytes < sizeof(header)) return BLK_IOERR;
  cut_front(&out, &out_count, &header, sizeof(header));
  uint64_t out_bytes = c->out_bytes - sizeof(header), in_bytes = c->in_bytes - 1;
  switch (header.type) {
  case TYPE_IN:
    q->kind = BLK_READ;
    q->data = in;
    q->data_count = cut_to(in, in_bytes);
    q->used_bytes = (uint32_t)in_bytes + 1;
    return set_range(disk, header.sector, in_bytes, q);
  case TYPE_OUT:
    q->kind = BLK_WRITE;
    q->data = out;
    q->data_count = out_count;
    return disk->read_only ? BLK_IOERR : set_range(disk, header.sector, out_bytes, q);
  case TYPE_FLUSH:
    q->kind = BLK_FLUSH;
    return BLK_OK;
  case TYPE_GET_ID:
    q->kind = BLK_GET_ID;
    q->bytes = min_u64(in_bytes, BLK_SERIAL_BYTES);
    q->data = in;
    q->data_count = cut_to(in, q->bytes);
    q->used_bytes = (uint32_t)q->bytes + 1;
    return BLK_OK;
  case TYPE_DISCARD:
  case TYPE_WRITE_ZEROES:
    return parse_range(disk, header.type == TYPE_WRITE_ZEROES, out, out_count, out_bytes, q);
  default:
    return BLK_UNSUPPORTED;
  }
}

void blk_put_id(const struct blk_disk *disk, const struct blk_request *q) {
  char id[BLK_SERIAL_BYTES] = {0};
  memcpy(id, disk->serial, strnlen(disk->serial, sizeof(id)));
  size_t done = 0;
  for (uint32_t i = 0; i < q->data_count; i++) {
    size_t n = min_u64(q->data[i].iov_len, sizeof(id) - done);
    memcpy(q->data[i].iov_base, id + done, n);
    done += n;
  }
}

/* ---- What the device is ---------------------------------------------------------------------- */

static uint64_t bit(unsigned number) { return UINT64_C(1) << number; }

uint64_t blk_features(const struct blk_disk *disk, bool flush) {
  uint64_t f = bit(VIRTIO_F_VERSION_1) | bit(VHOST_USER_F_PROTOCOL_FEATURES) |
               bit(VIRTIO_F_EVENT_IDX) | bit(VIRTIO_F_INDIRECT_DESC) | bit(VIRTIO_F_RING_PACKED) |
               bit(BLK_F_SIZE_MAX) | bit(BLK_F_SEG_MAX) | bit(BLK_F_BLK_SIZE) | bit(BLK_F_TOPOLOGY);
  if (disk->queues > 1) f |= bit(BLK_F_MQ);
  if (flush) f |= bit(BLK_F_FLUSH) | bit(BLK_F_CONFIG_WCE);
  return f | (disk->read_only ? bit(BLK_F_RO) : bit(BLK_F_DISCARD) | bit(BLK_F_WRITE_ZEROES));
}

void blk_expect_flushes(struct blk_disk *disk) {
  uint8_t unknown = BLK_WRITEBACK_UNKNOWN;
  if (__atomic_load_n(&disk->writeback, __ATOMIC_RELAXED) == unknown)
    __atomic_compare_exchange_n(&disk->writeback, &unknown, BLK_WRITEBACK_ON, false,
                                __ATOMIC_RELAXED, __ATOMIC_RELAXED);
}

static void put(uint8_t *config, size_t at, uint64_t value, size_t bytes) {
  for (size_t i = 0; i < bytes; i++) config[at + i] = (uint8_t)(value >> 8 * i);
}

void blk_config(const struct blk_disk *disk, uint8_t config[BLK_CONFIG_BYTES]) {
  uint32_t logical = disk->block_bytes, physical_shift = 0;
  uint32_t discard_sectors = (uint32_t)(BLK_DISCARD_BYTES_MAX / BLK_SECTOR_BYTES);
  /* A driver without indirect tables needs a descriptor for each piece, and two more. */
  uint32_t pieces = disk->queue_size_max > 3 ? disk->queue_size_max - 2u : 1;
  while (logical << physical_shift < BLOCK_BYTES) physical_shift++;
  memset(config, 0, BLK_CONFIG_BYTES);
  put(config, 0, disk->size_bytes / BLK_SECTOR_BYTES, 8); /* capacity */
  put(config, 8, BLK_SEGMENT_BYTES_MAX, 4);
  put(config, 12, min_u64(pieces, BLK_SEGMENTS_MAX), 4);
  put(config, 20, logical, 4); /* behind the geometry, which nobody has */
  put(config, 24, physical_shift, 1);
  put(config, 26, UINT64_C(1) << physical_shift, 2); /* the least good I/O, in logical blocks */
  bool writeback = __atomic_load_n(&disk->writeback, __ATOMIC_RELAXED) == BLK_WRITEBACK_ON;
  put(config, BLK_CONFIG_WRITEBACK, writeback, 1);
  put(config, 34, disk->queues, 2);
  put(config, 36, discard_sectors, 4);
  put(config, 40, 1, 4);                              /* segments */
  put(config, 44, BLOCK_BYTES / BLK_SECTOR_BYTES, 4); /* alignment, in sectors */
  put(config, 48, discard_sectors, 4);                /* write zeroes */
  put(config, 52, 1, 4);
  put(config, 56, 1, 1); /* may unmap */
}
