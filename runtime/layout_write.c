/* layout_write.c - format and grow: what is written, in which order, so that a crash or an
 * error in between leaves no half store.
 *
 * Format: every part but the first, its two identities last; then the first part: root slots,
 * root of epoch 1, flush, identities, flush. A store without the identity of its first part is
 * no store. Grow: per part, the new last copy, flush, then the first copy, flush; the copy
 * with the higher generation wins. */
#include "runtime/layout_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHUNK_BYTES     (1u << 20)
#define SHARD_BYTES_MIN (UINT64_C(16) << 20)
#define LOG_BYTES_MIN   (UINT64_C(1) << 20)
#define LOG_BYTES_MAX   (UINT64_C(1) << 30)
/* A shorter log is replayed sooner, but has its index checkpointed more often: with 1/512 of the
 * region, the smallest blobs (4 KiB, 32 bytes in a checkpoint) and a full region, checkpoints write
 * 8 bytes per byte of log, 6 % of the data. */
#define LOG_SHARE 512

/* One part on its way to become part of a store. */
struct part {
  char name[LAYOUT_NAME_BYTES + 32];
  struct backing *backing;
  struct identity *identity;
  bool created; /* by us: unlink it on failure */
};
struct plan {
  struct part *parts;
  uint32_t count;
  uint64_t zero_done_bytes, zero_total_bytes;
  const struct layout_format *format;
  const struct logger *logger;
  struct root *root;
};

static uint64_t part_overhead_blocks(uint32_t part, uint64_t slot_blocks) {
  return 2 * FORMAT_IDENTITY_BLOCKS + (part == 0 ? FORMAT_ROOT_SLOTS * slot_blocks : 0);
}

static int plan_create(struct plan *p, uint32_t count, const struct layout_format *format,
                       const struct logger *logger) {
  *p = (struct plan){.count = count, .format = format, .logger = logger};
  p->parts = calloc(count, sizeof *p->parts);
  p->root = calloc(1, sizeof *p->root);
  if (!p->parts || !p->root) return -ENOMEM;
  for (uint32_t i = 0; i < count; i++)
    if (!(p->parts[i].identity = calloc(1, sizeof(struct identity)))) return -ENOMEM;
  return 0;
}

static void plan_destroy(struct plan *p, bool failed) {
  for (uint32_t i = 0; p->parts && i < p->count; i++) {
    if (p->parts[i].backing) backing_close(p->parts[i].backing);
    if (failed && p->parts[i].created) unlink(p->parts[i].name);
    free(p->parts[i].identity);
  }
  free(p->parts);
  free(p->root);
}

static int random_fill(void *buf, size_t bytes) {
  return getrandom(buf, bytes, 0) == (ssize_t)bytes ? 0 : -EIO;
}

/* What all identities of the store share. */
static int plan_common(struct plan *p, uint32_t shards, uint64_t log_blocks) {
  struct identity first = {0};
  int r = random_fill(first.uuid, sizeof first.uuid);
  if (!r) r = random_fill(first.hash_key, sizeof first.hash_key);
  if (r) return r;
  first.uuid[6] = (uint8_t)((first.uuid[6] & 0x0f) | 0x40); /* RFC 9562, version 4 */
  first.uuid[8] = (uint8_t)((first.uuid[8] & 0x3f) | 0x80);
  for (uint32_t i = 0; i < p->count; i++) {
    struct identity *id = p->parts[i].identity;
    memcpy(id->uuid, first.uuid, sizeof id->uuid);
    memcpy(id->hash_key, first.hash_key, sizeof id->hash_key);
    id->version = FORMAT_VERSION;
    id->generation = 1;
    id->shard_count = shards;
    id->backing_index = i;
    id->backing_count = p->count;
    id->log_blocks = log_blocks;
  }
  p->parts[0].identity->root_block = FORMAT_IDENTITY_BLOCKS;
  p->parts[0].identity->root_slot_blocks = 2 * root_copy_blocks(shards);
  p->root->epoch = 1;
  p->root->incarnation = 1;
  p->root->shard_count = shards;
  for (uint32_t s = 0; s < shards; s++) p->root->shards[s].sequence = 1;
  return 0;
}

