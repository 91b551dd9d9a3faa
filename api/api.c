/* api.c - stores: options, open, close, format, memory, ids. Any thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "api/internal.h"

const char *sr_version(void) { return SHARDRING_VERSION; }

/* ---- Ids ---------------------------------------------------------------------------------- */

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

int sr_id_parse(const char *text, struct sr_id *id) {
  if (!text || !id) return -EINVAL;
  if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X')) text += 2;
  struct sr_id v = {0, 0};
  size_t n = 0;
  for (; text[n]; n++) {
    int d = hex_digit(text[n]);
    if (d < 0 || n == 32) return -EINVAL;
    v.hi = v.hi << 4 | v.lo >> 60;
    v.lo = v.lo << 4 | (uint64_t)d;
  }
  if (n == 0) return -EINVAL;
  *id = v;
  return 0;
}

void sr_id_format(struct sr_id id, char text[33]) {
  snprintf(text, 33, "%016llx%016llx", (unsigned long long)id.hi, (unsigned long long)id.lo);
}

/* ---- Options -------------------------------------------------------------------------------- */

int options_copy(void *to, size_t to_bytes, const void *from) {
  memset(to, 0, to_bytes);
  if (!from) return 0;
  size_t bytes;
  memcpy(&bytes, from, sizeof bytes);
  if (bytes < sizeof bytes || bytes > 4096) return -EINVAL;
  for (size_t i = to_bytes; i < bytes; i++)
    if (((const char *)from)[i]) return -E2BIG;
  memcpy(to, from, bytes < to_bytes ? bytes : to_bytes);
  return 0;
}

static void log_to_stderr(void *arg, int level, const char *text) {
  static const char *const names[] = {"error", "warning", "info"};
  (void)arg;
  if (level <= SR_LOG_WARNING) fprintf(stderr, "shardring: %s: %s\n", names[level], text);
}

/* ---- Damage --------------------------------------------------------------------------------- */

static const char *damage_remedy(const struct damage *d) {
  switch (d->kind) {
  case DAMAGE_PART:
    return "put the right file or device in its place; else copy what is left with shard-ctl "
           "salvage";
  case DAMAGE_IDENTITY:
    return "copy the store (shard-ctl salvage) before the other copy fails, too";
  case DAMAGE_ROOT:
    if (d->changes == DAMAGE_COUNT_UNKNOWN) return "copy what is left: shard-ctl salvage";
    return "the other copies serve; shard-ctl flush, four times, writes all of them anew";
  case DAMAGE_LOG:
  case DAMAGE_DIRECTORY:
  case DAMAGE_CHECKPOINT:
    return "copy what is intact into a new store: shard-ctl salvage";
  case DAMAGE_BLOB:
    return "put the blob again, or delete it";
  case DAMAGE_VOLUME:
    return "write it again in the volumes that lie on it, or remove them and the snapshot";
  case DAMAGE_OLD:
  case DAMAGE_OLD_VOLUME:
    return "compare it with another copy, if there is one";
  default:
    return "nothing to be done";
  }
}

/* What the caller wants to know, by its own functions: log lines take an enum where ours take an
 * int, damage a struct of its own. */
struct adapter {
  void (*log)(void *arg, enum sr_log_level level, const char *line);
  void *log_arg;
  sr_damage_fn *damage;
  void *damage_arg;
};

static void log_to_caller(void *arg, int level, const char *text) {
  const struct adapter *a = arg;
  a->log(a->log_arg, (enum sr_log_level)level, text);
}

static void damage_to_caller(void *arg, const struct damage *d) {
  const struct adapter *a = arg;
  const struct sr_damage out = {.kind = d->kind,
                                .error = d->error,
                                .shard = d->shard == DAMAGE_NO_SHARD ? -1 : (int)d->shard,
                                .where = d->backing,
                                .offset_bytes = d->block << BLOCK_SHIFT,
                                .bytes = d->blocks << BLOCK_SHIFT,
                                .lost_changes = d->changes,
                                .id = {d->id.hi, d->id.lo},
                                .what = d->what,
                                .remedy = damage_remedy(d)};
  a->damage(a->damage_arg, &out);
}

