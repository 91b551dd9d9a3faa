/* arena.c - a block allocator over one mapping.
 *
 * Threads: any; arena->lock guards all fields that change. Invariants, under the lock:
 *   - Runs tile the mapping. tags[] holds a run's length and whether it is used at its first
 *     and its last block (one and the same for a run of one); tags between are stale, which is
 *     why used runs are recognised by FIRST and a stale tag is wiped when runs join.
 *   - Two neighbouring runs are never both free.
 *   - `next` is the first block of a run: where the next search begins (next fit). */
#include "runtime/arena.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shards/base/base.h"

#define HUGE_BYTES     (UINT64_C(2) << 20)
#define HUGE_2MB       (21 << 26) /* MAP_HUGE_2MB: log2 of the size at MAP_HUGE_SHIFT */
#define POPULATE_WRITE 23         /* MADV_POPULATE_WRITE, Linux 5.14; older headers lack it */
#define BIND_PREFERRED 1          /* MPOL_PREFERRED of linux/mempolicy.h */
#define NODES_MAX      1024

/* A tag. The length fits: ARENA_BYTES_MAX is 2^28 blocks. */
#define TAG_USED   (UINT32_C(1) << 31)
#define TAG_FIRST  (UINT32_C(1) << 30)
#define TAG_LENGTH (TAG_FIRST - 1)

struct arena {
  unsigned char *base;
  uint64_t blocks;
  void *mapping; /* base lies in it, on a 2 MiB boundary */
  uint64_t mapping_bytes;
  pthread_mutex_t lock;
  uint64_t next;
  struct arena_stats stats;
  uint32_t tags[];
};

static_assert(ARENA_BYTES_MAX / BLOCK_BYTES <= TAG_LENGTH, "a run's length fits its tag");

/* ---- The mapping --------------------------------------------------------------------- */

/* Before the first touch. A preference, so that a full or absent node is no failure. */
static int bind_to_node(void *base, uint64_t bytes, int node) {
  unsigned long mask[NODES_MAX / (8 * sizeof(unsigned long))] = {0};
  const int bits = 8 * sizeof(unsigned long);
  if (node < 0 || node >= NODES_MAX) return -1;
  mask[node / bits] = 1ul << (node % bits);
  /* the kernel looks at one bit less than it is told */
  if (syscall(SYS_mbind, base, bytes, BIND_PREFERRED, mask, NODES_MAX + 1, 0)) return -1;
  return node;
}

/* Reserved huge pages. All are touched now, since a page that the pool or the cgroup refuses
 * later would be a SIGBUS. */
static bool map_huge(struct arena *arena, uint64_t bytes, int node) {
  if (bytes % HUGE_BYTES) return false;
  void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | HUGE_2MB, -1, 0);
  if (base == MAP_FAILED) return false;
  int bound = bind_to_node(base, bytes, node);
  if (madvise(base, bytes, POPULATE_WRITE)) {
    munmap(base, bytes);
    return false;
  }
  arena->base = arena->mapping = base;
  arena->mapping_bytes = bytes;
  arena->stats.pages = ARENA_PAGES_HUGE;
  arena->stats.numa_node = bound;
  return true;
}

