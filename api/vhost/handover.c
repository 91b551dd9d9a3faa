/* handover.c - all disks go from one process to the next, with the connections of their monitors:
 * see handover.h and shardring_vhost.h. Any thread but a core's; the server's lock is held while
 * the state of others is read. */
#include "api/vhost/handover.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#define LEAVE_SECONDS  10 /* for a monitor to end its message, and for requests in flight */
#define ANSWER_SECONDS 10

/* ---- Giving ------------------------------------------------------------------------------------
 */

static int send_frame(int fd, uint32_t kind, const void *what, uint32_t bytes, const int *fds,
                      uint32_t fd_count) {
  struct message m = {.request = kind, .flags = MESSAGE_VERSION, .bytes = bytes};
  if (bytes) memcpy(m.raw, what, bytes);
  for (uint32_t i = 0; i < fd_count; i++)
    if (fds[i] >= 0) m.fds[m.fd_count++] = fds[i];
  return message_send(fd, &m);
}

static int send_ring(int fd, const struct client_ring *r, uint32_t index) {
  const int fds[3] = {r->kick_fd, r->call_fd, r->error_fd};
  struct handover_ring state = {.address = r->address,
                                .index = index,
                                .size = r->size,
                                .last_avail = r->last_avail,
                                .next_used = r->next_used,
                                .has_base = r->has_base,
                                .has_address = r->has_address,
                                .started = r->started,
                                .enabled = r->enabled};
  for (uint32_t i = 0; i < 3; i++) state.fds |= (fds[i] >= 0) << i;
  return send_frame(fd, HANDOVER_RING, &state, sizeof state, fds, 3);
}

static int send_client(int fd, const struct client *c) {
  const int fds[3] = {c->source.fd, c->backend_fd, c->inflight_fd};
  struct handover_client state = {
      .features = c->features,
      .protocol = c->protocol,
      .inflight_offset = c->inflight_offset,
      .inflight_queues = c->inflight_queues,
      .inflight_size = c->inflight_size,
      .active = c->active,
      .writeback = c->disk->blk.writeback,
      .fds = (c->backend_fd >= 0 ? HANDOVER_BACKEND_FD : 0u) |
             (c->inflight_fd >= 0 ? HANDOVER_INFLIGHT_FD : 0u),
  };
  int r = send_frame(fd, HANDOVER_CLIENT, &state, sizeof state, fds, 3);
  for (uint32_t i = 0; !r && i < c->memory.count; i++) {
    const struct memory_region *m = &c->memory.regions[i];
    struct handover_region region = {m->guest, m->user, m->bytes, m->file_offset};
    r = send_frame(fd, HANDOVER_REGION, &region, sizeof region, &m->fd, 1);
  }
  for (uint32_t i = 0; !r && i < c->disk->blk.queues; i++) r = send_ring(fd, &c->rings[i], i);
  return r;
}

static int send_disk(int fd, const struct disk *d) {
  struct handover_disk state = {.layout = HANDOVER_LAYOUT,
                                .cache = d->cache,
                                .queues = d->blk.queues,
                                .queue_size = d->blk.queue_size_max,
                                .read_only = d->blk.read_only,
                                .made_socket = d->made_socket,
                                .is_file = !*d->volume,
                                .connections = d->connections};
  memcpy(state.name, d->name, sizeof state.name);
  memcpy(state.volume, *d->volume ? d->volume : d->file, sizeof state.volume);
  memcpy(state.socket, d->socket, sizeof state.socket);
  memcpy(state.serial, d->blk.serial, sizeof state.serial);
  int r = send_frame(fd, HANDOVER_DISK, &state, sizeof state, &d->source.fd, 1);
  struct disk_counts counts;
  disk_count(d, &counts);
  if (!r) r = send_frame(fd, HANDOVER_COUNTS, &counts, sizeof counts, NULL, 0);
  return !r && d->client ? send_client(fd, d->client) : r;
}

