/* host_volumes.c - requests about volumes and the store, whoever has them as a disk. Any worker's
 * thread. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/host.h"
#include "tools/volume_json.h"

enum { LIST_ENTRIES = 64 };

int host_durable(struct sr_port *port, const struct host_command *c) {
  return c->durable ? sr_flush(port) : 0;
}

int host_volume_json(struct sr_port *port, const char *name, struct js *reply) {
  struct sr_volume_info v;
  struct sr_limits limits = SR_LIMITS_INIT;
  char group[64];
  int r = sr_volume_stat(port, name, &v);
  if (r == 0) r = sr_volume_limits(port, name, &limits, group);
  if (r == 0) js_add(reply, "volume", volume_json(&v, &limits));
  return r;
}

int host_remove(struct host *h, struct sr_port *port, const struct host_command *c,
                struct js *reply, char why[HOST_WHY_BYTES]) {
  (void)h, (void)reply, (void)why;
  int r = sr_volume_remove(port, c->volume);
  return r < 0 ? r : host_durable(port, c);
}

int host_volumes(struct host *h, struct sr_port *port, const struct host_command *c,
                 struct js *reply, char why[HOST_WHY_BYTES]) {
  (void)h, (void)why;
  struct sr_volume_info *infos = malloc(LIST_ENTRIES * sizeof(*infos));
  struct js *list = js_add(reply, "volumes", js_array());
  char last[256];
  uint64_t left = c->max;
  int n = infos ? 1 : -ENOMEM;
  snprintf(last, sizeof(last), "%s", c->after);
  while (n > 0 && left > 0) {
    n = sr_volume_list(port, last, infos, left < LIST_ENTRIES ? (uint32_t)left : LIST_ENTRIES);
    for (int i = 0; i < n; i++) js_add(list, NULL, volume_json(infos + i, NULL));
    if (n <= 0) break;
    left -= (uint64_t)n;
    snprintf(last, sizeof(last), "%s", infos[n - 1].name);
  }
  /* One look ahead says whether there are more. */
  if (n > 0) n = sr_volume_list(port, last, infos, 1);
  free(infos);
  js_bool(reply, "more", n > 0);
  return n < 0 ? n : 0;
}

/* ---- Limits ---------------------------------------------------------------------------------- */

/* The limits as they are; with `unlimited` none. */
static int present_limits(struct sr_port *port, const struct host_command *c, struct sr_limits *l,
                          char group[64]) {
  *l = (struct sr_limits)SR_LIMITS_INIT;
  int r = *c->volume  ? sr_volume_limits(port, c->volume, l, group)
          : *c->group ? sr_group_limits(port, c->group, l)
                      : sr_store_limits(port, l);
  if (r == -ENOENT && !*c->volume) r = 0; /* the group's first limits */
  if (c->unlimited) l->bytes = l->ops = (struct sr_bucket){0};
  if (*c->volume) l->group = c->no_group ? NULL : *c->group ? c->group : *group ? group : NULL;
  return r;
}

int host_limit(struct host *h, struct sr_port *port, const struct host_command *c, struct js *reply,
               char why[HOST_WHY_BYTES]) {
  (void)h, (void)why;
  struct sr_limits l;
  char group[64] = "";
  int r = present_limits(port, c, &l, group);
  if (r < 0) return r;
  if (c->given & HOST_M_BYTES) l.bytes = c->bytes;
  if (c->given & HOST_M_OPS) l.ops = c->ops;
  r = *c->volume  ? sr_volume_limit(port, c->volume, &l)
      : *c->group ? sr_group_limit(port, c->group, &l)
                  : sr_store_limit(port, &l);
  if (r == 0) r = host_durable(port, c);
  if (r < 0) return r;
  if (*c->volume) return host_volume_json(port, c->volume, reply);
  volume_bucket_json(reply, "limit_bytes", &l.bytes);
  volume_bucket_json(reply, "limit_ops", &l.ops);
  return 0;
}

/* ---- The rest -------------------------------------------------------------------------------- */

int host_resize(struct host *h, struct sr_port *port, const struct host_command *c,
                struct js *reply, char why[HOST_WHY_BYTES]) {
  struct sr_volume_info v;
  (void)why;
  int r = sr_volume_resize(port, c->volume, c->size_bytes, c->force);
  /* Disks know it by its name, the request may have an id. */
  if (r == 0) r = sr_volume_stat(port, c->volume, &v);
  if (r < 0) return r;
  host_tell_resized(h, v.name);
  r = host_durable(port, c);
  return r < 0 ? r : host_volume_json(port, c->volume, reply);
}

int host_snapshot(struct host *h, struct sr_port *port, const struct host_command *c,
                  struct js *reply, char why[HOST_WHY_BYTES]) {
  (void)h, (void)why;
  int r = sr_volume_snapshot(port, c->volume, c->snapshot);
  if (r == 0) r = host_durable(port, c);
  return r < 0 ? r : host_volume_json(port, c->snapshot, reply);
}

int host_flush(struct host *h, struct sr_port *port, const struct host_command *c, struct js *reply,
               char why[HOST_WHY_BYTES]) {
  (void)h, (void)c, (void)reply, (void)why;
  return sr_flush(port);
}

struct ranges {
  struct js *list;
  uint64_t left, end;
};

static int add_range(void *arg, const struct sr_volume_range *range) {
  struct ranges *x = arg;
  if (range->zeros) return 0;
  if (x->left == 0) {
    x->end = range->offset_bytes;
    return 1;
  }
  struct js *pair = js_add(x->list, NULL, js_array());
  js_count(pair, NULL, range->offset_bytes);
  js_count(pair, NULL, range->bytes);
  x->left--;
  return 0;
}

int host_ranges(struct host *h, struct sr_port *port, const struct host_command *c,
                struct js *reply, char why[HOST_WHY_BYTES]) {
  (void)h, (void)why;
  struct ranges x = {js_add(reply, "ranges", js_array()), c->max, c->offset + c->length};
  int r = sr_volume_ranges(port, c->volume, c->offset, c->length, add_range, &x);
  js_count(reply, "end", x.end);
  return r < 0 ? r : 0;
}

int host_store(struct host *h, struct sr_port *port, const struct host_command *c, struct js *reply,
               char why[HOST_WHY_BYTES]) {
  struct sr_store_stats stats;
  struct sr_space space;
  (void)c, (void)why;
  int r = sr_store_stats(port, &stats);
  if (r == 0) r = sr_space(port, &space);
  if (r < 0) return r;
  js_text(reply, "store", h->where);
  js_text(reply, "uuid", stats.uuid);
  js_count(reply, "shards", stats.shards);
  js_count(reply, "cores", stats.cores);
  js_count(reply, "total_bytes", space.total_bytes);
  js_count(reply, "free_bytes", space.free_bytes);
  js_count(reply, "pending_bytes", space.pending_bytes);
  js_count(reply, "volume_bytes", space.volume_bytes);
  js_count(reply, "live_bytes", space.live_bytes);
  js_count(reply, "damaged_blobs", stats.damaged_blobs);
  js_count(reply, "damaged_metadata", stats.damaged_metadata);
  return 0;
}
