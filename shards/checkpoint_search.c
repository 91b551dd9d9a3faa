/* checkpoint_search.c - for salvage: checkpoints that nothing names any more, and what can be had
 * of damaged ones. Synchronous, in recovery in spite of damage, on the thread of the shard's core.
 *
 * A directory has its checksum in the root, so one that is found by its magic proves nothing. But
 * it holds the checksums of checkpoints, and a checkpoint that matches is proven, whatever the
 * directory is. It may be an old one: the log says whether all that came after it is there. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "shards/checkpoint_disk.h"
#include "shards/losses.h"
#include "shards/recover.h"

#define CHUNK_BLOCKS 256u

static bool is_newer(const struct manifest *m, const struct checkpoint *c) {
  for (uint32_t p = c->first; p < c->first + c->count; p++)
    if (!m->of_partition[p] || m->of_partition[p]->sequence < c->sequence) return true;
  return false;
}

/* Takes each checkpoint that a directory at this block names and that is what it says. */
static int try_directory(struct manifest *m, uint64_t block) {
  const struct region *region = m->config.region;
  struct disk_directory head;
  uint64_t blocks = min_u64(DIRECTORY_BLOCKS, region->blocks - block), at = sizeof head;
  char why[160];
  while (blocks && region_read(region, m->directory_buf, block, blocks)) blocks /= 2;
  if (!blocks) return 0;
  memcpy(&head, m->directory_buf, sizeof head);
  if (head.magic != DIRECTORY_MAGIC || head.shard != m->config.shard ||
      head.store != m->store_key || head.count > INDEX_PARTITIONS)
    return 0;
  for (uint32_t i = 0; i < head.count; i++) {
    const char *what = "";
    struct checkpoint *c = calloc(1, sizeof *c);
    if (!c) return -ENOMEM;
    bool good = checkpoint_decode(m, m->directory_buf, blocks << BLOCK_SHIFT, &at, c, &what) == 0;
    bool candidate = good && c->bytes && c->position <= m->root.log_tail &&
                     c->sequence <= m->root.sequence && is_newer(m, c);
    if (candidate && !checkpoint_grow_buffer(m, round_up(c->bytes, BLOCK_BYTES))) good = false;
    if (good && candidate && !checkpoint_read(m, c, m->checkpoint_buf, why, sizeof why))
      checkpoint_adopt(m, c);
    else
      free(c);
    if (!good) break;
  }
  return 0;
}

int checkpoint_search(struct manifest *m) {
  const struct region *region = m->config.region;
  char *chunk = aligned_alloc(BLOCK_BYTES, CHUNK_BLOCKS << BLOCK_SHIFT);
  int r = chunk ? 0 : -ENOMEM;
  for (uint64_t at = region->log_blocks; !r && at < region->blocks; at += CHUNK_BLOCKS) {
    uint64_t n = min_u64(CHUNK_BLOCKS, region->blocks - at);
    bool whole = region_read(region, chunk, at, n) == 0;
    for (uint64_t i = 0; !r && i < n; i++) {
      uint32_t magic;
      char *block = chunk + (i << BLOCK_SHIFT);
      if (!whole && region_read(region, block, at + i, 1)) continue;
      memcpy(&magic, block, sizeof magic);
      if (magic == DIRECTORY_MAGIC) r = try_directory(m, at + i);
    }
  }
  free(chunk);
  return r;
}

/* An entry that can be one of this checkpoint's. */
static bool is_plausible(const struct manifest *m, const struct checkpoint *c,
                         const struct entry *e) {
  bool newest;
  if (!entry_is_blob(e->type)) return !recover_volume_fits(m, c, e, &newest) && newest;
  uint64_t hash = hash_id(e->blob.id, m->config.hash_key);
  uint32_t p = index_partition_of(hash);
  return e->type != ENTRY_DELETE && p >= c->first && p < c->first + c->count &&
         m->of_partition[p] == c && shard_of_hash(hash, m->config.shard_count) == m->config.shard;
}

/* What is there already is from a sound checkpoint, and stays. */
static int take_entry(struct manifest *m, const struct entry *e) {
  struct blob old;
  if (!entry_is_blob(e->type)) return recover_has_volume(m, e) ? 0 : recover_load_volume(m, e);
  uint64_t hash = hash_id(e->blob.id, m->config.hash_key);
  if (index_find(m->index, hash, e->blob.id, &old) == 0) return 0;
  int r = manifest_index_room(m, hash, &e->blob);
  return r ? r : index_put(m->index, hash, &e->blob);
}

int checkpoint_glean(struct manifest *m, const struct checkpoint *c) {
  const struct region *region = m->config.region;
  uint64_t at = 0;
  if (!checkpoint_grow_buffer(m, round_up(c->bytes, BLOCK_BYTES))) return -ENOMEM;
  for (uint32_t i = 0; i < c->extent_count; i++)
    for (uint64_t k = 0; k < c->extents[i].blocks; k++, at += BLOCK_BYTES)
      if (region_read(region, m->checkpoint_buf + at, c->extents[i].block + k, 1))
        memset(m->checkpoint_buf + at, 0, BLOCK_BYTES);
  for (at = sizeof(struct disk_checkpoint); at < c->bytes;) {
    struct entry e;
    const char *what;
    uint32_t n = log_entry_decode(&e, m->checkpoint_buf + at, c->bytes - at, region->blocks, &what);
    bool take = n && is_plausible(m, c, &e);
    at += take ? n : 8;
    int r = take ? take_entry(m, &e) : 0;
    if (r) return r;
  }
  return 0;
}
