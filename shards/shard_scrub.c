/* shard_scrub.c - a pass over all that a shard has on disk. Owned by the shard's thread.
 *
 *   shard_scrub_step: the manifest's part (manifest_scrub.c), then blobs, then volumes
 * (volume_scrub.c). Blobs: candidates from the index, some at a time -> a slot each -> reads of at
 * most SCRUB_IO_BYTES, verified as they come -> a finding at the blob's end
 *
 * A slot holds nothing of the blob between two reads: each looks the blob up again, takes extents
 * and checksums of what it reads, and is a reader of the space (space.h) until it is done. So what
 * is read is what the index had named, whatever happens meanwhile, and no freed block waits for
 * long. A granule that takes more than one read is given up when its checksum has changed in
 * between: the blob was replaced. */
#include "shards/shard_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shards/manifest_scrub.h"
#include "shards/volume_scrub.h"

#define SCRUB_SLOTS      8u
#define SCRUB_CANDIDATES 1024u
#define SCRUB_SUMS       (SCRUB_IO_BYTES / BLOCK_BYTES + 1)

struct scrub_slot {
  struct io io;
  struct shard *shard;
  bool used, busy; /* has a blob; its read is in flight */
  struct blob_id id;
  uint64_t hash, bytes, pos;
  uint32_t generation;
  uint64_t block; /* of the running read */
  uint8_t shift;  /* of the granules; 0: no checksums */
  uint32_t crc;   /* of the granule that has begun, so far */
  uint64_t in;    /* its bytes so far */
  uint32_t expected;
  uint32_t sums[SCRUB_SUMS]; /* of the granules that the read touches */
  uint64_t bad, bad_block;   /* granules, and where the first one lies */
  const char *what;
  int error;
  char *buf;
};

struct scrub {
  struct manifest_scrub meta;
  bool stopping, listed;
  uint64_t cursor;
  uint32_t at, count, busy, turn;
  struct scrub_slot slots[SCRUB_SLOTS];
  struct shard_entry candidates[SCRUB_CANDIDATES];
  char *bufs;
  struct volume_scrub volumes; /* after the blobs: with their buffers */
};
_Static_assert(VSCRUB_READS <= SCRUB_SLOTS, "one buffer each");

/* ---- Findings ---------------------------------------------------------------------------- */

static void slot_bad(struct scrub_slot *x, uint64_t block, int error, const char *what) {
  if (x->bad++ > 0) return;
  x->bad_block = block;
  x->error = error;
  x->what = what;
}

static void slot_free(struct scrub_slot *x) { x->used = false; }

/* The blob is through: says what was wrong with it. */
static void slot_end(struct scrub_slot *x) {
  struct shard *s = x->shard;
  struct shard_scrub_stats *st = &s->scrub_stats;
  st->blobs++;
  st->unverified_blobs += x->shift == 0 && x->bytes > 0;
  if (x->bad) {
    char text[128];
    snprintf(text, sizeof text, "%s at region block %llu (%llu place%s in all)", x->what,
             (unsigned long long)x->bad_block, (unsigned long long)x->bad, x->bad == 1 ? "" : "s");
    struct damage d = {.kind = DAMAGE_BLOB,
                       .error = x->error,
                       .shard = s->config.manifest.shard,
                       .id = x->id,
                       .blocks = x->shift ? UINT64_C(1) << (x->shift - BLOCK_SHIFT) : 0,
                       .what = text};
    damage_place(&d, s->region, x->bad_block);
    st->damaged_blobs++;
    st->unreadable += x->error != -EBADMSG;
    damage_report(&s->config.manifest.damage, &d);
  }
  slot_free(x);
}

/* ---- Verifying --------------------------------------------------------------------------- */

static void granule_end(struct scrub_slot *x, uint32_t expected, uint64_t block) {
  if (x->crc != expected) slot_bad(x, block, -EBADMSG, "checksum mismatch");
  x->crc = 0;
  x->in = 0;
}

