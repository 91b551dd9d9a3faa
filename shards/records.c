/* records.c - see records.h. Owned by the shard's thread.
 *
 * Chains in buckets; a bucket's number is the top of the hash's lower half, as a partition's is: so
 * a partition is a run of neighbouring buckets, however many there are. `spare` holds what
 * reservations have allocated: each record_put() takes one of just its size. */
#include "shards/records.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define BITS_MIN 8u /* one bucket for a partition */
#define BITS_MAX 24u

struct records {
  uint64_t key[2];
  struct record **buckets;
  uint32_t bits;
  uint64_t count, spares;
  struct record *spare;
};

static uint32_t bucket_of(uint64_t hash, uint32_t bits) { return (uint32_t)hash >> (32 - bits); }

int records_create(struct records **out, const uint64_t key[2]) {
  struct records *r = calloc(1, sizeof *r);
  if (!r) return -ENOMEM;
  memcpy(r->key, key, sizeof r->key);
  r->bits = BITS_MIN;
  r->buckets = calloc(UINT64_C(1) << r->bits, sizeof(struct record *));
  if (!r->buckets) {
    free(r);
    return -ENOMEM;
  }
  *out = r;
  return 0;
}

static void free_chain(struct record *x) {
  while (x) {
    struct record *next = x->next;
    free(x);
    x = next;
  }
}

void records_destroy(struct records *r) {
  if (!r) return;
  for (uint64_t i = 0; i < UINT64_C(1) << r->bits; i++) free_chain(r->buckets[i]);
  free_chain(r->spare);
  free(r->buckets);
  free(r);
}

/* ---- Looking ----------------------------------------------------------------------------- */

/* The link that points at it, or at the end of its chain. */
static struct record **find_link(const struct records *r, uint64_t hash, struct blob_id key) {
  struct record **at = &r->buckets[bucket_of(hash, r->bits)];
  while (*at && !blob_id_equal((*at)->key, key)) at = &(*at)->next;
  return at;
}

const struct record *records_find(const struct records *r, struct blob_id key) {
  return *find_link(r, hash_id(key, r->key), key);
}

static const struct record *first_from(const struct records *r, uint64_t bucket) {
  for (; bucket < UINT64_C(1) << r->bits; bucket++)
    if (r->buckets[bucket]) return r->buckets[bucket];
  return NULL;
}

const struct record *records_next(const struct records *r, const struct record *before) {
  if (!before) return first_from(r, 0);
  return before->next ? before->next : first_from(r, bucket_of(before->hash, r->bits) + 1);
}

const struct record *records_first(const struct records *r, uint32_t partition) {
  const struct record *x = first_from(r, (uint64_t)partition << (r->bits - BITS_MIN));
  return x && index_partition_of(x->hash) == partition ? x : NULL;
}

uint64_t records_count(const struct records *r) { return r->count; }

/* ---- Changing ---------------------------------------------------------------------------- */

/* Only the speed depends on it: without memory the chains get longer. */
static void grow(struct records *r) {
  uint32_t bits = r->bits + 2;
  if (bits > BITS_MAX) return;
  struct record **buckets = calloc(UINT64_C(1) << bits, sizeof *buckets);
  if (!buckets) return;
  for (uint64_t i = 0; i < UINT64_C(1) << r->bits; i++) {
    for (struct record *x = r->buckets[i], *next; x; x = next) {
      struct record **to = &buckets[bucket_of(x->hash, bits)];
      next = x->next;
      x->next = *to;
      *to = x;
    }
  }
  free(r->buckets);
  r->buckets = buckets;
  r->bits = bits;
}

int records_reserve(struct records *r, uint32_t bytes) {
  check(bytes <= RECORD_BYTES_MAX);
  if (!bytes) return 0;
  struct record *x = malloc(sizeof *x + bytes);
  if (!x) return -ENOMEM;
  x->bytes = bytes;
  x->next = r->spare;
  r->spare = x;
  r->spares++;
  if (r->count + r->spares > UINT64_C(1) << r->bits) grow(r);
  return 0;
}

static struct record *take_spare(struct records *r, uint32_t bytes) {
  struct record **at = &r->spare, *x;
  while (*at && (*at)->bytes != bytes) at = &(*at)->next;
  x = *at;
  check(x != NULL); /* reservations */
  *at = x->next;
  r->spares--;
  return x;
}

void records_cancel(struct records *r, uint32_t bytes) {
  if (bytes) free(take_spare(r, bytes));
}

void records_put(struct records *r, struct blob_id key, const void *data, uint32_t bytes) {
  uint64_t hash = hash_id(key, r->key);
  struct record **at = find_link(r, hash, key), *old = *at;
  if (bytes) {
    struct record *x = take_spare(r, bytes);
    x->hash = hash;
    x->key = key;
    x->next = old ? old->next : NULL;
    memcpy(x->data, data, bytes); /* may be the old one's */
    *at = x;
  } else if (old) {
    *at = old->next;
  }
  r->count += (bytes != 0) - (uint64_t)(old != NULL);
  free(old);
}
