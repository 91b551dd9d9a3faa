/* scrub.c - see scrub.h. Owned by the core's thread.
 *
 * A root slot may be written while it is read. So a slot that looks bad is looked at again when the
 * epoch has moved on or a root is on its way. What a slot must hold follows from the newest epoch
 * E: the slots of E and E-1 a good copy of just that epoch (zeros where there was none yet), the
 * other two slots what root_mirror_of_epoch() says, or what was there before; they may be torn. */
#include "runtime/scrub.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/store.h"
#include "shards/base/crc32c.h"

#define BURST_BYTES (256 << 10)
#define RETRIES_MAX 1000u

/* ---- Identities --------------------------------------------------------------------------- */

static void report(struct core *core, enum damage_kind kind, uint32_t backing, uint64_t block,
                   uint64_t blocks, int error, const char *what) {
  struct store *store = core->store;
  struct layout_scrub *x = &core->scrub.layout;
  struct damage d = {.kind = kind,
                     .error = error,
                     .shard = DAMAGE_NO_SHARD,
                     .backing = store->layout->backings[backing]->name,
                     .block = block,
                     .blocks = blocks,
                     .what = what};
  x->damaged += kind != DAMAGE_NOTE;
  x->unreadable += kind != DAMAGE_NOTE && error != -EBADMSG;
  damage_log_report(&store->damage, &d);
}

static void check_identity(struct core *core, uint32_t backing, bool second, uint64_t block,
                           int error) {
  struct layout_scrub *x = &core->scrub.layout;
  const struct layout *l = core->store->layout;
  struct identity *id = malloc(sizeof *id);
  char why[120] = "", text[160];
  if (!id) return;
  if (error) snprintf(why, sizeof why, "cannot be read: %s", strerror(-error));
  int r = error ? error : identity_decode(id, x->buf, why, sizeof why);
  if (r == -EROFS) r = 0;
  if (!r && (memcmp(id->uuid, l->uuid, 16) != 0 || id->backing_index != backing)) {
    snprintf(why, sizeof why, "of another store or part");
    r = -EBADMSG;
  }
  uint32_t sum = crc32c(0, x->buf, FORMAT_IDENTITY_BLOCKS << BLOCK_SHIFT);
  if (!r && second && x->seen && x->seen_generation == id->generation && x->seen_checksum != sum) {
    snprintf(why, sizeof why, "the two copies contradict each other");
    r = -EBADMSG;
  }
  snprintf(text, sizeof text, "%s identity copy: %s", second ? "second" : "first", why);
  if (r) report(core, DAMAGE_IDENTITY, backing, block, FORMAT_IDENTITY_BLOCKS, r, text);
  x->seen = !r;
  x->seen_generation = id->generation;
  x->seen_checksum = sum;
  free(id);
}

/* ---- Root slots --------------------------------------------------------------------------- */

static bool all_zero(const char *p, uint64_t bytes) {
  uint64_t i = 0;
  while (i < bytes && !p[i]) i++;
  return i == bytes;
}

/* The epochs whose roots a slot may hold when E is the newest; 0: none was ever written there. The
 * last two roots are in their slots; in the other two lie their mirrors, if these were written,
 * else what was there before. */
struct expected {
  uint64_t epochs[2];
  bool may_be_torn;
};
static uint64_t before(uint64_t epoch, uint64_t back) { return epoch > back ? epoch - back : 0; }
static struct expected expected_in_slot(uint64_t newest, uint32_t slot) {
  uint64_t back = (newest - slot) % FORMAT_ROOT_SLOTS;
  if (back < 2) return (struct expected){{before(newest, back), before(newest, back)}, false};
  return (struct expected){{before(newest, back - 2), before(newest, back)}, true};
}

