/* test_volume_stream.c - streams of volumes: what was written comes back; whatever is cut off,
 * flipped, or made up with right checksums is refused. */
#include "tools/volume_stream.h"

#include "shards/base/crc32c.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HEAD_BYTES   640u
#define RECORD_BYTES 32u
#define STREAM_MAX   65536u

static char stream[STREAM_MAX], buf[STREAM_DATA_MAX], data[8192];
static size_t stream_bytes;
static int fd;

static struct stream_info an_info(bool incremental) {
  struct stream_info info = {.incremental = incremental, .block_bytes = 512, .size_bytes = 101888};
  info.to_id = 17;
  strcpy(info.to, "disk");
  memcpy(info.store, "0123456789abcdef", 16);
  if (incremental) {
    info.from_id = 16;
    info.from_size_bytes = 81920;
    strcpy(info.from, "snap");
  }
  return info;
}

/* Data of 2 blocks, zeros of 3 (told in two parts), data of a block, the end: 512 bytes short of
 * a block. */
static void make_stream(bool incremental) {
  struct stream_writer w;
  struct stream_info info = an_info(incremental);
  for (size_t i = 0; i < sizeof data; i++) data[i] = (char)(i * 7 + i / 256 + 1);
  assert_int_equal(ftruncate(fd, 0), 0);
  assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
  assert_int_equal(stream_write_begin(&w, fd, &info), 0);
  assert_int_equal(stream_write_data(&w, 4096, data, 8192), 0);
  assert_int_equal(stream_write_zeros(&w, 20480, 4096), 0);
  assert_int_equal(stream_write_zeros(&w, 24576, 8192), 0);
  assert_int_equal(stream_write_zeros(&w, 40960, 4096), 0);
  assert_int_equal(stream_write_data(&w, 65536, data, 4096), 0);
  assert_int_equal(stream_write_data(&w, 98304, data, 3584), 0);
  assert_int_equal(stream_write_end(&w), 0);
  stream_bytes = (size_t)lseek(fd, 0, SEEK_END);
  assert_true(stream_bytes < STREAM_MAX);
  assert_int_equal(pread(fd, stream, stream_bytes, 0), stream_bytes);
}

/* The stream as it lies in memory, read to its end. */
static int read_stream(size_t bytes, struct stream_reader *r) {
  struct stream_range range;
  int e;
  assert_int_equal(ftruncate(fd, 0), 0);
  assert_int_equal(pwrite(fd, stream, bytes, 0), bytes);
  assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
  e = stream_read_begin(r, fd, NULL, 0);
  if (e < 0) return e;
  while ((e = stream_read_next(r, &range, buf)) == 1) {
    assert_true(range.bytes > 0);
    assert_true(range.offset < r->info.size_bytes);
    assert_true(range.bytes <= r->info.size_bytes - range.offset);
  }
  return e;
}

static void expect_range(struct stream_reader *r, uint64_t offset, uint64_t bytes, bool zeros) {
  struct stream_range range;
  memset(buf, 0, sizeof buf);
  assert_int_equal(stream_read_next(r, &range, buf), 1);
  assert_int_equal(range.offset, offset);
  assert_int_equal(range.bytes, bytes);
  assert_int_equal(range.zeros, zeros);
  if (!zeros) assert_memory_equal(buf, data, bytes);
}

static void comes_back(void **state) {
  (void)state;
  for (int incremental = 0; incremental < 2; incremental++) {
    struct stream_reader r;
    struct stream_range range;
    char early[STREAM_MAGIC_BYTES];
    make_stream(incremental);
    lseek(fd, 0, SEEK_SET);
    assert_int_equal(stream_fill(fd, early, sizeof early), sizeof early);
    assert_memory_equal(early, STREAM_MAGIC, sizeof early);
    assert_int_equal(stream_read_begin(&r, fd, early, sizeof early), 0);
    const struct stream_info info = an_info(incremental);
    assert_memory_equal(&r.info, &info, sizeof info);
    expect_range(&r, 4096, 8192, false);
    expect_range(&r, 20480, 12288, true);
    expect_range(&r, 40960, 4096, true);
    expect_range(&r, 65536, 4096, false);
    expect_range(&r, 98304, 3584, false);
    assert_int_equal(stream_read_next(&r, &range, buf), 0);
    assert_int_equal(r.at, stream_bytes);
  }
}

