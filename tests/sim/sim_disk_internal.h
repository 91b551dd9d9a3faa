/* sim_disk_internal.h - what the disk, its engine and its power cuts share. Private to them. */
#ifndef TESTS_SIM_DISK_INTERNAL_H
#define TESTS_SIM_DISK_INTERNAL_H

#include "tests/sim/sim_disk.h"

struct request {
  struct io *io;
  uint64_t due_ns, mark;
};
struct sim_device {
  struct device device;
  struct sim_io *io;
  struct sim_device *next;
  struct sim_disk *files[SIM_DISKS_MAX];
  struct request *requests; /* in the order of submission */
  uint32_t count, room;
  uint32_t done_count;
  bool woken;
  struct device_stats stats;
};

static inline struct sim_disk *disk_of(struct backing *b) {
  return container_of(b, struct sim_disk, backing);
}

/* Of what an io moves: block k. */
static inline char *block_of(const struct io *io, uint64_t k) {
  uint32_t row;
  return io_memory(io, (uint32_t)k << BLOCK_SHIFT, &row);
}

void sim_io_init(struct sim_io *io, uint64_t seed);
void sim_disk_create(struct sim_io *io, uint32_t number, uint64_t blocks, bool image);
/* What reads see, and what survives; both take over the reference. */
void disk_set_now(struct sim_disk *d, uint64_t block, struct page *p);
void disk_set_durable(struct sim_disk *d, uint64_t block, struct page *p);
/* A write of one block takes its effect; takes over the reference. */
void disk_store(struct sim_disk *d, uint64_t block, struct page *p, bool durable, uint64_t order);
/* What had completed before `mark` becomes durable. */
void disk_flush_cached(struct sim_disk *d, uint64_t mark);
int disk_flush_lost(struct sim_disk *d, uint64_t mark); /* it fails: -EIO */
/* An image is its base again. */
void disk_take_back(struct sim_disk *d);

#endif
