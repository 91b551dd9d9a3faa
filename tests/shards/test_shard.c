/* test_shard.c - put, get, delete and stat of one shard: against a model, with completions in any
 * order, with damage, failures and no room. */
#include "tests/shards/shard_rig.h"

#define MIB (1u << 20)

static struct rig rig;

static int rig_setup(void **state) {
  (void)state;
  rig_open(&rig, 64 * MIB, 1);
  return 0;
}
static int rig_teardown(void **state) {
  (void)state;
  rig_close(&rig);
  return 0;
}

static const uint64_t sizes[] = {0,          1,       4095, 4096,    4097,     100000,
                                 512u << 10, MIB - 1, MIB,  MIB + 1, 5u << 20, (5u << 20) + 4097,
                                 65536,      65537};

/* A get into the middle of a guarded buffer. */
static void get_and_compare(uint64_t id, const char *data, uint64_t size, uint64_t offset,
                            uint64_t bytes, uint64_t shift) {
  uint64_t room = round_up(bytes + 3 * BLOCK_BYTES, BLOCK_BYTES);
  char *buf = aligned_alloc(BLOCK_BYTES, room), *at = buf + BLOCK_BYTES + shift;
  memset(buf, 0x5a, room);
  uint64_t expected = offset >= size ? 0 : min_u64(bytes, size - offset);
  struct shard_op *op = rig_op(&rig, OP_GET, id);
  op->buf = at;
  op->offset = offset;
  op->bytes = bytes;
  rig_submit(&rig, op);
  assert_int_equal(rig_wait(&rig, op), expected);
  assert_int_equal(op->size, size);
  free(op);
  if (expected) assert_memory_equal(at, data + offset, expected);
  for (char *p = buf; p < at; p++) assert_int_equal(*p, 0x5a);
  for (char *p = at + bytes; p < buf + room; p++) assert_int_equal(*p, 0x5a);
  free(buf);
}

static void test_sizes_and_ranges(void **state) {
  (void)state;
  for (size_t i = 0; i < array_size(sizes); i++) {
    uint64_t size = sizes[i];
    char *data = rig_data(size + 64, i);
    /* An aligned and a misaligned source. */
    for (uint64_t shift = 0; shift < 64; shift += 37) {
      assert_int_equal(rig_put(&rig, i, data + shift, size, 0), 0);
      get_and_compare(i, data + shift, size, 0, size + 10, 0);
      get_and_compare(i, data + shift, size, 0, size ? size : 1, 0);
      get_and_compare(i, data + shift, size, 0, round_up(size + 1, BLOCK_BYTES), 7);
      get_and_compare(i, data + shift, size, size, 10, 0);
      get_and_compare(i, data + shift, size, size + 12345, 10, 0);
      for (int n = 0; n < 25; n++) {
        uint64_t offset = random_below(&rig.random, size + 1);
        uint64_t bytes = random_below(&rig.random, size + 5000);
        bool aligned = n % 3 == 0;
        if (aligned) offset = round_down(offset, BLOCK_BYTES);
        if (aligned && n % 2) bytes = round_up(bytes, BLOCK_BYTES);
        get_and_compare(i, data + shift, size, offset, bytes,
                        aligned ? 0 : random_below(&rig.random, BLOCK_BYTES));
      }
    }
    free(data);
  }
}

/* A whole aligned get takes one device read, straight into the buffer; so does a 4 KiB range of it.
 */
static void test_one_io_for_a_get(void **state) {
  (void)state;
  char *data = rig_data(512 << 10, 4), *buf = rig_data(512 << 10, 5);
  assert_int_equal(rig_put(&rig, 1, data, 512 << 10, 0), 0);
  uint64_t before = rig.device.reads;
  assert_int_equal(rig_get(&rig, 1, buf, 0, 512 << 10), 512 << 10);
  assert_memory_equal(buf, data, 512 << 10);
  assert_int_equal(rig.device.reads, before + 1);
  assert_int_equal(rig_get(&rig, 1, buf, 5 * BLOCK_BYTES, BLOCK_BYTES), BLOCK_BYTES);
  assert_memory_equal(buf, data + 5 * BLOCK_BYTES, BLOCK_BYTES);
  assert_int_equal(rig.device.reads, before + 2);
  free(data);
  free(buf);
}

