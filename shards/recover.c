/* recover.c - from a root to a manifest in memory: checkpoints, log, free space. Synchronous, on
 * the thread of the shard's core; what is on disk stays what it is (recover_tail.c), so a crash in
 * it is no crash at all.
 *
 *   checkpoints -> replay [head, tail) of the root -> behind the tail what counts
 *   (recover_tail.c) -> claim all blocks that something names
 *
 * Up to the root's tail every frame must be good. Behind it the chain may end anywhere (a torn
 * tail), unless a frame further on says that more was durable: that is damage. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shards/recover.h"
#include "shards/index_find.h"

#include "shards/base/plant.h"

#define LOOKAHEAD 16u /* entries prefetched */

const char *reader_get(struct log_reader *r, uint64_t position, uint64_t blocks, int *error) {
  const struct region *region = r->m->config.region;
  uint64_t place = log_place(position, region->log_blocks);
  if (blocks > region->log_blocks - place) {
    *error = -EBADMSG;
    return NULL;
  }
  if (position < r->first || position + blocks > r->first + r->blocks) {
    r->blocks = min_u64(WINDOW_BLOCKS, region->log_blocks - place);
    r->first = position;
    *error = region_read(region, r->window, place, r->blocks);
    if (*error) { /* what is bad may lie beyond what is needed */
      r->blocks = blocks;
      *error = region_read(region, r->window, place, blocks);
    }
    if (*error) {
      r->blocks = 0;
      return NULL;
    }
  }
  return r->window + ((position - r->first) << BLOCK_SHIFT);
}

static bool decode_header(const struct manifest *m, uint64_t position, struct frame *f,
                          const char *buf, const char **what) {
  if (frame_decode_header(f, buf, what)) return false;
  *what = "frame of another store, shard or place";
  return f->store == m->store_key && f->shard == m->config.shard && f->position == position;
}

const char *read_frame(struct log_reader *r, uint64_t position, struct frame *f, const char **what,
                       int *error) {
  *error = 0;
  const char *buf = reader_get(r, position, 1, error);
  if (!buf) {
    *what = "cannot be read";
    return NULL;
  }
  if (!decode_header(r->m, position, f, buf, what)) return NULL;
  *what = "frame is cut off";
  uint64_t blocks = frame_blocks(f->payload_bytes);
  buf = reader_get(r, position, blocks, error);
  /* It may have been read again. */
  if (!buf || !decode_header(r->m, position, f, buf, what)) return NULL;
  *what = "checksum mismatch";
  return frame_checksum_matches(buf, blocks) || PLANTED(skip_frame_checksum) ? buf : NULL;
}

/* ---- Applying ---------------------------------------------------------------------------- */

int recover_apply_entry(struct manifest *m, const struct entry *e, uint64_t sequence,
                        const char **what) {
  if (!entry_is_blob(e->type)) {
    *what = "out of memory";
    return recover_apply_volume(m, e, sequence);
  }
  uint64_t hash = hash_id(e->blob.id, m->config.hash_key);
  const struct checkpoint *c = checkpoint_of(m, index_partition_of(hash));
  if (c && sequence < c->sequence) return 0;
  if (e->type == ENTRY_DELETE) {
    *what = "deletes a blob that is not there";
    return index_delete(m->index, hash, e->blob.id) ? -EBADMSG : 0;
  }
  *what = "out of memory";
  int r = manifest_index_room(m, hash, &e->blob);
  return r ? r : index_put(m->index, hash, &e->blob);
}

/* Cache misses of the next entries overlap with the work on this one. */
static uint64_t prefetch_from(const struct manifest *m, const char *payload, uint64_t at,
                              uint64_t bytes) {
  struct blob_id id;
  uint32_t n;
  if (at >= bytes || !log_entry_peek(payload + at, bytes - at, &id, &n)) return bytes;
  index_prefetch_new(m->index, hash_id(id, m->config.hash_key));
  return at + n;
}

