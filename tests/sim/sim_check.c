/* sim_check.c - see sim_check.h. */
#include "tests/sim/sim_check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/sim/sim_vclient.h"

char sim_reproduce[256];

void sim_violation(const char *format, ...) {
  va_list args;
  va_start(args, format);
  fflush(stdout);
  printf("VIOLATION: ");
  vprintf(format, args);
  printf("\n  last error in the log: %s\n  reproduce: %s\n", sim_last_error, sim_reproduce);
  fflush(stdout);
  va_end(args);
  _exit(1);
}

void sim_trace(const char *format, ...) {
  static int on = -1;
  if (on < 0) on = getenv("SIM_LOG") != NULL;
  if (!on) return;
  va_list args;
  va_start(args, format);
  vfprintf(stderr, format, args);
  va_end(args);
}

/* ---- A set of hashes --------------------------------------------------------------------------
 */

static void seen_insert(struct seen *s, uint64_t hash) {
  uint64_t at = hash & (s->room - 1);
  while (s->slots[at]) at = (at + 1) & (s->room - 1);
  s->slots[at] = hash;
}

static void seen_grow(struct seen *s) {
  struct seen larger = {.room = s->room ? 2 * s->room : 4096, .count = s->count};
  larger.slots = calloc(larger.room, sizeof *larger.slots);
  check(larger.slots != NULL);
  for (uint64_t i = 0; i < s->room; i++)
    if (s->slots[i]) seen_insert(&larger, s->slots[i]);
  free(s->slots);
  *s = larger;
}

bool seen_add(struct seen *s, uint64_t hash) {
  hash |= !hash;
  if (2 * (s->count + 1) > s->room) seen_grow(s);
  for (uint64_t at = hash & (s->room - 1); s->slots[at]; at = (at + 1) & (s->room - 1))
    if (s->slots[at] == hash) return false;
  seen_insert(s, hash);
  s->count++;
  return true;
}

/* ---- A store against the model ----------------------------------------------------------------
 */

static void compare_list(struct sr_port *port, const struct model *m, const bool present[]) {
  struct sr_cursor cursor = {0};
  struct sr_entry entries[16];
  uint32_t listed = 0, expected = 0;
  bool was[MODEL_IDS_MAX] = {0};
  int n;
  while ((n = sr_list(port, &cursor, entries, array_size(entries))) > 0)
    for (int i = 0; i < n; i++) {
      int64_t id = sim_number(entries[i].id);
      if (id < 0 || id >= m->id_count || !present[id] || was[id])
        sim_violation("list: blob %016llx%016llx is %s", (unsigned long long)entries[i].id.hi,
                      (unsigned long long)entries[i].id.lo,
                      id >= 0 && id < m->id_count && was[id] ? "listed twice" : "not there");
      was[id] = true;
      listed++;
    }
  for (uint32_t i = 0; i < m->id_count; i++) expected += present[i];
  if (n < 0 || listed != expected) sim_violation("list: %d, %u of %u blobs", n, listed, expected);
  int64_t count = sr_count(port);
  if (count != expected) sim_violation("count: %lld, not %u", (long long)count, expected);
}

