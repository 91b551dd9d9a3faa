/* front.h - the other side of vhost-user-blk: a monitor and its guest's driver in one
 * process, without a virtual machine. For measurements and tests of any back-end.
 *
 * vfront_open() talks to the server as QEMU does and sets up N rings, split or packed, in memory of
 * its own (a memfd, shared). Then each queue belongs to one thread at a time, which submits
 * requests and reaps them; all other calls are for one thread while no queue is in use.
 *
 * It trusts nothing: every answer, every used entry, length and status byte is checked. What a
 * correct back-end never does is -EPROTO, and `why` says what it was.
 *
 * A server that went away (killed, say) can be followed by another one on the same socket:
 * vfront_reconnect() tells it what QEMU would (the same in-flight file, the rings from where their
 * used index stands, packed ones from where they were started); what was in flight is then
 * completed as if nothing had been. */
#ifndef API_VHOST_FRONT_H
#define API_VHOST_FRONT_H

#include "api/vhost/blk.h"
#include "api/vhost/message.h"

#define VFRONT_QUEUES_MAX 64u
#define VFRONT_PIECES_MAX 14u
#define VFRONT_CONFIG_MIN 36u /* up to num_queues; what older servers do not have is zero */

struct vfront_options {
  const char *socket;
  uint32_t queues;       /* 1 to VFRONT_QUEUES_MAX */
  uint32_t depth;        /* requests of each queue at a time */
  uint32_t queue_size;   /* a power of two; 0: what the depth needs */
  uint32_t pieces;       /* descriptors for data at most, up to VFRONT_PIECES_MAX; 0: 1 */
  uint32_t regions;      /* the memory is shared in so many, adjacent in guest addresses; 0: 1 */
  uint64_t buffer_bytes; /* memory for data; see vfront.buffers */
  bool packed;           /* rings; -ENOTSUP where the server has none */
  uint32_t connect_ms;   /* wait for the socket so long */
  uint64_t features_off, protocol_off; /* bits that are never acknowledged */
};

enum vfront_op {
  VFRONT_READ = 0,
  VFRONT_WRITE = 1,
  VFRONT_FLUSH = 4,
  VFRONT_GET_ID = 8,
  VFRONT_DISCARD = 11,
  VFRONT_WRITE_ZEROES = 13,
};
/* The caller's, from submit until it is reaped. */
struct vfront_request {
  uint32_t op;               /* enum vfront_op; others go out as they are, with no data */
  uint32_t bytes;            /* of data, or of the disk; a multiple of 512; GET_ID: 20 */
  uint64_t offset;           /* of the disk; a multiple of 512 */
  void *buf;                 /* in vfront.buffers */
  uint32_t pieces;           /* descriptors that the data is spread over; 0: 1 */
  bool unmap;                /* write zeroes */
  int status;                /* enum blk_status, when it has been reaped */
  uint64_t number, start_ns; /* the caller's own */
};

struct vfront_slot; /* a request as it lies in the guest's memory */
struct vfront;
struct vfront_queue {
  struct vfront *front;
  uint32_t index, size, slots, slot_descs; /* slot_descs: of the ring, for each slot */
  int kick_fd, call_fd, err_fd;
  struct vring_desc *desc;
  struct vring_avail *avail;
  struct vring_used *used;
  struct vfront_slot *slot;         /* [slots] */
  struct vfront_request **requests; /* [slots] in flight */
  uint16_t *free;                   /* [slots] a stack */
  uint32_t free_count, in_flight;
  uint16_t avail_index, last_used, used_event; /* of a packed ring: positions */
  uint16_t *counts;      /* [slots] of a packed ring: descriptors in it, of a slot in flight */
  uint32_t base;         /* where the device goes on when it is started, as the protocol has it */
  uint16_t hidden_flags; /* of the first descriptor that is being offered, if `hidden` */
  bool hidden;
  bool event_idx, indirect, packed, started;
  uint64_t kicks, calls, submits; /* submits: vfront_submit() that had something to tell */
  int error;
  char why[160];
};

