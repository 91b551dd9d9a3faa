/* test_message.c - vhost-user messages through socket pairs: whole, in pieces, malformed; and what
 * becomes of descriptors. Messages are built as raw bytes here: a second opinion on the layout. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "api/vhost/message.h"

#define FDS_MAX 32

static int count_fds(void) {
  DIR *dir = opendir("/proc/self/fd");
  int n = 0;
  assert_non_null(dir);
  while (readdir(dir)) n++;
  closedir(dir);
  return n - 3; /* ".", "..", the directory itself */
}

struct pair {
  int front, back, fds_before;
  struct message_reader reader;
  struct message message;
};

static int set_up(void **state) {
  struct pair *p = calloc(1, sizeof(*p));
  int s[2];
  p->fds_before = count_fds();
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, s) < 0) return -1;
  p->front = s[0];
  p->back = s[1];
  fcntl(p->back, F_SETFL, O_NONBLOCK);
  *state = p;
  return 0;
}

/* Whatever a test has done, no descriptor is left. */
static int tear_down(void **state) {
  struct pair *p = *state;
  close(p->front);
  close(p->back);
  int left = count_fds() - p->fds_before;
  if (left) print_error("%d descriptors are left open\n", left);
  free(p);
  return left != 0;
}

/* As a front-end would: one sendmsg() with descriptors (copies of one file), in raw bytes. */
static void send_bytes(int fd, const void *bytes, size_t count, int fds) {
  char control[CMSG_SPACE(FDS_MAX * sizeof(int))] __attribute__((aligned(8))) = {0};
  struct iovec iov = {(void *)bytes, count};
  struct msghdr h = {.msg_iov = &iov, .msg_iovlen = 1};
  int file = memfd_create("test", MFD_CLOEXEC);
  if (fds > 0) {
    h.msg_control = control;
    h.msg_controllen = CMSG_SPACE((size_t)fds * sizeof(int));
    struct cmsghdr *c = CMSG_FIRSTHDR(&h);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN((size_t)fds * sizeof(int));
    for (int i = 0; i < fds; i++)
      memcpy(CMSG_DATA(c) + (size_t)i * sizeof(int), &file, sizeof(int));
  }
  assert_int_equal(sendmsg(fd, &h, 0), count);
  close(file);
}

struct wire {
  uint32_t words[3 + 5000 / 4];
};
static struct wire wire_of(uint32_t request, uint32_t flags, uint32_t bytes) {
  struct wire w = {{request, flags, bytes}};
  return w;
}
static void wire_u32(struct wire *w, uint32_t at, uint32_t v) { w->words[3 + at / 4] = v; }

static int receive(struct pair *p) {
  memset(&p->message, 0x5a, sizeof(p->message));
  return message_receive(p->back, &p->reader, &p->message);
}

/* ---- Whole and in pieces ---- */

static void test_whole(void **state) {
  struct pair *p = *state;
  struct wire w = wire_of(VHOST_SET_VRING_ADDR, MESSAGE_VERSION | MESSAGE_NEED_REPLY, 40);
  for (uint32_t i = 0; i < 10; i++) wire_u32(&w, 4 * i, i + 1);
  assert_int_equal(receive(p), 0);
  send_bytes(p->front, &w, 52, 0);
  assert_int_equal(receive(p), 1);
  assert_int_equal(p->message.request, VHOST_SET_VRING_ADDR);
  assert_int_equal(p->message.flags, 9);
  assert_int_equal(p->message.bytes, 40);
  assert_int_equal(p->message.fd_count, 0);
  assert_int_equal(p->message.addr.index, 1);
  assert_int_equal(p->message.addr.flags, 2);
  assert_true(p->message.addr.desc_user == 0x0000000400000003);
  assert_true(p->message.addr.log_guest == 0x0000000a00000009);
  for (uint32_t i = 40; i < sizeof(p->message.raw); i++) assert_int_equal(p->message.raw[i], 0);
  assert_int_equal(receive(p), 0);
}

