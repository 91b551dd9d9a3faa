/* disks.h - the ledger of volumes: what was asked of each, and what was promised.
 *
 * There are a few disks, each a slot that a volume comes into and goes from: two volumes of their
 * own (one striped, one on a shard), clones, snapshots. A slot is at a state: a number that every
 * create, rename and remove raises. A volume's name says slot and state ("disk-3-17"), so the list
 * of names says which states the slots are at.
 *
 * A disk has units: blocks, and at its end sectors, so that several writers meet in one block. A
 * unit is at a version: every write, write-zeroes or discard is the next one, and so is `born`,
 * what a new volume begins with: nothing, or what a snapshot has. Each sector that is written is
 * stamped with (disk, unit, version); the rest of it follows from these. What a snapshot or a clone
 * was born with is known as the stamps that it may have (struct origin): a write in flight beside a
 * snapshot is in it or is not.
 *
 * One thread writes all disks, with at most one request in flight on a unit. Rows are kept by the
 * same rules as those of blobs (ledger.h): after a crash a row must be at one number that is in
 * (floor, issued] and not below durable, or base if nothing above floor was promised. */
#ifndef TESTS_CRASH_DISKS_H
#define TESTS_CRASH_DISKS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define DISK_VOLUMES   2u /* disk 0 is striped, disk 1 is not */
#define DISK_CLONES    2u
#define DISKS          8u  /* the others are snapshots */
#define DISK_BLOCKS    85u /* units of a block */
#define DISK_UNITS     96u /* the others are sectors */
#define SECTOR_BYTES   512u
#define DISK_BYTES     (DISK_BLOCKS * 4096u + (DISK_UNITS - DISK_BLOCKS) * SECTOR_BYTES)
#define DISK_NAME_MAX  32u
#define DISK_RUN_BYTES 65536u /* of one request, at most */

enum disk_kind { DISK_VOLUME, DISK_CLONE, DISK_SNAPSHOT };

/* `none`: the last number asked for that leaves nothing there: a removed volume, zeros. */
struct row {
  _Atomic uint32_t issued, done, durable, none;
  uint32_t base, floor; /* of the last look */
  uint32_t base_none;   /* base leaves nothing there */
};
struct origin {
  uint32_t disk;        /* whose stamps, */
  uint32_t first, last; /* of these versions; first > last: none */
  uint32_t zeros;       /* zeros are possible */
};
struct disk_unit {
  struct row row;
  uint32_t born;
  struct origin origin; /* of version born */
};
struct disk {
  struct row row;
  uint32_t born; /* the state that the units' origins belong to */
  uint32_t from; /* clones, snapshots: what they were made of, and its `born` then */
  uint32_t from_born;
  uint32_t striped;
  uint32_t reserved[5];
  struct disk_unit units[DISK_UNITS];
};
struct disks {
  _Atomic uint32_t births; /* odd while a disk's origins are being written */
  uint32_t reserved[15];
  struct disk disks[DISKS];
};

static inline enum disk_kind disk_kind(uint32_t disk) {
  return disk < DISK_VOLUMES                 ? DISK_VOLUME
         : disk < DISK_VOLUMES + DISK_CLONES ? DISK_CLONE
                                             : DISK_SNAPSHOT;
}
void disk_name(uint32_t disk, uint32_t state, char name[DISK_NAME_MAX]);
/* False if no writer has such a name. */
bool disk_of_name(const char *name, uint32_t *disk, uint32_t *state);

static inline uint32_t unit_offset(uint32_t unit) {
  return unit < DISK_BLOCKS ? unit * 4096u
                            : DISK_BLOCKS * 4096u + (unit - DISK_BLOCKS) * SECTOR_BYTES;
}
static inline uint32_t unit_bytes(uint32_t unit) {
  return unit < DISK_BLOCKS ? 4096u : SECTOR_BYTES;
}

/* What has completed of everything. Taken before a flush, it is what the flush promises. */
struct disks_done {
  uint32_t states[DISKS], units[DISKS][DISK_UNITS];
};

void disks_init(struct disks *d);
void disks_note_done(const struct disks *d, struct disks_done *done);
void disks_promise(struct disks *d, const struct disks_done *done);
void row_raise(_Atomic uint32_t *number, uint32_t to);
/* What it is at, as far as its writer knows. */
uint32_t row_now(const struct row *row);
/* A request on it has not been answered, or has failed: what it is at nobody knows. */
bool row_in_doubt(const struct row *row);
bool row_allows(const struct row *row, uint32_t number);

/* For a record: a promise is copied before what it rests on. The writer may go on meanwhile. */
void disks_copy(struct disks *to, const struct disks *from);
/* What holds for a moment between two records: the earlier one's promises, and of what was asked
 * for no more than the later one knows. Births in between: what is at a state that only the later
 * one has is of the later one's birth; of one that came and went between them nobody knows the
 * origins. */
void disks_between(struct disks *earlier, const struct disks *later, const uint32_t states[DISKS],
                   bool unsure[DISKS]);

/* ---- Contents ----------------------------------------------------------------------------------
 */

struct content {
  bool zeros;
  uint32_t disk, unit, version; /* else */
};
void unit_fill(uint64_t seed, uint32_t disk, uint32_t unit, uint32_t version, void *buf);
/* The same of one of its sectors. */
const char *sector_read(uint64_t seed, uint32_t unit, uint32_t sector, const void *buf,
                        struct content *c);
/* NULL, or what is wrong: it is nothing that was ever written whole. */
const char *unit_read(uint64_t seed, uint32_t unit, const void *buf, struct content *c);
bool origin_allows(const struct origin *o, uint32_t unit, const struct content *c);
/* Of a disk that is there after a crash, at a state of the ledger's volume. */
bool unit_allows(const struct disk_unit *u, uint32_t disk, uint32_t unit, const struct content *c);

/* ---- Accepting ---------------------------------------------------------------------------------
 */

/* What a look has found. state 0: the disk is not there. */
struct found_disk {
  uint32_t state;
  struct content units[DISK_UNITS];
};
/* From now on it is what the next look starts from. */
void disks_accept(struct disks *d, const struct found_disk found[DISKS]);
/* Something unpromised is there; something done is not. */
void disks_compare(const struct disks *d, const struct found_disk found[DISKS],
                   uint64_t *unpromised, uint64_t *lost);

#endif
