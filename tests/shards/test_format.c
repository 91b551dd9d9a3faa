/* test_format.c - identity blocks and root records: round trips, damage, hostile fields. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shards/base/crc32c.h"
#include "shards/format.h"
#include "tests/random.h"

#define IDENTITY_BYTES (FORMAT_IDENTITY_BLOCKS * BLOCK_BYTES)

static const uint8_t uuid[16] = {0xa0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
static struct identity id, back;
static struct root root, root_back;
static uint8_t buf[IDENTITY_BYTES], slot[64 * BLOCK_BYTES];
static char why[256];

static void make_identity(void) {
  memset(&id, 0, sizeof id);
  memcpy(id.uuid, uuid, sizeof uuid);
  id.version = FORMAT_VERSION;
  id.generation = 3;
  id.hash_key[0] = 0x1122334455667788;
  id.hash_key[1] = 0x99aabbccddeeff00;
  id.shard_count = 4;
  id.backing_index = 0;
  id.backing_count = 2;
  id.backing_blocks = 100000;
  id.log_blocks = 256;
  id.root_block = 16;
  id.root_slot_blocks = 2;
  id.segment_count = 3;
  id.segments[0] = (struct format_segment){0, 0, 24, 1000};
  id.segments[1] = (struct format_segment){1, 0, 1024, 1000};
  id.segments[2] = (struct format_segment){0, 1, 2024, 97960}; /* to the second copy */
  identity_encode(&id, buf);
}

static void seal_identity(void) { /* a right checksum over whatever the test has put in */
  memset(buf + 12, 0, 4);
  uint32_t crc = crc32c(0, buf, sizeof buf);
  memcpy(buf + 12, &crc, 4);
}

static int decode(void) {
  why[0] = 0;
  return identity_decode(&back, buf, why, sizeof why);
}

static void test_identity_round_trip(void **state) {
  (void)state;
  make_identity();
  memset(&back, 0xff, sizeof back);
  assert_int_equal(decode(), 0);
  assert_memory_equal(&id, &back, sizeof id);
  id.segment_count = FORMAT_SEGMENTS_MAX;
  for (uint32_t i = 0; i < FORMAT_SEGMENTS_MAX; i++)
    id.segments[i] = (struct format_segment){i % 4, i / 4, 100 + i * 3, 3};
  identity_encode(&id, buf);
  assert_int_equal(decode(), 0);
  assert_memory_equal(&id, &back, sizeof id);
}

static void test_identity_any_byte_damaged(void **state) {
  (void)state;
  make_identity();
  for (size_t i = 0; i < sizeof buf; i++) {
    buf[i] ^= 0x20;
    int e = decode();
    assert_int_equal(e, i < 8 ? -EMEDIUMTYPE : -EBADMSG);
    assert_true(why[0] != 0);
    buf[i] ^= 0x20;
  }
  assert_int_equal(decode(), 0);
}

