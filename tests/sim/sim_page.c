/* sim_page.c - see sim_page.h. */
#include "tests/sim/sim_page.h"

#include <stdlib.h>
#include <string.h>

struct page *page_ref(struct page *p) {
  if (p) p->refs++;
  return p;
}

void page_unref(struct page *p) {
  if (p && --p->refs == 0) free(p);
}

struct page *page_of(const void *bytes) {
  const uint64_t *w = bytes;
  uint64_t any = 0;
  for (uint32_t i = 0; i < BLOCK_BYTES / 8; i++) any |= w[i];
  if (!any) return NULL;
  struct page *p = malloc(sizeof *p);
  check(p != NULL);
  p->refs = 1;
  p->hashed = false;
  memcpy(p->words, bytes, BLOCK_BYTES);
  return p;
}

void page_read(const struct page *p, void *to) {
  if (p)
    memcpy(to, p->words, BLOCK_BYTES);
  else
    memset(to, 0, BLOCK_BYTES);
}

static uint64_t mix(uint64_t a, uint64_t b) {
  __uint128_t m =
      (__uint128_t)(a ^ UINT64_C(0xa0761d6478bd642f)) * (b ^ UINT64_C(0xe7037ed1a0b428db));
  return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint64_t page_hash(struct page *p) {
  if (p->hashed) return p->hash;
  uint64_t h = 1;
  for (uint32_t i = 0; i < BLOCK_BYTES / 8; i += 2) h = mix(h ^ p->words[i], p->words[i + 1] + i);
  p->hashed = true;
  p->hash = h;
  return h;
}

uint64_t page_hash_at(struct page *p, uint32_t disk, uint64_t block) {
  return p ? mix(page_hash(p), mix(disk + 1, block + 1)) : 0;
}

uint8_t page_diff(const struct page *a, const struct page *b) {
  static const char zeros[SECTOR_BYTES];
  uint8_t mask = 0;
  for (uint32_t s = 0; a != b && s < SECTORS_PER_BLOCK; s++) {
    const char *x = a ? (const char *)a->words + s * SECTOR_BYTES : zeros;
    const char *y = b ? (const char *)b->words + s * SECTOR_BYTES : zeros;
    if (memcmp(x, y, SECTOR_BYTES) != 0) mask |= (uint8_t)(1u << s);
  }
  return mask;
}

struct page *page_merge(struct page *below, struct page *above, uint8_t keep) {
  if (keep == 0xff) return page_ref(above);
  if (keep == 0) return page_ref(below);
  uint64_t bytes[BLOCK_BYTES / 8], from[BLOCK_BYTES / 8];
  page_read(below, bytes);
  page_read(above, from);
  for (uint32_t s = 0; s < SECTORS_PER_BLOCK; s++)
    if (keep & (1u << s))
      memcpy((char *)bytes + s * SECTOR_BYTES, (char *)from + s * SECTOR_BYTES, SECTOR_BYTES);
  return page_of(bytes);
}
