/* handover.h - what goes over the socket when one process hands its disks to the next: messages of
 * message.h with numbers of their own, in this order:
 *
 *   DISK COUNTS [CLIENT REGION... RING...] ... END
 *
 * Both sides are of this project, but not of the same version: a disk says which layout it has. */
#ifndef API_VHOST_HANDOVER_H
#define API_VHOST_HANDOVER_H

#include "api/vhost/server.h"

#define HANDOVER_LAYOUT 3u

enum handover_kind {
  HANDOVER_DISK = 1001,   /* + the listening socket */
  HANDOVER_CLIENT = 1002, /* + the connection, then as `fds` says */
  HANDOVER_REGION = 1003, /* + its file */
  HANDOVER_RING = 1004,   /* + as `fds` says */
  HANDOVER_END = 1005,
  HANDOVER_COUNTS = 1006, /* struct disk_counts */
};
struct handover_disk {
  uint32_t layout, cache, queues, queue_size, read_only, made_socket, is_file, unused;
  uint64_t connections;
  char name[256], volume[256], socket[108], serial[BLK_SERIAL_BYTES];
};
enum { HANDOVER_BACKEND_FD = 1, HANDOVER_INFLIGHT_FD = 2 };
struct handover_client {
  uint64_t features, protocol, inflight_offset;
  uint32_t inflight_queues, inflight_size, active, writeback, fds, unused;
};
struct handover_region {
  uint64_t guest, user, bytes, file_offset;
};
enum { HANDOVER_KICK_FD = 1, HANDOVER_CALL_FD = 2, HANDOVER_ERROR_FD = 4 };
struct handover_ring {
  struct message_vring_addr address;
  uint32_t index, size, last_avail, has_address, started, enabled, fds, next_used, has_base, unused;
};

/* client.c: a client as it was in another process, its rings halted. Takes the descriptors. */
int client_adopt(struct disk *d, const struct handover_client *state, int fds[3]);
int client_adopt_ring(struct client *c, const struct handover_ring *ring, int fds[3]);

#endif
