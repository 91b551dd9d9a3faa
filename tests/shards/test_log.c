/* test_log.c - entries and frames: round trips, sizes, damage, hostile bytes. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shards/log.h"
#include "tests/random.h"

#define REGION (UINT64_C(1) << 40)

static uint64_t buf64[FRAME_BYTES_MAX / 8];
static char *const buf = (char *)buf64;
static struct extent extents[BLOB_EXTENTS_MAX];
static uint32_t sums[BLOB_GRANULES_MAX];

static struct blob make_blob(uint64_t bytes, uint32_t extent_count, uint8_t flags) {
  struct blob b = {.id = {0x0123456789abcdef, bytes},
                   .bytes = bytes,
                   .granule_shift = blob_granule_shift(bytes),
                   .flags = flags,
                   .extent_count = extent_count,
                   .extents = extents,
                   .checksums = sums};
  uint64_t blocks = bytes_to_blocks(bytes), at = 1 << 20;
  if (bytes && !(flags & BLOB_NO_CHECKSUM))
    b.granule_count = blob_granule_count(bytes, b.granule_shift);
  for (uint32_t i = 0; i < extent_count; i++) {
    extents[i] = (struct extent){at, i + 1 < extent_count ? 1 : blocks - (extent_count - 1)};
    at += extents[i].blocks + 7;
  }
  for (uint32_t i = 0; i < b.granule_count; i++) sums[i] = 0xabc00000 + i;
  return b;
}

static void assert_same(const struct blob *a, const struct blob *b) {
  assert_true(blob_id_equal(a->id, b->id));
  assert_int_equal(a->bytes, b->bytes);
  assert_int_equal(a->flags, b->flags);
  assert_int_equal(a->granule_shift, b->granule_shift);
  assert_int_equal(a->extent_count, b->extent_count);
  assert_int_equal(a->granule_count, b->granule_count);
  assert_memory_equal(a->extents, b->extents, a->extent_count * sizeof *extents);
  assert_memory_equal(a->checksums, b->checksums, a->granule_count * sizeof *sums);
}

static uint32_t round_trip(const struct blob *b) {
  struct entry e;
  const char *why = "";
  memset(buf, 0xee, sizeof buf64);
  uint32_t n = log_entry_put(buf, b);
  assert_int_equal(n % 8, 0);
  assert_true(n <= entry_put_bytes(b->extent_count, b->granule_count));
  assert_int_equal((unsigned char)buf[n], 0xee);
  assert_int_equal(log_entry_decode(&e, buf, n, REGION, &why), n);
  assert_same(b, &e.blob);
  struct blob_id id;
  uint32_t peeked;
  assert_true(log_entry_peek(buf, n, &id, &peeked));
  assert_true(blob_id_equal(id, b->id));
  assert_int_equal(peeked, n);
  for (uint32_t left = 0; left < n; left += left < 64 || left + 64 > n ? 1 : 64)
    assert_int_equal(log_entry_decode(&e, buf, left, REGION, &why), 0);
  return n;
}

static void test_entries_round_trip(void **state) {
  (void)state;
  struct blob b = make_blob(4096, 1, 0);
  assert_int_equal(round_trip(&b), 32); /* what an open of a million blobs reads */
  b = make_blob(1, 1, BLOB_NO_CHECKSUM);
  assert_int_equal(round_trip(&b), 32);
  b = make_blob(0, 0, 0);
  assert_int_equal(round_trip(&b), 40);
  b = make_blob(8192, 1, 0);
  assert_int_equal(round_trip(&b), 64);
  b = make_blob(8192, 2, 0);
  round_trip(&b);
  b = make_blob(5 << 20, 300, BLOB_NO_CHECKSUM);
  round_trip(&b);
  b = make_blob(UINT64_C(1) << 32, BLOB_EXTENTS_MAX, 0); /* the largest there is */
  assert_int_equal(b.granule_count, BLOB_GRANULES_MAX);
  assert_true(round_trip(&b) <= ENTRY_BYTES_MAX);
  b = make_blob(UINT64_C(1) << 40, 1, 0);
  round_trip(&b);
  b = make_blob(100, 1, 0);
  extents[0].blocks = 3; /* longer than its bytes need */
  round_trip(&b);
}

