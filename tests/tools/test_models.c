/* test_models.c - what the workloads of our users ask for, against what their models say. Seeds are
 * fixed. */
#include "tools/bench_models.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tools/bench_random.h"

#define MIB UINT64_C(1048576)

static void mixes(void **state) {
  (void)state;
  for (int i = YCSB_A; i <= YCSB_F; i++) {
    struct ycsb_mix m = ycsb_mix_of((enum ycsb)i);
    assert_int_equal(m.read + m.update + m.modify, 100);
  }
  assert_int_equal(ycsb_mix_of(YCSB_A).update, 50);
  assert_int_equal(ycsb_mix_of(YCSB_B).read, 95);
  assert_int_equal(ycsb_mix_of(YCSB_C).read, 100);
  assert_int_equal(ycsb_mix_of(YCSB_F).modify, 50);
}

/* ---- analytics */

static const struct scan_shape shape = {
    .footer_bytes = 5000, .chunk_min = 100000, .chunk_max = 200000, .chunks = 4};

static void footers(void **state) {
  struct scan_range f = scan_footer(&shape, 10 * MIB);
  (void)state;
  assert_int_equal(f.bytes, 5000);
  assert_int_equal(f.offset + f.bytes + SCAN_TAIL_BYTES, 10 * MIB);
  f = scan_footer(&shape, scan_file_bytes_min(&shape));
  assert_int_equal(f.offset, SCAN_HEAD_BYTES + shape.chunk_min);
}

/* All chunks of a file: they lie one after the other, from its head to its footer. */
static uint32_t layout(uint64_t number, uint64_t bytes, struct scan_range *all) {
  struct scan_shape s = shape;
  uint64_t random = 1, at = SCAN_HEAD_BYTES;
  s.chunks = SCAN_CHUNKS_MAX;
  uint32_t n = scan_choose(&s, bytes, number, 7, &random, all);
  for (uint32_t i = 0; i < n; i++) {
    assert_int_equal(all[i].offset, at);
    assert_in_range(all[i].bytes, i + 1 < n ? shape.chunk_min : 1, shape.chunk_max);
    at += all[i].bytes;
  }
  assert_int_equal(at, scan_footer(&s, bytes).offset);
  return n;
}

static void chunks(void **state) {
  struct scan_range all[SCAN_CHUNKS_MAX], some[SCAN_CHUNKS_MAX];
  uint32_t taken[SCAN_CHUNKS_MAX] = {0}, n = layout(3, 3 * MIB, all);
  uint64_t random = 99;
  (void)state;
  assert_in_range(n, 15, 31);
  for (int round = 0; round < 20000; round++) {
    uint32_t count = scan_choose(&shape, 3 * MIB, 3, 7, &random, some), at = 0;
    assert_int_equal(count, 4);
    for (uint32_t i = 0; i < count; i++, at++) { /* some of them all, in their order */
      while (at < n && memcmp(&all[at], &some[i], sizeof(all[0])) != 0) at++;
      assert_true(at < n);
      taken[at]++;
    }
  }
  double each = 4.0 * 20000 / n;
  for (uint32_t i = 0; i < n; i++) assert_true(fabs(taken[i] - each) < 5 * sqrt(each));
}

static void layouts(void **state) {
  struct scan_range a[SCAN_CHUNKS_MAX], b[SCAN_CHUNKS_MAX];
  (void)state;
  for (uint64_t number = 0; number < 200; number++)
    layout(number, scan_file_bytes_min(&shape) + number * 12345, a);
  layout(1, 3 * MIB, a);
  layout(1, 3 * MIB, b);
  assert_memory_equal(a, b, 10 * sizeof(a[0]));
  layout(2, 3 * MIB, b);
  assert_memory_not_equal(a, b, 10 * sizeof(a[0]));
}

/* The least file has one chunk, and a scan reads that. */
static void least_file(void **state) {
  struct scan_range some[SCAN_CHUNKS_MAX];
  uint64_t random = 5;
  (void)state;
  assert_int_equal(scan_choose(&shape, scan_file_bytes_min(&shape), 1, 1, &random, some), 1);
  assert_int_equal(some[0].offset, SCAN_HEAD_BYTES);
  assert_int_equal(some[0].bytes, shape.chunk_min);
}

/* ---- lambda */

static void plan(uint64_t image, uint64_t seed, double *top_tenth) {
  struct scan_range *reads;
  uint64_t blocks = image / BOOT_BLOCK_BYTES, sum = 0, hot = 0;
  uint64_t chunks = (image + BOOT_CHUNK_BYTES - 1) / BOOT_CHUNK_BYTES;
  int64_t n = boot_plan(image, seed, &reads);
  uint8_t *seen = calloc(blocks, 1);
  uint32_t *of_chunk = calloc(chunks, sizeof(*of_chunk));
  assert_true(n > 0);
  assert_true(seen && of_chunk);
  for (int64_t i = 0; i < n; i++) {
    assert_int_equal(reads[i].offset % BOOT_BLOCK_BYTES, 0);
    assert_int_equal(reads[i].bytes % BOOT_BLOCK_BYTES, 0);
    assert_in_range(reads[i].bytes, BOOT_BLOCK_BYTES, BOOT_RUN_BYTES);
    assert_true(reads[i].offset + reads[i].bytes <= image);
    for (uint64_t b = 0; b < reads[i].bytes / BOOT_BLOCK_BYTES; b++) {
      uint64_t at = reads[i].offset / BOOT_BLOCK_BYTES + b;
      assert_int_equal(seen[at], 0); /* each block once */
      seen[at] = 1;
      of_chunk[at * BOOT_BLOCK_BYTES / BOOT_CHUNK_BYTES]++;
      sum++;
    }
  }
  assert_int_equal(sum, blocks * BOOT_PER_MILLE / 1000 ? blocks * BOOT_PER_MILLE / 1000 : 1);
  for (uint64_t tenth = 0; tenth < chunks / 10; tenth++) { /* the largest ones */
    uint64_t best = 0;
    for (uint64_t c = 1; c < chunks; c++)
      if (of_chunk[c] > of_chunk[best]) best = c;
    hot += of_chunk[best];
    of_chunk[best] = 0;
  }
  if (top_tenth) *top_tenth = (double)hot / (double)sum;
  free(of_chunk);
  free(seen);
  free(reads);
}

static void boots(void **state) {
  double top;
  (void)state;
  plan(256 * MIB, 1, &top);
  assert_true(top > 0.6); /* evenly spread it would be 0.1 */
  plan(1024 * MIB, 2, &top);
  assert_true(top > 0.6);
  plan(BOOT_BLOCK_BYTES, 3, NULL);
  plan(BOOT_CHUNK_BYTES + BOOT_BLOCK_BYTES, 4, NULL);
  plan(33 * MIB + 3 * BOOT_BLOCK_BYTES, 5, NULL);
}

static void boots_are_alike(void **state) {
  struct scan_range *a, *b, *c;
  int64_t n = boot_plan(64 * MIB, 1, &a), m = boot_plan(64 * MIB, 1, &b);
  (void)state;
  assert_int_equal(n, m);
  assert_memory_equal(a, b, (size_t)n * sizeof(*a));
  assert_true(boot_plan(64 * MIB, 2, &c) > 4);
  assert_memory_not_equal(a, c, 4 * sizeof(*a));
  free(a);
  free(b);
  free(c);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(mixes),           cmocka_unit_test(footers),    cmocka_unit_test(chunks),
      cmocka_unit_test(layouts),         cmocka_unit_test(least_file), cmocka_unit_test(boots),
      cmocka_unit_test(boots_are_alike),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
