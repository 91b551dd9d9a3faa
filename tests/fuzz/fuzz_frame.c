/* fuzz_frame.c - frame_decode_header(), frame_checksum_matches(): what is accepted is in range, and
 * header and checksum are what frame_encode() writes.
 *
 * Input: one byte of flags (1: repair magic and checksum), then the frame; zeros behind it. */
#include <errno.h>
#include <stdlib.h>

#include "shards/log.h"
#include "tests/fuzz/fuzz.h"

static void check_frame(const struct frame *f) {
  check(f->payload_bytes % 8 == 0);
  check(frame_blocks(f->payload_bytes) <= FRAME_BLOCKS_MAX);
  bool empty = f->flags & (FRAME_COMMIT | FRAME_SKIP);
  check((f->flags & ~(FRAME_COMMIT | FRAME_SKIP | FRAME_VERIFIABLE)) == 0);
  if (empty) check(f->payload_bytes == 0 && f->entry_count == 0 && !(f->flags & FRAME_VERIFIABLE));
  check(f->flags & FRAME_COMMIT ? f->durable == f->position : f->durable <= f->position);
}

/* The frame with the same fields and payload, and with what always is behind it. */
static void check_encoder(const struct frame *f, const char *buf) {
  uint64_t bytes = frame_blocks(f->payload_bytes) << BLOCK_SHIFT;
  uint64_t used = FRAME_HEADER_BYTES + f->payload_bytes;
  char *again = fuzz_alloc(bytes);
  struct frame g = *f;
  memcpy(again, buf, used);
  frame_encode(&g, again);
  check(frame_checksum_matches(again, bytes >> BLOCK_SHIFT));
  bool padded = false;
  for (uint64_t i = used; i < bytes; i++) padded |= buf[i] != again[i];
  if (!padded)
    check((g.checksum == f->checksum) == frame_checksum_matches(buf, bytes >> BLOCK_SHIFT));
  check(memcmp(again, buf, 4) == 0);
  check(memcmp(again + 8, buf + 8, used - 8) == 0); /* all but the checksum */
  free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  struct feed in = {data, size};
  uint8_t flags = feed_u8(&in);
  uint64_t blocks = 1;
  char *buf = fuzz_blocks(FRAME_BLOCKS_MAX);
  feed_bytes(&in, buf, FRAME_BYTES_MAX);
  if (flags & 1) repair_frame(buf);
  struct frame f;
  const char *why = "";
  int r = frame_decode_header(&f, buf, &why);
  check(r == 0 || r == -EBADMSG);
  check(r == 0 || why[0]);
  if (r == 0) {
    check_frame(&f);
    /* Nothing is read beyond the frame's own blocks. */
    blocks = frame_blocks(f.payload_bytes);
    char *exact = fuzz_alloc(blocks << BLOCK_SHIFT);
    memcpy(exact, buf, blocks << BLOCK_SHIFT);
    bool good = frame_checksum_matches(exact, blocks);
    if (flags & 1) check(good);
    check_encoder(&f, exact);
    exact[f.position % (blocks << BLOCK_SHIFT)] ^= 16; /* any flipped bit is seen */
    if (good && frame_bytes_of(exact) == blocks << BLOCK_SHIFT)
      check(memcmp(exact, "SFRM", 4) != 0 || !frame_checksum_matches(exact, blocks));
    free(exact);
  }
  free(buf);
  return 0;
}
