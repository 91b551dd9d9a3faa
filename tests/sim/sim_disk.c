/* sim_disk.c - disks with a volatile cache, the engine on them, and their states after a power
 * cut; see sim_disk.h. One thread. */
#include "tests/sim/sim_disk.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Pages ----------------------------------------------------------------------------------- */

static struct page *page_ref(struct page *p) {
  if (p) p->refs++;
  return p;
}

static void page_unref(struct page *p) {
  if (p && --p->refs == 0) free(p);
}

/* NULL for zeros. */
static struct page *page_of(const void *bytes) {
  const uint64_t *w = bytes;
  uint64_t any = 0;
  for (uint32_t i = 0; i < BLOCK_BYTES / 8; i++) any |= w[i];
  if (!any) return NULL;
  struct page *p = malloc(sizeof *p);
  check(p != NULL);
  p->refs = 1;
  p->hashed = false;
  memcpy(p->words, bytes, BLOCK_BYTES);
  return p;
}

static void page_read(const struct page *p, void *to) {
  if (p)
    memcpy(to, p->words, BLOCK_BYTES);
  else
    memset(to, 0, BLOCK_BYTES);
}

static uint64_t mix(uint64_t a, uint64_t b) {
  __uint128_t m =
      (__uint128_t)(a ^ UINT64_C(0xa0761d6478bd642f)) * (b ^ UINT64_C(0xe7037ed1a0b428db));
  return (uint64_t)m ^ (uint64_t)(m >> 64);
}

static uint64_t page_hash(struct page *p) {
  if (p->hashed) return p->hash;
  uint64_t h = 1;
  for (uint32_t i = 0; i < BLOCK_BYTES / 8; i += 2) h = mix(h ^ p->words[i], p->words[i + 1] + i);
  p->hashed = true;
  p->hash = h;
  return h;
}

/* Zeros count nothing, so that a disk of zeros has the hash 0. */
static uint64_t block_hash(const struct sim_disk *d, uint64_t block, struct page *p) {
  return p ? mix(page_hash(p), mix(d->number + 1, block + 1)) : 0;
}

static uint8_t sectors_that_differ(const struct page *a, const struct page *b) {
  static const char zeros[SECTOR_BYTES];
  uint8_t mask = 0;
  for (uint32_t s = 0; a != b && s < SECTORS_PER_BLOCK; s++) {
    const char *x = a ? (const char *)a->words + s * SECTOR_BYTES : zeros;
    const char *y = b ? (const char *)b->words + s * SECTOR_BYTES : zeros;
    if (memcmp(x, y, SECTOR_BYTES) != 0) mask |= (uint8_t)(1u << s);
  }
  return mask;
}

/* `below` with the kept sectors of `above` over it; a new reference. */
static struct page *page_merge(struct page *below, struct page *above, uint8_t keep) {
  if (keep == 0xff) return page_ref(above);
  if (keep == 0) return page_ref(below);
  uint64_t bytes[BLOCK_BYTES / 8], from[BLOCK_BYTES / 8];
  page_read(below, bytes);
  page_read(above, from);
  for (uint32_t s = 0; s < SECTORS_PER_BLOCK; s++)
    if (keep & (1u << s))
      memcpy((char *)bytes + s * SECTOR_BYTES, (char *)from + s * SECTOR_BYTES, SECTOR_BYTES);
  return page_of(bytes);
}

/* ---- One disk -------------------------------------------------------------------------------- */

/* Takes over the reference. */
static void set_now(struct sim_disk *d, uint64_t block, struct page *p) {
  if (d->base && !d->is_touched[block]) {
    if (d->touched_count == d->touched_room) {
      d->touched_room = d->touched_room ? 2 * d->touched_room : 64;
      d->touched = realloc(d->touched, d->touched_room * sizeof *d->touched);
      check(d->touched != NULL);
    }
    d->touched[d->touched_count++] = block;
    d->is_touched[block] = true;
  } else {
    page_unref(d->now[block]);
  }
  d->now[block] = p;
}

