/* internal.h - how the public types lie over the runtime's: a struct sr_store is a struct store,
 * a struct sr_port is a struct port, and the opaque part of a request is its struct shard_op. */
#ifndef API_INTERNAL_H
#define API_INTERNAL_H

#include <errno.h>

#include "api/shardring.h"
#include "runtime/store.h"

static inline struct store *store_of(const struct sr_store *s) { return (struct store *)s; }
static inline struct port *port_of(const struct sr_port *p) { return (struct port *)p; }

_Static_assert(sizeof(struct sr_request) == 256, "four cache lines");
_Static_assert(sizeof(((struct sr_request *)0)->opaque) == sizeof(struct shard_op),
               "an op fits a request");
_Static_assert((offsetof(struct sr_request, opaque) + offsetof(struct shard_op, next)) % 64 == 0,
               "what travels is one line");
static inline struct shard_op *op_of(struct sr_request *r) { return (struct shard_op *)r->opaque; }
static inline struct sr_request *request_of(struct shard_op *op) {
  return container_of(op, struct sr_request, opaque);
}

_Static_assert((int)SR_DAMAGE_NOTE == (int)DAMAGE_NOTE, "as enum damage_kind");

/* Marks a request as finished: results out of the op. */
static inline void request_finish(struct sr_request *r) {
  r->result = op_of(r)->result;
  r->size_bytes = op_of(r)->size;
}

/* Fills an OP_BATCH from its parts. -EINVAL: see shardring.h. */
int batch_fill(const struct store *s, struct sr_request *const parts[], uint64_t count,
               uint32_t flags, struct shard_op *op);

/* Fills the op of an SR_OP_READ to SR_OP_SYNC, and says which core it is for. -EINVAL. */
int block_fill(const struct sr_request *r, struct shard_op *op, uint32_t *core);

static inline uint64_t hash_of(const struct store *s, struct sr_id id) {
  return hash_id_mixed((struct blob_id){id.hi, id.lo}, s->hash_key);
}
static inline uint32_t core_of_hash(const struct store *s, uint64_t hash) {
  return s->core_of_shard[shard_of_hash(hash, s->shard_count)];
}

/* Copies a caller's options, of whatever age, over zeros. A shorter struct is an older
 * header's; of a longer one the tail that we do not know must be zero (-E2BIG). */
int options_copy(void *to, size_t to_bytes, const void *from);

/* Why a blocking call on a port cannot be; 0: it can. */
static inline int port_refused(const struct sr_port *p) {
  if (!p) return -EINVAL;
  if (port_of(p)->peer.local) return -EDEADLK;
  return port_of(p)->open ? 0 : -ESHUTDOWN;
}

/* Runs one op and waits; its result, or why it was not run. Not on a core's own port. */
int64_t run_op(struct sr_port *port, struct shard_op *op);
/* ... on every shard in turn, until one fails. */
int64_t run_on_shards(struct sr_port *port, struct shard_op *op);

/* peer.finished of the cores' own ports. */
void local_finished(struct peer *peer, struct shard_op *op);

#endif
