/* volume.c - volumes by name, their limits, and handles of blocks: options and names in, the
 * catalog's calls. A port's own thread, not a core. Reading and writing: block.c. */
#include <string.h>

#include "api/internal.h"

_Static_assert(SR_VOLUME_BYTES_MAX == VOLUME_SIZE_MAX, "of the records");
_Static_assert(SR_VOLUME_NAME_BYTES_MAX == VOLUME_NAME_MAX, "of the records");
_Static_assert(sizeof(((struct sr_volume_info *)0)->group) == VOLUME_GROUP_MAX + 1,
               "of the records");

static int refused(const struct sr_port *p, const void *name) {
  int r = port_refused(p);
  return r ? r : name ? 0 : -EINVAL;
}

/* ---- Life -------------------------------------------------------------------------------------
 */

static int spec_of(const struct sr_volume_options *options, struct volume_spec *spec,
                   struct sr_volume_options *o) {
  int r = options_copy(o, sizeof *o, options);
  if (r) return r;
  if (!o->striped && o->stripe_bytes) return -EINVAL;
  if (o->integrity > SR_INTEGRITY_ON) return -EINVAL;
  *spec = (struct volume_spec){.size_bytes = o->size_bytes,
                               .block_bytes = o->block_bytes,
                               .on_shard = o->on_shard,
                               .shard = o->shard,
                               .no_sums = o->integrity == SR_INTEGRITY_OFF,
                               .live_sums = o->integrity == SR_INTEGRITY_ON};
  if (o->striped) spec->stripe_bytes = o->stripe_bytes ? o->stripe_bytes : 1u << 20;
  return 0;
}

int sr_volume_create(struct sr_port *p, const char *name, const struct sr_volume_options *options) {
  struct sr_volume_options o;
  struct volume_spec spec;
  int r = refused(p, name);
  if (!r) r = spec_of(options, &spec, &o);
  return r ? r : catalog_create(port_of(p), name, &spec);
}

int sr_volume_clone(struct sr_port *p, const char *snapshot, const char *name,
                    const struct sr_volume_options *options) {
  struct sr_volume_options o;
  struct volume_spec spec;
  int r = refused(p, name);
  if (!r && !snapshot) r = -EINVAL;
  if (!r) r = spec_of(options, &spec, &o);
  return r ? r : catalog_clone(port_of(p), snapshot, name, &spec);
}

int sr_volume_remove(struct sr_port *p, const char *name) {
  int r = refused(p, name);
  return r ? r : catalog_remove(port_of(p), name);
}

int sr_volume_rename(struct sr_port *p, const char *name, const char *new_name) {
  int r = refused(p, name);
  if (!r && !new_name) r = -EINVAL;
  return r ? r : catalog_rename(port_of(p), name, new_name);
}

int sr_volume_resize(struct sr_port *p, const char *name, uint64_t size_bytes, bool force) {
  int r = refused(p, name);
  return r ? r : catalog_resize(port_of(p), name, size_bytes, force);
}

int sr_volume_snapshot(struct sr_port *p, const char *name, const char *snapshot) {
  int r = refused(p, name);
  if (!r && !snapshot) r = -EINVAL;
  return r ? r : catalog_snapshot(port_of(p), name, snapshot);
}

int sr_volume_rollback(struct sr_port *p, const char *name, const char *snapshot) {
  int r = refused(p, name);
  if (!r && !snapshot) r = -EINVAL;
  return r ? r : catalog_rollback(port_of(p), name, snapshot);
}

int sr_volume_flatten(struct sr_port *p, const char *name) {
  int r = refused(p, name);
  return r ? r : catalog_flatten(port_of(p), name);
}

/* ---- Looking -----------------------------------------------------------------------------------
 */

