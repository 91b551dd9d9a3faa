/* test_shard_more.c - streams, list, vacuum, durable ops and waiting of one shard. */
#include "tests/shards/shard_rig.h"

#include "shards/base/crc32c.h"
#include "shards/shard_internal.h"

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

static void get_and_compare(uint64_t id, const char *data, uint64_t size) {
  char *buf = rig_data(size + 10, 99);
  assert_int_equal(rig_get(&rig, id, buf, 0, size + 10), size);
  assert_memory_equal(buf, data, size);
  free(buf);
}

/* ---- Streams --------------------------------------------------------------------------------- */

static void *begin(uint64_t id, uint64_t hint, uint8_t flags, int64_t expected) {
  struct shard_op *op = rig_op(&rig, OP_STREAM_BEGIN, id);
  op->bytes = hint;
  op->flags = flags;
  rig_submit(&rig, op);
  assert_int_equal(rig_wait(&rig, op), expected);
  void *stream = op->work;
  free(op);
  return stream;
}
static struct shard_op *stream_op(uint8_t kind, void *stream, const char *buf, uint64_t bytes) {
  struct shard_op *op = rig_op(&rig, kind, 0);
  op->work = stream;
  op->buf = (void *)(uintptr_t)buf;
  op->bytes = bytes;
  return op;
}
static int64_t append(void *stream, const char *buf, uint64_t bytes) {
  return rig_run(&rig, stream_op(OP_APPEND, stream, buf, bytes));
}
static int64_t finish(uint8_t kind, void *stream) {
  return rig_run(&rig, stream_op(kind, stream, NULL, 0));
}

static void assert_same_record(uint64_t id_a, uint64_t id_b) {
  struct blob a, b;
  assert_int_equal(rig_find(&rig, id_a, &a), 0);
  assert_int_equal(rig_find(&rig, id_b, &b), 0);
  assert_int_equal(a.bytes, b.bytes);
  assert_int_equal(a.granule_shift, b.granule_shift);
  assert_int_equal(a.granule_count, b.granule_count);
  assert_memory_equal(a.checksums, b.checksums, a.granule_count * sizeof *a.checksums);
}

static void test_stream_equals_put(void **state) {
  (void)state;
  static const uint64_t sizes[] = {0,   1,       4095,    4096,           4097,          300000,
                                   MIB, MIB + 1, MIB - 1, 2 * MIB + 8192, 5 * MIB + 4097};
  for (size_t i = 0; i < array_size(sizes) * 3; i++) {
    uint64_t size = sizes[i / 3], at = 0;
    uint64_t chunk_max = (uint64_t[]){1000, 70000, 2 * MIB}[i % 3];
    if (i % 3 == 0 && size > 2 * MIB) continue;
    char *data = rig_data(size + 1, i);
    assert_int_equal(rig_put(&rig, 1, data, size, 0), 0);
    void *stream = begin(2, i % 2 ? size : 0, 0, 0);
    while (at < size) {
      uint64_t n = min_u64(size - at, random_below(&rig.random, chunk_max));
      if (random_below(&rig.random, 3) == 0) n = min_u64(size - at, round_up(n, BLOCK_BYTES));
      assert_int_equal(append(stream, data + at, n), n);
      at += n;
    }
    assert_int_equal(finish(OP_STREAM_COMMIT, stream), 0);
    get_and_compare(2, data, size);
    assert_same_record(1, 2);
    free(data);
    rig_flush(&rig);
  }
}

