/* flush.c - the flush coordinator; states and order in flush.h. */
#include "runtime/flush.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/store.h"
#include "shards/base/plant.h"

#define ROOTS_SKIPPED_MAX 8u /* one after the other: roots are what gives space back */

static void start(struct flusher *f);
static void core_answered(struct peer *peer, struct shard_op *op);
static void enter_flushing(struct flusher *f);
static void after_flush(struct flusher *f);
static void after_survival(struct flusher *f);
static void enter_rooting(struct flusher *f);
static void enter_settling(struct flusher *f);

int flusher_init(struct flusher *f, struct store *store) {
  struct layout *l = store->layout;
  *f = (struct flusher){.store = store, .root = l->root};
  f->started_epoch = f->durable_epoch = l->root->epoch;
  f->peer = store->cores[0].self;
  f->peer.finished = core_answered;
  f->cores = calloc(store->core_count, sizeof *f->cores);
  f->shards = calloc(store->shard_count, sizeof *f->shards);
  f->files = calloc(l->backing_count, sizeof *f->files);
  f->next = calloc(1, sizeof *f->next);
  f->root_buf = arena_alloc(store->arena, l->root_slot_blocks << BLOCK_SHIFT, true);
  if (!f->cores || !f->shards || !f->files || !f->next || !f->root_buf) return -ENOMEM;
  for (uint32_t i = 0; i < store->core_count; i++) f->cores[i].flusher = f;
  return 0;
}

void flusher_finish(struct flusher *f) {
  if (f->root_buf) arena_free(f->store->arena, f->root_buf);
  free(f->cores);
  free(f->shards);
  free(f->files);
  free(f->next);
}

void flusher_request(struct flusher *f, struct shard_op *op) {
  op_chain_add(&f->waiting, op);
  flusher_start(f);
}

void flusher_start(struct flusher *f) {
  bool gate_empty = !f->store->batcher.inside || PLANTED(gate_left_open);
  if (f->state == FLUSH_IDLE && f->waiting.head && gate_empty) start(f);
}

bool flusher_gate_open(const struct flusher *f) {
  if (PLANTED(gate_left_open)) return true;
  return f->state == FLUSH_IDLE ? !f->waiting.head : f->state != FLUSH_SEALING;
}

/* Who wants to know that a root names it all, and not only that it survives. */
static bool wants_root(const struct flusher *f, const struct shard_op *op) {
  return op->flags & OP_ROOT || op->owner == &f->store->batcher.peer;
}

/* Completes those that are served; before the root is written, those that need not wait for it. */
static void serve(struct flusher *f, bool rooted) {
  struct op_chain all = f->served;
  f->served = (struct op_chain){0};
  f->flushes += !f->counted;
  f->counted = true;
  for (struct shard_op *op = all.head, *next; op; op = next) {
    next = op->next;
    if (!rooted && wants_root(f, op)) {
      op_chain_add(&f->served, op);
      continue;
    }
    f->shared += next != NULL || f->served.head; /* all but one */
    op->result = f->result;
    core_complete(&f->store->cores[0], op);
  }
}

static void finish_served(struct flusher *f) {
  f->state = FLUSH_IDLE;
  /* If nothing was dirty there is no root of this epoch: the next flush has it again. */
  atomic_store_explicit(&f->started_epoch, f->root->epoch, memory_order_seq_cst);
  serve(f, true);
  flusher_start(f);
}

/* ---- Asking all cores ------------------------------------------------------------------- */

static void ask_cores(struct flusher *f, core_call_fn *fn) {
  f->pending = f->store->core_count;
  for (uint32_t i = 0; i < f->store->core_count; i++) {
    struct shard_op *op = &f->cores[i].op;
    memset(op, 0, sizeof *op);
    op->kind = OP_CALL;
    memcpy(&op->work, &fn, sizeof fn); /* a function in a data pointer: POSIX allows it */
    op->buf = &f->cores[i];
    op->core = (uint8_t)i;
    op->owner = &f->peer;
    core_enter(&f->store->cores[0], op);
  }
}