static int choose_log_blocks(const struct layout_format *f, uint64_t region_bytes,
                             const struct logger *logger, uint64_t *blocks) {
  if (region_bytes < SHARD_BYTES_MIN) {
    log_line(logger, 0,
             "format: %llu bytes a shard; at least %llu are needed: more size or fewer shards",
             (unsigned long long)region_bytes, (unsigned long long)SHARD_BYTES_MIN);
    return -EINVAL;
  }
  uint64_t bytes = f->log_bytes;
  if (!bytes) bytes = min_u64(max_u64(region_bytes / LOG_SHARE, LOG_BYTES_MIN), LOG_BYTES_MAX);
  if (bytes < LOG_BYTES_MIN || bytes > region_bytes / 2) {
    log_line(logger, 0, "format: a log of %llu bytes: legal are %llu to half of a region (%llu)",
             (unsigned long long)bytes, (unsigned long long)LOG_BYTES_MIN,
             (unsigned long long)(region_bytes / 2));
    return -EINVAL;
  }
  *blocks = bytes >> BLOCK_SHIFT;
  return 0;
}

static void add_segment(struct identity *id, uint32_t shard, uint32_t ordinal, uint64_t first,
                        uint64_t blocks) {
  id->segments[id->segment_count++] = (struct format_segment){
      .shard = shard, .ordinal = ordinal, .first_block = first, .blocks = blocks};
}

/* ---- Writing ------------------------------------------------------------------------ */

static int write_zeros(struct plan *p, struct backing *b, uint64_t first, uint64_t blocks,
                       const void *zeros) {
  for (uint64_t done = 0; done < blocks;) {
    uint64_t n = min_u64(blocks - done, CHUNK_BYTES >> BLOCK_SHIFT);
    int r = b->ops->write(b, zeros, n << BLOCK_SHIFT, (first + done) << BLOCK_SHIFT);
    if (r) return r;
    done += n;
    p->zero_done_bytes += n << BLOCK_SHIFT;
    if (p->format->progress)
      p->format->progress(p->format->progress_arg, p->zero_done_bytes, p->zero_total_bytes);
  }
  return 0;
}

static int write_identity(const struct part *part, uint64_t block) {
  void *buf = layout_blocks_alloc(FORMAT_IDENTITY_BLOCKS);
  if (!buf) return -ENOMEM;
  identity_encode(part->identity, buf);
  int r = part->backing->ops->write(part->backing, buf, FORMAT_IDENTITY_BLOCKS << BLOCK_SHIFT,
                                    block << BLOCK_SHIFT);
  free(buf);
  return r;
}

static int write_identities(const struct part *part) {
  int r = write_identity(part, part->identity->backing_blocks - FORMAT_IDENTITY_BLOCKS);
  if (!r) r = part->backing->ops->flush(part->backing);
  if (!r) r = write_identity(part, 0);
  if (!r) r = part->backing->ops->flush(part->backing);
  return r;
}

static int write_root_slots(struct plan *p, const void *zeros) {
  struct part *part = &p->parts[0];
  uint64_t slot = part->identity->root_slot_blocks;
  struct backing *b = part->backing;
  void *buf = layout_blocks_alloc(slot);
  if (!buf) return -ENOMEM;
  int r = write_zeros(p, b, part->identity->root_block, FORMAT_ROOT_SLOTS * slot, zeros);
  root_encode(p->root, part->identity->uuid, buf);
  uint64_t place = part->identity->root_block + root_slot_of_epoch(p->root->epoch) * slot;
  if (!r) r = b->ops->write(b, buf, slot << BLOCK_SHIFT, place << BLOCK_SHIFT);
  if (!r) r = b->ops->flush(b);
  free(buf);
  return r;
}

/* A log begins with no frame of another life in it: its first block is cleared. */
static int clear_logs(struct plan *p, const struct part *part, const void *zeros) {
  for (uint32_t i = 0; i < part->identity->segment_count; i++) {
    const struct format_segment *s = &part->identity->segments[i];
    if (s->ordinal != 0) continue;
    int r = write_zeros(p, part->backing, s->first_block, 1, zeros);
    if (r) return r;
  }
  return 0;
}