/* The checksums of a stream, without its bytes: granules grow from 4 KiB to 256 KiB. */
static void test_checksums_grow(void **state) {
  (void)state;
  enum { GRANULES = 65537 };
  struct sums grown = {.shift = 12, .grows = true};
  grown.at = calloc(BLOB_GRANULES_MAX, sizeof *grown.at);
  grown.folded = calloc(BLOB_GRANULES_MAX / 4, sizeof *grown.folded);
  char *data = rig_data(64 << 10, 5);
  /* 4 GiB and one piece, each of 64 KiB, each different in its first word; the data themselves are
   * checksummed once, the rest is linear: feed only a small prefix in full. */
  uint64_t granule = 0;
  for (uint64_t fed = 0; fed < 3 * MIB; fed += 64 << 10, granule++) {
    memcpy(data, &granule, sizeof granule);
    sums_feed(&grown, data, 64 << 10);
  }
  assert_int_equal(grown.shift, 16);
  assert_int_equal(grown.count, 48);
  for (; granule < GRANULES; granule++) { /* as sums_feed() would, without the bytes */
    sums_grow(&grown);
    if (granule < GRANULES - 1) {
      grown.at[grown.count++] = (uint32_t)granule * 2654435761u;
    } else {
      sums_feed(&grown, data, 100);
    }
  }
  assert_int_equal(grown.shift, 18);
  assert_int_equal(grown.count, 16384);
  assert_int_equal(grown.fill, 100);
  /* Two groups against combining by hand; the first one against the bytes. */
  uint32_t crc = 0;
  for (granule = 0; granule < 4; granule++) {
    memcpy(data, &granule, sizeof granule);
    crc = crc32c(crc, data, 64 << 10);
  }
  assert_int_equal(grown.at[0], crc);
  for (uint32_t g = 12; g < 16384; g += 4093) {
    crc = g * 4 * 2654435761u;
    for (uint32_t k = 1; k < 4; k++) crc = crc32c_combine(crc, (g * 4 + k) * 2654435761u, 64 << 10);
    assert_int_equal(grown.at[g], crc);
  }
  free(grown.at);
  free(grown.folded);
  free(data);
}

static uint64_t free_blocks(void) {
  struct shard_stats stats;
  shard_stats(rig.shard, &stats);
  return stats.free_blocks;
}

static void test_stream_abort_and_close(void **state) {
  (void)state;
  uint64_t before = free_blocks();
  char *data = rig_data(3 * MIB, 1);
  void *a = begin(1, 0, 0, 0), *b = begin(2, 8 * MIB, OP_NO_CHECKSUM, 0);
  assert_int_equal(append(a, data, 3 * MIB - 77), 3 * MIB - 77);
  assert_int_equal(append(b, data, 100), 100);
  assert_true(free_blocks() < before);
  assert_int_equal(rig_get(&rig, 1, data, 0, 10), -ENOENT);
  assert_int_equal(finish(OP_STREAM_ABORT, a), 0);
  assert_int_equal(finish(OP_STREAM_ABORT, b), 0);
  assert_int_equal(free_blocks(), before);
  assert_int_equal(append(a, data, 1), -EINVAL); /* no longer a stream */
  assert_int_equal(finish(OP_STREAM_COMMIT, NULL), -EINVAL);
  a = begin(1, 5 * MIB, 0, 0);
  assert_int_equal(append(a, data, 2 * MIB), 2 * MIB); /* left open: close frees it */
  free(data);
}

static void test_stream_limits(void **state) {
  (void)state;
  void *streams[STREAMS_MAX];
  char *data = rig_data(MIB, 1);
  for (uint32_t i = 0; i < STREAMS_MAX; i++) streams[i] = begin(i, 0, 0, 0);
  begin(1000, 0, 0, -EAGAIN);
  assert_int_equal(finish(OP_STREAM_ABORT, streams[7]), 0);
  begin(1000, (UINT64_C(1) << 40) + 1, 0, -EFBIG);
  begin(1000, 60 * MIB + 6 * (uint64_t)MIB, 0, -ENOSPC);
  streams[7] = begin(1000, 0, 0, 0);
  assert_int_equal(append(streams[7], NULL, 4), -EINVAL);
  assert_int_equal(append(streams[7], data, UINT64_C(1) << 41), -EFBIG);
  for (uint32_t i = 0; i < STREAMS_MAX; i++)
    assert_int_equal(finish(OP_STREAM_COMMIT, streams[i]), 0);
  assert_int_equal(rig_put(&rig, 7, data, 10, OP_IF_ABSENT), 0);
  begin(7, 0, OP_IF_ABSENT, -EEXIST);
  /* Present only later: refused at commit, and all space comes back. */
  uint64_t before = free_blocks();
  void *stream = begin(2000, 0, OP_IF_ABSENT, 0);
  assert_int_equal(append(stream, data, MIB), MIB);
  assert_int_equal(rig_put(&rig, 2000, NULL, 0, 0), 0);
  assert_int_equal(finish(OP_STREAM_COMMIT, stream), -EEXIST);
  assert_int_equal(free_blocks(), before);
  free(data);
}

