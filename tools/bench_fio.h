/* bench_fio.h - options that are named and mean as in fio, and what they were checked for
 * (bench_options_fio.c). */
#ifndef TOOLS_BENCH_FIO_H
#define TOOLS_BENCH_FIO_H

#include "tools/bench_goal.h"
#include "tools/bench_split.h"

struct fio_options {
  const char *split_text;
  struct split split; /* then --bs is its largest size */
  uint64_t complete;  /* so many must have finished before others are sent */
  const char *cpus_allowed;
  bool fixed_buffers, register_files, hipri, group_reporting;
  bool fixed_buffers_given, register_files_given, group_given, complete_given;
  const char *target_text, *window_text, *share_text;
  uint64_t target_ns, window_ns; /* target_ns 0: no depth is looked for */
  double share;                  /* percent of the requests that have to be as fast */
  const char *steady_text;
  struct steady_spec steady; /* limit 0: none */
};

struct bench_options;
/* Takes them apart, before anything else is checked; then, with all else known, what does not go
 * together. 0, or -EINVAL after a message. */
int bench_take_fio(struct bench_options *o);
int bench_check_fio(struct bench_options *o);

struct bench;
/* --cpus_allowed where there are no cores of ours: this process. */
int bench_pin(const struct bench_options *o);
/* With the store open: does it do what --fixedbufs and --registerfiles ask for? */
int bench_check_registered(struct bench *b);

#endif