static int write_data(struct plan *p, const struct part *part, const void *zeros) {
  for (uint32_t i = 0; i < part->identity->segment_count; i++) {
    const struct format_segment *s = &part->identity->segments[i];
    int r = write_zeros(p, part->backing, s->first_block, s->blocks, zeros);
    if (r) return r;
  }
  return 0;
}

static void note_zeroed(struct plan *p) {
  for (uint32_t i = 0; i < p->count; i++)
    for (uint32_t k = 0; k < p->parts[i].identity->segment_count; k++) {
      const struct format_segment *s = &p->parts[i].identity->segments[k];
      if (p->format->prealloc == 1 || p->parts[i].backing->is_block_device)
        p->root->shards[s->shard].zeroed_blocks += s->blocks;
    }
}

static int write_plan(struct plan *p) {
  void *zeros = layout_blocks_alloc(CHUNK_BYTES >> BLOCK_SHIFT);
  if (!zeros) return -ENOMEM;
  note_zeroed(p);
  int r = 0;
  for (uint32_t i = 0; i < p->count; i++)
    for (uint32_t k = 0; k < p->parts[i].identity->segment_count; k++)
      if (p->format->prealloc == 1)
        p->zero_total_bytes += p->parts[i].identity->segments[k].blocks << BLOCK_SHIFT;
  /* An earlier store dies first: from here to the last line there is none. */
  for (uint32_t i = 0; !r && i < p->count; i++)
    r = write_zeros(p, p->parts[i].backing, 0, FORMAT_IDENTITY_BLOCKS, zeros);
  for (uint32_t i = p->count; !r && i-- > 0;) {
    const struct part *part = &p->parts[i];
    r = p->format->prealloc == 1 ? write_data(p, part, zeros) : clear_logs(p, part, zeros);
    if (!r && i == 0) r = write_root_slots(p, zeros);
    if (!r) r = write_identities(part);
    if (r) log_line(p->logger, 0, "%s: format: cannot be written: %s", part->name, strerror(-r));
  }
  free(zeros);
  return r;
}

/* ---- A directory: one packed file per shard ------------------------------------------- */

static int create_part_file(struct plan *p, struct part *part) {
  struct backing_open how = {.create = true, .exclusive_create = !p->format->force};
  struct stat st;
  part->created = stat(part->name, &st) != 0;
  int r = backing_open_path(&part->backing, part->name, &how, p->logger);
  if (!r) r = layout_lock(part->backing, true, 0, p->logger);
  uint64_t bytes = part->identity->backing_blocks << BLOCK_SHIFT;
  if (!r) {
    r = part->backing->ops->resize(part->backing, bytes, p->format->prealloc != 2);
    if (r == -EOPNOTSUPP && p->format->prealloc == 0)
      r = part->backing->ops->resize(part->backing, bytes, false);
  }
  if (r)
    log_line(p->logger, 0, "%s: cannot be created with %llu bytes: %s", part->name,
             (unsigned long long)bytes, strerror(-r));
  return r;
}

static int sync_directory(const char *path) {
  int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return -errno;
  int r = fsync(fd) ? -errno : 0;
  close(fd);
  return r;
}

static int plan_directory(struct plan *p, const char *where) {
  const struct layout_format *f = p->format;
  uint64_t shard_blocks = (f->size_bytes / f->shards) >> BLOCK_SHIFT, log_blocks = 0;
  int r = choose_log_blocks(f, shard_blocks << BLOCK_SHIFT, p->logger, &log_blocks);
  if (!r) r = plan_common(p, f->shards, log_blocks);
  if (r) return r;
  for (uint32_t i = 0; i < p->count; i++) {
    struct part *part = &p->parts[i];
    layout_part_path(part->name, sizeof part->name, where, i);
    if (i > 0) add_segment(part->identity, i - 1, 0, FORMAT_IDENTITY_BLOCKS, shard_blocks);
    part->identity->backing_blocks =
        part_overhead_blocks(i, part->identity->root_slot_blocks) + (i > 0 ? shard_blocks : 0);
  }
  return 0;
}

/* Packed files of an earlier, larger store would only confuse. */
static void remove_surplus(const char *where, uint32_t count) {
  char path[LAYOUT_NAME_BYTES + 32];
  for (uint32_t i = count;; i++) {
    layout_part_path(path, sizeof path, where, i);
    if (unlink(path) != 0) return;
  }
}

