/* checkpoint.c - rolling checkpoints: one run of partitions (of index, map and records) at a time
 * is written to the data area, so that the log's head moves on in small steps. Owned by the shard's
 * thread.
 *
 *   tick: snapshot of partitions [first, first + count) into a buffer -> space -> write ->
 *   of_partition[] names it -> the next seal writes a directory of all live checkpoints ->
 *   its root names the directory, and the log's head with it
 *
 * What an older directory names is given back when the root that names the newer one is durable.
 *
 * A full region must still be checkpointed, or its log fills up and then nothing can be deleted.
 * So the directory has two places of its own, and a reserve is held that is as large as the
 * largest checkpoint (with room to grow). Blocks come back to the reserve before anybody else
 * sees them, so that it cannot be lost to others piece by piece. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/crc32c.h"
#include "shards/base/plant.h"
#include "shards/checkpoint_disk.h"

#define GROUP_BYTES    (64u << 10) /* the default of checkpoint_group_bytes */
#define RESERVE_BLOCKS 58u         /* at least */

/* ---- Writing into extents ---------------------------------------------------------------- */

static void writer_next(struct extent_writer *w);

static void writer_done(struct io *io) {
  struct extent_writer *w = container_of(io, struct extent_writer, io);
  if (io->result)
    w->done(w->manifest, io->result);
  else
    writer_next(w);
}

static void writer_next(struct extent_writer *w) {
  if (w->at < w->extent_count && w->in == w->extents[w->at].blocks) {
    w->at++;
    w->in = 0;
  }
  if (w->at == w->extent_count) {
    w->done(w->manifest, 0);
    return;
  }
  const struct extent *e = &w->extents[w->at];
  uint64_t blocks = min_u64(e->blocks - w->in, IO_BYTES_MAX >> BLOCK_SHIFT);
  w->io = (struct io){.done = writer_done, .buf = w->from, .op = IO_WRITE};
  blocks = region_map(w->manifest->config.region, e->block + w->in, blocks, &w->io);
  w->io.bytes = (uint32_t)(blocks << BLOCK_SHIFT);
  w->in += blocks;
  w->from += blocks << BLOCK_SHIFT;
  device_submit(w->manifest->config.device, &w->io);
}

static void writer_start(struct extent_writer *w, struct manifest *m, const struct extent *extents,
                         uint32_t count, char *from, void (*done)(struct manifest *, int)) {
  *w = (struct extent_writer){
      .manifest = m, .extents = extents, .extent_count = count, .from = from, .done = done};
  writer_next(w);
}

/* ---- Space ------------------------------------------------------------------------------- */

static void fill_reserve(struct manifest *m) {
  uint64_t have = 0, target = max_u64(RESERVE_BLOCKS, m->largest_blocks + m->largest_blocks / 4);
  for (uint32_t i = 0; i < m->reserve_count; i++) have += m->reserve[i].blocks;
  if (have >= target) return;
  space_cancel(m->space, m->reserve, m->reserve_count);
  int n = space_alloc(m->space, target, m->reserve, CHECKPOINT_EXTENTS, 0);
  if (n < 0 && have) n = space_alloc(m->space, have, m->reserve, CHECKPOINT_EXTENTS, 0);
  for (uint64_t less = target / 2; n < 0 && !have && less > 0; less /= 2)
    n = space_alloc(m->space, less, m->reserve, CHECKPOINT_EXTENTS, 0);
  m->reserve_count = n > 0 ? (uint32_t)n : 0;
}

void checkpoint_take_reserve(struct manifest *m) {
  if (m->config.read_only) return;
  for (uint32_t i = 0; i < 2; i++)
    if (m->directory_area[i].blocks == 0 &&
        space_alloc(m->space, DIRECTORY_BLOCKS, &m->directory_area[i], 1, 0) < 0)
      m->directory_area[i].blocks = 0;
  fill_reserve(m);
}

