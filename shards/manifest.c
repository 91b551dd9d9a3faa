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

int manifest_reserve(struct manifest *m, uint64_t hash, uint32_t extents, uint32_t granules) {
  if (m->config.read_only) return -EROFS;
  if (m->stopped) return -EIO;
  uint32_t bytes = reserved_bytes(extents, granules);
  bool is_large = bytes > ENTRY_SMALL_MAX;
  uint64_t small = m->small_reserved + (is_large ? 0 : bytes);
  if (!buffers_suffice(m, small, m->large_reserved + is_large)) return -EAGAIN;
  uint64_t all = small + m->large_reserved_bytes + (is_large ? bytes : 0);
  m->log_short = !log_suffices(m, all, m->reserved_count + 1, extents > 0);
  if (m->log_short) return -EAGAIN;
  int r = index_reserve(m->index, hash, extents, granules);
  if (r) return r;
  m->small_reserved = small;
  m->large_reserved += is_large;
  m->large_reserved_bytes += is_large ? bytes : 0;
  m->reserved_count++;
  return 0;
}

void manifest_cancel(struct manifest *m, uint32_t extents, uint32_t granules) {
  uint32_t bytes = reserved_bytes(extents, granules);
  check(m->reserved_count > 0);
  m->reserved_count--;
  if (bytes > ENTRY_SMALL_MAX) {
    check(m->large_reserved > 0);
    m->large_reserved--;
    m->large_reserved_bytes -= bytes;
  } else {
    check(m->small_reserved >= bytes);
    m->small_reserved -= bytes;
  }
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
  manifest_log_added(m, log_entry_put(at, blob));
  free_old(m, hash, blob->id);
  /* Again: other puts may have used the room that was reserved. Only growth of a table or of the
   * slab can fail here, for want of memory, and then there is no way back. */
  check(manifest_index_room(m, hash, blob) == 0);
  check(index_put(m->index, hash, blob) == 0);
  manifest_cancel(m, blob->extent_count, blob->granule_count); /* consumed */
  return m->sequence++;
}

uint64_t manifest_delete(struct manifest *m, uint64_t hash, struct blob_id id) {
  if (!PLANTED(forget_deletes)) {
    void *at = manifest_log_place(m, reserved_bytes(0, 0));
    manifest_log_added(m, log_entry_delete(at, id));
  }
  free_old(m, hash, id);
  check(index_delete(m->index, hash, id) == 0);
  manifest_cancel(m, 0, 0); /* consumed */
  return PLANTED(forget_deletes) ? m->sequence - 1 : m->sequence++;
}

/* ---- The rest ---------------------------------------------------------------------------- */

bool manifest_dirty(const struct manifest *m) { return m->sequence > m->covered; }
void manifest_stop(struct manifest *m) { m->stopped = true; }
void manifest_set_zeroed_blocks(struct manifest *m, uint64_t blocks) { m->zeroed_blocks = blocks; }
uint64_t manifest_zeroed_blocks(const struct manifest *m) { return m->zeroed_blocks; }

bool manifest_tick(struct manifest *m) {
  bool more = manifest_log_pump(m);
  return checkpoint_tick(m) || more;
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
  if (m->log_short && gain == 0 && m->pending_head == m->position) return staged > 0;
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
  free(m->losses);
  index_destroy(m->index);
  space_destroy(m->space);
  free(m);
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
