/* store.c - opening and closing a store: layout, plan, engine, cores, first root. */
#include "runtime/store.h"
#include "runtime/port_direct.h"

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shards/base/plant.h"

/* ---- Choosing -------------------------------------------------------------------------------- */

static int choose_engine(struct store *store) {
  const struct store_config *c = &store->config;
  const char *name = c->engine;
  char *why = store->why_engine;
  if (c->engine_ops) {
    store->engine = c->engine_ops;
    snprintf(why, sizeof store->why_engine, "given by the embedder");
    return 0;
  }
  if (store->layout->memory && (!name || strcmp(name, "null") != 0)) {
    store->engine = &device_mem;
    snprintf(why, sizeof store->why_engine, "the store lies in memory");
    return 0;
  }
  if (!name || strcmp(name, "uring") == 0) {
    store->engine = device_choose(why, sizeof store->why_engine);
    store->engine_fallback = store->engine != &device_uring;
    if (store->engine_fallback && c->must_engine) {
      log_line(&store->logger, 0, "engine uring was demanded: %s", why);
      return -EOPNOTSUPP;
    }
    if (store->engine_fallback) log_line(&store->logger, 1, "%s", why);
    return 0;
  }
  store->engine = device_by_name(name);
  if (!store->engine || store->engine == &device_mem) {
    log_line(&store->logger, 0, "engine \"%s\": known are uring, pool and null", name);
    return -EINVAL;
  }
  snprintf(why, sizeof store->why_engine, "asked for");
  return 0;
}

/* Without threads the machine's CPUs do not matter: the same plan everywhere. */
static void plan_stepped(struct topology_plan *plan, uint32_t core_count, uint32_t shard_count) {
  plan->core_count = core_count ? core_count : 1;
  for (uint32_t i = 0; i < plan->core_count; i++) {
    plan->cores[i].numa_node = -1;
    snprintf(plan->cores[i].why, sizeof plan->cores[i].why, "stepped, on no CPU");
  }
  for (uint32_t s = 0; s < shard_count; s++) plan->core_of_shard[s] = s % plan->core_count;
  snprintf(plan->why, sizeof plan->why, "stepped: as many as asked for");
}

static int choose_cores(struct store *store) {
  struct layout *l = store->layout;
  int *nodes = calloc(l->shard_count, sizeof *nodes);
  store->plan = calloc(1, sizeof *store->plan);
  if (!nodes || !store->plan) {
    free(nodes);
    return -ENOMEM;
  }
  for (uint32_t s = 0; s < l->shard_count; s++)
    nodes[s] = l->regions[s].segments[0].backing->numa_node;
  struct topology_request request = {.cores = store->config.cores,
                                     .core_count = store->config.core_count,
                                     .shard_count = l->shard_count,
                                     .shard_numa_nodes = nodes};
  char error[256] = "";
  int r = 0;
  if (store->config.stepped)
    plan_stepped(store->plan, request.core_count, l->shard_count);
  else
    r = topology_choose(&request, store->plan, error, sizeof error);
  if (r) log_line(&store->logger, 0, "cores: %s", error);
  free(nodes);
  store->core_count = store->plan->core_count;
  cpu_set_t cpus;
  uint32_t cpu_count =
      sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? (uint32_t)CPU_COUNT(&cpus) : 1;
  store->spinners_max = cpu_count > store->core_count ? cpu_count - store->core_count : 1;
  store->core_of_shard = store->plan->core_of_shard;
  return r;
}

static int check_config(const struct store_config *c, const struct logger *logger) {
  if (c->queue_depth < 1 || c->queue_depth > 4096) {
    log_line(logger, 0, "queue depth %u: legal are 1 to 4096", c->queue_depth);
    return -EINVAL;
  }
  if (c->core_count > CORES_MAX) {
    log_line(logger, 0, "%u cores: at most %u", c->core_count, CORES_MAX);
    return -EINVAL;
  }
  if (c->poll_us > 1000000) {
    log_line(logger, 0, "polling for %u us: at most 1000000", c->poll_us);
    return -EINVAL;
  }
  return 0;
}

/* ---- Starting ----------------------------------------------------------------------------------
 */

/* Each core recovers its shards on its own thread; none runs before all have. */
int store_core_started(struct store *store, struct core *core) {
  if (!store->config.no_pin && !store->config.stepped) {
    int r = topology_pin_self(core->cpu);
    if (r)
      log_line(&store->logger, 1, "core %u: not pinned to CPU %u: %s", core->index, core->cpu,
               strerror(-r));
  }
  int status = core_start(core);
  pthread_mutex_lock(&store->lock);
  core->status = status;
  store->started_count++;
  if (status && !store->open_status) store->open_status = status;
  pthread_cond_broadcast(&store->started);
  while (store->started_count < store->core_count) pthread_cond_wait(&store->started, &store->lock);
  status = store->open_status;
  pthread_mutex_unlock(&store->lock);
  return status;
}