/* Fields with a right checksum that cannot be. */
static void test_identity_impossible_fields(void **state) {
  (void)state;
  static const struct {
    size_t offset;
    uint8_t bytes;
    uint64_t value;
    int error;
    const char *why;
  } cases[] = {
      {8, 4, 2, -ENOTSUP, "version 2"},
      {8, 4, 0, -ENOTSUP, "version 0"},
      {16, 8, 4, -ENOTSUP, "incompatible"},
      {24, 8, 1, -EROFS, "read-only"},
      {72, 4, 512, -EBADMSG, "block size"},
      {76, 4, 0, -EBADMSG, "shards"},
      {76, 4, FORMAT_SHARDS_MAX + 1, -EBADMSG, "shards"},
      {80, 4, 2, -EBADMSG, "part"},
      {84, 4, 0, -EBADMSG, "part"},
      {88, 8, 31, -EBADMSG, "blocks long"},
      {88, 8, UINT64_MAX, -EBADMSG, "blocks long"},
      {96, 8, 0, -EBADMSG, "log"},
      {96, 8, UINT64_MAX, -EBADMSG, "log"},
      {104, 8, 0, -EBADMSG, "root"},
      {104, 8, UINT64_MAX - 4, -EBADMSG, "root"},
      {112, 8, 0, -EBADMSG, "root"},
      {112, 8, UINT64_MAX / 4, -EBADMSG, "root"},
      {120, 4, FORMAT_SEGMENTS_MAX + 1, -EBADMSG, "segments"},
      {120, 4, UINT32_MAX, -EBADMSG, "segments"},
      {120, 4, 2, -EBADMSG, "not zero"}, /* bytes of the third segment */
      {124, 4, 1, -EBADMSG, "reserved"},
      {128, 4, 1, -EBADMSG, "reserved"},
      {252, 4, 1, -EBADMSG, "reserved"},
      {256, 4, 4, -EBADMSG, "segment 0"},
      {264, 8, 15, -EBADMSG, "segment 0"},
      {264, 8, 16, -EBADMSG, "root slots"}, /* they are blocks 16 to 23 */
      {264, 8, 23, -EBADMSG, "root slots"},
      {104, 8, 5000, -EBADMSG, "root slots"},
      {264, 8, UINT64_MAX, -EBADMSG, "segment 0"},
      {272, 8, 0, -EBADMSG, "segment 0"},
      {272, 8, UINT64_MAX, -EBADMSG, "segment 0"},
      {272, 8, 1001, -EBADMSG, "overlap"},
      {308, 4, 0, -EBADMSG, "one place"},
      {320, 8, 97961, -EBADMSG, "segment 2"},
      {65528, 8, 1, -EBADMSG, "not zero"},
  };
  for (size_t i = 0; i < array_size(cases); i++) {
    make_identity();
    memcpy(buf + cases[i].offset, &cases[i].value, cases[i].bytes);
    seal_identity();
    int e = decode();
    if (e != cases[i].error || !strstr(why, cases[i].why)) fail_msg("case %zu: %d, %s", i, e, why);
  }
}

/* Only backing 0 has root slots to keep clear of. */
static void test_identity_other_backing(void **state) {
  (void)state;
  make_identity();
  id.backing_index = 1;
  id.segments[0].first_block = 16;
  identity_encode(&id, buf);
  if (decode()) fail_msg("%s", why);
  id.backing_index = 0;
  identity_encode(&id, buf);
  assert_int_equal(decode(), -EBADMSG);
  assert_non_null(strstr(why, "segment 0 overlaps the root slots"));
}

/* What a newer library may have added does not keep this one from reading. */
static void test_identity_read_only_compatible(void **state) {
  (void)state;
  make_identity();
  id.read_only_compatible = UINT64_C(1) << 63;
  identity_encode(&id, buf);
  memset(&back, 0xff, sizeof back);
  assert_int_equal(decode(), -EROFS);
  assert_memory_equal(&id, &back, sizeof id);
  id.incompatible = UINT64_C(1) << 63; /* of both the one that refuses more counts */
  identity_encode(&id, buf);
  assert_int_equal(decode(), -ENOTSUP);
}

/* Nothing that a stranger writes makes it crash or accept what is out of range. */
static void test_identity_random_bytes(void **state) {
  (void)state;
  struct random r = {99};
  for (int n = 0; n < 3000; n++) {
    make_identity();
    for (uint64_t k = 1 + random_below(&r, 4); k > 0; k--)
      buf[16 + random_below(&r, 320)] = (uint8_t)random_next(&r);
    seal_identity();
    if (decode()) continue;
    for (uint32_t i = 0; i < back.segment_count; i++)
      assert_true(back.segments[i].first_block + back.segments[i].blocks <=
                  back.backing_blocks - FORMAT_IDENTITY_BLOCKS);
  }
}

/* ---- Root -------------------------------------------------------------------------------- */

