/* apply.c - what a monitor's messages mean. The server's thread, under its lock; the rings that a
 * message concerns do not run. Nothing here believes a number before it is checked. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "api/vhost/notify.h"
#include "api/vhost/server.h"

#define PROTOCOL_FEATURES                                                                          \
  (UINT64_C(1) << VHOST_PF_MQ | UINT64_C(1) << VHOST_PF_REPLY_ACK |                                \
   UINT64_C(1) << VHOST_PF_BACKEND_REQ | UINT64_C(1) << VHOST_PF_CONFIG |                          \
   UINT64_C(1) << VHOST_PF_INFLIGHT_SHMFD | UINT64_C(1) << VHOST_PF_CONFIGURE_MEM_SLOTS |          \
   UINT64_C(1) << VHOST_PF_RESET_DEVICE | UINT64_C(1) << VHOST_PF_LOG_SHMFD |                      \
   UINT64_C(1) << VHOST_PF_DEVICE_STATE)

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
  uint64_t features = blk_features(&c->disk->blk, true) | UINT64_C(1) << VHOST_F_LOG_ALL;
  if (!c->disk->discards) features &= ~(UINT64_C(1) << BLK_F_DISCARD);
  return features;
}

static int set_features(struct client *c) {
  if (c->message.u64 & ~offered(c)) return -EINVAL;
  c->features = c->message.u64;
  c->disk->blk.align_bytes = has(c->features, BLK_F_BLK_SIZE) ? c->disk->blk.block_bytes : 512;
  return 0;
}

static int set_protocol_features(struct client *c) {
  /* A monitor may acknowledge what it was not offered; that does not make it so. */
  c->protocol = c->message.u64 & PROTOCOL_FEATURES;
  return 0;
}

/* ---- Rings ------------------------------------------------------------------------------------
 */

struct client_ring *client_ring_at(struct client *c, uint64_t index) {
  return index < c->disk->blk.queues ? &c->rings[index] : NULL;
}

void client_reset_ring(struct client_ring *r) {
  close_fd(&r->kick_fd);
  close_fd(&r->call_fd);
  close_fd(&r->error_fd);
  *r = (struct client_ring){.kick_fd = -1, .call_fd = -1, .error_fd = -1};
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
  uint32_t base = c->message.state.num;
  if (base > UINT16_MAX && !has(c->features, VIRTIO_F_RING_PACKED)) return -EINVAL;
  r->last_avail = (uint16_t)base;
  r->next_used = (uint16_t)(base >> 16);
  r->has_base = true;
  return 0;
}

static int set_address(struct client *c, struct client_ring *r) {
  if (c->message.addr.flags & ~1u) return -EINVAL; /* 1: the used ring is logged, too */
  r->address = c->message.addr;
  r->has_address = true;
  return 0;
}

static int set_enabled(struct client *c, struct client_ring *r) {
  if (c->message.state.num > 1) return -EINVAL;
  r->enabled = c->message.state.num;
  return 0;
}

/* An eventfd: whatever else there is could block us, or be the other end of our own connection,
 * which then never closes. */
