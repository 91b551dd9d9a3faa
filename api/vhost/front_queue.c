/* front_queue.c - a driver's side of a virtqueue (virtio 1.1, 2.6 and 5.2): requests in slots of
 * guest memory, one indirect table or a fixed run of descriptors for each. What a packed ring has
 * of its own is front_packed.c's.
 *
 * Owned by the thread that uses the queue. Invariants: a slot is in `free` or in flight
 * (requests[slot] is not NULL); what the device may write is looked at only after its used entry.
 *
 * A slot has two lines: what the device reads (short table, header), and what it writes (status).
 * Behind them lies the long table of requests with more pieces. */
#include "api/vhost/front_queue.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PAGE         4096u
#define CALL_LATE_MS 1000

int vfront_queue_fail(struct vfront_queue *q, int error, const char *format, ...) {
  va_list ap;
  int n = snprintf(q->why, sizeof(q->why), "queue %u: ", q->index);
  va_start(ap, format);
  vsnprintf(q->why + n, sizeof(q->why) - (size_t)n, format, ap);
  va_end(ap);
  q->error = error;
  return error;
}

static volatile uint16_t *used_event(struct vfront_queue *q) { return &q->avail->ring[q->size]; }
static volatile uint16_t *avail_event(struct vfront_queue *q) {
  return (volatile uint16_t *)&q->used->ring[q->size];
}

/* ---- Filling a slot ------------------------------------------------------------------------- */

static void put_desc(const struct vfront_queue *q, struct vring_desc *d, const void *at,
                     uint32_t bytes, uint16_t flags) {
  d->address = vfront_guest_address(q->front, at);
  d->bytes = bytes;
  d->flags = flags;
}

/* Data in pieces of whole sectors, the last one takes what is over. */
static uint32_t put_data(const struct vfront_queue *q, struct vring_desc *d,
                         const struct vfront_request *r, uint16_t flags) {
  uint32_t pieces = r->pieces ? r->pieces : 1, done = 0;
  uint32_t each = pieces > 1 ? r->bytes / pieces / BLK_SECTOR_BYTES * BLK_SECTOR_BYTES : r->bytes;
  if (each == 0) pieces = 1;
  for (uint32_t i = 0; i < pieces; i++) {
    uint32_t bytes = i + 1 < pieces ? each : r->bytes - done;
    put_desc(q, &d[i], (char *)r->buf + done, bytes, flags);
    done += bytes;
  }
  return pieces;
}

static uint32_t put_middle(const struct vfront_queue *q, struct vfront_slot *s,
                           struct vring_desc *d, const struct vfront_request *r) {
  switch (r->op) {
  case VFRONT_READ:
  case VFRONT_GET_ID:
    return put_data(q, d, r, VRING_WRITE);
  case VFRONT_WRITE:
    return put_data(q, d, r, 0);
  case VFRONT_DISCARD:
  case VFRONT_WRITE_ZEROES:
    s->segment = (struct segment){r->offset / BLK_SECTOR_BYTES, r->bytes / BLK_SECTOR_BYTES,
                                  r->op == VFRONT_WRITE_ZEROES && r->unmap};
    put_desc(q, d, &s->segment, sizeof(s->segment), 0);
    return 1;
  default:
    return 0;
  }
}

static bool has_sector(uint32_t op) { return op == VFRONT_READ || op == VFRONT_WRITE; }

uint32_t vfront_fill(struct vfront_queue *q, uint32_t slot, const struct vfront_request *r,
                     struct vring_desc *d) {
  struct vfront_slot *s = &q->slot[slot];
  s->header.type = r->op;
  s->header.priority = 0;
  s->header.sector = has_sector(r->op) ? r->offset / BLK_SECTOR_BYTES : 0;
  s->status = NOT_WRITTEN;
  put_desc(q, &d[0], &s->header, sizeof(s->header), 0);
  uint32_t n = 1 + put_middle(q, s, d + 1, r);
  put_desc(q, &d[n++], &s->status, 1, VRING_WRITE);
  return n;
}

