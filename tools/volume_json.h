/* volume_json.h - a volume as JSON, the same from every tool. Any thread. */
#ifndef TOOLS_VOLUME_JSON_H
#define TOOLS_VOLUME_JSON_H

#include "api/shardring.h"
#include "api/control/json.h"

/* limits: NULL: they are left out. */
struct js *volume_json(const struct sr_volume_info *v, const struct sr_limits *limits);
/* A member of that name, if there is a limit. */
void volume_bucket_json(struct js *parent, const char *key, const struct sr_bucket *b);

#endif