/* What is wrong with a copy; NULL: nothing. */
static const char *copy_fault(struct core *core, const char *copy, const struct expected *e,
                              char *why, size_t why_bytes) {
  const struct layout *l = core->store->layout;
  uint64_t bytes = (l->root_slot_blocks / 2) << BLOCK_SHIFT;
  if (!e->epochs[1] && all_zero(copy, bytes)) return NULL;
  if (!e->epochs[0]) return "never written, but not zeros";
  struct root *root = malloc(sizeof *root);
  if (!root) return NULL;
  int r = root_decode(root, l->uuid, l->shard_count, copy, why, why_bytes);
  bool wrong = !r && root->epoch != e->epochs[0] && root->epoch != e->epochs[1];
  free(root);
  return r ? why : wrong ? "an epoch that does not belong here" : NULL;
}

/* A power cut may leave one copy of a slot torn: the root counts all the same, by the other one,
 * and the next roots overwrite it. So that is told, but it is no damage. False: to be read again.
 */
static bool check_slot(struct core *core, uint32_t slot, uint64_t block, int error) {
  struct layout_scrub *x = &core->scrub.layout;
  struct store *store = core->store;
  uint64_t newest = store->layout->root->epoch, copy = store->layout->root_slot_blocks / 2;
  const struct expected expected = expected_in_slot(newest, slot);
  bool moving =
      x->epoch != newest || store->flusher.state != FLUSH_IDLE || store->flusher.mirroring;
  const char *what[2];
  char why[2][120] = {"", ""}, text[220];
  for (uint32_t i = 0; i < 2; i++)
    what[i] = error ? "cannot be read"
                    : copy_fault(core, x->buf + i * (copy << BLOCK_SHIFT), &expected, why[i],
                                 sizeof why[i]);
  if ((what[0] || what[1]) && moving) /* written all the time: in the end left to the next pass */
    return x->retries++ >= RETRIES_MAX;
  for (uint32_t i = 0; i < 2; i++) {
    if (!what[i]) continue;
    bool harmless = expected.may_be_torn || !what[i ^ 1];
    snprintf(text, sizeof text, "root slot %u copy %u: %s%s", slot, i, what[i],
             expected.may_be_torn ? "; one of the next roots goes there"
             : harmless           ? "; the other copy serves; torn by a power cut, or damaged"
                                  : "");
    report(core, harmless ? DAMAGE_NOTE : DAMAGE_ROOT, 0, block + i * copy, copy,
           error ? error : -EBADMSG, text);
  }
  return true;
}

/* ---- Both --------------------------------------------------------------------------------- */

/* What the n-th read is of; false: there is none. */
static bool place_of(const struct layout *l, uint32_t n, uint32_t *backing, uint64_t *block,
                     uint64_t *blocks) {
  uint32_t copies = 2 * l->backing_count;
  if (l->memory || n >= copies + FORMAT_ROOT_SLOTS) return false;
  *backing = n < copies ? n / 2 : 0;
  if (n < copies) {
    *blocks = FORMAT_IDENTITY_BLOCKS;
    *block = n % 2 ? l->used_blocks[*backing] - *blocks : 0;
  } else {
    *blocks = l->root_slot_blocks;
    *block = l->root_block + (n - copies) * *blocks;
  }
  return true;
}

static void layout_read(struct io *io) {
  struct layout_scrub *x = container_of(io, struct layout_scrub, io);
  x->busy = false; /* the tick looks at it */
}

static void check_read(struct core *core) {
  struct layout_scrub *x = &core->scrub.layout;
  const struct layout *l = core->store->layout;
  uint32_t backing;
  uint64_t block, blocks;
  bool done = true;
  check(place_of(l, x->next, &backing, &block, &blocks));
  if (x->next < 2 * l->backing_count)
    check_identity(core, backing, x->next % 2, block, x->io.result);
  else
    done = check_slot(core, x->next - 2 * l->backing_count, block, x->io.result);
  x->next += done;
  x->done_bytes += done ? blocks << BLOCK_SHIFT : 0;
}

