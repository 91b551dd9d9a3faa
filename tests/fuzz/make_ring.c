/* make_ring.c - corpus of the targets of virtqueues and block requests. */
#include "api/vhost/blk.h"
#include "tests/fuzz/make_corpus.h"

static struct draft out;

static void byte(uint8_t v) { draft_number(&out, v, 1); }

/* ---- Rings ----------------------------------------------------------------------------------- */

enum { LOW = 0, NEXT = 1, HIGH = 2, ANYWHERE = 3 }; /* regions, as fuzz_ring.c has them */
enum { WRITE = 0, DESC = 1, OFFER = 3, TAKE = 6, TAKE_CHANGING = 7, PUT, PUBLISH, NOTIFY, MAP };

static void place(uint32_t region, uint32_t offset) {
  draft_number(&out, region << 14 | (offset + 32), 2);
}
static void ring_of_8(uint32_t first) {
  byte(0);
  draft_number(&out, first, 2);
  place(LOW, 0);
  place(LOW, 256);
  place(LOW, 512);
}
static void begin_ring(uint8_t flags, uint8_t room) {
  out.count = 0;
  byte(flags);
  byte(room);
  ring_of_8(0);
}
/* Number `at` of the ring; or with flag 8, at byte `at` of the next region. */
static void desc(uint32_t at, uint32_t region, uint32_t offset, uint32_t bytes, uint32_t flags,
                 uint8_t next) {
  byte(DESC);
  place(flags & 8 ? NEXT : LOW, at);
  place(region, offset);
  draft_number(&out, bytes, 2);
  byte((uint8_t)flags);
  byte(next);
}
static void request(uint32_t at, uint32_t step, uint32_t flag) {
  desc(at, LOW, 1024, 16, flag | VRING_NEXT, 1);
  desc(at + step, HIGH, 0, 512, flag | VRING_NEXT | VRING_WRITE, 2);
  desc(at + 2 * step, LOW, 1100, 1, flag | VRING_WRITE, 0);
}
static void take_and_answer(uint8_t head, uint8_t how) {
  byte(OFFER);
  byte(head);
  byte(5); /* look */
  byte(how);
}
static void answer(void) {
  byte(PUT);
  draft_number(&out, 513, 2);
  byte(PUBLISH);
}

static void add_rings(void) {
  begin_ring(0, 8);
  request(0, 1, 0);
  for (int i = 0; i < 3; i++) {
    take_and_answer(0, TAKE);
    byte(1);
    byte(1);
    answer();
  }
  corpus_add("ring", "direct", out.bytes, out.count);
  begin_ring(1, 8);
  request(64, 16, 8);
  desc(3, NEXT, 64, 48, VRING_INDIRECT, 0);
  take_and_answer(3, TAKE);
  byte(1);
  byte(1);
  answer();
  byte(NOTIFY);
  byte(4);
  byte(1);
  take_and_answer(3, TAKE_CHANGING);
  for (int i = 0; i < 3; i++) { /* what changes: the table */
    byte(1);
    place(NEXT, 64 + 16);
    byte(16);
    draft_number(&out, 0x1000, 8);
    draft_number(&out, 5, 8);
  }
  answer();
  corpus_add("ring", "indirect", out.bytes, out.count);
  begin_ring(0, 8);
  desc(0, LOW, 2040, 100, VRING_NEXT, 1); /* over both */
  desc(1, HIGH, 1000, 9, VRING_NEXT | VRING_WRITE, 2);
  desc(2, LOW, 1100, 1, VRING_WRITE | VRING_NEXT, 0);
  take_and_answer(0, TAKE);
  desc(1, HIGH, 1000, 8, VRING_NEXT | VRING_WRITE, 2);
  take_and_answer(0, TAKE);
  desc(2, LOW, 1100, 1, VRING_WRITE, 0);
  take_and_answer(0, TAKE);
  take_and_answer(8, TAKE); /* no such head */
  byte(MAP);
  ring_of_8(4);
  take_and_answer(0, TAKE);
  corpus_add("ring", "malformed", out.bytes, out.count);
}

/* ---- Packed rings -----------------------------------------------------------------------------
 */

enum { ANY_DESC = 1, OFFER_NEXT = 2, TAKE_NEXT = 5, TAKE_NEXT_CHANGING, PUT_LAST, PUBLISH_ALL };
enum { NOTIFY_ME = 9, MAP_AGAIN, TAKE_AGAIN, UNTAKE };

