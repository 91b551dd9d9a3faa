/* test_blk.c - requests of virtio-blk: headers and data in any pieces, ranges at every edge, the
 * identity, and the configuration byte by byte. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <errno.h>
#include <stdlib.h>
#include <cmocka.h>

#include "api/vhost/blk.h"

#define ROOM 64u

/* What a driver has laid out: pieces of exactly their size, so that a sanitizer sees more. */
struct layout {
  struct iovec iov[ROOM];
  void *bases[ROOM];
  struct ring_chain chain;
};
static struct layout layout;
static struct blk_request request;
static struct blk_disk disk;

static int reset(void **state) {
  (void)state;
  for (uint32_t i = 0; i < ROOM; i++) free(layout.bases[i]);
  memset(&layout, 0, sizeof(layout));
  layout.chain = (struct ring_chain){.iov = layout.iov, .room = ROOM};
  disk = (struct blk_disk){.size_bytes = 1 << 20,
                           .block_bytes = 512,
                           .align_bytes = 512,
                           .queues = 1,
                           .queue_size_max = 256,
                           .serial = "serial"};
  return 0;
}

static void *add(bool in, const void *from, size_t bytes) {
  struct ring_chain *c = &layout.chain;
  uint32_t i = c->out_count + c->in_count;
  assert_true(i < ROOM);
  layout.bases[i] = malloc(bytes);
  assert_non_null(layout.bases[i]);
  if (from)
    memcpy(layout.bases[i], from, bytes);
  else
    memset(layout.bases[i], 0x77, bytes);
  layout.iov[i] = (struct iovec){layout.bases[i], bytes};
  *(in ? &c->in_count : &c->out_count) += 1;
  *(in ? &c->in_bytes : &c->out_bytes) += bytes;
  return layout.bases[i];
}

struct header {
  uint32_t type, reserved;
  uint64_t sector;
};
struct segment {
  uint64_t sector;
  uint32_t sectors, flags;
};
enum { IN = 0, OUT = 1, FLUSH = 4, GET_ID = 8, DISCARD = 11, WRITE_ZEROES = 13 };

static void begin(uint32_t type, uint64_t sector) {
  reset(NULL);
  struct header h = {type, UINT32_MAX, sector}; /* who knows what priority it has */
  add(false, &h, sizeof(h));
}
static enum blk_status parse(void) { return blk_parse(&disk, &layout.chain, &request); }

static enum blk_status parse_read(uint64_t sector, size_t bytes) {
  begin(IN, sector);
  if (bytes) add(true, NULL, bytes);
  add(true, NULL, 1);
  return parse();
}
static enum blk_status parse_write(uint64_t sector, size_t bytes) {
  begin(OUT, sector);
  if (bytes) add(false, NULL, bytes);
  add(true, NULL, 1);
  return parse();
}
static enum blk_status parse_segment(uint32_t type, uint64_t sector, uint32_t sectors,
                                     uint32_t flags) {
  begin(type, 12345);
  struct segment s = {sector, sectors, flags};
  add(false, &s, sizeof(s));
  add(true, NULL, 1);
  return parse();
}

/* ---- Reads and writes ------------------------------------------------------------------------ */

static void read_is_cut_from_its_status(void **state) {
  (void)state;
  begin(IN, 3);
  void *first = add(true, NULL, 1000), *second = add(true, NULL, 537); /* the status is its last */
  assert_int_equal(parse(), BLK_OK);
  assert_int_equal(request.kind, BLK_READ);
  assert_int_equal(request.offset, 3 * 512);
  assert_int_equal(request.bytes, 1536);
  assert_int_equal(request.data_count, 2);
  assert_ptr_equal(request.data[0].iov_base, first);
  assert_int_equal(request.data[0].iov_len, 1000);
  assert_ptr_equal(request.data[1].iov_base, second);
  assert_int_equal(request.data[1].iov_len, 536);
  assert_ptr_equal(request.status, (uint8_t *)second + 536);
  assert_int_equal(request.used_bytes, 1537);
  assert_int_equal(parse_read(3, 1536), BLK_OK); /* its own piece */
  assert_int_equal(request.data_count, 1);
  assert_int_equal(request.used_bytes, 1537);
  assert_ptr_equal(request.status, layout.bases[2]);
}

