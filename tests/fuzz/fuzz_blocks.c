/* fuzz_blocks.c - volumes through the public interface: whatever requests and calls, beside a model
 * that knows content and answers (disk_model.h, disk_calls.h). At the end all is as the model says,
 * also after the store was opened again; and when all volumes are removed no space is left taken.
 *
 * Input: flags (1 byte; 1: upon an engine that knows files, with one), then steps: kind (1), what
 * it takes. */
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "tests/fuzz/disk_calls.h"
#include "tests/fuzz/mem_store.h"

#define SHARD_BLOCKS 4096u
#define STEPS_MAX    40
#define DATA_MAX     (160u << 10) /* of a request */
#define BURST_MAX    4u
#define IOVS_MAX     1026u
#define FILE_BYTES   (130u << 10)

/* ---- Requests -------------------------------------------------------------------------------- */

struct asked {
  struct sr_request request;
  struct handle *handle;
  struct iovec iov[IOVS_MAX];
  uint8_t *data;
  bool good_vectors;
};

static uint64_t feed_place(struct feed *f, uint64_t size) {
  uint8_t how = feed_u8(f);
  uint64_t n = feed_u16(f);
  switch (how % 8) {
  case 0:
    return n;
  case 1:
    return feed_number(f, 8);
  case 2:
    return size - n % 64 * 512;
  case 3:
    return n % 64 * 4096;
  default:
    return n % (how & 8 ? 512 : 64) * 512;
  }
}

static bool in_range(const struct handle *h, uint64_t offset, uint64_t bytes) {
  uint64_t size = h->disk->size;
  return bytes <= size && offset <= size - bytes &&
         !((offset | bytes) % sr_block_block_bytes(h->block));
}

/* One after the other in a->data, of whatever lengths; sometimes wrong. */
static void cut_vectors(struct asked *a, struct feed *f) {
  struct sr_request *r = &a->request;
  uint8_t how = feed_u8(f);
  uint32_t count = how & 0x80 ? feed_u16(f) % (IOVS_MAX + 1) : how % 8;
  uint64_t left = r->bytes;
  a->good_vectors = count > 0 && count <= 1024;
  for (uint32_t i = 0; i < count; i++) {
    uint64_t n = i + 1 == count ? left : min_u64(left, count > 8 ? i % 3 * 512 : feed_u16(f));
    a->iov[i] = (struct iovec){n ? a->data + (r->bytes - left) : NULL, n};
    left -= n;
  }
  a->good_vectors &= left == 0;
  if (count && how & 0x40) { /* one is wrong */
    struct iovec *v = &a->iov[feed_u16(f) % count];
    uint8_t b = feed_u8(f);
    if (b & 1) v->iov_len += 1 + (b >> 2);
    if (b & 2) v->iov_len = UINT64_C(1) << 32 | b;
    if (b & 3) a->good_vectors = false;
  }
  r->iov_count = count;
  r->buf = a->iov;
}

static void feed_request(struct desk *d, struct feed *f, struct asked *a, uint8_t fill) {
  struct sr_request *r = &a->request;
  uint8_t op = feed_u8(f), flags = feed_u8(f), which = feed_u8(f);
  memset(r, 0, sizeof *r);
  a->handle = &d->handles[which % HANDLES];
  r->op = SR_OP_READ + op % 5;
  if (flags & 1) r->flags |= SR_DURABLE;
  if ((flags & 6) == 6) r->flags |= SR_RESERVE;
  if (flags & 8) r->flags |= SR_VECTORED;
  if ((flags & 0xf0) == 0xf0) r->flags |= (uint32_t)feed_number(f, 4);
  uint64_t size = a->handle->block ? a->handle->disk->size : 0;
  r->offset = feed_place(f, size);
  r->bytes = feed_place(f, size);
  r->block = a->handle->block;
  bool data = r->op == SR_OP_READ || r->op == SR_OP_WRITE;
  /* A buffer is as large as its caller says. What is refused is not looked at. */
  if (data && (!r->block || r->bytes > DATA_MAX) && !(r->flags & SR_RESERVE))
    r->bytes = r->bytes % DATA_MAX & ~UINT64_C(511);
  if (r->flags & SR_RESERVE && r->block && in_range(a->handle, r->offset, r->bytes))
    r->bytes &= (1 << 20) - 1; /* of the space that there is */
  for (uint32_t i = 0; i < DATA_MAX; i++) a->data[i] = (uint8_t)(fill + i / 512 * 7 + i);
  r->buf = data && !(r->flags & SR_RESERVE) ? a->data : NULL;
  if (flags == 0x10) r->buf = NULL;
  a->good_vectors = true;
  if (data && r->flags & SR_VECTORED) cut_vectors(a, f);
}