static int format_directory(const char *where, const struct layout_format *f,
                            const struct logger *logger) {
  char path[LAYOUT_NAME_BYTES + 32];
  if (f->size_bytes == 0) {
    log_line(logger, 0, "format: a store in a directory needs a size");
    return -EINVAL;
  }
  layout_part_path(path, sizeof path, where, 0);
  if (!f->force && access(path, F_OK) == 0) {
    log_line(logger, 0, "%s: there is a store already: force overwrites it", where);
    return -EEXIST;
  }
  bool made = mkdir(where, 0777) == 0;
  if (!made && errno != EEXIST) {
    int e = -errno;
    log_line(logger, 0, "%s: cannot be created: %s", where, strerror(-e));
    return e;
  }
  struct plan p;
  int r = plan_create(&p, f->shards + 1, f, logger);
  if (!r) r = plan_directory(&p, where);
  for (uint32_t i = 0; !r && i < p.count; i++) r = create_part_file(&p, &p.parts[i]);
  if (!r) r = write_plan(&p);
  if (!r) r = sync_directory(where);
  plan_destroy(&p, r != 0);
  if (!r) remove_surplus(where, f->shards + 1);
  if (r && made) rmdir(where);
  return r;
}

/* ---- Devices and files: slices ------------------------------------------------------------ */

static bool looks_used(struct backing *b) {
  char *buf = layout_blocks_alloc(1);
  bool used = false;
  if (buf && b->bytes >= BLOCK_BYTES && b->ops->read(b, buf, BLOCK_BYTES, 0) == 0)
    for (uint32_t i = 0; i < BLOCK_BYTES; i++) used |= buf[i] != 0;
  free(buf);
  return used;
}

static int open_slice_backing(struct plan *p, struct part *part) {
  const struct layout_format *f = p->format;
  struct stat st;
  if (strncmp(part->name, "fd:", 3) != 0 && stat(part->name, &st) != 0 && errno == ENOENT) {
    struct backing_open how = {.create = true, .exclusive_create = true};
    part->created = true;
    int r = backing_open_path(&part->backing, part->name, &how, p->logger);
    if (r) {
      log_line(p->logger, 0, "%s: cannot be created: %s", part->name, strerror(-r));
      return r;
    }
  } else {
    int r = layout_open_device(&part->backing, part->name, false, p->logger);
    if (r) return r;
  }
  struct backing *b = part->backing;
  int r = layout_lock(b, true, 0, p->logger);
  if (r) return r;
  if (!f->force && looks_used(b)) {
    log_line(p->logger, 0, "%s: holds data: force overwrites it", part->name);
    return -EEXIST;
  }
  uint64_t want = round_down(f->size_bytes / p->count, BLOCK_BYTES);
  if (want > b->bytes && !b->is_block_device) {
    r = b->ops->resize(b, want, f->prealloc != 2);
    if (r) {
      log_line(p->logger, 0, "%s: cannot be extended to %llu bytes: %s", part->name,
               (unsigned long long)want, strerror(-r));
      return r;
    }
  } else if (want > b->bytes) {
    log_line(p->logger, 0, "%s: has %llu bytes, %llu were asked for", part->name,
             (unsigned long long)b->bytes, (unsigned long long)want);
    return -ENOSPC;
  }
  part->identity->backing_blocks = (want ? want : b->bytes) >> BLOCK_SHIFT;
  return 0;
}

/* How many segments one device carries, and how many blocks each. */
static uint32_t segments_on(const struct plan *p, uint32_t device, uint32_t shards) {
  if (shards < p->count) return 1;
  return shards / p->count + (device < shards % p->count);
}

