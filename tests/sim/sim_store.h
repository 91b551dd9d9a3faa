/* sim_store.h - a store on simulated disks: format, open, close, and what is common to all who look
 * at one. One thread; the store is stepped. */
#ifndef TESTS_SIM_STORE_H
#define TESTS_SIM_STORE_H

#include "api/internal.h"
#include "tests/sim/sim_disk.h"
#include "tests/sim/sim_memory.h"
#include "tests/sim/sim_model.h"

enum shape { SHAPE_ONE_DEVICE, SHAPE_TWO_DEVICES, SHAPE_DIRECTORY, SHAPE_COUNT };
struct geometry {
  enum shape shape;
  uint32_t shards, disk_count;
  uint64_t region_blocks, log_blocks;
  bool zeroed; /* the root says that all was written once: no zeroing ahead */
};

/* Fills disk_count; blocks[] of each disk. */
void geometry_disks(struct geometry *g, uint64_t blocks[SIM_DISKS_MAX]);
/* Identities and the first root, durable. */
void sim_format(struct sim_io *io, const struct geometry *g);

/* The last line that a store logged as an error, for reports. */
extern char sim_last_error[512];
extern bool sim_flush_after; /* of all stores: FLUSH_METHOD_AFTER */
struct open_how {
  uint32_t cores;
  uint32_t works_max, checkpoint_group_bytes, frame_target_bytes;
  uint64_t live_save_ns;
  bool background, read_only;
  struct sim_memory *memory; /* NULL: nothing survives */
};
/* 0 or the store's refusal. */
int sim_open(struct sr_store **store, struct sim_io *io, const struct open_how *how);
/* The power is gone: all requests in flight end with -EIO and without effect; the ports must be
 * reaped by their owners first (sim_fail()). */
void sim_fail(struct sim_io *io);

struct sr_id sim_id(uint32_t id);
int64_t sim_number(struct sr_id id); /* -1: not one of ours */

#endif