static int send_all(struct vhost_server *s, int fd) {
  int r = 0;
  char answer;
  struct timeval patience = {.tv_sec = ANSWER_SECONDS};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  for (uint32_t i = 0; !r && i < s->disk_count; i++) r = send_disk(fd, s->disks[i]);
  if (!r) r = send_frame(fd, HANDOVER_END, NULL, 0, NULL, 0);
  if (r) return r;
  ssize_t n = recv(fd, &answer, 1, 0);
  return n == 1 ? 0 : n < 0 ? -errno : -ECONNRESET;
}

static bool all_left(const struct vhost_server *s) {
  for (uint32_t i = 0; i < s->disk_count; i++)
    if (s->disks[i]->client && s->disks[i]->client->state != CLIENT_LEFT) return false;
  return true;
}

/* Those that have clients: requests that wait at limits need not. */
static void hurry_all(struct vhost_server *s, bool begin) {
  for (uint32_t i = 0; i < s->disk_count; i++) {
    struct disk *d = s->disks[i];
    bool hurries = begin ? d->client != NULL : d->hurries;
    if (hurries) hurry_block(s->control, d->block, begin);
    d->hurries = hurries && begin;
  }
}

static int wait_until_all_left(struct vhost_server *s) {
  struct timespec end;
  int r = 0;
  clock_gettime(CLOCK_REALTIME, &end);
  end.tv_sec += LEAVE_SECONDS;
  s->leaving = true;
  hurry_all(s, true);
  server_wake(s);
  while (!all_left(s) && !r) r = pthread_cond_timedwait(&s->gone, &s->lock, &end);
  hurry_all(s, false);
  return all_left(s) ? 0 : -r;
}

static bool migrating(const struct vhost_server *s) {
  for (uint32_t i = 0; i < s->disk_count; i++)
    if (s->disks[i]->client && s->disks[i]->client->log.bits) return true;
  return false;
}

/* It did not work out: all goes on as if nothing had been. */
static void stay(struct vhost_server *s) {
  s->leaving = false;
  for (uint32_t i = 0; i < s->disk_count; i++) {
    struct disk *d = s->disks[i];
    if (d->client && d->client->state == CLIENT_LEFT) client_go_on(d->client);
    if (!d->client) check(server_listen(s, d) == 0);
  }
}

int sr_vhost_hand_over(struct sr_vhost *vhost, int socket) {
  struct vhost_server *s = server_of(vhost);
  if (!s || socket < 0) return -EINVAL;
  pthread_mutex_lock(&s->control_lock);
  pthread_mutex_lock(&s->lock);
  int r = migrating(s) ? -EBUSY : wait_until_all_left(s);
  if (!r) r = send_all(s, socket);
  if (r) stay(s);
  while (!r && s->disk_count) {
    struct disk *d = s->disks[s->disk_count - 1];
    d->keeps_socket = true;
    disk_take_away(s, d);
    check(catalog_close_block(s->control, d->block) == 0);
    free(d);
  }
  s->leaving = false;
  pthread_mutex_unlock(&s->lock);
  pthread_mutex_unlock(&s->control_lock);
  return r;
}

/* ---- Taking ------------------------------------------------------------------------------------
 */

struct frame {
  uint32_t kind, bytes, fd_count;
  int fds[MESSAGE_FDS_MAX];
  _Alignas(8) char data[];
};
struct sr_vhost_handover {
  struct frame **frames;
  uint32_t count, room;
};

static void free_frame(struct frame *f) {
  for (uint32_t i = 0; f && i < f->fd_count; i++) close_fd(&f->fds[i]);
  free(f);
}

void sr_vhost_handover_free(struct sr_vhost_handover *h) {
  for (uint32_t i = 0; h && i < h->count; i++) free_frame(h->frames[i]);
  if (h) free(h->frames);
  free(h);
}

