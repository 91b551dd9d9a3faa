/* fuzz_vhost.c - the vhost server, from its socket to the store: whatever a monitor says, in
 * whatever order, and whatever lies in the guest's memory, nothing crashes or hangs; afterwards no
 * descriptor and no request is left, and the next monitor is served.
 *
 * The store lies in memory and has no threads: this one steps its cores. The server's thread is a
 * real one. Each message is answered, or its connection closed, before the next step of the input.
 *
 * Input: up to STEPS_MAX steps, each of a byte and what it takes; see step(). Guest memory is
 * written through its descriptor, since it may be cut. */
#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "api/internal.h"
#include "api/shardring_vhost.h"
#include "api/vhost/blk.h"
#include "api/vhost/inflight.h"
#include "api/vhost/message.h"
#include "tests/fuzz/mem_store.h"

#define QUEUES       2u
#define RING         16u
#define STEPS_MAX    48u
#define MEMORY_BYTES 65536u
#define GUEST        UINT64_C(0x100000)
#define USER         UINT64_C(0x700000000000)
#define HANG_SECONDS 60
#define PACKED       (UINT64_C(1) << VIRTIO_F_RING_PACKED)

enum { DESC_AT = 0, AVAIL_AT = 0x400, USED_AT = 0x800, NEXT_RING = 0x1000, DATA_AT = 0x4000 };

/* ---- The server, once for all inputs --------------------------------------------------------- */

static struct {
  struct sr_store *store;
  struct sr_vhost *vhost;
  struct sockaddr_un address;
} all;

static void begin(void) {
  static struct mem_store memory;
  struct sr_vhost_options o = SR_VHOST_OPTIONS_INIT;
  struct sr_vhost_disk d = SR_VHOST_DISK_INIT;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  struct sr_port *port;
  mem_store_format(&memory, 2048);
  check(mem_store_open(&memory, false, DAMAGED_REFUSE, &all.store) == 0);
  check(sr_port_open(all.store, NULL, &port) == 0);
  v.size_bytes = 1 << 20;
  v.striped = true;
  v.stripe_bytes = 65536;
  check(sr_volume_create(port, "disk", &v) == 0);
  check(sr_port_close(port) == 0);
  all.address.sun_family = AF_UNIX;
  snprintf(all.address.sun_path, sizeof all.address.sun_path, "/tmp/fuzz_vhost.%d", getpid());
  d.volume = "disk";
  d.socket = all.address.sun_path;
  d.queues = QUEUES;
  d.queue_size = RING;
  check(sr_vhost_start(all.store, &o, &all.vhost) == 0);
  check(sr_vhost_attach(all.vhost, NULL, &d) == 0);
}

static void end(void) {
  sr_vhost_stop(all.vhost);
  check(sr_store_close(all.store) == 0);
}

/* Enough that cores look at their descriptors, and finish what they have. */
static void run_cores(void) {
  for (uint32_t i = 0; i < 40; i++) store_step(store_of(all.store));
}

/* ---- A monitor ------------------------------------------------------------------------------- */

struct monitor {
  int fd, memory_fd, event_fd;
  bool gone;
  struct message_reader reader;
  struct message m;
  bool packed;                /* rings, since the last set-up */
  uint16_t available[QUEUES]; /* of a packed ring: the position */
};

static time_t seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec;
}

static void open_connection(struct monitor *c) {
  c->gone = false;
  memset(&c->reader, 0, sizeof c->reader);
  c->reader.kind = MESSAGE_REPLIES;
  c->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  check(c->fd >= 0);
  check(connect(c->fd, (struct sockaddr *)&all.address, sizeof all.address) == 0);
}

/* Until the answer to `request` has come; false: the connection was closed. */
static bool await(struct monitor *c, uint32_t request) {
  time_t end_at = seconds() + HANG_SECONDS;
  while (!c->gone) {
    int r = message_receive(c->fd, &c->reader, &c->m);
    check(r != -EBADMSG && r != -EMSGSIZE);
    if (r < 0) c->gone = true;
    if (r == 1) message_close_fds(&c->m);
    if (r == 1 && c->m.request == request) return true;
    if (r != 0) continue;
    run_cores();
    sched_yield();
    check(seconds() < end_at); /* a hang */
  }
  return false;
}

