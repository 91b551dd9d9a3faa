/* test_server.c - the vhost-user-blk server as an embedder has it, with a front-end that checks
 * everything: requests, configuration, resizing, detaching, migration's log, and disks that go from
 * one server to the next while they are in use. */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "api/vhost/handover.h"
#include "api/vhost/front.h"

#define DISK  (UINT64_C(16) << 20)
#define BLOCK 4096u

static bool packed; /* rings: the program's argument */

struct rig {
  char dir[256], store_path[300], socket[300];
  struct sr_store *store;
  struct sr_port *port;
  struct sr_vhost *vhost;
  struct vfront *front;
};

/* ---- The rig ----------------------------------------------------------------------------------
 */

static void open_store(struct rig *r) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  o.core_count = 2;
  o.no_pin = true;
  o.lock_timeout_ms = 5000;
  assert_int_equal(sr_store_open(r->store_path, &o, &r->store), 0);
  assert_int_equal(sr_port_open(r->store, NULL, &r->port), 0);
  assert_int_equal(sr_vhost_start(r->store, NULL, &r->vhost), 0);
}

static void close_store(struct rig *r) {
  sr_vhost_stop(r->vhost);
  assert_int_equal(sr_port_close(r->port), 0);
  assert_int_equal(sr_store_close(r->store), 0);
  r->vhost = NULL;
}

static int set_up(void **state) {
  struct rig *r = calloc(1, sizeof *r);
  struct sr_format_options f = SR_FORMAT_OPTIONS_INIT;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  const char *tmp = getenv("TMPDIR");
  assert_non_null(r);
  snprintf(r->dir, sizeof r->dir, "%s/vhost-XXXXXX", tmp ? tmp : ".");
  assert_non_null(mkdtemp(r->dir));
  snprintf(r->store_path, sizeof r->store_path, "%s/store", r->dir);
  snprintf(r->socket, sizeof r->socket, "%s/socket", r->dir);
  f.size_bytes = 96 << 20;
  f.shards = 2;
  assert_int_equal(sr_format(r->store_path, &f), 0);
  open_store(r);
  v.size_bytes = DISK;
  assert_int_equal(sr_volume_create(r->port, "plain", &v), 0);
  v.striped = true;
  assert_int_equal(sr_volume_create(r->port, "striped", &v), 0);
  *state = r;
  return 0;
}

static int tear_down(void **state) {
  struct rig *r = *state;
  char command[400];
  vfront_close(r->front);
  close_store(r);
  assert_int_not_equal(access(r->socket, F_OK), 0); /* it was taken away */
  snprintf(command, sizeof command, "rm -rf '%s'", r->dir);
  assert_int_equal(system(command), 0);
  free(r);
  return 0;
}

static void attach(struct rig *r, const char *volume, uint32_t queues) {
  struct sr_vhost_disk d = SR_VHOST_DISK_INIT;
  d.volume = volume;
  d.socket = r->socket;
  d.queues = queues;
  d.serial = "a serial";
  assert_int_equal(sr_vhost_attach(r->vhost, "disk", &d), 0);
}

/* So many requests in so many milliseconds. */
static void limit(struct rig *r, const char *volume, uint64_t size, uint64_t ms) {
  struct sr_limits l = SR_LIMITS_INIT;
  l.ops = (struct sr_bucket){size, 0, ms};
  assert_int_equal(sr_volume_limit(r->port, volume, &l), 0);
}

static void connect_front(struct rig *r, uint32_t queues) {
  char why[256] = "";
  struct vfront_options o = {.socket = r->socket,
                             .queues = queues,
                             .depth = 16,
                             .pieces = 4,
                             .regions = 2,
                             .buffer_bytes = 4 << 20,
                             .packed = packed,
                             .connect_ms = 5000};
  int e = vfront_open(&r->front, &o, why, sizeof why);
  if (e) fail_msg("%s: %s", strerror(-e), why);
}

static int transfer(struct rig *r, uint32_t queue, uint32_t op, uint64_t offset, uint32_t bytes) {
  struct vfront_request q = {
      .op = op, .bytes = bytes, .offset = offset, .buf = r->front->buffers, .pieces = 3};
  return vfront_do(&r->front->queues[queue], &q);
}

static struct sr_vhost_info info_of(struct rig *r) {
  struct sr_vhost_info info;
  assert_int_equal(sr_vhost_stat(r->vhost, "disk", &info), 0);
  return info;
}

/* ---- Requests ---------------------------------------------------------------------------------
 */