static void write_is_cut_from_its_header(void **state) {
  (void)state;
  struct header h = {OUT, 0, 5};
  uint8_t header_and_data[16 + 500];
  memset(header_and_data, 1, sizeof(header_and_data));
  memcpy(header_and_data, &h, sizeof(h));
  uint8_t *first = add(false, header_and_data, sizeof(header_and_data));
  void *second = add(false, NULL, 12);
  void *status = add(true, NULL, 1);
  assert_int_equal(parse(), BLK_OK);
  assert_int_equal(request.kind, BLK_WRITE);
  assert_int_equal(request.offset, 5 * 512);
  assert_int_equal(request.bytes, 512);
  assert_int_equal(request.data_count, 2);
  assert_ptr_equal(request.data[0].iov_base, first + 16);
  assert_int_equal(request.data[0].iov_len, 500);
  assert_ptr_equal(request.data[1].iov_base, second);
  assert_ptr_equal(request.status, status);
  assert_int_equal(request.used_bytes, 1);
}

static void header_in_pieces(void **state) {
  (void)state;
  struct header h = {OUT, 0, 0x7ff};
  const uint8_t *bytes = (const uint8_t *)&h;
  for (size_t piece = 1; piece <= 16; piece++) {
    reset(NULL);
    for (size_t i = 0; i < 16; i += piece) add(false, bytes + i, min_u64(piece, 16 - i));
    void *data = add(false, NULL, 512);
    add(true, NULL, 1);
    assert_int_equal(parse(), BLK_OK);
    assert_int_equal(request.offset, 0x7ff * 512);
    assert_int_equal(request.data_count, 1);
    assert_ptr_equal(request.data[0].iov_base, data);
  }
}

static void short_header_is_an_error(void **state) {
  (void)state;
  struct header h = {FLUSH, 0, 0};
  for (size_t bytes = 1; bytes < 16; bytes++) {
    reset(NULL);
    add(false, &h, bytes);
    void *status = add(true, NULL, 1);
    assert_int_equal(parse(), BLK_IOERR);
    assert_ptr_equal(request.status, status);
  }
  reset(NULL);
  add(true, NULL, 1); /* none at all: also what is left of a chain that ring_take() refused */
  assert_int_equal(parse(), BLK_IOERR);
  assert_ptr_equal(request.status, layout.bases[0]);
  assert_ptr_equal(blk_status_of(&layout.chain), layout.bases[0]);
}

static void without_status_byte_nothing_is_answered(void **state) {
  (void)state;
  const uint32_t types[] = {IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES, 99};
  for (size_t i = 0; i < array_size(types); i++) {
    begin(types[i], 0);
    add(false, NULL, 512);
    assert_int_equal(parse(), BLK_IOERR);
    assert_null(request.status);
    assert_null(blk_status_of(&layout.chain));
  }
  reset(NULL);
  assert_int_equal(parse(), BLK_IOERR);
  assert_null(request.status);
}

static void sector_plus_length_without_overflow(void **state) {
  (void)state;
  const struct {
    uint64_t sector, bytes;
    enum blk_status result;
  } cases[] = {
      {0, 1 << 20, BLK_OK},
      {2047, 512, BLK_OK},
      {2048, 512, BLK_IOERR},
      {2047, 1024, BLK_IOERR},
      {1, 1 << 20, BLK_IOERR},
      {0, (1 << 20) + 512, BLK_IOERR},
      {2048, 0, BLK_IOERR},
      {0, 0, BLK_IOERR},
      {0, 511, BLK_IOERR},
      {0, 513, BLK_IOERR},
      {UINT64_C(1) << 55, 512, BLK_IOERR}, /* 2^64 bytes */
      {(UINT64_C(1) << 55) - 1, 512, BLK_IOERR},
      {(UINT64_C(1) << 55) - 1, 1024, BLK_IOERR},
      {UINT64_MAX, 512, BLK_IOERR},
      {UINT64_MAX / 2 + 1, 512, BLK_IOERR},
  };
  for (size_t i = 0; i < array_size(cases); i++) {
    assert_int_equal(parse_read(cases[i].sector, cases[i].bytes), cases[i].result);
    assert_non_null(request.status);
    assert_int_equal(parse_write(cases[i].sector, cases[i].bytes), cases[i].result);
    uint32_t sectors = (uint32_t)(cases[i].bytes / 512);
    if (cases[i].bytes % 512) continue;
    assert_int_equal(parse_segment(DISCARD, cases[i].sector, sectors, 0), cases[i].result);
    assert_int_equal(parse_segment(WRITE_ZEROES, cases[i].sector, sectors, 0), cases[i].result);
  }
}

