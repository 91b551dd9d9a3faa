/* host.h - shard-host's parts and what they share.
 *
 *   host_main.c     options, the order of start and end
 *   host_control.c  clients of the control socket: lines in, lines out. The main thread
 *   host_work.c     threads that carry out requests, each with a port of its own
 *   host_command.c  a line to a request
 *   host_answer.c   a request to a reply; host_disks.c, host_volumes.c: each kind of request
 *   host_upgrade.c  one daemon takes the place of another
 *   host_metrics.c  figures as Prometheus reads them; host_http.c: the server of them
 *   host_sandbox.c, host_seccomp.c, host_sockets.c, host_systemd.c, host_log.c  as they say
 */
#ifndef TOOLS_HOST_H
#define TOOLS_HOST_H

#include <pthread.h>
#include <stdatomic.h>

#include "api/shardring.h"
#include "api/shardring_vhost.h"
#include "tools/host_command.h"
#include "tools/host_systemd.h"
#include "api/control/json.h"

#define HOST_TOOL           "shard-host"
#define HOST_WHY_BYTES      512u
#define HOST_IDENTITY_BYTES 17u

struct host {
  struct sr_store *store;
  struct sr_vhost *vhost;
  /* Set before threads start, and not changed. */
  const char *where, *socket_dir, *file_dir; /* file_dir: NULL: no files are served */
  uint32_t socket_mode;
  int64_t socket_group; /* -1: as it comes */
  uint64_t started_ns;
  /* For a successor: which store that is, and what the daemon listens on, -1: not; by which option,
   * NULL: it came from systemd. */
  char identity[HOST_IDENTITY_BYTES];
  int control_fd, metrics_fd;
  const char *control_at, *metrics_at;
  /* Whoever takes over: the main thread's, and a worker's while host_upgrade_give() runs. */
  struct {
    int fd; /* stays open until the process ends */
    pid_t pid;
    const char *reply;
    int error; /* 0: all disks are there now */
  } successor;
  /* Any thread. */
  _Atomic bool draining;           /* no disk is attached any more; idle ones are detached */
  _Atomic uint32_t disks_left;     /* as the last sweep found them */
  pthread_mutex_t lock;            /* of what is below */
  struct host_inherited inherited; /* sockets for disks */
};

/* ---- host_answer.c --------------------------------------------------------------------------- */

/* Carries it out and returns the reply on one line, which the caller frees; *error is 0 or why not.
 * Blocks. */
char *host_answer(struct host *h, struct sr_port *port, const struct host_command *c, int *error);
/* The reply to what could not be parsed. */
char *host_refusal(const struct host_command *c, int error, const char *why);

/* Each kind of request: adds to the reply and returns 0; or returns an error, with one line in why
 * if the error's own words do not say enough. */
typedef int host_run(struct host *h, struct sr_port *port, const struct host_command *c,
                     struct js *reply, char why[HOST_WHY_BYTES]);

/* ---- host_disks.c ---------------------------------------------------------------------------- */

host_run host_attach, host_detach, host_clone, host_create, host_list, host_stat, host_drain;
/* Detaches every disk that no monitor is connected to; counts the others in disks_left. */
void host_sweep(struct host *h);
/* Tells the guests of a volume that its size has changed. */
void host_tell_resized(struct host *h, const char *volume);

/* ---- host_volumes.c -------------------------------------------------------------------------- */

host_run host_remove, host_volumes, host_limit, host_resize, host_snapshot, host_flush, host_store,
    host_ranges;
/* sr_flush() if the request wants it. */
int host_durable(struct sr_port *port, const struct host_command *c);
/* Adds a member "volume" with all about it. */
int host_volume_json(struct sr_port *port, const char *name, struct js *reply);

uint64_t host_now_ns(void);

#endif
