/* sums.h - checksums of a blob's granules, made or compared while the bytes come by in pieces of
 * any size: by puts and streams, by reads and moves, and by recovery. Single-threaded; allocates
 * nothing. */
#ifndef SHARDS_SUMS_H
#define SHARDS_SUMS_H

#include <stdbool.h>
#include <stdint.h>

/* CRC32C of consecutive granules, fed in pieces of any size. shift 0: no checksums. */
struct sums {
  uint32_t *at;
  uint32_t count;     /* whole granules so far */
  uint32_t crc, fill; /* of the granule that has begun */
  uint8_t shift;
  bool grows; /* the final size is unknown: see sums_grow() */
  uint32_t *folded;
  uint32_t folded_count;
};
void sums_feed(struct sums *x, const void *buf, uint64_t bytes);
void sums_end(struct sums *x);
/* Compares instead of storing. False: granule x->count differs. */
bool sums_check(struct sums *x, const void *buf, uint64_t bytes);
bool sums_check_end(struct sums *x);
/* shard_stream.c: a granule is complete and more data follow: moves on to larger granules when the
 * blob outgrows these. */
void sums_grow(struct sums *x);

#endif
