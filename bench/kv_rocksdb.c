/* kv_rocksdb.c - RocksDB with BlobDB behind the table of kv.h: values lie in blob files, keys alone
 * in its tree; direct I/O for reads, flushes and compaction, no compression, checksums on as by
 * default. Gets are looked at where RocksDB has them (pinned), without a copy. Several items: its
 * batched MultiGet, and an (atomic) WriteBatch. */
#include <errno.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/kv.h"

struct store {
  rocksdb_t *db;
  rocksdb_options_t *options;
  rocksdb_column_family_handle_t *family;
};

struct own {
  struct store *store;
  const struct kv_config *config;
  rocksdb_readoptions_t *reads;
  rocksdb_writeoptions_t *writes;
  rocksdb_writebatch_t *batch;
};

static int fail(const char *what, char *why) {
  int r = kv_fail(what, why, -EIO);
  free(why);
  return r;
}

/* The header with the version is C++. */
static void version(char *text, size_t bytes) {
  snprintf(text, bytes, "RocksDB %s (BlobDB)", ROCKSDB_PACKAGE);
}

static rocksdb_options_t *make_options(const struct kv_config *config) {
  rocksdb_options_t *o = rocksdb_options_create();
  rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();
  rocksdb_cache_t *cache = rocksdb_cache_create_lru(config->cache_bytes);
  rocksdb_block_based_options_set_block_cache(table, cache);
  rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom_full(10));
  rocksdb_options_set_block_based_table_factory(o, table);
  rocksdb_block_based_options_destroy(table);
  rocksdb_cache_destroy(cache);
  rocksdb_options_set_create_if_missing(o, config->create);
  rocksdb_options_set_compression(o, rocksdb_no_compression);
  rocksdb_options_set_enable_blob_files(o, 1);
  rocksdb_options_set_min_blob_size(o, 512);
  rocksdb_options_set_blob_compression_type(o, rocksdb_no_compression);
  rocksdb_options_set_enable_blob_gc(o, 1);
  rocksdb_options_set_use_direct_reads(o, 1);
  rocksdb_options_set_use_direct_io_for_flush_and_compaction(o, 1);
  rocksdb_options_set_max_background_jobs(o, 4);
  rocksdb_options_set_max_write_buffer_number(o, 4);
  return o;
}

static int open_store(const struct kv_config *config, void **result) {
  struct store *s = calloc(1, sizeof *s);
  const char *name = "default", *why = NULL;
  if (!s) return -ENOMEM;
  s->options = make_options(config);
  s->db = rocksdb_open_column_families(s->options, config->directory, 1, &name,
                                       (const rocksdb_options_t *const *)&s->options, &s->family,
                                       (char **)&why);
  if (why) return fail(config->directory, (char *)why);
  *result = s;
  return 0;
}

static int close_store(void *arg) {
  struct store *s = arg;
  rocksdb_column_family_handle_destroy(s->family);
  rocksdb_close(s->db);
  rocksdb_options_destroy(s->options);
  free(s);
  return 0;
}

static int thread_open(void *store, const struct kv_config *config, void **result) {
  struct own *own = calloc(1, sizeof *own);
  if (!own) return -ENOMEM;
  own->store = store;
  own->config = config;
  own->reads = rocksdb_readoptions_create();
  own->writes = rocksdb_writeoptions_create();
  own->batch = rocksdb_writebatch_create();
  rocksdb_writeoptions_set_sync(own->writes, config->durable);
  rocksdb_writeoptions_disable_WAL(own->writes, !config->durable && !config->log);
  *result = own;
  return 0;
}

static void thread_close(void *arg) {
  struct own *own = arg;
  rocksdb_readoptions_destroy(own->reads);
  rocksdb_writeoptions_destroy(own->writes);
  rocksdb_writebatch_destroy(own->batch);
  free(own);
}

static int see(const struct kv_item *item, rocksdb_pinnableslice_t *slice) {
  size_t bytes = 0;
  const char *value = slice ? rocksdb_pinnableslice_value(slice, &bytes) : NULL;
  if (!value) return kv_fail("get", "no such key", -ENOENT);
  kv_seen(item, value, bytes);
  rocksdb_pinnableslice_destroy(slice);
  return 0;
}

static int get_many(struct own *own, struct kv_item *items, uint32_t count) {
  char keys[KV_BATCH_MAX][KV_KEY_BYTES], *errors[KV_BATCH_MAX];
  const char *list[KV_BATCH_MAX] = {NULL};
  size_t sizes[KV_BATCH_MAX] = {0};
  rocksdb_pinnableslice_t *values[KV_BATCH_MAX];
  for (uint32_t i = 0; i < count; i++) {
    kv_key_bytes(items[i].key, keys[i]);
    list[i] = keys[i], sizes[i] = KV_KEY_BYTES, errors[i] = NULL, values[i] = NULL;
  }
  rocksdb_batched_multi_get_cf(own->store->db, own->reads, own->store->family, count, list, sizes,
                               values, errors, false);
  for (uint32_t i = 0; i < count; i++) {
    if (errors[i]) return fail("multi get", errors[i]);
    int r = see(&items[i], values[i]);
    if (r) return r;
  }
  return 0;
}

static int get(void *arg, struct kv_item *items, uint32_t count) {
  struct own *own = arg;
  char key[KV_KEY_BYTES], *why = NULL;
  if (count > 1) return get_many(own, items, count);
  kv_key_bytes(items[0].key, key);
  rocksdb_pinnableslice_t *slice =
      rocksdb_get_pinned(own->store->db, own->reads, key, KV_KEY_BYTES, &why);
  return why ? fail("get", why) : see(&items[0], slice);
}

static int put(void *arg, struct kv_item *items, uint32_t count) {
  struct own *own = arg;
  char key[KV_KEY_BYTES], *why = NULL;
  size_t bytes = own->config->value_bytes;
  if (count == 1) {
    kv_key_bytes(items[0].key, key);
    rocksdb_put(own->store->db, own->writes, key, KV_KEY_BYTES, items[0].buffer, bytes, &why);
    return why ? fail("put", why) : 0;
  }
  rocksdb_writebatch_clear(own->batch);
  for (uint32_t i = 0; i < count; i++) {
    kv_key_bytes(items[i].key, key);
    rocksdb_writebatch_put(own->batch, key, KV_KEY_BYTES, items[i].buffer, bytes);
  }
  rocksdb_write(own->store->db, own->writes, own->batch, &why);
  return why ? fail("write", why) : 0;
}

/* Without a log the tables in memory must go to files. */
static int sync_store(void *arg) {
  struct own *own = arg;
  char *why = NULL;
  if (own->config->log) {
    rocksdb_flush_wal(own->store->db, 1, &why);
  } else {
    rocksdb_flushoptions_t *o = rocksdb_flushoptions_create();
    rocksdb_flush(own->store->db, o, &why);
    rocksdb_flushoptions_destroy(o);
  }
  return why ? fail("flush", why) : 0;
}

static int settle(void *arg) {
  struct own *own = arg;
  rocksdb_compact_range(own->store->db, NULL, 0, NULL, 0);
  return 0;
}

const struct kv_peer kv_rocksdb = {.name = "rocksdb",
                                   .version = version,
                                   .open = open_store,
                                   .close = close_store,
                                   .thread_open = thread_open,
                                   .thread_close = thread_close,
                                   .get = get,
                                   .put = put,
                                   .sync = sync_store,
                                   .settle = settle};