/* The chain's head. */
static uint16_t chain_up(struct vfront_queue *q, uint32_t slot, const struct vfront_request *r) {
  struct vfront_slot *s = &q->slot[slot];
  uint16_t head = (uint16_t)(slot * q->slot_descs);
  struct vring_desc *d = !q->indirect ? q->desc + head : r->pieces > 1 ? s->many : s->few;
  uint32_t n = vfront_fill(q, slot, r, d);
  uint16_t base = q->indirect ? 0 : head;
  for (uint32_t i = 0; i + 1 < n; i++) {
    d[i].flags |= VRING_NEXT;
    d[i].next = (uint16_t)(base + i + 1);
  }
  if (q->indirect) put_desc(q, &q->desc[head], d, n * (uint32_t)sizeof(*d), VRING_INDIRECT);
  return head;
}

/* ---- Submitting ----------------------------------------------------------------------------- */

void vfront_kick(struct vfront_queue *q) {
  uint64_t one = 1;
  q->kicks++;
  if (write(q->kick_fd, &one, sizeof(one)) < 0)
    vfront_queue_fail(q, -errno, "kick: %s", strerror(errno));
}

static bool wants_kick(struct vfront_queue *q, uint16_t before) {
  __atomic_thread_fence(__ATOMIC_SEQ_CST); /* our index before its event */
  if (!q->event_idx) return !(__atomic_load_n(&q->used->flags, __ATOMIC_RELAXED) & VRING_NO_NOTIFY);
  uint16_t event = *avail_event(q);
  return (uint16_t)(q->avail_index - event - 1) < (uint16_t)(q->avail_index - before);
}

static void offer(struct vfront_queue *q, uint16_t head) {
  q->avail->ring[q->avail_index++ & (q->size - 1)] = head;
}

/* All that was offered since: the device may see it. True: it wants to be told. */
static bool show(struct vfront_queue *q, uint16_t before) {
  if (q->packed) return vfront_packed_show(q, before);
  __atomic_store_n(&q->avail->index, q->avail_index, __ATOMIC_RELEASE);
  return wants_kick(q, before);
}

int vfront_submit(struct vfront_queue *q, struct vfront_request *const *requests, uint32_t count) {
  uint16_t before = q->avail_index;
  uint32_t n = 0;
  if (q->error) return q->error;
  for (; n < count && q->free_count > 0; n++) {
    uint32_t slot = q->free[--q->free_count];
    q->requests[slot] = requests[n];
    if (q->packed)
      vfront_packed_offer(q, slot, requests[n]);
    else
      offer(q, chain_up(q, slot, requests[n]));
  }
  if (n == 0) return 0;
  q->in_flight += n;
  q->submits++;
  if (show(q, before)) vfront_kick(q);
  return q->error ? q->error : (int)n;
}

/* ---- Reaping -------------------------------------------------------------------------------- */

/* Bytes that the device may write, and has written when all went well. */
static uint32_t writable(const struct vfront_request *r) {
  return 1 + (r->op == VFRONT_READ || r->op == VFRONT_GET_ID ? r->bytes : 0);
}

static bool canary_lives(const struct vfront_slot *s) {
  for (uint32_t i = 0; i < sizeof(s->canary); i++)
    if (s->canary[i] != CANARY) return false;
  return true;
}

static int check_used(struct vfront_queue *q, const struct vfront_slot *s,
                      const struct vfront_request *r, uint32_t bytes) {
  uint8_t status = s->status;
  if (status > BLK_UNSUPPORTED)
    return vfront_queue_fail(q, -EPROTO, "a request of type %u was used with status 0x%02x", r->op,
                             status);
  if (!canary_lives(s))
    return vfront_queue_fail(q, -EPROTO, "something was written behind a status byte");
  if (bytes > writable(r))
    return vfront_queue_fail(q, -EPROTO, "type %u: %u bytes written, of %u writable ones", r->op,
                             bytes, writable(r));
  if (status == BLK_OK && bytes != writable(r))
    return vfront_queue_fail(q, -EPROTO, "type %u: OK, but %u bytes written instead of %u", r->op,
                             bytes, writable(r));
  if (s->header.type != r->op || (has_sector(r->op) && s->header.sector * 512 != r->offset))
    return vfront_queue_fail(q, -EPROTO, "the device has written to a request's header");
  return 0;
}

