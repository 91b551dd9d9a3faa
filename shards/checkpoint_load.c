/* checkpoint_load.c - the loading half of checkpoints: directory and checkpoints are verified and
 * their blobs put into the index, leaves into the map, records into their table. Synchronous, in
 * recovery, on the thread of the shard's core.
 *
 * What is damaged ends a normal recovery. One that is told to go on (manifest_config.damaged)
 * reports it, does without that checkpoint, and notes its partitions as lost: the log still
 * brings what has changed since the log's head. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/crc32c.h"
#include "shards/checkpoint_disk.h"
#include "shards/losses.h"
#include "shards/recover.h"

/* ---- The directory -----------------------------------------------------------------------------
 */

#define REFUSE(...)                                                                                \
  do {                                                                                             \
    snprintf(why, why_bytes, __VA_ARGS__);                                                         \
    return -EBADMSG;                                                                               \
  } while (0)

int checkpoint_decode(const struct manifest *m, const char *buf, uint64_t bytes, uint64_t *at,
                      struct checkpoint *c, const char **what) {
  struct disk_directory_entry e;
  *what = "is cut off";
  if (bytes - *at < sizeof e) return -EBADMSG;
  memcpy(&e, buf + *at, sizeof e);
  *at += sizeof e;
  if (e.extent_count > CHECKPOINT_EXTENTS || bytes - *at < e.extent_count * sizeof(struct extent))
    return -EBADMSG;
  *c = (struct checkpoint){.first = e.first,
                           .count = e.count,
                           .sequence = e.sequence,
                           .position = e.position,
                           .bytes = e.bytes,
                           .checksum = e.checksum,
                           .extent_count = e.extent_count};
  memcpy(c->extents, buf + *at, e.extent_count * sizeof(struct extent));
  *at += e.extent_count * sizeof(struct extent);
  *what = "has impossible partitions";
  if (e.count == 0 || e.first >= INDEX_PARTITIONS || e.count > INDEX_PARTITIONS - e.first)
    return -EBADMSG;
  *what = "has extents out of range";
  uint64_t blocks = 0, region = m->config.region->blocks;
  for (uint32_t i = 0; i < c->extent_count; i++) {
    const struct extent *x = &c->extents[i];
    if (!x->blocks || x->block >= region || x->blocks > region - x->block) return -EBADMSG;
    blocks += x->blocks;
  }
  return e.bytes > region << BLOCK_SHIFT || blocks != bytes_to_blocks(e.bytes) ? -EBADMSG : 0;
}

void checkpoint_adopt(struct manifest *m, struct checkpoint *c) {
  for (uint32_t p = c->first; p < c->first + c->count; p++) {
    struct checkpoint *old = m->of_partition[p];
    if (old && old->sequence > c->sequence) continue;
    if (old && --old->live == 0) free(old);
    m->of_partition[p] = c;
    c->live++;
  }
  if (c->live == 0) free(c);
}

static int decode_directory(struct manifest *m, const char *buf, uint32_t bytes, char *why,
                            size_t why_bytes) {
  struct disk_directory head;
  memcpy(&head, buf, sizeof head);
  if (head.magic != DIRECTORY_MAGIC || head.shard != m->config.shard ||
      head.store != m->store_key || head.count > INDEX_PARTITIONS || head.reserved)
    REFUSE("checkpoint directory: not this shard's");
  uint64_t at = sizeof head;
  for (uint32_t i = 0; i < head.count; i++) {
    const char *what = "";
    struct checkpoint *c = calloc(1, sizeof *c);
    if (!c) return -ENOMEM;
    int r = checkpoint_decode(m, buf, bytes, &at, c, &what);
    if (!r && (c->position < m->root.log_head || c->position > m->root.log_tail ||
               c->sequence > m->root.sequence)) {
      what = "does not fit the log that the root names";
      r = -EBADMSG;
    }
    if (r) {
      free(c);
      REFUSE("checkpoint directory: entry %u %s", i, what);
    }
    m->largest_blocks = max_u64(m->largest_blocks, bytes_to_blocks(c->bytes));
    checkpoint_adopt(m, c);
  }
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++)
    if (!m->of_partition[p] && m->root.log_head > 0)
      REFUSE("checkpoint directory: no checkpoint of partition %u, and the log no longer has it",
             p);
  return 0;
}

/* ---- Checkpoints ------------------------------------------------------------------------- */