static int plan_slices(struct plan *p) {
  uint32_t shards = p->format->shards;
  uint64_t slot_blocks = 2 * root_copy_blocks(shards), smallest = UINT64_MAX, log_blocks = 0;
  for (uint32_t d = 0; d < p->count; d++) {
    uint64_t all = p->parts[d].identity->backing_blocks,
             over = part_overhead_blocks(d, slot_blocks);
    uint32_t n = segments_on(p, d, shards);
    if (n > FORMAT_SEGMENTS_MAX) return -EINVAL;
    smallest = min_u64(smallest, all > over ? (all - over) / n : 0);
  }
  int r = choose_log_blocks(p->format, smallest << BLOCK_SHIFT, p->logger, &log_blocks);
  if (r) return r;
  uint64_t *saved = calloc(p->count, sizeof *saved);
  if (!saved) return -ENOMEM;
  for (uint32_t d = 0; d < p->count; d++) saved[d] = p->parts[d].identity->backing_blocks;
  r = plan_common(p, shards, log_blocks);
  for (uint32_t d = 0; !r && d < p->count; d++) {
    struct identity *id = p->parts[d].identity;
    uint32_t n = segments_on(p, d, shards);
    id->backing_blocks = saved[d];
    uint64_t first = FORMAT_IDENTITY_BLOCKS + (d == 0 ? FORMAT_ROOT_SLOTS * slot_blocks : 0);
    uint64_t each = (saved[d] - part_overhead_blocks(d, slot_blocks)) / n;
    for (uint32_t i = 0; i < n; i++) {
      uint32_t shard = shards < p->count ? d % shards : d + i * p->count;
      add_segment(id, shard, shards < p->count ? d / shards : 0, first + i * each, each);
    }
  }
  free(saved);
  return r;
}

static int format_slices(const char *where, const struct layout_format *f,
                         const struct logger *logger) {
  char(*names)[LAYOUT_NAME_BYTES] = calloc(LAYOUT_DEVICES_MAX, sizeof *names);
  if (!names) return -ENOMEM;
  int n = layout_split(where, names, LAYOUT_DEVICES_MAX, logger);
  struct plan p = {0};
  int r = n < 0 ? n : plan_create(&p, (uint32_t)n, f, logger);
  for (int i = 0; !r && i < n; i++) {
    snprintf(p.parts[i].name, sizeof p.parts[i].name, "%s", names[i]);
    r = open_slice_backing(&p, &p.parts[i]);
  }
  if (!r) r = plan_slices(&p);
  if (!r) r = write_plan(&p);
  plan_destroy(&p, r != 0);
  free(names);
  return r;
}

static bool is_directory_store(const char *where) {
  struct stat st;
  if (strncmp(where, "fd:", 3) == 0 || strchr(where, ',')) return false;
  if (stat(where, &st) == 0) return S_ISDIR(st.st_mode);
  /* Nothing there: a trailing slash, or no extension, means a directory to be made. */
  const char *base = strrchr(where, '/');
  base = base && base[1] ? base + 1 : where;
  return where[strlen(where) - 1] == '/' || !strchr(base, '.');
}

int layout_format(const char *where, const struct layout_format *f, const struct logger *logger) {
  if (layout_is_memory(where)) {
    log_line(logger, 0, "%s: a store in memory is formatted when it is opened", where);
    return -EINVAL;
  }
  if (!*where || strlen(where) >= LAYOUT_NAME_BYTES) return -EINVAL;
  return is_directory_store(where) ? format_directory(where, f, logger)
                                   : format_slices(where, f, logger);
}

/* ---- mem: ------------------------------------------------------------------------------ */

/* "mem:SIZE" or "mem:SIZE:SHARDS", SIZE with k, M, G or T. */
static int parse_memory(const char *where, uint64_t *bytes, uint32_t *shards,
                        const struct logger *logger) {
  const char *end = where + 4;
  uint64_t n = 0, s = 0;
  uint32_t shift = 0;
  bool good = layout_number(&end, &n);
  if (*end == 'k') shift = 10;
  if (*end == 'M') shift = 20;
  if (*end == 'G') shift = 30;
  if (*end == 'T') shift = 40;
  good = good && n <= (UINT64_C(1) << 50) >> shift;
  if (good && shift) end++;
  if (good && *end == ':') {
    end++;
    good = layout_number(&end, &s) && s >= 1 && s <= FORMAT_SHARDS_MAX;
    *shards = (uint32_t)s;
  }
  if (!good || *end) {
    log_line(logger, 0, "%s: write mem:SIZE or mem:SIZE:SHARDS, as in mem:256M:4", where);
    return -EINVAL;
  }
  *bytes = n << shift;
  return 0;
}

/* All regions are slices of one piece of memory; nothing is written, the layout is made in place.
 */
