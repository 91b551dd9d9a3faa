/* front.c - a monitor's side of vhost-user-blk: connecting, negotiating, sharing memory and
 * rings, in the order in which QEMU does it (CALL before the memory, SET_FEATURES twice).
 *
 * One thread. Invariants: once REPLY_ACK is negotiated every message is acknowledged before the
 * next one goes out; without it the answer to a GET afterwards shows that all was taken. */
#include "api/vhost/front.h"

#include <errno.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define PAGE           4096u
#define GUEST_BASE     UINT64_C(0x40000000)
#define REPLY_SECONDS  10
#define CONNECT_NAP_MS 2
#define BIT(n)         (UINT64_C(1) << (n))

#define FEATURES_WANTED                                                                            \
  (BIT(VIRTIO_F_VERSION_1) | BIT(VHOST_USER_F_PROTOCOL_FEATURES) | BIT(VIRTIO_F_EVENT_IDX) |       \
   BIT(VIRTIO_F_INDIRECT_DESC) | BIT(BLK_F_SIZE_MAX) | BIT(BLK_F_SEG_MAX) | BIT(BLK_F_RO) |        \
   BIT(BLK_F_BLK_SIZE) | BIT(BLK_F_FLUSH) | BIT(BLK_F_TOPOLOGY) | BIT(BLK_F_CONFIG_WCE) |          \
   BIT(BLK_F_MQ) | BIT(BLK_F_DISCARD) | BIT(BLK_F_WRITE_ZEROES) | BIT(VIRTIO_F_RING_PACKED))
#define PROTOCOL_WANTED                                                                            \
  (BIT(VHOST_PF_MQ) | BIT(VHOST_PF_REPLY_ACK) | BIT(VHOST_PF_CONFIG) | BIT(VHOST_PF_BACKEND_REQ) | \
   BIT(VHOST_PF_INFLIGHT_SHMFD) | BIT(VHOST_PF_CONFIGURE_MEM_SLOTS))

static int fail(struct vfront *f, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4), cold));
static int fail(struct vfront *f, int error, const char *format, ...) {
  va_list ap;
  va_start(ap, format);
  vsnprintf(f->why, sizeof(f->why), format, ap);
  va_end(ap);
  return error;
}

static bool has_protocol(const struct vfront *f, int bit) { return f->protocol >> bit & 1; }

/* ---- Messages ------------------------------------------------------------------------------- */

struct message vfront_message(uint32_t request, uint32_t bytes) {
  return (struct message){.request = request, .flags = MESSAGE_VERSION, .bytes = bytes};
}

static int receive_answer(struct vfront *f, uint32_t request) {
  int r = message_receive(f->fd, &f->reader, &f->message);
  if (r == 0) return fail(f, -ETIMEDOUT, "no answer to %s", message_name(request));
  if (r == -ENODATA) r = -ECONNRESET;
  if (r < 0) return fail(f, r, "answer to %s: %s", message_name(request), strerror(-r));
  if (f->message.request == request) return 0;
  message_close_fds(&f->message);
  return fail(f, -EPROTO, "%s was answered with %s", message_name(request),
              message_name(f->message.request));
}

int vfront_ask(struct vfront *f, struct message *m, bool answer) {
  bool acknowledged = !answer && has_protocol(f, VHOST_PF_REPLY_ACK);
  if (acknowledged) m->flags |= MESSAGE_NEED_REPLY;
  int r = message_send(f->fd, m);
  if (r < 0) return fail(f, r, "%s: %s", message_name(m->request), strerror(-r));
  if (!answer && !acknowledged) return 0;
  r = receive_answer(f, m->request);
  if (r < 0 || answer) return r;
  message_close_fds(&f->message);
  if (f->message.u64 == 0) return 0;
  return fail(f, -EPROTO, "%s was refused (%llu)", message_name(m->request),
              (unsigned long long)f->message.u64);
}

static int get_u64(struct vfront *f, uint32_t request, uint64_t *value) {
  struct message m = vfront_message(request, 0);
  int r = vfront_ask(f, &m, true);
  *value = f->message.u64;
  return r;
}

static int set_u64(struct vfront *f, uint32_t request, uint64_t value) {
  struct message m = vfront_message(request, sizeof(m.u64));
  m.u64 = value;
  return vfront_ask(f, &m, false);
}

static int set_state(struct vfront *f, uint32_t request, uint32_t index, uint32_t num) {
  struct message m = vfront_message(request, sizeof(m.state));
  m.state = (struct message_vring_state){index, num};
  return vfront_ask(f, &m, false);
}

