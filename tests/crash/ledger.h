/* ledger.h - what a verifying writer has asked of a store, and what it was promised. Of volumes:
 * disks.h.
 *
 * A unit is one blob, or a group of blobs that only atomic batches write. It has one version
 * number: every put, delete, stream or batch on it is the next version. What a version leaves in
 * the store - which members are there, how long they are, every byte - follows from (seed, unit,
 * member, version), so no contents need to be kept to recognise any version that ever was.
 *
 * The ledger lies in memory that survives the writer: it is shared with the process that kills it,
 * or copied to the disk whose power is cut. Each number is stored before the operation that it
 * announces is submitted (issued), or after the answer to it has come (done, durable).
 *
 * After a crash a unit must be, as a whole, at one version v that is
 *   - in (floor, issued] and not below durable, or
 *   - base, if nothing above floor was promised.
 * base and floor are of the last look at the store: it found base, when floor had been issued.
 * Versions in between were lost, and must not come back. */
#ifndef TESTS_CRASH_LEDGER_H
#define TESTS_CRASH_LEDGER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "api/shardring.h"
#include "tests/crash/disks.h"

#define LEDGER_SINGLES      320u /* units of one blob */
#define LEDGER_GROUPS       64u
#define LEDGER_UNITS        (LEDGER_SINGLES + LEDGER_GROUPS)
#define LEDGER_MEMBERS      16u /* of a group, at most */
#define LEDGER_BLOB_MAX     (640u * 1024u)
#define LEDGER_PART_MAX     (16u * 1024u) /* a blob of a group */
#define LEDGER_THREADS      3u            /* unit u is written by thread u % LEDGER_THREADS */
#define LEDGER_MAGIC        UINT64_C(0x524547444c524353)
#define LEDGER_PUBLIC_BYTES (56u * 1024u) /* of struct ledger: what a copy on disk holds */
#define LEDGER_BLOBS_BYTES  (16u * 1024u) /* of it: without disks */

enum ledger_count {
  COUNT_PUT,
  COUNT_DELETE,
  COUNT_DURABLE,
  COUNT_STREAM,
  COUNT_BATCH,
  COUNT_FLUSH,
  COUNT_CHECKPOINT,
  COUNT_VACUUM,
  COUNT_READ,
  COUNT_DISK_WRITE,
  COUNT_DISK_ZEROS,
  COUNT_DISK_DISCARD,
  COUNT_DISK_DURABLE,
  COUNT_DISK_READ,
  COUNT_DISK_SYNC,
  COUNT_DISK_CREATE,
  COUNT_DISK_SNAPSHOT,
  COUNT_DISK_CLONE,
  COUNT_DISK_RENAME,
  COUNT_DISK_FLATTEN,
  COUNT_DISK_REMOVE,
  COUNT_FULL, /* answers of -ENOSPC: allowed, but must not be the rule */
  COUNTS
};

struct unit {
  _Atomic uint32_t issued;  /* the last version that was asked for */
  _Atomic uint32_t done;    /* the last one that has completed */
  _Atomic uint32_t durable; /* the last one that must survive */
  uint32_t base, floor;     /* of the last look */
  uint32_t reserved[3];
};

struct ledger {
  uint64_t magic, seed;
  _Atomic uint64_t acks; /* promises of durability */
  _Atomic uint32_t opening, opened;
  _Atomic uint64_t counts[COUNTS];
  uint64_t reserved[512 - 4 - COUNTS];
  struct unit units[LEDGER_UNITS];
  struct disks disks;
  uint8_t unused[LEDGER_PUBLIC_BYTES - LEDGER_BLOBS_BYTES - sizeof(struct disks)];
};
_Static_assert(sizeof(struct ledger) == LEDGER_PUBLIC_BYTES, "whole blocks, for O_DIRECT");

void ledger_init(struct ledger *l, uint64_t seed);

/* Raises *number to at least version. */
void ledger_raise(_Atomic uint32_t *number, uint32_t version);

uint32_t unit_members(uint32_t unit);
struct sr_id unit_id(uint32_t unit, uint32_t member);
/* False if no writer has such an id. */
bool unit_of_id(struct sr_id id, uint32_t *unit, uint32_t *member);

/* What version leaves of a member: its bytes, or -1 if it is not there. */
int64_t member_bytes(uint64_t seed, uint32_t unit, uint32_t member, uint32_t version);
void member_fill(uint64_t seed, uint32_t unit, uint32_t member, uint32_t version, void *buf,
                 uint64_t bytes);
/* Is it this version, byte for byte? bytes: -1 if the blob is not there. */
bool member_is(uint64_t seed, uint32_t unit, uint32_t member, uint32_t version, const void *buf,
               int64_t bytes);

#endif
