/* hurry.c - see hurry.h. */
#include "api/vhost/hurry.h"

#include "runtime/block.h"
#include "runtime/port.h"
#include "shards/gate.h"

static void tell_next(struct hurry *h) {
  const struct block_part *p = &h->block->parts[h->part];
  h->op = (struct shard_op){.kind = OP_HURRY,
                            .offset = h->state == HURRY_BEGINS,
                            .bytes = GATE_HURRY_SOME,
                            .owner = &h->peer,
                            .hash = p->hash,
                            .core = (uint8_t)p->core};
  *volume_args(&h->op) = (struct volume_args){.volume = p->volume};
  core_enter(h->peer.local, &h->op);
}

/* peer.finished */
static void told(struct peer *peer, struct shard_op *op) {
  struct hurry *h = container_of(peer, struct hurry, peer);
  (void)op;
  if (++h->part < h->block->part_count) {
    tell_next(h);
    return;
  }
  h->state = h->state == HURRY_BEGINS ? HURRY_ON : HURRY_OFF;
  h->changed(h);
}

void hurry_begin(struct hurry *h, struct core *core, struct block *block,
                 void (*changed)(struct hurry *h)) {
  check(h->state == HURRY_OFF);
  h->peer = core->self;
  h->peer.finished = told;
  h->block = block;
  h->changed = changed;
  h->part = 0;
  h->state = HURRY_BEGINS;
  tell_next(h);
}

bool hurry_end(struct hurry *h) {
  if (h->state == HURRY_ON) {
    h->part = 0;
    h->state = HURRY_ENDS;
    tell_next(h);
  }
  return h->state == HURRY_OFF;
}

void hurry_block(struct port *port, const struct block *b, bool begin) {
  for (uint32_t i = 0; i < b->part_count; i++) {
    const struct block_part *p = &b->parts[i];
    struct shard_op op = {
        .kind = OP_HURRY, .offset = begin, .bytes = GATE_HURRY_ALL, .hash = p->hash};
    *volume_args(&op) = (struct volume_args){.volume = p->volume};
    port_run(port, p->core, &op);
  }
}