static void cut_anywhere(void **state) {
  struct stream_reader r;
  (void)state;
  make_stream(true);
  for (size_t bytes = 0; bytes < stream_bytes; bytes++) {
    assert_int_equal(read_stream(bytes, &r), -EBADMSG);
    assert_string_equal(r.why, "the stream is cut short");
  }
  assert_int_equal(read_stream(stream_bytes, &r), 0);
  assert_int_equal(read_stream(stream_bytes + 1, &r), -EBADMSG);
  assert_string_equal(r.why, "something follows the end of the stream");
}

static void flipped_anywhere(void **state) {
  (void)state;
  make_stream(true);
  for (size_t at = 0; at < stream_bytes; at++) {
    struct stream_reader r;
    char bit = (char)(1 << (at % 8));
    stream[at] ^= bit;
    int e = read_stream(stream_bytes, &r);
    stream[at] ^= bit;
    if (at >= 8 && at < 12)
      assert_int_equal(e, -ENOTSUP); /* the version */
    else
      assert_int_equal(e, -EBADMSG);
    assert_non_null(r.why);
  }
}

/* ---- With right checksums ----------------------------------------------------------------------
 */

static void put64(size_t at, uint64_t value) { memcpy(stream + at, &value, 8); }
static void put32(size_t at, uint32_t value) { memcpy(stream + at, &value, 4); }
static uint64_t get64(size_t at) {
  uint64_t value;
  memcpy(&value, stream + at, 8);
  return value;
}
static uint32_t get32(size_t at) {
  uint32_t value;
  memcpy(&value, stream + at, 4);
  return value;
}

/* Makes all checksums right again, of records as far as they can be told apart. */
static void mend(void) {
  put32(12, 0);
  uint32_t chain = crc32c(0, stream, HEAD_BYTES);
  put32(12, chain);
  for (size_t at = HEAD_BYTES; at + RECORD_BYTES <= stream_bytes;) {
    uint64_t bytes = get32(at + 4) == 1 ? get64(at + 16) : 0;
    put32(at + 28, 0);
    chain = crc32c(chain, stream + at, RECORD_BYTES);
    put32(at + 28, chain);
    if (bytes > stream_bytes - at - RECORD_BYTES) return;
    at += RECORD_BYTES + bytes;
  }
}

static void refused_because(const char *why) {
  struct stream_reader r;
  mend();
  assert_int_equal(read_stream(stream_bytes, &r), -EBADMSG);
  assert_string_equal(r.why, why);
}

static void head_with(size_t at, uint64_t value, unsigned bytes, const char *why) {
  make_stream(true);
  memcpy(stream + at, &value, bytes);
  refused_because(why);
}

static void hostile_heads(void **state) {
  const char *size = "the stream's head has an impossible size";
  const char *name = "the stream's head has an impossible name";
  const char *flags = "the stream's head has unknown flags";
  struct stream_reader r;
  (void)state;
  make_stream(true);
  mend(); /* changes nothing */
  assert_int_equal(read_stream(stream_bytes, &r), 0);
  head_with(16, 3, 4, flags);
  head_with(72, 1, 1, flags);
  head_with(127, 1, 1, flags);
  head_with(20, 0, 4, "the stream's head has an impossible block size");
  head_with(20, 1024, 4, "the stream's head has an impossible block size");
  head_with(24, 0, 8, size);
  head_with(24, 101888 + 1, 8, size);
  head_with(24, (UINT64_C(64) << 40) + 512, 8, size);
  head_with(24, UINT64_MAX - 511, 8, size);
  head_with(32, 0, 8, size);
  head_with(32, 5, 8, size);
  head_with(128, 0, 1, name);   /* empty, and something behind its end */
  head_with(129, 27, 1, name);  /* an escape */
  head_with(383, 'x', 1, name); /* something behind its end */
  head_with(384, 0, 4, name);   /* incremental, and begins at nothing */
  make_stream(true);
  memset(stream + 128, 'x', 256);
  refused_because(name);
  make_stream(false);
  put32(384, 'x'); /* a beginning, and not incremental */
  refused_because(name);
  make_stream(false);
  put64(32, 512);
  refused_because(size);
}

