/* test_front.c - the front-end of shard-bench --engine=vhost against a small server in a thread,
 * which does all right but for one sin: each of them must be found, and named.
 *
 * The server owns its state from start to join; the main thread reads it afterwards. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "api/vhost/front.h"

#define DISK_BYTES (1u << 20)
#define SIZE       64u
#define BIT(n)     (UINT64_C(1) << (n))

static bool packed; /* rings: the program's argument */

enum sin {
  SIN_NONE,
  SIN_USED_TWICE,
  SIN_NO_HEAD,
  SIN_BEYOND,
  SIN_INDEX,
  SIN_NO_STATUS,
  SIN_STATUS,
  SIN_SHORT,
  SIN_LONG,
  SIN_BEHIND_STATUS,
  SIN_HEADER,
  SIN_NO_CALL,
  SIN_CLOSES, /* after it has taken a request, once */
  /* of messages */
  SIN_REFUSES,
  SIN_OTHER_ANSWER,
  SIN_CONFIG_SHORT,
  SIN_CONFIG_EMPTY,
  SIN_BLOCKS,
  SIN_NO_INFLIGHT_FILE,
  SIN_BASE,
  SIN_NO_VERSION_1,
};

struct server {
  enum sin sin;
  uint64_t features, protocol;
  int listen_fd, fd, kick_fd, call_fd;
  char path[108];
  pthread_t thread;
  struct guest_memory memory;
  struct vring ring;
  struct ring_id ids[SIZE];
  struct message_vring_addr addr;
  uint16_t size;
  uint32_t base;
  bool enabled;
  uint32_t connections, served;
  ino_t inflight_inode, inflight_given;
  char disk[DISK_BYTES];
};

/* ---- Requests ---- */

static void copy_data(struct server *s, const struct ring_chain *c, bool out, uint64_t offset) {
  uint32_t from = out ? 1 : c->out_count, to = out ? c->out_count : c->out_count + c->in_count - 1;
  for (uint32_t i = from; i < to && offset + c->iov[i].iov_len <= DISK_BYTES; i++) {
    if (out)
      memcpy(s->disk + offset, c->iov[i].iov_base, c->iov[i].iov_len);
    else
      memcpy(c->iov[i].iov_base, s->disk + offset, c->iov[i].iov_len);
    offset += c->iov[i].iov_len;
  }
}

/* Says that `id` is used, which need not be so. */
static void put_used(struct server *s, uint16_t head, uint32_t bytes, uint32_t id) {
  uint16_t at = s->ring.next_used;
  struct vring_packed_desc *descs = (void *)s->ring.desc;
  if (packed) s->ids[head].count = 1; /* even if it was put before */
  ring_put(&s->ring, head, bytes);
  if (packed)
    descs[at & ~RING_POSITION_WRAP].id = (uint16_t)id;
  else
    s->ring.used->ring[at & (SIZE - 1)].id = id;
}

static void put_chain(struct server *s, const struct ring_chain *c) {
  struct {
    uint32_t type, priority;
    uint64_t sector;
  } *header = c->iov[0].iov_base;
  uint8_t *status = c->iov[c->out_count + c->in_count - 1].iov_base;
  uint32_t bytes = (uint32_t)c->in_bytes, id = c->head;
  if (header->type == VFRONT_READ) copy_data(s, c, false, header->sector * 512);
  if (header->type == VFRONT_WRITE) copy_data(s, c, true, header->sector * 512);
  if (s->sin != SIN_NO_STATUS) *status = s->sin == SIN_STATUS ? 3 : BLK_OK;
  if (s->sin == SIN_BEHIND_STATUS) status[1] = 0;
  if (s->sin == SIN_HEADER) header->sector++;
  if (s->sin == SIN_SHORT) bytes--;
  if (s->sin == SIN_LONG) bytes++;
  if (s->sin == SIN_NO_HEAD) id = (id + 1) % SIZE;
  if (s->sin == SIN_BEYOND) id = SIZE + 5;
  put_used(s, c->head, bytes, id);
  if (s->sin == SIN_USED_TWICE) put_used(s, c->head, bytes, id);
  s->served++;
}