static int set_fd(struct vfront *f, uint32_t request, uint32_t index, int fd) {
  struct message m = vfront_message(request, sizeof(m.u64));
  m.u64 = index;
  m.fds[0] = fd;
  m.fd_count = 1;
  return vfront_ask(f, &m, false);
}

static int set_nothing(struct vfront *f, uint32_t request) {
  struct message m = vfront_message(request, 0);
  return vfront_ask(f, &m, false);
}

/* Without acknowledgements: an answer shows that what went before was read, and accepted. */
static int settle(struct vfront *f) {
  uint64_t features;
  if (has_protocol(f, VHOST_PF_REPLY_ACK)) return 0;
  int r = get_u64(f, VHOST_GET_FEATURES, &features);
  if (r == 0 && features != f->offered)
    return fail(f, -EPROTO, "other features are offered than before");
  return r;
}

/* ---- Connecting and negotiating ------------------------------------------------------------- */

static uint64_t now_ms(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000 + (uint64_t)t.tv_nsec / 1000000;
}

static int connect_once(struct vfront *f) {
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  memcpy(a.sun_path, f->socket, sizeof(a.sun_path));
  f->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (f->fd < 0) return -errno;
  if (connect(f->fd, (struct sockaddr *)&a, sizeof(a)) == 0) return 0;
  int error = -errno;
  close(f->fd);
  f->fd = -1;
  return error;
}

static int connect_front(struct vfront *f, uint32_t connect_ms) {
  uint64_t end = now_ms() + connect_ms;
  const struct timespec nap = {.tv_nsec = CONNECT_NAP_MS * 1000000};
  const struct timeval patience = {.tv_sec = REPLY_SECONDS};
  int r;
  while ((r = connect_once(f)) == -ENOENT || r == -ECONNREFUSED) {
    if (now_ms() >= end) break;
    nanosleep(&nap, NULL);
  }
  if (r < 0) return fail(f, r, "%s: %s", f->socket, strerror(-r));
  setsockopt(f->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  f->reader = (struct message_reader){.kind = MESSAGE_REPLIES};
  f->protocol = 0;
  return 0;
}

static int negotiate_protocol(struct vfront *f) {
  uint64_t offered, before = f->protocol_first;
  int r = get_u64(f, VHOST_GET_PROTOCOL_FEATURES, &offered);
  if (r < 0) return r;
  uint64_t wanted = offered & PROTOCOL_WANTED & ~f->o.protocol_off;
  if (before && (wanted & before) != before)
    return fail(f, -EPROTO, "the next server lacks protocol features 0x%llx",
                (unsigned long long)(before & ~wanted));
  if (before) wanted = before;
  r = set_u64(f, VHOST_SET_PROTOCOL_FEATURES, wanted);
  f->protocol = f->protocol_first = wanted;
  f->queues_max = 1;
  if (r == 0 && has_protocol(f, VHOST_PF_MQ)) r = get_u64(f, VHOST_GET_QUEUE_NUM, &f->queues_max);
  if (r == 0 && f->o.queues > f->queues_max)
    return fail(f, -ENOTSUP, "the server has %llu queues, %u are asked for",
                (unsigned long long)f->queues_max, f->o.queues);
  return r;
}

static int open_backend_channel(struct vfront *f) {
  int s[2];
  if (!has_protocol(f, VHOST_PF_BACKEND_REQ)) return 0;
  if (f->backend_fd >= 0) close(f->backend_fd);
  f->backend_fd = -1;
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, s) < 0) return -errno;
  struct message m = vfront_message(VHOST_SET_BACKEND_REQ_FD, 0);
  m.fds[0] = s[1];
  m.fd_count = 1;
  f->backend_fd = s[0];
  f->backend_reader = (struct message_reader){.kind = MESSAGE_BACKEND_REQUESTS};
  int r = vfront_ask(f, &m, false);
  close(s[1]);
  return r;
}

