/* bench_sizes.h - how large blobs are: --blob-size-dist. A blob's size is a function of its number
 * and the seed, as its contents are.
 *
 *   fixed:SIZE            all alike
 *   uniform:MIN-MAX       each size from MIN to MAX as often as any other
 *   lognormal:MEDIAN:S    the logarithm is normal with standard deviation S, above 0, up to 4; cut
 * off at e^(4 S) times the median, which one in 30,000 would exceed 4k/60:64k/40          60 % are
 * of 4 KiB, 40 % of 64 KiB; who has no percentage gets an equal part of what is left (fio's
 * bssplit) FILE                  lines of a size and, behind a blank, how often it comes up
 * (default 1), as a trace or a survey gives them; # begins a comment
 *
 * Written once, then read by any thread. */
#ifndef TOOLS_BENCH_SIZES_H
#define TOOLS_BENCH_SIZES_H

#include <stddef.h>
#include <stdint.h>

#define SIZES_BYTES_MAX (UINT64_C(1) << 30)
#define SIZES_LINES_MAX 65536u

enum sizes_kind { SIZES_NONE, SIZES_FIXED, SIZES_UNIFORM, SIZES_LOGNORMAL, SIZES_LIST };
struct sizes_entry {
  uint64_t bytes;
  double until; /* of [0, 1): the share of this one and all before it */
};
struct sizes {
  enum sizes_kind kind;
  uint64_t min, max; /* bytes: none is outside */
  double median, sigma;
  uint32_t count;
  struct sizes_entry *entries; /* of a list */
};

/* -EINVAL: none of these, and `why` says what is wrong with it; -ENOMEM. */
int sizes_parse(const char *text, struct sizes *s, char *why, size_t why_bytes);
void sizes_finish(struct sizes *s);
uint64_t sizes_of(const struct sizes *s, uint64_t number, uint64_t seed);
/* Of the first blobs, in the mean, rounded up to whole units. */
double sizes_mean(const struct sizes *s, uint64_t blobs, uint64_t seed, uint64_t unit);

#endif