/* The driver has asked for a call, and most likely sleeps. */
static void wait_until_armed(struct server *s) {
  const struct timespec nap = {.tv_nsec = 5000000};
  volatile uint16_t *event = packed ? &s->ring.avail->flags : &s->ring.avail->ring[SIZE];
  while (*event != s->ring.told_used) sched_yield();
  nanosleep(&nap, NULL);
}

/* False: closes. */
static bool serve_ring(struct server *s) {
  struct iovec iov[32];
  struct ring_chain c = {.iov = iov, .room = 32};
  uint64_t one = 1;
  bool some = false;
  while (ring_available(&s->ring) > 0 && ring_take(&s->ring, &c) == 1) {
    if (s->sin == SIN_CLOSES) {
      s->sin = SIN_NONE;
      return false;
    }
    put_chain(s, &c);
    some = true;
  }
  if (!some) return true;
  if (s->sin == SIN_NO_CALL) wait_until_armed(s);
  if (s->sin == SIN_INDEX) s->ring.next_used = (uint16_t)(s->ring.next_used + 5);
  bool call = ring_publish(&s->ring);
  if (call && s->sin != SIN_NO_CALL) (void)!write(s->call_fd, &one, sizeof(one));
  ring_notify_me(&s->ring, true);
  return ring_available(&s->ring) <= 0 || serve_ring(s);
}

/* ---- Messages ---- */

static void keep_fd(int *to, struct message *m) {
  if (*to >= 0) close(*to);
  *to = m->fd_count ? m->fds[0] : -1;
  m->fd_count = 0;
}

static void map_ring(struct server *s) {
  const struct message_vring_addr *a = &s->addr;
  if (packed)
    ring_map_packed(&s->ring, &s->memory, s->size, a->desc_user, a->avail_user, a->used_user,
                    (uint16_t)s->base, (uint16_t)(s->base >> 16), s->ids);
  else
    ring_map(&s->ring, &s->memory, s->size, a->desc_user, a->avail_user, a->used_user,
             (uint16_t)s->base);
  s->ring.event_idx = s->features >> VIRTIO_F_EVENT_IDX & 1;
  s->ring.indirect = true;
  ring_notify_me(&s->ring, true);
}

static void add_memory(struct server *s, const struct message *m) {
  for (uint32_t i = 0; i < m->table.count; i++) {
    const struct message_region *r = &m->table.regions[i];
    memory_add(&s->memory, r->guest, r->user, r->bytes, r->file_offset, m->fds[i]);
  }
}

static ino_t inode_of(int fd) {
  struct stat st;
  return fstat(fd, &st) == 0 ? st.st_ino : 0;
}

/* What is told and not asked. */
static void take(struct server *s, struct message *m) {
  switch (m->request) {
  case VHOST_SET_MEM_TABLE:
    add_memory(s, m);
    break;
  case VHOST_SET_VRING_NUM:
    s->size = (uint16_t)m->state.num;
    break;
  case VHOST_SET_VRING_BASE:
    s->base = m->state.num;
    break;
  case VHOST_SET_VRING_ADDR:
    s->addr = m->addr;
    break;
  case VHOST_SET_VRING_KICK:
    keep_fd(&s->kick_fd, m);
    break;
  case VHOST_SET_VRING_CALL:
    keep_fd(&s->call_fd, m);
    break;
  case VHOST_SET_INFLIGHT_FD:
    s->inflight_given = inode_of(m->fds[0]);
    break;
  case VHOST_SET_VRING_ENABLE:
    if (m->state.num) map_ring(s);
    s->enabled = m->state.num;
    break;
  default:
    break;
  }
}

