/* disks.c - rows, stamps, and which of them a disk may have after a crash. Pure functions but for
 * init and accept, any thread. */
#include "tests/crash/disks.h"

#include <stdio.h>
#include <string.h>

#include "tests/random.h"

#define STAMP_MAGIC UINT64_C(0x4b534944504d5453)

void disk_name(uint32_t disk, uint32_t state, char name[DISK_NAME_MAX]) {
  snprintf(name, DISK_NAME_MAX, "disk-%u-%u", disk, state);
}

bool disk_of_name(const char *name, uint32_t *disk, uint32_t *state) {
  char again[DISK_NAME_MAX];
  if (sscanf(name, "disk-%u-%u", disk, state) != 2 || *disk >= DISKS) return false;
  disk_name(*disk, *state, again);
  return strcmp(name, again) == 0;
}

void disks_init(struct disks *d) {
  memset(d, 0, sizeof *d);
  for (uint32_t i = 0; i < DISKS; i++) d->disks[i].row.base_none = 1;
}

/* Units first: a state that is noted after them includes the birth that they rest on. */
void disks_note_done(const struct disks *d, struct disks_done *done) {
  for (uint32_t i = 0; i < DISKS; i++) {
    const struct disk *disk = &d->disks[i];
    for (uint32_t u = 0; u < DISK_UNITS; u++)
      done->units[i][u] = atomic_load(&disk->units[u].row.done);
    done->states[i] = atomic_load(&disk->row.done);
  }
}

void disks_promise(struct disks *d, const struct disks_done *done) {
  for (uint32_t i = 0; i < DISKS; i++) {
    struct disk *disk = &d->disks[i];
    row_raise(&disk->row.durable, done->states[i]);
    for (uint32_t u = 0; u < DISK_UNITS; u++)
      row_raise(&disk->units[u].row.durable, done->units[i][u]);
  }
}

/* ---- Rows -------------------------------------------------------------------------------------
 */

void row_raise(_Atomic uint32_t *number, uint32_t to) {
  uint32_t old = atomic_load(number);
  while (old < to && !atomic_compare_exchange_weak(number, &old, to)) {
  }
}

uint32_t row_now(const struct row *row) {
  uint32_t done = atomic_load(&row->done);
  return done > row->floor ? done : row->base;
}

bool row_in_doubt(const struct row *row) {
  uint32_t now = row_now(row);
  return atomic_load(&row->issued) > (now > row->floor ? now : row->floor);
}

bool row_allows(const struct row *row, uint32_t number) {
  if (number == row->base && row->durable <= row->floor) return true;
  return number > row->floor && number >= row->durable && number <= row->issued;
}

/* ---- Contents ----------------------------------------------------------------------------------
 */

struct stamp {
  uint64_t magic, seed;
  uint32_t disk, unit, version, sector;
};

static void fill_sector(const struct stamp *s, void *buf) {
  struct random r = {s->seed ^ (uint64_t)s->disk << 48 ^ (uint64_t)s->unit << 40 ^
                     (uint64_t)s->sector << 32 ^ s->version};
  uint8_t *to = buf;
  memcpy(to, s, sizeof *s);
  for (uint32_t at = sizeof *s; at < SECTOR_BYTES; at += 8) {
    uint64_t word = random_next(&r);
    memcpy(to + at, &word, 8);
  }
}

void unit_fill(uint64_t seed, uint32_t disk, uint32_t unit, uint32_t version, void *buf) {
  for (uint32_t at = 0; at < unit_bytes(unit); at += SECTOR_BYTES) {
    struct stamp s = {STAMP_MAGIC, seed, disk, unit, version, at / SECTOR_BYTES};
    fill_sector(&s, (uint8_t *)buf + at);
  }
}

static bool is_zeros(const uint8_t *p, uint32_t bytes) {
  return p[0] == 0 && memcmp(p, p + 1, bytes - 1) == 0;
}