static void send_bytes(struct monitor *c, const struct message *m, uint32_t bytes) {
  struct message copy = *m;
  if (c->gone) return;
  copy.bytes = bytes;
  if (message_send(c->fd, &copy) < 0) c->gone = true;
}

/* A question whose answer shows that what came before is done. */
static void settle(struct monitor *c) {
  struct message ask = {.request = VHOST_GET_QUEUE_NUM, .flags = MESSAGE_VERSION};
  send_bytes(c, &ask, 0);
  await(c, VHOST_GET_QUEUE_NUM);
  run_cores();
}

static void tell(struct monitor *c, struct message *m) {
  m->flags |= MESSAGE_VERSION;
  send_bytes(c, m, m->bytes);
  settle(c);
}

static struct message message_of(uint32_t request, uint32_t bytes) {
  return (struct message){
      .request = request, .flags = MESSAGE_VERSION | MESSAGE_NEED_REPLY, .bytes = bytes};
}

static void tell_u64(struct monitor *c, uint32_t request, uint64_t v) {
  struct message m = message_of(request, 8);
  m.u64 = v;
  tell(c, &m);
}

static void tell_state(struct monitor *c, uint32_t request, uint32_t index, uint32_t num) {
  struct message m = message_of(request, 8);
  m.state = (struct message_vring_state){index, num};
  tell(c, &m);
}

static void tell_fd(struct monitor *c, uint32_t request, uint32_t index, int fd) {
  struct message m = message_of(request, 8);
  m.u64 = index;
  m.fds[m.fd_count++] = fd;
  tell(c, &m);
}

static void tell_address(struct monitor *c, uint32_t q, uint32_t desc, uint32_t avail,
                         uint32_t used) {
  struct message m = message_of(VHOST_SET_VRING_ADDR, sizeof m.addr);
  m.addr = (struct message_vring_addr){
      .index = q, .desc_user = USER + desc, .avail_user = USER + avail, .used_user = USER + used};
  tell(c, &m);
}

static void tell_regions(struct monitor *c, struct feed *f, uint32_t count) {
  struct message m = message_of(VHOST_SET_MEM_TABLE, 8 + count * 32);
  m.table.count = count;
  for (uint32_t i = 0; i < count; i++) {
    uint64_t guest = feed_u8(f) % 17 * 4096, bytes = feed_u8(f) % 18 * 4096;
    uint64_t user = feed_u8(f) % 17 * 4096, offset = feed_u8(f) % 17 * 4096;
    m.table.regions[i] = (struct message_region){GUEST + guest, bytes, USER + user, offset};
    m.fds[m.fd_count++] = c->memory_fd;
  }
  tell(c, &m);
}

static void share_all(struct monitor *c) {
  struct message m = message_of(VHOST_SET_MEM_TABLE, 8 + 32);
  m.table.count = 1;
  m.table.regions[0] = (struct message_region){GUEST, MEMORY_BYTES, USER, 0};
  m.fds[m.fd_count++] = c->memory_fd;
  tell(c, &m);
}

static void set_up_queue(struct monitor *c, uint32_t q) {
  uint32_t at = q * NEXT_RING;
  tell_state(c, VHOST_SET_VRING_NUM, q, RING);
  if (c->packed) c->available[q] = RING_POSITION_FIRST;
  tell_state(c, VHOST_SET_VRING_BASE, q, c->available[q] * (c->packed ? 0x10001u : 1u));
  tell_address(c, q, at + DESC_AT, at + AVAIL_AT, at + USED_AT);
  tell_fd(c, VHOST_SET_VRING_KICK, q, c->event_fd);
  tell_fd(c, VHOST_SET_VRING_CALL, q, c->event_fd);
  tell_state(c, VHOST_SET_VRING_ENABLE, q, 1);
}

static void set_up(struct monitor *c, uint64_t without, bool packed) {
  struct message ask = {.request = VHOST_GET_FEATURES, .flags = MESSAGE_VERSION};
  tell_u64(c, VHOST_SET_PROTOCOL_FEATURES, UINT64_MAX);
  send_bytes(c, &ask, 0);
  if (!await(c, VHOST_GET_FEATURES)) return;
  if (!packed) without |= PACKED;
  c->packed = packed;
  tell_u64(c, VHOST_SET_FEATURES, c->m.u64 & ~without);
  share_all(c);
  for (uint32_t q = 0; q < QUEUES; q++) set_up_queue(c, q);
}