void sim_compare(struct sr_store *store, const struct model *m, bool damage, uint64_t found[]) {
  bool present[MODEL_IDS_MAX];
  struct sr_port *port;
  char *buf = aligned_alloc(BLOCK_BYTES, MODEL_BYTES_MAX);
  check(buf != NULL);
  if (sr_port_open(store, NULL, &port)) sim_violation("no port");
  for (uint32_t id = 0; id < m->id_count; id++) {
    uint32_t oldest = model_oldest(m, id);
    int64_t n = sr_get(port, sim_id(id), buf, 0, MODEL_BYTES_MAX);
    if (n == -EBADMSG && damage) {
      present[id] = true;
      found[id] = 0; /* some version of that size */
      uint64_t bytes = 0;
      if (sr_stat(port, sim_id(id), &bytes)) sim_violation("blob %u: damaged, and no stat", id);
      for (uint32_t v = oldest; v <= model_last(m, id); v++) {
        const struct version *x = model_version(m, id, v);
        if (!x->absent && x->outcome != FAILED && x->bytes == bytes)
          found[id] |= UINT64_C(1) << (v - oldest);
      }
      if (!found[id]) sim_violation("blob %u: damaged, but there is none", id);
      continue;
    }
    if (n < 0 && n != -ENOENT) sim_violation("blob %u: get: %s", id, strerror((int)-n));
    present[id] = n >= 0;
    found[id] = model_match(m, id, oldest, model_last(m, id), n >= 0, buf, n < 0 ? 0 : (uint64_t)n);
    if (!found[id])
      sim_violation("blob %u (shard %u): %s%lld bytes: none of its versions %u to %u (visible %u)",
                    id, sr_shard_of(store, sim_id(id)), n < 0 ? "not there, " : "", (long long)n,
                    oldest, model_last(m, id), m->rows[id].visible);
  }
  compare_list(port, m, present);
  const struct batch_record *torn = model_torn_batch(m, found);
  if (torn)
    sim_violation("a batch of %u, with blob %u, is there in part", torn->count, torn->id[0]);
  if (sr_port_close(port)) sim_violation("a port cannot be closed");
  free(buf);
}

/* ---- One state ----------------------------------------------------------------------------------
 */

static uint64_t expectation(const struct model *m) {
  uint64_t h = m->batch_count;
  for (uint32_t i = 0; i < m->id_count; i++)
    h = (h ^ model_oldest(m, i)) * UINT64_C(0x9e3779b97f4a7c15) + model_last(m, i);
  if (m->volumes) h ^= vmodel_expectation(m->volumes);
  return h;
}

#define SCRUB_SHARE 32 /* of how many states one is scrubbed as well */

/* Every byte that carries information, data and metadata: a power cut damages none. */
static void scrub(struct sr_store *store) {
  struct sr_port *port;
  struct sr_scrub_status status = {0};
  int r = sr_port_open(store, NULL, &port);
  if (!r) r = sr_scrub_start(port, NULL);
  for (uint32_t i = 0; !r && status.passes == 0; i++) {
    store_step(store_of(store));
    r = sr_scrub_status(port, &status);
    if (i > 1000000) sim_violation("a scrub does not end");
  }
  if (r) sim_violation("scrub: %s", strerror(-r));
  if (status.damaged_blobs || status.damaged_metadata || status.unreadable)
    sim_violation("after a power cut a scrub finds %llu damaged blobs, %llu damaged metadata",
                  (unsigned long long)status.damaged_blobs,
                  (unsigned long long)status.damaged_metadata);
  if (sr_port_close(port)) sim_violation("a port cannot be closed");
}

/* Returns a hash of the volumes. */
static uint64_t open_and_compare(struct checker *c, struct sim_io *io, const struct model *m,
                                 struct sim_memory *memory, uint64_t found[]) {
  struct sr_store *store;
  uint64_t volumes = 0;
  struct open_how how = {
      .cores = (uint32_t)random_in(&c->random, 1, c->shards), .works_max = 2, .memory = memory};
  int r = sim_open(&store, io, &how);
  if (r)
    sim_violation("after a %s the store does not open: %s", memory ? "kill" : "power cut",
                  strerror(-r));
  io->moment = NULL; /* what it writes while we compare is not of the recovery */
  sim_compare(store, m, false, found);
  if (m->volumes) volumes = sim_compare_volumes(store, m->volumes, FOUND_LOOK);
  if (random_up_to(&c->random, SCRUB_SHARE) == 0) {
    scrub(store);
    c->scrubs++;
  }
  sr_store_abandon(store);
  return volumes;
}

struct recovery {
  struct checker *c;
  const struct model *m;
  const uint64_t *found;
  uint64_t volumes;
  struct sim_io *image;
  struct cut cut;
  uint8_t *keep;
};

static void choose_sectors(struct checker *c, const struct cut *cut, uint8_t *keep);