static void reads_what_was_written(void **state) {
  struct rig *r = *state;
  attach(r, "striped", 3);
  connect_front(r, 3);
  assert_int_equal(r->front->size_bytes, DISK);
  for (uint32_t i = 0; i < 12; i++) {
    memset(r->front->buffers, 'a' + (int)i, 12288);
    assert_int_equal(transfer(r, i % 3, VFRONT_WRITE, (uint64_t)i * 1111040, 12288), BLK_OK);
  }
  for (uint32_t i = 0; i < 12; i++) {
    assert_int_equal(transfer(r, (i + 1) % 3, VFRONT_READ, (uint64_t)i * 1111040, 12288), BLK_OK);
    for (uint32_t k = 0; k < 12288; k++) assert_int_equal(r->front->buffers[k], 'a' + (int)i);
  }
  /* Of 512 bytes, between others. */
  memset(r->front->buffers, 'Z', 512);
  assert_int_equal(transfer(r, 0, VFRONT_WRITE, 1024, 512), BLK_OK);
  assert_int_equal(transfer(r, 1, VFRONT_READ, 0, 4096), BLK_OK);
  assert_int_equal(r->front->buffers[1023], 'a');
  assert_int_equal(r->front->buffers[1024], 'Z');
  assert_int_equal(r->front->buffers[1536], 'a');
  assert_int_equal(transfer(r, 0, VFRONT_FLUSH, 0, 0), BLK_OK);
  assert_int_equal(transfer(r, 0, VFRONT_WRITE_ZEROES, 0, 8192), BLK_OK);
  assert_int_equal(transfer(r, 0, VFRONT_READ, 0, 12288), BLK_OK);
  assert_int_equal(r->front->buffers[1024], 0);
  assert_int_equal(r->front->buffers[8192], 'a');
  assert_int_equal(transfer(r, 0, VFRONT_DISCARD, 8192, 4096), BLK_OK);
  assert_int_equal(transfer(r, 0, VFRONT_READ, 8192, 4096), BLK_OK);
  assert_int_equal(r->front->buffers[0], 0);
  assert_int_equal(transfer(r, 0, VFRONT_GET_ID, 0, 20), BLK_OK);
  assert_string_equal(r->front->buffers, "a serial");
  assert_int_equal(transfer(r, 0, VFRONT_READ, DISK - 512, 1024), BLK_IOERR);
  struct sr_vhost_info info = info_of(r);
  assert_true(info.connected && info.active && info.striped);
  assert_int_equal(info.queues_active, 3);
  assert_int_equal(info.writes, 13);
  assert_int_equal(info.write_bytes, 12 * 12288 + 512);
  assert_int_equal(info.errors, 1);
  assert_int_equal(info.flushes, 1);
  assert_int_equal(info.in_flight, 0);
}

static void serves_a_file(void **state) {
  struct rig *r = *state;
  struct sr_vhost_disk d = SR_VHOST_DISK_INIT;
  char path[300];
  snprintf(path, sizeof path, "%s/file", r->dir);
  FILE *f = fopen(path, "w");
  assert_non_null(f);
  assert_int_equal(ftruncate(fileno(f), 1 << 20), 0);
  fclose(f);
  d.file = path;
  d.socket = r->socket;
  assert_int_equal(sr_vhost_attach(r->vhost, "disk", &d), 0);
  connect_front(r, 1);
  assert_int_equal(r->front->size_bytes, 1 << 20);
  assert_int_equal(r->front->block_bytes, 512);
  memset(r->front->buffers, 'f', 1024);
  assert_int_equal(transfer(r, 0, VFRONT_WRITE, 512, 1024), BLK_OK);
  assert_int_equal(transfer(r, 0, VFRONT_READ, 0, 4096), BLK_OK);
  assert_int_equal(r->front->buffers[511], 0);
  assert_int_equal(r->front->buffers[512], 'f');
  assert_int_equal(r->front->buffers[1536], 0);
}

static void many_in_flight(void **state) {
  struct rig *r = *state;
  attach(r, "plain", 2);
  connect_front(r, 2);
  struct vfront_request all[32], *done[32], *one;
  for (int round = 0; round < 200; round++) {
    for (uint32_t i = 0; i < 32; i++) {
      all[i] = (struct vfront_request){.op = round % 2 ? VFRONT_READ : VFRONT_WRITE,
                                       .bytes = BLOCK * (1 + i % 4),
                                       .offset = (uint64_t)i * 65536,
                                       .buf = r->front->buffers + i * 65536,
                                       .pieces = i % 4};
      memset(all[i].buf, round % 2 ? 0 : round + (int)i, all[i].bytes);
      one = &all[i];
      assert_int_equal(vfront_submit(&r->front->queues[i % 2], &one, 1), 1);
    }
    for (uint32_t q = 0, n = 0; q < 2; q++, n = 0)
      while (n < 16) {
        int got = vfront_reap(&r->front->queues[q], done, 32);
        assert_true(got >= 0);
        if (!got) assert_int_equal(vfront_wait(&r->front->queues[q], 10000), 1);
        n += (uint32_t)got;
      }
    for (uint32_t i = 0; i < 32; i++) {
      assert_int_equal(all[i].status, BLK_OK);
      const uint8_t *p = all[i].buf;
      if (round % 2)
        for (uint32_t k = 0; k < all[i].bytes; k += 511)
          assert_int_equal(p[k], (uint8_t)(round - 1 + (int)i));
    }
  }
}