const char *checkpoint_header(const struct manifest *m, const struct checkpoint *c,
                              const char *buf) {
  struct disk_checkpoint head;
  if (c->bytes < sizeof head) return "cut off";
  memcpy(&head, buf, sizeof head);
  if (head.magic != CHECKPOINT_MAGIC || head.shard != m->config.shard ||
      head.store != m->store_key || head.sequence != c->sequence || head.first != c->first ||
      head.count != c->count)
    return "header mismatch";
  return NULL;
}

int checkpoint_read(struct manifest *m, const struct checkpoint *c, char *buf, char *why,
                    size_t why_bytes) {
  uint64_t at = 0;
  for (uint32_t i = 0; i < c->extent_count; i++) {
    const struct extent *e = &c->extents[i];
    int r = region_read(m->config.region, buf + at, e->block, e->blocks);
    if (r) {
      snprintf(why, why_bytes, "checkpoint at block %llu: cannot be read",
               (unsigned long long)e->block);
      return r;
    }
    at += e->blocks << BLOCK_SHIFT;
  }
  const char *what = checkpoint_header(m, c, buf);
  if (crc32c(0, buf, c->bytes) != c->checksum) what = "checksum mismatch";
  if (what)
    REFUSE("checkpoint at block %llu: %s",
           (unsigned long long)(c->extent_count ? c->extents[0].block : 0), what);
  return 0;
}

static int load_blob(struct manifest *m, const struct checkpoint *c, const struct blob *b,
                     const char **what) {
  uint64_t hash = hash_id(b->id, m->config.hash_key);
  uint32_t p = index_partition_of(hash);
  *what = "a blob of another partition";
  if (p < c->first || p >= c->first + c->count) return -EBADMSG;
  if (m->of_partition[p] != c) return 0;
  int r = manifest_index_room(m, hash, b);
  return r ? r : index_put(m->index, hash, b);
}

static int load_entry(struct manifest *m, const struct checkpoint *c, const struct entry *e,
                      const char **what) {
  bool newest;
  if (e->type == ENTRY_PUT || e->type == ENTRY_PUT_SMALL) return load_blob(m, c, &e->blob, what);
  *what = "a delete";
  if (e->type == ENTRY_DELETE) return -EBADMSG;
  *what = recover_volume_fits(m, c, e, &newest);
  if (*what) return -EBADMSG;
  return newest ? recover_load_volume(m, e) : 0;
}

/* By what entries say of themselves, so far as that leads anywhere: a hint for tables. */
static uint64_t count_blobs(const char *buf, uint64_t bytes) {
  uint64_t blobs = 0;
  struct blob_id id;
  uint32_t n;
  for (uint64_t at = sizeof(struct disk_checkpoint);
       at < bytes && log_entry_peek(buf + at, bytes - at, &id, &n); at += n)
    blobs += log_entry_is_put(buf + at);
  return blobs;
}

static int load_entries(struct manifest *m, const struct checkpoint *c, const char *buf, char *why,
                        size_t why_bytes) {
  uint64_t guess = count_blobs(buf, c->bytes) / c->count;
  for (uint32_t i = 0; i < c->count; i++)
    if (m->of_partition[c->first + i] == c)
      if (index_reserve_partition(m->index, c->first + i, guess)) return -ENOMEM;
  for (uint64_t at = sizeof(struct disk_checkpoint); at < c->bytes;) {
    struct entry e;
    const char *what = "";
    uint32_t n = log_entry_decode(&e, buf + at, c->bytes - at, m->config.region->blocks, &what);
    int r = n ? load_entry(m, c, &e, &what) : -EBADMSG;
    if (r == -EBADMSG)
      REFUSE("checkpoint at block %llu, byte %llu: %s", (unsigned long long)c->extents[0].block,
             (unsigned long long)at, what);
    at += n;
    if (r) return r;
  }
  return 0;
}

static int load_one(struct manifest *m, const struct checkpoint *c, char *why, size_t why_bytes) {
  if (!checkpoint_grow_buffer(m, round_up(c->bytes, BLOCK_BYTES))) return -ENOMEM;
  int r = checkpoint_read(m, c, m->checkpoint_buf, why, why_bytes);
  return r ? r : load_entries(m, c, m->checkpoint_buf, why, why_bytes);
}

