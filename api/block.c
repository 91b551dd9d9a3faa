/* block.c - requests to volumes and files: checks, routing, and the blocking calls. A port's own
 * thread. */
#include <errno.h>
#include <sys/uio.h>

#include "api/internal.h"
#include "runtime/split.h"
#include "shards/direct.h"

#define IOV_MAX_COUNT 1024u

static bool sums_up(const struct iovec *iov, uint64_t count, uint64_t bytes) {
  uint64_t sum = 0;
  for (uint64_t i = 0; i < count; i++) {
    if (iov[i].iov_len > UINT32_MAX || (!iov[i].iov_base && iov[i].iov_len)) return false;
    sum += iov[i].iov_len;
  }
  return sum == bytes;
}

static bool well_formed(const struct sr_request *r) {
  bool data = r->op == SR_OP_READ || r->op == SR_OP_WRITE;
  uint32_t known = r->op == SR_OP_READ           ? SR_VECTORED
                   : r->op == SR_OP_WRITE        ? SR_VECTORED | SR_DURABLE | SR_RESERVE
                   : r->op == SR_OP_WRITE_ZEROES ? SR_DURABLE
                                                 : 0u;
  if (!r->block || r->flags & ~known) return false;
  if (!data) return true;
  if (r->flags & SR_VECTORED)
    return !(r->flags & SR_RESERVE) && r->iov_count && r->iov_count <= IOV_MAX_COUNT && r->buf &&
           sums_up(r->buf, r->iov_count, r->bytes);
  return r->buf || !r->bytes || r->flags & SR_RESERVE;
}

int block_fill(const struct sr_request *r, struct shard_op *op, uint32_t *core) {
  if (unlikely(!well_formed(r))) return -EINVAL;
  op->flags = (uint8_t)(r->flags & (SR_DURABLE | SR_RESERVE));
  op->buf = r->buf;
  op->offset = r->op == SR_OP_SYNC ? 0 : r->offset;
  op->bytes = r->op == SR_OP_SYNC ? 0 : r->bytes;
  op->size = 0;
  uint32_t iov_count = r->flags & SR_VECTORED ? (uint32_t)r->iov_count : 0;
  *core = split_route((struct block *)r->block, r->op, iov_count, op);
  return 0;
}

/* ---- Blocking calls ----------------------------------------------------------------------------
 */

static int64_t run(struct sr_port *p, const struct sr_request *r) {
  struct shard_op op = {0};
  uint32_t core;
  int e = port_refused(p);
  if (!e) e = block_fill(r, &op, &core);
  if (!e) e = port_run(port_of(p), core, &op);
  return e ? e : op.result;
}

int64_t sr_block_read(struct sr_port *p, struct sr_block *block, void *buf, uint64_t offset,
                      uint64_t bytes) {
  struct sr_request r = {
      .op = SR_OP_READ, .block = block, .buf = buf, .offset = offset, .bytes = bytes};
  return run(p, &r);
}

int64_t sr_block_write(struct sr_port *p, struct sr_block *block, const void *buf, uint64_t offset,
                       uint64_t bytes, uint32_t flags) {
  struct sr_request r = {.op = SR_OP_WRITE,
                         .flags = flags & ~(uint32_t)SR_VECTORED,
                         .block = block,
                         .buf = (void *)(uintptr_t)buf,
                         .offset = offset,
                         .bytes = bytes};
  return flags & SR_VECTORED ? -EINVAL : run(p, &r);
}

int64_t sr_block_write_zeroes(struct sr_port *p, struct sr_block *block, uint64_t offset,
                              uint64_t bytes, uint32_t flags) {
  struct sr_request r = {
      .op = SR_OP_WRITE_ZEROES, .flags = flags, .block = block, .offset = offset, .bytes = bytes};
  return run(p, &r);
}

int64_t sr_block_discard(struct sr_port *p, struct sr_block *block, uint64_t offset,
                         uint64_t bytes) {
  struct sr_request r = {.op = SR_OP_DISCARD, .block = block, .offset = offset, .bytes = bytes};
  return run(p, &r);
}