const char *unit_read(uint64_t seed, uint32_t unit, const void *buf, struct content *c) {
  static _Thread_local uint8_t want[4096];
  struct stamp s;
  *c = (struct content){.zeros = is_zeros(buf, unit_bytes(unit))};
  if (c->zeros) return NULL;
  memcpy(&s, buf, sizeof s);
  if (s.magic != STAMP_MAGIC || s.seed != seed || s.disk >= DISKS) return "no stamp of ours";
  *c = (struct content){.disk = s.disk, .unit = s.unit, .version = s.version};
  if (s.unit != unit) return "what belongs elsewhere";
  unit_fill(seed, s.disk, unit, s.version, want);
  return memcmp(want, buf, unit_bytes(unit)) == 0 ? NULL : "torn";
}

bool origin_allows(const struct origin *o, uint32_t unit, const struct content *c) {
  if (c->zeros) return o->zeros;
  return c->disk == o->disk && c->unit == unit && c->version >= o->first && c->version <= o->last;
}

static bool own_zeros(const struct disk_unit *u) {
  const struct row *row = &u->row;
  if (row->base_none && row->base > u->born && row->durable <= row->floor) return true;
  return row->none > u->born && row->none > row->floor && row->none >= row->durable;
}

bool unit_allows(const struct disk_unit *u, uint32_t disk, uint32_t unit, const struct content *c) {
  if (row_allows(&u->row, u->born) && origin_allows(&u->origin, unit, c)) return true;
  if (c->zeros) return own_zeros(u);
  if (c->disk != disk || c->unit != unit || c->version <= u->born) return false;
  return row_allows(&u->row, c->version) && !(c->version == u->row.base && u->row.base_none);
}

/* ---- Accepting ---------------------------------------------------------------------------------
 */

/* Which version of a unit it is, the newest if there are several; *none: zeros of its own. */
static uint32_t version_of(const struct disk_unit *u, uint32_t disk, const struct content *c,
                           bool *none) {
  *none = c->zeros && own_zeros(u);
  if (!c->zeros) return c->disk == disk && c->version > u->born ? c->version : u->born;
  if (!*none) return u->born;
  return u->row.none > u->row.floor ? u->row.none : u->row.base;
}

static void accept_row(struct row *row, uint32_t found, bool none) {
  row->base = found;
  row->base_none = none;
  row->floor = row->issued;
  row->done = row->durable = 0; /* nothing above floor */
}

static void accept_unit(struct disk_unit *u, uint32_t disk, const struct content *c, bool there) {
  bool none = false;
  uint32_t found = there ? version_of(u, disk, c, &none) : 0;
  if (there && found == u->born) { /* it can be nothing else from now on */
    u->origin.zeros = c->zeros;
    u->origin.first = c->zeros ? 1 : c->version;
    u->origin.last = c->zeros ? 0 : c->version;
  }
  accept_row(&u->row, found, none);
}

void disks_accept(struct disks *d, const struct found_disk found[DISKS]) {
  for (uint32_t i = 0; i < DISKS; i++) {
    struct disk *disk = &d->disks[i];
    bool there = found[i].state != 0;
    for (uint32_t u = 0; u < DISK_UNITS; u++)
      accept_unit(&disk->units[u], i, &found[i].units[u], there);
    accept_row(&disk->row, there ? found[i].state : disk->row.none, !there);
  }
}

void disks_compare(const struct disks *d, const struct found_disk found[DISKS],
                   uint64_t *unpromised, uint64_t *lost) {
  for (uint32_t i = 0; i < DISKS; i++) {
    const struct disk *disk = &d->disks[i];
    uint32_t state = found[i].state ? found[i].state : disk->row.none;
    *unpromised += state > disk->row.durable;
    *lost += state < disk->row.done;
    for (uint32_t u = 0; u < DISK_UNITS && found[i].state; u++) {
      bool none;
      uint32_t version = version_of(&disk->units[u], i, &found[i].units[u], &none);
      *unpromised += version > disk->units[u].row.durable;
      *lost += version < disk->units[u].row.done;
    }
  }
}
