/* port.h - one thread's door: sends ops to the owning cores, collects them when done.
 *
 * A port belongs to one thread at a time. A core's own port (port->peer.local) belongs to the
 * core's thread and completes through peer.finished at the end of a step. */
#ifndef RUNTIME_PORT_H
#define RUNTIME_PORT_H

#include <errno.h>

#include "runtime/core.h"

struct port_direct;

struct port {
  struct peer peer;
  struct store *store;
  struct core *cores; /* the store's */
  struct inbox inbox; /* peers: cores by index */
  int event_fd;
  bool open;
  bool fd_used; /* somebody may be polling event_fd: reap arms it. Who never asks for it pays no
                   system call. */
  uint32_t depth, in_flight;
  struct op_chain finished; /* drained, not yet taken */
  struct op_mail *sending;  /* [core_count] */
  uint32_t *sending_touched;
  uint32_t sending_count;
  struct port_direct *direct; /* NULL: all goes to the cores */
};

int port_open(struct port **port, struct store *store, uint32_t depth);
int port_close(struct port *port);
void port_free(struct port *port);
/* The core's own port: finished ops go to `finished` at the end of the core's step. */
int port_open_local(struct port **port, struct core *core,
                    void (*finished)(struct peer *peer, struct shard_op *op));

/* Takes one op for a core into the running batch; -EAGAIN: no room there. The batch leaves with
 * port_send(), which cannot fail. Whatever the port's depth. */
static inline int port_enter(struct port *port, uint32_t core, struct shard_op *op) {
  op->core = (uint8_t)core;
  op->owner = &port->peer;
  if (port->peer.local) {
    core_enter(port->peer.local, op);
  } else {
    struct op_mail *mail = &port->sending[core];
    if (!mail->count) {
      if (!core_has_room(&port->cores[core], &port->peer)) return -EAGAIN;
      port->sending_touched[port->sending_count++] = core;
    }
    op_mail_add(mail, op);
  }
  port->in_flight++;
  return 0;
}
/* The same, or -EAGAIN if the port has its depth in flight. */
static inline int port_add(struct port *port, uint32_t core, struct shard_op *op) {
  return unlikely(port->in_flight >= port->depth) ? -EAGAIN : port_enter(port, core, op);
}
void port_send(struct port *port);
/* The next finished op, or NULL. */
struct shard_op *port_take(struct port *port);
/* Drains the inbox into `finished`; true if there is something. */
bool port_drain(struct port *port);
/* 1: something is finished, 0: timeout. Negative timeout: for ever. Steps a stepped store. */
int port_wait(struct port *port, int64_t timeout_ns);
/* After a drain that found nothing: from now on a completion makes event_fd readable. */
void port_arm(struct port *port);
/* Sends one op to a core and waits for just this one, whatever the port's depth. */
int port_run(struct port *port, uint32_t core, struct shard_op *op);

#endif