/* The power fails again while the store opens: the same must come out as without. */
static void cut_while_opening(struct sim_io *io, void *arg) {
  struct recovery *x = arg;
  uint64_t found[MODEL_IDS_MAX];
  sim_cut_take(&x->cut, io);
  x->keep = realloc(x->keep, x->cut.count + 1);
  check(x->keep != NULL);
  choose_sectors(x->c, &x->cut, x->keep);
  sim_image_set(x->image, io, &x->cut, x->keep);
  sim_cut_clear(&x->cut);
  uint64_t volumes = open_and_compare(x->c, x->image, x->m, NULL, found);
  if (volumes != x->volumes)
    sim_violation("volumes: a power cut during recovery changed what the next one finds");
  for (uint32_t i = 0; i < x->m->id_count; i++)
    if (found[i] != x->found[i])
      sim_violation("blob %u: a power cut during recovery changed what the next one finds", i);
  x->c->recovery_cuts++;
}

static void check_recovery(struct checker *c, const struct sim_io *of, const uint8_t *keep,
                           const struct model *m, const uint64_t found[], uint64_t volumes) {
  struct sim_io io, image;
  uint64_t blocks[SIM_DISKS_MAX], again[MODEL_IDS_MAX];
  for (uint32_t i = 0; i < of->disk_count; i++) blocks[i] = of->disks[i].blocks;
  sim_io_create(&io, random_next(&c->random), of->disk_count, blocks);
  sim_image_set(&c->image, of, &c->cut, keep);
  sim_power_on(&io, &c->image);
  sim_image_create(&image, &io, random_next(&c->random));
  struct recovery x = {.c = c, .m = m, .found = found, .volumes = volumes, .image = &image};
  io.moment = cut_while_opening;
  io.moment_arg = &x;
  if (open_and_compare(c, &io, m, NULL, again) != volumes)
    sim_violation("volumes: a second recovery finds others");
  for (uint32_t i = 0; i < m->id_count; i++)
    if (again[i] != found[i]) sim_violation("blob %u: a second recovery finds another version", i);
  sim_cut_free(&x.cut);
  free(x.keep);
  sim_io_destroy(&image);
  sim_io_destroy(&io);
}

#define RECOVERY_SHARE 32 /* of how many states one is cut again while it opens */

static void look(struct checker *c, const struct sim_io *io, const struct model *m,
                 const uint8_t *keep) {
  uint64_t found[MODEL_IDS_MAX];
  sim_image_set(&c->image, io, &c->cut, keep);
  uint64_t hash = sim_image_hash(&c->image, io);
  if (!seen_add(&c->looks, hash ^ expectation(m))) return;
  seen_add(&c->states, hash);
  uint64_t volumes = open_and_compare(c, &c->image, m, NULL, found);
  if (random_up_to(&c->random, RECOVERY_SHARE) == 0) check_recovery(c, io, keep, m, found, volumes);
}

/* ---- Which states ---------------------------------------------------------------------------- */

/* Writes as a whole or not at all, with different luck; some torn between blocks, or between
 * sectors, or cut off after some. */
static void choose_sectors(struct checker *c, const struct cut *cut, uint8_t *keep) {
  struct random *r = &c->random;
  uint32_t luck = (uint32_t)random_up_to(r, 5) * 25, torn = (uint32_t)random_up_to(r, 3) * 20;
  uint64_t write = UINT64_MAX, order = 0;
  uint32_t style = 0;
  for (uint32_t i = 0; i < cut->count; i++) {
    const struct atom *a = &cut->atoms[i];
    if (a->write != write || order++ == 0) {
      write = a->write;
      style = random_percent(r, torn) ? (uint32_t)random_in(r, 2, 4) : random_percent(r, luck);
    }
    if (style == 0) keep[i] = 0;
    if (style == 1) keep[i] = 0xff;
    if (style == 2) keep[i] = random_percent(r, 50) ? 0xff : 0;
    if (style == 3) keep[i] = (uint8_t)random_next(r);
    if (style == 4) { /* a prefix; nothing behind it */
      keep[i] = (uint8_t)((1u << random_up_to(r, 9)) - 1);
      if (keep[i] != 0xff) style = 0;
    }
    if (c->whole_blocks && keep[i]) keep[i] = 0xff;
  }
}

