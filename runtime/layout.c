/* layout.c - opening: from the user's string to backings, identities, regions and the root.
 * Writing a layout is in layout_write.c. */
#include "runtime/layout_internal.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shards/base/plant.h"

/* Where the parts come from: names of devices, a directory, or backings that are already open. */
struct source {
  const char *where;
  struct backing *const *backings;
  uint32_t backing_count, lock_timeout_ms;
  bool directory;
  enum damaged_mode damaged;
  const struct damage_sink *damage;
};

bool layout_is_memory(const char *where) { return strncmp(where, "mem:", 4) == 0; }

void *layout_blocks_alloc(uint64_t blocks) {
  void *p = aligned_alloc(BLOCK_BYTES, blocks << BLOCK_SHIFT);
  if (p) memset(p, 0, blocks << BLOCK_SHIFT);
  return p;
}

bool layout_number(const char **at, uint64_t *value) {
  uint64_t v = 0;
  if (!isdigit((unsigned char)**at)) return false;
  for (; isdigit((unsigned char)**at); (*at)++)
    if (__builtin_mul_overflow(v, UINT64_C(10), &v) ||
        __builtin_add_overflow(v, (uint64_t)(**at - '0'), &v))
      return false;
  *value = v;
  return true;
}

int layout_open_device(struct backing **b, const char *name, bool read_only,
                       const struct logger *logger) {
  struct backing_open how = {.read_only = read_only};
  int r;
  if (strncmp(name, "fd:", 3) == 0) {
    const char *end = name + 3;
    uint64_t fd;
    if (!layout_number(&end, &fd) || *end || fd > INT32_MAX) {
      log_line(logger, 0, "%s: not a descriptor: write fd:N", name);
      return -EINVAL;
    }
    r = backing_open_fd(b, (int)fd, read_only, logger);
  } else {
    r = backing_open_path(b, name, &how, logger);
  }
  if (r) log_line(logger, 0, "%s: cannot be opened: %s", name, strerror(-r));
  return r;
}

int layout_split(const char *where, char (*names)[LAYOUT_NAME_BYTES], uint32_t max,
                 const struct logger *logger) {
  uint32_t n = 0;
  while (*where) {
    const char *comma = strchrnul(where, ',');
    size_t length = (size_t)(comma - where);
    bool last_is_empty = *comma && !comma[1];
    if (length == 0 || length >= LAYOUT_NAME_BYTES || n == max || last_is_empty) {
      log_line(logger, 0, "store \"%s\": an empty, too long or surplus name", where);
      return -EINVAL;
    }
    memcpy(names[n], where, length);
    names[n++][length] = 0;
    where = *comma ? comma + 1 : comma;
  }
  return n ? (int)n : -EINVAL;
}

int layout_lock(struct backing *b, bool exclusive, uint32_t timeout_ms,
                const struct logger *logger) {
  int r = b->ops->lock ? b->ops->lock(b, exclusive, timeout_ms) : 0;
  if (r == -EBUSY)
    log_line(logger, 0, "%s: locked: another process has this store open%s", b->name,
             exclusive ? "" : " for writing");
  else if (r)
    log_line(logger, 0, "%s: cannot be locked: %s", b->name, strerror(-r));
  return r;
}

int layout_read_copy(struct backing *b, uint64_t block, struct identity *id, char *why,
                     size_t why_bytes) {
  uint64_t end = b->bytes >> BLOCK_SHIFT;
  if (end < FORMAT_IDENTITY_BLOCKS || block > end - FORMAT_IDENTITY_BLOCKS) {
    snprintf(why, why_bytes, "too short (%llu bytes): truncated", (unsigned long long)b->bytes);
    return -EBADMSG;
  }
  void *buf = layout_blocks_alloc(FORMAT_IDENTITY_BLOCKS);
  if (!buf) {
    snprintf(why, why_bytes, "out of memory");
    return -ENOMEM;
  }
  int r = b->ops->read(b, buf, FORMAT_IDENTITY_BLOCKS << BLOCK_SHIFT, block << BLOCK_SHIFT);
  if (r)
    snprintf(why, why_bytes, "cannot be read: %s", strerror(-r));
  else
    r = identity_decode(id, buf, why, why_bytes);
  free(buf);
  return r;
}

static bool copy_usable(int r) { return r == 0 || r == -EROFS; }

