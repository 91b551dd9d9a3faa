/* queue.h - a virtqueue of a disk, on the core that serves it: takes requests from the ring, gives
 * them to the volume, and gives them back when they are done.
 *
 * Made and configured by the server's thread while it does not run; queue_start() and queue_stop()
 * hand it to the core and back. In between it belongs to the core's thread, but for the counters.
 *
 * While there is work the ring is polled and the driver need not notify. After a while without, and
 * before the core sleeps, it is asked to, and the kick descriptor wakes the core. All that finishes
 * in one step of the core is published at once, with at most one notification. */
#ifndef API_VHOST_QUEUE_H
#define API_VHOST_QUEUE_H

#include "api/shardring_vhost.h"
#include "api/vhost/blk.h"
#include "api/vhost/dirty.h"
#include "api/vhost/hurry.h"
#include "api/vhost/inflight.h"
#include "runtime/core.h"

struct block;
struct vhost_core; /* queue.c: what the queues of one core share */

/* Read by any thread, written by the core's: relaxed atomics. */
struct queue_stats {
  uint64_t reads, writes, flushes, discards, zeroes, errors, read_bytes, write_bytes;
  uint64_t kicks, calls, cpu_ns, in_flight;
  uint64_t latency_ns[LATENCY_BUCKETS];
};

struct queue {
  /* Set by the server's thread while the queue does not run. */
  struct core *core; /* that serves it */
  struct block *block;
  struct vring ring;
  struct guest_memory *memory;
  struct inflight inflight;
  uint16_t *put;   /* [2 * ring.size], for inflight */
  uint16_t *again; /* heads that a process before had taken, in their order */
  uint32_t again_count;
  struct core_watch kick;      /* kick.fd; -1: polls only */
  int call_fd;                 /* -1: the driver polls */
  const struct dirty_log *log; /* NULL: nobody wants to know what is written to */
  uint64_t used_guest;         /* with a log: guest address of the used ring; UINT64_MAX: not */
  bool write_through, ephemeral;
  /* Shared by a disk's queues; size and writeback change while they run, under the rules of
   * server.c. */
  struct blk_disk *disk;
  /* What to tell when the queue broke: any thread. */
  void (*failed)(struct queue *queue, const char *why);

  /* The core's. */
  struct vhost_core *home;
  struct queue_slots *slots; /* requests in flight, by head */
  struct queue *next_active, *next_dirty;
  struct shard_op *stop_op;        /* waits for in_flight == 0 */
  struct hurry hurry;              /* meanwhile */
  uint64_t worked_ns;              /* when it last had something to do */
  uint64_t published_ns, reply_ns; /* gave something back; how soon the driver asks for more */
  uint32_t in_flight, again_done;
  uint32_t turn, handled;
  bool active, dirty, stopping, awaits_reply;
  bool stalled; /* no room for the pieces of its next request */
  struct queue_stats stats;
};

/* For a ring of ring.size; free() them with the queue. -ENOMEM. */
int queue_make_slots(struct queue *q);

/* OP_CALL functions, op->buf: the queue. Start completes at once: result 0, or why its kick
 * descriptor cannot be watched. Stop completes when nothing is in flight any more; then
 * ring.last_avail says where to go on. */
void queue_start(struct core *core, struct shard_op *op);
void queue_stop(struct core *core, struct shard_op *op);
/* OP_CALL, op->buf: a vhost_core of the core: begins or ends its service. Nothing runs on it. */
struct vhost_core *vhost_core_create(struct core *core);
void vhost_core_begin(struct core *core, struct shard_op *op);
void vhost_core_end(struct core *core, struct shard_op *op);
void vhost_core_free(struct vhost_core *v);

#endif
