/* sim_page.h - blocks of 4 KiB that disks and their images share: counted, never changed once they
 * are made. NULL stands for zeros. One thread. */
#ifndef TESTS_SIM_PAGE_H
#define TESTS_SIM_PAGE_H

#include "shards/base/base.h"

#define SECTOR_BYTES      512u
#define SECTORS_PER_BLOCK 8u

struct page {
  uint32_t refs;
  bool hashed;
  uint64_t hash;
  uint64_t words[BLOCK_BYTES / 8];
};

/* One reference; NULL for zeros. */
struct page *page_of(const void *bytes);
struct page *page_ref(struct page *p);
void page_unref(struct page *p);
void page_read(const struct page *p, void *to);
/* The sectors that differ, a bit each. */
uint8_t page_diff(const struct page *a, const struct page *b);
/* `below` with the kept sectors of `above` over it; a new reference. */
struct page *page_merge(struct page *below, struct page *above, uint8_t keep);
/* Of what lies in a block of a disk: XORed over all blocks it stands for the disks' bytes. Zeros
 * count nothing. */
uint64_t page_hash_at(struct page *p, uint32_t disk, uint64_t block);

#endif