static void test_impossible_arguments(void **state) {
  (void)state;
  char buf[16];
  assert_int_equal(rig_put(&rig, 1, NULL, 5, 0), -EINVAL);
  assert_int_equal(rig_put(&rig, 1, buf, (UINT64_C(1) << 40) + 1, 0), -EFBIG);
  assert_int_equal(rig_put(&rig, 1, NULL, 0, 0), 0);
  assert_int_equal(rig_get(&rig, 1, NULL, 0, 5), -EINVAL);
  assert_int_equal(rig_get(&rig, 1, buf, UINT64_MAX - 3, 16), -EINVAL);
  assert_int_equal(rig_get(&rig, 1, buf, UINT64_MAX - 30, 16), 0);
  assert_int_equal(rig_get(&rig, 2, buf, 0, 16), -ENOENT);
  assert_int_equal(rig_delete(&rig, 2), -ENOENT);
  assert_int_equal(rig_run(&rig, rig_op(&rig, OP_STAT, 2)), -ENOENT);
  assert_int_equal(rig_run(&rig, rig_op(&rig, 99, 2)), -EINVAL);
  assert_int_equal(rig_run(&rig, rig_op(&rig, OP_NOP, 2)), 0);
}

/* ---- Many ops in flight against a model ----------------------------------------------------- */

enum { IDS = 24, IN_FLIGHT = 48, ROUNDS = 1500 };

/* What an id holds: after the ops submitted so far have taken effect, in order. */
struct version {
  char *data; /* NULL: none */
  uint64_t size;
};
struct pending {
  struct shard_op *op;
  uint64_t id;
  char *buf;      /* put: the source; get: the target */
  char *expected; /* get: what no write in flight can change */
  uint64_t size;
};

static uint64_t random_size(void) {
  uint64_t which = random_below(&rig.random, 10);
  if (which == 0) return MIB + random_below(&rig.random, 3 * MIB);
  if (which < 5) return random_below(&rig.random, 20000);
  return random_below(&rig.random, 300000);
}

static void check_get(struct pending *p) {
  if (!p->expected) {
    assert_int_equal(p->op->result, -ENOENT);
    return;
  }
  uint64_t n = p->op->offset >= p->size ? 0 : min_u64(p->op->bytes, p->size - p->op->offset);
  assert_int_equal(p->op->result, n);
  assert_memory_equal(p->op->buf, p->expected + p->op->offset, n);
}

/* In flight, by id. */
static uint32_t writers[IDS], readers[IDS];

static void reap(struct pending *pending, uint32_t *count) {
  for (uint32_t i = 0; i < *count;) {
    struct pending *p = &pending[i];
    if (!rig_done(p->op)) {
      i++;
      continue;
    }
    if (p->op->kind == OP_GET) {
      check_get(p);
      readers[p->id]--;
      free(p->buf);
      free(p->expected);
    } else {
      writers[p->id]--;
      if (p->op->kind == OP_PUT) assert_int_equal(p->op->result, 0);
      free(p->buf);
    }
    free(p->op);
    pending[i] = pending[--*count];
  }
}

static char *copy_of(const struct version *v) {
  if (!v->data) return NULL;
  char *p = malloc(v->size + 1);
  memcpy(p, v->data, v->size);
  return p;
}

/* An id to write to: a get that waits for a work may see a write that was submitted after it, so
 * ids that are being read are left alone then. IDS if there is none. */
static uint64_t id_to_write(uint64_t id, bool reads_start_at_once) {
  if (reads_start_at_once) return id;
  for (int i = 0; i < IDS; i++) {
    if (!readers[(id + i) % IDS]) return (id + i) % IDS;
  }
  return IDS;
}