static void set_durable(struct sim_disk *d, uint64_t block, struct page *p) {
  d->hash ^= block_hash(d, block, d->durable[block]) ^ block_hash(d, block, p);
  page_unref(d->durable[block]);
  d->durable[block] = p;
  d->io->changes++;
}

/* Of one block what came before is overtaken by what is durable now. */
static void drop_cached(struct sim_disk *d, uint64_t block, uint32_t before) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < d->cached_count; i++) {
    if (i < before && d->cached[i].block == block)
      page_unref(d->cached[i].page);
    else
      d->cached[kept++] = d->cached[i];
  }
  d->cached_count = kept;
}

static void cache(struct sim_disk *d, uint64_t block, struct page *p, uint64_t order) {
  if (d->cached_count == d->cached_room) {
    d->cached_room = d->cached_room ? 2 * d->cached_room : 64;
    d->cached = realloc(d->cached, d->cached_room * sizeof *d->cached);
    check(d->cached != NULL);
  }
  d->cached[d->cached_count++] = (struct cached){block, order, p};
}

static void store_block(struct sim_disk *d, uint64_t block, struct page *p, bool durable,
                        uint64_t order) {
  if (block >= d->blocks) {
    page_unref(p);
    return;
  }
  set_now(d, block, page_ref(p));
  if (!d->durable) {
    page_unref(p);
  } else if (durable) {
    drop_cached(d, block, d->cached_count);
    set_durable(d, block, p);
  } else {
    cache(d, block, p, order);
  }
}

/* What had completed before `mark` becomes durable; in order, so that the last of a block stays. */
static void flush_cached(struct sim_disk *d, uint64_t mark) {
  uint32_t kept = 0;
  for (uint32_t i = 0; i < d->cached_count; i++) {
    struct cached *c = &d->cached[i];
    if (c->order >= mark) {
      d->cached[kept++] = *c;
      continue;
    }
    uint32_t before = kept; /* those that a failed flush has left behind */
    for (uint32_t k = 0; k < before; k++)
      if (d->cached[k].block == c->block) {
        page_unref(d->cached[k].page);
        memmove(&d->cached[k], &d->cached[k + 1], (--kept - k) * sizeof *d->cached);
        before--;
        k--;
      }
    set_durable(d, c->block, c->page);
  }
  d->cached_count = kept;
}

void sim_disk_write(struct sim_disk *d, uint64_t block, const void *buf, uint64_t blocks) {
  for (uint64_t i = 0; i < blocks; i++)
    store_block(d, block + i, page_of((const char *)buf + (i << BLOCK_SHIFT)), true, 0);
}

void sim_disk_flip(struct sim_disk *d, uint64_t block, uint32_t bit) {
  char bytes[BLOCK_BYTES] __attribute__((aligned(8)));
  page_read(d->now[block], bytes);
  bytes[bit / 8] ^= (char)(1 << bit % 8);
  sim_disk_write(d, block, bytes, 1);
}

/* ---- Backings: what recovery and layout read --------------------------------------------------
 */

static struct sim_disk *disk_of(struct backing *b) {
  return container_of(b, struct sim_disk, backing);
}

static int disk_read(struct backing *b, void *buf, uint64_t bytes, uint64_t offset) {
  struct sim_disk *d = disk_of(b);
  uint64_t block = offset >> BLOCK_SHIFT, count = bytes >> BLOCK_SHIFT;
  if (d->io->faults.gone || block > d->blocks || count > d->blocks - block) return -EIO;
  d->io->reads++;
  if (random_chance(&d->io->random, d->io->faults.read_error)) {
    d->io->faults.injected++;
    return -EIO;
  }
  for (uint64_t i = 0; i < count; i++)
    page_read(d->now[block + i], (char *)buf + (i << BLOCK_SHIFT));
  return 0;
}

