/* block_sums.c - see block_sums.h. No state but what is in the pieces; single-threaded. */
#include "shards/block_sums.h"

#include <errno.h>
#include <string.h>

uint32_t sums_count(const uint64_t *has) {
  uint32_t count = 0;
  for (uint32_t i = 0; i < SUMS_WORDS; i++) count += (uint32_t)__builtin_popcountll(has[i]);
  return count;
}

uint32_t block_sums_run(const struct block_sums *s, uint32_t block, uint32_t max, bool *has) {
  *has = s && block_sums_has(s, block);
  if (!s) return max;
  uint32_t n = 1;
  while (n < max && block_sums_has(s, block + n) == *has) n++;
  return n;
}

static uint32_t piece_bytes(uint32_t room) {
  return (uint32_t)sizeof(struct block_sums) + room * (uint32_t)sizeof(uint32_t);
}

static void count_words(struct block_sums *s) {
  uint32_t before = 0;
  if (block_sums_spread(s)) return;
  for (uint32_t i = 0; i < SUMS_WORDS; i++) {
    s->before[i] = (uint16_t)before;
    before += (uint32_t)__builtin_popcountll(s->has[i]);
  }
}

int block_sums_pack(struct slab *slab, const struct leaf_sums *from, const uint64_t *only,
                    uint32_t *ref) {
  uint64_t has[SUMS_WORDS];
  for (uint32_t i = 0; i < SUMS_WORDS; i++) has[i] = from->has[i] & (only ? only[i] : UINT64_MAX);
  uint32_t count = sums_count(has);
  *ref = 0;
  if (!count) return 0;
  if (slab_reserve(slab, piece_bytes(count))) return -ENOMEM;
  *ref = slab_alloc(slab, piece_bytes(count));
  struct block_sums *s = slab_at(slab, *ref);
  memcpy(s->has, has, sizeof has);
  s->live = (struct live_sums){0};
  s->room = count;
  count_words(s);
  uint32_t *to = s->sum;
  for (uint32_t i = 0; i < SUMS_WORDS; i++)
    for (uint64_t bits = has[i]; bits; bits &= bits - 1)
      *to++ = from->sum[i * 64 + (uint32_t)__builtin_ctzll(bits)];
  return 0;
}

int block_sums_make_spread(struct slab *slab, const struct block_sums *from, uint32_t *ref) {
  if (slab_reserve(slab, piece_bytes(SUMS_BLOCKS))) return -ENOMEM;
  *ref = slab_alloc(slab, piece_bytes(SUMS_BLOCKS));
  struct block_sums *s = slab_at(slab, *ref);
  memset(s, 0, offsetof(struct block_sums, sum));
  s->room = SUMS_BLOCKS;
  if (!from) return 0;
  struct leaf_sums all;
  block_sums_unpack(from, &all);
  memcpy(s->has, all.has, sizeof s->has);
  for (uint32_t i = 0; i < SUMS_BLOCKS; i++) s->sum[i] = leaf_sums_has(&all, i) ? all.sum[i] : 0;
  return 0;
}

void block_sums_unpack(const struct block_sums *s, struct leaf_sums *to) {
  const uint32_t *from = s->sum;
  memcpy(to->has, s->has, sizeof to->has);
  if (block_sums_spread(s)) {
    memcpy(to->sum, s->sum, sizeof to->sum);
    return;
  }
  for (uint32_t i = 0; i < SUMS_WORDS; i++)
    for (uint64_t bits = s->has[i]; bits; bits &= bits - 1)
      to->sum[i * 64 + (uint32_t)__builtin_ctzll(bits)] = *from++;
}

void block_sums_keep(struct block_sums *s, const uint64_t *only) {
  const uint32_t *from = s->sum;
  uint32_t *to = s->sum;
  if (block_sums_spread(s)) {
    for (uint32_t i = 0; i < SUMS_WORDS; i++) s->has[i] &= only[i];
    return;
  }
  for (uint32_t i = 0; i < SUMS_WORDS; i++) {
    for (uint64_t bits = s->has[i]; bits; bits &= bits - 1, from++)
      if (only[i] & bits & -bits) *to++ = *from;
    s->has[i] &= only[i];
  }
  count_words(s);
}

void block_sums_free(struct slab *slab, uint32_t ref) {
  if (!ref) return;
  const struct block_sums *s = slab_at(slab, ref);
  slab_free(slab, ref, piece_bytes(s->room));
}