/* ---- Its guest ------------------------------------------------------------------------------- */

static void poke(struct monitor *c, uint64_t at, const void *from, size_t bytes) {
  at %= MEMORY_BYTES;
  bytes = min_u64(bytes, MEMORY_BYTES - at);
  check(pwrite(c->memory_fd, from, bytes, (off_t)at) == (ssize_t)bytes);
}

static void poke_desc(struct monitor *c, uint64_t at, uint64_t address, uint32_t bytes,
                      uint16_t flags, uint16_t next) {
  struct vring_desc d = {address, bytes, flags, next};
  poke(c, at, &d, sizeof d);
}

/* The next one of a packed ring becomes available; its id is 0. */
static void push_packed(struct monitor *c, uint32_t q, struct vring_desc d) {
  uint32_t at = c->available[q] & ~RING_POSITION_WRAP;
  uint16_t flags = d.flags | ring_flags_available(c->available[q]);
  poke_desc(c, q * NEXT_RING + at * 16, d.address, d.bytes, d.next, flags);
  c->available[q] = ring_position_add(c->available[q], 1, RING);
}

/* The header and an entry: the device may have other ideas of where its rings are. */
static void push(struct monitor *c, uint32_t q, uint16_t head) {
  if (c->packed) {
    push_packed(c, q, (struct vring_desc){GUEST + DATA_AT, 16, 0, head});
    return;
  }
  uint64_t at = q * NEXT_RING + AVAIL_AT;
  poke(c, at + 4 + 2u * (c->available[q] % RING), &head, 2);
  uint16_t index = ++c->available[q];
  poke(c, at + 2, &index, 2);
}

static void kick(struct monitor *c) {
  uint64_t one = 1;
  ssize_t n = write(c->event_fd, &one, sizeof one);
  (void)n;
  run_cores();
}

/* The chain that lies at `table` in a split ring's form, as a packed one has it: in the ring, or as
 * a table. */
static void pack(struct monitor *c, uint32_t q, uint64_t table, uint32_t n, bool indirect,
                 uint16_t id) {
  struct vring_desc d[8];
  check(n <= array_size(d));
  if (pread(c->memory_fd, d, n * sizeof d[0], (off_t)table) != (ssize_t)(n * sizeof d[0])) return;
  for (uint32_t i = 0; i < n; i++) {
    d[i].next = id;
    if (indirect)
      poke_desc(c, table + i * 16, d[i].address, d[i].bytes, 0, d[i].flags & VRING_WRITE);
    else
      push_packed(c, q, d[i]);
  }
  if (indirect) push_packed(c, q, (struct vring_desc){GUEST + table, n * 16, VRING_INDIRECT, id});
}

/* Queue, type, sector, pieces, bytes of each; in a table or not. */
static void request(struct monitor *c, struct feed *f) {
  uint8_t how = feed_u8(f), type = feed_u8(f), pieces = feed_u8(f) % 6;
  struct {
    uint32_t type, reserved;
    uint64_t sector;
  } header = {type % 16, 0, feed_u16(f)};
  uint32_t q = how & 1, bytes = feed_u16(f), n;
  uint64_t table = how & 2 || c->packed ? DATA_AT - 0x1000 : q * NEXT_RING + DESC_AT;
  uint16_t way = header.type == 0 || header.type == 8 ? VRING_WRITE : 0;
  poke(c, DATA_AT, &header, sizeof header);
  poke_desc(c, table, GUEST + DATA_AT, 16, VRING_NEXT, 1);
  for (n = 1; n <= pieces; n++)
    poke_desc(c, table + n * 16, GUEST + DATA_AT + 1024 + (how & 4 ? n * 4096 : n * 512), bytes,
              VRING_NEXT | way, (uint16_t)(n + 1));
  poke_desc(c, table + n * 16, GUEST + DATA_AT + 512, 1, VRING_WRITE, 0);
  if (c->packed) {
    pack(c, q, table, n + 1, how & 2, how >> 4);
  } else {
    if (how & 2) poke_desc(c, q * NEXT_RING, GUEST + table, (n + 1) * 16, VRING_INDIRECT, 0);
    push(c, q, 0);
  }
  if (!(how & 8)) kick(c);
}

