/* manifest.c - reservations and changes: index, free space and log entry together. Owned by the
 * shard's thread; see manifest.h and manifest_internal.h. */
#include "shards/losses.h"
#include "shards/base/plant.h"
#include "shards/manifest_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct index *manifest_index(struct manifest *m) {
  return m->index;
}
struct space *manifest_space(struct manifest *m) {
  return m->space;
}

/* ---- Reservations ------------------------------------------------------------------------ */

static uint32_t reserved_bytes(uint32_t extents, uint32_t granules) {
  return entry_put_bytes(extents, granules); /* a delete is shorter than any put */
}

/* The room of the open buffer that small entries may count on. */
static uint64_t open_room(const struct manifest *m) {
  if (!m->open_buffer) return 0;
  uint32_t used = m->open_buffer->payload_bytes;
  return used < SMALL_ROOM ? SMALL_ROOM - used : 0;
}

static bool buffers_suffice(const struct manifest *m, uint64_t small, uint32_t large) {
  if (2 * large >= LOG_BUFFERS || m->free_count < 2 * large) return false;
  if (small > (uint64_t)SMALL_ROOM * (LOG_BUFFERS - 1 - 2 * large)) return false;
  return small <= open_room(m) + (uint64_t)SMALL_ROOM * (m->free_count - 2 * large);
}

/* Each entry may end up in a frame of its own with a commit frame behind it. Puts leave some room
 * to deletes, which are what helps when a full region keeps the log from moving on. */
static bool log_suffices(const struct manifest *m, uint64_t bytes, uint32_t count, bool is_put) {
  uint64_t kept = is_put ? m->config.region->log_blocks / 16 : 0;
  return manifest_log_free_blocks(m) >= LOG_MARGIN_BLOCKS + kept + manifest_log_staged_blocks(m) +
                                            bytes_to_blocks(bytes) + 2 * (uint64_t)count;
}

/* Frames that the entries of a group can take, beyond what their bytes alone fill: an entry by
 * itself may get one of its own; of more, in one go, small ones share frames of frame_target_bytes,
 * and a large one also closes the frame before it. */
static uint32_t group_frames(const struct manifest *m, const struct manifest_group *g) {
  return g->count == 1 ? 1
                       : 1 + (uint32_t)(g->small_bytes / manifest_frame_target(m)) + 2 * g->large;
}

void manifest_group_add(struct manifest_group *g, uint32_t extents, uint32_t granules) {
  uint32_t bytes = reserved_bytes(extents, granules);
  bool is_large = bytes > ENTRY_SMALL_MAX;
  g->count++;
  g->large += is_large;
  g->puts |= extents > 0;
  *(is_large ? &g->large_bytes : &g->small_bytes) += bytes;
}

/* Whether an empty log would have room. */
static bool group_fits(const struct manifest *m, const struct manifest_group *g) {
  uint64_t kept = m->config.region->log_blocks / 16;
  if (2 * g->large >= LOG_BUFFERS) return false;
  if (g->small_bytes > (uint64_t)SMALL_ROOM * (LOG_BUFFERS - 1 - 2 * g->large)) return false;
  return LOG_MARGIN_BLOCKS + kept + bytes_to_blocks(g->small_bytes + g->large_bytes) +
             2 * (uint64_t)group_frames(m, g) <=
         m->config.region->log_blocks;
}

/* Without the group's own bounds: by values, since every put goes through it. */
static inline int reserve(struct manifest *m, uint64_t small_bytes, uint32_t large,
                          uint64_t large_bytes, uint32_t frames, bool puts) {
  if (m->config.read_only) return -EROFS;
  if (m->stopped) return -EIO;
  uint64_t small = m->small_reserved + small_bytes;
  large += m->large_reserved;
  large_bytes += m->large_reserved_bytes;
  frames += m->reserved_count;
  if (!buffers_suffice(m, small, large)) return -EAGAIN;
  m->log_short = !log_suffices(m, small + large_bytes, frames, puts);
  if (m->log_short) return -EAGAIN;
  m->small_reserved = small;
  m->large_reserved = large;
  m->large_reserved_bytes = large_bytes;
  m->reserved_count = frames;
  return 0;
}

