/* port_direct.h - what a port's thread does by itself, without the core that owns the blob: see
 * shards/blob_direct.h. The port's thread; the counters may be read by any. */
#ifndef RUNTIME_PORT_DIRECT_H
#define RUNTIME_PORT_DIRECT_H

#include "runtime/port.h"

struct store;

/* Of a store whose cores have started, before it is given to other threads. Does nothing where
 * engine or files do not allow it. -ENOMEM. */
int store_direct_start(struct store *store);
void store_direct_finish(struct store *store);

/* number: the port's. NULL and 0: the store has none of it. -ENOMEM. */
int port_direct_create(struct port_direct **out, const struct store *store, uint32_t number);
void port_direct_destroy(struct port_direct *d);

/* As OP_GET and OP_STAT; -EAGAIN: send the core one. */
int64_t port_direct_get(struct port *port, const struct shard_op *op);
int port_direct_stat(struct port *port, const struct shard_op *op, uint64_t *size);

/* What was done so in place of a core, by all ports. Not on a core's thread: takes the lock that
 * opening a port does. */
struct port_direct_stats {
  uint64_t gets, stats, read_bytes;
};
void store_direct_stats(struct store *store, uint32_t core, struct port_direct_stats *stats);

#endif
