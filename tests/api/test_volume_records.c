/* test_volume_records.c - the records of volumes: to bytes and back, every field that can be wrong,
 * and what an open makes of records that are wrong by themselves or do not fit together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "api/internal.h"
#include "tests/api/fixture.h"

static struct volume_record example(void) {
  struct volume_record r = {.id = 7,
                            .layer = 9,
                            .parent = 5,
                            .size_bytes = 10 * MIB + 512,
                            .shard = 2,
                            .block_shift = 9,
                            .limits = {.bytes = {1 << 20, 5, 1000}, .ops = {100, 0, 100}}};
  strcpy(r.name, "a volume");
  strcpy(r.group, "tenant");
  return r;
}

static int decode(const void *buf, uint32_t bytes, struct volume_record *r, const char **why) {
  return volume_record_decode(buf, bytes, 7, 2, 4, r, why);
}

static void there_and_back(void **state) {
  uint8_t buf[VOLUME_RECORD_MAX], again[VOLUME_RECORD_MAX];
  const char *why = NULL;
  (void)state;
  struct volume_record r = example(), out;
  uint32_t bytes = volume_record_encode(&r, buf);
  assert_int_equal(bytes, 88 + 8 + 6);
  assert_int_equal(decode(buf, bytes, &out, &why), 0);
  assert_int_equal(out.id, 7);
  assert_int_equal(out.layer, 9);
  assert_int_equal(out.parent, 5);
  assert_int_equal(out.size_bytes, r.size_bytes);
  assert_int_equal(out.shard, 2);
  assert_int_equal(out.limits.bytes.one_time_burst, 5);
  assert_int_equal(out.limits.ops.refill_time_ms, 100);
  assert_string_equal(out.name, "a volume");
  assert_string_equal(out.group, "tenant");
  assert_int_equal(volume_record_encode(&out, again), bytes);
  assert_memory_equal(buf, again, bytes);
  memset(r.name, 'x', VOLUME_NAME_MAX);
  memset(r.group, 'g', VOLUME_GROUP_MAX);
  bytes = volume_record_encode(&r, buf);
  assert_true(bytes <= VOLUME_RECORD_MAX);
  assert_int_equal(decode(buf, bytes, &out, &why), 0);
  assert_string_equal(out.name, r.name);
}

static void refused(const struct volume_record *r, const char *expected) {
  uint8_t buf[VOLUME_RECORD_MAX];
  struct volume_record out;
  const char *why = NULL;
  uint32_t bytes = volume_record_encode(r, buf);
  assert_int_equal(decode(buf, bytes, &out, &why), -EBADMSG);
  assert_string_equal(why, expected);
}

static void wrong_fields_are_named(void **state) {
  (void)state;
  struct volume_record r;
#define WITH(change, why)                                                                          \
  r = example();                                                                                   \
  change;                                                                                          \
  refused(&r, why)
  WITH(r.layer = 0, "layer");
  WITH(r.parent = 7, "parent");
  WITH(r.shard = 1, "shard");
  WITH(r.block_shift = 10, "block size");
  WITH(r.block_shift = 0, "block size");
  WITH(r.size_bytes = 0, "size");
  WITH(r.size_bytes = 513, "size");
  WITH(r.size_bytes = VOLUME_SIZE_MAX + 512, "size");
  WITH(r.stripe_shift = 15, "stripe");
  WITH(r.stripe_shift = 31, "stripe");
  WITH(r.stripe_shift = 20, "shard"); /* striped ones begin in shard 0 */
  WITH(r.limits.bytes.refill_time_ms = 0, "limits");
  WITH(r.limits.ops.size = 0, "limits");
  WITH(r.name[0] = 0, "name"); /* only snapshots may be nameless */
  WITH(r.name[1] = '/', "name");
  WITH(r.name[0] = '#', "name");
  WITH(r.name[3] = (char)0xff, "name");
  WITH(r.group[0] = 1, "name");
}