/* ---- Format and grow --------------------------------------------------------------------------
 */

static uint32_t default_shards(void) {
  struct topology_plan *plan = malloc(sizeof *plan);
  struct topology_request request = {0};
  char error[128];
  uint32_t n = 1;
  if (plan && topology_choose(&request, plan, error, sizeof error) == 0) n = plan->core_count;
  free(plan);
  return n;
}

static const struct logger stderr_logger = {log_to_stderr, NULL};

int sr_format(const char *where, const struct sr_format_options *options) {
  struct sr_format_options o;
  if (!where) return -EINVAL;
  int r = options_copy(&o, sizeof o, options);
  if (r) return r;
  if (o.shards > SR_SHARDS_MAX || o.prealloc > SR_PREALLOC_SPARSE) {
    log_line(&stderr_logger, SR_LOG_ERROR,
             "format: %u shards, preallocation %u: legal are 1 to %u and 0 to 2", o.shards,
             o.prealloc, SR_SHARDS_MAX);
    return -EINVAL;
  }
  struct layout_format f = {.size_bytes = o.size_bytes,
                            .shards = o.shards ? o.shards : default_shards(),
                            .prealloc = o.prealloc,
                            .force = o.force,
                            .log_bytes = o.log_bytes,
                            .progress = o.progress,
                            .progress_arg = o.progress_arg};
  return layout_format(where, &f, &stderr_logger);
}

int sr_grow(const char *where, uint64_t add_bytes, const char *add_device) {
  if (!where) return -EINVAL;
  return layout_grow(where, add_bytes, add_device, &stderr_logger);
}

/* ---- Open and close -------------------------------------------------------------------------- */

static uint64_t random_seed(void) {
  uint64_t seed = 0;
  while (seed == 0)
    if (getrandom(&seed, sizeof seed, 0) != sizeof seed) seed = (uint64_t)(uintptr_t)&seed;
  return seed;
}

_Static_assert((int)SR_FLUSH_AFTER == (int)FLUSH_METHOD_AFTER, "as enum flush_method");

/* What the options leave open: by the store's settings, else by default. */
static int choose_settings(struct store_config *c, const char *where,
                           const struct sr_open_options *o) {
  struct settings s;
  char note[100];
  int r = settings_read(&s, where, o->settings, note, sizeof note, &c->logger);
  if (r) return r;
  uint32_t method = o->flush_method ? o->flush_method : s.flush_method;
  if (!c->queue_depth) c->queue_depth = s.queue_depth ? s.queue_depth : 256;
  if (!c->poll_us) c->poll_us = s.poll_us ? s.poll_us : 50;
  c->flush_after = method == FLUSH_METHOD_AFTER;
  snprintf(c->why_settings, sizeof c->why_settings, "%s%s", note[0] ? "options, then " : "",
           note[0] ? note : "options and defaults: no settings were read");
  return 0;
}