static uint8_t *room_for_choices(struct checker *c, const struct sim_io *io) {
  sim_cut_take(&c->cut, io);
  c->atoms_max = max_u64(c->atoms_max, c->cut.count);
  uint8_t *keep = malloc(c->cut.count + 1);
  check(keep != NULL);
  return keep;
}

void checker_choose(struct checker *c, const struct sim_io *io) {
  uint8_t *keep = room_for_choices(c, io);
  choose_sectors(c, &c->cut, keep);
  sim_image_set(&c->image, io, &c->cut, keep);
  free(keep);
  sim_cut_clear(&c->cut);
}

void checker_sample(struct checker *c, const struct sim_io *io, const struct model *m,
                    uint32_t count) {
  uint8_t *keep = room_for_choices(c, io);
  for (uint32_t n = 0; n < count; n++) {
    choose_sectors(c, &c->cut, keep);
    look(c, io, m, keep);
  }
  free(keep);
  sim_cut_clear(&c->cut);
}

void checker_kills(struct checker *c, const struct sim_io *io, const struct model *m,
                   const struct sim_memory *memory, uint32_t count) {
  uint64_t found[MODEL_IDS_MAX];
  uint8_t *keep = room_for_choices(c, io);
  for (uint32_t n = 0; n < count; n++) {
    choose_sectors(c, &c->cut, keep);
    for (uint32_t i = 0; i < c->cut.count; i++)
      if (!c->cut.atoms[i].in_flight) keep[i] = 0xff;
    sim_image_set(&c->image, io, &c->cut, keep);
    sim_memory_copy(&c->memory, memory);
    open_and_compare(c, &c->image, m, &c->memory, found);
    c->kills++;
  }
  free(keep);
  sim_cut_clear(&c->cut);
}

/* The choice has a bit for each sector that differs, or for each block. */
static void set_bits(const struct cut *cut, uint64_t choice, bool whole_blocks, uint8_t *keep) {
  uint32_t bit = 0;
  for (uint32_t i = 0; i < cut->count; i++) {
    keep[i] = whole_blocks && (choice >> bit++ & 1) ? 0xff : 0;
    for (uint32_t s = 0; s < SECTORS_PER_BLOCK && !whole_blocks; s++)
      if (cut->atoms[i].changes & (1u << s)) keep[i] |= (uint8_t)((choice >> bit++ & 1) << s);
  }
}

static void look_at_all(struct checker *c, const struct sim_io *io, const struct model *m,
                        uint32_t bits, bool whole_blocks, uint8_t *keep) {
  for (uint64_t choice = 0; choice < UINT64_C(1) << bits; choice++) {
    set_bits(&c->cut, choice, whole_blocks, keep);
    look(c, io, m, keep);
  }
}

static bool few(uint32_t bits, uint32_t limit) { return bits < 32 && UINT64_C(1) << bits <= limit; }

void checker_enumerate(struct checker *c, const struct sim_io *io, const struct model *m,
                       uint32_t limit) {
  uint8_t *keep = room_for_choices(c, io);
  uint32_t bits = 0, blocks = c->cut.count;
  for (uint32_t i = 0; i < blocks; i++)
    bits += (uint32_t)__builtin_popcount(c->cut.atoms[i].changes);
  if (few(bits, limit)) {
    look_at_all(c, io, m, bits, false, keep);
    c->complete++;
  } else {
    if (few(blocks, limit)) look_at_all(c, io, m, blocks, true, keep);
    for (uint32_t n = 0; n < limit / 4; n++) {
      choose_sectors(c, &c->cut, keep);
      look(c, io, m, keep);
    }
    c->complete_blocks += few(blocks, limit);
    c->sampled += !few(blocks, limit);
  }
  free(keep);
  sim_cut_clear(&c->cut);
}

/* ---- Of a run -------------------------------------------------------------------------------- */

void checker_begin(struct checker *c, const struct sim_io *io, uint32_t shards, uint64_t seed) {
  c->random.state = seed;
  c->shards = shards;
  sim_image_create(&c->image, io, seed + 1);
  sim_memory_create(&c->memory, shards);
}

void checker_end(struct checker *c) {
  sim_io_destroy(&c->image);
  sim_memory_destroy(&c->memory);
  sim_cut_free(&c->cut);
}
