/* records.h - small values under 128-bit keys, all in memory: what the volumes' records are.
 *
 * Single-threaded, owned by a shard. Knows no disk: manifest.h changes it, and logs the change. A
 * hash table whose order is that of the checkpoints' partitions. Memory: 40 bytes and the value for
 * each, and 8 to 16 for the table. */
#ifndef SHARDS_RECORDS_H
#define SHARDS_RECORDS_H

#include "shards/index.h"

#define RECORD_BYTES_MAX 1024u

struct record {
  struct record *next; /* the table's */
  uint64_t hash;       /* hash_id() of the key */
  struct blob_id key;
  uint32_t bytes; /* 1 to RECORD_BYTES_MAX */
  char data[];
};

struct records;

int records_create(struct records **r, const uint64_t key[2]); /* key: of hash_id() */
void records_destroy(struct records *r);

/* NULL: not there. Valid until the record is replaced or removed. */
const struct record *records_find(const struct records *r, struct blob_id key);
/* All of them, by partition, else in no order: starts with NULL, ends with NULL. */
const struct record *records_next(const struct records *r, const struct record *before);
uint64_t records_count(const struct records *r);
/* The first one of a partition; goes on by records_next() while it is that partition's. */
const struct record *records_first(const struct records *r, uint32_t partition);

/* Memory for one records_put() of so many bytes (0: a removal needs none). -ENOMEM. Undone by
 * records_cancel() with as many. */
int records_reserve(struct records *r, uint32_t bytes);
void records_cancel(struct records *r, uint32_t bytes);
/* Inserts or replaces, consuming a reservation of as many bytes. Bytes 0: removes, if it is
 * there. */
void records_put(struct records *r, struct blob_id key, const void *data, uint32_t bytes);

#endif
