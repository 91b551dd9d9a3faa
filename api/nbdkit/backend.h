/* backend.h - what the plugin needs from whoever has the volumes: a list of them, and disks that
 * any thread can read and write. backend_store.c opens a store in this process; backend_host.c asks
 * a daemon that has it open. */
#ifndef API_NBDKIT_BACKEND_H
#define API_NBDKIT_BACKEND_H

#include "api/shardring.h"

struct backend;
struct disk;

struct backend_options {
  /* backend_store */
  const char *store; /* as `where` in shardring.h */
  const char *cores;
  uint32_t queue_depth;
  /* backend_host */
  const char *control,
      *directory;       /* the daemon's socket; what its relative paths are relative to */
  bool share;           /* serve for writing what others have open for writing */
  uint32_t patience_ms; /* wait for a daemon that has gone so long */
  /* Both. */
  bool read_only;
  void (*log)(void *arg, enum sr_log_level level, const char *line); /* any thread */
};
struct disk_info {
  char name[SR_VOLUME_NAME_BYTES_MAX + 1]; /* when it was opened */
  char description[160];
  uint64_t size_bytes;
  uint32_t block_bytes;
  bool read_only;
};

struct backend_ops {
  /* Errors of sr_store_open(), or of connect() to the daemon. Starts threads, so never before a
   * fork. */
  int (*open)(struct backend **backend, const struct backend_options *options);
  /* Closes the disks as well: nobody uses them any more. Flushes. -EBUSY: requests are in flight
   * and do not end; everything is as it was. NULL is fine. */
  int (*close)(struct backend *backend);

  /* Volumes whose names begin with `prefix`, in alphabetical order, until fn returns other than 0,
   * which is returned. */
  int (*list)(struct backend *backend, const char *prefix,
              int (*fn)(void *arg, const struct sr_volume_info *info), void *arg);

  /* Snapshots, and everything in a store that is open read-only, are read-only disks. One volume
   * may be opened any number of times. Errors of sr_volume_open(). */
  int (*disk_open)(struct backend *backend, const char *name, bool read_only, struct disk **disk);
  void (*disk_close)(struct disk *disk);
  const struct disk_info *(*disk_info)(const struct disk *disk);

  /* Any thread; they block. 0 or an error. Whole logical blocks. */
  int (*disk_read)(struct disk *disk, void *buf, uint32_t bytes, uint64_t offset);
  int (*disk_write)(struct disk *disk, const void *buf, uint32_t bytes, uint64_t offset,
                    bool durable);
  int (*disk_zero)(struct disk *disk, uint32_t bytes, uint64_t offset, bool durable);
  /* Of logical blocks that are there in part nothing is discarded. */
  int (*disk_discard)(struct disk *disk, uint32_t bytes, uint64_t offset, bool durable);
  int (*disk_flush)(struct disk *disk);
  /* As sr_volume_ranges(). */
  int (*disk_ranges)(struct disk *disk, uint32_t bytes, uint64_t offset,
                     int (*fn)(void *arg, const struct sr_volume_range *range), void *arg);
};
extern const struct backend_ops backend_store, backend_host;

#endif
