/* disk_calls.h - calls that manage volumes, beside a model that knows their answers. */
#ifndef TESTS_FUZZ_DISK_CALLS_H
#define TESTS_FUZZ_DISK_CALLS_H

#include "api/shardring.h"
#include "tests/fuzz/disk_model.h"

#define HANDLES 4u

struct handle {
  struct sr_block *block;
  struct disk *disk;
  bool read_only;
};

struct desk { /* one user of a store */
  struct sr_port *port;
  struct disks disks;
  struct handle handles[HANDLES];
  struct disk *file; /* outside the store; NULL: the engine knows none */
  int file_fd;
};

/* One call, whatever the input says. */
void desk_call(struct desk *d, struct feed *f);
void desk_open(struct desk *d, struct feed *f);
void desk_close_handle(struct handle *h, struct sr_port *port);

#endif
