/* make_message.c - corpus of the message target: conversations as QEMU begins them, and answers. */
#include <stdio.h>

#include "api/vhost/message.h"
#include "tests/fuzz/make_corpus.h"

/* A message as one or two pieces, `cut` bytes in the first one. */
static void draft_message(struct draft *d, uint32_t request, uint32_t flags, const void *payload,
                          uint32_t bytes, uint32_t fds, uint32_t cut) {
  uint8_t wire[12 + 240];
  uint32_t header[3] = {request, flags, bytes}, all = 12 + bytes;
  check(all <= sizeof wire);
  memcpy(wire, header, 12);
  if (bytes) memcpy(wire + 12, payload, bytes);
  if (cut == 0 || cut > all) cut = all;
  draft_number(d, cut, 1);
  draft_number(d, fds, 1);
  draft_bytes(d, wire, cut);
  if (cut == all) return;
  draft_number(d, all - cut, 1);
  draft_number(d, 0, 1);
  draft_bytes(d, wire + cut, all - cut);
}

static void draft_table(struct draft *d, uint32_t count, uint32_t fds) {
  struct message_mem_table table = {.count = count};
  for (uint32_t i = 0; i < count; i++)
    table.regions[i] = (struct message_region){i << 20, 1 << 20, 0x7f0000000000 + (i << 20), 0};
  draft_message(d, VHOST_SET_MEM_TABLE, 9, &table, 8 + count * 32, fds, 12);
}

static void add_requests(void) {
  static struct draft d;
  uint64_t features = UINT64_C(0x170000246), one = 1;
  struct message_vring_state state = {0, 128};
  struct message_vring_addr addr = {0, 0, 0x7f0000000000, 0x7f0000002000, 0x7f0000001000, 0};
  struct message_config config = {.bytes = 57};
  struct message_inflight inflight = {.queues = 1, .queue_size = 128};
  struct message_mem_reg reg = {0, {0, 1 << 20, 0x7f0000000000, 0}};
  draft_number(&d, MESSAGE_REQUESTS, 1);
  draft_message(&d, VHOST_GET_FEATURES, 1, NULL, 0, 0, 5);
  draft_message(&d, VHOST_SET_OWNER, 1, NULL, 0, 0, 0);
  draft_message(&d, VHOST_SET_FEATURES, 9, &features, 8, 0, 0);
  draft_message(&d, VHOST_GET_CONFIG, 1, &config, 12 + 57, 0, 12);
  draft_message(&d, VHOST_SET_VRING_NUM, 9, &state, 8, 0, 0);
  draft_message(&d, VHOST_SET_VRING_ADDR, 9, &addr, 40, 0, 30);
  draft_message(&d, VHOST_SET_VRING_CALL, 1, &one, 8, 1, 0);
  draft_table(&d, 3, 3);
  draft_message(&d, VHOST_ADD_MEM_REG, 9, &reg, 40, 1, 0);
  draft_message(&d, VHOST_GET_INFLIGHT_FD, 1, &inflight, 24, 0, 0);
  draft_message(&d, VHOST_SET_INFLIGHT_FD, 1, &inflight, 20, 1, 0);
  draft_message(&d, 200, 1, &features, 8, 2, 0);
  corpus_add("message", "requests", d.bytes, d.count);
}

static void add_others(void) {
  static struct draft replies, backend, table, fds;
  struct message_config config = {.bytes = 60};
  struct message_inflight inflight = {4096, 0, 1, 128, 0};
  uint64_t zero = 0;
  draft_number(&replies, MESSAGE_REPLIES, 1);
  draft_message(&replies, VHOST_GET_FEATURES, 5, &zero, 8, 0, 0);
  draft_message(&replies, VHOST_GET_CONFIG, 5, &config, 72, 0, 13);
  draft_message(&replies, VHOST_GET_INFLIGHT_FD, 5, &inflight, 24, 1, 0);
  draft_message(&replies, VHOST_SET_LOG_BASE, 5, NULL, 0, 0, 0);
  corpus_add("message", "replies", replies.bytes, replies.count);
  draft_number(&backend, MESSAGE_BACKEND_REQUESTS, 1);
  draft_message(&backend, VHOST_BACKEND_CONFIG_CHANGE_MSG, 9, NULL, 0, 0, 0);
  corpus_add("message", "backend", backend.bytes, backend.count);
  draft_number(&table, MESSAGE_REQUESTS, 1);
  draft_table(&table, 2, 3);
  corpus_add("message", "more_fds_than_regions", table.bytes, table.count);
  draft_number(&fds, MESSAGE_REQUESTS, 1);
  draft_message(&fds, 77, 1, &zero, 8, 12, 0);
  corpus_add("message", "surplus", fds.bytes, fds.count);
}

void corpus_message(void) {
  add_requests();
  add_others();
}