/* parse_...() reset the disk: so this one goes by hand. */
static enum blk_status parse_on(const struct blk_disk *d, uint32_t type, uint64_t sector,
                                size_t bytes) {
  begin(type, sector);
  add(type == IN, NULL, bytes);
  add(true, NULL, 1);
  return blk_parse(d, &layout.chain, &request);
}

static void whole_logical_blocks(void **state) {
  (void)state;
  struct blk_disk d = disk;
  d.block_bytes = d.align_bytes = 4096;
  for (uint32_t type = IN; type <= OUT; type++) {
    assert_int_equal(parse_on(&d, type, 8, 8192), BLK_OK);
    assert_int_equal(parse_on(&d, type, 8, 4096 + 512), BLK_IOERR);
    assert_int_equal(parse_on(&d, type, 9, 4096), BLK_IOERR);
    assert_int_equal(parse_on(&d, type, 8, 512), BLK_IOERR);
  }
}

static void largest_disk(void **state) {
  (void)state;
  struct blk_disk d = disk;
  d.size_bytes = UINT64_MAX & ~UINT64_C(511);
  assert_int_equal(parse_on(&d, IN, (UINT64_C(1) << 55) - 2, 512), BLK_OK);
  assert_int_equal(request.offset, UINT64_MAX - 1023);
  assert_int_equal(parse_on(&d, IN, (UINT64_C(1) << 55) - 2, 1024), BLK_IOERR);
  assert_int_equal(parse_on(&d, IN, (UINT64_C(1) << 55) - 1, 512), BLK_IOERR);
  d.size_bytes = 256; /* less than a sector */
  assert_int_equal(parse_on(&d, IN, 0, 512), BLK_IOERR);
}

static void nothing_is_written_to_a_read_only_disk(void **state) {
  (void)state;
  struct blk_disk d = disk;
  struct segment s = {0, 8, 0};
  d.read_only = true;
  assert_int_equal(parse_on(&d, IN, 0, 512), BLK_OK);
  assert_int_equal(parse_on(&d, OUT, 0, 512), BLK_IOERR);
  for (uint32_t type = DISCARD; type <= WRITE_ZEROES; type += WRITE_ZEROES - DISCARD) {
    begin(type, 0);
    add(false, &s, sizeof(s));
    add(true, NULL, 1);
    assert_int_equal(blk_parse(&d, &layout.chain, &request), BLK_IOERR);
    assert_non_null(request.status);
  }
  assert_int_equal(parse_on(&d, FLUSH, 0, 0), BLK_OK);
}

/* ---- Others ---------------------------------------------------------------------------------- */

static void flushes(void **state) {
  (void)state;
  begin(FLUSH, UINT64_MAX); /* should be 0, and is not looked at */
  add(true, NULL, 1);
  assert_int_equal(parse(), BLK_OK);
  assert_int_equal(request.kind, BLK_FLUSH);
  assert_int_equal(request.data_count, 0);
  assert_int_equal(request.used_bytes, 1);
}

static void unknown_requests_are_unsupported(void **state) {
  (void)state;
  const uint32_t types[] = {2, 3, 5, 6, 7, 9, 10, 12, 14, 0x80000000, UINT32_MAX};
  for (size_t i = 0; i < array_size(types); i++) {
    begin(types[i], 0);
    add(false, NULL, 512);
    add(true, NULL, 1);
    assert_int_equal(parse(), BLK_UNSUPPORTED);
    assert_non_null(request.status);
  }
}