/* Reads and decodes the directory. */
static int load_directory(struct manifest *m, const struct root_shard *root, char *why,
                          size_t why_bytes) {
  if (root->dir_block == 0 && root->log_head > 0)
    REFUSE("root: no checkpoint directory, and the log no longer begins at 0");
  if (root->dir_block == 0) return 0;
  const struct region *region = m->config.region;
  uint64_t blocks = bytes_to_blocks(root->dir_bytes);
  if (root->dir_bytes < sizeof(struct disk_directory) || root->dir_bytes > DIRECTORY_BYTES_MAX ||
      root->dir_block >= region->blocks || DIRECTORY_BLOCKS > region->blocks - root->dir_block)
    REFUSE("checkpoint directory at block %llu: out of range", (unsigned long long)root->dir_block);
  int r = region_read(region, m->directory_buf, root->dir_block, blocks);
  if (r || crc32c(0, m->directory_buf, root->dir_bytes) != root->dir_checksum) {
    snprintf(why, why_bytes, "checkpoint directory at block %llu: %s",
             (unsigned long long)root->dir_block, r ? "cannot be read" : "checksum mismatch");
    return r ? r : -EBADMSG;
  }
  m->directory_area[0] = (struct extent){root->dir_block, DIRECTORY_BLOCKS};
  m->directory_next = 1;
  return decode_directory(m, m->directory_buf, root->dir_bytes, why, why_bytes);
}

int checkpoint_load(struct manifest *m, const struct root_shard *root, char *why,
                    size_t why_bytes) {
  int r = load_directory(m, root, why, why_bytes);
  for (uint32_t p = 0; !r && p < INDEX_PARTITIONS; p++) {
    const struct checkpoint *c = m->of_partition[p];
    if (checkpoint_is_first(m, p) && c->bytes) r = load_one(m, c, why, why_bytes);
  }
  return r;
}

/* ---- In spite of damage ------------------------------------------------------------------ */

/* Does without a checkpoint: what only it had is lost. */
static void drop(struct manifest *m, struct checkpoint *c) {
  for (uint32_t p = c->first, end = c->first + c->count; p < end; p++) {
    if (m->of_partition[p] != c) continue;
    m->of_partition[p] = NULL;
    m->losses->partition[p] = true;
    m->losses->old[p] |= m->config.damaged == DAMAGED_SEARCH; /* gleaned */
  }
  free(c);
}

int checkpoint_load_damaged(struct manifest *m, const struct root_shard *root) {
  char why[200] = "";
  struct damage d = {.kind = DAMAGE_DIRECTORY, .shard = m->config.shard, .what = why};
  d.error = load_directory(m, root, why, sizeof why);
  if (d.error == -ENOMEM) return d.error;
  if (d.error) {
    damage_place(&d, m->config.region, root->dir_block);
    d.blocks = bytes_to_blocks(root->dir_bytes);
    damage_report(&m->config.damage, &d);
  }
  if (d.error && m->config.damaged == DAMAGED_SEARCH) {
    m->losses->searched = true;
    int r = checkpoint_search(m);
    if (r) return r;
  }
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    struct checkpoint *c = m->of_partition[p];
    if (!c && root->log_head > 0) m->losses->partition[p] = true;
    if (!checkpoint_is_first(m, p) || !c->bytes) continue;
    d = (struct damage){.kind = DAMAGE_CHECKPOINT, .shard = m->config.shard, .what = why};
    d.error = load_one(m, c, why, sizeof why);
    if (d.error == -ENOMEM) return d.error;
    if (!d.error) continue;
    size_t used = strlen(why);
    snprintf(why + used, sizeof why - used,
             "; of its blobs, clusters and records only what the log has is there");
    if (c->extent_count) damage_place(&d, m->config.region, c->extents[0].block);
    d.blocks = c->extent_count ? c->extents[0].blocks : 0;
    damage_report(&m->config.damage, &d);
    int r = m->config.damaged == DAMAGED_SEARCH ? checkpoint_glean(m, c) : 0;
    if (r) return r;
    drop(m, c);
  }
  return 0;
}

/* ---- Claims ------------------------------------------------------------------------------ */

int checkpoint_claim(const struct manifest *m, char *why, size_t why_bytes) {
  const struct extent *d = &m->directory_area[0];
  if (d->blocks && space_claim(m->space, d->block, d->blocks))
    REFUSE("checkpoint directory at block %llu: its blocks are used twice",
           (unsigned long long)d->block);
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    const struct checkpoint *c = m->of_partition[p];
    for (uint32_t i = 0; checkpoint_is_first(m, p) && i < c->extent_count; i++)
      if (space_claim(m->space, c->extents[i].block, c->extents[i].blocks))
        REFUSE("checkpoint at block %llu: its blocks are used twice",
               (unsigned long long)c->extents[i].block);
  }
  return 0;
}
