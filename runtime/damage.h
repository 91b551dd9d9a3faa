/* damage.h - what is known to be wrong on disk since the store was opened: counted, logged and told
 * once for each place or blob. Any thread. */
#ifndef RUNTIME_DAMAGE_H
#define RUNTIME_DAMAGE_H

#include <pthread.h>
#include <stdatomic.h>

#include "shards/damage.h"

struct damage_log {
  pthread_mutex_t lock; /* sink and seen */
  struct damage_sink sink;
  struct logger logger;
  uint64_t *seen; /* keys; open addressing, 0: empty */
  uint32_t seen_count;
  _Atomic uint64_t counts[DAMAGE_KINDS];
  _Atomic uint64_t lost_changes;
};

void damage_log_init(struct damage_log *log, const struct damage_sink *sink,
                     const struct logger *logger);
void damage_log_finish(struct damage_log *log);
/* For struct damage_sink; arg: the log. */
void damage_log_report(void *arg, const struct damage *damage);

#endif
