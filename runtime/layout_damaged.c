/* layout_damaged.c - opening what is left of a store, read-only. On the thread that opens.
 *
 * A part that is not there is replaced by an empty file in memory, of which nothing can be read:
 * -EIO. A packed file without identities is taken as it is when it lies in the directory under its
 * name: there the place of a region follows from the file's length, and every frame says itself
 * whose it is. Without a root the logs say where they end; the directory of checkpoints is then
 * lost unless it is searched for (shards/recover_search.c). */
#include "runtime/layout_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "shards/log.h"

/* What is only tried must not be logged as an error. */
static void log_as_info(void *arg, int level, const char *text) {
  (void)level;
  log_line(arg, 2, "%s", text);
}

static void report(const struct layout *l, enum damage_kind kind, uint32_t shard, const char *name,
                   int error, const char *what) {
  struct damage d = {.kind = kind, .error = error, .shard = shard, .backing = name, .what = what};
  damage_report(&l->damage, &d);
}

/* ---- Parts ---------------------------------------------------------------------------------- */

static int open_placeholder(struct backing **b, const char *name, const struct logger *quiet) {
  int fd = memfd_create("missing part", MFD_CLOEXEC);
  if (fd < 0) return -errno;
  int r = backing_open_fd(b, fd, true, quiet);
  close(fd);
  if (!r) snprintf((*b)->name, sizeof(*b)->name, "%.200s (missing)", name);
  return r;
}

/* The identity of an opened part, as far as there is one; a part that was cut off keeps it. */
static int read_identity(struct layout *l, struct backing *b, struct identity *id,
                         const struct logger *quiet) {
  char why[160];
  int r = layout_read_identity(b, id, quiet);
  if (r == -EBADMSG && layout_read_copy(b, 0, id, why, sizeof why) == 0 &&
      id->backing_blocks > b->bytes >> BLOCK_SHIFT) {
    report(l, DAMAGE_PART, DAMAGE_NO_SHARD, b->name, r, "cut off: its end is missing");
    r = 0;
  }
  return r == -EROFS ? 0 : r;
}

/* Opens and adopts one part. *rest: if it has no identity, the backing is left there. */
static int open_part(struct layout *l, const char *name, struct identity **ids, int expect,
                     uint32_t timeout_ms, const struct logger *quiet, struct backing **rest) {
  struct backing *b;
  int r = layout_open_device(&b, name, true, quiet);
  if (r) return r;
  struct identity *id = malloc(sizeof *id);
  bool has_identity = false;
  r = id ? layout_lock(b, false, timeout_ms, quiet) : -ENOMEM;
  if (!r) {
    r = read_identity(l, b, id, quiet);
    has_identity = !r;
  }
  if (!r && expect >= 0 && id->backing_index != (uint32_t)expect) r = -EMEDIUMTYPE;
  if (!r) r = layout_adopt(l, b, ids, id, quiet);
  free(id);
  if (r && !has_identity && r != -EBUSY && r != -ENOMEM && expect >= 0)
    *rest = b;
  else if (r)
    backing_close(b);
  return r;
}

static const struct identity *newest(struct identity **ids) {
  const struct identity *first = NULL;
  for (uint32_t i = 0; i < LAYOUT_BACKINGS_MAX; i++)
    if (ids[i] && (!first || ids[i]->generation > first->generation)) first = ids[i];
  return first;
}

/* A part without identity gets one that says what follows from the others. b: its file, or NULL. */
static int stand_in(struct layout *l, struct identity **ids, const struct identity *first,
                    uint32_t index, struct backing *b, const char *name,
                    const struct logger *quiet) {
  char what[120];
  struct identity *id = malloc(sizeof *id);
  bool there = b != NULL;
  if (!id) return -ENOMEM;
  *id = *first;
  id->backing_index = index;
  id->segment_count = 0;
  id->root_block = FORMAT_IDENTITY_BLOCKS;
  id->root_slot_blocks = 2 * root_copy_blocks(first->shard_count);
  id->backing_blocks = there ? b->bytes >> BLOCK_SHIFT : 0;
  if (there && index > 0 && id->backing_blocks > 2 * FORMAT_IDENTITY_BLOCKS + id->log_blocks) {
    id->segments[id->segment_count++] =
        (struct format_segment){.shard = index - 1,
                                .first_block = FORMAT_IDENTITY_BLOCKS,
                                .blocks = id->backing_blocks - 2 * FORMAT_IDENTITY_BLOCKS};
  } else if (there && index > 0) {
    backing_close(b);
    there = false;
  }
  snprintf(what, sizeof what, "part %u of the store %s", index,
           there ? "has no identity any more; taken for what its name says"
                 : "is missing or not readable as such");
  report(l, DAMAGE_PART, DAMAGE_NO_SHARD, name, there ? -EBADMSG : -ENOENT, what);
  int r = there ? 0 : open_placeholder(&b, name, quiet);
  if (r) {
    free(id);
    return r;
  }
  if (!there) id->backing_blocks = 0;
  ids[index] = id;
  l->backings[index] = b;
  return 0;
}