static void verify(struct scrub_slot *x) {
  uint64_t data = min_u64(x->io.bytes, x->bytes - x->pos), size = UINT64_C(1) << x->shift;
  uint32_t granule = 0;
  for (uint64_t at = 0; at < data;) {
    uint64_t part = min_u64(data - at, size - x->in);
    x->expected = x->sums[granule];
    x->crc = crc32c(x->crc, x->buf + at, part);
    x->in += part;
    at += part;
    if (x->in < size && x->pos + at < x->bytes) break; /* goes on with the next read */
    uint64_t begin = at > x->in ? at - x->in : 0;
    granule_end(x, x->sums[granule++], x->block + (begin >> BLOCK_SHIFT));
  }
  uint64_t i = data;
  while (i < x->io.bytes && !x->buf[i]) i++;
  if (i < x->io.bytes)
    slot_bad(x, x->block + (i >> BLOCK_SHIFT), -EBADMSG,
             "bytes behind the blob's end are not zero");
}

static void slot_read(struct io *io) {
  struct scrub_slot *x = container_of(io, struct scrub_slot, io);
  struct scrub *c = x->shard->scrub;
  uint64_t next = x->pos + io->bytes;
  space_read_end(x->shard->space, x->generation);
  x->busy = false;
  c->busy--;
  if (io->result) {
    slot_bad(x, x->block, io->result, "cannot be read");
    if (x->shift) next = round_up(next, UINT64_C(1) << x->shift);
    x->in = 0;
    x->crc = 0;
  } else if (x->shift) {
    verify(x);
  }
  x->shard->scrub_stats.done_bytes += min_u64(next, x->bytes) - min_u64(x->pos, x->bytes);
  x->pos = next;
}

/* ---- Reading ----------------------------------------------------------------------------- */

/* The blob as it is now; false: it is not the one that the slot has begun with, or not any more. */
static bool slot_find(struct scrub_slot *x, struct blob *b) {
  struct shard *s = x->shard;
  if (index_find(s->index, x->hash, x->id, b) || b->bytes != x->bytes) return false;
  uint8_t shift = b->granule_count ? b->granule_shift : 0;
  if (x->pos > 0 && shift != x->shift) return false;
  x->shift = shift;
  return !x->in || b->checksums[x->pos >> shift] == x->expected;
}

/* Starts the next read of a slot's blob; its bytes, 0: the blob is through. */
static uint64_t slot_next(struct scrub_slot *x) {
  struct shard *s = x->shard;
  struct blob b;
  if (!slot_find(x, &b)) {
    slot_free(x);
    return 0;
  }
  if (x->pos >= x->bytes) {
    slot_end(x);
    return 0;
  }
  const struct extent *e = b.extents;
  uint64_t block = x->pos >> BLOCK_SHIFT;
  while (block >= e->blocks) block -= e++->blocks;
  x->io = (struct io){.done = slot_read, .buf = x->buf, .op = IO_READ};
  x->block = e->block + block;
  uint64_t blocks = min_u64(bytes_to_blocks(x->bytes - x->pos), SCRUB_IO_BYTES >> BLOCK_SHIFT);
  blocks = region_map(s->region, x->block, min_u64(blocks, e->blocks - block), &x->io);
  x->io.bytes = (uint32_t)(blocks << BLOCK_SHIFT);
  if (x->shift) {
    uint64_t first = x->pos >> x->shift;
    uint64_t last = (min_u64(x->pos + x->io.bytes, x->bytes) - 1) >> x->shift;
    memcpy(x->sums, b.checksums + first, (last - first + 1) * sizeof *x->sums);
  }
  x->generation = space_read_begin(s->space);
  x->busy = true;
  s->scrub->busy++;
  device_submit(s->device, &x->io);
  return blocks << BLOCK_SHIFT;
}

/* Gives the slot the next blob; false: there is none at hand. */
static bool slot_take(struct scrub *c, struct scrub_slot *x) {
  struct shard *s = x->shard;
  if (c->at == c->count) return false;
  const struct shard_entry *e = &c->candidates[c->at++];
  char *buf = x->buf;
  *x = (struct scrub_slot){.shard = s, .buf = buf, .used = true, .id = e->id, .bytes = e->bytes};
  x->hash = hash_id(e->id, s->config.manifest.hash_key);
  return true;
}

/* ---- The pass ---------------------------------------------------------------------------- */