/* At each length, in memory that ends there. */
static void test_entries_cut_off(void **state) {
  (void)state;
  struct blob blobs[3];
  for (int i = 0; i < 4; i++) {
    uint32_t n;
    if (i == 0) blobs[0] = make_blob(100, 1, 0);
    if (i == 1) blobs[1] = make_blob(0, 0, 0);
    if (i == 2) blobs[2] = make_blob(30000, 3, 0);
    n = i < 3 ? log_entry_put(buf, &blobs[i]) : log_entry_delete(buf, (struct blob_id){1, 2});
    for (uint32_t left = 0; left <= n; left++) {
      char *cut = malloc(left ? left : 1);
      struct blob_id id;
      uint32_t bytes;
      struct entry e;
      const char *why = NULL;
      memcpy(cut, buf, left);
      assert_int_equal(log_entry_decode(&e, cut, left, REGION, &why), left == n ? n : 0);
      assert_true(left == n || why);
      assert_int_equal(log_entry_peek(cut, left, &id, &bytes), left >= 24);
      free(cut);
    }
  }
}

static void test_delete_round_trip(void **state) {
  (void)state;
  struct entry e;
  const char *why = "";
  struct blob_id id = {5, 6};
  assert_int_equal(log_entry_delete(buf, id), 24);
  assert_int_equal(log_entry_decode(&e, buf, 24, REGION, &why), 24);
  assert_int_equal(e.type, ENTRY_DELETE);
  assert_true(blob_id_equal(e.blob.id, id));
  for (uint32_t i = 1; i < 8; i++) {
    buf[i] ^= 1;
    assert_int_equal(log_entry_decode(&e, buf, 24, REGION, &why), 0);
    buf[i] ^= 1;
  }
}

/* An extent beyond the region is refused: at its edge and where sums would overflow. */
static void test_entries_out_of_range(void **state) {
  (void)state;
  struct entry e;
  const char *why = "";
  struct blob b = make_blob(8192, 1, 0);
  uint64_t end = extents[0].block + extents[0].blocks;
  uint32_t n = log_entry_put(buf, &b);
  assert_int_equal(log_entry_decode(&e, buf, n, end, &why), n);
  assert_int_equal(log_entry_decode(&e, buf, n, end - 1, &why), 0);
  extents[0] = (struct extent){1, UINT64_MAX};
  n = log_entry_put(buf, &b);
  assert_int_equal(log_entry_decode(&e, buf, n, REGION, &why), 0);
  extents[0] = (struct extent){1, 1}; /* fewer blocks than bytes */
  n = log_entry_put(buf, &b);
  assert_int_equal(log_entry_decode(&e, buf, n, REGION, &why), 0);
  b = make_blob(4096, 1, 0);
  n = log_entry_put(buf, &b);
  assert_int_equal(n, 32);
  assert_int_equal(log_entry_decode(&e, buf, n, extents[0].block, &why), 0);
}

/* Whatever is accepted can be given to the index: its own checks do not abort. */
static void test_hostile_entries(void **state) {
  (void)state;
  struct random r = {3};
  const uint64_t key[2] = {1, 2};
  struct index *x;
  uint32_t accepted = 0;
  assert_int_equal(index_create(&x, key), 0);
  for (int i = 0; i < 60000; i++) {
    uint64_t bytes = random_below(&r, 3) ? random_below(&r, 1 << 15) : random_below(&r, 1 << 22);
    struct blob b = make_blob(bytes, bytes ? 1 + (uint32_t)random_below(&r, 3) % 3 : 0,
                              random_below(&r, 2) ? BLOB_NO_CHECKSUM : 0);
    if (b.extent_count > bytes_to_blocks(bytes)) continue;
    uint32_t n = log_entry_put(buf, &b);
    for (uint64_t k = random_below(&r, 3); k > 0; k--) {
      uint64_t at = random_below(&r, random_below(&r, 2) ? 8 : n < 64 ? n : 64);
      buf[at] = (char)(random_below(&r, 2) ? buf[at] ^ (1 << random_below(&r, 8))
                                           : (char)random_next(&r));
    }
    struct entry e;
    const char *why = NULL;
    uint32_t got = log_entry_decode(&e, buf, n, REGION, &why);
    if (!got) assert_non_null(why);
    if (!got || e.type == ENTRY_DELETE) continue;
    for (uint32_t k = 0; k < e.blob.extent_count; k++) {
      assert_in_range(e.blob.extents[k].blocks, 1, REGION);
      assert_true(e.blob.extents[k].block <= REGION - e.blob.extents[k].blocks);
    }
    assert_true(got <= n && got % 8 == 0);
    uint64_t hash = hash_id(e.blob.id, key);
    assert_int_equal(index_reserve(x, hash, e.blob.extent_count, e.blob.granule_count), 0);
    assert_int_equal(index_put(x, hash, &e.blob), 0);
    struct blob found;
    assert_int_equal(index_find(x, hash, e.blob.id, &found), 0);
    assert_int_equal(found.bytes, e.blob.bytes);
    accepted++;
  }
  assert_true(accepted > 20000 && accepted < 55000);
  index_destroy(x);
}

