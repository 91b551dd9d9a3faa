/* bench_tune.h - shard-bench tune: what a device can do, as a model, and the settings of a store
 * that follow from it.
 *
 *   bench_tune.c          the command, the report, the file of settings
 *   bench_tune_measure.c  the measurements, on a scratch file
 *   tune_model.h          what follows from them
 */
#ifndef TOOLS_BENCH_TUNE_H
#define TOOLS_BENCH_TUNE_H

#include "tools/tune_model.h"

struct tune_options {
  const char *directory;
  uint64_t scratch_bytes; /* 0: chosen */
  uint64_t seed;
  double runtime_s; /* of everything together, about */
};
/* Measures on a nameless scratch file in the directory, of which nothing is left whatever happens.
 * *scratch_bytes: how large it was. 0, or an error after a message. */
int tune_measure(const struct tune_options *o, struct tune_data *d, uint64_t *scratch_bytes);

/* shard-bench tune: exit status. */
int tune_main(int argc, char **argv);

#endif
