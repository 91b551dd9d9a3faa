/* volume_json.c - see volume_json.h. */
#include "tools/volume_json.h"

void volume_bucket_json(struct js *parent, const char *key, const struct sr_bucket *b) {
  if (!b->size) return;
  struct js *bucket = js_add(parent, key, js_object());
  js_count(bucket, "size", b->size);
  js_count(bucket, "one_time_burst", b->one_time_burst);
  js_count(bucket, "refill_ms", b->refill_ms);
}

struct js *volume_json(const struct sr_volume_info *v, const struct sr_limits *limits) {
  struct js *json = js_object();
  js_text(json, "name", v->name);
  js_count(json, "id", v->id);
  js_text(json, "kind", v->snapshot ? "snapshot" : v->parent_id ? "clone" : "volume");
  js_count(json, "size_bytes", v->size_bytes);
  js_count(json, "used_bytes", v->used_bytes);
  js_count(json, "shared_bytes", v->shared_bytes);
  js_count(json, "unsummed_bytes", v->unsummed_bytes);
  js_count(json, "block_bytes", v->block_bytes);
  js_bool(json, "striped", v->stripe_bytes != 0);
  if (v->stripe_bytes) js_count(json, "stripe_bytes", v->stripe_bytes);
  js_count(json, "shard", v->shard);
  js_count(json, "parent_id", v->parent_id);
  js_count(json, "depth", v->depth);
  js_count(json, "children", v->children);
  if (v->openers) js_count(json, "limit_waits", v->limit_waits);
  if (v->openers) js_count(json, "limit_wait_ns", v->limit_wait_ns);
  if (*v->group) js_text(json, "group", v->group);
  if (!limits) return json;
  volume_bucket_json(json, "limit_bytes", &limits->bytes);
  volume_bucket_json(json, "limit_ops", &limits->ops);
  return json;
}