static int disk_write(struct backing *b, const void *buf, uint64_t bytes, uint64_t offset) {
  struct sim_disk *d = disk_of(b);
  uint64_t block = offset >> BLOCK_SHIFT, count = bytes >> BLOCK_SHIFT;
  if (d->io->faults.gone || block > d->blocks || count > d->blocks - block) return -EIO;
  for (uint64_t i = 0; i < count; i++)
    store_block(d, block + i, page_of((const char *)buf + (i << BLOCK_SHIFT)), false,
                d->io->order++);
  return 0;
}

static int disk_flush(struct backing *b) {
  struct sim_disk *d = disk_of(b);
  if (d->io->faults.gone) return -EIO;
  flush_cached(d, d->io->order);
  return 0;
}

/* Blocks that were given back read as zeros, or as what they were: what of it a power cut keeps is
 * as undecided as with a write. */
static int disk_punch(struct backing *b, uint64_t bytes, uint64_t offset) {
  struct sim_disk *d = disk_of(b);
  if (d->io->faults.gone) return -EIO;
  for (uint64_t i = 0; i < bytes >> BLOCK_SHIFT; i++)
    if (random_percent(&d->io->random, 80))
      store_block(d, (offset >> BLOCK_SHIFT) + i, NULL, false, d->io->order++);
  return 0;
}

static int disk_resize(struct backing *b, uint64_t bytes, bool reserve) {
  (void)b, (void)bytes, (void)reserve;
  return -EOPNOTSUPP;
}

static int disk_lock(struct backing *b, bool exclusive, uint32_t timeout_ms) {
  (void)b, (void)exclusive, (void)timeout_ms;
  return 0;
}

static void disk_close(struct backing *b) { (void)b; }

static const struct backing_ops disk_ops = {.read = disk_read,
                                            .write = disk_write,
                                            .flush = disk_flush,
                                            .punch = disk_punch,
                                            .resize = disk_resize,
                                            .lock = disk_lock,
                                            .close = disk_close};

/* ---- The engine -------------------------------------------------------------------------------
 */

struct request {
  struct io *io;
  uint64_t due_ns, mark;
};
struct sim_device {
  struct device device;
  struct sim_io *io;
  struct sim_device *next;
  struct sim_disk *files[SIM_DISKS_MAX];
  struct request *requests; /* in the order of submission */
  uint32_t count, room;
  uint32_t done_count;
  bool woken;
  struct device_stats stats;
};

static struct sim_device *device_of(const struct device *d) {
  return (struct sim_device *)((uintptr_t)d - offsetof(struct sim_device, device));
}

static int sim_create(struct device **out, const struct device_options *options) {
  struct sim_device *d = calloc(1, sizeof *d);
  if (!d) return -ENOMEM;
  d->device.ops = &device_sim;
  d->io = options->clock.arg;
  d->next = d->io->devices;
  d->io->devices = d;
  *out = &d->device;
  return 0;
}

static void sim_destroy(struct device *device) {
  struct sim_device *d = device_of(device), **at = &d->io->devices;
  check(d->count == 0);
  while (*at != d) at = &(*at)->next;
  *at = d->next;
  free(d->requests);
  free(d);
}

static int sim_attach(struct device *device, uint16_t slot, struct backing *b) {
  check(slot < SIM_DISKS_MAX);
  device_of(device)->files[slot] = disk_of(b);
  return 0;
}

static int sim_register(struct device *d, uint32_t index, void *base, size_t bytes) {
  (void)d, (void)index, (void)base, (void)bytes;
  return 0;
}
static void sim_unregister(struct device *d, uint32_t index) { (void)d, (void)index; }

static void moment(struct sim_io *io) {
  if (io->moment) io->moment(io, io->moment_arg);
}

