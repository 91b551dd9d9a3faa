/* layout_internal.h - shared by layout.c (reading) and layout_write.c (writing). */
#ifndef RUNTIME_LAYOUT_INTERNAL_H
#define RUNTIME_LAYOUT_INTERNAL_H

#include "runtime/layout.h"

#define LAYOUT_NAME_BYTES  4096
#define LAYOUT_DEVICES_MAX 64

/* Zeroed, block-aligned; free() it. */
void *layout_blocks_alloc(uint64_t blocks);
/* Decimal digits, nothing else (strtoull() takes signs and blanks, too); *at moves behind them. */
bool layout_number(const char **at, uint64_t *value);
/* "fd:N" or a path; logs a failure. */
int layout_open_device(struct backing **b, const char *name, bool read_only,
                       const struct logger *logger);
int layout_split(const char *where, char (*names)[LAYOUT_NAME_BYTES], uint32_t max,
                 const struct logger *logger);
int layout_lock(struct backing *b, bool exclusive, uint32_t timeout_ms,
                const struct logger *logger);
/* The better of the two copies; logs what is wrong with either. */
int layout_read_identity(struct backing *b, struct identity *id, const struct logger *logger);
/* One copy of an identity at a block; *why for the message. */
int layout_read_copy(struct backing *b, uint64_t block, struct identity *id, char *why,
                     size_t why_bytes);
/* Takes one opened backing into the layout, by what its identity says. Owns it on success. */
int layout_adopt(struct layout *l, struct backing *b, struct identity **ids,
                 const struct identity *id, const struct logger *logger);

/* layout_damaged.c: the same as the ones without `damaged` in layout.c; in place of parts that are
 * not there something stands of which nothing can be read. */
int layout_open_directory_damaged(struct layout *l, const char *where, struct identity **ids,
                                  uint32_t timeout_ms, const struct logger *logger);
int layout_open_devices_damaged(struct layout *l, const char *where, struct identity **ids,
                                uint32_t timeout_ms, const struct logger *logger);
/* Gives a region what it needs to be recovered: unreadable blocks for those on missing parts. */
int layout_complete_region(struct layout *l, struct identity **ids, uint32_t shard, bool directory);
/* Whether the root is the newest that was durable, as far as the logs tell; reports it. 0 or
 * -ENOMEM. */
int layout_check_root(struct layout *l);
/* No root is left: l->root from what the logs say. */
int layout_search_root(struct layout *l);

/* Part 0 is "root", part i+1 is "shard-i". */
void layout_part_path(char *path, size_t bytes, const char *directory, uint32_t index);
int layout_open_memory(struct layout **l, const char *where, uint32_t shards,
                       const struct logger *logger);

#endif
