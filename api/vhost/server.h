/* server.h - what the files of the vhost server share. Not for others.
 *
 *   vhost.c    the calls of shardring_vhost.h, from any thread
 *   server.c   the server's thread: sockets, connections, calls to cores
 *   client.c   one monitor's connection: its rings halted and started around each message
 *   apply.c    what its messages mean
 *   handover.c disks and connections go to another process
 *   queue.c    a virtqueue, on its core
 *
 * All of it is guarded by server->lock, which the server's thread holds while it works. It never
 * blocks under it; calls to cores are sent and their answers come back later. Only that thread
 * frees disks and clients, and only when nothing of theirs runs on a core. */
#ifndef API_VHOST_SERVER_H
#define API_VHOST_SERVER_H

#include <unistd.h>

#include "api/internal.h"
#include "api/vhost/message.h"
#include "api/vhost/notify.h"
#include "api/vhost/queue.h"

#define VHOST_QUEUES_MAX 64u

/* What an epoll event is about. */
struct source {
  enum { SOURCE_WAKE, SOURCE_PORT, SOURCE_DISK, SOURCE_CLIENT } kind;
  int fd;
};

struct client_ring { /* what the monitor has said of a queue */
  uint32_t size;
  uint16_t last_avail;
  uint16_t next_used; /* of a packed ring; both are positions then */
  bool has_base;      /* false: a ring that begins */
  bool has_address, started, enabled;
  bool running; /* on its core, or on its way there or back */
  struct message_vring_addr address;
  int kick_fd, call_fd, error_fd;
};

struct client {
  struct source source;
  struct disk *disk;
  struct message_reader reader;
  struct message message; /* being carried out */
  enum {
    CLIENT_IDLE,    /* waits for a message */
    CLIENT_HALTING, /* rings are being stopped for the message */
    CLIENT_RUNNING, /* ... and started again, after it was carried out */
    CLIENT_CLOSING, /* rings are being stopped for good */
    CLIENT_LEAVING, /* rings are being stopped, then it goes to another process */
    CLIENT_LEFT,    /* ... they are */
  } state;
  int result;        /* of the message */
  uint32_t calls;    /* to cores, without an answer yet */
  uint64_t features; /* VIRTIO and vhost-user ones, as acknowledged */
  uint64_t protocol; /* protocol features */
  bool active;       /* a queue has been enabled */
  uint64_t since_ns; /* connected */
  int backend_fd;
  struct guest_memory memory;
  struct dirty_log log;
  int state_fd;   /* SET_DEVICE_STATE_FD, to be loaded; -1: none */
  void *inflight; /* the file, mapped; NULL: none */
  uint64_t inflight_mapped, inflight_offset;
  uint32_t inflight_queues, inflight_size;
  int inflight_fd;
  struct client_ring rings[VHOST_QUEUES_MAX];
};

struct disk_queue {
  struct queue queue;
  struct shard_op call; /* to the core; call.work stays the function */
  uint32_t index;
  uint16_t *heads; /* [3 * RING_SIZE]: queue.put, queue.again */
  uint32_t heads_size;
  struct packed_room *packed; /* of as many; NULL until there is a packed ring */
  _Atomic(const char *) why;  /* it broke */
};

/* What a disk has done since it was attached, in whatever process. */
struct disk_counts {
  uint64_t reads, writes, flushes, discards, zeroes, errors, read_bytes, write_bytes;
  uint64_t kicks, calls, cpu_ns, limit_waits, limit_wait_ns;
  uint64_t latency_ns[LATENCY_BUCKETS];
};

struct disk {
  struct source source; /* the listening socket */
  struct vhost_server *server;
  char name[256], volume[256], file[256], socket[108];
  bool made_socket, discards, closing;
  bool keeps_socket; /* when it is taken down: it lives on elsewhere */
  bool gone;         /* from the table: for whoever waits for it to be freed */
  bool hurries;      /* handover.c's */
  uint32_t cache;
  uint64_t connections;
  struct block *block;
  struct blk_disk blk;
  struct client *client;
  struct disk_queue *queues;  /* [blk.queues]; NULL until the first connection */
  struct disk_counts *before; /* in processes before this one; NULL: there was none */
};