static void sim_submit(struct device *device, struct io *io) {
  struct sim_device *d = device_of(device);
  struct sim_io *s = d->io;
  check(d->files[io->file] != NULL);
  if (io->op != IO_FLUSH) {
    check(is_aligned((uintptr_t)io->buf | io->offset | io->bytes, BLOCK_BYTES));
    check(io->bytes - 1 < IO_BYTES_MAX && (io->op == IO_READ || io->op == IO_WRITE));
  }
  if (d->count == d->room) {
    d->room = d->room ? 2 * d->room : 64;
    d->requests = realloc(d->requests, d->room * sizeof *d->requests);
    check(d->requests != NULL);
  }
  uint64_t delay = 0;
  if (!s->calm) /* most are quick, some take very long */
    delay = random_below(&s->random, 1 + (s->delay_ns_max >> random_below(&s->random, 8)));
  if (io->op == IO_READ && s->slow_reads) delay *= s->slow_reads;
  d->requests[d->count++] =
      (struct request){.io = io, .due_ns = s->now_ns + delay, .mark = s->order};
  if (io->op == IO_WRITE) moment(s);
}

static bool fault(struct sim_io *s, const struct io *io, uint32_t chance) {
  uint64_t block = io->offset >> BLOCK_SHIFT;
  if (s->faults.to_block && (block < s->faults.from_block || block >= s->faults.to_block))
    return false;
  if (!random_chance(&s->random, chance)) return false;
  s->faults.injected++;
  return true;
}

/* Preferably one that means something: zeros are mostly padding. */
static uint32_t choose_bit(struct sim_io *s, const char *block) {
  uint32_t bit = 0;
  for (int tries = 0; tries < 30; tries++) {
    bit = (uint32_t)random_below(&s->random, BLOCK_BYTES * 8);
    if (block[bit / 8]) break;
  }
  return bit;
}

static void write_blocks(struct sim_disk *d, const struct io *io, uint64_t to, bool torn) {
  struct sim_io *s = d->io;
  bool flip = fault(s, io, s->faults.bit_flip), zero = fault(s, io, s->faults.zero_block);
  uint64_t count = io->bytes >> BLOCK_SHIFT, order = s->order++;
  uint64_t flipped = flip ? random_below(&s->random, count) : count;
  uint64_t zeroed = zero ? random_below(&s->random, count) : count;
  for (uint64_t i = 0; i < count; i++) {
    struct page *p = i == zeroed ? NULL : page_of((const char *)io->buf + (i << BLOCK_SHIFT));
    if (torn) {
      struct page *whole = p;
      p = page_merge(d->now[to + i], whole, (uint8_t)random_next(&s->random));
      page_unref(whole);
    }
    store_block(d, to + i, p, io->flags & IO_FUA, order);
    if (i == flipped && to + i < d->blocks)
      sim_disk_flip(d, to + i, choose_bit(s, (const char *)io->buf + (i << BLOCK_SHIFT)));
  }
}

static int32_t do_write(struct sim_disk *d, const struct io *io) {
  struct sim_io *s = d->io;
  uint64_t block = io->offset >> BLOCK_SHIFT;
  if (fault(s, io, s->faults.no_space)) return -ENOSPC;
  if (fault(s, io, s->faults.write_error)) {
    write_blocks(d, io, block, true);
    return -EIO;
  }
  /* A lost root, or a lost commit at the very end of a log, looks as if it had never been: nobody
   * can tell, and docs/reliability.md says so. */
  bool last_word = io->flags & IO_FUA;
  if (!last_word && fault(s, io, s->faults.lose_write)) return 0;
  if (!last_word && fault(s, io, s->faults.misdirect)) block = random_below(&s->random, d->blocks);
  write_blocks(d, io, block, false);
  return 0;
}

/* After a failed flush nobody knows what became of the writes: no later flush covers them. One that
 * was on its way at the same time fails, too. */
static int32_t do_flush(struct sim_disk *d, const struct io *io, uint64_t mark) {
  struct sim_io *s = d->io;
  if (mark >= d->failed_order && !fault(s, io, s->faults.flush_error)) {
    flush_cached(d, mark);
    return 0;
  }
  d->failed_order = ++s->order;
  for (uint32_t i = 0; i < d->cached_count; i++)
    if (d->cached[i].order < mark) d->cached[i].order = UINT64_MAX;
  return -EIO;
}