static int negotiate(struct vfront *f) {
  uint64_t before = f->features;
  int r = get_u64(f, VHOST_GET_FEATURES, &f->offered);
  if (r < 0) return r;
  uint64_t wanted = f->offered & FEATURES_WANTED & ~f->o.features_off;
  if (!f->o.packed) wanted &= ~BIT(VIRTIO_F_RING_PACKED);
  if (!(wanted & BIT(VIRTIO_F_VERSION_1)))
    return fail(f, -ENOTSUP, "the server does not offer VERSION_1");
  if (f->o.packed && !(wanted & BIT(VIRTIO_F_RING_PACKED)))
    return fail(f, -ENOTSUP, "the server does not offer packed rings");
  if (before && (wanted & before) != before)
    return fail(f, -EPROTO, "the next server lacks features 0x%llx",
                (unsigned long long)(before & ~wanted));
  f->features = before ? before : wanted;
  r = set_nothing(f, VHOST_SET_OWNER);
  if (r == 0 && f->features & BIT(VHOST_USER_F_PROTOCOL_FEATURES)) r = negotiate_protocol(f);
  if (r == 0 && !has_protocol(f, VHOST_PF_CONFIG))
    return fail(f, -ENOTSUP, "the server does not offer CONFIG");
  if (r == 0) r = open_backend_channel(f);
  if (r == 0) r = set_u64(f, VHOST_SET_FEATURES, f->features);
  return r;
}

/* ---- Configuration -------------------------------------------------------------------------- */

static uint32_t config_u32(const struct vfront *f, uint32_t at) {
  uint32_t v;
  memcpy(&v, f->config + at, sizeof(v));
  return v;
}

int vfront_config(struct vfront *f) {
  struct message m = vfront_message(VHOST_GET_CONFIG, 12 + BLK_CONFIG_BYTES);
  uint64_t sectors;
  m.config.bytes = BLK_CONFIG_BYTES;
  int r = vfront_ask(f, &m, true);
  if (r < 0) return r;
  if (f->message.bytes != m.bytes || f->message.config.bytes != BLK_CONFIG_BYTES ||
      f->message.config.offset != 0)
    return fail(f, -EPROTO, "GET_CONFIG: asked for %u bytes, got %u", BLK_CONFIG_BYTES,
                f->message.bytes ? f->message.config.bytes : 0);
  memcpy(f->config, f->message.config.region, BLK_CONFIG_BYTES);
  memcpy(&sectors, f->config, sizeof(sectors));
  if (sectors > UINT64_MAX / BLK_SECTOR_BYTES) return fail(f, -EPROTO, "a disk beyond 2^64 bytes");
  f->size_bytes = sectors * BLK_SECTOR_BYTES;
  f->block_bytes = f->features & BIT(BLK_F_BLK_SIZE) ? config_u32(f, 20) : BLK_SECTOR_BYTES;
  f->read_only = f->features & BIT(BLK_F_RO);
  /* Who reads a block has room for so much. */
  if (f->block_bytes < 512 || f->block_bytes > BLOCK_BYTES || f->block_bytes & (f->block_bytes - 1))
    return fail(f, -EPROTO, "blocks of %u bytes", f->block_bytes);
  return 0;
}

int vfront_set_writeback(struct vfront *f, bool writeback) {
  struct message m = vfront_message(VHOST_SET_CONFIG, 12 + 1);
  if (!(f->features & BIT(BLK_F_CONFIG_WCE))) return -ENOTSUP;
  m.config.offset = BLK_CONFIG_WRITEBACK;
  m.config.bytes = 1;
  m.config.region[0] = writeback;
  int r = vfront_ask(f, &m, false);
  return r < 0 ? r : settle(f);
}

int vfront_config_changed(struct vfront *f, int timeout_ms) {
  struct pollfd p = {.fd = f->backend_fd, .events = POLLIN};
  if (f->backend_fd < 0) return 0;
  for (;;) {
    int r = message_receive(f->backend_fd, &f->backend_reader, &f->message);
    if (r < 0) return fail(f, -EPROTO, "the back-end's channel: %s", strerror(-r));
    if (r == 0 && poll(&p, 1, timeout_ms) <= 0) return 0;
    if (r == 0) continue;
    message_close_fds(&f->message);
    if (f->message.flags & MESSAGE_NEED_REPLY) {
      struct message ack = vfront_message(f->message.request, sizeof(ack.u64));
      ack.flags |= MESSAGE_REPLY;
      ack.u64 = f->message.request != VHOST_BACKEND_CONFIG_CHANGE_MSG;
      r = message_send(f->backend_fd, &ack);
      if (r < 0) return fail(f, r, "the back-end's channel: %s", strerror(-r));
    }
    if (f->message.request == VHOST_BACKEND_CONFIG_CHANGE_MSG) return 1;
  }
}

/* ---- Memory --------------------------------------------------------------------------------- */