static void record_with(unsigned number, size_t at, uint64_t value, unsigned bytes,
                        const char *why) {
  make_stream(true);
  size_t record = HEAD_BYTES;
  for (unsigned i = 0; i < number; i++)
    record += RECORD_BYTES + (get32(record + 4) == 1 ? get64(record + 16) : 0);
  memcpy(stream + record + at, &value, bytes);
  refused_because(why);
}

static void hostile_ranges(void **state) {
  const char *outside = "a range that is not inside the volume";
  const char *order = "ranges that overlap or are out of order";
  const char *whole = "a range that is not of whole blocks", *length = "a range that is too long";
  (void)state;
  record_with(0, 0, 0, 4, "the head of a range is damaged");
  record_with(0, 4, 4, 4, "a range of unknown kind");
  record_with(0, 4, 0, 4, "a range of unknown kind");
  record_with(1, 8, UINT64_MAX - 4095, 8, outside);
  record_with(1, 8, 101888, 8, outside);
  record_with(1, 8, 1 << 20, 8, outside);
  record_with(1, 16, UINT64_MAX, 8, outside);
  record_with(1, 16, UINT64_MAX - 20480 + 1, 8, outside);
  record_with(1, 16, 102400, 8, outside);
  record_with(1, 16, 0, 8, outside);
  record_with(1, 8, 20480 + 512, 8, whole);
  record_with(1, 16, 512, 8, whole);
  record_with(1, 8, 4096, 8, order);
  record_with(1, 8, 8192, 8, order);
  record_with(2, 8, 28672, 8, order);
  record_with(3, 8, 4096, 8, order);
  record_with(1, 24, 1, 4, length); /* zeros have no checksum */
  record_with(0, 16, 0, 8, outside);
  record_with(0, 16, UINT64_MAX & ~UINT64_C(4095), 8, outside);
  record_with(5, 8, 8192, 8, "the stream's totals are wrong");
  record_with(5, 16, 4, 8, "the stream's totals are wrong");
  record_with(5, 24, 1, 4, "the stream's totals are wrong");
  record_with(5, 4, 2, 4, whole); /* no end */
}

/* Data of one record that would not fit the reader's buffer. */
static void hostile_lengths(void **state) {
  struct stream_writer w;
  struct stream_reader r;
  struct stream_range range;
  struct stream_info info = an_info(false);
  (void)state;
  info.size_bytes = UINT64_C(64) << 40;
  assert_int_equal(ftruncate(fd, 0), 0);
  lseek(fd, 0, SEEK_SET);
  assert_int_equal(stream_write_begin(&w, fd, &info), 0);
  char *large = calloc(1, STREAM_DATA_MAX + 4096);
  assert_non_null(large);
  assert_int_equal(stream_write_data(&w, 0, large, STREAM_DATA_MAX + 4096), 0);
  free(large);
  assert_int_equal(stream_write_end(&w), 0);
  lseek(fd, 0, SEEK_SET);
  assert_int_equal(stream_read_begin(&r, fd, NULL, 0), 0);
  assert_int_equal(stream_read_next(&r, &range, buf), -EBADMSG);
  assert_string_equal(r.why, "a range that is too long");
}

/* Records that are left out or change places, each with its own right checksum, do not pass. */
static void records_in_their_order(void **state) {
  struct stream_reader r;
  (void)state;
  make_stream(true);
  size_t zeros = HEAD_BYTES + RECORD_BYTES + 8192;
  memmove(stream + zeros, stream + zeros + RECORD_BYTES, stream_bytes - zeros - RECORD_BYTES);
  assert_int_equal(read_stream(stream_bytes - RECORD_BYTES, &r), -EBADMSG);
  assert_string_equal(r.why, "the head of a range is damaged");
}

static int make_file(void **state) {
  (void)state;
  fd = memfd_create("stream", MFD_CLOEXEC);
  return fd < 0 ? -1 : 0;
}
static int close_file(void **state) {
  (void)state;
  return close(fd);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(comes_back),
      cmocka_unit_test(cut_anywhere),
      cmocka_unit_test(flipped_anywhere),
      cmocka_unit_test(hostile_heads),
      cmocka_unit_test(hostile_ranges),
      cmocka_unit_test(hostile_lengths),
      cmocka_unit_test(records_in_their_order),
  };
  return cmocka_run_group_tests(tests, make_file, close_file);
}
