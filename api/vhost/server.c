/* server.c - the vhost server's thread: sockets, connections, and calls to cores and back.
 *
 * Listening sockets are armed while their disk has no client, clients while they wait for a message
 * (one shot, armed again afterwards), so that an event never comes for something that is busy.
 * What an event points to can be freed by this thread alone, and only after all events of a round.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "api/vhost/server.h"

#define EVENTS_MAX 64

void server_event(const struct disk *d, enum sr_vhost_event_kind kind, const char *what) {
  const struct sr_vhost_options *o = &d->server->options;
  struct sr_vhost_event event = {.kind = kind, .disk = d->name, .what = what};
  if (o->event) o->event(o->event_arg, &event);
}

void server_wake(struct vhost_server *s) {
  uint64_t one = 1;
  ssize_t n = write(s->wake.fd, &one, sizeof one);
  (void)n; /* full: it is readable already */
}

uint32_t server_find(const struct vhost_server *s, const char *name, bool *found) {
  uint32_t low = 0, high = s->disk_count;
  while (low < high) {
    uint32_t middle = (low + high) / 2;
    if (strcmp(s->disks[middle]->name, name) < 0)
      low = middle + 1;
    else
      high = middle;
  }
  *found = low < s->disk_count && strcmp(s->disks[low]->name, name) == 0;
  return low;
}

/* ---- Calls to cores ----------------------------------------------------------------------------
 */

void server_call(struct vhost_server *s, struct disk_queue *q, core_call_fn *fn) {
  q->call = (struct shard_op){.kind = OP_CALL, .buf = &q->queue};
  memcpy(&q->call.work, &fn, sizeof fn);
  /* The port is as deep as there can be queues, and a core with a full mailbox is at work on it. */
  while (port_add(s->port, q->queue.core->index, &q->call) == -EAGAIN) port_send(s->port);
  port_send(s->port);
}

static void take_answers(struct vhost_server *s) {
  struct shard_op *op;
  while (port_drain(s->port))
    while ((op = port_take(s->port))) {
      struct disk_queue *q = container_of(op, struct disk_queue, call);
      struct disk *d = container_of(q->queue.disk, struct disk, blk);
      client_called(d->client, q);
    }
  port_arm(s->port);
}

/* ---- Disks -------------------------------------------------------------------------------------
 */

int server_listen(struct vhost_server *s, struct disk *d) {
  struct epoll_event event = {.events = EPOLLIN | EPOLLONESHOT, .data.ptr = &d->source};
  if (epoll_ctl(s->epoll_fd, EPOLL_CTL_MOD, d->source.fd, &event) == 0) return 0;
  if (errno != ENOENT) return -errno;
  return epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, d->source.fd, &event) < 0 ? -errno : 0;
}