static void test_stream_failed_write(void **state) {
  (void)state;
  uint64_t before = free_blocks();
  char *data = rig_data(MIB, 1);
  void *stream = begin(1, 0, 0, 0);
  rig.device.fail_writes = 1;
  assert_int_equal(append(stream, data, MIB), -EIO);
  assert_int_equal(append(stream, data, MIB), -EIO);
  assert_int_equal(finish(OP_STREAM_COMMIT, stream), -EIO);
  assert_int_equal(free_blocks(), before);
  free(data);
}

/* Ops of one stream that are submitted at once run in order; its commit is a write of the id. */
static void test_stream_order(void **state) {
  (void)state;
  char *data = rig_data(3 * MIB, 1);
  void *stream = begin(9, 0, 0, 0);
  struct shard_op *ops[6] = {
      stream_op(OP_APPEND, stream, data, MIB + 5),
      stream_op(OP_APPEND, stream, data + MIB + 5, 100),
      stream_op(OP_APPEND, stream, data + MIB + 105, MIB),
      stream_op(OP_STREAM_COMMIT, stream, NULL, 0),
      stream_op(OP_APPEND, stream, data, 100), /* behind its end */
      rig_op(&rig, OP_PUT, 9),
  };
  ops[5]->buf = data + 1;
  ops[5]->bytes = 77;
  for (int i = 0; i < 6; i++) rig_submit(&rig, ops[i]);
  rig_drain(&rig);
  const int64_t expected[6] = {MIB + 5, 100, MIB, 0, -EINVAL, 0};
  for (int i = 0; i < 6; i++) {
    assert_true(rig_done(ops[i]));
    assert_int_equal(ops[i]->result, expected[i]);
    free(ops[i]);
  }
  get_and_compare(9, data + 1, 77); /* the put was submitted after the commit */
  stream = begin(9, 0, 0, 0);
  assert_int_equal(append(stream, data, 2 * MIB + 9), 2 * MIB + 9);
  assert_int_equal(finish(OP_STREAM_COMMIT, stream), 0);
  get_and_compare(9, data, 2 * MIB + 9);
  free(data);
}

/* ---- Durable, waiting ------------------------------------------------------------------------ */

static void test_durable_waits_for_its_commit(void **state) {
  (void)state;
  char *data = rig_data(10000, 1);
  assert_int_equal(rig_put(&rig, 1, data, 10000, OP_DURABLE), 0);
  struct manifest_stats stats;
  manifest_stats(shard_manifest(rig.shard), &stats);
  assert_int_equal(stats.commits, 1);
  struct shard_op *op = rig_op(&rig, OP_DELETE, 1);
  op->flags = OP_DURABLE;
  assert_int_equal(rig_run(&rig, op), 0);
  manifest_stats(shard_manifest(rig.shard), &stats);
  assert_int_equal(stats.commits, 2);
  free(data);
}