static int apply_frame(struct manifest *m, const struct frame *f, const char *buf,
                       const char **what) {
  const char *payload = buf + FRAME_HEADER_BYTES;
  uint64_t ahead = 0, at = 0;
  for (uint32_t i = 0; i < LOOKAHEAD; i++)
    ahead = prefetch_from(m, payload, ahead, f->payload_bytes);
  for (uint32_t i = 0; i < f->entry_count; i++) {
    struct entry e;
    uint32_t n =
        log_entry_decode(&e, payload + at, f->payload_bytes - at, m->config.region->blocks, what);
    if (!n) return -EBADMSG;
    ahead = prefetch_from(m, payload, ahead, f->payload_bytes);
    int r = recover_apply_entry(m, &e, f->sequence + i, what);
    if (r) return r;
    at += n;
  }
  *what = "bytes behind the last entry";
  return at == f->payload_bytes ? 0 : -EBADMSG;
}

/* ---- Walking the chain ------------------------------------------------------------------- */

const char *next_in_chain(struct log_reader *r, struct walk *w, struct frame *f, const char **what,
                          int *error) {
  const char *buf = read_frame(r, w->position, f, what, error);
  if (!buf) return NULL;
  *what = "does not follow the frame before";
  if (w->chained && (f->chain != w->chain || f->sequence != w->sequence)) return NULL;
  /* Nobody writes a frame of an open, or after an epoch, before the root of it is durable. */
  if (f->incarnation > r->incarnation || f->epoch > r->epoch) r->root_lost = true;
  w->position = log_next(w->position, frame_blocks(f->payload_bytes), f->flags,
                         r->m->config.region->log_blocks);
  w->sequence = f->sequence + f->entry_count;
  w->chain = f->checksum;
  w->chained = true;
  return buf;
}

#define REFUSE(position, ...)                                                                      \
  do {                                                                                             \
    uint64_t used_ = (uint64_t)snprintf(                                                           \
        why, why_bytes, "log position %llu (region block %llu): ", (unsigned long long)(position), \
        (unsigned long long)log_place(position, m->config.region->log_blocks));                    \
    if (used_ < why_bytes) snprintf(why + used_, why_bytes - used_, __VA_ARGS__);                  \
  } while (0)

/* Applies the frame at w, which must be there. */
static int replay_one(struct manifest *m, struct log_reader *r, struct walk *w, char *why,
                      size_t why_bytes) {
  struct frame f;
  const char *what = "";
  int error = 0;
  uint64_t position = w->position;
  const char *buf = next_in_chain(r, w, &f, &what, &error);
  if (buf) error = apply_frame(m, &f, buf, &what);
  if (!buf && !error) error = -EBADMSG;
  if (error) REFUSE(position, "%s", what);
  return error;
}

/* All frames from w up to a position. */
static int replay(struct manifest *m, struct log_reader *r, struct walk *w, uint64_t end, char *why,
                  size_t why_bytes) {
  while (w->position < end) {
    int error = replay_one(m, r, w, why, why_bytes);
    if (error) return error;
  }
  if (w->position == end) return 0;
  REFUSE(end, "a frame lies across the committed end");
  return -EBADMSG;
}

/* The frames from w on that count by themselves. */
static int replay_verified(struct manifest *m, struct log_reader *r, struct walk *w, uint64_t end,
                           char *why, size_t why_bytes) {
  for (;;) {
    int counts = counts_by_itself(r, w, r->incarnation, end);
    if (counts < 0)
      REFUSE(w->position, "what this frame names cannot be read: %s", strerror(-counts));
    if (counts == 0 && r->mismatch)
      log_line(
          &m->config.logger, 1,
          "shard %u: log position %llu: data of the last changes are not there: dropped, as of a "
          "commit that a crash has stopped",
          m->config.shard, (unsigned long long)w->position);
    if (counts <= 0) return counts;
    int error = replay_one(m, r, w, why, why_bytes);
    if (error) return error;
  }
}

/* The chain has ended at a position. If, further on, a frame of this incarnation says that more was
 * durable, the end is no torn tail. A commit frame there tells of nothing that is not proven
 * already, unless it lies behind that. */
