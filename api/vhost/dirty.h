/* dirty.h - which pages of a guest's memory were written to, while it migrates: one bit for each
 * 4 KiB, by guest address, in memory that the monitor has shared (vhost-user, "Migration").
 *
 * Marked by the threads that serve rings; set and taken away while none of them runs. */
#ifndef API_VHOST_DIRTY_H
#define API_VHOST_DIRTY_H

#include "api/vhost/memory.h"

#define DIRTY_PAGE_SHIFT 12u

struct dirty_log {
  uint8_t *bits; /* NULL: nothing is logged */
  uint64_t bytes;
  void *mapping;
  uint64_t mapping_bytes;
};

/* Maps the file's [offset, +bytes); the descriptor stays the caller's. lost: as for memory_guard().
 * -EINVAL: not all of it is in the file, or empty. */
int dirty_map(struct dirty_log *log, int fd, uint64_t offset, uint64_t bytes,
              _Atomic uint32_t *lost);
void dirty_unmap(struct dirty_log *log);

/* [guest, +bytes); what lies beyond the log is not marked. */
static inline void dirty_mark(const struct dirty_log *log, uint64_t guest, uint64_t bytes) {
  if (!bytes || guest > UINT64_MAX - (bytes - 1)) return;
  uint64_t page = guest >> DIRTY_PAGE_SHIFT, last = (guest + bytes - 1) >> DIRTY_PAGE_SHIFT;
  for (; page <= last && page / 8 < log->bytes; page++)
    __atomic_fetch_or(&log->bits[page / 8], (uint8_t)(1u << page % 8), __ATOMIC_RELAXED);
}
/* The same by where it lies here. */
void dirty_mark_host(const struct dirty_log *log, const struct guest_memory *memory, const void *at,
                     uint64_t bytes);

#endif
