/* radix.c - see radix.h. Single-threaded. Nodes have no count: whether one is empty is looked at
 * when something goes out of it, which ends at the first reference. */
#include "shards/base/radix.h"

#include <errno.h>
#include <string.h>

#define NODE_BYTES (RADIX_WIDTH * sizeof(uint32_t))
#define LEVELS_MAX 4u
_Static_assert(RADIX_NUMBERS_MAX == UINT64_C(1) << (RADIX_BITS * LEVELS_MAX), "levels");

uint64_t radix_next(const struct radix *r, const struct slab *slab, uint64_t number) {
  while (r->root && !(number >> r->shift)) {
    uint32_t ref = r->root, shift = r->shift;
    while (shift) {
      const uint32_t *node = slab_at(slab, ref);
      shift -= RADIX_BITS;
      uint32_t first = (number >> shift) % RADIX_WIDTH, i = first;
      while (i < RADIX_WIDTH && !node[i]) i++;
      if (i != first) number = ((number >> shift) + (i - first)) << shift;
      if (i == RADIX_WIDTH) break; /* number is now the first one of the next node */
      ref = node[i];
      if (!shift) return number;
    }
    if (!r->shift) return number;
  }
  return UINT64_MAX;
}

static uint32_t node_alloc(struct slab *slab) {
  if (slab_reserve(slab, NODE_BYTES)) return 0;
  uint32_t ref = slab_alloc(slab, NODE_BYTES);
  memset(slab_at(slab, ref), 0, NODE_BYTES);
  return ref;
}

static bool node_is_empty(const uint32_t *node) {
  for (uint32_t i = 0; i < RADIX_WIDTH; i++)
    if (node[i]) return false;
  return true;
}

/* Frees nodes with nothing in them, upwards from the lowest one on the way to a number. */
static void prune(struct radix *r, struct slab *slab, uint64_t number) {
  uint32_t *path[LEVELS_MAX + 1] = {&r->root}, depth = 0;
  uint32_t shift = r->shift;
  for (; shift && *path[depth]; depth++) {
    uint32_t *node = slab_at(slab, *path[depth]);
    shift -= RADIX_BITS;
    path[depth + 1] = &node[(number >> shift) % RADIX_WIDTH];
  }
  if (*path[depth]) return; /* the number has a piece */
  while (depth-- > 0) {
    if (!node_is_empty(slab_at(slab, *path[depth]))) return;
    slab_free(slab, *path[depth], NODE_BYTES);
    *path[depth] = 0;
  }
  r->shift = 0; /* the root was reached */
}

/* Levels above, until the number has a slot. A taller tree says the same as before. */
static int grow(struct radix *r, struct slab *slab, uint64_t number) {
  while (number >> r->shift) {
    if (r->root) {
      uint32_t above = node_alloc(slab);
      if (!above) return -ENOMEM;
      *(uint32_t *)slab_at(slab, above) = r->root;
      r->root = above;
    }
    r->shift += RADIX_BITS;
  }
  return 0;
}

int radix_insert(struct radix *r, struct slab *slab, uint64_t number, uint32_t ref) {
  check(number < RADIX_NUMBERS_MAX);
  check(ref != 0);
  if (grow(r, slab, number)) return -ENOMEM;
  uint32_t *slot = &r->root;
  for (uint32_t shift = r->shift; shift;) {
    if (!*slot) *slot = node_alloc(slab);
    if (!*slot) {
      prune(r, slab, number);
      return -ENOMEM;
    }
    uint32_t *node = slab_at(slab, *slot);
    shift -= RADIX_BITS;
    slot = &node[(number >> shift) % RADIX_WIDTH];
  }
  check(*slot == 0);
  *slot = ref;
  return 0;
}

uint32_t radix_remove(struct radix *r, struct slab *slab, uint64_t number) {
  if (number >> r->shift) return 0;
  uint32_t *slot = &r->root;
  for (uint32_t shift = r->shift; shift && *slot;) {
    uint32_t *node = slab_at(slab, *slot);
    shift -= RADIX_BITS;
    slot = &node[(number >> shift) % RADIX_WIDTH];
  }
  uint32_t ref = *slot;
  if (!ref) return 0; /* maybe the slot of a higher level: nothing is there to prune */
  *slot = 0;
  if (r->last_number == number) r->last = NULL;
  prune(r, slab, number);
  return ref;
}