static void ranges_of_discard_and_write_zeroes(void **state) {
  (void)state;
  assert_int_equal(parse_segment(DISCARD, 16, 24, 0), BLK_OK);
  assert_int_equal(request.kind, BLK_DISCARD);
  assert_int_equal(request.offset, 16 * 512);
  assert_int_equal(request.bytes, 24 * 512);
  assert_int_equal(request.data_count, 0);
  assert_false(request.unmap);
  assert_int_equal(parse_segment(WRITE_ZEROES, 16, 24, 0), BLK_OK);
  assert_int_equal(request.kind, BLK_WRITE_ZEROES);
  assert_false(request.unmap);
  assert_int_equal(parse_segment(WRITE_ZEROES, 16, 24, 1), BLK_OK); /* negotiated or not */
  assert_true(request.unmap);
  assert_int_equal(parse_segment(DISCARD, 16, 24, 1), BLK_UNSUPPORTED);
  for (uint32_t flag = 2; flag; flag <<= 1) {
    assert_int_equal(parse_segment(DISCARD, 16, 24, flag), BLK_UNSUPPORTED);
    assert_int_equal(parse_segment(WRITE_ZEROES, 16, 24, flag | 1), BLK_UNSUPPORTED);
  }
  assert_int_equal(parse_segment(DISCARD, 0, UINT32_MAX, 0), BLK_IOERR);
}

static void one_segment_at_a_time(void **state) {
  (void)state;
  struct segment s[2] = {{0, 8, 0}, {8, 8, 0}};
  for (size_t bytes = 0; bytes <= 32; bytes++) {
    begin(DISCARD, 0);
    if (bytes) add(false, s, bytes);
    add(true, NULL, 1);
    enum blk_status status = bytes < 16 ? BLK_IOERR : bytes == 16 ? BLK_OK : BLK_UNSUPPORTED;
    assert_int_equal(parse(), status);
  }
  struct blk_disk d = disk;
  d.size_bytes = UINT64_C(1) << 40;
  uint32_t most = (uint32_t)(BLK_DISCARD_BYTES_MAX / 512);
  for (uint32_t over = 0; over < 2; over++) {
    s[0].sectors = most + over;
    begin(WRITE_ZEROES, 0);
    add(false, &s[0], 5); /* in pieces */
    add(false, (char *)&s[0] + 5, 11);
    add(true, NULL, 1);
    assert_int_equal(blk_parse(&d, &layout.chain, &request), over ? BLK_IOERR : BLK_OK);
  }
}

static void identity_never_overruns_the_buffer(void **state) {
  (void)state;
  const char *serials[] = {"", "s", "serial of 20 bytes:)"};
  for (size_t s = 0; s < array_size(serials); s++) {
    for (size_t bytes = 0; bytes < 40; bytes++) {
      for (size_t piece = 1; piece <= 40; piece += 3) {
        struct blk_disk d = disk;
        strcpy(d.serial, serials[s]);
        begin(GET_ID, 77);
        for (size_t i = 0; i < bytes; i += piece) add(true, NULL, min_u64(piece, bytes - i));
        uint8_t *status = add(true, NULL, 1);
        assert_int_equal(blk_parse(&d, &layout.chain, &request), BLK_OK);
        assert_int_equal(request.kind, BLK_GET_ID);
        assert_int_equal(request.bytes, min_u64(bytes, 20));
        assert_int_equal(request.used_bytes, min_u64(bytes, 20) + 1);
        assert_ptr_equal(request.status, status);
        blk_put_id(&d, &request);
        assert_int_equal(*status, 0x77);
        for (size_t i = 0; i < bytes; i++) {
          uint8_t got = ((uint8_t *)layout.bases[1 + i / piece])[i % piece];
          uint8_t want = i < strlen(serials[s]) ? (uint8_t)serials[s][i] : i < 20 ? 0 : 0x77;
          assert_int_equal(got, want);
        }
      }
    }
  }
}

/* ---- Configuration --------------------------------------------------------------------------- */

static uint64_t number(const uint8_t *config, size_t at, size_t bytes) {
  uint64_t v = 0;
  for (size_t i = 0; i < bytes; i++) v |= (uint64_t)config[at + i] << 8 * i;
  return v;
}

