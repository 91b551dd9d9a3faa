/* fuzz_stream.c - the reader of volumes' streams: whatever it hands out lies inside the volume and
 * ascends; and what it accepts to the end says the same when it is written and read again.
 *
 * Input: flags (1 byte; 1: checksums are repaired; 2: its first bytes are given as early; 4:
 * more than a head of them), then the stream. */
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shards/base/crc32c.h"
#include "tests/fuzz/fuzz.h"
#include "tools/volume_stream.h"

#define HEAD_BYTES   640u
#define RECORD_BYTES 32u
#define EARLY_BYTES  700u
#define BYTES_MAX    (1u << 20)

/* ---- Repairing: docs/format.md, a second opinion -------------------------------------------- */

static uint64_t number_at(const char *at, size_t bytes) {
  uint64_t v = 0;
  memcpy(&v, at, bytes);
  return v;
}
static uint32_t put_sum(char *at, uint32_t sum) {
  memcpy(at, &sum, 4);
  return sum;
}

static void repair(char *s, size_t bytes) {
  size_t at = HEAD_BYTES;
  if (bytes < HEAD_BYTES) return;
  put_sum(s + 12, 0);
  uint32_t chain = put_sum(s + 12, crc32c(0, s, HEAD_BYTES));
  while (at + RECORD_BYTES <= bytes) {
    char *r = s + at;
    uint32_t kind = (uint32_t)number_at(r + 4, 4);
    uint64_t data = kind == 1 ? number_at(r + 16, 8) : 0;
    at += RECORD_BYTES;
    if (data > bytes - at) data = bytes - at;
    put_sum(r + 24, kind == 1 ? crc32c(0, s + at, data) : 0);
    put_sum(r + 28, 0);
    chain = put_sum(r + 28, crc32c(chain, r, RECORD_BYTES));
    at += data;
  }
}

/* ---- Reading --------------------------------------------------------------------------------- */

static int file_of(const void *bytes, size_t count) {
  int fd = memfd_create("fuzz", MFD_CLOEXEC);
  check(fd >= 0);
  if (count) check(write(fd, bytes, count) == (ssize_t)count);
  check(lseek(fd, 0, SEEK_SET) == 0);
  return fd;
}

static void check_info(const struct stream_info *i) {
  check(i->block_bytes == 512 || i->block_bytes == 4096);
  check(i->size_bytes > 0 && i->size_bytes % i->block_bytes == 0);
  check(i->size_bytes <= UINT64_C(64) << 40);
  check(strnlen(i->to, sizeof i->to) <= STREAM_NAME_MAX && i->to[0]);
  check(strnlen(i->from, sizeof i->from) <= STREAM_NAME_MAX);
  check((i->from[0] != 0) == i->incremental);
  check((i->from_size_bytes != 0) == i->incremental);
}

struct outcome {
  int result; /* of the last call */
  struct stream_info info;
  uint64_t data_bytes, zeros_at, zeros_end;
  uint32_t content; /* of all ranges and their data; zeros that touch are one range */
};

static void add_number(struct outcome *o, uint64_t v) { o->content = crc32c(o->content, &v, 8); }

static void add_zeros(struct outcome *o, const struct stream_range *range) {
  if (range->offset != o->zeros_end) {
    add_number(o, o->zeros_at);
    add_number(o, o->zeros_end);
    o->zeros_at = range->offset;
  }
  o->zeros_end = range->offset + range->bytes;
}

static void add_data(struct outcome *o, const struct stream_range *range, const char *data) {
  add_zeros(o, &(struct stream_range){.offset = UINT64_MAX}); /* ends those that came before */
  add_number(o, range->offset);
  o->content = crc32c(o->content, data, range->bytes);
  o->data_bytes += range->bytes;
}

static uint64_t check_range(const struct stream_info *i, const struct stream_range *range,
                            uint64_t end) {
  check(range->bytes > 0 && range->offset >= end);
  check(range->offset < i->size_bytes && range->bytes <= i->size_bytes - range->offset);
  check(range->offset % STREAM_UNIT == 0);
  check(range->zeros || range->bytes <= STREAM_DATA_MAX);
  end = range->offset + range->bytes;
  check(end % STREAM_UNIT == 0 || end == i->size_bytes);
  return end;
}

static void copy_range(struct stream_writer *w, const struct stream_range *range,
                       const char *data) {
  if (range->zeros)
    check(stream_write_zeros(w, range->offset, range->bytes) == 0);
  else
    check(stream_write_data(w, range->offset, data, (uint32_t)range->bytes) == 0);
}

static void read_ranges(struct outcome *o, struct stream_reader *r, struct stream_writer *copy) {
  struct stream_range range;
  char *buf = fuzz_alloc(STREAM_DATA_MAX);
  uint64_t end = 0;
  while ((o->result = stream_read_next(r, &range, buf)) == 1) {
    end = check_range(&r->info, &range, end);
    if (range.zeros)
      add_zeros(o, &range);
    else
      add_data(o, &range, buf);
    if (copy) copy_range(copy, &range, buf);
  }
  add_zeros(o, &(struct stream_range){.offset = UINT64_MAX - 1});
  free(buf);
}

/* copy: where all of it is written again; NULL: nowhere. */
static void read_all(struct outcome *o, int fd, const void *early, size_t early_bytes,
                     struct stream_writer *copy) {
  struct stream_reader r;
  memset(o, 0, sizeof *o);
  o->result = stream_read_begin(&r, fd, early, early_bytes);
  if (o->result == 0) {
    check_info(&r.info);
    o->info = r.info;
    if (copy) check(stream_write_begin(copy, copy->fd, &r.info) == 0);
    read_ranges(o, &r, copy);
  }
  check(o->result == 0 || o->result == -EBADMSG || o->result == -ENOTSUP ||
        (o->result == -EINVAL && early_bytes > HEAD_BYTES));
  if (o->result == -EBADMSG) check(r.why && r.why[0]);
}

static void check_again(const struct outcome *first, struct stream_writer *copy) {
  struct outcome o;
  check(stream_write_end(copy) == 0);
  check(lseek(copy->fd, 0, SEEK_SET) == 0);
  read_all(&o, copy->fd, "", 0, NULL);
  check(o.result == 0);
  check(memcmp(&o.info, &first->info, sizeof o.info) == 0);
  check(o.data_bytes == first->data_bytes);
  check(o.content == first->content);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed f = {data, size};
  uint8_t flags = feed_u8(&f);
  size_t early = !(flags & 2) ? 0 : flags & 4 ? EARLY_BYTES : STREAM_MAGIC_BYTES;
  size_t bytes = min_u64(f.left, BYTES_MAX);
  early = min_u64(early, bytes);
  char *stream = fuzz_alloc(bytes);
  struct outcome o;
  if (bytes) memcpy(stream, f.at, bytes);
  if (flags & 1) repair(stream, bytes);
  struct stream_writer copy = {.fd = file_of("", 0)};
  int fd = file_of(stream + early, bytes - early);
  read_all(&o, fd, stream, early, &copy);
  if (o.result == 0) check_again(&o, &copy);
  close(fd);
  close(copy.fd);
  free(stream);
  return 0;
}
