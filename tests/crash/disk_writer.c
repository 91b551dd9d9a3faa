/* disk_writer.c - random writes, zeros, discards, flushes, snapshots, clones and removals of
 * volumes, each noted in the ledger: `issued` before it is submitted, `done` and `durable` after
 * the answer. One thread.
 *
 * Many requests are in flight, but at most one on a unit; units that are sectors of one block may
 * all be. Calls that manage volumes block, while requests go on. What a flush of a volume promises
 * is its units and its state as they had completed before, and the snapshots that were made of it;
 * what a write with FUA promises is its units, and that the volume is there; its state only where
 * one shard has all of it. */
#include "tests/crash/disk_writer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/random.h"

#define SLOTS 24u

struct slot {
  struct sr_request request;
  struct disks_done done; /* a flush: of its disk, and its snapshots */
  uint8_t *buf;
  uint32_t disk, unit, units; /* units 0: a flush */
  uint32_t versions[DISK_UNITS], state;
  bool used;
};

/* A disk as its only writer knows it. */
struct own {
  struct sr_block *block; /* NULL: not there, or a snapshot */
  uint32_t state;         /* 0: not there */
  uint32_t in_flight;
  bool busy[DISK_UNITS];
  bool zeros[DISK_UNITS]; /* its own last version, if it has one, is zeros */
};

struct disk_thread {
  const struct writer_options *o;
  struct ledger *l;
  struct sr_store *store;
  struct sr_port *port;
  struct slot *slots;
  struct own own[DISKS];
  struct random random;
  _Atomic bool *stop;
  bool failed;
};

static void count(struct disk_thread *t, enum ledger_count what) {
  atomic_fetch_add(&t->l->counts[what], 1);
}

static uint32_t below(struct disk_thread *t, uint32_t n) {
  return (uint32_t)random_below(&t->random, n);
}

static void fail(struct disk_thread *t, uint32_t disk, const char *what, int64_t result) {
  fprintf(stderr, "writer: disk %u: %s: %s\n", disk, what,
          result < 0 ? strerror((int)-result) : "wrong");
  t->failed = true;
  atomic_store(t->stop, true);
}

static struct disk *disk_of(struct disk_thread *t, uint32_t d) { return &t->l->disks.disks[d]; }

/* ---- Answers ------------------------------------------------------------------------------------
 */

static void settle_flush(struct disk_thread *t, struct slot *s) {
  if (s->request.result) {
    fail(t, s->disk, "flush", s->request.result);
    return;
  }
  disks_promise(&t->l->disks, &s->done);
  atomic_fetch_add(&t->l->acks, 1);
}

static void settle(struct disk_thread *t, struct slot *s) {
  const struct sr_request *r = &s->request;
  struct disk *disk = disk_of(t, s->disk);
  struct own *own = &t->own[s->disk];
  bool good = r->result == (int64_t)r->bytes;
  s->used = false;
  own->in_flight--;
  if (s->units == 0) {
    settle_flush(t, s);
    return;
  }
  for (uint32_t i = 0; i < s->units; i++) {
    uint32_t unit = s->unit + i;
    own->busy[unit] = false;
    if (!good) continue;
    own->zeros[unit] = r->op != SR_OP_WRITE;
    row_raise(&disk->units[unit].row.done, s->versions[i]);
    if (r->flags & SR_DURABLE) row_raise(&disk->units[unit].row.durable, s->versions[i]);
  }
  if (r->result == -ENOSPC)
    count(t, COUNT_FULL);
  else if (!good)
    fail(t, s->disk, "a write", r->result);
  if (!good || !(r->flags & SR_DURABLE)) return;
  row_raise(&disk->row.durable, s->state);
  count(t, COUNT_DISK_DURABLE);
  atomic_fetch_add(&t->l->acks, 1);
}