/* Takes the message's descriptors. */
static int keep(struct sr_vhost_handover *h, struct message *m) {
  if (h->count == h->room) {
    uint32_t room = h->room ? 2 * h->room : 64;
    struct frame **frames = realloc(h->frames, room * sizeof *frames);
    if (!frames) return -ENOMEM;
    h->frames = frames;
    h->room = room;
  }
  struct frame *f = calloc(1, sizeof *f + m->bytes);
  if (!f) return -ENOMEM;
  f->kind = m->request;
  f->bytes = m->bytes;
  f->fd_count = m->fd_count;
  memcpy(f->fds, m->fds, sizeof f->fds);
  memcpy(f->data, m->raw, m->bytes);
  m->fd_count = 0;
  h->frames[h->count++] = f;
  return 0;
}

/* Before it is acknowledged, while the other side can still go on by itself. */
static int check_frame(const struct message *m) {
  const struct handover_disk *disk = (const void *)m->raw;
  uint32_t bytes = 0;
  if (m->request == HANDOVER_DISK) {
    if (m->bytes >= sizeof disk->layout && disk->layout != HANDOVER_LAYOUT) return -ENOTSUP;
    bytes = sizeof *disk;
  } else if (m->request == HANDOVER_CLIENT) {
    bytes = sizeof(struct handover_client);
  } else if (m->request == HANDOVER_REGION) {
    bytes = sizeof(struct handover_region);
  } else if (m->request == HANDOVER_RING) {
    bytes = sizeof(struct handover_ring);
  } else if (m->request == HANDOVER_COUNTS) {
    bytes = sizeof(struct disk_counts);
  } else if (m->request != HANDOVER_END) {
    return -EBADMSG;
  }
  return m->bytes == bytes ? 0 : -EBADMSG;
}

static int receive_all(struct sr_vhost_handover *h, int socket) {
  struct message_reader *reader = calloc(1, sizeof *reader);
  struct message *m = calloc(1, sizeof *m);
  int r = reader && m ? 0 : -ENOMEM;
  bool end = false;
  while (!r && !end) {
    r = message_receive(socket, reader, m);
    if (r == 0) r = -ETIMEDOUT;
    if (r < 0) break;
    end = m->request == HANDOVER_END;
    r = check_frame(m);
    if (!r && !end) r = keep(h, m);
    message_close_fds(m);
  }
  free(reader);
  free(m);
  return r == -ENODATA ? -ECONNRESET : r;
}

int sr_vhost_receive(int socket, struct sr_vhost_handover **handover) {
  struct timeval patience = {.tv_sec = LEAVE_SECONDS + ANSWER_SECONDS};
  char answer = 1;
  if (socket < 0 || !handover) return -EINVAL;
  struct sr_vhost_handover *h = calloc(1, sizeof *h);
  if (!h) return -ENOMEM;
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
  int r = receive_all(h, socket);
  if (!r && send(socket, &answer, 1, MSG_NOSIGNAL) != 1) r = -errno;
  if (r) {
    sr_vhost_handover_free(h);
    return r;
  }
  *handover = h;
  return 0;
}

/* Descriptors of a frame by its bits: fds[i] is -1 where bit i is not set. first: comes always. */
static int spread_fds(struct frame *f, uint32_t bits, bool first, int fds[3]) {
  uint32_t next = 0;
  fds[0] = fds[1] = fds[2] = -1;
  if (first) bits = bits << 1 | 1;
  for (uint32_t i = 0; i < 3; i++) {
    if (!(bits >> i & 1)) continue;
    if (next == f->fd_count) return -EBADMSG;
    fds[i] = f->fds[next];
    f->fds[next++] = -1;
  }
  return next == f->fd_count ? 0 : -EBADMSG;
}

