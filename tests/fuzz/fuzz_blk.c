/* fuzz_blk.c - requests of virtio-blk in any pieces: what is accepted lies inside of the disk and
 * of its own pieces, and is what a plain reading of the same bytes says.
 *
 * Input: the disk (flags 1 byte, size 5), how many pieces are for the device to read and to write
 * (2 bytes), their lengths (1 each), then what is in those that are read. */
#include <errno.h>
#include <stdlib.h>

#include "api/vhost/blk.h"
#include "tests/fuzz/fuzz.h"

#define PIECES_MAX 12u

struct layout {
  struct iovec iov[2 * PIECES_MAX], as_given[2 * PIECES_MAX];
  struct ring_chain chain;
  uint8_t out[PIECES_MAX * 255];
};

static size_t feed_size(struct feed *f) {
  uint8_t v = feed_u8(f);
  return v < 64 ? v + 1u : v < 192 ? 16u * (v - 63u) : 512; /* a piece has at least one byte */
}

static void lay_out(struct layout *l, struct feed *f) {
  struct ring_chain *c = &l->chain;
  c->iov = l->iov;
  c->room = array_size(l->iov);
  c->out_count = feed_u8(f) % (PIECES_MAX + 1);
  c->in_count = feed_u8(f) % (PIECES_MAX + 1);
  for (uint32_t i = 0; i < c->out_count + c->in_count; i++) {
    size_t bytes = feed_size(f);
    l->iov[i] = (struct iovec){fuzz_alloc(bytes), bytes};
    *(i < c->out_count ? &c->out_bytes : &c->in_bytes) += bytes;
  }
  size_t at = 0;
  for (uint32_t i = 0; i < c->out_count + c->in_count; i++) {
    memset(l->iov[i].iov_base, 0x77, l->iov[i].iov_len);
    if (i >= c->out_count) continue;
    feed_bytes(f, l->iov[i].iov_base, l->iov[i].iov_len);
    size_t n = min_u64(l->iov[i].iov_len, sizeof(l->out) - at);
    memcpy(l->out + at, l->iov[i].iov_base, n);
    at += n;
  }
  memcpy(l->as_given, l->iov, sizeof(l->iov));
}

/* ---- A second opinion ------------------------------------------------------------------------ */

static uint64_t number(const uint8_t *at, size_t bytes) {
  uint64_t v = 0;
  memcpy(&v, at, bytes);
  return v;
}

static enum blk_status range_status(const struct blk_disk *d, __uint128_t sector, uint64_t bytes) {
  __uint128_t end = sector * 512 + bytes;
  if (!bytes || end > d->size_bytes) return BLK_IOERR;
  return end % d->block_bytes || bytes % d->block_bytes ? BLK_IOERR : BLK_OK;
}

static enum blk_status status_of(const struct blk_disk *d, const struct ring_chain *c,
                                 const uint8_t *out) {
  if (!c->in_bytes || c->out_bytes < 16) return BLK_IOERR;
  uint64_t type = number(out, 4), sector = number(out + 8, 8), flags = number(out + 28, 4);
  bool writes = type == 1 || type == 11 || type == 13;
  if (d->read_only && writes) return BLK_IOERR;
  if (type == 0) return range_status(d, sector, c->in_bytes - 1);
  if (type == 1) return range_status(d, sector, c->out_bytes - 16);
  if (type == 4 || type == 8) return BLK_OK;
  if (!writes) return BLK_UNSUPPORTED;
  if (c->out_bytes != 32) return c->out_bytes < 32 ? BLK_IOERR : BLK_UNSUPPORTED;
  if (flags > (type == 13)) return BLK_UNSUPPORTED;
  uint64_t bytes = number(out + 24, 4) * 512;
  if (bytes > UINT64_C(1) << 31) return BLK_IOERR;
  return range_status(d, number(out + 16, 8), bytes);
}

/* ---- What came of it ------------------------------------------------------------------------- */

/* The data's pieces are what was given from byte `from` on, in their order. */
static void check_data(const struct layout *l, const struct blk_request *q, bool in,
                       uint64_t from) {
  const struct iovec *given = l->as_given + (in ? l->chain.out_count : 0);
  uint64_t sum = 0;
  for (uint32_t i = 0; i < q->data_count; i++) {
    while (from >= given->iov_len) {
      from -= given->iov_len;
      given++;
    }
    check((char *)q->data[i].iov_base == (char *)given->iov_base + from);
    check(q->data[i].iov_len > 0 && q->data[i].iov_len <= given->iov_len - from);
    if (i + 1 < q->data_count) check(q->data[i].iov_len == given->iov_len - from);
    sum += q->data[i].iov_len;
    from = 0;
    given++;
  }
  check(sum == q->bytes);
}