static void reap(struct disk_thread *t, int64_t wait_ns) {
  struct sr_request *finished[SLOTS];
  if (wait_ns && sr_port_in_flight(t->port)) sr_port_wait(t->port, wait_ns);
  int n = sr_port_reap(t->port, finished, SLOTS);
  if (n < 0) fail(t, 0, "reap", n);
  for (int i = 0; i < n; i++) settle(t, finished[i]->user);
}

static void drain(struct disk_thread *t, uint32_t d) {
  while (t->own[d].in_flight && !t->failed) reap(t, 10000000);
}

/* ---- Requests -----------------------------------------------------------------------------------
 */

static void submit(struct disk_thread *t, struct slot *s, uint32_t d) {
  struct sr_request *r = &s->request;
  r->block = t->own[d].block;
  r->user = s;
  s->used = true;
  s->disk = d;
  t->own[d].in_flight++;
  for (;;) {
    int n = sr_port_submit(t->port, &r, 1);
    if (n == 1) return;
    if (n != -EAGAIN) {
      fail(t, d, "submit", n);
      return;
    }
    reap(t, 1000000);
  }
}

/* Units from `first` on that have no request in flight, as many as fit. */
static uint32_t free_run(const struct own *own, uint32_t first, uint32_t most, uint32_t bytes) {
  uint32_t n = 0;
  while (n < most && first + n < DISK_UNITS && !own->busy[first + n] &&
         unit_offset(first + n) + unit_bytes(first + n) - unit_offset(first) <= bytes)
    n++;
  return n;
}

static void issue_run(struct disk_thread *t, struct slot *s, uint32_t d, uint32_t first,
                      uint32_t units, bool zeros) {
  struct disk *disk = disk_of(t, d);
  s->unit = first;
  s->units = units;
  for (uint32_t i = 0; i < units; i++) {
    struct row *row = &disk->units[first + i].row;
    s->versions[i] = atomic_load(&row->issued) + 1;
    if (zeros) atomic_store(&row->none, s->versions[i]);
    atomic_store(&row->issued, s->versions[i]);
    t->own[d].busy[first + i] = true;
  }
}

/* A discard leaves blocks in part as they are: of sectors it takes a block of them or none. */
static uint32_t whole_blocks(uint32_t first, uint32_t n) {
  uint32_t end = first + n, block_of_sectors = DISK_BLOCKS + 4096 / SECTOR_BYTES;
  if (first > DISK_BLOCKS) return 0;
  if (end > DISK_BLOCKS) end = end >= block_of_sectors ? block_of_sectors : DISK_BLOCKS;
  return end - first;
}

static void write_run(struct disk_thread *t, struct slot *s, uint32_t d, uint32_t op) {
  uint32_t most = below(t, 2) ? 1 : 1 + below(t, op == SR_OP_WRITE ? 16 : 64);
  uint32_t first = below(t, DISK_UNITS);
  uint32_t n = free_run(&t->own[d], first, most, op == SR_OP_WRITE ? DISK_RUN_BYTES : DISK_BYTES);
  if (op == SR_OP_DISCARD) n = whole_blocks(first, n);
  if (n == 0) return;
  struct sr_request *r = &s->request;
  memset(r, 0, sizeof *r);
  r->op = op;
  r->offset = unit_offset(first);
  r->bytes = unit_offset(first + n - 1) + unit_bytes(first + n - 1) - r->offset;
  issue_run(t, s, d, first, n, op != SR_OP_WRITE);
  if (op == SR_OP_WRITE) {
    /* Both ways of a buffer: used as it is, and copied. */
    uint8_t *buf = s->buf + (below(t, 2) ? 0 : below(t, 4096));
    for (uint32_t i = 0; i < n; i++)
      unit_fill(t->l->seed, d, first + i, s->versions[i], buf + unit_offset(first + i) - r->offset);
    r->buf = buf;
  }
  /* A stripe's shard need not be the one that has the name. */
  s->state = disk_of(t, d)->striped ? disk_of(t, d)->born : atomic_load(&disk_of(t, d)->row.done);
  if (op != SR_OP_DISCARD && below(t, 6) == 0) r->flags = SR_DURABLE;
  if (t->o->promise_early_disks && op == SR_OP_WRITE)
    row_raise(&disk_of(t, d)->units[first].row.durable, s->versions[0]);
  count(t, op == SR_OP_WRITE          ? COUNT_DISK_WRITE
           : op == SR_OP_WRITE_ZEROES ? COUNT_DISK_ZEROS
                                      : COUNT_DISK_DISCARD);
  submit(t, s, d);
}

