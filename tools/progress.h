/* progress.h - a progress bar on stderr for work that takes more than a moment. Nothing is
 * written when stderr is no terminal. One thread. */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include <stdint.h>

struct progress {
  const char *label;
  int shown; /* -1: no terminal */
  uint64_t start_ns, last_ns;
};

void progress_begin(struct progress *p, const char *label);
/* May be called as often as you like: it draws ten times a second. */
void progress_step(struct progress *p, uint64_t done, uint64_t total);
/* Takes the bar away. */
void progress_end(struct progress *p);
/* The same for callbacks of the library; arg: struct progress. */
void progress_callback(void *arg, uint64_t done_bytes, uint64_t total_bytes);

#endif
