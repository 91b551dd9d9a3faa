/* survivors.h - a file in a memory file system with all shards' log buffers (shards/survivor.h), so
 * that what had completed survives a process that is killed. A power cut or a reboot takes the file
 * away, and then the store's own rules hold.
 *
 *   open      looks for the file of the process before; recovery takes over what it has; a new file
 *             is made beside it, and takes its place once a root has all of that
 *   changes   of several shards at once are marked while they are being made: a file that was left
 *             in the middle of one is not used, for any shard
 *   close     removes it
 *
 * Nothing of it is needed: where it cannot be had, the log says so and the store works without. */
#ifndef RUNTIME_SURVIVORS_H
#define RUNTIME_SURVIVORS_H

#include "runtime/layout.h"

struct survivors;
struct survivor;

/* dir: NULL: /dev/shm, and only looks for what another one has left; "": neither. The layout gives
 * the store's uuid and its last incarnation. Never fails; NULL: nothing was there, and nothing is
 * kept. */
struct survivors *survivors_open(const char *dir, const struct layout *layout,
                                 const struct logger *logger);
/* Of one shard: what the process before has left, or NULL; and where to keep this one's, or NULL.
 */
const struct survivor *survivors_left(const struct survivors *s, uint32_t shard);
struct survivor *survivors_keep(struct survivors *s, uint32_t shard);
/* A root has what was left: from now on the new file counts. */
void survivors_settle(struct survivors *s, uint64_t incarnation);
/* Changes of several shards begin and end; core 0's thread. s may be NULL. */
void survivors_mark(struct survivors *s, bool changing);
/* In order: nothing is left to be taken over. After all shards are closed. NULL is fine. */
void survivors_close(struct survivors *s);

#endif