/* r as it was, if all that the identity speaks of is there. */
static int check_length(const struct backing *b, const struct identity *id, int r, char *why,
                        size_t why_bytes) {
  if (id->backing_blocks <= b->bytes >> BLOCK_SHIFT) return r;
  snprintf(why, why_bytes, "truncated: the store uses %llu blocks, %llu are there",
           (unsigned long long)id->backing_blocks, (unsigned long long)(b->bytes >> BLOCK_SHIFT));
  return -EBADMSG;
}

int layout_read_identity(struct backing *b, struct identity *id, const struct logger *logger) {
  struct identity *last = malloc(sizeof *last);
  if (!last) return -ENOMEM;
  char why[160] = "", why_last[160] = "";
  int r = layout_read_copy(b, 0, id, why, sizeof why);
  if (r == -ENOTSUP) goto out; /* a newer format: what its second copy says is no concern of ours */
  uint64_t blocks = copy_usable(r) ? id->backing_blocks : b->bytes >> BLOCK_SHIFT;
  uint64_t place = blocks >= FORMAT_IDENTITY_BLOCKS ? blocks - FORMAT_IDENTITY_BLOCKS : 0;
  if (copy_usable(r) && (r = check_length(b, id, r, why, sizeof why)) == -EBADMSG) goto out;
  int s = layout_read_copy(b, place, last, why_last, sizeof why_last);
  if (copy_usable(r) && !copy_usable(s)) {
    log_line(logger, 1, "%s: second identity copy, block %llu: %s; the first one serves", b->name,
             (unsigned long long)place, why_last);
  } else if (copy_usable(s) && (!copy_usable(r) || last->generation > id->generation)) {
    if (!copy_usable(r))
      log_line(logger, 1, "%s: first identity copy, block 0: %s; the second one serves", b->name,
               why);
    memcpy(id, last, sizeof *id);
    r = check_length(b, id, s, why, sizeof why);
  }
out:
  if (r == -EROFS)
    log_line(logger, 1, "%s: %s", b->name, why);
  else if (r)
    log_line(logger, 0, "%s: identity, block 0: %s", b->name, why);
  free(last);
  return r;
}

int layout_adopt(struct layout *l, struct backing *b, struct identity **ids,
                 const struct identity *id, const struct logger *logger) {
  if (id->backing_count > LAYOUT_BACKINGS_MAX || id->backing_index >= id->backing_count) {
    log_line(logger, 0, "%s: identity: part %u of %u", b->name, id->backing_index,
             id->backing_count);
    return -EBADMSG;
  }
  for (uint32_t i = 0; i < LAYOUT_BACKINGS_MAX; i++) {
    if (!ids[i]) continue;
    if (memcmp(ids[i]->uuid, id->uuid, 16) != 0) {
      log_line(logger, 0, "%s: belongs to another store than %s: put the right part in its place",
               b->name, l->backings[i]->name);
      return -EMEDIUMTYPE;
    }
    break;
  }
  if (ids[id->backing_index]) {
    log_line(logger, 0, "%s: is part %u, as %s is: the same part twice", b->name, id->backing_index,
             l->backings[id->backing_index]->name);
    return -EMEDIUMTYPE;
  }
  struct identity *copy = malloc(sizeof *copy);
  if (!copy) return -ENOMEM;
  memcpy(copy, id, sizeof *copy);
  ids[id->backing_index] = copy;
  l->backings[id->backing_index] = b;
  return 0;
}

/* Locks, reads and adopts an opened backing; closes it on failure. */
static int take_part(struct layout *l, struct backing *b, struct identity **ids, int expect_index,
                     uint32_t timeout_ms, const struct logger *logger) {
  struct identity *id = malloc(sizeof *id);
  if (!id) {
    backing_close(b);
    return -ENOMEM;
  }
  int r = layout_lock(b, !l->read_only, timeout_ms, logger);
  if (!r) r = layout_read_identity(b, id, logger);
  if (r == -EROFS && l->read_only) r = 0;
  if (!r && expect_index >= 0 && id->backing_index != (uint32_t)expect_index) {
    log_line(logger, 0, "%s: holds part %u of the store, not %d: files were swapped", b->name,
             id->backing_index, expect_index);
    r = -EMEDIUMTYPE;
  }
  if (!r) r = layout_adopt(l, b, ids, id, logger);
  free(id);
  if (r) backing_close(b);
  return r;
}

static int open_part(struct layout *l, const char *name, struct identity **ids, int expect_index,
                     uint32_t timeout_ms, const struct logger *logger) {
  struct backing *b;
  int r = layout_open_device(&b, name, l->read_only, logger);
  return r ? r : take_part(l, b, ids, expect_index, timeout_ms, logger);
}

