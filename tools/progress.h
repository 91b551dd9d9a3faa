/* progress.h - a progress bar on stderr for work that takes more than a moment. Nothing is
 * written when stderr is no terminal, unless progress_mode says so: then a line twice a second.
 * One thread. */
#ifndef TOOLS_PROGRESS_H
#define TOOLS_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

enum { PROGRESS_AUTO, PROGRESS_ALWAYS, PROGRESS_NEVER };
extern int progress_mode; /* set once, before the first bar */

struct progress {
  const char *label, *note;
  int shown;  /* -1: there is no bar */
  bool lines; /* no terminal */
  uint64_t start_ns, last_ns;
};

/* Would one be seen? */
bool progress_shows(void);
void progress_begin(struct progress *p, const char *label);
/* May be called as often as you like: it draws ten times a second. */
void progress_step(struct progress *p, uint64_t done, uint64_t total);
/* A few words behind the bar; the caller's, until the end. */
void progress_note(struct progress *p, const char *note);
/* Takes the bar away. */
void progress_end(struct progress *p);
/* The same for callbacks of the library; arg: struct progress. */
void progress_callback(void *arg, uint64_t done_bytes, uint64_t total_bytes);

#endif
