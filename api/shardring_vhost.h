/* shardring_vhost.h - volumes as disks of virtual machines: a vhost-user-blk back-end inside the
 * process that has the store open. What holds for all of shardring.h (errors, options, units) holds
 * here.
 *
 * A server has one thread of its own, which accepts monitors (QEMU, Firecracker, Cloud Hypervisor,
 * crosvm ...) on UNIX sockets and talks the protocol with them. Requests of guests never pass
 * through it: each virtqueue is served by the core that owns the volume's data (queues of striped
 * volumes are spread over cores), which polls its ring in the guest's memory while there is work
 * and sleeps until the guest rings otherwise. An idle guest costs no processor time.
 *
 * One monitor at a time can use a disk; another one that connects meanwhile waits in the socket's
 * queue. A monitor that misbehaves is disconnected; others do not notice. */
#ifndef SHARDRING_VHOST_H
#define SHARDRING_VHOST_H

#include "shardring.h"

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

struct sr_vhost;

enum sr_vhost_event_kind {
  SR_VHOST_CONNECTED = 1,
  SR_VHOST_ACTIVE = 2,       /* the guest's driver has set up its queues */
  SR_VHOST_DISCONNECTED = 3, /* by the monitor, in order */
  SR_VHOST_DROPPED = 4,      /* by us: `what` says why */
};
struct sr_vhost_event {
  uint32_t kind; /* enum sr_vhost_event_kind */
  const char *disk;
  const char *what; /* one line */
};

struct sr_vhost_options {
  size_t size;
  uint32_t disks_max;   /* default 16384 */
  uint32_t activate_ms; /* from connecting until the first queue is enabled; slower monitors are
                           dropped, so that they hold nothing. Default 0: for ever */
  /* Runs on the server's thread; must not block or call the library. May be NULL. */
  void (*event)(void *arg, const struct sr_vhost_event *event);
  void *event_arg;
};
#define SR_VHOST_OPTIONS_INIT SR_OPTIONS_INIT_(sr_vhost_options)
/* -EMFILE: no port left. */
int sr_vhost_start(struct sr_store *store, const struct sr_vhost_options *options,
                   struct sr_vhost **vhost);
/* Takes down all disks as sr_vhost_detach() with force does, then the server. Before
 * sr_store_close(). NULL is fine. */
void sr_vhost_stop(struct sr_vhost *vhost);

/* When is a completed write safe? */
enum sr_vhost_cache {
  SR_VHOST_WRITE_BACK = 0, /* when the guest flushes; each write is durable for drivers that did not
                              negotiate FLUSH, and while a driver has switched its cache off */
  SR_VHOST_WRITE_THROUGH = 1, /* at once */
  SR_VHOST_EPHEMERAL = 2, /* never for sure: flushes do nothing. For disks that nobody wants back */
};

struct sr_vhost_disk {
  size_t size;
  const char *volume; /* name or "#id"; it is opened for writing unless read_only */
  const char *file;   /* instead of a volume: as sr_block_open() */
  const char
      *socket;     /* path to be made; a socket that is there and nobody listens to is replaced */
  int socket_fd;   /* instead: one that listens already (taken over); 0: none */
  uint32_t mode;   /* permissions of the socket; default 0600 */
  int64_t group;   /* its group, if above 0 */
  uint32_t queues; /* 1 to 64; default 1 */
  uint32_t queue_size; /* at most; a power of two up to 1024; default 256 */
  bool read_only;
  uint32_t cache;     /* enum sr_vhost_cache */
  const char *serial; /* what GET_ID tells, up to 20 bytes; default: the volume's id in decimal */
  bool share;         /* open it for writing though somebody else has it so (else -EBUSY) */
};
#define SR_VHOST_DISK_INIT SR_OPTIONS_INIT_(sr_vhost_disk)
/* Opens the volume and listens; from now on its name is `name` here (1 to 255 bytes; NULL: that of
 * the volume). Any thread but a core's. Errors of sr_volume_open() and of bind(); -EEXIST: that
 * name, or a socket in use; -ENOSPC: disks_max. */
int sr_vhost_attach(struct sr_vhost *vhost, const char *name, const struct sr_vhost_disk *disk);
/* Disconnects, waits for requests in flight, removes the socket, closes the volume. -EBUSY: a
 * monitor is connected, unless force. -ENOENT. Does not flush. */
int sr_vhost_detach(struct sr_vhost *vhost, const char *name, bool force);
/* After sr_volume_resize(): tells the guest. 0 also where nobody is connected. */
int sr_vhost_resized(struct sr_vhost *vhost, const char *name);

/* Planned upgrade: another process takes over all disks with the connections of their monitors,
 * their guests' memory and rings; no request is lost, guests see a pause.
 *
 *   old process                              new process
 *   sr_vhost_hand_over(vhost, socket)  --->  sr_vhost_receive(socket, &handover)
 *   sr_vhost_stop(), sr_store_close()
 *   tells that it has                  --->  sr_store_open(), sr_vhost_start()
 *                                            sr_vhost_resume(vhost, handover)
 *
 * over a connected UNIX stream socket. How the old one tells (by closing the socket, say) is theirs
 * to agree on. */
struct sr_vhost_handover;
/* Waits for requests in flight; afterwards vhost has no disks. -EBUSY: a guest migrates.
 * -ETIMEDOUT: a monitor did not end a message, or requests did not end, for 10 s; that, or an error
 * of the socket: all disks go on here. */
int sr_vhost_hand_over(struct sr_vhost *vhost, int socket);
/* Needs no store yet. -ETIMEDOUT, -ECONNRESET, -EBADMSG; -ENOTSUP: a version that hands over
 * otherwise. After an error the other side goes on by itself. */
int sr_vhost_receive(int socket, struct sr_vhost_handover **handover);
/* Attaches all disks, and goes on with their guests. Frees the handover. The first error, if some
 * could not be; the others are there. Disks of files: names of files as they were. */
int sr_vhost_resume(struct sr_vhost *vhost, struct sr_vhost_handover *handover);
/* Instead of resuming: monitors see their connections end. */
void sr_vhost_handover_free(struct sr_vhost_handover *handover);

struct sr_vhost_info {
  char name[256], volume[256], socket[108];
  bool connected, active, read_only, striped;
  uint32_t queues, queues_active, cache;
  uint64_t connections; /* since it was attached */
  /* Since it was attached, of all queues; a process that takes a disk over goes on counting. */
  uint64_t reads, writes, flushes, discards, zeroes, errors;
  uint64_t read_bytes, write_bytes;
  uint64_t in_flight;    /* now */
  uint64_t kicks, calls; /* notifications from and to the guest */
  uint64_t cpu_ns; /* what the steps of its cores took, shared out by requests: the volume's work
                      and the kernel's are in */
  uint64_t limit_waits, limit_wait_ns; /* of the volume: as of sr_volume_stat(), which does
                                          begin anew */
  uint64_t
      latency_ns[SR_LATENCY_BUCKETS]; /* of reads and writes, from the ring to the ring; counts by
                                         bucket: sr_latency_bucket_ns(). One in 16 is timed */
};
int sr_vhost_stat(struct sr_vhost *vhost, const char *name, struct sr_vhost_info *info);
/* Names in alphabetical order after `after` ("" to begin), as sr_volume_list(). */
int sr_vhost_list(struct sr_vhost *vhost, const char *after, struct sr_vhost_info *infos,
                  uint32_t max);

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif
#endif
