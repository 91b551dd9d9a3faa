/* write_log.h - reads the log of a disk's writes in the format of dm-log-writes, as QEMU's block
 * driver blklogwrites writes it: one super block, then for each write an entry of one sector,
 * followed by its data. All numbers are little-endian. An entry is written when its write has
 * completed and before the guest hears of it. */
#ifndef TESTS_CRASH_WRITE_LOG_H
#define TESTS_CRASH_WRITE_LOG_H

#include <stdint.h>

enum write_flags { WRITE_FLUSH = 1, WRITE_FUA = 2, WRITE_DISCARD = 4, WRITE_MARK = 8 };

struct write_entry {
  uint64_t at, bytes; /* on the disk */
  uint64_t flags;
  const uint8_t *data; /* NULL for a discard */
};

struct write_log {
  uint8_t *map;
  uint64_t map_bytes, count;
  struct write_entry *entries;
};

/* 0, or a negative errno: -EBADMSG if it is no such log, or is cut short. */
int write_log_open(struct write_log *log, const char *path);
void write_log_close(struct write_log *log);

#endif
