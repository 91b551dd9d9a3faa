/* shard_list.c - iteration over a shard's blobs by a 64-bit cursor. Owned by the shard's thread.
 *
 * Blobs are ordered by key: the hash turned so that its partition comes first, less one bit, which
 * leaves room for an end mark. The order does not depend on what the index does, so a blob that
 * stays is met exactly once. Blobs of one key are returned together or not at all. A call keeps the
 * smallest keys of a partition in a heap in the caller's array: nothing is allocated. */
#include "shards/shard_internal.h"

#include <errno.h>

#define PARTITION_SHIFT 55 /* of the key */

static uint64_t key_of_hash(uint64_t hash) { return (hash << 32 | hash >> 32) >> 1; }

struct visit {
  struct shard *shard;
  bool (*filter)(struct shard *s, const struct blob *blob);
  struct shard_entry *heap; /* largest key first */
  uint64_t count, max, from;
  uint64_t dropped; /* smallest key that found no room */
};

static uint64_t key_of(const struct visit *v, const struct shard_entry *e) {
  return key_of_hash(hash_id(e->id, v->shard->config.manifest.hash_key));
}

static void swap(struct shard_entry *a, struct shard_entry *b) {
  struct shard_entry t = *a;
  *a = *b;
  *b = t;
}

static void sift_up(struct visit *v, uint64_t i) {
  while (i > 0 && key_of(v, &v->heap[(i - 1) / 2]) < key_of(v, &v->heap[i])) {
    swap(&v->heap[(i - 1) / 2], &v->heap[i]);
    i = (i - 1) / 2;
  }
}

static void sift_down(struct visit *v, uint64_t i) {
  for (;;) {
    uint64_t top = i, left = 2 * i + 1;
    for (uint64_t c = left; c < left + 2 && c < v->count; c++) {
      if (key_of(v, &v->heap[c]) > key_of(v, &v->heap[top])) top = c;
    }
    if (top == i) return;
    swap(&v->heap[top], &v->heap[i]);
    i = top;
  }
}

static void pop(struct visit *v) {
  v->heap[0] = v->heap[--v->count];
  sift_down(v, 0);
}

static int add(void *arg, uint64_t hash, const struct blob *blob) {
  struct visit *v = arg;
  uint64_t key = key_of_hash(hash);
  if (key < v->from || key >= v->dropped) return 0;
  if (v->filter && !v->filter(v->shard, blob)) return 0;
  if (v->count == v->max) {
    uint64_t top = key_of(v, &v->heap[0]);
    if (key >= top) {
      v->dropped = key;
      if (key > top) return 0;
    } else {
      v->dropped = top;
    }
    /* No key from the dropped one on can stay: its group would be cut. */
    while (v->count && key_of(v, &v->heap[0]) >= v->dropped) pop(v);
    if (key >= v->dropped) return 0;
  }
  v->heap[v->count++] = (struct shard_entry){.id = blob->id, .bytes = blob->bytes};
  sift_up(v, v->count - 1);
  return 0;
}

int list_next(struct shard *s, uint64_t *cursor, struct shard_entry *entries, uint64_t max,
              uint32_t partitions, bool (*filter)(struct shard *s, const struct blob *blob)) {
  uint64_t found = 0;
  while (*cursor < LIST_END && found < max && partitions-- > 0) {
    uint32_t partition = (uint32_t)(*cursor >> PARTITION_SHIFT);
    struct visit v = {.shard = s,
                      .filter = filter,
                      .heap = entries + found,
                      .max = max - found,
                      .from = *cursor,
                      .dropped = UINT64_MAX};
    if (index_partition_count(s->index, partition))
      (void)index_partition_visit(s->index, partition, add, &v);
    found += v.count;
    if (v.dropped != UINT64_MAX) {
      if (found == 0) return -ENOBUFS;
      *cursor = v.dropped;
      break;
    }
    *cursor = ((uint64_t)partition + 1) << PARTITION_SHIFT;
  }
  return (int)found;
}
