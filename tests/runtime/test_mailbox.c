/* test_mailbox.c - inboxes: what one thread can see of them, then millions of batches between
 * threads that really sleep.
 *
 * The threaded tests have no timed assertions. They end when every batch has arrived; a lost
 * wake-up would leave them blocked, and then the alarm ends the process. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "runtime/mailbox.h"

#define WATCHDOG_S 240

static void *batch_of(uintptr_t n) { return (void *)n; }

/* ---- One thread ---- */

static struct inbox inbox;

struct seen {
  uint32_t count;
  struct {
    uint32_t peer;
    uintptr_t batch;
  } mail[2048];
};
static struct seen seen;

static void remember(void *arg, uint32_t peer, void *batch) {
  struct seen *to = arg;
  assert_true(to->count < 2048);
  to->mail[to->count].peer = peer;
  to->mail[to->count++].batch = (uintptr_t)batch;
}

static uint32_t drain(void) {
  seen.count = 0;
  uint32_t n = inbox_drain(&inbox, remember, &seen);
  assert_int_equal(n, seen.count);
  return n;
}

static bool send(uint32_t peer, uintptr_t batch) {
  bool wake = true;
  bool sent = mailbox_send(&inbox, peer, batch_of(batch), &wake);
  assert_false(wake); /* the receiver is awake */
  return sent;
}

static int set_up(void **state) {
  (void)state;
  return inbox_init(&inbox, INBOX_PEERS_MAX);
}

static int tear_down(void **state) {
  (void)state;
  inbox_finish(&inbox);
  return 0;
}

static void arguments_are_checked(void **state) {
  (void)state;
  struct inbox other;
  assert_int_equal(inbox_init(&other, 0), -EINVAL);
  assert_int_equal(inbox_init(&other, INBOX_PEERS_MAX + 1), -EINVAL);
  assert_int_equal(inbox_init(&other, 2), 0);
  assert_int_equal(inbox_add_peer(&other, 2, 1), -EINVAL);
  assert_int_equal(inbox_add_peer(&other, 0, 0), -EINVAL);
  assert_int_equal(inbox_add_peer(&other, 0, INBOX_SLOTS_MAX + 1), -EINVAL);
  assert_int_equal(inbox_remove_peer(&other, 0), -ENOENT);
  assert_int_equal(inbox_remove_peer(&other, 2), -ENOENT);
  assert_int_equal(inbox_add_peer(&other, 0, 1), 0);
  assert_int_equal(inbox_add_peer(&other, 0, 1), -EEXIST);
  inbox_finish(&other);
  memset(&other, 0, sizeof other);
  inbox_finish(&other);
}

static void batches_arrive_in_order(void **state) {
  (void)state;
  assert_int_equal(inbox_add_peer(&inbox, 5, 100), 0);
  assert_int_equal(drain(), 0);
  assert_false(inbox_has_mail(&inbox));
  for (uintptr_t i = 1; i <= 100; i++) assert_true(send(5, i));
  assert_true(inbox_has_mail(&inbox));
  assert_int_equal(drain(), 100);
  for (uint32_t i = 0; i < 100; i++) {
    assert_int_equal(seen.mail[i].peer, 5);
    assert_int_equal(seen.mail[i].batch, i + 1);
  }
  assert_int_equal(drain(), 0);
}

/* Every capacity, across the wrap of the ring. */
static void full_ring_refuses_and_changes_nothing(void **state) {
  (void)state;
  for (uint32_t slots = 1; slots <= 70; slots++) {
    uint32_t peer = slots;
    assert_int_equal(inbox_add_peer(&inbox, peer, slots), 0);
    for (int lap = 0; lap < 5; lap++) {
      uint32_t room = mailbox_room(&inbox, peer);
      assert_true(room >= slots);
      for (uint32_t i = 0; i < room; i++) {
        assert_int_equal(mailbox_room(&inbox, peer), room - i);
        assert_true(send(peer, i + 1));
      }
      assert_int_equal(mailbox_room(&inbox, peer), 0);
      assert_false(send(peer, 999));
      assert_false(send(peer, 999));
      uint32_t got = drain();
      assert_int_equal(got, room);
      for (uint32_t i = 0; i < got; i++) assert_int_equal(seen.mail[i].batch, i + 1);
      assert_int_equal(mailbox_room(&inbox, peer), room);
      drain();
      assert_false(inbox_has_mail(&inbox));
      assert_true(send(peer, 1)); /* the next lap begins elsewhere */
      assert_int_equal(drain(), 1);
    }
  }
}

