/* cases_message.c - messages that are cut, oversized, of the wrong kind, or come with descriptors
 * that nobody asked for; and monitors that are slow, many, or never read. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/hostile/hostile.h"

static const uint32_t known[] = {VHOST_GET_FEATURES,
                                 VHOST_SET_FEATURES,
                                 VHOST_SET_OWNER,
                                 VHOST_RESET_OWNER,
                                 VHOST_SET_MEM_TABLE,
                                 VHOST_SET_LOG_BASE,
                                 VHOST_SET_LOG_FD,
                                 VHOST_SET_VRING_NUM,
                                 VHOST_SET_VRING_ADDR,
                                 VHOST_SET_VRING_BASE,
                                 VHOST_GET_VRING_BASE,
                                 VHOST_SET_VRING_KICK,
                                 VHOST_SET_VRING_CALL,
                                 VHOST_SET_VRING_ERR,
                                 VHOST_GET_PROTOCOL_FEATURES,
                                 VHOST_GET_QUEUE_NUM,
                                 VHOST_SET_PROTOCOL_FEATURES,
                                 VHOST_SET_VRING_ENABLE,
                                 VHOST_GET_CONFIG,
                                 VHOST_SET_CONFIG,
                                 VHOST_SET_BACKEND_REQ_FD,
                                 VHOST_GET_INFLIGHT_FD,
                                 VHOST_SET_INFLIGHT_FD,
                                 VHOST_RESET_DEVICE,
                                 VHOST_ADD_MEM_REG,
                                 VHOST_REM_MEM_REG,
                                 VHOST_GET_MAX_MEM_SLOTS,
                                 VHOST_SET_STATUS,
                                 VHOST_GET_STATUS,
                                 VHOST_SET_DEVICE_STATE_FD,
                                 VHOST_CHECK_DEVICE_STATE};

static void send_header(struct monitor *m, uint32_t request, uint32_t flags, uint32_t bytes,
                        const int *fds, uint32_t fd_count) {
  uint32_t header[3] = {request, flags, bytes};
  mon_raw(m, header, sizeof header, fds, fd_count);
}

/* A header, and less behind it than it says; then we hang up. */
static void cut_short(void) {
  static const uint8_t zeros[4096];
  for (uint32_t i = 0; i < array_size(known); i++)
    for (uint32_t cut = 1; cut < 12 + 64; cut += 13) {
      struct monitor m;
      uint32_t header[3] = {known[i], MESSAGE_VERSION, 64};
      int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
      mon_open(&m, world.bad);
      mon_raw(&m, header, cut < 12 ? cut : 12, &fd, 1);
      if (cut > 12) mon_raw(&m, zeros, cut - 12, NULL, 0);
      close(fd);
      mon_close(&m);
    }
}

static void oversized(void) {
  static const uint32_t sizes[] = {4097, 65536, 0x7fffffff, 0x80000000, 0xfffffff4, 0xffffffff};
  static const uint8_t noise[8192];
  for (uint32_t i = 0; i < array_size(known); i += 3)
    for (uint32_t s = 0; s < array_size(sizes); s++) {
      struct monitor m;
      mon_open(&m, world.bad);
      send_header(&m, known[i], MESSAGE_VERSION, sizes[s], NULL, 0);
      mon_raw(&m, noise, sizeof noise, NULL, 0);
      if (world.strict) expect_dropped(&m);
      mon_close(&m);
    }
}

/* Payloads that are a little or much too small or large for the request. */
static void wrong_sizes(void) {
  static const uint32_t sizes[] = {0, 1, 7, 9, 12, 19, 23, 25, 39, 41, 72, 268, 4096};
  for (uint32_t i = 0; i < array_size(known); i++)
    for (uint32_t s = 0; s < array_size(sizes); s++) {
      struct monitor m;
      struct message set = msg(known[i], sizes[s]);
      memset(set.raw, 0xff, sizes[s]);
      mon_open(&m, world.bad);
      mon_send(&m, &set);
      mon_close(&m);
    }
}

static void wrong_flags(void) {
  static const uint32_t flags[] = {0, 2, 3, 5, 0xfffffffc, 0xffffffff, MESSAGE_REPLY};
  for (uint32_t i = 0; i < array_size(flags); i++) {
    struct monitor m;
    struct message ask = msg(VHOST_GET_FEATURES, 0);
    ask.flags = flags[i];
    mon_open(&m, world.bad);
    mon_send(&m, &ask);
    if (world.strict) expect_dropped(&m);
    mon_close(&m);
  }
}