/* What is asked: the answer is in m. */
static bool answer(struct server *s, struct message *m) {
  m->bytes = 8;
  switch (m->request) {
  case VHOST_GET_FEATURES:
    m->u64 = s->features;
    return true;
  case VHOST_GET_PROTOCOL_FEATURES:
    m->u64 = s->protocol;
    return true;
  case VHOST_GET_QUEUE_NUM:
    m->u64 = 1;
    return true;
  case VHOST_GET_VRING_BASE:
    m->state.num = (uint16_t)(s->ring.last_avail + (s->sin == SIN_BASE));
    if (packed) m->state.num |= (uint32_t)s->ring.next_used << 16;
    return true;
  case VHOST_GET_CONFIG:
    m->bytes = 12 + m->config.bytes;
    memset(m->config.region, 0, sizeof(m->config.region));
    m->config.region[1] = DISK_BYTES / 512 >> 8;
    m->config.region[21] = 2; /* 512 */
    if (s->sin == SIN_BLOCKS) m->config.region[21] = 32;
    if (s->sin == SIN_CONFIG_SHORT) m->bytes = 12 + --m->config.bytes;
    if (s->sin == SIN_CONFIG_EMPTY) m->bytes = 0;
    return true;
  case VHOST_GET_INFLIGHT_FD:
    m->bytes = sizeof(m->inflight);
    m->inflight.mmap_bytes = 4096;
    if (s->sin == SIN_NO_INFLIGHT_FILE) return true;
    m->fds[m->fd_count++] = memfd_create("inflight", MFD_CLOEXEC);
    s->inflight_inode = inode_of(m->fds[0]);
    return true;
  default:
    return false;
  }
}

static bool serve_message(struct server *s, struct message *m) {
  bool asked = answer(s, m);
  if (!asked) take(s, m);
  if (!asked && m->flags & MESSAGE_NEED_REPLY) {
    m->u64 = s->sin == SIN_REFUSES && m->request == VHOST_SET_VRING_ADDR;
    asked = true;
  }
  if (!asked) return message_close_fds(m), true;
  m->flags = MESSAGE_VERSION | MESSAGE_REPLY;
  if (m->bytes != 0 && m->request != VHOST_GET_INFLIGHT_FD) message_close_fds(m);
  if (s->sin == SIN_OTHER_ANSWER && m->request == VHOST_GET_QUEUE_NUM)
    m->request = VHOST_GET_FEATURES;
  bool sent = message_send(s->fd, m) == 0;
  message_close_fds(m);
  return sent;
}

static void serve_connection(struct server *s) {
  static struct message m;
  struct message_reader reader = {0};
  for (;;) {
    struct pollfd p[2] = {{.fd = s->fd, .events = POLLIN},
                          {.fd = s->enabled ? s->kick_fd : -1, .events = POLLIN}};
    uint64_t count;
    poll(p, 2, -1);
    if (p[1].revents & POLLIN) {
      (void)!read(s->kick_fd, &count, sizeof(count));
      if (!serve_ring(s)) return;
    }
    if (p[0].revents && (message_receive(s->fd, &reader, &m) != 1 || !serve_message(s, &m))) return;
  }
}

static void *server_main(void *arg) {
  struct server *s = arg;
  while ((s->fd = accept(s->listen_fd, NULL, NULL)) >= 0) {
    s->connections++;
    s->enabled = false;
    serve_connection(s);
    memory_clear(&s->memory);
    close(s->fd);
  }
  if (s->kick_fd >= 0) close(s->kick_fd);
  if (s->call_fd >= 0) close(s->call_fd);
  return NULL;
}

/* ---- Set-up ---- */

static struct server *start_server(enum sin sin) {
  struct server *s = calloc(1, sizeof(*s));
  struct sockaddr_un a = {.sun_family = AF_UNIX};
  const char *dir = getenv("TMPDIR");
  s->sin = sin;
  s->kick_fd = s->call_fd = -1;
  s->features = BIT(VIRTIO_F_VERSION_1) | BIT(VHOST_USER_F_PROTOCOL_FEATURES) |
                BIT(VIRTIO_F_EVENT_IDX) | BIT(VIRTIO_F_INDIRECT_DESC) | BIT(BLK_F_BLK_SIZE) |
                BIT(BLK_F_FLUSH);
  s->protocol = BIT(VHOST_PF_MQ) | BIT(VHOST_PF_CONFIG) | BIT(VHOST_PF_REPLY_ACK) |
                BIT(VHOST_PF_INFLIGHT_SHMFD);
  if (packed) s->features |= BIT(VIRTIO_F_RING_PACKED);
  if (sin == SIN_NO_VERSION_1) s->features &= ~BIT(VIRTIO_F_VERSION_1);
  snprintf(s->path, sizeof(s->path), "%.60s/shardring-front.%d", dir ? dir : "/tmp", getpid());
  memcpy(a.sun_path, s->path, sizeof(a.sun_path));
  unlink(s->path);
  s->listen_fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  assert_int_equal(bind(s->listen_fd, (struct sockaddr *)&a, sizeof(a)), 0);
  assert_int_equal(listen(s->listen_fd, 4), 0);
  assert_int_equal(pthread_create(&s->thread, NULL, server_main, s), 0);
  return s;
}

