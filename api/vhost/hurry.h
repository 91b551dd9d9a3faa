/* hurry.h - while a queue stops, requests of its volume need not wait at limits: they go and leave
 * a debt, which those that come later wait for (OP_HURRY). So a stop takes as long as the device
 * does, and the limit stays right on average. It is the whole volume that hurries, since its
 * requests keep their order.
 *
 * A guest can make its monitor stop queues as often as it likes: so there is a bound to the debt
 * (GATE_HURRY_SOME), and none where a disk is taken away or handed over (hurry_block()).
 *
 * Told to the volume's parts one after the other, by one op that goes from core to core. Belongs to
 * the core of the queue. */
#ifndef API_VHOST_HURRY_H
#define API_VHOST_HURRY_H

#include "runtime/core.h"

struct block;
struct port;

struct hurry {
  struct shard_op op;
  struct peer peer; /* owner of the op */
  struct block *block;
  uint32_t part;
  enum { HURRY_OFF = 0, HURRY_BEGINS, HURRY_ON, HURRY_ENDS } state;
  void (*changed)(struct hurry *h); /* it has begun, or ended */
};

/* It is off. */
void hurry_begin(struct hurry *h, struct core *core, struct block *block,
                 void (*changed)(struct hurry *h));
/* Ends it, as soon as it has begun. True: it is off, and the memory is the caller's again. False:
 * ask again when changed() was called. */
bool hurry_end(struct hurry *h);

/* Begins or ends it without bounds, from the thread of a port. */
void hurry_block(struct port *port, const struct block *block, bool begin);

#endif