/* Blocks of 4 KiB are for drivers that were told of them; others write 512 bytes, and get them. */
static void drivers_that_know_no_blocks(void **state) {
  struct rig *r = *state;
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  v.size_bytes = DISK;
  v.block_bytes = 4096;
  assert_int_equal(sr_volume_create(r->port, "large blocks", &v), 0);
  attach(r, "large blocks", 1);
  for (int knows = 1; knows >= 0; knows--) {
    char why[256] = "";
    struct vfront_options o = {.socket = r->socket,
                               .queues = 1,
                               .depth = 4,
                               .pieces = 4,
                               .buffer_bytes = 65536,
                               .connect_ms = 5000,
                               .features_off = knows ? 0 : UINT64_C(1) << BLK_F_BLK_SIZE};
    assert_int_equal(vfront_open(&r->front, &o, why, sizeof why), 0);
    memset(r->front->buffers, 'k', 4096);
    assert_int_equal(transfer(r, 0, VFRONT_WRITE, 0, 4096), BLK_OK);
    memset(r->front->buffers, 's', 512);
    assert_int_equal(transfer(r, 0, VFRONT_WRITE, 512, 512), knows ? BLK_IOERR : BLK_OK);
    assert_int_equal(transfer(r, 0, VFRONT_READ, 0, 4096), BLK_OK);
    assert_int_equal(r->front->buffers[511], 'k');
    assert_int_equal(r->front->buffers[512], knows ? 'k' : 's');
    assert_int_equal(r->front->buffers[1023], knows ? 'k' : 's');
    assert_int_equal(r->front->buffers[1024], 'k');
    vfront_close(r->front);
    r->front = NULL;
  }
}

/* Whatever the umask, and the processor's time is no longer than it can be. */
static void sockets_have_their_mode(void **state) {
  struct rig *r = *state;
  struct sr_vhost_disk d = SR_VHOST_DISK_INIT;
  struct stat st;
  d.volume = "plain";
  d.socket = r->socket;
  d.mode = 0666;
  mode_t before = umask(077);
  assert_int_equal(sr_vhost_attach(r->vhost, "disk", &d), 0);
  umask(before);
  assert_int_equal(stat(r->socket, &st), 0);
  assert_int_equal(st.st_mode & 07777, 0666);
  connect_front(r, 1);
  uint64_t begin = clock_now_ns(&clock_monotonic), paused = 0;
  for (int i = 0; i < 20; i++) {
    assert_int_equal(transfer(r, 0, VFRONT_READ, 0, 4096), BLK_OK);
    uint64_t pause = clock_now_ns(&clock_monotonic);
    usleep(10000); /* nobody works then */
    paused += clock_now_ns(&clock_monotonic) - pause;
  }
  assert_true(info_of(r).cpu_ns <= clock_now_ns(&clock_monotonic) - begin - paused);
}

/* ---- Control ----------------------------------------------------------------------------------
 */

static void detaches(void **state) {
  struct rig *r = *state;
  struct sr_vhost_disk d = SR_VHOST_DISK_INIT;
  struct sr_vhost_info infos[2];
  attach(r, "plain", 1);
  d.volume = "plain";
  d.socket = r->socket;
  assert_int_equal(sr_vhost_attach(r->vhost, "disk", &d), -EEXIST);
  assert_int_equal(sr_vhost_attach(r->vhost, "other", &d), -EBUSY); /* open for writing */
  d.read_only = true;
  assert_int_equal(sr_vhost_attach(r->vhost, "other", &d), -EEXIST); /* the socket */
  d.volume = "nothing";
  assert_int_equal(sr_vhost_attach(r->vhost, "other", &d), -ENOENT);
  assert_int_equal(sr_vhost_list(r->vhost, "", infos, 2), 1);
  assert_int_equal(sr_vhost_list(r->vhost, "disk", infos, 2), 0);
  assert_int_equal(sr_volume_remove(r->port, "plain"), -EBUSY);
  connect_front(r, 1);
  assert_int_equal(sr_vhost_detach(r->vhost, "disk", false), -EBUSY);
  assert_int_equal(sr_vhost_detach(r->vhost, "nothing", true), -ENOENT);
  assert_int_equal(sr_vhost_detach(r->vhost, "disk", true), 0);
  assert_int_equal(sr_vhost_stat(r->vhost, "disk", infos), -ENOENT);
  assert_int_equal(vfront_alive(r->front), -ECONNRESET);
  assert_int_not_equal(access(r->socket, F_OK), 0);
  assert_int_equal(sr_volume_remove(r->port, "plain"), 0);
}

