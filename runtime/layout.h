/* layout.h - where a store lies: the string that the user gave, its backings, the identities
 * in them, the regions that they make up, and the newest root. Format and grow write it, open reads
 * it. Used by the thread that opens; after that it is read-only. */
#ifndef RUNTIME_LAYOUT_H
#define RUNTIME_LAYOUT_H

#include "shards/damage.h"
#include "shards/format.h"
#include "shards/region.h"

#define LAYOUT_BACKINGS_MAX 1100

struct layout {
  uint32_t backing_count;
  struct backing *backings[LAYOUT_BACKINGS_MAX]; /* by index in their identities */
  uint32_t shard_count;
  struct region *regions; /* [shard_count] */
  uint64_t *used_blocks;  /* [backing_count]: the second identity ends there; 0: a part that is not
                             there. NULL for mem: */
  bool *shared;           /* [backing_count]: regions of more than one shard lie on it */
  uint8_t uuid[16];
  uint64_t hash_key[2];
  uint64_t log_blocks;
  uint64_t root_block, root_slot_blocks;
  bool read_only;
  bool memory;        /* mem: */
  bool root_lost;     /* damaged: a log shows that a newer root was durable */
  bool root_searched; /* no slot had a root: it was made up from the logs */
  enum damaged_mode damaged;
  struct damage_sink damage; /* damaged other than refuse */
  struct root *root;         /* the newest valid one */
};

struct layout_format {
  uint64_t size_bytes;
  uint32_t shards;
  uint32_t prealloc; /* enum sr_prealloc: 0 default, 1 full, 2 sparse */
  bool force;
  uint64_t log_bytes;
  void (*progress)(void *arg, uint64_t done_bytes, uint64_t total_bytes);
  void *progress_arg;
};

/* "mem:" with a size, as sr_store_open() takes it. */
bool layout_is_memory(const char *where);

/* Writes identities and the first root. A failed format leaves no store. */
int layout_format(const char *where, const struct layout_format *format,
                  const struct logger *logger);
/* Opens, locks and checks everything up to the root. Every refusal is logged with its place.
 * For mem: it formats first; shards: how many if the string does not say. */
int layout_open(struct layout **layout, const char *where, bool read_only, uint32_t lock_timeout_ms,
                uint32_t memory_shards, const struct logger *logger);
/* Read-only, in spite of damage, which is reported: a part that is not there or not readable is
 * replaced by one of which nothing can be read, and without a root the logs are looked through for
 * where they begin and end. It fails if no part has an identity. */
int layout_open_damaged(struct layout **layout, const char *where, uint32_t lock_timeout_ms,
                        enum damaged_mode mode, const struct damage_sink *damage,
                        const struct logger *logger);
/* The same from backings that are open already, in any order: for a simulator and fuzzers. They are
 * taken over, also by a failure. */
int layout_open_backings(struct layout **layout, struct backing *const *backings, uint32_t count,
                         bool read_only, const struct logger *logger);
/* Adds bytes to every packed file (a directory, dealt evenly), or what a device has grown by, or
 * a further device. The store must not be open. */
int layout_grow(const char *where, uint64_t add_bytes, const char *add_device,
                const struct logger *logger);
void layout_close(struct layout *layout);

#endif