/* Two at once are two; what the second one brings is its own. */
static void test_one_after_the_other(void **state) {
  struct pair *p = *state;
  struct wire a = wire_of(VHOST_SET_OWNER, 1, 0), b = wire_of(VHOST_SET_VRING_CALL, 1, 8);
  wire_u32(&b, 0, 3);
  send_bytes(p->front, &a, 12, 0);
  send_bytes(p->front, &b, 20, 1);
  send_bytes(p->front, &a, 12, 0);
  assert_int_equal(receive(p), 1);
  assert_int_equal(p->message.request, VHOST_SET_OWNER);
  assert_int_equal(p->message.fd_count, 0);
  assert_int_equal(receive(p), 1);
  assert_int_equal(p->message.request, VHOST_SET_VRING_CALL);
  assert_int_equal(p->message.u64, 3);
  assert_int_equal(p->message.fd_count, 1);
  struct stat st;
  assert_int_equal(fstat(p->message.fds[0], &st), 0);
  assert_int_equal(fcntl(p->message.fds[0], F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
  message_close_fds(&p->message);
  assert_int_equal(p->message.fd_count, 0);
  assert_int_equal(receive(p), 1);
  assert_int_equal(p->message.request, VHOST_SET_OWNER);
}

/* Byte for byte, the descriptors with the first one. */
static void test_in_pieces(void **state) {
  struct pair *p = *state;
  struct wire w = wire_of(VHOST_SET_MEM_TABLE, 1, 8 + 2 * 32);
  const char *bytes = (const char *)&w;
  size_t count = 12 + 8 + 2 * 32;
  wire_u32(&w, 0, 2);
  for (uint32_t at = 8; at < 8 + 2 * 32; at += 4) wire_u32(&w, at, at * 3);
  for (size_t i = 0; i < count; i++) {
    assert_int_equal(receive(p), 0);
    send_bytes(p->front, bytes + i, 1, i == 0 ? 2 : 0);
  }
  assert_int_equal(receive(p), 1);
  assert_int_equal(p->message.table.count, 2);
  assert_int_equal(p->message.fd_count, 2);
  assert_int_equal(memcmp(p->message.raw, w.words + 3, 8 + 2 * 32), 0);
  message_close_fds(&p->message);
  assert_int_equal(receive(p), 0);
}

static void test_closed_between(void **state) {
  struct pair *p = *state;
  shutdown(p->front, SHUT_WR);
  assert_int_equal(receive(p), -ENODATA);
}

/* In the header, in the payload: what came with it is closed (tear_down counts). */
static void test_closed_in_the_middle(void **state) {
  static const size_t cuts[] = {1, 11, 12, 19};
  struct wire w = wire_of(VHOST_SET_VRING_KICK, 1, 8);
  struct pair *p = *state;
  for (size_t i = 0; i < array_size(cuts); i++) {
    int s[2];
    struct message_reader reader = {0};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
    int before = count_fds();
    send_bytes(s[0], &w, cuts[i], 1);
    shutdown(s[0], SHUT_WR);
    assert_int_equal(message_receive(s[1], &reader, &p->message), -EBADMSG);
    assert_int_equal(count_fds(), before);
    close(s[0]);
    close(s[1]);
  }
}

static void test_too_long(void **state) {
  static const uint32_t sizes[] = {4097, 5000, UINT32_MAX - 12, UINT32_MAX - 11, UINT32_MAX};
  struct pair *p = *state;
  for (size_t i = 0; i < array_size(sizes); i++) {
    struct wire w = wire_of(77, 1, sizes[i]);
    int before = count_fds();
    send_bytes(p->front, &w, 12, 1);
    assert_int_equal(receive(p), -EMSGSIZE);
    assert_int_equal(count_fds(), before);
  }
  struct wire most = wire_of(77, 1, 4096);
  send_bytes(p->front, &most, 12 + 4096, 0);
  assert_int_equal(receive(p), 1);
  assert_int_equal(p->message.bytes, 4096);
}

/* ---- Descriptors ---- */

static void test_too_many_fds(void **state) {
  struct pair *p = *state;
  for (int fds = 0; fds <= 30; fds++) { /* an unknown request: up to eight pass */
    struct wire w = wire_of(77, 1, 4);
    int before = count_fds();
    send_bytes(p->front, &w, 16, fds);
    int r = receive(p);
    assert_int_equal(r, fds <= 8 ? 1 : -EBADMSG);
    if (r == 1) assert_int_equal(p->message.fd_count, fds);
    if (r == 1) assert_int_equal(count_fds(), before + fds);
    if (r == 1) message_close_fds(&p->message);
    assert_int_equal(count_fds(), before);
  }
}

static void test_fds_with_a_later_part(void **state) {
  struct pair *p = *state;
  struct wire w = wire_of(VHOST_SET_VRING_KICK, 1, 8);
  int before = count_fds();
  send_bytes(p->front, &w, 12, 1);
  assert_int_equal(receive(p), 0);
  assert_int_equal(count_fds(), before + 1);
  send_bytes(p->front, (char *)&w + 12, 4, 1);
  assert_int_equal(receive(p), 0);
  assert_int_equal(count_fds(), before + 1); /* at once */
  send_bytes(p->front, (char *)&w + 16, 4, 0);
  assert_int_equal(receive(p), -EBADMSG);
  assert_int_equal(count_fds(), before);
  /* The reader starts over. */
  send_bytes(p->front, &w, 20, 1);
  assert_int_equal(receive(p), 1);
  message_close_fds(&p->message);
}

/* ---- What each request must look like ---- */

struct legal {
  uint32_t request, bytes, fds;    /* of the request */
  int reply_bytes;                 /* -1: see the tests of its own */
  uint32_t word, value, reply_fds; /* a word of the payload that must hold so much */
};
static const struct legal legal[] = {
    {VHOST_GET_FEATURES, 0, 0, 8, 0, 0, 0},
    {VHOST_SET_FEATURES, 8, 0, 8, 0, 0, 0},
    {VHOST_SET_OWNER, 0, 0, 8, 0, 0, 0},
    {VHOST_RESET_OWNER, 0, 0, 8, 0, 0, 0},
    {VHOST_SET_MEM_TABLE, 8 + 3 * 32, 3, 8, 0, 3, 0},
    {VHOST_SET_LOG_BASE, 16, 1, -1, 0, 0, 0},
    {VHOST_SET_LOG_FD, 0, 1, 8, 0, 0, 0},
    {VHOST_SET_VRING_NUM, 8, 0, 8, 0, 0, 0},
    {VHOST_SET_VRING_ADDR, 40, 0, 8, 0, 0, 0},
    {VHOST_SET_VRING_BASE, 8, 0, 8, 0, 0, 0},
    {VHOST_GET_VRING_BASE, 8, 0, 8, 0, 0, 0},
    {VHOST_SET_VRING_KICK, 8, 1, 8, 0, 0, 0},
    {VHOST_SET_VRING_CALL, 8, 1, 8, 0, 0, 0},
    {VHOST_SET_VRING_ERR, 8, 1, 8, 0, 0, 0},
    {VHOST_GET_PROTOCOL_FEATURES, 0, 0, 8, 0, 0, 0},
    {VHOST_SET_PROTOCOL_FEATURES, 8, 0, 8, 0, 0, 0},
    {VHOST_GET_QUEUE_NUM, 0, 0, 8, 0, 0, 0},
    {VHOST_SET_VRING_ENABLE, 8, 0, 8, 0, 0, 0},
    {VHOST_SET_BACKEND_REQ_FD, 0, 1, 8, 0, 0, 0},
    {VHOST_GET_CONFIG, 12 + 57, 0, -1, 4, 57, 0},
    {VHOST_SET_CONFIG, 12 + 1, 0, 8, 4, 1, 0},
    {VHOST_RESET_DEVICE, 0, 0, 8, 0, 0, 0},
    {VHOST_GET_MAX_MEM_SLOTS, 0, 0, 8, 0, 0, 0},
    {VHOST_ADD_MEM_REG, 40, 1, 8, 0, 0, 0},
    {VHOST_REM_MEM_REG, 40, 1, 8, 0, 0, 0},
    {VHOST_SET_STATUS, 8, 0, 8, 0, 0, 0},
    {VHOST_GET_STATUS, 0, 0, 8, 0, 0, 0},
    {VHOST_SET_DEVICE_STATE_FD, 8, 1, 8, 0, 0, 1},
    {VHOST_CHECK_DEVICE_STATE, 0, 0, 8, 0, 0, 0},
};

/* Every size around the right one, and every number of descriptors. */
static void test_request_sizes(void **state) {
  struct pair *p = *state;
  for (size_t i = 0; i < array_size(legal); i++) {
    const struct legal *l = &legal[i];
    for (uint32_t bytes = 0; bytes <= 320; bytes++) {
      struct wire w = wire_of(l->request, 1, bytes);
      if (bytes > l->word + 3) wire_u32(&w, l->word, l->value);
      send_bytes(p->front, &w, 12 + bytes, 0);
      assert_int_equal(receive(p), bytes == l->bytes ? 1 : -EBADMSG);
    }
    for (int fds = 0; fds <= 8; fds++) {
      struct wire w = wire_of(l->request, 1, l->bytes);
      if (l->bytes > l->word + 3) wire_u32(&w, l->word, l->value);
      int before = count_fds();
      send_bytes(p->front, &w, 12 + l->bytes, fds);
      assert_int_equal(receive(p), fds <= (int)l->fds ? 1 : -EBADMSG);
      if (fds <= (int)l->fds) message_close_fds(&p->message);
      assert_int_equal(count_fds(), before);
    }
  }
}

static void test_reply_sizes(void **state) {
  struct pair *p = *state;
  p->reader.kind = MESSAGE_REPLIES;
  for (size_t i = 0; i < array_size(legal); i++) {
    const struct legal *l = &legal[i];
    for (uint32_t bytes = 0; l->reply_bytes >= 0 && bytes <= 320; bytes++) {
      struct wire w = wire_of(l->request, 5, bytes);
      send_bytes(p->front, &w, 12 + bytes, 0);
      assert_int_equal(receive(p), bytes == (uint32_t)l->reply_bytes ? 1 : -EBADMSG);
    }
    struct wire w = wire_of(l->request, 5, 8);
    send_bytes(p->front, &w, 12 + 8, 1);
    assert_int_equal(receive(p), l->reply_fds ? 1 : -EBADMSG);
    if (l->reply_fds) message_close_fds(&p->message);
  }
}

static int check_bytes(enum message_kind kind, uint32_t request, uint32_t bytes, uint32_t word,
                       uint32_t value) {
  static struct message m;
  memset(&m, 0, sizeof(m));
  m.request = request;
  m.flags = kind == MESSAGE_REPLIES ? 5 : 1;
  m.bytes = bytes;
  memcpy(m.raw + word, &value, sizeof(value));
  return message_check_as(&m, kind);
}

/* A count inside must be what the size says. */
static void test_counts_inside(void **state) {
  (void)state;
  for (uint32_t count = 0; count <= 20; count++)
    for (uint32_t bytes = 0; bytes <= 800; bytes++) {
      bool fits = count <= 8 && bytes == 8 + count * 32;
      assert_int_equal(check_bytes(MESSAGE_REQUESTS, VHOST_SET_MEM_TABLE, bytes, 0, count),
                       fits ? 0 : -EBADMSG);
    }
  assert_int_equal(check_bytes(MESSAGE_REQUESTS, VHOST_SET_MEM_TABLE, 8, 0, 0x08000000), -EBADMSG);
  static const uint32_t counts[] = {0, 1, 57, 60, 256, 257, 4000, UINT32_MAX - 11, UINT32_MAX};
  for (size_t i = 0; i < array_size(counts); i++)
    for (uint32_t bytes = 0; bytes <= 300; bytes++) {
      bool fits = counts[i] <= 256 && bytes == 12 + counts[i];
      int want = fits ? 0 : -EBADMSG;
      assert_int_equal(check_bytes(MESSAGE_REQUESTS, VHOST_GET_CONFIG, bytes, 4, counts[i]), want);
      assert_int_equal(check_bytes(MESSAGE_REQUESTS, VHOST_SET_CONFIG, bytes, 4, counts[i]), want);
      if (bytes == 0) want = 0; /* a failure */
      assert_int_equal(check_bytes(MESSAGE_REPLIES, VHOST_GET_CONFIG, bytes, 4, counts[i]), want);
    }
}

static void test_sizes_of_which_there_are_two(void **state) {
  (void)state;
  for (uint32_t bytes = 0; bytes <= 40; bytes++) {
    bool fits = bytes == 20 || bytes == 24;
    for (int reply = 0; reply < 2; reply++) {
      enum message_kind kind = reply ? MESSAGE_REPLIES : MESSAGE_REQUESTS;
      assert_int_equal(check_bytes(kind, VHOST_GET_INFLIGHT_FD, bytes, 0, 0), fits ? 0 : -EBADMSG);
    }
    assert_int_equal(check_bytes(MESSAGE_REQUESTS, VHOST_SET_INFLIGHT_FD, bytes, 0, 0),
                     fits ? 0 : -EBADMSG);
    assert_int_equal(check_bytes(MESSAGE_REPLIES, VHOST_SET_LOG_BASE, bytes, 0, 0),
                     bytes == 0 || bytes == 8 ? 0 : -EBADMSG);
  }
}

static void test_flags(void **state) {
  (void)state;
  struct message m = {.request = VHOST_SET_OWNER};
  for (uint32_t flags = 0; flags < 16; flags++) {
    m.flags = flags;
    assert_int_equal(message_check(&m), (flags & 7) == 1 ? 0 : -EBADMSG);
    assert_int_equal(message_check_as(&m, MESSAGE_BACKEND_REQUESTS),
                     (flags & 7) == 1 ? 0 : -EBADMSG);
    m.bytes = 8;
    assert_int_equal(message_check_as(&m, MESSAGE_REPLIES), (flags & 7) == 5 ? 0 : -EBADMSG);
    m.bytes = 0;
  }
}

/* On the back-end's channel number 2 is another request than on the front-end's. */
static void test_backend_requests(void **state) {
  struct pair *p = *state;
  p->reader.kind = MESSAGE_BACKEND_REQUESTS;
  for (uint32_t bytes = 0; bytes <= 16; bytes += 4) {
    struct wire w = wire_of(VHOST_BACKEND_CONFIG_CHANGE_MSG, 1, bytes);
    send_bytes(p->front, &w, 12 + bytes, 0);
    assert_int_equal(receive(p), bytes == 0 ? 1 : -EBADMSG);
  }
}

static void test_names(void **state) {
  (void)state;
  assert_string_equal(message_name(VHOST_GET_FEATURES), "GET_FEATURES");
  assert_string_equal(message_name(VHOST_CHECK_DEVICE_STATE), "CHECK_DEVICE_STATE");
  static const uint32_t unknown[] = {0, 19, 22, 44, 1000, UINT32_MAX};
  for (size_t i = 0; i < array_size(unknown); i++)
    assert_string_equal(message_name(unknown[i]), "unknown request");
}

/* ---- Sending ---- */

static void test_send(void **state) {
  struct pair *p = *state;
  int file = memfd_create("test", MFD_CLOEXEC);
  struct message m = {.request = VHOST_SET_VRING_CALL, .flags = 1, .bytes = 8, .u64 = 5};
  m.fds[0] = file;
  m.fd_count = 1;
  assert_int_equal(message_send(p->front, &m), 0);
  assert_int_equal(receive(p), 1);
  assert_int_equal(p->message.u64, 5);
  assert_int_equal(p->message.fd_count, 1);
  struct stat a, b;
  assert_int_equal(fstat(file, &a), 0);
  assert_int_equal(fstat(p->message.fds[0], &b), 0);
  assert_int_equal(a.st_ino, b.st_ino);
  message_close_fds(&p->message);
  close(file);
}

static void test_send_refuses(void **state) {
  struct pair *p = *state;
  struct message m = {.request = 77, .flags = 1, .bytes = 4097};
  assert_int_equal(message_send(p->front, &m), -EINVAL);
  m.bytes = 0;
  m.fd_count = 9;
  assert_int_equal(message_send(p->front, &m), -EINVAL);
  assert_int_equal(receive(p), 0);
}

static void test_send_to_nobody(void **state) {
  struct message m = {.request = VHOST_SET_OWNER, .flags = 1};
  int s[2];
  (void)state;
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, s), 0);
  close(s[1]);
  assert_int_equal(message_send(s[0], &m), -EPIPE); /* and no SIGPIPE */
  close(s[0]);
}