/* More multi-piece ops than there are works: they wait, none fails. */
static void test_ops_wait_for_works(void **state) {
  (void)state;
  enum { N = 300 };
  static struct shard_op *ops[N];
  rig_open_config(&rig, 256 * (uint64_t)MIB, 5, 1);
  char *data = rig_data(20 * MIB, 1), *big = rig_data(18 * MIB, 2);
  for (uint64_t i = 0; i < N; i++) {
    ops[i] = rig_op(&rig, OP_PUT, i);
    ops[i]->buf = i % 100 == 3 ? big : data + i;
    ops[i]->bytes = i % 100 == 3 ? 18 * MIB : 5000 + i;
    rig_submit(&rig, ops[i]);
  }
  rig_drain(&rig);
  for (uint64_t i = 0; i < N; i++) {
    assert_int_equal(ops[i]->result, 0);
    ops[i]->kind = OP_GET;
    ops[i]->buf = malloc(ops[i]->bytes);
    *(bool *)ops[i]->owner = false;
    rig_submit(&rig, ops[i]);
  }
  rig_drain(&rig);
  for (uint64_t i = 0; i < N; i++) {
    assert_int_equal(ops[i]->result, ops[i]->bytes);
    assert_memory_equal(ops[i]->buf, i % 100 == 3 ? big : data + i, ops[i]->bytes);
    free(ops[i]->buf);
    free(ops[i]);
  }
  free(data);
  free(big);
  rig_close(&rig);
}

/* ---- List ------------------------------------------------------------------------------------ */

enum { LISTED = 3000 };

static int64_t list(uint64_t *cursor, struct shard_entry *entries, uint64_t max) {
  struct shard_op *op = rig_op(&rig, OP_LIST, 0);
  op->buf = entries;
  op->bytes = max;
  op->offset = *cursor;
  rig_submit(&rig, op);
  int64_t n = rig_wait(&rig, op);
  *cursor = op->size;
  free(op);
  return n;
}

static void test_list_while_others_write(void **state) {
  (void)state;
  static uint8_t seen[3 * LISTED];
  struct shard_entry entries[64];
  char *data = rig_data(5000, 1);
  memset(seen, 0, sizeof seen);
  /* Below LISTED: stay. Above: come and go while the list runs. */
  for (uint64_t i = 0; i < 2 * LISTED; i++)
    assert_int_equal(rig_put(&rig, i, data, i % 5000, OP_RESERVE), 0);
  uint64_t cursor = 0, next = 2 * LISTED, gone = LISTED;
  for (int64_t n, i = 0; (n = list(&cursor, entries, 1 + i % 64)) != 0; i++) {
    assert_in_range(n, 1, 1 + i % 64);
    for (int64_t k = 0; k < n; k++) {
      uint64_t id = entries[k].id.lo;
      assert_in_range(id, 0, 3 * LISTED - 1);
      assert_int_equal(entries[k].bytes, id % 5000);
      assert_int_equal(seen[id]++, 0);
    }
    for (int w = 0; w < 5; w++) {
      if (next < 3 * LISTED)
        assert_int_equal(rig_put(&rig, next, data, next % 5000, OP_RESERVE), 0);
      if (next < 3 * LISTED) next++;
      if (gone < 2 * LISTED) assert_int_equal(rig_delete(&rig, gone++), 0);
      uint64_t same = random_below(&rig.random, LISTED); /* rewritten, yet there throughout */
      assert_int_equal(rig_put(&rig, same, data, same % 5000, OP_RESERVE), 0);
    }
    if (i % 50 == 0) rig_flush(&rig);
  }
  for (uint64_t i = 0; i < LISTED; i++) assert_int_equal(seen[i], 1);
  cursor = 0;
  assert_int_equal(list(&cursor, entries, 0), -EINVAL);
  free(data);
}

/* Ids with one hash are returned together: their order is not defined, so no cursor cuts there. */
static void test_list_keeps_ties_together(void **state) {
  (void)state;
  struct shard_entry entries[16];
  uint64_t hash = 0, seen = 0, cursor = 0;
  for (uint64_t i = 100; i < 160; i++) assert_int_equal(rig_put(&rig, i, NULL, 0, 0), 0);
  for (uint64_t i = 0; i < 5; i++) {
    struct shard_op *op = rig_op(&rig, OP_PUT, 0);
    /* lo equal to the key makes the product, and so the hash, the same for every hi. */
    op->id = (struct blob_id){.hi = i, .lo = rig.config.manifest.hash_key[0]};
    op->hash = hash_id(op->id, rig.config.manifest.hash_key);
    assert_true(i == 0 || op->hash == hash);
    hash = op->hash;
    assert_int_equal(rig_run(&rig, op), 0);
  }
  for (int64_t n; (n = list(&cursor, entries, 5)) != 0;) {
    assert_in_range(n, 1, 5);
    int ties = 0;
    for (int64_t k = 0; k < n; k++)
      ties += hash_id(entries[k].id, rig.config.manifest.hash_key) == hash;
    assert_true(ties == 0 || ties == 5);
    seen += (uint64_t)n;
  }
  assert_int_equal(seen, 65);
  int64_t n = 1;
  cursor = 0;
  while (n > 0) n = list(&cursor, entries, 4);
  assert_int_equal(n, -ENOBUFS); /* no room for the five */
}

