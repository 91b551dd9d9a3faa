/* recover_damaged.c - recovery of a shard in spite of damage, for read-only opens. Synchronous, on
 * the thread of the shard's core; changes nothing on disk.
 *
 *   checkpoints, each that is sound -> the log from head to committed end; where a frame is bad,
 *   on with the next one that is sound in itself and fits (store, shard, position, incarnation,
 *   sequence) -> claims; a blob whose blocks belong to a later one is dropped
 *
 * All that is bad is reported through manifest_config.damage; manifest.losses holds what follows
 * from it. Nothing is cut off: the committed end is where the root or a later commit says. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shards/losses.h"
#include "shards/recover.h"

/* ---- What is lost ------------------------------------------------------------------------ */

/* Changes [from, to) are missing; to: UINT64_MAX if that is not known. Checkpoints taken later have
 * their effect. */
static int lose_changes(struct manifest *m, uint64_t from, uint64_t to) {
  struct losses *l = m->losses;
  if (to <= from) return 0;
  for (uint32_t p = 0; p < INDEX_PARTITIONS; p++) {
    const struct checkpoint *c = checkpoint_of(m, p);
    if (c && to <= c->sequence) continue;
    l->old[p] = l->partition[p] = true;
  }
  index_destroy(l->certain);
  map_destroy(l->certain_clusters);
  l->certain = NULL;
  l->certain_clusters = NULL;
  int r = index_create(&l->certain, m->config.hash_key);
  return r ? r : map_create(&l->certain_clusters, m->config.hash_key);
}

void recover_report_log(const struct manifest *m, uint64_t position, uint64_t blocks,
                        uint64_t changes, int error, const char *what) {
  char text[240];
  uint64_t place = log_place(position, m->config.region->log_blocks);
  size_t used = (size_t)snprintf(text, sizeof text, "log position %llu: %s; ",
                                 (unsigned long long)position, what);
  if (changes == DAMAGE_COUNT_UNKNOWN)
    snprintf(text + used, sizeof text - used, "how many changes are lost is unknown");
  else
    snprintf(text + used, sizeof text - used, "%llu changes lost", (unsigned long long)changes);
  struct damage d = {.kind = DAMAGE_LOG,
                     .error = error ? error : -EBADMSG,
                     .shard = m->config.shard,
                     .blocks = blocks,
                     .changes = changes,
                     .what = text};
  damage_place(&d, m->config.region, place);
  damage_report(&m->config.damage, &d);
}

/* ---- Applying ---------------------------------------------------------------------------- */

/* 0, -ENOMEM, or -ENOENT: deletes what is not there, and nothing lost could have been it. */
static int apply_entry(struct manifest *m, const struct entry *e, uint64_t sequence) {
  struct losses *l = m->losses;
  if (!entry_is_blob(e->type)) return recover_apply_volume(m, e, sequence);
  uint64_t hash = hash_id(e->blob.id, m->config.hash_key);
  uint32_t p = index_partition_of(hash);
  const struct checkpoint *c = checkpoint_of(m, p);
  if (c && sequence < c->sequence) return 0;
  struct blob mark = {.id = e->blob.id, .granule_shift = BLOCK_SHIFT};
  int r = 0;
  if (l->old[p]) {
    r = index_reserve(l->certain, hash, 0, 0);
    if (!r) r = index_put(l->certain, hash, &mark);
  }
  if (r) return r;
  if (e->type == ENTRY_DELETE)
    return index_delete(m->index, hash, e->blob.id) && !l->partition[p] ? -ENOENT : 0;
  r = manifest_index_room(m, hash, &e->blob);
  return r ? r : index_put(m->index, hash, &e->blob);
}

/* 0, -ENOMEM, or -EBADMSG: an entry is not one, the rest of the frame is lost. */
static int apply_frame(struct manifest *m, const struct frame *f, const char *buf) {
  const char *payload = buf + FRAME_HEADER_BYTES, *what = "";
  uint64_t at = 0;
  for (uint32_t i = 0; i < f->entry_count; i++) {
    struct entry e;
    uint32_t n =
        log_entry_decode(&e, payload + at, f->payload_bytes - at, m->config.region->blocks, &what);
    if (!n) {
      recover_report_log(m, f->position, frame_blocks(f->payload_bytes), f->entry_count - i, 0,
                         what);
      return lose_changes(m, f->sequence + i, f->sequence + f->entry_count);
    }
    int r = apply_entry(m, &e, f->sequence + i);
    if (r == -ENOENT)
      recover_report_log(m, f->position, frame_blocks(f->payload_bytes), 0, 0,
                         "deletes a blob that is not there");
    else if (r)
      return r;
    at += n;
  }
  if (at != f->payload_bytes)
    recover_report_log(m, f->position, frame_blocks(f->payload_bytes), 0, 0,
                       "bytes behind the last entry");
  return 0;
}