static int resume_disk(struct vhost_server *s, struct frame *f, struct disk **d) {
  struct handover_disk *state = (void *)f->data;
  struct sr_vhost_disk o = SR_VHOST_DISK_INIT;
  char serial[BLK_SERIAL_BYTES + 1] = "";
  if (f->bytes != sizeof *state || f->fd_count != 1) return -EBADMSG;
  if (state->layout != HANDOVER_LAYOUT) return -ENOTSUP;
  state->name[255] = state->volume[255] = state->socket[107] = 0;
  memcpy(serial, state->serial, sizeof state->serial);
  o.volume = state->is_file ? NULL : state->volume;
  o.file = state->is_file ? state->volume : NULL;
  o.socket_fd = f->fds[0];
  o.queues = state->queues;
  o.queue_size = state->queue_size;
  o.read_only = state->read_only;
  o.cache = state->cache;
  o.share = true; /* who shares a volume did so before */
  o.serial = serial;
  int r = disk_attach(s, state->name, &o, d);
  if (r) return r;
  f->fds[0] = -1;
  pthread_mutex_lock(&s->lock);
  (*d)->made_socket = state->made_socket;
  (*d)->connections = state->connections;
  memcpy((*d)->socket, state->socket, sizeof(*d)->socket);
  pthread_mutex_unlock(&s->lock);
  return 0;
}

static int resume_counts(struct disk *d, const struct frame *f) {
  if (!d || d->before || f->bytes != sizeof *d->before) return -EBADMSG;
  d->before = malloc(sizeof *d->before);
  if (!d->before) return -ENOMEM;
  memcpy(d->before, f->data, sizeof *d->before);
  return 0;
}

/* What follows a disk. With the lock. */
static int resume_part(struct disk *d, struct frame *f) {
  struct handover_client *client = (void *)f->data;
  struct handover_region *region = (void *)f->data;
  struct handover_ring *ring = (void *)f->data;
  int fds[3] = {-1, -1, -1}, r;
  switch (f->kind) {
  case HANDOVER_COUNTS:
    return resume_counts(d, f);
  case HANDOVER_CLIENT:
    if (!d || d->client || f->bytes != sizeof *client) return -EBADMSG;
    r = spread_fds(f, client->fds, true, fds);
    if (!r) r = client_adopt(d, client, fds);
    break;
  case HANDOVER_REGION:
    if (!d || !d->client || f->bytes != sizeof *region || f->fd_count != 1) return -EBADMSG;
    return memory_add(&d->client->memory, region->guest, region->user, region->bytes,
                      region->file_offset, f->fds[0]);
  case HANDOVER_RING:
    if (!d || !d->client || f->bytes != sizeof *ring) return -EBADMSG;
    r = spread_fds(f, ring->fds, false, fds);
    if (!r) r = client_adopt_ring(d->client, ring, fds);
    break;
  default:
    return -EBADMSG;
  }
  for (int i = 0; i < 3; i++) close_fd(&fds[i]);
  return r;
}

static void start_client(struct vhost_server *s, struct disk *d, int error) {
  pthread_mutex_lock(&s->lock);
  if (d && d->client && error) client_forget(d->client);
  if (d && d->client) client_go_on(d->client);
  pthread_mutex_unlock(&s->lock);
}

int sr_vhost_resume(struct sr_vhost *vhost, struct sr_vhost_handover *h) {
  struct vhost_server *s = server_of(vhost);
  struct disk *d = NULL;
  int first = 0, error = 0;
  if (!s || !h) return -EINVAL;
  pthread_mutex_lock(&s->control_lock);
  for (uint32_t i = 0; i < h->count; i++) {
    struct frame *f = h->frames[i];
    if (f->kind == HANDOVER_DISK) {
      start_client(s, d, error);
      d = NULL;
      error = resume_disk(s, f, &d);
    } else if (!error) {
      pthread_mutex_lock(&s->lock);
      error = resume_part(d, f);
      pthread_mutex_unlock(&s->lock);
    }
    if (error && !first) first = error;
  }
  start_client(s, d, error);
  pthread_mutex_unlock(&s->control_lock);
  sr_vhost_handover_free(h);
  return first;
}