static uint64_t slots_bytes(const struct vfront *f, uint32_t size) {
  return vfront_queue_bytes(size, f->o.depth) * f->o.queues;
}

static int make_memory(struct vfront *f, uint32_t size) {
  uint64_t rings = slots_bytes(f, size);
  f->memory_bytes = rings + round_up(f->o.buffer_bytes, PAGE);
  f->guest_base = GUEST_BASE;
  f->memory_fd = memfd_create("vhost_front", MFD_CLOEXEC);
  if (f->memory_fd < 0 || ftruncate(f->memory_fd, (off_t)f->memory_bytes) < 0)
    return fail(f, -errno, "guest memory: %s", strerror(errno));
  f->memory = mmap(NULL, f->memory_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE,
                   f->memory_fd, 0);
  if (f->memory == MAP_FAILED) {
    f->memory = NULL;
    return fail(f, -errno, "guest memory: %s", strerror(errno));
  }
  f->buffers = f->memory + rings;
  return 0;
}

/* Where region i begins; the rings lie in the first one. */
static uint64_t region_start(const struct vfront *f, uint32_t i) {
  uint64_t rings = (uint64_t)(f->buffers - f->memory), data = f->memory_bytes - rings;
  if (i == 0) return 0;
  return i == f->o.regions ? f->memory_bytes : rings + round_down(data / f->o.regions * i, PAGE);
}

static struct message_region region_at(const struct vfront *f, uint32_t i) {
  uint64_t start = region_start(f, i);
  return (struct message_region){
      .guest = f->guest_base + start,
      .bytes = region_start(f, i + 1) - start,
      .user = (uint64_t)(uintptr_t)f->memory + start,
      .file_offset = start,
  };
}

static int add_regions(struct vfront *f) {
  uint64_t slots;
  int r = get_u64(f, VHOST_GET_MAX_MEM_SLOTS, &slots);
  if (r == 0 && slots < f->o.regions)
    return fail(f, -EPROTO, "%llu memory slots", (unsigned long long)slots);
  for (uint32_t i = 0; r == 0 && i < f->o.regions; i++) {
    struct message m = vfront_message(VHOST_ADD_MEM_REG, sizeof(m.reg));
    m.reg.region = region_at(f, i);
    m.fds[m.fd_count++] = f->memory_fd;
    r = vfront_ask(f, &m, false);
  }
  return r;
}

static int share_memory(struct vfront *f) {
  struct message m = vfront_message(VHOST_SET_MEM_TABLE, 8);
  if (has_protocol(f, VHOST_PF_CONFIGURE_MEM_SLOTS)) return add_regions(f);
  if (f->o.regions > MESSAGE_REGIONS_MAX) return fail(f, -EINVAL, "too many regions");
  m.table.count = f->o.regions;
  m.bytes += f->o.regions * (uint32_t)sizeof(struct message_region);
  for (uint32_t i = 0; i < f->o.regions; i++) {
    m.table.regions[i] = region_at(f, i);
    m.fds[m.fd_count++] = f->memory_fd;
  }
  return vfront_ask(f, &m, false);
}

/* The file is the first server's; later ones are given it. */
static int get_inflight(struct vfront *f) {
  struct message m = vfront_message(VHOST_GET_INFLIGHT_FD, sizeof(m.inflight));
  m.inflight.queues = (uint16_t)f->o.queues;
  m.inflight.queue_size = (uint16_t)f->queues[0].size;
  int r = vfront_ask(f, &m, true);
  if (r < 0) return r;
  f->inflight = f->message.inflight;
  if (f->message.bytes != sizeof(m.inflight))
    r = fail(f, -EPROTO, "GET_INFLIGHT_FD: %u bytes of answer", f->message.bytes);
  else if (f->message.fd_count != 1 || f->inflight.mmap_bytes == 0)
    r = fail(f, -EPROTO, "GET_INFLIGHT_FD: no file");
  else if (f->inflight.queues != m.inflight.queues ||
           f->inflight.queue_size != m.inflight.queue_size)
    r = fail(f, -EPROTO, "GET_INFLIGHT_FD: for %u queues of %u", f->inflight.queues,
             f->inflight.queue_size);
  if (r < 0) message_close_fds(&f->message);
  if (r == 0) f->inflight_fd = f->message.fds[0];
  return r;
}