uint64_t shard_scrub_bytes(const struct shard *s) {
  return manifest_scrub_bytes(s->manifest) + index_live_bytes(s->index) + volume_scrub_bytes(s);
}

int shard_scrub_start(struct shard *s) {
  if (s->scrub) return -EBUSY;
  struct scrub *c = calloc(1, sizeof *c);
  if (!c) return -ENOMEM;
  c->bufs = aligned_alloc(BLOCK_BYTES, (size_t)SCRUB_SLOTS * SCRUB_IO_BYTES);
  int r = c->bufs ? manifest_scrub_begin(&c->meta, s->manifest) : -ENOMEM;
  if (r) {
    free(c->bufs);
    free(c);
    return r;
  }
  for (uint32_t i = 0; i < SCRUB_SLOTS; i++) {
    c->slots[i].shard = s;
    c->slots[i].buf = c->bufs + (size_t)i * SCRUB_IO_BYTES;
  }
  volume_scrub_init(&c->volumes, s, c->bufs);
  s->scrub = c;
  s->scrub_stats = (struct shard_scrub_stats){
      .running = true, .passes = s->scrub_stats.passes, .total_bytes = shard_scrub_bytes(s)};
  return 0;
}

bool scrub_busy(const struct shard *s) {
  return s->scrub && (s->scrub->busy > 0 || s->scrub->meta.busy || s->scrub->volumes.busy > 0);
}

void scrub_finish(struct shard *s) {
  struct scrub *c = s->scrub;
  if (!c) return;
  check(!scrub_busy(s));
  manifest_scrub_finish(&c->meta);
  volume_scrub_finish(&c->volumes);
  free(c->bufs);
  free(c);
  s->scrub = NULL;
  s->scrub_stats.running = false;
}

void shard_scrub_stop(struct shard *s) {
  if (!s->scrub) return;
  s->scrub->stopping = true;
  if (!scrub_busy(s)) scrub_finish(s);
}

static uint64_t step_meta(struct shard *s, struct scrub *c) {
  struct shard_scrub_stats *st = &s->scrub_stats;
  uint64_t n = manifest_scrub_next(&c->meta);
  st->done_bytes += n;
  st->damaged_metadata = c->meta.damaged;
  st->unreadable = c->meta.unreadable;
  return n;
}

/* One look at the index: a partition a turn, so that requests do not wait. */
static void list_more(struct shard *s, struct scrub *c) {
  int n = list_next(s, &c->cursor, c->candidates, SCRUB_CANDIDATES, 1, NULL);
  c->at = 0;
  c->count = n > 0 ? (uint32_t)n : 0;
  c->listed = c->cursor >= LIST_END || n < 0;
}

static bool all_free(const struct scrub *c) {
  for (uint32_t i = 0; i < SCRUB_SLOTS; i++)
    if (c->slots[i].used) return false;
  return true;
}

uint64_t shard_scrub_step(struct shard *s, uint64_t bytes, bool *more) {
  struct scrub *c = s->scrub;
  uint64_t done = 0;
  *more = false;
  if (!c) return 0;
  if (c->stopping) {
    if (!scrub_busy(s)) scrub_finish(s);
    return 0;
  }
  if (!c->meta.finished) {
    done = bytes ? step_meta(s, c) : 0;
    if (!c->meta.finished) return done;
  }
  for (uint32_t i = 0; i < SCRUB_SLOTS && done < bytes; i++) {
    struct scrub_slot *x = &c->slots[c->turn++ % SCRUB_SLOTS];
    while (!x->busy && done < bytes && (x->used || slot_take(c, x))) done += slot_next(x);
  }
  if (c->at == c->count && !c->listed) {
    list_more(s, c);
    *more = true;
  } else if (c->at == c->count && c->listed && all_free(c)) {
    done += volume_scrub_step(&c->volumes, bytes - min_u64(done, bytes), more);
    if (!c->volumes.finished) return done;
    s->scrub_stats.passes++;
    scrub_finish(s);
  }
  return done;
}

void shard_scrub_stats(const struct shard *s, struct shard_scrub_stats *stats) {
  *stats = s->scrub_stats;
}
