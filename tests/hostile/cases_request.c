/* cases_request.c - requests of virtio-blk that ask for what there is not, and a guest that changes
 * everything while it is being read. */
#include <pthread.h>
#include <string.h>

#include "tests/hostile/hostile.h"

/* Header, one piece of data, status. bytes 0: no piece. */
static void put_request(struct monitor *m, uint32_t type, uint64_t sector, uint32_t bytes,
                        bool writable) {
  put_header(m, AT_HEADER, type, sector);
  put_desc(m, 0, 0, guest_of(AT_HEADER), 16, VRING_NEXT, bytes ? 1 : 2);
  put_desc(m, 0, 1, guest_of(AT_DATA), bytes, VRING_NEXT | (writable ? VRING_WRITE : 0), 2);
  put_desc(m, 0, 2, guest_of(AT_STATUS), 1, VRING_WRITE, 0);
}

static void sectors(void) {
  const uint64_t end = DISK_BYTES / 512;
  const uint64_t beyond[] = {end,
                             end - 1,
                             end + 1,
                             UINT64_C(1) << 32,
                             UINT64_C(1) << 55,
                             (UINT64_C(1) << 55) - 1,
                             UINT64_C(1) << 63,
                             UINT64_MAX,
                             UINT64_MAX - 1,
                             UINT64_MAX / 512};
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < array_size(beyond) && world.strict; i++)
    for (uint32_t type = 0; type < 2; type++) {
      put_request(&m, type, beyond[i], 1024, type == 0);
      expect_ioerr(&m);
    }
  mon_close(&m);
  mon_run(&m, world.bad); /* of a foreign disk the size is not known */
  for (uint32_t type = 0; type < 2; type++) {
    put_request(&m, type, UINT64_MAX - 1, 4096, type == 0);
    expect_ioerr(&m);
  }
  mon_close(&m);
}

static void odd_lengths(void) {
  static const uint32_t sizes[] = {0, 1, 511, 513, 1023, 4095};
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < array_size(sizes) && !m.dropped; i++)
    for (uint32_t type = 0; type < 2; type++) {
      put_request(&m, type, 8, sizes[i], type == 0);
      memset(m.memory + AT_DATA, CANARY, 8192);
      if (world.strict)
        expect_ioerr(&m);
      else
        submit(&m, 0, 0);
      for (uint32_t b = sizes[i]; b < 8192; b++) expect((uint8_t)m.memory[AT_DATA + b] == CANARY);
    }
  mon_close(&m);
}

static void odd_headers(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t bytes = 0; bytes < 16 && !m.dropped; bytes++) {
    put_request(&m, 0, 0, 512, true);
    put_desc(&m, 0, 0, guest_of(AT_HEADER), bytes, VRING_NEXT, 1);
    expect_ioerr(&m);
  }
  if (!m.dropped) { /* one that only the device may write */
    put_request(&m, 0, 0, 512, true);
    put_desc(&m, 0, 0, guest_of(AT_HEADER), 16, VRING_NEXT | VRING_WRITE, 1);
    expect_ioerr(&m);
  }
  if (world.strict) expect_usable(&m);
  mon_close(&m);
}

static void unknown_types(void) {
  static const uint32_t types[] = {2, 3, 5, 6, 7, 9, 10, 12, 14, 16, 0x80000000, 0xffffffff, 255};
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < array_size(types) && !m.dropped; i++) {
    put_request(&m, types[i], UINT64_MAX, 512, i % 2);
    expect_status(&m, BLK_UNSUPPORTED);
  }
  if (world.strict) expect_usable(&m);
  mon_close(&m);
}

