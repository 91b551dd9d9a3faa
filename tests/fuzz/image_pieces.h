/* image_pieces.h - the backings of a whole store in memory, put together from an input piece by
 * piece.
 *
 * A piece: kind (1 byte), what to repair (1; 1: magic and checksum), backing (1), place (2), length
 * (2), so many bytes. */
#ifndef TESTS_FUZZ_IMAGE_PIECES_H
#define TESTS_FUZZ_IMAGE_PIECES_H

#include "shards/device/device.h"
#include "tests/fuzz/fuzz.h"

#define BACKINGS_MAX   3u
#define BACKING_BLOCKS 2048u

enum image_piece { IMAGE_IDENTITY, IMAGE_ROOT, IMAGE_RAW, IMAGE_FRAME, IMAGE_KINDS };

struct image {
  struct backing *backings[BACKINGS_MAX];
  uint32_t count;
  bool touched[BACKINGS_MAX][BACKING_BLOCKS]; /* may hold other than zeros */
};

/* count: 1 to BACKINGS_MAX. */
void image_open(struct image *m, uint32_t count);
/* Takes pieces until the input ends. */
void image_take(struct image *m, struct feed *f);

#endif