/* With the reserve, so that a full region can still be checkpointed and its log moves on. */
static int take_space(struct manifest *m, uint64_t blocks, struct extent *extents, uint32_t max) {
  space_cancel(m->space, m->reserve, m->reserve_count);
  m->reserve_count = 0;
  int n = space_alloc(m->space, blocks, extents, max, 0);
  fill_reserve(m);
  m->space_short = n < 0;
  m->short_free_blocks = space_free_blocks(m->space);
  return n;
}

void checkpoint_root_durable(struct manifest *m) {
  if (m->directory_moved) m->directory_next ^= 1;
  m->directory_moved = false;
  while (m->retiring) {
    struct checkpoint *c = m->retiring;
    m->retiring = c->next;
    space_cancel(m->space, c->extents, c->extent_count);
    free(c);
  }
  m->space_short = false;
  checkpoint_take_reserve(m);
}

/* ---- One checkpoint ---------------------------------------------------------------------- */

static int add_bytes(void *arg, uint64_t hash, const struct blob *b) {
  (void)hash;
  *(uint64_t *)arg += entry_put_bytes(b->extent_count, b->granule_count);
  return 0;
}

static int add_leaf_bytes(void *arg, struct layer *layer, uint64_t leaf,
                          const struct cluster clusters[LEAF_CLUSTERS]) {
  const struct block_sums *sums = layer_lasting_sums(layer, leaf);
  uint64_t which = clusters_lasting(clusters);
  if (which) *(uint64_t *)arg += entry_map_bytes((uint32_t)__builtin_popcountll(which));
  if (sums) *(uint64_t *)arg += entry_sums_bytes(sums_count(sums->has));
  return 0;
}

static int encode_leaf(void *arg, struct layer *layer, uint64_t leaf,
                       const struct cluster clusters[LEAF_CLUSTERS]) {
  char **at = arg;
  uint64_t which = clusters_lasting(clusters);
  const struct block_sums *sums = layer_lasting_sums(layer, leaf);
  if (which) *at += log_entry_map(*at, layer_id(layer), leaf, true, which, clusters);
  if (sums) { /* behind the blocks that they belong to */
    struct leaf_sums all;
    block_sums_unpack(sums, &all);
    *at += log_entry_sums(*at, layer_id(layer), leaf, &all);
  }
  return 0;
}

/* Bytes of all entries of a partition. */
static uint64_t partition_bytes(const struct manifest *m, uint32_t p) {
  uint64_t bytes = 0;
  index_partition_visit(m->index, p, add_bytes, &bytes);
  map_partition_visit(m->map, p, add_leaf_bytes, &bytes);
  for (const struct record *x = records_first(m->records, p); x && index_partition_of(x->hash) == p;
       x = records_next(m->records, x))
    bytes += entry_record_bytes(x->bytes);
  return bytes;
}

static int encode_blob(void *arg, uint64_t hash, const struct blob *b) {
  char **at = arg;
  (void)hash;
  *at += log_entry_put(*at, b);
  return 0;
}

static char *encode_partition(const struct manifest *m, uint32_t p, char *at) {
  index_partition_visit(m->index, p, encode_blob, &at);
  map_partition_visit(m->map, p, encode_leaf, &at);
  for (const struct record *x = records_first(m->records, p); x && index_partition_of(x->hash) == p;
       x = records_next(m->records, x))
    at += log_entry_record(at, x->key, x->data, x->bytes);
  return at;
}

bool checkpoint_grow_buffer(struct manifest *m, uint64_t bytes) {
  if (bytes <= m->checkpoint_buf_bytes) return true;
  free(m->checkpoint_buf);
  m->checkpoint_buf_bytes = round_up(bytes + bytes / 4, BLOCK_BYTES);
  m->checkpoint_buf = aligned_alloc(BLOCK_BYTES, m->checkpoint_buf_bytes);
  if (!m->checkpoint_buf) m->checkpoint_buf_bytes = 0;
  return m->checkpoint_buf != NULL;
}