static void start_flush(struct disk_thread *t, struct slot *s, uint32_t d) {
  struct disk *disk = disk_of(t, d);
  memset(&s->done, 0, sizeof s->done);
  for (uint32_t u = 0; u < DISK_UNITS; u++)
    s->done.units[d][u] = atomic_load(&disk->units[u].row.done);
  s->done.states[d] = atomic_load(&disk->row.done);
  for (uint32_t i = DISK_VOLUMES + DISK_CLONES; i < DISKS; i++) {
    const struct disk *snapshot = disk_of(t, i);
    if (snapshot->from != d || snapshot->from_born != disk->born) continue;
    if (t->own[i].state < snapshot->born || t->own[i].state == 0) continue;
    s->done.states[i] = snapshot->born;
    for (uint32_t u = 0; u < DISK_UNITS; u++) s->done.units[i][u] = snapshot->units[u].born;
  }
  s->units = 0;
  memset(&s->request, 0, sizeof s->request);
  s->request.op = SR_OP_SYNC;
  count(t, COUNT_DISK_SYNC);
  submit(t, s, d);
}

/* ---- Reads --------------------------------------------------------------------------------------
 */

static bool is_as_known(struct disk_thread *t, uint32_t d, uint32_t u, const struct content *c) {
  const struct disk_unit *unit = &disk_of(t, d)->units[u];
  uint32_t now = row_now(&unit->row);
  if (now <= unit->born) return origin_allows(&unit->origin, u, c);
  if (t->own[d].zeros[u] || c->zeros) return t->own[d].zeros[u] && c->zeros;
  return c->disk == d && c->version == now;
}

/* Nobody else writes it, so it must be what was written last. */
static void read_run(struct disk_thread *t, struct slot *s, uint32_t d) {
  struct sr_block_options options = SR_BLOCK_OPTIONS_INIT;
  struct sr_block *block = t->own[d].block;
  char name[DISK_NAME_MAX];
  disk_name(d, t->own[d].state, name);
  options.read_only = true;
  int r = block ? 0 : sr_volume_open(t->port, name, &options, &block);
  if (r) {
    fail(t, d, "open", r);
    return;
  }
  uint32_t first = below(t, DISK_UNITS);
  uint32_t n = free_run(&t->own[d], first, 16, DISK_RUN_BYTES);
  uint64_t at = unit_offset(first);
  uint64_t bytes = n ? unit_offset(first + n - 1) + unit_bytes(first + n - 1) - at : 0;
  int64_t got = n ? sr_volume_read(t->port, block, s->buf, at, bytes) : 0;
  if (got != (int64_t)bytes) fail(t, d, "read", got);
  for (uint32_t u = first; u < first + n && !t->failed; u++) {
    struct content c;
    const char *wrong = unit_read(t->l->seed, u, s->buf + unit_offset(u) - at, &c);
    if (row_in_doubt(&disk_of(t, d)->units[u].row)) continue;
    if (!wrong && !is_as_known(t, d, u, &c)) wrong = "not what was written last";
    if (!wrong) continue;
    fprintf(stderr, "writer: disk %u unit %u: %s: disk %u version %u\n", d, u, wrong, c.disk,
            c.version);
    fail(t, d, "bytes read", 0);
  }
  if (!t->own[d].block && (r = sr_volume_close(t->port, block))) fail(t, d, "close", r);
  count(t, COUNT_DISK_READ);
}

