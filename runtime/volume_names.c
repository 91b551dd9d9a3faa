/* volume_names.c - names that were given up not long ago. Under the catalog's lock.
 *
 * A name that a volume in one shard has given up may be taken by one in another shard at once. If
 * a crash took back the first and not the second, two records would have it. So until the root
 * that covers the first is durable, who takes the name needs that shard as well (struct change). */
#include "runtime/volumes_internal.h"
#include "shards/base/plant.h"

static uint64_t hash_of(const char *name) {
  uint64_t h = UINT64_C(0xcbf29ce484222325);
  for (; *name; name++) h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
  return h;
}

void names_give_up(struct catalog *c, const char *name, uint32_t shard) {
  struct freed_name *f = &c->freed[c->freed_next++ % FREED_NAMES];
  if (!epoch_durable(c->store, f->epoch)) c->freed_lost = f->epoch;
  *f = (struct freed_name){hash_of(name), epoch_now(c->store), shard};
}

void change_name(struct change *ch, const char *name) {
  const struct store *s = ch->port->store;
  const struct catalog *c = &s->catalog;
  uint64_t hash = hash_of(name);
  if (s->shard_count == 1 || PLANTED(names_alone)) return;
  if (!epoch_durable(s, c->freed_lost)) ch->with = ALL_SHARDS; /* it may be any of them */
  for (uint32_t i = 0; i < FREED_NAMES; i++) {
    const struct freed_name *f = &c->freed[i];
    if (f->hash != hash || epoch_durable(s, f->epoch) || f->shard == ch->home) continue;
    ch->with = ch->with == NO_SHARD || ch->with == f->shard ? f->shard : ALL_SHARDS;
  }
}