static void core_answered(struct peer *peer, struct shard_op *op) {
  struct flusher *f = container_of(peer, struct flusher, peer);
  (void)op;
  check(f->pending > 0);
  if (--f->pending > 0) return;
  if (f->state == FLUSH_SEALING)
    enter_flushing(f);
  else if (f->state == FLUSH_FLUSHING)
    after_flush(f);
  else if (f->state == FLUSH_SURVIVING)
    after_survival(f);
  else
    finish_served(f);
}

/* ---- Sealing ------------------------------------------------------------------------------ */

static void shard_sealed(struct manifest_seal *seal) {
  struct flush_shard *s = container_of(seal, struct flush_shard, seal);
  struct flush_core *c = s->core;
  check(c->pending > 0);
  if (--c->pending == 0) core_complete(&c->flusher->store->cores[c - c->flusher->cores], &c->op);
}

/* On each core. All its shards' writes are in flight at once. */
static void seal_core(struct core *core, struct shard_op *op) {
  struct flush_core *c = op->buf;
  struct flusher *f = c->flusher;
  c->pending = core->mine_count + 1;
  for (uint32_t i = 0; i < core->mine_count; i++) {
    uint32_t number = core->mine[i];
    struct flush_shard *s = &f->shards[number];
    s->core = c;
    s->seal = (struct manifest_seal){.done = shard_sealed, .epoch = f->epoch};
    core_mark_busy(core, number);
    manifest_seal(shard_manifest(core->shards[number].shard), &s->seal);
  }
  if (--c->pending == 0) core_complete(core, op);
}

static void start(struct flusher *f) {
  f->state = FLUSH_SEALING;
  f->served = f->waiting;
  f->waiting = (struct op_chain){0};
  f->epoch = f->root->epoch + 1;
  atomic_store_explicit(&f->started_epoch, f->epoch, memory_order_seq_cst);
  f->result = 0;
  f->counted = false;
  ask_cores(f, seal_core);
}

/* ---- Flushing files ----------------------------------------------------------------------- */

static void file_flushed(struct io *io) {
  struct flush_file *file = container_of(io, struct flush_file, io);
  struct flush_core *c = file->core;
  struct store *store = c->flusher->store;
  if (io->result && !PLANTED(ignore_failed_flush))
    backing_flush_failed(store->layout->backings[io->file]);
  if (--c->pending == 0) core_complete(&store->cores[c - c->flusher->cores], &c->op);
}

/* On each core: its files, all in one submission. */
static void flush_core(struct core *core, struct shard_op *op) {
  struct flush_core *c = op->buf;
  struct flusher *f = c->flusher;
  c->pending = 1;
  for (uint32_t b = 0; b < f->store->layout->backing_count; b++) {
    struct flush_file *file = &f->files[b];
    if (file->core != c) continue;
    file->io = (struct io){.done = file_flushed, .op = IO_FLUSH, .file = (uint16_t)b};
    c->pending++;
    device_submit(core->device, &file->io);
  }
  if (--c->pending == 0) core_complete(core, op);
}

/* Each file that a dirty shard lies on is flushed by the core of the first such shard. */
static uint32_t deal_files(struct flusher *f) {
  const struct layout *l = f->store->layout;
  uint32_t count = 0;
  for (uint32_t b = 0; b < l->backing_count; b++) f->files[b] = (struct flush_file){0};
  for (uint32_t s = 0; s < f->store->shard_count; s++) {
    const struct manifest_seal *seal = &f->shards[s].seal;
    if (!seal->dirty || seal->flushed || seal->result || PLANTED(skip_data_flush)) continue;
    for (uint32_t i = 0; i < l->regions[s].segment_count; i++) {
      struct flush_file *file = &f->files[l->regions[s].segments[i].file];
      count += file->core == NULL;
      if (!file->core) file->core = &f->cores[f->store->core_of_shard[s]];
    }
  }
  return count;
}