/* ---- States -------------------------------------------------------------------------------------
 */

/* A slot takes a new volume when the last one cannot come back: its origins are overwritten. */
static bool is_gone(const struct disk_thread *t, uint32_t d) {
  const struct row *row = &t->l->disks.disks[d].row;
  if (t->own[d].state) return false;
  return row->durable >= row->none || (row->base_none && row->none <= row->floor);
}

/* What a unit of `d` may hold now, for something that is born of it. False: nobody knows. */
static bool origin_now(struct disk_thread *t, uint32_t d, uint32_t u, struct origin *o) {
  const struct disk_unit *unit = &disk_of(t, d)->units[u];
  uint32_t now = row_now(&unit->row);
  bool zeros = t->own[d].zeros[u];
  if (now <= unit->born) {
    *o = unit->origin;
    return !row_in_doubt(&unit->row);
  }
  *o = (struct origin){.disk = d, .first = now, .last = unit->row.issued};
  o->zeros = zeros || unit->row.none > now;
  return true;
}

static bool origins_now(struct disk_thread *t, uint32_t d, struct origin origins[DISK_UNITS]) {
  bool known = true;
  for (uint32_t u = 0; u < DISK_UNITS; u++) known = origin_now(t, d, u, &origins[u]) && known;
  return known;
}

/* Its state from now on, as far as it is issued. */
static uint32_t begin_birth(struct disk_thread *t, uint32_t d, uint32_t from,
                            const struct origin origins[DISK_UNITS]) {
  struct disk *disk = disk_of(t, d);
  uint32_t state = atomic_load(&disk->row.issued) + 1;
  atomic_fetch_add(&t->l->disks.births, 1);
  for (uint32_t u = 0; u < DISK_UNITS; u++) {
    struct disk_unit *unit = &disk->units[u];
    unit->born = atomic_load(&unit->row.issued) + 1;
    unit->origin = origins ? origins[u] : (struct origin){.first = 1, .zeros = 1};
    atomic_store(&unit->row.issued, unit->born);
  }
  disk->born = state;
  disk->from = from;
  disk->from_born = disk_of(t, from)->born;
  disk->striped = from == d ? d == 0 : disk_of(t, from)->striped;
  atomic_store(&disk->row.issued, state);
  atomic_fetch_add(&t->l->disks.births, 1);
  return state;
}

/* True if it has come. */
static bool end_birth(struct disk_thread *t, uint32_t d, uint32_t state, int r, const char *what) {
  struct disk *disk = disk_of(t, d);
  if (r == -ENOSPC) count(t, COUNT_FULL);
  if (r && r != -ENOSPC) fail(t, d, what, r);
  if (r) return false;
  for (uint32_t u = 0; u < DISK_UNITS; u++) {
    row_raise(&disk->units[u].row.done, disk->units[u].born);
    t->own[d].zeros[u] = false;
  }
  row_raise(&disk->row.done, state);
  t->own[d].state = state;
  if (disk_kind(d) == DISK_SNAPSHOT) return true;
  char name[DISK_NAME_MAX];
  disk_name(d, state, name);
  r = sr_volume_open(t->port, name, NULL, &t->own[d].block);
  if (r) fail(t, d, "open", r);
  return r == 0;
}

static void create(struct disk_thread *t, uint32_t d) {
  struct sr_volume_options options = SR_VOLUME_OPTIONS_INIT;
  char name[DISK_NAME_MAX];
  uint32_t state = begin_birth(t, d, d, NULL);
  options.size_bytes = DISK_BYTES;
  options.striped = d == 0;
  options.stripe_bytes = options.striped ? 65536 : 0;
  disk_name(d, state, name);
  int r = sr_volume_create(t->port, name, &options);
  if (end_birth(t, d, state, r, "create")) count(t, COUNT_DISK_CREATE);
}

