/* test_server_handover.c - disks that go from one server to the next while they are in use, and
 * stops of queues whose requests wait at limits. */
#include "tests/vhost/server_rig.h"

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

/* So many requests in so many milliseconds. */
static void limit(struct rig *r, const char *volume, uint64_t size, uint64_t ms) {
  struct sr_limits l = SR_LIMITS_INIT;
  l.ops = (struct sr_bucket){size, 0, ms};
  assert_int_equal(sr_volume_limit(r->port, volume, &l), 0);
}

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

int main(int argc, char **argv) {
  packed = argc > 1 && strcmp(argv[1], "packed") == 0;
  const struct CMUnitTest tests[] = {
      TEST(what_cannot_be_taken),     TEST(goes_to_the_next_server),
      TEST(stays_if_nobody_takes_it), TEST(a_limit_holds_up_no_stop),
      TEST(a_stopped_queue_hurries),  TEST(a_stop_ends_what_was_taken_before),
      TEST(leaves_too_late),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