/* Chooses the next partitions and encodes them as they are now. */
static bool take_snapshot(struct manifest *m, struct checkpoint *c) {
  uint64_t bytes = sizeof(struct disk_checkpoint);
  uint64_t group_bytes = m->config.checkpoint_group_bytes;
  if (!group_bytes) group_bytes = GROUP_BYTES;
  c->first = m->next_partition;
  do bytes += partition_bytes(m, c->first + c->count++);
  while (c->first + c->count < INDEX_PARTITIONS && bytes < group_bytes);
  c->sequence = m->sequence;
  /* What is in buffers gets a place from here on. */
  c->position = PLANTED(begin_behind_a_witness) ? m->position : manifest_log_end(m);
  if (bytes == sizeof(struct disk_checkpoint)) return true;
  if (!checkpoint_grow_buffer(m, round_up(bytes, BLOCK_BYTES))) return false;
  struct disk_checkpoint head = {.magic = CHECKPOINT_MAGIC,
                                 .shard = m->config.shard,
                                 .store = m->store_key,
                                 .sequence = c->sequence,
                                 .first = c->first,
                                 .count = c->count};
  memcpy(m->checkpoint_buf, &head, sizeof head);
  char *at = m->checkpoint_buf + sizeof head;
  for (uint32_t i = 0; i < c->count; i++) at = encode_partition(m, c->first + i, at);
  c->bytes = (uint64_t)(at - m->checkpoint_buf);
  memset(at, 0, round_up(c->bytes, BLOCK_BYTES) - c->bytes);
  c->checksum = crc32c(0, m->checkpoint_buf, c->bytes);
  return true;
}

static void find_head(struct manifest *m) {
  uint64_t head = manifest_log_end(m);
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++)
    head = min_u64(head, m->of_partition[p] ? m->of_partition[p]->position : 0);
  if (PLANTED(head_too_far))
    head =
        m->of_partition[m->next_partition ? m->next_partition - 1 : INDEX_PARTITIONS - 1]->position;
  m->pending_head = head;
}

/* c becomes the newest of its partitions. */
static void install(struct manifest *m, struct checkpoint *c) {
  for (uint32_t i = 0; i < c->count; i++) {
    struct checkpoint *old = m->of_partition[c->first + i];
    if (old && --old->live == 0) {
      if (PLANTED(free_checkpoint_early)) {
        space_cancel(m->space, old->extents, old->extent_count);
        old->extent_count = 0;
      }
      old->next = m->dead;
      m->dead = old;
    }
    m->of_partition[c->first + i] = c;
  }
  c->live = c->count;
  m->next_partition = (c->first + c->count) % INDEX_PARTITIONS;
  m->wanted -= (uint32_t)min_u64(m->wanted, c->count);
  m->directory_stale = true;
  m->checkpoints++;
  find_head(m);
}

static void checkpoint_written(struct manifest *m, int result) {
  struct checkpoint *c = m->writing;
  m->writing = NULL;
  if (!result) {
    install(m, c);
    return;
  }
  free(c); /* its blocks stay taken: what is on them is unknown */
  manifest_fail(m, result, "a write of a checkpoint");
}

static bool checkpoint_step(struct manifest *m) {
  struct checkpoint *c = calloc(1, sizeof *c);
  if (!c || !take_snapshot(m, c)) {
    free(c);
    return false;
  }
  if (c->bytes == 0) {
    install(m, c);
    return true;
  }
  m->largest_blocks = max_u64(m->largest_blocks, bytes_to_blocks(c->bytes));
  int n = take_space(m, bytes_to_blocks(c->bytes), c->extents, CHECKPOINT_EXTENTS);
  if (n < 0) { /* full or in splinters: a flush gives back older checkpoints and what was deleted */
    if (!checkpoint_flush_helps(m)) m->wanted = 0; /* nobody may wait for what cannot be */
    free(c);
    return false;
  }
  c->extent_count = (uint32_t)n;
  m->writing = c;
  writer_start(&m->writer, m, c->extents, c->extent_count, m->checkpoint_buf, checkpoint_written);
  return true;
}