static void check_id(const struct blk_disk *d, const struct layout *l,
                     const struct blk_request *q) {
  uint64_t at = 0, serial = strlen(d->serial);
  check(q->bytes == min_u64(l->chain.in_bytes - 1, 20) && q->used_bytes == q->bytes + 1);
  check_data(l, q, true, 0);
  blk_put_id(d, q);
  const struct iovec *given = l->as_given + l->chain.out_count;
  for (uint32_t i = 0; i < l->chain.in_count; i++)
    for (size_t k = 0; k < given[i].iov_len; k++, at++)
      check(((char *)given[i].iov_base)[k] == (at < serial     ? d->serial[at]
                                               : at < q->bytes ? 0
                                                               : 0x77) ||
            (at >= q->bytes && ((char *)given[i].iov_base)[k] == 0x77));
}

static void check_request(const struct blk_disk *d, const struct layout *l,
                          const struct blk_request *q) {
  bool range = q->kind == BLK_DISCARD || q->kind == BLK_WRITE_ZEROES;
  if (q->kind == BLK_READ) check_data(l, q, true, 0);
  if (q->kind == BLK_WRITE) check_data(l, q, false, 16);
  if (q->kind == BLK_GET_ID) check_id(d, l, q);
  if (q->kind == BLK_FLUSH || range) check(q->data_count == 0);
  if (q->kind == BLK_READ)
    check(q->used_bytes == q->bytes + 1);
  else if (q->kind != BLK_GET_ID)
    check(q->used_bytes == 1);
  if (q->kind != BLK_WRITE_ZEROES) check(!q->unmap);
  if (q->kind == BLK_FLUSH || q->kind == BLK_GET_ID) return;
  check(q->bytes > 0 && q->bytes <= d->size_bytes && q->offset <= d->size_bytes - q->bytes);
  check(q->offset % d->block_bytes == 0 && q->bytes % d->block_bytes == 0);
  check(!d->read_only || q->kind == BLK_READ);
}

static void check_config(const struct blk_disk *d, bool flush) {
  uint8_t *config = fuzz_alloc(BLK_CONFIG_BYTES);
  blk_config(d, config);
  check(number(config, 8) == d->size_bytes / 512);
  uint64_t pieces = number(config + 12, 4), block = number(config + 20, 4);
  check(pieces >= 1 && pieces <= BLK_SEGMENTS_MAX && block == d->block_bytes);
  check(block << config[24] == 4096 && config[BLK_CONFIG_WRITEBACK] == d->writeback);
  uint64_t features = blk_features(d, flush);
  check((features >> BLK_F_RO & 1) == d->read_only);
  check((features >> BLK_F_DISCARD & 1) == !d->read_only);
  check((features >> BLK_F_FLUSH & 1) == flush);
  free(config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  static struct layout l;
  memset(&l, 0, sizeof(l));
  uint8_t flags = feed_u8(&f);
  struct blk_disk d = {.size_bytes = feed_number(&f, 5) << (flags & 8 ? 9 : 0),
                       .block_bytes = flags & 1 ? 4096 : 512,
                       .align_bytes = flags & 1 ? 4096 : 512,
                       .read_only = flags & 2,
                       .writeback = flags & 4 ? 1 : 0,
                       .queues = 1,
                       .queue_size_max = (uint16_t)(1u << (flags >> 4))};
  if (flags & 16) d.size_bytes = ~d.size_bytes; /* as large as can be */
  memcpy(d.serial, "serial of 20 bytes:)", flags & 32 ? 20 : flags & 7);
  lay_out(&l, &f);
  struct blk_request q;
  struct ring_chain before = l.chain;
  uint8_t *status = l.chain.in_bytes ? blk_status_of(&l.chain) : NULL;
  enum blk_status result = blk_parse(&d, &l.chain, &q);
  check(result == status_of(&d, &before, l.out));
  check(q.status == status);
  if (status) {
    const struct iovec *last = &l.as_given[before.out_count + before.in_count - 1];
    check(status == (uint8_t *)last->iov_base + last->iov_len - 1);
  }
  if (result == BLK_OK) check_request(&d, &l, &q);
  if (status) *status = (uint8_t)result;
  check_config(&d, flags & 64);
  for (uint32_t i = 0; i < before.out_count + before.in_count; i++) free(l.as_given[i].iov_base);
  return 0;
}
