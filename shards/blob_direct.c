/* blob_direct.c - see blob_direct.h. The readers' threads, but for blob_direct_of(). */
#include "shards/blob_direct.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "shards/base/plant.h"
#include "shards/shard_internal.h"

#define ATTEMPTS 3u /* space becomes usable once in a root: twice during a read is rare */

bool blob_direct_of(const struct shard *s, struct blob_direct *d) {
  for (uint32_t i = 0; i < s->region->segment_count; i++)
    if (s->region->segments[i].backing->fd < 0) return false;
  *d = (struct blob_direct){
      .index = s->index, .space = s->space, .region = s->region, .manifest = s->manifest};
  return s->region->segment_count > 0;
}

static bool fits(const struct index_look *look, const char *data) {
  uint64_t end = min_u64(look->end, look->bytes) - look->start;
  uint64_t granule = UINT64_C(1) << look->shift;
  if (!look->shift || PLANTED(skip_data_checksum)) return true;
  for (uint64_t at = 0; at < end; at += granule)
    if (crc32c(0, data + at, min_u64(granule, end - at)) != look->sums[at >> look->shift])
      return false;
  return true;
}

static bool read_device(const struct region *region, const struct index_look *look, char *to) {
  uint64_t blocks = (look->end - look->start) >> BLOCK_SHIFT;
  struct io io;
  if (region_map(region, look->block, blocks, &io) < blocks) return false;
  struct backing *b = region_segment(region, look->block)->backing;
  return b->ops->read(b, to, blocks << BLOCK_SHIFT, io.offset) == 0;
}

/* -EBUSY: space has become usable again meanwhile. */
static int64_t read_once(const struct blob_direct *d, const struct blob_reader *r, uint64_t hash,
                         struct blob_id id, char *buf, uint64_t offset, uint64_t bytes) {
  struct index_look look;
  uint64_t reuses = space_reuses(d->space);
  int e = index_look(d->index, r->number, hash, id, offset, bytes, &look);
  if (e) return e == -ENOENT ? manifest_absent(d->manifest, hash) : e;
  uint64_t length = look.end - look.start;
  if (!length) return 0;
  bool straight =
      is_aligned((uintptr_t)buf, BLOCK_BYTES) && look.start == offset && length <= bytes;
  if (!straight && length > BLOB_DIRECT_BOUNCE) return -EAGAIN;
  char *to = straight ? buf : r->bounce;
  if (!read_device(d->region, &look, to)) return -EAGAIN;
  atomic_thread_fence(memory_order_acquire); /* the device was read before */
  if (space_reuses(d->space) != reuses && !PLANTED(look_only_once)) return -EBUSY;
  if (!fits(&look, to)) return -EAGAIN; /* the owner will find, and report, the same */
  bytes = min_u64(bytes, look.bytes - offset);
  if (!straight) memcpy(buf, to + (offset - look.start), bytes);
  return (int64_t)bytes;
}

int64_t blob_direct_read(const struct blob_direct *d, const struct blob_reader *r, uint64_t hash,
                         struct blob_id id, void *buf, uint64_t offset, uint64_t bytes) {
  int64_t n = -EBUSY;
  if (offset + bytes < offset) return -EAGAIN;
  for (uint32_t i = 0; i < ATTEMPTS && n == -EBUSY; i++)
    n = read_once(d, r, hash, id, buf, offset, bytes);
  return n == -EBUSY ? -EAGAIN : n;
}

int64_t blob_direct_stat(const struct blob_direct *d, const struct blob_reader *r, uint64_t hash,
                         struct blob_id id) {
  struct index_look look;
  int e = index_look(d->index, r->number, hash, id, 0, 0, &look);
  if (e) return e == -ENOENT ? manifest_absent(d->manifest, hash) : e;
  return (int64_t)look.bytes;
}
