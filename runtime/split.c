/* split.c - see split.h. */
#include "runtime/split.h"

#include <errno.h>
#include <stdlib.h>

#include "runtime/store.h"

#define PIECES_MAX 256u /* of a core */
#define WINDOW     64u  /* of a request */

struct split_piece {
  struct shard_op op;
  struct shard_op *parent;
  struct split_piece *next;
};
struct split { /* in op->io of the request */
  uint64_t at; /* bytes of the disk, or of OP_SYNC and ranges without data: the next part */
  uint32_t pending;
  int32_t error;
};
_Static_assert(sizeof(struct split) <= sizeof(struct io), "lies in op->io");

static struct split *split_of(struct shard_op *op) { return (struct split *)&op->io; }
static struct split_args *args_of(struct shard_op *op) { return (struct split_args *)&op->id; }

/* ---- Cutting --------------------------------------------------------------------------------- */

/* A request that moves no data is one range in each part: units that follow each other there. */
static bool by_parts(const struct shard_op *op) {
  return op->state == OP_SYNC || op->state == OP_DISCARD || op->state == OP_WRITE_ZEROES;
}

static bool is_cut(struct shard_op *op) {
  const struct split *x = split_of(op);
  return by_parts(op) ? x->at == args_of(op)->block->part_count : x->at == op->offset + op->bytes;
}

/* [offset, end) of the disk is [.., ..) of a part. */
static void fill_range(const struct block *b, struct shard_op *op, uint32_t part,
                       const struct shard_op *parent) {
  if (parent->state == OP_SYNC) return;
  op->offset = block_part_bytes(b, parent->offset, part);
  op->bytes = block_part_bytes(b, parent->offset + parent->bytes, part) - op->offset;
}

static void fill_unit(struct split_piece *p, struct shard_op *parent, uint32_t *part) {
  struct split *x = split_of(parent);
  const struct split_args *a = args_of(parent);
  uint64_t row, in, done = x->at - parent->offset;
  *part = block_route(a->block, x->at, &in, &row);
  p->op.offset = in;
  p->op.bytes = min_u64(row, parent->bytes - done);
  struct volume_args *va = volume_args(&p->op);
  va->iov_count = a->iov_count;
  va->iov_skip = a->iov_count ? (uint32_t)done : 0;
  p->op.buf = a->iov_count || !parent->buf ? parent->buf : (char *)parent->buf + done;
  x->at += p->op.bytes;
}

static void send(struct splitter *sp, struct split_piece *p, struct shard_op *parent) {
  const struct block *b = args_of(parent)->block;
  struct split *x = split_of(parent);
  uint32_t part;
  p->parent = parent;
  p->op = (struct shard_op){.kind = parent->state, .flags = parent->flags, .owner = &sp->peer};
  if (by_parts(parent)) {
    part = (uint32_t)x->at++;
    fill_range(b, &p->op, part, parent);
  } else {
    fill_unit(p, parent, &part);
  }
  volume_args(&p->op)->volume = b->parts[part].volume;
  p->op.hash = b->parts[part].hash;
  p->op.core = (uint8_t)b->parts[part].core;
  x->pending++;
  core_enter(sp->peer.local, &p->op);
}

/* Sends what can be sent of the requests in their order. */
static void pump(struct splitter *sp) {
  while (sp->waiting.head && sp->unused) {
    struct shard_op *op = sp->waiting.head;
    while (sp->unused && !is_cut(op) && split_of(op)->pending < WINDOW) {
      struct split_piece *p = sp->unused;
      sp->unused = p->next;
      send(sp, p, op);
    }
    if (!is_cut(op)) return;
    sp->waiting.head = op->next;
    if (!op->next) sp->waiting.tail = NULL;
  }
}

static void piece_finished(struct peer *peer, struct shard_op *op) {
  struct splitter *sp = container_of(peer, struct splitter, peer);
  struct split_piece *p = container_of(op, struct split_piece, op);
  struct shard_op *parent = p->parent;
  struct split *x = split_of(parent);
  if (op->result < 0 && !x->error) x->error = (int32_t)op->result;
  p->next = sp->unused;
  sp->unused = p;
  bool last = --x->pending == 0 && is_cut(parent);
  if (last) {
    parent->result = x->error ? x->error : (int64_t)parent->bytes;
    core_complete(peer->local, parent);
  }
  pump(sp);
}

/* ---- Requests -------------------------------------------------------------------------------- */

static bool make_pieces(struct splitter *sp) {
  if (sp->pieces) return true;
  sp->pieces = calloc(PIECES_MAX, sizeof *sp->pieces);
  for (uint32_t i = 0; sp->pieces && i < PIECES_MAX; i++) {
    sp->pieces[i].next = sp->unused;
    sp->unused = &sp->pieces[i];
  }
  return sp->pieces != NULL;
}

void splitter_request(struct splitter *sp, struct shard_op *op) {
  op->size = 0;
  if (!make_pieces(sp)) {
    op->result = -ENOMEM;
    core_complete(sp->peer.local, op);
    return;
  }
  *split_of(op) = (struct split){.at = by_parts(op) ? 0 : op->offset};
  op_chain_add(&sp->waiting, op);
  pump(sp);
}

void splitter_init(struct splitter *sp, struct core *core) {
  sp->peer = core->self;
  sp->peer.finished = piece_finished;
}

void splitter_finish(struct splitter *sp) { free(sp->pieces); }

/* ---- Routing --------------------------------------------------------------------------------- */

/* Checked here as well as by the parts: of a striped disk some parts would have it done before
 * another one refuses. */
static bool in_range(const struct block *b, uint32_t kind, const struct shard_op *op) {
  uint64_t size = atomic_load_explicit(&b->size_bytes, memory_order_relaxed);
  return kind == OP_SYNC || (op->bytes <= size && op->offset <= size - op->bytes &&
                             !((op->offset | op->bytes) & (b->block_bytes - 1)));
}

uint32_t split_route(struct block *b, uint32_t kind, uint32_t iov_count, struct shard_op *op) {
  uint64_t in, row;
  uint32_t part = block_route(b, op->offset, &in, &row);
  bool whole = b->part_count == 1 || (kind != OP_SYNC && op->bytes <= row);
  op->kind = (uint8_t)kind;
  if (b->read_only) op->flags |= OP_READ_ONLY;
  if (unlikely(!in_range(b, kind, op)))
    op->bytes = UINT64_MAX; /* which no volume has: -EINVAL */
  else if (whole)
    op->offset = in;
  if (unlikely(!whole && op->bytes != UINT64_MAX)) {
    *args_of(op) = (struct split_args){b, iov_count, 0};
    op->state = (uint8_t)kind;
    op->kind = OP_SPLIT;
    part %= b->part_count;
  } else {
    *volume_args(op) = (struct volume_args){b->parts[part].volume, iov_count, 0};
  }
  op->hash = b->parts[part].hash;
  return b->parts[part].core;
}
