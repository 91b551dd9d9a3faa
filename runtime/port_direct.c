/* port_direct.c - see port_direct.h. */
#include "runtime/port_direct.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "runtime/store.h"
#include "shards/blob_direct.h"

_Static_assert(PORTS_MAX <= INDEX_READERS_MAX, "a port's number is its number as a reader");

struct port_direct {
  struct blob_reader reader;
  struct port_direct_stats by_core[]; /* written by the port's thread alone */
};

/* ---- Life ------------------------------------------------------------------------------------ */

/* Only engines that do I/O on the files themselves; and a simulator decides what happens when. */
static bool possible(const struct store *store) {
  return !store->config.stepped &&
         (store->engine == &device_uring || store->engine == &device_pool);
}

int store_direct_start(struct store *store) {
  if (!possible(store)) return 0;
  store->directs = calloc(store->shard_count, sizeof *store->directs);
  if (!store->directs) return -ENOMEM;
  for (uint32_t s = 0; s < store->shard_count; s++) {
    const struct core *core = &store->cores[store->core_of_shard[s]];
    if (!blob_direct_of(core->shards[s].shard, &store->directs[s])) store->directs[s].index = NULL;
  }
  return 0;
}

void store_direct_finish(struct store *store) {
  free(store->directs);
  store->directs = NULL;
}

int port_direct_create(struct port_direct **out, const struct store *store, uint32_t number) {
  *out = NULL;
  if (!store->directs) return 0;
  struct port_direct *d = calloc(1, sizeof *d + store->core_count * sizeof d->by_core[0]);
  if (!d) return -ENOMEM;
  /* Takes no memory before it is used. */
  void *bounce = mmap(NULL, BLOB_DIRECT_BOUNCE, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (bounce == MAP_FAILED) {
    free(d);
    return -ENOMEM;
  }
  d->reader = (struct blob_reader){.number = number, .bounce = bounce};
  *out = d;
  return 0;
}

void port_direct_destroy(struct port_direct *d) {
  if (!d) return;
  munmap(d->reader.bounce, BLOB_DIRECT_BOUNCE);
  free(d);
}

/* ---- Reads ----------------------------------------------------------------------------------- */

static void count(uint64_t *counter, uint64_t more) {
  __atomic_store_n(counter, *counter + more, __ATOMIC_RELAXED);
}

static const struct blob_direct *shard_of(const struct port *port, const struct shard_op *op,
                                          uint32_t *core) {
  const struct store *store = port->store;
  if (!port->direct) return NULL;
  uint32_t shard = shard_of_hash(op->hash, store->shard_count);
  *core = store->core_of_shard[shard];
  return store->directs[shard].index ? &store->directs[shard] : NULL;
}

int64_t port_direct_get(struct port *port, const struct shard_op *op) {
  uint32_t core;
  const struct blob_direct *d = shard_of(port, op, &core);
  if (!d) return -EAGAIN;
  int64_t n =
      blob_direct_read(d, &port->direct->reader, op->hash, op->id, op->buf, op->offset, op->bytes);
  if (n == -EAGAIN) return n;
  count(&port->direct->by_core[core].gets, 1);
  if (n > 0) count(&port->direct->by_core[core].read_bytes, (uint64_t)n);
  return n;
}

int port_direct_stat(struct port *port, const struct shard_op *op, uint64_t *size) {
  uint32_t core;
  const struct blob_direct *d = shard_of(port, op, &core);
  if (!d) return -EAGAIN;
  int64_t n = blob_direct_stat(d, &port->direct->reader, op->hash, op->id);
  if (n == -EAGAIN) return (int)n;
  count(&port->direct->by_core[core].stats, 1);
  if (n < 0) return (int)n;
  *size = (uint64_t)n;
  return 0;
}

static uint64_t counted(const uint64_t *counter) {
  return __atomic_load_n(counter, __ATOMIC_RELAXED);
}

void store_direct_stats(struct store *store, uint32_t core, struct port_direct_stats *stats) {
  *stats = (struct port_direct_stats){0};
  pthread_mutex_lock(&store->lock);
  for (uint32_t i = 0; i < PORTS_MAX; i++) {
    if (!store->ports[i] || !store->ports[i]->direct) continue;
    const struct port_direct_stats *of = &store->ports[i]->direct->by_core[core];
    stats->gets += counted(&of->gets);
    stats->stats += counted(&of->stats);
    stats->read_bytes += counted(&of->read_bytes);
  }
  pthread_mutex_unlock(&store->lock);
}
