/* tune_model.h - what measurements of a device say about it, and the settings that follow. Pure
 * functions of numbers; docs/tuning.md has the reasons. Any thread. */
#ifndef TOOLS_TUNE_MODEL_H
#define TOOLS_TUNE_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#define TUNE_DEPTHS  9 /* 1, 2, 4, ... 256 */
#define TUNE_BATCHES 4
#define TUNE_SIZES   5

struct tune_point {
  uint32_t bytes, depth, batch;
  bool write;
  double rate;   /* requests a second */
  double cpu_ns; /* processor time of a request */
};
struct tune_data {
  struct tune_point depths[TUNE_DEPTHS];   /* random reads of 4 KiB, one by one */
  struct tune_point batches[TUNE_BATCHES]; /* the same, 64 in flight, so many together */
  struct tune_point reads[TUNE_SIZES], writes[TUNE_SIZES]; /* one at a time, by size */
  double read_p50_ns, read_p90_ns, read_p99_ns;            /* of a blocking read of 4 KiB */
  double wake_ns; /* from the wake-up of a thread that sleeps until it runs */
  double write_ns, write_flush_ns, write_dsync_ns; /* of 4 KiB: plain; and fdatasync; RWF_DSYNC */
  double read_alone, write_alone, read_beside, write_beside; /* rates, 16 in flight of each */
};

/* Time of one request alone: fixed_ns + per_byte_ns * bytes. */
struct tune_line {
  double fixed_ns, per_byte_ns;
  double worst; /* the largest relative error at a point that it was made of */
};
enum tune_flush { TUNE_FLUSH_FUA, TUNE_FLUSH_AFTER };
struct tune_model {
  struct tune_line read, write;
  double rate_max;     /* of 4 KiB reads at any depth */
  uint32_t rate_depth; /* the smallest one that gives 95 % of that */
  double knee;         /* depth at which requests begin to wait for each other, by Little's law */
  double flush_ns;     /* what a flush adds to a write */
  double read_kept, write_kept; /* shares of their rates beside each other */
  /* The settings. */
  uint32_t poll_us, queue_depth;
  int flush; /* enum tune_flush */
};

/* Least squares of relative errors. count at least 2, different sizes. */
struct tune_line tune_fit(const struct tune_point *points, uint32_t count);
void tune_model_of(struct tune_model *m, const struct tune_data *d);

#endif