static int make_cores(struct store *store) {
  store->cores = aligned_alloc(64, round_up(store->core_count * sizeof *store->cores, 64));
  if (!store->cores) return -ENOMEM;
  memset(store->cores, 0, store->core_count * sizeof *store->cores);
  int r = 0;
  for (uint32_t i = 0; !r && i < store->core_count; i++) {
    struct core *core = &store->cores[i];
    r = core_init(core, store, i);
    core->cpu = store->plan->cores[i].cpu;
    core->numa_node = store->plan->cores[i].numa_node;
    memcpy(core->why_cpu, store->plan->cores[i].why, sizeof core->why_cpu);
    if (!r) r = port_open_local(&core->port, core, store->config.local_finished);
  }
  return r;
}

static void join_cores(struct store *store) {
  for (uint32_t i = 0; i < store->core_count; i++)
    if (store->cores[i].thread_started) pthread_join(store->cores[i].thread, NULL);
}

static int start_stepped(struct store *store) {
  int r = 0;
  for (uint32_t i = 0; !r && i < store->core_count; i++) r = core_start(&store->cores[i]);
  return r;
}

static int start_threads(struct store *store) {
  int r = 0;
  for (uint32_t i = 0; i < store->core_count; i++) {
    struct core *core = &store->cores[i];
    r = r ? r : -pthread_create(&core->thread, NULL, core_thread, core);
    core->thread_started = r == 0;
    if (core->thread_started) continue;
    log_line(&store->logger, 0, "core %u: no thread: %s", i, strerror(-r));
    pthread_mutex_lock(&store->lock); /* those that run must not wait for this one */
    store->open_status = r;
    store->started_count++;
    pthread_cond_broadcast(&store->started);
    pthread_mutex_unlock(&store->lock);
  }
  arena_populate(store->arena); /* while the cores recover */
  pthread_mutex_lock(&store->lock);
  while (store->started_count < store->core_count) pthread_cond_wait(&store->started, &store->lock);
  r = store->open_status;
  pthread_mutex_unlock(&store->lock);
  return r;
}

static int run_flush(struct store *store) {
  struct shard_op op = {.kind = OP_FLUSH, .flags = OP_ROOT};
  int r = port_run(store->control, 0, &op);
  return r ? r : (int)op.result;
}

static void destroy(struct store *store) {
  if (store->cores) {
    flusher_finish(&store->flusher);
    batcher_finish(&store->batcher);
    for (uint32_t i = 0; i < PORTS_MAX; i++) port_free(store->ports[i]);
    for (uint32_t i = 0; i < store->core_count; i++) {
      port_free(store->cores[i].port);
      core_finish(&store->cores[i]);
    }
  }
  free(store->cores);
  store_direct_finish(store);
  if (store->arena) arena_destroy(store->arena);
  survivors_close(store->survivors);
  catalog_finish(&store->catalog);
  layout_close(store->layout);
  free(store->plan);
  pthread_mutex_destroy(&store->lock);
  pthread_mutex_destroy(&store->post_lock);
  damage_log_finish(&store->damage);
  pthread_cond_destroy(&store->started);
  free(store);
}

static int still_flushing(struct core *core, void *arg) {
  (void)arg;
  return core->flush_requested;
}

static void quiesce(struct store *store) {
  for (uint32_t i = 0; i < store->core_count; i++)
    atomic_store_explicit(&store->cores[i].quiet, true, memory_order_release);
  for (uint32_t i = 0; i < store->core_count; i++)
    while (store_call(store->control, i, still_flushing, NULL) > 0) {
    }
}

bool store_step(struct store *store) {
  bool worked = false;
  for (uint32_t i = 0; i < store->core_count; i++) worked |= core_step(&store->cores[i]);
  return worked;
}

/* All at once: a core that works on is stepped, and steps need every core. */
static void stop_stepped(struct store *store) {
  bool idle = false;
  while (!idle) {
    store_step(store);
    idle = true;
    for (uint32_t i = 0; i < store->core_count; i++) idle &= core_idle(&store->cores[i]);
  }
  for (uint32_t i = 0; i < store->core_count; i++) core_stop(&store->cores[i]);
}

static void stop_cores(struct store *store) {
  if (store->config.stepped) {
    stop_stepped(store);
    return;
  }
  /* A core may see the flag before its wake: under the lock no engine goes away. */
  pthread_mutex_lock(&store->lock);
  for (uint32_t i = 0; i < store->core_count; i++) {
    atomic_store_explicit(&store->cores[i].stop, true, memory_order_release);
    store->cores[i].device->ops->wake(store->cores[i].device);
  }
  pthread_mutex_unlock(&store->lock);
  join_cores(store);
}

