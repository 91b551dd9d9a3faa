/* volume_stream.c - see volume_stream.h. */
#include "tools/volume_stream.h"

#include "shards/base/crc32c.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "structures are written as they are");

#define VERSION     1u
#define INCREMENTAL 1u
#define SIZE_MAX_   (UINT64_C(64) << 40)

struct head {
  char magic[8];
  uint32_t version, checksum, flags, block_bytes;
  uint64_t size_bytes, from_size_bytes, to_id, from_id;
  uint8_t store[16], reserved[56];
  char to[256], from[256];
};
_Static_assert(sizeof(struct head) == 640, "as docs/format.md says");

enum { DATA = 1, ZEROS = 2, END = 3 };
#define RECORD_MAGIC 0x43455256u /* "VREC" */

struct record {
  uint32_t magic, kind;
  uint64_t offset, bytes; /* END: bytes of data, number of records before it */
  uint32_t data_checksum, checksum;
};
_Static_assert(sizeof(struct record) == 32, "as docs/format.md says");

int64_t stream_fill(int fd, void *buf, size_t bytes) {
  size_t done = 0;
  while (done < bytes) {
    ssize_t n = read(fd, (char *)buf + done, bytes - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    if (n == 0) break;
    done += (size_t)n;
  }
  return (int64_t)done;
}

int stream_put(int fd, const void *buf, size_t bytes) {
  const char *at = buf;
  while (bytes > 0) {
    ssize_t n = write(fd, at, bytes);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -errno;
    at += n;
    bytes -= (size_t)n;
  }
  return 0;
}

/* ---- Writing -----------------------------------------------------------------------------------
 */

int stream_write_begin(struct stream_writer *w, int fd, const struct stream_info *info) {
  struct head h = {.version = VERSION,
                   .flags = info->incremental ? INCREMENTAL : 0,
                   .block_bytes = info->block_bytes,
                   .size_bytes = info->size_bytes,
                   .to_id = info->to_id};
  memcpy(h.magic, STREAM_MAGIC, sizeof(h.magic));
  memcpy(h.store, info->store, sizeof(h.store));
  memcpy(h.to, info->to, strlen(info->to));
  if (info->incremental) {
    h.from_size_bytes = info->from_size_bytes;
    h.from_id = info->from_id;
    memcpy(h.from, info->from, strlen(info->from));
  }
  h.checksum = crc32c(0, &h, sizeof(h));
  *w = (struct stream_writer){.fd = fd, .chain = h.checksum};
  return stream_put(fd, &h, sizeof(h));
}

static int put_record(struct stream_writer *w, struct record *r) {
  r->magic = RECORD_MAGIC;
  r->checksum = w->chain = crc32c(w->chain, r, sizeof(*r));
  w->records++;
  return stream_put(w->fd, r, sizeof(*r));
}

static int put_zeros(struct stream_writer *w) {
  struct record r = {.kind = ZEROS, .offset = w->zeros_at, .bytes = w->zeros};
  w->zeros = 0;
  return r.bytes ? put_record(w, &r) : 0;
}

int stream_write_zeros(struct stream_writer *w, uint64_t offset, uint64_t bytes) {
  int r = 0;
  if (w->zeros && w->zeros_at + w->zeros != offset) r = put_zeros(w);
  if (!w->zeros) w->zeros_at = offset;
  w->zeros += bytes;
  return r;
}

int stream_write_data(struct stream_writer *w, uint64_t offset, const void *data, uint32_t bytes) {
  struct record record = {.kind = DATA, .offset = offset, .bytes = bytes};
  int r = put_zeros(w);
  record.data_checksum = crc32c(0, data, bytes);
  w->data_bytes += bytes;
  if (r == 0) r = put_record(w, &record);
  return r < 0 ? r : stream_put(w->fd, data, bytes);
}

int stream_write_end(struct stream_writer *w) {
  int r = put_zeros(w);
  struct record record = {.kind = END, .offset = w->data_bytes, .bytes = w->records};
  return r < 0 ? r : put_record(w, &record);
}

/* ---- Reading -----------------------------------------------------------------------------------
 */

static int bad(struct stream_reader *r, const char *why) {
  r->why = why;
  return -EBADMSG;
}

/* All of it, or -EBADMSG. */
static int take(struct stream_reader *r, void *buf, size_t bytes) {
  int64_t n = stream_fill(r->fd, buf, bytes);
  if (n < 0) return (int)n;
  r->at += (uint64_t)n;
  return (size_t)n == bytes ? 0 : bad(r, "the stream is cut short");
}

/* Names are shown to people: nothing in them may move a terminal's cursor. */
static bool name_is_fine(const char name[256], bool wanted) {
  size_t n = strnlen(name, 256);
  if (n > STREAM_NAME_MAX || !n == wanted) return false;
  for (size_t i = 0; i < n; i++)
    if ((unsigned char)name[i] < 0x20 || name[i] == 0x7f) return false;
  for (size_t i = n; i < 256; i++)
    if (name[i]) return false;
  return true;
}

static bool size_is_fine(uint64_t bytes, uint32_t block_bytes) {
  return bytes > 0 && bytes <= SIZE_MAX_ && bytes % block_bytes == 0;
}

static int examine_head(struct stream_reader *r, struct head *h) {
  static const uint8_t none[sizeof(h->reserved)];
  uint32_t checksum = h->checksum;
  h->checksum = 0;
  if (memcmp(h->magic, STREAM_MAGIC, sizeof(h->magic)) != 0) return bad(r, "no stream of a volume");
  if (h->version != VERSION) {
    r->why = "a newer version of streams";
    return -ENOTSUP;
  }
  if (crc32c(0, h, sizeof(*h)) != checksum) return bad(r, "the stream's head is damaged");
  bool incremental = h->flags & INCREMENTAL;
  if (h->flags & ~INCREMENTAL || memcmp(h->reserved, none, sizeof(none)) != 0)
    return bad(r, "the stream's head has unknown flags");
  if (h->block_bytes != 512 && h->block_bytes != 4096)
    return bad(r, "the stream's head has an impossible block size");
  if (!size_is_fine(h->size_bytes, h->block_bytes) ||
      (incremental ? !size_is_fine(h->from_size_bytes, h->block_bytes) : h->from_size_bytes != 0))
    return bad(r, "the stream's head has an impossible size");
  if (!name_is_fine(h->to, true) || !name_is_fine(h->from, incremental))
    return bad(r, "the stream's head has an impossible name");
  r->chain = checksum;
  return 0;
}

int stream_read_begin(struct stream_reader *r, int fd, const void *early, size_t early_bytes) {
  struct head h;
  *r = (struct stream_reader){.fd = fd, .at = early_bytes};
  if (early_bytes > sizeof(h)) return -EINVAL;
  if (early_bytes) memcpy(&h, early, early_bytes);
  int e = take(r, (char *)&h + early_bytes, sizeof(h) - early_bytes);
  if (e == 0) e = examine_head(r, &h);
  if (e < 0) return e;
  r->info = (struct stream_info){.incremental = h.flags & INCREMENTAL,
                                 .block_bytes = h.block_bytes,
                                 .size_bytes = h.size_bytes,
                                 .to_id = h.to_id,
                                 .from_size_bytes = h.from_size_bytes,
                                 .from_id = h.from_id};
  memcpy(r->info.store, h.store, sizeof(h.store));
  memcpy(r->info.to, h.to, sizeof(h.to));
  memcpy(r->info.from, h.from, sizeof(h.from));
  return 0;
}

static int examine_range(struct stream_reader *r, const struct record *h) {
  uint64_t size = r->info.size_bytes;
  if (h->offset >= size || h->bytes == 0 || h->bytes > size - h->offset)
    return bad(r, "a range that is not inside the volume");
  if (h->offset % STREAM_UNIT || (h->bytes % STREAM_UNIT && h->offset + h->bytes != size))
    return bad(r, "a range that is not of whole blocks");
  if (h->offset < r->range_end) return bad(r, "ranges that overlap or are out of order");
  if (h->kind == ZEROS ? h->data_checksum != 0 : h->bytes > STREAM_DATA_MAX)
    return bad(r, "a range that is too long");
  r->range_end = h->offset + h->bytes;
  return 0;
}

static int examine_end(struct stream_reader *r, const struct record *h) {
  char more;
  if (h->offset != r->data_bytes || h->bytes != r->records || h->data_checksum)
    return bad(r, "the stream's totals are wrong");
  int64_t n = stream_fill(r->fd, &more, 1);
  return n < 0 ? (int)n : n ? bad(r, "something follows the end of the stream") : 0;
}

int stream_read_next(struct stream_reader *r, struct stream_range *range, void *buf) {
  struct record h;
  int e = take(r, &h, sizeof(h));
  if (e < 0) return e;
  uint32_t checksum = h.checksum;
  h.checksum = 0;
  r->chain = crc32c(r->chain, &h, sizeof(h));
  if (h.magic != RECORD_MAGIC || r->chain != checksum)
    return bad(r, "the head of a range is damaged");
  if (h.kind == END) return examine_end(r, &h);
  if (h.kind != DATA && h.kind != ZEROS) return bad(r, "a range of unknown kind");
  e = examine_range(r, &h);
  if (e < 0) return e;
  if (h.kind == DATA) {
    e = take(r, buf, h.bytes);
    if (e == 0 && crc32c(0, buf, h.bytes) != h.data_checksum) e = bad(r, "data is damaged");
    if (e < 0) return e;
    r->data_bytes += h.bytes;
  }
  r->records++;
  *range = (struct stream_range){h.offset, h.bytes, h.kind == ZEROS};
  return 1;
}
