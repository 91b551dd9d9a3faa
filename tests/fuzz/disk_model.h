/* disk_model.h - what disks should hold: volumes, snapshots, clones and a file, by the few rules of
 * shardring.h. Of each disk the first DISK_WINDOW bytes are looked at. */
#ifndef TESTS_FUZZ_DISK_MODEL_H
#define TESTS_FUZZ_DISK_MODEL_H

#include "tests/fuzz/fuzz.h"

#define DISK_WINDOW   (256u << 10)
#define DISK_SECTOR   512u
#define DISK_NAMES    6u
#define DISK_SIZE_MAX (UINT64_C(64) << 40)

struct disk {
  struct disk *next;   /* all that ever were */
  struct disk *parent; /* snapshot that it lies on */
  uint64_t size;
  uint32_t block, stripe;
  bool sealed, file;
  uint32_t openers, writers;
  uint8_t content[DISK_WINDOW];
  bool known[DISK_WINDOW / DISK_SECTOR]; /* else undefined */
};

struct disks {
  struct disk *all;
  struct disk *named[DISK_NAMES];
};

extern const char *const disk_names[DISK_NAMES];

struct disk *disk_new(struct disks *d);
/* Another one with the same content and shape. */
struct disk *disk_copy(struct disks *d, const struct disk *of);
void disks_free(struct disks *d);

void disk_write(struct disk *d, uint64_t offset, uint64_t bytes, const uint8_t *data);
void disk_zero(struct disk *d, uint64_t offset, uint64_t bytes);
/* Whole blocks become zeros; of the last one of a disk that is no whole one nobody knows. */
void disk_discard(struct disk *d, uint64_t offset, uint64_t bytes);
/* What lies there may be anything now, to whole blocks. */
void disk_forget(struct disk *d, uint64_t offset, uint64_t bytes);
void disk_resize(struct disk *d, uint64_t size);
/* check()s what was read. */
void disk_check(const struct disk *d, uint64_t offset, uint64_t bytes, const uint8_t *data);
bool disk_lies_on(const struct disk *d, const struct disk *snapshot);

#endif