static void stop_server(struct server *s) {
  shutdown(s->listen_fd, SHUT_RDWR);
  pthread_join(s->thread, NULL);
  close(s->listen_fd);
  unlink(s->path);
  free(s);
}

static int open_front(struct server *s, struct vfront **f, char why[256]) {
  const struct vfront_options o = {
      .socket = s->path, .queues = 1, .depth = SIZE, .buffer_bytes = 1 << 20, .packed = packed};
  why[0] = 0;
  return vfront_open(f, &o, why, 256);
}

static struct vfront_request request(struct vfront *f, uint32_t op, uint64_t offset, uint32_t at) {
  return (struct vfront_request){.op = op, .bytes = 4096, .offset = offset, .buf = f->buffers + at};
}

/* ---- Tests ---- */

static void test_in_order(void **state) {
  (void)state;
  char why[256];
  struct vfront *f;
  struct server *s = start_server(SIN_NONE);
  assert_int_equal(open_front(s, &f, why), 0);
  assert_int_equal(f->size_bytes, DISK_BYTES);
  assert_int_equal(f->block_bytes, 512);
  assert_true(f->inflight_fd >= 0);
  struct vfront_queue *q = &f->queues[0];
  struct vfront_request w = request(f, VFRONT_WRITE, 8192, 0),
                        r = request(f, VFRONT_READ, 8192, 4096);
  memset(f->buffers, 7, 4096);
  for (int i = 0; i < 200; i++) { /* more than once around the ring */
    f->buffers[i] = (char)i;
    w.pieces = 1 + (uint32_t)(i % 3);
    assert_int_equal(vfront_do(q, &w), BLK_OK);
    assert_int_equal(vfront_do(q, &r), BLK_OK);
    assert_memory_equal(f->buffers, f->buffers + 4096, 4096);
  }
  assert_int_equal(vfront_stop(f), 0);
  assert_int_equal(vfront_start(f), 0);
  assert_int_equal(vfront_do(q, &r), BLK_OK);
  struct vfront_request flush = {.op = VFRONT_FLUSH};
  assert_int_equal(vfront_do(q, &flush), BLK_OK);
  vfront_close(f);
  stop_server(s);
}

/* As many as the ring has, at once; the surplus is not taken. */
static void test_full_ring(void **state) {
  (void)state;
  char why[256];
  struct vfront *f;
  struct server *s = start_server(SIN_NONE);
  struct vfront_request requests[SIZE + 1], *pointers[SIZE + 1], *back[SIZE + 1];
  assert_int_equal(open_front(s, &f, why), 0);
  struct vfront_queue *q = &f->queues[0];
  for (uint32_t i = 0; i <= SIZE; i++) {
    requests[i] = request(f, VFRONT_READ, i % 4 * 4096, i % 4 * 4096);
    pointers[i] = &requests[i];
  }
  for (uint32_t round = 0; round < 20; round++) {
    assert_int_equal(vfront_submit(q, pointers, SIZE + 1), SIZE);
    assert_int_equal(vfront_submit(q, pointers + SIZE, 1), 0);
    for (uint32_t left = SIZE; left > 0;) {
      assert_int_equal(vfront_wait(q, 10000), 1);
      int n = vfront_reap(q, back, SIZE + 1);
      assert_true(n > 0 && (uint32_t)n <= left);
      left -= (uint32_t)n;
    }
    assert_int_equal(vfront_reap(q, back, SIZE + 1), 0);
  }
  vfront_close(f);
  stop_server(s);
}

static const struct {
  enum sin sin;
  const char *text, *packed; /* packed: if it is another one; "": there is no such sin */
} ring_sins[] = {
    {SIN_USED_TWICE, "with 1 in flight", "nothing is in flight"},
    {SIN_NO_HEAD, "not in flight", NULL},
    {SIN_BEYOND, "which is no head", "which is none"},
    {SIN_INDEX, "with 1 in flight", ""},
    {SIN_NO_STATUS, "status 0xff", NULL},
    {SIN_STATUS, "status 0x03", NULL},
    {SIN_SHORT, "4096 bytes written instead of 4097", NULL},
    {SIN_LONG, "4098 bytes written, of 4097", NULL},
    {SIN_BEHIND_STATUS, "behind a status byte", NULL},
    {SIN_HEADER, "written to a request's header", NULL},
    {SIN_NO_CALL, "there was no call", NULL},
};

