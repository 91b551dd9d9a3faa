/* inflight.h - which requests of a ring were taken and not given back, in memory that outlives this
 * process: a monitor keeps the file and hands it to whoever serves the disk next (vhost-user,
 * "Inflight I/O tracking").
 *
 * Of a split ring it says which heads. A packed ring forgets: what was used is written over what is
 * in flight, and no index stands in memory. So there the file also has where the ring stands, and
 * copies of the descriptors (inflight_packed.c).
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

/* The same for packed rings. Each chain has as many entries as it has descriptors in the ring, all
 * others are in a list of free ones: then a chain's first entry is not in flight, whatever it says.
 * The old values are those of the last time that all was in order. */
struct inflight_desc {
  uint8_t in_flight; /* of a first one; as last, count and counter */
  uint8_t padding;
  uint16_t next, last, count;
  uint64_t counter;
  uint16_t id, flags; /* the descriptor */
  uint32_t bytes;
  uint64_t address;
};
union inflight_where { /* in the ring, without wrap counters: changed in one store */
  struct {
    uint16_t used, old_used;
    uint8_t used_wrap, old_used_wrap;
    uint8_t padding[2];
  };
  uint64_t all;
};
struct inflight_packed {
  uint64_t features;
  uint16_t version;
  uint16_t size;
  uint16_t free, old_free; /* the list's first one */
  union inflight_where where;
  uint64_t padding;
  struct inflight_desc entries[];
};

/* Of one queue in the file: a multiple of 64. */
static inline uint64_t inflight_queue_bytes(uint32_t size, bool packed) {
  return packed
             ? round_up(sizeof(struct inflight_packed) + size * sizeof(struct inflight_desc), 64)
             : round_up(sizeof(struct inflight_queue) + size * sizeof(struct inflight_entry), 64);
}

/* Of a packed ring, what we know ourselves: the file is only written to. */
struct inflight_link {
  uint16_t next;  /* of an entry: the next one of its chain, or of those that are free */
  uint16_t last;  /* of a first entry */
  uint16_t entry; /* by buffer id: its first entry; INFLIGHT_NONE */
};
#define INFLIGHT_NONE UINT16_MAX

/* For the two of them: lists heads in the order in which they were taken. */
#define INFLIGHT_VERSION 1
struct inflight_order {
  uint64_t counter;
  uint16_t head;
};
void inflight_sort(struct inflight_order order[], int n, uint16_t heads[]);

/* A tracker without a file tracks nothing. */
struct inflight {
  struct inflight_queue *q;  /* NULL: no file; of a packed ring only that says something */
  struct inflight_packed *p; /* of a packed ring: the file; with the next four */
  const struct vring *ring;
  struct inflight_link *links; /* [size] */
  uint16_t free, used;         /* used: the position that was published last */
  uint16_t size;               /* ours: a copy is what counts */
  uint16_t last_head;
  uint64_t counter;
  uint16_t put_count; /* since the last publish */
  uint16_t *put;      /* the caller's memory, see inflight_begin() */
};

/* Before the ring runs: brings the file up to date with the ring's own used index (which ring_map()
 * has read), and lists in heads[], in the order in which they were taken, what is to be done again.
 * The ring's last_avail becomes what follows from it. Returns how many. A fresh (zeroed) file is
 * begun. -EBADMSG: the file is of another size or version. put: [2 * size]: all that were in
 * flight, and as many that a driver who does not wait for them has had answered since. */
int inflight_begin(struct inflight *t, struct inflight_queue *q, uint16_t *put, struct vring *ring,
                   uint16_t heads[]);
/* The same for a packed ring, whose positions become the file's, unless that is a fresh one.
 * -EBADMSG also: its lists make no sense. copies, links: [size], the caller's. */
int inflight_begin_packed(struct inflight *t, struct inflight_packed *p, uint16_t *put,
                          struct vring *ring, uint16_t heads[], struct vring_packed_desc *copies,
                          struct inflight_link *links);
void inflight_take_packed(struct inflight *t, uint16_t head);
void inflight_publish_packed(struct inflight *t, uint16_t next_used);
void inflight_published_packed(struct inflight *t, uint16_t next_used);

/* What was taken last, or was taken by a process before. */
static inline void inflight_take(struct inflight *t, uint16_t head) {
  if (!t->q) return;
  if (unlikely(t->p)) {
    inflight_take_packed(t, head);
    return;
  }
  struct inflight_entry *e = &t->q->entries[head];
  e->counter = t->counter++;
  __atomic_store_n(&e->in_flight, 1, __ATOMIC_RELEASE);
}
/* Before ring_put(), so that no head is given back that is not in the list. */
static inline void inflight_put(struct inflight *t, uint16_t head) {
  if (!t->q) return;
  if (unlikely(t->p)) {
    t->put[t->put_count++] = head;
    return;
  }
  t->q->entries[head].next = t->last_head;
  t->last_head = head;
  __atomic_store_n(&t->q->last_head, head, __ATOMIC_RELEASE);
  t->put[t->put_count++] = head;
}
/* Before ring_publish(). used_index: what the ring will say. */
static inline void inflight_publish(struct inflight *t, uint16_t used_index) {
  if (unlikely(t->p)) inflight_publish_packed(t, used_index);
}
/* After ring_publish(): used_index is what the ring says now. */
static inline void inflight_published(struct inflight *t, uint16_t used_index) {
  if (!t->q) return;
  if (unlikely(t->p)) {
    inflight_published_packed(t, used_index);
    return;
  }
  for (uint32_t i = 0; i < t->put_count; i++)
    __atomic_store_n(&t->q->entries[t->put[i]].in_flight, 0, __ATOMIC_RELEASE);
  t->put_count = 0;
  __atomic_store_n(&t->q->used_index, used_index, __ATOMIC_RELEASE);
}

#endif