static void info_out(const struct volume_info *in, struct sr_volume_info *out) {
  *out = (struct sr_volume_info){.id = in->id,
                                 .parent_id = in->parent_id,
                                 .size_bytes = in->size_bytes,
                                 .used_bytes = in->used_bytes,
                                 .shared_bytes = in->shared_bytes,
                                 .unsummed_bytes = in->unsummed_bytes,
                                 .block_bytes = in->block_bytes,
                                 .stripe_bytes = in->stripe_bytes,
                                 .shard = in->shard,
                                 .depth = in->depth,
                                 .children = in->children,
                                 .snapshot = in->sealed,
                                 .open_for_writing = in->open_for_writing,
                                 .openers = in->openers,
                                 .limit_waits = in->limit_waits.count,
                                 .limit_wait_ns = in->limit_waits.ns};
  memcpy(out->name, in->name, sizeof out->name);
  memcpy(out->group, in->group, sizeof out->group);
}

int sr_volume_stat(struct sr_port *p, const char *name, struct sr_volume_info *info) {
  struct volume_info in;
  int r = refused(p, name);
  if (!r && !info) r = -EINVAL;
  if (!r) r = catalog_stat(port_of(p), name, &in);
  if (!r) info_out(&in, info);
  return r;
}

static void list_out(void *arg, uint32_t i, const struct volume_info *info) {
  info_out(info, (struct sr_volume_info *)arg + i);
}

int sr_volume_list(struct sr_port *p, const char *after, struct sr_volume_info *infos,
                   uint32_t max) {
  int r = refused(p, after);
  if (!r && (!infos || !max || max > INT32_MAX)) r = -EINVAL;
  return r ? r : catalog_list(port_of(p), after, max, list_out, infos);
}

struct diff_call {
  int (*fn)(void *arg, const struct sr_volume_range *range);
  void *arg;
};

static int range_out(void *arg, const struct volume_range *in) {
  const struct diff_call *call = arg;
  const struct sr_volume_range range = {in->offset_bytes, in->bytes, in->zeros};
  return call->fn(call->arg, &range);
}

int sr_volume_diff(struct sr_port *p, const char *from, const char *to,
                   int (*fn)(void *arg, const struct sr_volume_range *range), void *arg) {
  struct diff_call call = {fn, arg};
  int r = refused(p, to);
  if (!r && !fn) r = -EINVAL;
  return r ? r : catalog_diff(port_of(p), from, to, NULL, range_out, &call);
}

int sr_volume_ranges(struct sr_port *p, const char *name, uint64_t offset, uint64_t bytes,
                     int (*fn)(void *arg, const struct sr_volume_range *range), void *arg) {
  struct diff_call call = {fn, arg};
  const struct volume_range window = {offset, bytes, false};
  int r = refused(p, name);
  if (!r && !fn) r = -EINVAL;
  return r ? r : catalog_diff(port_of(p), NULL, name, &window, range_out, &call);
}

/* ---- Limits -------------------------------------------------------------------------------------
 */

static struct bucket_params bucket_in(const struct sr_bucket *b) {
  return (struct bucket_params){b->size, b->one_time_burst, b->refill_ms};
}
static struct sr_bucket bucket_out(const struct bucket_params *b) {
  return (struct sr_bucket){b->size, b->one_time_burst, b->refill_time_ms};
}

static int limits_in(const struct sr_limits *limits, struct sr_limits *o,
                     struct limit_params *out) {
  int r = limits ? options_copy(o, sizeof *o, limits) : -EINVAL;
  if (r) return r;
  *out = (struct limit_params){bucket_in(&o->bytes), bucket_in(&o->ops)};
  return volume_limits_valid(out) ? 0 : -EINVAL;
}

int sr_volume_limit(struct sr_port *p, const char *name, const struct sr_limits *limits) {
  struct sr_limits o;
  struct limit_params params;
  int r = refused(p, name);
  if (!r) r = limits_in(limits, &o, &params);
  return r ? r : catalog_volume_limit(port_of(p), name, &params, o.group);
}

int sr_group_limit(struct sr_port *p, const char *group, const struct sr_limits *limits) {
  struct sr_limits o;
  struct limit_params params;
  int r = refused(p, group);
  if (!r) r = limits_in(limits, &o, &params);
  if (!r && o.group) r = -EINVAL;
  return r ? r : catalog_group_limit(port_of(p), group, &params);
}