static void only_those_who_sent_are_drained(void **state) {
  (void)state;
  const uint32_t senders[] = {0, 63, 64, 127, 128, 200, 319};
  for (uint32_t p = 0; p < INBOX_PEERS_MAX; p++) assert_int_equal(inbox_add_peer(&inbox, p, 3), 0);
  for (size_t i = 7; i-- > 0;) assert_true(send(senders[i], 1000 + senders[i]));
  assert_int_equal(drain(), 7);
  for (size_t i = 0; i < 7; i++) {
    assert_int_equal(seen.mail[i].peer, senders[i]);
    assert_int_equal(seen.mail[i].batch, 1000 + senders[i]);
  }
  for (uint32_t p = 0; p < INBOX_PEERS_MAX; p++)
    for (uintptr_t i = 1; i <= 3; i++) assert_true(send(p, i));
  for (uint32_t p = 0; p < INBOX_PEERS_MAX; p++) assert_false(send(p, 4));
  assert_int_equal(drain(), 3 * INBOX_PEERS_MAX);
}

/* A sender that is refilled during the drain: each drain takes one capacity of it. */
static uint32_t refills;
static void refill(void *arg, uint32_t peer, void *batch) {
  (void)arg, (void)batch;
  if (refills) refills -= send(peer, 1);
}

static void drain_is_bounded(void **state) {
  (void)state;
  assert_int_equal(inbox_add_peer(&inbox, 1, 7), 0);
  refills = 100;
  assert_true(send(1, 1));
  uint32_t total = 0, rounds = 0;
  while (total < 101) {
    uint32_t n = inbox_drain(&inbox, refill, NULL);
    assert_true(n > 0); /* what the bound left is never forgotten */
    assert_true(n <= 7);
    total += n;
    rounds++;
  }
  assert_int_equal(total, 101);
  assert_true(rounds >= 101 / 7);
  assert_int_equal(refills, 0);
}

static void sleep_is_refused_when_there_is_mail(void **state) {
  (void)state;
  bool wake;
  assert_int_equal(inbox_add_peer(&inbox, 300, 3), 0);
  assert_true(inbox_prepare_sleep(&inbox));
  inbox_awake(&inbox);
  assert_true(send(300, 1));
  assert_false(inbox_prepare_sleep(&inbox));
  assert_true(send(300, 2)); /* the announcement was withdrawn: no wake */
  assert_int_equal(drain(), 2);
  assert_true(inbox_prepare_sleep(&inbox));
  assert_true(mailbox_send(&inbox, 300, batch_of(3), &wake));
  assert_true(wake);
  inbox_awake(&inbox);
  assert_int_equal(drain(), 1);
}

static void exactly_one_sender_wakes(void **state) {
  (void)state;
  uint32_t wakes = 0;
  for (uint32_t p = 0; p < 100; p++) assert_int_equal(inbox_add_peer(&inbox, p, 1), 0);
  assert_true(inbox_prepare_sleep(&inbox));
  for (uint32_t p = 0; p < 100; p++) {
    bool wake;
    assert_true(mailbox_send(&inbox, p, batch_of(1), &wake));
    assert_int_equal(wake, p == 0);
    wakes += wake;
    assert_false(mailbox_send(&inbox, p, batch_of(1), &wake));
    assert_false(wake);
  }
  assert_int_equal(wakes, 1);
  inbox_awake(&inbox);
  assert_int_equal(drain(), 100);
}

static void full_ring_wakes_nobody(void **state) {
  (void)state;
  bool wake = true;
  assert_int_equal(inbox_add_peer(&inbox, 0, 1), 0);
  assert_true(send(0, 1));
  /* as if the receiver had taken the bit and were asleep */
  atomic_store(&inbox.ready[0], 0);
  assert_true(inbox_prepare_sleep(&inbox));
  assert_false(mailbox_send(&inbox, 0, batch_of(2), &wake));
  assert_false(wake);
  inbox_awake(&inbox);
}

static void peer_can_close_and_come_back(void **state) {
  (void)state;
  assert_int_equal(inbox_add_peer(&inbox, 9, 3), 0);
  assert_true(send(9, 1));
  assert_int_equal(inbox_remove_peer(&inbox, 9), -EBUSY);
  assert_int_equal(drain(), 1);
  assert_int_equal(inbox_remove_peer(&inbox, 9), 0);
  assert_int_equal(inbox_remove_peer(&inbox, 9), -ENOENT);
  for (uint32_t slots = 1; slots < 1000; slots = slots * 2 + 1) { /* larger, then smaller */
    assert_int_equal(inbox_add_peer(&inbox, 9, slots), 0);
    assert_true(mailbox_room(&inbox, 9) >= slots);
    for (uintptr_t i = 1; i <= slots; i++) assert_true(send(9, i));
    assert_int_equal(drain(), slots);
    drain();
    assert_int_equal(inbox_remove_peer(&inbox, 9), 0);
  }
  assert_int_equal(inbox_add_peer(&inbox, 9, 1), 0);
  assert_true(send(9, 77));
  assert_int_equal(drain(), 1);
  assert_int_equal(seen.mail[0].batch, 77);
}

