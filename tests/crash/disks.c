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

/* ---- Records ----------------------------------------------------------------------------------
 */

static void copy_row(struct row *to, const struct row *from) {
  atomic_store(&to->durable, atomic_load(&from->durable));
  atomic_store(&to->done, atomic_load(&from->done));
  atomic_store(&to->issued, atomic_load(&from->issued));
  atomic_store(&to->none, atomic_load(&from->none));
  to->base = from->base;
  to->floor = from->floor;
  to->base_none = from->base_none;
}

/* A state is copied before its units: what they rest on is not newer than they are. */
static void copy_disk(struct disk *to, const struct disk *from) {
  copy_row(&to->row, &from->row);
  to->born = from->born;
  to->from = from->from;
  to->from_born = from->from_born;
  to->striped = from->striped;
  for (uint32_t u = 0; u < DISK_UNITS; u++) {
    copy_row(&to->units[u].row, &from->units[u].row);
    to->units[u].born = from->units[u].born;
    to->units[u].origin = from->units[u].origin;
  }
}

void disks_copy(struct disks *to, const struct disks *from) {
  for (uint32_t i = 0; i < DISKS; i++) {
    uint32_t births;
    do {
      while ((births = atomic_load(&from->births)) & 1) {
      }
      copy_disk(&to->disks[i], &from->disks[i]);
      atomic_thread_fence(memory_order_seq_cst);
    } while (atomic_load(&from->births) != births);
  }
}

static void between_rows(struct row *earlier, const struct row *later) {
  earlier->issued = later->issued;
  earlier->none = later->none;
}

static void take_birth(struct disk *to, const struct disk *from) {
  to->born = from->born;
  to->from = from->from;
  to->from_born = from->from_born;
  to->striped = from->striped;
  for (uint32_t u = 0; u < DISK_UNITS; u++) {
    to->units[u].born = from->units[u].born;
    to->units[u].origin = from->units[u].origin;
  }
}

void disks_between(struct disks *earlier, const struct disks *later, const uint32_t states[DISKS],
                   bool unsure[DISKS]) {
  for (uint32_t i = 0; i < DISKS; i++) {
    struct disk *to = &earlier->disks[i];
    const struct disk *from = &later->disks[i];
    bool newer = to->born != from->born && states[i] >= from->born;
    unsure[i] = to->born != from->born && !newer && states[i] > to->row.issued;
    if (newer) take_birth(to, from);
    between_rows(&to->row, &from->row);
    for (uint32_t u = 0; u < DISK_UNITS; u++) between_rows(&to->units[u].row, &from->units[u].row);
  }
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

const char *sector_read(uint64_t seed, uint32_t unit, uint32_t sector, const void *buf,
                        struct content *c) {
  uint8_t want[SECTOR_BYTES];
  struct stamp s;
  *c = (struct content){.zeros = is_zeros(buf, SECTOR_BYTES)};
  if (c->zeros) return NULL;
  memcpy(&s, buf, sizeof s);
  if (s.magic != STAMP_MAGIC || s.seed != seed || s.disk >= DISKS) return "no stamp of ours";
  *c = (struct content){.disk = s.disk, .unit = s.unit, .version = s.version};
  if (s.unit != unit || s.sector != sector) return "what belongs elsewhere";
  fill_sector(&s, want);
  return memcmp(want, buf, SECTOR_BYTES) == 0 ? NULL : "not what was written";
}

const char *unit_read(uint64_t seed, uint32_t unit, const void *buf, struct content *c) {
  const char *wrong = sector_read(seed, unit, 0, buf, c);
  for (uint32_t at = SECTOR_BYTES; at < unit_bytes(unit) && !wrong; at += SECTOR_BYTES) {
    struct content next;
    wrong = sector_read(seed, unit, at / SECTOR_BYTES, (const uint8_t *)buf + at, &next);
    bool same = next.zeros == c->zeros && next.disk == c->disk && next.version == c->version;
    if (!wrong && !same) wrong = "torn";
  }
  return wrong;
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