struct vhost_server {
  struct store *store;
  struct sr_vhost_options options;
  pthread_mutex_t lock;
  pthread_cond_t gone;          /* a disk was taken down */
  pthread_mutex_t control_lock; /* one attach or detach at a time, they use `control` */
  struct port *port;            /* the server's thread's */
  struct port *control;
  struct source wake, port_source;
  struct notifier notifier; /* the server's thread's */
  int epoll_fd;
  pthread_t thread;
  bool stop;
  struct vhost_core **homes; /* by core */
  struct disk **disks;       /* by name */
  uint32_t disk_count, disk_room;
  bool closing_some, woken;
  bool leaving; /* all clients are to leave, nobody is accepted */
};

/* server.c */
int server_start(struct vhost_server *s);
void server_wake(struct vhost_server *s);
void *server_main(void *arg);
/* The disk gets its events; after a client has gone again. */
int server_listen(struct vhost_server *s, struct disk *d);
/* Has a queue's function run on its core; client_called() when it has. */
void server_call(struct vhost_server *s, struct disk_queue *q, core_call_fn *fn);
void server_event(const struct disk *d, enum sr_vhost_event_kind kind, const char *what);
/* The position of a name, or where it belongs. */
uint32_t server_find(const struct vhost_server *s, const char *name, bool *found);

static inline struct vhost_server *server_of(struct sr_vhost *v) {
  return (struct vhost_server *)v;
}
/* vhost.c. With control_lock. A socket_fd is the disk's only if it succeeds. */
int disk_attach(struct vhost_server *s, const char *name, const struct sr_vhost_disk *options,
                struct disk **d);
/* Of this process and those before. With the lock. */
void disk_count(const struct disk *d, struct disk_counts *sum);
/* With both locks: waits until the server's thread has let go of it. */
void disk_take_away(struct vhost_server *s, struct disk *d);

/* apply.c: one message */
enum halt { HALT_NONE, HALT_ONE, HALT_ALL };
/* Which rings must not run while it is applied, and which one it is about. */
enum halt client_halts(const struct message *m, uint64_t *index);
/* Carries c->message out, and fills its answer in if it has one of its own. */
int client_apply(struct client *c);
bool client_answers(uint32_t request);
struct client_ring *client_ring_at(struct client *c, uint64_t index); /* NULL: there is none */
void client_reset_ring(struct client_ring *r);
/* Maps what the file holds for so many queues, at most `bytes`: which of the two kinds of rings
 * they are, features say, and may say so later. The descriptor is taken. */
int client_map_inflight(struct client *c, int fd, uint64_t offset, uint64_t bytes, uint32_t queues,
                        uint32_t size);
void client_drop_inflight(struct client *c);
/* A number of a feature bit. */
static inline bool has(uint64_t bits, unsigned number) { return bits >> number & 1; }
static inline void close_fd(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

/* client.c */
/* fd becomes the client's, or is closed. */
int client_open(struct disk *d, int fd);
/* Its socket is readable. */
void client_readable(struct client *c);
/* A call to a core has come back. */
void client_called(struct client *c, struct disk_queue *q);
/* Stops all; it frees itself, later. why: an event tells; NULL: the monitor's own wish. */
void client_close(struct client *c, const char *why);
/* Nothing of its runs any more: frees it, without a word to the monitor. */
void client_forget(struct client *c);
/* Halts its rings between two messages. True: it has left, and nothing of it changes until
 * client_go_on(). */
bool client_leave(struct client *c);
void client_go_on(struct client *c);
/* The size of the disk has changed. */
void client_config_changed(struct client *c);
/* A queue has told that it broke. */
void client_queue_broke(struct client *c, struct disk_queue *q, const char *why);

#endif