int vfront_used(struct vfront_queue *q, uint32_t slot, uint32_t bytes,
                struct vfront_request **request) {
  struct vfront_request *r = q->requests[slot];
  if (!r)
    return vfront_queue_fail(q, -EPROTO,
                             "used entry %u names %u, which is not in flight (used twice?)",
                             q->last_used, slot * q->slot_descs);
  int error = check_used(q, &q->slot[slot], r, bytes);
  if (error < 0) return error;
  r->status = q->slot[slot].status;
  q->requests[slot] = NULL;
  q->free[q->free_count++] = (uint16_t)slot;
  q->in_flight--;
  *request = r;
  return 0;
}

static int take_used(struct vfront_queue *q, struct vfront_request **request) {
  struct vring_used_entry e = q->used->ring[q->last_used & (q->size - 1)];
  uint32_t slot = e.id / q->slot_descs;
  if (e.id >= q->size || e.id % q->slot_descs || slot >= q->slots)
    return vfront_queue_fail(q, -EPROTO, "used entry %u names %u, which is no head", q->last_used,
                             e.id);
  int error = vfront_used(q, slot, e.bytes, request);
  q->last_used++;
  return error;
}

/* A value far behind: no calls. It comes round after 65536, so it is moved now and then. */
static void want_no_calls(struct vfront_queue *q) {
  if (q->packed) {
    vfront_packed_want_calls(q, false);
  } else if (!q->event_idx) {
    q->avail->flags = VRING_NO_INTERRUPT;
  } else if ((uint16_t)(q->last_used - q->used_event) > 16384) {
    q->used_event = (uint16_t)(q->last_used - 1);
    *used_event(q) = q->used_event;
  }
}

int vfront_reap(struct vfront_queue *q, struct vfront_request **requests, uint32_t max) {
  if (q->error) return q->error;
  if (q->packed) return vfront_packed_reap(q, requests, max);
  uint16_t index = __atomic_load_n(&q->used->index, __ATOMIC_ACQUIRE);
  uint32_t n = (uint16_t)(index - q->last_used), i;
  if (n == 0) return 0;
  if (n > q->in_flight)
    return vfront_queue_fail(q, -EPROTO, "used index %u: %u more than before, with %u in flight",
                             index, n, q->in_flight);
  if (n > max) n = max;
  for (i = 0; i < n; i++) {
    int r = take_used(q, &requests[i]);
    if (r < 0) return r;
  }
  want_no_calls(q);
  return (int)n;
}

/* ---- Sleeping ------------------------------------------------------------------------------- */

static bool something_used(struct vfront_queue *q) {
  if (q->packed) return vfront_packed_something_used(q);
  return __atomic_load_n(&q->used->index, __ATOMIC_ACQUIRE) != q->last_used;
}

static void want_a_call(struct vfront_queue *q) {
  if (q->packed) {
    vfront_packed_want_calls(q, true);
  } else if (q->event_idx) {
    q->used_event = q->last_used;
    *used_event(q) = q->used_event;
  } else {
    q->avail->flags = 0;
  }
  __atomic_thread_fence(__ATOMIC_SEQ_CST); /* the event before its index */
}

/* 1: called, 0: not. */
static int sleep_on_call(struct vfront_queue *q, int timeout_ms) {
  struct pollfd p[2] = {{.fd = q->call_fd, .events = POLLIN},
                        {.fd = q->front->fd, .events = POLLRDHUP}};
  int n;
  do n = poll(p, 2, timeout_ms);
  while (n < 0 && errno == EINTR);
  if (n < 0) return vfront_queue_fail(q, -errno, "poll: %s", strerror(errno));
  if (p[0].revents & POLLIN) {
    uint64_t count;
    if (read(q->call_fd, &count, sizeof(count)) == sizeof(count)) q->calls += count;
    return 1;
  }
  return p[1].revents ? -ECONNRESET : 0;
}