static void configuration_as_it_lies(void **state) {
  (void)state;
  uint8_t c[BLK_CONFIG_BYTES];
  struct blk_disk d = disk;
  d.size_bytes = UINT64_C(0x123456789a) * 512;
  d.queues = 0x104;
  d.writeback = BLK_WRITEBACK_ON;
  blk_config(&d, c);
  assert_int_equal(number(c, 0, 8), UINT64_C(0x123456789a));
  assert_int_equal(number(c, 8, 4), BLK_SEGMENT_BYTES_MAX);
  assert_int_equal(number(c, 12, 4), 254);
  assert_int_equal(number(c, 16, 4), 0);
  assert_int_equal(number(c, 20, 4), 512);
  assert_int_equal(c[24], 3); /* 4096 bytes */
  assert_int_equal(c[25], 0);
  assert_int_equal(number(c, 26, 2), 8);
  assert_int_equal(number(c, 28, 4), 0);
  assert_int_equal(c[32], 1);
  assert_int_equal(number(c, 34, 2), 0x104);
  assert_int_equal(number(c, 36, 4), 4 << 20);
  assert_int_equal(number(c, 40, 4), 1);
  assert_int_equal(number(c, 44, 4), 8);
  assert_int_equal(number(c, 48, 4), 4 << 20);
  assert_int_equal(number(c, 52, 4), 1);
  assert_int_equal(number(c, 56, 4), 1);
  d.block_bytes = d.align_bytes = 4096;
  d.writeback = BLK_WRITEBACK_OFF;
  d.queue_size_max = 128;
  blk_config(&d, c);
  assert_int_equal(number(c, 12, 4), 126);
  assert_int_equal(number(c, 20, 4), 4096);
  assert_int_equal(c[24], 0);
  assert_int_equal(number(c, 26, 2), 1);
  assert_int_equal(c[BLK_CONFIG_WRITEBACK], 0);
  for (uint16_t size = 1; size <= 4; size *= 2) {
    d.queue_size_max = size;
    blk_config(&d, c);
    assert_int_equal(number(c, 12, 4), size == 4 ? 2 : 1);
  }
  d.queue_size_max = 1024;
  blk_config(&d, c);
  assert_int_equal(number(c, 12, 4), 254);
}

static void a_cache_that_nobody_knows_of_is_off_until_it_is_used(void **state) {
  (void)state;
  uint8_t c[BLK_CONFIG_BYTES];
  struct blk_disk d = disk;
  d.writeback = BLK_WRITEBACK_UNKNOWN;
  blk_config(&d, c);
  assert_int_equal(c[BLK_CONFIG_WRITEBACK], 0);
  blk_expect_flushes(&d);
  assert_int_equal(d.writeback, BLK_WRITEBACK_ON);
  blk_config(&d, c);
  assert_int_equal(c[BLK_CONFIG_WRITEBACK], 1);
  d.writeback = BLK_WRITEBACK_OFF;
  blk_expect_flushes(&d);
  assert_int_equal(d.writeback, BLK_WRITEBACK_OFF);
}

static void features_fit_the_disk(void **state) {
  (void)state;
  const uint64_t always =
      1ull << 34 | 1ull << 32 | 1 << 30 | 1 << 29 | 1 << 28 | 1 << 10 | 1 << 6 | 1 << 2 | 2;
  struct blk_disk d = disk;
  assert_int_equal(blk_features(&d, false), always | 1 << 14 | 1 << 13);
  assert_int_equal(blk_features(&d, true), always | 1 << 14 | 1 << 13 | 1 << 11 | 1 << 9);
  d.queues = 2;
  d.read_only = true;
  assert_int_equal(blk_features(&d, false), always | 1 << 12 | 1 << 5);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test_setup(read_is_cut_from_its_status, reset),
      cmocka_unit_test_setup(write_is_cut_from_its_header, reset),
      cmocka_unit_test_setup(header_in_pieces, reset),
      cmocka_unit_test_setup(short_header_is_an_error, reset),
      cmocka_unit_test_setup(without_status_byte_nothing_is_answered, reset),
      cmocka_unit_test_setup(sector_plus_length_without_overflow, reset),
      cmocka_unit_test_setup(whole_logical_blocks, reset),
      cmocka_unit_test_setup(largest_disk, reset),
      cmocka_unit_test_setup(nothing_is_written_to_a_read_only_disk, reset),
      cmocka_unit_test_setup(flushes, reset),
      cmocka_unit_test_setup(unknown_requests_are_unsupported, reset),
      cmocka_unit_test_setup(ranges_of_discard_and_write_zeroes, reset),
      cmocka_unit_test_setup(one_segment_at_a_time, reset),
      cmocka_unit_test_setup(identity_never_overruns_the_buffer, reset),
      cmocka_unit_test_setup(configuration_as_it_lies, reset),
      cmocka_unit_test_setup(a_cache_that_nobody_knows_of_is_off_until_it_is_used, reset),
      cmocka_unit_test_setup(features_fit_the_disk, reset),
  };
  return cmocka_run_group_tests(tests, reset, reset);
}