static void read_only_disks(void **state) {
  struct rig *r = *state;
  struct sr_vhost_disk d = SR_VHOST_DISK_INIT;
  d.volume = "plain";
  d.socket = r->socket;
  d.read_only = true;
  assert_int_equal(sr_vhost_attach(r->vhost, NULL, &d), 0);
  connect_front(r, 1);
  assert_true(r->front->read_only);
  assert_int_equal(transfer(r, 0, VFRONT_READ, 0, 4096), BLK_OK);
  assert_int_equal(transfer(r, 0, VFRONT_WRITE, 0, 4096), BLK_IOERR);
}

static void resizes_live(void **state) {
  struct rig *r = *state;
  attach(r, "plain", 1);
  connect_front(r, 1);
  assert_int_equal(transfer(r, 0, VFRONT_READ, DISK, 4096), BLK_IOERR);
  assert_int_equal(sr_volume_resize(r->port, "plain", 2 * DISK, false), 0);
  assert_int_equal(sr_vhost_resized(r->vhost, "disk"), 0);
  assert_int_equal(vfront_config_changed(r->front, 5000), 1);
  assert_int_equal(vfront_config(r->front), 0);
  assert_int_equal(r->front->size_bytes, 2 * DISK);
  assert_int_equal(transfer(r, 0, VFRONT_READ, DISK, 4096), BLK_OK);
}

static void stops_and_starts(void **state) {
  struct rig *r = *state;
  attach(r, "plain", 2);
  connect_front(r, 2);
  for (int i = 0; i < 20; i++) {
    memset(r->front->buffers, i, 8192);
    assert_int_equal(transfer(r, i % 2, VFRONT_WRITE, (uint64_t)i * 8192, 8192), BLK_OK);
    assert_int_equal(vfront_stop(r->front), 0);
    assert_int_equal(info_of(r).queues_active, 0);
    assert_int_equal(vfront_start(r->front), 0);
    assert_int_equal(transfer(r, i % 2, VFRONT_READ, (uint64_t)i * 8192, 8192), BLK_OK);
    assert_int_equal(r->front->buffers[8191], i);
  }
}

/* A split ring's base is 0; a packed one has its wrap counters. */
static void base_of_a_ring_that_never_ran(void **state) {
  struct rig *r = *state;
  attach(r, "plain", 2);
  connect_front(r, 1);
  struct message m = vfront_message(VHOST_GET_VRING_BASE, sizeof m.state);
  m.state.index = 1;
  assert_int_equal(vfront_ask(r->front, &m, true), 0);
  assert_int_equal(r->front->message.state.index, 1);
  assert_int_equal(r->front->message.state.num, packed ? 0x80008000u : 0);
}

/* ---- Migration ----------------------------------------------------------------------------------
 */

static bool is_marked(const uint8_t *bits, uint64_t guest) {
  return bits[(guest >> 12) / 8] >> (guest >> 12) % 8 & 1;
}