int vfront_wait(struct vfront_queue *q, int timeout_ms) {
  if (q->error) return q->error;
  want_a_call(q);
  /* A call of before may still be there; then there is nothing, and we sleep again. */
  while (!something_used(q)) {
    int r = sleep_on_call(q, timeout_ms);
    if (r == 0 && something_used(q)) {
      /* It may be about to call: the index comes first. */
      r = sleep_on_call(q, CALL_LATE_MS);
      if (r == 0)
        return vfront_queue_fail(q, -EPROTO, "requests were finished, but there was no call");
    }
    if (r <= 0) return something_used(q) ? 1 : r;
  }
  return 1;
}

int vfront_do(struct vfront_queue *q, struct vfront_request *request) {
  struct vfront_request *back;
  int r = vfront_submit(q, &request, 1);
  if (r < 0) return r;
  if (r == 0) return -EAGAIN;
  while ((r = vfront_reap(q, &back, 1)) == 0) {
    r = vfront_wait(q, 10000);
    if (r == 0)
      return vfront_queue_fail(q, -ETIMEDOUT, "no answer to a request of type %u", request->op);
    if (r < 0) return r;
  }
  return r < 0 ? r : back->status;
}

/* ---- Life ----------------------------------------------------------------------------------- */

static uint64_t pages(uint64_t bytes) { return round_up(bytes, PAGE); }

uint64_t vfront_queue_bytes(uint32_t size, uint32_t slots) {
  return pages(size * sizeof(struct vring_desc)) + pages(6 + 2 * (uint64_t)size) +
         pages(6 + 8 * (uint64_t)size) + pages(slots * sizeof(struct vfront_slot));
}

int vfront_queue_init(struct vfront_queue *q, struct vfront *front, uint32_t index, char *memory,
                      uint32_t size, uint32_t slots) {
  bool indirect = front->features >> VIRTIO_F_INDIRECT_DESC & 1;
  uint32_t pieces = front->o.pieces ? front->o.pieces : 1;
  *q = (struct vfront_queue){
      .front = front,
      .index = index,
      .size = size,
      .slots = slots,
      .slot_descs = indirect ? 1 : pieces + 2,
      .indirect = indirect,
      .packed = front->features >> VIRTIO_F_RING_PACKED & 1,
      .event_idx = front->features >> VIRTIO_F_EVENT_IDX & 1,
      .kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
      .call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
      .err_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK),
  };
  q->desc = (struct vring_desc *)memory;
  memory += pages(size * sizeof(struct vring_desc));
  q->avail = (struct vring_avail *)memory;
  memory += pages(6 + 2 * (uint64_t)size);
  q->used = (struct vring_used *)memory;
  memory += pages(6 + 8 * (uint64_t)size);
  q->slot = (struct vfront_slot *)memory;
  q->requests = calloc(slots, sizeof(struct vfront_request *));
  q->free = calloc(slots, sizeof(*q->free));
  if (!q->requests || !q->free) return -ENOMEM;
  if (q->kick_fd < 0 || q->call_fd < 0 || q->err_fd < 0) return -errno;
  for (uint32_t i = 0; i < slots; i++) {
    memset(q->slot[i].canary, CANARY, sizeof(q->slot[i].canary));
    q->free[q->free_count++] = (uint16_t)(slots - 1 - i);
  }
  q->counts = calloc(slots, sizeof(*q->counts));
  if (!q->counts) return -ENOMEM;
  if (q->packed) {
    vfront_packed_init(q);
    return 0;
  }
  q->used_event = (uint16_t)-1;
  *used_event(q) = q->used_event;
  if (!q->event_idx) q->avail->flags = VRING_NO_INTERRUPT;
  return 0;
}

void vfront_queue_finish(struct vfront_queue *q) {
  if (!q->front) return;
  if (q->kick_fd >= 0) close(q->kick_fd);
  if (q->call_fd >= 0) close(q->call_fd);
  if (q->err_fd >= 0) close(q->err_fd);
  free(q->requests);
  free(q->free);
  free(q->counts);
}

uint32_t vfront_used_base(struct vfront_queue *q) {
  return q->packed ? vfront_packed_used_base(q)
                   : __atomic_load_n(&q->used->index, __ATOMIC_ACQUIRE);
}
