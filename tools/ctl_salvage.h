/* ctl_salvage.h - what the parts of salvage share. One thread, but for what the library reports. */
#ifndef TOOLS_CTL_SALVAGE_H
#define TOOLS_CTL_SALVAGE_H

#include <pthread.h>

#include "tools/ctl.h"
#include "tools/progress.h"

struct salvage_volumes; /* ctl_salvage_volumes.c */

struct salvage {
  const struct ctl_options *o;
  const char *target;
  struct js *root, *damage, *old, *lost, *volumes; /* NULL: text */
  pthread_mutex_t mutex; /* the library may call from any of its threads */
  uint64_t damages, olds, losts, copied, copied_bytes;
  uint64_t old_volumes, copied_volumes, volume_bytes, lost_volumes, lost_volume_bytes;
  struct ctl_session from, to;
  struct progress progress;
  uint64_t seen_bytes, total_bytes;
  char *buf;       /* SALVAGE_CHUNK_BYTES */
  char error[512]; /* the last line that the library logged */
};

#define SALVAGE_CHUNK_BYTES 1048576u

/* Why the last read failed, in the library's words. The mutex is held. */
const char *salvage_why(struct salvage *s, int error);

/* All volumes that there are, and how much room their copies may need: of all, of the largest. The
 * list is freed by salvage_volumes_free(). 0 or an error. */
int salvage_volumes_list(struct salvage *s, struct salvage_volumes **list, uint64_t *bytes,
                         uint64_t *largest);
/* 0, or the target's error: then it makes no sense to go on. */
int salvage_volumes_copy(struct salvage *s, struct salvage_volumes *list);
void salvage_volumes_free(struct salvage_volumes *list);

#endif