static void packed_of_8(uint32_t position) {
  byte(0);
  draft_number(&out, position, 2);
  draft_number(&out, position, 2);
  place(LOW, 0);
  place(LOW, 256);
  place(LOW, 512);
}
static void begin_packed(uint8_t flags) {
  out.count = 0;
  byte(flags);
  byte(8);
  packed_of_8(RING_POSITION_FIRST);
}
static void offer_next(uint32_t region, uint32_t offset, uint32_t bytes, uint8_t flags,
                       uint8_t id) {
  byte(OFFER_NEXT);
  place(region, offset);
  draft_number(&out, bytes, 2);
  byte(flags);
  byte(id);
}
static void offer_request(uint8_t id) {
  offer_next(LOW, 1024, 16, VRING_NEXT, 0);
  offer_next(HIGH, 0, 512, VRING_NEXT | VRING_WRITE, 0);
  offer_next(LOW, 1100, 1, VRING_WRITE, id);
}
static void table_entry(uint32_t at, uint32_t region, uint32_t offset, uint32_t bytes,
                        uint32_t flags) {
  byte(ANY_DESC);
  place(NEXT, at);
  place(region, offset);
  draft_number(&out, bytes, 2);
  draft_number(&out, flags, 2);
  byte(0);
}
static void take_next(uint8_t how) {
  byte(how);
  byte(1);
  byte(1);
}
static void answer_last(uint32_t bytes) {
  byte(PUT_LAST);
  draft_number(&out, bytes, 2);
}

static void add_packed(void) {
  begin_packed(4);
  for (uint8_t i = 0; i < 8; i++) { /* round and round */
    offer_request(i);
    take_next(TAKE_NEXT);
    byte(TAKE_AGAIN);
    answer_last(513);
    byte(PUBLISH_ALL);
  }
  corpus_add("ring_packed", "direct", out.bytes, out.count);
  begin_packed(5);
  table_entry(64, LOW, 1024, 16, 0);
  table_entry(80, HIGH, 0, 512, VRING_WRITE);
  table_entry(96, LOW, 1100, 1, VRING_WRITE);
  for (uint8_t i = 0; i < 8; i++) offer_next(NEXT, 64, 48, VRING_INDIRECT, i);
  for (uint8_t i = 0; i < 4; i++) take_next(TAKE_NEXT);
  byte(UNTAKE);
  take_next(TAKE_NEXT_CHANGING);
  for (int i = 0; i < 3; i++) answer_last(7);
  byte(NOTIFY_ME);
  byte(4);
  byte(1);
  byte(PUBLISH_ALL);
  corpus_add("ring_packed", "indirect", out.bytes, out.count);
  begin_packed(0);
  offer_request(8); /* no such id */
  take_next(TAKE_NEXT);
  byte(MAP_AGAIN);
  packed_of_8(4);
  for (uint8_t i = 0; i < 9; i++) offer_next(LOW, 2040, 100, VRING_NEXT, 1); /* no end */
  take_next(TAKE_NEXT);
  byte(MAP_AGAIN);
  packed_of_8(RING_POSITION_FIRST | 7);
  offer_next(HIGH, 1000, 9, VRING_NEXT | VRING_WRITE, 0); /* beyond memory */
  offer_next(LOW, 1100, 1, VRING_WRITE, 2);
  take_next(TAKE_NEXT);
  offer_next(LOW, 1100, 1, VRING_WRITE, 2); /* in use twice */
  take_next(TAKE_NEXT);
  corpus_add("ring_packed", "malformed", out.bytes, out.count);
}

/* ---- Requests -------------------------------------------------------------------------------- */

struct parts {
  uint8_t out_count, in_count, sizes[6]; /* as fuzz_blk.c reads them */
};

static void add_request(const char *name, uint8_t flags, struct parts p, uint32_t type,
                        uint64_t sector, uint64_t range_sector, uint64_t range) {
  out.count = 0;
  byte(flags);
  draft_number(&out, 1 << 20, 5);
  byte(p.out_count);
  byte(p.in_count);
  draft_bytes(&out, p.sizes, (size_t)p.out_count + p.in_count);
  draft_number(&out, type, 4);
  draft_number(&out, 0, 4);
  draft_number(&out, sector, 8);
  draft_number(&out, range_sector, 8);
  draft_number(&out, range, 8);
  corpus_add("blk", name, out.bytes, out.count);
}

static void add_requests(void) {
  const uint8_t sector = 192; /* a piece of 512 bytes */
  add_request("read", 0, (struct parts){1, 2, {15, sector, 0}}, 0, 2047, 0, 0);
  add_request("write", 4, (struct parts){3, 1, {7, 7, sector, 0}}, 1, 3, 0, 0);
  add_request("flush", 64, (struct parts){1, 1, {15, 0}}, 4, 0, 0, 0);
  add_request("get_id", 32, (struct parts){1, 3, {15, 4, 20, 0}}, 8, 0, 0, 0);
  add_request("discard", 0, (struct parts){2, 1, {15, 15, 0}}, 11, 0, 8, 16);
  add_request("write_zeroes", 1, (struct parts){2, 1, {15, 15, 0}}, 13, 0, 8,
              8 | UINT64_C(1) << 32);
  add_request("read_only", 2, (struct parts){3, 1, {7, 7, sector, 0}}, 1, 3, 0, 0);
}

void corpus_ring(void) {
  add_rings();
  add_packed();
  add_requests();
}