/* ---- The log ----------------------------------------------------------------------------- */

struct replay {
  struct log_reader reader;
  struct walk w;
  uint64_t incarnation; /* of the last good frame */
  uint64_t incarnation_max;
};

/* A sound frame at a position that may follow after a gap: not older than what came before it, and
 * what follows it does not contradict. Then in *out. */
static bool fits_after_gap(struct replay *x, uint64_t position, uint64_t end, struct frame *out) {
  struct log_reader *r = &x->reader;
  struct frame f, g;
  const char *what;
  int error;
  if (!read_frame(r, position, &f, &what, &error)) return false;
  if (f.incarnation < x->incarnation || f.incarnation > x->incarnation_max ||
      f.sequence < x->w.sequence)
    return false;
  uint64_t next =
      log_next(position, frame_blocks(f.payload_bytes), f.flags, r->m->config.region->log_blocks);
  if (next > end) return false;
  if (next < end && read_frame(r, next, &g, &what, &error) &&
      (g.chain != f.checksum || g.sequence != f.sequence + f.entry_count))
    return false;
  *out = f;
  return true;
}

/* The frame at w is bad: w goes on to the next one that fits, or to the end. */
static int skip_gap(struct manifest *m, struct replay *x, uint64_t end, uint64_t end_sequence,
                    int error, const char *what) {
  struct walk *w = &x->w;
  uint64_t from = w->position, p = from;
  struct frame f = {.sequence = end_sequence};
  while (p < end && !fits_after_gap(x, p, end, &f)) p++;
  bool known = f.sequence != DAMAGE_COUNT_UNKNOWN;
  /* At the log's head it is not known which change is the first one. */
  bool counted = known && w->sequence > 0;
  recover_report_log(m, from, p - from, counted ? f.sequence - w->sequence : DAMAGE_COUNT_UNKNOWN,
                     error, what);
  m->losses->unknown |= !counted;
  int r = lose_changes(m, w->sequence, known ? f.sequence : UINT64_MAX);
  *w = (struct walk){.position = p, .sequence = known ? f.sequence : w->sequence};
  return r;
}

/* Applies what is sound of [w, end). end_sequence: of the first change behind it. */
static int replay(struct manifest *m, struct replay *x, uint64_t end, uint64_t end_sequence) {
  int r = 0;
  while (!r && x->w.position < end) {
    struct frame f;
    const char *what = "";
    int error = 0;
    struct walk next = x->w;
    const char *buf = next_in_chain(&x->reader, &next, &f, &what, &error);
    if (error == -ENOMEM) return error;
    if (buf && next.position <= end) {
      x->w = next;
      x->incarnation = f.incarnation;
      r = apply_frame(m, &f, buf);
    } else {
      r = skip_gap(m, x, end, end_sequence, error, buf ? "a frame across the end" : what);
    }
  }
  return r;
}

/* Where the committed log ends. */
struct log_end {
  uint64_t position;
  uint64_t
      sequence; /* of the next change, if the last frame is bad; else unknown: that frame says it */
  uint64_t chain_end;
  int error; /* the place where the chain ends cannot be read: perhaps it is not the end */
};

/* The next place behind w from which frames say that more was durable: w goes behind them. 0: none.
 */
static uint64_t next_commit(struct log_reader *r, struct walk *w, uint64_t incarnation,
                            uint64_t limit) {
  uint64_t past = min_u64(w->position + HOLE_SCAN_BLOCKS, limit), found = 0;
  for (uint64_t p = w->position + 1; p < past; p++) {
    struct frame f;
    const char *what;
    int error;
    if (!read_frame(r, p, &f, &what, &error)) continue;
    if (f.incarnation != incarnation || f.sequence < w->sequence) continue;
    struct walk from = {.position = p};
    (void)find_proven(r, &from, incarnation, limit, &found);
    if (found <= w->position) continue;
    *w = from;
    return found;
  }
  return 0;
}

/* Behind the root's tail: as far as a commit covers it, holes or not. */
static struct log_end find_end(struct log_reader *r, struct walk w, uint64_t incarnation,
                               uint64_t limit) {
  struct log_end end = {.position = w.position, .sequence = DAMAGE_COUNT_UNKNOWN};
  for (;;) {
    end.error = find_proven(r, &w, incarnation, limit, &end.position);
    end.chain_end = w.position;
    if (w.position < limit && w.position > end.position && is_damaged_commit(r, &w, incarnation)) {
      end.position = ++w.position;
      end.sequence = w.sequence;
      w.chained = false;
      continue;
    }
    uint64_t found = next_commit(r, &w, incarnation, limit);
    if (!found) return end;
    end.position = found;
    end.sequence = DAMAGE_COUNT_UNKNOWN;
  }
}

