/* fuzz.h - what all fuzz targets share: taking an input apart, and repairing the checksums that it
 * breaks. Each target is one file fuzz_NAME.c with LLVMFuzzerTestOneInput(); libFuzzer links its
 * own main() to it, everywhere else driver.c runs corpus and regressions through it.
 *
 * A target asserts with check(): it stays on, and libFuzzer takes the abort as a finding. An input
 * must always do the same: no time, no randomness, no state kept between two inputs. */
#ifndef TESTS_FUZZ_FUZZ_H
#define TESTS_FUZZ_FUZZ_H

#include <string.h>

#include "shards/base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What is left of the input. Behind its end all is zero. */
struct feed {
  const uint8_t *at;
  size_t left;
};
/* Up to `bytes` bytes into `to`, zeros behind the end; how many there were. */
static inline size_t feed_bytes(struct feed *f, void *to, size_t bytes) {
  size_t n = bytes < f->left ? bytes : f->left;
  memset(to, 0, bytes);
  if (n) memcpy(to, f->at, n);
  f->at += n;
  f->left -= n;
  return n;
}
static inline uint64_t feed_number(struct feed *f, size_t bytes) {
  uint64_t v = 0;
  feed_bytes(f, &v, bytes);
  return v;
}
static inline uint8_t feed_u8(struct feed *f) { return (uint8_t)feed_number(f, 1); }
static inline uint16_t feed_u16(struct feed *f) { return (uint16_t)feed_number(f, 2); }

/* malloc() that ends the run when there is nothing; exact, so that ASan sees one byte too many. */
void *fuzz_alloc(size_t bytes);
/* Zeroed whole blocks. */
void *fuzz_blocks(uint64_t blocks);
/* A heap copy of `bytes` bytes, with a zero behind them: a string. */
char *fuzz_string(const void *from, size_t bytes);

/* The magic, version and checksum as docs/format.md has them: a second opinion on the encoders. */
void repair_identity(void *buf);           /* FORMAT_IDENTITY_BLOCKS blocks */
void repair_root(void *buf, size_t bytes); /* one copy */
void repair_frame(void *buf);              /* as many blocks as its header says, if it may */
uint32_t frame_bytes_of(const void *buf);  /* 0: more than a frame may have */

/* A logger that takes everything and says nothing, unless the environment has FUZZ_SAY. */
extern const struct logger fuzz_silent;

#endif
