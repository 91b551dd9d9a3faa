/* look.c - holds a store against a ledger. One thread; nothing else uses the store meanwhile. */
#include "tests/crash/look.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* A blob that there may be, and the request that reads it. */
struct member {
  struct sr_request get;
  uint64_t size_bytes; /* as listed */
  bool listed;
};

struct looking {
  struct look *look;
  struct ledger *l;
  struct sr_port *port;
  struct member members[LEDGER_UNITS][LEDGER_MEMBERS];
};

void look_find(struct look *look, const char *format, ...) {
  look->findings++;
  if (look->quiet || look->findings > 20) return;
  va_list args;
  va_start(args, format);
  fputs("finding: ", stderr);
  vfprintf(stderr, format, args);
  fputc('\n', stderr);
  va_end(args);
}

void look_on_log(void *arg, enum sr_log_level level, const char *line) {
  if (level == SR_LOG_ERROR) look_find(arg, "log: %s", line);
}

static void on_damage(void *arg, const struct sr_damage *d) {
  if (d->kind != SR_DAMAGE_NOTE)
    look_find(arg, "damage: %s: %s", d->where ? d->where : "-", d->what);
}

/* ---- Versions -----------------------------------------------------------------------------------
 */

static bool allowed(const struct unit *u, uint32_t version) {
  if (version == u->base && u->durable <= u->floor) return true;
  return version > u->floor && version >= u->durable && version <= u->issued;
}

/* The bytes that were read of a member; -1 if it is not there, -2 after a finding. */
static int64_t member_read(struct looking *k, uint32_t unit, uint32_t number) {
  const struct member *m = &k->members[unit][number];
  int64_t n = m->get.result;
  if (n == -ENOENT && !m->listed) return -1;
  if (n >= 0 && m->listed && (uint64_t)n == m->size_bytes) {
    k->look->bytes += (uint64_t)n;
    return n;
  }
  look_find(k->look, "unit %u.%u: %s and get says %" PRId64, unit, number,
            m->listed ? "listed" : "not listed", n);
  return -2;
}

/* What it is instead of a version that is allowed: for the one who reads the finding. */
static void find_wrong(struct looking *k, uint32_t unit, uint32_t member, int64_t bytes) {
  const struct unit *u = &k->l->units[unit];
  char is[200] = "";
  for (uint32_t v = 0; v <= u->issued + 2; v++) {
    size_t used = strlen(is);
    if (used < 180 &&
        member_is(k->l->seed, unit, member, v, k->members[unit][member].get.buf, bytes))
      snprintf(is + used, sizeof is - used, " %u", v);
  }
  look_find(k->look,
            "unit %u.%u of %u: %" PRId64
            " bytes (-1: absent), version%s; issued %u, done %u, durable "
            "%u, before that %u of %u; or its group is at no single version",
            unit, member, unit_members(unit), bytes, is[0] ? is : " unknown", u->issued, u->done,
            u->durable, u->base, u->floor);
}

/* Which version is the whole unit at? All versions that it may have are candidates; each member
 * strikes out those that it is not. */
static bool look_at_unit(struct looking *k, uint32_t unit, uint32_t *found) {
  const struct unit *u = &k->l->units[unit];
  uint32_t first = u->durable <= u->floor ? u->base : u->durable;
  uint32_t span = u->issued - first + 1;
  bool *out = calloc(span, 1);
  for (uint32_t i = 0; i < span; i++) out[i] = !allowed(u, first + i);
  bool good = true;
  for (uint32_t m = 0; m < unit_members(unit) && good; m++) {
    int64_t bytes = member_read(k, unit, m);
    if (bytes == -2) good = false;
    uint32_t left = 0;
    for (uint32_t i = 0; i < span && good; i++) {
      if (!out[i])
        out[i] = !member_is(k->l->seed, unit, m, first + i, k->members[unit][m].get.buf, bytes);
      left += !out[i];
    }
    if (good && left == 0) {
      find_wrong(k, unit, m, bytes);
      good = false;
    }
  }
  for (uint32_t i = span; i-- > 0 && good;)
    if (!out[i]) {
      *found = first + i;
      break;
    }
  free(out);
  if (good && *found > u->durable) k->look->unpromised++;
  if (good && *found < u->done) k->look->lost++;
  return good;
}

/* ---- The store ----------------------------------------------------------------------------------
 */

static void list_all(struct looking *k) {
  struct sr_cursor cursor = {{0}};
  struct sr_entry entries[64];
  uint64_t blobs = 0, bytes = 0;
  int n;
  while ((n = sr_list(k->port, &cursor, entries, 64)) > 0) {
    for (int i = 0; i < n; i++) {
      uint32_t unit, member;
      blobs++;
      bytes += entries[i].size_bytes;
      if (!unit_of_id(entries[i].id, &unit, &member)) {
        look_find(k->look, "a blob that nobody wrote: %" PRIx64 ":%" PRIx64, entries[i].id.hi,
                  entries[i].id.lo);
        continue;
      }
      struct member *m = &k->members[unit][member];
      if (m->listed) look_find(k->look, "unit %u.%u is listed twice", unit, member);
      m->listed = true;
      m->size_bytes = entries[i].size_bytes;
    }
  }
  if (n < 0) look_find(k->look, "list: %s", strerror(-n));
  struct sr_space space;
  int r = sr_space(k->port, &space);
  if (r)
    look_find(k->look, "space: %s", strerror(-r));
  else if (space.blobs != blobs || space.live_bytes != bytes)
    look_find(k->look,
              "listed %" PRIu64 " blobs, %" PRIu64 " bytes; space says %" PRIu64 ", %" PRIu64,
              blobs, bytes, space.blobs, space.live_bytes);
  if (sr_count(k->port) != (int64_t)blobs) look_find(k->look, "count is not what is listed");
  k->look->blobs += blobs;
}