/* Every request with no, one, and far too many descriptors. */
static void surplus_fds(void) {
  int fds[253];
  for (uint32_t i = 0; i < 253; i++) fds[i] = STDERR_FILENO;
  static const uint32_t counts[] = {1, 2, 8, 9, 253};
  for (uint32_t i = 0; i < array_size(known); i++)
    for (uint32_t c = 0; c < array_size(counts); c++) {
      struct monitor m;
      struct message set = msg(known[i], 8);
      mon_open(&m, world.bad);
      uint8_t wire[20] = {0};
      memcpy(wire, &set, 12);
      mon_raw(&m, wire, sizeof wire, fds, counts[c]);
      mon_close(&m);
    }
}

/* Descriptors with every byte of a message, not only with the first one. */
static void fds_in_the_middle(void) {
  int fd = STDERR_FILENO;
  for (uint32_t i = 0; i < 20; i++) {
    struct monitor m;
    struct message set = msg_u64(VHOST_SET_VRING_CALL, 0);
    mon_open(&m, world.bad);
    for (uint32_t at = 0; at < 20; at++)
      mon_raw(&m, at < 12 ? (const char *)&set + at : (const char *)set.raw + (at - 12), 1, &fd,
              at >= i);
    if (world.strict && i < 19) expect_dropped(&m);
    mon_close(&m);
  }
}

static void no_such_request(void) {
  static const uint32_t requests[] = {0, 19, 20, 22, 26, 33, 41, 44, 255, 0x80000000, 0xffffffff};
  for (uint32_t i = 0; i < array_size(requests); i++) {
    struct monitor m;
    struct message set = msg(requests[i], i * 100);
    for (uint32_t f = 0; f < MESSAGE_FDS_MAX; f++) set.fds[set.fd_count++] = STDERR_FILENO;
    mon_open(&m, world.bad);
    mon_negotiate(&m);
    if (world.strict)
      expect(mon_tell(&m, &set) == REFUSED);
    else
      mon_send(&m, &set);
    mon_close(&m);
  }
}

/* The whole of a proper conversation, a byte at a time: that is slow, but no crime. */
static void byte_by_byte(void) {
  struct monitor m;
  mon_open(&m, world.bad);
  for (uint32_t round = 0; round < 40; round++) {
    struct message ask = msg(VHOST_GET_FEATURES, 0);
    for (uint32_t at = 0; at < 12; at++) mon_raw(&m, (const char *)&ask + at, 1, NULL, 0);
  }
  for (uint32_t round = 0; round < 40; round++) {
    struct message ask = msg(VHOST_GET_FEATURES, 0);
    if (round == 39) expect(mon_ask(&m, &ask));
  }
  mon_close(&m);
}