static void submit_random(struct version *now, struct pending *p, bool reads_start_at_once) {
  uint64_t id = random_below(&rig.random, IDS), kind = random_below(&rig.random, 10);
  uint64_t shift = random_below(&rig.random, 2) ? 0 : random_below(&rig.random, 100);
  if (kind < 5 && writers[id]) kind = 9;
  if (kind >= 5) {
    uint64_t other = id_to_write(id, reads_start_at_once);
    if (other == IDS) kind = 0; /* all are being read, hence not written */
    if (other != IDS) id = other;
  }
  *p = (struct pending){.id = id};
  struct version *v = &now[id];
  if (kind < 5) readers[id]++;
  if (kind < 5) { /* a get of a blob that no write in flight can change */
    p->op = rig_op(&rig, OP_GET, id);
    p->op->offset = random_below(&rig.random, 2) ? 0 : random_below(&rig.random, v->size + 1);
    p->op->bytes = random_below(&rig.random, v->size + 5000);
    p->buf = rig_data(p->op->bytes + shift, 0);
    p->op->buf = p->buf + shift;
    p->size = v->size;
    p->expected = copy_of(v);
    return;
  }
  writers[id]++;
  free(v->data);
  v->data = NULL;
  v->size = 0;
  if (kind < 7) {
    p->op = rig_op(&rig, OP_DELETE, id);
    return;
  }
  p->op = rig_op(&rig, OP_PUT, id);
  v->size = p->op->bytes = random_size();
  p->buf = rig_data(v->size + shift, random_next(&rig.random));
  p->op->buf = p->buf + shift;
  p->op->flags = random_below(&rig.random, 8) == 0 ? OP_DURABLE : 0;
  v->data = malloc(v->size + 1);
  memcpy(v->data, p->op->buf, v->size);
}

static void run_model(uint64_t seed, uint32_t works_max) {
  static struct version now[IDS];
  static struct pending pending[IN_FLIGHT];
  uint32_t count = 0;
  memset(writers, 0, sizeof writers);
  memset(readers, 0, sizeof readers);
  memset(now, 0, sizeof now);
  rig_open_config(&rig, 512 * (uint64_t)MIB, seed, works_max);
  for (uint32_t round = 0; round < ROUNDS; round++) {
    while (count < IN_FLIGHT && random_below(&rig.random, 4)) {
      submit_random(now, &pending[count], works_max == 0);
      rig_submit(&rig, pending[count++].op);
    }
    rig_step(&rig);
    reap(pending, &count);
    if (round % 100 == 99) rig_flush(&rig);
  }
  rig_drain(&rig);
  reap(pending, &count);
  assert_int_equal(count, 0);
  uint64_t blobs = 0;
  for (uint64_t id = 0; id < IDS; id++) {
    if (now[id].data) {
      get_and_compare(id, now[id].data, now[id].size, 0, now[id].size + 1, 0);
      blobs++;
    }
    free(now[id].data);
  }
  struct shard_stats stats;
  shard_stats(rig.shard, &stats);
  assert_int_equal(stats.blobs, blobs);
  assert_int_equal(stats.checksum_errors, 0);
  rig_close(&rig);
}
static void test_model(void **state) {
  (void)state;
  run_model(1, 0);
}
static void test_model_with_few_works(void **state) {
  (void)state;
  run_model(2, 1);
}

/* ---- Order ------------------------------------------------------------------------------------
 */

static struct shard_op *put_op(uint64_t id, char *buf, uint64_t bytes, uint8_t flags) {
  struct shard_op *op = rig_op(&rig, OP_PUT, id);
  op->buf = buf;
  op->bytes = bytes;
  op->flags = flags;
  return op;
}

static void test_last_submitted_wins(void **state) {
  (void)state;
  enum { N = 600 };
  static struct shard_op *ops[N];
  char *data = rig_data(N * 64 + 3 * MIB, 9);
  for (int i = 0; i < N; i++) {
    /* Large ones first, so that small ones behind them are ready sooner. */
    ops[i] = i % 7 == 6 ? rig_op(&rig, OP_DELETE, 5)
                        : put_op(5, data + i * 64, i % 50 == 0 ? 2 * MIB : (uint64_t)i * 10, 0);
    rig_submit(&rig, ops[i]);
  }
  rig_drain(&rig);
  for (int i = 0; i < N; i++) {
    assert_true(rig_done(ops[i]));
    assert_int_equal(ops[i]->result, 0);
    if (i < N - 1) free(ops[i]);
  }
  get_and_compare(5, data + (N - 1) * 64, ops[N - 1]->bytes, 0, 10000, 0);
  free(ops[N - 1]);
  free(data);
}