/* ---- Steps ----------------------------------------------------------------------------------- */

static void raw_message(struct monitor *c, struct feed *f) {
  struct message m = {.request = feed_u8(f) % 48};
  uint8_t flags = feed_u8(f), bytes = feed_u8(f), fds = feed_u8(f);
  m.flags = flags % 16;
  if (!(flags & 0xf0)) m.flags = MESSAGE_VERSION | MESSAGE_NEED_REPLY;
  m.bytes = bytes;
  feed_bytes(f, m.raw, bytes);
  for (uint32_t i = 0; i < fds % 4; i++)
    m.fds[m.fd_count++] = fds & 4 ? c->memory_fd : fds & 8 ? STDERR_FILENO : c->event_fd;
  send_bytes(c, &m, m.bytes);
  settle(c);
}

static void change_region(struct monitor *c, struct feed *f) {
  uint8_t how = feed_u8(f);
  struct message m = message_of(how & 1 ? VHOST_ADD_MEM_REG : VHOST_REM_MEM_REG, sizeof m.reg);
  m.reg.region = (struct message_region){GUEST + feed_u8(f) * 4096, feed_u8(f) * 4096,
                                         USER + feed_u8(f) * 4096, feed_u8(f) % 16 * 4096};
  if (how & 2) m.reg.region = (struct message_region){GUEST, MEMORY_BYTES, USER, 0};
  if (how & 1) m.fds[m.fd_count++] = c->memory_fd;
  tell(c, &m);
}

static void set_inflight(struct monitor *c, struct feed *f) {
  struct message m = message_of(VHOST_SET_INFLIGHT_FD, sizeof m.inflight);
  uint8_t how = feed_u8(f);
  m.inflight = (struct message_inflight){MEMORY_BYTES, (how & 15) * 4096u, how & 16 ? 1 : QUEUES,
                                         how & 32 ? 8 : RING, 0};
  m.fds[m.fd_count++] = c->memory_fd;
  tell(c, &m);
}

/* Of what is written into the guest's memory, in that memory too. */
static void set_log(struct monitor *c, struct feed *f) {
  struct message m = message_of(VHOST_SET_LOG_BASE, sizeof m.log);
  uint8_t how = feed_u8(f);
  m.log = (struct message_log){how & 1 ? feed_u8(f) : 4096, (how >> 1) % 16 * 4096u};
  m.fds[m.fd_count++] = c->memory_fd;
  tell(c, &m);
  m = message_of(VHOST_SET_VRING_ADDR, sizeof m.addr);
  uint32_t q = how >> 5 & 1, at = q * NEXT_RING;
  m.addr = (struct message_vring_addr){q,
                                       1,
                                       USER + at + DESC_AT,
                                       USER + at + USED_AT,
                                       USER + at + AVAIL_AT,
                                       how & 64 ? -(uint64_t)feed_u16(f) : GUEST + at + USED_AT};
  tell(c, &m);
}

static void reconnect(struct monitor *c) {
  close(c->fd);
  message_close_fds(&c->reader.message);
  open_connection(c);
  settle(c);
}

static void cut_memory(struct monitor *c, uint16_t bytes) {
  check(ftruncate(c->memory_fd, bytes) == 0);
  kick(c);
  if (!(bytes & 1)) check(ftruncate(c->memory_fd, MEMORY_BYTES) == 0);
}

static void poke_bytes(struct monitor *c, struct feed *f) {
  uint8_t bytes[64];
  uint16_t at = feed_u16(f);
  size_t n = feed_bytes(f, bytes, feed_u8(f) % sizeof bytes);
  poke(c, at, bytes, n);
}

static void poke_any_desc(struct monitor *c, struct feed *f) {
  uint64_t at = feed_u8(f) * 16u, address = GUEST + feed_u16(f);
  uint8_t flags = feed_u8(f);
  uint32_t bytes = feed_u16(f);
  if (flags & 0x80) at += NEXT_RING;
  if (flags & 0x40) bytes <<= 16;
  if (flags & 0x20) address = -address;
  poke_desc(c, at, address, bytes, flags & 7, feed_u8(f));
}

