/* bench_versus.h - runs a program and reads what it measured. Main thread.
 *
 *   bench_versus.c        rounds, their order, the ratio, the report
 *   bench_versus_peer.c   one run of one of the two */
#ifndef TOOLS_BENCH_VERSUS_H
#define TOOLS_BENCH_VERSUS_H

#include <stdbool.h>

struct js;
struct versus_figures {
  double iops;            /* or the number that was printed */
  double mean_ns, p99_ns; /* 0: not known */
};
/* argv: of a program with its path, whose standard output becomes `out` (or, result_fd not -1,
 * whose report is in that file instead). 0; -EINTR: the user has interrupted it; -errno after a
 * message that shows the end of what it said. name: in messages. report: NULL, or where the JSON
 * goes that it printed. */
int versus_run(const char *name, char *const *argv, int result_fd, struct versus_figures *figures,
               struct js **report);

#endif