/* The frames behind w that count by themselves, up to the chain's end. *at: where data cannot be
 * read. */
static int replay_verified(struct manifest *m, struct replay *x, uint64_t end, uint64_t *at) {
  for (;;) {
    int r = counts_by_itself(&x->reader, &x->w, x->incarnation, end);
    *at = x->w.position;
    if (r <= 0) return r;
    struct frame f;
    const char *what;
    const char *buf = next_in_chain(&x->reader, &x->w, &f, &what, &r);
    r = buf ? apply_frame(m, &f, buf) : r;
    if (r) return r;
  }
}

static int replay_tail(struct manifest *m, struct replay *x, uint64_t limit) {
  struct log_end end = find_end(&x->reader, x->w, x->incarnation, limit);
  int r = replay(m, x, end.position, end.sequence);
  if (!r && !end.error) end.error = replay_verified(m, x, end.chain_end, &end.chain_end);
  if (end.error == -ENOMEM) return end.error;
  if (r || !end.error) return r;
  recover_report_log(m, end.chain_end, 1, DAMAGE_COUNT_UNKNOWN, end.error,
                     "cannot be read; whether the log ends here is unknown");
  return lose_changes(m, x->w.sequence, UINT64_MAX);
}

/* A newer root was durable and is lost. What it named begins with the frames that follow; where it
 * ended nobody knows, nor what the space that it let go of was used for. */
static int replay_beyond(struct manifest *m, struct replay *x, uint64_t limit) {
  int r = 0;
  while (!r && x->w.position < limit) {
    struct frame f;
    const char *what;
    int error;
    const char *buf = next_in_chain(&x->reader, &x->w, &f, &what, &error);
    if (!buf) break;
    r = apply_frame(m, &f, buf);
  }
  recover_report_log(m, x->w.position, 0, DAMAGE_COUNT_UNKNOWN, 0,
                     "a newer root than the one that serves is lost");
  return r ? r : lose_changes(m, 0, UINT64_MAX);
}

/* Checkpoints that were searched for may be older than the log's head. What lies before it may not
 * be overwritten yet: the first position from which sound frames lead to it. */
static uint64_t earlier_head(struct log_reader *r, const struct root_shard *s) {
  uint64_t log = r->m->config.region->log_blocks;
  for (uint64_t p = s->log_tail > log ? s->log_tail - log : 0; p < s->log_head;) {
    struct walk w = {.position = p};
    struct frame f;
    const char *what;
    int error;
    while (w.position < s->log_head && next_in_chain(r, &w, &f, &what, &error)) {
    }
    if (w.position == s->log_head) return p;
    p = w.position > p ? w.position : p + 1;
  }
  return s->log_head;
}

/* Changes before the first frame are in checkpoints that are recent enough, and lost otherwise. */
static int note_head(struct manifest *m, struct log_reader *r, uint64_t position) {
  struct frame f;
  const char *what;
  int error;
  if (position == 0 || !read_frame(r, position, &f, &what, &error)) return 0;
  return lose_changes(m, 1, f.sequence);
}

static int replay_log(struct manifest *m, const struct root *root) {
  const struct root_shard *s = &m->root;
  struct replay x = {.reader = {.m = m,
                                .incarnation = root->incarnation,
                                .epoch = root->epoch,
                                .window = aligned_alloc(BLOCK_BYTES, WINDOW_BLOCKS << BLOCK_SHIFT)},
                     .w = {.position = s->log_head, .sequence = s->log_head == 0},
                     .incarnation_max = root->incarnation};
  if (!x.reader.window) return -ENOMEM;
  int r = recover_make_room(m);
  if (m->losses->searched) {
    x.w.position = earlier_head(&x.reader, s);
    x.w.sequence = x.w.position == 0;
    if (!r) r = note_head(m, &x.reader, x.w.position);
  }
  if (!r) r = replay(m, &x, s->log_tail, s->sequence);
  if (!r && x.w.chained && (x.w.chain != s->chain || x.w.sequence != s->sequence)) {
    recover_report_log(m, s->log_tail, 0, DAMAGE_COUNT_UNKNOWN, 0,
                       "the log's end is not the one that the root names");
    r = lose_changes(m, s->sequence, UINT64_MAX);
  }
  if (!r) {
    uint64_t limit = s->log_head + m->config.region->log_blocks;
    x.w = (struct walk){s->log_tail, s->sequence, s->chain, true};
    x.incarnation = root->incarnation;
    r = replay_tail(m, &x, limit);
    if (!r && (m->config.root_lost || x.reader.root_lost)) r = replay_beyond(m, &x, limit);
  }
  free(x.reader.window);
  free(x.reader.data);
  m->position = x.w.position;
  m->sequence = x.w.sequence;
  m->chain = x.w.chain;
  return r;
}

/* ---- Claims ------------------------------------------------------------------------------ */

