/* survivor.h - the buffers of a shard's log in memory that outlives the process (a file in a memory
 * file system, shared): what had completed and was not on its way to the disk yet when the process
 * was killed.
 *
 * Entries are added to a buffer by the shard's thread, which then says how many there are; once the
 * buffer is on disk it is empty. So at any moment the frames on disk and these buffers together
 * have every change that has completed. Nothing here survives a power cut, and nothing needs to. */
#ifndef SHARDS_SURVIVOR_H
#define SHARDS_SURVIVOR_H

#include "shards/log.h"

#define LOG_BUFFERS 8u

struct survivor_buffer {
  uint64_t sequence; /* of its first entry */
  uint64_t filled;   /* bytes of entries << 32 | how many; 0: none. Atomic, written last */
};
struct survivor { /* whole blocks */
  struct survivor_buffer buffers[LOG_BUFFERS];
  uint64_t failed; /* a write or flush did: what is on disk may be less than what can be read */
  char padding[BLOCK_BYTES - LOG_BUFFERS * sizeof(struct survivor_buffer) - sizeof(uint64_t)];
  char bytes[LOG_BUFFERS][FRAME_BYTES_MAX]; /* each begins with the place of a frame's header */
};
_Static_assert(sizeof(struct survivor) % BLOCK_BYTES == 0, "buffers go out by direct I/O");

static inline void survivor_fill(struct survivor_buffer *b, uint32_t bytes, uint32_t count) {
  __atomic_store_n(&b->filled, (uint64_t)bytes << 32 | count, __ATOMIC_RELEASE);
}
static inline void survivor_empty(struct survivor_buffer *b) {
  __atomic_store_n(&b->filled, 0, __ATOMIC_RELEASE);
}
/* Where writing has stopped it may still have what was never written. */
static inline void survivor_begin(struct survivor_buffer *b, uint64_t sequence) {
  survivor_empty(b);
  __atomic_store_n(&b->sequence, sequence, __ATOMIC_RELEASE);
}

#endif