static int32_t take_effect(struct sim_device *dev, const struct request *r) {
  struct sim_io *s = dev->io;
  struct io *io = r->io;
  struct sim_disk *d = dev->files[io->file];
  if (s->faults.gone) return -EIO;
  if (io->op == IO_FLUSH) {
    s->flushes++;
    return do_flush(d, io, r->mark);
  }
  uint64_t block = io->offset >> BLOCK_SHIFT, count = io->bytes >> BLOCK_SHIFT;
  if (block > d->blocks || count > d->blocks - block) return -EIO;
  if (io->op == IO_WRITE) {
    s->writes++;
    return do_write(d, io);
  }
  s->reads++;
  if (fault(s, io, s->faults.read_error)) return -EIO;
  for (uint64_t i = 0; i < count; i++)
    page_read(d->now[block + i], (char *)io->buf + (i << BLOCK_SHIFT));
  return 0;
}

/* One that is due, by chance if there are more; NULL: none. */
static struct io *next_due(struct sim_device *d) {
  struct sim_io *s = d->io;
  uint32_t from = s->calm ? 0 : (uint32_t)random_below(&s->random, d->count);
  for (uint32_t k = 0; k < d->count; k++) {
    uint32_t i = (from + k) % d->count;
    if (d->requests[i].due_ns > s->now_ns) continue;
    struct request r = d->requests[i];
    r.io->result = take_effect(d, &r);
    memmove(&d->requests[i], &d->requests[i + 1], (--d->count - i) * sizeof *d->requests);
    s->events++;
    d->stats.ios++;
    d->stats.flushes += r.io->op == IO_FLUSH;
    d->stats.fua_writes += r.io->op == IO_WRITE && (r.io->flags & IO_FUA);
    if (r.io->op != IO_READ) moment(s);
    return r.io;
  }
  return NULL;
}

static uint32_t sim_poll(struct device *device) {
  struct sim_device *d = device_of(device);
  struct io *first = NULL, **last = &first, *io;
  uint32_t n = 0;
  d->io->now_ns += d->io->calm ? 1 : random_in(&d->io->random, 1, 500);
  for (uint32_t left = d->count; left > 0 && (io = next_due(d)); left--) {
    io->next = NULL;
    *last = io;
    last = &io->next;
    n++;
  }
  d->done_count = n;
  while (first) {
    io = first;
    first = io->next;
    d->done_count--;
    io->done(io);
  }
  return n;
}

static void sim_sleep(struct device *d, int64_t timeout_ns) { (void)d, (void)timeout_ns; }
static void sim_wake(struct device *d) { device_of(d)->woken = true; }

uint64_t sim_device_due_ns(const struct device *device) {
  const struct sim_device *d = device_of(device);
  uint64_t due = UINT64_MAX;
  for (uint32_t i = 0; i < d->count; i++) due = min_u64(due, d->requests[i].due_ns);
  return due;
}

bool sim_device_take_wake(struct device *device) {
  bool woken = device_of(device)->woken;
  device_of(device)->woken = false;
  return woken;
}
static uint32_t sim_in_flight(const struct device *device) {
  const struct sim_device *d = device_of(device);
  return d->count + d->done_count;
}
static void sim_stats(const struct device *d, struct device_stats *stats) {
  *stats = device_of(d)->stats;
}

const struct device_ops device_sim = {.name = "sim",
                                      .create = sim_create,
                                      .destroy = sim_destroy,
                                      .attach = sim_attach,
                                      .register_memory = sim_register,
                                      .unregister_memory = sim_unregister,
                                      .submit = sim_submit,
                                      .poll = sim_poll,
                                      .sleep = sim_sleep,
                                      .wake = sim_wake,
                                      .in_flight = sim_in_flight,
                                      .stats = sim_stats};