void layout_part_path(char *path, size_t bytes, const char *directory, uint32_t index) {
  if (index == 0)
    snprintf(path, bytes, "%s/root", directory);
  else
    snprintf(path, bytes, "%s/shard-%04u", directory, index - 1);
}

static int open_directory(struct layout *l, const char *where, struct identity **ids,
                          uint32_t timeout_ms, const struct logger *logger) {
  char path[LAYOUT_NAME_BYTES + 32];
  layout_part_path(path, sizeof path, where, 0);
  if (access(path, F_OK) != 0) {
    log_line(logger, 0, "%s: not a store: no file \"root\" in it (shard-ctl format makes one)",
             where);
    return errno == ENOENT ? -EMEDIUMTYPE : -errno;
  }
  int r = open_part(l, path, ids, 0, timeout_ms, logger);
  for (uint32_t i = 1; !r && i < ids[0]->backing_count; i++) {
    layout_part_path(path, sizeof path, where, i);
    r = open_part(l, path, ids, (int)i, timeout_ms, logger);
  }
  return r;
}

static int open_devices(struct layout *l, const char *where, struct identity **ids,
                        uint32_t timeout_ms, const struct logger *logger) {
  char(*names)[LAYOUT_NAME_BYTES] = calloc(LAYOUT_DEVICES_MAX, sizeof *names);
  if (!names) return -ENOMEM;
  int n = layout_split(where, names, LAYOUT_DEVICES_MAX, logger);
  int r = n < 0 ? n : 0;
  for (int i = 0; !r && i < n; i++) r = open_part(l, names[i], ids, -1, timeout_ms, logger);
  free(names);
  return r;
}

/* All identities must tell one story: same counts, no segment missing, none twice. */
static int check_parts(struct layout *l, struct identity **ids, const struct logger *logger) {
  const struct identity *first = NULL;
  uint32_t count = 0;
  for (uint32_t i = 0; i < LAYOUT_BACKINGS_MAX; i++) {
    if (!ids[i]) continue;
    if (!first || ids[i]->generation > first->generation) first = ids[i];
    count++;
  }
  if (count != first->backing_count || !ids[0]) {
    log_line(logger, 0, "store has %u parts, %u were given%s: name all of them",
             first->backing_count, count, ids[0] ? "" : "; the first one is missing");
    return -EMEDIUMTYPE;
  }
  for (uint32_t i = 0; i < count; i++) {
    if (!ids[i] || ids[i]->shard_count != first->shard_count ||
        ids[i]->log_blocks != first->log_blocks || ids[i]->hash_key[0] != first->hash_key[0] ||
        ids[i]->hash_key[1] != first->hash_key[1]) {
      log_line(logger, 0, "part %u is missing or contradicts the others", i);
      return -EBADMSG;
    }
  }
  l->backing_count = count;
  l->shard_count = first->shard_count;
  l->log_blocks = first->log_blocks;
  memcpy(l->uuid, first->uuid, sizeof l->uuid);
  memcpy(l->hash_key, first->hash_key, sizeof l->hash_key);
  l->root_block = ids[0]->root_block;
  l->root_slot_blocks = ids[0]->root_slot_blocks;
  if (l->root_slot_blocks != 2 * root_copy_blocks(l->shard_count)) {
    log_line(logger, 0, "%s: identity: root slots of %llu blocks do not fit %u shards",
             l->backings[0]->name, (unsigned long long)l->root_slot_blocks, l->shard_count);
    return -EBADMSG;
  }
  return 0;
}

static const struct format_segment *find_segment(struct layout *l, struct identity **ids,
                                                 uint32_t shard, uint32_t ordinal,
                                                 uint32_t *backing) {
  for (uint32_t b = 0; b < l->backing_count; b++)
    for (uint32_t i = 0; i < ids[b]->segment_count; i++)
      if (ids[b]->segments[i].shard == shard && ids[b]->segments[i].ordinal == ordinal) {
        *backing = b;
        return &ids[b]->segments[i];
      }
  return NULL;
}

static void mark_shared(struct layout *l, struct identity **ids) {
  for (uint32_t b = 0; b < l->backing_count; b++)
    for (uint32_t i = 1; i < ids[b]->segment_count; i++)
      if (ids[b]->segments[i].shard != ids[b]->segments[0].shard) l->shared[b] = true;
}