/* Another core may still be about to wake this one for what it has long found by itself. */
void store_core_stopped(struct store *store) {
  pthread_mutex_lock(&store->lock);
  store->stopped_count++;
  pthread_cond_broadcast(&store->started);
  while (store->stopped_count < store->core_count) pthread_cond_wait(&store->started, &store->lock);
  pthread_mutex_unlock(&store->lock);
}

static struct survivors *open_survivors(struct store *store, const char *where) {
  const struct store_config *c = &store->config;
  struct survivors_place *place = c->survivors_place;
  if (!c->stepped && !store->layout->backings[0]->memory)
    place = survivors_file_open(c->memory_dir, store->layout, &store->logger);
  struct survivors *s = survivors_open(place, store->layout, &store->logger);
  if (where) survivors_note_where(s, where);
  return s;
}

/* The root that recovery goes on from may be one that a killed process had under way, in the
 * device's cache alone: nothing is written before it cannot get lost any more. Or its flush had
 * failed, after which no flush says anything about it: so it is written again. */
static int flush_root(struct store *store) {
  struct layout *l = store->layout;
  struct backing *b = l->backings[0];
  size_t bytes = l->root_slot_blocks << BLOCK_SHIFT;
  uint64_t slot = l->root_block + root_slot_of_epoch(l->root->epoch) * l->root_slot_blocks;
  void *buf = PLANTED(trust_the_root) ? NULL : aligned_alloc(BLOCK_BYTES, bytes);
  if (!buf) return PLANTED(trust_the_root) ? 0 : -ENOMEM;
  memset(buf, 0, bytes);
  root_encode(l->root, l->uuid, buf);
  int r = b->ops->write(b, buf, bytes, slot << BLOCK_SHIFT);
  if (!r) r = b->ops->flush(b);
  if (r) log_line(&store->logger, 0, "%s: its root cannot be kept: %s", b->name, strerror(-r));
  free(buf);
  return r;
}

static int start(struct store *store, const char *where) {
  struct store_config *c = &store->config;
  int r = check_config(c, &store->logger);
  if (!r && !store->layout)
    r = c->damaged ? layout_open_damaged(&store->layout, where, c->lock_timeout_ms, c->damaged,
                                         &(struct damage_sink){damage_log_report, &store->damage},
                                         &store->logger)
                   : layout_open(&store->layout, where, c->read_only, c->lock_timeout_ms,
                                 c->core_count ? c->core_count : 1, &store->logger);
  if (!r) r = choose_engine(store);
  if (!r) r = choose_cores(store);
  if (!r) {
    store->shard_count = store->layout->shard_count;
    store->hash_key[0] = store->layout->hash_key[0];
    store->hash_key[1] = store->layout->hash_key[1] ^ HASH_MIX;
  }
  if (!r && !c->read_only) store->survivors = open_survivors(store, c->stepped ? NULL : where);
  if (!r && !c->read_only && (r = flush_root(store))) survivors_distrust(store->survivors);
  if (!r) r = arena_create(c->arena_bytes, store->plan->cores[0].numa_node, &store->arena);
  if (!r) store->ranges[0] = (struct range){arena_base(store->arena), arena_bytes(store->arena)};
  if (!r) r = make_cores(store);
  if (!r) r = flusher_init(&store->flusher, store);
  if (!r) r = batcher_init(&store->batcher, store);
  /* The first root of this open, whoever asks for it: what recovery found is now said by a root,
   * and its incarnation makes all frames behind the recovered tails foreign. */
  store->flusher.force_root = !c->read_only;
  if (!r) r = port_open(&store->control, store, 16);
  return r;
}

int store_open(struct store **out, const char *where, const struct store_config *config) {
  struct store *store = calloc(1, sizeof *store);
  if (!store) return -ENOMEM;
  store->config = *config;
  store->logger = config->logger;
  store->clock = config->clock ? *config->clock : clock_monotonic;
  store->layout = config->layout;
  catalog_init(&store->catalog, store);
  pthread_mutex_init(&store->lock, NULL);
  pthread_mutex_init(&store->post_lock, NULL);
  damage_log_init(&store->damage, &config->damage, &config->logger);
  pthread_cond_init(&store->started, NULL);
  int r = start(store, where);
  if (!r) r = config->stepped ? start_stepped(store) : start_threads(store);
  if (r && store->cores) {
    join_cores(store);
    for (uint32_t i = 0; config->stepped && i < store->core_count; i++) core_stop(&store->cores[i]);
  }
  if (r) {
    if (config->layout) store->layout = NULL; /* still the caller's */
    destroy(store);
    return r;
  }
  if (!config->read_only && (r = run_flush(store))) survivors_distrust(store->survivors);
  if (!r) survivors_settle(store->survivors, store->flusher.root->incarnation);
  if (r)
    log_line(&store->logger, 0, "%s: the first root cannot be written: %s", where, strerror(-r));
  else
    r = catalog_load(&store->catalog, store->control);
  if (!r) r = store_direct_start(store);
  if (r) {
    quiesce(store);
    stop_cores(store);
    if (config->layout) store->layout = NULL;
    destroy(store);
    return r;
  }
  *out = store;
  return 0;
}