/* Where it did not sleep yet when the request was finished no call was missed: once more. */
static int do_short(struct vfront_queue *q, struct vfront_request *r) {
  int error = 1;
  for (int i = 0; i < 100 && error == 1; i++) {
    assert_int_equal(vfront_submit(q, &r, 1), 1);
    error = vfront_wait(q, 50);
    if (error == 1) assert_int_equal(vfront_reap(q, &r, 1), 1);
  }
  return error;
}

static void test_ring_sins(void **state) {
  (void)state;
  for (size_t i = 0; i < array_size(ring_sins); i++) {
    char why[256];
    struct vfront *f;
    const char *text = packed && ring_sins[i].packed ? ring_sins[i].packed : ring_sins[i].text;
    if (!*text) continue;
    struct server *s = start_server(ring_sins[i].sin);
    assert_int_equal(open_front(s, &f, why), 0);
    struct vfront_request r = request(f, VFRONT_READ, 0, 0), *p = &r;
    int error = ring_sins[i].sin == SIN_NO_CALL ? do_short(&f->queues[0], &r)
                                                : vfront_do(&f->queues[0], &r);
    assert_int_equal(error, -EPROTO);
    if (!strstr(f->queues[0].why, text)) fail_msg("\"%s\" is not in: %s", text, f->queues[0].why);
    assert_int_equal(vfront_submit(&f->queues[0], &p, 1), -EPROTO); /* no way on */
    vfront_close(f);
    stop_server(s);
  }
}

/* The same head in two entries of one drain, with others still in flight. */
static void test_used_twice_among_others(void **state) {
  (void)state;
  char why[256];
  struct vfront *f;
  struct server *s = start_server(SIN_NONE);
  struct vfront_request requests[3], *pointers[3], *back[3];
  assert_int_equal(open_front(s, &f, why), 0);
  struct vfront_queue *q = &f->queues[0];
  for (uint32_t i = 0; i < 3; i++) {
    requests[i] = request(f, VFRONT_READ, 0, i * 4096);
    pointers[i] = &requests[i];
  }
  assert_int_equal(vfront_submit(q, pointers, 3), 3);
  if (packed) {
    struct vring_packed_desc *descs = (void *)q->desc;
    while (vfront_used_base(q) != (0x80038003u)) sched_yield();
    descs[1].id = descs[0].id;
  } else {
    while (__atomic_load_n(&q->used->index, __ATOMIC_ACQUIRE) != 3) sched_yield();
    q->used->ring[1].id = q->used->ring[0].id;
  }
  assert_int_equal(vfront_reap(q, back, 3), -EPROTO);
  assert_non_null(strstr(q->why, "used twice?"));
  vfront_close(f);
  stop_server(s);
}

static const struct {
  enum sin sin;
  int error;
  const char *text;
} message_sins[] = {
    {SIN_REFUSES, -EPROTO, "SET_VRING_ADDR was refused"},
    {SIN_OTHER_ANSWER, -EPROTO, "GET_QUEUE_NUM was answered with GET_FEATURES"},
    {SIN_CONFIG_SHORT, -EPROTO, "asked for 60 bytes, got 59"},
    {SIN_CONFIG_EMPTY, -EPROTO, "asked for 60 bytes, got 0"},
    {SIN_BLOCKS, -EPROTO, "blocks of 8192 bytes"},
    {SIN_NO_INFLIGHT_FILE, -EPROTO, "GET_INFLIGHT_FD: no file"},
    {SIN_NO_VERSION_1, -ENOTSUP, "VERSION_1"},
};

static void test_message_sins(void **state) {
  (void)state;
  for (size_t i = 0; i < array_size(message_sins); i++) {
    char why[256];
    struct vfront *f;
    struct server *s = start_server(message_sins[i].sin);
    assert_int_equal(open_front(s, &f, why), message_sins[i].error);
    assert_null(f);
    if (!strstr(why, message_sins[i].text))
      fail_msg("\"%s\" is not in: %s", message_sins[i].text, why);
    stop_server(s);
  }
}