/* ---- Threads ---- */

struct stream {
  struct inbox inbox;
  int event_fd;
  uint32_t senders;
  uint32_t slots;
  uint64_t batches; /* of each sender */
  bool lazy;        /* senders pause, so that the receiver sleeps often */
  /* the receiver's */
  uint64_t next[INBOX_PEERS_MAX];
  uint64_t received, out_of_order, announcements;
  _Atomic uint64_t wakes;
};

struct sender {
  struct stream *stream;
  uint32_t peer;
  pthread_t thread;
};

static void *send_stream(void *arg) {
  struct sender *me = arg;
  struct stream *stream = me->stream;
  for (uint64_t i = 0; i < stream->batches;) {
    bool wake;
    if (mailbox_send(&stream->inbox, me->peer, batch_of(i + 1), &wake)) {
      i++;
      if (stream->lazy && i % 3 == 0) sched_yield();
    } else {
      sched_yield();
    }
    if (wake) {
      uint64_t one = 1;
      if (write(stream->event_fd, &one, sizeof one) != sizeof one) abort();
      atomic_fetch_add(&stream->wakes, 1);
    }
  }
  return NULL;
}

static void count_in_order(void *arg, uint32_t peer, void *batch) {
  struct stream *stream = arg;
  stream->out_of_order += (uintptr_t)batch != ++stream->next[peer];
  stream->received++;
}

static void receive_stream(struct stream *stream) {
  while (stream->received < stream->batches * stream->senders) {
    if (inbox_drain(&stream->inbox, count_in_order, stream) > 0) continue;
    uint64_t value;
    stream->announcements++;
    if (!inbox_prepare_sleep(&stream->inbox)) continue;
    if (read(stream->event_fd, &value, sizeof value) != sizeof value) abort();
    inbox_awake(&stream->inbox);
  }
}

static void run_stream(uint32_t senders, uint32_t slots, uint64_t batches, bool lazy) {
  struct stream *stream = calloc(1, sizeof *stream);
  struct sender *all = calloc(senders, sizeof *all);
  assert_non_null(stream);
  assert_non_null(all);
  *stream = (struct stream){.senders = senders, .slots = slots, .batches = batches, .lazy = lazy};
  stream->event_fd = eventfd(0, EFD_CLOEXEC);
  assert_true(stream->event_fd >= 0);
  assert_int_equal(inbox_init(&stream->inbox, INBOX_PEERS_MAX), 0);
  alarm(WATCHDOG_S);
  for (uint32_t s = 0; s < senders; s++) {
    /* spread over the words; while the receiver's peers are already sending */
    all[s] = (struct sender){.stream = stream, .peer = s * (INBOX_PEERS_MAX / senders)};
    assert_int_equal(inbox_add_peer(&stream->inbox, all[s].peer, slots), 0);
    assert_int_equal(pthread_create(&all[s].thread, NULL, send_stream, &all[s]), 0);
  }
  receive_stream(stream);
  for (uint32_t s = 0; s < senders; s++) pthread_join(all[s].thread, NULL);
  alarm(0);
  assert_int_equal(stream->received, batches * senders);
  assert_int_equal(stream->out_of_order, 0);
  for (uint32_t s = 0; s < senders; s++) {
    assert_int_equal(stream->next[all[s].peer], batches);
    assert_int_equal(inbox_remove_peer(&stream->inbox, all[s].peer), 0);
  }
  assert_true(stream->wakes <= stream->announcements); /* at most one sender takes each up */
  inbox_finish(&stream->inbox);
  close(stream->event_fd);
  free(all);
  free(stream);
}

/* ThreadSanitizer makes each step many times dearer. */
#if defined(__SANITIZE_THREAD__)
#define MANY(n) ((n) / 5)
#else
#define MANY(n) (n)
#endif

static void two_threads_stream(void **state) {
  (void)state;
  run_stream(1, 255, MANY(3000000), false);
}

static void two_threads_sleep_often(void **state) {
  (void)state;
  run_stream(1, 1, MANY(60000), true);
  run_stream(1, 3, MANY(60000), true);
}

static void many_threads_stream(void **state) {
  (void)state;
  run_stream(8, 7, MANY(100000), false);
  run_stream(64, 3, MANY(4000), true);
}

/* Two threads that have one batch between them: each hop is a sleep and a wake. */
struct side {
  struct inbox inbox;
  int event_fd;
  struct side *other;
  uint64_t hops, got;
};