int sr_store_open(const char *where, const struct sr_open_options *options, struct sr_store **out) {
  struct sr_open_options o;
  if (!where || !out) return -EINVAL;
  int r = options_copy(&o, sizeof o, options);
  if (r) return r;
  if (o.damaged > SR_DAMAGED_SEARCH || (o.damaged && !o.read_only)) return -EINVAL;
  if (o.flush_method > SR_FLUSH_AFTER) return -EINVAL;
  struct store_config config = {.cores = o.cores,
                                .core_count = o.core_count,
                                .engine = o.engine,
                                .must_engine = o.must_engine,
                                .read_only = o.read_only,
                                .no_background = o.no_background,
                                .no_pin = o.no_pin,
                                .lock_timeout_ms = o.lock_timeout_ms,
                                .queue_depth = o.queue_depth,
                                .poll_us = o.poll_us,
                                .arena_bytes = o.arena_bytes ? o.arena_bytes : 32u << 20,
                                .seed = o.seed ? o.seed : random_seed(),
                                .logger = stderr_logger,
                                .damaged = (enum damaged_mode)o.damaged,
                                .scrub_bytes_per_second = o.scrub_bytes_per_second,
                                .memory_dir = o.memory_dir,
                                .local_finished = local_finished};
  struct adapter *adapter = malloc(sizeof *adapter);
  if (!adapter) return -ENOMEM;
  *adapter = (struct adapter){o.log, o.log_arg, o.damage, o.damage_arg};
  if (o.damage) config.damage = (struct damage_sink){damage_to_caller, adapter};
  if (o.log) config.logger = (struct logger){log_to_caller, adapter};
  config.embedder = adapter;
  struct store *store;
  r = choose_settings(&config, where, &o);
  if (!r) r = store_open(&store, where, &config);
  if (r)
    free(adapter);
  else
    *out = (struct sr_store *)store;
  return r;
}

static int close_store(struct sr_store *s, bool flush) {
  if (!s) return 0;
  void *adapter = store_of(s)->config.embedder;
  int r = store_close(store_of(s), flush);
  if (r != -EBUSY) free(adapter);
  return r;
}

int sr_store_close(struct sr_store *s) { return close_store(s, true); }
void sr_store_abandon(struct sr_store *s) { close_store(s, false); }

bool sr_needs_flush(struct sr_store *s) { return s && store_dirty(store_of(s)); }
uint32_t sr_shard_count(const struct sr_store *s) { return store_of(s)->shard_count; }
uint32_t sr_core_count(const struct sr_store *s) { return store_of(s)->core_count; }
uint32_t sr_shard_of(const struct sr_store *s, struct sr_id id) {
  return shard_of_hash(hash_of(store_of(s), id), store_of(s)->shard_count);
}
uint32_t sr_core_of_shard(const struct sr_store *s, uint32_t shard) {
  return shard < store_of(s)->shard_count ? store_of(s)->core_of_shard[shard] : 0;
}

/* ---- Running on a core ----------------------------------------------------------------------- */

struct run {
  struct shard_op op;
  sr_run_fn *fn;
  void *arg;
};

static void run_on_core(struct core *core, struct shard_op *op) {
  struct run *run = container_of(op, struct run, op);
  run->fn((struct sr_port *)core->port, run->arg);
  free(run);
}

int sr_store_run(struct sr_store *s, uint32_t shard, sr_run_fn *fn, void *arg) {
  if (!s || !fn || shard >= store_of(s)->shard_count) return -EINVAL;
  struct run *run = malloc(sizeof *run);
  if (!run) return -ENOMEM;
  *run = (struct run){.op.kind = OP_CALL, .fn = fn, .arg = arg};
  core_call_fn *call = run_on_core;
  memcpy(&run->op.work, &call, sizeof call);
  int r = store_post(store_of(s), store_of(s)->core_of_shard[shard], &run->op);
  if (r) free(run);
  return r;
}

/* ---- Memory ---------------------------------------------------------------------------------- */

void *sr_buffer_alloc(struct sr_store *s, size_t bytes, bool zeroed) {
  return s && bytes ? arena_alloc(store_of(s)->arena, bytes, zeroed) : NULL;
}
void sr_buffer_free(struct sr_store *s, void *buffer) {
  if (s && buffer) arena_free(store_of(s)->arena, buffer);
}
int sr_memory_register(struct sr_store *s, void *base, size_t bytes) {
  return s ? store_register(store_of(s), base, bytes) : -EINVAL;
}
int sr_memory_unregister(struct sr_store *s, void *base) {
  return s ? store_unregister(store_of(s), base) : -EINVAL;
}
