/* ctl_check.h - what the parts of `check` share. The struct is of the command's thread, but for
 * what the mutex guards: the library may log, and tell of damage, from any of its threads. */
#ifndef TOOLS_CTL_CHECK_H
#define TOOLS_CTL_CHECK_H

#include "tools/ctl.h"
#include "tools/progress.h"

#include <pthread.h>

struct check {
  const struct ctl_options *o;
  struct js *findings, *js_notes; /* NULL: to stdout */
  uint64_t found, notes, blobs, bytes, unverified;
  uint64_t volumes, snapshots; /* volumes: with snapshots and clones */
  uint64_t volume_bytes, own_bytes, volume_read_bytes;
  pthread_mutex_t mutex; /* found, notes, what they are written to, detail */
  _Atomic bool opened;
  char detail[512]; /* what the library said last since then: where the read failed */
  struct progress progress;
};

void check_find(struct check *c, const char *where, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* Why the last read failed, in the library's words if there are any. */
void check_take_detail(struct check *c, char text[512], int error);

/* ctl_check_volumes.c; with --scrub they are only counted. */
void check_volumes(struct check *c, struct sr_port *port, const struct sr_space *space);

#endif
