/* test_server.c - the vhost-user-blk server as an embedder has it: requests, configuration,
 * resizing, detaching, migration's log. */
#include "tests/vhost/server_rig.h"

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

int main(int argc, char **argv) {
  packed = argc > 1 && strcmp(argv[1], "packed") == 0;
  const struct CMUnitTest tests[] = {
      TEST(drivers_that_know_no_blocks),
      TEST(sockets_have_their_mode),
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
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