/* ---- The answers ----------------------------------------------------------------------------- */

static bool is_legal(const struct asked *a) {
  static const uint32_t known[] = {SR_VECTORED, SR_VECTORED | SR_DURABLE | SR_RESERVE, SR_DURABLE,
                                   0, 0};
  const struct sr_request *r = &a->request;
  bool data = r->op == SR_OP_READ || r->op == SR_OP_WRITE;
  if (!r->block || r->flags & ~known[r->op - SR_OP_READ]) return false;
  if (!data) return true;
  if (r->flags & SR_VECTORED) return !(r->flags & SR_RESERVE) && a->good_vectors;
  return r->buf || !r->bytes || r->flags & SR_RESERVE;
}

static int64_t right_answer(const struct asked *a) {
  const struct sr_request *r = &a->request;
  if (r->op == SR_OP_SYNC) return 0;
  if (!in_range(a->handle, r->offset, r->bytes)) return -EINVAL;
  if (r->op == SR_OP_READ) return (int64_t)r->bytes;
  if (r->flags & SR_RESERVE && a->handle->disk->file) return -EINVAL;
  if (a->handle->read_only) return -EROFS;
  if (r->op == SR_OP_DISCARD && a->handle->disk->file) return -EOPNOTSUPP;
  return (int64_t)r->bytes;
}

static void apply(const struct asked *a) {
  const struct sr_request *r = &a->request;
  struct disk *d = a->handle->disk;
  if (r->op == SR_OP_READ) disk_check(d, r->offset, r->bytes, a->data);
  if (r->op == SR_OP_WRITE && r->flags & SR_RESERVE) disk_forget(d, r->offset, r->bytes);
  if (r->op == SR_OP_WRITE && !(r->flags & SR_RESERVE)) disk_write(d, r->offset, r->bytes, a->data);
  if (r->op == SR_OP_WRITE_ZEROES) disk_zero(d, r->offset, r->bytes);
  if (r->op == SR_OP_DISCARD) disk_discard(d, r->offset, r->bytes);
}

static void check_answer(const struct asked *a) {
  const struct sr_request *r = &a->request;
  int64_t right = right_answer(a);
  bool changes = r->op != SR_OP_READ && r->op != SR_OP_SYNC;
  if (right >= 0 && changes && r->result == -ENOSPC) {
    disk_forget(a->handle->disk, r->offset, r->bytes);
    return;
  }
  check(r->result == right);
  if (right > 0) apply(a);
}

/* What is in flight together must not touch the same blocks: nobody knows the order. */
static bool conflicts(const struct asked *a, const struct asked *b) {
  const struct sr_request *x = &a->request, *y = &b->request;
  if (!x->block || !y->block || a->handle->disk != b->handle->disk) return false;
  if (!in_range(a->handle, x->offset, x->bytes) || !in_range(b->handle, y->offset, y->bytes))
    return false;
  uint64_t first = round_down(x->offset, 4096), end = round_up(x->offset + x->bytes, 4096);
  return y->offset + y->bytes > first && y->offset < end;
}

/* Some at once. */
static void burst(struct desk *d, struct feed *f, struct asked *all, uint32_t count) {
  struct sr_request *finished[BURST_MAX];
  uint32_t sent = 0;
  bool in[BURST_MAX] = {false};
  for (uint32_t i = 0; i < count; i++) {
    bool alone = true;
    feed_request(d, f, &all[i], (uint8_t)(f->left * 13 + i));
    for (uint32_t k = 0; k < i; k++) alone &= !in[k] || !conflicts(&all[i], &all[k]);
    if (!alone) continue;
    struct sr_request *one[1] = {&all[i].request};
    int r = sr_port_submit(d->port, one, 1);
    check(r == (is_legal(&all[i]) ? 1 : -EINVAL));
    in[i] = r == 1;
    sent += in[i];
  }
  for (uint32_t got = 0; got < sent;) {
    check(sr_port_wait(d->port, -1) == 1);
    int n = sr_port_reap(d->port, finished, BURST_MAX);
    check(n > 0);
    got += (uint32_t)n;
  }
  check(sr_port_in_flight(d->port) == 0);
  for (uint32_t i = 0; i < count; i++)
    if (in[i]) check_answer(&all[i]);
}

/* ---- All of it ------------------------------------------------------------------------------- */