int layout_open_memory(struct layout **out, const char *where, uint32_t shards,
                       const struct logger *logger) {
  struct layout_format f = {.shards = shards};
  int r = parse_memory(where, &f.size_bytes, &f.shards, logger);
  uint64_t log_blocks = 0, slot = 2 * root_copy_blocks(f.shards);
  if (!r) r = choose_log_blocks(&f, f.size_bytes / f.shards, logger, &log_blocks);
  if (r) return r;
  struct layout *l = calloc(1, sizeof *l);
  struct plan p = {0};
  r = l ? plan_create(&p, 1, &f, logger) : -ENOMEM;
  if (!r) r = plan_common(&p, f.shards, log_blocks);
  uint64_t each = (f.size_bytes / f.shards) >> BLOCK_SHIFT, first = FORMAT_ROOT_SLOTS * slot;
  if (!r) r = backing_open_memory(&l->backings[0], (first + each * f.shards) << BLOCK_SHIFT);
  if (!r) {
    l->memory = true;
    l->backing_count = 1;
    l->shard_count = f.shards;
    l->log_blocks = log_blocks;
    l->root_slot_blocks = slot;
    memcpy(l->uuid, p.parts[0].identity->uuid, sizeof l->uuid);
    memcpy(l->hash_key, p.parts[0].identity->hash_key, sizeof l->hash_key);
    l->regions = calloc(f.shards, sizeof *l->regions);
    l->shared = calloc(1, sizeof *l->shared);
    if (!l->regions || !l->shared) r = -ENOMEM;
  }
  for (uint32_t s = 0; !r && s < f.shards; s++) {
    struct segment seg = {
        .backing = l->backings[0], .first_block = first + s * each, .blocks = each};
    l->regions[s] = (struct region){
        .segment_count = 1, .segments[0] = seg, .blocks = each, .log_blocks = log_blocks};
    p.root->shards[s].zeroed_blocks = each;
  }
  if (r) {
    plan_destroy(&p, false);
    layout_close(l);
    return r;
  }
  l->shared[0] = f.shards > 1;
  l->root = p.root;
  p.root = NULL;
  plan_destroy(&p, false);
  *out = l;
  return 0;
}

/* ---- Grow --------------------------------------------------------------------------------- */

static int rewrite_identity(struct backing *b, struct identity *id, const struct logger *logger) {
  struct part part = {.backing = b, .identity = id};
  id->generation++;
  int r = write_identities(&part);
  if (r) log_line(logger, 0, "%s: grow: cannot be written: %s", b->name, strerror(-r));
  return r;
}

static uint32_t next_ordinal(const struct layout *l, uint32_t shard) {
  return l->regions[shard].segment_count;
}

/* Appends a segment, or lengthens the shard's last one where they touch. */
static int extend_shard(struct layout *l, struct identity *id, uint32_t shard, uint64_t first,
                        uint64_t blocks, const struct logger *logger) {
  for (uint32_t i = 0; i < id->segment_count; i++) {
    struct format_segment *s = &id->segments[i];
    if (s->shard == shard && s->ordinal + 1 == next_ordinal(l, shard) &&
        s->first_block + s->blocks == first) {
      s->blocks += blocks;
      return 0;
    }
  }
  if (id->segment_count == FORMAT_SEGMENTS_MAX || next_ordinal(l, shard) == REGION_SEGMENTS_MAX) {
    log_line(logger, 0, "grow: shard %u has as many segments as fit (%u)", shard,
             REGION_SEGMENTS_MAX);
    return -EFBIG;
  }
  add_segment(id, shard, next_ordinal(l, shard), first, blocks);
  l->regions[shard].segment_count++;
  return 0;
}