static int check_for_hole(const struct manifest *m, struct log_reader *r, const struct walk *w,
                          uint64_t proven, uint64_t limit, char *why, size_t why_bytes) {
  uint64_t incarnation = r->incarnation;
  uint64_t log = m->config.region->log_blocks;
  if (w->position < limit && w->position > proven && is_damaged_commit(r, w, incarnation)) {
    REFUSE(w->position, "a commit with one wrong bit");
    return -EBADMSG;
  }
  for (uint64_t p = w->position + 1; p < w->position + HOLE_SCAN_BLOCKS && p < limit; p++) {
    struct frame f;
    const char *what;
    int error;
    if (!read_frame(r, p, &f, &what, &error)) continue;
    if (f.incarnation != incarnation || f.sequence < w->sequence) continue;
    uint64_t told = 0;
    struct walk from = {.position = p};
    error = find_proven(r, &from, incarnation, limit, &told);
    if (error) return error;
    if (told <= w->position) continue;
    REFUSE(w->position, "damaged, but committed: a frame behind it says so of all up to block %llu",
           (unsigned long long)log_place(told, log));
    return -EBADMSG;
  }
  return 0;
}

/* Tables that grow while the log is replayed cost more than the replay. The root says how many
 * blobs there will be; it is not believed beyond what the log can hold. */
int recover_make_room(struct manifest *m) {
  const struct root_shard *s = &m->root;
  uint64_t entries = ((s->log_tail - s->log_head) << BLOCK_SHIFT) / ENTRY_SMALL_BYTES;
  uint64_t blobs = min_u64(s->blobs, index_count(m->index) + entries);
  for (uint32_t p = 0; p < INDEX_PARTITIONS && blobs > index_count(m->index); p++)
    if (index_reserve_partition(m->index, p, div_up(blobs, INDEX_PARTITIONS))) return -ENOMEM;
  return 0;
}

static bool config_survives(const struct manifest *m) {
  return m->config.survived && !m->config.read_only;
}

/* Behind the root's tail: what counts there. */
static int replay_tail(struct manifest *m, struct log_reader *r, struct walk *w, char *why,
                       size_t why_bytes) {
  uint64_t proven = w->position, limit = m->root.log_head + m->config.region->log_blocks;
  struct walk end = *w;
  int e = find_proven(r, &end, r->incarnation, limit, &proven);
  if (config_survives(m)) proven = end.position; /* whole frames are enough */
  if (!e) e = check_for_hole(m, r, &end, proven, limit, why, why_bytes);
  if (e && e != -EBADMSG) REFUSE(end.position, "cannot be read: %s", strerror(-e));
  if (!e && r->root_lost) { /* by what follows, or by what lies behind the chain's end */
    REFUSE(end.position,
           "written after a newer root than epoch %llu was durable: that root is lost",
           (unsigned long long)r->epoch);
    e = -EBADMSG;
  }
  if (!e) e = replay(m, r, w, proven, why, why_bytes);
  return e ? e : replay_verified(m, r, w, end.position, why, why_bytes);
}

static int replay_log(struct manifest *m, const struct root *root, char *why, size_t why_bytes) {
  const struct root_shard *s = &root->shards[m->config.shard];
  struct log_reader r = {.m = m,
                         .incarnation = root->incarnation,
                         .epoch = root->epoch,
                         .rewrites =
                             m->config.device && !m->config.read_only && !PLANTED(trust_the_tail),
                         .window = aligned_alloc(BLOCK_BYTES, WINDOW_BLOCKS << BLOCK_SHIFT)};
  if (!r.window) return -ENOMEM;
  struct walk w = {.position = s->log_head};
  int e = recover_make_room(m);
  if (!e) e = replay(m, &r, &w, s->log_tail, why, why_bytes);
  if (!e && w.chained && (w.chain != s->chain || w.sequence != s->sequence)) {
    REFUSE(s->log_tail, "the log's end is not the one that the root names");
    e = -EBADMSG;
  }
  if (!e) {
    w = (struct walk){s->log_tail, s->sequence, s->chain, true};
    e = replay_tail(m, &r, &w, why, why_bytes);
  }
  free(r.window);
  free(r.data);
  m->position = w.position;
  m->sequence = w.sequence;
  m->chain = w.chain;
  if (!e && config_survives(m)) e = recover_survived(m, why, why_bytes);
  return e;
}

