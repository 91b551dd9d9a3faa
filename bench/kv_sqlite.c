/* kv_sqlite.c - SQLite behind the table of kv.h: one table of integer keys and blobs, a write-ahead
 * log, one connection for each thread. It reads through the page cache and its own cache of
 * cache_bytes, has no checksums, and one writer at a time; several items: one transaction. Durable
 * puts: synchronous=FULL, else OFF and a checkpoint with fdatasync at the end. */
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bench/kv.h"

struct store {
  const struct kv_config *config;
  char path[4096];
};

struct own {
  struct store *store;
  const struct kv_config *config;
  sqlite3 *db;
  sqlite3_stmt *get, *put, *begin, *commit;
};

static int fail(const char *what, sqlite3 *db) { return kv_fail(what, sqlite3_errmsg(db), -EIO); }

static void version(char *text, size_t bytes) {
  snprintf(text, bytes, "SQLite %s", sqlite3_libversion());
}

static int execute(sqlite3 *db, const char *sql) {
  return sqlite3_exec(db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail(sql, db);
}

/* A page holds one value, as far as pages go: so a get reads one. */
static unsigned page_bytes(uint64_t value_bytes) {
  unsigned page = 4096;
  while (page < 65536 && page < value_bytes + value_bytes / 2) page *= 2;
  return page;
}

static int connect_store(struct store *s, sqlite3 **db) {
  const struct kv_config *c = s->config;
  char sql[512];
  if (sqlite3_open_v2(s->path, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
                      NULL) != SQLITE_OK)
    return fail(s->path, *db);
  sqlite3_busy_timeout(*db, 60000);
  snprintf(sql, sizeof sql,
           "PRAGMA page_size=%u; PRAGMA journal_mode=WAL; PRAGMA synchronous=%s;"
           "PRAGMA cache_size=-%llu;",
           page_bytes(c->value_bytes), c->durable ? "FULL" : "OFF",
           (unsigned long long)(c->cache_bytes / c->threads / 1024));
  return execute(*db, sql);
}

static int open_store(const struct kv_config *config, void **result) {
  struct store *s = calloc(1, sizeof *s);
  sqlite3 *db = NULL;
  if (!s) return -ENOMEM;
  s->config = config;
  snprintf(s->path, sizeof s->path, "%s/kv.db", config->directory);
  int r = connect_store(s, &db);
  if (r == 0 && config->create)
    r = execute(db, "CREATE TABLE kv (key INTEGER PRIMARY KEY, value BLOB)");
  sqlite3_close(db);
  *result = s;
  return r;
}

static int close_store(void *store) {
  free(store);
  return 0;
}

static void thread_close(void *arg) {
  struct own *own = arg;
  sqlite3_finalize(own->get);
  sqlite3_finalize(own->put);
  sqlite3_finalize(own->begin);
  sqlite3_finalize(own->commit);
  sqlite3_close(own->db);
  free(own);
}

static int thread_open(void *store, const struct kv_config *config, void **result) {
  struct own *own = calloc(1, sizeof *own);
  if (!own) return -ENOMEM;
  own->store = store;
  own->config = config;
  int r = connect_store(store, &own->db);
  const struct {
    const char *sql;
    sqlite3_stmt **statement;
  } all[] = {{"SELECT value FROM kv WHERE key = ?", &own->get},
             {"INSERT OR REPLACE INTO kv VALUES (?, ?)", &own->put},
             {"BEGIN IMMEDIATE", &own->begin},
             {"COMMIT", &own->commit}};
  for (int i = 0; r == 0 && i < 4; i++)
    if (sqlite3_prepare_v3(own->db, all[i].sql, -1, SQLITE_PREPARE_PERSISTENT, all[i].statement,
                           NULL) != SQLITE_OK)
      r = fail(all[i].sql, own->db);
  if (r)
    thread_close(own);
  else
    *result = own;
  return r;
}

static int get(void *arg, struct kv_item *items, uint32_t count) {
  struct own *own = arg;
  for (uint32_t i = 0; i < count; i++) {
    sqlite3_bind_int64(own->get, 1, (sqlite3_int64)items[i].key);
    if (sqlite3_step(own->get) != SQLITE_ROW) return fail("get", own->db);
    kv_seen(&items[i], sqlite3_column_blob(own->get, 0),
            (uint64_t)sqlite3_column_bytes(own->get, 0));
    sqlite3_reset(own->get);
  }
  return 0;
}

static int put_one(struct own *own, const struct kv_item *item) {
  sqlite3_bind_int64(own->put, 1, (sqlite3_int64)item->key);
  sqlite3_bind_blob(own->put, 2, item->buffer, (int)own->config->value_bytes, SQLITE_STATIC);
  int r = sqlite3_step(own->put) == SQLITE_DONE ? 0 : fail("put", own->db);
  sqlite3_reset(own->put);
  return r;
}

static int finish(struct own *own, sqlite3_stmt *statement) {
  int r = sqlite3_step(statement) == SQLITE_DONE ? 0 : fail("transaction", own->db);
  sqlite3_reset(statement);
  return r;
}

static int put(void *arg, struct kv_item *items, uint32_t count) {
  struct own *own = arg;
  if (count == 1) return put_one(own, items);
  int r = finish(own, own->begin);
  for (uint32_t i = 0; r == 0 && i < count; i++) r = put_one(own, &items[i]);
  return r ? r : finish(own, own->commit);
}

static int sync_store(void *arg) {
  struct own *own = arg;
  if (execute(own->db, "PRAGMA wal_checkpoint(TRUNCATE)")) return -EIO;
  int fd = open(own->store->path, O_RDONLY | O_CLOEXEC);
  int r = fd < 0 || fdatasync(fd) ? kv_fail(own->store->path, NULL, -errno) : 0;
  if (fd >= 0) close(fd);
  return r;
}

const struct kv_peer kv_sqlite = {.name = "sqlite",
                                  .version = version,
                                  .open = open_store,
                                  .close = close_store,
                                  .thread_open = thread_open,
                                  .thread_close = thread_close,
                                  .get = get,
                                  .put = put,
                                  .sync = sync_store};