static void take_snapshot(struct disk_thread *t, uint32_t d, uint32_t from) {
  struct origin origins[DISK_UNITS];
  char name[DISK_NAME_MAX], from_name[DISK_NAME_MAX];
  if (!origins_now(t, from, origins)) {
    drain(t, from);
    if (!origins_now(t, from, origins)) return; /* a write has failed: until the next one */
  }
  uint32_t state = begin_birth(t, d, from, origins);
  disk_name(d, state, name);
  disk_name(from, t->own[from].state, from_name);
  int r = sr_volume_snapshot(t->port, from_name, name);
  if (end_birth(t, d, state, r, "snapshot")) count(t, COUNT_DISK_SNAPSHOT);
}

static void make_clone(struct disk_thread *t, uint32_t d, uint32_t from) {
  struct sr_volume_options options = SR_VOLUME_OPTIONS_INIT;
  struct origin origins[DISK_UNITS];
  char name[DISK_NAME_MAX], from_name[DISK_NAME_MAX];
  if (!origins_now(t, from, origins)) return;
  uint32_t state = begin_birth(t, d, from, origins);
  disk_name(d, state, name);
  disk_name(from, t->own[from].state, from_name);
  if (!disk_of(t, from)->striped && below(t, 2)) {
    options.on_shard = true;
    options.shard = below(t, sr_shard_count(t->store));
  }
  int r = sr_volume_clone(t->port, from_name, name, &options);
  if (end_birth(t, d, state, r, "clone")) count(t, COUNT_DISK_CLONE);
}

static void rename_disk(struct disk_thread *t, uint32_t d) {
  struct row *row = &disk_of(t, d)->row;
  uint32_t state = atomic_load(&row->issued) + 1;
  char old[DISK_NAME_MAX], name[DISK_NAME_MAX];
  atomic_store(&row->issued, state);
  disk_name(d, t->own[d].state, old);
  disk_name(d, state, name);
  int r = sr_volume_rename(t->port, old, name);
  if (r == -ENOSPC) {
    count(t, COUNT_FULL);
    return;
  }
  if (r) {
    fail(t, d, "rename", r);
    return;
  }
  row_raise(&row->done, state);
  t->own[d].state = state;
  count(t, COUNT_DISK_RENAME);
}

static void remove_disk(struct disk_thread *t, uint32_t d) {
  struct row *row = &disk_of(t, d)->row;
  char name[DISK_NAME_MAX];
  drain(t, d);
  int r = t->own[d].block ? sr_volume_close(t->port, t->own[d].block) : 0;
  if (r || t->failed) {
    fail(t, d, "close", r);
    return;
  }
  t->own[d].block = NULL;
  uint32_t state = atomic_load(&row->issued) + 1;
  atomic_store(&row->none, state);
  atomic_store(&row->issued, state);
  disk_name(d, t->own[d].state, name);
  r = sr_volume_remove(t->port, name);
  if (r) {
    fail(t, d, "remove", r);
    return;
  }
  row_raise(&row->done, state);
  t->own[d].state = 0;
  count(t, COUNT_DISK_REMOVE);
}

static void flatten(struct disk_thread *t, uint32_t d) {
  char name[DISK_NAME_MAX];
  disk_name(d, t->own[d].state, name);
  int r = sr_volume_flatten(t->port, name);
  if (r && r != -ENOSPC) fail(t, d, "flatten", r);
  count(t, r ? COUNT_FULL : COUNT_DISK_FLATTEN);
}

static void flush_store(struct disk_thread *t) {
  static struct writer_done done;
  writer_note_done(t->l, &done);
  int r = sr_flush(t->port);
  if (r) {
    fail(t, 0, "flush", r);
    return;
  }
  count(t, COUNT_FLUSH);
  writer_promise_all(t->l, &done);
}

/* ---- The thread ---------------------------------------------------------------------------------
 */

