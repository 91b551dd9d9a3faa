/* sim_disk.h - disks that lose power, and the device engine on them: for the simulator.
 *
 * A disk has a volatile write cache. What a power cut leaves of it is any subset of the writes
 * that no completed flush covers, in units of sectors of 512 bytes: those that had completed
 * (`cached`), and those that were still in flight (in the engines). A write with FUA is durable
 * when it completes, a flush covers what had completed when it was submitted. Two writes to one
 * sector that did not overlap in time keep their order, as a disk's do.
 *
 * Pages of 4 KiB are shared and counted, so that an image of a disk costs one pointer a block and
 * states of one moment can be built, opened and taken back quickly.
 *
 * One thread. Everything belongs to a struct sim_io, the world of one opened store: its clock, its
 * randomness, its disks, its faults. The engine finds it through the clock that the store is given
 * (store_config.clock->arg). */
#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include "shards/device/device.h"
#include "tests/sim/sim_page.h"
#include "tests/sim/sim_random.h"

#define SIM_DISKS_MAX  8u
#define SIM_SHARDS_MAX 8u

struct cached { /* one block of a completed write that no flush has covered */
  uint64_t block, order;
  struct page *page;
};

struct sim_io;
struct sim_disk {
  struct backing backing;
  struct sim_io *io;
  uint32_t number;
  uint64_t blocks;
  struct page **durable; /* survives a power cut for certain; an image has none */
  struct page **now;     /* what a read returns */
  struct cached *cached; /* in the order of completion */
  uint32_t cached_count, cached_room;
  uint64_t failed_order; /* of the last failed flush, + 1 */
  uint64_t hash;         /* XOR over all blocks of `durable`: see sim_disk_block_hash() */
  /* An image: `now` borrows the pages of the other world's `durable` (base), but for the blocks
   * that were touched since, which are taken back by the next sim_image_set(). */
  struct page **base;
  bool *is_touched;
  uint64_t *touched;
  uint32_t touched_count, touched_room;
};

/* What may go wrong; all 0: nothing does. Chances are out of 2^32. */
struct sim_faults {
  uint32_t read_error, write_error, flush_error, no_space;
  uint32_t bit_flip, zero_block, misdirect, lose_write; /* the device says that all is well */
  bool gone;                     /* every request is -EIO and has no effect */
  uint64_t from_block, to_block; /* of requests that begin in [from, to) only; 0, 0: all */
  uint64_t injected;
};

#define SIM_POLLS_MAX 8000000u
struct sim_io {
  struct clock clock; /* {sim_now, this} */
  uint64_t now_ns;
  struct random random;
  bool calm; /* requests complete at the next poll, in order: to look at an image */
  uint64_t delay_ns_max;
  uint32_t slow_reads; /* they take so many times as long */
  struct sim_disk disks[SIM_DISKS_MAX];
  uint32_t disk_count;
  struct sim_device *devices; /* of the open store */
  struct sim_faults faults;
  uint64_t told[SIM_SHARDS_MAX]; /* up to where frames have said so far that all was durable */
  uint64_t told_faults;          /* so many had been injected when one said so last */
  uint64_t order;                /* of the next completion */
  uint64_t changes;              /* of `durable`, all disks: an image of an older number is stale */
  uint64_t polls; /* of this life or image: no end if there are more than SIM_POLLS_MAX */
  uint64_t events, reads, writes, flushes;
  uint64_t vectored; /* submitted */
  /* Called before and after each request takes its effect: a moment when the power may fail. */
  void (*moment)(struct sim_io *io, void *arg);
  void *moment_arg;
};

/* blocks: of each disk. */
void sim_io_create(struct sim_io *io, uint64_t seed, uint32_t disk_count, const uint64_t *blocks);
void sim_io_destroy(struct sim_io *io);
/* The disks' backings, for layout_open_backings(); they stay the world's. */
void sim_backings(struct sim_io *io, struct backing **backings);
extern const struct device_ops device_sim;
/* Of an engine: when the next of its requests is due (UINT64_MAX: it has none); whether somebody
 * has woken it since the last call. */
uint64_t sim_device_due_ns(const struct device *device);
bool sim_device_take_wake(struct device *device);

/* Writes that are durable at once: to format. */
void sim_disk_write(struct sim_disk *d, uint64_t block, const void *buf, uint64_t blocks);
void sim_disk_flip(struct sim_disk *d, uint64_t block, uint32_t bit);

/* ---- Power cuts ------------------------------------------------------------------------------ */

/* One block that a power cut may keep: all, some or none of its sectors. */
struct atom {
  uint32_t disk;
  uint64_t block;
  struct page *page;
  uint8_t changes; /* sectors that differ from what lay below */
  bool in_flight;  /* else completed */
  uint64_t write;  /* of one write: the same number */
};
struct cut {
  struct atom *atoms; /* in the order in which they are laid over the durable state */
  uint32_t count, room;
};
/* The process is killed: of writes in flight each happens in full, in part or not at all, in any
 * order. They, and what no flush has covered, stay in the cache. Nothing happens to the requests:
 * sim_fail(). */
void sim_kill(struct sim_io *io, struct random *r, bool whole_blocks);
/* What a power cut at this moment has to choose from. Holds references to pages. */
void sim_cut_take(struct cut *cut, const struct sim_io *io);
void sim_cut_clear(struct cut *cut);
void sim_cut_free(struct cut *cut);

/* A second world whose disks are images of the first one's, and which can be taken back. */
void sim_image_create(struct sim_io *image, const struct sim_io *of, uint64_t seed);
/* As `of` is now if the power fails and of each atom the sectors in keep[] are kept. Takes back
 * all that was written to the image before. */
void sim_image_set(struct sim_io *image, const struct sim_io *of, const struct cut *cut,
                   const uint8_t *keep);
/* The hash of all bytes of all disks. */
uint64_t sim_image_hash(const struct sim_io *image, const struct sim_io *of);
/* The disks of `io` become what the image holds; nothing may be in flight. */
void sim_power_on(struct sim_io *io, const struct sim_io *image);

#endif
