/* shard.c - the storage engine of one shard: open, dispatch, ticks, statistics. Owned by the
 * shard's thread; see shard.h for the rules and shard_internal.h for the parts. */
#include "shards/index_find.h"
#include "shards/shard_internal.h"
#include "shards/volume_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- Open and close ------------------------------------------------------------------------ */

static int create(struct shard *s, const struct root *root, char *why, size_t why_bytes) {
  const struct manifest_config *config = &s->config.manifest;
  int r = manifest_recover(&s->manifest, config, root, why, why_bytes);
  if (r) return r;
  s->index = manifest_index(s->manifest);
  s->space = manifest_space(s->manifest);
  s->device = config->device;
  s->region = config->region;
  s->read_only = config->read_only;
  r = works_create(s);
  if (r) return r;
  return zeroer_init(&s->zeroer, s->manifest, s->region, s->device, &config->logger,
                     s->config.background && !s->read_only);
}

int shard_open(struct shard **shard, const struct shard_config *config, const struct root *root,
               char *why, size_t why_bytes) {
  if (!config->manifest.device || !config->manifest.region) return -EINVAL;
  struct shard *s = calloc(1, sizeof *s);
  if (!s) return -ENOMEM;
  s->config = *config;
  if (s->config.works_max == 0) s->config.works_max = 64;
  int r = create(s, root, why, why_bytes);
  if (r) {
    shard_close(s);
    return r;
  }
  *shard = s;
  return 0;
}

void shard_close(struct shard *s) {
  if (!s) return;
  check(s->ops == 0);
  check(s->vacuum.moves == 0);
  scrub_finish(s);
  zeroer_finish(&s->zeroer);
  streams_destroy(s);
  volumes_destroy(s);
  works_destroy(s);
  if (s->manifest) manifest_destroy(s->manifest);
  free(s);
}

bool shard_idle(const struct shard *s) {
  return s->ops == 0 && volumes_idle(s) && s->vacuum.moves == 0 && !scrub_busy(s) &&
         !zeroer_busy(&s->zeroer) && manifest_idle(s->manifest);
}

const struct index *shard_index(const struct shard *s) { return s->index; }

struct manifest *shard_manifest(struct shard *s) {
  return s->manifest;
}

/* ---- Small ops --------------------------------------------------------------------------------
 */

static void stat_submit(struct shard *s, struct shard_op *op) {
  struct blob b;
  s->others++;
  int r = index_find(s->index, op->hash, op->id, &b);
  if (r == 0)
    op->size = b.bytes;
  else
    r = manifest_absent(s->manifest, op->hash);
  op_complete(s, op, r);
}

static void list_submit(struct shard *s, struct shard_op *op) {
  s->others++;
  int n = -EINVAL;
  if (op->buf && op->bytes && op->bytes <= INT32_MAX) {
    uint64_t cursor = op->offset;
    n = list_next(s, &cursor, op->buf, op->bytes, INDEX_PARTITIONS, NULL);
    op->size = cursor;
  }
  op_complete(s, op, n);
}

static void checkpoint_submit(struct shard *s, struct shard_op *op) {
  s->others++;
  if (s->read_only) {
    op_complete(s, op, -EROFS);
    return;
  }
  manifest_checkpoint_all(s->manifest);
  op_list_push(&s->checkpoints, op);
}

static bool checkpoint_tick(struct shard *s) {
  if (!s->checkpoints.first) return false;
  int result = 0;
  if (!manifest_checkpoint_done(s->manifest)) {
    /* A shard that has stopped writing never gets there: a reservation tells. */
    int r = manifest_reserve(s->manifest, 0, 0, 0);
    if (r == 0) manifest_cancel(s->manifest, 0, 0);
    if (r == 0 || r == -EAGAIN) return false;
    result = r;
  }
  struct shard_op *op;
  while ((op = op_list_pop(&s->checkpoints))) op_complete(s, op, result);
  return true;
}

/* ---- Dispatch ----------------------------------------------------------------------------------
 */

void shard_prefetch(const struct shard *s, const struct shard_op *op) {
  if (op->kind >= OP_READ)
    volume_prefetch(op);
  else
    index_prefetch(s->index, op->hash);
}

static void submit_other(struct shard *s, struct shard_op *op) {
  switch (op->kind) {
  case OP_PUT:
  case OP_DELETE:
    write_submit(s, op);
    break;
  case OP_STAT:
    stat_submit(s, op);
    break;
  case OP_NOP:
    s->others++;
    op_complete(s, op, 0);
    break;
  case OP_APPEND:
  case OP_STREAM_BEGIN:
  case OP_STREAM_COMMIT:
  case OP_STREAM_ABORT:
    stream_submit(s, op);
    break;
  case OP_LIST:
    list_submit(s, op);
    break;
  case OP_VACUUM:
    vacuum_submit(s, op);
    break;
  case OP_CHECKPOINT:
    checkpoint_submit(s, op);
    break;
  case OP_PREPARE:
  case OP_PARTS_RESERVE:
  case OP_PARTS_UNRESERVE:
  case OP_PARTS_APPLY:
  case OP_PARTS_CANCEL:
    part_submit(s, op);
    break;
  default:
    if (op->kind >= OP_READ && op->kind <= OP_HURRY)
      volume_control(s, op);
    else
      op_complete(s, op, -EINVAL);
  }
}