static void test_if_absent(void **state) {
  (void)state;
  char *data = rig_data(3 * BLOCK_BYTES, 1);
  struct shard_op *a = put_op(1, data, 5000, OP_IF_ABSENT),
                  *b = put_op(1, data + 1, 50, OP_IF_ABSENT);
  rig_submit(&rig, a);
  rig_submit(&rig, b);
  rig_drain(&rig);
  assert_int_equal(a->result, 0); /* in the order of submission, whichever's data came first */
  assert_int_equal(b->result, -EEXIST);
  get_and_compare(1, data, 5000, 0, 6000, 0);
  free(a);
  free(b);
  assert_int_equal(rig_put(&rig, 1, data, 1, OP_IF_ABSENT), -EEXIST);
  /* Behind a delete in flight the id is free again. */
  struct shard_op *big = put_op(1, data, 12000, 0), *del = rig_op(&rig, OP_DELETE, 1);
  a = put_op(1, data + 9, 700, OP_IF_ABSENT);
  rig_submit(&rig, big);
  rig_submit(&rig, del);
  rig_submit(&rig, a);
  rig_drain(&rig);
  assert_int_equal(del->result, 0);
  assert_int_equal(a->result, 0);
  get_and_compare(1, data + 9, 700, 0, 6000, 0);
  free(a);
  free(big);
  free(del);
  free(data);
}

/* ---- Damage and failures ------------------------------------------------------------------------
 */

static void test_bit_flip(void **state) {
  (void)state;
  uint64_t size[3] = {4000, 700000, 3 * MIB + 5};
  char *data = rig_data(4 * MIB, 3), *buf = rig_data(4 * MIB, 4);
  struct blob b;
  struct shard_stats stats;
  for (uint64_t i = 0; i < 3; i++) {
    assert_int_equal(rig_put(&rig, 2 * i, data, size[i], 0), 0);
    assert_int_equal(rig_put(&rig, 2 * i + 1, data, size[i], 0), 0);
    assert_int_equal(rig_find(&rig, 2 * i, &b), 0);
    uint64_t bad = size[i] * 2 / 3, granule = bad >> b.granule_shift << b.granule_shift;
    assert_int_equal(b.extent_count, 1);
    rig_block(&rig, b.extents[0].block + (bad >> BLOCK_SHIFT))[bad % BLOCK_BYTES] ^= 4;
    uint32_t logged = rig.errors_logged;
    assert_int_equal(rig_get(&rig, 2 * i, buf, 0, 4 * MIB), -EBADMSG);
    assert_int_equal(rig_get(&rig, 2 * i, buf + 1, 0, 4 * MIB - 1), -EBADMSG);
    assert_int_equal(rig_get(&rig, 2 * i, buf, bad - 1, 1), -EBADMSG); /* in the same granule */
    assert_int_equal(rig.errors_logged, logged + 3);
    char text[64];
    snprintf(text, sizeof text, "granule %llu", (unsigned long long)(bad >> b.granule_shift));
    assert_non_null(strstr(rig.last_error, text));
    if (granule) assert_int_equal(rig_get(&rig, 2 * i, buf, 0, granule), granule);
    get_and_compare(2 * i + 1, data, size[i], 0, size[i], 0);
  }
  shard_stats(rig.shard, &stats);
  assert_int_equal(stats.checksum_errors, 9);
  free(data);
  free(buf);
}