int sr_store_limit(struct sr_port *p, const struct sr_limits *limits) {
  struct sr_limits o;
  struct limit_params params;
  int r = port_refused(p);
  if (!r) r = limits_in(limits, &o, &params);
  if (!r && o.group) r = -EINVAL;
  return r ? r : catalog_store_limit(port_of(p), &params);
}

/* The caller's struct may be an older header's: only what it has room for. */
int sr_volume_limits(struct sr_port *p, const char *name, struct sr_limits *limits,
                     char group[64]) {
  struct limit_params params;
  char in[VOLUME_GROUP_MAX + 1];
  int r = refused(p, name);
  if (!r && (!limits || limits->size < sizeof *limits)) r = -EINVAL;
  if (!r) r = catalog_volume_limits(port_of(p), name, &params, in);
  if (r) return r;
  limits->bytes = bucket_out(&params.bytes);
  limits->ops = bucket_out(&params.ops);
  if (group) memcpy(group, in, sizeof in);
  limits->group = group && *group ? group : NULL;
  return 0;
}

static int limits_out(struct sr_port *p, const char *group, struct sr_limits *limits) {
  struct limit_params params;
  if (!limits || limits->size < sizeof *limits) return -EINVAL;
  int r = catalog_group_limits(port_of(p), group, &params);
  if (r) return r;
  limits->bytes = bucket_out(&params.bytes);
  limits->ops = bucket_out(&params.ops);
  limits->group = NULL;
  return 0;
}

int sr_group_limits(struct sr_port *p, const char *group, struct sr_limits *limits) {
  int r = refused(p, group);
  return r ? r : limits_out(p, group, limits);
}

int sr_store_limits(struct sr_port *p, struct sr_limits *limits) {
  int r = port_refused(p);
  return r ? r : limits_out(p, NULL, limits);
}

/* ---- Handles ------------------------------------------------------------------------------------
 */

static struct block *block_of(const struct sr_block *b) { return (struct block *)b; }

int sr_volume_open(struct sr_port *p, const char *name, const struct sr_block_options *options,
                   struct sr_block **block) {
  struct sr_block_options o;
  struct block *b;
  int r = refused(p, name);
  if (!r && !block) r = -EINVAL;
  if (!r) r = options_copy(&o, sizeof o, options);
  if (!r) r = catalog_open_volume(port_of(p), name, o.read_only, o.share, &b);
  if (!r && o.direct_reads) catalog_open_direct(port_of(p), b);
  if (!r) *block = (struct sr_block *)b;
  return r;
}

int sr_block_open(struct sr_port *p, const char *file, const struct sr_block_options *options,
                  struct sr_block **block) {
  struct sr_block_options o;
  struct block *b;
  int r = refused(p, file);
  if (!r && !block) r = -EINVAL;
  if (!r) r = options_copy(&o, sizeof o, options);
  if (r) return r;
  uint32_t block_bytes = o.block_bytes ? o.block_bytes : 512;
  if (block_bytes != 512 && block_bytes != SR_BLOCK_BYTES) return -EINVAL;
  if (o.on_shard && o.shard >= port_of(p)->store->shard_count) return -EINVAL;
  r = catalog_open_file(port_of(p), file, o.read_only, block_bytes,
                        o.on_shard ? o.shard : UINT32_MAX, &b);
  if (!r) *block = (struct sr_block *)b;
  return r;
}

int sr_block_close(struct sr_port *p, struct sr_block *block) {
  int r = port_refused(p);
  if (r || !block) return r;
  return catalog_close_block(port_of(p), block_of(block));
}

uint64_t sr_block_size_bytes(const struct sr_block *b) {
  return atomic_load_explicit(&block_of(b)->size_bytes, memory_order_acquire);
}
uint32_t sr_block_block_bytes(const struct sr_block *b) { return block_of(b)->block_bytes; }
bool sr_block_read_only(const struct sr_block *b) { return block_of(b)->read_only; }