void shard_submit(struct shard *s, struct shard_op *op) {
  if (likely(op->kind == OP_GET)) {
    shard_get(s, op);
    return;
  }
  s->ops++;
  if (op->kind >= OP_READ && op->kind <= OP_PROMOTE && op_is_of_volume(op)) {
    volume_submit(s, op);
  } else {
    submit_other(s, op);
  }
}

static enum start start(struct shard *s, struct shard_op *op) {
  if (op->kind == OP_GET) return get_start(s, op);
  if (op->kind == OP_PUT || op->kind == OP_DELETE) return write_start(s, op);
  if (op->kind == OP_PREPARE) return part_start(s, op);
  if (op->kind >= OP_READ) return volume_start(s, op);
  return stream_start(s, op);
}

void shard_run(struct shard *s, struct shard_op *op) {
  enum start r = start(s, op);
  if (r != STARTED) op_list_push(&s->waiting[r], op);
}

/* Tries the op at the head of a FIFO again; false if it must stay there. */
static bool run_again(struct shard *s, enum start list) {
  struct shard_op *op = op_list_pop(&s->waiting[list]);
  bool write = op_is_write(op), read = op->kind == OP_GET;
  uint64_t hash = op->hash; /* the op may be gone afterwards */
  struct blob_id id = op->id;
  enum start r = start(s, op);
  if (r == list) {
    op_list_unpop(&s->waiting[list], op);
    return false;
  }
  if (r != STARTED) op_list_push(&s->waiting[r], op);
  if (write) writes_advance(s, hash, id);
  if (!read) streams_kick(s);
  return true;
}

void shard_pump(struct shard *s) {
  if (s->pumping) return; /* the loop below sees what came free */
  s->pumping = true;
  for (bool more = true; more;) {
    more = false;
    if (s->waiting[WAIT_DETAIL].first && s->free_works && s->free_details)
      more = run_again(s, WAIT_DETAIL);
    if (s->waiting[WAIT_WORK].first && s->free_works) more |= run_again(s, WAIT_WORK);
  }
  s->pumping = false;
}

static bool room_tick(struct shard *s) {
  bool did = false;
  s->pumping = true;
  while (s->waiting[WAIT_ROOM].first && !s->holds && run_again(s, WAIT_ROOM)) did = true;
  s->pumping = false;
  shard_pump(s);
  return did;
}

bool shard_tick(struct shard *s) {
  bool volumes = s->volumes && volumes_tick(s);
  if (s->read_only) return volumes;
  bool more = manifest_tick(s->manifest) | volumes;
  more |= sums_late_tick(s);
  if (s->waiting[WAIT_ROOM].first) {
    more |= room_tick(s);
  } else if (s->config.background && !s->vacuum.ops.first && !manifest_unsettled(s->manifest)) {
    more |= zeroer_tick(&s->zeroer);
  }
  more |= vacuum_tick(s);
  return more | checkpoint_tick(s);
}

int shard_alloc_now(struct shard *s, uint64_t blocks, struct extent *extents, uint32_t max,
                    uint64_t below) {
  int n = space_alloc(s->space, blocks, extents, max, below);
  if (n > 0) zeroer_allocated(&s->zeroer, blocks);
  return n;
}

int shard_alloc(struct shard *s, uint64_t blocks, struct extent *extents, uint32_t max,
                uint64_t below) {
  int n = shard_alloc_now(s, blocks, extents, max, below);
  if (n == -ENOSPC && zeroer_busy(&s->zeroer)) return -EAGAIN;
  /* What overwrites and deletes have freed comes back with a flush: ask for one and wait, as long
   * as that can help. */
  if (n == -ENOSPC && !below &&
      space_free_blocks(s->space) + space_pending_blocks(s->space) >= blocks &&
      manifest_ask_flush(s->manifest, space_pending_blocks(s->space)))
    return -EAGAIN;
  return n;
}

/* ---- Reports ------------------------------------------------------------------------------------
 */

void shard_checksum_error(struct shard *s, struct blob_id id, uint64_t granule, uint64_t block,
                          const char *what) {
  s->checksum_errors++;
  log_line(
      &s->config.manifest.logger, 0,
      "shard %u: blob %016llx%016llx: checksum mismatch in granule %llu (%s region block %llu)",
      s->config.manifest.shard, (unsigned long long)id.hi, (unsigned long long)id.lo,
      (unsigned long long)granule, what, (unsigned long long)block);
}

void shard_stats(const struct shard *s, struct shard_stats *stats) {
  *stats = (struct shard_stats){
      .puts = s->puts,
      .deletes = s->deletes,
      .others = s->others,
      .write_bytes = s->write_bytes,
      .checksum_errors = s->checksum_errors,
      .blobs = index_count(s->index),
      .live_bytes = index_live_bytes(s->index),
      .index_ram_bytes = index_ram_bytes(s->index),
      .total_blocks = space_total_blocks(s->space),
      .free_blocks = space_free_blocks(s->space),
      .pending_blocks = space_pending_blocks(s->space),
      .zeroed_blocks = manifest_zeroed_blocks(s->manifest),
  };
  manifest_stats(s->manifest, &stats->manifest);
  const struct map *map = manifest_map(s->manifest);
  stats->map_ram_bytes = map_ram_bytes(map);
  for (struct layer *l = map_layer_next(map, NULL); l; l = map_layer_next(map, l)) {
    struct layer_stats layer;
    layer_stats(l, &layer);
    stats->layers++;
    stats->cluster_bytes += layer.clusters << CLUSTER_SHIFT;
  }
}
