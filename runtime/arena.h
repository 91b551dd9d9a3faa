/* arena.h - buffers for direct I/O: 4 KiB-aligned memory cut from one mapping, which the owner
 * registers with every ring.
 *
 * The mapping is on huge pages when they can be had (reserved ones, else transparent ones),
 * near one NUMA node when asked, and is not inherited over fork(), so that a page under I/O
 * never moves to a child. When it is full, arena_alloc() gives ordinary aligned memory
 * instead: slower, since it is not registered, but never a refusal before memory is out.
 *
 * Any thread may call anything, but for create and destroy; a mutex guards the map. A call
 * costs O(runs) at worst, usually O(1); it belongs to set-up, not to the path of a request.
 *
 * Unit: a block of 4096 bytes. Each maximal run of blocks, used or free, is written down at
 * both its ends, so that a free run joins its neighbours without a search. */
#ifndef RUNTIME_ARENA_H
#define RUNTIME_ARENA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARENA_BYTES_MAX (UINT64_C(1) << 40)

struct arena;

enum arena_pages {
  ARENA_PAGES_HUGE = 1,        /* reserved huge pages (MAP_HUGETLB) */
  ARENA_PAGES_TRANSPARENT = 2, /* asked for by madvise; the kernel may or may not follow */
  ARENA_PAGES_ORDINARY = 3,
};

struct arena_stats {
  uint64_t bytes;           /* of the mapping */
  uint64_t used_bytes;      /* allocated from it */
  uint64_t free_runs;       /* 1 when nothing is allocated; how fragmented it is */
  uint64_t buffers;         /* allocated from it */
  uint64_t outside_buffers; /* allocated now because the arena was full */
  uint64_t outside_total;   /* ... and ever */
  enum arena_pages pages;
  int numa_node; /* that the memory is bound to by preference, or -1 */
};

/* Makes an arena of `bytes`, rounded up to blocks, and to 2 MiB from 2 MiB on. numa_node: where
 * the memory should lie, -1 for where it is first touched; a node that cannot be had is no
 * error. -EINVAL: bytes is 0 or above ARENA_BYTES_MAX; -ENOMEM. *arena only on success. */
int arena_create(uint64_t bytes, int numa_node, struct arena **arena);
/* Touches all of it, so that registering it finds its pages there: zeroing them is most of the
 * cost. Only a hint. */
void arena_populate(struct arena *arena);
/* Every buffer inside is gone; those outside the mapping must have been freed before. NULL is
 * fine. */
void arena_destroy(struct arena *arena);

/* Whole blocks, at least one, 4096-aligned. zeroed: all of them are 0, else undefined. NULL:
 * out of memory, or more than ARENA_BYTES_MAX. The caller owns them until arena_free(). */
void *arena_alloc(struct arena *arena, size_t bytes, bool zeroed);
/* buffer: from this arena's arena_alloc(), inside the mapping or not; NULL is fine. What is no
 * buffer of the mapping, or not any more, ends the process. */
void arena_free(struct arena *arena, void *buffer);

/* The mapping, to be registered: constant for the arena's life. */
void *arena_base(const struct arena *arena);
uint64_t arena_bytes(const struct arena *arena);
bool arena_contains(const struct arena *arena, const void *p);
void arena_get_stats(struct arena *arena, struct arena_stats *stats);

#endif