static void logs_what_it_writes(void **state) {
  struct rig *r = *state;
  attach(r, "plain", 1);
  connect_front(r, 1);
  struct vfront *f = r->front;
  uint64_t bytes = ((f->guest_base + f->memory_bytes) >> 15) + 1;
  int fd = memfd_create("log", MFD_CLOEXEC);
  assert_int_equal(ftruncate(fd, (off_t)bytes), 0);
  uint8_t *bits = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  assert_true(bits != MAP_FAILED);
  assert_int_equal(transfer(r, 0, VFRONT_READ, 0, 8192), BLK_OK);
  struct message m = vfront_message(VHOST_SET_LOG_BASE, sizeof m.log);
  m.log.bytes = bytes;
  m.fds[m.fd_count++] = fd;
  assert_int_equal(vfront_ask(f, &m, true), 0);
  m = vfront_message(VHOST_SET_FEATURES, 8);
  m.u64 = f->features | UINT64_C(1) << VHOST_F_LOG_ALL;
  assert_int_equal(vfront_ask(f, &m, false), 0);
  uint64_t page = vfront_guest_address(f, f->buffers);
  assert_false(is_marked(bits, page)); /* what was read before it began */
  struct vfront_request q = {
      .op = VFRONT_WRITE, .bytes = 4096, .offset = 4096, .buf = f->buffers + 4096};
  assert_int_equal(vfront_do(&f->queues[0], &q), BLK_OK);
  assert_false(is_marked(bits, page + 4096)); /* the device read it */
  q = (struct vfront_request){.op = VFRONT_READ, .bytes = 8192, .buf = f->buffers + 16384};
  assert_int_equal(vfront_do(&f->queues[0], &q), BLK_OK);
  assert_true(is_marked(bits, page + 16384));
  assert_true(is_marked(bits, page + 20480));
  assert_false(is_marked(bits, page + 24576));
  uint64_t marked = 0;
  for (uint64_t i = 0; i < bytes; i++) marked += (uint64_t)__builtin_popcount(bits[i]);
  assert_true(marked > 2); /* status bytes lie elsewhere */
  /* What it writes to rings is marked where it is asked for: the address is the used ring's. */
  const struct vfront_queue *ring = &f->queues[0];
  uint64_t written = vfront_guest_address(f, packed ? (void *)ring->desc : (void *)ring->used);
  assert_false(is_marked(bits, written));
  m = vfront_message(VHOST_SET_VRING_ADDR, sizeof m.addr);
  m.addr = (struct message_vring_addr){.flags = 1,
                                       .desc_user = (uintptr_t)ring->desc,
                                       .used_user = (uintptr_t)ring->used,
                                       .avail_user = (uintptr_t)ring->avail,
                                       .log_guest = vfront_guest_address(f, ring->used)};
  assert_int_equal(vfront_ask(f, &m, false), 0);
  assert_int_equal(vfront_do(&f->queues[0], &q), BLK_OK);
  assert_true(is_marked(bits, written));
  assert_false(is_marked(bits, vfront_guest_address(f, ring->avail)));
  munmap(bits, bytes);
  close(fd);
}

static void saves_its_state(void **state) {
  struct rig *r = *state;
  int ends[2];
  attach(r, "plain", 1);
  connect_front(r, 1);
  for (int load = 0; load < 3; load++) { /* saves, loads what it saved, refuses anything else */
    if (load != 1) assert_int_equal(pipe(ends), 0);
    if (load == 2) assert_int_equal(write(ends[1], "something", 9), 9);
    if (load) close(ends[1]);
    struct message m = vfront_message(VHOST_SET_DEVICE_STATE_FD, sizeof m.device_state);
    m.device_state.direction = load > 0;
    m.fds[m.fd_count++] = load ? ends[0] : ends[1];
    assert_int_equal(vfront_ask(r->front, &m, true), 0);
    assert_int_equal(r->front->message.u64, 0x100); /* through the pipe that it was given */
    if (load) close(ends[0]);
    m = vfront_message(VHOST_CHECK_DEVICE_STATE, 0);
    assert_int_equal(vfront_ask(r->front, &m, true), 0);
    assert_int_equal(r->front->message.u64, load == 2);
  }
}

/* ---- From one server to the next
 * ----------------------------------------------------------------- */

struct load {
  struct vfront_queue *queue;
  char *buf;
  uint64_t offset;
  atomic_bool stop;
  atomic_uint rounds;
  atomic_int failed;
};

/* Writes and reads back, round after round. */
static void *keep_busy(void *arg) {
  struct load *l = arg;
  for (uint32_t n = 1; !atomic_load(&l->stop) && !l->failed; n++) {
    struct vfront_request q = {
        .op = VFRONT_WRITE, .bytes = 8192, .offset = l->offset + n % 64 * 8192, .buf = l->buf};
    memset(l->buf, (int)n, 8192);
    l->failed = vfront_do(l->queue, &q);
    memset(l->buf, 0, 8192);
    q.op = VFRONT_READ;
    if (!l->failed) l->failed = vfront_do(l->queue, &q);
    if (!l->failed && (l->buf[0] != (char)n || l->buf[8191] != (char)n)) l->failed = -EILSEQ;
    atomic_fetch_add(&l->rounds, 1);
  }
  return NULL;
}

struct successor {
  int socket, result;
  struct sr_vhost_handover *handover;
};
static void *receive(void *arg) {
  struct successor *s = arg;
  s->result = sr_vhost_receive(s->socket, &s->handover);
  return NULL;
}

