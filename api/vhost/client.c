/* client.c - one monitor's connection: what its messages mean. The server's thread, under its lock.
 *
 * Every message is carried out in the same three steps: the rings that it concerns are halted, so
 * that nothing of theirs runs on a core; it is applied; rings that can run are started, and the
 * monitor gets its answer. Halting and starting are calls to cores, so a client waits in between,
 * and reads no other message. Nothing here believes a number from a message before it is checked.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/vhost/handover.h"

/* ---- Rings ------------------------------------------------------------------------------------
 */

static bool can_run(const struct client *c, const struct client_ring *r) {
  bool enabled = r->enabled || !has(c->features, VHOST_USER_F_PROTOCOL_FEATURES);
  return r->started && enabled && r->has_address && r->size;
}

/* Memory that queue.put and queue.again need, and slots: kept from one connection to the next. */
static int make_room(struct disk_queue *q, uint32_t size) {
  if (q->heads_size == size) return 0;
  uint16_t *heads = malloc(3 * size * sizeof *heads);
  q->queue.ring.size = (uint16_t)size;
  int r = heads ? queue_make_slots(&q->queue) : -ENOMEM;
  if (r) {
    free(heads);
    return r;
  }
  free(q->heads);
  free(q->packed);
  q->heads = heads;
  q->heads_size = size;
  q->packed = NULL;
  return 0;
}

/* What a packed ring needs besides, for each descriptor. */
struct packed_room {
  struct vring_packed_desc copy;
  struct inflight_link link;
  struct ring_id id;
};
static struct vring_packed_desc *room_copies(struct disk_queue *q) { return (void *)q->packed; }
static struct inflight_link *room_links(struct disk_queue *q) {
  return (void *)(room_copies(q) + q->heads_size);
}
static struct ring_id *room_ids(struct disk_queue *q) {
  return (void *)(room_links(q) + q->heads_size);
}

static int map_ring(struct client *c, struct disk_queue *q, const struct client_ring *r) {
  struct vring *ring = &q->queue.ring;
  const struct message_vring_addr *a = &r->address;
  uint16_t size = (uint16_t)r->size, first = RING_POSITION_FIRST;
  if (!has(c->features, VIRTIO_F_RING_PACKED))
    return ring_map(ring, &c->memory, size, a->desc_user, a->avail_user, a->used_user,
                    r->last_avail);
  if (!q->packed) q->packed = calloc(size, sizeof *q->packed);
  if (!q->packed) return -ENOMEM;
  return ring_map_packed(ring, &c->memory, size, a->desc_user, a->avail_user, a->used_user,
                         r->has_base ? r->last_avail : first, r->has_base ? r->next_used : first,
                         room_ids(q));
}

static int begin_inflight(struct client *c, uint32_t i) {
  struct disk_queue *q = &c->disk->queues[i];
  struct vring *ring = &q->queue.ring;
  uint16_t *put = q->heads, *again = q->heads + 2 * q->heads_size;
  uint64_t bytes = inflight_queue_bytes(c->inflight_size, ring->packed);
  void *region = NULL;
  if (c->inflight && i < c->inflight_queues && c->inflight_size == q->heads_size)
    region = (char *)c->inflight + i * bytes;
  if (region && c->inflight_queues * bytes > c->inflight_mapped) return -EBADMSG;
  int n = ring->packed ? inflight_begin_packed(&q->queue.inflight, region, put, ring, again,
                                               room_copies(q), room_links(q))
                       : inflight_begin(&q->queue.inflight, region, put, ring, again);
  q->queue.again = again;
  q->queue.again_count = n > 0 ? (uint32_t)n : 0;
  return n < 0 ? n : 0;
}