static uint64_t make_root(uint32_t shards) {
  memset(&root, 0, sizeof root);
  root.epoch = 77;
  root.incarnation = 5;
  root.shard_count = shards;
  for (uint32_t s = 0; s < shards; s++)
    root.shards[s] = (struct root_shard){.log_head = s,
                                         .log_tail = s + 10,
                                         .sequence = 1000 + s,
                                         .chain = 0xc0de + s,
                                         .dir_checksum = 0xd1 + s,
                                         .dir_block = 500 + s,
                                         .dir_bytes = 24 + s,
                                         .zeroed_blocks = 9 + s,
                                         .blobs = 33 + s};
  root_encode(&root, uuid, slot);
  return root_copy_blocks(shards) << BLOCK_SHIFT;
}
static int decode_root(uint32_t shards, const void *copy) {
  why[0] = 0;
  return root_decode(&root_back, uuid, shards, copy, why, sizeof why);
}

static void test_root_round_trip(void **state) {
  (void)state;
  static const uint32_t counts[] = {1, 2, 63, 64, 1024};
  for (size_t i = 0; i < array_size(counts); i++) {
    uint64_t bytes = make_root(counts[i]);
    assert_true(2 * bytes <= sizeof slot);
    for (int copy = 0; copy < 2; copy++) {
      memset(&root_back, 0xff, sizeof root_back);
      assert_int_equal(decode_root(counts[i], slot + copy * bytes), 0);
      assert_memory_equal(&root, &root_back, sizeof root);
    }
  }
  assert_int_equal(root_copy_blocks(63), 1);
  assert_int_equal(root_copy_blocks(64), 2);
}

static void test_root_any_byte_damaged(void **state) {
  (void)state;
  uint64_t bytes = make_root(70);
  for (uint64_t i = 0; i < bytes; i++) {
    slot[i] ^= 0x04;
    assert_int_equal(decode_root(70, slot), -EBADMSG);
    assert_int_equal(decode_root(70, slot + bytes), 0); /* the second copy serves */
    slot[i] ^= 0x04;
  }
}

static void test_root_refusals(void **state) {
  (void)state;
  uint64_t bytes = make_root(3);
  uint8_t other[16];
  memcpy(other, uuid, 16);
  other[15] ^= 1;
  assert_int_equal(root_decode(&root_back, other, 3, slot, why, sizeof why), -EBADMSG);
  assert_non_null(strstr(why, "another store"));
  assert_int_equal(decode_root(4, slot), -EBADMSG);
  assert_non_null(strstr(why, "3 shards"));
  memset(slot, 0, bytes);
  assert_int_equal(decode_root(3, slot), -ENODATA);
  static const struct {
    size_t offset;
    uint64_t value;
  } cases[] = {{48, 1},          {56, 1},
               {64 + 0, 11},     {64 + 8, UINT64_MAX},
               {64 + 44, 1},     {64 + 16, UINT64_MAX},
               {64 + 3 * 64, 1}, {4088, 1}};
  for (size_t i = 0; i < array_size(cases); i++) {
    make_root(3);
    memcpy(slot + cases[i].offset, &cases[i].value, cases[i].offset == 64 + 44 ? 4 : 8);
    memset(slot + 8, 0, 4);
    uint32_t crc = crc32c(0, slot, bytes);
    memcpy(slot + 8, &crc, 4);
    if (decode_root(3, slot) != -EBADMSG || strstr(why, "mismatch"))
      fail_msg("case %zu: %s", i, why);
  }
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_identity_round_trip),
      cmocka_unit_test(test_identity_any_byte_damaged),
      cmocka_unit_test(test_identity_impossible_fields),
      cmocka_unit_test(test_identity_other_backing),
      cmocka_unit_test(test_identity_read_only_compatible),
      cmocka_unit_test(test_identity_random_bytes),
      cmocka_unit_test(test_root_round_trip),
      cmocka_unit_test(test_root_any_byte_damaged),
      cmocka_unit_test(test_root_refusals),
  };
  return cmocka_run_group_tests_name("format", tests, NULL, NULL);
}