static void bytes_are_hostile(void **state) {
  uint8_t buf[VOLUME_RECORD_MAX + 1], bad[VOLUME_RECORD_MAX + 1];
  struct volume_record r = example(), out;
  struct limits_record limits = {.limits = r.limits, .group = "tenant"}, limits_out;
  const char *why;
  (void)state;
  uint32_t bytes = volume_record_encode(&r, buf);
  for (uint32_t n = 0; n <= bytes + 1; n++) {
    why = NULL;
    if (n != bytes) assert_int_equal(decode(buf, n, &out, &why), -EBADMSG);
    if (n != bytes) assert_string_equal(why, "bytes");
  }
  /* Whatever is accepted says the same when it is written again. */
  for (uint32_t bit = 0; bit < bytes * 8; bit++) {
    memcpy(bad, buf, bytes);
    bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
    if (decode(bad, bytes, &out, &why)) continue;
    uint8_t again[VOLUME_RECORD_MAX];
    assert_int_equal(volume_record_encode(&out, again), bytes);
    assert_memory_equal(again, bad, bytes);
  }
  bytes = limits_record_encode(&limits, buf);
  assert_int_equal(limits_record_decode(buf, bytes, true, &limits_out, &why), 0);
  assert_string_equal(limits_out.group, "tenant");
  assert_int_equal(limits_record_decode(buf, bytes, false, &limits_out, &why), -EBADMSG);
  assert_int_equal(limits_record_decode(buf, bytes - 1, true, &limits_out, &why), -EBADMSG);
  memcpy(bad, buf, bytes);
  bad[bytes - 2] = 0; /* a name that ends before its end */
  assert_int_equal(limits_record_decode(bad, bytes, true, &limits_out, &why), -EBADMSG);
  assert_string_equal(why, "group");
  for (uint32_t bit = 0; bit < bytes * 8; bit++) {
    memcpy(bad, buf, bytes);
    bad[bit / 8] ^= (uint8_t)(1u << bit % 8);
    if (limits_record_decode(bad, bytes, true, &limits_out, &why)) continue;
    uint8_t again[VOLUME_RECORD_MAX];
    assert_int_equal(limits_record_encode(&limits_out, again), bytes);
    assert_memory_equal(again, bad, bytes);
  }
}

/* ---- In a store ---------------------------------------------------------------------------------
 */

static void put_bytes(struct sr_port *p, uint32_t shard, uint64_t id, const void *data,
                      uint32_t bytes) {
  struct shard_op op = {.kind = OP_RECORD,
                        .buf = (void *)(uintptr_t)data,
                        .bytes = bytes,
                        .id = {VOLUME_KEY, id},
                        .hash = hash_of_shard(shard, port_of(p)->store->shard_count)};
  assert_int_equal(run_op(p, &op), 0);
}

static void put_record(struct sr_port *p, const struct volume_record *r) {
  uint8_t buf[VOLUME_RECORD_MAX];
  put_bytes(p, r->shard, r->id, buf, volume_record_encode(r, buf));
}

static struct volume_record simple(uint64_t id, const char *name) {
  struct volume_record r = {
      .id = id, .layer = id + 1000, .size_bytes = MIB, .block_shift = 9, .shard = 0};
  strcpy(r.name, name);
  return r;
}

static void count_left_out(void *arg, const struct sr_damage *d) {
  *(uint32_t *)arg += d->kind == SR_DAMAGE_VOLUME && strstr(d->what, "left out") != NULL;
}

static int try_open(struct fixture *f, bool damaged, struct sr_store **s, uint32_t *left_out) {
  struct sr_open_options o = open_options(f);
  o.core_count = 1;
  o.no_pin = true;
  o.read_only = damaged;
  o.damaged = damaged ? SR_DAMAGED_SKIP : SR_DAMAGED_REFUSE;
  o.damage = left_out ? count_left_out : NULL;
  o.damage_arg = left_out;
  return sr_store_open(f->where, &o, s);
}

/* A store with a good volume and these records: refused, and the log says which one and why; opened
 * in spite of damage it has the good ones. */