struct old_blobs {
  struct manifest *m;
  struct blob_id *ids;
  uint64_t count, max;
  bool certain; /* claims those; else the others */
};

static void report_old(struct manifest *m, struct blob_id id, const char *what) {
  struct damage d = {
      .kind = DAMAGE_OLD, .error = -EBADMSG, .shard = m->config.shard, .id = id, .what = what};
  damage_report(&m->config.damage, &d);
}

/* All or none of a blob's blocks. */
static bool claim(struct space *s, const struct blob *b) {
  uint32_t i = 0;
  while (i < b->extent_count && space_claim(s, b->extents[i].block, b->extents[i].blocks) == 0) i++;
  if (i == b->extent_count) return true;
  while (i-- > 0) space_unclaim(s, b->extents[i].block, b->extents[i].blocks);
  return false;
}

static int claim_blob(void *arg, uint64_t hash, const struct blob *b) {
  struct old_blobs *o = arg;
  if (manifest_is_old(o->m, hash, b->id) == o->certain || claim(o->m->space, b)) return 0;
  if (o->count == o->max) {
    uint64_t max = o->max ? 2 * o->max : 64;
    struct blob_id *ids = realloc(o->ids, max * sizeof *ids);
    if (!ids) return -ENOMEM;
    o->ids = ids;
    o->max = max;
  }
  o->ids[o->count++] = b->id;
  return 0;
}

static int drop_claimed(struct old_blobs *o) {
  for (uint64_t i = 0; i < o->count; i++) {
    uint64_t hash = hash_id(o->ids[i], o->m->config.hash_key);
    o->m->losses->partition[index_partition_of(hash)] = true;
    (void)index_delete(o->m->index, hash, o->ids[i]);
    report_old(o->m, o->ids[i],
               "blocks of it belong to another blob: it was replaced or deleted; left out");
  }
  o->count = 0;
  return 0;
}

static int name_old(void *arg, uint64_t hash, const struct blob *b) {
  struct manifest *m = arg;
  if (manifest_is_old(m, hash, b->id))
    report_old(m, b->id, "may be older than what was put last, or deleted since");
  return 0;
}

static int visit_all(struct manifest *m, int (*visit)(void *, uint64_t, const struct blob *),
                     void *arg) {
  int r = 0;
  for (uint32_t p = 0; !r && p < INDEX_PARTITIONS; p++)
    r = index_partition_visit(m->index, p, visit, arg);
  return r;
}

/* Blobs and clusters that are certain first: they are right. */
static int claim_all(struct manifest *m) {
  char why[200] = "";
  struct old_blobs o = {.m = m, .certain = true};
  int r = space_claim(m->space, 0, m->config.region->log_blocks);
  if (!r && checkpoint_claim(m, why, sizeof why)) {
    struct damage d = {
        .kind = DAMAGE_DIRECTORY, .error = -EBADMSG, .shard = m->config.shard, .what = why};
    damage_report(&m->config.damage, &d);
  }
  if (!r) r = visit_all(m, claim_blob, &o);
  if (!r) r = drop_claimed(&o);
  if (!r) r = recover_claim_damaged(m, true);
  o.certain = false;
  if (!r) r = visit_all(m, claim_blob, &o);
  if (!r) r = drop_claimed(&o);
  if (!r) r = recover_claim_damaged(m, false);
  if (!r) r = visit_all(m, name_old, m);
  if (!r) recover_report_volumes(m);
  free(o.ids);
  return r;
}

/* ---- All of it --------------------------------------------------------------------------- */

int manifest_absent(const struct manifest *m, uint64_t hash) {
  return m->losses && m->losses->partition[index_partition_of(hash)] ? -EBADMSG : -ENOENT;
}

bool manifest_is_old(const struct manifest *m, uint64_t hash, struct blob_id id) {
  struct blob b;
  if (!m->losses || !m->losses->old[index_partition_of(hash)]) return false;
  return index_find(m->losses->certain, hash, id, &b) != 0;
}

int recover_damaged(struct manifest *m, const struct root *root) {
  check(m->config.read_only);
  m->losses = calloc(1, sizeof *m->losses);
  int r = m->losses ? index_create(&m->losses->certain, m->config.hash_key) : -ENOMEM;
  if (!r) r = map_create(&m->losses->certain_clusters, m->config.hash_key);
  if (!r && m->root.log_tail - m->root.log_head > m->config.region->log_blocks) {
    recover_report_log(m, m->root.log_head, 0, DAMAGE_COUNT_UNKNOWN, 0,
                       "the root names a log longer than its ring");
    m->root.log_head = m->root.log_tail;
    r = lose_changes(m, 0, UINT64_MAX);
  }
  if (!r) r = checkpoint_load_damaged(m, &m->root);
  if (!r) r = replay_log(m, root);
  return r ? r : claim_all(m);
}