static int set_inflight(struct vfront *f) {
  struct message m = vfront_message(VHOST_SET_INFLIGHT_FD, sizeof(m.inflight));
  m.inflight = f->inflight;
  m.inflight.queues = (uint16_t)f->o.queues;
  m.inflight.queue_size = (uint16_t)f->queues[0].size;
  m.fds[m.fd_count++] = f->inflight_fd;
  return vfront_ask(f, &m, false);
}

/* ---- Queues --------------------------------------------------------------------------------- */

static int start_queue(struct vfront *f, struct vfront_queue *q) {
  struct message m = vfront_message(VHOST_SET_VRING_ADDR, sizeof(m.addr));
  m.addr = (struct message_vring_addr){
      .index = q->index,
      .desc_user = (uintptr_t)q->desc,
      .used_user = (uintptr_t)q->used,
      .avail_user = (uintptr_t)q->avail,
      .log_guest = vfront_guest_address(f, q->used),
  };
  int r = set_state(f, VHOST_SET_VRING_NUM, q->index, q->size);
  if (r == 0) r = set_state(f, VHOST_SET_VRING_BASE, q->index, q->base);
  if (r == 0) r = vfront_ask(f, &m, false);
  if (r == 0) r = set_fd(f, VHOST_SET_VRING_KICK, q->index, q->kick_fd);
  if (r == 0) r = set_fd(f, VHOST_SET_VRING_CALL, q->index, q->call_fd);
  q->started = r == 0;
  return r;
}

int vfront_enable(struct vfront *f, bool enabled) {
  int r = 0;
  if (!(f->features & BIT(VHOST_USER_F_PROTOCOL_FEATURES))) return 0;
  for (uint32_t i = 0; r == 0 && i < f->o.queues; i++)
    r = set_state(f, VHOST_SET_VRING_ENABLE, i, enabled);
  return r < 0 ? r : settle(f);
}

/* Its answer comes when nothing is in flight any more: all that was taken is used. */
static int stop_queue(struct vfront *f, struct vfront_queue *q) {
  struct message m = vfront_message(VHOST_GET_VRING_BASE, sizeof(m.state));
  m.state.index = q->index;
  int r = vfront_ask(f, &m, true);
  if (r < 0) return r;
  q->started = false;
  uint32_t num = f->message.state.num, used = vfront_used_base(q);
  if (f->message.state.index != q->index)
    return fail(f, -EPROTO, "GET_VRING_BASE of queue %u answers for %u", q->index,
                f->message.state.index);
  if (num != used)
    return fail(f, -EPROTO, "GET_VRING_BASE of queue %u: %u, but used are %u, available %u",
                q->index, num, used, q->avail_index);
  q->base = used;
  return 0;
}

int vfront_stop(struct vfront *f) {
  int r = vfront_enable(f, false);
  for (uint32_t i = 0; r == 0 && i < f->o.queues; i++)
    if (f->queues[i].started) r = stop_queue(f, &f->queues[i]);
  return r;
}

int vfront_start(struct vfront *f) {
  int r = set_u64(f, VHOST_SET_FEATURES, f->features);
  for (uint32_t i = 0; r == 0 && i < f->o.queues; i++) r = start_queue(f, &f->queues[i]);
  if (r == 0) r = vfront_enable(f, true);
  for (uint32_t i = 0; r == 0 && i < f->o.queues; i++)
    if (f->queues[i].in_flight > 0) vfront_kick(&f->queues[i]);
  return r;
}

/* All but the first connecting and the configuration. */
static int set_up_device(struct vfront *f) {
  int r = 0;
  for (uint32_t i = 0; r == 0 && i < f->o.queues; i++) {
    r = set_fd(f, VHOST_SET_VRING_CALL, i, f->queues[i].call_fd);
    if (r == 0) r = set_fd(f, VHOST_SET_VRING_ERR, i, f->queues[i].err_fd);
  }
  if (r == 0 && has_protocol(f, VHOST_PF_INFLIGHT_SHMFD)) {
    if (f->inflight_fd < 0) r = get_inflight(f);
    if (r == 0) r = set_inflight(f);
  }
  if (r == 0) r = share_memory(f);
  return r < 0 ? r : vfront_start(f);
}

static uint32_t size_for(const struct vfront *f) {
  bool indirect = f->features & BIT(VIRTIO_F_INDIRECT_DESC);
  uint32_t need = f->o.depth * (indirect ? 1 : f->o.pieces + 2), size = 2;
  while (size < need) size *= 2;
  return f->o.queue_size > size ? f->o.queue_size : size;
}