static void accept_client(struct disk *d) {
  if (d->closing || d->client || d->server->leaving) return;
  int fd = accept4(d->source.fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
  int r = fd < 0 ? -errno : client_open(d, fd);
  if (r == 0) return;
  if (r != -EAGAIN && r != -ECONNABORTED)
    log_line(&d->server->store->logger, 1, "vhost: disk %s: a monitor could not connect: %s",
             d->name, strerror(-r));
  check(server_listen(d->server, d) == 0);
}

static void look_at_queues(struct disk *d) {
  for (uint32_t i = 0; d->queues && d->client && i < d->blk.queues; i++) {
    const char *why = atomic_exchange(&d->queues[i].why, NULL);
    if (why) client_queue_broke(d->client, &d->queues[i], why);
  }
}

static void dispose(struct vhost_server *s, uint32_t i) {
  struct disk *d = s->disks[i];
  memmove(&s->disks[i], &s->disks[i + 1], (s->disk_count - i - 1) * sizeof s->disks[0]);
  s->disk_count--;
  epoll_ctl(s->epoll_fd, EPOLL_CTL_DEL, d->source.fd, NULL);
  close(d->source.fd);
  if (d->made_socket && !d->keeps_socket) unlink(d->socket);
  for (uint32_t q = 0; d->queues && q < d->blk.queues; q++) {
    free(d->queues[q].heads);
    free(d->queues[q].packed);
    free(d->queues[q].queue.slots);
  }
  free(d->queues);
  d->queues = NULL;
  free(d->before);
  d->before = NULL;
  d->gone = true; /* whoever closes it has the rest */
  pthread_cond_broadcast(&s->gone);
}

static void close_some(struct vhost_server *s) {
  s->closing_some = false;
  for (uint32_t i = 0; i < s->disk_count;) {
    struct disk *d = s->disks[i];
    if (d->closing && d->client && d->client->state == CLIENT_LEFT)
      client_forget(d->client);
    else if (d->closing && d->client)
      client_close(d->client, "the disk is taken away");
    if (d->closing && !d->client) {
      dispose(s, i);
      continue;
    }
    s->closing_some |= d->closing;
    i++;
  }
}

static void leave_all(struct vhost_server *s) {
  bool left = true;
  for (uint32_t i = 0; i < s->disk_count; i++)
    if (s->disks[i]->client) left &= client_leave(s->disks[i]->client);
  if (left) pthread_cond_broadcast(&s->gone);
}

/* Nanoseconds until a client has taken too long to get its first queue running; -1: nobody can. */
static int64_t drop_late_ones(struct vhost_server *s) {
  uint64_t now = clock_now_ns(&s->store->clock), limit = s->options.activate_ms * UINT64_C(1000000);
  int64_t next = -1;
  for (uint32_t i = 0; limit && i < s->disk_count; i++) {
    struct client *c = s->disks[i]->client;
    if (!c || c->active || c->state == CLIENT_CLOSING) continue;
    if (now - c->since_ns >= limit) {
      client_close(c, "it did not set up a queue in time");
      continue;
    }
    int64_t left = (int64_t)(limit - (now - c->since_ns));
    if (next < 0 || left < next) next = left;
  }
  return next;
}

/* ---- The thread
 * ---------------------------------------------------------------------------------- */

static void handle(struct vhost_server *s, struct source *source) {
  uint64_t count;
  switch (source->kind) {
  case SOURCE_WAKE:
    s->woken = read(s->wake.fd, &count, sizeof count) > 0;
    break;
  case SOURCE_DISK:
    accept_client(container_of(source, struct disk, source));
    break;
  case SOURCE_CLIENT:
    client_readable(container_of(source, struct client, source));
    break;
  case SOURCE_PORT: /* as with what has woken us: after all events, since it may free what others
                       point to */
    break;
  }
}

void *server_main(void *arg) {
  struct vhost_server *s = arg;
  struct epoll_event events[EVENTS_MAX];
  int64_t timeout_ns = -1;
  sigset_t pipes; /* monitors give us ends of them */
  sigemptyset(&pipes);
  sigaddset(&pipes, SIGPIPE);
  pthread_sigmask(SIG_BLOCK, &pipes, NULL);
  pthread_mutex_lock(&s->lock);
  while (!s->stop || s->disk_count) {
    int timeout_ms = timeout_ns < 0 ? -1 : (int)min_u64((uint64_t)timeout_ns / 1000000 + 1, 60000);
    pthread_mutex_unlock(&s->lock);
    int n = epoll_wait(s->epoll_fd, events, EVENTS_MAX, timeout_ms);
    pthread_mutex_lock(&s->lock);
    for (int i = 0; i < n; i++) handle(s, events[i].data.ptr);
    take_answers(s);
    for (uint32_t i = 0; s->woken && i < s->disk_count; i++) look_at_queues(s->disks[i]);
    s->woken = false;
    timeout_ns = drop_late_ones(s);
    if (s->leaving) leave_all(s);
    if (s->closing_some) close_some(s);
  }
  pthread_mutex_unlock(&s->lock);
  return NULL;
}

static int watch(struct vhost_server *s, struct source *source) {
  struct epoll_event event = {.events = EPOLLIN, .data.ptr = source};
  return epoll_ctl(s->epoll_fd, EPOLL_CTL_ADD, source->fd, &event) < 0 ? -errno : 0;
}

int server_start(struct vhost_server *s) {
  s->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
  s->wake = (struct source){SOURCE_WAKE, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)};
  if (s->epoll_fd < 0 || s->wake.fd < 0) return -errno;
  s->port->fd_used = true;
  port_arm(s->port);
  s->port_source = (struct source){SOURCE_PORT, s->port->event_fd};
  int r = watch(s, &s->wake);
  if (!r) r = watch(s, &s->port_source);
  return r ? r : -pthread_create(&s->thread, NULL, server_main, s);
}