static void enter_flushing(struct flusher *f) {
  f->state = FLUSH_FLUSHING;
  batcher_admit(&f->store->batcher);
  if (deal_files(f) > 0)
    ask_cores(f, flush_core);
  else
    after_flush(f);
}

/* A failed flush of any of its files is the shard's failure, be it this one or an earlier one of
 * another shard. */
static void spread_results(struct flusher *f) {
  const struct layout *l = f->store->layout;
  for (uint32_t s = 0; s < f->store->shard_count; s++) {
    struct manifest_seal *seal = &f->shards[s].seal;
    if (!seal->dirty) continue;
    if (region_flush_failed(&l->regions[s])) seal->result = -EIO;
  }
}

/* A failed shard keeps its old part of the root, which would tear a batch that it shares with
 * others: so all shards with such changes in this epoch fail with it. */
static void spread_batches(struct flusher *f) {
  bool torn = false;
  for (uint32_t s = 0; s < f->store->shard_count; s++)
    torn |= f->shards[s].seal.batched && f->shards[s].seal.result;
  for (uint32_t s = 0; s < f->store->shard_count && torn && !PLANTED(tear_a_batch); s++) {
    struct manifest_seal *seal = &f->shards[s].seal;
    if (seal->batched && !seal->result) seal->result = -EIO;
  }
}

/* ---- The root ------------------------------------------------------------------------------- */

/* Writes root_buf into a slot. */
static void write_slot(struct flusher *f, uint32_t slot, uint8_t flags, struct io *io,
                       void (*done)(struct io *)) {
  const struct layout *l = f->store->layout;
  *io = (struct io){.done = done,
                    .buf = f->root_buf,
                    .offset = (l->root_block + slot * l->root_slot_blocks) << BLOCK_SHIFT,
                    .bytes = (uint32_t)(l->root_slot_blocks << BLOCK_SHIFT),
                    .op = IO_WRITE,
                    .flags = flags};
  device_submit(f->store->cores[0].device, io);
}

static void write_root(struct flusher *f);

static void mirror_written(struct io *io) {
  struct flusher *f = container_of(io, struct flusher, mirror_io);
  if (io->result)
    log_line(&f->store->logger, 1, "%s: the second slot of root %llu cannot be written: %s",
             f->store->layout->backings[0]->name, (unsigned long long)f->root->epoch,
             strerror(-io->result));
  f->mirroring = false;
  if (f->root_waits) write_root(f);
}

/* The root goes to a second slot as well, so that the loss of a whole slot is survived. Nobody
 * waits for that, no flush is spent on it: it is durable with the next one. */
static void root_written(struct io *io) {
  struct flusher *f = container_of(io, struct flusher, root_io);
  if (!io->result && io->op == IO_WRITE && f->store->config.flush_after) {
    *io = (struct io){.done = root_written, .op = IO_FLUSH, .file = io->file};
    device_submit(f->store->cores[0].device, io);
    return;
  }
  if (io->result && io->op == IO_FLUSH) backing_flush_failed(f->store->layout->backings[io->file]);
  f->root_result = io->result ? -EIO : 0;
  if (io->result) {
    f->result = -EIO;
  } else {
    *f->root = *f->next;
    if (!f->result) atomic_store_explicit(&f->durable_epoch, f->root->epoch, memory_order_release);
    f->mirroring = true;
    write_slot(f, root_mirror_of_epoch(f->root->epoch), 0, &f->mirror_io, mirror_written);
  }
  f->force_root = f->force_root && io->result;
  enter_settling(f);
}

static void write_root(struct flusher *f) {
  f->root_waits = false;
  root_encode(f->next, f->store->layout->uuid, f->root_buf);
  bool fua = !f->store->config.flush_after && !PLANTED(root_without_fua);
  write_slot(f, root_slot_of_epoch(f->next->epoch), fua ? IO_FUA : 0, &f->root_io, root_written);
}