/* ---- Frames ------------------------------------------------------------------------------ */

static struct frame make_frame(uint32_t payload) {
  struct frame f = {.store = 0x1234567890,
                    .shard = 1023,
                    .incarnation = 9,
                    .epoch = 8,
                    .position = 77,
                    .sequence = 1234,
                    .chain = 0xfeed,
                    .payload_bytes = payload,
                    .entry_count = payload / 32};
  for (uint32_t i = 0; i < payload; i++) buf[FRAME_HEADER_BYTES + i] = (char)(i * 7);
  frame_encode(&f, buf);
  return f;
}

#define ONE_BLOCK (BLOCK_BYTES - FRAME_HEADER_BYTES)
static void test_frames_round_trip(void **state) {
  (void)state;
  static const uint32_t sizes[] = {
      0, 32, ONE_BLOCK, ONE_BLOCK + 8, 65536, FRAME_BYTES_MAX - FRAME_HEADER_BYTES};
  for (size_t i = 0; i < array_size(sizes); i++) {
    struct frame f = make_frame(sizes[i]), g;
    const char *why = "";
    memset(&g, 0xff, sizeof g);
    assert_int_equal(frame_decode_header(&g, buf, &why), 0);
    assert_true(f.store == g.store && f.shard == g.shard && f.incarnation == g.incarnation);
    assert_true(f.durable == g.durable);
    assert_true(f.epoch == g.epoch && f.position == g.position && f.sequence == g.sequence);
    assert_true(f.chain == g.chain && f.payload_bytes == g.payload_bytes && f.flags == g.flags);
    assert_true(f.entry_count == g.entry_count && f.checksum == g.checksum);
    assert_true(frame_checksum_matches(buf, frame_blocks(f.payload_bytes)));
    assert_false(frame_checksum_matches(buf, frame_blocks(f.payload_bytes) + 1));
  }
  assert_int_equal(frame_blocks(ONE_BLOCK), 1);
  assert_int_equal(frame_blocks(ONE_BLOCK + 8), 2);
}

static void test_frames_any_byte_damaged(void **state) {
  (void)state;
  struct frame f = make_frame(9000 / 8 * 8), g;
  for (uint64_t i = 0; i < frame_blocks(f.payload_bytes) << BLOCK_SHIFT; i++) {
    const char *why = "";
    buf[i] ^= 0x40;
    bool refused = frame_decode_header(&g, buf, &why) != 0 ||
                   !frame_checksum_matches(buf, frame_blocks(f.payload_bytes));
    if (!refused) fail_msg("byte %llu", (unsigned long long)i);
    buf[i] ^= 0x40;
  }
}

/* No header makes a reader go beyond the largest frame. */
static void test_hostile_headers(void **state) {
  (void)state;
  struct random r = {8};
  for (int i = 0; i < 20000; i++) {
    struct frame g;
    const char *why = "";
    make_frame(64);
    for (int k = 0; k < 8; k++) buf[56 + random_below(&r, 16)] = (char)random_next(&r);
    if (frame_decode_header(&g, buf, &why)) continue;
    assert_true(frame_blocks(g.payload_bytes) <= FRAME_BLOCKS_MAX);
    (void)frame_checksum_matches(buf, frame_blocks(g.payload_bytes));
  }
}

static void test_positions(void **state) {
  (void)state;
  assert_int_equal(log_next(10, 3, 0, 256), 13);
  assert_int_equal(log_next(250, 1, FRAME_SKIP, 256), 256);
  assert_int_equal(log_next(255, 1, FRAME_SKIP, 256), 256);
  assert_int_equal(log_next(256, 1, FRAME_SKIP, 256), 512);
  assert_int_equal(log_place(513, 256), 1);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_entries_round_trip),
      cmocka_unit_test(test_entries_cut_off),
      cmocka_unit_test(test_delete_round_trip),
      cmocka_unit_test(test_entries_out_of_range),
      cmocka_unit_test(test_hostile_entries),
      cmocka_unit_test(test_frames_round_trip),
      cmocka_unit_test(test_frames_any_byte_damaged),
      cmocka_unit_test(test_hostile_headers),
      cmocka_unit_test(test_positions),
  };
  return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