static void *drain(void *arg) {
  struct pair *p = arg;
  struct message_reader reader = {0};
  static struct message m;
  uintptr_t whole = 0;
  fcntl(p->back, F_SETFL, 0);
  while (message_receive(p->back, &reader, &m) == 1)
    whole += m.bytes == 4096 && m.raw[0] == 1 && m.raw[4095] == 2;
  return (void *)whole;
}

/* A full socket: refused whole, and what was accepted arrives whole. */
static void test_send_when_full(void **state) {
  struct pair *p = *state;
  static struct message m;
  uintptr_t sent = 0;
  void *whole;
  pthread_t thread;
  m = (struct message){.request = 77, .flags = 1, .bytes = 4096};
  m.raw[0] = 1;
  m.raw[4095] = 2;
  fcntl(p->front, F_SETFL, O_NONBLOCK);
  int r;
  while ((r = message_send(p->front, &m)) == 0) sent++;
  assert_int_equal(r, -EAGAIN);
  assert_true(sent > 0);
  assert_int_equal(pthread_create(&thread, NULL, drain, p), 0);
  for (int i = 0; i < 2000; i++) {
    while ((r = message_send(p->front, &m)) == -EAGAIN) sched_yield();
    assert_int_equal(r, 0);
    sent++;
  }
  shutdown(p->front, SHUT_WR);
  pthread_join(thread, &whole);
  assert_int_equal((uintptr_t)whole, sent);
}

#define pair_test(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      pair_test(test_whole),
      pair_test(test_one_after_the_other),
      pair_test(test_in_pieces),
      pair_test(test_closed_between),
      pair_test(test_closed_in_the_middle),
      pair_test(test_too_long),
      pair_test(test_too_many_fds),
      pair_test(test_fds_with_a_later_part),
      pair_test(test_request_sizes),
      pair_test(test_reply_sizes),
      cmocka_unit_test(test_counts_inside),
      cmocka_unit_test(test_sizes_of_which_there_are_two),
      cmocka_unit_test(test_flags),
      pair_test(test_backend_requests),
      cmocka_unit_test(test_names),
      pair_test(test_send),
      pair_test(test_send_refuses),
      pair_test(test_send_to_nobody),
      pair_test(test_send_when_full),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