static int start_ring(struct client *c, uint32_t i) {
  struct client_ring *r = &c->rings[i];
  struct disk *d = c->disk;
  struct disk_queue *q = &d->queues[i];
  int e = make_room(q, r->size);
  if (!e) e = map_ring(c, q, r);
  if (!e) e = begin_inflight(c, i);
  if (e) {
    ring_unmap(&q->queue.ring);
    return e;
  }
  q->queue.ring.event_idx = has(c->features, VIRTIO_F_EVENT_IDX);
  q->queue.ring.indirect = has(c->features, VIRTIO_F_INDIRECT_DESC);
  q->queue.memory = &c->memory;
  q->queue.kick.fd = r->kick_fd;
  q->queue.call_fd = r->call_fd;
  q->queue.log = has(c->features, VHOST_F_LOG_ALL) && c->log.bits ? &c->log : NULL;
  q->queue.used_guest = r->address.flags & 1 ? r->address.log_guest : UINT64_MAX;
  /* A driver that does not know of flushes believes that what completed is safe. */
  q->queue.write_through = d->cache == SR_VHOST_WRITE_THROUGH || !has(c->features, BLK_F_FLUSH);
  q->queue.ephemeral = d->cache == SR_VHOST_EPHEMERAL;
  atomic_store(&q->why, NULL);
  r->running = true;
  c->calls++;
  if (!c->active) server_event(d, SR_VHOST_ACTIVE, "the first queue runs");
  c->active = true;
  server_call(d->server, q, queue_start);
  return 0;
}

/* All that can run and do not. */
static int start_rings(struct client *c) {
  int result = 0;
  for (uint32_t i = 0; i < c->disk->blk.queues && !result; i++)
    if (can_run(c, &c->rings[i]) && !c->rings[i].running) result = start_ring(c, i);
  return result;
}

static void halt_ring(struct client *c, uint32_t i) {
  if (!c->rings[i].running) return;
  c->calls++;
  server_call(c->disk->server, &c->disk->queues[i], queue_stop);
}

static void halt_rings(struct client *c) {
  for (uint32_t i = 0; i < c->disk->blk.queues; i++) halt_ring(c, i);
}

/* ---- A message's three steps --------------------------------------------------------------------
 */

/* 0, or why the connection is of no use any more. */
static int send_answer(struct client *c) {
  struct message *m = &c->message;
  bool own = client_answers(m->request);
  bool ack = has(c->protocol, VHOST_PF_REPLY_ACK) && m->flags & MESSAGE_NEED_REPLY;
  if (!own && !ack) return c->result == -EOPNOTSUPP ? 0 : c->result;
  if (own && c->result < 0 && m->request != VHOST_GET_CONFIG) return c->result;
  if (own && c->result < 0) m->bytes = 0; /* a configuration's failure */
  if (!own) {
    m->bytes = 8;
    m->u64 = c->result < 0;
  } else if (m->request != VHOST_GET_CONFIG && m->request != VHOST_GET_INFLIGHT_FD) {
    m->bytes = 8;
  }
  if (m->request != VHOST_GET_INFLIGHT_FD) message_close_fds(m); /* what it brought */
  m->flags = MESSAGE_VERSION | MESSAGE_REPLY;
  return message_send(c->source.fd, m);
}

static void wait_readable(struct client *c) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT,
                              .data.ptr = &c->source};
  c->state = CLIENT_IDLE;
  check(epoll_ctl(c->disk->server->epoll_fd, EPOLL_CTL_MOD, c->source.fd, &event) == 0);
}

static void finish_message(struct client *c) {
  const char *name = message_name(c->message.request);
  int failed = c->result, r = send_answer(c);
  message_close_fds(&c->message);
  if (r == 0) {
    wait_readable(c);
    return;
  }
  char why[128];
  snprintf(why, sizeof why, "%s: %s", name, strerror(failed < 0 ? -failed : -r));
  client_close(c, why);
}

static void apply_and_start(struct client *c) {
  c->result = client_apply(c);
  int r = start_rings(c);
  if (c->result == 0) c->result = r;
  c->state = CLIENT_RUNNING;
  if (!c->calls) finish_message(c);
}

static void begin_message(struct client *c) {
  uint64_t index;
  enum halt halt = client_halts(&c->message, &index);
  c->state = CLIENT_HALTING;
  if (halt == HALT_ALL) halt_rings(c);
  if (halt == HALT_ONE && client_ring_at(c, index)) halt_ring(c, (uint32_t)index);
  if (!c->calls) apply_and_start(c);
}