static void check_volume(struct desk *d, uint32_t slot, uint8_t *buf) {
  struct disk *v = d->disks.named[slot];
  struct sr_block_options o = SR_BLOCK_OPTIONS_INIT;
  struct sr_volume_info info;
  struct sr_block *b;
  check(sr_volume_stat(d->port, disk_names[slot], &info) == (v ? 0 : -ENOENT));
  if (!v) return;
  check(info.size_bytes == v->size && info.block_bytes == v->block);
  check(info.snapshot == v->sealed && info.stripe_bytes == v->stripe);
  check(info.openers == v->openers && info.open_for_writing == (v->writers > 0));
  o.read_only = true;
  check(sr_volume_open(d->port, disk_names[slot], &o, &b) == 0);
  uint64_t bytes = min_u64(v->size, DISK_WINDOW);
  check(sr_block_read(d->port, b, buf, 0, bytes) == (int64_t)bytes);
  disk_check(v, 0, bytes, buf);
  check(sr_block_close(d->port, b) == 0);
}

static void check_all(struct desk *d) {
  uint8_t *buf = fuzz_alloc(DISK_WINDOW);
  for (uint32_t i = 0; i < DISK_NAMES; i++) check_volume(d, i, buf);
  free(buf);
}

struct run {
  struct mem_store store;
  struct sr_store *open;
  struct desk desk;
  bool files;
};

static void open_store(struct run *r) {
  check((r->files ? mem_store_open_file(&r->store, false, &r->open)
                  : mem_store_open(&r->store, false, DAMAGED_REFUSE, &r->open)) == 0);
  check(sr_port_open(r->open, NULL, &r->desk.port) == 0);
}

/* abandon: as after kill -9, but all is durable. */
static void close_store(struct run *r, bool abandon) {
  struct desk *d = &r->desk;
  for (uint32_t i = 0; i < HANDLES; i++) desk_close_handle(&d->handles[i], d->port);
  if (abandon) check(sr_flush(d->port) == 0);
  check(sr_port_close(d->port) == 0);
  if (abandon)
    sr_store_abandon(r->open);
  else
    check(sr_store_close(r->open) == 0);
}

static void step(struct run *r, struct feed *f, struct asked *all) {
  uint8_t kind = feed_u8(f);
  switch (kind % 16) {
  case 0:
  case 1:
  case 2:
  case 3:
    desk_call(&r->desk, f);
    break;
  case 4:
  case 5:
  case 6:
    desk_open(&r->desk, f);
    break;
  case 7:
    check(sr_flush(r->desk.port) == 0);
    if (kind & 16) check(sr_checkpoint(r->desk.port) == 0);
    break;
  case 8:
    if (kind < 128) break;
    close_store(r, kind & 16);
    open_store(r);
    check_all(&r->desk);
    break;
  default:
    burst(&r->desk, f, all, 1 + kind / 16 % BURST_MAX);
  }
}

/* All volumes go, and their space with them. */
static void remove_all(struct run *r) {
  struct sr_space space;
  for (uint32_t i = 0; i < DISK_NAMES; i++)
    if (r->desk.disks.named[i]) check(sr_volume_remove(r->desk.port, disk_names[i]) == 0);
  close_store(r, false);
  open_store(r);
  check(sr_space(r->desk.port, &space) == 0);
  check(space.volume_bytes == 0);
  close_store(r, false);
}

static void make_file(struct desk *d, bool files) {
  d->file_fd = memfd_create("fuzz", MFD_CLOEXEC);
  check(d->file_fd >= 0);
  check(ftruncate(d->file_fd, FILE_BYTES + 700) == 0);
  if (!files) return;
  d->file = disk_new(&d->disks);
  d->file->file = true;
  d->file->size = round_down(FILE_BYTES + 700, 4096);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static struct mem_store base;
  struct feed f = {data, size};
  struct run *r = fuzz_alloc(sizeof *r);
  struct asked *all = fuzz_alloc(BURST_MAX * sizeof *all);
  memset(r, 0, sizeof *r);
  for (uint32_t i = 0; i < BURST_MAX; i++) all[i].data = fuzz_alloc(DATA_MAX);
  if (!base.blocks) mem_store_format(&base, SHARD_BLOCKS); /* the same for all inputs */
  mem_store_copy(&r->store, &base);
  r->files = feed_u8(&f) & 1;
  make_file(&r->desk, r->files);
  open_store(r);
  for (int i = 0; i < STEPS_MAX && f.left > 0; i++) step(r, &f, all);
  check_all(&r->desk);
  close_store(r, false);
  open_store(r);
  check_all(&r->desk);
  remove_all(r);
  close(r->desk.file_fd);
  mem_store_drop(&r->store);
  disks_free(&r->desk.disks);
  for (uint32_t i = 0; i < BURST_MAX; i++) free(all[i].data);
  free(all);
  free(r);
  return 0;
}