static int build_regions(struct layout *l, struct identity **ids, const struct source *from,
                         const struct logger *logger) {
  l->regions = calloc(l->shard_count, sizeof *l->regions);
  l->shared = calloc(l->backing_count, sizeof *l->shared);
  l->used_blocks = calloc(l->backing_count, sizeof *l->used_blocks);
  if (!l->regions || !l->shared || !l->used_blocks) return -ENOMEM;
  uint64_t segments = 0; /* that no region has */
  for (uint32_t b = 0; b < l->backing_count; b++) {
    l->used_blocks[b] = ids[b]->backing_blocks;
    segments += ids[b]->segment_count;
  }
  for (uint32_t s = 0; s < l->shard_count; s++) {
    struct region *r = &l->regions[s];
    r->log_blocks = l->log_blocks;
    const struct format_segment *f;
    uint32_t b;
    while (r->segment_count < REGION_SEGMENTS_MAX &&
           (f = find_segment(l, ids, s, r->segment_count, &b))) {
      r->segments[r->segment_count++] = (struct segment){.backing = l->backings[b],
                                                         .file = (uint16_t)b,
                                                         .first_block = f->first_block,
                                                         .blocks = f->blocks,
                                                         .region_block = r->blocks};
      r->blocks += f->blocks;
    }
    int e = l->damaged ? layout_complete_region(l, ids, s, from->directory) : 0;
    if (e || r->segment_count == 0 || r->segments[0].blocks <= l->log_blocks) {
      log_line(logger, 0, "shard %u: its region is missing or too short for its log", s);
      return -EBADMSG;
    }
    segments -= r->segment_count;
  }
  if (segments && !l->damaged) {
    log_line(logger, 0,
             "%llu segments have no place in any region: one before them is missing, "
             "or two parts claim the same place",
             (unsigned long long)segments);
    return -EBADMSG;
  }
  mark_shared(l, ids);
  return 0;
}

/* Where a newer root than the one that was found would lie. */
static int check_next_slot(const struct layout *l, const int *unread, const struct logger *logger) {
  uint32_t slot = root_slot_of_epoch(l->root->epoch + 1);
  if (!unread[slot]) return 0;
  log_line(logger, 0,
           "%s: root slot %u cannot be read, and may have a newer root than epoch %llu: try again; "
           "shard-ctl salvage copies out what the older one names",
           l->backings[0]->name, slot, (unsigned long long)l->root->epoch);
  return unread[slot];
}

/* The newest valid copy of all slots. A damaged copy is told, and survived. */
static int read_root(struct layout *l, const struct logger *logger) {
  uint64_t copy = l->root_slot_blocks / 2;
  void *buf = layout_blocks_alloc(copy);
  struct root *root = malloc(sizeof *root);
  int result = -EBADMSG, unread = 0;
  int unread_slots[FORMAT_ROOT_SLOTS] = {0}; /* errors, where no copy is sound */
  bool sound[FORMAT_ROOT_SLOTS] = {0};
  l->root = calloc(1, sizeof *l->root);
  if (!buf || !root || !l->root) {
    result = -ENOMEM;
    goto out;
  }
  for (uint32_t i = 0; i < 2 * FORMAT_ROOT_SLOTS; i++) {
    uint64_t block = l->root_block + i * copy;
    char why[160] = "";
    struct backing *b = l->backings[0];
    int r = b->ops->read(b, buf, copy << BLOCK_SHIFT, block << BLOCK_SHIFT);
    if (r) snprintf(why, sizeof why, "cannot be read: %s", strerror(-r));
    if (r) unread = unread_slots[i / 2] = r;
    if (!r) r = root_decode(root, l->uuid, l->shard_count, buf, why, sizeof why);
    if (!r && !root_belongs_in_slot(root->epoch, i / 2)) {
      snprintf(why, sizeof why, "epoch %llu does not belong in this slot",
               (unsigned long long)root->epoch);
      r = -EBADMSG;
    }
    sound[i / 2] |= r == 0;
    if (sound[i / 2]) unread_slots[i / 2] = 0;
    if (r == -ENODATA) continue;
    if (r) {
      log_line(logger, 1, "%s: root slot %u copy %u, block %llu: %s", b->name, i / 2, i % 2,
               (unsigned long long)block, why);
    } else if (result || (root->epoch > l->root->epoch) != PLANTED(accept_an_old_root)) {
      memcpy(l->root, root, sizeof *root);
      result = 0;
    }
  }
  if (result && l->damaged) {
    struct damage d = {.kind = DAMAGE_ROOT,
                       .error = -EBADMSG,
                       .shard = DAMAGE_NO_SHARD,
                       .backing = l->backings[0]->name,
                       .block = l->root_block,
                       .blocks = FORMAT_ROOT_SLOTS * l->root_slot_blocks,
                       .changes = DAMAGE_COUNT_UNKNOWN,
                       .what =
                           "no valid root in any slot: what was not flushed last may count, and "
                           "what only checkpoints had is lost unless it is searched for"};
    damage_report(&l->damage, &d);
    result = layout_search_root(l);
  } else if (l->damaged) {
    result = layout_check_root(l);
  } else if (result) {
    log_line(logger, 0, "%s: no valid root in any slot, blocks %llu and on", l->backings[0]->name,
             (unsigned long long)l->root_block);
    if (unread) result = unread; /* what cannot be read now is not yet lost */
  } else {
    result = check_next_slot(l, unread_slots, logger);
  }
out:
  free(buf);
  free(root);
  return result;
}