static uint64_t layout_step(struct core *core) {
  struct layout_scrub *x = &core->scrub.layout;
  const struct layout *l = core->store->layout;
  uint32_t backing;
  uint64_t block, blocks;
  if (x->busy || x->finished) return 0;
  if (x->io.done) check_read(core);
  x->io.done = NULL;
  while (place_of(l, x->next, &backing, &block, &blocks) && l->used_blocks[backing] == 0)
    x->next++; /* a part that is not there */
  if (!place_of(l, x->next, &backing, &block, &blocks)) {
    x->finished = true;
    free(x->buf);
    x->buf = NULL;
    return 0;
  }
  if (x->next >= 2 * l->backing_count && core->store->flusher.state == FLUSH_ROOTING) return 0;
  /* 0 fits none: a mirror that is written while the slot is read makes it be read again. */
  x->epoch = core->store->flusher.mirroring ? 0 : l->root->epoch;
  x->io = (struct io){.done = layout_read,
                      .buf = x->buf,
                      .offset = block << BLOCK_SHIFT,
                      .bytes = (uint32_t)(blocks << BLOCK_SHIFT),
                      .file = (uint16_t)backing,
                      .op = IO_READ};
  x->busy = true;
  device_submit(core->device, &x->io);
  return blocks << BLOCK_SHIFT;
}

static int layout_begin(struct core *core) {
  struct layout_scrub *x = &core->scrub.layout;
  const struct layout *l = core->store->layout;
  uint64_t blocks = max_u64(FORMAT_IDENTITY_BLOCKS, l->root_slot_blocks);
  free(x->buf);
  *x = (struct layout_scrub){.finished = core->index != 0 || l->memory};
  if (x->finished) return 0;
  x->buf = aligned_alloc(BLOCK_BYTES, blocks << BLOCK_SHIFT);
  return x->buf ? 0 : -ENOMEM;
}

/* ---- A core's pass ------------------------------------------------------------------------ */

static struct shard *shard_at(const struct core *core, uint32_t i) {
  return core->shards[core->mine[i]].shard;
}

/* Something to scrub. */
static bool has_part(const struct core *core) {
  return core->mine_count > 0 || (core->index == 0 && !core->store->layout->memory);
}

static int begin_pass(struct core *core) {
  int r = layout_begin(core);
  core->scrub.at = 0;
  if (!r && core->mine_count) r = shard_scrub_start(shard_at(core, 0));
  return r;
}

int core_scrub_start(struct core *core, const struct scrub_request *q) {
  struct core_scrub *x = &core->scrub;
  uint32_t sharing = 0;
  if (x->on) return -EBUSY;
  if (!has_part(core)) return 0;
  for (uint32_t i = 0; i < core->store->core_count; i++)
    sharing += core->store->cores[i].mine_count > 0;
  x->on = true;
  x->stopping = false;
  x->continuous = q->continuous;
  x->bytes_per_second =
      q->bytes_per_second ? max_u64(q->bytes_per_second / max_u64(sharing, 1), 1) : 0;
  x->credit_bytes = 0;
  x->last_ns = clock_now_ns(&core->store->clock);
  int r = begin_pass(core);
  if (r) core_scrub_stop(core);
  return r;
}

void core_scrub_stop(struct core *core) {
  struct core_scrub *x = &core->scrub;
  if (!x->on) return;
  x->stopping = true;
  for (uint32_t i = 0; i < core->mine_count; i++)
    if (shard_at(core, i)) shard_scrub_stop(shard_at(core, i));
  if (core_scrub_busy(core)) return; /* the tick ends it */
  free(x->layout.buf);
  x->layout = (struct layout_scrub){.finished = true,
                                    .damaged = x->layout.damaged,
                                    .unreadable = x->layout.unreadable,
                                    .done_bytes = x->layout.done_bytes};
  x->on = false;
}

bool core_scrub_busy(const struct core *core) {
  struct shard_scrub_stats st;
  if (core->scrub.layout.busy) return true;
  for (uint32_t i = 0; core->scrub.stopping && i < core->mine_count; i++) {
    if (!shard_at(core, i)) continue;
    shard_scrub_stats(shard_at(core, i), &st);
    if (st.running) return true;
  }
  return false;
}

