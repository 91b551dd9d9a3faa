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

#include "api/vhost/server.h"

#define PROTOCOL_FEATURES                                                                          \
  (UINT64_C(1) << VHOST_PF_MQ | UINT64_C(1) << VHOST_PF_REPLY_ACK |                                \
   UINT64_C(1) << VHOST_PF_BACKEND_REQ | UINT64_C(1) << VHOST_PF_CONFIG |                          \
   UINT64_C(1) << VHOST_PF_INFLIGHT_SHMFD | UINT64_C(1) << VHOST_PF_CONFIGURE_MEM_SLOTS |          \
   UINT64_C(1) << VHOST_PF_RESET_DEVICE)

static bool has(uint64_t bits, unsigned number) { return bits >> number & 1; }

static void close_fd(int *fd) {
  if (*fd >= 0) close(*fd);
  *fd = -1;
}

/* Takes the message's descriptor number i; -1: it brought none. */
static int take_fd(struct client *c, uint32_t i) {
  if (i >= c->message.fd_count) return -1;
  int fd = c->message.fds[i];
  c->message.fds[i] = -1;
  return fd;
}

/* ---- Features ---------------------------------------------------------------------------------
 */

static uint64_t offered(const struct client *c) {
  uint64_t features = blk_features(&c->disk->blk, true);
  if (!c->disk->discards) features &= ~(UINT64_C(1) << BLK_F_DISCARD);
  return features;
}

static int set_features(struct client *c) {
  if (c->message.u64 & ~offered(c)) return -EINVAL;
  c->features = c->message.u64;
  /* A driver that does not know of flushes believes that what completed is safe. */
  __atomic_store_n(&c->disk->blk.writeback, has(c->features, BLK_F_FLUSH), __ATOMIC_RELAXED);
  return 0;
}

static int set_protocol_features(struct client *c) {
  /* A monitor may acknowledge what it was not offered; that does not make it so. */
  c->protocol = c->message.u64 & PROTOCOL_FEATURES;
  return 0;
}

/* ---- Rings ------------------------------------------------------------------------------------
 */

static struct client_ring *ring_at(struct client *c, uint64_t index) {
  return index < c->disk->blk.queues ? &c->rings[index] : NULL;
}

static void reset_ring(struct client_ring *r) {
  close_fd(&r->kick_fd);
  close_fd(&r->call_fd);
  close_fd(&r->error_fd);
  *r = (struct client_ring){.kick_fd = -1, .call_fd = -1, .error_fd = -1};
}

static bool can_run(const struct client *c, const struct client_ring *r) {
  bool enabled = r->enabled || !has(c->features, VHOST_USER_F_PROTOCOL_FEATURES);
  return r->started && enabled && r->has_address && r->size;
}

/* Memory that queue.put and queue.again need, and slots: kept from one connection to the next. */
static int make_room(struct disk_queue *q, uint32_t size) {
  if (q->heads_size == size) return 0;
  uint16_t *heads = malloc(2 * size * sizeof *heads);
  q->queue.ring.size = (uint16_t)size;
  int r = heads ? queue_make_slots(&q->queue) : -ENOMEM;
  if (r) {
    free(heads);
    return r;
  }
  free(q->heads);
  q->heads = heads;
  q->heads_size = size;
  return 0;
}

static int begin_inflight(struct client *c, uint32_t i) {
  struct disk_queue *q = &c->disk->queues[i];
  struct inflight_queue *region = NULL;
  if (c->inflight && i < c->inflight_queues && c->inflight_size == q->heads_size)
    region = (void *)((char *)c->inflight + i * inflight_queue_bytes(c->inflight_size));
  int n = inflight_begin(&q->queue.inflight, region, q->heads, &q->queue.ring,
                         q->heads + q->heads_size);
  q->queue.again = q->heads + q->heads_size;
  q->queue.again_count = n > 0 ? (uint32_t)n : 0;
  return n < 0 ? n : 0;
}