/* ---- Vacuum ---------------------------------------------------------------------------------- */

static uint64_t highest(void) { return space_end(manifest_space(shard_manifest(rig.shard))); }

static void vacuum(struct shard_vacuum_result *result) {
  struct shard_op *op = rig_op(&rig, OP_VACUUM, 0);
  memset(result, 0, sizeof *result);
  op->buf = result;
  assert_int_equal(rig_run(&rig, op), 0);
  rig_flush(&rig);
}

static void test_vacuum(void **state) {
  (void)state;
  enum { N = 60 };
  struct shard_vacuum_result result;
  char *data = rig_data(MIB + N, 1);
  for (uint64_t i = 0; i < N; i++)
    assert_int_equal(rig_put(&rig, i, data + i, MIB - i * 1000, i % 5 == 1 ? OP_NO_CHECKSUM : 0),
                     0);
  for (uint64_t i = 0; i < N; i++)
    if (i % 4) assert_int_equal(rig_delete(&rig, i), 0);
  rig_flush(&rig);
  uint64_t before = highest();
  vacuum(&result);
  assert_true(result.moved_bytes > 4 * MIB);
  assert_true(highest() < before / 2);
  assert_int_equal(shard_punch(rig.shard, &result), 0);
  assert_true(result.released_bytes > 32 * MIB);
  for (uint64_t i = 0; i < N; i += 4) get_and_compare(i, data + i, MIB - i * 1000);
  vacuum(&result);
  assert_int_equal(result.moved_bytes, 0); /* nothing is left to do */
  free(data);
}

/* Moves race with reads, writes and deletes; a damaged blob stays where it is. */
static void test_vacuum_while_others_work(void **state) {
  (void)state;
  enum { N = 40 };
  struct shard_vacuum_result result;
  struct blob b;
  char *data = rig_data(2 * MIB, 1), *buf = rig_data(2 * MIB, 2);
  for (uint64_t i = 0; i < N; i++) assert_int_equal(rig_put(&rig, i, data + i, MIB + 9, 0), 0);
  for (uint64_t i = 0; i < N / 2; i++) assert_int_equal(rig_delete(&rig, i), 0);
  rig_flush(&rig);
  assert_int_equal(rig_find(&rig, N - 1, &b), 0);
  uint64_t damaged = b.extents[0].block;
  rig_block(&rig, damaged)[17] ^= 1;
  struct shard_op *op = rig_op(&rig, OP_VACUUM, 0);
  op->buf = &result;
  rig_submit(&rig, op);
  for (uint64_t i = N / 2; i < N - 1; i++) {
    struct shard_op *get = rig_op(&rig, OP_GET, i);
    get->buf = buf;
    get->bytes = 2 * MIB;
    rig_submit(&rig, get);
    if (i % 3 == 0) assert_int_equal(rig_put(&rig, i, data + 2 * i, MIB, 0), 0);
    if (i % 3 == 1) assert_int_equal(rig_delete(&rig, i), 0);
    assert_int_equal(rig_wait(&rig, get), MIB + 9);
    free(get);
    if (i % 4 == 0) rig_flush(&rig);
  }
  assert_int_equal(rig_wait(&rig, op), 0);
  assert_true(result.moved_bytes > 0);
  free(op);
  for (uint64_t i = N / 2; i < N - 1; i++) {
    if (i % 3 == 0) get_and_compare(i, data + 2 * i, MIB);
    if (i % 3 == 1) assert_int_equal(rig_get(&rig, i, buf, 0, 1), -ENOENT);
    if (i % 3 == 2) get_and_compare(i, data + i, MIB + 9);
  }
  assert_int_equal(rig_find(&rig, N - 1, &b), 0);
  assert_int_equal(b.extents[0].block, damaged);
  assert_int_equal(rig_get(&rig, N - 1, buf, 0, MIB), -EBADMSG);
  free(data);
  free(buf);
}