/* ---- Free space -------------------------------------------------------------------------- */

struct claims {
  struct manifest *m;
  char *why;
  size_t why_bytes;
};

static int claim_blob(void *arg, uint64_t hash, const struct blob *b) {
  struct claims *c = arg;
  (void)hash;
  for (uint32_t i = 0; i < b->extent_count; i++) {
    if (space_claim(c->m->space, b->extents[i].block, b->extents[i].blocks) == 0) continue;
    snprintf(c->why, c->why_bytes, "blob %016llx%016llx: block %llu belongs to another as well",
             (unsigned long long)b->id.hi, (unsigned long long)b->id.lo,
             (unsigned long long)b->extents[i].block);
    return -EBADMSG;
  }
  return 0;
}

int recover_claim_all(struct manifest *m, char *why, size_t why_bytes) {
  struct claims c = {m, why, why_bytes};
  int r = space_claim(m->space, 0, m->config.region->log_blocks);
  if (!r) r = checkpoint_claim(m, why, why_bytes);
  for (uint32_t p = 0; !r && p < INDEX_PARTITIONS; p++)
    r = index_partition_visit(m->index, p, claim_blob, &c);
  return r ? r : recover_claim_clusters(m, why, why_bytes);
}

/* ---- All of it --------------------------------------------------------------------------- */

static void oldest_partition_first(struct manifest *m) {
  uint64_t oldest = UINT64_MAX;
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    uint64_t position = m->of_partition[p] ? m->of_partition[p]->position : 0;
    if (position < oldest) {
      oldest = position;
      m->next_partition = p;
    }
  }
  m->pending_head = min_u64(oldest, m->position);
}

int manifest_recover(struct manifest **out, const struct manifest_config *config,
                     const struct root *root, char *why, size_t why_bytes) {
  struct manifest *m = calloc(1, sizeof *m);
  if (!m) return -ENOMEM;
  m->config = *config;
  m->store_key = log_store_key(config->uuid);
  m->root = root->shards[config->shard];
  m->durable_head = m->root.log_head;
  m->flushed_position = m->told_position = m->root.log_tail;
  m->epoch = root->epoch;
  m->zeroed_blocks = m->root.zeroed_blocks;
  int r = index_create(&m->index, config->hash_key);
  if (!r) r = map_create(&m->map, config->hash_key);
  if (!r) r = records_create(&m->records, config->hash_key);
  if (!r) r = space_create(&m->space, config->region->blocks);
  if (!r) r = manifest_log_create(m);
  if (!r) r = checkpoint_create(m);
  if (!r && config->region->log_blocks < LOG_BLOCKS_MIN) {
    snprintf(why, why_bytes, "a log of %llu blocks: at least %u are needed",
             (unsigned long long)config->region->log_blocks, LOG_BLOCKS_MIN);
    r = -EINVAL;
  }
  if (!r && !config->damaged && m->root.log_tail - m->root.log_head > config->region->log_blocks) {
    snprintf(why, why_bytes, "root: a log longer than its ring");
    r = -EBADMSG;
  }
  if (!r && config->damaged) {
    r = recover_damaged(m, root);
  } else {
    if (!r) r = checkpoint_load(m, &m->root, why, why_bytes);
    if (!r) r = replay_log(m, root, why, why_bytes);
    if (!r) r = recover_claim_all(m, why, why_bytes);
  }
  if (r) {
    manifest_destroy(m);
    return r;
  }
  recover_drop_empty_layers(m);
  m->covered = m->committed = config_survives(m) ? m->root.sequence : m->sequence;
  oldest_partition_first(m);
  checkpoint_take_reserve(m);
  /* What a killed process has overwritten in place can be read, and yet lie in the device's cache
   * alone: the first flush covers it. */
  if (config->device && !config->read_only && map_layer_next(m->map, NULL) &&
      !PLANTED(trust_the_cache))
    m->notes++;
  else if (config_survives(m))
    m->notes++; /* nor is what it had written anew flushed */
  m->unsettled = config_survives(m) || m->position > m->root.log_tail;
  *out = m;
  return 0;
}