int layout_open_directory_damaged(struct layout *l, const char *where, struct identity **ids,
                                  uint32_t timeout_ms, const struct logger *logger) {
  struct logger quiet = {log_as_info, (void *)(uintptr_t)logger};
  struct backing **rest = calloc(LAYOUT_BACKINGS_MAX, sizeof *rest);
  char path[LAYOUT_NAME_BYTES + 32];
  uint32_t count = LAYOUT_BACKINGS_MAX;
  int r = rest ? 0 : -ENOMEM;
  for (uint32_t i = 0; !r && i < count; i++) {
    layout_part_path(path, sizeof path, where, i);
    if (access(path, F_OK) != 0) continue;
    int e = open_part(l, path, ids, (int)i, timeout_ms, &quiet, &rest[i]);
    if (e == -EBUSY || e == -ENOMEM) r = e;
    if (!e) count = min_u64(ids[i]->backing_count, LAYOUT_BACKINGS_MAX);
  }
  const struct identity *first = newest(ids);
  if (!r && !first) {
    log_line(logger, 0, "%s: no part with a readable identity", where);
    r = -EMEDIUMTYPE;
  }
  for (uint32_t i = 0; !r && i < count; i++) {
    if (ids[i]) continue;
    layout_part_path(path, sizeof path, where, i);
    struct backing *b = rest[i];
    rest[i] = NULL;
    r = stand_in(l, ids, first, i, b, path, &quiet);
  }
  for (uint32_t i = 0; rest && i < LAYOUT_BACKINGS_MAX; i++)
    if (rest[i]) backing_close(rest[i]);
  free(rest);
  return r;
}

int layout_open_devices_damaged(struct layout *l, const char *where, struct identity **ids,
                                uint32_t timeout_ms, const struct logger *logger) {
  struct logger quiet = {log_as_info, (void *)(uintptr_t)logger};
  char(*names)[LAYOUT_NAME_BYTES] = calloc(LAYOUT_DEVICES_MAX, sizeof *names);
  if (!names) return -ENOMEM;
  int n = layout_split(where, names, LAYOUT_DEVICES_MAX, logger), r = n < 0 ? n : 0;
  for (int i = 0; !r && i < n; i++) {
    struct backing *none = NULL;
    int e = open_part(l, names[i], ids, -1, timeout_ms, &quiet, &none);
    if (e == -EBUSY || e == -ENOMEM) r = e;
    if (e) report(l, DAMAGE_PART, DAMAGE_NO_SHARD, names[i], e, "no part of the store");
  }
  free(names);
  const struct identity *first = newest(ids);
  if (!r && !first) {
    log_line(logger, 0, "%s: no part with a readable identity", where);
    r = -EMEDIUMTYPE;
  }
  for (uint32_t i = 0; !r && i < first->backing_count && i < LAYOUT_BACKINGS_MAX; i++)
    if (!ids[i]) r = stand_in(l, ids, first, i, NULL, "device", &quiet);
  return r;
}

/* ---- Regions -------------------------------------------------------------------------------- */

static int missing_part(const struct layout *l) {
  for (uint32_t b = 0; b < l->backing_count; b++)
    if (l->used_blocks[b] == 0) return (int)b;
  return -1;
}

/* Where blocks lie that nobody can read. */
static void add_unreadable(struct layout *l, struct region *r, uint32_t b, uint64_t blocks) {
  r->segments[r->segment_count++] = (struct segment){
      .backing = l->backings[b], .file = (uint16_t)b, .blocks = blocks, .region_block = r->blocks};
  r->blocks += blocks;
}

int layout_complete_region(struct layout *l, struct identity **ids, uint32_t shard,
                           bool directory) {
  struct region *r = &l->regions[shard];
  int b = missing_part(l);
  bool begins = r->segment_count > 0 && r->segments[0].blocks > l->log_blocks;
  if (begins && (b < 0 || directory || r->segment_count == REGION_SEGMENTS_MAX)) return 0;
  if (b < 0) return -EBADMSG;
  if (!begins) {
    r->segment_count = 0;
    r->blocks = 0;
    add_unreadable(l, r, (uint32_t)b, l->log_blocks + 256);
    return 0;
  }
  /* How long its segments on a missing device were is not known; not much longer than others. */
  uint64_t longest = 0;
  for (uint32_t p = 0; p < l->backing_count; p++)
    for (uint32_t i = 0; i < ids[p]->segment_count; i++)
      longest = max_u64(longest, ids[p]->segments[i].blocks);
  add_unreadable(l, r, (uint32_t)b, 4 * longest);
  return 0;
}

/* ---- The root ------------------------------------------------------------------------------- */

