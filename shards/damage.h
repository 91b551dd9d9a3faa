/* damage.h - one thing that is wrong on disk, and who wants to know.
 *
 * Recovery that is told to go on in spite of damage, and scrubbing, report each finding once.
 * A finding belongs to the reporter; it is valid during the call alone. */
#ifndef SHARDS_DAMAGE_H
#define SHARDS_DAMAGE_H

#include "shards/region.h"

enum damage_kind {                  /* as enum sr_damage_kind */
                   DAMAGE_PART = 1, /* a file or device of the store is not there, or not its */
                   DAMAGE_IDENTITY, /* one copy */
                   DAMAGE_ROOT,     /* one copy in a slot, or all */
                   DAMAGE_LOG,      /* changes may be lost; `changes` says how many, if known */
                   DAMAGE_DIRECTORY,
                   DAMAGE_CHECKPOINT, /* blobs of its partitions are lost, but for what the log has
                                       */
                   DAMAGE_BLOB,       /* data */
                   DAMAGE_OLD, /* a blob that may be older than the last one put, or deleted since:
                                  changes were lost after it */
                   DAMAGE_VOLUME,     /* data of a sealed layer; id: layer, block in it */
                   DAMAGE_OLD_VOLUME, /* as DAMAGE_OLD; `what` has the volume's name, id.lo its id
                                       */
                   DAMAGE_NOTE, /* carries no information and will be overwritten: a torn root slot
                                 */
};
#define DAMAGE_KINDS         (DAMAGE_NOTE + 1)
#define DAMAGE_NO_SHARD      UINT32_MAX
#define DAMAGE_COUNT_UNKNOWN UINT64_MAX

struct damage {
  enum damage_kind kind;
  int error;           /* -EBADMSG, or what the device said */
  uint32_t shard;      /* or DAMAGE_NO_SHARD */
  const char *backing; /* name of the file or device; may be NULL */
  uint64_t block;      /* in the backing */
  uint64_t blocks;     /* how far the damage may reach; 0: unknown */
  uint64_t changes;    /* DAMAGE_LOG: lost; or DAMAGE_COUNT_UNKNOWN */
  struct blob_id id;   /* DAMAGE_BLOB, DAMAGE_OLD */
  const char *what;    /* one line */
};
struct damage_sink {
  void (*report)(void *arg, const struct damage *damage); /* may be NULL. On the shard's thread */
  void *arg;
};

/* How recovery takes damage. All but the first are for read-only opens. */
enum damaged_mode {                     /* as enum sr_damaged */
                    DAMAGED_REFUSE = 0, /* -EBADMSG */
                    DAMAGED_SKIP = 1,   /* goes on with what is proven to be intact */
                    DAMAGED_SEARCH = 2, /* and searches all blocks for metadata that is not named
                                           any more: slow */
};

static inline void damage_report(const struct damage_sink *sink, const struct damage *damage) {
  if (sink->report) sink->report(sink->arg, damage);
}
/* Fills backing and block from a place in a region. */
static inline void damage_place(struct damage *d, const struct region *r, uint64_t block) {
  if (block >= r->blocks) return;
  const struct segment *s = region_segment(r, block);
  d->backing = s->backing->name;
  d->block = s->first_block + (block - s->region_block);
}

#endif