static void step(struct monitor *c, struct feed *f) {
  uint8_t what = feed_u8(f);
  switch (what % 20) {
  case 0:
    raw_message(c, f);
    return;
  case 1:
    tell_regions(c, f, 1 + what / 20 % 3);
    return;
  case 2:
    tell_state(c, VHOST_SET_VRING_NUM, what / 20 % 3, feed_u8(f));
    return;
  case 3:
    tell_state(c, VHOST_SET_VRING_BASE, what / 20 % 3, feed_u16(f));
    return;
  case 4: {
    uint32_t desc = feed_u16(f), avail = feed_u16(f);
    tell_address(c, what / 20 % 3, desc, avail, feed_u16(f));
    return;
  }
  case 5:
    tell_fd(c, VHOST_SET_VRING_KICK + what / 20 % 3, feed_u8(f) % 3, c->event_fd);
    return;
  case 6:
    tell_state(c, VHOST_SET_VRING_ENABLE, what / 20 % 3, feed_u8(f) % 3);
    return;
  case 7:
    tell_state(c, VHOST_GET_VRING_BASE, what / 20 % 3, 0);
    return;
  case 8:
    set_inflight(c, f);
    return;
  case 9:
    poke_bytes(c, f);
    return;
  case 10:
    poke_any_desc(c, f);
    return;
  case 11:
    push(c, what / 20 % 2, feed_u8(f));
    return;
  case 12:
    kick(c);
    return;
  case 13:
    set_up(c, 0, what / 20 % 2);
    return;
  case 14: {
    uint8_t bit = feed_u8(f);
    set_up(c, UINT64_C(1) << (bit % 34), bit & 0x80);
    return;
  }
  case 15:
    cut_memory(c, feed_u16(f));
    return;
  case 16:
    change_region(c, f);
    return;
  case 17:
    reconnect(c);
    return;
  case 18:
    set_log(c, f);
    return;
  default:
    request(c, f);
    return;
  }
}

/* ---- Afterwards ------------------------------------------------------------------------------ */

/* Of the kinds that a monitor gives and gets; a fuzzer opens others when it likes. */
static uint32_t open_fds(void) {
  static const char *const kinds[] = {"socket:", "anon_inode:[eventfd]", "/memfd:"};
  uint32_t n = 0;
  DIR *d = opendir("/proc/self/fd");
  check(d != NULL);
  for (struct dirent *e; (e = readdir(d));) {
    char what[64] = {0};
    if (readlinkat(dirfd(d), e->d_name, what, sizeof what - 1) < 0) continue;
    for (uint32_t k = 0; k < array_size(kinds); k++)
      n += strncmp(what, kinds[k], strlen(kinds[k])) == 0;
  }
  closedir(d);
  return n;
}

/* The next monitor is served when all of the last one is gone. How many descriptors are open. */
static uint32_t look_after(void) {
  static struct monitor next;
  struct sr_vhost_info info;
  open_connection(&next);
  settle(&next);
  check(!next.gone);
  check(sr_vhost_stat(all.vhost, "disk", &info) == 0);
  check(info.in_flight == 0);
  uint32_t fds = open_fds();
  close(next.fd);
  return fds;
}

static void run_input(struct feed *in) {
  static struct monitor c;
  memset(&c, 0, sizeof c);
  c.memory_fd = memfd_create("fuzz", MFD_CLOEXEC);
  c.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  check(c.memory_fd >= 0 && c.event_fd >= 0);
  check(ftruncate(c.memory_fd, MEMORY_BYTES) == 0);
  open_connection(&c);
  for (uint32_t i = 0; i < STEPS_MAX && in->left > 0; i++) step(&c, in);
  close(c.fd);
  message_close_fds(&c.reader.message);
  close(c.memory_fd);
  close(c.event_fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static uint32_t fds_before;
  struct feed in = {data, size};
  if (!all.store) {
    const uint8_t set_up_once[] = {13}; /* what is kept from the first device on is no leak */
    struct feed first = {set_up_once, sizeof set_up_once};
    begin();
    atexit(end);
    run_input(&first);
    fds_before = look_after();
  }
  run_input(&in);
  check(look_after() == fds_before);
  return 0;
}