/* Blocks in use, less those of checkpoints. */
static uint64_t own_blocks(const struct shard_stats *stats) {
  return stats->total_blocks - stats->free_blocks - stats->pending_blocks -
         stats->manifest.checkpoint_blocks;
}

/* Blobs that are replaced or deleted while a move of them is under way: the move is dropped. */
static void test_vacuum_of_what_changes_meanwhile(void **state) {
  (void)state;
  enum { N = 20, DELETED = 3 }; /* every eighth */
  struct shard_vacuum_result result;
  struct blob b;
  char *data = rig_data(2 * MIB, 1);
  for (uint64_t i = 0; i < 2 * N; i++) assert_int_equal(rig_put(&rig, i, data + i, MIB + 9, 0), 0);
  for (uint64_t i = 0; i < N; i++) assert_int_equal(rig_delete(&rig, i), 0);
  rig_flush(&rig);
  struct shard_stats stats;
  shard_stats(rig.shard, &stats);
  uint64_t own = own_blocks(&stats) - N * 257;
  struct shard_op *op = rig_op(&rig, OP_VACUUM, 0), *ops[N];
  op->buf = &result;
  rig.device.hold_writes = true;
  rig_submit(&rig, op);
  for (int i = 0; i < 2000; i++) rig_step(&rig); /* moves have read and cannot write */
  assert_true(rig.device.count > 0);
  for (uint64_t i = 0; i < N; i++) { /* neither needs a data write */
    ops[i] = rig_op(&rig, i % 8 ? OP_PUT : OP_DELETE, N + i);
    ops[i]->flags = i % 8 ? OP_RESERVE : 0;
    ops[i]->bytes = 70000 + i;
    rig_submit(&rig, ops[i]);
    assert_int_equal(rig_wait(&rig, ops[i]), 0);
    free(ops[i]);
  }
  rig.device.hold_writes = false;
  assert_int_equal(rig_wait(&rig, op), 0);
  free(op);
  rig_flush(&rig);
  shard_stats(rig.shard, &stats);
  assert_int_equal(stats.blobs, N - DELETED);
  for (uint64_t i = 0; i < N; i++) {
    assert_int_equal(rig_find(&rig, N + i, &b), i % 8 ? 0 : -ENOENT);
    if (i % 8) assert_int_equal(b.bytes, 70000 + i);
    if (i % 8) assert_int_equal(b.granule_count, 0);
  }
  assert_int_equal(stats.pending_blocks, 0);
  assert_int_equal(own_blocks(&stats) - (N - DELETED) * 18, own);
  free(data);
}

int main(void) {
#define WITH_RIG(test) cmocka_unit_test_setup_teardown(test, rig_setup, rig_teardown)
  const struct CMUnitTest tests[] = {
      WITH_RIG(test_stream_equals_put),
      cmocka_unit_test(test_checksums_grow),
      WITH_RIG(test_stream_abort_and_close),
      WITH_RIG(test_stream_limits),
      WITH_RIG(test_stream_failed_write),
      WITH_RIG(test_stream_order),
      WITH_RIG(test_durable_waits_for_its_commit),
      cmocka_unit_test(test_ops_wait_for_works),
      WITH_RIG(test_list_while_others_write),
      WITH_RIG(test_list_keeps_ties_together),
      WITH_RIG(test_vacuum),
      WITH_RIG(test_vacuum_while_others_work),
      WITH_RIG(test_vacuum_of_what_changes_meanwhile),
  };
  return cmocka_run_group_tests(tests, NULL, NULL);
}
