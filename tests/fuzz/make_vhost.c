/* make_vhost.c - corpus of the vhost target: devices that are set up, used, stopped and cut. */
#include "tests/fuzz/make_corpus.h"

enum {
  RAW = 0,
  REGIONS = 1,
  NUM = 2,
  GET_BASE = 7,
  INFLIGHT = 8,
  POKE = 9,
  DESC = 10,
  PUSH = 11,
  KICK = 12,
  SET_UP = 13,
  WITHOUT = 14,
  CUT = 15,
  REGION = 16,
  RECONNECT = 17,
  LOG = 18,
  REQUEST = 19
};

static void draft_request(struct draft *d, uint8_t how, uint8_t type, uint8_t pieces,
                          uint16_t sector, uint16_t bytes) {
  const uint8_t head[] = {REQUEST, how, type, pieces};
  draft_bytes(d, head, sizeof head);
  draft_number(d, sector, 2);
  draft_number(d, bytes, 2);
}

static void add_requests(void) {
  static struct draft d;
  static const uint8_t types[] = {0, 1, 4, 8, 11, 13, 2};
  draft_number(&d, SET_UP, 1);
  for (uint8_t i = 0; i < sizeof types; i++)
    draft_request(&d, i % 4, types[i], types[i] == 4 ? 0 : 1, i, i > 3 ? 16 : 4096);
  draft_request(&d, 6, 1, 5, 8, 4096);
  draft_request(&d, 6, 0, 5, 8, 4096);
  draft_request(&d, 1, 0, 2, 0xffff, 512);
  corpus_add("vhost", "requests", d.bytes, d.count);
}

/* The same rings, packed: in a table or not, and from one connection to the next. */
static void add_packed(void) {
  static struct draft d;
  static const uint8_t inflight[] = {INFLIGHT, 8}, base[] = {GET_BASE, GET_BASE + 20};
  draft_bytes(&d, inflight, sizeof inflight);
  draft_number(&d, SET_UP + 20, 1);
  for (uint8_t i = 0; i < 8; i++) draft_request(&d, (uint8_t)(i << 4 | i % 4), i % 2, 1, i, 4096);
  draft_request(&d, 8, 0, 1, 0, 4096);
  draft_number(&d, RECONNECT, 1);
  draft_bytes(&d, inflight, sizeof inflight);
  draft_number(&d, SET_UP + 20, 1);
  draft_request(&d, 2, 0, 2, 3, 4096);
  draft_bytes(&d, base, sizeof base);
  const uint8_t log[] = {LOG, 16};
  draft_bytes(&d, log, sizeof log);
  draft_request(&d, 0, 0, 1, 0, 4096);
  corpus_add("vhost", "packed", d.bytes, d.count);
}

static void add_life(void) {
  static struct draft d;
  static const uint8_t inflight[] = {INFLIGHT, 8}, base[] = {GET_BASE, GET_BASE + 20},
                       without[] = {WITHOUT, 28}, region[] = {REGION, 2, 0, 0, 0, 0},
                       again[] = {REGION, 3, 0, 0, 0, 0}, num[] = {NUM, 8};
  draft_bytes(&d, inflight, sizeof inflight);
  draft_number(&d, SET_UP, 1);
  draft_request(&d, 8, 0, 1, 0, 4096);
  draft_number(&d, RECONNECT, 1);
  draft_bytes(&d, inflight, sizeof inflight);
  draft_number(&d, SET_UP, 1);
  draft_bytes(&d, base, sizeof base);
  draft_bytes(&d, without, sizeof without);
  draft_request(&d, 2, 1, 1, 0, 512);
  draft_bytes(&d, region, sizeof region);
  draft_bytes(&d, again, sizeof again);
  draft_bytes(&d, num, sizeof num);
  draft_number(&d, SET_UP, 1);
  const uint8_t log[] = {LOG, 16};
  draft_bytes(&d, log, sizeof log);
  draft_request(&d, 0, 0, 1, 0, 4096);
  corpus_add("vhost", "life", d.bytes, d.count);
}

static void add_damage(void) {
  static struct draft d;
  draft_number(&d, SET_UP, 1);
  draft_request(&d, 8, 1, 2, 0, 4096);
  draft_number(&d, CUT, 1);
  draft_number(&d, 0x4001, 2);
  draft_number(&d, RECONNECT, 1);
  draft_number(&d, SET_UP, 1);
  for (uint8_t i = 0; i < 4; i++) {
    const uint8_t desc[] = {DESC, i, 0, 0x40, (uint8_t)(1 + i), 0, 2, (uint8_t)(i + 1)};
    draft_bytes(&d, desc, sizeof desc);
  }
  const uint8_t rest[] = {PUSH, 0, PUSH + 20, 3, KICK, POKE, 2, 4, 2, 200, 0, KICK};
  draft_bytes(&d, rest, sizeof rest);
  corpus_add("vhost", "damage", d.bytes, d.count);
}

static void add_messages(void) {
  static struct draft d;
  for (uint8_t request = 0; request < 44; request++) {
    const uint8_t raw[] = {RAW, request, 9, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0};
    draft_bytes(&d, raw, sizeof raw);
    if (request % 8 == 7) draft_number(&d, RECONNECT, 1);
  }
  corpus_add("vhost", "messages", d.bytes, d.count);
}

void corpus_vhost(void) {
  add_requests();
  add_packed();
  add_life();
  add_damage();
  add_messages();
}