/* ---- Power cuts -------------------------------------------------------------------------------
 */

static void add_atom(struct cut *cut, const struct sim_disk *d, uint64_t block, struct page *page,
                     bool in_flight, uint64_t write) {
  uint8_t changes = sectors_that_differ(d->durable[block], page);
  for (uint32_t i = 0; i < cut->count; i++)
    if (cut->atoms[i].disk == d->number && cut->atoms[i].block == block)
      changes |= cut->atoms[i].changes | sectors_that_differ(cut->atoms[i].page, page);
  if (!changes) {
    page_unref(page);
    return;
  }
  if (cut->count == cut->room) {
    cut->room = cut->room ? 2 * cut->room : 64;
    cut->atoms = realloc(cut->atoms, cut->room * sizeof *cut->atoms);
    check(cut->atoms != NULL);
  }
  cut->atoms[cut->count++] = (struct atom){.disk = d->number,
                                           .block = block,
                                           .page = page,
                                           .changes = changes,
                                           .in_flight = in_flight,
                                           .write = write};
}

void sim_cut_take(struct cut *cut, const struct sim_io *io) {
  check(cut->count == 0);
  for (uint32_t i = 0; i < io->disk_count; i++) {
    const struct sim_disk *d = &io->disks[i];
    for (uint32_t k = 0; k < d->cached_count; k++)
      add_atom(cut, d, d->cached[k].block, page_ref(d->cached[k].page), false, d->cached[k].order);
  }
  uint64_t write = io->order;
  for (const struct sim_device *dev = io->devices; dev; dev = dev->next)
    for (uint32_t i = 0; i < dev->count; i++) {
      const struct io *w = dev->requests[i].io;
      if (w->op != IO_WRITE) continue;
      write++;
      for (uint64_t k = 0; k < w->bytes >> BLOCK_SHIFT; k++)
        add_atom(cut, dev->files[w->file], (w->offset >> BLOCK_SHIFT) + k,
                 page_of((const char *)w->buf + (k << BLOCK_SHIFT)), true, write);
    }
}

void sim_cut_clear(struct cut *cut) {
  for (uint32_t i = 0; i < cut->count; i++) page_unref(cut->atoms[i].page);
  cut->count = 0;
}

void sim_cut_free(struct cut *cut) {
  sim_cut_clear(cut);
  free(cut->atoms);
  *cut = (struct cut){0};
}

/* ---- Worlds and images ------------------------------------------------------------------------
 */

static uint64_t sim_now(void *arg) { return ((struct sim_io *)arg)->now_ns; }

static void world_create(struct sim_io *io, uint64_t seed) {
  memset(io, 0, sizeof *io);
  io->clock = (struct clock){sim_now, io};
  io->now_ns = 1;
  io->random.state = seed;
  io->delay_ns_max = 20000;
}

static void disk_create(struct sim_io *io, uint32_t number, uint64_t blocks, bool image) {
  struct sim_disk *d = &io->disks[number];
  d->io = io;
  d->number = number;
  d->blocks = blocks;
  d->now = calloc(blocks, sizeof *d->now);
  d->durable = image ? NULL : calloc(blocks, sizeof *d->durable);
  d->base = image ? calloc(blocks, sizeof *d->base) : NULL;
  d->is_touched = image ? calloc(blocks, sizeof *d->is_touched) : NULL;
  check(d->now && (image ? d->base && d->is_touched : d->durable != NULL));
  d->backing = (struct backing){.ops = &disk_ops,
                                .fd = -1,
                                .lock_fd = -1,
                                .bytes = blocks << BLOCK_SHIFT,
                                .device_id = number + 1,
                                .numa_node = -1};
  snprintf(d->backing.name, sizeof d->backing.name, "disk%u", number);
}

void sim_io_create(struct sim_io *io, uint64_t seed, uint32_t disk_count, const uint64_t *blocks) {
  check(disk_count <= SIM_DISKS_MAX);
  world_create(io, seed);
  io->disk_count = disk_count;
  for (uint32_t i = 0; i < disk_count; i++) disk_create(io, i, blocks[i], false);
}