static int make_queues(struct vfront *f) {
  uint32_t size = size_for(f);
  if (size > RING_SIZE_MAX || (f->o.queue_size && size != f->o.queue_size))
    return fail(f, -EINVAL, "%u requests at a time do not fit into a queue of %u%s", f->o.depth,
                f->o.queue_size ? f->o.queue_size : RING_SIZE_MAX,
                f->features & BIT(VIRTIO_F_INDIRECT_DESC) ? "" : " without INDIRECT_DESC");
  int r = make_memory(f, size);
  f->queues = calloc(f->o.queues, sizeof(*f->queues));
  if (r == 0 && !f->queues) r = -ENOMEM;
  for (uint32_t i = 0; r == 0 && i < f->o.queues; i++)
    r = vfront_queue_init(&f->queues[i], f, i, f->memory + i * vfront_queue_bytes(size, f->o.depth),
                          size, f->o.depth);
  return r;
}

/* ---- Life ----------------------------------------------------------------------------------- */

static int take_options(struct vfront *f, const struct vfront_options *o) {
  f->o = *o;
  if (!f->o.pieces) f->o.pieces = 1;
  if (!f->o.regions) f->o.regions = 1;
  bool fits = o->socket && strlen(o->socket) < sizeof(f->socket) && o->queues >= 1 &&
              o->queues <= VFRONT_QUEUES_MAX && o->depth >= 1 && o->depth <= RING_SIZE_MAX &&
              f->o.pieces <= VFRONT_PIECES_MAX && !(o->queue_size & (o->queue_size - 1));
  if (!fits) return fail(f, -EINVAL, "options out of range, or a socket path that is too long");
  memcpy(f->socket, o->socket, strlen(o->socket) + 1);
  f->o.socket = f->socket;
  return 0;
}

int vfront_open(struct vfront **front, const struct vfront_options *options, char *why,
                size_t why_bytes) {
  struct vfront *f = calloc(1, sizeof(*f));
  *front = NULL;
  if (!f) return -ENOMEM;
  f->fd = f->backend_fd = f->memory_fd = f->inflight_fd = -1;
  int r = take_options(f, options);
  if (r == 0) r = connect_front(f, options->connect_ms);
  if (r == 0) r = negotiate(f);
  if (r == 0) r = vfront_config(f);
  if (r == 0) r = make_queues(f);
  if (r == 0) r = set_up_device(f);
  if (r == 0) {
    *front = f;
    return 0;
  }
  if (why) snprintf(why, why_bytes, "%s", f->why[0] ? f->why : strerror(-r));
  vfront_close(f);
  return r;
}

static void disconnect(struct vfront *f) {
  if (f->fd >= 0) close(f->fd);
  if (f->backend_fd >= 0) close(f->backend_fd);
  f->fd = f->backend_fd = -1;
  message_close_fds(&f->reader.message);
  message_close_fds(&f->backend_reader.message);
}

int vfront_reconnect(struct vfront *f, uint32_t connect_ms) {
  for (uint32_t i = 0; i < f->o.queues; i++) {
    struct vfront_queue *q = &f->queues[i];
    uint32_t used = vfront_used_base(q);
    if ((uint16_t)used != q->avail_index && f->inflight_fd < 0)
      return fail(f, -ENOTSUP, "queue %u: %u requests in flight, and no in-flight file", i,
                  q->in_flight);
    /* No index of a packed ring stands in memory: a monitor knows only where it began. */
    if (!q->packed || f->inflight_fd < 0) q->base = used;
  }
  disconnect(f);
  int r = connect_front(f, connect_ms);
  if (r == 0) r = negotiate(f);
  if (r == 0) r = set_up_device(f);
  if (r == 0) f->reconnects++;
  return r;
}

int vfront_alive(const struct vfront *f) {
  struct pollfd p = {.fd = f->fd, .events = POLLRDHUP};
  return f->fd < 0 || (poll(&p, 1, 0) > 0 && p.revents) ? -ECONNRESET : 0;
}

void vfront_close(struct vfront *f) {
  if (!f) return;
  if (f->queues && f->queues[0].started && vfront_alive(f) == 0) vfront_stop(f);
  disconnect(f);
  for (uint32_t i = 0; f->queues && i < f->o.queues; i++) vfront_queue_finish(&f->queues[i]);
  free(f->queues);
  if (f->memory) munmap(f->memory, f->memory_bytes);
  if (f->memory_fd >= 0) close(f->memory_fd);
  if (f->inflight_fd >= 0) close(f->inflight_fd);
  free(f);
}