static void wait_for_rounds(struct load *l, uint32_t more) {
  uint32_t from = atomic_load(&l->rounds);
  while (atomic_load(&l->rounds) - from < more && !l->failed) usleep(1000);
}

static uint64_t timed(const struct sr_vhost_info *info) {
  uint64_t n = 0;
  for (uint32_t i = 0; i < SR_LATENCY_BUCKETS; i++) n += info->latency_ns[i];
  return n;
}

/* Counters never go back. */
static void expect_no_less(struct sr_vhost_info now, struct sr_vhost_info before) {
  assert_true(now.reads >= before.reads && now.writes >= before.writes);
  assert_true(now.read_bytes >= before.read_bytes && now.write_bytes >= before.write_bytes);
  assert_true(now.kicks >= before.kicks && now.calls >= before.calls);
  assert_true(now.cpu_ns >= before.cpu_ns && before.cpu_ns > 0);
  assert_true(timed(&now) >= timed(&before) && timed(&before) > 0);
}

static void goes_to_the_next_server(void **state) {
  struct rig *r = *state;
  struct load loads[2];
  pthread_t threads[2], taker;
  attach(r, "striped", 2);
  connect_front(r, 2);
  for (int i = 0; i < 2; i++) {
    loads[i] = (struct load){.queue = &r->front->queues[i],
                             .buf = r->front->buffers + i * 65536,
                             .offset = (uint64_t)i * (DISK / 2)};
    assert_int_equal(pthread_create(&threads[i], NULL, keep_busy, &loads[i]), 0);
  }
  for (int round = 0; round < 5; round++) {
    struct successor s = {.socket = -1};
    int ends[2];
    wait_for_rounds(&loads[0], 20);
    struct sr_vhost_info before = info_of(r);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    s.socket = ends[1];
    assert_int_equal(pthread_create(&taker, NULL, receive, &s), 0);
    assert_int_equal(sr_vhost_hand_over(r->vhost, ends[0]), 0);
    pthread_join(taker, NULL);
    assert_int_equal(s.result, 0);
    struct sr_vhost_info none;
    assert_int_equal(sr_vhost_list(r->vhost, "", &none, 1), 0);
    close_store(r);
    open_store(r);
    assert_int_equal(sr_vhost_resume(r->vhost, s.handover), 0);
    expect_no_less(info_of(r), before);
    close(ends[0]);
    close(ends[1]);
    wait_for_rounds(&loads[0], 20);
    wait_for_rounds(&loads[1], 20);
    assert_int_equal(info_of(r).connections, 1);
  }
  for (int i = 0; i < 2; i++) {
    atomic_store(&loads[i].stop, true);
    pthread_join(threads[i], NULL);
    assert_int_equal(loads[i].failed, 0);
  }
  /* Nothing was forgotten on the way. */
  uint64_t rounds = atomic_load(&loads[0].rounds) + atomic_load(&loads[1].rounds);
  assert_int_equal(info_of(r).reads, rounds);
  assert_int_equal(info_of(r).writes, rounds);
  assert_int_equal(info_of(r).write_bytes, rounds * 8192);
  /* A next monitor finds the same socket. */
  vfront_close(r->front);
  connect_front(r, 2);
  assert_int_equal(transfer(r, 0, VFRONT_READ, 0, 4096), BLK_OK);
  assert_int_equal(info_of(r).connections, 2);
}

/* ---- Limits ------------------------------------------------------------------------------------
 */

#define WAITING 32

/* Two queues full of writes, all but the first of which wait at a limit. */
static void fill_queues(struct rig *r, struct vfront_request all[WAITING], int round) {
  uint64_t before = info_of(r).limit_waits;
  for (uint32_t i = 0; i < WAITING; i++) {
    struct vfront_request *one = &all[i];
    all[i] = (struct vfront_request){.op = VFRONT_WRITE,
                                     .bytes = BLOCK,
                                     .offset = (uint64_t)i * 65536,
                                     .buf = r->front->buffers + i * BLOCK,
                                     .status = -1};
    memset(all[i].buf, round + (int)i, BLOCK);
    assert_int_equal(vfront_submit(&r->front->queues[i % 2], &one, 1), 1);
  }
  while (info_of(r).limit_waits - before < WAITING - 1) usleep(1000);
}

static void expect_all_done(struct rig *r, struct vfront_request all[WAITING]) {
  struct vfront_request *done[WAITING];
  int n = 0;
  for (uint32_t q = 0; q < 2; q++)
    for (int got = 1; got; n += got) {
      got = vfront_reap(&r->front->queues[q], done, WAITING);
      assert_true(got >= 0);
    }
  assert_int_equal(n, WAITING);
  for (uint32_t i = 0; i < WAITING; i++) assert_int_equal(all[i].status, BLK_OK);
}

