/* host_control.h - the control socket: clients, their lines, the replies; and signals, because the
 * main thread waits here for all of that. docs/host-control.md has the protocol. */
#ifndef TOOLS_HOST_CONTROL_H
#define TOOLS_HOST_CONTROL_H

#include "tools/host_work.h"

struct host_control_config {
  struct host *host;
  struct host_work *work;
  int listen_fd; /* stays the caller's */
  int signal_fd; /* a signalfd of SIGTERM and SIGINT */
  uint32_t clients_max;
  uint64_t drain_ns; /* how long guests are waited for after a first signal */
};

/* Serves until a signal has come and disks are detached, or the time for that is over, or a second
 * signal comes. Stops the work; replies that are ready are sent as far as clients take them at
 * once. A third signal, then or later, ends the process with status 1.
 * HOST_HANDED_OVER: a successor has all disks; h->successor.fd is to be closed when the store is.
 */
#define HOST_HANDED_OVER 1
int host_control_run(const struct host_control_config *config);

#endif