/* True if the pass is at its end. */
static bool next_shard(struct core *core) {
  struct core_scrub *x = &core->scrub;
  struct shard_scrub_stats st;
  while (x->at < core->mine_count) {
    shard_scrub_stats(shard_at(core, x->at), &st);
    if (st.running) return false;
    if (++x->at < core->mine_count && shard_scrub_start(shard_at(core, x->at))) x->at--;
    if (x->at < core->mine_count) return false; /* out of memory: tried again */
  }
  return x->layout.finished;
}

static void earn(struct core *core) {
  struct core_scrub *x = &core->scrub;
  uint64_t now = clock_now_ns(&core->store->clock), gone = now - x->last_ns;
  int64_t most = (int64_t)max_u64(BURST_BYTES, x->bytes_per_second / 8);
  x->last_ns = now;
  uint64_t earned = (uint64_t)((__uint128_t)gone * x->bytes_per_second / 1000000000u);
  if (earned == 0) x->last_ns -= gone; /* too short a time: it still counts */
  x->credit_bytes += (int64_t)min_u64(earned, (uint64_t)most);
  if (x->credit_bytes > most) x->credit_bytes = most;
}

bool core_scrub_tick(struct core *core) {
  struct core_scrub *x = &core->scrub;
  if (!x->on) return false;
  bool quiet = atomic_load_explicit(&core->quiet, memory_order_acquire), more = false;
  if (x->stopping || quiet) {
    for (uint32_t i = 0; i < core->mine_count; i++) shard_scrub_step(shard_at(core, i), 0, &more);
    core_scrub_stop(core);
    return true;
  }
  uint64_t budget = UINT64_MAX, done = 0;
  if (x->bytes_per_second) {
    earn(core);
    budget = x->credit_bytes > 0 ? (uint64_t)x->credit_bytes : 0;
  }
  if (budget) done = layout_step(core);
  if (x->at < core->mine_count && done < budget)
    done += shard_scrub_step(shard_at(core, x->at), budget - done, &more);
  if (x->bytes_per_second) x->credit_bytes -= (int64_t)done;
  if (!next_shard(core)) return done > 0 || more;
  x->passes++;
  if (!x->continuous || begin_pass(core)) x->on = false;
  return true;
}

int64_t core_scrub_wait_ns(const struct core *core) {
  const struct core_scrub *x = &core->scrub;
  const uint64_t most = 1000000000u; /* what could not begin for want of memory is tried again */
  if (!x->on) return -1;
  if (!x->bytes_per_second || x->credit_bytes > 0) return (int64_t)most;
  return (int64_t)min_u64((uint64_t)(1 - x->credit_bytes) * most / x->bytes_per_second + 1, most);
}

void core_scrub_totals(const struct core *core, struct scrub_totals *t) {
  const struct core_scrub *x = &core->scrub;
  if (!has_part(core)) return;
  t->running += x->on;
  t->passes = min_u64(t->passes, x->passes);
  t->done_bytes += x->layout.done_bytes;
  t->damaged_metadata += x->layout.damaged;
  t->unreadable += x->layout.unreadable;
  if (core->index == 0 && !core->store->layout->memory)
    t->total_bytes += (2 * core->store->layout->backing_count * FORMAT_IDENTITY_BLOCKS +
                       FORMAT_ROOT_SLOTS * core->store->layout->root_slot_blocks)
                      << BLOCK_SHIFT;
  for (uint32_t i = 0; i < core->mine_count; i++) {
    struct shard_scrub_stats st;
    shard_scrub_stats(shard_at(core, i), &st);
    bool due = x->on && i > x->at; /* its numbers are those of the pass before */
    t->total_bytes += due ? shard_scrub_bytes(shard_at(core, i)) : st.total_bytes;
    if (due) continue;
    t->done_bytes += st.done_bytes;
    t->blobs += st.blobs;
    t->damaged_blobs += st.damaged_blobs;
    t->damaged_metadata += st.damaged_metadata;
    t->unreadable += st.unreadable;
    t->unverified_blobs += st.unverified_blobs;
    t->blocks += st.blocks;
    t->damaged_blocks += st.damaged_blocks;
  }
}
