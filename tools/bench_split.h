/* bench_split.h - requests of several sizes, as fio's bssplit=4k/60:64k/40: which size how often.
 * Pure arithmetic. */
#ifndef TOOLS_BENCH_SPLIT_H
#define TOOLS_BENCH_SPLIT_H

#include <stddef.h>
#include <stdint.h>

#define SPLIT_MAX 64

struct split {
  uint32_t count;            /* 0: all requests have one size */
  uint64_t bytes[SPLIT_MAX]; /* multiples of `min`, which is one of them */
  uint32_t upto[SPLIT_MAX];  /* percent, with all before it; the last one is 100 */
  uint64_t min, max;
};
/* "SIZE/PERCENT:SIZE/PERCENT:..."; what has no percentage shares the rest evenly. 0; -EINVAL, and
 * why says what is wrong. */
int split_parse(const char *text, struct split *s, char *why, size_t why_bytes);
/* dice: 0 to 99, each alike. */
static inline uint64_t split_pick(const struct split *s, uint64_t dice) {
  uint32_t i = 0;
  while (dice >= s->upto[i]) i++;
  return s->bytes[i];
}
double split_mean(const struct split *s);

#endif