static int start_ring(struct client *c, uint32_t i) {
  struct client_ring *r = &c->rings[i];
  struct disk *d = c->disk;
  struct disk_queue *q = &d->queues[i];
  int e = make_room(q, r->size);
  if (!e)
    e = ring_map(&q->queue.ring, &c->memory, (uint16_t)r->size, r->address.desc_user,
                 r->address.avail_user, r->address.used_user, r->last_avail);
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
  q->queue.write_through = d->cache == SR_VHOST_WRITE_THROUGH;
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

/* ---- Messages: the queues ----------------------------------------------------------------------
 */

static int set_size(struct client *c, struct client_ring *r) {
  uint32_t size = c->message.state.num;
  if (!size || size > c->disk->blk.queue_size_max || (size & (size - 1))) return -EINVAL;
  r->size = size;
  return 0;
}

static int set_base(struct client *c, struct client_ring *r) {
  if (c->message.state.num > UINT16_MAX) return -EINVAL;
  r->last_avail = (uint16_t)c->message.state.num;
  return 0;
}

static int set_address(struct client *c, struct client_ring *r) {
  if (c->message.addr.flags) return -EOPNOTSUPP; /* a log of used rings */
  r->address = c->message.addr;
  r->has_address = true;
  return 0;
}

static int set_enabled(struct client *c, struct client_ring *r) {
  if (c->message.state.num > 1) return -EINVAL;
  r->enabled = c->message.state.num;
  return 0;
}

/* A descriptor that can be waited for and written without blocking. */
static int take_event_fd(struct client *c, int *to) {
  bool none = c->message.u64 & MESSAGE_VRING_NO_FD;
  int fd = take_fd(c, 0);
  if ((fd < 0) != none) {
    close_fd(&fd);
    return -EINVAL;
  }
  if (fd >= 0) {
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0) {
      close_fd(&fd);
      return -EINVAL;
    }
  }
  close_fd(to);
  *to = fd;
  return 0;
}

static int set_kick(struct client *c, struct client_ring *r) {
  int e = take_event_fd(c, &r->kick_fd);
  if (!e) r->started = true;
  return e;
}

/* ---- Messages: memory ---------------------------------------------------------------------------
 */

static int add_region(struct client *c, const struct message_region *m, uint32_t fd_index) {
  int fd = take_fd(c, fd_index);
  if (fd < 0) return -EINVAL;
  int e = memory_add(&c->memory, m->guest, m->user, m->bytes, m->file_offset, fd);
  close(fd);
  return e;
}

static int set_table(struct client *c) {
  const struct message_mem_table *t = &c->message.table;
  if (t->count > MESSAGE_REGIONS_MAX || t->count != c->message.fd_count) return -EINVAL;
  memory_clear(&c->memory);
  for (uint32_t i = 0; i < t->count; i++) {
    int e = add_region(c, &t->regions[i], i);
    if (e) {
      memory_clear(&c->memory);
      return e;
    }
  }
  return 0;
}

static void drop_inflight(struct client *c) {
  if (!c->inflight) return;
  memory_unguard(c->inflight);
  munmap(c->inflight, c->inflight_mapped);
  c->inflight = NULL;
}

static bool inflight_fits(const struct client *c, const struct message_inflight *m) {
  return m->queues && m->queues <= c->disk->blk.queues && m->queue_size &&
         m->queue_size <= c->disk->blk.queue_size_max && !(m->queue_size & (m->queue_size - 1));
}

/* Answers with a new file, of zeros. */
static int get_inflight(struct client *c) {
  struct message *m = &c->message;
  if (!inflight_fits(c, &m->inflight)) return -EINVAL;
  uint64_t bytes = m->inflight.queues * inflight_queue_bytes(m->inflight.queue_size);
  int fd = memfd_create("shardring-inflight", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return -errno;
  if (ftruncate(fd, (off_t)bytes) < 0) {
    close_fd(&fd);
    return -EIO;
  }
  fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL);
  m->inflight.mmap_bytes = bytes;
  m->inflight.mmap_offset = 0;
  m->fds[0] = fd;
  m->fd_count = 1;
  return 0;
}

static int set_inflight(struct client *c) {
  const struct message_inflight *m = &c->message.inflight;
  struct stat st;
  drop_inflight(c);
  int fd = take_fd(c, 0);
  if (fd < 0) return -EINVAL;
  uint64_t needed = m->queues * inflight_queue_bytes(m->queue_size);
  bool fits = inflight_fits(c, m) && m->mmap_bytes >= needed && m->mmap_offset % 4096 == 0 &&
              fstat(fd, &st) == 0 && m->mmap_offset <= (uint64_t)st.st_size &&
              needed <= (uint64_t)st.st_size - m->mmap_offset;
  void *at = fits
                 ? mmap(NULL, needed, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)m->mmap_offset)
                 : MAP_FAILED;
  close(fd);
  if (at == MAP_FAILED) return -EINVAL;
  if (memory_guard(at, needed, &c->memory.lost) < 0) {
    munmap(at, needed);
    return -ENOMEM;
  }
  c->inflight = at;
  c->inflight_mapped = needed;
  c->inflight_queues = m->queues;
  c->inflight_size = m->queue_size;
  return 0;
}

