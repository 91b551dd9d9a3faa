/* front_queue.h - what the files of the driver's side share: front_queue.c, which has all that does
 * not depend on the kind of ring and split rings, and front_packed.c. Not for others. */
#ifndef API_VHOST_FRONT_QUEUE_H
#define API_VHOST_FRONT_QUEUE_H

#include "api/vhost/front.h"

#define NOT_WRITTEN 0xffu
#define CANARY      0x5au

struct header {
  uint32_t type, priority;
  uint64_t sector;
};
struct segment {
  uint64_t sector;
  uint32_t sectors, flags;
};
struct vfront_slot {
  struct vring_desc few[3];
  struct header header;
  uint8_t status, canary[15];
  struct segment segment;
  uint8_t room[32];
  struct vring_desc many[VFRONT_PIECES_MAX + 2];
};
_Static_assert(sizeof(struct vfront_slot) % 64 == 0, "whole lines");
_Static_assert(offsetof(struct vfront_slot, status) == 64, "a line of its own");

int vfront_queue_fail(struct vfront_queue *q, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));
/* Fills a slot, and describes it: flags say only what the device writes. How many. */
uint32_t vfront_fill(struct vfront_queue *q, uint32_t slot, const struct vfront_request *r,
                     struct vring_desc *d);
/* The device says that it has used a slot: its request, checked. */
int vfront_used(struct vfront_queue *q, uint32_t slot, uint32_t bytes,
                struct vfront_request **request);

/* front_packed.c */
void vfront_packed_init(struct vfront_queue *q);
void vfront_packed_offer(struct vfront_queue *q, uint32_t slot, const struct vfront_request *r);
/* All that was offered since `before`: the device may see it. True: it wants to be told. */
bool vfront_packed_show(struct vfront_queue *q, uint16_t before);
int vfront_packed_reap(struct vfront_queue *q, struct vfront_request **requests, uint32_t max);
bool vfront_packed_something_used(const struct vfront_queue *q);
uint32_t vfront_packed_used_base(const struct vfront_queue *q);
void vfront_packed_want_calls(struct vfront_queue *q, bool wanted);

#endif
