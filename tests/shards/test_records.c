/* test_records.c - the table of records against a model: replacing, removing, partitions, growth.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shards/records.h"
#include "tests/random.h"

#define KEYS 3000u

static const uint64_t hash_key[2] = {3, 4};

static struct blob_id key_of(uint32_t n) { return (struct blob_id){n / 7, n}; }
static void put(struct records *r, uint32_t n, uint8_t fill, uint32_t bytes) {
  char data[RECORD_BYTES_MAX];
  memset(data, fill, sizeof data);
  assert_int_equal(records_reserve(r, bytes), 0);
  records_put(r, key_of(n), data, bytes);
}

struct model {
  uint32_t bytes;
  uint8_t fill;
};

static void compare(const struct records *r, const struct model *model) {
  uint64_t count = 0, seen = 0, in_partitions = 0;
  uint32_t last = 0;
  for (uint32_t n = 0; n < KEYS; n++) {
    const struct record *x = records_find(r, key_of(n));
    assert_int_equal(x != NULL, model[n].bytes != 0);
    if (!x) continue;
    count++;
    assert_int_equal(x->bytes, model[n].bytes);
    assert_true(blob_id_equal(x->key, key_of(n)));
    assert_int_equal(x->hash, hash_id(x->key, hash_key));
    for (uint32_t i = 0; i < x->bytes; i++) assert_int_equal((uint8_t)x->data[i], model[n].fill);
  }
  for (const struct record *x = NULL; (x = records_next(r, x)) != NULL; seen++) {
    assert_true(index_partition_of(x->hash) >= last); /* in their order */
    last = index_partition_of(x->hash);
  }
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++)
    for (const struct record *x = records_first(r, p); x && index_partition_of(x->hash) == p;
         x = records_next(r, x))
      in_partitions++;
  assert_int_equal(records_count(r), count);
  assert_int_equal(seen, count);
  assert_int_equal(in_partitions, count);
}

static void test_against_model(void **state) {
  (void)state;
  static struct model model[KEYS];
  struct random x = {1};
  struct records *r;
  assert_int_equal(records_create(&r, hash_key), 0);
  assert_null(records_next(r, NULL));
  for (int i = 0; i < 20000; i++) {
    uint32_t n = (uint32_t)random_below(&x, i < 1000 ? 20 : KEYS), bytes = 0;
    if (random_below(&x, 3)) bytes = 1 + (uint32_t)random_below(&x, RECORD_BYTES_MAX);
    put(r, n, (uint8_t)i, bytes);
    model[n] = (struct model){bytes, (uint8_t)i};
    if (i % 2000 == 500) compare(r, model);
  }
  compare(r, model);
  assert_true(records_count(r) > 1000); /* the table has grown */
  for (uint32_t n = 0; n < KEYS; n++) put(r, n, 0, 0);
  memset(model, 0, sizeof model);
  compare(r, model);
  records_destroy(r);
}

/* Reservations of several sizes, used and given back in another order. */
static void test_reservations(void **state) {
  (void)state;
  static const uint32_t sizes[] = {1, 8, 100, 100, 1024, 0, 7};
  struct records *r;
  char data[RECORD_BYTES_MAX] = {5};
  assert_int_equal(records_create(&r, hash_key), 0);
  for (size_t i = 0; i < array_size(sizes); i++) assert_int_equal(records_reserve(r, sizes[i]), 0);
  records_cancel(r, 100);
  records_put(r, key_of(1), data, 1024);
  records_put(r, key_of(2), data, 100);
  records_put(r, key_of(1), NULL, 0);
  records_cancel(r, 1);
  records_put(r, key_of(2), data, 8);
  assert_int_equal(records_count(r), 1);
  assert_int_equal(records_find(r, key_of(2))->bytes, 8);
  records_destroy(r); /* one of 7 is left */
}

/* A record may be put anew from its own bytes. */
static void test_from_itself(void **state) {
  (void)state;
  struct records *r;
  assert_int_equal(records_create(&r, hash_key), 0);
  put(r, 1, 9, 50);
  assert_int_equal(records_reserve(r, 20), 0);
  records_put(r, key_of(1), records_find(r, key_of(1))->data, 20);
  const struct record *x = records_find(r, key_of(1));
  assert_int_equal(x->bytes, 20);
  for (uint32_t i = 0; i < 20; i++) assert_int_equal(x->data[i], 9);
  records_destroy(r);
}

int main(void) {
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(test_against_model),
      cmocka_unit_test(test_reservations),
      cmocka_unit_test(test_from_itself),
  };
  return cmocka_run_group_tests_name("records", tests, NULL, NULL);
}
