/* host_upgrade.h - one daemon takes the place of another: the connection to the control socket on
 * which the new one has said {"do":"upgrade"} becomes the channel between them.
 *
 *   old                                          new
 *                                      <---  {"do":"upgrade","store":ID}
 *   {"ok":true, "sockets":N, ...}      --->
 *   N lines, each with a descriptor    --->      what the old one listens on
 *   sr_vhost_hand_over()               --->      sr_vhost_receive()
 *   closes its store, and the channel  --->      opens it, sr_vhost_resume()
 *
 * Until the hand-over is complete the old one can go on as if nothing had been. */
#ifndef TOOLS_HOST_UPGRADE_H
#define TOOLS_HOST_UPGRADE_H

#include "tools/host.h"

/* ---- The old one ----------------------------------------------------------------------------- */

/* Which store that is, the same for whatever path leads there, in hexadecimal; "" for one that
 * only this process can have. An error of stat(). */
int host_store_identity(const char *where, char identity[HOST_IDENTITY_BYTES]);

/* Makes the reply; nothing is given away yet. */
host_run host_upgrade;
/* Sends the reply, what the daemon listens on, and the disks, to h->successor; its error then says
 * whether they are gone. On a worker, while no request is in work. */
void host_upgrade_give(struct host *h);

/* ---- The new one: before any thread is started ----------------------------------------------- */

struct host_takeover {
  int fd; /* the channel; -1 */
  pid_t pid;
  bool draining;
  struct sr_vhost_handover *handover;
  /* What the old one listened on because of its own options, -1: it did not. */
  int control_fd, metrics_fd;
  char control_at[108], metrics_at[128];
};
#define HOST_TAKEOVER_INIT                                                                         \
  { .fd = -1, .control_fd = -1, .metrics_fd = -1 }

/* Asks at that control socket, and waits until the old one is ready, or for a signal. What it was
 * given by systemd comes into `inherited`. 0; an error with one line in why. */
int host_takeover_ask(struct host_takeover *t, const char *control, const char *identity,
                      int signal_fd, struct host_inherited *inherited, char why[HOST_WHY_BYTES]);
/* Takes the disks. Until it has returned 0 they are the old one's. */
int host_takeover_receive(struct host_takeover *t);
/* Waits until the old one has closed its store, which can take as long as a flush. -ETIMEDOUT. */
int host_takeover_wait(struct host_takeover *t);
/* What was not used. */
void host_takeover_end(struct host_takeover *t);

#endif