static void test_wrong_base(void **state) {
  (void)state;
  char why[256];
  struct vfront *f;
  struct server *s = start_server(SIN_BASE);
  assert_int_equal(open_front(s, &f, why), 0);
  assert_int_equal(vfront_stop(f), -EPROTO);
  assert_non_null(
      strstr(f->why, packed ? "GET_VRING_BASE of queue 0: 2147516417, but used are 2147516416"
                            : "GET_VRING_BASE of queue 0: 1, but used are 0"));
  vfront_close(f);
  stop_server(s);
}

/* It goes with a request in flight; the next one gets the same in-flight file, and the request. */
static void test_reconnect(void **state) {
  (void)state;
  char why[256];
  struct vfront *f;
  struct server *s = start_server(SIN_CLOSES);
  assert_int_equal(open_front(s, &f, why), 0);
  struct vfront_queue *q = &f->queues[0];
  struct vfront_request w = request(f, VFRONT_WRITE, 4096, 0), *p = &w, *back;
  memset(f->buffers, 9, 4096);
  assert_int_equal(vfront_submit(q, &p, 1), 1);
  assert_int_equal(vfront_wait(q, 10000), -ECONNRESET);
  assert_int_equal(vfront_alive(f), -ECONNRESET);
  assert_int_equal(vfront_reconnect(f, 1000), 0);
  assert_int_equal(vfront_wait(q, 10000), 1);
  assert_int_equal(vfront_reap(q, &back, 1), 1);
  assert_ptr_equal(back, &w);
  assert_int_equal(w.status, BLK_OK);
  vfront_close(f);
  /* The server has read all that we sent when it has closed, which the join waits for. */
  shutdown(s->listen_fd, SHUT_RDWR);
  pthread_join(s->thread, NULL);
  assert_int_equal(s->connections, 2);
  assert_int_equal(s->served, 1);
  assert_true(s->inflight_inode != 0 && s->inflight_given == s->inflight_inode);
  assert_int_equal(s->disk[4096], 9);
  close(s->listen_fd);
  unlink(s->path);
  free(s);
}

static void test_reconnect_without_a_file(void **state) {
  (void)state;
  char why[256];
  struct vfront *f;
  struct server *s = start_server(SIN_CLOSES);
  s->protocol &= ~BIT(VHOST_PF_INFLIGHT_SHMFD); /* nobody has connected yet */
  assert_int_equal(open_front(s, &f, why), 0);
  struct vfront_request r = request(f, VFRONT_READ, 0, 0), *p = &r;
  assert_int_equal(vfront_submit(&f->queues[0], &p, 1), 1);
  assert_int_equal(vfront_wait(&f->queues[0], 10000), -ECONNRESET);
  assert_int_equal(vfront_reconnect(f, 0), -ENOTSUP);
  vfront_close(f);
  stop_server(s);
}

static void test_no_packed_rings(void **state) {
  (void)state;
  char why[256];
  struct vfront *f;
  struct server *s = start_server(SIN_NONE);
  s->features &= ~BIT(VIRTIO_F_RING_PACKED); /* nobody has connected yet */
  assert_int_equal(open_front(s, &f, why), packed ? -ENOTSUP : 0);
  assert_true(!packed || strstr(why, "packed rings"));
  vfront_close(f);
  stop_server(s);
}

static void test_nobody_listens(void **state) {
  (void)state;
  char why[256];
  struct vfront *f;
  const struct vfront_options o = {.socket = "/nowhere/at/all", .queues = 1, .depth = 1};
  assert_int_equal(vfront_open(&f, &o, why, sizeof(why)), -ENOENT);
  assert_non_null(strstr(why, "/nowhere/at/all"));
}

int main(int argc, char **argv) {
  packed = argc > 1 && strcmp(argv[1], "packed") == 0;
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_in_order),       cmocka_unit_test(test_full_ring),
      cmocka_unit_test(test_ring_sins),      cmocka_unit_test(test_used_twice_among_others),
      cmocka_unit_test(test_message_sins),   cmocka_unit_test(test_wrong_base),
      cmocka_unit_test(test_reconnect),      cmocka_unit_test(test_reconnect_without_a_file),
      cmocka_unit_test(test_nobody_listens), cmocka_unit_test(test_no_packed_rings),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
