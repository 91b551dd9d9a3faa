/* survivors.h - memory that outlives the process, with all shards' log buffers (shards/survivor.h),
 * so that what had completed survives a process that is killed. A power cut or a reboot takes it
 * away, and then the store's own rules hold.
 *
 * At open what the process before has left is looked for and taken over by recovery; new memory is
 * made beside it, and takes its place once a root has all of that. Changes of several parts at
 * once are marked while they are being made: what was left in the middle of one is not used, for
 * any shard. A close gives the memory up.
 *
 * survivors.c has the rules: which memory counts, and when. Where it lies is a survivors_place: a
 * file in a memory file system (survivors_file.c), or the simulator's memory. Nothing of it is
 * needed: where it cannot be had, the log says so and the store works without. */
#ifndef RUNTIME_SURVIVORS_H
#define RUNTIME_SURVIVORS_H

#include "runtime/layout.h"

struct survivors;
struct survivor;

struct survivors_place {
  const char *name; /* for the log */
  /* What is there, if it has so many bytes; it stays until settle, and what is written to it stays
   * for the next open. NULL: nothing. */
  void *(*find)(struct survivors_place *p, uint64_t bytes);
  /* New memory beside it, zeros but for the bytes of empty buffers. NULL: none can be had. */
  void *(*make)(struct survivors_place *p, uint64_t bytes);
  /* The new one takes the place of what was found; if there is no new one, the place is empty. */
  void (*settle)(struct survivors_place *p);
  /* The new one is given up, settled or not; one that was found and not settled stays. */
  void (*close)(struct survivors_place *p);
};
/* A file. dir: NULL: /dev/shm, and only looks for what another one has left; "": neither. NULL:
 * there is nothing to look at, and nothing is kept. */
struct survivors_place *survivors_file_open(const char *dir, const struct layout *layout,
                                            const struct logger *logger);

/* Takes over the place (NULL is fine). The layout gives the store's uuid and its last incarnation.
 * Never fails; NULL: nothing was there, and nothing is kept. */
struct survivors *survivors_open(struct survivors_place *place, const struct layout *layout,
                                 const struct logger *logger);
/* Of one shard: what the process before has left, or NULL; and where to keep this one's, or NULL.
 */
const struct survivor *survivors_left(const struct survivors *s, uint32_t shard);
struct survivor *survivors_keep(struct survivors *s, uint32_t shard);
/* A root has what was left: from now on the new memory counts. */
void survivors_settle(struct survivors *s, uint64_t incarnation);
/* Before that: a flush of this open has failed, or a write that one would have covered. What the
 * device has of what the memory names nobody knows: no open uses it any more. */
void survivors_distrust(struct survivors *s);
/* Changes of several parts (shards, or a volume's records) begin and end; core 0's thread. s may be
 * NULL. */
void survivors_mark(struct survivors *s, bool changing);
/* In order: nothing is left to be taken over. After all shards are closed. NULL is fine. */
void survivors_close(struct survivors *s);

/* Says in the memory where the store lies, for whoever finds it later; a directory's real path,
 * else nothing. */
void survivors_note_where(struct survivors *s, const char *where);

/* ---- From outside (survivors_list.c) ---- */

#define SURVIVORS_NAME        "shardring-" /* of the file; then the store's uuid */
#define SURVIVORS_WHERE_BYTES 1024u
enum survivors_state {
  SURVIVORS_USED,    /* a process has it */
  SURVIVORS_NEEDED,  /* the store is where it was */
  SURVIVORS_GONE,    /* it is not: removed, or moved, or its file system is not there */
  SURVIVORS_UNKNOWN, /* where it was is not said: devices, and versions that did not say */
};
struct survivors_left {
  char path[300], where[SURVIVORS_WHERE_BYTES];
  uint8_t uuid[16];
  uint64_t bytes;
  enum survivors_state state;
};
/* Those in a directory. fn returns whether it may be removed, which is done if its store is gone.
 * The first error. */
int survivors_each(const char *dir, bool (*fn)(void *arg, const struct survivors_left *left),
                   void *arg);
/* The first block of such a file. False: it is none. */
bool survivors_read_head(const void *block, uint8_t uuid[16], char where[SURVIVORS_WHERE_BYTES]);

/* Memory that find() has given was left in the middle of a change of several parts. */
bool survivors_is_marked(const void *memory);
/* Of a store with so many shards. */
uint64_t survivors_bytes(uint32_t shard_count);

#endif