/* One request in 49 days: none of these ends if it waits for those that the limit holds up. */
static void a_limit_holds_up_no_stop(void **state) {
  static const char *const volumes[] = {"plain", "striped"};
  struct rig *r = *state;
  struct vfront_request all[WAITING];
  for (int i = 0; i < 2; i++) {
    struct successor s = {.socket = -1};
    pthread_t taker;
    int ends[2];
    limit(r, volumes[i], 1, UINT32_MAX);
    attach(r, volumes[i], 2);
    connect_front(r, 2);
    fill_queues(r, all, i);
    /* To the next server. */
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    s.socket = ends[1];
    assert_int_equal(pthread_create(&taker, NULL, receive, &s), 0);
    assert_int_equal(sr_vhost_hand_over(r->vhost, ends[0]), 0);
    pthread_join(taker, NULL);
    assert_int_equal(s.result, 0);
    expect_all_done(r, all);
    close_store(r);
    open_store(r);
    assert_int_equal(sr_vhost_resume(r->vhost, s.handover), 0);
    struct sr_vhost_info info = info_of(r);
    assert_int_equal(info.writes, WAITING);
    assert_int_equal(info.errors, 0);
    assert_in_range(info.limit_waits, WAITING - 1, WAITING);
    assert_true(info.limit_wait_ns > 0);
    close(ends[0]);
    close(ends[1]);
    /* Detached. */
    fill_queues(r, all, i + 7);
    assert_int_equal(sr_vhost_detach(r->vhost, "disk", true), 0);
    expect_all_done(r, all);
    vfront_close(r->front);
    /* The server ends. */
    attach(r, volumes[i], 2);
    connect_front(r, 2);
    fill_queues(r, all, i + 9);
    sr_vhost_stop(r->vhost);
    expect_all_done(r, all);
    vfront_close(r->front);
    r->front = NULL;
    assert_int_equal(sr_vhost_start(r->store, NULL, &r->vhost), 0);
  }
}

/* A monitor stops queues because the guest has made it: those that wait get up to 30 s ahead. */
static void a_stopped_queue_hurries(void **state) {
  struct rig *r = *state;
  struct vfront_request all[WAITING];
  attach(r, "plain", 2);
  limit(r, "plain", 1, 900); /* all of them: 28 s */
  connect_front(r, 2);
  fill_queues(r, all, 0);
  assert_int_equal(vfront_stop(r->front), 0);
  expect_all_done(r, all);
  limit(r, "plain", 0, 0);
}

#define MANY 100 /* with more pieces than there is room for at a time */

/* The data's eight pieces the other way round: else they lie in a row and are one. */
static void scatter(const struct vfront_queue *q, uint32_t head) {
  char *at = q->front->memory + (q->desc[head].address - q->front->guest_base);
  struct vring_desc *table = (void *)at;
  assert_int_equal(q->desc[head].bytes, 10 * sizeof *table);
  for (uint32_t i = 1; i <= 4; i++) {
    uint64_t address = table[i].address;
    table[i].address = table[9 - i].address;
    table[9 - i].address = address;
  }
}

/* What a server before had taken is finished when the base is told, also what still waits for room:
 * the base says that it was taken, and nobody else would do it. */
static void a_stop_ends_what_was_taken_before(void **state) {
  struct rig *r = *state;
  struct vfront_request all[MANY], *done[MANY];
  char why[256] = "";
  struct vfront_options o = {.socket = r->socket,
                             .queues = 1,
                             .depth = 128,
                             .pieces = 8,
                             .buffer_bytes = MANY * 2 * BLOCK,
                             .connect_ms = 5000};
  if (packed) skip(); /* the file is made by hand here */
  attach(r, "plain", 1);
  assert_int_equal(vfront_open(&r->front, &o, why, sizeof why), 0);
  assert_int_equal(vfront_stop(r->front), 0);
  uint64_t bytes = r->front->inflight.mmap_bytes;
  struct inflight_queue *file =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, r->front->inflight_fd, 0);
  assert_true(file != MAP_FAILED);
  for (uint32_t i = 0; i < MANY; i++) {
    struct vfront_request *one = &all[i];
    char *buf = r->front->buffers + i * 2 * BLOCK;
    all[i] = (struct vfront_request){
        .op = VFRONT_WRITE, .bytes = BLOCK, .offset = i * 2 * BLOCK, .buf = buf, .pieces = 8};
    memset(buf, (int)i + 1, BLOCK);
    assert_int_equal(vfront_submit(r->front->queues, &one, 1), 1);
    scatter(r->front->queues, i);
    file->entries[i].counter = i + 1;
    file->entries[i].in_flight = 1;
  }
  munmap(file, bytes);
  limit(r, "plain", 1, 250); /* all of them: 25 s */
  assert_int_equal(vfront_start(r->front), 0);
  int stopped = vfront_stop(r->front);
  if (stopped) fail_msg("%s", r->front->why);
  assert_int_equal(vfront_reap(r->front->queues, done, MANY), MANY);
  for (uint32_t i = 0; i < MANY; i++) assert_int_equal(all[i].status, BLK_OK);
  assert_int_equal(info_of(r).writes, MANY);
  limit(r, "plain", 0, 0);
}