static void hop(void *arg, uint32_t peer, void *batch) {
  struct side *side = arg;
  bool wake;
  side->got++;
  if ((uintptr_t)batch > side->hops) return;
  if (!mailbox_send(&side->other->inbox, peer, batch_of((uintptr_t)batch + 1), &wake)) abort();
  uint64_t one = 1;
  if (wake && write(side->other->event_fd, &one, sizeof one) != sizeof one) abort();
}

static void *play(void *arg) {
  struct side *side = arg;
  uint64_t value, half = side->hops / 2;
  while (side->got < half) {
    if (inbox_drain(&side->inbox, hop, side) > 0) continue;
    if (!inbox_prepare_sleep(&side->inbox)) continue;
    if (read(side->event_fd, &value, sizeof value) != sizeof value) abort();
    inbox_awake(&side->inbox);
  }
  return NULL;
}

static void two_threads_play_ball(void **state) {
  (void)state;
  static struct side sides[2];
  const uint64_t hops = MANY(100000);
  pthread_t thread;
  bool wake;
  for (int s = 0; s < 2; s++) {
    sides[s] = (struct side){.other = &sides[!s], .hops = hops};
    sides[s].event_fd = eventfd(0, EFD_CLOEXEC);
    assert_true(sides[s].event_fd >= 0);
    assert_int_equal(inbox_init(&sides[s].inbox, 1), 0);
    assert_int_equal(inbox_add_peer(&sides[s].inbox, 0, 1), 0);
  }
  alarm(WATCHDOG_S);
  assert_true(mailbox_send(&sides[0].inbox, 0, batch_of(1), &wake));
  assert_int_equal(pthread_create(&thread, NULL, play, &sides[1]), 0);
  play(&sides[0]);
  pthread_join(thread, NULL);
  alarm(0);
  for (int s = 0; s < 2; s++) {
    assert_true(sides[s].got >= hops / 2);
    inbox_finish(&sides[s].inbox);
    close(sides[s].event_fd);
  }
}

/* Peers that open, send, close and open again while the receiver drains. */
static void *come_and_go(void *arg) {
  struct sender *me = arg;
  struct stream *stream = me->stream;
  uint32_t slots = 1;
  for (uint64_t i = 0; i < stream->batches;) {
    if (inbox_add_peer(&stream->inbox, me->peer, slots)) abort();
    slots = slots < 512 ? slots * 2 + 1 : 1;
    for (int n = 0; n < 50 && i < stream->batches;) {
      bool wake;
      if (mailbox_send(&stream->inbox, me->peer, batch_of(i + 1), &wake))
        i++, n++;
      else
        sched_yield();
      uint64_t one = 1;
      if (wake && write(stream->event_fd, &one, sizeof one) != sizeof one) abort();
    }
    int r;
    while ((r = inbox_remove_peer(&stream->inbox, me->peer)) == -EBUSY) sched_yield();
    if (r) abort();
  }
  return NULL;
}

static void peers_come_and_go(void **state) {
  (void)state;
  static struct stream stream;
  struct sender all[2];
  stream = (struct stream){.senders = 2, .batches = MANY(100000)};
  stream.event_fd = eventfd(0, EFD_CLOEXEC);
  assert_true(stream.event_fd >= 0);
  assert_int_equal(inbox_init(&stream.inbox, 100), 0);
  alarm(WATCHDOG_S);
  for (uint32_t s = 0; s < 2; s++) {
    all[s] = (struct sender){.stream = &stream, .peer = s * 70};
    assert_int_equal(pthread_create(&all[s].thread, NULL, come_and_go, &all[s]), 0);
  }
  receive_stream(&stream);
  for (uint32_t s = 0; s < 2; s++) pthread_join(all[s].thread, NULL);
  alarm(0);
  assert_int_equal(stream.out_of_order, 0);
  assert_int_equal(stream.next[0], stream.batches);
  assert_int_equal(stream.next[70], stream.batches);
  inbox_finish(&stream.inbox);
  close(stream.event_fd);
}

#define INBOX_TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(arguments_are_checked),
      INBOX_TEST(batches_arrive_in_order),
      INBOX_TEST(full_ring_refuses_and_changes_nothing),
      INBOX_TEST(only_those_who_sent_are_drained),
      INBOX_TEST(drain_is_bounded),
      INBOX_TEST(sleep_is_refused_when_there_is_mail),
      INBOX_TEST(exactly_one_sender_wakes),
      INBOX_TEST(full_ring_wakes_nobody),
      INBOX_TEST(peer_can_close_and_come_back),
      cmocka_unit_test(two_threads_stream),
      cmocka_unit_test(two_threads_sleep_often),
      cmocka_unit_test(many_threads_stream),
      cmocka_unit_test(two_threads_play_ball),
      cmocka_unit_test(peers_come_and_go),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