static void test_no_checksum_and_reserve(void **state) {
  (void)state;
  char *data = rig_data(MIB, 3);
  struct blob b;
  uint64_t writes = rig.device.writes;
  assert_int_equal(rig_put(&rig, 1, NULL, 3 * MIB, OP_RESERVE), 0);
  assert_int_equal(rig.device.writes, writes);
  assert_int_equal(rig_put(&rig, 2, data, 9000, OP_NO_CHECKSUM), 0);
  assert_int_equal(rig_put(&rig, 3, data, 9000, 0), 0);
  assert_int_equal(rig_find(&rig, 2, &b), 0);
  assert_int_equal(b.granule_count, 0);
  rig_block(&rig, b.extents[0].block)[0] ^= 1;
  data[0] ^= 1;
  get_and_compare(2, data, 9000, 0, 9000, 0);
  assert_int_equal(rig_find(&rig, 3, &b), 0);
  rig_block(&rig, b.extents[0].block)[0] ^= 1;
  struct shard_op *op = rig_op(&rig, OP_GET, 3);
  char *buf = rig_data(9000, 1);
  op->buf = buf;
  op->bytes = 9000;
  op->flags = OP_NO_CHECKSUM;
  assert_int_equal(rig_run(&rig, op), 9000);
  assert_int_equal(rig_get(&rig, 1, buf, 2 * MIB + 5, 77), 77);
  free(buf);
  free(data);
}

static void test_failed_io_fails_its_op_alone(void **state) {
  (void)state;
  char *data = rig_data(4 * MIB, 3), *buf = rig_data(4 * MIB, 2);
  struct shard_stats before, after;
  assert_int_equal(rig_put(&rig, 1, data, 3 * MIB + 9, 0), 0);
  shard_stats(rig.shard, &before);
  rig.device.fail_writes = 1;
  assert_int_equal(rig_put(&rig, 1, data + 5, 2 * MIB, 0), -EIO);
  shard_stats(rig.shard, &after);
  assert_int_equal(after.free_blocks, before.free_blocks); /* only its own space came back */
  get_and_compare(1, data, 3 * MIB + 9, 0, 4 * MIB, 0);
  rig.device.fail_reads = 1;
  assert_int_equal(rig_get(&rig, 1, buf, 3, 3 * MIB), -EIO);
  rig.device.fail_reads = 1;
  assert_int_equal(rig_get(&rig, 1, buf, 0, 65536), -EIO);
  assert_int_equal(rig_get(&rig, 1, buf, 3, 3 * MIB), 3 * MIB);
  free(data);
  free(buf);
}

static void test_no_space_then_delete_and_flush(void **state) {
  (void)state;
  char *data = rig_data(8 * MIB, 3);
  uint64_t n = 0;
  while (rig_put(&rig, n, data + n % 100, 5 * MIB + n, 0) == 0) n++;
  assert_in_range(n, 8, 13);
  assert_int_equal(rig_put(&rig, 100, data, 6 * MIB, 0), -ENOSPC);
  for (uint64_t i = 0; i < n; i++) get_and_compare(i, data + i % 100, 5 * MIB + i, 0, 6 * MIB, 0);
  assert_int_equal(rig_delete(&rig, 1), 0);
  assert_int_equal(rig_delete(&rig, 3), 0);
  /* Freed, but not durable: more than that can ever be is refused, else it waits for a flush. */
  assert_int_equal(rig_put(&rig, 101, NULL, 20 * MIB, OP_RESERVE), -ENOSPC);
  struct shard_op *op = put_op(100, data, 6 * MIB, 0);
  rig_submit(&rig, op);
  for (int i = 0; i < 1000; i++) rig_step(&rig);
  assert_false(rig_done(op));
  assert_true(manifest_wants_flush(shard_manifest(rig.shard)));
  rig_flush(&rig);
  assert_int_equal(rig_wait(&rig, op), 0); /* into two holes */
  free(op);
  get_and_compare(100, data, 6 * MIB, 0, 6 * MIB, 0);
  struct blob b;
  assert_int_equal(rig_find(&rig, 100, &b), 0);
  assert_true(b.extent_count >= 2);
  free(data);
}

static void test_many_extents(void **state) {
  (void)state;
  enum { N = 200 };
  char *data = rig_data(2 * MIB, 3);
  uint64_t n = 0;
  while (rig_put(&rig, n, data, 64 << 10, 0) == 0) n++;
  for (uint64_t i = 0; i < n; i += 2) assert_int_equal(rig_delete(&rig, i), 0);
  rig_flush(&rig);
  char *big = rig_data(20 * MIB, 8);
  assert_int_equal(rig_put(&rig, 5000, big, 20 * MIB - 9, 0), 0);
  struct blob b;
  assert_int_equal(rig_find(&rig, 5000, &b), 0);
  assert_true(b.extent_count > 300);
  get_and_compare(5000, big, 20 * MIB - 9, 0, 20 * MIB, 0);
  get_and_compare(5000, big, 20 * MIB - 9, 7 * MIB + 11, 12 * MIB, 5);
  free(big);
  free(data);
}