static int take_event_fd(struct client *c, int *to) {
  bool none = c->message.u64 & MESSAGE_VRING_NO_FD;
  int fd = take_fd(c, 0);
  if ((fd < 0) != none || (fd >= 0 && !notify_is_event(fd))) {
    close_fd(&fd);
    return -EINVAL;
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

void client_drop_inflight(struct client *c) {
  if (!c->inflight) return;
  memory_unguard(c->inflight);
  munmap(c->inflight, c->inflight_mapped);
  close_fd(&c->inflight_fd);
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
  bool packed = has(c->features, VIRTIO_F_RING_PACKED);
  uint64_t bytes = m->inflight.queues * inflight_queue_bytes(m->inflight.queue_size, packed);
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

int client_map_inflight(struct client *c, int fd, uint64_t offset, uint64_t bytes, uint32_t queues,
                        uint32_t size) {
  struct stat st;
  bool fits = offset % 4096 == 0 && fstat(fd, &st) == 0 && offset <= (uint64_t)st.st_size;
  if (fits) bytes = min_u64(bytes, (uint64_t)st.st_size - offset);
  bytes = min_u64(bytes, queues * inflight_queue_bytes(size, true));
  if (bytes < queues * inflight_queue_bytes(size, false)) fits = false;
  void *at = MAP_FAILED;
  if (fits) at = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);
  if (at == MAP_FAILED || memory_guard(at, bytes, &c->memory.lost) < 0) {
    if (at != MAP_FAILED) munmap(at, bytes);
    close(fd);
    return -EINVAL;
  }
  c->inflight = at;
  c->inflight_mapped = bytes;
  c->inflight_offset = offset;
  c->inflight_queues = queues;
  c->inflight_size = size;
  c->inflight_fd = fd;
  return 0;
}

static int set_inflight(struct client *c) {
  const struct message_inflight *m = &c->message.inflight;
  client_drop_inflight(c);
  int fd = take_fd(c, 0);
  if (fd < 0) return -EINVAL;
  if (inflight_fits(c, m))
    return client_map_inflight(c, fd, m->mmap_offset, m->mmap_bytes, m->queues, m->queue_size);
  close(fd);
  return -EINVAL;
}

/* ---- Messages: migration ------------------------------------------------------------------------
 */

static int set_log(struct client *c) {
  int fd = take_fd(c, 0);
  if (fd < 0) return -EINVAL;
  dirty_unmap(&c->log);
  int r = dirty_map(&c->log, fd, c->message.log.offset, c->message.log.bytes, &c->memory.lost);
  close(fd);
  c->message.bytes = 8;
  c->message.u64 = 0;
  return r;
}

/* We tell nobody when something was logged: they look. */
static int set_log_fd(struct client *c) {
  int fd = take_fd(c, 0);
  close_fd(&fd);
  return 0;
}

/* All that a disk is lies in the volume and in the rings, so the state is a word that says whose it
 * is. The transfer goes through the monitor's own pipe. */
static const char state_word[8] = "SRVHOST1";
enum { STATE_SAVE = 0, STATE_LOAD = 1, STATE_NO_FD = 0x100 };

static int set_state_fd(struct client *c) {
  uint32_t direction = c->message.device_state.direction;
  int fd = take_fd(c, 0);
  c->message.u64 = STATE_NO_FD;
  if (fd < 0 || direction > STATE_LOAD || c->message.device_state.phase != 0) {
    close_fd(&fd);
    c->message.u64 |= 1;
    return 0;
  }
  if (direction == STATE_SAVE) {
    if (write_now(fd, state_word, sizeof state_word) != sizeof state_word) c->message.u64 |= 1;
    close(fd);
    return 0;
  }
  close_fd(&c->state_fd);
  c->state_fd = fd;
  return 0;
}

static int check_state(struct client *c) {
  char word[sizeof state_word + 1];
  bool fits = true;
  if (c->state_fd >= 0)
    fits = read_now(c->state_fd, word, sizeof word) == sizeof state_word &&
           memcmp(word, state_word, sizeof state_word) == 0;
  close_fd(&c->state_fd);
  c->message.u64 = !fits;
  return 0;
}

/* ---- Messages: configuration
 * --------------------------------------------------------------------- */

/* Exactly as many bytes as were asked for, zeros behind what there is; none: an error. Monitors
 * that come back do not ask again: their guests go by what an earlier connection was told. */
static int get_config(struct client *c) {
  struct message_config *m = &c->message.config;
  uint8_t config[BLK_CONFIG_BYTES];
  if (m->offset > MESSAGE_CONFIG_MAX || m->bytes > MESSAGE_CONFIG_MAX - m->offset) return -EINVAL;
  blk_expect_flushes(&c->disk->blk);
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
  close_fd(&c->backend_fd);
  c->backend_fd = fd;
  return 0;
}

/* We ask for no answer, so none is read: what a monitor sends there nevertheless fills its own
 * buffer. */
void client_config_changed(struct client *c) {
  struct message m = {.request = VHOST_BACKEND_CONFIG_CHANGE_MSG, .flags = MESSAGE_VERSION};
  if (c->backend_fd >= 0 && has(c->protocol, VHOST_PF_BACKEND_REQ))
    message_send_now(c->backend_fd, &m);
}

/* ---- A message's three steps
 * --------------------------------------------------------------------- */

enum halt client_halts(const struct message *m, uint64_t *index) {
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
  case VHOST_SET_LOG_BASE:
  case VHOST_RESET_OWNER:
  case VHOST_RESET_DEVICE:
    return HALT_ALL;
  default:
    return HALT_NONE;
  }
}

/* Where it was halted; that of a ring that never ran is where it would have begun. */
static uint32_t base_of(const struct client *c, const struct client_ring *r) {
  uint32_t first = RING_POSITION_FIRST;
  if (!has(c->features, VIRTIO_F_RING_PACKED)) return r->last_avail;
  return r->has_base ? r->last_avail | (uint32_t)r->next_used << 16 : first | first << 16;
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
    m->state.num = base_of(c, r);
    return 0;
  }
}

static void reset_device(struct client *c) {
  for (uint32_t i = 0; i < c->disk->blk.queues; i++) client_reset_ring(&c->rings[i]);
  c->features = 0;
}

int client_apply(struct client *c) {
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
  case VHOST_SET_LOG_BASE:
    return set_log(c);
  case VHOST_SET_LOG_FD:
    return set_log_fd(c);
  case VHOST_SET_DEVICE_STATE_FD:
    return set_state_fd(c);
  case VHOST_CHECK_DEVICE_STATE:
    return check_state(c);
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
    client_halts(m, &index);
    return client_ring_at(c, index) ? apply_to_ring(c, client_ring_at(c, index)) : -EINVAL;
  default:
    return -EOPNOTSUPP;
  }
}

bool client_answers(uint32_t request) {
  switch (request) {
  case VHOST_GET_FEATURES:
  case VHOST_GET_PROTOCOL_FEATURES:
  case VHOST_GET_QUEUE_NUM:
  case VHOST_GET_MAX_MEM_SLOTS:
  case VHOST_GET_CONFIG:
  case VHOST_GET_INFLIGHT_FD:
  case VHOST_GET_VRING_BASE:
  case VHOST_SET_LOG_BASE:
  case VHOST_SET_DEVICE_STATE_FD:
  case VHOST_CHECK_DEVICE_STATE:
    return true;
  default:
    return false;
  }
}