/* A shard whose seal failed keeps what the last root said of it: it writes no more, and what
 * it had durable stays. The other shards go on. */
static bool merge(struct flusher *f) {
  bool dirty = f->force_root;
  *f->next = *f->root;
  f->next->epoch = f->epoch;
  bool new_open = f->force_root && !PLANTED(keep_the_incarnation);
  f->next->incarnation = f->root->incarnation + (new_open ? 1 : 0);
  for (uint32_t s = 0; s < f->store->shard_count; s++) {
    const struct manifest_seal *seal = &f->shards[s].seal;
    if (seal->result && !f->result) f->result = seal->result;
    if (seal->result || (PLANTED(forget_a_shard) && s > 0 && s + 1 == f->store->shard_count))
      continue;
    f->next->shards[s] = seal->root;
    dirty |= seal->dirty;
  }
  return dirty;
}

/* What is flushed survives without a root: recovery sees by itself that it counts. */
static bool survives_without_root(const struct flusher *f) {
  bool does = !f->result && !f->force_root;
  for (uint32_t s = 0; s < f->store->shard_count; s++) {
    const struct manifest_seal *seal = &f->shards[s].seal;
    does &= !seal->result && (!seal->dirty || (seal->verifiable && !seal->batched));
  }
  return does || PLANTED(serve_before_root);
}

static void survive_core(struct core *core, struct shard_op *op) {
  for (uint32_t i = 0; i < core->mine_count; i++) {
    core_mark_busy(core, core->mine[i]);
    manifest_seal_survives(shard_manifest(core->shards[core->mine[i]].shard));
  }
  core_complete(core, op);
}

static void after_flush(struct flusher *f) {
  spread_results(f);
  spread_batches(f);
  f->skip = false;
  f->dirty = merge(f);
  if (f->force_root && f->result && !PLANTED(open_without_a_shard)) {
    /* A root in a new open's name makes what it does not name foreign: it names all that recovery
     * has found, or is not written. */
    f->root_result = -EIO;
    enter_settling(f);
    return;
  }
  if (!f->dirty || !survives_without_root(f)) {
    enter_rooting(f);
    return;
  }
  f->state = FLUSH_SURVIVING;
  ask_cores(f, survive_core);
}

/* Those who came meanwhile should not wait for a root that nobody needs now. */
static bool may_skip_root(const struct flusher *f) {
  bool may = f->waiting.head && !f->served.head && f->skipped < ROOTS_SKIPPED_MAX;
  for (uint32_t s = 0; s < f->store->shard_count; s++) may &= !f->shards[s].seal.directory;
  return may;
}

static void after_survival(struct flusher *f) {
  serve(f, false);
  f->skip = may_skip_root(f);
  enter_rooting(f);
}

static void enter_rooting(struct flusher *f) {
  f->root_result = 0;
  f->state = FLUSH_ROOTING;
  f->skipped = f->skip ? f->skipped + 1 : 0;
  if (!f->dirty || f->skip) {
    enter_settling(f);
    return;
  }
  f->root_waits = f->mirroring; /* of the last root: it uses the buffer, and the slot after this */
  if (!f->root_waits) write_root(f);
}

/* ---- Settling -------------------------------------------------------------------------------- */

static void settle_core(struct core *core, struct shard_op *op) {
  struct flush_core *c = op->buf;
  struct flusher *f = c->flusher;
  for (uint32_t i = 0; i < core->mine_count; i++) {
    const struct manifest_seal *seal = &f->shards[core->mine[i]].seal;
    int result = seal->result ? seal->result : f->root_result;
    core_mark_busy(core, core->mine[i]);
    struct manifest *m = shard_manifest(core->shards[core->mine[i]].shard);
    if (f->skip)
      manifest_root_skipped(m);
    else
      manifest_root_durable(m, f->root->epoch, result);
  }
  core_complete(core, op);
}

static void enter_settling(struct flusher *f) {
  f->state = FLUSH_SETTLING;
  ask_cores(f, settle_core);
}