static void take_back(struct sim_disk *d) {
  for (uint32_t i = 0; i < d->touched_count; i++) {
    uint64_t block = d->touched[i];
    page_unref(d->now[block]);
    d->now[block] = d->base[block];
    d->is_touched[block] = false;
  }
  d->touched_count = 0;
}

static void drop_pages(struct sim_disk *d) {
  for (uint32_t k = 0; k < d->cached_count; k++) page_unref(d->cached[k].page);
  d->cached_count = 0;
  for (uint64_t b = 0; !d->base && b < d->blocks; b++) {
    page_unref(d->now[b]);
    page_unref(d->durable[b]);
  }
}

void sim_io_destroy(struct sim_io *io) {
  check(!io->devices);
  for (uint32_t i = 0; i < io->disk_count; i++) {
    struct sim_disk *d = &io->disks[i];
    if (d->base) take_back(d);
    drop_pages(d);
    free(d->now);
    free(d->durable);
    free(d->base);
    free(d->is_touched);
    free(d->touched);
    free(d->cached);
  }
}

void sim_backings(struct sim_io *io, struct backing **backings) {
  for (uint32_t i = 0; i < io->disk_count; i++) {
    io->disks[i].backing.flush_failed = false; /* as after an open */
    backings[i] = &io->disks[i].backing;
  }
}

void sim_image_create(struct sim_io *image, const struct sim_io *of, uint64_t seed) {
  world_create(image, seed);
  image->calm = true;
  image->changes = UINT64_MAX;
  image->disk_count = of->disk_count;
  for (uint32_t i = 0; i < of->disk_count; i++) disk_create(image, i, of->disks[i].blocks, true);
}

void sim_image_set(struct sim_io *image, const struct sim_io *of, const struct cut *cut,
                   const uint8_t *keep) {
  for (uint32_t i = 0; i < image->disk_count; i++) {
    struct sim_disk *d = &image->disks[i];
    take_back(d);
    if (image->changes == of->changes) continue;
    memcpy(d->base, of->disks[i].durable, d->blocks * sizeof *d->base);
    memcpy(d->now, of->disks[i].durable, d->blocks * sizeof *d->now);
  }
  image->changes = of->changes;
  for (uint32_t i = 0; i < cut->count; i++) {
    const struct atom *a = &cut->atoms[i];
    if (!(keep[i] & a->changes)) continue;
    struct sim_disk *d = &image->disks[a->disk];
    uint8_t all = (keep[i] & a->changes) == a->changes ? 0xff : keep[i];
    set_now(d, a->block, page_merge(d->now[a->block], a->page, all));
  }
}

uint64_t sim_image_hash(const struct sim_io *image, const struct sim_io *of) {
  uint64_t hash = 0;
  for (uint32_t i = 0; i < image->disk_count; i++) {
    const struct sim_disk *d = &image->disks[i];
    hash ^= of->disks[i].hash;
    for (uint32_t k = 0; k < d->touched_count; k++) {
      uint64_t b = d->touched[k];
      hash ^= block_hash(d, b, d->base[b]) ^ block_hash(d, b, d->now[b]);
    }
  }
  return hash;
}

void sim_power_on(struct sim_io *io, const struct sim_io *image) {
  check(!io->devices);
  for (uint32_t i = 0; i < io->disk_count; i++) {
    struct sim_disk *d = &io->disks[i];
    for (uint32_t k = 0; k < d->cached_count; k++) page_unref(d->cached[k].page);
    d->cached_count = 0;
    for (uint64_t b = 0; b < d->blocks; b++) {
      struct page *p = image->disks[i].now[b];
      if (p == d->durable[b] && p == d->now[b]) continue;
      set_now(d, b, page_ref(p));
      set_durable(d, b, page_ref(p));
    }
  }
}
