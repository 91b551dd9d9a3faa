/* lane.h - requests to blocks from any thread, blocking, without a port.
 *
 * A port belongs to one thread and there are 64; a server of NBD has threads as it likes. So there
 * is one lane for each core of the store. Who has a request puts it on the lane's stack and sleeps
 * on a futex in it; who finds the stack empty sends the core a word, and the core takes all that
 * has come by then, through its own port. A request costs its thread one sleep, and the core one
 * wake. */
#ifndef API_NBDKIT_LANE_H
#define API_NBDKIT_LANE_H

#include <stdatomic.h>

#include "api/shardring.h"

struct lane_call;
struct lane {
  _Alignas(64) _Atomic(struct lane_call *) waiting; /* the newest first */
  struct sr_store *store;
  uint32_t shard; /* one of the core's */
};

/* One for each core. NULL: memory is out. Free with lanes_close(), before the store. */
struct lane *lanes_open(struct sr_store *store);
void lanes_close(struct lane *lanes);

/* Any thread but a core's: runs a request of SR_OP_READ to SR_OP_SYNC and waits; its result, or why
 * it could not be sent. `done` and `user` are the lane's. */
int64_t lane_run(struct lane *lane, const struct sr_request *request);

#endif