static inline void cancel(struct manifest *m, uint64_t small_bytes, uint32_t large,
                          uint64_t large_bytes, uint32_t frames) {
  check(m->reserved_count >= frames && m->large_reserved >= large &&
        m->small_reserved >= small_bytes);
  m->small_reserved -= small_bytes;
  m->large_reserved -= large;
  m->large_reserved_bytes -= large_bytes;
  m->reserved_count -= frames;
}

int manifest_reserve_group(struct manifest *m, const struct manifest_group *g) {
  if (g->count > 1 && !m->config.read_only && !m->stopped && !group_fits(m, g)) return -ENOSPC;
  return reserve(m, g->small_bytes, g->large, g->large_bytes, group_frames(m, g), g->puts);
}

void manifest_cancel_group(struct manifest *m, const struct manifest_group *g) {
  cancel(m, g->small_bytes, g->large, g->large_bytes, group_frames(m, g));
}

int manifest_reserve(struct manifest *m, uint64_t hash, uint32_t extents, uint32_t granules) {
  uint32_t bytes = reserved_bytes(extents, granules);
  bool is_large = bytes > ENTRY_SMALL_MAX;
  int r = reserve(m, is_large ? 0 : bytes, is_large, is_large ? bytes : 0, 1, extents > 0);
  if (r) return r;
  r = index_reserve(m->index, hash, extents, granules);
  if (r) manifest_cancel(m, extents, granules);
  return r;
}

void manifest_cancel(struct manifest *m, uint32_t extents, uint32_t granules) {
  uint32_t bytes = reserved_bytes(extents, granules);
  bool is_large = bytes > ENTRY_SMALL_MAX;
  cancel(m, is_large ? 0 : bytes, is_large, is_large ? bytes : 0, 1);
}

int manifest_reserve_entry(struct manifest *m, uint32_t bytes, bool frees) {
  return reserve(m, bytes, 0, 0, 1, !frees);
}

void manifest_cancel_entry(struct manifest *m, uint32_t bytes) { cancel(m, bytes, 0, 0, 1); }

void manifest_use_group(struct manifest *m, const struct manifest_group *g) {
  m->reserved_count += g->count - group_frames(m, g); /* modulo 2^32: the sum is not below 0 */
  m->in_group = g->count > 1;
}

void manifest_end_group(struct manifest *m) {
  m->in_group = false;
  m->group_buffer = NULL;
}

void manifest_note_batch(struct manifest *m) {
  m->batch_sequence = m->sequence;
  manifest_log_batched(m);
}

/* ---- Changes ----------------------------------------------------------------------------- */

/* Copies: the index may move what find returned while we free it. */
static void free_old(struct manifest *m, uint64_t hash, struct blob_id id) {
  struct blob old;
  if (index_find(m->index, hash, id, &old) == 0 && old.extent_count)
    space_free(m->space, old.extents, old.extent_count);
}

uint64_t manifest_put(struct manifest *m, uint64_t hash, const struct blob *blob) {
  uint32_t bytes = entry_put_bytes(blob->extent_count, blob->granule_count);
  void *at = manifest_log_place(m, bytes);
  bool checked = !(blob->flags & BLOB_NO_CHECKSUM);
  manifest_log_added(m, log_entry_put(at, blob), checked ? blob->bytes : UNVERIFIABLE);
  free_old(m, hash, blob->id);
  /* Again: other puts may have used the room that was reserved. Only growth of a table or of the
   * slab can fail here, for want of memory, and then there is no way back. */
  check(manifest_index_room(m, hash, blob) == 0);
  check(index_put(m->index, hash, blob) == 0);
  manifest_cancel(m, blob->extent_count, blob->granule_count); /* consumed */
  return manifest_next_ticket(m);
}