static bool map_ordinary(struct arena *arena, uint64_t bytes, int node) {
  bool large = bytes % HUGE_BYTES == 0;
  uint64_t mapping_bytes = large ? bytes + HUGE_BYTES - BLOCK_BYTES : bytes;
  void *mapping =
      mmap(NULL, mapping_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return false;
  uint64_t start = (uint64_t)(uintptr_t)mapping;
  arena->mapping = mapping;
  arena->mapping_bytes = mapping_bytes;
  arena->base = (unsigned char *)mapping + (large ? round_up(start, HUGE_BYTES) - start : 0);
  arena->stats.numa_node = bind_to_node(arena->base, bytes, node);
  bool huge = large && !madvise(arena->base, bytes, MADV_HUGEPAGE);
  arena->stats.pages = huge ? ARENA_PAGES_TRANSPARENT : ARENA_PAGES_ORDINARY;
  return true;
}

/* ---- Runs ------------------------------------------------------------------------------ */

static uint64_t run_length(const struct arena *arena, uint64_t first) {
  return arena->tags[first] & TAG_LENGTH;
}

static bool run_used(const struct arena *arena, uint64_t first) {
  return arena->tags[first] & TAG_USED;
}

/* The last block's tag carries no FIRST unless it is also the first block. */
static void run_set(struct arena *arena, uint64_t first, uint64_t length, bool used) {
  uint32_t tag = (uint32_t)length | (used ? TAG_USED : 0);
  arena->tags[first + length - 1] = tag;
  arena->tags[first] = tag | TAG_FIRST;
}

/* The run after `first`, round the end. */
static uint64_t run_after(const struct arena *arena, uint64_t first) {
  uint64_t after = first + run_length(arena, first);
  return after == arena->blocks ? 0 : after;
}

/* A free run of at least `length`, or arena->blocks. Each run is looked at once. */
static uint64_t find_free(const struct arena *arena, uint64_t length) {
  uint64_t first = arena->next;
  do {
    if (!run_used(arena, first) && run_length(arena, first) >= length) return first;
    first = run_after(arena, first);
  } while (first != arena->next);
  return arena->blocks;
}

static void take(struct arena *arena, uint64_t first, uint64_t length) {
  uint64_t rest = run_length(arena, first) - length;
  run_set(arena, first, length, true);
  if (rest)
    run_set(arena, first + length, rest, false);
  else
    arena->stats.free_runs--;
  arena->next = run_after(arena, first);
  arena->stats.used_bytes += length * BLOCK_BYTES;
  arena->stats.buffers++;
}

static void give_back(struct arena *arena, uint64_t first) {
  uint64_t length = run_length(arena, first);
  check(arena->tags[first] & TAG_FIRST);
  check(run_used(arena, first));
  check(arena->stats.buffers > 0);
  arena->stats.used_bytes -= length * BLOCK_BYTES;
  arena->stats.buffers--;
  arena->stats.free_runs++;

  uint64_t start = first, end = first + length;
  if (end < arena->blocks && !run_used(arena, end)) {
    uint64_t joined = run_length(arena, end);
    if (arena->next == end) arena->next = first;
    arena->tags[end] = 0;
    end += joined;
    arena->stats.free_runs--;
  }
  if (start > 0 && !(arena->tags[start - 1] & TAG_USED)) {
    start -= arena->tags[start - 1] & TAG_LENGTH;
    if (arena->next == first) arena->next = start;
    arena->stats.free_runs--;
  }
  arena->tags[first] = 0;
  run_set(arena, start, end - start, false);
}

/* ---- The interface --------------------------------------------------------------------- */

int arena_create(uint64_t bytes, int numa_node, struct arena **out) {
  if (bytes == 0 || bytes > ARENA_BYTES_MAX) return -EINVAL;
  bytes = round_up(bytes, bytes >= HUGE_BYTES ? HUGE_BYTES : BLOCK_BYTES);
  uint64_t blocks = bytes / BLOCK_BYTES;
  struct arena *arena = calloc(1, sizeof *arena + blocks * sizeof arena->tags[0]);
  if (!arena) return -ENOMEM;
  if (!map_huge(arena, bytes, numa_node) && !map_ordinary(arena, bytes, numa_node)) {
    free(arena);
    return -ENOMEM;
  }
  /* A child would otherwise share pages that the device still writes to. */
  if (madvise(arena->mapping, arena->mapping_bytes, MADV_DONTFORK)) {
    int error = errno;
    munmap(arena->mapping, arena->mapping_bytes);
    free(arena);
    return -error;
  }
  pthread_mutex_init(&arena->lock, NULL);
  arena->blocks = blocks;
  arena->stats.bytes = bytes;
  arena->stats.free_runs = 1;
  run_set(arena, 0, blocks, false);
  *out = arena;
  return 0;
}

void arena_destroy(struct arena *arena) {
  if (!arena) return;
  munmap(arena->mapping, arena->mapping_bytes);
  pthread_mutex_destroy(&arena->lock);
  free(arena);
}

static void *alloc_outside(struct arena *arena, uint64_t bytes) {
  void *buffer = aligned_alloc(BLOCK_BYTES, bytes);
  if (!buffer) return NULL;
  pthread_mutex_lock(&arena->lock);
  arena->stats.outside_buffers++;
  arena->stats.outside_total++;
  pthread_mutex_unlock(&arena->lock);
  return buffer;
}

void *arena_alloc(struct arena *arena, size_t bytes, bool zeroed) {
  if (bytes > ARENA_BYTES_MAX) return NULL;
  uint64_t length = max_u64(bytes_to_blocks(bytes), 1);
  void *buffer = NULL;
  pthread_mutex_lock(&arena->lock);
  uint64_t first = find_free(arena, length);
  if (first < arena->blocks) {
    take(arena, first, length);
    buffer = arena->base + first * BLOCK_BYTES;
  }
  pthread_mutex_unlock(&arena->lock);
  if (!buffer) buffer = alloc_outside(arena, length * BLOCK_BYTES);
  if (buffer && zeroed) memset(buffer, 0, length * BLOCK_BYTES);
  return buffer;
}

void arena_free(struct arena *arena, void *buffer) {
  if (!buffer) return;
  bool inside = arena_contains(arena, buffer);
  pthread_mutex_lock(&arena->lock);
  if (inside) {
    uint64_t offset = (uint64_t)((unsigned char *)buffer - arena->base);
    check(is_aligned(offset, BLOCK_BYTES));
    give_back(arena, offset / BLOCK_BYTES);
  } else {
    check(arena->stats.outside_buffers > 0);
    arena->stats.outside_buffers--;
  }
  pthread_mutex_unlock(&arena->lock);
  if (!inside) free(buffer);
}

void *arena_base(const struct arena *arena) { return arena->base; }

uint64_t arena_bytes(const struct arena *arena) { return arena->blocks * BLOCK_BYTES; }

bool arena_contains(const struct arena *arena, const void *p) {
  uintptr_t at = (uintptr_t)p, base = (uintptr_t)arena->base;
  return at >= base && at - base < arena_bytes(arena);
}

void arena_get_stats(struct arena *arena, struct arena_stats *stats) {
  pthread_mutex_lock(&arena->lock);
  *stats = arena->stats;
  pthread_mutex_unlock(&arena->lock);
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14; an older kernel answers EINVAL */
#endif

void arena_populate(struct arena *arena) {
  (void)madvise(arena_base(arena), arena_bytes(arena), MADV_POPULATE_WRITE);
}