struct vfront {
  struct vfront_options o;
  char socket[108];
  int fd, backend_fd;                   /* backend_fd: our end of the back-end's own channel; -1 */
  uint64_t offered, features, protocol; /* the latter two: acknowledged */
  uint64_t protocol_first;              /* by the first server; later ones must have as much */
  uint64_t queues_max;
  uint8_t config[BLK_CONFIG_BYTES];
  uint64_t size_bytes; /* of the disk */
  uint32_t block_bytes;
  bool read_only;
  int memory_fd;
  char *memory;
  uint64_t memory_bytes, guest_base;
  char *buffers;   /* o.buffer_bytes, aligned to pages */
  int inflight_fd; /* -1: the server has none */
  struct message_inflight inflight;
  struct vfront_queue *queues; /* [o.queues] */
  struct message_reader reader, backend_reader;
  struct message message; /* the last one received */
  uint64_t reconnects;
  char why[256];
};

/* Connects, negotiates, starts all queues. Errors: of connect(), -ETIMEDOUT (no answer within 10
 * s), -EPROTO, -ENOTSUP (the server lacks something without which nothing works), -ECONNRESET.
 * `why` (of the caller, may be NULL) says more. */
int vfront_open(struct vfront **front, const struct vfront_options *options, char *why,
                size_t why_bytes);
/* Stops the queues in order if they still run, frees all. NULL is fine. */
void vfront_close(struct vfront *front);
/* After the server has gone: to the next one. -ENOTSUP: requests are in flight, and there is no
 * in-flight file. */
int vfront_reconnect(struct vfront *front, uint32_t connect_ms);
/* As a monitor does when the guest stops: ENABLE 0, GET_VRING_BASE, checks that nothing is in
 * flight any more; and the way back. What was used meanwhile is still to be reaped. */
int vfront_stop(struct vfront *front);
int vfront_start(struct vfront *front);
/* ENABLE alone, as some monitors do. */
int vfront_enable(struct vfront *front, bool enabled);
/* Reads the configuration again; size_bytes follows. */
int vfront_config(struct vfront *front);
/* 1: the back-end has told that its configuration has changed (waits up to timeout_ms); 0: not. */
int vfront_config_changed(struct vfront *front, int timeout_ms);
/* Sets the one configuration byte that a driver may write: write-back (true) or write-through. */
int vfront_set_writeback(struct vfront *front, bool writeback);
/* -ECONNRESET: the server is gone; 0. */
int vfront_alive(const struct vfront *front);
static inline uint64_t vfront_guest_address(const struct vfront *front, const void *p) {
  return front->guest_base + (uint64_t)((const char *)p - front->memory);
}

/* For tests: any message, and its answer into front->message (0: acknowledged). */
int vfront_ask(struct vfront *front, struct message *message, bool answer);
struct message vfront_message(uint32_t request, uint32_t bytes);

/* ---- Queues (front_queue.c, front_packed.c) ---- */

/* How many were taken; fewer when the ring is full. Tells the device once if it wants that. */
int vfront_submit(struct vfront_queue *q, struct vfront_request *const *requests, uint32_t count);
/* Those that are finished; 0: none. -EPROTO. */
int vfront_reap(struct vfront_queue *q, struct vfront_request **requests, uint32_t max);
/* Sleeps until the device calls. 1: there is something to be reaped; 0: timeout; -ECONNRESET: the
 * server is gone; -EPROTO: something was finished, but the device did not call. */
int vfront_wait(struct vfront_queue *q, int timeout_ms);
/* One request from submit to status: 0, 1 or 2, or an error. With nothing else in flight. */
int vfront_do(struct vfront_queue *q, struct vfront_request *request);

/* Bytes of guest memory that a queue needs, in pages of its own. */
uint64_t vfront_queue_bytes(uint32_t size, uint32_t slots);
int vfront_queue_init(struct vfront_queue *q, struct vfront *front, uint32_t index, char *memory,
                      uint32_t size, uint32_t slots);
void vfront_queue_finish(struct vfront_queue *q);
/* Where the device would go on if it had nothing in flight, as the protocol has it: all that it has
 * used lies before. */
uint32_t vfront_used_base(struct vfront_queue *q);
/* Something may have been lost with the old server: tells the new one to look. */
void vfront_kick(struct vfront_queue *q);

#endif
