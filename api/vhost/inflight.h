/* inflight.h - which requests of a split ring were taken and not given back, in memory that
 * outlives this process: a monitor keeps the file and hands it to whoever serves the disk next
 * (vhost-user, "Inflight I/O tracking", split virtqueue).
 *
 * Written by the thread that serves the ring. What a file says after a restart is nobody's word: it
 * may have been written by a process that was killed in between, or by a hostile monitor. */
#ifndef API_VHOST_INFLIGHT_H
#define API_VHOST_INFLIGHT_H

#include "api/vhost/ring.h"

struct inflight_entry {
  uint8_t in_flight;
  uint8_t padding[5];
  uint16_t next;    /* in the list of the last batch that was given back */
  uint64_t counter; /* in which order they were taken */
};
struct inflight_queue { /* as it lies in the file, one for each queue */
  uint64_t features;
  uint16_t version;
  uint16_t size; /* entries */
  uint16_t last_head;
  uint16_t used_index; /* used->index when the last batch was given back */
  struct inflight_entry entries[];
};

/* Of one queue in the file: a multiple of 64. */
static inline uint64_t inflight_queue_bytes(uint32_t size) {
  return round_up(sizeof(struct inflight_queue) + size * sizeof(struct inflight_entry), 64);
}

/* A tracker without a file tracks nothing. */
struct inflight {
  struct inflight_queue *q; /* NULL: no file */
  uint16_t size;            /* ours: a copy is what counts */
  uint16_t last_head;
  uint64_t counter;
  uint16_t put_count; /* since the last publish */
  uint16_t *put;      /* [size], the caller's memory */
};

/* Before the ring runs: brings the file up to date with the ring's own used index (which ring_map()
 * has read), and lists in heads[], in the order in which they were taken, what is to be done again.
 * The ring's last_avail becomes what follows from it. Returns how many. A fresh (zeroed) file is
 * begun. -EBADMSG: the file is of another size or version. put: [size]. */
int inflight_begin(struct inflight *t, struct inflight_queue *q, uint16_t *put, struct vring *ring,
                   uint16_t heads[]);

static inline void inflight_take(struct inflight *t, uint16_t head) {
  if (!t->q) return;
  struct inflight_entry *e = &t->q->entries[head];
  e->counter = t->counter++;
  __atomic_store_n(&e->in_flight, 1, __ATOMIC_RELEASE);
}
/* Before ring_put(), so that no head is given back that is not in the list. */
static inline void inflight_put(struct inflight *t, uint16_t head) {
  if (!t->q) return;
  t->q->entries[head].next = t->last_head;
  t->last_head = head;
  __atomic_store_n(&t->q->last_head, head, __ATOMIC_RELEASE);
  t->put[t->put_count++] = head;
}
/* After ring_publish(): used_index is what the ring says now. */
static inline void inflight_published(struct inflight *t, uint16_t used_index) {
  if (!t->q) return;
  for (uint32_t i = 0; i < t->put_count; i++)
    __atomic_store_n(&t->q->entries[t->put[i]].in_flight, 0, __ATOMIC_RELEASE);
  t->put_count = 0;
  __atomic_store_n(&t->q->used_index, used_index, __ATOMIC_RELEASE);
}

#endif
