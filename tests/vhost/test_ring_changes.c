/* test_ring_changes.c - a driver that changes its mind while the device looks: each field is read
 * once, so what comes of it fits one of the driver's words, never a mixture. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "tests/vhost/ring_guest.h"

/* Another process writes one value and the other by turns, until it is ended. Each is written as
 * a whole, so that a mixture can only come from two looks. */
static pid_t start_changes(void *word, const void *one, const void *other, size_t bytes) {
  pid_t pid = fork();
  if (pid != 0) return pid;
  prctl(PR_SET_PDEATHSIG, SIGKILL); /* if the test fails meanwhile */
  for (;;) {
    for (int i = 0; i < 2; i++) {
      const void *value = i ? one : other;
      if (bytes == 2)
        __atomic_store_n((uint16_t *)word, *(const uint16_t *)value, __ATOMIC_RELAXED);
      else
        __atomic_store_n((uint32_t *)word, *(const uint32_t *)value, __ATOMIC_RELAXED);
    }
  }
}
static void end_changes(pid_t pid) {
  assert_int_equal(kill(pid, SIGKILL), 0);
  assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Looks often, and until each of two outcomes was seen. */
#define LOOKS 200000u
struct looks {
  uint32_t done, good, bad;
};
static bool look_again(const struct looks *l) { return l->done < LOOKS || !l->good || !l->bad; }
static void note_look(struct looks *l, bool good) {
  l->done++;
  if (good)
    l->good++;
  else
    l->bad++;
}

/* The chain, whose data is one of two lengths (0: refused), taken often. */
static void take_while_changing(uint32_t *word, uint32_t one, uint32_t other) {
  pid_t pid = start_changes(word, &one, &other, 4);
  assert_true(pid > 0);
  struct looks looks = {0};
  while (look_again(&looks)) {
    int result = take(0);
    note_look(&looks, result == 1);
    if (result == 1) {
      assert_int_equal(chain.in_bytes, one + 1);
      assert_int_equal(iov[1].iov_len, one);
    } else {
      assert_int_equal(chain.in_count, 1);
      assert_int_equal(chain.in_bytes, 1);
    }
  }
  end_changes(pid);
}

static void descriptor_is_copied_once(void **state) {
  (void)state;
  make_request(descs, 0, NEXT, 512);
  take_while_changing(&descs[1].bytes, 512, UINT32_MAX);
}

static void indirect_descriptor_is_copied_once(void **state) {
  (void)state;
  make_request(table, 0, NEXT, 512);
  descs[0] = (struct vring_desc){TABLE, 48, VRING_INDIRECT, 0};
  take_while_changing(&table[1].bytes, 512, 0x10001);
}

static void indirect_length_is_copied_once(void **state) {
  (void)state;
  uint32_t whole = 48, more = UINT32_MAX - 15;
  make_request(table, 0, NEXT, 512);
  descs[0] = (struct vring_desc){TABLE, 48, VRING_INDIRECT, 0};
  pid_t pid = start_changes(&descs[0].bytes, &whole, &more, 4);
  assert_true(pid > 0);
  struct looks looks = {0};
  while (look_again(&looks)) {
    int result = take(0);
    note_look(&looks, result == 1);
    assert_true(result == 1 || result == -EBADMSG);
    assert_int_equal(chain.in_count, result == 1 ? 2 : 0);
  }
  end_changes(pid);
}

static void head_and_index_are_copied_once(void **state) {
  (void)state;
  uint16_t good = 0, bad = UINT16_MAX;
  make_request(descs, 0, NEXT, 512);
  for (uint32_t which = 0; which < 2; which++) {
    avail->index = good = 0;
    memset(avail->ring, 0, 2 * SIZE);
    if (which == 0)
      good = 1; /* the index: 1 is new, or nonsense */
    else
      avail->index = 1; /* the head */
    pid_t pid = start_changes(which ? &avail->ring[0] : &avail->index, &good, &bad, 2);
    assert_true(pid > 0);
    struct looks looks = {0};
    while (look_again(&looks)) {
      map_ring(SIZE, 0);
      int n = ring_available(&ring), result = n > 0 ? ring_take(&ring, &chain) : -EBADMSG;
      assert_true(n == 1 || n == -EBADMSG || (n == 0 && which == 0));
      if (n == 0) continue; /* before the first change */
      note_look(&looks, result == 1);
      assert_int_equal(ring.broken, result != 1);
      if (result == 1) assert_int_equal(chain.head, 0);
    }
    end_changes(pid);
  }
}

/* ---- Packed rings ---- */

static struct ring_id ids[SIZE];
/* The chain that lies at the beginning, as if it were new. */
static int take_packed(void) {
  const uint16_t first = RING_POSITION_FIRST;
  assert_int_equal(ring_map_packed(&ring, &memory, SIZE, USER + LOW, USER + LOW + 0x8000,
                                   USER + LOW + 0x9000, first, first, ids),
                   0);
  assert_true(ring_available(&ring) > 0);
  return ring_take(&ring, &chain);
}

static void packed_lengths_are_copied_once(void **state) {
  (void)state;
  struct vring_packed_desc *d = (void *)descs, *t = (void *)table;
  const struct vring_packed_desc chain_of_3[3] = {
      {LOW + 0xa000, 16, 0, VRING_NEXT | VRING_PACKED_AVAIL},
      {NEXT, 512, 0, VRING_NEXT | VRING_WRITE | VRING_PACKED_AVAIL},
      {STATUS, 1, 3, VRING_WRITE | VRING_PACKED_AVAIL}};
  const uint32_t good = 512, bad = UINT32_MAX;
  for (uint32_t in_table = 0; in_table < 2; in_table++) {
    memcpy(in_table ? t : d, chain_of_3, sizeof chain_of_3);
    for (int i = 0; in_table && i < 3; i++) t[i].flags &= VRING_WRITE;
    if (in_table)
      d[0] = (struct vring_packed_desc){TABLE, 48, 3, VRING_INDIRECT | VRING_PACKED_AVAIL};
    pid_t pid = start_changes(in_table ? &t[1].bytes : &d[1].bytes, &good, &bad, 4);
    assert_true(pid > 0);
    struct looks looks = {0};
    while (look_again(&looks)) {
      int result = take_packed();
      note_look(&looks, result == 1);
      assert_int_equal(chain.head, 3);
      assert_int_equal(chain.in_bytes, result == 1 ? good + 1 : 1);
      if (result == 1) assert_int_equal(iov[1].iov_len, good);
    }
    end_changes(pid);
  }
}

/* An id below the size, or one that breaks the ring; a chain's end, or none. */
static void packed_id_and_flags_are_copied_once(void **state) {
  (void)state;
  struct vring_packed_desc *d = (void *)descs;
  const uint32_t end = VRING_WRITE | VRING_PACKED_AVAIL, good = end << 16 | 5;
  const uint32_t bad[] = {end << 16 | SIZE, (end | VRING_NEXT) << 16 | 5};
  for (uint32_t i = 0; i < array_size(bad); i++) {
    for (uint16_t k = 0; k < SIZE; k++)
      d[k] = (struct vring_packed_desc){STATUS, 1, 5, (uint16_t)(end | VRING_NEXT)};
    pid_t pid = start_changes(&d[2].id, &good, &bad[i], 4);
    assert_true(pid > 0);
    struct looks looks = {0};
    while (look_again(&looks)) {
      int result = take_packed();
      note_look(&looks, result == 1);
      assert_int_equal(result == 1, !ring.broken);
      assert_int_equal(chain.head, result == 1 ? 5 : UINT16_MAX);
      assert_int_equal(chain.in_bytes, result == 1 ? 3 : 0);
      if (result == 1) assert_int_equal(ids[5].count, 3);
    }
    end_changes(pid);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      WITH_GUEST(descriptor_is_copied_once),      WITH_GUEST(indirect_descriptor_is_copied_once),
      WITH_GUEST(indirect_length_is_copied_once), WITH_GUEST(head_and_index_are_copied_once),
      WITH_GUEST(packed_lengths_are_copied_once), WITH_GUEST(packed_id_and_flags_are_copied_once),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
