/* ring_guest.h - a guest's memory with a ring in it, and a driver, for tests of ring.h. Included by
 * one file of a test. */
#ifndef TESTS_VHOST_RING_GUEST_H
#define TESTS_VHOST_RING_GUEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

#include "api/vhost/ring.h"

#define SIZE  16u
#define ROOM  64u
#define LOW   UINT64_C(0x10000)        /* rings, tables; 64 KiB */
#define NEXT  (LOW + 0x10000)          /* behind it, elsewhere here; 64 KiB */
#define HIGH  (UINT64_C(1) << 32)      /* behind a hole; 256 MiB, hardly any of it there */
#define TABLE (LOW + 0x4000)           /* an indirect one */
#define USER  UINT64_C(0x550000000000) /* for guest 0 */
#define BIG   UINT64_C(0x10000000)

static struct guest_memory memory;
static struct vring ring;
static struct iovec iov[ROOM];
static struct ring_chain chain;
static struct vring_desc *table, *descs;
static struct vring_avail *avail;
static struct vring_used *used;

static inline char *at(uint64_t guest) {
  uint64_t run;
  char *p = memory_at(&memory, guest, 1, &run);
  assert_non_null(p);
  return p;
}

static inline void map_ring(uint16_t size, uint16_t last_avail) {
  assert_int_equal(ring_map(&ring, &memory, size, USER + LOW, USER + LOW + 0x8000,
                            USER + LOW + 0x9000, last_avail),
                   0);
}

static inline int make_guest(void **state) {
  (void)state;
  int fd = memfd_create("guest", MFD_CLOEXEC);
  assert_true(fd >= 0);
  assert_int_equal(ftruncate(fd, (off_t)(BIG + 0x20000)), 0);
  memset(&memory, 0, sizeof(memory));
  memset(&ring, 0, sizeof(ring));
  assert_int_equal(memory_add(&memory, HIGH, USER + HIGH, BIG, 0x20000, fd), 0);
  assert_int_equal(memory_add(&memory, NEXT, USER + NEXT, 0x10000, 0x10000, fd), 0);
  assert_int_equal(memory_add(&memory, LOW, USER + LOW, 0x10000, 0, fd), 0);
  close(fd);
  ring.indirect = true;
  chain = (struct ring_chain){.iov = iov, .room = ROOM};
  descs = (struct vring_desc *)(void *)at(LOW);
  table = (struct vring_desc *)(void *)at(TABLE);
  avail = (struct vring_avail *)(void *)at(LOW + 0x8000);
  used = (struct vring_used *)(void *)at(LOW + 0x9000);
  map_ring(SIZE, 0);
  return 0;
}

static inline int drop_guest(void **state) {
  (void)state;
  memory_clear(&memory);
  return 0;
}

/* ---- A driver -------------------------------------------------------------------------------- */

static inline void offer(uint16_t head) {
  avail->ring[avail->index % ring.size] = head;
  __atomic_store_n(&avail->index, (uint16_t)(avail->index + 1), __ATOMIC_RELEASE);
}

/* What taking the chain with this head says. */
static inline int take(uint16_t head) {
  offer(head);
  int n = ring_available(&ring);
  return n < 0 ? n : ring_take(&ring, &chain);
}

static inline void assert_piece(uint32_t i, uint64_t guest, uint64_t bytes) {
  assert_ptr_equal(iov[i].iov_base, at(guest));
  assert_int_equal(iov[i].iov_len, bytes);
}

/* A request as block drivers make it: header, data, status. */
static inline void make_request(struct vring_desc *d, uint16_t first, uint64_t data,
                                uint32_t bytes) {
  d[0] = (struct vring_desc){LOW + 0xa000, 16, VRING_NEXT, first + 1};
  d[1] = (struct vring_desc){data, bytes, VRING_NEXT | VRING_WRITE, first + 2};
  d[2] = (struct vring_desc){LOW + 0xb000, 1, VRING_WRITE, 0};
}
#define STATUS (LOW + 0xb000)

#define WITH_GUEST(f) cmocka_unit_test_setup_teardown(f, make_guest, drop_guest)

#endif
