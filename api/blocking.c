/* blocking.c - calls that submit one op and wait for it. A port's own thread, not a core. */
#include <errno.h>
#include <string.h>

#include "api/internal.h"
#include "runtime/port_direct.h"

int64_t run_op(struct sr_port *p, struct shard_op *op) {
  struct port *port = port_of(p);
  int r = port_refused(p);
  if (r) return r;
  uint32_t core =
      op->kind == OP_FLUSH || op->kind == OP_BATCH ? 0 : core_of_hash(port->store, op->hash);
  r = port_run(port, core, op);
  return r ? r : op->result;
}

int64_t run_on_shards(struct sr_port *p, struct shard_op *op) {
  if (!p) return -EINVAL;
  uint32_t count = port_of(p)->store->shard_count;
  int64_t r = 0;
  for (uint32_t s = 0; s < count && r >= 0; s++) {
    op->hash = hash_of_shard(s, count);
    r = run_op(p, op);
  }
  return r;
}

static struct shard_op blob_op(struct sr_port *p, uint8_t kind, struct sr_id id) {
  struct shard_op op = {.kind = kind, .id = {id.hi, id.lo}};
  if (p) op.hash = hash_of(port_of(p)->store, id);
  return op;
}

int sr_put(struct sr_port *p, struct sr_id id, const void *buf, uint64_t bytes, uint32_t flags) {
  struct shard_op op = blob_op(p, OP_PUT, id);
  if ((!buf && bytes && !(flags & SR_RESERVE)) ||
      flags & ~(SR_DURABLE | SR_IF_ABSENT | SR_NO_CHECKSUM | SR_RESERVE))
    return -EINVAL;
  op.buf = (void *)(uintptr_t)buf;
  op.bytes = bytes;
  op.flags = (uint8_t)flags;
  return (int)run_op(p, &op);
}

int64_t sr_get(struct sr_port *p, struct sr_id id, void *buf, uint64_t offset, uint64_t bytes) {
  struct shard_op op = blob_op(p, OP_GET, id);
  if (!buf && bytes) return -EINVAL;
  op.buf = buf;
  op.offset = offset;
  op.bytes = bytes;
  int64_t n = port_refused(p);
  if (!n) n = port_direct_get(port_of(p), &op);
  return n == -EAGAIN ? run_op(p, &op) : n;
}

int sr_delete(struct sr_port *p, struct sr_id id, uint32_t flags) {
  struct shard_op op = blob_op(p, OP_DELETE, id);
  if (flags & ~SR_DURABLE) return -EINVAL;
  op.flags = (uint8_t)flags;
  return (int)run_op(p, &op);
}

int sr_stat(struct sr_port *p, struct sr_id id, uint64_t *size_bytes) {
  struct shard_op op = blob_op(p, OP_STAT, id);
  int r = port_refused(p);
  if (!r) r = port_direct_stat(port_of(p), &op, &op.size);
  if (r == -EAGAIN) r = (int)run_op(p, &op);
  if (!r && size_bytes) *size_bytes = op.size;
  return r;
}

int sr_exists(struct sr_port *p, struct sr_id id) {
  int r = sr_stat(p, id, NULL);
  return r == -ENOENT ? 0 : r ? r : 1;
}

static int flush(struct sr_port *p, uint8_t flags) {
  struct shard_op op = {.kind = OP_FLUSH, .flags = flags};
  return (int)run_op(p, &op);
}

int sr_flush(struct sr_port *p) { return flush(p, 0); }

int sr_batch(struct sr_port *p, struct sr_request *const parts[], uint32_t count, uint32_t flags) {
  struct shard_op op = {0};
  if (!p) return -EINVAL;
  int r = batch_fill(port_of(p)->store, parts, count, flags, &op);
  return r ? r : (int)run_op(p, &op);
}

/* ---- Lists: shard by shard; the cursor is {shard, the shard's own cursor} ------------------- */

_Static_assert(sizeof(struct sr_entry) == sizeof(struct shard_entry) &&
                   offsetof(struct sr_entry, size_bytes) == offsetof(struct shard_entry, bytes),
               "entries are filled in place");

int sr_list(struct sr_port *p, struct sr_cursor *cursor, struct sr_entry *entries, uint32_t max) {
  if (!p || !cursor || !entries || !max) return -EINVAL;
  uint32_t count = port_of(p)->store->shard_count;
  while (cursor->opaque[0] < count) {
    struct shard_op op = {.kind = OP_LIST, .buf = entries, .bytes = max};
    op.offset = cursor->opaque[1];
    op.hash = hash_of_shard((uint32_t)cursor->opaque[0], count);
    int64_t r = run_op(p, &op);
    if (r < 0) return (int)r;
    cursor->opaque[1] = op.size;
    if (r > 0) return (int)r;
    cursor->opaque[0]++;
    cursor->opaque[1] = 0;
  }
  return 0;
}

/* ---- Maintenance -------------------------------------------------------------------------------
 */

int sr_checkpoint(struct sr_port *p) {
  struct shard_op op = {.kind = OP_CHECKPOINT};
  int64_t r = run_on_shards(p, &op);
  return r < 0 ? (int)r : flush(p, OP_ROOT);
}

/* Moves, then a flush that frees the old places, then holes. A second round moves into the room
 * that the first one has made; when nothing moved there is none. */
static int punch_core(struct core *core, void *arg) {
  int r = 0;
  for (uint32_t i = 0; i < core->mine_count && !r; i++) {
    core_mark_busy(core, core->mine[i]);
    r = shard_punch(core->shards[core->mine[i]].shard, arg);
  }
  return r == -EOPNOTSUPP ? 0 : r;
}

#define VACUUM_ROUNDS 3

int sr_vacuum(struct sr_port *p, struct sr_vacuum_result *result) {
  struct shard_vacuum_result total = {0};
  if (!p || !result) return -EINVAL;
  struct store *s = port_of(p)->store;
  int64_t r = 0;
  uint64_t moved_before = UINT64_MAX;
  for (int i = 0; i < VACUUM_ROUNDS && r >= 0 && total.moved_bytes != moved_before; i++) {
    moved_before = total.moved_bytes;
    for (uint32_t shard = 0; shard < s->shard_count && r >= 0; shard++) {
      struct shard_vacuum_result one = {0};
      struct shard_op op = {.kind = OP_VACUUM, .buf = &one};
      op.hash = hash_of_shard(shard, s->shard_count);
      r = run_op(p, &op);
      total.moved_bytes += one.moved_bytes;
    }
    if (r >= 0) r = flush(p, OP_ROOT);
  }
  for (uint32_t c = 0; c < s->core_count && r >= 0; c++)
    r = store_call(port_of(p), c, punch_core, &total);
  *result = (struct sr_vacuum_result){total.moved_bytes, total.released_bytes};
  return r < 0 ? (int)r : 0;
}
