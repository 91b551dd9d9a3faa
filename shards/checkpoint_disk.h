/* checkpoint_disk.h - how checkpoints and their directory lie on disk (docs/format.md). Private to
 * checkpoint.c, checkpoint_load.c and the scrubber. */
#ifndef SHARDS_CHECKPOINT_DISK_H
#define SHARDS_CHECKPOINT_DISK_H

#include "shards/manifest_internal.h"

#define CHECKPOINT_MAGIC 0x50434853u /* "SHCP" */
#define DIRECTORY_MAGIC  0x44434853u /* "SHCD" */

struct disk_checkpoint { /* entries follow */
  uint32_t magic, shard;
  uint64_t store, sequence;
  uint32_t first, count;
};
_Static_assert(sizeof(struct disk_checkpoint) == 32, "on disk");

struct disk_directory { /* entries follow */
  uint32_t magic, shard;
  uint64_t store;
  uint32_t count, reserved;
};
_Static_assert(sizeof(struct disk_directory) == 24, "on disk");

struct disk_directory_entry { /* extents follow */
  uint32_t first, count;
  uint64_t sequence, position, bytes;
  uint32_t checksum, extent_count;
};
_Static_assert(sizeof(struct disk_directory_entry) == 40, "on disk");

#define DIRECTORY_BYTES_MAX                                                                        \
  round_up(sizeof(struct disk_directory) +                                                         \
               INDEX_PARTITIONS * (sizeof(struct disk_directory_entry) +                           \
                                   CHECKPOINT_EXTENTS * sizeof(struct extent)),                    \
           BLOCK_BYTES)
#define DIRECTORY_BLOCKS (DIRECTORY_BYTES_MAX >> BLOCK_SHIFT) /* what recovery claims for it */

/* checkpoint_load.c. One entry of a directory at *at: 0, or -EBADMSG with *what. */
int checkpoint_decode(const struct manifest *m, const char *buf, uint64_t bytes, uint64_t *at,
                      struct checkpoint *c, const char **what);
/* Takes it over; the newest one of each partition counts. */
void checkpoint_adopt(struct manifest *m, struct checkpoint *c);
/* Reads and verifies one. buf: its whole blocks. */
int checkpoint_read(struct manifest *m, const struct checkpoint *c, char *buf, char *why,
                    size_t why_bytes);

/* checkpoint_search.c. Looks for directories through the whole region and takes what they name, as
 * far as it is proven. 0 or -ENOMEM. */
int checkpoint_search(struct manifest *m);
/* Puts what looks like a damaged checkpoint's blobs into the index: their own checksums will tell.
 * 0 or -ENOMEM. */
int checkpoint_glean(struct manifest *m, const struct checkpoint *c);

#endif