/* Its queues stop when those of others have already gone on, since it took too long. */
static void leaves_too_late(void **state) {
  struct rig *r = *state;
  struct vhost_server *s = server_of(r->vhost);
  struct vfront_request all[WAITING];
  bool leaves = false;
  limit(r, "plain", 1, UINT32_MAX);
  attach(r, "plain", 2);
  connect_front(r, 2);
  fill_queues(r, all, 0);
  while (!leaves) {
    pthread_mutex_lock(&s->lock);
    s->leaving = true;
    client_leave(s->disks[0]->client);
    s->leaving = false;
    leaves = s->disks[0]->client->state == CLIENT_LEAVING;
    pthread_mutex_unlock(&s->lock);
  }
  limit(r, "plain", 0, 0);
  for (uint32_t n = 0, i = 0; n < WAITING; i++) {
    struct vfront_request *done[WAITING];
    int got = vfront_reap(&r->front->queues[i % 2], done, WAITING);
    assert_true(got >= 0);
    n += (uint32_t)got;
    usleep(100);
  }
  assert_int_equal(transfer(r, 0, VFRONT_READ, 0, 4096), BLK_OK);
  assert_int_equal(vfront_stop(r->front), 0); /* it is listened to, too */
}

/* A successor that dies: all goes on here. */
static void stays_if_nobody_takes_it(void **state) {
  struct rig *r = *state;
  int ends[2];
  attach(r, "plain", 1);
  connect_front(r, 1);
  assert_int_equal(transfer(r, 0, VFRONT_WRITE, 0, 4096), BLK_OK);
  assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
  close(ends[1]);
  assert_int_not_equal(sr_vhost_hand_over(r->vhost, ends[0]), 0);
  close(ends[0]);
  assert_int_equal(transfer(r, 0, VFRONT_READ, 0, 4096), BLK_OK);
  assert_int_equal(info_of(r).connections, 1);
}

/* Of another version, or nonsense: refused before it is acknowledged. */
static void what_cannot_be_taken(void **state) {
  (void)state;
  for (int i = 0; i < 3; i++) {
    struct message m = {.request = HANDOVER_DISK, .flags = MESSAGE_VERSION};
    struct handover_disk disk = {.layout = HANDOVER_LAYOUT + (i == 0)};
    struct sr_vhost_handover *h = NULL;
    char answer;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    m.bytes = sizeof disk - (i == 1 ? 8 : 0);
    if (i == 2) m.request = 77;
    memcpy(m.raw, &disk, m.bytes);
    assert_int_equal(message_send(ends[0], &m), 0);
    assert_int_equal(sr_vhost_receive(ends[1], &h), i == 0 ? -ENOTSUP : -EBADMSG);
    close(ends[1]);
    assert_int_equal(recv(ends[0], &answer, 1, 0), 0);
    close(ends[0]);
  }
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
int main(int argc, char **argv) {
  packed = argc > 1 && strcmp(argv[1], "packed") == 0;
  const struct CMUnitTest tests[] = {
      TEST(drivers_that_know_no_blocks),
      TEST(sockets_have_their_mode),
      TEST(what_cannot_be_taken),
      TEST(reads_what_was_written),
      TEST(many_in_flight),
      TEST(detaches),
      TEST(serves_a_file),
      TEST(read_only_disks),
      TEST(resizes_live),
      TEST(stops_and_starts),
      TEST(base_of_a_ring_that_never_ran),
      TEST(logs_what_it_writes),
      TEST(saves_its_state),
      TEST(goes_to_the_next_server),
      TEST(stays_if_nobody_takes_it),
      TEST(a_limit_holds_up_no_stop),
      TEST(a_stopped_queue_hurries),
      TEST(a_stop_ends_what_was_taken_before),
      TEST(leaves_too_late),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