/* The part is, or is made, new_blocks long; the difference is dealt to its shards. */
static int grow_part(struct layout *l, uint32_t index, uint64_t new_blocks,
                     const struct logger *logger) {
  struct backing *b = l->backings[index];
  struct identity *id = malloc(sizeof *id);
  if (!id) return -ENOMEM;
  int r = layout_read_identity(b, id, logger);
  uint64_t old = r ? 0 : id->backing_blocks;
  uint32_t shards_here[FORMAT_SHARDS_MAX], n = 0;
  for (uint32_t i = 0; !r && i < id->segment_count; i++) {
    bool seen = false;
    for (uint32_t k = 0; k < n; k++) seen |= shards_here[k] == id->segments[i].shard;
    if (!seen) shards_here[n++] = id->segments[i].shard;
  }
  if (!r && n && new_blocks > old) {
    if (!b->is_block_device && new_blocks << BLOCK_SHIFT > b->bytes)
      r = b->ops->resize(b, new_blocks << BLOCK_SHIFT, true);
    if (r) log_line(logger, 0, "%s: cannot grow: %s", b->name, strerror(-r));
    /* The old second copy becomes data; its place must not hold anything live until the new
     * copies are down, and nothing can be: the store is not open. */
    uint64_t each = (new_blocks - old) / n, first = old - FORMAT_IDENTITY_BLOCKS;
    for (uint32_t k = 0; !r && each && k < n; k++)
      r = extend_shard(l, id, shards_here[k], first + k * each, each, logger);
    id->backing_blocks = new_blocks;
    if (!r) r = rewrite_identity(b, id, logger);
  }
  free(id);
  return r;
}

static int grow_lengths(struct layout *l, uint64_t add_bytes, bool directory,
                        const struct logger *logger) {
  uint32_t growing = directory ? l->backing_count - 1 : l->backing_count;
  uint64_t each = (add_bytes / growing) >> BLOCK_SHIFT;
  int r = 0;
  for (uint32_t i = directory ? 1 : 0; !r && i < l->backing_count; i++) {
    struct backing *b = l->backings[i];
    uint64_t now = b->bytes >> BLOCK_SHIFT;
    r = grow_part(l, i, b->is_block_device || !add_bytes ? now : now + each, logger);
  }
  return r;
}

/* A new device: its own identity first, then the count in all the others. */
static int grow_device(struct layout *l, const char *name, const struct logger *logger) {
  struct layout_format f = {0};
  struct plan p;
  int r = plan_create(&p, 1, &f, logger);
  struct part *part = &p.parts[0];
  uint32_t count = l->backing_count;
  if (!r) r = layout_open_device(&part->backing, name, false, logger);
  if (!r) r = layout_lock(part->backing, true, 0, logger);
  if (!r && looks_used(part->backing)) {
    log_line(logger, 0, "%s: holds data: clear its first block if it may be used", name);
    r = -EEXIST;
  }
  if (!r) r = layout_read_identity(l->backings[0], part->identity, logger);
  if (!r) {
    struct identity *id = part->identity;
    uint64_t all = part->backing->bytes >> BLOCK_SHIFT, over = 2 * FORMAT_IDENTITY_BLOCKS;
    uint64_t each = all > over ? (all - over) / l->shard_count : 0;
    if (each < 256) r = -ENOSPC;
    id->backing_index = count;
    id->backing_count = count + 1;
    id->backing_blocks = all;
    id->root_block = id->root_slot_blocks = 0;
    id->segment_count = 0;
    for (uint32_t s = 0; !r && s < l->shard_count; s++)
      r = extend_shard(l, id, s, FORMAT_IDENTITY_BLOCKS + s * each, each, logger);
    if (!r) r = rewrite_identity(part->backing, id, logger);
  }
  for (uint32_t i = 0; !r && i < count; i++) {
    r = layout_read_identity(l->backings[i], part->identity, logger);
    part->identity->backing_count = count + 1;
    if (!r) r = rewrite_identity(l->backings[i], part->identity, logger);
  }
  plan_destroy(&p, false);
  return r;
}

int layout_grow(const char *where, uint64_t add_bytes, const char *add_device,
                const struct logger *logger) {
  struct layout *l;
  if (layout_is_memory(where)) {
    log_line(logger, 0, "%s: a store in memory cannot grow", where);
    return -EINVAL;
  }
  int r = layout_open(&l, where, false, 0, 0, logger);
  if (r) return r;
  bool directory = is_directory_store(where);
  if (add_device && directory) {
    log_line(logger, 0, "%s: a store in a directory grows in length, not by devices", where);
    r = -EINVAL;
  } else {
    r = add_device ? grow_device(l, add_device, logger)
                   : grow_lengths(l, add_bytes, directory, logger);
  }
  layout_close(l);
  return r;
}