/* Hundreds of questions, and nobody reads the answers. */
static void never_reads(void) {
  struct monitor m;
  int small = 4096;
  mon_open(&m, world.bad);
  setsockopt(m.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
  struct message ask = msg(VHOST_GET_CONFIG, 12 + 256);
  ask.config.bytes = 256;
  uint8_t wire[12 + 268];
  memcpy(wire, &ask, 12);
  memcpy(wire + 12, ask.raw, 268);
  uint64_t end = now_ms() + 20000;
  for (uint32_t full = 0; full < 50 && now_ms() < end;) {
    ssize_t n = send(m.fd, wire, sizeof wire, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN) break; /* it has given up on us */
    if (n == (ssize_t)sizeof wire) continue;
    full++;
    nap_ms(1);
  }
  const char *wrong = good_progress(40);
  if (wrong) fail_case("meanwhile: %s", wrong);
  mon_close(&m);
}

/* Noise, some of it with a header that is almost right. */
static void noise(void) {
  struct random r = {11};
  for (uint32_t i = 0; i < 300; i++) {
    struct monitor m;
    uint8_t bytes[600];
    for (uint32_t b = 0; b < sizeof bytes; b++) bytes[b] = (uint8_t)random_next(&r);
    if (i % 3) {
      uint32_t header[3] = {known[random_below(&r, array_size(known))],
                            MESSAGE_VERSION | (i % 2 ? MESSAGE_NEED_REPLY : 0),
                            (uint32_t)random_below(&r, 300)};
      memcpy(bytes, header, 12);
    }
    int fd = STDERR_FILENO;
    mon_open(&m, world.bad);
    mon_raw(&m, bytes, 1 + random_below(&r, sizeof bytes - 1), &fd, (uint32_t)random_below(&r, 2));
    mon_close(&m);
  }
}

/* Whoever has the socket's name connects again and again, and holds on to what it gets. */
static void connect_flood(void) {
  static struct monitor many[64];
  struct monitor m;
  for (uint32_t i = 0; i < 500; i++) {
    mon_open(&m, world.bad);
    mon_close(&m);
  }
  uint32_t n = 0;
  for (; n < 16; n++) mon_open(&many[n], world.bad); /* one is served, others wait */
  const char *wrong = good_progress(40);
  if (wrong) fail_case("meanwhile: %s", wrong);
  for (uint32_t i = 0; i < n; i++) mon_close(&many[i]);
}

/* A byte now and then, for longer than a monitor has to become active: it is dropped, so that the
 * next one in the queue comes to its turn. */
static void one_byte_a_while(void) {
  struct monitor m;
  struct message ask = msg(VHOST_GET_CONFIG, 12 + 256);
  ask.config.bytes = 256;
  mon_open(&m, world.late);
  uint64_t end = now_ms() + 20000;
  for (uint32_t at = 0; !m.dropped; at++) {
    if (now_ms() > end) fail_case("a monitor that does nothing is not dropped");
    mon_raw(&m, at % 268 < 12 ? (const char *)&ask + at % 268 : "", 1, NULL, 0);
    nap_ms(20);
  }
  mon_close(&m);
  /* Complete messages that lead nowhere help no more. */
  mon_open(&m, world.late);
  while (!m.dropped) {
    if (now_ms() > end) fail_case("a monitor that does nothing is not dropped");
    ask = msg(VHOST_GET_FEATURES, 0);
    mon_ask(&m, &ask);
    nap_ms(5);
  }
  mon_close(&m);
  expect_serves(world.late);
}

/* Numbers of bytes and offsets that have nothing to do with a configuration. */
static void odd_config(void) {
  static const uint32_t offsets[] = {0, 1, 33, 59, 60, 61, 255, 256, 257, 0x80000000, 0xffffffff};
  static const uint32_t sizes[] = {0, 1, 7, 57, 60, 61, 255, 256};
  struct monitor m;
  for (uint32_t i = 0; i < array_size(offsets); i++)
    for (uint32_t s = 0; s < array_size(sizes); s++) {
      struct message ask = msg(VHOST_GET_CONFIG, 12 + sizes[s]);
      ask.config.offset = offsets[i];
      ask.config.bytes = sizes[s];
      mon_open(&m, world.bad);
      mon_negotiate(&m);
      if (mon_ask(&m, &ask) && m.reply.bytes) {
        expect(m.reply.config.bytes == sizes[s] && m.reply.bytes == 12 + sizes[s]);
        for (uint32_t b = 0; b < sizes[s] && world.strict; b++)
          if ((uint64_t)offsets[i] + b >= BLK_CONFIG_BYTES) expect(m.reply.config.region[b] == 0);
      }
      struct message set = msg(VHOST_SET_CONFIG, 12 + sizes[s]);
      set.config.offset = offsets[i];
      set.config.bytes = sizes[s];
      memset(set.config.region, 0xff, sizes[s]);
      if (world.strict) expect_refused(&m, &set);
      mon_close(&m);
    }
}

/* Sizes inside of payloads that say something else than the payload's. */
static void lying_counts(void) {
  static const uint32_t counts[] = {0, 2, 8, 9, 0xffff, 0x10000001, 0xffffffff};
  for (uint32_t i = 0; i < array_size(counts); i++) {
    struct monitor m;
    struct message set = msg(VHOST_SET_MEM_TABLE, 8 + 32);
    set.table.count = counts[i];
    set.table.regions[0] = (struct message_region){0, 4096, 0, 0};
    mon_open(&m, world.bad);
    mon_negotiate(&m);
    if (world.strict) expect_refused(&m, &set);
    mon_close(&m);
    struct message ask = msg(VHOST_GET_CONFIG, 12 + 4);
    ask.config.bytes = counts[i];
    mon_open(&m, world.bad);
    mon_send(&m, &ask);
    mon_close(&m);
  }
}

const struct hostile_case cases_message[] = {
    {"message_cut_short", "messages truncated", cut_short, false},
    {"message_oversized", "nothing is allocated at a size that is named", oversized, false},
    {"message_wrong_sizes", "payloads of another size", wrong_sizes, false},
    {"message_wrong_flags", "versions, replies as requests", wrong_flags, false},
    {"message_surplus_fds", "close every surplus descriptor (CVE-2022-0669)", surplus_fds, false},
    {"message_fds_in_the_middle", "descriptors behind a message's first byte", fds_in_the_middle,
     false},
    {"message_unknown", "requests that there are not", no_such_request, false},
    {"message_byte_by_byte", "a slow monitor", byte_by_byte, false},
    {"message_never_reads", "a monitor that reads no answer", never_reads, false},
    {"message_noise", "random bytes", noise, false},
    {"message_lying_counts", "counts inside of payloads", lying_counts, false},
    {"message_odd_config", "GET_CONFIG, SET_CONFIG: odd offsets and sizes", odd_config, false},
    {"connect_flood", "limits on connections", connect_flood, false},
    {"connect_idle", "time to activate", one_byte_a_while, true},
    {0},
};
