/* lane.c - see lane.h. A call lies on the stack of the thread that waits for it: once its state
 * says FINISHED the memory is that thread's again, and the core only names its address, to wake. */
#include "api/nbdkit/lane.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "shards/base/base.h"

#define AT_ONCE 64u

enum call_state { CALL_RUNNING, CALL_SLEEPING, CALL_FINISHED };
struct lane_call {
  struct sr_request request;
  struct lane_call *next;
  _Atomic uint32_t state; /* enum call_state */
};

/* ---- The core's side ---------------------------------------------------------------------------
 */

static void finish(struct lane_call *call) {
  if (atomic_exchange_explicit(&call->state, CALL_FINISHED, memory_order_acq_rel) == CALL_SLEEPING)
    syscall(SYS_futex, &call->state, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
}

static void request_done(struct sr_request *request) {
  finish(container_of(request, struct lane_call, request));
}

/* In the order in which they came. */
static struct lane_call *reverse(struct lane_call *newest) {
  struct lane_call *oldest = NULL;
  while (newest) {
    struct lane_call *next = newest->next;
    newest->next = oldest;
    oldest = newest;
    newest = next;
  }
  return oldest;
}

/* What is refused ends there; the rest is offered again. */
static void submit(struct sr_port *port, struct sr_request *requests[], uint32_t count) {
  for (uint32_t at = 0; at < count;) {
    int n = sr_port_submit(port, requests + at, count - at);
    if (n > 0) {
      at += (uint32_t)n;
    } else {
      requests[at]->result = n;
      request_done(requests[at++]);
    }
  }
}

static void take_all(struct sr_port *port, void *arg) {
  struct lane *lane = arg;
  struct sr_request *requests[AT_ONCE];
  struct lane_call *call =
      reverse(atomic_exchange_explicit(&lane->waiting, NULL, memory_order_acq_rel));
  while (call) {
    uint32_t n = 0;
    for (; call && n < AT_ONCE; call = call->next) requests[n++] = &call->request;
    submit(port, requests, n);
  }
}

/* ---- The thread that waits ---------------------------------------------------------------------
 */

static void wait_for(struct lane_call *call) {
  uint32_t state = CALL_RUNNING;
  if (!atomic_compare_exchange_strong_explicit(&call->state, &state, CALL_SLEEPING,
                                               memory_order_acq_rel, memory_order_acquire))
    return;
  while (atomic_load_explicit(&call->state, memory_order_acquire) != CALL_FINISHED)
    syscall(SYS_futex, &call->state, FUTEX_WAIT_PRIVATE, CALL_SLEEPING, NULL, NULL, 0);
}

int64_t lane_run(struct lane *lane, const struct sr_request *request) {
  struct lane_call call = {.request = *request, .state = CALL_RUNNING};
  call.request.done = request_done;
  struct lane_call *before = atomic_load_explicit(&lane->waiting, memory_order_relaxed);
  do {
    call.next = before;
  } while (!atomic_compare_exchange_weak_explicit(&lane->waiting, &before, &call,
                                                  memory_order_release, memory_order_relaxed));
  /* Whoever found it empty answers for all that come until the core has taken them: it cannot give
   * up. -EAGAIN: the mailbox is full, the core is at work on it; -ENOMEM passes, or nothing will.
   */
  while (!before && sr_store_run(lane->store, lane->shard, take_all, lane) < 0) sched_yield();
  wait_for(&call);
  return call.request.result;
}

/* ---- Life --------------------------------------------------------------------------------------
 */

struct lane *lanes_open(struct sr_store *store) {
  uint32_t cores = sr_core_count(store);
  struct lane *lanes = aligned_alloc(64, cores * sizeof *lanes);
  if (!lanes) return NULL;
  for (uint32_t c = 0; c < cores; c++) {
    atomic_init(&lanes[c].waiting, NULL);
    lanes[c].store = store;
    lanes[c].shard = 0;
  }
  for (uint32_t s = sr_shard_count(store); s-- > 0;) lanes[sr_core_of_shard(store, s)].shard = s;
  return lanes;
}

void lanes_close(struct lane *lanes) { free(lanes); }
