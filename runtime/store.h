/* store.h - a store in use: layout, plan, cores, ports, the flush coordinator. Opened and
 * closed by one thread; in between, read-only for all but the parts that say otherwise. */
#ifndef RUNTIME_STORE_H
#define RUNTIME_STORE_H

#include "runtime/survivors.h"
#include "runtime/arena.h"
#include "runtime/batch.h"
#include "runtime/core.h"
#include "runtime/damage.h"
#include "runtime/flush.h"
#include "runtime/layout.h"
#include "runtime/port.h"
#include "runtime/settings.h"
#include "runtime/topology.h"
#include "runtime/volumes.h"

#define STORE_RANGES_MAX 16 /* registered memory: the arena and 15 of the caller's */

struct store_config {
  const char *cores;
  uint32_t core_count;
  const char *engine; /* NULL: chosen */
  bool must_engine, read_only, no_background, no_pin;
  uint32_t lock_timeout_ms, queue_depth, poll_us;
  bool flush_after;       /* roots by FLUSH_METHOD_AFTER */
  char why_settings[128]; /* for statistics: where these are from */
  uint64_t arena_bytes;
  uint64_t seed;
  struct logger logger;
  enum damaged_mode damaged; /* other than refuse: read_only is set */
  struct damage_sink damage; /* called from any core's thread, one at a time */
  uint64_t scrub_bytes_per_second;
  const char *memory_dir; /* of survivors_open() */
  void *embedder;         /* the layer above's own */
  /* For a simulator and tests; NULL and false in real life. */
  const struct device_ops *engine_ops;
  struct layout *layout; /* already open; taken over on success */
  const struct clock *clock;
  uint32_t works_max, checkpoint_group_bytes,
      frame_target_bytes;                  /* of the shards; 0: their defaults */
  uint64_t live_save_ns;                   /* the same */
  struct survivors_place *survivors_place; /* of a stepped store; taken over once it starts */
  bool stepped;                            /* no threads: store_step() drives the cores */
  void (*local_finished)(struct peer *peer, struct shard_op *op); /* ops of the cores' own ports */
};

struct range {
  void *base;
  size_t bytes;
};

struct blob_direct;

struct store {
  struct store_config config;
  struct clock clock;
  struct logger logger;
  struct layout *layout;
  struct topology_plan *plan;
  const struct device_ops *engine;
  bool engine_fallback;
  char why_engine[128];
  uint32_t shard_count, core_count;
  uint64_t hash_key[2]; /* the layout's, as hash_id_mixed() wants it */
  uint32_t *core_of_shard;
  struct core *cores;
  struct arena *arena;
  struct survivors *survivors; /* may be NULL */
  struct flusher flusher;
  struct batcher batcher;
  /* Threads that poll for their answers at this moment, and how many may: who polls beside more
   * threads than there are CPUs takes from those that work. */
  _Atomic uint32_t spinners;
  uint32_t spinners_max;
  struct port *control;      /* of the thread that opens, registers, closes; under lock */
  pthread_mutex_t lock;      /* ports, ranges, control, stopping: not on the request path */
  pthread_mutex_t post_lock; /* store_post() */
  pthread_cond_t started;
  uint32_t started_count, stopped_count;
  struct port *ports[PORTS_MAX]; /* kept until close, reused */
  struct blob_direct *directs;   /* by shard; NULL: see port_direct.h */
  struct range ranges[STORE_RANGES_MAX];
  int open_status;
  struct damage_log damage;
  struct catalog catalog; /* has a lock of its own */
};

int store_open(struct store **store, const char *where, const struct store_config *config);
/* flush: false as after a crash. The result of the last flush; the store is gone. -EBUSY: ports
 * or blocks are open, nothing happened. */
int store_close(struct store *store, bool flush);
bool store_dirty(const struct store *store);
/* From a core's thread: starts the core and reports; 0 when all cores have started. */
int store_core_started(struct store *store, struct core *core);
/* From a core's thread that was told to stop: returns once all have, and nobody wakes it. */
void store_core_stopped(struct store *store);
/* Stepped stores: one step of every core. True if any had something to do. */
bool store_step(struct store *store);

/* Runs fn on a core and waits. The port is the caller's. */
typedef int store_call_fn(struct core *core, void *arg);
int store_call(struct port *port, uint32_t core, store_call_fn *fn, void *arg);
/* Any thread: sends one OP_CALL to a core, which never completes it: the call owns op from then
 * on. -EAGAIN: the mailbox is full. */
int store_post(struct store *store, uint32_t core, struct shard_op *op);
/* Registers memory with all rings. -ENOMEM: some refused; -ENOSPC: no index left; -EINVAL. */
int store_register(struct store *store, void *base, size_t bytes);
int store_unregister(struct store *store, void *base);

#endif