/* ---- Closing ------------------------------------------------------------------------------------
 */

int store_close(struct store *store, bool flush) {
  for (uint32_t i = 0; i < PORTS_MAX; i++)
    if (store->ports[i] && store->ports[i]->open && store->ports[i] != store->control)
      return -EBUSY;
  int r = catalog_close(&store->catalog, store->control, !flush);
  if (r) return r;
  quiesce(store);
  if (flush && !store->config.read_only) r = run_flush(store);
  stop_cores(store);
  destroy(store);
  return r;
}

/* ---- In between ------------------------------------------------------------------------------ */

bool store_dirty(const struct store *store) {
  for (uint32_t i = 0; i < store->core_count; i++)
    if (atomic_load_explicit(&store->cores[i].dirty, memory_order_acquire)) return true;
  return false;
}

struct call {
  struct shard_op op;
  store_call_fn *fn;
  void *arg;
};

static void run_call(struct core *core, struct shard_op *op) {
  struct call *call = container_of(op, struct call, op);
  op->result = call->fn(core, call->arg);
  core_complete(core, op);
}

int store_call(struct port *port, uint32_t core, store_call_fn *fn, void *arg) {
  struct call call = {.op.kind = OP_CALL, .fn = fn, .arg = arg};
  core_call_fn *run = run_call;
  memcpy(&call.op.work, &run, sizeof run);
  int r = port_run(port, core, &call.op);
  return r ? r : (int)call.op.result;
}

struct registration {
  uint32_t index;
  struct range range;
};

static int register_on_core(struct core *core, void *arg) {
  const struct registration *g = arg;
  const struct device_ops *ops = core->device->ops;
  if (g->range.base)
    return ops->register_memory(core->device, g->index, g->range.base, g->range.bytes);
  ops->unregister_memory(core->device, g->index);
  return 0;
}

static int on_all_cores(struct store *store, struct registration *g) {
  int r = 0;
  for (uint32_t c = 0; c < store->core_count; c++) {
    int s = store_call(store->control, c, register_on_core, g);
    if (s && !r) r = s;
  }
  return r;
}

int store_register(struct store *store, void *base, size_t bytes) {
  if (!base || !bytes || !is_aligned((uintptr_t)base, BLOCK_BYTES) ||
      !is_aligned(bytes, BLOCK_BYTES) || bytes > UINT64_C(1) << 30)
    return -EINVAL;
  pthread_mutex_lock(&store->lock);
  uint32_t i = 1;
  while (i < STORE_RANGES_MAX && store->ranges[i].base) i++;
  int r = i == STORE_RANGES_MAX ? -ENOSPC : 0;
  struct registration g = {i, {base, bytes}};
  if (!r) {
    r = on_all_cores(store, &g);
    store->ranges[i] = g.range;
  }
  if (r && i < STORE_RANGES_MAX) { /* all or none */
    g.range.base = NULL;
    on_all_cores(store, &g);
    store->ranges[i] = (struct range){0};
  }
  pthread_mutex_unlock(&store->lock);
  return r;
}

int store_unregister(struct store *store, void *base) {
  pthread_mutex_lock(&store->lock);
  uint32_t i = 1;
  while (i < STORE_RANGES_MAX && (!base || store->ranges[i].base != base)) i++;
  int r = i == STORE_RANGES_MAX ? -ENOENT : 0;
  struct registration g = {i, {NULL, 0}};
  if (!r) r = on_all_cores(store, &g);
  if (!r) store->ranges[i] = (struct range){0};
  pthread_mutex_unlock(&store->lock);
  return r;
}

int store_post(struct store *store, uint32_t core, struct shard_op *op) {
  op->core = (uint8_t)core;
  op->owner = NULL;
  op->next = NULL;
  /* In the core's name, which it never uses towards itself; and under a lock of its own, so that a
   * core may call this while another thread, which holds the store's lock, waits for the core. */
  pthread_mutex_lock(&store->post_lock);
  bool sent = core_post(&store->cores[core], &store->cores[core].self, op);
  pthread_mutex_unlock(&store->post_lock);
  return sent ? 0 : -EAGAIN;
}