static struct slot *free_slot(struct disk_thread *t) {
  for (;;) {
    for (uint32_t i = 0; i < SLOTS; i++)
      if (!t->slots[i].used) return &t->slots[i];
    reap(t, 10000000);
    if (atomic_load(t->stop)) return NULL;
  }
}

/* A slot that is empty gets a volume, one that is not may lose it. */
static void change_state(struct disk_thread *t, uint32_t d) {
  uint32_t from = below(t, DISK_VOLUMES + DISK_CLONES);
  if (disk_kind(d) == DISK_CLONE) from = DISK_VOLUMES + DISK_CLONES + below(t, 4);
  if (is_gone(t, d)) {
    if (disk_kind(d) == DISK_VOLUME)
      create(t, d);
    else if (t->own[from].state && disk_kind(d) == DISK_CLONE)
      make_clone(t, d, from);
    else if (t->own[from].state)
      take_snapshot(t, d, from);
  } else if (t->own[d].state) {
    uint32_t dice = below(t, 10);
    if (dice < 3)
      rename_disk(t, d);
    else if (dice < 5 && disk_kind(d) == DISK_CLONE)
      flatten(t, d);
    else if (dice < 8 && (disk_kind(d) != DISK_VOLUME || below(t, 4) == 0))
      remove_disk(t, d);
  }
}

static void act(struct disk_thread *t, struct slot *s) {
  uint32_t dice = below(t, 1000), d = below(t, DISKS);
  if (dice < 50 || (!t->own[d].state && disk_kind(d) == DISK_VOLUME)) {
    change_state(t, d);
    return;
  }
  if (dice < 60) {
    flush_store(t);
    return;
  }
  if (!t->own[d].state) return;
  if (dice < 110)
    read_run(t, s, d);
  else if (!t->own[d].block)
    return;
  else if (dice < 160)
    start_flush(t, s, d);
  else if (dice < 220)
    write_run(t, s, d, SR_OP_WRITE_ZEROES);
  else if (dice < 280)
    write_run(t, s, d, SR_OP_DISCARD);
  else
    write_run(t, s, d, SR_OP_WRITE);
}

void *disk_thread_run(void *arg) {
  struct disk_thread *t = arg;
  while (!atomic_load(t->stop)) {
    struct slot *s = free_slot(t);
    if (s) act(t, s);
    reap(t, 0);
  }
  return NULL;
}

bool disk_thread_failed(const struct disk_thread *t) { return t->failed; }

/* What the last look has found is where it begins. */
static void find_own(struct disk_thread *t, uint32_t d) {
  const struct disk *disk = disk_of(t, d);
  struct own *own = &t->own[d];
  char name[DISK_NAME_MAX];
  if (disk->row.base_none) return;
  own->state = disk->row.base;
  for (uint32_t u = 0; u < DISK_UNITS; u++) own->zeros[u] = disk->units[u].row.base_none;
  if (disk_kind(d) == DISK_SNAPSHOT) return;
  disk_name(d, own->state, name);
  int r = sr_volume_open(t->port, name, NULL, &own->block);
  if (r) fail(t, d, "open", r);
}

struct disk_thread *disk_thread_create(const struct writer_options *o, struct ledger *l,
                                       struct sr_store *store, _Atomic bool *stop) {
  struct disk_thread *t = calloc(1, sizeof *t);
  *t = (struct disk_thread){.o = o, .l = l, .store = store, .stop = stop};
  t->random.state = ~o->seed;
  t->slots = aligned_alloc(64, SLOTS * sizeof(struct slot));
  memset(t->slots, 0, SLOTS * sizeof(struct slot));
  for (uint32_t i = 0; i < SLOTS; i++) t->slots[i].buf = aligned_alloc(4096, DISK_RUN_BYTES + 4096);
  int r = sr_port_open(store, NULL, &t->port);
  if (r) fail(t, 0, "port", r);
  for (uint32_t d = 0; d < DISKS && !t->failed; d++) find_own(t, d);
  return t->failed ? NULL : t;
}