bool checkpoint_tick(struct manifest *m) {
  if (m->stopped || m->config.read_only || m->writing || manifest_unsettled(m)) return false;
  if (m->space_short && space_free_blocks(m->space) <= m->short_free_blocks) return false;
  uint64_t used = manifest_log_end(m) - m->pending_head;
  bool pressed = m->log_short || used + manifest_log_staged_blocks(m) > manifest_log_usable(m) / 2;
  if (PLANTED(use_what_is_unsettled)) pressed |= m->unsettled;
  if (!m->wanted && !(pressed && used > 0)) return false;
  return checkpoint_step(m);
}

bool checkpoint_is_first(const struct manifest *m, uint32_t p) {
  const struct checkpoint *c = m->of_partition[p];
  if (!c) return false;
  for (uint32_t k = c->first; k < p; k++)
    if (m->of_partition[k] == c) return false;
  return true;
}

uint64_t checkpoint_blocks(const struct manifest *m) {
  uint64_t blocks = m->directory_area[0].blocks + m->directory_area[1].blocks;
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++)
    if (checkpoint_is_first(m, p)) blocks += bytes_to_blocks(m->of_partition[p]->bytes);
  return blocks;
}

/* ---- The directory ----------------------------------------------------------------------- */

/* Live checkpoints in the order of their first live partition; each once. */
static uint32_t encode_directory(struct manifest *m) {
  struct disk_directory head = {
      .magic = DIRECTORY_MAGIC, .shard = m->config.shard, .store = m->store_key};
  char *at = m->directory_buf + sizeof head;
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    const struct checkpoint *c = m->of_partition[p];
    if (!checkpoint_is_first(m, p)) continue;
    struct disk_directory_entry e = {.first = c->first,
                                     .count = c->count,
                                     .sequence = c->sequence,
                                     .position = c->position,
                                     .bytes = c->bytes,
                                     .checksum = c->checksum,
                                     .extent_count = c->extent_count};
    memcpy(at, &e, sizeof e);
    memcpy(at + sizeof e, c->extents, c->extent_count * sizeof(struct extent));
    at += sizeof e + c->extent_count * sizeof(struct extent);
    head.count++;
  }
  memcpy(m->directory_buf, &head, sizeof head);
  uint64_t bytes = (uint64_t)(at - m->directory_buf);
  memset(at, 0, round_up(bytes, BLOCK_BYTES) - bytes);
  return (uint32_t)bytes;
}

static void directory_written(struct manifest *m, int result) {
  m->directory_writing = false;
  if (result) manifest_fail(m, result, "a write of the checkpoint directory");
  barrier_advance(m);
}

void checkpoint_write_directory(struct manifest *m, struct root_shard *root) {
  const struct extent *place = &m->directory_area[m->directory_next];
  if (!m->directory_stale || m->stopped || !place->blocks) return;
  uint32_t bytes = encode_directory(m);
  check(m->retiring == NULL);
  m->retiring = m->dead;
  m->dead = NULL;
  m->directory_stale = false;
  m->directory_moved = true;
  m->directory_writing = true;
  root->dir_block = place->block;
  root->dir_bytes = bytes;
  root->dir_checksum = crc32c(0, m->directory_buf, bytes);
  root->log_head = m->pending_head;
  m->directory_used = (struct extent){place->block, bytes_to_blocks(bytes)};
  writer_start(&m->directory_writer, m, &m->directory_used, 1, m->directory_buf, directory_written);
}

/* ---- Life -------------------------------------------------------------------------------- */

int checkpoint_create(struct manifest *m) {
  m->directory_buf = aligned_alloc(BLOCK_BYTES, DIRECTORY_BYTES_MAX);
  return m->directory_buf ? 0 : -ENOMEM;
}

static void free_list(struct checkpoint *c) {
  while (c) {
    struct checkpoint *next = c->next;
    free(c);
    c = next;
  }
}

void checkpoint_destroy(struct manifest *m) {
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    struct checkpoint *c = m->of_partition[p];
    if (c && --c->live == 0) free(c);
  }
  free_list(m->dead);
  free_list(m->retiring);
  free(m->checkpoint_buf);
  free(m->directory_buf);
}