/* ---- Messages: configuration
 * --------------------------------------------------------------------- */

/* Exactly as many bytes as were asked for, zeros behind what there is; none: an error. */
static int get_config(struct client *c) {
  struct message_config *m = &c->message.config;
  uint8_t config[BLK_CONFIG_BYTES];
  if (m->offset > MESSAGE_CONFIG_MAX || m->bytes > MESSAGE_CONFIG_MAX - m->offset) return -EINVAL;
  blk_config(&c->disk->blk, config);
  memset(m->region, 0, sizeof m->region);
  for (uint32_t i = 0; i < m->bytes && m->offset + i < BLK_CONFIG_BYTES; i++)
    m->region[i] = config[m->offset + i];
  return 0;
}

/* The one byte that a driver may write: its cache on or off. */
static int set_config(struct client *c) {
  const struct message_config *m = &c->message.config;
  if (m->offset != BLK_CONFIG_WRITEBACK || m->bytes != 1 || m->region[0] > 1) return -EINVAL;
  if (!has(c->features, BLK_F_CONFIG_WCE)) return -EINVAL;
  __atomic_store_n(&c->disk->blk.writeback, m->region[0] == 1, __ATOMIC_RELAXED);
  return 0;
}

static int set_backend_fd(struct client *c) {
  int fd = take_fd(c, 0);
  if (fd < 0) return -EINVAL;
  fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
  close_fd(&c->backend_fd);
  c->backend_fd = fd;
  return 0;
}

/* We ask for no answer, so none is read: what a monitor sends there nevertheless fills its own
 * buffer. */
void client_config_changed(struct client *c) {
  struct message m = {.request = VHOST_BACKEND_CONFIG_CHANGE_MSG, .flags = MESSAGE_VERSION};
  if (c->backend_fd >= 0 && has(c->protocol, VHOST_PF_BACKEND_REQ)) message_send(c->backend_fd, &m);
}

/* ---- A message's three steps
 * --------------------------------------------------------------------- */

enum halt { HALT_NONE, HALT_ONE, HALT_ALL };
/* Which rings must not run while it is applied, and which one it is about. */
static enum halt halts(const struct message *m, uint64_t *index) {
  *index = 0;
  switch (m->request) {
  case VHOST_SET_VRING_NUM:
  case VHOST_SET_VRING_BASE:
  case VHOST_GET_VRING_BASE:
  case VHOST_SET_VRING_ENABLE:
    *index = m->state.index;
    return HALT_ONE;
  case VHOST_SET_VRING_ADDR:
    *index = m->addr.index;
    return HALT_ONE;
  case VHOST_SET_VRING_KICK:
  case VHOST_SET_VRING_CALL:
    *index = m->u64 & MESSAGE_VRING_INDEX;
    return HALT_ONE;
  case VHOST_SET_VRING_ERR:
    *index = m->u64 & MESSAGE_VRING_INDEX;
    return HALT_NONE;
  case VHOST_SET_FEATURES:
  case VHOST_SET_MEM_TABLE:
  case VHOST_ADD_MEM_REG:
  case VHOST_REM_MEM_REG:
  case VHOST_SET_INFLIGHT_FD:
  case VHOST_RESET_OWNER:
  case VHOST_RESET_DEVICE:
    return HALT_ALL;
  default:
    return HALT_NONE;
  }
}

static int apply_to_ring(struct client *c, struct client_ring *r) {
  struct message *m = &c->message;
  switch (m->request) {
  case VHOST_SET_VRING_NUM:
    return set_size(c, r);
  case VHOST_SET_VRING_BASE:
    return set_base(c, r);
  case VHOST_SET_VRING_ADDR:
    return set_address(c, r);
  case VHOST_SET_VRING_ENABLE:
    return set_enabled(c, r);
  case VHOST_SET_VRING_KICK:
    return set_kick(c, r);
  case VHOST_SET_VRING_CALL:
    return take_event_fd(c, &r->call_fd);
  case VHOST_SET_VRING_ERR:
    return take_event_fd(c, &r->error_fd);
  default: /* GET_VRING_BASE: it is stopped until the next SET_VRING_KICK */
    r->started = false;
    close_fd(&r->kick_fd);
    m->state.num = r->last_avail;
    return 0;
  }
}

static void reset_device(struct client *c) {
  for (uint32_t i = 0; i < c->disk->blk.queues; i++) reset_ring(&c->rings[i]);
  c->features = 0;
}