uint64_t manifest_delete(struct manifest *m, uint64_t hash, struct blob_id id) {
  if (!PLANTED(forget_deletes)) {
    void *at = manifest_log_place(m, reserved_bytes(0, 0));
    manifest_log_added(m, log_entry_delete(at, id), 0);
  }
  free_old(m, hash, id);
  check(index_delete(m->index, hash, id) == 0);
  manifest_cancel(m, 0, 0); /* consumed */
  return PLANTED(forget_deletes) ? manifest_ticket(m) - 1 : manifest_next_ticket(m);
}

/* ---- The rest ---------------------------------------------------------------------------- */

bool manifest_dirty(const struct manifest *m) { return manifest_ticket(m) > m->covered; }
bool manifest_stopped(const struct manifest *m) { return m->stopped; }
void manifest_stop(struct manifest *m) { m->stopped = true; }
void manifest_set_zeroed_blocks(struct manifest *m, uint64_t blocks) { m->zeroed_blocks = blocks; }
uint64_t manifest_zeroed_blocks(const struct manifest *m) { return m->zeroed_blocks; }

bool manifest_tick(struct manifest *m) {
  bool more = manifest_log_pump(m);
  return checkpoint_tick(m) || more;
}

bool manifest_unsettled(const struct manifest *m) {
  return m->unsettled && !PLANTED(use_what_is_unsettled);
}

bool manifest_wants_flush(const struct manifest *m) {
  uint64_t staged = manifest_log_staged_blocks(m), usable = manifest_log_usable(m);
  uint64_t used = m->position - m->durable_head + staged;
  uint64_t gain = m->pending_head - m->durable_head;
  if (m->stopped || m->config.read_only || m->seal || m->sealed) return false;
  if (m->flush_asked) return true;
  if (m->space_short && (m->wanted || m->log_short || used > usable / 2) &&
      checkpoint_flush_helps(m))
    return true;
  /* Nothing left to checkpoint, and what is staged fills the log: it must become frames first. */
  if (m->log_short && gain == 0 && m->pending_head == manifest_log_end(m)) return staged > 0;
  if (m->log_short && gain > 0) return true;
  if (used <= usable / 2) return false;
  return gain >= usable / 8 || (gain > 0 && used > usable - usable / 4);
}

bool manifest_ask_flush(struct manifest *m, uint64_t pending_blocks) {
  if (!pending_blocks || m->stopped || m->config.read_only) return false;
  m->flush_asked = true;
  return true;
}

void manifest_checkpoint_all(struct manifest *m) { m->wanted = INDEX_PARTITIONS; }
bool manifest_checkpoint_done(const struct manifest *m) {
  return m->stopped || m->config.read_only || (m->wanted == 0 && !m->writing);
}

bool manifest_idle(const struct manifest *m) {
  return m->writes_in_flight == 0 && m->flushes_in_flight == 0 && !m->writing &&
         !m->directory_writing && !m->seal && !m->waiters && m->barrier == BARRIER_NONE;
}

void manifest_destroy(struct manifest *m) {
  if (!m) return;
  check(manifest_idle(m));
  checkpoint_destroy(m);
  manifest_log_destroy(m);
  if (m->losses) index_destroy(m->losses->certain);
  if (m->losses) map_destroy(m->losses->certain_clusters);
  free(m->losses);
  index_destroy(m->index);
  map_destroy(m->map);
  records_destroy(m->records);
  space_destroy(m->space);
  free(m);
}

bool manifest_has_losses(const struct manifest *m) {
  for (uint32_t p = 0; m->losses && p < INDEX_PARTITIONS; p++)
    if (m->losses->old[p] || m->losses->partition[p]) return true;
  return false;
}

void manifest_stats(const struct manifest *m, struct manifest_stats *stats) {
  *stats = (struct manifest_stats){.log_blocks_used = m->position - m->durable_head,
                                   .log_blocks = m->config.region->log_blocks,
                                   .log_frames = m->frames,
                                   .checkpoints = m->checkpoints,
                                   .commits = m->commits,
                                   .commit_waiters = m->commit_waiters,
                                   .checkpoint_blocks = checkpoint_blocks(m)};
}