int sr_block_flush(struct sr_port *p, struct sr_block *block) {
  struct sr_request r = {.op = SR_OP_SYNC, .block = block};
  return (int)run(p, &r);
}

static bool read_parts(const struct block *b, char *buf, uint64_t bytes, uint64_t offset) {
  for (uint64_t done = 0, in, n; done < bytes; done += n) {
    struct direct *d = b->parts[block_route(b, offset + done, &in, &n)].direct;
    n = min_u64(n, bytes - done);
    if (!d || !direct_read(d, buf + done, n, in)) return false;
  }
  return true;
}

int64_t sr_block_pread(struct sr_block *block, void *buf, uint64_t bytes, uint64_t offset) {
  const struct block *b = (const struct block *)block;
  if (!b || (!buf && bytes) || ((offset | bytes) & (b->block_bytes - 1))) return -EINVAL;
  uint64_t size = atomic_load_explicit(&b->size_bytes, memory_order_acquire);
  if (bytes > size || offset > size - bytes) return -EINVAL;
  if (bytes > DIRECT_BYTES_MAX) return 0;
  uint64_t in, n;
  struct direct *first = b->parts[block_route(b, offset, &in, &n)].direct;
  if (!first) return 0;
  if (n >= bytes) return direct_read(first, buf, bytes, in) ? (int64_t)bytes : 0;
  uint32_t entered = direct_enter(first); /* so that nobody closes it between two parts */
  bool done = read_parts(b, buf, bytes, offset);
  direct_leave(first, entered);
  return done ? (int64_t)bytes : 0;
}

static int64_t run_vector(struct sr_port *p, struct sr_request *r, const struct iovec *iov,
                          uint32_t iov_count) {
  if (!iov || iov_count > IOV_MAX_COUNT) return -EINVAL;
  for (uint32_t i = 0; i < iov_count; i++) r->bytes += iov[i].iov_len;
  r->buf = (void *)(uintptr_t)iov;
  r->iov_count = iov_count;
  r->flags |= SR_VECTORED;
  return run(p, r);
}

int64_t sr_block_readv(struct sr_port *p, struct sr_block *block, const struct iovec *iov,
                       uint32_t iov_count, uint64_t offset) {
  struct sr_request r = {.op = SR_OP_READ, .block = block, .offset = offset};
  return run_vector(p, &r, iov, iov_count);
}

int64_t sr_block_writev(struct sr_port *p, struct sr_block *block, const struct iovec *iov,
                        uint32_t iov_count, uint64_t offset, uint32_t flags) {
  struct sr_request r = {.op = SR_OP_WRITE, .flags = flags, .block = block, .offset = offset};
  return run_vector(p, &r, iov, iov_count);
}

/* ---- By the name of volumes ------------------------------------------------------------------ */

int64_t sr_volume_read(struct sr_port *p, struct sr_block *volume, void *buf, uint64_t offset,
                       uint64_t bytes) {
  return sr_block_read(p, volume, buf, offset, bytes);
}
int64_t sr_volume_write(struct sr_port *p, struct sr_block *volume, const void *buf,
                        uint64_t offset, uint64_t bytes, uint32_t flags) {
  return sr_block_write(p, volume, buf, offset, bytes, flags);
}
int64_t sr_volume_write_zeroes(struct sr_port *p, struct sr_block *volume, uint64_t offset,
                               uint64_t bytes, uint32_t flags) {
  return sr_block_write_zeroes(p, volume, offset, bytes, flags);
}
int64_t sr_volume_discard(struct sr_port *p, struct sr_block *volume, uint64_t offset,
                          uint64_t bytes) {
  return sr_block_discard(p, volume, offset, bytes);
}
int sr_volume_flush(struct sr_port *p, struct sr_block *volume) {
  return sr_block_flush(p, volume);
}
int sr_volume_close(struct sr_port *p, struct sr_block *volume) {
  return sr_block_close(p, volume);
}