/* Whatever the buffer's size: up to 20 bytes, and nothing behind it. */
static void get_id(void) {
  static const uint32_t sizes[] = {1, 2, 19, 20, 21, 512, 4096, 1 << 20};
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < array_size(sizes) && !m.dropped; i++) {
    put_request(&m, 8, UINT64_MAX, sizes[i], true);
    memset(m.memory + AT_DATA, CANARY, (2 << 20));
    if (world.strict)
      expect_status(&m, BLK_OK);
    else
      submit(&m, 0, 0);
    if (world.strict)
      expect(memcmp(m.memory + AT_DATA, "hostile-serial-12345", sizes[i] < 20 ? sizes[i] : 20) ==
             0);
    for (uint32_t b = sizes[i]; b < 2 << 20; b++) expect((uint8_t)m.memory[AT_DATA + b] == CANARY);
  }
  if (!m.dropped && world.strict) { /* no room at all, and room that is not for writing */
    put_request(&m, 8, 0, 0, true);
    expect_status(&m, BLK_OK);
    put_request(&m, 8, 0, 20, false);
    expect_status(&m, BLK_OK);
  }
  mon_close(&m);
}

/* Discard and write zeroes: segments of odd sizes, numbers and flags. */
static void segments(void) {
  static const struct {
    uint64_t sector;
    uint32_t sectors, flags, bytes;
  } bad[] = {
      {0, 8, 0, 0},
      {0, 8, 0, 1},
      {0, 8, 0, 15},
      {0, 8, 0, 17},
      {0, 8, 0, 32},
      {0, 8, 0, 4096},
      {0, 0, 0, 16},
      {0, 0xffffffff, 0, 16},
      {UINT64_MAX, 1, 0, 16},
      {UINT64_MAX - 7, 8, 0, 16},
      {UINT64_MAX / 512, 8, 0, 16},
      {DISK_BYTES / 512, 8, 0, 16},
      {DISK_BYTES / 512 - 1, 2, 0, 16},
      {0, 8, 0xfffffffe, 16},
      {0, 8, 2, 16},
  };
  static const uint32_t types[] = {11, 13};
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < array_size(bad) && !m.dropped; i++)
    for (uint32_t t = 0; t < 2 && !m.dropped; t++) {
      put_request(&m, types[t], 0, bad[i].bytes, false);
      memset(m.memory + AT_DATA, 0, 4096);
      memcpy(m.memory + AT_DATA, &bad[i], 16);
      m.memory[AT_STATUS] = (char)CANARY;
      if (submit(&m, 0, 0) == USED && world.strict) {
        uint8_t status = (uint8_t)m.memory[AT_STATUS];
        if (status != BLK_IOERR && status != BLK_UNSUPPORTED)
          fail_case("segment %u of type %u: status %u", i, types[t], status);
      }
    }
  if (world.strict) expect_usable(&m);
  mon_close(&m);
}

/* Data of a read goes to the rings, to the chain itself, over header and status. */
static void onto_itself(void) {
  const uint64_t places[] = {0,       0x8000,  0x10000, AT_HEADER, AT_STATUS & ~UINT64_C(63),
                             0x20000, 0x28000, 0x30000};
  for (uint32_t i = 0; i < array_size(places); i++) {
    struct monitor m;
    mon_run(&m, world.bad);
    memset(m.memory + AT_DATA, 0xff, 65536); /* first something that makes bad rings */
    put_request(&m, 1, 0, 65536, false);
    submit(&m, 0, 0);
    if (!m.dropped) {
      put_request(&m, 0, 0, 4096, true);
      put_desc(&m, 0, 1, guest_of(places[i]), 4096, VRING_NEXT | VRING_WRITE, 2);
      push(&m, 0, 0);
      kick(&m, 0);
      nap_ms(2);
      kick(&m, 0);
      kick(&m, 1);
    }
    mon_close(&m);
  }
}

/* ---- Changed while it is read ---------------------------------------------------------------- */

struct flipper {
  struct monitor *m;
  atomic_bool stop;
  uint32_t what;
  uint64_t turns;
};