void client_readable(struct client *c) {
  if (c->state != CLIENT_IDLE) return;
  int r = message_receive(c->source.fd, &c->reader, &c->message);
  if (r > 0) {
    begin_message(c);
  } else if (r == 0) {
    wait_readable(c);
  } else if (r == -ENODATA) {
    client_close(c, NULL);
  } else {
    char why[128];
    snprintf(why, sizeof why, "a malformed message, or the connection broke: %s", strerror(-r));
    client_close(c, why);
  }
}

/* ---- Life -------------------------------------------------------------------------------------
 */

void client_forget(struct client *c) {
  struct disk *d = c->disk;
  for (uint32_t i = 0; i < d->blk.queues; i++) {
    client_reset_ring(&c->rings[i]);
    /* What nobody has looked at yet is not the next client's fault. */
    atomic_store(&d->queues[i].why, NULL);
  }
  client_drop_inflight(c);
  dirty_unmap(&c->log);
  close_fd(&c->state_fd);
  memory_clear(&c->memory);
  message_close_fds(&c->message);
  message_close_fds(&c->reader.message);
  close_fd(&c->backend_fd);
  close_fd(&c->source.fd);
  d->client = NULL;
  free(c);
  if (!d->closing) check(server_listen(d->server, d) == 0);
}

void client_called(struct client *c, struct disk_queue *q) {
  struct client_ring *r = &c->rings[q->index];
  core_call_fn *fn;
  memcpy(&fn, &q->call.work, sizeof fn);
  if (fn == queue_stop || q->call.result < 0) {
    r->running = false;
    r->last_avail = q->queue.ring.last_avail;
    r->next_used = q->queue.ring.next_used;
    r->has_base = true;
    ring_unmap(&q->queue.ring);
  }
  if (fn == queue_start && q->call.result < 0) {
    c->result = (int)q->call.result;
    r->started = false;
  }
  if (--c->calls) return;
  switch (c->state) {
  case CLIENT_HALTING:
    apply_and_start(c);
    break;
  case CLIENT_RUNNING:
    finish_message(c);
    break;
  case CLIENT_CLOSING: /* those that were being started, too */
    halt_rings(c);
    if (!c->calls) client_forget(c);
    break;
  case CLIENT_LEAVING:
    c->state = CLIENT_LEFT;
    if (!c->disk->server->leaving) client_go_on(c); /* too late: they have all stayed */
    break;
  default:
    break;
  }
}

void client_close(struct client *c, const char *why) {
  if (c->state == CLIENT_CLOSING) return;
  bool busy = c->calls > 0;
  server_event(c->disk, why ? SR_VHOST_DROPPED : SR_VHOST_DISCONNECTED,
               why ? why : "the monitor has gone");
  c->state = CLIENT_CLOSING;
  epoll_ctl(c->disk->server->epoll_fd, EPOLL_CTL_DEL, c->source.fd, NULL);
  shutdown(c->source.fd, SHUT_RDWR);
  if (busy) return; /* the calls under way come back first */
  halt_rings(c);
  if (!c->calls) client_forget(c);
}

void client_queue_broke(struct client *c, struct disk_queue *q, const char *why) {
  struct client_ring *r = &c->rings[q->index];
  char text[128];
  if (r->error_fd >= 0) notifier_call(&c->disk->server->notifier, r->error_fd);
  snprintf(text, sizeof text, "queue %u: %s", q->index, why);
  client_close(c, text);
}

/* queue.failed: on the core's thread. */
static void queue_failed(struct queue *queue, const char *why) {
  struct disk_queue *q = container_of(queue, struct disk_queue, queue);
  atomic_store(&q->why, why);
  server_wake(container_of(queue->disk, struct disk, blk)->server);
}

static int make_queues(struct disk *d) {
  struct vhost_server *s = d->server;
  if (d->queues) return 0;
  d->queues = calloc(d->blk.queues, sizeof d->queues[0]);
  if (!d->queues) return -ENOMEM;
  for (uint32_t i = 0; i < d->blk.queues; i++) {
    struct disk_queue *q = &d->queues[i];
    uint32_t core = d->block->parts[i % d->block->part_count].core;
    q->index = i;
    q->queue.core = &s->store->cores[core];
    q->queue.home = s->homes[core];
    q->queue.block = d->block;
    q->queue.disk = &d->blk;
    q->queue.failed = queue_failed;
    q->queue.kick.fd = q->queue.call_fd = -1;
  }
  return 0;
}