struct last_frame {
  struct frame f;
  uint64_t next; /* position behind it */
  uint64_t head; /* lowest position of a frame that may belong to the same round */
  bool found;
};

/* The frame at a place of the ring if it is sound and this shard's; buf: FRAME_BLOCKS_MAX. */
static bool sound_frame(const struct layout *l, uint32_t shard, uint64_t place, char *buf,
                        struct frame *f) {
  const struct region *r = &l->regions[shard];
  const char *why;
  if (region_read(r, buf, place, 1) || frame_decode_header(f, buf, &why)) return false;
  if (f->store != log_store_key(l->uuid) || f->shard != shard ||
      log_place(f->position, l->log_blocks) != place)
    return false;
  uint64_t blocks = frame_blocks(f->payload_bytes);
  if (blocks > l->log_blocks - place || (blocks > 1 && region_read(r, buf, place, blocks)))
    return false;
  /* It may have been read again. */
  return frame_decode_header(f, buf, &why) == 0 && frame_checksum_matches(buf, blocks);
}

static bool is_later(const struct frame *a, const struct frame *b) {
  return a->incarnation != b->incarnation ? a->incarnation > b->incarnation
                                          : a->position > b->position;
}

/* How much of a log is there to be read: no more than its file has, whatever an identity says. */
static uint64_t log_blocks_there(const struct layout *l, uint32_t shard) {
  const struct segment *first = &l->regions[shard].segments[0];
  uint64_t blocks = first->backing->bytes >> BLOCK_SHIFT;
  return blocks > first->first_block ? min_u64(l->log_blocks, blocks - first->first_block) : 0;
}

/* Two passes over the ring: the last frame, then how far back its round goes. */
static void search_log(const struct layout *l, uint32_t shard, char *buf, struct last_frame *x) {
  uint64_t end = log_blocks_there(l, shard);
  *x = (struct last_frame){0};
  for (int pass = 0; pass < 2; pass++)
    for (uint64_t place = 0; place < end; place++) {
      struct frame f;
      if (!sound_frame(l, shard, place, buf, &f)) continue;
      if (pass == 0 && (!x->found || is_later(&f, &x->f))) {
        x->f = f;
        x->found = true;
        x->next = log_next(f.position, frame_blocks(f.payload_bytes), f.flags, l->log_blocks);
        x->head = f.position;
      } else if (pass == 1 && f.position < x->head && f.sequence <= x->f.sequence &&
                 f.incarnation <= x->f.incarnation && f.position + l->log_blocks >= x->next) {
        x->head = f.position;
      }
    }
}

int layout_search_root(struct layout *l) {
  char *buf = aligned_alloc(BLOCK_BYTES, FRAME_BYTES_MAX);
  if (!buf) return -ENOMEM;
  memset(l->root, 0, sizeof *l->root);
  l->root->shard_count = l->shard_count;
  l->root_searched = true;
  for (uint32_t s = 0; s < l->shard_count; s++) {
    struct root_shard *r = &l->root->shards[s];
    struct last_frame x;
    search_log(l, s, buf, &x);
    r->sequence = 1;
    if (!x.found) continue;
    *r = (struct root_shard){.log_head = x.head,
                             .log_tail = x.next,
                             .sequence = x.f.sequence + x.f.entry_count,
                             .chain = x.f.checksum};
    l->root->incarnation = max_u64(l->root->incarnation, x.f.incarnation);
    l->root->epoch = max_u64(l->root->epoch, x.f.epoch);
  }
  free(buf);
  return 0;
}

int layout_check_root(struct layout *l) {
  char *buf = aligned_alloc(BLOCK_BYTES, FRAME_BYTES_MAX);
  if (!buf) return -ENOMEM;
  for (uint32_t s = 0; s < l->shard_count && !l->root_lost; s++) {
    const struct root_shard *r = &l->root->shards[s];
    uint64_t position = r->log_tail, end = r->log_head + l->log_blocks;
    uint32_t chain = r->chain;
    struct frame f;
    while (position < end && !l->root_lost &&
           sound_frame(l, s, log_place(position, l->log_blocks), buf, &f) &&
           f.position == position && f.chain == chain) {
      l->root_lost = f.epoch > l->root->epoch || f.incarnation > l->root->incarnation;
      position = log_next(position, frame_blocks(f.payload_bytes), f.flags, l->log_blocks);
      chain = f.checksum;
    }
  }
  free(buf);
  if (!l->root_lost) return 0;
  struct damage d = {.kind = DAMAGE_ROOT,
                     .error = -EBADMSG,
                     .shard = DAMAGE_NO_SHARD,
                     .backing = l->backings[0]->name,
                     .block = l->root_block,
                     .blocks = FORMAT_ROOT_SLOTS * l->root_slot_blocks,
                     .changes = DAMAGE_COUNT_UNKNOWN,
                     .what = "a newer root was durable and is lost: an older one serves"};
  damage_report(&l->damage, &d);
  return 0;
}
