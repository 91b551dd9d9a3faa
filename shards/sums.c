/* sums.c - see sums.h. No state of its own. */
#include "shards/sums.h"

#include "shards/base/base.h"
#include "shards/base/crc32c.h"

void sums_feed(struct sums *x, const void *buf, uint64_t bytes) {
  const char *p = buf;
  if (x->shift == 0) return;
  while (bytes) {
    if (x->grows && x->fill == 0) sums_grow(x);
    uint64_t part = min_u64(bytes, (UINT64_C(1) << x->shift) - x->fill);
    x->crc = crc32c(x->crc, p, part);
    x->fill += (uint32_t)part;
    p += part;
    bytes -= part;
    if (x->fill >> x->shift) sums_end(x);
  }
}

void sums_end(struct sums *x) {
  if (x->fill == 0) return;
  x->at[x->count++] = x->crc;
  x->crc = 0;
  x->fill = 0;
}

bool sums_check(struct sums *x, const void *buf, uint64_t bytes) {
  const char *p = buf;
  if (x->shift == 0) return true;
  while (bytes) {
    uint64_t part = min_u64(bytes, (UINT64_C(1) << x->shift) - x->fill);
    x->crc = crc32c(x->crc, p, part);
    x->fill += (uint32_t)part;
    p += part;
    bytes -= part;
    if (x->fill >> x->shift && !sums_check_end(x)) return false;
  }
  return true;
}

bool sums_check_end(struct sums *x) {
  if (x->fill == 0) return true;
  if (x->at[x->count] != x->crc) return false;
  x->count++;
  x->crc = 0;
  x->fill = 0;
  return true;
}
