/* kv.h - one table of functions for each key-value store that bench/kv compares.
 *
 * Keys are 16 bytes, a function of their number. A value is stamped with its number at the
 * beginning of each 4 KiB, so what a get returns is looked at in every page, by kv_seen(), and now
 * and then compared as a whole. Functions return 0 or a negative errno after a message of their
 * own. */
#ifndef BENCH_KV_H
#define BENCH_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define KV_KEY_BYTES 16u
#define KV_BATCH_MAX 256u

struct kv_config {
  const char *directory; /* of this peer's files alone */
  uint64_t values, value_bytes;
  uint64_t threads;     /* that will call */
  uint64_t batch;       /* items of a call, at most KV_BATCH_MAX */
  uint64_t cache_bytes; /* for data and metadata, where the peer has such a cache */
  uint64_t cores;       /* of Shardring's own threads; 0: its default */
  uint64_t poll_us; /* how long its threads and its callers poll before they sleep; 0: default */
  bool create, describe;
  bool durable; /* each put survives a power cut when it returns */
  bool log;     /* of peers with a log for puts that are not durable: write it, too */
};

/* One value on its way. */
struct kv_item {
  uint64_t key;
  char *buffer; /* value_bytes at an address of whole pages: what is put, and room for a get */
  struct kv_thread *thread;
};

struct kv_peer {
  const char *name;
  void (*version)(char *text, size_t bytes);
  int (*open)(const struct kv_config *config, void **store);
  int (*close)(void *store);
  /* What each calling thread has for itself, on that thread. */
  int (*thread_open)(void *store, const struct kv_config *config, void **own);
  void (*thread_close)(void *own);
  /* All of the items; get tells each value by kv_seen() before it returns. */
  int (*get)(void *own, struct kv_item *items, uint32_t count);
  int (*put)(void *own, struct kv_item *items, uint32_t count);
  /* All that was put, by any thread, survives a power cut. */
  int (*sync)(void *own);
  /* After loading: brings the files into the shape that is best for gets; may be NULL. */
  int (*settle)(void *own);
  /* What the turn has cost inside, on stderr; may be NULL. */
  void (*describe)(void *own);
  /* Memory for buffers, freed with the store; NULL: ordinary memory will do. */
  char *(*buffer)(void *store, uint64_t bytes);
};

extern const struct kv_peer kv_shardring, kv_rocksdb, kv_lmdb, kv_sqlite;

/* The two halves of a key: high is spread over all values, so keys in order are in no order. */
uint64_t kv_key_high(uint64_t key);
void kv_key_bytes(uint64_t key, char bytes[KV_KEY_BYTES]);

/* Looks at a value that a get has found, wherever it lies. */
void kv_seen(const struct kv_item *item, const void *value, uint64_t bytes);

/* A message on stderr; returns error. */
int kv_fail(const char *what, const char *why, int error);

#endif