/* A reader's extents outlive a delete and a flush that would otherwise make them free. */
static void test_reader_holds_what_it_reads(void **state) {
  (void)state;
  char *data = rig_data(2 * MIB, 3), *other = rig_data(48 * MIB, 7), *buf = rig_data(2 * MIB, 1);
  struct blob b;
  struct shard_op *get = rig_op(&rig, OP_GET, 1);
  assert_int_equal(rig_put(&rig, 1, data, 2 * MIB, 0), 0);
  assert_int_equal(rig_find(&rig, 1, &b), 0);
  uint64_t block = b.extents[0].block;
  struct space *space = manifest_space(shard_manifest(rig.shard));
  get->buf = buf;
  get->bytes = 2 * MIB;
  rig_submit(&rig, get);
  assert_false(rig_done(get));
  struct shard_op *del = rig_op(&rig, OP_DELETE, 1);
  rig_submit(&rig, del);
  while (!rig_done(del)) shard_tick(rig.shard); /* no device I/O completes */
  assert_int_equal(del->result, 0);
  free(del);
  space_seal(space);
  space_durable(space);
  assert_true(space_is_used(space, block));
  assert_int_equal(rig_wait(&rig, get), 2 * MIB);
  assert_memory_equal(buf, data, 2 * MIB);
  assert_int_equal(rig_get(&rig, 1, buf, 0, 10), -ENOENT);
  assert_false(space_is_used(space, block));
  free(get);
  free(data);
  free(other);
  free(buf);
}

static void test_large_get_streams(void **state) {
  (void)state;
  char *data = rig_data(24 * MIB, 3), *buf = rig_data(24 * MIB, 1);
  assert_int_equal(rig_put(&rig, 1, data, 24 * MIB, 0), 0);
  rig.device.in_flight_max = 0;
  assert_int_equal(rig_get(&rig, 1, buf, 0, 24 * MIB), 24 * MIB);
  assert_memory_equal(buf, data, 24 * MIB);
  assert_in_range(rig.device.in_flight_max, 4, 16);
  free(data);
  free(buf);
}

static void test_read_only(void **state) {
  (void)state;
  char buf[100];
  struct shard_vacuum_result result;
  static const uint8_t kinds[] = {OP_PUT,    OP_DELETE,     OP_STREAM_BEGIN,
                                  OP_APPEND, OP_CHECKPOINT, OP_VACUUM};
  rig_open_read_only(&rig, 64 * MIB, 1);
  for (size_t i = 0; i < array_size(kinds); i++) {
    struct shard_op *op = rig_op(&rig, kinds[i], 1);
    op->buf = &result;
    op->bytes = sizeof result;
    assert_int_equal(rig_run(&rig, op), -EROFS);
  }
  assert_int_equal(shard_punch(rig.shard, &result), -EROFS);
  assert_int_equal(rig_get(&rig, 1, buf, 0, 100), -ENOENT);
  for (int i = 0; i < 10; i++) rig_step(&rig);
  assert_int_equal(rig.device.writes, 0);
  rig_close(&rig);
}

int main(void) {
#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)
  const struct CMUnitTest tests[] = {
      WITH_RIG(test_sizes_and_ranges),
      WITH_RIG(test_one_io_for_a_get),
      WITH_RIG(test_impossible_arguments),
      cmocka_unit_test(test_model),
      cmocka_unit_test(test_model_with_few_works),
      WITH_RIG(test_last_submitted_wins),
      WITH_RIG(test_if_absent),
      WITH_RIG(test_bit_flip),
      WITH_RIG(test_no_checksum_and_reserve),
      WITH_RIG(test_failed_io_fails_its_op_alone),
      WITH_RIG(test_no_space_then_delete_and_flush),
      WITH_RIG(test_many_extents),
      WITH_RIG(test_reader_holds_what_it_reads),
      WITH_RIG(test_large_get_streams),
      cmocka_unit_test(test_read_only),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