/* The fields that must be copied exactly once, each between something right and something wrong. */
static void flip(struct monitor *m, uint32_t what, uint64_t turn) {
  volatile struct vring_desc *d = m->rings[0].desc;
  volatile uint32_t *type = (volatile uint32_t *)(void *)(m->memory + AT_HEADER);
  volatile uint64_t *sector = (volatile uint64_t *)(void *)(m->memory + AT_HEADER + 8);
  bool odd = turn & 1;
  switch (what) {
  case 0:
    d[1].bytes = odd ? 4096 : 0xfffffff0;
    break;
  case 1:
    d[1].address = odd ? guest_of(AT_DATA) : UINT64_MAX - 100;
    break;
  case 2:
    d[1].flags = odd ? VRING_NEXT | VRING_WRITE : VRING_NEXT;
    d[2].next = odd ? 2 : 40000;
    break;
  case 3:
    d[0].next = odd ? 1 : 0;
    d[1].next = odd ? 2 : 1;
    break;
  case 4:
    d[0].flags = odd ? VRING_NEXT : VRING_INDIRECT;
    d[0].bytes = odd ? 16 : 1 << 20;
    break;
  case 5:
    *sector = odd ? 0 : UINT64_MAX - 3;
    break;
  case 6:
    *type = odd ? 0 : (uint32_t)(turn >> 1) % 14;
    break;
  default: /* an indirect table */
    d[0].flags = VRING_INDIRECT;
    d[0].address = guest_of(0);
    d[0].bytes = odd ? 48 : 0xfffffff0;
    break;
  }
}

static void *flip_on(void *arg) {
  struct flipper *f = arg;
  while (!atomic_load_explicit(&f->stop, memory_order_relaxed)) {
    flip(f->m, f->what, ++f->turns);
    if (f->turns % 64 == 0) nap_ms(0);
  }
  return NULL;
}

static void changed_while_read(void) {
  for (uint32_t what = 0; what < 8; what++) {
    struct monitor m;
    struct flipper f = {.m = &m, .what = what};
    pthread_t thread;
    mon_run(&m, world.bad);
    put_request(&m, 0, 0, 4096, true);
    expect(pthread_create(&thread, NULL, flip_on, &f) == 0);
    for (uint32_t i = 0; i < 400; i++) {
      uint16_t used = __atomic_load_n(&m.rings[0].used->index, __ATOMIC_ACQUIRE);
      if ((uint16_t)(m.rings[0].avail->index - used) < 1) push(&m, 0, 0);
      kick(&m, 0);
      if (i % 32 == 0) nap_ms(1);
    }
    atomic_store(&f.stop, true);
    pthread_join(thread, NULL);
    mon_close(&m);
  }
}

/* A buffer that changes while it is being written: the disk gets one or the other, no error. */
static void changed_while_written(void) {
  struct monitor m;
  mon_run(&m, world.bad);
  for (uint32_t i = 0; i < 200; i++) {
    put_request(&m, 1, 0, 65536, false);
    push(&m, 0, 0);
    kick(&m, 0);
    for (uint32_t b = 0; b < 65536; b += 64) *(volatile char *)(m.memory + AT_DATA + b) = (char)i;
    if (wait_used(&m, 0, 1) != USED) break;
    if (world.strict) expect(m.memory[AT_STATUS] == BLK_OK);
  }
  if (world.strict) expect_usable(&m);
  mon_close(&m);
}

const struct hostile_case cases_request[] = {
    {"request_sectors", "sector plus length without overflow", sectors, BOTH_RINGS},
    {"request_odd_lengths", "data of odd lengths", odd_lengths, BOTH_RINGS},
    {"request_odd_headers", "headers that are too short, or not to be read", odd_headers,
     BOTH_RINGS},
    {"request_unknown", "types that there are not", unknown_types, BOTH_RINGS},
    {"request_get_id", "GET_ID never overruns the guest's buffer", get_id, BOTH_RINGS},
    {"request_segments", "discard and write zeroes (trap 10)", segments, BOTH_RINGS},
    {"request_onto_itself", "data over rings, headers and status", onto_itself, false},
    {"request_changed_read", "copied exactly once (CVE-2026-93683, CVE-2026-86848)",
     changed_while_read, false},
    {"request_changed_written", "a buffer that changes", changed_while_written, false},
    {0},
};