static int apply(struct client *c) {
  struct message *m = &c->message;
  uint64_t index;
  switch (m->request) {
  case VHOST_GET_FEATURES:
    m->u64 = offered(c);
    return 0;
  case VHOST_SET_FEATURES:
    return set_features(c);
  case VHOST_GET_PROTOCOL_FEATURES:
    m->u64 = PROTOCOL_FEATURES;
    return 0;
  case VHOST_SET_PROTOCOL_FEATURES:
    return set_protocol_features(c);
  case VHOST_SET_OWNER:
    return 0;
  case VHOST_RESET_OWNER:
  case VHOST_RESET_DEVICE:
    reset_device(c);
    return 0;
  case VHOST_GET_QUEUE_NUM:
    m->u64 = c->disk->blk.queues;
    return 0;
  case VHOST_GET_MAX_MEM_SLOTS:
    m->u64 = MEMORY_SLOTS_MAX;
    return 0;
  case VHOST_SET_MEM_TABLE:
    return set_table(c);
  case VHOST_ADD_MEM_REG:
    return add_region(c, &m->reg.region, 0);
  case VHOST_REM_MEM_REG:
    return memory_remove(&c->memory, m->reg.region.guest, m->reg.region.user, m->reg.region.bytes);
  case VHOST_GET_CONFIG:
    return get_config(c);
  case VHOST_SET_CONFIG:
    return set_config(c);
  case VHOST_GET_INFLIGHT_FD:
    return get_inflight(c);
  case VHOST_SET_INFLIGHT_FD:
    return set_inflight(c);
  case VHOST_SET_BACKEND_REQ_FD:
    return set_backend_fd(c);
  case VHOST_SET_VRING_NUM:
  case VHOST_SET_VRING_BASE:
  case VHOST_GET_VRING_BASE:
  case VHOST_SET_VRING_ADDR:
  case VHOST_SET_VRING_ENABLE:
  case VHOST_SET_VRING_KICK:
  case VHOST_SET_VRING_CALL:
  case VHOST_SET_VRING_ERR:
    halts(m, &index);
    return ring_at(c, index) ? apply_to_ring(c, ring_at(c, index)) : -EINVAL;
  default:
    return -EOPNOTSUPP;
  }
}

static bool answers_itself(uint32_t request) {
  switch (request) {
  case VHOST_GET_FEATURES:
  case VHOST_GET_PROTOCOL_FEATURES:
  case VHOST_GET_QUEUE_NUM:
  case VHOST_GET_MAX_MEM_SLOTS:
  case VHOST_GET_CONFIG:
  case VHOST_GET_INFLIGHT_FD:
  case VHOST_GET_VRING_BASE:
    return true;
  default:
    return false;
  }
}

/* 0, or why the connection is of no use any more. */
static int send_answer(struct client *c) {
  struct message *m = &c->message;
  bool own = answers_itself(m->request);
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
  c->result = apply(c);
  int r = start_rings(c);
  if (c->result == 0) c->result = r;
  c->state = CLIENT_RUNNING;
  if (!c->calls) finish_message(c);
}

static void begin_message(struct client *c) {
  uint64_t index;
  enum halt halt = halts(&c->message, &index);
  c->state = CLIENT_HALTING;
  if (halt == HALT_ALL) halt_rings(c);
  if (halt == HALT_ONE && ring_at(c, index)) halt_ring(c, (uint32_t)index);
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

static void dispose(struct client *c) {
  struct disk *d = c->disk;
  for (uint32_t i = 0; i < d->blk.queues; i++) reset_ring(&c->rings[i]);
  drop_inflight(c);
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
    if (!c->calls) dispose(c);
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
  if (!c->calls) dispose(c);
}

void client_queue_broke(struct client *c, struct disk_queue *q, const char *why) {
  struct client_ring *r = &c->rings[q->index];
  uint64_t one = 1;
  char text[128];
  if (r->error_fd >= 0 && write(r->error_fd, &one, sizeof one) < 0) close_fd(&r->error_fd);
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

int client_open(struct disk *d, int fd) {
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
  c->backend_fd = -1;
  c->since_ns = clock_now_ns(&d->server->store->clock);
  for (uint32_t i = 0; i < VHOST_QUEUES_MAX; i++)
    c->rings[i].kick_fd = c->rings[i].call_fd = c->rings[i].error_fd = -1;
  d->client = c;
  d->connections++;
  d->blk.writeback = false;
  server_event(d, SR_VHOST_CONNECTED, "a monitor");
  return 0;
}