/* The descriptor is taken, or closed. */
static int make_client(struct disk *d, int fd) {
  struct client *c = calloc(1, sizeof *c);
  struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP | EPOLLONESHOT};
  int r = c ? make_queues(d) : -ENOMEM;
  if (!r) {
    event.data.ptr = &c->source;
    if (epoll_ctl(d->server->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) r = -errno;
  }
  if (r) {
    free(c);
    close(fd);
    return r;
  }
  c->source = (struct source){SOURCE_CLIENT, fd};
  c->disk = d;
  c->backend_fd = c->inflight_fd = c->state_fd = -1;
  c->since_ns = clock_now_ns(&d->server->store->clock);
  for (uint32_t i = 0; i < VHOST_QUEUES_MAX; i++)
    c->rings[i].kick_fd = c->rings[i].call_fd = c->rings[i].error_fd = -1;
  d->client = c;
  return 0;
}

int client_open(struct disk *d, int fd) {
  int r = make_client(d, fd);
  if (r) return r;
  d->connections++;
  server_event(d, SR_VHOST_CONNECTED, "a monitor");
  return 0;
}

/* ---- From one process to the next
 * ----------------------------------------------------------------
 */

bool client_leave(struct client *c) {
  if (c->state == CLIENT_IDLE && c->reader.got == 0) {
    check(epoll_ctl(c->disk->server->epoll_fd, EPOLL_CTL_DEL, c->source.fd, NULL) == 0);
    c->state = CLIENT_LEAVING;
    halt_rings(c);
    if (!c->calls) c->state = CLIENT_LEFT;
  }
  return c->state == CLIENT_LEFT;
}

void client_go_on(struct client *c) {
  struct epoll_event event = {.events = 0, .data.ptr = &c->source};
  check(epoll_ctl(c->disk->server->epoll_fd, EPOLL_CTL_ADD, c->source.fd, &event) == 0);
  c->message = (struct message){.request = 0};
  c->result = start_rings(c);
  c->state = CLIENT_RUNNING;
  if (!c->calls) finish_message(c);
}

int client_adopt(struct disk *d, const struct handover_client *state, int fds[3]) {
  int r = make_client(d, fds[0]);
  fds[0] = -1;
  if (r) return r;
  struct client *c = d->client;
  check(epoll_ctl(d->server->epoll_fd, EPOLL_CTL_DEL, c->source.fd, NULL) == 0);
  c->state = CLIENT_LEFT;
  c->features = state->features;
  c->protocol = state->protocol;
  c->active = state->active;
  d->blk.writeback = state->writeback;
  d->blk.align_bytes = has(c->features, BLK_F_BLK_SIZE) ? d->blk.block_bytes : 512;
  c->backend_fd = fds[1];
  fds[1] = -1;
  if (fds[2] < 0) return 0;
  int fd = fds[2];
  fds[2] = -1;
  return client_map_inflight(c, fd, state->inflight_offset, UINT64_MAX, state->inflight_queues,
                             state->inflight_size);
}

int client_adopt_ring(struct client *c, const struct handover_ring *ring, int fds[3]) {
  struct client_ring *r = client_ring_at(c, ring->index);
  if (!r || r->kick_fd >= 0) return -EBADMSG;
  *r = (struct client_ring){.size = ring->size,
                            .last_avail = (uint16_t)ring->last_avail,
                            .next_used = (uint16_t)ring->next_used,
                            .has_base = ring->has_base,
                            .has_address = ring->has_address,
                            .started = ring->started,
                            .enabled = ring->enabled,
                            .address = ring->address,
                            .kick_fd = fds[0],
                            .call_fd = fds[1],
                            .error_fd = fds[2]};
  fds[0] = fds[1] = fds[2] = -1;
  return 0;
}