static void bad_store(struct fixture *f, const struct volume_record *records, int count,
                      const char *what, const char *names) {
  struct sr_store *s;
  char command[800];
  uint32_t left_out = 0;
  snprintf(command, sizeof command, "rm -rf '%s'", f->where);
  assert_int_equal(system(command), 0);
  format_store(f, 2, 16 * MIB);
  s = open_store(f);
  struct sr_port *p = open_port(s);
  struct sr_volume_options v = SR_VOLUME_OPTIONS_INIT;
  v.size_bytes = MIB;
  assert_int_equal(sr_volume_create(p, "good", &v), 0);
  for (int i = 0; i < count; i++) put_record(p, &records[i]);
  close_both(s, p);
  assert_int_equal(try_open(f, false, &s, NULL), -EBADMSG);
  if (!strstr(f->log, what)) print_error("log: %s\n", f->log);
  assert_non_null(strstr(f->log, what));
  if (!names) { /* cannot be opened at all */
    assert_int_equal(try_open(f, true, &s, NULL), -EBADMSG);
    return;
  }
  assert_int_equal(try_open(f, true, &s, &left_out), 0);
  assert_true(left_out > 0); /* it is no note */
  p = open_port(s);
  struct sr_volume_info infos[8];
  char have[256] = "";
  int n = sr_volume_list(p, "", infos, 8);
  for (int i = 0; i < n; i++) {
    if (i) strcat(have, " ");
    strcat(have, infos[i].name);
  }
  assert_string_equal(have, names);
  close_both(s, p);
}

static void records_that_do_not_fit(void **state) {
  struct fixture *f = *state;
  struct volume_record r[3];
  r[0] = simple(50, "a");
  r[0].size_bytes = 77;
  bad_store(f, r, 1, "volume 50: wrong size", "good");
  r[0] = simple(50, "good");
  bad_store(f, r, 1, "volume 50: wrong name: another volume has it", "good");
  r[0] = simple(50, "a");
  r[1] = simple(51, "b");
  r[1].layer = r[0].layer;
  bad_store(f, r, 2, "volume 51: wrong layer: another record has it", "a good");
  r[0] = simple(50, "a");
  r[0].parent = 49;
  bad_store(f, r, 1, "volume 50: wrong parent: there is none", "good");
  r[0] = simple(50, "a");
  r[0].parent = 51;
  r[1] = simple(51, "b");
  bad_store(f, r, 2, "volume 50: wrong parent: it is no snapshot", "b good");
  r[0] = simple(50, "a");
  r[0].parent = 51;
  r[1] = simple(51, "b");
  r[1].sealed = true;
  r[1].stripe_shift = 16;
  bad_store(f, r, 2, "volume 50: wrong parent: striped otherwise", "b good");
  r[0] = simple(50, "a");
  r[0].sealed = true;
  r[0].parent = 51;
  r[1] = simple(51, "b");
  r[1].sealed = true;
  r[1].parent = 50;
  bad_store(f, r, 2, "wrong parent: it lies on itself", "good");
  r[0] = simple(50, "child of the child");
  r[0].parent = 51;
  r[1] = simple(51, "child");
  r[1].sealed = true;
  r[1].parent = 52;
  bad_store(f, r, 2, "wrong parent", "good");
}

static void two_shards_with_one_id(void **state) {
  struct fixture *f = *state;
  struct volume_record r[2];
  r[0] = simple(50, "a");
  r[1] = simple(50, "b");
  r[1].layer++;
  r[1].shard = 1;
  bad_store(f, r, 2, "volume 50: wrong id: another record has it", "a good");
}

static void forgotten_snapshots_go(void **state) {
  struct fixture *f = *state;
  format_store(f, 1, 16 * MIB);
  struct sr_store *s = open_store(f);
  struct sr_port *p = open_port(s);
  struct volume_record r = simple(50, "");
  r.sealed = true;
  put_record(p, &r); /* nameless, and nothing lies on it */
  r = simple(51, "");
  r.sealed = true;
  r.parent = 50;
  put_record(p, &r);
  close_both(s, p);
  s = open_store(f);
  p = open_port(s);
  assert_null(records_find(manifest_records(shard_manifest(store_of(s)->cores[0].shards[0].shard)),
                           (struct blob_id){VOLUME_KEY, 50}));
  assert_null(records_find(manifest_records(shard_manifest(store_of(s)->cores[0].shards[0].shard)),
                           (struct blob_id){VOLUME_KEY, 51}));
  close_both(s, p);
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, fixture_setup, fixture_teardown)
  const struct CMUnitTest tests[] = {
      cmocka_unit_test(there_and_back),    cmocka_unit_test(wrong_fields_are_named),
      cmocka_unit_test(bytes_are_hostile), TEST(records_that_do_not_fit),
      TEST(two_shards_with_one_id),        TEST(forgotten_snapshots_go)};
  return cmocka_run_group_tests_name("volume_records", tests, NULL, NULL);
}