static int open_named(struct layout *l, struct source *from, struct identity **ids,
                      const struct logger *logger) {
  struct stat st;
  const char *where = from->where;
  bool one_path = strncmp(where, "fd:", 3) != 0 && !strchr(where, ',');
  if (one_path && stat(where, &st) != 0) {
    int r = -errno;
    log_line(logger, 0, "%s: %s", where, strerror(-r));
    return r;
  }
  from->directory = one_path && S_ISDIR(st.st_mode);
  uint32_t timeout_ms = from->lock_timeout_ms;
  if (l->damaged)
    return from->directory ? layout_open_directory_damaged(l, where, ids, timeout_ms, logger)
                           : layout_open_devices_damaged(l, where, ids, timeout_ms, logger);
  return from->directory ? open_directory(l, where, ids, timeout_ms, logger)
                         : open_devices(l, where, ids, timeout_ms, logger);
}

static int take_backings(struct layout *l, const struct source *from, struct identity **ids,
                         const struct logger *logger) {
  int r = 0;
  for (uint32_t i = 0; i < from->backing_count; i++) {
    if (r) /* all are ours now, whatever became of the others */
      backing_close(from->backings[i]);
    else
      r = take_part(l, from->backings[i], ids, -1, from->lock_timeout_ms, logger);
  }
  return r;
}

static int open_from(struct layout **out, struct source *from, bool read_only,
                     const struct logger *logger) {
  struct layout *l = calloc(1, sizeof *l);
  struct identity **ids = calloc(LAYOUT_BACKINGS_MAX, sizeof *ids);
  int r = -ENOMEM;
  if (!l || !ids) goto out;
  l->read_only = read_only;
  l->damaged = from->damaged;
  if (from->damage) l->damage = *from->damage;
  r = from->where ? open_named(l, from, ids, logger) : take_backings(l, from, ids, logger);
  if (!r) r = check_parts(l, ids, logger);
  if (!r) r = build_regions(l, ids, from, logger);
  if (!r) r = read_root(l, logger);
out:
  for (uint32_t i = 0; ids && i < LAYOUT_BACKINGS_MAX; i++) free(ids[i]);
  free(ids);
  if (r) {
    layout_close(l);
    return r;
  }
  *out = l;
  return 0;
}

int layout_open(struct layout **out, const char *where, bool read_only, uint32_t lock_timeout_ms,
                uint32_t memory_shards, const struct logger *logger) {
  if (layout_is_memory(where)) return layout_open_memory(out, where, memory_shards, logger);
  struct source from = {.where = where, .lock_timeout_ms = lock_timeout_ms};
  return open_from(out, &from, read_only, logger);
}

int layout_open_damaged(struct layout **out, const char *where, uint32_t lock_timeout_ms,
                        enum damaged_mode mode, const struct damage_sink *damage,
                        const struct logger *logger) {
  if (layout_is_memory(where)) return -EINVAL;
  struct source from = {
      .where = where, .lock_timeout_ms = lock_timeout_ms, .damaged = mode, .damage = damage};
  return open_from(out, &from, true, logger);
}

int layout_open_backings(struct layout **out, struct backing *const *backings, uint32_t count,
                         bool read_only, const struct logger *logger) {
  struct source from = {.backings = backings, .backing_count = count};
  return open_from(out, &from, read_only, logger);
}

void layout_close(struct layout *l) {
  if (!l) return;
  for (uint32_t i = 0; i < LAYOUT_BACKINGS_MAX; i++)
    if (l->backings[i]) backing_close(l->backings[i]);
  free(l->regions);
  free(l->shared);
  free(l->used_blocks);
  free(l->root);
  free(l);
}
