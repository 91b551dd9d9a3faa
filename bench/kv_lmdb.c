/* kv_lmdb.c - LMDB behind the table of kv.h. It reads through a mapping of its file, so through the
 * page cache, without read-ahead (MDB_NORDAHEAD), has no checksums, and one writer at a time;
 * several items: one transaction. Puts that are not durable: MDB_NOSYNC. */
#include <errno.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>

#include "bench/kv.h"

struct store {
  MDB_env *env;
  MDB_dbi db;
};

struct own {
  struct store *store;
  const struct kv_config *config;
  MDB_txn *reader; /* is reset between gets */
};

static int fail(const char *what, int error) {
  return kv_fail(what, mdb_strerror(error), error > 0 ? -error : -EIO);
}

static void version(char *text, size_t bytes) {
  int major, minor, patch;
  mdb_version(&major, &minor, &patch);
  snprintf(text, bytes, "LMDB %d.%d.%d", major, minor, patch);
}

static int open_store(const struct kv_config *config, void **result) {
  struct store *s = calloc(1, sizeof *s);
  MDB_txn *txn = NULL;
  unsigned flags = MDB_NORDAHEAD | MDB_NOTLS | (config->durable ? 0 : MDB_NOSYNC);
  if (!s) return -ENOMEM;
  int r = mdb_env_create(&s->env);
  if (!r)
    r = mdb_env_set_mapsize(s->env, config->values * (config->value_bytes + 8192) * 3 + (1u << 30));
  if (!r) r = mdb_env_set_maxreaders(s->env, (unsigned)config->threads + 8);
  if (!r) r = mdb_env_open(s->env, config->directory, flags, 0666);
  if (!r) r = mdb_txn_begin(s->env, NULL, 0, &txn);
  if (!r) r = mdb_dbi_open(txn, NULL, 0, &s->db);
  if (!r) r = mdb_txn_commit(txn);
  *result = s;
  return r ? fail(config->directory, r) : 0;
}

static int close_store(void *arg) {
  struct store *s = arg;
  mdb_env_close(s->env);
  free(s);
  return 0;
}

static int thread_open(void *store, const struct kv_config *config, void **result) {
  struct own *own = calloc(1, sizeof *own);
  if (!own) return -ENOMEM;
  own->store = store;
  own->config = config;
  int r = mdb_txn_begin(own->store->env, NULL, MDB_RDONLY, &own->reader);
  if (r) {
    free(own);
    return fail("reader", r);
  }
  mdb_txn_reset(own->reader);
  *result = own;
  return 0;
}

static void thread_close(void *arg) {
  struct own *own = arg;
  mdb_txn_abort(own->reader);
  free(own);
}

static int get(void *arg, struct kv_item *items, uint32_t count) {
  struct own *own = arg;
  int r = mdb_txn_renew(own->reader);
  if (r) return fail("renew", r);
  for (uint32_t i = 0; r == 0 && i < count; i++) {
    char bytes[KV_KEY_BYTES];
    MDB_val key = {KV_KEY_BYTES, bytes}, value;
    kv_key_bytes(items[i].key, bytes);
    r = mdb_get(own->reader, own->store->db, &key, &value);
    if (r == 0) kv_seen(&items[i], value.mv_data, value.mv_size);
  }
  mdb_txn_reset(own->reader);
  return r ? fail("get", r) : 0;
}

static int put(void *arg, struct kv_item *items, uint32_t count) {
  struct own *own = arg;
  MDB_txn *txn;
  int r = mdb_txn_begin(own->store->env, NULL, 0, &txn);
  if (r) return fail("begin", r);
  for (uint32_t i = 0; r == 0 && i < count; i++) {
    char bytes[KV_KEY_BYTES];
    MDB_val key = {KV_KEY_BYTES, bytes}, value = {own->config->value_bytes, items[i].buffer};
    kv_key_bytes(items[i].key, bytes);
    r = mdb_put(txn, own->store->db, &key, &value, 0);
  }
  if (r)
    mdb_txn_abort(txn);
  else
    r = mdb_txn_commit(txn);
  return r ? fail("put", r) : 0;
}

static int sync_store(void *arg) {
  struct own *own = arg;
  int r = mdb_env_sync(own->store->env, 1);
  return r ? fail("sync", r) : 0;
}

const struct kv_peer kv_lmdb = {.name = "lmdb",
                                .version = version,
                                .open = open_store,
                                .close = close_store,
                                .thread_open = thread_open,
                                .thread_close = thread_close,
                                .get = get,
                                .put = put,
                                .sync = sync_store};
