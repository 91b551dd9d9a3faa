/* radix.h - a tree from small numbers to pieces of a slab, by 7 bits a level.
 *
 * Single-threaded, reads included: radix_find() remembers what it found last. A node is 128
 * references, 512 bytes, in the caller's slab, beside the pieces. There are only as many levels as
 * the highest number so far needs (none for number 0 alone), and no node without anything below
 * it; levels go away only with the last number. All zeros, and radix_init(), is an empty tree. */
#ifndef SHARDS_BASE_RADIX_H
#define SHARDS_BASE_RADIX_H

#include "shards/base/slab.h"

#define RADIX_BITS        7u
#define RADIX_WIDTH       (1u << RADIX_BITS)
#define RADIX_NUMBERS_MAX (UINT64_C(1) << 28)

struct radix {
  uint32_t root;  /* a node, or the piece of number 0 if shift is 0; 0: the tree is empty */
  uint32_t shift; /* RADIX_BITS * levels: numbers below 1 << shift have a slot */
  void *last;     /* the piece that was found last; NULL: none */
  uint64_t last_number;
};
static inline void radix_init(struct radix *r) { *r = (struct radix){0}; }

/* The piece of a number, 0 if it has none. Any number. */
static inline uint32_t radix_find_ref(const struct radix *r, const struct slab *slab,
                                      uint64_t number) {
  uint32_t shift = r->shift, ref = r->root;
  if (number >> shift) return 0;
  while (shift && ref) {
    const uint32_t *node = slab_at(slab, ref);
    shift -= RADIX_BITS;
    ref = node[(number >> shift) % RADIX_WIDTH];
  }
  return ref;
}
/* The same, as a pointer or NULL; short for the number that was found last. */
static inline void *radix_find(const struct radix *r, const struct slab *slab, uint64_t number) {
  if (r->last_number == number && likely(r->last != NULL)) return r->last;
  uint32_t ref = radix_find_ref(r, slab, number);
  if (!ref) return NULL;
  struct radix *memory = (struct radix *)r; /* nobody sees the difference */
  memory->last_number = number;
  return memory->last = slab_at(slab, ref);
}
/* The first number at or after `number` that has a piece; UINT64_MAX: none. */
uint64_t radix_next(const struct radix *r, const struct slab *slab, uint64_t number);

/* Gives a number that has none a piece (not 0). number: below RADIX_NUMBERS_MAX. -ENOMEM: every
 * number has what it had. */
int radix_insert(struct radix *r, struct slab *slab, uint64_t number, uint32_t ref);
/* Takes it out and returns it, 0 if there was none; the piece is the caller's to free. */
uint32_t radix_remove(struct radix *r, struct slab *slab, uint64_t number);

#endif