static void submit_get(struct looking *k, struct member *m, struct sr_id id) {
  struct sr_request *r = &m->get;
  struct sr_request *finished[64];
  /* One byte more than there should be: it must not come. */
  uint64_t bytes = (m->size_bytes + SR_BLOCK_BYTES) / SR_BLOCK_BYTES * SR_BLOCK_BYTES;
  if (bytes > 2 * LEDGER_BLOB_MAX)
    bytes = SR_BLOCK_BYTES; /* a finding, as it cannot be that long */
  *r = (struct sr_request){.op = SR_OP_GET, .id = id, .bytes = bytes};
  r->buf = aligned_alloc(SR_BLOCK_BYTES, bytes);
  int n;
  while ((n = sr_port_submit(k->port, &r, 1)) == -EAGAIN) {
    sr_port_wait(k->port, 1000000);
    sr_port_reap(k->port, finished, 64);
  }
  if (n != 1) {
    look_find(k->look, "submit: %s", strerror(-n));
    r->result = n;
  }
}

/* All at the same time. */
static void read_all(struct looking *k) {
  struct sr_request *finished[64];
  for (uint32_t u = 0; u < LEDGER_UNITS; u++)
    for (uint32_t m = 0; m < unit_members(u); m++) submit_get(k, &k->members[u][m], unit_id(u, m));
  while (sr_port_in_flight(k->port)) {
    sr_port_wait(k->port, -1);
    sr_port_reap(k->port, finished, 64);
  }
}

static void scrub_all(struct looking *k) {
  struct sr_scrub_status s = {.running = true};
  int r = sr_scrub_start(k->port, NULL);
  while (!r && s.running) {
    struct timespec pause = {0, 200000};
    nanosleep(&pause, NULL);
    r = sr_scrub_status(k->port, &s);
  }
  if (r)
    look_find(k->look, "scrub: %s", strerror(-r));
  else if (s.damaged_blobs || s.damaged_metadata || s.unreadable || s.passes != 1)
    look_find(k->look,
              "scrub: %" PRIu64 " blobs, %" PRIu64 " metadata damaged, %" PRIu64
              " unreadable, %" PRIu64 " passes",
              s.damaged_blobs, s.damaged_metadata, s.unreadable, s.passes);
}

static void look_at_all(struct looking *k, struct found *found) {
  list_all(k);
  read_all(k);
  for (uint32_t u = 0; u < LEDGER_UNITS; u++) look_at_unit(k, u, &found->units[u]);
  look_at_disks(k->look, k->l, k->port, found->disks);
  if (k->look->scrub) scrub_all(k);
}

int look_at_open_store(struct sr_store *s, struct ledger *l, struct look *look,
                       struct found *found) {
  struct looking *k = aligned_alloc(64, sizeof *k);
  memset(k, 0, sizeof *k);
  k->look = look;
  k->l = l;
  int r = sr_port_open(s, NULL, &k->port);
  if (r)
    look_find(look, "port: %s", strerror(-r));
  else
    look_at_all(k, found);
  sr_port_close(k->port);
  int closed = sr_store_close(s);
  if (closed) look_find(look, "close: %s", strerror(-closed));
  for (uint32_t u = 0; u < LEDGER_UNITS; u++)
    for (uint32_t m = 0; m < LEDGER_MEMBERS; m++) free(k->members[u][m].get.buf);
  free(k);
  return r;
}

void look_on_open_error(struct look *look, int error) {
  look_find(look, "open: %s", strerror(-error));
}

int look_at_store(const char *where, struct ledger *l, struct look *look, struct found *found) {
  struct sr_open_options o = SR_OPEN_OPTIONS_INIT;
  o.engine = look->engine;
  o.core_count = look->cores;
  o.read_only = look->read_only;
  o.no_pin = true;
  o.arena_bytes = 1 << 20;
  o.queue_depth = 64;
  o.log = look_on_log;
  o.log_arg = look;
  o.damage = on_damage;
  o.damage_arg = look;
  struct sr_store *s;
  int r = sr_store_open(where, &o, &s);
  if (!r) return look_at_open_store(s, l, look, found);
  look_on_open_error(look, r);
  return r;
}

void ledger_accept(struct ledger *l, const struct found *found) {
  for (uint32_t i = 0; i < LEDGER_UNITS; i++) {
    struct unit *u = &l->units[i];
    u->base = found->units[i];
    u->floor = u->issued;
    u->done = u->durable = 0; /* nothing above floor */
  }
  disks_accept(&l->disks, found->disks);
}
